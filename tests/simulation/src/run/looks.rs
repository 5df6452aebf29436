//! What is looked at while a run goes on: the state and the logs of all members, and how often they try to connect.
//!
//! Not here: what must hold of it (checks.rs, raft_checks.rs).

use super::Run;
use crate::checks::{Compared, Look};
use crate::links;
use crate::permissions::Rules;
use crate::raft_checks::{self, Seen};

/// To all others together: heartbeats, appends, questions and reads each have their own pauses.
const CONNECTS_PER_S_MAX: u64 = 1_000;

impl Run {
    /// Nobody tries without a pause to reach who cannot be reached.
    pub(super) fn count_connects(&mut self) -> Result<(), String> {
        for machine in &self.machines {
            let (total, before) = (machine.connects(), self.connects.entry(machine.number).or_default());
            let tried = total - std::mem::replace(before, total);
            if tried > CONNECTS_PER_S_MAX {
                return Err(format!(
                    "member {} tried to connect {tried} times within a second",
                    machine.number
                ));
            }
        }
        Ok(())
    }

    /// After each step, so that no member answers and ends unseen.
    pub(super) fn look_at_rules(&mut self) {
        let now_ns = self.now_ms() * 1_000_000;
        for handle in self.machines.iter().filter_map(|machine| machine.handle()) {
            let status = handle.status();
            let (revision, rules) = handle.read(|store, _| (store.revision(), Rules::of(store)));
            if revision == status.revision {
                self.permissions.look(now_ns, status.applied_index, rules);
            }
        }
    }

    pub(super) fn look(&mut self) -> Result<(), String> {
        let mut seen = Vec::new();
        let machines = &self.machines;
        self.damaged.retain(|number| {
            let status = machines[*number].handle().map(|handle| handle.status());
            !status.is_some_and(|status| status.leader.is_some() && !status.quarantined)
        });
        for machine in &self.machines {
            let Some(handle) = machine.handle() else { continue };
            let status = handle.status();
            seen.push(Seen {
                member: machine.number,
                life: machine.lives(),
                log: handle.log(raft_checks::NEWEST_MAX),
                voters: handle.voters(),
                is_damaged: self.damaged.contains(&machine.number),
                status: status.clone(),
            });
            self.voters.insert(machine.number, handle.voters());
            let state_hash = handle.read(|store, _| (store.revision(), store.state_hash()));
            if status.term == 0 || status.revision != state_hash.0 {
                continue;
            }
            self.invariants.look(&Look {
                member: machine.number,
                life: machine.lives(),
                term: status.term,
                is_leader: status.is_leader,
                member_id: status.identity.member_id,
                applied_index: status.applied_index,
                revision: status.revision,
                state_hash: Some(state_hash.1),
            })?;
        }
        self.tell_losses();
        self.compared()?;
        self.logs.look(&seen)
    }

    /// What members say of their comparisons with all others.
    fn compared(&mut self) -> Result<(), String> {
        if self.plan.settings.compare_interval_ms.is_none() {
            return Ok(());
        }
        let members = self.present();
        for member in &members {
            let machine = &self.machines[*member];
            let Some(metrics) = machine.handle().map(|handle| handle.metrics()) else { continue };
            let (passed, incomplete) =
                (metrics.corruption_checks_passed, metrics.corruption_checks_incomplete);
            let answers =
                |other: &usize| !self.is_down(*other) && links::are_open(&self.links, *member, *other);
            let asked = members.iter().copied().filter(answers).collect();
            let now = Compared { passed, incomplete };
            self.comparisons.look((*member, machine.lives()), now, &asked, members.len())?;
        }
        Ok(())
    }
}
