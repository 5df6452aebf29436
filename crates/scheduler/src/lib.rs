//! The scheduler: reads pods and nodes through watches, decides, binds, and can say why.
//!
//! Invariants: everything up to the decision is pure (cycle.rs and below: no clock, no network). One pod at a time is
//! decided; a decided pod is assumed on its node before the binding is written. Only the holder of the Lease decides.
//! Not here: the API server, which is reached by the Kubernetes protocol only.

// From the edge inwards.
pub mod command;
mod scheduling;
mod writer;

// Pure.
mod affinity;
mod cache;
mod cycle;
mod decision;
mod node;
mod plugins;
mod pod;
mod queue;
mod resources;

use kubeclient::{Client, LeaderConfig, LeaderElector, Term};
use tokio_util::sync::CancellationToken;

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Names this instance in the Lease and in events.
    pub identity: String,
    /// Pods that name another scheduler are left alone.
    pub scheduler_name: String,
    /// Without it this instance decides at once; only one may run.
    pub leader_elect: bool,
    /// 0: a share that shrinks with the size of the cluster, as upstream.
    pub percentage_of_nodes_to_score: usize,
    /// Bindings that may be on their way at once.
    pub bindings_in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            identity: "binnacle".to_owned(),
            scheduler_name: "default-scheduler".to_owned(),
            leader_elect: true,
            percentage_of_nodes_to_score: 0,
            bindings_in_flight_max: 64,
        }
    }
}

/// Runs until `shutdown`.
pub async fn run(client: Client, config: Config, shutdown: CancellationToken) {
    let unsettled = writer::Unsettled::default();
    if !config.leader_elect {
        scheduling::run(client, config, unsettled, Term::unlimited(shutdown)).await;
        return;
    }
    let lease = LeaderConfig::new("kube-system", "kube-scheduler", &config.identity);
    let elector = LeaderElector::new(&client, lease);
    let lead = |term| scheduling::run(client.clone(), config.clone(), unsettled.clone(), term);
    elector.run(shutdown, lead).await;
}
