//! Directories as crashes leave them. What needs other members is in tests/cluster.

use bytes::Bytes;
use openraft::storage::RaftLogStorage as _;

use super::*;
use crate::codec;
use crate::data_dir::DataDir;
use crate::state_file::Position;

const CLUSTER: u64 = 7;
const ME: u64 = 1;

fn config(directory: &std::path::Path) -> Config {
    let member = |id: u64| Member {
        id,
        name: format!("m{id}"),
        // Nobody is there.
        peer_urls: vec![format!("http://127.0.0.1:{id}")],
        client_urls: Vec::new(),
        is_learner: false,
    };
    let identity = Identity { cluster_id: CLUSTER, member_id: ME };
    Config::new(identity, "m1", directory.to_owned(), (1..=3).map(member).collect(), Vec::new())
}

/// A log of blank entries of one term from 0 on, and a state file that is elsewhere.
fn prepare(config: &Config, term: u64, entries: u64, applied: LogId) {
    let disk = config.surroundings.disk.clone();
    let data_dir = DataDir::open(disk.clone(), &config.data_dir).unwrap();
    data_dir.set_identity(config.identity).unwrap();
    let file = StateFile::open(&disk, &data_dir.state_file(), 1 << 20).unwrap();
    let membership =
        StoredMembership::new(Some(log_id(0, 0)), first_membership(&config.initial_members).unwrap());
    file.write(&[], &Position { applied: Some(applied), membership, removed: Vec::new() }, true).unwrap();
    file.close();
    let mut log = wal::Config::new(data_dir.wal());
    log.identity = Some(wal::Identity { cluster_id: CLUSTER, member_id: ME });
    let (wal, _) = wal::open(log, disk).unwrap();
    let payload: Bytes = codec::entry_payload_bytes(&EntryPayload::Blank);
    let entries = (0..entries).map(|index| wal::Entry { term, index, payload: payload.clone() }).collect();
    wal.append(entries, Box::new(|result| result.unwrap()));
    let vote = Vote::new_committed(applied.leader_id.term, 2);
    wal.save_vote(codec::vote_bytes(&vote), Box::new(|result| result.unwrap()));
    wal.close();
}

/// A snapshot was installed, and the member ended before what the log had in its place was cut off.
#[tokio::test]
async fn a_log_that_contradicts_an_installed_snapshot_is_cut() {
    for (entries, applied, kept) in [
        // The log contradicts what was committed, and goes on behind it.
        (10, log_id(5, 4), None),
        (5, log_id(5, 4), None),
        // It ends before the snapshot.
        (3, log_id(5, 4), None),
        (3, log_id(2, 4), None),
        // It is what was committed.
        (10, log_id(3, 4), Some(log_id(3, 9))),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        prepare(&config, 3, entries, applied);
        for start_number in 0..2 {
            let handle = start(config.clone(), CancellationToken::new()).await.unwrap();
            let last = handle.inner.log.clone().get_log_state().await.unwrap().last_log_id;
            assert_eq!(last, kept.or(Some(applied)), "{entries} entries, start {start_number}");
            assert_eq!(handle.applied_index(), 4);
            handle.kill().await;
        }
    }
}
