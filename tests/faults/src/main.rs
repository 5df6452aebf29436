//! `faults`: runs of faults on real processes, from a seed; prints one JSON object per run.
//!
//! Ends with status 1 at the first violation or invalid run, and keeps its recording, report and logs.

#![expect(clippy::print_stdout, reason = "the report is this program's output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use faults::delay::{self, Manner};
use faults::judge::judge;
use faults::lines::{self, Workload};
use faults::page::Page;
use faults::record::Recording;
use faults::run::{MEMBERS, Settings, run};
use faults::schedule::{self, Means};
use faults::{api, isolation, page};

/// How long what was given up may hold up the end.
const ENDS_WITHIN: Duration = Duration::from_secs(5);

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
    /// Whose clients: the store's, or the API servers' of three control planes.
    #[arg(long, value_enum, default_value_t = Clients::Store)]
    workload: Clients,
    /// Keeps each run's recording, report.json and report.html in `DIR/seed-N`.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Kinds of faults, or `all`: fails, naming them, if this machine cannot inject one of them.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    require: Vec<String>,
    /// Draws faults of these kinds alone; fails, naming them, if this machine cannot inject one of them.
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    only: Vec<String>,
    /// Another build, usually an older one, which members of the store's workload are for a while.
    #[arg(long, value_name = "PROGRAM")]
    previous: Option<PathBuf>,
    /// Checks the checks: disks that only pretend to sync, then a power cut. Succeeds if the loss is found.
    #[arg(long)]
    lying_disks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clients {
    Store,
    Api,
}

#[derive(Subcommand)]
enum Action {
    /// Judges a kept run again and writes its reports anew.
    Check { dir: PathBuf },
    /// Holds the packets of this network namespace's queue back until standard input ends.
    #[command(hide = true)]
    HoldBack {
        #[command(flatten)]
        manner: Manner,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Action::Check { dir }) => return check(dir),
        Some(Action::HoldBack { manner }) => {
            delay::hold_back(*manner, |said| println!("{said}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        None => {}
    }
    if let Some(code) = isolation::enter()? {
        return Ok(code);
    }
    // The injector waits for commands; clients run on other threads meanwhile.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let code = runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        // As the first process of its namespace it is not ended by signals that it does not handle.
        tokio::select! {
            code = all_runs(&arguments) => code,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::FAILURE),
            _ = terminate.recv() => Ok(ExitCode::FAILURE),
        }
    });
    runtime.shutdown_timeout(ENDS_WITHIN);
    code
}

async fn all_runs(arguments: &Arguments) -> Result<ExitCode> {
    let mut means = isolation::means();
    means.extend(arguments.previous.is_some().then_some(Means::OldVersion));
    let previous = arguments.previous.as_deref().map(named_etcd).transpose()?;
    let missing = schedule::missing(&means, &[&arguments.require[..], &arguments.only].concat())?;
    if !missing.is_empty() {
        println!("required, but this machine cannot inject: {}", missing.join(", "));
        return Ok(ExitCode::FAILURE);
    }
    if arguments.lying_disks && !(means.contains(&Means::Disks) && means.contains(&Means::Strace)) {
        println!("skipped: this machine allows no disks that lie");
        return Ok(ExitCode::SUCCESS);
    }
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.runs) {
        let name = match arguments.workload {
            Clients::Store => format!("seed-{seed}"),
            Clients::Api => format!("api-seed-{seed}"),
        };
        let settings = Settings {
            seed,
            length: Duration::from_secs(arguments.seconds),
            members: arguments.members,
            means: means.clone(),
            only: arguments.only.clone(),
            other_version: previous.as_ref().map(|(_, program)| program.clone()),
            lying_disks: arguments.lying_disks,
            journal: arguments.report.as_ref().map(|dir| dir.join(&name)),
        };
        let ran = match arguments.workload {
            Clients::Store => Ran::Store(run(&settings).await?),
            Clients::Api => Ran::Api(api::run::run(&settings).await?),
        };
        let judged = ran.judged();
        let dir = match &arguments.report {
            Some(dir) => Some(dir.join(&name)),
            None if judged.bad.is_some() => Some(std::env::temp_dir().join(format!("faults-{name}"))),
            None => None,
        };
        if let Some(dir) = &dir {
            ran.keep(dir)?;
            page::write(dir, &judged.page)?;
        }
        println!("{}", judged.page.figures);
        if arguments.lying_disks {
            match judged.loss {
                Some(loss) => println!("the self-check was found, as it must be: {loss}"),
                None => {
                    println!("the lying disks were NOT found: the checks prove nothing");
                    println!("what was found instead: {}", judged.bad.unwrap_or_default());
                    return Ok(ExitCode::FAILURE);
                }
            }
            continue;
        }
        if let Some(bad) = judged.bad {
            println!("{bad}");
            println!("repeat: {}", judged.page.repeat);
            println!("report: {}", dir.unwrap_or_default().join("report.html").display());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ours is etcd under that name. The directory goes with what this gives.
fn named_etcd(program: &Path) -> Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir()?;
    let link = dir.path().join("etcd");
    std::os::unix::fs::symlink(program.canonicalize().context("no other build")?, &link)?;
    Ok((dir, link))
}

/// A run of either workload, and its cluster.
enum Ran {
    Store(faults::run::Run),
    Api(api::run::Run),
}

impl Ran {
    fn judged(&self) -> Judged {
        match self {
            Ran::Store(run) => Judged::store(&run.recording),
            Ran::Api(run) => Judged::api(&run.recording),
        }
    }

    /// The recording and the members' logs.
    fn keep(&self, dir: &Path) -> Result<()> {
        let cluster = match self {
            Ran::Store(run) => {
                run.recording.save(dir)?;
                &run.cluster
            }
            Ran::Api(run) => {
                run.recording.save(dir)?;
                &run.cluster
            }
        };
        for member in 0..cluster.size() {
            std::fs::copy(cluster.log(member), dir.join(format!("m{}.log", member + 1)))?;
        }
        Ok(())
    }
}

/// What was decided about a run.
struct Judged {
    page: Page,
    /// The first violation, or why the run proves nothing.
    bad: Option<String>,
    /// The first violation that says that acknowledged data is gone.
    loss: Option<String>,
}

impl Judged {
    fn store(recording: &Recording) -> Judged {
        let judgement = judge(recording);
        Judged {
            page: page::store::page(recording, &judgement),
            bad: judgement.first_violation().or_else(|| judgement.invalid.clone()),
            loss: judgement.first_loss(),
        }
    }

    fn api(recording: &api::record::Recording) -> Judged {
        let judgement = api::judge::judge(recording);
        Judged {
            page: api::page::page(recording, &judgement),
            bad: judgement.first_violation().or_else(|| judgement.invalid.clone()),
            loss: None,
        }
    }
}

fn check(dir: &Path) -> Result<ExitCode> {
    let unreadable = || format!("cannot read the run in {}", dir.display());
    let judged = match lines::workload(dir)? {
        Workload::Store => Judged::store(&Recording::load(dir).with_context(unreadable)?),
        Workload::Api => Judged::api(&api::record::Recording::load(dir).with_context(unreadable)?),
    };
    page::write(dir, &judged.page)?;
    println!("{}", judged.page.figures);
    Ok(match judged.bad {
        Some(bad) => {
            println!("{bad}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}
