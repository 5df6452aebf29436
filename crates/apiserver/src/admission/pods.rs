//! What the server adds to new pods and nodes: priority, tolerations, service account, taint.

use apimachinery::kinds;
use apimachinery::status::Status;
use apimachinery::{Value, meta};
use serde_json::json;

use super::{Attributes, Operation};
use crate::registry::{Registry, group_resource};

/// Source: upstream plugin defaulttolerationseconds (flags' defaults).
const TOLERATION_S: i64 = 300;
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Source: upstream pkg/apis/scheduling `SystemPriorityClasses`.
const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

fn is_new_pod(attributes: &Attributes<'_>) -> bool {
    attributes.operation == Operation::Create && attributes.is_main("", "pods")
}

pub(super) fn default_service_account(attributes: &Attributes<'_>, pod: &mut Value) {
    if !is_new_pod(attributes) || !pod.get("spec").is_some_and(Value::is_object) {
        return;
    }
    let named =
        pod["spec"].get("serviceAccountName").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if !named {
        pod["spec"]["serviceAccountName"] = json!("default");
    }
    pod["spec"]["serviceAccount"] = pod["spec"]["serviceAccountName"].clone();
}

pub(super) fn taint_new_node(attributes: &Attributes<'_>, node: &mut Value) {
    if attributes.operation != Operation::Create || !attributes.is_main("", "nodes") {
        return;
    }
    let taint = json!({"key": NOT_READY, "effect": "NoSchedule"});
    if !node.get("spec").is_some_and(Value::is_object) {
        node["spec"] = json!({});
    }
    match node["spec"].get_mut("taints").and_then(Value::as_array_mut) {
        Some(taints) if taints.iter().any(|known| known.get("key") == taint.get("key")) => {}
        Some(taints) => taints.push(taint),
        None => node["spec"]["taints"] = json!([taint]),
    }
}

/// A pod tolerates a node that is not ready or not reachable for five minutes, unless it says otherwise.
pub(super) fn tolerate_for_a_while(attributes: &Attributes<'_>, pod: &mut Value) {
    let is_pod = matches!(attributes.operation, Operation::Create | Operation::Update)
        && attributes.is_main("", "pods");
    if !is_pod || !pod.get("spec").is_some_and(Value::is_object) {
        return;
    }
    let known = pod["spec"].get("tolerations").and_then(Value::as_array).cloned().unwrap_or_default();
    let tolerates = |key: &str| {
        known.iter().any(|toleration| {
            let text = |field: &str| toleration.get(field).and_then(Value::as_str).unwrap_or_default();
            (text("key") == key || text("key").is_empty()) && matches!(text("effect"), "NoExecute" | "")
        })
    };
    let missing = [NOT_READY, UNREACHABLE].into_iter().filter(|key| !tolerates(key));
    let added: Vec<Value> = missing
        .map(|key| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_S}))
        .collect();
    if !added.is_empty() {
        pod["spec"]["tolerations"] = json!([known, added].concat());
    }
}

/// `priorityClassName` → `priority` and `preemptionPolicy`; no name takes the global default, or 0.
pub(super) fn resolve_priority(
    registry: &Registry,
    attributes: &Attributes<'_>,
    pod: &mut Value,
) -> Result<(), Status> {
    if attributes.operation == Operation::Update && attributes.is_main("", "pods") {
        keep_priority(pod, attributes.old);
        return Ok(());
    }
    if !is_new_pod(attributes) || !pod.get("spec").is_some_and(Value::is_object) {
        return Ok(());
    }
    let name = pod["spec"].get("priorityClassName").and_then(Value::as_str).unwrap_or_default().to_owned();
    let refuse =
        |why: String| Err(Status::forbidden(group_resource(attributes.write.resource), attributes.name, why));
    let class = if name.is_empty() { default_class(registry) } else { class(registry, &name) };
    let (class_name, priority, policy) = match class {
        Some(class) => class,
        None if name.is_empty() => (String::new(), 0, None),
        None => return refuse(format!("no PriorityClass with name {name} was found")),
    };
    let sent = pod["spec"].get("priority").and_then(Value::as_i64);
    if let Some(sent) = sent.filter(|sent| *sent != priority) {
        return refuse(format!(
            "the integer value of priority ({sent}) must not be provided in pod spec; priority admission controller computed {priority} from the given PriorityClass name"
        ));
    }
    pod["spec"]["priority"] = json!(priority);
    if !class_name.is_empty() {
        pod["spec"]["priorityClassName"] = json!(class_name);
    }
    let policy = policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned());
    let sent = pod["spec"].get("preemptionPolicy").and_then(Value::as_str);
    if let Some(sent) = sent.filter(|sent| *sent != policy) {
        return refuse(format!(
            "the string value of PreemptionPolicy ({sent}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        ));
    }
    pod["spec"]["preemptionPolicy"] = json!(policy);
    Ok(())
}

/// An update that leaves the resolved fields out keeps them.
fn keep_priority(pod: &mut Value, old: Option<&Value>) {
    for field in ["priority", "preemptionPolicy"] {
        let known = old.and_then(|old| old.get("spec")).and_then(|spec| spec.get(field)).cloned();
        if let (Some(known), Some(spec)) = (known, pod.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.entry(field).or_insert(known);
        }
    }
}

type Class = (String, i64, Option<String>);

fn class(registry: &Registry, name: &str) -> Option<Class> {
    let stored = kinds::find("scheduling.k8s.io", "v1", "priorityclasses")
        .and_then(|resource| registry.cached(resource, name));
    match stored {
        Some(object) => Some(read_class(object.value())),
        None => {
            let system = SYSTEM_CLASSES.iter().find(|(system, _)| *system == name);
            system.map(|(name, value)| ((*name).to_owned(), *value, None))
        }
    }
}

/// Among several global defaults the lowest counts, as upstream decides.
fn default_class(registry: &Registry) -> Option<Class> {
    let resource = kinds::find("scheduling.k8s.io", "v1", "priorityclasses")?;
    let objects = registry.cache().kind(resource)?.objects();
    let defaults = objects.iter().map(|(_, object)| object.value().clone());
    let defaults = defaults.filter(|class| class.get("globalDefault").and_then(Value::as_bool) == Some(true));
    defaults.map(|class| read_class(&class)).min_by_key(|(_, value, _)| *value)
}

fn read_class(class: &Value) -> Class {
    let policy = class.get("preemptionPolicy").and_then(Value::as_str).map(str::to_owned);
    (meta::of(class).name().to_owned(), class.get("value").and_then(Value::as_i64).unwrap_or(0), policy)
}
