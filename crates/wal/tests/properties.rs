//! The log against a naive model, and against files full of junk.
//!
//! Always holds: whatever the disk contains, opening ends in a log or in a named error, never in a panic.
//! Not here: crashes (crash_points.rs).

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain fails, as it should")]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use proptest::prelude::*;
use wal::sim_disk::SimDisk;
use wal::{Config, Entry, Owner, ReadError, Wal, open_inline};

fn config() -> Config {
    let mut config = Config::new("data");
    config.segment_size_bytes = 1024;
    config.salt = 1;
    config
}

#[derive(Clone, Debug)]
enum Step {
    /// Relative to the next index, so that some are refused.
    Append(i64, u64),
    Truncate(u64),
    Purge(u64),
    Read(u64, u64, u64),
    Idle,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..6u64).prop_map(|count| Step::Append(0, count)),
        1 => (-1..=1i64, 1..3u64).prop_map(|(skip, count)| Step::Append(skip, count)),
        2 => (0..60u64).prop_map(Step::Truncate),
        2 => (0..60u64).prop_map(Step::Purge),
        4 => (0..60u64, 0..60u64, 0..900u64).prop_map(|(from, to, size)| Step::Read(from, to, size)),
        2 => Just(Step::Idle),
        1 => Just(Step::Reopen),
    ]
}

/// A map, two numbers, and the rules.
#[derive(Default)]
struct Naive {
    entries: BTreeMap<u64, Entry>,
    next: Option<u64>,
    purged: Option<u64>,
}

struct Pair {
    disk: SimDisk,
    log: Option<(Wal, Owner)>,
    naive: Naive,
    written: u64,
}

impl Pair {
    fn ask(&mut self, ask: impl FnOnce(&Wal, wal::Done)) -> bool {
        let answer: Arc<Mutex<Option<io::Result<()>>>> = Arc::default();
        let (wal, owner) = self.log.as_mut().unwrap();
        let slot = Arc::clone(&answer);
        ask(wal, Box::new(move |result| *slot.lock().unwrap() = Some(result)));
        owner.work();
        let answer = answer.lock().unwrap().take();
        answer.expect("every request is answered").is_ok()
    }

    fn reopen(&mut self) {
        self.log = None;
        let (wal, owner, recovered) = open_inline(config(), self.disk.clone()).unwrap();
        assert_eq!(recovered.entries, self.naive.entries.values().cloned().collect::<Vec<_>>());
        assert_eq!(recovered.purged.map(|(purged, _)| purged), self.naive.purged);
        assert_eq!(recovered.damage, wal::Damage::None);
        self.log = Some((wal, owner));
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Append(skip, count) => {
                let first = self.naive.next.unwrap_or(3).saturating_add_signed(*skip);
                let entries: Vec<Entry> = (first..first + count)
                    .map(|index| {
                        self.written += 1;
                        let payload = Bytes::from(vec![index as u8; (self.written * 37 % 200) as usize]);
                        Entry { term: self.written, index, payload }
                    })
                    .collect();
                let expected = self.naive.next.is_none_or(|next| next == first);
                let asked = entries.clone();
                assert_eq!(self.ask(|wal, done| wal.append(asked, done)), expected);
                if expected {
                    self.naive.next = Some(first + count);
                    self.naive.entries.extend(entries.into_iter().map(|entry| (entry.index, entry)));
                }
            }
            Step::Truncate(from) => {
                let expected = self.naive.purged.is_none_or(|purged| *from > purged);
                assert_eq!(self.ask(|wal, done| wal.truncate(*from, done)), expected);
                if expected {
                    self.naive.entries.retain(|index, _| index < from);
                    self.naive.next = self.naive.next.map(|next| next.min(*from));
                }
            }
            Step::Purge(upto) => {
                assert!(self.ask(|wal, done| wal.purge(*upto, Bytes::new(), done)));
                if self.naive.purged.is_none_or(|purged| *upto > purged) {
                    self.naive.entries.retain(|index, _| index > upto);
                    self.naive.next = self.naive.next.max(Some(upto + 1));
                    self.naive.purged = Some(*upto);
                }
            }
            Step::Read(from, to, size) => self.read(*from, *to, *size),
            Step::Idle => while self.log.as_mut().unwrap().1.step() {},
            Step::Reopen => self.reopen(),
        }
    }

    fn read(&self, from: u64, to: u64, size_bytes_max: u64) {
        let read = self.log.as_ref().unwrap().0.read(from..to, size_bytes_max);
        let first = self.naive.entries.keys().next().copied();
        let first = first.or(self.naive.purged.map(|purged| purged + 1));
        if from < to && first.is_some_and(|first| from < first) {
            assert!(matches!(read, Err(ReadError::Purged { .. })), "{read:?}");
            return;
        }
        let mut expected = Vec::new();
        let mut size = 0;
        for (_, entry) in self.naive.entries.range(from..to.max(from)) {
            if !expected.is_empty() && size >= size_bytes_max {
                break;
            }
            size += entry.payload.len() as u64;
            expected.push(entry.clone());
        }
        assert_eq!(read.unwrap(), expected);
    }
}

#[derive(Clone, Debug)]
enum Junk {
    Byte(u64, u64, u8),
    Cut(u64, u64),
    Copy(u64, u64, u64, u64, u64),
    Rename(u64, u64),
    Remove(u64),
}

fn junk() -> impl Strategy<Value = Junk> {
    let number = any::<u64>;
    prop_oneof![
        3 => (number(), number(), any::<u8>()).prop_map(|(file, at, byte)| Junk::Byte(file, at, byte)),
        1 => (number(), number()).prop_map(|(file, size)| Junk::Cut(file, size)),
        3 => (number(), number(), number(), number(), number()).prop_map(|(a, b, c, d, e)| Junk::Copy(a, b, c, d, e)),
        1 => (number(), number()).prop_map(|(file, sequence)| Junk::Rename(file, sequence)),
        1 => number().prop_map(Junk::Remove),
    ]
}

fn spoil(platter: &mut wal::sim_disk::crash::Platter, junk: &Junk) {
    let names: Vec<PathBuf> = platter.names.keys().cloned().collect();
    let pick = |choice: u64| names.get((choice % names.len().max(1) as u64) as usize);
    let file = |choice: u64| pick(choice).map(|path| platter.names[path]);
    match junk {
        Junk::Byte(choice, at, byte) => {
            let Some(file) = file(*choice) else { return };
            let size = platter.files[file].len().max(1);
            if !platter.files[file].is_empty() {
                platter.files[file].write(&[*byte], *at as usize % size);
            }
        }
        Junk::Cut(choice, size) => {
            let Some(file) = file(*choice) else { return };
            let size = *size as usize % (platter.files[file].len() + 1);
            platter.files[file].resize(size);
        }
        Junk::Copy(from, start, size, to, at) => {
            let (Some(from), Some(to)) = (file(*from), file(*to)) else { return };
            let bytes = platter.files[from].to_vec();
            let start = *start as usize % (bytes.len() + 1) / 8 * 8;
            let bytes = &bytes[start..(start + *size as usize % 600).min(bytes.len())];
            let at = *at as usize % (platter.files[to].len() + 1) / 8 * 8;
            platter.files[to].write(bytes, at);
        }
        Junk::Rename(choice, sequence) => {
            let Some(path) = pick(*choice).cloned() else { return };
            let Some(file) = platter.names.remove(&path) else { return };
            platter.names.insert(PathBuf::from(format!("data/wal-{:016x}", sequence % 12)), file);
        }
        Junk::Remove(choice) => {
            if let Some(path) = pick(*choice).cloned() {
                platter.names.remove(&path);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn the_log_does_what_a_map_would(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair { disk: SimDisk::new(), log: None, naive: Naive::default(), written: 0 };
        pair.reopen();
        for step in &steps {
            pair.run(step);
        }
        pair.reopen();
    }

    #[test]
    fn junk_on_disk_never_panics_and_the_log_goes_on(
        steps in prop::collection::vec(step(), 1..40),
        junk in prop::collection::vec(junk(), 1..20),
    ) {
        let mut pair = Pair { disk: SimDisk::new(), log: None, naive: Naive::default(), written: 0 };
        pair.reopen();
        for step in &steps {
            pair.run(step);
        }
        let mut platter = pair.disk.cache();
        for junk in &junk {
            spoil(&mut platter, junk);
        }
        let disk = SimDisk::with(platter);
        if let Ok((wal, mut owner, recovered)) = open_inline(config(), disk.clone()) {
            let follow = recovered.entries.windows(2).all(|pair| pair[0].index + 1 == pair[1].index);
            prop_assert!(follow, "{:?}", recovered.entries);
            let next = recovered.entries.last().map(|entry| entry.index + 1);
            let next = next.or(recovered.purged.map(|(purged, _)| purged + 1)).unwrap_or(1);
            let entry = Entry { term: 9, index: next, payload: Bytes::from_static(b"more") };
            wal.append(vec![entry], Box::new(|_| ()));
            while owner.step() {}
            drop((wal, owner));
            let (_, _, again) = open_inline(config(), disk).unwrap();
            // The log may remember a next index that what was recovered does not show: then that append was refused.
            prop_assert!(again.entries.len() >= recovered.entries.len());
        }
    }
}
