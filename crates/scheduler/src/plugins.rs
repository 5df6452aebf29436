//! The plugins, under upstream's names: what each filters and how each scores.
//!
//! Invariants: a plugin is pure: pod and node in, verdict or score out. Filters run in this order and the first that
//! rejects a node ends its turn, as upstream. Raw scores become 0..=100 by `Normalize`, then count with `weight`.
//! A plugin that is in the list filters or scores for real; what is not built is not listed.
//! Source: Kubernetes 1.36 `apis/config/v1/default_plugins.go`.

mod balanced_allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_unschedulable;
mod resources_fit;
mod taint_toleration;
mod volume_binding;

use crate::node::Node;
use crate::pod::Pod;

/// Why a node cannot take a pod: upstream's reason strings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) reasons: Vec<String>,
}

impl Rejection {
    fn because(reason: &str) -> Rejection {
        Rejection { reasons: vec![reason.to_owned()] }
    }
}

/// How raw scores become 0..=100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Normalize {
    /// They are already.
    No,
    /// `100·s / max`.
    ToMaximum,
    /// `100 − 100·s / max`; all 100 if every score is zero.
    Reversed,
}

/// A plugin that can reject nodes.
pub(crate) struct Filter {
    pub(crate) name: &'static str,
    /// False: the plugin has nothing to say about this pod (PreFilter's Skip).
    pub(crate) applies: fn(&Pod) -> bool,
    pub(crate) filter: fn(&Pod, &Node) -> Result<(), Rejection>,
}

/// A plugin that ranks nodes.
pub(crate) struct Scorer {
    pub(crate) name: &'static str,
    pub(crate) weight: i64,
    /// False: the plugin does not count for this pod (PreScore's Skip).
    pub(crate) applies: fn(&Pod) -> bool,
    pub(crate) score: fn(&Pod, &Node) -> i64,
    pub(crate) normalize: Normalize,
}

/// In the order in which they run.
pub(crate) const FILTERS: &[Filter] = &[
    Filter { name: "NodeUnschedulable", applies: always, filter: node_unschedulable::filter },
    Filter { name: "NodeName", applies: node_name::applies, filter: node_name::filter },
    Filter { name: "TaintToleration", applies: always, filter: taint_toleration::filter },
    Filter { name: "NodeAffinity", applies: node_affinity::filters, filter: node_affinity::filter },
    Filter { name: "NodePorts", applies: node_ports::applies, filter: node_ports::filter },
    Filter { name: "NodeResourcesFit", applies: always, filter: resources_fit::filter },
    Filter { name: "VolumeBinding", applies: volume_binding::applies, filter: volume_binding::filter },
];

pub(crate) const SCORERS: &[Scorer] = &[
    Scorer {
        name: "TaintToleration",
        weight: 3,
        applies: always,
        score: taint_toleration::score,
        normalize: Normalize::Reversed,
    },
    Scorer {
        name: "NodeAffinity",
        weight: 2,
        applies: node_affinity::scores,
        score: node_affinity::score,
        normalize: Normalize::ToMaximum,
    },
    Scorer {
        name: "NodeResourcesFit",
        weight: 1,
        applies: always,
        score: resources_fit::score,
        normalize: Normalize::No,
    },
    Scorer {
        name: "NodeResourcesBalancedAllocation",
        weight: 1,
        applies: balanced_allocation::applies,
        score: balanced_allocation::score,
        normalize: Normalize::No,
    },
];

/// The highest normalized score.
pub(crate) const SCORE_MAX: i64 = 100;

fn always(_pod: &Pod) -> bool {
    true
}

impl Normalize {
    /// Turns the raw scores of all feasible nodes into 0..=100, in place.
    pub(crate) fn apply(self, scores: &mut [i64]) {
        if self == Normalize::No {
            return;
        }
        let maximum = scores.iter().copied().max().unwrap_or(0);
        for score in scores {
            let share = if maximum == 0 { 0 } else { SCORE_MAX * *score / maximum };
            *score = if self == Normalize::Reversed { SCORE_MAX - share } else { share };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Normalize;

    #[test]
    fn scores_are_scaled_to_a_hundred_or_turned_around() {
        for (normalize, raw, expected) in [
            (Normalize::No, [7, 3], [7, 3]),
            (Normalize::ToMaximum, [4, 1], [100, 25]),
            (Normalize::ToMaximum, [0, 0], [0, 0]),
            (Normalize::Reversed, [4, 1], [0, 75]),
            (Normalize::Reversed, [0, 0], [100, 100]),
        ] {
            let mut scores = raw;
            normalize.apply(&mut scores);
            assert_eq!(scores, expected, "{normalize:?} {raw:?}");
        }
    }
}
