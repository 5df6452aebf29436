//! Control groups of the kernel, version 1: too little memory or processor time for one member, and members that are frozen.
//!
//! Invariants: a limit meets the member alone; the group is removed with its value, and one that a killed harness left
//! behind is thawed and removed by a later run. This is the one thing that is not in a namespace of the harness.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};

const GROUPS: &str = "/sys/fs/cgroup";
const PREFIX: &str = "binnacle-faults-";
/// No member is frozen so long; one that is belongs to a harness that was killed, and takes no SIGKILL until it is thawed.
const FROZEN_AT_MOST: Duration = Duration::from_secs(60);
/// A group that is empty so long belongs to nobody.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);
const MIB: u64 = 1024 * 1024;
const PERIOD_US: u64 = 100_000;
const FROZEN_WITHIN: Duration = Duration::from_secs(5);

/// Which of the kernel's controllers a group belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    Memory,
    Processor,
    Freezer,
}

impl Controller {
    fn dir(self) -> PathBuf {
        Path::new(GROUPS).join(match self {
            Controller::Memory => "memory",
            Controller::Processor => "cpu",
            Controller::Freezer => "freezer",
        })
    }

    /// The file that a group of it must have.
    fn sign(self) -> &'static str {
        match self {
            Controller::Memory => "memory.limit_in_bytes",
            Controller::Processor => "cpu.cfs_quota_us",
            Controller::Freezer => "freezer.state",
        }
    }

    fn remove_left_behind(self) {
        for entry in fs::read_dir(self.dir()).into_iter().flatten().flatten() {
            let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|at| at.elapsed().ok());
            if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                continue;
            }
            if self == Controller::Freezer && age > Some(FROZEN_AT_MOST) {
                let _thawed = fs::write(entry.path().join("freezer.state"), "THAWED"); // gone meanwhile
            }
            if age > Some(LEFT_BEHIND) {
                let _removed = fs::remove_dir(entry.path()); // refused while a process is in it
            }
        }
    }
}

/// Whether this machine has groups of each controller and lets us make one.
pub fn is_possible() -> bool {
    [Controller::Memory, Controller::Processor, Controller::Freezer].into_iter().all(|controller| {
        controller.remove_left_behind();
        Group::create(controller).is_ok_and(|group| group.dir.join(controller.sign()).exists())
    }) && Group::of_memory(64).is_ok_and(|group| group.kills().is_ok())
}

/// Removed with this, once no process is in it; those that live go back to where the controller's groups begin.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Group {
    fn create(controller: Controller) -> Result<Group> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let dir = controller.dir().join(format!("{PREFIX}{}", now.as_nanos()));
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Group { dir })
    }

    pub fn of_memory(limit_mib: u64) -> Result<Group> {
        let group = Group::create(Controller::Memory)?;
        // Otherwise what does not fit would be written to a swap file.
        group.set("memory.swappiness", "0")?;
        group.set("memory.limit_in_bytes", &(limit_mib * MIB).to_string())?;
        Ok(group)
    }

    /// With this many hundredths of one processor.
    pub fn of_processor(percent: u64) -> Result<Group> {
        let group = Group::create(Controller::Processor)?;
        group.set("cpu.cfs_period_us", &PERIOD_US.to_string())?;
        group.set("cpu.cfs_quota_us", &(PERIOD_US * percent / 100).to_string())?;
        Ok(group)
    }

    /// Holds what runs in it as soon as it is told to [`freeze`](Group::freeze).
    pub fn of_freezer() -> Result<Group> {
        Group::create(Controller::Freezer)
    }

    fn set(&self, name: &str, value: &str) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, value).with_context(|| format!("cannot write {value} to {}", path.display()))
    }

    fn get(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Runs what follows it as a process of the group.
    pub fn wrapper(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.dir.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }

    /// Takes a process that runs, with all its threads.
    pub fn take(&self, process: u32) -> Result<()> {
        self.set("cgroup.procs", &process.to_string())
    }

    /// How often the kernel has killed a process of the group.
    pub fn kills(&self) -> Result<u64> {
        number_after(&self.get("memory.oom_control")?, "oom_kill ")
    }

    /// In how many periods the group was denied the processor.
    pub fn denials(&self) -> Result<u64> {
        number_after(&self.get("cpu.stat")?, "nr_throttled ")
    }

    /// Ends when the kernel says that all of it stands still.
    pub fn freeze(&self) -> Result<()> {
        self.set("freezer.state", "FROZEN")?;
        let deadline = Instant::now() + FROZEN_WITHIN;
        while self.get("freezer.state")?.trim() != "FROZEN" {
            if Instant::now() > deadline {
                bail!("not frozen within {FROZEN_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }
}

fn number_after(said: &str, name: &str) -> Result<u64> {
    let number = said.lines().find_map(|line| line.strip_prefix(name));
    number
        .and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("the kernel does not say {name}"))
}

impl Drop for Group {
    fn drop(&mut self) {
        let _thawed = fs::write(self.dir.join("freezer.state"), "THAWED"); // only a freezer has it
        // A process that was killed leaves after a moment.
        for _ in 0..100 {
            for process in fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default().lines() {
                // Refused for one that has just ended.
                let _moved = self.dir.parent().map(|parent| fs::write(parent.join("cgroup.procs"), process));
            }
            if fs::remove_dir(&self.dir).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
