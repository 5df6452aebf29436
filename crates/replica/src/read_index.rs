//! Linearizable reads: one round serves all that wait.
//!
//! A round asks the leader for an index at which it has just confirmed that it leads, then waits for local apply. Only
//! readers that waited before the round began are served by it; a round that fails (leader change, no quorum, no answer
//! within 500 ms) is dropped and a new one begins, so that a late confirmation never answers a younger read.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use openraft::LinearizerOption;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Raft;
use crate::leadership::Leadership;
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::state::State;

const ROUND_TIMEOUT: Duration = Duration::from_millis(500);
const RETRY_PAUSE: Duration = Duration::from_millis(10);
const WAITING_MAX: usize = 65_536;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("no leader")]
    NoLeader,
    #[error("leader changed")]
    LeaderChanged,
    #[error("request timed out")]
    Timeout { waited: Duration },
    #[error("too many requests")]
    TooManyRequests,
    #[error("server stopped")]
    Stopped,
}

#[derive(Clone)]
pub(crate) struct ReadIndex {
    sender: mpsc::Sender<Waiter>,
}

struct Waiter {
    reply: oneshot::Sender<u64>,
    until_applied: bool,
}

pub(crate) struct Rounds {
    pub member_id: u64,
    pub raft: Raft,
    pub state: Arc<State>,
    pub peers: Arc<Peers>,
    pub counters: Arc<Counters>,
    pub leadership: watch::Receiver<Leadership>,
}

impl ReadIndex {
    pub(crate) fn start(rounds: Rounds, shutdown: CancellationToken) -> ReadIndex {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(rounds.run(receiver, shutdown));
        ReadIndex { sender }
    }

    /// The index that a confirmed leader named; with `until_applied`, after local apply has reached it.
    pub(crate) async fn index(&self, until_applied: bool, timeout: Duration) -> Result<u64, ReadError> {
        let (reply, receiver) = oneshot::channel();
        self.sender.try_send(Waiter { reply, until_applied }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::TooManyRequests,
            mpsc::error::TrySendError::Closed(_) => ReadError::Stopped,
        })?;
        match tokio::time::timeout(timeout, receiver).await {
            Ok(Ok(index)) => Ok(index),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::Timeout { waited: timeout }),
        }
    }
}

impl Rounds {
    async fn run(mut self, mut receiver: mpsc::Receiver<Waiter>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.serve(&mut receiver) => {}
        }
    }

    async fn serve(&mut self, receiver: &mut mpsc::Receiver<Waiter>) {
        let mut waiting = Vec::new();
        loop {
            waiting.retain(|waiter: &Waiter| !waiter.reply.is_closed());
            if waiting.is_empty() && receiver.recv_many(&mut waiting, WAITING_MAX).await == 0 {
                return;
            }
            while let Ok(waiter) = receiver.try_recv() {
                waiting.push(waiter);
            }
            let started = Instant::now();
            match self.round().await {
                Some(index) => {
                    if started.elapsed() > ROUND_TIMEOUT {
                        self.counters.slow_read_indexes.fetch_add(1, Ordering::Relaxed);
                    }
                    while planted::is(Bug::JoinsRunningRound)
                        && let Ok(waiter) = receiver.try_recv()
                    {
                        waiting.push(waiter);
                    }
                    self.answer(std::mem::take(&mut waiting), index);
                }
                None => {
                    self.counters.read_indexes_failed.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    fn answer(&self, waiting: Vec<Waiter>, index: u64) {
        let mut applied = self.state.applied_watch();
        let mut later = Vec::new();
        let ready = *applied.borrow() > index || planted::is(Bug::ReadBeforeApply);
        for waiter in waiting {
            if ready || !waiter.until_applied {
                // A reader that gave up does not listen.
                let _ = waiter.reply.send(index);
            } else {
                later.push(waiter);
            }
        }
        if later.is_empty() {
            return;
        }
        tokio::spawn(async move {
            // The waiters' own timeouts end this: the watch lives as long as the member.
            if tokio::time::timeout(Duration::from_secs(60), applied.wait_for(|next| *next > index))
                .await
                .is_ok()
            {
                for waiter in later {
                    let _ = waiter.reply.send(index);
                }
            }
        });
    }

    /// `None`: nobody confirmed; try again with a new round.
    async fn round(&mut self) -> Option<u64> {
        if planted::is(Bug::ReadWithoutQuorum) && self.raft.metrics().borrow_watched().state.is_leader() {
            return Some(self.state.applied_next().saturating_sub(1));
        }
        let leadership = *self.leadership.borrow_and_update();
        let Some(leader) = leadership.leader else {
            let _ = tokio::time::timeout(ROUND_TIMEOUT, self.leadership.changed()).await;
            return None;
        };
        let mut changes = self.leadership.clone();
        let changed = async move {
            // Ends the round only if another leader took over, or this one was lost.
            while changes.changed().await.is_ok() {
                if changes.borrow().leader != Some(leader) {
                    return;
                }
            }
        };
        tokio::select! {
            index = self.ask(leader) => index,
            () = changed => None,
        }
    }

    async fn ask(&self, leader: u64) -> Option<u64> {
        if leader == self.member_id {
            let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(ROUND_TIMEOUT);
            let linearizer = self.raft.get_read_linearizer(option).await.ok()?;
            return Some(linearizer.read_log_id().index());
        }
        let node = crate::node_of(&self.raft, leader)?;
        self.peers.read_index(leader, &node, ROUND_TIMEOUT).await.ok()
    }
}
