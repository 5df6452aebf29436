//! Which commands there are, and which of them a command line names.
//!
//! One row for each command holds its words, flags, help and what runs it; the rows stand beside the commands. Help,
//! completion, suggestions and the parsing of flags all come from the rows. As in etcdctl, a word may be shortened as
//! long as it stays unique. Not here: what a command does (`command/`).

use std::{future::Future, pin::Pin};

use crate::{
    failure::Failure,
    flags::{Argument, Flag, Kind, Line},
    offline::Offline,
    session::Session,
    suggest,
};

/// One command.
pub(crate) struct Command {
    /// One word or two, as typed.
    pub(crate) name: &'static str,
    /// What follows the name in the usage line.
    pub(crate) takes: &'static str,
    pub(crate) about: &'static str,
    /// More than fits a line; may be empty.
    pub(crate) detail: &'static str,
    /// Command lines without the program's name, one a line.
    pub(crate) example: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) run: Run,
}

/// How a command ends, some time later.
pub(crate) type Answer<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// What runs a command.
#[derive(Clone, Copy)]
pub(crate) enum Run {
    /// Talks to members.
    Online(for<'a> fn(&'a Session, &'a Line) -> Answer<'a>),
    /// Works on files of this machine, or on nothing.
    Offline(for<'a> fn(&'a Context, &'a Line) -> Answer<'a>),
}

/// What a command without a cluster may need.
pub(crate) struct Context {
    pub(crate) program: Program,
    pub(crate) offline: Offline,
}

/// A program that this one can stand in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The client of a running cluster.
    Etcdctl,
    /// What works on files while nothing runs.
    Etcdutl,
}

impl Program {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Etcdctl => "etcdctl",
            Program::Etcdutl => "etcdutl",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Program::Etcdctl => "A command line client for Binnacle and etcd.",
            Program::Etcdutl => "Works on snapshots and data directories without a running member.",
        }
    }

    /// Flags of every command.
    pub(crate) fn flags(self) -> &'static [Flag] {
        match self {
            Program::Etcdctl => crate::flags::GLOBAL,
            Program::Etcdutl => &[crate::flags::HELP, crate::flags::WRITE_OUT],
        }
    }

    /// Sorted by name.
    pub(crate) fn commands(self) -> Vec<&'static Command> {
        let mut commands: Vec<_> = crate::command::rows(self).iter().copied().flatten().collect();
        commands.sort_by_key(|command| command.name);
        commands
    }
}

/// What the first word of a two-word command stands for.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("alarm", "Alarm related commands"),
    ("auth", "Enable or disable authentication"),
    ("check", "Commands for checking properties of the cluster"),
    ("downgrade", "Downgrade related commands"),
    ("endpoint", "Endpoint related commands"),
    ("lease", "Lease related commands"),
    ("member", "Membership related commands"),
    ("role", "Role related commands"),
    ("snapshot", "Manages snapshots of a member"),
    ("user", "User related commands"),
];

/// What a command line names.
pub(crate) enum Named {
    /// A command, and its arguments without its words.
    Command(&'static Command, Vec<String>),
    /// Only the first word of two.
    Group(&'static str),
    Nothing,
}

impl Program {
    pub(crate) fn find(self, arguments: &[String]) -> Result<Named, Failure> {
        let commands = self.commands();
        let mut words = word_positions(arguments, self, &commands);
        let Some(first) = words.next() else { return Ok(Named::Nothing) };
        let mut names: Vec<&'static str> =
            commands.iter().filter_map(|command| command.name.split(' ').next()).collect();
        names.dedup();
        let name = choose(&arguments[first], &names)
            .map_err(|hints| self.unknown(&arguments[first], None, &hints))?;
        let without = |positions: &[usize]| {
            let kept = arguments.iter().enumerate().filter(|(position, _)| !positions.contains(position));
            kept.map(|(_, argument)| argument.clone()).collect()
        };
        if let Some(command) = commands.iter().find(|command| command.name == name) {
            return Ok(Named::Command(command, without(&[first])));
        }
        let Some(second) = words.next() else { return Ok(Named::Group(name)) };
        let of_group =
            |command: &&'static Command| command.name.split_once(' ').filter(|(group, _)| *group == name);
        let names: Vec<&'static str> =
            commands.iter().filter_map(|command| of_group(command).map(|(_, second)| second)).collect();
        let subcommand = choose(&arguments[second], &names)
            .map_err(|hints| self.unknown(&arguments[second], Some(name), &hints))?;
        let full =
            commands.iter().find(|command| of_group(command).is_some_and(|(_, second)| second == subcommand));
        Ok(full.map_or(Named::Group(name), |command| Named::Command(command, without(&[first, second]))))
    }

    fn unknown(self, word: &str, group: Option<&str>, hints: &[&str]) -> Failure {
        let within = group.map_or_else(|| self.name().to_owned(), |group| format!("{} {group}", self.name()));
        let hint = suggest::hint(hints);
        Failure::error(format!(
            "unknown command {word:?} for {within:?}{hint}\nRun '{within} --help' for usage."
        ))
    }
}

/// The name itself, or the only one that begins so; otherwise what may have been meant.
fn choose(word: &str, names: &[&'static str]) -> Result<&'static str, Vec<&'static str>> {
    let begun: Vec<&'static str> = names.iter().copied().filter(|name| name.starts_with(word)).collect();
    match (names.iter().find(|name| **name == word), begun.as_slice()) {
        (Some(name), _) => Ok(name),
        (None, [name]) => Ok(name),
        (None, _) => Err(suggest::nearest(word, names.iter().copied())),
    }
}

/// Where words stand that are neither flags nor their values, up to `--`. The command is not known yet, so a flag
/// that some command has as a switch is taken for one.
fn word_positions<'a>(
    arguments: &'a [String],
    program: Program,
    commands: &'a [&'static Command],
) -> impl Iterator<Item = usize> + 'a {
    let takes_value = move |name: &str, dashes: usize| {
        let mut known = program.flags().iter().chain(commands.iter().flat_map(|command| command.flags));
        let mut last_letter = None;
        if dashes == 1 && known.clone().all(|flag| flag.name != name) {
            last_letter = name.chars().last();
        }
        let matching = |flag: &&Flag| match last_letter {
            Some(letter) => flag.short == Some(letter) && name.chars().count() == 1,
            None => flag.name == name,
        };
        let kinds: Vec<Kind> = known.by_ref().filter(matching).map(|flag| flag.kind).collect();
        !kinds.is_empty() && !kinds.contains(&Kind::Switch)
    };
    let mut position = 0;
    std::iter::from_fn(move || {
        loop {
            let argument = arguments.get(position).filter(|argument| *argument != "--")?;
            position += 1;
            match Argument::split(argument) {
                Argument::Word => return Some(position - 1),
                Argument::Flag { name, value: None, dashes } if takes_value(name, dashes) => position += 1,
                Argument::Flag { .. } => {}
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, Named, Program};

    fn found(text: &str) -> String {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        match Program::Etcdctl.find(&words) {
            Ok(Named::Command(command, rest)) => format!("{}: {}", command.name, rest.join(" ")),
            Ok(Named::Group(name)) => format!("group {name}"),
            Ok(Named::Nothing) => "nothing".to_owned(),
            Err(failure) => failure.text,
        }
    }

    #[test]
    fn a_line_names_a_command_wherever_its_flags_stand() {
        for (text, name) in [
            ("get a b", "get: a b"),
            ("--endpoints x:1 -w json get a --prefix", "get: --endpoints x:1 -w json a --prefix"),
            ("--debug member --hex list", "member list: --debug --hex"),
            ("role grant-permission r read k", "role grant-permission: r read k"),
            ("--prefix del k", "del: --prefix k"),
            ("put -- -a get", "put: -- -a get"),
            ("lock l -- member list", "lock: l -- member list"),
            ("--lease 7 put k v", "put: --lease 7 k v"),
            ("user", "group user"),
            ("--hex", "nothing"),
            // shortened, as etcdctl takes it
            ("compact 4", "compaction: 4"),
            ("mem l", "member list: "),
            ("end he", "endpoint health: "),
        ] {
            assert_eq!(found(text), name, "{text}");
        }
    }

    #[test]
    fn an_unknown_word_gets_suggestions() {
        assert_eq!(
            found("gett a"),
            "unknown command \"gett\" for \"etcdctl\"\n\nDid you mean this?\n\tget\n\nRun 'etcdctl --help' for usage."
        );
        assert_eq!(
            found("user nonsense"),
            "unknown command \"nonsense\" for \"etcdctl user\"\nRun 'etcdctl user --help' for usage."
        );
        assert!(found("co a").contains("\tcompaction\n\tcompletion\n"));
    }

    /// A name must lead to one row, and a flag of a command must not hide a global one.
    #[test]
    fn rows_do_not_contradict_each_other() {
        for program in [Program::Etcdctl, Program::Etcdutl] {
            let commands = program.commands();
            assert!(commands.windows(2).all(|pair| pair[0].name < pair[1].name));
            for command in &commands {
                let known = || program.flags().iter().chain(command.flags);
                let mut names: Vec<&str> = known().map(|flag| flag.name).collect();
                let mut letters: Vec<char> = known().filter_map(|flag| flag.short).collect();
                let count = (names.len(), letters.len());
                names.sort_unstable();
                names.dedup();
                letters.sort_unstable();
                letters.dedup();
                assert_eq!((names.len(), letters.len()), count, "{}", command.name);
                assert!(!command.about.is_empty() && !command.example.is_empty(), "{}", command.name);
                if let Some((group, _)) = command.name.split_once(' ') {
                    assert!(GROUPS.iter().any(|(name, _)| *name == group), "{group}");
                    assert!(commands.iter().all(|command| command.name != group), "{group}");
                }
            }
        }
    }
}
