//! What Linux tells about this process, under the names of Prometheus' libraries; other systems have no such lines.

use std::{fs, time::Duration};

use super::text::Page;

/// Times in `/proc` count these. Linux gives programs the same number on every machine.
const TICKS_PER_S: f64 = 100.0;

pub(super) fn write(page: &mut Page) {
    memory(page);
    files(page);
    times(page);
    network(page);
}

/// The rest of the line that begins with `name`.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn memory(page: &mut Page) {
    let Ok(text) = fs::read_to_string("/proc/self/status") else { return };
    let size_bytes = |name: &str| -> Option<u64> {
        let kilobytes: u64 = line(&text, name)?.strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    };
    if let Some(resident) = size_bytes("VmRSS:") {
        page.gauge("process_resident_memory_bytes", "Resident memory.", resident);
    }
    if let Some(size) = size_bytes("VmSize:") {
        page.gauge("process_virtual_memory_bytes", "Virtual memory.", size);
    }
}

fn files(page: &mut Page) {
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        let count = files.count();
        page.gauge("process_open_fds", "Open files.", count);
        page.gauge("os_fd_used", "Open files.", count);
    }
    let Ok(limits) = fs::read_to_string("/proc/self/limits") else { return };
    if let Some(count) = limit(&limits, "Max open files") {
        page.gauge("process_max_fds", "Files that may be open.", count);
        page.gauge("os_fd_limit", "Files that may be open.", count);
    }
    if let Some(size_bytes) = limit(&limits, "Max address space") {
        page.gauge("process_virtual_memory_max_bytes", "Virtual memory that may be used.", size_bytes);
    }
}

/// The soft limit; the greatest number if there is none.
fn limit(limits: &str, name: &str) -> Option<u64> {
    match line(limits, name)?.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn times(page: &mut Page) {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    let Ok(system) = fs::read_to_string("/proc/stat") else { return };
    let boot_s = line(&system, "btime").and_then(|number| number.parse().ok());
    if let Some(Times { used_s, started_s }) = parse(&stat) {
        page.counter("process_cpu_seconds_total", "Processor time.", used_s);
        if let Some(boot_s) = boot_s.map(Duration::from_secs) {
            let help = "Start of the process, in seconds since 1970.";
            page.gauge("process_start_time_seconds", help, boot_s.as_secs_f64() + started_s);
        }
    }
}

#[derive(Debug, PartialEq)]
struct Times {
    used_s: f64,
    /// After the machine.
    started_s: f64,
}

fn parse(stat: &str) -> Option<Times> {
    // The second field is the name in parentheses, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    Some(Times { used_s: (ticks(14)? + ticks(15)?) / TICKS_PER_S, started_s: ticks(22)? / TICKS_PER_S })
}

/// Of the network that this process sees, as Prometheus' library has it.
fn network(page: &mut Page) {
    let Ok(text) = fs::read_to_string("/proc/self/net/netstat") else { return };
    if let Some(bytes) = octets(&text, "InOctets") {
        page.counter("process_network_receive_bytes_total", "Bytes received, by this network.", bytes);
    }
    if let Some(bytes) = octets(&text, "OutOctets") {
        page.counter("process_network_transmit_bytes_total", "Bytes sent, by this network.", bytes);
    }
}

/// Names are in one line, numbers in the next.
fn octets(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let place = lines.next()?.split_whitespace().position(|found| found == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_linux_writes_is_understood() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 9 0 0 0 150 50 0 0 20 0 4 0 12345 6 7";
        assert_eq!(parse(stat), Some(Times { used_s: 2.0, started_s: 123.45 }));
        assert_eq!(parse("7 (a) S 1"), None);
        let limits = "Max open files            1024                 4096                 files\n\
                      Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024));
        assert_eq!(limit(limits, "Max address space"), Some(u64::MAX));
        let netstat = "TcpExt: A\nTcpExt: 1\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 11 22\n";
        assert_eq!((octets(netstat, "InOctets"), octets(netstat, "OutOctets")), (Some(11), Some(22)));
        assert_eq!(octets("IpExt: A\n", "InOctets"), None);
    }
}
