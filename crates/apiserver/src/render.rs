//! Objects, lists, tables and metadata as bytes, and the HTTP answer around them.
//!
//! Invariant: the text of an object is taken from its shared encodings; nothing here serializes a stored object twice.
//! Not here: what to answer (endpoints), the choice of form (negotiate.rs), gzip (compression.rs).

use std::sync::Arc;

use apimachinery::kinds::Resource;
use apimachinery::status::Status;
use apimachinery::{Value, protobuf, table, yaml};
use bytes::Bytes;
use http::header::{HeaderValue, WARNING};
use http::{Response, StatusCode};
use serde_json::json;

use crate::Body;
use crate::negotiate::{Answer, Format, RowObject, Shape};
use crate::object::{Object, json_head, json_tail};

/// The metadata of a list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListMeta {
    pub(crate) revision: i64,
    pub(crate) continue_token: String,
    pub(crate) remaining: Option<i64>,
}

impl ListMeta {
    fn to_value(&self) -> Value {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            metadata["continue"] = json!(self.continue_token);
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = json!(remaining);
        }
        metadata
    }
}

/// One stored object.
pub(crate) fn object(
    answer: &Answer,
    code: StatusCode,
    resource: &'static Resource,
    object: &Object,
) -> Result<Response<Body>, Status> {
    let bytes = match answer.shape {
        Shape::Object => object_bytes(answer, resource, object)?,
        Shape::Table(version) => {
            let rows = [row(answer, resource, object, version, now_s())];
            let metadata = json!({"resourceVersion": object.revision().to_string()});
            value_bytes(answer, &table_value(Some(resource), version, metadata, rows.to_vec()))?
        }
        Shape::Metadata(version) => value_bytes(answer, &metadata_value(object.value(), version))?,
    };
    Ok(response(answer, code, bytes))
}

/// A list of stored objects.
pub(crate) fn list(
    answer: &Answer,
    resource: &'static Resource,
    list_meta: &ListMeta,
    items: &[Arc<Object>],
) -> Result<Response<Body>, Status> {
    let bytes = match answer.shape {
        Shape::Object => list_bytes(answer, resource, list_meta, items)?,
        Shape::Table(version) => {
            let now_s = now_s();
            let rows = items.iter().map(|object| row(answer, resource, object, version, now_s)).collect();
            value_bytes(answer, &table_value(Some(resource), version, list_meta.to_value(), rows))?
        }
        Shape::Metadata(version) => {
            let items: Vec<Value> =
                items.iter().map(|object| metadata_value(object.value(), version)).collect();
            let list = json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": list_meta.to_value(), "items": items,
            });
            value_bytes(answer, &list)?
        }
    };
    Ok(response(answer, StatusCode::OK, bytes))
}

/// A tree that is not a stored object.
pub(crate) fn value(answer: &Answer, code: StatusCode, value: &Value) -> Result<Response<Body>, Status> {
    Ok(response(answer, code, value_bytes(answer, value)?))
}

pub(crate) fn object_bytes(
    answer: &Answer,
    resource: &'static Resource,
    object: &Object,
) -> Result<Bytes, Status> {
    match answer.format {
        Format::Json if !answer.pretty => {
            let tail = object.json_tail();
            let mut out = Vec::with_capacity(tail.len() + 64);
            json_head(&mut out, resource.kind, &resource.api_version(), tail);
            Ok(Bytes::from(out))
        }
        Format::Json | Format::Yaml => value_bytes(answer, &typed(resource, object.value())),
        Format::Protobuf => {
            let raw = object.raw_protobuf(resource.type_name).map_err(Status::internal)?;
            Ok(Bytes::from(protobuf::encode_envelope(&resource.api_version(), resource.kind, raw)))
        }
    }
}

fn list_bytes(
    answer: &Answer,
    resource: &'static Resource,
    list_meta: &ListMeta,
    items: &[Arc<Object>],
) -> Result<Bytes, Status> {
    let metadata = list_meta.to_value();
    let api_version = resource.api_version();
    match answer.format {
        Format::Json if !answer.pretty => {
            let size_bytes: usize = items.iter().map(|object| object.json_tail().len() + 2).sum();
            let mut out = Vec::with_capacity(size_bytes + 256);
            json_head(&mut out, resource.list_kind, &api_version, b"}");
            out.pop();
            out.extend_from_slice(b",\"metadata\":");
            out.extend_from_slice(metadata.to_string().as_bytes());
            out.extend_from_slice(b",\"items\":[");
            for (index, object) in items.iter().enumerate() {
                out.extend_from_slice(if index == 0 { b"{" } else { b",{" });
                out.extend_from_slice(object.json_tail());
            }
            out.extend_from_slice(b"]}");
            Ok(Bytes::from(out))
        }
        Format::Json | Format::Yaml => {
            let items: Vec<Value> = items.iter().map(|object| untyped(object.value())).collect();
            let list = json!({
                "kind": resource.list_kind, "apiVersion": api_version, "metadata": metadata, "items": items,
            });
            value_bytes(answer, &list)
        }
        Format::Protobuf => {
            let mut raw = Vec::with_capacity(items.len());
            for object in items {
                raw.push(object.raw_protobuf(resource.type_name).map_err(Status::internal)?.clone());
            }
            let raw = raw.iter().map(Bytes::as_ref);
            let list = protobuf::encode_list(&api_version, resource.list_kind, &metadata, raw);
            Ok(Bytes::from(list.map_err(Status::internal)?))
        }
    }
}

pub(crate) fn value_bytes(answer: &Answer, value: &Value) -> Result<Bytes, Status> {
    match answer.format {
        Format::Json if answer.pretty => {
            let mut out = serde_json::to_vec_pretty(value).map_err(Status::internal)?;
            out.push(b'\n');
            Ok(Bytes::from(out))
        }
        Format::Json => Ok(Bytes::from(serde_json::to_vec(value).map_err(Status::internal)?)),
        Format::Yaml => Ok(Bytes::from(yaml::encode(value))),
        Format::Protobuf => Ok(Bytes::from(protobuf::encode_object(value).map_err(Status::internal)?)),
    }
}

/// The tree with `kind` and `apiVersion` first.
pub(crate) fn typed(resource: &'static Resource, value: &Value) -> Value {
    let mut out = Vec::new();
    json_head(&mut out, resource.kind, &resource.api_version(), &json_tail(value));
    serde_json::from_slice(&out).unwrap_or_else(|_| value.clone())
}

fn untyped(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("kind");
        fields.shift_remove("apiVersion");
    }
    value
}

pub(crate) fn metadata_value(value: &Value, version: &str) -> Value {
    let metadata = value.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata})
}

/// One row of a table.
pub(crate) fn row(
    answer: &Answer,
    resource: &'static Resource,
    object: &Object,
    version: &str,
    now_s: i64,
) -> Value {
    let mut row = json!({"cells": table::cells(resource, object.value(), now_s)});
    match answer.row_object {
        RowObject::None => {}
        RowObject::Metadata => row["object"] = metadata_value(object.value(), version),
        RowObject::Object => row["object"] = typed(resource, object.value()),
    }
    row
}

/// `resource` None leaves the column definitions out, as in every watch event but the first.
pub(crate) fn table_value(
    resource: Option<&'static Resource>,
    version: &str,
    metadata: Value,
    rows: Vec<Value>,
) -> Value {
    let columns: Option<Vec<Value>> = resource.map(|resource| {
        let columns = table::columns(resource).iter();
        columns
            .map(|column| {
                json!({
                    "name": column.name, "type": column.type_, "format": column.format,
                    "description": column.description, "priority": column.priority,
                })
            })
            .collect()
    });
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}

fn response(answer: &Answer, code: StatusCode, bytes: Bytes) -> Response<Body> {
    crate::response::bytes(code, HeaderValue::from_static(answer.format.media_type()), bytes)
}

/// Adds `Warning: 299 - "text"` headers.
pub(crate) fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{text}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}

pub(crate) fn now_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The object as another version of its kind shows it; the same one when it is the stored form.
pub(crate) fn view(resource: &'static Resource, object: &Arc<Object>) -> Arc<Object> {
    if std::ptr::eq(apimachinery::kinds::storage_resource(resource), resource) {
        return object.clone();
    }
    let value = apimachinery::kinds::from_storage(resource, Value::clone(object.value()));
    Arc::new(Object::new(value, object.revision(), object.size_bytes()))
}
