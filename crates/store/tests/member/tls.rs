//! TLS on the client port: who is let in, and whose name a certificate carries.

use std::{fs, path::PathBuf, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use store::TlsFiles;
use tempfile::TempDir;
use tonic::Code;
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

use crate::one::{self, Member};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key for 127.0.0.1, usable by a server and a client.
    pub(crate) fn sign(&self, name: &str) -> (String, String) {
        self.sign_for(name, "127.0.0.1", 1)
    }

    pub(crate) fn sign_for(&self, name: &str, host: &str, serial: u64) -> (String, String) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

impl Authority {
    /// A list as etcd's fixtures have it: DER, and long out of date.
    pub(crate) fn revoke(&self, serials: &[u64]) -> Vec<u8> {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2020, 1, 8),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().der().to_vec()
    }
}

/// Whether a new connection with these certificates is served.
async fn comes_in(member: &Member, tls: ClientTls) -> bool {
    let endpoint = [member.store().client_urls()[0].to_string()];
    let client = Client::new(Transport::connect(&endpoint, Some(tls), Duration::from_secs(5)).unwrap());
    let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
    match client.kv.clone().range(range).await {
        Ok(_) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status}");
            false
        }
    }
}

pub(crate) fn client_tls(authority: &Authority, pair: Option<&(String, String)>) -> ClientTls {
    ClientTls {
        ca_pem: Some(authority.pem().into_bytes()),
        cert_pem: pair.map(|pair| pair.0.clone().into_bytes()),
        key_pem: pair.map(|pair| pair.1.clone().into_bytes()),
        ..Default::default()
    }
}

#[tokio::test]
async fn only_certificates_of_the_authority_come_in_and_their_name_is_the_user() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let write = |name: &str, text: &str| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let (cert, key) = authority.sign("server");
    let mut config = one::config("one", &folder);
    config.client_tls = Some(TlsFiles {
        cert_file: write("server.crt", &cert),
        key_file: write("server.key", &key),
        trusted_ca_file: Some(write("ca.crt", &authority.pem())),
        client_cert_auth: true,
        ..Default::default()
    });
    config.listen_client_urls = vec!["https://127.0.0.1:0".parse().unwrap()];
    // The peer port too: a single member only has to start with it.
    config.peer_tls = config.client_tls.clone();
    for url in config.listen_peer_urls.iter_mut().chain(&mut config.initial_advertise_peer_urls) {
        url.tls = true;
    }
    let root = authority.sign("root");
    let member = Member::run(config, folder, Some(client_tls(&authority, Some(&root)))).await;
    member.put("k", "v").await;
    let own = (authority.pem(), authority.issuer.key().serialize_pem());
    assert!(comes_in(&member, client_tls(&authority, Some(&own))).await, "the authority itself");
    let alike = Authority::new();
    let alike = (alike.pem(), alike.issuer.key().serialize_pem());
    assert!(!comes_in(&member, client_tls(&authority, Some(&alike))).await, "another with the same name");

    let endpoint = [member.store().client_urls()[0].to_string()];
    let range = || pb::RangeRequest { key: "k".into(), ..Default::default() };
    let foreign = stranger.sign("root");
    for pair in [None, Some(&foreign)] {
        let tls = client_tls(&authority, pair);
        let client = Client::new(Transport::connect(&endpoint, Some(tls), Duration::from_secs(5)).unwrap());
        assert_eq!(client.kv.clone().range(range()).await.unwrap_err().code(), Code::Unavailable);
    }
    let unknown = client_tls(&stranger, Some(&root));
    let client = Client::new(Transport::connect(&endpoint, Some(unknown), Duration::from_secs(5)).unwrap());
    let refused = client.kv.clone().range(range()).await.unwrap_err();
    assert!(refused.message().contains("certificate"), "{}", refused.message());

    let mut auth = member.client.auth.clone();
    let options = Some(wire::authpb::UserAddOptions { no_password: true });
    auth.user_add(pb::AuthUserAddRequest { name: "root".into(), options, ..Default::default() })
        .await
        .unwrap();
    auth.role_add(pb::AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    auth.user_grant_role(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() })
        .await
        .unwrap();
    auth.auth_enable(pb::AuthEnableRequest {}).await.unwrap();
    member.put("k", "as root").await;
    let nobody = client_tls(&authority, Some(&authority.sign("nobody")));
    let client = Client::new(Transport::connect(&endpoint, Some(nobody), Duration::from_secs(5)).unwrap());
    assert_eq!(client.kv.clone().range(range()).await.unwrap_err().code(), Code::PermissionDenied);
    member.stop().await;
}

/// A changed file takes effect at the next handshake, and one that cannot be used leaves the former in force.
#[tokio::test]
async fn certificates_authorities_and_revocations_are_read_again_while_running() {
    let (authority, second) = (Authority::new(), Authority::new());
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let write_pair = |pair: &(String, String)| {
        fs::write(path("server.crt"), &pair.0).unwrap();
        fs::write(path("server.key"), &pair.1).unwrap();
    };
    write_pair(&authority.sign("server"));
    fs::write(path("ca.crt"), authority.pem()).unwrap();
    fs::write(path("list.crl"), authority.revoke(&[77])).unwrap();
    let mut config = one::config("one", &folder);
    config.client_tls = Some(TlsFiles {
        cert_file: path("server.crt"),
        key_file: path("server.key"),
        trusted_ca_file: Some(path("ca.crt")),
        crl_file: Some(path("list.crl")),
        allowed_hostnames: vec!["other.example".to_owned(), "client.example".to_owned()],
        ..Default::default()
    });
    config.listen_client_urls = vec!["https://127.0.0.1:0".parse().unwrap()];
    let good = authority.sign_for("good", "client.example", 500);
    let revoked = authority.sign_for("revoked", "client.example", 77);
    let elsewhere = authority.sign_for("elsewhere", "elsewhere.example", 501);
    let (list, certificate, ca) = (path("list.crl"), path("server.crt"), path("ca.crt"));
    let server_pair = |pair: &(String, String)| (pair.clone(), path("server.crt"), path("server.key"));
    let (renewed, renewed_crt, renewed_key) = server_pair(&second.sign("server"));

    let member = Member::run(config, folder, Some(client_tls(&authority, Some(&good)))).await;
    assert!(comes_in(&member, client_tls(&authority, Some(&good))).await);
    assert!(!comes_in(&member, client_tls(&authority, Some(&revoked))).await, "its serial is in the list");
    assert!(!comes_in(&member, client_tls(&authority, Some(&elsewhere))).await, "not an allowed host name");

    fs::write(&list, authority.revoke(&[500, 600])).unwrap();
    assert!(!comes_in(&member, client_tls(&authority, Some(&good))).await, "revoked since");
    assert!(comes_in(&member, client_tls(&authority, Some(&revoked))).await, "no longer in the list");

    fs::write(&certificate, "junk").unwrap();
    assert!(comes_in(&member, client_tls(&authority, Some(&revoked))).await, "the former certificate stays");

    fs::write(&renewed_crt, &renewed.0).unwrap();
    fs::write(&renewed_key, &renewed.1).unwrap();
    fs::write(&ca, format!("{}{}", authority.pem(), second.pem())).unwrap();
    assert!(
        !comes_in(&member, client_tls(&authority, Some(&revoked))).await,
        "the server has a new authority"
    );
    let client = second.sign_for("new", "client.example", 9);
    assert!(comes_in(&member, client_tls(&second, Some(&client))).await);
    member.stop().await;
}

#[tokio::test]
async fn auto_tls_makes_a_certificate_once_and_keeps_it_in_the_data_directory() {
    let folder = TempDir::new().unwrap();
    let mut config = one::config("one", &folder);
    config.client_auto_tls = true;
    config.peer_auto_tls = true;
    config.listen_client_urls = vec!["https://127.0.0.1:0".parse().unwrap()];
    for url in config.listen_peer_urls.iter_mut().chain(&mut config.initial_advertise_peer_urls) {
        url.tls = true;
    }
    let fixtures = config.data_dir.join("fixtures");
    let again = config.clone();
    let any = || Some(ClientTls { skip_verify: true, ..Default::default() });
    let member = Member::run(config, folder, any()).await;
    let certificate = fs::read(fixtures.join("client/cert.pem")).unwrap();
    let trust = |pem: &[u8]| ClientTls { ca_pem: Some(pem.to_vec()), ..Default::default() };
    assert!(comes_in(&member, trust(&certificate)).await);
    let key = fs::metadata(fixtures.join("client/key.pem")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&key.permissions()) & 0o777, 0o600);
    let peer = fs::read(fixtures.join("peer/cert.pem")).unwrap();
    assert!(!comes_in(&member, trust(&peer)).await, "peers have a certificate of their own");

    let (_, folder) = member.stop_and_keep().await;
    let member = Member::run(again, folder, any()).await;
    assert!(comes_in(&member, trust(&certificate)).await, "the same one after a restart");
    member.stop().await;
}
