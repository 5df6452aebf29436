//! `watch`: one watch from the command line, or many from lines of standard input with `-i`.
//!
//! With a command after `--`, it runs once for each event with `ETCD_WATCH_*` in its environment.
//! A watch that the server cancels ends the program with its reason.

use std::process::Stdio;

use bytes::Bytes;
use prost::Message as _;
use tokio::{io::AsyncBufReadExt, process::Command as Process, sync::mpsc};
use wire::{
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::{Event, event::EventType},
    prefix_end,
};

use super::{key, txn::split_words};
use crate::{
    catalog::{Command, Run},
    failure::Failure,
    fields::Fields,
    flags::{Flag, Line, number, switch},
    json, output,
    session::{Format, Session},
    text::quote,
    watching::Watches,
};

const FLAGS: &[Flag] = &[
    switch("interactive", "Interactive mode").short('i'),
    switch("prefix", "Watch on a prefix if prefix is set"),
    switch("prev-kv", "get the previous key-value pair before the event happens"),
    switch("progress-notify", "get periodic watch progress notification from server"),
    number("rev", "0", "Revision to start watching"),
];

pub(crate) const COMMANDS: &[Command] = &[Command {
    name: "watch",
    takes: "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    about: "Watches events stream on keys or prefixes",
    detail: "The key may also come from ETCDCTL_WATCH_KEY and the end of a range from ETCDCTL_WATCH_RANGE_END.\n\
             A command after -- runs for each event with ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY\n\
             and ETCD_WATCH_VALUE in its environment. In interactive mode, lines `watch [options] key [range_end]`\n\
             and `progress` are read from standard input. A lost connection is made again and nothing is missed.",
    example: "watch --prefix /registry/ --rev=100\nwatch foo -- sh -c 'echo $ETCD_WATCH_VALUE'",
    flags: FLAGS,
    run: Run::Online(|session, line| Box::pin(run(session, line))),
}];

async fn run(session: &Session, line: &Line) -> Result<(), Failure> {
    if session.options.format == Format::Table {
        return Err(Format::Table.unsupported());
    }
    let variables = Variables::read()?;
    let mut watches = Watches::new(session);
    let mut commands = Vec::new();
    if line.has("interactive") {
        return interactive(session, &variables, &mut watches, &mut commands).await;
    }
    let (request, command) = parse(line, &variables)?;
    commands.push(command);
    watches.add(request).await;
    while !watches.all_ended() {
        tell(session, &commands, watches.next().await).await?;
    }
    Err(Failure::interrupted(CANCELED))
}

const CANCELED: &str = "watch is canceled by the server";

/// Prints an answer and runs the command of its watch.
async fn tell(
    session: &Session,
    commands: &[Vec<String>],
    answer: Result<(Option<usize>, WatchResponse), Failure>,
) -> Result<(), Failure> {
    let (place, answer) = answer.map_err(|failure| {
        output::error(&format!("watch was canceled ({})", failure.text));
        Failure::interrupted(CANCELED)
    })?;
    if answer.canceled {
        output::error(&format!("watch was canceled ({})", canceled(&answer)));
    }
    print(session, &answer);
    let Some(command) = place.and_then(|place| commands.get(place)) else { return Ok(()) };
    for event in &answer.events {
        execute(command, &answer, event).await?;
    }
    Ok(())
}

/// What to watch by default.
#[derive(Debug, Default)]
struct Variables {
    key: Option<String>,
    range_end: Option<String>,
}

impl Variables {
    fn read() -> Result<Variables, Failure> {
        let read = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
        let variables =
            Variables { key: read("ETCDCTL_WATCH_KEY"), range_end: read("ETCDCTL_WATCH_RANGE_END") };
        match variables {
            Variables { key: None, range_end: Some(end) } => Err(Failure::arguments(format!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={end:?}"
            ))),
            variables => Ok(variables),
        }
    }
}

/// What the watch asks for, and the command to run for each event.
fn parse(line: &Line, variables: &Variables) -> Result<(WatchCreateRequest, Vec<String>), Failure> {
    let wrong = |more: &str| Failure::arguments(format!("bad number of arguments{more}"));
    let (words, command) = match line.words_before_dash {
        Some(count) => line.words.split_at(count.min(line.words.len())),
        None => (line.words.as_slice(), [].as_slice()),
    };
    if line.words_before_dash.is_some() && command.is_empty() {
        return Err(wrong(" (found separator --, but no commands)"));
    }
    let prefix = line.has("prefix");
    let (key, end) = match (words, &variables.key) {
        ([], None) => return Err(wrong("")),
        ([], Some(key)) => (key, variables.range_end.as_ref()),
        (_, Some(_)) => return Err(wrong(" (found conflicting environment key)")),
        ([key], None) => (key, None),
        ([key, end], None) => (key, Some(end)),
        _ => return Err(wrong("")),
    };
    let open = || Bytes::from_static(&[0]);
    let range_end = match end {
        Some(_) if prefix => {
            return Err(Failure::arguments("`range_end` and `--prefix` are mutually exclusive"));
        }
        Some(end) => Bytes::from(end.clone()),
        None if prefix && key.is_empty() => open(),
        None if prefix => prefix_end(key.as_bytes()),
        None => Bytes::new(),
    };
    let request = WatchCreateRequest {
        key: if key.is_empty() { open() } else { Bytes::from(key.clone()) },
        range_end,
        start_revision: line.number("rev"),
        progress_notify: line.has("progress-notify"),
        prev_kv: line.has("prev-kv"),
        ..Default::default()
    };
    Ok((request, command.to_vec()))
}

/// Reads lines until standard input ends, and prints what the watches of earlier lines tell.
async fn interactive(
    session: &Session,
    variables: &Variables,
    watches: &mut Watches<'_>,
    commands: &mut Vec<Vec<String>>,
) -> Result<(), Failure> {
    let (sender, mut typed) = mpsc::channel(1);
    // Ends with standard input.
    tokio::spawn(async move {
        let mut input = tokio::io::BufReader::new(tokio::io::stdin());
        let mut text = String::new();
        // What the input ends with in the middle of a line was not said to its end.
        while input.read_line(&mut text).await.is_ok() && text.ends_with('\n') {
            let line = std::mem::take(&mut text);
            if sender.send(line.trim_end_matches(['\n', '\r']).to_owned()).await.is_err() {
                return;
            }
        }
    });
    loop {
        let text = tokio::select! {
            biased;
            answer = watches.next() => {
                tell(session, commands, answer).await?;
                continue;
            }
            text = typed.recv() => text,
        };
        let text = text.ok_or_else(|| Failure::input("error reading watch request line: EOF"))?;
        match Typed::parse(&text, variables) {
            Ok(Typed::Watch(request, command)) => {
                commands.push(command);
                watches.add(request).await;
            }
            Ok(Typed::Progress) => watches.ask_progress().await,
            Err(failure) => output::error(&failure.text),
        }
    }
}

/// A line of interactive mode.
enum Typed {
    Watch(WatchCreateRequest, Vec<String>),
    Progress,
}

impl Typed {
    fn parse(text: &str, variables: &Variables) -> Result<Typed, Failure> {
        let words = split_words(text);
        let refused = |reason: &str| Failure::input(format!("Invalid command {text} ({reason})"));
        match words.split_first() {
            None => Err(Failure::input(format!("Invalid command: {text} (watch and progress supported)"))),
            Some((name, [])) if name == "watch" && variables.key.is_none() => {
                Err(refused("command type or key is not provided"))
            }
            Some((name, rest)) if name == "watch" => {
                let line = Line::parse(rest, &[FLAGS]).map_err(|failure| refused(&failure.text))?;
                let (request, command) = parse(&line, variables).map_err(|failure| refused(&failure.text))?;
                Ok(Typed::Watch(request, command))
            }
            Some((name, _)) if name == "progress" => Ok(Typed::Progress),
            Some(_) => Err(refused("only support watch")),
        }
    }
}

fn canceled(answer: &WatchResponse) -> &str {
    match answer.cancel_reason.as_str() {
        _ if answer.compact_revision != 0 => "etcdserver: mvcc: required revision has been compacted",
        "" => "etcdserver: mvcc: required revision is a future revision",
        reason => reason,
    }
}

fn print(session: &Session, answer: &WatchResponse) {
    let progress = answer.events.is_empty() && !answer.canceled;
    if progress {
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        output::line(format!("progress notify: {revision}"));
    }
    match session.options.format {
        Format::Json => output::line(watch_json(answer)),
        Format::Protobuf => output::raw(&answer.encode_to_vec()),
        Format::Fields => {
            let mut fields = Fields::default();
            fields.header(answer.header.as_ref());
            for event in &answer.events {
                fields.value("Type", event.r#type().as_str_name());
                if let Some(kv) = &event.prev_kv {
                    fields.key_value("Prev", kv);
                }
                fields.key_value("", &event.kv.clone().unwrap_or_default());
            }
            output::raw(fields.text.as_bytes());
        }
        Format::Simple | Format::Table => {
            for event in &answer.events {
                output::line(event.r#type().as_str_name());
                if let Some(kv) = &event.prev_kv {
                    key::print_key_value(kv, session.options.hex, false);
                }
                key::print_key_value(&event.kv.clone().unwrap_or_default(), session.options.hex, false);
            }
        }
    }
}

/// etcd's Go client wraps the answer in its own struct, whose names are not the wire's.
fn watch_json(answer: &WatchResponse) -> String {
    let header = json::message("etcdserverpb.ResponseHeader", &answer.header.unwrap_or_default());
    let events: Vec<String> =
        answer.events.iter().map(|event| json::message("mvccpb.Event", event)).collect();
    let events = format!("[{}]", events.join(","));
    format!(
        "{{\"Header\":{header},\"Events\":{events},\"CompactRevision\":{},\"Canceled\":{},\"Created\":{}}}",
        answer.compact_revision, answer.canceled, answer.created
    )
}

async fn execute(command: &[String], answer: &WatchResponse, event: &Event) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type() == EventType::Delete { "DELETE" } else { "PUT" };
    let mut process = Process::new(program);
    process
        .args(arguments)
        .stdin(Stdio::null())
        .env("ETCD_WATCH_REVISION", answer.header.as_ref().map_or(0, |header| header.revision).to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value));
    let failed = |reason: String| {
        let words: Vec<String> = command.iter().map(|word| quote(word.as_bytes())).collect();
        output::error(&format!("command [{}] error ({reason})", words.join(" ")));
        Failure::silent(1)
    };
    match process.status().await {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed(status.to_string().replace("exit status: ", "exit status "))),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::{FLAGS, Line, Typed, Variables, WatchCreateRequest, parse};

    fn parsed(text: &str, variables: &Variables) -> Result<(WatchCreateRequest, Vec<String>), String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        parse(&Line::parse(&words, &[FLAGS]).unwrap(), variables).map_err(|failure| failure.text)
    }

    #[test]
    fn a_command_may_follow_the_range() {
        let (request, command) = parsed("a b --rev=3 -- echo -n", &Variables::default()).unwrap();
        assert_eq!(
            (&request.key[..], &request.range_end[..], request.start_revision),
            (&b"a"[..], &b"b"[..], 3)
        );
        assert_eq!(command, ["echo", "-n"]);
    }

    #[test]
    fn the_key_may_come_from_the_environment_but_not_twice() {
        let variables = Variables { key: Some("k".to_owned()), range_end: Some("m".to_owned()) };
        let (request, command) = parsed("-- echo", &variables).unwrap();
        assert_eq!((&request.key[..], &request.range_end[..]), (&b"k"[..], &b"m"[..]));
        assert_eq!(command, ["echo"]);
        for (text, error) in [
            ("a", "bad number of arguments (found conflicting environment key)"),
            ("--", "bad number of arguments (found separator --, but no commands)"),
            ("--prefix", "`range_end` and `--prefix` are mutually exclusive"),
        ] {
            assert_eq!(parsed(text, &variables).unwrap_err(), error);
        }
        assert_eq!(parsed("", &Variables::default()).unwrap_err(), "bad number of arguments");
    }

    #[test]
    fn interactive_lines_are_watch_or_progress() {
        let typed = |text| Typed::parse(text, &Variables::default()).map_err(|failure| failure.text);
        assert!(
            matches!(typed("watch --prefix a -- echo"), Ok(Typed::Watch(_, command)) if command == ["echo"])
        );
        assert!(matches!(typed("progress"), Ok(Typed::Progress)));
        for (text, error) in [
            ("put a b", "Invalid command put a b (only support watch)"),
            ("watch", "Invalid command watch (command type or key is not provided)"),
            ("", "Invalid command:  (watch and progress supported)"),
        ] {
            assert_eq!(typed(text).err().unwrap(), error);
        }
    }
}
