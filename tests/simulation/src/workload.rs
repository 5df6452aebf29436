//! Clients, lease holders, a compactor and watchers, each talking to one member over simulated sockets.
//!
//! Always holds: a client is sequential; every value is written once; each change has a revision of its own, because every
//! operation changes one key and a lease holds one key. Not here: what is right (checks.rs).

mod answers;
mod clients;
mod lease_holders;
mod shared;
mod upkeep;
mod watchers;

use std::sync::Arc;

use faults::history::Key;
use wal::sim_disk::crash::Random;

pub(crate) use answers::{change, entry, failed, found, is_about_users, key_bytes, revision};
pub(crate) use shared::{Held, LocalRead, Recorded, Shared, now_ns};
pub(crate) use upkeep::hands_over;

use crate::observers;
use crate::users;

pub(crate) const PREFIX: &str = "k/";
/// Keys from here on belong to leases, one each.
pub(crate) const LEASE_KEYS: Key = faults::history::LEASED;
const PAUSE_AFTER_ERROR_MS: u64 = 20;

/// What the clients of one run do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    pub clients: usize,
    pub keys: Key,
    /// At most, between operations of one client.
    pub pause_ms_max: u64,
    pub timeout_ms: u64,
    pub lease_holders: usize,
    /// They renew late, and again at once when that failed, rather than three times within the time of a lease.
    pub lazy_holders: bool,
    pub compactions: bool,
    /// Keys are made and deleted, hardly ever changed.
    pub short_lives: bool,
    /// Watchers that come and go.
    pub observers: usize,
    /// Transactions of many keys.
    pub batches: bool,
    /// Of which some are refused because of one of their operations.
    pub refusals: bool,
    /// With names, while somebody changes what they may do; 0: there is no authentication.
    pub users: usize,
}

/// Begins everything that one host of clients does, and waits for ever: the run says when it is over.
pub(crate) async fn spawn(shared: &Arc<Shared>, seed: u64, members: usize) {
    let mut seeds = Random(seed ^ 0xc11e_u64);
    for member in 0..members {
        tokio::spawn(watchers::watcher(member, shared.clone()));
    }
    for number in 0..shared.load.clients {
        tokio::spawn(clients::client(number, number % members, seeds.number(), shared.clone()));
    }
    for number in 0..shared.load.lease_holders {
        let member = number % members;
        tokio::spawn(lease_holders::lease_holder(100 + number, member, seeds.number(), shared.clone()));
    }
    for number in 0..shared.load.observers {
        tokio::spawn(observers::observer(seeds.number() ^ number as u64, members, shared.clone()));
    }
    for number in 0..shared.load.users {
        tokio::spawn(users::user(number, number % members, seed ^ number as u64, shared.clone()));
    }
    if shared.load.batches {
        tokio::spawn(observers::batcher(200, members - 1, seeds.number(), shared.clone()));
    }
    if shared.load.compactions {
        tokio::spawn(upkeep::compactor(seeds.number(), shared.clone(), members));
    }
    std::future::pending::<()>().await;
}
