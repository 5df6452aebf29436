//! One life of a member: what a leader, clients and its own timers make its disk layer do, by chance.
//!
//! Always holds: openraft's part is played as openraft plays it: only what is committed is applied, purging is asked for
//! while a snapshot is still being installed, a truncation is not waited for. Not here: what is right (judge.rs).

use std::time::Duration;

use openraft::storage::{RaftLogStorage, RaftStateMachine};
use tokio::sync::oneshot;
use wal::sim_disk::SimDisk;
use wal::sim_disk::crash::Random;

use super::judge::{Found, shows};
use super::model::{Event, Model, Promise, Story};
use super::{CACHE_SIZE_BYTES, Kind, ME, Report};
use crate::raft_types::*;
use crate::snapshot::{Import, SnapshotBody};
use crate::start::Raised;

/// Longer than the flusher's interval, shorter than the one after which it waits for the disk.
const FLUSHED: Duration = Duration::from_millis(110);
/// A few slices of a compaction.
const COMPACTED: Duration = Duration::from_millis(7);

pub(super) struct Life<'a> {
    pub raised: &'a mut Raised,
    pub disk: SimDisk,
    pub story: Story,
    pub model: &'a mut Model,
    pub random: &'a mut Random,
    pub report: &'a mut Report,
    kind: Kind,
    /// First index behind the member's log.
    end: u64,
    /// The part of its log that is not committed.
    tail: Vec<RaftEntry>,
    term: u64,
    truncations: usize,
}

impl<'a> Life<'a> {
    /// Takes up what was found, as a leader does that hears of it: what contradicts the committed entries goes.
    pub(super) fn new(
        (raised, disk): (&'a mut Raised, SimDisk),
        (kind, promise): (Kind, Promise),
        model: &'a mut Model,
        random: &'a mut Random,
        report: &'a mut Report,
        found: &Found,
    ) -> Life<'a> {
        let story = Story::new(disk.clone(), promise);
        let term_of = |id: Option<LogId>| id.map_or(0, |id| id.leader_id.term);
        let committed = model.chain.last().map(|entry| entry.log_id);
        let term = found.vote_term.max(term_of(committed)).max(term_of(found.last)) + 1;
        let mut life = Life {
            raised,
            disk,
            story,
            model,
            random,
            report,
            kind,
            end: 0,
            tail: Vec::new(),
            term,
            truncations: 0,
        };
        life.end = next_index(found.last.as_ref());
        // What recovery hands out survives the next crash: others count on it.
        life.story.tell(Event::Begun);
        if let Some(last) = found.last {
            life.story.tell(Event::Logged { last, truncations: 0 });
        }
        let ours = |entry: &&RaftEntry| life.model.is_committed(&entry.log_id);
        let beyond = found.entries.iter().find(|entry| !ours(entry)).map(|entry| entry.log_id.index);
        if let Some(beyond) = beyond {
            if beyond < life.model.next_index() {
                life.truncate(beyond);
            } else {
                life.tail =
                    found.entries.iter().filter(|entry| entry.log_id.index >= beyond).cloned().collect();
            }
        }
        life
    }

    pub(super) async fn step(&mut self) -> Result<(), String> {
        match self.random.below(28) {
            0..=6 => self.append().await?,
            7..=11 => self.apply().await?,
            12..=14 => tokio::time::sleep(FLUSHED).await,
            15 | 16 => self.flush().await?,
            17 => tokio::time::sleep(COMPACTED).await,
            18 => self.vote().await?,
            19 | 20 => self.purge().await?,
            21 | 22 if !self.tail.is_empty() => {
                let kept = self.random.below(self.tail.len() as u64) as usize;
                self.truncate(self.tail[kept].log_id.index);
            }
            23..=26 if self.kind != Kind::Alone => self.snapshot().await?,
            27 => self.quarantine()?,
            _ => self.append().await?,
        }
        self.observe()
    }

    /// What can be seen from outside becomes a promise.
    fn observe(&mut self) -> Result<(), String> {
        shows(self.raised, self.model)?;
        let state = &self.raised.machine.state;
        let promise = self.story.promise();
        if state.durable_next() > promise.durable_next {
            self.story.tell(Event::Durable(state.durable_next()));
        }
        let logged_next = next_index(promise.logged.as_ref()).max(promise.durable_next);
        if let Some(index) = state.applied_next().min(logged_next).checked_sub(1)
            && index >= promise.answered_next
        {
            let revision = self.model.shown[index as usize].revision;
            self.story.tell(Event::Answered { index, revision });
        }
        Ok(())
    }

    fn new_entry(&mut self) -> RaftEntry {
        let last = self.tail.last().or(self.model.chain.last()).map(|entry| entry.log_id.leader_id.term);
        let index = self.model.next_index() + self.tail.len() as u64;
        let payload = self.model.payload(self.random, index);
        let entry = RaftEntry { log_id: log_id(self.term, index), payload };
        self.model.know(&entry, last);
        entry
    }

    /// From the leader, or as the leader; waited for or not.
    async fn append(&mut self) -> Result<(), String> {
        let mut batch = Vec::new();
        for _ in 0..self.random.below(3) + 1 {
            let entry = match self.model.chain.get(self.end as usize) {
                Some(entry) => entry.clone(),
                None => {
                    let entry = self.new_entry();
                    self.tail.push(entry.clone());
                    entry
                }
            };
            self.end = entry.log_id.index + 1;
            batch.push(entry);
        }
        let Some(last) = batch.last().map(|entry| entry.log_id) else { return Ok(()) };
        let (sender, written) = oneshot::channel();
        let (story, truncations) = (self.story.clone(), self.truncations);
        self.raised.machine.log.append_entries(batch, move |result| {
            if result.is_ok() {
                story.tell(Event::Logged { last, truncations });
            }
            // Nobody waits for some of them.
            let _ = sender.send(result);
        });
        if self.random.below(3) > 0 {
            written.await.map_err(|_| "the log stopped".to_owned())?.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn apply(&mut self) -> Result<(), String> {
        // The quorum of a single member is its own disk.
        let logged_next = next_index(self.story.promise().logged.as_ref());
        let may = if self.kind == Kind::Alone { logged_next } else { self.end };
        let count = self.tail.iter().take_while(|entry| entry.log_id.index < may).count();
        for entry in self.tail.drain(..self.random.below(count as u64 + 1) as usize) {
            self.model.commit(entry);
        }
        let next = self.raised.machine.state.applied_next();
        let end = self.model.next_index().min(self.end);
        if next >= end {
            return Ok(());
        }
        let told = |error: std::io::Error| error.to_string();
        if self.random.below(2) == 0 {
            let committed = self.model.chain[end as usize - 1].log_id;
            self.raised.machine.log.save_committed(Some(committed)).await.map_err(told)?;
        }
        let until = next + 1 + self.random.below(end - next);
        let entries = self.raised.machine.log.read(next, until).await.map_err(told)?;
        self.raised.machine.replay(entries).map_err(told)
    }

    async fn flush(&mut self) -> Result<(), String> {
        self.report.flushes += 1;
        self.raised.machine.flusher.flush().await.map_err(|error| error.to_string())
    }

    async fn vote(&mut self) -> Result<(), String> {
        self.term += 1;
        let vote = Vote::new(self.term, ME);
        self.raised.machine.log.save_vote(&vote).await.map_err(|error| error.to_string())?;
        self.story.tell(Event::Voted(self.term));
        Ok(())
    }

    /// Asks for it before the state file is that far, as openraft may.
    async fn purge(&mut self) -> Result<(), String> {
        let Some(applied) = self.raised.machine.state.applied_next().checked_sub(1) else { return Ok(()) };
        let upto = applied.saturating_sub(self.random.below(4));
        if upto < next_index(self.raised.machine.log.purged().as_ref()) {
            return Ok(());
        }
        let upto = self.model.chain[upto as usize].log_id;
        let mut log = self.raised.machine.log.clone();
        let purging = tokio::spawn(async move { log.purge(upto).await });
        tokio::task::yield_now().await;
        if self.random.below(2) == 0 {
            self.append().await?;
        }
        self.flush().await?;
        self.report.purges += 1;
        purging.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn truncate(&mut self, from: u64) {
        let last = match from.checked_sub(self.model.next_index() + 1) {
            Some(kept) => self.tail[kept as usize].log_id,
            None => self.model.chain[from as usize - 1].log_id,
        };
        self.story.tell(Event::Truncated { last });
        self.truncations += 1;
        self.report.truncations += 1;
        let mut log = self.raised.machine.log.clone();
        // It is ready at once: it waits for nothing.
        let asked =
            futures_util::FutureExt::now_or_never(async move { log.truncate_after(Some(last)).await });
        assert!(matches!(asked, Some(Ok(()))), "a truncation is only ordered");
        self.tail.retain(|entry| entry.log_id.index < from);
        self.end = from;
        self.term += 1;
    }

    /// From a leader that is further; cut short now and then.
    async fn snapshot(&mut self) -> Result<(), String> {
        if let Some(first) = self.tail.first() {
            self.truncate(first.log_id.index);
        }
        for _ in 0..self.random.below(6) {
            let entry = self.new_entry();
            self.model.commit(entry);
        }
        let index = self.model.next_index() - 1;
        if index < self.raised.machine.state.applied_next() {
            return Ok(());
        }
        let told = |error: crate::snapshot::SnapshotError| error.to_string();
        let disk: std::sync::Arc<dyn wal::Disk> = std::sync::Arc::new(self.disk.clone());
        let path = self.raised.machine.data_dir.incoming_state_file();
        let mut import = Import::new(disk, path, CACHE_SIZE_BYTES);
        let mut frames = self.model.frames(index)?;
        let whole = self.random.below(5) > 0;
        frames.truncate(if whole { usize::MAX } else { 2 });
        for frame in frames {
            import.take(frame).map_err(told)?;
        }
        if !whole {
            return Ok(());
        }
        let (_, prepared) = import.finish(mvcc::Limits::default()).map_err(told)?;
        let upto = self.model.chain[index as usize].log_id;
        let meta = SnapshotMeta {
            last_log_id: Some(upto),
            last_membership: self.model.shown[index as usize].membership.clone(),
        };
        let mut log = self.raised.machine.log.clone();
        let purging = tokio::spawn(async move { log.purge(upto).await });
        tokio::task::yield_now().await;
        let body = SnapshotBody::Incoming(Box::new(prepared));
        self.raised.machine.install_snapshot(&meta, body).await.map_err(|error| error.to_string())?;
        purging.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        self.end = self.end.max(index + 1);
        self.report.snapshots += 1;
        Ok(())
    }

    fn quarantine(&mut self) -> Result<(), String> {
        let directory = self.raised.machine.data_dir.clone();
        let wanted = !directory.quarantined();
        let promise = self.story.promise();
        // A member lifts it behind something that it has applied and flushed.
        if !wanted && promise.logged.is_none() && promise.durable_next == 0 {
            return Ok(());
        }
        self.story.tell(Event::Quarantined(None));
        let done = if wanted {
            directory.set_quarantine(crate::quarantine::Reason::Damaged)
        } else {
            directory.lift_quarantine()
        };
        done.map_err(|error| error.to_string())?;
        self.story.tell(Event::Quarantined(Some(wanted)));
        Ok(())
    }
}
