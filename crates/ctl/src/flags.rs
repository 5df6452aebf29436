//! Flags as Go's pflag reads them: `--name=value`, `--name value`, `--switch`, `--switch=false`, `-w json`, `-wjson`.
//!
//! Flags and words may be mixed; `--` ends the flags. A long name after a single dash is taken, too. A flag is
//! declared once, in the table of its command or in `GLOBAL`, with its kind, default and help; values are checked
//! against their kind when the line is split. Not here: what the values mean, which command a line names (catalog.rs).

use std::{collections::BTreeMap, time::Duration};

use crate::{failure::Failure, output, suggest, text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    Text,
    /// Separated by commas; a flag that is given again adds to it.
    List,
    Number,
    Duration,
}

/// A flag of a command, or of all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    pub(crate) about: &'static str,
    /// The values that a shell may offer; others may be right, too.
    pub(crate) values: &'static [&'static str],
}

impl Flag {
    const fn new(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Flag {
        Flag { name, short: None, kind, default, about, values: &[] }
    }

    pub(crate) const fn short(mut self, letter: char) -> Flag {
        self.short = Some(letter);
        self
    }

    pub(crate) const fn values(mut self, values: &'static [&'static str]) -> Flag {
        self.values = values;
        self
    }

    /// A switch that is on unless it is turned off.
    pub(crate) const fn on(mut self) -> Flag {
        self.default = "true";
        self
    }

    /// Refuses what is not of the flag's kind, in Go's words.
    fn check(&self, value: &str) -> Result<(), Failure> {
        let quoted = text::quote(value.as_bytes());
        let checked = match self.kind {
            Kind::Text | Kind::List => Ok(()),
            Kind::Switch if parse_switch(value).is_some() => Ok(()),
            Kind::Switch => Err(format!("strconv.ParseBool: parsing {quoted}: invalid syntax")),
            Kind::Number => text::parse_i64(value, 10).map(|_| ()),
            Kind::Duration => text::parse_duration(value).map(|_| ()),
        };
        checked.map_err(|reason| {
            Failure::error(format!("invalid argument {quoted} for \"--{}\" flag: {reason}", self.name))
        })
    }
}

pub(crate) const fn switch(name: &'static str, about: &'static str) -> Flag {
    Flag::new(name, Kind::Switch, "false", about)
}

pub(crate) const fn text(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag::new(name, Kind::Text, default, about)
}

pub(crate) const fn number(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag::new(name, Kind::Number, default, about)
}

const fn duration(name: &'static str, default: &'static str, about: &'static str) -> Flag {
    Flag::new(name, Kind::Duration, default, about)
}

pub(crate) const HELP: Flag = switch("help", "print this help").short('h');
pub(crate) const WRITE_OUT: Flag =
    text("write-out", "simple", "set the output format (fields, json, protobuf, simple, table)")
        .short('w')
        .values(&["fields", "json", "protobuf", "simple", "table"]);

/// Taken by every command of etcdctl; each may also come from a variable `ETCDCTL_*`.
pub(crate) const GLOBAL: &[Flag] = &[
    text("auth-jwt-token", "", "token for authentication, instead of a user and a password"),
    text("cacert", "", "verify certificates of TLS-enabled secure servers using this CA bundle"),
    text("cert", "", "identify secure client using this TLS certificate file"),
    duration("command-timeout", "5s", "timeout for short running command (excluding dial timeout)"),
    switch("debug", "print every option and where it comes from to standard error"),
    duration("dial-timeout", "2s", "dial timeout for client connections"),
    text("discovery-srv", "", "domain name to query for SRV records (not built: list the --endpoints)")
        .short('d'),
    text("discovery-srv-name", "", "service name to query when using DNS discovery (not built)"),
    Flag::new(
        "endpoints",
        Kind::List,
        "127.0.0.1:2379",
        "comma-separated addresses of members, with or without http://",
    ),
    HELP,
    switch("hex", "print byte strings as hex encoded strings"),
    switch("insecure-discovery", "accept insecure SRV records describing cluster endpoints").on(),
    switch("insecure-skip-tls-verify", "skip server certificate verification (for testing only)"),
    switch("insecure-transport", "disable transport security for client connections").on(),
    duration(
        "keepalive-time",
        "2s",
        "keepalive time for client connections (at least 10s is used, as in etcdctl)",
    ),
    duration("keepalive-timeout", "6s", "keepalive timeout for client connections"),
    text("key", "", "identify secure client using this TLS key file"),
    number("max-recv-bytes", "0", "largest answer in bytes (0: as large as the protocol allows)"),
    number("max-request-bytes", "0", "largest request in bytes (0: as large as the protocol allows)"),
    text("password", "", "password for authentication (then --user must not include one)"),
    text("user", "", "username[:password] for authentication (prompt if password is not supplied)"),
    WRITE_OUT,
];

/// A split command line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// What is not a flag, in order.
    pub(crate) words: Vec<String>,
    /// How many words stood before `--`, if it was there.
    pub(crate) words_before_dash: Option<usize>,
    /// Flags that this line may have.
    known: Vec<&'static Flag>,
    given: BTreeMap<&'static str, String>,
}

impl Line {
    /// Splits a line that may have these flags.
    pub(crate) fn parse(arguments: &[String], known: &[&'static [Flag]]) -> Result<Line, Failure> {
        let known: Vec<&'static Flag> = known.iter().copied().flatten().collect();
        let mut line = Line { known, ..Line::default() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                line.words_before_dash = Some(line.words.len());
                line.words.extend(arguments.by_ref().cloned());
                break;
            }
            match Argument::split(argument) {
                Argument::Word => line.words.push(argument.clone()),
                Argument::Flag { name, value, dashes } => match line.find(name) {
                    Some(flag) => line.set(flag, value, &mut arguments)?,
                    None if dashes == 1 => line.letters(argument, &mut arguments)?,
                    None => return Err(line.unknown(name)),
                },
            }
        }
        Ok(line)
    }

    fn find(&self, name: &str) -> Option<&'static Flag> {
        self.known.iter().copied().find(|flag| flag.name == name)
    }

    fn set<'a>(
        &mut self,
        flag: &'static Flag,
        value: Option<&str>,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let value = match value {
            Some(value) => value.to_owned(),
            None if flag.kind == Kind::Switch => "true".to_owned(),
            None => rest
                .next()
                .ok_or_else(|| Failure::error(format!("flag needs an argument: --{}", flag.name)))?
                .clone(),
        };
        flag.check(&value)?;
        let before = self.given.remove(flag.name).filter(|_| flag.kind == Kind::List);
        let value = before.map_or_else(|| value.clone(), |before| format!("{before},{value}"));
        self.given.insert(flag.name, value);
        Ok(())
    }

    /// Letters after one dash: switches, the last of them perhaps a flag with its value.
    fn letters<'a>(
        &mut self,
        argument: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let mut letters = argument.trim_start_matches('-');
        while let Some(letter) = letters.chars().next() {
            let Some(flag) = self.known.iter().copied().find(|flag| flag.short == Some(letter)) else {
                return Err(Failure::error(format!("unknown shorthand flag: '{letter}' in {argument}")));
            };
            letters = letters.get(letter.len_utf8()..).unwrap_or_default();
            if flag.kind != Kind::Switch || letters.starts_with('=') {
                let value = (!letters.is_empty()).then(|| letters.strip_prefix('=').unwrap_or(letters));
                return self.set(flag, value, rest);
            }
            self.set(flag, None, rest)?;
        }
        Ok(())
    }

    fn unknown(&self, name: &str) -> Failure {
        let hints = suggest::nearest(name, self.known.iter().map(|flag| flag.name));
        let hints: Vec<String> = hints.iter().map(|name| format!("--{name}")).collect();
        Failure::error(format!("unknown flag: --{name}{}", suggest::hint(&hints)))
    }

    /// The words, if there are as many as that; `wanted` says what a line must have instead.
    pub(crate) fn words_of<const N: usize>(&self, wanted: &str) -> Result<[&str; N], Failure> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        words.try_into().map_err(|_| Failure::arguments(wanted))
    }

    /// Says on standard error what each flag is set to. Secrets are not shown.
    pub(crate) fn explain(&self, flags: &'static [Flag]) {
        for flag in flags.iter().filter(|flag| **flag != HELP) {
            let secret = matches!(flag.name, "password" | "auth-jwt-token" | "user")
                && !self.text(flag.name).is_empty();
            let shown = if secret { "(not shown)" } else { self.text(flag.name) };
            output::error(&format!("{}={shown}", variable_name(flag.name)));
        }
    }

    pub(crate) fn given(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(String::as_str)
    }

    /// What was given, or else the default.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.given(name).or_else(|| self.find(name).map(|flag| flag.default)).unwrap_or_default()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        parse_switch(self.text(name)).unwrap_or(false)
    }

    pub(crate) fn number(&self, name: &str) -> i64 {
        self.text(name).parse().unwrap_or_default() // checked when the line was split
    }

    /// Flags that were not given take what their variable `ETCDCTL_*` says, if it is not empty.
    pub(crate) fn fill(
        &mut self,
        flags: &'static [Flag],
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Failure> {
        for flag in flags.iter().filter(|flag| **flag != HELP) {
            let name = variable_name(flag.name);
            let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
            if self.given.contains_key(flag.name) {
                continue;
            }
            flag.check(&value).map_err(|failure| Failure::error(format!("{name}: {}", failure.text)))?;
            self.given.insert(flag.name, value);
        }
        Ok(())
    }

    pub(crate) fn duration(&self, name: &str) -> Duration {
        text::parse_duration(self.text(name)).unwrap_or_default() // checked when the line was split
    }
}

/// The variable that stands for a flag.
pub(crate) fn variable_name(flag: &str) -> String {
    format!("ETCDCTL_{}", flag.to_uppercase().replace('-', "_"))
}

/// What one argument looks like, whatever flags exist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Argument<'a> {
    Word,
    Flag { name: &'a str, value: Option<&'a str>, dashes: usize },
}

impl Argument<'_> {
    pub(crate) fn split(argument: &str) -> Argument<'_> {
        let body = argument.trim_start_matches('-');
        let dashes = argument.len() - body.len();
        if !matches!(dashes, 1 | 2) || body.is_empty() {
            return Argument::Word;
        }
        match body.split_once('=') {
            Some((name, value)) => Argument::Flag { name, value: Some(value), dashes },
            None => Argument::Flag { name: body, value: None, dashes },
        }
    }
}

/// What Go's strconv.ParseBool takes.
pub(crate) fn parse_switch(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{GLOBAL, Line, number, switch};

    const OWN: &[super::Flag] = &[
        switch("prefix", ""),
        switch("interactive", "").short('i'),
        number("limit", "0", ""),
        number("rev", "7", ""),
    ];

    fn parse(text: &str) -> Result<Line, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Line::parse(&words, &[GLOBAL, OWN]).map_err(|failure| failure.text)
    }

    #[test]
    fn flags_and_words_may_be_mixed() {
        let line = parse("--endpoints a:1,b:2 get -w=json k --prefix -limit=3").unwrap();
        assert_eq!(line.words, ["get", "k"]);
        assert_eq!((line.text("endpoints"), line.text("write-out")), ("a:1,b:2", "json"));
        assert!(line.has("prefix") && !line.has("from-key") && line.has("insecure-transport"));
        assert_eq!((line.number("limit"), line.number("rev"), line.given("rev")), (3, 7, None));
        assert_eq!(parse("--endpoints a:1 --endpoints=b:2").unwrap().text("endpoints"), "a:1,b:2");
        let line = parse("-iwjson k").unwrap();
        assert!(line.has("interactive"));
        assert_eq!((line.text("write-out"), line.words.join(" ").as_str()), ("json", "k"));
    }

    #[test]
    fn a_double_dash_ends_the_flags() {
        let line = parse("watch k --prefix=false -- echo --prefix").unwrap();
        assert_eq!(line.words, ["watch", "k", "echo", "--prefix"]);
        assert_eq!(line.words_before_dash, Some(2));
        assert!(!line.has("prefix"));
    }

    #[test]
    fn wrong_flags_are_named_as_pflag_names_them() {
        for (text, error) in [
            ("get --nonsense a", "unknown flag: --nonsense"),
            ("get --prefx a", "unknown flag: --prefx\n\nDid you mean this?\n\t--prefix\n"),
            ("get -1", "unknown shorthand flag: '1' in -1"),
            ("get a --rev", "flag needs an argument: --rev"),
            (
                "get a --prefix=x",
                "invalid argument \"x\" for \"--prefix\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
            (
                "get --rev=xyz",
                "invalid argument \"xyz\" for \"--rev\" flag: strconv.ParseInt: parsing \"xyz\": invalid syntax",
            ),
            (
                "get --dial-timeout 5",
                "invalid argument \"5\" for \"--dial-timeout\" flag: time: missing unit in duration \"5\"",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }

    #[test]
    fn a_flag_beats_its_variable() {
        let mut line = parse("--endpoints a:1").unwrap();
        line.fill(GLOBAL, |name| match name {
            "ETCDCTL_ENDPOINTS" => Some("b:2".to_owned()),
            "ETCDCTL_DIAL_TIMEOUT" => Some("7s".to_owned()),
            "ETCDCTL_USER" => Some(String::new()),
            _ => None,
        })
        .unwrap();
        assert_eq!((line.text("endpoints"), line.duration("dial-timeout").as_secs()), ("a:1", 7));
        assert_eq!(line.given("user"), None);
        let wrong = line.fill(GLOBAL, |name| (name == "ETCDCTL_HEX").then(|| "maybe".to_owned()));
        assert!(wrong.unwrap_err().text.starts_with("ETCDCTL_HEX: invalid argument \"maybe\""));
    }
}
