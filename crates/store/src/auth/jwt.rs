//! `--auth-token jwt,...`: signed tokens that every member checks by a key, without having seen them before.
//!
//! Claims as in etcd: `username`, `revision` (of users and roles when it was made) and `exp` in seconds since 1970. A
//! token signed by another method than the configured one is refused before its signature is looked at. A public key
//! alone verifies only. No maintained JWT library fits our crypto backend, so the compact form is read here and the
//! cryptography is ring's.

mod keys;

use std::{
    fmt, fs,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::config::parse_duration;
use keys::Keys;

/// Longest token that is looked at.
const TOKEN_SIZE_BYTES_MAX: usize = 4096;
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);

/// Why `--auth-token` cannot be used; etcd's texts where it has one.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    #[error("auth: invalid auth options")]
    Options,
    #[error("auth: invalid auth signature method")]
    Method,
    #[error("auth: missing key data")]
    MissingKey,
    #[error("auth: public and private keys don't match")]
    KeyMismatch,
    #[error("{method} is not supported by this store, use ES256 or ES384")]
    Unsupported { method: &'static str },
    #[error("open {path}: {source}", path = .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("key is not a valid {kind} {what} key")]
    WrongKey { kind: &'static str, what: &'static str },
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    #[error("the token could not be signed")]
    Sign,
}

/// A way of signing. Names as in RFC 7518.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

const METHODS: &[(&str, Method)] = &[
    ("HS256", Method::Hs256),
    ("HS384", Method::Hs384),
    ("HS512", Method::Hs512),
    ("RS256", Method::Rs256),
    ("RS384", Method::Rs384),
    ("RS512", Method::Rs512),
    ("PS256", Method::Ps256),
    ("PS384", Method::Ps384),
    ("PS512", Method::Ps512),
    ("ES256", Method::Es256),
    ("ES384", Method::Es384),
    ("EdDSA", Method::EdDsa),
];

/// Whose token it is, and the revision of users and roles that it was made at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub name: String,
    pub auth_revision: u64,
}

/// Makes and checks tokens.
pub struct Jwt {
    name: &'static str,
    keys: Keys,
    lifetime: Duration,
}

impl fmt::Debug for Jwt {
    /// Without keys.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Jwt({})", self.name)
    }
}

impl Jwt {
    /// Reads what follows `jwt,`: `pub-key=FILE,priv-key=FILE,sign-method=NAME,ttl=5m`.
    pub(crate) fn from_options(options: &str) -> Result<Jwt, JwtError> {
        let (mut public, mut private, mut method, mut lifetime) = (None, None, "", LIFETIME_DEFAULT);
        for option in options.split(',') {
            match option.split_once('=').ok_or(JwtError::Options)? {
                ("pub-key", path) => public = read(path)?,
                ("priv-key", path) => private = read(path)?,
                ("sign-method", name) => method = name,
                ("ttl", "") => {}
                ("ttl", text) => lifetime = parse_duration(text).ok_or(JwtError::Options)?,
                // etcd warns of others and goes on.
                _ => {}
            }
        }
        if method == "ES512" {
            return Err(JwtError::Unsupported { method: "ES512" });
        }
        let (name, method) = METHODS.iter().find(|row| row.0 == method).ok_or(JwtError::Method)?;
        let keys = Keys::new(*method, public.as_deref(), private.as_deref())?;
        Ok(Jwt { name, keys, lifetime })
    }

    pub(crate) fn issue(&self, name: &str, auth_revision: u64) -> Result<String, JwtError> {
        self.issue_at(name, auth_revision, now_s())
    }

    fn issue_at(&self, name: &str, auth_revision: u64, now_s: u64) -> Result<String, JwtError> {
        let header = json!({"alg": self.name, "typ": "JWT"}).to_string();
        let expiry_s = now_s.saturating_add(self.lifetime.as_secs());
        let claims = json!({"exp": expiry_s, "revision": auth_revision, "username": name}).to_string();
        let body = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.keys.sign(body.as_bytes())?;
        Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// None if the token is not genuine or too old.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        self.verify_at(token, now_s())
    }

    fn verify_at(&self, token: &str, now_s: u64) -> Option<Claims> {
        if token.len() > TOKEN_SIZE_BYTES_MAX {
            return None;
        }
        let (body, signature) = token.rsplit_once('.')?;
        let (header, claims) = body.split_once('.')?;
        let tree =
            |text| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
        if tree(header)?.get("alg")?.as_str()? != self.name {
            return None;
        }
        if !self.keys.verifies(body.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?) {
            return None;
        }
        let claims = tree(claims)?;
        // Go writes numbers of other makers as floats.
        let number = |name: &str| {
            let number = claims.get(name)?;
            number
                .as_u64()
                .or_else(|| number.as_f64().filter(|float| *float >= 0.0).map(|float| float as u64))
        };
        let name = claims.get("username")?.as_str()?.to_owned();
        let fresh = number("exp")? >= now_s && claims.get("nbf").is_none_or(|_| number("nbf") <= Some(now_s));
        fresh.then_some(Claims { name, auth_revision: number("revision")? })
    }
}

/// The file's bytes; none if no file is named.
fn read(path: &str) -> Result<Option<Vec<u8>>, JwtError> {
    if path.is_empty() {
        return Ok(None);
    }
    fs::read(path).map(Some).map_err(|source| JwtError::Read { path: path.into(), source })
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests;
