//! Seeds of the simulation: each must violate nothing, and be the same run every time.
//!
//! `SEED=7 SEEDS=100` chooses where to begin and how many; `SEED=7 FAULTS=0,3` keeps only some faults of one schedule.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test tells and fails")]

use std::process::Command;
use std::time::Instant;

use simulation::{Fault, Keep, Kind, Plan, Report, Target, run, shrink};

/// Runs of the short part, about a second each.
const SEEDS: u64 = 5;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn tell(report: &Report, began: Instant) {
    println!("{report:?} in {:?}", began.elapsed());
}

/// Runs one seed; a violation is made small and told with the command that repeats it.
fn check(plan: &Plan) -> Report {
    let began = Instant::now();
    match run(plan, Keep::Newest) {
        Ok((report, _)) => {
            tell(&report, began);
            report
        }
        Err(failure) => {
            println!("seed {} fails: {}", plan.seed, failure.what);
            let small = if std::env::var("FAULTS").is_ok() {
                simulation::Shrunk { plan: plan.clone(), kept: Vec::new(), failure }
            } else {
                shrink(plan, failure)
            };
            let faults: Vec<String> = small.kept.iter().map(ToString::to_string).collect();
            println!("{}", small.failure.trace.join("\n"));
            for fault in &small.plan.faults {
                println!("{fault}");
            }
            panic!(
                "VIOLATION: {}\nrepeat: SEED={} FAULTS={} cargo test -p simulation --test swarm one_seed -- --nocapture",
                small.failure.what,
                plan.seed,
                faults.join(",")
            );
        }
    }
}

#[test]
fn seeds_of_the_swarm_violate_nothing() {
    let first = number("SEED").unwrap_or(1);
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let began = Instant::now();
    let reports: Vec<Report> = (first..first + seeds).map(|seed| check(&Plan::draw(seed))).collect();
    let sum = |of: fn(&Report) -> usize| reports.iter().map(of).sum::<usize>();
    let effects = sum(|report| report.faults_with_effect);
    // A line for `cargo xtask figures`; a violation has ended the test above.
    let figures = serde_json::json!({
        "level": "S", "seed": first, "seeds": seeds, "wall_s": began.elapsed().as_secs_f64(),
        "operations": sum(|report| report.answered + report.unknown), "changes": sum(|report| report.changes),
        "faults": sum(|report| report.faults), "faults_with_effect": effects, "valid_test": effects > 0, "violations": 0,
    });
    println!("{figures}");
    assert!(effects > 0, "no fault had an effect: the seeds prove nothing");
}

/// Found by seed 3: a new leader tried the old one, which was cut off, without a pause, until its host had no port left.
#[test]
fn a_member_that_cannot_be_reached_is_tried_with_pauses() {
    let kind = Kind::Partition(Target::One(0));
    check(&Plan { faults: vec![Fault { at_ms: 1_266, lasts_ms: 1_330, kind }], ..Plan::draw(3) });
}

/// With an operator who adds, promotes, removes and replaces members; a machine is lost for good, a disk is emptied.
#[test]
fn members_that_come_and_go_violate_nothing_and_the_run_is_the_same_twice() {
    let report = check_twice(&Plan::draw(106));
    assert!(
        report.member_changes > 0 && report.disks_emptied > 0,
        "nobody came or went: the seed proves nothing"
    );
}

/// A bit of a state file flips.
#[test]
fn a_disk_that_flips_a_bit_of_a_state_violates_nothing_and_the_run_is_the_same_twice() {
    let report = check_twice(&Plan::draw(111));
    assert!(report.states_damaged > 0, "no disk flipped anything: the seed proves nothing");
}

/// Found by seed 124: a member that was removed before the others had told it anything ran on and waited for ever. A
/// disk there loses a write that it had said to be durable, too.
#[test]
fn a_member_that_was_removed_before_it_knew_anything_ends_and_the_run_is_the_same_twice() {
    let report = check_twice(&Plan::draw(124));
    assert!(report.removed_ended > 0, "nobody was removed: the seed proves nothing");
    assert!(report.writes_lost > 0, "no disk lost anything: the seed proves nothing");
}

/// Clocks go at their own rates and jump, the wall clock tells any time.
#[test]
fn clocks_that_are_wrong_violate_nothing_and_the_run_is_the_same_twice() {
    let report = check_twice(&Plan::draw(305));
    assert!(report.leases_expired > 0, "no lease ended: the seed proves nothing");
}

/// Users and their rights change while authentication is switched on and off.
#[test]
fn users_whose_rights_change_are_told_what_is_so_and_the_run_is_the_same_twice() {
    let report = check_twice(&Plan::draw(321));
    assert!(report.user_changes > 10, "hardly anything was changed: the seed proves little");
    assert!(report.denied > 10 && report.permissions_judged > 100, "hardly anybody was judged");
}

/// For a look at one seed, by the command that a failure prints.
#[test]
fn one_seed() {
    let Some(seed) = number("SEED") else { return };
    let plan = Plan::draw(seed);
    let plan = match std::env::var("FAULTS") {
        Ok(list) => {
            let kept: Vec<usize> = list.split(',').filter_map(|position| position.parse().ok()).collect();
            plan.only(&kept)
        }
        Err(_) => plan,
    };
    println!("{plan:#?}");
    check(&plan);
}

/// Asked of another process by a test below.
#[test]
fn print_trace_hash() {
    let Some(seed) = number("TRACE_SEED") else { return };
    let (report, lines) =
        run(&Plan::draw(seed), Keep::All).unwrap_or_else(|failure| panic!("{}", failure.what));
    if let Ok(path) = std::env::var("TRACE_FILE") {
        std::fs::write(path, lines.join("\n")).unwrap();
    }
    println!("trace {:x} of {} lines", report.trace_hash, report.trace_lines);
}

/// Runs the plan twice; the traces must be the same, byte for byte.
fn check_twice(plan: &Plan) -> Report {
    let once = || run(plan, Keep::All).unwrap_or_else(|failure| panic!("{}", failure.what));
    let (report, lines) = once();
    let (_, again) = once();
    if let Some(at) = lines.iter().zip(&again).position(|(one, other)| one != other) {
        panic!("seed {}: line {at} differs:\n{}\n{}", plan.seed, lines[at], again[at]);
    }
    assert_eq!(lines.len(), again.len(), "seed {}: one run goes on longer", plan.seed);
    report
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let seed = 2;
    let report = check_twice(&Plan::draw(seed));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["print_trace_hash", "--exact", "--nocapture"])
        .env("TRACE_SEED", seed.to_string())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = format!("trace {:x} of {} lines", report.trace_hash, report.trace_lines);
    assert!(told.contains(&wanted), "another process did something else than {wanted:?}:\n{told}");
}
