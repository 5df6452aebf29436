//! Files that people hand to the program, and its command line.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::OnceLock;

use bolt::{Entry, Reader, Writer};
use tempfile::TempDir;

use super::{Decoder, Target};

pub(super) fn targets() -> Vec<Target> {
    let base = Target::default();
    let text = Target { is_text: true, ..base.clone() };
    vec![
        Target {
            name: "backup file",
            samples: || vec![backup()],
            decoder: Decoder::Judges(|input| walk(input).is_ok()),
            repair: Some(|input| repair_meta_pages(input)),
            // A page may say that it has many pages behind it: they are read if the file has them.
            allocation_bytes: 1 << 20,
            ..base.clone()
        },
        Target {
            name: "configuration file",
            samples: || {
                vec![
                    b"name: 'a'\nsnapshot-count: 10000\nlisten-client-urls: http://127.0.0.1:1,http://127.0.0.1:2\nadvertise-client-urls: http://127.0.0.1:1\nwal-dir: ''\nstrict-reconfig-check: false\ngrpc-keepalive-timeout: 7s\nlog-outputs: [stderr]\nclient-transport-security:\n  auto-tls: true\nmystery: 1\n".to_vec(),
                    b"{\"name\": \"a\", \"watch-progress-notify-interval\": 2000000000}".to_vec(),
                ]
            },
            decoder: Decoder::Judges(|input| with_file(input, store::fuzzing::config_file)),
            // The YAML reader's buffers.
            allocation_bytes: 1 << 20,
            ..text.clone()
        },
        Target {
            name: "command line",
            samples: || {
                vec![
                    b"--name=a\n--data-dir\nd\n--client-cert-auth=false\n--heartbeat-interval=100\n--election-timeout=1000\n--initial-cluster\na=http://127.0.0.1:2380\n--initial-advertise-peer-urls=http://127.0.0.1:2380\n--auto-compaction-retention=5m".to_vec(),
                    b"--quota-backend-bytes=-1\n--max-txn-ops=1\n--tls-min-version=TLS1.3".to_vec(),
                ]
            },
            decoder: Decoder::Judges(store::fuzzing::flags),
            ..text.clone()
        },
        Target {
            name: "URLs",
            samples: || vec![b"http://127.0.0.1:2379,https://a.example:1/, http://[::1]:2380".to_vec()],
            decoder: Decoder::Encodes(store::fuzzing::urls),
            ..text.clone()
        },
        Target {
            name: "duration",
            samples: || vec![b"1h2m3.5s".to_vec(), b"100ms".to_vec()],
            decoder: Decoder::Judges(store::fuzzing::duration),
            ..text
        },
        Target {
            name: "revocation list",
            samples: || revocation_list().into_iter().collect(),
            decoder: Decoder::Judges(|input| with_file(input, store::fuzzing::revocation_list)),
            ..base
        },
    ]
}

/// The same file again and again.
fn with_file(input: &[u8], read: impl FnOnce(&std::path::Path) -> bool) -> bool {
    static FILE: OnceLock<Option<(TempDir, PathBuf)>> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let dir = tempfile::tempdir().ok()?;
        let path = dir.path().join("input");
        Some((dir, path))
    });
    let Some((_, path)) = file else { return false };
    std::fs::write(path, input).is_ok() && read(path)
}

fn backup() -> Vec<u8> {
    let write = || -> Result<Vec<u8>, bolt::WriteError> {
        let mut writer = Writer::new(Cursor::new(Vec::new()))?;
        for name in [&b"key"[..], b"meta"] {
            writer.bucket(name)?;
            for number in 0..60_u32 {
                writer.put(&number.to_be_bytes(), &[7; 100])?;
            }
        }
        Ok(writer.finish()?.0.into_inner())
    };
    write().unwrap_or_default()
}

/// Everything in the file.
fn walk(input: &[u8]) -> Result<usize, bolt::ReadError> {
    let reader = Reader::open(input.to_vec())?;
    let mut pairs = 0;
    for entry in reader.entries(&reader.root())? {
        match entry? {
            Entry::Pair { .. } => pairs += 1,
            Entry::Bucket { bucket, .. } => {
                for entry in reader.entries(&bucket)? {
                    drop(entry?);
                    pairs += 1;
                }
            }
        }
    }
    Ok(pairs)
}

/// The sum of bbolt's meta pages: FNV-1a over their first 56 bytes.
fn repair_meta_pages(file: &mut [u8]) {
    for at in [0, 4096] {
        let Some(meta) = file.get_mut(at + 16..at + 80) else { continue };
        let sum = meta[..56].iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        meta[56..].copy_from_slice(&sum.to_le_bytes());
    }
}

fn revocation_list() -> Option<Vec<u8>> {
    use rcgen::{
        CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
        KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::CrlSign];
    let issuer = Issuer::new(params, KeyPair::generate().ok()?);
    let revoked = |number: u64| RevokedCertParams {
        serial_number: SerialNumber::from(number),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2027, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked(7), revoked(u64::MAX)],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Some(list.signed_by(&issuer).ok()?.der().to_vec())
}
