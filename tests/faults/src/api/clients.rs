//! Clients of the API servers: they count, create and delete pods, give and take a right, and try what it allows.
//!
//! Invariants: each is sequential and writes down what it asked before it asks; only an answer that the server gives
//! without having written counts as "no effect".

use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use apimachinery::meta;
use harness::certificates::Leaf;
use kubeclient::{Api, Client, DeleteOptions, Endpoint, Error, ListOptions, Transport};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::api::history::{Attempt, Increment, Observed, Outcome, Toggle};
use crate::workload::{PAUSE_AFTER_ERROR, Shared};

pub const NAMESPACE: &str = "faults";
pub const COUNTERS: usize = 4;
const TIMEOUT: Duration = Duration::from_secs(3);
/// A client that tries again waits at least a second before; what came sooner is the answer to the only try.
const ONE_TRY: Duration = Duration::from_millis(900);
/// A client's own pods at once; those of all are more than fit.
const PODS: usize = 6;

/// Who may ask where.
#[derive(Clone)]
pub struct Door {
    pub url: String,
    pub root_pem: Vec<u8>,
    pub admin: Leaf,
    /// May do nothing but what the binding gives.
    pub ana: Leaf,
}

impl Door {
    fn client(&self, leaf: &Leaf) -> Result<Client> {
        let endpoint = Endpoint {
            servers: vec![self.url.clone()],
            ca_pem: Some(self.root_pem.clone()),
            client_identity_pem: Some((fs::read(&leaf.certificate)?, fs::read(&leaf.key)?)),
            ..Endpoint::default()
        };
        Ok(Client::new(Transport::connect(endpoint)?, "faults").with_timeout(TIMEOUT))
    }

    pub fn admin(&self) -> Result<Client> {
        self.client(&self.admin)
    }

    pub fn ana(&self) -> Result<Client> {
        self.client(&self.ana)
    }
}

/// The kind in the run's namespace.
pub fn kind(client: &Client, plural: &str) -> Api {
    let group = if plural.starts_with("role") { "rbac.authorization.k8s.io" } else { "" };
    client.api(group, "v1", plural).namespace(NAMESPACE)
}

pub fn version(object: &Value) -> u64 {
    meta::of(object).resource_version().parse().unwrap_or(0)
}

fn outcome(answer: std::result::Result<Value, Error>, took: Duration) -> Outcome {
    match answer {
        Ok(object) => Outcome::Done(version(&object)),
        Err(error) => {
            let refused = match &error {
                Error::Status(status) => (400..500).contains(&status.code) && status.code != 429,
                Error::Unreachable { .. } | Error::Request(_) => true,
                Error::OutcomeUnknown { .. } | Error::Interrupted { .. } | Error::Answer { .. } => false,
            };
            match refused && took < ONE_TRY {
                true => Outcome::Refused(error.to_string()),
                false => Outcome::Unknown(error.to_string()),
            }
        }
    }
}

pub fn counter(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "count": "0", "writer": "0" },
    })
}

/// Reads a counter and writes it back with one more, again and again.
pub async fn count(
    number: usize,
    member: usize,
    door: Door,
    seed: u64,
    shared: Arc<Shared>,
) -> Result<Vec<Increment>> {
    let api = kind(&door.admin()?, "configmaps");
    let mut random = StdRng::seed_from_u64(seed);
    let mut done = Vec::new();
    while !shared.stopped() {
        let name = format!("counter-{}", random.random_range(0..COUNTERS));
        let read_call_ns = shared.now_ns();
        let Ok(mut object) = api.get(&name).await else {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let read_version = version(&object);
        let read_count = object["data"]["count"].as_str().and_then(|count| count.parse().ok());
        let read_count: u64 = read_count.with_context(|| format!("{name} holds no count: {object}"))?;
        let writer = shared.values.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        object["data"] = json!({ "count": (read_count + 1).to_string(), "writer": writer.to_string() });
        let call_ns = shared.now_ns();
        let answer = api.update(&object).await;
        let return_ns = shared.now_ns();
        let outcome = outcome(answer, Duration::from_nanos(return_ns - call_ns));
        let failed = matches!(outcome, Outcome::Unknown(_));
        let is_done = matches!(outcome, Outcome::Done(_));
        shared.answered.fetch_add(u64::from(is_done), std::sync::atomic::Ordering::Relaxed);
        let increment = Increment {
            client: number,
            member,
            name,
            read_call_ns,
            read_version,
            read_count,
            writer,
            call_ns,
            return_ns,
            outcome,
        };
        shared.note("increments", &increment);
        done.push(increment);
        let pause =
            if failed { PAUSE_AFTER_ERROR } else { Duration::from_millis(random.random_range(5..30)) };
        tokio::time::sleep(pause).await;
    }
    Ok(done)
}

pub fn pod(name: &str, cpu_m: u64, disk: Option<&str>) -> Value {
    let selector = disk.map_or(json!({}), |disk| json!({ "disk": disk }));
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": {
            "nodeSelector": selector,
            "containers": [{
                "name": "main", "image": "nothing",
                "resources": { "requests": { "cpu": format!("{cpu_m}m") } },
            }],
        },
    })
}

/// Creates pods through one member and deletes them through any, again and again; in the end they are gone, unless
/// nobody answers.
pub async fn fill(member: usize, doors: Vec<Door>, seed: u64, shared: Arc<Shared>) -> Result<()> {
    let pods = doors.iter().map(|door| Ok(kind(&door.admin()?, "pods"))).collect::<Result<Vec<Api>>>()?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut own = VecDeque::new();
    let mut number = 0;
    while !shared.stopped() {
        number += 1;
        let name = format!("pod-{member}-{number}");
        let disk = random.random_bool(0.3).then_some("ssd");
        let created = pods[member].create(&pod(&name, 50 * random.random_range(2..9), disk)).await;
        if !created.is_err_and(|error| matches!(error, Error::Unreachable { .. })) {
            own.push_back(name);
        }
        if own.len() > PODS {
            let through = &pods[random.random_range(0..pods.len())];
            if let Some(oldest) = own.pop_front()
                && !delete(through, &oldest).await
            {
                own.push_back(oldest);
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(100..400))).await;
    }
    for name in own {
        for attempt in 0..20 {
            if delete(&pods[(member + attempt) % pods.len()], &name).await {
                break;
            }
        }
    }
    Ok(())
}

async fn delete(pods: &Api, name: &str) -> bool {
    // Nobody else confirms that it has ended: there are no kubelets.
    let at_once = DeleteOptions { grace_period_s: Some(0), ..DeleteOptions::default() };
    match pods.delete(name, &at_once).await {
        Ok(_) => true,
        Err(error) => error.is_not_found(),
    }
}

/// What Ana may do while she is bound: read one counter.
pub fn role() -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reader" },
        "rules": [{
            "apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["counter-0"], "verbs": ["get"],
        }],
    })
}

pub fn binding(name: &str, grant: Option<u64>) -> Value {
    let annotations = grant.map_or(json!({}), |grant| json!({ "grant": grant.to_string() }));
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": name, "annotations": annotations },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "ana" }],
    })
}

/// Gives Ana the right if she has it not, and takes it if she has it, each time through another member.
pub async fn toggle(doors: Vec<Door>, seed: u64, shared: Arc<Shared>) -> Result<Vec<Toggle>> {
    const NAME: &str = "ana-reads";
    let bindings =
        doors.iter().map(|door| Ok(kind(&door.admin()?, "rolebindings"))).collect::<Result<Vec<Api>>>()?;
    let mut random = StdRng::seed_from_u64(seed);
    let mut toggles = Vec::new();
    let mut last_grant = 0;
    while !shared.stopped() {
        let api = &bindings[random.random_range(0..bindings.len())];
        let Ok(now) = api.get_opt(NAME).await else {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        let api = &bindings[random.random_range(0..bindings.len())];
        let call_ns = shared.now_ns();
        match now {
            Some(now) => {
                let grant = meta::of(&now).annotation("grant").and_then(|grant| grant.parse().ok());
                let grant = grant.context("a binding that nobody made")?;
                let toggle = Toggle { grant, gives: false, call_ns };
                shared.note("toggles", &toggle);
                toggles.push(toggle);
                let this = DeleteOptions { uid: meta::of(&now).uid().to_owned(), ..DeleteOptions::default() };
                let _whatever_came_of_it = api.delete(NAME, &this).await; // the next look says
            }
            None => {
                last_grant += 1;
                let toggle = Toggle { grant: last_grant, gives: true, call_ns };
                shared.note("toggles", &toggle);
                toggles.push(toggle);
                let _whatever_came_of_it = api.create(&binding(NAME, Some(last_grant))).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..500))).await;
    }
    Ok(toggles)
}

/// Tries again and again, as Ana, what only the binding allows; now and then looks at the bindings before.
pub async fn attempt(
    member: usize,
    door: Door,
    shared: Arc<Shared>,
) -> Result<(Vec<Attempt>, Vec<Observed>)> {
    let (ana, bindings) = (kind(&door.ana()?, "configmaps"), kind(&door.admin()?, "rolebindings"));
    let (mut attempts, mut observed) = (Vec::new(), Vec::new());
    let mut turn = 0_u64;
    while !shared.stopped() {
        turn += 1;
        if turn.is_multiple_of(3)
            && let Ok(list) = bindings.list(&ListOptions::default()).await
        {
            let version = list.resource_version.parse().unwrap_or(0);
            let look = Observed { member, version, at_ns: shared.now_ns() };
            shared.note("observed", &look);
            observed.push(look);
        }
        let call_ns = shared.now_ns();
        let answer = ana.get("counter-0").await;
        let return_ns = shared.now_ns();
        let allowed = match &answer {
            Ok(_) => true,
            Err(error) if error.is_not_found() => true,
            Err(error) if error.is_forbidden() => false,
            Err(_) => {
                tokio::time::sleep(PAUSE_AFTER_ERROR).await;
                continue;
            }
        };
        let attempt = Attempt { member, call_ns, return_ns, allowed };
        shared.note("attempts", &attempt);
        attempts.push(attempt);
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
    Ok((attempts, observed))
}
