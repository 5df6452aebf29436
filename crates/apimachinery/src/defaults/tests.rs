//! Input -> output tables.

use super::*;
use crate::kinds;

fn filled(api_version: &str, plural: &str, mut value: Value) -> Value {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = kinds::find(group, version, plural).unwrap();
    apply(resource, &mut value);
    let once = value.clone();
    apply(resource, &mut value);
    assert_eq!(once, value, "applying twice is applying once");
    value
}

#[test]
fn every_row_names_a_field_that_can_hold_it() {
    for (type_name, field, literal) in rows::ROWS {
        let type_ = Schema::builtin().type_(type_name).unwrap_or_else(|| panic!("{type_name}"));
        let field = type_.field(field).unwrap_or_else(|| panic!("{type_name}.{field}"));
        let fits = match literal {
            Literal::Text(_) => matches!(field.kind, Kind::String | Kind::IntOrString),
            Literal::Number(_) => matches!(field.kind, Kind::Int32 | Kind::Int64 | Kind::IntOrString),
            Literal::Flag(_) => field.kind == Kind::Bool,
            Literal::EmptyObject => matches!(field.kind, Kind::Ref(_)),
        };
        assert!(fits, "{type_name}.{}", field.name);
    }
    assert!(rows::ROWS.len() > 100);
}

#[test]
fn a_pod_gets_what_upstream_gives_it() {
    let pod = filled(
        "v1",
        "pods",
        json!({"metadata": {"name": "app"}, "spec": {"containers": [
            {"name": "app", "image": "registry.example/kube-easy/app:latest", "ports": [{"containerPort": 2580}],
             "resources": {"limits": {"cpu": "1"}}, "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "a"}, {"name": "b", "configMap": {"name": "c"}}]}}),
    );
    assert_eq!(
        pod["spec"],
        json!({
            "containers": [{
                "name": "app", "image": "registry.example/kube-easy/app:latest",
                "ports": [{"containerPort": 2580, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "failureThreshold": 3,
                                   "periodSeconds": 10, "successThreshold": 1, "timeoutSeconds": 1},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "imagePullPolicy": "Always"}],
            "volumes": [{"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "c", "defaultMode": 420}}],
            "enableServiceLinks": true, "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
            "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30
        })
    );
}

#[test]
fn pull_policy_follows_the_tag() {
    for (image, expected) in [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.2", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
        ("nginx:latest@sha256:0123", "Always"),
        ("", "IfNotPresent"),
    ] {
        let pod = filled("v1", "pods", json!({"spec": {"containers": [{"name": "a", "image": image}]}}));
        assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], expected, "{image}");
    }
}

#[test]
fn what_a_client_set_stays() {
    let pod = filled(
        "v1",
        "pods",
        json!({"spec": {"terminationGracePeriodSeconds": 0, "enableServiceLinks": false, "restartPolicy": "Never", "dnsPolicy": "",
            "containers": [{"name": "a", "image": "x", "imagePullPolicy": "Never"}]}}),
    );
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 0);
    assert_eq!(pod["spec"]["enableServiceLinks"], false);
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
    assert_eq!(pod["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(pod["spec"]["containers"][0]["imagePullPolicy"], "Never");
}

#[test]
fn other_kinds_get_theirs() {
    for (api_version, plural, input, expected) in [
        ("v1", "secrets", json!({}), json!({"type": "Opaque"})),
        (
            "v1",
            "secrets",
            json!({"data": {"a": "eA=="}, "stringData": {"a": "hi", "b": ""}}),
            json!({"data": {"a": "aGk=", "b": ""}, "type": "Opaque"}),
        ),
        (
            "v1",
            "namespaces",
            json!({"metadata": {"name": "a"}}),
            json!({"metadata": {"name": "a", "labels": {"kubernetes.io/metadata.name": "a"}}, "status": {"phase": "Active"}}),
        ),
        (
            "v1",
            "nodes",
            json!({"status": {"capacity": {"cpu": "4"}}}),
            json!({"status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}}}),
        ),
        (
            "v1",
            "services",
            json!({"spec": {"ports": [{"port": 80, "targetPort": 0}]}}),
            json!({"spec": {"ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}], "sessionAffinity": "None",
                "type": "ClusterIP", "internalTrafficPolicy": "Cluster"}}),
        ),
        (
            "rbac.authorization.k8s.io/v1",
            "rolebindings",
            json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]}),
            json!({"roleRef": {"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"},
                "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}, {"kind": "ServiceAccount", "name": "s"}]}),
        ),
        (
            "batch/v1",
            "jobs",
            json!({"spec": {}}),
            json!({"spec": {"completionMode": "NonIndexed", "suspend": false, "completions": 1, "parallelism": 1, "backoffLimit": 6,
                "podReplacementPolicy": "TerminatingOrFailed"}}),
        ),
        (
            "networking.k8s.io/v1",
            "networkpolicies",
            json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}}),
            json!({"spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53, "protocol": "TCP"}]}], "policyTypes": ["Ingress", "Egress"]}}),
        ),
        (
            "v1",
            "limitranges",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Gi"}}]}}),
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Gi"}, "default": {"cpu": "2"},
                "defaultRequest": {"cpu": "2", "memory": "1Gi"}}]}}),
        ),
    ] {
        assert_eq!(filled(api_version, plural, input), expected, "{plural}");
    }
    let deployment =
        filled("apps/v1", "deployments", json!({"spec": {"template": {"spec": {"containers": []}}}}));
    assert_eq!(
        deployment["spec"]["strategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
    );
    assert_eq!(deployment["spec"]["replicas"], 1);
    assert_eq!(deployment["spec"]["template"]["spec"]["restartPolicy"], "Always");
    assert!(deployment["spec"]["template"]["spec"].get("enableServiceLinks").is_none());
    let recreate = filled("apps/v1", "deployments", json!({"spec": {"strategy": {"type": "Recreate"}}}));
    assert_eq!(recreate["spec"]["strategy"], json!({"type": "Recreate"}));
}

#[test]
fn a_pods_class_follows_its_resources() {
    let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
    for (resources, expected) in [
        (json!({}), "BestEffort"),
        (json!({"requests": {"cpu": "0"}}), "BestEffort"),
        (json!({"requests": {"cpu": "1"}}), "Burstable"),
        (json!({"limits": {"cpu": "1", "memory": "1Gi"}}), "Guaranteed"),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}}),
            "Guaranteed",
        ),
        (
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}}),
            "Burstable",
        ),
    ] {
        assert_eq!(qos_class(&spec(resources.clone())), expected, "{resources}");
    }
}
