//! `kube-apiserver` as a command: flags in, exit code out.
//!
//! Invariant: every failure is one line on standard error and a non-zero code. Not here: the store, which is reached
//! through `--etcd-servers`; the subscriber for logs, which the binary installs.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Config, ConfigError, Flags, ServeError, StartError, TlsError, server_config};

const STORE_CALL_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("cannot read {flag} {path}: {source}")]
    Unreadable {
        flag: &'static str,
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("--etcd-servers: {0}")]
    Store(#[from] wire::ConnectError),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot wait for signals: {0}")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the API server until it is told to stop; `args` come without the program's name.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut warnings = Vec::new();
    let flags = match Flags::parse_from(args, &mut warnings) {
        Ok(flags) => flags,
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string();
            return fail(&text);
        }
        Err(help) => {
            // Help and version go to standard output; a closed pipe is not our failure.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    let outcome = runtime.block_on(run(flags, warnings));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(text: &str) -> ExitCode {
    // Nowhere is left to report that standard error is closed.
    let _ = writeln!(std::io::stderr(), "Error: {text}");
    ExitCode::FAILURE
}

async fn run(flags: Flags, mut warnings: Vec<String>) -> Result<(), RunError> {
    let config = flags.into_config(&mut warnings)?;
    for warning in &warnings {
        warn!("{warning}");
    }
    if config.etcd_servers.is_empty() {
        return Err(ConfigError::NoEtcd.into());
    }
    let tls = server_config(&config)?;
    let store = wire::Client::new(wire::Transport::connect(
        &config.etcd_servers,
        store_tls(&config)?,
        STORE_CALL_TIMEOUT,
    )?);
    let address = SocketAddr::new(config.bind_address, config.secure_port);
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let stop = CancellationToken::new();
    stop_on_signal(stop.clone())?;
    let stopped = CancellationToken::new();
    let server = tokio::select! {
        server = crate::start(config, store, stopped.clone()) => server?,
        () = stop.cancelled() => {
            stopped.cancel();
            return Ok(());
        }
    };
    info!("ready");
    let served = server.serve(listener, tls, stop).await;
    stopped.cancel();
    Ok(served?)
}

fn store_tls(config: &Config) -> Result<Option<wire::ClientTls>, RunError> {
    let read = |flag: &'static str, path: &Option<std::path::PathBuf>| -> Result<Option<Vec<u8>>, RunError> {
        path.as_deref()
            .map(|path: &Path| {
                std::fs::read(path).map_err(|source| RunError::Unreadable {
                    flag,
                    path: path.display().to_string(),
                    source,
                })
            })
            .transpose()
    };
    let ca_pem = read("--etcd-cafile", &config.etcd_cafile)?;
    let cert_pem = read("--etcd-certfile", &config.etcd_certfile)?;
    let key_pem = read("--etcd-keyfile", &config.etcd_keyfile)?;
    if ca_pem.is_none() && cert_pem.is_none() {
        return Ok(None);
    }
    Ok(Some(wire::ClientTls { ca_pem, cert_pem, key_pem, ..wire::ClientTls::default() }))
}

/// SIGTERM and SIGINT stop the server; a second one is left to the runtime's default.
fn stop_on_signal(stop: CancellationToken) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        stop.cancel();
    });
    Ok(())
}
