//! One stored version of an object: its tree, its revision, and its encodings, made at most once and shared.
//!
//! Invariants: `metadata.resourceVersion` of the tree is the revision, in decimal. The tree never changes.
//! The JSON text is kept without `kind` and `apiVersion` and without the opening brace, because list items of
//! built-in kinds carry neither, while single objects and watch events carry both: each is one concatenation.
//! Not here: what a client asked for (negotiate.rs), conversion between versions (convert.rs).

use std::sync::{Arc, OnceLock};

use apimachinery::Value;
use apimachinery::{json, meta, protobuf};
use bytes::Bytes;

/// The bytes of a stored value are not an object we can read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("stored value is not JSON: {0}")]
    Json(String),
    #[error("stored value is not a protobuf envelope: {0}")]
    Protobuf(String),
    #[error("stored value is not an object")]
    NotAnObject,
}

#[derive(Debug, thiserror::Error)]
#[error("{type_name} cannot be encoded as protobuf: {reason}")]
pub(crate) struct EncodeError {
    pub(crate) type_name: &'static str,
    pub(crate) reason: String,
}

#[derive(Debug)]
pub(crate) struct Object {
    value: Arc<Value>,
    revision: i64,
    /// Size of the stored text; what the bounded history counts.
    size_bytes: usize,
    json: OnceLock<Bytes>,
    raw_protobuf: OnceLock<Bytes>,
}

impl Object {
    /// Reads what the store holds at `revision`: JSON (what we write) or the `k8s\0` envelope (what upstream's server
    /// writes).
    pub(crate) fn from_stored(revision: i64, stored: &Bytes) -> Result<Object, DecodeError> {
        let value = if stored.starts_with(protobuf::MAGIC) {
            protobuf::decode_object(stored).map_err(|error| DecodeError::Protobuf(error.to_string()))?
        } else {
            let (value, _duplicates) =
                json::decode(stored).map_err(|error| DecodeError::Json(error.to_string()))?;
            value
        };
        if !value.is_object() {
            return Err(DecodeError::NotAnObject);
        }
        Ok(Object::new(value, revision, stored.len()))
    }

    /// `value` as it stands after a write at `revision`.
    pub(crate) fn new(mut value: Value, revision: i64, size_bytes: usize) -> Object {
        meta::of_mut(&mut value).set_resource_version(&revision.to_string());
        Object {
            value: Arc::new(value),
            revision,
            size_bytes,
            json: OnceLock::new(),
            raw_protobuf: OnceLock::new(),
        }
    }

    /// What a dry run would have created: it has no revision.
    pub(crate) fn unsaved(value: Value, size_bytes: usize) -> Object {
        Object {
            value: Arc::new(value),
            revision: 0,
            size_bytes,
            json: OnceLock::new(),
            raw_protobuf: OnceLock::new(),
        }
    }

    /// The same object at a later revision: what a DELETED event carries.
    pub(crate) fn at_revision(&self, revision: i64) -> Object {
        Object::new(Value::clone(&self.value), revision, self.size_bytes)
    }

    pub(crate) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// The store's revision that wrote this version.
    pub(crate) fn revision(&self) -> i64 {
        self.revision
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// `"metadata":{…},…}`: the JSON text after the opening brace, `kind` and `apiVersion`.
    pub(crate) fn json_tail(&self) -> &Bytes {
        self.json.get_or_init(|| Bytes::from(json_tail(&self.value)))
    }

    /// The bare protobuf message, without the envelope.
    pub(crate) fn raw_protobuf(&self, type_name: &'static str) -> Result<&Bytes, EncodeError> {
        if let Some(raw) = self.raw_protobuf.get() {
            return Ok(raw);
        }
        let raw = protobuf::encode(type_name, &self.value)
            .map_err(|error| EncodeError { type_name, reason: error.to_string() })?;
        Ok(self.raw_protobuf.get_or_init(|| Bytes::from(raw)))
    }
}

/// See `Object::json_tail`.
pub(crate) fn json_tail(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    if let Value::Object(fields) = value {
        for (name, field) in fields {
            if name == "kind" || name == "apiVersion" {
                continue;
            }
            if !out.is_empty() {
                out.push(b',');
            }
            write_json(&mut out, &name.as_str());
            out.push(b':');
            write_json(&mut out, field);
        }
    }
    out.push(b'}');
    out
}

/// `{"kind":"Pod","apiVersion":"v1",` (or without the comma's need when nothing follows: a tail of `}` alone).
pub(crate) fn json_head(out: &mut Vec<u8>, kind: &str, api_version: &str, tail: &[u8]) {
    out.extend_from_slice(b"{\"kind\":");
    write_json(out, &kind);
    out.extend_from_slice(b",\"apiVersion\":");
    write_json(out, &api_version);
    if tail != b"}" {
        out.push(b',');
    }
    out.extend_from_slice(tail);
}

/// Serializing a tree of strings, numbers and maps with string keys into memory cannot fail.
fn write_json<T: serde::Serialize>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("a JSON tree serializes into memory");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_text_serves_list_items_and_single_objects() {
        let value =
            serde_json::json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {}});
        let object = Object::new(value, 7, 10);
        assert_eq!(
            object.json_tail().as_ref(),
            br#""metadata":{"name":"a","resourceVersion":"7"},"spec":{}}"#.as_slice()
        );
        let mut whole = Vec::new();
        json_head(&mut whole, "Pod", "v1", object.json_tail());
        let parsed: Value = serde_json::from_slice(&whole).unwrap();
        assert_eq!(&parsed, object.value().as_ref());
    }

    #[test]
    fn an_object_with_nothing_but_its_type_is_still_valid_json() {
        let mut out = Vec::new();
        json_head(&mut out, "Pod", "v1", &json_tail(&serde_json::json!({"kind": "Pod"})));
        assert_eq!(out, br#"{"kind":"Pod","apiVersion":"v1"}"#);
    }
}
