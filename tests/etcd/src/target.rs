//! The cluster under test and the connection to it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::etcd::{EtcdCluster, EtcdTls};
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// A running cluster whose last member is asked.
pub struct Target {
    pub cluster: EtcdCluster,
    pub transport: Transport,
    pub client: Client,
    pub url: String,
    /// Release and its minor: 3.5 is (3, 5).
    pub version: (u32, u32),
}

/// A real etcd in place of ours.
pub fn foreign_program() -> Option<PathBuf> {
    std::env::var_os("ETCD_BIN").map(PathBuf::from)
}

impl Target {
    /// Starts `size` members and waits until a linearizable read works. Answers come from the last one, which is
    /// hardly ever the leader when there are three.
    pub async fn start(size: usize, flags: &[&str]) -> Result<Target> {
        Target::start_with_tls(size, None, None, flags).await
    }

    pub async fn start_with_tls(
        size: usize,
        tls: Option<&EtcdTls<'_>>,
        client_tls: Option<ClientTls>,
        flags: &[&str],
    ) -> Result<Target> {
        let cluster = EtcdCluster::start(size, foreign_program().as_deref(), tls, flags)?;
        let url = cluster.client_urls.last().context("a cluster needs a member")?.clone();
        let transport = Transport::connect(std::slice::from_ref(&url), client_tls, Duration::from_secs(5))?;
        let client = Client::new(transport.clone());
        let begin = Instant::now();
        let get = pb::RangeRequest { key: "ready".into(), ..Default::default() };
        while let Err(status) = client.kv.clone().range(get.clone()).await {
            if begin.elapsed() > READY_TIME_MAX {
                bail!("not ready: {status}\n{}", cluster.log_ends());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let status = client.maintenance.clone().status(pb::StatusRequest {}).await?.into_inner();
        let mut numbers = status.version.split('.').map_while(|number| number.parse().ok());
        let version = numbers.next().zip(numbers.next()).context("the version is no version")?;
        Ok(Target { cluster, transport, client, url, version })
    }

    pub async fn revision(&self) -> Result<i64> {
        let status = self.client.maintenance.clone().status(pb::StatusRequest {}).await?.into_inner();
        Ok(status.header.context("no header")?.revision)
    }

    /// No key and no lease is left; gives the revision.
    pub async fn clear(&self) -> Result<i64> {
        let mut lease = self.client.lease.clone();
        for found in lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases {
            // It may end by itself meanwhile.
            drop(lease.lease_revoke(pb::LeaseRevokeRequest { id: found.id }).await);
        }
        let all =
            pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let deleted = self.client.kv.clone().delete_range(all).await?.into_inner();
        Ok(deleted.header.context("no header")?.revision)
    }
}
