//! TLS of the listener: 1.2 and 1.3, HTTP/2 and 1.1, client certificates asked for but judged later.
//!
//! Invariant: the handshake proves that the client owns its certificate's key, nothing more. Who signed it is the
//! authenticator's question (`authn/x509.rs`), so that a foreign certificate gets an audited 401 instead of a
//! broken handshake, as kube-apiserver does. A renewed key pair is picked up without a restart. Not here: reading the connection (`server.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tracing::{info, warn};

use crate::Config;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("--tls-cert-file and --tls-private-key-file are needed to serve HTTPS")]
    NoKeyPair,
    #[error("cannot read {what} from {path}: {source}")]
    Unreadable {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: rustls_pki_types::pem::Error,
    },
    #[error("no certificate in {0}")]
    NoCertificate(PathBuf),
    #[error("{path} holds a certificate that cannot be used: {source}")]
    Certificate {
        path: PathBuf,
        #[source]
        source: rustls::Error,
    },
    #[error("{certificate} and {key} do not make a key pair: {source}")]
    KeyPair {
        certificate: PathBuf,
        key: PathBuf,
        #[source]
        source: rustls::Error,
    },
}

/// The listener's settings from the files that `config` names. The key pair is read again when its files change.
pub fn server_config(config: &Config) -> Result<Arc<ServerConfig>, TlsError> {
    let (Some(certificate), Some(key)) = (&config.tls_cert_file, &config.tls_private_key_file) else {
        return Err(TlsError::NoKeyPair);
    };
    let hints = match &config.client_ca_file {
        Some(path) => roots(path)?.subjects(),
        None => Vec::new(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let files =
        KeyPairFiles { certificate: certificate.clone(), key: key.clone(), provider: provider.clone() };
    let versions: &[&rustls::SupportedProtocolVersion] =
        if config.tls13_only { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let mut tls = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|source| files.mismatch(source))?
        .with_client_cert_verifier(Arc::new(AskForCertificate::new(&provider, hints)))
        .with_cert_resolver(Arc::new(FreshKeyPair::read(files, RELOAD_INTERVAL)?));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

/// How often a handshake looks whether the key pair's files have changed.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct KeyPairFiles {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

/// Modification times of certificate and key.
type Modified = [Option<SystemTime>; 2];

impl KeyPairFiles {
    fn read(&self) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain = certificates(&self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|source| TlsError::Unreadable {
            what: "a private key",
            path: self.key.clone(),
            source,
        })?;
        let pair =
            CertifiedKey::from_der(chain, key, &self.provider).map_err(|source| self.mismatch(source))?;
        Ok(Arc::new(pair))
    }

    fn modified(&self) -> Modified {
        [&self.certificate, &self.key]
            .map(|path| std::fs::metadata(path).and_then(|file| file.modified()).ok())
    }

    fn mismatch(&self, source: rustls::Error) -> TlsError {
        TlsError::KeyPair { certificate: self.certificate.clone(), key: self.key.clone(), source }
    }
}

/// The key pair as its files last had it in working order: a half-written or broken one never replaces a good one.
#[derive(Debug)]
struct FreshKeyPair {
    files: KeyPairFiles,
    interval: Duration,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    pair: Arc<CertifiedKey>,
    modified: Modified,
    looked: Instant,
}

impl FreshKeyPair {
    fn read(files: KeyPairFiles, interval: Duration) -> Result<FreshKeyPair, TlsError> {
        let modified = files.modified();
        let current = Current { pair: files.read()?, modified, looked: Instant::now() };
        Ok(FreshKeyPair { files, interval, current: Mutex::new(current) })
    }

    fn get(&self) -> Arc<CertifiedKey> {
        let mut current = self.current.lock();
        if current.looked.elapsed() < self.interval {
            return current.pair.clone();
        }
        current.looked = Instant::now();
        let modified = self.files.modified();
        if modified == current.modified {
            return current.pair.clone();
        }
        match self.files.read() {
            Ok(pair) => {
                info!(certificate = %self.files.certificate.display(), "key pair read again");
                current.pair = pair;
                current.modified = modified;
            }
            // Perhaps only one of the two files is there yet: the next look decides.
            Err(error) => warn!(%error, "the changed key pair cannot be used, the old one stays"),
        }
        current.pair.clone()
    }
}

impl ResolvesServerCert for FreshKeyPair {
    fn resolve(&self, _client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get())
    }
}

/// All certificates of a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Unreadable { what: "certificates", path: path.to_path_buf(), source };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() { Err(TlsError::NoCertificate(path.to_path_buf())) } else { Ok(certificates) }
}

/// The authorities of a PEM file.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|source| TlsError::Certificate { path: path.to_path_buf(), source })?;
    }
    Ok(roots)
}

/// Asks every client for a certificate, takes any or none, and checks that the client holds its key.
#[derive(Debug)]
struct AskForCertificate {
    algorithms: WebPkiSupportedAlgorithms,
    /// Subjects of the authorities we trust, so that clients with several certificates pick the right one.
    hints: Vec<DistinguishedName>,
}

impl AskForCertificate {
    fn new(provider: &CryptoProvider, hints: Vec<DistinguishedName>) -> AskForCertificate {
        AskForCertificate { algorithms: provider.signature_verification_algorithms, hints }
    }
}

impl ClientCertVerifier for AskForCertificate {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, certificate: bool, key: bool) -> Vec<u8> {
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_string()]).unwrap();
        if certificate {
            std::fs::write(directory.join("tls.crt"), pair.cert.pem()).unwrap();
        }
        if key {
            std::fs::write(directory.join("tls.key"), pair.signing_key.serialize_pem()).unwrap();
        }
        pair.cert.der().to_vec()
    }

    fn fresh(directory: &Path) -> Result<FreshKeyPair, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files =
            KeyPairFiles { certificate: directory.join("tls.crt"), key: directory.join("tls.key"), provider };
        FreshKeyPair::read(files, Duration::ZERO)
    }

    fn leaf(pair: &FreshKeyPair) -> Vec<u8> {
        pair.get().cert[0].to_vec()
    }

    #[test]
    fn a_new_key_pair_is_used_and_a_broken_one_never_replaces_a_good_one() {
        let directory = tempfile::tempdir().unwrap();
        let first = write(directory.path(), true, true);
        let pair = fresh(directory.path()).unwrap();
        assert_eq!(leaf(&pair), first);
        // File systems keep times in steps of a few milliseconds.
        std::thread::sleep(Duration::from_millis(30));
        write(directory.path(), true, false);
        assert_eq!(leaf(&pair), first, "a certificate without its key");
        std::fs::write(directory.path().join("tls.crt"), "").unwrap();
        assert_eq!(leaf(&pair), first, "an empty file");
        let second = write(directory.path(), true, true);
        assert_eq!(leaf(&pair), second);
        std::fs::remove_file(directory.path().join("tls.key")).unwrap();
        assert_eq!(leaf(&pair), second, "a removed file");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused_at_the_start() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), true, true);
        write(directory.path(), false, true);
        assert!(matches!(fresh(directory.path()), Err(TlsError::KeyPair { .. })));
        std::fs::remove_file(directory.path().join("tls.crt")).unwrap();
        assert!(matches!(fresh(directory.path()), Err(TlsError::Unreadable { .. })));
    }
}
