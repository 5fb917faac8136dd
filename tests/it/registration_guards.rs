//! What the database refuses about registrations, whoever asks. Each guard is taken away as well, as in `schema.rs`.

use cykl::domain::registration::{RegistrationEvent, RegistrationState};
use cykl::simulator::Script;

use crate::harness::{Agreement, START, World};
use crate::schema::{is_refused, outcome, with_changes};

const INSERT: &str = "ALTER TABLE registrations DISABLE TRIGGER registration_insert";
const STEP: &str = "ALTER TABLE registrations DISABLE TRIGGER registration_step";
const FACTS: &str = "ALTER TABLE registrations DISABLE TRIGGER registration_facts";
const KEPT: &str = "ALTER TABLE registrations DISABLE TRIGGER registrations_are_kept";
const BY_LINK: &str = "ALTER TABLE attempts DISABLE TRIGGER attempt_by_link";

/// Of the same registration, wherever it is named, and its order id.
const ID: &str = "'00000000-0000-7000-8000-000000000001'::uuid";
const ORDER: &str = "'cykl-r-00000000000070008000000000000001'";
/// The transaction by which it was paid.
const PAYMENT: &str = "'00000000-0000-4000-8000-000000000001'::uuid";

/// Takes a constraint away.
fn without(constraint: &str) -> String {
    format!("ALTER TABLE registrations DROP CONSTRAINT {constraint} CASCADE")
}

/// A world with one subscription that waits for its card.
async fn waiting() -> World {
    let world = World::new(Script::default()).await;
    world
        .subscribe(Agreement::monthly("2027-01-01").without_card())
        .await;
    world
}

/// A link for the first charge, with some columns other than that.
fn link(changed: &[(&str, &str)]) -> String {
    let start = format!("'{START}'");
    let columns = [
        ("registration_id", ID),
        ("subscription_id", "subscription_id"),
        ("shop", "shop"),
        ("cid", "'cid-1'"),
        ("way", "'link'"),
        ("purpose", "'first_charge'"),
        ("period_no", "0"),
        ("order_id", ORDER),
        ("amount_minor", "amount_minor"),
        ("currency", "currency"),
        ("state", "'requested'"),
        ("reason", "NULL"),
        ("payment_id", "NULL"),
        ("url", "NULL"),
        ("sale_id", "NULL"),
        ("customer", "NULL"),
        ("aliases", "NULL"),
        ("transaction_id", "NULL"),
        ("card_id", "NULL"),
        ("actor", "'eve'"),
        ("created_at", &start),
        ("valid_to", &start),
        ("paid_at", "NULL"),
        ("ended_at", "NULL"),
        ("next_poll_at", &start),
    ];
    let (names, values) = with_changes(&columns, changed);
    format!("INSERT INTO registrations ({names}) SELECT {values} FROM subscriptions")
}

/// Another link than that.
fn another(changed: &[(&str, &str)]) -> String {
    let other = [
        (
            "registration_id",
            "'00000000-0000-7000-8000-000000000002'::uuid",
        ),
        ("order_id", "'cykl-r-00000000000070008000000000000002'"),
    ];
    let kept = other
        .iter()
        .filter(|(name, _)| changed.iter().all(|(changed, _)| changed != name));
    let all: Vec<_> = kept.chain(changed).copied().collect();
    link(&all)
}

/// A registration by card data, with some columns other than that.
fn card_data(changed: &[(&str, &str)]) -> String {
    let data = [
        ("way", "'card_data'"),
        ("customer", "'{}'"),
        ("aliases", "'{}'"),
    ];
    let kept = data
        .iter()
        .filter(|(name, _)| changed.iter().all(|(changed, _)| changed != name));
    let all: Vec<_> = kept.chain(changed).copied().collect();
    link(&all)
}

fn change(to: &str) -> String {
    format!("UPDATE registrations SET {to} WHERE registration_id = {ID}")
}

/// It is paid by [`PAYMENT`].
fn paid() -> String {
    change(&format!(
        "state = 'paid', transaction_id = {PAYMENT}, paid_at = '{START}'"
    ))
}

#[tokio::test]
async fn a_registration_says_what_its_state_rests_on() {
    let world = waiting().await;
    let start = format!("'{START}'");
    let made = [("payment_id", "gen_random_uuid()"), ("url", "'https://x'")];
    let opened = |more: &[(&'static str, &'static str)]| {
        let all: Vec<_> = [("state", "'open'")].iter().chain(more).copied().collect();
        link(&all)
    };
    for (constraint, statement) in [
        ("registrations_cid_check", link(&[("cid", "'not a cid'")])),
        (
            "registrations_period_no_check",
            link(&[("period_no", "-1")]),
        ),
        (
            "registrations_amount_minor_check",
            link(&[("amount_minor", "0")]),
        ),
        (
            "first_charges_name_their_period",
            link(&[("period_no", "NULL")]),
        ),
        (
            "first_charges_name_their_period",
            link(&[("purpose", "'verification'")]),
        ),
        (
            "registration_order_is_derived",
            link(&[("order_id", "'cykl-r-1'")]),
        ),
        ("open_registrations_can_be_followed", opened(&[])),
        ("open_registrations_can_be_followed", opened(&made[..1])),
        (
            "open_registrations_can_be_followed",
            link(&[("sale_id", PAYMENT)]),
        ),
        (
            "ended_registrations_say_when",
            link(&[("ended_at", &start)]),
        ),
        (
            "ended_registrations_say_when",
            link(&[("state", "'expired'")]),
        ),
        (
            "open_registrations_are_looked_at",
            link(&[("next_poll_at", "NULL")]),
        ),
        (
            "paid_registrations_name_the_payment",
            link(&[("state", "'paid'")]),
        ),
        (
            "paid_registrations_name_the_payment",
            link(&[("transaction_id", PAYMENT)]),
        ),
        (
            "registrations_attach_a_card",
            link(&[("card_id", "gen_random_uuid()")]),
        ),
        (
            "registrations_say_why",
            link(&[("state", "'refused'"), ("ended_at", &start)]),
        ),
    ] {
        is_refused(&world, "23514", &without(constraint), &[INSERT, &statement]).await;
    }
}

#[tokio::test]
async fn a_registration_by_card_data_says_what_the_debits_of_the_card_say() {
    let world = waiting().await;
    let made = [("payment_id", "gen_random_uuid()"), ("url", "'https://x'")];
    for (constraint, statement) in [
        (
            "open_registrations_can_be_followed",
            card_data(&[("state", "'open'")]),
        ),
        (
            "open_registrations_can_be_followed",
            card_data(&[("url", "'https://x'")]),
        ),
        ("open_registrations_can_be_followed", card_data(&made)),
        ("card_data_say_who_pays", link(&[("customer", "'{}'")])),
        ("card_data_say_who_pays", card_data(&[("customer", "NULL")])),
        ("card_data_say_who_pays", card_data(&[("aliases", "NULL")])),
    ] {
        is_refused(&world, "23514", &without(constraint), &[INSERT, &statement]).await;
    }
    let ok = card_data(&[("state", "'requested'")]);
    assert_eq!(outcome(&world, &[&ok]).await, "ok");
}

#[tokio::test]
async fn a_registration_is_there_once_under_each_of_its_names() {
    let world = waiting().await;
    let ended = [
        ("state", "'cancelled'"),
        ("reason", "'a test'"),
        ("ended_at", "created_at"),
    ];
    let with = |more: &[(&'static str, &'static str)]| {
        let all: Vec<_> = ended.iter().chain(more).copied().collect();
        all
    };
    let made = with(&[("payment_id", PAYMENT), ("url", "'https://x'")]);
    let paid = [
        ("state", "'cardless'"),
        ("reason", "'a test'"),
        ("ended_at", "created_at"),
        ("paid_at", "created_at"),
        ("transaction_id", PAYMENT),
    ];
    let derived = without("registration_order_is_derived");
    for (guard, before, first, second) in [
        (
            without("registrations_pkey"),
            derived.as_str(),
            link(&with(&[])),
            link(&with(&[("order_id", "'cykl-r-2'")])),
        ),
        (
            without("an_order_is_one_registration"),
            derived.as_str(),
            link(&with(&[])),
            another(&with(&[("order_id", ORDER)])),
        ),
        (
            without("a_link_is_one_registration"),
            INSERT,
            link(&made),
            another(&made),
        ),
        (
            without("a_sale_is_one_registration"),
            INSERT,
            card_data(&with(&[("sale_id", PAYMENT)])),
            another(&with(&[
                ("sale_id", PAYMENT),
                ("way", "'card_data'"),
                ("customer", "'{}'"),
                ("aliases", "'{}'"),
            ])),
        ),
        (
            without("a_payment_registers_once"),
            INSERT,
            link(&paid),
            another(&paid),
        ),
        (
            "DROP INDEX one_open_registration".to_owned(),
            INSERT,
            link(&[]),
            another(&[]),
        ),
    ] {
        is_refused(&world, "23505", &guard, &[INSERT, before, &first, &second]).await;
    }
}

#[tokio::test]
async fn a_link_is_for_what_its_subscription_was_agreed_for() {
    let world = waiting().await;
    for wrong in [
        [("subscription_id", "gen_random_uuid()")].as_slice(),
        &[("shop", "'other'")],
        &[("amount_minor", "amount_minor + 1")],
        &[("currency", "'EUR'")],
        &[
            ("state", "'open'"),
            ("payment_id", PAYMENT),
            ("url", "'https://x'"),
        ],
    ] {
        is_refused(&world, "CY003", INSERT, &[&link(wrong)]).await;
    }
    let later = "UPDATE subscriptions SET first_period_no = 1";
    let agreement = "ALTER TABLE subscriptions DISABLE TRIGGER subscription_update";
    is_refused(&world, "CY003", INSERT, &[agreement, later, &link(&[])]).await;
    let over = "UPDATE subscriptions SET status = 'cancelled'";
    is_refused(&world, "CY003", INSERT, &[over, &link(&[])]).await;
    let verification = link(&[
        ("purpose", "'verification'"),
        ("period_no", "NULL"),
        ("amount_minor", "100"),
        ("currency", "'EUR'"),
    ]);
    assert_eq!(outcome(&world, &[&verification]).await, "ok");
}

#[tokio::test]
async fn card_data_are_charged_under_the_brake_and_the_fence_alone() {
    let world = waiting().await;
    let by_data = card_data(&[]);
    for braked in [
        "UPDATE brakes SET mode = 'drain'",
        "UPDATE brakes SET mode = 'stop'",
        "DELETE FROM brakes",
        "INSERT INTO brakes SELECT 'main', 'stop', reason, actor, changed_at FROM brakes",
    ] {
        assert_eq!(outcome(&world, &[braked, &link(&[])]).await, "ok");
        is_refused(&world, "CY001", INSERT, &[braked, &by_data]).await;
    }
    let moved = "UPDATE installation SET timeline = timeline + 1";
    is_refused(&world, "CY002", INSERT, &[moved, &by_data]).await;
}

#[tokio::test]
async fn card_data_that_were_never_answered_are_not_given_up_before_imojes_last_notice() {
    let world = waiting().await;
    let give_up = "ALTER TABLE registrations DISABLE TRIGGER registration_gives_up";
    let by_data = card_data(&[]);
    let after = |hours: u32, state: &str| {
        change(&format!(
            "state = '{state}', reason = 'a test', ended_at = created_at + interval '{hours} hours'"
        ))
    };
    for state in ["cancelled", "expired"] {
        is_refused(&world, "CY008", give_up, &[&by_data, &after(99, state)]).await;
        assert_eq!(outcome(&world, &[&by_data, &after(100, state)]).await, "ok");
        assert_eq!(outcome(&world, &[&link(&[]), &after(1, state)]).await, "ok");
    }
    // imoje refused it, or has shown what it made of it.
    assert_eq!(
        outcome(&world, &[&by_data, &after(1, "refused")]).await,
        "ok"
    );
    let known = card_data(&[("sale_id", PAYMENT)]);
    assert_eq!(
        outcome(&world, &[&known, &after(1, "cancelled")]).await,
        "ok"
    );
}

#[tokio::test]
async fn every_step_of_a_registration_is_legal_in_the_database_exactly_when_it_is_in_the_domain() {
    let world = waiting().await;
    let events = [
        RegistrationEvent::Opened,
        RegistrationEvent::Paid,
        RegistrationEvent::Attached,
        RegistrationEvent::NoCard,
        RegistrationEvent::Expired,
        RegistrationEvent::Cancelled,
        RegistrationEvent::Refused,
    ];
    for was in RegistrationState::ALL {
        for becomes in RegistrationState::ALL {
            let in_domain = was == becomes
                || events
                    .into_iter()
                    .any(|event| was.after(event) == Ok(becomes));
            let in_database: bool = sqlx::query_scalar("SELECT registration_may_become($1, $2)")
                .bind(was)
                .bind(becomes)
                .fetch_one(&world.books)
                .await
                .unwrap();
            assert_eq!(in_domain, in_database, "{was:?} to {becomes:?}");
        }
    }
    let cancelled = change(&format!(
        "state = 'cancelled', reason = 'a test', ended_at = '{START}', transaction_id = NULL, paid_at = NULL"
    ));
    is_refused(
        &world,
        "CY006",
        STEP,
        &[FACTS, &link(&[]), &paid(), &cancelled],
    )
    .await;
}

#[tokio::test]
async fn the_facts_of_a_registration_never_change_and_it_stays() {
    let world = waiting().await;
    let opened = change("state = 'open', payment_id = gen_random_uuid(), url = 'https://x'");
    let surplus = change(&format!(
        "surplus_ids = ARRAY[{ID}], mismatched_ids = ARRAY[{ID}]"
    ));
    let before = [link(&[]), opened, paid(), surplus];
    let before: Vec<_> = before.iter().map(String::as_str).collect();
    let derived = without("registration_order_is_derived");
    let period = without("first_charges_name_their_period");
    let who = without("card_data_say_who_pays");
    let followed = without("open_registrations_can_be_followed");
    for to in [
        "subscription_id = gen_random_uuid()",
        "shop = 'other'",
        "cid = 'another'",
        "way = 'card_data'",
        "customer = '{}'",
        "aliases = '{}'",
        "purpose = 'verification'",
        "period_no = 1",
        "order_id = 'another'",
        "amount_minor = 1",
        "currency = 'EUR'",
        "actor = 'mallory'",
        "created_at = now()",
        "valid_to = now()",
        "payment_id = gen_random_uuid()",
        "transaction_id = gen_random_uuid()",
        "surplus_ids = '{}'",
        "mismatched_ids = '{}'",
    ] {
        let change = change(to);
        let guards = [derived.as_str(), &period, &who, &followed];
        let statements = [&guards, &before[..], &[&change]].concat();
        is_refused(&world, "CY007", FACTS, &statements).await;
    }
    let by_data = card_data(&[("sale_id", PAYMENT)]);
    let other_sale = change("sale_id = gen_random_uuid()");
    is_refused(&world, "CY007", FACTS, &[&by_data, &other_sale]).await;
    let gone = format!("DELETE FROM registrations WHERE registration_id = {ID}");
    for gone in [gone.as_str(), "TRUNCATE registrations"] {
        is_refused(&world, "CY009", KEPT, &[&before[..], &[gone]].concat()).await;
    }
}

/// What a payer paid, as an attempt of the charge.
fn attempt(changed: &[(&str, &str)]) -> String {
    let start = format!("'{START}'");
    let columns = [
        ("attempt_id", "gen_random_uuid()"),
        ("charge_id", "charge_id"),
        ("subscription_id", "subscription_id"),
        ("shop", "shop"),
        ("card_id", "NULL::uuid"),
        ("period_no", "period_no"),
        ("attempt_no", "1"),
        ("order_id", ORDER),
        ("amount_minor", "amount_minor"),
        ("currency", "currency"),
        ("state", "'settled'"),
        ("is_retry", "false"),
        ("fence_id", "(SELECT fence_id FROM installation)"),
        ("permitted_at", &start),
        ("deadline_at", &start),
        ("quiet_until", &start),
        ("transaction_id", PAYMENT),
        ("decided_at", &start),
    ];
    let (names, values) = with_changes(&columns, changed);
    format!("INSERT INTO attempts ({names}) SELECT {values} FROM charges")
}

#[tokio::test]
async fn money_moves_without_a_permit_only_by_a_link_that_was_paid() {
    let world = waiting().await;
    let charge = format!(
        "INSERT INTO charges (charge_id, subscription_id, shop, period_no, due_on, due_at, amount_minor, currency, state,
                              next_action_at, planned_at)
         SELECT gen_random_uuid(), subscription_id, shop, 0, anchor_date, '{START}', amount_minor, currency, 'planned', '{START}',
                '{START}'
         FROM subscriptions"
    );
    let (link, paid) = (link(&[]), paid());
    let before = [link.as_str(), &paid, &charge];
    assert_eq!(
        outcome(&world, &[&before[..], &[&attempt(&[])]].concat()).await,
        "ok"
    );
    let surplus = change(&format!("surplus_ids = ARRAY[{ID}]"));
    let second = attempt(&[("state", "'surplus'"), ("transaction_id", ID)]);
    assert_eq!(
        outcome(&world, &[&before[..], &[&surplus, &second]].concat()).await,
        "ok"
    );
    for wrong in [
        [("transaction_id", ID)].as_slice(),
        &[("amount_minor", "1")],
        &[("currency", "'EUR'")],
        &[("period_no", "1")],
        &[("order_id", "'cykl-r-00000000000070008000000000000002'")],
        &[("state", "'pending'"), ("decided_at", "NULL")],
        &[("state", "'not_sent'"), ("transaction_id", "NULL")],
    ] {
        let wrong = attempt(wrong);
        let statements = [&before[..], &[&wrong]].concat();
        is_refused(&world, "CY003", BY_LINK, &statements).await;
    }
    let unpaid = [link.as_str(), &charge, &attempt(&[])];
    is_refused(&world, "CY003", BY_LINK, &unpaid).await;
    // Only what a card was debited for has an order id of a debit, and the other way round.
    let derived = "ALTER TABLE attempts DROP CONSTRAINT order_id_is_derived";
    let of_debit = "'cykl-' || replace(subscription_id::text, '-', '') || '-0-1'";
    let strange = attempt(&[("order_id", of_debit)]);
    let strange = [&before[..], &[BY_LINK, &strange]].concat();
    is_refused(&world, "23514", derived, &strange).await;
}
