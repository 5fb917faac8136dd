//! The patterns of the documents, each as they write it.

/// A documented pattern of the form `^[..]+$` or `^[..]*$`.
pub(in crate::simulator) struct Pattern {
    /// The pattern as the documents write it.
    pub(in crate::simulator) text: &'static str,
    may_be_empty: bool,
    accepts: fn(char) -> bool,
}

impl Pattern {
    pub(in crate::simulator) fn accepts(&self, text: &str) -> bool {
        (self.may_be_empty || !text.is_empty()) && text.chars().all(self.accepts)
    }
}

fn is_letter_or_digit(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '\u{c0}'..='\u{2c0}')
}

pub(super) const ORDER_ID: Pattern = Pattern {
    text: r"^[A-Za-z0-9#_\-\.\\\\/ \u00C0-\u02C0]+$",
    may_be_empty: false,
    accepts: |letter| is_letter_or_digit(letter) || r"#_-.\/ ".contains(letter),
};
pub(super) const TITLE: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#&_\-\,\.\\\\/ \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| is_letter_or_digit(letter) || r#"#&_-,.\/ "'"#.contains(letter),
};
pub(super) const LABEL: Pattern = Pattern {
    text: r#"^[A-Za-z0-9\-\,\. \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| is_letter_or_digit(letter) || r#"-,. "'"#.contains(letter),
};
pub(super) const FULL_NAME: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#&_\-\,\.\\\\/ \u00C0-\u02C0\u0400-\u04FF"']+$"#,
    may_be_empty: false,
    accepts: |letter| (TITLE.accepts)(letter) || matches!(letter, '\u{400}'..='\u{4ff}'),
};
pub(super) const ADDRESS: Pattern = Pattern {
    text: r#"^[0-9a-zA-Z\s\-#.'"&,_/\u00C0-\u02C0]*$"#,
    may_be_empty: true,
    accepts: |letter| {
        is_letter_or_digit(letter) || letter.is_whitespace() || r#"-#.'"&,_/"#.contains(letter)
    },
};
pub(super) const ACCOUNT_NUMBER: Pattern = Pattern {
    text: "^[0-9]{26}$",
    may_be_empty: false,
    accepts: |letter| letter.is_ascii_digit(),
};

pub(super) const PHONE: Pattern = Pattern {
    text: r"^[0-9\+\- ]+$",
    may_be_empty: false,
    accepts: |letter| letter.is_ascii_digit() || "+- ".contains(letter),
};
pub(super) const COMPANY: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#&_\-\,\.\/ \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| letter != '\\' && (TITLE.accepts)(letter),
};
/// As [`COMPANY`], without the ampersand: that of a shipping address.
pub(super) const SHIPPING_COMPANY: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#_\-\,\.\/ \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| letter != '&' && (COMPANY.accepts)(letter),
};
pub(super) const DESCRIPTION: Pattern = Pattern {
    text: r#"^[A-Za-z0-9#&_\s\-\,\.\/ \u00C0-\u02C0"']+$"#,
    may_be_empty: false,
    accepts: |letter| letter.is_whitespace() || (COMPANY.accepts)(letter),
};
pub(super) const PLACE: Pattern = Pattern {
    text: "^[A-Za-z0-9 ]+$",
    may_be_empty: false,
    accepts: |letter| letter.is_ascii_alphanumeric() || letter == ' ',
};
pub(super) const CID: Pattern = Pattern {
    text: r"^[A-Za-z0-9\x2D]+$",
    may_be_empty: false,
    accepts: |letter| letter.is_ascii_alphanumeric() || letter == '-',
};
pub(super) const DIGITS: Pattern = Pattern {
    text: "^[0-9]+$",
    may_be_empty: false,
    accepts: |letter| letter.is_ascii_digit(),
};
