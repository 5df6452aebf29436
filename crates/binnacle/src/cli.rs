//! The command line of the one binary: which subcommand, with which settings.
//!
//! Invariants: everything is parsed and checked here, once; the rest of the binary sees plain structs.
//! `store`, `apiserver`, `scheduler`, `controllers` and `ctl` take the flags of the programs that they replace and are
//! parsed by their own crates; they appear here so that `--help` lists them.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(
    name = "binnacle",
    version,
    about = "An etcd-compatible Raft store, a Kubernetes-compatible API server and a scheduler in one binary"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a whole control plane in one process: store, API server, scheduler and controllers
    Up(Up),
    /// Run a three-member cluster as local processes, each with store, API server, scheduler and controllers
    LocalCluster(LocalCluster),
    /// Show why a pod was placed on its node, or why it is pending
    Explain(Explain),
    /// Run the store alone; takes etcd's flags (also when started under the name `etcd`).
    /// `store restore SNAPSHOT` makes a data directory from an etcd snapshot, with etcdutl's flags
    #[command(disable_help_flag = true)]
    Store(Passed),
    /// Run the API server alone; takes kube-apiserver's flags (also as `kube-apiserver`)
    #[command(disable_help_flag = true)]
    Apiserver(Passed),
    /// Run the scheduler alone against a kubeconfig (also as `kube-scheduler`)
    #[command(disable_help_flag = true)]
    Scheduler(Passed),
    /// Run the controllers alone against a kubeconfig
    #[command(disable_help_flag = true)]
    Controllers(Passed),
    /// Talk to the store; takes etcdctl's commands and flags (also as `etcdctl`)
    #[command(disable_help_flag = true)]
    Ctl(Passed),
    /// Look into snapshots and restore them; takes the flags of `etcdutl snapshot` (also as `etcdutl`)
    #[command(disable_help_flag = true)]
    Utl(Passed),
    /// One member of `local-cluster`; started by it
    #[command(hide = true)]
    Member(Member),
}

/// Arguments that another parser reads.
#[derive(Debug, Args)]
pub(crate) struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) arguments: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folder of the data, certificates and admin.kubeconfig; made if missing
    #[arg(long, default_value = "binnacle-data")]
    pub(crate) dir: PathBuf,
    /// Simulated nodes to add: they keep their Lease and move pods to Running
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=5000))]
    pub(crate) nodes: u16,
    /// Where the API server listens (HTTPS)
    #[arg(long, default_value = "127.0.0.1:6443")]
    pub(crate) api: SocketAddr,
    /// Where the store listens for etcd clients (HTTP)
    #[arg(long, default_value = "127.0.0.1:2379")]
    pub(crate) store: SocketAddr,
    /// Where the store listens for peers
    #[arg(long, default_value = "127.0.0.1:2380")]
    pub(crate) peer: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct LocalCluster {
    /// Number of members, an odd number
    #[arg(long, default_value_t = 3, value_parser = odd_members)]
    pub(crate) members: u8,
    /// Folder of the members' data, the certificates and admin.kubeconfig; made if missing
    #[arg(long, default_value = "binnacle-cluster")]
    pub(crate) dir: PathBuf,
    /// Simulated nodes to add
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=5000))]
    pub(crate) nodes: u16,
    /// API ports, one per member [default: 6443,6444,6445,...]
    #[arg(long, value_delimiter = ',')]
    pub(crate) api_ports: Vec<u16>,
    /// Store client ports, one per member [default: 2379,22379,32379,...]
    #[arg(long, value_delimiter = ',')]
    pub(crate) store_ports: Vec<u16>,
    /// Store peer ports, one per member [default: 2380,22380,32380,...]
    #[arg(long, value_delimiter = ',')]
    pub(crate) peer_ports: Vec<u16>,
    /// Seconds until a member that ended is started again; 0 leaves it down
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    pub(crate) restart_after_s: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// What to explain: only `pod` is known
    #[arg(value_parser = ["pod"])]
    pub(crate) kind: String,
    /// Name of the pod
    pub(crate) name: String,
    /// Namespace of the pod
    #[arg(short, long, default_value = "default")]
    pub(crate) namespace: String,
    /// Kubeconfig file
    #[arg(long, env = "KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current context]
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// Print the decision as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Member {
    #[arg(long)]
    pub(crate) name: String,
    #[arg(long)]
    pub(crate) dir: PathBuf,
    #[arg(long)]
    pub(crate) pki: PathBuf,
    #[arg(long)]
    pub(crate) api: SocketAddr,
    #[arg(long)]
    pub(crate) store: SocketAddr,
    #[arg(long)]
    pub(crate) peer: SocketAddr,
    #[arg(long)]
    pub(crate) initial_cluster: String,
    #[arg(long, default_value_t = 0)]
    pub(crate) nodes: u16,
}

fn odd_members(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(members @ (1 | 3 | 5 | 7)) => Ok(members),
        _ => Err("must be 1, 3, 5 or 7: an even member adds no fault tolerance".to_owned()),
    }
}

impl LocalCluster {
    /// The ports of one kind for every member: as given, or counted up from the first in steps of `step`.
    pub(crate) fn ports(&self, given: &[u16], defaults: [u16; 7]) -> Result<Vec<u16>, String> {
        let members = usize::from(self.members);
        if given.is_empty() {
            return Ok(defaults[..members].to_vec());
        }
        if given.len() != members {
            return Err(format!("{} ports given for {members} members", given.len()));
        }
        Ok(given.to_vec())
    }
}

pub(crate) const API_PORTS: [u16; 7] = [6443, 6444, 6445, 6446, 6447, 6448, 6449];
pub(crate) const STORE_PORTS: [u16; 7] = [2379, 22379, 32379, 42379, 52379, 12379, 62379];
pub(crate) const PEER_PORTS: [u16; 7] = [2380, 22380, 32380, 42380, 52380, 12380, 62380];

#[cfg(test)]
mod tests {
    use super::*;

    fn local_cluster(arguments: &[&str]) -> Result<LocalCluster, clap::Error> {
        let line = ["binnacle", "local-cluster"].iter().chain(arguments);
        Cli::try_parse_from(line).map(|cli| match cli.command {
            Command::LocalCluster(options) => options,
            other => panic!("parsed as {other:?}"),
        })
    }

    #[test]
    fn an_even_number_of_members_is_refused() {
        assert!(local_cluster(&["--members", "4"]).is_err());
        assert_eq!(local_cluster(&["--members", "5"]).unwrap().members, 5);
    }

    #[test]
    fn ports_default_to_the_documented_ones_and_must_match_the_members() {
        let options = local_cluster(&["--api-ports", "1,2"]).unwrap();
        assert_eq!(options.ports(&[], STORE_PORTS).unwrap(), [2379, 22379, 32379]);
        assert_eq!(options.ports(&options.api_ports, API_PORTS).unwrap_err(), "2 ports given for 3 members");
    }

    #[test]
    fn flags_of_replaced_programs_pass_through_unread() {
        let cli = Cli::try_parse_from(["binnacle", "store", "--name", "m1", "-help"]).unwrap();
        match cli.command {
            Command::Store(passed) => assert_eq!(passed.arguments, ["--name", "m1", "-help"]),
            other => panic!("parsed as {other:?}"),
        }
    }
}
