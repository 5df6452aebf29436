//! Our own informers (`kubeclient`), as the scheduler and the controllers use them, one per member and kind: what they
//! deliver, and whether it leads to the store's state without ever going back.
//!
//! Invariants of a correct informer, whatever happens to its server: an object's versions only grow; what is delivered
//! was so at its version; the state before is the one that was delivered before; what is called deleted has been
//! deleted; once the servers are quiet it holds what the store holds. It may leave out states that passed while nobody
//! answered, which a watch may not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use kubeclient::{Api, Informer, InformerEvent, InformerOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch::Receiver;
use tokio_util::sync::CancellationToken;

use crate::api::history::{Change, Object};
use crate::api::truth::Truth;
use crate::api::watchers;
use crate::history::Violation;
use crate::workload::Shared;

const POLL: Duration = Duration::from_millis(100);

/// What one informer delivered, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Informed {
    pub member: usize,
    pub plural: String,
    pub heard: Vec<Heard>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    /// `old`: version of the state that was delivered before.
    Applied {
        object: Object,
        old: Option<u64>,
        at_ns: u64,
    },
    Deleted {
        object: Object,
        at_ns: u64,
    },
    Synced {
        at_ns: u64,
    },
}

/// Until what was there at `end` (0: not known yet) has been delivered, or until it is `u64::MAX`.
pub async fn inform(
    member: usize,
    plural: &str,
    api: Api,
    mut end: Receiver<u64>,
    shared: Arc<Shared>,
) -> Informed {
    let shutdown = CancellationToken::new();
    let _ends_with_this = shutdown.clone().drop_guard();
    let mut informer = Informer::start(api, InformerOptions::default(), shutdown);
    let mut informed = Informed { member, plural: plural.to_owned(), heard: Vec::new() };
    let hear = |informed: &mut Informed, event| {
        let heard = heard(plural, event, &shared);
        let piece = Informed { member, plural: plural.to_owned(), heard: vec![heard.clone()] };
        shared.note("informers", &piece);
        informed.heard.push(heard);
    };
    loop {
        let last = *end.borrow_and_update();
        // All up to here waits to be taken, if it has not been.
        let handed_over = informer.resource_version().parse().unwrap_or(0);
        while let Some(event) = informer.try_next() {
            hear(&mut informed, event);
        }
        if last == u64::MAX || (last > 0 && handed_over >= last) {
            return informed;
        }
        tokio::select! {
            event = informer.next() => match event {
                Some(event) => hear(&mut informed, event),
                None => return informed,
            },
            _ = end.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

fn heard(plural: &str, event: InformerEvent, shared: &Shared) -> Heard {
    let at_ns = shared.now_ns();
    let version = |object: Arc<Value>| meta::of(&object).resource_version().parse().unwrap_or(0);
    match event {
        InformerEvent::Applied { object, old } => {
            Heard::Applied { object: watchers::object(plural, &object), old: old.map(version), at_ns }
        }
        InformerEvent::Deleted { object } => {
            Heard::Deleted { object: watchers::object(plural, &object), at_ns }
        }
        InformerEvent::Synced => Heard::Synced { at_ns },
    }
}

/// The number of events that were checked. What is newer than `end` may not be known to `truth`.
pub fn check(truth: &Truth, informers: &[&Informed], end: u64) -> Result<usize, Violation> {
    let mut events = 0;
    for informed in informers {
        let mut follower = Follower { truth, end, held: BTreeMap::new(), newest: BTreeMap::new() };
        let mut synced = 0;
        for heard in &informed.heard {
            let (at_ns, heard) = match heard {
                Heard::Applied { object, old, at_ns } => (at_ns, follower.applied(object, *old)),
                Heard::Deleted { object, at_ns } => (at_ns, follower.deleted(object)),
                Heard::Synced { at_ns } => {
                    synced += 1;
                    (at_ns, Ok(()))
                }
            };
            heard.map_err(|why| Violation::seen(*at_ns, says(informed, &why)))?;
            events += 1;
        }
        if synced != 1 {
            return Err(
                says(informed, &format!("was told {synced} times that all has been delivered")).into()
            );
        }
        follower.holds_all().map_err(|why| says(informed, &why))?;
    }
    Ok(events)
}

fn says(informed: &Informed, what: &str) -> String {
    format!("the informer of {} through member {} {what}", informed.plural, informed.member)
}

struct Follower<'a> {
    truth: &'a Truth,
    end: u64,
    held: BTreeMap<&'a str, &'a Object>,
    /// Per name the newest version that was delivered, also of a deletion.
    newest: BTreeMap<&'a str, u64>,
}

impl<'a> Follower<'a> {
    fn applied(&mut self, object: &'a Object, old: Option<u64>) -> Result<(), String> {
        let newest = self.newest.get(object.name.as_str()).copied().unwrap_or(0);
        if object.version <= newest {
            return Err(format!("delivered {object:?} after version {newest}"));
        }
        let before = self.held.get(object.name.as_str());
        if before.map(|before| before.version) != old {
            return Err(format!("delivered {object:?} on top of {old:?}, and had delivered {before:?}"));
        }
        if before.is_some_and(|before| before.uid != object.uid) {
            return Err(format!("delivered {object:?} as a change of another object, {before:?}"));
        }
        match self.truth.at(object.version) {
            Some((Change::Added | Change::Modified, known)) if is_same(known, object) => {}
            None if object.version > self.end => {}
            known => return Err(format!("delivered {object:?}, and there was {known:?}")),
        }
        self.newest.insert(&object.name, object.version);
        self.held.insert(&object.name, object);
        Ok(())
    }

    fn deleted(&mut self, object: &'a Object) -> Result<(), String> {
        let Some(before) = self.held.remove(object.name.as_str()).filter(|before| before.uid == object.uid)
        else {
            return Err(format!("delivered the deletion of {object:?}, which it had not delivered"));
        };
        if object.version < before.version {
            return Err(format!("delivered a deletion at {} after {before:?}", object.version));
        }
        // The deletion itself, or the last state of what was gone when the server answered again.
        let is_deleted = |(change, known): &(Change, Object)| {
            *change == Change::Deleted && known.uid == object.uid && known.version >= object.version
        };
        if object.version <= self.end && !self.truth.changes().any(is_deleted) {
            return Err(format!("delivered the deletion of {object:?}, which was not deleted"));
        }
        self.newest.insert(&object.name, object.version);
        Ok(())
    }

    /// Whether what it holds is what there was at the end, apart from what came later.
    fn holds_all(&self) -> Result<(), String> {
        let expected = self.truth.state(self.end);
        for (name, object) in &expected {
            match self.held.get(name) {
                Some(held) if held.version > self.end || is_same(object, held) => {}
                held => return Err(format!("ends with {held:?}, and there is {object:?}")),
            }
        }
        let stale =
            self.held.iter().find(|(name, held)| held.version <= self.end && !expected.contains_key(*name));
        stale.map_or(Ok(()), |(_, held)| Err(format!("ends with {held:?}, which is gone")))
    }
}

/// The store alone knows no digest.
fn is_same(known: &Object, told: &Object) -> bool {
    let facts =
        |object: &Object| (object.name.clone(), object.uid.clone(), object.version, object.facts.clone());
    facts(known) == facts(told) && (known.digest == 0 || known.digest == told.digest)
}
