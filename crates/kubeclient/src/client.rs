//! Sends one request and reads its answer.
//!
//! A request has a deadline. An answer with `Retry-After` is retried a few times; nothing else is retried here, so
//! that a write is never carried out twice. Not here: paths of resources (api.rs), watch streams (watch.rs).

use std::sync::Arc;
use std::time::Duration;

use apimachinery::status::Status;
use bytes::Bytes;
use futures_util::TryFutureExt;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT, WARNING};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};

use crate::api::Api;
use crate::transport::Transport;
use crate::{Body, BoxError, Error, Value, full_body};

/// How long a request other than a watch may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Retries of an answer that asks for them by `Retry-After`.
const RETRIES_MAX: u32 = 5;
const RETRY_AFTER_S_MAX: u64 = 10;
const JSON: &str = "application/json";

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Transport,
    user_agent: HeaderValue,
    timeout: Duration,
}

/// A request before it meets the transport.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Option<(&'static str, Bytes)>,
}

impl Client {
    /// `user_agent` up to the first `/` is the field manager that the server records.
    pub fn new(transport: Transport, user_agent: &str) -> Client {
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("binnacle"));
        Client { transport, user_agent, timeout: REQUEST_TIMEOUT }
    }

    pub fn with_timeout(mut self, timeout: Duration) -> Client {
        self.timeout = timeout;
        self
    }

    /// The resource in all namespaces; group is empty for the core group.
    pub fn api(&self, group: &str, version: &str, plural: &str) -> Api {
        Api::new(self.clone(), group, version, plural)
    }

    /// The resource of an object's `apiVersion` and a plural, for example from an owner reference.
    pub fn api_of(&self, api_version: &str, plural: &str) -> Api {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.api(group, version, plural)
    }

    /// Any path, for example `/version` or `/healthz`: the body as it came.
    pub async fn get_raw(&self, path: &str) -> Result<Bytes, Error> {
        let call = Call { method: Method::GET, path: path.to_owned(), body: None };
        self.within_deadline(call).await.map(|(_, body)| body)
    }

    /// Any path with JSON in and out.
    pub async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        let body = body.map(|value| (JSON, Bytes::from(value.to_string())));
        self.json(Call { method, path: path.to_owned(), body }).await
    }

    pub(crate) async fn json(&self, call: Call) -> Result<Value, Error> {
        let (method, path) = (call.method.clone(), call.path.clone());
        let (_, body) = self.within_deadline(call).await?;
        serde_json::from_slice(&body).map_err(|error| Error::Answer {
            method: method.to_string(),
            path,
            detail: error.to_string(),
        })
    }

    async fn within_deadline(&self, call: Call) -> Result<(StatusCode, Bytes), Error> {
        match tokio::time::timeout(self.timeout, self.with_retries(&call)).await {
            Ok(result) => result,
            Err(_) => Err(self.too_slow(&call)),
        }
    }

    fn too_slow(&self, call: &Call) -> Error {
        self.avoid_current_server();
        let source = format!("no answer within {:?}", self.timeout).into();
        Error::broken(&call.method, &call.path, source)
    }

    /// Later requests go to the next server, if there are several.
    pub(crate) fn avoid_current_server(&self) {
        self.transport.avoid_current();
    }

    async fn with_retries(&self, call: &Call) -> Result<(StatusCode, Bytes), Error> {
        let mut retries = 0;
        loop {
            let response = self.send(call).await?;
            let wait = retry_after(response.status(), response.headers());
            let (parts, body) = response.into_parts();
            let body = read(body, &call.method, &call.path).await?;
            if parts.status.is_success() {
                return Ok((parts.status, body));
            }
            match wait {
                Some(wait) if retries < RETRIES_MAX => {
                    retries += 1;
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(Error::Status(error_status(parts.status, &call.method, &body))),
            }
        }
    }

    /// The answer as it comes, for streams; an error answer becomes an error.
    pub(crate) async fn stream(&self, call: &Call) -> Result<Body, Error> {
        let answer = tokio::time::timeout(self.timeout, self.send(call));
        let response = match answer.await {
            Ok(result) => result?,
            Err(_) => return Err(self.too_slow(call)),
        };
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return Ok(body);
        }
        let body = read(body, &call.method, &call.path).await?;
        Err(Error::Status(error_status(parts.status, &call.method, &body)))
    }

    async fn send(&self, call: &Call) -> Result<Response<Body>, Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.path.as_str())
            .header(ACCEPT, JSON)
            .header(USER_AGENT, self.user_agent.clone());
        if let Some((media_type, _)) = &call.body {
            request = request.header(CONTENT_TYPE, *media_type);
        }
        let body = call.body.as_ref().map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let request = request.body(full_body(body)).map_err(|error| Error::Request(error.to_string()))?;
        let response = self.transport.send(request).await;
        let response = response.map_err(|error| Error::from_transport(error, &call.method, &call.path))?;
        for warning in response.headers().get_all(WARNING) {
            tracing::warn!(path = %call.path, warning = ?warning, "the server warns");
        }
        Ok(response)
    }
}

async fn read(body: Body, method: &Method, path: &str) -> Result<Bytes, Error> {
    collect(body).await.map_err(|error| Error::broken(method, path, error))
}

/// Boxed for the same reason as `Transport::send`.
fn collect(body: Body) -> BoxFuture<'static, Result<Bytes, BoxError>> {
    Box::pin(Limited::new(body, ANSWER_BYTES_MAX).collect().map_ok(|collected| collected.to_bytes()))
}

fn error_status(code: StatusCode, method: &Method, body: &[u8]) -> Status {
    let parsed = serde_json::from_slice(body).ok().and_then(|value| Status::from_value(&value));
    parsed.unwrap_or_else(|| {
        Status::from_http(code.as_u16(), method.as_str(), String::from_utf8_lossy(body).trim())
    })
}

/// The wait that a 429 or 5xx answer asks for.
fn retry_after(code: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    if code != StatusCode::TOO_MANY_REQUESTS && !code.is_server_error() {
        return None;
    }
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds.min(RETRY_AFTER_S_MAX)))
}

/// Shared by handles to one resource.
pub(crate) type SharedText = Arc<str>;
