//! The `scale` subresource: replicas of a workload as an `autoscaling/v1` Scale.

use apimachinery::kinds::Resource;
use apimachinery::status::{FieldError, Path};
use apimachinery::{Value, meta, selector};
use serde_json::json;

/// Reads the Scale out of a workload.
pub(crate) fn of(resource: &Resource, workload: &Value) -> Value {
    let count = |part: &str| {
        workload.get(part).and_then(|part| part.get("replicas")).and_then(Value::as_i64).unwrap_or(0)
    };
    let mut metadata = serde_json::Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = meta::of(workload).field(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut spec = serde_json::Map::new();
    if count("spec") != 0 {
        spec.insert("replicas".to_owned(), json!(count("spec")));
    }
    let mut status = json!({"replicas": count("status")});
    let selector = selector_text(resource, workload);
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

/// ReplicationControllers select by a plain map, all others by a LabelSelector.
fn selector_text(resource: &Resource, workload: &Value) -> String {
    let found = workload.get("spec").and_then(|spec| spec.get("selector"));
    let Some(found) = found else { return String::new() };
    if resource.group.is_empty() {
        let labels = found.as_object().into_iter().flatten();
        let mut terms: Vec<String> =
            labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
        terms.sort();
        return terms.join(",");
    }
    selector::LabelSelector::from_value(Some(found)).map(|parsed| parsed.to_string()).unwrap_or_default()
}

/// The workload with the replicas (and the resource version, as a precondition) of a Scale.
pub(crate) fn apply(workload: &Value, scale: &Value) -> Result<Value, Vec<FieldError>> {
    let replicas =
        scale.get("spec").and_then(|spec| spec.get("replicas")).and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let spec = Path::new("spec");
        let why = "must be greater than or equal to 0";
        return Err(vec![FieldError::invalid(&spec.child("replicas"), replicas, why)]);
    }
    let mut scaled = workload.clone();
    super::fields_of(&mut scaled, "spec").insert("replicas".to_owned(), json!(replicas));
    let sent = meta::of(scale);
    let mut meta = meta::of_mut(&mut scaled);
    if !sent.resource_version().is_empty() {
        meta.set_resource_version(sent.resource_version());
    }
    if !sent.uid().is_empty() {
        meta.set_uid(sent.uid());
    }
    Ok(scaled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::kinds::find;

    #[test]
    fn a_scale_shows_and_sets_the_replicas() {
        let deployments = find("apps", "v1", "deployments").unwrap();
        let workload = json!({
            "metadata": {"name": "a", "namespace": "d", "uid": "u", "resourceVersion": "5", "labels": {"x": "y"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "a"}}}, "status": {"replicas": 1},
        });
        let scale = of(deployments, &workload);
        assert_eq!(
            scale["metadata"],
            json!({"name": "a", "namespace": "d", "uid": "u", "resourceVersion": "5"})
        );
        assert_eq!(
            (&scale["spec"], &scale["status"]),
            (&json!({"replicas": 2}), &json!({"replicas": 1, "selector": "app=a"}))
        );
        let scaled = apply(&workload, &json!({"spec": {"replicas": 7}})).unwrap();
        assert_eq!(scaled["spec"]["replicas"], 7);
        assert!(apply(&workload, &json!({"spec": {"replicas": -1}})).is_err());
    }
}
