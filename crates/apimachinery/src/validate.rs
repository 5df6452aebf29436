//! Whether an object may be stored: the rules of upstream's validation, with its texts.
//!
//! Three layers. Every object's metadata (metadata.rs). Rows that belong to a struct type and hold wherever it stands
//! (rows.rs): required fields, allowed values, ranges, names. Functions for what looks at several fields (pod.rs,
//! workloads.rs, objects.rs). Input is an object after `json::prune` and `defaults::apply`; anything else may be judged
//! wrongly, but never panics. Breadth grows by rows. Not here: rules that need other objects (admission, registry).

mod metadata;
mod objects;
mod pod;
mod rows;
mod workloads;

use crate::kinds::Resource;
use crate::schema::{Kind, Schema, Type};
use crate::status::{FieldError, Path};
use crate::{Object, Value, json, names};
use rows::Rule;

/// Judges an object that is to be created.
pub fn create(resource: &Resource, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !resource.strategy.review {
        metadata::create(resource, value, &mut errors);
    }
    content(resource, value, &mut errors);
    objects::create(resource, value, &mut errors);
    errors
}

/// Judges an object that is to replace `old`.
pub fn update(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata::update(new, old, &mut errors);
    if resource.type_name == "core.v1.Pod" {
        // What was accepted before stays acceptable: only the changes of a pod are judged.
        pod::update(new, old, &mut errors);
        return errors;
    }
    content(resource, new, &mut errors);
    workloads::update(resource, new, old, &mut errors);
    objects::update(resource, new, old, &mut errors);
    errors
}

/// Judges an object whose status is to change; the rest is the old object's.
pub fn update_status(resource: &Resource, new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    metadata::update(new, old, &mut errors);
    match resource.type_name {
        "core.v1.Pod" => pod::status(&new["status"], &mut errors),
        "core.v1.Node" => objects::node_status(&new["status"], &mut errors),
        _ => {}
    }
    errors
}

/// Judges the body of a subresource, such as a binding or a scale.
pub fn body(type_name: &str, value: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let schema = Schema::builtin();
    if let (Some(type_), Value::Object(members)) = (schema.type_(type_name), value) {
        check(schema, type_, members, None, &mut errors);
    }
    errors
}

fn content(resource: &Resource, value: &Value, errors: &mut Vec<FieldError>) {
    let schema = Schema::builtin();
    if let (Some(type_), Value::Object(members)) = (schema.type_(resource.type_name), value) {
        check(schema, type_, members, None, errors);
    }
}

/// Applies the rules of a type to a value of it, then goes deeper. `path` is `None` at the root.
fn check(
    schema: &Schema,
    type_: &Type,
    members: &Object,
    path: Option<&Path<'_>>,
    errors: &mut Vec<FieldError>,
) {
    for rule in rows::of(type_.name) {
        apply(*rule, members, path, errors);
    }
    match type_.name {
        "core.v1.PodSpec" => pod::spec(members, path, errors),
        "core.v1.Container" => pod::container(members, path, errors),
        "core.v1.EnvVar" => pod::variable(members, path, errors),
        "core.v1.PodTemplateSpec" => pod::template(members, path, errors),
        "core.v1.WeightedPodAffinityTerm" => pod::weight(members, path, errors),
        "meta.v1.LabelSelectorRequirement" => pod::label_selector_requirement(members, path, errors),
        "core.v1.Probe" => pod::handler(&["exec", "httpGet", "tcpSocket", "grpc"], members, path, errors),
        "core.v1.LifecycleHandler" => {
            pod::handler(&["exec", "httpGet", "tcpSocket", "sleep"], members, path, errors)
        }
        "core.v1.ResourceRequirements" => pod::resources(members, path, errors),
        "core.v1.Toleration" => pod::toleration(members, path, errors),
        "core.v1.Volume" => pod::volume(members, path, errors),
        "core.v1.NodeSelectorRequirement" => pod::node_selector_requirement(members, path, errors),
        "core.v1.ServiceSpec" => objects::service(members, path, errors),
        "rbac.v1.PolicyRule" => objects::policy_rule(members, path, errors),
        "apps.v1.DeploymentSpec"
        | "apps.v1.ReplicaSetSpec"
        | "apps.v1.StatefulSetSpec"
        | "apps.v1.DaemonSetSpec" => {
            workloads::selector(type_.name, members, path, errors);
        }
        "apps.v1.DeploymentStrategy" => workloads::strategy(members, path, errors),
        "networking.v1.IngressSpec" => objects::ingress(members, path, errors),
        "networking.v1.HTTPIngressPath" => objects::ingress_path(members, path, errors),
        "apiextensions.v1.CustomResourceDefinitionSpec" => objects::custom_resource(members, path, errors),
        "core.v1.ReplicationControllerSpec" => workloads::replication_controller(members, path, errors),
        "batch.v1.JobSpec" => workloads::job(members, path, errors),
        "core.v1.PersistentVolumeClaimSpec" => objects::volume_claim(members, path, errors),
        "core.v1.PersistentVolumeSpec" => objects::volume(members, path, errors),
        "policy.v1.PodDisruptionBudgetSpec" => objects::disruption_budget(members, path, errors),
        _ => {}
    }
    for (name, value) in members {
        // A status is the servers' word and metadata has rules of its own.
        if path.is_none() && matches!(name.as_str(), "status" | "metadata") {
            continue;
        }
        if let Some(field) = type_.field(name) {
            deeper(schema, &field.kind, value, &child(path, name), errors);
        }
    }
}

fn deeper(schema: &Schema, kind: &Kind, value: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    match (kind, value) {
        (Kind::Ref("apiextensions.v1.JSONSchemaProps"), _) => {}
        (Kind::Ref(name), Value::Object(members)) => {
            if let Some(type_) = schema.type_(name) {
                check(schema, type_, members, Some(path), errors);
            }
        }
        (Kind::Array(item), Value::Array(items)) if matches!(**item, Kind::Ref(_)) => {
            for (index, value) in items.iter().enumerate() {
                deeper(schema, item, value, &path.index(index), errors);
            }
        }
        (Kind::Map(item), Value::Object(members)) if matches!(**item, Kind::Ref(_)) => {
            for (name, value) in members {
                deeper(schema, item, value, &path.key(name), errors);
            }
        }
        _ => {}
    }
}

fn apply(rule: Rule, members: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    match rule {
        Rule::Required(field, detail) => {
            if members.get(field).is_none_or(json::is_zero) {
                errors.push(FieldError::required(&child(path, field), detail));
            }
        }
        Rule::OneOf(field, allowed) => {
            let given = text(members, field);
            if !given.is_empty() && !allowed.contains(&given) {
                errors.push(FieldError::not_supported(&child(path, field), given, allowed));
            }
        }
        Rule::Name(field, judge) => {
            let given = text(members, field);
            if !given.is_empty() {
                errors.extend(
                    judge(given).into_iter().map(|why| FieldError::invalid(&child(path, field), given, why)),
                );
            }
        }
        Rule::Between(field, low, high) => {
            if let Some(given) =
                members.get(field).and_then(Value::as_i64).filter(|given| !(low..=high).contains(given))
            {
                let why = format!("must be between {low} and {high}, inclusive");
                errors.push(FieldError::invalid(&child(path, field), given, why));
            }
        }
        Rule::Port(field) => {
            let given = members.get(field).and_then(Value::as_i64).unwrap_or_default();
            if given != 0 {
                let judged = names::port_number(given).into_iter();
                errors.extend(judged.map(|why| FieldError::invalid(&child(path, field), given, why)));
            }
        }
        Rule::PortOrName(field) => {
            let given = members.get(field).unwrap_or(&Value::Null);
            let judged = match given {
                Value::String(name) => names::port_name(name),
                other => other.as_i64().map_or_else(Vec::new, names::port_number),
            };
            errors.extend(
                judged.into_iter().map(|why| FieldError::invalid(&child(path, field), given.clone(), why)),
            );
        }
        Rule::NotNegative(field) => {
            if let Some(given) = members.get(field).and_then(Value::as_i64).filter(|given| *given < 0) {
                errors.push(FieldError::invalid(&child(path, field), given, NOT_NEGATIVE));
            }
        }
        Rule::Positive(field, why) => {
            if let Some(given) = members.get(field).and_then(Value::as_i64).filter(|given| *given <= 0) {
                errors.push(FieldError::invalid(&child(path, field), given, why));
            }
        }
        Rule::Unique(list, key) => unique(members, list, key, path, errors),
    }
}

const NOT_NEGATIVE: &str = "must be greater than or equal to 0";

fn unique(members: &Object, list: &str, key: &str, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let mut seen = std::collections::BTreeSet::new();
    for (index, item) in array(members, list).iter().enumerate() {
        let given = item.get(key).and_then(Value::as_str).unwrap_or_default();
        if !given.is_empty() && !seen.insert(given) {
            errors.push(FieldError::duplicate(&child(path, list).index(index).child(key), given));
        }
    }
}

fn child<'a>(path: Option<&'a Path<'a>>, name: &'a str) -> Path<'a> {
    match path {
        Some(path) => path.child(name),
        None => Path::new(name),
    }
}

fn text<'a>(members: &'a Object, name: &str) -> &'a str {
    members.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn array<'a>(members: &'a Object, name: &str) -> &'a [Value] {
    members.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn object<'a>(members: &'a Object, name: &str) -> Option<&'a Object> {
    members.get(name).and_then(Value::as_object)
}

/// Members of an optional object, none if it is absent.
fn entries<'a>(members: &'a Object, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object(members, name).into_iter().flatten()
}

/// Equal as Go's semantic comparison sees it: what is absent equals what is empty.
fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |value: Option<&Value>| {
        value.is_none_or(|value| json::is_zero(value) && !value.is_boolean() && !value.is_number())
    };
    a == b || (empty(a) && empty(b))
}

fn immutable(path: &Path<'_>, new: Option<&Value>, old: Option<&Value>, errors: &mut Vec<FieldError>) {
    if !same(new, old) {
        errors.push(FieldError::invalid(path, new.cloned().unwrap_or(Value::Null), "field is immutable"));
    }
}

#[cfg(test)]
mod tests;
