//! Level C for the state file: power cuts at every point of a run of transactions.
//!
//! Always holds afterwards: the file opens; the applied index, the metadata and the records belong to one transaction;
//! that is at least the last durable one. `CRASH_STATES` asks for more states.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use mvcc::{Revision, Row};
use wal::Disk;
use wal::sim_disk::crash::{Moment, Platter, Random};
use wal::sim_disk::{Operation, SimDisk};

use super::{Position, StateFile};
use crate::raft_types::log_id;

const PATH: &str = "data/state.redb";
const CACHE_SIZE_BYTES: usize = 1 << 20;
const TRANSACTIONS: u64 = 24;
/// Every so many transactions wait for the disk, as the flusher's do about once a second.
const DURABLE_EVERY: u64 = 4;
const STATES: u64 = 1_500;

fn open(disk: &SimDisk) -> Result<StateFile, String> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    StateFile::open(&disk, Path::new(PATH), CACHE_SIZE_BYTES).map_err(|error| format!("open: {error}"))
}

fn value(random: &mut Random) -> Bytes {
    let size = random.below(1500) as usize;
    Bytes::from(vec![random.below(256) as u8; size])
}

/// The content after each transaction: records by main revision.
type Content = std::collections::BTreeMap<i64, Bytes>;

fn transaction(number: u64, content: &mut Content, random: &mut Random) -> Vec<Row> {
    let mut rows = Vec::new();
    for _ in 0..random.below(6) + 1 {
        let main = content.keys().next_back().map_or(number as i64 * 100, |last| last + 1);
        let value = value(random);
        content.insert(main, value.clone());
        rows.push(Row::Record(Revision { main, sub: 0 }, value));
    }
    // As compaction does.
    let spare = content.len().saturating_sub(8).min(random.below(4) as usize);
    let oldest: Vec<i64> = content.keys().copied().take(spare).collect();
    for main in oldest {
        content.remove(&main);
        rows.push(Row::DeleteRecord(Revision { main, sub: 0 }));
    }
    rows.push(Row::Meta(Bytes::from_static(b"transaction"), Bytes::from(number.to_string())));
    rows
}

fn check(image: Platter, contents: &[Content], durable: u64) -> Result<u64, String> {
    let file = Arc::new(open(&SimDisk::with(image))?);
    let view = file.view().map_err(|error| error.to_string())?;
    let found = view.position.applied.as_ref().map_or(0, |applied| applied.index);
    if found < durable || found >= contents.len() as u64 {
        return Err(format!("transaction {found}, at least {durable} was durable"));
    }
    let meta = view.meta().map_err(|error| error.to_string())?;
    let named = meta.first().map(|(_, number)| String::from_utf8_lossy(number).into_owned());
    if named != (found > 0).then(|| found.to_string()) {
        return Err(format!("position of transaction {found}, metadata of {named:?}"));
    }
    let mut content = Content::new();
    for row in view.records().map_err(|error| error.to_string())? {
        let (revision, bytes) = row.map_err(|error| error.to_string())?;
        content.insert(revision.main, bytes);
    }
    if content != contents[found as usize] {
        return Err(format!("position of transaction {found}, other records"));
    }
    Ok(found)
}

#[test]
fn a_power_cut_leaves_the_state_file_at_one_transaction() {
    let states_min = std::env::var("CRASH_STATES").map_or(STATES, |states| states.parse().unwrap());
    let (mut states, mut seed, mut lost_transactions) = (0, 0, 0);
    while states < states_min {
        seed += 1;
        let mut random = Random(seed);
        let disk = SimDisk::new();
        let mut contents = vec![Content::new()];
        {
            let file = open(&disk).unwrap();
            for number in 1..=TRANSACTIONS {
                let mut content = contents.last().unwrap().clone();
                let rows = transaction(number, &mut content, &mut random);
                contents.push(content);
                let position = Position { applied: Some(log_id(1, number)), ..Position::default() };
                let durable = number % DURABLE_EVERY == 0;
                file.write(&rows, &position, durable).unwrap();
                if durable {
                    disk.note(number);
                }
            }
        }
        let mut moment = Moment::default();
        let mut durable = 0;
        for (point, operation) in disk.trace().iter().enumerate() {
            moment.advance(operation);
            match operation {
                Operation::Note(number) => durable = *number,
                // Most operations are writes; which of them is cut short is for chance to say.
                Operation::Change(_) if random.below(3) > 0 => continue,
                Operation::Change(_) | Operation::SyncFile { .. } | Operation::SyncDirectory { .. } => {}
            }
            for fates in moment.sample_fates(&mut random, 5) {
                let found = check(moment.crash(&fates), &contents, durable).unwrap_or_else(|problem| {
                    panic!("seed {seed}, operation {point}, after {states} states: {problem}\n{fates:?}")
                });
                states += 1;
                lost_transactions += u64::from(found + 1 < contents.len() as u64);
            }
        }
    }
    println!("{states} states of {seed} seeds");
    assert!(lost_transactions > states / 4, "crashes lost too little: {lost_transactions} of {states}");
}
