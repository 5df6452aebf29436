//! Who comes in beyond "signed by the authority": the authority itself, not who was revoked, and only the names that are
//! allowed.
//!
//! As in etcd a revocation list counts by serial number alone, whoever signed it and however old it is. The list and the
//! certificates are read anew when they change (reload.rs), which also forgets the sessions that could be resumed.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme,
    client::{danger::HandshakeSignatureValid, verify_server_name},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use wire::{Anchors, Purpose};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _};

use super::{TlsError, common_name};
use crate::config::TlsFiles;

/// Verifies by the authority first, then by the rules here.
#[derive(Debug)]
pub(super) struct ClientGuard {
    authority: Arc<dyn ClientCertVerifier>,
    anchors: Anchors,
    /// Big-endian, without leading zeros.
    revoked_serials: BTreeSet<Vec<u8>>,
    /// One of these must be the common name; empty means any.
    common_names: Vec<String>,
    /// The certificate must be valid for one of these; empty means any.
    hostnames: Vec<String>,
}

impl ClientGuard {
    pub(super) fn new(
        authority: Arc<dyn ClientCertVerifier>,
        anchors: Anchors,
        files: &TlsFiles,
    ) -> Result<Arc<ClientGuard>, TlsError> {
        Ok(Arc::new(ClientGuard {
            authority,
            anchors,
            revoked_serials: files.crl_file.as_deref().map(revoked).transpose()?.unwrap_or_default(),
            common_names: files.allowed_common_names.clone(),
            hostnames: files.allowed_hostnames.clone(),
        }))
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = |error| Err(Error::InvalidCertificate(error));
        if !self.revoked_serials.is_empty() {
            let Some(serial) = serial(certificate) else { return refused(CertificateError::BadEncoding) };
            if self.revoked_serials.contains(&serial) {
                return refused(CertificateError::Revoked);
            }
        }
        if !self.common_names.is_empty() {
            let name = common_name(certificate);
            if !name.is_some_and(|name| self.common_names.contains(&name)) {
                // As a wrong host name: the other side is told "bad certificate", in Go's words too.
                return refused(CertificateError::NotValidForName);
            }
        }
        if !self.hostnames.is_empty() {
            let parsed = ParsedCertificate::try_from(certificate)?;
            let carries = |name: &String| {
                ServerName::try_from(name.as_str())
                    .is_ok_and(|name| verify_server_name(&parsed, &name).is_ok())
            };
            if !self.hostnames.iter().any(carries) {
                return refused(CertificateError::NotValidForName);
            }
        }
        Ok(())
    }
}

impl ClientCertVerifier for ClientGuard {
    fn offer_client_auth(&self) -> bool {
        self.authority.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.authority.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authority.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = match self.anchors.judge(end_entity, Purpose::Client, now) {
            None => self.authority.verify_client_cert(end_entity, intermediates, now)?,
            Some(judged) => judged.map(|()| ClientCertVerified::assertion())?,
        };
        self.check(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authority.supported_verify_schemes()
    }
}

fn serial(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(plain(parsed.raw_serial()))
}

/// The number without the zeros that its encoding may have in front.
fn plain(serial: &[u8]) -> Vec<u8> {
    let start = serial.iter().position(|byte| *byte != 0).unwrap_or(serial.len());
    serial[start..].to_vec()
}

/// The serial numbers in a revocation list, in PEM or DER form.
pub(crate) fn revoked(path: &Path) -> Result<BTreeSet<Vec<u8>>, TlsError> {
    let bytes = fs::read(path).map_err(|source| TlsError::Read {
        what: "revocation list",
        path: path.to_owned(),
        source,
    })?;
    let wrong = || TlsError::NotCrl { path: path.to_owned() };
    let der = match x509_parser::pem::parse_x509_pem(&bytes) {
        Ok((_, pem)) => pem.contents,
        Err(_) => bytes,
    };
    let (_, list) = CertificateRevocationList::from_der(&der).map_err(|_| wrong())?;
    Ok(list.iter_revoked_certificates().map(|entry| plain(entry.raw_serial())).collect())
}
