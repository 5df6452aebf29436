//! Clients that hold leases and locks.
//!
//! Invariant: what was not acknowledged is not claimed: a renewal counts only if it was answered with time left.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use wire::etcdserverpb as pb;
use wire::v3lockpb;

use crate::cluster::client;
use crate::history::Value;
use crate::leases::Lease;
use crate::locks::{COUNTER, Section};
use crate::workload::{
    OPERATION_TIMEOUT, PAUSE_AFTER_ERROR, Shared, entry, key_bytes, revision, value_bytes,
};

/// Short enough to end often in a run, long enough to outlive an election.
const TTL_S: i64 = 4;
/// A waiter in a lock's queue that is given up by then leaves it when its lease ends.
const LOCK_TIMEOUT: Duration = Duration::from_secs(6);

async fn answered<T>(request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>) -> Option<T> {
    Some(tokio::time::timeout(OPERATION_TIMEOUT, request).await.ok()?.ok()?.into_inner())
}

async fn grant(client: &mut wire::Client) -> Option<i64> {
    let granted = answered(client.lease.lease_grant(pb::LeaseGrantRequest { ttl: TTL_S, id: 0 })).await?;
    (granted.ttl >= TTL_S).then_some(granted.id)
}

/// `true`: acknowledged with time left.
async fn keep_alive(client: &mut wire::Client, id: i64) -> bool {
    let request = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let told = async {
        let mut answers = client.lease.lease_keep_alive(request).await.ok()?.into_inner();
        answers.message().await.ok()?
    };
    let told = tokio::time::timeout(OPERATION_TIMEOUT, told).await.ok().flatten();
    told.is_some_and(|told| told.ttl >= TTL_S)
}

/// Grants leases, hangs a key on each, keeps some alive for a while, revokes some, and leaves them to end.
pub async fn run_lease_holder(url: String, seed: u64, shared: Arc<Shared>) -> Result<Vec<Lease>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = client(&url)?;
    let mut leases = Vec::new();
    while !shared.stopped() {
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        let asked_ns = shared.now_ns();
        let Some(id) = grant(&mut client).await else { continue };
        let key = shared.leased_keys.fetch_add(1, Ordering::Relaxed);
        let value = shared.values.fetch_add(1, Ordering::Relaxed);
        let put = pb::PutRequest {
            key: key_bytes(key),
            value: value_bytes(value),
            lease: id,
            ..Default::default()
        };
        let put = answered(client.kv.put(put)).await;
        let mut lease = Lease {
            id,
            key,
            ttl_s: TTL_S.unsigned_abs(),
            renewals_asked_ns: vec![asked_ns],
            put_revision: put.map(|put| revision(put.header.as_ref())).transpose()?,
            revoke_asked_ns: None,
            revoked: None,
        };
        for _ in 0..random.random_range(0..4) {
            tokio::time::sleep(Duration::from_millis(random.random_range(200..1_500))).await;
            let asked_ns = shared.now_ns();
            if !keep_alive(&mut client, id).await {
                break;
            }
            lease.renewals_asked_ns.push(asked_ns);
        }
        if random.random_bool(0.3) {
            lease.revoke_asked_ns = Some(shared.now_ns());
            if let Some(told) = answered(client.lease.lease_revoke(pb::LeaseRevokeRequest { id })).await {
                lease.revoked = Some((shared.now_ns(), revision(told.header.as_ref())?));
            }
        }
        leases.push(lease);
    }
    Ok(leases)
}

/// Takes a lock, increments the counter under it, and gives it back, or forgets to.
pub async fn run_lock_holder(
    number: usize,
    member: usize,
    url: String,
    seed: u64,
    shared: Arc<Shared>,
) -> Result<Vec<Section>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut client = client(&url)?;
    let mut sections = Vec::new();
    while !shared.stopped() {
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
        let Some(lease) = grant(&mut client).await else { continue };
        let request = v3lockpb::LockRequest { name: "lock".into(), lease };
        let Ok(Ok(lock)) = tokio::time::timeout(LOCK_TIMEOUT, client.lock.lock(request)).await else {
            continue;
        };
        let lock = lock.into_inner();
        let entered_ns = shared.now_ns();
        let get = pb::RangeRequest { key: key_bytes(COUNTER), ..Default::default() };
        let Some(found) = answered(client.kv.range(get)).await else { continue };
        let read = found.kvs.first().map(entry).transpose()?.map_or(0, |entry| entry.value);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
        let written = answered(client.kv.txn(fenced(&lock.key, read + 1))).await;
        let written_revision = match written {
            Some(written) if written.succeeded => Some(revision(written.header.as_ref())?),
            _ => None,
        };
        sections.push(Section {
            client: number,
            member,
            lock: shared.key(&lock.key),
            locked_revision: revision(lock.header.as_ref())?,
            entered_ns,
            left_ns: shared.now_ns(),
            read,
            written_revision,
        });
        if random.random_bool(0.8) {
            let unlock = v3lockpb::UnlockRequest { key: lock.key };
            let _acknowledged = answered(client.lock.unlock(unlock)).await; // otherwise its lease ends it
            let _acknowledged =
                answered(client.lease.lease_revoke(pb::LeaseRevokeRequest { id: lease })).await;
        }
    }
    Ok(sections)
}

/// Writes the counter if the lock's key exists.
fn fenced(lock: &bytes::Bytes, counter: Value) -> pb::TxnRequest {
    let exists = pb::Compare {
        result: pb::compare::CompareResult::Greater.into(),
        target: pb::compare::CompareTarget::Create.into(),
        key: lock.clone(),
        target_union: Some(pb::compare::TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    let put = pb::PutRequest { key: key_bytes(COUNTER), value: value_bytes(counter), ..Default::default() };
    pb::TxnRequest {
        compare: vec![exists],
        success: vec![pb::RequestOp { request: Some(pb::request_op::Request::RequestPut(put)) }],
        failure: Vec::new(),
    }
}
