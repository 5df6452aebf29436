//! Who waits for which proposal.
//!
//! A proposal is completed by *local* apply, on whichever member it was made; the id is the key. A waiter knows whether
//! its proposal was handed to a leader: only before that may a failure be reported as "was not proposed".
//! Not here: queues and retries (propose.rs).

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mvcc::Applied;
use openraft::errors::{ClientWriteError, ForwardReason};
use openraft::raft::ClientWriteResult;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::planted::{self, Bug};
use crate::raft_types::TypeConfig;

/// What a waiter hears.
#[derive(Debug)]
pub(crate) enum Outcome {
    Applied(Applied),
    /// No leader took it; it is not in any log. It may be proposed again.
    Refused,
    /// The leader is too busy; it is not in any log.
    TooManyRequests,
    /// It was in a log and was cut off with that log; some other member may still bring it back.
    Unknown,
}

pub(crate) struct Waiters {
    table: Mutex<HashMap<u64, Waiter>>,
    next_id: AtomicU64,
    pub failed: AtomicU64,
}

struct Waiter {
    reply: oneshot::Sender<Outcome>,
    handed: bool,
}

impl Waiters {
    pub(crate) fn new() -> Arc<Waiters> {
        // A random start keeps ids of one life of the member apart from those of a former life that are replayed.
        let first_id = if planted::is(Bug::IdsFromZero) { 0 } else { rand::random::<u64>() >> 1 };
        Arc::new(Waiters {
            table: Mutex::new(HashMap::new()),
            next_id: AtomicU64::new(first_id),
            failed: AtomicU64::new(0),
        })
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn waiting(&self) -> usize {
        self.table.lock().len()
    }

    pub(crate) fn waits(&self, id: u64) -> bool {
        self.table.lock().contains_key(&id)
    }

    pub(crate) fn register(&self, id: u64) -> oneshot::Receiver<Outcome> {
        let (reply, receiver) = oneshot::channel();
        self.table.lock().insert(id, Waiter { reply, handed: false });
        receiver
    }

    /// To be called before a proposal leaves for a leader. `false`: nobody waits any more, so it must not be sent.
    pub(crate) fn hand_over(&self, id: u64) -> bool {
        self.table.lock().get_mut(&id).map(|waiter| waiter.handed = true).is_some()
    }

    /// Ends the wait. `true` if the proposal may have been appended somewhere.
    pub(crate) fn abandon(&self, id: u64) -> bool {
        self.table.lock().remove(&id).is_some_and(|waiter| waiter.handed)
    }

    pub(crate) fn complete(&self, id: u64, outcome: Outcome) {
        let waiter = self.table.lock().remove(&id);
        if let Some(waiter) = waiter {
            // The caller may have given up in between; then nobody needs the answer.
            let _ = waiter.reply.send(outcome);
        }
    }

    /// Of a planted bug.
    pub(crate) fn refuse_all(&self) {
        let table = std::mem::take(&mut *self.table.lock());
        for (_, waiter) in table {
            let _ = waiter.reply.send(Outcome::Refused);
        }
    }

    /// Completes every waiter, for a member that stops: handed ones as unknown, the others as refused.
    pub(crate) fn stop(&self) {
        let table = std::mem::take(&mut *self.table.lock());
        for (_, waiter) in table {
            let outcome = if waiter.handed { Outcome::Unknown } else { Outcome::Refused };
            let _ = waiter.reply.send(outcome);
        }
    }
}

/// What openraft calls when a write leaves its hands. Success needs nothing (local apply completes the waiter); a
/// refusal must be told to whoever proposed: a local waiter, or the follower at the other end of a forward stream.
pub(crate) struct WriteResponder<T> {
    id: u64,
    refused: Refused,
    classify: fn(&T) -> Option<Outcome>,
}

/// Where refusals go.
#[derive(Clone)]
pub(crate) enum Refused {
    Local(Arc<Waiters>),
    Remote(tokio::sync::mpsc::UnboundedSender<(u64, Refusal)>),
}

/// A refusal as it travels back to the follower that forwarded the proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotLeader,
    TooManyRequests,
    Unknown,
}

pub(crate) type WriteResult = ClientWriteResult<TypeConfig>;

pub(crate) fn write_responder(id: u64, refused: Refused) -> WriteResponder<WriteResult> {
    WriteResponder { id, refused, classify: classify_write }
}

fn classify_write(result: &WriteResult) -> Option<Outcome> {
    match result {
        Ok(_) => None,
        Err(ClientWriteError::ForwardToLeader(forward)) => match forward.reason {
            ForwardReason::NotLeader | ForwardReason::LeadershipTransfer | ForwardReason::LeaseExpired => {
                Some(Outcome::Refused)
            }
        },
        Err(ClientWriteError::LogEntryDiscarded(_)) => Some(Outcome::Unknown),
        // Neither belongs to a plain write; nothing was appended.
        Err(ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)) => {
            Some(Outcome::Refused)
        }
    }
}

impl<T: openraft::OptionalSend + 'static> openraft::raft::responder::Responder<TypeConfig, T>
    for WriteResponder<T>
{
    fn on_complete(self, result: T) {
        let Some(outcome) = (self.classify)(&result) else { return };
        match self.refused {
            Refused::Local(waiters) => waiters.complete(self.id, outcome),
            Refused::Remote(sender) => {
                let refusal = match outcome {
                    Outcome::Applied(_) => return,
                    Outcome::Refused => Refusal::NotLeader,
                    Outcome::TooManyRequests => Refusal::TooManyRequests,
                    Outcome::Unknown => Refusal::Unknown,
                };
                // A closed stream means that the follower is gone, and its waiters with it.
                let _ = sender.send((self.id, refusal));
            }
        }
    }
}
