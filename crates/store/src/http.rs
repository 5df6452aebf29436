//! What the client port answers to plain HTTP: health, version, metrics, the JSON gateway, and what debugging wants.

mod access;
mod debug;
pub(crate) mod gateway;
mod probes;
mod websocket;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tonic::body::Body;

use crate::{
    CLUSTER_VERSION, STORAGE_VERSION, VERSION,
    context::Own,
    metrics,
    serve::{Scope, Secured},
    services::Services,
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

    /// A request on the client port, if page and host may ask.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        secured: &Secured,
        scope: Scope,
    ) -> Response<Body> {
        if scope == Scope::Metrics {
            return self.route(request, scope).await;
        }
        let config = &self.own.context.config;
        let auth_enabled = self.own.context.gate.identify(|users| users.auth_enabled());
        if let Some(refused) = access::refuse(config, &request, secured, auth_enabled) {
            return refused;
        }
        let origin = access::allowed_origin(config, request.headers());
        let mut response = match *request.method() {
            Method::OPTIONS => answer(StatusCode::OK, "text/plain", ""),
            _ => self.route(request, scope).await,
        };
        if let Some(origin) = origin {
            access::allow(origin, response.headers_mut());
        }
        response
    }

    async fn route(&self, request: Request<Incoming>, scope: Scope) -> Response<Body> {
        let path = request.uri().path().to_owned();
        let query = request.uri().query().unwrap_or_default().to_owned();
        let get = *request.method() == Method::GET;
        let is_probe = ["/livez", "/readyz"].iter().any(|root| {
            path.strip_prefix(root).is_some_and(|below| below.is_empty() || below.starts_with('/'))
        });
        match path.as_str() {
            "/health" | "/version" if !get => not_allowed("GET"),
            _ if is_probe && !get => not_allowed("GET"),
            "/health" => probes::health(&self.own, &query).await,
            "/metrics" => {
                let kind = "text/plain; version=0.0.4; charset=utf-8";
                answer(StatusCode::OK, kind, metrics::render(&self.own))
            }
            _ if is_probe && path.starts_with("/livez") => {
                probes::checks(&self.own, probes::LIVE, "/livez", &path, &query).await
            }
            _ if is_probe => probes::checks(&self.own, probes::READY, "/readyz", &path, &query).await,
            _ if scope == Scope::Metrics => not_found(),
            _ if path.starts_with("/debug/") && self.own.context.config.debug => match get {
                true => debug::debug(&self.own, &path),
                false => not_allowed("GET"),
            },
            "/version" => self.version(),
            _ if path.starts_with("/v3/") || path.starts_with("/v3beta/") => {
                if websocket::is_asked_for(&request) {
                    return self.open_websocket(request, &path);
                }
                self.gateway.answer(&path, request).await
            }
            "/v3" | "/v3beta" => moved(&format!("{path}/")),
            _ => not_found(),
        }
    }

    fn open_websocket(&self, request: Request<Incoming>, path: &str) -> Response<Body> {
        let context = &self.own.context;
        // Browsers let every page open one, so the page is judged here.
        let page = request.headers().get(header::ORIGIN).is_some();
        if page && access::allowed_origin(&context.config, request.headers()).is_none() {
            return answer(StatusCode::FORBIDDEN, "text/plain; charset=utf-8", "Forbidden\n");
        }
        websocket::open(&self.gateway, path, request, context.shutdown.clone())
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
}

/// An answer with a short body.
fn answer(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(text.into())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// A text that no browser takes for something else.
fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = answer(status, "text/plain; charset=utf-8", text);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn not_found() -> Response<Body> {
    plain(StatusCode::NOT_FOUND, "404 page not found\n")
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

fn moved(place: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(place) = HeaderValue::from_str(place) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}
