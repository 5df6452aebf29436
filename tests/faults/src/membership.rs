//! Changes of the cluster that its own clients can ask for.
//!
//! Invariant: each call may be repeated; it looks at what is, and does what is missing.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use harness::etcd::{EtcdCluster, Extra};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::etcdserverpb as pb;

use crate::cluster::client;

const AGAIN_AFTER: Duration = Duration::from_millis(100);
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Members that come are voters after this, or go again.
const GROWN_WITHIN: Duration = Duration::from_secs(20);
/// Members that came for a while are gone after this, however much else is disturbed.
const SHRUNK_WITHIN: Duration = Duration::from_secs(90);

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

/// Removes the member that listens for peers at `peer_url` and runs on. `false`: not in time.
pub async fn remove_within(others: &[String], peer_url: &str, within: Duration) -> bool {
    let deadline = Instant::now() + within;
    while Instant::now() < deadline {
        for url in others {
            if let Ok(Some(())) = tokio::time::timeout(ANSWER_WITHIN, remove(url, peer_url)).await {
                return true;
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    false
}

/// A member that is none yet.
pub struct Spare {
    pub peer_url: String,
    pub command: Vec<String>,
    pub log: PathBuf,
    pub data: PathBuf,
}

/// Adds the spares as learners, makes them voters, and then removes them as soon as it shall stop. How many became voters; an error
/// if they do not go.
pub async fn grow_and_shrink(urls: Vec<String>, spares: Vec<Spare>, stop: CancellationToken) -> Result<u64> {
    let mut running = Vec::new();
    let mut voters = 0;
    let deadline = Instant::now() + GROWN_WITHIN;
    for spare in &spares {
        match tokio::time::timeout_at(deadline, become_voter(&urls, spare, &mut running)).await {
            Ok(became) => became?,
            Err(_) => break,
        }
        voters += 1;
    }
    stop.cancelled().await;
    for spare in &spares {
        if !leave(&urls, &spare.peer_url).await {
            bail!("the member at {} could not be removed within {SHRUNK_WITHIN:?}", spare.peer_url);
        }
    }
    drop(running);
    for spare in spares.iter().filter(|spare| spare.data.exists()) {
        std::fs::remove_dir_all(&spare.data).context("cannot clear the data of a member that is gone")?;
    }
    Ok(voters)
}

/// Ends when the spare is a voter; its process stays in `running`.
async fn become_voter(urls: &[String], spare: &Spare, running: &mut Vec<Extra>) -> Result<()> {
    let own = running.len();
    loop {
        for url in urls {
            let step =
                tokio::time::timeout(ANSWER_WITHIN, step_up(url, &spare.peer_url)).await.ok().flatten();
            match step {
                Some(true) => return Ok(()),
                Some(false) if running.len() == own => {
                    running.push(Extra::start(&spare.command, &spare.log)?)
                }
                _ => {}
            }
        }
        if running.len() > own && running[own].ended()?.is_some() {
            running.truncate(own); // it found nobody who told it of the cluster
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The next step to a voter at `peer_url`: `true` if it is one, `false` if it is a learner that may be started.
async fn step_up(url: &str, peer_url: &str) -> Option<bool> {
    let mut client = client(url).ok()?;
    let list = pb::MemberListRequest { linearizable: true };
    let members = client.cluster.member_list(list).await.ok()?.into_inner().members;
    match members.iter().find(|found| found.peer_ur_ls.iter().any(|url| url == peer_url)) {
        Some(found) if !found.is_learner => Some(true),
        Some(found) => {
            // Refused until it has nearly all that the leader has.
            let promote = pb::MemberPromoteRequest { id: found.id };
            Some(client.cluster.member_promote(promote).await.is_ok())
        }
        None => {
            let add = pb::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
            client.cluster.member_add(add).await.ok().map(|_| false)
        }
    }
}

/// Whether no member listens for peers at `peer_url` any more.
async fn leave(urls: &[String], peer_url: &str) -> bool {
    let deadline = Instant::now() + SHRUNK_WITHIN;
    while Instant::now() < deadline {
        for url in urls {
            if let Ok(Some(true)) = tokio::time::timeout(ANSWER_WITHIN, gone(url, peer_url)).await {
                return true;
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    false
}

async fn gone(url: &str, peer_url: &str) -> Option<bool> {
    let mut client = client(url).ok()?;
    let list = pb::MemberListRequest { linearizable: true };
    let members = client.cluster.member_list(list).await.ok()?.into_inner().members;
    match members.iter().find(|found| found.peer_ur_ls.iter().any(|url| url == peer_url)) {
        None => Some(true),
        Some(found) => {
            client.cluster.member_remove(pb::MemberRemoveRequest { id: found.id }).await.ok().map(|_| true)
        }
    }
}
