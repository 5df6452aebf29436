//! NodeResourcesBalancedAllocation: prefers nodes whose cpu and memory shares come closer together by this pod.
//!
//! The formula of Kubernetes 1.36 (up to 1.35 it was `balance(with the pod)` alone): with
//! `balance = ⌊(1 − |cpu share − memory share| / 2) · 100⌋` the score is
//! `50 + (50 + balance(with the pod) − balance(without it)) / 2`, in integers; unchanged balance gives 75.

use crate::node::Node;
use crate::plugins::SCORE_MAX;
use crate::pod::Pod;

/// A pod that asks for nothing changes no balance.
pub(super) fn applies(pod: &Pod) -> bool {
    !pod.requests.is_zero()
}

pub(super) fn score(pod: &Pod, node: &Node) -> i64 {
    let half = SCORE_MAX / 2;
    half + (half + balance(node, pod.requests.milli_cpu, pod.requests.memory_bytes) - balance(node, 0, 0)) / 2
}

fn balance(node: &Node, milli_cpu: i64, memory_bytes: i64) -> i64 {
    let share = |offered: i64, used: i64, more: i64| {
        (offered > 0).then(|| (used.saturating_add(more) as f64 / offered as f64).min(1.0))
    };
    let cpu = share(node.allocatable.milli_cpu, node.requested.milli_cpu, milli_cpu);
    let memory = share(node.allocatable.memory_bytes, node.requested.memory_bytes, memory_bytes);
    let deviation = match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
        _ => 0.0, // one resource alone is in balance
    };
    ((1.0 - deviation) * SCORE_MAX as f64) as i64
}
