//! `POST transaction`, as far as recurring cards go: it registers a card without a profile (`FIRST`), or debits one (`STANDARD`).
//!
//! imoje's documents show neither the members of `card` nor what a shop without a certificate is answered; what stands here for them
//! is what clients send and what imoje's FAQ quotes.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;
use uuid::Uuid;

use super::{
    book::NamedCard,
    challenge::Challenge,
    debit::{self, Accepted, check_json, not_acceptable, unprocessable},
    engine::Engine,
    profile::SimulatedProfile,
    reply::Reply,
    schema::TRANSACTION,
    script::CardData,
    validation::{self, Violation},
};

/// What a registration says about a card.
const WHOLE_CARD: [&str; 6] = ["firstName", "lastName", "number", "month", "year", "cvv"];

/// Decides about a transaction. Whatever comes of it is in the ledger before this returns.
pub(super) async fn transact(
    engine: &Arc<Engine>,
    origin: &Arc<str>,
    merchant_id: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Reply {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let is_json = parsed.is_some();
    let instance = parsed.unwrap_or_default();
    let accepted = accept(engine, origin, merchant_id, headers, is_json, &instance);
    debit::execute(engine, accepted, &instance).await
}

fn accept(
    engine: &Engine,
    origin: &Arc<str>,
    merchant_id: &str,
    headers: &HeaderMap,
    is_json: bool,
    instance: &Value,
) -> Accepted {
    let caller = engine.authorise(headers, merchant_id)?;
    check_json(headers, is_json)?;
    let rules = engine.book().card_data();
    let instance = &if rules.knows_aliases {
        without_aliases(instance)
    } else {
        instance.clone()
    };
    let mut errors = validation::violations(TRANSACTION, instance);
    errors.extend(card_conditions(instance, rules));
    if !errors.is_empty() {
        return Err(unprocessable("TRX-ERROR-120001", instance, &errors));
    }
    let is = |field: &str, word: &str| instance[field].as_str() == Some(word);
    if !is("paymentMethod", "card") || !is("paymentMethodCode", "recurring") {
        return Err(not_acceptable(instance));
    }
    if !rules.allowed {
        return Err(Box::new(Reply::error(
            StatusCode::FORBIDDEN,
            "SIM-ERROR-CARD-DATA",
            "Cannot process transaction. Plain card data disabled.",
            instance,
            &[],
        )));
    }
    let card = &instance["card"];
    let (named, challenge) = match card["firstTransactionId"].as_str() {
        Some(first) => (NamedCard::FirstTransaction(first.into()), None),
        None => (
            NamedCard::New(Box::new(registered(card, &instance["customer"]))),
            Challenge::of(instance, origin),
        ),
    };
    debit::request(engine, &caller, instance, named, challenge)
}

/// The same request with card data in the place of aliases.
fn without_aliases(instance: &Value) -> Value {
    let mut instance = instance.clone();
    for (name, data) in [("number", "4111111111111111"), ("cvv", "123")] {
        if let Some(alias) = instance["card"].get_mut(name)
            && alias.is_string()
        {
            *alias = data.into();
        }
    }
    instance
}

/// What `profileType` asks of the card.
fn card_conditions(instance: &Value, rules: CardData) -> Vec<Violation> {
    let card = &instance["card"];
    let (needed, refused): (Vec<&str>, &[&str]) = match instance["profileType"].as_str() {
        Some("FIRST") => (WHOLE_CARD.to_vec(), &["firstTransactionId"]),
        Some("STANDARD") => {
            let mut needed = vec!["firstTransactionId"];
            if rules.standard_needs_all {
                needed.extend(WHOLE_CARD.iter().filter(|name| **name != "cvv"));
            }
            (needed, &["cvv"])
        }
        // A card without a profile is what this is for; the rest of the operation is not simulated.
        Some(_) | None => {
            return vec![Violation {
                property: "instance".to_owned(),
                message: "requires property \"profileType\"".to_owned(),
            }];
        }
    };
    let mut found = Vec::new();
    let mut add = |message| {
        found.push(Violation {
            property: "instance.card".to_owned(),
            message,
        });
    };
    for name in needed {
        if card.get(name).is_none() {
            add(format!("requires property \"{name}\""));
        }
    }
    for name in refused {
        if card.get(*name).is_some() {
            add(format!(
                "is not allowed to have the additional property \"{name}\""
            ));
        }
    }
    found
}

/// A card without a profile, as it is registered.
fn registered(card: &Value, customer: &Value) -> SimulatedProfile {
    let text = |object: &Value, name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let number = text(card, "number");
    let last_four = number.len().saturating_sub(4);
    let id = Uuid::new_v4();
    SimulatedProfile {
        cid: customer["cid"].as_str().map(str::to_owned),
        first_name: text(card, "firstName"),
        last_name: text(card, "lastName"),
        email: text(customer, "email"),
        masked_number: format!("****{}", &number[last_four..]),
        expiry_month: text(card, "month").parse().unwrap_or(12),
        expiry_year: full_year(&text(card, "year")),
        first_transaction_id: Some(format!("first-{}", id.simple())),
        ..SimulatedProfile::new(id)
    }
}

/// Clients send four digits; the sandbox cards are printed with two.
fn full_year(year: &str) -> i32 {
    match year.parse() {
        Ok(short @ 0..=99) => 2000 + short,
        Ok(year) => year,
        Err(_) => 2099,
    }
}
