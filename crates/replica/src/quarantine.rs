//! Members that may have forgotten what they acknowledged or whom they voted for: they give no votes until nobody can be
//! hurt by them.
//!
//! Raft rests on two promises of every member: what it acknowledged it still has when it votes, and it votes once in a term
//! and follows no leader of an earlier one. A damaged log breaks the first promise, an emptied directory both.
//!
//! **Acknowledgements of a former life.** A leader may go on counting an entry that the member has lost: openraft resets
//! what it believes only when the member refuses an append or heartbeat behind its end. So an entry may be committed with
//! one true copy fewer than a majority. That is harmless as long as the member gives no vote: whoever is elected without it
//! is elected by a majority of which one other member has the entry. The vote comes back (`caught_up`) only after the
//! member has applied something that it proposed *after* its return. That lies behind everything that a leader's belief can
//! reach: acknowledgements never go beyond the leader's log, and all of that log up to the proposal is here again. To have
//! what a leader had *committed* would not be enough: what it has yet to commit may rest on the lost copy. What a deposed
//! leader believes is of no use to it: members that elected a later one do not acknowledge its entries any more, and what
//! they acknowledged before is in the later one's log.
//!
//! **Acknowledgements of this life** are true: they say what is on disk now. They count, also in quarantine.
//!
//! **Forgotten votes.** With them a member would follow a leader of a term that it left, and a majority might commit behind
//! the back of the true leader. A damaged log keeps its votes (each is written twice, and those behind the damage are
//! found); an emptied directory has none. Such a member listens to no leader before it has heard the terms of so many
//! others that each majority has one of them, and then to none of an earlier term (`Floor`).
//!
//! **First starts.** An empty directory in a new cluster may also be an emptied one whose cluster is not up yet. It votes
//! once a majority, itself included, is known to have nothing but the first entry. If another member has more, this one
//! counts as emptied, even if it never ran: it loses nothing by that but a moment.
//!
//! Not covered: members that forget at the same time are failures like any other, and a majority of them is one too many;
//! a vote for a candidate that was under way when the directory was emptied, in clusters of four and more.
//! Not here: what a damaged log looks like (wal), refusing calls (peers/server.rs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mvcc::{Caller, Command, LeaseCheckpoint};
use tokio_util::sync::CancellationToken;

use crate::codec::{Answer, MemberRecord, Question, Standing};
use crate::config::{Config, Member};
use crate::handle::Inner;
use crate::peers::discover;
use crate::raft_types::Node;
use crate::watchdog;

/// How long a fresh member looks for others before it opens its port. A refused connection answers at once, so only a
/// member that lives and is slow is waited for, or a machine that is gone.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_PAUSE: Duration = Duration::from_millis(15);
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
const CATCH_UP_PAUSE: Duration = Duration::from_millis(50);

/// Why a member gives no votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The directory is empty; whether it always was is not known yet.
    FirstStart,
    Emptied,
    Damaged,
}

impl Reason {
    /// What the file `quarantine` says.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Reason::FirstStart => "the first start, or the directory was emptied: not known yet",
            Reason::Emptied => "the data directory was empty, the cluster knows the member",
            Reason::Damaged => "the log lost acknowledged entries",
        }
    }

    pub(crate) fn from_text(text: &str) -> Reason {
        let known = [Reason::FirstStart, Reason::Emptied];
        known.into_iter().find(|reason| reason.text() == text).unwrap_or(Reason::Damaged)
    }

    /// Whether the votes of a former life may be forgotten, too.
    pub(crate) fn forgets_votes(self) -> bool {
        match self {
            Reason::FirstStart | Reason::Emptied => true,
            Reason::Damaged => false,
        }
    }
}

/// The least term in which this member follows a leader.
pub(crate) struct Floor(AtomicU64);

impl Floor {
    pub(crate) fn new(known: bool) -> Floor {
        Floor(AtomicU64::new(if known { 0 } else { u64::MAX }))
    }

    pub(crate) fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed) != u64::MAX
    }

    pub(crate) fn admits(&self, term: u64) -> bool {
        term >= self.0.load(Ordering::Relaxed)
    }

    /// `None`: not known yet.
    pub(crate) fn term(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|term| *term != u64::MAX)
    }

    fn set(&self, term: u64) {
        self.0.store(term, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstStart {
    /// A majority of the new cluster has nothing yet.
    New,
    /// Somebody has more than the first entry.
    HasHistory,
    Unknown,
}

/// `others`: last index and standing of those who answered.
fn judge(voters: usize, others: &[(u64, Standing)]) -> FirstStart {
    if others.iter().any(|(last_index, standing)| *last_index > 0 || *standing == Standing::Quarantined) {
        return FirstStart::HasHistory;
    }
    if others.len() + 1 > voters / 2 { FirstStart::New } else { FirstStart::Unknown }
}

/// What the others say before this member opens its port.
pub(crate) async fn first_start(config: &Config) -> FirstStart {
    let (network, tls) = (&config.surroundings.network, config.peer_tls.as_ref());
    let others = voters(&config.initial_members).filter(|member| member.id != config.identity.member_id);
    let asked = others.map(|member| discover(network, &member.peer_urls, tls, DISCOVER_TIMEOUT));
    let found = join_all(asked).await.into_iter().flatten();
    let ours = found.filter(|found| found.cluster_id == config.identity.cluster_id);
    let said: Vec<(u64, Standing)> = ours.map(|found| (found.last_index, found.standing)).collect();
    judge(voters(&config.initial_members).count(), &said)
}

fn voters(members: &[Member]) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| !member.is_learner)
}

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

/// Gives the member its vote back once it may have it.
pub(crate) async fn run(inner: Arc<Inner>, shutdown: CancellationToken) {
    let Some(reason) = inner.quarantine else { return };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = end(&inner, reason) => {}
    }
}

async fn end(inner: &Inner, reason: Reason) {
    let is_new = reason == Reason::FirstStart && is_new_cluster(inner).await;
    if is_new {
        inner.floor.set(0);
    } else {
        if !inner.floor.is_known() {
            let term = terms_of_others(inner).await;
            tracing::info!(
                term,
                "the votes of a former life may be forgotten: leaders of earlier terms are not followed"
            );
            inner.floor.set(term);
        }
        caught_up(inner).await;
        if let Err(error) = inner.log.healed().await {
            tracing::error!(%error, "the log cannot note that it is whole again");
            return;
        }
    }
    if let Err(error) = inner.data_dir.lift_quarantine() {
        tracing::error!(%error, "lift the quarantine");
        return;
    }
    inner.quarantined.store(false, Ordering::Relaxed);
    inner.raft.runtime_config().elect(true);
    if is_new {
        tracing::info!("a majority of the new cluster has nothing yet: the member votes");
        watchdog::elect_early(inner).await;
    } else {
        tracing::info!("caught up with the leader: the member votes again");
    }
}

/// Answers when it is known.
async fn is_new_cluster(inner: &Inner) -> bool {
    let members = &inner.config.initial_members;
    let me = inner.identity.member_id;
    let asked: BTreeMap<u64, Node> =
        voters(members).filter(|member| member.id != me).map(|member| (member.id, node(member))).collect();
    loop {
        if inner.last_index() > 0 {
            return false;
        }
        let said = ask(inner, &asked).await;
        let others: Vec<(u64, Standing)> =
            said.values().map(|said| (said.last_index, said.standing)).collect();
        match judge(asked.len() + 1, &others) {
            FirstStart::New => return true,
            FirstStart::HasHistory => return false,
            FirstStart::Unknown => tokio::time::sleep(ASK_PAUSE).await,
        }
    }
}

/// The highest term that others know, once so many have answered that each majority has one of them.
async fn terms_of_others(inner: &Inner) -> u64 {
    let me = inner.identity.member_id;
    let initial = inner.config.initial_members.iter().filter(|member| member.id != me);
    let mut asked: BTreeMap<u64, Node> = initial.map(|member| (member.id, node(member))).collect();
    loop {
        let said = ask(inner, &asked).await;
        if let Some(term) = highest_term(me, &said) {
            return term;
        }
        // The flags may describe the cluster as it was once.
        for member in said.values().flat_map(|said| &said.members).filter(|member| member.id != me) {
            let node =
                Node { name: member.name.clone(), peer_urls: member.peer_urls.clone(), joining: false };
            asked.insert(member.id, node);
        }
        tokio::time::sleep(ASK_PAUSE * 2).await;
    }
}

/// `None`: too few know one.
fn highest_term(me: u64, said: &BTreeMap<u64, Said>) -> Option<u64> {
    let newest = said.values().max_by_key(|said| said.last_index)?;
    let others = newest.members.iter().filter(|member| !member.is_learner && member.id != me);
    let others: Vec<u64> = others.map(|member| member.id).collect();
    let needed = others.len().min(others.len().div_ceil(2) + 1);
    let terms: Vec<u64> = others.iter().filter_map(|id| said.get(id)?.term).collect();
    if terms.len() < needed { None } else { terms.into_iter().max() }
}

struct Said {
    last_index: u64,
    term: Option<u64>,
    standing: Standing,
    members: Vec<MemberRecord>,
}

async fn ask(inner: &Inner, members: &BTreeMap<u64, Node>) -> BTreeMap<u64, Said> {
    let asked = members.iter().map(|(id, node)| async move {
        match inner.peers.ask(*id, node, &Question::WhoAreYou, ASK_TIMEOUT).await {
            Ok(Answer::Description { last_index, term, standing, members, .. }) => {
                Some((*id, Said { last_index, term, standing, members }))
            }
            Ok(_) | Err(_) => None,
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
}

fn node(member: &Member) -> Node {
    Node { name: member.name.clone(), peer_urls: member.peer_urls.clone(), joining: false }
}

/// Resolves when everything that any leader may believe to be here is here: see above.
async fn caught_up(inner: &Inner) {
    loop {
        // Changes nothing.
        let command = Command::LeaseCheckpoint(LeaseCheckpoint { leases: Vec::new() });
        if inner.leadership.borrow().leader.is_some()
            && inner.propose(Caller::System, command).await.is_ok()
            && inner.flusher_handle.flush().await.is_ok()
        {
            return;
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_majority_without_a_history_makes_a_new_cluster() {
        use FirstStart::{HasHistory, New, Unknown};
        let new = (0, Standing::FirstStart);
        for (voters, others, expected) in [
            (1, vec![], New),
            (3, vec![], Unknown),
            (3, vec![new], New),
            (3, vec![(0, Standing::Votes)], New),
            (3, vec![new, (1, Standing::Votes)], HasHistory),
            (3, vec![(0, Standing::Quarantined)], HasHistory),
            (5, vec![new], Unknown),
            (5, vec![new, new], New),
            (4, vec![new], Unknown),
            (4, vec![new, new], New),
        ] {
            assert_eq!(judge(voters, &others), expected, "{voters} voters, {others:?}");
        }
    }

    #[test]
    fn the_terms_of_so_many_others_are_needed_that_each_majority_has_one_of_them() {
        let members = |ids: &[u64]| {
            let record = |id: &u64| MemberRecord {
                id: *id,
                name: String::new(),
                peer_urls: Vec::new(),
                client_urls: Vec::new(),
                is_learner: *id > 100,
            };
            ids.iter().map(record).collect::<Vec<_>>()
        };
        let highest = |ids: &[u64], said: &[(u64, u64, Option<u64>)]| {
            let said = said.iter().map(|(id, last_index, term)| {
                let standing = Standing::Votes;
                (*id, Said { last_index: *last_index, term: *term, standing, members: members(ids) })
            });
            highest_term(1, &said.collect())
        };
        assert_eq!(highest(&[1, 2, 3], &[]), None);
        assert_eq!(
            highest(&[1, 2, 3], &[(2, 9, Some(4))]),
            None,
            "3 may have won a later term with this member's vote"
        );
        assert_eq!(highest(&[1, 2, 3], &[(2, 9, Some(4)), (3, 5, Some(6))]), Some(6));
        assert_eq!(highest(&[1, 2, 3], &[(2, 9, Some(4)), (3, 5, None)]), None, "3 forgot, too");
        assert_eq!(highest(&[1, 2], &[(2, 9, Some(4))]), Some(4));
        let five = [1, 2, 3, 4, 5, 101];
        assert_eq!(
            highest(&five, &[(2, 9, Some(4)), (3, 9, Some(4)), (101, 9, Some(9))]),
            None,
            "learners do not vote"
        );
        assert_eq!(highest(&five, &[(2, 9, Some(4)), (3, 9, Some(4)), (5, 0, Some(5))]), Some(5));
    }

    #[test]
    fn the_file_says_why() {
        for reason in [Reason::FirstStart, Reason::Emptied, Reason::Damaged] {
            assert_eq!(Reason::from_text(reason.text()), reason);
        }
        assert_eq!(Reason::from_text("torn"), Reason::Damaged);
    }
}
