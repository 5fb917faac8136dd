//! Checks a request body against the documented schema, strictly: what the documents do not allow is refused.
//!
//! Messages and the form of `property` are those of the JSON-Schema validator whose wording imoje's samples show
//! (`instance`, `requires property "orderId"`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Map, Value};
use url::Url;

use super::schema::{Field, Format, Kind, Pattern};

/// One entry of `apiErrorResponse.errors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Violation {
    pub(super) property: String,
    pub(super) message: String,
}

/// Every way in which `body` is not an object with these fields.
pub(super) fn violations(fields: &'static [Field], body: &Value) -> Vec<Violation> {
    let mut found = Findings(Vec::new());
    found.check(&Kind::Object(fields), "instance", body);
    found.0
}

struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, property: &str, message: impl Into<String>) {
        self.0.push(Violation {
            property: property.to_owned(),
            message: message.into(),
        });
    }

    fn check(&mut self, kind: &Kind, property: &str, value: &Value) {
        match kind {
            Kind::Text { min, max, pattern } => {
                if let Some(text) = self.text(property, value) {
                    self.check_text(property, text, *min, *max, pattern.as_ref());
                }
            }
            Kind::Format(format) => {
                if let Some(text) = self.text(property, value) {
                    self.check_format(*format, property, text);
                }
            }
            Kind::OneOf(words) => {
                if !value.as_str().is_some_and(|text| words.contains(&text)) {
                    self.add(
                        property,
                        format!("is not one of enum values: {}", words.join(",")),
                    );
                }
            }
            Kind::IntegerOrNull { min } => {
                if !value.is_null() {
                    self.check_integer(property, value, *min, i64::MAX);
                }
            }
            Kind::Integer { min, max } => self.check_integer(property, value, *min, *max),
            Kind::Quantity => match value.as_f64() {
                Some(number) if number >= 0.0 => {}
                Some(_) => self.add(property, "must be greater than or equal to 0"),
                None => self.add(property, "is not of a type(s) number"),
            },
            Kind::Number => {
                if !value.is_number() {
                    self.add(property, "is not of a type(s) number");
                }
            }
            Kind::NumberOrWord(numbers, words) => {
                self.check_number_or_word(numbers, words, property, value);
            }
            Kind::Boolean => {
                if !value.is_boolean() {
                    self.add(property, "is not of a type(s) boolean");
                }
            }
            Kind::Object(fields) => match value.as_object() {
                Some(object) => self.check_object(fields, property, object),
                None => self.add(property, "is not of a type(s) object"),
            },
            Kind::List(item) => match value.as_array() {
                Some(items) => {
                    for (index, value) in items.iter().enumerate() {
                        self.check(item, &format!("{property}[{index}]"), value);
                    }
                }
                None => self.add(property, "is not of a type(s) array"),
            },
            Kind::Also(kind, check) => {
                self.check(kind, property, value);
                for message in check(value) {
                    self.add(property, message);
                }
            }
        }
    }

    fn check_number_or_word(
        &mut self,
        numbers: &[i64],
        words: &[&str],
        property: &str,
        value: &Value,
    ) {
        let is_number = |number: i64| numbers.contains(&number);
        let is_listed = value.as_i64().is_some_and(is_number)
            || value
                .as_str()
                .is_some_and(|text| words.contains(&text) || text.parse().is_ok_and(is_number));
        if !is_listed {
            let numbers = numbers.iter().map(i64::to_string);
            let all: Vec<String> = numbers
                .chain(words.iter().map(|word| (*word).to_owned()))
                .collect();
            let message = format!("is not one of enum values: {}", all.join(","));
            self.add(property, message);
        }
    }

    fn check_format(&mut self, format: Format, property: &str, text: &str) {
        match format {
            Format::UuidV4 => {
                if !is_uuid_v4(text) {
                    self.add(property, format!("does not match pattern \"{UUID_V4}\""));
                }
            }
            Format::Url => {
                self.check_url(property, text);
            }
            Format::NotificationUrl => self.check_notification_url(property, text),
            Format::IpAddress => {
                if text.parse::<IpAddr>().is_err() {
                    self.add(
                        property,
                        "does not conform to the \"ipv4\" or \"ipv6\" format",
                    );
                }
            }
            Format::Email => {
                self.check_text(property, text, 0, 200, None);
                if !is_email(text) {
                    self.add(property, "does not conform to the \"email\" format");
                }
            }
        }
    }

    fn check_object(&mut self, fields: &[Field], property: &str, object: &Map<String, Value>) {
        let known: BTreeSet<&str> = fields.iter().map(|field| field.name).collect();
        for name in object.keys().filter(|name| !known.contains(name.as_str())) {
            self.add(
                property,
                format!("is not allowed to have the additional property \"{name}\""),
            );
        }
        for field in fields {
            match object.get(field.name) {
                Some(value) => {
                    self.check(&field.kind, &format!("{property}.{}", field.name), value)
                }
                None if field.required => {
                    self.add(property, format!("requires property \"{}\"", field.name))
                }
                None => {}
            }
        }
    }

    fn text<'a>(&mut self, property: &str, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            self.add(property, "is not of a type(s) string");
        }
        text
    }

    fn check_text(
        &mut self,
        property: &str,
        text: &str,
        min: usize,
        max: usize,
        pattern: Option<&Pattern>,
    ) {
        let length = text.chars().count();
        if length < min {
            self.add(property, format!("does not meet minimum length of {min}"));
        }
        if length > max {
            self.add(property, format!("does not meet maximum length of {max}"));
        }
        if let Some(pattern) = pattern
            && !pattern.accepts(text)
        {
            self.add(
                property,
                format!("does not match pattern \"{}\"", pattern.text),
            );
        }
    }

    fn check_integer(&mut self, property: &str, value: &Value, min: i64, max: i64) {
        match value.as_i64() {
            Some(number) if number < min => {
                self.add(property, format!("must be greater than or equal to {min}"))
            }
            Some(number) if number > max => {
                self.add(property, format!("must be less than or equal to {max}"))
            }
            Some(_) => {}
            None => self.add(property, "is not of a type(s) integer"),
        }
    }

    /// Whether it is a web address.
    fn check_url(&mut self, property: &str, text: &str) -> bool {
        self.check_text(property, text, 0, 300, None);
        let is_web_address = Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_web_address {
            self.add(property, "does not conform to the \"uri\" format");
        }
        is_web_address
    }

    /// "Addresses containing `localhost` and ports will be rejected." (imoje API, POST transaction/profile)
    fn check_notification_url(&mut self, property: &str, text: &str) {
        if !self.check_url(property, text) {
            return;
        }
        if text.to_ascii_lowercase().contains("localhost") {
            self.add(property, "must not contain localhost");
        } else if names_a_port(text) {
            self.add(property, "must not contain a port");
        }
    }
}

/// Whether the address names a port, be it the default one, which a parsed [`Url`] would hide.
fn names_a_port(address: &str) -> bool {
    let authority = address.split_once("://").map_or(address, |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // An IPv6 address stands in brackets and has colons of its own.
    host.rsplit(']').next().unwrap_or_default().contains(':')
}

const UUID_V4: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$";

/// Whether the text matches imoje's pattern for ids: lower case, version 4, RFC variant.
pub(super) fn is_uuid_v4(text: &str) -> bool {
    text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(position, byte)| match position {
                8 | 13 | 18 | 23 => byte == b'-',
                14 => byte == b'4',
                19 => matches!(byte, b'8' | b'9' | b'a' | b'b'),
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            })
}

/// A modest reading of RFC 5322 and RFC 6531: one `@`, a local part, a domain with dots between labels.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let clean = |part: &str| {
        !part
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control())
    };
    !local.is_empty()
        && local.len() <= 64
        && !local.contains('@')
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
        && clean(local)
        && clean(domain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::simulator::schema::DEBIT;

    fn debit() -> Value {
        json!({
            "serviceId": "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b",
            "paymentProfileId": "c0de0b1e-1111-4222-8333-9a4b5c6d7e8f",
            "amount": 4900, "currency": "PLN", "orderId": "inv-1042-a1",
        })
    }

    fn debit_with(field: &str, value: Value) -> Value {
        let mut body = debit();
        body[field] = value;
        body
    }

    fn invoice() -> Value {
        json!({
            "buyer": {"type": "PERSON", "email": "anna@example.test", "fullName": "Anna Żółć", "street": "Długa 1/2",
                "city": "Łódź", "postalCode": "90-001", "countryCodeAlpha2": "PL"},
            "positions": [{"name": "Box", "code": "B1", "quantity": 1.5, "unit": "pc", "grossAmount": 4900,
                "taxStake": "TAX_23"}],
        })
    }

    fn messages(body: &Value) -> Vec<String> {
        let found = violations(DEBIT, body).into_iter();
        found
            .map(|violation| format!("{}: {}", violation.property, violation.message))
            .collect()
    }

    #[test]
    fn the_documented_request_is_accepted() {
        let body = json!({"title": "yourTitle", "amount": 1000, "orderId": "yourOrderId", "currency": "PLN",
            "serviceId": "ab16c18c-e83b-424f-80c9-f839ed23181f",
            "paymentProfileId": "39ac1087-e632-41ff-acb8-8d661068a9d5"});
        assert_eq!(messages(&body), Vec::<String>::new());
    }

    #[test]
    fn each_required_field_is_named_as_in_the_documents() {
        for field in [
            "serviceId",
            "paymentProfileId",
            "amount",
            "currency",
            "orderId",
        ] {
            let mut body = debit();
            body.as_object_mut().unwrap().remove(field);
            assert_eq!(
                messages(&body),
                [format!("instance: requires property \"{field}\"")]
            );
        }
    }

    #[test]
    fn fields_that_the_documents_do_not_know_are_refused() {
        for field in ["customer", "clientIp", "profileType", "idempotencyKey"] {
            let found = messages(&debit_with(field, json!("x")));
            assert_eq!(
                found,
                [format!(
                    "instance: is not allowed to have the additional property \"{field}\""
                )]
            );
        }
    }

    #[test]
    fn fields_accept_what_their_pattern_allows() {
        for (field, value) in [
            ("orderId", json!("A-z 0#_.\\/Łódź")),
            ("orderId", json!("x".repeat(100))),
            ("title", json!("Abonament & \"inne\", 'Ę' #1")),
            ("title", json!("ł".repeat(255))),
            ("amount", json!(1)),
            ("amount", json!(999_999_999)),
            ("currency", json!("RON")),
            (
                "notificationUrl",
                json!("https://billing.example.test/imoje/n?a=1:2"),
            ),
            ("notificationUrl", json!("https://[2001:db8::1]/n")),
        ] {
            assert_eq!(
                messages(&debit_with(field, value)),
                Vec::<String>::new(),
                "{field}"
            );
        }
    }

    #[test]
    fn fields_refuse_what_their_pattern_does_not_allow() {
        for (field, value) in [
            ("orderId", json!("")),
            ("orderId", json!("a:b")),
            ("orderId", json!("a,b")),
            ("orderId", json!("a&b")),
            ("orderId", json!("a\n")),
            ("orderId", json!("x".repeat(101))),
            ("orderId", json!(7)),
            ("title", json!("")),
            ("title", json!("a+b")),
            ("title", json!("a (b)")),
            ("title", json!("x".repeat(256))),
            ("title", Value::Null),
            ("amount", json!(0)),
            ("amount", json!(-1)),
            ("amount", json!(1_000_000_000)),
            ("amount", json!("4900")),
            ("amount", json!(49.5)),
            ("currency", json!("pln")),
            ("currency", json!("UAH")),
            ("serviceId", json!("2B8A4E1C-9D37-4F60-8A55-0C6E7D1F2A3B")),
            (
                "paymentProfileId",
                json!("c0de0b1e-1111-1222-8333-9a4b5c6d7e8f"),
            ),
            ("notificationUrl", json!("http://localhost/n")),
            ("notificationUrl", json!("https://shop.example.test:443/n")),
            (
                "notificationUrl",
                json!("https://user@shop.example.test:8443/n"),
            ),
            ("notificationUrl", json!("ftp://shop.example.test/n")),
            ("notificationUrl", json!("shop.example.test/n")),
            (
                "notificationUrl",
                json!(format!("https://shop.example.test/{}", "n".repeat(300))),
            ),
            ("data", json!({})),
            (
                "data",
                json!({"multipayout": [{"ban": "123", "amount": 1, "label": "x"}]}),
            ),
            ("invoice", json!({})),
        ] {
            let body = debit_with(field, value);
            assert!(!messages(&body).is_empty(), "{body} is refused");
        }
    }

    #[test]
    fn a_title_in_one_payout_is_due_in_all() {
        let payout = |title: Option<&str>| {
            let mut payout =
                json!({"ban": "10105000997603123456789123", "amount": 100, "label": "Jan, s.c."});
            if let Some(title) = title {
                payout["title"] = json!(title);
            }
            payout
        };
        let of = |titles: [Option<&str>; 2]| {
            debit_with("data", json!({"multipayout": titles.map(payout)}))
        };
        assert_eq!(messages(&of([None, None])), Vec::<String>::new());
        assert_eq!(messages(&of([Some("a"), Some("b")])), Vec::<String>::new());
        assert_eq!(messages(&of([Some("a"), None])).len(), 1);
    }

    #[test]
    fn an_invoice_is_checked_to_the_last_field() {
        assert_eq!(
            messages(&debit_with("invoice", invoice())),
            Vec::<String>::new()
        );
        let refused = |change: fn(&mut Value)| {
            let mut invoice = invoice();
            change(&mut invoice);
            messages(&debit_with("invoice", invoice))
        };
        assert_eq!(
            refused(|invoice| invoice["buyer"]["type"] = json!("COMPANY")),
            [
                "instance.invoice.buyer: requires property \"idType\"",
                "instance.invoice.buyer: requires property \"idNumber\""
            ]
        );
        assert_eq!(
            refused(|invoice| invoice["buyer"]["idType"] = json!("VAT_ID")),
            ["instance.invoice.buyer: requires property \"idCountryCodeAlpha2\""]
        );
        assert_eq!(
            refused(|invoice| invoice["positions"][0]["quantity"] = json!(-1)),
            ["instance.invoice.positions[0].quantity: must be greater than or equal to 0"]
        );
        assert_eq!(
            refused(|invoice| invoice["positions"][0]["taxStake"] = json!("23")).len(),
            1
        );
        assert_eq!(
            refused(|invoice| invoice["buyer"]["email"] = json!("anna@")).len(),
            1
        );
        assert_eq!(
            refused(|invoice| invoice["basisForVatExemption"] = json!({"type": "OTHER"})).len(),
            1
        );
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert_eq!(
            messages(&json!([])),
            ["instance: is not of a type(s) object"]
        );
    }
}
