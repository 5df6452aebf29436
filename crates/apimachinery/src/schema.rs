//! The table of built-in types: every field's JSON name, kind, merge rules, presence rules and protobuf tag.
//!
//! The text of the table is part of the program (docs/formats.md, "Table of kinds"). Nothing is parsed until someone
//! asks: the first use finds where each type starts, the first use of a type parses that type. A type that the table
//! names can be parsed and every type that a field refers to exists; a test walks the whole table to keep it so.
//! Not here: which types are served as resources (kinds.rs).

mod table;

use std::collections::HashMap;
use std::sync::OnceLock;

/// All types known to this build.
pub struct Schema {
    types: HashMap<&'static str, Slot>,
}

struct Slot {
    /// Lines of the type, the first with its name
    lines: &'static str,
    parsed: OnceLock<Option<Type>>,
}

/// One structured type, as JSON objects have it.
#[derive(Debug)]
pub struct Type {
    /// `core.v1.Pod`
    pub name: &'static str,
    /// Sorted by name
    pub fields: Vec<Field>,
    /// Server-side apply treats a value of this type as one piece
    pub atomic: bool,
    message: Message,
    /// Fields that Go writes in every object: structs and numbers that are no pointers. Indexes into `fields`.
    always: Vec<usize>,
}

/// One field of a type.
#[derive(Debug)]
pub struct Field {
    /// JSON name
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
    /// Go holds a pointer: a zero value that is present means something
    pub pointer: bool,
    /// Go writes the field even when it is empty
    pub keep_empty: bool,
    /// Go leaves the field out when its struct is zero
    pub omit_zero: bool,
    pub list_type: Option<ListType>,
    /// What identifies an item of a `ListType::Map` list in server-side apply
    pub list_map_keys: Vec<&'static str>,
    /// What identifies an item in a strategic merge patch
    pub merge_key: Option<&'static str>,
    pub patch_merge: bool,
    pub patch_retain_keys: bool,
    /// Server-side apply treats the field's value as one piece
    pub atomic: bool,
    /// Protobuf field number; 0 for `apiVersion` and `kind`, which the envelope carries
    pub tag: u32,
    /// Numbers of the messages around the field that JSON does not show, outermost first
    pub inside: Vec<u32>,
}

/// What a value may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    String,
    Bool,
    Int32,
    Int64,
    Double,
    /// Base64 in JSON
    Bytes,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// An embedded object of any kind
    Raw,
    /// Any JSON value
    Json,
    /// The field set of managed fields, a JSON object
    FieldsV1,
    /// `JSONSchemaProps` or a list of them
    SchemaOrArray,
    /// `JSONSchemaProps` or a boolean
    SchemaOrBool,
    /// `JSONSchemaProps` or a list of strings
    SchemaOrStrings,
    Ref(&'static str),
    Array(Box<Kind>),
    /// Keys are strings
    Map(Box<Kind>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListType {
    Atomic,
    Set,
    Map,
}

/// A protobuf message: what each field number holds. Sorted by number.
#[derive(Debug, Default)]
pub(crate) struct Message {
    pub(crate) parts: Vec<(u32, Part)>,
}

#[derive(Debug)]
pub(crate) enum Part {
    /// Index into `Type::fields`
    Field(usize),
    /// A message whose fields JSON shows as the outer type's own
    Embedded(Message),
}

impl Schema {
    /// The types of the served Kubernetes version and of our own group.
    pub fn builtin() -> &'static Schema {
        static SCHEMA: OnceLock<Schema> = OnceLock::new();
        SCHEMA.get_or_init(|| {
            let texts = [include_str!("../schema/kubernetes-1.35.tbl"), include_str!("../schema/extra.tbl")];
            let slots = texts.into_iter().flat_map(table::split);
            let types = slots.map(|(name, lines)| (name, Slot { lines, parsed: OnceLock::new() })).collect();
            Schema { types }
        })
    }

    /// Looks a type up by its short name, such as `core.v1.Pod`.
    pub fn type_(&self, name: &str) -> Option<&Type> {
        let slot = self.types.get(name)?;
        slot.parsed.get_or_init(|| table::parse(slot.lines, |name| self.name(name))).as_ref()
    }

    /// Names of all types, in no order.
    pub fn type_names(&self) -> impl Iterator<Item = &'static str> {
        self.types.keys().copied()
    }

    /// The table's own copy of a type's name.
    pub(crate) fn name(&self, name: &str) -> Option<&'static str> {
        self.types.get_key_value(name).map(|(name, _)| *name)
    }
}

impl Type {
    pub fn field(&self, json_name: &str) -> Option<&Field> {
        let index = self.fields.binary_search_by(|field| field.name.cmp(json_name)).ok()?;
        self.fields.get(index)
    }

    /// The name in OpenAPI documents, such as `io.k8s.api.core.v1.Pod`.
    pub fn openapi_name(&self) -> String {
        let package = match self.name.split('.').next() {
            Some("meta") => "io.k8s.apimachinery.pkg.apis",
            Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis",
            Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis",
            Some("binnacle") => {
                return format!("dev.binnacle.scheduling.{}", self.name.trim_start_matches("binnacle."));
            }
            _ => "io.k8s.api",
        };
        format!("{package}.{}", self.name)
    }

    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// Fields that are present even if nobody set them.
    pub(crate) fn always(&self) -> impl Iterator<Item = &Field> {
        self.always.iter().filter_map(|index| self.fields.get(*index))
    }

    /// The type's name without group and version, as Go prints it in errors.
    pub(crate) fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }
}

impl Message {
    pub(crate) fn part(&self, tag: u32) -> Option<&Part> {
        let index = self.parts.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        self.parts.get(index).map(|(_, part)| part)
    }
}

#[cfg(test)]
mod tests;
