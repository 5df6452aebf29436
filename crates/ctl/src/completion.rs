//! `completion`: scripts that let a shell complete commands, flags and values, from the same rows as the help.

use clap_complete::{Shell, generate};

use crate::{
    catalog::{Answer, Command, Context, GROUPS, Program, Run},
    failure::Failure,
    flags::{Flag, Kind, Line},
    output,
};

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "completion",
    takes: "<bash | zsh | fish | powershell>",
    about: "Prints a script that completes commands and flags in a shell",
    detail: "bash:        source <(etcdctl completion bash)\n\
             zsh:         etcdctl completion zsh >\"${fpath[1]}/_etcdctl\"\n\
             fish:        etcdctl completion fish >~/.config/fish/completions/etcdctl.fish\n\
             PowerShell:  etcdctl completion powershell | Out-String | Invoke-Expression",
    example: "completion bash",
    flags: &[],
    run: Run::Offline(run),
}];

fn run<'a>(context: &'a Context, line: &'a Line) -> Answer<'a> {
    Box::pin(async move {
        let shell = match line.words.as_slice() {
            [word] => match word.as_str() {
                "bash" => Shell::Bash,
                "zsh" => Shell::Zsh,
                "fish" => Shell::Fish,
                "powershell" => Shell::PowerShell,
                other => {
                    return Err(Failure::error(format!(
                        "invalid argument {other:?} for \"completion\": want bash, zsh, fish or powershell"
                    )));
                }
            },
            words => return Err(Failure::error(format!("accepts 1 arg(s), received {}", words.len()))),
        };
        output::raw(&script(context.program, shell));
        Ok(())
    })
}

fn script(program: Program, shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    generate(shell, &mut described(program), program.name(), &mut script);
    script
}

/// The program as clap knows programs.
fn described(program: Program) -> clap::Command {
    let root = clap::Command::new(program.name())
        .about(program.about())
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .args(program.flags().iter().map(|flag| argument(flag).global(true)));
    let mut root = root;
    for command in program.commands() {
        let (first, second) =
            command.name.split_once(' ').map_or((command.name, None), |(a, b)| (a, Some(b)));
        let leaf = |name: &'static str| {
            clap::Command::new(name)
                .about(command.about)
                .disable_help_flag(true)
                .args(command.flags.iter().map(argument))
        };
        let Some(second) = second else {
            root = root.subcommand(leaf(first));
            continue;
        };
        if root.find_subcommand(first).is_none() {
            let about = GROUPS.iter().find(|(name, _)| *name == first).map_or("", |(_, about)| about);
            root = root.subcommand(clap::Command::new(first).about(about).disable_help_flag(true));
        }
        root = root.mut_subcommand(first, |group| group.subcommand(leaf(second)));
    }
    root
}

fn argument(flag: &Flag) -> clap::Arg {
    let argument = clap::Arg::new(flag.name).long(flag.name).help(flag.about).required(false);
    let argument = match flag.short {
        Some(letter) => argument.short(letter),
        None => argument,
    };
    let path = flag.name.ends_with("cert") || flag.name == "key" || flag.name.ends_with("-dir");
    match flag.kind {
        Kind::Switch => argument.action(clap::ArgAction::SetTrue),
        _ if path => argument.value_hint(clap::ValueHint::AnyPath),
        _ if !flag.values.is_empty() => argument.value_parser(flag.values.to_vec()),
        _ => argument.value_hint(clap::ValueHint::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::{Program, Shell, script};

    #[test]
    fn every_shell_gets_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = String::from_utf8(script(Program::Etcdctl, shell)).unwrap();
            for word in ["etcdctl", "grant-permission", "print-value-only", "make-mirror", "write-out"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
