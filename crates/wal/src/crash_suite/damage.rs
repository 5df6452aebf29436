//! Damage to a log at rest: flipped bits, garbage in a sector or a block, files that are gone.
//!
//! Always holds after one of them: the exact state, or `LostAcknowledged` and a prefix, except where the newest segment is
//! hit, whose end may pass for a torn write; and the last vote, wherever it was hit. Not here: power cuts (crash_suite.rs).

use bytes::Bytes;

use super::{History, Model, Suite, model_summary, summary};
use crate::api::Damage;
use crate::sim_disk::SimDisk;
use crate::sim_disk::crash::{Moment, Platter, SECTOR_SIZE_BYTES};

/// What a disk may lose at once: a physical sector of most of today's.
const BLOCK_SIZE_BYTES: u64 = 4096;

impl Suite {
    /// Flips bits, loses sectors and files of a log that has come to rest.
    pub(super) fn damages(&mut self, disk: &SimDisk, history: &History) -> Result<(), String> {
        let disk = disk.killed();
        let (wal, mut owner, recovered) = self.open(&disk)?;
        while owner.step() {}
        drop((wal, owner));
        let platter = disk.moment().platter;
        let model = history.last();
        if !model.shows(&recovered) {
            return Err(format!("after a kill {} instead of {}", summary(&recovered), model_summary(&model)));
        }
        let newest = platter.names.keys().rfind(|path| path.to_string_lossy().contains("wal-")).cloned();
        for (path, file) in &platter.names {
            let size = platter.file(*file).len() as u64;
            for _ in 0..40 {
                let mut damaged = platter.clone();
                let at = self.random.below(size.max(1));
                let bit = 1 << self.random.below(8);
                damage(&mut damaged, *file, |bytes| {
                    if let Some(byte) = bytes.get_mut(at as usize) {
                        *byte ^= bit;
                    }
                });
                let context = |text| format!("{text}\n  bit {bit:#x} at {at} of {}", path.display());
                self.damaged(damaged, &model).map_err(context)?;
            }
            if newest.as_ref() != Some(path) {
                let mut damaged = platter.clone();
                let sector = self.random.below(size / SECTOR_SIZE_BYTES + 1) * SECTOR_SIZE_BYTES;
                let end = (sector + SECTOR_SIZE_BYTES).min(size);
                damage(&mut damaged, *file, |bytes| bytes[sector as usize..end as usize].fill(0));
                let context = |text| format!("{text}\n  sector at {sector} of {} lost", path.display());
                self.damaged(damaged, &model).map_err(context)?;
                let mut damaged = platter.clone();
                damaged.names.remove(path);
                self.damaged(damaged, &model).map_err(|text| format!("{text}\n  {} lost", path.display()))?;
            }
        }
        Ok(())
    }

    /// Whatever one sector, one block or one file of a log at rest had: the last vote is somewhere else, too.
    pub(super) fn votes_outlive(&mut self, disk: &SimDisk, history: &History) -> Result<(), String> {
        let disk = disk.killed();
        drop(self.open(&disk)?);
        let platter = disk.moment().platter;
        let vote = history.last().vote;
        for (path, file) in &platter.names {
            let mut lost = platter.clone();
            lost.names.remove(path);
            self.has_vote(lost, vote.as_ref())
                .map_err(|text| format!("{text}\n  {} lost", path.display()))?;
            let size = platter.file(*file).len() as u64;
            for size_bytes in [SECTOR_SIZE_BYTES, BLOCK_SIZE_BYTES] {
                for from in (0..size).step_by(size_bytes as usize) {
                    let to = (from + size_bytes).min(size);
                    let mut damaged = platter.clone();
                    damage(&mut damaged, *file, |bytes| {
                        bytes[from as usize..to as usize].fill_with(|| self.random.number() as u8);
                    });
                    let place = format!("{from} to {to} of {} are garbage", path.display());
                    self.has_vote(damaged, vote.as_ref()).map_err(|text| format!("{text}\n  {place}"))?;
                }
            }
        }
        Ok(())
    }

    fn has_vote(&mut self, platter: Platter, vote: Option<&Bytes>) -> Result<(), String> {
        let (_, _, recovered) = self.open(&SimDisk::with(platter))?;
        self.report.states += 1;
        self.report.damaged += 1;
        if recovered.vote.as_ref() == vote {
            return Ok(());
        }
        Err(format!("the vote {vote:?} became {}", summary(&recovered)))
    }

    fn damaged(&mut self, platter: Platter, model: &Model) -> Result<(), String> {
        let disk = SimDisk::with(platter.clone());
        let (wal, mut owner, recovered) = self.open(&disk)?;
        self.report.states += 1;
        self.report.damaged += 1;
        let Damage::LostAcknowledged { acknowledged_index, last_good_index, .. } = recovered.damage else {
            let exact = model.shows(&recovered);
            return if exact { Ok(()) } else { Err(format!("silently became {}", summary(&recovered))) };
        };
        self.report.losses_noticed += 1;
        if acknowledged_index < last_good_index {
            return Err(format!("acknowledged {acknowledged_index} < good {last_good_index}"));
        }
        if disk.moment() != (Moment { platter, pending: Vec::new() }) {
            return Err("opening a damaged log changed the disk".to_owned());
        }
        let good = recovered.entries.last().map_or(last_good_index + 1, |entry| entry.index + 1);
        let entry = self.entry(good);
        wal.append(vec![entry.clone()], Box::new(|_| ()));
        owner.work();
        drop((wal, owner));
        let (_, _, repaired) = self.open(&SimDisk::with(disk.moment().platter))?;
        let still_lost = matches!(repaired.damage, Damage::LostAcknowledged { .. });
        let kept = repaired.entries.strip_suffix(&[entry]) == Some(&recovered.entries);
        if !still_lost || !kept || repaired.vote != recovered.vote || repaired.purged != recovered.purged {
            return Err(format!("{} was repaired to {}", summary(&recovered), summary(&repaired)));
        }
        Ok(())
    }
}

fn damage(platter: &mut Platter, file: usize, change: impl FnOnce(&mut [u8])) {
    let mut bytes = platter.files[file].to_vec();
    change(&mut bytes);
    platter.files[file] = bytes.into();
}
