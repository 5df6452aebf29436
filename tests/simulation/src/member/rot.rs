//! What disks do to what they hold: bits that flip, writes that were acknowledged and are not there, or elsewhere.
//!
//! Always holds: in the log only that is hit which later writes and syncs have followed, because what was written last
//! cannot be told from a write that was torn. A lost or strayed write shows when the machine comes back from a power
//! cut; until then programs read it from the page cache, as on a real machine. Not here: how many machines may be hit
//! (run/machines.rs).

use std::path::PathBuf;

use wal::sim_disk::Operation;
use wal::sim_disk::SimDisk;
use wal::sim_disk::crash::{Pending, Platter, Random};

use super::Machine;
use crate::plan::Area;

/// What is written to the log at once is less, under this load.
const LAST_BATCH_SIZE_BYTES_MAX: usize = 6_000;
/// Of a log, what counts as its newer part; what was written last is beyond.
const NEWER_SIZE_BYTES: usize = 6_000;
/// Syncs of the same file with a write before each, behind a write that is hit.
const LATER_SYNCS_MIN: usize = 3;

/// One write, and what it wrote over.
struct Write {
    file: usize,
    offset: usize,
    bytes: Vec<u8>,
    before: Vec<u8>,
}

impl Area {
    fn has(self, path: &std::path::Path) -> bool {
        path.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            match self {
                Area::Log => name.starts_with("wal-"),
                Area::State => name == "state.redb",
            }
        })
    }
}

impl Machine {
    /// To be called with the end of a life, after `killed`. Something that another sync has followed: what was written
    /// last cannot be told from a write that was torn. `new`: in the newer part. Answers the file and the place.
    pub(crate) fn flip_bit(&self, random: &mut Random, new: bool) -> Option<(PathBuf, usize)> {
        let mut inner = self.inner.lock();
        let mut platter = inner.disk.cache();
        let segments: Vec<_> = platter.names.iter().filter(|(path, _)| Area::Log.has(path)).collect();
        let newest = segments.len().checked_sub(1)?;
        let used = |file: usize| platter.files.get(file)?.to_vec().iter().rposition(|byte| *byte != 0);
        let chosen = match new {
            false => usize::try_from(random.below(segments.len() as u64)).unwrap_or(0),
            true if used(*segments[newest].1)? > LAST_BATCH_SIZE_BYTES_MAX => newest,
            true => newest.checked_sub(1)?,
        };
        let (path, file) = (segments[chosen].0.clone(), *segments[chosen].1);
        let contents = platter.files.get_mut(file)?;
        let bytes = contents.to_vec();
        let used = bytes.iter().rposition(|byte| *byte != 0)? + 1;
        if chosen == newest && used < LAST_BATCH_SIZE_BYTES_MAX {
            return None;
        }
        let before = if chosen == newest { used - LAST_BATCH_SIZE_BYTES_MAX } else { used };
        let from = if new { before.saturating_sub(NEWER_SIZE_BYTES) } else { 0 };
        let at = from + usize::try_from(random.below((before - from).max(1) as u64)).unwrap_or(0);
        contents.write(&[bytes[at] ^ (1 << random.below(8))], at);
        inner.disk = SimDisk::with(platter).untraced();
        Some((path, at))
    }

    /// To be called with the end of a life, after `killed`: a bit of the state file is another.
    pub(crate) fn flip_state_bit(&self, random: &mut Random) -> Option<(PathBuf, usize)> {
        let mut inner = self.inner.lock();
        let mut platter = inner.disk.cache();
        let (path, file) = platter.names.iter().find(|(path, _)| Area::State.has(path))?;
        let (path, file) = (path.clone(), *file);
        let contents = platter.files.get_mut(file)?;
        let bytes = contents.to_vec();
        // Not in what was never written: that would hit nothing most of the time.
        let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
        let at = *written.get(usize::try_from(random.below(written.len().max(1) as u64)).unwrap_or(0))?;
        contents.write(&[bytes[at] ^ (1 << random.below(8))], at);
        inner.disk = SimDisk::with(platter).untraced();
        Some((path, at))
    }

    /// From here on the disk keeps what it is asked, so that one of it can be lost.
    pub(crate) fn remember_writes(&self) {
        let mut inner = self.inner.lock();
        inner.disk.trace_from_here();
        inner.remembered = Some(inner.disk.cache());
    }

    /// To be called in place of `power_lost`. The disk has lost one of the writes since `remember_writes`, or it is
    /// elsewhere in its file. `None`: none can be hit, and the machine goes on.
    pub(crate) fn lose_write(
        &self,
        area: Area,
        strays: bool,
        random: &mut Random,
    ) -> Option<(PathBuf, usize, usize)> {
        let (write, path) = {
            let mut inner = self.inner.lock();
            let before = inner.remembered.take()?;
            let trace = inner.disk.trace();
            let candidates = writes(&before, &trace, area);
            inner.disk = inner.disk.clone().untraced();
            let chosen = usize::try_from(random.below(candidates.len().max(1) as u64)).unwrap_or(0);
            let write = candidates.into_iter().nth(chosen)?;
            let cache = inner.disk.cache();
            let (path, _) = cache.names.iter().find(|(path, file)| **file == write.file && area.has(path))?;
            (write, path.clone())
        };
        self.power_lost(random);
        let mut inner = self.inner.lock();
        let mut platter = inner.disk.cache();
        let contents = platter.files.get_mut(write.file)?;
        let size_bytes = contents.len();
        contents.write(&write.before, write.offset);
        if strays {
            let room = size_bytes.saturating_sub(write.bytes.len()) / 512;
            let at = 512 * usize::try_from(random.below(room.max(1) as u64)).unwrap_or(0);
            contents.write(&write.bytes, at);
        }
        inner.disk = SimDisk::with(platter).untraced();
        Some((path, write.offset, write.bytes.len()))
    }
}

/// Those that later writes and syncs of the same file have followed, and that nothing has written over.
fn writes(before: &Platter, trace: &[Operation], area: Area) -> Vec<Write> {
    let mut platter = before.clone();
    let mut found: Vec<(Write, usize, bool)> = Vec::new();
    for operation in trace {
        match operation {
            Operation::Change(Pending::Write { file, offset, bytes }) => {
                let at = usize::try_from(*offset).unwrap_or(usize::MAX);
                let overlaps = |write: &Write| {
                    write.file == *file
                        && write.offset < at + bytes.len()
                        && at < write.offset + write.bytes.len()
                };
                found.retain(|(write, _, _)| !overlaps(write));
                for (_, _, has_later) in found.iter_mut().filter(|(write, _, _)| write.file == *file) {
                    *has_later = true;
                }
                // The log writes zeros behind each batch, which the next one writes over.
                let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                let bytes = &bytes[..used];
                let mut old = vec![0; bytes.len()];
                platter.file(*file).read(&mut old, at);
                if platter.names.iter().any(|(path, number)| number == file && area.has(path))
                    && old != *bytes
                {
                    let write = Write { file: *file, offset: at, bytes: bytes.to_vec(), before: old };
                    found.push((write, 0, false));
                }
            }
            Operation::Change(Pending::Resize { file, .. }) => {
                found.retain(|(write, _, _)| write.file != *file)
            }
            Operation::Change(Pending::Create { .. } | Pending::Rename { .. } | Pending::Remove { .. }) => {}
            Operation::SyncFile { file } => {
                for (_, syncs, has_later) in found.iter_mut().filter(|(write, _, _)| write.file == *file) {
                    // Its own sync counts as the first.
                    if *has_later || *syncs == 0 {
                        *syncs += 1;
                        *has_later = false;
                    }
                }
            }
            Operation::SyncDirectory { .. } | Operation::Note(_) => {}
        }
        if let Operation::Change(pending) = operation {
            platter.apply(pending);
        }
    }
    let followed = found.into_iter().filter(|(_, syncs, _)| *syncs > LATER_SYNCS_MIN);
    followed.map(|(write, _, _)| write).collect()
}
