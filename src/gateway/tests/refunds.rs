//! Giving money back.

use super::*;
use crate::gateway::RefundOrder;

const REFUND: &str = "9d1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e02";

fn refund_order() -> RefundOrder {
    RefundOrder {
        sale: id(),
        order_id: ORDER.to_owned(),
        amount: Money::new(900, Currency::Pln).unwrap(),
        title: None,
        is_confirmed_by_email: false,
    }
}

fn refund(status: &str) -> Value {
    json!({"transaction": {
        "id": REFUND, "type": "refund", "status": status, "source": "api", "created": 1, "modified": 1, "serviceId": SERVICE,
        "amount": 900, "currency": "PLN", "orderId": ORDER
    }})
}

#[tokio::test]
async fn a_refund_is_sent_exactly_as_documented() {
    let mut server = Server::answering(200, &refund("settled").to_string()).await;
    let client = server.client();
    let answer = client.refund(&refund_order(), Moment::now()).await.unwrap();
    let transaction_id = REFUND.parse().unwrap();
    assert_eq!(answer.verdict, Verdict::Settled { transaction_id });
    let seen = server.seen();
    let path = format!("/v1/merchant/simmerchant000000001/transaction/{TRANSACTION}/refund");
    assert!(
        seen[0].starts_with(&format!("POST {path} HTTP/1.1\r\n")),
        "{}",
        seen[0]
    );
    let body = format!(r#"{{"type":"refund","serviceId":"{SERVICE}","amount":900}}"#);
    assert!(seen[0].ends_with(&body), "{}", seen[0]);
    let mut server = Server::answering(200, &refund("new").to_string()).await;
    let whole = RefundOrder {
        title: Some("Zwrot".to_owned()),
        is_confirmed_by_email: true,
        ..refund_order()
    };
    let client = server.client();
    let answer = client.refund(&whole, Moment::now()).await.unwrap();
    assert!(matches!(answer.verdict, Verdict::Pending { .. }));
    let body = r#""amount":900,"title":"Zwrot","sendRefundConfirmationEmail":true}"#;
    assert!(server.seen()[0].ends_with(body));
}

#[tokio::test]
async fn a_refund_whose_answer_is_lost_is_not_sent_again() {
    let mut server = Server::start(vec![
        Act::AnswerAndClose(Vec::new()),
        Act::Answer(http(200, &refund("settled").to_string())),
    ])
    .await;
    let client = server.client();
    let lost = client.refund(&refund_order(), Moment::now()).await;
    assert!(matches!(lost, Err(NoAnswer::Unknown(_))), "{lost:?}");
    assert_eq!(server.seen().len(), 1);
    let titled = RefundOrder {
        title: Some("a|b".to_owned()),
        ..refund_order()
    };
    let invalid = client.refund(&titled, Moment::now()).await;
    assert!(
        matches!(invalid, Err(NoAnswer::NotSent(NotSent::Invalid(_)))),
        "{invalid:?}"
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn whether_a_refund_is_possible_is_asked_and_not_guessed() {
    let amount = Money::new(900, Currency::Pln).unwrap();
    let whole = r#"{"id":"x","refundable":true,"balance":false,"fullRefund":true,"partialRefund":{"maxRefundAmount":4900,"minRefundAmount":"1"}}"#;
    let mut server = Server::answering(200, whole).await;
    let answer = server.client().can_refund(id(), amount).await.unwrap();
    assert!(answer.is_refundable);
    assert_eq!(answer.has_balance, Some(false));
    assert_eq!((answer.min_minor, answer.max_minor), (Some(1), Some(4_900)));
    let seen = server.seen();
    let path =
        format!("POST /v1/merchant/simmerchant000000001/transaction/{TRANSACTION}/can-refund ");
    assert!(
        seen[0].starts_with(&path) && seen[0].ends_with(r#"{"amount":900}"#),
        "{}",
        seen[0]
    );
    for (http_status, body, expected) in [
        (200, "{}", ReadError::Unreadable),
        (200, r#"{"refundable":"perhaps"}"#, ReadError::Unreadable),
        (404, "", ReadError::NotFound),
    ] {
        let server = Server::answering(http_status, body).await;
        assert_eq!(
            server.client().can_refund(id(), amount).await,
            Err(expected)
        );
    }
}

#[tokio::test]
async fn a_refund_is_read_as_one() {
    let expected = Expected {
        amount: Money::new(900, Currency::Pln).unwrap(),
        ..expected()
    };
    let transaction_id: TransactionId = REFUND.parse().unwrap();
    let mut sale = refund("settled");
    sale["transaction"]["type"] = json!("sale");
    for (shown, verdict) in [
        (refund("settled"), Verdict::Settled { transaction_id }),
        (sale, Verdict::InDoubt(Doubt::Mismatch)),
    ] {
        let server = Server::answering(200, &shown.to_string()).await;
        let client = server.client();
        let answer = client.refund_transaction(transaction_id, &expected).await;
        assert_eq!(answer.unwrap().verdict, verdict);
    }
}
