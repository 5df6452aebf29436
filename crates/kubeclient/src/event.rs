//! Records `events.k8s.io/v1` Events, as client-go's recorder does: same names, fields and series.
//!
//! Recording never blocks and never fails the caller: a full queue, or the end, drops the event with a log line. The same thing
//! reported again becomes a series of the first event instead of a second one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use apimachinery::{meta, time};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Api, Client, Error, Patch, Value};

const QUEUE_MAX: usize = 1000;
/// Requests under way at once.
const WRITERS_MAX: usize = 8;
/// Longest note, in bytes; the server refuses longer ones.
const NOTE_BYTES_MAX: usize = 1024;
/// A series that long silent is over.
const SERIES_SILENCE: Duration = Duration::from_secs(6 * 60);
const SERIES_MAX: usize = 4096;
const TRIES_MAX: u32 = 12;
const TRY_PAUSE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

/// What to report.
#[derive(Clone, Copy, Debug)]
pub struct RecordedEvent<'a> {
    /// The object that it is about; needs `apiVersion`, `kind` and metadata.
    pub regarding: &'a Value,
    pub related: Option<&'a Value>,
    pub kind: EventType,
    /// Why, in CamelCase: `Scheduled`.
    pub reason: &'a str,
    /// What was done, in CamelCase: `Binding`.
    pub action: &'a str,
    pub note: &'a str,
}

/// Cheap to clone; all clones feed one task.
#[derive(Clone, Debug)]
pub struct EventRecorder {
    queue: mpsc::Sender<Value>,
    controller: Arc<str>,
    instance: Arc<str>,
}

impl EventRecorder {
    /// `controller` is what users see as the source, `instance` is usually controller-hostname.
    pub fn start(
        client: &Client,
        controller: &str,
        instance: &str,
        shutdown: CancellationToken,
    ) -> EventRecorder {
        let (queue, events) = mpsc::channel(QUEUE_MAX);
        let writer = Writer { api: client.api("events.k8s.io", "v1", "events"), series: HashMap::new() };
        tokio::spawn(writer.run(events, shutdown));
        EventRecorder { queue, controller: controller.into(), instance: instance.into() }
    }

    pub fn record(&self, event: RecordedEvent<'_>) {
        let object = build(event, &self.controller, &self.instance, now_us());
        match self.queue.try_send(object) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(
                    reason = event.reason,
                    note = event.note,
                    "too many events wait, one is dropped"
                );
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                tracing::info!(
                    reason = event.reason,
                    note = event.note,
                    "the recorder has ended, an event is dropped"
                );
            }
        }
    }
}

/// Microseconds since the Unix epoch.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn build(event: RecordedEvent<'_>, controller: &str, instance: &str, now_us: i64) -> Value {
    let regarding = meta::of(event.regarding);
    let namespace = if regarding.namespace().is_empty() { "default" } else { regarding.namespace() };
    let mut object = json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": format!("{}.{:x}", regarding.name(), now_us.saturating_mul(1000)), "namespace": namespace},
        "eventTime": time::format_us(now_us),
        "reportingController": controller,
        "reportingInstance": instance,
        "action": event.action,
        "reason": event.reason,
        "regarding": reference(event.regarding),
        "note": shortened(event.note),
        "type": match event.kind { EventType::Normal => "Normal", EventType::Warning => "Warning" },
    });
    if let Some(related) = event.related {
        object["related"] = reference(related);
    }
    object
}

/// A `v1.ObjectReference` with what the object has.
fn reference(object: &Value) -> Value {
    let meta = meta::of(object);
    let fields = [
        ("kind", meta.kind()),
        ("namespace", meta.namespace()),
        ("name", meta.name()),
        ("uid", meta.uid()),
        ("apiVersion", meta.api_version()),
        ("resourceVersion", meta.resource_version()),
    ];
    let fields = fields.into_iter().filter(|(_, text)| !text.is_empty());
    Value::Object(fields.map(|(field, text)| (field.to_owned(), json!(text))).collect())
}

fn shortened(note: &str) -> &str {
    let mut end = note.len().min(NOTE_BYTES_MAX);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note.get(..end).unwrap_or_default()
}

struct Series {
    event: Value,
    count: u64,
    last: Instant,
    /// The count that the server knows.
    written: u64,
}

struct Writer {
    api: Api,
    series: HashMap<String, Series>,
}

impl Writer {
    async fn run(mut self, mut events: mpsc::Receiver<Value>, shutdown: CancellationToken) {
        let mut writes = JoinSet::new();
        let mut finish = tokio::time::interval(Duration::from_secs(60));
        finish.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(_) = writes.join_next() => {}
                event = events.recv(), if writes.len() < WRITERS_MAX => {
                    let Some(event) = event else { break };
                    if let Some(event) = self.observe(event) {
                        writes.spawn(write(self.api.clone(), event));
                    }
                }
                _ = finish.tick() => {
                    for event in self.finished() {
                        writes.spawn(write(self.api.clone(), event));
                    }
                }
            }
        }
        // what is under way gets a moment to end
        let _ = tokio::time::timeout(Duration::from_secs(2), async {
            while writes.join_next().await.is_some() {}
        })
        .await;
    }

    /// The event to write now, if any: the first of a kind as it is, the second as a series.
    fn observe(&mut self, event: Value) -> Option<Value> {
        let key = series_key(&event);
        if let Some(series) = self.series.get_mut(&key) {
            series.count += 1;
            series.last = Instant::now();
            series.event["series"] = json!({"count": series.count, "lastObservedTime": event["eventTime"]});
            if series.written > 1 {
                return None;
            }
            series.written = series.count;
            return Some(series.event.clone());
        }
        if self.series.len() >= SERIES_MAX {
            self.series.clear(); // worst case: a repeat becomes a new event
        }
        let series = Series { event: event.clone(), count: 1, last: Instant::now(), written: 1 };
        self.series.insert(key, series);
        Some(event)
    }

    /// Ends silent series; answers those whose count the server does not know yet.
    fn finished(&mut self) -> Vec<Value> {
        let mut unwritten = Vec::new();
        self.series.retain(|_, series| {
            let over = series.last.elapsed() >= SERIES_SILENCE;
            if over && series.count > series.written {
                unwritten.push(series.event.clone());
            }
            !over
        });
        unwritten
    }
}

/// What makes two events the same thing happening again; the note is not part of it.
fn series_key(event: &Value) -> String {
    let fields = ["type", "action", "reason", "reportingController", "regarding", "related"];
    fields.map(|field| event.get(field).map(Value::to_string).unwrap_or_default()).join("\n")
}

async fn write(api: Api, event: Value) {
    for _ in 0..TRIES_MAX {
        match write_once(&api, &event).await {
            Ok(()) => return,
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "cannot write an event, trying again");
            }
            Err(error) => {
                tracing::info!(%error, "the server refuses an event");
                return;
            }
        }
        tokio::time::sleep(TRY_PAUSE.mul_f64(rand::random_range(1.0..1.25))).await;
    }
    tracing::warn!("an event could not be written");
}

async fn write_once(api: &Api, event: &Value) -> Result<(), Error> {
    if let Some(series) = event.get("series") {
        let patch = Patch::Merge(json!({"series": series}));
        let (namespaced, name) =
            (api.namespace(meta::of(event).namespace()), meta::of(event).name().to_owned());
        match namespaced.patch(&name, &patch).await {
            Err(error) if error.is_not_found() => {}
            result => return result.map(|_| ()),
        }
    }
    match api.create(event).await {
        Err(error) if error.is_already_exists() => Ok(()),
        result => result.map(|_| ()),
    }
}

#[cfg(test)]
mod tests;
