//! `binnacle controllers`: the controllers alone, against a kubeconfig.
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
#[command(
    name = "binnacle controllers",
    about = "Namespaces, garbage collection, service accounts, simulated nodes"
)]
struct Flags {
    /// Kubeconfig file
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long)]
    context: Option<String>,
    /// Name of this instance in the Lease [default: controllers-PID]
    #[arg(long)]
    identity: Option<String>,
    /// Simulated nodes to run
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=5000))]
    nodes: u16,
    /// CA certificate that pods are told to trust
    #[arg(long)]
    root_ca_file: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT.
#[expect(clippy::print_stderr, reason = "the command's answer")]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let program = OsString::from("binnacle controllers");
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
    let kubeconfig = KubeConfig::load(&flags.kubeconfig)?;
    let root_ca_pem = match &flags.root_ca_file {
        Some(path) => Some(
            std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?,
        ),
        None => None,
    };
    let identity = flags.identity.unwrap_or_else(|| format!("controllers-{}", std::process::id()));
    let config = Config { identity: identity.clone(), root_ca_pem };
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
        let client = Client::new(transport, "binnacle-controllers");
        let nodes = crate::simulate_nodes(client.clone(), &identity, flags.nodes, shutdown.clone());
        futures_util::future::join(nodes, crate::run(client.clone(), config, shutdown)).await;
        Ok(())
    })
}
