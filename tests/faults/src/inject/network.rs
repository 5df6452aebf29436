//! Faults of the network between members.
//!
//! Invariant: a network fault holds nobody, so it overlaps with faults of the same member's process, disk and clock.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::Rng as _;

use super::{Injector, Undo};
use crate::background::{Background, Stop};
use crate::delay::{Delayer, Manner};
use crate::network::{Direction, Network, sh};
use crate::record::Injected;
use crate::schedule::Kind;

const A_THIRD: [&str; 6] = ["-m", "statistic", "--mode", "random", "--probability", "0.3"];

impl Injector<'_> {
    pub(super) fn disturb_network(
        &mut self,
        kind: Kind,
        first: usize,
        members: &[usize],
    ) -> Result<(u64, String, Undo)> {
        use Direction::{Incoming, Outgoing};
        let network = self.network.clone().context("no namespaces")?;
        match kind {
            Kind::SlowLink => {
                self.slow.insert(first);
                network.slow_link(first)?;
                return Ok((0, String::new(), Undo::FastLink));
            }
            Kind::Delay | Kind::Reorder => {
                let undo = self.delay_packets(&network, kind, members)?;
                return Ok((0, String::new(), undo));
            }
            Kind::Duplicate => {
                for member in members.iter().copied() {
                    self.delayed.insert(member);
                    for other in network.others(member) {
                        network.copy_packets(member, other, &A_THIRD)?;
                    }
                }
                return Ok((0, String::new(), Undo::Once));
            }
            Kind::Flap | Kind::Reset => {
                if kind == Kind::Flap {
                    self.slow.insert(first);
                }
                let members = members.to_vec();
                let work = move |stop: &Stop| again_and_again(&network, kind, &members, stop);
                return Ok((0, String::new(), Undo::Background(Background::spawn(work))));
            }
            _ => {}
        }
        let number = usize::try_from(self.shared.now_ns() / 1_000_000)?;
        let rules = network.rules(number, members)?;
        for member in members.iter().copied() {
            let others: Vec<usize> = network
                .others(member)
                .into_iter()
                .filter(|other| kind != Kind::Cut || !members.contains(other))
                .collect();
            let size = self.cluster.size();
            for other in others {
                let peer = Some(other);
                let (next, before) = ((member + 1) % size, (other + 1) % size);
                match kind {
                    Kind::Cut => {
                        network.drop_packets(&rules, member, peer, Outgoing, &[])?;
                        network.drop_packets(&rules, member, peer, Incoming, &[])?;
                    }
                    Kind::CutOutgoing => network.drop_packets(&rules, member, peer, Outgoing, &[])?,
                    Kind::CutIncoming => network.drop_packets(&rules, member, peer, Incoming, &[])?,
                    Kind::CutPair if other == (first + 1) % size => {
                        network.drop_packets(&rules, member, peer, Outgoing, &[])?;
                        network.drop_packets(&rules, member, peer, Incoming, &[])?;
                    }
                    Kind::Ring if other != next && (size == 3 || before != member) => {
                        network.drop_packets(&rules, member, peer, Outgoing, &[])?;
                    }
                    Kind::BlackHole => {
                        network.drop_packets(
                            &rules,
                            member,
                            peer,
                            Outgoing,
                            &["-m", "length", "--length", "600:"],
                        )?;
                    }
                    _ => {}
                }
            }
            if kind == Kind::Loss {
                network.drop_packets(&rules, member, None, Outgoing, &A_THIRD)?;
            }
        }
        Ok((0, String::new(), Undo::Rules(rules)))
    }

    fn delay_packets(&mut self, network: &Network, kind: Kind, members: &[usize]) -> Result<Undo> {
        let in_order = kind == Kind::Delay;
        // Less than an election timeout, so that a cluster whose members all wait can still agree.
        let (least_ms, jitter_ms) = match in_order {
            true => (self.random.random_range(20..150), self.random.random_range(0..50)),
            false => (0, self.random.random_range(60..200)),
        };
        let mut delayers = Vec::new();
        for member in members.iter().copied() {
            let manner = Manner { least_ms, jitter_ms, in_order, seed: self.random.random() };
            delayers.push(Delayer::start(network, member, manner)?);
            self.delayed.insert(member);
        }
        Ok(Undo::Punctual(delayers))
    }

    pub(super) fn end_delay(&mut self, delayers: Vec<Delayer>, record: &mut Injected) -> Result<()> {
        let (mut held, mut overtaken) = (0, 0);
        for delayer in delayers {
            let counts = delayer.finish()?;
            held += counts.held;
            overtaken += counts.overtaken;
        }
        self.delayed.retain(|member| !record.members.contains(member));
        record.effect = if record.kind == "Delay" { held } else { overtaken };
        record.evidence = format!("{held} packets held back, {overtaken} of them overtaken");
        Ok(())
    }

    pub(super) fn end_duplicates(&mut self, record: &mut Injected) -> Result<()> {
        let network = self.network.clone().context("no namespaces")?;
        for member in &record.members {
            self.delayed.remove(member);
            for other in network.others(*member) {
                record.effect += network.uncopy_packets(*member, other, &A_THIRD)?;
            }
        }
        record.evidence = format!("{} packets sent twice", record.effect);
        Ok(())
    }
}

/// Until stopped; how often something was done.
fn again_and_again(network: &Network, kind: Kind, members: &[usize], stop: &Stop) -> Result<u64> {
    let mut times = 0;
    let link = format!("vm{}", members[0] + 1);
    while !stop.is_set() {
        match kind {
            Kind::Flap => {
                sh(&["ip", "link", "set", &link, "down"])?;
                std::thread::sleep(Duration::from_millis(300));
                sh(&["ip", "link", "set", &link, "up"])?;
                times += 1;
            }
            _ => {
                for member in members {
                    times += network.reset(*member)?;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    Ok(times)
}
