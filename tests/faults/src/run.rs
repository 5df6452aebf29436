//! One run: a cluster, clients and watchers, faults from a schedule, a quiet end, and what was recorded.
//!
//! Invariants: the recording is complete if the healed cluster came to rest; what it did not do in time is a finding of
//! the recording, not an error. An error means that the harness itself could not go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use harness::etcd::{EtcdCluster, Place};
use tokio::task::{JoinHandle, JoinSet};
use wire::etcdserverpb as pb;

use crate::cluster;
use crate::collect::run_watcher;
use crate::disk::Disks;
use crate::holders;
use crate::inject::{self, Injector};
use crate::journal::Journal;
use crate::judge;
use crate::lines::Workload;
use crate::network::{self, Network};
use crate::observe;
use crate::record::{About, FILES, Finding, Recording};
use crate::schedule::{self, Fault, Kind, Means, Target};
use crate::watch::Stream;
use crate::workload::{self, Shared};

pub const MEMBERS: usize = 3;
const CLIENTS: usize = 9;
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// From the end of the last fault until every member answers.
const HEALED_WITHIN: Duration = Duration::from_secs(60);
/// One try of that.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Until the keys of all leases that nobody keeps alive are gone.
const LEASES_END_WITHIN: Duration = Duration::from_secs(40);

#[derive(Clone, Debug)]
pub struct Settings {
    pub seed: u64,
    /// How long faults are injected.
    pub length: Duration,
    pub members: usize,
    pub means: Vec<Means>,
    /// The kinds of faults that are drawn; empty for all.
    pub only: Vec<String>,
    /// Another build, which members are for a while.
    pub other_version: Option<PathBuf>,
    /// The self-check: every disk says that it has synced and has not, then all lose power. Must be found.
    pub lying_disks: bool,
    /// Where the recording grows while the run goes on.
    pub journal: Option<PathBuf>,
}

impl Settings {
    /// Kills and pauses of three members, which work everywhere.
    pub fn processes_only(seed: u64, length: Duration) -> Settings {
        Settings {
            seed,
            length,
            members: MEMBERS,
            means: vec![Means::Processes],
            only: Vec::new(),
            other_version: None,
            lying_disks: false,
            journal: None,
        }
    }

    fn has(&self, means: Means) -> bool {
        self.means.contains(&means)
    }

    fn faults(&self) -> Vec<Fault> {
        match self.lying_disks {
            false => schedule::draw(self.seed, self.length, &self.means, &self.only),
            true => vec![Fault {
                kind: Kind::PowerCut,
                target: Target::All,
                at: self.length / 2,
                lasts: Duration::from_millis(500),
            }],
        }
    }
}

/// The members, on disks and in namespaces as the means allow; none is started.
fn prepare(settings: &Settings) -> Result<(EtcdCluster, Option<Network>, Option<Disks>)> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    // Fewer entries than the default, so that members that were away long are sent a snapshot.
    let flags = ["--snapshot-count=1000"];
    let size = settings.members;
    let disks = settings
        .has(Means::Disks)
        .then(|| Disks::build(dir.path(), size, settings.has(Means::DiskCopies)))
        .transpose()?;
    if !settings.has(Means::Namespaces) {
        let ports = harness::free_ports(2 * size)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let place =
            |pair: &[u16]| Place { client_url: url(pair[0]), peer_url: url(pair[1]), launcher: Vec::new() };
        let places: Vec<Place> = ports.chunks(2).map(place).collect();
        return Ok((EtcdCluster::prepare(dir, &places, None, None, &flags)?, None, disks));
    }
    let network = Network::build(size)?;
    let place = |member: usize| Place {
        client_url: format!("http://{}:2379", network::address(member)),
        peer_url: format!("http://{}:2380", network::address(member)),
        launcher: network.launcher(member),
    };
    let places: Vec<Place> = (0..size).map(place).collect();
    Ok((EtcdCluster::prepare(dir, &places, None, None, &flags)?, Some(network), disks))
}

/// Runs once. The cluster's directory goes with what this gives.
pub async fn run(settings: &Settings) -> Result<Run> {
    let (mut cluster, network, disks) = prepare(settings)?;
    if settings.lying_disks {
        for member in 0..settings.members {
            let output = cluster.dir.path().join(format!("lies-{member}"));
            cluster.wrap(member, inject::tracer(&output, "fdatasync,fsync", "fdatasync,fsync:retval=0"));
        }
    }
    let result = run_on(&mut cluster, network, disks.as_ref(), settings).await;
    let recording =
        result.with_context(|| format!("seed {}; members' logs:\n{}", settings.seed, cluster.log_ends()))?;
    Ok(Run { recording, _disks: disks, cluster })
}

/// A recording, and the cluster that it is of, which ends with this.
pub struct Run {
    pub recording: Recording,
    // Unmounted before the cluster's directory is removed.
    _disks: Option<Disks>,
    pub cluster: EtcdCluster,
}

struct Tasks {
    clients: JoinSet<Result<workload::Client>>,
    leases: JoinSet<Result<Vec<crate::leases::Lease>>>,
    sections: JoinSet<Result<Vec<crate::locks::Section>>>,
    samples: JoinSet<Vec<crate::record::Sample>>,
    upkeep: JoinHandle<observe::Upkeep>,
    watchers: Vec<JoinHandle<Result<Stream>>>,
    until: tokio::sync::watch::Sender<i64>,
}

fn start_tasks(injector: &Injector<'_>, shared: &Arc<Shared>, seed: u64) -> Tasks {
    let urls = &injector.cluster.client_urls;
    let (until, _) = tokio::sync::watch::channel(0);
    let mut tasks = Tasks {
        clients: JoinSet::new(),
        leases: JoinSet::new(),
        sections: JoinSet::new(),
        samples: JoinSet::new(),
        upkeep: tokio::spawn(observe::keep_up(urls.clone(), seed, shared.clone())),
        watchers: Vec::new(),
        until,
    };
    let own = |number: usize| seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
    for number in 0..CLIENTS {
        let member = number % urls.len();
        let client = workload::run_client(number, member, urls[member].clone(), own(number), shared.clone());
        tasks.clients.spawn(client);
    }
    for (member, url) in urls.iter().enumerate() {
        tasks.leases.spawn(holders::run_lease_holder(url.clone(), own(100 + member), shared.clone()));
        let lock = holders::run_lock_holder(member, member, url.clone(), own(200 + member), shared.clone());
        tasks.sections.spawn(lock);
        tasks.samples.spawn(observe::sample(member, url.clone(), injector.processes.clone(), shared.clone()));
        let watcher = run_watcher(member, url.clone(), tasks.until.subscribe(), shared.clone());
        tasks.watchers.push(tokio::spawn(watcher));
    }
    tasks
}

async fn run_on(
    cluster: &mut EtcdCluster,
    network: Option<Network>,
    disks: Option<&Disks>,
    settings: &Settings,
) -> Result<Recording> {
    let journal = settings.journal.as_ref();
    let journal =
        journal.map(|dir| Journal::create(dir, Workload::Store, &about(settings), &FILES)).transpose()?;
    let shared = Shared::with_journal(settings.members, journal);
    let mut injector = Injector::new(cluster, network, disks, shared.clone(), settings.seed);
    injector.other_version = settings.other_version.clone();
    for member in 0..settings.members {
        injector.revive(member)?;
    }
    cluster::ready(injector.cluster, STARTED_WITHIN).await?;
    let mut tasks = start_tasks(&injector, &shared, settings.seed);
    let faults = settings.faults();
    injector.run(&faults, settings.length).await?;

    let mut recording = Recording { about: about(settings), ..Recording::default() };
    match come_to_rest(&mut injector).await {
        Ok(healed) => recording.about.healed_ms = Some(healed.as_millis() as u64),
        Err(error) => recording.findings.push(finding("LIV", &error)),
    }
    // A quiet second in which everything must work; longer on a machine on which that is not enough.
    tokio::time::sleep(Duration::from_secs(1)).await;
    enough(&shared, judge::ANSWERED_MIN as u64).await;
    shared.stop.store(true, Ordering::Relaxed);
    collect(&mut tasks, &mut recording).await?;
    let ended = match recording.about.healed_ms {
        Some(_) => end_streams(injector.cluster, &mut tasks).await,
        None => Err(anyhow::anyhow!("the cluster did not come back")),
    };
    match ended {
        Ok(()) => recording.about.complete = true,
        Err(error) if recording.about.healed_ms.is_some() => recording.findings.push(finding("LIV", &error)),
        Err(_) => {}
    }
    if !recording.about.complete {
        tasks.until.send_replace(-1);
    }
    for (member, watcher) in tasks.watchers.into_iter().enumerate() {
        match tokio::time::timeout(HEALED_WITHIN, watcher).await {
            Ok(stream) => match stream? {
                Ok(stream) => recording.streams.push(stream),
                Err(error) => {
                    recording.streams.push(Stream::default());
                    recording.about.complete = false;
                    recording.findings.push(finding("WAT", &error));
                }
            },
            Err(_) => {
                recording.streams.push(Stream::default());
                recording.about.complete = false;
                let error = anyhow::anyhow!("the watch through m{} stands still", member + 1);
                recording.findings.push(finding("WAT", &error));
            }
        }
    }
    if recording.about.complete {
        match hashes(injector.cluster).await {
            Ok(hashes) => recording.about.hashes = hashes,
            Err(error) => recording.findings.push(finding("CON", &error)),
        }
    }
    recording.starts = injector.starts;
    recording.faults = injector.done;
    recording.images = injector.images;
    recording.findings.extend(injector.findings);
    Ok(recording)
}

/// How the members are run, for people.
pub(crate) fn level(settings: &Settings) -> String {
    let mut level = "real processes".to_owned();
    for (means, text) in [
        (Means::Namespaces, "network namespaces"),
        (Means::PacketQueues, "packets held back"),
        (Means::Disks, "a disk each"),
        (Means::Strace, "failing fdatasync"),
        (Means::Faketime, "changed clocks"),
    ] {
        if settings.has(means) {
            level = format!("{level}, {text}");
        }
    }
    if settings.lying_disks {
        level = format!("{level}; disks that lie (this must be found)");
    }
    level
}

/// Waits until clients were answered so often, but not for ever.
pub(crate) async fn enough(shared: &Shared, answered: u64) {
    let deadline = Instant::now() + HEALED_WITHIN;
    while shared.answered.load(Ordering::Relaxed) < answered && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn about(settings: &Settings) -> About {
    let drifts = settings.has(Means::Faketime);
    About {
        seed: settings.seed,
        seconds: settings.length.as_secs_f64(),
        members: settings.members,
        level: level(settings),
        only: settings.only.clone(),
        drift: if drifts { inject::DRIFT } else { 1.0 },
        ..About::default()
    }
}

pub(crate) fn finding(checker: &str, error: &anyhow::Error) -> Finding {
    Finding { checker: checker.to_owned(), sentence: format!("{error:#}") }
}

/// Until every member answers.
pub(crate) async fn come_to_rest(injector: &mut Injector<'_>) -> Result<Duration> {
    let healing = Instant::now();
    injector.make_sound(HEALED_WITHIN).await?;
    loop {
        injector.supervise().await?;
        let left = HEALED_WITHIN.saturating_sub(healing.elapsed());
        let mut silent = Vec::new();
        for (member, url) in injector.cluster.client_urls.iter().enumerate() {
            if !cluster::answers(url, ANSWER_WITHIN).await {
                silent.push(format!("m{}", member + 1));
            }
        }
        if silent.is_empty() {
            return Ok(healing.elapsed());
        }
        if left.is_zero() {
            let logs = injector.cluster.log_ends();
            let silent = silent.join(", ");
            bail!("{silent} did not answer within {HEALED_WITHIN:?} after the last fault; logs:\n{logs}");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn collect(tasks: &mut Tasks, recording: &mut Recording) -> Result<()> {
    while let Some(done) = tasks.clients.join_next().await {
        let client = done??;
        recording.operations.extend(client.operations);
        recording.reads.extend(client.reads);
    }
    while let Some(done) = tasks.leases.join_next().await {
        recording.leases.extend(done??);
    }
    while let Some(done) = tasks.sections.join_next().await {
        recording.sections.extend(done??);
    }
    while let Some(done) = tasks.samples.join_next().await {
        recording.samples.extend(done?);
    }
    recording.samples.sort_by_key(|sample| sample.at_ns);
    let upkeep = (&mut tasks.upkeep).await?;
    recording.about.compactions = upkeep.compactions;
    recording.about.defragmentations = upkeep.defragmentations;
    Ok(())
}

/// Waits until all leases have ended, then lets the watchers end at the last revision.
async fn end_streams(cluster: &EtcdCluster, tasks: &mut Tasks) -> Result<()> {
    let mut client = cluster::client(&cluster.client_urls[0])?;
    let deadline = Instant::now() + LEASES_END_WITHIN;
    let revision = loop {
        let leases = client.lease.lease_leases(pb::LeaseLeasesRequest {}).await;
        if Instant::now() > deadline || leases.is_ok_and(|leases| leases.get_ref().leases.is_empty()) {
            // Those that are left are found by what is still in the log.
            let read = pb::RangeRequest { key: "k".into(), ..Default::default() };
            break workload::revision(client.kv.range(read).await?.into_inner().header.as_ref())?;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    tasks.until.send_replace(revision);
    Ok(())
}

/// All members have the same revision and the same keys and versions, soon; otherwise the last that they said.
async fn hashes(cluster: &EtcdCluster) -> Result<Vec<(usize, i64, u32)>> {
    let deadline = Instant::now() + HEALED_WITHIN;
    loop {
        let mut hashes = Vec::new();
        for (member, url) in cluster.client_urls.iter().enumerate() {
            let (revision, hash) = cluster::state_hash(url).await?;
            hashes.push((member, revision, hash));
        }
        let same = hashes.windows(2).all(|pair| (pair[0].1, pair[0].2) == (pair[1].1, pair[1].2));
        if same || Instant::now() > deadline {
            return Ok(hashes);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
