//! Get and list: which state to show, and one page of it.
//!
//! Continue tokens are upstream's: base64 of `{"v":"meta.k8s.io/v1","rv":N,"start":"…"}`; rv -1 goes on in the present.

use std::sync::Arc;

use apimachinery::Value;
use apimachinery::kinds::{self, Resource};
use apimachinery::status::Status;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

use super::{CATCH_UP_TIMEOUT, Registry, group_resource, item};
use crate::object::Object;
use crate::options::{Freshness, ListOptions};
use crate::render::{ListMeta, view};
use crate::selection::Selection;
use crate::storage::{ReadError, Stored};
use crate::watch_cache::{Objects, Snapshot};

const TOKEN_VERSION: &str = "meta.k8s.io/v1";
const EXPIRED_TOKEN: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

impl Registry {
    /// One object in its stored form; None when it does not exist.
    pub(crate) async fn find(
        &self,
        resource: &Resource,
        item: &str,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Option<Arc<Object>>, Status> {
        match freshness {
            Freshness::Consistent | Freshness::Exact(_) => Ok(self.fetch(resource, item).await?.0),
            Freshness::Any => Ok(self.kind(resource)?.get(item)),
            Freshness::NotOlderThan(revision) => {
                self.catch_up(revision, deadline).await?;
                Ok(self.kind(resource)?.get(item))
            }
        }
    }

    /// One object as `resource` shows it, or 404.
    pub(crate) async fn get(
        &self,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Arc<Object>, Status> {
        let stored = kinds::storage_resource(resource);
        match self.find(stored, &item(namespace, name), freshness, deadline).await? {
            Some(object) => Ok(view(resource, &object)),
            None => Err(Status::not_found(group_resource(resource), name)),
        }
    }

    /// Reads the store (linearizable) and takes the cached object when it is the same version. The revision is the
    /// store's.
    pub(crate) async fn fetch(
        &self,
        stored: &Resource,
        item: &str,
    ) -> Result<(Option<Arc<Object>>, i64), Status> {
        let (found, revision) = self.storage.get(&self.storage.key(stored, item)).await?;
        let object = found.map(|found| self.adopt(stored, item, found)).transpose()?;
        Ok((object, revision))
    }

    /// A value that was just read, as an object that shares what the cache already has.
    pub(super) fn adopt(&self, stored: &Resource, item: &str, found: Stored) -> Result<Arc<Object>, Status> {
        if let Some(cached) = self.cached(stored, item).filter(|cached| cached.revision() == found.revision) {
            return Ok(cached);
        }
        let object = Object::from_stored(found.revision, &found.value);
        object.map(Arc::new).map_err(|error| Status::internal(format!("unable to decode {item}: {error}")))
    }

    /// Waits until this server has seen `revision`, for a short while.
    pub(crate) async fn catch_up(&self, revision: i64, deadline: Instant) -> Result<(), Status> {
        let deadline = deadline.min(Instant::now() + CATCH_UP_TIMEOUT);
        if self.feed.wait(revision, deadline).await {
            return Ok(());
        }
        let current = self.feed.revision();
        Err(Status::too_large_resource_version(revision.unsigned_abs(), current.unsigned_abs(), 1))
    }

    /// A state that shows at least everything acknowledged before the call.
    pub(crate) async fn consistent(&self, stored: &Resource, deadline: Instant) -> Result<Snapshot, Status> {
        let revision = self.store_revision().await?;
        let kind = self.kind(stored)?;
        if self.feed.wait(revision, deadline.min(Instant::now() + CATCH_UP_TIMEOUT)).await {
            return Ok(self.cache.snapshot(kind));
        }
        // The watch lags; the store itself does not.
        self.snapshot_from_store(stored, 0).await.map_err(Status::from)
    }

    /// Objects of a namespace ("" = all), as `resource` shows them, and the list's metadata.
    pub(crate) async fn list(
        &self,
        resource: &'static Resource,
        namespace: &str,
        selection: &Selection,
        options: &ListOptions,
        deadline: Instant,
    ) -> Result<(Vec<Arc<Object>>, ListMeta), Status> {
        let stored = kinds::storage_resource(resource);
        let mut start = None;
        let snapshot = if options.continue_token.is_empty() {
            self.snapshot_for(stored, options.freshness, deadline).await?
        } else {
            let (revision, key) = decode_token(&options.continue_token)?;
            let snapshot = match revision {
                None => self.consistent(stored, deadline).await?,
                Some(revision) => {
                    self.exact(stored, revision, deadline).await.map_err(|status| match status.code {
                        410 => expired_token(&key),
                        _ => status,
                    })?
                }
            };
            start = Some(key);
            snapshot
        };
        Ok(page(resource, &snapshot, namespace, selection, options.limit, start.as_deref()))
    }

    async fn snapshot_for(
        &self,
        stored: &Resource,
        freshness: Freshness,
        deadline: Instant,
    ) -> Result<Snapshot, Status> {
        match freshness {
            Freshness::Consistent => self.consistent(stored, deadline).await,
            Freshness::Any => Ok(self.cache.snapshot(self.kind(stored)?)),
            Freshness::NotOlderThan(revision) => {
                self.catch_up(revision, deadline).await?;
                Ok(self.cache.snapshot(self.kind(stored)?))
            }
            Freshness::Exact(revision) => self.exact(stored, revision, deadline).await,
        }
    }

    /// The state at one revision: from the history if it reaches back, else from the store.
    async fn exact(&self, stored: &Resource, revision: i64, deadline: Instant) -> Result<Snapshot, Status> {
        self.catch_up(revision, deadline).await?;
        if let Ok(snapshot) = self.cache.snapshot_at(self.kind(stored)?, revision) {
            return Ok(snapshot);
        }
        self.snapshot_from_store(stored, revision).await.map_err(|error| match error {
            ReadError::Compacted => Status::expired(format!(
                "The provided resource version is too old: {revision}, it has been compacted"
            )),
            other => other.into(),
        })
    }

    async fn snapshot_from_store(&self, stored: &Resource, revision: i64) -> Result<Snapshot, ReadError> {
        let prefix = self.storage.resource_prefix(stored);
        let all = self.storage.list(&prefix, revision).await?;
        let mut objects = Objects::new();
        for (key, found) in all.rows {
            let Some(item) =
                key.strip_prefix(prefix.as_bytes()).and_then(|item| std::str::from_utf8(item).ok())
            else {
                continue;
            };
            if let Ok(object) = self.adopt(stored, item, found) {
                objects.insert(Arc::from(item), object);
            }
        }
        Ok(Snapshot { objects, revision: all.revision })
    }
}

/// At most `limit` matching objects (0 = all) from `start` on.
fn page(
    resource: &'static Resource,
    snapshot: &Snapshot,
    namespace: &str,
    selection: &Selection,
    limit: usize,
    start: Option<&str>,
) -> (Vec<Arc<Object>>, ListMeta) {
    let mut list_meta = ListMeta { revision: snapshot.revision, ..ListMeta::default() };
    let named = selection.name().filter(|_| !resource.namespaced || !namespace.is_empty());
    if let (Some(name), None) = (named, start) {
        let object = snapshot.objects.get(item(namespace, name).as_str());
        let matching = object.filter(|object| selection.matches(object.value()));
        return (matching.map(|object| view(resource, object)).into_iter().collect(), list_meta);
    }
    let mut items: Vec<Arc<Object>> = Vec::new();
    let mut last: &str = "";
    let mut scan = snapshot.scan(namespace, start);
    for (key, object) in scan.by_ref() {
        if !selection.matches(object.value()) {
            continue;
        }
        if limit > 0 && items.len() == limit {
            list_meta.continue_token = encode_token(Some(snapshot.revision), &format!("{last}\0"));
            if selection.selects_all() {
                list_meta.remaining = i64::try_from(scan.count() + 1).ok();
            }
            break;
        }
        last = key;
        items.push(view(resource, object));
    }
    (items, list_meta)
}

fn encode_token(revision: Option<i64>, start: &str) -> String {
    let token = serde_json::json!({"v": TOKEN_VERSION, "rv": revision.unwrap_or(-1), "start": start});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

/// The pinned revision (None = the present) and the first key.
fn decode_token(token: &str) -> Result<(Option<i64>, String), Status> {
    let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
    let text =
        URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|error| invalid(&error.to_string()))?;
    let token: Value = serde_json::from_slice(&text).map_err(|error| invalid(&error.to_string()))?;
    if token.get("v").and_then(Value::as_str) != Some(TOKEN_VERSION) {
        return Err(invalid("server does not recognize this encoded version"));
    }
    let revision = token.get("rv").and_then(Value::as_i64).unwrap_or(0);
    let start = token.get("start").and_then(Value::as_str).unwrap_or_default();
    if revision == 0 {
        return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
    }
    if start.is_empty() {
        return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
    }
    Ok(((revision > 0).then_some(revision), start.to_owned()))
}

/// 410 with a token that goes on in the present.
fn expired_token(start: &str) -> Status {
    let mut status = Status::expired(EXPIRED_TOKEN);
    status.continue_token = Some(encode_token(None, start).into_boxed_str());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_survives_its_round_trip_and_junk_is_refused() {
        let token = encode_token(Some(42), "default/a\0");
        assert_eq!(decode_token(&token).unwrap(), (Some(42), "default/a\0".to_owned()));
        assert_eq!(decode_token(&encode_token(None, "a\0")).unwrap(), (None, "a\0".to_owned()));
        let junk = [
            "%%%".to_owned(),
            URL_SAFE_NO_PAD.encode("not json"),
            URL_SAFE_NO_PAD.encode(r#"{"v":"v9","rv":1,"start":"a"}"#),
            URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","start":"a"}"#),
            URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":1}"#),
        ];
        for token in junk {
            assert_eq!(decode_token(&token).unwrap_err().code, 400, "{token}");
        }
    }
}
