//! `endpoint status`, `endpoint health` and `endpoint hashkv`: each endpoint is asked by itself.
//!
//! An endpoint that does not answer is reported and the others are still asked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::etcdserverpb::{
    AlarmRequest, HashKvRequest, HashKvResponse, RangeRequest, StatusRequest, StatusResponse,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    fields::Fields,
    flags::{Flag, Line, number, switch},
    json, output,
    session::{Format, Session},
    table, text,
};

const CLUSTER: Flag = switch("cluster", "use all endpoints from the cluster member list");

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "endpoint health",
        takes: "",
        about: "Checks the healthiness of endpoints specified in `--endpoints` flag",
        detail: "An endpoint is healthy if it answers a linearizable read in time and no alarm is raised.",
        example: "endpoint health --cluster",
        flags: &[CLUSTER],
        run: Run::Online(|session, line| Box::pin(health(session, line))),
    },
    Command {
        name: "endpoint status",
        takes: "",
        about: "Prints out the status of endpoints specified in `--endpoints` flag",
        detail: "When --write-out is set to simple, this command prints out comma-separated status lists for each endpoint.\n\
                 The items in the lists are endpoint, ID, version, db size, is leader, is learner, raft term, raft index,\n\
                 raft applied index, errors.",
        example: "endpoint status --cluster -w table",
        flags: &[CLUSTER],
        run: Run::Online(|session, line| Box::pin(status(session, line))),
    },
    Command {
        name: "endpoint hashkv",
        takes: "",
        about: "Prints the KV history hash for each endpoint in --endpoints",
        detail: "",
        example: "endpoint hashkv --cluster --rev=1000",
        flags: &[CLUSTER, number("rev", "0", "maximum revision to hash (default: latest revision)")],
        run: Run::Online(|session, line| Box::pin(hashkv(session, line))),
    },
];

/// Asks each endpoint in turn; one that does not answer is reported at once. Then prints the answers. Answers the last
/// failure.
async fn each<T>(
    session: &Session,
    line: &Line,
    asked: &str,
    ask: impl AsyncFn(&Session) -> Result<T, Failure>,
    print: impl Fn(&[(String, T)]) -> Result<(), Failure>,
) -> Result<Option<Failure>, Failure> {
    let mut answers = Vec::new();
    let mut failed = None;
    for endpoint in session.endpoints(line).await? {
        let answer = match session.only(&endpoint).await {
            Ok(session) => ask(&session).await,
            Err(failure) => Err(failure),
        };
        match answer {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(failure) => {
                output::error(&format!(
                    "Failed to get the {asked} of endpoint {endpoint} ({})",
                    failure.text
                ));
                failed = Some(failure);
            }
        }
    }
    print(&answers)?;
    Ok(failed)
}

async fn status(session: &Session, line: &Line) -> Result<(), Failure> {
    let ask = async |session: &Session| {
        let mut client = session.client.maintenance.clone();
        session.call(client.status(session.ask(StatusRequest {}))).await
    };
    let printed = each(session, line, "status", ask, |answers| {
        let rows = || answers.iter().map(|(endpoint, answer)| status_row(endpoint, answer)).collect();
        let json = |(endpoint, answer): &(String, StatusResponse)| {
            let status = json::message("etcdserverpb.StatusResponse", answer);
            format!("{{\"Endpoint\":{},\"Status\":{status}}}", json::string(endpoint))
        };
        let fields = |(endpoint, answer): &(String, StatusResponse)| status_fields(endpoint, answer);
        print_list(session.options.format, &STATUS_TITLES, answers, rows, json, fields)
    });
    // As etcdctl, which says no more than what was said of each endpoint.
    printed.await?.map_or(Ok(()), |failure| Err(Failure::silent(failure.code)))
}

/// Prints one item of a list for each endpoint; no such list is a message of its own, so there is no `protobuf`.
fn print_list<T>(
    format: Format,
    titles: &[&str],
    items: &[T],
    rows: impl Fn() -> Vec<Vec<String>>,
    json: impl Fn(&T) -> String,
    fields: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Simple => rows().iter().for_each(|row| output::line(row.join(", "))),
        Format::Table => output::raw(table::draw(titles, &rows()).as_bytes()),
        Format::Json => {
            output::line(format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")));
        }
        Format::Fields => items.iter().for_each(|item| output::line(fields(item))),
        Format::Protobuf => return Err(Format::Protobuf.unsupported()),
    }
    Ok(())
}

const STATUS_TITLES: [&str; 10] = [
    "endpoint",
    "ID",
    "version",
    "db size",
    "is leader",
    "is learner",
    "raft term",
    "raft index",
    "raft applied index",
    "errors",
];

fn status_row(endpoint: &str, answer: &StatusResponse) -> Vec<String> {
    let header = answer.header.unwrap_or_default();
    vec![
        endpoint.to_owned(),
        format!("{:x}", header.member_id),
        answer.version.clone(),
        text::size(u64::try_from(answer.db_size).unwrap_or(0)),
        (answer.leader == header.member_id).to_string(),
        answer.is_learner.to_string(),
        answer.raft_term.to_string(),
        answer.raft_index.to_string(),
        answer.raft_applied_index.to_string(),
        answer.errors.join(", "),
    ]
}

fn status_fields(endpoint: &str, answer: &StatusResponse) -> String {
    let mut fields = Fields::default();
    fields.header(answer.header.as_ref());
    fields.quoted("Version", &answer.version);
    fields.value("DBSize", answer.db_size);
    fields.value("Leader", answer.leader);
    fields.value("IsLearner", answer.is_learner);
    fields.value("RaftIndex", answer.raft_index);
    fields.value("RaftTerm", answer.raft_term);
    fields.value("RaftAppliedIndex", answer.raft_applied_index);
    let errors: Vec<String> = answer.errors.iter().map(|error| text::quote(error.as_bytes())).collect();
    fields.value("Errors", format!("[{}]", errors.join(" ")));
    fields.quoted("Endpoint", endpoint);
    fields.text
}

struct Health {
    endpoint: String,
    took: Duration,
    /// Empty when healthy.
    error: String,
}

async fn health(session: &Session, line: &Line) -> Result<(), Failure> {
    let endpoints = session.endpoints(line).await?;
    let checks = endpoints.into_iter().map(|endpoint| async move {
        let started = Instant::now();
        let error = check(session, &endpoint).await.err().map(|failure| failure.text).unwrap_or_default();
        Health { endpoint, took: started.elapsed(), error }
    });
    let checks = futures_util::future::join_all(checks).await;
    let healthy = checks.iter().all(|check| check.error.is_empty());
    match session.options.format {
        Format::Simple => checks.iter().for_each(print_health),
        format => {
            let rows = || checks.iter().map(health_row).collect();
            print_list(
                format,
                &["endpoint", "health", "took", "error"],
                &checks,
                rows,
                health_json,
                health_fields,
            )?;
        }
    }
    if healthy { Ok(()) } else { Err(Failure::error("unhealthy cluster")) }
}

fn health_row(check: &Health) -> Vec<String> {
    let healthy = check.error.is_empty().to_string();
    vec![check.endpoint.clone(), healthy, text::duration(check.took), check.error.clone()]
}

fn health_fields(check: &Health) -> String {
    let mut fields = Fields::default();
    fields.quoted("Endpoint", &check.endpoint);
    fields.value("Health", check.error.is_empty());
    fields.value("Took", text::duration(check.took));
    fields.value("Error", &check.error);
    fields.text
}

/// Healthy is who answers a linearizable read (or refuses it for want of permission) and has no alarm.
async fn check(session: &Session, endpoint: &str) -> Result<(), Failure> {
    let session = session.only(endpoint).await?;
    let mut client = session.client.kv.clone();
    let request = RangeRequest { key: Bytes::from_static(b"health"), ..Default::default() };
    match session.call(client.range(session.ask(request))).await {
        Err(failure) if failure.text != "etcdserver: permission denied" => return Err(failure),
        _ => {}
    }
    let mut client = session.client.maintenance.clone();
    let alarms = session.call(client.alarm(session.ask(AlarmRequest::default()))).await;
    let alarms = alarms.map_err(|_| Failure::error("Unable to fetch the alarm list"))?.alarms;
    if alarms.is_empty() {
        return Ok(());
    }
    let names: String = alarms.iter().map(|alarm| alarm.alarm().as_str_name().to_owned() + " ").collect();
    Err(Failure::error(format!("Active Alarm(s): {}", names.trim_end())))
}

fn print_health(check: &Health) {
    let Health { endpoint, took, error } = check;
    if error.is_empty() {
        let took = text::duration(*took);
        output::line(format!("{endpoint} is healthy: successfully committed proposal: took = {took}"));
    } else {
        output::error(&format!("{endpoint} is unhealthy: failed to commit proposal: {error}"));
    }
}

fn health_json(check: &Health) -> String {
    let endpoint = json::string(&check.endpoint);
    let healthy = check.error.is_empty();
    let took = json::string(&text::duration(check.took));
    let error = if healthy { String::new() } else { format!(",\"error\":{}", json::string(&check.error)) };
    format!("{{\"endpoint\":{endpoint},\"health\":{healthy},\"took\":{took}{error}}}")
}

async fn hashkv(session: &Session, line: &Line) -> Result<(), Failure> {
    let revision = line.number("rev");
    let ask = async |session: &Session| {
        let mut client = session.client.maintenance.clone();
        session.call(client.hash_kv(session.ask(HashKvRequest { revision }))).await
    };
    let printed = each(session, line, "hash", ask, |answers| {
        let row =
            |(endpoint, answer): &(String, HashKvResponse)| vec![endpoint.clone(), answer.hash.to_string()];
        let json = |(endpoint, answer): &(String, HashKvResponse)| {
            let hash = json::message("etcdserverpb.HashKVResponse", answer);
            format!("{{\"Endpoint\":{},\"HashKV\":{hash}}}", json::string(endpoint))
        };
        let fields = |(endpoint, answer): &(String, HashKvResponse)| {
            let mut fields = Fields::default();
            fields.header(answer.header.as_ref());
            fields.quoted("Endpoint", endpoint);
            fields.value("Hash", answer.hash);
            fields.text
        };
        let rows = || answers.iter().map(row).collect();
        print_list(session.options.format, &["endpoint", "hash"], answers, rows, json, fields)
    });
    printed.await?.map_or(Ok(()), Err)
}
