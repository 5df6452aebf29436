//! WATCH: a cursor over the events of a resource, translated and framed as the client asked.
//!
//! Invariants: nothing is buffered for a client that does not read; the cursor stays behind and at worst learns that it
//! is too old. Events are in revision order; a bookmark's revision is never below that of an event sent before it, and
//! everything up to it has been sent. Headers leave before the first event.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::kinds::{self, Resource};
use apimachinery::status::Status;
use apimachinery::{Value, protobuf};
use bytes::Bytes;
use futures_util::stream;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use rand::Rng as _;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Call;
use crate::negotiate::{Answer, Format, Shape};
use crate::object::{Object, json_head};
use crate::options::{Freshness, WatchOptions};
use crate::registry::item;
use crate::render::{self, view};
use crate::selection::Selection;
use crate::watch_cache::{CacheEvent, Cursor, Snapshot, WatchCache};
use crate::{Body, BoxError};

/// Source: upstream cacher `defaultBookmarkFrequency`.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Events taken from the history at once, and roughly how large one piece of the answer grows.
const EVENTS_AT_ONCE: usize = 128;
const FRAME_SIZE_BYTES: usize = 64 * 1024;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(super) async fn watch(call: Call<'_>) -> Result<Response<Body>, Status> {
    let mut answer = call.answer(false)?;
    answer.pretty = false;
    if answer.format == Format::Yaml {
        return Err(Status::not_acceptable(&[crate::negotiate::JSON, crate::negotiate::PROTOBUF]));
    }
    let options = WatchOptions::parse(call.query())?;
    let mut fields = options.field_selector.clone();
    if !call.name.is_empty() {
        // The legacy path `/watch/…/{name}` selects one object.
        let separator = if fields.is_empty() { "" } else { "," };
        fields.push_str(&format!("{separator}metadata.name={}", call.name));
    }
    let selection = Selection::parse(call.resource, &options.label_selector, &fields)?;
    let marks_end = options.initial_events && WatchOptions::marks_end_of_initial_events(call.query());
    let deadline = Instant::now() + Duration::from_secs(3);
    let (initial, cursor) = begin(&call, &options, deadline).await?;
    let initial =
        initial.map(|snapshot| initial_objects(call.resource, &call.namespace, &selection, &snapshot));
    let life = options
        .timeout_s
        .map_or_else(|| random_life(call.server.registry().watch_life_min()), Duration::from_secs);
    let watcher = Watcher {
        cache: call.server.registry().cache().clone(),
        shutdown: call.server.shutdown().clone(),
        resource: call.resource,
        namespace: call.namespace.clone(),
        selection,
        answer,
        seen: cursor.after(),
        cursor,
        pending: initial.unwrap_or_default().into_iter(),
        end_mark_due: marks_end,
        bookmarks: options.bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_INTERVAL,
        until: Instant::now() + life,
        header_due: true,
        ended: false,
    };
    let frames = stream::unfold(watcher, |mut watcher| async move {
        let bytes = watcher.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(bytes)), watcher))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let content_type = match answer.format {
        Format::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Format::Json | Format::Yaml => crate::negotiate::JSON,
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

/// Where the watch begins: with a state, or after a revision.
async fn begin(
    call: &Call<'_>,
    options: &WatchOptions,
    deadline: Instant,
) -> Result<(Option<Snapshot>, Cursor), Status> {
    let registry = call.server.registry();
    let kind = registry.kind(kinds::storage_resource(call.resource))?.clone();
    match options.freshness {
        Freshness::Consistent => {
            let revision = registry.store_revision().await?;
            registry.catch_up(revision, deadline).await?;
        }
        Freshness::NotOlderThan(revision) | Freshness::Exact(revision) if options.initial_events => {
            registry.catch_up(revision, deadline).await?;
        }
        Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => {
            let cursor = kind.watch_from(revision).map_err(|too_old| {
                Status::too_old_resource_version(revision.unsigned_abs(), too_old.oldest.unsigned_abs())
            });
            return Ok((None, cursor?));
        }
        Freshness::Any => {}
    }
    let (snapshot, cursor) = registry.cache().snapshot_and_watch(&kind);
    Ok((options.initial_events.then_some(snapshot), cursor))
}

fn initial_objects(
    resource: &Resource,
    namespace: &str,
    selection: &Selection,
    snapshot: &Snapshot,
) -> Vec<Arc<Object>> {
    if let Some(name) = selection.name().filter(|_| !resource.namespaced || !namespace.is_empty()) {
        let found = snapshot.objects.get(item(namespace, name).as_str());
        return found.filter(|object| selection.matches(object.value())).cloned().into_iter().collect();
    }
    let objects = snapshot.scan(namespace, None).filter(|(_, object)| selection.matches(object.value()));
    objects.map(|(_, object)| object.clone()).collect()
}

/// Between the shortest life and twice that, so that watches do not end all at once.
fn random_life(shortest: Duration) -> Duration {
    shortest.mul_f64(1.0 + rand::rng().random::<f64>())
}

struct Watcher {
    cache: Arc<WatchCache>,
    shutdown: CancellationToken,
    resource: &'static Resource,
    namespace: String,
    selection: Selection,
    answer: Answer,
    cursor: Cursor,
    /// Everything up to here has been sent.
    seen: i64,
    pending: std::vec::IntoIter<Arc<Object>>,
    end_mark_due: bool,
    bookmarks: bool,
    next_bookmark: Instant,
    until: Instant,
    /// The first row of a table carries the column definitions.
    header_due: bool,
    ended: bool,
}

impl Watcher {
    /// The next piece of the answer; None ends it.
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let initial = self.initial_events();
        if !initial.is_empty() {
            return Some(Bytes::from(initial));
        }
        loop {
            // Read before the events: all of them up to here are then among those read.
            let applied = self.cache.revision();
            let events = match self.cursor.read(EVENTS_AT_ONCE) {
                Ok(events) => events,
                Err(too_old) => {
                    self.ended = true;
                    let (wanted, oldest) = (too_old.wanted.unsigned_abs(), too_old.oldest.unsigned_abs());
                    return Some(self.error(&Status::too_old_resource_version(wanted, oldest)));
                }
            };
            if events.is_empty() {
                self.seen = self.seen.max(applied);
                if Instant::now() >= self.next_bookmark && self.bookmarks {
                    self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                    return Some(self.bookmark(false));
                }
            } else {
                let mut out = Vec::new();
                for event in &events {
                    self.event(&mut out, event);
                }
                if !out.is_empty() {
                    return Some(Bytes::from(out));
                }
                continue;
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep_until(self.until) => {
                    self.ended = true;
                    return self.bookmarks.then(|| self.bookmark(false));
                }
                // What was applied meanwhile is read before the bookmark speaks for it.
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {}
                () = self.cursor.changed() => {}
            }
        }
    }

    /// A piece of the synthetic ADDED events, and the mark that ends them.
    fn initial_events(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while out.len() < FRAME_SIZE_BYTES {
            let Some(object) = self.pending.next() else { break };
            self.frame(&mut out, "ADDED", &object);
        }
        if self.pending.as_slice().is_empty() && std::mem::take(&mut self.end_mark_due) {
            let mark = self.bookmark(true);
            out.extend_from_slice(&mark);
        }
        out
    }

    fn event(&mut self, out: &mut Vec<u8>, event: &CacheEvent) {
        self.seen = self.seen.max(event.revision);
        if !self.namespace.is_empty() {
            let inside =
                event.item.strip_prefix(self.namespace.as_str()).is_some_and(|rest| rest.starts_with('/'));
            if !inside {
                return;
            }
        }
        let matches = |object: &Option<Arc<Object>>| {
            object.as_ref().is_some_and(|object| self.selection.matches(object.value()))
        };
        match (matches(&event.old), matches(&event.new), &event.new, event.gone()) {
            (false, true, Some(new), _) => self.frame(out, "ADDED", &new.clone()),
            (true, true, Some(new), _) => self.frame(out, "MODIFIED", &new.clone()),
            (true, false, _, Some(gone)) => self.frame(out, "DELETED", &gone.clone()),
            _ => {}
        }
    }

    fn frame(&mut self, out: &mut Vec<u8>, kind: &str, object: &Arc<Object>) {
        let object = view(self.resource, object);
        let api_version = self.resource.api_version();
        match (self.answer.shape, self.answer.format) {
            (Shape::Object, Format::Protobuf) => match object.raw_protobuf(self.resource.type_name) {
                Ok(raw) => {
                    let envelope = protobuf::encode_envelope(&api_version, self.resource.kind, raw);
                    out.extend_from_slice(&protobuf::watch_frame(kind, &envelope));
                }
                Err(error) => {
                    self.ended = true;
                    let bytes = self.error(&Status::internal(error));
                    out.extend_from_slice(&bytes);
                }
            },
            (Shape::Object, _) => {
                begin_json(out, kind);
                json_head(out, self.resource.kind, &api_version, object.json_tail());
                out.extend_from_slice(b"}\n");
            }
            (Shape::Metadata(version), _) => {
                let value = render::metadata_value(object.value(), version);
                self.value_frame(out, kind, &value);
            }
            (Shape::Table(version), _) => {
                let row = render::row(&self.answer, self.resource, &object, version, render::now_s());
                let header = std::mem::take(&mut self.header_due).then_some(self.resource);
                let metadata = json!({"resourceVersion": object.revision().to_string()});
                let table = render::table_value(header, version, metadata, vec![row]);
                self.value_frame(out, kind, &table);
            }
        }
    }

    /// An event whose object is not a stored one.
    fn value_frame(&self, out: &mut Vec<u8>, kind: &str, value: &Value) {
        match self.answer.format {
            Format::Protobuf => match protobuf::encode_object(value) {
                Ok(envelope) => out.extend_from_slice(&protobuf::watch_frame(kind, &envelope)),
                Err(error) => tracing::error!(%error, "watch event cannot be encoded as protobuf"),
            },
            Format::Json | Format::Yaml => {
                begin_json(out, kind);
                out.extend_from_slice(value.to_string().as_bytes());
                out.extend_from_slice(b"}\n");
            }
        }
    }

    fn bookmark(&mut self, ends_initial_events: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.seen.to_string(), "creationTimestamp": null});
        if ends_initial_events {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        if let Some(fields) = metadata.as_object_mut() {
            fields.retain(|_, field| !field.is_null());
        }
        let mut out = Vec::new();
        let value = json!({"kind": self.resource.kind, "apiVersion": self.resource.api_version(), "metadata": metadata});
        match self.answer.shape {
            Shape::Object => self.value_frame(&mut out, "BOOKMARK", &value),
            Shape::Metadata(version) => {
                self.value_frame(&mut out, "BOOKMARK", &render::metadata_value(&value, version));
            }
            Shape::Table(version) => {
                let row = json!({"cells": [], "object": render::metadata_value(&value, version)});
                let header = std::mem::take(&mut self.header_due).then_some(self.resource);
                let table_metadata = json!({"resourceVersion": self.seen.to_string()});
                let table = render::table_value(header, version, table_metadata, vec![row]);
                self.value_frame(&mut out, "BOOKMARK", &table);
            }
        }
        Bytes::from(out)
    }

    fn error(&self, status: &Status) -> Bytes {
        let mut out = Vec::new();
        self.value_frame(&mut out, "ERROR", &status.to_value());
        Bytes::from(out)
    }
}

fn begin_json(out: &mut Vec<u8>, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}
