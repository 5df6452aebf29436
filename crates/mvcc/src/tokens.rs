//! Which digests of login tokens belong to whom: what the log said since this store began.
//!
//! Invariants: bounded; follows the log alone, so members that applied the same entries hold the same; never saved and
//! no part of the state hash, so a member that restarted or installed a snapshot knows fewer tokens, never others.
//! Not here: the tokens themselves, which the log must not hold, and when they expire (each member's own clock).

use std::collections::BTreeMap;

/// A digest of a token, as whoever issued it made it.
pub type TokenDigest = [u8; 32];

/// Tokens known at a time, a few megabytes. At this many a new one costs the user with the most tokens its oldest.
const TOKENS_MAX: usize = 65_536;

/// What is known about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenView {
    /// The user who logged in.
    pub name: String,
    /// Grows from token to token, also over a store that takes the place of another one (`Store::succeed`).
    pub serial: u64,
}

pub(crate) struct Tokens {
    known: BTreeMap<TokenDigest, TokenView>,
    /// The same by user and age.
    by_user: BTreeMap<String, BTreeMap<u64, TokenDigest>>,
    next_serial: u64,
    tokens_max: usize,
}

impl Default for Tokens {
    fn default() -> Tokens {
        Tokens { known: BTreeMap::new(), by_user: BTreeMap::new(), next_serial: 0, tokens_max: TOKENS_MAX }
    }
}

impl Tokens {
    /// A digest that is already known, which no honest issuer offers, changes nothing.
    pub(crate) fn insert(&mut self, name: &str, digest: TokenDigest) {
        if self.known.contains_key(&digest) {
            return;
        }
        if self.known.len() >= self.tokens_max {
            self.remove_one();
        }
        let serial = self.next_serial;
        self.next_serial += 1;
        self.known.insert(digest, TokenView { name: name.to_owned(), serial });
        self.by_user.entry(name.to_owned()).or_default().insert(serial, digest);
    }

    /// The oldest of the user with the most; of several such users, the first by name.
    fn remove_one(&mut self) {
        let most = self.by_user.values().map(BTreeMap::len).max();
        let Some((name, own)) = self.by_user.iter_mut().find(|(_, own)| Some(own.len()) == most) else {
            return;
        };
        if let Some((_, digest)) = own.pop_first() {
            self.known.remove(&digest);
        }
        if own.is_empty() {
            let name = name.clone();
            self.by_user.remove(&name);
        }
    }

    pub(crate) fn remove_user(&mut self, name: &str) {
        for digest in self.by_user.remove(name).unwrap_or_default().values() {
            self.known.remove(digest);
        }
    }

    /// Serials go on: an old one must not come to mean a new token.
    pub(crate) fn clear(&mut self) {
        self.known.clear();
        self.by_user.clear();
    }

    pub(crate) fn get(&self, digest: &TokenDigest) -> Option<&TokenView> {
        self.known.get(digest)
    }

    pub(crate) fn next_serial(&self) -> u64 {
        self.next_serial
    }

    /// Serials from here on, if there were none as high.
    pub(crate) fn begin_at(&mut self, serial: u64) {
        self.next_serial = self.next_serial.max(serial);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_the_most_tokens_pays_for_a_new_one() {
        let mut tokens = Tokens { tokens_max: 4, ..Tokens::default() };
        for (name, digest) in [("ana", 1), ("bob", 2), ("bob", 3), ("bob", 4), ("cid", 5), ("cid", 6)] {
            tokens.insert(name, [digest; 32]);
            tokens.insert(name, [digest; 32]);
        }
        let known: Vec<u8> = (1..=6).filter(|digest| tokens.get(&[*digest; 32]).is_some()).collect();
        assert_eq!(known, [1, 4, 5, 6]);
        tokens.remove_user("cid");
        assert_eq!(tokens.get(&[5; 32]), None);
        assert_eq!(tokens.get(&[1; 32]), Some(&TokenView { name: "ana".to_owned(), serial: 0 }));
        tokens.clear();
        tokens.insert("ana", [7; 32]);
        assert_eq!(tokens.get(&[7; 32]).map(|token| token.serial), Some(6));
        assert_eq!(tokens.get(&[1; 32]), None);

        let mut installed = Tokens::default();
        installed.begin_at(tokens.next_serial());
        installed.insert("ana", [8; 32]);
        assert_eq!(installed.get(&[8; 32]).map(|token| token.serial), Some(7), "no serial comes twice");
    }
}
