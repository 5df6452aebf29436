//! The store: everything that the log decides, behind one `apply`.
//!
//! Invariants: `apply` depends on the log alone; index, unflushed layer and event log change together; a refused
//! command changes nothing. After `ApplyError::Records` no row leaves the store any more, so that a change that was
//! cut short cannot reach the disk. Not here: the parts themselves (space.rs, txn.rs, leases.rs, auth.rs, ...).

use crate::auth::{Auth, RoleView, UserView};
use crate::authorize::{Operation, authorize};
use crate::command::*;
use crate::events::{Event, EventBatch, EventLog, EventsBound};
use crate::keys::{KeyValue, Revision};
use crate::leases::Leases;
use crate::meta::{self, MetaRow};
use crate::pieces::RangeCursor;
use crate::reply::*;
use crate::rows::{Records, RecordsError, Row};
use crate::space::Space;
use crate::tokens::{TokenDigest, TokenView};
use crate::txn::ReadPlan;
use crate::work::{Answers, Work};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Bounds of one member. They may differ between members, so nothing that `apply` decides depends on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live bytes above which `has_space_for` says no; 0 is no quota.
    pub quota_bytes: u64,
    /// Newest history kept in memory for watchers.
    pub event_log_size_bytes: usize,
    pub event_log_revisions: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { quota_bytes: 2 << 30, event_log_size_bytes: 64 << 20, event_log_revisions: 100_000 }
    }
}

/// What a put and a grant are charged beside their bytes. Source: etcd server/storage/quota.go.
const PUT_COST_BYTES: u64 = 256;
const LEASE_COST_BYTES: u64 = 64;

pub struct Store {
    pub(crate) space: Space,
    pub(crate) leases: Leases,
    pub(crate) auth: Auth,
    pub(crate) alarms: BTreeSet<AlarmMember>,
    pub(crate) members: BTreeMap<u64, MemberAttributes>,
    pub(crate) cluster_version: Option<String>,
    quota_bytes: u64,
    /// The revision that the state file knows or was told.
    pub(crate) saved_revision: i64,
    /// A read under `apply` failed: the state may hold half a change.
    is_broken: bool,
}

impl Store {
    /// Revision 1, empty.
    pub fn new(limits: Limits) -> Store {
        let log = EventLog::new(limits.event_log_size_bytes, limits.event_log_revisions);
        Store {
            space: Space::new(log),
            leases: Leases::default(),
            auth: Auth::default(),
            alarms: BTreeSet::new(),
            members: BTreeMap::new(),
            cluster_version: None,
            quota_bytes: limits.quota_bytes,
            saved_revision: 0,
            is_broken: false,
        }
    }

    /// Applies the entry of `term` that carries `proposal`. Entries come in log order, each exactly once.
    pub fn apply(&mut self, records: &dyn Records, term: u64, proposal: &Proposal) -> Applied {
        self.apply_for(records, term, proposal, &mut Answers::wanted())
    }

    /// The same where nobody waits for the answer: all changes, and of the answer only what costs nothing.
    pub fn apply_unheard(&mut self, records: &dyn Records, term: u64, proposal: &Proposal) -> Applied {
        self.apply_for(records, term, proposal, &mut Answers::unwanted())
    }

    fn apply_for(
        &mut self,
        records: &dyn Records,
        term: u64,
        proposal: &Proposal,
        answers: &mut Answers,
    ) -> Applied {
        let mut result = self
            .authorize(&proposal.caller, Operation::Command(&proposal.command))
            .map_err(ApplyError::Auth)
            .and_then(|()| self.check_alarms(&proposal.command))
            .and_then(|()| self.execute(records, term, &proposal.command, answers));
        if answers.too_long && result.is_ok() {
            result = Err(ApplyError::AnswerTooLong);
        }
        self.is_broken |= matches!(result, Err(ApplyError::Records(_)));
        self.space.commit();
        Applied { revision: self.space.revision, result }
    }

    fn execute(
        &mut self,
        records: &dyn Records,
        term: u64,
        command: &Command,
        answers: &mut Answers,
    ) -> Result<Reply, ApplyError> {
        Ok(match command {
            Command::Noop => Reply::Noop,
            Command::Put(put) => Reply::Put(self.apply_put(records, put, answers)?),
            Command::DeleteRange(delete) => {
                Reply::DeleteRange(self.run_delete(records, &delete.range, delete.prev_kv, answers)?)
            }
            Command::Txn(txn) => Reply::Txn(self.apply_txn(records, txn, answers)?),
            Command::Compact(compact) => {
                self.space.compact(compact.revision)?;
                self.save(&MetaRow::CompactScheduled(compact.revision));
                Reply::Compact
            }
            Command::LeaseGrant(grant) => {
                let reply = self.leases.grant(grant)?;
                self.save(&MetaRow::Lease { id: reply.id, ttl_s: reply.ttl_s, remaining_s: 0 });
                Reply::LeaseGrant(reply)
            }
            Command::LeaseRevoke(revoke) => {
                if !self.end_lease(revoke.id) {
                    return Err(ApplyError::LeaseNotFound);
                }
                Reply::LeaseRevoke
            }
            Command::LeaseExpire(expire) => Reply::LeaseExpire(self.expire_leases(term, expire)),
            Command::LeaseCheckpoint(checkpoint) => {
                Reply::LeaseCheckpoint(self.checkpoint_leases(checkpoint))
            }
            Command::Alarm(alarm) => Reply::Alarm(self.set_alarm(alarm)),
            Command::Auth(command) => {
                self.auth.apply(command)?;
                if !matches!(command, AuthCommand::Token { .. }) {
                    self.save_auth();
                }
                Reply::Auth
            }
            Command::MemberAttributes(attributes) => {
                self.save(&MetaRow::Member(attributes.clone()));
                self.members.insert(attributes.member, attributes.clone());
                Reply::MemberAttributes
            }
            Command::ClusterVersion(ClusterVersion { version }) => {
                self.save(&MetaRow::ClusterVersion(version.clone()));
                self.cluster_version = Some(version.clone());
                Reply::ClusterVersion
            }
        })
    }

    /// Whether the caller may do this now. `apply` asks it for every command; the edge asks it for all the rest.
    pub fn authorize(&self, caller: &Caller, operation: Operation<'_>) -> Result<(), AuthError> {
        authorize(&self.auth, &self.leases, caller, operation)
    }

    fn check_alarms(&self, command: &Command) -> Result<(), ApplyError> {
        let is_on = |kind| self.alarms.iter().any(|alarm| alarm.kind == kind);
        if self.alarms.is_empty() {
            return Ok(());
        }
        if is_on(AlarmKind::Corrupt) && touches_keys(command) {
            return Err(ApplyError::Corrupt);
        }
        if is_on(AlarmKind::NoSpace) && cost_bytes(command) > 0 {
            return Err(ApplyError::NoSpace);
        }
        Ok(())
    }

    /// Whether the quota has room for what the command adds. If not, the edge refuses it and raises the alarm.
    pub fn has_space_for(&self, command: &Command) -> bool {
        let cost = cost_bytes(command);
        cost == 0 || self.quota_bytes == 0 || self.space.sizes.live_bytes + cost < self.quota_bytes
    }

    pub fn set_quota_bytes(&mut self, quota_bytes: u64) {
        self.quota_bytes = quota_bytes;
    }

    /// Deletes the lease and its keys, in key order, in one revision. False if there is no such lease.
    fn end_lease(&mut self, id: i64) -> bool {
        let Some(keys) = self.leases.remove(id) else { return false };
        self.space.unflushed.delete_meta(meta::lease_key(id));
        self.delete_keys(&keys);
        self.space.commit();
        true
    }

    fn expire_leases(&mut self, term: u64, expire: &LeaseExpire) -> Vec<i64> {
        if expire.term != term {
            return Vec::new();
        }
        expire.ids.iter().copied().filter(|id| self.end_lease(*id)).collect()
    }

    fn checkpoint_leases(&mut self, checkpoint: &LeaseCheckpoint) -> Vec<LeaseRemaining> {
        let mut changed = Vec::new();
        for remaining in &checkpoint.leases {
            let Some(lease) = self.leases.checkpoint(*remaining) else { continue };
            let (id, remaining_s) = (remaining.id, lease.remaining_s);
            let row = MetaRow::Lease { id, ttl_s: lease.ttl_s, remaining_s };
            self.save(&row);
            changed.push(LeaseRemaining { id, remaining_s });
        }
        changed
    }

    fn set_alarm(&mut self, command: &AlarmCommand) -> Vec<AlarmMember> {
        // As in etcd, exactly the alarm that is named; clients list all and clear each.
        let Some(kind) = command.kind else { return Vec::new() };
        let alarm = AlarmMember { member: command.member, kind };
        let is_told = match command.action {
            AlarmAction::Activate => {
                if self.alarms.insert(alarm) {
                    self.save(&MetaRow::Alarm(alarm));
                }
                true
            }
            AlarmAction::Deactivate => {
                let was_on = self.alarms.remove(&alarm);
                if was_on {
                    self.space.unflushed.delete_meta(meta::alarm_key(alarm));
                }
                was_on
            }
        };
        is_told.then_some(alarm).into_iter().collect()
    }

    fn save(&mut self, row: &MetaRow) {
        let (key, value) = row.encode();
        self.space.unflushed.set_meta(key, value);
    }

    fn save_auth(&mut self) {
        self.save(&MetaRow::Auth { enabled: self.auth.enabled, revision: self.auth.revision });
        let changed = std::mem::take(&mut self.auth.changed);
        for name in changed.users {
            match self.auth.users.get(&name).cloned() {
                Some(user) => self.save(&MetaRow::User(name, user)),
                None => self.space.unflushed.delete_meta(meta::user_key(&name)),
            }
        }
        for name in changed.roles {
            match self.auth.roles.get(&name).cloned() {
                Some(role) => self.save(&MetaRow::Role(name, role)),
                None => self.space.unflushed.delete_meta(meta::role_key(&name)),
            }
        }
    }

    /// What must reach the disk since the last call: records ascending, then deletions, then meta rows. The caller
    /// commits all of it in one transaction together with the applied index.
    pub fn take_rows(&mut self) -> Vec<Row> {
        if self.is_broken {
            return Vec::new();
        }
        if self.saved_revision != self.space.revision {
            self.saved_revision = self.space.revision;
            self.save(&MetaRow::Revision(self.saved_revision));
        }
        self.space.unflushed.take_rows()
    }

    /// Records up to `upto` are committed: `Records` answers for them from now on.
    pub fn flushed(&mut self, upto: Revision) {
        self.space.unflushed.flushed(upto);
    }

    /// Removes a bounded part of what compaction made unreachable. True if there is more to do.
    pub fn compact_step(&mut self, keys_max: usize) -> bool {
        if self.space.compact_step(keys_max) {
            self.save(&MetaRow::CompactFinished(self.space.compaction.finished));
        }
        self.space.compaction_pending()
    }

    /// The newest compaction whose garbage is gone; -1 before the first.
    pub fn compacted_physically(&self) -> i64 {
        self.space.compaction.finished
    }

    /// Records that compactions removed since this process has the state.
    pub fn rows_compacted(&self) -> u64 {
        self.space.compaction.rows_dropped
    }

    /// Keys and values that were put since this process has the state, in bytes.
    pub fn put_size_bytes(&self) -> u64 {
        self.space.sizes.put_bytes
    }

    /// Whether garbage of the last compaction is still there physically.
    pub fn compaction_pending(&self) -> bool {
        self.space.compaction_pending()
    }

    /// A read in one piece, for what is known to be small; others are taken with `range_chunk`.
    pub fn range(&self, records: &dyn Records, query: &RangeQuery) -> Result<RangeReply, RangeError> {
        self.read(records, query, &mut Work::new())
    }

    /// The next piece of a long read; empty pieces may come before the cursor is done, while keys are only looked at.
    pub fn range_chunk(
        &self,
        records: &dyn Records,
        cursor: &mut RangeCursor,
        rows_max: usize,
        size_bytes_max: usize,
    ) -> Result<Vec<KeyValue>, RangeError> {
        self.space.range_piece(records, &self.leases, cursor, rows_max, size_bytes_max)
    }

    /// Decides a transaction for which `Txn::is_read_only` holds, without its reads.
    pub fn plan_read_txn(&self, records: &dyn Records, txn: &Txn) -> Result<ReadPlan, RangeError> {
        self.pinned(records, txn)
    }

    /// Answers a transaction for which `Txn::is_read_only` holds, all of it at once: for what is known to be small.
    pub fn read_txn(&self, records: &dyn Records, txn: &Txn) -> Result<TxnReply, RangeError> {
        self.run_read_txn(records, txn)
    }

    /// History from `from_revision` in whole revisions, as much as the bound allows; empty if it lies ahead.
    pub fn events(
        &self,
        records: &dyn Records,
        from_revision: i64,
        bound: EventsBound,
    ) -> Result<Vec<Arc<EventBatch>>, EventsError> {
        self.space.events(records, from_revision, bound)
    }

    /// What the key held before the event; `None` for a creation, or when compaction already took it away.
    pub fn previous(&self, records: &dyn Records, event: &Event) -> Result<Option<KeyValue>, RecordsError> {
        self.space.previous(records, event)
    }

    pub fn revision(&self) -> i64 {
        self.space.revision
    }

    /// -1 before the first compaction, as in etcd.
    pub fn compact_revision(&self) -> i64 {
        self.space.compaction.scheduled
    }

    /// Keys that exist now.
    pub fn key_count(&self) -> usize {
        self.space.live_keys
    }

    /// Records that are reachable at some revision; drops as soon as a compaction is applied.
    pub fn size_bytes_in_use(&self) -> u64 {
        self.space.sizes.live_bytes
    }

    /// Records that are in the state file or on the way there; drops as compaction steps run.
    pub fn size_bytes_allocated(&self) -> u64 {
        self.space.sizes.allocated_bytes
    }

    /// Records that wait for the flusher.
    pub fn unflushed_size_bytes(&self) -> usize {
        self.space.unflushed.size_bytes()
    }

    /// Ids ascending.
    pub fn leases(&self) -> impl Iterator<Item = LeaseTime> + '_ {
        self.leases.times()
    }

    pub fn lease_ttl_s(&self, id: i64) -> Option<i64> {
        self.leases.get(id).map(|lease| lease.ttl_s)
    }

    pub fn lease(&self, id: i64) -> Option<LeaseView> {
        self.leases.view(id)
    }

    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.alarms.iter().copied().collect()
    }

    pub fn member_attributes(&self, member: u64) -> Option<&MemberAttributes> {
        self.members.get(&member)
    }

    pub fn cluster_version(&self) -> Option<&str> {
        self.cluster_version.as_deref()
    }

    pub fn auth_enabled(&self) -> bool {
        self.auth.enabled
    }

    pub fn auth_revision(&self) -> u64 {
        self.auth.revision
    }

    /// `None`: nobody's, or one that this member has not heard of in this life.
    pub fn token(&self, digest: &TokenDigest) -> Option<&TokenView> {
        self.auth.tokens.get(digest)
    }

    /// The serial of the next token.
    pub fn next_token_serial(&self) -> u64 {
        self.auth.tokens.next_serial()
    }

    /// Takes the place of another store on the same member: what only this member counts goes on.
    pub fn succeed(&mut self, former: &Store) {
        self.auth.tokens.begin_at(former.auth.tokens.next_serial());
    }

    /// Sorted.
    pub fn users(&self) -> Vec<String> {
        self.auth.users.keys().cloned().collect()
    }

    pub fn user(&self, name: &str) -> Option<UserView> {
        self.auth.user_view(name)
    }

    /// Sorted.
    pub fn roles(&self) -> Vec<String> {
        self.auth.roles.keys().cloned().collect()
    }

    pub fn role(&self, name: &str) -> Option<RoleView> {
        self.auth.role_view(name)
    }
}

/// What the quota charges for the command; 0 for what never needs space.
fn cost_bytes(command: &Command) -> u64 {
    match command {
        Command::Put(put) => put_cost_bytes(put),
        Command::Txn(txn) => txn_cost_bytes(txn),
        Command::LeaseGrant(_) => LEASE_COST_BYTES,
        Command::Noop
        | Command::DeleteRange(_)
        | Command::Compact(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseExpire(_)
        | Command::LeaseCheckpoint(_)
        | Command::Alarm(_)
        | Command::Auth(_)
        | Command::MemberAttributes(_)
        | Command::ClusterVersion(_) => 0,
    }
}

fn put_cost_bytes(put: &Put) -> u64 {
    PUT_COST_BYTES + put.key.len() as u64 + put.value.len() as u64
}

/// The dearer branch.
fn txn_cost_bytes(txn: &Txn) -> u64 {
    let cost = |ops: &[Op]| -> u64 {
        ops.iter()
            .map(|op| match op {
                Op::Put(put) => put_cost_bytes(put),
                Op::Txn(nested) => txn_cost_bytes(nested),
                Op::Range(_) | Op::DeleteRange(_) => 0,
            })
            .sum()
    };
    cost(&txn.success).max(cost(&txn.failure))
}

/// Whether a corrupt cluster must refuse the command.
fn touches_keys(command: &Command) -> bool {
    match command {
        Command::Put(_)
        | Command::DeleteRange(_)
        | Command::Txn(_)
        | Command::Compact(_)
        | Command::LeaseGrant(_)
        | Command::LeaseRevoke(_)
        | Command::LeaseExpire(_) => true,
        Command::Noop
        | Command::LeaseCheckpoint(_)
        | Command::Alarm(_)
        | Command::Auth(_)
        | Command::MemberAttributes(_)
        | Command::ClusterVersion(_) => false,
    }
}
