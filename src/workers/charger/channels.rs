//! Before many charges go out together, imoje is asked whether its channel for recurring debits is on line: a thousand debits that it
//! would turn away help nobody, and say nothing about the cards.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use tokio::time::timeout;

use super::Charger;
use crate::domain::shop::ShopName;
use crate::domain::tripwire::Trip;
use crate::store::StoreError;
use crate::workers::shops::Shop;

/// How often imoje is asked about a shop at most.
const ASK_EVERY: Duration = Duration::from_secs(300);

/// How long it may take to answer. Charging does not depend on it.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// When imoje was asked about each shop. Clones share it.
#[derive(Clone, Default)]
pub struct ChannelWatch(Arc<Mutex<HashMap<ShopName, Instant>>>);

impl ChannelWatch {
    /// Those of `shops` about which imoje was not asked lately.
    fn unasked(&self, mut shops: Vec<ShopName>) -> Vec<ShopName> {
        let asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shops.retain(|shop| asked.get(shop).is_none_or(|at| at.elapsed() >= ASK_EVERY));
        shops
    }

    /// Notes that imoje is asked about `shop`.
    fn note(&self, shop: &ShopName) {
        let mut asked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        asked.insert(shop.clone(), Instant::now());
    }
}

impl Charger {
    /// Asks imoje about every shop of which many charges are due by `now`. The brake of those whose channel is off line comes on, for a
    /// while. An answer that does not tell, or none, changes nothing.
    ///
    /// # Errors
    /// When the database does not answer.
    pub(super) async fn look_at_channels(&self, now: DateTime<Utc>) -> Result<(), StoreError> {
        let unasked = self.channels.unasked(self.shops.names());
        if unasked.is_empty() {
            return Ok(());
        }
        let crowded = self.store.crowded_shops(&unasked, now).await?;
        for shop in crowded.iter().filter_map(|shop| self.shops.get(shop)) {
            self.channels.note(&shop.name);
            if is_offline(shop).await
                && self
                    .store
                    .trip(Some(&shop.name), Trip::ChannelOffline, now)
                    .await?
            {
                tracing::error!(shop = %shop.name, "imoje's recurring channel is off line; charging pauses");
            }
        }
        Ok(())
    }
}

/// Whether imoje says that the channel of `shop` is off line.
async fn is_offline(shop: &Shop) -> bool {
    match timeout(ANSWER_WITHIN, shop.client.service()).await {
        Ok(Ok(service)) => service.is_online() == Some(false),
        Ok(Err(error)) => {
            tracing::warn!(%error, shop = %shop.name, "couldn't ask imoje about its recurring channel");
            false
        }
        Err(_) => {
            tracing::warn!(shop = %shop.name, "imoje did not say in time whether its recurring channel is on line");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imoje_is_asked_about_each_shop_once_in_a_while() {
        let watch = ChannelWatch::default();
        let shops: [ShopName; 2] = ["main", "second"].map(|name| name.parse().unwrap());
        let [main, second] = shops.clone();
        assert_eq!(watch.unasked(shops.to_vec()), shops);
        watch.note(&main);
        assert_eq!(watch.unasked(shops.to_vec()), [second]);
    }
}
