//! The program `etcd`: flags in, one member, an exit code out.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
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

/// What the flags say about log lines.
#[derive(Debug)]
pub struct LogOptions {
    pub level: Level,
    pub format: LogFormat,
    /// Every line goes to each of them.
    pub outputs: Vec<LogOutput>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    /// Columns for a person.
    Console,
}

#[derive(Debug)]
pub enum LogOutput {
    Stderr,
    Stdout,
    /// Opened for appending.
    File(File),
}

/// Why log lines have no place to go.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("unrecognized level: {0:?}")]
    Level(String),
    #[error("unknown log format, got: {0:?}, want json or console")]
    Format(String),
    #[error("open sink {path:?}: {source}")]
    Open { path: String, source: io::Error },
    #[error("--log-outputs needs at least one output")]
    NoOutput,
}

impl LogOptions {
    fn from_flags(flags: &Flags) -> Result<LogOptions, LogError> {
        let level = flags.value("log-level");
        let format = match flags.value("log-format") {
            "json" | "" => LogFormat::Json,
            "console" => LogFormat::Console,
            other => return Err(LogError::Format(other.to_owned())),
        };
        let names = flags.value("log-outputs").split(',').map(str::trim).filter(|name| !name.is_empty());
        let outputs: Vec<LogOutput> = names.map(output).collect::<Result<_, _>>()?;
        if outputs.is_empty() {
            return Err(LogError::NoOutput);
        }
        let level = self::level(level).ok_or_else(|| LogError::Level(level.to_owned()))?;
        Ok(LogOptions { level, format, outputs })
    }
}

/// Under systemd standard error is the journal.
fn output(name: &str) -> Result<LogOutput, LogError> {
    Ok(match name {
        "default" | "stderr" | "systemd/journal" => LogOutput::Stderr,
        "stdout" => LogOutput::Stdout,
        path => {
            let opened = OpenOptions::new().append(true).create(true).open(path);
            LogOutput::File(opened.map_err(|source| LogError::Open { path: path.to_owned(), source })?)
        }
    })
}

/// Runs a member until a signal. `arguments` come without the program's name; `install_logging` is called once.
pub fn main(arguments: Vec<OsString>, install_logging: impl FnOnce(LogOptions)) -> ExitCode {
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
    let log = match LogOptions::from_flags(&flags) {
        Ok(log) => log,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    let config = match Config::from_flags(&flags) {
        Ok(config) => config,
        Err(error) => return fail(EXIT_FAILED, &error),
    };
    install_logging(log);
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

/// Resolves at a signal to stop.
pub(crate) async fn signalled() -> ExitCode {
    let signals =
        signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
    match signals {
        Ok((mut term, mut interrupt)) => {
            next(&mut term, &mut interrupt).await;
            ExitCode::SUCCESS
        }
        Err(error) => fail(EXIT_FAILED, &error),
    }
}

/// One line on standard error.
pub(crate) fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    let line = format!("etcd: {error}").replace('\n', " ");
    // Nobody is left to be told when this fails.
    let _ = writeln!(io::stderr(), "{line}");
    ExitCode::from(code)
}

pub(crate) fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(EXIT_FAILED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Result<LogOptions, String> {
        let flags = Flags::parse(line.split_whitespace().map(OsString::from), []).unwrap();
        LogOptions::from_flags(&flags).map_err(|error| error.to_string())
    }

    #[test]
    fn log_lines_go_where_the_flags_say() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("store.log");
        let line =
            format!("--log-outputs=stderr,stdout,{} --log-format=console --log-level=warn", path.display());
        let told = options(&line).unwrap();
        assert_eq!((told.level, told.format), (Level::WARN, LogFormat::Console));
        let [LogOutput::Stderr, LogOutput::Stdout, LogOutput::File(_)] = &told.outputs[..] else {
            panic!("{told:?}");
        };
        assert!(path.exists());
        for (line, text) in [
            ("--log-level=loud", "unrecognized level: \"loud\""),
            ("--log-format=xml", "unknown log format, got: \"xml\", want json or console"),
            ("--log-outputs=,", "--log-outputs needs at least one output"),
            (
                "--log-outputs=/nonexistent/a",
                "open sink \"/nonexistent/a\": No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(options(line).unwrap_err(), text);
        }
    }
}
