//! Lease time, kept by the leader alone.
//!
//! Invariants: a lease never expires early: a deadline is set when the grant is applied, the lease is renewed, or this
//! member becomes leader (full TTL again, or what a checkpoint says). Only the leader looks at deadlines, and what it
//! proposes carries its term, so that a deposed leader's proposal does nothing. A lease that the log may know a checkpoint
//! of is renewed only with another one that takes it back, and both go into this leader's own log or nowhere, in order
//! (`checkpointing`): otherwise a new leader would count from what was left before the renewal.
//! Not here: what expiry deletes (mvcc), who confirms leadership before a renewal (handle.rs).

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mvcc::{Applied, Command, LEASE_TTL_S_MAX, LeaseRemaining as LeaseCheckpointed, Reply, Store};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::planted::{self, Bug};

/// Leases proposed for expiry in one round. Source: etcd server/lease/lessor.go `leaseRevokeRate` (1000/s, two rounds).
const EXPIRE_PER_ROUND_MAX: usize = 500;
pub(crate) const ROUND_INTERVAL: Duration = Duration::from_millis(500);
/// An expiry that did not come back applied is proposed again after this.
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// Leases in one checkpoint. Source: etcd server/lease/lessor.go `maxLeaseCheckpointBatchSize`.
const CHECKPOINT_LEASES_MAX: usize = 1_000;

#[derive(Default)]
pub(crate) struct Leases {
    clock: Mutex<Option<Clock>>,
    /// How often the log learns what is left of a lease that has more time than this; `None`: never.
    checkpoint_interval: Option<Duration>,
    /// Held from the look at the clock until the checkpoint is handed over, not until it is in the log.
    pub checkpointing: tokio::sync::Mutex<()>,
    /// Checkpoints handed over so far, in all times that this member led.
    checkpoints: AtomicU64,
    /// Leases were removed, or leadership has come or gone.
    pub changed: Notify,
}

/// Exists only while this member leads.
#[derive(Default)]
struct Clock {
    leases: HashMap<i64, Lease>,
    by_deadline: BTreeSet<(Instant, i64)>,
    /// Empty without checkpoints.
    by_checkpoint: BTreeSet<(Instant, i64)>,
    checkpoint_interval: Option<Duration>,
}

struct Lease {
    ttl_s: i64,
    deadline: Instant,
    expiring_since: Option<Instant>,
    checkpoint_at: Option<Instant>,
    /// The log may have a checkpoint of it: which one this leader handed over last, 0 for one of another leader.
    checkpointed: Option<u64>,
}

/// What asking for a renewal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Renewal {
    Renewed(Renewed),
    /// Its time is over, but it is still there: it ends here soon, or begins anew on another leader. Nobody may be told
    /// that it is gone before it is (`Leases::changed`). Source: etcd server/lease/lessor.go `Renew`.
    Over,
    /// There is no such lease.
    Unknown,
}

/// What a renewal did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewed {
    pub ttl_s: i64,
    /// It counts only once the log knows that the last checkpoint is void.
    pub was_checkpointed: bool,
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
    pub(crate) fn new(checkpoint_interval: Option<Duration>) -> Leases {
        Leases { checkpoint_interval, ..Leases::default() }
    }

    /// This member leads now. Called with the store locked, so that no grant slips between.
    pub(crate) fn promote(&self, store: &Store) {
        let now = Instant::now();
        let mut clock = Clock { checkpoint_interval: self.checkpoint_interval, ..Clock::default() };
        for lease in store.leases() {
            let time_s = if lease.remaining_s > 0 { lease.remaining_s.min(lease.ttl_s) } else { lease.ttl_s };
            let time_s = if planted::is(Bug::NoFullTime) { 0 } else { time_s };
            clock.set(lease.id, lease.ttl_s, now + seconds(time_s));
            if lease.remaining_s > 0 {
                clock.checkpointed_by_another(lease.id);
            }
        }
        *self.clock.lock() = Some(clock);
        self.changed.notify_waiters();
    }

    pub(crate) fn demote(&self) {
        *self.clock.lock() = None;
        self.changed.notify_waiters();
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
            (_, Reply::LeaseCheckpoint(leases)) => {
                for LeaseCheckpointed { id, remaining_s } in leases {
                    match remaining_s {
                        0 => clock.voided(*id, 0..=0),
                        _ => clock.checkpointed_by_another(*id),
                    }
                    // A renewal, perhaps of the leader before: this member may have begun with less.
                    if let (0, Some(ttl_s)) = (*remaining_s, clock.leases.get(id).map(|lease| lease.ttl_s)) {
                        clock.set(*id, ttl_s, Instant::now() + seconds(ttl_s));
                    }
                }
            }
            (_, Reply::LeaseExpire(ids)) => {
                ids.iter().for_each(|id| clock.remove(*id));
                self.changed.notify_waiters();
            }
            (Command::LeaseRevoke(revoke), _) => {
                clock.remove(revoke.id);
                self.changed.notify_waiters();
            }
            _ => {}
        }
    }

    /// Full time again.
    pub(crate) fn renew(&self, id: i64) -> Result<Renewal, NotLeading> {
        let mut clock = self.clock.lock();
        let clock = clock.as_mut().ok_or(NotLeading)?;
        let now = Instant::now();
        let Some(lease) = clock.leases.get(&id) else { return Ok(Renewal::Unknown) };
        if lease.deadline <= now {
            return Ok(Renewal::Over);
        }
        let Lease { ttl_s, checkpointed, .. } = *lease;
        clock.set(id, ttl_s, now + seconds(ttl_s));
        Ok(Renewal::Renewed(Renewed { ttl_s, was_checkpointed: checkpointed.is_some() }))
    }

    /// How many checkpoints were handed over. To be asked with `checkpointing` held, before one that takes others back is
    /// handed over: it makes these void, and no later one.
    pub(crate) fn handed_over(&self) -> u64 {
        self.checkpoints.load(Ordering::Relaxed)
    }

    /// The log has one that takes back the first `count` that were handed over. A later one may be on its way already.
    pub(crate) fn voided(&self, id: i64, count: u64) {
        if let Some(clock) = self.clock.lock().as_mut() {
            clock.voided(id, 1..=count);
        }
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

    /// What is left of long leases, for one proposal; those that it names count as checkpointed from now on.
    pub(crate) fn due_checkpoints(&self) -> Vec<LeaseCheckpointed> {
        let mut clock = self.clock.lock();
        let Some(clock) = clock.as_mut() else { return Vec::new() };
        let now = Instant::now();
        let mut due = Vec::new();
        let number = self.checkpoints.fetch_add(1, Ordering::Relaxed) + 1;
        while due.len() < CHECKPOINT_LEASES_MAX
            && let Some((at, id)) = clock.by_checkpoint.first().copied()
            && at <= now
        {
            clock.by_checkpoint.remove(&(at, id));
            let Some(lease) = clock.leases.get_mut(&id) else { continue };
            lease.checkpoint_at = None;
            // Rounded up: a new leader must not give less.
            let left = lease.deadline.saturating_duration_since(now).as_secs_f64().ceil();
            #[allow(clippy::cast_possible_truncation, reason = "a clock's seconds are few")]
            let remaining_s = (left as i64).min(lease.ttl_s);
            if remaining_s > 0 && lease.expiring_since.is_none() {
                lease.checkpointed = Some(number);
                due.push(LeaseCheckpointed { id, remaining_s });
            }
            clock.schedule_checkpoint(id, now);
        }
        due
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
        let checkpointed = self.leases.get(&id).and_then(|lease| lease.checkpointed);
        self.remove(id);
        self.by_deadline.insert((deadline, id));
        let lease = Lease { ttl_s, deadline, expiring_since: None, checkpoint_at: None, checkpointed };
        self.leases.insert(id, lease);
        self.schedule_checkpoint(id, Instant::now());
    }

    fn checkpointed_by_another(&mut self, id: i64) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.checkpointed = lease.checkpointed.or(Some(0));
        }
    }

    fn voided(&mut self, id: i64, which: RangeInclusive<u64>) {
        if let Some(lease) = self.leases.get_mut(&id) {
            lease.checkpointed = lease.checkpointed.filter(|last| !which.contains(last));
        }
    }

    /// Only a lease with more time than the interval is worth it.
    fn schedule_checkpoint(&mut self, id: i64, now: Instant) {
        let (Some(interval), Some(lease)) = (self.checkpoint_interval, self.leases.get_mut(&id)) else {
            return;
        };
        if lease.deadline.saturating_duration_since(now) > interval {
            lease.checkpoint_at = Some(now + interval);
            self.by_checkpoint.insert((now + interval, id));
        }
    }

    fn remove(&mut self, id: i64) {
        if let Some(lease) = self.leases.remove(&id) {
            self.by_deadline.remove(&(lease.deadline, id));
            if let Some(at) = lease.checkpoint_at {
                self.by_checkpoint.remove(&(at, id));
            }
        }
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds.clamp(0, LEASE_TTL_S_MAX)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock_with(leases: &[(i64, i64)]) -> Leases {
        let mut clock = Clock::default();
        for (id, ttl_s) in leases {
            clock.set(*id, *ttl_s, Instant::now() + seconds(*ttl_s));
        }
        Leases { clock: Mutex::new(Some(clock)), ..Leases::default() }
    }

    fn renewed(ttl_s: i64, was_checkpointed: bool) -> Result<Renewal, NotLeading> {
        Ok(Renewal::Renewed(Renewed { ttl_s, was_checkpointed }))
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
        assert_eq!(leases.renew(1), renewed(2, false));
        tokio::time::advance(Duration::from_millis(1_500)).await;
        assert_eq!(leases.remaining(1), Ok(Some(LeaseRemaining { granted_ttl_s: 2, remaining_s: 0 })));
        assert!(leases.expired().is_empty());
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(leases.renew(1), Ok(Renewal::Over), "it is still there");
        assert_eq!(leases.renew(9), Ok(Renewal::Unknown));
        let mut gone = std::pin::pin!(leases.changed.notified());
        assert!(!gone.as_mut().enable());
        let applied = Applied { revision: 1, result: Ok(Reply::LeaseExpire(vec![1])) };
        leases.observe(&Command::LeaseExpire(mvcc::LeaseExpire { ids: vec![1], term: 1 }), &applied);
        gone.await;
        assert_eq!(leases.renew(1), Ok(Renewal::Unknown));
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

    #[tokio::test(start_paused = true)]
    async fn a_long_lease_is_checkpointed_each_interval_and_a_renewal_takes_it_back() {
        let interval = Duration::from_secs(10);
        let leases = clock_with(&[(1, 8)]);
        leases.clock.lock().as_mut().unwrap().checkpoint_interval = Some(interval);
        leases.clock.lock().as_mut().unwrap().set(2, 60, Instant::now() + seconds(60));
        tokio::time::advance(Duration::from_millis(9_900)).await;
        assert!(leases.due_checkpoints().is_empty());
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(leases.due_checkpoints(), [LeaseCheckpointed { id: 2, remaining_s: 50 }], "rounded up");
        assert!(leases.due_checkpoints().is_empty());
        assert_eq!(leases.renew(2), renewed(60, true));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(leases.due_checkpoints(), [LeaseCheckpointed { id: 2, remaining_s: 50 }]);
    }

    /// The one that takes back is applied while the next checkpoint is on its way: a renewal between must be told of it.
    #[tokio::test(start_paused = true)]
    async fn a_checkpoint_behind_one_that_takes_back_is_not_forgotten() {
        let leases = clock_with(&[]);
        leases.clock.lock().as_mut().unwrap().checkpoint_interval = Some(Duration::from_secs(10));
        leases.clock.lock().as_mut().unwrap().set(1, 60, Instant::now() + seconds(60));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(leases.due_checkpoints().len(), 1);
        assert_eq!(leases.renew(1), renewed(60, true));
        let handed_over = leases.handed_over();
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(leases.due_checkpoints().len(), 1, "on its way");
        let taken_back = vec![LeaseCheckpointed { id: 1, remaining_s: 0 }];
        let applied = Applied { revision: 1, result: Ok(Reply::LeaseCheckpoint(taken_back.clone())) };
        leases.observe(&Command::LeaseCheckpoint(mvcc::LeaseCheckpoint { leases: taken_back }), &applied);
        leases.voided(1, handed_over);
        assert_eq!(leases.renew(1), renewed(60, true), "the later one counts from before this renewal");
        leases.voided(1, leases.handed_over());
        assert_eq!(leases.renew(1), renewed(60, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_leader_goes_on_from_the_checkpoint_unless_a_renewal_of_before_comes_late() {
        let mut store = Store::new(mvcc::Limits::default());
        let apply = |store: &mut Store, command: Command| {
            let proposal = mvcc::Proposal { id: 0, member: 1, caller: mvcc::Caller::System, command };
            (store.apply(&mvcc::MemoryRecords::default(), 1, &proposal), proposal.command)
        };
        apply(&mut store, Command::LeaseGrant(mvcc::LeaseGrant { id: 1, ttl_s: 60 }));
        let checkpoint = |remaining_s| {
            Command::LeaseCheckpoint(mvcc::LeaseCheckpoint {
                leases: vec![LeaseCheckpointed { id: 1, remaining_s }],
            })
        };
        apply(&mut store, checkpoint(20));
        let leases = Leases::new(Some(Duration::from_secs(5)));
        leases.promote(&store);
        let left = |leases: &Leases| leases.remaining(1).unwrap().unwrap().remaining_s;
        assert_eq!(left(&leases), 20);
        let (applied, command) = apply(&mut store, checkpoint(0));
        leases.observe(&command, &applied);
        assert_eq!(left(&leases), 60);
        assert_eq!(leases.renew(1), renewed(60, false));
    }
}
