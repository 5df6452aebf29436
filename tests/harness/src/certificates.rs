//! A certificate hierarchy as an organisation has it: a root CA, a cluster CA signed by it, and what that signs.
//!
//! Invariants: files are PEM; a leaf's file carries the cluster CA behind it, so that whoever trusts only the root can
//! verify it. Not here: the certificates that the product makes for itself.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};

/// A CA that can sign, and the chain that its leaves carry.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    key_pem: String,
}

/// A certificate with its chain, and its key, as files.
#[derive(Clone, Debug)]
pub struct Leaf {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    /// A self-signed root.
    pub fn root(common_name: &str) -> Result<Authority> {
        let (params, key) = (ca_params(common_name)?, KeyPair::generate()?);
        let certificate_pem = params.self_signed(&key)?.pem();
        Authority::new(params, key, certificate_pem)
    }

    /// A CA below this one.
    pub fn intermediate(&self, common_name: &str) -> Result<Authority> {
        let (params, key) = (ca_params(common_name)?, KeyPair::generate()?);
        let certificate_pem = params.signed_by(&key, &self.issuer)?.pem();
        Authority::new(params, key, certificate_pem)
    }

    fn new(params: CertificateParams, key: KeyPair, certificate_pem: String) -> Result<Authority> {
        let key_pem = key.serialize_pem();
        Ok(Authority { issuer: Issuer::new(params, key), certificate_pem, key_pem })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a client certificate into `dir`.
    pub fn client(&self, dir: &Path, common_name: &str, organizations: &[&str]) -> Result<Leaf> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name = DistinguishedName::new();
        for organization in organizations {
            params.distinguished_name.push(DnType::OrganizationName, *organization);
        }
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(dir, common_name, params)
    }

    /// Issues a server certificate for these names and addresses into `dir`.
    pub fn server(&self, dir: &Path, common_name: &str, names: &[&str]) -> Result<Leaf> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common_name);
        // A member's gateway is a client of the member itself.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.leaf(dir, common_name, params)
    }

    fn leaf(&self, dir: &Path, common_name: &str, mut params: CertificateParams) -> Result<Leaf> {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let leaf = Leaf {
            certificate: dir.join(format!("{common_name}.crt")),
            key: dir.join(format!("{common_name}.key")),
        };
        fs::write(&leaf.certificate, format!("{}{}", certificate.pem(), self.certificate_pem))?;
        fs::write(&leaf.key, key.serialize_pem())?;
        Ok(leaf)
    }
}

fn ca_params(common_name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}
