//! The log on the operating system's files, with its thread.
//!
//! Always holds: each test has a directory of its own. Not here: crashes (crash_points.rs).

#![allow(clippy::unwrap_used, reason = "a test that unwraps in vain fails, as it should")]

use std::io;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use wal::{Config, Damage, Done, Entry, Identity, OpenError, RealDisk, Recovered, Wal, open};

fn config(directory: &tempfile::TempDir) -> Config {
    let mut config = Config::new(directory.path().join("member").join("wal"));
    config.segment_size_bytes = 64 << 10;
    config
}

fn reopen(directory: &tempfile::TempDir) -> (Wal, Recovered) {
    open(config(directory), RealDisk::new()).unwrap()
}

fn entry(index: u64) -> Entry {
    Entry { term: 1, index, payload: Bytes::from(vec![index as u8; 300]) }
}

fn waiting() -> (Done, Receiver<io::Result<()>>) {
    let (sender, receiver) = channel();
    (Box::new(move |result| sender.send(result).unwrap()), receiver)
}

#[test]
fn entries_of_many_threads_share_syncs_and_are_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let (wal, recovered) = reopen(&directory);
    assert!(recovered.entries.is_empty());
    let mut answers = Vec::new();
    for index in 1..=1000 {
        let (done, answer) = waiting();
        wal.append(vec![entry(index)], done);
        answers.push(answer);
    }
    for answer in answers {
        answer.recv().unwrap().unwrap();
    }
    let metrics = wal.metrics();
    assert!(metrics.fsync_count < 500, "{metrics:?}");
    assert_eq!(metrics.fsync_buckets.iter().sum::<u64>(), metrics.fsync_count);
    assert_eq!(metrics.queued_bytes, 0);
    assert!(metrics.segments > 3, "{metrics:?}");
    assert_eq!(wal.read(500..503, u64::MAX).unwrap(), vec![entry(500), entry(501), entry(502)]);
    assert_eq!(wal.read(500..900, 1000).unwrap().len(), 4);
    assert_eq!(wal.read(1..1, u64::MAX).unwrap(), vec![]);
    wal.close();

    let (wal, recovered) = reopen(&directory);
    assert_eq!(recovered.entries, (1..=1000).map(entry).collect::<Vec<_>>());
    assert_eq!(recovered.damage, Damage::None);
    let (done, answer) = waiting();
    wal.purge(990, Bytes::from_static(b"snapshot"), done);
    answer.recv().unwrap().unwrap();
    wal.close();
    let (_wal, recovered) = reopen(&directory);
    assert_eq!(recovered.entries, (991..=1000).map(entry).collect::<Vec<_>>());
    assert_eq!(recovered.purged, Some((990, Bytes::from_static(b"snapshot"))));
}

#[test]
fn a_directory_in_use_is_refused_until_the_other_one_closes() {
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&directory);
    let refused = open(config(&directory), RealDisk::new()).err().unwrap();
    assert!(matches!(refused, OpenError::Locked { .. }), "{refused}");
    wal.close();
    let (done, answer) = waiting();
    wal.append(vec![entry(1)], done);
    assert_eq!(answer.recv().unwrap().unwrap_err().to_string(), "the log is closed");
    let _second = reopen(&directory);
}

#[test]
fn the_directory_of_another_member_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let member = |member_id| {
        let identity = Some(Identity { cluster_id: 1, member_id });
        Config { identity, ..config(&directory) }
    };
    open(member(1), RealDisk::new()).unwrap().0.close();
    let refused = open(member(2), RealDisk::new()).err().unwrap();
    assert!(matches!(refused, OpenError::WrongIdentity { .. }), "{refused}");
    open(member(1), RealDisk::new()).unwrap().0.close();
    reopen(&directory).0.close();
}

#[test]
fn dropping_the_last_handle_writes_what_is_queued_and_frees_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&directory);
    let (done, answer) = waiting();
    wal.append((1..=50).map(entry).collect(), done);
    drop(wal);
    answer.recv().unwrap().unwrap();
    let recovered = loop {
        match open(config(&directory), RealDisk::new()) {
            Ok((_, recovered)) => break recovered,
            Err(OpenError::Locked { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(recovered.entries.len(), 50);
}

#[test]
fn an_idle_log_marks_itself_and_prepares_space_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let (wal, _) = reopen(&directory);
    let (done, answer) = waiting();
    wal.append(vec![entry(1)], done);
    answer.recv().unwrap().unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    let prepared = || {
        let files = std::fs::read_dir(config(&directory).dir).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).filter(|len| *len == 64 << 10).count()
    };
    while (wal.metrics().batches < 2 || prepared() < 2) && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!((wal.metrics().batches, prepared()), (2, 2));
}
