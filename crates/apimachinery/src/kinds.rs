//! What is served: one row per resource, with the facts that make a generic handler enough.
//!
//! Rows are grouped by API group in upstream's priority order; a row names the schema type that describes its objects.
//! Every row's type exists in the schema, and no two rows share a path; tests walk all rows.
//! Not here: fields (schema.rs), how a flag is acted on (crates/apiserver), table columns (table.rs).

mod convert;
mod rows;

use std::collections::HashMap;
use std::sync::OnceLock;

pub use convert::{from_storage, storage_resource, to_storage};

/// One served resource. All names are upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// `""` is the core group
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    pub plural: &'static str,
    pub singular: &'static str,
    pub short_names: &'static [&'static str],
    pub categories: &'static [&'static str],
    pub namespaced: bool,
    /// Schema type of an object, such as `core.v1.Pod`
    pub type_name: &'static str,
    /// An object's key is `/registry/<storage_prefix>/[<namespace>/]<name>`
    pub storage_prefix: &'static str,
    pub verbs: Verbs,
    pub subresources: Subresources,
    pub strategy: Strategy,
    /// Field selectors besides `metadata.name` and `metadata.namespace`
    pub selectable_fields: &'static [&'static str],
}

/// What can be done to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verbs {
    pub create: bool,
    pub get: bool,
    pub list: bool,
    pub watch: bool,
    pub update: bool,
    pub patch: bool,
    pub delete: bool,
    pub delete_collection: bool,
}

/// Which subresources a resource has. `log` and those after it need a connection to a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subresources {
    pub status: bool,
    pub scale: bool,
    pub binding: bool,
    pub eviction: bool,
    pub token: bool,
    pub finalize: bool,
    pub approval: bool,
    pub ephemeral_containers: bool,
    pub resize: bool,
    pub log: bool,
    pub exec: bool,
    pub attach: bool,
    pub portforward: bool,
    pub proxy: bool,
}

/// How the generic registry treats objects of a resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strategy {
    /// `metadata.generation` starts at 1 and counts changes of what is neither metadata nor status
    pub generation: bool,
    /// PUT without `resourceVersion` overwrites
    pub unconditional_update: bool,
    /// PUT of a missing object creates it
    pub create_on_update: bool,
    /// DELETE has a grace period
    pub graceful_delete: bool,
    /// A status sent with a create is dropped (nodes keep it); updates never take it when there is `/status`
    pub status_reset: bool,
    /// Create only, nothing is stored: the answer is the review
    pub review: bool,
}

/// One line of discovery for a subresource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubresourceRow {
    /// `status`
    pub name: &'static str,
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    pub type_name: &'static str,
    pub verbs: &'static [&'static str],
}

/// One API group and its versions, the preferred one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub name: &'static str,
    pub versions: &'static [&'static str],
}

/// All rows, groups in priority order.
pub fn resources() -> &'static [Resource] {
    rows::RESOURCES
}

/// All groups: the core group first, then in upstream's order of priority.
pub fn groups() -> &'static [Group] {
    rows::GROUPS
}

pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    index().by_plural.get(plural)?.iter().copied().find(|row| row.group == group && row.version == version)
}

/// A kind that is served as a resource of its own; lists, options and reviews of subresources are not.
pub fn find_kind(group: &str, version: &str, kind: &str) -> Option<&'static Resource> {
    index().by_kind.get(kind)?.iter().copied().find(|row| row.group == group && row.version == version)
}

/// The row whose form is stored under a prefix: `minions` is nodes, `events` is the core group's events.
pub fn find_storage(storage_prefix: &str) -> Option<&'static Resource> {
    index().by_storage.get(storage_prefix).copied()
}

struct Index {
    by_plural: HashMap<&'static str, Vec<&'static Resource>>,
    by_kind: HashMap<&'static str, Vec<&'static Resource>>,
    by_storage: HashMap<&'static str, &'static Resource>,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index =
            Index { by_plural: HashMap::new(), by_kind: HashMap::new(), by_storage: HashMap::new() };
        for row in resources() {
            index.by_plural.entry(row.plural).or_default().push(row);
            index.by_kind.entry(row.kind).or_default().push(row);
            if row.verbs.get {
                index.by_storage.entry(row.storage_prefix).or_insert_with(|| storage_resource(row));
            }
        }
        index
    })
}

impl Resource {
    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`
    pub fn group_resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Schema type of a list of these objects, such as `core.v1.PodList`.
    pub fn list_type_name(&self) -> String {
        format!("{}List", self.type_name)
    }

    /// Verbs as discovery lists them: sorted.
    pub fn verb_names(&self) -> Vec<&'static str> {
        let verbs = &self.verbs;
        [
            (verbs.create, "create"),
            (verbs.delete, "delete"),
            (verbs.delete_collection, "deletecollection"),
            (verbs.get, "get"),
            (verbs.list, "list"),
            (verbs.patch, "patch"),
            (verbs.update, "update"),
            (verbs.watch, "watch"),
        ]
        .into_iter()
        .filter_map(|(has, name)| has.then_some(name))
        .collect()
    }

    /// Subresources that are objects, sorted by name. Those that need a connection to a node are not listed.
    pub fn subresource_rows(&self) -> Vec<SubresourceRow> {
        const CHANGE: &[&str] = &["get", "patch", "update"];
        const CREATE: &[&str] = &["create"];
        let own = |name, verbs| SubresourceRow {
            name,
            group: self.group,
            version: self.version,
            kind: self.kind,
            type_name: self.type_name,
            verbs,
        };
        let other = |name, group, version, kind, type_name, verbs| SubresourceRow {
            name,
            group,
            version,
            kind,
            type_name,
            verbs,
        };
        let has = &self.subresources;
        [
            has.approval.then(|| own("approval", CHANGE)),
            has.binding.then(|| other("binding", "", "v1", "Binding", "core.v1.Binding", CREATE)),
            has.ephemeral_containers.then(|| own("ephemeralcontainers", CHANGE)),
            has.eviction.then(|| other("eviction", "policy", "v1", "Eviction", "policy.v1.Eviction", CREATE)),
            has.finalize.then(|| own("finalize", &["update"])),
            has.resize.then(|| own("resize", CHANGE)),
            has.scale.then(|| other("scale", "autoscaling", "v1", "Scale", "autoscaling.v1.Scale", CHANGE)),
            has.status.then(|| own("status", CHANGE)),
            has.token.then(|| {
                let type_name = "authentication.v1.TokenRequest";
                other("token", "authentication.k8s.io", "v1", "TokenRequest", type_name, CREATE)
            }),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests;
