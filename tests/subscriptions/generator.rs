//! Import files, as large as a test needs them.

use std::fmt::Write as _;

/// The header of every generated file.
pub const HEADER: &str =
    "external_id,cid,payment_profile_id,amount_minor,currency,period,anchor_date";

/// A file of `count` subscriptions, `sub-0` and on, each on a card of its own.
pub fn file(count: u32) -> String {
    let mut text = format!("{HEADER}\n");
    for number in 0..count {
        writeln!(text, "{}", row(number)).unwrap();
    }
    text
}

/// A file of these rows.
pub fn file_of<'a>(rows: impl IntoIterator<Item = &'a str>) -> String {
    let rows: Vec<&str> = rows.into_iter().collect();
    format!("{HEADER}\n{}\n", rows.join("\n"))
}

/// One subscription, monthly on the last day of the month.
pub fn row(number: u32) -> String {
    format!(
        "sub-{number},cus-{number},{},1999,PLN,P1M,2027-01-31",
        profile(number)
    )
}

/// The profile of the card `cus-{number}`.
pub fn profile(number: u32) -> String {
    format!("c0de0b1e-1111-4222-8333-{number:012}")
}
