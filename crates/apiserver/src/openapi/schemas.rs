//! Component schemas from the table of types, with all that they refer to.
//!
//! Not here: which types a document starts from (`paths.rs`).

use std::collections::BTreeMap;

use apimachinery::kinds;
use apimachinery::schema::{Field, Kind, ListType, Schema, Type};
use serde_json::{Map, Value, json};

/// The schemas of one document, by OpenAPI name.
#[derive(Default)]
pub(super) struct Schemas {
    made: BTreeMap<String, Value>,
}

const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Time";
const MICRO_TIME: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime";
const RAW: &str = "io.k8s.apimachinery.pkg.runtime.RawExtension";
const FIELDS_V1: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1";
const JSON: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSON";

impl Schemas {
    /// A `$ref` to a type of the table; the type and what it needs are added. An unknown type is any object.
    pub(super) fn reference(&mut self, type_name: &str) -> Value {
        let Some(kind) = Schema::builtin().type_(type_name) else { return json!({"type": "object"}) };
        let name = kind.openapi_name();
        if !self.made.contains_key(&name) {
            // Taken before the fields are walked: types may contain themselves.
            self.made.insert(name.clone(), Value::Null);
            let schema = self.schema(kind);
            self.made.insert(name.clone(), schema);
        }
        json!({"$ref": format!("#/components/schemas/{name}")})
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.made.into_iter().collect())
    }

    fn schema(&mut self, kind: &'static Type) -> Value {
        let mut properties = Map::new();
        let mut required = Vec::new();
        for field in &kind.fields {
            properties.insert(field.name.to_string(), self.field(field));
            if field.required {
                required.push(field.name);
            }
        }
        let mut schema = json!({"type": "object"});
        if !properties.is_empty() {
            schema["properties"] = Value::Object(properties);
        }
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        if kind.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        let kinds = group_version_kinds(kind.name);
        if !kinds.is_empty() {
            schema["x-kubernetes-group-version-kind"] = json!(kinds);
        }
        schema
    }

    fn field(&mut self, field: &'static Field) -> Value {
        let mut schema = self.value(&field.kind, true);
        if let Some(list_type) = field.list_type {
            let name = match list_type {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            };
            schema["x-kubernetes-list-type"] = json!(name);
        }
        if !field.list_map_keys.is_empty() {
            schema["x-kubernetes-list-map-keys"] = json!(field.list_map_keys);
        }
        if let Some(key) = field.merge_key {
            schema["x-kubernetes-patch-merge-key"] = json!(key);
        }
        let strategy = match (field.patch_merge, field.patch_retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => "",
        };
        if !strategy.is_empty() {
            schema["x-kubernetes-patch-strategy"] = json!(strategy);
        }
        if field.atomic {
            schema["x-kubernetes-map-type"] = json!("atomic");
        }
        schema
    }

    /// `as_property`: references are wrapped in `allOf`, so that other keywords may stand beside them.
    fn value(&mut self, kind: &'static Kind, as_property: bool) -> Value {
        let wrap = |reference: Value| if as_property { json!({"allOf": [reference]}) } else { reference };
        match kind {
            Kind::String => json!({"type": "string"}),
            Kind::Bool => json!({"type": "boolean"}),
            Kind::Int32 => json!({"type": "integer", "format": "int32"}),
            Kind::Int64 => json!({"type": "integer", "format": "int64"}),
            Kind::Double => json!({"type": "number", "format": "double"}),
            Kind::Bytes => json!({"type": "string", "format": "byte"}),
            Kind::Quantity => {
                wrap(self.special(QUANTITY, json!({"oneOf": [{"type": "string"}, {"type": "number"}]})))
            }
            Kind::IntOrString => {
                let either =
                    json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]});
                wrap(self.special(INT_OR_STRING, either))
            }
            Kind::Time => wrap(self.special(TIME, json!({"type": "string", "format": "date-time"}))),
            Kind::MicroTime => {
                wrap(self.special(MICRO_TIME, json!({"type": "string", "format": "date-time"})))
            }
            Kind::Raw => wrap(self.special(RAW, json!({"type": "object"}))),
            Kind::FieldsV1 => wrap(self.special(FIELDS_V1, json!({"type": "object"}))),
            Kind::Json | Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
                wrap(self.special(JSON, json!({})))
            }
            Kind::Ref(name) => wrap(self.reference(name)),
            Kind::Array(item) => json!({"type": "array", "items": self.value(item, false)}),
            Kind::Map(item) => json!({"type": "object", "additionalProperties": self.value(item, false)}),
        }
    }

    fn special(&mut self, name: &str, schema: Value) -> Value {
        self.made.entry(name.to_string()).or_insert(schema);
        json!({"$ref": format!("#/components/schemas/{name}")})
    }
}

/// The kinds, and lists of kinds, whose objects have this type.
fn group_version_kinds(type_name: &str) -> Vec<Value> {
    let entry =
        |group: &str, version: &str, kind: &str| json!({"group": group, "version": version, "kind": kind});
    if type_name == "meta.v1.DeleteOptions" || type_name == "meta.v1.Status" {
        return vec![entry("", "v1", type_name.trim_start_matches("meta.v1."))];
    }
    let mut found = Vec::new();
    for resource in kinds::resources() {
        if resource.type_name == type_name {
            found.push(entry(resource.group, resource.version, resource.kind));
        } else if resource.verbs.list && resource.list_type_name() == type_name {
            found.push(entry(resource.group, resource.version, resource.list_kind));
        }
        for row in resource.subresource_rows() {
            let value = entry(row.group, row.version, row.kind);
            if row.type_name == type_name && !found.contains(&value) {
                found.push(value);
            }
        }
    }
    found
}
