//! Holders of leases with a key each.
//!
//! Always holds: one key for one lease.

use std::sync::Arc;
use std::time::Duration;

use faults::history::{Key, Operation, Outcome, Request};
use tonic::Code;
use tonic::transport::Channel;
use wal::sim_disk::crash::Random;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_client::KvClient;
use wire::etcdserverpb::lease_client::LeaseClient;

use super::answers::{outcome, put, send};
use super::{Held, PAUSE_AFTER_ERROR_MS, Shared, now_ns};
use crate::member::{CLIENT_PORT, host};
use crate::network::channel;

/// Takes leases with a key each, renews them for a while and leaves or revokes them.
pub(super) async fn lease_holder(number: usize, member: usize, seed: u64, shared: Arc<Shared>) {
    let _running = shared.begin();
    let mut random = Random(seed);
    let channel = channel(&host(member), CLIENT_PORT);
    let mut holder = Holder {
        number,
        member,
        kv: KvClient::new(channel.clone()),
        lease: LeaseClient::new(channel),
        timeout: Duration::from_millis(shared.load.timeout_ms),
        shared: shared.clone(),
    };
    while !shared.stopping() {
        holder.move_to(shared.roster.stay(holder.member, member));
        holder.one_lease(&mut random).await;
        tokio::time::sleep(Duration::from_millis(50 + random.below(500))).await;
    }
}

struct Holder {
    number: usize,
    member: usize,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    timeout: Duration,
    shared: Arc<Shared>,
}

impl Holder {
    fn move_to(&mut self, member: usize) {
        if member != self.member {
            let channel = channel(&host(member), CLIENT_PORT);
            self.member = member;
            self.kv = KvClient::new(channel.clone());
            self.lease = LeaseClient::new(channel);
        }
    }

    async fn one_lease(&mut self, random: &mut Random) {
        let lazy = self.shared.load.lazy_holders;
        let ttl_s = 1 + i64::try_from(random.below(if lazy { 2 } else { 4 })).unwrap_or(0);
        let id = i64::try_from(random.number() >> 2).unwrap_or(1) + 1;
        let mut renewed_ns = now_ns();
        let grant = pb::LeaseGrantRequest { ttl: ttl_s, id };
        let Ok(Ok(granted)) = tokio::time::timeout(self.timeout, self.lease.lease_grant(grant)).await else {
            return;
        };
        let ttl_ns = u64::try_from(granted.into_inner().ttl).unwrap_or(0) * 1_000_000_000;
        let key = self.shared.lease_key();
        let value = self.shared.value();
        let request = Request::Put { key, value };
        let call_ns = now_ns();
        let sending = put(&mut self.kv, key, value, id);
        // A lease whose time is over meanwhile is refused with NotFound: nothing happened.
        let outcome = match tokio::time::timeout(self.timeout, sending).await {
            Ok(Err(status)) if status.code() == Code::NotFound => {
                Outcome::Refused(status.message().to_owned())
            }
            Ok(answered) => outcome(async { answered }, self.timeout, &self.shared).await,
            Err(_) => Outcome::Unknown("no answer in time".to_owned()),
        };
        self.record(call_ns, request, outcome);
        let renewals = random.below(if lazy { 12 } else { 6 });
        let mut failed = false;
        for _ in 0..renewals {
            let pause_ns = match lazy {
                true if failed => PAUSE_AFTER_ERROR_MS * 1_000_000,
                true => ttl_ns * (60 + random.below(35)) / 100,
                false => ttl_ns / 3,
            };
            tokio::time::sleep(Duration::from_nanos(pause_ns)).await;
            if self.shared.stopping() {
                break;
            }
            self.read(key).await;
            let asked_ns = now_ns();
            let renewed = self.renew(id).await;
            match renewed {
                Some(true) => renewed_ns = asked_ns,
                Some(false) => break, // it is over, so says the leader
                None => {}
            }
            failed = renewed.is_none();
        }
        let revoked = random.below(4) == 0;
        let left_ns = now_ns();
        let held = Held { key, ttl_ns, renewed_ns, revoked, left_ns };
        // Before the request: it counts from when it may take effect.
        self.shared.held(held);
        if revoked {
            let revoke = self.lease.lease_revoke(pb::LeaseRevokeRequest { id });
            let _may_fail = tokio::time::timeout(self.timeout, revoke).await;
        }
        self.read(key).await;
    }

    /// `None`: unknown.
    async fn renew(&mut self, id: i64) -> Option<bool> {
        let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
        let asking = async {
            let mut answers = self.lease.lease_keep_alive(requests).await.ok()?.into_inner();
            Some(answers.message().await.ok()??.ttl > 0)
        };
        let renewed = tokio::time::timeout(self.timeout, asking).await.ok().flatten();
        self.shared.trace.line(&format!("lease {id} renewed: {renewed:?}"));
        renewed
    }

    async fn read(&mut self, key: Key) {
        let request = Request::Get { key };
        let call_ns = now_ns();
        let outcome = outcome(send(&mut self.kv, request), self.timeout, &self.shared).await;
        self.record(call_ns, request, outcome);
    }

    fn record(&self, call_ns: u64, request: Request, outcome: Outcome) {
        let (client, member, return_ns) = (self.number, self.member, now_ns());
        self.shared.record(Operation { client, member, call_ns, return_ns, request, outcome });
    }
}
