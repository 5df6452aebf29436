//! Rules for `metadata`, the same for every kind except the form of names.

use crate::kinds::Resource;
use crate::status::{FieldError, Path};
use crate::{Object, Value, names};

use super::{array, entries, immutable, text};

/// Most bytes of all annotation keys and values together.
const ANNOTATIONS_SIZE_BYTES_MAX: usize = 256 * 1024;

const METADATA: Path<'static> = Path::new("metadata");

type NameRule = fn(&str) -> Vec<String>;

/// What a name of this kind must look like.
fn name_rule(resource: &Resource) -> NameRule {
    match resource.type_name {
        "core.v1.Namespace" => names::dns1123_label,
        "core.v1.Service" => names::dns1035_label,
        "batch.v1.CronJob" => cron_job_name,
        name if name.starts_with("rbac.") => names::path_segment,
        _ => names::dns1123_subdomain,
    }
}

/// A cron job's name leaves room for what its jobs' names add.
fn cron_job_name(name: &str) -> Vec<String> {
    let mut complaints = names::dns1123_subdomain(name);
    if name.len() > 52 {
        complaints.push("must be no more than 52 characters".to_owned());
    }
    complaints
}

pub(super) fn create(resource: &Resource, value: &Value, errors: &mut Vec<FieldError>) {
    let Some(metadata) = value.get("metadata").and_then(Value::as_object) else {
        errors.push(FieldError::required(&METADATA.child("name"), "name or generateName is required"));
        return;
    };
    let (name, generate_name) = (text(metadata, "name"), text(metadata, "generateName"));
    let rule = name_rule(resource);
    if !generate_name.is_empty() {
        // The generated part makes up for a dash at the end.
        let prefix = format!("{}a", generate_name.strip_suffix('-').unwrap_or(generate_name));
        let judged = if generate_name.ends_with('-') { prefix } else { generate_name.to_owned() };
        errors.extend(
            rule(&judged)
                .into_iter()
                .map(|why| FieldError::invalid(&METADATA.child("generateName"), generate_name, why)),
        );
    }
    if name.is_empty() && generate_name.is_empty() {
        errors.push(FieldError::required(&METADATA.child("name"), "name or generateName is required"));
    } else if !name.is_empty() {
        errors.extend(
            rule(name).into_iter().map(|why| FieldError::invalid(&METADATA.child("name"), name, why)),
        );
    }
    let namespace = text(metadata, "namespace");
    match (resource.namespaced, namespace.is_empty()) {
        (true, true) => errors.push(FieldError::required(&METADATA.child("namespace"), "")),
        (true, false) => errors.extend(
            names::dns1123_label(namespace)
                .into_iter()
                .map(|why| FieldError::invalid(&METADATA.child("namespace"), namespace, why)),
        ),
        (false, false) => {
            errors.push(FieldError::forbidden(&METADATA.child("namespace"), "not allowed on this type"))
        }
        (false, true) => {}
    }
    common(metadata, errors);
}

pub(super) fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let of = |value: &Value| value.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let (new, old) = (of(new), of(old));
    for field in
        ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"]
    {
        immutable(&METADATA.child(field), new.get(field), old.get(field), errors);
    }
    let generation =
        |metadata: &Object| metadata.get("generation").and_then(Value::as_i64).unwrap_or_default();
    if generation(&new) < generation(&old) {
        let why = "must not be decremented";
        errors.push(FieldError::invalid(&METADATA.child("generation"), generation(&new), why));
    }
    if old.contains_key("deletionTimestamp") {
        let before: Vec<&str> = array(&old, "finalizers").iter().filter_map(Value::as_str).collect();
        let added =
            array(&new, "finalizers").iter().filter_map(Value::as_str).filter(|name| !before.contains(name));
        let added: Vec<String> = added.map(|name| format!("{name:?}")).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden(&METADATA.child("finalizers"), why));
        }
    }
    common(&new, errors);
}

fn common(metadata: &Object, errors: &mut Vec<FieldError>) {
    labels(metadata, &METADATA.child("labels"), errors);
    annotations(metadata, &METADATA.child("annotations"), errors);
    for (index, finalizer) in array(metadata, "finalizers").iter().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        let path = METADATA.child("finalizers");
        errors
            .extend(names::qualified_name(name).into_iter().map(|why| FieldError::invalid(&path, name, why)));
        if !name.contains('/') && !matches!(name, "foregroundDeletion" | "orphan" | "kubernetes") {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(&path.index(index), name, why));
        }
    }
    owners(metadata, errors);
    if metadata.get("generation").and_then(Value::as_i64).is_some_and(|generation| generation < 0) {
        let given = metadata.get("generation").cloned().unwrap_or_default();
        errors.push(FieldError::invalid(&METADATA.child("generation"), given, super::NOT_NEGATIVE));
    }
}

/// Labels of any object; `metadata` holds them as `labels`.
pub(super) fn labels(metadata: &Object, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (name, value) in entries(metadata, "labels") {
        errors.extend(
            names::qualified_name(name).into_iter().map(|why| FieldError::invalid(path, name.as_str(), why)),
        );
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::label_value(value).into_iter().map(|why| FieldError::invalid(path, value, why)));
    }
}

/// Annotations of any object; `metadata` holds them as `annotations`.
pub(super) fn annotations(metadata: &Object, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut size_bytes = 0;
    for (name, value) in entries(metadata, "annotations") {
        let judged = names::qualified_name(&name.to_lowercase()).into_iter();
        errors.extend(judged.map(|why| FieldError::invalid(path, name.as_str(), why)));
        size_bytes += name.len() + value.as_str().map_or(0, str::len);
    }
    if size_bytes > ANNOTATIONS_SIZE_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_SIZE_BYTES_MAX));
    }
}

fn owners(metadata: &Object, errors: &mut Vec<FieldError>) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<&str> = None;
    for (index, owner) in array(metadata, "ownerReferences").iter().enumerate() {
        let at = path.index(index);
        let Some(owner_members) = owner.as_object() else { continue };
        for (field, why) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner_members, field).is_empty() {
                errors.push(FieldError::invalid(&at.child(field), "", why));
            }
        }
        if text(owner_members, "apiVersion") == "v1" && text(owner_members, "kind") == "Event" {
            let why = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(FieldError::invalid(&at, owner.clone(), why));
        }
        if owner_members.get("controller") == Some(&Value::Bool(true)) {
            let name = text(owner_members, "name");
            if let Some(first) = controller {
                let why = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                );
                let all = metadata.get("ownerReferences").cloned().unwrap_or_default();
                errors.push(FieldError::invalid(&path, all, why));
            }
            controller = Some(name);
        }
    }
}
