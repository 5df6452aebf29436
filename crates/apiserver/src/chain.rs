//! The one function that every request runs through, in execution order.
//!
//! panic recovery → request info → deadline (long-running exempt) → CORS → authentication (else audited 401) → audit →
//! impersonation → flow control → authorization → endpoint. Invariants: the body is unread until `Authorized` exists;
//! every answer carries an audit id and is audited exactly once per stage, also when the handler panics or the client
//! leaves. Requests in flight at shutdown are waited for by the connections that carry them (`server.rs`).

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use apimachinery::status::Status;
use futures_util::FutureExt;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, Version};
use http_body::Body as _;
use rustls_pki_types::CertificateDer;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::authn::x509::PeerCertificates;
use crate::request_info::{self, PathError, RequestInfo};
use crate::{
    ApiServer, Body, User, audit, compression, cors, endpoints, fairness, flags, impersonation, nonresource,
};
use crate::{metrics, response};

/// Where a request came from. Made once per connection.
pub(crate) enum Origin {
    Network {
        peer: SocketAddr,
        certificates: PeerCertificates,
        /// Cancelled to end the connection in peace.
        leave: CancellationToken,
    },
    /// Another part of this process; its identity is not up for proof.
    InProcess(User),
}

impl Origin {
    pub(crate) fn network(
        peer: SocketAddr,
        certificates: Vec<CertificateDer<'static>>,
        leave: CancellationToken,
    ) -> Origin {
        Origin::Network { peer, certificates: PeerCertificates::new(certificates), leave }
    }
}

/// Answers one request, whatever happens.
pub(crate) async fn handle(server: &ApiServer, origin: &Origin, request: Request<Body>) -> Response<Body> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let head = Head::read(&parts);
    let parsed = request_info::parse(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or(""));
    let (info, refused) = match parsed {
        Ok(info) => (info, None),
        Err(error) => (unreadable(&parts), Some(path_status(&error))),
    };
    let audit = server.audit().begin(origin, &parts, &info);
    let cors = server.cors().allowed(&parts);
    let preflight = if cors.is_some() { cors::preflight(&parts) } else { None };
    let scope = metrics::Scope::of(&info, &parts);
    let inflight = server.metrics().request_started(&scope, is_long_running(&info));
    let mut answer = match (refused, preflight) {
        (Some(status), _) => response::status(&status),
        (None, Some(preflight)) => preflight,
        (None, None) => answer(server, origin, parts, info.clone(), body, &audit).await,
    };
    drop(inflight);
    server.metrics().request_finished(&scope, answer.status(), started.elapsed());
    if let Some(origin) = cors {
        cors::mark(&mut answer, &origin);
    }
    head.finish(&mut answer, &audit);
    head.spread(server, origin);
    if head.is_head {
        return without_body(audit.finish(answer, is_long_running(&info)).await);
    }
    audit.finish(compression::gzip(answer, head.accepts_gzip), is_long_running(&info)).await
}

/// Catches panics and enforces the deadline around `checked`.
async fn answer(
    server: &ApiServer,
    origin: &Origin,
    parts: Parts,
    info: RequestInfo,
    body: Body,
    audit: &audit::Context,
) -> Response<Body> {
    let deadline = match deadline(server, &parts, &info) {
        Ok(deadline) => deadline,
        Err(status) => return response::status(&status),
    };
    let uri = parts.uri.path().to_string();
    let checked = checked(server, origin, parts, info, body, audit, deadline);
    let bounded = async {
        match deadline {
            None => checked.await,
            Some(deadline) => tokio::time::timeout_at(deadline, checked).await.unwrap_or_else(|_| {
                Err(Status::timeout("request did not complete within the allotted timeout", 0))
            }),
        }
    };
    match AssertUnwindSafe(bounded).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(status)) => {
            audit.set_failure(&status);
            response::status(&status)
        }
        Err(panic) => {
            error!(%uri, panic = panic_text(&*panic), "request handler panicked");
            server.metrics().panicked();
            audit.set_panicked();
            response::status(&Status::internal(
                "apiserver panic'd; this is a bug of the server, the request may have taken effect",
            ))
        }
    }
}

/// The order of these lines is the order in which a request is judged; their types allow no other.
async fn checked(
    server: &ApiServer,
    origin: &Origin,
    mut parts: Parts,
    info: RequestInfo,
    body: Body,
    audit: &audit::Context,
    deadline: Option<Instant>,
) -> Result<Response<Body>, Status> {
    let caller = server.authenticator().authenticate(origin, &parts).map_err(|refusal| {
        server.metrics().authentication_failed();
        audit.set_unauthenticated(&refusal);
        Status::unauthorized()
    })?;
    audit.set_caller(&caller);
    let caller = impersonation::apply(server, caller, &mut parts, audit).await?;
    let _seat = server.fairness().seat(&caller, &info, is_long_running(&info))?;
    let request = server.authorizer().authorize(server, caller, info, parts, body, audit, deadline).await?;
    // `/watch/` in a path makes any method a watch; only GET is one.
    if request.info().verb == "watch" && request.parts().method != Method::GET {
        return Err(Status::http_method_not_allowed());
    }
    if nonresource::answers(&request) {
        return nonresource::dispatch(server, request).await;
    }
    endpoints::dispatch(server, request).await
}

/// Requests that may last as long as the client likes.
pub(crate) fn is_long_running(info: &RequestInfo) -> bool {
    info.is_resource
        && (matches!(info.verb.as_str(), "watch" | "proxy")
            || matches!(info.subresource.as_str(), "attach" | "exec" | "proxy" | "log" | "portforward"))
}

/// The server's deadline, or the client's `?timeout=` when that is shorter.
fn deadline(server: &ApiServer, parts: &Parts, info: &RequestInfo) -> Result<Option<Instant>, Status> {
    if is_long_running(info) {
        return Ok(None);
    }
    let longest = server.config().request_timeout;
    let asked = request_info::query_value(parts.uri.query().unwrap_or(""), "timeout").unwrap_or_default();
    let timeout = match asked.as_str() {
        "" => longest,
        text => match flags::go_duration(text) {
            Ok(Duration::ZERO) => longest,
            Ok(timeout) => timeout.min(longest),
            Err(why) => {
                return Err(Status::bad_request(format!(
                    "invalid timeout specified in the request URL - {why}"
                )));
            }
        },
    };
    Ok(Some(Instant::now() + timeout))
}

/// What of the request head the answer depends on, kept past the request.
struct Head {
    is_head: bool,
    is_http2: bool,
    accepts_gzip: bool,
}

impl Head {
    fn read(parts: &Parts) -> Head {
        Head {
            is_head: parts.method == Method::HEAD,
            is_http2: parts.version == Version::HTTP_2,
            accepts_gzip: compression::accepts_gzip(&parts.headers),
        }
    }

    /// The headers that every answer has.
    fn finish(&self, answer: &mut Response<Body>, audit: &audit::Context) {
        let headers = answer.headers_mut();
        headers.insert("audit-id", audit.id_header());
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
        let level = audit.with_caller(fairness::level);
        headers.insert("x-kubernetes-pf-flowschema-uid", HeaderValue::from_static(level.flow_schema_uid()));
        headers.insert(
            "x-kubernetes-pf-prioritylevel-uid",
            HeaderValue::from_static(level.priority_level_uid()),
        );
    }

    /// Now and then ends an HTTP/2 connection in peace: the client reconnects, perhaps to another member.
    fn spread(&self, server: &ApiServer, origin: &Origin) {
        let Origin::Network { leave, .. } = origin else { return };
        let chance = server.config().goaway_chance;
        if self.is_http2 && chance > 0.0 && rand::random::<f64>() < chance {
            leave.cancel();
        }
    }
}

/// An info that names no resource, for a path that cannot be read.
fn unreadable(parts: &Parts) -> RequestInfo {
    RequestInfo {
        path: parts.uri.path().to_string(),
        verb: parts.method.as_str().to_ascii_lowercase(),
        ..RequestInfo::default()
    }
}

fn path_status(error: &PathError) -> Status {
    match error {
        PathError::Escape => Status::bad_request(error.to_string()),
        PathError::Incomplete(_) => Status::internal(format!("failed to create RequestInfo: {error}")),
    }
}

/// HEAD gets the headers of GET, with the length that the body would have had.
fn without_body(answer: Response<Body>) -> Response<Body> {
    let (mut parts, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Response::from_parts(parts, response::empty())
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}
