//! What a seed means: the cluster, its load, and the schedule of faults. Pure: the same seed gives the same plan.
//!
//! Each seed draws which kinds of faults it has and how often they come, so that some runs combine everything and some
//! dwell on one thing. A schedule can be cut (`Plan::only`), which is how a failing one is made small.
//! Not here: doing it (run.rs), schedules that dwell on one situation
//! (scenarios.rs).

use std::fmt;

use wal::sim_disk::crash::Random;

use crate::clocks::Clocks;
use crate::member::Settings;
use crate::operator::Changes;
use crate::scenarios;
use crate::workload::Load;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub settings: Settings,
    pub load: Load,
    /// Between all hosts; each message draws its own.
    pub latency_ms_max: u64,
    /// How long faults come.
    pub length_ms: u64,
    pub faults: Vec<Fault>,
    /// `None`: the list of members stays.
    pub changes: Option<Changes>,
    /// `None`: all are right.
    pub clocks: Option<Clocks>,
}

/// Where on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    Log,
    State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub at_ms: u64,
    pub lasts_ms: u64,
    pub kind: Kind,
}

/// Whom a fault hits, decided when it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Leader,
    /// Some member; the number is taken modulo their count.
    One(usize),
    /// The leader among them.
    Majority,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The process ends; the kernel and its page cache live on.
    Kill(Target),
    /// What was not synced is lost, kept or torn.
    PowerCut(Target),
    /// The same in the middle of what the member does with its disk: after so many operations.
    PowerCutAfter(Target, u64),
    /// Every message between the target and the other members is lost.
    Partition(Target),
    /// Only those from the target are.
    Mute(Target),
    /// Only those to the target are.
    Deaf(Target),
    /// Messages between the target and the others wait until the end of the fault; none is lost.
    Hold(Target),
    /// The link between two members, and no other, loses everything.
    Link(usize, usize),
    /// Messages between the target and the others take so long.
    SlowLink(Target, u64),
    /// Each batch takes so long.
    SlowDisk(Target, u64),
    /// The next sync fails; the member ends and is started again.
    SyncError(Target),
    /// The process ends, and a bit of the older part of its log is another. Only of a minority at a time.
    FlipBit(Target),
    /// The process ends, and a bit of its state file is another. Of a minority too, as all that disks do below.
    RotState(Target),
    /// At the end of the fault the power fails, and one of the writes during it is not there, though it was synced.
    LoseWrite(Target, Area),
    /// The same, and what was written is elsewhere in the file.
    StrayWrite(Target, Area),
    /// The same in its newer part.
    FlipNewBit(Target),
    /// The clients do not reach the target.
    Unreachable(Target),
    /// An operator asks the leader to hand over to the next member.
    MoveLeader,
    /// The target's clock moves ahead by so much at once.
    ClockJump(Target, u64),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} from {} ms for {} ms", self.kind, self.at_ms, self.lasts_ms)
    }
}

/// How often kinds of faults come in one plan, each 0 to 4.
#[derive(Debug)]
struct Mix {
    kills: u64,
    power: u64,
    partitions: u64,
    slowness: u64,
    sync_errors: u64,
    flips: u64,
    relays: u64,
}

impl Plan {
    pub fn draw(seed: u64) -> Plan {
        let mut random = Random(seed);
        let members = [1, 3, 3, 3, 5][random.below(5) as usize];
        let heartbeat_interval_ms = [20, 50, 100][random.below(3) as usize];
        let mut settings = Settings {
            members,
            heartbeat_interval_ms,
            election_timeout_ms: heartbeat_interval_ms * (5 + random.below(6)),
            snapshot_count: [10, 50, 1_000][random.below(3) as usize],
            log_segment_size_bytes: (16 + random.below(112)) << 10,
            watch_inbox_entries_max: [1, 8, 4_096][random.below(3) as usize],
            state_sync_interval_ms: [100, 1_000][random.below(2) as usize],
            compare_interval_ms: None,
            moves: false,
        };
        let load = Load {
            clients: 3 + random.below(6) as usize,
            keys: 1 + random.below(8) as u32,
            pause_ms_max: [20, 50, 100][random.below(3) as usize],
            timeout_ms: [200, 1_000, 3_000][random.below(3) as usize],
            lease_holders: random.below(3) as usize,
            lazy_holders: false,
            compactions: random.below(2) == 0,
            short_lives: random.below(5) == 0,
            observers: random.below(4) as usize,
            batches: random.below(2) == 0,
            refusals: false,
            users: users(seed),
        };
        let latency_ms_max = [2, 5, 20][random.below(3) as usize];
        let length_ms = 4_000 + random.below(4_000);
        let mut strength = || random.below(5).saturating_sub(1);
        let mix = Mix {
            kills: strength(),
            power: strength(),
            partitions: strength(),
            slowness: strength(),
            sync_errors: strength().saturating_sub(1),
            flips: strength().saturating_sub(1),
            relays: strength().saturating_sub(1),
        };
        let mut faults = faults(&mut random, &mix, members, length_ms);
        rot(seed, members, length_ms, &mut faults);
        let changes = changes(seed, members, damages_states(&faults));
        let clocks = clocks(seed, members, length_ms, &mut faults);
        faults.sort_by_key(|fault| fault.at_ms);
        settings.moves = changes.is_some_and(|changes| changes.moves);
        let mut plan = Plan { seed, settings, load, latency_ms_max, length_ms, faults, changes, clocks };
        scenarios::aim(&mut plan);
        refusals(&mut plan);
        comparisons(&mut plan);
        plan
    }

    /// Members may then find their own state damaged, and say so.
    pub(crate) fn damages_states(&self) -> bool {
        damages_states(&self.faults)
    }

    /// The same run with the faults at these positions only.
    pub fn only(&self, kept: &[usize]) -> Plan {
        let faults = kept.iter().filter_map(|position| self.faults.get(*position).copied()).collect();
        Plan { faults, ..self.clone() }
    }
}

/// What seeds up to here mean is kept, because some are known to find something: from here on some have more.
const OLDER_SEEDS: u64 = 100;
/// As above, with more from here on.
const OLD_SEEDS: u64 = 300;
/// Each kind of surroundings has its own stream of randomness, so that none moves what the others draw.
const CHANGES: u64 = 0x006d_656d_6265_7273;
const ROT: u64 = 0x726f_7400;
const MOVES: u64 = 0x6d_6f76_6573;
const USERS: u64 = 0x75_7365_7273;
const CLOCKS: u64 = 0x636c_6f63_6b73;

fn damages_states(faults: &[Fault]) -> bool {
    let damages = |kind| {
        matches!(kind, Kind::RotState(_) | Kind::LoseWrite(_, Area::State) | Kind::StrayWrite(_, Area::State))
    };
    faults.iter().any(|fault| damages(fault.kind))
}

/// Every second of the newer seeds has somebody who changes the list of members; of the newest, those in between where
/// members are reached, if no disk is given up: its member would have to be told the new URLs.
fn changes(seed: u64, members: usize, gives_up_disks: bool) -> Option<Changes> {
    if seed <= OLDER_SEEDS {
        return None;
    }
    if !seed.is_multiple_of(2) {
        let mut random = Random(seed ^ MOVES);
        if seed <= OLD_SEEDS || gives_up_disks || random.below(2) == 0 {
            return None;
        }
        let (seed, pause_ms_max) = (random.number(), [50, 500][random.below(2) as usize]);
        return Some(Changes {
            seed,
            pause_ms_max,
            voters_min: members,
            voters_max: members,
            spares: 0,
            moves: true,
        });
    }
    let mut random = Random(seed ^ CHANGES);
    let changes = Changes {
        seed: random.number(),
        pause_ms_max: [200, 600, 1_500][random.below(3) as usize],
        voters_min: if members == 1 { 1 + 2 * random.below(2) as usize } else { members - 1 },
        voters_max: members + 1 + usize::from(members == 1),
        spares: 2 + random.below(4) as usize,
        moves: false,
    };
    if seed > OLD_SEEDS && members == 3 && random.below(2) == 0 {
        return Some(Changes { pause_ms_max: 200, voters_min: 3, voters_max: 5, spares: 5, ..changes });
    }
    Some(changes)
}

/// About every second of the newer seeds has disks that do not keep what they were given.
fn rot(seed: u64, members: usize, length_ms: u64, faults: &mut Vec<Fault>) {
    let mut random = Random(seed ^ ROT);
    if seed <= OLDER_SEEDS || members < 3 || random.below(2) == 0 {
        return;
    }
    for _ in 0..1 + random.below(4) {
        let target = match random.below(4) {
            0 => Target::Leader,
            _ => Target::One(random.below(members as u64) as usize),
        };
        let area = [Area::Log, Area::State][random.below(2) as usize];
        let kind = match random.below(3) {
            0 => Kind::RotState(target),
            1 => Kind::LoseWrite(target, area),
            _ => Kind::StrayWrite(target, area),
        };
        let at_ms = 500 + random.below(length_ms.saturating_sub(2_500));
        faults.push(Fault { at_ms, lasts_ms: 200 + random.below(1_500), kind });
    }
}

/// Every third of the newest seeds has clocks that are wrong.
fn clocks(seed: u64, members: usize, length_ms: u64, faults: &mut Vec<Fault>) -> Option<Clocks> {
    let mut random = Random(seed ^ CLOCKS);
    if seed <= OLD_SEEDS || random.below(3) != 0 {
        return None;
    }
    let clocks = Clocks::draw(&mut random, members);
    for _ in 0..random.below(4) {
        let target = target(&mut random, members);
        let jump_ms = [50, 500, 5_000][random.below(3) as usize];
        let at_ms = 500 + random.below(length_ms.saturating_sub(1_000));
        faults.push(Fault { at_ms, lasts_ms: 0, kind: Kind::ClockJump(target, jump_ms) });
    }
    Some(clocks)
}

/// A quarter of the newer seeds has transactions that are refused in the middle.
fn refusals(plan: &mut Plan) {
    if plan.seed > OLDER_SEEDS && plan.seed % 4 == 1 {
        (plan.load.batches, plan.load.refusals) = (true, true);
    }
}

/// In an eighth of them the leader compares what the members hold, unless disks make them differ.
fn comparisons(plan: &mut Plan) {
    if plan.seed > OLDER_SEEDS && plan.seed % 8 == 3 && !plan.damages_states() {
        plan.settings.compare_interval_ms = Some(500);
    }
}

/// Other seeds with the same kind of plan, a few dozen at least: what one of them finds another one is likely to find.
pub fn alike(seed: u64) -> impl Iterator<Item = u64> {
    let kind = |seed| {
        let Plan { settings, load, changes, .. } = Plan::draw(seed);
        let extras = (load.refusals, settings.compare_interval_ms, changes.is_some());
        // What an aimed seed means is the same for all of them.
        let scenario = scenarios::of(seed);
        (scenario, scenario.is_none() && seed > OLDER_SEEDS, extras)
    };
    let wanted = kind(seed);
    (1..10_000).filter(move |other| *other != seed && kind(*other) == wanted)
}

/// Every third of the newest seeds has users.
fn users(seed: u64) -> usize {
    let mut random = Random(seed ^ USERS);
    if seed <= OLD_SEEDS || random.below(3) != 0 {
        return 0;
    }
    1 + random.below(4) as usize
}

/// One member is cut off, then another is struck, then a third is cut off while the first comes back: who was behind
/// must now find out from who was struck.
fn relay(random: &mut Random, members: usize, length_ms: u64, faults: &mut Vec<Fault>) {
    let first = random.below(members as u64) as usize;
    let [behind, struck, cut_off] = [0, 1, 2].map(|step| Target::One((first + step) % members));
    let at_ms = 500 + random.below(length_ms.saturating_sub(2_500));
    let behind_ms = 300 + random.below(1_200);
    let strikes_at_ms = at_ms + random.below(behind_ms);
    let struck_ms = 20 + random.below(100);
    let strike = match random.below(6) {
        0 => Kind::Kill(struck),
        1 => Kind::PowerCut(struck),
        2 => Kind::SyncError(struck),
        3 => Kind::PowerCutAfter(struck, random.below(20)),
        _ => Kind::FlipBit(struck),
    };
    let cut_off_at_ms = strikes_at_ms + random.below(150);
    faults.push(Fault { at_ms, lasts_ms: behind_ms, kind: Kind::Partition(behind) });
    faults.push(Fault { at_ms: strikes_at_ms, lasts_ms: struck_ms, kind: strike });
    faults.push(Fault {
        at_ms: cut_off_at_ms,
        lasts_ms: 500 + random.below(1_500),
        kind: Kind::Partition(cut_off),
    });
}

fn target(random: &mut Random, members: usize) -> Target {
    match random.below(8) {
        0..3 => Target::Leader,
        3..6 => Target::One(random.below(members as u64) as usize),
        6 => Target::Majority,
        _ => Target::All,
    }
}

fn faults(random: &mut Random, mix: &Mix, members: usize, length_ms: u64) -> Vec<Fault> {
    let mut faults = Vec::new();
    let seconds = length_ms / 1_000;
    let mut add = |random: &mut Random, often: u64, draw: &dyn Fn(&mut Random) -> Kind| {
        for _ in 0..often * seconds / 4 {
            let at_ms = 500 + random.below(length_ms.saturating_sub(1_000));
            let lasts_ms = [20, 200, 1_000, 3_000][random.below(4) as usize] + random.below(500);
            faults.push(Fault { at_ms, lasts_ms, kind: draw(random) });
        }
    };
    let target = |random: &mut Random| target(random, members);
    add(random, mix.kills, &|random| Kind::Kill(target(random)));
    add(random, mix.power, &|random| match random.below(3) {
        0 => Kind::PowerCut(target(random)),
        _ => Kind::PowerCutAfter(target(random), random.below(60)),
    });
    if members > 1 {
        add(random, mix.partitions, &|random| match random.below(6) {
            0 => Kind::Partition(target(random)),
            1 => Kind::Mute(target(random)),
            2 => Kind::Deaf(target(random)),
            3 => {
                let one = random.below(members as u64) as usize;
                Kind::Link(one, (one + 1) % members)
            }
            _ => Kind::Hold(target(random)),
        });
    }
    add(random, mix.slowness, &|random| match random.below(3) {
        0 if members > 1 => Kind::SlowLink(target(random), 20 + random.below(300)),
        1 => Kind::Unreachable(target(random)),
        _ => Kind::SlowDisk(target(random), 1 + random.below(200)),
    });
    add(random, mix.sync_errors, &|random| {
        Kind::SyncError(match random.below(2) {
            0 => Target::Leader,
            _ => Target::One(random.below(members as u64) as usize),
        })
    });
    if members > 2 {
        add(random, mix.flips, &|random| Kind::FlipBit(Target::One(random.below(members as u64) as usize)));
        for _ in 0..mix.relays {
            relay(random, members, length_ms, &mut faults);
        }
    }
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}
