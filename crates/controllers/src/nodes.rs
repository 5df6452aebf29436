//! Simulated nodes: they register, keep their Lease, move pods to Running and let deleted pods go.
//!
//! Invariants: nothing is run, and the node says so (`kubeletVersion` ends in `-simulated`). A pod's status is written once
//! per step. One task serves all nodes, whose pods come through one watch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Value, meta, time};
use kubeclient::{Client, DeleteOptions, Error, Informer, InformerEvent, InformerOptions, Patch};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How often a node renews its Lease.
const RENEW: Duration = Duration::from_secs(10);
/// What a Lease is good for, in seconds.
const LEASE_S: u32 = 40;
/// Status writes at once.
const WRITES_MAX: usize = 32;

/// Runs `count` nodes until `term` is cancelled.
pub(crate) async fn run(client: Client, count: u16, term: CancellationToken) {
    let names: Vec<String> = (1..=count).map(|number| format!("node-{number}")).collect();
    for name in &names {
        while let Err(error) = register(&client, name).await {
            warn!(node = name, %error, "cannot register the simulated node yet");
            tokio::select! { () = term.cancelled() => return, () = tokio::time::sleep(Duration::from_secs(1)) => {} }
        }
    }
    info!(count, "simulated nodes registered");
    let mut pods = Informer::start(client.api("", "v1", "pods"), InformerOptions::default(), term.clone());
    let addresses: BTreeMap<String, u16> = names.iter().cloned().zip(1..).collect();
    let writes = Arc::new(Semaphore::new(WRITES_MAX));
    let mut renew = tokio::time::interval(RENEW);
    loop {
        tokio::select! {
            () = term.cancelled() => return,
            _ = renew.tick() => {
                for name in &names {
                    if let Err(error) = renew_lease(&client, name).await {
                        warn!(node = name, %error, "cannot renew the lease");
                    }
                }
            }
            event = pods.next() => match event {
                None => return,
                Some(InformerEvent::Applied { object, .. }) => {
                    let node = object["spec"]["nodeName"].as_str().unwrap_or_default();
                    let Some(address) = addresses.get(node).copied() else { continue };
                    let Ok(permit) = writes.clone().acquire_owned().await else { return };
                    let client = client.clone();
                    tokio::spawn(async move {
                        let _permit = permit;
                        step(&client, &object, address).await;
                    });
                }
                Some(_) => {}
            },
        }
    }
}

async fn register(client: &Client, name: &str) -> Result<(), Error> {
    let nodes = client.api("", "v1", "nodes");
    let amounts = json!({"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"});
    let condition = |kind: &str, status: &str, reason: &str, message: &str| {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastHeartbeatTime": now(), "lastTransitionTime": now()})
    };
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {
            "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory", "simulated"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure", "simulated"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID", "simulated"),
                condition("Ready", "True", "KubeletReady", "simulated node is ready")],
            "addresses": [{"type": "Hostname", "address": name}],
            "nodeInfo": {"architecture": "amd64", "operatingSystem": "linux", "bootID": "", "machineID": "",
                "systemUUID": "", "kernelVersion": "", "osImage": "simulated", "kubeProxyVersion": "",
                "containerRuntimeVersion": "simulated://1", "kubeletVersion": "v1.35.0-simulated"},
        },
    });
    match nodes.create(&node).await {
        Err(error) if error.is_already_exists() => {
            nodes.patch_status(name, &Patch::Merge(json!({"status": node["status"]}))).await?;
        }
        other => drop(other?),
    }
    renew_lease(client, name).await
}

async fn renew_lease(client: &Client, name: &str) -> Result<(), Error> {
    let leases = client.api("coordination.k8s.io", "v1", "leases").namespace("kube-node-lease");
    let renew_time = time::format_us(jiff::Timestamp::now().as_microsecond());
    let patch = json!({"spec": {"renewTime": renew_time}});
    match leases.patch(name, &Patch::Merge(patch)).await {
        Err(error) if error.is_not_found() => {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_S, "renewTime": renew_time}});
            leases.create(&lease).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// Moves a pod one step on.
async fn step(client: &Client, pod: &Value, node_number: u16) {
    let meta = meta::of(pod);
    let api = client.api("", "v1", "pods").namespace(meta.namespace());
    let result = if meta.deletion_timestamp().is_some() {
        let now =
            DeleteOptions { grace_period_s: Some(0), uid: meta.uid().to_owned(), ..DeleteOptions::default() };
        api.delete(meta.name(), &now).await.map(drop)
    } else if pod["status"]["phase"].as_str().unwrap_or("Pending") == "Pending" {
        let patch = json!({"metadata": {"uid": meta.uid()}, "status": running(pod, node_number)});
        api.patch_status(meta.name(), &Patch::Strategic(patch)).await.map(drop)
    } else {
        Ok(())
    };
    match result {
        Err(error) if !error.is_not_found() && !error.is_conflict() => {
            warn!(pod = meta.name(), namespace = meta.namespace(), %error, "cannot move the pod on");
        }
        _ => {}
    }
}

/// The status of a pod all of whose containers run.
fn running(pod: &Value, node_number: u16) -> Value {
    let now = now();
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let started = |containers: &Value, state: Value| -> Vec<Value> {
        let containers = containers.as_array().into_iter().flatten();
        let status = |container: &Value| {
            json!({"name": container["name"], "image": container["image"], "imageID": "", "ready": true,
                   "started": true, "restartCount": 0, "state": state})
        };
        containers.map(status).collect()
    };
    let [high, low] = node_number.to_be_bytes();
    let host = uid_byte(meta::of(pod).uid());
    json!({
        "phase": "Running",
        "startTime": now,
        "hostIP": format!("10.0.{high}.{low}"),
        "podIP": format!("10.{}.{low}.{host}", 64 + u16::from(high)),
        "podIPs": [{"ip": format!("10.{}.{low}.{host}", 64 + u16::from(high))}],
        "conditions": [condition("Initialized"), condition("Ready"), condition("ContainersReady"),
                       condition("PodScheduled")],
        "initContainerStatuses": started(&pod["spec"]["initContainers"],
            json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}})),
        "containerStatuses": started(&pod["spec"]["containers"], json!({"running": {"startedAt": now}})),
    })
}

/// A host number for the simulated address, from the pod's identity.
fn uid_byte(uid: &str) -> u8 {
    uid.bytes().fold(1_u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte)).max(1)
}

fn now() -> String {
    time::format_s(jiff::Timestamp::now().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_pod_has_every_container_ready() {
        let pod = json!({"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "a", "image": "i"}, {"name": "b"}]}});
        let status = running(&pod, 300);
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["hostIP"], "10.0.1.44");
        let statuses = status["containerStatuses"].as_array().unwrap();
        assert_eq!(statuses.len(), 2);
        assert!(statuses.iter().all(|container| container["ready"] == true));
    }
}
