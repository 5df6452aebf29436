//! `lease grant`, `revoke`, `timetolive`, `list` and `keep-alive`.

use bytes::Bytes;
use tonic::Response;
use wire::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveResponse, LeaseLeasesRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    fields::Fields,
    flags::{Line, switch},
    held::{self, Life},
    json, output,
    session::{Format, Session},
    text,
};

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "lease grant",
        takes: "<ttl>",
        about: "Creates leases",
        detail: "The time to live is in seconds.",
        example: "lease grant 60",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(grant(session, line))),
    },
    Command {
        name: "lease revoke",
        takes: "<leaseID>",
        about: "Revokes leases",
        detail: "",
        example: "lease revoke 694d81417acd4755",
        flags: &[],
        run: Run::Online(|session, line| Box::pin(revoke(session, line))),
    },
    Command {
        name: "lease timetolive",
        takes: "<leaseID> [options]",
        about: "Get lease information",
        detail: "",
        example: "lease timetolive 694d81417acd4755 --keys",
        flags: &[switch("keys", "Get keys attached to this lease")],
        run: Run::Online(|session, line| Box::pin(time_to_live(session, line))),
    },
    Command {
        name: "lease list",
        takes: "",
        about: "List all active leases",
        detail: "",
        example: "lease list",
        flags: &[],
        run: Run::Online(|session, _line| Box::pin(list(session))),
    },
    Command {
        name: "lease keep-alive",
        takes: "[options] <leaseID>",
        about: "Keeps leases alive (renew)",
        detail: "Renews until the lease ends or the program is stopped; a lost connection is made again while the lease lives.",
        example: "lease keep-alive 694d81417acd4755 --once",
        flags: &[switch("once", "Resets the keep-alive time to its original value and exits immediately")],
        run: Run::Online(|session, line| Box::pin(keep_alive(session, line))),
    },
];

/// How long `keep-alive` looks for a member that knows the lease, in seconds: what etcd's client allows beside the default
/// of `--dial-timeout`.
const FIRST_RENEWAL_S_MAX: i64 = 3;

/// etcdctl prints these answers from its own structs: the header is not nested.
fn flat(header: Option<&ResponseHeader>, rest: &str) -> String {
    let header = json::message("etcdserverpb.ResponseHeader", &header.cloned().unwrap_or_default());
    let header = header.trim_start_matches('{').trim_end_matches('}');
    let comma = if header.is_empty() { "" } else { "," };
    format!("{{{header}{comma}{rest}}}")
}

fn print(session: &Session, fields: Fields, json: String, simple: impl FnOnce()) -> Result<(), Failure> {
    match session.options.format {
        Format::Simple => simple(),
        Format::Json => output::line(json),
        Format::Fields => output::raw(fields.text.as_bytes()),
        other @ (Format::Table | Format::Protobuf) => return Err(other.unsupported()),
    }
    Ok(())
}

fn parse_id(text: &str) -> Result<i64, Failure> {
    text::parse_i64(text, 16)
        .map_err(|reason| Failure::arguments(format!("bad lease ID arg ({reason}), expecting ID in Hex")))
}

async fn grant(session: &Session, line: &Line) -> Result<(), Failure> {
    let [ttl] = line.words_of("lease grant command needs TTL argument")?;
    let ttl = text::parse_i64(ttl, 10).map_err(|reason| Failure::arguments(format!("bad TTL ({reason})")))?;
    let mut client = session.client.lease.clone();
    let answer = session.call(client.lease_grant(session.ask(LeaseGrantRequest { ttl, id: 0 }))).await;
    let answer =
        answer.map_err(|failure| Failure::error(format!("failed to grant lease ({})", failure.text)))?;
    let mut fields = Fields::default();
    fields.header(answer.header.as_ref());
    fields.value("ID", answer.id);
    fields.value("TTL", answer.ttl);
    let error = json::string(&answer.error);
    let json = flat(
        answer.header.as_ref(),
        &format!("\"ID\":{},\"TTL\":{},\"Error\":{error}", answer.id, answer.ttl),
    );
    print(session, fields, json, || {
        output::line(format!("lease {:016x} granted with TTL({}s)", answer.id, answer.ttl));
    })
}

async fn revoke(session: &Session, line: &Line) -> Result<(), Failure> {
    let [id] = line.words_of("lease revoke command needs 1 argument")?;
    let id = parse_id(id)?;
    let mut client = session.client.lease.clone();
    let answer = session.call(client.lease_revoke(session.ask(LeaseRevokeRequest { id }))).await;
    let answer =
        answer.map_err(|failure| Failure::error(format!("failed to revoke lease ({})", failure.text)))?;
    session.show(
        "LeaseRevokeResponse",
        &answer,
        |fields, answer| fields.header(answer.header.as_ref()),
        |_| {
            output::line(format!("lease {id:016x} revoked"));
        },
    )
}

async fn time_to_live(session: &Session, line: &Line) -> Result<(), Failure> {
    let [id] = line.words_of("lease timetolive command needs lease ID as argument")?;
    let (id, keys) = (parse_id(id)?, line.has("keys"));
    let mut client = session.client.lease.clone();
    let request = LeaseTimeToLiveRequest { id, keys };
    let answer = match session.call(client.lease_time_to_live(session.ask(request))).await {
        // Like etcd's client: a lease that is not there has a TTL of -1.
        Err(failure) if failure.text == "etcdserver: requested lease not found" => {
            LeaseTimeToLiveResponse { id, ttl: -1, ..Default::default() }
        }
        other => other?,
    };
    let mut fields = Fields::default();
    fields.header(answer.header.as_ref());
    fields.value("ID", answer.id);
    fields.value("TTL", answer.ttl);
    fields.value("GrantedTTL", answer.granted_ttl);
    answer.keys.iter().for_each(|key| fields.quoted("Key", key));
    let listed: Vec<String> = answer.keys.iter().map(|key| json::string(&json::base64(key))).collect();
    let listed = if listed.is_empty() { "null".to_owned() } else { format!("[{}]", listed.join(",")) };
    let rest = format!(
        "\"id\":{},\"ttl\":{},\"granted-ttl\":{},\"keys\":{listed}",
        answer.id, answer.ttl, answer.granted_ttl
    );
    let json = flat(answer.header.as_ref(), &rest);
    print(session, fields, json, || print_time_to_live(&answer, keys))
}

fn print_time_to_live(answer: &LeaseTimeToLiveResponse, keys: bool) {
    if answer.granted_ttl == 0 && answer.ttl == -1 {
        return output::line(format!("lease {:016x} already expired", answer.id));
    }
    let mut said = format!(
        "lease {:016x} granted with TTL({}s), remaining({}s)",
        answer.id, answer.granted_ttl, answer.ttl
    )
    .into_bytes();
    if keys {
        said.extend_from_slice(b", attached keys([");
        said.extend_from_slice(
            &answer.keys.iter().map(Bytes::as_ref).collect::<Vec<&[u8]>>().join(&b" "[..]),
        );
        said.extend_from_slice(b"])");
    }
    output::line(said);
}

async fn list(session: &Session) -> Result<(), Failure> {
    let mut client = session.client.lease.clone();
    let answer = session.call(client.lease_leases(session.ask(LeaseLeasesRequest {}))).await?;
    let mut fields = Fields::default();
    fields.header(answer.header.as_ref());
    answer.leases.iter().for_each(|lease| fields.value("ID", lease.id));
    let listed: Vec<String> = answer.leases.iter().map(|lease| format!("{{\"id\":{}}}", lease.id)).collect();
    let json = flat(answer.header.as_ref(), &format!("\"leases\":[{}]", listed.join(",")));
    print(session, fields, json, || {
        output::line(format!("found {} leases", answer.leases.len()));
        answer.leases.iter().for_each(|lease| output::line(format!("{:016x}", lease.id)));
    })
}

async fn keep_alive(session: &Session, line: &Line) -> Result<(), Failure> {
    let [id] = line.words_of("lease keep-alive command needs lease ID as argument")?;
    let id = parse_id(id)?;
    if line.has("once") {
        let answer = session.call(async { held::ask(session, id).await.map(Response::new) }).await;
        let answer = answer.map_err(|failure| Failure::connection(failure.text))?;
        return match answer {
            Some(answer) if answer.ttl > 0 => print_renewed(session, &answer),
            Some(_) => Err(Failure::connection("etcdserver: requested lease not found")),
            None => Err(Failure::connection("the stream to the server ended")),
        };
    }
    // How long the lease lives is not known before the first answer.
    let mut life = Life::new(FIRST_RENEWAL_S_MAX);
    loop {
        let answer = life.renew(session, id).await;
        let Some(answer) = answer.map_err(|status| Failure::connection(session.failed(&status).text))? else {
            output::line(format!("lease {id:016x} expired or revoked."));
            return Ok(());
        };
        print_renewed(session, &answer)?;
        tokio::time::sleep(life.ttl / 3).await;
    }
}

fn print_renewed(session: &Session, answer: &LeaseKeepAliveResponse) -> Result<(), Failure> {
    let mut fields = Fields::default();
    fields.header(answer.header.as_ref());
    fields.value("ID", answer.id);
    fields.value("TTL", answer.ttl);
    let json = flat(answer.header.as_ref(), &format!("\"ID\":{},\"TTL\":{}", answer.id, answer.ttl));
    print(session, fields, json, || {
        output::line(format!("lease {:016x} keepalived with TTL({})", answer.id, answer.ttl));
    })
}
