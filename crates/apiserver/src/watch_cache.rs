//! The state of every resource at the feed's revision, and the events that led to it.
//!
//! Invariants: per resource, events are in revision order; the state at revision N is the state now with the later
//! events undone, so no snapshots are kept. The history is bounded in events and bytes; whoever wants more gets
//! `TooOld`. A watcher is a cursor into the history: it holds no buffer, so a slow one costs nothing and delays nobody.
//! Locks are held for short, synchronous sections only. Not here: where changes come from (feed.rs).

use std::collections::{HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use apimachinery::kinds::{self, Resource};
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;

use crate::object::Object;

/// Events remembered per resource.
const HISTORY_EVENTS_MAX: usize = 8_192;
/// Stored bytes of the objects that these events hold, per resource.
const HISTORY_BYTES_MAX: usize = 32 << 20;
/// Own writes that may be waiting for their event, per resource; more are decoded like those of others.
const WRITTEN_MAX: usize = 64;
/// Past states kept for lists that are being paged through, per resource.
const PINNED_STATES_MAX: usize = 16;

/// `namespace/name` (or `name`) → object, in the order of the store's keys.
pub(crate) type Objects = OrdMap<Arc<str>, Arc<Object>>;

/// The history no longer reaches back to the revision asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {wanted} ({oldest})")]
pub(crate) struct TooOld {
    pub(crate) wanted: i64,
    pub(crate) oldest: i64,
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct CacheEvent {
    pub(crate) revision: i64,
    pub(crate) item: Arc<str>,
    pub(crate) old: Option<Arc<Object>>,
    pub(crate) new: Option<Arc<Object>>,
    gone: OnceLock<Arc<Object>>,
}

impl CacheEvent {
    /// The last state with the revision of this event: what a DELETED event carries. None for a creation.
    pub(crate) fn gone(&self) -> Option<&Arc<Object>> {
        let old = self.old.as_ref()?;
        Some(self.gone.get_or_init(|| Arc::new(old.at_revision(self.revision))))
    }

    fn size_bytes(&self) -> usize {
        let size = |object: &Option<Arc<Object>>| object.as_ref().map_or(0, |object| object.size_bytes());
        size(&self.old) + size(&self.new)
    }
}

/// An object before and after; None when it was not there.
#[derive(Debug)]
pub(crate) struct ItemChange {
    pub(crate) item: Arc<str>,
    pub(crate) old: Option<Arc<Object>>,
    pub(crate) new: Option<Arc<Object>>,
}

/// A consistent state of one resource.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) objects: Objects,
    pub(crate) revision: i64,
}

impl Snapshot {
    /// Objects of one namespace (or all), from `start` on, in key order.
    pub(crate) fn scan(
        &self,
        namespace: &str,
        start: Option<&str>,
    ) -> impl Iterator<Item = (&Arc<str>, &Arc<Object>)> + use<'_> {
        let prefix = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        let from = match start {
            Some(start) if start > prefix.as_str() => start.to_owned(),
            _ => prefix.clone(),
        };
        self.objects
            .range::<_, str>((Bound::Included(from.as_str()), Bound::Unbounded))
            .take_while(move |(item, _)| item.starts_with(prefix.as_str()))
    }
}

pub(crate) struct WatchCache {
    kinds: HashMap<&'static str, Arc<KindCache>>,
    /// Every change up to here has been applied.
    revision: AtomicI64,
}

impl WatchCache {
    /// One empty cache per stored form.
    pub(crate) fn new() -> WatchCache {
        let mut kinds = HashMap::new();
        for resource in kinds::resources().iter().filter(|resource| !resource.strategy.review) {
            kinds.entry(resource.storage_prefix).or_insert_with(|| Arc::new(KindCache::new()));
        }
        WatchCache { kinds, revision: AtomicI64::new(0) }
    }

    pub(crate) fn kind(&self, resource: &Resource) -> Option<&Arc<KindCache>> {
        self.kinds.get(resource.storage_prefix)
    }

    pub(crate) fn kind_of(&self, storage_prefix: &str) -> Option<&Arc<KindCache>> {
        self.kinds.get(storage_prefix)
    }

    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Called by the feed after all changes up to `revision` have been applied.
    pub(crate) fn advance(&self, revision: i64) {
        self.revision.store(revision, Ordering::Release);
    }

    pub(crate) fn snapshot(&self, kind: &KindCache) -> Snapshot {
        // Read before the state: everything up to here is in it. Changes of this resource that came since are in it too.
        let applied = self.revision();
        let state = kind.state.read();
        Snapshot { objects: state.objects.clone(), revision: applied.max(state.revision) }
    }

    /// The state now and a cursor that continues exactly after it.
    pub(crate) fn snapshot_and_watch(&self, kind: &Arc<KindCache>) -> (Snapshot, Cursor) {
        let applied = self.revision();
        let state = kind.state.read();
        let snapshot = Snapshot { objects: state.objects.clone(), revision: applied.max(state.revision) };
        let next = state.first + state.history.len() as u64;
        drop(state);
        let cursor =
            Cursor { kind: kind.clone(), next, after: snapshot.revision, changed: kind.changed.subscribe() };
        (snapshot, cursor)
    }

    /// The state as it was at `revision`.
    pub(crate) fn snapshot_at(&self, kind: &KindCache, revision: i64) -> Result<Snapshot, TooOld> {
        let applied = self.revision();
        let mut state = kind.state.write();
        if revision >= state.revision && applied.max(state.revision) >= revision {
            return Ok(Snapshot { objects: state.objects.clone(), revision });
        }
        if revision < state.oldest {
            return Err(TooOld { wanted: revision, oldest: state.oldest });
        }
        if let Some((_, objects)) = state.pinned.iter().find(|(at, _)| *at == revision) {
            return Ok(Snapshot { objects: objects.clone(), revision });
        }
        let mut objects = state.objects.clone();
        for event in state.history.iter().rev().take_while(|event| event.revision > revision) {
            match &event.old {
                Some(old) => objects.insert(event.item.clone(), old.clone()),
                None => objects.remove(&event.item),
            };
        }
        if state.pinned.len() >= PINNED_STATES_MAX {
            state.pinned.pop_front();
        }
        state.pinned.push_back((revision, objects.clone()));
        Ok(Snapshot { objects, revision })
    }
}

/// One resource.
pub(crate) struct KindCache {
    state: RwLock<State>,
    /// Sequence number of the next event; watchers wait on it.
    changed: watch::Sender<u64>,
    /// What this server wrote and has not seen come back yet.
    written: Mutex<VecDeque<(Arc<str>, Arc<Object>)>>,
}

struct State {
    objects: Objects,
    /// Revision of the last change of this resource.
    revision: i64,
    history: VecDeque<Arc<CacheEvent>>,
    /// Sequence number of the first event in `history`.
    first: u64,
    size_bytes: usize,
    /// The history holds every event after this revision.
    oldest: i64,
    pinned: VecDeque<(i64, Objects)>,
}

impl KindCache {
    fn new() -> KindCache {
        let state = State {
            objects: Objects::new(),
            revision: 0,
            history: VecDeque::new(),
            first: 0,
            size_bytes: 0,
            oldest: i64::MAX,
            pinned: VecDeque::new(),
        };
        KindCache { state: RwLock::new(state), changed: watch::Sender::new(0), written: Mutex::default() }
    }

    /// Keeps what a write of this server left, so that its answer and the watchers share one object and its encodings.
    pub(crate) fn remember(&self, item: &str, object: &Arc<Object>) {
        if self.state.read().revision >= object.revision() {
            return; // the feed was faster
        }
        let mut written = self.written.lock();
        if written.len() >= WRITTEN_MAX {
            written.pop_front();
        }
        written.push_back((Arc::from(item), object.clone()));
    }

    /// The object that this server wrote at `revision`, once.
    pub(crate) fn recall(&self, item: &str, revision: i64) -> Option<Arc<Object>> {
        let mut written = self.written.lock();
        let at = written
            .iter()
            .position(|(known, object)| known.as_ref() == item && object.revision() == revision)?;
        written.remove(at).map(|(_, object)| object)
    }

    pub(crate) fn get(&self, item: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(item).cloned()
    }

    pub(crate) fn objects(&self) -> Objects {
        self.state.read().objects.clone()
    }

    /// Replaces everything: the state was read anew at `revision`, and what happened before is not known.
    pub(crate) fn reset(&self, objects: Objects, revision: i64) {
        let mut state = self.state.write();
        state.objects = objects;
        state.revision = revision;
        // Cursors that had not read all of it fall before `first` and learn that they are too old.
        state.first += state.history.len() as u64 + 1;
        state.history.clear();
        state.pinned.clear();
        state.size_bytes = 0;
        state.oldest = revision;
        let next = state.first;
        drop(state);
        self.changed.send_replace(next);
    }

    /// All changes of this resource at one revision.
    pub(crate) fn apply(&self, changes: Vec<ItemChange>, revision: i64) {
        let mut state = self.state.write();
        for ItemChange { item, old, new } in changes {
            match &new {
                Some(new) => state.objects.insert(item.clone(), new.clone()),
                None => state.objects.remove(&item),
            };
            let event = CacheEvent { revision, item, old, new, gone: OnceLock::new() };
            state.size_bytes += event.size_bytes();
            state.history.push_back(Arc::new(event));
        }
        state.revision = revision;
        while state.history.len() > HISTORY_EVENTS_MAX || state.size_bytes > HISTORY_BYTES_MAX {
            let Some(event) = state.history.pop_front() else { break };
            state.first += 1;
            state.size_bytes -= event.size_bytes();
            // A revision with several events must not be half remembered.
            state.oldest = event.revision;
        }
        let next = state.first + state.history.len() as u64;
        drop(state);
        self.changed.send_replace(next);
    }

    /// Continues strictly after `revision`, which may lie in the future.
    pub(crate) fn watch_from(self: &Arc<KindCache>, revision: i64) -> Result<Cursor, TooOld> {
        let changed = self.changed.subscribe();
        let state = self.state.read();
        if revision < state.oldest {
            return Err(TooOld { wanted: revision, oldest: state.oldest });
        }
        let skipped = state.history.partition_point(|event| event.revision <= revision);
        let next = state.first + skipped as u64;
        drop(state);
        Ok(Cursor { kind: self.clone(), next, after: revision, changed })
    }
}

/// Where a watcher is.
pub(crate) struct Cursor {
    kind: Arc<KindCache>,
    next: u64,
    /// Only later revisions are delivered; for a watch that starts in the future.
    after: i64,
    changed: watch::Receiver<u64>,
}

impl Cursor {
    /// The next events, at most `events_max`; empty = caught up.
    pub(crate) fn read(&mut self, events_max: usize) -> Result<Vec<Arc<CacheEvent>>, TooOld> {
        self.changed.mark_unchanged();
        let state = self.kind.state.read();
        if self.next < state.first {
            return Err(TooOld { wanted: self.after, oldest: state.oldest });
        }
        let skipped = usize::try_from(self.next - state.first).unwrap_or(usize::MAX);
        let events: Vec<_> = state.history.iter().skip(skipped).take(events_max).cloned().collect();
        drop(state);
        self.next += events.len() as u64;
        let after = self.after;
        if let Some(last) = events.last() {
            self.after = self.after.max(last.revision);
        }
        if events.iter().all(|event| event.revision > after) {
            return Ok(events);
        }
        Ok(events.into_iter().filter(|event| event.revision > after).collect())
    }

    /// Resolves when there may be something new since the last `read`.
    pub(crate) async fn changed(&mut self) {
        if self.changed.changed().await.is_err() {
            // The cache lives as long as the server; its end is seen through the shutdown token.
            std::future::pending::<()>().await;
        }
    }

    /// Everything up to here has been delivered or skipped.
    pub(crate) fn after(&self) -> i64 {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, revision: i64) -> Option<Arc<Object>> {
        Some(Arc::new(Object::new(serde_json::json!({"metadata": {"name": name}}), revision, 10)))
    }

    fn cache() -> (WatchCache, Arc<KindCache>) {
        let cache = WatchCache::new();
        let kind = cache.kinds.get("pods").expect("pods are built in").clone();
        kind.reset(Objects::new(), 10);
        cache.advance(10);
        (cache, kind)
    }

    fn put(cache: &WatchCache, kind: &KindCache, name: &str, revision: i64) {
        let new = object(name, revision);
        kind.apply(vec![ItemChange { item: Arc::from(name), old: kind.get(name), new }], revision);
        cache.advance(revision);
    }

    fn delete(cache: &WatchCache, kind: &KindCache, name: &str, revision: i64) {
        kind.apply(vec![ItemChange { item: Arc::from(name), old: kind.get(name), new: None }], revision);
        cache.advance(revision);
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        snapshot.scan("", None).map(|(item, object)| format!("{item}@{}", object.revision())).collect()
    }

    #[test]
    fn the_state_at_an_earlier_revision_is_the_present_with_later_events_undone() {
        let (cache, kind) = cache();
        put(&cache, &kind, "a/x", 11);
        put(&cache, &kind, "a/y", 12);
        put(&cache, &kind, "a/x", 14);
        delete(&cache, &kind, "a/y", 15);
        let at = |revision| names(&cache.snapshot_at(&kind, revision).unwrap());
        assert_eq!(at(10), Vec::<String>::new());
        assert_eq!(at(11), ["a/x@11"]);
        assert_eq!(at(13), ["a/x@11", "a/y@12"]);
        assert_eq!(at(14), ["a/x@14", "a/y@12"]);
        assert_eq!(at(15), ["a/x@14"]);
        assert_eq!(cache.snapshot_at(&kind, 9).unwrap_err(), TooOld { wanted: 9, oldest: 10 });
    }

    #[test]
    fn a_cursor_sees_every_event_after_its_revision_once_and_in_order() {
        let (cache, kind) = cache();
        put(&cache, &kind, "a", 11);
        put(&cache, &kind, "b", 12);
        let mut cursor = kind.watch_from(11).unwrap();
        put(&cache, &kind, "c", 13);
        let seen = |cursor: &mut Cursor| {
            let events = cursor.read(10).unwrap();
            events.iter().map(|event| event.revision).collect::<Vec<_>>()
        };
        assert_eq!(seen(&mut cursor), [12, 13]);
        assert_eq!(seen(&mut cursor), Vec::<i64>::new());
        delete(&cache, &kind, "c", 14);
        let events = cursor.read(10).unwrap();
        assert_eq!(events[0].gone().unwrap().revision(), 14);
        assert!(events[0].new.is_none());
    }

    #[test]
    fn a_watch_that_starts_in_the_future_stays_silent_until_then() {
        let (cache, kind) = cache();
        let mut cursor = kind.watch_from(12).unwrap();
        put(&cache, &kind, "a", 11);
        put(&cache, &kind, "a", 12);
        assert!(cursor.read(10).unwrap().is_empty());
        put(&cache, &kind, "a", 13);
        assert_eq!(cursor.read(10).unwrap()[0].revision, 13);
    }

    #[test]
    fn a_cursor_that_falls_behind_the_bounded_history_is_told_so() {
        let (cache, kind) = cache();
        let mut slow = kind.watch_from(10).unwrap();
        for step in 0..=(HISTORY_EVENTS_MAX as i64) {
            put(&cache, &kind, "a", 11 + step);
        }
        assert_eq!(slow.read(10).unwrap_err(), TooOld { wanted: 10, oldest: 11 });
        assert!(kind.watch_from(10).is_err());
        assert!(kind.watch_from(11).is_ok());
        assert!(kind.state.read().history.len() <= HISTORY_EVENTS_MAX);
    }

    #[test]
    fn an_own_write_is_recalled_once_and_only_at_its_revision() {
        let (cache, kind) = cache();
        let written = object("a", 11).unwrap();
        kind.remember("d/a", &written);
        assert!(kind.recall("d/a", 12).is_none() && kind.recall("d/b", 11).is_none());
        assert!(Arc::ptr_eq(&kind.recall("d/a", 11).unwrap(), &written));
        assert!(kind.recall("d/a", 11).is_none());
        put(&cache, &kind, "d/a", 12);
        kind.remember("d/a", &written);
        assert!(kind.recall("d/a", 11).is_none(), "the feed was faster");
        for revision in 13..(13 + 2 * WRITTEN_MAX as i64) {
            kind.remember("d/a", &object("a", revision).unwrap());
        }
        assert_eq!(kind.written.lock().len(), WRITTEN_MAX);
    }

    #[test]
    fn a_reset_ends_every_cursor() {
        let (_cache, kind) = cache();
        let mut cursor = kind.watch_from(10).unwrap();
        kind.reset(Objects::new(), 20);
        assert!(cursor.read(10).is_err());
    }

    #[test]
    fn a_namespace_is_scanned_without_its_longer_named_neighbours() {
        let (cache, kind) = cache();
        for (name, revision) in [("a/x", 11), ("a-b/x", 12), ("a/y", 13), ("b/x", 14)] {
            put(&cache, &kind, name, revision);
        }
        let snapshot = cache.snapshot(&kind);
        let items: Vec<_> = snapshot.scan("a", None).map(|(item, _)| item.to_string()).collect();
        assert_eq!(items, ["a/x", "a/y"]);
        let items: Vec<_> = snapshot.scan("a", Some("a/x\0")).map(|(item, _)| item.to_string()).collect();
        assert_eq!(items, ["a/y"]);
    }
}
