//! Fault tests for hours: run after run, each from the next seed, until the time is over or something is wrong.
//!
//! Invariants: it ends with an error at the first run that fails, and everything of that run is kept and named; of runs
//! that passed only the figures are kept, one JSON object a line.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::simulation;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long new runs are begun.
    #[arg(long)]
    hours: f64,
    /// Of the first run; each run uses the next.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, value_enum, default_value_t = Level::P)]
    level: Level,
    /// Of level P: whose clients, the store's or the API servers'.
    #[arg(long, value_enum, default_value_t = Workload::Store)]
    workload: Workload,
    /// Where `figures.jsonl` grows and a failed run is kept.
    #[arg(long, default_value = "target/soak")]
    dir: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    /// Real processes (tests/faults).
    #[value(name = "P", alias = "p")]
    P,
    /// Simulated clusters (tests/simulation); a failing seed prints the command that repeats it.
    #[value(name = "S", alias = "s")]
    S,
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

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match arguments.level {
        Level::P => {}
        Level::S => return simulation::soak(arguments.hours, arguments.seed),
    }
    fs::create_dir_all(&arguments.dir).with_context(|| format!("cannot make {}", arguments.dir.display()))?;
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--package=binnacle", "--package=faults"])
        .status()?;
    if !built.success() {
        bail!("cannot build the members and the harness");
    }
    let target = std::env::current_exe()?;
    let program = target.with_file_name("faults");
    let until = Instant::now() + Duration::from_secs_f64(arguments.hours * 3600.0);
    let mut figures = File::options().create(true).append(true).open(arguments.dir.join("figures.jsonl"))?;
    let mut runs = 0;
    for seed in arguments.seed.. {
        if Instant::now() >= until {
            break;
        }
        for (workload, prefix) in arguments.workload.each() {
            let output = Command::new(&program)
                .args(["--workload", workload, "--seed", &seed.to_string()])
                .args(["--seconds", &RUN_S.to_string(), "--report"])
                .arg(&arguments.dir)
                .output()
                .with_context(|| format!("cannot run {}", program.display()))?;
            let line = output.stdout.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
            figures.write_all(line)?;
            let kept = arguments.dir.join(format!("{prefix}{seed}"));
            if !output.status.success() {
                bail!(
                    "seed {seed} of workload {workload} failed after {runs} good runs, see {}\n{}{}",
                    kept.display(),
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            fs::remove_dir_all(&kept).with_context(|| format!("cannot remove {}", kept.display()))?;
            runs += 1;
            eprintln!("seed {seed}, {workload}: passed");
        }
    }
    eprintln!("{runs} runs passed; figures: {}", arguments.dir.join("figures.jsonl").display());
    Ok(())
}
