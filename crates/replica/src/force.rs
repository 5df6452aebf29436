//! `--force-new-cluster`: a cluster of one from what one member has, when the others are lost.
//!
//! A membership of this member alone is written behind the last entry of its log; then the member starts as always, is
//! its only voter, elects itself and so commits its whole log. Unlike etcd, which throws away what this member did not
//! know to be committed, every entry is kept: an acknowledged one may be here without the news that it was committed.
//! Cluster and member id stay, as in etcd. The others count as removed: this member refuses their calls, and one that
//! is started on its old directory ends when it hears that. Two of three that are started where they cannot reach this
//! member are still a majority of the old cluster: nothing in their directories can know better.
//!
//! Invariants: nothing is written while another member is seen to follow a leader; silence is waited out, refusals are not. The entry has a term of its own, and the
//! vote for that term is durable before it: a leader elsewhere never has another entry with the same id. A crash between
//! any two steps leaves a directory that a second start with the flag finishes, and a member whose vote was taken away
//! gets it back last. The others are refused from the first call on, before the entry is applied (`left_behind`).
//! Not here: the log and Raft (start.rs), what a removed member is told (peers/server.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use openraft::storage::RaftLogStorage;
use tokio::time::Instant;

use crate::codec::{self, CodecError};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::log_store::{LogStore, further};
use crate::peers::{DiscoverError, discover};
use crate::raft_types::*;
use crate::start::StartError;
use crate::state::State;
use crate::state_file::Position;

/// How long another member may take to answer one question. One that does not run refuses at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A member that neither answers nor refuses is asked again for so long. It may be cut off, or its machine very slow; that
/// it is gone is the word of whoever gave the flag.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Members that live and follow nobody are asked again for so many election timeouts: they may be about to elect.
const ELECTIONS_WAITED: u64 = 3;
const ASK_PAUSE: Duration = Duration::from_millis(100);
/// Elections that the others may have had without this member: far more than ever happen, so no term of theirs is met.
const ELECTIONS_UNHEARD: u64 = 1_000_000;

/// What a start with the flag has yet to write.
pub(crate) struct Forced {
    /// `None`: the cluster is this member alone already.
    step: Option<Step>,
}

struct Step {
    vote: Vote,
    entry: RaftEntry,
}

/// Looks at what there is, and for others that live; writes nothing. An error for a directory without any entry: nothing
/// would be saved, and a member that lost everything must not vote.
pub(crate) async fn prepare(
    config: &Config,
    state: &State,
    recovered: &wal::Recovered,
) -> Result<Forced, StartError> {
    let me = config.identity.member_id;
    let position = state.position();
    let Some(last) = last(recovered, &position.applied)? else {
        return Err(StartError::Config(
            "--force-new-cluster: the data directory holds nothing to make a cluster of".to_owned(),
        ));
    };
    let newest = newest_membership(recovered, &position)?;
    if is_alone(&newest, me) {
        tracing::warn!("--force-new-cluster has no effect: this member is the whole cluster already");
        return Ok(Forced { step: None });
    }
    refuse_if_led(config, &newest).await?;
    let others: Vec<String> =
        newest.nodes().filter(|(id, _)| **id != me).map(|(id, _)| format!("{id:x}")).collect();
    tracing::warn!(
        removed = others.join(","),
        last_index = last.index,
        "forcing a new cluster of this member alone; start without --force-new-cluster from now on"
    );
    let known = newest.get_node(&me).cloned();
    let new =
        || Node { name: config.name.clone(), peer_urls: config.advertise_peer_urls.clone(), joining: false };
    let node = Node { joining: false, ..known.unwrap_or_else(new) };
    let membership = Membership::new(vec![BTreeSet::from([me])], BTreeMap::from([(me, node)]))
        .map_err(|error| StartError::Config(format!("--force-new-cluster: {error}")))?;
    let voted = recovered.vote.as_ref().map(|bytes| codec::take_vote(&mut bytes.clone())).transpose()?;
    let term = voted.map_or(0, |vote| vote.leader_id.term).max(last.leader_id.term);
    let term = term.saturating_add(ELECTIONS_UNHEARD);
    let payload = EntryPayload::Membership(membership);
    let entry = RaftEntry { log_id: log_id(term, last.index + 1), payload };
    Ok(Forced { step: Some(Step { vote: Vote::new(term, me), entry }) })
}

impl Forced {
    pub(crate) async fn write(self, log: &LogStore) -> std::io::Result<()> {
        let Some(Step { vote, entry }) = self.step else { return Ok(()) };
        log.clone().save_vote(&vote).await?;
        log.bootstrap(entry).await
    }
}

/// The last step: what the log still missed is given up for good.
pub(crate) fn give_vote_back(data_dir: &DataDir) -> Result<(), StartError> {
    data_dir.lift_quarantine().map_err(|source| StartError::Io { path: PathBuf::from("quarantine"), source })
}

/// An error when another member of this cluster follows a leader that is not this member.
async fn refuse_if_led(config: &Config, newest: &Membership) -> Result<(), StartError> {
    let identity = config.identity;
    let began = Instant::now();
    let elections = Duration::from_millis(config.election_timeout_ms.saturating_mul(ELECTIONS_WAITED));
    loop {
        let network = &config.surroundings.network;
        let others = newest.nodes().filter(|(id, _)| **id != identity.member_id);
        let asked = others.map(|(id, node)| async move {
            let found = discover(network, &node.peer_urls, config.peer_tls.as_ref(), ANSWER_TIMEOUT).await;
            (*id, node, found)
        });
        let (mut leaderless, mut silent, mut gone) = (Vec::new(), Vec::new(), Vec::new());
        for (id, node, found) in join_all(asked).await {
            let found = match found {
                Ok(found) => Some(found).filter(|found| found.cluster_id == identity.cluster_id),
                Err(DiscoverError::NoAnswer { silent: true, .. }) => {
                    silent.push(format!("{id:x}"));
                    continue;
                }
                Err(DiscoverError::NoAnswer { .. } | DiscoverError::Link(_)) => None,
            };
            match found.map(|found| found.leader.filter(|leader| *leader != identity.member_id)) {
                None => gone.push(format!("{id:x}")),
                Some(Some(leader)) => {
                    let url = node.peer_urls.join(",");
                    return Err(StartError::StillLed { name: node.name.clone(), member: id, url, leader });
                }
                // Nobody, or what this member was before it stopped.
                Some(None) => leaderless.push(format!("{id:x}")),
            }
        }
        let waited = began.elapsed();
        if (leaderless.is_empty() || waited >= elections) && (silent.is_empty() || waited >= SILENCE_MAX) {
            tracing::warn!(
                not_running = gone.join(","),
                silent = silent.join(","),
                without_leader = leaderless.join(","),
                "--force-new-cluster: no other member follows a leader as far as this one can see; whatever they \
                 acknowledge from now on is lost, so see to it that they do not run and delete their directories"
            );
            return Ok(());
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

fn is_alone(membership: &Membership, me: u64) -> bool {
    membership.nodes().all(|(id, _)| *id == me) && membership.voter_ids().any(|id| id == me)
}

/// Where the log ends, or the state file if that is further.
fn last(recovered: &wal::Recovered, applied: &Option<LogId>) -> Result<Option<LogId>, CodecError> {
    let purged = recovered.purged.as_ref();
    let purged = purged.map(|(_, bytes)| codec::take_log_id(&mut bytes.clone())).transpose()?.flatten();
    let logged = recovered.entries.last().map(|entry| log_id(entry.term, entry.index));
    Ok(further(further(logged, purged), *applied))
}

/// The memberships that are logged and not applied, from the newest on; then the applied one.
fn memberships<'a>(
    recovered: &'a wal::Recovered,
    position: &'a Position,
) -> impl Iterator<Item = Result<Membership, CodecError>> + 'a {
    let applied_next = next_index(position.applied.as_ref());
    let ahead = recovered.entries.iter().rev().take_while(move |entry| entry.index >= applied_next);
    let logged = ahead.filter_map(|logged| {
        match codec::entry(logged.term, logged.index, logged.payload.clone()).map(|entry| entry.payload) {
            Ok(EntryPayload::Membership(membership)) => Some(Ok(membership)),
            Ok(EntryPayload::Blank | EntryPayload::Normal(_)) => None,
            Err(error) => Some(Err(error)),
        }
    });
    logged.chain(std::iter::once_with(|| Ok(position.membership.membership().clone())))
}

/// The membership that holds, whether it is applied or only logged; empty in an empty directory.
pub(crate) fn newest_membership(
    recovered: &wal::Recovered,
    position: &Position,
) -> Result<Membership, CodecError> {
    memberships(recovered, position).next().unwrap_or_else(|| Ok(Membership::default()))
}

/// Who is no member any more although the log has not been applied so far: everybody else, when this member is alone.
/// What makes it so commits by this member's vote only, so it holds before it is committed.
pub(crate) fn left_behind(
    me: u64,
    forced: Option<&Forced>,
    recovered: &wal::Recovered,
    position: &Position,
) -> Result<BTreeSet<u64>, CodecError> {
    let forced = forced.is_some_and(|forced| forced.step.is_some());
    if !forced && !is_alone(&newest_membership(recovered, position)?, me) {
        return Ok(BTreeSet::new());
    }
    let mut others = BTreeSet::new();
    for membership in memberships(recovered, position) {
        others.extend(membership?.nodes().map(|(id, _)| *id).filter(|id| *id != me));
    }
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: u64 = 1;

    fn membership(ids: &[u64]) -> Membership {
        let nodes: BTreeMap<u64, Node> = ids.iter().map(|id| (*id, Node::default())).collect();
        Membership::new(vec![ids.iter().copied().collect()], nodes).unwrap()
    }

    fn recovered(memberships: &[&[u64]]) -> wal::Recovered {
        let logged = |(index, ids): (usize, &&[u64])| {
            let payload = EntryPayload::Membership(membership(ids));
            wal::Entry { term: 3, index: index as u64 + 5, payload: codec::entry_payload_bytes(&payload) }
        };
        wal::Recovered {
            entries: memberships.iter().enumerate().map(logged).collect(),
            vote: None,
            committed: None,
            purged: None,
            damage: wal::Damage::None,
        }
    }

    fn left(applied: &[u64], logged: &[&[u64]]) -> Vec<u64> {
        let position = Position {
            applied: Some(log_id(3, 4)),
            membership: StoredMembership::new(Some(log_id(0, 0)), membership(applied)),
            removed: Vec::new(),
        };
        left_behind(ME, None, &recovered(logged), &position).unwrap().into_iter().collect()
    }

    #[test]
    fn all_who_ever_were_members_are_refused_before_the_forced_entry_is_applied() {
        assert_eq!(left(&[1, 2, 3], &[&[1, 2, 3, 4], &[1]]), [2, 3, 4]);
        assert_eq!(left(&[1], &[]), [], "applied already: the position knows the removed");
        assert_eq!(left(&[1, 2], &[&[1, 2, 3]]), [], "others are members still");
        assert_eq!(left(&[1, 2], &[&[1], &[1, 5]]), [], "a new member came since");
    }
}
