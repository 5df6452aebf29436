//! The one binary: reads which part to run from the name it was started under or from its first argument.
//!
//! Invariants: this crate composes and nothing depends on it; a failure is one line on standard error that starts with
//! `binnacle: ` and a non-zero exit status. Not here: what a part does (its own crate).

mod cli;
mod explain;
mod local_cluster;
mod logging;
mod member;
mod pki;
mod restore;
mod signals;
mod up;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use ctl::Program;
use tracing::Level;

use crate::cli::{Cli, Command};
use crate::logging::Format;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Names under which the binary stands in for another program, and the subcommand that each means.
const PROGRAM_NAMES: &[(&str, &str)] = &[
    ("etcd", "store"),
    ("kube-apiserver", "apiserver"),
    ("kube-scheduler", "scheduler"),
    ("kube-controller-manager", "controllers"),
    ("etcdctl", "ctl"),
    ("etcdutl", "utl"),
];

/// As Go does at its start: the soft limit is often 1024, and each client and watch is a socket. A refusal changes nothing.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn main() -> ExitCode {
    raise_file_limit();
    let cli = Cli::parse_from(arguments(std::env::args_os().collect()));
    match cli.command {
        Command::Up(options) => block_on(up::run(options)),
        Command::LocalCluster(options) => block_on(local_cluster::run(options)),
        Command::Explain(options) => block_on(explain::run(options)),
        Command::Member(options) => {
            logging::install(Format::Json, Level::INFO);
            block_on(member::run(options))
        }
        Command::Store(passed) if passed.arguments.first().is_some_and(|word| word == "restore") => {
            restore::store_restore(&passed.arguments[1..])
        }
        Command::Store(passed) if passed.arguments.first().is_some_and(|word| word == "gateway") => {
            let arguments = passed.arguments.into_iter().skip(1).collect();
            store::proxy::main(arguments, || logging::install(Format::Json, Level::INFO))
        }
        Command::Store(passed) => store::command::main(passed.arguments, logging::install_for_store),
        Command::Apiserver(passed) => {
            logging::install(Format::Json, Level::INFO);
            apiserver::command::main(passed.arguments)
        }
        Command::Scheduler(passed) => {
            logging::install(Format::Json, Level::INFO);
            scheduler::command::main(passed.arguments)
        }
        Command::Controllers(passed) => {
            logging::install(Format::Json, Level::INFO);
            controllers::command::main(passed.arguments)
        }
        Command::Ctl(passed) => ctl::main(Program::Etcdctl, passed.arguments, restore::OFFLINE),
        Command::Utl(passed) => ctl::main(Program::Etcdutl, passed.arguments, restore::OFFLINE),
    }
}

/// Inserts the subcommand that the program's name stands for.
fn arguments(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).and_then(|name| name.to_str());
    if let Some((_, subcommand)) = PROGRAM_NAMES.iter().find(|(program, _)| Some(*program) == name) {
        arguments.insert(1, (*subcommand).into());
    }
    arguments
}

/// Runs a command of ours on one thread and reports its failure.
#[expect(clippy::print_stderr, reason = "the command's answer")]
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(Into::into).and_then(|runtime| {
        let result = runtime.block_on(command);
        runtime.shutdown_background(); // a reader of standard input may still be blocked
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("binnacle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::arguments;

    #[test]
    fn the_name_of_a_replaced_program_selects_its_part() {
        let started_as = |words: &[&str]| arguments(words.iter().map(Into::into).collect());
        assert_eq!(started_as(&["/opt/bin/etcd", "--name", "a"]), ["/opt/bin/etcd", "store", "--name", "a"]);
        assert_eq!(started_as(&["kube-apiserver"]), ["kube-apiserver", "apiserver"]);
        assert_eq!(started_as(&["target/debug/binnacle", "up"]), ["target/debug/binnacle", "up"]);
    }
}
