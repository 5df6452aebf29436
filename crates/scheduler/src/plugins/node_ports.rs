//! NodePorts: two pods on a node cannot have the same host port on the same address and protocol.

use crate::node::Node;
use crate::plugins::Rejection;
use crate::pod::{HostPort, Pod};

/// The address that means every address.
const ANY_ADDRESS: &str = "0.0.0.0";

pub(super) fn applies(pod: &Pod) -> bool {
    !pod.host_ports.is_empty()
}

pub(super) fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    let used = || node.pods().flat_map(|other| &other.host_ports);
    match pod.host_ports.iter().any(|wanted| used().any(|port| conflict(wanted, port))) {
        true => Err(Rejection::because("node(s) didn't have free ports for the requested pod ports")),
        false => Ok(()),
    }
}

fn conflict(left: &HostPort, right: &HostPort) -> bool {
    left.port == right.port
        && left.protocol == right.protocol
        && (left.address == right.address || left.address == ANY_ADDRESS || right.address == ANY_ADDRESS)
}
