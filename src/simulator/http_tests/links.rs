//! Payment links, and the page on which they are paid.

use super::*;

/// A card of the sandbox.
const GOOD: &str = "4111111111111111";
const DECLINED: &str = "4444333322221111";

impl World {
    fn link_body() -> Value {
        json!({
            "serviceId": SimulatedShop::default().service_id, "amount": 4900, "currency": "PLN", "orderId": "reg-1",
            "title": "Abonament & \"co\"", "customer": {"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test", "cid": "cus-1"},
            "visibleMethod": ["card"], "preselectMethodCode": "recurring", "notificationUrl": NOTIFY,
            "successReturnUrl": "https://shop.example.test/ok", "failureReturnUrl": "https://shop.example.test/no",
            "validTo": START + 3_600
        })
    }

    /// Makes a link, and returns its id and its address.
    async fn link(&self, body: &Value) -> (String, String) {
        let made = self.post("payment", body).send().await.unwrap();
        assert_eq!(made.status(), 200);
        let made: Value = made.json().await.unwrap();
        let text = |name: &str| made["payment"][name].as_str().unwrap().to_owned();
        (text("id"), text("url"))
    }

    async fn shown(&self, id: &str) -> Value {
        let shown = self.get(&format!("payment/{id}")).await;
        assert_eq!(shown.status(), 200);
        shown.json().await.unwrap()
    }

    async fn pay(&self, url: &str, number: &str) -> Response {
        let form = format!("number={number}&month=12&year=2029&cvv=123&action=pay");
        self.client
            .post(url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
            .unwrap()
    }

    async fn cancel(&self, id: &str) -> Response {
        let body = json!({"serviceId": SimulatedShop::default().service_id, "paymentId": id});
        self.post("payment/cancel", &body).send().await.unwrap()
    }

    async fn profiles(&self, cid: &str) -> usize {
        let found: Value = self
            .get(&format!("profile/cid/{cid}"))
            .await
            .json()
            .await
            .unwrap();
        found["paymentProfiles"].as_array().unwrap().len()
    }

    fn told(&self) -> Vec<Value> {
        let inbox = self.inbox.lock().unwrap();
        inbox
            .iter()
            .map(|(_, body)| serde_json::from_str(body).unwrap())
            .collect()
    }
}

#[tokio::test]
async fn a_payer_registers_a_card_by_a_link() {
    let world = World::start(Script {
        accept_unknown_profiles: false,
        ..Script::default()
    })
    .await;
    let (id, url) = world.link(&World::link_body()).await;
    let page = world.client.get(&url).send().await.unwrap();
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    assert!(
        page.contains("49.00 PLN") && page.contains("Abonament &#38; &#34;co&#34;"),
        "{page}"
    );
    let fresh = world.shown(&id).await;
    assert_eq!(
        (&fresh["status"], &fresh["isActive"]),
        (&json!("new"), &json!(true))
    );
    let paid = world.pay(&url, GOOD).await;
    assert_eq!(paid.status(), 303);
    assert_eq!(paid.headers()["location"], "https://shop.example.test/ok");
    let shown = world.shown(&id).await;
    assert_eq!(shown["status"], "settled");
    assert_eq!(shown["isActive"], false);
    let payment = shown["transactions"][0]["id"].as_str().unwrap();
    let transaction: Value = world
        .get(&format!("transaction/{payment}"))
        .await
        .json()
        .await
        .unwrap();
    let transaction = &transaction["transaction"];
    assert_eq!(transaction["orderId"], "reg-1");
    assert_eq!(transaction["payment"]["id"], id.as_str());
    assert_eq!(transaction["paymentProfile"]["merchantCustomerId"], "cus-1");
    assert_eq!(world.profiles("cus-1").await, 1);
    assert_eq!(world.pay(&url, GOOD).await.status(), 410, "it is paid");
    assert_eq!(world.cancel(&id).await.status(), 422);
    // The card can be debited from now on.
    let mut debit = world.body("inv-1");
    debit["paymentProfileId"] = transaction["paymentProfile"]["id"].clone();
    let debited = world
        .post("transaction/profile", &debit)
        .send()
        .await
        .unwrap();
    assert_eq!(debited.status(), 200);
    world.simulator.deliver_due().await;
    let told = world.told();
    assert_eq!(
        told[0]["transaction"]["paymentProfile"]["merchantCustomerId"],
        "cus-1"
    );
    assert_eq!(told[0]["payment"]["id"], id.as_str());
}

#[tokio::test]
async fn a_declined_card_makes_no_profile_and_another_may_be_tried() {
    let world = World::start(Script::default()).await;
    let (id, url) = world.link(&World::link_body()).await;
    let declined = world.pay(&url, DECLINED).await;
    assert_eq!(
        declined.headers()["location"],
        "https://shop.example.test/no"
    );
    assert_eq!(world.shown(&id).await["status"], "rejected");
    assert_eq!(world.profiles("cus-1").await, 0);
    assert_eq!(world.pay(&url, GOOD).await.status(), 303);
    let shown = world.shown(&id).await;
    let statuses: Vec<_> = shown["transactions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|payment| payment["status"].clone())
        .collect();
    assert_eq!(statuses, ["rejected", "settled"]);
    assert_eq!(world.profiles("cus-1").await, 1);
}

#[tokio::test]
async fn a_link_that_is_cancelled_or_expires_tells_of_itself_alone() {
    let world = World::start(Script::default()).await;
    let (cancelled, cancelled_url) = world.link(&World::link_body()).await;
    let (expired, expired_url) = world.link(&World::link_body()).await;
    let answer: Value = world.cancel(&cancelled).await.json().await.unwrap();
    assert_eq!(answer["status"], "cancelled");
    world.pass(3_600);
    world.simulator.deliver_due().await;
    let told = world.told();
    for (notice, id) in told.iter().zip([&cancelled, &expired]) {
        assert!(notice.get("transaction").is_none(), "{notice}");
        assert_eq!(notice["payment"]["id"], id.as_str());
        assert_eq!(notice["payment"]["status"], "cancelled");
        assert_eq!(notice["payment"]["orderId"], "reg-1");
    }
    assert_eq!(told.len(), 2);
    for (id, url) in [(cancelled, cancelled_url), (expired, expired_url)] {
        assert_eq!(world.shown(&id).await["status"], "cancelled");
        assert_eq!(world.shown(&id).await["isActive"], false);
        assert_eq!(world.pay(&url, GOOD).await.status(), 410);
        assert_eq!(world.client.get(&url).send().await.unwrap().status(), 410);
        assert_eq!(world.cancel(&id).await.status(), 200, "the same again");
    }
    assert!(world.simulator.ledger().transactions().is_empty());
}

#[tokio::test]
async fn what_the_documents_leave_open_can_be_had_either_way() {
    let world = World::start(Script {
        registration: Registration {
            creates_profile: false,
            pays_again: true,
        },
        ..Script::default()
    })
    .await;
    let beside = Notices {
        profile_beside: true,
        ..Notices::default()
    };
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::default().with_notices(beside)).on(Call::Payer));
    let (id, url) = world.link(&World::link_body()).await;
    assert_eq!(world.pay(&url, GOOD).await.status(), 303);
    assert_eq!(world.pay(&url, GOOD).await.status(), 303);
    assert_eq!(world.profiles("cus-1").await, 0);
    let shown = world.shown(&id).await;
    assert_eq!(shown["transactions"].as_array().unwrap().len(), 2);
    assert_eq!(world.simulator.ledger().settled().count(), 2);
    world.simulator.deliver_due().await;
    assert!(
        world.told()[0].get("paymentProfile").is_none(),
        "there is none"
    );
    // Another world, in which there is one.
    let world = World::start(Script::default()).await;
    let beside = Notices {
        profile_beside: true,
        ..Notices::default()
    };
    world
        .simulator
        .add_rule(Rule::debits(Behaviour::default().with_notices(beside)).on(Call::Payer));
    let (_, url) = world.link(&World::link_body()).await;
    world.pay(&url, GOOD).await;
    world.simulator.deliver_due().await;
    let told = world.told();
    assert_eq!(told[0]["paymentProfile"]["merchantCustomerId"], "cus-1");
    assert!(told[0]["transaction"].get("paymentProfile").is_none());
}

#[tokio::test]
async fn what_is_no_link_or_no_card_is_refused() {
    let world = World::start(Script::default()).await;
    for (member, value) in [
        ("orderId", Value::Null),
        ("amount", json!(0)),
        ("preselectMethodCode", json!("")),
        ("visibleMethod", json!(["cash"])),
        ("validTo", json!(START + 59)),
        ("returnUrl", json!("shop")),
        ("isKsef", json!("yes")),
        ("cart", json!({"items": [{"id": "1"}]})),
        ("billing", json!({"firstName": "Anna"})),
        ("version", json!("1")),
    ] {
        let mut body = World::link_body();
        if value.is_null() {
            body.as_object_mut().unwrap().remove(member);
        } else {
            body[member] = value;
        }
        let refused = world.post("payment", &body).send().await.unwrap();
        assert_eq!(refused.status(), 422, "{member}");
        let refused: Value = refused.json().await.unwrap();
        assert_eq!(refused["apiErrorResponse"]["code"], "REQ-ERROR-100002");
    }
    let unknown = Uuid::new_v4().to_string();
    assert_eq!(world.get(&format!("payment/{unknown}")).await.status(), 404);
    assert_eq!(world.cancel(&unknown).await.status(), 404);
    let (_, url) = world.link(&World::link_body()).await;
    assert_eq!(world.pay(&url, "41").await.status(), 422);
    let (origin, _) = url.rsplit_once('/').unwrap();
    let page = world.client.get(format!("{origin}/{unknown}")).send().await;
    assert_eq!(page.unwrap().status(), 404);
    assert!(world.simulator.ledger().transactions().is_empty());
}
