//! After the faults: everything is healed and must come back, answer, and be the same on all members.
//!
//! Always holds: each wait has a bound of virtual time, and its failure tells how every member is. Not here: the history
//! (report.rs).

use std::collections::BTreeSet;
use std::sync::Arc;

use wal::sim_disk::Faults;

use super::Run;
use crate::member::Machine;
use crate::workload::Load;

/// After the faults: until every member answers a read that must be right.
const HEALED_MS_MAX: u64 = 30_000;
/// After the last client has ended: time for leases to end and for watchers to see everything.
pub(super) const QUIET_MS: u64 = 5_500;

impl Run {
    pub(super) fn heal(&mut self) {
        self.note("healed");
        self.shared.roster.stop();
        let over = std::mem::take(&mut self.active);
        self.undo(over);
        let now_ms = self.now_ms();
        self.down.iter_mut().for_each(|(_, at_ms)| *at_ms = now_ms);
        for machine in &self.machines {
            // A power cut that waits for its operation must not come any more.
            machine.disk().set_faults(Faults::default());
        }
    }

    /// Every member runs, follows one leader and has applied what that leader has.
    pub(super) fn wait_until_healed(&mut self) -> Result<(), String> {
        let begin_ms = self.now_ms();
        let mut since_ms = None;
        loop {
            self.step()?;
            let now_ms = self.now_ms();
            if self.is_level() && self.shared.roster.is_idle() {
                // For an election timeout, so that it is no coincidence.
                let since_ms = *since_ms.get_or_insert(now_ms);
                if now_ms - since_ms >= 2 * self.plan.settings.election_timeout_ms {
                    self.report.healed_ms = now_ms - begin_ms;
                    return Ok(());
                }
            } else {
                since_ms = None;
            }
            if now_ms - begin_ms > HEALED_MS_MAX {
                return Err(format!("not healed after {HEALED_MS_MAX} ms: {}", self.describe_all()));
            }
        }
    }

    /// With the load on and nothing wrong, for as long as an operation may take: none may stay without an answer.
    pub(super) fn calm(&mut self) -> Result<(), String> {
        let Load { timeout_ms, .. } = self.plan.load;
        if timeout_ms > 1_000 || timeout_ms < 40 * self.plan.latency_ms_max {
            return Ok(());
        }
        // Until then connections that a partition broke have been noticed.
        self.pass(2_500)?;
        let terms = self.terms();
        self.shared.set_calm_since(Some(self.now_ms() * 1_000_000));
        self.pass(timeout_ms + 500)?;
        if self.terms() != terms {
            self.shared.set_calm_since(None);
        }
        Ok(())
    }

    pub(super) fn pass(&mut self, passes_ms: u64) -> Result<(), String> {
        let until_ms = self.now_ms() + passes_ms;
        while self.now_ms() < until_ms {
            self.step()?;
        }
        Ok(())
    }

    pub(super) fn terms(&self) -> Vec<Option<(u64, Option<u64>)>> {
        let status = |machine: &Arc<Machine>| machine.handle().map(|handle| handle.status());
        let term = |machine| status(machine).map(|status| (status.term, status.leader));
        self.members_present().map(term).collect()
    }

    pub(super) fn is_level(&self) -> bool {
        let mut leaders = BTreeSet::new();
        let mut lowest = u64::MAX;
        let mut highest = 0;
        for machine in self.members_present() {
            let Some(handle) = machine.handle() else { return false };
            let status = handle.status();
            let Some(leader) = status.leader else { return false };
            if status.quarantined || handle.read(|store, _| !store.alarms().is_empty()) {
                return false;
            }
            leaders.insert((leader, status.term));
            lowest = lowest.min(status.applied_index);
            highest = highest.max(status.applied_index);
        }
        // Under load they are never quite level.
        leaders.len() == 1 && highest - lowest < 50
    }

    pub(super) fn members_present(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.machines.iter().filter(|machine| !self.absent.contains(&machine.number))
    }

    pub(super) fn describe_all(&self) -> String {
        let told: Vec<String> = self.members_present().map(|machine| self.describe(machine)).collect();
        told.join("; ")
    }

    pub(super) fn describe(&self, machine: &Machine) -> String {
        match machine.handle() {
            None => format!("member {} does not run", machine.number),
            Some(handle) => {
                let status = handle.status();
                format!(
                    "member {} in term {} knows leader {:x?}, applied {}, quarantined {}",
                    machine.number, status.term, status.leader, status.applied_index, status.quarantined
                )
            }
        }
    }

    /// No more load: all clients end, leases too, and watchers see everything.
    pub(super) fn quiet(&mut self) -> Result<(), String> {
        let begin_ms = self.now_ms();
        let mut until_known = false;
        let mut alone_since_ms = u64::MAX;
        loop {
            self.step()?;
            let passed_ms = self.now_ms() - begin_ms;
            if self.shared.clients_running() == 0 {
                alone_since_ms = alone_since_ms.min(passed_ms);
            }
            if passed_ms.saturating_sub(alone_since_ms) >= QUIET_MS {
                if !until_known {
                    until_known = true;
                    let revisions = self.machines.iter().filter_map(|machine| machine.handle());
                    self.shared
                        .set_until(revisions.map(|handle| handle.status().revision).max().unwrap_or(1));
                }
                if self.shared.watchers_behind().is_empty() && self.states_are_equal() {
                    return Ok(());
                }
            }
            if passed_ms > QUIET_MS + HEALED_MS_MAX {
                return Err(format!(
                    "{} clients do not end, watchers at (member, revision) {:?} do not see the rest, or members are not \
                     level: {}",
                    self.shared.clients_running(),
                    self.shared.watchers_behind(),
                    self.describe_all()
                ));
            }
        }
    }

    pub(super) fn states_are_equal(&self) -> bool {
        let state = |machine: &Arc<Machine>| {
            machine.handle().map(|handle| handle.read(|store, _| (store.revision(), store.state_hash())))
        };
        let mut members = self.members_present();
        let first = members.next().and_then(state);
        first.is_some() && members.all(|machine| state(machine) == first)
    }
}
