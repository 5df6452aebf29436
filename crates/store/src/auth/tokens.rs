//! Simple tokens: random letters that mean nothing by themselves, `LETTERS.INDEX`.
//!
//! A login draws a token and puts the digest of its letters into the log, so every member comes to know it and nobody
//! who reads a log, a snapshot or a backup can use it. INDEX is a place in the log by which it is known: a member that
//! is not there yet waits for it a moment. Whoever has not heard of a digest (after a restart, after a snapshot)
//! refuses it, and clients log in again. As in etcd a token lives for a time after its last use on the member that is
//! asked; each member has its own clock for that, which starts when it heard of the token.
//! With `--auth-token jwt` tokens are those of jwt.rs instead.
//! Not here: what the log knows (mvcc's tokens.rs).

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use mvcc::{TokenDigest, TokenView};
use parking_lot::Mutex;
use rand::{TryRngCore as _, rngs::OsRng};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::jwt::{Claims, Jwt};
use crate::context::Own;

/// Longest token that is looked at.
const TOKEN_SIZE_BYTES_MAX: usize = 4096;
/// 52 letters each: 136 bits.
const LETTERS: usize = 24;
/// Life of a token when the flag says none. Source: etcd server/auth/simple_token.go `simpleTokenTTLDefault`.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);
/// How exactly the time is known at which a member heard of a token. Source: the same, `simpleTokenTTLResolution`.
const RESOLUTION: Duration = Duration::from_secs(1);

pub(crate) struct Tokens {
    pub jwt: Option<Arc<Jwt>>,
    simple: Mutex<Ages>,
}

/// A token that was looked at.
pub(crate) enum Proof {
    /// Its signature is right and its time not over.
    Signed(Claims),
    /// Perhaps the digest is known.
    Simple(TokenDigest),
}

/// A new token, to be shown to nobody but the client that asked for it.
pub(crate) struct Token {
    letters: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

/// The system has no random bytes to give.
#[derive(Debug, thiserror::Error)]
#[error("auth: cannot generate a token")]
pub(crate) struct NoRandom;

impl Token {
    pub(crate) fn draw() -> Result<Token, NoRandom> {
        let mut letters = String::with_capacity(LETTERS);
        while letters.len() < LETTERS {
            let mut bytes = [0; 2 * LETTERS];
            // As all randomness through `rand`, behind which a simulation puts its own.
            OsRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandom)?;
            letters.extend(bytes.into_iter().filter_map(letter).take(LETTERS - letters.len()));
        }
        Ok(Token { letters })
    }

    pub(crate) fn digest(&self) -> TokenDigest {
        digest(&self.letters)
    }

    /// What the client gets, once the digest is known by the log at `index`.
    pub(crate) fn text(&self, index: u64) -> String {
        format!("{}.{index}", self.letters)
    }
}

/// Every letter from equally many bytes; the bytes that are left over give none.
fn letter(byte: u8) -> Option<char> {
    match byte % 52 {
        _ if byte >= 208 => None,
        lower @ 0..26 => Some(char::from(b'a' + lower)),
        upper => Some(char::from(b'A' + upper - 26)),
    }
}

fn digest(letters: &str) -> TokenDigest {
    Sha256::digest(letters).into()
}

/// Splits `LETTERS.INDEX`.
pub(crate) fn parse(token: &str) -> Option<(&str, u64)> {
    if token.len() > TOKEN_SIZE_BYTES_MAX {
        return None;
    }
    let (letters, index) = token.split_once('.')?;
    Some((letters, index.parse().ok()?))
}

impl Tokens {
    /// A lifetime of zero means the default, as in etcd.
    pub(crate) fn new(lifetime: Duration, jwt: Option<Arc<Jwt>>) -> Tokens {
        let lifetime = if lifetime.is_zero() { LIFETIME_DEFAULT } else { lifetime };
        Tokens { jwt, simple: Mutex::new(Ages::new(lifetime)) }
    }

    /// By which index of the log the token is known to every member that knows it.
    pub(crate) fn index(&self, token: &str) -> Option<u64> {
        if self.jwt.is_some() { None } else { parse(token).map(|(_, index)| index) }
    }

    /// What can be said of a token without knowing the users; may take long. `None`: it is not genuine.
    pub(crate) fn examine(&self, token: &str) -> Option<Proof> {
        match &self.jwt {
            Some(jwt) => jwt.verify(token).map(Proof::Signed),
            None => parse(token).map(|(letters, _)| Proof::Simple(digest(letters))),
        }
    }

    /// Whose token it is, if it is known and not too old. A simple token counts as made at `auth_revision`.
    pub(crate) fn claims<'a>(
        &self,
        proof: Proof,
        auth_revision: u64,
        known: impl FnOnce(&TokenDigest) -> Option<&'a TokenView>,
    ) -> Option<Claims> {
        let digest = match proof {
            Proof::Signed(claims) => return Some(claims),
            Proof::Simple(digest) => digest,
        };
        let view = known(&digest)?;
        let lives = self.simple.lock().touch(digest, view.serial, Instant::now());
        lives.then(|| Claims { name: view.name.clone(), auth_revision })
    }
}

/// Notes when this member heard of which tokens, until it stops.
pub(crate) async fn keep(own: Own) {
    let mut ticks = tokio::time::interval(RESOLUTION);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = own.context.shutdown.cancelled() => return,
        }
        let next_serial = own.handle.read(|store, _| store.next_token_serial());
        own.context.tokens.simple.lock().observe(next_serial, Instant::now());
    }
}

/// How old tokens are on this member. Serials only grow, also when a snapshot takes the place of the store.
struct Ages {
    lifetime: Duration,
    /// When serials below a number were first seen to exist: ascending in both.
    seen: VecDeque<(Instant, u64)>,
    /// Tokens with smaller serials are old unless they were used since.
    old_below: u64,
    /// Last use.
    used: HashMap<TokenDigest, Instant>,
}

impl Ages {
    fn new(lifetime: Duration) -> Ages {
        Ages { lifetime, seen: VecDeque::new(), old_below: 0, used: HashMap::new() }
    }

    /// The highest number of tokens that was seen.
    fn newest(&self) -> u64 {
        self.seen.back().map_or(self.old_below, |(_, below)| *below)
    }

    fn observe(&mut self, next_serial: u64, now: Instant) {
        if next_serial != self.newest() {
            self.seen.push_back((now, next_serial));
        }
        while let Some((at, below)) = self.seen.front()
            && *at + self.lifetime <= now
        {
            self.old_below = *below;
            self.seen.pop_front();
        }
        self.used.retain(|_, at| *at + self.lifetime > now);
    }

    /// Whether the token may still be used; if so, its time begins anew.
    fn touch(&mut self, digest: TokenDigest, serial: u64, now: Instant) -> bool {
        let born = || match self.seen.iter().find(|(_, below)| *below > serial) {
            _ if serial < self.old_below => None,
            Some((at, _)) => Some(*at),
            // Nobody has looked since it came.
            None => Some(now),
        };
        let since = self.used.get(&digest).copied().or_else(born);
        let lives = since.is_some_and(|since| since + self.lifetime > now);
        if lives {
            self.used.insert(digest, now);
        }
        lives
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn tokens_are_letters_and_an_index_and_never_the_same() {
        let mut drawn = HashSet::new();
        for _ in 0..1000 {
            let token = Token::draw().unwrap();
            let text = token.text(7);
            let (letters, index) = parse(&text).unwrap();
            assert!(letters.len() == LETTERS && letters.chars().all(|letter| letter.is_ascii_alphabetic()));
            assert_eq!((index, digest(letters)), (7, token.digest()));
            assert!(drawn.insert(text));
        }
        for junk in ["", "a", "a.", "a.b", "a.-1", &format!("{}.1", "x".repeat(5000))] {
            assert_eq!(parse(junk), None, "{junk}");
        }
    }

    #[test]
    fn a_token_lives_for_its_time_after_the_last_use() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut ages = Ages::new(Duration::from_secs(10));
        ages.observe(0, at(0));
        // Tokens 0 and 1; the first is used before it was seen to exist, then each second.
        for second in 1..40 {
            assert!(ages.touch([0; 32], 0, at(second)), "{second}");
            ages.observe(2, at(second));
        }
        assert!(!ages.touch([1; 32], 1, at(40)), "nobody has used it for its time");
        ages.observe(2, at(48));
        assert!(ages.touch([0; 32], 0, at(48)), "9 s after the last use");
        ages.observe(2, at(58));
        assert!(!ages.touch([0; 32], 0, at(58)), "10 s after the last use");
        assert!(ages.used.is_empty(), "{:?}", ages.used);

        ages.observe(3, at(60));
        assert!(ages.touch([2; 32], 2, at(69)), "never used, 9 s old");
    }
}
