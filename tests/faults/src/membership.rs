//! Changes of the cluster that its own clients can ask for.
//!
//! Invariant: each call may be repeated; it looks at what is, and does what is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::etcd::EtcdCluster;
use wire::etcdserverpb as pb;

use crate::cluster::client;

const AGAIN_AFTER: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Hands leadership to the next member. What was done, in words.
pub async fn move_leader(cluster: &EtcdCluster) -> Result<String> {
    let leader = crate::cluster::leader(cluster).await.context("nobody leads")?;
    let heir = (leader + 1) % cluster.size();
    let mut at_heir = client(&cluster.client_urls[heir])?;
    let status = at_heir.maintenance.status(pb::StatusRequest {}).await?.into_inner();
    let target_id = status.header.context("an answer without a header")?.member_id;
    let mut at_leader = client(&cluster.client_urls[leader])?;
    at_leader.maintenance.move_leader(pb::MoveLeaderRequest { target_id }).await?;
    Ok(format!("from member {leader} to member {heir}"))
}

/// Removes the member that does not run and listens for peers at `peer_url`, clears its data, and adds it again: it is
/// ready to be started as a new one. Asks the members at `others`, and ends only when it is done.
pub async fn replace(others: Vec<String>, peer_url: String, data: PathBuf) -> Result<()> {
    loop {
        for url in &others {
            if let Ok(Some(())) = tokio::time::timeout(ANSWER_WITHIN, remove(url, &peer_url)).await {
                clear(&data).context("cannot clear the data of a removed member")?;
                if let Ok(Some(())) = tokio::time::timeout(ANSWER_WITHIN, add(url, &peer_url)).await {
                    return Ok(());
                }
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// For good: a power cut that followed would bring back the data of a member that is none any more.
fn clear(data: &Path) -> std::io::Result<()> {
    if data.exists() {
        std::fs::remove_dir_all(data)?;
    }
    match data.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// `Some`: it is certainly no member, or only one that was added by an attempt that was not answered.
async fn remove(url: &str, peer_url: &str) -> Option<()> {
    let mut client = client(url).ok()?;
    let list = pb::MemberListRequest { linearizable: true };
    let members = client.cluster.member_list(list).await.ok()?.into_inner().members;
    let Some(found) = members.iter().find(|found| found.peer_ur_ls.iter().any(|url| url == peer_url)) else {
        return Some(());
    };
    if found.name.is_empty() {
        return Some(()); // it has never run
    }
    let remove = pb::MemberRemoveRequest { id: found.id };
    client.cluster.member_remove(remove).await.ok().map(drop)
}

async fn add(url: &str, peer_url: &str) -> Option<()> {
    let mut client = client(url).ok()?;
    let list = pb::MemberListRequest { linearizable: true };
    let members = client.cluster.member_list(list).await.ok()?.into_inner().members;
    if members.iter().any(|found| found.peer_ur_ls.iter().any(|url| url == peer_url)) {
        return Some(());
    }
    let add = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: false };
    client.cluster.member_add(add).await.ok().map(drop)
}
