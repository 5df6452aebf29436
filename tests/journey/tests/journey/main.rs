//! The story that must always work, on real processes: certificate → API server → Raft store → watch → scheduler, and all
//! of it survives `kill -9` of the store's leader.
//!
//! Invariants: the suite sees only what users see: certificates, HTTPS, the etcd protocol, and process ids.

mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::cluster::LocalCluster;
use serde_json::json;

use crate::steps::{Journey, eventually, pod, registered_node};

/// How long a killed leader may keep writes and scheduling from going on.
const FAILOVER: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_travels_from_a_certificate_to_a_node_and_survives_the_leader() -> Result<()> {
    let mut journey = Journey::start()?;
    journey.admin(0).wait_ready().await?;
    certificates_decide_who_is_heard(&journey).await?;
    nodes_are_registered(&journey).await?;
    a_role_is_in_force_at_once_on_every_member(&journey).await?;
    a_pod_is_placed_and_the_decision_explains_itself(&journey).await?;
    a_pod_that_fits_nowhere_waits_for_room(&journey).await?;
    an_acknowledged_pod_survives_the_leader(&mut journey).await?;
    the_killed_member_returns_with_the_same_state(&journey).await
}

async fn certificates_decide_who_is_heard(journey: &Journey) -> Result<()> {
    let versions = journey.admin(0).get("/api/").await?;
    ensure!(
        versions["kind"] == "APIVersions" && versions["serverAddressByClientCIDRs"].is_array(),
        "{versions}"
    );

    let foreign = journey.client(0, &journey.foreign).get("/api/v1/pods").await;
    ensure!(steps::code(&foreign) == Some(401), "a foreign certificate got {foreign:?}");
    let nobody = journey.anonymous(0).get("/api/v1/pods").await;
    ensure!(matches!(steps::code(&nobody), Some(401 | 403)), "no certificate got {nobody:?}");

    // The log is written behind the answers.
    eventually("both refusals are in the audit log", || async {
        let audit = std::fs::read_to_string(journey.cluster.dir.join("m1/audit.log")).ok()?;
        let refused =
            audit.lines().filter(|line| line.contains("\"code\":401") || line.contains("\"code\":403"));
        (refused.count() >= 2).then_some(())
    })
    .await
}

async fn nodes_are_registered(journey: &Journey) -> Result<()> {
    let admin = journey.admin(0);
    let mut tainted = registered_node("n-tainted", "8", "32Gi");
    tainted["spec"] = json!({"taints": [{"key": "dedicated", "value": "gpu", "effect": "NoSchedule"}]});
    for node in [registered_node("n-large", "8", "16Gi"), registered_node("n-full", "4", "8Gi"), tainted] {
        admin.post("/api/v1/nodes", &node).await?;
    }
    let mut filler = pod("filler", "3500m", "7Gi");
    filler["spec"]["nodeName"] = json!("n-full");
    admin.post("/api/v1/namespaces/default/pods", &filler).await?;
    Ok(())
}

async fn a_role_is_in_force_at_once_on_every_member(journey: &Journey) -> Result<()> {
    let pods = "/api/v1/namespaces/default/pods";
    for member in 0..3 {
        let refused = journey.client(member, &journey.jiang).get(pods).await;
        let message = steps::message(&refused);
        ensure!(
            message.starts_with(
                r#"pods is forbidden: User "jiang" cannot list resource "pods" in API group "" in the namespace "default""#
            ),
            "member {member} answered {refused:?}"
        );
    }
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "pod-reader"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "read-pods"},
        "subjects": [{"kind": "User", "name": "jiang", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"kind": "Role", "name": "pod-reader", "apiGroup": "rbac.authorization.k8s.io"}});
    journey.admin(0).post(&format!("{rbac}/roles"), &role).await?;
    journey.admin(0).post(&format!("{rbac}/rolebindings"), &binding).await?;
    for member in 0..3 {
        let list = journey.client(member, &journey.jiang).get(pods).await;
        ensure!(list.is_ok(), "member {member} still answers {list:?}");
    }
    Ok(())
}

async fn a_pod_is_placed_and_the_decision_explains_itself(journey: &Journey) -> Result<()> {
    let app = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": {"containers": [
        {"name": "app", "image": "registry.example/kube-easy/app:latest", "command": ["app"],
         "ports": [{"containerPort": 2580}]}]}});
    let mut watch = journey.admin(1).watch("", "v1", "pods", "default").await?;
    let created = journey.admin(0).post("/api/v1/namespaces/default/pods", &app).await?;
    ensure!(created["metadata"]["uid"].is_string() && created["status"]["phase"] == "Pending", "{created}");
    let placed =
        watch.until(|pod| pod["metadata"]["name"] == "app" && pod["spec"]["nodeName"].is_string()).await?;
    ensure!(placed["spec"]["nodeName"] == "n-large", "placed on {}", placed["spec"]["nodeName"]);

    let path = "/apis/scheduling.binnacle.dev/v1alpha1/namespaces/default/decisions/app";
    let decision =
        eventually("the decision is readable", || async { journey.admin(2).get(path).await.ok() }).await?;
    let status = &decision["status"];
    ensure!(status["result"] == "Scheduled" && status["node"] == "n-large", "{status}");
    for node in status["nodes"].as_array().context("no nodes")? {
        if node["feasible"] == true {
            let lines = node["scores"].as_array().context("no scores")?;
            let sum: i64 = lines
                .iter()
                .map(|line| line["normalized"].as_i64().unwrap_or(0) * line["weight"].as_i64().unwrap_or(0))
                .sum();
            ensure!(!lines.is_empty() && node["total"] == sum, "{node}");
        } else {
            ensure!(node["rejectedBy"] == "TaintToleration" && node["name"] == "n-tainted", "{node}");
        }
    }
    ensure!(status["nodes"].as_array().is_some_and(|nodes| nodes.len() == 3), "{status}");
    Ok(())
}

async fn a_pod_that_fits_nowhere_waits_for_room(journey: &Journey) -> Result<()> {
    let admin = journey.admin(1);
    admin.post("/api/v1/namespaces/default/pods", &pod("wide", "7900m", "1Gi")).await?;
    let big = "/api/v1/namespaces/default/pods/wide";
    eventually("the wide pod is placed", || async {
        admin.get(big).await.ok().filter(|pod| pod["spec"]["nodeName"].is_string())
    })
    .await?;
    admin.post("/api/v1/namespaces/default/pods", &pod("late", "6", "1Gi")).await?;
    let late = "/api/v1/namespaces/default/pods/late";
    let waiting = eventually("the late pod is refused", || async {
        let pod = admin.get(late).await.ok()?;
        steps::scheduled_message(&pod).filter(|message| !message.is_empty())
    })
    .await?;
    ensure!(
        waiting
            .starts_with("0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu"),
        "{waiting}"
    );
    let pending = admin.get(late).await?;
    ensure!(
        pending["status"]["phase"] == "Pending" && pending["spec"].get("nodeName").is_none(),
        "{pending}"
    );
    admin.delete(&format!("{big}?gracePeriodSeconds=0")).await?;
    let placed = eventually("the late pod is placed", || async {
        admin.get(late).await.ok().filter(|pod| pod["spec"]["nodeName"].is_string())
    })
    .await?;
    ensure!(placed["spec"]["nodeName"] == "n-large", "{placed}");
    admin.delete(&format!("{late}?gracePeriodSeconds=0")).await?;
    Ok(())
}

async fn an_acknowledged_pod_survives_the_leader(journey: &mut Journey) -> Result<()> {
    let leader = journey.store_leader().await?;
    let (first, second) = ((leader + 1) % 3, (leader + 2) % 3);
    let watches = [journey.admin(first), journey.admin(second)];
    let mut seen = [
        watches[0].watch("", "v1", "pods", "default").await?,
        watches[1].watch("", "v1", "pods", "default").await?,
    ];

    let mut acknowledged: BTreeMap<String, String> = BTreeMap::new();
    for number in 0..60 {
        if number == 20 {
            journey.cluster.kill(leader)?;
        }
        let name = format!("burst-{number}");
        // A pod whose outcome is unknown is asked for again under the same name: it exists once, whatever happened.
        let created = eventually("a pod is accepted", || {
            let (client, object) =
                (journey.admin(if number % 2 == 0 { first } else { second }), pod(&name, "10m", "1Mi"));
            async move {
                match client.post("/api/v1/namespaces/default/pods", &object).await {
                    Ok(pod) => Some(pod),
                    error if steps::code(&error) == Some(409) => client
                        .get(&format!(
                            "/api/v1/namespaces/default/pods/{}",
                            object["metadata"]["name"].as_str()?
                        ))
                        .await
                        .ok(),
                    _ => None,
                }
            }
        })
        .await?;
        acknowledged.insert(name, created["metadata"]["uid"].as_str().context("no uid")?.to_owned());
    }
    for (watch, member) in seen.iter_mut().zip([first, second]) {
        watch
            .until_all_placed(&acknowledged, FAILOVER)
            .await
            .with_context(|| format!("the watch on member {}", member + 1))?;
    }
    for (name, uid) in &acknowledged {
        let pod = journey.admin(first).get(&format!("/api/v1/namespaces/default/pods/{name}")).await?;
        ensure!(
            pod["metadata"]["uid"] == **uid,
            "{name} was acknowledged as {uid} and is {}",
            pod["metadata"]["uid"]
        );
    }
    LocalCluster::wait_for_return(&mut journey.cluster, leader, Duration::from_secs(60))
}

async fn the_killed_member_returns_with_the_same_state(journey: &Journey) -> Result<()> {
    let hashes = eventually("all members have the same hash", || async {
        let hashes = journey.state_hashes().await.ok()?;
        hashes.windows(2).all(|pair| pair[0] == pair[1]).then_some(hashes)
    })
    .await?;
    ensure!(hashes.len() == 3, "{hashes:?}");
    Ok(())
}
