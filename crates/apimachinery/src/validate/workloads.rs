//! Rules of kinds that make pods from a template.

use serde_json::json;

use crate::kinds::Resource;
use crate::selector::LabelSelector;
use crate::status::{FieldError, Path};
use crate::{Object, Value};

use super::{child, immutable, object, same, text};

fn template_labels(spec: &Object) -> Option<&Object> {
    object(object(object(spec, "template")?, "metadata")?, "labels")
}

fn restart_policy(spec: &Object) -> &str {
    let pod = object(spec, "template").and_then(|template| object(template, "spec"));
    pod.map_or("", |pod| text(pod, "restartPolicy"))
}

/// The selector must exist and match the pods that the template makes.
pub(super) fn selector(
    type_name: &str,
    spec: &Object,
    path: Option<&Path<'_>>,
    errors: &mut Vec<FieldError>,
) {
    let at = child(path, "selector");
    match object(spec, "selector") {
        None => errors.push(FieldError::required(&at, "")),
        Some(selector) if selector.is_empty() => {
            let noun = match type_name {
                "apps.v1.DeploymentSpec" => "deployment",
                "apps.v1.StatefulSetSpec" => "statefulset",
                "apps.v1.DaemonSetSpec" => "daemonset",
                _ => "deployment",
            };
            errors.push(FieldError::invalid(&at, json!({}), format!("empty selector is invalid for {noun}")));
        }
        Some(_) => {
            let none = Object::new();
            let labels = template_labels(spec).unwrap_or(&none);
            let parsed = match LabelSelector::from_value(spec.get("selector")) {
                Ok(parsed) => parsed,
                Err(why) => {
                    let given = spec.get("selector").cloned().unwrap_or_default();
                    errors.push(FieldError::invalid(&at, given, why.to_string()));
                    return;
                }
            };
            if !parsed.matches(|name| labels.get(name).and_then(Value::as_str)) {
                let template = child(path, "template");
                let metadata = template.child("metadata");
                let shown = Value::Object(labels.clone());
                let why = "`selector` does not match template `labels`";
                errors.push(FieldError::invalid(&metadata.child("labels"), shown, why));
            }
        }
    }
    always(spec, path, errors);
}

fn always(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let policy = restart_policy(spec);
    if !policy.is_empty() && policy != "Always" {
        let template = child(path, "template");
        let pod = template.child("spec");
        errors.push(FieldError::not_supported(&pod.child("restartPolicy"), policy, &["Always"]));
    }
}

pub(super) fn strategy(strategy: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let at = child(path, "rollingUpdate");
    let Some(rolling) = object(strategy, "rollingUpdate") else { return };
    if text(strategy, "type") == "Recreate" {
        let why = "may not be specified when strategy `type` is 'Recreate'";
        errors.push(FieldError::forbidden(&at, why));
        return;
    }
    for field in ["maxUnavailable", "maxSurge"] {
        percentage(rolling, field, &at, errors);
    }
    let is_none = |field: &str| matches!(rolling.get(field), Some(value) if *value == json!(0) || *value == json!("0%"));
    if is_none("maxUnavailable") && is_none("maxSurge") {
        let given = rolling.get("maxUnavailable").cloned().unwrap_or_default();
        let why = "may not be 0 when `maxSurge` is 0";
        errors.push(FieldError::invalid(&at.child("maxUnavailable"), given, why));
    }
}

/// A number that is not negative, or a percentage.
fn percentage(members: &Object, field: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match members.get(field) {
        Some(Value::String(given)) => {
            let digits = given.strip_suffix('%').unwrap_or_default();
            if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
                let why = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
                           regex used for validation is '[0-9]+%')";
                errors.push(FieldError::invalid(&path.child(field), given.as_str(), why));
            }
        }
        Some(given) if given.as_i64().is_some_and(|given| given < 0) => {
            errors.push(FieldError::invalid(&path.child(field), given.clone(), super::NOT_NEGATIVE));
        }
        _ => {}
    }
}

pub(super) fn replication_controller(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let none = Object::new();
    let selector = object(spec, "selector").unwrap_or(&none);
    if selector.is_empty() {
        errors.push(FieldError::required(&child(path, "selector"), ""));
    }
    let labels = template_labels(spec).unwrap_or(&none);
    if !selector.iter().all(|(name, value)| labels.get(name) == Some(value)) {
        let template = child(path, "template");
        let metadata = template.child("metadata");
        let why = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid(&metadata.child("labels"), Value::Object(labels.clone()), why));
    }
    always(spec, path, errors);
}

pub(super) fn job(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let policy = restart_policy(spec);
    if !matches!(policy, "OnFailure" | "Never") {
        let template = child(path, "template");
        let pod = template.child("spec");
        let allowed = ["OnFailure", "Never"];
        errors.push(FieldError::not_supported(&pod.child("restartPolicy"), policy, &allowed));
    }
    if text(spec, "completionMode") == "Indexed" && !spec.contains_key("completions") {
        let why = "when completion mode is Indexed";
        errors.push(FieldError::required(&child(path, "completions"), why));
    }
}

/// Fields that an update may not change.
pub(super) fn update(resource: &Resource, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const SPEC: Path<'static> = Path::new("spec");
    let fields: &[&str] = match resource.type_name {
        "apps.v1.Deployment" | "apps.v1.ReplicaSet" | "apps.v1.DaemonSet" => &["selector"],
        "batch.v1.Job" => {
            &["selector", "completionMode", "backoffLimitPerIndex", "managedBy", "podFailurePolicy"]
        }
        "apps.v1.StatefulSet" => {
            stateful_set(&new["spec"], &old["spec"], errors);
            return;
        }
        _ => return,
    };
    for field in fields {
        immutable(&SPEC.child(field), new["spec"].get(field), old["spec"].get(field), errors);
    }
    if resource.type_name == "batch.v1.Job" {
        job_template(&new["spec"], &old["spec"], errors);
    }
}

/// A suspended job that never started may still choose where its pods go; otherwise its template is fixed.
fn job_template(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if old["suspend"] == true {
        let pod = |spec: &Value| {
            let mut template = spec["template"].clone();
            if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.shift_remove("labels");
                metadata.shift_remove("annotations");
            }
            if let Some(spec) = template.get_mut("spec").and_then(Value::as_object_mut) {
                for field in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                    spec.shift_remove(field);
                }
            }
            template
        };
        immutable(&Path::new("spec.template"), Some(&pod(new)), Some(&pod(old)), errors);
        return;
    }
    immutable(&Path::new("spec.template"), new.get("template"), old.get("template"), errors);
}

fn stateful_set(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const CHANGEABLE: &[&str] = &[
        "replicas",
        "ordinals",
        "template",
        "updateStrategy",
        "revisionHistoryLimit",
        "persistentVolumeClaimRetentionPolicy",
        "minReadySeconds",
    ];
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return };
    let names = new.keys().chain(old.keys());
    let changed = names
        .filter(|name| !CHANGEABLE.contains(&name.as_str()))
        .any(|name| !same(new.get(name), old.get(name)));
    if changed {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                   'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden(&Path::new("spec"), why));
    }
}
