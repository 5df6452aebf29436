//! The pods that wait for a node: ready to be tried, backing off, or waiting for an event that could help.
//!
//! Invariants: a pod is in exactly one of the three places, or in flight. Pure: the time is a parameter, in milliseconds
//! of any clock that does not jump. Order: priority first, then time of arrival. Backoff doubles per attempt from 1 s to
//! 10 s; a pod that waits for an event longer than 5 min is tried anyway. An event that comes while a pod is in flight is
//! remembered, and the pod tried again if the attempt fails: no wake-up is lost.
//! Source: Kubernetes 1.36 scheduler `backend/queue`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::pod::{Pod, PodUid};

const BACKOFF_MS_FIRST: u64 = 1_000;
const BACKOFF_MS_MAX: u64 = 10_000;
/// Longest wait for an event.
const UNSCHEDULABLE_MS_MAX: u64 = 300_000;

/// Place in the order of trying: higher priority first, then earlier arrival.
type Order = (std::cmp::Reverse<i64>, u64, PodUid);

#[derive(Debug)]
struct Entry {
    pod: Arc<Pod>,
    attempts: u32,
    /// Arrival, in milliseconds.
    since_ms: u64,
    place: Place,
}

#[derive(Debug, PartialEq)]
enum Place {
    Active,
    InFlight { woken: bool },
    Backoff { until_ms: u64 },
    Unschedulable { since_ms: u64, backoff_until_ms: u64 },
    Gated,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: BTreeMap<PodUid, Entry>,
    active: BTreeSet<Order>,
}

/// A pod to try, and which attempt this is (from 1).
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) pod: Arc<Pod>,
    pub(crate) number: u32,
}

impl Queue {
    /// Adds a pod that has no node, or takes over a changed one. A change that could matter wakes it.
    pub(crate) fn update(&mut self, pod: Arc<Pod>, matters: bool, now_ms: u64) {
        let gated = !pod.scheduling_gates.is_empty();
        let uid = pod.uid.clone();
        if let Some(mut entry) = self.take(&uid) {
            entry.pod = pod;
            entry.place = match entry.place {
                _ if gated => Place::Gated,
                place if !matters && place != Place::Gated => place,
                Place::InFlight { .. } => Place::InFlight { woken: true },
                Place::Backoff { until_ms } | Place::Unschedulable { backoff_until_ms: until_ms, .. }
                    if until_ms > now_ms =>
                {
                    Place::Backoff { until_ms }
                }
                _ => Place::Active,
            };
            self.put(uid, entry);
        } else {
            let place = if gated { Place::Gated } else { Place::Active };
            self.put(uid, Entry { pod, attempts: 0, since_ms: now_ms, place });
        }
    }

    /// A pod that was deleted or has got a node.
    pub(crate) fn remove(&mut self, uid: &PodUid) {
        self.take(uid);
    }

    pub(crate) fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// The next pod to try; it is in flight until `failed` or `remove`.
    pub(crate) fn pop(&mut self) -> Option<Attempt> {
        let (_, _, uid) = self.active.first()?.clone();
        self.begin(&uid)
    }

    /// The same for this pod, out of turn; `None` if it is not ready to be tried.
    pub(crate) fn begin(&mut self, uid: &PodUid) -> Option<Attempt> {
        self.entries.get(uid).filter(|entry| entry.place == Place::Active)?;
        let mut entry = self.take(uid)?;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.place = Place::InFlight { woken: false };
        let attempt = Attempt { pod: entry.pod.clone(), number: entry.attempts };
        self.put(uid.clone(), entry);
        Some(attempt)
    }

    /// No node took the pod: it waits for an event that could help.
    pub(crate) fn unschedulable(&mut self, uid: &PodUid, now_ms: u64) {
        let Some(mut entry) = self.take(uid) else { return };
        let backoff_until_ms = now_ms + backoff_ms(entry.attempts);
        entry.place = match entry.place {
            Place::InFlight { woken: true } => Place::Backoff { until_ms: backoff_until_ms },
            Place::InFlight { woken: false } => Place::Unschedulable { since_ms: now_ms, backoff_until_ms },
            other => other, // changed meanwhile
        };
        self.put(uid.clone(), entry);
    }

    /// The attempt failed for a reason that is not the pod's: tried again after its backoff.
    pub(crate) fn failed(&mut self, uid: &PodUid, now_ms: u64) {
        let Some(mut entry) = self.take(uid) else { return };
        if matches!(entry.place, Place::InFlight { .. }) {
            entry.place = Place::Backoff { until_ms: now_ms + backoff_ms(entry.attempts) };
        }
        self.put(uid.clone(), entry);
    }

    /// Something changed: wakes the pods that it helps.
    pub(crate) fn wake(&mut self, now_ms: u64, helps: impl Fn(&Pod) -> bool) {
        let mut woken = Vec::new();
        for (uid, entry) in &mut self.entries {
            match &mut entry.place {
                Place::InFlight { woken } => *woken = true,
                Place::Unschedulable { .. } if helps(&entry.pod) => woken.push(uid.clone()),
                _ => {}
            }
        }
        for uid in woken {
            let Some(mut entry) = self.take(&uid) else { continue };
            entry.place = match entry.place {
                Place::Unschedulable { backoff_until_ms, .. } if backoff_until_ms > now_ms => {
                    Place::Backoff { until_ms: backoff_until_ms }
                }
                _ => Place::Active,
            };
            self.put(uid, entry);
        }
    }

    /// Moves what has waited long enough; returns when to call again, if anything waits.
    pub(crate) fn advance(&mut self, now_ms: u64) -> Option<u64> {
        let due = |place: &Place| match place {
            Place::Backoff { until_ms } => Some(*until_ms),
            Place::Unschedulable { since_ms, .. } => Some(since_ms + UNSCHEDULABLE_MS_MAX),
            Place::Active | Place::InFlight { .. } | Place::Gated => None,
        };
        let ready: Vec<PodUid> = self
            .entries
            .iter()
            .filter(|(_, entry)| due(&entry.place).is_some_and(|due_ms| due_ms <= now_ms))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in ready {
            let Some(mut entry) = self.take(&uid) else { continue };
            entry.place = Place::Active;
            self.put(uid, entry);
        }
        self.entries.values().filter_map(|entry| due(&entry.place)).min()
    }

    /// Number of pods per place: active, backing off, unschedulable, gated.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> [usize; 4] {
        let mut counts = [0; 4];
        for entry in self.entries.values() {
            match entry.place {
                Place::Active | Place::InFlight { .. } => counts[0] += 1,
                Place::Backoff { .. } => counts[1] += 1,
                Place::Unschedulable { .. } => counts[2] += 1,
                Place::Gated => counts[3] += 1,
            }
        }
        counts
    }

    fn take(&mut self, uid: &PodUid) -> Option<Entry> {
        let entry = self.entries.remove(uid)?;
        if entry.place == Place::Active {
            self.active.remove(&order(&entry));
        }
        Some(entry)
    }

    fn put(&mut self, uid: PodUid, entry: Entry) {
        if entry.place == Place::Active {
            self.active.insert(order(&entry));
        }
        self.entries.insert(uid, entry);
    }
}

fn order(entry: &Entry) -> Order {
    (std::cmp::Reverse(entry.pod.priority), entry.since_ms, entry.pod.uid.clone())
}

fn backoff_ms(attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(10);
    (BACKOFF_MS_FIRST << doublings).min(BACKOFF_MS_MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, priority: i64) -> Arc<Pod> {
        let object = json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority}});
        Arc::new(Pod::parse(Arc::new(object)))
    }

    fn popped(queue: &mut Queue) -> Option<String> {
        queue.pop().map(|attempt| attempt.pod.name.clone())
    }

    #[test]
    fn priority_comes_before_time_of_arrival() {
        let mut queue = Queue::default();
        for (name, priority, at_ms) in [("a", 0, 1), ("b", 10, 2), ("c", 0, 3)] {
            queue.update(pod(name, priority), true, at_ms);
        }
        let order: Vec<_> = std::iter::from_fn(|| popped(&mut queue)).collect();
        assert_eq!(order, ["b", "a", "c"]);
    }

    #[test]
    fn a_rejected_pod_waits_for_an_event_and_then_for_its_backoff() {
        let mut queue = Queue::default();
        queue.update(pod("a", 0), true, 0);
        popped(&mut queue);
        queue.unschedulable(&"a".into(), 0);
        queue.wake(100, |_| false);
        assert_eq!(queue.counts(), [0, 0, 1, 0]);
        queue.wake(100, |pod| pod.name == "a");
        assert_eq!(queue.advance(999), Some(1_000));
        assert_eq!(popped(&mut queue), None);
        queue.advance(1_000);
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));
    }

    #[test]
    fn a_change_of_the_status_alone_wakes_nobody() {
        let mut queue = Queue::default();
        queue.update(pod("a", 0), true, 0);
        popped(&mut queue);
        queue.unschedulable(&"a".into(), 0);
        queue.update(pod("a", 0), false, 5_000);
        assert_eq!(queue.counts(), [0, 0, 1, 0]);
        queue.update(pod("a", 0), true, 5_000);
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));
    }

    #[test]
    fn an_event_during_the_attempt_is_not_lost() {
        let mut queue = Queue::default();
        queue.update(pod("a", 0), true, 0);
        popped(&mut queue);
        queue.wake(1, |_| false);
        queue.unschedulable(&"a".into(), 2);
        assert_eq!(queue.advance(2), Some(1_002));
    }

    #[test]
    fn backoff_doubles_up_to_ten_seconds() {
        assert_eq!([1, 2, 3, 4, 5, 60].map(backoff_ms), [1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
    }

    #[test]
    fn a_gated_pod_waits_until_its_gates_are_gone() {
        let mut queue = Queue::default();
        let gated =
            json!({"metadata": {"name": "a", "uid": "a"}, "spec": {"schedulingGates": [{"name": "g"}]}});
        queue.update(Arc::new(Pod::parse(Arc::new(gated))), true, 0);
        assert_eq!(popped(&mut queue), None);
        queue.update(pod("a", 0), true, 1);
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));
    }

    #[test]
    fn a_pod_that_waits_five_minutes_is_tried_anyway() {
        let mut queue = Queue::default();
        queue.update(pod("a", 0), true, 0);
        popped(&mut queue);
        queue.unschedulable(&"a".into(), 0);
        assert_eq!(queue.advance(1), Some(UNSCHEDULABLE_MS_MAX));
        queue.advance(UNSCHEDULABLE_MS_MAX);
        assert_eq!(popped(&mut queue).as_deref(), Some("a"));
    }
}
