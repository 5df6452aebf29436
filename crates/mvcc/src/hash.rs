//! Checksums by which members compare what they hold.
//!
//! Invariants: both depend on the log alone, not on flushes or compaction steps. The state hash covers what is true
//! now, keys, leases, users and all, and reads no record. `hash_kv` covers history too, reads every record, and is the
//! number of an etcd that holds the same history: CRC32C over the name of its bucket, then key and value of each row in
//! the form that etcd stores. Rows at or below the compact revision count as long as they are what `hash_revision` shows;
//! if nothing is alive there, what compaction left counts. One difference: asked for exactly the revision of one of its last
//! compactions, an etcd tells, until it ends, what it noted then about the history before.
//! Source: etcd server/storage/mvcc/hash.go. Not here: who compares.

use bytes::Bytes;

use crate::keys::{KeyRange, KeyValue, Revision};
use crate::meta::MetaRow;
use crate::record::{self, Record};
use crate::reply::{HashKv, RangeError};
use crate::rows::{Records, ScanBound, Scanned, noted};
use crate::store::Store;

/// Records read at a time where nobody waits.
const SCAN: ScanBound = ScanBound { rows_max: 1024, size_bytes_max: 1024 * 1024 };
/// Keys of the index looked at instead of one record.
const KEYS_PER_ROW: usize = 16;

/// The bucket in which etcd keeps records.
const BUCKET: &[u8] = b"key";
/// Behind the revision of a deletion.
const TOMBSTONE: u8 = b't';
/// Protobuf's type of strings and bytes.
const LENGTH_PREFIXED: u8 = 2;

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

    /// Checksum of all records up to `revision` (0: the current one; none up to a negative one) that compaction keeps.
    pub fn hash_kv(&self, records: &dyn Records, revision: i64) -> Result<HashKv, RangeError> {
        let mut cursor = HashCursor::new(revision);
        loop {
            if let Some(hash) = self.hash_kv_step(records, &mut cursor, SCAN)? {
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
        bound: ScanBound,
    ) -> Result<Option<HashKv>, RangeError> {
        let compact_revision = self.space.compaction.scheduled;
        let HashKv { mut hash, hash_revision, .. } = match cursor.begun {
            None => {
                self.space.check_revision(cursor.revision)?;
                let hash_revision = if cursor.revision == 0 { self.space.revision } else { cursor.revision };
                let hash = crc32c::crc32c(BUCKET);
                *cursor.begun.insert(HashKv { hash, compact_revision, hash_revision })
            }
            Some(begun) if begun.compact_revision == compact_revision => begun,
            Some(_) => return Err(RangeError::Compacted),
        };
        let keys_max = bound.rows_max.max(1).saturating_mul(KEYS_PER_ROW);
        let Some(is_alive) = self.anything_alive(cursor, hash_revision, keys_max) else { return Ok(None) };
        let Scanned { rows, mut is_last, .. } = self.space.rows_after(records, cursor.after, bound)?;
        for (revision, bytes) in rows {
            if revision.main > hash_revision {
                is_last = true;
                break;
            }
            cursor.after = revision;
            let record = noted(records, record::decode(revision, &bytes))?;
            let counts = revision.main > compact_revision
                || (self.is_shown(&record, compact_revision)
                    && (!is_alive || self.is_shown(&record, hash_revision)));
            if counts {
                hash = append_row(hash, revision, record.is_delete, &record.kv);
            }
        }
        let told = HashKv { hash, compact_revision, hash_revision };
        cursor.begun = Some(told);
        Ok(is_last.then_some(told))
    }

    /// Whether a read of the record's key at `revision` finds this record.
    fn is_shown(&self, record: &Record, revision: i64) -> bool {
        let newest = self.space.index.get(&record.kv.key).and_then(|history| history.at(revision));
        newest.is_some_and(|state| state.is_live() && state.revision == record.revision)
    }

    /// Whether any key is alive at the revision. Looks at a bounded number of keys and goes on from there when asked
    /// again; `None` when there are more. The first key that is alive ends it.
    fn anything_alive(&self, cursor: &mut HashCursor, revision: i64, keys_max: usize) -> Option<bool> {
        let from = match &cursor.life {
            Life::Known(is_alive) => return Some(*is_alive),
            Life::SoughtFrom(key) => KeyRange::From(key.clone()),
        };
        for (looked, (key, history)) in self.space.index.range(&from).enumerate() {
            if looked == keys_max {
                cursor.life = Life::SoughtFrom(Bytes::copy_from_slice(key));
                return None;
            }
            if history.at(revision).is_some_and(|state| state.is_live()) {
                cursor.life = Life::Known(true);
                return Some(true);
            }
        }
        cursor.life = Life::Known(false);
        Some(false)
    }
}

/// Adds a row as etcd stores it: the revision, marked if it is a deletion's, and `mvccpb.KeyValue`, of which a deletion
/// has the key only.
fn append_row(hash: u32, revision: Revision, is_delete: bool, kv: &KeyValue) -> u32 {
    let mut head = Vec::with_capacity(96);
    head.extend_from_slice(&revision.main.to_be_bytes());
    head.push(b'_');
    head.extend_from_slice(&revision.sub.to_be_bytes());
    if is_delete {
        head.push(TOMBSTONE);
    }
    // A key is never empty.
    head.push(1 << 3 | LENGTH_PREFIXED);
    push_varint(&mut head, kv.key.len() as u64);
    let mut hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &head), &kv.key);
    if is_delete {
        return hash;
    }
    head.clear();
    push_number(&mut head, 2, kv.create_revision);
    push_number(&mut head, 3, kv.mod_revision);
    push_number(&mut head, 4, kv.version);
    if !kv.value.is_empty() {
        head.push(5 << 3 | LENGTH_PREFIXED);
        push_varint(&mut head, kv.value.len() as u64);
    }
    hash = crc32c::crc32c_append(crc32c::crc32c_append(hash, &head), &kv.value);
    head.clear();
    push_number(&mut head, 6, kv.lease);
    crc32c::crc32c_append(hash, &head)
}

/// A field of protobuf; zero is left out.
fn push_number(out: &mut Vec<u8>, field: u8, number: i64) {
    if number != 0 {
        out.push(field << 3);
        push_varint(out, number.cast_unsigned());
    }
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A long checksum, taken in steps.
#[derive(Clone, Debug)]
pub struct HashCursor {
    revision: i64,
    after: Revision,
    /// What was hashed so far; `None` before the first step.
    begun: Option<HashKv>,
    life: Life,
}

/// Whether any key is alive at the revision up to which is hashed.
#[derive(Clone, Debug)]
enum Life {
    SoughtFrom(Bytes),
    Known(bool),
}

impl HashCursor {
    /// Up to `revision`; 0: the one that is current at the first step.
    pub fn new(revision: i64) -> HashCursor {
        HashCursor { revision, after: Revision::default(), begun: None, life: Life::SoughtFrom(Bytes::new()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the rows are those of backup/rows.rs in the store, which a real etcd reads.
    #[test]
    fn a_row_is_hashed_as_etcd_stores_it() {
        let hashed = |row: &[u8]| crc32c::crc32c_append(7, row);
        let kv = KeyValue {
            key: "k".into(),
            value: "value".into(),
            create_revision: 2,
            mod_revision: 300,
            version: 128,
            lease: -1,
        };
        let put = b"\0\0\0\0\0\0\x01\x2c_\0\0\0\0\0\0\0\x01\x0a\x01k\x10\x02\x18\xac\x02\x20\x80\x01\x2a\x05value\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(append_row(7, Revision::new(300, 1), false, &kv), hashed(put));
        let empty = KeyValue { value: Bytes::new(), lease: 0, ..kv.clone() };
        let put = b"\0\0\0\0\0\0\x01\x2c_\0\0\0\0\0\0\0\0\x0a\x01k\x10\x02\x18\xac\x02\x20\x80\x01";
        assert_eq!(append_row(7, Revision::new(300, 0), false, &empty), hashed(put));
        let delete = b"\0\0\0\0\0\0\x01\x2c_\0\0\0\0\0\0\0\0t\x0a\x01k";
        assert_eq!(append_row(7, Revision::new(300, 0), true, &kv), hashed(delete));
    }
}
