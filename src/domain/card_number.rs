//! The tripwire for card numbers: they never enter Cykl, through no door.

/// The shortest and the longest card number (ISO/IEC 7812).
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// From how many digits on a run that is glued to letters counts, as in `card4111111111111111`. Shorter ones are times and numbers of a
/// shop's own, and cards with so few digits are hardly issued any more.
const GLUED_DIGITS_MIN: usize = 15;

/// How many digits stand together when a number is printed in groups: 4-4-4-4, 4-6-5, 4-4-4-4-3. A UUID has a group of eight.
const GROUP: std::ops::RangeInclusive<usize> = 3..=6;

/// What stands in a stored text where a card number stood.
pub const REPLACEMENT: &str = "[card number removed]";

/// Whether a text holds something that looks like a card number: 13 to 19 digits, alone or set apart by single spaces or
/// hyphens, that pass the Luhn check. A run of digits inside a word of hexadecimal digits, such as a UUID, does not count, and one that is
/// glued to other letters from 15 digits on.
pub fn looks_like_card_number(text: &str) -> bool {
    find(text).is_some()
}

/// The text with everything that looks like a card number taken out.
pub fn scrub(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((start, end)) = find(rest) {
        clean.push_str(&rest[..start]);
        clean.push_str(REPLACEMENT);
        rest = &rest[end..];
    }
    clean.push_str(rest);
    clean
}

/// The byte range of the first card number.
fn find(text: &str) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut start = 0;
    while start < bytes.len() {
        if !bytes[start].is_ascii_digit() || (start > 0 && bytes[start - 1].is_ascii_digit()) {
            start += 1;
            continue;
        }
        let end = end_of_groups(bytes, start);
        if end - start >= *DIGITS.start()
            && let Some(found) = number_within(bytes, start, end)
        {
            return Some(found);
        }
        start = end.max(start + 1);
    }
    None
}

/// Where the digits that begin at `start` end, single separators between them included.
fn end_of_groups(bytes: &[u8], start: usize) -> usize {
    let mut end = start;
    while end < bytes.len() {
        let separator =
            matches!(bytes[end], b' ' | b'-') && bytes.get(end + 1).is_some_and(u8::is_ascii_digit);
        if !bytes[end].is_ascii_digit() && !separator {
            break;
        }
        end += 1;
    }
    end
}

/// The first run of whole digit groups in `start..end` that is a card number.
fn number_within(bytes: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
    let groups = digit_groups(bytes, start, end);
    for (first, &(from, _)) in groups.iter().enumerate() {
        for (last, &(_, to)) in groups.iter().enumerate().skip(first) {
            let printed_as_a_card = first == last
                || groups[first..=last]
                    .iter()
                    .all(|&(from, to)| GROUP.contains(&(to - from)));
            if !printed_as_a_card {
                continue;
            }
            let digits: Vec<u8> = bytes[from..to]
                .iter()
                .filter(|byte| byte.is_ascii_digit())
                .map(|byte| byte - b'0')
                .collect();
            let counts = match glue(bytes, from, to) {
                Glue::None => DIGITS.contains(&digits.len()),
                Glue::Word => (GLUED_DIGITS_MIN..=*DIGITS.end()).contains(&digits.len()),
                Glue::Hexadecimal => false,
            };
            if counts && passes_luhn(&digits) {
                return Some((from, to));
            }
        }
    }
    None
}

/// The byte ranges of the runs of digits in `start..end`.
fn digit_groups(bytes: &[u8], start: usize, end: usize) -> Vec<(usize, usize)> {
    let mut groups = Vec::new();
    let mut from = start;
    let separators = (start..end).filter(|&at| !bytes[at].is_ascii_digit());
    for to in separators.chain([end]) {
        groups.push((from, to));
        from = to + 1;
    }
    groups
}

/// What a run of digits is a part of.
enum Glue {
    /// It stands alone.
    None,
    /// A word with letters that are no hexadecimal digits, or with `_`.
    Word,
    /// A word of hexadecimal digits.
    Hexadecimal,
}

fn glue(bytes: &[u8], from: usize, to: usize) -> Glue {
    let is_word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
    let before = bytes[..from].iter().rev().take_while(is_word);
    let after = bytes[to..].iter().take_while(is_word);
    let mut around = before.chain(after).peekable();
    if around.peek().is_none() {
        Glue::None
    } else if around.all(u8::is_ascii_hexdigit) {
        Glue::Hexadecimal
    } else {
        Glue::Word
    }
}

fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| {
            let digit = u32::from(digit);
            match (place % 2 == 1, digit * 2) {
                (false, _) => digit,
                (true, double) if double > 9 => double - 9,
                (true, double) => double,
            }
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|&digit| digit != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_seen_however_they_are_written() {
        for text in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "order 4485201817664006 of May",
            "{\"number\":\"5555555555554444\"}",
            "378282246310005",
            "123 4111 1111 1111 1111",
            "card4111111111111111",
            "4111111111111111x",
            "pan_4111111111111111",
            "nr4111 1111 1111 1111",
        ] {
            assert!(looks_like_card_number(text), "{text}");
        }
    }

    #[test]
    fn other_numbers_pass() {
        for text in [
            "",
            "****1111",
            "4111111111111112",
            "1790000000",
            "0000000000000000",
            "7c1f3b52-5a0e-4c1d-9f2a-3d9b8f6a1e01",
            "41111111-1111-1111-8111-111111111111",
            "cykl-01924111111111111111aaaaaaaaaaaa-17-2",
            "41111111111111111111111",
            "d4111111111111111",
            "user_1790000000005",
            "x41111111111111111111111",
            "61109010140000071219812874",
        ] {
            assert!(!looks_like_card_number(text), "{text}");
        }
    }

    #[test]
    fn scrubbing_takes_out_the_number_and_nothing_else() {
        assert_eq!(
            scrub("a 4111111111111111, b 4111 1111 1111 1111; ok 123"),
            "a [card number removed], b [card number removed]; ok 123"
        );
        assert_eq!(scrub("żółw ****4242"), "żółw ****4242");
        assert!(!looks_like_card_number(&scrub("4111111111111111")));
    }
}
