//! What a caller may do, and the proof of it.
//!
//! Invariants: `Authorized` is made here and nowhere else, so no endpoint can run for an unchecked request; a denial
//! is only given after the RBAC index has seen everything that the store had committed when the request came (or
//! `SETTLE_MS_MAX` has passed), so a binding made through one member counts at once on every other.
//! Not here: the RBAC objects (`authz/index.rs`), who the caller is (`authn.rs`).

pub(crate) mod escalation;
mod index;
pub(crate) mod policy;
pub(crate) mod rules;
mod settle;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use apimachinery::status::{GroupResource, Status, quote};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body_util::BodyExt;
use tokio::time::Instant;

use crate::config::AuthorizationMode;
use crate::user::GROUP_MASTERS;
use crate::{ApiServer, Body, BoxError, Config, RequestInfo, User, audit, response};

pub(crate) use index::Index;
use settle::Settle;

/// Source: apiserver server/config.go `MaxRequestBodyBytes`.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;

/// What is asked of the authorizer. Empty means absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub(crate) user: &'a User,
    pub(crate) verb: &'a str,
    pub(crate) is_resource: bool,
    pub(crate) namespace: &'a str,
    pub(crate) api_group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) name: &'a str,
    pub(crate) path: &'a str,
}

/// The text is the reason; it may be empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow(String),
    NoOpinion(String),
}

pub(crate) struct Authorizer {
    modes: Vec<AuthorizationMode>,
    index: Arc<Index>,
    settle: Settle,
}

/// A request that may be executed.
pub(crate) struct Authorized {
    caller: User,
    info: RequestInfo,
    parts: Parts,
    /// Behind a lock only to be `Sync`: bodies are read by one task and are not.
    body: parking_lot::Mutex<Option<Body>>,
    deadline: Option<Instant>,
}

impl<'a> Attributes<'a> {
    pub(crate) fn of_user(user: &'a User) -> Attributes<'a> {
        Attributes {
            user,
            verb: "",
            is_resource: false,
            namespace: "",
            api_group: "",
            resource: "",
            subresource: "",
            name: "",
            path: "",
        }
    }

    pub(crate) fn of_request(user: &'a User, info: &'a RequestInfo) -> Attributes<'a> {
        Attributes {
            user,
            verb: &info.verb,
            is_resource: info.is_resource,
            namespace: &info.namespace,
            api_group: &info.api_group,
            resource: &info.resource,
            subresource: &info.subresource,
            name: &info.name,
            path: &info.path,
        }
    }

    /// The 403 in upstream's words. Source: endpoints/handlers/responsewriters/errors.go.
    pub(crate) fn forbidden(&self, reason: &str) -> Status {
        let mut why = self.denial().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if !reason.is_empty() {
            why = format!("{why}: {reason}");
        }
        Status::forbidden(GroupResource::new(self.api_group, self.resource), self.name, why)
    }

    fn denial(&self) -> String {
        let user = quote(&self.user.name);
        let verb = self.verb;
        if !self.is_resource {
            return format!("User {user} cannot {verb} path {}", quote(self.path));
        }
        let resource = match self.subresource {
            "" => quote(self.resource),
            subresource => quote(&format!("{}/{subresource}", self.resource)),
        };
        let scope = match self.namespace {
            "" => "at the cluster scope".to_string(),
            namespace => format!("in the namespace {}", quote(namespace)),
        };
        format!(
            "User {user} cannot {verb} resource {resource} in API group {} {scope}",
            quote(self.api_group)
        )
    }
}

impl Authorizer {
    pub(crate) fn new(config: &Config) -> Authorizer {
        Authorizer {
            modes: config.authorization_modes.clone(),
            index: Arc::new(Index::default()),
            settle: Settle::default(),
        }
    }

    /// The RBAC index, to be fed.
    pub(crate) fn index(&self) -> Arc<Index> {
        self.index.clone()
    }

    /// The decision on what the index knows now.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.is_in(GROUP_MASTERS) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for mode in &self.modes {
            let decision = match mode {
                AuthorizationMode::AlwaysAllow => Decision::Allow(String::new()),
                AuthorizationMode::AlwaysDeny => Decision::NoOpinion("Everything is forbidden.".to_string()),
                AuthorizationMode::Rbac => self.index.decide(attributes),
            };
            match decision {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                decided => return decided,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }

    /// The decision, where a denial has waited for the index to catch up with the store.
    pub(crate) async fn decide_settled(&self, server: &ApiServer, attributes: &Attributes<'_>) -> Decision {
        let decision = self.decide(attributes);
        if matches!(decision, Decision::Allow(_)) || !self.modes.contains(&AuthorizationMode::Rbac) {
            return decision;
        }
        if self.settle(server).await { self.decide(attributes) } else { decision }
    }

    /// Waits for the index to see all that the store has committed by now; false when that took too long.
    pub(crate) async fn settle(&self, server: &ApiServer) -> bool {
        self.settle.wait(server.registry()).await
    }

    /// All rules that RBAC grants, for `kubectl auth can-i --list`.
    pub(crate) fn rules_for(&self, user: &User, namespace: &str) -> (Vec<rules::Rule>, Vec<String>) {
        if user.is_in(GROUP_MASTERS) || self.modes.contains(&AuthorizationMode::AlwaysAllow) {
            return (rules::Rule::everything().to_vec(), Vec::new());
        }
        self.index.rules_for(user, namespace)
    }

    /// The only way to an `Authorized`.
    #[expect(clippy::too_many_arguments, reason = "the parts of one request, taken apart by the chain only")]
    pub(crate) async fn authorize(
        &self,
        server: &ApiServer,
        caller: User,
        info: RequestInfo,
        parts: Parts,
        body: Body,
        audit: &audit::Context,
        deadline: Option<Instant>,
    ) -> Result<Authorized, Status> {
        let attributes = Attributes::of_request(&caller, &info);
        let decision = self.decide_settled(server, &attributes).await;
        let (allowed, reason) = match &decision {
            Decision::Allow(reason) => (true, reason),
            Decision::NoOpinion(reason) => (false, reason),
        };
        audit.annotate("authorization.k8s.io/decision", if allowed { "allow" } else { "forbid" });
        audit.annotate("authorization.k8s.io/reason", reason.as_str());
        server.metrics().authorized(if allowed { "allowed" } else { "denied" });
        if !allowed {
            return Err(attributes.forbidden(reason));
        }
        Ok(Authorized { caller, info, parts, body: parking_lot::Mutex::new(Some(body)), deadline })
    }
}

impl Authorized {
    pub(crate) fn caller(&self) -> &User {
        &self.caller
    }

    pub(crate) fn info(&self) -> &RequestInfo {
        &self.info
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// `None` for long-running requests.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The whole body, once; a second call gives nothing. At most `BODY_BYTES_MAX`, and within the deadline.
    pub(crate) async fn read_body(&mut self) -> Result<Bytes, Status> {
        let body = self.body.get_mut().take().unwrap_or_else(response::empty);
        let read = collect(body);
        let read = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline, read).await.map_err(|_| {
                Status::timeout("the request body did not arrive within the allotted timeout", 0)
            })?,
            None => read.await,
        };
        match read {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Status::request_entity_too_large(format!("limit is {BODY_BYTES_MAX}"))),
            Err(error) => Err(Status::bad_request(format!("the request body could not be read: {error}"))),
        }
    }
}

/// Frame by frame: the bound on the error type of `Limited` keeps the compiler from seeing that its future is `Send`.
/// None: the body is too large.
async fn collect(mut body: Body) -> Result<Option<Bytes>, BoxError> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        if read.len() + data.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        read.extend_from_slice(&data);
    }
    Ok(Some(read.freeze()))
}
