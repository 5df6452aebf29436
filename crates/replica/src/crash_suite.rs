//! Lives of one member on a simulated disk, and the power cuts that could have hit them. For tests.
//!
//! Everything below Raft is the product's: directory, state file, flusher, log, snapshots received, restored, forced and
//! defragmented directories; what Raft, clients and other members would ask for comes from a seed.
//! Always holds, after every cut, also one during the recovery from another: the directory opens; what was acknowledged
//! is in the log or in the state; index, revision and vote are not behind what was told; the state at its index is the
//! model's; what recovery hands out survives the next cut. The same seed tries the same states.
//! Not here: how a disk crashes (wal), elections and whole clusters (tests/simulation).
//! The caller's runtime must have one thread and a paused clock.

mod judge;
mod model;
mod once;
mod work;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use wal::sim_disk::crash::{Moment, Pending, Platter, Random};
use wal::sim_disk::{Operation, SimDisk};

use crate::config::{Config, Member};
use crate::data_dir::{Identity, stored_identity};
use crate::flusher::chain;
use crate::start::{self, Raised};
use crate::surroundings::{BoxFuture, Listener, Network, Stream, Surroundings, Threads};
use judge::{Found, judge};
use model::{Event, Model, Promise};
use work::Life;

const ME: u64 = 1;
const IDENTITY: Identity = Identity { cluster_id: 7, member_id: ME };
const DATA_DIR: &str = "data";
const CACHE_SIZE_BYTES: usize = 1 << 20;
const LOG_SEGMENT_SIZES_BYTES: [u64; 3] = [4096, 8192, 16384];
/// Lives on one disk: recover, work, crash.
const LIVES: u64 = 6;
/// Of a seed that tries all cuts at every point, and of the others.
const STEPS_FEW: u64 = 5;
const STEPS_MANY: u64 = 30;
const CUTS_ALL: usize = 60;
const CUTS_SOME: usize = 4;
/// One in so many states gets a second cut during its recovery, and another is recovered once more as it is.
const RECOVERY_CRASH_EVERY: u64 = 4;

/// What was tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    pub seeds: u64,
    /// Disk images that were recovered and checked.
    pub states: u64,
    /// Moments at which the power went.
    pub points: u64,
    pub crashes_in_recovery: u64,
    /// States that lost something.
    pub with_losses: u64,
    /// States whose log ended behind the state file.
    pub log_behind_state: u64,
    pub flushes: u64,
    pub purges: u64,
    pub truncations: u64,
    pub snapshots: u64,
    /// States of directories that were being restored, defragmented, forced to be a cluster of one.
    pub restored: u64,
    pub defragmented: u64,
    pub forced: u64,
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

/// How the member came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A cluster of one.
    Alone,
    /// One of three that begin together.
    Founder,
    /// Into a cluster that exists: its log begins empty.
    Joining,
}

struct Suite {
    random: Random,
    kind: Kind,
    log_segment_size_bytes: u64,
    /// All cuts at all points of short lives, or some of longer ones.
    exhaustive: bool,
    report: Report,
}

/// Where the other members cannot be reached.
struct Nobody;

impl Network for Nobody {
    fn connect<'a>(&'a self, _host: &'a str, _port: u16) -> BoxFuture<'a, std::io::Result<Stream>> {
        Box::pin(std::future::ready(Err(std::io::ErrorKind::ConnectionRefused.into())))
    }

    fn listen(&self, _address: std::net::SocketAddr) -> BoxFuture<'_, std::io::Result<Box<dyn Listener>>> {
        Box::pin(std::future::ready(Err(std::io::ErrorKind::Unsupported.into())))
    }
}

/// Runs seed after seed until `states_min` states were checked.
pub async fn run(states_min: u64, first_seed: u64) -> Result<Report, Finding> {
    let mut report = Report::default();
    let mut seed = first_seed;
    while report.states < states_min {
        report = run_seed(seed, report).await?;
        seed += 1;
    }
    Ok(report)
}

/// Runs one seed and adds to `report`.
pub async fn run_seed(seed: u64, report: Report) -> Result<Report, Finding> {
    let mut random = Random(seed);
    let kind = [Kind::Alone, Kind::Founder, Kind::Joining][random.below(3) as usize];
    let size = random.below(LOG_SEGMENT_SIZES_BYTES.len() as u64) as usize;
    let log_segment_size_bytes = LOG_SEGMENT_SIZES_BYTES[size];
    let exhaustive = random.below(4) == 0;
    let mut suite = Suite { random, kind, log_segment_size_bytes, exhaustive, report };
    suite.report.seeds += 1;
    let states = |suite: &Suite, text| Finding { seed, states: suite.report.states, text };
    match AssertUnwindSafe(suite.lives()).catch_unwind().await {
        Ok(Ok(())) => Ok(suite.report),
        Ok(Err(text)) => Err(states(&suite, text)),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(states(&suite, format!("panic: {}", text.unwrap_or_default())))
        }
    }
}

fn members(kind: Kind) -> Vec<Member> {
    let count = if kind == Kind::Alone { 1 } else { 3 };
    let member = |id| Member {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}:2380")],
        ..Member::default()
    };
    (ME..ME + count).map(member).collect()
}

impl Suite {
    fn config(&self, disk: &SimDisk) -> Config {
        let mut config = Config::new(IDENTITY, "m1", DATA_DIR, members(self.kind), Vec::new());
        config.new_cluster = self.kind != Kind::Joining;
        config.wal_segment_size_bytes = self.log_segment_size_bytes;
        config.state_cache_size_bytes = CACHE_SIZE_BYTES;
        config.compact_keys_max = 2;
        config.surroundings = Surroundings {
            disk: Arc::new(disk.clone()),
            network: Arc::new(Nobody),
            threads: Threads::Tasks(Arc::new(|| Duration::ZERO)),
        };
        config
    }

    async fn lives(&mut self) -> Result<(), String> {
        let first = start::first_entry(&members(self.kind)).map_err(|error| error.to_string())?;
        let mut model = Model::new(first);
        let mut platter = Platter::default();
        let mut promise = Promise::new(self.kind);
        for _ in 0..LIVES {
            (platter, promise) = self.life(platter, promise, &mut model).await?;
        }
        self.once(platter, promise, &mut model).await
    }

    /// Works, loses its power at every point; answers one of the disks that this left.
    async fn life(
        &mut self,
        platter: Platter,
        promise: Promise,
        model: &mut Model,
    ) -> Result<(Platter, Promise), String> {
        let disk = SimDisk::with(platter.clone());
        let mut raised = recover(&self.config(&disk)).await?;
        let found = judge(&mut raised, &promise, model).await?;
        let steps = self.random.below(if self.exhaustive { STEPS_FEW } else { STEPS_MANY }) + 1;
        let (random, report) = (&mut self.random, &mut self.report);
        let mut life = Life::new(
            (&mut raised, disk.clone()),
            (self.kind, promise.clone()),
            model,
            random,
            report,
            &found,
        );
        for _ in 0..steps {
            life.step().await?;
        }
        let events = life.story.events();
        let trace = disk.trace();
        end(raised).await;
        self.crashes(platter, promise, &trace, &events, model).await
    }

    async fn crashes(
        &mut self,
        platter: Platter,
        mut promise: Promise,
        trace: &[Operation],
        events: &[Event],
        model: &Model,
    ) -> Result<(Platter, Promise), String> {
        let mut moment = Moment { platter, pending: Vec::new() };
        // The end of the life is as likely as all before, so that lives go on with what they had.
        let length = trace.len() as u64;
        let chosen = self.random.below(2 * length).min(length - 1) as usize;
        let mut next = None;
        for (point, operation) in trace.iter().enumerate() {
            moment.advance(operation);
            if let Operation::Note(note) = operation {
                promise.hear(&events[*note as usize]);
            }
            let is_change = matches!(operation, Operation::Change(_));
            if is_change && !self.exhaustive && point != chosen && self.random.below(3) > 0 {
                continue;
            }
            self.report.points += 1;
            let count_max = if self.exhaustive { CUTS_ALL } else { CUTS_SOME };
            let cuts = moment.cuts(&mut self.random, count_max, !is_change);
            let chosen_cut = self.random.below(cuts.len() as u64) as usize;
            for (number, fates) in cuts.iter().enumerate() {
                let image = moment.crash(fates);
                self.report.with_losses += u64::from(image != disk_of(&moment));
                let tried = self.try_image(&image, &promise, model).await;
                tried.map_err(|text| {
                    format!("{text}\n  crash after operation {point}, {}, fates {fates:?}\n  {promise:?}, committed {:?}", short(operation), model.ids())
                })?;
                if point == chosen && number == chosen_cut {
                    next = Some((image, promise.carried()));
                }
            }
        }
        next.ok_or_else(|| "no crash was chosen".to_owned())
    }

    /// Recovers the image, and now and then again after a crash during that.
    async fn try_image(&mut self, image: &Platter, promise: &Promise, model: &Model) -> Result<(), String> {
        let again = self.random.below(RECOVERY_CRASH_EVERY);
        let disk = SimDisk::with(image.clone());
        let disk = if again == 0 { disk } else { disk.untraced() };
        let (found, durable) = self.judge_disk(&disk, promise, model).await?;
        if found.applied_next > next_after(&found) {
            self.report.log_behind_state += 1;
        }
        if again == 0 {
            let trace = disk.trace();
            let stop = self.random.below(trace.len() as u64 + 1) as usize;
            let mut moment = Moment { platter: image.clone(), pending: Vec::new() };
            trace.iter().take(stop).for_each(|operation| moment.advance(operation));
            for fates in moment.cuts(&mut self.random, 2, true) {
                let image = moment.crash(&fates);
                let tried = self.judge_disk(&SimDisk::with(image).untraced(), promise, model).await;
                tried.map_err(|text| {
                    format!("{text}\n  crash in recovery after operation {stop}, fates {fates:?}")
                })?;
                self.report.crashes_in_recovery += 1;
            }
        } else if again == 1 {
            let mut promise = promise.carried();
            promise.hear(&Event::Durable(found.durable_next));
            promise.hear(&Event::Voted(found.vote_term));
            if let Some(last) = found.last {
                promise.hear(&Event::Logged { last, truncations: 0 });
            }
            let tried = self.judge_disk(&SimDisk::with(durable).untraced(), &promise, model).await;
            tried.map_err(|text| format!("{text}\n  what was handed out is not durable"))?;
        }
        Ok(())
    }

    /// Recovers; answers what was found, and what of it is durable.
    async fn judge_disk(
        &mut self,
        disk: &SimDisk,
        promise: &Promise,
        model: &Model,
    ) -> Result<(Found, Platter), String> {
        begun(disk, promise)?;
        let mut raised = recover(&self.config(disk)).await?;
        let found = judge(&mut raised, promise, model).await;
        let durable = disk.moment().platter;
        end(raised).await;
        self.report.states += 1;
        let found = found?;
        // Without its first entry a new cluster never elects anybody.
        if self.kind != Kind::Joining && found.last.is_none() {
            return Err("the log has no first entry".to_owned());
        }
        Ok((found, durable))
    }
}

/// A directory that once was the member's still is.
fn begun(disk: &SimDisk, promise: &Promise) -> Result<(), String> {
    match stored_identity(disk, Path::new(DATA_DIR)) {
        Err(error) => Err(error.to_string()),
        Ok(identity) if promise.begun && identity != Some(IDENTITY) => Err("the identity is gone".to_owned()),
        Ok(_) => Ok(()),
    }
}

/// Where the log ends without what is only in the state.
fn next_after(found: &Found) -> u64 {
    found.entries.last().map_or(0, |entry| entry.log_id.index + 1)
}

/// With everything that is pending.
fn disk_of(moment: &Moment) -> Platter {
    moment.crash(&vec![wal::sim_disk::crash::Fate::Kept; moment.pending.len()])
}

async fn recover(config: &Config) -> Result<Raised, String> {
    match AssertUnwindSafe(start::recover(config)).catch_unwind().await {
        Ok(Ok(raised)) => Ok(raised),
        Ok(Err(error)) => Err(format!("does not start: {}", chain(&error))),
        Err(_) => Err("panics at start".to_owned()),
    }
}

/// The process is gone; nothing that it still does counts.
async fn end(raised: Raised) {
    let Raised { machine, flusher, log_owner, .. } = raised;
    flusher.stop(false).await;
    machine.log.wal().close();
    machine.state.with_core(|core| core.file.close());
    log_owner.ended().await;
}

/// Without the bytes.
fn short(operation: &Operation) -> String {
    match operation {
        Operation::Change(Pending::Write { file, offset, bytes }) => {
            format!("write of {} bytes at {offset} of file {file}", bytes.len())
        }
        other => format!("{other:?}"),
    }
}
