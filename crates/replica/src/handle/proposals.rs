//! A member's proposals: admission, handing over, waiting. See propose.rs for the way to another member.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mvcc::{Applied, Caller, Command, Proposal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Inner;
use crate::codec;
use crate::planted::{self, Bug};
use crate::propose::{Abandon, ProposeError, outcome};
use crate::raft_types::Payload;
use crate::waiters::{Outcome, Refused, write_responder};

/// Before a proposal that nobody took is offered again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// Of the planted bug.
const ATTEMPT: Duration = Duration::from_millis(150);
/// Log entries that may wait for the disk before proposals are refused.
const UNWRITTEN_SIZE_BYTES_MAX: u64 = 256 << 20;
/// Rows that apply may have ahead of the state file before proposals are refused.
const UNFLUSHED_SIZE_BYTES_MAX: usize = 512 << 20;

/// A proposal that is on its way into this member's own log.
pub(crate) struct HandedOver<'a> {
    receiver: oneshot::Receiver<Outcome>,
    started: Instant,
    deadline: Instant,
    _gone: Abandon<'a>,
}

impl HandedOver<'_> {
    pub(crate) async fn applied(self) -> Result<Applied, ProposeError> {
        match tokio::time::timeout_at(self.deadline, self.receiver).await {
            Ok(Ok(result)) => outcome(result, self.started.elapsed()).unwrap_or(Err(ProposeError::NoLeader)),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::OutcomeUnknown { waited: self.started.elapsed() }),
        }
    }
}

impl Inner {
    /// Apply lags behind commit, or a disk behind what it is given.
    pub(crate) fn is_overloaded(&self) -> bool {
        let committed = self.log.committed().map_or(0, |id| id.index + 1);
        let lag = committed.saturating_sub(self.state.applied_next());
        lag > self.config.proposals_max as u64
            || self.log.unwritten_size_bytes() > UNWRITTEN_SIZE_BYTES_MAX
            || self.state.with_core(|core| core.store.unflushed_size_bytes()) > UNFLUSHED_SIZE_BYTES_MAX
    }

    pub(crate) async fn propose(&self, caller: Caller, command: Command) -> Result<Applied, ProposeError> {
        self.propose_by(caller, command, Instant::now() + self.config.request_timeout).await
    }

    pub(crate) async fn propose_by(
        &self,
        caller: Caller,
        command: Command,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let id = self.waiters.next_id();
        let proposal = Proposal { id, member: self.identity.member_id, caller, command };
        let mut bytes = vec![codec::ENTRY_NORMAL];
        proposal.encode(&mut bytes);
        // The encoding may be a little larger than the request that the limit speaks of.
        let limit_bytes = self.config.request_size_bytes_max + 4_096;
        if bytes.len() > limit_bytes {
            return Err(ProposeError::TooLarge { size_bytes: bytes.len(), limit_bytes });
        }
        if self.shutdown.is_cancelled() {
            return Err(ProposeError::Stopped);
        }
        if self.waiters.waiting() >= self.config.proposals_max || self.is_overloaded() {
            return Err(ProposeError::TooManyRequests);
        }
        let result = self.propose_encoded(id, bytes.into(), deadline).await;
        if result.is_err() {
            self.waiters.failed.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    /// Only into this member's own log, while it leads: never handed to another leader. What was handed over earlier
    /// comes earlier in the log.
    pub(crate) async fn hand_over_here(&self, command: Command) -> Result<HandedOver<'_>, ProposeError> {
        let id = self.waiters.next_id();
        let proposal = Proposal { id, member: self.identity.member_id, caller: Caller::System, command };
        let mut bytes = vec![codec::ENTRY_NORMAL];
        proposal.encode(&mut bytes);
        let started = Instant::now();
        let gone = Abandon { waiters: &self.waiters, id };
        let receiver = self.waiters.register(id);
        self.waiters.hand_over(id);
        let responder = write_responder(id, Refused::Local(self.waiters.clone()));
        let deadline = started + self.config.request_timeout;
        let handing_over = self.raft.client_write_ff(Payload(bytes.into()), Some(responder));
        match tokio::time::timeout_at(deadline, handing_over).await {
            Ok(Ok(())) => Ok(HandedOver { receiver, started, deadline, _gone: gone }),
            Ok(Err(_)) => Err(ProposeError::Stopped),
            Err(_) => Err(ProposeError::OutcomeUnknown { waited: started.elapsed() }),
        }
    }

    pub(crate) async fn propose_encoded(
        &self,
        id: u64,
        payload: bytes::Bytes,
        deadline: Instant,
    ) -> Result<Applied, ProposeError> {
        let started = Instant::now();
        let _gone = Abandon { waiters: &self.waiters, id };
        loop {
            let receiver = self.waiters.register(id);
            self.offer(id, payload.clone(), deadline).await?;
            let attempt = match planted::is(Bug::ProposeTwice) {
                true => deadline.min(Instant::now() + ATTEMPT),
                false => deadline,
            };
            match tokio::time::timeout_at(attempt, receiver).await {
                Err(_) if attempt < deadline => {}
                Ok(Ok(result)) => {
                    if let Some(result) = outcome(result, started.elapsed()) {
                        return result;
                    }
                    if self.shutdown.is_cancelled() {
                        return Err(ProposeError::Stopped);
                    }
                    if Instant::now() + RETRY_PAUSE >= deadline {
                        return Err(ProposeError::NoLeader);
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
                // The table never drops a waiter without an answer.
                Ok(Err(_)) => return Err(ProposeError::Stopped),
                Err(_) => {
                    let waited = started.elapsed();
                    return Err(if self.waiters.abandon(id) {
                        ProposeError::OutcomeUnknown { waited }
                    } else {
                        ProposeError::NoLeader
                    });
                }
            }
        }
    }

    /// Gives a registered proposal to whoever leads. Errors only while it is in nobody's hands.
    pub(crate) async fn offer(
        &self,
        id: u64,
        payload: bytes::Bytes,
        deadline: Instant,
    ) -> Result<(), ProposeError> {
        let leader = match self.known_leader(deadline).await {
            Some(Ok(leader)) => leader,
            Some(Err(())) => return Err(ProposeError::Stopped),
            None => return Err(ProposeError::NoLeader),
        };
        if leader != self.identity.member_id {
            return if self.forwarder.offer(id, payload) {
                Ok(())
            } else {
                Err(ProposeError::TooManyRequests)
            };
        }
        self.waiters.hand_over(id);
        let responder = write_responder(id, Refused::Local(self.waiters.clone()));
        match self.raft.client_write_ff(Payload(payload), Some(responder)).await {
            Ok(()) => Ok(()),
            Err(_) => Err(ProposeError::Stopped),
        }
    }

    /// Waits for a leader to be known. `None`: not before the deadline; `Err`: the member stops.
    pub(crate) async fn known_leader(&self, deadline: Instant) -> Option<Result<u64, ()>> {
        if let Some(leader) = self.leadership.borrow().leader {
            return Some(Ok(leader));
        }
        let mut leadership = self.leadership.clone();
        loop {
            match tokio::time::timeout_at(deadline, leadership.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Some(Err(())),
                Err(_) => return None,
            }
            if let Some(leader) = leadership.borrow_and_update().leader {
                return Some(Ok(leader));
            }
        }
    }
}
