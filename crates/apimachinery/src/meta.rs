//! Object metadata: a borrowed view and setters over an object tree.
//!
//! Reading never fails: an absent field, or one of another type, reads as empty. Setters create `metadata` when it
//! is missing. Not here: validation of names and labels (names.rs), what the server may change (the registry).

use serde_json::{Map, json};

use crate::Value;

/// Reads an object's metadata.
pub fn of(object: &Value) -> Meta<'_> {
    Meta { object }
}

/// Changes an object's metadata.
pub fn of_mut(object: &mut Value) -> MetaMut<'_> {
    MetaMut { object }
}

#[derive(Clone, Copy, Debug)]
pub struct Meta<'a> {
    object: &'a Value,
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerReference<'a> {
    pub api_version: &'a str,
    pub kind: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

impl<'a> Meta<'a> {
    fn text(self, field: &str) -> &'a str {
        self.field(field).and_then(Value::as_str).unwrap_or_default()
    }

    fn top(self, field: &str) -> &'a str {
        self.object.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field of `metadata`, whatever its type.
    pub fn field(self, field: &str) -> Option<&'a Value> {
        self.object.get("metadata")?.get(field)
    }

    pub fn api_version(self) -> &'a str {
        self.top("apiVersion")
    }

    pub fn kind(self) -> &'a str {
        self.top("kind")
    }

    /// Group of `apiVersion`; empty for the core group.
    pub fn group(self) -> &'a str {
        self.api_version().split_once('/').map_or("", |(group, _)| group)
    }

    /// Version of `apiVersion`, without the group.
    pub fn version(self) -> &'a str {
        let api_version = self.api_version();
        api_version.split_once('/').map_or(api_version, |(_, version)| version)
    }

    pub fn name(self) -> &'a str {
        self.text("name")
    }

    pub fn generate_name(self) -> &'a str {
        self.text("generateName")
    }

    pub fn namespace(self) -> &'a str {
        self.text("namespace")
    }

    pub fn uid(self) -> &'a str {
        self.text("uid")
    }

    pub fn resource_version(self) -> &'a str {
        self.text("resourceVersion")
    }

    /// 0 when the object has none.
    pub fn generation(self) -> i64 {
        self.field("generation").and_then(Value::as_i64).unwrap_or(0)
    }

    /// RFC 3339, as stored; empty when absent.
    pub fn creation_timestamp(self) -> &'a str {
        self.text("creationTimestamp")
    }

    /// RFC 3339, as stored; `None` while the object is not being deleted.
    pub fn deletion_timestamp(self) -> Option<&'a str> {
        self.field("deletionTimestamp")?.as_str()
    }

    pub fn deletion_grace_period_s(self) -> Option<i64> {
        self.field("deletionGracePeriodSeconds")?.as_i64()
    }

    pub fn label(self, key: &str) -> Option<&'a str> {
        self.field("labels")?.get(key)?.as_str()
    }

    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.entries("labels")
    }

    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.field("annotations")?.get(key)?.as_str()
    }

    pub fn annotations(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.entries("annotations")
    }

    fn entries(self, field: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let map = self.field(field).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
    }

    pub fn finalizers(self) -> impl Iterator<Item = &'a str> {
        self.list("finalizers").iter().filter_map(Value::as_str)
    }

    pub fn has_finalizer(self, name: &str) -> bool {
        self.finalizers().any(|finalizer| finalizer == name)
    }

    pub fn owner_references(self) -> impl Iterator<Item = OwnerReference<'a>> {
        self.list("ownerReferences").iter().map(|owner| {
            let text = |field: &str| owner.get(field).and_then(Value::as_str).unwrap_or_default();
            let flag = |field: &str| owner.get(field).and_then(Value::as_bool).unwrap_or(false);
            OwnerReference {
                api_version: text("apiVersion"),
                kind: text("kind"),
                name: text("name"),
                uid: text("uid"),
                controller: flag("controller"),
                block_owner_deletion: flag("blockOwnerDeletion"),
            }
        })
    }

    /// The owner that has `controller: true`.
    pub fn controller(self) -> Option<OwnerReference<'a>> {
        self.owner_references().find(|owner| owner.controller)
    }

    pub fn managed_fields(self) -> &'a [Value] {
        self.list("managedFields")
    }

    fn list(self, field: &str) -> &'a [Value] {
        self.field(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }
}

#[derive(Debug)]
pub struct MetaMut<'a> {
    object: &'a mut Value,
}

impl MetaMut<'_> {
    pub fn view(&self) -> Meta<'_> {
        of(self.object)
    }

    /// `metadata` itself; created when missing. A non-object tree becomes an empty object.
    pub fn fields(&mut self) -> &mut Map<String, Value> {
        let object = as_map(self.object);
        as_map(object.entry("metadata").or_insert_with(|| Value::Object(Map::new())))
    }

    /// Sets a field of `metadata`; `None` removes it.
    pub fn set(&mut self, field: &str, value: Option<Value>) -> &mut Self {
        match value {
            Some(value) => self.fields().insert(field.to_owned(), value),
            None => self.fields().shift_remove(field),
        };
        self
    }

    /// Removes a field of `metadata`; true if it was there.
    pub fn remove(&mut self, field: &str) -> bool {
        self.fields().shift_remove(field).is_some()
    }

    pub fn set_type(&mut self, api_version: &str, kind: &str) -> &mut Self {
        let object = as_map(self.object);
        object.insert("apiVersion".to_owned(), json!(api_version));
        object.insert("kind".to_owned(), json!(kind));
        self
    }

    /// Empty text removes the field, as in every setter of a text.
    pub fn set_name(&mut self, name: &str) -> &mut Self {
        self.set("name", some_text(name))
    }

    pub fn set_namespace(&mut self, namespace: &str) -> &mut Self {
        self.set("namespace", some_text(namespace))
    }

    pub fn set_uid(&mut self, uid: &str) -> &mut Self {
        self.set("uid", some_text(uid))
    }

    pub fn set_resource_version(&mut self, resource_version: &str) -> &mut Self {
        self.set("resourceVersion", some_text(resource_version))
    }

    /// 0 removes the field.
    pub fn set_generation(&mut self, generation: i64) -> &mut Self {
        self.set("generation", (generation != 0).then(|| json!(generation)))
    }

    /// `timestamp` is RFC 3339 (time.rs).
    pub fn set_creation_timestamp(&mut self, timestamp: &str) -> &mut Self {
        self.set("creationTimestamp", some_text(timestamp))
    }

    /// Marks the object as being deleted.
    pub fn set_deletion(&mut self, timestamp: &str, grace_period_s: i64) -> &mut Self {
        self.set("deletionTimestamp", some_text(timestamp));
        self.set("deletionGracePeriodSeconds", Some(json!(grace_period_s)))
    }

    pub fn set_label(&mut self, key: &str, value: &str) -> &mut Self {
        self.set_entry("labels", key, Some(value))
    }

    pub fn remove_label(&mut self, key: &str) -> &mut Self {
        self.set_entry("labels", key, None)
    }

    pub fn set_annotation(&mut self, key: &str, value: &str) -> &mut Self {
        self.set_entry("annotations", key, Some(value))
    }

    pub fn remove_annotation(&mut self, key: &str) -> &mut Self {
        self.set_entry("annotations", key, None)
    }

    fn set_entry(&mut self, field: &str, key: &str, value: Option<&str>) -> &mut Self {
        if value.is_none() && self.view().field(field).is_none() {
            return self;
        }
        let map = as_map(self.fields().entry(field).or_insert_with(|| Value::Object(Map::new())));
        match value {
            Some(value) => map.insert(key.to_owned(), json!(value)),
            None => map.shift_remove(key),
        };
        if map.is_empty() {
            self.remove(field);
        }
        self
    }

    /// An empty list removes the field.
    pub fn set_finalizers<S: AsRef<str>>(&mut self, finalizers: &[S]) -> &mut Self {
        let list: Vec<Value> = finalizers.iter().map(|name| json!(name.as_ref())).collect();
        self.set("finalizers", (!list.is_empty()).then_some(Value::Array(list)))
    }

    /// True if it was there.
    pub fn remove_finalizer(&mut self, name: &str) -> bool {
        let view = self.view();
        if !view.has_finalizer(name) {
            return false;
        }
        let rest: Vec<String> =
            view.finalizers().filter(|finalizer| *finalizer != name).map(str::to_owned).collect();
        self.set_finalizers(&rest);
        true
    }

    /// Adds an owner unless one with the same uid is there.
    pub fn add_owner_reference(&mut self, owner: OwnerReference<'_>) -> &mut Self {
        if self.view().owner_references().any(|known| known.uid == owner.uid) {
            return self;
        }
        let mut reference = json!({
            "apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
        });
        if owner.controller {
            reference["controller"] = json!(true);
        }
        if owner.block_owner_deletion {
            reference["blockOwnerDeletion"] = json!(true);
        }
        let list = self.fields().entry("ownerReferences").or_insert_with(|| Value::Array(Vec::new()));
        match list {
            Value::Array(items) => items.push(reference),
            other => *other = Value::Array(vec![reference]),
        }
        self
    }

    /// An empty list removes the field.
    pub fn set_managed_fields(&mut self, entries: Vec<Value>) -> &mut Self {
        self.set("managedFields", (!entries.is_empty()).then_some(Value::Array(entries)))
    }
}

fn some_text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

/// The map in `value`, which becomes an empty one if it is of another type.
fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("set to an object just above"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_or_odd_metadata_reads_as_empty() {
        for object in [
            json!({}),
            json!(null),
            json!({"metadata": null}),
            json!({"metadata": {"name": 1, "labels": []}}),
        ] {
            let meta = of(&object);
            assert_eq!(
                (meta.name(), meta.uid(), meta.generation(), meta.deletion_timestamp()),
                ("", "", 0, None)
            );
            assert_eq!(
                meta.labels().count() + meta.finalizers().count() + meta.owner_references().count(),
                0
            );
        }
    }

    #[test]
    fn setters_create_and_remove_what_they_name() {
        let mut object = json!({"metadata": {"labels": {"a": "b"}}});
        of_mut(&mut object)
            .set_name("x")
            .set_namespace("")
            .remove_label("a")
            .set_annotation("k", "v")
            .set_generation(3);
        assert_eq!(object, json!({"metadata": {"name": "x", "annotations": {"k": "v"}, "generation": 3}}));
        let mut meta = of_mut(&mut object);
        meta.set_finalizers(&["one", "two"]);
        assert!(meta.remove_finalizer("one"));
        assert!(!meta.remove_finalizer("one"));
        assert!(meta.remove_finalizer("two"));
        assert!(of(&object).field("finalizers").is_none());
    }

    #[test]
    fn owners_are_added_once_and_the_controller_is_found() {
        let owner = OwnerReference {
            api_version: "v1",
            kind: "Pod",
            name: "p",
            uid: "u",
            controller: true,
            block_owner_deletion: false,
        };
        let mut object = json!({});
        of_mut(&mut object).add_owner_reference(owner).add_owner_reference(owner);
        assert_eq!(of(&object).owner_references().count(), 1);
        assert_eq!(of(&object).controller(), Some(owner));
    }

    #[test]
    fn api_version_splits_into_group_and_version() {
        let core = json!({"apiVersion": "v1"});
        let apps = json!({"apiVersion": "apps/v1"});
        assert_eq!((of(&core).group(), of(&core).version()), ("", "v1"));
        assert_eq!((of(&apps).group(), of(&apps).version()), ("apps", "v1"));
    }
}
