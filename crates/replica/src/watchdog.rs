//! Small duties around membership: the first election, members that join or were removed.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::{Answer, Question, Standing};
use crate::fatal::FatalReason;
use crate::handle::Inner;
use crate::node_of;

const PROBE_INTERVAL: Duration = Duration::from_millis(15);
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);
/// Between the campaigns of members that started at the same time.
const RANK_DELAY: Duration = Duration::from_millis(60);
/// A campaign that has not made a leader after this, and a random time on top, is repeated.
const REMATCH_AFTER: Duration = Duration::from_millis(250);
const REMATCH_MS_MAX: u64 = 250;
const MEMBERS_INTERVAL: Duration = Duration::from_millis(200);
/// A removed member goes on for this long, so that the others learn of the removal from it if it leads.
const REMOVED_PATIENCE: Duration = Duration::from_secs(1);

/// Members that start together would sit out an election timeout; a single one too. Instead each campaigns as soon as a
/// quorum answers, in the order of their ids. With pre-vote this disturbs no leader that others still follow.
pub(crate) async fn first_election(inner: Arc<Inner>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = elect_early(&inner) => {}
    }
}

pub(crate) async fn elect_early(inner: &Inner) {
    if inner.is_quarantined() {
        return;
    }
    let me = inner.identity.member_id;
    let voters: Vec<u64> = inner.raft.metrics().borrow_watched().membership_config.voter_ids().collect();
    let Some(rank) = voters.iter().position(|id| *id == me) else { return };
    if voters.len() == 1 {
        // Fails only when raft has stopped.
        let _ = inner.raft.trigger().elect(false).await;
        return;
    }
    let deadline = Instant::now() + Duration::from_millis(inner.config.election_timeout_ms);
    let leaderless = || inner.raft.metrics().borrow_watched().current_leader.is_none();
    let mut pause = RANK_DELAY * u32::try_from(rank).unwrap_or(0);
    while Instant::now() < deadline && leaderless() {
        let answers = voters.iter().filter(|id| **id != me).map(|id| answers(inner, *id));
        let reachable = join_all(answers).await.into_iter().filter(|answers| *answers).count();
        if reachable < voters.len() / 2 {
            tokio::time::sleep(PROBE_INTERVAL).await;
            continue;
        }
        tokio::time::sleep(pause).await;
        if leaderless() && inner.raft.trigger().elect(inner.config.pre_vote).await.is_err() {
            return;
        }
        // A slow disk may have let everybody vote for itself; then it needs luck, as in any election.
        pause = Duration::from_millis(rand::random_range(0..REMATCH_MS_MAX));
        tokio::time::sleep(REMATCH_AFTER).await;
    }
}

/// Whether a member is there that gives votes.
async fn answers(inner: &Inner, id: u64) -> bool {
    let Some(node) = node_of(&inner.raft, id) else { return false };
    let answer = inner.peers.ask(id, &node, &Question::WhoAreYou, PROBE_TIMEOUT).await;
    matches!(answer, Ok(Answer::Description(said)) if said.standing == Standing::Votes)
}

/// Makes voters of members that have joined, and ends this member when it was removed.
pub(crate) async fn members(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut removed_since = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(MEMBERS_INTERVAL) => {}
        }
        if inner.leads() {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = inner.promote_joined() => {}
            }
        }
        let removed = inner.state.with_core(|core| core.position.removed.contains(&inner.identity.member_id));
        if !removed {
            continue;
        }
        let since = *removed_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= REMOVED_PATIENCE {
            inner.fatal.set(FatalReason::Removed);
            return;
        }
    }
}
