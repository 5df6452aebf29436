//! What happened in a run, in order: the same seed must give the same bytes.
//!
//! Lines come from the clients and the faults, and from everything that the members and the simulated network log. Kept
//! are a hash of all, and the newest lines for a look at a violation. Not here: times other than virtual ones.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tracing::Level;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;

const LINES_KEPT: usize = 400;

#[derive(Default)]
pub(crate) struct Trace {
    inner: Mutex<Inner>,
    /// The simulation cannot be asked while it sends a message, which is a line too.
    now_ms: AtomicU64,
    /// Every line, for whoever wants to compare two runs.
    keep_all: bool,
    /// Where every line is written at once, for a run that ends the process: `TRACE_AT_ONCE=FILE`.
    at_once: Option<Mutex<std::fs::File>>,
}

#[derive(Default)]
struct Inner {
    /// FNV-1a, 64 bits.
    hash: u64,
    lines: u64,
    newest: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new(keep_all: bool) -> Arc<Trace> {
        let inner = Inner { hash: 0xcbf2_9ce4_8422_2325, ..Inner::default() };
        let at_once = std::env::var_os("TRACE_AT_ONCE").and_then(|path| std::fs::File::create(path).ok());
        let at_once = at_once.map(Mutex::new);
        Arc::new(Trace { inner: Mutex::new(inner), now_ms: AtomicU64::new(0), keep_all, at_once })
    }

    pub(crate) fn line(&self, text: &str) {
        let line = format!("{:>6} {}", self.now_ms.load(Ordering::Relaxed), text.trim_end());
        if let Some(file) = &self.at_once {
            let _ = writeln!(file.lock(), "{line}");
        }
        let mut inner = self.inner.lock();
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        inner.lines += 1;
        if !self.keep_all && inner.newest.len() == LINES_KEPT {
            inner.newest.pop_front();
        }
        inner.newest.push_back(line);
    }

    pub(crate) fn set_now_ms(&self, now_ms: u64) {
        self.now_ms.store(now_ms, Ordering::Relaxed);
    }

    pub(crate) fn hash(&self) -> u64 {
        self.inner.lock().hash
    }

    pub(crate) fn count(&self) -> u64 {
        self.inner.lock().lines
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.inner.lock().newest.iter().cloned().collect()
    }

    /// What this thread logs while the guard lives becomes lines.
    pub(crate) fn listen(self: &Arc<Trace>) -> tracing::subscriber::DefaultGuard {
        let ours = |level| {
            Targets::new().with_target("replica", level).with_target("store", level).with_target("wal", level)
        };
        let wanted = match self.keep_all {
            // Every message with its bytes: ten times slower, for whoever compares two runs.
            true => {
                ours(Level::DEBUG).with_target("turmoil", Level::TRACE).with_target("openraft", Level::INFO)
            }
            false => ours(Level::INFO),
        };
        let layer = tracing_subscriber::fmt::layer()
            .without_time()
            .with_ansi(false)
            .with_writer(Lines(Arc::clone(self)))
            .with_filter(wanted);
        tracing::subscriber::set_default(tracing_subscriber::registry().with(layer))
    }
}

/// One logged event is one write.
struct Lines(Arc<Trace>);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Arc::clone(&self.0))
    }
}

struct Line(Arc<Trace>);

impl io::Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        // A tick of the clock is no event.
        if !text.contains("turmoil: step ") {
            self.0.line(&text);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
