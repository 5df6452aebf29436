//! Leader election under a clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::fake::{Fake, Outage};

struct Candidate {
    leading: watch::Receiver<bool>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// Counts how many lead at the same time; more than one fails the test.
fn candidate(fake: &Fake, identity: &str, leaders: &Arc<AtomicUsize>) -> Candidate {
    let elector = LeaderElector::new(&fake.client(), LeaderConfig::new("kube-system", "scheduler", identity));
    let (leading, shutdown, leaders) = (elector.leading(), CancellationToken::new(), leaders.clone());
    let token = shutdown.clone();
    let task = tokio::spawn(elector.run(token, move |term| {
        let leaders = leaders.clone();
        async move {
            assert_eq!(leaders.fetch_add(1, Ordering::SeqCst), 0, "two leaders");
            term.ended().cancelled().await;
            leaders.fetch_sub(1, Ordering::SeqCst);
            Handover::Settled
        }
    }));
    Candidate { leading, shutdown, task }
}

async fn becomes(candidate: &mut Candidate, leading: bool) -> Duration {
    let start = Instant::now();
    let reached = candidate.leading.wait_for(|now| *now == leading);
    tokio::time::timeout(Duration::from_secs(120), reached).await.expect("in time").unwrap();
    start.elapsed()
}

fn lease(fake: &Fake) -> Value {
    fake.objects().pop().unwrap()["spec"].clone()
}

#[tokio::test(start_paused = true)]
async fn the_first_candidate_leads_and_keeps_its_lease() {
    let (fake, leaders) = (Fake::new(), Arc::default());
    let mut one = candidate(&fake, "one", &leaders);
    becomes(&mut one, true).await;
    let mut two = candidate(&fake, "two", &leaders);
    let first = lease(&fake);
    assert!(first["holderIdentity"].as_str().unwrap().starts_with("one_"), "{first}");
    assert_eq!(first["leaseDurationSeconds"], 15);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(*one.leading.borrow() && !*two.leading.borrow());
    let later = lease(&fake);
    assert_eq!((&later["leaseTransitions"], &later["acquireTime"]), (&json!(0), &first["acquireTime"]));

    // a shutdown hands over at once
    one.shutdown.cancel();
    one.task.await.unwrap();
    assert_eq!(lease(&fake)["holderIdentity"], "");
    assert!(becomes(&mut two, true).await < Duration::from_secs(5));
    assert!(lease(&fake)["holderIdentity"].as_str().unwrap().starts_with("two_"));
    assert_eq!(lease(&fake)["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dead_leaders_lease_runs_out() {
    let (fake, leaders) = (Fake::new(), Arc::<AtomicUsize>::default());
    let mut one = candidate(&fake, "one", &leaders);
    becomes(&mut one, true).await;
    let mut two = candidate(&fake, "two", &leaders);
    tokio::time::sleep(Duration::from_secs(30)).await;
    one.task.abort();
    leaders.store(0, Ordering::SeqCst);
    let took = becomes(&mut two, true).await;
    assert!(took > Duration::from_secs(12) && took < Duration::from_secs(21), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_before_another_starts() {
    for outage in [Outage::Before, Outage::After] {
        let (fake, leaders) = (Fake::new(), Arc::default());
        let mut one = candidate(&fake, "one", &leaders);
        becomes(&mut one, true).await;
        fake.set_outage(outage);
        let took = becomes(&mut one, false).await;
        assert!(took <= Duration::from_secs(13), "{took:?}");
        let mut two = candidate(&fake, "two", &leaders);
        tokio::time::sleep(Duration::from_secs(60)).await;
        fake.set_outage(Outage::None);
        tokio::select! {
            _ = becomes(&mut one, true) => {}
            _ = becomes(&mut two, true) => {}
        }
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_ne!(*one.leading.borrow(), *two.leading.borrow());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_was_taken_stops() {
    let (fake, leaders) = (Fake::new(), Arc::default());
    let mut one = candidate(&fake, "one", &leaders);
    becomes(&mut one, true).await;
    let mut stolen = fake.objects().pop().unwrap();
    stolen["spec"]["holderIdentity"] = json!("thief");
    let api = fake.client().api("coordination.k8s.io", "v1", "leases");
    api.update(&stolen).await.unwrap();
    assert!(becomes(&mut one, false).await < Duration::from_secs(5));
}

/// What the former process sent may still be under way.
#[tokio::test(start_paused = true)]
async fn a_process_does_not_take_the_lease_of_a_dead_one_of_its_name_for_its_own() {
    let (fake, leaders) = (Fake::new(), Arc::<AtomicUsize>::default());
    let mut former = candidate(&fake, "one", &leaders);
    becomes(&mut former, true).await;
    former.task.abort();
    leaders.store(0, Ordering::SeqCst);
    let mut restarted = candidate(&fake, "one", &leaders);
    let took = becomes(&mut restarted, true).await;
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(21), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_term_that_leaves_something_under_way_lets_its_lease_run_out() {
    let (fake, leaders) = (Fake::new(), Arc::<AtomicUsize>::default());
    let elector = LeaderElector::new(&fake.client(), LeaderConfig::new("kube-system", "scheduler", "one"));
    let (mut leading, shutdown) = (elector.leading(), CancellationToken::new());
    let task = tokio::spawn(elector.run(shutdown.clone(), async |term: Term| {
        term.ended().cancelled().await;
        Handover::Unsettled
    }));
    leading.wait_for(|leading| *leading).await.unwrap();
    shutdown.cancel();
    task.await.unwrap();
    let mut two = candidate(&fake, "two", &leaders);
    let took = becomes(&mut two, true).await;
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(21), "{took:?}");
}

/// As a process that is stopped by a signal: no task of it runs while time passes.
#[tokio::test(start_paused = true)]
async fn a_leader_that_slept_knows_that_its_time_is_over_before_its_term_has_ended() {
    let fake = Fake::new();
    let elector = LeaderElector::new(&fake.client(), LeaderConfig::new("kube-system", "scheduler", "one"));
    let (terms, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(elector.run(shutdown.clone(), move |term: Term| {
        terms.send(term.clone()).unwrap();
        async move {
            term.ended().cancelled().await;
            Handover::Settled
        }
    }));
    let term = begun.recv().await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(term.holds(), "it is renewed");
    // Other tasks run only when this one waits.
    let before = Instant::now();
    let frozen = async {
        tokio::time::advance(Duration::from_secs(11)).await;
    };
    tokio::pin!(frozen);
    let held = std::future::poll_fn(|context| {
        let _moved = frozen.as_mut().poll(context);
        std::task::Poll::Ready(term.holds())
    })
    .await;
    assert!(before.elapsed() >= Duration::from_secs(11));
    assert!(!held && !term.ended().is_cancelled());
    shutdown.cancel();
    task.await.unwrap();
}
