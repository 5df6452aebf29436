//! Leases as the log knows them, and which keys hang on which lease.
//!
//! Invariants: a key hangs on at most one lease, and exactly when its latest pair says so. Ids and keys are ordered.
//! Not here: the clock. Only the leader knows how much time is left and proposes `LeaseExpire`.

use crate::check::LEASE_TTL_S_MAX;
use crate::command::{LeaseGrant, LeaseRemaining};
use crate::reply::{ApplyError, LeaseGrantReply, LeaseTime, LeaseView};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub(crate) struct Leases {
    leases: BTreeMap<i64, Lease>,
    /// Both maps share one copy of each key.
    of_key: BTreeMap<Bytes, i64>,
}

#[derive(Default)]
pub(crate) struct Lease {
    pub(crate) ttl_s: i64,
    /// The last checkpoint; 0 if there was none.
    pub(crate) remaining_s: i64,
    keys: BTreeSet<Bytes>,
}

impl Leases {
    pub(crate) fn exists(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    pub(crate) fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = LeaseTime> + '_ {
        self.iter().map(|(id, lease)| LeaseTime { id, ttl_s: lease.ttl_s, remaining_s: lease.remaining_s })
    }

    pub(crate) fn view(&self, id: i64) -> Option<LeaseView> {
        let lease = self.leases.get(&id)?;
        let keys = lease.keys.iter().cloned().collect();
        Some(LeaseView { id, ttl_s: lease.ttl_s, remaining_s: lease.remaining_s, keys })
    }

    /// Keys of the lease, sorted; none if there is no such lease.
    pub(crate) fn keys(&self, id: i64) -> impl Iterator<Item = &Bytes> {
        self.leases.get(&id).into_iter().flat_map(|lease| &lease.keys)
    }

    /// 0 if the key hangs on no lease.
    pub(crate) fn of_key(&self, key: &[u8]) -> i64 {
        if self.of_key.is_empty() {
            return 0;
        }
        self.of_key.get(key).copied().unwrap_or(0)
    }

    pub(crate) fn grant(&mut self, grant: &LeaseGrant) -> Result<LeaseGrantReply, ApplyError> {
        if grant.id == 0 {
            return Err(ApplyError::LeaseNotFound);
        }
        if grant.ttl_s > LEASE_TTL_S_MAX {
            return Err(ApplyError::LeaseTtlTooLarge);
        }
        if self.exists(grant.id) {
            return Err(ApplyError::LeaseExists);
        }
        let ttl_s = grant.ttl_s.max(1);
        self.load(grant.id, ttl_s, 0);
        Ok(LeaseGrantReply { id: grant.id, ttl_s })
    }

    pub(crate) fn load(&mut self, id: i64, ttl_s: i64, remaining_s: i64) {
        self.leases.insert(id, Lease { ttl_s, remaining_s, keys: BTreeSet::new() });
    }

    /// Returns the lease if it exists.
    pub(crate) fn checkpoint(&mut self, remaining: LeaseRemaining) -> Option<&Lease> {
        let lease = self.leases.get_mut(&remaining.id)?;
        lease.remaining_s = remaining.remaining_s.clamp(0, lease.ttl_s);
        Some(lease)
    }

    /// Takes the lease away with its keys, sorted.
    pub(crate) fn remove(&mut self, id: i64) -> Option<Vec<Bytes>> {
        let lease = self.leases.remove(&id)?;
        for key in &lease.keys {
            self.of_key.remove(key);
        }
        Some(lease.keys.into_iter().collect())
    }

    /// Notes that the key now hangs on `id` (0: on none).
    pub(crate) fn attach(&mut self, key: &[u8], id: i64) {
        let before = self.of_key(key);
        if before == id {
            return;
        }
        if before != 0 {
            self.of_key.remove(key);
            if let Some(lease) = self.leases.get_mut(&before) {
                lease.keys.remove(key);
            }
        }
        if let Some(lease) = self.leases.get_mut(&id) {
            let key = Bytes::copy_from_slice(key);
            lease.keys.insert(key.clone());
            self.of_key.insert(key, id);
        }
    }
}
