//! `endpoint status`, `endpoint health` and `endpoint hashkv`: each endpoint is asked by itself.
//!
//! An endpoint that does not answer is reported and the others are still asked.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::etcdserverpb::{
    AlarmRequest, HashKvRequest, HashKvResponse, RangeRequest, StatusRequest, StatusResponse,
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
        "status" => status(session, line).await,
        "health" => health(session, line).await,
        "hashkv" => hashkv(session, line).await,
        other => Err(unknown("endpoint", other)),
    }
}

async fn status(session: &Session, line: &Line) -> Result<(), Failure> {
    let mut answers = Vec::new();
    let mut failed = false;
    for endpoint in session.endpoints(line).await? {
        let asked = async {
            let session = session.only(&endpoint).await?;
            let mut client = session.client.maintenance.clone();
            session.call(client.status(session.ask(StatusRequest {}))).await
        };
        match asked.await {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(failure) => {
                failed = true;
                output::error(&format!("Failed to get the status of endpoint {endpoint} ({})", failure.text));
            }
        }
    }
    let rows: Vec<Vec<String>> =
        answers.iter().map(|(endpoint, answer)| status_row(endpoint, answer)).collect();
    match session.options.format {
        Format::Simple => rows.iter().for_each(|row| output::line(row.join(", "))),
        Format::Table => output::raw(table::draw(&STATUS_TITLES, &rows).as_bytes()),
        Format::Json => {
            let items = answers.iter().map(|(endpoint, answer)| {
                let status = json::message("etcdserverpb.StatusResponse", answer);
                format!("{{\"Endpoint\":{},\"Status\":{status}}}", json::string(endpoint))
            });
            output::line(format!("[{}]", items.collect::<Vec<_>>().join(",")));
        }
        Format::Fields => {
            for (endpoint, answer) in &answers {
                output::line(status_fields(endpoint, answer));
            }
        }
    }
    if failed { Err(Failure::error("")) } else { Ok(()) }
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
    match session.options.format {
        Format::Simple => checks.iter().for_each(print_health),
        Format::Json => {
            let items: Vec<String> = checks.iter().map(health_json).collect();
            output::line(format!("[{}]", items.join(",")));
        }
        Format::Fields => {
            for check in &checks {
                let mut fields = Fields::default();
                fields.quoted("Endpoint", &check.endpoint);
                fields.value("Health", check.error.is_empty());
                fields.value("Took", text::duration(check.took));
                fields.value("Error", &check.error);
                output::line(fields.text);
            }
        }
        Format::Table => {
            let rows: Vec<Vec<String>> = checks
                .iter()
                .map(|check| {
                    let healthy = check.error.is_empty().to_string();
                    vec![check.endpoint.clone(), healthy, text::duration(check.took), check.error.clone()]
                })
                .collect();
            output::raw(table::draw(&["endpoint", "health", "took", "error"], &rows).as_bytes());
        }
    }
    match checks.iter().all(|check| check.error.is_empty()) {
        true => Ok(()),
        false => Err(Failure::error("unhealthy cluster")),
    }
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
    let mut answers: Vec<(String, HashKvResponse)> = Vec::new();
    let mut failed = false;
    for endpoint in session.endpoints(line).await? {
        let asked = async {
            let session = session.only(&endpoint).await?;
            let mut client = session.client.maintenance.clone();
            session.call(client.hash_kv(session.ask(HashKvRequest { revision: line.number("rev")? }))).await
        };
        match asked.await {
            Ok(answer) => answers.push((endpoint, answer)),
            Err(failure) => {
                failed = true;
                output::error(&format!("Failed to get the hash of endpoint {endpoint} ({})", failure.text));
            }
        }
    }
    let rows: Vec<Vec<String>> =
        answers.iter().map(|(endpoint, answer)| vec![endpoint.clone(), answer.hash.to_string()]).collect();
    match session.options.format {
        Format::Simple => rows.iter().for_each(|row| output::line(row.join(", "))),
        Format::Table => output::raw(table::draw(&["endpoint", "hash"], &rows).as_bytes()),
        Format::Json => {
            let items = answers.iter().map(|(endpoint, answer)| {
                let hash = json::message("etcdserverpb.HashKVResponse", answer);
                format!("{{\"Endpoint\":{},\"HashKV\":{hash}}}", json::string(endpoint))
            });
            output::line(format!("[{}]", items.collect::<Vec<_>>().join(",")));
        }
        Format::Fields => {
            for (endpoint, answer) in &answers {
                let mut fields = Fields::default();
                fields.header(answer.header.as_ref());
                fields.quoted("Endpoint", endpoint);
                fields.value("Hash", answer.hash);
                output::line(fields.text);
            }
        }
    }
    if failed { Err(Failure::error("")) } else { Ok(()) }
}
