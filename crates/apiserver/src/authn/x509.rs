//! Client certificates: verified against `--client-ca-file` here, not in the handshake.
//!
//! CN is the user, O are the groups. Invariants: the chain may run through intermediates that the client sent;
//! validity is judged at most `VERDICT_S_MAX` seconds ago, so an expired certificate stops working on an open
//! connection too. Not here: proof of possession of the key (`tls.rs`, in the handshake).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::CredentialsError;
use crate::{User, tls};

/// How long the verdict on a connection's certificate is reused.
const VERDICT_S_MAX: u64 = 10;
/// Source: apiserver authentication/user `CredentialIDKey`.
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";
/// Object identifier of a user's uid in a subject. Source: apiserver request/x509 `AllowParsingUserUIDFromCertAuth`.
const UID_OID: &str = "1.3.6.1.4.1.57683.2";

/// What one client sent in its handshake, leaf first, with the last verdict on it.
pub(crate) struct PeerCertificates {
    chain: Vec<CertificateDer<'static>>,
    verdict: Mutex<Option<(Instant, Verdict)>>,
}

/// The user, nobody, or why the certificate does not hold.
type Verdict = Result<Option<User>, String>;

impl PeerCertificates {
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>) -> PeerCertificates {
        PeerCertificates { chain, verdict: Mutex::new(None) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.chain.is_empty()
    }
}

/// Who may sign client certificates.
pub(super) struct ClientAuthority {
    verifier: Arc<dyn ClientCertVerifier>,
    pem: String,
}

impl ClientAuthority {
    pub(super) fn read(path: &Path) -> Result<ClientAuthority, CredentialsError> {
        let roots = tls::roots(path)?;
        let pem = std::fs::read_to_string(path)
            .map_err(|source| CredentialsError::AuthorityText { path: path.to_path_buf(), source })?;
        ClientAuthority::new(roots, pem)
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    fn new(roots: rustls::RootCertStore, pem: String) -> Result<ClientAuthority, CredentialsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(ClientAuthority { verifier, pem })
    }

    /// The certificate's user. `None`: no certificate, or one without a common name. The error says why it does not
    /// hold.
    pub(super) fn user(&self, peer: &PeerCertificates) -> Result<Option<User>, String> {
        let mut verdict = peer.verdict.lock();
        if let Some((judged, verdict)) = &*verdict
            && judged.elapsed() < Duration::from_secs(VERDICT_S_MAX)
        {
            return verdict.clone();
        }
        let fresh = self.judge(&peer.chain, UnixTime::now());
        *verdict = Some((Instant::now(), fresh.clone()));
        fresh
    }

    fn judge(&self, chain: &[CertificateDer<'static>], now: UnixTime) -> Result<Option<User>, String> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Ok(None) };
        let (_, certificate) = X509Certificate::from_der(leaf).map_err(|error| format!("x509: {error}"))?;
        self.verifier.verify_client_cert(leaf, intermediates, now).map_err(|error| {
            format!(
                "verifying certificate SN={} failed: {error}",
                certificate.tbs_certificate.raw_serial_as_string()
            )
        })?;
        Ok(user_of(certificate.subject(), leaf))
    }
}

/// Reads a verified subject. As in Go, the last CN counts.
fn user_of(subject: &X509Name<'_>, leaf: &CertificateDer<'_>) -> Option<User> {
    let name = subject.iter_common_name().filter_map(|part| part.as_str().ok()).last()?;
    if name.is_empty() {
        return None;
    }
    let groups =
        subject.iter_organization().filter_map(|part| part.as_str().ok()).map(str::to_string).collect();
    let uid = subject
        .iter_attributes()
        .find(|part| part.attr_type().to_id_string() == UID_OID)
        .and_then(|part| part.as_str().ok());
    let fingerprint: String = Sha256::digest(leaf).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(User {
        name: name.to_string(),
        uid: uid.unwrap_or_default().to_string(),
        groups,
        extra: [(CREDENTIAL_ID.to_string(), vec![format!("X509SHA256={fingerprint}")])].into(),
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
    };

    use super::*;

    type Authority = CertifiedIssuer<'static, KeyPair>;

    fn params(common_name: &str, organizations: &[&str]) -> CertificateParams {
        let mut name = DistinguishedName::new();
        if !common_name.is_empty() {
            name.push(DnType::CommonName, common_name);
        }
        // rcgen keeps one value per type; a second organization goes in under its bare identifier.
        for (index, organization) in organizations.iter().enumerate() {
            let kind =
                if index == 0 { DnType::OrganizationName } else { DnType::CustomDnType(vec![2, 5, 4, 10]) };
            name.push(kind, *organization);
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    fn authority(common_name: &str, parent: Option<&Authority>) -> Authority {
        let mut params = params(common_name, &[]);
        params.extended_key_usages.clear();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate().unwrap();
        match parent {
            None => CertifiedIssuer::self_signed(params, key).unwrap(),
            Some(parent) => CertifiedIssuer::signed_by(params, key, parent).unwrap(),
        }
    }

    fn leaf(params: CertificateParams, issuer: &Authority) -> CertificateDer<'static> {
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    fn trusting(authority: &Authority) -> ClientAuthority {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        ClientAuthority::new(roots, String::new()).unwrap()
    }

    #[test]
    fn the_subject_is_user_and_groups_through_an_intermediate_that_the_client_sent() {
        let root = authority("root", None);
        let cluster = authority("cluster", Some(&root));
        let jiang = leaf(params("jiang", &["dev", "ops"]), &cluster);
        let chain = vec![jiang.clone(), cluster.der().clone()];
        let user = trusting(&root).user(&PeerCertificates::new(chain)).unwrap().unwrap();
        assert_eq!(
            (user.name.as_str(), user.groups.as_slice()),
            ("jiang", &["dev".to_string(), "ops".to_string()][..])
        );
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
        let without_intermediate = PeerCertificates::new(vec![jiang.clone()]);
        assert!(trusting(&root).user(&without_intermediate).is_err());
        assert!(
            trusting(&cluster).user(&PeerCertificates::new(vec![jiang])).is_ok_and(|user| user.is_some())
        );
    }

    #[test]
    fn a_foreign_an_expired_and_a_server_certificate_are_refused() {
        let root = authority("root", None);
        let foreign = leaf(params("jiang", &["system:masters"]), &authority("root", None));
        let mut expired = params("jiang", &[]);
        expired.not_before = rcgen::date_time_ymd(2020, 1, 1);
        expired.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let mut server = params("jiang", &[]);
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for certificate in [foreign, leaf(expired, &root), leaf(server, &root)] {
            assert!(trusting(&root).user(&PeerCertificates::new(vec![certificate])).is_err());
        }
        let noise = CertificateDer::from(b"not a certificate".to_vec());
        assert!(trusting(&root).user(&PeerCertificates::new(vec![noise])).is_err());
    }

    #[test]
    fn without_a_common_name_or_a_certificate_nobody_is_recognised() {
        let root = authority("root", None);
        let nameless = leaf(params("", &["dev"]), &root);
        assert_eq!(trusting(&root).user(&PeerCertificates::new(vec![nameless])), Ok(None));
        assert_eq!(trusting(&root).user(&PeerCertificates::new(Vec::new())), Ok(None));
    }
}
