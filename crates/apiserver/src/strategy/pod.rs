//! Pods: pending until bound, bound once, deleted with grace once bound.
//!
//! Rules and texts are upstream's (`pkg/registry/core/pod/{strategy.go,storage/storage.go}`).

use apimachinery::status::{FieldError, GroupResource, Path, Status};
use apimachinery::{Value, meta, time};
use serde_json::json;

/// Source: upstream core/v1 `DefaultTerminationGracePeriodSeconds`.
const GRACE_PERIOD_S: i64 = 30;
/// Ten years: longer than any pod means, and far from where times overflow.
const GRACE_PERIOD_S_MAX: i64 = 10 * 365 * 86_400;
const BINDING: GroupResource<'static> = GroupResource::new("", "pods/binding");

pub(super) fn prepare_create(pod: &mut Value) {
    let gated = list(pod, "spec", "schedulingGates").next().is_some();
    if gated {
        let condition = json!({
            "type": "PodScheduled", "status": "False", "lastProbeTime": null, "lastTransitionTime": null,
            "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates",
        });
        pod["status"]["conditions"] = json!([without_nulls(condition)]);
    }
}

pub(super) fn validate_create(pod: &Value) -> Vec<FieldError> {
    let gated = list(pod, "spec", "schedulingGates").next().is_some();
    if gated && !text(pod, "spec", "nodeName").is_empty() {
        let spec = Path::new("spec");
        let why = "cannot be set until all schedulingGates have been cleared";
        return vec![FieldError::forbidden(&spec.child("nodeName"), why)];
    }
    Vec::new()
}

/// A pod that no node knows of goes at once.
pub(super) fn grace_period_s(pod: &Value, requested: Option<i64>) -> i64 {
    let phase = text(pod, "status", "phase");
    if text(pod, "spec", "nodeName").is_empty() || phase == "Failed" || phase == "Succeeded" {
        return 0;
    }
    let of_pod = pod.get("spec").and_then(|spec| spec.get("terminationGracePeriodSeconds"));
    let period_s = requested.or_else(|| of_pod.and_then(Value::as_i64)).unwrap_or(GRACE_PERIOD_S);
    // Negative values mean one second, as upstream treats them.
    if period_s < 0 { 1 } else { period_s.min(GRACE_PERIOD_S_MAX) }
}

/// The pod as a Binding leaves it. `pod` is the current state.
pub(crate) fn bind(pod: &Value, name: &str, binding: &Value, now_s: i64) -> Result<Value, Status> {
    let conflict = |why: String| Err(Status::conflict(BINDING, name, why));
    let node = text(binding, "target", "name");
    let sent = meta::of(binding);
    let current = meta::of(pod);
    if !sent.uid().is_empty() && sent.uid() != current.uid() {
        return conflict(format!(
            "Precondition failed: UID in precondition: {}, UID in object meta: {}",
            sent.uid(),
            current.uid()
        ));
    }
    if !sent.resource_version().is_empty() && sent.resource_version() != current.resource_version() {
        return conflict(format!(
            "Precondition failed: ResourceVersion in precondition: {}, ResourceVersion in object meta: {}",
            sent.resource_version(),
            current.resource_version()
        ));
    }
    if current.deletion_timestamp().is_some() {
        return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let assigned = text(pod, "spec", "nodeName");
    if !assigned.is_empty() {
        return conflict(format!("pod {name} is already assigned to node \"{assigned}\""));
    }
    if list(pod, "spec", "schedulingGates").next().is_some() {
        return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    let mut bound = pod.clone();
    super::fields_of(&mut bound, "spec").insert("nodeName".to_owned(), json!(node));
    let mut metadata = meta::of_mut(&mut bound);
    for (key, value) in sent.annotations() {
        metadata.set_annotation(key, value);
    }
    for (key, value) in sent.labels() {
        metadata.set_label(key, value);
    }
    set_scheduled(&mut bound, now_s);
    Ok(bound)
}

/// Complaints about a Binding itself.
pub(crate) fn check_binding(binding: &Value) -> Vec<FieldError> {
    let target = Path::new("target");
    let mut errors = Vec::new();
    let kind = text(binding, "target", "kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if text(binding, "target", "name").is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
    errors
}

fn set_scheduled(pod: &mut Value, now_s: i64) {
    let condition = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": time::format_s(now_s),
    });
    let condition = without_nulls(condition);
    let mut conditions: Vec<Value> = list(pod, "status", "conditions").cloned().collect();
    let scheduled =
        conditions.iter_mut().find(|condition| condition.get("type") == Some(&json!("PodScheduled")));
    match scheduled {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
    super::fields_of(pod, "status").insert("conditions".to_owned(), Value::Array(conditions));
}

fn without_nulls(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

fn text<'a>(value: &'a Value, part: &str, field: &str) -> &'a str {
    value.get(part).and_then(|part| part.get(field)).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, part: &str, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(part).and_then(|part| part.get(field)).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn binding() -> Value {
        json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}})
    }

    #[test]
    fn a_binding_sets_the_node_once() {
        let pod = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {}, "status": {"phase": "Pending"}});
        let bound = bind(&pod, "a", &binding(), 0).unwrap();
        assert_eq!(bound["spec"]["nodeName"], "n1");
        assert_eq!(
            bound["status"]["conditions"],
            json!([{"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z"}])
        );
        let status = bind(&bound, "a", &binding(), 0).unwrap_err();
        assert_eq!(status.code, 409);
        assert_eq!(
            status.message,
            "Operation cannot be fulfilled on pods/binding \"a\": pod a is already assigned to node \"n1\""
        );
    }

    #[test]
    fn a_pod_that_is_gated_or_going_is_not_bound() {
        let gated = json!({"metadata": {}, "spec": {"schedulingGates": [{"name": "g"}]}});
        assert!(bind(&gated, "a", &binding(), 0).unwrap_err().message.contains("schedulingGates"));
        let going = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}});
        assert!(bind(&going, "a", &binding(), 0).unwrap_err().message.contains("is being deleted"));
        let mut other = binding();
        other["metadata"]["uid"] = json!("v");
        let pod = json!({"metadata": {"uid": "u"}, "spec": {}});
        assert_eq!(bind(&pod, "a", &other, 0).unwrap_err().code, 409);
    }
}
