//! Who may do what is never decided on a state older than one that was already observed through the same member.
//!
//! Each attempt must be explained by the binding as it was at the newest version that this member had told before the
//! attempt began, or as it became later, by a change that somebody had asked for before the attempt's answer.

use crate::api::history::{Attempt, Change, Facts, Observed, Stream, Toggle, Told, told};
use crate::api::truth::Truth;
use crate::history::{Violation, seconds};

/// What was observed through watches and lists of bindings.
pub fn observed(streams: &[&Stream]) -> Vec<Observed> {
    let mut observed = Vec::new();
    for stream in streams {
        for told in &stream.told {
            let (version, at_ns) = match told {
                Told::List { version, at_ns, .. } => (*version, *at_ns),
                Told::Event { object, at_ns, .. } => (object.version, *at_ns),
                Told::Bookmark { .. } => continue,
            };
            observed.push(Observed { member: stream.member, version, at_ns });
        }
    }
    observed
}

/// The number of attempts that were checked.
pub fn check(
    truth: &Truth,
    toggles: &[Toggle],
    observed: &[Observed],
    attempts: &[Attempt],
) -> Result<usize, Violation> {
    // Since which version there is a binding, and when that was asked for.
    let mut states = vec![(0, false, 0)];
    for (change, object) in truth.changes() {
        let Facts::Binding { grant } = object.facts else { continue };
        let gives = *change != Change::Deleted;
        let asked = toggles.iter().filter(|toggle| (toggle.grant, toggle.gives) == (grant, gives));
        let asked_ns = asked.map(|toggle| toggle.call_ns).min();
        let asked_ns =
            asked_ns.ok_or_else(|| format!("nobody has asked for this: {}", told(*change, object)))?;
        states.push((object.version, gives, asked_ns));
    }
    let members = attempts.iter().map(|attempt| attempt.member + 1).max().unwrap_or(0);
    for member in 0..members {
        let mut seen: Vec<(u64, u64)> = observed
            .iter()
            .filter(|observed| observed.member == member)
            .map(|observed| (observed.at_ns, observed.version))
            .collect();
        seen.sort_unstable();
        let mut highest = 0;
        for (_, version) in &mut seen {
            highest = highest.max(*version);
            *version = highest;
        }
        for attempt in attempts.iter().filter(|attempt| attempt.member == member) {
            let before = seen.partition_point(|(at_ns, _)| *at_ns < attempt.call_ns);
            let floor = seen[..before].last().map_or(0, |(_, version)| *version);
            let at_floor = states.partition_point(|(since, ..)| *since <= floor) - 1;
            let later = states[at_floor + 1..].iter().filter(|(.., asked_ns)| *asked_ns < attempt.return_ns);
            if !std::iter::once(&states[at_floor]).chain(later).any(|(_, given, _)| *given == attempt.allowed)
            {
                let (since, given, _) = states[at_floor];
                let sentence = format!(
                    "{} through m{} from {} to {}, although version {floor} had been told through it before, and \
                     since version {since} the right is {}",
                    if attempt.allowed { "allowed" } else { "denied" },
                    member + 1,
                    seconds(attempt.call_ns),
                    seconds(attempt.return_ns),
                    if given { "given" } else { "taken" },
                );
                return Err(Violation::seen(attempt.call_ns, sentence));
            }
        }
    }
    Ok(attempts.len())
}
