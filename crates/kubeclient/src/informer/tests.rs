//! The informer against an API server in this process: what it asks for and what it delivers.

use serde_json::json;

use super::*;
use crate::fake::Fake;

const WATCH_LIST: &str = "GET /api/v1/pods?allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&watch=true";

fn start(fake: &Fake) -> (Informer, CancellationToken) {
    let shutdown = CancellationToken::new();
    let options = InformerOptions { buffer: 4, ..InformerOptions::default() };
    (Informer::start(fake.client().api("", "v1", "pods"), options, shutdown.clone()), shutdown)
}

fn show(event: &InformerEvent) -> String {
    let name = |object: &Value| meta::of(object).name().to_owned();
    match event {
        InformerEvent::Applied { object, old } => {
            let was = if old.is_some() { "~" } else { "+" };
            format!("{was}{}{}", name(object), object["spec"])
        }
        InformerEvent::Deleted { object } => format!("-{}", name(object)),
        InformerEvent::Synced => "synced".to_owned(),
    }
}

/// The next `count` events; fails when the informer stays silent.
async fn take(informer: &mut Informer, count: usize) -> String {
    let mut shown = Vec::new();
    for _ in 0..count {
        let next = tokio::time::timeout(Duration::from_secs(60), informer.next()).await;
        shown.push(show(&next.unwrap_or_else(|_| panic!("silent after {shown:?}")).unwrap()));
    }
    shown.join(" ")
}

async fn silent(informer: &mut Informer) {
    let next = tokio::time::timeout(Duration::from_secs(30), informer.next()).await;
    assert!(next.is_err(), "{next:?}");
}

fn pod(spec: u32) -> Option<Value> {
    Some(json!({"apiVersion": "v1", "kind": "Pod", "spec": spec}))
}

#[tokio::test(start_paused = true)]
async fn the_state_comes_first_then_every_change() {
    let fake = Fake::new();
    fake.put_pod("a", pod(1));
    fake.put_pod("b", pod(1));
    let (mut informer, _shutdown) = start(&fake);
    assert_eq!(take(&mut informer, 3).await, "+a1 +b1 synced");
    assert_eq!(informer.resource_version(), "3");
    fake.put_pod("a", pod(2));
    fake.put_pod("c", pod(1));
    fake.put_pod("b", None);
    assert_eq!(take(&mut informer, 3).await, "~a2 +c1 -b");
    silent(&mut informer).await;
    assert_eq!(informer.resource_version(), "6");
    assert_eq!(fake.requests(), [WATCH_LIST]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_watch_list_is_listed_in_pages() {
    let fake = Fake::new().without_watch_list();
    for index in 0..501 {
        fake.put_pod(&format!("p{index:03}"), pod(1));
    }
    let (mut informer, _shutdown) = start(&fake);
    let all = take(&mut informer, 502).await;
    assert!(all.starts_with("+p0001 ") && all.ends_with("+p5001 synced"), "{all}");
    fake.put_pod("p000", pod(2));
    assert_eq!(take(&mut informer, 1).await, "~p0002");
    assert_eq!(
        fake.requests(),
        [
            WATCH_LIST,
            "GET /api/v1/pods?limit=500",
            "GET /api/v1/pods?continue=500&limit=500",
            "GET /api/v1/pods?allowWatchBookmarks=true&resourceVersion=502&watch=true"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_that_takes_too_long_is_read_in_one_piece() {
    let fake = Fake::new().without_watch_list();
    for index in 0..501 {
        fake.put_pod(&format!("p{index:03}"), pod(1));
    }
    fake.expire_continue();
    let (mut informer, _shutdown) = start(&fake);
    assert!(take(&mut informer, 502).await.ends_with("+p5001 synced"));
    assert_eq!(fake.requests()[3], "GET /api/v1/pods");
    silent(&mut informer).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_goes_on_where_it_was() {
    let fake = Fake::new();
    fake.put_pod("a", pod(1));
    let (mut informer, _shutdown) = start(&fake);
    assert_eq!(take(&mut informer, 2).await, "+a1 synced");
    fake.put_pod("a", pod(2));
    assert_eq!(take(&mut informer, 1).await, "~a2");
    fake.break_streams();
    tokio::time::sleep(Duration::from_millis(10)).await;
    fake.put_pod("a", pod(3));
    fake.put_pod("b", pod(1));
    assert_eq!(take(&mut informer, 2).await, "~a3 +b1");
    silent(&mut informer).await;
    let expected = "GET /api/v1/pods?allowWatchBookmarks=true&resourceVersion=3&watch=true";
    assert_eq!(fake.requests(), [WATCH_LIST, expected]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_watch_is_opened_again_where_it_was() {
    let fake = Fake::new();
    fake.put_pod("a", pod(1));
    let (mut informer, _shutdown) = start(&fake);
    assert_eq!(take(&mut informer, 2).await, "+a1 synced");
    tokio::time::sleep(Duration::from_secs(200)).await;
    fake.put_pod("a", pod(2));
    assert_eq!(take(&mut informer, 1).await, "~a2");
    let expected = "GET /api/v1/pods?allowWatchBookmarks=true&resourceVersion=2&watch=true";
    assert_eq!(fake.requests(), [WATCH_LIST, expected]);
}

#[tokio::test(start_paused = true)]
async fn after_compaction_only_differences_are_delivered() {
    for fake in [Fake::new(), Fake::new().without_watch_list()] {
        for name in ["a", "b", "c"] {
            fake.put_pod(name, pod(1));
        }
        let (mut informer, _shutdown) = start(&fake);
        assert_eq!(take(&mut informer, 4).await, "+a1 +b1 +c1 synced");
        fake.set_outage(crate::fake::Outage::Before);
        fake.break_streams();
        tokio::time::sleep(Duration::from_secs(1)).await;
        fake.put_pod("a", pod(2));
        fake.put_pod("b", None);
        fake.put_pod("c", None);
        fake.put_pod("c", pod(9));
        fake.compact();
        fake.set_outage(crate::fake::Outage::None);
        assert_eq!(take(&mut informer, 4).await, "~a2 -c +c9 -b");
        silent(&mut informer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_break_inside_the_first_state_repeats_nothing() {
    let fake = Fake::new();
    for name in ["a", "b", "c"] {
        fake.put_pod(name, pod(1));
    }
    fake.break_after(Some(2));
    let (mut informer, _shutdown) = start(&fake);
    assert_eq!(take(&mut informer, 2).await, "+a1 +b1");
    fake.put_pod("a", None);
    fake.break_after(None);
    assert_eq!(take(&mut informer, 3).await, "+c1 -a synced");
    silent(&mut informer).await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_on_shutdown_and_when_nobody_reads() {
    let fake = Fake::new();
    fake.put_pod("a", pod(1));
    let (mut informer, shutdown) = start(&fake);
    assert_eq!(take(&mut informer, 2).await, "+a1 synced");
    shutdown.cancel();
    assert_eq!(informer.next().await, None);

    let (informer, _shutdown) = start(&fake);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(informer);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = fake.requests().len();
    fake.break_streams();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(fake.requests().len(), before);
}

/// Random writes, breaks, outages and compactions: the reader ends with the server's state, and every object's
/// versions arrived in order, each once.
#[tokio::test(start_paused = true)]
async fn a_reader_converges_whatever_breaks() {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use std::collections::BTreeMap;

    for seed in 0..60_u64 {
        let mut random = StdRng::seed_from_u64(seed);
        let fake = if random.random_bool(0.5) { Fake::new() } else { Fake::new().without_watch_list() };
        let (mut informer, _shutdown) = start(&fake);
        let mut seen: BTreeMap<String, Arc<Value>> = BTreeMap::new();
        let mut breaks = 0;
        let read = |seen: &mut BTreeMap<String, Arc<Value>>, event: InformerEvent| match event {
            InformerEvent::Applied { object, old } => {
                let known = seen.insert(meta::of(&object).name().to_owned(), object.clone());
                assert_eq!(known, old, "seed {seed}");
                let version = |object: &Value| meta::of(object).resource_version().parse::<u64>().unwrap();
                assert!(old.is_none_or(|old| version(&old) < version(&object)), "seed {seed}");
            }
            InformerEvent::Deleted { object } => {
                assert!(seen.remove(meta::of(&object).name()).is_some(), "seed {seed}: deleted twice");
            }
            InformerEvent::Synced => {}
        };
        for step in 0..80 {
            let name = format!("p{}", random.random_range(0..6));
            match random.random_range(0..20) {
                0..12 => fake.put_pod(&name, pod(step)),
                12..15 => {
                    if fake.objects().iter().any(|object| meta::of(object).name() == name) {
                        fake.put_pod(&name, None);
                    }
                }
                15 => {
                    breaks += 1;
                    fake.break_streams();
                }
                16 => fake.compact(),
                17 => fake.break_after(random.random_bool(0.5).then(|| random.random_range(1..4))),
                18 => fake.set_outage(crate::fake::Outage::Before),
                _ => fake.set_outage(crate::fake::Outage::None),
            }
            if random.random_bool(0.4) {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await;
            }
            while random.random_bool(0.7) {
                let Some(event) = informer.try_next() else { break };
                read(&mut seen, event);
            }
        }
        fake.break_after(None);
        fake.set_outage(crate::fake::Outage::None);
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(60), informer.next()).await {
            read(&mut seen, event);
        }
        let delivered: Vec<Value> = seen.values().map(|object| object.as_ref().clone()).collect();
        assert_eq!(delivered, fake.objects(), "seed {seed}, {breaks} breaks");
    }
}
