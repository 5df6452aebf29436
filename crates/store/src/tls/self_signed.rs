//! `--auto-tls`, `--peer-auto-tls`: a certificate that the member makes itself and keeps in its data directory.
//!
//! Files as in etcd: `cert.pem` and `key.pem` in `fixtures/client` or `fixtures/peer`. Both are there or both are made;
//! the key is readable by its owner alone.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
};

use super::TlsError;
use crate::{config::TlsFiles, url::Url};

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The files of this member's certificate; made for the hosts of `urls` if they are not there yet.
pub(crate) fn files(folder: &Path, urls: &[Url], validity_years: u32) -> Result<TlsFiles, TlsError> {
    let files = TlsFiles {
        cert_file: folder.join("cert.pem"),
        key_file: folder.join("key.pem"),
        self_signed: true,
        ..TlsFiles::default()
    };
    if files.cert_file.exists() && files.key_file.exists() {
        return Ok(files);
    }
    let (certificate, key) = make(urls, validity_years)
        .map_err(|source| TlsError::SelfSign { path: folder.to_owned(), source })?;
    let write = |path: &Path, text: &str| {
        write(path, text).map_err(|source| TlsError::Write { path: path.to_owned(), source })
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| TlsError::Write { path: folder.to_owned(), source })?;
    write(&files.key_file, &key)?;
    write(&files.cert_file, &certificate)?;
    tracing::info!(path = %files.cert_file.display(), "created cert file");
    Ok(files)
}

fn make(urls: &[Url], validity_years: u32) -> Result<(String, String), rcgen::Error> {
    let mut hosts: Vec<String> =
        urls.iter().filter_map(Url::host).filter(|host| !host.is_empty()).map(str::to_owned).collect();
    hosts.sort();
    hosts.dedup();
    let mut params = CertificateParams::new(hosts)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "etcd");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + now;
    params.not_after = params.not_before + YEAR * validity_years.max(1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Whole or not at all, also when the power fails.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let unfinished = path.with_extension("pem.tmp");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, path)
}
