//! Who writes the log: its own thread, or a task of the runtime where there are no threads.
//!
//! Not here: the loop itself (wal), what is written (log_store.rs).

use std::future::poll_fn;

use tokio::task::JoinHandle;
use wal::{OpenError, Owner, Recovered, Turn, Wal};

use crate::surroundings::{Latency, Surroundings, Threads};

/// A log that was opened and whose owner does not work yet, if it is to be a task.
pub(crate) struct OpenedLog {
    pub wal: Wal,
    pub recovered: Recovered,
    owner: Option<Owner>,
}

/// The task, if it is one.
pub(crate) struct LogOwner {
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

pub(crate) fn open(config: wal::Config, surroundings: &Surroundings) -> Result<OpenedLog, OpenError> {
    let disk = surroundings.disk.clone();
    match surroundings.threads {
        Threads::System => {
            let (wal, recovered) = wal::open(config, disk)?;
            Ok(OpenedLog { wal, recovered, owner: None })
        }
        Threads::Tasks(_) => {
            let (wal, owner, recovered) = wal::open_inline(config, disk)?;
            Ok(OpenedLog { wal, recovered, owner: Some(owner) })
        }
    }
}

impl OpenedLog {
    pub(crate) fn start(self, surroundings: &Surroundings) -> (Wal, Recovered, LogOwner) {
        let task = match (self.owner, &surroundings.threads) {
            (Some(owner), Threads::Tasks(latency)) => {
                let latency = latency.clone();
                Some(tokio::spawn(run(owner, latency)))
            }
            _ => None,
        };
        (self.wal, self.recovered, LogOwner { task: tokio::sync::Mutex::new(task) })
    }
}

impl LogOwner {
    /// Waits for the task to end, after `Wal::close`; a thread was waited for there.
    pub(crate) async fn ended(&self) {
        if let Some(task) = self.task.lock().await.take()
            && task.await.is_err()
        {
            tracing::error!("the log's task panicked");
        }
    }
}

async fn run(mut owner: Owner, latency: Latency) {
    loop {
        match owner.turn() {
            Turn::Again => {}
            Turn::Wait => poll_fn(|context| owner.poll_queued(context)).await,
            Turn::Pause(pause) => {
                // Late is not early: what is queued meanwhile is written with the next turn.
                let _over = tokio::time::timeout(pause, poll_fn(|context| owner.poll_queued(context))).await;
            }
            Turn::Ended => return,
        }
        tokio::time::sleep(latency()).await;
    }
}
