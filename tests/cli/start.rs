//! What stands between the program and its work: the configuration, the database, its schema, the fence, the gateway.

use cykl::simulator::{Simulator, SimulatorConfig};

use crate::place::{Place, config, directory};

const NOWHERE: &str = "postgres://cykl:hunter2@127.0.0.1:1/books";

#[test]
fn a_misspelt_setting_is_named_with_the_nearest_one() {
    let place = Place::with_config(&config(NOWHERE, "http://127.0.0.1:9/v1/merchant"));
    place.reconfigure("[shops.main]", "max_conections = 3\n[shops.main]");
    let ran = place.run(&["status"]).ended(78);
    assert!(ran.stderr.starts_with("error: "), "{ran:?}");
    assert!(ran.stderr.contains("database.max_conections"), "{ran:?}");
    assert!(ran.stderr.contains("database.max_connections"), "{ran:?}");
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_missing_secret_is_named() {
    let place = Place::with_config(&config(NOWHERE, "http://127.0.0.1:9/v1/merchant"));
    place.reconfigure("token = \"sim-token\"\n", "");
    let ran = place.run(&["check", "--offline"]).ended(78);
    assert!(ran.stderr.contains("shops.main.token"), "{ran:?}");
}

#[test]
fn a_missing_configuration_file_is_a_matter_of_configuration() {
    let place = Place::with_config("");
    std::fs::remove_file(place.path().join("cykl.toml")).unwrap();
    let ran = place.run(&["status"]).ended(78);
    assert!(ran.stderr.contains("cykl.toml"), "{ran:?}");
}

#[test]
fn an_unreachable_database_is_told_without_its_password() {
    let place = Place::with_config(&config(NOWHERE, "http://127.0.0.1:9/v1/merchant"));
    for command in [
        &["status"][..],
        &["migrate"],
        &["audit"],
        &["charge", "list"],
    ] {
        let ran = place.run(command).ended(69);
        assert!(ran.stderr.contains("127.0.0.1"), "{ran:?}");
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
        assert_eq!(ran.stdout, "");
    }
}

#[tokio::test]
async fn a_database_that_refuses_the_user_is_unavailable() {
    let place = Place::empty().await;
    place.reconfigure("postgres://cykl@", "postgres://nobody_knows:hunter2@");
    let ran = place.run(&["status"]).ended(69);
    assert!(ran.stderr.contains("nobody_knows"), "{ran:?}");
    assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
}

#[tokio::test]
async fn an_empty_database_has_to_be_migrated_first() {
    let place = Place::empty().await;
    for command in [
        &["status"][..],
        &["audit"],
        &["brake", "show"],
        &["adopt", "--reason", "x"],
    ] {
        let ran = place.run(command).ended(78);
        assert!(ran.stderr.contains("cykl migrate"), "{ran:?}");
    }
    let check = place.run(&["check"]).ended(78);
    assert!(check.stdout.contains("FAIL  schema"), "{check:?}");
    place.run(&["migrate"]).succeeded();
    place.run(&["migrate"]).succeeded();
    place.run(&["status"]).succeeded();
}

#[tokio::test]
async fn a_newer_database_is_left_alone() {
    let place = Place::migrated().await;
    place
        .sql(
            "INSERT INTO cykl._sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'from the future', true, '\\x00', 0)",
        )
        .await;
    let ran = place.run(&["status"]).ended(78);
    assert!(ran.stderr.contains("version 9999"), "{ran:?}");
    assert!(ran.stderr.contains("newer program"), "{ran:?}");
    let ran = place.run(&["migrate"]).ended(78);
    assert!(ran.stderr.contains("9999"), "{ran:?}");
}

#[tokio::test]
async fn an_altered_migration_is_found() {
    let place = Place::migrated().await;
    place
        .sql("UPDATE cykl._sqlx_migrations SET checksum = '\\x00' WHERE version = 1")
        .await;
    place.run(&["migrate"]).ended(78);
}

#[tokio::test]
async fn a_shop_with_other_credentials_is_kept_out_until_it_is_adopted() {
    let place = Place::healthy().await;
    place.run(&["adopt", "--reason", "a copy"]).succeeded();
    assert_eq!(status_fence(&place), "open");
    place.reconfigure("simmerchant000000001", "simmerchant000000002");
    assert_eq!(status_fence(&place), "closed");
    let check = place.run(&["check"]).ended(78);
    assert!(check.stdout.contains("FAIL  fence: shop main"), "{check:?}");
    assert!(check.stdout.contains("simmerchant000000002"), "{check:?}");
    place
        .run(&["adopt", "--reason", "a new contract"])
        .succeeded();
    assert_eq!(status_fence(&place), "open");
}

#[tokio::test]
async fn a_copied_database_is_kept_out_until_it_is_adopted() {
    let copy = Place::healthy().await;
    assert_eq!(status_fence(&copy), "closed");
    let check = copy.run(&["check"]).ended(78);
    assert!(
        check
            .stdout
            .contains("FAIL  fence: this database was moved"),
        "{check:?}"
    );
    copy.run(&["adopt"]).ended(2);
    copy.run(&["adopt", "--reason", "a copy for staging", "--actor", "Jan"])
        .succeeded();
    let status = copy.run(&["status", "--output", "json"]).succeeded().json();
    assert_eq!(status["fence"], "open");
    assert_eq!(status["adoption"]["adopted_by"], "Jan");
    assert_eq!(status["adoption"]["reason"], "a copy for staging");
}

fn status_fence(place: &Place) -> String {
    let status = place
        .run(&["status", "--output", "json"])
        .succeeded()
        .json();
    status["fence"].as_str().unwrap().to_owned()
}

#[test]
fn the_configuration_is_shown_with_its_origins_and_without_its_secrets() {
    let place = Place::with_config(&config(NOWHERE, "http://127.0.0.1:9/v1/merchant"));
    let ran = place.run(&["check", "--offline"]).succeeded();
    assert!(
        ran.stdout
            .contains("shops.main.merchant_id = simmerchant000000001"),
        "{ran:?}"
    );
    assert!(
        ran.stdout
            .contains("charging.in_flight_max = 64  (built-in default)"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("OK    configuration"), "{ran:?}");
    for secret in ["hunter2", "sim-token", "sim-service-key-000"] {
        assert!(!ran.stdout.contains(secret), "{secret}: {ran:?}");
        assert!(!ran.stderr.contains(secret), "{secret}: {ran:?}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_unavailable() {
    let place = Place::migrated().await;
    let ran = place.run(&["check"]).ended(69);
    assert!(ran.stdout.contains("OK    schema"), "{ran:?}");
    assert!(
        ran.stdout.contains("OK    time zone Europe/Warsaw"),
        "{ran:?}"
    );
    assert!(ran.stdout.contains("FAIL  gateway of main"), "{ran:?}");
}

#[tokio::test]
async fn a_gateway_that_refuses_the_token_is_a_matter_of_configuration() {
    let simulator = simulator().await;
    let place = Place::migrated().await;
    place.reconfigure("http://127.0.0.1:9/v1/merchant", &simulator.base_url());
    let ran = place.run_aside(&["check"]).await.succeeded();
    assert!(ran.stdout.contains("OK    gateway of main"), "{ran:?}");
    place.reconfigure("sim-token", "another-token");
    let ran = place.run_aside(&["check"]).await.ended(78);
    assert!(ran.stdout.contains("FAIL  gateway of main"), "{ran:?}");
}

async fn simulator() -> Simulator {
    let start = "2027-01-01T07:00:00Z".parse().unwrap();
    Simulator::start(SimulatorConfig::new(std::sync::Arc::new(move || start)))
        .await
        .unwrap()
}

#[test]
fn an_embedded_database_lives_as_long_as_the_command() {
    let home = directory();
    let place = Place::with_config(&config("embedded", "http://127.0.0.1:9/v1/merchant"));
    let data_dir = home.path().join("postgres");
    place.reconfigure(
        "[shops.main]",
        &format!("data_dir = \"{}\"\n[shops.main]", data_dir.display()),
    );
    place.run(&["migrate"]).succeeded();
    assert!(!data_dir.join("data/postmaster.pid").exists());
    let status = place
        .run(&["status", "--output", "json"])
        .succeeded()
        .json();
    assert_eq!(status["fence"], "new");
    place.run(&["audit"]).succeeded();
}

#[test]
fn an_embedded_database_in_an_impossible_place_is_a_matter_of_configuration() {
    let place = Place::with_config(&config("embedded", "http://127.0.0.1:9/v1/merchant"));
    place.reconfigure("[shops.main]", "data_dir = \"/proc/cykl\"\n[shops.main]");
    let ran = place.run(&["status"]);
    assert!([69, 78].contains(&ran.code), "{ran:?}");
    assert!(ran.stderr.contains("/proc"), "{ran:?}");
}
