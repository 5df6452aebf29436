//! A local cluster of real processes, started by the command that users start.
//!
//! Invariants: process ids come from what the command printed; `kill` is SIGKILL, with no chance to tidy up. Dropping the
//! handle ends the command, and with it every member.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// A running `binnacle local-cluster`.
pub struct LocalCluster {
    command: Child,
    lines: Receiver<String>,
    pub dir: PathBuf,
    pub members: Vec<Member>,
}

/// One member, as the command announced it.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub process_id: i32,
    /// `https://127.0.0.1:PORT`
    pub api_url: String,
    /// `http://127.0.0.1:PORT`
    pub store_url: String,
}

impl LocalCluster {
    /// Starts three members in `dir`, on free ports unless `ports` names them, and waits until all are ready.
    pub fn start(dir: &Path, restart_after_s: u64, arguments: &[&str]) -> Result<LocalCluster> {
        let ports = crate::free_ports(9)?;
        LocalCluster::start_on(dir, &ports, restart_after_s, arguments)
    }

    /// Starts three members on nine given ports (three each for API, store and peers).
    pub fn start_on(
        dir: &Path,
        ports: &[u16],
        restart_after_s: u64,
        arguments: &[&str],
    ) -> Result<LocalCluster> {
        let mut command = Command::new(crate::binary()?)
            .arg("local-cluster")
            .arg("--dir")
            .arg(dir)
            .args(["--api-ports", &list(&ports[0..3])])
            .args(["--store-ports", &list(&ports[3..6])])
            .args(["--peer-ports", &list(&ports[6..9])])
            .args(["--restart-after-s", &restart_after_s.to_string()])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .context("cannot start the local cluster")?;
        let stdout = command.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut cluster = LocalCluster { command, lines, dir: dir.to_owned(), members: Vec::new() };
        cluster.wait_for_line("Ctrl-C stops", Duration::from_secs(90))?;
        if cluster.members.len() != 3 {
            bail!("the command announced {} members", cluster.members.len());
        }
        Ok(cluster)
    }

    /// Kills a member with SIGKILL.
    pub fn kill(&self, position: usize) -> Result<()> {
        let member = self.members.get(position).context("no such member")?;
        let process = Pid::from_raw(member.process_id).context("the process id is zero")?;
        kill_process(process, Signal::KILL).with_context(|| format!("cannot kill {}", member.name))
    }

    /// Waits until the command says that a killed member is back, and learns its new process id.
    pub fn wait_for_return(&mut self, position: usize, timeout: Duration) -> Result<()> {
        let text = format!("{} is back", self.members.get(position).context("no such member")?.name);
        let line = self.wait_for_line(&text, timeout)?;
        let process_id = line.rsplit(' ').next().and_then(|id| id.parse().ok());
        self.members[position].process_id = process_id.context("no process id in the line")?;
        Ok(())
    }

    fn wait_for_line(&mut self, text: &str, timeout: Duration) -> Result<String> {
        let deadline = Instant::now() + timeout;
        let mut seen = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                bail!("no line with {text:?} within {timeout:?}; the command said:\n{seen}");
            };
            let _infallible = writeln!(seen, "{line}");
            if let Some(member) = announced(&line) {
                self.members.push(member);
            }
            if line.contains(text) {
                return Ok(line);
            }
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        let process = i32::try_from(self.command.id()).ok().and_then(Pid::from_raw);
        let asked = process.is_some_and(|process| kill_process(process, Signal::TERM).is_ok());
        let deadline = Instant::now() + Duration::from_secs(20);
        while asked && Instant::now() < deadline {
            match self.command.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(50)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        drop(self.command.kill());
        drop(self.command.wait());
    }
}

/// `  m1  4711  https://127.0.0.1:6443  http://127.0.0.1:2379  127.0.0.1:2380`
fn announced(line: &str) -> Option<Member> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        [name, process, api, store, _peers] if api.starts_with("https://") => Some(Member {
            name: (*name).to_owned(),
            process_id: process.parse().ok()?,
            api_url: (*api).to_owned(),
            store_url: (*store).to_owned(),
        }),
        _ => None,
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}
