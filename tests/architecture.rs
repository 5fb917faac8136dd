//! Who may import whom: the layers of ARCHITECTURE.md, held against every file in `src/`.
//!
//! The sources are read as text, comments and string literals left out. A file names other layers as `crate::layer`, one path
//! each: `use crate::{a, b}`, `use crate::*` and `super::super` would hide the layer and are refused.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

/// Each layer, and what it may use besides itself. In the order of the code map: from the rules outwards.
const LAYERS: [(&str, &[&str]); 16] = [
    ("domain", &[]),
    ("store", &["domain"]),
    ("gateway", &["domain", "clock"]),
    ("journal", &["domain"]),
    ("workers", BILLING),
    ("http", BILLING),
    ("simulator", &[]),
    ("cli", CLI),
    ("config", &["domain", "telemetry"]),
    ("metrics", &["domain"]),
    ("clock", &[]),
    ("telemetry", &[]),
    ("reconnect", &[]),
    ("embedded", &[]),
    ("main", &["cli"]),
    ("lib", &[]),
];

/// What the loops and the HTTP server may use.
const BILLING: &[&str] = &[
    "store",
    "gateway",
    "journal",
    "domain",
    "clock",
    "metrics",
    "reconnect",
];

/// What a command may use: everything but the simulator.
const CLI: &[&str] = &[
    "workers",
    "http",
    "store",
    "gateway",
    "journal",
    "domain",
    "config",
    "metrics",
    "clock",
    "telemetry",
    "reconnect",
    "embedded",
];

/// The only commands that may use the simulator, by how their path begins.
const SIMULATOR_USERS: [&str; 2] = ["cli/demo", "cli/simulator"];

/// A word that belongs to few files.
struct Reserved {
    /// As it stands in the source.
    word: &'static str,
    /// How the paths begin that may use it.
    places: &'static [&'static str],
    /// Why nobody else may.
    reason: &'static str,
}

const RESERVED: [Reserved; 10] = [
    Reserved {
        word: "sqlx::query",
        places: &["store/", "embedded/"],
        reason: "SQL lives in store/",
    },
    Reserved {
        word: "sqlx::raw_sql",
        places: &["store/", "embedded/"],
        reason: "SQL lives in store/",
    },
    Reserved {
        word: "PgTransaction",
        places: &["store/"],
        reason: "no transaction may be open while a request to imoje is",
    },
    Reserved {
        word: "reqwest::",
        places: &["gateway/", "workers/webhook.rs", "simulator/"],
        reason: "requests to imoje leave through gateway/ alone",
    },
    Reserved {
        word: "TrialClient",
        places: &["gateway/", "cli/sandbox/"],
        reason: "a debit without a permit is an experiment in a sandbox",
    },
    Reserved {
        word: "Utc::now",
        places: &["clock.rs"],
        reason: "time is an argument; only clock.rs reads it",
    },
    Reserved {
        word: "Local::now",
        places: &["clock.rs"],
        reason: "time is an argument; only clock.rs reads it",
    },
    Reserved {
        word: "SystemTime::now",
        places: &["clock.rs"],
        reason: "time is an argument; only clock.rs reads it",
    },
    Reserved {
        word: "clock_gettime",
        places: &["clock.rs"],
        reason: "only clock.rs reads clocks; ask it for a Moment",
    },
    Reserved {
        word: "backoff::",
        places: &["reconnect.rs"],
        reason: "nothing but a connection is tried again by a library",
    },
];

#[test]
fn every_file_uses_only_what_its_layer_may() {
    let mut found = Vec::new();
    for (path, source) in sources() {
        found.extend(violations(&path, &source));
    }
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn every_layer_has_its_line_in_the_table() {
    let found: BTreeSet<_> = sources()
        .iter()
        .map(|(path, _)| layer_of(path).to_owned())
        .filter(|layer| layer != "build")
        .collect();
    let listed = LAYERS.iter().map(|(layer, _)| (*layer).to_owned());
    assert_eq!(found, listed.collect());
}

#[test]
fn the_table_has_no_circle() {
    fn uses(layer: &str, wanted: &str, depth: usize) -> bool {
        assert!(depth <= LAYERS.len(), "{layer} is part of a circle");
        allowed(layer)
            .iter()
            .any(|used| *used == wanted || uses(used, wanted, depth + 1))
    }
    for (layer, _) in LAYERS {
        assert!(!uses(layer, layer, 0), "{layer} uses itself in a circle");
    }
}

/// The books and the gateway meet in a worker, between two transactions and never inside of one.
#[test]
fn the_store_and_the_gateway_do_not_know_each_other() {
    for (path, source) in [
        ("store/permits.rs", "use crate::gateway::ImojeClient;"),
        ("gateway/client.rs", "use crate::store::Store;"),
        ("store/permits.rs", "let client = reqwest::Client::new();"),
        ("gateway/client.rs", "transaction: &mut PgTransaction<'_>,"),
        ("workers/charger.rs", "use sqlx::PgTransaction;"),
    ] {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
}

#[test]
fn a_planted_import_of_a_higher_layer_is_found_with_its_place() {
    let source = "//! Rules.\n\nuse crate::domain::money::Money;\nuse crate::store::Store;\n";
    assert_eq!(
        violations("domain/charge.rs", source),
        ["src/domain/charge.rs:4: domain may not use store (it may use nothing of ours)"]
    );
    let source = "fn f() { crate::workers::crew::start() }";
    assert_eq!(
        violations("gateway/client.rs", source),
        ["src/gateway/client.rs:1: gateway may not use workers (it may use domain, clock)"]
    );
}

#[test]
fn only_the_demo_and_the_simulator_command_use_the_simulator() {
    let source = "use crate::simulator::Simulator;";
    for path in [
        "cli/demo.rs",
        "cli/demo/report.rs",
        "cli/simulator.rs",
        "simulator/book.rs",
    ] {
        assert!(violations(path, source).is_empty(), "{path}");
    }
    for path in ["cli/mod.rs", "cli/run.rs", "workers/crew.rs", "lib.rs"] {
        assert_eq!(violations(path, source).len(), 1, "{path}");
    }
}

#[test]
fn imports_that_hide_their_layer_are_found() {
    for (path, source) in [
        ("workers/charger.rs", "use crate::{domain, store};"),
        ("workers/charger.rs", "use crate::*;"),
        ("workers/charger.rs", "use crate::{\n    domain,\n};"),
        ("workers/charger.rs", "use crate as cykl;"),
        (
            "store/resolution/rows.rs",
            "use super::super::super::gateway;",
        ),
        ("clock.rs", "use super::store::Store;"),
        ("store/mod.rs", "use super::gateway;"),
        ("main.rs", "use cykl::store::Store;"),
    ] {
        assert_eq!(violations(path, source).len(), 1, "{path}: {source}");
    }
}

#[test]
fn words_of_few_files_are_found_elsewhere() {
    for (path, source) in [
        ("workers/charger.rs", "sqlx::query!(\"SELECT 1\")"),
        ("cli/status.rs", "sqlx::query_scalar(text)"),
        ("cli/status.rs", "use sqlx::query;"),
        ("domain/charge.rs", "let now = Utc::now();"),
        ("store/inbox.rs", "let now = chrono::Utc::now();"),
        ("embedded/home.rs", "SystemTime::now()"),
        ("config/layers.rs", "chrono::Local::now()"),
        (
            "gateway/client.rs",
            "use backoff::ExponentialBackoffBuilder;",
        ),
        ("cli/check.rs", "reqwest::get(address)"),
        ("workers/charger.rs", "use crate::gateway::TrialClient;"),
    ] {
        let found = violations(path, source);
        assert_eq!(found.len(), 1, "{path}: {source}: {found:?}");
        assert!(
            found[0].starts_with(&format!("src/{path}:1: ")),
            "{found:?}"
        );
    }
}

#[test]
fn what_is_allowed_passes() {
    for (path, source) in [
        ("store/permits.rs", "use crate::domain::id::AttemptId;"),
        (
            "store/permits.rs",
            "sqlx::query!(\"-- f\"); let t: PgTransaction;",
        ),
        ("store/resolution/rows.rs", "use super::Resolved;"),
        ("embedded/cluster.rs", "use super::supervisor::Supervised;"),
        (
            "clock.rs",
            "Utc::now() } mod tests { use super::*; super::Clock::system()",
        ),
        ("reconnect.rs", "use backoff::backoff::Backoff;"),
        ("main.rs", "use cykl::cli::Cli;"),
        ("domain/money.rs", "// see crate::store\nlet a = 'x';"),
        ("domain/money.rs", "/// [`crate::store::Store`]\nstruct A;"),
        (
            "domain/money.rs",
            "/* crate::store /* nested */ Utc::now */",
        ),
        (
            "domain/money.rs",
            "let text = \"crate::store \\\" Utc::now\";",
        ),
        (
            "domain/money.rs",
            "let text = r#\"say \"crate::store\" \"#;",
        ),
        (
            "domain/money.rs",
            "fn f<'a>(a: &'a str) { let quote = '\"'; }",
        ),
    ] {
        let found = violations(path, source);
        assert!(found.is_empty(), "{path}: {source}: {found:?}");
    }
}

#[test]
fn code_after_a_literal_is_read() {
    for source in [
        "f(\"https://example.test\", crate::store::x)",
        "f('\"', crate::store::x, '\"')",
        "f(\"\\\\\", crate::store::x)",
        "f(br\"\\\", crate::store::x)",
        "f(r##\"a\"# b\"##, crate::store::x)",
        "/* a */ crate::store::x",
    ] {
        assert_eq!(violations("domain/money.rs", source).len(), 1, "{source}");
    }
}

/// Every Rust file below `src/` by its path there, with its text.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, "", &mut found).expect("src/ is readable");
    found.sort();
    assert!(found.len() > LAYERS.len(), "src/ was not read");
    found
}

fn walk(folder: &Path, prefix: &str, found: &mut Vec<(String, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().display());
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), &format!("{name}/"), found)?;
        } else if name.ends_with(".rs") {
            found.push((name, fs::read_to_string(entry.path())?));
        }
    }
    Ok(())
}

/// The layer that the file at `path` below `src/` belongs to.
fn layer_of(path: &str) -> &str {
    path.split('/')
        .next()
        .unwrap_or(path)
        .trim_end_matches(".rs")
}

fn allowed(layer: &str) -> &'static [&'static str] {
    LAYERS
        .iter()
        .find(|(name, _)| *name == layer)
        .map_or(&[], |(_, allowed)| *allowed)
}

fn may_use(path: &str, used: &str) -> bool {
    let layer = layer_of(path);
    layer == used
        || allowed(layer).contains(&used)
        || used == "simulator" && SIMULATOR_USERS.iter().any(|user| path.starts_with(user))
}

/// What is wrong with the file at `path` below `src/`, one line each.
fn violations(path: &str, source: &str) -> Vec<String> {
    let code = code_of(source);
    let mut found = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let place = format!("src/{path}:{}", number + 1);
        for wrong in imports(path, line).into_iter().chain(words(path, line)) {
            found.push(format!("{place}: {wrong}"));
        }
    }
    found
}

/// What is wrong with the paths in a line of code.
fn imports(path: &str, line: &str) -> Vec<String> {
    let layer = layer_of(path);
    let mut found = Vec::new();
    let root = if layer == "main" { "cykl::" } else { "crate::" };
    for rest in after(line, root) {
        let used = identifier(rest);
        if used.is_empty() {
            found.push(format!(
                "{layer} must name one layer in each path, as in `use {root}domain::money::Money`"
            ));
        } else if !may_use(path, used) {
            let may = match allowed(layer) {
                [] => "nothing of ours".to_owned(),
                allowed => allowed.join(", "),
            };
            found.push(format!("{layer} may not use {used} (it may use {may})"));
        }
    }
    if line.contains("super::super::") {
        found.push(format!(
            "{layer} must not use `super::super`, which hides the layer: write `crate::{layer}::..`"
        ));
    } else if is_root_of_layer(path) {
        for rest in after(line, "super::") {
            let used = identifier(rest);
            if used != layer && LAYERS.iter().any(|(name, _)| *name == used) {
                found.push(format!(
                    "{layer} must name the layer {used} as `crate::{used}`, not by `super`"
                ));
            }
        }
    }
    if line.contains("use crate as ") {
        found.push(format!("{layer} must not rename `crate`"));
    }
    found
}

/// Whether `super` in this file means the root of the crate.
fn is_root_of_layer(path: &str) -> bool {
    match path.split_once('/') {
        None => true,
        Some((_, rest)) => rest == "mod.rs",
    }
}

/// What is wrong with the words in a line of code.
fn words(path: &str, line: &str) -> Vec<String> {
    RESERVED
        .iter()
        .filter(|reserved| !reserved.places.iter().any(|place| path.starts_with(place)))
        .flat_map(|reserved| {
            after(line, reserved.word).map(move |_| {
                format!(
                    "`{}` belongs to {}: {}",
                    reserved.word,
                    reserved.places.join(", "),
                    reserved.reason
                )
            })
        })
        .collect()
}

/// What follows each occurrence of `word` in `line` that is not the end of a longer word.
fn after<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(word).filter_map(move |(start, _)| {
        let before = line[..start].chars().next_back();
        let is_longer = before.is_some_and(|before| before.is_alphanumeric() || before == '_');
        (!is_longer).then(|| &line[start + word.len()..])
    })
}

fn identifier(text: &str) -> &str {
    let end = text
        .find(|character: char| !character.is_alphanumeric() && character != '_')
        .unwrap_or(text.len());
    &text[..end]
}

/// The source with comments and literals of characters and strings left out, line by line.
fn code_of(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(next) = rest.chars().next() {
        let skipped = comment(rest).or_else(|| literal(rest, &code));
        let length = skipped.unwrap_or(next.len_utf8());
        let (taken, remaining) = rest.split_at(length);
        if skipped.is_some() {
            code.push(' ');
            code.extend(taken.chars().filter(|character| *character == '\n'));
        } else {
            code.push_str(taken);
        }
        rest = remaining;
    }
    code
}

/// The length of the comment at the beginning of `text`.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let mut depth = 0_usize;
    let mut position = 0;
    while position < text.len() {
        let rest = &text[position..];
        if rest.starts_with("/*") {
            depth += 1;
            position += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            position += 2;
            if depth == 0 {
                return Some(position);
            }
        } else {
            position += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    Some(text.len())
}

/// The length of the literal at the beginning of `text`, which follows `before`.
fn literal(text: &str, before: &str) -> Option<usize> {
    let follows_word = before
        .chars()
        .next_back()
        .is_some_and(|character| character.is_alphanumeric() || character == '_');
    let prefix = ["br", "cr", "r", "b", "c"]
        .into_iter()
        .find(|prefix| text.starts_with(prefix) && !follows_word)
        .unwrap_or("");
    let body = &text[prefix.len()..];
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let content = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = content.find(&end)? + end.len();
        return Some(prefix.len() + hashes + 1 + length);
    }
    let length = match body.chars().next()? {
        '"' => quoted(body, '"')?,
        // A lifetime has no closing quote right after its first character.
        '\'' if body[1..].starts_with('\\') => quoted(body, '\'')?,
        '\'' => {
            let content = body[1..].chars().next()?.len_utf8();
            body[1 + content..]
                .starts_with('\'')
                .then_some(content + 2)?
        }
        _ => return None,
    };
    Some(prefix.len() + length)
}

/// The length of the literal between quotes at the beginning of `text`.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (position, character) in text.char_indices().skip(1) {
        if is_escaped {
            is_escaped = false;
        } else if character == '\\' {
            is_escaped = true;
        } else if character == quote {
            return Some(position + quote.len_utf8());
        }
    }
    None
}
