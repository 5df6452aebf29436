//! `watch`: one watch from the command line, or many from lines of standard input with `-i`.
//!
//! With a command after `--`, it runs once for each event with `ETCD_WATCH_*` in its environment.
//! A watch that the server cancels ends the program with its reason.

use std::process::Command;

use bytes::Bytes;
use tokio::{io::AsyncBufReadExt, sync::mpsc};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use wire::{
    etcdserverpb::{
        WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
    prefix_end,
};

use super::{flags_of, key, txn::split_words};
use crate::{
    failure::Failure,
    fields::Fields,
    flags::Line,
    json, output,
    session::{Format, Session},
    text::quote,
};

pub(crate) async fn run(session: &Session, line: &Line) -> Result<(), Failure> {
    if session.options.format == Format::Table {
        return Err(Failure::table_unsupported());
    }
    let (sender, receiver) = mpsc::channel(16);
    let mut command = Vec::new();
    let mut reading = None;
    if line.has("interactive") {
        reading = Some(tokio::spawn(interactive(sender.clone())));
    } else {
        let (request, exec) = parse(line)?;
        command = exec;
        let _ = sender.send(create(request)).await;
    }
    let mut client = session.client.watch.clone();
    let answers = client.watch(session.ask(ReceiverStream::new(receiver))).await;
    let mut answers = answers.map_err(|status| session.failed(&status))?.into_inner();
    let ended = async move {
        match reading {
            Some(task) => drop(task.await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(ended);
    loop {
        let answer = tokio::select! {
            biased;
            answer = answers.next() => answer,
            () = &mut ended => return Err(Failure::input("error reading watch request line: EOF")),
        };
        let Some(answer) = answer else { break };
        let answer = answer.map_err(|status| session.failed(&status))?;
        if answer.canceled {
            output::error(&format!("watch was canceled ({})", canceled(&answer)));
            if session.options.format != Format::Simple {
                print(session, &answer);
            }
            return Err(Failure::interrupted("watch is canceled by the server"));
        }
        if answer.created {
            continue;
        }
        print(session, &answer);
        for event in &answer.events {
            execute(&command, &answer, event).await?;
        }
    }
    drop(sender);
    Err(Failure::interrupted("watch is canceled by the server"))
}

fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

/// What the watch asks for, and the command to run for each event.
fn parse(line: &Line) -> Result<(WatchCreateRequest, Vec<String>), Failure> {
    let wrong = || Failure::arguments("bad number of arguments");
    let (words, command) = match line.words_before_dash {
        Some(count) if count > 0 => line.words.split_at(count.min(line.words.len())),
        _ => (line.words.as_slice(), [].as_slice()),
    };
    let prefix = line.has("prefix");
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let (key, end) = match words {
        [] => (variable("ETCDCTL_WATCH_KEY").ok_or_else(wrong)?, variable("ETCDCTL_WATCH_RANGE_END")),
        [key] => (key.clone(), None),
        [_, _] if prefix => {
            return Err(Failure::arguments("`range_end` and `--prefix` are mutually exclusive"));
        }
        [key, end] => (key.clone(), Some(end.clone())),
        _ => return Err(wrong()),
    };
    let first = if key.is_empty() { Bytes::from_static(&[0]) } else { Bytes::from(key.clone()) };
    let range_end = match end {
        Some(end) => Bytes::from(end),
        None if prefix && key.is_empty() => Bytes::from_static(&[0]),
        None if prefix => prefix_end(key.as_bytes()),
        None => Bytes::new(),
    };
    let request = WatchCreateRequest {
        key: first,
        range_end,
        start_revision: line.number("rev")?,
        progress_notify: line.has("progress-notify"),
        prev_kv: line.has("prev-kv"),
        ..Default::default()
    };
    Ok((request, command.to_vec()))
}

/// Turns lines `watch [flags] key [end]` and `progress` into requests until standard input ends.
async fn interactive(sender: mpsc::Sender<WatchRequest>) {
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let request = match interactive_line(&text) {
            Ok(Some(request)) => request,
            Ok(None) => continue,
            Err(failure) => {
                output::error(&format!("Invalid command {text} ({})", failure.text));
                continue;
            }
        };
        if sender.send(request).await.is_err() {
            return;
        }
    }
}

fn interactive_line(text: &str) -> Result<Option<WatchRequest>, Failure> {
    let line = Line::parse(&split_words(text))?;
    let Some((name, rest)) = line.words.split_first() else { return Ok(None) };
    match name.as_str() {
        "watch" => {
            line.allow(flags_of("watch", ""))?;
            let line = line.with_words(rest);
            parse(&line).map(|(request, _)| Some(create(request)))
        }
        "progress" => Ok(Some(WatchRequest {
            request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
        })),
        _ => Err(Failure::arguments("only support watch")),
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
    let progress = answer.events.is_empty();
    match session.options.format {
        Format::Json => output::line(watch_json(answer)),
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
        Format::Simple | Format::Table if progress => {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            output::line(format!("progress notify: {revision}"));
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
    let mut process = Command::new(program);
    process
        .args(arguments)
        .env("ETCD_WATCH_REVISION", answer.header.as_ref().map_or(0, |header| header.revision).to_string())
        .env("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes()))
        .env("ETCD_WATCH_KEY", quote(&kv.key))
        .env("ETCD_WATCH_VALUE", quote(&kv.value));
    let ended = tokio::task::spawn_blocking(move || process.status()).await;
    let failed = |reason: String| Failure::error(format!("command {command:?} error ({reason})"));
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(status.to_string())),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_follow_the_range() {
        let words: Vec<String> = "a b --rev=3 -- echo -n".split(' ').map(str::to_owned).collect();
        let (request, command) = parse(&Line::parse(&words).unwrap()).unwrap();
        assert_eq!(
            (&request.key[..], &request.range_end[..], request.start_revision),
            (&b"a"[..], &b"b"[..], 3)
        );
        assert_eq!(command, ["echo", "-n"]);
    }

    #[test]
    fn interactive_lines_are_watch_or_progress() {
        assert!(interactive_line("watch --prefix a").unwrap().is_some());
        assert!(interactive_line("progress").unwrap().is_some());
        assert!(interactive_line("").unwrap().is_none());
        assert!(interactive_line("put a b").is_err());
    }
}
