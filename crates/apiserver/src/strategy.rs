//! What differs between kinds when they are written.
//!
//! Most of it is flags in the table of kinds; the few kinds with a life of their own have a file here.
//! Invariant: these functions are pure, except `addresses`, which claims addresses in the store.
//! Not here: validation against the schema and per-kind rules (apimachinery), policy (admission.rs).

pub(crate) mod addresses;
pub(crate) mod namespace;
pub(crate) mod pod;
pub(crate) mod scale;

use apimachinery::Value;
use apimachinery::kinds::Resource;
use apimachinery::status::{FieldError, Path, Status};
use apimachinery::{defaults, meta};
use serde_json::Map;

use crate::registry::Part;

/// A stored Decision is an explanation for people; it must not crowd out the objects that it explains.
const DECISION_SIZE_BYTES_MAX: usize = 256 * 1024;
/// Largest object. Source: etcd's default `--max-request-bytes`, less the key and the compare around it.
const OBJECT_SIZE_BYTES_MAX: usize = 1_500_000;
const FINALIZERS: &str = "finalizers";

fn is(stored: &Resource, group: &str, kind: &str) -> bool {
    stored.group == group && stored.kind == kind
}

pub(crate) fn prepare_create(stored: &Resource, value: &mut Value) {
    if stored.strategy.status_reset {
        value["status"] = defaults::fresh_status(stored, value);
    }
    meta::of_mut(value).set_generation(if stored.strategy.generation { 1 } else { 0 });
    if is(stored, "", "Pod") {
        pod::prepare_create(value);
    } else if is(stored, "", "Namespace") {
        namespace::prepare_create(value);
    }
}

/// Rules that the table of kinds cannot express.
pub(crate) fn validate_create(stored: &Resource, value: &Value) -> Vec<FieldError> {
    let mut errors = validate_owners(value);
    if is(stored, "", "Pod") {
        errors.extend(pod::validate_create(value));
    }
    errors
}

fn validate_owners(value: &Value) -> Vec<FieldError> {
    let controllers = meta::of(value).owner_references().filter(|owner| owner.controller).count();
    if controllers <= 1 {
        return Vec::new();
    }
    let metadata = Path::new("metadata");
    let path = metadata.child("ownerReferences");
    let owners = meta::of(value).field("ownerReferences").cloned().unwrap_or_default();
    vec![FieldError::invalid(&path, owners, "Only one reference can have Controller set to true")]
}

pub(crate) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = validate_owners(new);
    let before: Vec<_> = meta::of(old).finalizers().collect();
    let added: Vec<_> = meta::of(new).finalizers().filter(|name| !before.contains(name)).collect();
    if meta::of(old).deletion_timestamp().is_some() && !added.is_empty() {
        let metadata = Path::new("metadata");
        let quoted: Vec<String> = added.iter().map(|name| format!("\"{name}\"")).collect();
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            quoted.join(", ")
        );
        errors.push(FieldError::forbidden(&metadata.child(FINALIZERS), why));
    }
    errors
}

/// Keeps what the addressed part may not change, and counts generations.
pub(crate) fn prepare_update(stored: &Resource, part: Part, new: &mut Value, old: &Value) {
    match part {
        Part::Main => {
            if stored.subresources.status {
                keep(new, old, "status");
            }
            if is(stored, "", "Namespace") {
                namespace::keep_finalizers(new, old);
            }
        }
        Part::Status => keep_all_but_status(stored, new, old),
        Part::Finalize => {
            let finalizers = new.get("spec").and_then(|spec| spec.get(FINALIZERS)).cloned();
            *new = old.clone();
            namespace::set_finalizers(new, finalizers);
        }
        Part::Binding => {}
        Part::EphemeralContainers => pod::keep_all_but_ephemeral_containers(new, old),
        Part::Resize => pod::keep_all_but_resources(new, old),
    }
    let of_spec = matches!(part, Part::Main | Part::EphemeralContainers | Part::Resize);
    let counts = stored.strategy.generation && of_spec;
    let generation = meta::of(old).generation();
    if counts && specification(new) != specification(old) {
        meta::of_mut(new).set_generation(generation + 1);
    } else {
        meta::of_mut(new).set_generation(generation);
    }
}

/// The new status, and of the metadata what a status update may touch.
fn keep_all_but_status(stored: &Resource, new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    let metadata = new.get("metadata").cloned();
    copy(&mut kept, new, "status");
    if let Some(metadata) = metadata {
        kept["metadata"] = metadata;
    }
    let mut meta = meta::of_mut(&mut kept);
    if is(stored, "", "Pod") {
        meta.set("ownerReferences", meta::of(old).field("ownerReferences").cloned());
    }
    *new = kept;
}

/// Everything whose change makes a new generation.
fn specification(value: &Value) -> Vec<(&String, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    let mut fields: Vec<_> = fields
        .filter(|(name, _)| !matches!(name.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
        .collect();
    fields.sort_by_key(|(name, _)| name.as_str());
    fields
}

/// Whether the object is being deleted and this update removed what still held it.
pub(crate) fn ends_with_last_finalizer(stored: &Resource, new: &Value) -> bool {
    let view = meta::of(new);
    view.deletion_timestamp().is_some()
        && view.finalizers().next().is_none()
        && view.deletion_grace_period_s().unwrap_or(0) == 0
        && !is_held(stored, new)
}

/// Seconds between a delete and its effect.
pub(crate) fn grace_period_s(stored: &Resource, old: &Value, requested: Option<i64>) -> i64 {
    if !stored.strategy.graceful_delete {
        return 0;
    }
    if is(stored, "", "Pod") { pod::grace_period_s(old, requested) } else { 0 }
}

/// Prepares an object for its deletion; true if something but `metadata.finalizers` holds it.
pub(crate) fn begin_deletion(stored: &Resource, new: &mut Value) -> bool {
    if is(stored, "", "Namespace") {
        namespace::begin_deletion(new);
    }
    is_held(stored, new)
}

pub(crate) fn is_held(stored: &Resource, value: &Value) -> bool {
    is(stored, "", "Namespace") && namespace::has_finalizers(value)
}

pub(crate) fn check_size(stored: &Resource, size_bytes: usize) -> Result<(), Status> {
    let limit = match stored.kind {
        "Decision" => DECISION_SIZE_BYTES_MAX,
        _ => OBJECT_SIZE_BYTES_MAX,
    };
    if size_bytes <= limit {
        return Ok(());
    }
    Err(Status::request_entity_too_large(format_args!("the object is {size_bytes} bytes, limit is {limit}")))
}

/// Whether a DELETE that took effect answers with the object instead of a Status. Source: upstream `ReturnDeletedObject`.
pub(crate) fn returns_deleted_object(stored: &Resource) -> bool {
    let kinds = [
        "pods",
        "services",
        "persistentvolumeclaims",
        "persistentvolumes",
        "serviceaccounts",
        "podtemplates",
        "resourcequotas",
    ];
    stored.group.is_empty() && kinds.contains(&stored.plural)
}

/// The map under `part`, made when there is none.
fn fields_of<'a>(value: &'a mut Value, part: &str) -> &'a mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let field = &mut value[part];
    if !field.is_object() {
        *field = Value::Object(Map::new());
    }
    field.as_object_mut().expect("made an object just above")
}

fn remove(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove(field);
    }
}

/// `new.field` becomes `old.field`, absence included.
fn keep(new: &mut Value, old: &Value, field: &str) {
    copy(new, old, field);
}

fn copy(to: &mut Value, from: &Value, field: &str) {
    match from.get(field) {
        Some(value) => to[field] = value.clone(),
        None => remove(to, field),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::kinds::find;
    use serde_json::json;

    #[test]
    fn the_main_resource_and_its_status_cannot_write_each_other() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"replicas": 1}, "status": {"replicas": 1}});
        let sent = json!({"metadata": {"name": "a", "generation": 1}, "spec": {"replicas": 5}, "status": {"replicas": 5}});
        let mut main = sent.clone();
        prepare_update(deployments, Part::Main, &mut main, &old);
        assert_eq!((&main["spec"]["replicas"], &main["status"]["replicas"]), (&json!(5), &json!(1)));
        assert_eq!(meta::of(&main).generation(), 2);
        let mut status = sent;
        prepare_update(deployments, Part::Status, &mut status, &old);
        assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(1), &json!(5)));
        assert_eq!(meta::of(&status).generation(), 1);
    }

    #[test]
    fn metadata_alone_makes_no_new_generation() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let old = json!({"metadata": {"name": "a", "generation": 3}, "spec": {"replicas": 1}});
        let mut new = json!({"metadata": {"name": "a", "labels": {"x": "y"}}, "spec": {"replicas": 1}});
        prepare_update(deployments, Part::Main, &mut new, &old);
        assert_eq!(meta::of(&new).generation(), 3);
    }

    #[test]
    fn what_is_being_deleted_gets_no_new_finalizers() {
        let old = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}});
        let new =
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b", "c/d"]}});
        let errors = validate_update(&new, &old);
        assert_eq!(
            errors[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"
        );
        assert!(validate_update(&old, &old).is_empty());
    }
}
