//! TaintToleration: refuses nodes with a taint that the pod does not tolerate; prefers nodes with fewer soft ones.

use crate::node::Node;
use crate::plugins::Rejection;
use crate::pod::Pod;

pub(super) fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let hard = node.taints.iter().filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute");
    for taint in hard {
        if !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
            return Err(Rejection::because("node(s) had untolerated taint(s)"));
        }
    }
    Ok(())
}

/// The number of PreferNoSchedule taints that the pod does not tolerate.
pub(super) fn score(pod: &Pod, node: &Node) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    let untolerated =
        soft.filter(|taint| !pod.tolerations.iter().any(|toleration| toleration.tolerates(taint)));
    i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
}
