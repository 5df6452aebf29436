//! Who is calling: certificate, then bearer token, then anonymous.
//!
//! Invariants: the first proof that holds decides; a proof that was offered and does not hold never becomes
//! anonymous, it is refused; every proven caller is in `system:authenticated`. Not here: what the caller may do.

mod csv;
mod token_file;
pub(crate) mod x509;

use std::path::PathBuf;

use http::header::{AUTHORIZATION, HeaderMap};
use http::request::Parts;

use crate::chain::Origin;
use crate::tls::TlsError;
use crate::user::{ANONYMOUS, GROUP_AUTHENTICATED};
use crate::{Config, User};

use token_file::TokenFile;
use x509::ClientAuthority;

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("--client-ca-file: {0}")]
    ClientAuthority(#[from] TlsError),
    #[error("--client-ca-file: {0}")]
    ClientVerifier(#[from] rustls::server::VerifierBuilderError),
    #[error("--client-ca-file: cannot read {path}: {source}")]
    AuthorityText {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--token-auth-file: cannot read {path}: {source}")]
    TokenFile {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("--token-auth-file: {path}, line {line}: {why}")]
    TokenLine { path: PathBuf, line: usize, why: String },
}

/// Why nobody was recognised; for logs and the audit record, never for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Refusal {
    /// `x509`, `bearer`, ...: what the request offered.
    pub(crate) attempted: Vec<&'static str>,
    pub(crate) why: String,
}

pub(crate) struct Authenticator {
    authority: Option<ClientAuthority>,
    tokens: Option<TokenFile>,
    anonymous: bool,
}

impl Authenticator {
    pub(crate) fn new(config: &Config) -> Result<Authenticator, CredentialsError> {
        Ok(Authenticator {
            authority: config.client_ca_file.as_deref().map(ClientAuthority::read).transpose()?,
            tokens: config.token_auth_file.as_deref().map(TokenFile::read).transpose()?,
            anonymous: config.anonymous_auth,
        })
    }

    pub(crate) fn authenticate(&self, origin: &Origin, parts: &Parts) -> Result<User, Refusal> {
        let certificates = match origin {
            Origin::InProcess(user) => return Ok(user.clone()),
            Origin::Network { certificates, .. } => certificates,
        };
        let mut failures = Vec::new();
        if let Some(authority) = &self.authority {
            match authority.user(certificates) {
                Ok(Some(user)) => return Ok(proven(user)),
                Ok(None) => {}
                Err(why) => failures.push(why),
            }
        }
        if let Some(token) = bearer_token(&parts.headers) {
            match self.tokens.as_ref().and_then(|tokens| tokens.user(token)) {
                Some(user) => return Ok(proven(user)),
                None => failures.push("invalid bearer token".to_string()),
            }
        }
        if failures.is_empty() && self.anonymous {
            return Ok(User::anonymous());
        }
        if failures.is_empty() {
            failures.push("no credentials provided".to_string());
        }
        Err(Refusal {
            attempted: attempted(certificates.is_empty(), &parts.headers),
            why: failures.join("; "),
        })
    }

    /// The text of `--client-ca-file`.
    pub(crate) fn authority_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(ClientAuthority::pem)
    }

    /// The user of a token, for TokenReview.
    pub(crate) fn review_token(&self, token: &str) -> Option<User> {
        self.tokens.as_ref().and_then(|tokens| tokens.user(token)).map(proven)
    }
}

fn proven(mut user: User) -> User {
    if user.name != ANONYMOUS && !user.is_in(GROUP_AUTHENTICATED) {
        user.groups.push(GROUP_AUTHENTICATED.to_string());
    }
    user
}

/// The token of `Authorization: Bearer <token>`.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut words = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().splitn(3, ' ');
    let is_bearer = words.next()?.eq_ignore_ascii_case("bearer");
    words.next().filter(|token| is_bearer && !token.is_empty())
}

/// What the request offered, as upstream's audit message lists it.
fn attempted(without_certificate: bool, headers: &HeaderMap) -> Vec<&'static str> {
    let mut attempted = Vec::new();
    let scheme = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    match scheme.split_once(' ').map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
        Some("basic") => attempted.push("basic"),
        Some("bearer") => attempted.push("bearer"),
        _ => {}
    }
    if !without_certificate {
        attempted.push("x509");
    }
    attempted
}

#[cfg(test)]
mod tests;
