//! The one watch on the store from which every state of this server comes.
//!
//! Invariants: all changes are applied in revision order, those of one revision together, and `revision()` moves only
//! after the cache and every `Reader` have seen them. A broken watch resumes after the last revision seen. A compacted
//! or inconsistent one reads the whole range anew: readers then get the differences, and watchers of the cache are told
//! that they are too old. Not here: what the cache keeps (watch_cache.rs), the store's own revision (store_revision.rs).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use apimachinery::kinds::{self, Resource};
use bytes::Bytes;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use wire::etcdserverpb as pb;
use wire::mvccpb;

use crate::object::Object;
use crate::storage::{ReadError, Storage, Stored};
use crate::watch_cache::{ItemChange, KindCache, Objects, WatchCache};

/// How often progress is asked for while someone waits. Source: upstream cacher/progress (100 ms).
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
const RETRY_MIN: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// One object changed.
pub(crate) struct Change {
    /// The row that owns the stored form; `None` is reserved for kinds without a row.
    pub(crate) resource: Option<&'static Resource>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// What it is now; `None` when it was deleted.
    pub(crate) new: Option<Arc<Object>>,
}

/// Something whose state follows the store: it is told every change in revision order, from the feed's task.
pub(crate) trait Reader: Send + Sync {
    fn observe(&self, change: &Change);
}

pub(crate) struct Feed {
    storage: Storage,
    cache: Arc<WatchCache>,
    readers: Vec<Arc<dyn Reader>>,
    revision: watch::Sender<i64>,
    waiting: AtomicUsize,
    ask_progress: Notify,
}

/// Why a watch ended.
enum Ended {
    Shutdown,
    /// The state must be read anew.
    Stale(String),
    /// The connection or the member went away; the watch can resume.
    Broken(String),
}

struct Waiter<'a>(&'a Feed);

impl<'a> Waiter<'a> {
    fn new(feed: &'a Feed) -> Waiter<'a> {
        feed.waiting.fetch_add(1, Ordering::SeqCst);
        feed.ask_progress.notify_one();
        Waiter(feed)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What was decoded of one revision, per stored form.
type Batch = BTreeMap<&'static str, Vec<ItemChange>>;

impl Feed {
    pub(crate) fn new(storage: Storage, cache: Arc<WatchCache>, readers: Vec<Arc<dyn Reader>>) -> Arc<Feed> {
        Arc::new(Feed {
            storage,
            cache,
            readers,
            revision: watch::Sender::new(0),
            waiting: AtomicUsize::new(0),
            ask_progress: Notify::new(),
        })
    }

    /// Everything up to here has been seen by the cache and all readers; 0 before the first read.
    pub(crate) fn revision(&self) -> i64 {
        *self.revision.borrow()
    }

    /// Waits until `revision` has been seen; false when the deadline came first.
    pub(crate) async fn wait(&self, revision: i64, deadline: Instant) -> bool {
        if self.revision() >= revision {
            return true;
        }
        let mut seen = self.revision.subscribe();
        let _waiter = Waiter::new(self);
        matches!(tokio::time::timeout_at(deadline, seen.wait_for(|seen| *seen >= revision)).await, Ok(Ok(_)))
    }

    /// Resolves each time the feed has moved.
    pub(crate) fn subscribe(&self) -> watch::Receiver<i64> {
        self.revision.subscribe()
    }

    /// Follows the store until shutdown.
    pub(crate) async fn run(self: Arc<Feed>, shutdown: CancellationToken) {
        let mut retry = RETRY_MIN;
        let mut stale = true;
        loop {
            let before = self.revision();
            let ended = if stale {
                match self.resync(&shutdown).await {
                    Ok(()) => {
                        stale = false;
                        continue;
                    }
                    Err(ended) => ended,
                }
            } else {
                self.follow(&shutdown).await
            };
            if self.revision() > before {
                retry = RETRY_MIN;
            }
            match ended {
                Ended::Shutdown => return,
                Ended::Stale(reason) => {
                    tracing::warn!(revision = before, reason, "reading the whole state again");
                    stale = true;
                }
                Ended::Broken(reason) => {
                    tracing::warn!(revision = before, reason, "watch on the store ended")
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(retry) => {}
            }
            retry = (retry * 2).min(RETRY_MAX);
        }
    }

    /// Reads every object at one revision, and tells readers what differs from what they know.
    async fn resync(&self, shutdown: &CancellationToken) -> Result<(), Ended> {
        let root = self.storage.root();
        let read = tokio::select! {
            () = shutdown.cancelled() => return Err(Ended::Shutdown),
            read = self.storage.list(&root, 0) => read,
        };
        let page = read.map_err(|error| match error {
            ReadError::Compacted => Ended::Stale("the range was compacted while it was read".to_owned()),
            other => Ended::Broken(other.to_string()),
        })?;
        let mut found: HashMap<&'static str, Objects> = HashMap::new();
        for (key, stored) in page.rows {
            let Some((resource, item)) = self.parse(&key) else { continue };
            let Some(object) = self.decode(&key, &stored) else { continue };
            found.entry(resource.storage_prefix).or_default().insert(item, object);
        }
        for (resource, kind) in self.stored_kinds() {
            let objects = found.remove(resource.storage_prefix).unwrap_or_default();
            self.replace(resource, kind, objects, page.revision);
        }
        self.publish(page.revision);
        tracing::debug!(revision = page.revision, "state read");
        Ok(())
    }

    fn replace(&self, resource: &'static Resource, kind: &KindCache, objects: Objects, revision: i64) {
        let before = kind.objects();
        let mut told = Vec::new();
        for (item, new) in &objects {
            if before.get(item).is_none_or(|old| old.revision() != new.revision()) {
                told.push(change(resource, item, Some(new.clone())));
            }
        }
        for item in before.keys().filter(|item| !objects.contains_key(*item)) {
            told.push(change(resource, item, None));
        }
        kind.reset(objects, revision);
        for change in &told {
            self.readers.iter().for_each(|reader| reader.observe(change));
        }
    }

    /// One watch stream, from the revision after the last one seen.
    async fn follow(&self, shutdown: &CancellationToken) -> Ended {
        let (requests, stream) = match self.open_watch().await {
            Ok(opened) => opened,
            Err(reason) => return Ended::Broken(reason),
        };
        let mut stream = stream;
        let mut next_ask = Instant::now() + PROGRESS_INTERVAL;
        loop {
            let message = tokio::select! {
                () = shutdown.cancelled() => return Ended::Shutdown,
                message = stream.message() => message,
                () = self.ask_progress.notified() => {
                    next_ask = Instant::now() + PROGRESS_INTERVAL;
                    if let Err(ended) = ask_progress(&requests) { return ended }
                    continue;
                }
                () = tokio::time::sleep_until(next_ask), if self.waiting.load(Ordering::SeqCst) > 0 => {
                    next_ask = Instant::now() + PROGRESS_INTERVAL;
                    if let Err(ended) = ask_progress(&requests) { return ended }
                    continue;
                }
            };
            let response = match message {
                Ok(Some(response)) => response,
                Ok(None) => return Ended::Broken("the store closed the stream".to_owned()),
                Err(status) => return Ended::Broken(status.message().to_owned()),
            };
            if let Err(ended) = self.receive(response) {
                return ended;
            }
        }
    }

    async fn open_watch(
        &self,
    ) -> Result<(mpsc::Sender<pb::WatchRequest>, tonic::Streaming<pb::WatchResponse>), String> {
        let (requests, outgoing) = mpsc::channel(16);
        let root = self.storage.root();
        let create = pb::WatchCreateRequest {
            range_end: wire::prefix_end(root.as_bytes()),
            key: Bytes::from(root),
            start_revision: self.revision() + 1,
            progress_notify: true,
            prev_kv: true,
            ..Default::default()
        };
        let create = pb::watch_request::RequestUnion::CreateRequest(create);
        requests
            .try_send(pb::WatchRequest { request_union: Some(create) })
            .map_err(|error| error.to_string())?;
        let mut request = tonic::Request::new(ReceiverStream::new(outgoing));
        // A member without a leader must end the stream, so that another one can be asked.
        request.metadata_mut().insert("hasleader", tonic::metadata::MetadataValue::from_static("true"));
        let mut client = self.storage.client().watch.clone();
        let stream = client.watch(request).await.map_err(|status| status.message().to_owned())?.into_inner();
        Ok((requests, stream))
    }

    fn receive(&self, response: pb::WatchResponse) -> Result<(), Ended> {
        if response.canceled {
            let reason = match response.compact_revision {
                0 => response.cancel_reason,
                revision => format!("compacted at {revision}"),
            };
            return Err(Ended::Stale(reason));
        }
        if response.events.is_empty() {
            // A progress answer comes after every event up to its revision; the answer to `create` does not.
            let revision = response.header.map_or(0, |header| header.revision);
            if !response.created && revision > self.revision() {
                self.publish(revision);
            }
            return Ok(());
        }
        let mut events = response.events.into_iter().peekable();
        while let Some(event) = events.next() {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            let mut batch = Batch::new();
            let mut told = Vec::new();
            self.collect(event, revision, &mut batch, &mut told)?;
            while let Some(event) =
                events.next_if(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision == revision))
            {
                self.collect(event, revision, &mut batch, &mut told)?;
            }
            for (prefix, changes) in batch {
                if let Some(kind) = self.cache.kind_of(prefix) {
                    kind.apply(changes, revision);
                }
            }
            for change in &told {
                self.readers.iter().for_each(|reader| reader.observe(change));
            }
            if revision > self.revision() {
                self.publish(revision);
            }
        }
        Ok(())
    }

    /// Decodes one event into the batch of its revision.
    fn collect(
        &self,
        event: mvccpb::Event,
        revision: i64,
        batch: &mut Batch,
        told: &mut Vec<Change>,
    ) -> Result<(), Ended> {
        let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
        let Some(kv) = event.kv else { return Ok(()) };
        if revision <= self.revision() {
            return Ok(()); // seen before the stream was resumed
        }
        let Some((resource, item)) = self.parse(&kv.key) else { return Ok(()) };
        let Some(kind) = self.cache.kind(resource) else { return Ok(()) };
        let old = kind.get(&item);
        if let (Some(old), Some(previous)) = (&old, &event.prev_kv)
            && old.revision() != previous.mod_revision
        {
            let key = String::from_utf8_lossy(&kv.key);
            let (known, before) = (old.revision(), previous.mod_revision);
            return Err(Ended::Stale(format!("missed a change of {key} between {known} and {before}")));
        }
        let new = match deleted {
            true => None,
            false => kind
                .recall(&item, kv.mod_revision)
                .or_else(|| self.decode(&kv.key, &Stored { value: kv.value, revision: kv.mod_revision })),
        };
        if old.is_none() && new.is_none() {
            return Ok(());
        }
        told.push(change(resource, &item, new.clone()));
        batch.entry(resource.storage_prefix).or_default().push(ItemChange { item, old, new });
        Ok(())
    }

    fn publish(&self, revision: i64) {
        self.cache.advance(revision);
        self.revision.send_replace(revision);
    }

    /// `/registry/pods/default/a` → the row of pods and `default/a`. None: not a kind of ours.
    fn parse(&self, key: &[u8]) -> Option<(&'static Resource, Arc<str>)> {
        let key = std::str::from_utf8(key).ok()?;
        parse_key(key.strip_prefix(self.storage.root().as_str())?)
    }

    fn decode(&self, key: &Bytes, stored: &Stored) -> Option<Arc<Object>> {
        match Object::from_stored(stored.revision, &stored.value) {
            Ok(object) => Some(Arc::new(object)),
            Err(error) => {
                let key = String::from_utf8_lossy(key).into_owned();
                tracing::error!(key, revision = stored.revision, %error, "stored object is unreadable and left out");
                None
            }
        }
    }

    fn stored_kinds(&self) -> Vec<(&'static Resource, &Arc<KindCache>)> {
        kinds::resources()
            .iter()
            .filter(|resource| std::ptr::eq(kinds::storage_resource(resource), *resource))
            .filter_map(|resource| self.cache.kind(resource).map(|kind| (resource, kind)))
            .collect()
    }
}

fn ask_progress(requests: &mpsc::Sender<pb::WatchRequest>) -> Result<(), Ended> {
    let progress = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
    match requests.try_send(pb::WatchRequest { request_union: Some(progress) }) {
        // A full queue means that requests are already on their way.
        Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => {
            Err(Ended::Broken("the store stopped reading requests".to_owned()))
        }
    }
}

fn change(resource: &'static Resource, item: &str, new: Option<Arc<Object>>) -> Change {
    let (namespace, name) = item.split_once('/').unwrap_or(("", item));
    Change { resource: Some(resource), namespace: namespace.to_owned(), name: name.to_owned(), new }
}

/// A storage prefix has one or two segments; what follows must fit the scope of the kind.
fn parse_key(key: &str) -> Option<(&'static Resource, Arc<str>)> {
    let mut ends = key.match_indices('/').map(|(at, _)| at).take(2).collect::<Vec<_>>();
    ends.reverse();
    for end in ends {
        let (prefix, item) = (key.get(..end)?, key.get(end + 1..)?);
        let Some(resource) = kinds::find_storage(prefix) else { continue };
        let segments = if resource.namespaced { 2 } else { 1 };
        if item.split('/').count() == segments && item.split('/').all(|part| !part.is_empty()) {
            return Some((resource, Arc::from(item)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_kind_and_item_or_is_not_ours() {
        let parsed = |key: &str| parse_key(key).map(|(resource, item)| (resource.plural, item.to_string()));
        for (key, expected) in [
            ("pods/default/a", Some(("pods", "default/a"))),
            ("minions/n1", Some(("nodes", "n1"))),
            ("services/specs/default/a", Some(("services", "default/a"))),
            ("services/endpoints/default/a", Some(("endpoints", "default/a"))),
            ("pods/default", None),
            ("pods/default/a/b", None),
            ("minions/", None),
            ("nonsense/a/b", None),
            ("health", None),
        ] {
            let expected = expected.map(|(plural, item)| (plural, item.to_owned()));
            assert_eq!(parsed(key), expected, "{key}");
        }
    }
}
