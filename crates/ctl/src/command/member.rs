//! `member list`, `add`, `remove`, `update` and `promote`.

use wire::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, ResponseHeader,
};

use super::unknown;
use crate::{
    failure::Failure,
    fields::Fields,
    flags::Line,
    json, output,
    session::{Format, Session},
    table, text,
};

pub(crate) async fn run(session: &Session, subcommand: &str, line: &Line) -> Result<(), Failure> {
    match subcommand {
        "list" => list(session, line).await,
        "add" => add(session, line).await,
        "remove" | "update" | "promote" => change(session, subcommand, line).await,
        other => Err(unknown("member", other)),
    }
}

async fn members(session: &Session) -> Result<MemberListResponse, Failure> {
    let mut client = session.client.cluster.clone();
    session.call(client.member_list(session.ask(MemberListRequest { linearizable: true }))).await
}

async fn list(session: &Session, line: &Line) -> Result<(), Failure> {
    if !line.words.is_empty() {
        return Err(Failure::arguments("member list command does not accept argument"));
    }
    let answer = members(session).await?;
    let rows: Vec<Vec<String>> = answer.members.iter().map(row).collect();
    match session.options.format {
        Format::Simple => rows.iter().for_each(|row| output::line(row.join(", "))),
        Format::Table => {
            let titles = ["ID", "status", "name", "peer addrs", "client addrs", "is learner"];
            output::raw(table::draw(&titles, &rows).as_bytes());
        }
        Format::Json if session.options.hex => output::line(hex_json(&answer)),
        Format::Json => output::line(json::message("etcdserverpb.MemberListResponse", &answer)),
        Format::Fields => output::raw(list_fields(&answer).as_bytes()),
    }
    Ok(())
}

fn row(member: &Member) -> Vec<String> {
    vec![
        format!("{:x}", member.id),
        if member.name.is_empty() { "unstarted" } else { "started" }.to_owned(),
        member.name.clone(),
        member.peer_ur_ls.join(","),
        member.client_ur_ls.join(","),
        member.is_learner.to_string(),
    ]
}

fn list_fields(answer: &MemberListResponse) -> String {
    let mut fields = Fields::default();
    fields.header(answer.header.as_ref());
    for member in &answer.members {
        fields.value("ID", member.id);
        fields.quoted("Name", &member.name);
        member.peer_ur_ls.iter().for_each(|url| fields.quoted("PeerURL", url));
        member.client_ur_ls.iter().for_each(|url| fields.quoted("ClientURL", url));
        fields.value("IsLearner", member.is_learner);
        fields.text.push('\n');
    }
    fields.text
}

/// What `--hex -w json` prints: numbers that are ids become hex strings, and etcdctl's own spelling of `clientURLS`.
fn hex_json(answer: &MemberListResponse) -> String {
    let header = answer.header.unwrap_or_default();
    let urls = |urls: &[String]| urls.iter().map(|url| json::string(url)).collect::<Vec<_>>().join(",");
    let members = answer.members.iter().map(|member| {
        let name = json::string(&member.name);
        let (peers, clients) = (urls(&member.peer_ur_ls), urls(&member.client_ur_ls));
        format!(
            "{{\"ID\":\"{:x}\",\"name\":{name},\"peerURLs\":[{peers}],\"clientURLS\":[{clients}]}}",
            member.id
        )
    });
    let members = members.collect::<Vec<_>>().join(",");
    let ResponseHeader { cluster_id, member_id, raft_term, .. } = header;
    format!(
        "{{\"header\":{{\"cluster_id\":\"{cluster_id:x}\",\"member_id\":\"{member_id:x}\",\"raft_term\":{raft_term}}},\"members\":[{members}]}}"
    )
}

fn peer_urls(line: &Line) -> Result<Vec<String>, Failure> {
    match line.text("peer-urls") {
        None | Some("") => Err(Failure::arguments("member peer urls not provided")),
        Some(urls) => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

async fn add(session: &Session, line: &Line) -> Result<(), Failure> {
    let name = match line.words.as_slice() {
        [] => return Err(Failure::arguments("member name not provided")),
        [name] => name,
        _ => return Err(Failure::arguments("too many arguments")),
    };
    let peer_urls = peer_urls(line)?;
    let mut client = session.client.cluster.clone();
    let request = MemberAddRequest { peer_ur_ls: peer_urls.clone(), is_learner: line.has("learner") };
    let answer = session.call(client.member_add(session.ask(request))).await?;
    let added = answer.member.clone().unwrap_or_default();
    let fields = |fields: &mut Fields| {
        fields.header(answer.header.as_ref());
        fields.value("ID", added.id);
        added.peer_ur_ls.iter().for_each(|url| fields.quoted("PeerURL", url));
    };
    session.show(
        "MemberAddResponse",
        &answer,
        |lines, _| fields(lines),
        |answer| {
            output::line(format!(
                "Member {:16x} added to cluster {:16x}",
                added.id,
                cluster_id(answer.header.as_ref())
            ));
            let mut cluster = Vec::new();
            for member in &answer.members {
                let name = if member.id == added.id { name } else { &member.name };
                cluster.extend(member.peer_ur_ls.iter().map(|url| format!("{name}={url}")));
            }
            output::line("");
            output::line(format!("ETCD_NAME={name:?}"));
            output::line(format!("ETCD_INITIAL_CLUSTER={:?}", cluster.join(",")));
            output::line(format!("ETCD_INITIAL_ADVERTISE_PEER_URLS={:?}", peer_urls.join(",")));
            output::line("ETCD_INITIAL_CLUSTER_STATE=\"existing\"");
        },
    )
}

async fn change(session: &Session, subcommand: &str, line: &Line) -> Result<(), Failure> {
    let [id] = line.words.as_slice() else { return Err(Failure::arguments("member ID is not provided")) };
    let id = text::parse_u64(id, 16)
        .map_err(|reason| Failure::arguments(format!("bad member ID arg ({reason}), expecting ID in Hex")))?;
    let mut client = session.client.cluster.clone();
    let said = |did: &str, header: Option<&ResponseHeader>| {
        output::line(format!("Member {id:16x} {did} cluster {:16x}", cluster_id(header)));
    };
    let header = |fields: &mut Fields, header: Option<&ResponseHeader>| fields.header(header);
    match subcommand {
        "remove" => {
            let answer = session.call(client.member_remove(session.ask(MemberRemoveRequest { id }))).await?;
            session.show(
                "MemberRemoveResponse",
                &answer,
                |f, a| header(f, a.header.as_ref()),
                |a| {
                    said("removed from", a.header.as_ref());
                },
            )
        }
        "promote" => {
            let answer =
                session.call(client.member_promote(session.ask(MemberPromoteRequest { id }))).await?;
            session.show(
                "MemberPromoteResponse",
                &answer,
                |f, a| header(f, a.header.as_ref()),
                |a| {
                    said("promoted in", a.header.as_ref());
                },
            )
        }
        _ => {
            let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls(line)? };
            let answer = session.call(client.member_update(session.ask(request))).await?;
            session.show(
                "MemberUpdateResponse",
                &answer,
                |f, a| header(f, a.header.as_ref()),
                |a| {
                    said("updated in", a.header.as_ref());
                },
            )
        }
    }
}

fn cluster_id(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.cluster_id)
}
