//! Databases that went back in time under a shop that charges: restored from a base backup, and promoted from a standby that lagged.

use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use cykl::embedded::{EmbeddedConfig, EmbeddedDatabase};
use nix::sys::signal::Signal;
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use crate::fire::Dice;
use crate::site::{
    Daemon, HURRIED, OwnServer, Site, WEEKS_IN_HALF_A_MINUTE, go_on_and_settle_up, start_again,
    subscribe_mixed, until,
};

/// What a server needs to be copied while it runs.
const COPIED: [(&str, &str); 2] = [("wal_level", "replica"), ("max_wal_senders", "4")];

/// A lively shop on its own server.
async fn site_on(own: &OwnServer) -> Site {
    let site = Site::on(own.database(), WEEKS_IN_HALF_A_MINUTE, HURRIED).await;
    subscribe_mixed(&site, &mut Dice::from_environment()).await;
    site
}

async fn debits(site: &Site, more: u64) {
    let posts = site.simulator.totals().posts;
    until("debits", async || {
        site.simulator.totals().posts >= posts + more
    })
    .await;
}

/// Copies the server as it runs, as the user that it runs as.
async fn base_backup(own: &OwnServer, target: &Path, more: &[&str]) {
    let mut connection = PgConnection::connect_with(&own.database()).await.unwrap();
    let programs: String =
        sqlx::query_scalar("SELECT setting FROM pg_catalog.pg_config() WHERE name = 'BINDIR'")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    connection.close().await.unwrap();
    let home = std::fs::metadata(&own.settings.data_dir).unwrap();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(target)
        .unwrap();
    std::os::unix::fs::chown(target, Some(home.uid()), Some(home.gid())).unwrap();
    let mut command = own.command(Path::new(&programs).join("pg_basebackup"));
    command
        .args([
            "--username=cykl",
            "--checkpoint=fast",
            "--wal-method=stream",
            "--no-sync",
        ])
        .arg(format!("--host={}", own.server.socket_dir().display()))
        .arg(format!("--pgdata={}", target.display()))
        .args(more);
    let output = tokio::task::spawn_blocking(move || command.output());
    let output = output.await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
}

async fn dies(mut daemon: Daemon) {
    daemon.signal(Signal::SIGKILL);
    daemon.ends().await;
}

/// Adopts the database, and checks that every debit that it has forgotten is known again.
async fn adopt(site: &Site) {
    let looked = site.run(&["adopt", "--dry-run"]).await;
    let forgotten = looked["forgotten"].as_array().unwrap();
    assert!(forgotten.len() >= 20, "{looked}");
    assert_eq!(forgotten[0]["amount"], "49.00 PLN", "{looked}");
    assert_eq!(looked["journal"]["damaged_lines"], 0, "{looked}");
    assert_eq!(looked["adoption"], Value::Null);
    let adopted = site
        .run(&["adopt", "--reason", "restored", "--actor", "Jan"])
        .await;
    let lost = adopted["adoption"]["lost"].as_array().unwrap();
    assert_eq!(lost.len(), forgotten.len(), "{adopted}");
    let fates = |fate: &str| lost.iter().filter(|lost| lost["fate"] == fate).count();
    println!(
        "{} permits forgotten: {} restored, {} superseded, {} unplaced",
        lost.len(),
        fates("restored"),
        fates("superseded"),
        fates("unplaced")
    );
    assert!(fates("restored") > 0, "{adopted}");
    assert_eq!(fates("order_id_taken"), 0, "{adopted}");
    let known: Vec<String> = sqlx::query_scalar("SELECT order_id FROM attempts")
        .fetch_all(&site.books)
        .await
        .unwrap();
    for lost in lost.iter().filter(|lost| lost["fate"] == "restored") {
        let order_id = lost["order_id"].as_str().unwrap();
        assert!(known.iter().any(|known| known == order_id), "{order_id}");
    }
    // Every debit that imoje has is in the books, or was told as lost.
    let told: BTreeSet<&str> = lost
        .iter()
        .filter_map(|lost| lost["order_id"].as_str())
        .collect();
    let ledger = site.simulator.ledger();
    for transaction in ledger.transactions() {
        let order_id = &*transaction.order_id;
        assert!(
            told.contains(order_id) || known.iter().any(|known| known == order_id),
            "{order_id}"
        );
    }
    // What was adopted is not forgotten any more.
    let again = site.run(&["adopt", "--dry-run"]).await;
    assert_eq!(again["forgotten"].as_array().unwrap().len(), 0, "{again}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_base_backup_that_is_put_back_is_recognised_and_learns_what_it_forgot() {
    let mut own = OwnServer::start(&COPIED).await;
    let site = site_on(&own).await;
    let daemon = site.start();
    debits(&site, 220).await;
    let backup = own.home.path().join("backup");
    base_backup(&own, &backup, &[]).await;
    debits(&site, 120).await;
    dies(daemon).await;
    own.server.stop().await.unwrap();
    let data = own.settings.data_dir.join("data");
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&backup, &data).unwrap();
    own.server = start_again(&own.settings).await;
    // It is the same server in the same place, so the fence knows nothing.
    let said = site.start().fails(78).await;
    assert!(
        said.contains("names permits that this database has forgotten"),
        "{said}"
    );
    adopt(&site).await;
    go_on_and_settle_up(site, 5, 1).await;
    own.server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lagged_and_was_promoted_learns_what_it_missed() {
    let own = OwnServer::start(&COPIED).await;
    let mut site = site_on(&own).await;
    let daemon = site.start();
    debits(&site, 220).await;
    let standby = EmbeddedConfig {
        data_dir: own.home.path().join("standby"),
        ..own.settings.clone()
    };
    // A place for a cluster, and another cluster in it.
    let empty = EmbeddedDatabase::start(standby.clone()).await.unwrap();
    empty.stop().await.unwrap();
    let data = standby.data_dir.join("data");
    std::fs::remove_dir_all(&data).unwrap();
    base_backup(&own, &data, &["--write-recovery-conf"]).await;
    let server = EmbeddedDatabase::start(standby.clone()).await.unwrap();
    let attempts = site.count("SELECT count(*) FROM attempts").await + 5;
    let follows = sqlx::PgPool::connect_lazy_with(server.connect_options("cykl"));
    until("the standby follows", async || {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM cykl.attempts");
        count
            .fetch_one(&follows)
            .await
            .is_ok_and(|count| count > attempts)
    })
    .await;
    follows.close().await;
    // Then it lags.
    server.stop().await.unwrap();
    debits(&site, 120).await;
    dies(daemon).await;
    own.server.stop().await.unwrap();
    let server = EmbeddedDatabase::start(standby).await.unwrap();
    let mut promoting = PgConnection::connect_with(&server.connect_options("cykl"))
        .await
        .unwrap();
    let promoted: bool = sqlx::query_scalar("SELECT pg_promote()")
        .fetch_one(&mut promoting)
        .await
        .unwrap();
    assert!(promoted);
    promoting.close().await.unwrap();
    site.move_to(server.connect_options("cykl")).await;
    let said = site.start().fails(78).await;
    assert!(said.contains("restored, promoted or copied"), "{said}");
    adopt(&site).await;
    go_on_and_settle_up(site, 5, 1).await;
    server.stop().await.unwrap();
}
