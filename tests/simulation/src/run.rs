//! One run of a plan: members live and die under faults and load, then everything is healed and must come back, then
//! what was recorded is judged.
//!
//! Always holds: a run takes a thread of its own (`chance`), reads no clock but the virtual one, and is the same each
//! time. Not here: what a seed means (plan.rs), what is right (checks.rs).

mod machines;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use turmoil::Sim;
use wal::sim_disk::Faults;
use wal::sim_disk::crash::Random;

use crate::caretaker;
use crate::chance;
use crate::checks::{self, Checked, Invariants, Look};
use crate::links::{self, CLIENTS, Links};
use crate::member::{self, Machine, host};
use crate::observers;
use crate::operator;
use crate::plan::{Fault, Kind, Plan, Target};
use crate::raft_checks::{self, Logs, Seen, Voters};
use crate::roster::Roster;
use crate::trace::Trace;
use crate::workload::{self, Load, Shared};

/// A member that ended by itself is started again after this, as a supervisor does.
const RESTART_MS: u64 = 300;
/// After the faults: until every member answers a read that must be right.
const HEALED_MS_MAX: u64 = 30_000;
/// After the last client has ended: time for leases to end and for watchers to see everything.
const QUIET_MS: u64 = 5_500;
const LOOK_EVERY_MS: u64 = 5;
/// To all others together: heartbeats, appends, questions and reads each have their own pauses.
const CONNECTS_PER_S_MAX: u64 = 1_000;
/// Below this a run says nothing.
const ANSWERED_MIN: usize = 20;

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub virtual_ms: u64,
    pub trace_hash: u64,
    pub trace_lines: u64,
    pub changes: usize,
    pub answered: usize,
    pub unknown: usize,
    pub local_reads: usize,
    pub leases: usize,
    pub leases_expired: usize,
    pub compactions: u64,
    pub lives: u64,
    pub faults: usize,
    pub faults_with_effect: usize,
    pub changes_lost_to_power: usize,
    pub snapshots_received: u64,
    pub bits_flipped: u64,
    pub states_damaged: u64,
    pub writes_lost: u64,
    pub member_changes: u64,
    pub machines_lost: u64,
    pub disks_emptied: u64,
    /// Removed members that ended by themselves.
    pub removed_ended: u64,
    pub alarms: u64,
    pub observed: usize,
    pub batches: usize,
    pub looks: u64,
    pub healed_ms: u64,
    /// The search for an order was too long to be finished.
    pub undecided: bool,
}

/// A run that must not be.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    /// The newest lines of the trace.
    pub trace: Vec<String>,
}

/// What to keep of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    Newest,
    All,
}

/// Runs the plan on a thread of its own.
pub fn run(plan: &Plan, keep: Keep) -> Result<(Report, Vec<String>), Failure> {
    run_after(plan, keep, || {})
}

/// One simulation at a time in a process: tokio numbers the tasks of all threads together, and drops those of a runtime
/// in an order that depends on their numbers.
static ALONE: Mutex<()> = Mutex::new(());

/// How many lists a runtime of one thread keeps its tasks in, by number. Source: tokio 1.54, runtime/task/list.rs.
const TASK_LISTS: u64 = 4;

/// Spawns tasks of nothing until the next number falls into the first list.
fn align_task_numbers() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    while runtime
        .spawn(async {})
        .id()
        .to_string()
        .parse::<u64>()
        .is_ok_and(|id| id % TASK_LISTS != TASK_LISTS - 1)
    {}
}

/// Like `run`; the thread does `first` before anything else, which is how a bug is planted.
pub fn run_after(
    plan: &Plan,
    keep: Keep,
    first: impl FnOnce() + Send + 'static,
) -> Result<(Report, Vec<String>), Failure> {
    let _alone = ALONE.lock();
    align_task_numbers();
    // What is made once in a process must not be made by its first run: each hash map that a thread makes gives the next
    // one another order.
    store::read_descriptors();
    let trace = Trace::new(keep == Keep::All);
    let (plan, inner) = (plan.clone(), trace.clone());
    let running = std::thread::Builder::new().name(format!("seed {}", plan.seed)).spawn(move || {
        chance::seed(plan.seed);
        first();
        let _listening = inner.listen();
        Run::new(plan, inner.clone()).go()
    });
    let ended = running.expect("a thread for a simulation").join();
    let result = ended.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_else(|| "of an unknown kind".to_owned())))
    });
    let lines = trace.lines();
    match result {
        Ok(report) => Ok((report, lines)),
        Err(what) => Err(Failure { what, trace: lines }),
    }
}

struct Run {
    plan: Plan,
    trace: Arc<Trace>,
    shared: Arc<Shared>,
    machines: Vec<Arc<Machine>>,
    sim: Sim<'static>,
    random: Random,
    invariants: Invariants,
    logs: Logs,
    links: Links,
    active: Vec<Active>,
    /// By member, at the last look.
    connects: BTreeMap<usize, u64>,
    /// Members whose log was damaged, until they have everything again.
    damaged: BTreeSet<usize>,
    /// Members whose state file was damaged, until they have a new disk.
    rotten: BTreeSet<usize>,
    /// Machines that are not used yet, or not any more.
    absent: BTreeSet<usize>,
    /// Of each machine, what its member last took for the voters.
    voters: BTreeMap<usize, Voters>,
    /// Of each machine, the starts in a row that failed.
    failures: BTreeMap<usize, usize>,
    /// Members that are down, and when they start again.
    down: Vec<(usize, u64)>,
    report: Report,
}

struct Active {
    until_ms: u64,
    kind: Kind,
    members: Vec<usize>,
}

impl Run {
    fn new(plan: Plan, trace: Arc<Trace>) -> Run {
        let mut sim = turmoil::Builder::new()
            .rng_seed(plan.seed)
            .epoch(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
            .tick_duration(Duration::from_millis(1))
            .simulation_duration(Duration::from_secs(3_600))
            .min_message_latency(Duration::from_millis(0))
            .max_message_latency(Duration::from_millis(plan.latency_ms_max))
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let spares = plan.changes.map_or(0, |changes| changes.spares);
        let count = plan.settings.members + spares;
        let machines: Vec<_> = (0..count).map(|number| Machine::new(number, plan.settings.clone())).collect();
        for machine in &machines {
            let machine = machine.clone();
            sim.host(host(machine.number), move || member::live(machine.clone()));
        }
        let roster = Roster::new(plan.settings.members, plan.changes.is_some());
        let shared = Shared::new(plan.load.clone(), trace.clone(), roster);
        let (load, seed, members) = (shared.clone(), plan.seed, plan.settings.members);
        let changes = plan.changes;
        let damages_states = plan.damages_states();
        let moves = plan.faults.iter().any(|fault| fault.kind == Kind::MoveLeader);
        sim.client(CLIENTS, async move {
            if moves {
                tokio::spawn(workload::operator(load.clone()));
            }
            if let Some(changes) = changes {
                tokio::spawn(operator::operator(changes, members, load.clone()));
            }
            if damages_states {
                tokio::spawn(caretaker::caretaker(load.clone()));
            }
            spawn_clients(&load, seed, members).await;
            Ok(())
        });
        let random = Random(plan.seed ^ 0x5eed);
        let absent = (plan.settings.members..count).collect();
        let report = Report { seed: plan.seed, faults: plan.faults.len(), ..Report::default() };
        Run {
            plan,
            trace,
            shared,
            machines,
            sim,
            random,
            invariants: Invariants::default(),
            logs: Logs::default(),
            links: Links::new(),
            active: Vec::new(),
            connects: BTreeMap::new(),
            damaged: BTreeSet::new(),
            rotten: BTreeSet::new(),
            absent,
            voters: BTreeMap::new(),
            failures: BTreeMap::new(),
            down: Vec::new(),
            report,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn go(mut self) -> Result<Report, String> {
        let mut upcoming = self.plan.faults.clone().into_iter().peekable();
        while self.now_ms() < self.plan.length_ms {
            let now_ms = self.now_ms();
            while let Some(fault) = upcoming.next_if(|fault| fault.at_ms <= now_ms) {
                self.begin(fault);
            }
            self.end_faults(now_ms);
            self.step()?;
        }
        self.heal();
        self.wait_until_healed()?;
        self.calm()?;
        self.shared.stop();
        self.quiet()?;
        let (checked, compactions) = self.judge()?;
        Ok(self.finish(checked, compactions))
    }

    /// One tick of all hosts, and what follows from it.
    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("the simulation ended: {error}"))?;
        let now_ms = self.now_ms();
        self.trace.set_now_ms(now_ms);
        chance::set_now_ms(now_ms);
        self.obey();
        for number in self.present() {
            let machine = self.machines[number].clone();
            if machine.disk().is_off() && !self.is_down(number) {
                self.cut_power(number, now_ms + RESTART_MS);
            } else if let Some(reason) = machine.take_end() {
                self.note(&format!("member {number} ended: {reason}"));
                if self.ended(number, &reason) {
                    self.kill(number, now_ms + RESTART_MS);
                }
            }
        }
        let due: Vec<usize> =
            self.down.iter().filter(|(_, at_ms)| *at_ms <= now_ms).map(|(number, _)| *number).collect();
        for number in due {
            self.down.retain(|(down, _)| *down != number);
            self.note(&format!("member {number} starts"));
            self.sim.bounce(host(number));
        }
        if now_ms.is_multiple_of(1_000) {
            self.count_connects()?;
        }
        if now_ms.is_multiple_of(LOOK_EVERY_MS) { self.look() } else { Ok(()) }
    }

    fn note(&self, text: &str) {
        self.trace.line(text);
    }

    fn is_down(&self, number: usize) -> bool {
        self.absent.contains(&number) || self.down.iter().any(|(down, _)| *down == number)
    }

    /// Nobody tries without a pause to reach who cannot be reached.
    fn count_connects(&mut self) -> Result<(), String> {
        for machine in &self.machines {
            let (total, before) = (machine.connects(), self.connects.entry(machine.number).or_default());
            let tried = total - std::mem::replace(before, total);
            if tried > CONNECTS_PER_S_MAX {
                return Err(format!(
                    "member {} tried to connect {tried} times within a second",
                    machine.number
                ));
            }
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), String> {
        let mut seen = Vec::new();
        let machines = &self.machines;
        self.damaged.retain(|number| {
            let status = machines[*number].handle().map(|handle| handle.status());
            !status.is_some_and(|status| status.leader.is_some() && !status.quarantined)
        });
        for machine in &self.machines {
            let Some(handle) = machine.handle() else { continue };
            let status = handle.status();
            seen.push(Seen {
                member: machine.number,
                life: machine.lives(),
                log: handle.log(raft_checks::NEWEST_MAX),
                voters: handle.voters(),
                is_damaged: self.damaged.contains(&machine.number),
                status: status.clone(),
            });
            self.voters.insert(machine.number, handle.voters());
            let state_hash = handle.read(|store, _| (store.revision(), store.state_hash()));
            if status.term == 0 || status.revision != state_hash.0 {
                continue;
            }
            self.invariants.look(&Look {
                member: machine.number,
                life: machine.lives(),
                term: status.term,
                is_leader: status.is_leader,
                member_id: status.identity.member_id,
                applied_index: status.applied_index,
                revision: status.revision,
                state_hash: Some(state_hash.1),
            })?;
        }
        self.tell_losses();
        self.logs.look(&seen)
    }

    fn leader(&self) -> Option<usize> {
        let leads = |machine: &&Arc<Machine>| {
            machine.handle().is_some_and(|handle| handle.status().is_leader) && !self.is_down(machine.number)
        };
        self.machines.iter().find(leads).map(|machine| machine.number)
    }

    fn members(&self, target: Target) -> Vec<usize> {
        let present = self.present();
        let count = present.len();
        let leader = self.leader().unwrap_or(present[0]);
        let place = present.iter().position(|number| *number == leader).unwrap_or(0);
        match target {
            Target::Leader => vec![leader],
            Target::One(number) => vec![present[number % count]],
            Target::Majority => (0..count / 2 + 1).map(|step| present[(place + step) % count]).collect(),
            Target::All => present,
        }
    }

    fn begin(&mut self, fault: Fault) {
        let now_ms = self.now_ms();
        let until_ms = now_ms + fault.lasts_ms;
        let members = match fault.kind {
            Kind::Kill(target)
            | Kind::PowerCut(target)
            | Kind::PowerCutAfter(target, _)
            | Kind::Partition(target)
            | Kind::Mute(target)
            | Kind::Deaf(target)
            | Kind::Hold(target)
            | Kind::SlowLink(target, _)
            | Kind::SlowDisk(target, _)
            | Kind::SyncError(target)
            | Kind::FlipBit(target)
            | Kind::RotState(target)
            | Kind::LoseWrite(target, _)
            | Kind::StrayWrite(target, _)
            | Kind::FlipNewBit(target)
            | Kind::Unreachable(target) => self.members(target),
            Kind::Link(one, other) => {
                let present = self.present();
                vec![present[one % present.len()], present[other % present.len()]]
            }
            Kind::MoveLeader => self.members(Target::Leader),
        };
        self.note(&format!("fault {fault} hits {members:?}"));
        let mut effect = false;
        for number in members.iter().copied().filter(|number| !self.is_down(*number)).collect::<Vec<_>>() {
            effect = true;
            match fault.kind {
                Kind::Kill(_) => self.kill(number, until_ms),
                Kind::PowerCut(_) => self.cut_power(number, until_ms),
                Kind::PowerCutAfter(_, operations) => self.machines[number].disk().set_faults(Faults {
                    operations_before_power_cut: Some(operations),
                    ..Faults::default()
                }),
                Kind::SyncError(_) => self.machines[number]
                    .disk()
                    .set_faults(Faults { syncs_before_failure: Some(0), ..Faults::default() }),
                Kind::FlipBit(_) => effect = self.flip_bit(number, until_ms, false),
                Kind::RotState(_) => effect = self.rot_state(number, until_ms),
                Kind::LoseWrite(..) | Kind::StrayWrite(..) => self.machines[number].remember_writes(),
                Kind::FlipNewBit(_) => effect = self.flip_bit(number, until_ms, true),
                Kind::MoveLeader => effect = self.move_leader(number),
                Kind::SlowDisk(_, latency_ms) => self.machines[number].set_latency_ms(latency_ms),
                Kind::Partition(_)
                | Kind::Mute(_)
                | Kind::Deaf(_)
                | Kind::Hold(_)
                | Kind::Link(..)
                | Kind::SlowLink(..)
                | Kind::Unreachable(_) => {}
            }
        }
        self.report.faults_with_effect += usize::from(effect);
        self.active.push(Active { until_ms, kind: fault.kind, members });
        self.set_links();
    }

    fn end_faults(&mut self, now_ms: u64) {
        if self.active.iter().all(|active| active.until_ms > now_ms) {
            return;
        }
        let (over, active) =
            std::mem::take(&mut self.active).into_iter().partition(|active| active.until_ms <= now_ms);
        self.active = active;
        self.undo(over);
    }

    fn undo(&mut self, over: Vec<Active>) {
        for Active { kind, members, .. } in over {
            match kind {
                Kind::SlowDisk(..) => {
                    members.iter().for_each(|number| self.machines[*number].set_latency_ms(0));
                }
                Kind::LoseWrite(..) | Kind::StrayWrite(..) => {
                    members.iter().for_each(|number| self.reveal(*number, kind));
                }
                _ => {}
            }
        }
        self.set_links();
    }

    fn set_links(&mut self) {
        let count = self.machines.len();
        let mut wanted = Links::new();
        for Active { kind, members, .. } in &self.active {
            let others = || (0..count).filter(|other| !members.contains(other));
            let pairs = members.iter().flat_map(|one| others().map(move |other| (*one, other)));
            match kind {
                Kind::Partition(_) => pairs.for_each(|(one, other)| {
                    links::lose(&mut wanted, one, other);
                    links::lose(&mut wanted, other, one);
                }),
                Kind::Mute(_) => pairs.for_each(|(one, other)| links::lose(&mut wanted, one, other)),
                Kind::Deaf(_) => pairs.for_each(|(one, other)| links::lose(&mut wanted, other, one)),
                Kind::Hold(_) => {
                    pairs.for_each(|(one, other)| links::between(&mut wanted, one, other).0.held = true);
                }
                Kind::SlowLink(_, slow_ms) => {
                    pairs.for_each(|(one, other)| {
                        links::between(&mut wanted, one, other).0.slow_ms = *slow_ms
                    });
                }
                Kind::Link(..) => {
                    if let [one, other] = members[..]
                        && one != other
                    {
                        links::lose(&mut wanted, one, other);
                        links::lose(&mut wanted, other, one);
                    }
                }
                Kind::Unreachable(_) => members.iter().for_each(|one| {
                    links::lose(&mut wanted, *one, count);
                    links::lose(&mut wanted, count, *one);
                }),
                Kind::Kill(_)
                | Kind::PowerCut(_)
                | Kind::PowerCutAfter(..)
                | Kind::SlowDisk(..)
                | Kind::FlipBit(_)
                | Kind::RotState(_)
                | Kind::LoseWrite(..)
                | Kind::StrayWrite(..)
                | Kind::FlipNewBit(_)
                | Kind::MoveLeader
                | Kind::SyncError(_) => {}
            }
        }
        links::set(&self.sim, count, self.plan.latency_ms_max, &mut self.links, wanted);
    }

    fn kill(&mut self, number: usize, until_ms: u64) {
        // First the disk: what the dying process still does to it must not count.
        self.machines[number].killed();
        self.sim.crash(host(number));
        self.down.push((number, until_ms));
    }

    fn cut_power(&mut self, number: usize, until_ms: u64) {
        let pending = self.machines[number].power_lost(&mut self.random);
        self.note(&format!("member {number} loses its power, {pending} changes were not synced"));
        self.report.changes_lost_to_power += pending;
        self.sim.crash(host(number));
        self.down.push((number, until_ms));
    }

    /// Only where a majority keeps whole logs: every acknowledged entry has a copy that nothing happened to.
    fn flip_bit(&mut self, number: usize, until_ms: u64, new: bool) -> bool {
        if !self.may_lose(number) {
            return false;
        }
        self.kill(number, until_ms);
        let flipped = self.machines[number].flip_bit(&mut self.random, new);
        self.note(&format!("a bit of member {number} is flipped: {flipped:?}"));
        if flipped.is_some() {
            self.damaged.insert(number);
            self.report.bits_flipped += 1;
        }
        flipped.is_some()
    }

    /// The next member is to lead; the clients' host asks.
    fn move_leader(&mut self, leader: usize) -> bool {
        let next = (leader + 1) % self.machines.len();
        let Some(handle) = self.machines[next].handle() else { return false };
        self.shared.ask_to_move(leader, handle.status().identity.member_id);
        true
    }

    fn heal(&mut self) {
        self.note("healed");
        self.shared.roster.stop();
        let over = std::mem::take(&mut self.active);
        self.undo(over);
        let now_ms = self.now_ms();
        self.down.iter_mut().for_each(|(_, at_ms)| *at_ms = now_ms);
        for machine in &self.machines {
            // A power cut that waits for its operation must not come any more.
            machine.disk().set_faults(Faults::default());
        }
    }

    /// Every member runs, follows one leader and has applied what that leader has.
    fn wait_until_healed(&mut self) -> Result<(), String> {
        let begin_ms = self.now_ms();
        let mut since_ms = None;
        loop {
            self.step()?;
            let now_ms = self.now_ms();
            if self.is_level() && self.shared.roster.is_idle() {
                // For an election timeout, so that it is no coincidence.
                let since_ms = *since_ms.get_or_insert(now_ms);
                if now_ms - since_ms >= 2 * self.plan.settings.election_timeout_ms {
                    self.report.healed_ms = now_ms - begin_ms;
                    return Ok(());
                }
            } else {
                since_ms = None;
            }
            if now_ms - begin_ms > HEALED_MS_MAX {
                return Err(format!("not healed after {HEALED_MS_MAX} ms: {}", self.describe_all()));
            }
        }
    }

    /// With the load on and nothing wrong, for as long as an operation may take: none may stay without an answer.
    fn calm(&mut self) -> Result<(), String> {
        let Load { timeout_ms, .. } = self.plan.load;
        if timeout_ms > 1_000 || timeout_ms < 40 * self.plan.latency_ms_max {
            return Ok(());
        }
        // Until then connections that a partition broke have been noticed.
        self.pass(2_500)?;
        let terms = self.terms();
        self.shared.set_calm_since(Some(self.now_ms() * 1_000_000));
        self.pass(timeout_ms + 500)?;
        if self.terms() != terms {
            self.shared.set_calm_since(None);
        }
        Ok(())
    }

    fn pass(&mut self, passes_ms: u64) -> Result<(), String> {
        let until_ms = self.now_ms() + passes_ms;
        while self.now_ms() < until_ms {
            self.step()?;
        }
        Ok(())
    }

    fn terms(&self) -> Vec<Option<(u64, Option<u64>)>> {
        let status = |machine: &Arc<Machine>| machine.handle().map(|handle| handle.status());
        let term = |machine| status(machine).map(|status| (status.term, status.leader));
        self.members_present().map(term).collect()
    }

    fn is_level(&self) -> bool {
        let mut leaders = BTreeSet::new();
        let mut lowest = u64::MAX;
        let mut highest = 0;
        for machine in self.members_present() {
            let Some(handle) = machine.handle() else { return false };
            let status = handle.status();
            let Some(leader) = status.leader else { return false };
            if status.quarantined || handle.read(|store, _| !store.alarms().is_empty()) {
                return false;
            }
            leaders.insert((leader, status.term));
            lowest = lowest.min(status.applied_index);
            highest = highest.max(status.applied_index);
        }
        // Under load they are never quite level.
        leaders.len() == 1 && highest - lowest < 50
    }

    fn members_present(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.machines.iter().filter(|machine| !self.absent.contains(&machine.number))
    }

    fn describe_all(&self) -> String {
        let told: Vec<String> = self.members_present().map(|machine| self.describe(machine)).collect();
        told.join("; ")
    }

    fn describe(&self, machine: &Machine) -> String {
        match machine.handle() {
            None => format!("member {} does not run", machine.number),
            Some(handle) => {
                let status = handle.status();
                format!(
                    "member {} in term {} knows leader {:x?}, applied {}, quarantined {}",
                    machine.number, status.term, status.leader, status.applied_index, status.quarantined
                )
            }
        }
    }

    /// No more load: all clients end, leases too, and watchers see everything.
    fn quiet(&mut self) -> Result<(), String> {
        let begin_ms = self.now_ms();
        let mut until_known = false;
        let mut alone_since_ms = u64::MAX;
        loop {
            self.step()?;
            let passed_ms = self.now_ms() - begin_ms;
            if self.shared.clients_running() == 0 {
                alone_since_ms = alone_since_ms.min(passed_ms);
            }
            if passed_ms.saturating_sub(alone_since_ms) >= QUIET_MS {
                if !until_known {
                    until_known = true;
                    let revisions = self.machines.iter().filter_map(|machine| machine.handle());
                    self.shared
                        .set_until(revisions.map(|handle| handle.status().revision).max().unwrap_or(1));
                }
                if self.shared.watchers_behind().is_empty() && self.states_are_equal() {
                    return Ok(());
                }
            }
            if passed_ms > QUIET_MS + HEALED_MS_MAX {
                return Err(format!(
                    "{} clients do not end, watchers at (member, revision) {:?} do not see the rest, or members are not \
                     level: {}",
                    self.shared.clients_running(),
                    self.shared.watchers_behind(),
                    self.describe_all()
                ));
            }
        }
    }

    fn states_are_equal(&self) -> bool {
        let state = |machine: &Arc<Machine>| {
            machine.handle().map(|handle| handle.read(|store, _| (store.revision(), store.state_hash())))
        };
        let mut members = self.members_present();
        let first = members.next().and_then(state);
        first.is_some() && members.all(|machine| state(machine) == first)
    }

    fn judge(&mut self) -> Result<(Checked, u64), String> {
        self.report.member_changes = self.shared.member_changes();
        self.report.alarms = self.shared.alarms_cleared();
        for machine in self.machines.iter().filter(|machine| !self.absent.contains(&machine.number)) {
            let Some(handle) = machine.handle() else { continue };
            self.report.snapshots_received += handle.metrics().snapshots_received;
            let left = handle.read(|store, _| store.leases().count());
            if left > 0 {
                return Err(format!(
                    "member {} still has {left} leases {QUIET_MS} ms after the last was renewed",
                    machine.number
                ));
            }
        }
        let recorded = self.shared.take();
        let checked = checks::all(&recorded)?;
        if checked.answered < ANSWERED_MIN {
            return Err(format!("not a valid run: only {} operations were answered", checked.answered));
        }
        Ok((checked, recorded.compactions))
    }

    fn finish(self, checked: Checked, compactions: u64) -> Report {
        self.note(&format!("the randomness is at {:x}", chance::fingerprint()));
        Report {
            virtual_ms: self.now_ms(),
            trace_hash: self.trace.hash(),
            trace_lines: self.trace.count(),
            changes: checked.changes,
            answered: checked.answered,
            unknown: checked.unknown,
            local_reads: checked.local_reads,
            leases: checked.leases,
            leases_expired: checked.leases_expired,
            undecided: checked.undecided,
            observed: checked.observed,
            batches: checked.batches,
            compactions,
            lives: self.machines.iter().map(|machine| machine.lives()).sum(),
            looks: self.invariants.looks,
            ..self.report
        }
    }
}

/// Begins everything that one host of clients does, and waits for ever: the run says when it is over.
async fn spawn_clients(shared: &Arc<Shared>, seed: u64, members: usize) {
    let mut seeds = Random(seed ^ 0xc11e_u64);
    for member in 0..members {
        tokio::spawn(workload::watcher(member, shared.clone()));
    }
    for number in 0..shared.load.clients {
        tokio::spawn(workload::client(number, number % members, seeds.number(), shared.clone()));
    }
    for number in 0..shared.load.lease_holders {
        let member = number % members;
        tokio::spawn(workload::lease_holder(100 + number, member, seeds.number(), shared.clone()));
    }
    for number in 0..shared.load.observers {
        tokio::spawn(observers::observer(seeds.number() ^ number as u64, members, shared.clone()));
    }
    if shared.load.batches {
        tokio::spawn(observers::batcher(200, members - 1, seeds.number(), shared.clone()));
    }
    if shared.load.compactions {
        tokio::spawn(workload::compactor(seeds.number(), shared.clone(), members));
    }
    std::future::pending::<()>().await;
}
