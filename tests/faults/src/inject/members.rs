//! Members that lose their data and are replaced by new ones, that come for a while, and that are another build.
//!
//! Invariant: at most one member at a time lacks data or has damaged data, so a quorum always has everything.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio_util::sync::CancellationToken;

use super::{CHANGE_WITHIN, Injector, POLL, Task, Told, Undo};
use crate::images::{self, Copied};
use crate::membership::Spare;
use crate::network::{self, SPARES};
use crate::{cluster, membership};

impl Injector<'_> {
    /// Whether every member has all data that it should have.
    pub(super) async fn all_are_sound(&mut self) -> bool {
        if let Some(member) = self.replaced
            && cluster::answers(&self.cluster.client_urls[member], POLL * 2).await
        {
            self.replaced = None;
        }
        self.replaced.is_none() && self.unsound.is_empty()
    }

    /// After the faults: waits until no member lacks data.
    pub async fn make_sound(&mut self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while let Some(member) = self.unsound.first() {
            ensure!(
                Instant::now() < deadline,
                "m{} could not be replaced within {within:?} although all faults were over",
                member + 1
            );
            self.supervise().await?;
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// The member goes down and is removed, loses its data, is added and joins; the rest of the run does not wait.
    pub(super) fn replace(&mut self, member: usize) -> Result<()> {
        self.kill(member)?;
        self.held.insert(member);
        self.unsound.insert(member);
        let peer_url = self.cluster.peer_url(member).to_owned();
        let task = membership::replace(self.urls_but(member), peer_url, self.cluster.data(member).to_owned());
        self.replacing = Some((member, tokio::spawn(task)));
        Ok(())
    }

    fn urls_but(&self, member: usize) -> Vec<String> {
        let urls = self.cluster.client_urls.iter().enumerate();
        urls.filter(|(other, _)| *other != member).map(|(_, url)| url.clone()).collect()
    }

    /// The member is removed while it runs; it is replaced in the end.
    pub(super) async fn remove(&mut self, member: usize) -> Result<(u64, String, Undo)> {
        self.hold(&[member]);
        self.unsound.insert(member);
        let peer_url = self.cluster.peer_url(member).to_owned();
        let removed = membership::remove_within(&self.urls_but(member), &peer_url, CHANGE_WITHIN).await;
        let evidence = if removed { "removed while it ran" } else { "not removed in time" };
        Ok((u64::from(removed), evidence.to_owned(), Undo::Replace))
    }

    /// Two more members come and go.
    pub(super) fn grow(&mut self) -> Result<(u64, String, Undo)> {
        let network = self.network.clone().context("no namespaces")?;
        let size = self.cluster.size();
        let mut known: Vec<String> =
            (0..size).map(|member| format!("m{}={}", member + 1, self.cluster.peer_url(member))).collect();
        let mut spares = Vec::new();
        for spare in size..size + SPARES {
            let name = format!("m{}", spare + 1);
            let peer_url = format!("http://{}:2380", network::address(spare));
            let client_url = format!("http://{}:2379", network::address(spare));
            known.push(format!("{name}={peer_url}"));
            let data = self.cluster.dir.path().join(&name);
            let flags = [
                format!("--name={name}"),
                format!("--data-dir={}", data.display()),
                format!("--listen-client-urls={client_url}"),
                format!("--advertise-client-urls={client_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster={}", known.join(",")),
                "--initial-cluster-state=existing".to_owned(),
            ];
            let command = self.cluster.command(0, network.launcher(spare), &flags);
            spares.push(Spare {
                peer_url,
                command,
                log: self.cluster.dir.path().join(format!("{name}.log")),
                data,
            });
        }
        let (urls, stop) = (self.cluster.client_urls.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let work = async move {
            let voters = membership::grow_and_shrink(urls, spares, stopped).await?;
            let evidence = format!("{voters} learners became voters; all were removed");
            Ok(Told { effect: voters, evidence, images: Vec::new() })
        };
        Ok((0, String::new(), Undo::Task(Task { stop, work: tokio::spawn(work) })))
    }

    /// Copies all disks, and starts a process alone on each copy.
    pub(super) fn copy_disks(&mut self) -> Result<(u64, String, Undo)> {
        let network = self.network.as_ref().context("no namespaces")?;
        let disks = self.disks.context("no disks")?;
        // Before `wanted` is read, and until the last copy is there.
        self.shared.copying.store(true, Ordering::SeqCst);
        let collected = self.shared.collected.iter().map(|seen| seen.load(Ordering::SeqCst)).max();
        let wanted = self.shared.told.load(Ordering::SeqCst).max(collected.unwrap_or(0));
        let at_ns = self.shared.now_ns();
        let mut copies = Vec::new();
        for member in 0..self.cluster.size() {
            let copy = disks.copy(member, at_ns)?;
            let url = format!("http://{}:2379", network::ALONE_ADDRESS);
            let flags = [
                format!("--data-dir={}", copy.data().display()),
                format!("--listen-client-urls={url}"),
                format!("--listen-peer-urls=http://{}:2380", network::ALONE_ADDRESS),
                "--force-new-cluster=true".to_owned(),
            ];
            let command = self.cluster.command(member, network.launcher_alone(), &flags);
            let log = self.cluster.dir.path().join(format!("copy-{at_ns}-m{}.log", member + 1));
            copies.push(Copied { member, copy, command, log, url });
        }
        self.shared.copying.store(false, Ordering::SeqCst);
        let shared = self.shared.clone();
        let work = async move {
            let images = images::open(copies, at_ns, wanted, shared).await?;
            let opened = images.iter().filter(|image| image.failed.is_none());
            let ends = opened.map(|image| image.revision.to_string()).collect::<Vec<_>>();
            let evidence = format!("told {wanted}; copies opened that end at {}", ends.join(", "));
            Ok(Told { effect: ends.len() as u64, evidence, images })
        };
        Ok((0, String::new(), Undo::Task(Task { stop: CancellationToken::new(), work: tokio::spawn(work) })))
    }

    /// The members are another build, one after another.
    pub(super) async fn change_version(&mut self, members: &[usize]) -> Result<(u64, String, Undo)> {
        self.hold(members);
        let other = self.other_version.clone().context("no other build")?;
        let mut changed = 0;
        for member in members.iter().copied() {
            let own = self.cluster.program(member).to_owned();
            self.restart_as(member, other.clone()).await?;
            let runs = self.cluster.process_id(member).map(|process| format!("/proc/{process}/exe"));
            let runs = runs.and_then(|path| std::fs::read_link(path).ok());
            changed += u64::from(runs.is_some() && runs == other.canonicalize().ok());
            self.own_version = Some(own);
        }
        Ok((changed, format!("processes of the other build: {changed}"), Undo::Version))
    }

    pub(super) async fn restore_version(&mut self, members: &[usize]) -> Result<()> {
        let own = self.own_version.clone().context("no own build")?;
        for member in members.iter().copied() {
            self.restart_as(member, own.clone()).await?;
        }
        Ok(())
    }

    async fn restart_as(&mut self, member: usize, program: PathBuf) -> Result<()> {
        self.terminate(member).await?; // however it ended
        self.cluster.set_program(member, program);
        self.revive(member)?;
        self.wait_for(member).await;
        Ok(())
    }

    pub(super) async fn finish_replacement(&mut self) -> Result<()> {
        let Some((member, task)) = self.replacing.take_if(|(_, task)| task.is_finished()) else {
            return Ok(());
        };
        task.await??;
        self.cluster.join_existing(member);
        self.revive(member)?;
        self.unsound.remove(&member);
        self.held.remove(&member);
        self.replaced = Some(member);
        Ok(())
    }
}
