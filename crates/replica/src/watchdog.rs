//! Small duties around membership: the first election, lifting a quarantine, members that join or were removed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::Question;
use crate::config::Config;
use crate::fatal::FatalReason;
use crate::handle::Inner;
use crate::{discover, node_of};

/// How long a fresh member looks for a cluster that already knows it. A refused connection answers at once, so only a
/// member that lives and is slow is waited for, or a machine that is gone.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
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

/// Whether a running cluster has this member's published URLs: then it ran before, with a data directory that is gone.
pub(crate) async fn was_started_before(config: &Config) -> bool {
    let others = config.initial_members.iter().filter(|member| member.id != config.identity.member_id);
    let (network, tls) = (&config.surroundings.network, config.peer_tls.as_ref());
    let asked = others.map(|member| discover(network, &member.peer_urls, tls, DISCOVER_TIMEOUT));
    join_all(asked).await.into_iter().flatten().any(|found| {
        found.cluster_id == config.identity.cluster_id
            && found
                .members
                .iter()
                .any(|member| member.id == config.identity.member_id && !member.client_urls.is_empty())
    })
}

/// Members that start together would sit out an election timeout; a single one too. Instead each campaigns as soon as a
/// quorum answers, in the order of their ids. With pre-vote this disturbs no leader that others still follow.
pub(crate) async fn first_election(inner: Arc<Inner>, shutdown: CancellationToken) {
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = elect_early(&inner) => {}
    }
}

async fn elect_early(inner: &Inner) {
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

async fn answers(inner: &Inner, id: u64) -> bool {
    let Some(node) = node_of(&inner.raft, id) else { return false };
    inner.peers.ask(id, &node, &Question::WhoAreYou, PROBE_TIMEOUT).await.is_ok()
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

/// Gives the member its vote back when it has again everything that a confirmed leader had committed.
pub(crate) async fn lift_quarantine(inner: Arc<Inner>, shutdown: CancellationToken) {
    if !inner.is_quarantined() {
        return;
    }
    tokio::select! {
        () = shutdown.cancelled() => return,
        () = caught_up(&inner) => {}
    }
    if let Err(error) = inner.log.healed().await {
        tracing::error!(%error, "the log cannot note that it is whole again");
        return;
    }
    if let Err(error) = inner.data_dir.lift_quarantine() {
        tracing::error!(%error, "lift the quarantine");
        return;
    }
    inner.quarantined.store(false, Ordering::Relaxed);
    inner.raft.runtime_config().elect(true);
    tracing::info!("caught up with the leader: the member votes again");
}

async fn caught_up(inner: &Inner) {
    let mut applied = inner.state.applied_watch();
    loop {
        let leader = inner.leadership.borrow().leader;
        let found = leader.and_then(|leader| Some((leader, node_of(&inner.raft, leader)?)));
        if let Some((leader, node)) = found
            && let Ok(index) = inner.peers.read_index(leader, &node, Duration::from_secs(1)).await
            && applied.wait_for(|next| *next > index).await.is_ok()
            && inner.flusher_handle.flush().await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
