//! Certificates of trusted authorities that a server or client shows as its own.
//!
//! Many clusters run on one self-signed certificate that is authority and server at once, and Go accepts that. Our TLS
//! library refuses every authority in the place of a leaf. So a certificate that is, byte for byte, one of the trusted
//! authorities is judged here: it must be valid now, its purpose must allow it, and for a server it must carry the name.
//! Who holds an authority's key could sign any leaf, so nobody gets in who could not before. That the other side holds
//! the key is proven as always. Not here: every other certificate, which the library judges.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// What a certificate is shown for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Server,
    Client,
}

/// The trusted authorities, as they were given.
#[derive(Debug, Clone)]
pub struct Anchors(Vec<CertificateDer<'static>>);

impl Anchors {
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Anchors {
        Anchors(certificates)
    }

    /// For the library; it is told the same authorities.
    pub fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in &self.0 {
            roots.add(certificate.clone())?;
        }
        Ok(roots)
    }

    /// `None`: the certificate is none of the authorities, the library must judge it.
    pub fn judge(
        &self,
        shown: &CertificateDer<'_>,
        purpose: Purpose,
        now: UnixTime,
    ) -> Option<Result<(), CertificateError>> {
        self.0.iter().any(|anchor| anchor.as_ref() == shown.as_ref()).then(|| check(shown, purpose, now))
    }
}

fn check(shown: &CertificateDer<'_>, purpose: Purpose, now: UnixTime) -> Result<(), CertificateError> {
    let (_, certificate) =
        x509_parser::parse_x509_certificate(shown).map_err(|_| CertificateError::BadEncoding)?;
    let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let validity = certificate.validity();
    if now_s < validity.not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now_s > validity.not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    let usage = certificate.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    let allowed = usage.is_none_or(|usage| {
        usage.value.any
            || match purpose {
                Purpose::Server => usage.value.server_auth,
                Purpose::Client => usage.value.client_auth,
            }
    });
    if allowed { Ok(()) } else { Err(CertificateError::InvalidPurpose) }
}

/// Verifies servers by the library, or here if they show an authority's own certificate.
#[derive(Debug)]
pub struct ServerVerifier {
    anchors: Anchors,
    library: Arc<WebPkiServerVerifier>,
}

impl ServerVerifier {
    pub fn new(
        anchors: Anchors,
        roots: RootCertStore,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<ServerVerifier>, VerifierBuilderError> {
        let library = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Arc::new(ServerVerifier { anchors, library }))
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.anchors.judge(end_entity, Purpose::Server, now) {
            None => {
                self.library.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            Some(judged) => {
                judged?;
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.library.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.library.supported_verify_schemes()
    }
}
