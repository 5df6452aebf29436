//! Gives the space that compaction freed in a state file back to the file system, while no member runs on it.
//!
//! The content stays what it was: redb moves pages to the front in transactions of its own, so a crash in between
//! leaves a file that opens. Not here: a running member, which reuses that space (state_file.rs).

use std::path::Path;
use std::sync::Arc;

use wal::Disk;

use crate::data_dir::DataDir;
use crate::start::StartError;
use crate::state_file;

/// What became of a state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defragmented {
    pub before_bytes: u64,
    pub after_bytes: u64,
}

/// Blocks; may take long. Fails if a member runs on the directory, or if it is no member's.
pub fn defragment(data_dir: &Path) -> Result<Defragmented, StartError> {
    let size_bytes = |path: &Path| {
        let wrap = |source| StartError::Io { path: path.to_owned(), source };
        std::fs::metadata(path).map(|found| found.len()).map_err(wrap)
    };
    // Opening makes what is missing, which must not happen here.
    size_bytes(&data_dir.join("member"))?;
    let disk: Arc<dyn Disk> = Arc::new(wal::RealDisk::new());
    let data_dir = DataDir::open(Arc::clone(&disk), data_dir)?;
    let path = data_dir.state_file();
    let before_bytes = size_bytes(&path)?;
    state_file::compact(&*disk, &path)?;
    Ok(Defragmented { before_bytes, after_bytes: size_bytes(&path)? })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use mvcc::{Revision, Row};
    use wal::Disk;

    use super::defragment;
    use crate::StartError;
    use crate::state_file::{NewStateFile, Position, StateFile};

    #[test]
    fn a_state_file_shrinks_and_keeps_its_content() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let member = folder.path().join("member");
        std::fs::create_dir(&member)?;
        let path = member.join("state.redb");
        let revision = |main| Revision { main, sub: 0 };
        let rows = (1..=2000).map(|main| Row::Record(revision(main), Bytes::from(vec![7; 4096])));
        let disk: Arc<dyn Disk> = Arc::new(wal::RealDisk::new());
        let mut file = NewStateFile::create(&*disk, &path, 1 << 20)?;
        file.add(rows.collect())?;
        file.finish(&Position::default())?;
        let file = StateFile::open(&disk, &path, 1 << 20)?;
        let position = file.position()?;
        let gone: Vec<Row> = (1..2000).map(|main| Row::DeleteRecord(revision(main))).collect();
        file.write(&gone, &position, true)?;
        file.close();
        drop(file);
        let found = defragment(folder.path())?;
        assert!(found.after_bytes < found.before_bytes / 2, "{found:?}");
        let kept = StateFile::open(&disk, &path, 1 << 20)?;
        let bound = mvcc::ScanBound { rows_max: 10, size_bytes_max: usize::MAX };
        let left = mvcc::Records::scan(&kept, revision(0), bound)?;
        assert_eq!(left.rows.len(), 1);
        Ok(())
    }

    #[test]
    fn a_directory_that_is_missing_is_not_made() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let missing = folder.path().join("missing");
        assert!(matches!(defragment(&missing), Err(StartError::Io { .. })));
        assert!(!missing.exists());
        Ok(())
    }
}
