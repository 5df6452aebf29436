//! What is served, for clients that ask: legacy lists and aggregated discovery, both from the table of kinds.
//!
//! Invariants: both forms tell the same; documents are made when first asked for and then only copied; aggregated
//! discovery has an ETag and answers 304. Not here: schemas (`openapi.rs`).

mod documents;

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::kinds;
use apimachinery::status::Status;
use bytes::Bytes;
use http::header::{ACCEPT, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, VARY};
use http::{Response, StatusCode};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::{ApiServer, Authorized, Body, response};

const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");
const ACCEPTED: &[&str] =
    &["application/json", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"];

/// Documents that have been asked for. The table of kinds is fixed, so there are at most as many as paths.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<HashMap<Key, Arc<Document>>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Aggregated { core: bool },
    Groups,
    Group(&'static str),
    Version(&'static str, &'static str),
}

/// A JSON text and its strong entity tag.
pub(crate) struct Document {
    pub(crate) text: Bytes,
    pub(crate) etag: HeaderValue,
    /// The tag without quotes, for `?hash=`.
    pub(crate) hash: String,
}

impl Document {
    pub(crate) fn new(value: &serde_json::Value) -> Document {
        let text = value.to_string();
        let hash: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
        // Hex digits in quotes are always a valid header; the fallback cannot be reached.
        let etag = HeaderValue::try_from(format!("\"{hash}\"")).unwrap_or(HeaderValue::from_static("\"\""));
        Document { text: text.into(), etag, hash }
    }

    /// The document, or 304 when the client has it.
    pub(crate) fn answer(&self, content_type: HeaderValue, headers: &HeaderMap) -> Response<Body> {
        let known =
            headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|value| {
                value
                    .split(',')
                    .any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == self.etag.as_bytes())
            });
        let mut answer = if known {
            let mut answer = Response::new(response::empty());
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            answer
        } else {
            response::bytes(StatusCode::OK, content_type, self.text.clone())
        };
        answer.headers_mut().insert(ETAG, self.etag.clone());
        answer.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
        answer
    }
}

impl Documents {
    fn get(&self, key: Key, make: impl FnOnce() -> serde_json::Value) -> Arc<Document> {
        self.made.lock().entry(key).or_insert_with(|| Arc::new(Document::new(&make()))).clone()
    }
}

/// Answers `/api...` and `/apis...`; `prefix` is `api` or `apis`, `rest` what follows it.
pub(crate) fn answer(
    server: &ApiServer,
    request: &Authorized,
    prefix: &str,
    rest: &[&str],
) -> Result<Response<Body>, Status> {
    let headers = &request.parts().headers;
    let form = form(headers, rest.is_empty())?;
    let documents = server.discovery();
    let core = prefix == "api";
    if form == Form::Aggregated {
        let document = documents.get(Key::Aggregated { core }, || documents::aggregated(core));
        return Ok(document.answer(AGGREGATED, headers));
    }
    let document = match (core, rest) {
        (true, []) => {
            let config = server.config();
            let address = std::net::SocketAddr::new(config.advertised(), config.secure_port);
            return Ok(response::json(StatusCode::OK, &documents::versions(&address.to_string())));
        }
        (false, []) => documents.get(Key::Groups, documents::groups),
        (true, [version]) => match find_version("", version) {
            Some((group, version)) => version_document(documents, group, version),
            None => return Ok(response::page_not_found()),
        },
        (false, [name]) => match kinds::groups().iter().find(|group| group.name == *name && !name.is_empty())
        {
            Some(group) => documents.get(Key::Group(group.name), || documents::group(group, true)),
            None => return Ok(response::page_not_found()),
        },
        (false, [name, version]) if !name.is_empty() => match find_version(name, version) {
            Some((group, version)) => version_document(documents, group, version),
            None => return Ok(response::page_not_found()),
        },
        _ => return Ok(response::page_not_found()),
    };
    Ok(response::bytes(StatusCode::OK, response::JSON, document.text.clone()))
}

fn version_document(documents: &Documents, group: &'static str, version: &'static str) -> Arc<Document> {
    documents.get(Key::Version(group, version), || documents::resources(group, version))
}

fn find_version(group: &str, version: &str) -> Option<(&'static str, &'static str)> {
    let group = kinds::groups().iter().find(|known| known.name == group)?;
    let version = group.versions.iter().find(|known| **known == version)?;
    Some((group.name, version))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Legacy,
    Aggregated,
}

/// The first form in the client's list that we have. Only `/api` and `/apis` themselves have the aggregated one.
fn form(headers: &HeaderMap, at_root: bool) -> Result<Form, Status> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.trim().is_empty() {
        return Ok(Form::Legacy);
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let parameter = |name: &str| {
            range
                .split(';')
                .skip(1)
                .filter_map(|part| part.trim().split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value)
        };
        let is_json = matches!(media_type, "application/json" | "application/*" | "*/*");
        match parameter("as") {
            None if is_json => return Ok(Form::Legacy),
            Some("APIGroupDiscoveryList")
                if at_root
                    && is_json
                    && parameter("g") == Some("apidiscovery.k8s.io")
                    && parameter("v") == Some("v2") =>
            {
                return Ok(Form::Aggregated);
            }
            _ => {}
        }
    }
    Err(Status::not_acceptable(ACCEPTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, value.parse().unwrap())])
    }

    #[test]
    fn the_first_form_that_we_have_is_taken() {
        let kubectl = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
        let old =
            "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
        for (value, at_root, expected) in [
            (kubectl, true, Form::Aggregated),
            (kubectl, false, Form::Legacy),
            (old, true, Form::Legacy),
            ("*/*", true, Form::Legacy),
            ("application/vnd.kubernetes.protobuf, */*", true, Form::Legacy),
        ] {
            assert_eq!(form(&accept(value), at_root), Ok(expected), "{value}");
        }
        assert_eq!(form(&HeaderMap::new(), true), Ok(Form::Legacy));
        assert_eq!(form(&accept("text/html"), true).unwrap_err().code, 406);
    }

    #[test]
    fn a_client_that_has_the_document_gets_304() {
        let document = Document::new(&serde_json::json!({"a": 1}));
        let fresh = document.answer(AGGREGATED, &HeaderMap::new());
        assert_eq!(fresh.status(), StatusCode::OK);
        let headers = HeaderMap::from_iter([(IF_NONE_MATCH, fresh.headers()[ETAG].clone())]);
        assert_eq!(document.answer(AGGREGATED, &headers).status(), StatusCode::NOT_MODIFIED);
        let other = HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static("\"other\""))]);
        assert_eq!(document.answer(AGGREGATED, &other).status(), StatusCode::OK);
    }
}
