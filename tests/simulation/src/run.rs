//! One run of a plan: members live and die under faults and load, then everything is healed and must come back, then
//! what was recorded is judged.
//!
//! Always holds: a run takes a thread of its own (`chance`), reads no clock but the virtual one, and is the same each
//! time. Not here: what a seed means (plan.rs), what is right (checks.rs).

mod looks;
mod machines;
mod recovery;
mod report;
mod strikes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
pub use report::Report;
use strikes::Active;
use turmoil::Sim;
use wal::sim_disk::crash::Random;

use crate::caretaker;
use crate::chance;
use crate::checks::{Comparisons, Invariants};
use crate::links::{CLIENTS, Links};
use crate::member::{self, Machine, host};
use crate::operator;
use crate::permissions::History;
use crate::plan::{Kind, Plan};
use crate::raft_checks::{Logs, Voters};
use crate::roster::Roster;
use crate::trace::Trace;
use crate::users;
use crate::workload::{self, Shared};

/// A member that ended by itself is started again after this, as a supervisor does.
const RESTART_MS: u64 = 300;
const LOOK_EVERY_MS: u64 = 5;

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
        chance::seed(plan.seed, plan.clocks.as_ref().map_or(0, |clocks| clocks.wall_wrong_s_max));
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
    comparisons: Comparisons,
    logs: Logs,
    permissions: History,
    links: Links,
    active: Vec<Active>,
    /// By member, at the last look.
    connects: BTreeMap<usize, u64>,
    /// Of clocks: when, and how far, in nanoseconds.
    jumps: Vec<(u64, u64)>,
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
        let percent = |number| plan.clocks.as_ref().map(|clocks| clocks.percent(number));
        let machine = |number| Machine::new(number, plan.settings.clone(), percent(number));
        let machines: Vec<_> = (0..count).map(machine).collect();
        for machine in &machines {
            let machine = machine.clone();
            sim.host(host(machine.number), move || member::live(machine.clone()));
        }
        let roster = Roster::new(
            plan.settings.members,
            usize::from(plan.changes.is_some()) + usize::from(plan.load.users > 0),
        );
        let shared = Shared::new(plan.load.clone(), trace.clone(), roster);
        let (load, seed, members) = (shared.clone(), plan.seed, plan.settings.members);
        let changes = plan.changes;
        let damages_states = plan.damages_states();
        let moves = plan.faults.iter().any(|fault| fault.kind == Kind::MoveLeader);
        sim.client(CLIENTS, async move {
            if moves {
                tokio::spawn(workload::hands_over(load.clone()));
            }
            if let Some(changes) = changes {
                tokio::spawn(operator::operator(changes, members, load.clone()));
            }
            if damages_states {
                tokio::spawn(caretaker::caretaker(load.clone()));
            }
            if load.load.users > 0 {
                tokio::spawn(users::root(load.load.users, seed, load.clone()));
            }
            workload::spawn(&load, seed, members).await;
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
            comparisons: Comparisons::default(),
            logs: Logs::default(),
            permissions: History::default(),
            links: Links::new(),
            active: Vec::new(),
            connects: BTreeMap::new(),
            jumps: Vec::new(),
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
        if self.plan.load.users > 0 {
            self.look_at_rules();
        }
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
}
