//! Rules of kinds that hold data rather than run pods.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::kinds::Resource;
use crate::quantity::Quantity;
use crate::status::{FieldError, Path};
use crate::{Object, Value, names};

use super::{array, child, entries, immutable, object, same, text};

/// Most bytes of all values of a config map or secret together.
const DATA_SIZE_BYTES_MAX: usize = 1024 * 1024;

/// Highest priority that is not reserved for the system's own classes.
const USER_PRIORITY_MAX: i64 = 1_000_000_000;

pub(super) fn create(resource: &Resource, value: &Value, errors: &mut Vec<FieldError>) {
    let Some(members) = value.as_object() else { return };
    match resource.type_name {
        "core.v1.ConfigMap" => config_map(members, errors),
        "core.v1.Secret" => secret(members, errors),
        "apiextensions.v1.CustomResourceDefinition" => definition_name(value, errors),
        "core.v1.Event" => event(members, errors),
        "events.v1.Event" => new_event(members, errors),
        "core.v1.Binding" => binding(members, errors),
        "core.v1.Node" => taints(&value["spec"], errors),
        "rbac.v1.Role" => role(members, errors),
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" => role_binding(resource, members, errors),
        "scheduling.v1.PriorityClass" => priority_class(members, errors),
        _ => {}
    }
}

pub(super) fn update(resource: &Resource, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    create(resource, new, errors);
    let field = |name: &'static str, errors: &mut Vec<FieldError>| {
        immutable(&Path::new(name), new.get(name), old.get(name), errors)
    };
    let forbidden = |name: &'static str, why: &str, errors: &mut Vec<FieldError>| {
        if !same(new.get(name), old.get(name)) {
            errors.push(FieldError::forbidden(&Path::new(name), why));
        }
    };
    match resource.type_name {
        "core.v1.ConfigMap" => frozen(new, old, &["data", "binaryData"], errors),
        "core.v1.Secret" => {
            field("type", errors);
            frozen(new, old, &["data"], errors);
        }
        "core.v1.PersistentVolumeClaim" => volume_claim_update(&new["spec"], &old["spec"], errors),
        "core.v1.PersistentVolume" => {
            immutable(
                &Path::new("spec.volumeMode"),
                new["spec"].get("volumeMode"),
                old["spec"].get("volumeMode"),
                errors,
            );
        }
        "core.v1.Service" => service_update(&new["spec"], &old["spec"], errors),
        "core.v1.Node" => {
            let provider = "providerID";
            if !same(new["spec"].get(provider), old["spec"].get(provider))
                && old["spec"].get(provider).is_some()
            {
                let why = "node updates may not change providerID except from \"\" to valid";
                errors.push(FieldError::forbidden(&Path::new("spec.providerID"), why));
            }
        }
        "rbac.v1.RoleBinding" | "rbac.v1.ClusterRoleBinding" if new.get("roleRef") != old.get("roleRef") => {
            let given = new["roleRef"].clone();
            errors.push(FieldError::invalid(&Path::new("roleRef"), given, "cannot change roleRef"));
        }
        "storage.v1.StorageClass" => {
            forbidden("parameters", "updates to parameters are forbidden.", errors);
            forbidden("provisioner", "updates to provisioner are forbidden.", errors);
            forbidden("reclaimPolicy", "updates to reclaimPolicy are forbidden.", errors);
            field("volumeBindingMode", errors);
        }
        "scheduling.v1.PriorityClass" => {
            forbidden("value", "may not be changed in an update.", errors);
            field("preemptionPolicy", errors);
        }
        "node.v1.RuntimeClass" => field("handler", errors),
        "discovery.v1.EndpointSlice" => field("addressType", errors),
        "apps.v1.ControllerRevision" => field("data", errors),
        _ => {}
    }
}

/// Once `immutable` is set, it stays and the data stays.
fn frozen(new: &Value, old: &Value, fields: &[&'static str], errors: &mut Vec<FieldError>) {
    if old["immutable"] != true {
        return;
    }
    let why = "field is immutable when `immutable` is set";
    if new["immutable"] != true {
        errors.push(FieldError::forbidden(&Path::new("immutable"), why));
    }
    for field in fields {
        if !same(new.get(field), old.get(field)) {
            errors.push(FieldError::forbidden(&Path::new(field), why));
        }
    }
}

fn data_keys(members: &Object, field: &'static str, errors: &mut Vec<FieldError>) {
    let path = Path::new(field);
    for (name, _) in entries(members, field) {
        errors.extend(
            names::config_key(name)
                .into_iter()
                .map(|why| FieldError::invalid(&path.key(name), name.as_str(), why)),
        );
    }
}

fn decoded_size(value: &Value) -> usize {
    value.as_str().and_then(|text| STANDARD.decode(text).ok()).map_or(0, |bytes| bytes.len())
}

fn config_map(members: &Object, errors: &mut Vec<FieldError>) {
    data_keys(members, "data", errors);
    data_keys(members, "binaryData", errors);
    let data_path = Path::new("data");
    let mut size_bytes = 0;
    for (name, value) in entries(members, "data") {
        size_bytes += value.as_str().map_or(0, str::len);
        if object(members, "binaryData").is_some_and(|binary| binary.contains_key(name)) {
            let why = "duplicate of key present in binaryData";
            errors.push(FieldError::invalid(&data_path.key(name), name.as_str(), why));
        }
    }
    size_bytes += entries(members, "binaryData").map(|(_, value)| decoded_size(value)).sum::<usize>();
    if size_bytes > DATA_SIZE_BYTES_MAX {
        errors.push(FieldError::too_long(&Path::new(""), DATA_SIZE_BYTES_MAX));
    }
}

fn secret(members: &Object, errors: &mut Vec<FieldError>) {
    data_keys(members, "data", errors);
    let data_path = Path::new("data");
    if entries(members, "data").map(|(_, value)| decoded_size(value)).sum::<usize>() > DATA_SIZE_BYTES_MAX {
        errors.push(FieldError::too_long(&data_path, DATA_SIZE_BYTES_MAX));
    }
    let has = |key: &str| object(members, "data").is_some_and(|data| data.contains_key(key));
    let needed: &[&str] = match text(members, "type") {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => &["username", "password"],
        _ => &[],
    };
    for key in needed.iter().filter(|key| !has(key)) {
        errors.push(FieldError::required(&data_path.key(key), ""));
    }
    if text(members, "type") == "kubernetes.io/service-account-token" {
        let annotation = "kubernetes.io/service-account.name";
        let annotations = object(members, "metadata").and_then(|metadata| object(metadata, "annotations"));
        if annotations.is_none_or(|annotations| text(annotations, annotation).is_empty()) {
            let metadata = Path::new("metadata");
            let path = metadata.child("annotations");
            errors.push(FieldError::required(&path.key(annotation), ""));
        }
    }
}

fn event(members: &Object, errors: &mut Vec<FieldError>) {
    let namespace = object(members, "metadata").map_or("", |metadata| text(metadata, "namespace"));
    let involved = object(members, "involvedObject").map_or("", |involved| text(involved, "namespace"));
    let path = Path::new("involvedObject.namespace");
    let fits = if involved.is_empty() {
        matches!(namespace, "default" | "kube-system")
    } else {
        involved == namespace
    };
    if !fits {
        errors.push(FieldError::invalid(&path, involved, "does not match event.namespace"));
    }
}

fn new_event(members: &Object, errors: &mut Vec<FieldError>) {
    for (field, size_bytes_max) in
        [("reportingController", 0), ("reportingInstance", 128), ("action", 128), ("reason", 128)]
    {
        let given = text(members, field);
        if given.is_empty() {
            errors.push(FieldError::required(&Path::new(field), ""));
        } else if size_bytes_max > 0 && given.len() > size_bytes_max {
            let why = format!("can have at most {size_bytes_max} characters");
            errors.push(FieldError::invalid(&Path::new(field), given, why));
        }
    }
    if !members.contains_key("eventTime") {
        errors.push(FieldError::required(&Path::new("eventTime"), ""));
    }
    if !matches!(text(members, "type"), "Normal" | "Warning") {
        errors.push(FieldError::invalid(&Path::new("type"), text(members, "type"), "has invalid value: "));
    }
    if text(members, "note").len() > 1024 {
        let why = "can have at most 1024 characters";
        errors.push(FieldError::invalid(&Path::new("note"), text(members, "note"), why));
    }
}

fn binding(members: &Object, errors: &mut Vec<FieldError>) {
    let target = Path::new("target");
    let Some(reference) = object(members, "target") else { return };
    let kind = text(reference, "kind");
    if !kind.is_empty() && kind != "Node" {
        errors.push(FieldError::not_supported(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if text(reference, "name").is_empty() {
        errors.push(FieldError::required(&target.child("name"), ""));
    }
}

fn taints(spec: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("spec.taints");
    let mut seen = std::collections::BTreeSet::new();
    for (index, taint) in spec["taints"].as_array().into_iter().flatten().enumerate() {
        let of = |field: &str| taint[field].as_str().unwrap_or_default();
        if !seen.insert((of("key"), of("effect"))) {
            let at = path.index(index);
            let shown = format!("{}={}:{}", of("key"), of("value"), of("effect"));
            errors.push(FieldError::duplicate(&at, shown));
        }
    }
}

pub(super) fn node_status(status: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("status");
    for list in ["capacity", "allocatable"] {
        for (name, amount) in status[list].as_object().into_iter().flatten() {
            if Quantity::from_value(amount).is_ok_and(Quantity::is_negative) {
                let list_path = path.child(list);
                errors.push(FieldError::invalid(&list_path.key(name), amount.clone(), super::NOT_NEGATIVE));
            }
        }
    }
}

fn role(members: &Object, errors: &mut Vec<FieldError>) {
    let rules = Path::new("rules");
    for (index, rule) in array(members, "rules").iter().enumerate() {
        if rule.get("nonResourceURLs").is_some() {
            let at = rules.index(index);
            let why = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(
                &at.child("nonResourceURLs"),
                rule["nonResourceURLs"].clone(),
                why,
            ));
        }
    }
}

/// A rule of a role: verbs, and either resources or paths.
pub(super) fn policy_rule(rule: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    if array(rule, "verbs").is_empty() {
        errors.push(FieldError::required(&child(path, "verbs"), "verbs must contain at least one value"));
    }
    let (groups, resources) = (array(rule, "apiGroups"), array(rule, "resources"));
    if !array(rule, "nonResourceURLs").is_empty() {
        if !groups.is_empty() || !resources.is_empty() || !array(rule, "resourceNames").is_empty() {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            let given = rule.get("nonResourceURLs").cloned().unwrap_or_default();
            errors.push(FieldError::invalid(&child(path, "nonResourceURLs"), given, why));
        }
        return;
    }
    if groups.is_empty() {
        errors.push(FieldError::required(
            &child(path, "apiGroups"),
            "resource rules must supply at least one api group",
        ));
    }
    if resources.is_empty() {
        errors.push(FieldError::required(
            &child(path, "resources"),
            "resource rules must supply at least one resource",
        ));
    }
}

fn role_binding(resource: &Resource, members: &Object, errors: &mut Vec<FieldError>) {
    let role_ref = Path::new("roleRef");
    let kind = object(members, "roleRef").map_or("", |reference| text(reference, "kind"));
    let allowed: &[&str] = if resource.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !allowed.contains(&kind) {
        errors.push(FieldError::not_supported(&role_ref.child("kind"), kind, allowed));
    }
    let subjects = Path::new("subjects");
    for (index, subject) in array(members, "subjects").iter().enumerate() {
        let of = |field: &str| subject[field].as_str().unwrap_or_default();
        let at = subjects.index(index);
        match of("kind") {
            "ServiceAccount" => {
                if of("namespace").is_empty() {
                    errors.push(FieldError::required(&at.child("namespace"), ""));
                }
                let name = of("name");
                errors.extend(
                    names::dns1123_subdomain(name)
                        .into_iter()
                        .map(|why| FieldError::invalid(&at.child("name"), name, why)),
                );
            }
            "" => errors.push(FieldError::not_supported(
                &at.child("kind"),
                "",
                &["ServiceAccount", "User", "Group"],
            )),
            _ => {
                if of("apiGroup") != "rbac.authorization.k8s.io" {
                    let allowed = ["rbac.authorization.k8s.io"];
                    errors.push(FieldError::not_supported(&at.child("apiGroup"), of("apiGroup"), &allowed));
                }
            }
        }
    }
}

fn priority_class(members: &Object, errors: &mut Vec<FieldError>) {
    let name = object(members, "metadata").map_or("", |metadata| text(metadata, "name"));
    let system = matches!(name, "system-node-critical" | "system-cluster-critical");
    if name.starts_with("system-") && !system {
        let why = "priority class names with 'system-' prefix are reserved for system use only";
        errors.push(FieldError::forbidden(&Path::new("metadata.name"), why));
    }
    let value = members.get("value").and_then(Value::as_i64).unwrap_or_default();
    if !system && value > USER_PRIORITY_MAX {
        let why = format!("maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}");
        errors.push(FieldError::forbidden(&Path::new("value"), why));
    }
}

pub(super) fn service(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let ports = array(spec, "ports");
    let external = text(spec, "type") == "ExternalName";
    if external && text(spec, "externalName").is_empty() {
        errors.push(FieldError::required(&child(path, "externalName"), ""));
    }
    if ports.is_empty() && !external && text(spec, "clusterIP") != "None" {
        errors.push(FieldError::required(&child(path, "ports"), ""));
    }
    let ports_path = child(path, "ports");
    let mut used = std::collections::BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let at = ports_path.index(index);
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(&at.child("name"), ""));
        }
        let key = (port["protocol"].as_str().unwrap_or_default(), port["port"].as_i64().unwrap_or_default());
        if !used.insert(key) {
            let shown = serde_json::json!({"protocol": key.0, "port": key.1});
            errors.push(FieldError::duplicate(&at, shown));
        }
    }
    let labels = serde_json::json!({"labels": spec.get("selector")});
    if let Some(labels) = labels.as_object() {
        super::metadata::labels(labels, &child(path, "selector"), errors);
    }
}

fn service_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let addressed = |spec: &Value| spec["type"] != "ExternalName";
    let before = old["clusterIP"].as_str().unwrap_or_default();
    let after = new["clusterIP"].as_str().unwrap_or_default();
    if addressed(new) && addressed(old) && !before.is_empty() && after != before {
        let path = Path::new("spec.clusterIPs");
        let why = "may not change once set";
        errors.push(FieldError::invalid(&path.index(0), after, why));
    }
}

pub(super) fn volume_claim(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    access_modes(spec, path, errors);
    let resources = child(path, "resources");
    let request = object(spec, "resources").and_then(|resources| object(resources, "requests"));
    match request.and_then(|requests| requests.get("storage")) {
        None => errors.push(FieldError::required(&resources.key("storage"), "")),
        Some(amount)
            if Quantity::from_value(amount).is_ok_and(|amount| amount.is_zero() || amount.is_negative()) =>
        {
            let requests = resources.child("requests");
            errors.push(FieldError::invalid(
                &requests.key("storage"),
                amount.clone(),
                "must be greater than zero",
            ));
        }
        Some(_) => {}
    }
}

fn access_modes(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    const MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
    let at = child(path, "accessModes");
    let modes = array(spec, "accessModes");
    if modes.is_empty() {
        errors.push(FieldError::required(&at, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter_map(Value::as_str).filter(|mode| !MODES.contains(mode)) {
        errors.push(FieldError::not_supported(&at, mode, MODES));
    }
}

pub(super) fn volume(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    access_modes(spec, path, errors);
    if object(spec, "capacity").is_none_or(Object::is_empty) {
        errors.push(FieldError::required(&child(path, "capacity"), ""));
    }
    const NOT_SOURCES: &[&str] = &[
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeAttributesClassName",
        "volumeMode",
    ];
    let mut sources = spec.keys().filter(|name| !NOT_SOURCES.contains(&name.as_str()));
    if sources.next().is_none()
        && let Some(path) = path
    {
        errors.push(FieldError::required(path, "must specify a volume type"));
    }
    for source in sources {
        errors.push(FieldError::forbidden(&child(path, source), "may not specify more than 1 volume type"));
    }
}

fn volume_claim_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let fixed = |spec: &Value| {
        let mut spec = spec.clone();
        if let Some(members) = spec.as_object_mut() {
            members.shift_remove("volumeAttributesClassName");
            if let Some(resources) = members.get_mut("resources").and_then(Value::as_object_mut) {
                resources.shift_remove("requests");
            }
        }
        spec
    };
    // The binder fills in the volume's name once.
    let mut before = fixed(old);
    if let (Some(before), Some(name)) = (before.as_object_mut(), new.get("volumeName"))
        && text(before, "volumeName").is_empty()
    {
        before.insert("volumeName".to_owned(), name.clone());
    }
    if fixed(new) != before {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden(&Path::new("spec"), why));
    }
    let storage = |spec: &Value| Quantity::from_value(&spec["resources"]["requests"]["storage"]).ok();
    if let (Some(new), Some(old)) = (storage(new), storage(old))
        && new < old
    {
        let why = "field can not be less than status.capacity";
        errors.push(FieldError::forbidden(&Path::new("spec.resources.requests.storage"), why));
    }
}

pub(super) fn disruption_budget(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    if spec.contains_key("minAvailable")
        && spec.contains_key("maxUnavailable")
        && let Some(path) = path
    {
        let why = "minAvailable and maxUnavailable cannot be both set";
        errors.push(FieldError::invalid(path, Value::Object(spec.clone()), why));
    }
}

pub(super) fn ingress(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    if array(spec, "rules").is_empty()
        && !spec.contains_key("defaultBackend")
        && let Some(path) = path
    {
        let why = "either `defaultBackend` or `rules` must be specified";
        errors.push(FieldError::invalid(path, serde_json::json!([]), why));
    }
}

pub(super) fn ingress_path(given: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let pattern = text(given, "path");
    if matches!(text(given, "pathType"), "Exact" | "Prefix") && !pattern.starts_with('/') {
        errors.push(FieldError::invalid(&child(path, "path"), pattern, "must be an absolute path"));
    }
}

/// One version is stored, and each has a schema.
pub(super) fn custom_resource(spec: &Object, path: Option<&Path<'_>>, errors: &mut Vec<FieldError>) {
    let versions = array(spec, "versions");
    let at = child(path, "versions");
    if !versions.is_empty() && versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        let given = spec.get("versions").cloned().unwrap_or_default();
        let why = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(&at, given, why));
    }
    for (index, version) in versions.iter().enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            let version_path = at.index(index);
            let schema_path = version_path.child("schema");
            errors.push(FieldError::required(&schema_path.child("openAPIV3Schema"), "schemas are required"));
        }
    }
}

/// The name of a definition says which resource it defines.
fn definition_name(value: &Value, errors: &mut Vec<FieldError>) {
    let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, plural, group) =
        (of(&value["metadata"]["name"]), of(&value["spec"]["names"]["plural"]), of(&value["spec"]["group"]));
    if name != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        errors.push(FieldError::invalid(&Path::new("metadata.name"), name, why));
    }
}
