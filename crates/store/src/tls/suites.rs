//! `--cipher-suites`: Go's names, and what this TLS library offers of them.
//!
//! As in Go the list is about TLS 1.2: those of TLS 1.3 are always on. Names that Go knows and this library leaves out
//! for being weak are skipped: what is not offered cannot be chosen.

use rustls::{
    CipherSuite, SupportedCipherSuite,
    crypto::{CryptoProvider, ring},
};

/// Go's other names. Source: crypto/tls/cipher_suites.go.
const WEAK: &[&str] = &[
    "TLS_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
];

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SuiteError {
    #[error("unexpected TLS cipher suite {0:?}")]
    Unknown(String),
    #[error("none of these cipher suites is offered by this store")]
    NoneOffered,
}

/// Reads a comma-separated list; empty means all that there are.
pub(crate) fn parse_suites(text: &str) -> Result<Vec<CipherSuite>, SuiteError> {
    let names: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let offered = ring::default_provider().cipher_suites;
    let mut suites = Vec::new();
    for name in &names {
        // Go's constants for these two lack the hash.
        let full =
            if name.ends_with("CHACHA20_POLY1305") { format!("{name}_SHA256") } else { (*name).to_owned() };
        let go_13 = format!("TLS13_{}", full.trim_start_matches("TLS_"));
        let found = offered.iter().map(SupportedCipherSuite::suite).find(|suite| {
            let known = format!("{suite:?}");
            known == full || known == go_13
        });
        match found {
            Some(suite) => suites.push(suite),
            None if WEAK.contains(name) => {}
            None => return Err(SuiteError::Unknown((*name).to_owned())),
        }
    }
    if suites.is_empty() && !names.is_empty() {
        return Err(SuiteError::NoneOffered);
    }
    Ok(suites)
}

/// The cryptography of a connection, restricted to the chosen suites in their order; none chosen means all.
pub(super) fn provider(chosen: &[CipherSuite]) -> CryptoProvider {
    let mut provider = ring::default_provider();
    if !chosen.is_empty() {
        let all = std::mem::take(&mut provider.cipher_suites);
        provider.cipher_suites.extend(all.iter().filter(|suite| suite.tls13().is_some()));
        let older = chosen.iter().filter_map(|name| all.iter().find(|suite| suite.suite() == *name));
        provider.cipher_suites.extend(older.filter(|suite| suite.tls13().is_none()));
    }
    provider
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_names_are_known_and_weak_suites_are_not_offered() {
        for (text, answer) in [
            ("", Ok(0)),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_RSA_WITH_RC4_128_SHA", Ok(1)),
            ("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,TLS_AES_128_GCM_SHA256", Ok(2)),
            ("TLS_RSA_WITH_RC4_128_SHA", Err("none of these cipher suites is offered by this store")),
            ("TLS_BOGUS", Err("unexpected TLS cipher suite \"TLS_BOGUS\"")),
        ] {
            let read = parse_suites(text).map(|list| list.len()).map_err(|error| error.to_string());
            assert_eq!(
                read.as_ref().map_err(String::as_str),
                answer.as_ref().map_err(|text| *text),
                "{text}"
            );
        }
        let one = provider(&parse_suites("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256").unwrap());
        let older = one.cipher_suites.iter().filter(|suite| suite.tls13().is_none()).count();
        assert_eq!((older, one.cipher_suites.len()), (1, 4));
    }
}
