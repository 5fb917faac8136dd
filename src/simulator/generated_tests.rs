//! Every documented rule of every body, broken once: generated from the tables in [`schema`](super::schema), so that none is left out.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schema::{
    CAN_REFUND, CANCEL, DEACTIVATE, DEBIT, Field, Format, Kind, PAYMENT, REFUND, TRANSACTION,
};
use super::validation::violations;

/// The bodies, by the operation that takes each.
const BODIES: [(&str, &[Field]); 7] = [
    ("POST transaction/profile", DEBIT),
    ("POST transaction", TRANSACTION),
    ("POST payment", PAYMENT),
    ("POST payment/cancel", CANCEL),
    ("POST profile/deactivate", DEACTIVATE),
    ("POST transaction/{id}/refund", REFUND),
    ("POST transaction/{id}/can-refund", CAN_REFUND),
];

/// A letter that no documented pattern takes.
const STRANGE: char = '\u{2603}';

/// A value that breaks one rule.
struct Wrong {
    /// Which, in a few words.
    rule: &'static str,
    value: Value,
    /// The path from the value to what is wrong.
    at: String,
}

fn wrong(rule: &'static str, value: Value) -> Wrong {
    Wrong {
        rule,
        value,
        at: String::new(),
    }
}

/// A value that imoje takes. Objects have all their members.
fn right(kind: &Kind) -> Value {
    match kind {
        Kind::Text { min, pattern, .. } => {
            let takes = |letter: &char| {
                pattern
                    .as_ref()
                    .is_none_or(|pattern| pattern.accepts(&letter.to_string()))
            };
            let letter = ['1', 'a'].into_iter().find(takes).expect("a letter");
            json!(letter.to_string().repeat((*min).max(1)))
        }
        Kind::Format(Format::UuidV4) => json!("2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b"),
        Kind::Format(Format::Url | Format::NotificationUrl) => json!("https://shop.example.test/x"),
        Kind::Format(Format::IpAddress) => json!("203.0.113.7"),
        Kind::Format(Format::Email) => json!("anna@example.test"),
        Kind::OneOf(words) => json!(words[0]),
        Kind::Integer { min, .. } => json!((*min).max(1)),
        Kind::IntegerOrNull { .. } | Kind::Quantity | Kind::Number => json!(1),
        Kind::NumberOrWord(numbers, _) => json!(numbers[0]),
        Kind::Boolean => json!(true),
        Kind::Object(fields) => Value::Object(members(fields)),
        Kind::List(item) => json!([right(item)]),
        Kind::Also(kind, _) => right(kind),
    }
}

fn members(fields: &[Field]) -> Map<String, Value> {
    fields
        .iter()
        .map(|field| (field.name.to_owned(), right(&field.kind)))
        .collect()
}

/// Values that break one rule of `kind` each.
fn wrongs(kind: &Kind) -> Vec<Wrong> {
    match kind {
        Kind::Text { min, max, pattern } => {
            let fitting = right(kind);
            let letter = fitting
                .as_str()
                .and_then(|text| text.chars().next())
                .unwrap_or('1')
                .to_string();
            let mut all = vec![wrong("another type", json!(1))];
            if *max < usize::MAX {
                all.push(wrong("too long", json!(letter.repeat(max + 1))));
            }
            if *min > 0 {
                all.push(wrong("too short", json!(letter.repeat(min - 1))));
            }
            if let Some(pattern) = pattern {
                let strange = format!("{STRANGE}{}", letter.repeat(min.saturating_sub(1)));
                assert!(!pattern.accepts(&strange), "{}", pattern.text);
                all.push(wrong("outside of the pattern", json!(strange)));
                if !pattern.accepts("") {
                    all.push(wrong("empty", json!("")));
                }
            }
            all
        }
        Kind::Format(format) => formats(*format),
        Kind::OneOf(_) => vec![
            wrong("no such word", json!("snowman")),
            wrong("another type", json!(1)),
        ],
        Kind::Integer { min, max } => {
            let mut all = vec![
                wrong("another type", json!("1")),
                wrong("a fraction", json!(1.5)),
            ];
            all.extend(min.checked_sub(1).map(|low| wrong("too small", json!(low))));
            all.extend(
                max.checked_add(1)
                    .map(|high| wrong("too large", json!(high))),
            );
            all
        }
        Kind::IntegerOrNull { min } => vec![
            wrong("another type", json!("1")),
            wrong("too small", json!(min - 1)),
        ],
        Kind::Quantity => vec![
            wrong("another type", json!("1")),
            wrong("too small", json!(-1)),
        ],
        Kind::Number => vec![wrong("another type", json!("1"))],
        Kind::NumberOrWord(_, _) => vec![
            wrong("no such word", json!("snowman")),
            wrong("no such number", json!(1)),
        ],
        Kind::Boolean => vec![wrong("another type", json!("true"))],
        Kind::Object(fields) => objects(fields),
        Kind::List(item) => {
            let mut all = vec![wrong("another type", json!({}))];
            all.extend(wrongs(item).into_iter().map(|element| Wrong {
                value: json!([element.value]),
                at: format!("[0]{}", element.at),
                ..element
            }));
            all
        }
        Kind::Also(kind, _) => wrongs(kind),
    }
}

fn formats(format: Format) -> Vec<Wrong> {
    let texts: &[(&'static str, &str)] = match format {
        Format::UuidV4 => &[
            ("no UUID", "x"),
            ("another version", "2b8a4e1c-9d37-1f60-8a55-0c6e7d1f2a3b"),
            ("large letters", "2B8A4E1C-9D37-4F60-8A55-0C6E7D1F2A3B"),
            ("no hyphens", "2b8a4e1c9d374f608a550c6e7d1f2a3b"),
        ],
        Format::Url => &[("no address", "nowhere")],
        Format::NotificationUrl => &[
            ("no address", "nowhere"),
            ("localhost", "https://localhost/x"),
            ("a port", "https://shop.example.test:8443/x"),
        ],
        Format::IpAddress => &[("no address", "203.0.113")],
        Format::Email => &[("no address", "anna")],
    };
    let mut all: Vec<Wrong> = texts
        .iter()
        .map(|(rule, text)| wrong(rule, json!(text)))
        .collect();
    all.push(wrong("another type", json!(1)));
    if matches!(format, Format::Url | Format::NotificationUrl) {
        let long = format!("https://shop.example.test/{}", "x".repeat(300));
        all.push(wrong("too long", json!(long)));
    }
    all
}

/// Objects of which one member is missing, unknown, or wrong.
fn objects(fields: &[Field]) -> Vec<Wrong> {
    let whole = members(fields);
    let with = |name: &str, value: Option<Value>| {
        let mut object = whole.clone();
        match value {
            Some(value) => drop(object.insert(name.to_owned(), value)),
            None => drop(object.remove(name)),
        }
        Value::Object(object)
    };
    let mut all = vec![
        wrong("another type", json!("x")),
        wrong("an unknown member", with("snowman", Some(json!(1)))),
    ];
    for field in fields {
        if field.required {
            all.push(wrong("missing", with(field.name, None)));
        }
        all.extend(wrongs(&field.kind).into_iter().map(|member| Wrong {
            value: with(field.name, Some(member.value)),
            at: format!(".{}{}", field.name, member.at),
            ..member
        }));
    }
    all
}

#[test]
fn each_documented_rule_of_each_body_is_kept() {
    let mut counts = Vec::new();
    for (operation, fields) in BODIES {
        let body = right(&Kind::Object(fields));
        assert_eq!(violations(fields, &body), [], "{operation}: {body}");
        let broken = objects(fields);
        for Wrong { rule, value, at } in &broken {
            let found = violations(fields, value);
            let property = format!("instance{at}");
            assert!(
                found.iter().any(|violation| violation.property == property),
                "{operation}, {property} {rule}: {found:?}"
            );
        }
        let rules: BTreeSet<_> = broken.iter().map(|wrong| wrong.rule).collect();
        counts.push((operation, broken.len(), rules.len()));
    }
    let all: usize = counts.iter().map(|(_, broken, _)| broken).sum();
    assert!(all > 500, "{counts:?}");
}

/// The patterns as they are written in the documents, which this stands beside the functions for.
#[test]
fn each_pattern_takes_what_it_says_letter_by_letter() {
    fn patterns<'a>(kind: &'a Kind, found: &mut Vec<&'a super::schema::Pattern>) {
        match kind {
            Kind::Text {
                pattern: Some(pattern),
                ..
            } => found.push(pattern),
            Kind::Object(fields) => fields.iter().for_each(|field| patterns(&field.kind, found)),
            Kind::List(kind) | Kind::Also(kind, _) => patterns(kind, found),
            Kind::Text { pattern: None, .. }
            | Kind::Format(_)
            | Kind::OneOf(_)
            | Kind::Integer { .. }
            | Kind::IntegerOrNull { .. }
            | Kind::Quantity
            | Kind::Number
            | Kind::NumberOrWord(_, _)
            | Kind::Boolean => {}
        }
    }
    let bodies: Vec<Kind> = BODIES
        .iter()
        .map(|(_, fields)| Kind::Object(fields))
        .collect();
    let mut found = Vec::new();
    for body in &bodies {
        patterns(body, &mut found);
    }
    let mut seen = BTreeSet::new();
    for pattern in found {
        if !seen.insert(pattern.text) {
            continue;
        }
        for letter in (' '..'\u{500}').chain(['\t', '\n', STRANGE]) {
            assert_eq!(
                pattern.accepts(&letter.to_string()) || pattern.text.contains("{26}"),
                is_in_class(pattern.text, letter) || pattern.text.contains("{26}"),
                "{letter:?} and {}",
                pattern.text
            );
        }
    }
    assert!(seen.len() >= 11, "{seen:?}");
}

/// Whether a letter is in the one class of a documented pattern. A reader of its own, for classes of this kind alone.
fn is_in_class(pattern: &str, letter: char) -> bool {
    let class = pattern
        .trim_start_matches("^[")
        .rsplit_once(']')
        .map_or("", |(class, _)| class);
    let mut letters: Vec<(char, bool)> = Vec::new();
    let mut rest = class.chars().peekable();
    while let Some(next) = rest.next() {
        if next != '\\' {
            letters.push((next, false));
            continue;
        }
        match rest.next() {
            Some('u') => {
                let code: String = rest.by_ref().take(4).collect();
                let code = u32::from_str_radix(&code, 16).expect("a code");
                letters.push((char::from_u32(code).expect("a letter"), false));
            }
            Some('x') => {
                let code: String = rest.by_ref().take(2).collect();
                let code = u32::from_str_radix(&code, 16).expect("a code");
                letters.push((char::from_u32(code).expect("a letter"), true));
            }
            Some('s') if letter.is_whitespace() => return true,
            Some('s') => {}
            Some(escaped) => letters.push((escaped, true)),
            None => letters.push(('\\', true)),
        }
    }
    let mut place = 0;
    while let Some(&(first, _)) = letters.get(place) {
        match (letters.get(place + 1), letters.get(place + 2)) {
            (Some(('-', false)), Some((last, _))) => {
                if (first..=*last).contains(&letter) {
                    return true;
                }
                place += 3;
            }
            (_, _) => {
                if first == letter {
                    return true;
                }
                place += 1;
            }
        }
    }
    false
}
