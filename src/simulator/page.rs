//! Pages for a payer with a browser: that of a payment link, and that of 3-D Secure. Plain forms; the real ones are imoje's and the issuers'.

use std::{fmt::Write, sync::Arc};

use axum::http::StatusCode;
use uuid::Uuid;

use super::{
    engine::Engine,
    links::{Link, Paid, PayersCard, sandbox_numbers},
    reply::Reply,
};

/// What the payer sees.
pub(super) fn show(engine: &Engine, id: Option<Uuid>) -> Reply {
    let now = engine.now();
    let book = engine.book();
    match id.and_then(|id| book.link(id)) {
        Some(link) if book.can_be_paid(link, now) => Reply::page(StatusCode::OK, form(link)),
        Some(_) => gone(),
        None => nothing(),
    }
}

/// The payer pays, or leaves. Leads on to where the shop wants payers to go.
pub(super) async fn submit(engine: &Arc<Engine>, id: Option<Uuid>, body: &[u8]) -> Reply {
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(body)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    let field = |name: &str| {
        let found = fields.iter().find(|(field, _)| field == name);
        found.map_or("", |(_, value)| value.trim())
    };
    let Some(link) = id.and_then(|id| engine.book().link(id).cloned()) else {
        return nothing();
    };
    if field("action") == "leave" {
        return lead(&link, "failureReturnUrl", "Nothing was paid.");
    }
    let number: String = field("number")
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    let (Ok(expiry_month @ 1..=12), Ok(year), 12..=19) = (
        field("month").parse(),
        field("year").parse::<i32>(),
        number.len(),
    ) else {
        return Reply::page(
            StatusCode::UNPROCESSABLE_ENTITY,
            page("Pay", "<p role=\"alert\">This is not a card.</p>"),
        );
    };
    let card = PayersCard {
        number,
        expiry_month,
        expiry_year: if year < 100 { 2000 + year } else { year },
    };
    let now = engine.now();
    let paid = engine.book().pay(link.id, &card, now);
    let Paid::Booked {
        transaction,
        notices,
    } = paid
    else {
        return gone();
    };
    let status = transaction.status_at(now).to_owned();
    tracing::info!(order.id = %link.order_id, amount = link.amount_minor, status, "paid by link");
    engine.deliver_before_answer(notices).await;
    match status.as_str() {
        "settled" => lead(&link, "successReturnUrl", "Thank you, it is paid."),
        "rejected" => lead(&link, "failureReturnUrl", "The card was declined."),
        _ => lead(&link, "returnUrl", "It is under way."),
    }
}

/// What a payer sees who is to confirm a payment.
pub(super) fn ask(engine: &Engine, id: Option<Uuid>) -> Reply {
    let now = engine.now();
    let book = engine.book();
    let waiting = id.and_then(|id| {
        let (transaction, _) = book.transaction(id, now)?;
        let challenge = book.challenges.get(&id)?;
        (transaction.status_at(now) == "pending").then_some((transaction, challenge))
    });
    let Some((transaction, challenge)) = waiting else {
        return not_waiting();
    };
    let price = price(transaction.amount_minor, transaction.currency.code());
    let body = format!(
        "{NOTE}<p>{}</p><p class=\"amount\">{price}</p><form method=\"post\">\
         <button name=\"action\" value=\"confirm\">It is me</button> \
         <button name=\"action\" value=\"leave\">It is not</button></form>",
        escaped(challenge.text("title")),
    );
    Reply::page(StatusCode::OK, page("Confirm the payment", &body))
}

/// The payer confirms a payment, or does not. Leads on to where the shop wants payers to go.
pub(super) fn confirm(engine: &Engine, id: Option<Uuid>, body: &[u8]) -> Reply {
    let is_his = url::form_urlencoded::parse(body)
        .any(|(name, value)| name == "action" && value == "confirm");
    let now = engine.now();
    let confirmed = id.and_then(|id| engine.book().confirm(id, is_his, now));
    let Some((transaction, challenge)) = confirmed else {
        return not_waiting();
    };
    tracing::info!(order.id = %transaction.order_id, is_his, "answered by its payer");
    let address = if is_his {
        "successReturnUrl"
    } else {
        "failureReturnUrl"
    };
    Reply::see_other(challenge.text(address))
}

fn not_waiting() -> Reply {
    let body = "<p role=\"alert\">There is no payment that waits for you.</p>";
    Reply::page(StatusCode::NOT_FOUND, page("Confirm the payment", body))
}

fn price(minor: u32, currency: &str) -> String {
    format!("{}.{:02} {currency}", minor / 100, minor % 100)
}

/// Leads to an address of the shop, or says what became of the payment.
fn lead(link: &Link, address: &str, said: &str) -> Reply {
    match link.text(address).or(link.text("returnUrl")) {
        Some(address) => Reply::see_other(address),
        None => Reply::page(
            StatusCode::OK,
            page("Done", &format!("<p role=\"status\">{said}</p>")),
        ),
    }
}

fn gone() -> Reply {
    let body = "<p role=\"alert\">This link was paid, cancelled, or has expired.</p>";
    Reply::page(StatusCode::GONE, page("Pay", body))
}

fn nothing() -> Reply {
    let body = "<p role=\"alert\">There is no such link.</p>";
    Reply::page(StatusCode::NOT_FOUND, page("Pay", body))
}

fn form(link: &Link) -> String {
    let mut body = String::new();
    let title = link.text("title").unwrap_or_default();
    let price = price(link.amount_minor, link.currency.code());
    let mut say = |text: &str| body.push_str(text);
    say(NOTE);
    if !title.is_empty() {
        say(&format!("<p>{}</p>", escaped(title)));
    }
    say(&format!(
        "<p class=\"amount\">{price}</p><form method=\"post\">"
    ));
    say(
        "<label>Card number <input name=\"number\" inputmode=\"numeric\" autocomplete=\"off\" list=\"cards\" \
         value=\"4111111111111111\" required></label>",
    );
    say("<datalist id=\"cards\">");
    for number in sandbox_numbers() {
        say(&format!("<option value=\"{number}\">"));
    }
    say("</datalist>");
    say(
        "<div class=\"row\"><label>Month <input name=\"month\" value=\"12\" size=\"2\" required></label>",
    );
    say("<label>Year <input name=\"year\" value=\"2099\" size=\"4\" required></label>");
    say("<label>CVV <input name=\"cvv\" value=\"123\" size=\"3\"></label></div>");
    say(&format!(
        "<button name=\"action\" value=\"pay\">Pay {price}</button> \
         <button name=\"action\" value=\"leave\" formnovalidate>Leave</button></form>"
    ));
    page("Pay", &body)
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head>\
         <body><main><h1>{title}</h1>{body}</main></body></html>"
    )
}

const NOTE: &str =
    "<p class=\"note\">A simulator. No money moves here, and no real card belongs here.</p>";

const STYLE: &str = "body{font:1rem/1.5 system-ui,sans-serif;background:#f3f4f6;color:#111827;margin:0}\
main{max-width:26rem;margin:3rem auto;padding:2rem;background:#fff;border-radius:.75rem;box-shadow:0 1px 4px #0002}\
h1{margin:0 0 1rem}label{display:block;margin:.75rem 0}input{display:block;width:100%;box-sizing:border-box;padding:.5rem;\
font:inherit;border:1px solid #9ca3af;border-radius:.375rem}.row{display:flex;gap:1rem}.amount{font-size:2rem;font-weight:600;margin:.5rem 0}\
.note{background:#fef3c7;padding:.5rem .75rem;border-radius:.375rem}button{font:inherit;padding:.6rem 1.2rem;border:0;border-radius:.375rem;\
background:#1d4ed8;color:#fff;cursor:pointer}button[value=leave]{background:#e5e7eb;color:#111827}";

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' | '>' | '&' | '"' | '\'' => {
                let _ = write!(safe, "&#{};", u32::from(letter));
            }
            letter => safe.push(letter),
        }
    }
    safe
}
