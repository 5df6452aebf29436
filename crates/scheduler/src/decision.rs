//! The account of a scheduling cycle as an API object: kind Decision, owned by the pod, named like it.
//!
//! Invariants: bounded: at most 100 nodes and 10 reasons each, feasible nodes first; what was left out is said by
//! `truncated`. `total` is the sum of `weighted`, and `weighted` is `normalized × weight`.

use apimachinery::{Value, meta};
use serde_json::json;

use crate::cycle::{Cycle, Outcome, Verdict};
use crate::pod::Pod;

/// Nodes listed at most.
const NODES_MAX: usize = 100;
/// Reasons listed per node at most.
const REASONS_MAX: usize = 10;

pub(crate) const GROUP: &str = "scheduling.binnacle.dev";
pub(crate) const VERSION: &str = "v1alpha1";

/// The object; `time` is RFC 3339, `resource_version` the newest state that the decision rests on.
pub(crate) fn object(pod: &Pod, cycle: &Cycle, attempt: u32, time: &str, resource_version: &str) -> Value {
    let (result, message) = match &cycle.chosen {
        Some(node) => ("Scheduled", format!("Successfully assigned {} to {node}", pod.full_name())),
        None => ("Unschedulable", cycle.failure_message()),
    };
    let nodes: Vec<Value> = cycle.verdicts.iter().take(NODES_MAX).map(node).collect();
    let mut status = json!({
        "result": result,
        "message": message,
        "time": time,
        "resourceVersion": resource_version,
        "evaluatedNodes": cycle.verdicts.len(),
        "feasibleNodes": cycle.feasible_count(),
        "truncated": cycle.verdicts.len() > NODES_MAX,
        "nodes": nodes,
    });
    if let Some(node) = &cycle.chosen {
        status["node"] = json!(node);
    }
    json!({
        "apiVersion": format!("{GROUP}/{VERSION}"),
        "kind": "Decision",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": pod.name,
                                 "uid": meta::of(&pod.object).uid()}],
        },
        "spec": {"podUid": meta::of(&pod.object).uid(), "attempt": attempt, "scheduler": pod.scheduler_name},
        "status": status,
    })
}

fn node(verdict: &Verdict) -> Value {
    match &verdict.outcome {
        Outcome::Rejected { plugin, reasons } => json!({
            "name": verdict.node,
            "feasible": false,
            "rejectedBy": plugin,
            "reasons": reasons.iter().take(REASONS_MAX).collect::<Vec<_>>(),
        }),
        Outcome::Scored { scores, total } => {
            let line = |score: &crate::cycle::Score| {
                json!({"plugin": score.plugin, "raw": score.raw, "normalized": score.normalized,
                       "weight": score.weight, "weighted": score.normalized * score.weight})
            };
            let scores: Vec<Value> = scores.iter().map(line).collect();
            json!({"name": verdict.node, "feasible": true, "scores": scores, "total": total})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cache::Cache;

    #[test]
    fn the_total_is_the_sum_of_the_weighted_lines() {
        let mut cache = Cache::default();
        cache.update_node(&json!({"metadata": {"name": "n1"},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}}));
        let object = json!({"metadata": {"name": "app", "namespace": "default", "uid": "u1"},
            "spec": {"containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}});
        let pod = Pod::parse(Arc::new(object));
        let cycle = crate::cycle::run(&pod, &cache, 0, 0, |_| 0);
        let decision = super::object(&pod, &cycle, 1, "2026-01-02T03:04:05Z", "7");
        let best = &decision["status"]["nodes"][0];
        let sum: i64 =
            crate::pod::items(&best["scores"]).filter_map(|score| score["weighted"].as_i64()).sum();
        assert_eq!(best["total"], json!(sum));
        assert_eq!(decision["metadata"]["ownerReferences"][0]["uid"], "u1");
        assert_eq!(decision["status"]["node"], "n1");
    }
}
