//! etcd's flags and their `ETCD_` variables: which exist, how they are written, who wins.
//!
//! One row per flag; the syntax is that of Go's `flag` package (`-name value`, `--name=value`, `--switch`), the last of
//! several wins, the command line wins over the environment, and a configuration file (file.rs) replaces both. What the
//! values mean is config.rs.

mod file;
mod rows;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
};

pub(crate) use rows::ROWS;

/// Whether a flag takes a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Needs a value.
    Value,
    /// `--name` alone means true; a value only as `--name=false`.
    Switch,
}

/// What this program does with a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It is acted on.
    Honoured,
    /// It is acted on as far as its help says, with a warning when it is not the default.
    Partly,
    /// It concerns something that this store has no need of; accepted, with a warning when it is not the default.
    Ignored,
    /// Acting as if it were honoured would mislead: refused unless it is the default.
    Missing,
}

/// One flag.
#[derive(Debug)]
pub(crate) struct Row {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub usage: Use,
    pub help: &'static str,
}

/// Why the command line cannot be used. Texts as Go's flag package and etcd have them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FlagError {
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    #[error("flag needs an argument: -{0}")]
    NoValue(String),
    #[error("'{0}' is not a valid flag")]
    Stray(String),
    #[error("invalid boolean value {value:?} for -{name}: parse error")]
    Switch { name: &'static str, value: String },
    #[error("argument {0:?} is not valid UTF-8")]
    Encoding(OsString),
    #[error("--{0} is not supported by this store: {instead}", instead = instead(.0))]
    Missing(&'static str),
    #[error(
        "etcd grpc-proxy is not part of this store: use etcd gateway start, or give clients the endpoints of all members"
    )]
    GrpcProxy,
    #[error("couldn't read the configuration file {path}: {reason}", path = .path.display())]
    File { path: PathBuf, reason: String },
    #[error("the configuration file has a value of the wrong kind for {name}")]
    FileValue { name: &'static str },
}

/// The given values by flag name. Unset flags have their row's default.
#[derive(Debug, Default)]
pub struct Flags {
    values: BTreeMap<&'static str, String>,
    /// Things to tell the operator once logging works.
    pub warnings: Vec<String>,
    pub help: bool,
    pub version: bool,
}

/// What to do without a flag.
fn instead(name: &str) -> &'static str {
    match name.starts_with("discovery") {
        true => "name the members with --initial-cluster",
        false => "run etcd gateway start as a process of its own",
    }
}

impl Flags {
    /// Reads the arguments (without the program's name) and, for what they leave open, the environment.
    pub fn parse(
        arguments: impl IntoIterator<Item = OsString>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Flags, FlagError> {
        let mut flags = Flags::default();
        flags.read_arguments(arguments)?;
        flags.read_environment(environment)?;
        let path = flags.value("config-file").to_owned();
        if !path.is_empty() && !flags.help && !flags.version {
            flags = file::read(Path::new(&path))?;
            flags.warnings.push(format!(
                "settings come from {path}; other flags and environment variables are ignored"
            ));
        }
        flags.judge()?;
        Ok(flags)
    }

    fn read_arguments(&mut self, arguments: impl IntoIterator<Item = OsString>) -> Result<(), FlagError> {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let argument = argument.into_string().map_err(FlagError::Encoding)?;
            let Some(body) = argument.strip_prefix("--").or_else(|| argument.strip_prefix('-')) else {
                return Err(match argument.as_str() {
                    "grpc-proxy" => FlagError::GrpcProxy,
                    _ => FlagError::Stray(argument),
                });
            };
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            match name {
                "" => return Err(FlagError::Stray(argument)),
                "h" | "help" => self.help = true,
                "version" => self.version = inline.as_deref() != Some("false"),
                _ => {
                    let row = find(name).ok_or_else(|| FlagError::Unknown(name.to_owned()))?;
                    let value = match (inline, row.kind) {
                        (Some(value), _) => value,
                        (None, Kind::Switch) => "true".to_owned(),
                        (None, Kind::Value) => arguments
                            .next()
                            .ok_or_else(|| FlagError::NoValue(name.to_owned()))?
                            .into_string()
                            .map_err(FlagError::Encoding)?,
                    };
                    self.set(row, value)?;
                }
            }
        }
        Ok(())
    }

    fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), FlagError> {
        let given: BTreeSet<&str> = self.values.keys().copied().collect();
        for (key, value) in environment {
            let (Ok(key), Ok(value)) = (key.into_string(), value.into_string()) else { continue };
            let Some(name) = key.strip_prefix("ETCD_") else { continue };
            let name = name.to_ascii_lowercase().replace('_', "-");
            match find(&name) {
                _ if value.is_empty() => {}
                None if name == "version" || name == "unsupported-arch" => {}
                None => self.warnings.push(format!("unrecognized environment variable {key}")),
                Some(row) if given.contains(row.name) => {
                    self.warnings.push(format!(
                        "recognized environment variable {key}, but shadowed by --{}",
                        row.name
                    ));
                }
                Some(row) => self.set(row, value)?,
            }
        }
        Ok(())
    }

    fn set(&mut self, row: &'static Row, value: String) -> Result<(), FlagError> {
        let value = match row.kind {
            Kind::Value => value,
            Kind::Switch => match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => "true".to_owned(),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => "false".to_owned(),
                _ => return Err(FlagError::Switch { name: row.name, value }),
            },
        };
        self.values.insert(row.name, value);
        Ok(())
    }

    /// Warns about flags without effect and refuses those that would promise what is not there.
    fn judge(&mut self) -> Result<(), FlagError> {
        for (name, value) in &self.values {
            let Some(row) = find(name) else { continue };
            if value == row.default {
                continue;
            }
            match row.usage {
                Use::Honoured => {}
                Use::Partly => {
                    self.warnings.push(format!("--{name} has less effect on this store: {}", row.help))
                }
                Use::Ignored => self.warnings.push(format!("--{name} has no effect on this store")),
                Use::Missing => return Err(FlagError::Missing(row.name)),
            }
        }
        Ok(())
    }

    /// Whether the flag was given on the command line or in the environment.
    pub fn given(&self, name: &'static str) -> bool {
        self.values.contains_key(name)
    }

    /// The flag's value, or its default.
    pub fn value(&self, name: &'static str) -> &str {
        self.values.get(name).map_or_else(|| find(name).map_or("", |row| row.default), String::as_str)
    }

    /// A switch's value.
    pub fn is_on(&self, name: &'static str) -> bool {
        self.value(name) == "true"
    }
}

/// The row of a flag; the former `experimental-` spellings name the same flag.
fn find(name: &str) -> Option<&'static Row> {
    let exact = |name: &str| ROWS.iter().find(|row| row.name == name);
    exact(name).or_else(|| name.strip_prefix("experimental-").and_then(exact))
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Usage:\n\n  etcd [flags]\n    Start a member of the store.\n\n  etcd --version\n    Show the version.\n\n  etcd -h | --help\n    Show this text.\n\nFlags (each also as ETCD_ variable):\n",
    );
    for row in ROWS {
        let note = match row.usage {
            Use::Honoured | Use::Partly => "",
            Use::Ignored => " (accepted, without effect on this store)",
            Use::Missing => " (not supported)",
        };
        text.push_str(&format!("  --{} '{}'\n    {}{note}\n", row.name, row.default, row.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, FlagError> {
        Flags::parse(
            arguments.iter().map(|text| OsString::from(*text)),
            environment.iter().map(|(key, value)| (OsString::from(*key), OsString::from(*value))),
        )
    }

    #[test]
    fn arguments_are_read_as_go_reads_them() {
        let flags =
            parse(&["-name", "a", "--name=b", "--client-cert-auth", "--pre-vote=false"], &[]).unwrap();
        assert_eq!(flags.value("name"), "b");
        assert!(flags.is_on("client-cert-auth") && !flags.is_on("pre-vote"));
        assert_eq!(flags.value("heartbeat-interval"), "100");
        for (arguments, text) in [
            (&["--bogus"][..], "flag provided but not defined: -bogus"),
            (&["--name"], "flag needs an argument: -name"),
            (&["name"], "'name' is not a valid flag"),
            (&["--pre-vote", "false"], "'false' is not a valid flag"),
            (
                &["grpc-proxy", "start"],
                "etcd grpc-proxy is not part of this store: use etcd gateway start, or give clients the endpoints of all members",
            ),
            (
                &["--discovery-srv=example.com"],
                "--discovery-srv is not supported by this store: name the members with --initial-cluster",
            ),
            (
                &["--proxy=on"],
                "--proxy is not supported by this store: run etcd gateway start as a process of its own",
            ),
            (&["--pre-vote=maybe"], "invalid boolean value \"maybe\" for -pre-vote: parse error"),
        ] {
            assert_eq!(parse(arguments, &[]).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn the_command_line_wins_over_the_environment() {
        let flags =
            parse(&["--name=a"], &[("ETCD_NAME", "b"), ("ETCD_DATA_DIR", "d"), ("ETCD_X", "1")]).unwrap();
        assert_eq!((flags.value("name"), flags.value("data-dir")), ("a", "d"));
        assert_eq!(flags.warnings.len(), 2, "{:?}", flags.warnings);
    }

    #[test]
    fn former_experimental_names_mean_the_same_flag() {
        let flags = parse(&["--experimental-watch-progress-notify-interval=1s"], &[]).unwrap();
        assert_eq!(flags.value("watch-progress-notify-interval"), "1s");
    }

    #[test]
    fn every_row_is_unique_and_its_default_is_valid() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        for row in ROWS.iter().filter(|row| row.kind == Kind::Switch) {
            assert!(["true", "false"].contains(&row.default), "{}", row.name);
        }
    }
}
