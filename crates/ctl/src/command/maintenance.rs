//! `alarm`, `defrag`, `move-leader` and `snapshot save`.

use std::{fs::File, io::Write};

use tokio_stream::StreamExt;
use wire::etcdserverpb::{
    AlarmRequest, AlarmType, DefragmentRequest, MoveLeaderRequest, SnapshotRequest, StatusRequest,
    alarm_request::AlarmAction,
};

use super::unknown;
use crate::{failure::Failure, flags::Line, output, session::Session, text};

pub(crate) async fn run(
    session: &Session,
    group: &str,
    subcommand: &str,
    line: &Line,
) -> Result<(), Failure> {
    match (group, subcommand) {
        ("alarm", "list" | "disarm") => alarm(session, subcommand, line).await,
        ("defrag", _) => defragment(session, line).await,
        ("move-leader", _) => move_leader(session, line).await,
        ("snapshot", "save") => snapshot(session, line).await,
        _ => Err(unknown(group, subcommand)),
    }
}

async fn alarm(session: &Session, subcommand: &str, line: &Line) -> Result<(), Failure> {
    if !line.words.is_empty() {
        return Err(Failure::arguments(format!("alarm {subcommand} command accepts no arguments")));
    }
    let mut client = session.client.maintenance.clone();
    let mut request = AlarmRequest::default();
    let mut answer = session.call(client.alarm(session.ask(request))).await?;
    if subcommand == "disarm" && !answer.alarms.is_empty() {
        let raised = std::mem::take(&mut answer.alarms);
        for alarm in raised {
            request.set_action(AlarmAction::Deactivate);
            request.member_id = alarm.member_id;
            request.alarm = alarm.alarm;
            let disarmed = session.call(client.alarm(session.ask(request))).await?;
            answer.header = disarmed.header;
            answer.alarms.extend(disarmed.alarms);
        }
    }
    let name = |kind: i32| {
        AlarmType::try_from(kind).map_or_else(|_| kind.to_string(), |kind| kind.as_str_name().to_owned())
    };
    session.show(
        "AlarmResponse",
        &answer,
        |fields, answer| {
            fields.header(answer.header.as_ref());
            for alarm in &answer.alarms {
                fields.value("MemberID", alarm.member_id);
                fields.value("AlarmType", name(alarm.alarm));
                fields.text.push('\n');
            }
        },
        |answer| {
            for alarm in &answer.alarms {
                output::line(format!("memberID:{} alarm:{} ", alarm.member_id, name(alarm.alarm)));
            }
        },
    )
}

async fn defragment(session: &Session, line: &Line) -> Result<(), Failure> {
    let mut failed = false;
    for endpoint in session.endpoints(line).await? {
        let asked = async {
            let session = session.only(&endpoint).await?;
            let mut client = session.client.maintenance.clone();
            session.call(client.defragment(session.ask(DefragmentRequest {}))).await
        };
        match asked.await {
            Ok(_) => output::line(format!("Finished defragmenting etcd member[{endpoint}]")),
            Err(failure) => {
                failed = true;
                output::error(&format!("Failed to defragment etcd member[{endpoint}] ({})", failure.text));
            }
        }
    }
    if failed { Err(Failure::error("")) } else { Ok(()) }
}

async fn move_leader(session: &Session, line: &Line) -> Result<(), Failure> {
    let [target] = line.words.as_slice() else {
        return Err(Failure::arguments("move-leader command needs 1 argument"));
    };
    let target_id = text::parse_u64(target, 16).map_err(Failure::arguments)?;
    for endpoint in &session.options.endpoints {
        let session = session.only(endpoint).await?;
        let mut client = session.client.maintenance.clone();
        let status = session.call(client.status(session.ask(StatusRequest {}))).await?;
        let member_id = status.header.map_or(0, |header| header.member_id);
        if status.leader != member_id {
            continue;
        }
        let answer = session.call(client.move_leader(session.ask(MoveLeaderRequest { target_id }))).await?;
        return session.show(
            "MoveLeaderResponse",
            &answer,
            |fields, answer| fields.header(answer.header.as_ref()),
            |_| {
                output::line(format!("Leadership transferred from {member_id:x} to {target_id:x}"));
            },
        );
    }
    let endpoints = session.options.endpoints.join(" ");
    Err(Failure::arguments(format!("no leader endpoint given at [{endpoints}]")))
}

/// Writes beside the file and renames at the end, so that a file with the name is always whole.
async fn snapshot(session: &Session, line: &Line) -> Result<(), Failure> {
    let [path] = line.words.as_slice() else {
        return Err(Failure::arguments("snapshot save expects one argument"));
    };
    if session.options.endpoints.len() > 1 {
        return Err(Failure::arguments("snapshot must be requested to one selected node, not multiple"));
    }
    let mut client = session.client.maintenance.clone();
    let mut chunks = session.call(client.snapshot(session.ask(SnapshotRequest {}))).await?;
    let part = format!("{path}.part");
    let written = |error: std::io::Error| Failure::feature(format!("could not write {part}: {error}"));
    let mut file = File::create(&part).map_err(written)?;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => file.write_all(&chunk.blob).map_err(written)?,
            Err(status) => {
                let _ = std::fs::remove_file(&part);
                return Err(session.failed(&status));
            }
        }
    }
    file.sync_all().map_err(written)?;
    std::fs::rename(&part, path)
        .map_err(|error| Failure::feature(format!("could not rename {part} to {path}: {error}")))?;
    output::line(format!("Snapshot saved at {path}"));
    Ok(())
}
