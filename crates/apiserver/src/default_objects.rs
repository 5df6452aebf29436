//! The objects that a cluster has from its first second: namespaces, default roles and bindings.
//!
//! They are made through the same protocol that everybody uses, as `system:apiserver`. Invariants: members may do this
//! at the same time; a store without a quorum is waited for, because a member that ended then would be missing from the
//! quorum itself; what an administrator added to a default object stays, what he removed comes back unless the
//! autoupdate annotation says otherwise. Source: rbac/reconciliation. Not here: what the defaults are (`authz/policy.rs`).

use std::collections::HashMap;
use std::time::Duration;

use apimachinery::Value;
use apimachinery::status::Status;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use crate::authz::policy::{self, AUTOUPDATE, PolicyObject};
use crate::authz::rules::{Rule, uncovered};
use crate::{ApiServer, StartError, User, bootstrap, response};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
const AUTHENTICATION: &str = "extension-apiserver-authentication";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";
/// Requests under way at once: enough to share a few fsyncs.
const CONCURRENT: usize = 32;
const MERGE_PATCH: HeaderValue = HeaderValue::from_static("application/merge-patch+json");
const CONFLICTS_MAX: usize = 5;

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("{method} {path}: {status}")]
    Refused { method: Method, path: String, status: Box<Status> },
    #[error("{method} {path}: {why}")]
    Broken { method: Method, path: String, why: String },
}

/// Between tries while the store does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the objects are not all there.
#[derive(Debug, thiserror::Error)]
enum EnsureError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("service kubernetes: {0}")]
    Service(Status),
}

impl EnsureError {
    /// The store has no quorum, is overloaded, or others do the same just now: what is missing can be made later.
    fn is_transient(&self) -> bool {
        let code = match self {
            EnsureError::Call(CallError::Refused { status, .. }) => status.code,
            EnsureError::Call(CallError::Broken { .. }) => return false,
            EnsureError::Service(status) => status.code,
        };
        matches!(code, 409 | 429 | 500..)
    }
}

/// Creates what is missing and completes what is there; as long as the store does not answer, again and again.
pub(crate) async fn ensure(server: &ApiServer) -> Result<(), StartError> {
    until_done(|| ensure_once(server), server.shutdown()).await
}

async fn until_done(
    mut once: impl AsyncFnMut() -> Result<(), EnsureError>,
    shutdown: &CancellationToken,
) -> Result<(), StartError> {
    loop {
        let error = tokio::select! {
            () = shutdown.cancelled() => return Err(StartError::Stopped),
            done = once() => match done {
                Ok(()) => return Ok(()),
                Err(error) if !error.is_transient() => return Err(StartError::Bootstrap(error.to_string())),
                Err(error) => error,
            },
        };
        warn!(%error, "cannot create the bootstrap objects yet");
        tokio::select! {
            () = shutdown.cancelled() => return Err(StartError::Stopped),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

async fn ensure_once(server: &ApiServer) -> Result<(), EnsureError> {
    let namespaces = NAMESPACES.iter().map(|name| ensure_namespace(server, name));
    run(namespaces).await?;
    let existing = existing_policy(server).await?;
    run(policy::objects().into_iter().map(|wanted| reconcile(server, wanted, &existing))).await?;
    ensure_authentication(server).await?;
    bootstrap::kubernetes_service(server).await.map_err(EnsureError::Service)
}

async fn run(
    work: impl Iterator<Item = impl Future<Output = Result<(), CallError>>>,
) -> Result<(), CallError> {
    stream::iter(work).map(Ok).try_for_each_concurrent(CONCURRENT, |one| one).await
}

async fn ensure_namespace(server: &ApiServer, name: &str) -> Result<(), CallError> {
    let path = "/api/v1/namespaces";
    match call(server, Method::GET, &format!("{path}/{name}"), None).await {
        Err(CallError::Refused { status, .. }) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    tolerate_existing(call(server, Method::POST, path, Some(&namespace)).await)
}

/// Where components read which authority signs client certificates. Source: `extension-apiserver-authentication` of
/// kube-apiserver.
async fn ensure_authentication(server: &ApiServer) -> Result<(), CallError> {
    let collection = "/api/v1/namespaces/kube-system/configmaps";
    let path = format!("{collection}/{AUTHENTICATION}");
    let mut data = json!({});
    if let Some(pem) = server.authenticator().authority_pem() {
        data["client-ca-file"] = json!(pem);
    }
    let wanted = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"},
        "data": data,
    });
    let found = match call(server, Method::GET, &path, None).await {
        Err(CallError::Refused { status, .. }) if status.code == 404 => {
            return tolerate_existing(call(server, Method::POST, collection, Some(&wanted)).await);
        }
        other => other?,
    };
    let is_current =
        data.as_object().is_some_and(|data| data.iter().all(|(key, value)| found["data"][key] == *value));
    if is_current {
        return Ok(());
    }
    // Members whose authorities differ overwrite each other, the last to start stays; upstream does the same.
    let patch = json!({ "data": data });
    call(server, Method::PATCH, &path, Some(&patch)).await.map(drop)
}

/// All RBAC objects by plural, namespace and name.
type Existing = HashMap<(&'static str, String, String), Value>;

async fn existing_policy(server: &ApiServer) -> Result<Existing, CallError> {
    let mut existing = Existing::new();
    for plural in ["clusterroles", "clusterrolebindings", "roles", "rolebindings"] {
        let list = call(server, Method::GET, &format!("{ROLES}/{plural}"), None).await?;
        for item in list["items"].as_array().into_iter().flatten() {
            let text = |name: &str| item["metadata"][name].as_str().unwrap_or_default().to_string();
            existing.insert((plural, text("namespace"), text("name")), item.clone());
        }
    }
    Ok(existing)
}

async fn reconcile(server: &ApiServer, wanted: PolicyObject, existing: &Existing) -> Result<(), CallError> {
    let collection = match wanted.namespace {
        "" => format!("{ROLES}/{}", wanted.plural),
        namespace => format!("{ROLES}/namespaces/{namespace}/{}", wanted.plural),
    };
    let key = (wanted.plural, wanted.namespace.to_string(), wanted.name.to_string());
    let Some(found) = existing.get(&key) else {
        return tolerate_existing(call(server, Method::POST, &collection, Some(&wanted.value)).await);
    };
    let path = format!("{collection}/{}", wanted.name);
    let mut found = found.clone();
    for _ in 0..CONFLICTS_MAX {
        let Some(completed) = completed(&found, &wanted.value) else { return Ok(()) };
        debug!(name = wanted.name, plural = wanted.plural, "completing a default object");
        match call(server, Method::PUT, &path, Some(&completed)).await {
            // Another member may be doing the same.
            Err(CallError::Refused { status, .. }) if status.code == 409 => {
                found = call(server, Method::GET, &path, None).await?;
            }
            other => return other.map(drop),
        }
    }
    Ok(())
}

/// `found` with what it lacks of `wanted`; `None` when it lacks nothing or is not to be touched.
fn completed(found: &Value, wanted: &Value) -> Option<Value> {
    if found["metadata"]["annotations"][AUTOUPDATE] != "true" {
        return None;
    }
    let mut result = found.clone();
    result["apiVersion"] = wanted["apiVersion"].clone();
    result["kind"] = wanted["kind"].clone();
    if let Some(labels) = wanted["metadata"]["labels"].as_object() {
        for (name, value) in labels {
            result["metadata"]["labels"][name] = value.clone();
        }
    }
    if let Some(aggregation) = wanted.get("aggregationRule") {
        result["aggregationRule"] = aggregation.clone();
    } else if wanted.get("rules").is_some() {
        let missing = uncovered(&Rule::read_all(found), &Rule::read_all(wanted));
        let mut rules = found["rules"].as_array().cloned().unwrap_or_default();
        rules.extend(missing.iter().map(Rule::to_value));
        result["rules"] = json!(rules);
    }
    if let Some(subjects) = wanted["subjects"].as_array() {
        let mut all = found["subjects"].as_array().cloned().unwrap_or_default();
        all.extend(subjects.iter().filter(|subject| !found_subject(found, subject)).cloned());
        result["subjects"] = json!(all);
    }
    let unchanged = ["metadata", "aggregationRule", "rules", "subjects"].iter().all(|field| {
        let empty = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value == &json!([]));
        result.get(*field) == found.get(*field) || (empty(result.get(*field)) && empty(found.get(*field)))
    });
    (!unchanged).then_some(result)
}

fn found_subject(found: &Value, wanted: &Value) -> bool {
    let same = |one: &Value| ["kind", "name", "namespace"].iter().all(|field| one[*field] == wanted[*field]);
    found["subjects"].as_array().is_some_and(|subjects| subjects.iter().any(same))
}

fn tolerate_existing(outcome: Result<Value, CallError>) -> Result<(), CallError> {
    match outcome {
        Err(CallError::Refused { status, .. }) if status.code == 409 => Ok(()),
        other => other.map(drop),
    }
}

/// One request to ourselves.
async fn call(
    server: &ApiServer,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, CallError> {
    let broken = |why: String| CallError::Broken { method: method.clone(), path: path.to_string(), why };
    let body_bytes = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method.clone())
        .uri(path)
        .header(CONTENT_TYPE, if method == Method::PATCH { MERGE_PATCH } else { response::JSON })
        .body(response::full(body_bytes))
        .map_err(|error| broken(error.to_string()))?;
    let answer =
        server.local(User::server()).oneshot(request).await.map_err(|error| broken(error.to_string()))?;
    let code = answer.status();
    let bytes = answer.into_body().collect().await.map_err(|error| broken(error.to_string()))?.to_bytes();
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| broken(error.to_string()))?;
    match Status::from_value(&value) {
        _ if code == StatusCode::OK || code == StatusCode::CREATED => Ok(value),
        Some(status) => Err(CallError::Refused { method, path: path.to_string(), status: Box::new(status) }),
        None => Err(broken(format!("status {code}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(verbs: &[&str], autoupdate: &str) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": "x", "labels": {}, "annotations": {AUTOUPDATE: autoupdate}},
            "rules": [{"verbs": verbs, "apiGroups": [""], "resources": ["pods"]}],
        })
    }

    fn answer(code: u16) -> EnsureError {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code});
        let status = Box::new(Status::from_value(&status).unwrap());
        EnsureError::Call(CallError::Refused { method: Method::GET, path: "/x".to_owned(), status })
    }

    /// Found by faults of the network (`faults --workload api --seed 101 --seconds 40`): a member that was started while
    /// the store had no quorum ended, and the store within it.
    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_is_waited_for_and_other_refusals_end_the_start() {
        let shutdown = CancellationToken::new();
        let mut answers =
            vec![Ok(()), Err(answer(409)), Err(answer(503)), Err(answer(504)), Err(answer(500))];
        until_done(async || answers.pop().unwrap(), &shutdown).await.unwrap();
        assert!(answers.is_empty());
        let refused = until_done(async || Err(answer(403)), &shutdown).await;
        assert!(matches!(refused, Err(StartError::Bootstrap(_))), "{refused:?}");
        let stop = async {
            tokio::time::sleep(20 * PAUSE).await;
            shutdown.cancel();
        };
        let (stopped, ()) = tokio::join!(until_done(async || Err(answer(504)), &shutdown), stop);
        assert!(matches!(stopped, Err(StartError::Stopped)), "{stopped:?}");
    }

    #[test]
    fn a_default_role_gets_back_what_it_lacks_and_keeps_what_was_added() {
        let result = completed(&role(&["watch"], "true"), &role(&["get", "watch"], "true")).unwrap();
        let rules = Rule::read_all(&result);
        assert_eq!(rules.len(), 2);
        assert_eq!(
            (rules[0].verbs.as_slice(), rules[1].verbs.as_slice()),
            (&["watch".to_string()][..], &["get".to_string()][..])
        );
    }

    #[test]
    fn a_complete_role_and_one_that_opted_out_are_left_alone() {
        assert_eq!(completed(&role(&["get", "watch"], "true"), &role(&["get"], "true")), None);
        assert_eq!(completed(&role(&[], "false"), &role(&["get"], "true")), None);
    }

    #[test]
    fn a_binding_gets_its_missing_subjects() {
        let binding = |names: &[&str]| {
            let subjects: Vec<Value> =
                names.iter().map(|name| json!({"kind": "Group", "name": name})).collect();
            json!({"metadata": {"annotations": {AUTOUPDATE: "true"}}, "subjects": subjects})
        };
        let result = completed(&binding(&["own"]), &binding(&["system:masters"])).unwrap();
        assert_eq!(result["subjects"].as_array().unwrap().len(), 2);
        assert_eq!(completed(&binding(&["a", "b"]), &binding(&["b"])), None);
    }
}
