//! NodeName: a pod that names its node fits nowhere else.

use crate::node::Node;
use crate::plugins::Rejection;
use crate::pod::Pod;

pub(super) fn applies(pod: &Pod) -> bool {
    !pod.node_name.is_empty()
}

pub(super) fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    match pod.node_name == node.name {
        true => Ok(()),
        false => Err(Rejection::because("node(s) didn't match the requested node name")),
    }
}
