//! Payment links.

use super::*;
use crate::domain::id::PaymentId;
use crate::gateway::{LinkDetails, LinkOrder, LinkOutcome, ListedPayment};

const PAYMENT: &str = "e4b1d0aa-6f55-4b7e-a1c2-5f60718293a4";
const URL: &str = "https://paywall.imoje.pl/s/Ab3dEf9hI0";

fn link_order() -> LinkOrder {
    LinkOrder {
        order_id: ORDER.to_owned(),
        amount: Money::new(4_900, Currency::Pln).unwrap(),
        customer: json!({"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test"}),
        cid: "cus-77".to_owned(),
        title: None,
        notification_url: None,
        valid_to: chrono::DateTime::from_timestamp(1_790_003_600, 0).unwrap(),
        multipayout: None,
        invoice: None,
        details: LinkDetails::default(),
    }
}

fn link() -> Value {
    json!({"payment": {"id": PAYMENT, "url": URL, "serviceId": SERVICE, "orderId": ORDER, "amount": 4_900, "currency": "PLN"}})
}

async fn outcome(http_status: u16, body: &str) -> LinkOutcome {
    let server = Server::answering(http_status, body).await;
    let client = server.client();
    let answer = client.create_link(&link_order(), Moment::now()).await;
    answer.unwrap().outcome
}

#[tokio::test]
async fn a_link_asks_for_a_card_that_is_kept_for_recurring_debits() {
    let mut server = Server::answering(200, &link().to_string()).await;
    let client = server.client();
    let answer = client.create_link(&link_order(), Moment::now()).await;
    assert_eq!(
        answer.unwrap().outcome,
        LinkOutcome::Created {
            payment_id: PAYMENT.parse().unwrap(),
            url: URL.parse().unwrap(),
        }
    );
    let seen = server.seen();
    assert!(seen[0].starts_with("POST /v1/merchant/simmerchant000000001/payment HTTP/1.1\r\n"));
    let body = format!(
        concat!(
            r#"{{"serviceId":"{service}","amount":4900,"currency":"PLN","orderId":"{order}","#,
            r#""customer":{{"cid":"cus-77","email":"anna@example.test","firstName":"Anna","lastName":"Nowak"}},"#,
            r#""visibleMethod":["card"],"preselectMethodCode":"recurring","validTo":1790003600}}"#
        ),
        service = SERVICE,
        order = ORDER
    );
    assert!(seen[0].ends_with(&body), "{}", seen[0]);
}

#[tokio::test]
async fn a_link_may_say_all_that_is_documented() {
    let person = json!({"firstName": "Anna", "lastName": "Nowak"});
    let details = LinkDetails {
        description: Some("Abonament".to_owned()),
        return_url: Some("https://shop.example.test/r".to_owned()),
        success_return_url: Some("https://shop.example.test/ok".to_owned()),
        failure_return_url: Some("https://shop.example.test/no".to_owned()),
        billing: Some(person.clone()),
        shipping: Some(person),
        cart: Some(json!({"items": [{
            "id": "1", "name": "A", "amount": 1, "tax": 0, "taxStake": 23, "quantity": 1, "url": "https://shop.example.test/1",
            "categoryId": "c"
        }]})),
        is_ksef: true,
    };
    let order = LinkOrder {
        title: Some("Abonament".to_owned()),
        notification_url: Some("https://billing.example.test/n".parse().unwrap()),
        multipayout: Some(
            json!([{"ban": "61109010140000071219812874", "amount": 1, "label": "A"}]),
        ),
        invoice: Some(json!({
            "buyer": {"type": "PERSON", "email": "a@example.test", "fullName": "A", "street": "S", "city": "C", "postalCode": "1",
                      "countryCodeAlpha2": "PL"},
            "positions": [{"name": "A", "code": "1", "quantity": 1, "unit": "szt", "grossAmount": 4900, "taxStake": "TAX_23"}]
        })),
        details,
        ..link_order()
    };
    let mut server = Server::answering(200, &link().to_string()).await;
    let client = server.client();
    client.create_link(&order, Moment::now()).await.unwrap();
    let seen = server.seen();
    let (_, body) = seen[0].split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    let members: Vec<_> = body
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        members,
        [
            "additionalDescription",
            "amount",
            "billing",
            "cart",
            "currency",
            "customer",
            "failureReturnUrl",
            "invoice",
            "isKsef",
            "multipayout",
            "notificationUrl",
            "orderId",
            "preselectMethodCode",
            "returnUrl",
            "serviceId",
            "shipping",
            "successReturnUrl",
            "title",
            "validTo",
            "visibleMethod",
        ]
    );
}

#[tokio::test]
async fn only_a_whole_answer_about_this_order_is_a_link() {
    for (member, value) in [
        ("orderId", json!("cykl-other")),
        ("amount", json!(4_901)),
        ("currency", json!("EUR")),
        ("serviceId", json!(Uuid::nil())),
        ("id", json!("x")),
        ("url", json!("javascript:alert(1)")),
        ("url", json!("not an address")),
    ] {
        let mut other = link();
        other["payment"][member] = value;
        assert_eq!(
            outcome(200, &other.to_string()).await,
            LinkOutcome::Unclear,
            "{member}"
        );
    }
    let refused = error("REQ-ERROR-100002");
    assert!(matches!(
        outcome(422, &refused).await,
        LinkOutcome::Refused { code, .. } if code == "REQ-ERROR-100002"
    ));
    for (http_status, body) in [(500, refused.as_str()), (422, "<html>"), (200, "{}")] {
        assert_eq!(outcome(http_status, body).await, LinkOutcome::Unclear);
    }
}

#[tokio::test]
async fn an_order_that_imoje_would_refuse_is_not_sent() {
    let mut server = Server::answering(200, &link().to_string()).await;
    let client = server.client();
    for (wrong, field) in [
        (
            LinkOrder {
                cid: "cus_77".to_owned(),
                ..link_order()
            },
            "cid",
        ),
        (
            LinkOrder {
                customer: json!({"firstName": "Anna"}),
                ..link_order()
            },
            "customer.lastName",
        ),
        (
            LinkOrder {
                details: LinkDetails {
                    return_url: Some("shop".to_owned()),
                    ..LinkDetails::default()
                },
                ..link_order()
            },
            "returnUrl",
        ),
        (
            LinkOrder {
                details: LinkDetails {
                    description: Some("a:b".to_owned()),
                    ..LinkDetails::default()
                },
                ..link_order()
            },
            "additionalDescription",
        ),
    ] {
        match client.create_link(&wrong, Moment::now()).await {
            Err(NoAnswer::NotSent(NotSent::Invalid(error))) => assert_eq!(error.field, field),
            other => panic!("{other:?}"),
        }
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_link_is_read_and_ended() {
    let id: PaymentId = PAYMENT.parse().unwrap();
    let body = json!({
        "id": PAYMENT, "status": "settled", "orderId": ORDER, "amount": "4900", "currency": "PLN", "serviceId": SERVICE,
        "isActive": 0, "transactions": [{"id": TRANSACTION, "status": "settled"}]
    });
    let server = Server::answering(200, &body.to_string()).await;
    let shown = server.client().payment(id).await.unwrap();
    assert_eq!(shown.status.as_deref(), Some("settled"));
    assert_eq!(shown.amount_minor, Some(4_900));
    assert_eq!(shown.is_active, Some(false));
    let transactions = shown.transactions.unwrap();
    assert_eq!(
        transactions,
        [ListedPayment {
            transaction_id: TRANSACTION.parse().unwrap(),
            status: "settled".to_owned()
        }]
    );
    let mut other = body.clone();
    other["id"] = json!(TRANSACTION);
    let server = Server::answering(200, &other.to_string()).await;
    assert_eq!(server.client().payment(id).await, Err(ReadError::Mismatch));
    let mut server = Server::answering(200, &body.to_string()).await;
    assert_eq!(server.client().cancel_payment(id).await, Ok(()));
    let seen = server.seen();
    assert!(seen[0].starts_with("POST /v1/merchant/simmerchant000000001/payment/cancel "));
    let sent = format!(r#"{{"serviceId":"{SERVICE}","paymentId":"{PAYMENT}"}}"#);
    assert!(seen[0].ends_with(&sent), "{}", seen[0]);
    let server = Server::answering(404, "").await;
    assert_eq!(
        server.client().cancel_payment(id).await,
        Err(ReadError::NotFound)
    );
}
