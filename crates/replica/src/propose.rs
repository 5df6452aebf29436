//! How a proposal reaches a log.
//!
//! On the leader it goes straight to openraft, which merges whatever waits into one append. On a follower it goes to the
//! forwarder, one task with one long-lived stream to the current leader. Either way the answer comes from local apply.
//! Invariant: a proposal is offered again only when the last taker said that it did not take it.
//! Not here: who waits (waiters.rs).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mvcc::Applied;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::codec;
use crate::leadership::Leadership;
use crate::peers::{Peers, frame};
use crate::planted::{self, Bug};
use crate::waiters::{Outcome, Refusal, Waiters};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Nothing was appended anywhere.
    #[error("no leader")]
    NoLeader,
    #[error("too many requests")]
    TooManyRequests,
    #[error("request is too large: {size_bytes} bytes, limit is {limit_bytes}")]
    TooLarge { size_bytes: usize, limit_bytes: usize },
    #[error("not applied within {waited:?}, it may still be")]
    OutcomeUnknown { waited: Duration },
    #[error("server stopped")]
    Stopped,
}

/// Proposals in one frame of the forward stream.
const FRAME_PROPOSALS_MAX: usize = 256;
/// Proposals that wait for the stream; more are refused as too many requests.
const QUEUE_PROPOSALS_MAX: usize = 16_384;
const FRAMES_AHEAD: usize = 64;
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone)]
pub(crate) struct Forwarder {
    sender: mpsc::Sender<(u64, Bytes)>,
}

impl Forwarder {
    pub(crate) fn start(task: ForwardTask, shutdown: CancellationToken) -> Forwarder {
        let (sender, receiver) = mpsc::channel(QUEUE_PROPOSALS_MAX);
        tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = task.run(receiver) => {}
            }
        });
        Forwarder { sender }
    }

    /// `false`: the queue is full, the proposal was not taken.
    pub(crate) fn offer(&self, id: u64, payload: Bytes) -> bool {
        self.sender.try_send((id, payload)).is_ok()
    }
}

pub(crate) struct ForwardTask {
    pub member_id: u64,
    pub raft: crate::Raft,
    pub peers: Arc<Peers>,
    pub waiters: Arc<Waiters>,
    pub leadership: watch::Receiver<Leadership>,
}

/// An open stream to a leader. Dropping `frames` ends it.
struct Stream {
    leader: u64,
    frames: mpsc::Sender<wire::peerpb::Frame>,
}

impl ForwardTask {
    async fn run(self, mut queue: mpsc::Receiver<(u64, Bytes)>) {
        let mut stream: Option<Stream> = None;
        let mut batch = Vec::with_capacity(FRAME_PROPOSALS_MAX);
        while queue.recv_many(&mut batch, FRAME_PROPOSALS_MAX).await > 0 {
            let leader = self.leadership.borrow().leader.filter(|id| *id != self.member_id);
            if stream.as_ref().is_some_and(|open| Some(open.leader) != leader || open.frames.is_closed()) {
                stream = None;
            }
            if let (None, Some(leader)) = (&stream, leader) {
                stream = self.open(leader).await;
            }
            stream = match stream {
                Some(open) => self.send(open, &mut batch).await,
                None => {
                    self.refuse(&mut batch);
                    None
                }
            };
        }
    }

    /// Marks the batch as handed over and sends it. The stream comes back unless it broke.
    async fn send(&self, stream: Stream, batch: &mut Vec<(u64, Bytes)>) -> Option<Stream> {
        // Room first: what was not handed over may be offered again, what was may not.
        let Ok(Ok(permit)) = tokio::time::timeout(OPEN_TIMEOUT, stream.frames.reserve()).await else {
            self.refuse(batch);
            return None;
        };
        batch.retain(|(id, _)| self.waiters.hand_over(*id));
        if !batch.is_empty() {
            permit.send(frame(codec::forward_bytes(batch)));
            batch.clear();
        } else {
            drop(permit);
        }
        Some(stream)
    }

    fn refuse(&self, batch: &mut Vec<(u64, Bytes)>) {
        for (id, _) in batch.drain(..) {
            self.waiters.complete(id, Outcome::Refused);
        }
    }

    async fn open(&self, leader: u64) -> Option<Stream> {
        let node = crate::node_of(&self.raft, leader)?;
        let (frames, receiver) = mpsc::channel(FRAMES_AHEAD);
        let answers = match self.peers.forward(leader, &node, receiver, OPEN_TIMEOUT).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(%error, "open a forward stream");
                return None;
            }
        };
        tokio::spawn(refusals(answers, self.waiters.clone()));
        Some(Stream { leader, frames })
    }
}

/// Ends with the stream. Proposals without an answer keep waiting: a new leader may still apply them.
async fn refusals(mut answers: tonic::Streaming<wire::peerpb::Frame>, waiters: Arc<Waiters>) {
    while let Ok(Some(answer)) = answers.message().await {
        match codec::refusal(answer.payload) {
            Ok((id, refusal)) => waiters.complete(
                id,
                match refusal {
                    Refusal::NotLeader => Outcome::Refused,
                    Refusal::TooManyRequests => Outcome::TooManyRequests,
                    Refusal::Unknown => Outcome::Unknown,
                },
            ),
            Err(error) => {
                tracing::warn!(%error, "answer on a forward stream");
                return;
            }
        }
    }
    if planted::is(Bug::StreamEndRefuses) {
        waiters.refuse_all();
    }
}

/// Removes a waiter whose caller went away.
pub(crate) struct Abandon<'a> {
    pub waiters: &'a Waiters,
    pub id: u64,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        self.waiters.abandon(self.id);
    }
}

/// What a finished wait means for the caller; `None`: offer it again.
pub(crate) fn outcome(outcome: Outcome, waited: Duration) -> Option<Result<Applied, ProposeError>> {
    match outcome {
        Outcome::Applied(applied) => Some(Ok(applied)),
        Outcome::Refused => None,
        Outcome::TooManyRequests => Some(Err(ProposeError::TooManyRequests)),
        Outcome::Unknown => Some(Err(ProposeError::OutcomeUnknown { waited })),
    }
}
