//! Fault tests for hours: run after run, each from the next seed, until the time is over or something is wrong.
//!
//! Invariants: it ends with an error at the first run that fails, and everything of that run is kept and named; of runs
//! that passed only the figures are kept, one JSON object a line. Not here: what a run does (tests/faults,
//! tests/simulation, tests/crash).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::Value;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long new runs are begun.
    #[arg(long)]
    hours: f64,
    /// Of the first run; each run uses the next. Without it level C begins where nobody was before, the others at 1.
    #[arg(long)]
    seed: Option<u64>,
    #[arg(long, value_enum, default_value_t = Level::P)]
    level: Level,
    /// Of level P: whose clients, the store's or the API servers'.
    #[arg(long, value_enum, default_value_t = Workload::Store)]
    workload: Workload,
    /// Where `figures.jsonl` grows and a failed run is kept.
    #[arg(long, default_value = "target/soak")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Level {
    /// Real processes (tests/faults).
    #[value(name = "P", alias = "p")]
    P,
    /// Simulated clusters (tests/simulation); a failing seed prints the command that repeats it.
    #[value(name = "S", alias = "s")]
    S,
    /// Crash points of the log and of a member's directory (tests/crash), by turns.
    #[value(name = "C", alias = "c")]
    C,
}

#[derive(Clone, Copy, ValueEnum)]
enum Workload {
    Store,
    Api,
    /// Each seed once for the store and once for the API servers.
    Both,
}

impl Workload {
    /// As the harness names them, with how it begins the name of a run's directory.
    fn each(self) -> &'static [(&'static str, &'static str)] {
        const EACH: [(&str, &str); 2] = [("store", "seed-"), ("api", "api-seed-")];
        match self {
            Workload::Store => &EACH[..1],
            Workload::Api => &EACH[1..],
            Workload::Both => &EACH,
        }
    }
}

/// Seconds of faults per run at level P.
const RUN_S: u64 = 60;

/// Runs that are tests with other bounds, which they take from the environment.
struct Suite {
    /// The target and the test in it.
    test: [&'static str; 2],
    /// The names of the variables for the first seed and for how much.
    seed: &'static str,
    amount: (&'static str, u64),
}

/// A minute or less of one core each.
const SIMULATION: [Suite; 1] = [Suite { test: ["swarm", "seeds_of"], seed: "SEED", amount: ("SEEDS", 10) }];
const CRASH: [Suite; 2] = [
    Suite { test: ["write_ahead_log", ""], seed: "CRASH_SEED", amount: ("CRASH_STATES", 500_000) },
    Suite { test: ["member_directory", ""], seed: "CRASH_SEED", amount: ("CRASH_STATES", 50_000) },
];

/// What a soak has done so far.
struct Soak<'a> {
    arguments: &'a Arguments,
    figures: File,
    until: Instant,
    runs: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let dir = &arguments.dir;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let figures = File::options().create(true).append(true).open(dir.join("figures.jsonl"))?;
    let until = Instant::now() + Duration::from_secs_f64(arguments.hours * 3600.0);
    let mut soak = Soak { arguments, figures, until, runs: 0 };
    let next = match arguments.level {
        Level::P => soak.processes(arguments.seed.unwrap_or(1))?,
        Level::S => soak.tests(&SIMULATION, arguments.seed.unwrap_or(1))?,
        Level::C => soak.tests(&CRASH, arguments.seed.unwrap_or_else(fresh_seed))?,
    };
    let runs = soak.runs;
    eprintln!(
        "{runs} runs passed, the next seed is {next}; figures: {}",
        dir.join("figures.jsonl").display()
    );
    Ok(())
}

/// By the clock: a thousand seeds further each second.
fn fresh_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs() * 1_000)
}

impl Soak<'_> {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Answers the first seed that was not run.
    fn processes(&mut self, first: u64) -> Result<u64> {
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--package=binnacle", "--package=faults"])
            .status()?;
        ensure!(built.success(), "cannot build the members and the harness");
        let program = std::env::current_exe()?.with_file_name("faults");
        let Arguments { dir, workload, .. } = self.arguments;
        for seed in first.. {
            if !self.goes_on() {
                return Ok(seed);
            }
            for (workload, prefix) in workload.each() {
                let output = Command::new(&program)
                    .args(["--workload", workload, "--seed", &seed.to_string()])
                    .args(["--seconds", &RUN_S.to_string(), "--report"])
                    .arg(dir)
                    .output()
                    .with_context(|| format!("cannot run {}", program.display()))?;
                let line = output.stdout.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
                self.figures.write_all(line)?;
                let kept = dir.join(format!("{prefix}{seed}"));
                if !output.status.success() {
                    bail!(
                        "seed {seed} of workload {workload} failed after {} good runs, see {}\n{}",
                        self.runs,
                        kept.display(),
                        printed(&output)
                    );
                }
                fs::remove_dir_all(&kept).with_context(|| format!("cannot remove {}", kept.display()))?;
                self.runs += 1;
                eprintln!("seed {seed}, {workload}: passed");
            }
        }
        Ok(first)
    }

    /// Answers the first seed that was not run.
    fn tests(&mut self, suites: &[Suite], first: u64) -> Result<u64> {
        let mut next = first;
        while self.goes_on() {
            let mut last = next;
            for suite in suites {
                last = last.max(self.test(suite, next)?);
            }
            next = last;
        }
        Ok(next)
    }

    /// Answers the first seed that was not run.
    fn test(&mut self, suite: &Suite, seed: u64) -> Result<u64> {
        let level = format!("{:?}", self.arguments.level);
        let ([target, test], (amount_name, amount)) = (suite.test, suite.amount);
        // With the features of the whole workspace, so that what others built is used again.
        let output = Command::new(crate::cargo())
            .args(["test", "--quiet", "--locked", "--workspace", "--test", target, test])
            .args(["--", "--nocapture"])
            .env(suite.seed, seed.to_string())
            .env(amount_name, amount.to_string())
            // With one thread its name would stand before what a test prints.
            .env("RUST_TEST_THREADS", "2")
            .output()
            .context("cargo test")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let line = said.lines().rfind(|line| line.starts_with('{') && line.contains("\"level\""));
        let figures: Option<Value> = line.and_then(|line| serde_json::from_str(line).ok());
        if let Some(line) = line {
            writeln!(self.figures, "{line}")?;
        }
        if !output.status.success() {
            let log = self.arguments.dir.join(format!("{level}-{target}-{seed}.log"));
            let printed = printed(&output);
            // A violation ends the simulation before its figures.
            if figures.is_none() && printed.contains("VIOLATION") {
                let violated = serde_json::json!({ "level": level, "seed": seed, "violations": 1 });
                writeln!(self.figures, "{violated}")?;
            }
            fs::write(&log, &printed)?;
            let told: Vec<&str> = printed.lines().filter(|line| is_verdict(line)).collect();
            bail!(
                "{target} from seed {seed} on failed after {} good runs, see {}\n{}",
                self.runs,
                log.display(),
                told.join("\n")
            );
        }
        let seeds = figures.as_ref().and_then(|figures| figures["seeds"].as_u64());
        let seeds = seeds.with_context(|| format!("{target} printed no figures"))?;
        self.runs += 1;
        eprintln!("{target} from seed {seed} on: passed");
        Ok(seed + seeds)
    }
}

fn is_verdict(line: &str) -> bool {
    ["VIOLATION", "repeat:", "panicked at"].iter().any(|sign| line.contains(sign))
}

fn printed(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
