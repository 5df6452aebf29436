//! The harness in namespaces of its own: processes, mounts and network.
//!
//! Invariant: everything that a run makes (members, tracers, links, rules, mounts, loop devices) ends with the one process
//! tree, whether it ends by itself, by a panic, by Ctrl-C or by SIGKILL; nothing of it is visible outside. The exception
//! are control groups (`groups`). Without root or the tools, the harness says so and goes on with what it can do.

use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::delay;
use crate::disk;
use crate::groups;
use crate::inject::can_fake_time;
use crate::schedule::Means;

/// Set for the harness inside its namespaces.
const INSIDE: &str = "FAULTS_INSIDE_NAMESPACES";
const UNSHARE: [&str; 6] = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"];

fn runs(command: &[&str]) -> bool {
    Command::new(command[0]).args(&command[1..]).output().is_ok_and(|output| output.status.success())
}

fn present(tool: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).exists())
}

/// Runs this program again inside new namespaces and gives its status. `None`: this is the program that shall go on,
/// either inside or on a machine that does not allow it.
pub fn enter() -> Result<Option<ExitCode>> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: only faults of processes");
        return Ok(None);
    }
    let missing: Vec<&str> = ["ip", "iptables", "tc", "ss", "unshare", "nsenter", "setpriv"]
        .into_iter()
        .filter(|tool| !present(tool))
        .collect();
    if !missing.is_empty() {
        eprintln!("{missing:?} not installed: only faults of processes");
        return Ok(None);
    }
    if !runs(&[&["unshare"], &UNSHARE[..], &["ip", "link", "add", "br0", "type", "bridge"]].concat()) {
        eprintln!("this machine allows no namespaces: only faults of processes");
        return Ok(None);
    }
    let program = std::env::current_exe().context("cannot find this program")?;
    // If this process is killed, so is `unshare`, and with it all that it has started.
    let mut inside = Command::new("setpriv");
    inside.args(["--pdeathsig", "KILL", "unshare"]).args(UNSHARE).arg(program);
    inside.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    // One thread, this one: it is its end that kills `unshare`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(wait_for(inside))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Some(ExitCode::from(code)))
}

/// Hands signals that ask for an end on to the program inside, which thaws what it has frozen before it ends. `unshare`
/// ignores them while it waits.
async fn wait_for(inside: Command) -> Result<ExitStatus> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut unshare = tokio::process::Command::from(inside).spawn().context("cannot run setpriv")?;
    loop {
        tokio::select! {
            status = unshare.wait() => return Ok(status?),
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
        let process = unshare.id().unwrap_or_default();
        let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        let child = children.unwrap_or_default().trim().parse().ok().and_then(Pid::from_raw);
        match child {
            // Refused if it has just ended.
            Some(child) => drop(kill_process(child, Signal::TERM)),
            None => unshare.start_kill()?,
        }
    }
}

/// Whether an image can be made and mounted, which it stays for a moment only.
fn can_mount() -> bool {
    let Ok(dir) = tempfile::tempdir() else { return false };
    let image = dir.path().join("image").display().to_string();
    let home = dir.path().display().to_string();
    runs(&["truncate", "-s", "16M", &image])
        && runs(&["mkfs.ext4", "-q", "-F", &image])
        && runs(&["mount", "-o", "loop", &image, &home])
        && runs(&["umount", &home])
}

/// Whether the harness's own namespace takes such a rule, on a chain that nothing goes through.
fn takes_rule(target: &[&str]) -> bool {
    let iptables = ["iptables", "-w", "-t", "mangle"];
    let rule = [&iptables[..], &["-A", "PROBE", "-j"], target].concat();
    runs(&[&iptables[..], &["-N", "PROBE"]].concat())
        && runs(&rule)
        && runs(&[&iptables[..], &["-F", "PROBE"]].concat())
        && runs(&[&iptables[..], &["-X", "PROBE"]].concat())
}

/// What this machine allows; what it does not is named on standard error.
pub fn means() -> Vec<Means> {
    let mut means = vec![Means::Processes];
    if std::env::var_os(INSIDE).is_none() {
        return means;
    }
    means.push(Means::Namespaces);
    let mut offer = |allowed: bool, offered: Means, without: &str| match allowed {
        true => means.push(offered),
        false => eprintln!("{without}"),
    };
    offer(
        delay::is_possible() && takes_rule(&["NFQUEUE", "--queue-num", "1", "--queue-bypass"]),
        Means::PacketQueues,
        "no packet queues for user space: no delay or reordering of packets",
    );
    offer(
        takes_rule(&["TEE", "--gateway", "127.0.0.1"]),
        Means::PacketCopies,
        "iptables cannot copy packets: none is sent twice",
    );
    let disks = present("fallocate") && runs(&["python3", "-c", "import fcntl"]) && can_mount();
    offer(disks, Means::Disks, "fallocate, python3, mkfs.ext4 or loop devices missing: no faults of disks");
    offer(
        disks && disk::can_copy(),
        Means::DiskCopies,
        "no disks, or none that can be copied (mkfs.xfs with reflink, cp --reflink): no crash images",
    );
    offer(
        runs(&["strace", "-qq", "-o", "/dev/null", "true"]),
        Means::Strace,
        "strace not installed or not allowed: no failing calls on files",
    );
    offer(can_fake_time(), Means::Faketime, "libfaketime not installed: no jumps or drift of clocks");
    offer(
        runs(&["unshare", "--time", "--monotonic", "1000", "true"]),
        Means::TimeNamespaces,
        "no time namespaces: no offset of clocks",
    );
    offer(
        groups::is_possible(),
        Means::ControlGroups,
        "no control groups of version 1 for memory, cpu and freezer: no member lacks memory or processor, or is frozen",
    );
    means
}
