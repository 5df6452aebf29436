//! Clusters of three whose members trust each other by certificates, and logins that every member can check by a key.

use std::{ffi::OsString, fs, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use store::{Config, Flags, TlsFiles, TlsVersions, Url};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, rustls};
use tonic::Code;
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

use crate::{
    cluster::three,
    login::{ask, log_in, taken, with_users},
    one::Member,
    tls::{Authority, client_tls},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Makes the addresses of all peers `https`.
fn secure_peers(config: &mut Config) {
    let own = config.listen_peer_urls.iter_mut().chain(&mut config.initial_advertise_peer_urls);
    for url in own.chain(config.initial_cluster.iter_mut().map(|(_, url)| url)) {
        url.tls = true;
    }
}

/// Files of a peer's certificate in a folder.
fn peer_files(folder: &TempDir, authority: &Authority, pair: &(String, String)) -> TlsFiles {
    let write = |name: &str, text: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    TlsFiles {
        cert_file: write("peer.crt", pair.0.as_bytes()),
        key_file: write("peer.key", pair.1.as_bytes()),
        trusted_ca_file: Some(write("ca.crt", authority.pem().as_bytes())),
        crl_file: Some(write("list.crl", &authority.revoke(&[77]))),
        client_cert_auth: true,
        ..Default::default()
    }
}

/// A write through each member, read through each other.
pub(crate) async fn works(members: &[Member]) {
    for (number, member) in members.iter().enumerate() {
        let key = format!("k{number}");
        let revision = member.put(&key, "v").await;
        for other in members {
            assert_eq!(other.get(&key).await.map(|kv| kv.mod_revision), Some(revision));
        }
    }
}

/// Why somebody with these certificates does not get through to the gRPC services of a port; empty if he does.
async fn refusal(url: &Url, tls: ClientTls) -> String {
    let client = Client::new(Transport::connect(&[url.to_string()], Some(tls), PATIENCE).unwrap());
    match client.kv.clone().range(pb::RangeRequest::default()).await {
        // A peer port has no services for clients.
        Err(status) if status.code() == Code::Unimplemented => String::new(),
        Err(status) => status.message().to_owned(),
        Ok(_) => String::new(),
    }
}

#[tokio::test]
async fn peers_come_in_by_common_name_unless_revoked() {
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let files = TlsFiles {
        allowed_common_names: vec!["peer".to_owned(), "other peer".to_owned()],
        ..peer_files(&folder, &authority, &authority.sign("peer"))
    };
    let members = three(|config| {
        config.peer_tls = Some(files.clone());
        secure_peers(config);
    })
    .await;
    works(&members).await;
    for member in &members {
        let url = &member.config().listen_peer_urls[0];
        let told = async |pair: Option<&(String, String)>| refusal(url, client_tls(&authority, pair)).await;
        assert_eq!(told(Some(&authority.sign("other peer"))).await, "");
        let stranger = told(Some(&authority.sign("stranger"))).await;
        assert!(stranger.contains("BadCertificate"), "{stranger}");
        let revoked = told(Some(&authority.sign_for("peer", "127.0.0.1", 77))).await;
        assert!(revoked.contains("Revoked"), "{revoked}");
        assert_ne!(told(None).await, "");
    }
    join_all(members.into_iter().map(Member::stop)).await;
}

#[tokio::test]
async fn peers_that_made_their_own_certificates_work_together() {
    let members = three(|config| {
        config.peer_auto_tls = true;
        secure_peers(config);
    })
    .await;
    works(&members).await;
    join_all(members.into_iter().map(Member::stop)).await;
}

/// What is agreed on with a client that knows only this suite of TLS 1.2.
async fn agree(url: &Url, authority: &Authority, suite: rustls::SupportedCipherSuite) -> Result<(), String> {
    let provider = rustls::crypto::CryptoProvider {
        cipher_suites: vec![suite],
        ..rustls::crypto::ring::default_provider()
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect((url.host().unwrap(), url.port().unwrap())).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    connected.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn members_agree_on_listed_cipher_suites_only() {
    use rustls::crypto::ring::cipher_suite::{
        TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 as LISTED, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 as OTHER,
    };
    let (authority, folder) = (Authority::new(), TempDir::new().unwrap());
    let files = peer_files(&folder, &authority, &authority.sign("peer"));
    let members = three(|config| {
        config.tls_rules.versions = TlsVersions::Only12;
        config.tls_rules.cipher_suites = vec![LISTED.suite()];
        config.client_tls = Some(TlsFiles {
            trusted_ca_file: None,
            client_cert_auth: false,
            crl_file: None,
            ..files.clone()
        });
        config.listen_client_urls.push("https://127.0.0.1:0".parse().unwrap());
        config.peer_tls = Some(files.clone());
        secure_peers(config);
    })
    .await;
    works(&members).await;
    for member in &members {
        let url = &member.store().client_urls()[1];
        agree(url, &authority, LISTED).await.unwrap();
        let refused = agree(url, &authority, OTHER).await.unwrap_err();
        assert!(refused.contains("HandshakeFailure"), "{refused}");
    }
    join_all(members.into_iter().map(Member::stop)).await;
}

#[tokio::test]
async fn a_signed_token_is_taken_by_every_member_that_has_the_key() {
    let folder = TempDir::new().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, "a secret that only members know").unwrap();
    let flag =
        OsString::from(format!("--auth-token=jwt,sign-method=HS256,priv-key={},ttl=5m", key.display()));
    let jwt = Config::from_flags(&Flags::parse([flag], []).unwrap()).unwrap().jwt;
    assert!(jwt.is_some());
    let mut members = three(|config| {
        config.bcrypt_cost = 4;
        config.jwt = jwt.clone();
    })
    .await;
    with_users(&members[0]).await;
    let token = log_in(&members[1], "root", "pw").await.unwrap();
    assert_eq!(token.split('.').count(), 3, "{token}");
    for member in &members {
        assert_eq!(ask(member, &token).await, taken());
        let forged = format!("{}A", &token[..token.len() - 1]);
        let forged = if forged == token { format!("{}B", &token[..token.len() - 1]) } else { forged };
        assert_eq!(ask(member, &forged).await.0, Code::Unauthenticated);
    }
    let last = members.pop().unwrap().restart().await;
    assert_eq!(ask(&last, &token).await, taken(), "nothing but the key is needed");
    members.push(last);
    join_all(members.into_iter().map(Member::stop)).await;
}
