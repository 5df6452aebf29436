//! `/health`, `/livez` and `/readyz`: what a load balancer or a kubelet asks.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed, time::Duration};

use http::{Response, StatusCode};
use mvcc::{AlarmKind, KeyRange, RangeQuery};
use tonic::body::Body;

use super::{answer, plain};
use crate::{context::Own, maintenance::alarm_name, status};

/// One thing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    DataCorruption,
    SerializableRead,
    LinearizableRead,
    NonLearner,
}

/// Whether the member should be restarted.
pub(super) const LIVE: &[Check] = &[Check::SerializableRead];
/// Whether the member should get requests.
pub(super) const READY: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::DataCorruption => "data_corruption",
            Check::SerializableRead => "serializable_read",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }

    async fn run(self, own: &Own) -> Result<(), String> {
        match self {
            Check::DataCorruption => {
                let alarms = own.handle.read(|store, _| store.alarms());
                match alarms.iter().any(|alarm| alarm.kind == AlarmKind::Corrupt) {
                    true => Err("alarm activated: CORRUPT".to_owned()),
                    false => Ok(()),
                }
            }
            Check::SerializableRead => read(own, true).await,
            Check::LinearizableRead => read(own, false).await,
            Check::NonLearner => match own.handle.is_learner() {
                true => Err("not supported for learner".to_owned()),
                false => Ok(()),
            },
        }
    }
}

/// Reads one key, as a client would.
async fn read(own: &Own, serializable: bool) -> Result<(), String> {
    let timeout: Duration = own.context.config.request_timeout();
    if !serializable {
        match tokio::time::timeout(timeout, own.context.barrier()).await {
            Ok(Ok(())) => {}
            Ok(Err(status)) => return Err(status.message().to_owned()),
            Err(_) => return Err("context deadline exceeded".to_owned()),
        }
    }
    let mut query = RangeQuery::latest(KeyRange::all());
    query.limit = 1;
    query.keys_only = true;
    let found = own.handle.read(|store, records| store.range(records, &query));
    found.map(drop).map_err(|error| status::range(error).message().to_owned())
}

/// `/health`: alarms, then the leader, then a read.
pub(super) async fn health(own: &Own, query: &str) -> Response<Body> {
    let serializable = values(query, "serializable").any(|value| value == "true");
    let excluded: Vec<&str> = values(query, "exclude").collect();
    let alarms = own.handle.read(|store, _| store.alarms());
    let alarm = alarms.iter().map(|alarm| alarm_name(alarm.kind)).find(|name| !excluded.contains(name));
    let failure = match alarm {
        Some(name) => Some(format!("ALARM {name}")),
        None if !serializable && !own.context.has_leader() => Some("RAFT NO LEADER".to_owned()),
        None => read(own, serializable).await.err().map(|reason| format!("RANGE ERROR:{reason}")),
    };
    let (status, counter) = match failure {
        None => (StatusCode::OK, &own.context.metrics.health_success),
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, &own.context.metrics.health_failures),
    };
    counter.fetch_add(1, Relaxed);
    let health = if failure.is_none() { "true" } else { "false" };
    let is_healthy = failure.is_none();
    let text = serde_json::json!({ "health": health, "reason": failure.unwrap_or_default() });
    match is_healthy {
        // Go guesses this from the body.
        true => answer(status, "text/plain; charset=utf-8", text.to_string()),
        false => plain(status, format!("{text}\n")),
    }
}

/// `/livez`, `/readyz` and one path per check below them. Checks that are excluded are not run and not told, names that
/// are no checks are ignored. etcd tells the checks in random order.
pub(super) async fn checks(
    own: &Own,
    list: &'static [Check],
    root: &str,
    path: &str,
    query: &str,
) -> Response<Body> {
    let one = path.strip_prefix(root).unwrap_or_default().strip_prefix('/');
    let mut wanted =
        list.iter().copied().filter(|check| one.is_none_or(|one| check.name() == one)).peekable();
    if wanted.peek().is_none() {
        return super::not_found();
    }
    // Who names a check wants it.
    let excluded: Vec<&str> = values(query, "exclude").filter(|_| one.is_none()).collect();
    let mut text = String::new();
    let mut failed = false;
    for check in wanted.filter(|check| !excluded.contains(&check.name())) {
        let name = check.name();
        // Writing to a String cannot fail.
        let _ = match check.run(own).await {
            Ok(()) => writeln!(text, "[+]{name} ok"),
            Err(reason) => {
                failed = true;
                writeln!(text, "[-]{name} failed: {reason}")
            }
        };
    }
    if failed {
        text.push('\n');
        return plain(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if !query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")) {
        text.clear();
    }
    text.push_str("ok\n");
    plain(StatusCode::OK, text)
}

/// The values of a query parameter, which may come several times.
fn values<'a>(query: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
    query
        .split('&')
        .filter_map(|part| part.split_once('='))
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| value)
}
