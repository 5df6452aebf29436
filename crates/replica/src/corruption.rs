//! Members compare what they hold: at start, all of it from time to time, and what each compaction left.
//!
//! Compared are checksums at one revision and one compact revision. The leader asks; members that differ from a majority
//! get the alarm CORRUPT, without a majority the alarm names member 0, as etcd's check after compactions has it; from
//! then on no member writes. Invariant: a comparison that could not be made is a warning and a metric, never a success.
//! Not here: the checksum itself (mvcc), checksums of single records (scrub.rs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mvcc::{AlarmAction, AlarmCommand, AlarmKind, AlarmMember, Caller, Command, HashKv};
use tokio_util::sync::CancellationToken;

use crate::codec::{Answer, Question};
use crate::handle::Inner;
use crate::metrics::Counters;
use crate::peers::Peers;
use crate::planted::{self, Bug};
use crate::raft_types::Node;
use crate::state::State;

/// Whether a member answers at all. One that is starting itself accepts connections and says nothing.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A big state takes seconds to read.
const HASH_TIMEOUT: Duration = Duration::from_secs(120);

/// The member must not serve what it has.
#[derive(Debug, thiserror::Error)]
#[error("{member:x} found data inconsistency with peers")]
pub struct Inconsistent {
    pub member: u64,
}

/// What another member says about the revision that it was asked for.
struct PeerHash {
    member: u64,
    /// Or why it says nothing.
    answer: Result<Told, String>,
}

#[derive(Clone, Copy)]
struct Told {
    hash: u32,
    compact_revision: i64,
    /// The member's current one.
    revision: i64,
}

/// What a comparison found.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Every member has the same.
    Equal,
    /// As far as members could be compared they have the same.
    Incomplete,
    /// These have something else than a majority; 0 when there is no majority.
    Differ(Vec<u64>),
}

async fn ask(peers: &Peers, member: u64, node: &Node, revision: i64) -> Result<Told, String> {
    let wrong = |error: crate::peers::AskError| error.to_string();
    peers.ask(member, node, &Question::WhoAreYou, PROBE_TIMEOUT).await.map_err(wrong)?;
    match peers.ask(member, node, &Question::HashKv { revision }, HASH_TIMEOUT).await.map_err(wrong)? {
        Answer::HashKv { hash, compact_revision, revision } => Ok(Told { hash, compact_revision, revision }),
        Answer::NoHash { reason } => Err(reason),
        other => Err(format!("unexpected answer {other:?}")),
    }
}

/// Asks all members but this one, at the same time.
async fn ask_others(me: u64, state: &State, peers: &Peers, revision: i64) -> Vec<PeerHash> {
    let nodes: Vec<(u64, Node)> = state.with_core(|core| {
        let others = core.position.membership.nodes().filter(|(id, _)| **id != me);
        others.map(|(id, node)| (*id, node.clone())).collect()
    });
    join_all(nodes.iter().map(async |(member, node)| {
        let answer = ask(peers, *member, node, revision).await;
        PeerHash { member: *member, answer }
    }))
    .await
}

/// `current` is a revision and a compact revision that no member can be ahead of.
fn judge(me: u64, own: HashKv, others: &[PeerHash], current: Option<(i64, i64)>) -> Verdict {
    let mut by_hash: BTreeMap<u32, Vec<u64>> = BTreeMap::from([(own.hash, vec![me])]);
    let mut ahead = Vec::new();
    let mut compared = 0;
    for PeerHash { member, answer } in others {
        let skipped = match answer {
            Ok(told) if current.is_some_and(|now| told.revision > now.0 || told.compact_revision > now.1) => {
                tracing::warn!(
                    peer = format!("{member:x}"),
                    revision = told.revision,
                    compact_revision = told.compact_revision,
                    "revision from follower must be less than or equal to leader's"
                );
                ahead.push(*member);
                continue;
            }
            Ok(told) if told.compact_revision == own.compact_revision => {
                by_hash.entry(told.hash).or_default().push(*member);
                compared += 1;
                continue;
            }
            Ok(told) => format!(
                "it is compacted to {}, this member to {}",
                told.compact_revision, own.compact_revision
            ),
            Err(reason) => reason.clone(),
        };
        tracing::warn!(peer = format!("{member:x}"), reason = skipped, "skipped peer's hash");
    }
    if by_hash.len() == 1 && ahead.is_empty() {
        let is_whole = compared == others.len() || planted::is(Bug::NotComparedIsEqual);
        return if is_whole { Verdict::Equal } else { Verdict::Incomplete };
    }
    let members = others.len() + 1;
    let quorum = members / 2 + 1;
    let Some(right) = by_hash.iter().find(|(_, members)| members.len() >= quorum).map(|(hash, _)| *hash)
    else {
        // A member that is ahead of a confirmed leader is wrong, whatever the others say.
        return Verdict::Differ(if by_hash.len() == 1 { ahead } else { vec![0] });
    };
    by_hash.remove(&right);
    let mut wrong: Vec<u64> = by_hash.into_values().flatten().chain(ahead).collect();
    wrong.sort_unstable();
    Verdict::Differ(wrong)
}

fn count(counters: &Counters, verdict: &Verdict) {
    let checks = &counters.corruption_checks;
    let counter: &AtomicU64 = match verdict {
        Verdict::Equal => &checks.passed,
        Verdict::Incomplete => &checks.incomplete,
        Verdict::Differ(_) => &checks.failed,
    };
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Before anything is served. Members that cannot be asked do not keep this one from starting.
pub(crate) async fn initial(
    me: u64,
    state: &State,
    peers: &Peers,
    counters: &Counters,
) -> Result<(), Inconsistent> {
    if state.position().applied.is_none() {
        return Ok(());
    }
    tracing::info!("starting initial corruption check");
    let own = match state.hash_kv(0).await {
        Ok(own) => own,
        Err(error) => {
            tracing::error!(%error, "initial corruption check cannot read this member's own state");
            counters.corruption_checks.failed.fetch_add(1, Ordering::Relaxed);
            return Err(Inconsistent { member: me });
        }
    };
    let others = ask_others(me, state, peers, own.hash_revision).await;
    let verdict = judge(me, own, &others, None);
    count(counters, &verdict);
    match verdict {
        Verdict::Equal => tracing::info!("initial corruption checking passed; no corruption"),
        Verdict::Incomplete => {
            tracing::warn!("initial corruption check could not compare every member; nothing is known");
        }
        Verdict::Differ(members) => {
            tracing::error!(members = names(&members), "found different hash values from remote peer");
            if members.contains(&me) || members == [0] {
                return Err(Inconsistent { member: me });
            }
        }
    }
    Ok(())
}

/// What the leader does while the member runs.
pub(crate) async fn run(inner: Arc<Inner>, shutdown: CancellationToken) {
    let (all, compacted) = (inner.config.corrupt_check_interval, inner.config.compact_hash_check_interval);
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = async { tokio::join!(compare_all(&inner, all), compare_compacted(&inner, compacted)); } => {}
    }
}

async fn compare_all(inner: &Inner, interval: Option<Duration>) {
    let Some(interval) = interval else { return };
    loop {
        tokio::time::sleep(interval).await;
        if inner.leads()
            && let Err(error) = compare(inner, 0, true).await
        {
            tracing::warn!(error, "failed to check hash KV");
            inner.counters.corruption_checks.incomplete.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn compare_compacted(inner: &Inner, interval: Option<Duration>) {
    let Some(interval) = interval else { return };
    let mut done = 0;
    loop {
        tokio::time::sleep(interval).await;
        let revision = inner.state.read(|store, _| store.compact_revision());
        if !inner.leads() || revision <= done {
            continue;
        }
        match compare(inner, revision, false).await {
            Ok(Verdict::Equal | Verdict::Differ(_)) => done = revision,
            // The next round tries again.
            Ok(Verdict::Incomplete) => {}
            Err(error) => {
                tracing::warn!(error, revision, "failed to check hash KV after compaction");
                inner.counters.corruption_checks.incomplete.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// One comparison, with its consequences.
async fn compare(inner: &Inner, revision: i64, bounded: bool) -> Result<Verdict, String> {
    let me = inner.identity.member_id;
    let own = inner.state.hash_kv(revision).await.map_err(|error| error.to_string())?;
    let others = ask_others(me, &inner.state, &inner.peers, own.hash_revision).await;
    // Only a member that leads now knows what the others must be behind of.
    let confirmed = inner.read_index.index(true, inner.config.request_timeout).await;
    confirmed.map_err(|error| error.to_string())?;
    let current = inner.state.read(|store, _| (store.revision(), store.compact_revision()));
    let verdict = judge(me, own, &others, bounded.then_some(current));
    count(&inner.counters, &verdict);
    let (revision, compact_revision) = (own.hash_revision, own.compact_revision);
    match &verdict {
        Verdict::Equal => {
            tracing::info!(
                revision,
                compact_revision,
                peers = others.len(),
                "successfully checked hash on whole cluster"
            );
        }
        Verdict::Incomplete => {
            tracing::warn!(
                revision,
                compact_revision,
                "was not able to check all peers: nothing is known about them"
            );
        }
        Verdict::Differ(members) => {
            tracing::error!(
                revision,
                compact_revision,
                members = names(members),
                "members hold different data"
            );
            for member in members {
                raise(inner, *member).await;
            }
        }
    }
    Ok(verdict)
}

/// The alarm that ends all writes of the cluster until an operator has dealt with the member.
/// `false` when it was not raised.
pub(crate) async fn raise(inner: &Inner, member: u64) -> bool {
    let kind = AlarmKind::Corrupt;
    if inner.state.read(|store, _| store.alarms().contains(&AlarmMember { member, kind })) {
        return true;
    }
    tracing::error!(member = format!("{member:x}"), "raising alarm CORRUPT");
    let alarm = AlarmCommand { action: AlarmAction::Activate, member, kind: Some(kind) };
    let raised = inner.propose(Caller::System, Command::Alarm(alarm)).await;
    if let Err(error) = &raised {
        tracing::error!(%error, "alarm CORRUPT not raised");
    }
    raised.is_ok()
}

fn names(members: &[u64]) -> String {
    members.iter().map(|id| format!("{id:x}")).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(hash: u32) -> HashKv {
        HashKv { hash, compact_revision: 3, hash_revision: 9 }
    }

    fn told(member: u64, hash: u32) -> PeerHash {
        PeerHash { member, answer: Ok(Told { hash, compact_revision: 3, revision: 9 }) }
    }

    fn silent(member: u64) -> PeerHash {
        PeerHash { member, answer: Err("no answer".to_owned()) }
    }

    #[test]
    fn a_minority_is_named_and_without_a_majority_nobody() {
        let rows: [(u32, Vec<PeerHash>, Verdict); 8] = [
            (5, vec![told(2, 5), told(3, 5)], Verdict::Equal),
            (5, vec![], Verdict::Equal),
            (5, vec![told(2, 5), silent(3)], Verdict::Incomplete),
            (5, vec![silent(2), silent(3)], Verdict::Incomplete),
            (5, vec![told(2, 5), told(3, 6)], Verdict::Differ(vec![3])),
            // The leader itself.
            (6, vec![told(2, 5), told(3, 5)], Verdict::Differ(vec![1])),
            (5, vec![told(2, 6), silent(3)], Verdict::Differ(vec![0])),
            (4, vec![told(2, 5), told(3, 6)], Verdict::Differ(vec![0])),
        ];
        for (number, (hash, others, verdict)) in rows.into_iter().enumerate() {
            assert_eq!(judge(1, own(hash), &others, Some((9, 3))), verdict, "row {number}");
        }
    }

    #[test]
    fn members_that_are_compacted_differently_are_not_compared() {
        let other = PeerHash { member: 2, answer: Ok(Told { hash: 6, compact_revision: 2, revision: 9 }) };
        assert_eq!(judge(1, own(5), &[other], Some((9, 3))), Verdict::Incomplete);
    }

    #[test]
    fn a_member_ahead_of_the_leader_is_wrong() {
        let other = PeerHash { member: 2, answer: Ok(Told { hash: 5, compact_revision: 3, revision: 10 }) };
        assert_eq!(judge(1, own(5), &[other], Some((9, 3))), Verdict::Differ(vec![2]));
    }
}
