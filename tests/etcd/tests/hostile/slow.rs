//! Clients that ask for much and read little of it.

use wire::etcdserverpb as pb;

use crate::rig::{PATIENCE, Victim, put, watch};

const VALUE_SIZE_BYTES: usize = 512 << 10;

/// 128 MiB of values over 64 keys.
async fn write_much(victim: &Victim) {
    let value = "x".repeat(VALUE_SIZE_BYTES);
    for number in 0..256 {
        victim.client.kv.clone().put(put(&format!("k{}", number % 64), &value)).await.unwrap();
    }
}

#[tokio::test]
async fn streams_that_nobody_reads_cost_little_and_hold_up_nobody() {
    let mut victim = Victim::start(&["--quota-backend-bytes=-1"]).await;
    write_much(&victim).await;
    victim.remember_memory();
    // No byte may be sent on any stream: 30 of them would hold 128 MiB each.
    let mut connection = victim.connect(0).await;
    let mut watches = Vec::new();
    for _ in 0..30 {
        watches.push(connection.watch().await);
    }
    write_much(&victim).await;
    victim.is_well(500).await;

    // Each would hold 32 MiB if its answer were made at once.
    victim.remember_memory();
    let everything =
        pb::RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(connection.call("/etcdserverpb.KV/RangeStream", &everything).await);
    }
    // Two backups are made at a time, others wait for them.
    for _ in 0..2 {
        answers.push(connection.call("/etcdserverpb.Maintenance/Snapshot", &pb::SnapshotRequest {}).await);
    }
    victim.is_well(500).await;
}

/// Each of them has the same megabytes to catch up with, twice because of previous values: 20 GiB in all.
#[tokio::test]
async fn watches_that_fall_behind_together_are_served_in_turn_and_not_all_at_once() {
    let mut victim = Victim::start(&["--quota-backend-bytes=-1"]).await;
    let watches = 2000;
    let create = pb::WatchCreateRequest {
        key: "k".into(),
        range_end: "l".into(),
        prev_kv: true,
        ..Default::default()
    };
    let mut answers = watch(&victim.client, vec![create; watches]).await;
    for _ in 1..watches {
        let created = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert!(created.created && !created.canceled);
    }
    // Nobody reads now, and the inbox runs over.
    let value = "x".repeat(8 << 10);
    for number in 0..600 {
        victim.client.kv.clone().put(put(&format!("k{}", number % 16), &value)).await.unwrap();
    }
    victim.remember_memory();
    let mut served = std::collections::BTreeSet::new();
    for _ in 0..500 {
        let answer = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        served.insert(answer.watch_id);
    }
    assert!(served.len() > 1, "one watch has kept all others waiting");
    victim.is_well(200).await;
}

#[tokio::test]
async fn a_thousand_watches_on_one_stream_all_hear_of_a_change() {
    let mut victim = Victim::start(&[]).await;
    let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
    let mut answers = watch(&victim.client, vec![create; 1000]).await;
    for _ in 1..1000 {
        let created = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
        assert!(created.created && !created.canceled);
    }
    for round in 1..=5 {
        victim.client.kv.clone().put(put("a", &round.to_string())).await.unwrap();
        let mut heard = vec![0_u32; 1000];
        for _ in 0..1000 {
            let event = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
            assert_eq!(event.events.len(), 1);
            heard[usize::try_from(event.watch_id).unwrap()] += 1;
        }
        assert!(heard.iter().all(|count| *count == 1), "round {round}");
    }
    victim.is_well(200).await;
}

#[tokio::test]
async fn a_thousand_streams_on_one_connection_all_hear_of_a_change() {
    let mut victim = Victim::start(&[]).await;
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let create = pb::WatchCreateRequest { key: "a".into(), ..Default::default() };
        streams.push(watch(&victim.client, vec![create]).await);
    }
    victim.client.kv.clone().put(put("a", "1")).await.unwrap();
    for stream in &mut streams {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await.unwrap().unwrap().unwrap();
        assert_eq!(event.events.len(), 1);
    }
    victim.is_well(300).await;
}

#[tokio::test]
async fn numbers_at_the_ends_of_their_types_are_answered() {
    let mut victim = Victim::start(&[]).await;
    let client = victim.client.clone();
    for number in [i64::MAX, i64::MAX - 1, i64::MIN, i64::MIN + 1, -1] {
        let range = pb::RangeRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            limit: number,
            ..Default::default()
        };
        assert!(!client.kv.clone().range(range.clone()).await.unwrap().into_inner().more);
        let filtered = pb::RangeRequest { max_mod_revision: number, min_create_revision: number, ..range };
        client.kv.clone().range(filtered.clone()).await.unwrap();
        // Refused or not: answered.
        let at = pb::RangeRequest { revision: number, ..filtered };
        drop(client.kv.clone().range(at).await);
        drop(client.kv.clone().compact(pb::CompactionRequest { revision: number, physical: true }).await);
        drop(client.lease.clone().lease_grant(pb::LeaseGrantRequest { ttl: number, id: number }).await);
        let to_live = pb::LeaseTimeToLiveRequest { id: number, keys: true };
        drop(client.lease.clone().lease_time_to_live(to_live).await);
        drop(client.lease.clone().lease_revoke(pb::LeaseRevokeRequest { id: number }).await);
        drop(client.maintenance.clone().hash_kv(pb::HashKvRequest { revision: number }).await);
        let id = number.cast_unsigned();
        drop(client.cluster.clone().member_remove(pb::MemberRemoveRequest { id }).await);
        drop(client.cluster.clone().member_promote(pb::MemberPromoteRequest { id }).await);
        drop(client.maintenance.clone().move_leader(pb::MoveLeaderRequest { target_id: id }).await);
        let alarm = pb::AlarmRequest { action: i32::MAX, member_id: id, alarm: i32::MIN };
        drop(client.maintenance.clone().alarm(alarm).await);
        let create = pb::WatchCreateRequest {
            key: "a".into(),
            start_revision: number,
            watch_id: number,
            filters: vec![i32::MAX, i32::MIN],
            ..Default::default()
        };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let request = pb::WatchRequest { request_union: Some(union) };
        let requests = tokio_stream::iter([request]);
        let mut answers = client.watch.clone().watch(requests).await.unwrap().into_inner();
        drop(tokio::time::timeout(PATIENCE, answers.message()).await.unwrap());
    }
    victim.is_well(100).await;
}

#[tokio::test]
async fn a_transaction_of_the_deepest_nesting_is_answered() {
    let mut victim = Victim::start(&[]).await;
    for depth in [10_usize, 63, 64, 65, 98, 500] {
        let mut txn = pb::TxnRequest::default();
        for _ in 0..depth {
            let request = pb::request_op::Request::RequestTxn(txn);
            let op = pb::RequestOp { request: Some(request) };
            txn = pb::TxnRequest { success: vec![op], ..Default::default() };
        }
        let answer = victim.client.kv.clone().txn(txn).await;
        assert!(answer.is_ok() || depth > 30, "depth {depth}: {answer:?}");
    }
    victim.is_well(100).await;
}
