//! From arguments to an exit code: finds the command, splits its line, runs it, prints its failure.
//!
//! Not here: the commands themselves (one file for each group under `command/`, with their rows of the table).

mod auth;
mod check;
mod endpoint;
mod file;
mod key;
mod lease;
mod lock;
mod maintenance;
mod member;
mod mirror;
mod role;
mod save;
mod snapshot;
mod txn;
mod user;
mod watch;

use std::{ffi::OsString, process::ExitCode};

use crate::{
    catalog::{Answer, Command, Context, Named, Program, Run},
    completion,
    failure::Failure,
    flags::Line,
    help,
    offline::Offline,
    output,
    session::{Options, Session},
};

/// Runs one command line; `arguments` come without the program's name.
pub fn main(program: Program, arguments: Vec<OsString>, offline: Offline) -> ExitCode {
    let context = Context { program, offline };
    let result = runtime().and_then(|runtime| {
        let result = runtime.block_on(run(&context, arguments));
        // A blocked read of standard input must not hold the end of the program.
        runtime.shutdown_background();
        result
    });
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

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::error(error.to_string()))
}

async fn run(context: &Context, arguments: Vec<OsString>) -> Result<(), Failure> {
    let program = context.program;
    let arguments = arguments.into_iter().map(|argument| {
        argument.into_string().map_err(|argument| {
            Failure::arguments(format!(
                "argument {argument:?} is not UTF-8 (a value of any bytes can be put from standard input)"
            ))
        })
    });
    let arguments = arguments.collect::<Result<Vec<String>, Failure>>()?;
    let (command, rest) = match program.find(&arguments)? {
        Named::Command(command, rest) => (command, rest),
        Named::Group(name) => {
            output::raw(help::group(program, name).as_bytes());
            return Ok(());
        }
        Named::Nothing => {
            Line::parse(&arguments, &[program.flags()])?;
            output::raw(help::program(program).as_bytes());
            return Ok(());
        }
    };
    let mut line = Line::parse(&rest, &[program.flags(), command.flags]).map_err(|failure| {
        let gap = if failure.text.ends_with('\n') { "" } else { "\n" };
        let usage = format!("Run '{} {} --help' for usage.", program.name(), command.name);
        Failure { text: format!("{}{gap}{usage}", failure.text), ..failure }
    })?;
    if line.has("help") {
        output::raw(help::command(program, command).as_bytes());
        return Ok(());
    }
    if program == Program::Etcdctl {
        line.fill(program.flags(), |name| std::env::var(name).ok())?;
        if std::env::var("ETCDCTL_API").is_ok_and(|version| !matches!(version.as_str(), "" | "3")) {
            return Err(Failure::error("ETCDCTL_API: only version 3 of the API is supported"));
        }
        if line.has("debug") {
            line.explain(program.flags());
        }
    }
    match command.run {
        Run::Online(run) => run(&Session::open(Options::read(&line)?).await?, &line).await,
        Run::Offline(run) => run(context, &line).await,
    }
}

/// The rows of a program's commands.
pub(crate) fn rows(program: Program) -> &'static [&'static [Command]] {
    match program {
        Program::Etcdctl => &[
            HELP,
            VERSION,
            completion::COMMANDS,
            auth::COMMANDS,
            check::COMMANDS,
            endpoint::COMMANDS,
            key::COMMANDS,
            lease::COMMANDS,
            lock::COMMANDS,
            maintenance::COMMANDS,
            member::COMMANDS,
            mirror::COMMANDS,
            role::COMMANDS,
            save::COMMANDS,
            snapshot::COMMANDS,
            txn::COMMANDS,
            user::COMMANDS,
            watch::COMMANDS,
        ],
        Program::Etcdutl => &[HELP, VERSION, completion::COMMANDS, file::COMMANDS, snapshot::COMMANDS],
    }
}

const HELP: &[Command] = &[Command {
    name: "help",
    takes: "[command]",
    about: "Help about any command",
    detail: "",
    example: "help role grant-permission",
    flags: &[],
    run: Run::Offline(show_help),
}];

const VERSION: &[Command] = &[Command {
    name: "version",
    takes: "",
    about: "Prints the version of this program and of the API that it speaks",
    detail: "",
    example: "version",
    flags: &[],
    run: Run::Offline(show_version),
}];

fn show_help<'a>(context: &'a Context, line: &'a Line) -> Answer<'a> {
    Box::pin(async move {
        let program = context.program;
        let text = match program.find(&line.words)? {
            Named::Nothing => help::program(program),
            Named::Group(name) => help::group(program, name),
            Named::Command(command, _) => help::command(program, command),
        };
        output::raw(text.as_bytes());
        Ok(())
    })
}

fn show_version<'a>(context: &'a Context, _line: &'a Line) -> Answer<'a> {
    Box::pin(async move {
        output::line(format!("{} version: {}", context.program.name(), env!("CARGO_PKG_VERSION")));
        output::line(format!("API version: {}", help::API_VERSION));
        Ok(())
    })
}
