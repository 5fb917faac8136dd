//! The ledger of the gateway as an export, against the books: the two agree whatever happened, or the comparison says where not.

use std::fmt::Write as _;

use chrono::TimeDelta;
use cykl::cli::audit::sheet::Sheet;
use cykl::domain::export::{Days, Export, Rules, Shop, coverage};
use cykl::domain::id::{ChargeId, TransactionId};
use cykl::simulator::{Behaviour, Rule, Script};
use cykl::store::audit::Check;
use cykl::store::audit::export::Unseen;
use cykl::store::status::By;

use crate::harness::{Agreement, World};

/// All that the gateway knows, as its panel might export it.
fn exported(world: &World) -> (Export, Rules) {
    let ledger = world.simulator.ledger();
    let mut file =
        "service_id;created_at;transaction_id;order_id;amount;currency;status;type\n".to_owned();
    for one in ledger.transactions() {
        writeln!(
            file,
            "{};{};{};{};{},{:02};{};{};sale",
            one.service_id(),
            one.created_at.to_rfc3339(),
            one.id,
            one.order_id,
            one.amount_minor / 100,
            one.amount_minor % 100,
            one.currency,
            ledger.status_of(one)
        )
        .unwrap();
    }
    let shops = world.config.shops.iter().map(|(name, shop)| Shop {
        name: name.clone(),
        service_id: shop.service_id,
        zone: shop.timezone,
    });
    let rules = Rules {
        shops: shops.collect(),
        shop: None,
        settled: vec![],
        refunds: vec![],
    };
    let sheet = Sheet::read(file.as_bytes(), &rules, &[]);
    assert_eq!(sheet.faults, []);
    (sheet.export, rules)
}

/// Compares the books with the ledger from two days before the first day on until two days from now.
async fn compare(world: &World) -> (Vec<Check>, Unseen) {
    let (export, rules) = exported(world);
    let today = world.clock.now().date_naive();
    let days = Days {
        from: Some("2026-12-30".parse().unwrap()),
        to: Some(today + TimeDelta::days(2)),
    };
    let coverage = coverage(&export, &rules, days).unwrap();
    world
        .store
        .audit_against(&export, &coverage, world.clock.now())
        .await
        .unwrap()
}

/// Asserts that the ledger agrees with the books.
pub async fn agrees(world: &World) {
    for check in compare(world).await.0 {
        assert!(check.findings.is_empty(), "the audit found {check:#?}");
    }
}

#[tokio::test]
async fn the_ledger_of_the_gateway_agrees_with_the_books() {
    let world = World::new(Script::default()).await;
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    let declined = Behaviour::decline("CODE_51");
    world
        .subscribe(Agreement::monthly("2027-01-02").with_card(declined))
        .await;
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::lose_request()).times(1));
    world.run_days(40).await;
    agrees(&world).await;
    let (_, unseen) = compare(&world).await;
    assert_eq!(unseen.attempts.len(), 1, "the lost request: {unseen:#?}");
    world.settle_up().await;
}

#[tokio::test]
async fn an_export_answers_a_doubt_and_the_command_that_it_offers_ends_it() {
    let world = World::new(Script::default()).await;
    let lost = Behaviour::take_money_and_lose_answer();
    world.simulator.add_rule(Rule::debits(lost).times(1));
    world.close_door();
    world.subscribe(Agreement::monthly("2027-01-01")).await;
    world.charge().await;
    assert_eq!(world.attempts().await, ["in_doubt"]);
    let (checks, unseen) = compare(&world).await;
    assert_eq!(unseen, Unseen::default());
    let found: Vec<_> = checks
        .into_iter()
        .filter(|check| !check.findings.is_empty())
        .collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!(found[0].check, "doubts_are_answered");
    let finding = &found[0].findings[0];
    let transaction = world.simulator.ledger().transactions()[0].id;
    let charge_id = finding.charge_id.unwrap();
    let command = format!("cykl charge settle {charge_id} --transaction {transaction} --reason");
    assert!(finding.detail.contains(&command), "{finding:#?}");
    let by = By {
        actor: "jan",
        reason: "the export has it",
    };
    let (charge_id, now) = (ChargeId::from_uuid(charge_id), world.clock.now());
    let resolver = &world.workers.resolver;
    resolver
        .settle(charge_id, TransactionId::from_uuid(transaction), by, now)
        .await
        .unwrap();
    agrees(&world).await;
    world.settle_up().await;
}
