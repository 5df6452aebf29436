//! `/healthz`, `/livez`, `/readyz`: the checks, `?verbose`, `?exclude=`, and one path per check.
//!
//! Invariant: an answer names each failed check but keeps the reason for the log. Not here: the store's own health.

use std::time::Duration;

use apimachinery::status::Status;
use http::{Response, StatusCode};
use tokio::sync::watch;
use tracing::warn;

use crate::request_info::query_pairs;
use crate::{ApiServer, Authorized, Body, response};

/// Source: kube-apiserver `--etcd-healthcheck-timeout`.
const STORE_TIMEOUT: Duration = Duration::from_secs(2);

/// How far the server's life has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Started,
    Stopping,
}

pub(crate) struct Health {
    phase: watch::Sender<Phase>,
}

impl Default for Health {
    fn default() -> Health {
        Health { phase: watch::Sender::new(Phase::Starting) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    Ping,
    Log,
    Store,
    FeedSynced,
    DefaultObjects,
    Shutdown,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Ping => "ping",
            Check::Log => "log",
            Check::Store => "etcd",
            Check::FeedSynced => "informer-sync",
            Check::DefaultObjects => "poststarthook/rbac/bootstrap-roles",
            Check::Shutdown => "shutdown",
        }
    }
}

const HEALTHZ: &[Check] = &[Check::Ping, Check::Log, Check::Store, Check::DefaultObjects];
const LIVEZ: &[Check] = HEALTHZ;
const READYZ: &[Check] =
    &[Check::Ping, Check::Log, Check::Store, Check::FeedSynced, Check::DefaultObjects, Check::Shutdown];

impl Health {
    pub(crate) fn set_started(&self) {
        self.phase.send_if_modified(|phase| {
            let starting = *phase == Phase::Starting;
            if starting {
                *phase = Phase::Started;
            }
            starting
        });
    }

    pub(crate) fn set_stopping(&self) {
        self.phase.send_replace(Phase::Stopping);
    }

    /// Waits for the end of the start; also ends when the server stops first.
    pub(crate) async fn started(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.phase.subscribe().wait_for(|phase| *phase != Phase::Starting).await;
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }
}

/// Answers `/healthz`, `/livez`, `/readyz` and `/<endpoint>/<check>`; `None` for any other path.
pub(crate) async fn answer(
    server: &ApiServer,
    request: &Authorized,
) -> Option<Result<Response<Body>, Status>> {
    let (endpoint, check) = split(&request.info().path)?;
    let checks = match endpoint {
        "healthz" => HEALTHZ,
        "livez" => LIVEZ,
        "readyz" => READYZ,
        _ => return None,
    };
    if !check.is_empty() {
        let check = checks.iter().find(|known| known.name() == check)?;
        return Some(Ok(match run(server, *check).await {
            Ok(()) => response::text(StatusCode::OK, "ok"),
            Err(why) => {
                warn!(check = check.name(), why, "health check failed");
                response::text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}\n"))
            }
        }));
    }
    let query = request.parts().uri.query().unwrap_or("");
    Some(Ok(all(server, endpoint, checks, query).await))
}

fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_once('/').unwrap_or((path, "")))
}

async fn all(server: &ApiServer, endpoint: &str, checks: &[Check], query: &str) -> Response<Body> {
    let verbose = query_pairs(query).any(|(name, _)| name == "verbose");
    let mut excluded: Vec<String> =
        query_pairs(query).filter(|(name, _)| name == "exclude").map(|(_, value)| value).collect();
    let mut lines = String::new();
    let mut failed = Vec::new();
    for check in checks {
        let name = check.name();
        if let Some(index) = excluded.iter().position(|other| other == name) {
            excluded.swap_remove(index);
            lines.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match run(server, *check).await {
            Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                warn!(check = name, why, "health check failed");
                lines.push_str(&format!("[-]{name} failed: reason withheld\n"));
                failed.push(name);
            }
        }
    }
    if !excluded.is_empty() {
        let names: Vec<String> = excluded.iter().map(|name| format!("{name:?}")).collect();
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            names.join(",")
        ));
    }
    match (failed.is_empty(), verbose) {
        (false, _) => {
            let text = format!("{lines}{endpoint} check failed\n");
            response::text(StatusCode::INTERNAL_SERVER_ERROR, text)
        }
        (true, true) => response::text(StatusCode::OK, format!("{lines}{endpoint} check passed\n")),
        (true, false) => response::text(StatusCode::OK, "ok"),
    }
}

async fn run(server: &ApiServer, check: Check) -> Result<(), String> {
    let phase = server.health().phase();
    match check {
        // Answering at all is the proof.
        Check::Ping | Check::Log | Check::FeedSynced => Ok(()),
        Check::Store => tokio::time::timeout(STORE_TIMEOUT, server.registry().healthy())
            .await
            .unwrap_or_else(|_| Err("the store did not answer in time".to_string())),
        Check::DefaultObjects if phase == Phase::Starting => Err("not finished".to_string()),
        Check::Shutdown if phase == Phase::Stopping => Err("process is shutting down".to_string()),
        Check::DefaultObjects | Check::Shutdown => Ok(()),
    }
}
