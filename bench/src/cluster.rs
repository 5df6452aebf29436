//! A cluster of one system: its member processes, their ports and directories.
//!
//! Invariants: both systems get the same flags, and none that weakens durability; members listen on loopback only, on
//! free ports; dropping a `Cluster` kills its processes, waits for them, and removes their data. Not here: load.

use std::fs::{self, File};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use tempfile::TempDir;
use wire::etcdserverpb::RangeRequest;

use crate::grpc::Connection;
use crate::load;
use crate::machine;

const READY_WITHIN: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(20);
const LOG_LINES_SHOWN: usize = 5;

/// A program that speaks etcd's flags and API.
#[derive(Clone)]
pub(crate) struct System {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    /// Before the flags.
    pub(crate) arguments: &'static [&'static str],
    /// First line of `--version`.
    pub(crate) version: String,
}

impl System {
    /// Checks that the program is there, is itself the server (and not a script that would start it, for CPU and
    /// memory are read per process), and says its version.
    pub(crate) fn find(
        name: &'static str,
        program: &Path,
        arguments: &'static [&'static str],
    ) -> anyhow::Result<System> {
        let mut magic = [0; 4];
        File::open(program)
            .and_then(|mut file| file.read_exact(&mut magic))
            .with_context(|| format!("{name}: cannot read the program {}", program.display()))?;
        ensure!(
            magic == *b"\x7fELF",
            "{name}: {} is a script; give the program that it starts, because CPU and memory are counted per process",
            program.display()
        );
        let output = command(program)
            .args(arguments)
            .arg("--version")
            .output()
            .with_context(|| format!("{name}: cannot run {}", program.display()))?;
        ensure!(output.status.success(), "{name}: {} --version: {}", program.display(), output.status);
        let text = String::from_utf8_lossy(&output.stdout);
        let Some(version) = text.lines().next().map(str::to_owned) else {
            bail!("{name}: {} {} --version says nothing", program.display(), arguments.join(" "));
        };
        Ok(System { name, program: program.to_owned(), arguments, version })
    }
}

pub(crate) struct Cluster {
    // Dropped in this order: the processes first, then what they write to.
    members: Vec<Member>,
    _directory: TempDir,
}

struct Member {
    process: Child,
    client_address: SocketAddr,
    log: PathBuf,
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Cluster {
    /// Starts `members` fresh members below `data` and waits until each of them answers a linearizable read.
    pub(crate) async fn start(system: &System, members: usize, data: &Path) -> anyhow::Result<Cluster> {
        let directory = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(data)
            .with_context(|| format!("making a data directory in {}", data.display()))?;
        let addresses = free_addresses(members * 2)?;
        let (clients, peers) = addresses.split_at(members);
        let initial_cluster: Vec<String> =
            peers.iter().enumerate().map(|(index, peer)| format!("m{index}=http://{peer}")).collect();
        let initial_cluster = initial_cluster.join(",");

        let mut cluster = Cluster { members: Vec::with_capacity(members), _directory: directory };
        for (index, (client, peer)) in clients.iter().zip(peers).enumerate() {
            let home = cluster._directory.path();
            let log = home.join(format!("m{index}.log"));
            let output = File::create(&log)?;
            let process = command(&system.program)
                .args(system.arguments)
                .arg(format!("--name=m{index}"))
                .arg(format!("--data-dir={}", home.join(format!("m{index}")).display()))
                .arg(format!("--listen-client-urls=http://{client}"))
                .arg(format!("--advertise-client-urls=http://{client}"))
                .arg(format!("--listen-peer-urls=http://{peer}"))
                .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
                .arg(format!("--initial-cluster={initial_cluster}"))
                .arg("--initial-cluster-state=new")
                .arg("--initial-cluster-token=bench")
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output)
                .spawn()
                .with_context(|| format!("starting {}", system.program.display()))?;
            cluster.members.push(Member { process, client_address: *client, log });
        }
        cluster.ready().await.with_context(|| format!("starting {members} members of {}", system.name))?;
        Ok(cluster)
    }

    /// `count` connections, spread over the members in turn.
    pub(crate) async fn connect(&self, count: usize) -> anyhow::Result<Vec<Connection>> {
        let mut connections = Vec::with_capacity(count);
        for member in self.members.iter().cycle().take(count) {
            connections.push(Connection::open(member.client_address).await?);
        }
        Ok(connections)
    }

    /// CPU time of all members so far.
    pub(crate) fn cpu_time(&self) -> anyhow::Result<Duration> {
        self.members.iter().map(|member| machine::cpu_time(member.process.id())).sum()
    }

    /// Sum over the members of the most memory each had resident.
    pub(crate) fn memory_peak_bytes(&self) -> anyhow::Result<u64> {
        self.members.iter().map(|member| machine::memory_peak_bytes(member.process.id())).sum()
    }

    /// The last lines that a member which has ended wrote, or an error without them if all run.
    pub(crate) fn check_running(&mut self) -> anyhow::Result<()> {
        for (index, member) in self.members.iter_mut().enumerate() {
            if let Some(status) = member.process.try_wait()? {
                bail!("member m{index} ended ({status}): {}", last_lines(&member.log));
            }
        }
        Ok(())
    }

    /// Waits until every member has applied everything that was acknowledged before, and answers.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for index in 0..self.members.len() {
            loop {
                self.check_running()?;
                let Err(error) = answers(self.members[index].client_address).await else { break };
                if Instant::now() > deadline {
                    let log = last_lines(&self.members[index].log);
                    bail!(
                        "member m{index} does not answer within {READY_WITHIN:?}: {error:#}; it wrote: {log}"
                    );
                }
                tokio::time::sleep(READY_POLL).await;
            }
        }
        Ok(())
    }
}

/// One linearizable read.
async fn answers(address: SocketAddr) -> anyhow::Result<()> {
    let read = async {
        let connection = Connection::open(address).await?;
        let request = RangeRequest { key: Bytes::from_static(b"0"), ..RangeRequest::default() };
        connection.unary(load::RANGE, &request).await
    };
    tokio::time::timeout(Duration::from_secs(5), read).await.context("no answer within 5s")??;
    Ok(())
}

/// Without the variables of the caller's environment that a member would take for flags.
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("ETCD_") || text.starts_with("BINNACLE_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Held all at once, so they differ; another program could still take one before the member does, and then the
/// member says so and the point fails.
fn free_addresses(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners: Result<Vec<_>, _> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect();
    Ok(listeners?.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_in_place_of_the_server_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let script = directory.path().join("etcd");
        fs::write(&script, "#!/bin/sh\nexec etcd\n").unwrap();
        let error = System::find("etcd", &script, &[]).err().unwrap();
        assert!(error.to_string().contains("is a script"), "{error}");
    }

    /// `true` ignores its arguments and succeeds.
    #[test]
    fn a_program_without_a_version_is_refused() {
        let error = System::find("ours", Path::new("/bin/true"), &["store"]).err().unwrap();
        assert!(error.to_string().contains("says nothing"), "{error}");
    }

    #[test]
    fn free_addresses_differ() {
        let mut addresses = free_addresses(6).unwrap();
        addresses.sort();
        addresses.dedup();
        assert_eq!(addresses.len(), 6);
    }

    #[test]
    fn only_the_end_of_a_log_is_shown() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        fs::write(&log, "1\n2\n3\n4\n5\n6\n").unwrap();
        assert_eq!(last_lines(&log), "2 / 3 / 4 / 5 / 6");
        assert_eq!(last_lines(&directory.path().join("none")), "");
    }
}
