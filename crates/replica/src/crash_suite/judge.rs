//! A member that came back, held against what it must hold.
//!
//! Not here: what that is (model.rs), how it came to be (crash_suite.rs).

use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;

use super::model::{Model, Promise};
use crate::raft_types::*;
use crate::start::Raised;

/// What a member had after it came back.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// What its log holds, and where that ends.
    pub entries: Vec<RaftEntry>,
    pub last: Option<LogId>,
    /// First index that its state file did not have.
    pub durable_next: u64,
    /// First index that is not applied after all that is committed was.
    pub applied_next: u64,
    pub vote_term: u64,
}

/// Lets the member apply what is committed, as Raft would, and compares.
pub(super) async fn judge(raised: &mut Raised, promise: &Promise, model: &Model) -> Result<Found, String> {
    let machine = &mut raised.machine;
    let durable_next = machine.state.durable_next();
    if durable_next < promise.durable_next {
        return Err(format!(
            "the state file ends before index {durable_next}, it was durable below {}",
            promise.durable_next
        ));
    }
    if promise.quarantined.is_some_and(|quarantined| machine.data_dir.quarantined() != quarantined) {
        return Err(format!("quarantined is not {:?} any more", promise.quarantined));
    }
    if let Err(text) = shows(raised, model) {
        return Err(format!("{text}; {}", described(raised).await));
    }
    let machine = &mut raised.machine;
    let mut log = machine.log.clone();
    let vote_term = read(log.read_vote().await)?.map_or(0, |vote| vote.leader_id.term);
    if vote_term < promise.vote_term {
        return Err(format!("voted in term {}, the vote of term {vote_term} came back", promise.vote_term));
    }
    // As openraft does first of all.
    read(log.reach(machine.state.position().applied).await)?;
    let state = read(log.get_log_state().await)?;
    let first = next_index(state.last_purged_log_id.as_ref());
    let applied_next = machine.state.applied_next();
    if first > applied_next {
        return Err(format!("the log begins at {first}, applied is only what is below {applied_next}"));
    }
    let entries = read(log.read(first, next_index(state.last_log_id.as_ref())).await)?;
    if entries.len() as u64 != next_index(state.last_log_id.as_ref()) - first {
        return Err(format!("{} entries from {first} to {:?}", entries.len(), state.last_log_id));
    }
    follows(&entries, model)?;
    if let Some(logged) = promise.logged
        && logged.index >= applied_next
        && !entries.iter().any(|entry| entry.log_id == logged)
    {
        return Err(format!("{logged} was on disk, the log goes from {first} to {:?}", state.last_log_id));
    }
    let committed: Vec<RaftEntry> = entries
        .iter()
        .filter(|entry| entry.log_id.index >= applied_next)
        .take_while(|entry| model.is_committed(&entry.log_id))
        .cloned()
        .collect();
    read(machine.replay(committed))?;
    let applied_next = machine.state.applied_next();
    if applied_next < promise.answered_next {
        return Err(format!(
            "index {} was answered, only what is below {applied_next} came back",
            promise.answered_next - 1
        ));
    }
    shows(raised, model)?;
    let revision = raised.machine.state.with_core(|core| core.store.revision());
    if revision < promise.revision {
        return Err(format!("revision {} was answered, {revision} came back", promise.revision));
    }
    Ok(Found { entries, last: state.last_log_id, durable_next, applied_next, vote_term })
}

fn read<T>(result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// The log, for whoever looks for the reason.
async fn described(raised: &mut Raised) -> String {
    let log = &mut raised.machine.log;
    let (purged, committed) = (log.purged(), log.committed());
    let first = next_index(purged.as_ref());
    let entries = log.read(first, u64::MAX).await.unwrap_or_default();
    let ids: Vec<String> = entries.iter().map(|entry| entry.log_id.to_string()).collect();
    format!(
        "in the log {}, purged {purged:?}, committed {committed:?}, in the state file below {}",
        ids.join(" "),
        raised.machine.state.durable_next()
    )
}

/// The state is that of the model at its position.
pub(super) fn shows(raised: &Raised, model: &Model) -> Result<(), String> {
    if raised.machine.fatal.is_set() {
        return Err("the member gave up".to_owned());
    }
    raised.machine.state.with_core(|core| {
        let Some(applied) = core.position.applied else {
            return if core.store.revision() == 1 { Ok(()) } else { Err("a state of no index".to_owned()) };
        };
        if !model.is_committed(&applied) {
            return Err(format!("{applied} is applied, it was never committed"));
        }
        let shown = &model.shown[applied.index as usize];
        let found = (core.store.state_hash(), core.store.revision());
        if found != (shown.hash, shown.revision) {
            return Err(format!(
                "the state at {applied} has hash {:x} and revision {}, it must have {:x} and {}",
                found.0, found.1, shown.hash, shown.revision
            ));
        }
        if core.position.membership != shown.membership || core.position.removed != shown.removed {
            return Err(format!("the membership at {applied} is {:?}", core.position.membership));
        }
        Ok(())
    })
}

/// Every entry was made, behind the one before it.
fn follows(entries: &[RaftEntry], model: &Model) -> Result<(), String> {
    let mut previous = None;
    for entry in entries {
        if !model.knows(&entry.log_id, previous) {
            return Err(format!("nobody wrote {} behind an entry of term {previous:?}", entry.log_id));
        }
        previous = Some(entry.log_id.leader_id.term);
    }
    Ok(())
}
