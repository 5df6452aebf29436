//! `alarm`, `defrag`, `move-leader` and `downgrade`.
//!
//! Not here: `snapshot save` (save.rs).

use wire::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DowngradeRequest,
    MoveLeaderRequest, StatusRequest, alarm_request::AlarmAction, downgrade_request::DowngradeAction,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Line, switch},
    output,
    progress::Progress,
    session::Session,
    text,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "alarm list",
        takes: "",
        about: "Lists all alarms",
        detail: "",
        example: "alarm list",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(list_alarms(session, line))),
    },
    Command {
        name: "alarm disarm",
        takes: "",
        about: "Disarms all alarms",
        detail: "",
        example: "alarm disarm",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(disarm(session, line))),
    },
    Command {
        name: "defrag",
        takes: "",
        about: "Defragments the storage of the members with given endpoints",
        detail: "One member at a time. A member of etcd rewrites its file and answers no other request meanwhile. One of ours\n\
                 uses freed space again by itself: it makes durable what it has applied, goes on serving and keeps its\n\
                 file as it is. To give all free space back, stop it and run: etcdutl defrag --data-dir",
        example: "defrag --cluster --command-timeout=60s",
        flags: &[switch("cluster", "use all endpoints from the cluster member list")],
        run: Run::Online(|session, line| Box::pin(defragment(session, line))),
    },
    Command {
        name: "move-leader",
        takes: "<transferee-member-id>",
        about: "Transfers leadership to another cluster member.",
        detail: "The leader must be among the endpoints.",
        example: "move-leader 8e9e05c52164694d",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(move_leader(session, line))),
    },
    Command {
        name: "downgrade validate",
        takes: "<TARGET_VERSION>",
        about: "Validate downgrade capability before starting downgrade",
        detail: "",
        example: "downgrade validate 3.5",
        flags: &[],
        run: Run::Online(|session, line| {
            Box::pin(downgrade(session, line, DowngradeAction::Validate, "validate"))
        }),
    },
    Command {
        name: "downgrade enable",
        takes: "<TARGET_VERSION>",
        about: "Start a downgrade action to cluster",
        detail: "",
        example: "downgrade enable 3.5",
        flags: &[],
        run: Run::Online(|session, line| {
            Box::pin(downgrade(session, line, DowngradeAction::Enable, "enable"))
        }),
    },
    Command {
        name: "downgrade cancel",
        takes: "",
        about: "Cancel the ongoing downgrade action to cluster",
        detail: "",
        example: "downgrade cancel",
        flags: &[],
        run: Run::Online(|session, line| {
            Box::pin(downgrade(session, line, DowngradeAction::Cancel, "cancel"))
        }),
    },
];

async fn list_alarms(session: &Session, line: &Line) -> Result<(), Failure> {
    let [] = line.words_of("alarm list command accepts no arguments")?;
    let mut client = session.client.maintenance.clone();
    let answer = session.call(client.alarm(session.ask(AlarmRequest::default()))).await?;
    show_alarms(session, &answer)
}

/// As etcd's client: one request for each alarm, and their answers without a header.
async fn disarm(session: &Session, line: &Line) -> Result<(), Failure> {
    let [] = line.words_of("alarm disarm command accepts no arguments")?;
    let mut client = session.client.maintenance.clone();
    let raised = session.call(client.alarm(session.ask(AlarmRequest::default()))).await?;
    let mut disarmed = AlarmResponse::default();
    for AlarmMember { member_id, alarm } in raised.alarms {
        let request = AlarmRequest { action: AlarmAction::Deactivate.into(), member_id, alarm };
        disarmed.alarms.extend(session.call(client.alarm(session.ask(request))).await?.alarms);
    }
    show_alarms(session, &disarmed)
}

fn show_alarms(session: &Session, answer: &AlarmResponse) -> Result<(), Failure> {
    let name = |kind: i32| {
        AlarmType::try_from(kind).map_or_else(|_| kind.to_string(), |kind| kind.as_str_name().to_owned())
    };
    session.show(
        "AlarmResponse",
        answer,
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
        let waiting = Progress::waiting(&format!("Defragmenting {endpoint}"));
        let asked = async {
            let session = session.only(&endpoint).await?;
            let mut client = session.client.maintenance.clone();
            session.call(client.defragment(session.ask(DefragmentRequest {}))).await
        };
        let answer = asked.await;
        drop(waiting);
        match answer {
            Ok(_) => output::line(format!("Finished defragmenting etcd member[{endpoint}]")),
            Err(failure) => {
                failed = true;
                output::error(&format!("Failed to defragment etcd member[{endpoint}] ({})", failure.text));
            }
        }
    }
    if failed { Err(Failure::silent(1)) } else { Ok(()) }
}

async fn move_leader(session: &Session, line: &Line) -> Result<(), Failure> {
    let [target] = line.words_of("move-leader command needs 1 argument")?;
    let target_id = text::parse_u64(target, 16).map_err(Failure::arguments)?;
    for endpoint in &session.options.endpoints {
        let session = session.only(endpoint).await?;
        let mut client = session.client.maintenance.clone();
        let status = session.call(client.status(session.ask(StatusRequest {}))).await?;
        let member_id = status.header.map_or(0, |header| header.member_id);
        if status.leader != member_id {
            continue;
        }
        let asked = client.move_leader(session.ask(MoveLeaderRequest { target_id }));
        let said = |_| format!("Leadership transferred from {member_id:x} to {target_id:x}");
        return session.say("MoveLeaderResponse", asked, |answer| answer.header, said).await;
    }
    let endpoints = session.options.endpoints.join(" ");
    Err(Failure::arguments(format!("no leader endpoint given at [{endpoints}]")))
}

async fn downgrade(
    session: &Session,
    line: &Line,
    action: DowngradeAction,
    name: &str,
) -> Result<(), Failure> {
    let version = match (action, line.words.as_slice()) {
        (DowngradeAction::Cancel, _) => "",
        (_, []) => return Err(Failure::arguments("TARGET_VERSION not provided")),
        (_, [version]) if version.is_empty() => {
            return Err(Failure::arguments("target version not provided"));
        }
        (_, [version]) => version,
        _ => return Err(Failure::arguments("too many arguments")),
    };
    let request = DowngradeRequest { action: action.into(), version: version.to_owned() };
    let mut client = session.client.maintenance.clone();
    let answer = session.call(client.downgrade(session.ask(request))).await?;
    session.show(
        "DowngradeResponse",
        &answer,
        |fields, answer| {
            fields.header(answer.header.as_ref());
            fields.quoted("Version", &answer.version);
        },
        |answer| output::line(format!("Downgrade {name} success, cluster version {}", answer.version)),
    )
}
