//! Random histories: whoever follows the events arrives at the state, whatever breaks on the way.
//!
//! A failing run prints its seed; `HISTORY_SEED=n` replays it.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::client::{Events, Server, start, version};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const WATCH_LIST: &str = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=keep%3Dyes";
const STEPS: usize = 120;
const HISTORIES: u64 = 6;

/// Name to resource version and value.
type State = BTreeMap<String, (i64, String)>;

/// A client that keeps a state from events, as informers do.
struct Follower {
    events: Events,
    state: State,
    last: i64,
}

impl Follower {
    async fn by_watch_list(server: &Server) -> Follower {
        let mut follower = Follower {
            events: server.watch(&format!("{MAPS}?{WATCH_LIST}")).await,
            state: State::new(),
            last: 0,
        };
        while !follower.step().await {}
        follower
    }

    async fn by_list(server: &Server) -> Follower {
        let list = server.get(&format!("{MAPS}?labelSelector=keep%3Dyes")).await.json();
        let state = state_of(&list);
        let last = version(&list);
        let query = format!("watch=1&resourceVersion={last}&labelSelector=keep%3Dyes");
        Follower { events: server.watch(&format!("{MAPS}?{query}")).await, state, last }
    }

    /// Takes one event; true for the bookmark that ends the initial events.
    async fn step(&mut self) -> bool {
        let event = self.events.next().await.unwrap();
        let object = &event["object"];
        if event["type"] == "BOOKMARK" {
            self.last = self.last.max(version(object));
            return !object["metadata"]["annotations"].is_null();
        }
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = self.state.get(&name).map(|(at, _)| *at);
        let at = version(object);
        match event["type"].as_str().unwrap() {
            "ADDED" => assert!(known.is_none(), "{name} was added twice"),
            "MODIFIED" => assert!(known.is_some_and(|known| known < at), "{name} {known:?} {at}"),
            "DELETED" => assert!(known.is_some_and(|known| known < at), "{name} {known:?} {at}"),
            other => panic!("{other}: {object}"),
        }
        if event["type"] == "DELETED" {
            self.state.remove(&name);
        } else {
            self.state.insert(name, (at, value_of(object)));
        }
        // The initial events are a state, in the order of names; after them revisions only grow.
        if self.last > 0 {
            assert!(at > self.last, "revision {at} after {}", self.last);
            self.last = at;
        }
        false
    }

    async fn follow_to(&mut self, state: &State) {
        while self.state != *state {
            self.step().await;
        }
    }
}

fn value_of(object: &Value) -> String {
    object["data"]["k"].as_str().unwrap_or_default().to_owned()
}

fn state_of(list: &Value) -> State {
    let items = list["items"].as_array().unwrap().iter();
    items
        .map(|item| (item["metadata"]["name"].as_str().unwrap().to_owned(), (version(item), value_of(item))))
        .collect()
}

async fn random_write(server: &Server, random: &mut StdRng, step: usize) {
    let name = format!("m{}", random.random_range(0..6));
    let path = format!("{MAPS}/{name}");
    let keep = if random.random_bool(0.7) { "yes" } else { "no" };
    match random.random_range(0..4) {
        0 => drop(server.delete(&path).await),
        1 => drop(server.patch("merge", &path, &json!({"metadata": {"labels": {"keep": keep}}})).await),
        2 => drop(server.patch("merge", &path, &json!({"data": {"k": step.to_string()}})).await),
        _ => {
            let body = json!({"metadata": {"name": name, "labels": {"keep": keep}}, "data": {"k": step.to_string()}});
            drop(server.post(MAPS, &body).await);
        }
    }
}

async fn history(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let server = start().await;
    let mut followers = Vec::new();
    let (mut cut, mut cuts) = (false, 0);
    for step in 0..STEPS {
        random_write(&server, &mut random, step).await;
        if random.random_bool(0.1) {
            cut = !cut;
            cuts += usize::from(cut);
            server.etcd.with_faults(|faults| faults.cut_watches = cut);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // While the watch is cut, consistent reads wait for seconds before they turn to the store.
        if !cut && random.random_bool(0.05) {
            followers.push(Follower::by_watch_list(&server).await);
        }
        if !cut && random.random_bool(0.05) {
            followers.push(Follower::by_list(&server).await);
        }
    }
    server.etcd.with_faults(|faults| faults.cut_watches = false);
    assert!(cuts > 0 && !followers.is_empty(), "the history did too little");
    let end = server.get(&format!("{MAPS}?labelSelector=keep%3Dyes")).await.json();
    let state = state_of(&end);
    for follower in &mut followers {
        follower.follow_to(&state).await;
    }
}

#[tokio::test]
async fn whoever_follows_the_events_arrives_at_the_state() {
    let seeds = match std::env::var("HISTORY_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first: u64 = rand::rng().random_range(0..1_000_000);
            (first..first + HISTORIES).collect()
        }
    };
    for seed in seeds {
        println!("HISTORY_SEED={seed}");
        history(seed).await;
    }
}
