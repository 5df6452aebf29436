//! Somebody who asks for much, and somebody else.

use std::time::Duration;

use super::{
    PROPOSALS_MAX, keeps_alive,
    writers::{Writers, percentile},
};
use crate::rig::Victim;

/// Writers on one connection: more than a member lets wait, so that some are refused all the time.
const NOISY: usize = PROPOSALS_MAX + 400;
/// Writers on another connection, a fiftieth of that.
const QUIET: usize = NOISY / 50;
/// Each write is so much work for the member that it is what the writers wait for.
const KEYS: usize = 32;

#[tokio::test]
#[ignore = "keeps the machine busy for some seconds"]
async fn a_client_with_fifty_times_the_writes_leaves_another_one_more_than_its_part() {
    use wire::etcdserverpb as pb;
    let mut victim = Victim::start(&["--quota-backend-bytes=-1"]).await;
    let lease = pb::LeaseGrantRequest { ttl: 20, id: 7 };
    victim.client.lease.clone().lease_grant(lease).await.unwrap();
    let urls = victim.cluster.client_urls.clone();

    let alone = Writers::start(&urls, QUIET, KEYS);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(alone.count());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let peak = alone.count().written.len();
    assert!(alone.stop().is_empty());

    let (noisy, quiet) = (Writers::start(&urls, NOISY, KEYS), Writers::start(&urls, QUIET, KEYS));
    // Until the line is full.
    tokio::time::sleep(Duration::from_secs(4)).await;
    drop((noisy.count(), quiet.count()));
    let mut waited = Duration::ZERO;
    while waited < Duration::from_secs(6) {
        keeps_alive(&victim.client).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        waited += Duration::from_secs(1);
    }
    let (mut noise, mut part) = (noisy.count(), quiet.count());
    let failures = [noisy.stop(), quiet.stop()];

    let middle = |times: &mut Vec<Duration>| percentile(times, 50);
    let figures = format!(
        "alone {peak} in 3 s; in 6 s noisy {} in {:?}, refused {} in {:?}; quiet {} in {:?}, p99 {:?}",
        noise.written.len(),
        middle(&mut noise.written),
        noise.refused.len(),
        middle(&mut noise.refused),
        part.written.len(),
        middle(&mut part.written),
        percentile(&mut part.written, 99),
    );
    println!("{figures}");
    assert!(failures.iter().all(|failures| failures.is_empty()), "{failures:?}: {figures}");
    assert!(part.refused.is_empty(), "refused because of another: {figures}");
    // In one line it would be a fiftieth.
    assert!(part.written.len() * 25 > noise.written.len(), "crowded out: {figures}");
    assert!(middle(&mut part.written) * 2 < middle(&mut noise.written), "waits for another: {figures}");
    // Six seconds of both against three of one: with room for whoever shares the machine.
    assert!(noise.written.len() + part.written.len() > peak, "hardly anything is done: {figures}");
    victim.is_well(1000).await;
}
