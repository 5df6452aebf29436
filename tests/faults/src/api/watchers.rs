//! Clients that list and then watch one kind through one member, as informers do, and write down what they are told.
//!
//! Invariants: a watch that broke goes on behind the last version that it told; only if the server says that this is too
//! old, it lists again. Nothing is judged here.

use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use kubeclient::{Api, ListOptions, WatchEvent, WatchOptions};
use serde_json::Value;
use tokio::sync::watch::Receiver;

use crate::api::history::{Change, Facts, Object, Stream, Told};
use crate::workload::{PAUSE_AFTER_ERROR, Shared};

/// A watch that says nothing for so long is opened anew: a partition ends no connection.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// The server ends a watch after this in good order, so that going on is exercised.
const WATCH_S: u32 = 7;

/// What a checker looks at.
pub fn object(plural: &str, value: &Value) -> Object {
    let meta = meta::of(value);
    let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
    let data = |field: &str| number(value["data"][field].as_str());
    let facts = match plural {
        "configmaps" => match (data("count"), data("writer")) {
            (Some(count), Some(writer)) => Facts::Counter { count, writer },
            _ => Facts::Other,
        },
        "pods" => {
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let cpu = &value["spec"]["containers"][0]["resources"]["requests"]["cpu"];
            Facts::Pod {
                node: text(&value["spec"]["nodeName"]).filter(|node| !node.is_empty()),
                cpu_m: number(cpu.as_str().map(|cpu| cpu.trim_end_matches('m'))).unwrap_or(0),
                disk: text(&value["spec"]["nodeSelector"]["disk"]),
                phase: text(&value["status"]["phase"]).unwrap_or_default(),
                deleting: meta.deletion_timestamp().is_some(),
            }
        }
        "rolebindings" => {
            number(meta.annotation("grant")).map_or(Facts::Other, |grant| Facts::Binding { grant })
        }
        _ => Facts::Other,
    };
    let mut hasher = std::hash::DefaultHasher::new();
    digest(value, &mut hasher);
    Object {
        name: meta.name().to_owned(),
        uid: meta.uid().to_owned(),
        version: number(Some(meta.resource_version())).unwrap_or(0),
        digest: hasher.finish(),
        facts,
    }
}

/// Of all fields, in whatever order they came.
fn digest(value: &Value, hasher: &mut impl std::hash::Hasher) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            for (name, value) in fields {
                name.hash(hasher);
                digest(value, hasher);
            }
            "}".hash(hasher);
        }
        Value::Array(items) => {
            items.iter().for_each(|item| digest(item, hasher));
            "]".hash(hasher);
        }
        other => other.to_string().hash(hasher),
    }
}

/// Follows until `end` (0: not known yet) has been told, or until it is `u64::MAX`.
pub async fn follow(
    member: usize,
    plural: &str,
    api: Api,
    end: Receiver<u64>,
    shared: Arc<Shared>,
) -> Stream {
    let stream = Stream { member, plural: plural.to_owned(), told: Vec::new(), resumed: 0 };
    let mut watcher = Watcher { api, end, shared, stream, position: None };
    while !watcher.is_done() {
        match watcher.position {
            None => watcher.list().await,
            Some(position) => watcher.watch(position).await,
        }
    }
    if *watcher.end.borrow() < u64::MAX {
        // What is there when all is quiet must be what the watch has told.
        for _ in 0..100 {
            let told = watcher.stream.told.len();
            watcher.list().await;
            if watcher.stream.told.len() > told {
                break;
            }
        }
    }
    watcher.stream
}

struct Watcher {
    api: Api,
    end: Receiver<u64>,
    shared: Arc<Shared>,
    stream: Stream,
    /// Everything up to here was told; `None` before a list.
    position: Option<u64>,
}

impl Watcher {
    fn is_done(&self) -> bool {
        let end = *self.end.borrow();
        end == u64::MAX || (end > 0 && self.position.is_some_and(|position| position >= end))
    }

    fn hears(&mut self, told: Told) {
        self.shared.note("streams", &self.stream.piece(told.clone()));
        self.stream.told.push(told);
    }

    async fn list(&mut self) {
        let listed = self.api.list(&ListOptions::default()).await;
        let Ok(list) = listed else { return tokio::time::sleep(PAUSE_AFTER_ERROR).await };
        let version = list.resource_version.parse().unwrap_or(0);
        let objects = list.items.iter().map(|item| object(&self.stream.plural, item)).collect();
        self.hears(Told::List { version, at_ns: self.shared.now_ns(), objects });
        self.position = Some(version);
    }

    async fn watch(&mut self, position: u64) {
        let options = WatchOptions {
            resource_version: position.to_string(),
            bookmarks: true,
            timeout_s: WATCH_S,
            ..WatchOptions::default()
        };
        let mut events = match self.api.watch(&options).await {
            Ok(events) => events,
            Err(error) => return self.failed(&error).await,
        };
        self.stream.resumed += usize::from(self.stream.told.len() > 1);
        while !self.is_done() {
            let Ok(Some(event)) = tokio::time::timeout(SILENCE_MAX, events.next()).await else { return };
            let (change, value) = match event {
                Ok(WatchEvent::Added(value)) => (Change::Added, value),
                Ok(WatchEvent::Modified(value)) => (Change::Modified, value),
                Ok(WatchEvent::Deleted(value)) => (Change::Deleted, value),
                Ok(WatchEvent::Bookmark { resource_version, .. }) => {
                    let version = resource_version.parse().unwrap_or(0);
                    self.hears(Told::Bookmark { version });
                    self.position = self.position.max(Some(version));
                    continue;
                }
                Err(error) => return self.failed(&error).await,
            };
            let object = object(&self.stream.plural, &value);
            self.position = self.position.max(Some(object.version));
            self.hears(Told::Event { change, object, at_ns: self.shared.now_ns() });
        }
    }

    async fn failed(&mut self, error: &kubeclient::Error) {
        if error.is_expired() {
            self.position = None;
        }
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}
