//! Objects by name: reads from the feed's state or the store, writes as transactions on the store.
//!
//! Invariants: every kind goes through the same functions; what differs is in the table of kinds and in `strategy`.
//! A consistent read shows everything that was acknowledged, by any member, before it began. Every write is conditional
//! on the revision that its decision was based on.
//! Not here: HTTP (endpoints), the state itself (watch_cache.rs), the calls to the store (storage.rs).

mod create;
mod delete;
mod ownership;
mod read;
mod update;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Value;
use apimachinery::kinds::{self, Resource};
use apimachinery::status::{GroupKind, GroupResource, Status};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use delete::Deleted;
pub(crate) use update::{Part, Source, Updated};

use crate::admission::Admission;
use crate::compaction;
use crate::feed::{Feed, Reader};
use crate::object::Object;
use crate::options::WriteOptions;
use crate::storage::Storage;
use crate::store_revision::StoreRevision;
use crate::strategy::addresses::Addresses;
use crate::watch_cache::{KindCache, WatchCache};
use crate::{ApiServer, Config, StartError, User};

/// How long a read waits for a revision that this server has not seen. Source: upstream cacher `blockTimeout`.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(3);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Registry {
    storage: Storage,
    cache: Arc<WatchCache>,
    feed: Arc<Feed>,
    store_revision: StoreRevision,
    admission: Admission,
    addresses: Addresses,
    event_ttl_s: i64,
    /// Shortest life of a watch that names no timeout.
    watch_life_min: Duration,
}

/// Who writes what, and how.
pub(crate) struct Write<'a> {
    pub(crate) server: &'a ApiServer,
    pub(crate) caller: &'a User,
    /// The version that the client speaks; `stored()` is what it becomes.
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) options: WriteOptions,
    /// Who will own the fields that this writes.
    pub(crate) manager: String,
    /// Whether what is written is an applied configuration, which carries its owners.
    pub(crate) applies: bool,
    pub(crate) deadline: Instant,
}

impl Write<'_> {
    pub(crate) fn stored(&self) -> &'static Resource {
        kinds::storage_resource(self.resource)
    }

    pub(crate) fn item(&self, name: &str) -> String {
        item(self.namespace, name)
    }
}

impl Registry {
    /// Returns once everything that the store holds has been read.
    pub(crate) async fn start(
        store: wire::Client,
        config: &Config,
        readers: Vec<Arc<dyn Reader>>,
        shutdown: CancellationToken,
    ) -> Result<Registry, StartError> {
        let admission = Admission::new(config).map_err(StartError::Store)?;
        let addresses = Addresses::new(config).map_err(StartError::Store)?;
        let storage = Storage::new(store, &config.etcd_prefix);
        let cache = Arc::new(WatchCache::new());
        let feed = Feed::new(storage.clone(), cache.clone(), readers);
        let mut synced = feed.subscribe();
        tokio::spawn(feed.clone().run(shutdown.clone()));
        tokio::spawn(compaction::run(storage.clone(), config.etcd_compaction_interval, shutdown.clone()));
        tokio::select! {
            () = shutdown.cancelled() => return Err(StartError::Stopped),
            synced = synced.wait_for(|revision| *revision > 0) => {
                synced.map_err(|_| StartError::Stopped)?;
            }
        }
        Ok(Registry {
            store_revision: StoreRevision::start(storage.clone(), shutdown),
            storage,
            cache,
            feed,
            admission,
            addresses,
            event_ttl_s: config.event_ttl_s,
            watch_life_min: config.min_request_timeout,
        })
    }

    pub(crate) fn feed(&self) -> &Arc<Feed> {
        &self.feed
    }

    pub(crate) fn cache(&self) -> &Arc<WatchCache> {
        &self.cache
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.storage
    }

    pub(crate) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(crate) fn watch_life_min(&self) -> Duration {
        self.watch_life_min
    }

    /// The store's current revision, by a linearizable read that may be shared with others.
    pub(crate) async fn store_revision(&self) -> Result<i64, Status> {
        Ok(self.store_revision.read().await?)
    }

    /// Whether the store answers a linearizable read.
    pub(crate) async fn healthy(&self) -> Result<(), String> {
        match tokio::time::timeout(HEALTH_TIMEOUT, self.storage.revision()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the store did not answer in time".to_owned()),
        }
    }

    /// The cache of a stored kind. Every row of the table has one.
    pub(crate) fn kind(&self, resource: &Resource) -> Result<&Arc<KindCache>, Status> {
        self.cache.kind(resource).ok_or_else(Status::no_such_resource)
    }

    /// An object as this server last saw it.
    pub(crate) fn cached(&self, resource: &Resource, item: &str) -> Option<Arc<Object>> {
        self.cache.kind(resource)?.get(item)
    }

    /// Seconds that an object lives, for kinds that expire.
    fn ttl_s(&self, stored: &Resource) -> Option<i64> {
        (stored.group.is_empty() && stored.plural == "events").then_some(self.event_ttl_s)
    }
}

/// `namespace/name`, or `name` for objects of the whole cluster.
pub(crate) fn item(namespace: &str, name: &str) -> String {
    if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") }
}

pub(crate) fn group_resource(resource: &Resource) -> GroupResource<'static> {
    GroupResource::new(resource.group, resource.plural)
}

pub(crate) fn group_kind(resource: &Resource) -> GroupKind<'static> {
    GroupKind::new(resource.group, resource.kind)
}

/// Whether an update changes anything but the revision.
fn same_content(a: &Value, b: &Value) -> bool {
    let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
    let same_field = |name: &str, a: &Value, b: &Value| match (name, a.as_object(), b.as_object()) {
        ("metadata", Some(a), Some(b)) => {
            a.iter().all(|(name, value)| name == "resourceVersion" || b.get(name) == Some(value))
        }
        _ => a == b,
    };
    let fields = |metadata: Option<&Value>| {
        let fields = metadata.and_then(Value::as_object).into_iter().flatten();
        fields.filter(|(name, _)| name.as_str() != "resourceVersion").count()
    };
    a.len() == b.len()
        && fields(a.get("metadata")) == fields(b.get("metadata"))
        && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| same_field(name, value, other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_is_everything_but_the_revision() {
        let object = |version: &str, label: &str| json!({"metadata": {"name": "a", "resourceVersion": version, "labels": {"x": label}}, "spec": {}});
        let bare = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {}});
        assert!(same_content(&object("1", "y"), &object("2", "y")));
        assert!(same_content(&object("1", "y"), &bare) && same_content(&bare, &object("1", "y")));
        assert!(!same_content(&object("1", "y"), &object("1", "z")));
        let more = json!({"metadata": {"name": "a", "labels": {"x": "y"}, "uid": "u"}, "spec": {}});
        assert!(!same_content(&bare, &more) && !same_content(&more, &bare));
        assert!(!same_content(&bare, &json!({"metadata": {"name": "a", "labels": {"x": "y"}}})));
    }
}
