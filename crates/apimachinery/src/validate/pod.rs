//! Rules of pods, in pods and in templates of pods.

use serde_json::json;

use crate::quantity::Quantity;
use crate::status::{FieldError, Path};
use crate::{Object, Value, names};

use super::{array, child, entries, object, same, text};

/// What may change in a pod, as the error lists it.
const CHANGEABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` \
     (allow it to be set to 1 if it was previously negative)";

/// Resources that need no domain in their name.
const STANDARD_RESOURCES: &[&str] = &["cpu", "memory", "ephemeral-storage", "storage"];

pub(super) fn spec(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let volumes: Vec<&str> =
        array(spec, "volumes").iter().filter_map(|volume| volume["name"].as_str()).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut host_ports = std::collections::BTreeSet::new();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let list_path = child(path, list);
        for (index, container) in array(spec, list).iter().enumerate() {
            let at = list_path.index(index);
            let name = container["name"].as_str().unwrap_or_default();
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(&at.child("name"), name));
            }
            mounts(container, &volumes, &at, errors);
            if list == "containers" {
                used_host_ports(container, &mut host_ports, &at, errors);
            }
        }
    }
    let labels = json!({"labels": spec.get("nodeSelector")});
    if let Some(labels) = labels.as_object() {
        super::metadata::labels(labels, &child(path, "nodeSelector"), errors);
    }
    let affinity = object(spec, "affinity").and_then(|affinity| object(affinity, "nodeAffinity"));
    for (index, term) in affinity
        .map_or(&[][..], |affinity| array(affinity, "preferredDuringSchedulingIgnoredDuringExecution"))
        .iter()
        .enumerate()
    {
        let weight = term["weight"].as_i64().unwrap_or_default();
        if !(1..=100).contains(&weight) {
            let affinity_path = child(path, "affinity");
            let node_path = affinity_path.child("nodeAffinity");
            let list_path = node_path.child("preferredDuringSchedulingIgnoredDuringExecution");
            let at = list_path.index(index);
            errors.push(FieldError::invalid(&at.child("weight"), weight, "must be in the range 1-100"));
        }
    }
}

fn mounts(container: &Value, volumes: &[&str], at: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut paths = std::collections::BTreeSet::new();
    let list = container["volumeMounts"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, mount) in list.iter().enumerate() {
        let mounts_path = at.child("volumeMounts");
        let at = mounts_path.index(index);
        let name = mount["name"].as_str().unwrap_or_default();
        if !name.is_empty() && !volumes.contains(&name) {
            errors.push(FieldError::not_found(&at.child("name"), name));
        }
        let mount_path = mount["mountPath"].as_str().unwrap_or_default();
        if !mount_path.is_empty() && !paths.insert(mount_path) {
            errors.push(FieldError::invalid(&at.child("mountPath"), mount_path, "must be unique"));
        }
    }
}

fn used_host_ports(
    container: &Value,
    used: &mut std::collections::BTreeSet<String>,
    at: &Path<'_>,
    errors: &mut Vec<FieldError>,
) {
    let ports = container["ports"].as_array().map_or(&[][..], Vec::as_slice);
    for (index, port) in ports.iter().enumerate() {
        let number = port["hostPort"].as_i64().unwrap_or_default();
        if number == 0 {
            continue;
        }
        let text = |field: &str| port[field].as_str().unwrap_or_default();
        let key = format!("{}/{}/{number}", text("protocol"), text("hostIP"));
        if used.contains(&key) {
            let ports_path = at.child("ports");
            let port_path = ports_path.index(index);
            errors.push(FieldError::duplicate(&port_path.child("hostPort"), key));
        } else {
            used.insert(key);
        }
    }
}

pub(super) fn container(container: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let image = text(container, "image");
    if image.len() != image.trim().len() {
        let why = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(&child(path, "image"), image, why));
    }
    for probe in ["livenessProbe", "startupProbe"] {
        let threshold = object(container, probe).and_then(|probe| probe.get("successThreshold"));
        if let Some(threshold) = threshold.and_then(Value::as_i64).filter(|threshold| *threshold != 1) {
            errors.push(FieldError::invalid(
                &child(path, probe).child("successThreshold"),
                threshold,
                "must be 1",
            ));
        }
    }
}

/// A probe or hook does exactly one thing.
pub(super) fn handler(
    kinds: &[&str],
    members: &Object,
    path: Option<&Path<'_>>,
    errors: &mut Vec<FieldError>,
) {
    let mut given = kinds.iter().filter(|handler| members.contains_key(**handler));
    if given.next().is_none()
        && let Some(path) = path
    {
        errors.push(FieldError::required(path, "must specify a handler type"));
    }
    for handler in given {
        errors.push(FieldError::forbidden(&child(path, handler), "may not specify more than 1 handler type"));
    }
}

pub(super) fn variable(variable: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let Some(sources) = object(variable, "valueFrom") else { return };
    let at = child(path, "valueFrom");
    match sources.len() {
        0 => errors.push(FieldError::invalid(
            &at,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        _ if !text(variable, "value").is_empty() => {
            errors.push(FieldError::invalid(&at, "", "may not be specified when `value` is not empty"));
        }
        1 => {}
        _ => errors.push(FieldError::invalid(&at, "", "may not have more than one field specified at a time")),
    }
}

/// Labels and annotations that a template gives to its pods.
pub(super) fn template(template: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let Some(metadata) = object(template, "metadata") else { return };
    super::metadata::labels(metadata, &child(path, "labels"), errors);
    super::metadata::annotations(metadata, &child(path, "annotations"), errors);
}

pub(super) fn weight(term: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let weight = term.get("weight").and_then(Value::as_i64).unwrap_or_default();
    if !(1..=100).contains(&weight) {
        errors.push(FieldError::invalid(&child(path, "weight"), weight, "must be in the range 1-100"));
    }
}

pub(super) fn label_selector_requirement(
    requirement: &Object,
    path: Option<&Path<'_>>,
    errors: &mut Vec<FieldError>,
) {
    let values = array(requirement, "values");
    let at = child(path, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&at, why));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            errors.push(FieldError::invalid(&child(path, "operator"), other, "not a valid selector operator"))
        }
    }
    let key = text(requirement, "key");
    let judged = names::qualified_name(key).into_iter();
    errors.extend(judged.map(|why| FieldError::invalid(&child(path, "key"), key, why)));
}

pub(super) fn volume(volume: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    for source in volume.keys().filter(|name| *name != "name").skip(1) {
        errors.push(FieldError::forbidden(&child(path, source), "may not specify more than 1 volume type"));
    }
}

pub(super) fn resources(resources: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    for side in ["limits", "requests"] {
        for (name, amount) in entries(resources, side) {
            let side_path = child(path, side);
            let at = side_path.key(name);
            let judged = names::qualified_name(name);
            errors.extend(judged.into_iter().map(|why| FieldError::invalid(&at, name.as_str(), why)));
            if !name.contains('/')
                && !STANDARD_RESOURCES.contains(&name.as_str())
                && !name.starts_with("hugepages-")
            {
                let why = "must be a standard resource type or fully qualified";
                errors.push(FieldError::invalid(&at, name.as_str(), why));
            }
            if Quantity::from_value(amount).is_ok_and(Quantity::is_negative) {
                errors.push(FieldError::invalid(&at, amount.clone(), super::NOT_NEGATIVE));
            }
        }
    }
    for (name, request) in entries(resources, "requests") {
        let limit = object(resources, "limits").and_then(|limits| limits.get(name));
        let Some(limit) = limit else { continue };
        if let (Ok(wanted), Ok(allowed)) = (Quantity::from_value(request), Quantity::from_value(limit))
            && wanted > allowed
        {
            let limit = limit.as_str().map_or_else(|| limit.to_string(), str::to_owned);
            let why = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(&child(path, "requests"), request.clone(), why));
        }
    }
}

pub(super) fn toleration(toleration: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let operator = text(toleration, "operator");
    if text(toleration, "key").is_empty() && operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(&child(path, "operator"), operator, why));
    }
    match operator {
        "Exists" if !text(toleration, "value").is_empty() => {
            let why = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(&child(path, "operator"), text(toleration, "value"), why));
        }
        "Equal" | "" => {
            let value = text(toleration, "value");
            errors.extend(
                names::label_value(value)
                    .into_iter()
                    .map(|why| FieldError::invalid(&child(path, "operator"), value, why)),
            );
        }
        _ => {}
    }
    if toleration.contains_key("tolerationSeconds") && text(toleration, "effect") != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(&child(path, "effect"), text(toleration, "effect"), why));
    }
}

pub(super) fn node_selector_requirement(
    requirement: &Object,
    path: Option<&Path<'_>>,
    errors: &mut Vec<FieldError>,
) {
    let values = array(requirement, "values");
    let at = child(path, "values");
    match text(requirement, "operator") {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(FieldError::required(&at, "must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.push(FieldError::forbidden(
                &at,
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(FieldError::required(
                &at,
                "must be specified single value when `operator` is 'Lt' or 'Gt'",
            ));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => {
            errors.push(FieldError::invalid(&child(path, "operator"), other, "not a valid selector operator"))
        }
    }
    let key = text(requirement, "key");
    errors.extend(
        names::qualified_name(key).into_iter().map(|why| FieldError::invalid(&child(path, "key"), key, why)),
    );
}

pub(super) fn status(status: &Value, errors: &mut Vec<FieldError>) {
    let node = status["nominatedNodeName"].as_str().unwrap_or_default();
    if !node.is_empty() {
        let path = Path::new("status.nominatedNodeName");
        errors.extend(
            names::dns1123_subdomain(node).into_iter().map(|why| FieldError::invalid(&path, node, why)),
        );
    }
}

/// What an update may change in a pod's spec; everything else must stay.
pub(super) fn update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    const SPEC: Path<'static> = Path::new("spec");
    let none = Object::new();
    let new_spec = new.get("spec").and_then(Value::as_object).unwrap_or(&none);
    let old_spec = old.get("spec").and_then(Value::as_object).unwrap_or(&none);
    for list in ["containers", "initContainers"] {
        if array(new_spec, list).len() != array(old_spec, list).len() {
            let why = format!(
                "pod updates may not add or remove {}",
                if list == "containers" { "containers" } else { "init containers" }
            );
            errors.push(FieldError::forbidden(&SPEC.child(list), why));
            return;
        }
        for (index, container) in array(new_spec, list).iter().enumerate() {
            if container["image"].as_str().unwrap_or_default().is_empty() {
                let list_path = SPEC.child(list);
                let at = list_path.index(index);
                errors.push(FieldError::required(&at.child("image"), ""));
            }
        }
    }
    deadline(new_spec, old_spec, errors);
    tolerations(new_spec, old_spec, errors);
    gates(new_spec, old_spec, errors);

    let mut expected = new_spec.clone();
    for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        put(&mut expected, field, old_spec.get(field));
    }
    if new_spec.get("terminationGracePeriodSeconds") == Some(&json!(1))
        && old_spec
            .get("terminationGracePeriodSeconds")
            .and_then(Value::as_i64)
            .is_some_and(|seconds| seconds < 0)
    {
        put(&mut expected, "terminationGracePeriodSeconds", old_spec.get("terminationGracePeriodSeconds"));
    }
    for list in ["containers", "initContainers"] {
        let images = array(old_spec, list).iter().map(|container| container.get("image").cloned());
        let containers = expected.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
        for (container, image) in containers.zip(images) {
            if let Some(container) = container.as_object_mut() {
                put(container, "image", image.as_ref());
            }
        }
    }
    let gated = !array(old_spec, "schedulingGates").is_empty();
    if gated {
        // Until a pod may be scheduled, where it may go can still be narrowed.
        for field in ["nodeSelector", "affinity"] {
            put(&mut expected, field, old_spec.get(field));
        }
    }
    let changed: Vec<&str> = expected
        .keys()
        .chain(old_spec.keys().filter(|name| !expected.contains_key(*name)))
        .filter(|name| !same(expected.get(*name), old_spec.get(*name)))
        .map(String::as_str)
        .collect();
    if !changed.is_empty() {
        let list: Vec<String> = changed.iter().map(|name| format!("spec.{name}")).collect();
        let why = format!(
            "pod updates may not change fields other than {CHANGEABLE}\nchanged: {}",
            list.join(", ")
        );
        errors.push(FieldError::forbidden(&SPEC, why));
    }
}

fn put(members: &mut Object, name: &str, value: Option<&Value>) {
    match value {
        Some(value) => {
            members.insert(name.to_owned(), value.clone());
        }
        None => {
            members.shift_remove(name);
        }
    }
}

fn deadline(new: &Object, old: &Object, errors: &mut Vec<FieldError>) {
    const PATH: Path<'static> = Path::new("spec.activeDeadlineSeconds");
    let seconds = |spec: &Object| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (seconds(new), seconds(old)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.push(FieldError::invalid(
                &PATH,
                new,
                format!("must be between 0 and {}, inclusive", i32::MAX),
            ));
        }
        (Some(new), Some(old)) if new > old => {
            errors.push(FieldError::invalid(&PATH, new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                &PATH,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

fn tolerations(new: &Object, old: &Object, errors: &mut Vec<FieldError>) {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(members) = toleration.as_object_mut() {
            members.shift_remove("tolerationSeconds");
        }
        toleration
    };
    let kept: Vec<Value> = array(new, "tolerations").iter().map(without_seconds).collect();
    if !array(old, "tolerations").iter().all(|toleration| kept.contains(&without_seconds(toleration))) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(&Path::new("spec.tolerations"), why));
    }
}

fn gates(new: &Object, old: &Object, errors: &mut Vec<FieldError>) {
    let before: Vec<&str> =
        array(old, "schedulingGates").iter().filter_map(|gate| gate["name"].as_str()).collect();
    for gate in array(new, "schedulingGates").iter().filter_map(|gate| gate["name"].as_str()) {
        if !before.contains(&gate) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
            errors.push(FieldError::forbidden(&Path::new("spec.schedulingGates"), why));
        }
    }
}
