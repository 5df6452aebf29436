//! Rows against the schema, against each other, and samples against upstream's discovery.

use super::*;
use crate::schema::Schema;
use serde_json::json;

#[test]
fn every_row_has_its_types_and_its_group() {
    for row in resources() {
        assert!(Schema::builtin().type_(row.type_name).is_some(), "{}", row.type_name);
        if row.verbs.list {
            assert!(Schema::builtin().type_(&row.list_type_name()).is_some(), "{}", row.list_type_name());
        }
        let group = groups().iter().find(|group| group.name == row.group);
        assert!(group.is_some_and(|group| group.versions.contains(&row.version)), "{}", row.type_name);
        assert_eq!(row.list_kind, format!("{}List", row.kind));
        for subresource in row.subresource_rows() {
            assert!(Schema::builtin().type_(subresource.type_name).is_some(), "{}", subresource.name);
        }
    }
}

#[test]
fn no_two_rows_share_a_path() {
    let mut seen = std::collections::BTreeSet::new();
    for row in resources() {
        assert!(seen.insert((row.group, row.version, row.plural)), "{row:?}");
        assert_eq!(find(row.group, row.version, row.plural), Some(row));
        assert_eq!(find_kind(row.group, row.version, row.kind), Some(row));
    }
}

#[test]
fn an_object_with_status_subresource_has_a_status() {
    for row in resources().iter().filter(|row| row.subresources.status) {
        assert!(
            Schema::builtin().type_(row.type_name).unwrap().field("status").is_some(),
            "{}",
            row.type_name
        );
    }
}

#[test]
fn rows_say_what_upstreams_discovery_says() {
    for (path, expected) in [
        (
            "/v1/pods",
            "Pod pod po ns [create,delete,deletecollection,get,list,patch,update,watch] binding,ephemeralcontainers,eviction,resize,status",
        ),
        (
            "/v1/namespaces",
            "Namespace namespace ns cluster [create,delete,get,list,patch,update,watch] finalize,status",
        ),
        ("/v1/bindings", "Binding binding  ns [create] "),
        (
            "apps/v1/deployments",
            "Deployment deployment deploy ns [create,delete,deletecollection,get,list,patch,update,watch] scale,status",
        ),
        (
            "authorization.k8s.io/v1/selfsubjectaccessreviews",
            "SelfSubjectAccessReview selfsubjectaccessreview  cluster [create] ",
        ),
        (
            "/v1/serviceaccounts",
            "ServiceAccount serviceaccount sa ns [create,delete,deletecollection,get,list,patch,update,watch] token",
        ),
    ] {
        let parts: Vec<&str> = path.split('/').collect();
        let row = find(parts[0], parts[1], parts[2]).unwrap_or_else(|| panic!("{path}"));
        let subresources: Vec<&str> = row.subresource_rows().iter().map(|row| row.name).collect();
        let text = format!(
            "{} {} {} {} [{}] {}",
            row.kind,
            row.singular,
            row.short_names.join(","),
            if row.namespaced { "ns" } else { "cluster" },
            row.verb_names().join(","),
            subresources.join(",")
        );
        assert_eq!(text, expected, "{path}");
    }
}

#[test]
fn a_storage_prefix_leads_to_the_stored_form() {
    for (prefix, expected) in [
        ("pods", "pods v1"),
        ("minions", "nodes v1"),
        ("services/specs", "services v1"),
        ("events", "events v1"),
        ("horizontalpodautoscalers", "horizontalpodautoscalers.autoscaling v2"),
        ("scheduling.binnacle.dev/decisions", "decisions.scheduling.binnacle.dev v1alpha1"),
    ] {
        let row = find_storage(prefix).unwrap();
        assert_eq!(format!("{} {}", row.group_resource(), row.version), expected);
    }
    assert!(find_storage("bindings").is_none());
}

#[test]
fn events_convert_both_ways() {
    let new = find("events.k8s.io", "v1", "events").unwrap();
    let sent = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"},
        "eventTime": "2026-01-01T00:00:00.000001Z", "reportingController": "default-scheduler", "reportingInstance": "i",
        "action": "Binding", "reason": "Scheduled", "note": "Successfully assigned d/p to n", "type": "Normal",
        "regarding": {"kind": "Pod", "name": "p"}, "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}
    });
    let stored = to_storage(new, sent.clone());
    assert_eq!(stored["apiVersion"], "v1");
    assert_eq!(stored["involvedObject"], json!({"kind": "Pod", "name": "p"}));
    assert_eq!(stored["message"], "Successfully assigned d/p to n");
    assert_eq!(stored["reportingComponent"], "default-scheduler");
    assert_eq!(from_storage(new, stored), sent);

    let old = json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "d"}, "involvedObject": {"kind": "Pod"},
        "source": {"component": "kubelet", "host": "n1"}, "firstTimestamp": "2026-01-01T00:00:00Z",
        "lastTimestamp": "2026-01-01T00:00:00Z", "count": 3, "message": "m", "reason": "r", "type": "Normal"
    });
    let seen = from_storage(new, old.clone());
    assert_eq!(seen["deprecatedSource"], json!({"component": "kubelet", "host": "n1"}));
    assert_eq!(seen["deprecatedCount"], 3);
    assert_eq!(to_storage(new, seen), old);
}

#[test]
fn autoscalers_convert_both_ways() {
    let v1 = find("autoscaling", "v1", "horizontalpodautoscalers").unwrap();
    let sent = json!({
        "apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
        "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 3,
                 "targetCPUUtilizationPercentage": 80},
        "status": {"currentReplicas": 1, "desiredReplicas": 2, "currentCPUUtilizationPercentage": 40}
    });
    let stored = to_storage(v1, sent.clone());
    assert_eq!(stored["apiVersion"], "autoscaling/v2");
    assert_eq!(
        stored["spec"]["metrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}])
    );
    assert_eq!(from_storage(v1, stored), sent);
}
