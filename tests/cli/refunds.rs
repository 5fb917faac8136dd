//! `cykl refund` gives money back, says what became of it, and never sends the same order twice.

use cykl::simulator::{Behaviour, Call, Fate, Rule, Script, Simulator};
use serde_json::json;

use crate::place::{MERCHANT_ID, Place, Ran, SERVICE_ID};

/// The healthy books, and a gateway that made the debit of their first payment.
struct Shop {
    place: Place,
    simulator: Simulator,
    charge: String,
    order: String,
    amount: i64,
}

impl Shop {
    async fn open() -> Self {
        let place = Place::healthy().await;
        place.run(&["adopt", "--reason", "a copy"]).succeeded();
        let script = Script::always(Behaviour::default().with_fate(Fate::SettleAtOnce));
        let simulator = place.open_gateway(script).await;
        let paid = place
            .texts(
                "SELECT format('%s %s %s %s %s', c.charge_id, a.order_id, a.amount_minor, a.currency, k.payment_profile_id)
                 FROM charges c JOIN attempts a ON a.attempt_id = c.paid_attempt_id JOIN cards k USING (card_id)
                 WHERE c.state = 'paid' ORDER BY a.order_id LIMIT 1",
            )
            .await;
        let [charge, order, amount, currency, profile] = paid[0].split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("{paid:?}");
        };
        let amount: i64 = amount.parse().unwrap();
        let debit = json!({"serviceId": SERVICE_ID, "paymentProfileId": profile, "amount": amount,
            "currency": currency, "orderId": order});
        let answer = reqwest::Client::new()
            .post(format!(
                "{}/{MERCHANT_ID}/transaction/profile",
                simulator.base_url()
            ))
            .bearer_auth("sim-token")
            .json(&debit)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let sale = simulator.ledger().transactions()[0].id;
        place
            .sql(&format!(
                "SET session_replication_role = replica;
                 UPDATE cykl.evidence e SET transaction_id = '{sale}' FROM cykl.attempts a
                 WHERE a.attempt_id = e.attempt_id AND a.order_id = '{order}';
                 UPDATE cykl.attempts SET transaction_id = '{sale}' WHERE order_id = '{order}'"
            ))
            .await;
        Self {
            charge: charge.to_owned(),
            order: order.to_owned(),
            amount,
            place,
            simulator,
        }
    }

    async fn refund(&self, arguments: &[&str]) -> Ran {
        let who = ["--reason", "the customer asked", "--actor", "eve"];
        let arguments = [&["refund", &self.charge], arguments, &who].concat();
        self.place.run_aside(&arguments).await
    }

    fn on_refunds(&self, behaviour: Behaviour) {
        let rule = Rule::debits(behaviour).on(Call::Refund).times(1);
        self.simulator.add_rule(rule);
    }

    async fn refunds(&self) -> Vec<String> {
        self.place
            .texts("SELECT state || ' ' || amount_minor || ' ' || actor || ' ' || reason FROM refunds WHERE permitted_at > '2026-01-01' ORDER BY permitted_at")
            .await
    }
}

#[tokio::test]
async fn money_goes_back_and_the_charge_shows_it() {
    let shop = Shop::open().await;
    let title = [
        "--amount-minor",
        "1",
        "--title",
        "Zwrot",
        "--confirm-by-email",
    ];
    let done = shop.refund(&title).await.succeeded();
    let order = &shop.order;
    assert!(
        done.stdout
            .contains(&format!("of {order} went back\nrefund ")),
        "{done:#?}"
    );
    assert_eq!(shop.refunds().await, ["settled 1 eve the customer asked"]);
    let story = shop.place.run(&["charge", "show", &shop.charge]);
    let story = story.succeeded().stdout;
    let refunds = story.split("REFUNDS\n").nth(1).unwrap();
    assert!(refunds.contains("the customer asked"), "{story}");
    let too_much = shop
        .refund(&["--amount-minor", &shop.amount.to_string()])
        .await
        .ended(1);
    assert!(
        too_much.stderr.contains("that can still go back"),
        "{too_much:#?}"
    );
    assert_eq!(shop.simulator.ledger().refund_posts().len(), 1);
    let audit = shop.place.run(&["audit"]);
    assert_eq!(audit.code, 0, "{}", audit.stdout);
}

#[tokio::test]
async fn what_did_not_go_back_is_said_with_what_to_do() {
    let shop = Shop::open().await;
    shop.on_refunds(Behaviour::default().with_fate(Fate::RejectAtOnce("CODE_05".to_owned())));
    let rejected = shop.refund(&[]).await.ended(1);
    assert!(
        rejected
            .stdout
            .contains("went back: the refund is rejected"),
        "{rejected:#?}"
    );
    shop.on_refunds(Behaviour::take_money_and_lose_answer());
    let lost = shop.refund(&[]).await.ended(75);
    assert!(lost.stdout.contains("it may have gone back"), "{lost:#?}");
    let again = shop.refund(&[]).await.ended(75);
    assert!(
        again.stderr.contains("another refund of") && again.stderr.contains("--absent"),
        "{again:#?}"
    );
    let early = shop.refund(&["--absent"]).await.ended(75);
    assert!(early.stderr.contains("ask again after"), "{early:#?}");
    assert_eq!(shop.simulator.ledger().refund_posts().len(), 2);
    shop.simulator.go_down().await;
    let away = shop.refund(&[]).await.ended(69);
    assert!(away.stderr.contains("nothing went back"), "{away:#?}");
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_refused_before_anybody_is_asked() {
    let shop = Shop::open().await;
    let unpaid = shop
        .place
        .texts("SELECT charge_id::text FROM charges WHERE state <> 'paid' LIMIT 1")
        .await;
    for (arguments, code, told) in [
        (vec!["refund", &unpaid[0]], 1, "no money was taken"),
        (
            vec!["refund", "01924d2e-7e00-7000-8000-0000000000ff"],
            1,
            "there is no charge",
        ),
        (
            vec!["refund", &shop.charge, "--attempt", "7"],
            1,
            "attempt 7",
        ),
        (vec!["refund", &shop.charge, "--amount-minor", "0"], 2, "0"),
        (vec!["refund", &shop.charge, "--title", "a|b"], 2, "title"),
        (
            vec!["refund", &shop.charge, "--absent", "--amount-minor", "1"],
            2,
            "cannot be used with",
        ),
        (
            vec!["refund", &shop.charge, "--actor", "cykl"],
            2,
            "a person's",
        ),
        (
            vec!["refund", &unpaid[0], "--absent"],
            1,
            "has no refund in doubt",
        ),
    ] {
        let arguments = [&arguments[..], &["--reason", "a test"]].concat();
        let arguments = if arguments.contains(&"--actor") {
            arguments
        } else {
            [&arguments[..], &["--actor", "eve"]].concat()
        };
        let refused = shop.place.run_aside(&arguments).await.ended(code);
        assert!(refused.stderr.contains(told), "{refused:#?}");
    }
    assert_eq!(shop.refunds().await, Vec::<String>::new());
    assert!(shop.simulator.ledger().refund_posts().is_empty());
}
