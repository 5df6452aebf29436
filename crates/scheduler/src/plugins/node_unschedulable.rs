//! NodeUnschedulable: a cordoned node takes only pods that tolerate the taint of that name.

use crate::node::Node;
use crate::plugins::Rejection;
use crate::pod::{Pod, Taint};

pub(super) fn filter(pod: &Pod, node: &Node) -> Result<(), Rejection> {
    if !node.unschedulable {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        value: String::new(),
        effect: "NoSchedule".to_owned(),
    };
    match pod.tolerations.iter().any(|toleration| toleration.tolerates(&taint)) {
        true => Ok(()),
        false => Err(Rejection::because("node(s) were unschedulable")),
    }
}
