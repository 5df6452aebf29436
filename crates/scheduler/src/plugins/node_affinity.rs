//! NodeAffinity: `nodeSelector` and required terms filter, preferred terms score.

use crate::node::Node;
use crate::plugins::Rejection;
use crate::pod::Pod;

pub(super) fn filters(pod: &Pod) -> bool {
    !pod.node_selector.is_empty()
}

pub(super) fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    match pod.node_selector.matches(&node.name, &node.labels) {
        true => Ok(()),
        false => Err(Rejection::because("node(s) didn't match Pod's node affinity/selector")),
    }
}

pub(super) fn scores(pod: &Pod) -> bool {
    !pod.preferred_nodes.is_empty()
}

/// The sum of the weights of the preferred terms that match.
pub(super) fn score(pod: &Pod, node: &Node) -> i64 {
    let matching = pod.preferred_nodes.iter().filter(|term| term.matches(&node.name, &node.labels));
    matching.map(|term| term.weight).sum()
}
