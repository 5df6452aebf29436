//! TLS on the client port: who is let in, and whose name a certificate carries.

use std::{fs, path::PathBuf, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use store::TlsFiles;
use tempfile::TempDir;
use tonic::Code;
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

use crate::one::{self, Member};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key for 127.0.0.1, usable by a server and a client.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

fn client_tls(authority: &Authority, pair: Option<&(String, String)>) -> ClientTls {
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
