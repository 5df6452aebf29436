//! Who leads, as this member knows it.
//!
//! openraft keeps naming a leader until it votes for another one, even when that leader has long been out of reach.
//! Clients must not: a follower that has not heard from its leader for an election timeout, and a leader that has not
//! heard from a quorum for as long, say that there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::Raft;
use crate::fatal::{Fatal, FatalReason};
use crate::leases::Leases;
use crate::metrics::Counters;
use crate::state::State;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub leader: Option<u64>,
}

/// When this member last heard from a leader.
pub(crate) struct Contact {
    start: Instant,
    last_ms: AtomicU64,
}

impl Contact {
    pub(crate) fn new() -> Contact {
        Contact { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn touch(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn silent_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }
}

pub(crate) struct Watcher {
    pub member_id: u64,
    pub raft: Raft,
    pub state: Arc<State>,
    pub leases: Arc<Leases>,
    pub contact: Arc<Contact>,
    pub counters: Arc<Counters>,
    pub fatal: Fatal,
    pub election_timeout: Duration,
    pub sender: watch::Sender<Leadership>,
}

impl Watcher {
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut changes = self.raft.server_metrics();
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        let mut leading_term = None;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = changes.changed() => if changed.is_err() {
                    if !shutdown.is_cancelled() {
                        self.raft_ended();
                    }
                    break;
                },
                _ = tick.tick() => {}
            }
            self.look(&mut leading_term);
        }
        self.leases.demote();
    }

    fn raft_ended(&self) {
        let state = self.raft.metrics().borrow_watched().running_state.clone();
        let reason = state.err().map_or_else(|| "raft stopped".to_owned(), |error| error.to_string());
        self.fatal.set(FatalReason::Raft(reason));
    }

    fn look(&self, leading_term: &mut Option<u64>) {
        let receiver = self.raft.metrics();
        let (term, mut leader, state, quorum_silent) = {
            let metrics = receiver.borrow_watched();
            if let Err(error) = &metrics.running_state {
                self.fatal.set(FatalReason::Raft(error.to_string()));
            }
            let voters = metrics.membership_config.voter_ids().count();
            let silent = match metrics.last_quorum_acked {
                Some(at) if voters > 1 => at.into_inner().elapsed(),
                Some(_) | None => Duration::ZERO,
            };
            (metrics.current_term, metrics.current_leader, metrics.state, silent)
        };
        let leads = leader == Some(self.member_id) && state.is_leader();
        if leads && *leading_term != Some(term) {
            self.state.with_core(|core| self.leases.promote(&core.store));
            *leading_term = Some(term);
        } else if !leads && leading_term.take().is_some() {
            self.leases.demote();
        }
        let unreachable = match leader {
            Some(id) if id == self.member_id => !leads || quorum_silent > self.election_timeout,
            Some(_) => self.contact.silent_for() > self.election_timeout,
            None => false,
        };
        if unreachable {
            leader = None;
        }
        let next = Leadership { term, leader };
        self.sender.send_if_modified(|current| {
            if *current == next {
                return false;
            }
            if next.leader.is_some() && current.leader != next.leader {
                self.counters.leader_changes.fetch_add(1, Ordering::Relaxed);
                tracing::info!(leader = next.leader.map(|id| format!("{id:x}")), term, "leader changed");
            }
            *current = next;
            true
        });
    }
}
