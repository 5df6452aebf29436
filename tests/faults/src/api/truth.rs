//! The one history of a kind, put together from what all members told, and whether each of them told it as it is.
//!
//! Invariants of a correct server: versions only grow along a client's watches, also over reconnections and other API
//! server processes; nothing is left out, added twice, or changed before it is there; what a list shows is the history's
//! state at the list's version; behind a bookmark nothing older comes.

use std::collections::BTreeMap;

use crate::api::history::{self, Change, Object, Stream, Told};
use crate::history::Violation;

/// Every change of a kind by version, as told by anybody.
#[derive(Debug, Default)]
pub struct Truth {
    changes: BTreeMap<u64, (Change, Object)>,
}

impl Truth {
    /// `store`: what the store itself told, if somebody listened; then it is the history, and nothing is beside it.
    /// `Err`: two tell one version differently.
    pub fn agreed(store: Option<&Stream>, streams: &[&Stream]) -> Result<Truth, String> {
        let mut truth = Truth::default();
        if let Some(store) = store {
            for told in &store.told {
                if let Told::Event { change, object, .. } = told {
                    truth.changes.insert(object.version, (*change, object.clone()));
                }
            }
        }
        for stream in streams {
            for told in &stream.told {
                match told {
                    Told::Event { change, object, .. } => truth.learn(*change, object, store.is_some()),
                    Told::List { .. } | Told::Bookmark { .. } => Ok(()),
                }
                .map_err(|why| format!("m{} {why}", stream.member + 1))?;
            }
        }
        // What was there before the first watch, or was told in lists alone.
        for stream in streams {
            let lists = stream.told.iter().filter_map(|told| match told {
                Told::List { objects, .. } => Some(objects),
                _ => None,
            });
            for object in lists.flatten() {
                let change = match truth.changes.get(&object.version) {
                    Some((Change::Deleted, _)) | None => Change::Modified,
                    Some((change, _)) => *change,
                };
                let learned = truth.learn(change, object, store.is_some());
                learned.map_err(|why| format!("m{}, in a list, {why}", stream.member + 1))?;
            }
        }
        Ok(truth)
    }

    fn learn(&mut self, change: Change, object: &Object, is_complete: bool) -> Result<(), String> {
        match self.changes.get_mut(&object.version) {
            None if is_complete => {
                Err(format!("told of {}, which the store never held", history::told(change, object)))
            }
            None => {
                self.changes.insert(object.version, (change, object.clone()));
                Ok(())
            }
            Some((known_change, known)) => {
                // The store knows no digest; the first who shows the object does.
                if known.digest == 0 {
                    known.digest = object.digest;
                }
                match *known_change == change && known == object {
                    true => Ok(()),
                    false => Err(format!(
                        "told of {}, others of {}{}",
                        history::told(change, object),
                        history::told(*known_change, known),
                        if known.digest == object.digest { "" } else { ", and the rest differs, too" }
                    )),
                }
            }
        }
    }

    pub fn changes(&self) -> impl Iterator<Item = &(Change, Object)> {
        self.changes.values()
    }

    /// What happened at exactly this version.
    pub fn at(&self, version: u64) -> Option<&(Change, Object)> {
        self.changes.get(&version)
    }

    pub fn last_version(&self) -> u64 {
        self.changes.keys().next_back().copied().unwrap_or(0)
    }

    /// What there is at `version`, by name.
    pub fn state(&self, version: u64) -> BTreeMap<&str, &Object> {
        let mut state = BTreeMap::new();
        for (change, object) in self.changes.range(..=version).map(|(_, told)| told) {
            match change {
                Change::Deleted => state.remove(object.name.as_str()),
                _ => state.insert(object.name.as_str(), object),
            };
        }
        state
    }

    fn next_after(&self, version: u64) -> Option<u64> {
        self.changes.range(version + 1..).next().map(|(version, _)| *version)
    }
}

/// The number of events that were checked. `end`: each stream must have come so far.
pub fn check(truth: &Truth, streams: &[&Stream], end: u64) -> Result<usize, Violation> {
    let mut events = 0;
    for stream in streams {
        let mut follower = Follower { truth, stream, position: 0, state: BTreeMap::new() };
        for told in &stream.told {
            follower.hears(told).map_err(|sentence| match told.at_ns() {
                Some(at_ns) => Violation::seen(at_ns, sentence),
                None => sentence.into(),
            })?;
            events += usize::from(matches!(told, Told::Event { .. }));
        }
        if follower.position < end && truth.next_after(follower.position).is_some_and(|next| next <= end) {
            return Err(follower
                .says(&format!("ends at version {}, not at {end}", follower.position))
                .into());
        }
    }
    Ok(events)
}

struct Follower<'a> {
    truth: &'a Truth,
    stream: &'a Stream,
    /// Everything up to here has been told.
    position: u64,
    state: BTreeMap<&'a str, &'a Object>,
}

impl<'a> Follower<'a> {
    fn says(&self, what: &str) -> String {
        format!("the watch of {} through m{} {what}", self.stream.plural, self.stream.member + 1)
    }

    fn hears(&mut self, told: &'a Told) -> Result<(), String> {
        match told {
            Told::List { version, objects, .. } => {
                if *version < self.position {
                    return Err(
                        self.says(&format!("listed version {version} after {} was told", self.position))
                    );
                }
                let listed: BTreeMap<&str, &Object> =
                    objects.iter().map(|object| (object.name.as_str(), object)).collect();
                let expected = self.truth.state(*version);
                if listed != expected {
                    let differs = listed.iter().find(|(name, object)| expected.get(*name) != Some(*object));
                    let lacks = expected.keys().find(|name| !listed.contains_key(*name));
                    return Err(self.says(&format!(
                        "listed at version {version} what was not so: {}; left out: {}",
                        differs.map_or_else(|| "nothing".to_owned(), |(_, object)| object.to_string()),
                        lacks.map_or("nothing", |name| name)
                    )));
                }
                (self.position, self.state) = (*version, listed);
            }
            Told::Bookmark { version } => {
                if let Some(left_out) = self.truth.next_after(self.position).filter(|next| next <= version) {
                    return Err(
                        self.says(&format!("told a bookmark of {version} and left out version {left_out}"))
                    );
                }
                self.position = self.position.max(*version);
            }
            Told::Event { change, object, .. } => self.changes(*change, object)?,
        }
        Ok(())
    }

    fn changes(&mut self, change: Change, object: &'a Object) -> Result<(), String> {
        if object.version <= self.position {
            return Err(self.says(&format!(
                "told version {} of {} after {}",
                object.version, object.name, self.position
            )));
        }
        if let Some(left_out) = self.truth.next_after(self.position).filter(|next| *next < object.version) {
            return Err(self.says(&format!("left out version {left_out} before {}", object.version)));
        }
        let before = self.state.get(object.name.as_str()).map(|before| &before.uid);
        let fits = match change {
            Change::Added => before.is_none(),
            Change::Modified | Change::Deleted => before == Some(&object.uid),
        };
        if !fits {
            return Err(self.says(&format!(
                "told {} when the object that it knew was {}",
                history::told(change, object),
                before.map_or("none", |uid| uid)
            )));
        }
        match change {
            Change::Deleted => self.state.remove(object.name.as_str()),
            _ => self.state.insert(&object.name, object),
        };
        self.position = object.version;
        Ok(())
    }
}
