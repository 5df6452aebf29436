//! API servers on a fake store, and short ways to ask them as somebody.

use std::path::PathBuf;
use std::time::Duration;

use apiserver::{ApiServer, Body, Config, User};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

use crate::fake_etcd::FakeEtcd;

pub(crate) const PODS: &str = "/api/v1/namespaces/default/pods";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";

pub(crate) struct Member {
    pub(crate) api: ApiServer,
    directory: tempfile::TempDir,
    _stop: DropGuard,
}

pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

pub(crate) fn jiang() -> User {
    User::new("jiang", &["dev", "system:authenticated"])
}

pub(crate) fn root() -> User {
    User::new("root", &["system:masters", "system:authenticated"])
}

pub(crate) fn body(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

impl Member {
    pub(crate) async fn start(etcd: &FakeEtcd) -> Member {
        Member::start_with(etcd, Config::default()).await
    }

    /// Audits to a file of its own.
    pub(crate) async fn start_with(etcd: &FakeEtcd, mut config: Config) -> Member {
        let directory = tempfile::tempdir().unwrap();
        config.audit_log_path = Some(directory.path().join("audit.log"));
        let stop = CancellationToken::new();
        let api = apiserver::start(config, etcd.client(), stop.clone()).await.unwrap();
        Member { api, directory, _stop: stop.drop_guard() }
    }

    pub(crate) async fn send(&self, user: &User, request: Request<Body>) -> Answer {
        let response = self.api.local(user.clone()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { code: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) async fn get(&self, user: &User, path: &str) -> Answer {
        self.send(user, Request::get(path).body(body("")).unwrap()).await
    }

    pub(crate) async fn post(&self, user: &User, path: &str, value: &Value) -> Answer {
        let request = Request::post(path).header("content-type", "application/json");
        self.send(user, request.body(body(value.to_string())).unwrap()).await
    }

    pub(crate) async fn delete(&self, user: &User, path: &str) -> Answer {
        self.send(user, Request::delete(path).body(body("")).unwrap()).await
    }

    /// A role in `default` with one rule.
    pub(crate) async fn role(&self, name: &str, group: &str, resource: &str, verbs: &[&str]) {
        let rule = json!({"verbs": verbs, "apiGroups": [group], "resources": [resource]});
        let answer = self
            .post(&root(), &format!("{RBAC}/roles"), &json!({"metadata": {"name": name}, "rules": [rule]}))
            .await;
        assert_eq!(answer.code, 201, "{}", answer.body);
    }

    pub(crate) async fn bind(&self, user: &User, role: &str, to: &str) -> Answer {
        self.post(user, &format!("{RBAC}/rolebindings"), &binding(role, to)).await
    }

    pub(crate) async fn unbind(&self, role: &str) {
        let answer = self.delete(&root(), &format!("{RBAC}/rolebindings/{role}")).await;
        assert_eq!(answer.code, 200, "{}", answer.body);
    }

    /// All audit events, once one of them fits.
    pub(crate) async fn audited(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let path: PathBuf = self.directory.path().join("audit.log");
        for _ in 0..300 {
            let text = std::fs::read_to_string(&path).unwrap();
            let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            if let Some(event) = events.into_iter().find(&fits) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no such audit event in\n{}", std::fs::read_to_string(&path).unwrap())
    }
}

/// A RoleBinding named like its role.
pub(crate) fn binding(role: &str, to: &str) -> Value {
    json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": to}],
    })
}
