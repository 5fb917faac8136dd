//! Whether the daemon says how it is.

use cykl::simulator::Script;
use cykl::store::Wake;

use crate::harness::World;

#[tokio::test]
async fn the_daemon_is_ready_once_every_worker_has_run() {
    let world = World::new(Script::default()).await;
    let status = async |path: &str| {
        reqwest::get(format!("{}{path}", world.door))
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(status("/health/live").await, 200);
    assert_eq!(status("/health/ready").await, 503);
    let now = world.clock.now();
    for worker in Wake::ALL {
        world.store.note_run(worker, now, now, 0).await.unwrap();
    }
    assert_eq!(status("/health/ready").await, 200);
    world.advance(chrono::TimeDelta::hours(1));
    assert_eq!(status("/health/ready").await, 503);
}
