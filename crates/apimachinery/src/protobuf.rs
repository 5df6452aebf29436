//! Kubernetes' protobuf encoding of every built-in type, driven by the table: trees to bytes and back.
//!
//! An object travels in an envelope: `k8s\0`, then `runtime.Unknown` with the object's apiVersion, kind and bytes.
//! Decoding gives the tree that `json::prune` would leave (Go writes zero scalars on the wire and drops them in JSON).
//! Unknown field numbers are skipped, as upstream does; nesting and the number of values are bounded, and no input
//! panics. Not here: custom resources, which have no protobuf form.

mod decode;
mod encode;
mod wire;

pub use decode::{DecodeError, decode};
pub use encode::{EncodeError, encode};

use bytes::Bytes;

use crate::{Object, Value};
use wire::Writer;

/// First bytes of every object in this encoding.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// The wrapper around an object's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Empty if the sender left it to the reader
    pub api_version: String,
    pub kind: String,
    pub raw: Bytes,
    /// Empty means protobuf
    pub content_type: String,
}

/// Schema type of any built-in object, list, option or meta kind: `("apps/v1", "DeploymentList")` gives
/// `apps.v1.DeploymentList`; `DeleteOptions` and its like belong to every group version.
pub fn type_name(api_version: &str, kind: &str) -> Option<&'static str> {
    const EVERYWHERE: &[&str] = &[
        "CreateOptions",
        "DeleteOptions",
        "GetOptions",
        "ListOptions",
        "PatchOptions",
        "Status",
        "UpdateOptions",
        "WatchEvent",
    ];
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let schema = crate::schema::Schema::builtin();
    if EVERYWHERE.contains(&kind) || group == "meta.k8s.io" {
        return schema.name(&format!("meta.v1.{kind}"));
    }
    let package = match group {
        "" => "core",
        "scheduling.binnacle.dev" => "binnacle",
        _ => group.split('.').next().unwrap_or_default(),
    };
    // A custom group may start like a built-in one: only published groups count.
    let published =
        crate::kinds::groups().iter().any(|row| row.name == group && row.versions.contains(&version));
    if !published {
        return None;
    }
    schema.name(&format!("{package}.{version}.{kind}"))
}

/// Opens an envelope without looking at what is in it.
pub fn decode_envelope(bytes: &[u8]) -> Result<Envelope, DecodeError> {
    decode::envelope(bytes)
}

/// Opens an envelope and decodes what is in it, with `apiVersion` and `kind` first.
pub fn decode_object(bytes: &[u8]) -> Result<Value, DecodeError> {
    decode_object_as(bytes, "", "")
}

/// The same; an envelope that names no kind holds the given one.
pub fn decode_object_as(bytes: &[u8], api_version: &str, kind: &str) -> Result<Value, DecodeError> {
    decode::object(bytes, api_version, kind, 0)
}

/// Encodes an object in its envelope; the type is found by the object's `apiVersion` and `kind`.
pub fn encode_object(value: &Value) -> Result<Vec<u8>, EncodeError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let type_name = type_name(api_version, kind).ok_or_else(|| EncodeError::NoSuchKind {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
    })?;
    let raw = encode(type_name, value)?;
    Ok(encode_envelope(api_version, kind, &raw))
}

/// Puts an object's bytes into an envelope.
pub fn encode_envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(MAGIC.len() + raw.len() + api_version.len() + kind.len() + 24);
    out.raw(MAGIC);
    out.message(1, |out| {
        out.bytes(1, api_version.as_bytes());
        out.bytes(2, kind.as_bytes());
    });
    out.bytes(2, raw);
    // Go writes these two even when they are empty.
    out.bytes(3, b"");
    out.bytes(4, b"");
    out.into_bytes()
}

/// A list in its envelope, from items that are encoded already (without envelopes).
pub fn encode_list<'a>(
    api_version: &str,
    kind: &str,
    list_metadata: &Value,
    items: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, EncodeError> {
    let mut out = Writer::with_capacity(256);
    out.bytes(1, &encode("meta.v1.ListMeta", list_metadata)?);
    for item in items {
        out.bytes(2, item);
    }
    Ok(encode_envelope(api_version, kind, &out.into_bytes()))
}

/// One event of a watch stream: a length of four bytes, big-endian, then `WatchEvent` around the object's envelope.
pub fn watch_frame(event_type: &str, object_envelope: &[u8]) -> Vec<u8> {
    let mut out = Writer::with_capacity(object_envelope.len() + event_type.len() + 20);
    out.raw(&[0; 4]);
    out.bytes(1, event_type.as_bytes());
    out.message(2, |out| out.bytes(1, object_envelope));
    let mut frame = out.into_bytes();
    // A frame beyond 4 GiB cannot exist: objects are a few MiB at most.
    let length = u32::try_from(frame.len() - 4).unwrap_or(u32::MAX);
    if let Some(head) = frame.first_chunk_mut::<4>() {
        *head = length.to_be_bytes();
    }
    frame
}

/// Puts `apiVersion` and `kind` in front of an object's members.
fn with_type(api_version: &str, kind: &str, members: Object) -> Value {
    let mut object = Object::new();
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    object.extend(members);
    Value::Object(object)
}

#[cfg(test)]
mod tests;
