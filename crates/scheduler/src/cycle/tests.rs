//! Whole cycles on small clusters, written as people describe them.

use std::sync::Arc;

use apimachinery::Value;
use serde_json::json;

use super::*;

/// Node, total, and per plugin its score and weight.
type Line<'a> = (&'a str, i64, Vec<(&'a str, i64, i64)>);

fn node(name: &str, cpu: &str, memory: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
           "status": {"allocatable": {"cpu": cpu, "memory": memory, "pods": "110"}}})
}

fn pod(name: &str, cpu: &str, memory: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "uid": name},
           "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
}

fn cluster(nodes: &[Value], pods: &[Value]) -> Cache {
    let mut cache = Cache::default();
    for node in nodes {
        cache.update_node(node);
    }
    for pod in pods {
        cache.update_pod(Arc::new(Pod::parse(Arc::new(pod.clone()))));
    }
    cache
}

fn decide(cache: &Cache, pod: &Value) -> Cycle {
    run(&Pod::parse(Arc::new(pod.clone())), cache, 0, 0, |_| 0)
}

fn with(mut value: Value, pointer: &str, key: &str, part: Value) -> Value {
    let target = value.pointer_mut(pointer).and_then(Value::as_object_mut).unwrap();
    target.insert(key.to_owned(), part);
    value
}

#[test]
fn the_emptier_node_wins_and_each_total_is_the_sum_of_its_lines() {
    let busy = with(pod("busy", "2", "4Gi"), "/spec", "nodeName", json!("n1"));
    let cache = cluster(&[node("n1", "4", "8Gi"), node("n2", "4", "8Gi")], &[busy]);
    let cycle = decide(&cache, &pod("app", "1", "2Gi"));
    assert_eq!(cycle.chosen.as_deref(), Some("n2"));
    let lines: Vec<Line<'_>> = cycle
        .verdicts
        .iter()
        .map(|verdict| match &verdict.outcome {
            Outcome::Scored { scores, total } => {
                let lines =
                    scores.iter().map(|score| (score.plugin, score.normalized, score.weight)).collect();
                (verdict.node.as_str(), *total, lines)
            }
            other => panic!("{other:?}"),
        })
        .collect();
    let of = |fit| {
        vec![
            ("TaintToleration", 100, 3),
            ("NodeResourcesFit", fit, 1),
            ("NodeResourcesBalancedAllocation", 75, 1),
        ]
    };
    assert_eq!(lines, [("n2", 450, of(75)), ("n1", 400, of(25))]);
}

#[test]
fn the_message_counts_each_reason_and_sorts_them_as_strings() {
    let taint = json!([{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]);
    let tainted = with(
        json!({"metadata": {"name": "n2"}, "spec": {},
                              "status": {"allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}}),
        "/spec",
        "taints",
        taint,
    );
    let cache = cluster(&[node("n1", "1", "1Gi"), tainted, node("n3", "1", "16Gi")], &[]);
    let cycle = decide(&cache, &pod("big", "4", "2Gi"));
    assert_eq!(cycle.chosen, None);
    assert_eq!(
        cycle.failure_message(),
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 2 Insufficient cpu."
    );
    assert_eq!(cycle.next_start, 0);
}

#[test]
fn without_nodes_the_message_says_so() {
    let cycle = decide(&cluster(&[], &[]), &pod("app", "1", "1Gi"));
    assert_eq!(cycle.failure_message(), "no nodes available to schedule pods");
}

#[test]
fn a_cordoned_node_is_for_pods_that_tolerate_it() {
    let cordoned =
        with(with(node("n1", "4", "8Gi"), "", "spec", json!({})), "/spec", "unschedulable", json!(true));
    let cache = cluster(&[cordoned], &[]);
    assert_eq!(
        decide(&cache, &pod("app", "1", "1Gi")).failure_message(),
        "0/1 nodes are available: 1 node(s) were unschedulable."
    );
    let tolerations = json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
    let tolerant = with(pod("app", "1", "1Gi"), "/spec", "tolerations", tolerations);
    assert_eq!(decide(&cache, &tolerant).chosen.as_deref(), Some("n1"));
}

#[test]
fn a_host_port_in_use_keeps_a_pod_off_the_node() {
    let ports = json!([{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}]}]);
    let first = with(
        with(pod("first", "0", "0"), "/spec", "containers", ports.clone()),
        "/spec",
        "nodeName",
        json!("n1"),
    );
    let second = with(pod("second", "0", "0"), "/spec", "containers", ports);
    let cache = cluster(&[node("n1", "4", "8Gi")], &[first]);
    assert_eq!(
        decide(&cache, &second).failure_message(),
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
    );
}

#[test]
fn preferred_labels_decide_between_equal_nodes() {
    let labelled = with(node("n2", "4", "8Gi"), "/metadata", "labels", json!({"disk": "ssd"}));
    let cache = cluster(&[node("n1", "4", "8Gi"), labelled], &[]);
    let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 1, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]}});
    let choosy = with(pod("app", "1", "1Gi"), "/spec", "affinity", affinity);
    assert_eq!(decide(&cache, &choosy).chosen.as_deref(), Some("n2"));
}

#[test]
fn equal_totals_are_drawn_by_lot() {
    let cache = cluster(&[node("n1", "4", "8Gi"), node("n2", "4", "8Gi")], &[]);
    let app = Pod::parse(Arc::new(pod("app", "1", "1Gi")));
    let second = run(&app, &cache, 0, 0, |count| count - 1);
    assert_eq!(second.chosen.as_deref(), Some("n2"));
}

#[test]
fn large_clusters_are_sampled_in_turn() {
    let nodes: Vec<Value> = (0..1000).map(|number| node(&format!("n{number:04}"), "4", "8Gi")).collect();
    let cache = cluster(&nodes, &[]);
    let cycle = decide(&cache, &pod("app", "1", "1Gi"));
    assert_eq!((cycle.feasible_count(), cycle.next_start), (420, 420));
}
