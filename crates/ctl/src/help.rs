//! The help of a program, a group and a command, laid out as etcdctl's.

use crate::{
    catalog::{Command, GROUPS, Program},
    flags::{Flag, Kind},
};

/// All commands.
pub(crate) fn program(program: Program) -> String {
    let commands: Vec<(String, &str)> =
        program.commands().iter().map(|command| (command.name.to_owned(), command.about)).collect();
    let mut text = section("NAME", &format!("{} - {}", program.name(), program.about()));
    text += &section("USAGE", &format!("{} [flags] <command> [arguments]", program.name()));
    text += &section("VERSION", env!("CARGO_PKG_VERSION"));
    text += &section("API VERSION", API_VERSION);
    text += &section("COMMANDS", &columns(&commands));
    text += &options("OPTIONS", program.flags());
    text + &format!("Run '{} help <command>' for the flags of a command and an example.\n", program.name())
}

/// The API that the client speaks.
pub(crate) const API_VERSION: &str = "3.6";

/// The commands that begin with a word.
pub(crate) fn group(program: Program, name: &str) -> String {
    let about = GROUPS.iter().find(|(group, _)| *group == name).map_or("", |(_, about)| about);
    let commands: Vec<(String, &str)> = program
        .commands()
        .iter()
        .filter_map(|command| {
            command.name.split_once(' ').map(|(group, second)| (group, second, command.about))
        })
        .filter(|(group, ..)| *group == name)
        .map(|(_, second, about)| (second.to_owned(), about))
        .collect();
    let mut text = section("NAME", &format!("{name} - {about}"));
    text += &section("USAGE", &format!("{} {name} <subcommand> [flags]", program.name()));
    text += &section("COMMANDS", &columns(&commands));
    text + &options("GLOBAL OPTIONS", program.flags())
}

pub(crate) fn command(program: Program, command: &Command) -> String {
    let name = program.name();
    let lines = |text: &str, before: &str| {
        text.lines().map(|line| format!("{before}{line}")).collect::<Vec<_>>().join("\n")
    };
    let mut text = section("NAME", &format!("{} - {}", command.name, command.about));
    text += &section("USAGE", format!("{name} {} {}", command.name, command.takes).trim_end());
    if !command.detail.is_empty() {
        text += &section("DESCRIPTION", command.detail);
    }
    text += &section("EXAMPLES", &lines(command.example, &format!("{name} ")));
    if !command.flags.is_empty() {
        text += &options("OPTIONS", command.flags);
    }
    text + &options("GLOBAL OPTIONS", program.flags())
}

fn section(title: &str, text: &str) -> String {
    let indented: String = text
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("\t{line}\n") })
        .collect();
    format!("{title}:\n{indented}\n")
}

fn columns(rows: &[(String, &str)]) -> String {
    let width = rows.iter().map(|(first, _)| first.len()).max().unwrap_or(0);
    rows.iter().map(|(first, second)| format!("{first:width$}  {second}\n")).collect()
}

/// Flags keep two columns for a letter, so they start at the edge.
fn options(title: &str, flags: &[Flag]) -> String {
    let rows: Vec<(String, &str)> = flags.iter().map(|flag| (shown(flag), flag.about)).collect();
    format!("{title}:\n{}\n", columns(&rows))
}

fn shown(flag: &Flag) -> String {
    let letter = flag.short.map_or_else(|| "      ".to_owned(), |letter| format!("  -{letter}, "));
    let default = match flag.kind {
        Kind::Switch => format!("[={}]", flag.default),
        Kind::List => format!("=[{}]", flag.default),
        Kind::Text => format!("={:?}", flag.default),
        Kind::Number | Kind::Duration => format!("={}", flag.default),
    };
    format!("{letter}--{}{default}", flag.name)
}

#[cfg(test)]
mod tests {
    use super::{Program, command, group, program};

    #[test]
    fn help_names_every_command_and_flag() {
        let all = program(Program::Etcdctl);
        for found in Program::Etcdctl.commands() {
            assert!(all.contains(&format!("\t{} ", found.name)), "{}", found.name);
            let own = command(Program::Etcdctl, found);
            assert!(own.contains("EXAMPLES:\n\tetcdctl "), "{own}");
            assert!(found.flags.iter().all(|flag| own.contains(&format!("--{}", flag.name))), "{own}");
        }
        assert!(all.contains("  -w, --write-out=\"simple\"  "));
        assert!(group(Program::Etcdctl, "user").contains("\tgrant-role   Grants"));
    }
}
