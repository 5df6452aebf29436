//! Too little memory for one member, in a control group of the kernel, which kills the process that needs more.
//!
//! Invariants: the limit meets the member alone; the group is removed with its value, and one that a killed harness left
//! behind is empty and removed by a later run. This is the one thing that is not in a namespace of the harness.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};

const GROUPS: &str = "/sys/fs/cgroup/memory";
const PREFIX: &str = "binnacle-faults-";
/// A group that is empty so long belongs to nobody.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);
const MIB: u64 = 1024 * 1024;

/// Whether this machine has such groups and lets us make one.
pub fn is_possible() -> bool {
    remove_left_behind();
    Path::new(GROUPS).join("memory.limit_in_bytes").exists()
        && Group::create(64).is_ok_and(|group| group.kills().is_ok())
}

fn remove_left_behind() {
    for entry in fs::read_dir(GROUPS).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && age > Some(LEFT_BEHIND) {
            let _removed = fs::remove_dir(entry.path()); // refused while a process is in it
        }
    }
}

/// Removed with this, once no process is in it.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    pub fn create(limit_mib: u64) -> Result<Group> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let dir = Path::new(GROUPS).join(format!("{PREFIX}{}", now.as_nanos()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let group = Group { dir };
        // Otherwise what does not fit would be written to a swap file.
        fs::write(group.dir.join("memory.swappiness"), "0")?;
        fs::write(group.dir.join("memory.limit_in_bytes"), (limit_mib * MIB).to_string())?;
        Ok(group)
    }

    /// Runs what follows it as a process of the group.
    pub fn wrapper(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.dir.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }

    /// How often the kernel has killed a process of the group.
    pub fn kills(&self) -> Result<u64> {
        let said = fs::read_to_string(self.dir.join("memory.oom_control"))?;
        let count = said.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.parse().ok()).context("the kernel does not count what it kills")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that was killed leaves after a moment.
        for _ in 0..100 {
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
