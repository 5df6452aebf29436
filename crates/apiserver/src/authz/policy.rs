//! The roles and bindings that every cluster starts with.
//!
//! Text of our own, one rule per line: `verbs | groups | resources [| names]`, or `verbs | url | paths`. `core` is the
//! core group; `read` and `write` stand for the usual verbs. `+view` behind a role's name is the label that makes
//! `view` aggregate it; `<view` says that the role aggregates what carries that label. Facts:
//! plugin/pkg/auth/authorizer/rbac/bootstrappolicy of 1.35. Roles named `binnacle:` are ours.
//! Not here: writing them to the store (`default_objects.rs`).

use apimachinery::Value;
use serde_json::json;

use super::rules::Rule;

pub(crate) const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const API_GROUP: &str = "rbac.authorization.k8s.io";
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];

/// One object of the policy, ready to be created.
#[derive(Debug, Clone)]
pub(crate) struct PolicyObject {
    pub(crate) plural: &'static str,
    /// Empty for cluster-wide ones.
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) value: Value,
}

/// Roles first, then bindings.
pub(crate) fn objects() -> Vec<PolicyObject> {
    let mut objects = Vec::new();
    let mut lines = ROLES.lines().filter(|line| !line.trim().is_empty()).peekable();
    while let Some(head) = lines.next() {
        let mut rules = Vec::new();
        while let Some(line) = lines.next_if(|line| line.starts_with("  ")) {
            rules.push(rule(line));
        }
        objects.push(role(head, &rules));
    }
    objects.extend(BINDINGS.lines().map(str::trim).filter(|line| !line.is_empty()).map(binding));
    objects
}

fn role(head: &'static str, rules: &[Rule]) -> PolicyObject {
    let mut words = head.split_whitespace();
    let (namespace, name) = scoped(words.next().unwrap_or_default());
    let mut value = base(if namespace.is_empty() { "ClusterRole" } else { "Role" }, namespace, name);
    for word in words {
        let label = |target: &str| format!("{API_GROUP}/aggregate-to-{target}");
        if let Some(target) = word.strip_prefix('+') {
            value["metadata"]["labels"][label(target)] = json!("true");
        } else if let Some(target) = word.strip_prefix('<') {
            value["aggregationRule"] =
                json!({"clusterRoleSelectors": [{"matchLabels": {label(target): "true"}}]});
        }
    }
    value["rules"] = rules.iter().map(Rule::to_value).collect();
    let plural = if namespace.is_empty() { "clusterroles" } else { "roles" };
    PolicyObject { plural, namespace, name, value }
}

/// `name -> Kind:role subject...`
fn binding(line: &'static str) -> PolicyObject {
    let (head, tail) = line.split_once(" -> ").unwrap_or((line, ""));
    let (namespace, name) = scoped(head);
    let mut words = tail.split_whitespace();
    let (role_kind, role_name) = words.next().and_then(|word| word.split_once('/')).unwrap_or_default();
    let subject = |word: &str| {
        let (kind, name) = word.split_once('=').unwrap_or_default();
        match name.split_once('/') {
            Some((namespace, name)) => json!({"kind": kind, "name": name, "namespace": namespace}),
            None => json!({"apiGroup": API_GROUP, "kind": kind, "name": name}),
        }
    };
    let mut value =
        base(if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" }, namespace, name);
    value["roleRef"] = json!({"apiGroup": API_GROUP, "kind": role_kind, "name": role_name});
    value["subjects"] = words.map(subject).collect();
    let plural = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
    PolicyObject { plural, namespace, name, value }
}

fn base(kind: &str, namespace: &str, name: &str) -> Value {
    let mut value = json!({
        "apiVersion": format!("{API_GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "annotations": {AUTOUPDATE: "true"},
        },
    });
    if !namespace.is_empty() {
        value["metadata"]["namespace"] = json!(namespace);
    }
    value
}

/// `namespace/name`, or a cluster-wide name.
fn scoped(text: &'static str) -> (&'static str, &'static str) {
    text.split_once('/').unwrap_or(("", text))
}

fn rule(line: &str) -> Rule {
    let mut columns = line.split('|').map(|column| texts(column.trim()));
    let mut next = || columns.next().unwrap_or_default();
    let verbs = next();
    let groups = next();
    if groups == ["url"] {
        return Rule { verbs, non_resource_urls: next(), ..Rule::default() };
    }
    let api_groups =
        groups.into_iter().map(|group| if group == "core" { String::new() } else { group }).collect();
    Rule { verbs, api_groups, resources: next(), resource_names: next(), ..Rule::default() }
}

fn texts(column: &str) -> Vec<String> {
    let words = column.split(',').map(str::trim).filter(|word| !word.is_empty());
    let mut texts: Vec<String> = Vec::new();
    for word in words {
        match word {
            "read" => texts.extend(READ.iter().map(|verb| (*verb).to_string())),
            "write" => texts.extend(WRITE.iter().map(|verb| (*verb).to_string())),
            word => texts.push(word.to_string()),
        }
    }
    texts
}

const ROLES: &str = "
cluster-admin
  * | * | *
  * | url | *
system:discovery
  get | url | /livez,/readyz,/healthz,/version,/version/,/openapi,/openapi/*,/api,/api/*,/apis,/apis/*
system:public-info-viewer
  get | url | /livez,/readyz,/healthz,/version,/version/
system:monitoring
  get | url | /metrics,/metrics/slis,/livez,/readyz,/healthz,/livez/*,/readyz/*,/healthz/*
system:basic-user
  create | authorization.k8s.io | selfsubjectaccessreviews,selfsubjectrulesreviews
  create | authentication.k8s.io | selfsubjectreviews
system:auth-delegator
  create | authentication.k8s.io | tokenreviews
  create | authorization.k8s.io | subjectaccessreviews
admin <admin
edit <edit +admin
view <view +edit
system:aggregate-to-admin +admin
  create | authorization.k8s.io | localsubjectaccessreviews
  write,read | rbac.authorization.k8s.io | roles,rolebindings
system:aggregate-to-edit +edit
  read | core | pods/attach,pods/proxy,pods/exec,pods/portforward,secrets,services/proxy
  impersonate | core | serviceaccounts
  write | core | pods,pods/attach,pods/proxy,pods/exec,pods/portforward
  create | core | pods/eviction
  write | core | replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/proxy,persistentvolumeclaims,configmaps,secrets,events
  create | core | serviceaccounts/token
  write | apps | statefulsets,statefulsets/scale,daemonsets,deployments,deployments/scale,deployments/rollback,replicasets,replicasets/scale
  write | autoscaling | horizontalpodautoscalers
  write | batch | jobs,cronjobs
  write | policy | poddisruptionbudgets
  write | networking.k8s.io | networkpolicies,ingresses
  write,read | coordination.k8s.io | leases
  write | resource.k8s.io | resourceclaims,resourceclaimtemplates
system:aggregate-to-view +view
  read | core | pods,replicationcontrollers,replicationcontrollers/scale,serviceaccounts,services,services/status,endpoints,persistentvolumeclaims,persistentvolumeclaims/status,configmaps
  read | core | limitranges,resourcequotas,bindings,events,pods/status,resourcequotas/status,namespaces/status,replicationcontrollers/status,pods/log
  read | core | namespaces
  read | discovery.k8s.io | endpointslices
  read | apps | controllerrevisions,statefulsets,statefulsets/status,statefulsets/scale,daemonsets,daemonsets/status,deployments,deployments/status,deployments/scale,replicasets,replicasets/status,replicasets/scale
  read | autoscaling | horizontalpodautoscalers,horizontalpodautoscalers/status
  read | batch | jobs,jobs/status,cronjobs,cronjobs/status
  read | policy | poddisruptionbudgets,poddisruptionbudgets/status
  read | networking.k8s.io | networkpolicies,ingresses,ingresses/status
  read | resource.k8s.io | resourceclaims,resourceclaims/status,resourceclaimtemplates
binnacle:aggregate-to-view +view
  read | scheduling.binnacle.dev | decisions
system:kube-scheduler
  create,patch,update | core,events.k8s.io | events
  create,list,watch | coordination.k8s.io | leases
  get,update | coordination.k8s.io | leases | kube-scheduler
  create,delete,deletecollection,get,list,patch,update,watch | coordination.k8s.io | leasecandidates
  read | core | nodes
  delete,read | core | pods
  create | core | bindings,pods/binding
  patch,update | core | pods/status
  read | core | replicationcontrollers,services,namespaces
  read | apps,extensions | replicasets
  read | apps | statefulsets
  read | policy | poddisruptionbudgets
  read | core | persistentvolumeclaims,persistentvolumes
  create | authentication.k8s.io | tokenreviews
  create | authorization.k8s.io | subjectaccessreviews
  read | storage.k8s.io | csinodes,csidrivers,csistoragecapacities,storageclasses,volumeattachments
  read | resource.k8s.io | deviceclasses,resourceclaims,resourceslices
  patch,update | resource.k8s.io | resourceclaims,resourceclaims/status
  read,patch,update | core | pods/finalizers
system:volume-scheduler
  get,list,patch,update,watch | core | persistentvolumes
  read | storage.k8s.io | storageclasses
  get,list,patch,update,watch | core | persistentvolumeclaims
binnacle:scheduler
  read,write | scheduling.binnacle.dev | decisions
system:node
  create | authentication.k8s.io | tokenreviews
  create | authorization.k8s.io | localsubjectaccessreviews,subjectaccessreviews
  read | core | services
  create,read | core | nodes
  patch,update | core | nodes,nodes/status
  create,patch,update | core | events
  read | core | pods
  create,delete | core | pods
  patch,update | core | pods/status
  create | core | pods/eviction
  read | core | configmaps,secrets
  get | core | persistentvolumeclaims,persistentvolumes
  get,patch,update | core | persistentvolumeclaims/status
  get | storage.k8s.io | volumeattachments
  create,read | certificates.k8s.io | certificatesigningrequests
  create | core | serviceaccounts/token
  create,delete,get,patch,update | coordination.k8s.io | leases
  create,delete,get,patch,update | storage.k8s.io | csinodes
  read | storage.k8s.io | csidrivers
  read | node.k8s.io | runtimeclasses
  read | resource.k8s.io | resourceclaims
  deletecollection,read | resource.k8s.io | resourceslices
  create,delete,get,patch,update | resource.k8s.io | resourceslices
binnacle:node
  create,read,patch,update | core | nodes
  patch,update | core | nodes/status
  read,delete | core | pods
  patch,update | core | pods/status
  create,patch,update | core,events.k8s.io | events
  create,get,patch,update | coordination.k8s.io | leases
  read | node.k8s.io | runtimeclasses
system:node-proxier
  list,watch | core | services,endpoints
  read | core | nodes
  create,patch,update | core,events.k8s.io | events
  list,watch | discovery.k8s.io | endpointslices
  list,watch | networking.k8s.io | servicecidrs
system:node-problem-detector
  get | core | nodes
  patch | core | nodes/status
  create,patch,update | core,events.k8s.io | events
system:kubelet-api-admin
  read | core | nodes
  proxy | core | nodes
  * | core | nodes/log,nodes/metrics,nodes/proxy,nodes/stats,nodes/configz,nodes/healthz,nodes/pods
system:node-bootstrapper
  create,read | certificates.k8s.io | certificatesigningrequests
system:kube-dns
  list,watch | core | endpoints,services
system:kube-controller-manager
  create,patch,update | core,events.k8s.io | events
  create,list,watch | coordination.k8s.io | leases
  get,update | coordination.k8s.io | leases | kube-controller-manager
  create | core | secrets,serviceaccounts
  delete | core | secrets
  get | core | configmaps,namespaces,secrets,serviceaccounts
  update | core | secrets,serviceaccounts
  create | authentication.k8s.io | tokenreviews
  create | authorization.k8s.io | subjectaccessreviews
  list,watch | * | *
  create | core | serviceaccounts/token
binnacle:controllers
  read,delete,deletecollection,patch,update | * | *
  create | core | configmaps,events,serviceaccounts,endpoints,secrets,resourcequotas
  create | events.k8s.io | events
  create | coordination.k8s.io | leases
  create | discovery.k8s.io | endpointslices
  escalate | rbac.authorization.k8s.io | clusterroles
system:controller:clusterrole-aggregation-controller
  escalate,get,list,patch,update,watch | rbac.authorization.k8s.io | clusterroles
system:controller:cronjob-controller
  read,update | batch | cronjobs
  create,delete,read,patch,update | batch | jobs
  update | batch | cronjobs/finalizers,cronjobs/status
  delete,list | core | pods
  create,patch,update | core,events.k8s.io | events
system:controller:daemon-set-controller
  read | apps | daemonsets
  update | apps | daemonsets/finalizers,daemonsets/status
  read | core | nodes
  create,delete,list,patch,watch | core | pods
  create | core | pods/binding
  create,delete,get,list,patch,update,watch | apps | controllerrevisions
  create,patch,update | core,events.k8s.io | events
system:controller:deployment-controller
  read,update | apps | deployments
  update | apps | deployments/finalizers,deployments/status
  create,delete,read,patch,update | apps | replicasets
  read,update | core | pods
  create,patch,update | core,events.k8s.io | events
system:controller:disruption-controller
  read | apps | deployments,replicasets,statefulsets
  read | core | replicationcontrollers
  read | policy | poddisruptionbudgets
  update | policy | poddisruptionbudgets/status
  get,list,patch,update,watch | core | pods
  patch,update | core | pods/status
  get | * | */scale
  create,patch,update | core,events.k8s.io | events
system:controller:endpoint-controller
  read | core | pods,services
  create,delete,get,list,update,watch | core | endpoints
  create | core | endpoints/restricted
  create,patch,update | core,events.k8s.io | events
system:controller:endpointslice-controller
  read | core | nodes,pods,services
  update | core | services/finalizers
  create,delete,read,update | discovery.k8s.io | endpointslices
  create | discovery.k8s.io | endpointslices/restricted
  create,patch,update | core,events.k8s.io | events
system:controller:generic-garbage-collector
  delete,read,patch,update | * | *
  create,patch,update | core,events.k8s.io | events
system:controller:job-controller
  read,patch,update | batch | jobs
  update | batch | jobs/finalizers,jobs/status
  create,delete,list,patch,watch | core | pods
  create,patch,update | core,events.k8s.io | events
system:controller:namespace-controller
  delete,get,list,watch | core | namespaces
  update | core | namespaces/finalize,namespaces/status
  delete,deletecollection,get,list | * | *
system:controller:node-controller
  delete,get,list,patch,update,watch | core | nodes
  patch,update | core | nodes/status
  patch,update | core | pods/status
  delete,list,read | core | pods
  create,patch,update | core,events.k8s.io | events
system:controller:pod-garbage-collector
  delete,list,watch | core | pods
  read | core | nodes
  patch | core | pods/status
system:controller:replicaset-controller
  read,update | apps | replicasets
  update | apps | replicasets/finalizers,replicasets/status
  create,delete,list,patch,watch | core | pods
  create,patch,update | core,events.k8s.io | events
system:controller:resourcequota-controller
  list,watch | * | *
  update | core | resourcequotas/status
  create,patch,update | core,events.k8s.io | events
system:controller:root-ca-cert-publisher
  create,update | core | configmaps
  create,patch,update | core,events.k8s.io | events
system:controller:service-account-controller
  create | core | serviceaccounts
  create,patch,update | core,events.k8s.io | events
system:controller:statefulset-controller
  list,watch | core | pods
  read | apps | statefulsets
  update | apps | statefulsets/finalizers,statefulsets/status
  create,delete,get,patch,update | core | pods
  create,delete,get,list,patch,update,watch | apps | controllerrevisions
  create,get,list,watch | core | persistentvolumeclaims
  create,patch,update | core,events.k8s.io | events
system:controller:ttl-after-finished-controller
  delete,get,list,watch | batch | jobs
  create,patch,update | core,events.k8s.io | events
kube-system/extension-apiserver-authentication-reader
  read | core | configmaps | extension-apiserver-authentication
kube-system/system::leader-locking-kube-scheduler
  watch | core | configmaps
  get,update | core | configmaps | kube-scheduler
kube-system/system::leader-locking-kube-controller-manager
  watch | core | configmaps
  get,update | core | configmaps | kube-controller-manager
";

const BINDINGS: &str = "
cluster-admin -> ClusterRole/cluster-admin Group=system:masters
system:monitoring -> ClusterRole/system:monitoring Group=system:monitoring
system:discovery -> ClusterRole/system:discovery Group=system:authenticated
system:basic-user -> ClusterRole/system:basic-user Group=system:authenticated
system:public-info-viewer -> ClusterRole/system:public-info-viewer Group=system:authenticated Group=system:unauthenticated
system:kube-scheduler -> ClusterRole/system:kube-scheduler User=system:kube-scheduler
system:volume-scheduler -> ClusterRole/system:volume-scheduler User=system:kube-scheduler
binnacle:scheduler -> ClusterRole/binnacle:scheduler User=system:kube-scheduler
system:node-proxier -> ClusterRole/system:node-proxier User=system:kube-proxy
system:kube-controller-manager -> ClusterRole/system:kube-controller-manager User=system:kube-controller-manager
binnacle:controllers -> ClusterRole/binnacle:controllers User=system:kube-controller-manager
system:kube-dns -> ClusterRole/system:kube-dns ServiceAccount=kube-system/kube-dns
binnacle:node -> ClusterRole/binnacle:node Group=system:nodes
system:controller:clusterrole-aggregation-controller -> ClusterRole/system:controller:clusterrole-aggregation-controller ServiceAccount=kube-system/clusterrole-aggregation-controller
system:controller:cronjob-controller -> ClusterRole/system:controller:cronjob-controller ServiceAccount=kube-system/cronjob-controller
system:controller:daemon-set-controller -> ClusterRole/system:controller:daemon-set-controller ServiceAccount=kube-system/daemon-set-controller
system:controller:deployment-controller -> ClusterRole/system:controller:deployment-controller ServiceAccount=kube-system/deployment-controller
system:controller:disruption-controller -> ClusterRole/system:controller:disruption-controller ServiceAccount=kube-system/disruption-controller
system:controller:endpoint-controller -> ClusterRole/system:controller:endpoint-controller ServiceAccount=kube-system/endpoint-controller
system:controller:endpointslice-controller -> ClusterRole/system:controller:endpointslice-controller ServiceAccount=kube-system/endpointslice-controller
system:controller:generic-garbage-collector -> ClusterRole/system:controller:generic-garbage-collector ServiceAccount=kube-system/generic-garbage-collector
system:controller:job-controller -> ClusterRole/system:controller:job-controller ServiceAccount=kube-system/job-controller
system:controller:namespace-controller -> ClusterRole/system:controller:namespace-controller ServiceAccount=kube-system/namespace-controller
system:controller:node-controller -> ClusterRole/system:controller:node-controller ServiceAccount=kube-system/node-controller
system:controller:pod-garbage-collector -> ClusterRole/system:controller:pod-garbage-collector ServiceAccount=kube-system/pod-garbage-collector
system:controller:replicaset-controller -> ClusterRole/system:controller:replicaset-controller ServiceAccount=kube-system/replicaset-controller
system:controller:resourcequota-controller -> ClusterRole/system:controller:resourcequota-controller ServiceAccount=kube-system/resourcequota-controller
system:controller:root-ca-cert-publisher -> ClusterRole/system:controller:root-ca-cert-publisher ServiceAccount=kube-system/root-ca-cert-publisher
system:controller:service-account-controller -> ClusterRole/system:controller:service-account-controller ServiceAccount=kube-system/service-account-controller
system:controller:statefulset-controller -> ClusterRole/system:controller:statefulset-controller ServiceAccount=kube-system/statefulset-controller
system:controller:ttl-after-finished-controller -> ClusterRole/system:controller:ttl-after-finished-controller ServiceAccount=kube-system/ttl-after-finished-controller
kube-system/system::extension-apiserver-authentication-reader -> Role/extension-apiserver-authentication-reader User=system:kube-controller-manager User=system:kube-scheduler
kube-system/system::leader-locking-kube-scheduler -> Role/system::leader-locking-kube-scheduler User=system:kube-scheduler ServiceAccount=kube-system/kube-scheduler
kube-system/system::leader-locking-kube-controller-manager -> Role/system::leader-locking-kube-controller-manager User=system:kube-controller-manager ServiceAccount=kube-system/kube-controller-manager
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::User;
    use crate::authz::{Attributes, Decision, Index};

    fn index() -> Index {
        let index = Index::default();
        for object in objects() {
            index.set(object.plural, object.namespace, object.name, Some(&object.value));
        }
        index
    }

    #[test]
    fn every_binding_names_a_role_that_exists_and_nothing_is_empty() {
        let objects = objects();
        for object in &objects {
            if object.plural.ends_with("bindings") {
                let role = object.value["roleRef"]["name"].as_str().unwrap();
                assert!(
                    objects.iter().any(|other| other.plural.ends_with("roles") && other.name == role),
                    "{role}"
                );
                assert!(!object.value["subjects"].as_array().unwrap().is_empty(), "{}", object.name);
                continue;
            }
            let rules = Rule::read_all(&object.value);
            assert!(!rules.is_empty() || object.value.get("aggregationRule").is_some(), "{}", object.name);
            for rule in rules {
                let complete = !rule.verbs.is_empty()
                    && (!rule.non_resource_urls.is_empty()
                        || (!rule.api_groups.is_empty() && !rule.resources.is_empty()));
                assert!(complete, "{}: {rule:?}", object.name);
            }
        }
        let mut names: Vec<_> =
            objects.iter().map(|object| (object.plural, object.namespace, object.name)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn the_defaults_let_everybody_do_what_upstream_lets_them() {
        let index = index();
        let scheduler = User::new("system:kube-scheduler", &["system:authenticated"]);
        let jiang = User::new("jiang", &["dev", "system:authenticated"]);
        let anonymous = User::anonymous();
        let node = User::new("system:node:n1", &["system:nodes", "system:authenticated"]);
        let table: &[(&User, &str, &str, &str, &str, bool)] = &[
            (&scheduler, "create", "", "pods", "binding", true),
            (&scheduler, "watch", "", "pods", "", true),
            (&scheduler, "create", "scheduling.binnacle.dev", "decisions", "", true),
            (&scheduler, "get", "", "secrets", "", false),
            (&jiang, "list", "", "pods", "", false),
            (&jiang, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", true),
            (&jiang, "create", "authentication.k8s.io", "selfsubjectreviews", "", true),
            (&anonymous, "create", "authorization.k8s.io", "selfsubjectaccessreviews", "", false),
            (&node, "patch", "", "nodes", "status", true),
            (&node, "get", "", "secrets", "", false),
        ];
        for (user, verb, api_group, resource, subresource, expected) in table {
            let attributes = Attributes {
                verb,
                api_group,
                resource,
                subresource,
                namespace: "default",
                is_resource: true,
                ..Attributes::of_user(user)
            };
            let allowed = matches!(index.decide(&attributes), Decision::Allow(_));
            assert_eq!(allowed, *expected, "{} {verb} {resource}/{subresource}", user.name);
        }
        for (user, path, expected) in [
            (&jiang, "/api/", true),
            (&jiang, "/metrics", false),
            (&anonymous, "/version", true),
            (&anonymous, "/api", false),
        ] {
            let attributes = Attributes { verb: "get", path, ..Attributes::of_user(user) };
            assert_eq!(
                matches!(index.decide(&attributes), Decision::Allow(_)),
                expected,
                "{} {path}",
                user.name
            );
        }
    }

    #[test]
    fn admin_includes_edit_which_includes_view() {
        let index = index();
        let allowed = |role: &str, verb: &str, resource: &str, group: &str| {
            let user = User::new("x", &[]);
            let subject = json!({"roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": "User", "name": "x"}]});
            index.set("rolebindings", "ns", "b", Some(&subject));
            let attributes = Attributes {
                verb,
                resource,
                api_group: group,
                namespace: "ns",
                is_resource: true,
                ..Attributes::of_user(&user)
            };
            matches!(index.decide(&attributes), Decision::Allow(_))
        };
        assert!(allowed("view", "get", "pods", "") && !allowed("view", "get", "secrets", ""));
        assert!(allowed("edit", "get", "pods", "") && allowed("edit", "update", "secrets", ""));
        assert!(!allowed("edit", "create", "roles", API_GROUP));
        assert!(allowed("admin", "get", "pods", "") && allowed("admin", "create", "roles", API_GROUP));
        assert!(allowed("cluster-admin", "escalate", "clusterroles", API_GROUP));
    }
}
