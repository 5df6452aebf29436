//! Tokens that every member can check without having seen them before.
//!
//! `NAME.EXPIRY.MAC`: the user's name in base64, seconds since 1970 in decimal, and an HMAC-SHA256 of both in base64.
//! The key is the user's replicated password hash, so a token dies with a changed password or a deleted user, and a
//! member that has just restarted still takes it. etcd keeps its simple tokens in memory and slides their end; clients
//! of either get a new one when told `invalid auth token`. With `--auth-token jwt` they are those of jwt.rs instead.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use mvcc::UserView;
use sha2::Sha256;

use super::jwt::{Claims, Jwt, JwtError};

/// Longest token that is looked at.
const TOKEN_SIZE_BYTES_MAX: usize = 4096;

pub(crate) struct Tokens {
    lifetime: Duration,
    jwt: Option<Arc<Jwt>>,
}

impl Tokens {
    pub(crate) fn new(lifetime: Duration, jwt: Option<Arc<Jwt>>) -> Tokens {
        Tokens { lifetime, jwt }
    }

    /// A token for a user whose password was just verified, when users and roles were at `auth_revision`.
    pub(crate) fn issue(&self, user: &UserView, auth_revision: u64) -> Result<String, JwtError> {
        match &self.jwt {
            Some(jwt) => jwt.issue(&user.name, auth_revision),
            None => Ok(self.issue_at(user, now_s())),
        }
    }

    fn issue_at(&self, user: &UserView, now_s: u64) -> String {
        let body = format!("{}.{}", URL_SAFE_NO_PAD.encode(&user.name), now_s + self.lifetime.as_secs());
        let mac = URL_SAFE_NO_PAD.encode(signer(user, &body).finalize().into_bytes());
        format!("{body}.{mac}")
    }

    /// Whose token it is, if it is genuine and not too old. A simple token counts as made at `auth_revision`.
    pub(crate) fn verify(
        &self,
        token: &str,
        auth_revision: u64,
        user: impl FnOnce(&str) -> Option<UserView>,
    ) -> Option<Claims> {
        match &self.jwt {
            Some(jwt) => jwt.verify(token),
            None => verify_at(token, user, now_s()).map(|name| Claims { name, auth_revision }),
        }
    }
}

fn verify_at(token: &str, user: impl FnOnce(&str) -> Option<UserView>, now_s: u64) -> Option<String> {
    if token.len() > TOKEN_SIZE_BYTES_MAX {
        return None;
    }
    let (body, mac) = token.rsplit_once('.')?;
    let (name, expiry_s) = body.split_once('.')?;
    let name = String::from_utf8(URL_SAFE_NO_PAD.decode(name).ok()?).ok()?;
    let user = user(&name).filter(|user| !user.no_password)?;
    signer(&user, body).verify_slice(&URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
    (expiry_s.parse::<u64>().ok()? >= now_s).then_some(name)
}

fn signer(user: &UserView, body: &str) -> Hmac<Sha256> {
    #[allow(clippy::expect_used)] // HMAC takes keys of every length
    let mut signer =
        Hmac::<Sha256>::new_from_slice(&user.password_hash).expect("a key of any length is valid");
    signer.update(body.as_bytes());
    signer
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, hash: &'static str) -> UserView {
        UserView { name: name.to_owned(), password_hash: hash.into(), no_password: false, roles: Vec::new() }
    }

    #[test]
    fn only_a_genuine_fresh_token_of_a_living_user_is_taken() {
        let tokens = Tokens::new(Duration::from_secs(300), None);
        let token = tokens.issue_at(&user("ana", "hash"), 1000);
        let check = |token: &str, hash: Option<&'static str>, now_s| {
            verify_at(token, |name| hash.map(|hash| user(name, hash)), now_s)
        };
        assert_eq!(check(&token, Some("hash"), 1300).as_deref(), Some("ana"));
        assert_eq!(check(&token, Some("hash"), 1301), None, "too old");
        assert_eq!(check(&token, Some("other"), 1000), None, "the password was changed");
        assert_eq!(check(&token, None, 1000), None, "the user was deleted");
        let forged = tokens.issue_at(&user("root", "guess"), 1000);
        assert_eq!(check(&forged, Some("hash"), 1000), None, "signed with another key");
        for junk in ["", ".", "..", "a.b.c", &"x".repeat(5000), &token[1..]] {
            assert_eq!(check(junk, Some("hash"), 1000), None, "{junk}");
        }
    }
}
