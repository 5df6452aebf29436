//! Certificates of the listeners, read from the files that the flags name.
//!
//! Invariants: a file that changes takes effect at the next handshake, and a changed file that cannot be used leaves what
//! was read before in force. Not here: who a certificate's owner may be (tls/guard.rs), certificates that a member makes
//! itself (tls/self_signed.rs).

pub(crate) mod guard;
mod reload;
pub(crate) mod self_signed;
mod suites;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    server::{VerifierBuilderError, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use wire::{AcceptAny, Anchors, ServerVerifier};

use crate::config::{TlsFiles, TlsRules, TlsVersions};
pub(crate) use reload::Reloading;
pub(crate) use suites::parse_suites;

/// Why TLS cannot be set up; names the file.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {what} file {path}: {source}", path = .path.display())]
    Read { what: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} file {path} has no {what} in PEM form", path = .path.display())]
    NotPem { what: &'static str, path: PathBuf },
    #[error("revocation list {path} cannot be parsed", path = .path.display())]
    NotCrl { path: PathBuf },
    #[error("certificate file {path} cannot be used: {source}", path = .path.display())]
    Unusable { path: PathBuf, source: rustls::Error },
    #[error("authority file {path} cannot be used: {source}", path = .path.display())]
    Authority { path: PathBuf, source: VerifierBuilderError },
    #[error("TLS with peers needs --peer-trusted-ca-file to know whom to trust")]
    NoPeerAuthority,
    #[error("cannot make a certificate in {path}: {source}", path = .path.display())]
    SelfSign { path: PathBuf, source: rcgen::Error },
    #[error("cannot write {path}: {source}", path = .path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// TLS of a listener; its files are looked at again before each handshake.
pub(crate) fn server(
    files: &TlsFiles,
    rules: &TlsRules,
    http1: bool,
) -> Result<Arc<Reloading<ServerConfig>>, TlsError> {
    let (watched, files, rules) = (paths(files), files.clone(), rules.clone());
    Reloading::new(watched, move || read_server(&files, &rules, http1))
}

/// TLS towards peers: shows the same certificate that this member's peer listener has.
pub(crate) fn peer_client(
    files: &TlsFiles,
    rules: &TlsRules,
) -> Result<Arc<Reloading<ClientConfig>>, TlsError> {
    let (watched, files, rules) = (paths(files), files.clone(), rules.clone());
    Reloading::new(watched, move || read_peer_client(&files, &rules))
}

fn paths(files: &TlsFiles) -> Vec<PathBuf> {
    let mut paths = vec![files.cert_file.clone(), files.key_file.clone()];
    paths.extend(files.trusted_ca_file.clone());
    paths.extend(files.crl_file.clone());
    paths
}

/// TLS for a listener that speaks HTTP/2 and, if `http1`, HTTP/1.1. Like etcd, it asks for a client's certificate when
/// an authority is given or `client_cert_auth` is set.
fn read_server(files: &TlsFiles, rules: &TlsRules, http1: bool) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(suites::provider(&rules.cipher_suites));
    let unusable = |source| TlsError::Unusable { path: files.cert_file.clone(), source };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(protocol(rules.versions))
        .map_err(unusable)?;
    let builder = match &files.trusted_ca_file {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let (anchors, roots) = authorities(path)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|source| TlsError::Authority { path: path.clone(), source })?;
            builder.with_client_cert_verifier(guard::ClientGuard::new(verifier, anchors, files)?)
        }
    };
    let mut config =
        builder.with_single_cert(certificates(&files.cert_file)?, key(&files.key_file)?).map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    if http1 {
        config.alpn_protocols.push(b"http/1.1".to_vec());
    }
    Ok(config)
}

fn read_peer_client(files: &TlsFiles, rules: &TlsRules) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(suites::provider(&rules.cipher_suites));
    let unusable = |source| TlsError::Unusable { path: files.cert_file.clone(), source };
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(protocol(rules.versions))
        .map_err(unusable)?;
    let builder = match &files.trusted_ca_file {
        Some(path) => {
            let (anchors, roots) = authorities(path)?;
            let verifier = ServerVerifier::new(anchors, roots, provider)
                .map_err(|source| TlsError::Authority { path: path.clone(), source })?;
            builder.dangerous().with_custom_certificate_verifier(verifier)
        }
        // `--peer-auto-tls`: each member made its own certificate, so there is nobody to verify it by.
        None if files.self_signed => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny::new(provider)))
        }
        None => return Err(TlsError::NoPeerAuthority),
    };
    let mut config = builder
        .with_client_auth_cert(certificates(&files.cert_file)?, key(&files.key_file)?)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// The common name in a verified client certificate, which is the user's name under `--client-cert-auth`. Of several the
/// last one, as in Go's `pkix.Name`.
pub(crate) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = parsed.subject().iter_common_name().last()?.as_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

static ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
static ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];
static FROM_12: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

fn protocol(versions: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    match versions {
        TlsVersions::From12 => FROM_12,
        TlsVersions::Only12 => ONLY_12,
        TlsVersions::Only13 => ONLY_13,
    }
}

fn read(path: &Path, what: &'static str) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { what, path: path.to_owned(), source })
}

fn certificates_of(path: &Path, what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = || TlsError::NotPem { what, path: path.to_owned() };
    let pem = read(path, what)?;
    let list: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|_| wrong())?;
    if list.is_empty() { Err(wrong()) } else { Ok(list) }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates_of(path, "certificate")
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let pem = read(path, "key")?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NotPem { what: "key", path: path.to_owned() })
}

fn authorities(path: &Path) -> Result<(Anchors, RootCertStore), TlsError> {
    let anchors = Anchors::new(certificates_of(path, "authority")?);
    let roots = anchors.roots().map_err(|source| TlsError::Unusable { path: path.to_owned(), source })?;
    Ok((anchors, roots))
}
