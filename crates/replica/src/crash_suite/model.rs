//! What a member must hold: every entry that it was ever given, the state after each committed one, and what was
//! promised to others before a crash.
//!
//! Always holds: the key space here never flushed, restored or compacted a row, so it shares no code with what it is
//! compared with but `apply`. Not here: reading a member (judge.rs), choosing what happens (work.rs).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mvcc::*;
use parking_lot::Mutex;
use wal::sim_disk::SimDisk;
use wal::sim_disk::crash::Random;

use super::{CACHE_SIZE_BYTES, Kind, ME};
use crate::raft_types::*;
use crate::snapshot::Export;
use crate::state_file::{Position, StateFile, StateView};

/// What happened outside of the disk, between its operations.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The directory is the member's from now on.
    Begun,
    /// Everything up to here was reported to be on disk, before so many truncations had been asked for.
    Logged {
        last: LogId,
        truncations: usize,
    },
    /// What is behind this may go.
    Truncated {
        last: LogId,
    },
    Voted(u64),
    /// The state file was taken to be durable below this index.
    Durable(u64),
    /// A client may have seen this.
    Answered {
        index: u64,
        revision: i64,
    },
    /// `None`: on its way.
    Quarantined(Option<bool>),
}

/// What a crash must not take back.
#[derive(Clone, Debug, Default)]
pub(super) struct Promise {
    pub begun: bool,
    pub logged: Option<LogId>,
    pub vote_term: u64,
    pub durable_next: u64,
    pub answered_next: u64,
    pub revision: i64,
    pub quarantined: Option<bool>,
    truncations: Vec<LogId>,
}

impl Promise {
    /// Of a directory that is empty. Who finds nobody is in quarantine from its first start on; whoever is alone is new for
    /// certain.
    pub(super) fn new(kind: Kind) -> Promise {
        Promise { quarantined: Some(kind != Kind::Alone), ..Promise::default() }
    }

    pub(super) fn hear(&mut self, event: &Event) {
        match event {
            Event::Begun => self.begun = true,
            Event::Logged { last, truncations } => {
                let cut = self.truncations.get(*truncations..).unwrap_or_default();
                let last =
                    cut.iter().fold(*last, |last, cut| if cut.index < last.index { *cut } else { last });
                if self.logged.is_none_or(|logged| logged.index <= last.index) {
                    self.logged = Some(last);
                }
            }
            Event::Truncated { last } => {
                self.truncations.push(*last);
                if self.logged.is_some_and(|logged| logged.index > last.index) {
                    self.logged = Some(*last);
                }
            }
            Event::Voted(term) => self.vote_term = *term,
            Event::Durable(next) => self.durable_next = self.durable_next.max(*next),
            Event::Answered { index, revision } => {
                self.answered_next = self.answered_next.max(index + 1);
                self.revision = self.revision.max(*revision);
            }
            Event::Quarantined(quarantined) => self.quarantined = *quarantined,
        }
    }

    /// For the next life, which counts its truncations anew.
    pub(super) fn carried(&self) -> Promise {
        Promise { truncations: Vec::new(), ..self.clone() }
    }
}

/// The events of one life, each noted among the operations of its disk.
#[derive(Clone)]
pub(super) struct Story {
    disk: SimDisk,
    told: Arc<Mutex<Told>>,
}

struct Told {
    events: Vec<Event>,
    promise: Promise,
}

impl Story {
    pub(super) fn new(disk: SimDisk, promise: Promise) -> Story {
        Story { disk, told: Arc::new(Mutex::new(Told { events: Vec::new(), promise })) }
    }

    pub(super) fn tell(&self, event: Event) {
        let mut told = self.told.lock();
        told.promise.hear(&event);
        self.disk.note(told.events.len() as u64);
        told.events.push(event);
    }

    pub(super) fn promise(&self) -> Promise {
        self.told.lock().promise.clone()
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.told.lock().events.clone()
    }
}

/// The state after one entry.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub hash: u64,
    pub revision: i64,
    pub membership: StoredMembership,
    pub removed: Vec<u64>,
}

/// Everything that the cluster decided, and whatever else the member was given.
pub(super) struct Model {
    /// Committed entries, by index.
    pub chain: Vec<RaftEntry>,
    pub shown: Vec<Shown>,
    /// Every entry that was ever made, with the term of the one before it: two logs with the same entry are the same
    /// up to it.
    known: BTreeMap<(u64, u64), Option<u64>>,
    store: Store,
    membership: StoredMembership,
    removed: Vec<u64>,
}

/// Nothing was ever taken out of the model's store, so nothing has to be read back.
struct NoRecords;

impl Records for NoRecords {
    fn read(&self, _revision: Revision) -> Result<Option<Bytes>, RecordsError> {
        Ok(None)
    }

    fn scan(&self, _from: Revision, _bound: ScanBound) -> Result<Scanned, RecordsError> {
        Ok(Scanned { is_last: true, ..Scanned::default() })
    }
}

fn proposal(entry: &RaftEntry) -> Option<Proposal> {
    match &entry.payload {
        EntryPayload::Normal(Payload(bytes)) => Proposal::decode(bytes.slice(1..)).ok(),
        EntryPayload::Blank | EntryPayload::Membership(_) => None,
    }
}

impl Model {
    pub(super) fn new(first: RaftEntry) -> Model {
        let mut model = Model {
            chain: Vec::new(),
            shown: Vec::new(),
            known: BTreeMap::new(),
            store: Store::new(Limits::default()),
            membership: StoredMembership::default(),
            removed: Vec::new(),
        };
        model.know(&first, None);
        model.commit(first);
        model
    }

    pub(super) fn know(&mut self, entry: &RaftEntry, previous_term: Option<u64>) {
        self.known.insert((entry.log_id.index, entry.log_id.leader_id.term), previous_term);
    }

    /// Whether an entry with this id was made, and behind one of this term.
    pub(super) fn knows(&self, id: &LogId, previous_term: Option<u64>) -> bool {
        let known = self.known.get(&(id.index, id.leader_id.term));
        known.is_some_and(|known| previous_term.is_none() || *known == previous_term)
    }

    pub(super) fn commit(&mut self, entry: RaftEntry) {
        match &entry.payload {
            EntryPayload::Membership(membership) => {
                let before: BTreeSet<u64> = self.membership.nodes().map(|(id, _)| *id).collect();
                let after: BTreeSet<u64> = membership.nodes().map(|(id, _)| *id).collect();
                self.removed.extend(before.difference(&after));
                self.removed.retain(|id| !after.contains(id));
                self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
            }
            EntryPayload::Normal(_) | EntryPayload::Blank => {
                if let Some(proposal) = proposal(&entry) {
                    self.store.apply(&NoRecords, entry.log_id.leader_id.term, &proposal);
                }
            }
        }
        self.chain.push(entry);
        self.shown.push(Shown {
            hash: self.store.state_hash(),
            revision: self.store.revision(),
            membership: self.membership.clone(),
            removed: self.removed.clone(),
        });
    }

    pub(super) fn ids(&self) -> Vec<String> {
        self.chain.iter().map(|entry| entry.log_id.to_string()).collect()
    }

    pub(super) fn next_index(&self) -> u64 {
        self.chain.len() as u64
    }

    /// Whether this entry is the committed one of its index.
    pub(super) fn is_committed(&self, id: &LogId) -> bool {
        self.chain.get(id.index as usize).is_some_and(|entry| entry.log_id == *id)
    }

    /// The state after `index` entries and one more, in a file of its own, as another member has it.
    pub(super) fn view(&self, index: u64) -> Result<StateView, String> {
        let mut store = Store::new(Limits::default());
        for entry in self.chain.iter().take(index as usize + 1) {
            if let Some(proposal) = proposal(entry) {
                store.apply(&NoRecords, entry.log_id.leader_id.term, &proposal);
            }
        }
        while index.is_multiple_of(2) && store.compact_step(100) {}
        let disk: Arc<dyn wal::Disk> = Arc::new(SimDisk::new().untraced());
        let told = |error: crate::StateFileError| error.to_string();
        let file = StateFile::open(&disk, Path::new("other/state.redb"), CACHE_SIZE_BYTES).map_err(told)?;
        // The deletions of a compaction apart: what a planted bug does to them is for crashes to find.
        let (deletions, rows): (Vec<Row>, Vec<Row>) =
            store.take_rows().into_iter().partition(|row| matches!(row, Row::DeleteRecord(_)));
        let position = self.position(index);
        file.write(&rows, &position, true).map_err(told)?;
        file.write(&deletions, &position, true).map_err(told)?;
        file.view().map_err(told)
    }

    pub(super) fn position(&self, index: u64) -> Position {
        let shown = &self.shown[index as usize];
        Position {
            applied: Some(self.chain[index as usize].log_id),
            membership: shown.membership.clone(),
            removed: shown.removed.clone(),
        }
    }

    /// The frames of a snapshot up to `index`.
    pub(super) fn frames(&self, index: u64) -> Result<Vec<Bytes>, String> {
        let view = self.view(index)?;
        let term = self.chain[index as usize].log_id.leader_id.term;
        let mut export =
            Export::new(&view, &Vote::new_committed(term, ME + 1)).map_err(|error| error.to_string())?;
        std::iter::from_fn(|| export.next().transpose())
            .map(|frame| frame.map_err(|error| error.to_string()))
            .collect()
    }

    /// A command of a client, a lease or the store itself; a change of membership now and then.
    pub(super) fn payload(&self, random: &mut Random, number: u64) -> EntryPayload {
        let command = match random.below(28) {
            0 => return EntryPayload::Blank,
            1 => return EntryPayload::Membership(self.changed_membership(random)),
            2..=11 => Command::Put(put(random)),
            12..=14 => {
                Command::DeleteRange(DeleteRange { range: KeyRange::Key(key(random)), prev_kv: false })
            }
            15 => Command::DeleteRange(DeleteRange { range: KeyRange::From(key(random)), prev_kv: false }),
            16 | 17 => {
                let success = (0..random.below(4) + 1).map(|_| Op::Put(put(random))).collect();
                Command::Txn(Txn { compare: Vec::new(), success, failure: Vec::new() })
            }
            // Half of them at the current revision, which may be a deletion's.
            18..=24 => {
                let back = random.below(2) * random.below(8);
                Command::Compact(Compact { revision: self.store.revision() - back as i64 })
            }
            25 => Command::LeaseGrant(LeaseGrant { id: random.below(6) as i64 + 1, ttl_s: 100 }),
            26 => Command::LeaseRevoke(LeaseRevoke { id: random.below(6) as i64 + 1 }),
            _ => {
                let client_urls = vec![format!("http://m{}", random.below(9))];
                Command::MemberAttributes(MemberAttributes { member: ME, name: "m1".to_owned(), client_urls })
            }
        };
        // The kind byte of `codec::EntryKind::Normal`.
        let mut bytes = vec![1];
        Proposal { id: number, member: ME + 1, caller: Caller::System, command }.encode(&mut bytes);
        EntryPayload::Normal(Payload(bytes.into()))
    }

    /// A learner more, or one less.
    fn changed_membership(&self, random: &mut Random) -> Membership {
        let now = self.membership.membership();
        let mut nodes: BTreeMap<u64, Node> = now.nodes().map(|(id, node)| (*id, node.clone())).collect();
        let id = 50 + random.below(3);
        if nodes.remove(&id).is_none() {
            nodes.insert(id, Node { name: format!("m{id}"), ..Node::default() });
        }
        let voters: BTreeSet<u64> = now.voter_ids().collect();
        Membership::new(vec![voters], nodes).expect("every voter has a node")
    }
}

fn key(random: &mut Random) -> Bytes {
    Bytes::from(format!("key{}", random.below(8)))
}

fn put(random: &mut Random) -> Put {
    let size = random.below(300) as usize;
    // A lease that may not exist is refused, the same on every member.
    let lease = if random.below(5) == 0 { random.below(6) as i64 + 1 } else { 0 };
    Put { key: key(random), value: vec![random.below(256) as u8; size].into(), lease, ..Put::default() }
}
