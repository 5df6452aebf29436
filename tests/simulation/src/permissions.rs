//! Who may do what, by a model of its own: from the rules that members were seen to have, whether each answer may be.
//!
//! Always holds: a call is judged by rules that were in force at some time between its begin and its answer, never by
//! older ones; rules change only as somebody asked, and what was acknowledged is in them. Where several changes came
//! between two looks, calls over that time are not judged. Not here: who asks (users.rs).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use faults::history::{Key, Operation, Outcome, Request};

use crate::workload::key_bytes;

const ROOT: &str = "root";
/// Changes between two looks that are looked for.
const CHANGES_AT_ONCE_MAX: usize = 3;

/// A member does not answer, and end, without a look in between, or within so long.
const LOOKS_EVERY_NS: u64 = 2_000_000;

/// The first key and the end; an empty end: this key alone.
pub(crate) type Range = (Bytes, Bytes);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Right {
    pub reads: bool,
    pub writes: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    enabled: bool,
    revision: u64,
    /// With their roles.
    users: BTreeMap<String, BTreeSet<String>>,
    roles: BTreeMap<String, BTreeMap<Range, Right>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Enable,
    Disable,
    AddUser { name: String },
    AddRole { name: String },
    GrantRole { user: String, role: String },
    RevokeRole { user: String, role: String },
    Permit { role: String, range: Range, right: Right },
    Forbid { role: String, range: Range },
}

/// A change that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub change: Change,
    pub call_ns: u64,
    pub return_ns: u64,
    /// `None`: unknown.
    pub done: Option<bool>,
}

/// A call that was permitted, or denied.
#[derive(Clone, Debug)]
pub(crate) struct Tried {
    /// `None`: without a name.
    pub user: Option<String>,
    pub member: usize,
    pub key: Key,
    pub writes: bool,
    pub call_ns: u64,
    pub return_ns: u64,
    pub permitted: bool,
}

impl Rules {
    pub(crate) fn of(store: &mvcc::Store) -> Rules {
        let users = store.users().into_iter().filter_map(|name| store.user(&name));
        let roles = store.roles().into_iter().filter_map(|name| store.role(&name));
        let right =
            |access| Right { reads: access != mvcc::Access::Write, writes: access != mvcc::Access::Read };
        let permissions = |role: &mvcc::RoleView| {
            role.permissions.iter().map(|own| (own.range.to_wire(), right(own.access))).collect()
        };
        Rules {
            enabled: store.auth_enabled(),
            revision: store.auth_revision(),
            users: users.map(|user| (user.name, user.roles.into_iter().collect())).collect(),
            roles: roles.map(|role| (role.name.clone(), permissions(&role))).collect(),
        }
    }

    fn permit(&self, tried: &Tried) -> bool {
        if !self.enabled {
            return true;
        }
        let Some(roles) = tried.user.as_ref().and_then(|user| self.users.get(user)) else { return false };
        let key = key_bytes(tried.key);
        let permits = |(range, right): (&Range, &Right)| {
            let (start, end) = range;
            let covers = if end.is_empty() { *start == key } else { (start..end).contains(&&key) };
            covers && if tried.writes { right.writes } else { right.reads }
        };
        roles.contains(ROOT) || roles.iter().filter_map(|role| self.roles.get(role)).flatten().any(permits)
    }

    /// `None`: the change is refused.
    fn after(&self, change: &Change) -> Option<Rules> {
        let mut after = self.clone();
        after.revision += 1;
        match change {
            Change::Enable => {
                self.users.get(ROOT).filter(|roles| roles.contains(ROOT))?;
                (after.enabled, after.revision) = (true, self.revision);
            }
            Change::Disable if !self.enabled => return Some(self.clone()),
            Change::Disable => after.enabled = false,
            Change::AddUser { name } => {
                after.users.insert(name.clone(), BTreeSet::new()).is_none().then_some(())?;
            }
            Change::AddRole { name } => {
                after.roles.insert(name.clone(), BTreeMap::new()).is_none().then_some(())?;
            }
            Change::GrantRole { user, role } => {
                if role != ROOT {
                    self.roles.get(role)?;
                }
                if !after.users.get_mut(user)?.insert(role.clone()) {
                    return Some(self.clone());
                }
            }
            Change::RevokeRole { user, role } => {
                after.users.get_mut(user)?.remove(role).then_some(())?;
            }
            Change::Permit { role, range, right } => {
                after.roles.get_mut(role)?.insert(range.clone(), right.clone());
            }
            Change::Forbid { role, range } => {
                after.roles.get_mut(role)?.remove(range)?;
            }
        }
        Some(after)
    }

    /// How many of these changes, asked for by then, lead from here to there.
    fn steps_to(&self, there: &Rules, asked: &[&Change], most: usize) -> Option<usize> {
        if self == there {
            return Some(0);
        }
        if most == 0 || self.revision > there.revision {
            return None;
        }
        let next = asked.iter().filter_map(|change| self.after(change)).filter(|next| next != self);
        next.filter_map(|next| next.steps_to(there, asked, most - 1)).min().map(|steps| steps + 1)
    }
}

/// The rules that members were seen to have.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By the least applied index at which a member was seen with them, and when somebody first was.
    rules: BTreeMap<u64, (u64, Rules)>,
    /// When which applied index was the highest of all members so far.
    highest: Vec<(u64, u64)>,
}

impl History {
    pub(crate) fn look(&mut self, now_ns: u64, applied_index: u64, rules: Rules) {
        if self.highest.last().is_none_or(|(_, highest)| *highest < applied_index) {
            self.highest.push((now_ns, applied_index));
        }
        if self.rules.range(..=applied_index).next_back().is_some_and(|(_, (_, known))| *known == rules) {
            return;
        }
        let later =
            self.rules.range(applied_index..).next().map(|(index, (at_ns, rules))| (*index, *at_ns, rules));
        let (later, seen_ns) = match later {
            Some((index, at_ns, known)) if *known == rules => (Some(index), at_ns),
            Some(_) | None => (None, now_ns),
        };
        if let Some(later) = later {
            self.rules.remove(&later);
        }
        self.rules.insert(applied_index, (seen_ns, rules));
    }

    /// What was applied on some member at that time.
    fn applied_by(&self, at_ns: u64) -> u64 {
        let position = self.highest.partition_point(|(seen_ns, _)| *seen_ns < at_ns);
        position.checked_sub(1).and_then(|last| self.highest.get(last)).map_or(0, |(_, index)| *index)
    }

    /// Answers how many calls were judged.
    pub(crate) fn check(&self, asked: &[Asked], tried: &[Tried]) -> Result<usize, String> {
        let rules: Vec<(u64, u64, &Rules)> =
            self.rules.iter().map(|(index, (at_ns, rules))| (*index, *at_ns, rules)).collect();
        let mut is_whole = Vec::new();
        for pair in rules.windows(2) {
            let [(_, _, before), (_, at_ns, after)] = pair else { continue };
            let by_then = asked.iter().filter(|one| one.call_ns <= *at_ns && one.done != Some(false));
            let changes: Vec<&Change> = by_then.map(|one| &one.change).collect();
            let steps = before
                .steps_to(after, &changes, 1)
                .map_or_else(|| before.steps_to(after, &changes, CHANGES_AT_ONCE_MAX), Some);
            let far = after.revision.saturating_sub(before.revision) >= CHANGES_AT_ONCE_MAX as u64;
            if steps.is_none() && !far {
                return Err(format!("nobody asked for what made {after:?} of {before:?}"));
            }
            is_whole.push(steps == Some(1));
        }
        for one in asked.iter().filter(|one| one.done == Some(true)) {
            self.acknowledged(one, &rules, &is_whole)?;
        }
        let mut judged = 0;
        for call in tried {
            let Some(candidates) = self.in_force(call.call_ns, call.return_ns, &rules, &is_whole) else {
                continue;
            };
            judged += 1;
            if !candidates.iter().any(|(_, _, rules)| rules.permit(call) == call.permitted) {
                let by: Vec<&Rules> = candidates.iter().map(|(_, _, rules)| *rules).collect();
                return Err(format!("member {} cannot answer so by {by:?}: {call:?}", call.member));
            }
        }
        Ok(judged)
    }

    /// What was in force at some time between these; `None`: not all of that was seen.
    fn in_force<'a>(
        &self,
        call_ns: u64,
        return_ns: u64,
        rules: &'a [(u64, u64, &'a Rules)],
        is_whole: &[bool],
    ) -> Option<&'a [(u64, u64, &'a Rules)]> {
        let position = |index: u64| rules.partition_point(|(at, _, _)| *at <= index);
        let first = position(self.applied_by(call_ns)).checked_sub(1)?;
        let last = position(self.applied_by(return_ns + LOOKS_EVERY_NS)).checked_sub(1)?;
        is_whole.get(first..last)?.iter().all(|whole| *whole).then(|| rules.get(first..=last)).flatten()
    }

    /// What was acknowledged has been done between the call and the answer, or was so already.
    fn acknowledged(
        &self,
        one: &Asked,
        rules: &[(u64, u64, &Rules)],
        is_whole: &[bool],
    ) -> Result<(), String> {
        let Some(candidates) = self.in_force(one.call_ns, one.return_ns, rules, is_whole) else {
            return Ok(());
        };
        let was_so = |(_, _, rules): &(u64, u64, &Rules)| rules.after(&one.change).as_ref() == Some(*rules);
        let is_done = |pair: &[(u64, u64, &Rules)]| match pair {
            [(_, _, before), (_, _, after)] => before.after(&one.change).as_ref() == Some(*after),
            _ => false,
        };
        match candidates.iter().any(was_so) || candidates.windows(2).any(is_done) {
            true => Ok(()),
            false => Err(format!("acknowledged, but no member was seen to have done {one:?}")),
        }
    }
}

/// Clients without a name: what they were told says whether they were permitted.
pub(crate) fn of_the_nameless(operations: &[Operation]) -> Vec<Tried> {
    let judged = |operation: &Operation| match &operation.outcome {
        Outcome::Done(_) => Some(true),
        Outcome::Refused(text) if text.contains(NAMELESS) => Some(false),
        Outcome::Refused(_) | Outcome::Unknown(_) => None,
    };
    let tried = |operation: &Operation| {
        Some(Tried {
            user: None,
            member: operation.member,
            key: operation.request.key(),
            writes: !matches!(operation.request, Request::Get { .. }),
            call_ns: operation.call_ns,
            return_ns: operation.return_ns,
            permitted: judged(operation)?,
        })
    };
    operations.iter().filter_map(tried).collect()
}

/// What somebody without a token is told.
pub(crate) const NAMELESS: &str = "user name is empty";
/// What those are told who have a name and not the right.
pub(crate) const DENIED: &str = "permission denied";

#[cfg(test)]
mod tests;
