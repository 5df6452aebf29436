//! `--force-new-cluster`: a cluster of one from what one member has, when the others are lost.
//!
//! A membership of this member alone is written behind the last entry of its log; then the member starts as always, is
//! its only voter, elects itself and so commits its whole log. Unlike etcd, which throws away what this member did not
//! know to be committed, every entry is kept: an acknowledged one may be here without the news that it was committed.
//! Cluster and member id stay, as in etcd. The others count as removed: this member refuses their calls, and one that
//! is started on its old directory ends when it hears that. Two of three that are started where they cannot reach this
//! member are still a majority of the old cluster: nothing in their directories can know better.
//! Not here: the log and Raft (start.rs), what a removed member is told (peers/server.rs).

use std::collections::{BTreeMap, BTreeSet};

use crate::codec::{self, CodecError};
use crate::config::Config;
use crate::raft_types::*;
use crate::start::StartError;
use crate::state::State;
use crate::state_file::Position;

/// What to write behind the log; `None` when the cluster is this member alone already. An error for a directory without
/// any entry: nothing would be saved, and a member that lost everything must not vote.
pub(crate) fn entry(
    config: &Config,
    state: &State,
    recovered: &wal::Recovered,
) -> Result<Option<RaftEntry>, StartError> {
    let me = config.identity.member_id;
    let position = state.position();
    let Some(last) = last(recovered, &position.applied)? else {
        return Err(StartError::Config(
            "--force-new-cluster: the data directory holds nothing to make a cluster of".to_owned(),
        ));
    };
    let newest = newest_membership(recovered, &position)?;
    let alone = newest.nodes().all(|(id, _)| *id == me) && newest.voter_ids().any(|id| id == me);
    if alone {
        tracing::warn!("--force-new-cluster has no effect: this member is the whole cluster already");
        return Ok(None);
    }
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
    let log_id = log_id(last.leader_id.term, last.index + 1);
    Ok(Some(RaftEntry { log_id, payload: EntryPayload::Membership(membership) }))
}

/// Where the log ends, or the state file if that is further.
fn last(recovered: &wal::Recovered, applied: &Option<LogId>) -> Result<Option<LogId>, CodecError> {
    let purged = recovered.purged.as_ref();
    let purged = purged.map(|(_, bytes)| codec::take_log_id(&mut bytes.clone())).transpose()?.flatten();
    let logged = recovered.entries.last().map(|entry| log_id(entry.term, entry.index));
    Ok(logged.max(purged).max(*applied))
}

/// The membership that holds, whether it is applied or only logged; empty in an empty directory.
pub(crate) fn newest_membership(
    recovered: &wal::Recovered,
    position: &Position,
) -> Result<Membership, CodecError> {
    let applied_next = next_index(position.applied.as_ref());
    let ahead = recovered.entries.iter().rev().take_while(|entry| entry.index >= applied_next);
    for logged in ahead {
        let entry = codec::entry(logged.term, logged.index, logged.payload.clone())?;
        if let EntryPayload::Membership(membership) = entry.payload {
            return Ok(membership);
        }
    }
    Ok(position.membership.membership().clone())
}
