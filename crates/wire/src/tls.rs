//! TLS of a client: which authorities it trusts and which certificate it shows.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};

use crate::{Anchors, ServerVerifier};

/// PEM texts and options of a client's TLS.
#[derive(Debug, Clone, Default)]
pub struct ClientTls {
    /// Certificates of the authorities that may sign a server. Needed unless `skip_verify`.
    pub ca_pem: Option<Vec<u8>>,
    /// A certificate in `ca_pem` that cannot be used is left out, with a warning: others put the system's list together.
    pub ca_is_systems: bool,
    /// The client's certificate chain; comes with `key_pem`.
    pub cert_pem: Option<Vec<u8>>,
    /// The private key of `cert_pem`. Never logged.
    pub key_pem: Option<Vec<u8>>,
    /// The name to look for in the server's certificate, instead of the endpoint's host.
    pub server_name: Option<String>,
    /// Accept any server certificate. For tests and rescue work only.
    pub skip_verify: bool,
}

/// Why TLS options cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS needs the certificate of an authority to trust")]
    NoAuthority,
    #[error("no certificate in the {what} PEM text")]
    NoCertificate { what: &'static str },
    #[error("a client certificate and its key must be given together")]
    HalfKeyPair,
    #[error("client key is not readable: {0}")]
    Key(String),
    #[error("bad certificate in the {what} PEM text: {reason}")]
    Certificate { what: &'static str, reason: String },
    #[error("bad server name {0:?}")]
    ServerName(String),
    #[error("TLS settings refused: {0}")]
    Settings(#[from] rustls::Error),
}

impl ClientTls {
    /// The rustls settings for HTTP/2.
    pub fn settings(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match &self.ca_pem {
            _ if self.skip_verify => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny::new(provider)))
            }
            None => return Err(TlsError::NoAuthority),
            Some(pem) => {
                let anchors = match self.ca_is_systems {
                    true => usable(pem)?,
                    false => Anchors::new(certificates(pem, "authority")?),
                };
                let roots = anchors.roots()?;
                let verifier = ServerVerifier::new(anchors, roots, provider)
                    .map_err(|error| rustls::Error::General(error.to_string()))?;
                builder.dangerous().with_custom_certificate_verifier(verifier)
            }
        };
        let mut config = match (&self.cert_pem, &self.key_pem) {
            (None, None) => builder.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let key =
                    PrivateKeyDer::from_pem_slice(key).map_err(|error| TlsError::Key(error.to_string()))?;
                builder.with_client_auth_cert(certificates(cert, "client certificate")?, key)?
            }
            _ => return Err(TlsError::HalfKeyPair),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    }

    /// The name that the certificate of `host` must carry.
    pub fn name_for(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
    }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let list: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate { what, reason: error.to_string() })?;
    if list.is_empty() { Err(TlsError::NoCertificate { what }) } else { Ok(list) }
}

/// The authorities of the system, as far as they can be read.
fn usable(pem: &[u8]) -> Result<Anchors, TlsError> {
    let mut list = Vec::new();
    for (place, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| error.to_string());
        let checked = certificate.and_then(|certificate| {
            RootCertStore::empty().add(certificate.clone()).map_err(|error| error.to_string())?;
            Ok(certificate)
        });
        match checked {
            Ok(certificate) => list.push(certificate),
            Err(error) => tracing::warn!(place, error, "an authority of the system's list is left out"),
        }
    }
    if list.is_empty() { Err(TlsError::NoCertificate { what: "authority" }) } else { Ok(Anchors::new(list)) }
}

/// Believes every server; signatures are still checked. It encrypts; it does not tell who is there.
#[derive(Debug)]
pub struct AcceptAny {
    provider: Arc<CryptoProvider>,
}

impl AcceptAny {
    pub fn new(provider: Arc<CryptoProvider>) -> AcceptAny {
        AcceptAny { provider }
    }
}

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_odd_certificate_spoils_the_list_of_a_file_but_not_that_of_the_system() {
        let key = rcgen::KeyPair::generate().unwrap();
        let good = rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap().self_signed(&key).unwrap();
        let odd = "-----BEGIN CERTIFICATE-----\nb2Rk\n-----END CERTIFICATE-----\n";
        let pem = format!("{odd}{}{odd}", good.pem()).into_bytes();
        let given = |ca_pem: &[u8], ca_is_systems| {
            ClientTls { ca_pem: Some(ca_pem.to_vec()), ca_is_systems, ..ClientTls::default() }.settings()
        };
        assert!(given(&pem, true).is_ok());
        assert!(given(&pem, false).is_err());
        assert!(matches!(given(odd.as_bytes(), true), Err(TlsError::NoCertificate { .. })));
    }
}
