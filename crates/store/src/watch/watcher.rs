//! One watch: what it wants, how far it is, and how its answers look.

use mvcc::{Event, EventBatch, EventKind, KeyRange, Records, RecordsError, Store};
use prost::Message as _;
use wire::{etcdserverpb as pb, mvccpb};

use crate::{
    convert,
    gate::{Authorized, WatchRange},
};

/// Events that go into one answer, at about this size, when a watch has much to catch up with.
const ANSWER_SIZE_BYTES: usize = 1024 * 1024;
/// What an event takes in memory beside keys and values.
const EVENT_OVERHEAD_BYTES: usize = 256;

pub(super) struct Watcher {
    pub allowed: Authorized<WatchRange>,
    /// As the client asked; 0 was "from now".
    pub start_revision: i64,
    /// The first revision that was not looked at yet.
    pub next_revision: i64,
    /// Fed by the inbox; otherwise it reads history.
    pub synced: bool,
    pub progress_notify: bool,
    /// Whether it got events since the last progress tick.
    pub active: bool,
    prev_kv: bool,
    fragment: bool,
    puts: bool,
    deletes: bool,
    pending: Pending,
}

/// Events collected for the next answer.
#[derive(Default)]
struct Pending {
    events: Vec<mvccpb::Event>,
    size_bytes: usize,
    revision: i64,
}

impl Watcher {
    pub(super) fn new(
        request: &pb::WatchCreateRequest,
        allowed: Authorized<WatchRange>,
        next_revision: i64,
    ) -> Watcher {
        use pb::watch_create_request::FilterType;
        let filtered = |filter: FilterType| request.filters.contains(&i32::from(filter));
        Watcher {
            allowed,
            start_revision: request.start_revision,
            next_revision,
            synced: false,
            progress_notify: request.progress_notify,
            active: false,
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            puts: !filtered(FilterType::Noput),
            deletes: !filtered(FilterType::Nodelete),
            pending: Pending::default(),
        }
    }

    pub(super) fn range(&self) -> &KeyRange {
        self.allowed.range()
    }

    /// Adds what this watch wants of a batch; the batch's revision counts as looked at. Gives what that takes in memory.
    pub(super) fn collect(
        &mut self,
        store: &Store,
        records: &dyn Records,
        batch: &EventBatch,
    ) -> Result<usize, RecordsError> {
        if batch.revision < self.next_revision {
            return Ok(0);
        }
        let mut size_bytes = 0;
        self.next_revision = batch.revision + 1;
        for event in batch.matching(self.allowed.range()) {
            if !self.wants(event) {
                continue;
            }
            let previous = if self.prev_kv { store.previous(records, event)? } else { None };
            let event_size_bytes =
                event.kv.size_bytes() + previous.as_ref().map_or(0, mvcc::KeyValue::size_bytes);
            size_bytes += event_size_bytes + EVENT_OVERHEAD_BYTES;
            self.pending.size_bytes += event_size_bytes;
            self.pending.events.push(convert::event(event, previous));
            self.pending.revision = batch.revision;
        }
        Ok(size_bytes)
    }

    /// Enough was collected for an answer.
    pub(super) fn is_due(&self) -> bool {
        self.pending.size_bytes >= ANSWER_SIZE_BYTES
    }

    fn wants(&self, event: &Event) -> bool {
        match event.kind {
            EventKind::Put => self.puts,
            EventKind::Delete => self.deletes,
        }
    }

    /// The collected events as one answer, or as several when the client takes fragments. `header` makes a header of
    /// a revision.
    pub(super) fn answers(
        &mut self,
        watch_id: i64,
        fragment_size_bytes: usize,
        header: impl Fn(i64) -> pb::ResponseHeader,
        out: &mut Vec<pb::WatchResponse>,
    ) {
        let Pending { events, size_bytes, revision } = std::mem::take(&mut self.pending);
        if events.is_empty() {
            return;
        }
        self.active = true;
        let answer = |events, fragment| pb::WatchResponse {
            header: Some(header(revision)),
            watch_id,
            events,
            fragment,
            ..Default::default()
        };
        if !self.fragment || size_bytes < fragment_size_bytes {
            out.push(answer(events, false));
            return;
        }
        let mut part = Vec::new();
        let mut part_size_bytes = 0;
        for event in events {
            let event_size_bytes = event.encoded_len();
            if !part.is_empty() && part_size_bytes + event_size_bytes >= fragment_size_bytes {
                out.push(answer(std::mem::take(&mut part), true));
                part_size_bytes = 0;
            }
            part_size_bytes += event_size_bytes;
            part.push(event);
        }
        out.push(answer(part, false));
    }
}
