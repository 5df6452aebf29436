//! `check perf` and `check datascale`: load on a cluster, with etcd's loads, limits and verdicts.
//!
//! Keys are written under a prefix that must be empty before and is deleted after, on an interrupt too.
//! Each client of a load has a connection of its own. Not here: figures finer than a verdict (they are no benchmark).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};
use wire::{
    etcdserverpb::{
        CompactionRequest, DefragmentRequest, DeleteRangeRequest, PutRequest, RangeRequest, ResponseHeader,
    },
    prefix_end,
};

use crate::{
    catalog::{Command, Run},
    failure::Failure,
    flags::{Flag, Line, switch, text},
    output,
    progress::Progress,
    session::Session,
    signals::Signals,
};

const LOAD: Flag = text(
    "load",
    "s",
    "The check's workload model. Accepted workloads: s(small), m(medium), l(large), xl(xLarge)",
)
.values(&["s", "m", "l", "xl"]);
const AUTO_COMPACT: Flag =
    switch("auto-compact", "Compact storage with last revision after test is finished.");
const AUTO_DEFRAG: Flag = switch("auto-defrag", "Defragment storage after test is finished.");

pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "check perf",
        takes: "[options]",
        about: "Check the performance of the cluster",
        detail: "Writes for 60 seconds: 150 keys a second from 50 clients (s), 1000 from 200 (m), 8000 from 500 (l) or\n\
                 15000 from 1000 (xl). Fails if less than 90 % of that is reached, if a write takes longer than 500 ms,\n\
                 or if the standard deviation is above 100 ms.",
        example: "check perf --load=m --auto-compact",
        flags: &[
            AUTO_COMPACT,
            AUTO_DEFRAG,
            LOAD,
            text("prefix", "/etcdctl-check-perf/", "The prefix for writing the performance check's keys."),
        ],
        run: Run::Online(|session, line| Box::pin(performance(session, line))),
    },
    Command {
        name: "check datascale",
        takes: "[options]",
        about: "Check the memory usage of holding data for different workloads on a given server endpoint.",
        detail: "If no endpoint is provided, localhost will be used. If multiple endpoints are provided, first endpoint\n\
                 will be used. Writes 10 thousand (s), 100 thousand (m), one million (l) or three million (xl) keys of\n\
                 1 KiB with their values.",
        example: "check datascale --load=s --auto-defrag",
        flags: &[
            AUTO_COMPACT,
            AUTO_DEFRAG,
            LOAD,
            text("prefix", "/etcdctl-check-datascale/", "The prefix for writing the datascale check's keys."),
        ],
        run: Run::Online(|session, line| Box::pin(data_scale(session, line))),
    },
];

/// How much is written.
struct Load {
    clients: usize,
    /// Of `check perf`.
    writes_per_s: u32,
    /// Of `check datascale`.
    keys: u64,
}

impl Load {
    fn read(line: &Line) -> Result<Load, Failure> {
        let (clients, writes_per_s, keys) = match line.text("load") {
            "s" | "small" => (50, 150, 10_000),
            "m" | "medium" => (200, 1000, 100_000),
            "l" | "large" => (500, 8000, 1_000_000),
            "xl" | "xLarge" => (1000, 15_000, 3_000_000),
            other => return Err(Failure::feature(format!("unknown load option {other}"))),
        };
        Ok(Load { clients, writes_per_s, keys })
    }
}

const PERFORMANCE_TIME_S: u64 = 60;
const PERFORMANCE_KEY_BYTES: usize = 256;
const PERFORMANCE_VALUE_BYTES: usize = 1024;
const SCALE_KEY_BYTES: usize = 512;
const SCALE_VALUE_BYTES: usize = 512;
const CLEANUP_TIME_MAX: Duration = Duration::from_secs(30);
/// How often the writes that are due are handed out.
const PACE: Duration = Duration::from_millis(1);

async fn performance(session: &Session, line: &Line) -> Result<(), Failure> {
    let load = Load::read(line)?;
    let prefix = line.text("prefix");
    check_empty(session, prefix, &format!("'etcdctl del --prefix {prefix}'")).await?;
    let mut signals = Signals::catch();
    let progress = Progress::count("Writing, seconds:", PERFORMANCE_TIME_S);
    let writers = Writers::start(session, load.clients)?;
    let started = Instant::now();
    let pace = async {
        let mut sent = 0_u64;
        loop {
            let elapsed = started.elapsed();
            if elapsed.as_secs() >= PERFORMANCE_TIME_S {
                return;
            }
            progress.set(elapsed.as_secs(), PERFORMANCE_TIME_S);
            let due = (elapsed.as_secs_f64() * f64::from(load.writes_per_s)) as u64;
            while sent < due {
                writers.write(prefix, PERFORMANCE_KEY_BYTES, PERFORMANCE_VALUE_BYTES).await;
                sent += 1;
                if started.elapsed().as_secs() >= PERFORMANCE_TIME_S {
                    return;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    };
    let interrupted = tokio::select! {
        () = pace => false,
        _ = signals.next() => true,
    };
    let mut report = writers.finish().await;
    report.took = started.elapsed();
    drop(progress);
    clean_up(session, line, prefix).await;
    if interrupted {
        return Err(Failure::interrupted("interrupted, the keys written were deleted"));
    }
    if line.has("auto-defrag") {
        defragment(session).await?;
    }
    let (lines, passed) = report.verdict(f64::from(load.writes_per_s));
    lines.iter().for_each(output::line);
    if passed { Ok(()) } else { Err(Failure::silent(1)) }
}

async fn data_scale(session: &Session, line: &Line) -> Result<(), Failure> {
    let load = Load::read(line)?;
    let prefix = line.text("prefix");
    check_empty(session, prefix, &format!("etcdctl del --prefix {prefix}")).await?;
    let before = resident_bytes(session, "before").await?;
    output::line(format!(
        "Start data scale check for work load [{} key-value pairs, {} bytes per key-value, {} concurrent clients].",
        load.keys,
        SCALE_KEY_BYTES + SCALE_VALUE_BYTES,
        load.clients
    ));
    let mut signals = Signals::catch();
    let progress = Progress::count("Writing keys:", load.keys);
    let writers = Writers::start(session, load.clients)?;
    let write = async {
        for _ in 0..load.keys {
            writers.write(prefix, SCALE_KEY_BYTES, SCALE_VALUE_BYTES).await;
            progress.add(1);
        }
    };
    let interrupted = tokio::select! {
        () = write => false,
        _ = signals.next() => true,
    };
    let report = writers.finish().await;
    drop(progress);
    let after = if interrupted { Ok(0.0) } else { resident_bytes(session, "after").await };
    clean_up(session, line, prefix).await;
    if interrupted {
        return Err(Failure::interrupted("interrupted, the keys written were deleted"));
    }
    if line.has("auto-defrag") {
        defragment(session).await?;
    }
    let errors = report.error_lines();
    errors.iter().for_each(output::line);
    if !errors.is_empty() {
        return Err(Failure::silent(1));
    }
    let used = (after? - before) / f64::from(1024 * 1024);
    output::line(format!("PASS: Approximate system memory used : {used:.2} MB."));
    Ok(())
}

async fn check_empty(session: &Session, prefix: &str, how: &str) -> Result<(), Failure> {
    let request = RangeRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        limit: 1,
        keys_only: true,
        ..RangeRequest::default()
    };
    let found = session.call(session.client.kv.clone().range(session.ask(request))).await?;
    if found.kvs.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!("prefix {prefix:?} has keys. Delete with {how} first")))
}

/// What the member says of its memory.
async fn resident_bytes(session: &Session, when: &str) -> Result<f64, Failure> {
    const NAME: &str = "process_resident_memory_bytes";
    let options = &session.options;
    let endpoint = options.endpoints.first().map_or("", String::as_str);
    let page = wire::fetch(endpoint, options.tls.as_ref(), "/metrics", options.command_timeout).await;
    let reason = match page {
        Err(error) => format!("fetch error: {error}"),
        Ok(page) => {
            let page = String::from_utf8_lossy(&page);
            let value = page.lines().find_map(|line| line.strip_prefix(NAME)?.trim().parse::<f64>().ok());
            match value.filter(|value| *value > 0.0) {
                Some(value) => return Ok(value),
                None => format!("could not find: {NAME}"),
            }
        }
    };
    output::line(reason);
    output::line(format!("FAIL: Could not read {NAME} {when} the put operations."));
    Err(Failure::silent(1))
}

async fn clean_up(session: &Session, line: &Line, prefix: &str) {
    let request = DeleteRangeRequest {
        key: Bytes::from(prefix.to_owned()),
        range_end: prefix_end(prefix.as_bytes()),
        prev_kv: false,
    };
    let deleted = session.patient(CLEANUP_TIME_MAX);
    let deleted = deleted.call(session.client.kv.clone().delete_range(session.ask(request))).await;
    let revision = match deleted {
        Ok(answer) => answer.header.map_or(0, |ResponseHeader { revision, .. }| revision),
        Err(failure) => {
            let reason = failure.text;
            return output::line(format!("FAIL: Cleanup failed during key deletion: ERROR({reason})"));
        }
    };
    if !line.has("auto-compact") {
        return;
    }
    output::line(format!("Compacting with revision {revision}"));
    let request = CompactionRequest { revision, physical: true };
    let patient = session.patient(CLEANUP_TIME_MAX);
    match patient.call(session.client.kv.clone().compact(session.ask(request))).await {
        Ok(_) => output::line(format!("Compacted with revision {revision}")),
        Err(failure) => output::error(&format!("Error: {}", failure.text)),
    }
}

async fn defragment(session: &Session) -> Result<(), Failure> {
    for endpoint in &session.options.endpoints {
        output::line(format!("Defragmenting {endpoint:?}"));
        let session = session.only(endpoint).await?.patient(CLEANUP_TIME_MAX);
        let mut client = session.client.maintenance.clone();
        session.call(client.defragment(session.ask(DefragmentRequest {}))).await?;
        output::line(format!("Defragmented {endpoint:?}"));
    }
    Ok(())
}

/// Clients that write what they are given, each over its own connection.
struct Writers {
    keys: mpsc::Sender<PutRequest>,
    tasks: JoinSet<Report>,
}

impl Writers {
    fn start(session: &Session, clients: usize) -> Result<Writers, Failure> {
        let (keys, waiting) = mpsc::channel::<PutRequest>(clients);
        let waiting = Arc::new(Mutex::new(waiting));
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            let (session, waiting) = (session.again()?, waiting.clone());
            tasks.spawn(async move {
                let mut report = Report::default();
                loop {
                    let next = waiting.lock().await.recv().await;
                    let Some(put) = next else { return report };
                    let started = Instant::now();
                    match session.client.kv.clone().put(session.ask(put)).await {
                        Ok(_) => report.times_s.push(started.elapsed().as_secs_f64()),
                        Err(status) => *report.errors.entry(session.failed(&status).text).or_default() += 1,
                    }
                }
            });
        }
        Ok(Writers { keys, tasks })
    }

    /// Waits for a client that is free.
    async fn write(&self, prefix: &str, key_bytes: usize, value_bytes: usize) {
        let mut key = prefix.as_bytes().to_vec();
        key.extend_from_slice(&rand::random::<u64>().to_be_bytes());
        key.resize(prefix.len() + key_bytes, 0);
        let value = Bytes::from(vec![0; value_bytes]);
        // The clients stay until the sender is dropped.
        let _ = self.keys.send(PutRequest { key: key.into(), value, ..PutRequest::default() }).await;
    }

    async fn finish(self) -> Report {
        drop(self.keys);
        let mut all = Report::default();
        for report in self.tasks.join_all().await {
            all.times_s.extend(report.times_s);
            for (error, count) in report.errors {
                *all.errors.entry(error).or_default() += count;
            }
        }
        all
    }
}

/// How the writes went.
#[derive(Debug, Default)]
struct Report {
    /// Of each write that was answered.
    times_s: Vec<f64>,
    errors: BTreeMap<String, u64>,
    took: Duration,
}

impl Report {
    fn error_lines(&self) -> Vec<String> {
        if self.errors.is_empty() {
            return Vec::new();
        }
        let each = self.errors.iter().map(|(error, count)| format!("FAIL: ERROR({error}) -> {count}"));
        std::iter::once("FAIL: too many errors".to_owned()).chain(each).collect()
    }

    /// What `check perf` prints, and whether it is content.
    #[expect(clippy::cast_precision_loss, reason = "counts of writes are far below 2^52")]
    fn verdict(&self, writes_per_s: f64) -> (Vec<String>, bool) {
        const SLOWEST_S_MAX: f64 = 0.5;
        const DEVIATION_S_MAX: f64 = 0.1;
        let count = self.times_s.len().max(1) as f64;
        let reached = self.times_s.len() as f64 / self.took.as_secs_f64().max(f64::EPSILON);
        let slowest = self.times_s.iter().copied().fold(0.0, f64::max);
        let mean = self.times_s.iter().sum::<f64>() / count;
        let deviation = (self.times_s.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / count).sqrt();
        let mut lines = self.error_lines();
        let mut passed = lines.is_empty();
        let mut judge = |good: bool, pass: String, fail: String| {
            passed &= good;
            lines.push(if good { pass } else { fail });
        };
        let shown = reached as u64 + 1;
        judge(
            reached / writes_per_s > 0.9,
            format!("PASS: Throughput is {shown} writes/s"),
            format!("FAIL: Throughput too low: {shown} writes/s"),
        );
        judge(
            slowest <= SLOWEST_S_MAX,
            format!("PASS: Slowest request took {slowest:.6}s"),
            format!("Slowest request took too long: {slowest:.6}s"),
        );
        judge(
            deviation <= DEVIATION_S_MAX,
            format!("PASS: Stddev is {deviation:.6}s"),
            format!("Stddev too high: {deviation:.6}s"),
        );
        lines.push(if passed { "PASS" } else { "FAIL" }.to_owned());
        (lines, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Report};

    #[test]
    fn verdicts_have_etcdctls_words_and_limits() {
        let mut report =
            Report { times_s: vec![0.01; 9000], took: Duration::from_secs(60), ..Report::default() };
        let (lines, passed) = report.verdict(150.0);
        assert!(passed);
        assert_eq!(
            lines,
            [
                "PASS: Throughput is 151 writes/s",
                "PASS: Slowest request took 0.010000s",
                "PASS: Stddev is 0.000000s",
                "PASS"
            ]
        );
        report.times_s[0] = 0.7;
        report.errors.insert("no".to_owned(), 2);
        let (lines, passed) = report.verdict(1000.0);
        assert!(!passed);
        assert_eq!(
            lines[..3],
            ["FAIL: too many errors", "FAIL: ERROR(no) -> 2", "FAIL: Throughput too low: 151 writes/s"]
        );
        assert_eq!(lines[3], "Slowest request took too long: 0.700000s");
        assert_eq!(lines.last().map(String::as_str), Some("FAIL"));
    }
}
