//! What upstream fills in when a client leaves a field out.
//!
//! Most defaults are rows (defaults/rows.rs) that belong to a struct type, so they hold wherever that type stands: a
//! container in a pod and in a deployment's template. Those that depend on other fields are functions here. Applying
//! twice is applying once, and a value that a client set is never changed.
//! Not here: what depends on other objects (allocated addresses, admission), times, and names.

mod rows;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::kinds::Resource;
use crate::quantity::Quantity;
use crate::schema::{Field, Kind, Schema, Type};
use crate::{Object, json};

/// A default that depends on nothing but the field itself.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Literal {
    Text(&'static str),
    Number(i64),
    Flag(bool),
    EmptyObject,
}

impl Literal {
    fn value(self) -> Value {
        match self {
            Literal::Text(text) => Value::from(text),
            Literal::Number(number) => Value::from(number),
            Literal::Flag(flag) => Value::from(flag),
            Literal::EmptyObject => json!({}),
        }
    }
}

/// Fills in what is missing in an object of the resource.
pub fn apply(resource: &Resource, value: &mut Value) {
    apply_type(resource.type_name, value);
}

/// The same for any type, such as the body of a subresource.
pub fn apply_type(type_name: &str, value: &mut Value) {
    let schema = Schema::builtin();
    if let (Some(type_), Value::Object(members)) = (schema.type_(type_name), value) {
        fill(schema, type_, members);
    }
}

/// The status of an object that was just created: what upstream's strategies put there whatever the client sent.
pub fn fresh_status(resource: &Resource, object: &Value) -> Value {
    match resource.type_name {
        "core.v1.Pod" => json!({"phase": "Pending", "qosClass": qos_class(&object["spec"])}),
        "core.v1.Namespace" => json!({"phase": "Active"}),
        "core.v1.PersistentVolume" | "core.v1.PersistentVolumeClaim" => json!({"phase": "Pending"}),
        _ => json!({}),
    }
}

fn fill(schema: &Schema, type_: &Type, members: &mut Object) {
    for (field_name, literal) in rows::of(type_.name) {
        if type_.field(field_name).is_some_and(|field| is_unset(field, members)) {
            members.insert((*field_name).to_owned(), literal.value());
        }
    }
    depending(type_.name, members);
    for (name, value) in members.iter_mut() {
        if let Some(field) = type_.field(name) {
            fill_value(schema, &field.kind, value);
        }
    }
}

fn fill_value(schema: &Schema, kind: &Kind, value: &mut Value) {
    match (kind, value) {
        // Metadata and the schemas of custom resources have no defaults.
        (Kind::Ref(name), _) if name.starts_with("meta.") || *name == "apiextensions.v1.JSONSchemaProps" => {}
        (Kind::Ref(name), Value::Object(members)) => {
            if let Some(type_) = schema.type_(name) {
                fill(schema, type_, members);
            }
        }
        (Kind::Array(item), Value::Array(items)) if is_struct(item) => {
            items.iter_mut().for_each(|value| fill_value(schema, item, value));
        }
        (Kind::Map(item), Value::Object(members)) if is_struct(item) => {
            members.values_mut().for_each(|value| fill_value(schema, item, value));
        }
        _ => {}
    }
}

fn is_struct(kind: &Kind) -> bool {
    matches!(kind, Kind::Ref(_))
}

/// Absent, or what Go cannot tell from absent.
fn is_unset(field: &Field, members: &Object) -> bool {
    match members.get(field.name) {
        None | Some(Value::Null) => true,
        Some(_) if field.pointer => false,
        Some(value) => match &field.kind {
            Kind::Ref(_) => false,
            Kind::IntOrString => *value == json!(0) || *value == json!(""),
            Kind::Quantity => false,
            _ => json::is_zero(value),
        },
    }
}

fn text<'a>(members: &'a Object, name: &str) -> &'a str {
    members.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn missing(members: &Object, name: &str) -> bool {
    members.get(name).is_none_or(|value| json::is_zero(value) && !value.is_boolean() && !value.is_number())
}

fn set_missing(members: &mut Object, name: &str, value: impl FnOnce() -> Value) {
    if members.get(name).is_none_or(Value::is_null) {
        members.insert(name.to_owned(), value());
    }
}

/// Defaults that look at other fields of the same struct.
fn depending(type_name: &str, members: &mut Object) {
    match type_name {
        "core.v1.Pod" => pod(members),
        "core.v1.Container" | "core.v1.EphemeralContainer" => container(members),
        "core.v1.Volume" => volume(members),
        "core.v1.Secret" => secret(members),
        "core.v1.ServiceSpec" => service(members),
        "core.v1.ServicePort" if unset_port(members) => {
            if let Some(port) = members.get("port").cloned() {
                members.insert("targetPort".to_owned(), port);
            }
        }
        "core.v1.Namespace" => namespace(members),
        "core.v1.NodeStatus" => {
            if let Some(capacity) = members.get("capacity").cloned() {
                set_missing(members, "allocatable", || capacity);
            }
        }
        "core.v1.LimitRangeItem" if text(members, "type") == "Container" => limit_range(members),
        "core.v1.ReplicationController" => replication_controller(members),
        "apps.v1.DeploymentStrategy"
        | "apps.v1.DaemonSetUpdateStrategy"
        | "apps.v1.StatefulSetUpdateStrategy"
            if text(members, "type") == "RollingUpdate" =>
        {
            set_missing(members, "rollingUpdate", || json!({}));
        }
        "batch.v1.Job" => job(members),
        "batch.v1.JobSpec" => job_spec(members),
        "autoscaling.v2.HorizontalPodAutoscalerSpec" => autoscaler(members),
        "rbac.v1.Subject"
            if matches!(text(members, "kind"), "User" | "Group") && missing(members, "apiGroup") =>
        {
            members.insert("apiGroup".to_owned(), "rbac.authorization.k8s.io".into());
        }
        "networking.v1.NetworkPolicySpec" if missing(members, "policyTypes") => {
            let egress = !missing(members, "egress");
            let types = if egress { json!(["Ingress", "Egress"]) } else { json!(["Ingress"]) };
            members.insert("policyTypes".to_owned(), types);
        }
        "storage.v1.CSIDriverSpec" if missing(members, "volumeLifecycleModes") => {
            members.insert("volumeLifecycleModes".to_owned(), json!(["Persistent"]));
        }
        "apiextensions.v1.CustomResourceDefinitionNames" if !missing(members, "kind") => {
            let kind = text(members, "kind").to_owned();
            if missing(members, "singular") {
                members.insert("singular".to_owned(), kind.to_lowercase().into());
            }
            if missing(members, "listKind") {
                members.insert("listKind".to_owned(), format!("{kind}List").into());
            }
        }
        "flowcontrol.v1.LimitResponse" if text(members, "type") == "Queue" => {
            set_missing(members, "queuing", || json!({}));
        }
        "resource.v1.ExactDeviceRequest"
            if text(members, "allocationMode") == "ExactCount"
                && members.get("count").is_none_or(json::is_zero) =>
        {
            members.insert("count".to_owned(), 1.into());
        }
        _ => {}
    }
}

fn unset_port(members: &Object) -> bool {
    members.get("targetPort").is_none_or(|port| *port == json!(0) || *port == json!(""))
}

fn containers<'a>(spec: &'a mut Object, name: &str) -> impl Iterator<Item = &'a mut Object> {
    spec.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn pod(members: &mut Object) {
    let Some(spec) = members.get_mut("spec").and_then(Value::as_object_mut) else { return };
    set_missing(spec, "enableServiceLinks", || Value::from(true));
    let host_network = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in containers(spec, list) {
            if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
                requests_from_limits(resources);
            }
            for port in containers(container, "ports").filter(|_| host_network) {
                if let (true, Some(number)) =
                    (port.get("hostPort").is_none_or(json::is_zero), port.get("containerPort").cloned())
                {
                    port.insert("hostPort".to_owned(), number);
                }
            }
        }
    }
}

fn requests_from_limits(resources: &mut Object) {
    let Some(limits) =
        resources.get("limits").and_then(Value::as_object).filter(|limits| !limits.is_empty()).cloned()
    else {
        return;
    };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    let Some(requests) = requests.as_object_mut() else { return };
    for (name, limit) in limits {
        requests.entry(name).or_insert(limit);
    }
}

fn container(members: &mut Object) {
    if missing(members, "imagePullPolicy") {
        let policy = if image_tag(text(members, "image")) == "latest" { "Always" } else { "IfNotPresent" };
        members.insert("imagePullPolicy".to_owned(), policy.into());
    }
}

/// The tag of an image reference; an image without tag and digest is `latest`, one with only a digest has none.
fn image_tag(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, Some(_)) => "",
        (None, None) if name.is_empty() => "",
        (None, None) => "latest",
    }
}

fn volume(members: &mut Object) {
    if members.keys().all(|name| name == "name") {
        members.insert("emptyDir".to_owned(), json!({}));
    }
}

/// `stringData` is a way to write: it lands in `data`, over what is there, and is never read back.
fn secret(members: &mut Object) {
    let Some(Value::Object(texts)) = members.shift_remove("stringData") else { return };
    let data = members.entry("data").or_insert_with(|| json!({}));
    if let Some(data) = data.as_object_mut() {
        for (name, text) in texts {
            data.insert(name, STANDARD.encode(text.as_str().unwrap_or_default()).into());
        }
    }
}

fn service(members: &mut Object) {
    if text(members, "sessionAffinity") == "ClientIP" {
        set_missing(members, "sessionAffinityConfig", || json!({"clientIP": {"timeoutSeconds": 10800}}));
    }
    let type_ = text(members, "type").to_owned();
    let outside = matches!(type_.as_str(), "NodePort" | "LoadBalancer");
    if outside && missing(members, "externalTrafficPolicy") {
        members.insert("externalTrafficPolicy".to_owned(), "Cluster".into());
    }
    if outside || type_ == "ClusterIP" {
        set_missing(members, "internalTrafficPolicy", || "Cluster".into());
    }
    if type_ == "LoadBalancer" {
        set_missing(members, "allocateLoadBalancerNodePorts", || true.into());
    }
}

fn namespace(members: &mut Object) {
    let Some(metadata) = members.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let name = text(metadata, "name").to_owned();
    if name.is_empty() {
        return;
    }
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Some(labels) = labels.as_object_mut() {
        labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    }
}

fn limit_range(members: &mut Object) {
    let copy = |members: &mut Object, from: &str, to: &str| {
        let Some(values) =
            members.get(from).and_then(Value::as_object).filter(|values| !values.is_empty()).cloned()
        else {
            return;
        };
        let target = members.entry(to).or_insert_with(|| json!({}));
        if let Some(target) = target.as_object_mut() {
            for (name, value) in values {
                target.entry(name).or_insert(value);
            }
        }
    };
    copy(members, "max", "default");
    copy(members, "default", "defaultRequest");
    copy(members, "min", "defaultRequest");
}

fn template_labels(members: &Object) -> Option<Value> {
    let labels = members.get("spec")?.get("template")?.get("metadata")?.get("labels")?;
    labels.as_object().filter(|labels| !labels.is_empty())?;
    Some(labels.clone())
}

/// An object without labels takes those of its pods.
fn labels_from_template(members: &mut Object, labels: &Value) {
    let metadata = members.entry("metadata").or_insert_with(|| json!({}));
    if let Some(metadata) = metadata.as_object_mut()
        && missing(metadata, "labels")
    {
        metadata.insert("labels".to_owned(), labels.clone());
    }
}

fn replication_controller(members: &mut Object) {
    let Some(labels) = template_labels(members) else { return };
    labels_from_template(members, &labels);
    if let Some(spec) = members.get_mut("spec").and_then(Value::as_object_mut)
        && missing(spec, "selector")
    {
        spec.insert("selector".to_owned(), labels);
    }
}

fn job(members: &mut Object) {
    if let Some(labels) = template_labels(members) {
        labels_from_template(members, &labels);
    }
}

fn job_spec(members: &mut Object) {
    if members.get("parallelism").is_none() {
        set_missing(members, "completions", || 1.into());
    }
    set_missing(members, "parallelism", || 1.into());
    let per_index = members.contains_key("backoffLimitPerIndex");
    set_missing(members, "backoffLimit", || if per_index { i32::MAX.into() } else { 6.into() });
    let failure_policy = members.contains_key("podFailurePolicy");
    set_missing(members, "podReplacementPolicy", || {
        if failure_policy { "Failed".into() } else { "TerminatingOrFailed".into() }
    });
}

fn autoscaler(members: &mut Object) {
    if missing(members, "metrics") {
        let cpu = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
        members.insert("metrics".to_owned(), cpu);
    }
    let Some(behavior) = members.get_mut("behavior").and_then(Value::as_object_mut) else { return };
    let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
    for (direction, window, policies) in
        [("scaleUp", json!(0), json!([pods, percent])), ("scaleDown", Value::Null, json!([percent]))]
    {
        let rules = behavior.entry(direction).or_insert_with(|| json!({}));
        let Some(rules) = rules.as_object_mut() else { continue };
        if !window.is_null() {
            set_missing(rules, "stabilizationWindowSeconds", || window);
        }
        set_missing(rules, "selectPolicy", || "Max".into());
        set_missing(rules, "policies", || policies);
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from the CPU and memory of a pod's containers.
pub fn qos_class(spec: &Value) -> &'static str {
    let amount = |resources: &Value, side: &str, name: &str| {
        Quantity::from_value(&resources[side][name]).ok().filter(|amount| !amount.is_zero())
    };
    let lists =
        ["containers", "initContainers"].map(|list| spec[list].as_array().map_or(&[][..], Vec::as_slice));
    let all: Vec<&Value> = lists.into_iter().flatten().map(|container| &container["resources"]).collect();
    let (mut any, mut guaranteed) = (false, !all.is_empty());
    for resources in all {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(resources, "requests", name), amount(resources, "limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && request.is_none_or(|request| Some(request) == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests;
