//! `binnacle scheduler`: the scheduler alone, against a kubeconfig.
//!
//! Invariants: a failure is one line on standard error and exit status 1; flags are checked before anything starts.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kubeclient::{Client, KubeConfig, Transport};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::Config;

#[derive(Debug, Parser)]
#[command(name = "binnacle scheduler", about = "Places pods on nodes")]
struct Flags {
    /// Kubeconfig file
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long)]
    context: Option<String>,
    /// Take turns with other instances through a Lease
    #[arg(long, default_value_t = true, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// Only pods that name this scheduler are placed
    #[arg(long, default_value = "default-scheduler")]
    scheduler_name: String,
    /// Name of this instance in events and, with a random number behind it, in the Lease [default: scheduler and the process id]
    #[arg(long)]
    identity: Option<String>,
    /// Share of nodes to look at, in percent; 0 depends on the size of the cluster
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    percentage_of_nodes_to_score: u8,
}

/// Runs until SIGTERM or SIGINT.
#[expect(clippy::print_stderr, reason = "the command's answer")]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let program = OsString::from("binnacle scheduler");
    let flags = Flags::parse_from(std::iter::once(program).chain(arguments));
    match start(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("binnacle: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let kubeconfig = KubeConfig::load(&flags.kubeconfig)
        .map_err(|error| format!("cannot use the kubeconfig {}: {error}", flags.kubeconfig.display()))?;
    let config = Config {
        identity: flags.identity.unwrap_or_else(|| format!("scheduler-{}", std::process::id())),
        scheduler_name: flags.scheduler_name,
        leader_elect: flags.leader_elect,
        percentage_of_nodes_to_score: flags.percentage_of_nodes_to_score.into(),
        ..Config::default()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let transport = Transport::connect(kubeconfig.endpoint(flags.context.as_deref())?)?;
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let stop = shutdown.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            stop.cancel();
        });
        crate::run(Client::new(transport, "binnacle-scheduler"), config, shutdown).await;
        Ok(())
    })
}
