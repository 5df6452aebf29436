//! What the client port answers to plain HTTP: health, version, metrics and the JSON gateway.

pub(crate) mod gateway;
mod probes;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::body::Body;

use crate::{
    CLUSTER_VERSION, STORAGE_VERSION, VERSION, context::Own, metrics, serve::Scope, services::Services,
};
use gateway::Gateway;

#[derive(Clone)]
pub(crate) struct HttpService {
    own: Own,
    gateway: Gateway,
}

impl HttpService {
    pub(crate) fn new(own: Own, services: Services) -> HttpService {
        let message_size_bytes_max = own.context.config.request_size_bytes_max * 2;
        let streams_max = own.context.config.concurrent_streams_max;
        HttpService { gateway: Gateway::new(services, message_size_bytes_max, streams_max), own }
    }

    pub(crate) async fn answer(&self, request: Request<Incoming>, scope: Scope) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let get = matches!(*request.method(), Method::GET | Method::HEAD);
        match path.as_str() {
            "/health" | "/livez" | "/readyz" | "/metrics" | "/version" if !get => not_allowed("GET"),
            "/health" => probes::health(&self.own, &query).await,
            "/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                answer(StatusCode::OK, kind, metrics::render(&self.own))
            }
            _ if path == "/livez" || path.starts_with("/livez/") => {
                probes::checks(&self.own, probes::LIVE, "/livez", &path, &query).await
            }
            _ if path == "/readyz" || path.starts_with("/readyz/") => {
                probes::checks(&self.own, probes::READY, "/readyz", &path, &query).await
            }
            _ if scope == Scope::Metrics => not_found(),
            "/version" => self.version(),
            _ if path.starts_with("/v3/") || path.starts_with("/v3beta/") => {
                self.browser(request, &path).await
            }
            _ => not_found(),
        }
    }

    /// The versions of the program and of what the whole cluster can do.
    fn version(&self) -> Response<Body> {
        let cluster = self
            .own
            .handle
            .read(|store, _| store.cluster_version().map_or(CLUSTER_VERSION.to_owned(), str::to_owned));
        let text = format!(
            "{{\"etcdserver\":\"{VERSION}\",\"etcdcluster\":\"{cluster}\",\"storage\":\"{STORAGE_VERSION}\"}}"
        );
        answer(StatusCode::OK, "application/json", text)
    }

    /// The gateway, with the headers that let pages of any origin use it.
    async fn browser(&self, request: Request<Incoming>, path: &str) -> Response<Body> {
        let mut response = match *request.method() {
            Method::OPTIONS => answer(StatusCode::OK, "text/plain", ""),
            Method::POST => self.gateway.answer(path, request).await,
            _ => not_allowed("POST"),
        };
        let headers: &mut HeaderMap = response.headers_mut();
        let allow = |text: &'static str| HeaderValue::from_static(text);
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allow("POST, GET, OPTIONS, PUT, DELETE"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allow("*"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allow("accept, content-type, authorization"));
        response
    }
}

/// An answer with a short body.
fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn not_found() -> Response<Body> {
    answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response =
        answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}
