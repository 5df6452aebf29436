//! The audit record: who asked for what, when, and what came of it, as `audit.k8s.io/v1` events.
//!
//! Every request is recorded at level Metadata: `ResponseStarted` for long-running ones, then exactly one of
//! `ResponseComplete` or `Panic`; a 401 is recorded at `ResponseStarted`, as upstream does. Invariants: no bodies, no
//! credentials, no header but User-Agent; a request that its client abandoned is recorded too.
//! Not here: writing lines (`audit/log.rs`); policies (every request is recorded alike).

mod event;
mod log;

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use apimachinery::status::Status;
use bytes::Bytes;
use http::header::HeaderValue;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

use crate::authn::Refusal;
use crate::chain::Origin;
use crate::{Body, BoxError, Config, RequestInfo, StartError, User, metrics};

use event::Stage;
use log::Log;

/// Source: apiserver endpoints/filters/request_received_time.go, audit `maxAuditIDLength`.
const AUDIT_ID_BYTES_MAX: usize = 64;

/// Where events go; `None` when nothing is recorded.
pub(crate) struct Audit {
    log: Option<Log>,
}

/// One request's record while it is being answered. Clones share it.
#[derive(Clone)]
pub(crate) struct Context(Arc<Record>);

/// The record is closed when the last clone goes, if nothing closed it before.
struct Record {
    id: HeaderValue,
    request: event::Request,
    state: Mutex<State>,
    log: Option<Log>,
}

#[derive(Default)]
struct State {
    caller: Option<User>,
    impersonated: Option<User>,
    annotations: BTreeMap<String, String>,
    failure: Option<Status>,
    refusal: Option<String>,
    panicked: bool,
    closed: bool,
}

impl Audit {
    pub(crate) fn open(config: &Config, metrics: metrics::Metrics) -> Result<Audit, StartError> {
        let Some(path) = &config.audit_log_path else { return Ok(Audit { log: None }) };
        let log = Log::open(path, config.audit_drop_when_full, metrics)
            .map_err(|source| StartError::AuditLog { path: path.display().to_string(), source })?;
        Ok(Audit { log: Some(log) })
    }

    pub(crate) fn begin(&self, origin: &Origin, parts: &Parts, info: &RequestInfo) -> Context {
        let id = audit_id(parts);
        let request = match &self.log {
            Some(_) => event::Request::read(origin, parts, info),
            None => event::Request::default(),
        };
        Context(Arc::new(Record { id, request, state: Mutex::default(), log: self.log.clone() }))
    }
}

/// The client's own id when it sent a usable one.
fn audit_id(parts: &Parts) -> HeaderValue {
    let sent = parts.headers.get("audit-id").filter(|value| {
        let bytes = value.as_bytes();
        !bytes.is_empty() && bytes.len() <= AUDIT_ID_BYTES_MAX && bytes.iter().all(u8::is_ascii_graphic)
    });
    match sent {
        Some(value) => value.clone(),
        // A uuid is always a valid header; the fallback cannot be reached.
        None => {
            HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("-"))
        }
    }
}

impl Context {
    pub(crate) fn id_header(&self) -> HeaderValue {
        self.0.id.clone()
    }

    pub(crate) fn annotate(&self, key: &str, value: impl Into<String>) {
        self.0.state.lock().annotations.insert(key.to_string(), value.into());
    }

    pub(crate) fn set_caller(&self, caller: &User) {
        self.0.state.lock().caller = Some(caller.clone());
    }

    pub(crate) fn set_impersonated(&self, user: &User) {
        self.0.state.lock().impersonated = Some(user.clone());
    }

    /// Runs `f` on the identity that the request acts as.
    pub(crate) fn with_caller<T>(&self, f: impl FnOnce(Option<&User>) -> T) -> T {
        let state = self.0.state.lock();
        f(state.impersonated.as_ref().or(state.caller.as_ref()))
    }

    pub(crate) fn set_failure(&self, status: &Status) {
        self.0.state.lock().failure = Some(status.clone());
    }

    pub(crate) fn set_panicked(&self) {
        self.0.state.lock().panicked = true;
    }

    pub(crate) fn set_unauthenticated(&self, refusal: &Refusal) {
        let message = match refusal.attempted.as_slice() {
            [] => "Authentication failed, no credentials provided".to_string(),
            attempted => format!("Authentication failed, attempted: {}", attempted.join(", ")),
        };
        self.0.state.lock().refusal = Some(message);
    }

    /// Records that the answer goes out. A long-running answer is recorded again when its body ends.
    pub(crate) async fn finish(self, answer: Response<Body>, long_running: bool) -> Response<Body> {
        if self.0.log.is_none() {
            return answer;
        }
        let code = answer.status();
        let (is_refused, is_panicked) = {
            let state = self.0.state.lock();
            (state.refusal.is_some(), state.panicked)
        };
        let streams = long_running && code.is_success() && answer.body().size_hint().exact().is_none();
        if streams {
            self.emit(Stage::ResponseStarted, Some(code)).await;
            return answer.map(|inner| AuditedBody { inner, context: self, code }.boxed_unsync());
        }
        let stage = match (is_refused, is_panicked) {
            (true, _) => Stage::ResponseStarted,
            (_, true) => Stage::Panic,
            _ => Stage::ResponseComplete,
        };
        self.0.state.lock().closed = true;
        self.emit(stage, Some(code)).await;
        answer
    }

    async fn emit(&self, stage: Stage, code: Option<StatusCode>) {
        if let Some(log) = &self.0.log {
            log.write(self.0.line(stage, code)).await;
        }
    }
}

impl Record {
    fn line(&self, stage: Stage, code: Option<StatusCode>) -> Vec<u8> {
        event::line(stage, code, self.id.to_str().unwrap_or_default(), &self.request, &self.state.lock())
    }

    /// Closes the record from a place that cannot wait.
    fn close(&self, code: Option<StatusCode>) {
        let Some(log) = &self.log else { return };
        if !std::mem::replace(&mut self.state.lock().closed, true) {
            log.write_now(self.line(Stage::ResponseComplete, code));
        }
    }
}

impl Drop for Record {
    /// The client left before there was an answer.
    fn drop(&mut self) {
        self.close(None);
    }
}

/// A streamed answer; its end, however it comes, closes the record.
struct AuditedBody {
    inner: Body,
    context: Context,
    code: StatusCode,
}

impl http_body::Body for AuditedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.inner).poll_frame(task)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for AuditedBody {
    fn drop(&mut self) {
        self.context.0.close(Some(self.code));
    }
}

#[cfg(test)]
mod tests;
