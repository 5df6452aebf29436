//! Power cuts during what an operator does to a directory: restoring a backup into it, defragmenting it, forcing a
//! cluster of one.
//!
//! Not here: lives (work.rs).

use std::path::Path;
use std::sync::Arc;

use mvcc::Row;
use wal::sim_disk::crash::{Moment, Platter};
use wal::sim_disk::{Operation, SimDisk};

use super::model::{Model, Promise};
use super::{
    CACHE_SIZE_BYTES, CUTS_ALL, CUTS_SOME, DATA_DIR, IDENTITY, Kind, Suite, begun, end, judge, members,
    recover,
};
use crate::backup::NewState;
use crate::raft_types::*;
use crate::state_file;

/// The note behind which an operation had answered.
const DONE: u64 = 1;

impl Suite {
    pub(super) async fn once(
        &mut self,
        platter: Platter,
        promise: Promise,
        model: &mut Model,
    ) -> Result<(), String> {
        if self.random.below(2) == 0 {
            self.restore(model).await.map_err(|text| format!("{text}\n  restore"))?;
        }
        let stopped = self.defragment(&platter, &promise, model).await;
        let stopped = stopped.map_err(|text| format!("{text}\n  defragment"))?;
        if self.kind != Kind::Alone {
            self.force(&stopped, &promise, model)
                .await
                .map_err(|text| format!("{text}\n  force a new cluster"))?;
        }
        Ok(())
    }

    /// Images at every point of a trace, and whether the operation had answered by then.
    fn images(&mut self, platter: Platter, trace: &[Operation]) -> Vec<(Platter, bool, String)> {
        let mut moment = Moment { platter, pending: Vec::new() };
        let mut images = Vec::new();
        let mut done = false;
        for (point, operation) in trace.iter().enumerate() {
            moment.advance(operation);
            done |= *operation == Operation::Note(DONE);
            self.report.points += 1;
            let count_max = if self.exhaustive { CUTS_ALL } else { CUTS_SOME };
            for fates in moment.cuts(&mut self.random, count_max, !matches!(operation, Operation::Change(_)))
            {
                let context = format!("  crash after operation {point}, fates {fates:?}");
                images.push((moment.crash(&fates), done, context));
            }
        }
        images
    }

    /// A member starts with all of the backup or, if the restore did not end, with all or nothing.
    async fn restore(&mut self, model: &Model) -> Result<(), String> {
        let view = model.view(model.next_index() - 1)?;
        let meta = view.meta().map_err(|error| error.to_string())?;
        let records = view.records().map_err(|error| error.to_string())?;
        let records = records.map(|row| row.map(|(revision, bytes)| Row::Record(revision, bytes)));
        let records: Vec<Row> = records.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
        let wanted = model.shown[model.chain.len() - 1].hash;
        let disk = SimDisk::new();
        let told = |error: crate::StartError| error.to_string();
        let members = members(self.kind);
        let mut new = NewState::create_on(Arc::new(disk.clone()), Path::new(DATA_DIR), IDENTITY, &members)
            .map_err(told)?;
        new.add(records).map_err(told)?;
        new.add(meta.into_iter().map(|(key, value)| Row::Meta(key, value)).collect()).map_err(told)?;
        new.finish().map_err(told)?;
        disk.note(DONE);
        let trace = disk.trace();
        for (image, done, context) in self.images(Platter::default(), &trace) {
            let disk = SimDisk::with(image).untraced();
            let tried = self.restored(&disk, done, wanted).await;
            tried.map_err(|text| format!("{text}\n{context}"))?;
        }
        Ok(())
    }

    async fn restored(&mut self, disk: &SimDisk, done: bool, wanted: u64) -> Result<(), String> {
        let mut promise = Promise::new(self.kind);
        promise.begun = done;
        begun(disk, &promise)?;
        let named =
            crate::stored_identity(disk, Path::new(DATA_DIR)).is_ok_and(|identity| identity.is_some());
        let raised = recover(&self.config(disk)).await?;
        let (hash, revision) =
            raised.machine.state.with_core(|core| (core.store.state_hash(), core.store.revision()));
        end(raised).await;
        self.report.states += 1;
        self.report.restored += 1;
        if hash == wanted || (!done && !named && revision == 1) {
            return Ok(());
        }
        Err(format!(
            "a restored directory (named {named}, done {done}) starts at revision {revision}, hash {hash:x}"
        ))
    }

    /// The content stays what it was. Answers the disk of a member that was stopped in order.
    async fn defragment(
        &mut self,
        platter: &Platter,
        promise: &Promise,
        model: &Model,
    ) -> Result<Platter, String> {
        let disk = SimDisk::with(platter.clone());
        let mut raised = recover(&self.config(&disk)).await?;
        judge(&mut raised, promise, model).await?;
        raised.flusher.stop(true).await;
        let path = raised.machine.data_dir.state_file();
        end(raised).await;
        let stopped = disk.moment().platter;
        let disk = SimDisk::with(stopped.clone());
        state_file::compact(&disk, &path).map_err(|error| error.to_string())?;
        disk.note(DONE);
        let trace = disk.trace();
        for (image, _, context) in self.images(stopped.clone(), &trace) {
            let tried = self.try_image(&image, promise, model).await;
            tried.map_err(|text| format!("{text}\n{context}"))?;
            self.report.defragmented += 1;
        }
        let opened = state_file::StateFile::open(
            &(Arc::new(disk.clone()) as Arc<dyn wal::Disk>),
            &path,
            CACHE_SIZE_BYTES,
        );
        opened.map_err(|error| error.to_string())?.close();
        Ok(disk.moment().platter)
    }

    /// A start with the flag after any crash ends with a cluster of one that has everything; one without it starts, too.
    async fn force(&mut self, platter: &Platter, promise: &Promise, model: &mut Model) -> Result<(), String> {
        let disk = SimDisk::with(platter.clone());
        let Ok(mut raised) = self.forced(&disk).await else {
            // A directory without any entry is refused.
            return if model.chain.len() <= 1 || promise.logged.is_none() {
                Ok(())
            } else {
                self.forced(&disk).await.map(drop)
            };
        };
        let forced = last_entry(&mut raised).await?;
        disk.note(DONE);
        let trace = disk.trace();
        end(raised).await;
        let index = forced.log_id.index;
        for (image, done, context) in self.images(platter.clone(), &trace) {
            let mut promise = promise.carried();
            promise.quarantined = done.then_some(false);
            let with_flag = SimDisk::with(image.clone()).untraced();
            let tried = self.is_forced(&with_flag, &promise, model, index).await;
            tried.map_err(|text| format!("{text}\n{context}"))?;
            self.report.forced += 1;
            if done {
                let disk = SimDisk::with(image).untraced();
                let mut raised = recover(&self.config(&disk)).await?;
                let last = last_entry(&mut raised).await?;
                end(raised).await;
                if last.log_id != forced.log_id {
                    return Err(format!("the forced entry is gone, the last is {}\n{context}", last.log_id));
                }
            }
        }
        Ok(())
    }

    async fn forced(&self, disk: &SimDisk) -> Result<crate::start::Raised, String> {
        let mut config = self.config(disk);
        config.force_new_cluster = true;
        recover(&config).await
    }

    async fn is_forced(
        &mut self,
        disk: &SimDisk,
        promise: &Promise,
        model: &mut Model,
        index: u64,
    ) -> Result<(), String> {
        begun(disk, promise)?;
        let mut raised = self.forced(disk).await?;
        self.report.states += 1;
        let last = last_entry(&mut raised).await?;
        let EntryPayload::Membership(membership) = &last.payload else {
            return Err(format!("the last entry is {}", last.log_id));
        };
        if last.log_id.index != index
            || membership.nodes().map(|(id, _)| *id).collect::<Vec<_>>() != [IDENTITY.member_id]
        {
            return Err(format!("{} is {membership:?}, the forced entry was at {index}", last.log_id));
        }
        let mut before = None;
        if index > next_index(raised.machine.log.purged().as_ref()) {
            let found = raised.machine.log.read(index - 1, index).await.map_err(|error| error.to_string())?;
            before = found.last().map(|entry| entry.log_id.leader_id.term);
        }
        model.know(&last, before);
        let judged = judge(&mut raised, promise, model).await;
        end(raised).await;
        judged.map(drop)
    }
}

async fn last_entry(raised: &mut crate::start::Raised) -> Result<RaftEntry, String> {
    use openraft::storage::RaftLogStorage;
    let told = |error: std::io::Error| error.to_string();
    let last = raised.machine.log.get_log_state().await.map_err(told)?.last_log_id;
    let next = next_index(last.as_ref());
    let entries = raised.machine.log.read(next.saturating_sub(1), next).await.map_err(told)?;
    entries.into_iter().next().ok_or_else(|| format!("no entry at the end of the log, {last:?}"))
}
