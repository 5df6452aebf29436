//! Sustained writes while the log is cut as often as possible and members come and go (openraft issue 2116).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::rig::{Cluster, eventually, try_put};

fn very_short_log(config: &mut replica::Config) {
    config.snapshot_count = 50;
    config.wal_segment_size_bytes = 128 << 10;
}

#[tokio::test]
async fn members_survive_load_while_the_log_is_cut_and_snapshots_travel() {
    load(Duration::from_secs(4), 2).await;
}

#[tokio::test]
#[ignore = "the same for longer"]
async fn members_survive_long_load_while_the_log_is_cut_and_snapshots_travel() {
    load(Duration::from_secs(20), 8).await;
}

async fn load(duration: Duration, restarts: u32) {
    let mut cluster = Cluster::start_with(3, very_short_log).await;
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let steady = cluster.leader().await;
    let writers = (0..32).map(|writer| {
        let handle = cluster.handle(steady).clone();
        let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                if try_put(&handle, &format!("w{writer}-{}", n % 50), &"v".repeat(256)).await.is_ok() {
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let started = Instant::now();
    for restart in 0..restarts {
        let victim = (steady + 1 + restart as usize % 2) % 3;
        let left_at = cluster.handle(victim).status().applied_index;
        cluster.kill(victim).await;
        eventually("the log to be cut beyond the member that is away", || {
            (cluster.handle(steady).status().purged_index > left_at + 50).then_some(())
        })
        .await;
        cluster.launch(victim).await;
        tokio::time::sleep(duration / (2 * restarts)).await;
    }
    while started.elapsed() < duration {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    cluster.converge().await;
    let acknowledged = acknowledged.load(Ordering::Relaxed);
    let metrics = cluster.handle(steady).metrics();
    let applied = u64::try_from(cluster.handle(steady).status().revision - 1).unwrap();
    assert!(acknowledged > 500, "the run was a valid one: {acknowledged} writes");
    assert!(applied >= acknowledged, "{applied} applied, {acknowledged} acknowledged");
    assert!(metrics.log_purges > 0, "the log was cut");
    assert!(metrics.snapshots_sent > 0, "snapshots travelled");
}
