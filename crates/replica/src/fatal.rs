//! The one place that says "this member must end".
//!
//! A failed write to the log or the state file is never retried: what the disk holds is unknown after it.

use std::sync::Arc;

use tokio::sync::watch;

/// Why the process must end. Not to be handled, only to be printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FatalReason {
    #[error("write-ahead log: {0}")]
    Log(String),
    #[error("state file: {0}")]
    StateFile(String),
    #[error("raft: {0}")]
    Raft(String),
    #[error("the member has been permanently removed from the cluster")]
    Removed,
}

#[derive(Clone)]
pub(crate) struct Fatal {
    sender: Arc<watch::Sender<Option<FatalReason>>>,
}

impl Fatal {
    pub(crate) fn new() -> Fatal {
        Fatal { sender: Arc::new(watch::Sender::new(None)) }
    }

    /// The first reason stays.
    pub(crate) fn set(&self, reason: FatalReason) {
        self.sender.send_if_modified(|current| {
            if current.is_some() {
                return false;
            }
            tracing::error!(%reason, "member must end");
            *current = Some(reason);
            true
        });
    }

    pub(crate) fn is_set(&self) -> bool {
        self.sender.borrow().is_some()
    }

    /// Resolves when a reason is set; never otherwise.
    pub(crate) async fn wait(&self) -> FatalReason {
        let mut receiver = self.sender.subscribe();
        match receiver.wait_for(Option::is_some).await.map(|reason| reason.clone()) {
            Ok(Some(reason)) => reason,
            // The sender lives in `self`, and the predicate asked for a reason.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}
