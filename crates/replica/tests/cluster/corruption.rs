//! Members that hold different data, planted between a stop and a start, are found and named.

use std::path::Path;

use mvcc::{AlarmKind, AlarmMember, ApplyError, Caller, Command, Compact, KeyRange, RangeError, RangeQuery};
use redb::{ReadableTable, TableDefinition};
use replica::{Config, Metrics, ScrubPace, StartError};
use std::time::Duration;

use crate::rig::{Cluster, Node, eventually, get_here, put, try_put};

const RECORDS: TableDefinition<u128, &[u8]> = TableDefinition::new("records");

/// Changes the last byte of a value in a stopped member's state file. With `sealed` the record's checksum fits to it,
/// so that nothing but a comparison with other members can notice.
pub(crate) fn alter(data_dir: &Path, key: &str, sealed: bool) {
    let database = redb::Database::open(data_dir.join("member/state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut records = transaction.open_table(RECORDS).unwrap();
        let found = records.iter().unwrap().find_map(|row| {
            let (revision, bytes) = row.unwrap();
            let (revision, bytes) = (revision.value(), bytes.value().to_vec());
            bytes.get(50..).is_some_and(|rest| rest.starts_with(key.as_bytes())).then_some((revision, bytes))
        });
        let (revision, mut bytes) = found.expect("the key is in the state file");
        *bytes.last_mut().unwrap() ^= 1;
        if sealed {
            let checksum = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        }
        records.insert(revision, bytes.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

/// Three members with the same keys, then one follower that was stopped and differs in `k7`. Answers its index.
async fn with_difference(tweak: fn(&mut Config)) -> (Cluster, usize) {
    let mut cluster = Cluster::start_with(3, tweak).await;
    for n in 0..20 {
        put(cluster.handle(0), &format!("k{n}"), "value").await;
    }
    cluster.converge().await;
    let victim = cluster.a_follower().await;
    cluster.stop(victim).await;
    alter(&cluster.data_dir(victim), "k7", true);
    (cluster, victim)
}

/// Over all running members: whoever leads counts.
fn total(cluster: &Cluster, number: fn(&Metrics) -> u64) -> u64 {
    cluster.running().into_iter().map(|index| number(&cluster.handle(index).metrics())).sum()
}

async fn alarmed(cluster: &Cluster) -> Vec<AlarmMember> {
    eventually("an alarm", || {
        let alarms = cluster.handle(cluster.running()[0]).read(|store, _| store.alarms());
        (!alarms.is_empty()).then_some(alarms)
    })
    .await
}

#[tokio::test]
async fn the_leader_finds_a_member_that_differs_and_nobody_writes_any_more() {
    let (mut cluster, victim) =
        with_difference(|config| config.corrupt_check_interval = Some(Duration::from_millis(100))).await;
    let survivor = cluster.running()[0];
    let passed = total(&cluster, |metrics| metrics.corruption_checks_passed);
    let before = total(&cluster, |metrics| metrics.corruption_checks_incomplete);
    eventually("checks that could not ask everybody", || {
        (total(&cluster, |metrics| metrics.corruption_checks_incomplete) > before + 1).then_some(())
    })
    .await;
    assert!(cluster.handle(survivor).read(|store, _| store.alarms()).is_empty());
    let passed_since = total(&cluster, |metrics| metrics.corruption_checks_passed) - passed;
    assert!(passed_since <= 1, "half a check is none");
    cluster.launch(victim).await;
    assert_ne!(get_here(cluster.handle(victim), "k7").as_deref(), Some("value"), "nothing local notices");
    assert_eq!(
        alarmed(&cluster).await,
        [AlarmMember { member: cluster.id(victim), kind: AlarmKind::Corrupt }]
    );
    for index in 0..3 {
        let applied = try_put(cluster.handle(index), "a", "1").await.unwrap();
        assert_eq!(applied.result, Err(ApplyError::Corrupt));
    }
}

#[tokio::test]
async fn a_difference_behind_a_compaction_is_found_by_the_check_of_compactions() {
    let (mut cluster, victim) =
        with_difference(|config| config.compact_hash_check_interval = Some(Duration::from_millis(100))).await;
    cluster.launch(victim).await;
    let leader = cluster.leader().await;
    let compact = Command::Compact(Compact { revision: 15 });
    cluster.handle(leader).propose(Caller::System, compact).await.unwrap().result.unwrap();
    assert_eq!(
        alarmed(&cluster).await,
        [AlarmMember { member: cluster.id(victim), kind: AlarmKind::Corrupt }]
    );
}

#[tokio::test]
async fn equal_members_pass_each_check() {
    let mut cluster = Cluster::start_with(3, |config| {
        config.initial_corrupt_check = true;
        config.corrupt_check_interval = Some(Duration::from_millis(100));
        config.compact_hash_check_interval = Some(Duration::from_millis(100));
    })
    .await;
    for n in 0..20 {
        put(cluster.handle(0), &format!("k{n}"), "value").await;
    }
    let compact = Command::Compact(Compact { revision: 9 });
    cluster.handle(0).propose(Caller::System, compact).await.unwrap().result.unwrap();
    let follower = cluster.a_follower().await;
    cluster.stop(follower).await;
    let handle = cluster.launch(follower).await;
    assert_eq!(handle.metrics().corruption_checks_failed, 0);
    let before = total(&cluster, |metrics| metrics.corruption_checks_passed);
    eventually("both checks to pass", || {
        (total(&cluster, |metrics| metrics.corruption_checks_passed) > before + 2).then_some(())
    })
    .await;
    assert!(cluster.handle(0).read(|store, _| store.alarms()).is_empty());
}

#[tokio::test]
async fn a_member_that_differs_refuses_to_start_if_it_is_asked_to_look() {
    let (cluster, victim) = with_difference(|_| {}).await;
    let mut config = cluster.config(victim);
    config.initial_corrupt_check = true;
    for _ in 0..2 {
        // The second time shows that the first left nothing open.
        let refused = Node::start(config.clone()).await.err().expect("refused");
        assert!(matches!(refused, StartError::Inconsistent(_)), "{refused}");
        assert_eq!(
            refused.to_string(),
            format!("{:x} found data inconsistency with peers", cluster.id(victim))
        );
    }
}

/// Flips a bit wherever the running member's state file has the marker.
fn flip(data_dir: &Path, marker: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file =
        std::fs::File::options().read(true).write(true).open(data_dir.join("member/state.redb")).unwrap();
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let places: Vec<usize> = bytes
        .windows(marker.len())
        .enumerate()
        .filter(|(_, window)| *window == marker)
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "the marker is in the file");
    for at in places {
        file.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
    }
}

async fn with_marker(tweak: fn(&mut Config)) -> Cluster {
    let cluster = Cluster::start_with(1, tweak).await;
    put(cluster.handle(0), "k", "marker-of-this-test").await;
    for n in 0..100 {
        put(cluster.handle(0), &format!("k{n}"), &"x".repeat(5_000)).await;
    }
    cluster.handle(0).flush().await.unwrap();
    cluster
}

#[tokio::test]
async fn the_scrubber_finds_a_bit_that_flipped_on_disk_and_raises_the_alarm() {
    let cluster = with_marker(|config| {
        config.state_cache_size_bytes = 0;
        config.scrub = ScrubPace { size_bytes_per_s: 1 << 30, pause: Duration::ZERO };
    })
    .await;
    let handle = cluster.handle(0);
    eventually("a pass", || (handle.metrics().scrub_passes > 1).then_some(())).await;
    assert_eq!(handle.metrics().state_damage_found, 0);
    flip(&cluster.data_dir(0), b"marker-of-this-test");
    assert_eq!(alarmed(&cluster).await, [AlarmMember { member: cluster.id(0), kind: AlarmKind::Corrupt }]);
    let passes = handle.metrics().scrub_passes;
    eventually("another pass", || (handle.metrics().scrub_passes > passes + 1).then_some(())).await;
    assert_eq!(handle.metrics().state_damage_found, 1, "each place counts once");
    assert_eq!(try_put(handle, "a", "1").await.unwrap().result, Err(ApplyError::Corrupt));
}

#[tokio::test]
async fn a_read_that_meets_damage_fails_and_raises_the_alarm() {
    let cluster = with_marker(|config| {
        config.state_cache_size_bytes = 0;
        config.scrub.size_bytes_per_s = 0;
    })
    .await;
    let handle = cluster.handle(0);
    flip(&cluster.data_dir(0), b"marker-of-this-test");
    let query = RangeQuery::latest(KeyRange::Key("k".into()));
    let read = handle.read(|store, records| store.range(records, &query));
    assert!(matches!(read, Err(RangeError::Records(_))), "{read:?}");
    assert_eq!(alarmed(&cluster).await, [AlarmMember { member: cluster.id(0), kind: AlarmKind::Corrupt }]);
    assert_eq!(handle.metrics().state_damage_found, 1);
}
