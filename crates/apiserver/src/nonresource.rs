//! Everything that is answered without the registry: paths outside the API, discovery, documents, reviews, 404s.
//!
//! Invariant: it takes an `Authorized` like every endpoint. Not here: objects (`endpoints.rs`).

use apimachinery::kinds;
use apimachinery::status::Status;
use http::header::HeaderValue;
use http::{Method, Response, StatusCode};
use serde_json::json;

use crate::{ApiServer, Authorized, Body, discovery, health, openapi, response, reviews, version};

/// Paths that `/` lists, besides those of the API groups.
const PATHS: &[&str] =
    &["/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"];

/// True for requests that are not about stored objects.
pub(crate) fn answers(request: &Authorized) -> bool {
    let info = request.info();
    !info.is_resource
        || kinds::find(&info.api_group, &info.api_version, &info.resource)
            .is_none_or(|resource| resource.strategy.review)
}

pub(crate) async fn dispatch(server: &ApiServer, request: Authorized) -> Result<Response<Body>, Status> {
    let info = request.info();
    if info.is_resource {
        return match kinds::find(&info.api_group, &info.api_version, &info.resource) {
            Some(resource) => reviews::dispatch(server, resource, request).await,
            None => Err(Status::no_such_resource()),
        };
    }
    if !matches!(request.parts().method, Method::GET | Method::HEAD) {
        return Err(Status::http_method_not_allowed());
    }
    let path = info.path.clone();
    let trimmed = path.trim_matches('/');
    let parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
    match parts.as_slice() {
        [] => Ok(response::json(StatusCode::OK, &root())),
        ["version"] => Ok(response::json(StatusCode::OK, &version::info())),
        ["metrics"] => Ok(metrics(server)),
        ["healthz" | "livez" | "readyz", ..] => {
            health::answer(server, &request).await.unwrap_or_else(|| Ok(response::page_not_found()))
        }
        ["api" | "apis", rest @ ..] => discovery::answer(server, &request, parts[0], rest),
        ["openapi", rest @ ..] => openapi::answer(server, &request, rest),
        _ => Ok(response::page_not_found()),
    }
}

/// What `/` lists.
fn root() -> serde_json::Value {
    let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_string()).collect();
    for group in kinds::groups() {
        let prefix = if group.name.is_empty() { "/api".to_string() } else { format!("/apis/{}", group.name) };
        paths.push(prefix.clone());
        paths.extend(group.versions.iter().map(|version| format!("{prefix}/{version}")));
    }
    paths.push("/apis".to_string());
    paths.sort();
    json!({ "paths": paths })
}

fn metrics(server: &ApiServer) -> Response<Body> {
    let (text, content_type) = server.metrics().render();
    let content_type =
        HeaderValue::try_from(content_type).unwrap_or(HeaderValue::from_static("text/plain; version=0.0.4"));
    response::bytes(StatusCode::OK, content_type, text)
}
