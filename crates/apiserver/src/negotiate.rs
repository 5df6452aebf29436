//! Which media type a body has, and in which form the client wants its answer.
//!
//! Rules and texts are upstream's (apiserver `pkg/endpoints/handlers/negotiation`). An unknown `Accept` clause is
//! skipped; when none is left the answer is 406. A missing `Content-Type` is JSON.
//! Not here: turning objects into bytes (render.rs), what a body may contain (endpoints/body.rs).

use apimachinery::status::Status;
use apimachinery::{Value, json, protobuf, schema::Schema, yaml};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};

use crate::request_info::query_value;
use crate::{Body, render};

pub(crate) const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
pub(crate) const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// What `curl -d` claims its body is.
const FORM: &str = "application/x-www-form-urlencoded";
/// What 406 and 415 list.
const MEDIA_TYPES: &[&str] = &[JSON, YAML, PROTOBUF];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// What the client wants instead of the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    /// `meta.k8s.io/<version>` Table.
    Table(&'static str),
    /// `meta.k8s.io/<version>` PartialObjectMetadata, or its list.
    Metadata(&'static str),
}

/// What the `object` of a table row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowObject {
    None,
    Metadata,
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) format: Format,
    pub(crate) shape: Shape,
    pub(crate) row_object: RowObject,
    pub(crate) pretty: bool,
}

/// What an endpoint can answer with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub(crate) protobuf: bool,
    /// Tables and metadata: `Some(true)` for lists.
    pub(crate) shapes: Option<bool>,
}

impl Format {
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Format::Json => JSON,
            Format::Yaml => YAML,
            Format::Protobuf => PROTOBUF,
        }
    }
}

/// Chooses the best `Accept` clause that the endpoint can satisfy.
pub(crate) fn answer(headers: &HeaderMap, query: &str, offer: Offer) -> Result<Answer, Status> {
    let row_object = match query_value(query, "includeObject").as_deref() {
        None | Some("" | "Metadata") => RowObject::Metadata,
        Some("None") => RowObject::None,
        Some("Object") => RowObject::Object,
        Some(other) => {
            return Err(Status::bad_request(format!("unrecognized includeObject value: \"{other}\"")));
        }
    };
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accept = accepts.collect::<Vec<_>>().join(",");
    let (format, shape) = choose(&accept, offer).ok_or_else(|| Status::not_acceptable(MEDIA_TYPES))?;
    Ok(Answer { format, shape, row_object, pretty: format == Format::Json && wants_pretty(headers, query) })
}

fn choose(accept: &str, offer: Offer) -> Option<(Format, Shape)> {
    let mut clauses: Vec<(f32, &str, Option<Shape>)> = Vec::new();
    for clause in accept.split(',').map(str::trim).filter(|clause| !clause.is_empty()) {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let (mut quality, mut target, mut group, mut version) = (1.0_f32, "", "", "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim() {
                "q" => quality = value.trim().parse().unwrap_or(0.0),
                "as" => target = value.trim(),
                "g" => group = value.trim(),
                "v" => version = value.trim(),
                _ => {}
            }
        }
        clauses.push((quality, media_type, shape(target, group, version, offer)));
    }
    if clauses.is_empty() {
        return Some((Format::Json, Shape::Object));
    }
    clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
    clauses.into_iter().find_map(|(quality, media_type, shape)| {
        let shape = shape.filter(|_| quality > 0.0)?;
        match media_type {
            JSON | "*/*" | "application/*" => Some((Format::Json, shape)),
            YAML => Some((Format::Yaml, shape)),
            // A Table has no protobuf form.
            PROTOBUF if offer.protobuf && !matches!(shape, Shape::Table(_)) => {
                Some((Format::Protobuf, shape))
            }
            _ => None,
        }
    })
}

/// None: a form that this endpoint cannot give.
fn shape(target: &str, group: &str, version: &str, offer: Offer) -> Option<Shape> {
    if target.is_empty() {
        return Some(Shape::Object);
    }
    let list = offer.shapes?;
    let version = match version {
        "v1" => "v1",
        "v1beta1" => "v1beta1",
        _ => return None,
    };
    match (group, target, list) {
        ("meta.k8s.io", "Table", _) => Some(Shape::Table(version)),
        ("meta.k8s.io", "PartialObjectMetadata", false) => Some(Shape::Metadata(version)),
        ("meta.k8s.io", "PartialObjectMetadataList", true) => Some(Shape::Metadata(version)),
        _ => None,
    }
}

/// People get indented text: `?pretty`, or by default the tools that people type.
fn wants_pretty(headers: &HeaderMap, query: &str) -> bool {
    if let Some(pretty) = query_value(query, "pretty") {
        return !matches!(pretty.to_ascii_lowercase().as_str(), "false" | "0");
    }
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| agent.starts_with(tool))
}

/// The media type of a body, in lower case and without parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_json = media_type.is_empty() || (media_type == FORM && is_typed_by_hand(headers));
    if is_json { JSON.to_owned() } else { media_type }
}

/// `curl -d @pod.json` names the wrong type, and people mean JSON. A browser is never taken for curl: the form type
/// spares it the preflight that keeps foreign pages from posting with the user's certificate.
fn is_typed_by_hand(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let from_a_page = ["origin", "referer", "sec-fetch-site"].iter().any(|name| headers.contains_key(*name));
    agent.starts_with("curl/") && !from_a_page
}

/// A body as a tree, before its fields are checked, and what was odd about it (duplicate fields).
pub(crate) fn decode(content_type: &str, body: &Bytes) -> Result<(Value, Vec<String>), Status> {
    match content_type {
        JSON => json::decode(body).map_err(|error| unrecognized("json", &error)),
        YAML => yaml::decode(body).map_err(|error| unrecognized("yaml", &error)),
        PROTOBUF => {
            let value =
                protobuf::decode_object(body).map_err(|error| Status::bad_request(error.to_string()))?;
            Ok((value, Vec::new()))
        }
        _ => Err(Status::unsupported_media_type(MEDIA_TYPES)),
    }
}

fn unrecognized(what: &str, error: &dyn std::fmt::Display) -> Status {
    Status::bad_request(format!("couldn't get version/kind; {what} parse error: {error}"))
}

/// The body of a request that is not about a stored object (reviews): unknown fields are dropped.
pub(crate) fn decode_object(type_name: &str, headers: &HeaderMap, body: Bytes) -> Result<Value, Status> {
    let (mut value, _) = decode(&content_type(headers), &body)?;
    json::prune(Schema::builtin(), type_name, &mut value)
        .map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(value)
}

/// An answer that is not a stored object (reviews, scale, delete's Status).
pub(crate) fn encode_object(
    type_name: &str,
    headers: &HeaderMap,
    code: StatusCode,
    value: &Value,
) -> Result<http::Response<Body>, Status> {
    let protobuf = Schema::builtin().type_(type_name).is_some();
    let answer = answer(headers, "", Offer { protobuf, shapes: None })?;
    render::value(&answer, code, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_type_is_json_only_from_curl_itself() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect::<HeaderMap>()
        };
        let form = ("content-type", FORM);
        assert_eq!(content_type(&headers(&[form, ("user-agent", "curl/8.0")])), JSON);
        assert_eq!(content_type(&headers(&[form, ("user-agent", "Mozilla/5.0")])), FORM);
        assert_eq!(
            content_type(&headers(&[form, ("user-agent", "curl/8.0"), ("origin", "https://x")])),
            FORM
        );
        assert_eq!(content_type(&headers(&[form])), FORM);
        assert_eq!(content_type(&headers(&[])), JSON);
    }

    const SINGLE: Offer = Offer { protobuf: true, shapes: Some(false) };
    const LIST: Offer = Offer { protobuf: true, shapes: Some(true) };

    #[test]
    fn accept_headers_of_real_clients_choose_what_they_expect() {
        for (accept, offer, expected) in [
            ("", SINGLE, Some((Format::Json, Shape::Object))),
            ("*/*", SINGLE, Some((Format::Json, Shape::Object))),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                SINGLE,
                Some((Format::Protobuf, Shape::Object)),
            ),
            ("application/vnd.kubernetes.protobuf, */*", LIST, Some((Format::Protobuf, Shape::Object))),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                LIST,
                Some((Format::Json, Shape::Table("v1"))),
            ),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                SINGLE,
                Some((Format::Json, Shape::Table("v1beta1"))),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
                LIST,
                Some((Format::Protobuf, Shape::Metadata("v1"))),
            ),
            ("application/json;q=0.5, application/yaml;q=0.9", SINGLE, Some((Format::Yaml, Shape::Object))),
            ("application/json;as=Unknown;v=v1;g=meta.k8s.io", SINGLE, None),
            ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io", LIST, None),
            ("text/html", SINGLE, None),
            ("application/cbor,application/json", SINGLE, Some((Format::Json, Shape::Object))),
        ] {
            assert_eq!(choose(accept, offer), expected, "{accept}");
        }
    }
}
