use chrono_tz::Europe::Warsaw;
use proptest::prelude::*;

use super::*;

const PROFILE: &str = "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
const INVOICE: &str = r#"{"buyer":{"type":"PERSON","email":"a@example.test","fullName":"Jan Kowalski","street":"Polna 1","city":"Warszawa","postalCode":"00-001","countryCodeAlpha2":"PL"},"positions":[{"name":"Abonament","code":"A-1","quantity":1,"unit":"szt","grossAmount":1999,"taxStake":"TAX_23"}]}"#;

fn circumstances() -> Circumstances {
    Circumstances {
        shops: [("main".parse().unwrap(), Warsaw)].into(),
        usual_shop: Some("main".parse().unwrap()),
        channels: BTreeMap::new(),
        plain_cards: BTreeSet::new(),
        has_card_proxy: false,
        is_without_card: false,
        now: "2026-11-20T12:00:00Z".parse().unwrap(),
    }
}

fn described(changes: &[(Column, &'static str)]) -> Fields<'static> {
    let mut fields: Fields<'static> = [
        (Column::ExternalId, "sub-1"),
        (Column::Cid, "cus-1"),
        (Column::PaymentProfileId, PROFILE),
        (Column::AmountMinor, "1999"),
        (Column::Currency, "PLN"),
        (Column::Period, "P1M"),
        (Column::AnchorDate, "2027-01-31"),
    ]
    .into_iter()
    .collect();
    for (column, text) in changes {
        fields.set(*column, text);
    }
    fields
}

fn read(changes: &[(Column, &'static str)]) -> NewSubscription {
    enrol(&described(changes), &circumstances()).unwrap()
}

fn mistakes(changes: &[(Column, &'static str)]) -> Vec<String> {
    enrol(&described(changes), &circumstances())
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn what_is_described_is_what_is_stored() {
    let subscription = read(&[
        (Column::Title, "Abonament, maj"),
        (Column::StartsOn, "2027-02-01"),
        (Column::EndsOn, "2027-12-31"),
        (Column::MaxCharges, "11"),
        (Column::Timezone, "America/New_York"),
        (Column::NotificationUrl, "https://shop.example.test/imoje"),
    ]);
    assert_eq!(subscription.external_id, "sub-1");
    assert_eq!(subscription.shop.as_str(), "main");
    assert_eq!(
        subscription.card.unwrap().charged.key().to_string(),
        PROFILE
    );
    assert_eq!(subscription.amount.to_string(), "19.99 PLN");
    assert_eq!(subscription.zone, chrono_tz::America::New_York);
    assert_eq!(subscription.first.period_no, 1);
    assert_eq!(subscription.first.due_on.to_string(), "2027-02-28");
    assert_eq!(
        (subscription.paid_elsewhere, subscription.is_overdue),
        (0, false)
    );
    assert_eq!(read(&[]).zone, Warsaw);
}

#[test]
fn what_was_due_before_the_day_of_the_import_counts_as_paid_elsewhere() {
    let old = read(&[(Column::AnchorDate, "2026-01-20")]);
    assert_eq!((old.first.period_no, old.paid_elsewhere), (10, 10));
    assert!(!old.is_overdue);
    let owed = read(&[
        (Column::AnchorDate, "2026-01-20"),
        (Column::PaidUntil, "2026-09-20"),
    ]);
    assert_eq!((owed.first.period_no, owed.paid_elsewhere), (9, 9));
    assert!(owed.is_overdue);
}

#[test]
fn today_is_the_day_of_the_subscriptions_own_zone() {
    let mut circumstances = circumstances();
    circumstances.now = "2026-11-20T23:30:00Z".parse().unwrap();
    let first = |zone| {
        let fields = described(&[
            (Column::AnchorDate, "2026-11-20"),
            (Column::Period, "P1D"),
            (Column::Timezone, zone),
        ]);
        enrol(&fields, &circumstances)
            .unwrap()
            .first
            .due_on
            .to_string()
    };
    assert_eq!(first("Europe/Warsaw"), "2026-11-21");
    assert_eq!(first("Europe/London"), "2026-11-20");
}

const PERIODS: &str = "P7D, P2W, P1M, P3M, P1Y: days, weeks, months or years, at most one year";
const DATES: &str = "a date from 1970 to 2199, written like 2027-01-31";
const AMOUNTS: &str = "1 to 999999999, in minor units: 1999 is 19.99";
const PROFILES: &str =
    "a UUID of version 4 in lower case, such as c0de0b1e-1111-4222-8333-9a4b5c6d7e8f";
const CURRENCIES: &str = "PLN, EUR, USD, GBP, CHF, SEK, HUF, CZK, BGN, RON";
const UPPER: &str = "C0DE0B1E-1111-4222-8333-9A4B5C6D7E8F";

/// Column, text, what is wrong with it, what is allowed.
const WRONG: &[(Column, &str, &str, &str)] = &[
    (
        Column::PaymentProfileId,
        "c0de0b1e",
        "is not the id of a profile",
        PROFILES,
    ),
    (
        Column::PaymentProfileId,
        "c0de0b1e-1111-7222-8333-9a4b5c6d7e8f",
        "is not the id of a profile",
        PROFILES,
    ),
    (
        Column::PaymentProfileId,
        UPPER,
        "is not the id of a profile",
        PROFILES,
    ),
    (
        Column::PaymentProfileId,
        "c0de0b1e1111422283339a4b5c6d7e8f",
        "is not the id of a profile",
        PROFILES,
    ),
    (Column::AmountMinor, "-5", "is out of range", AMOUNTS),
    (Column::AmountMinor, "0", "is out of range", AMOUNTS),
    (
        Column::AmountMinor,
        "1000000000",
        "is out of range",
        AMOUNTS,
    ),
    (
        Column::AmountMinor,
        "19.99",
        "is not a whole number",
        AMOUNTS,
    ),
    (Column::AmountMinor, "+5", "is not a whole number", AMOUNTS),
    (Column::AmountMinor, "١٢", "is not a whole number", AMOUNTS),
    (
        Column::Currency,
        "JPY",
        "is not a currency that imoje takes",
        CURRENCIES,
    ),
    (
        Column::Currency,
        "pln",
        "is not a currency that imoje takes",
        CURRENCIES,
    ),
    (
        Column::Period,
        "P13M",
        "is not between one day and one year",
        PERIODS,
    ),
    (
        Column::Period,
        "P2Y",
        "is not between one day and one year",
        PERIODS,
    ),
    (Column::Period, "monthly", "is not a period", PERIODS),
    (Column::AnchorDate, "31.01.2027", "is not a date", DATES),
    (
        Column::AnchorDate,
        "2027-02-30",
        "is a date that no calendar has",
        DATES,
    ),
    (Column::AnchorDate, "1969-12-31", "is out of range", DATES),
    (Column::PaidUntil, "2027-1-1", "is not a date", DATES),
    (Column::StartsOn, "soon", "is not a date", DATES),
    (
        Column::EndsOn,
        "2027-01-30",
        "is before anchor_date 2027-01-31",
        "2027-01-31 or later",
    ),
    (Column::MaxCharges, "0", "is out of range", "1 to 99999"),
    (
        Column::MaxCharges,
        "x",
        "is not a whole number",
        "1 to 99999",
    ),
    (
        Column::MaxCharges,
        "99999999999999999999999",
        "is out of range",
        "1 to 99999",
    ),
    (
        Column::Timezone,
        "Warsaw",
        "is not a time zone",
        "an IANA name such as Europe/Warsaw",
    ),
    (
        Column::Shop,
        "other",
        "is not a shop of the configuration",
        "main",
    ),
    (
        Column::Cid,
        "cus_1",
        "has the character '_' at position 4",
        "1 to 36 characters of A-Z a-z 0-9 -",
    ),
    (
        Column::ExternalId,
        "a\tb",
        "has the character '\\t' at position 2",
        "1 to 200 printable characters",
    ),
];

#[test]
fn every_wrong_text_is_told_with_what_is_allowed() {
    for &(column, text, problem, allowed) in WRONG {
        let value = text.escape_debug();
        assert_eq!(
            mistakes(&[(column, text)]),
            [format!(
                "{column} \"{value}\" {problem}; allowed: {allowed}"
            )]
        );
    }
}

#[test]
fn columns_with_personal_data_are_not_repeated() {
    for (column, text, message) in [
        (
            Column::NotificationUrl,
            "https://user:secret@localhost/",
            "notification_url names localhost; allowed: an http or https address of at most 300 characters, without a port and without localhost",
        ),
        (
            Column::Invoice,
            "{\"buyer\"",
            "invoice is not JSON (line 1, column 8 of it); allowed: a JSON text as imoje documents it",
        ),
        (
            Column::Title,
            "Rata {month}",
            "title \"Rata {month}\" has a placeholder that does not exist; allowed: {period}, {number}, {shop}",
        ),
        (
            Column::Multipayout,
            r#"[{"ban":"61109010140000071219812874","amount":2000,"label":"A"}]"#,
            "multipayout is wrong: multipayout is 2000 in sum, which is too much; allowed: at most 1999, the amount of the debit",
        ),
        (
            Column::Multipayout,
            "[{\"ban\":\"1\"}]",
            "multipayout is wrong: multipayout[0].ban is too short with 1 characters; allowed: 26 digits",
        ),
    ] {
        assert_eq!(mistakes(&[(column, text)]), [message]);
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    assert_eq!(
        enrol(&Fields::default(), &circumstances())
            .unwrap_err()
            .iter()
            .map(|mistake| mistake.column.unwrap())
            .collect::<Vec<_>>(),
        [
            Column::ExternalId,
            Column::Cid,
            Column::PaymentProfileId,
            Column::AmountMinor,
            Column::Currency,
            Column::Period,
            Column::AnchorDate
        ]
    );
    let found = mistakes(&[
        (Column::AmountMinor, "-1"),
        (Column::Currency, "X"),
        (Column::EndsOn, "2027-01-01"),
        (Column::StartsOn, "2027-02-01"),
    ]);
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn a_card_number_is_refused_in_every_column_and_not_repeated() {
    for column in Column::ALL {
        for number in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "5555-5555-5555-4444",
        ] {
            let found = mistakes(&[(column, number)]);
            assert_eq!(
                found,
                [format!(
                    "{column} looks like a card number; allowed: no card numbers anywhere"
                )]
            );
        }
    }
}

const CUSTOMER: &str = r#"{"firstName":"Anna","lastName":"Nowak","email":"anna@example.test"}"#;
const ALIASES: &str =
    r#"{"firstName":"Anna","lastName":"Nowak","number":"tok-1","month":"12","year":"2029"}"#;

/// A card without a profile, with these changes, read where such cards can be debited.
fn read_plain(changes: &[(Column, &'static str)]) -> Result<NewSubscription, Vec<String>> {
    let plain = [
        (Column::PaymentProfileId, ""),
        (Column::FirstTransactionId, "first-77"),
        (Column::Customer, CUSTOMER),
    ];
    let circumstances = Circumstances {
        plain_cards: ["main".parse().unwrap()].into(),
        has_card_proxy: true,
        is_without_card: false,
        ..circumstances()
    };
    let fields = described(&[&plain[..], changes].concat());
    enrol(&fields, &circumstances).map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_card_without_a_profile_says_who_pays() {
    let read = read_plain(&[(Column::Card, ALIASES)]).unwrap();
    let ChargedCard::Plain(plain) = &read.card.as_ref().unwrap().charged else {
        panic!("{read:?}");
    };
    assert_eq!(plain.first_transaction_id.as_str(), "first-77");
    assert_eq!(plain.customer["lastName"], "Nowak");
    assert_eq!(plain.aliases.as_ref().unwrap()["number"], "tok-1");
    let found = |changes: &[(Column, &'static str)]| read_plain(changes).unwrap_err();
    assert_eq!(
        found(&[(Column::Customer, "")]),
        [
            "customer is missing; allowed: the payer as imoje documents it, JSON with firstName, lastName and email"
        ]
    );
    // What stands in the column is never repeated.
    assert_eq!(
        found(&[(
            Column::Customer,
            r#"{"firstName":"Anna","lastName":"Nowak","email":"anna"}"#
        )]),
        [
            "customer is wrong: customer.email does not have the right form; allowed: an e-mail address of at most 200 characters"
        ]
    );
    assert_eq!(
        found(&[(
            Column::Multipayout,
            r#"[{"ban":"61109010140000071219812874","amount":1,"label":"A"}]"#
        )]),
        ["multipayout is not sent for a card without a profile; allowed: payment_profile_id"]
    );
}

#[test]
fn a_card_has_one_key_and_what_belongs_to_it() {
    assert_eq!(
        read_plain(&[(Column::PaymentProfileId, PROFILE)]).unwrap_err(),
        [
            "first_transaction_id \"first-77\" stands beside payment_profile_id; allowed: either payment_profile_id or first_transaction_id"
        ]
    );
    assert_eq!(
        mistakes(&[(Column::Customer, CUSTOMER)]),
        ["customer is not sent for a card with a profile; allowed: first_transaction_id"]
    );
    assert_eq!(
        mistakes(&[(Column::PaymentProfileId, "")])[0]
            .split(';')
            .next(),
        Some("payment_profile_id is missing")
    );
}

#[test]
fn a_card_without_a_profile_needs_what_the_configuration_has_to_give() {
    let plain = [
        (Column::PaymentProfileId, ""),
        (Column::FirstTransactionId, "first-77"),
        (Column::Customer, CUSTOMER),
        (Column::Card, ALIASES),
    ];
    assert_eq!(
        mistakes(&plain[..3]),
        [
            "first_transaction_id \"first-77\" names a card without a profile, and shop main has no addresses to lead payers back to; \
             allowed: success_return_url and failure_return_url in [shops.main]"
        ]
    );
    assert_eq!(
        mistakes(&plain).last().unwrap(),
        "card goes through a tokenising proxy, and there is none; allowed: gateway.card_proxy_url in the configuration"
    );
}

#[test]
fn a_subscription_whose_periods_are_all_over_is_refused() {
    assert_eq!(
        mistakes(&[
            (Column::AnchorDate, "2026-01-01"),
            (Column::MaxCharges, "3")
        ]),
        [
            "has nothing left to charge: no period is due today, 2026-11-20, or later; allowed: at least one period to charge"
        ]
    );
    assert_eq!(
        mistakes(&[
            (Column::EndsOn, "2027-12-31"),
            (Column::PaidUntil, "2027-12-31")
        ]),
        [
            "has nothing left to charge: no period is due after paid_until 2027-12-31; allowed: at least one period to charge"
        ]
    );
}

#[test]
fn of_several_shops_one_has_to_be_named() {
    let mut circumstances = circumstances();
    circumstances
        .shops
        .insert("second".parse().unwrap(), Warsaw);
    circumstances.usual_shop = None;
    let found = enrol(&described(&[]), &circumstances).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "shop is missing; allowed: main, second"
    );
    let named = enrol(&described(&[(Column::Shop, "second")]), &circumstances).unwrap();
    assert_eq!(named.shop.as_str(), "second");
}

#[test]
fn what_imoje_does_not_take_is_refused_before_it_is_stored() {
    let channel = |currency, min_minor, max_minor| Channel {
        currency: Some(currency),
        is_online: Some(false),
        min_minor,
        max_minor,
    };
    let found = |channels: Vec<Channel>, changes| {
        let mut circumstances = circumstances();
        circumstances
            .channels
            .insert("main".parse().unwrap(), channels);
        let read = enrol(&described(changes), &circumstances);
        read.err().map(|found| found[0].to_string())
    };
    let pln = channel(Currency::Pln, Some(2_000), Some(5_000));
    assert_eq!(found(vec![pln], &[(Column::AmountMinor, "2000")]), None);
    assert_eq!(
        found(vec![pln], &[]).unwrap(),
        "amount_minor \"1999\" is outside of what the shop's recurring channel takes; allowed: 2000 to 5000 in PLN"
    );
    let eur = channel(Currency::Eur, None, None);
    assert_eq!(
        found(vec![eur], &[]).unwrap(),
        "currency \"PLN\" is not a currency of the shop's recurring channel; allowed: EUR"
    );
    assert_eq!(
        found(Vec::new(), &[]).unwrap(),
        "cannot be charged: imoje lists no recurring channel for the shop; allowed: a shop for which imoje has turned recurring payments on"
    );
}

#[test]
fn one_name_and_one_card_are_listed_once() {
    let circumstances = circumstances();
    let mut roll = Roll::default();
    let mut enter = |line, changes: &[(Column, &'static str)]| -> Vec<String> {
        let found = roll.enter(line, &described(changes), &circumstances);
        found.iter().map(ToString::to_string).collect()
    };
    let other_profile = "c0de0b1e-2222-4222-8333-9a4b5c6d7e8f";
    assert!(enter(2, &[]).is_empty());
    assert!(enter(3, &[(Column::ExternalId, "sub-2")]).is_empty());
    assert!(enter(4, &[(Column::Shop, "second")]).is_empty());
    assert_eq!(
        enter(5, &[]),
        ["external_id \"sub-1\" stands in line 2 already; allowed: each external_id once per shop"]
    );
    assert_eq!(
        enter(
            6,
            &[
                (Column::ExternalId, "sub-6"),
                (Column::PaymentProfileId, other_profile)
            ]
        ),
        [format!(
            "cid \"cus-1\" is the card {PROFILE} in line 2 and another one here; allowed: one card for each cid and one cid for each card"
        )]
    );
    assert_eq!(
        enter(7, &[(Column::ExternalId, "sub-7"), (Column::Cid, "cus-7")]),
        [format!(
            "payment_profile_id \"{PROFILE}\" has the cid cus-1 in line 2 and another one here; allowed: one card for each cid and one cid for each card"
        )]
    );
    // A card number is not remembered, so that it cannot be repeated.
    let number = [(Column::ExternalId, "4111111111111111")];
    assert!(enter(8, &number).is_empty() && enter(9, &number).is_empty());
}

#[test]
fn a_preview_needs_dates_alone() {
    let fields = [(Column::AnchorDate, "2027-01-31"), (Column::Period, "P1M")];
    assert!(preview(&fields.into_iter().collect()).is_ok());
    let fields = [(Column::AnchorDate, "2027-01-31")];
    assert!(preview(&fields.into_iter().collect()).is_err());
}

#[test]
fn an_invoice_as_documented_passes() {
    assert!(
        crate::domain::fields::validate_invoice(&serde_json::from_str(INVOICE).unwrap()).is_ok()
    );
    assert!(read(&[(Column::Invoice, INVOICE)]).invoice.is_some());
}

proptest! {
    #[test]
    fn no_text_in_any_column_makes_reading_panic_or_repeat_a_card_number(
        column in proptest::sample::select(Column::ALL.as_slice()),
        text in prop_oneof![any::<String>(), "[-P0-9DWMY]{0,12}", "[0-9]{4}-[0-9]{2}-[0-9]{2}", ".{0,5}4111111111111111.{0,5}"],
    ) {
        let mut fields = described(&[]);
        fields.set(column, &text);
        if let Err(found) = enrol(&fields, &circumstances()) {
            prop_assert!(!found.is_empty());
            for mistake in found {
                prop_assert!(!crate::domain::card_number::looks_like_card_number(&mistake.to_string()));
            }
        }
    }
}
