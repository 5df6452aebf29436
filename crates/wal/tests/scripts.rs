//! The log by scripts: what is asked, what crashes, what is there afterwards.
//!
//! Always holds: each script runs on a simulated disk with small segments, without threads. Not here: all crash
//! points (crash_points.rs), the real disk (real_disk.rs).

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain fails, as it should")]

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use wal::sim_disk::crash::Platter;
use wal::sim_disk::{Faults, SimDisk};
use wal::{Config, Damage, Entry, Owner, ReadError, Recovered, Wal, open_inline};

struct Script {
    disk: SimDisk,
    log: Option<(Wal, Owner)>,
    recovered: Option<Recovered>,
}

fn config() -> Config {
    let mut config = Config::new("data");
    config.segment_size_bytes = 2048;
    config.salt = 7;
    config
}

fn describe(entries: &[Entry]) -> String {
    let mut runs: Vec<(u64, u64, u64)> = Vec::new();
    for entry in entries {
        match runs.last_mut() {
            Some((_, last, term)) if *term == entry.term && *last + 1 == entry.index => *last = entry.index,
            _ => runs.push((entry.index, entry.index, entry.term)),
        }
    }
    let run = |(first, last, term): (u64, u64, u64)| {
        let indexes = if first == last { first.to_string() } else { format!("{first}..{last}") };
        if term == 1 { indexes } else { format!("{indexes}@{term}") }
    };
    if runs.is_empty() { "empty".to_owned() } else { runs.into_iter().map(run).collect::<Vec<_>>().join(" ") }
}

fn text(payload: &Bytes) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}

fn describe_recovered(recovered: &Recovered) -> String {
    let mut words = vec![describe(&recovered.entries)];
    words.extend(recovered.vote.as_ref().map(|vote| format!("vote {}", text(vote))));
    words.extend(recovered.committed.as_ref().map(|committed| format!("committed {}", text(committed))));
    words.extend(
        recovered.purged.as_ref().map(|(index, payload)| format!("purged {index} {}", text(payload))),
    );
    match &recovered.damage {
        Damage::None => {}
        Damage::TornTail { .. } => words.push("torn".to_owned()),
        Damage::LostAcknowledged { last_good_index, acknowledged_index, .. } => {
            words.push(format!("LOST after {last_good_index} of {acknowledged_index}"));
        }
    }
    words.join(", ")
}

/// `3`, `1..3`, with `@term`.
fn range(word: &str) -> (u64, u64, u64) {
    let (indexes, term) = word.split_once('@').unwrap_or((word, "1"));
    let (first, last) = indexes.split_once("..").unwrap_or((indexes, indexes));
    (first.parse().unwrap(), last.parse().unwrap(), term.parse().unwrap())
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { term, index, payload: Bytes::from(format!("entry {index} of term {term} {}", "x".repeat(60))) }
}

impl Script {
    fn open(&mut self) -> String {
        match open_inline(config(), self.disk.clone()) {
            Ok((wal, owner, recovered)) => {
                let described = describe_recovered(&recovered);
                self.log = Some((wal, owner));
                self.recovered = Some(recovered);
                described
            }
            Err(error) => format!("error: {error}"),
        }
    }

    fn request(&mut self, ask: impl FnOnce(&Wal, wal::Done)) -> String {
        let answer: Arc<Mutex<Option<io::Result<()>>>> = Arc::default();
        let (wal, owner) = self.log.as_mut().unwrap();
        let slot = Arc::clone(&answer);
        ask(wal, Box::new(move |result| *slot.lock().unwrap() = Some(result)));
        owner.work();
        match answer.lock().unwrap().take().expect("every request is answered") {
            Ok(()) => "ok".to_owned(),
            Err(error) => format!("error: {error}"),
        }
    }

    fn damage(&mut self, change: impl FnOnce(&mut Platter)) -> String {
        let mut platter = self.disk.cache();
        change(&mut platter);
        self.log = None;
        self.disk = SimDisk::with(platter);
        "ok".to_owned()
    }

    fn newest_segment(&self) -> PathBuf {
        let names = self.disk.cache().names;
        names.into_keys().rfind(|path| path.to_string_lossy().contains("wal-")).unwrap()
    }

    fn run(&mut self, words: &[&str]) -> String {
        match words {
            ["open"] => self.open(),
            ["append", word] => {
                let (first, last, term) = range(word);
                let entries = (first..=last).map(|index| entry(index, term)).collect();
                self.request(|wal, done| wal.append(entries, done))
            }
            ["huge", index] => {
                let payload = Bytes::from(vec![1; 2048]);
                let entry = Entry { term: 1, index: index.parse().unwrap(), payload };
                self.request(|wal, done| wal.append(vec![entry], done))
            }
            // The record is 32 bytes longer.
            ["append", index, "with", bytes, "bytes"] => {
                let mut entry = entry(index.parse().unwrap(), 1);
                let mut payload = entry.payload.to_vec();
                payload.resize(bytes.parse().unwrap(), b'x');
                entry.payload = payload.into();
                self.request(|wal, done| wal.append(vec![entry], done))
            }
            ["vote", vote] => {
                let vote = Bytes::copy_from_slice(vote.as_bytes());
                self.request(|wal, done| wal.save_vote(vote, done))
            }
            ["committed", hint] => {
                let (wal, owner) = self.log.as_mut().unwrap();
                wal.save_committed(Bytes::copy_from_slice(hint.as_bytes()));
                owner.work();
                "ok".to_owned()
            }
            ["truncate", from] => {
                let from = from.parse().unwrap();
                self.request(|wal, done| wal.truncate(from, done))
            }
            ["purge", upto, payload] => {
                let (upto, payload) = (upto.parse().unwrap(), Bytes::copy_from_slice(payload.as_bytes()));
                self.request(|wal, done| wal.purge(upto, payload, done))
            }
            ["healed"] => self.request(|wal, done| wal.healed(done)),
            ["idle"] => {
                while self.log.as_mut().unwrap().1.step() {}
                "ok".to_owned()
            }
            ["read", word] => {
                let (first, last, _) = range(word);
                match self.log.as_ref().unwrap().0.read(first..last + 1, u64::MAX) {
                    Ok(entries) => describe(&entries),
                    Err(ReadError::Corrupt { index, .. }) => format!("error: entry {index} is damaged"),
                    Err(error) => format!("error: {error}"),
                }
            }
            ["crash"] => {
                self.log = None;
                self.disk = SimDisk::with(self.disk.moment().crash(&[]));
                "ok".to_owned()
            }
            ["kill"] => {
                self.log = None;
                self.disk = self.disk.killed();
                "ok".to_owned()
            }
            ["sync", "fails"] => {
                self.disk.set_faults(Faults { syncs_before_failure: Some(0), ..Faults::default() });
                "ok".to_owned()
            }
            ["free", bytes] => {
                let free_bytes = Some(bytes.parse().unwrap());
                self.disk.set_faults(Faults { free_bytes, ..Faults::default() });
                "ok".to_owned()
            }
            ["no", "descriptor"] => {
                self.disk.set_faults(Faults { no_descriptor: true, ..Faults::default() });
                "ok".to_owned()
            }
            ["short", "writes"] => {
                self.disk.set_faults(Faults { write_size_bytes_max: Some(50), ..Faults::default() });
                "ok".to_owned()
            }
            ["flip", index] => {
                let needle = format!("entry {index} of").into_bytes();
                self.damage(|platter| {
                    let found = platter.files.iter_mut().find_map(|file| {
                        let at = file.to_vec().windows(needle.len()).position(|bytes| bytes == needle)?;
                        Some((file, at))
                    });
                    let (file, at) = found.unwrap();
                    file.write(&[needle[0] ^ 1], at);
                })
            }
            // Of the copies of a vote, the first or the last.
            ["flip", which, "copy", "of", vote] => {
                let needle = vote.as_bytes();
                let is_last = *which == "last";
                self.damage(|platter| {
                    let copies = platter.files.iter().enumerate().flat_map(|(file, content)| {
                        let bytes = content.to_vec();
                        let found = |at: &usize| bytes[*at..].starts_with(needle);
                        (0..bytes.len()).filter(found).map(|at| (file, at)).collect::<Vec<_>>()
                    });
                    let mut copies: Vec<(usize, usize)> = copies.collect();
                    if is_last {
                        copies.reverse();
                    }
                    let (file, at) = copies[0];
                    platter.files[file].write(&[needle[0] ^ 1], at);
                })
            }
            ["break", "newest", "header"] => {
                let path = self.newest_segment();
                self.damage(|platter| {
                    let file = platter.names[&path];
                    let byte = platter.files[file].to_vec()[20];
                    platter.files[file].write(&[byte ^ 1], 20);
                })
            }
            ["delete", name] => {
                let path = PathBuf::from("data").join(name);
                self.damage(|platter| assert!(platter.names.remove(&path).is_some()))
            }
            ["segments"] => {
                let names = self.disk.cache().names;
                let count = |prefix: &str| {
                    names.keys().filter(|path| path.to_string_lossy().contains(prefix)).count()
                };
                format!("{} and {} spare", count("wal-"), count("spare-"))
            }
            other => panic!("what is {other:?}"),
        }
    }
}

fn check(script: &str) {
    let mut state = Script { disk: SimDisk::new(), log: None, recovered: None };
    state.open();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (command, expected) = line.split_once("->").unwrap_or((line, "ok"));
        let words: Vec<&str> = command.split_whitespace().collect();
        let answer = state.run(&words);
        assert_eq!(answer, expected.trim(), "at: {line}");
    }
}

#[test]
fn acknowledged_entries_survive_a_power_cut() {
    check(
        "append 1..3
         vote a
         crash
         open           -> 1..3, vote a
         append 4..5@2
         crash
         open           -> 1..3 4..5@2, vote a",
    );
}

#[test]
fn a_log_may_begin_at_any_index_and_has_no_gaps_afterwards() {
    check(
        "append 7..8
         append 10      -> error: append of index 10, expected Some(9)
         append 8       -> error: append of index 8, expected Some(9)
         append 9
         crash
         open           -> 7..9",
    );
}

#[test]
fn truncation_drops_the_end_and_new_entries_replace_it() {
    check(
        "append 1..5
         truncate 9
         truncate 3
         append 4       -> error: append of index 4, expected Some(3)
         append 3@2
         read 1..9      -> 1..2 3@2
         crash
         open           -> 1..2 3@2
         read 1..9      -> 1..2 3@2",
    );
}

#[test]
fn truncation_reaches_back_over_segments() {
    check(
        "append 1..60
         segments       -> 4 and 1 spare
         truncate 5
         append 5..6@2
         crash
         open           -> 1..4 5..6@2
         append 7@2
         read 4..9      -> 4 5..7@2",
    );
}

#[test]
fn purging_recycles_whole_segments_and_keeps_the_rest() {
    check(
        "vote a
         append 1..60
         purge 50 p
         read 50        -> error: entry 50 was purged, the log starts at 51
         read 51..99    -> 51..60
         idle
         segments       -> 1 and 2 spare
         crash
         open           -> 51..60, vote a, purged 50 p
         purge 40 q
         truncate 50    -> error: truncate from 50, purged up to 50
         append 61..120
         crash
         open           -> 51..120, vote a, purged 50 p
         segments       -> 5 and 0 spare",
    );
}

#[test]
fn purging_past_the_end_empties_the_log_and_moves_it() {
    check(
        "append 1..3
         purge 100 snapshot
         append 4       -> error: append of index 4, expected Some(101)
         crash
         open           -> empty, purged 100 snapshot
         read 4         -> error: entry 4 was purged, the log starts at 101
         append 101
         crash
         open           -> 101, purged 100 snapshot",
    );
}

#[test]
fn a_commit_hint_travels_with_the_next_batch_or_after_idling() {
    check(
        "committed one
         crash
         open           -> empty
         committed two
         append 1
         crash
         open           -> 1, committed two
         committed three
         idle
         crash
         open           -> 1, committed three",
    );
}

#[test]
fn an_entry_must_fit_into_a_segment() {
    check(
        "huge 1         -> error: entry 1 is 2048 bytes, limit is 1208
         append 1
         crash
         open           -> 1",
    );
}

#[test]
fn a_flipped_bit_before_a_mark_is_lost_data_and_stays_known_until_healed() {
    check(
        "append 1..9
         vote a
         idle
         flip 5
         open           -> 1..4, vote a, LOST after 4 of 9
         committed c
         idle
         kill
         open           -> 1..4, vote a, LOST after 4 of 9
         append 5..6@2
         crash
         open           -> 1..4 5..6@2, vote a, LOST after 4 of 9
         append 7..60@2
         purge 50 p
         idle
         crash
         open           -> 51..60@2, vote a, purged 50 p, LOST after 4 of 9
         healed
         crash
         open           -> 51..60@2, vote a, purged 50 p",
    );
}

/// 128 bytes of header, 1240 and 648 of records, 32 of a mark: no room for another mark.
#[test]
fn a_segment_that_is_full_to_the_last_byte_is_marked_by_the_next_one() {
    check(
        "append 1 with 1208 bytes
         append 2 with 616 bytes
         segments       -> 1 and 1 spare
         idle
         flip 2
         open           -> 1, LOST after 1 of 2",
    );
}

#[test]
fn the_next_batch_is_a_mark_for_the_one_before() {
    check(
        "append 1..2
         append 3
         flip 2
         open           -> 1, LOST after 1 of 2",
    );
}

#[test]
fn a_flipped_bit_behind_the_last_mark_is_a_torn_write() {
    check(
        "append 1..2
         append 3
         flip 3
         open           -> 1..2, torn
         append 3@2
         crash
         open           -> 1..2 3@2",
    );
}

#[test]
fn one_damaged_copy_of_a_vote_does_not_bring_an_earlier_vote_back() {
    check(
        "vote earlier1
         append 1..2
         idle
         vote later111
         flip first copy of later111
         open           -> 1..2, vote later111, torn
         crash
         open           -> 1..2, vote later111",
    );
    check(
        "vote earlier1
         append 1..2
         idle
         vote later111
         flip last copy of later111
         open           -> 1..2, vote later111
         crash
         open           -> 1..2, vote later111",
    );
}

/// A segment whose header is gone is unreadable with all votes that it has.
#[test]
fn a_vote_outlives_the_segment_that_has_it() {
    check(
        "vote earlier1
         append 1..2
         vote later111
         append 3
         idle
         break newest header
         open           -> empty, vote later111, LOST after 0 of 0
         append 1@2
         crash
         open           -> 1@2, vote later111, LOST after 0 of 0",
    );
    check(
        "append 1..2
         vote later111
         idle
         delete wal-0000000000000001
         open           -> empty, vote later111
         delete vote
         open           -> empty, vote later111",
    );
}

/// Older builds wrote no file of its own for the vote.
#[test]
fn a_missing_or_outdated_vote_file_is_written_anew() {
    check(
        "vote earlier1
         append 1..2
         idle
         delete vote
         open           -> 1..2, vote earlier1
         break newest header
         open           -> empty, vote earlier1, LOST after 0 of 0",
    );
}

/// What a segment carries over is as safe as the record that it repeats.
#[test]
fn a_carried_vote_has_two_copies_too() {
    check(
        "vote earlier1
         append 1..60
         purge 50 p
         idle
         flip last copy of earlier1
         open           -> empty, vote earlier1, LOST after 0 of 60",
    );
}

#[test]
fn damage_in_an_older_segment_is_lost_data() {
    check(
        "append 1..60
         vote late
         flip 20
         open           -> 1..19, vote late, LOST after 19 of 60
         append 20@3
         crash
         open           -> 1..19 20@3, vote late, LOST after 19 of 60",
    );
}

#[test]
fn damage_below_the_purged_index_harms_nobody() {
    check(
        "append 1..60
         purge 30 p
         append 61..70
         flip 5
         open           -> 31..70, purged 30 p",
    );
}

#[test]
fn a_missing_or_headless_segment_is_lost_data() {
    check(
        "append 1..60
         delete wal-0000000000000003
         open           -> 1..32, LOST after 32 of 48
         append 33@2
         crash
         open           -> 1..32 33@2, LOST after 32 of 48",
    );
    check(
        "append 1..60
         delete wal-0000000000000001
         open           -> empty, LOST after 0 of 48",
    );
    check(
        "append 1..3
         idle
         break newest header
         open           -> empty, LOST after 0 of 0
         append 1@2
         crash
         open           -> 1@2, LOST after 0 of 0",
    );
}

#[test]
fn after_a_failed_sync_the_log_is_dead_and_what_was_acknowledged_stays() {
    check(
        "append 1..2
         sync fails
         append 3       -> error: sync data/wal-0000000000000001: injected sync error
         append 3       -> error: sync data/wal-0000000000000001: injected sync error
         vote a         -> error: sync data/wal-0000000000000001: injected sync error
         crash
         open           -> 1..2",
    );
}

/// The page cache shows what the failed sync did not write; recovery must write it again before it hands it out.
#[test]
fn what_recovery_hands_out_after_a_failed_sync_is_durable() {
    check(
        "append 1..2
         sync fails
         append 3       -> error: sync data/wal-0000000000000001: injected sync error
         kill
         open           -> 1..3
         crash
         open           -> 1..3",
    );
}

#[test]
fn a_full_disk_kills_the_log_with_a_clear_error() {
    check(
        "append 1..2
         free 40
         append 3       -> error: write data/wal-0000000000000001: no storage space
         append 3       -> error: write data/wal-0000000000000001: no storage space
         crash
         open           -> 1..2",
    );
}

#[test]
fn a_full_disk_that_stops_only_the_filling_ahead_does_no_harm() {
    check(
        "append 1..2
         idle
         free 400
         idle
         append 3
         crash
         open           -> 1..3",
    );
}

/// Found by faults on real processes (`FewDescriptors`): the log of a member ended although it needed no file yet.
#[test]
fn a_lack_of_descriptors_that_stops_only_the_filling_ahead_does_no_harm() {
    check(
        "append 1..2
         no descriptor
         idle
         append 3
         crash
         open           -> 1..3",
    );
}

#[test]
fn short_writes_are_continued() {
    check(
        "short writes
         append 1..30
         crash
         open           -> 1..30",
    );
}
