//! The loop of one term of leadership: watches in, decisions out.
//!
//! Invariants: one task owns the cache and the queue; nothing is decided before both watches have delivered what existed
//! at the start. Bindings are written by tasks of their own, at most `bindings_in_flight_max` at once, and report back.
//! These tasks end with the term. A binding that is on its way may be written at any time: its pod counts on that node
//! until the outcome is certain, also in the next term of this process. A binding on its way from another process is
//! not known here: a process that stops waits for the answers before it gives the lease back, or lets it run out. What
//! one that dies has sent has the 5 s between the last moment of its term and the end of its lease.
//! Not here: how a decision is made (cycle.rs) and written (writer.rs).

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Value, meta};
use futures_util::FutureExt as _;
use kubeclient::{Client, EventRecorder, Handover, Informer, InformerEvent, InformerOptions, Term};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::Config;
use crate::cache::Cache;
use crate::cycle::{self, Cycle};
use crate::pod::{Pod, PodUid};
use crate::queue::{Attempt, Queue};
use crate::writer::{Bound, Unsettled, Writer};

/// Decisions between two looks at the watches.
const DECISIONS_PER_TURN: usize = 16;
/// Longest sleep when nothing is due.
const IDLE: Duration = Duration::from_secs(30);

/// Runs to the end of `term`, and then for a moment. `unsettled`: what the last term of this process left, and then what
/// this one leaves.
pub(crate) async fn run(client: Client, config: Config, unsettled: Unsettled, term: Term) -> Handover {
    let ended = term.ended().clone();
    let unfinished = "status.phase!=Succeeded,status.phase!=Failed".to_owned();
    let pod_options = InformerOptions { field_selector: unfinished, ..InformerOptions::default() };
    let pods = Informer::start(client.api("", "v1", "pods"), pod_options, ended.clone());
    let nodes = Informer::start(client.api("", "v1", "nodes"), InformerOptions::default(), ended.clone());
    let instance = format!("{}-{}", config.scheduler_name, config.identity);
    let recorder = EventRecorder::start(&client, &config.scheduler_name, &instance, ended.clone());
    let (bound_sender, bound) = mpsc::channel(config.bindings_in_flight_max.max(1));
    let tasks = TaskTracker::new();
    let (left, tasks_of_term) = (unsettled.clone(), tasks.clone());
    let writer = Writer { client, recorder, bound: bound_sender, unsettled, tasks: tasks_of_term, term };
    let scheduling = Scheduling {
        writer,
        pods,
        nodes,
        bound,
        cache: Cache::default(),
        queue: Queue::default(),
        synced: Synced::default(),
        resumed: false,
        bindings_in_flight: 0,
        next_start: 0,
        started: Instant::now(),
        config,
    };
    info!("scheduling");
    scheduling.run(ended).await;
    tasks.close();
    tasks.wait().await;
    if left.is_empty() { Handover::Settled } else { Handover::Unsettled }
}

struct Scheduling {
    config: Config,
    writer: Writer,
    pods: Informer,
    nodes: Informer,
    bound: mpsc::Receiver<Bound>,
    cache: Cache,
    queue: Queue,
    synced: Synced,
    /// Whether the bindings of the last term have been taken up.
    resumed: bool,
    bindings_in_flight: usize,
    next_start: usize,
    started: Instant,
}

#[derive(Default)]
struct Synced {
    pods: bool,
    nodes: bool,
}

/// Everything that can wake the loop.
enum Wake {
    Pod(InformerEvent),
    Node(InformerEvent),
    Bound(Bound),
    Due,
    Ended,
}

impl Scheduling {
    async fn run(mut self, term: CancellationToken) {
        loop {
            let due = self.queue.advance(self.now_ms());
            if self.synced.pods && self.synced.nodes && !self.resumed {
                self.resumed = true;
                self.resume_bindings();
            }
            for _ in 0..DECISIONS_PER_TURN {
                if !self.decide_next() {
                    break;
                }
            }
            let wake = match self.can_decide() {
                // More to decide: take what is there already, without waiting.
                true => match self.next(due, &term).now_or_never() {
                    Some(wake) => wake,
                    None => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                },
                false => self.next(due, &term).await,
            };
            match wake {
                Wake::Pod(event) => self.pod_event(event),
                Wake::Node(event) => self.node_event(event),
                Wake::Bound(bound) => self.bound(bound),
                Wake::Due => {}
                Wake::Ended => return,
            }
        }
    }

    async fn next(&mut self, due_ms: Option<u64>, term: &CancellationToken) -> Wake {
        let now_ms = self.now_ms();
        let sleep =
            due_ms.map_or(IDLE, |due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)).min(IDLE));
        tokio::select! {
            biased;
            () = term.cancelled() => Wake::Ended,
            Some(bound) = self.bound.recv() => Wake::Bound(bound),
            event = self.nodes.next() => event.map_or(Wake::Ended, Wake::Node),
            event = self.pods.next() => event.map_or(Wake::Ended, Wake::Pod),
            () = tokio::time::sleep(sleep) => Wake::Due,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn can_decide(&self) -> bool {
        self.synced.pods
            && self.synced.nodes
            && self.bindings_in_flight < self.config.bindings_in_flight_max
            && self.queue.has_active()
    }

    /// Decides about one pod; false if there is none to decide about now.
    fn decide_next(&mut self) -> bool {
        if !self.can_decide() {
            return false;
        }
        let Some(Attempt { pod, number }) = self.queue.pop() else { return false };
        let cycle = self.cycle(&pod);
        self.carry_out(pod, number, cycle);
        true
    }

    fn cycle(&mut self, pod: &Pod) -> Cycle {
        let percentage = self.config.percentage_of_nodes_to_score;
        let cycle =
            cycle::run(pod, &self.cache, percentage, self.next_start, |equals| rand::random_range(0..equals));
        self.next_start = cycle.next_start;
        cycle
    }

    fn carry_out(&mut self, pod: Arc<Pod>, number: u32, cycle: Cycle) {
        let state = self.pods.resource_version();
        match &cycle.chosen {
            Some(name) => {
                if let Some(node) = self.cache.node(name) {
                    debug!(
                        pod = pod.full_name(),
                        node = name,
                        milli_cpu = pod.requests.milli_cpu,
                        requested_milli_cpu = node.requested.milli_cpu,
                        allocatable_milli_cpu = node.allocatable.milli_cpu,
                        pods = node.pod_count(),
                        state,
                        "assigned"
                    );
                }
                self.cache.assume(pod.clone(), name);
                self.bindings_in_flight += 1;
                self.writer.bind(pod, cycle, number, state);
            }
            None => {
                self.queue.unschedulable(&pod.uid, self.now_ms());
                self.writer.report_failure(pod, cycle, number, state);
            }
        }
    }

    /// Sends the bindings that the last term did not see the end of once more, before anything is decided: nobody else
    /// may get their room as long as they may be written.
    fn resume_bindings(&mut self) {
        for (uid, node) in self.writer.unsettled.take() {
            let Some(Attempt { pod, number }) = self.queue.begin(&uid) else { continue }; // bound or gone
            if !self.cache.node(&node).is_some_and(|node| cycle::fits(&pod, node)) {
                self.queue.failed(&uid, self.now_ms());
                continue;
            }
            let mut cycle = self.cycle(&pod);
            cycle.chosen = Some(node);
            self.carry_out(pod, number, cycle);
        }
    }

    fn pod_event(&mut self, event: InformerEvent) {
        match event {
            InformerEvent::Synced => self.synced.pods = true,
            InformerEvent::Deleted { object } => {
                let uid: PodUid = meta::of(&object).uid().into();
                self.queue.remove(&uid);
                let freed = self.cache.remove_pod(&uid);
                self.room_on(freed);
            }
            InformerEvent::Applied { object, old } => {
                let matters =
                    old.as_ref().is_none_or(|old| differs(old, &object, &["/spec", "/metadata/labels"]));
                let pod = Arc::new(Pod::parse(object));
                if let Some(old) = old.filter(|old| meta::of(old).uid() != &*pod.uid) {
                    let uid: PodUid = meta::of(&old).uid().into(); // deleted and made again between two looks
                    self.queue.remove(&uid);
                    let freed = self.cache.remove_pod(&uid);
                    self.room_on(freed);
                }
                let ours = pod.scheduler_name == self.config.scheduler_name;
                if pod.node_name.is_empty() && ours && !pod.deleting && !pod.terminal {
                    if !self.cache.is_assumed(&pod.uid) {
                        self.queue.update(pod, matters, self.now_ms());
                    }
                } else {
                    self.queue.remove(&pod.uid);
                    let freed = self.cache.update_pod(pod);
                    self.room_on(freed);
                }
            }
        }
    }

    fn node_event(&mut self, event: InformerEvent) {
        match event {
            InformerEvent::Synced => self.synced.nodes = true,
            InformerEvent::Deleted { object } => self.cache.remove_node(meta::of(&object).name()),
            InformerEvent::Applied { object, old } => {
                let parts = ["/spec", "/metadata/labels", "/status/allocatable"];
                if old.is_none_or(|old| differs(&old, &object, &parts)) {
                    self.cache.update_node(&object);
                    self.room_on(Some(meta::of(&object).name().to_owned()));
                }
            }
        }
    }

    /// A node changed for the better, perhaps: wakes the pods that fit on it now.
    fn room_on(&mut self, node: Option<String>) {
        let Some(node) = node.and_then(|name| self.cache.node(&name)) else { return };
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.queue.wake(now_ms, |pod| cycle::fits(pod, node));
    }

    fn bound(&mut self, bound: Bound) {
        self.bindings_in_flight -= 1;
        let node = bound.node;
        let error = match bound.result {
            Ok(found) => {
                // Once the watch has told of the pod it knows better.
                if found != node && self.cache.is_assumed(&bound.pod.uid) {
                    debug!(pod = bound.pod.full_name(), node, found, "bound to another node before");
                    self.cache.assume(bound.pod, &found);
                    self.room_on(Some(node));
                }
                return;
            }
            Err(error) => error,
        };
        warn!(pod = bound.pod.full_name(), node, %error, "binding failed");
        if self.cache.forget_assumed(&bound.pod.uid) {
            match error.is_not_found() {
                true => self.queue.remove(&bound.pod.uid), // deleted meanwhile
                false => self.queue.failed(&bound.pod.uid, self.now_ms()),
            }
            self.room_on(Some(node));
        }
    }
}

fn differs(old: &Value, new: &Value, pointers: &[&str]) -> bool {
    pointers.iter().any(|pointer| old.pointer(pointer) != new.pointer(pointer))
}

#[cfg(test)]
mod tests;
