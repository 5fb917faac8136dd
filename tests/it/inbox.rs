//! The inbox: what happens to notices that come in together.

use cykl::domain::shop::ShopName;
use cykl::simulator::Script;
use cykl::store::Wake;
use cykl::store::inbox::NewNotice;
use reqwest::StatusCode;
use sha2::{Digest, Sha256};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::World;
use crate::notices::{notice, panel_address, post_signed, stored};

/// How many senders come at once.
const SENDERS: usize = 60;

/// An order id as Cykl writes it, which the books do not know.
fn order() -> String {
    format!("cykl-{}-0-1", Uuid::now_v7().simple())
}

/// Posts every body at the same time, each by a sender of its own, while nothing can be stored; then it can. Returns the answers in
/// the order of the bodies.
async fn post_together(world: &World, bodies: &[String]) -> Vec<StatusCode> {
    let mut lock = world.books.begin().await.unwrap();
    sqlx::query("LOCK TABLE notices IN SHARE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let mut senders = JoinSet::new();
    for (place, body) in bodies.iter().cloned().enumerate() {
        let address = panel_address(&world.door);
        senders.spawn(async move { (place, post_signed(&address, &body).await.0) });
    }
    until_somebody_waits(world).await;
    lock.rollback().await.unwrap();
    let mut answers = senders.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, status)| status).collect()
}

/// Returns when a session of this database waits for a lock.
async fn until_somebody_waits(world: &World) {
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                                WHERE datname = current_database() AND wait_event_type = 'Lock')";
    while !world.one::<bool>(waits).await {}
}

fn new_notice(order_id: &str, body: &str) -> NewNotice {
    NewNotice {
        shop: "main".parse::<ShopName>().unwrap(),
        body_sha256: Sha256::digest(body).into(),
        body: body.to_owned(),
        order_id: Some(order_id.to_owned()),
        transaction_id: Some(cykl::domain::id::TransactionId::from_uuid(Uuid::new_v4())),
        attempt_id: None,
        is_refund: false,
        refund_of: None,
        says_settled: true,
    }
}

#[tokio::test]
async fn notices_that_come_together_are_all_stored_and_answered_in_few_commits() {
    let world = World::new(Script::default()).await;
    let bodies: Vec<String> = (0..SENDERS)
        .map(|_| notice(&order(), Uuid::new_v4()))
        .collect();
    let answers = post_together(&world, &bodies).await;
    assert_eq!(answers, [StatusCode::OK; SENDERS]);
    let mut kept = world.column("SELECT body FROM notices").await;
    let mut sent = bodies;
    kept.sort();
    sent.sort();
    assert_eq!(kept, sent);
    let commits: i64 = world
        .one("SELECT count(DISTINCT xmin::text) FROM notices")
        .await;
    assert!(
        usize::try_from(commits).unwrap() < SENDERS,
        "{commits} commits"
    );
}

#[tokio::test]
async fn the_same_notice_many_times_at_once_is_stored_once_and_counted() {
    let world = World::new(Script::default()).await;
    let bodies = vec![notice(&order(), Uuid::new_v4()); SENDERS];
    let answers = post_together(&world, &bodies).await;
    assert_eq!(answers, [StatusCode::OK; SENDERS]);
    let counted: Vec<String> = world
        .column("SELECT received_count::text FROM notices")
        .await;
    assert_eq!(counted, [SENDERS.to_string()]);
    let metrics = world.metrics.encode();
    let duplicates = SENDERS - 1;
    for count in [
        "{outcome=\"accepted\"} 1\n".to_owned(),
        format!("{{outcome=\"duplicate\"}} {duplicates}\n"),
    ] {
        assert!(
            metrics.contains(&format!("cykl_notices_total{count}")),
            "{metrics}"
        );
    }
}

#[tokio::test]
async fn of_copies_in_one_group_the_first_is_new() {
    let world = World::new(Script::default()).await;
    let now = world.clock.now();
    let (one, other) = (new_notice(&order(), "one"), new_notice(&order(), "other"));
    let group = [one.clone(), other.clone(), one.clone(), one];
    let receive = || world.store.receive_notices(&group, now);
    assert_eq!(receive().await.unwrap(), [true, true, false, false]);
    assert_eq!(receive().await.unwrap(), [false; 4]);
    assert_eq!(
        world
            .column("SELECT body || ' ' || received_count FROM notices ORDER BY body")
            .await,
        ["one 6", "other 2"]
    );
}

/// The hints that `sent` brought.
async fn hints(world: &World, group: &[NewNotice]) -> Vec<String> {
    let mut listener = world.store.listen().await.unwrap();
    world
        .store
        .receive_notices(group, world.clock.now())
        .await
        .unwrap();
    sqlx::query("SELECT pg_notify($1, 'end')")
        .bind(Wake::CHANNEL)
        .execute(&world.books)
        .await
        .unwrap();
    let mut hints = Vec::new();
    loop {
        let hint = listener.recv().await.unwrap().payload().to_owned();
        if hint == "end" {
            return hints;
        }
        hints.push(hint);
    }
}

#[tokio::test]
async fn a_group_of_notices_wakes_the_resolver_once() {
    let world = World::new(Script::default()).await;
    let group = ["a", "b", "c"].map(|body| new_notice(&order(), body));
    assert_eq!(hints(&world, &group).await, ["resolver"]);
}

#[tokio::test]
async fn notices_about_orders_of_other_systems_wake_nobody() {
    let world = World::new(Script::default()).await;
    let group = ["a", "b", "c"].map(|body| new_notice("inv-1042-a1", body));
    assert_eq!(hints(&world, &group).await, Vec::<String>::new());
    assert_eq!(
        world.column("SELECT state::text FROM notices").await,
        ["foreign"; 3]
    );
}

#[tokio::test]
async fn a_notice_that_cannot_be_stored_takes_no_other_with_it() {
    let world = World::new(Script::default()).await;
    sqlx::query("ALTER TABLE notices ADD CONSTRAINT fault CHECK (order_id <> 'fault')")
        .execute(&world.books)
        .await
        .unwrap();
    let group = [new_notice(&order(), "good"), new_notice("fault", "bad")];
    let together = world.store.receive_notices(&group, world.clock.now()).await;
    assert!(together.is_err());
    assert_eq!(stored(&world).await, 0, "all or none");
    let bodies: Vec<String> = (0..SENDERS)
        .map(|place| {
            let order = if place % 20 == 7 {
                "fault".to_owned()
            } else {
                order()
            };
            notice(&order, Uuid::new_v4())
        })
        .collect();
    let answers = post_together(&world, &bodies).await;
    for (place, answer) in answers.iter().enumerate() {
        let expected = if place % 20 == 7 {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        assert_eq!(*answer, expected, "notice {place}");
    }
    assert_eq!(
        usize::try_from(stored(&world).await).unwrap(),
        SENDERS - SENDERS / 20
    );
}

/// Does so in another database, since one that is in use can be neither taken away nor brought back.
async fn from_outside(world: &World, statements: &[String]) {
    let outside = world.database.clone().database("postgres");
    let mut admin = PgConnection::connect_with(&outside).await.unwrap();
    for statement in statements {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
            .execute(&mut admin)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn while_the_database_is_away_every_notice_is_refused_and_afterwards_taken() {
    let world = World::new(Script::default()).await;
    let name = world.database.get_database().unwrap().to_owned();
    let away = [
        format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"),
        format!("ALTER DATABASE {name} RENAME TO {name}_away"),
    ];
    from_outside(&world, &away).await;
    let bodies: Vec<String> = (0..SENDERS)
        .map(|_| notice(&order(), Uuid::new_v4()))
        .collect();
    let post_all = async || {
        let mut senders = JoinSet::new();
        for body in bodies.clone() {
            let address = panel_address(&world.door);
            senders.spawn(async move { post_signed(&address, &body).await });
        }
        senders.join_all().await
    };
    let refused = (StatusCode::SERVICE_UNAVAILABLE, String::new());
    assert_eq!(post_all().await, vec![refused; SENDERS]);
    let back = [format!("ALTER DATABASE {name}_away RENAME TO {name}")];
    from_outside(&world, &back).await;
    let taken = (StatusCode::OK, r#"{"status":"ok"}"#.to_owned());
    assert_eq!(post_all().await, vec![taken; SENDERS]);
    assert_eq!(usize::try_from(stored(&world).await).unwrap(), SENDERS);
}

#[tokio::test]
async fn what_was_taken_before_the_door_closes_is_stored_and_answered() {
    let world = World::new(Script::default()).await;
    let mut lock = world.books.begin().await.unwrap();
    sqlx::query("LOCK TABLE notices IN SHARE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let address = panel_address(&world.door);
    let body = notice(&order(), Uuid::new_v4());
    let sender = tokio::spawn(async move { post_signed(&address, &body).await.0 });
    until_somebody_waits(&world).await;
    world.close_door();
    lock.rollback().await.unwrap();
    assert_eq!(sender.await.unwrap(), StatusCode::OK);
    assert_eq!(stored(&world).await, 1);
}
