//! A pod as the scheduler sees it: parsed once from the API object, in the terms of the plugins.
//!
//! Invariants: unknown or malformed parts count as absent; the API server has refused what is invalid.
//! Not here: what a node offers (node.rs), which pods wait (queue.rs).

use std::sync::Arc;

use apimachinery::{Value, meta};

use crate::affinity::{NodeSelector, PreferredTerm};
use crate::resources::{self, Resources};

/// Identifies a pod across name reuse.
pub(crate) type PodUid = Arc<str>;

#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) uid: PodUid,
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty until bound.
    pub(crate) node_name: String,
    pub(crate) scheduler_name: String,
    pub(crate) priority: i64,
    /// Finished pods use nothing.
    pub(crate) terminal: bool,
    pub(crate) deleting: bool,
    pub(crate) scheduling_gates: Vec<String>,
    pub(crate) requests: Resources,
    pub(crate) requests_for_scoring: Resources,
    pub(crate) host_ports: Vec<HostPort>,
    pub(crate) tolerations: Vec<Toleration>,
    pub(crate) node_selector: NodeSelector,
    pub(crate) preferred_nodes: Vec<PreferredTerm>,
    /// Volumes that need a claim; a pod with any is not placed, because volume binding is not built.
    pub(crate) claims: Vec<String>,
    /// The object it was read from: its identity goes into events and bindings.
    pub(crate) object: Arc<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    pub(crate) protocol: String,
    /// `0.0.0.0` means every address.
    pub(crate) address: String,
    pub(crate) port: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toleration {
    pub(crate) key: String,
    pub(crate) exists: bool,
    pub(crate) value: String,
    /// Empty tolerates every effect.
    pub(crate) effect: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Taint {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) effect: String,
}

impl Pod {
    pub(crate) fn parse(object: Arc<Value>) -> Pod {
        let meta = meta::of(&object);
        let (spec, status) = (&object["spec"], &object["status"]);
        let phase = text(&status["phase"]);
        let affinity = &spec["affinity"]["nodeAffinity"];
        Pod {
            uid: meta.uid().into(),
            namespace: meta.namespace().to_owned(),
            name: meta.name().to_owned(),
            node_name: text(&spec["nodeName"]),
            scheduler_name: match text(&spec["schedulerName"]) {
                name if name.is_empty() => "default-scheduler".to_owned(),
                name => name,
            },
            priority: spec["priority"].as_i64().unwrap_or(0),
            terminal: phase == "Succeeded" || phase == "Failed",
            deleting: meta.deletion_timestamp().is_some(),
            scheduling_gates: items(&spec["schedulingGates"]).map(|gate| text(&gate["name"])).collect(),
            requests: resources::pod_requests(spec),
            requests_for_scoring: resources::pod_requests_for_scoring(spec),
            host_ports: host_ports(spec),
            tolerations: items(&spec["tolerations"]).map(Toleration::parse).collect(),
            node_selector: NodeSelector::parse(
                &spec["nodeSelector"],
                &affinity["requiredDuringSchedulingIgnoredDuringExecution"],
            ),
            preferred_nodes: items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"])
                .filter_map(PreferredTerm::parse)
                .collect(),
            claims: claims(spec),
            object: object.clone(),
        }
    }

    /// `namespace/name`, as events and log lines name it.
    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl Toleration {
    fn parse(value: &Value) -> Toleration {
        Toleration {
            key: text(&value["key"]),
            exists: value["operator"] == "Exists",
            value: text(&value["value"]),
            effect: text(&value["effect"]),
        }
    }

    /// An empty key with operator Exists tolerates everything.
    pub(crate) fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && (self.exists || (!self.key.is_empty() && self.value == taint.value))
    }
}

impl Taint {
    pub(crate) fn parse(value: &Value) -> Taint {
        Taint { key: text(&value["key"]), value: text(&value["value"]), effect: text(&value["effect"]) }
    }
}

fn host_ports(spec: &Value) -> Vec<HostPort> {
    let sidecars = items(&spec["initContainers"]).filter(|container| container["restartPolicy"] == "Always");
    let ports = items(&spec["containers"]).chain(sidecars).flat_map(|container| items(&container["ports"]));
    let or = |text: String, default: &str| if text.is_empty() { default.to_owned() } else { text };
    ports
        .filter_map(|port| {
            let number = port["hostPort"].as_i64().filter(|number| *number > 0)?;
            Some(HostPort {
                protocol: or(text(&port["protocol"]), "TCP"),
                address: or(text(&port["hostIP"]), "0.0.0.0"),
                port: number,
            })
        })
        .collect()
}

/// Names of claims: written in the pod, or generated from it by an ephemeral volume.
fn claims(spec: &Value) -> Vec<String> {
    items(&spec["volumes"])
        .filter_map(|volume| match volume["persistentVolumeClaim"]["claimName"].as_str() {
            Some(claim) => Some(claim.to_owned()),
            None => volume.get("ephemeral").map(|_| text(&volume["name"])),
        })
        .collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub(crate) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_by_key_value_and_effect() {
        let taint = |key: &str, value: &str, effect: &str| Taint {
            key: key.into(),
            value: value.into(),
            effect: effect.into(),
        };
        let toleration = |key: &str, exists, value: &str, effect: &str| Toleration {
            key: key.into(),
            exists,
            value: value.into(),
            effect: effect.into(),
        };
        let gpu = taint("gpu", "yes", "NoSchedule");
        for (toleration, expected) in [
            (toleration("gpu", false, "yes", "NoSchedule"), true),
            (toleration("gpu", false, "no", "NoSchedule"), false),
            (toleration("gpu", true, "", ""), true),
            (toleration("", true, "", ""), true),
            (toleration("", true, "", "NoExecute"), false),
            (toleration("other", true, "", ""), false),
        ] {
            assert_eq!(toleration.tolerates(&gpu), expected, "{toleration:?}");
        }
    }
}
