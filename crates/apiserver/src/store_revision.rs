//! The store's current revision, by one linearizable read shared by all who ask at about the same time.
//!
//! Invariant: an answer comes from a read that began after the question was asked, so it is at least as new as any write
//! that the asker could know of. Not here: waiting until the feed has reached it (feed.rs).

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::storage::{ReadError, Storage};

/// Questions that may wait at once; more wait for a place.
const WAITING_MAX: usize = 4_096;

type Question = oneshot::Sender<Result<i64, ReadError>>;

#[derive(Clone)]
pub(crate) struct StoreRevision {
    questions: mpsc::Sender<Question>,
}

impl StoreRevision {
    pub(crate) fn start(storage: Storage, shutdown: CancellationToken) -> StoreRevision {
        let (questions, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(answer(storage, waiting, shutdown));
        StoreRevision { questions }
    }

    pub(crate) async fn read(&self) -> Result<i64, ReadError> {
        let stopping = || ReadError::Unavailable("the server is shutting down".to_owned());
        let (question, answer) = oneshot::channel();
        self.questions.send(question).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

async fn answer(storage: Storage, mut waiting: mpsc::Receiver<Question>, shutdown: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        let taken = tokio::select! {
            () = shutdown.cancelled() => return,
            taken = waiting.recv_many(&mut batch, WAITING_MAX) => taken,
        };
        if taken == 0 {
            return;
        }
        let result = tokio::select! {
            () = shutdown.cancelled() => return,
            result = storage.revision() => result,
        };
        for question in batch.drain(..) {
            // Whoever asked may have gone.
            let _ = question.send(result.clone());
        }
    }
}
