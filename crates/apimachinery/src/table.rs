//! What `kubectl get` shows: columns of each kind, and an object's cells in them.
//!
//! Columns and texts are upstream's printers' (reference: kubernetes `pkg/printers/internalversion`). A kind without a
//! printer shows its name and age. Every row has one cell per column; a test walks all printers to keep it so.
//! Not here: content negotiation (the server decides that a Table is wanted), columns of custom resources.

mod cluster;
mod field;
mod network;
mod pod;
mod storage;
mod workload;

use serde_json::{Map, json};

use crate::kinds::{self, Resource};
use crate::{Value, meta, time};

const NAME_TEXT: &str = "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and configuration definition. Cannot be updated. More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names";
const CREATED_TEXT: &str = "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// `string`, `integer`, `boolean`, `date`
    pub type_: &'static str,
    /// `name` for the column that names the object
    pub format: &'static str,
    pub description: &'static str,
    /// Above 0: only in wide output
    pub priority: i32,
}

/// What a row carries besides its cells: `includeObject` of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// How one kind is printed.
struct Printer {
    group: &'static str,
    plural: &'static str,
    columns: &'static [Column],
    cells: fn(&Value, Now) -> Vec<Value>,
}

/// Seconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Now(i64);

impl Now {
    fn age(self, object: &Value) -> Value {
        json!(time::age(meta::of(object).creation_timestamp(), self.0))
    }
}

const fn text(name: &'static str, description: &'static str) -> Column {
    Column { name, type_: "string", format: "", description, priority: 0 }
}

const fn integer(name: &'static str, description: &'static str) -> Column {
    Column { name, type_: "integer", format: "", description, priority: 0 }
}

const fn boolean(name: &'static str, description: &'static str) -> Column {
    Column { name, type_: "boolean", format: "", description, priority: 0 }
}

const fn wide(name: &'static str, description: &'static str) -> Column {
    Column { name, type_: "string", format: "", description, priority: 1 }
}

const NAME: Column =
    Column { name: "Name", type_: "string", format: "name", description: NAME_TEXT, priority: 0 };
const AGE: Column = text("Age", CREATED_TEXT);

const DEFAULT: Printer = Printer {
    group: "",
    plural: "",
    columns: &[NAME, AGE],
    cells: |object, now| vec![json!(meta::of(object).name()), now.age(object)],
};

/// Kinds for which upstream has no printer at all.
const CREATED_AT: Printer = Printer {
    group: "",
    plural: "",
    columns: &[
        NAME,
        Column { name: "Created At", type_: "date", format: "", description: CREATED_TEXT, priority: 0 },
    ],
    cells: |object, _| vec![json!(meta::of(object).name()), json!(meta::of(object).creation_timestamp())],
};

fn printer(group: &str, plural: &str) -> &'static Printer {
    let group = if group == "events.k8s.io" { "" } else { group };
    let tables = [pod::PRINTERS, workload::PRINTERS, network::PRINTERS, cluster::PRINTERS, storage::PRINTERS];
    let found =
        tables.into_iter().flatten().find(|printer| printer.plural == plural && printer.group == group);
    match (found, group, plural) {
        (Some(printer), _, _) => printer,
        (None, "rbac.authorization.k8s.io", "roles" | "clusterroles")
        | (None, "", "limitranges")
        | (None, "apiextensions.k8s.io", "customresourcedefinitions") => &CREATED_AT,
        (None, _, _) => &DEFAULT,
    }
}

/// The columns of a kind, wide ones included.
pub fn columns(resource: &Resource) -> &'static [Column] {
    printer(resource.group, resource.plural).columns
}

/// One cell per column. `now_s` is the current time, for ages.
pub fn cells(resource: &'static Resource, object: &Value, now_s: i64) -> Vec<Value> {
    let printer = printer(resource.group, resource.plural);
    // events and autoscalers have two forms; printers read the stored one
    if std::ptr::eq(kinds::storage_resource(resource), resource) {
        (printer.cells)(object, Now(now_s))
    } else {
        (printer.cells)(&kinds::to_storage(resource, object.clone()), Now(now_s))
    }
}

/// A complete `meta.k8s.io` Table. `list_metadata` is that of the list, or for a single object its resource version.
/// `version` is `v1` or `v1beta1`; without `headers` (second and later events of a watch) the columns are null.
pub fn table<'a>(
    resource: &'static Resource,
    version: &str,
    list_metadata: Map<String, Value>,
    objects: impl IntoIterator<Item = &'a Value>,
    include: IncludeObject,
    headers: bool,
    now_s: i64,
) -> Value {
    let rows = objects.into_iter().map(|object| row(resource, version, object, include, now_s));
    let rows: Vec<Value> = rows.collect();
    let definitions = headers.then(|| columns(resource).iter().map(definition).collect::<Vec<Value>>());
    json!({
        "kind": "Table",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": list_metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.type_,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn row(
    resource: &'static Resource,
    version: &str,
    object: &Value,
    include: IncludeObject,
    now_s: i64,
) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), Value::Array(cells(resource, object, now_s)));
    if resource.group.is_empty()
        && resource.plural == "pods"
        && let Some(condition) = pod::row_condition(object)
    {
        row.insert("conditions".to_owned(), json!([condition]));
    }
    let object = match include {
        IncludeObject::None => Value::Null,
        IncludeObject::Metadata => partial_metadata(object, version),
        IncludeObject::Object => object.clone(),
    };
    row.insert("object".to_owned(), object);
    Value::Object(row)
}

/// The object as `PartialObjectMetadata`.
pub fn partial_metadata(object: &Value, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| json!({})),
    })
}

#[cfg(test)]
mod tests;
