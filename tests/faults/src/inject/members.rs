//! Members that lose their data and are replaced by new ones.
//!
//! Invariant: at most one member at a time lacks data or has damaged data, so a quorum always has everything.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Injector, POLL};
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
        let urls = self.cluster.client_urls.iter().enumerate();
        let others = urls.filter(|(other, _)| *other != member).map(|(_, url)| url.clone()).collect();
        let peer_url = self.cluster.peer_url(member).to_owned();
        let task = membership::replace(others, peer_url, self.cluster.data(member).to_owned());
        self.replacing = Some((member, tokio::spawn(task)));
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
