//! One member of an embedded control plane: store, API server, scheduler and controllers in one process.
//!
//! Invariants: the parts talk to each other by their public protocols, called directly: the API server reaches the store
//! through the etcd services, scheduler and controllers reach the API server as users with identities of their own.
//! The store has a thread and a runtime of its own, so that no list or table can delay a heartbeat. If one part ends,
//! the member ends. Not here: starting several members (local_cluster.rs).

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use kubeclient::{Client, Cluster, Credentials, KubeConfig, Transport};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::cli::Member;
use crate::pki::{Identity, KeyPairFiles, Pki};
use crate::signals;

/// A member prints a line that starts so once it serves.
pub(crate) const READY_PREFIX: &str = "ready ";

/// What a member needs to know.
pub(crate) struct Plan {
    pub(crate) name: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) api: SocketAddr,
    pub(crate) store: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Name and peer URL of each member.
    pub(crate) initial_cluster: Vec<(String, String)>,
    pub(crate) simulated_nodes: u16,
}

/// The hidden subcommand that `local-cluster` starts.
#[expect(clippy::print_stdout, reason = "the parent process reads it")]
pub(crate) async fn run(options: Member) -> Result<()> {
    let mut stop = signals::Stop::install()?.with_parent();
    let pki = Pki::open_or_create(&options.pki)?;
    let initial_cluster = options
        .initial_cluster
        .split(',')
        .map(|part| part.split_once('=').map(|(name, url)| (name.to_owned(), url.to_owned())))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| anyhow!("--initial-cluster must be NAME=URL,NAME=URL,..."))?;
    let plan = Plan {
        name: options.name,
        data_dir: options.dir.join("data"),
        api: options.api,
        store: options.store,
        peer: options.peer,
        initial_cluster,
        simulated_nodes: options.nodes,
    };
    let member = Running::start(plan, &pki, &options.dir, stop.token()).await?;
    println!("{READY_PREFIX}{}", std::process::id());
    tokio::select! {
        () = stop.wait() => {}
        () = member.ended.cancelled() => {}
    }
    member.stop().await
}

/// A member that serves.
pub(crate) struct Running {
    /// Cancelled when a part of the member ended by itself.
    pub(crate) ended: CancellationToken,
    shutdown: CancellationToken,
    store_ended: oneshot::Receiver<Result<()>>,
    /// Scheduler and controllers.
    clients: tokio::task::JoinSet<Result<()>>,
    /// Cancelled once no client is left.
    serving: CancellationToken,
    api_ended: tokio::task::JoinHandle<Result<()>>,
}

impl Running {
    /// Starts all parts; returns once the API server serves.
    pub(crate) async fn start(
        plan: Plan,
        pki: &Pki,
        log_dir: &Path,
        stop: CancellationToken,
    ) -> Result<Running> {
        // Scheduler and controllers end before the API server that they write to, which ends before the store.
        let shutdown = CancellationToken::new();
        let ended = stop.child_token();
        let api_listener = TcpListener::bind(plan.api)
            .await
            .with_context(|| format!("cannot listen on {} for the API server", plan.api))?;
        let StoreThread { started: store_started, ended: store_ended } =
            start_store(&plan, shutdown.clone(), ended.clone())?;
        let root_ca_pem =
            std::fs::read_to_string(pki.trust_anchor()).context("cannot read the CA certificate")?;
        let serving = CancellationToken::new();
        let config = apiserver_config(&plan, pki, log_dir)?;
        let tls = apiserver::server_config(&config).context("cannot use the API server's certificate")?;
        let starting = async {
            let routes = store_started.await.map_err(|_| anyhow!("the store's thread ended"))??;
            let client = wire::Client::new(wire::Transport::local(routes));
            anyhow::Ok(apiserver::start(config, client, serving.clone()).await?)
        };
        let api = tokio::select! {
            biased;
            api = starting => api?,
            // Without a quorum the start takes as long as it takes; it ends when somebody says so, or with the store.
            () = ended.cancelled() => {
                serving.cancel();
                shutdown.cancel();
                store_ended.await.unwrap_or_else(|_| Err(anyhow!("the store's thread panicked")))?;
                bail!("stopped before it served");
            }
        };
        let api_ended = tokio::spawn({
            // A part that ends by itself takes the others along.
            let (api, serving, ended) = (api.clone(), serving.clone(), ended.clone());
            async move {
                let _guard = ended.drop_guard();
                api.serve(api_listener, tls, serving).await.map_err(Into::into)
            }
        });
        api.ready().await;
        let (mut clients, parts) = (tokio::task::JoinSet::new(), ended.child_token());
        start_scheduler(&plan, &api, &parts, &ended, &mut clients);
        start_controllers(&plan, root_ca_pem, &api, &parts, &ended, &mut clients);
        info!(member = plan.name, api = %plan.api, "member serves");
        Ok(Running { ended, shutdown, store_ended, clients, serving, api_ended })
    }

    /// Ends the parts in order, the store last; returns the first failure.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.ended.cancel();
        let panicked = |error| Err(anyhow!("a part panicked: {error}"));
        let mut first_failure = Ok(());
        while let Some(finished) = self.clients.join_next().await {
            first_failure = first_failure.and(finished.unwrap_or_else(panicked));
        }
        self.serving.cancel();
        first_failure = first_failure.and(self.api_ended.await.unwrap_or_else(panicked));
        self.shutdown.cancel();
        let store = self.store_ended.await.unwrap_or_else(|_| Err(anyhow!("the store's thread panicked")));
        first_failure.and(store)
    }
}

/// Runs the store on a thread of its own; returns its services once it serves.
/// What the store's thread tells.
struct StoreThread {
    /// That it answers.
    started: oneshot::Receiver<Result<tonic::service::Routes>>,
    /// That it is over.
    ended: oneshot::Receiver<Result<()>>,
}

fn start_store(plan: &Plan, shutdown: CancellationToken, ended: CancellationToken) -> Result<StoreThread> {
    let config = store_config(plan)?;
    let (started_sender, started) = oneshot::channel();
    let (ended_sender, store_ended) = oneshot::channel();
    std::thread::Builder::new().name("store".to_owned()).spawn(move || {
        let _guard = ended.drop_guard();
        let result = run_store(config, shutdown, started_sender);
        drop(ended_sender.send(result));
    })?;
    Ok(StoreThread { started, ended: store_ended })
}

fn run_store(
    config: store::Config,
    shutdown: CancellationToken,
    started: oneshot::Sender<Result<tonic::service::Routes>>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async move {
        let store = match store::start(config, shutdown.clone()).await {
            Ok(store) => store,
            Err(error) => {
                drop(started.send(Err(error.into())));
                return Ok(());
            }
        };
        if shutdown.run_until_cancelled(store.ready()).await.is_some() {
            drop(started.send(Ok(store.routes())));
        }
        store.stopped().await.map_err(Into::into)
    })
}

fn store_config(plan: &Plan) -> Result<store::Config> {
    let url = |address: SocketAddr| -> Result<store::Url> { Ok(format!("http://{address}").parse()?) };
    let mut config = store::Config::new(&plan.name, &plan.data_dir);
    config.listen_client_urls = vec![url(plan.store)?];
    config.advertise_client_urls = vec![url(plan.store)?];
    config.listen_peer_urls = vec![url(plan.peer)?];
    config.initial_advertise_peer_urls = vec![url(plan.peer)?];
    config.initial_cluster = plan
        .initial_cluster
        .iter()
        .map(|(name, url)| Ok((name.clone(), url.parse()?)))
        .collect::<Result<_>>()?;
    Ok(config)
}

/// The certificate of the person who runs the cluster: group `system:masters`.
pub(crate) fn issue_admin(pki: &Pki) -> Result<KeyPairFiles> {
    pki.issue(&Identity {
        file: "admin",
        common_name: "admin",
        organizations: &["system:masters"],
        dns_names: &[],
        addresses: &[],
    })
}

/// Writes the administrator's kubeconfig with a context per server (name, URL); the first one is current.
pub(crate) fn write_kubeconfig(
    path: &Path,
    servers: &[(&str, String)],
    pki: &Pki,
    admin: &KeyPairFiles,
) -> Result<()> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let credentials = Credentials::certificate(&read(&admin.certificate)?, &read(&admin.key)?);
    let authority = read(&pki.trust_anchor())?;
    let mut kubeconfig = KubeConfig::default();
    for (name, url) in servers {
        let cluster = Cluster::embedded(url, &authority);
        kubeconfig.add_context_for(name, cluster, "admin", credentials.clone());
    }
    kubeconfig.current_context = servers.first().map(|(name, _)| (*name).to_owned()).unwrap_or_default();
    kubeconfig.save(path).with_context(|| format!("cannot write {}", path.display()))
}

fn issue_server(plan: &Plan, pki: &Pki) -> Result<KeyPairFiles> {
    let names =
        ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(str::to_owned);
    let service: IpAddr = [10, 0, 0, 1].into();
    let loopback: IpAddr = [127, 0, 0, 1].into();
    let mut addresses = vec![loopback, IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), service];
    if !addresses.contains(&plan.api.ip()) {
        addresses.push(plan.api.ip());
    }
    pki.issue(&Identity {
        file: &format!("apiserver-{}", plan.name),
        common_name: "kube-apiserver",
        organizations: &[],
        dns_names: &names,
        addresses: &addresses,
    })
}

fn apiserver_config(plan: &Plan, pki: &Pki, log_dir: &Path) -> Result<apiserver::Config> {
    let server = issue_server(plan, pki)?;
    Ok(apiserver::Config {
        bind_address: plan.api.ip(),
        secure_port: plan.api.port(),
        tls_cert_file: Some(server.certificate),
        tls_private_key_file: Some(server.key),
        client_ca_file: Some(pki.trust_anchor()),
        audit_log_path: Some(log_dir.join("audit.log")),
        ..apiserver::Config::default()
    })
}

/// A client of the API server in this process, with an identity of its own.
fn local_client(api: &apiserver::ApiServer, user: &str, groups: &[&str], agent: &str) -> Client {
    let identity = apiserver::User::new(user, &[groups, &["system:authenticated"]].concat());
    Client::new(Transport::local(api.local(identity)), agent)
}

fn start_scheduler(
    plan: &Plan,
    api: &apiserver::ApiServer,
    parts: &CancellationToken,
    ended: &CancellationToken,
    tasks: &mut tokio::task::JoinSet<Result<()>>,
) {
    let config = scheduler::Config { identity: plan.name.clone(), ..scheduler::Config::default() };
    let (client, parts, ended) =
        (local_client(api, "system:kube-scheduler", &[], "binnacle-scheduler"), parts.clone(), ended.clone());
    tasks.spawn(async move {
        let _guard = ended.drop_guard();
        scheduler::run(client, config, parts).await;
        Ok(())
    });
}

fn start_controllers(
    plan: &Plan,
    root_ca_pem: String,
    api: &apiserver::ApiServer,
    parts: &CancellationToken,
    ended: &CancellationToken,
    tasks: &mut tokio::task::JoinSet<Result<()>>,
) {
    let config = controllers::Config { identity: plan.name.clone(), root_ca_pem: Some(root_ca_pem) };
    let client = local_client(api, "system:kube-controller-manager", &[], "binnacle-controllers");
    let nodes = local_client(api, "system:node:simulated", &["system:nodes"], "binnacle-nodes");
    let (identity, count) = (plan.name.clone(), plan.simulated_nodes);
    let (parts, ended) = (parts.clone(), ended.clone());
    tasks.spawn(async move {
        let _guard = ended.drop_guard();
        let nodes = controllers::simulate_nodes(nodes, &identity, count, parts.clone());
        futures_util::future::join(nodes, controllers::run(client, config, parts)).await;
        Ok(())
    });
}
