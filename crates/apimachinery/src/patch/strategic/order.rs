//! The order of a merged list.
//!
//! Items that the patch names keep the patch's order; the others keep the live order and are put back between them
//! where the live list had them, as far as that is possible.

use std::collections::BTreeMap;

use super::PatchError;
use crate::Value;
use crate::patch::apply::path::Scalar;

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

    /// Where each item stands first.
    fn positions(&self, list: &[Value]) -> BTreeMap<Scalar, usize> {
        let mut positions = BTreeMap::new();
        for (index, item) in list.iter().enumerate() {
            if let Some(identity) = self.identity(item) {
                positions.entry(Scalar(identity.clone())).or_insert(index);
            }
        }
        positions
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
    let (wanted, live) = (items.positions(wanted), items.positions(live));
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let identity = Scalar(items.required(&item)?.clone());
        let place = live.get(&identity).copied();
        match wanted.get(&identity) {
            Some(order) => named.push((*order, place, item)),
            // what neither list has goes last
            None => others.push((place.unwrap_or(usize::MAX), item)),
        }
    }
    named.sort_by_key(|(order, ..)| *order);
    others.sort_by_key(|(place, _)| *place);
    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, place, item) in named {
        while let Some((_, other)) = others.next_if(|(other, _)| place.is_some_and(|place| *other < place)) {
            arranged.push(other);
        }
        arranged.push(item);
    }
    arranged.extend(others.map(|(_, item)| item));
    Ok(arranged)
}
