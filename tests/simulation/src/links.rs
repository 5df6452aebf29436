//! Which links lose, hold or slow messages, from the faults that are active at the same time.
//!
//! Always holds: a link is set only when its state changes; where one fault loses and another holds, it loses.

use std::collections::BTreeMap;
use std::time::Duration;

use turmoil::Sim;

use crate::member::host;

pub(crate) const CLIENTS: &str = "clients";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    /// From the lower numbered end to the other, and back.
    pub lost: [bool; 2],
    pub held: bool,
    /// Added to what the network takes.
    pub slow_ms: u64,
}

/// By their ends, the lower number first; the clients count as one member more.
pub(crate) type Links = BTreeMap<(usize, usize), Link>;

pub(crate) fn between(links: &mut Links, from: usize, to: usize) -> (&mut Link, usize) {
    let direction = usize::from(from > to);
    (links.entry((from.min(to), from.max(to))).or_default(), direction)
}

pub(crate) fn lose(links: &mut Links, from: usize, to: usize) {
    let (link, direction) = between(links, from, to);
    link.lost[direction] = true;
}

/// Whether a question and its answer get through.
pub(crate) fn are_open(links: &Links, one: usize, other: usize) -> bool {
    let link = links.get(&(one.min(other), one.max(other)));
    link.is_none_or(|link| !link.held && link.lost == [false; 2])
}

/// Makes the network what `wanted` says.
pub(crate) fn set(sim: &Sim<'_>, members: usize, latency_ms_max: u64, current: &mut Links, wanted: Links) {
    let name = |number: usize| if number == members { CLIENTS.to_owned() } else { host(number) };
    for one in 0..members {
        for other in one + 1..=members {
            let before = current.get(&(one, other)).copied().unwrap_or_default();
            let after = wanted.get(&(one, other)).copied().unwrap_or_default();
            if before == after {
                continue;
            }
            let (a, b) = (name(one), name(other));
            sim.release(a.as_str(), b.as_str());
            if after.lost[0] {
                sim.partition_oneway(a.as_str(), b.as_str());
            }
            if after.lost[1] {
                sim.partition_oneway(b.as_str(), a.as_str());
            }
            if after.held && after.lost == [false; 2] {
                sim.hold(a.as_str(), b.as_str());
            }
            if before.slow_ms != after.slow_ms {
                let latency = Duration::from_millis(latency_ms_max + after.slow_ms);
                sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency);
            }
        }
    }
    *current = wanted;
}
