//! Faults of the network between members.
//!
//! Invariant: a network fault holds nobody, so it overlaps with faults of the same member's process, disk and clock.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Injector, Undo};
use crate::background::{Background, Stop};
use crate::network::{Direction, Network, sh};
use crate::schedule::Kind;

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
                let third = ["-m", "statistic", "--mode", "random", "--probability", "0.3"];
                network.drop_packets(&rules, member, None, Outgoing, &third)?;
            }
        }
        Ok((0, String::new(), Undo::Rules(rules)))
    }
}

pub(super) fn is_of_network(kind: &str) -> bool {
    matches!(
        kind,
        "Cut"
            | "CutOutgoing"
            | "CutIncoming"
            | "CutPair"
            | "Ring"
            | "Loss"
            | "SlowLink"
            | "BlackHole"
            | "Reset"
            | "Flap"
            | "MoveLeader"
    )
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
