//! From arguments to an exit code: splits the line, finds the command, runs it, prints its failure.
//!
//! Not here: the commands themselves (one file for each group under `command/`).

mod auth;
mod endpoint;
mod key;
mod lease;
mod lock;
mod maintenance;
mod member;
mod snapshot;
mod txn;
mod watch;

use std::{ffi::OsString, process::ExitCode};

pub use snapshot::{Restore, SnapshotRestore};

use crate::{
    failure::Failure,
    flags::Line,
    output,
    session::{Options, Session},
};

/// Runs one command line; `arguments` come without the program's name.
pub fn main(arguments: Vec<OsString>, restore: Restore) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::error(&format!("Error: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let arguments =
        arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect::<Vec<_>>();
    let result = runtime.block_on(run(&arguments, restore));
    // A blocked read of standard input must not hold the end of the program.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                output::error(&format!("Error: {}", failure.text));
            }
            ExitCode::from(failure.code)
        }
    }
}

async fn run(arguments: &[String], restore: Restore) -> Result<(), Failure> {
    let mut line = Line::parse(arguments)?;
    let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
    let (length, group) = match words.as_slice() {
        [] | ["help", ..] => return usage(),
        [
            group @ ("lease" | "member" | "endpoint" | "alarm" | "snapshot" | "user" | "role" | "auth"),
            _,
            ..,
        ] => (2, *group),
        [name, ..] => (1, *name),
    };
    if line.has("help") {
        return usage();
    }
    let group = group.to_owned();
    let name: Vec<String> = line.words.drain(..length).collect();
    line.words_before_dash = line.words_before_dash.map(|count| count.saturating_sub(length));
    let subcommand = name.get(1).map_or("", String::as_str).to_owned();
    line.allow(flags_of(&group, &subcommand))?;
    if group == "version" {
        output::line(format!("etcdctl version: {}", env!("CARGO_PKG_VERSION")));
        output::line("API version: 3.6");
        return Ok(());
    }
    let options = Options::read(&line)?;
    if !GROUPS.contains(&group.as_str()) {
        output::error(&format!(
            "Error: unknown command {group:?} for \"etcdctl\"\nRun 'etcdctl --help' for usage."
        ));
        return Err(Failure::error(format!("unknown command {group:?} for \"etcdctl\"")));
    }
    if let ("snapshot", "status" | "restore") = (group.as_str(), subcommand.as_str()) {
        return snapshot::run(&subcommand, &line, &options, restore);
    }
    let session = Session::open(options).await?;
    match group.as_str() {
        "put" => key::put(&session, &line).await,
        "get" => key::get(&session, &line).await,
        "del" => key::delete(&session, &line).await,
        "compaction" => key::compact(&session, &line).await,
        "txn" => txn::run(&session, &line).await,
        "watch" => watch::run(&session, &line).await,
        "lease" => lease::run(&session, &subcommand, &line).await,
        "member" => member::run(&session, &subcommand, &line).await,
        "endpoint" => endpoint::run(&session, &subcommand, &line).await,
        "user" | "role" | "auth" => auth::run(&session, &group, &subcommand, &line).await,
        "lock" => lock::lock(&session, &line).await,
        "elect" => lock::elect(&session, &line).await,
        _ => maintenance::run(&session, &group, &subcommand, &line).await,
    }
}

const GROUPS: &[&str] = &[
    "put",
    "get",
    "del",
    "compaction",
    "txn",
    "watch",
    "lease",
    "member",
    "endpoint",
    "alarm",
    "defrag",
    "move-leader",
    "snapshot",
    "user",
    "role",
    "auth",
    "lock",
    "elect",
];

/// The flags of a command beside the global ones.
fn flags_of(group: &str, subcommand: &str) -> &'static [&'static str] {
    match (group, subcommand) {
        ("put", _) => &["lease", "prev-kv", "ignore-value", "ignore-lease"],
        ("get", _) => &[
            "consistency",
            "order",
            "sort-by",
            "limit",
            "prefix",
            "from-key",
            "rev",
            "keys-only",
            "count-only",
            "print-value-only",
        ],
        ("del", _) => &["prefix", "prev-kv", "from-key", "range"],
        ("compaction", _) => &["physical"],
        ("txn", _) => &["interactive"],
        ("watch", _) => &["interactive", "prefix", "rev", "prev-kv", "progress-notify"],
        ("lease", "timetolive") => &["keys"],
        ("lease", "keep-alive") => &["once"],
        ("member", "add") => &["peer-urls", "learner"],
        ("member", "update") => &["peer-urls"],
        ("endpoint", _) | ("defrag", _) => &["cluster"],
        ("user", "add") => &["interactive", "no-password", "new-user-password"],
        ("user", "get") => &["detail"],
        ("user", "passwd") => &["interactive"],
        ("role", "grant-permission" | "revoke-permission") => &["prefix", "from-key"],
        ("snapshot", "restore") => &[
            "name",
            "initial-cluster",
            "initial-cluster-token",
            "initial-advertise-peer-urls",
            "data-dir",
            "wal-dir",
            "skip-hash-check",
            "bump-revision",
            "mark-compacted",
        ],
        ("lock", _) => &["ttl"],
        ("elect", _) => &["listen"],
        _ => &[],
    }
}

fn usage() -> Result<(), Failure> {
    output::line(include_str!("command/usage.txt").trim_end());
    Ok(())
}

/// The refusal of a subcommand that a group does not have.
fn unknown(group: &str, subcommand: &str) -> Failure {
    if subcommand.is_empty() {
        return Failure::error(format!("{group} needs a subcommand; run 'etcdctl --help' for usage"));
    }
    Failure::error(format!("unknown command {subcommand:?} for \"etcdctl {group}\""))
}
