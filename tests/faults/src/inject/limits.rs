//! Members that get less of the machine than they need: memory, processor time, open files.
//!
//! Invariant: what is taken is given back to the process that it was taken from; one that started since never lacked it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand::Rng as _;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::processes::{Lacked, NO_DESCRIPTORS};
use super::{GRACE, Injector, Undo};
use crate::groups::Group;
use crate::record::Injected;
use crate::schedule::Kind;

/// Between what a member has after its start, and what it has after some work.
const MEMORY_MIB: std::ops::Range<u64> = 12..40;
const PROCESSOR_PERCENT: u64 = 5;
/// Files that it may still open.
const DESCRIPTORS_LEFT: u64 = 3;
/// Connections that we open then.
const CONNECTIONS: usize = 16;
const CONNECT_WITHIN: Duration = Duration::from_millis(500);

/// A process that may open hardly anything, and those that want to connect to it.
pub(super) struct Limited {
    process: u32,
    before: Option<u64>,
    connections: Vec<TcpStream>,
}

impl Injector<'_> {
    /// Starts the member again with less memory than it comes to need.
    pub(super) fn starve(&mut self, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        let limit_mib = self.random.random_range(MEMORY_MIB);
        let group = Group::of_memory(limit_mib)?;
        self.kill(member)?;
        self.cluster.wrap(member, group.wrapper());
        self.revive(member)?;
        Ok((0, format!("{limit_mib} MiB of memory"), Undo::Memory(group)))
    }

    /// Moves the running process to a group that gets little of the processor, or nothing.
    pub(super) fn confine(&mut self, kind: Kind, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        let frozen = kind == Kind::Freeze;
        let group = if frozen { Group::of_freezer()? } else { Group::of_processor(PROCESSOR_PERCENT)? };
        let Some(process) = self.cluster.process_id(member) else {
            return Ok((0, "it does not run".to_owned(), Undo::Nothing));
        };
        if self.cluster.ended(member)?.is_some() || group.take(process).is_err() {
            return Ok((0, "it has just ended".to_owned(), Undo::Nothing));
        }
        if frozen {
            group.freeze()?;
            return Ok((1, "the kernel says FROZEN".to_owned(), Undo::Release(group)));
        }
        Ok((0, format!("{PROCESSOR_PERCENT} % of a processor"), Undo::Release(group)))
    }

    /// Lowers how many files the running process may have open, and wants more of it.
    pub(super) fn take_descriptors(&mut self, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        let Some(process) = self.cluster.process_id(member) else {
            return Ok((0, "it does not run".to_owned(), Undo::Nothing));
        };
        let open = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, |files| files.count() as u64);
        let Ok(before) = limit(process, Some(open + DESCRIPTORS_LEFT)) else {
            return Ok((0, "it has just ended".to_owned(), Undo::Nothing));
        };
        let url = &self.cluster.client_urls[member];
        let address: SocketAddr = url.trim_start_matches("http://").parse().context("no address")?;
        // The kernel takes them, whether the member does or not.
        let connect = |_| TcpStream::connect_timeout(&address, CONNECT_WITHIN).ok();
        let connections = (0..CONNECTIONS).map_while(connect).collect();
        let evidence = format!("{open} files open, {DESCRIPTORS_LEFT} more allowed");
        Ok((0, evidence, Undo::Descriptors(Limited { process, before, connections })))
    }

    pub(super) fn give_descriptors(
        &mut self,
        member: usize,
        limited: &Limited,
        record: &mut Injected,
    ) -> Result<()> {
        let listening = self.network.as_ref().context("no namespaces")?.inside(member, &["ss", "-Hltn"])?;
        let waiting = |line: &str| line.split_whitespace().nth(1)?.parse::<u64>().ok();
        record.effect = listening.lines().filter_map(waiting).sum();
        record.evidence += &format!(
            "; of {} connections and others {} were not accepted",
            limited.connections.len(),
            record.effect
        );
        let until = Instant::now() + GRACE;
        self.lacked.insert(member, Lacked { until, says: NO_DESCRIPTORS });
        self.judge_end(member, record)?;
        if self.cluster.process_id(member) == Some(limited.process) {
            limit(limited.process, limited.before)?;
        }
        self.revive(member)
    }
}

/// Sets how many files the process may have open (`None`: any number); how many it was.
fn limit(process: u32, current: Option<u64>) -> Result<Option<u64>> {
    let process = Pid::from_raw(i32::try_from(process)?).context("no process")?;
    // It has that of its parent, which is ours.
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(prlimit(Some(process), Resource::Nofile, Rlimit { current, maximum })?.current)
}
