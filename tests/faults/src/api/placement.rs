//! Where pods are put: once, and only where they fit.
//!
//! Invariant of a correct scheduler and server: in the order of versions, a pod gets a node at most once and keeps it,
//! and at that moment the node has what the pod asks for beside the pods that are on it.

use std::collections::BTreeMap;

use crate::api::history::{Change, Facts, Node, Object};
use crate::api::truth::Truth;

/// The number of pods that got a node.
pub fn check(truth: &Truth, nodes: &[Node]) -> Result<usize, String> {
    let mut bound = 0;
    let mut pods: BTreeMap<&str, &Object> = BTreeMap::new();
    for (change, object) in truth.changes() {
        let Facts::Pod { node, .. } = &object.facts else { continue };
        if *change == Change::Deleted {
            pods.remove(object.uid.as_str());
            continue;
        }
        let before = pods.get(object.uid.as_str()).and_then(|pod| node_of(pod));
        match (before, node.as_deref()) {
            (Some(before), Some(after)) if before == after => {}
            (Some(before), after) => {
                return Err(format!(
                    "{} was on {before} and is on {} at version {}",
                    object.name,
                    after.unwrap_or("none"),
                    object.version
                ));
            }
            (None, Some(after)) => {
                let node = nodes.iter().find(|node| node.name == after);
                let node =
                    node.ok_or_else(|| format!("{} is on {after}, which there is not", object.name))?;
                fits(object, node, &pods)?;
                bound += 1;
            }
            (None, None) => {}
        }
        pods.insert(&object.uid, object);
    }
    Ok(bound)
}

fn node_of(pod: &Object) -> Option<&str> {
    match &pod.facts {
        Facts::Pod { node, .. } => node.as_deref(),
        _ => None,
    }
}

fn cpu_m(pod: &Object) -> u64 {
    match pod.facts {
        Facts::Pod { cpu_m, .. } => cpu_m,
        _ => 0,
    }
}

fn fits(pod: &Object, node: &Node, pods: &BTreeMap<&str, &Object>) -> Result<(), String> {
    let says =
        |why: &str| Err(format!("{} was bound to {} at version {}: {why}", pod.name, node.name, pod.version));
    if node.cordoned {
        return says("it takes no pods");
    }
    if let Facts::Pod { disk: Some(disk), .. } = &pod.facts
        && node.disk.as_ref() != Some(disk)
    {
        return says(&format!("it has no disk {disk}"));
    }
    let there: Vec<&&Object> =
        pods.values().filter(|other| node_of(other) == Some(node.name.as_str())).collect();
    if there.len() as u64 + 1 > node.pods {
        return says(&format!("it already had {} of {} pods", there.len(), node.pods));
    }
    let used: u64 = there.iter().map(|other| cpu_m(other)).sum();
    if used + cpu_m(pod) > node.cpu_m {
        let by: Vec<String> =
            there.iter().map(|other| format!("{} (version {})", other.name, other.version)).collect();
        return says(&format!(
            "{used}m of {}m were in use by {}, {}m are asked for",
            node.cpu_m,
            by.join(", "),
            cpu_m(pod)
        ));
    }
    Ok(())
}
