//! The small loops that a control plane needs to be usable: namespaces end, owned objects follow their owners, every
//! namespace has its service account, and simulated nodes run pods.
//!
//! Invariants: only the holder of the Lease acts. Every loop reads through watches and can be killed at any point: what it
//! does next follows from what the API server says, not from memory. Not here: workload controllers (Deployment, Job, ...),
//! which kube-controller-manager runs against our API server.

pub mod command;
mod garbage;
mod namespaces;
mod nodes;
mod service_accounts;

use futures_util::future::join3;
use kubeclient::{Client, Handover, LeaderConfig, LeaderElector, Term};
use tokio_util::sync::CancellationToken;

/// How the controllers run.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Names this instance in the Lease.
    pub identity: String,
    /// What pods are told to trust: goes into the ConfigMap `kube-root-ca.crt` of every namespace.
    pub root_ca_pem: Option<String>,
}

/// Runs until `shutdown`.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) {
    let lease = LeaderConfig::new("kube-system", "binnacle-controllers", &config.identity);
    let elector = LeaderElector::new(&client, lease);
    elector.run(shutdown, |term| lead(client.clone(), config.clone(), term)).await;
}

/// All loops of one term of leadership. What they write does no harm if it comes late.
async fn lead(client: Client, config: Config, term: Term) -> Handover {
    let term = term.ended().clone();
    let accounts = service_accounts::run(client.clone(), config.root_ca_pem.clone(), term.clone());
    let namespaces = namespaces::run(client.clone(), term.clone());
    let garbage = garbage::run(client, term);
    join3(accounts, namespaces, garbage).await;
    Handover::Settled
}

/// Simulates the nodes `node-1` .. `node-N` until `shutdown`; one instance at a time does. The client must be in the
/// group `system:nodes`.
pub async fn simulate_nodes(client: Client, identity: &str, count: u16, shutdown: CancellationToken) {
    if count == 0 {
        return;
    }
    let lease = LeaderConfig::new("kube-node-lease", "simulated-nodes", identity);
    let elector = LeaderElector::new(&client, lease);
    let lead = async |term: Term| {
        nodes::run(client.clone(), count, term.ended().clone()).await;
        Handover::Settled
    };
    elector.run(shutdown, lead).await;
}
