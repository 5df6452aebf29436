//! One run of three control planes: clients of all API servers, faults from a schedule, a quiet end, what was recorded.
//!
//! Invariants: what the healed servers did not do in time is a finding of the recording; an error means that the harness
//! itself could not go on. Watches begin before anything is written, so that the recording holds all of it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use harness::certificates::Authority;
use harness::etcd::{EtcdCluster, Place};
use kubeclient::{Api, Client};
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};

use crate::api::clients::{self, COUNTERS, Door, NAMESPACE, kind};
use crate::api::history::{Attempt, Increment, Node, Observed, Stream, Toggle};
use crate::api::informers::{self, Informed};
use crate::api::record::{About, FILES, Recording};
use crate::api::{judge, store_log, watchers};
use crate::disk::Disks;
use crate::inject::Injector;
use crate::journal::Journal;
use crate::lines::Workload;
use crate::network::{self, Network};
use crate::observe;
use crate::record::Sample;
use crate::run::{Settings, come_to_rest, enough, finding, level};
use crate::schedule::{self, Kind, Means};
use crate::workload::Shared;

/// From the start of all members until each API server answers.
const STARTED_WITHIN: Duration = Duration::from_secs(120);
/// From the healed store until every API server answers and a new pod has a node. A scheduler that was killed keeps its
/// Lease for 15 s.
const SERVES_WITHIN: Duration = Duration::from_secs(60);
const ENDS_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const CLIENTS_PER_MEMBER: usize = 3;
/// Longer than for the store alone, because an API server that starts is of no use for a while.
const GAP_MS: std::ops::Range<u64> = 1_500..4_000;
const KINDS: [&str; 3] = ["configmaps", "pods", "rolebindings"];
/// A control plane has no flag for joining, so none is replaced; clocks and single calls are the store's workload.
const DISTURBED_BY: [Kind; 22] = [
    Kind::Kill,
    Kind::OutOfMemory,
    Kind::SlowProcessor,
    Kind::FewDescriptors,
    Kind::Pause,
    Kind::Freeze,
    Kind::Cut,
    Kind::CutOutgoing,
    Kind::CutIncoming,
    Kind::CutPair,
    Kind::Ring,
    Kind::Loss,
    Kind::SlowLink,
    Kind::Delay,
    Kind::Reorder,
    Kind::Duplicate,
    Kind::BlackHole,
    Kind::Reset,
    Kind::Flap,
    Kind::PowerCut,
    Kind::MoveLeader,
    Kind::RollingRestart,
];

pub struct Run {
    pub recording: Recording,
    // Unmounted before the cluster's directory is removed.
    _disks: Option<Disks>,
    pub cluster: EtcdCluster,
}

struct Prepared {
    cluster: EtcdCluster,
    network: Option<Network>,
    disks: Option<Disks>,
    doors: Vec<Door>,
}

/// Three members with certificates from one cluster CA, on disks and in namespaces as the means allow; none is started.
fn prepare(settings: &Settings) -> Result<Prepared> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let size = settings.members;
    let pki = dir.path().join("pki");
    let users = dir.path().join("users");
    fs::create_dir_all(&pki)?;
    fs::create_dir_all(&users)?;
    let root = Authority::root("Faults Root CA")?;
    let authority = root.intermediate("Faults Cluster CA")?;
    fs::write(pki.join("root.crt"), root.certificate_pem())?;
    fs::write(pki.join("ca.crt"), authority.certificate_pem())?;
    fs::write(pki.join("ca.key"), authority.key_pem())?;
    let admin = authority.client(&users, "boss", &["system:masters"])?;
    let ana = authority.client(&users, "ana", &["dev"])?;

    let disks =
        settings.means.contains(&Means::Disks).then(|| Disks::build(dir.path(), size, false)).transpose()?;
    let network = settings.means.contains(&Means::Namespaces).then(|| Network::build(size)).transpose()?;
    let ports = harness::free_ports(3 * size)?;
    let address = |member: usize, own: u16, at: usize| match &network {
        Some(_) => format!("{}:{own}", network::address(member)),
        None => format!("127.0.0.1:{}", ports[3 * member + at]),
    };
    let place = |member: usize| Place {
        client_url: format!("http://{}", address(member, 2379, 0)),
        peer_url: format!("http://{}", address(member, 2380, 1)),
        launcher: network.as_ref().map_or_else(Vec::new, |network| network.launcher(member)),
    };
    let places: Vec<Place> = (0..size).map(place).collect();
    let api: Vec<String> = (0..size).map(|member| address(member, 6443, 2)).collect();
    let door = |address: &String| Door {
        url: format!("https://{address}"),
        root_pem: root.certificate_pem().into(),
        admin: admin.clone(),
        ana: ana.clone(),
    };
    let doors = api.iter().map(door).collect();
    let cluster = EtcdCluster::prepare_control_planes(dir, &places, &api, &pki)?;
    Ok(Prepared { cluster, network, disks, doors })
}

/// Runs once. The cluster's directory goes with what this gives.
pub async fn run(settings: &Settings) -> Result<Run> {
    let Prepared { mut cluster, network, disks, doors } = prepare(settings)?;
    let result = run_on(&mut cluster, network, disks.as_ref(), &doors, settings).await;
    let recording =
        result.with_context(|| format!("seed {}; members' logs:\n{}", settings.seed, cluster.log_ends()))?;
    Ok(Run { recording, _disks: disks, cluster })
}

fn nodes() -> Vec<Node> {
    let node = |name: &str, cpu_m, pods, disk: Option<&str>, cordoned| Node {
        name: name.to_owned(),
        cpu_m,
        pods,
        disk: disk.map(str::to_owned),
        cordoned,
    };
    vec![
        node("small", 1_000, 20, None, false),
        node("few", 4_000, 4, None, false),
        node("fast", 1_000, 20, Some("ssd"), false),
        node("cordoned", 64_000, 100, Some("ssd"), true),
    ]
}

fn node_object(node: &Node) -> Value {
    let resources =
        json!({ "cpu": format!("{}m", node.cpu_m), "memory": "64Gi", "pods": node.pods.to_string() });
    let labels = node.disk.as_ref().map_or(json!({}), |disk| json!({ "disk": disk }));
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name, "labels": labels },
        "spec": { "unschedulable": node.cordoned },
        "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [{ "type": "Ready", "status": "True", "reason": "", "message": "" }],
        },
    })
}

/// Tries until it is there.
async fn make(api: &Api, object: &Value) -> Result<()> {
    let deadline = Instant::now() + STARTED_WITHIN;
    loop {
        match api.create(object).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_already_exists() => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error).context("cannot set the stage"),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

async fn serves(injector: &mut Injector<'_>, doors: &[Door], within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    for (member, door) in doors.iter().enumerate() {
        let client = door.admin()?;
        let secrets = client.api("", "v1", "secrets").namespace(NAMESPACE);
        loop {
            let Err(error) = secrets.get_opt("none").await else { break };
            if Instant::now() > deadline {
                bail!("the API server of m{} does not answer within {within:?}: {error}", member + 1);
            }
            injector.supervise().await?;
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

struct Tasks {
    counters: JoinSet<Result<Vec<Increment>>>,
    pods: JoinSet<Result<()>>,
    toggles: JoinSet<Result<Vec<Toggle>>>,
    samples: JoinSet<Vec<Sample>>,
    attempts: JoinSet<Result<(Vec<Attempt>, Vec<Observed>)>>,
    watchers: Vec<JoinHandle<Stream>>,
    informers: Vec<JoinHandle<Informed>>,
    /// One per kind.
    store: Vec<JoinHandle<Result<Stream>>>,
    /// Per kind the version until which its watchers go on.
    ends: Vec<tokio::sync::watch::Sender<u64>>,
}

async fn start_tasks(doors: &[Door], stores: &[String], shared: &Arc<Shared>, seed: u64) -> Result<Tasks> {
    let boss = doors[0].admin()?;
    make(
        &boss.api("", "v1", "namespaces"),
        &json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE },
        }),
    )
    .await?;
    let mut tasks = Tasks {
        counters: JoinSet::new(),
        pods: JoinSet::new(),
        toggles: JoinSet::new(),
        samples: JoinSet::new(),
        attempts: JoinSet::new(),
        watchers: Vec::new(),
        informers: Vec::new(),
        store: Vec::new(),
        ends: KINDS.iter().map(|_| tokio::sync::watch::channel(0).0).collect(),
    };
    for (member, door) in doors.iter().enumerate() {
        let client = door.admin()?;
        for (plural, end) in KINDS.iter().zip(&tasks.ends) {
            let with = || (kind(&client, plural), end.subscribe(), shared.clone());
            let ((api, end, shared), second) = (with(), with());
            let follow = async move { watchers::follow(member, plural, api, end, shared).await };
            tasks.watchers.push(tokio::spawn(follow));
            let (api, end, shared) = second;
            let inform = async move { informers::inform(member, plural, api, end, shared).await };
            tasks.informers.push(tokio::spawn(inform));
        }
    }
    for (plural, end) in KINDS.into_iter().zip(&tasks.ends) {
        let log = store_log::follow(stores.to_vec(), plural, end.subscribe(), shared.clone());
        tasks.store.push(tokio::spawn(log));
    }
    for node in nodes() {
        make(&boss.api("", "v1", "nodes"), &node_object(&node)).await?;
    }
    for number in 0..COUNTERS {
        make(&kind(&boss, "configmaps"), &clients::counter(&format!("counter-{number}"))).await?;
    }
    make(&kind(&boss, "roles"), &clients::role()).await?;
    let own = |number: usize| seed.wrapping_mul(1_000_003).wrapping_add(number as u64);
    for (member, door) in doors.iter().enumerate() {
        for client in 0..CLIENTS_PER_MEMBER {
            let number = member * CLIENTS_PER_MEMBER + client;
            tasks.counters.spawn(clients::count(number, member, door.clone(), own(number), shared.clone()));
            tasks.attempts.spawn(clients::attempt(member, door.clone(), shared.clone()));
        }
        tasks.pods.spawn(clients::fill(member, doors.to_vec(), own(100 + member), shared.clone()));
    }
    tasks.toggles.spawn(clients::toggle(doors.to_vec(), own(200), shared.clone()));
    Ok(tasks)
}

async fn run_on(
    cluster: &mut EtcdCluster,
    network: Option<Network>,
    disks: Option<&Disks>,
    doors: &[Door],
    settings: &Settings,
) -> Result<Recording> {
    let about = About {
        seed: settings.seed,
        seconds: settings.length.as_secs_f64(),
        members: settings.members,
        level: level(settings),
        only: settings.only.clone(),
        ..About::default()
    };
    let journal = settings.journal.as_ref();
    let journal = journal.map(|dir| Journal::create(dir, Workload::Api, &about, &FILES)).transpose()?;
    let shared = Shared::with_journal(settings.members, journal);
    nodes().iter().for_each(|node| shared.note("nodes", node));
    let mut injector = Injector::new(cluster, network, disks, shared.clone(), settings.seed);
    for member in 0..settings.members {
        injector.revive(member)?;
    }
    crate::cluster::ready(injector.cluster, STARTED_WITHIN).await?;
    serves(&mut injector, doors, STARTED_WITHIN).await?;
    let mut tasks = start_tasks(doors, &injector.cluster.client_urls, &shared, settings.seed).await?;
    for (member, url) in injector.cluster.client_urls.iter().enumerate() {
        let processes = injector.processes.clone();
        tasks.samples.spawn(observe::sample(member, url.clone(), processes, shared.clone()));
    }
    let kinds = schedule::combinations(&settings.means);
    let kinds = kinds.into_iter().filter(|(kind, _)| DISTURBED_BY.contains(kind)).collect();
    let kinds = schedule::only(kinds, &settings.only);
    let faults = schedule::draw_of(settings.seed, settings.length, kinds, GAP_MS);
    injector.run(&faults, settings.length).await?;

    let mut recording = Recording { about, nodes: nodes(), ..Recording::default() };
    let healing = Instant::now();
    let healed = match come_to_rest(&mut injector).await {
        Ok(_) => serves(&mut injector, doors, SERVES_WITHIN).await,
        Err(error) => Err(error),
    };
    if healed.is_ok() {
        enough(&shared, judge::INCREMENTS_MIN as u64).await;
    }
    shared.stop.store(true, Ordering::Relaxed);
    collect(&mut tasks, &mut recording).await?;
    match healed {
        Ok(()) => match place_a_pod(doors).await {
            Ok(()) => recording.about.healed_ms = Some(healing.elapsed().as_millis() as u64),
            Err(error) => recording.findings.push(finding("LIV", &error)),
        },
        Err(error) => recording.findings.push(finding("LIV", &error)),
    }
    end_watches(doors, tasks, &mut recording).await?;
    recording.faults = injector.done;
    recording.findings.extend(injector.findings);
    Ok(recording)
}

async fn collect(tasks: &mut Tasks, recording: &mut Recording) -> Result<()> {
    while let Some(done) = tasks.counters.join_next().await {
        recording.increments.extend(done??);
    }
    while let Some(done) = tasks.pods.join_next().await {
        done??;
    }
    while let Some(done) = tasks.toggles.join_next().await {
        recording.toggles.extend(done??);
    }
    while let Some(done) = tasks.samples.join_next().await {
        recording.samples.extend(done?);
    }
    recording.samples.sort_by_key(|sample| sample.at_ns);
    while let Some(done) = tasks.attempts.join_next().await {
        let (attempts, observed) = done??;
        recording.attempts.extend(attempts);
        recording.observed.extend(observed);
    }
    Ok(())
}

/// Through each member a pod is created that fits, and gets a node in time.
async fn place_a_pod(doors: &[Door]) -> Result<()> {
    let deadline = Instant::now() + SERVES_WITHIN;
    for (member, door) in doors.iter().enumerate() {
        let (pods, name) = (kind(&door.admin()?, "pods"), format!("last-{member}"));
        make(&pods, &clients::pod(&name, 50, None)).await?;
        loop {
            let seen = pods.get(&name).await;
            if seen.as_ref().is_ok_and(|pod| pod["spec"]["nodeName"].is_string()) {
                break;
            }
            if Instant::now() > deadline {
                let said = seen.map_or_else(|error| error.to_string(), |pod| pod["status"].to_string());
                bail!("a pod created through m{} has no node after {SERVES_WITHIN:?}: {said}", member + 1);
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// Writes a last object of each kind, and waits until every watch has told it.
async fn end_watches(doors: &[Door], tasks: Tasks, recording: &mut Recording) -> Result<()> {
    recording.about.complete = true;
    for (plural, end) in KINDS.iter().zip(&tasks.ends) {
        match last_of(&doors[0].admin()?, plural).await {
            Ok(version) => {
                end.send_replace(version);
                recording.about.ends.push(((*plural).to_owned(), version));
            }
            Err(error) => {
                recording.findings.push(finding("LIV", &error));
                recording.about.complete = false;
            }
        }
    }
    let deadline = Instant::now() + ENDS_WITHIN;
    while recording.about.complete && Instant::now() < deadline {
        if tasks.watchers.iter().all(JoinHandle::is_finished)
            && tasks.informers.iter().all(JoinHandle::is_finished)
            && tasks.store.iter().all(JoinHandle::is_finished)
        {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let late: Vec<usize> =
        (0..tasks.watchers.len()).filter(|at| !tasks.watchers[*at].is_finished()).collect();
    if let (Some(at), true) = (late.first(), recording.about.complete) {
        let (member, plural) = (at / KINDS.len() + 1, KINDS[at % KINDS.len()]);
        let error = anyhow!(
            "{} watches stand still {ENDS_WITHIN:?} after the last fault, the first is of {plural} through m{member}",
            late.len()
        );
        recording.findings.push(finding("LIV", &error));
    }
    let behind = tasks.informers.iter().position(|informer| !informer.is_finished());
    if let (Some(at), true) = (behind, recording.about.complete) {
        let (member, plural) = (at / KINDS.len(), KINDS[at % KINDS.len()]);
        let error = anyhow!(
            "the informer of {plural} through member {member} is behind {ENDS_WITHIN:?} after the last fault"
        );
        recording.findings.push(finding("LIV", &error));
    }
    recording.about.complete &= late.is_empty() && behind.is_none();
    for end in &tasks.ends {
        end.send_replace(u64::MAX);
    }
    for store in tasks.store {
        recording.store.push(store.await??);
    }
    for informer in tasks.informers {
        recording.informers.push(informer.await?);
    }
    for watcher in tasks.watchers {
        recording.streams.push(watcher.await?);
    }
    if !recording.about.complete {
        recording.about.ends.clear();
    }
    Ok(())
}

async fn last_of(client: &Client, plural: &str) -> Result<u64> {
    let api = kind(client, plural);
    let object = match plural {
        "configmaps" => json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "the-end" } }),
        "pods" => clients::pod("the-end", 50, None),
        // Ana no longer asks.
        _ => clients::binding("the-end", None),
    };
    make(&api, &object).await?;
    Ok(clients::version(&api.get("the-end").await?))
}
