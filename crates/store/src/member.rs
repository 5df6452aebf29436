//! One running member: started in order, stopped in the opposite one.
//!
//! Start: certificates, addresses, identity, replica, services, then the client port. Stop: no new requests, those
//! under way end, leadership is handed over, the replica closes its files.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use mvcc::{Caller, Command, MemberAttributes};
use replica::{Handle, PeerTls};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    auth::tokens,
    bootstrap::{self, Bootstrap, BootstrapError},
    compaction,
    config::{ClusterState, Config, ConfigError},
    context::{Context, Own},
    serve::{self, ListenError, Listener, Scope},
    services::Services,
    tls::{self, TlsError},
    url::Url,
};

/// Requests under way get this long to end at shutdown.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);
/// Pause between attempts to tell the others this member's name and addresses.
const PUBLISH_PAUSE: Duration = Duration::from_millis(200);
/// Pause between looks whether the member can answer a linearizable read.
const READY_PAUSE: Duration = Duration::from_millis(10);

/// Why a member does not start. One line each, for a person.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error(transparent)]
    Replica(#[from] replica::StartError),
}

/// Why a running member ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{0}")]
    Fatal(String),
}

/// A running member.
pub struct Store {
    own: Own,
    services: Services,
    client_urls: Vec<Url>,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    serving: JoinHandle<()>,
    stop_serving: CancellationToken,
}

/// Starts a member. It answers once a leader is known: see [`Store::ready`]. Ends after `shutdown`.
pub async fn start(mut config: Config, shutdown: CancellationToken) -> Result<Store, StartError> {
    config.check()?;
    sign_own(&mut config)?;
    let client_tls =
        config.client_tls.as_ref().map(|files| tls::server(files, &config.tls_rules, true)).transpose()?;
    let peer_tls = peer_tls(&config)?;
    let listeners = listen(&config).await?;
    let client_urls: Vec<Url> = listeners.iter().flat_map(|listener| listener.urls.clone()).collect();
    let Bootstrap { identity, members } = bootstrap::bootstrap(&config, peer_tls.as_ref()).await?;
    let mut peer_addresses: Vec<SocketAddr> = Vec::new();
    let mut peer_files: Vec<PathBuf> = Vec::new();
    for url in &config.listen_peer_urls {
        match url.socket() {
            Some(path) => peer_files.push(path.to_owned()),
            None => peer_addresses.push(serve::resolve(url).await?),
        }
    }

    let mut replica = replica::Config::new(identity, &config.name, &config.data_dir, members, peer_addresses);
    replica.advertise_peer_urls = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
    replica.peer_tls = peer_tls;
    replica.heartbeat_interval_ms = config.heartbeat_interval_ms;
    replica.election_timeout_ms = config.election_timeout_ms;
    replica.snapshot_count = config.snapshot_count;
    replica.new_cluster = config.initial_cluster_state == ClusterState::New;
    replica.pre_vote = config.pre_vote;
    replica.fsync = config.fsync;
    // 0 is no quota there.
    replica.limits.quota_bytes =
        config.quota_bytes().and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0);
    replica.request_size_bytes_max = config.request_size_bytes_max;
    replica.request_timeout = config.request_timeout();
    replica.learners_max = config.learners_max;
    replica.wal_segment_size_bytes = config.log_segment_size_bytes;
    replica.state_sync_interval = config.state_sync_interval;
    replica.surroundings = config.surroundings.clone();
    replica.listen_peer_files = peer_files;
    if config.socket_options.reuse_port {
        replica.surroundings.share_ports();
    }
    replica.strict_reconfig_check = config.strict_reconfig_check;
    config.operations.apply_to(&mut replica);
    // The replica outlives `shutdown` until the requests under way have ended.
    let handle = replica::start(replica, CancellationToken::new()).await?;

    let context = Arc::new(Context::new(handle.clone(), config, shutdown.clone()));
    let own = Own { context: context.clone(), handle };
    let services = Services::new(context.clone());
    let tasks = background(&own);
    let stop_serving = CancellationToken::new();
    let serving = serve::serve(own.clone(), services.clone(), listeners, client_tls, stop_serving.clone());
    let serving = tokio::spawn(serving);
    tracing::info!(
        member_id = %format!("{:x}", identity.member_id),
        cluster_id = %format!("{:x}", identity.cluster_id),
        client_urls = %urls_text(&client_urls),
        "member started"
    );
    Ok(Store { own, services, client_urls, shutdown, tasks, serving, stop_serving })
}

fn peer_tls(config: &Config) -> Result<Option<PeerTls>, TlsError> {
    let Some(files) = &config.peer_tls else { return Ok(None) };
    let server = tls::server(files, &config.tls_rules, false)?;
    let client = tls::peer_client(files, &config.tls_rules)?;
    Ok(Some(PeerTls {
        server: Arc::new(move || server.current()),
        client: Arc::new(move || client.current()),
    }))
}

/// Makes the certificates that `--auto-tls` and `--peer-auto-tls` ask for, where none was given and a URL needs one.
fn sign_own(config: &mut Config) -> Result<(), TlsError> {
    let folder = config.data_dir.join("fixtures");
    let years = config.self_signed_validity_years;
    let needs = |urls: &[Url]| urls.iter().any(|url| url.tls);
    let mut client_urls = config.listen_client_urls.clone();
    client_urls.extend_from_slice(&config.listen_metrics_urls);
    if config.client_auto_tls && config.client_tls.is_some() {
        tracing::warn!("ignoring client auto TLS since certs given");
    } else if config.client_auto_tls && needs(&client_urls) {
        config.client_tls = Some(tls::self_signed::files(&folder.join("client"), &client_urls, years)?);
    }
    if config.peer_auto_tls && config.peer_tls.is_some() {
        tracing::warn!("ignoring peer auto TLS since certs given");
    } else if config.peer_auto_tls {
        config.peer_tls =
            Some(tls::self_signed::files(&folder.join("peer"), &config.listen_peer_urls, years)?);
    }
    Ok(())
}

async fn listen(config: &Config) -> Result<Vec<Listener>, ListenError> {
    if !config.surroundings.has_sockets() {
        return Ok(Vec::new());
    }
    let options = config.socket_options;
    let mut listeners = Listener::bind_all(&config.listen_client_urls, Scope::Everything, options).await?;
    listeners.extend(Listener::bind_all(&config.listen_metrics_urls, Scope::Metrics, options).await?);
    Ok(listeners)
}

/// What runs beside the requests; all of it ends at shutdown.
fn background(own: &Own) -> Vec<JoinHandle<()>> {
    let Own { context, handle } = own.clone();
    let hub = tokio::spawn(async move { context.hub.run(handle, context.shutdown.clone()).await });
    let publisher = own.clone();
    let publisher = tokio::spawn(async move {
        tokio::select! {
            () = publish(&publisher) => {}
            () = publisher.context.shutdown.cancelled() => {}
        }
    });
    let compactor = tokio::spawn(compaction::run(own.clone()));
    let tokens = tokio::spawn(tokens::keep(own.clone()));
    vec![hub, publisher, compactor, tokens]
}

/// Tells the cluster this member's name and client addresses, until it is known, then says that it is ready.
async fn publish(own: &Own) {
    let Own { context, handle } = own;
    let client_urls: Vec<String> = context.config.advertise_client_urls.iter().map(Url::to_string).collect();
    let attributes = MemberAttributes {
        member: context.identity.member_id,
        name: context.config.name.clone(),
        client_urls,
    };
    loop {
        let known = handle.read(|store, _| store.member_attributes(attributes.member) == Some(&attributes));
        if known {
            break;
        }
        match handle.propose(Caller::System, Command::MemberAttributes(attributes.clone())).await {
            Ok(_) => break,
            Err(error) => tracing::debug!(%error, "member attributes not published yet"),
        }
        tokio::time::sleep(PUBLISH_PAUSE).await;
    }
    // Whoever starts one member after the other goes on to the next when it hears this.
    while handle.is_new_here() {
        tokio::time::sleep(READY_PAUSE).await;
    }
    // etcd's older test suite waits for these two lines, the newer one for the third.
    tracing::info!(name = %context.config.name, "published local member to cluster through raft");
    tracing::info!(cluster_version = crate::CLUSTER_VERSION, "enabled capabilities for version");
    tracing::info!("ready to serve client requests");
    crate::notify::ready();
}

impl Store {
    /// The replica below, for what is not in etcd's API.
    pub fn handle(&self) -> Handle {
        self.own.handle.clone()
    }

    /// The services, for calls inside this process.
    pub fn routes(&self) -> Routes {
        self.services.routes()
    }

    /// Where clients reach this member; a port of 0 was replaced by the real one.
    pub fn client_urls(&self) -> &[Url] {
        &self.client_urls[..self.own.context.config.listen_client_urls.len().min(self.client_urls.len())]
    }

    /// Resolves when this member can answer a linearizable read and the others can count on it, or at shutdown.
    pub async fn ready(&self) {
        while !self.shutdown.is_cancelled() && self.own.context.barrier().await.is_err() {
            tokio::time::sleep(READY_PAUSE).await;
        }
        while !self.shutdown.is_cancelled() && self.own.handle.is_new_here() {
            tokio::time::sleep(READY_PAUSE).await;
        }
    }

    /// Runs until `shutdown` or until the member must end; then stops everything in order.
    pub async fn stopped(self) -> Result<(), RunError> {
        let fatal = tokio::select! {
            () = self.shutdown.cancelled() => None,
            reason = self.own.handle.fatal() => Some(reason),
        };
        self.stop_serving.cancel();
        // Ends watch streams and background tasks too, when the reason was fatal.
        self.shutdown.cancel();
        if tokio::time::timeout(DRAIN_TIME_MAX, self.serving).await.is_err() {
            tracing::warn!("requests were still under way when the member stopped");
        }
        for task in self.tasks {
            task.abort();
        }
        match fatal {
            None => {
                self.own.handle.transfer_leadership_and_stop().await;
                Ok(())
            }
            Some(reason) => {
                self.own.handle.stop().await;
                Err(RunError::Fatal(reason.to_string()))
            }
        }
    }
}

fn urls_text(urls: &[Url]) -> String {
    urls.iter().map(Url::to_string).collect::<Vec<_>>().join(",")
}
