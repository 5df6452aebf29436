//! One scheduling cycle: which node takes a pod, and a full account of why.
//!
//! Invariants: pure, the random number that breaks ties is a parameter. Every node that was looked at is in the account,
//! with the plugin that rejected it or with each plugin's score and weight, so that the total can be recomputed by hand.
//! A single feasible node is scored too, although nothing depends on it: the account is worth it.
//! Not here: binding, the queue, writing the account down (decision.rs).

use std::collections::BTreeMap;

use crate::cache::Cache;
use crate::node::Node;
use crate::plugins::{FILTERS, Filter, Rejection, SCORERS, Scorer};
use crate::pod::Pod;

/// Below this many nodes all are looked at.
const NODES_MIN: usize = 100;

/// The account of one cycle.
#[derive(Debug, PartialEq)]
pub(crate) struct Cycle {
    /// None: no node can take the pod.
    pub(crate) chosen: Option<String>,
    pub(crate) nodes_total: usize,
    /// Feasible nodes first, by total, best first; then the rejected ones, by name.
    pub(crate) verdicts: Vec<Verdict>,
    /// Where the next cycle starts to look, so that all nodes get their turn.
    pub(crate) next_start: usize,
}

#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) node: String,
    pub(crate) outcome: Outcome,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    Rejected { plugin: &'static str, reasons: Vec<String> },
    Scored { scores: Vec<Score>, total: i64 },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Score {
    pub(crate) plugin: &'static str,
    pub(crate) raw: i64,
    pub(crate) normalized: i64,
    pub(crate) weight: i64,
}

/// Decides where `pod` goes. `start` is `next_start` of the cycle before; `tie` draws among equals.
pub(crate) fn run(
    pod: &Pod,
    cache: &Cache,
    percentage_to_score: usize,
    start: usize,
    mut tie: impl FnMut(usize) -> usize,
) -> Cycle {
    let nodes = cache.nodes();
    let wanted = feasible_wanted(nodes.len(), percentage_to_score);
    let filters: Vec<&Filter> = FILTERS.iter().filter(|filter| (filter.applies)(pod)).collect();
    let (mut feasible, mut verdicts, mut looked_at) = (Vec::new(), Vec::new(), 0);
    for offset in 0..nodes.len() {
        if feasible.len() == wanted {
            break;
        }
        looked_at += 1;
        let node = &nodes[(start + offset) % nodes.len()];
        match first_rejection(&filters, pod, node) {
            None => feasible.push(node),
            Some((plugin, rejection)) => verdicts.push(Verdict {
                node: node.name.clone(),
                outcome: Outcome::Rejected { plugin, reasons: rejection.reasons },
            }),
        }
    }
    verdicts.sort_by(|left, right| left.node.cmp(&right.node));
    let mut scored = score_all(pod, &feasible);
    scored.sort_by(|(left, left_total), (right, right_total)| {
        right_total.cmp(left_total).then_with(|| left.node.cmp(&right.node))
    });
    let best = scored.first().map_or(0, |(_, total)| *total);
    let equals = scored.iter().take_while(|(_, total)| *total == best).count();
    let chosen = match equals {
        0 => None,
        count => scored.get(tie(count).min(count - 1)).map(|(verdict, _)| verdict.node.clone()),
    };
    let verdicts = scored.into_iter().map(|(verdict, _)| verdict).chain(verdicts).collect();
    let next_start = if nodes.is_empty() { 0 } else { (start + looked_at) % nodes.len() };
    Cycle { chosen, nodes_total: nodes.len(), verdicts, next_start }
}

/// How many feasible nodes are enough: all below 100 nodes, else a share that shrinks with the size of the cluster.
fn feasible_wanted(nodes: usize, percentage: usize) -> usize {
    if nodes < NODES_MIN {
        return nodes;
    }
    let percentage = match percentage {
        0 => 50_usize.saturating_sub(nodes / 125).max(5),
        given => given.min(100),
    };
    (nodes * percentage / 100).max(NODES_MIN)
}

fn first_rejection(filters: &[&Filter], pod: &Pod, node: &Node) -> Option<(&'static str, Rejection)> {
    filters
        .iter()
        .find_map(|filter| (filter.filter)(pod, node).err().map(|rejection| (filter.name, rejection)))
}

/// True if no plugin rejects the node: an event on it helps exactly the pods that now fit.
pub(crate) fn fits(pod: &Pod, node: &Node) -> bool {
    FILTERS.iter().all(|filter| !(filter.applies)(pod) || (filter.filter)(pod, node).is_ok())
}

fn score_all(pod: &Pod, feasible: &[&Node]) -> Vec<(Verdict, i64)> {
    let scorers: Vec<&Scorer> = SCORERS.iter().filter(|scorer| (scorer.applies)(pod)).collect();
    let mut scores: Vec<Vec<Score>> = vec![Vec::with_capacity(scorers.len()); feasible.len()];
    for scorer in scorers {
        let raw: Vec<i64> = feasible.iter().map(|node| (scorer.score)(pod, node)).collect();
        let mut normalized = raw.clone();
        scorer.normalize.apply(&mut normalized);
        for ((of_node, raw), normalized) in scores.iter_mut().zip(raw).zip(normalized) {
            of_node.push(Score { plugin: scorer.name, raw, normalized, weight: scorer.weight });
        }
    }
    let verdict = |(node, scores): (&&Node, Vec<Score>)| {
        let total = scores.iter().map(|score| score.normalized * score.weight).sum();
        (Verdict { node: node.name.clone(), outcome: Outcome::Scored { scores, total } }, total)
    };
    feasible.iter().zip(scores).map(verdict).collect()
}

impl Cycle {
    pub(crate) fn feasible_count(&self) -> usize {
        self.verdicts.iter().filter(|verdict| matches!(verdict.outcome, Outcome::Scored { .. })).count()
    }

    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s).` The counted reasons are
    /// sorted as strings, as upstream sorts them.
    pub(crate) fn failure_message(&self) -> String {
        if self.nodes_total == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in &self.verdicts {
            if let Outcome::Rejected { reasons, .. } = &verdict.outcome {
                for reason in reasons {
                    *counts.entry(reason).or_default() += 1;
                }
            }
        }
        let mut parts: Vec<String> =
            counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        format!("0/{} nodes are available: {}.", self.nodes_total, parts.join(", "))
    }
}

#[cfg(test)]
mod tests;
