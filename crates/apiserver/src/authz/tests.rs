//! Decisions of the index on small clusters, written as scripts.

use serde_json::json;

use super::*;

fn index() -> Index {
    let index = Index::default();
    let role = |rules: serde_json::Value| json!({"metadata": {}, "rules": rules});
    let pods = json!([{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]);
    index.set("roles", "default", "pod-reader", Some(&role(pods)));
    let nodes = json!([{"verbs": ["list"], "apiGroups": [""], "resources": ["nodes"]}]);
    index.set("clusterroles", "", "node-lister", Some(&role(nodes)));
    index
}

fn bind(index: &Index, namespace: &str, name: &str, role: (&str, &str), subjects: serde_json::Value) {
    let plural = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
    let object = json!({"roleRef": {"kind": role.0, "name": role.1}, "subjects": subjects});
    index.set(plural, namespace, name, Some(&object));
}

fn ask(index: &Index, user: &User, verb: &str, resource: &str, namespace: &str) -> Decision {
    index.decide(&Attributes { verb, resource, namespace, is_resource: true, ..Attributes::of_user(user) })
}

fn allowed(index: &Index, user: &User, verb: &str, resource: &str, namespace: &str) -> bool {
    matches!(ask(index, user, verb, resource, namespace), Decision::Allow(_))
}

#[test]
fn a_role_binding_grants_in_its_namespace_only_and_says_why() {
    let index = index();
    let jiang = User::new("jiang", &["dev"]);
    assert_eq!(ask(&index, &jiang, "list", "pods", "default"), Decision::NoOpinion(String::new()));
    bind(&index, "default", "read-pods", ("Role", "pod-reader"), json!([{"kind": "User", "name": "jiang"}]));
    assert_eq!(
        ask(&index, &jiang, "list", "pods", "default"),
        Decision::Allow(
            "RBAC: allowed by RoleBinding \"read-pods/default\" of Role \"pod-reader\" to User \"jiang\""
                .to_string()
        )
    );
    assert!(!allowed(&index, &jiang, "list", "pods", "other"));
    assert!(!allowed(&index, &jiang, "list", "pods", ""));
    assert!(!allowed(&index, &jiang, "delete", "pods", "default"));
    assert!(!allowed(&index, &User::new("ann", &["dev"]), "list", "pods", "default"));
    index.set("rolebindings", "default", "read-pods", None);
    assert!(!allowed(&index, &jiang, "list", "pods", "default"), "a deleted binding no longer counts");
}

#[test]
fn a_cluster_role_reaches_as_far_as_its_binding() {
    let index = index();
    let dev = User::new("x", &["dev"]);
    let group = json!([{"kind": "Group", "name": "dev"}]);
    bind(&index, "default", "b", ("ClusterRole", "node-lister"), group.clone());
    assert!(allowed(&index, &dev, "list", "nodes", "default"));
    assert!(!allowed(&index, &dev, "list", "nodes", ""));
    bind(&index, "", "b", ("ClusterRole", "node-lister"), group);
    assert_eq!(
        ask(&index, &dev, "list", "nodes", ""),
        Decision::Allow(
            "RBAC: allowed by ClusterRoleBinding \"b\" of ClusterRole \"node-lister\" to Group \"dev\""
                .to_string()
        )
    );
}

#[test]
fn a_service_account_is_meant_by_its_namespace_and_name() {
    let index = index();
    let subjects = json!([{"kind": "ServiceAccount", "name": "sa"}, {"kind": "ServiceAccount", "name": "sb", "namespace": "other"}]);
    bind(&index, "default", "b", ("Role", "pod-reader"), subjects);
    assert!(allowed(&index, &User::new("system:serviceaccount:default:sa", &[]), "get", "pods", "default"));
    assert!(allowed(&index, &User::new("system:serviceaccount:other:sb", &[]), "get", "pods", "default"));
    assert!(!allowed(&index, &User::new("system:serviceaccount:other:sa", &[]), "get", "pods", "default"));
}

#[test]
fn a_binding_to_a_missing_role_is_named_in_the_denial() {
    let index = index();
    bind(&index, "default", "b", ("Role", "gone"), json!([{"kind": "User", "name": "jiang"}]));
    assert_eq!(
        ask(&index, &User::new("jiang", &[]), "get", "pods", "default"),
        Decision::NoOpinion("RBAC: role.rbac.authorization.k8s.io \"gone\" not found".to_string())
    );
}

#[test]
fn an_aggregating_role_grants_what_it_selects_at_any_depth_and_survives_cycles() {
    let index = index();
    let aggregate = |label: &str, own: &str| {
        json!({
            "metadata": {"labels": {own: "true"}},
            "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {label: "true"}}]},
            "rules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["stale"]}],
        })
    };
    index.set("clusterroles", "", "admin", Some(&aggregate("to-admin", "to-edit")));
    index.set("clusterroles", "", "edit", Some(&aggregate("to-edit", "to-admin")));
    bind(&index, "", "b", ("ClusterRole", "admin"), json!([{"kind": "User", "name": "jiang"}]));
    let jiang = User::new("jiang", &[]);
    assert!(!allowed(&index, &jiang, "get", "pods", "default"));
    let part = json!({
        "metadata": {"labels": {"to-edit": "true"}},
        "rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
    });
    index.set("clusterroles", "", "part", Some(&part));
    assert!(allowed(&index, &jiang, "get", "pods", "default"));
    assert!(
        !allowed(&index, &jiang, "get", "stale", "default"),
        "rules of the aggregating role itself do not count"
    );
    index.set("clusterroles", "", "part", None);
    assert!(!allowed(&index, &jiang, "get", "pods", "default"));
}

#[test]
fn denials_read_as_upstream_writes_them() {
    let jiang = User::new("jiang", &[]);
    let pods = Attributes {
        verb: "list",
        resource: "pods",
        namespace: "default",
        is_resource: true,
        ..Attributes::of_user(&jiang)
    };
    let cluster = Attributes {
        namespace: "",
        api_group: "apps",
        resource: "deployments",
        subresource: "scale",
        name: "web",
        ..pods
    };
    let path = Attributes { verb: "get", path: "/metrics", ..Attributes::of_user(&jiang) };
    for (attributes, reason, expected) in [
        (
            pods,
            "",
            "pods is forbidden: User \"jiang\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"",
        ),
        (
            cluster,
            "RBAC: x",
            "deployments.apps \"web\" is forbidden: User \"jiang\" cannot list resource \"deployments/scale\" in API group \"apps\" at the cluster scope: RBAC: x",
        ),
        (path, "", "forbidden: User \"jiang\" cannot get path \"/metrics\""),
    ] {
        let status = attributes.forbidden(reason);
        assert_eq!((status.code, status.message.as_str()), (403, expected));
    }
}

#[test]
fn modes_decide_in_order_and_masters_always_may() {
    let with = |modes: &[AuthorizationMode]| {
        Authorizer::new(&Config { authorization_modes: modes.to_vec(), ..Config::default() })
    };
    let jiang = User::new("jiang", &[]);
    let attributes = Attributes { verb: "get", path: "/x", ..Attributes::of_user(&jiang) };
    use AuthorizationMode::{AlwaysAllow, AlwaysDeny, Rbac};
    assert_eq!(with(&[Rbac]).decide(&attributes), Decision::NoOpinion(String::new()));
    assert_eq!(with(&[Rbac, AlwaysAllow]).decide(&attributes), Decision::Allow(String::new()));
    assert_eq!(
        with(&[AlwaysDeny]).decide(&attributes),
        Decision::NoOpinion("Everything is forbidden.".to_string())
    );
    let root = User::new("root", &[GROUP_MASTERS]);
    assert_eq!(
        with(&[AlwaysDeny]).decide(&Attributes { user: &root, ..attributes }),
        Decision::Allow(String::new())
    );
}
