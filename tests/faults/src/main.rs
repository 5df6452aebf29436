//! `faults`: runs of faults on real processes, from a seed; prints one JSON object per run.
//!
//! Ends with status 1 at the first violation or invalid run, and keeps its recording, report and logs.

#![expect(clippy::print_stdout, reason = "the report is this program's output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use faults::judge::{figures, judge};
use faults::record::Recording;
use faults::run::{MEMBERS, Settings, run};
use faults::schedule::Means;
use faults::{isolation, page};

/// Disturbs the processes, network, disks and clocks of a real cluster under load, and checks what clients and watchers
/// were told. What the machine does not allow is named and left out.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Action>,
    /// Draws the faults and the clients' requests; the next run of the same call uses the next seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds of faults per run.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Runs, one after another.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    #[arg(long, default_value_t = MEMBERS)]
    members: usize,
    /// Keeps each run's recording, report.json and report.html in `DIR/seed-N`.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Checks the checks: disks that only pretend to sync, then a power cut. Succeeds if that is found.
    #[arg(long)]
    lying_disks: bool,
}

#[derive(Subcommand)]
enum Action {
    /// Judges a kept run again and writes its reports anew.
    Check { dir: PathBuf },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(Action::Check { dir }) = &arguments.command {
        return check(dir);
    }
    if let Some(code) = isolation::enter()? {
        return Ok(code);
    }
    // The injector waits for commands; clients run on other threads meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // As the first process of its namespace it is not ended by signals that it does not handle.
        tokio::select! {
            code = all_runs(&arguments) => code,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
            _ = terminate.recv() => Ok(ExitCode::FAILURE),
        }
    })
}

async fn all_runs(arguments: &Arguments) -> Result<ExitCode> {
    let means = isolation::means();
    if arguments.lying_disks && !(means.contains(&Means::Disks) && means.contains(&Means::Strace)) {
        println!("skipped: this machine allows no disks that lie");
        return Ok(ExitCode::SUCCESS);
    }
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.runs) {
        let settings = Settings {
            seed,
            length: Duration::from_secs(arguments.seconds),
            members: arguments.members,
            means: means.clone(),
            lying_disks: arguments.lying_disks,
        };
        let result = run(&settings).await?;
        let judgement = judge(&result.recording);
        let bad = judgement.first_violation();
        let failed = bad.is_some() || judgement.invalid.is_some();
        let dir = match &arguments.report {
            Some(dir) => Some(dir.join(format!("seed-{seed}"))),
            None if failed => Some(std::env::temp_dir().join(format!("faults-seed-{seed}"))),
            None => None,
        };
        if let Some(dir) = &dir {
            page::write(dir, &result.recording, &judgement)?;
            result.keep_logs(dir)?;
        }
        println!("{}", figures(&result.recording, &judgement));
        if arguments.lying_disks {
            match bad {
                Some(bad) => println!("the self-check was found, as it must be: {bad}"),
                None => {
                    println!("the lying disks were NOT found: the checks prove nothing");
                    return Ok(ExitCode::FAILURE);
                }
            }
            continue;
        }
        if failed {
            println!("{}", bad.or(judgement.invalid).unwrap_or_default());
            println!("repeat: --seed {seed} --seconds {}", arguments.seconds);
            println!("report: {}", dir.unwrap_or_default().join("report.html").display());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(dir: &Path) -> Result<ExitCode> {
    let recording =
        Recording::load(dir).with_context(|| format!("cannot read the run in {}", dir.display()))?;
    let judgement = judge(&recording);
    page::write(dir, &recording, &judgement)?;
    println!("{}", figures(&recording, &judgement));
    Ok(match judgement.first_violation() {
        Some(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}
