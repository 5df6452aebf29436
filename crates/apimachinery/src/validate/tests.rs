//! Input -> complaints, one per line, in upstream's words.

use serde_json::{Value, json};

use super::*;
use crate::kinds;
use crate::{defaults, json as codec};

fn resource(path: &str) -> &'static Resource {
    let (version, plural) = path.rsplit_once('/').unwrap();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    kinds::find(group, version, plural).unwrap_or_else(|| panic!("{path}"))
}

/// An object as it reaches validation, in namespace `d` with name `a` unless it says otherwise.
fn object(path: &str, mut value: Value) -> Value {
    let resource = resource(path);
    let metadata = value.as_object_mut().unwrap().entry("metadata").or_insert_with(|| json!({}));
    let metadata = metadata.as_object_mut().unwrap();
    if !metadata.contains_key("name") && !metadata.contains_key("generateName") {
        metadata.insert("name".into(), "a".into());
    }
    if resource.namespaced {
        metadata.entry("namespace").or_insert_with(|| "d".into());
    }
    codec::prune(Schema::builtin(), resource.type_name, &mut value).unwrap();
    defaults::apply(resource, &mut value);
    value
}

fn created(path: &str, value: Value) -> String {
    lines(create(resource(path), &object(path, value)))
}

fn updated(path: &str, old: Value, new: Value) -> String {
    lines(update(resource(path), &object(path, new), &object(path, old)))
}

fn lines(errors: Vec<FieldError>) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn pod(container: Value) -> Value {
    json!({"spec": {"containers": [container]}})
}

#[test]
fn good_objects_pass() {
    for (path, value) in [
        (
            "v1/pods",
            pod(
                json!({"name": "a", "image": "x", "ports": [{"containerPort": 80, "name": "http"}], "livenessProbe": {"tcpSocket": {"port": 1}}}),
            ),
        ),
        ("v1/configmaps", json!({"data": {"a.b_c-D": "x", ".x": ""}})),
        ("v1/namespaces", json!({})),
        ("v1/nodes", json!({"spec": {"taints": [{"key": "a/b", "effect": "NoSchedule"}]}})),
        ("v1/services", json!({"spec": {"ports": [{"port": 80}], "selector": {"a": "b"}}})),
        ("v1/secrets", json!({"data": {"a": "aGk="}})),
        ("v1/events", json!({"involvedObject": {"namespace": "d"}})),
        (
            "apps/v1/deployments",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        ),
        (
            "batch/v1/jobs",
            json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}),
        ),
        (
            "rbac.authorization.k8s.io/v1/roles",
            json!({"metadata": {"name": "system:x"}, "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]}),
        ),
        (
            "rbac.authorization.k8s.io/v1/clusterroles",
            json!({"rules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz"]}]}),
        ),
        (
            "rbac.authorization.k8s.io/v1/rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "jiang"}]}),
        ),
        (
            "coordination.k8s.io/v1/leases",
            json!({"spec": {"holderIdentity": "x", "leaseDurationSeconds": 15}}),
        ),
        ("storage.k8s.io/v1/storageclasses", json!({"provisioner": "p"})),
        ("scheduling.k8s.io/v1/priorityclasses", json!({"value": 5})),
        (
            "v1/persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        ),
        (
            "v1/persistentvolumes",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}}}),
        ),
        ("scheduling.binnacle.dev/v1alpha1/decisions", json!({"spec": {"podUid": "u"}})),
    ] {
        assert_eq!(created(path, value.clone()), "", "{path}");
        assert_eq!(updated(path, value.clone(), value), "", "{path}");
    }
}

#[test]
fn metadata_is_judged_the_same_for_all_kinds() {
    for (path, value, expected) in [
        (
            "v1/configmaps",
            json!({"metadata": {"name": ""}}),
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            "v1/configmaps",
            json!({"metadata": {"name": "A"}}),
            "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
        ("v1/configmaps", json!({"metadata": {"generateName": "a-"}}), ""),
        (
            "v1/nodes",
            json!({"metadata": {"name": "n", "namespace": "d"}}),
            "metadata.namespace: Forbidden: not allowed on this type",
        ),
        (
            "v1/configmaps",
            json!({"metadata": {"name": "a", "namespace": ""}}),
            "metadata.namespace: Required value",
        ),
        (
            "v1/configmaps",
            json!({"metadata": {"name": "a", "finalizers": ["x"]}}),
            "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor is it fully qualified",
        ),
        (
            "v1/configmaps",
            json!({"metadata": {"name": "a", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "", "controller": true}]}}),
            "metadata.ownerReferences[1].uid: Invalid value: \"\": must not be empty\nmetadata.ownerReferences: Invalid value: [{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"p\",\"uid\":\"1\",\"controller\":true},{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"name\":\"q\",\"uid\":\"\",\"controller\":true}]: Only one reference can have Controller set to true. Found \"true\" in references for p and q",
        ),
    ] {
        assert_eq!(created(path, value), expected);
    }
    let long = "x".repeat(300 * 1024);
    assert_eq!(
        created("v1/configmaps", json!({"metadata": {"name": "a", "annotations": {"k": long}}})),
        "metadata.annotations: Too long: may not be more than 262144 bytes"
    );
    let bad_label = created("v1/configmaps", json!({"metadata": {"name": "a", "labels": {"a b": "c"}}}));
    assert!(
        bad_label.starts_with("metadata.labels: Invalid value: \"a b\": name part must consist of"),
        "{bad_label}"
    );
}

#[test]
fn metadata_that_may_not_change_is_named() {
    assert_eq!(
        updated(
            "v1/configmaps",
            json!({"metadata": {"name": "a", "uid": "1"}}),
            json!({"metadata": {"name": "a", "uid": "2"}})
        ),
        "metadata.uid: Invalid value: \"2\": field is immutable"
    );
    assert_eq!(
        updated(
            "v1/configmaps",
            json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]}}),
            json!({"metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b", "c/d"]}}),
        ),
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"
    );
}

#[test]
fn pods_are_judged_in_upstreams_words() {
    let table = [
        (json!({"spec": {}}), "spec.containers: Required value"),
        (pod(json!({"image": "x"})), "spec.containers[0].name: Required value"),
        (pod(json!({"name": "a"})), "spec.containers[0].image: Required value"),
        (
            pod(json!({"name": "a", "image": " x"})),
            "spec.containers[0].image: Invalid value: \" x\": must not have leading or trailing whitespace",
        ),
        (
            pod(json!({"name": "a", "image": "x", "imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
        ),
        (
            pod(json!({"name": "a", "image": "x", "ports": [{}]})),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            pod(json!({"name": "a", "image": "x", "ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            pod(json!({"name": "a", "image": "x", "ports": [{"containerPort": 1, "protocol": "ICMP"}]})),
            "spec.containers[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "x"}]}}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            pod(json!({"name": "a", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
        ),
        (
            pod(
                json!({"name": "a", "image": "x", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            ),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            pod(json!({"name": "a", "image": "x", "resources": {"limits": {"memory": "-1"}}})),
            "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0\nspec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
        (
            pod(json!({"name": "a", "image": "x", "livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"spec": {"restartPolicy": "Maybe", "containers": [{"name": "a", "image": "x"}]}}),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v"}, {"name": "v"}]}}),
            "spec.volumes[1].name: Duplicate value: \"v\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]}}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}], "tolerations": [{"operator": "Equal", "value": "x"}]}}),
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
        ),
        (
            json!({"spec": {"containers": [{"name": "a", "image": "x"}], "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}}}}),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
    ];
    for (value, expected) in table {
        assert_eq!(created("v1/pods", value), expected);
    }
}

#[test]
fn a_running_pod_changes_only_where_it_may() {
    let old = || json!({"spec": {"nodeName": "n", "tolerations": [{"key": "k", "operator": "Exists"}], "containers": [{"name": "a", "image": "x"}]}});
    let change = |pointer: &str, value: Value| {
        let mut new = old();
        *new.pointer_mut(pointer).unwrap() = value;
        updated("v1/pods", old(), new)
    };
    assert_eq!(change("/spec/containers/0/image", json!("y")), "");
    assert_eq!(
        change(
            "/spec/tolerations",
            json!([{"key": "k", "operator": "Exists"}, {"key": "l", "operator": "Exists"}])
        ),
        ""
    );
    assert_eq!(
        change("/spec/tolerations", json!([])),
        "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds"
    );
    assert_eq!(
        change("/spec/containers", json!([])),
        "spec.containers: Forbidden: pod updates may not add or remove containers"
    );
    assert_eq!(
        change("/spec/nodeName", json!("m")),
        "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\nchanged: spec.nodeName"
    );
}

#[test]
fn other_kinds_are_judged_in_upstreams_words() {
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, value, expected) in [
        (
            "v1/configmaps",
            json!({"data": {"a b": "x"}}),
            "data[a b]: Invalid value: \"a b\": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
        ),
        (
            "v1/secrets",
            json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
            "data[tls.key]: Required value",
        ),
        ("v1/services", json!({"spec": {}}), "spec.ports: Required value"),
        (
            "v1/services",
            json!({"spec": {"ports": [{"port": 1}, {"port": 2, "name": "b"}]}}),
            "spec.ports[0].name: Required value",
        ),
        (
            "v1/services",
            json!({"spec": {"ports": [{"port": 0}]}}),
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive\nspec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "v1/bindings",
            json!({"target": {"kind": "Pod", "name": "n"}}),
            "target.kind: Unsupported value: \"Pod\": supported values: \"Node\", \"<empty>\"",
        ),
        (
            "v1/events",
            json!({"involvedObject": {"namespace": "other"}}),
            "involvedObject.namespace: Invalid value: \"other\": does not match event.namespace",
        ),
        ("v1/nodes", json!({"spec": {"taints": [{"key": "k"}]}}), "spec.taints[0].effect: Required value"),
        ("apps/v1/deployments", json!({"spec": {"template": template}}), "spec.selector: Required value"),
        (
            "apps/v1/deployments",
            json!({"spec": {"selector": {"matchLabels": {"a": "c"}}, "template": template}}),
            "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
        ),
        (
            "apps/v1/deployments",
            json!({"spec": {"replicas": -1, "selector": {"matchLabels": {"a": "b"}}, "template": template}}),
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            "batch/v1/jobs",
            json!({"spec": {"template": template}}),
            "spec.template.spec.restartPolicy: Unsupported value: \"Always\": supported values: \"OnFailure\", \"Never\"",
        ),
        (
            "rbac.authorization.k8s.io/v1/roles",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"]}]}),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            "rbac.authorization.k8s.io/v1/rolebindings",
            json!({"roleRef": {"kind": "Thing", "name": "r"}}),
            "roleRef.kind: Unsupported value: \"Thing\": supported values: \"Role\", \"ClusterRole\"",
        ),
        (
            "coordination.k8s.io/v1/leases",
            json!({"spec": {"leaseDurationSeconds": 0}}),
            "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        ),
        (
            "v1/persistentvolumeclaims",
            json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}}),
            "spec.accessModes: Required value: at least 1 access mode is required",
        ),
    ] {
        assert_eq!(created(path, value), expected, "{path}");
    }
}

#[test]
fn nested_structs_have_their_rules_wherever_they_stand() {
    let container = |extra: Value| {
        let mut container = json!({"name": "a", "image": "x"});
        container.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        pod(container)
    };
    let deployment = |strategy: Value| {
        json!({"spec": {"strategy": strategy, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
    };
    for (path, value, expected) in [
        (
            "v1/pods",
            container(json!({"livenessProbe": {"httpGet": {}}})),
            "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            "v1/pods",
            container(json!({"lifecycle": {"preStop": {}}})),
            "spec.containers[0].lifecycle.preStop: Required value: must specify a handler type",
        ),
        (
            "v1/pods",
            container(
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
            ),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            "v1/pods",
            container(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s"}}}]})),
            "spec.containers[0].env[0].valueFrom.secretKeyRef.key: Required value",
        ),
        (
            "v1/pods",
            json!({"spec": {"containers": [{"name": "a", "image": "x"}], "volumes": [{"name": "v", "secret": {}}]}}),
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            "v1/services",
            json!({"spec": {"ports": [{"port": 80, "targetPort": "Bad_Name"}]}}),
            "spec.ports[0].targetPort: Invalid value: \"Bad_Name\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            "apps/v1/deployments",
            deployment(json!({"type": "Recreate", "rollingUpdate": {}})),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            "apps/v1/deployments",
            deployment(json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}})),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
        ),
        (
            "networking.k8s.io/v1/ingresses",
            json!({"spec": {}}),
            "spec: Invalid value: []: either `defaultBackend` or `rules` must be specified",
        ),
        (
            "apiextensions.k8s.io/v1/customresourcedefinitions",
            json!({"metadata": {"name": "as.x.io"}, "spec": {"group": "x.io", "scope": "Namespaced", "names": {"plural": "bs", "kind": "B"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
            "metadata.name: Invalid value: \"as.x.io\": must be spec.names.plural+\".\"+spec.group",
        ),
    ] {
        assert_eq!(created(path, value), expected, "{path}");
    }
}

#[test]
fn what_may_not_change_is_named() {
    let template = json!({"metadata": {"labels": {"a": "b", "c": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, old, new, expected) in [
        (
            "v1/configmaps",
            json!({"immutable": true, "data": {"a": "b"}}),
            json!({"immutable": true, "data": {"a": "c"}}),
            "data: Forbidden: field is immutable when `immutable` is set",
        ),
        (
            "v1/secrets",
            json!({"type": "x"}),
            json!({"type": "y"}),
            "type: Invalid value: \"y\": field is immutable",
        ),
        (
            "apps/v1/deployments",
            json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
            json!({"spec": {"selector": {"matchLabels": {"c": "d"}}, "template": template}}),
            "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable",
        ),
        (
            "rbac.authorization.k8s.io/v1/rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"}}),
            json!({"roleRef": {"kind": "Role", "name": "s", "apiGroup": "rbac.authorization.k8s.io"}}),
            "roleRef: Invalid value: {\"kind\":\"Role\",\"name\":\"s\",\"apiGroup\":\"rbac.authorization.k8s.io\"}: cannot change roleRef",
        ),
        (
            "storage.k8s.io/v1/storageclasses",
            json!({"provisioner": "p"}),
            json!({"provisioner": "q"}),
            "provisioner: Forbidden: updates to provisioner are forbidden.",
        ),
        (
            "v1/persistentvolumeclaims",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
            json!({"spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}}),
            "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims",
        ),
    ] {
        assert_eq!(updated(path, old, new), expected, "{path}");
    }
}

#[test]
fn a_status_is_judged_on_its_own_path() {
    for (path, status, expected) in [
        ("v1/pods", json!({"phase": "Running"}), ""),
        (
            "v1/nodes",
            json!({"capacity": {"cpu": "-1"}}),
            "status.capacity[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ] {
        let old = json!({"metadata": {"name": "a"}});
        let new = json!({"metadata": {"name": "a"}, "status": status});
        assert_eq!(lines(update_status(resource(path), &new, &old)), expected);
    }
}

#[test]
fn every_row_names_a_field_of_its_type() {
    for (type_name, rules) in rows::ROWS {
        let type_ = Schema::builtin().type_(type_name).unwrap_or_else(|| panic!("{type_name}"));
        for rule in *rules {
            let (Rule::Required(field, _)
            | Rule::OneOf(field, _)
            | Rule::Name(field, _)
            | Rule::Between(field, ..)
            | Rule::Port(field)
            | Rule::PortOrName(field)
            | Rule::NotNegative(field)
            | Rule::Positive(field, _)
            | Rule::Unique(field, _)) = rule;
            assert!(type_.field(field).is_some(), "{type_name}.{field}");
        }
    }
}

#[test]
fn values_of_any_shape_do_not_panic() {
    for shape in [
        json!(null),
        json!([]),
        json!("x"),
        json!({"metadata": 1, "spec": []}),
        json!({"spec": {"containers": {"a": 1}, "template": 5, "ports": [1]}, "rules": [1], "data": 7}),
    ] {
        for row in kinds::resources() {
            let _ = create(row, &shape);
            let _ = update(row, &shape, &json!({"spec": {"containers": [1]}}));
            let mut filled = shape.clone();
            defaults::apply(row, &mut filled);
        }
    }
}
