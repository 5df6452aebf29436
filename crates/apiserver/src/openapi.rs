//! OpenAPI: the root of version 3, one document per group and version, and an empty version 2 document.
//!
//! Invariants: nothing is made before someone asks; a document is made from the table of kinds once and then copied;
//! a URL with the right `hash` may be cached for ever. kubectl needs a PATCH operation with the group-version-kind and
//! the query parameters `fieldValidation`, `dryRun`, `fieldManager`, `force` for every kind.
//! Not here: descriptions (the table has none); version 2 in full (old clients then skip their own validation).

mod paths;
mod schemas;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::kinds;
use apimachinery::status::Status;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

use crate::discovery::Document;
use crate::request_info::query_value;
use crate::{ApiServer, Authorized, Body, response, version};

const V2_PROTOBUF: HeaderValue =
    HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, immutable");

/// Documents that have been asked for, by path below `/openapi/v3`.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<HashMap<String, Arc<Document>>>,
}

impl Documents {
    /// The document of a group and version that exist.
    fn get(&self, path: &str, group: &str, version: &str) -> Arc<Document> {
        if let Some(document) = self.made.lock().get(path) {
            return document.clone();
        }
        let document = Arc::new(Document::new(&document(group, version)));
        self.made.lock().entry(path.to_string()).or_insert(document).clone()
    }
}

/// Answers `/openapi/...`; `rest` is what follows.
pub(crate) fn answer(
    server: &ApiServer,
    request: &Authorized,
    rest: &[&str],
) -> Result<Response<Body>, Status> {
    let headers = &request.parts().headers;
    match rest {
        ["v2"] => Ok(version_2(headers)),
        ["v3"] => Ok(response::json(StatusCode::OK, &root())),
        ["v3", path @ ..] => {
            let path = path.join("/");
            let Some((group, version)) = group_version(&path) else { return Ok(response::page_not_found()) };
            let document = server.openapi().get(&path, group, version);
            let asked = query_value(request.parts().uri.query().unwrap_or(""), "hash");
            let mut answer = document.answer(response::JSON, headers);
            if asked.is_some_and(|hash| hash == document.hash || hash == root_hash()) {
                answer.headers_mut().insert(CACHE_CONTROL, IMMUTABLE);
            }
            Ok(answer)
        }
        _ => Ok(response::page_not_found()),
    }
}

/// `api/v1` or `apis/<group>/<version>`, of those that are served.
fn group_version(path: &str) -> Option<(&'static str, &'static str)> {
    let (name, version) = match path.strip_prefix("apis/") {
        Some(rest) => rest.split_once('/').filter(|(name, _)| !name.is_empty())?,
        None => ("", path.strip_prefix("api/")?),
    };
    let group = kinds::groups().iter().find(|group| group.name == name)?;
    let version = group.versions.iter().find(|known| **known == version)?;
    Some((group.name, version))
}

fn root() -> Value {
    let hash = root_hash();
    let mut paths = Map::new();
    for group in kinds::groups() {
        for version in group.versions {
            let path = if group.name.is_empty() {
                format!("api/{version}")
            } else {
                format!("apis/{}/{version}", group.name)
            };
            paths.insert(
                path.clone(),
                json!({"serverRelativeURL": format!("/openapi/v3/{path}?hash={hash}")}),
            );
        }
    }
    json!({ "paths": paths })
}

/// All documents follow from the program's own table, so its version stands for their content.
fn root_hash() -> &'static str {
    concat!("binnacle-", env!("CARGO_PKG_VERSION"), "-k8s-1.35.0")
}

/// The document of one group and version.
fn document(group: &str, version: &str) -> Value {
    let mut schemas = schemas::Schemas::default();
    let paths = paths::all(group, version, &mut schemas);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version::GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas.into_value()},
    })
}

/// A document without content, as protobuf for the clients that insist on it.
fn version_2(headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("proto-openapi.spec.v2") {
        return response::bytes(StatusCode::OK, V2_PROTOBUF, version_2_protobuf());
    }
    let document = json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version::GIT_VERSION},
        "paths": {},
    });
    response::json(StatusCode::OK, &document)
}

/// gnostic's `Document`: `swagger` is field 1, `info` (title 1, version 2) field 2, `paths` field 8.
fn version_2_protobuf() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| -> Vec<u8> {
        // All lengths here are far below 128, one byte of varint.
        let length = u8::try_from(bytes.len()).unwrap_or_default();
        [&[number << 3 | 2, length][..], bytes].concat()
    };
    let info = [field(1, b"Kubernetes"), field(2, version::GIT_VERSION.as_bytes())].concat();
    [field(1, b"2.0"), field(2, &info), field(8, b"")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_finds_the_patch_operation_of_every_kind_with_its_parameters() {
        for resource in kinds::resources().iter().filter(|resource| resource.verbs.patch) {
            let document = document(resource.group, resource.version);
            let wanted = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
            let patch = document["paths"]
                .as_object()
                .unwrap()
                .values()
                .filter_map(|path| path.get("patch"))
                .find(|patch| patch["x-kubernetes-group-version-kind"] == wanted)
                .unwrap_or_else(|| panic!("{}", resource.kind));
            let names: Vec<&str> = patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(|parameter| parameter["name"].as_str())
                .collect();
            for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
                assert!(names.contains(&name), "{} {name}", resource.kind);
            }
        }
    }

    #[test]
    fn every_reference_in_a_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(target)) = fields.get("$ref") {
                        found.push(target.clone());
                    }
                    fields.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|value| references(value, found)),
                _ => {}
            }
        }
        for group in kinds::groups() {
            for version in group.versions {
                let document = document(group.name, version);
                let mut found = Vec::new();
                references(&document, &mut found);
                assert!(!found.is_empty(), "{}", group.name);
                for target in found {
                    let name = target.strip_prefix("#/components/schemas/").unwrap();
                    assert!(document["components"]["schemas"].get(name).is_some(), "{target}");
                }
            }
        }
    }

    #[test]
    fn the_root_lists_each_group_and_version_and_its_urls_lead_back() {
        for (path, entry) in root()["paths"].as_object().unwrap() {
            let url = entry["serverRelativeURL"].as_str().unwrap();
            assert!(url.starts_with(&format!("/openapi/v3/{path}?hash=")));
            assert!(group_version(path).is_some(), "{path}");
        }
        for path in ["api/v9", "apis/nonsense/v1", "apis//v1", "apis/apps", "", "api/"] {
            assert!(group_version(path).is_none(), "{path}");
        }
    }

    #[test]
    fn the_empty_version_2_document_is_valid_protobuf_with_its_version() {
        let bytes = version_2_protobuf();
        assert_eq!(&bytes[..5], [0x0a, 3, b'2', b'.', b'0']);
        assert_eq!(bytes[5], 0x12);
        assert_eq!(usize::from(bytes[6]), bytes.len() - 7 - 2, "info ends where paths begin");
        assert_eq!(&bytes[bytes.len() - 2..], [0x42, 0]);
    }
}
