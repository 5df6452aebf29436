//! The JSON of one audit event.
//!
//! Field names and order are `audit.k8s.io/v1` `Event`. Invariant: credentials in the query string are masked.
//! Not here: when an event is due (`audit.rs`).

use apimachinery::status::Status;
use http::StatusCode;
use http::header::USER_AGENT;
use http::request::Parts;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::State;
use crate::chain::Origin;
use crate::{RequestInfo, User};

/// Source: audit `maxUserAgentLength`.
const USER_AGENT_BYTES_MAX: usize = 1024;
const FORWARDED_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        }
    }
}

/// What the request head says, kept until the events are written.
#[derive(Default)]
pub(super) struct Request {
    uri: String,
    verb: String,
    source_ips: Vec<String>,
    user_agent: String,
    object: Option<Value>,
    received: Timestamp,
}

impl Request {
    pub(super) fn read(origin: &Origin, parts: &Parts, info: &RequestInfo) -> Request {
        let agent = parts.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Request {
            uri: masked_uri(parts),
            verb: info.verb.clone(),
            source_ips: source_ips(origin, parts),
            user_agent: cut(agent, USER_AGENT_BYTES_MAX).to_string(),
            object: info.is_resource.then(|| object(info)),
            received: Timestamp::now(),
        }
    }
}

/// One event as one line.
pub(super) fn line(
    stage: Stage,
    code: Option<StatusCode>,
    id: &str,
    request: &Request,
    state: &State,
) -> Vec<u8> {
    let mut event = json!({
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "Metadata",
        "auditID": id,
        "stage": stage.name(),
        "requestURI": request.uri,
        "verb": request.verb,
        "user": state.caller.as_ref().map_or_else(|| json!({}), user),
    });
    let mut put = |name: &str, value: Value| event[name] = value;
    if let Some(impersonated) = &state.impersonated {
        put("impersonatedUser", user(impersonated));
    }
    put("sourceIPs", json!(request.source_ips));
    if !request.user_agent.is_empty() {
        put("userAgent", json!(request.user_agent));
    }
    if let Some(object) = &request.object {
        put("objectRef", object.clone());
    }
    put("responseStatus", response_status(code, state));
    put("requestReceivedTimestamp", json!(micros(request.received)));
    put("stageTimestamp", json!(micros(Timestamp::now())));
    if !state.annotations.is_empty() {
        put("annotations", json!(state.annotations));
    }
    let mut line = event.to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Message, reason and code only: `details` may quote what the caller sent.
fn response_status(code: Option<StatusCode>, state: &State) -> Value {
    let mut status = json!({ "metadata": {} });
    let Some(code) = code else {
        status["message"] = json!("the client left before there was an answer");
        return status;
    };
    let failure: Option<&Status> = state.failure.as_ref().filter(|failure| failure.code == code.as_u16());
    if let Some(failure) = failure {
        let object = failure.to_value();
        for name in ["status", "reason", "message"] {
            if let Some(value) = object.get(name) {
                status[name] = value.clone();
            }
        }
    }
    if let Some(message) = &state.refusal {
        status["message"] = json!(message);
    }
    status["code"] = json!(code.as_u16());
    status
}

fn user(user: &User) -> Value {
    let mut value = Map::new();
    value.insert("username".to_string(), json!(user.name));
    if !user.uid.is_empty() {
        value.insert("uid".to_string(), json!(user.uid));
    }
    if !user.groups.is_empty() {
        value.insert("groups".to_string(), json!(user.groups));
    }
    if !user.extra.is_empty() {
        value.insert("extra".to_string(), json!(user.extra));
    }
    Value::Object(value)
}

fn object(info: &RequestInfo) -> Value {
    let fields = [
        ("resource", &info.resource),
        ("namespace", &info.namespace),
        ("name", &info.name),
        ("apiGroup", &info.api_group),
        ("apiVersion", &info.api_version),
        ("subresource", &info.subresource),
    ];
    fields
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_string(), json!(value)))
        .collect()
}

/// Path and query with the values of credential parameters masked.
fn masked_uri(parts: &Parts) -> String {
    let path = parts.uri.path();
    let Some(query) = parts.uri.query() else { return path.to_string() };
    let mask = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        let is_secret = ["access_token", "token"].iter().any(|secret| name.eq_ignore_ascii_case(secret));
        if is_secret { format!("{name}=***") } else { pair.to_string() }
    };
    format!("{path}?{}", query.split('&').map(mask).collect::<Vec<_>>().join("&"))
}

/// Forwarded addresses as the client's proxies claim them, then the address that really connected.
fn source_ips(origin: &Origin, parts: &Parts) -> Vec<String> {
    let own = match origin {
        Origin::Network { peer, .. } => peer.ip().to_canonical(),
        Origin::InProcess(_) => std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    };
    let forwarded =
        parts.headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut addresses: Vec<String> = forwarded
        .split(',')
        .filter_map(|address| address.trim().parse::<std::net::IpAddr>().ok())
        .take(FORWARDED_MAX)
        .map(|address| address.to_string())
        .collect();
    addresses.push(own.to_string());
    addresses
}

fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// At most `bytes_max` bytes, cut at a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}
