//! The certificates of an embedded control plane: one CA, and what it signed.
//!
//! Invariants: a file that exists and is still valid is never replaced, so a second start keeps every identity and an
//! administrator may put an own CA (also an intermediate one) in place first. Keys are written with mode 0600.
//! Leaf certificates are issued again 30 days before they expire; the CA is not, because clients trust it by content.
//! Not here: verifying certificates (apiserver's authn), kubeconfig files (kubeconfig.rs).

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};

/// Validity of a CA made here, in days.
const CA_VALIDITY_DAYS: i64 = 3650;
/// Validity of a leaf certificate, in days.
const LEAF_VALIDITY_DAYS: i64 = 365;
/// A leaf with less than this left is issued again at the next start, in days.
const LEAF_RENEWAL_DAYS: i64 = 30;

/// The folder of keys and certificates: `ca.crt`, `ca.key`, and a `NAME.crt` / `NAME.key` pair per identity.
pub(crate) struct Pki {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// What to append after a leaf, so that a peer that trusts only the root can build the chain; empty for a root CA.
    chain_pem: String,
}

/// What a leaf certificate is for.
pub(crate) struct Identity<'a> {
    pub(crate) file: &'a str,
    pub(crate) common_name: &'a str,
    pub(crate) organizations: &'a [&'a str],
    /// Empty for a pure client certificate.
    pub(crate) dns_names: &'a [String],
    pub(crate) addresses: &'a [IpAddr],
}

/// A certificate and its key, as files.
#[derive(Clone, Debug)]
pub(crate) struct KeyPairFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pki {
    /// Opens the folder, and makes a CA there if it holds none.
    pub(crate) fn open_or_create(dir: &Path) -> Result<Pki> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let (certificate_path, key_path) = (dir.join("ca.crt"), dir.join("ca.key"));
        if !certificate_path.exists() {
            let key = KeyPair::generate()?;
            let certificate = ca_params()?.self_signed(&key)?;
            write_private(&key_path, &key.serialize_pem())?;
            write_public(&certificate_path, &certificate.pem())?;
        }
        let ca_pem = read(&certificate_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?)
            .with_context(|| format!("{} is not a private key", key_path.display()))?;
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key)
            .with_context(|| format!("{} is not a CA certificate", certificate_path.display()))?;
        let chain_pem = if dir.join("root.crt").exists() { ca_pem } else { String::new() };
        Ok(Pki { dir: dir.to_owned(), issuer, chain_pem })
    }

    /// The certificate that clients must trust: `root.crt` if our CA is an intermediate one, else `ca.crt`.
    pub(crate) fn trust_anchor(&self) -> PathBuf {
        let root = self.dir.join("root.crt");
        if root.exists() { root } else { self.dir.join("ca.crt") }
    }

    /// Returns the files of `identity`, issuing the certificate if it is missing or about to expire.
    pub(crate) fn issue(&self, identity: &Identity<'_>) -> Result<KeyPairFiles> {
        let files = KeyPairFiles {
            certificate: self.dir.join(format!("{}.crt", identity.file)),
            key: self.dir.join(format!("{}.key", identity.file)),
        };
        if files.certificate.exists() && files.key.exists() && !expires_soon(&files.certificate)? {
            return Ok(files);
        }
        let key = KeyPair::generate()?;
        let certificate = leaf_params(identity)?.signed_by(&key, &self.issuer)?;
        write_private(&files.key, &key.serialize_pem())?;
        write_public(&files.certificate, &format!("{}{}", certificate.pem(), self.chain_pem))?;
        Ok(files)
    }
}

fn ca_params() -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "binnacle-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    set_validity(&mut params, CA_VALIDITY_DAYS)?;
    Ok(params)
}

fn leaf_params(identity: &Identity<'_>) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(identity.dns_names.to_vec())?;
    params.subject_alt_names.extend(identity.addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.distinguished_name = DistinguishedName::new();
    for organization in identity.organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    params.distinguished_name.push(DnType::CommonName, identity.common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !params.subject_alt_names.is_empty() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, LEAF_VALIDITY_DAYS)?;
    Ok(params)
}

/// Valid from yesterday (clocks differ) for `days`.
fn set_validity(params: &mut CertificateParams, days: i64) -> Result<()> {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let day = |offset: i64| -> Result<_> {
        let date = today.checked_add(jiff::Span::new().days(offset))?;
        Ok(rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs()))
    };
    params.not_before = day(-1)?;
    params.not_after = day(days)?;
    Ok(())
}

fn expires_soon(certificate: &Path) -> Result<bool> {
    let age_days = fs::metadata(certificate)?.modified()?.elapsed().map_or(0, |age| age.as_secs() / 86_400);
    Ok(age_days as i64 >= LEAF_VALIDITY_DAYS - LEAF_RENEWAL_DAYS)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o600)
}

fn write_public(path: &Path, text: &str) -> Result<()> {
    write(path, text, 0o644)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admin() -> Identity<'static> {
        Identity {
            file: "admin",
            common_name: "admin",
            organizations: &["system:masters"],
            dns_names: &[],
            addresses: &[],
        }
    }

    #[test]
    fn a_second_start_keeps_the_ca_and_every_identity() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open_or_create(dir.path()).unwrap();
        let files = first.issue(&admin()).unwrap();
        let (ca, leaf) = (read(&dir.path().join("ca.crt")).unwrap(), read(&files.certificate).unwrap());
        let second = Pki::open_or_create(dir.path()).unwrap();
        second.issue(&admin()).unwrap();
        assert_eq!(ca, read(&dir.path().join("ca.crt")).unwrap());
        assert_eq!(leaf, read(&files.certificate).unwrap());
    }

    #[test]
    fn keys_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let files = Pki::open_or_create(dir.path()).unwrap().issue(&admin()).unwrap();
        assert_eq!(fs::metadata(files.key).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_folder_with_a_broken_ca_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.crt"), "no certificate").unwrap();
        fs::write(dir.path().join("ca.key"), "no key").unwrap();
        let error = Pki::open_or_create(dir.path()).err().unwrap();
        assert!(format!("{error:#}").contains("ca.key is not a private key"), "{error:#}");
    }
}
