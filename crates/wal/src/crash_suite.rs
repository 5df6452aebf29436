//! Runs random work on a simulated disk and tries the power cuts that could have hit it. For tests.
//!
//! Always holds, after every crash, also one during recovery: all that was acknowledged is there, in order, and
//! nothing else than what was asked; nothing is called lost. After damage to synced bytes: the exact state, or
//! `LostAcknowledged` and a prefix. What recovery hands out survives the next power cut.
//! Not here: how a disk crashes (sim_disk.rs), readable examples (tests/scripts.rs).

mod damage;

use std::fmt;
use std::io;

use bytes::Bytes;

use crate::api::{Config, Damage, Entry, Recovered};
use crate::handle::{Owner, Wal, open_inline};
use crate::sim_disk::crash::{Moment, Platter, Random};
use crate::sim_disk::{Faults, Operation, SimDisk};

const SEGMENT_SIZES_BYTES: [u64; 3] = [1024, 2048, 4096];
/// Rounds on one disk: work, crash, recover.
const ROUNDS: u64 = 6;
const REQUESTS_PER_ROUND: u64 = 40;
const RANDOM_SUBSETS: usize = 4;
/// One in so many crash states gets a second crash, during its recovery.
const RECOVERY_CRASH_EVERY: u64 = 4;
/// Notes below this say how many steps were asked for; from here on, how many were acknowledged.
const ACKNOWLEDGED: u64 = 1 << 32;

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub seeds: u64,
    /// Disk images that were recovered and checked.
    pub states: u64,
    pub crashes_in_recovery: u64,
    pub kills: u64,
    pub damaged: u64,
    pub torn_tails: u64,
    pub losses_noticed: u64,
}

/// The first thing that was wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    pub seed: u64,
    /// States checked before.
    pub states: u64,
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "seed {}, after {} states: {}", self.seed, self.states, self.text)
    }
}

/// What the log must hold, without its hint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    entries: Vec<Entry>,
    vote: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    next_index: Option<u64>,
}

impl Model {
    fn of(recovered: &Recovered, next_index: Option<u64>) -> Model {
        let (vote, purged) = (recovered.vote.clone(), recovered.purged.clone());
        Model { entries: recovered.entries.clone(), vote, purged, next_index }
    }

    fn shows(&self, recovered: &Recovered) -> bool {
        self.entries == recovered.entries && self.vote == recovered.vote && self.purged == recovered.purged
    }

    fn purged_index(&self) -> u64 {
        self.purged.as_ref().map_or(0, |(purged, _)| *purged)
    }
}

/// All states that the log went through in one round, and the hints that were given.
struct History {
    steps: Vec<Model>,
    hints: Vec<Option<Bytes>>,
}

impl History {
    fn last(&self) -> Model {
        self.steps.last().cloned().unwrap_or_default()
    }

    /// Which step the recovered state is, between what was acknowledged and what was asked for. A vote of a later step may
    /// be there already: behind a torn record it is kept, because no member is hurt by one vote more.
    fn check(&self, recovered: &Recovered, acknowledged: usize, asked: usize) -> Result<Model, String> {
        if let Damage::LostAcknowledged { .. } = recovered.damage {
            return Err(format!("a power cut is taken for lost data: {:?}", recovered.damage));
        }
        if !self.hints.contains(&recovered.committed) {
            return Err(format!("a commit hint nobody gave: {:?}", recovered.committed));
        }
        let steps = self.steps.get(acknowledged..=asked).unwrap_or_default();
        let mut found = steps.iter().enumerate().filter(|(step, model)| {
            let mut votes = steps.iter().skip(*step).map(|later| &later.vote);
            votes.any(|vote| Model { vote: vote.clone(), ..(*model).clone() }.shows(recovered))
        });
        let found = found.next().map(|(_, model)| Model { vote: recovered.vote.clone(), ..model.clone() });
        found.ok_or_else(|| {
            format!(
                "recovered {} which is no state between {} (acknowledged) and {} (asked for)",
                summary(recovered),
                steps.first().map(model_summary).unwrap_or_default(),
                steps.last().map(model_summary).unwrap_or_default(),
            )
        })
    }
}

fn indexes(entries: &[Entry]) -> String {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) => {
            format!("{}@{}..{}@{}", first.index, first.term, last.index, last.term)
        }
        _ => "no entries".to_owned(),
    }
}

fn summary(recovered: &Recovered) -> String {
    let Recovered { entries, vote, purged, damage, .. } = recovered;
    format!("[{}, vote {vote:?}, purged {purged:?}, {damage:?}]", indexes(entries))
}

fn model_summary(model: &Model) -> String {
    format!("[{}, vote {:?}, purged {:?}]", indexes(&model.entries), model.vote, model.purged)
}

struct Suite {
    random: Random,
    config: Config,
    /// All entries have one size, so that records of old and new generations of a file lie at the same places.
    uniform: bool,
    report: Report,
}

/// Runs seed after seed until `states_min` states were checked.
pub fn run(states_min: u64, first_seed: u64) -> Result<Report, Finding> {
    let mut report = Report::default();
    let mut seed = first_seed;
    while report.states < states_min {
        report = run_seed(seed, report)?;
        seed += 1;
    }
    Ok(report)
}

/// Runs one seed and adds to `report`.
pub fn run_seed(seed: u64, report: Report) -> Result<Report, Finding> {
    let mut random = Random(seed);
    let mut config = Config::new("data");
    let size = random.below(SEGMENT_SIZES_BYTES.len() as u64) as usize;
    config.segment_size_bytes = SEGMENT_SIZES_BYTES[size];
    config.salt = random.number();
    let uniform = random.below(2) == 0;
    let mut suite = Suite { random, config, uniform, report };
    suite.report.seeds += 1;
    match suite.rounds() {
        Ok(()) => Ok(suite.report),
        Err(text) => Err(Finding { seed, states: suite.report.states, text }),
    }
}

impl Suite {
    fn rounds(&mut self) -> Result<(), String> {
        let mut platter = Platter::default();
        let mut known: Option<(Model, Option<Bytes>)> = None;
        for round in 0..ROUNDS {
            let disk = SimDisk::with(platter.clone());
            let (wal, mut owner, recovered) = self.open(&disk)?;
            let next_index = recovered.entries.last().map(|entry| entry.index + 1);
            let next_index = next_index.or(recovered.purged.as_ref().map(|(purged, _)| purged + 1));
            let model = match known {
                // A truncation to nothing leaves no trace in what is recovered but the next index.
                Some((known, _)) if known.shows(&recovered) => known,
                _ => Model::of(&recovered, next_index),
            };
            let mut history = History { steps: vec![model], hints: vec![recovered.committed.clone()] };
            disk.note(0);
            disk.note(ACKNOWLEDGED);
            for _ in 0..self.random.below(REQUESTS_PER_ROUND) + 1 {
                self.work(&disk, &wal, &mut owner, &mut history);
            }
            let trace = disk.trace();
            known = Some(self.crashes(&mut platter, &trace, &history)?);
            drop((wal, owner));
            self.votes_outlive(&disk, &history)?;
            if round + 1 == ROUNDS {
                self.damages(&disk, &history)?;
                self.failed_sync(&platter)?;
            }
        }
        Ok(())
    }

    fn open(&mut self, disk: &SimDisk) -> Result<(Wal, Owner, Recovered), String> {
        let opened = open_inline(self.config.clone(), disk.clone());
        let (wal, owner, recovered) = opened.map_err(|error| format!("open failed: {error:?}"))?;
        let range =
            recovered.entries.first().map(|first| first.index..first.index + recovered.entries.len() as u64);
        let read = range.map_or(Ok(Vec::new()), |range| wal.read(range, u64::MAX));
        match read {
            Ok(read) if read == recovered.entries => Ok((wal, owner, recovered)),
            other => Err(format!("reading does not give what was recovered: {other:?}")),
        }
    }

    /// One to three random requests as one batch, or idling.
    fn work(&mut self, disk: &SimDisk, wal: &Wal, owner: &mut Owner, history: &mut History) {
        if self.random.below(6) == 0 {
            for _ in 0..self.random.below(4) {
                owner.step();
            }
            return;
        }
        for _ in 0..self.random.below(3) + 1 {
            self.request(disk, wal, history);
        }
        owner.work();
    }

    fn request(&mut self, disk: &SimDisk, wal: &Wal, history: &mut History) {
        let mut model = history.last();
        let payload = Bytes::from(format!("{:016x}", self.random.number()));
        let mut steps = Vec::new();
        let next = model.next_index.unwrap_or(1);
        let acknowledge = |added: usize| {
            let (disk, step) = (disk.clone(), (history.steps.len() - 1 + added) as u64);
            Box::new(move |result: io::Result<()>| {
                if result.is_ok() {
                    disk.note(ACKNOWLEDGED + step);
                }
            })
        };
        match self.random.below(16) {
            0..=8 => {
                let count = self.random.below(4) + 1;
                let entries: Vec<Entry> = (next..next + count).map(|index| self.entry(index)).collect();
                for entry in &entries {
                    model.entries.push(entry.clone());
                    model.next_index = Some(entry.index + 1);
                    steps.push(model.clone());
                }
                note_asked(disk, history, steps.len());
                wal.append(entries, acknowledge(steps.len()));
            }
            9 | 10 => {
                model.vote = Some(payload.clone());
                steps.push(model);
                note_asked(disk, history, 1);
                wal.save_vote(payload, acknowledge(1));
            }
            11 | 12 => {
                history.hints.push(Some(payload.clone()));
                wal.save_committed(payload);
            }
            13 => {
                let from = next.saturating_sub(self.random.below(8)).max(model.purged_index() + 1);
                model.entries.retain(|entry| entry.index < from);
                model.next_index = model.next_index.map(|next| next.min(from));
                steps.push(model);
                note_asked(disk, history, 1);
                wal.truncate(from, acknowledge(1));
            }
            _ => {
                let jump = if self.random.below(8) == 0 { 3 } else { 0 };
                let upto = (next + jump).saturating_sub(1 + self.random.below(12));
                if model.purged.as_ref().is_none_or(|(purged, _)| *purged < upto) {
                    model.entries.retain(|entry| entry.index > upto);
                    model.next_index = model.next_index.max(Some(upto + 1));
                    model.purged = Some((upto, payload.clone()));
                }
                steps.push(model);
                note_asked(disk, history, 1);
                wal.purge(upto, payload, acknowledge(1));
            }
        }
        history.steps.extend(steps);
    }

    fn entry(&mut self, index: u64) -> Entry {
        let size = if self.uniform { 96 } else { self.random.below(600) };
        let term = self.random.below(1 << 20);
        let mut payload = Vec::new();
        while (payload.len() as u64) < size {
            payload.extend_from_slice(&self.random.number().to_le_bytes());
        }
        let limit = crate::request::entry_payload_bytes_max(self.config.segment_size_bytes);
        payload.truncate(size.min(limit) as usize);
        Entry { term, index, payload: payload.into() }
    }

    /// Tries crashes at all points of the trace; `platter` becomes one of the images.
    fn crashes(
        &mut self,
        platter: &mut Platter,
        trace: &[Operation],
        history: &History,
    ) -> Result<(Model, Option<Bytes>), String> {
        let mut moment = Moment { platter: platter.clone(), pending: Vec::new() };
        let chosen = self.next_crash(trace);
        let (mut asked, mut acknowledged) = (0, 0);
        let mut next = None;
        for (point, operation) in trace.iter().enumerate() {
            moment.advance(operation);
            match operation {
                Operation::Note(note) if *note >= ACKNOWLEDGED => {
                    acknowledged = (*note - ACKNOWLEDGED) as usize
                }
                Operation::Note(note) => asked = *note as usize,
                Operation::SyncFile { .. } | Operation::SyncDirectory { .. } | Operation::Change(_) => {}
            }
            let fates = moment.fates(&mut self.random, RANDOM_SUBSETS);
            let chosen_fates = self.random.below(fates.len() as u64) as usize;
            for (number, fates) in fates.iter().enumerate() {
                let image = moment.crash(fates);
                let context =
                    |text: String| format!("{text}\n  crash after operation {point}, fates {fates:?}");
                let (recovered, _) = self
                    .recover(&image, &|recovered| history.check(recovered, acknowledged, asked).map(|_| ()))
                    .map_err(context)?;
                if point == chosen && number == chosen_fates {
                    let model = history.check(&recovered, acknowledged, asked).map_err(context)?;
                    next = Some((image, model, recovered.committed.clone()));
                }
            }
        }
        // Before the first note nothing had been asked for, and the recovered state is the first step.
        let (image, model, hint) = next.ok_or("no crash was chosen")?;
        *platter = image;
        Ok((model, hint))
    }

    /// Half of the time in the middle of a write that can tear.
    fn next_crash(&mut self, trace: &[Operation]) -> usize {
        let tears = |operation: &Operation| match operation {
            Operation::Change(pending) => pending.sector_count() > 1,
            Operation::SyncFile { .. } | Operation::SyncDirectory { .. } | Operation::Note(_) => false,
        };
        let torn: Vec<usize> = (0..trace.len()).filter(|at| tears(&trace[*at])).collect();
        match torn.get(self.random.below(2 * torn.len() as u64) as usize) {
            Some(point) => *point,
            None => self.random.below(trace.len() as u64) as usize,
        }
    }

    /// Recovers the image, and now and then again after a crash during that.
    fn recover(
        &mut self,
        image: &Platter,
        check: &dyn Fn(&Recovered) -> Result<(), String>,
    ) -> Result<(Recovered, SimDisk), String> {
        let disk = SimDisk::with(image.clone());
        let (_, _, recovered) = self.open(&disk)?;
        self.report.states += 1;
        if let Damage::TornTail { .. } = recovered.damage {
            self.report.torn_tails += 1;
        }
        check(&recovered)?;
        if self.random.below(RECOVERY_CRASH_EVERY) == 0 {
            self.crash_in_recovery(image, &disk, check)?;
        }
        // What was handed out is durable by now.
        let again = SimDisk::with(disk.moment().platter);
        let (_, _, durable) = self.open(&again)?;
        if !Model::of(&recovered, None).shows(&durable) {
            return Err(format!("{} was handed out, {} is durable", summary(&recovered), summary(&durable)));
        }
        Ok((recovered, disk))
    }

    fn crash_in_recovery(
        &mut self,
        image: &Platter,
        disk: &SimDisk,
        check: &dyn Fn(&Recovered) -> Result<(), String>,
    ) -> Result<(), String> {
        let trace = disk.trace();
        let stop = self.random.below(trace.len() as u64 + 1) as usize;
        let mut moment = Moment { platter: image.clone(), pending: Vec::new() };
        for operation in trace.iter().take(stop) {
            moment.advance(operation);
        }
        let fates = moment.fates(&mut self.random, 2);
        let fates = &fates[self.random.below(fates.len() as u64) as usize];
        let (_, _, recovered) = self.open(&SimDisk::with(moment.crash(fates)))?;
        self.report.states += 1;
        self.report.crashes_in_recovery += 1;
        check(&recovered).map_err(|text| format!("{text}\n  crash in recovery after operation {stop}"))
    }

    /// A sync fails, the process ends and comes back while the page cache lives, then the power goes.
    fn failed_sync(&mut self, platter: &Platter) -> Result<(), String> {
        for syncs in 0..12 {
            let disk = SimDisk::with(platter.clone());
            let (wal, mut owner, recovered) = self.open(&disk)?;
            let next_index = recovered.entries.last().map(|entry| entry.index + 1);
            let next_index = next_index.or(recovered.purged.as_ref().map(|(purged, _)| purged + 1));
            let model = Model::of(&recovered, next_index);
            let mut history = History { steps: vec![model], hints: vec![recovered.committed.clone()] };
            disk.set_faults(Faults { syncs_before_failure: Some(syncs), ..Faults::default() });
            for _ in 0..12 {
                self.work(&disk, &wal, &mut owner, &mut history);
            }
            drop((wal, owner));
            let notes = disk.trace().into_iter().filter_map(|operation| match operation {
                Operation::Note(note) => note.checked_sub(ACKNOWLEDGED),
                Operation::SyncFile { .. } | Operation::SyncDirectory { .. } | Operation::Change(_) => None,
            });
            let acknowledged = notes.max().unwrap_or(0) as usize;
            let asked = history.steps.len() - 1;
            let back = disk.killed();
            let (_, _, recovered) = self.open(&back)?;
            self.report.states += 1;
            self.report.kills += 1;
            history
                .check(&recovered, acknowledged, asked)
                .map_err(|text| format!("{text}\n  failed sync"))?;
            let (_, _, durable) = self.open(&SimDisk::with(back.moment().platter))?;
            if !Model::of(&recovered, None).shows(&durable) {
                let (out, durable) = (summary(&recovered), summary(&durable));
                return Err(format!("after a failed sync {out} was handed out, {durable} is durable"));
            }
        }
        Ok(())
    }
}

fn note_asked(disk: &SimDisk, history: &History, added: usize) {
    disk.note((history.steps.len() - 1 + added) as u64);
}
