//! What an answer about a shop shows.

use serde_json::Value;

use super::members::{flag, whole};
use crate::domain::channel::Channel;
use crate::gateway::answer::Service;

/// What an answer to `GET service/{id}` shows, wrapped or bare, if it is a JSON object.
pub(in crate::gateway) fn read_service(bytes: &[u8]) -> Option<Service> {
    let answer: Value = serde_json::from_slice(bytes).ok()?;
    let service = answer.get("service").unwrap_or(&answer).as_object()?;
    let methods = service.get("paymentMethods").and_then(Value::as_array);
    Some(Service {
        is_active: service.get("isActive").and_then(flag),
        recurring: methods.map(|methods| methods.iter().filter_map(recurring).collect()),
        sent_at: None,
    })
}

/// A payment method, if it is the channel `recurring` in a currency that Cykl charges.
fn recurring(method: &Value) -> Option<Channel> {
    let text = |name| method.get(name).and_then(Value::as_str);
    if text("paymentMethodCode") != Some("recurring") {
        return None;
    }
    let currency = match text("currency") {
        Some(code) => Some(code.parse().ok()?),
        None => None,
    };
    let says = |name| method.get(name).and_then(flag);
    // A limit of 0 is none, as in imoje's own plugins.
    let limit = |name| {
        method
            .get("transactionLimits")?
            .get(name)?
            .get("value")
            .and_then(whole)
            .filter(|minor| *minor > 0)
    };
    Some(Channel {
        currency,
        is_online: match (says("isActive"), says("isOnline")) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        },
        min_minor: limit("minTransaction"),
        max_minor: limit("maxTransaction"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::money::Currency;

    #[test]
    fn a_service_tells_whether_the_recurring_channel_is_on_line() {
        let service = |methods: Value| json!({"service": {"id": "s", "isActive": true, "paymentMethods": methods}});
        let recurring = |active: Value, online: Value| {
            json!([{"paymentMethodCode": "blik", "isActive": 1, "isOnline": 1},
                {"paymentMethodCode": "recurring", "isActive": active, "isOnline": online}])
        };
        for (answer, expected) in [
            (service(recurring(json!(true), json!(true))), Some(true)),
            (service(recurring(json!(1), json!("1"))), Some(true)),
            (service(recurring(json!(true), json!(false))), Some(false)),
            (service(recurring(json!(false), Value::Null)), Some(false)),
            (service(recurring(Value::Null, json!(true))), None),
            (service(json!([])), Some(false)),
            (service(Value::Null), None),
            (
                json!({"isActive": 0, "paymentMethods": recurring(json!(1), json!(1))}),
                Some(false),
            ),
        ] {
            let shown = read_service(answer.to_string().as_bytes()).unwrap();
            assert_eq!(shown.is_online(), expected, "{answer}");
        }
        assert_eq!(read_service(b"{}"), Some(Service::default()));
        for unreadable in ["", "<html>", "[]", "7", r#"{"service":null}"#] {
            assert_eq!(read_service(unreadable.as_bytes()), None, "{unreadable}");
        }
    }

    #[test]
    fn the_limits_of_a_channel_are_minor_units_and_may_be_missing() {
        let limits = |limits: Value| {
            let methods = json!([{"paymentMethodCode": "recurring", "currency": "PLN", "transactionLimits": limits}]);
            let service = json!({ "paymentMethods": methods }).to_string();
            let channel = read_service(service.as_bytes()).unwrap().recurring.unwrap()[0];
            assert_eq!(channel.currency, Some(Currency::Pln));
            (channel.min_minor, channel.max_minor)
        };
        let value = |value: Value| json!({"type": "number", "value": value});
        for (given, expected) in [
            (
                json!({"minTransaction": value(json!(100)), "maxTransaction": value(json!("500000"))}),
                (Some(100), Some(500_000)),
            ),
            (
                json!({"minTransaction": value(json!(0)), "maxTransaction": value(Value::Null)}),
                (None, None),
            ),
            (json!({"maxTransaction": 5}), (None, None)),
            (Value::Null, (None, None)),
        ] {
            assert_eq!(limits(given.clone()), expected, "{given}");
        }
        let foreign =
            json!({"paymentMethods": [{"paymentMethodCode": "recurring", "currency": "UAH"}]});
        assert_eq!(
            read_service(foreign.to_string().as_bytes())
                .unwrap()
                .recurring,
            Some(Vec::new())
        );
    }
}
