//! Refunds and the question whether one is possible.

use super::*;

impl World {
    /// A settled debit of 49.00, by the id of its transaction.
    async fn sale(&self) -> String {
        let sale: Value = self.debit("inv-1").await.unwrap().json().await.unwrap();
        sale["transaction"]["id"].as_str().unwrap().to_owned()
    }

    fn refund_body(amount: u32) -> Value {
        json!({"type": "refund", "serviceId": SimulatedShop::default().service_id, "amount": amount})
    }

    async fn refund(&self, sale: &str, amount: u32) -> Response {
        let path = format!("transaction/{sale}/refund");
        let request = self.post(&path, &Self::refund_body(amount));
        request.send().await.unwrap()
    }

    async fn can_refund(&self, sale: &str, amount: u32) -> Value {
        let path = format!("transaction/{sale}/can-refund");
        let request = self.post(&path, &json!({"amount": amount}));
        request.send().await.unwrap().json().await.unwrap()
    }
}

fn settled() -> Behaviour {
    Behaviour::default().with_fate(Fate::SettleAtOnce)
}

#[tokio::test]
async fn a_refund_is_a_transaction_of_its_own_that_its_debit_lists() {
    let world = World::always(settled()).await;
    let sale = world.sale().await;
    let body: Value = world.refund(&sale, 900).await.json().await.unwrap();
    let refund = &body["transaction"];
    assert_eq!(refund["type"], "refund");
    assert_eq!(refund["status"], "settled");
    assert_eq!(refund["amount"], 900);
    assert_eq!(refund["orderId"], "inv-1");
    assert!(refund.get("paymentProfile").is_none(), "{refund}");
    let id = refund["id"].as_str().unwrap();
    let shown: Value = world
        .get(&format!("transaction/{id}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(&shown["transaction"], refund);
    let shown: Value = world
        .get(&format!("transaction/{sale}"))
        .await
        .json()
        .await
        .unwrap();
    assert_eq!(
        shown["transaction"]["refunds"],
        json!([{"transaction": {"id": id, "type": "refund", "status": "settled", "amount": 900}}])
    );
    assert_eq!(shown["transaction"]["status"], "settled");
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.transactions().len(), 1);
    assert_eq!(ledger.refunded(sale.parse().unwrap()), 900);
    assert_eq!(ledger.totals().refunds, 1);
    assert_eq!(ledger.totals().settled, 1);
}

#[tokio::test]
async fn no_more_goes_back_than_was_taken() {
    let world = World::always(settled()).await;
    let sale = world.sale().await;
    assert_eq!(world.can_refund(&sale, 4_900).await["fullRefund"], true);
    assert_eq!(world.refund(&sale, 4_000).await.status(), 200);
    let left = world.can_refund(&sale, 901).await;
    assert_eq!(left["refundable"], false);
    assert_eq!(left["fullRefund"], false);
    assert_eq!(left["partialRefund"]["maxRefundAmount"], 900);
    assert_eq!(world.refund(&sale, 901).await.status(), 422);
    assert_eq!(world.refund(&sale, 900).await.status(), 200);
    assert_eq!(world.can_refund(&sale, 1).await["refundable"], false);
    assert_eq!(world.refund(&sale, 1).await.status(), 422);
    assert_eq!(
        world.simulator.ledger().refunded(sale.parse().unwrap()),
        4_900
    );
}

#[tokio::test]
async fn only_a_settled_debit_of_the_caller_is_refunded() {
    let world = World::always(Behaviour::default().with_fate(Fate::PendingForEver)).await;
    let sale = world.sale().await;
    assert_eq!(world.refund(&sale, 1).await.status(), 422);
    let unknown = Uuid::new_v4().to_string();
    assert_eq!(world.refund(&unknown, 1).await.status(), 404);
    assert_eq!(world.refund("not-an-id", 1).await.status(), 404);
    let mut body = World::refund_body(1);
    body["serviceId"] = json!(Uuid::new_v4());
    let path = format!("transaction/{sale}/refund");
    let strange = world.post(&path, &body).send().await.unwrap();
    assert_eq!(strange.status(), 403);
    for (member, value) in [
        ("amount", json!(0)),
        ("type", json!("sale")),
        ("currency", json!("PLN")),
        ("title", json!("x".repeat(256))),
        ("sendRefundConfirmationEmail", json!("yes")),
    ] {
        let mut body = World::refund_body(1);
        body[member] = value;
        let refused = world.post(&path, &body).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{member}");
    }
    let ledger = world.simulator.ledger();
    assert!(ledger.refunds().is_empty());
    assert_eq!(ledger.refund_posts().len(), 9);
}

#[tokio::test]
async fn a_refund_takes_its_time_and_is_told_with_the_debit_that_it_is_of() {
    let world = World::always(settled()).await;
    let sale = world.sale().await;
    world.simulator.deliver_due().await;
    world.inbox.lock().unwrap().clear();
    let slow = Behaviour::default().with_fate(Fate::SettleAfter(Duration::from_secs(60)));
    world
        .simulator
        .add_rule(Rule::debits(slow).on(Call::Refund));
    let body: Value = world.refund(&sale, 900).await.json().await.unwrap();
    assert_eq!(body["transaction"]["status"], "new");
    assert_eq!(world.can_refund(&sale, 4_001).await["refundable"], false);
    world.pass(60);
    world.simulator.deliver_due().await;
    let inbox = world.inbox.lock().unwrap();
    let told: Vec<Value> = inbox
        .iter()
        .map(|(_, body)| serde_json::from_str(body).unwrap())
        .collect();
    let statuses: Vec<_> = told
        .iter()
        .map(|notice| notice["transaction"]["status"].clone())
        .collect();
    assert_eq!(statuses, ["new", "settled"]);
    for notice in &told {
        assert_eq!(notice["originalTransactionId"], sale.as_str());
        assert_eq!(notice["transaction"]["type"], "refund");
        assert_eq!(notice["transaction"]["orderId"], "inv-1");
    }
}

#[tokio::test]
async fn refunds_can_fail_and_come_too_close() {
    let world = World::always(settled()).await;
    let sale = world.sale().await;
    let rejected = Behaviour::default().with_fate(Fate::RejectAtOnce("CODE_05".to_owned()));
    world
        .simulator
        .add_rule(Rule::debits(rejected).on(Call::Refund).times(1));
    let body: Value = world.refund(&sale, 4_900).await.json().await.unwrap();
    assert_eq!(body["transaction"]["status"], "rejected");
    assert_eq!(world.refund(&sale, 1).await.status(), 200);
    world.pass(5);
    assert_eq!(world.refund(&sale, 1).await.status(), 200);
    let ledger = world.simulator.ledger();
    assert_eq!(ledger.totals().hasty_refunds, 1);
    assert_eq!(ledger.refunded(sale.parse().unwrap()), 2);
}
