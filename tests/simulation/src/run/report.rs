//! What a run did, and what is judged of it when it is over.
//!
//! Not here: what is right (checks.rs).

use super::Run;
use super::recovery::QUIET_MS;
use crate::chance;
use crate::checks::{self, Checked, Drift};
use crate::clocks::Clocks;
use crate::permissions;
use crate::users::USER_KEYS;

/// Below this a run says nothing.
const ANSWERED_MIN: usize = 20;

/// What a run did.
#[derive(Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub virtual_ms: u64,
    pub trace_hash: u64,
    pub trace_lines: u64,
    pub changes: usize,
    pub answered: usize,
    pub unknown: usize,
    pub local_reads: usize,
    pub leases: usize,
    pub leases_expired: usize,
    pub compactions: u64,
    pub lives: u64,
    pub faults: usize,
    pub faults_with_effect: usize,
    pub changes_lost_to_power: usize,
    pub snapshots_received: u64,
    pub bits_flipped: u64,
    pub states_damaged: u64,
    pub writes_lost: u64,
    pub member_changes: u64,
    pub machines_lost: u64,
    pub disks_emptied: u64,
    /// Removed members that ended by themselves.
    pub removed_ended: u64,
    pub alarms: u64,
    /// Of users, roles and rights.
    pub user_changes: usize,
    /// Calls that were right to be permitted or denied, and those that were denied.
    pub permissions_judged: usize,
    pub denied: usize,
    pub observed: usize,
    pub batches: usize,
    pub looks: u64,
    pub healed_ms: u64,
    /// The search for an order was too long to be finished.
    pub undecided: bool,
}

impl Run {
    fn drift(&self) -> Drift {
        let percent = self.plan.clocks.as_ref().map_or(100, Clocks::fastest_percent);
        Drift { percent, jumps: self.jumps.clone() }
    }

    pub(super) fn judge(&mut self) -> Result<(Checked, u64), String> {
        self.report.member_changes = self.shared.member_changes();
        self.report.alarms = self.shared.alarms_cleared();
        for machine in self.machines.iter().filter(|machine| !self.absent.contains(&machine.number)) {
            let Some(handle) = machine.handle() else { continue };
            self.report.snapshots_received += handle.metrics().snapshots_received;
            let left = handle.read(|store, _| store.leases().count());
            if left > 0 {
                return Err(format!(
                    "member {} still has {left} leases {QUIET_MS} ms after the last was renewed",
                    machine.number
                ));
            }
        }
        let recorded = self.shared.take();
        let checked = checks::all(&recorded, &self.drift())?;
        if self.plan.load.users > 0 {
            let mut tried = permissions::of_the_nameless(&recorded.operations);
            tried.retain(|call| call.key < USER_KEYS);
            tried.extend(recorded.tried.iter().cloned());
            self.report.permissions_judged = self.permissions.check(&recorded.asked, &tried)?;
            self.report.denied = tried.iter().filter(|call| !call.permitted).count();
            self.report.user_changes = recorded.asked.iter().filter(|one| one.done == Some(true)).count();
        }
        if checked.answered < ANSWERED_MIN {
            return Err(format!("not a valid run: only {} operations were answered", checked.answered));
        }
        Ok((checked, recorded.compactions))
    }

    pub(super) fn finish(self, checked: Checked, compactions: u64) -> Report {
        self.note(&format!("the randomness is at {:x}", chance::fingerprint()));
        Report {
            virtual_ms: self.now_ms(),
            trace_hash: self.trace.hash(),
            trace_lines: self.trace.count(),
            changes: checked.changes,
            answered: checked.answered,
            unknown: checked.unknown,
            local_reads: checked.local_reads,
            leases: checked.leases,
            leases_expired: checked.leases_expired,
            undecided: checked.undecided,
            observed: checked.observed,
            batches: checked.batches,
            compactions,
            lives: self.machines.iter().map(|machine| machine.lives()).sum(),
            looks: self.invariants.looks,
            ..self.report
        }
    }
}
