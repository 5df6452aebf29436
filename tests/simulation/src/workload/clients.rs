//! Clients: each at one member, one operation after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use faults::history::{Answer, Entry, Key, Operation, Outcome, Request};
use tonic::transport::Channel;
use wal::sim_disk::crash::Random;
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_client::KvClient;

use super::answers::{found, key_bytes, outcome, send};
use super::{LocalRead, PAUSE_AFTER_ERROR_MS, Shared, now_ns};
use crate::member::{CLIENT_PORT, host};
use crate::network::channel;

/// A client at one member until it is told to stop.
pub(super) async fn client(number: usize, member: usize, seed: u64, shared: Arc<Shared>) {
    let _running = shared.begin();
    let mut random = Random(seed);
    let (first, mut member) = (member, member);
    let mut kv = KvClient::new(channel(&host(member), CLIENT_PORT));
    let timeout = Duration::from_millis(shared.load.timeout_ms);
    let mut seen: BTreeMap<Key, Option<Entry>> = BTreeMap::new();
    while !shared.stopping() {
        let at = shared.roster.stay(member, first);
        if at != member {
            member = at;
            kv = KvClient::new(channel(&host(member), CLIENT_PORT));
        }
        let key = Key::try_from(random.below(u64::from(shared.load.keys))).unwrap_or(0);
        if random.below(100) < 15 {
            local_read(number, member, key, &mut kv, timeout, &shared).await;
        } else {
            let request = choose(key, &mut random, &seen, &shared);
            let call_ns = now_ns();
            let outcome = outcome(send(&mut kv, request), timeout, &shared).await;
            if let Outcome::Done(Answer::Found { entry, .. } | Answer::Kept { entry, .. }) = &outcome {
                seen.insert(key, *entry);
            }
            if let Outcome::Done(Answer::Deleted { .. }) = &outcome {
                seen.insert(key, None);
            }
            if let (true, Outcome::Done(Answer::Put { .. })) = (shared.load.short_lives, &outcome) {
                seen.insert(key, Some(Entry { value: 0, create_revision: 0, mod_revision: 0, version: 0 }));
            }
            let failed = !matches!(outcome, Outcome::Done(_));
            let return_ns = now_ns();
            shared.record(Operation { client: number, member, call_ns, return_ns, request, outcome });
            if failed {
                tokio::time::sleep(Duration::from_millis(PAUSE_AFTER_ERROR_MS)).await;
            }
        }
        let pause_ms = random.below(shared.load.pause_ms_max + 1);
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

fn choose(key: Key, random: &mut Random, seen: &BTreeMap<Key, Option<Entry>>, shared: &Shared) -> Request {
    if shared.load.short_lives {
        return match (random.below(100), seen.get(&key)) {
            (0..25, _) => Request::Get { key },
            (_, Some(None) | None) => Request::Put { key, value: shared.value() },
            (_, Some(Some(_))) => Request::Delete { key },
        };
    }
    match random.below(100) {
        0..35 => Request::Get { key },
        35..70 => Request::Put { key, value: shared.value() },
        70..80 => Request::Delete { key },
        _ => {
            let known = seen.get(&key).copied().flatten();
            Request::Swap {
                key,
                expected_revision: known.map_or(0, |entry| entry.mod_revision),
                expected: known.map(|entry| entry.value),
                value: shared.value(),
            }
        }
    }
}

async fn local_read(
    number: usize,
    member: usize,
    key: Key,
    kv: &mut KvClient<Channel>,
    timeout: Duration,
    shared: &Shared,
) {
    let request = pb::RangeRequest { key: key_bytes(key), serializable: true, ..Default::default() };
    let Ok(Ok(answer)) = tokio::time::timeout(timeout, kv.range(request)).await else { return };
    match found(&answer.into_inner()) {
        Ok((revision, entry)) => {
            shared.trace.line(&format!("client {number} member {member} has {key} {entry:?} at {revision}"));
            let read = LocalRead { client: number, member, revision, key, entry, return_ns: now_ns() };
            shared.read(read);
        }
        Err(finding) => shared.find(finding),
    }
}
