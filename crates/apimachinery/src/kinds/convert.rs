//! Conversion between the served forms of the two kinds that have more than one: events and autoscalers.
//!
//! Everything else is stored as it is served. A conversion never loses what the other form can hold; an autoscaler's
//! v2-only metrics travel in the annotation that upstream uses for it.

use serde_json::{Value, json};

use super::{Resource, find};
use crate::Object;

const METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/conditions";
const CURRENT_METRICS_ANNOTATION: &str = "autoscaling.alpha.kubernetes.io/current-metrics";

/// Renamed members of an event: core name, events.k8s.io name.
const EVENT_MEMBERS: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// The row whose form is stored: the row itself except for events.k8s.io (core) and autoscaling/v1 (v2).
pub fn storage_resource(resource: &'static Resource) -> &'static Resource {
    let stored = match (resource.group, resource.version, resource.plural) {
        ("events.k8s.io", "v1", "events") => find("", "v1", "events"),
        ("autoscaling", "v1", "horizontalpodautoscalers") => {
            find("autoscaling", "v2", "horizontalpodautoscalers")
        }
        _ => None,
    };
    stored.unwrap_or(resource)
}

/// From the form that `resource` serves to the stored form.
pub fn to_storage(resource: &Resource, value: Value) -> Value {
    match (resource.group, resource.version, resource.plural, value) {
        ("events.k8s.io", "v1", "events", Value::Object(event)) => {
            rename(event, "v1", EVENT_MEMBERS.iter().map(|(core, new)| (*new, *core)))
        }
        ("autoscaling", "v1", "horizontalpodautoscalers", Value::Object(autoscaler)) => {
            autoscaler_v2(autoscaler)
        }
        (_, _, _, value) => value,
    }
}

/// From the stored form to the form that `resource` serves.
pub fn from_storage(resource: &Resource, value: Value) -> Value {
    match (resource.group, resource.version, resource.plural, value) {
        ("events.k8s.io", "v1", "events", Value::Object(event)) => {
            rename(event, "events.k8s.io/v1", EVENT_MEMBERS.iter().copied())
        }
        ("autoscaling", "v1", "horizontalpodautoscalers", Value::Object(autoscaler)) => {
            autoscaler_v1(autoscaler)
        }
        (_, _, _, value) => value,
    }
}

/// Renames members in place; the order of the others stays.
fn rename<'a>(
    event: Object,
    api_version: &str,
    names: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Value {
    let renamed = event.into_iter().map(|(name, value)| match name.as_str() {
        "apiVersion" => (name, Value::from(api_version)),
        _ => match names.clone().find(|(from, _)| *from == name) {
            Some((_, to)) => (to.to_owned(), value),
            None => (name, value),
        },
    });
    Value::Object(renamed.collect())
}

fn cpu_metric(which: &str, percentage: &Value) -> Value {
    let mut metric = json!({"type": "Resource", "resource": {"name": "cpu"}});
    metric["resource"][which] = match which {
        "target" => json!({"type": "Utilization", "averageUtilization": percentage}),
        _ => json!({"averageUtilization": percentage}),
    };
    metric
}

fn autoscaler_v2(mut autoscaler: Object) -> Value {
    autoscaler.insert("apiVersion".into(), "autoscaling/v2".into());
    let mut annotation = |name: &str| {
        let annotations = autoscaler.get_mut("metadata")?.get_mut("annotations")?.as_object_mut()?;
        let text = annotations.get(name)?.as_str()?;
        let value = serde_json::from_str::<Value>(text).ok()?;
        annotations.shift_remove(name);
        Some(value)
    };
    let metrics = annotation(METRICS_ANNOTATION);
    let behavior = annotation(BEHAVIOR_ANNOTATION);
    let conditions = annotation(CONDITIONS_ANNOTATION);
    let current = annotation(CURRENT_METRICS_ANNOTATION);
    if let Some(spec) = autoscaler.get_mut("spec").and_then(Value::as_object_mut) {
        let target =
            spec.shift_remove("targetCPUUtilizationPercentage").map(|value| cpu_metric("target", &value));
        join(spec, "metrics", target, metrics);
        if let Some(behavior) = behavior {
            spec.insert("behavior".into(), behavior);
        }
    }
    if let Some(status) = autoscaler.get_mut("status").and_then(Value::as_object_mut) {
        let cpu =
            status.shift_remove("currentCPUUtilizationPercentage").map(|value| cpu_metric("current", &value));
        join(status, "currentMetrics", cpu, current);
        if let Some(conditions) = conditions {
            status.insert("conditions".into(), conditions);
        }
    }
    drop_empty_annotations(&mut autoscaler);
    Value::Object(autoscaler)
}

fn join(owner: &mut Object, name: &str, first: Option<Value>, rest: Option<Value>) {
    let mut all: Vec<Value> = first.into_iter().collect();
    if let Some(Value::Array(rest)) = rest {
        all.extend(rest);
    }
    if !all.is_empty() {
        owner.insert(name.to_owned(), Value::Array(all));
    }
}

fn autoscaler_v1(mut autoscaler: Object) -> Value {
    autoscaler.insert("apiVersion".into(), "autoscaling/v1".into());
    let mut carried: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = autoscaler.get_mut("spec").and_then(Value::as_object_mut) {
        let (cpu, rest) = split_cpu(spec.shift_remove("metrics"), "target");
        if let Some(cpu) = cpu {
            spec.insert("targetCPUUtilizationPercentage".into(), cpu);
        }
        carried.extend(rest.map(|rest| (METRICS_ANNOTATION, rest)));
        carried.extend(spec.shift_remove("behavior").map(|behavior| (BEHAVIOR_ANNOTATION, behavior)));
    }
    if let Some(status) = autoscaler.get_mut("status").and_then(Value::as_object_mut) {
        let (cpu, rest) = split_cpu(status.shift_remove("currentMetrics"), "current");
        if let Some(cpu) = cpu {
            status.insert("currentCPUUtilizationPercentage".into(), cpu);
        }
        carried.extend(rest.map(|rest| (CURRENT_METRICS_ANNOTATION, rest)));
        carried
            .extend(status.shift_remove("conditions").map(|conditions| (CONDITIONS_ANNOTATION, conditions)));
    }
    if !carried.is_empty() {
        let metadata = autoscaler.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            if let Some(annotations) = annotations.as_object_mut() {
                let texts =
                    carried.into_iter().map(|(name, value)| (name.to_owned(), value.to_string().into()));
                annotations.extend(texts);
            }
        }
    }
    Value::Object(autoscaler)
}

/// Takes the first CPU utilization metric out of a list; the rest is `None` when nothing is left.
fn split_cpu(metrics: Option<Value>, which: &str) -> (Option<Value>, Option<Value>) {
    let Some(Value::Array(mut metrics)) = metrics else { return (None, None) };
    let position = metrics.iter().position(|metric| {
        metric["resource"]["name"] == "cpu" && !metric["resource"][which]["averageUtilization"].is_null()
    });
    let cpu =
        position.map(|position| metrics.remove(position)["resource"][which]["averageUtilization"].take());
    (cpu, (!metrics.is_empty()).then_some(Value::Array(metrics)))
}

fn drop_empty_annotations(autoscaler: &mut Object) {
    if let Some(metadata) = autoscaler.get_mut("metadata").and_then(Value::as_object_mut)
        && metadata
            .get("annotations")
            .is_some_and(|annotations| annotations.as_object().is_some_and(Object::is_empty))
    {
        metadata.shift_remove("annotations");
    }
}
