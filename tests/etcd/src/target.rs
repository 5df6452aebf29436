//! The cluster under test and the connections to its members.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::etcd::{EtcdCluster, EtcdTls};
use tonic::{IntoRequest, Request};
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

const READY_TIME_MAX: Duration = Duration::from_secs(60);
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// A running cluster. Unless a script says otherwise its last member is asked.
pub struct Target {
    pub cluster: EtcdCluster,
    pub transport: Transport,
    pub client: Client,
    pub url: String,
    /// Release and its minor: 3.5 is (3, 5).
    pub version: (u32, u32),
    /// Not a foreign etcd.
    pub is_ours: bool,
    pub tls: Option<ClientTls>,
    /// What scripts call with from the beginning: that of root once `secure` was called.
    token: Mutex<Option<String>>,
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
        Target::start_program(foreign_program().as_deref(), size, tls, client_tls, flags).await
    }

    /// `program`: a real etcd; ours if there is none.
    pub async fn start_program(
        program: Option<&Path>,
        size: usize,
        tls: Option<&EtcdTls<'_>>,
        client_tls: Option<ClientTls>,
        flags: &[&str],
    ) -> Result<Target> {
        let cluster = EtcdCluster::start(size, program, tls, flags)?;
        let url = cluster.client_urls.last().context("a cluster needs a member")?.clone();
        let transport = Transport::connect(std::slice::from_ref(&url), client_tls.clone(), CONNECT_TIME_MAX)?;
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
        Ok(Target {
            cluster,
            transport,
            client,
            url,
            version,
            is_ours: program.is_none(),
            tls: client_tls,
            token: Mutex::new(None),
        })
    }

    /// A connection to one member, counted from 1.
    pub fn member(&self, number: usize) -> Result<Transport> {
        let url = self.cluster.client_urls.get(number.wrapping_sub(1)).context("no such member")?;
        Ok(Transport::connect(std::slice::from_ref(url), self.tls.clone(), CONNECT_TIME_MAX)?)
    }

    /// Of all members, in their order.
    pub fn peer_urls(&self) -> Vec<String> {
        (0..self.cluster.size()).map(|number| self.cluster.peer_url(number).to_owned()).collect()
    }

    /// The member that leads, once there is one.
    pub async fn leader(&self) -> Result<usize> {
        let begin = Instant::now();
        while begin.elapsed() < READY_TIME_MAX {
            for number in 1..=self.cluster.client_urls.len() {
                let mut maintenance = Client::new(self.member(number)?).maintenance;
                let Ok(status) = maintenance.status(self.request(pb::StatusRequest {})).await else {
                    continue;
                };
                let status = status.into_inner();
                if status.header.is_some_and(|header| header.member_id == status.leader) {
                    return Ok(number);
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("nobody leads:\n{}", self.cluster.log_ends())
    }

    /// Switches authentication on; from now on scripts run as root.
    pub async fn secure(&self) -> Result<()> {
        let mut auth = self.client.auth.clone();
        let (name, password) = ("root".to_owned(), "root".to_owned());
        auth.user_add(pb::AuthUserAddRequest { name, password, ..Default::default() }).await?;
        auth.role_add(pb::AuthRoleAddRequest { name: "root".to_owned() }).await?;
        let grant = pb::AuthUserGrantRoleRequest { user: "root".to_owned(), role: "root".to_owned() };
        auth.user_grant_role(grant).await?;
        auth.auth_enable(pb::AuthEnableRequest {}).await?;
        self.log_in().await
    }

    /// Again as root, with a token that is fresh.
    pub async fn log_in(&self) -> Result<()> {
        let request = pb::AuthenticateRequest { name: "root".to_owned(), password: "root".to_owned() };
        let token = self.client.auth.clone().authenticate(request).await?.into_inner().token;
        *self.token.lock().map_err(|_| anyhow::anyhow!("poisoned"))? = Some(token);
        Ok(())
    }

    /// What a call carries unless a script says otherwise.
    pub fn metadata(&self) -> Vec<(&'static str, String)> {
        let token = self.token.lock().map(|token| token.clone()).unwrap_or_default();
        token.map(|token| ("token", token)).into_iter().collect()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = message.into_request();
        for (name, value) in self.metadata() {
            if let Ok(value) = value.parse() {
                request.metadata_mut().insert(name, value);
            }
        }
        request
    }

    pub async fn revision(&self) -> Result<i64> {
        let status = self.client.maintenance.clone().status(self.request(pb::StatusRequest {})).await?;
        Ok(status.into_inner().header.context("no header")?.revision)
    }

    /// No key and no lease is left; gives the revision.
    pub async fn clear(&self) -> Result<i64> {
        let mut lease = self.client.lease.clone();
        let leases = lease.lease_leases(self.request(pb::LeaseLeasesRequest {})).await?;
        for found in leases.into_inner().leases {
            // It may end by itself meanwhile.
            drop(lease.lease_revoke(self.request(pb::LeaseRevokeRequest { id: found.id })).await);
        }
        let all =
            pb::DeleteRangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let deleted = self.client.kv.clone().delete_range(self.request(all)).await?.into_inner();
        Ok(deleted.header.context("no header")?.revision)
    }
}
