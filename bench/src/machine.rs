//! What Linux says of this machine and of a process: model, kernel, file system, CPU time, peak memory.
//!
//! Invariant: everything is read from /proc, so a figure that cannot be read is an error or the word "unknown", never
//! a guess. Not here: when the readings are taken (load.rs, store.rs).

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;

/// Ticks per second of the CPU times in /proc. Source: proc(5); the kernel shows 100 to programs on every port of
/// Linux that Rust's tier-1 targets have (`USER_HZ`).
const TICKS_PER_S: u64 = 100;

pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) memory_mib: u64,
    pub(crate) kernel: String,
    pub(crate) filesystem: String,
    pub(crate) load_average: String,
    pub(crate) commit: String,
}

impl Machine {
    pub(crate) fn read(data: &Path) -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        Machine {
            processor: field(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: kib(&meminfo, "MemTotal").unwrap_or(0) / 1024,
            kernel: first_line("/proc/sys/kernel/osrelease"),
            filesystem: filesystem(&mounts, data).unwrap_or("unknown").to_owned(),
            load_average: load_average(),
            commit: commit(),
        }
    }
}

/// Over 1, 5 and 15 minutes.
pub(crate) fn load_average() -> String {
    first_line("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// User and system time of the process so far, all its threads.
pub(crate) fn cpu_time(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has no CPU times"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_S))
}

/// The most memory that the process ever had resident.
pub(crate) fn memory_peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let peak_kib = kib(&status, "VmHWM").with_context(|| format!("{path} has no VmHWM"))?;
    Ok(peak_kib * 1024)
}

/// Fields 14 and 15 of /proc/PID/stat; the name in field 2 may hold blanks and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field<'text>(text: &'text str, name: &str) -> Option<&'text str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.strip_suffix("kB")?.trim().parse().ok()
}

/// The type of the file system of the longest mount point that holds `path`; a later mount hides an earlier one.
fn filesystem<'text>(mounts: &'text str, path: &Path) -> Option<&'text str> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?))
        })
        .filter(|(mount_point, _)| path.starts_with(mount_point))
        .max_by_key(|(mount_point, _)| mount_point.len())
        .map(|(_, kind)| kind)
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

/// Of the work tree that this runs in, with `-dirty` if it has changes.
fn commit() -> String {
    let described =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]).output();
    match described {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_ticks_are_found_behind_any_process_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 9 0 0 0 700 55 1 2 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(755));
        assert_eq!(cpu_ticks("42 (cut) S 1 2"), None);
    }

    #[test]
    fn the_filesystem_is_that_of_the_nearest_mount() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n/dev/b /data xfs rw 0 0\n";
        for (path, kind) in
            [("/", "ext4"), ("/run/x", "tmpfs"), ("/data/bench", "xfs"), ("/database", "ext4")]
        {
            assert_eq!(filesystem(mounts, Path::new(path)), Some(kind), "{path}");
        }
    }

    #[test]
    fn sizes_are_read_from_their_own_line() {
        assert_eq!(kib("VmPeak:\t 9 kB\nVmHWM:\t  123 kB\n", "VmHWM"), Some(123));
        assert_eq!(kib("VmPeak:\t 9 kB\n", "VmHWM"), None);
    }

    #[test]
    fn this_process_has_used_memory() {
        assert!(memory_peak_bytes(std::process::id()).unwrap() > 100_000);
        cpu_time(std::process::id()).unwrap();
    }
}
