//! The order of a merged list.
//!
//! Items that the patch names keep the patch's order; the others keep the live order and are put back between them
//! where the live list had them, as far as that is possible.

use std::cmp::Ordering;

use super::PatchError;
use crate::Value;

/// How items of a list are told apart: by a member, or by themselves.
pub(super) struct Items<'k> {
    merge_key: Option<&'k str>,
}

impl<'k> Items<'k> {
    pub(super) fn new(merge_key: Option<&'k str>) -> Items<'k> {
        Items { merge_key }
    }

    fn identity<'v>(&self, item: &'v Value) -> Option<&'v Value> {
        match self.merge_key {
            Some(key) => item.get(key),
            None => Some(item),
        }
    }

    fn required<'v>(&self, item: &'v Value) -> Result<&'v Value, PatchError> {
        let missing = || {
            let key = self.merge_key.unwrap_or_default();
            PatchError::BadRequest(format!("map: {item} does not contain declared merge key: {key}"))
        };
        self.identity(item).ok_or_else(missing)
    }

    fn position(&self, list: &[Value], item: &Value) -> Option<usize> {
        let identity = self.identity(item)?;
        list.iter().position(|other| self.identity(other) == Some(identity))
    }

    /// The items of the patch must stand in the order list, in the same relative order; deletions are ignored.
    pub(super) fn check_order(&self, patch: &[Value], order: &[Value]) -> Result<(), PatchError> {
        let mut rest = order.iter();
        for item in patch.iter().filter(|item| item.get("$patch").is_none()) {
            let identity = self.required(item)?;
            if order.is_empty() || rest.any(|named| self.identity(named) == Some(identity)) {
                continue;
            }
            let (patch, order) = (Value::from(patch.to_vec()), Value::from(order.to_vec()));
            return Err(PatchError::BadRequest(format!(
                "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
            )));
        }
        Ok(())
    }
}

/// Orders `merged`: items of `wanted` in its order, the others where `live` had them.
pub(super) fn arrange(
    items: &Items<'_>,
    merged: Vec<Value>,
    wanted: &[Value],
    live: &[Value],
) -> Result<Vec<Value>, PatchError> {
    for item in &merged {
        items.required(item)?;
    }
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| items.position(wanted, item).is_some());
    sort_by(items, &mut named, wanted);
    sort_by(items, &mut others, live);
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for item in named {
        let place = items.position(live, &item);
        while let Some(other) = others.peek() {
            let before = match (items.position(live, other), place) {
                (Some(other), Some(place)) => other < place,
                _ => false,
            };
            if !before {
                break;
            }
            arranged.extend(others.next());
        }
        arranged.push(item);
    }
    arranged.extend(others);
    Ok(arranged)
}

/// Stable; items that `order` does not have go last.
fn sort_by(items: &Items<'_>, list: &mut [Value], order: &[Value]) {
    list.sort_by(|a, b| match (items.position(order, a), items.position(order, b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    });
}
