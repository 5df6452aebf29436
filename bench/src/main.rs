//! The load generators, run side by side with a peer on the same machine.
//!
//! Invariants: only the loopback interface is used; a run is bounded in time and in requests; every process that a
//! run starts is killed and every directory that it makes is removed when it ends, also by an error or a signal.
//! Not here: what the numbers must be in a check (this measures, it does not gate).

mod cluster;
mod grpc;
mod histogram;
mod load;
mod machine;
mod report;
mod store;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

#[derive(Parser)]
#[command(name = "bench", about = "Measures Binnacle, side by side with what it stands in for")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The store under puts and ranges; with --etcd, interleaved with an etcd
    Store(store::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One thread: the load generator shares the processors with what it measures.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let tasks = LocalSet::new();
    match runtime.block_on(tasks.run_until(run_until_signal(cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

/// Dropping the run, whether it ended or not, ends its processes.
async fn run_until_signal(cli: Cli) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let Command::Store(options) = cli.command;
    tokio::select! {
        result = store::run(options) => result,
        result = tokio::signal::ctrl_c() => { result?; anyhow::bail!("interrupted") }
        _ = terminate.recv() => anyhow::bail!("terminated"),
        _ = hangup.recv() => anyhow::bail!("terminal closed"),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("bench: {error:#}");
    ExitCode::FAILURE
}
