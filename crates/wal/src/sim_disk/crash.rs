//! Power cuts: what a disk may look like afterwards.
//!
//! Always holds: changes that survive are applied in the order in which they were made; each change survives or not
//! on its own, a write sector by sector. Not here: the disk that records the changes (sim_disk.rs).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Operation;
use super::contents::Contents;

/// The unit that a power cut leaves whole.
pub const SECTOR_SIZE_BYTES: u64 = 512;

/// Names and contents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platter {
    /// By the number that a file got when it was created; never reused.
    pub files: Vec<Contents>,
    pub names: BTreeMap<PathBuf, usize>,
}

/// A change that is not durable yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pending {
    Write { file: usize, offset: u64, bytes: Vec<u8> },
    Resize { file: usize, size_bytes: u64 },
    Create { path: PathBuf, file: usize },
    Rename { from: PathBuf, to: PathBuf, file: usize },
    Remove { path: PathBuf, file: usize },
}

/// What a crash does to one pending change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    Lost,
    /// Of a write, by sector; sectors without an answer are lost.
    Sectors(Vec<bool>),
}

/// A point in time: what is durable, what is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    pub platter: Platter,
    pub pending: Vec<Pending>,
}

/// One way for a power cut to hit.
#[derive(Clone, Copy)]
enum Cut {
    /// So many survive.
    Prefix(usize),
    Without(usize),
    Alone(usize),
    /// So many sectors of the last one.
    Torn(usize),
    Random,
}

impl Pending {
    /// The file whose sync makes this durable.
    pub fn file_of_data(&self) -> Option<usize> {
        match self {
            Pending::Write { file, .. } | Pending::Resize { file, .. } => Some(*file),
            Pending::Create { .. } | Pending::Rename { .. } | Pending::Remove { .. } => None,
        }
    }

    /// The directory whose sync makes this durable.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Pending::Write { .. } | Pending::Resize { .. } => None,
            Pending::Create { path, .. } | Pending::Remove { path, .. } => path.parent(),
            Pending::Rename { to, .. } => to.parent(),
        }
    }

    /// Sectors that it touches; 0 for what is not a write.
    pub fn sector_count(&self) -> usize {
        match self {
            Pending::Write { offset, bytes, .. } if !bytes.is_empty() => {
                let last = offset + bytes.len() as u64 - 1;
                (last / SECTOR_SIZE_BYTES - offset / SECTOR_SIZE_BYTES + 1) as usize
            }
            _ => 0,
        }
    }
}

impl Platter {
    /// Empty for a number that no file has.
    pub fn file(&self, file: usize) -> Contents {
        self.files.get(file).cloned().unwrap_or_default()
    }

    fn file_mut(&mut self, file: usize) -> &mut Contents {
        if self.files.len() <= file {
            self.files.resize(file + 1, Contents::default());
        }
        &mut self.files[file]
    }

    fn write(&mut self, file: usize, offset: usize, bytes: &[u8]) {
        self.file_mut(file).write(bytes, offset);
    }

    pub fn apply(&mut self, pending: &Pending) {
        match pending {
            Pending::Write { file, offset, bytes } => self.write(*file, *offset as usize, bytes),
            Pending::Resize { file, size_bytes } => self.file_mut(*file).resize(*size_bytes as usize),
            Pending::Create { path, file } => {
                self.file_mut(*file);
                self.names.insert(path.clone(), *file);
            }
            Pending::Rename { from, to, file } => {
                if self.names.get(from) == Some(file) {
                    self.names.remove(from);
                }
                self.file_mut(*file);
                self.names.insert(to.clone(), *file);
            }
            Pending::Remove { path, file } => {
                if self.names.get(path) == Some(file) {
                    self.names.remove(path);
                }
            }
        }
    }

    fn apply_sectors(&mut self, pending: &Pending, sectors: &[bool]) {
        let Pending::Write { file, offset, bytes } = pending else { return };
        let mut from = 0;
        for kept in sectors {
            let sector_end = ((offset + from as u64) / SECTOR_SIZE_BYTES + 1) * SECTOR_SIZE_BYTES;
            let end = ((sector_end - offset) as usize).min(bytes.len());
            if *kept {
                self.write(*file, *offset as usize + from, &bytes[from..end]);
            }
            from = end;
        }
    }
}

impl Moment {
    /// Moves on by one operation.
    pub fn advance(&mut self, operation: &Operation) {
        match operation {
            Operation::Change(pending) => self.pending.push(pending.clone()),
            Operation::SyncFile { file } => self.settle(|pending| pending.file_of_data() == Some(*file)),
            Operation::SyncDirectory { directory } => {
                self.settle(|pending| pending.directory() == Some(directory.as_path()));
            }
            Operation::Note(_) => {}
        }
    }

    fn settle(&mut self, durable: impl Fn(&Pending) -> bool) {
        let platter = &mut self.platter;
        self.pending.retain(|pending| {
            let durable = durable(pending);
            if durable {
                platter.apply(pending);
            }
            !durable
        });
    }

    /// What is left if the power goes now and the pending changes fare like this; missing fates are `Lost`.
    pub fn crash(&self, fates: &[Fate]) -> Platter {
        let mut platter = self.platter.clone();
        for (pending, fate) in self.pending.iter().zip(fates) {
            match fate {
                Fate::Kept => platter.apply(pending),
                Fate::Lost => {}
                Fate::Sectors(sectors) => platter.apply_sectors(pending, sectors),
            }
        }
        platter
    }

    /// Nothing, every prefix, all minus one, one alone, each write torn at and without each sector, and random
    /// subsets of changes and sectors. Without duplicates.
    pub fn fates(&self, random: &mut Random, random_subsets: usize) -> Vec<Vec<Fate>> {
        let count = self.pending.len();
        let choose = |kept: &dyn Fn(usize) -> bool| -> Vec<Fate> {
            (0..count).map(|at| if kept(at) { Fate::Kept } else { Fate::Lost }).collect()
        };
        let mut all: Vec<Vec<Fate>> = (0..=count).map(|prefix| choose(&|at| at < prefix)).collect();
        for one in 0..count {
            all.push(choose(&|at| at != one));
            all.push(choose(&|at| at == one));
        }
        for (at, pending) in self.pending.iter().enumerate() {
            let sectors = pending.sector_count();
            for sector in 0..if sectors > 1 { sectors } else { 0 } {
                let mut torn = choose(&|other| other <= at);
                torn[at] = Fate::Sectors((0..sectors).map(|other| other < sector).collect());
                let mut holed = choose(&|other| other <= at);
                holed[at] = Fate::Sectors((0..sectors).map(|other| other != sector).collect());
                all.extend([torn, holed]);
            }
        }
        for _ in 0..if count > 0 { random_subsets } else { 0 } {
            all.push(self.pending.iter().map(|pending| random.fate(pending)).collect());
        }
        let mut unique: Vec<Vec<Fate>> = Vec::new();
        for fates in all {
            if !unique.contains(&fates) {
                unique.push(fates);
            }
        }
        unique
    }

    /// What is new since the operation before, for disks with many pending changes: everything kept, all minus one, one
    /// alone, the last write torn at each sector, a random subset, and after a sync or a promise (`prefixes`) every
    /// prefix; after a change those were tried before. Of more than `count_max` a random choice, everything kept and
    /// everything lost always among them.
    pub fn cuts(&self, random: &mut Random, count_max: usize, prefixes: bool) -> Vec<Vec<Fate>> {
        let count = self.pending.len();
        let mut cuts = vec![Cut::Prefix(count)];
        if count > 0 {
            cuts.push(Cut::Prefix(0));
            cuts.push(Cut::Random);
            if prefixes {
                cuts.extend((1..count).map(Cut::Prefix));
            }
            if count > 1 {
                cuts.extend((0..count - 1).map(Cut::Without));
                cuts.extend((1..count).map(Cut::Alone));
            }
            let sectors = self.pending.last().map_or(0, Pending::sector_count);
            cuts.extend((1..sectors).map(Cut::Torn));
        }
        let always = cuts.len().min(2);
        while cuts.len() > count_max.max(always) {
            let dropped = always as u64 + random.below((cuts.len() - always) as u64);
            cuts.swap_remove(dropped as usize);
        }
        cuts.into_iter().map(|cut| self.fates_of(cut, random)).collect()
    }

    fn fates_of(&self, cut: Cut, random: &mut Random) -> Vec<Fate> {
        let count = self.pending.len();
        let choose = |kept: &dyn Fn(usize) -> bool| -> Vec<Fate> {
            (0..count).map(|at| if kept(at) { Fate::Kept } else { Fate::Lost }).collect()
        };
        match cut {
            Cut::Prefix(length) => choose(&|at| at < length),
            Cut::Without(one) => choose(&|at| at != one),
            Cut::Alone(one) => choose(&|at| at == one),
            Cut::Random => self.pending.iter().map(|pending| random.fate(pending)).collect(),
            Cut::Torn(sectors_kept) => {
                let mut fates = choose(&|_| true);
                if let (Some(last), Some(pending)) = (fates.last_mut(), self.pending.last()) {
                    let kept = (0..pending.sector_count()).map(|sector| sector < sectors_kept);
                    *last = Fate::Sectors(kept.collect());
                }
                fates
            }
        }
    }

    /// A sample for disks with many pending changes: nothing, everything, then prefixes that end in a torn write and
    /// random subsets by turns.
    pub fn sample_fates(&self, random: &mut Random, count: usize) -> Vec<Vec<Fate>> {
        if self.pending.is_empty() {
            return vec![Vec::new()];
        }
        let all = |fate: Fate| vec![fate; self.pending.len()];
        let mut sample = vec![all(Fate::Lost), all(Fate::Kept)];
        for turn in 0..count.saturating_sub(2) {
            let last = random.below(self.pending.len() as u64) as usize;
            let fates = self.pending.iter().enumerate().map(|(at, pending)| {
                let sectors = pending.sector_count();
                match at.cmp(&last) {
                    _ if turn % 2 == 1 => random.fate(pending),
                    std::cmp::Ordering::Less => Fate::Kept,
                    std::cmp::Ordering::Equal if sectors > 0 => {
                        let torn_at = random.below(sectors as u64 + 1) as usize;
                        Fate::Sectors((0..sectors).map(|sector| sector < torn_at).collect())
                    }
                    std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Fate::Lost,
                }
            });
            sample.push(fates.collect());
        }
        sample
    }
}

/// SplitMix64: small, seeded, good enough to choose with.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In `0..below`; 0 for 0.
    pub fn below(&mut self, below: u64) -> u64 {
        self.number().checked_rem(below).unwrap_or(0)
    }

    fn fate(&mut self, pending: &Pending) -> Fate {
        match self.below(4) {
            0 => Fate::Lost,
            1 if pending.sector_count() > 1 => {
                Fate::Sectors((0..pending.sector_count()).map(|_| self.below(2) == 0).collect())
            }
            _ => Fate::Kept,
        }
    }
}
