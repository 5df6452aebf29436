//! A recording that grows while the run goes on, so that a harness that is killed leaves what it had seen.
//!
//! Invariants: each record is one line, handed to the system in one piece before the next thing is done; the files are
//! those of the recordings of either workload ([record](crate::record), [api/record](crate::api::record)), which are
//! saved over them at the end. Leases and sections are only known when their holders end, and are not here.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use serde::Serialize;

use crate::lines::{self, Workload};

#[derive(Debug)]
pub struct Journal {
    files: Mutex<HashMap<&'static str, File>>,
}

impl Journal {
    /// In `dir`, which is made; what a run before it left there goes.
    pub fn create(
        dir: &Path,
        workload: Workload,
        about: &impl Serialize,
        names: &[&'static str],
    ) -> Result<Journal> {
        lines::begin(dir, workload, about)?;
        let open = |name: &'static str| Ok((name, lines::create(dir, name)?));
        Ok(Journal { files: Mutex::new(names.iter().copied().map(open).collect::<Result<_>>()?) })
    }

    /// What cannot be written now is still saved at the end of the run, so a full disk does not end it.
    pub fn write(&self, name: &'static str, record: &impl Serialize) {
        let Ok(mut line) = serde_json::to_vec(record) else { return };
        line.push(b'\n');
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut file) = files.get(name) {
            drop(file.write_all(&line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;

    use super::Journal;
    use crate::api;
    use crate::api::history::{Stream, Told};
    use crate::history::{Answer, Operation, Outcome, Request};
    use crate::judge::judge;
    use crate::lines::Workload;
    use crate::record::{About, FILES, Recording};

    #[test]
    fn a_run_that_was_cut_off_can_be_read_and_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let about = About { seed: 7, members: 3, ..About::default() };
        let journal = Journal::create(dir.path(), Workload::Store, &about, &FILES).unwrap();
        let operation = Operation {
            client: 1,
            member: 2,
            call_ns: 3,
            return_ns: 4,
            request: Request::Put { key: 5, value: 6 },
            outcome: Outcome::Done(Answer::Put { revision: 2 }),
        };
        for _ in 0..500 {
            journal.write("operations", &operation);
        }
        // The last line was cut off with the process.
        let path = dir.path().join("operations.jsonl");
        File::options().append(true).open(path).unwrap().write_all(b"{\"client\":1,").unwrap();
        let kept = Recording::load(dir.path()).unwrap();
        assert_eq!((kept.about.seed, kept.operations.len()), (7, 500));
        assert_eq!(kept.operations[499], operation);
        assert!(judge(&kept).invalid.unwrap().contains("cut off"));
    }

    #[test]
    fn a_run_of_the_api_servers_that_was_cut_off_can_be_read_and_proves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let about = api::record::About { seed: 8, members: 3, ..Default::default() };
        let journal = Journal::create(dir.path(), Workload::Api, &about, &api::record::FILES).unwrap();
        let of = |member| Stream { member, plural: "pods".to_owned(), told: Vec::new(), resumed: 0 };
        let mut streams = [of(0), of(1)];
        for version in 1..100 {
            for stream in &mut streams {
                let told = Told::Bookmark { version };
                journal.write("streams", &stream.piece(told.clone()));
                stream.told.push(told);
            }
        }
        let kept = api::record::Recording::load(dir.path()).unwrap();
        assert_eq!((kept.about.seed, &kept.streams[..]), (8, &streams[..]));
        assert!(api::judge::judge(&kept).invalid.unwrap().contains("cut off"));
    }
}
