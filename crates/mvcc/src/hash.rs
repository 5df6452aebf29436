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
use crate::rows::{Records, RecordsError};
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
        self.space.check_revision(revision)?;
        let hash_revision = if revision > 0 { revision } else { self.space.revision };
        let compact_revision = self.space.compaction.scheduled;
        let mut hash = 0;
        let mut after = Revision::default();
        loop {
            let rows = self.space.rows_after(records, after, SCAN_ROWS)?;
            let is_last = rows.len() < SCAN_ROWS;
            for (revision, bytes) in rows {
                if revision.main > hash_revision {
                    return Ok(HashKv { hash, compact_revision, hash_revision });
                }
                after = revision;
                let record = record::decode(revision, &bytes)?;
                if revision.main > compact_revision || self.is_kept(&record.kv.key, revision)? {
                    hash = crc32c::crc32c_append(hash, &bytes);
                }
            }
            if is_last {
                return Ok(HashKv { hash, compact_revision, hash_revision });
            }
        }
    }

    /// Whether the record, which is at or below the compact revision, is still reachable.
    fn is_kept(&self, key: &[u8], revision: Revision) -> Result<bool, RecordsError> {
        let compact_revision = self.space.compaction.scheduled;
        let newest = self.space.index.get(key).and_then(|history| history.at(compact_revision));
        Ok(newest.is_some_and(|state| {
            state.revision == revision && !is_unreachable(state, None, compact_revision)
        }))
    }
}
