//! Faults begin, overlap and end: whom they hit, and what they do to disks, processes and links.
//!
//! Always holds: a disk is told before its process ends, so that what a dying process still does to it does not count.
//! Not here: how many machines may lose something (machines.rs), what links there are (links.rs).

use std::sync::Arc;

use wal::sim_disk::Faults;

use super::Run;
use crate::links::{self, Links};
use crate::member::{Machine, host};
use crate::plan::{Fault, Kind, Target};

/// A fault that has begun.
pub(super) struct Active {
    pub(super) until_ms: u64,
    pub(super) kind: Kind,
    pub(super) members: Vec<usize>,
}

impl Run {
    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |machine: &&Arc<Machine>| {
            machine.handle().is_some_and(|handle| handle.status().is_leader) && !self.is_down(machine.number)
        };
        self.machines.iter().find(leads).map(|machine| machine.number)
    }

    pub(super) fn members(&self, target: Target) -> Vec<usize> {
        let present = self.present();
        let count = present.len();
        let leader = self.leader().unwrap_or(present[0]);
        let place = present.iter().position(|number| *number == leader).unwrap_or(0);
        match target {
            Target::Leader => vec![leader],
            Target::One(number) => vec![present[number % count]],
            Target::Majority => (0..count / 2 + 1).map(|step| present[(place + step) % count]).collect(),
            Target::All => present,
        }
    }

    pub(super) fn begin(&mut self, fault: Fault) {
        let now_ms = self.now_ms();
        let until_ms = now_ms + fault.lasts_ms;
        let members = match fault.kind {
            Kind::Kill(target)
            | Kind::PowerCut(target)
            | Kind::PowerCutAfter(target, _)
            | Kind::Partition(target)
            | Kind::Mute(target)
            | Kind::Deaf(target)
            | Kind::Hold(target)
            | Kind::SlowLink(target, _)
            | Kind::SlowDisk(target, _)
            | Kind::SyncError(target)
            | Kind::FlipBit(target)
            | Kind::RotState(target)
            | Kind::LoseWrite(target, _)
            | Kind::StrayWrite(target, _)
            | Kind::FlipNewBit(target)
            | Kind::ClockJump(target, _)
            | Kind::Unreachable(target) => self.members(target),
            Kind::Link(one, other) => {
                let present = self.present();
                vec![present[one % present.len()], present[other % present.len()]]
            }
            Kind::MoveLeader => self.members(Target::Leader),
        };
        self.note(&format!("fault {fault} hits {members:?}"));
        let mut effect = false;
        for number in members.iter().copied().filter(|number| !self.is_down(*number)).collect::<Vec<_>>() {
            effect = true;
            match fault.kind {
                Kind::Kill(_) => self.kill(number, until_ms),
                Kind::PowerCut(_) => self.cut_power(number, until_ms),
                Kind::PowerCutAfter(_, operations) => self.machines[number].disk().set_faults(Faults {
                    operations_before_power_cut: Some(operations),
                    ..Faults::default()
                }),
                Kind::SyncError(_) => self.machines[number]
                    .disk()
                    .set_faults(Faults { syncs_before_failure: Some(0), ..Faults::default() }),
                Kind::FlipBit(_) => effect = self.flip_bit(number, until_ms, false),
                Kind::RotState(_) => effect = self.rot_state(number, until_ms),
                Kind::LoseWrite(..) | Kind::StrayWrite(..) => self.machines[number].remember_writes(),
                Kind::FlipNewBit(_) => effect = self.flip_bit(number, until_ms, true),
                Kind::MoveLeader => effect = self.move_leader(number),
                Kind::ClockJump(_, jump_ms) => {
                    self.machines[number].jump_ms(jump_ms);
                    self.jumps.push((self.now_ms() * 1_000_000, jump_ms * 1_000_000));
                }
                Kind::SlowDisk(_, latency_ms) => self.machines[number].set_latency_ms(latency_ms),
                Kind::Partition(_)
                | Kind::Mute(_)
                | Kind::Deaf(_)
                | Kind::Hold(_)
                | Kind::Link(..)
                | Kind::SlowLink(..)
                | Kind::Unreachable(_) => {}
            }
        }
        self.report.faults_with_effect += usize::from(effect);
        self.active.push(Active { until_ms, kind: fault.kind, members });
        self.set_links();
    }

    pub(super) fn end_faults(&mut self, now_ms: u64) {
        if self.active.iter().all(|active| active.until_ms > now_ms) {
            return;
        }
        let (over, active) =
            std::mem::take(&mut self.active).into_iter().partition(|active| active.until_ms <= now_ms);
        self.active = active;
        self.undo(over);
    }

    pub(super) fn undo(&mut self, over: Vec<Active>) {
        for Active { kind, members, .. } in over {
            match kind {
                Kind::SlowDisk(..) => {
                    members.iter().for_each(|number| self.machines[*number].set_latency_ms(0));
                }
                Kind::LoseWrite(..) | Kind::StrayWrite(..) => {
                    members.iter().for_each(|number| self.reveal(*number, kind));
                }
                _ => {}
            }
        }
        self.set_links();
    }

    pub(super) fn set_links(&mut self) {
        let count = self.machines.len();
        let mut wanted = Links::new();
        for Active { kind, members, .. } in &self.active {
            let others = || (0..count).filter(|other| !members.contains(other));
            let pairs = members.iter().flat_map(|one| others().map(move |other| (*one, other)));
            match kind {
                Kind::Partition(_) => pairs.for_each(|(one, other)| {
                    links::lose(&mut wanted, one, other);
                    links::lose(&mut wanted, other, one);
                }),
                Kind::Mute(_) => pairs.for_each(|(one, other)| links::lose(&mut wanted, one, other)),
                Kind::Deaf(_) => pairs.for_each(|(one, other)| links::lose(&mut wanted, other, one)),
                Kind::Hold(_) => {
                    pairs.for_each(|(one, other)| links::between(&mut wanted, one, other).0.held = true);
                }
                Kind::SlowLink(_, slow_ms) => {
                    pairs.for_each(|(one, other)| {
                        links::between(&mut wanted, one, other).0.slow_ms = *slow_ms
                    });
                }
                Kind::Link(..) => {
                    if let [one, other] = members[..]
                        && one != other
                    {
                        links::lose(&mut wanted, one, other);
                        links::lose(&mut wanted, other, one);
                    }
                }
                Kind::Unreachable(_) => members.iter().for_each(|one| {
                    links::lose(&mut wanted, *one, count);
                    links::lose(&mut wanted, count, *one);
                }),
                Kind::Kill(_)
                | Kind::PowerCut(_)
                | Kind::PowerCutAfter(..)
                | Kind::SlowDisk(..)
                | Kind::FlipBit(_)
                | Kind::RotState(_)
                | Kind::LoseWrite(..)
                | Kind::StrayWrite(..)
                | Kind::FlipNewBit(_)
                | Kind::MoveLeader
                | Kind::ClockJump(..)
                | Kind::SyncError(_) => {}
            }
        }
        links::set(&self.sim, count, self.plan.latency_ms_max, &mut self.links, wanted);
    }

    pub(super) fn kill(&mut self, number: usize, until_ms: u64) {
        // First the disk: what the dying process still does to it must not count.
        self.machines[number].killed();
        self.sim.crash(host(number));
        self.down.push((number, until_ms));
    }

    pub(super) fn cut_power(&mut self, number: usize, until_ms: u64) {
        let pending = self.machines[number].power_lost(&mut self.random);
        self.note(&format!("member {number} loses its power, {pending} changes were not synced"));
        self.report.changes_lost_to_power += pending;
        self.sim.crash(host(number));
        self.down.push((number, until_ms));
    }

    /// Only where a majority keeps whole logs: every acknowledged entry has a copy that nothing happened to.
    pub(super) fn flip_bit(&mut self, number: usize, until_ms: u64, new: bool) -> bool {
        if !self.may_lose(number) {
            return false;
        }
        self.kill(number, until_ms);
        let flipped = self.machines[number].flip_bit(&mut self.random, new);
        self.note(&format!("a bit of member {number} is flipped: {flipped:?}"));
        if flipped.is_some() {
            self.damaged.insert(number);
            self.report.bits_flipped += 1;
        }
        flipped.is_some()
    }

    /// The next member is to lead; the clients' host asks.
    pub(super) fn move_leader(&mut self, leader: usize) -> bool {
        let next = (leader + 1) % self.machines.len();
        let Some(handle) = self.machines[next].handle() else { return false };
        self.shared.ask_to_move(leader, handle.status().identity.member_id);
        true
    }
}
