//! Paths and operations of one group and version.
//!
//! Operations carry what clients look for: the action, the group-version-kind, the query parameters and the types of
//! bodies and answers. Not here: the types themselves (`schemas.rs`).

use apimachinery::kinds::{self, Resource};
use serde_json::{Map, Value, json};

use super::schemas::Schemas;

/// What an operation does to which kind.
struct Subject<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    type_name: &'a str,
    /// `pods` or `pods/status`, for the operation's id.
    path: String,
    namespaced: bool,
}

const PATCH_TYPES: &[&str] = &[
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// All paths, in the table's order.
pub(super) fn all(group: &str, version: &str, schemas: &mut Schemas) -> Value {
    let prefix =
        if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let mut paths = Map::new();
    let served =
        kinds::resources().iter().filter(|resource| resource.group == group && resource.version == version);
    for resource in served {
        add(resource, &prefix, &mut paths, schemas);
    }
    Value::Object(paths)
}

fn add(resource: &Resource, prefix: &str, paths: &mut Map<String, Value>, schemas: &mut Schemas) {
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{prefix}{scope}/{}", resource.plural);
    let own = Subject {
        group: resource.group,
        version: resource.version,
        kind: resource.kind,
        type_name: resource.type_name,
        path: resource.plural.to_string(),
        namespaced: resource.namespaced,
    };
    let verbs = &resource.verbs;
    let list_type = resource.list_type_name();
    let mut path = Map::new();
    if verbs.list {
        path.insert("get".to_string(), own.operation("list", &list_type, LIST, schemas));
    }
    if verbs.create {
        path.insert("post".to_string(), own.operation("post", own.type_name, WRITE, schemas));
    }
    if verbs.delete_collection {
        path.insert("delete".to_string(), own.operation("deletecollection", "meta.v1.Status", LIST, schemas));
    }
    insert(paths, &collection, path, &own, false);
    if resource.namespaced && verbs.list {
        let everywhere = format!("{prefix}/{}", resource.plural);
        let list = json!({ "get": own.operation("list", &list_type, LIST, schemas) });
        paths.insert(everywhere, list);
    }
    let mut path = Map::new();
    let wanted = [
        (verbs.get, "get", "get", own.type_name, READ),
        (verbs.update, "put", "put", own.type_name, WRITE),
        (verbs.patch, "patch", "patch", own.type_name, PATCH),
        (verbs.delete, "delete", "delete", "meta.v1.Status", DELETE),
    ];
    for (_, method, action, answer, parameters) in wanted.into_iter().filter(|(served, ..)| *served) {
        path.insert(method.to_string(), own.operation(action, answer, parameters, schemas));
    }
    insert(paths, &format!("{collection}/{{name}}"), path, &own, true);
    for row in resource.subresource_rows() {
        let subject = Subject {
            group: row.group,
            version: row.version,
            kind: row.kind,
            type_name: row.type_name,
            path: format!("{}/{}", resource.plural, row.name),
            namespaced: resource.namespaced,
        };
        let mut path = Map::new();
        for verb in row.verbs {
            let (method, action, parameters) = match *verb {
                "get" => ("get", "get", READ),
                "create" => ("post", "post", WRITE),
                "update" => ("put", "put", WRITE),
                "patch" => ("patch", "patch", PATCH),
                _ => continue,
            };
            path.insert(
                method.to_string(),
                subject.operation(action, subject.type_name, parameters, schemas),
            );
        }
        insert(paths, &format!("{collection}/{{name}}/{}", row.name), path, &subject, true);
    }
}

fn insert(
    paths: &mut Map<String, Value>,
    name: &str,
    mut path: Map<String, Value>,
    subject: &Subject<'_>,
    named: bool,
) {
    if path.is_empty() {
        return;
    }
    let in_path = |name: &str, description: &str| {
        json!({
            "name": name, "in": "path", "required": true, "description": description,
            "schema": {"type": "string", "uniqueItems": true},
        })
    };
    let mut parameters = Vec::new();
    if named {
        parameters.push(in_path("name", &format!("name of the {}", subject.kind)));
    }
    if subject.namespaced {
        parameters.push(in_path("namespace", "object name and auth scope, such as for teams and projects"));
    }
    parameters.push(query("pretty", "string"));
    path.insert("parameters".to_string(), json!(parameters));
    paths.insert(name.to_string(), Value::Object(path));
}

type Parameters = [(&'static str, &'static str)];

const READ: &Parameters = &[];
const WRITE: &Parameters = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: &Parameters =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: &Parameters = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const LIST: &Parameters = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

fn query(name: &str, kind: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

impl Subject<'_> {
    fn operation(&self, action: &str, answer: &str, parameters: &Parameters, schemas: &mut Schemas) -> Value {
        let answer = schemas.reference(answer);
        let content = json!({
            "application/json": {"schema": answer},
            "application/yaml": {"schema": answer},
            "application/vnd.kubernetes.protobuf": {"schema": answer},
        });
        let mut responses = json!({
            "200": {"description": "OK", "content": content},
            "401": {"description": "Unauthorized"},
        });
        if matches!(action, "post" | "put" | "patch") {
            responses["201"] = json!({"description": "Created", "content": content});
        }
        let mut operation = json!({
            "tags": [tag(self.group, self.version)],
            "operationId": format!("{action}_{}_{}", tag(self.group, self.version), self.path.replace('/', "_")),
            "parameters": parameters.iter().map(|(name, kind)| query(name, kind)).collect::<Vec<_>>(),
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": self.group, "version": self.version, "kind": self.kind},
        });
        match action {
            "post" | "put" => {
                let body = schemas.reference(self.type_name);
                operation["requestBody"] = json!({"content": {"*/*": {"schema": body}}, "required": true});
            }
            "patch" => {
                let body = schemas.reference("meta.v1.Patch");
                let content: Map<String, Value> =
                    PATCH_TYPES.iter().map(|name| ((*name).to_string(), json!({"schema": body}))).collect();
                operation["requestBody"] = json!({"content": content, "required": true});
            }
            "delete" | "deletecollection" => {
                let body = schemas.reference("meta.v1.DeleteOptions");
                operation["requestBody"] = json!({"content": {"*/*": {"schema": body}}});
            }
            _ => {}
        }
        operation
    }
}

/// `core_v1`, `apps_v1`
fn tag(group: &str, version: &str) -> String {
    let name = group.split('.').next().filter(|name| !name.is_empty()).unwrap_or("core");
    format!("{name}_{version}")
}
