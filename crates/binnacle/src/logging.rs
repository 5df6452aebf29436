//! Log lines, on standard error unless the store's flags say where: etcd's JSON shape for members, short text for a
//! person at a terminal.
//!
//! Invariants: one line per event; the JSON keys `level`, `ts`, `caller`, `msg` come first and are always there, because
//! tools that watch etcd's log match them. `RUST_LOG` overrides the level. Fields are printed as they are: callers never
//! put a secret into one.

use std::fmt;
use std::io::Write as _;

use serde_json::{Map, Value};
use store::command::{LogFormat, LogOptions, LogOutput};
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
    /// The same in columns, as zap's console has it; fields as JSON at the end.
    Console,
    /// `12:00:00 WARN message field=value`
    Text,
}

/// Installs the process's log output; a second call is ignored.
pub(crate) fn install(format: Format, default_level: Level) {
    install_to(format, default_level, vec![LogOutput::Stderr]);
}

/// The same, with what the store's flags say.
pub(crate) fn install_for_store(options: LogOptions) {
    let format = match options.format {
        LogFormat::Json => Format::Json,
        LogFormat::Console => Format::Console,
    };
    install_to(format, options.level, options.outputs);
}

fn install_to(format: Format, default_level: Level, outputs: Vec<LogOutput>) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{default_level},openraft=error,h2=error,rustls=error")));
    let registry = tracing_subscriber::registry().with(filter);
    let installed = match format {
        Format::Json | Format::Console => registry.with(Lines { format, outputs }).try_init(),
        Format::Text => {
            registry.with(text::layer().with_writer(std::io::stderr).with_target(false).compact()).try_init()
        }
    };
    // Only a test that starts two programs in one process gets here twice; the first output serves both.
    drop(installed);
}

struct Lines {
    format: Format,
    outputs: Vec<LogOutput>,
}

impl Lines {
    /// One write for each output, so that lines of several threads do not mix. An output that is gone must not end a
    /// member.
    fn write(&self, bytes: &[u8]) {
        for output in &self.outputs {
            drop(match output {
                LogOutput::Stderr => std::io::stderr().lock().write_all(bytes),
                LogOutput::Stdout => std::io::stdout().lock().write_all(bytes),
                LogOutput::File(file) => (&mut &*file).write_all(bytes),
            });
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (level, time) = (level(*metadata.level()), format!("{:.6}", jiff::Timestamp::now()));
        let caller = caller(metadata.file(), metadata.line());
        let text = match self.format {
            Format::Console => {
                let rest = match fields.rest.is_empty() {
                    true => String::new(),
                    false => format!("\t{}", Value::Object(fields.rest)),
                };
                format!("{time}\t{level}\t{caller}\t{}{rest}\n", fields.message)
            }
            Format::Json | Format::Text => {
                let mut line = Map::new();
                line.insert("level".to_owned(), level.into());
                line.insert("ts".to_owned(), time.into());
                line.insert("caller".to_owned(), caller.into());
                line.insert("msg".to_owned(), fields.message.into());
                line.extend(fields.rest);
                format!("{}\n", Value::Object(line))
            }
        };
        self.write(text.as_bytes());
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
