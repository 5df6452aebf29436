//! The three-member local cluster: starts one process per member, watches over them, stops them together.
//!
//! Invariants: a member's standard input is a pipe held by this process, so no member outlives it, not even after
//! `kill -9`. A member that ends by itself is started again after a pause that is long enough to see the rest carry on.
//! A first start that fails is reported with the member's own words and ends the whole command.
//! Not here: what a member runs (member.rs).

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

use crate::cli::{API_PORTS, LocalCluster, PEER_PORTS, STORE_PORTS};
use crate::member::{self, READY_PREFIX};
use crate::pki::Pki;
use crate::signals;

/// How long a member may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a member may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

struct Plan {
    name: String,
    dir: PathBuf,
    api: SocketAddr,
    store: SocketAddr,
    peer: SocketAddr,
}

/// Runs until a signal arrives.
pub(crate) async fn run(options: LocalCluster) -> Result<()> {
    let started = Instant::now();
    let plans = plans(&options)?;
    let pki_dir = options.dir.join("pki");
    let pki = Pki::open_or_create(&pki_dir)?;
    let admin = member::issue_admin(&pki)?;
    let kubeconfig = options.dir.join("admin.kubeconfig");
    let servers: Vec<(&str, String)> =
        plans.iter().map(|plan| (plan.name.as_str(), format!("https://{}", plan.api))).collect();
    member::write_kubeconfig(&kubeconfig, &servers, &pki, &admin)?;

    let launcher = Launcher {
        program: std::env::current_exe().context("cannot find the running program")?,
        pki_dir,
        initial_cluster: plans
            .iter()
            .map(|plan| format!("{}=http://{}", plan.name, plan.peer))
            .collect::<Vec<_>>()
            .join(","),
        nodes: options.nodes,
    };
    let mut signals = signals::Stop::install()?;
    let mut members = launcher.start_all(&plans).await?;
    print_overview(&plans, &members, &kubeconfig, started.elapsed());

    let mut ended = JoinSet::new();
    for (position, child) in members.drain(..).enumerate() {
        let stop = signals.token();
        ended.spawn(async move { (position, until_ended(child, stop).await) });
    }
    loop {
        tokio::select! {
            () = signals.wait() => break,
            Some(finished) = ended.join_next() => {
                let (position, status) = finished.context("watching a member failed")?;
                let plan = plans.get(position).ok_or_else(|| anyhow!("no member {position}"))?;
                report_end(plan, &status, options.restart_after_s);
                if options.restart_after_s == 0 { continue; }
                let pause = Duration::from_secs(options.restart_after_s);
                tokio::select! { () = signals.wait() => break, () = tokio::time::sleep(pause) => {} }
                match launcher.start(plan).await {
                    Ok(child) => {
                        say(&format!("{} is back, process {}", plan.name, child.id().unwrap_or_default()));
                        let stop = signals.token();
                        ended.spawn(async move { (position, until_ended(child, stop).await) });
                    }
                    Err(error) => {
                        say(&format!("{error:#}"));
                        let status = Err(std::io::Error::other("did not start"));
                        ended.spawn(async move { (position, status) });
                    }
                }
            }
        }
    }
    say("stopping all members");
    while ended.join_next().await.is_some() {}
    Ok(())
}

fn plans(options: &LocalCluster) -> Result<Vec<Plan>> {
    let ports = |given: &[u16], defaults| options.ports(given, defaults).map_err(|text| anyhow!(text));
    let api = ports(&options.api_ports, API_PORTS)?;
    let store = ports(&options.store_ports, STORE_PORTS)?;
    let peer = ports(&options.peer_ports, PEER_PORTS)?;
    let local = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    Ok((0..usize::from(options.members))
        .map(|position| {
            let name = format!("m{}", position + 1);
            Plan {
                dir: options.dir.join(&name),
                api: local(api[position]),
                store: local(store[position]),
                peer: local(peer[position]),
                name,
            }
        })
        .collect())
}

struct Launcher {
    program: PathBuf,
    pki_dir: PathBuf,
    initial_cluster: String,
    nodes: u16,
}

impl Launcher {
    /// Starts all members at once, because none is ready before a majority is there.
    async fn start_all(&self, plans: &[Plan]) -> Result<Vec<Child>> {
        let starting = plans.iter().map(|plan| self.start(plan));
        futures_util::future::try_join_all(starting).await
    }

    /// Starts one member and waits until it is ready.
    async fn start(&self, plan: &Plan) -> Result<Child> {
        fs::create_dir_all(&plan.dir).with_context(|| format!("cannot create {}", plan.dir.display()))?;
        let log_path = plan.dir.join("log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log_path)
            .with_context(|| format!("cannot write {}", log_path.display()))?;
        let mut child = Command::new(&self.program)
            .arg("member")
            .args(["--name", &plan.name])
            .arg("--dir")
            .arg(&plan.dir)
            .arg("--pki")
            .arg(&self.pki_dir)
            .args(["--api", &plan.api.to_string()])
            .args(["--store", &plan.store.to_string()])
            .args(["--peer", &plan.peer.to_string()])
            .args(["--initial-cluster", &self.initial_cluster])
            .args(["--nodes", &self.nodes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0) // Ctrl-C reaches this process only, which then stops the members in order
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start member {}", plan.name))?;
        let stdout = child.stdout.take().context("the member has no standard output")?;
        match tokio::time::timeout(READY_TIMEOUT, ready(stdout)).await {
            Ok(true) => Ok(child),
            Ok(false) => {
                let status = child.wait().await?;
                bail!("member {} ended at start ({status}): {}", plan.name, last_error(&log_path))
            }
            Err(_) => {
                bail!("member {} is not ready after {READY_TIMEOUT:?}; see {}", plan.name, log_path.display())
            }
        }
    }
}

/// Reads up to the line that says so; false if the member closed its output before.
async fn ready(stdout: tokio::process::ChildStdout) -> bool {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if line.starts_with(READY_PREFIX) {
            return true;
        }
    }
    false
}

/// The last line of the log that is not JSON: what the member said before it ended.
fn last_error(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let line = text.lines().rev().find(|line| line.starts_with("binnacle: "));
    line.map_or_else(
        || format!("see {}", log.display()),
        |line| line.trim_start_matches("binnacle: ").to_owned(),
    )
}

/// Waits for the end of the member; on `stop` asks it to end, and kills it if it takes too long.
async fn until_ended(
    mut child: Child,
    stop: tokio_util::sync::CancellationToken,
) -> std::io::Result<ExitStatus> {
    let parent_pipe = child.stdin.take(); // `wait` would close it
    tokio::select! {
        status = child.wait() => return status,
        () = stop.cancelled() => {}
    }
    drop(parent_pipe); // the member ends in order when this pipe closes
    match tokio::time::timeout(STOP_TIMEOUT, child.wait()).await {
        Ok(status) => status,
        Err(_) => {
            child.start_kill()?;
            child.wait().await
        }
    }
}

fn report_end(plan: &Plan, status: &std::io::Result<ExitStatus>, restart_after_s: u64) {
    let how = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let next = match restart_after_s {
        0 => "it stays down".to_owned(),
        seconds => format!("starting it again in {seconds} s"),
    };
    say(&format!("{} ended ({how}); {next}", plan.name));
}

fn print_overview(plans: &[Plan], members: &[Child], kubeconfig: &Path, elapsed: Duration) {
    say(&format!("binnacle: {} members ready in {} ms", plans.len(), elapsed.as_millis()));
    say(&format!("  {:<8}{:<10}{:<27}{:<24}peers", "member", "process", "API", "store"));
    for (plan, child) in plans.iter().zip(members) {
        let process = child.id().map(|id| id.to_string()).unwrap_or_default();
        say(&format!(
            "  {:<8}{process:<10}https://{:<19}http://{:<17}{}",
            plan.name, plan.api, plan.store, plan.peer
        ));
    }
    let stores: Vec<String> = plans.iter().map(|plan| plan.store.to_string()).collect();
    let first = members.first().and_then(Child::id).unwrap_or_default();
    say("");
    say(&format!("  kubectl --kubeconfig {} get nodes        # --context m1, m2, ...", kubeconfig.display()));
    say(&format!("  etcdctl --endpoints {} endpoint status -w table", stores.join(",")));
    say(&format!("  kill -9 {first}        # {}: the others carry on", plans[0].name));
    say("  Ctrl-C stops all members");
}

/// Prints for the person at the terminal.
#[expect(clippy::print_stdout, reason = "the command's answer")]
fn say(text: &str) {
    println!("{text}");
}
