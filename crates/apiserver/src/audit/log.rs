//! The audit log's writer: one thread, a bounded queue, one line per event.
//!
//! Invariants: lines are never mixed; the queue is flushed whenever it runs empty; when it is full, a request waits
//! (`blocking`) or its event is dropped and counted (`batch`). A disk that refuses the write is counted and named in
//! the server's own log. Not here: what the lines say.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::error;

use crate::metrics::Metrics;

const QUEUE_EVENTS_MAX: usize = 10_000;

#[derive(Clone)]
pub(super) struct Log {
    lines: Sender<Vec<u8>>,
    drop_when_full: bool,
    metrics: Metrics,
}

impl Log {
    pub(super) fn open(path: &Path, drop_when_full: bool, metrics: Metrics) -> io::Result<Log> {
        let output = Output::open(path)?;
        let (lines, queue) = channel(QUEUE_EVENTS_MAX);
        let counts = metrics.clone();
        std::thread::Builder::new()
            .name("audit-log".to_string())
            .spawn(move || write_all(queue, output, &counts))?;
        Ok(Log { lines, drop_when_full, metrics })
    }

    pub(super) async fn write(&self, line: Vec<u8>) {
        if self.drop_when_full {
            return self.write_now(line);
        }
        if self.lines.send(line).await.is_err() {
            self.metrics.audit_lost();
        }
    }

    /// For places that cannot wait: when the queue is full, a task waits in their stead.
    pub(super) fn write_now(&self, line: Vec<u8>) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(line)) if !self.drop_when_full => {
                let lines = self.lines.clone();
                if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                    runtime.spawn(async move { lines.send(line).await });
                }
            }
            Err(_) => self.metrics.audit_lost(),
        }
    }
}

enum Output {
    Stdout,
    File(BufWriter<File>),
}

impl Output {
    fn open(path: &Path) -> io::Result<Output> {
        if path.as_os_str() == "-" {
            return Ok(Output::Stdout);
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Output::File(BufWriter::new(file)))
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Output::Stdout => io::stdout().lock().write_all(line),
            Output::File(file) => file.write_all(line),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout => io::stdout().lock().flush(),
            Output::File(file) => file.flush(),
        }
    }
}

/// Runs until the last sender is gone.
fn write_all(mut queue: Receiver<Vec<u8>>, mut output: Output, metrics: &Metrics) {
    while let Some(first) = queue.blocking_recv() {
        let mut outcome = output.write(&first);
        metrics.audit_written();
        while let Ok(line) = queue.try_recv() {
            outcome = outcome.and(output.write(&line));
            metrics.audit_written();
        }
        if let Err(cause) = outcome.and(output.flush()) {
            metrics.audit_failed();
            error!(%cause, "audit events could not be written");
        }
    }
}
