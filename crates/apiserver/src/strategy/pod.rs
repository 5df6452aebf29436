//! Pods: pending until bound, bound once, deleted with grace once bound.
//!
//! Rules and texts are upstream's (`pkg/registry/core/pod/{strategy.go,storage/storage.go}`).

use apimachinery::quantity::Quantity;
use apimachinery::status::{FieldError, GroupResource, Path, Status};
use apimachinery::{Value, meta, time};
use serde_json::json;

const EPHEMERAL: &str = "ephemeralContainers";
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

/// What `pods/ephemeralcontainers` may change.
pub(super) fn keep_all_but_ephemeral_containers(new: &mut Value, old: &Value) {
    let sent = new.get("spec").and_then(|spec| spec.get(EPHEMERAL)).cloned();
    *new = old.clone();
    match sent {
        Some(sent) => super::fields_of(new, "spec").insert(EPHEMERAL.to_owned(), sent),
        None => super::fields_of(new, "spec").shift_remove(EPHEMERAL),
    };
}

/// Containers for debugging are added with a name of their own, and then stay as they are.
pub(crate) fn check_ephemeral_containers(new: &Value, old: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let path = spec.child(EPHEMERAL);
    let mut errors = Vec::new();
    let name =
        |container: &Value| container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut taken: Vec<String> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| list(new, "spec", field).map(name))
        .collect();
    for (index, container) in list(new, "spec", EPHEMERAL).enumerate() {
        let at = path.index(index);
        let name = name(container);
        if name.is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        } else if taken.contains(&name) {
            errors.push(FieldError::duplicate(&at.child("name"), name.clone()));
        }
        if container.get("image").and_then(Value::as_str).unwrap_or_default().is_empty() {
            errors.push(FieldError::required(&at.child("image"), ""));
        }
        taken.push(name);
    }
    for known in list(old, "spec", EPHEMERAL) {
        let kept = list(new, "spec", EPHEMERAL).find(|container| container.get("name") == known.get("name"));
        let what = match kept {
            Some(kept) if kept == known => continue,
            Some(_) => "changed",
            None => "removed",
        };
        let why = format!("existing ephemeral containers \"{}\" may not be {what}\n", name(known));
        errors.push(FieldError::forbidden(&path, why));
    }
    errors
}

/// What `pods/resize` may change.
pub(super) fn keep_all_but_resources(new: &mut Value, old: &Value) {
    let mut kept = old.clone();
    for field in ["containers", "initContainers"] {
        let containers =
            kept.get_mut("spec").and_then(|spec| spec.get_mut(field)).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let sent = list(new, "spec", field).find(|sent| sent.get("name") == container.get("name"));
            let Some(sent) = sent else { continue };
            for part in ["resources", "resizePolicy"] {
                super::copy(container, sent, part);
            }
        }
    }
    *new = kept;
}

/// A request above its limit is no size; and a finished pod has none to change.
pub(crate) fn check_resize(new: &Value) -> Vec<FieldError> {
    let spec = Path::new("spec");
    let path = spec.child("containers");
    let mut errors = Vec::new();
    if matches!(text(new, "status", "phase"), "Succeeded" | "Failed") {
        errors.push(FieldError::forbidden(&spec, "Pod running in unsupported state may not be updated"));
    }
    for (index, container) in list(new, "spec", "containers").enumerate() {
        let at = path.index(index);
        let resources = at.child("resources");
        let requests = container.get("resources").and_then(|resources| resources.get("requests"));
        for (name, request) in requests.and_then(Value::as_object).into_iter().flatten() {
            let limit = container.get("resources").and_then(|resources| resources.get("limits")?.get(name));
            let over = match (Quantity::from_value(request), limit.map(Quantity::from_value)) {
                (Ok(request), Some(Ok(limit))) => request > limit,
                (Ok(_), None) => false,
                _ => true,
            };
            if over {
                let shown = limit.and_then(Value::as_str).unwrap_or_default();
                let why = format!("must be less than or equal to {name} limit of {shown}");
                errors.push(FieldError::invalid(&resources.child("requests"), request.clone(), why));
            }
        }
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
