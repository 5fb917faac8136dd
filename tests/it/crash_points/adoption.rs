//! The adoption of a database that was restored from a backup: `cykl adopt` dies or loses its connection, and a person gives it again.

use std::sync::Arc;

use crate::fire::{DatabaseProxy, Effects, Fault, Plan};
use crate::ground::restored;
use crate::harness::connect;

/// The one thing that an adoption does to the world outside.
const EFFECT: &str = "commit record_installation, release_unset_brake, start_slowly, record_shop, note_lost_permits, judge_lost_permits, restore_attempts, restore_charges, name_doubts, append_events";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_fails_is_repeated_and_nothing_is_sent_twice() {
    for fault in Fault::ALL {
        let shop = restored().await;
        let effects = Arc::new(Effects::of(Plan::At(vec![(0, fault)])));
        let proxy = DatabaseProxy::before(&shop.database, Arc::clone(&effects));
        let store = connect(shop.database.clone().socket(proxy.directory()), 2).await;
        let news = shop.news().await;
        let failed = tokio::select! {
            biased;
            () = effects.crashed() => true,
            adopted = shop.adopt_through(&store, &news) => adopted.is_err(),
        };
        assert!(failed, "{fault:?}");
        assert_eq!(
            (effects.names(), effects.struck()),
            (vec![EFFECT.to_owned()], 1)
        );
        // The person reads the journal again: what the first time took in is known.
        let news = shop.news().await;
        assert_eq!(news.lost.is_empty(), fault.happens(), "{fault:?}");
        let adopted = shop.adopt(&news).await;
        shop.go_on(adopted.fence_id).await;
        shop.is_as_imoje_has_it().await;
    }
}
