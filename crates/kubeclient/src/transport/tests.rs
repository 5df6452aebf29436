//! The transport over real sockets: TLS with client certificates, both HTTP versions, failover.

use std::sync::Arc;

use apimachinery::meta;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::fake::Fake;
use crate::{Client, Error, Informer, InformerEvent, InformerOptions, Value, WatchOptions};

struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    fn issue(&self, names: &[&str]) -> (Vec<u8>, Vec<u8>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }
}

struct Server {
    url: String,
    stop: CancellationToken,
}

impl Server {
    /// Serves the service; `alpn` are the protocols that it agrees to.
    async fn start(service: LocalService, authority: &Authority, alpn: &[&str]) -> Server {
        let (chain, key) = authority.issue(&["127.0.0.1"]);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&authority.pem()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(&chain).unwrap()],
                PrivateKeyDer::from_pem_slice(&key).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let token = stop.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = tokio::select! {
                    () = token.cancelled() => return,
                    accepted = listener.accept() => accepted.unwrap(),
                };
                let (acceptor, service, token) = (acceptor.clone(), service.clone(), token.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let connection = connection(stream, service);
                    tokio::select! {
                        () = token.cancelled() => {}
                        () = connection => {}
                    }
                });
            }
        });
        Server { url, stop }
    }
}

/// Boxed where the types are concrete, for the compiler's sake.
fn connection(
    stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    service: LocalService,
) -> BoxFuture<'static, ()> {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    let service = service.map_request(|request: Request<hyper::body::Incoming>| {
        request.map(|body| body.map_err(BoxError::from).boxed_unsync())
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    connection.map(|_| ()).boxed()
}

fn client(authority: &Authority, servers: &[&str]) -> Client {
    let endpoint = Endpoint {
        servers: servers.iter().map(|url| (*url).to_owned()).collect(),
        ca_pem: Some(authority.pem()),
        client_identity_pem: Some(authority.issue(&["client"])),
        ..Endpoint::default()
    };
    Client::new(Transport::connect(endpoint).unwrap(), "test")
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "d"}})
}

#[tokio::test]
async fn requests_and_watches_work_over_both_http_versions() {
    let authority = Authority::new("ca");
    for alpn in [&["h2"][..], &["http/1.1"]] {
        let fake = Fake::new();
        let server = Server::start(fake.service(), &authority, alpn).await;
        let pods = client(&authority, &[&server.url]).api("", "v1", "pods");
        pods.create(&pod("a")).await.unwrap();
        let error = pods.create(&pod("a")).await.unwrap_err();
        assert!(error.is_already_exists(), "{error}");
        let mut watch = pods
            .watch(&WatchOptions { resource_version: "1".to_owned(), ..Default::default() })
            .await
            .unwrap();
        for name in ["b", "c"] {
            pods.create(&pod(name)).await.unwrap();
        }
        for name in ["a", "b", "c"] {
            match watch.next().await.unwrap().unwrap() {
                crate::WatchEvent::Added(object) => assert_eq!(meta::of(&object).name(), name),
                other => panic!("{other:?}"),
            }
        }
        server.stop.cancel();
    }
}

#[tokio::test]
async fn the_next_server_takes_over() {
    let authority = Authority::new("ca");
    let fake = Fake::new();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (one, two) = (
        Server::start(fake.service(), &authority, &["h2"]).await,
        Server::start(fake.service(), &authority, &["h2"]).await,
    );
    let client = client(&authority, &[&format!("https://{closed}"), &one.url, &two.url]);
    let pods = client.api("", "v1", "pods");
    pods.create(&pod("a")).await.unwrap();

    let mut informer = Informer::start(pods.clone(), InformerOptions::default(), CancellationToken::new());
    let first = informer.next().await.unwrap();
    assert!(
        matches!(&first, InformerEvent::Applied { object, .. } if meta::of(object).name() == "a"),
        "{first:?}"
    );
    assert_eq!(informer.next().await.unwrap(), InformerEvent::Synced);
    one.stop.cancel();
    // the connection may be found dead only by using it: a write is then of unknown outcome, and may be tried again
    let mut last = None;
    for _ in 0..50 {
        match pods.create(&pod("b")).await {
            Ok(_) => break,
            Err(error) if error.is_already_exists() => break,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let next = tokio::time::timeout(std::time::Duration::from_secs(5), informer.next()).await;
    let next = next.unwrap_or_else(|_| panic!("no event, last error {last:?}")).unwrap();
    assert!(
        matches!(&next, InformerEvent::Applied { object, .. } if meta::of(object).name() == "b"),
        "{next:?}"
    );
    two.stop.cancel();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let mut errors = Vec::new();
    for _ in 0..2 {
        errors.push(pods.get_opt("a").await.unwrap_err());
    }
    assert!(matches!(errors.pop(), Some(Error::Unreachable { .. })), "{errors:?}");
}

/// A member without a quorum answers, but cannot serve.
#[tokio::test]
async fn a_server_that_cannot_serve_is_avoided() {
    let authority = Authority::new("ca");
    for code in [503, 504] {
        let lame = LocalService::new(tower::service_fn(move |_: Request<Body>| async move {
            let mut answer = Response::new(crate::empty_body());
            *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
            Ok(answer)
        }));
        let lame = Server::start(lame, &authority, &["h2"]).await;
        let well = Server::start(Fake::new().service(), &authority, &["h2"]).await;
        let pods = client(&authority, &[&lame.url, &well.url]).api("", "v1", "pods");
        let error = pods.create(&pod("a")).await.unwrap_err();
        assert_eq!(error.status().unwrap().code, code);
        for name in ["a", "b"] {
            pods.create(&pod(name)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn an_untrusted_server_or_client_is_refused_with_the_reason() {
    let (authority, foreign) = (Authority::new("ca"), Authority::new("foreign"));
    let server = Server::start(Fake::new().service(), &authority, &["h2"]).await;
    let error = client(&foreign, &[&server.url]).api("", "v1", "pods").get("a").await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { .. }) && error.to_string().contains("certificate"),
        "{error}"
    );

    let endpoint =
        Endpoint { servers: vec![server.url.clone()], ca_pem: Some(authority.pem()), ..Endpoint::default() };
    let anonymous = Client::new(Transport::connect(endpoint).unwrap(), "test");
    let error = anonymous.api("", "v1", "pods").get("a").await.unwrap_err();
    assert!(error.status().is_none(), "{error}");
}

#[test]
fn endpoints_that_cannot_work_say_why() {
    let endpoint = |server: &str, ca: Option<&str>| Endpoint {
        servers: vec![server.to_owned()],
        ca_pem: ca.map(|ca| ca.as_bytes().to_vec()),
        ..Endpoint::default()
    };
    let table = [
        (Endpoint::default(), "no server is given"),
        (endpoint("ftp://x", None), "server \"ftp://x\" is not an http or https URL"),
        (endpoint("x:1", None), "server \"x:1\" is not an http or https URL"),
        (endpoint("https://x", None), "a CA certificate is needed to verify https://x/"),
        (
            endpoint("https://x", Some("junk")),
            "cannot read the CA certificate: no certificate in the PEM text",
        ),
        (
            Endpoint { bearer_token: Some("a\nb".to_owned()), ..endpoint("http://x", None) },
            "the bearer token has characters that cannot be sent",
        ),
    ];
    for (endpoint, message) in table {
        assert_eq!(Transport::connect(endpoint).unwrap_err().to_string(), message);
    }
}
