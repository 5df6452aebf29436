//! Checksums by which members compare what they hold.
//!
//! Invariants: both depend on the log alone, not on flushes or compaction steps. The state hash covers what is true
//! now, keys, leases, users and all, and reads no record; `hash_kv` covers history too and reads every record.
//! Not here: who compares.

use crate::index::is_unreachable;
use crate::keys::Revision;
use crate::meta::MetaRow;
use crate::record;
use crate::reply::{HashKv, RangeError};
use crate::rows::{Records, noted};
use crate::store::Store;

/// Records read at a time.
const SCAN_ROWS: usize = 1024;

/// Spreads every input bit over the output (the finalizer of splitmix64).
pub(crate) fn scramble(mut number: u64) -> u64 {
    number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Store {
    /// Equal on members that applied the same entries. Its cost grows with leases and users, not with keys.
    pub fn state_hash(&self) -> u64 {
        let mut hash = self.space.live_hash;
        let mut add = |row: MetaRow| {
            let (key, value) = row.encode();
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&key), &value);
            hash = scramble(hash ^ (u64::from(checksum) << 32 | key.len() as u64));
        };
        add(MetaRow::Revision(self.space.revision));
        add(MetaRow::CompactScheduled(self.space.compaction.scheduled));
        for (id, lease) in self.leases.iter() {
            add(MetaRow::Lease { id, ttl_s: lease.ttl_s, remaining_s: lease.remaining_s });
        }
        self.alarms.iter().for_each(|alarm| add(MetaRow::Alarm(*alarm)));
        add(MetaRow::Auth { enabled: self.auth.enabled, revision: self.auth.revision });
        self.auth.users.iter().for_each(|(name, user)| add(MetaRow::User(name.clone(), user.clone())));
        self.auth.roles.iter().for_each(|(name, role)| add(MetaRow::Role(name.clone(), role.clone())));
        self.members.values().for_each(|attributes| add(MetaRow::Member(attributes.clone())));
        self.cluster_version.iter().for_each(|version| add(MetaRow::ClusterVersion(version.clone())));
        hash
    }

    /// Checksum of all records up to `revision` (0 or less: the current one) that compaction keeps.
    pub fn hash_kv(&self, records: &dyn Records, revision: i64) -> Result<HashKv, RangeError> {
        let mut cursor = HashCursor::new(revision);
        loop {
            if let Some(hash) = self.hash_kv_step(records, &mut cursor, SCAN_ROWS)? {
                return Ok(hash);
            }
        }
    }

    /// The same in steps, so that a big store can go on in between. `Compacted` when a compaction came in between:
    /// the caller begins again.
    pub fn hash_kv_step(
        &self,
        records: &dyn Records,
        cursor: &mut HashCursor,
        rows_max: usize,
    ) -> Result<Option<HashKv>, RangeError> {
        let compact_revision = self.space.compaction.scheduled;
        let HashKv { mut hash, hash_revision, .. } = match cursor.begun {
            None => {
                self.space.check_revision(cursor.revision)?;
                let hash_revision = if cursor.revision > 0 { cursor.revision } else { self.space.revision };
                *cursor.begun.insert(HashKv { hash: 0, compact_revision, hash_revision })
            }
            Some(begun) if begun.compact_revision == compact_revision => begun,
            Some(_) => return Err(RangeError::Compacted),
        };
        let rows = self.space.rows_after(records, cursor.after, rows_max.max(1))?;
        let mut is_last = rows.len() < rows_max.max(1);
        for (revision, bytes) in rows {
            if revision.main > hash_revision {
                is_last = true;
                break;
            }
            cursor.after = revision;
            let record = noted(records, record::decode(revision, &bytes))?;
            if revision.main > compact_revision || self.is_kept(&record.kv.key, revision) {
                hash = crc32c::crc32c_append(hash, &bytes);
            }
        }
        let told = HashKv { hash, compact_revision, hash_revision };
        cursor.begun = Some(told);
        Ok(is_last.then_some(told))
    }

    /// Whether the record, which is at or below the compact revision, is still reachable.
    fn is_kept(&self, key: &[u8], revision: Revision) -> bool {
        let compact_revision = self.space.compaction.scheduled;
        let newest = self.space.index.get(key).and_then(|history| history.at(compact_revision));
        newest
            .is_some_and(|state| state.revision == revision && !is_unreachable(state, None, compact_revision))
    }
}

/// A long checksum, taken in steps.
#[derive(Clone, Debug)]
pub struct HashCursor {
    revision: i64,
    after: Revision,
    /// What was hashed so far; `None` before the first step.
    begun: Option<HashKv>,
}

impl HashCursor {
    /// Up to `revision`; 0 or less: the one that is current at the first step.
    pub fn new(revision: i64) -> HashCursor {
        HashCursor { revision, after: Revision::default(), begun: None }
    }
}
