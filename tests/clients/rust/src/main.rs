//! The crate `etcd-client` does its work against a cluster of real processes.
//!
//! Reads `STORES` and `PID1`.. from the environment. Each step says `ok NAME` or `FAILED NAME: why`; ends with
//! `N passed, N failed` and status 1 if any failed. Not here: starting the cluster (the scripts' runner).

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{
    Client, Compare, CompareOp, ConnectOptions, DeleteOptions, EventType, GetOptions, LeaseTimeToLiveOptions,
    LockOptions, Permission, PermissionType, ProclaimOptions, PutOptions, ResignOptions,
    SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use rustix::process::{Pid, Signal, kill_process};

struct Cluster {
    endpoints: Vec<String>,
    processes: Vec<i32>,
}

impl Cluster {
    fn from_environment() -> Result<Cluster> {
        let stores = std::env::var("STORES").context("no STORES")?;
        let endpoints: Vec<String> = stores.split(',').map(str::to_owned).collect();
        let processes = (1..=endpoints.len())
            .map(|number| Ok(std::env::var(format!("PID{number}"))?.parse()?))
            .collect::<Result<_>>()?;
        Ok(Cluster { endpoints, processes })
    }

    async fn client(&self) -> Result<Client> {
        let options = ConnectOptions::new().with_timeout(Duration::from_secs(20));
        Ok(Client::connect(&self.endpoints, Some(options)).await?)
    }

    async fn kill_leader(&self) -> Result<()> {
        for (endpoint, process) in self.endpoints.iter().zip(&self.processes) {
            let status = Client::connect([endpoint], None).await?.status().await?;
            if status.header().context("no header")?.member_id() == status.leader() {
                return Ok(kill_process(Pid::from_raw(*process).context("no process")?, Signal::KILL)?);
            }
        }
        bail!("nobody leads")
    }
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            println!("FAILED to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("FAILED to start: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns how many steps failed.
async fn run() -> Result<usize> {
    let cluster = Cluster::from_environment()?;
    let results = [
        ("keys", keys(&cluster).await),
        ("transactions", transactions(&cluster).await),
        ("leases", leases(&cluster).await),
        ("locks", locks(&cluster).await),
        ("an election", election(&cluster).await),
        ("users", users(&cluster).await),
        ("a watch through the death of the leader", watch_through_kill(&cluster).await),
    ];
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    for (name, result) in &results {
        match result {
            Ok(()) => println!("ok {name}"),
            Err(error) => println!("FAILED {name}: {error:#}"),
        }
    }
    println!("{} passed, {failed} failed", results.len() - failed);
    Ok(failed)
}

async fn keys(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let first = client.put("k/0", "9", None).await?.header().context("no header")?.revision();
    for number in 1..5 {
        client.put(format!("k/{number}"), (9 - number).to_string(), None).await?;
    }
    let sorted = GetOptions::new().with_prefix().with_sort(SortTarget::Value, SortOrder::Ascend).with_limit(2);
    let answer = client.get("k/", Some(sorted)).await?;
    ensure!(answer.more() && answer.count() == 5);
    let values: Vec<&str> = answer.kvs().iter().map(|kv| kv.value_str()).collect::<Result<_, _>>()?;
    ensure!(values == ["5", "6"], "sorted: {values:?}");
    let put = client.put("k/0", "new", Some(PutOptions::new().with_prev_key())).await?;
    ensure!(put.prev_key().context("no previous key")?.value() == b"9");
    let old = client.get("k/0", Some(GetOptions::new().with_revision(first).with_serializable())).await?;
    ensure!(old.kvs()[0].value() == b"9");
    let deleted = client.delete("k/", Some(DeleteOptions::new().with_prefix().with_prev_key())).await?;
    ensure!(deleted.deleted() == 5 && deleted.prev_kvs().len() == 5);
    let refused = client.get("k/", Some(GetOptions::new().with_revision(1 << 40))).await;
    let text = refused.err().context("a future revision was read")?.to_string();
    ensure!(text.contains("required revision is a future revision"), "{text}");
    Ok(())
}

async fn transactions(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let inner = Txn::new()
        .when([Compare::version("t/a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("t/b", "2", None), TxnOp::get("t/", Some(GetOptions::new().with_prefix()))]);
    let txn = Txn::new()
        .when([Compare::create_revision("t/a", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("t/a", "1", None), TxnOp::txn(inner)])
        .or_else([TxnOp::get("t/a", None)]);
    let answer = client.txn(txn.clone()).await?;
    ensure!(answer.succeeded());
    let responses = answer.op_responses();
    let Some(TxnOpResponse::Txn(nested)) = responses.get(1) else { bail!("no nested answer: {responses:?}") };
    ensure!(nested.succeeded(), "every comparison is made before the first write");
    let answer = client.txn(txn).await?;
    ensure!(!answer.succeeded());
    ensure!(matches!(answer.op_responses().as_slice(), [TxnOpResponse::Get(get)] if get.kvs()[0].value() == b"1"));
    Ok(())
}

async fn leases(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let lease = client.lease_grant(2, None).await?.id();
    client.put("l/a", "", Some(PutOptions::new().with_lease(lease))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        keeper.keep_alive().await?;
        ensure!(answers.message().await?.context("the stream ended")?.ttl() == 2);
    }
    let options = LeaseTimeToLiveOptions::new().with_keys();
    let info = client.lease_time_to_live(lease, Some(options)).await?;
    ensure!(info.keys() == [b"l/a"] && info.granted_ttl() == 2, "{info:?}");
    for _ in 0..75 {
        if client.get("l/a", None).await?.count() == 0 {
            ensure!(client.lease_revoke(lease).await.is_err(), "an ended lease was revoked");
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    bail!("the lease never ended")
}

async fn locks(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let lease = client.lease_grant(20, None).await?.id();
    let key = client.lock("lock", Some(LockOptions::new().with_lease(lease))).await?.key().to_vec();
    let mut other = cluster.client().await?;
    let waiting = tokio::spawn(async move { other.lock("lock", None).await.map(|answer| answer.key().to_vec()) });
    tokio::time::sleep(Duration::from_millis(500)).await;
    ensure!(!waiting.is_finished(), "two hold the lock");
    client.unlock(key).await?;
    let second = tokio::time::timeout(Duration::from_secs(5), waiting).await???;
    client.unlock(second).await?;
    Ok(())
}

async fn election(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let lease = client.lease_grant(20, None).await?.id();
    let mut observed = client.observe("election").await?;
    let won = client.campaign("election", "one", lease).await?;
    let leader = won.leader().context("no leader")?.clone();
    let seen = observed.message().await?.context("the stream ended")?;
    ensure!(seen.kv().context("no key")?.value() == b"one");
    client.proclaim("two", Some(ProclaimOptions::new().with_leader(leader.clone()))).await?;
    ensure!(client.leader("election").await?.kv().context("no key")?.value() == b"two");
    client.resign(Some(ResignOptions::new().with_leader(leader))).await?;
    ensure!(client.leader("election").await.is_err(), "somebody leads after the resignation");
    Ok(())
}

async fn users(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    client.role_add("reader").await?;
    client.role_grant_permission("reader", Permission::new(PermissionType::Read, "u/").with_prefix()).await?;
    client.user_add("ann", "pw", None).await?;
    client.user_grant_role("ann", "reader").await?;
    ensure!(client.user_get("ann").await?.roles() == ["reader"]);
    ensure!(client.role_get("reader").await?.permissions().len() == 1);
    client.user_delete("ann").await?;
    client.role_delete("reader").await?;
    ensure!(client.user_list().await?.users().is_empty());
    Ok(())
}

/// Watches from the revision in `following`, again behind the last event when a stream ends, until `r/end`.
async fn watch_all(cluster: &Cluster, mut following: i64) -> Result<BTreeMap<String, i64>> {
    let mut seen = BTreeMap::new();
    loop {
        let mut client = cluster.client().await?;
        let options = WatchOptions::new().with_prefix().with_start_revision(following);
        let Ok(mut stream) = client.watch("r/", Some(options)).await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        while let Ok(Some(answer)) = stream.message().await {
            ensure!(!answer.canceled(), "canceled: {}", answer.cancel_reason());
            for event in answer.events() {
                let kv = event.kv().context("an event without a key")?;
                ensure!(event.event_type() == EventType::Put);
                ensure!(kv.mod_revision() >= following, "{} came after {following}", kv.mod_revision());
                following = kv.mod_revision() + 1;
                seen.insert(kv.key_str()?.to_owned(), kv.mod_revision());
                if kv.key() == b"r/end" {
                    return Ok(seen);
                }
            }
        }
    }
}

async fn watch_through_kill(cluster: &Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let begin = client.put("r/begin", "", None).await?.header().context("no header")?.revision();
    let write = async {
        let mut acknowledged = BTreeMap::new();
        for number in 0..200 {
            if number == 60 {
                cluster.kill_leader().await?;
            }
            let key = format!("r/{number:03}");
            let mut tries = 0;
            let answer = loop {
                match client.put(key.clone(), "", None).await {
                    Ok(answer) => break answer,
                    Err(error) if tries == 100 => return Err(error.into()),
                    Err(_) => tries += 1,
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            };
            acknowledged.insert(key, answer.header().context("no header")?.revision());
        }
        client.put("r/end", "", None).await?;
        anyhow::Ok(acknowledged)
    };
    let limit = Duration::from_secs(60);
    let (acknowledged, seen) =
        tokio::time::timeout(limit, async { tokio::try_join!(write, watch_all(cluster, begin)) }).await??;
    for (key, revision) in &acknowledged {
        ensure!(seen.get(key) == Some(revision), "{key} was written at {revision} and watched at {:?}", seen.get(key));
    }
    ensure!(seen.len() == acknowledged.len() + 2);
    Ok(())
}
