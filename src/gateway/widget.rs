//! imoje's card widget, as signed HTML for the page of a shop (imoje FRONT API, "Widget for card payments").
//!
//! The widget registers a card for recurring debits without leaving the shop's page, and without card data of the shop's.

use std::collections::BTreeMap;
use std::fmt::Write;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::domain::fields::{
    FieldError, validate_cid, validate_customer, validate_order_id, validate_return_url,
    validate_widget_name, validate_widget_title,
};
use crate::domain::money::Money;

/// Where a widget comes from (imoje FRONT API, "Widget"; for ING Pay the payment pages that clients use since the change of the name).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WidgetHost {
    /// imoje's real one.
    Production,
    /// imoje's to try.
    Sandbox,
    /// ING Pay's real one.
    IngPay,
    /// ING Pay's to try.
    IngPaySandbox,
}

impl WidgetHost {
    const fn script(self) -> &'static str {
        match self {
            WidgetHost::Production => "https://paywall.imoje.pl/js/widget.min.js",
            WidgetHost::Sandbox => "https://sandbox.paywall.imoje.pl/js/widget.min.js",
            WidgetHost::IngPay => "https://paywall.pay.ing.pl/js/widget.min.js",
            WidgetHost::IngPaySandbox => "https://paywall.sandbox.pay.ing.pl/js/widget.min.js",
        }
    }
}

/// Whose widget it is.
#[derive(Debug, Clone, Copy)]
pub struct WidgetShop<'a> {
    /// Where it comes from.
    pub host: WidgetHost,
    /// imoje's id of the merchant.
    pub merchant_id: &'a str,
    /// imoje's id of the shop.
    pub service_id: Uuid,
    /// The key that signs it.
    pub service_key: &'a SecretString,
}

/// A payment by which a payer registers a card.
#[derive(Debug, Clone, PartialEq)]
pub struct WidgetOrder {
    /// `data-order-id`
    pub order_id: String,
    /// `data-amount` and `data-currency`
    pub amount: Money,
    /// `data-customer-id`: under which name imoje stores the card. One instrument, one `cid`.
    pub cid: String,
    /// The payer, as documented for `customer`; `locale` is that of the widget.
    pub customer: Value,
    /// `data-order-description`
    pub title: Option<String>,
    /// `data-url-success`
    pub success_url: Option<String>,
    /// `data-url-failure`
    pub failure_url: Option<String>,
    /// `data-url-return`
    pub return_url: Option<String>,
    /// `data-url-cancel`
    pub cancel_url: Option<String>,
    /// `data-valid-to`
    pub valid_to: Option<DateTime<Utc>>,
    /// `data-inline`: whether it opens in the element `imoje-widget__wrapper` of the page.
    pub is_inline: bool,
}

impl WidgetOrder {
    /// The script element to put into a page.
    ///
    /// # Errors
    /// The first field that imoje would refuse.
    pub fn html(&self, shop: WidgetShop<'_>) -> Result<String, FieldError> {
        let signed = self.signed(shop)?;
        let mut html = format!(
            "<script\n  src=\"{}\"\n  id=\"imoje-widget__script\"",
            shop.host.script()
        );
        let mut attribute = |name: &str, value: &str| {
            let _ = write!(html, "\n  {}=\"{}\"", dashed(name), escaped(value));
        };
        for (name, value) in &signed {
            attribute(name, value);
        }
        // "Not to be included in the signature."
        if let Some(locale) = self.customer["locale"].as_str() {
            attribute("locale", locale);
        }
        if self.is_inline {
            attribute("inline", "true");
        }
        attribute("signature", &signature(&signed, shop.service_key));
        html.push_str("></script>\n");
        Ok(html)
    }

    /// What is signed, by its names in the signature.
    fn signed(&self, shop: WidgetShop<'_>) -> Result<BTreeMap<&'static str, String>, FieldError> {
        validate_order_id(&self.order_id)?;
        validate_cid(&self.cid)?;
        validate_customer(&self.customer)?;
        let payer = |name: &str| self.customer[name].as_str().map(str::to_owned);
        for name in ["firstName", "lastName"] {
            validate_widget_name(name, &payer(name).unwrap_or_default())?;
        }
        self.title
            .as_deref()
            .map_or(Ok(()), validate_widget_title)?;
        let urls = [
            ("urlSuccess", &self.success_url),
            ("urlFailure", &self.failure_url),
            ("urlReturn", &self.return_url),
            ("urlCancel", &self.cancel_url),
        ];
        for (name, url) in urls {
            url.as_deref()
                .map_or(Ok(()), |url| validate_return_url(name, url))?;
        }
        let required = [
            ("merchantId", shop.merchant_id.to_owned()),
            ("serviceId", shop.service_id.to_string()),
            ("amount", self.amount.minor().to_string()),
            ("currency", self.amount.currency().code().to_owned()),
            ("orderId", self.order_id.clone()),
            ("customerId", self.cid.clone()),
            ("widgetType", "recurring".to_owned()),
        ];
        let optional = [
            ("customerFirstName", payer("firstName")),
            ("customerLastName", payer("lastName")),
            ("customerEmail", payer("email")),
            ("customerPhone", payer("phone")),
            ("orderDescription", self.title.clone()),
            (
                "validTo",
                self.valid_to.map(|at| at.timestamp().to_string()),
            ),
        ];
        let urls = urls.map(|(name, url)| (name, url.clone()));
        Ok(required
            .into_iter()
            .chain(
                optional
                    .into_iter()
                    .chain(urls)
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .collect())
    }
}

/// "The hash of `name=value&name=value` in the order of the names, with the shop's key at its end" (imoje FRONT API, "Signature").
fn signature(signed: &BTreeMap<&str, String>, key: &SecretString) -> String {
    let pairs: Vec<_> = signed
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let hash = Sha256::new()
        .chain_update(pairs.join("&"))
        .chain_update(key.expose_secret())
        .finalize();
    format!("{};sha256", hex::encode(hash))
}

/// `orderId` as `data-order-id`.
fn dashed(name: &str) -> String {
    let mut attribute = "data-".to_owned();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            attribute.push('-');
        }
        attribute.push(letter.to_ascii_lowercase());
    }
    attribute
}

/// For the value of an attribute.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::money::Currency;

    fn key() -> SecretString {
        SecretString::from("eAyhFLuHgwl5hu-32GM8QVlCVMWRU0dGjH1c")
    }

    fn order() -> WidgetOrder {
        WidgetOrder {
            order_id: "reg-1".to_owned(),
            amount: Money::new(200, Currency::Pln).unwrap(),
            cid: "cus-1".to_owned(),
            customer: json!({"firstName": "Anna", "lastName": "Nowak", "email": "anna@example.test", "locale": "pl"}),
            title: None,
            success_url: Some("https://shop.example.test/ok?a=1&b=2".to_owned()),
            failure_url: None,
            return_url: None,
            cancel_url: None,
            valid_to: None,
            is_inline: true,
        }
    }

    fn html(order: &WidgetOrder) -> Result<String, FieldError> {
        order.html(WidgetShop {
            host: WidgetHost::Sandbox,
            merchant_id: "6yt3gjtm9p1odfgx8491",
            service_id: "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b".parse().unwrap(),
            service_key: &key(),
        })
    }

    #[test]
    fn the_signature_is_that_of_the_published_sample() {
        let fields = [
            ("merchantId", "6yt3gjtm9p1odfgx8491"),
            ("serviceId", "63f574ed-d90d-4abe-9cs1-39117584a7b"),
            ("amount", "300"),
            ("currency", "PLN"),
            ("orderId", "123"),
            ("orderDescription", "Example transaction"),
            ("customerFirstName", "John"),
            ("customerLastName", "Doe"),
            ("customerEmail", "johndoe@domain.com"),
            ("customerPhone", "501501501"),
            ("urlSuccess", "https://your-shop.com/success"),
            ("urlFailure", "https://your-shop.com/failure"),
            ("urlReturn", "https://your-shop.com/return"),
        ];
        let fields = fields.map(|(name, value)| (name, value.to_owned())).into();
        assert_eq!(
            signature(&fields, &key()),
            "0dd0c7b26d2bb0ea0b87c1cb10d83ab54a2ce18f72c7be8ef1b4bb31ad7515c2;sha256"
        );
    }

    #[test]
    fn the_html_signs_what_is_documented_and_nothing_else() {
        let html = html(&order()).unwrap();
        let names: Vec<_> = html
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            [
                "src",
                "id",
                "data-amount",
                "data-currency",
                "data-customer-email",
                "data-customer-first-name",
                "data-customer-id",
                "data-customer-last-name",
                "data-merchant-id",
                "data-order-id",
                "data-service-id",
                "data-url-success",
                "data-widget-type",
                "data-locale",
                "data-inline",
                "data-signature",
            ]
        );
        assert!(html.contains("data-widget-type=\"recurring\""), "{html}");
        // Signed as it is, and written as HTML wants it.
        assert!(html.contains("data-url-success=\"https://shop.example.test/ok?a=1&amp;b=2\""));
        let other = WidgetOrder {
            is_inline: false,
            ..order()
        };
        let signature = |html: &str| html.split("data-signature=").nth(1).map(str::to_owned);
        assert_eq!(signature(&html), signature(&self::html(&other).unwrap()));
        let other = WidgetOrder {
            amount: Money::new(201, Currency::Pln).unwrap(),
            ..order()
        };
        assert_ne!(signature(&html), signature(&self::html(&other).unwrap()));
        assert!(!html.contains("eAyhFLuHgwl5hu"), "the key stays here");
    }

    #[test]
    fn what_the_widget_would_refuse_is_named() {
        let customer = |name: &str, value: &str| {
            let mut customer = order().customer;
            customer[name] = json!(value);
            customer
        };
        for (wrong, field) in [
            (
                WidgetOrder {
                    customer: customer("firstName", "A & B"),
                    ..order()
                },
                "firstName",
            ),
            (
                WidgetOrder {
                    customer: customer("email", "anna"),
                    ..order()
                },
                "customer.email",
            ),
            (
                WidgetOrder {
                    title: Some("\"A\"".to_owned()),
                    ..order()
                },
                "orderDescription",
            ),
            (
                WidgetOrder {
                    cancel_url: Some("shop".to_owned()),
                    ..order()
                },
                "urlCancel",
            ),
            (
                WidgetOrder {
                    cid: "a b".to_owned(),
                    ..order()
                },
                "cid",
            ),
        ] {
            assert_eq!(html(&wrong).unwrap_err().field, field);
        }
    }
}
