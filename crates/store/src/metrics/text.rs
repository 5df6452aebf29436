//! The text of `/metrics`: names and meanings that etcd's dashboard and alerts use.

use std::{
    fmt::{Display, Write as _},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mvcc::AlarmKind;
use tonic::Code;

use super::CODES;
use crate::{VERSION, context::Own, status::code_name};

/// The page, taken at one moment.
pub(crate) fn render(own: &Own) -> String {
    let mut page = Page::default();
    server(&mut page, own);
    log(&mut page, own);
    state(&mut page, own);
    network(&mut page, own);
    grpc(&mut page, own);
    process(&mut page);
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.text, "{name} {value}"),
            labels => writeln!(self.text, "{name}{{{labels}}} {value}"),
        };
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// Sum and count of durations whose distribution is not kept: one bucket holds all.
    fn durations(&mut self, name: &str, help: &str, count: u64, sum_s: f64) {
        self.family(name, "histogram", help);
        self.sample(&format!("{name}_bucket"), "le=\"+Inf\"", count);
        self.sample(&format!("{name}_sum"), "", sum_s);
        self.sample(&format!("{name}_count"), "", count);
    }
}

fn server(page: &mut Page, own: &Own) {
    let metrics = own.handle.metrics();
    let quota = own.context.config.quota_bytes().unwrap_or(0);
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", u8::from(metrics.has_leader));
    page.gauge("etcd_server_is_leader", "Whether this member is the leader.", u8::from(metrics.is_leader));
    page.gauge("etcd_server_is_learner", "Whether this member is a learner.", u8::from(metrics.is_learner));
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Changes of the leader seen.",
        metrics.leader_changes,
    );
    page.gauge("etcd_server_proposals_pending", "Proposals that wait.", metrics.proposals_pending);
    page.gauge("etcd_server_proposals_committed_total", "Committed log index.", metrics.proposals_committed);
    page.gauge("etcd_server_proposals_applied_total", "Applied log index.", metrics.proposals_applied);
    page.counter("etcd_server_proposals_failed_total", "Proposals that failed.", metrics.proposals_failed);
    page.counter("etcd_server_slow_read_indexes_total", "Slow read index rounds.", metrics.slow_read_indexes);
    page.counter(
        "etcd_server_read_indexes_failed_total",
        "Failed read index rounds.",
        metrics.read_indexes_failed,
    );
    page.counter(
        "etcd_server_health_success",
        "Health checks that succeeded.",
        load(&own.context.metrics.health_success),
    );
    page.counter(
        "etcd_server_health_failures",
        "Health checks that failed.",
        load(&own.context.metrics.health_failures),
    );
    page.gauge("etcd_server_quota_backend_bytes", "Quota in bytes; 0 is none.", quota);
    page.family("etcd_server_version", "gauge", "Version by label.");
    page.sample("etcd_server_version", &format!("server_version=\"{VERSION}\""), 1);
    page.family("etcd_server_id", "gauge", "Member id by label.");
    page.sample("etcd_server_id", &format!("server_id=\"{:x}\"", own.context.identity.member_id), 1);
    let alarms = own.handle.read(|store, _| store.alarms());
    page.family("etcd_server_alarms", "gauge", "Alarms by member and kind.");
    for alarm in alarms {
        let kind = match alarm.kind {
            AlarmKind::NoSpace => "NOSPACE",
            AlarmKind::Corrupt => "CORRUPT",
        };
        page.sample(
            "etcd_server_alarms",
            &format!("server_id=\"{:x}\",alarm_type=\"{kind}\"", alarm.member),
            1,
        );
    }
}

fn log(page: &mut Page, own: &Own) {
    let metrics = own.handle.metrics();
    let wal = &metrics.wal;
    let name = "etcd_disk_wal_fsync_duration_seconds";
    page.family(name, "histogram", "Durations of the log's syncs.");
    let mut below = 0;
    for (bound, count) in replica::FSYNC_BUCKETS_S.iter().zip(&wal.fsync_buckets) {
        below += count;
        page.sample(&format!("{name}_bucket"), &format!("le=\"{bound}\""), below);
    }
    page.sample(&format!("{name}_bucket"), "le=\"+Inf\"", wal.fsync_count);
    page.sample(&format!("{name}_sum"), "", wal.fsync_sum_s);
    page.sample(&format!("{name}_count"), "", wal.fsync_count);
    page.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", wal.written_bytes);
    let commit_s = seconds(metrics.state_commit_us_total);
    let help = "Durations of the state file's commits.";
    page.durations("etcd_disk_backend_commit_duration_seconds", help, metrics.state_commits, commit_s);
    let durable_s = seconds(metrics.state_durable_commit_us_total);
    let help = "Durations of the state file's synced commits.";
    page.durations(
        "binnacle_state_durable_commit_duration_seconds",
        help,
        metrics.state_durable_commits,
        durable_s,
    );
    page.gauge(
        "binnacle_state_unflushed_bytes",
        "State that is in memory and in the log only.",
        metrics.unflushed_size_bytes,
    );
}

fn state(page: &mut Page, own: &Own) {
    let status = own.handle.status();
    let (keys, revision, compacted) =
        own.handle.read(|store, _| (store.key_count(), store.revision(), store.compact_revision()));
    page.gauge("etcd_mvcc_db_total_size_in_bytes", "Size by the store's own accounting.", status.size_bytes);
    let help = "The part of it that is in use.";
    page.gauge("etcd_mvcc_db_total_size_in_use_in_bytes", help, status.size_in_use_bytes);
    page.gauge("binnacle_state_file_bytes", "Size of the state file.", status.size_on_disk_bytes);
    page.gauge("etcd_debugging_mvcc_keys_total", "Keys.", keys);
    page.gauge("etcd_debugging_mvcc_current_revision", "Current revision.", revision);
    page.gauge("etcd_debugging_mvcc_compact_revision", "Revision of the last compaction.", compacted);
    page.gauge("etcd_debugging_store_watchers", "Watches.", own.context.hub.watch_count());
}

fn network(page: &mut Page, own: &Own) {
    let (sent, received) = (load(&own.context.metrics.sent_bytes), load(&own.context.metrics.received_bytes));
    page.counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.", sent);
    page.counter("etcd_network_client_grpc_received_bytes_total", "Bytes received from clients.", received);
}

fn grpc(page: &mut Page, own: &Own) {
    let methods = own.context.metrics.methods();
    let labels: Vec<String> = methods
        .iter()
        .map(|counters| {
            let method = &counters.method;
            format!(
                "grpc_method=\"{}\",grpc_service=\"{}\",grpc_type=\"{}\"",
                method.name,
                method.service,
                method.kind()
            )
        })
        .collect();
    page.family("grpc_server_started_total", "counter", "Requests begun.");
    for (counters, labels) in methods.iter().zip(&labels) {
        page.sample("grpc_server_started_total", labels, load(&counters.started));
    }
    page.family("grpc_server_handled_total", "counter", "Requests answered, by code.");
    for (counters, labels) in methods.iter().zip(&labels) {
        for code in 0..CODES {
            let count = load(&counters.handled[code]);
            // Every code of a method that was never called would fill pages: only OK is always there.
            if count > 0 || code == 0 {
                let code = i32::try_from(code).map_or(Code::Unknown, Code::from_i32);
                let labels = format!("grpc_code=\"{}\",{labels}", code_name(code));
                page.sample("grpc_server_handled_total", &labels, count);
            }
        }
    }
    // One message each way, as far as it is unary; streams are not counted by message.
    for (name, help) in [
        ("grpc_server_msg_received_total", "Unary messages received."),
        ("grpc_server_msg_sent_total", "Unary messages sent."),
    ] {
        page.family(name, "counter", help);
        for (counters, labels) in methods.iter().zip(&labels) {
            if !counters.method.client_stream && !counters.method.server_stream {
                let count =
                    if name.contains("sent") { load(&counters.handled[0]) } else { load(&counters.started) };
                page.sample(name, labels, count);
            }
        }
    }
    if own.context.config.metrics_extensive {
        page.family("grpc_server_handling_seconds", "histogram", "Time until the answer.");
        for (counters, labels) in methods.iter().zip(&labels) {
            let count: u64 = counters.handled.iter().map(load).sum();
            page.sample("grpc_server_handling_seconds_bucket", &format!("{labels},le=\"+Inf\""), count);
            page.sample("grpc_server_handling_seconds_sum", labels, seconds(load(&counters.handling_us)));
            page.sample("grpc_server_handling_seconds_count", labels, count);
        }
    }
}

/// What Linux tells about this process; other systems have no such lines.
fn process(page: &mut Page) {
    let Ok(text) = std::fs::read_to_string("/proc/self/status") else { return };
    let kilobytes = |field: &str| -> Option<u64> {
        text.lines()
            .find_map(|line| line.strip_prefix(field))?
            .trim()
            .trim_end_matches("kB")
            .trim()
            .parse()
            .ok()
    };
    if let Some(resident) = kilobytes("VmRSS:") {
        page.gauge("process_resident_memory_bytes", "Resident memory.", resident * 1024);
    }
    if let Some(size) = kilobytes("VmSize:") {
        page.gauge("process_virtual_memory_bytes", "Virtual memory.", size * 1024);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Open files.", files.count());
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[allow(clippy::cast_precision_loss)] // a metric
fn seconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e6
}
