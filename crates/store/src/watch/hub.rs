//! Hands each new batch of events to the streams that watch a key in it, and to no other.
//!
//! Invariants: one task reads the event log, in order; `published` moves only after every matching stream has the
//! batch in its inbox, so a stream that looks at `published` first and empties its inbox afterwards has seen everything
//! up to it. Both happen while the register is held: a watch that is added is either in time for a batch, or its stream
//! finds that the batch is published and reads history. An inbox that is full forgets its content and says so: the stream reads history instead, nobody waits.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use mvcc::{EventBatch, EventsBound, EventsError, KeyRange};
use parking_lot::Mutex;
use replica::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::register::Register;

/// What one look at the event log may take.
const READ: EventsBound = EventsBound { revisions_max: 1000, size_bytes_max: 4 * 1024 * 1024 };
/// Content of an inbox, with who wants what; above either, the stream falls behind.
pub(crate) const INBOX_ENTRIES_MAX: usize = 4096;
const INBOX_SIZE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// One batch with the watches of the stream that want something of it, ascending.
pub(crate) struct Entry {
    pub batch: Arc<EventBatch>,
    pub watches: Vec<i64>,
}

/// What a stream finds when it wakes.
pub(crate) enum Mail {
    Entries(VecDeque<Entry>),
    /// Batches up to this revision, at most, were lost since the last look.
    Behind {
        lost_upto: i64,
    },
}

/// Where the hub puts what a stream wants.
pub(crate) struct Inbox {
    content: Mutex<Content>,
    entries_max: usize,
    pub wake: Notify,
    /// Watches of the stream that read history.
    pub behind: AtomicUsize,
}

/// What watching amounts to at one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Load {
    pub streams: u64,
    pub watches: usize,
    /// That read history, or will have to.
    pub watches_behind: usize,
    /// Batches of events that wait to be taken, counted for each watch that wants something of them.
    pub waiting: usize,
}

#[derive(Default)]
struct Content {
    entries: VecDeque<Entry>,
    size_bytes: usize,
    /// Set while batches are lost: the last lost revision.
    lost_upto: Option<i64>,
}

impl Inbox {
    pub(crate) fn new(entries_max: usize) -> Inbox {
        Inbox { content: Mutex::default(), entries_max, wake: Notify::new(), behind: AtomicUsize::new(0) }
    }

    /// Takes everything.
    pub(crate) fn take(&self) -> Mail {
        let mut content = self.content.lock();
        content.size_bytes = 0;
        let entries = std::mem::take(&mut content.entries);
        match content.lost_upto.take() {
            Some(lost_upto) => Mail::Behind { lost_upto },
            None => Mail::Entries(entries),
        }
    }

    fn push(&self, batch: &Arc<EventBatch>, watch_id: i64) {
        let mut content = self.content.lock();
        if content.lost_upto.is_some() {
            content.lose(batch.revision);
            return;
        }
        if let Some(last) = content.entries.back_mut()
            && last.batch.revision == batch.revision
        {
            if let Err(place) = last.watches.binary_search(&watch_id) {
                last.watches.insert(place, watch_id);
                content.size_bytes += size_of::<i64>();
            }
            if content.size_bytes > INBOX_SIZE_BYTES_MAX {
                content.lose(batch.revision);
            }
            return;
        }
        content.size_bytes += batch.size_bytes() + size_of::<i64>();
        if content.entries.len() >= self.entries_max || content.size_bytes > INBOX_SIZE_BYTES_MAX {
            content.lose(batch.revision);
        } else {
            content.entries.push_back(Entry { batch: batch.clone(), watches: vec![watch_id] });
        }
        self.wake.notify_one();
    }

    fn fall_behind(&self, upto: i64) {
        self.content.lock().lose(upto);
        self.wake.notify_one();
    }
}

impl Content {
    fn lose(&mut self, upto: i64) {
        self.entries = VecDeque::new();
        self.lost_upto = Some(self.lost_upto.map_or(upto, |before| before.max(upto)));
    }
}

/// Who watches, and how far everybody has been told.
pub(crate) struct Hub {
    register: Mutex<Register<Arc<Inbox>>>,
    streams: AtomicU64,
    open_streams: AtomicU64,
    published: watch::Sender<i64>,
}

impl Hub {
    pub(crate) fn new(revision: i64) -> Hub {
        Hub {
            register: Mutex::default(),
            streams: AtomicU64::new(0),
            open_streams: AtomicU64::new(0),
            published: watch::channel(revision).0,
        }
    }

    /// A number for whoever listens as a stream does.
    pub(crate) fn stream_id(&self) -> u64 {
        self.streams.fetch_add(1, Relaxed)
    }

    /// A number for a client's stream, which says when it ends.
    pub(crate) fn begin_stream(&self) -> u64 {
        self.open_streams.fetch_add(1, Relaxed);
        self.stream_id()
    }

    pub(crate) fn end_stream(&self) {
        self.open_streams.fetch_sub(1, Relaxed);
    }

    /// Everything up to this revision is in the inboxes.
    pub(crate) fn published(&self) -> watch::Receiver<i64> {
        self.published.subscribe()
    }

    pub(crate) fn add(&self, stream: u64, watch_id: i64, range: &KeyRange, inbox: &Arc<Inbox>) {
        self.register.lock().add((stream, watch_id), range, inbox.clone());
    }

    pub(crate) fn remove(&self, stream: u64, watch_id: i64, range: &KeyRange) {
        self.register.lock().remove((stream, watch_id), range);
    }

    pub(crate) fn load(&self) -> Load {
        // Watches by their stream's inbox.
        let mut inboxes: BTreeMap<usize, (usize, Arc<Inbox>)> = BTreeMap::new();
        for inbox in self.register.lock().values() {
            inboxes.entry(Arc::as_ptr(inbox).addr()).or_insert_with(|| (0, inbox.clone())).0 += 1;
        }
        let mut load = Load { streams: self.open_streams.load(Relaxed), ..Load::default() };
        for (watches, inbox) in inboxes.into_values() {
            let content = inbox.content.lock();
            load.watches += watches;
            load.watches_behind += match content.lost_upto {
                Some(_) => watches,
                None => inbox.behind.load(Relaxed).min(watches),
            };
            load.waiting += content.entries.iter().map(|entry| entry.watches.len()).sum::<usize>();
        }
        load
    }

    /// Follows the event log until shutdown.
    pub(crate) async fn run(&self, handle: Handle, shutdown: CancellationToken) {
        let mut revisions = handle.revision_watch();
        loop {
            while self.step(&handle) {
                tokio::task::yield_now().await;
            }
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Hands out what is new, a bounded part of it; true when there may be more.
    fn step(&self, handle: &Handle) -> bool {
        let published = *self.published.borrow();
        let (found, current) =
            handle.read(|store, records| (store.events(records, published + 1, READ), store.revision()));
        self.pass_on(found, current)
    }

    fn pass_on(&self, found: Result<Vec<Arc<EventBatch>>, EventsError>, current: i64) -> bool {
        match found {
            Ok(batches) => {
                // Without a batch there is nothing up to the current revision: a restored store may begin so.
                let upto = batches.last().map_or(current, |last| last.revision);
                self.hand_out(&batches, upto);
                upto < current
            }
            // A snapshot was installed over revisions that are compacted by now: each stream must see for itself.
            Err(EventsError::Compacted { .. }) => {
                self.fall_behind(current);
                true
            }
            // So it must here: a stream that wants what cannot be read ends, the others go on.
            Err(EventsError::Records(error)) => {
                tracing::error!(%error, "events cannot be read");
                self.fall_behind(current);
                true
            }
        }
    }

    /// Puts the batches into the inboxes that want them; everything up to `upto` is published with that.
    fn hand_out(&self, batches: &[Arc<EventBatch>], upto: i64) {
        let register = self.register.lock();
        for batch in batches {
            for event in &batch.events {
                register.matching(&event.kv.key, |(_, watch_id), inbox| inbox.push(batch, watch_id));
            }
        }
        self.publish(&register, upto);
    }

    /// Nobody gets anything up to `upto` from here.
    fn fall_behind(&self, upto: i64) {
        let register = self.register.lock();
        for inbox in register.values() {
            inbox.fall_behind(upto);
        }
        self.publish(&register, upto);
    }

    /// Takes the register as the proof that nobody is added meanwhile.
    fn publish(&self, _held: &Register<Arc<Inbox>>, upto: i64) {
        self.published.send_if_modified(|published| {
            let moves = upto > *published;
            *published = upto.max(*published);
            moves
        });
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future as _,
        pin::pin,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        task::{Context, Wake, Waker},
    };

    use mvcc::{
        Applied, Caller, Command, Limits, MemoryRecords, Proposal, Put, RecordsError, Revision, Store,
    };

    use super::*;

    /// The batches of so many puts of one key, from revision 2 on.
    fn puts(count: usize) -> Vec<Arc<EventBatch>> {
        let (mut store, records) = (Store::new(Limits::default()), MemoryRecords::default());
        for id in 0..count {
            let command = Command::Put(Put { key: "k".into(), ..Put::default() });
            let proposal = Proposal { id: id as u64, member: 1, caller: Caller::System, command };
            let Applied { result, .. } = store.apply(&records, 1, &proposal);
            result.unwrap();
        }
        store.events(&records, 2, EventsBound { revisions_max: count, size_bytes_max: usize::MAX }).unwrap()
    }

    fn key() -> KeyRange {
        KeyRange::Key("k".into())
    }

    /// Looks, at the moment at which `published` moves, whether a watch could be added.
    struct Probe {
        hub: Arc<Hub>,
        woken: AtomicBool,
        register_was_free: AtomicBool,
    }

    impl Wake for Probe {
        fn wake(self: Arc<Self>) {
            self.woken.store(true, SeqCst);
            self.register_was_free.fetch_or(self.hub.register.try_lock().is_some(), SeqCst);
        }
    }

    #[test]
    fn no_watch_is_added_between_a_batch_and_its_publication() {
        let missing = || EventsError::Records(RecordsError::Missing { revision: Revision::new(2, 0) });
        let steps = [Ok(puts(1)), Err(EventsError::Compacted { compact_revision: 9 }), Err(missing())];
        for (found, current) in steps.into_iter().zip([2, 10, 20]) {
            let hub = Arc::new(Hub::new(1));
            let inbox = Arc::new(Inbox::new(INBOX_ENTRIES_MAX));
            hub.add(0, 0, &key(), &inbox);
            let flags = || AtomicBool::new(false);
            let probe = Arc::new(Probe { hub: hub.clone(), woken: flags(), register_was_free: flags() });
            let mut published = hub.published();
            let mut moved = pin!(published.changed());
            let waker = Waker::from(probe.clone());
            assert!(moved.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            hub.pass_on(found, current);
            assert!(probe.woken.load(SeqCst), "published");
            assert!(!probe.register_was_free.load(SeqCst), "a watch added here hears of nothing");
            assert_eq!(*hub.published().borrow(), current);
        }
    }

    #[test]
    fn what_cannot_be_read_is_left_to_each_stream() {
        let hub = Hub::new(1);
        let inbox = Arc::new(Inbox::new(INBOX_ENTRIES_MAX));
        hub.add(0, 0, &key(), &inbox);
        let missing = RecordsError::Missing { revision: Revision::new(2, 0) };
        assert!(hub.pass_on(Err(missing.into()), 7), "later events may be readable");
        assert!(matches!(inbox.take(), Mail::Behind { lost_upto: 7 }));
        assert!(!hub.pass_on(Ok(Vec::new()), 9), "nothing up to 9");
        assert_eq!(*hub.published().borrow(), 9);
    }

    #[test]
    fn an_inbox_is_bounded_however_many_watches_want_a_batch() {
        let hub = Hub::new(1);
        let inbox = Arc::new(Inbox::new(INBOX_ENTRIES_MAX));
        for watch_id in 0..10_000 {
            hub.add(0, watch_id, &key(), &inbox);
        }
        hub.pass_on(Ok(puts(200)), 201);
        assert!(inbox.content.lock().size_bytes <= INBOX_SIZE_BYTES_MAX + 1024);
        assert!(matches!(inbox.take(), Mail::Behind { lost_upto: 201 }), "16 MB of numbers");
        hub.pass_on(Ok(puts(2)), 203);
        let Mail::Entries(entries) = inbox.take() else { panic!("two batches fit") };
        assert_eq!(entries.iter().map(|entry| entry.watches.len()).sum::<usize>(), 20_000);
    }
}
