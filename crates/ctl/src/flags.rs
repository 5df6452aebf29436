//! Go-style flags: `--name=value`, `--name value`, `--switch`, `--switch=false`, the same with one dash, `-w json`.
//!
//! Flags and words may be mixed; `--` ends the flags. A name means the same for every command, so that a line can be
//! split before the command is known; which flags a command takes is checked afterwards.
//! Not here: what the values mean.

use std::collections::BTreeMap;

use crate::failure::Failure;

const SWITCHES: &[&str] = &[
    "debug",
    "hex",
    "help",
    "insecure-transport",
    "insecure-skip-tls-verify",
    "insecure-discovery",
    "prev-kv",
    "ignore-value",
    "ignore-lease",
    "prefix",
    "from-key",
    "keys-only",
    "count-only",
    "print-value-only",
    "range",
    "interactive",
    "physical",
    "progress-notify",
    "keys",
    "once",
    "learner",
    "cluster",
    "no-password",
    "detail",
    "listen",
    "skip-hash-check",
    "mark-compacted",
];
const VALUES: &[&str] = &[
    "name",
    "initial-cluster",
    "initial-cluster-token",
    "initial-advertise-peer-urls",
    "data-dir",
    "wal-dir",
    "bump-revision",
    "endpoints",
    "cacert",
    "cert",
    "key",
    "user",
    "password",
    "write-out",
    "dial-timeout",
    "command-timeout",
    "keepalive-time",
    "keepalive-timeout",
    "lease",
    "rev",
    "limit",
    "order",
    "sort-by",
    "consistency",
    "peer-urls",
    "ttl",
    "new-user-password",
    "discovery-srv",
    "discovery-srv-name",
];
/// Taken by every command.
const GLOBAL: &[&str] = &[
    "debug",
    "hex",
    "help",
    "insecure-transport",
    "insecure-skip-tls-verify",
    "insecure-discovery",
    "endpoints",
    "cacert",
    "cert",
    "key",
    "user",
    "password",
    "write-out",
    "dial-timeout",
    "command-timeout",
    "keepalive-time",
    "keepalive-timeout",
    "discovery-srv",
    "discovery-srv-name",
];
const SHORT: &[(char, &str)] =
    &[('w', "write-out"), ('h', "help"), ('i', "interactive"), ('l', "listen"), ('d', "discovery-srv")];

/// A split command line.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// What is not a flag, in order.
    pub(crate) words: Vec<String>,
    /// How many words stood before `--`, if it was there.
    pub(crate) words_before_dash: Option<usize>,
    flags: BTreeMap<String, String>,
}

impl Line {
    pub(crate) fn parse(arguments: &[String]) -> Result<Line, Failure> {
        let mut line = Line::default();
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                line.words_before_dash = Some(line.words.len());
                line.words.extend(arguments.by_ref().cloned());
                break;
            }
            let Some((name, value)) = split_flag(argument)? else {
                line.words.push(argument.clone());
                continue;
            };
            let value = match value {
                Some(value) => value,
                None if SWITCHES.contains(&name.as_str()) => "true".to_owned(),
                None => match arguments.next() {
                    Some(next) => next.clone(),
                    None => return Err(Failure::error(format!("flag needs an argument: --{name}"))),
                },
            };
            if SWITCHES.contains(&name.as_str()) && parse_switch(&value).is_none() {
                return Err(Failure::error(format!(
                    "invalid argument {value:?} for \"--{name}\" flag: strconv.ParseBool: parsing {value:?}: invalid syntax"
                )));
            }
            line.flags.insert(name, value);
        }
        Ok(line)
    }

    /// Refuses the first flag that neither every command nor this one takes.
    pub(crate) fn allow(&self, names: &[&str]) -> Result<(), Failure> {
        match self
            .flags
            .keys()
            .find(|name| !GLOBAL.contains(&name.as_str()) && !names.contains(&name.as_str()))
        {
            Some(name) => Err(Failure::error(format!("unknown flag: --{name}"))),
            None => Ok(()),
        }
    }

    /// The same flags with other words.
    pub(crate) fn with_words(&self, words: &[String]) -> Line {
        Line { words: words.to_vec(), words_before_dash: self.words_before_dash, flags: self.flags.clone() }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.flags.get(name).and_then(|value| parse_switch(value)).unwrap_or(false)
    }

    pub(crate) fn given(&self, name: &str) -> bool {
        self.flags.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.flags.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Result<i64, Failure> {
        let Some(text) = self.text(name) else { return Ok(0) };
        crate::text::parse_i64(text, 10).map_err(|reason| {
            Failure::error(format!("invalid argument {text:?} for \"--{name}\" flag: {reason}"))
        })
    }
}

/// Name and given value, if this is a flag.
fn split_flag(argument: &str) -> Result<Option<(String, Option<String>)>, Failure> {
    let Some(rest) = argument.strip_prefix('-') else { return Ok(None) };
    if rest.is_empty() {
        return Ok(None);
    }
    let long = rest.strip_prefix('-');
    let body = long.unwrap_or(rest);
    let (name, value) = match body.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (body, None),
    };
    if SWITCHES.contains(&name) || VALUES.contains(&name) {
        return Ok(Some((name.to_owned(), value)));
    }
    if long.is_some() {
        return Err(Failure::error(format!("unknown flag: --{name}")));
    }
    let mut letters = rest.chars();
    let letter = letters.next().unwrap_or('-');
    let Some((_, name)) = SHORT.iter().find(|(short, _)| *short == letter) else {
        return Err(Failure::error(format!("unknown shorthand flag: '{letter}' in {argument}")));
    };
    let value = letters.as_str();
    let value = value.strip_prefix('=').unwrap_or(value);
    Ok(Some(((*name).to_owned(), (!value.is_empty()).then(|| value.to_owned()))))
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
    use super::Line;

    fn parse(text: &str) -> Result<Line, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Line::parse(&words).map_err(|failure| failure.text)
    }

    #[test]
    fn flags_and_words_may_be_mixed() {
        let line = parse("--endpoints a:1,b:2 get -w=json k --prefix -limit=3 --rev 7").unwrap();
        assert_eq!(line.words, ["get", "k"]);
        assert_eq!(line.text("endpoints"), Some("a:1,b:2"));
        assert_eq!(line.text("write-out"), Some("json"));
        assert!(line.has("prefix") && !line.has("from-key"));
        assert_eq!((line.number("limit"), line.number("rev")), (Ok(3), Ok(7)));
        assert!(line.allow(&["prefix", "limit", "rev"]).is_ok());
        assert_eq!(line.allow(&["prefix", "rev"]).unwrap_err().text, "unknown flag: --limit");
    }

    #[test]
    fn a_double_dash_ends_the_flags() {
        let line = parse("watch k --prefix=false -- echo --prefix").unwrap();
        assert_eq!(line.words, ["watch", "k", "echo", "--prefix"]);
        assert_eq!(line.words_before_dash, Some(2));
        assert!(!line.has("prefix"));
    }

    #[test]
    fn wrong_flags_are_named_as_cobra_names_them() {
        for (text, error) in [
            ("get --nonsense a", "unknown flag: --nonsense"),
            ("get -1", "unknown shorthand flag: '1' in -1"),
            ("get a --rev", "flag needs an argument: --rev"),
            (
                "get a --prefix=x",
                "invalid argument \"x\" for \"--prefix\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
        let line = parse("get --rev=xyz").unwrap();
        assert_eq!(
            line.number("rev").unwrap_err().text,
            "invalid argument \"xyz\" for \"--rev\" flag: strconv.ParseInt: parsing \"xyz\": invalid syntax"
        );
    }
}
