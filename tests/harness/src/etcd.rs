//! Members of an etcd cluster as real processes: ours, or a foreign etcd with the same flags.
//!
//! Invariants: data lies in a temporary directory that goes with the handle; dropping the handle ends every member that
//! it started and waits for it. Not here: when a cluster is ready (whoever speaks its protocol asks it).

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// Running members.
pub struct EtcdCluster {
    members: Vec<Child>,
    /// `http://127.0.0.1:PORT`, one per member; `https` when `tls` was given.
    pub client_urls: Vec<String>,
    pub dir: TempDir,
}

/// What clients must speak TLS with: a server certificate, and who signs the clients' ones.
pub struct EtcdTls<'a> {
    pub certificate: &'a Path,
    pub key: &'a Path,
    pub client_authority: Option<&'a Path>,
}

impl EtcdCluster {
    /// Starts `size` members of one new cluster. `program`: a foreign etcd; ours if there is none.
    pub fn start(
        size: usize,
        program: Option<&Path>,
        tls: Option<&EtcdTls<'_>>,
        flags: &[&str],
    ) -> Result<EtcdCluster> {
        let dir = tempfile::tempdir().context("no temporary directory")?;
        let ports = crate::free_ports(2 * size)?;
        let (client_ports, peer_ports) = ports.split_at(size);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let peers: Vec<String> = peer_ports.iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let names: Vec<String> = (1..=size).map(|number| format!("m{number}")).collect();
        let initial: Vec<String> =
            names.iter().zip(&peers).map(|(name, peer)| format!("{name}={peer}")).collect();
        let ours = crate::binary();
        let path: PathBuf = program.map_or(ours, |program| Ok(program.to_owned()))?;
        let mut cluster = EtcdCluster {
            members: Vec::new(),
            client_urls: client_ports.iter().map(|port| format!("{scheme}://127.0.0.1:{port}")).collect(),
            dir,
        };
        for (number, name) in names.iter().enumerate() {
            let log = std::fs::File::create(cluster.dir.path().join(format!("{name}.log")))?;
            let mut command = Command::new(&path);
            // Our binary is etcd under that name.
            command.arg0("etcd");
            command.args(["--name", name]).arg("--data-dir").arg(cluster.dir.path().join(name));
            command.args(["--listen-client-urls", &cluster.client_urls[number]]);
            command.args(["--advertise-client-urls", &cluster.client_urls[number]]);
            command.args(["--listen-peer-urls", &peers[number]]);
            command.args(["--initial-advertise-peer-urls", &peers[number]]);
            command.args(["--initial-cluster", &initial.join(",")]);
            command.args(["--initial-cluster-state", "new", "--initial-cluster-token", "contract"]);
            if let Some(tls) = tls {
                command.arg("--cert-file").arg(tls.certificate).arg("--key-file").arg(tls.key);
                if let Some(authority) = tls.client_authority {
                    command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(authority);
                }
            }
            command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            let child = command.spawn().with_context(|| format!("cannot start {}", path.display()))?;
            cluster.members.push(child);
        }
        Ok(cluster)
    }

    /// The last lines that each member wrote, to be shown when a test fails.
    pub fn log_ends(&self) -> String {
        let end = |number: usize| {
            let path = self.dir.path().join(format!("m{number}.log"));
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("m{number}:\n{}\n", lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        (1..=self.members.len()).map(end).collect()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            drop(member.kill());
        }
        for member in &mut self.members {
            drop(member.wait());
        }
    }
}
