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
//! the back of the true leader. A damaged log keeps its votes (each lies in two files, and those behind the damage are
//! found), unless the damage has both, which shows when the last entry is of a later term; an emptied directory has none.
//! Such a member listens to no leader before it has heard the terms of so many
//! others that each majority has one of them, and then to none of an earlier term (`Floor`).
//!
//! **First starts.** An empty directory in a new cluster may also be an emptied one whose cluster is not up yet. It votes
//! once a majority, itself included, is known to have nothing but the first entry; in a term that one of them has seen it
//! votes for nobody, because it may have led it, or voted in it, before it was emptied. If another member has more, this
//! one counts as emptied, even if it never ran: it loses nothing by that but a moment.
//!
//! It may be one that starts late, while a founder is down: then it waits as an emptied one does, because nothing in an empty
//! directory tells the two apart, and to follow the leader that it sees might be to desert a later one that it elected.
//!
//! Not covered: members that forget at the same time are failures like any other, and a majority of them is one too many.
//! An emptied member counts itself among those that have nothing. If those that it hears when it comes back never had more
//! than the first entry, and those that have more are down or cut off from it, they and it begin anew, without what it once
//! had acknowledged to the others. To hear all would cost a new cluster its first start whenever one member is missing.
//! Before a member with an empty directory is started, enough of the others must be up; when a whole cluster is started
//! again, no directory of it may have been emptied.
//! A vote for a candidate that was under way when the directory was emptied, in clusters of four and more.
//! `tests/models/tests/quarantine.rs` tries all of this on three members, and each part of the rule left out.
//! Not here: what a damaged log looks like (wal), refusing calls (peers/server.rs).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use mvcc::{Caller, Command, LeaseCheckpoint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::codec::Standing;
use crate::config::{Config, Member};
use crate::handle::Inner;
use crate::peers::{Discovered, Stranger, discover};
use crate::raft_types::{Vote, VoteRequest, log_id};
use crate::watchdog;

/// How long a fresh member looks for others before it opens its port. A refused connection answers at once, so only a
/// member that lives and is slow is waited for, or a machine that is gone.
const DISCOVER_TIMEOUT: Duration = Duration::from_secs(5);
const ASK_PAUSE_MIN: Duration = Duration::from_millis(15);
const ASK_PAUSE_MAX: Duration = Duration::from_millis(500);
const ASK_TIMEOUT: Duration = Duration::from_millis(500);
/// Far more members than a cluster has.
const ASKED_MAX: usize = 64;
/// Between two words about what is waited for.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

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
    /// A majority of the new cluster has nothing yet; the highest term that one of them has seen.
    New {
        term: u64,
    },
    /// Somebody has more than the first entry.
    HasHistory,
    Unknown,
}

/// What another says: last index, standing, term.
type Said = (u64, Standing, Option<u64>);

fn judge(voters: usize, others: &[Said]) -> FirstStart {
    if others.iter().any(|(last_index, standing, _)| *last_index > 0 || *standing == Standing::Quarantined) {
        return FirstStart::HasHistory;
    }
    let term = others.iter().filter_map(|(.., term)| *term).max().unwrap_or(0);
    if others.len() + 1 > voters / 2 { FirstStart::New { term } } else { FirstStart::Unknown }
}

/// What the others say before this member opens its port. Where a term was seen, raft must run before it can be judged.
pub(crate) async fn first_start(config: &Config) -> FirstStart {
    let heard = hear(config, voters(&config.initial_members)).await;
    let said: Vec<Said> = heard.iter().map(said).collect();
    match judge(voters(&config.initial_members).count(), &said) {
        FirstStart::New { term: 1.. } => FirstStart::Unknown,
        judged => judged,
    }
}

fn said(found: &Discovered) -> Said {
    (found.last_index, found.standing, found.term)
}

/// What those of `members` who run say, without this one and members of other clusters.
async fn hear<'a>(config: &Config, members: impl Iterator<Item = &'a Member>) -> Vec<Discovered> {
    let (identity, network) = (config.identity, &config.surroundings.network);
    let others = members.filter(|member| member.id != identity.member_id);
    let asked =
        others.map(|member| discover(network, &member.peer_urls, config.peer_tls.as_ref(), DISCOVER_TIMEOUT));
    let said = join_all(asked).await.into_iter().flatten();
    said.filter(|found| found.cluster_id == identity.cluster_id).collect()
}

fn voters(members: &[Member]) -> impl Iterator<Item = &Member> {
    members.iter().filter(|member| !member.is_learner)
}

/// Whether a running cluster has this member's published URLs: then it ran before, with a data directory that is gone.
/// The same if nobody says anything: who joins has only just been told of its cluster by somebody.
pub(crate) async fn was_started_before(config: &Config) -> bool {
    let said = hear(config, config.initial_members.iter()).await;
    let has_published =
        |member: &Member| member.id == config.identity.member_id && !member.client_urls.is_empty();
    said.iter().all(|found| found.members.is_empty())
        || said.iter().any(|found| found.members.iter().any(has_published))
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
    let seen = if reason == Reason::FirstStart { new_cluster_since(inner).await } else { None };
    let is_new = seen.is_some();
    if let Some(term) = seen {
        if term > 0
            && let Err(error) = spend_vote(inner, term).await
        {
            tracing::error!(%error, "spend the vote of a former life");
            return;
        }
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

/// Takes this member to the term, and gives its vote there to nobody: in a former life it may have given it to somebody, or
/// led the term with entries that nobody got.
async fn spend_vote(inner: &Inner, term: u64) -> Result<(), String> {
    let nobody = VoteRequest::new(Vote::new(term, u64::MAX), Some(log_id(term, u64::MAX)));
    let answer = inner.raft.vote(nobody).await.map_err(|error| error.to_string())?;
    // If it was not granted, this member is in a later term already.
    tracing::info!(term, vote = %answer.vote, "the others have seen a term: no vote in it");
    Ok(())
}

/// Answers when it is known: the highest term that the others have seen, or `None` if somebody has a history.
async fn new_cluster_since(inner: &Inner) -> Option<u64> {
    let members = &inner.config.initial_members;
    let voters: Vec<&Member> = voters(members).collect();
    let mut circle = Circle::new(inner, "whether the cluster is new, or this member's directory was emptied");
    for member in &voters {
        circle.add(&member.name, &member.peer_urls);
    }
    loop {
        if inner.last_index() > 0 {
            return None;
        }
        let others: Vec<Said> = circle.ask().await.values().map(said).collect();
        match judge(voters.len(), &others) {
            FirstStart::New { term } => return Some(term),
            FirstStart::HasHistory => return None,
            FirstStart::Unknown => circle.pause().await,
        }
    }
}

/// The highest term that others know, once so many have answered that each majority has one of them.
async fn terms_of_others(inner: &Inner) -> u64 {
    let mut circle = Circle::new(inner, "the terms in which this member may have voted in a former life");
    for member in &inner.config.initial_members {
        circle.add(&member.name, &member.peer_urls);
    }
    loop {
        let said = circle.ask().await;
        if let Some(term) = highest_term(inner.identity.member_id, &said) {
            return term;
        }
        // The flags may describe the cluster as it was once.
        for member in said.values().flat_map(|said| &said.members) {
            circle.add(&member.name, &member.peer_urls);
        }
        circle.pause().await;
    }
}

/// `None`: too few know one. With an odd number of voters one more than half of the others is what each majority that
/// this member was part of has one of; with an even number it is one more than that, so that it also holds if the
/// newest change of the members, one voter more or less, has not reached everybody.
fn highest_term(me: u64, said: &BTreeMap<u64, Discovered>) -> Option<u64> {
    let newest = said.values().max_by_key(|said| said.last_index)?;
    let others = newest.members.iter().filter(|member| !member.is_learner && member.id != me);
    let others: Vec<u64> = others.map(|member| member.id).collect();
    let needed = others.len().min(others.len().div_ceil(2) + 1);
    let terms: Vec<u64> = others.iter().filter_map(|id| said.get(id)?.term).collect();
    if terms.len() < needed { None } else { terms.into_iter().max() }
}

/// Members that are asked until enough is known. By their URLs: the ids that flags give them may be those of another time.
struct Circle<'a> {
    inner: &'a Inner,
    question: &'static str,
    asked: BTreeMap<Vec<String>, (String, Stranger)>,
    missing: Vec<String>,
    patience: Patience,
}

impl<'a> Circle<'a> {
    fn new(inner: &'a Inner, question: &'static str) -> Circle<'a> {
        Circle { inner, question, asked: BTreeMap::new(), missing: Vec::new(), patience: Patience::new() }
    }

    fn add(&mut self, name: &str, peer_urls: &[String]) {
        let config = &self.inner.config;
        let itself = config.initial_members.iter().find(|member| member.id == self.inner.identity.member_id);
        let is_me = |url: &String| {
            config.advertise_peer_urls.contains(url)
                || itself.is_some_and(|member| member.peer_urls.contains(url))
        };
        let mut peer_urls = peer_urls.to_vec();
        peer_urls.sort();
        let is_full = self.asked.len() >= ASKED_MAX;
        if is_full || peer_urls.iter().any(is_me) || self.asked.contains_key(&peer_urls) {
            return;
        }
        match Stranger::new(&config.surroundings.network, &peer_urls, config.peer_tls.as_ref()) {
            Ok(stranger) => _ = self.asked.insert(peer_urls, (name.to_owned(), stranger)),
            Err(error) => tracing::warn!(%error, name, "a member that cannot be asked"),
        }
    }

    /// What others of this cluster say, by the ids that they have.
    async fn ask(&mut self) -> BTreeMap<u64, Discovered> {
        let identity = self.inner.identity;
        let asked = self.asked.iter().map(async |(urls, (name, stranger))| {
            let said = stranger.ask(ASK_TIMEOUT).await;
            let said = said.filter(|said| said.cluster_id == identity.cluster_id);
            said.ok_or_else(|| format!("{name} ({})", urls.join(",")))
        });
        let (mut said, mut missing) = (BTreeMap::new(), Vec::new());
        for answer in join_all(asked).await {
            match answer {
                Ok(found) if found.member_id == identity.member_id => {}
                Ok(found) => _ = said.insert(found.member_id, found),
                Err(name) => missing.push(name),
            }
        }
        self.missing = missing;
        said
    }

    async fn pause(&mut self) {
        if self.patience.pause().await {
            tracing::warn!(
                waiting_for = self.question,
                no_answer_from = self.missing.join(" "),
                "no votes from this member yet: too few of the others have told what it must know"
            );
        }
    }
}

/// Pauses that get longer, and a word about it now and then.
struct Patience {
    began: Instant,
    told: Instant,
}

impl Patience {
    fn new() -> Patience {
        let now = Instant::now();
        Patience { began: now, told: now }
    }

    /// `true`: it is time to say what is waited for.
    async fn pause(&mut self) -> bool {
        tokio::time::sleep((self.began.elapsed() / 8).clamp(ASK_PAUSE_MIN, ASK_PAUSE_MAX)).await;
        let due = self.told.elapsed() >= TELL_INTERVAL;
        if due {
            self.told = Instant::now();
        }
        due
    }
}

/// Resolves when everything that any leader may believe to be here is here: see above.
async fn caught_up(inner: &Inner) {
    let mut patience = Patience::new();
    loop {
        // Changes nothing.
        let command = Command::LeaseCheckpoint(LeaseCheckpoint { leases: Vec::new() });
        if inner.leadership.borrow().leader.is_some()
            && inner.propose(Caller::System, command).await.is_ok()
            && inner.flusher_handle.flush().await.is_ok()
        {
            return;
        }
        if patience.pause().await {
            tracing::warn!("no votes from this member yet: no leader has taken an entry from it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_majority_without_a_history_makes_a_new_cluster() {
        use FirstStart::{HasHistory, New, Unknown};
        let new = (0, Standing::FirstStart, None);
        let none_seen = New { term: 0 };
        for (voters, others, expected) in [
            (1, vec![], none_seen),
            (3, vec![], Unknown),
            (3, vec![new], none_seen),
            (3, vec![(0, Standing::Votes, Some(0))], none_seen),
            (3, vec![(0, Standing::Votes, Some(2)), new], New { term: 2 }),
            (3, vec![new, (1, Standing::Votes, Some(1))], HasHistory),
            (3, vec![(0, Standing::Quarantined, None)], HasHistory),
            (5, vec![new], Unknown),
            (5, vec![new, new], none_seen),
            (4, vec![new], Unknown),
            (4, vec![new, new], none_seen),
        ] {
            assert_eq!(judge(voters, &others), expected, "{voters} voters, {others:?}");
        }
    }

    #[test]
    fn the_terms_of_so_many_others_are_needed_that_each_majority_has_one_of_them() {
        let members = |ids: &[u64]| {
            let member = |id: &u64| Member { id: *id, is_learner: *id > 100, ..Member::default() };
            ids.iter().map(member).collect::<Vec<_>>()
        };
        let highest = |ids: &[u64], said: &[(u64, u64, Option<u64>)]| {
            let said = said.iter().map(|(id, last_index, term)| {
                let said = Discovered {
                    cluster_id: 7,
                    members: members(ids),
                    leader: None,
                    member_id: *id,
                    term: *term,
                    last_index: *last_index,
                    standing: Standing::Votes,
                };
                (*id, said)
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
        assert_eq!(
            highest(&[1, 2, 3, 4], &[(2, 9, Some(4)), (4, 9, Some(4))]),
            None,
            "3 may lead the three that were members before 4, with this member's vote"
        );
    }

    #[test]
    fn the_file_says_why() {
        for reason in [Reason::FirstStart, Reason::Emptied, Reason::Damaged] {
            assert_eq!(Reason::from_text(reason.text()), reason);
        }
        assert_eq!(Reason::from_text("torn"), Reason::Damaged);
    }
}
