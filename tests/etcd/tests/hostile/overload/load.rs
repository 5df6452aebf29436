//! A cluster that is asked for five times what it can do.

use std::time::{Duration, Instant};

use wire::etcdserverpb as pb;

use super::{
    Three, keeps_alive, middle,
    writers::{VALUE_BYTES, Writers, percentile},
};
use crate::rig::put;

/// Writers that saturate two processors.
const SATURATING: usize = 128;
const TIMES: usize = 5;

/// What some seconds of load have done.
#[derive(Clone, Copy, Debug)]
struct Load {
    written: usize,
    refused: usize,
    middle: Duration,
    /// All but the slowest hundredth of those that were written.
    p99: Duration,
    /// Of the member that used most, at its end.
    resident_kib: u64,
}

fn resident_kib(three: &Three) -> u64 {
    let of = |member: usize| {
        let path = format!("/proc/{}/status", three.cluster.process_id(member).unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    (0..3).map(of).max().unwrap()
}

/// Some seconds of so many writers, while lease 7 is kept alive. Nobody is told anything but "done" and "too many", and no
/// second passes without a write for long.
async fn load(three: &Three, writers: usize) -> Load {
    let group = Writers::start(&three.cluster.client_urls, writers, 1);
    // Until the line is as long as it becomes.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(group.count());
    for _ in 0..2 {
        let so_far = group.written();
        keeps_alive(&three.clients[0]).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(group.written() > so_far, "{writers} writers, and none writes");
    }
    let mut counted = group.count();
    let resident_kib = resident_kib(three);
    let failures = group.stop();
    assert!(failures.is_empty(), "{failures:?}\n{}", three.cluster.log_ends());
    Load {
        written: counted.written.len(),
        refused: counted.refused.len(),
        middle: percentile(&mut counted.written, 50),
        p99: percentile(&mut counted.written, 99),
        resident_kib,
    }
}

#[tokio::test]
#[ignore = "keeps the machine busy for half a minute"]
async fn a_cluster_under_five_times_its_load_works_on_keeps_its_leader_and_recovers() {
    // A machine that others keep busy too shall not look like a member that is slow to answer.
    let flags = ["--quota-backend-bytes=-1", "--heartbeat-interval=100", "--election-timeout=3000"];
    let three = Three::start(&flags).await;
    let lease = pb::LeaseGrantRequest { ttl: 20, id: 7 };
    three.clients[0].lease.clone().lease_grant(lease).await.unwrap();
    let leased = pb::PutRequest { lease: 7, ..put("leased", "1") };
    three.clients[0].kv.clone().put(leased).await.unwrap();
    let calm = middle(&three.clients).await;
    let before = three.reigns().await;

    // Side by side in time, because others may come and go on this machine.
    let mut pairs = Vec::new();
    for _ in 0..3 {
        pairs.push((load(&three, SATURATING).await, load(&three, TIMES * SATURATING).await));
    }
    println!("calm {calm:?}, then full and over: {pairs:#?}");
    let best = |ratio: fn(&(Load, Load)) -> f64| pairs.iter().map(ratio).fold(0.0, f64::max);
    let done = best(|(full, over)| over.written as f64 / full.written as f64);
    assert!(done >= 0.8, "under five times the load only {done:.2} of it is done: {pairs:?}");
    // Five times as many wait five times as long, and nobody much longer than the others.
    let patient = best(|(full, over)| full.middle.as_secs_f64() / over.p99.as_secs_f64());
    assert!(patient >= 1.0 / (4.0 * TIMES as f64), "some wait for ever: {pairs:?}");
    assert_eq!(three.reigns().await, before, "the load has caused an election");
    let read = pb::RangeRequest { key: "leased".into(), ..Default::default() };
    assert_eq!(three.clients[1].kv.clone().range(read).await.unwrap().into_inner().count, 1);

    // What was written stays in memory for a while: as an entry, as an event, as a row that is not in the file yet.
    let loads = || pairs.iter().flat_map(|(full, over)| [full, over]);
    assert!(loads().all(|load| load.refused == 0), "refused with few in line: {pairs:?}");
    let written: u64 = loads().map(|load| load.written as u64).sum();
    let first = pairs[0].0.resident_kib;
    let may_hold_kib = first + first / 5 + 2 * written * 4 * (VALUE_BYTES + 512) / 1024 + 32 * 1024;
    let peak = loads().map(|load| load.resident_kib).max().unwrap_or(0);
    assert!(peak <= may_hold_kib, "a queue grows: {peak} KiB, at most {may_hold_kib} expected: {pairs:?}");
    let begin = Instant::now();
    loop {
        let (now, held_kib) = (middle(&three.clients).await, resident_kib(&three));
        if now <= 3 * calm.max(Duration::from_millis(20)) && held_kib <= may_hold_kib {
            break;
        }
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "a put takes {now:?}, before the load {calm:?}; {held_kib} KiB held, at most {may_hold_kib} expected"
        );
    }
    println!("as before after {:?}", begin.elapsed());
}
