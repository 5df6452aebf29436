//! Faults as they are done, undone and verified.
//!
//! Invariants: each fault says what it did, in numbers that somebody else counted (the kernel, the tracer, the process
//! table); a member whose process a fault has in hand is left alone by other such faults; at most one member at a time
//! has damaged or no data, so a quorum is always intact; a member that ends by itself without a reason is a finding.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::etcd::EtcdCluster;
use rand::Rng as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;

use crate::background::{Background, Stop};
use crate::cluster;
use crate::disk::{self, Disks};
use crate::membership;
use crate::network::{Direction, Network, Rules, sh};
use crate::record::{Finding, Injected};
use crate::schedule::{Fault, Kind, Target};
use crate::stale::Started;
use crate::workload::Shared;

const POLL: Duration = Duration::from_millis(200);
/// A fault that itself needs the cluster gives up after this.
const CHANGE_WITHIN: Duration = Duration::from_secs(4);
/// Faults at once.
const ACTIVE_MAX: usize = 4;
/// A rolling restart goes on with the next member after this, even if the last does not answer yet.
const BACK_WITHIN: Duration = Duration::from_secs(1);
/// So long after its disk has room again a member may still end of the write that failed.
const FREED_GRACE: Duration = Duration::from_secs(10);
const DAY_S: i64 = 86_400;
/// How fast the fastest clock runs.
pub const DRIFT: f64 = 1.5;

/// Where Debian's package `faketime` has its library.
fn faketime() -> PathBuf {
    PathBuf::from(format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH))
}

/// Whether wall clocks can be changed for one process.
pub fn can_fake_time() -> bool {
    faketime().exists()
}

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
    random: StdRng,
    /// Members whose process, disk or data a fault has in hand.
    held: BTreeSet<usize>,
    slow: BTreeSet<usize>,
    /// Members that may lack data until they have been replaced; at most one.
    unsound: BTreeSet<usize>,
    /// Ends when the unsound member may be started as a new one.
    replacing: Option<(usize, JoinHandle<Result<()>>)>,
    /// Was replaced last, and may not have caught up.
    replaced: Option<usize>,
    /// Members whose disk was full, and until when they may end of that.
    was_full: BTreeMap<usize, Instant>,
    /// Members below a tracer that lets their fdatasync fail or ends them, for as long as it is there.
    traced: BTreeSet<usize>,
}

/// How a fault is ended.
enum Undo {
    Nothing,
    Revive,
    Resume,
    Rules(Rules),
    FastLink,
    Background(Background),
    Power,
    Free,
    /// What the tracer writes; the text that says that it did something.
    Untrace(PathBuf, &'static str),
    Unwrap,
    Replace,
}

struct Active {
    end: Duration,
    record: Injected,
    undo: Undo,
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
            random: StdRng::seed_from_u64(seed),
            held: BTreeSet::new(),
            slow: BTreeSet::new(),
            unsound: BTreeSet::new(),
            replacing: None,
            replaced: None,
            was_full: BTreeMap::new(),
            traced: BTreeSet::new(),
        }
    }

    pub fn revive(&mut self, member: usize) -> Result<()> {
        if self.cluster.process_id(member).is_none() {
            // Before it can answer anybody.
            let started = Started { member, at_ns: self.shared.now_ns() };
            self.shared.note("starts", &started);
            self.starts.push(started);
            self.cluster.revive(member)?;
        }
        self.processes[member].store(self.cluster.process_id(member).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    fn kill(&mut self, member: usize) -> Result<bool> {
        self.processes[member].store(0, Ordering::Relaxed);
        let _status = self.cluster.ended(member)?; // then there is nothing to kill, which is no error
        self.cluster.kill(member)
    }

    /// Asks the member to end, and kills it when it takes too long. `false` if it did not run.
    async fn terminate(&mut self, member: usize) -> Result<bool> {
        let ran = self.cluster.terminate(member)?;
        let deadline = Instant::now() + CHANGE_WITHIN;
        while self.cluster.process_id(member).is_some() && self.cluster.ended(member)?.is_none() {
            if Instant::now() > deadline {
                self.kill(member)?;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(ran)
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
            if let Some(ended) = active.iter().position(|active| active.end <= now) {
                let over = active.swap_remove(ended);
                self.end(over).await?;
                continue;
            }
            if active.len() < ACTIVE_MAX
                && let Some(fault) = upcoming.next_if(|fault| fault.at <= now)
            {
                if let Some((record, undo)) = self.begin(fault).await.with_context(|| format!("{fault}"))? {
                    // Counted from when it was really there: on a slow machine that takes a while.
                    active.push(Active { end: started.elapsed() + fault.lasts, record, undo });
                }
                continue;
            }
            self.supervise().await?;
            let next =
                active.iter().map(|active| active.end).chain(upcoming.peek().map(|fault| fault.at)).min();
            let pause = next.map_or(POLL, |next| next.saturating_sub(started.elapsed()).min(POLL));
            tokio::time::sleep(pause).await;
        }
        for member in 0..self.cluster.size() {
            if !self.unsound.contains(&member) {
                self.revive(member)?;
                self.cluster.resume(member)?;
            }
        }
        Ok(())
    }

    /// Starts members again that have ended by themselves, and notes those that had no reason to.
    pub async fn supervise(&mut self) -> Result<()> {
        self.finish_replacement().await?;
        for member in 0..self.cluster.size() {
            if self.held.contains(&member) {
                continue;
            }
            if let Some(status) = self.cluster.ended(member)? {
                let log_end = last_lines(self.cluster.log(member), 20);
                let was_full = self.was_full.get(&member).copied();
                let joins = self.replaced == Some(member);
                let blameless = self.unsound.contains(&member) || self.traced.contains(&member);
                if !blameless && !excused(was_full, joins, Instant::now(), &log_end) {
                    self.findings.push(Finding {
                        checker: "LIV".to_owned(),
                        sentence: format!(
                            "member {member} ended by itself ({status}) at {:.3} s; its log ends with: {}",
                            self.shared.started.elapsed().as_secs_f64(),
                            last_lines(self.cluster.log(member), 3)
                        ),
                    });
                }
                self.revive(member)?;
            }
        }
        Ok(())
    }

    /// Whether every member has all data that it should have.
    async fn all_are_sound(&mut self) -> bool {
        if let Some(member) = self.replaced
            && cluster::answers(&self.cluster.client_urls[member], POLL * 2).await
        {
            self.replaced = None;
        }
        self.replaced.is_none() && self.unsound.is_empty()
    }

    /// After the faults: waits until no member lacks data.
    pub async fn make_sound(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while let Some(member) = self.unsound.first() {
            ensure!(
                Instant::now() < deadline,
                "member {member} could not be replaced within {within:?} although all faults were over"
            );
            self.supervise().await?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The member goes down and is removed, loses its data, is added and joins; the rest of the run does not wait.
    fn replace(&mut self, member: usize) -> Result<()> {
        self.kill(member)?;
        self.held.insert(member);
        self.unsound.insert(member);
        let urls = self.cluster.client_urls.iter().enumerate();
        let others = urls.filter(|(other, _)| *other != member).map(|(_, url)| url.clone()).collect();
        let peer_url = self.cluster.peer_url(member).to_owned();
        let task = membership::replace(others, peer_url, self.cluster.data(member).to_owned());
        self.replacing = Some((member, tokio::spawn(task)));
        Ok(())
    }

    async fn finish_replacement(&mut self) -> Result<()> {
        let Some((member, task)) = self.replacing.take_if(|(_, task)| task.is_finished()) else {
            return Ok(());
        };
        task.await??;
        self.cluster.join_existing(member);
        self.revive(member)?;
        self.unsound.remove(&member);
        self.held.remove(&member);
        self.replaced = Some(member);
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
        let network = self.network.is_some()
            && matches!(
                fault.kind,
                Kind::Cut
                    | Kind::CutOutgoing
                    | Kind::CutIncoming
                    | Kind::CutPair
                    | Kind::Ring
                    | Kind::Loss
                    | Kind::BlackHole
                    | Kind::Reset
                    | Kind::MoveLeader
            );
        if network {
            return wanted;
        }
        let taken = match fault.kind {
            Kind::SlowLink | Kind::Flap => &self.slow,
            _ => &self.held,
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
        let destroys = matches!(fault.kind, Kind::FlipBit | Kind::Replace);
        let destroys = destroys || fault.kind == Kind::RollingRestart;
        if destroys && !self.all_are_sound().await {
            return Ok(None);
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
            Kind::SyncError | Kind::SlowSync | Kind::KillAtSync => self.trace(fault.kind, first)?,
            Kind::ClockJump | Kind::ClockDrift | Kind::ClockOffset => {
                self.change_clock(fault.kind, first).await?
            }
            _ => self.disturb_network(fault.kind, first, &members)?,
        };
        let alone = !matches!(
            undo,
            Undo::Revive | Undo::Resume | Undo::Power | Undo::Rules(_) | Undo::Background(..)
        ) && fault.kind != Kind::RollingRestart;
        let record = Injected {
            kind: format!("{:?}", fault.kind),
            target: format!("{:?}", fault.target),
            members: if alone { vec![first] } else { members },
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

    async fn stop_processes(&mut self, kind: Kind, members: &[usize]) -> Result<(u64, String, Undo)> {
        self.hold(members);
        let mut effect = 0;
        let mut evidence = String::new();
        for member in members.iter().copied() {
            match kind {
                Kind::Pause => {
                    self.cluster.pause(member)?;
                    let state = self.cluster.process_id(member).map(process_state);
                    effect += u64::from(state == Some('T'));
                    evidence = format!("state {state:?} in the process table");
                }
                Kind::PowerCut => {
                    evidence = self.disks.context("no disks")?.cut_power(member)?;
                    effect += 1;
                }
                Kind::RollingRestart => {
                    effect += u64::from(self.terminate(member).await?);
                    self.revive(member)?;
                    evidence = "ended after SIGTERM and started again".to_owned();
                    let back = Instant::now() + BACK_WITHIN;
                    while Instant::now() < back
                        && !cluster::answers(&self.cluster.client_urls[member], POLL * 2).await
                    {
                        tokio::time::sleep(POLL).await;
                    }
                    self.held.remove(&member);
                }
                _ => {
                    effect += u64::from(self.kill(member)?);
                    evidence = "the process ended by signal 9".to_owned();
                }
            }
        }
        if kind == Kind::PowerCut {
            // All disks first, so that it happens to all at once.
            for member in members.iter().copied() {
                self.kill(member)?;
            }
        }
        Ok((
            effect,
            evidence,
            match kind {
                Kind::Pause => Undo::Resume,
                Kind::PowerCut => Undo::Power,
                Kind::RollingRestart => Undo::Nothing,
                _ => Undo::Revive,
            },
        ))
    }

    fn disturb_network(
        &mut self,
        kind: Kind,
        first: usize,
        members: &[usize],
    ) -> Result<(u64, String, Undo)> {
        use Direction::{Incoming, Outgoing};
        let network = self.network.clone().context("no namespaces")?;
        match kind {
            Kind::SlowLink => {
                self.slow.insert(first);
                network.slow_link(first)?;
                return Ok((0, String::new(), Undo::FastLink));
            }
            Kind::Flap | Kind::Reset => {
                if kind == Kind::Flap {
                    self.slow.insert(first);
                }
                let members = members.to_vec();
                let work = move |stop: &Stop| again_and_again(&network, kind, &members, stop);
                return Ok((0, String::new(), Undo::Background(Background::spawn(work))));
            }
            _ => {}
        }
        let number = usize::try_from(self.shared.now_ns() / 1_000_000)?;
        let rules = network.rules(number, members)?;
        for member in members.iter().copied() {
            let others: Vec<usize> = network
                .others(member)
                .into_iter()
                .filter(|other| kind != Kind::Cut || !members.contains(other))
                .collect();
            let size = self.cluster.size();
            for other in others {
                let peer = Some(other);
                let (next, before) = ((member + 1) % size, (other + 1) % size);
                match kind {
                    Kind::Cut => {
                        network.drop_packets(&rules, member, peer, Outgoing, &[])?;
                        network.drop_packets(&rules, member, peer, Incoming, &[])?;
                    }
                    Kind::CutOutgoing => network.drop_packets(&rules, member, peer, Outgoing, &[])?,
                    Kind::CutIncoming => network.drop_packets(&rules, member, peer, Incoming, &[])?,
                    Kind::CutPair if other == (first + 1) % size => {
                        network.drop_packets(&rules, member, peer, Outgoing, &[])?;
                        network.drop_packets(&rules, member, peer, Incoming, &[])?;
                    }
                    Kind::Ring if other != next && (size == 3 || before != member) => {
                        network.drop_packets(&rules, member, peer, Outgoing, &[])?;
                    }
                    Kind::BlackHole => {
                        network.drop_packets(
                            &rules,
                            member,
                            peer,
                            Outgoing,
                            &["-m", "length", "--length", "600:"],
                        )?;
                    }
                    _ => {}
                }
            }
            if kind == Kind::Loss {
                let third = ["-m", "statistic", "--mode", "random", "--probability", "0.3"];
                network.drop_packets(&rules, member, None, Outgoing, &third)?;
            }
        }
        Ok((0, String::new(), Undo::Rules(rules)))
    }

    /// Starts the member again below a tracer that makes its fdatasync fail.
    fn trace(&mut self, kind: Kind, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        let calls = self.random.random_range(2..15);
        let (inject, said) = match kind {
            Kind::SyncError => (format!("fdatasync:error=EIO:when={calls}"), "INJECTED"),
            Kind::SlowSync => ("fdatasync:delay_enter=300000:when=2+2".to_owned(), "DELAYED"),
            _ => (format!("fdatasync:signal=SIGKILL:when={calls}"), "killed by SIGKILL"),
        };
        let output = self.cluster.dir.path().join(format!("trace-{}", self.shared.now_ns()));
        self.kill(member)?;
        self.cluster.wrap(member, tracer(&output, "fdatasync", &inject));
        if kind != Kind::SlowSync {
            self.traced.insert(member);
        }
        self.revive(member)?;
        Ok((0, inject, Undo::Untrace(output, said)))
    }

    async fn change_clock(&mut self, kind: Kind, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        self.kill(member)?;
        let file = self.cluster.dir.path().join(format!("clock-{member}"));
        let preload = format!("LD_PRELOAD={}", faketime().display());
        let wrapper = match kind {
            Kind::ClockJump => {
                fs::write(&file, format!("{DAY_S:+}\n"))?;
                vec![
                    "env".to_owned(),
                    preload,
                    format!("FAKETIME_TIMESTAMP_FILE={}", file.display()),
                    "FAKETIME_NO_CACHE=1".to_owned(),
                    "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
                ]
            }
            Kind::ClockDrift => {
                let rate = if self.random.random_bool(0.5) { DRIFT } else { 1.0 / DRIFT };
                vec!["env".to_owned(), preload, format!("FAKETIME=+0 x{rate:.3}")]
            }
            _ => ["unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000"]
                .map(str::to_owned)
                .to_vec(),
        };
        let evidence = wrapper.join(" ");
        self.cluster.wrap(member, wrapper);
        self.revive(member)?;
        let changed = self.clock_is_changed(kind, member).await;
        if kind == Kind::ClockJump {
            fs::write(&file, format!("{:+}\n", -DAY_S))?;
        }
        Ok((u64::from(changed), evidence, Undo::Unwrap))
    }

    /// As the kernel says of the process: its preloaded library, or its time namespace.
    async fn clock_is_changed(&self, kind: Kind, member: usize) -> bool {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(25)).await;
            let Some(process) = self.cluster.process_id(member) else { return false };
            let changed = match kind {
                Kind::ClockOffset => {
                    let own = fs::read_link("/proc/self/ns/time").ok();
                    own.is_some() && fs::read_link(format!("/proc/{process}/ns/time")).ok() != own
                }
                _ => fs::read_to_string(format!("/proc/{process}/maps"))
                    .is_ok_and(|maps| maps.contains("libfaketime") && maps.contains("binnacle")),
            };
            if changed {
                return true;
            }
        }
        false
    }

    async fn end(&mut self, over: Active) -> Result<()> {
        let Active { mut record, undo, .. } = over;
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
                self.was_full.insert(members[0], Instant::now() + FREED_GRACE);
                let ended = self.cluster.ended(members[0])?;
                record.evidence +=
                    &ended.map_or(String::new(), |status| format!("; the member ended ({status})"));
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
        for member in &members {
            // A network fault holds nobody, and must not give free whom another fault holds.
            if !is_of_network(&record.kind) && !self.unsound.contains(member) {
                self.held.remove(member);
            }
        }
        record.ended_ns = self.shared.now_ns();
        self.shared.note("faults", &record);
        self.done.push(record);
        Ok(())
    }
}

fn is_of_network(kind: &str) -> bool {
    matches!(
        kind,
        "Cut"
            | "CutOutgoing"
            | "CutIncoming"
            | "CutPair"
            | "Ring"
            | "Loss"
            | "SlowLink"
            | "BlackHole"
            | "Reset"
            | "Flap"
            | "MoveLeader"
    )
}

/// A tracer that is no parent of what it traces, so that the member keeps its place in the process table.
pub fn tracer(output: &Path, calls: &str, inject: &str) -> Vec<String> {
    let output = output.display().to_string();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={inject}"));
    ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", &output, "-e", &trace, "-e", &inject]
        .map(str::to_owned)
        .to_vec()
}

/// Until stopped; how often something was done.
fn again_and_again(network: &Network, kind: Kind, members: &[usize], stop: &Stop) -> Result<u64> {
    let mut times = 0;
    let link = format!("vm{}", members[0] + 1);
    while !stop.is_set() {
        match kind {
            Kind::Flap => {
                sh(&["ip", "link", "set", &link, "down"])?;
                std::thread::sleep(Duration::from_millis(300));
                sh(&["ip", "link", "set", &link, "up"])?;
                times += 1;
            }
            _ => {
                for member in members {
                    times += network.reset(*member)?;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(times)
}

/// The letter of the process table: T is stopped.
fn process_state(process: u32) -> char {
    // A stopped process shows it as soon as its threads have noticed.
    for _ in 0..50 {
        let state = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        let letter = state.rsplit(") ").next().and_then(|rest| rest.chars().next());
        if letter == Some('T') {
            return 'T';
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    '?'
}

/// Whether a member may have ended by itself: its disk was full (`was_full`: until when that counts), or it joins and found
/// nobody who tells it of the cluster, as etcd does then; and it says so.
fn excused(was_full: Option<Instant>, joins: bool, now: Instant, log_end: &str) -> bool {
    was_full.is_some_and(|until| now < until) && log_end.contains("No space left on device")
        || joins && log_end.contains("no peer answered")
}

fn last_lines(log: &Path, count: usize) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::excused;

    #[test]
    fn a_full_disk_excuses_an_end_that_names_it_and_only_for_a_while() {
        let now = Instant::now();
        let later = Some(now + Duration::from_secs(1));
        let says = "the log failed: No space left on device (os error 28)";
        assert!(excused(later, false, now, says));
        assert!(!excused(later, true, now, "panicked at src/lib.rs"));
        assert!(!excused(Some(now), true, now, says), "the excuse stays");
        assert!(!excused(None, false, now, says), "an excuse without a fault");
    }

    #[test]
    fn only_a_member_that_joins_may_give_up_when_nobody_answers() {
        let says = "etcd: --initial-cluster-state=existing: no peer answered: Connection refused";
        assert!(excused(None, true, Instant::now(), says));
        assert!(!excused(None, false, Instant::now(), says));
    }
}
