//! Faults as they are done, undone and verified.
//!
//! Invariants: each fault says what it did, in numbers that somebody else counted (the kernel, the tracer, the process
//! table); a member whose process a fault has in hand is left alone by other such faults; at most one member at a time
//! has damaged or no data, so a quorum is always intact; a member that ends by itself without a reason is a finding.
//! Here is when and to whom; the modules below do it: `processes`, `limits`, `network`, `disks`, `clocks`,
//! `members`.

mod clocks;
mod disks;
mod limits;
mod members;
mod network;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use harness::etcd::EtcdCluster;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::clocks::{DRIFT, can_fake_time};
pub use self::disks::tracer;
use self::limits::Limited;
use self::processes::{Lacked, NO_SPACE};
use crate::background::Background;
use crate::delay::Delayer;
use crate::disk::{self, Disks};
use crate::groups::Group;
use crate::images::Image;
use crate::network::{Network, Rules};
use crate::record::{Finding, Injected};
use crate::schedule::{Fault, Kind, Seizes, Target};
use crate::stale::Started;
use crate::workload::Shared;
use crate::{cluster, membership};

const POLL: Duration = Duration::from_millis(200);
/// A fault that itself needs the cluster gives up after this.
const CHANGE_WITHIN: Duration = Duration::from_secs(4);
/// Faults at once.
const ACTIVE_MAX: usize = 4;
/// So long after it has room or open files again a member may still end of the call that failed.
const GRACE: Duration = Duration::from_secs(10);

pub struct Injector<'a> {
    pub cluster: &'a mut EtcdCluster,
    pub network: Option<Network>,
    pub disks: Option<&'a Disks>,
    pub shared: Arc<Shared>,
    /// Of the running members, zero otherwise.
    pub processes: Arc<Vec<AtomicU32>>,
    pub starts: Vec<Started>,
    pub done: Vec<Injected>,
    pub findings: Vec<Finding>,
    pub images: Vec<Image>,
    random: StdRng,
    /// Members whose process, disk or data a fault has in hand.
    held: BTreeSet<usize>,
    slow: BTreeSet<usize>,
    /// Members whose packets are held back or sent twice.
    delayed: BTreeSet<usize>,
    /// Members that may lack data until they have been replaced; at most one.
    unsound: BTreeSet<usize>,
    /// Ends when the unsound member may be started as a new one.
    replacing: Option<(usize, JoinHandle<Result<()>>)>,
    /// Was replaced last, and may not have caught up.
    replaced: Option<usize>,
    lacked: BTreeMap<usize, Lacked>,
    /// Members come and go, or are copied; not both, because a copy of each member must be all that a majority needs.
    task: Option<Kind>,
    /// Another build to run members as, and what they are otherwise.
    pub other_version: Option<PathBuf>,
    own_version: Option<PathBuf>,
    /// Members below a tracer that lets their fdatasync fail or ends them, or without memory, for as long as that lasts.
    traced: BTreeSet<usize>,
}

/// How a fault is ended.
enum Undo {
    Nothing,
    Revive,
    Resume,
    Rules(Rules),
    FastLink,
    Punctual(Vec<Delayer>),
    Once,
    Background(Background),
    Power,
    Free,
    /// What the tracer writes; the text that says that it did something.
    Untrace(PathBuf, &'static str),
    Unwrap,
    Memory(Group),
    /// It runs in the group, and leaves it.
    Release(Group),
    Descriptors(Limited),
    Task(Task),
    Version,
    Replace,
}

impl Undo {
    /// Whether the fault can end without waiting; asks those to stop that take their time.
    fn is_ready(&self) -> bool {
        let Undo::Task(task) = self else { return true };
        task.stop.cancel();
        task.work.is_finished()
    }
}

/// A fault that goes on by itself, and comes to an end some time after it was asked to.
struct Task {
    stop: CancellationToken,
    work: JoinHandle<Result<Told>>,
}

/// What a task did.
struct Told {
    effect: u64,
    evidence: String,
    images: Vec<Image>,
}

struct Active {
    end: Duration,
    record: Injected,
    undo: Undo,
    /// Those that nobody else may take before its end.
    holds: Vec<usize>,
}

impl<'a> Injector<'a> {
    pub fn new(
        cluster: &'a mut EtcdCluster,
        network: Option<Network>,
        disks: Option<&'a Disks>,
        shared: Arc<Shared>,
        seed: u64,
    ) -> Injector<'a> {
        let processes = (0..cluster.size()).map(|_| AtomicU32::new(0)).collect();
        Injector {
            cluster,
            network,
            disks,
            shared,
            processes: Arc::new(processes),
            starts: Vec::new(),
            done: Vec::new(),
            findings: Vec::new(),
            images: Vec::new(),
            random: StdRng::seed_from_u64(seed),
            held: BTreeSet::new(),
            slow: BTreeSet::new(),
            delayed: BTreeSet::new(),
            unsound: BTreeSet::new(),
            replacing: None,
            replaced: None,
            lacked: BTreeMap::new(),
            task: None,
            other_version: None,
            own_version: None,
            traced: BTreeSet::new(),
        }
    }

    /// Begins and ends the faults at their times; afterwards all members run undisturbed.
    pub async fn run(&mut self, faults: &[Fault], length: Duration) -> Result<()> {
        let started = Instant::now();
        let mut active: Vec<Active> = Vec::new();
        let mut upcoming = faults.iter().peekable();
        while started.elapsed() < length || !active.is_empty() {
            let now = started.elapsed();
            if now > length {
                // A slow machine is behind the schedule; what has not begun by now does not.
                upcoming = [].iter().peekable();
            }
            if let Some(ended) = active.iter().position(|active| active.end <= now && active.undo.is_ready())
            {
                let over = active.swap_remove(ended);
                self.end(over).await?;
                continue;
            }
            if active.len() < ACTIVE_MAX
                && let Some(fault) = upcoming.next_if(|fault| fault.at <= now)
            {
                if let Some((record, undo)) = self.begin(fault).await.with_context(|| format!("{fault}"))? {
                    // A rolling restart is over with its beginning, and has let go of its members one by one.
                    let lets_go =
                        fault.kind == Kind::RollingRestart || fault.kind.seizes() != Seizes::Process;
                    let holds = if lets_go { Vec::new() } else { record.members.clone() };
                    // Counted from when it was really there: on a slow machine that takes a while.
                    active.push(Active { end: started.elapsed() + fault.lasts, record, undo, holds });
                }
                continue;
            }
            self.supervise().await?;
            let next =
                active.iter().map(|active| active.end).chain(upcoming.peek().map(|fault| fault.at)).min();
            let pause = next.map_or(POLL, |next| next.saturating_sub(started.elapsed()).min(POLL));
            // A task that is not ready yet is past its end.
            tokio::time::sleep(pause.max(POLL / 20)).await;
        }
        for member in 0..self.cluster.size() {
            if !self.unsound.contains(&member) {
                self.revive(member)?;
                self.cluster.resume(member)?;
            }
        }
        Ok(())
    }

    async fn victims(&mut self, fault: &Fault) -> Vec<usize> {
        let size = self.cluster.size();
        let leader = cluster::leader(self.cluster).await.unwrap_or(0);
        let wanted: Vec<usize> = match fault.target {
            Target::Leader => vec![leader],
            Target::Follower => vec![(leader + self.random.random_range(1..size.max(2))) % size],
            Target::Majority => (0..=size / 2).map(|step| (leader + 2 * step) % size).collect(),
            Target::All => (0..size).collect(),
        };
        let taken = match fault.kind.seizes() {
            Seizes::Nothing => return wanted,
            Seizes::Link => &self.slow,
            Seizes::Packets => &self.delayed,
            Seizes::Process => &self.held,
        };
        let free: Vec<usize> = wanted.iter().copied().filter(|member| !taken.contains(member)).collect();
        match free.is_empty() {
            false => free,
            true => (0..size).find(|member| !taken.contains(member)).into_iter().collect(),
        }
    }

    /// `None`: there was nobody left to disturb.
    async fn begin(&mut self, fault: &Fault) -> Result<Option<(Injected, Undo)>> {
        let members = self.victims(fault).await;
        let Some(first) = members.first().copied() else { return Ok(None) };
        let needs_all = matches!(
            fault.kind,
            Kind::FlipBit | Kind::Replace | Kind::RemoveLeader | Kind::RollingRestart | Kind::CrashImage
        );
        if needs_all && !self.all_are_sound().await {
            return Ok(None);
        }
        if matches!(fault.kind, Kind::Grow | Kind::CrashImage) {
            if self.task.is_some() {
                return Ok(None);
            }
            self.task = Some(fault.kind);
        }
        let began_ns = self.shared.now_ns();
        let (effect, evidence, undo) = match fault.kind {
            Kind::Kill | Kind::Pause | Kind::PowerCut | Kind::RollingRestart => {
                self.stop_processes(fault.kind, &members).await?
            }
            Kind::MoveLeader => {
                let moved = tokio::time::timeout(CHANGE_WITHIN, membership::move_leader(self.cluster)).await;
                let evidence = match moved {
                    Ok(Ok(said)) => (1, said),
                    Ok(Err(error)) => (0, format!("{error:#}")),
                    Err(_) => (0, "no answer".to_owned()),
                };
                (evidence.0, evidence.1, Undo::Nothing)
            }
            Kind::Replace => {
                self.hold(&members[..1]);
                self.unsound.insert(first);
                self.kill(first)?;
                (0, String::new(), Undo::Replace)
            }
            Kind::RemoveLeader => self.remove(first).await?,
            Kind::Grow => self.grow()?,
            Kind::CrashImage => self.copy_disks()?,
            Kind::OldVersion => self.change_version(&members).await?,
            Kind::FlipBit => {
                self.hold(&members[..1]);
                self.unsound.insert(first);
                self.kill(first)?;
                let what = disk::flip_bit(self.cluster.data(first), &mut self.random);
                self.revive(first)?;
                match what {
                    Ok(what) => (1, what, Undo::Replace),
                    Err(error) => (0, format!("{error:#}"), Undo::Replace),
                }
            }
            Kind::DiskFull => {
                self.hold(&members[..1]);
                let (taken, evidence) = self.disks.context("no disks")?.fill(first)?;
                (taken, evidence, Undo::Free)
            }
            Kind::SyncError | Kind::ReadError | Kind::WriteError | Kind::SlowSync | Kind::KillAtSync => {
                self.trace(fault.kind, first)?
            }
            Kind::OutOfMemory => self.starve(first)?,
            Kind::SlowProcessor | Kind::Freeze => self.confine(fault.kind, first)?,
            Kind::FewDescriptors => self.take_descriptors(first)?,
            Kind::ClockJump | Kind::ClockDrift | Kind::ClockOffset => {
                self.change_clock(fault.kind, first).await?
            }
            _ => self.disturb_network(fault.kind, first, &members)?,
        };
        let record = Injected {
            kind: format!("{:?}", fault.kind),
            target: format!("{:?}", fault.target),
            members,
            began_ns,
            ended_ns: began_ns,
            effect,
            evidence,
        };
        Ok(Some((record, undo)))
    }

    fn hold(&mut self, members: &[usize]) {
        self.held.extend(members);
    }

    async fn end(&mut self, over: Active) -> Result<()> {
        let Active { mut record, undo, holds, .. } = over;
        let members = record.members.clone();
        match undo {
            Undo::Nothing => {}
            Undo::Revive => {
                for member in &members {
                    self.revive(*member)?;
                }
            }
            Undo::Resume => {
                for member in &members {
                    self.cluster.resume(*member)?;
                }
            }
            Undo::Rules(rules) => {
                record.effect = self.network.as_ref().context("no namespaces")?.remove(&rules)?;
                record.evidence = format!("{} packets dropped", record.effect);
            }
            Undo::FastLink => {
                self.slow.remove(&members[0]);
                record.effect = self.network.as_ref().context("no namespaces")?.fast_link(members[0])?;
                record.evidence = format!("packets had to wait {} times", record.effect);
            }
            Undo::Punctual(delayers) => self.end_delay(delayers, &mut record)?,
            Undo::Once => self.end_duplicates(&mut record)?,
            Undo::Background(background) => {
                record.effect = background.finish().await?;
                record.evidence = match record.kind.as_str() {
                    "Flap" => format!("the link went down {} times", record.effect),
                    _ => format!("{} connections killed", record.effect),
                };
                if record.kind == "Flap" {
                    self.slow.remove(&members[0]);
                }
            }
            Undo::Power => {
                for member in &members {
                    self.disks.context("no disks")?.restore_power(*member)?;
                }
                for member in &members {
                    self.revive(*member)?;
                }
            }
            Undo::Free => {
                self.disks.context("no disks")?.free(members[0])?;
                self.lacked.insert(members[0], Lacked { until: Instant::now() + GRACE, says: NO_SPACE });
                self.judge_end(members[0], &mut record)?;
                self.revive(members[0])?;
            }
            Undo::Untrace(output, said) => {
                let ended = self.cluster.ended(members[0])?;
                self.kill(members[0])?;
                self.traced.remove(&members[0]);
                self.cluster.wrap(members[0], Vec::new());
                self.revive(members[0])?;
                let trace = fs::read_to_string(&output).unwrap_or_default();
                record.effect = trace.lines().filter(|line| line.contains(said)).count() as u64;
                record.evidence += &format!(": {} times", record.effect);
                record.evidence +=
                    &ended.map_or(String::new(), |status| format!("; the member ended ({status})"));
            }
            Undo::Memory(group) => {
                self.kill(members[0])?;
                self.traced.remove(&members[0]);
                self.cluster.wrap(members[0], Vec::new());
                self.revive(members[0])?;
                record.effect = group.kills()?;
                record.evidence += &format!(": killed by the kernel {} times", record.effect);
            }
            Undo::Release(group) => {
                if record.kind == "SlowProcessor" {
                    record.effect = group.denials()?;
                    record.evidence += &format!(": denied the processor in {} periods", record.effect);
                }
            }
            Undo::Descriptors(limited) => self.give_descriptors(members[0], &limited, &mut record)?,
            Undo::Task(task) => {
                self.task = None;
                match task.work.await? {
                    Ok(told) => {
                        (record.effect, record.evidence) = (told.effect, told.evidence);
                        self.images.extend(told.images);
                    }
                    Err(error) => {
                        let sentence = format!("{}: {error:#}", record.kind);
                        self.findings.push(Finding { checker: "LIV".to_owned(), sentence });
                    }
                }
            }
            Undo::Version => self.restore_version(&members).await?,
            Undo::Unwrap => {
                self.kill(members[0])?;
                self.cluster.wrap(members[0], Vec::new());
                self.revive(members[0])?;
            }
            Undo::Replace => {
                let ended = self.cluster.ended(members[0])?;
                record.evidence +=
                    &ended.map_or(String::new(), |status| format!("; the member ended ({status})"));
                self.replace(members[0])?;
                if record.kind == "Replace" {
                    record.effect = 1;
                    record.evidence += "killed, to be removed, emptied and added";
                }
            }
        }
        // A fault that holds nobody must not give free whom another fault holds.
        for member in &holds {
            if !self.unsound.contains(member) {
                self.held.remove(member);
            }
        }
        record.ended_ns = self.shared.now_ns();
        self.shared.note("faults", &record);
        self.done.push(record);
        Ok(())
    }
}
