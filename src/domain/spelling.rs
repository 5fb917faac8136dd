//! Which known name a misspelt one was probably meant to be.

/// The known name that takes the fewest changes to get to; `None` when no name is known.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .min_by_key(|candidate| changes(name, candidate))
}

/// How many letters must be added, removed or replaced to make one text of the other (Levenshtein's distance).
fn changes(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, other) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_takes_the_fewest_changes() {
        assert_eq!(changes("kitten", "sitting"), 3);
        assert_eq!(changes("", "abc"), 3);
        assert_eq!(changes("abc", "abc"), 0);
        let known = ["database.url", "database.data_dir", "http.public_url"];
        assert_eq!(nearest("databse.url", known), Some("database.url"));
        assert_eq!(nearest("http.pubic_url", known), Some("http.public_url"));
        assert_eq!(nearest("x", []), None);
    }
}
