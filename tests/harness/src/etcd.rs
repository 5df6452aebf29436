//! Members of an etcd cluster as real processes, ours or a foreign etcd with the same flags, that can be killed, started
//! again, paused and continued.
//!
//! Invariants: members listen on loopback only, on free ports that stay theirs over restarts; data lies in a temporary
//! directory that goes with the handle unless it is kept; dropping the handle ends every member that it started and
//! waits for it. Not here: when a cluster is ready (whoever speaks its protocol asks it).

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Members by number, from 0; their names are `m1`, `m2`, ...
pub struct EtcdCluster {
    members: Vec<Member>,
    /// `http://127.0.0.1:PORT`, one per member; `https` when `tls` was given.
    pub client_urls: Vec<String>,
    pub dir: TempDir,
}

struct Member {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    /// `None` while it is killed.
    process: Option<Child>,
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
        let program = program.map_or_else(crate::binary, |program| Ok(program.to_owned()))?;
        let client_urls: Vec<String> =
            client_ports.iter().map(|port| format!("{scheme}://127.0.0.1:{port}")).collect();
        let member = |number: usize| {
            let name = &names[number];
            let data = dir.path().join(name);
            let mut arguments = vec![
                format!("--name={name}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={}", client_urls[number]),
                format!("--advertise-client-urls={}", client_urls[number]),
                format!("--listen-peer-urls={}", peers[number]),
                format!("--initial-advertise-peer-urls={}", peers[number]),
                format!("--initial-cluster={}", initial.join(",")),
                "--initial-cluster-state=new".to_owned(),
                "--initial-cluster-token=tests".to_owned(),
            ];
            if let Some(tls) = tls {
                arguments.push(format!("--cert-file={}", tls.certificate.display()));
                arguments.push(format!("--key-file={}", tls.key.display()));
                if let Some(authority) = tls.client_authority {
                    arguments.push("--client-cert-auth".to_owned());
                    arguments.push(format!("--trusted-ca-file={}", authority.display()));
                }
            }
            arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
            let log = dir.path().join(format!("{name}.log"));
            Member { program: program.clone(), arguments, log, process: None }
        };
        let members = (0..size).map(member).collect();
        let mut cluster = EtcdCluster { members, client_urls, dir };
        for number in 0..size {
            cluster.revive(number)?;
        }
        Ok(cluster)
    }

    pub fn size(&self) -> usize {
        self.members.len()
    }

    pub fn log(&self, number: usize) -> &Path {
        &self.members[number].log
    }

    /// `kill -9`. `false` if it did not run; an error if it had ended by itself.
    pub fn kill(&mut self, number: usize) -> Result<bool> {
        self.alive(number)?;
        let Some(mut process) = self.members[number].process.take() else { return Ok(false) };
        process.kill()?;
        process.wait()?;
        Ok(true)
    }

    /// Starts a member again that was killed; one that runs stays as it is.
    pub fn revive(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        if member.process.is_some() {
            return Ok(());
        }
        let log = File::options().create(true).append(true).open(&member.log)?;
        let process = Command::new(&member.program)
            .arg0("etcd") // ours is etcd under that name
            .args(&member.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", member.program.display()))?;
        member.process = Some(process);
        Ok(())
    }

    /// `false` if it does not run.
    pub fn pause(&self, number: usize) -> Result<bool> {
        self.signal(number, Signal::STOP)
    }

    /// `false` if it does not run.
    pub fn resume(&self, number: usize) -> Result<bool> {
        self.signal(number, Signal::CONT)
    }

    fn signal(&self, number: usize, signal: Signal) -> Result<bool> {
        let Some(process) = &self.members[number].process else { return Ok(false) };
        kill_process(Pid::from_child(process), signal)?;
        Ok(true)
    }

    /// An error if the member has ended by itself.
    pub fn alive(&mut self, number: usize) -> Result<()> {
        let member = &mut self.members[number];
        if let Some(process) = &mut member.process
            && let Some(status) = process.try_wait()?
        {
            bail!("m{} ended by itself ({status}), see {}", number + 1, member.log.display());
        }
        Ok(())
    }

    /// The last lines that each member wrote, to be shown when a test fails.
    pub fn log_ends(&self) -> String {
        let end = |member: &Member| {
            let text = std::fs::read_to_string(&member.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("{}:\n{}\n", member.log.display(), lines[lines.len().saturating_sub(15)..].join("\n"))
        };
        self.members.iter().map(end).collect()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        // Both fail only for a process that has ended already, which is what is wanted.
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            drop(process.kill());
            drop(process.wait());
        }
    }
}
