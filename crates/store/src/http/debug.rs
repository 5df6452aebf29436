//! `/debug/...`, which `--enable-pprof` opens: what this member can tell about itself to whoever looks into it.
//!
//! Profiles of Go's runtime do not exist here, and those who ask for them are told where to look instead.

use http::{Response, StatusCode};
use tonic::body::Body;

use super::{answer, not_found};
use crate::{VERSION, context::Own};

const PLAIN: &str = "text/plain; charset=utf-8";

const INDEX: &str = "This store is no Go program and has no pprof profiles.

/debug/vars   Raft's state as JSON, under etcd's names
/metrics      counters and times for Prometheus

perf and other profilers of the system work on the process as it is.
";

pub(super) fn debug(own: &Own, path: &str) -> Response<Body> {
    match path {
        "/debug/vars" => vars(own),
        "/debug/pprof" | "/debug/pprof/" => answer(StatusCode::OK, PLAIN, INDEX),
        _ if path.starts_with("/debug/pprof/") => answer(StatusCode::NOT_IMPLEMENTED, PLAIN, INDEX),
        _ => not_found(),
    }
}

/// Like Go's expvar, with what etcd adds to it.
fn vars(own: &Own) -> Response<Body> {
    let status = own.handle.status();
    let hexadecimal = |id: u64| format!("{id:x}");
    let state = match (status.is_leader, status.is_learner) {
        (true, _) => "StateLeader",
        (false, true) => "StateLearner",
        (false, false) => "StateFollower",
    };
    let vars = serde_json::json!({
        "server.version": VERSION,
        "raft.status": {
            "id": hexadecimal(status.identity.member_id),
            "term": status.term,
            "commit": status.raft_index,
            "applied": status.applied_index,
            "lead": hexadecimal(status.leader.unwrap_or_default()),
            "raftState": state,
        },
    });
    answer(StatusCode::OK, "application/json; charset=utf-8", vars.to_string())
}
