//! Building a store from the rows of a state file or a snapshot.
//!
//! Invariants: what `take_rows` gave out, in any number of calls, restores to a store with the same answers and the
//! same state hash; every record is verified on the way in; the revision never lies below a record or a scheduled
//! compaction; an interrupted compaction starts over. Not here: where rows come from.

use crate::encoding::DecodeError;
use crate::keys::Revision;
use crate::meta::MetaRow;
use crate::record;
use crate::rows::RecordsError;
use crate::store::{Limits, Store};
use bytes::Bytes;

/// Why rows do not make a store. The member must not start from them.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Records(#[from] RecordsError),
    #[error("meta row {key:?} is damaged")]
    Meta { key: Bytes, source: DecodeError },
    #[error("record {revision} comes after record {previous}")]
    Order { previous: Revision, revision: Revision },
    #[error("record {record} and compaction {compacted} do not fit to revision {revision}")]
    Revision { record: Revision, compacted: i64, revision: i64 },
}

impl Store {
    /// `meta` in any order, `records` ascending. No rows at all make a new store.
    pub fn restore(
        limits: Limits,
        meta: impl Iterator<Item = Result<(Bytes, Bytes), RecordsError>>,
        records: impl Iterator<Item = Result<(Revision, Bytes), RecordsError>>,
    ) -> Result<Store, RestoreError> {
        let mut store = Store::new(limits);
        for row in meta {
            let (key, value) = row?;
            match MetaRow::decode(&key, value) {
                Ok(row) => store.load_meta(row),
                Err(source) => return Err(RestoreError::Meta { key, source }),
            }
        }
        store.auth.refresh_all();
        store.space.sizes.compacted(store.space.compaction.scheduled);
        let mut previous = Revision::default();
        for row in records {
            let (revision, bytes) = row?;
            if revision <= previous {
                return Err(RestoreError::Order { previous, revision });
            }
            previous = revision;
            store.load_record(revision, &bytes)?;
        }
        let (revision, compacted) = (store.space.revision, store.space.compaction.scheduled);
        if previous.main > revision || compacted > revision {
            return Err(RestoreError::Revision { record: previous, compacted, revision });
        }
        Ok(store)
    }

    fn load_meta(&mut self, row: MetaRow) {
        match row {
            MetaRow::Revision(revision) => {
                self.space.revision = revision;
                self.saved_revision = revision;
            }
            MetaRow::Restored(revision) => self.space.restored = revision,
            MetaRow::CompactScheduled(revision) => self.space.compaction.scheduled = revision,
            MetaRow::CompactFinished(revision) => self.space.compaction.finished = revision,
            MetaRow::Lease { id, ttl_s, remaining_s } => self.leases.load(id, ttl_s, remaining_s),
            MetaRow::Alarm(alarm) => {
                self.alarms.insert(alarm);
            }
            MetaRow::Auth { enabled, revision } => {
                self.auth.enabled = enabled;
                self.auth.revision = revision;
            }
            MetaRow::User(name, user) => {
                self.auth.users.insert(name, user);
            }
            MetaRow::Role(name, role) => {
                self.auth.roles.insert(name, role);
            }
            MetaRow::Member(attributes) => {
                self.members.insert(attributes.member, attributes);
            }
            MetaRow::ClusterVersion(version) => self.cluster_version = Some(version),
        }
    }

    fn load_record(&mut self, revision: Revision, bytes: &Bytes) -> Result<(), RecordsError> {
        let damaged = |reason| RecordsError::Damaged { revision, reason };
        let record = record::decode(revision, bytes)?;
        let size_bytes = u32::try_from(bytes.len()).map_err(|_| damaged("longer than 4 GiB"))?;
        if revision.main < 0 || u32::try_from(revision.sub).is_err() {
            return Err(damaged("revision is not possible"));
        }
        if record.is_delete != (record.kv.version == 0) {
            return Err(damaged("version does not fit to the kind"));
        }
        self.space.load(&record, size_bytes);
        self.leases.attach(&record.kv.key, record.kv.lease);
        Ok(())
    }
}
