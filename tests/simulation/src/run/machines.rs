//! Machines that come, go for good, or lose what is on their disks, and how many may.
//!
//! Always holds: of the voters of any list of members that may be in force, only a minority lacks anything that was
//! acknowledged: every acknowledged entry keeps a whole copy on a majority. Not here: what ends a life (run.rs), who
//! changes the list (operator.rs).

use std::collections::BTreeSet;

use super::Run;
use crate::member::host;
use crate::plan::{Area, Kind};
use crate::roster::Order;

/// A machine whose member cannot start so often gets an empty disk, as an operator would do.
const STARTS_MAX: usize = 3;
const EMPTY_MS: u64 = 300;

impl Run {
    /// Machines that take part, whether they run or not.
    pub(super) fn present(&self) -> Vec<usize> {
        (0..self.machines.len()).filter(|number| !self.absent.contains(number)).collect()
    }

    /// Machines that may lack what they should have.
    fn lost(&self) -> BTreeSet<usize> {
        let destroyed = (0..self.machines.len()).filter(|number| self.shared.roster.is_destroyed(*number));
        self.damaged.iter().chain(&self.rotten).copied().chain(destroyed).collect()
    }

    /// Whether a majority keeps everything if this one loses something too.
    pub(super) fn may_lose(&self, number: usize) -> bool {
        let mut lost = self.lost();
        if self.plan.changes.is_none() {
            lost.insert(number);
            return lost.len() <= (self.machines.len() - 1) / 2 && !self.is_down(number);
        }
        if self.is_down(number) || lost.contains(&number) {
            return false;
        }
        lost.insert(number);
        let ids: BTreeSet<u64> =
            lost.iter().filter_map(|number| self.machines[*number].member_id()).collect();
        let is_kept = |voters: &BTreeSet<u64>| voters.intersection(&ids).count() <= (voters.len() - 1) / 2;
        let known = || self.voters.iter().filter(|(number, _)| !self.absent.contains(number));
        known().count() > 0 && known().flat_map(|(_, sets)| sets).all(is_kept)
    }

    pub(super) fn tell_losses(&self) {
        if self.plan.changes.is_some() || self.plan.damages_states() {
            let numbers = self.machines.iter().filter_map(|one| Some((one.member_id()?, one.number)));
            self.shared.roster.set_numbers(numbers.collect());
            let may_lose = self.present().into_iter().filter(|number| self.may_lose(*number)).collect();
            self.shared.roster.set_losses(self.lost(), may_lose);
        }
    }

    pub(super) fn obey(&mut self) {
        let shared = self.shared.clone();
        while let Some(order) = shared.roster.next_order() {
            self.note(&format!("{order:?}"));
            match order {
                Order::Start { number, others } => {
                    self.absent.remove(&number);
                    self.machines[number].join(others);
                    self.sim.bounce(host(number));
                }
                Order::Retire { number } => self.end_for_good(number),
                Order::Destroy { number } if self.may_lose(number) => {
                    shared.roster.note_destroyed(number);
                    self.report.machines_lost += 1;
                    self.end_for_good(number);
                }
                Order::Empty { number, others } if self.rotten.contains(&number) || self.may_lose(number) => {
                    self.empty(number, others);
                }
                Order::Destroy { .. } | Order::Empty { .. } => self.note("not now"),
            }
        }
    }

    pub(super) fn end_for_good(&mut self, number: usize) {
        if !self.absent.insert(number) {
            return;
        }
        self.machines[number].killed();
        self.sim.crash(host(number));
        self.down.retain(|(down, _)| *down != number);
        self.damaged.remove(&number);
        self.rotten.remove(&number);
        self.shared.roster.note_gone(number);
    }

    pub(super) fn empty(&mut self, number: usize, others: Vec<usize>) {
        if !self.is_down(number) {
            let until_ms = self.now_ms() + EMPTY_MS;
            self.kill(number, until_ms);
        }
        self.machines[number].emptied(others);
        self.invariants.forget(number);
        self.voters.remove(&number);
        self.rotten.remove(&number);
        self.damaged.insert(number);
        self.report.disks_emptied += 1;
    }

    /// The member of this machine has ended by itself. Answers whether it is to be started again.
    pub(super) fn ended(&mut self, number: usize, reason: &str) -> bool {
        if self.shared.roster.is_removed(number) {
            self.report.removed_ended += 1;
            self.end_for_good(number);
            return false;
        }
        let failures = self.failures.entry(number).or_default();
        *failures = if reason.starts_with("not started") { *failures + 1 } else { 0 };
        if *failures >= STARTS_MAX && self.rotten.contains(&number) {
            *failures = 0;
            self.note(&format!("the disk of member {number} is given up"));
            let others = self.present().into_iter().filter(|other| *other != number).collect();
            self.kill(number, self.now_ms() + EMPTY_MS);
            self.empty(number, others);
            return false;
        }
        true
    }

    pub(super) fn rot_state(&mut self, number: usize, until_ms: u64) -> bool {
        if !self.may_lose(number) {
            return false;
        }
        self.kill(number, until_ms);
        let flipped = self.machines[number].flip_state_bit(&mut self.random);
        self.note(&format!("a bit of member {number}'s state is flipped: {flipped:?}"));
        if flipped.is_some() {
            self.rotten.insert(number);
            self.report.states_damaged += 1;
        }
        flipped.is_some()
    }

    /// The end of a fault: one of the writes that it saw is not where it should be.
    pub(super) fn reveal(&mut self, number: usize, kind: Kind) {
        let (area, strays) = match kind {
            Kind::LoseWrite(_, area) => (area, false),
            Kind::StrayWrite(_, area) => (area, true),
            _ => return,
        };
        if !self.may_lose(number) {
            return self.note("not now");
        }
        let hit = self.machines[number].lose_write(area, strays, &mut self.random);
        self.note(&format!("member {number} loses a write, elsewhere: {strays}: {hit:?}"));
        if hit.is_none() {
            return;
        }
        self.report.writes_lost += 1;
        self.sim.crash(host(number));
        self.down.push((number, self.now_ms() + EMPTY_MS));
        match area {
            Area::Log => self.damaged.insert(number),
            Area::State => self.rotten.insert(number),
        };
    }
}
