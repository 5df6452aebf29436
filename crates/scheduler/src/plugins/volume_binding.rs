//! VolumeBinding, as far as it is built: a pod without claims has nothing to bind; one with claims is not placed.

use crate::node::Node;
use crate::plugins::Rejection;
use crate::pod::Pod;

pub(super) fn applies(pod: &Pod) -> bool {
    !pod.claims.is_empty()
}

pub(super) fn filter(pod: &Pod, _node: &Node) -> Result<(), Rejection> {
    let claims = pod.claims.join(", ");
    Err(Rejection::because(&format!("binding of persistent volume claims is not built yet ({claims})")))
}
