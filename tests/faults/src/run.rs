//! One run: a cluster, clients and watchers, faults from a schedule, a quiet end, and the verdict.
//!
//! A run ends with an error when something was violated, when the healed cluster did not come back, or when the run
//! proves nothing because no fault took effect or too little was answered.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::etcd::EtcdCluster;
use serde_json::{Value as Json, json};
use tokio::task::JoinSet;
use wire::etcdserverpb as pb;

use crate::cluster;
use crate::history::{Operation, Outcome};
use crate::linear;
use crate::log::Log;
use crate::schedule::{self, Fault, Kind, Target};
use crate::search::{self, Hint, Hints, Verdict};
use crate::workload::{self, Shared};

pub const MEMBERS: usize = 3;
const CLIENTS: usize = 9;
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// From the end of the last fault until every member answers.
const HEALED_WITHIN: Duration = Duration::from_secs(30);
/// Below this a run says nothing.
const ANSWERED_MIN: usize = 200;

#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    /// How long faults are injected.
    pub length: Duration,
}

/// What a run found, as one JSON object.
pub type Report = Json;

/// Leaves nothing behind if it succeeds; otherwise the error says where the members' data and logs are.
pub async fn run(settings: &Settings) -> Result<Report> {
    let mut cluster = EtcdCluster::start(MEMBERS, None, None, &[])?;
    let result = run_on(&mut cluster, settings).await;
    result
        .inspect_err(|_| cluster.dir.disable_cleanup(true))
        .with_context(|| format!("seed {}; data and logs: {}", settings.seed, cluster.dir.path().display()))
}

async fn run_on(cluster: &mut EtcdCluster, settings: &Settings) -> Result<Report> {
    cluster::ready(cluster, STARTED_WITHIN).await?;
    let shared = Shared::new();
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let member = number % MEMBERS;
        let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
        let url = cluster.client_urls[member].clone();
        clients.spawn(workload::run_client(number, member, url, seed, shared.clone()));
    }
    let (until, _) = tokio::sync::watch::channel(0);
    let urls = cluster.client_urls.iter().cloned();
    let watchers: Vec<_> =
        urls.map(|url| tokio::spawn(workload::run_watcher(url, until.subscribe()))).collect();

    let faults = schedule::draw(settings.seed, settings.length);
    let effects = inject(cluster, &faults, settings.length).await?;
    let healing = Instant::now();
    cluster::ready(cluster, HEALED_WITHIN).await.context("after the last fault")?;
    let healed = healing.elapsed();
    // A quiet second in which everything must work.
    tokio::time::sleep(Duration::from_secs(1)).await;
    shared.stop.store(true, Ordering::Relaxed);

    let mut operations: Vec<Operation> = Vec::new();
    while let Some(done) = clients.join_next().await {
        operations.extend(done??);
    }
    until.send_replace(last_revision(cluster).await?);
    let mut streams = Vec::new();
    for (member, watcher) in watchers.into_iter().enumerate() {
        let done = tokio::time::timeout(HEALED_WITHIN, watcher).await;
        streams.push(done.with_context(|| format!("the watch through member {member} stands still"))???);
    }
    same_state(cluster).await?;

    let checking = Instant::now();
    let log = Log::agreed(&streams).map_err(|violation| anyhow::anyhow!("VIOLATION: {violation}"))?;
    let verdict = judge(&log, &operations)?;
    let answered = count(&operations, |outcome| matches!(outcome, Outcome::Done(_)));
    let effective = effects.iter().filter(|effect| effect.members > 0).count();
    ensure!(effective > 0, "not a valid run: of {} faults none took effect", faults.len());
    ensure!(answered >= ANSWERED_MIN, "not a valid run: only {answered} operations were answered");
    Ok(json!({
        "seed": settings.seed,
        "seconds": settings.length.as_secs_f64(),
        "operations": operations.len(),
        "answered": answered,
        "refused": count(&operations, |outcome| matches!(outcome, Outcome::Refused(_))),
        "unknown": count(&operations, |outcome| matches!(outcome, Outcome::Unknown(_))),
        "unknown_that_happened": verdict.resolved.happened,
        "unknown_that_did_not": verdict.resolved.did_not,
        "unknown_deletions": verdict.resolved.open,
        "changes": log.changes().len(),
        "watch_events_compared": log.changes().len() * MEMBERS,
        "faults": faults.len(),
        "faults_with_effect": effective,
        "fault_list": effects.iter().map(Effect::to_json).collect::<Vec<_>>(),
        "longest_silence_ms": longest_silence_ms(&operations),
        "answered_after_last_fault_ms": healed.as_millis() as u64,
        "search": format!("{:?}", verdict.search),
        "check_ms": checking.elapsed().as_millis() as u64,
        "violations": 0,
    }))
}

struct Judged {
    resolved: linear::Resolved,
    search: Verdict,
}

fn judge(log: &Log, operations: &[Operation]) -> Result<Judged> {
    let resolved = match linear::check(log, operations) {
        Ok(resolved) => resolved,
        Err(violation) => bail!("VIOLATION: {violation}"),
    };
    let search = search::check(operations, &hints(log, operations, &resolved));
    if let Verdict::Violation(violation) = &search {
        bail!("VIOLATION: {violation}");
    }
    Ok(Judged { resolved, search })
}

fn hints(log: &Log, operations: &[Operation], resolved: &linear::Resolved) -> Hints {
    let mut hints = Hints::default();
    for operation in operations {
        if let (Outcome::Unknown(_), Some(value)) = (&operation.outcome, operation.request.value()) {
            hints.values.insert(value, Hint::DidNot);
        }
        hints.undeleted.insert(operation.request.key());
    }
    for value in log.changes().iter().filter_map(|change| change.value) {
        if let Some(hint) = hints.values.get_mut(&value) {
            *hint = Hint::Happened;
        }
    }
    hints.undeleted.retain(|key| !resolved.deleted_by_unknown.contains(key));
    hints
}

/// What a fault met.
struct Effect {
    fault: Fault,
    /// How many running members it hit.
    members: usize,
}

impl Effect {
    fn to_json(&self) -> Json {
        json!({ "fault": self.fault.to_string(), "members": self.members })
    }
}

/// Begins and ends the faults at their times; afterwards all members run.
async fn inject(cluster: &mut EtcdCluster, faults: &[Fault], length: Duration) -> Result<Vec<Effect>> {
    let started = Instant::now();
    let mut effects = Vec::new();
    // (when it is over, kind, members), in no order.
    let mut active: Vec<(Duration, Kind, Vec<usize>)> = Vec::new();
    let mut upcoming = faults.iter().peekable();
    loop {
        let next_begin = upcoming.peek().map(|fault| fault.at);
        let next_end = active.iter().map(|(end, ..)| *end).min();
        let Some(next) = next_begin.into_iter().chain(next_end).min() else { break };
        tokio::time::sleep_until((started + next).into()).await;
        if next_end == Some(next) {
            let ended = active.iter().position(|(end, ..)| *end == next).expect("the minimum is in the list");
            let (_, kind, members) = active.swap_remove(ended);
            for member in members {
                match kind {
                    Kind::Kill => cluster.revive(member)?,
                    Kind::Pause => drop(cluster.resume(member)?),
                }
            }
        } else if let Some(fault) = upcoming.next() {
            let mut met = Vec::new();
            for member in victims(cluster, fault.target).await {
                let hit = match fault.kind {
                    Kind::Kill => cluster.kill(member)?,
                    Kind::Pause => cluster.pause(member)?,
                };
                if hit {
                    met.push(member);
                }
            }
            effects.push(Effect { fault: *fault, members: met.len() });
            active.push((fault.at + fault.lasts, fault.kind, met));
        }
    }
    for member in 0..MEMBERS {
        cluster.revive(member)?;
        cluster.resume(member)?;
    }
    tokio::time::sleep_until((started + length).into()).await;
    Ok(effects)
}

async fn victims(cluster: &EtcdCluster, target: Target) -> Vec<usize> {
    let leader = cluster::leader(cluster).await.unwrap_or(0);
    match target {
        Target::Leader => vec![leader],
        Target::Follower => vec![(leader + 1) % MEMBERS],
        Target::Majority => vec![leader, (leader + 2) % MEMBERS],
        Target::All => (0..MEMBERS).collect(),
    }
}

async fn last_revision(cluster: &EtcdCluster) -> Result<i64> {
    let mut client = cluster::client(&cluster.client_urls[0])?;
    let answer = client.kv.range(pb::RangeRequest { key: "k".into(), ..Default::default() }).await?;
    Ok(answer.into_inner().header.context("an answer without a header")?.revision)
}

/// All members have the same revision and the same keys and versions, soon.
async fn same_state(cluster: &EtcdCluster) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut hashes = Vec::new();
        for url in &cluster.client_urls {
            hashes.push(cluster::state_hash(url).await?);
        }
        if hashes.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("VIOLATION: members differ in (revision, state hash): {hashes:?}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn count(operations: &[Operation], wanted: impl Fn(&Outcome) -> bool) -> usize {
    operations.iter().filter(|operation| wanted(&operation.outcome)).count()
}

/// The longest time in which no client was answered.
fn longest_silence_ms(operations: &[Operation]) -> u64 {
    let mut returns: Vec<u64> = operations
        .iter()
        .filter(|operation| matches!(operation.outcome, Outcome::Done(_)))
        .map(|operation| operation.return_ns)
        .collect();
    returns.sort_unstable();
    returns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) / 1_000_000
}
