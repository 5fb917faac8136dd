//! Everything that comes from outside, spoilt at random: nothing may panic, and no answer may become safer by being spoilt.
//!
//! Each target reads its corpus, `__fuzz__/<target>/corpus` beside this file, and goes on with chance. `make fuzz SECONDS=60`
//! lets chance go on for longer. A failure prints `BOLERO_RANDOM_SEED`, which repeats it when it is set; what was found once
//! belongs into the corpus.

mod answer;
mod script;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use bolero::check;
use cykl::cli::audit::sheet::Sheet as ExportSheet;
use cykl::cli::subscription::sheet::Sheet;
use cykl::config::{Config, ConfigError};
use cykl::domain::answer::{Verdict, classify_debit, classify_read};
use cykl::domain::card_number::looks_like_card_number;
use cykl::domain::enrolment::Circumstances;
use cykl::domain::export::{Export, Rules, Shop};
use cykl::domain::resolution::News;
use cykl::gateway::{Algorithm, NoticeCredentials, parse_notice, read_body, verify_notice};
use cykl::journal::{Pages, last_permit};
use secrecy::SecretString;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use uuid::Uuid;

use crate::answer::{Answer, STATUSES, asked, expected, frees, named};
use crate::script::Script;

/// How many random inputs a target takes under `cargo test`; a fraction of a second each.
const ITERATIONS: usize = 2_000;

/// The longest random input.
const LENGTH_MAX: usize = 1_024;

/// The targets, each with a corpus.
const TARGETS: [&str; 8] = [
    "signature",
    "notice",
    "debit_answer",
    "read_answer",
    "import",
    "export",
    "journal",
    "configuration",
];

const MERCHANT: &str = "simmerchant000000001";
const SERVICE: &str = "2b8a4e1c-9d37-4f60-8a55-0c6e7d1f2a3b";
const SERVICE_KEY: &str = "sim-service-key-000";
const TOKEN: &str = "hush-token-5f2c91aa";

const NOTICE: &[u8] = include_bytes!("__fuzz__/notice/corpus/settled.json");
const ERROR: &[u8] = include_bytes!("__fuzz__/debit_answer/corpus/refused.json");
const EXPORT: &[u8] = include_bytes!("__fuzz__/export/corpus/whole.csv");
const JOURNAL: &[u8] = include_bytes!("__fuzz__/journal/corpus/whole.journal");
const IMPORT: &[u8] = include_bytes!("__fuzz__/import/corpus/whole.csv");
const CONFIGURATION: &[u8] = include_bytes!("__fuzz__/configuration/corpus/whole.toml");

#[test]
fn a_notice_passes_exactly_when_the_hash_of_body_and_key_is_in_its_header() {
    check!(name = "signature")
        .with_iterations(ITERATIONS)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            // A header in the first line, and the body below.
            let line = input
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(input.len());
            let (header, body) = input.split_at(line);
            same_as_reference(header, body.strip_prefix(b"\n").unwrap_or(body));

            let mut script = Script::new(input);
            let algorithm = Algorithm::ALL[script.below(Algorithm::ALL.len())];
            let fine = header_of(algorithm, NOTICE, SERVICE_KEY);
            let words = [
                ";",
                "=",
                " ",
                "alg=sha256",
                "signature=",
                "SHA256",
                "00",
                "merchantid",
            ];
            let header = script.spoil(fine.as_bytes(), &words);
            same_as_reference(&header, NOTICE);
            same_as_reference(fine.as_bytes(), &script.spoil(NOTICE, &answer::WORDS));
            same_as_reference(header_of(algorithm, input, SERVICE_KEY).as_bytes(), input);
            same_as_reference(header_of(algorithm, input, "another key").as_bytes(), input);
        });
}

#[test]
fn a_notice_says_what_its_json_says_or_nothing() {
    check!(name = "notice")
        .with_iterations(ITERATIONS)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let mut script = Script::new(input);
            let spoilt = script.spoil(NOTICE, &answer::WORDS);
            for body in [input, &spoilt] {
                let Ok(notice) = parse_notice(body) else {
                    continue;
                };
                let json = answer::members(std::str::from_utf8(body).expect("a notice is text"));
                let subject = |name: &str| answer::members_of(&json, name).unwrap_or_default();
                let (transaction, payment) = (subject("transaction"), subject("payment"));
                let says = |name: &str, told: Option<String>| {
                    let texts = [
                        answer::text(&transaction, name),
                        answer::text(&payment, name),
                    ];
                    told.is_none() || texts.contains(&told)
                };
                let id = answer::text(&transaction, "id").and_then(|id| id.parse().ok());
                assert!(notice.transaction_id.is_none() || notice.transaction_id == id);
                assert!(says("orderId", notice.order_id));
                assert!(says("status", notice.status));
                assert!(says("serviceId", notice.service_id));
            }
        });
}

/// The classification of a spoilt answer is never safer than that of the answer: it may turn to doubt, but money that moved, may move
/// or is in doubt never becomes money that did not move. "Safer" is what lets another attempt be made, by
/// `AttemptState::blocks` after `decide`.
///
/// Spoiling can change what an answer literally says: when the word `settled` becomes exactly `rejected`, in an answer that is complete
/// and about our debit in every other member, it is a decline; imoje's error object under a status of the whitelist is a refusal.
/// There is nothing in such an answer by which anybody could tell. So these are taken out, by a second reading of the JSON that
/// shares no code with the program; whatever does not literally say so must block.
#[test]
fn a_spoilt_answer_to_a_debit_never_frees_the_charge() {
    check!(name = "debit_answer")
        .with_iterations(ITERATIONS)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let mut script = Script::new(input);
            let http_status = STATUSES[script.below(STATUSES.len())];
            let whole = Answer::about(script.pick(&BLOCKING), script.flip());
            assert!(!frees(&debit_news(200, whole.to_json().as_bytes())));
            let spoilt = script.spoil(whole.to_json().as_bytes(), &answer::WORDS);
            for http_status in [200, http_status] {
                blocks_unless_it_says_so(http_status, &spoilt);
                blocks_unless_it_says_so(http_status, input);
                blocks_unless_it_says_so(http_status, &script.spoil(ERROR, &answer::WORDS));
            }
            let mut members = whole;
            members.spoil(&mut script);
            let json = members.to_json();
            for http_status in [200, http_status] {
                blocks_unless_it_says_so(http_status, json.as_bytes());
                let is_freed = frees(&debit_news(http_status, json.as_bytes()));
                assert!(!(is_freed && members.repeats_itself()), "{json}");
            }
        });
}

#[test]
fn a_spoilt_read_never_frees_the_charge() {
    check!(name = "read_answer")
        .with_iterations(ITERATIONS)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let mut script = Script::new(input);
            let http_status = STATUSES[script.below(STATUSES.len())];
            let mut members = Answer::about(script.pick(&BLOCKING), script.flip());
            let spoilt = script.spoil(members.to_json().as_bytes(), &answer::WORDS);
            members.spoil(&mut script);
            for body in [input, &spoilt, members.to_json().as_bytes()] {
                for http_status in [200, http_status] {
                    let verdict =
                        classify_read(asked(), http_status, &read_body(body), &expected());
                    assert!(!matches!(verdict, Verdict::Refused(_)));
                    assert!(named(&verdict).is_none_or(|shown| shown == asked()));
                    let says_so = answer::says_declined(http_status, body, Some(asked()));
                    assert!(
                        says_so || !frees(&News::Read(verdict)),
                        "{http_status} {}",
                        String::from_utf8_lossy(body)
                    );
                }
            }
        });
}

#[test]
fn a_spoilt_import_is_stored_whole_or_not_at_all() {
    let circumstances = Circumstances {
        shops: [(
            "main".parse().expect("it is a name"),
            chrono_tz::Europe::Warsaw,
        )]
        .into(),
        usual_shop: Some("main".parse().expect("it is a name")),
        channels: BTreeMap::new(),
        plain_cards: BTreeSet::new(),
        has_card_proxy: false,
        is_without_card: false,
        now: "2026-11-20T12:00:00Z".parse().expect("it is a time"),
    };
    check!(name = "import")
        .with_iterations(ITERATIONS / 4)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let words = [
                ",",
                "\"",
                "\r\n",
                "\n",
                "\"\"",
                "P1M",
                "-1",
                "2027-02-30",
                "\u{feff}",
                "4111111111111111",
                "\u{0}",
            ];
            let spoilt = Script::new(input).spoil(IMPORT, &words);
            for file in [input, &spoilt] {
                let taken = Cell::new(0);
                let sheet = Sheet::read(
                    file,
                    &circumstances,
                    |read| assert!(read <= file.len()),
                    |part| {
                        assert_eq!(part.lines.len(), part.subscriptions.len());
                        assert!(part.lines.is_sorted());
                        assert!(part.subscriptions.iter().all(|one| one.amount.minor() > 0));
                        taken.set(taken.get() + part.lines.len());
                    },
                );
                assert_eq!(
                    taken.get() == 0,
                    !sheet.faults.is_empty(),
                    "small files come in one part"
                );
                for fault in &sheet.faults {
                    assert!(!looks_like_card_number(&fault.told), "{fault}");
                }
            }
        });
}

#[test]
fn a_spoilt_export_says_what_it_says_once_it_is_written_again() {
    let rules = Rules {
        shops: vec![Shop {
            name: "main".parse().expect("it is a name"),
            service_id: Uuid::parse_str(SERVICE).expect("it is a UUID"),
            zone: chrono_tz::Europe::Warsaw,
        }],
        shop: None,
        settled: vec!["Zrealizowana".to_owned()],
        refunds: vec!["Zwrot".to_owned()],
    };
    check!(name = "export")
        .with_iterations(ITERATIONS / 2)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let words = [
                ",",
                ";",
                "\"",
                "\r\n",
                "\n",
                "zrealizowana",
                "ZWROT",
                "rejected",
                "49,00",
                "-1",
                "cykl-",
                "2027-02-30",
                "\u{feff}",
                "\u{a0}",
                "4111111111111111",
                "\u{0}",
            ];
            let spoilt = Script::new(input).spoil(EXPORT, &words);
            for file in [input, &spoilt] {
                let sheet = ExportSheet::read(file, &rules, &[]);
                for fault in &sheet.faults {
                    assert!(!looks_like_card_number(&fault.told), "{fault}");
                }
                let mut read = sheet.export;
                let again = ExportSheet::read(&written(&read), &rules, &[]);
                assert_eq!(again.faults, []);
                for (line, entry) in (2..).zip(&mut read.entries) {
                    entry.line = line;
                }
                assert_eq!(again.export.entries, read.entries);
                assert_eq!(again.export.statuses, read.statuses);
            }
        });
}

/// A journal may be damaged in any way, and is believed all the same when books look as if they had gone back in time: then what it names
/// becomes attempts in doubt. So it may lose permits, and must never make one up.
#[test]
fn a_spoilt_journal_names_nothing_that_was_not_written() {
    let written = pages(JOURNAL);
    check!(name = "journal")
        .with_iterations(ITERATIONS)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let words = [
                "\n",
                "\r\n",
                " ",
                "\u{0}",
                "{\"permit\":",
                "{\"named\":",
                "\"is_retry\":true",
                "4900",
                "cykl-",
                "2027-01-02",
                "0000000000000000",
            ];
            let spoilt = Script::new(input).spoil(JOURNAL, &words);
            for file in [input, &spoilt] {
                let read = pages(file);
                let lines = file.split_inclusive(|byte| *byte == b'\n');
                let checked = lines.filter(|line| is_checked(line)).count();
                assert!(read.permits.len() + read.named.len() <= checked);
                let newest = last_permit(Cursor::new(file)).expect("it is in memory");
                assert_eq!(newest.as_ref(), read.permits.last());
            }
            let read = pages(&spoilt);
            let mut named = read.named.iter();
            assert!(
                read.permits
                    .iter()
                    .all(|permit| written.permits.contains(permit))
            );
            assert!(
                named.all(|(attempt, transaction)| written.named.get(attempt) == Some(transaction))
            );
        });
}

#[test]
fn a_spoilt_configuration_is_refused_without_showing_its_secrets() {
    check!(name = "configuration")
        .with_iterations(ITERATIONS / 8)
        .with_max_len(LENGTH_MAX)
        .for_each(|input: &[u8]| {
            let words = [
                "\"", "=", "[", "]", "\n", ".", "0s", "-1", "1e9", "'''", "#", "true",
            ];
            let spoilt = Script::new(input).spoil(CONFIGURATION, &words);
            for file in [input, &spoilt] {
                let Ok(text) = std::str::from_utf8(file) else {
                    continue;
                };
                match Config::from_toml(text) {
                    Ok(config) => assert!(!config.shops.is_empty()),
                    Err(error @ ConfigError::Syntax { .. }) => {
                        let told = format!("{error} {error:?}");
                        assert!(
                            !told.contains(TOKEN) && !told.contains(SERVICE_KEY),
                            "{told}"
                        );
                    }
                    Err(ConfigError::Invalid(problems)) => assert!(!problems.is_empty()),
                    Err(ConfigError::File { .. } | ConfigError::Variable(_)) => {}
                }
            }
        });
}

#[test]
fn every_document_of_the_corpus_is_read() {
    for target in TARGETS {
        let read = AtomicUsize::new(0);
        check!(name = target)
            .with_iterations(0)
            .for_each(|input: &[u8]| {
                assert!(
                    input.len() <= 16 * 1_024,
                    "a document that long slows every run down"
                );
                read.fetch_add(1, Ordering::Relaxed);
            });
        let documents = std::fs::read_dir(corpus(target)).expect("the corpus is there");
        assert_eq!(read.into_inner(), documents.count(), "{target}");
    }
}

#[test]
fn the_corpus_says_what_its_names_say() {
    let debit = |name: &str| {
        let path = corpus("debit_answer").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    for (name, http_status, is_freed) in [
        ("settled.json", 200, false),
        ("pending_bare.json", 200, false),
        ("rejected.json", 200, true),
        ("rejected.json", 400, false),
        ("rejected_of_another_order.json", 200, false),
        ("rejected_twice.json", 200, false),
        ("rejected_cut.json", 200, false),
        ("refused.json", 400, true),
        ("refused.json", 500, false),
        ("refused_beside_a_transaction.json", 400, false),
        ("proxy.html", 404, false),
    ] {
        let body = debit(name);
        assert_eq!(
            frees(&debit_news(http_status, &body)),
            is_freed,
            "{name} {http_status}"
        );
        blocks_unless_it_says_so(http_status, &body);
    }
    assert!(Config::from_toml(std::str::from_utf8(CONFIGURATION).expect("it is text")).is_ok());
    for (name, [permits, named, damaged]) in [
        ("whole", [3, 1, 0]),
        ("cut", [2, 1, 1]),
        ("zeros", [2, 0, 1]),
        ("amount_changed", [1, 1, 2]),
        ("windows", [0, 0, 4]),
        ("not_utf8", [0, 1, 3]),
        ("foreign", [0, 1, 3]),
        ("names_only", [0, 1, 0]),
    ] {
        let path = corpus("journal").join(name).with_extension("journal");
        let file = std::fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}"));
        let read = pages(&file);
        let counts = [read.permits.len(), read.named.len(), read.damaged];
        assert_eq!(counts, [permits, named, damaged], "{name}");
    }
}

/// Where bolero looks for the documents of a target.
fn corpus(target: &str) -> PathBuf {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/__fuzz__");
    fuzz.join(target).join("corpus")
}

/// What a file of the journal says.
fn pages(file: &[u8]) -> Pages {
    let mut pages = Pages::default();
    pages.add(file).expect("it is in memory");
    pages
}

/// Whether a line is whole and begins with the check of the rest, by the definition: the first 16 digits of its SHA-256.
fn is_checked(line: &[u8]) -> bool {
    let Some(line) = line.strip_suffix(b"\n") else {
        return false;
    };
    line.get(17..).is_some_and(|text| {
        line[..17] == *format!("{} ", &hex::encode(Sha256::digest(text))[..16]).as_bytes()
    })
}

/// The debits of an export, as an export.
fn written(export: &Export) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [
        "transaction_id",
        "order_id",
        "amount_minor",
        "currency",
        "status",
    ];
    writer.write_record(header).expect("it is kept in memory");
    for entry in &export.entries {
        let cells = [
            entry.transaction_id.to_string(),
            entry.order_id.to_string(),
            entry.amount_minor.to_string(),
            entry.currency.to_string(),
            export.statuses[entry.status].word.clone(),
        ];
        writer.write_record(cells).expect("it is kept in memory");
    }
    writer.into_inner().expect("it is kept in memory")
}

/// What a transaction may be said to be while its money may move.
const BLOCKING: [&str; 8] = [
    "settled",
    "pending",
    "new",
    "authorized",
    "error",
    "cancelled",
    "Rejected",
    "",
];

fn debit_news(http_status: u16, body: &[u8]) -> News {
    News::Answered(classify_debit(http_status, &read_body(body), &expected()))
}

fn blocks_unless_it_says_so(http_status: u16, body: &[u8]) {
    let says_so = answer::says_that_none_moved(http_status, body);
    assert!(
        says_so || !frees(&debit_news(http_status, body)),
        "{http_status} {}",
        String::from_utf8_lossy(body)
    );
}

/// The program's check of a signature, against the definition: `hex(alg(body ‖ key))` between the right ids.
fn same_as_reference(header: &[u8], body: &[u8]) {
    let Ok(header) = std::str::from_utf8(header) else {
        return;
    };
    let credentials = NoticeCredentials {
        merchant_id: MERCHANT.to_owned(),
        service_id: Uuid::parse_str(SERVICE).expect("it is a UUID"),
        service_keys: vec![SecretString::from(SERVICE_KEY)],
    };
    let is_fine = verify_notice(header, body, &credentials, &Algorithm::ALL).is_ok();
    let fields: Vec<_> = header
        .split(';')
        .map(|field| field.trim_start_matches(' '))
        .collect();
    let is_right = Algorithm::ALL
        .iter()
        .any(|algorithm| fields.join(";") == header_of(*algorithm, body, SERVICE_KEY));
    // Spaces are tolerated as far as the longest header that is looked at.
    assert_eq!(is_fine, is_right && header.len() <= 512, "{header}");
}

/// The header that belongs to a body.
fn header_of(algorithm: Algorithm, body: &[u8], key: &str) -> String {
    let signed = [body, key.as_bytes()].concat();
    let signature = match algorithm {
        Algorithm::Sha224 => hex::encode(Sha224::digest(&signed)),
        Algorithm::Sha256 => hex::encode(Sha256::digest(&signed)),
        Algorithm::Sha384 => hex::encode(Sha384::digest(&signed)),
        Algorithm::Sha512 => hex::encode(Sha512::digest(&signed)),
    };
    format!(
        "merchantid={MERCHANT};serviceid={SERVICE};signature={signature};alg={}",
        algorithm.as_str()
    )
}
