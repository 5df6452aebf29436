//! Faults of disks that a member meets in its system calls: a tracer makes its reads, writes and fdatasync
//! fail, wait, or be its last.
//!
//! Invariant: the tracer writes what it did, and that is what counts. Not here: what is done to the disks themselves
//! (crate::disk).

use std::path::Path;

use anyhow::Result;
use rand::Rng as _;

use super::{Injector, Undo};
use crate::schedule::Kind;

impl Injector<'_> {
    /// Starts the member again below a tracer that makes a call on a file fail.
    pub(super) fn trace(&mut self, kind: Kind, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        let calls = self.random.random_range(2..15);
        let (inject, said) = match kind {
            Kind::SyncError => (format!("fdatasync:error=EIO:when={calls}"), "INJECTED"),
            // Only files are read and written at a position.
            Kind::ReadError => (format!("pread64:error=EIO:when={calls}"), "INJECTED"),
            Kind::WriteError => (format!("pwrite64:error=ENOSPC:when={calls}"), "INJECTED"),
            Kind::SlowSync => ("fdatasync:delay_enter=300000:when=2+2".to_owned(), "DELAYED"),
            _ => (format!("fdatasync:signal=SIGKILL:when={calls}"), "killed by SIGKILL"),
        };
        let output = self.cluster.dir.path().join(format!("trace-{}", self.shared.now_ns()));
        self.kill(member)?;
        let call = inject.split(':').next().unwrap_or_default();
        self.cluster.wrap(member, tracer(&output, call, &inject));
        if kind != Kind::SlowSync {
            self.traced.insert(member);
        }
        self.revive(member)?;
        Ok((0, inject, Undo::Untrace(output, said)))
    }
}

/// A tracer that is no parent of what it traces, so that the member keeps its place in the process table.
pub fn tracer(output: &Path, calls: &str, inject: &str) -> Vec<String> {
    let output = output.display().to_string();
    let (trace, inject) = (format!("trace={calls}"), format!("inject={inject}"));
    ["strace", "-D", "-f", "--seccomp-bpf", "-qq", "-o", &output, "-e", &trace, "-e", &inject]
        .map(str::to_owned)
        .to_vec()
}
