//! Lease time, kept by the leader alone.
//!
//! Invariants: a lease never expires early: a deadline is set when the grant is applied, the lease is renewed, or this
//! member becomes leader (full TTL again, or what a checkpoint says). Only the leader looks at deadlines, and what it
//! proposes carries its term, so that a deposed leader's proposal does nothing.
//! Not here: what expiry deletes (mvcc), who confirms leadership before a renewal (handle.rs).

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use mvcc::{Applied, Command, Reply, Store};
use parking_lot::Mutex;
use tokio::time::Instant;

/// Leases proposed for expiry in one round. Source: etcd server/lease/lessor.go `leaseRevokeRate` (1000/s, two rounds).
const EXPIRE_PER_ROUND_MAX: usize = 500;
pub(crate) const ROUND_INTERVAL: Duration = Duration::from_millis(500);
/// An expiry that did not come back applied is proposed again after this.
const RETRY_AFTER: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(crate) struct Leases {
    clock: Mutex<Option<Clock>>,
}

/// Exists only while this member leads.
#[derive(Default)]
struct Clock {
    leases: HashMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
}

struct Lease {
    ttl_s: i64,
    deadline: Instant,
    expiring_since: Option<Instant>,
}

/// Granted time and what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRemaining {
    pub granted_ttl_s: i64,
    /// Whole seconds, rounded down.
    pub remaining_s: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead")]
pub(crate) struct NotLeading;

impl Leases {
    /// This member leads now. Called with the store locked, so that no grant slips between.
    pub(crate) fn promote(&self, store: &Store) {
        let now = Instant::now();
        let mut clock = Clock::default();
        for lease in store.leases() {
            let time_s = if lease.remaining_s > 0 { lease.remaining_s.min(lease.ttl_s) } else { lease.ttl_s };
            clock.set(lease.id, lease.ttl_s, now + seconds(time_s));
        }
        *self.clock.lock() = Some(clock);
    }

    pub(crate) fn demote(&self) {
        *self.clock.lock() = None;
    }

    /// What apply did to leases.
    pub(crate) fn observe(&self, command: &Command, applied: &Applied) {
        let Ok(reply) = &applied.result else { return };
        let mut clock = self.clock.lock();
        let Some(clock) = clock.as_mut() else { return };
        match (command, reply) {
            (_, Reply::LeaseGrant(granted)) => {
                clock.set(granted.id, granted.ttl_s, Instant::now() + seconds(granted.ttl_s));
            }
            (_, Reply::LeaseExpire(ids)) => ids.iter().for_each(|id| clock.remove(*id)),
            (Command::LeaseRevoke(revoke), _) => clock.remove(revoke.id),
            _ => {}
        }
    }

    /// Full time again. `None`: there is no such lease, or its time is over.
    pub(crate) fn renew(&self, id: i64) -> Result<Option<i64>, NotLeading> {
        let mut clock = self.clock.lock();
        let clock = clock.as_mut().ok_or(NotLeading)?;
        let now = Instant::now();
        let Some(lease) = clock.leases.get(&id).filter(|lease| lease.deadline > now) else { return Ok(None) };
        let ttl_s = lease.ttl_s;
        clock.set(id, ttl_s, now + seconds(ttl_s));
        Ok(Some(ttl_s))
    }

    pub(crate) fn remaining(&self, id: i64) -> Result<Option<LeaseRemaining>, NotLeading> {
        let clock = self.clock.lock();
        let Some(lease) = clock.as_ref().ok_or(NotLeading)?.leases.get(&id) else { return Ok(None) };
        let left = lease.deadline.saturating_duration_since(Instant::now());
        Ok(Some(LeaseRemaining {
            granted_ttl_s: lease.ttl_s,
            remaining_s: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        }))
    }

    /// Ids whose time is over, for one proposal.
    pub(crate) fn expired(&self) -> Vec<i64> {
        let mut clock = self.clock.lock();
        let Some(clock) = clock.as_mut() else { return Vec::new() };
        let now = Instant::now();
        let over: Vec<i64> = clock.by_deadline.range(..(now, i64::MIN)).map(|(_, id)| *id).collect();
        let mut ids = Vec::new();
        for id in over {
            let Some(lease) = clock.leases.get_mut(&id) else { continue };
            if lease.expiring_since.is_some_and(|since| now.duration_since(since) < RETRY_AFTER) {
                continue;
            }
            lease.expiring_since = Some(now);
            ids.push(id);
            if ids.len() == EXPIRE_PER_ROUND_MAX {
                break;
            }
        }
        ids
    }
}

impl Clock {
    fn set(&mut self, id: i64, ttl_s: i64, deadline: Instant) {
        self.remove(id);
        self.by_deadline.insert((deadline, id));
        self.leases.insert(id, Lease { ttl_s, deadline, expiring_since: None });
    }

    fn remove(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.by_deadline.remove(&(lease.deadline, id));
        }
    }
}

/// The longest lease is 9 000 000 000 s; a clock that cannot count so far stops at about a century.
fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(3_000_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_with(leases: &[(i64, i64)]) -> Leases {
        let mut clock = Clock::default();
        for (id, ttl_s) in leases {
            clock.set(*id, *ttl_s, Instant::now() + seconds(*ttl_s));
        }
        Leases { clock: Mutex::new(Some(clock)) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_expires_at_its_deadline_and_not_before() {
        let leases = clock_with(&[(1, 2), (2, 5)]);
        tokio::time::advance(Duration::from_millis(2_000)).await;
        assert!(leases.expired().is_empty());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(leases.expired(), [1]);
        assert!(leases.expired().is_empty(), "not proposed twice at once");
        tokio::time::advance(RETRY_AFTER).await;
        assert_eq!(leases.expired(), [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_starts_the_time_over_but_does_not_bring_back_the_dead() {
        let leases = clock_with(&[(1, 2)]);
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(leases.renew(1), Ok(Some(2)));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(leases.remaining(1), Ok(Some(LeaseRemaining { granted_ttl_s: 2, remaining_s: 0 })));
        assert!(leases.expired().is_empty());
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(leases.renew(1), Ok(None));
        assert_eq!(leases.renew(9), Ok(None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_is_bounded() {
        let many: Vec<(i64, i64)> = (0..1_200).map(|id| (id, 1)).collect();
        let leases = clock_with(&many);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!([leases.expired().len(), leases.expired().len(), leases.expired().len()], [500, 500, 200]);
    }

    #[test]
    fn a_member_that_does_not_lead_knows_no_deadlines() {
        let leases = clock_with(&[(1, 2)]);
        leases.demote();
        assert_eq!(leases.renew(1), Err(NotLeading));
        assert_eq!(leases.remaining(1), Err(NotLeading));
        assert!(leases.expired().is_empty());
    }
}
