//! Where each live entry lies: the segments of the log, shared by the writer and by readers.
//!
//! Always holds: the live entries of one segment are contiguous, the segments ascend, and only what is on disk is in
//! here. Four bytes an entry. Not here: files' contents (segment.rs), the state beside entries (writer.rs).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::record::Seed;

pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) seed: Seed,
    /// From its header.
    pub(crate) first_index: Option<u64>,
    /// Index of the first live entry; only if `offsets` is not empty.
    first_live: u64,
    offsets: VecDeque<u32>,
}

impl Segment {
    pub(crate) fn new(
        path: PathBuf,
        file: Arc<dyn DiskFile>,
        seed: Seed,
        first_index: Option<u64>,
    ) -> Segment {
        Segment { path, file, seed, first_index, first_live: 0, offsets: VecDeque::new() }
    }

    fn end_live(&self) -> u64 {
        self.first_live + self.offsets.len() as u64
    }
}

/// A stretch of entries in one file.
pub(crate) struct Run {
    pub(crate) path: PathBuf,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) seed: Seed,
    pub(crate) offsets: Vec<u32>,
}

pub(crate) enum Located {
    Run(Run),
    /// Below the log, which starts (or will start) here.
    Below(u64),
    Beyond,
}

#[derive(Default)]
pub(crate) struct Index {
    purged: Option<u64>,
    segments: VecDeque<Segment>,
}

impl Index {
    pub(crate) fn begin_segment(&mut self, segment: Segment) {
        self.segments.push_back(segment);
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, &dyn DiskFile)> {
        self.segments.iter().map(|segment| (segment.path.as_path(), &*segment.file))
    }

    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Into the last segment; follows the last entry.
    pub(crate) fn append(&mut self, index: u64, offset: u32) {
        if let Some(segment) = self.segments.back_mut() {
            if segment.offsets.is_empty() {
                segment.first_live = index;
            }
            assert_eq!(segment.end_live(), index, "entries of a segment are contiguous");
            segment.offsets.push_back(offset);
        }
    }

    pub(crate) fn truncate(&mut self, from_index: u64) {
        for segment in self.segments.iter_mut().rev().filter(|segment| !segment.offsets.is_empty()) {
            let keep = from_index.saturating_sub(segment.first_live);
            segment.offsets.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
            if keep > 0 {
                return;
            }
        }
    }

    pub(crate) fn purge(&mut self, upto_index: u64) {
        self.purged = Some(upto_index);
        for segment in self.segments.iter_mut().filter(|segment| !segment.offsets.is_empty()) {
            if segment.first_live > upto_index {
                return;
            }
            let drop = (upto_index - segment.first_live).saturating_add(1).min(segment.offsets.len() as u64);
            segment.offsets.drain(..drop as usize);
            segment.first_live += drop;
        }
    }

    /// Removes the oldest segment if no entry before the next one can be needed again.
    pub(crate) fn take_obsolete(&mut self) -> Option<Segment> {
        let needed_from = self.segments.get(1)?.first_index;
        let obsolete = needed_from.is_none_or(|first| self.purged.is_some_and(|purged| first <= purged + 1));
        if obsolete { self.segments.pop_front() } else { None }
    }

    /// At most `count_max` entries from `index` on.
    pub(crate) fn locate(&self, index: u64, count_max: usize) -> Located {
        let live = || self.segments.iter().filter(|segment| !segment.offsets.is_empty());
        let first = live().next().map(|segment| segment.first_live);
        let first = first.or(self.purged.map(|purged| purged.saturating_add(1)));
        if let Some(first) = first.filter(|first| index < *first) {
            return Located::Below(first);
        }
        let Some(segment) = live().find(|segment| (segment.first_live..segment.end_live()).contains(&index))
        else {
            return Located::Beyond;
        };
        let skip = (index - segment.first_live) as usize;
        Located::Run(Run {
            path: segment.path.clone(),
            file: Arc::clone(&segment.file),
            seed: segment.seed,
            offsets: segment.offsets.iter().skip(skip).take(count_max).copied().collect(),
        })
    }
}
