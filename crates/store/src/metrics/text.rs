//! The text of `/metrics`: names and meanings that etcd's dashboard and alerts use.

use std::{
    fmt::{Display, Write as _},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use mvcc::AlarmKind;
use replica::{ApplyDurations, CompactionMetrics, Durations, PeerMetrics};
use tonic::Code;

use super::{CODES, clients::Requests, process};
use crate::{VERSION, context::Own, status::code_name};

/// The page, taken at one moment.
pub(crate) fn render(own: &Own) -> String {
    let mut page = Page::default();
    server(&mut page, own);
    log(&mut page, own);
    state(&mut page, own);
    network(&mut page, own);
    grpc(&mut page, own);
    process::write(&mut page);
    page.text
}

#[derive(Default)]
pub(super) struct Page {
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

    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, durations: &Durations) {
        self.family(name, "histogram", help);
        self.buckets(name, "", durations);
    }

    /// The same under bounds in milliseconds.
    fn milliseconds(&mut self, name: &str, help: &str, durations: &Durations) {
        self.family(name, "histogram", help);
        self.scaled(name, "", durations, 1000.0);
    }

    /// One series of a histogram.
    fn buckets(&mut self, name: &str, labels: &str, durations: &Durations) {
        self.scaled(name, labels, durations, 1.0);
    }

    fn scaled(&mut self, name: &str, labels: &str, durations: &Durations, scale: f64) {
        let separator = if labels.is_empty() { "" } else { "," };
        let mut below = 0;
        for (bound, count) in durations.bounds_s.iter().zip(&durations.counts) {
            below += count;
            let bound = bound * scale;
            self.sample(&format!("{name}_bucket"), &format!("{labels}{separator}le=\"{bound}\""), below);
        }
        let count = durations.count();
        self.sample(&format!("{name}_bucket"), &format!("{labels}{separator}le=\"+Inf\""), count);
        self.sample(&format!("{name}_sum"), labels, durations.sum_s * scale);
        self.sample(&format!("{name}_count"), labels, count);
    }
}

fn server(page: &mut Page, own: &Own) {
    let metrics = own.handle.metrics();
    let pending = metrics.proposals_pending + own.context.turns.waiting() as u64;
    let quota = own.context.config.quota_bytes().unwrap_or(0);
    page.gauge("etcd_server_has_leader", "Whether a leader is known.", u8::from(metrics.has_leader));
    page.gauge("etcd_server_is_leader", "Whether this member is the leader.", u8::from(metrics.is_leader));
    page.gauge("etcd_server_is_learner", "Whether this member is a learner.", u8::from(metrics.is_learner));
    page.counter(
        "etcd_server_leader_changes_seen_total",
        "Changes of the leader seen.",
        metrics.leader_changes,
    );
    page.gauge("etcd_server_proposals_pending", "Proposals that wait.", pending);
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
    let name = "binnacle_corruption_checks_total";
    page.family(name, "counter", "Comparisons with the other members; incomplete ones say nothing.");
    page.sample(name, "result=\"passed\"", metrics.corruption_checks_passed);
    page.sample(name, "result=\"failed\"", metrics.corruption_checks_failed);
    page.sample(name, "result=\"incomplete\"", metrics.corruption_checks_incomplete);
    page.gauge("etcd_server_quota_backend_bytes", "Quota in bytes; 0 is none.", quota);
    page.family("etcd_cluster_version", "gauge", "Version of the cluster by label.");
    page.sample("etcd_cluster_version", &format!("cluster_version=\"{}\"", crate::CLUSTER_VERSION), 1);
    let (auth_revision, learner_promotions) =
        (own.handle.read(|store, _| store.auth_revision()), load(&own.context.metrics.learner_promotions));
    page.gauge("etcd_debugging_auth_revision", "Revision of users and roles.", auth_revision);
    page.counter(
        "etcd_server_learner_promote_successes",
        "Learners promoted through this member.",
        learner_promotions,
    );
    page.family("etcd_server_version", "gauge", "Version by label.");
    page.sample("etcd_server_version", &format!("server_version=\"{VERSION}\""), 1);
    page.family("etcd_server_id", "gauge", "Member id by label.");
    page.sample("etcd_server_id", &format!("server_id=\"{:x}\"", own.context.identity.member_id), 1);
    let name = "etcd_server_client_requests_total";
    page.family(name, "counter", "Requests by the version of the client.");
    for Requests { version, calls, streams } in own.context.metrics.clients.requests() {
        for (kind, count) in
            [("stream", streams), ("unary", calls)].into_iter().filter(|(_, count)| *count > 0)
        {
            page.sample(name, &format!("client_api_version=\"{version}\",type=\"{kind}\""), count);
        }
    }
    let name = "etcd_server_feature_enabled";
    page.family(name, "gauge", "Whether a switch of --feature-gates is on, by itself or by its own flag.");
    let operations = &own.context.config.operations;
    for (gate, is_on) in [
        ("CompactHashCheck", operations.compact_hash_check_interval.is_some()),
        ("InitialCorruptCheck", operations.initial_corrupt_check),
        ("LeaseCheckpoint", operations.lease_checkpoint_interval.is_some()),
        // What was noted is in the log, so it is kept.
        ("LeaseCheckpointPersist", operations.lease_checkpoint_interval.is_some()),
    ] {
        page.sample(name, &format!("name=\"{gate}\",stage=\"ALPHA\""), u8::from(is_on));
    }
    let help = "Received states that are being made this member's own.";
    page.gauge("etcd_server_snapshot_apply_in_progress_total", help, metrics.snapshots_being_received);
    let name = "promhttp_metric_handler_requests_total";
    page.family(name, "counter", "Scrapes answered before this one.");
    let scrapes = own.context.metrics.scrapes.fetch_add(1, Relaxed);
    page.sample(name, "code=\"200\"", scrapes);
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
    let fsync = Durations {
        bounds_s: &replica::FSYNC_BUCKETS_S,
        counts: wal.fsync_buckets.to_vec(),
        sum_s: wal.fsync_sum_s,
    };
    page.histogram("etcd_disk_wal_fsync_duration_seconds", "Durations of the log's syncs.", &fsync);
    page.gauge("etcd_disk_wal_write_bytes_total", "Bytes written to the log.", wal.written_bytes);
    let help = "Durations of the state file's commits.";
    page.histogram("etcd_disk_backend_commit_duration_seconds", help, &metrics.state_commit);
    let help = "Durations of the state file's synced commits.";
    page.histogram("binnacle_state_durable_commit_duration_seconds", help, &metrics.state_durable_commit);
    let own_counts = &own.context.metrics;
    let help = "Durations of backups.";
    page.histogram("etcd_disk_backend_snapshot_duration_seconds", help, &own_counts.backup.durations());
    let help = "Durations of defragmentations.";
    page.histogram("etcd_disk_backend_defrag_duration_seconds", help, &own_counts.defragment.durations());
    page.gauge("etcd_disk_defrag_inflight", "Whether a defragmentation is under way: it takes no time.", 0);
    let help = "Durations until a received state was durable.";
    page.histogram("etcd_snap_db_fsync_duration_seconds", help, &metrics.snapshot_sync);
    page.histogram("etcd_snap_fsync_duration_seconds", help, &metrics.snapshot_sync);
    let help = "Durations of receiving a state and making it this member's own.";
    page.histogram("etcd_snap_db_save_total_duration_seconds", help, &metrics.snapshot_receive);
    page.histogram("etcd_debugging_snap_save_total_duration_seconds", help, &metrics.snapshot_receive);
    page.counter(
        "binnacle_state_damage_found_total",
        "Places of the state file whose checksum was wrong.",
        metrics.state_damage_found,
    );
    page.counter(
        "binnacle_scrub_passes_total",
        "Times the state file was read through.",
        metrics.scrub_passes,
    );
    page.counter("binnacle_scrub_bytes_total", "Bytes that the scrubber read.", metrics.scrub_size_bytes);
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
    let put_size_bytes = own.handle.read(|store, _| store.put_size_bytes());
    page.gauge("etcd_debugging_mvcc_total_put_size_in_bytes", "Keys and values put.", put_size_bytes);
    watches(page, own);
    let metrics = own.handle.metrics();
    compaction(page, &metrics.compaction);
    let applied = metrics.applied;
    let counts = &own.context.metrics;
    let help = "Durations of checksums.";
    page.histogram("etcd_mvcc_hash_duration_seconds", help, &counts.hash.durations());
    let help = "Durations of checksums at a revision.";
    page.histogram("etcd_mvcc_hash_rev_duration_seconds", help, &counts.hash_at_revision.durations());
    let name = "etcd_server_range_duration_seconds";
    page.family(name, "histogram", "Durations of reads.");
    for (success, histogram) in [false, true].into_iter().zip(&counts.range) {
        let durations = histogram.durations();
        if durations.count() > 0 {
            page.buckets(name, &format!("success=\"{success}\""), &durations);
        }
    }
    let name = "etcd_server_apply_duration_seconds";
    page.family(name, "histogram", "Durations of applying entries of the log.");
    for ApplyDurations { operation, succeeded, durations } in &applied.durations {
        let labels = format!("op=\"{operation}\",success=\"{succeeded}\",version=\"v3\"");
        page.buckets(name, &labels, durations);
    }
    page.histogram("etcd_debugging_lease_ttl_total", "Times to live of leases.", &applied.lease_time);
    // Each under the name that it has had since etcd 3.5, and under the one before.
    for (what, help, count) in [
        ("put", "Puts applied.", applied.puts),
        ("delete", "Deletions applied.", applied.deletions),
        ("txn", "Transactions applied.", applied.transactions),
        ("range", "Ranges read.", load(&counts.ranges)),
    ] {
        page.counter(&format!("etcd_mvcc_{what}_total"), help, count);
        page.counter(&format!("etcd_debugging_mvcc_{what}_total"), help, count);
    }
    page.counter("etcd_debugging_lease_granted_total", "Leases granted.", applied.leases_granted);
    page.counter("etcd_debugging_lease_revoked_total", "Leases revoked.", applied.leases_revoked);
    page.counter(
        "etcd_debugging_lease_renewed_total",
        "Leases renewed by this member.",
        load(&counts.leases_renewed),
    );
    page.counter("etcd_server_lease_expired_total", "Leases whose time was over.", applied.leases_expired);
    page.counter(
        "etcd_debugging_server_lease_expired_total",
        "Leases whose time was over.",
        applied.leases_expired,
    );
    page.counter("etcd_server_slow_apply_total", "Applies that took too long.", applied.slow);
}

fn watches(page: &mut Page, own: &Own) {
    let load = own.context.hub.load();
    page.gauge("etcd_debugging_store_watchers", "Watches.", load.watches);
    page.gauge("etcd_debugging_mvcc_watcher_total", "Watches.", load.watches);
    page.gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watches.", load.streams);
    page.gauge("etcd_debugging_mvcc_slow_watcher_total", "Watches that read history.", load.watches_behind);
    let help = "Batches of events that wait for a stream, for each watch that wants them.";
    page.gauge("etcd_debugging_mvcc_pending_events_total", help, load.waiting);
    let sent = self::load(&own.context.metrics.events_sent);
    page.counter("etcd_debugging_mvcc_events_total", "Events sent to watches.", sent);
}

/// Index and records are compacted in the same slices, so the pauses are the same.
fn compaction(page: &mut Page, metrics: &CompactionMetrics) {
    page.counter("etcd_debugging_mvcc_db_compaction_keys_total", "Records compacted.", metrics.rows);
    let help = "When a compaction last ended, in seconds since 1970; 0 since the start.";
    page.gauge("etcd_debugging_mvcc_db_compaction_last", help, metrics.last_unix_s);
    let help = "Time for which a slice of a compaction held up others.";
    page.milliseconds("etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds", help, &metrics.pauses);
    page.milliseconds(
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        help,
        &metrics.pauses,
    );
    page.milliseconds(
        "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
        "Durations of compactions.",
        &metrics.passes,
    );
}

fn network(page: &mut Page, own: &Own) {
    let (sent, received) = (load(&own.context.metrics.sent_bytes), load(&own.context.metrics.received_bytes));
    page.counter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.", sent);
    page.counter("etcd_network_client_grpc_received_bytes_total", "Bytes received from clients.", received);
    let metrics = own.handle.metrics();
    let me = own.context.identity.member_id;
    let peers = &metrics.peers;
    let to = |peer: &PeerMetrics| format!("To=\"{:x}\"", peer.member);
    let from = |peer: &PeerMetrics| format!("From=\"{:x}\"", peer.member);
    let pair = |peer: &PeerMetrics| format!("Local=\"{me:x}\",Remote=\"{:x}\"", peer.member);
    let mut each = |name: &str,
                    kind: &str,
                    help: &str,
                    labels: &dyn Fn(&PeerMetrics) -> String,
                    value: fn(&PeerMetrics) -> u64| {
        page.family(name, kind, help);
        for peer in peers {
            page.sample(name, &labels(peer), value(peer));
        }
    };
    each("etcd_network_peer_sent_bytes_total", "counter", "Bytes sent to a peer.", &to, |peer| {
        peer.sent_bytes
    });
    each("etcd_network_peer_received_bytes_total", "counter", "Bytes received from a peer.", &from, |peer| {
        peer.received_bytes
    });
    each(
        "etcd_network_peer_sent_failures_total",
        "counter",
        "Messages that did not reach a peer.",
        &to,
        |peer| peer.sent_failures,
    );
    let help = "Messages of a peer that were not understood.";
    each("etcd_network_peer_received_failures_total", "counter", help, &from, |peer| peer.received_failures);
    each("etcd_network_active_peers", "gauge", "Whether a peer answers.", &pair, |peer| {
        u64::from(peer.is_active)
    });
    let help = "Times that a peer stopped answering.";
    each("etcd_network_disconnected_peers_total", "counter", help, &pair, |peer| peer.disconnections);
    each("etcd_network_known_peers", "gauge", "Other members.", &pair, |_| 1);
    let help = "States that were sent to a peer.";
    each("etcd_network_snapshot_send_success", "counter", help, &to, |peer| peer.snapshots_sent);
    let help = "States that did not reach a peer.";
    each("etcd_network_snapshot_send_failures", "counter", help, &to, |peer| peer.snapshot_send_failures);
    let help = "States that a peer sent.";
    each("etcd_network_snapshot_receive_success", "counter", help, &from, |peer| peer.snapshots_received);
    let help = "States of a peer that did not come whole.";
    each("etcd_network_snapshot_receive_failures", "counter", help, &from, |peer| {
        peer.snapshot_receive_failures
    });
    let name = "etcd_network_peer_round_trip_time_seconds";
    page.family(name, "histogram", "Time until a peer's answer to a question.");
    for peer in peers {
        page.buckets(name, &to(peer), &peer.round_trip);
    }
    let help = "States that are being sent.";
    page.gauge("etcd_network_snapshot_send_inflights_total", help, metrics.snapshots_being_sent);
    let help = "States that are being received.";
    page.gauge("etcd_network_snapshot_receive_inflights_total", help, metrics.snapshots_being_received);
    let help = "Durations of sending a state.";
    page.histogram("etcd_network_snapshot_send_total_duration_seconds", help, &metrics.snapshot_send);
    let help = "Durations of receiving a state.";
    page.histogram("etcd_network_snapshot_receive_total_duration_seconds", help, &metrics.snapshot_receive);
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
            let code = i32::try_from(code).map_or(Code::Unknown, Code::from_i32);
            let labels = format!("grpc_code=\"{}\",{labels}", code_name(code));
            page.sample("grpc_server_handled_total", &labels, count);
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
            page.buckets("grpc_server_handling_seconds", labels, &counters.handling.durations());
        }
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}
