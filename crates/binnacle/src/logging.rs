//! Log lines on standard error: etcd's JSON shape for members, short text for a person at a terminal.
//!
//! Invariants: one line per event; the JSON keys `level`, `ts`, `caller`, `msg` come first and are always there, because
//! tools that watch etcd's log match them. `RUST_LOG` overrides the level. Fields are printed as they are: callers never
//! put a secret into one.

use std::fmt;
use std::io::Write as _;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt as text};

/// Which shape the lines have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `{"level":"info","ts":"2026-01-02T15:04:05.999999Z","caller":"store/lib.rs:10","msg":"...", fields}`
    Json,
    /// `12:00:00 WARN message field=value`
    Text,
}

/// Installs the process's log output; a second call is ignored.
pub(crate) fn install(format: Format, default_level: Level) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{default_level},openraft=error,h2=error,rustls=error")));
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        Format::Json => registry.with(JsonLines).try_init(),
        Format::Text => {
            registry.with(text::layer().with_writer(std::io::stderr).with_target(false).compact()).try_init()
        }
    };
    // Only a test that starts two programs in one process gets here twice; the first output serves both.
    drop(installed);
}

struct JsonLines;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = Map::new();
        line.insert("level".to_owned(), level(*metadata.level()).into());
        line.insert("ts".to_owned(), format!("{:.6}", jiff::Timestamp::now()).into());
        line.insert("caller".to_owned(), caller(metadata.file(), metadata.line()).into());
        line.insert("msg".to_owned(), fields.message.into());
        line.extend(fields.rest);
        let mut bytes = Value::Object(line).to_string().into_bytes();
        bytes.push(b'\n');
        // A closed standard error must not end a member.
        drop(std::io::stderr().lock().write_all(&bytes));
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The last two parts of the path, as zap prints it: `src/kv.rs:12`.
fn caller(file: Option<&str>, line: Option<u32>) -> String {
    let file = file.unwrap_or("unknown");
    let start = file.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{}", &file[start..], line.unwrap_or(0))
}

#[derive(Default)]
struct Fields {
    message: String,
    rest: Map<String, Value>,
}

impl Fields {
    fn insert(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (name, value) => drop(self.rest.insert(name.replace('_', "-"), value)),
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::caller;

    #[test]
    fn the_caller_is_the_last_two_parts_of_the_path() {
        assert_eq!(caller(Some("crates/store/src/kv.rs"), Some(12)), "src/kv.rs:12");
        assert_eq!(caller(Some("kv.rs"), None), "kv.rs:0");
    }
}
