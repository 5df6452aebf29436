//! The table of flags: names and defaults of etcd 3.4 to 3.6. Former `experimental-` spellings need no row.

use super::{
    Kind::{Switch, Value},
    Row,
    Use::{Honoured, Ignored, Missing, Partly},
};

macro_rules! rows {
    ($($kind:ident $usage:ident $name:literal $default:literal $help:literal;)*) => {
        /// Every flag that is understood, in the order of `--help`.
        pub(crate) const ROWS: &[Row] = &[$(Row { name: $name, kind: $kind, default: $default, usage: $usage, help: $help }),*];
    };
}

rows! {
    // The member.
    Value Honoured "name" "default" "Human-readable name of this member.";
    Value Honoured "data-dir" "" "Data directory; ${name}.etcd if empty.";
    Value Honoured "wal-dir" "" "A directory of its own for the log.";
    Value Honoured "snapshot-count" "100000" "Log entries kept behind the durable state for members that lag.";
    Value Honoured "snapshot-catchup-entries" "5000" "Log entries kept however large the log is.";
    Value Honoured "heartbeat-interval" "100" "Milliseconds between heartbeats.";
    Value Honoured "election-timeout" "1000" "Milliseconds without a heartbeat until an election.";
    Switch Ignored "initial-election-tick-advance" "true" "Shorten the first election at boot.";
    Value Honoured "listen-peer-urls" "http://localhost:2380" "URLs to listen on for peers.";
    Value Honoured "listen-client-urls" "http://localhost:2379" "URLs to listen on for clients.";
    Value Honoured "listen-client-http-urls" "" "URLs to listen on for HTTP-only clients.";
    Value Ignored "max-snapshots" "5" "Snapshot files to keep.";
    Value Ignored "max-wals" "5" "Log files to keep.";
    Value Honoured "quota-backend-bytes" "0" "Size that raises the NOSPACE alarm; 0 means 2 GiB, negative means none.";
    Value Ignored "backend-bbolt-freelist-type" "map" "Free list of etcd's file format.";
    Value Ignored "backend-batch-interval" "" "Longest time until a commit of the state file.";
    Value Ignored "backend-batch-limit" "0" "Most operations until a commit of the state file.";
    Value Honoured "max-txn-ops" "128" "Most operations in one transaction.";
    Value Honoured "max-request-bytes" "1572864" "Largest request, in bytes.";
    Value Honoured "max-concurrent-streams" "4294967295" "Most requests at a time on one connection.";
    Value Honoured "grpc-keepalive-min-time" "5s" "Least time between a client's pings; more of them end its connection.";
    Value Honoured "grpc-keepalive-interval" "2h" "Time between pings to a silent client; 0 means none.";
    Value Honoured "grpc-keepalive-timeout" "20s" "Wait for the answer to such a ping.";
    Switch Honoured "socket-reuse-port" "false" "Let other processes listen on the same ports.";
    Switch Honoured "socket-reuse-address" "false" "Set SO_REUSEADDR (always on).";

    // The cluster.
    Value Honoured "initial-advertise-peer-urls" "http://localhost:2380" "This member's peer URLs as others see them.";
    Value Honoured "initial-cluster" "" "name=URL of each first member; this member alone if empty.";
    Value Honoured "initial-cluster-state" "new" "new or existing.";
    Value Honoured "initial-cluster-token" "etcd-cluster" "Keeps clusters with equal URLs apart.";
    Value Honoured "advertise-client-urls" "http://localhost:2379" "This member's client URLs as clients see them.";
    Value Missing "discovery" "" "Discovery URL.";
    Value Missing "discovery-endpoints" "" "Endpoints of a discovery cluster.";
    Value Missing "discovery-token" "" "Token at the discovery cluster.";
    Value Ignored "discovery-fallback" "exit" "What to do when discovery fails.";
    Value Missing "discovery-proxy" "" "Proxy for discovery.";
    Value Missing "discovery-srv" "" "DNS domain with the members' SRV records.";
    Value Ignored "discovery-srv-name" "" "Suffix of the SRV name.";
    Switch Honoured "strict-reconfig-check" "true" "Refuse changes that could lose the quorum.";
    Switch Honoured "pre-vote" "true" "Ask before an election whether it could be won.";
    Value Honoured "auto-compaction-retention" "0" "How much history automatic compaction keeps; 0 means no compaction.";
    Value Honoured "auto-compaction-mode" "periodic" "periodic (a duration) or revision (a count).";
    Switch Honoured "force-new-cluster" "false" "Start a cluster of one from this member's data.";
    Switch Ignored "enable-v2" "false" "The v2 API.";
    Value Ignored "v2-deprecation" "not-yet" "Phase of the v2 API's end.";
    Value Honoured "max-learners" "1" "Most learners at a time.";
    Value Honoured "feature-gates" "" "Switches of experimental features: Name=true,Other=false.";

    // Security.
    Value Honoured "cert-file" "" "Certificate shown to clients.";
    Value Honoured "key-file" "" "Key of that certificate.";
    Switch Honoured "client-cert-auth" "false" "Require a client certificate.";
    Value Honoured "client-crl-file" "" "Revoked client certificates.";
    Value Honoured "client-cert-allowed-hostname" "" "Host name that a client certificate must carry.";
    Value Honoured "trusted-ca-file" "" "Authorities of client certificates.";
    Switch Honoured "auto-tls" "false" "TLS for clients with a certificate made at start.";
    Value Honoured "peer-cert-file" "" "Certificate shown to peers.";
    Value Honoured "peer-key-file" "" "Key of that certificate.";
    Switch Honoured "peer-client-cert-auth" "false" "Require a certificate of peers.";
    Value Honoured "peer-trusted-ca-file" "" "Authorities of peer certificates.";
    Value Honoured "peer-cert-allowed-cn" "" "Common name that a peer must have.";
    Value Honoured "peer-cert-allowed-hostname" "" "Host name that a peer's certificate must carry.";
    Switch Honoured "peer-auto-tls" "false" "TLS for peers with a certificate made at start.";
    Value Honoured "peer-crl-file" "" "Revoked peer certificates.";
    Switch Ignored "peer-skip-client-san-verification" "false" "Skip the address check of peer certificates.";
    Value Honoured "self-signed-cert-validity" "1" "Years of a certificate made at start.";
    Value Honoured "cipher-suites" "" "Cipher suites.";
    Value Honoured "tls-min-version" "TLS1.2" "TLS1.2 or TLS1.3.";
    Value Honoured "tls-max-version" "" "TLS1.2 or TLS1.3.";
    Value Honoured "cors" "*" "Origins that browsers may come from.";
    Value Honoured "host-whitelist" "*" "Host names accepted without TLS.";

    // Authentication.
    Value Honoured "auth-token" "simple" "simple, or jwt,sign-method=NAME,pub-key=FILE,priv-key=FILE,ttl=5m.";
    Value Honoured "bcrypt-cost" "10" "Cost of password hashes, 4 to 31.";
    Value Honoured "auth-token-ttl" "300" "Seconds that an unused token lives.";

    // Watching it.
    Switch Partly "enable-pprof" "false" "Serve /debug/vars; there are no Go profiles.";
    Value Honoured "metrics" "basic" "basic or extensive.";
    Value Honoured "listen-metrics-urls" "" "More URLs for metrics and health.";
    Value Ignored "logger" "zap" "Only zap's JSON shape.";
    Value Honoured "log-outputs" "default" "Where log lines go: default or stderr, stdout, or paths of files.";
    Value Honoured "log-format" "json" "json or console.";
    Value Honoured "log-level" "info" "debug, info, warn, error, panic or fatal.";
    Switch Ignored "debug" "false" "Former name of --log-level=debug.";
    Switch Ignored "enable-log-rotation" "false" "Rotate log files.";
    Value Ignored "log-rotation-config-json" "" "How to rotate.";
    Switch Ignored "enable-distributed-tracing" "false" "OpenTelemetry.";
    Value Ignored "distributed-tracing-address" "localhost:4317" "Where traces go.";
    Value Ignored "distributed-tracing-service-name" "etcd" "Name in traces.";
    Value Ignored "distributed-tracing-instance-id" "" "Instance in traces.";
    Value Ignored "distributed-tracing-sampling-rate" "0" "Traces per million.";
    Value Honoured "warning-apply-duration" "100ms" "Slow applies are logged.";
    Value Honoured "warning-unary-request-duration" "300ms" "Slow requests are logged.";

    // The v2 proxy of etcd 3.4 and 3.5.
    Value Missing "proxy" "off" "The v2 proxy.";
    Value Ignored "proxy-failure-wait" "5000" "";
    Value Ignored "proxy-refresh-interval" "30000" "";
    Value Ignored "proxy-dial-timeout" "1000" "";
    Value Ignored "proxy-write-timeout" "5000" "";
    Value Ignored "proxy-read-timeout" "0" "";

    // Formerly experimental.
    Switch Honoured "initial-corrupt-check" "false" "Compare with peers before serving.";
    Value Honoured "corrupt-check-time" "0s" "Time between comparisons with peers.";
    Switch Honoured "compact-hash-check-enabled" "false" "Compare hashes after compactions.";
    Value Honoured "compact-hash-check-time" "1m" "Time between those comparisons.";
    Switch Honoured "enable-lease-checkpoint" "false" "Remember remaining lease times over leader changes.";
    Switch Honoured "enable-lease-checkpoint-persist" "false" "Keep those on disk (they always are).";
    Value Honoured "compaction-batch-limit" "1000" "Revisions removed in one step of a compaction.";
    Value Honoured "compaction-sleep-interval" "10ms" "Pause between those steps.";
    Value Honoured "watch-progress-notify-interval" "10m" "Time between progress answers to idle watches.";
    Value Ignored "downgrade-check-time" "5s" "";
    Switch Ignored "memory-mlock" "false" "";
    Switch Ignored "txn-mode-write-with-shared-buffer" "true" "";
    Value Ignored "bootstrap-defrag-threshold-megabytes" "0" "";
    Switch Ignored "stop-grpc-service-on-defrag" "false" "";
    Value Honoured "config-file" "" "YAML file with these settings.";

    // Unsafe.
    Switch Honoured "unsafe-no-fsync" "false" "Answer before data is on disk: a crash loses it.";
}
