//! Rules for texts: how long, and which characters. Written as imoje's patterns are, so that they can be compared by eye.

use crate::domain::card_number::looks_like_card_number;
use crate::domain::fields::{FieldError, Problem};

/// What one field takes.
pub(super) struct TextRule {
    /// The fewest characters.
    pub(super) min: usize,
    /// The most characters; imoje counts characters and not bytes.
    pub(super) max: usize,
    /// The characters.
    pub(super) takes: fn(char) -> bool,
    /// All of that in words.
    pub(super) allowed: &'static str,
}

/// `orderId`: `^[A-Za-z0-9#_\-\.\\\\/ \u00C0-\u02C0]+$`
pub(super) const ORDER_ID: TextRule = TextRule {
    min: 1,
    max: 100,
    takes: |c| c.is_ascii_alphanumeric() || r"#_-.\/ ".contains(c) || is_latin(c),
    allowed: r"1 to 100 characters of A-Z a-z 0-9 # _ - . \ / space and U+00C0 to U+02C0",
};

/// `title`: `^[A-Za-z0-9#&_\-\,\.\\\\/ \u00C0-\u02C0"']+$`
pub(super) const TITLE: TextRule = TextRule {
    min: 1,
    max: 255,
    takes: is_of_title,
    allowed: r#"1 to 255 characters of A-Z a-z 0-9 # & _ - , . \ / " ' space and U+00C0 to U+02C0"#,
};

/// `data.multipayout[].title`: as `title`
pub(super) const PAYOUT_TITLE: TextRule = TextRule {
    min: 1,
    max: 105,
    takes: is_of_title,
    allowed: r#"1 to 105 characters of A-Z a-z 0-9 # & _ - , . \ / " ' space and U+00C0 to U+02C0"#,
};

/// `data.multipayout[].label`: `^[A-Za-z0-9\-\,\. \u00C0-\u02C0"']+$`
pub(super) const PAYOUT_LABEL: TextRule = TextRule {
    min: 1,
    max: 70,
    takes: |c| c.is_ascii_alphanumeric() || r#"-,. "'"#.contains(c) || is_latin(c),
    allowed: r#"1 to 70 characters of A-Z a-z 0-9 - , . " ' space and U+00C0 to U+02C0"#,
};

/// `data.multipayout[].ban`: `^[0-9]{26}$`
pub(super) const ACCOUNT: TextRule = TextRule {
    min: 26,
    max: 26,
    takes: |c| c.is_ascii_digit(),
    allowed: "26 digits",
};

/// `cid`: `^[A-Za-z0-9\x2D]+$`
pub(super) const CID: TextRule = TextRule {
    min: 1,
    max: 36,
    takes: |c| c.is_ascii_alphanumeric() || c == '-',
    allowed: "1 to 36 characters of A-Z a-z 0-9 -",
};

/// `invoice.buyer.fullName`: `^[A-Za-z0-9#&_\-\,\.\\\\/ \u00C0-\u02C0\u0400-\u04FF"']+$`
pub(super) const FULL_NAME: TextRule = TextRule {
    min: 1,
    max: 200,
    takes: |c| is_of_title(c) || is_cyrillic(c),
    allowed: concat!(
        r#"1 to 200 characters of A-Z a-z 0-9 # & _ - , . \ / " ' space, "#,
        "U+00C0 to U+02C0 and U+0400 to U+04FF"
    ),
};

/// `customer.firstName` and `lastName`: as `invoice.buyer.fullName`
pub(super) const NAME: TextRule = TextRule {
    min: 1,
    max: 100,
    takes: FULL_NAME.takes,
    allowed: concat!(
        r#"1 to 100 characters of A-Z a-z 0-9 # & _ - , . \ / " ' space, "#,
        "U+00C0 to U+02C0 and U+0400 to U+04FF"
    ),
};

/// `data-order-description` of the widget: `A-Za-z0-9#&_-,.\/`, space and U+00C0 to U+02C0
pub(super) const WIDGET_TITLE: TextRule = TextRule {
    min: 1,
    max: 255,
    takes: |c| !matches!(c, '"' | '\'') && is_of_title(c),
    allowed: r"1 to 255 characters of A-Z a-z 0-9 # & _ - , . \ / space and U+00C0 to U+02C0",
};

/// `data-customer-first-name` and `data-customer-last-name` of the widget: `A-Za-z0-9-,.`, space, U+00C0 to U+02C0 and U+0400 to U+04FF
pub(super) const WIDGET_NAME: TextRule = TextRule {
    min: 1,
    max: 100,
    takes: |c| c.is_ascii_alphanumeric() || "-,. ".contains(c) || is_latin(c) || is_cyrillic(c),
    allowed: "1 to 100 characters of A-Z a-z 0-9 - , . space, U+00C0 to U+02C0 and U+0400 to U+04FF",
};

/// `customer.phone`: `^[0-9\+\- ]+$`
pub(super) const PHONE: TextRule = TextRule {
    min: 1,
    max: 20,
    takes: |c| c.is_ascii_digit() || "+- ".contains(c),
    allowed: "1 to 20 characters of 0-9 + - space",
};

/// `customer.company` and `billing.company`: `^[A-Za-z0-9#&_\-\,\.\/ \u00C0-\u02C0"']+$`
pub(super) const COMPANY: TextRule = TextRule {
    min: 1,
    max: 200,
    takes: is_of_company,
    allowed: r#"1 to 200 characters of A-Z a-z 0-9 # & _ - , . / " ' space and U+00C0 to U+02C0"#,
};

/// `additionalDescription`: `^[A-Za-z0-9#&_\s\-\,\.\/ \u00C0-\u02C0"']+$`
pub(super) const DESCRIPTION: TextRule = TextRule {
    min: 1,
    max: 255,
    takes: |c| is_pattern_space(c) || is_of_company(c),
    allowed: r#"1 to 255 characters of A-Z a-z 0-9 # & _ - , . / " ' spaces and U+00C0 to U+02C0"#,
};

/// `shipping.company`: `^[A-Za-z0-9#_\-\,\.\/ \u00C0-\u02C0"']+$`
pub(super) const SHIPPING_COMPANY: TextRule = TextRule {
    min: 1,
    max: 200,
    takes: |c| c != '&' && is_of_company(c),
    allowed: r#"1 to 200 characters of A-Z a-z 0-9 # _ - , . / " ' space and U+00C0 to U+02C0"#,
};

/// `billing.street` and `shipping.street`: `^[A-Za-z0-9 ]+$`
pub(super) const PLAIN_STREET: TextRule = TextRule {
    min: 1,
    max: 200,
    takes: is_plain,
    allowed: "1 to 200 characters of A-Z a-z 0-9 space",
};

/// `city` and `region` of `billing` and `shipping`: as `street`
pub(super) const PLAIN_PLACE: TextRule = TextRule {
    min: 1,
    max: 100,
    takes: is_plain,
    allowed: "1 to 100 characters of A-Z a-z 0-9 space",
};

/// `billing.taxId`: only the length is documented.
pub(super) const TAX_ID: TextRule = TextRule {
    min: 1,
    max: 12,
    takes: is_printable,
    allowed: "1 to 12 printable characters",
};

/// `cart.items[].unit`: only the length is documented.
pub(super) const UNIT: TextRule = TextRule {
    min: 1,
    max: 35,
    takes: is_printable,
    allowed: "1 to 35 printable characters",
};

/// `card.firstTransactionId`, for which imoje's documents give no rule.
pub(super) const FIRST_TRANSACTION_ID: TextRule = TextRule {
    min: 1,
    max: 100,
    takes: |c| c.is_ascii_graphic(),
    allowed: "1 to 100 visible ASCII characters, as imoje shows it for the transaction that registered the card",
};

/// Members of `card` that a tokenising proxy replaces.
pub(super) const ALIAS: TextRule = TextRule {
    min: 1,
    max: 200,
    takes: is_printable,
    allowed: "1 to 200 printable characters that are no card number",
};

/// `additionalData.browser.language`
pub(super) const LANGUAGE: TextRule = TextRule {
    min: 1,
    max: 8,
    takes: is_printable,
    allowed: "the language of the browser, such as pl-PL",
};

/// Headers of the browser in `additionalData.browser`
pub(super) const HEADER: TextRule = TextRule {
    min: 1,
    max: 2048,
    takes: is_printable,
    allowed: "1 to 2048 printable characters",
};

/// `invoice.buyer.street`: `^[0-9a-zA-Z\s\-#.'"&,_/\u00C0-\u02C0]*$`
pub(super) const STREET: TextRule = TextRule {
    min: 0,
    max: 200,
    takes: is_of_address,
    allowed: r#"up to 200 characters of A-Z a-z 0-9 - # . ' " & , _ / spaces and U+00C0 to U+02C0"#,
};

/// `invoice.buyer.city`: as `street`
pub(super) const CITY: TextRule = TextRule {
    min: 0,
    max: 100,
    takes: is_of_address,
    allowed: r#"up to 100 characters of A-Z a-z 0-9 - # . ' " & , _ / spaces and U+00C0 to U+02C0"#,
};

/// `invoice.buyer.postalCode` and `idNumber`: only the length is documented.
pub(super) const UP_TO_30: TextRule = TextRule {
    min: 1,
    max: 30,
    takes: is_printable,
    allowed: "1 to 30 printable characters",
};

/// `countryCodeAlpha2`: ISO 3166-1 alpha-2.
pub(super) const COUNTRY: TextRule = TextRule {
    min: 2,
    max: 2,
    takes: |c| c.is_ascii_alphabetic(),
    allowed: "a country code of two letters",
};

/// Texts of an invoice for which imoje's documents give no rule.
pub(super) const PRINTABLE: TextRule = TextRule {
    min: 1,
    max: 1000,
    takes: is_printable,
    allowed: "1 to 1000 printable characters",
};

/// The shop's own name for a subscription.
pub(super) const EXTERNAL_ID: TextRule = TextRule {
    min: 1,
    max: 200,
    takes: is_printable,
    allowed: "1 to 200 printable characters",
};

impl TextRule {
    /// Whether `field` may hold `text`.
    pub(super) fn check(&self, field: &str, text: &str) -> Result<(), FieldError> {
        self.problem(text).map_or(Ok(()), |problem| {
            Err(FieldError::new(field, problem, self.allowed))
        })
    }

    fn problem(&self, text: &str) -> Option<Problem> {
        let length = text.chars().count();
        if let Err(card_number) = check_card_number(text) {
            return Some(card_number);
        }
        if length == 0 && self.min > 0 {
            return Some(Problem::Empty);
        }
        if length > self.max {
            return Some(Problem::TooLong { length });
        }
        if let Err(character) = check_characters(text, self.takes) {
            return Some(character);
        }
        (length < self.min).then_some(Problem::TooShort { length })
    }
}

/// Refuses what looks like a card number.
pub(super) fn check_card_number(text: &str) -> Result<(), Problem> {
    if looks_like_card_number(text) {
        Err(Problem::CardNumber)
    } else {
        Ok(())
    }
}

/// Refuses the first character that is not taken.
pub(super) fn check_characters(text: &str, takes: fn(char) -> bool) -> Result<(), Problem> {
    match text
        .chars()
        .enumerate()
        .find(|&(_, character)| !takes(character))
    {
        Some((index, character)) => Err(Problem::Character {
            character,
            position: index + 1,
        }),
        None => Ok(()),
    }
}

fn is_of_title(c: char) -> bool {
    c.is_ascii_alphanumeric() || r#"#&_-,.\/ "'"#.contains(c) || is_latin(c)
}

fn is_of_company(c: char) -> bool {
    c != '\\' && is_of_title(c)
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ' '
}

fn is_of_address(c: char) -> bool {
    c.is_ascii_alphanumeric() || r#"-#.'"&,_/"#.contains(c) || is_latin(c) || is_pattern_space(c)
}

/// The accented letters of imoje's patterns; `×` and `÷` are among them.
fn is_latin(c: char) -> bool {
    ('\u{00C0}'..='\u{02C0}').contains(&c)
}

/// The letters that imoje takes in names besides.
fn is_cyrillic(c: char) -> bool {
    ('\u{0400}'..='\u{04FF}').contains(&c)
}

/// `\s` as JSON Schema patterns mean it (ECMA-262, CharacterClassEscape).
fn is_pattern_space(c: char) -> bool {
    matches!(
        c,
        '\t'..='\r' | ' ' | '\u{00A0}' | '\u{1680}' | '\u{2000}'..='\u{200A}' | '\u{2028}' | '\u{2029}' | '\u{202F}'
            | '\u{205F}' | '\u{3000}' | '\u{FEFF}'
    )
}

fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The characters of a rule, found by asking about every character there is.
    fn ranges(takes: fn(char) -> bool) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for point in 0..=u32::from(char::MAX) {
            if char::from_u32(point).is_some_and(takes) {
                match ranges.last_mut() {
                    Some((_, last)) if *last + 1 == point => *last = point,
                    _ => ranges.push((point, point)),
                }
            }
        }
        ranges
    }

    /// The characters of a documented class: its single characters and its ranges.
    fn class(singles: &str, spans: &[(char, char)]) -> Vec<(u32, u32)> {
        let mut points: Vec<u32> = singles.chars().map(u32::from).collect();
        for &(first, last) in spans {
            points.extend(u32::from(first)..=u32::from(last));
        }
        points.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for point in points {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == point => *last = point,
                _ => ranges.push((point, point)),
            }
        }
        ranges
    }

    const ALNUM: [(char, char); 3] = [('A', 'Z'), ('a', 'z'), ('0', '9')];
    const LATIN: (char, char) = ('\u{00C0}', '\u{02C0}');

    fn with(extra: &[(char, char)]) -> Vec<(char, char)> {
        [&ALNUM[..], extra].concat()
    }

    #[test]
    fn each_rule_takes_exactly_the_documented_characters() {
        assert_eq!(ranges(ORDER_ID.takes), class("#_-.\\/ ", &with(&[LATIN])));
        for title in [&TITLE, &PAYOUT_TITLE] {
            assert_eq!(ranges(title.takes), class("#&_-,.\\/ \"'", &with(&[LATIN])));
        }
        assert_eq!(
            ranges(PAYOUT_LABEL.takes),
            class("-,. \"'", &with(&[LATIN]))
        );
        assert_eq!(ranges(ACCOUNT.takes), class("", &[('0', '9')]));
        assert_eq!(ranges(CID.takes), class("-", &ALNUM));
        assert_eq!(
            ranges(FULL_NAME.takes),
            class("#&_-,.\\/ \"'", &with(&[LATIN, ('\u{0400}', '\u{04FF}')]))
        );
        assert_eq!(ranges(NAME.takes), ranges(FULL_NAME.takes));
        assert_eq!(ranges(PHONE.takes), class("+- ", &[('0', '9')]));
        assert_eq!(ranges(COMPANY.takes), class("#&_-,./ \"'", &with(&[LATIN])));
        let spaces = " \u{00A0}\u{1680}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}-#.'\"&,_/";
        for address in [&STREET, &CITY] {
            assert_eq!(
                ranges(address.takes),
                class(
                    spaces,
                    &with(&[LATIN, ('\t', '\r'), ('\u{2000}', '\u{200A}')])
                )
            );
        }
        assert_eq!(ranges(COUNTRY.takes), class("", &ALNUM[..2]));
        assert_eq!(ranges(COMPANY.takes), class("#&_-,./ \"'", &with(&[LATIN])));
        assert_eq!(
            ranges(SHIPPING_COMPANY.takes),
            class("#_-,./ \"'", &with(&[LATIN]))
        );
        for place in [&PLAIN_STREET, &PLAIN_PLACE] {
            assert_eq!(ranges(place.takes), class(" ", &ALNUM));
        }
        assert_eq!(
            ranges(DESCRIPTION.takes),
            class(
                "\u{20}\u{00A0}\u{1680}\u{2028}\u{2029}\u{202F}\u{205F}\u{3000}\u{FEFF}#&_-,./\"'",
                &with(&[LATIN, ('\t', '\r'), ('\u{2000}', '\u{200A}')])
            )
        );
    }

    #[test]
    fn characters_are_counted_and_not_bytes() {
        assert_eq!(TITLE.check("title", &"ż".repeat(255)), Ok(()));
        assert_eq!(
            TITLE.check("title", &"ż".repeat(256)).unwrap_err().problem,
            Problem::TooLong { length: 256 }
        );
        assert_eq!(
            ACCOUNT.check("ban", "123").unwrap_err().problem,
            Problem::TooShort { length: 3 }
        );
        assert_eq!(STREET.check("street", ""), Ok(()));
        assert_eq!(
            TITLE.check("title", "").unwrap_err().problem,
            Problem::Empty
        );
    }

    proptest! {
        #[test]
        fn a_text_passes_when_its_length_and_each_character_do(text in "[A-Za-z ,:ąЖ×\u{02C1}\u{00BF}]{0,110}") {
            for rule in [&ORDER_ID, &TITLE, &PAYOUT_LABEL, &CID, &FULL_NAME, &CITY, &UP_TO_30] {
                let length = text.chars().count();
                let fits = (rule.min..=rule.max).contains(&length) && text.chars().all(rule.takes);
                prop_assert_eq!(rule.check("field", &text).is_ok(), fits);
            }
        }
    }
}
