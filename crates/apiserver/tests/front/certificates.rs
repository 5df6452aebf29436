//! A root that signs a cluster authority that signs everybody; and a foreigner.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) struct Pki {
    directory: tempfile::TempDir,
    root: Authority,
    cluster: Authority,
    foreign: Authority,
}

fn params(common_name: &str, organization: &str) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if !organization.is_empty() {
        name.push(DnType::OrganizationName, organization);
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params
}

fn authority(name: &str, parent: Option<&Authority>) -> Authority {
    let mut params = params(name, "");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let key = KeyPair::generate().unwrap();
    match parent {
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
        Some(parent) => CertifiedIssuer::signed_by(params, key, parent).unwrap(),
    }
}

impl Pki {
    /// Writes `root.crt`, `server.crt` (with the cluster authority behind it) and `server.key`.
    pub(crate) fn new() -> Pki {
        let root = authority("root", None);
        let cluster = authority("cluster", Some(&root));
        let pki = Pki {
            directory: tempfile::tempdir().unwrap(),
            root,
            cluster,
            foreign: authority("foreign", None),
        };
        let mut server = params("apiserver", "");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.subject_alt_names = vec![SanType::IpAddress("127.0.0.1".parse().unwrap())];
        let key = KeyPair::generate().unwrap();
        let certificate = server.signed_by(&key, &pki.cluster).unwrap();
        std::fs::write(pki.path("server.crt"), certificate.pem() + &pki.cluster.pem()).unwrap();
        std::fs::write(pki.path("server.key"), key.serialize_pem()).unwrap();
        std::fs::write(pki.path("root.crt"), pki.root.pem()).unwrap();
        pki
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let directory: &Path = self.directory.path();
        directory.join(name)
    }

    /// A client that trusts the root and has no certificate.
    pub(crate) fn nobody(&self) -> Arc<ClientConfig> {
        Arc::new(self.builder().with_no_client_auth())
    }

    /// A client whose certificate the cluster authority signed; it sends the authority along.
    pub(crate) fn client(&self, common_name: &str, organization: &str) -> Arc<ClientConfig> {
        self.with_certificate(common_name, organization, &self.cluster)
    }

    /// The same names from an authority that nobody trusts.
    pub(crate) fn foreigner(&self, common_name: &str, organization: &str) -> Arc<ClientConfig> {
        self.with_certificate(common_name, organization, &self.foreign)
    }

    fn with_certificate(
        &self,
        common_name: &str,
        organization: &str,
        issuer: &Authority,
    ) -> Arc<ClientConfig> {
        let mut params = params(common_name, organization);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, issuer).unwrap();
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone(), issuer.der().clone()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        // A resolver of its own: the server's hints must not keep the foreigner from trying.
        let certified = rustls::sign::CertifiedKey::from_der(chain, key, &provider()).unwrap();
        Arc::new(self.builder().with_client_cert_resolver(Arc::new(Always(Arc::new(certified)))))
    }

    fn builder(&self) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.der().clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
    }
}

fn provider() -> rustls::crypto::CryptoProvider {
    rustls::crypto::ring::default_provider()
}

#[derive(Debug)]
struct Always(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
