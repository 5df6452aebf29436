//! Three `binnacle store` processes that can be killed, started again, paused and continued.
//!
//! Invariants: members listen on loopback only, on free ports that stay theirs over restarts; dropping the cluster kills
//! the processes and removes their data, unless it is kept for a look at a violation.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use wire::etcdserverpb as pb;
use wire::{Client, Transport};

pub const MEMBERS: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);

/// A client of the one member that listens on `port`.
pub fn client(port: u16) -> Result<Client> {
    let endpoint = format!("http://127.0.0.1:{port}");
    Ok(Client::new(Transport::connect(&[endpoint], None, CONNECT_TIMEOUT)?))
}

pub struct Cluster {
    binary: PathBuf,
    dir: PathBuf,
    ports: Vec<u16>,
    processes: Vec<Option<Child>>,
}

impl Cluster {
    /// Starts members with empty directories below `dir` and waits until each answers a linearizable read.
    pub async fn start(dir: &Path) -> Result<Cluster> {
        let mut cluster = Cluster {
            binary: harness::binary()?,
            dir: dir.to_owned(),
            ports: harness::free_ports(2 * MEMBERS)?,
            processes: (0..MEMBERS).map(|_| None).collect(),
        };
        for member in 0..MEMBERS {
            cluster.start_member(member)?;
        }
        cluster.ready(Duration::from_secs(60)).await?;
        Ok(cluster)
    }

    fn start_member(&mut self, member: usize) -> Result<()> {
        let peer = |member: usize| format!("http://127.0.0.1:{}", self.ports[MEMBERS + member]);
        let client = format!("http://127.0.0.1:{}", self.ports[member]);
        let initial: Vec<String> = (0..MEMBERS).map(|member| format!("m{member}={}", peer(member))).collect();
        let log = File::options().create(true).append(true).open(self.log(member))?;
        let child = Command::new(&self.binary)
            .arg("store")
            .arg(format!("--name=m{member}"))
            .arg(format!("--data-dir={}", self.dir.join(format!("m{member}")).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={}", peer(member)))
            .arg(format!("--initial-advertise-peer-urls={}", peer(member)))
            .arg(format!("--initial-cluster={}", initial.join(",")))
            .arg("--initial-cluster-state=new")
            .arg("--initial-cluster-token=faults")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        self.processes[member] = Some(child);
        Ok(())
    }

    pub fn log(&self, member: usize) -> PathBuf {
        self.dir.join(format!("m{member}.log"))
    }

    /// A client of one member only.
    pub fn client(&self, member: usize) -> Result<Client> {
        client(self.ports[member])
    }

    pub fn client_port(&self, member: usize) -> u16 {
        self.ports[member]
    }

    /// Who leads, as any member that answers within half a second says.
    pub async fn leader(&self) -> Option<usize> {
        for member in 0..MEMBERS {
            let Ok(mut client) = self.client(member) else { continue };
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

    /// `kill -9`. `false` if it did not run.
    pub fn kill(&mut self, member: usize) -> Result<bool> {
        let Some(mut child) = self.processes[member].take() else { return Ok(false) };
        if let Some(status) = child.try_wait()? {
            bail!("member {member} had ended by itself ({status}), see {}", self.log(member).display());
        }
        child.kill()?;
        child.wait()?;
        Ok(true)
    }

    /// Starts a member again that was killed.
    pub fn revive(&mut self, member: usize) -> Result<()> {
        match self.processes[member] {
            Some(_) => Ok(()),
            None => self.start_member(member),
        }
    }

    /// `false` if it does not run.
    pub fn pause(&self, member: usize) -> Result<bool> {
        self.signal(member, Signal::STOP)
    }

    pub fn resume(&self, member: usize) -> Result<bool> {
        self.signal(member, Signal::CONT)
    }

    fn signal(&self, member: usize, signal: Signal) -> Result<bool> {
        let Some(child) = &self.processes[member] else { return Ok(false) };
        kill_process(Pid::from_child(child), signal)?;
        Ok(true)
    }

    /// Waits until every member answers a linearizable read. A member that has ended by itself is an error.
    pub async fn ready(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for member in 0..MEMBERS {
            let mut client = self.client(member)?;
            loop {
                if let Some(child) = &mut self.processes[member]
                    && let Some(status) = child.try_wait()?
                {
                    bail!("member {member} ended by itself ({status}), see {}", self.log(member).display());
                }
                let read = client.kv.range(pb::RangeRequest { key: "ready".into(), ..Default::default() });
                if let Ok(Ok(_)) = tokio::time::timeout(Duration::from_secs(2), read).await {
                    break;
                }
                if Instant::now() > deadline {
                    bail!(
                        "member {member} does not answer within {within:?}, see {}",
                        self.log(member).display()
                    );
                }
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Hash of all keys and versions at the member's current revision, with that revision.
    pub async fn state_hash(&self, member: usize) -> Result<(i64, u32)> {
        let mut client = self.client(member)?;
        let answer = client.maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await?.into_inner();
        Ok((answer.header.map_or(0, |header| header.revision), answer.hash))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            // Both fail only for a process that has ended already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
