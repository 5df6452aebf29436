//! Kubernetes' API machinery as pure functions over ordered JSON trees: no clock, no I/O, no tasks, no randomness.
//!
//! An object is a `Value::Object` with `apiVersion`, `kind` and `metadata`; there are no typed structs on the request
//! path. Facts about kinds are data (kinds, schema); everything else here interprets them.
//! Not here: HTTP, storage, authorization (crates/apiserver), a client (crates/kubeclient).

pub mod defaults;
pub mod json;
pub mod kinds;
pub mod meta;
pub mod names;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod schema;
pub mod selector;
pub mod status;
pub mod table;
pub mod time;
pub mod validate;
pub mod yaml;

/// An ordered JSON tree: object members keep the order in which they were read.
pub type Value = serde_json::Value;

/// Members of a JSON object, in order.
pub type Object = serde_json::Map<String, Value>;
