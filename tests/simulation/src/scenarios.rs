//! Schedules that dwell on one situation, again and again: what an operator would recognise, with all its moments drawn.
//!
//! The swarm's faults come at any time, and some promises break only when two of them meet within milliseconds. Two seeds
//! in six are aimed: their settings and load fit one situation, and their faults are rounds of it and nothing else.
//! Pure, like plan.rs, and drawn apart from it, so that the other seeds mean what they meant.

use wal::sim_disk::crash::Random;

use crate::plan::{Fault, Kind, Plan, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// An election while disks are slow; voters end in the middle of it and are back at once.
    SlowElection,
    /// A follower at the end of a long line, of which clients read.
    FarFollower,
    /// Members end as soon as they run, again and again.
    CrashLoop,
    /// The leader hands over, and gets stuck while it does.
    HandOver,
    /// A member loses what it wrote lately, and is asked by one that never had it, while who has it is cut off.
    LostTail,
    /// A disk reports that it could not write, and soon after the power is gone.
    FailingDisk,
}

const SCENARIOS: [Scenario; 6] = [
    Scenario::SlowElection,
    Scenario::FarFollower,
    Scenario::CrashLoop,
    Scenario::HandOver,
    Scenario::LostTail,
    Scenario::FailingDisk,
];

/// What a seed dwells on.
pub(crate) fn of(seed: u64) -> Option<Scenario> {
    drawn(seed).map(|(scenario, _)| scenario)
}

fn drawn(seed: u64) -> Option<(Scenario, Random)> {
    if !matches!(seed % 6, 0 | 5) {
        return None;
    }
    let mut random = Random(seed ^ 0xa11ed);
    let scenario = SCENARIOS[random.below(SCENARIOS.len() as u64) as usize];
    Some((scenario, random))
}

/// Makes the plan of an aimed seed one of a single scenario.
pub(crate) fn aim(plan: &mut Plan) {
    let Some((scenario, mut random)) = drawn(plan.seed) else { return };
    plan.changes = None;
    plan.settings.moves = false;
    plan.load.users = 0;
    plan.length_ms = match scenario {
        Scenario::FarFollower | Scenario::CrashLoop => 4_000,
        Scenario::FailingDisk => 5_000,
        Scenario::LostTail => 6_000,
        Scenario::SlowElection | Scenario::HandOver => 8_000,
    };
    settings(scenario, &mut random, plan);
    let mut faults = Vec::new();
    let mut at_ms = 600 + random.below(400);
    while at_ms + 500 < plan.length_ms {
        at_ms = match scenario {
            Scenario::SlowElection => slow_election(&mut random, plan, at_ms, &mut faults),
            Scenario::FarFollower => far_follower(&mut random, plan, at_ms, &mut faults),
            Scenario::CrashLoop => crash_loop(&mut random, plan, at_ms, &mut faults),
            Scenario::HandOver => hand_over(&mut random, plan, at_ms, &mut faults),
            Scenario::LostTail => lost_tail(&mut random, plan, at_ms, &mut faults),
            Scenario::FailingDisk => failing_disk(&mut random, plan, at_ms, &mut faults),
        };
    }
    faults.sort_by_key(|fault| fault.at_ms);
    plan.faults = faults;
}

/// What the situation needs; all else stays as the seed drew it.
fn settings(scenario: Scenario, random: &mut Random, plan: &mut Plan) {
    let Plan { settings, load, .. } = plan;
    let busy = |load: &mut crate::workload::Load| {
        (load.clients, load.pause_ms_max, load.short_lives) = (9, 20, false);
    };
    match scenario {
        Scenario::SlowElection => settings.members = [3, 3, 5][random.below(3) as usize],
        Scenario::FarFollower => {
            settings.members = 3;
            // So that a slow line alone deposes nobody.
            (settings.heartbeat_interval_ms, settings.election_timeout_ms) = (100, 1_000);
            busy(load);
            load.timeout_ms = load.timeout_ms.max(1_000);
        }
        Scenario::CrashLoop => {
            settings.members = 3;
            settings.heartbeat_interval_ms = [20, 50][random.below(2) as usize];
            settings.election_timeout_ms = settings.heartbeat_interval_ms * 10;
            (load.clients, load.pause_ms_max, load.short_lives) = (6, 20, false);
            load.timeout_ms = load.timeout_ms.max(1_000);
        }
        Scenario::HandOver => {
            settings.members = 3;
            // The longest that allows leases of a second.
            (settings.heartbeat_interval_ms, settings.election_timeout_ms) = (60, 600);
            (load.lease_holders, load.lazy_holders, load.timeout_ms) = (10, true, 300);
        }
        Scenario::LostTail => {
            settings.members = 3;
            settings.heartbeat_interval_ms = [20, 50][random.below(2) as usize];
            settings.election_timeout_ms = settings.heartbeat_interval_ms * (5 + random.below(4));
            // What is lost must not be in the state file.
            (settings.state_sync_interval_ms, settings.snapshot_count) = (1_000, 1_000);
            busy(load);
        }
        Scenario::FailingDisk => settings.members = [1, 1, 3][random.below(3) as usize],
    }
}

fn one(random: &mut Random, plan: &Plan) -> Target {
    Target::One(random.below(plan.settings.members as u64) as usize)
}

/// Answers when the next round begins, as the others do.
fn slow_election(random: &mut Random, plan: &Plan, at_ms: u64, faults: &mut Vec<Fault>) -> u64 {
    let election_ms = plan.settings.election_timeout_ms;
    let slow_ms = 30 + random.below(200);
    let leader_gone_ms = at_ms + 20;
    let struck_ms = leader_gone_ms + election_ms + random.below(election_ms / 2 + 3 * slow_ms);
    let ends_ms = struck_ms + 200 + random.below(300);
    let gone = match random.below(2) {
        0 => Kind::Kill(Target::Leader),
        _ => Kind::Partition(Target::Leader),
    };
    let struck = match random.below(4) {
        0 => Target::All,
        _ => one(random, plan),
    };
    let strike = match random.below(2) {
        0 => Kind::Kill(struck),
        _ => Kind::PowerCut(struck),
    };
    faults.push(Fault { at_ms, lasts_ms: ends_ms - at_ms, kind: Kind::SlowDisk(Target::All, slow_ms) });
    faults.push(Fault { at_ms: leader_gone_ms, lasts_ms: ends_ms - leader_gone_ms, kind: gone });
    faults.push(Fault { at_ms: struck_ms, lasts_ms: 20 + random.below(80), kind: strike });
    ends_ms + random.below(400)
}

fn far_follower(random: &mut Random, plan: &Plan, at_ms: u64, faults: &mut Vec<Fault>) -> u64 {
    let far = one(random, plan);
    let lasts_ms = 1_500 + random.below(1_500);
    faults.push(Fault { at_ms, lasts_ms, kind: Kind::SlowLink(far, 50 + random.below(350)) });
    for _ in 0..4 {
        let held_at_ms = at_ms + random.below(lasts_ms);
        faults.push(Fault { at_ms: held_at_ms, lasts_ms: 30 + random.below(300), kind: Kind::Hold(far) });
    }
    at_ms + lasts_ms + random.below(300)
}

fn crash_loop(random: &mut Random, plan: &Plan, at_ms: u64, faults: &mut Vec<Fault>) -> u64 {
    let (loops, life_ms_max) = match random.below(4) {
        0 => (one(random, plan), 120),
        _ => (Target::All, 45),
    };
    let mut kill_at_ms = at_ms;
    for _ in 0..5 + random.below(6) {
        let down_ms = 5 + random.below(20);
        faults.push(Fault { at_ms: kill_at_ms, lasts_ms: down_ms, kind: Kind::Kill(loops) });
        // Members that all begin at once have a leader within milliseconds, and clients wait for it: until what those
        // asked first is in a log, and not much longer.
        kill_at_ms += down_ms + 10 + random.below(life_ms_max);
    }
    kill_at_ms + 200 + random.below(300)
}

fn hand_over(random: &mut Random, plan: &Plan, at_ms: u64, faults: &mut Vec<Fault>) -> u64 {
    let stuck_ms = 2 * plan.settings.election_timeout_ms + random.below(700);
    let stuck = match random.below(3) {
        0 => Kind::Hold(Target::Leader),
        _ => Kind::SlowDisk(Target::Leader, stuck_ms),
    };
    faults.push(Fault { at_ms, lasts_ms: stuck_ms, kind: stuck });
    faults.push(Fault { at_ms: at_ms + random.below(20), lasts_ms: 0, kind: Kind::MoveLeader });
    at_ms + stuck_ms + 700 + random.below(800)
}

fn lost_tail(random: &mut Random, plan: &Plan, at_ms: u64, faults: &mut Vec<Fault>) -> u64 {
    let election_ms = plan.settings.election_timeout_ms;
    let first = random.below(3) as usize;
    let [behind, struck, cut_off] = [0, 1, 2].map(|step| Target::One((first + step) % 3));
    let behind_ms = 2 * election_ms + random.below(700);
    let struck_at_ms = at_ms + behind_ms - 10 - random.below(90);
    let cut_ms = 6 * election_ms + random.below(1_000);
    let down_ms = 10 + random.below(70);
    faults.push(Fault { at_ms, lasts_ms: behind_ms, kind: Kind::Partition(behind) });
    faults.push(Fault { at_ms: struck_at_ms, lasts_ms: down_ms, kind: Kind::FlipNewBit(struck) });
    let cut_at_ms = struck_at_ms + random.below(20);
    faults.push(Fault { at_ms: cut_at_ms, lasts_ms: cut_ms, kind: Kind::Partition(cut_off) });
    cut_at_ms + cut_ms + 300 + random.below(300)
}

fn failing_disk(random: &mut Random, plan: &Plan, at_ms: u64, faults: &mut Vec<Fault>) -> u64 {
    let target = match random.below(3) {
        0 => one(random, plan),
        _ => Target::All,
    };
    let cut_at_ms = at_ms + 10 + random.below(200);
    let down_ms = 20 + random.below(200);
    faults.push(Fault { at_ms, lasts_ms: 0, kind: Kind::SyncError(target) });
    faults.push(Fault { at_ms: cut_at_ms, lasts_ms: down_ms, kind: Kind::PowerCut(target) });
    cut_at_ms + down_ms + 400 + random.below(800)
}
