//! The program `etcd`: flags in, one member, an exit code out.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::{Config, Flags, VERSION, flags, start};

/// Exit codes as etcd has them: 2 for flags, 1 for everything else.
const EXIT_FLAGS: u8 = 2;
const EXIT_FAILED: u8 = 1;

/// What the flags say about log lines; their shape is always etcd's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOptions {
    pub level: Level,
}

/// Runs a member until a signal. `arguments` come without the program's name; `install_logging` is called once.
pub fn main(arguments: Vec<OsString>, install_logging: impl FnOnce(&LogOptions)) -> ExitCode {
    let flags = match Flags::parse(arguments, std::env::vars_os()) {
        Ok(flags) => flags,
        Err(error) => return fail(EXIT_FLAGS, &error),
    };
    if flags.version {
        let text = format!(
            "etcd Version: {VERSION}\nGit SHA: Not provided (Binnacle {})\nGo Version: none (Rust)\nGo OS/Arch: {}/{}\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::OS,
            std::env::consts::ARCH
        );
        return print(&text);
    }
    if flags.help {
        return print(&flags::help());
    }
    let Some(level) = level(flags.value("log-level")) else {
        return fail(EXIT_FAILED, &format!("unrecognized level: {:?}", flags.value("log-level")));
    };
    let config = match Config::from_flags(&flags) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    install_logging(&LogOptions { level });
    for warning in &flags.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let code = runtime.block_on(run(config));
    // Blocking tasks (password hashes) must not hold up the end.
    runtime.shutdown_background();
    code
}

async fn run(config: Config) -> ExitCode {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    let (mut term, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let shutdown = CancellationToken::new();
    let started = tokio::select! {
        started = start(config, shutdown.clone()) => started,
        () = next(&mut term, &mut interrupt) => return ExitCode::SUCCESS,
    };
    let store = match started {
        Ok(store) => store,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let second_signal = async {
        next(&mut term, &mut interrupt).await;
        tracing::info!("signal received, stopping");
        shutdown.cancel();
        next(&mut term, &mut interrupt).await;
    };
    tokio::select! {
        ended = store.stopped() => match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EXIT_FAILED, &error),
        },
        () = second_signal => fail(EXIT_FAILED, &"second signal received, exiting at once"),
    }
}

/// Resolves at the next of the two signals.
async fn next(term: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn level(text: &str) -> Option<Level> {
    match text {
        "debug" => Some(Level::DEBUG),
        "info" | "" => Some(Level::INFO),
        "warn" => Some(Level::WARN),
        "error" | "dpanic" | "panic" | "fatal" => Some(Level::ERROR),
        _ => None,
    }
}

/// One line on standard error.
fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    let line = format!("etcd: {error}").replace('\n', " ");
    // Nobody is left to be told when this fails.
    let _ = writeln!(io::stderr(), "{line}");
    ExitCode::from(code)
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}
