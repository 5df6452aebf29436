//! Files for segments to come: zero-filled ahead of need in small slices, or recycled.
//!
//! Always holds: at most `SPARES_MAX`; what a spare contains does not matter, because checksums are seeded by the
//! segment it becomes. What is missing for a spare (room, or a descriptor) stops filling, not the log. Not here: when to fill (writer.rs).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::api::Config;
use crate::disk::{Disk, DiskFile};
use crate::planted::{self, Bug};
use crate::segment::{self, write_full};

const SPARES_MAX: usize = 2;

pub(crate) struct Spare {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) filled_bytes: u64,
}

#[derive(Default)]
pub(crate) struct Spares {
    ready: Vec<Spare>,
    next_number: u64,
    /// There was no room or no descriptor; filling waits for the next segment.
    blocked: bool,
}

impl Spares {
    /// Takes over a file that an earlier run left; `false`: there are enough, remove it.
    pub(crate) fn adopt(&mut self, disk: &dyn Disk, directory: &Path, number: u64) -> io::Result<bool> {
        self.next_number = self.next_number.max(number.saturating_add(1));
        if self.ready.len() >= SPARES_MAX {
            return Ok(false);
        }
        let path = segment::spare_path(directory, number);
        let file = disk.open(&path)?;
        let filled_bytes = file.size_bytes()?;
        self.ready.push(Spare { path, file, filled_bytes });
        Ok(true)
    }

    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// The fullest spare, or a new empty file.
    pub(crate) fn take(&mut self, disk: &dyn Disk, directory: &Path) -> io::Result<Spare> {
        self.ready.sort_by_key(|spare| spare.filled_bytes);
        match self.ready.pop() {
            Some(spare) => Ok(spare),
            None => self.create(disk, directory),
        }
    }

    fn create(&mut self, disk: &dyn Disk, directory: &Path) -> io::Result<Spare> {
        let path = segment::spare_path(directory, self.next_number);
        self.next_number += 1;
        Ok(Spare { file: disk.create(&path)?, path, filled_bytes: 0 })
    }

    /// Keeps the file for a later segment, or removes it; durable when this returns.
    pub(crate) fn recycle(&mut self, disk: &dyn Disk, config: &Config, path: &Path) -> io::Result<()> {
        let mut spare = None;
        if config.fsync && self.ready.len() < SPARES_MAX {
            let file = disk.open(path)?;
            let filled_bytes = file.size_bytes()?;
            spare = (filled_bytes == config.segment_size_bytes).then_some((file, filled_bytes));
        }
        let kept = match spare {
            None => {
                disk.remove(path)?;
                None
            }
            Some((file, filled_bytes)) => {
                let spare_path = segment::spare_path(&config.dir, self.next_number);
                self.next_number += 1;
                disk.rename(path, &spare_path)?;
                Some(Spare { path: spare_path, file, filled_bytes })
            }
        };
        if config.fsync && !planted::is(Bug::RecycleUnordered) {
            disk.sync_directory(&config.dir)?;
        }
        self.ready.extend(kept);
        Ok(())
    }

    /// One slice of the next spare; `false`: nothing to do.
    pub(crate) fn prepare(&mut self, disk: &dyn Disk, config: &Config, slice_bytes: u64) -> io::Result<bool> {
        if self.blocked || self.ready.iter().any(|spare| spare.filled_bytes >= config.segment_size_bytes) {
            return Ok(false);
        }
        let mut spare = match self.take(disk, &config.dir) {
            Err(error) if can_wait(&error) => {
                self.blocked = true;
                return Ok(false);
            }
            taken => taken?,
        };
        let file = Arc::clone(&spare.file);
        let filled = self.fill(&*file, &mut spare.filled_bytes, config.segment_size_bytes, slice_bytes);
        self.ready.push(spare);
        filled
    }

    /// Writes and syncs zeros from `filled_bytes` on, one slice; `false`: the disk is full.
    pub(crate) fn fill(
        &mut self,
        file: &dyn DiskFile,
        filled_bytes: &mut u64,
        size_bytes: u64,
        slice_bytes: u64,
    ) -> io::Result<bool> {
        if self.blocked {
            return Ok(false);
        }
        let slice = slice_bytes.min(size_bytes.saturating_sub(*filled_bytes));
        match write_full(file, &vec![0; slice as usize], *filled_bytes) {
            Ok(()) => {}
            Err(error) if can_wait(&error) => {
                tracing::warn!("the disk is full, no log space is prepared ahead");
                self.blocked = true;
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        *filled_bytes += slice;
        file.sync_data()?;
        Ok(true)
    }
}

/// Whether the machine lacks what the log can do without until the next segment.
fn can_wait(error: &io::Error) -> bool {
    // ENFILE, EMFILE: no descriptor, of all processes or of this one. They have no `ErrorKind`.
    error.kind() == io::ErrorKind::StorageFull || matches!(error.raw_os_error(), Some(23 | 24))
}
