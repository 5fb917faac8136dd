//! What is on its way: which permits have no recorded answer yet, and how many requests may be on the wire.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::clock::Moment;
use crate::domain::shop::ShopName;
use crate::store::resolution::Finding;

/// When a brake was looked at, and whether it says stop, or why nobody knows.
pub(super) type BrakeLook = tokio::sync::Mutex<Option<(Moment, Result<bool, String>)>>;

/// The requests of one run.
pub(super) struct Flight {
    turns: Semaphore,
    open: AtomicU32,
    landed: Notify,
    is_failed: AtomicBool,
    open_by_shop: Mutex<HashMap<ShopName, u32>>,
    closed: Mutex<HashSet<ShopName>>,
    claimed_until: Mutex<HashMap<ShopName, DateTime<Utc>>>,
    brakes: Mutex<HashMap<ShopName, Arc<BrakeLook>>>,
}

impl Flight {
    /// Nothing on its way, and room for `requests_max` on the wire.
    pub fn new(requests_max: u32) -> Arc<Self> {
        Arc::new(Self {
            turns: Semaphore::new(usize::try_from(requests_max).unwrap_or(Semaphore::MAX_PERMITS)),
            open: AtomicU32::new(0),
            landed: Notify::new(),
            is_failed: AtomicBool::new(false),
            open_by_shop: Mutex::default(),
            closed: Mutex::default(),
            claimed_until: Mutex::default(),
            brakes: Mutex::default(),
        })
    }

    /// How many permits have no recorded answer.
    pub fn open(&self) -> u32 {
        self.open.load(Ordering::Acquire)
    }

    /// How many of them are of `shop`.
    pub fn open_of(&self, shop: &ShopName) -> u32 {
        self.by_shop().get(shop).copied().unwrap_or(0)
    }

    /// Counts a permit of `shop` until the ticket is dropped.
    pub fn board(self: &Arc<Self>, shop: &ShopName) -> Ticket {
        self.open.fetch_add(1, Ordering::AcqRel);
        *self.by_shop().entry(shop.clone()).or_default() += 1;
        Ticket {
            flight: Arc::clone(self),
            shop: shop.clone(),
        }
    }

    fn by_shop(&self) -> MutexGuard<'_, HashMap<ShopName, u32>> {
        self.open_by_shop
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place on the wire; first come, first served.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns
            .acquire()
            .await
            .expect("the semaphore is never closed")
    }

    /// The last look at the brake of `shop` for permits that wait for their turn. Whoever looks holds it, and the others wait for what
    /// it finds.
    pub fn brake_look(&self, shop: &ShopName) -> Arc<BrakeLook> {
        let mut brakes = self.brakes.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(brakes.entry(shop.clone()).or_default())
    }

    /// Waits until a permit's answer is recorded, unless one was since the last wait.
    pub async fn landing(&self) {
        self.landed.notified().await;
    }

    /// Nothing more is claimed: an answer could not be recorded.
    pub fn fail(&self) {
        self.is_failed.store(true, Ordering::Release);
    }

    /// Whether an answer could not be recorded.
    pub fn is_failed(&self) -> bool {
        self.is_failed.load(Ordering::Acquire)
    }

    /// Up to where the charges of `shop` were claimed in this run, by the time at which they were due.
    pub fn claimed_until(&self, shop: &ShopName) -> Option<DateTime<Utc>> {
        self.claimed_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(shop)
            .copied()
    }

    /// The next claim for `shop` begins at `due_from`, or, without it, with whatever is due.
    pub fn claim_on_from(&self, shop: &ShopName, due_from: Option<DateTime<Utc>>) {
        let mut claimed_until = self
            .claimed_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match due_from {
            Some(due_from) => claimed_until.insert(shop.clone(), due_from),
            None => claimed_until.remove(shop),
        };
    }

    /// Nothing more of `shop` is claimed in this run.
    pub fn close(&self, shop: &ShopName) {
        self.closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(shop.clone());
    }

    /// Whether nothing more of `shop` is claimed.
    pub fn is_closed(&self, shop: &ShopName) -> bool {
        self.closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(shop)
    }
}

/// A permit without a recorded answer. Dropped when the answer is recorded, or when sending it broke.
pub(super) struct Ticket {
    flight: Arc<Flight>,
    shop: ShopName,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(open) = self.flight.by_shop().get_mut(&self.shop) {
            *open = open.saturating_sub(1);
        }
        self.flight.open.fetch_sub(1, Ordering::AcqRel);
        self.flight.landed.notify_one();
    }
}

/// What came of one request, to be recorded.
pub(super) struct Landed {
    pub finding: Finding,
    pub ticket: Ticket,
}
