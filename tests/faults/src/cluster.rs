//! What clients can learn about the members of a cluster: who leads, who answers, whether their states are equal.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::etcd::EtcdCluster;
use wire::etcdserverpb as pb;
use wire::{Client, Transport};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// A client of the one member that listens at `url`.
pub fn client(url: &str) -> Result<Client> {
    Ok(Client::new(Transport::connect(&[url.to_owned()], None, CONNECT_TIMEOUT)?))
}

/// Who leads, as any member that answers within half a second says.
pub async fn leader(cluster: &EtcdCluster) -> Option<usize> {
    for (member, url) in cluster.client_urls.iter().enumerate() {
        let Ok(mut client) = client(url) else { continue };
        let status = client.maintenance.status(pb::StatusRequest {});
        let Ok(Ok(status)) = tokio::time::timeout(Duration::from_millis(500), status).await else {
            continue;
        };
        let status = status.into_inner();
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            return Some(member);
        }
    }
    None
}

/// Whether the member answers a linearizable read in time.
pub async fn answers(url: &str, within: Duration) -> bool {
    let Ok(mut client) = client(url) else { return false };
    let read = client.kv.range(pb::RangeRequest { key: "ready".into(), ..Default::default() });
    matches!(tokio::time::timeout(within, read).await, Ok(Ok(_)))
}

/// Waits until every member answers a linearizable read. A member that has ended by itself is an error.
pub async fn ready(cluster: &mut EtcdCluster, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    for member in 0..cluster.size() {
        let mut client = client(&cluster.client_urls[member])?;
        loop {
            cluster.alive(member)?;
            let read = client.kv.range(pb::RangeRequest { key: "ready".into(), ..Default::default() });
            if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), read).await {
                break;
            }
            if Instant::now() > deadline {
                let log = cluster.log(member).display();
                bail!("member {member} does not answer within {within:?}, see {log}");
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Hash of all keys and versions at the member's current revision, with that revision.
pub async fn state_hash(url: &str) -> Result<(i64, u32)> {
    let answer = client(url)?.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await?.into_inner();
    Ok((answer.header.map_or(0, |header| header.revision), answer.hash))
}
