//! Reading a JSON object against a list of documented members.

use serde_json::{Map, Value};

use crate::domain::fields::text::{self, TextRule};
use crate::domain::fields::{FieldError, Problem};
use crate::domain::money::Money;

/// The most characters of an e-mail address.
const EMAIL_MAX: usize = 200;

/// The most bytes of the part before the `@` (RFC 5321, 4.5.3.1.1).
const EMAIL_LOCAL_MAX: usize = 64;

/// The most bytes of one label of a domain name (RFC 1035, 2.3.4).
const DOMAIN_LABEL_MAX: usize = 63;

const EMAIL_ALLOWED: &str = "an e-mail address of at most 200 characters";

/// The members of one JSON object, with the path to it for errors.
pub(super) struct Members<'a> {
    path: String,
    members: &'a Map<String, Value>,
}

impl<'a> Members<'a> {
    /// The members of `value`, which must be an object without members other than `known`.
    pub(super) fn of(path: &str, value: &'a Value, known: &[&str]) -> Result<Self, FieldError> {
        let Value::Object(members) = value else {
            return Err(FieldError::new(path, Problem::Form, "a JSON object"));
        };
        for name in members.keys() {
            if !known.contains(&name.as_str()) {
                // The name itself is foreign text: it is shown only when it is a plain name.
                let name = if text::PRINTABLE.check(path, name).is_ok() {
                    name
                } else {
                    "(unreadable name)"
                };
                return Err(FieldError::new(
                    &format!("{path}.{name}"),
                    Problem::Unknown,
                    &known.join(", "),
                ));
            }
        }
        Ok(Self {
            path: path.to_owned(),
            members,
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// The path of a member.
    pub(super) fn path_of(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// A member that must be there.
    pub(super) fn required(&self, name: &str, allowed: &str) -> Result<&'a Value, FieldError> {
        self.members
            .get(name)
            .ok_or_else(|| FieldError::new(&self.path_of(name), Problem::Missing, allowed))
    }

    /// A member that must be there and be a text that follows `rule`.
    pub(super) fn text(&self, name: &str, rule: &TextRule) -> Result<&'a str, FieldError> {
        let path = self.path_of(name);
        let Value::String(text) = self.required(name, rule.allowed)? else {
            return Err(FieldError::new(&path, Problem::Form, rule.allowed));
        };
        rule.check(&path, text)?;
        Ok(text)
    }

    /// A member that, when it is there, must be a text that follows `rule`.
    pub(super) fn optional_text(&self, name: &str, rule: &TextRule) -> Result<(), FieldError> {
        if self.has(name) {
            self.text(name, rule)?;
        }
        Ok(())
    }

    /// A member that must be there and be one of `values`.
    pub(super) fn one_of(&self, name: &str, values: &[&str]) -> Result<&'a str, FieldError> {
        let allowed = values.join(", ");
        match self.required(name, &allowed)? {
            Value::String(text) if values.contains(&text.as_str()) => Ok(text),
            Value::String(_) => Err(FieldError::new(
                &self.path_of(name),
                Problem::NotListed,
                &allowed,
            )),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => Err(FieldError::new(
                &self.path_of(name),
                Problem::Form,
                &allowed,
            )),
        }
    }

    /// A member that must be there and be a number.
    pub(super) fn number(&self, name: &str) -> Result<(), FieldError> {
        const ALLOWED: &str = "a number";
        if self.required(name, ALLOWED)?.is_number() {
            return Ok(());
        }
        Err(FieldError::new(&self.path_of(name), Problem::Form, ALLOWED))
    }

    /// A member that must be there and be a whole number in a range.
    pub(super) fn whole(&self, name: &str, (min, max): (i64, i64)) -> Result<(), FieldError> {
        let allowed = format!("a whole number from {min} to {max}");
        let wrong = |problem| Err(FieldError::new(&self.path_of(name), problem, &allowed));
        match self.required(name, &allowed)?.as_i64() {
            Some(number) if (min..=max).contains(&number) => Ok(()),
            Some(_) => wrong(Problem::Range),
            None => wrong(Problem::Form),
        }
    }

    /// A member that must be there and be `true` or `false`.
    pub(super) fn boolean(&self, name: &str) -> Result<(), FieldError> {
        const ALLOWED: &str = "true or false";
        if self.required(name, ALLOWED)?.is_boolean() {
            return Ok(());
        }
        Err(FieldError::new(&self.path_of(name), Problem::Form, ALLOWED))
    }

    /// A member that must be there and be an IP address.
    pub(super) fn ip_address(&self, name: &str) -> Result<(), FieldError> {
        const ALLOWED: &str = "an IPv4 or IPv6 address";
        let address = self.required(name, ALLOWED)?.as_str();
        if address.is_some_and(|address| address.parse::<std::net::IpAddr>().is_ok()) {
            return Ok(());
        }
        Err(FieldError::new(&self.path_of(name), Problem::Form, ALLOWED))
    }

    /// A member that must be there and be an e-mail address.
    pub(super) fn email(&self, name: &str) -> Result<(), FieldError> {
        let wrong = |problem| FieldError::new(&self.path_of(name), problem, EMAIL_ALLOWED);
        let email = self
            .required(name, EMAIL_ALLOWED)?
            .as_str()
            .ok_or_else(|| wrong(Problem::Form))?;
        text::check_card_number(email).map_err(wrong)?;
        let length = email.chars().count();
        if length > EMAIL_MAX {
            return Err(wrong(Problem::TooLong { length }));
        }
        if is_email(email) {
            Ok(())
        } else {
            Err(wrong(Problem::Form))
        }
    }

    /// A member that must be there and be a whole number of minor units from `min` to imoje's largest amount.
    pub(super) fn amount(&self, name: &str, min: i64) -> Result<i64, FieldError> {
        let allowed = format!(
            "a whole number of minor units from {min} to {}",
            Money::CHARGE_MINOR_MAX
        );
        let wrong = |problem| FieldError::new(&self.path_of(name), problem, &allowed);
        let Value::Number(number) = self.required(name, &allowed)? else {
            return Err(wrong(Problem::Form));
        };
        if number.is_f64() {
            return Err(wrong(Problem::Form));
        }
        match number.as_i64() {
            Some(minor) if (min..=Money::CHARGE_MINOR_MAX).contains(&minor) => Ok(minor),
            Some(_) | None => Err(wrong(Problem::Range)),
        }
    }
}

/// The elements of an array that must have at least one, each with its path.
pub(super) fn elements<'a>(
    path: &str,
    value: &'a Value,
) -> Result<impl Iterator<Item = (String, &'a Value)>, FieldError> {
    const ALLOWED: &str = "a JSON array of at least one object";
    let Value::Array(elements) = value else {
        return Err(FieldError::new(path, Problem::Form, ALLOWED));
    };
    if elements.is_empty() {
        return Err(FieldError::new(path, Problem::Empty, ALLOWED));
    }
    let path = path.to_owned();
    Ok(elements
        .iter()
        .enumerate()
        .map(move |(index, element)| (format!("{path}[{index}]"), element)))
}

/// An address of RFC 5322 with the letters of RFC 6531. Quoted names and addresses in brackets, which no mail provider gives
/// out, are not taken.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.chars().all(|c| {
                c.is_ascii_alphanumeric()
                    || "!#$%&'*+-/=?^_`{|}~".contains(c)
                    || (!c.is_ascii() && !c.is_control() && !c.is_whitespace())
            })
    };
    let is_label = |label: &str| {
        (1..=DOMAIN_LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-')
    };
    local.len() <= EMAIL_LOCAL_MAX
        && local.split('.').all(is_atom)
        && domain.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn email_addresses_are_told_from_other_texts() {
        for email in [
            "a@b",
            "anna.nowak+1@example.test",
            "żółw@łódź.example.test",
            "o'neil@x-y.test",
        ] {
            assert!(is_email(email), "{email}");
        }
        for text in [
            "",
            "@",
            "a@",
            "@b",
            ".a@b",
            "a.@b",
            "a..b@c",
            "a@-b.test",
            "a@b-.test",
            "a@b_c",
            "\"a b\"@c",
            "a@[::1]",
        ] {
            assert!(!is_email(text), "{text}");
        }
    }
}
