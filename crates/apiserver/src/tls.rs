//! TLS of the listener: 1.2 and 1.3, HTTP/2 and 1.1, client certificates asked for but judged later.
//!
//! Invariant: the handshake proves that the client owns its certificate's key, nothing more. Who signed it is the
//! authenticator's question (`authn/x509.rs`), so that a foreign certificate gets an audited 401 instead of a
//! broken handshake, as kube-apiserver does. Not here: reading the connection (`server.rs`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

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

/// The listener's settings from the files that `config` names.
pub fn server_config(config: &Config) -> Result<Arc<ServerConfig>, TlsError> {
    let (Some(certificate), Some(key)) = (&config.tls_cert_file, &config.tls_private_key_file) else {
        return Err(TlsError::NoKeyPair);
    };
    let chain = certificates(certificate)?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|source| TlsError::Unreadable {
        what: "a private key",
        path: key.clone(),
        source,
    })?;
    let hints = match &config.client_ca_file {
        Some(path) => roots(path)?.subjects(),
        None => Vec::new(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] =
        if config.tls13_only { &[&rustls::version::TLS13] } else { rustls::ALL_VERSIONS };
    let key_pair = |source| TlsError::KeyPair { certificate: certificate.clone(), key: key.clone(), source };
    let mut tls = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(key_pair)?
        .with_client_cert_verifier(Arc::new(AskForCertificate::new(&provider, hints)))
        .with_single_cert(chain, private_key)
        .map_err(key_pair)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
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
