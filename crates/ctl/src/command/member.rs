//! `member list`, `add`, `remove`, `update` and `promote`.

use prost::Message as _;
use wire::etcdserverpb::{
    Member, MemberAddRequest, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberRemoveRequest, MemberUpdateRequest, ResponseHeader,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    fields::Fields,
    flags::{Line, switch, text as text_flag},
    json, output,
    session::{Format, Session},
    table, text,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "member add",
        takes: "<memberName> [options]",
        about: "Adds a member into the cluster",
        detail: "Prints the variables that the new member must be started with.",
        example: "member add m4 --peer-urls=http://10.0.0.4:2380 --learner",
        flags: &[
            switch("learner", "indicates if the new member is raft learner"),
            text_flag("peer-urls", "", "comma separated peer URLs for the new member."),
        ],
        run: Run::Online(|session, line| Box::pin(add(session, line))),
    },
    Command {
        name: "member remove",
        takes: "<memberID>",
        about: "Removes a member from the cluster",
        detail: "",
        example: "member remove 8e9e05c52164694d",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(remove(session, line))),
    },
    Command {
        name: "member update",
        takes: "<memberID> [options]",
        about: "Updates a member in the cluster",
        detail: "",
        example: "member update 8e9e05c52164694d --peer-urls=http://10.0.0.5:2380",
        flags: &[text_flag("peer-urls", "", "comma separated peer URLs for the updated member.")],
        run: Run::Online(|session, line| Box::pin(update(session, line))),
    },
    Command {
        name: "member list",
        takes: "",
        about: "Lists all members in the cluster",
        detail: "When --write-out is set to simple, this command prints out comma-separated member lists for each endpoint.\n\
                 The items in the lists are ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.",
        example: "member list -w table",
        flags: &[text_flag("consistency", "l", "Linearizable(l) or Serializable(s)").values(&["l", "s"])],
        run: Run::Online(|session, line| Box::pin(list(session, line))),
    },
    Command {
        name: "member promote",
        takes: "<memberID>",
        about: "Promotes a non-voting member in the cluster",
        detail: "The learner must have caught up with the leader.",
        example: "member promote 8e9e05c52164694d",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(promote(session, line))),
    },
];

async fn list(session: &Session, line: &Line) -> Result<(), Failure> {
    let [] = line.words_of("member list command does not accept argument")?;
    let linearizable = match line.text("consistency") {
        "l" => true,
        "s" => false,
        other => return Err(Failure::feature(format!("unknown consistency flag {other:?}"))),
    };
    let mut client = session.client.cluster.clone();
    let answer = session.call(client.member_list(session.ask(MemberListRequest { linearizable }))).await?;
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
        Format::Protobuf => output::raw(&answer.encode_to_vec()),
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
        "" => Err(Failure::arguments("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

async fn add(session: &Session, line: &Line) -> Result<(), Failure> {
    let name = match line.words.as_slice() {
        [] => return Err(Failure::arguments("member name not provided")),
        [name] => name,
        words => {
            let urls = words.iter().filter(|word| word.to_lowercase().starts_with("http"));
            let hints: String = urls.map(|url| format!(", did you mean --peer-urls={url}")).collect();
            return Err(Failure::arguments(format!("too many arguments{hints}")));
        }
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

fn id(line: &Line) -> Result<u64, Failure> {
    let [id] = line.words_of("member ID is not provided")?;
    text::parse_u64(id, 16)
        .map_err(|reason| Failure::arguments(format!("bad member ID arg ({reason}), expecting ID in Hex")))
}

/// What `simple` says of a change.
fn said(id: u64, did: &str) -> impl Fn(Option<ResponseHeader>) -> String {
    move |header| format!("Member {id:16x} {did} cluster {:16x}", cluster_id(header.as_ref()))
}

async fn remove(session: &Session, line: &Line) -> Result<(), Failure> {
    let id = id(line)?;
    let mut client = session.client.cluster.clone();
    let asked = client.member_remove(session.ask(MemberRemoveRequest { id }));
    session.say("MemberRemoveResponse", asked, |answer| answer.header, said(id, "removed from")).await
}

async fn promote(session: &Session, line: &Line) -> Result<(), Failure> {
    let id = id(line)?;
    let mut client = session.client.cluster.clone();
    let asked = client.member_promote(session.ask(MemberPromoteRequest { id }));
    session.say("MemberPromoteResponse", asked, |answer| answer.header, said(id, "promoted in")).await
}

async fn update(session: &Session, line: &Line) -> Result<(), Failure> {
    let (id, peer_ur_ls) = (id(line)?, peer_urls(line)?);
    let mut client = session.client.cluster.clone();
    let asked = client.member_update(session.ask(MemberUpdateRequest { id, peer_ur_ls }));
    session.say("MemberUpdateResponse", asked, |answer| answer.header, said(id, "updated in")).await
}

fn cluster_id(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.cluster_id)
}
