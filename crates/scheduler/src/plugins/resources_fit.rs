//! NodeResourcesFit: refuses nodes without room; scores by LeastAllocated: the more that is left, the higher.

use crate::node::Node;
use crate::plugins::{Rejection, SCORE_MAX};
use crate::pod::Pod;

/// Names every resource that is short, not just the first.
pub(super) fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let mut reasons = Vec::new();
    if node.pod_count() + 1 > node.allocatable.pods {
        reasons.push("Too many pods".to_owned());
    }
    let mut check = |name: &str, wanted: i64, offered: i64, used: i64| {
        if wanted > 0 && wanted > offered.saturating_sub(used) {
            reasons.push(format!("Insufficient {name}"));
        }
    };
    let (wanted, offered, used) = (&pod.requests, &node.allocatable, &node.requested);
    check("cpu", wanted.milli_cpu, offered.milli_cpu, used.milli_cpu);
    check("memory", wanted.memory_bytes, offered.memory_bytes, used.memory_bytes);
    let storage = wanted.ephemeral_storage_bytes;
    check("ephemeral-storage", storage, offered.ephemeral_storage_bytes, used.ephemeral_storage_bytes);
    for (name, amount) in &wanted.scalar {
        let of = |amounts: &crate::resources::Resources| amounts.scalar.get(name).copied().unwrap_or(0);
        check(name, *amount, of(offered), of(used));
    }
    if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons }) }
}

/// LeastAllocated over cpu and memory with equal weights; a resource that the node does not offer is left out.
pub(super) fn score(pod: &Pod, node: &Node) -> i64 {
    let (wanted, used, offered) = (&pod.requests_for_scoring, &node.requested_for_scoring, &node.allocatable);
    let parts = [
        (offered.milli_cpu, used.milli_cpu.saturating_add(wanted.milli_cpu)),
        (offered.memory_bytes, used.memory_bytes.saturating_add(wanted.memory_bytes)),
    ];
    let (mut sum, mut weights) = (0, 0);
    for (capacity, requested) in parts.into_iter().filter(|(capacity, _)| *capacity > 0) {
        weights += 1;
        if requested <= capacity {
            sum += i64::try_from(
                i128::from(capacity - requested) * i128::from(SCORE_MAX) / i128::from(capacity),
            )
            .unwrap_or(0);
        }
    }
    if weights == 0 { 0 } else { sum / weights }
}
