//! WAT: every event of every watch against the log: what it says the key held, held before, and since when; and that
//! nothing arrives behind a notification of progress.
//!
//! Order, uniqueness, completeness and that members agree are decided when the log is made (`Log::agreed`).

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Entry, Key, Value, Violation, held, key_name, seconds};
use crate::log::{Change, Log};

/// One event as a watch delivered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub revision: i64,
    pub key: Key,
    /// `None`: deleted.
    pub value: Option<Value>,
    /// Zero in a deletion.
    pub create_revision: i64,
    /// Zero in a deletion.
    pub version: i64,
    pub previous: Option<Entry>,
    /// Number of the response of this watcher that carried it.
    pub response: u64,
    pub arrived_ns: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, arrived) = (key_name(self.key), seconds(self.arrived_ns));
        match self.value {
            Some(value) => write!(f, "at {arrived} revision {}: {key} = {value}", self.revision),
            None => write!(f, "at {arrived} revision {}: {key} deleted", self.revision),
        }
    }
}

/// A watcher was told that it has been given everything up to `revision`, when it had been given `events` events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    pub revision: i64,
    pub events: usize,
}

/// What one watcher was given, over all its connections to one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stream {
    pub events: Vec<Event>,
    pub progress: Vec<Progress>,
}

impl Stream {
    pub fn changes(&self) -> Vec<Change> {
        let change = |event: &Event| Change { revision: event.revision, key: event.key, value: event.value };
        self.events.iter().map(change).collect()
    }
}

/// The number of events checked.
pub fn check(log: &Log, streams: &[Stream]) -> Result<usize, Violation> {
    for (member, stream) in streams.iter().enumerate() {
        // Of streams that were cut off the log holds only what all were told.
        for event in stream.events.iter().filter(|event| event.revision <= log.last_revision()) {
            event_is_right(log, event)
                .map_err(|why| format!("the watch through m{}: {why}", member + 1))
                .map_err(|sentence| Violation::seen(event.arrived_ns, sentence))?;
        }
        if let Some(pair) = stream
            .events
            .windows(2)
            .find(|pair| pair[0].revision == pair[1].revision && pair[0].response != pair[1].response)
        {
            let sentence = format!(
                "the watch through m{} tore revision {} into two responses: {}; and {}",
                member + 1,
                pair[0].revision,
                pair[0],
                pair[1]
            );
            return Err(Violation::seen(pair[1].arrived_ns, sentence));
        }
        for progress in &stream.progress {
            if let Some(late) = stream.events[progress.events.min(stream.events.len())..]
                .iter()
                .find(|event| event.revision <= progress.revision)
            {
                let sentence = format!(
                    "the watch through m{} said that all up to revision {} was delivered, then came {late}",
                    member + 1,
                    progress.revision
                );
                return Err(Violation::seen(late.arrived_ns, sentence));
            }
        }
    }
    Ok(streams.iter().map(|stream| stream.events.len()).sum())
}

fn event_is_right(log: &Log, event: &Event) -> Result<(), String> {
    let before = log.entry(event.key, event.revision - 1);
    if event.previous != before {
        let (told, was) = (held(event.previous), held(before));
        return Err(format!("{event} says that before it the key was {told}; the log says {was}"));
    }
    let after = log.entry(event.key, event.revision);
    let right = match (event.value, after) {
        (Some(value), Some(entry)) => {
            (value, event.create_revision, event.version)
                == (entry.value, entry.create_revision, entry.version)
        }
        (None, None) => true,
        _ => false,
    };
    match right {
        true => Ok(()),
        false => Err(format!(
            "{event}, version {}, created at revision {}; but the log has {} then",
            event.version,
            event.create_revision,
            held(after)
        )),
    }
}
