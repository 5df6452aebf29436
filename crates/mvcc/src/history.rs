//! History for watchers: from memory while it is there, else from records, always in whole revisions.
//!
//! Invariants: what is returned is without gaps: a revision that should have records and has none is an error, not
//! silence. Every revision changed something, except that a restored backup may have left some out, up to the revision
//! that it was restored at (`Space::restored`). Not here: who watches what.

use crate::events::{Event, EventBatch, EventKind, EventsBound};
use crate::keys::{KeyValue, Revision};
use crate::record;
use crate::reply::EventsError;
use crate::rows::{Records, RecordsError, ScanBound, Scanned, noted};
use crate::space::Space;
use std::sync::Arc;

/// Records read at a time.
const SCAN: ScanBound = ScanBound { rows_max: 512, size_bytes_max: 1024 * 1024 };

impl Space {
    pub(crate) fn events(
        &self,
        records: &dyn Records,
        from_revision: i64,
        bound: EventsBound,
    ) -> Result<Vec<Arc<EventBatch>>, EventsError> {
        let mut batches = Bounded { bound, size_bytes: 0, batches: Vec::new() };
        // The store begins at revision 1, which changed nothing.
        let from = from_revision.max(2);
        let in_memory_from = self.log.first().unwrap_or(self.revision + 1);
        if from < in_memory_from {
            let compact_revision = self.compaction.scheduled;
            if from_revision < compact_revision {
                return Err(EventsError::Compacted { compact_revision });
            }
            self.read_history(records, from, in_memory_from, &mut batches)?;
        }
        if from <= self.revision {
            for batch in self.log.from(from.max(in_memory_from)) {
                if batches.is_full() {
                    break;
                }
                batches.push(batch.clone());
            }
        }
        Ok(batches.batches)
    }

    /// Reads `from..end` until the bound is reached.
    fn read_history(
        &self,
        records: &dyn Records,
        from: i64,
        end: i64,
        batches: &mut Bounded,
    ) -> Result<(), RecordsError> {
        let mut after = Revision::new(from, -1);
        let mut open = EventBatch { revision: from, events: Vec::new() };
        while open.revision < end && !batches.is_full() {
            let Scanned { rows, is_last, .. } = self.rows_after(records, after, SCAN)?;
            for (revision, bytes) in rows {
                after = revision;
                if revision.main > open.revision {
                    let next = EventBatch { revision: revision.main, events: Vec::new() };
                    self.close(std::mem::replace(&mut open, next), revision.main.min(end), batches)?;
                    if open.revision >= end || batches.is_full() {
                        return Ok(());
                    }
                }
                let record = noted(records, record::decode(revision, &bytes))?;
                let kind = if record.is_delete { EventKind::Delete } else { EventKind::Put };
                open.events.push(Event { kind, kv: record.kv, replaced: None });
            }
            if is_last {
                return self.close(open, end, batches);
            }
        }
        Ok(())
    }

    /// Takes a batch that has all its events; behind it nothing was found below `next`.
    fn close(&self, batch: EventBatch, next: i64, batches: &mut Bounded) -> Result<(), RecordsError> {
        let first_without = batch.revision + i64::from(!batch.events.is_empty());
        let first_missing = first_without.max(self.restored + 1);
        if !batch.events.is_empty() {
            batches.push(Arc::new(batch));
        }
        if first_missing < next {
            return Err(RecordsError::Missing { revision: Revision::new(first_missing, 0) });
        }
        Ok(())
    }

    /// Records behind `after`, from the state file and then from the unflushed layer.
    pub(crate) fn rows_after(
        &self,
        records: &dyn Records,
        after: Revision,
        bound: ScanBound,
    ) -> Result<Scanned, RecordsError> {
        let mut scanned = records.scan(Revision::new(after.main, after.sub + 1), bound)?;
        if scanned.is_last {
            let last = scanned.rows.last().map_or(after, |(revision, _)| *revision);
            scanned.take(self.unflushed.after(last).cloned().map(Ok::<_, RecordsError>), bound)?;
        }
        Ok(scanned)
    }

    /// What the key held before the event; `None` for a creation, or when compaction already took it away.
    pub(crate) fn previous(
        &self,
        records: &dyn Records,
        event: &Event,
    ) -> Result<Option<KeyValue>, RecordsError> {
        if event.kind == EventKind::Put && event.kv.version == 1 {
            return Ok(None);
        }
        let indexed = || {
            let history = self.index.get(&event.kv.key)?;
            history.at(event.kv.mod_revision - 1).filter(|state| state.is_live()).map(|state| state.revision)
        };
        let Some(revision) = event.replaced.or_else(indexed) else { return Ok(None) };
        match self.record(records, revision) {
            Ok(record) => Ok(Some(record.kv)),
            Err(RecordsError::Missing { .. }) if indexed() != Some(revision) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Collects batches up to a bound; the first one always fits.
struct Bounded {
    bound: EventsBound,
    size_bytes: usize,
    batches: Vec<Arc<EventBatch>>,
}

impl Bounded {
    fn is_full(&self) -> bool {
        !self.batches.is_empty()
            && (self.batches.len() >= self.bound.revisions_max
                || self.size_bytes >= self.bound.size_bytes_max)
    }

    fn push(&mut self, batch: Arc<EventBatch>) {
        self.size_bytes += batch.size_bytes();
        self.batches.push(batch);
    }
}
