//! TLS and HTTP as clients meet them: certificates, protocols, health, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apiserver::{Body, Config};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::certificates::Pki;
use crate::fake_etcd::FakeEtcd;
use crate::fixture::{Member, PODS, body};

struct Served {
    member: Member,
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn serve(pki: &Pki) -> Served {
    serve_with(pki, |_| {}).await
}

async fn serve_with(pki: &Pki, change: impl FnOnce(&mut Config)) -> Served {
    let mut config = Config {
        tls_cert_file: Some(pki.path("server.crt")),
        tls_private_key_file: Some(pki.path("server.key")),
        client_ca_file: Some(pki.path("root.crt")),
        ..Config::default()
    };
    change(&mut config);
    let tls = apiserver::server_config(&config).unwrap();
    let member = Member::start_with(&FakeEtcd::new(), config).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let (api, token) = (member.api.clone(), stop.clone());
    let serving = tokio::spawn(async move { api.serve(listener, tls, token).await.unwrap() });
    Served { member, address, stop, serving }
}

/// One request on a connection of its own, over the protocol that ALPN gives for `protocols`.
async fn ask(
    served: &Served,
    client: Arc<ClientConfig>,
    protocols: &[&[u8]],
    path: &str,
) -> Response<Incoming> {
    let mut client = (*client).clone();
    client.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = rustls_pki_types::ServerName::from(served.address.ip());
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let request = Request::get(format!("https://{}{path}", served.address)).body(body("")).unwrap();
    send(TokioIo::new(stream), is_http2, request).await
}

async fn send(
    stream: TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
    is_http2: bool,
    mut request: Request<Body>,
) -> Response<Incoming> {
    if is_http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        return sender.send_request(request).await.unwrap();
    }
    let host = request.uri().authority().unwrap().to_string();
    *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
    request.headers_mut().insert("host", host.parse().unwrap());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn a_certificate_is_who_its_subject_says_a_foreign_one_is_refused_and_none_is_anonymous() {
    let pki = Pki::new();
    let served = serve(&pki).await;
    for protocols in [&[b"h2".as_slice()][..], &[b"http/1.1"], &[]] {
        for (client, path, code) in [
            (pki.client("admin", "system:masters"), PODS, 200),
            (pki.client("jiang", "dev"), PODS, 403),
            (pki.client("jiang", "dev"), "/api/", 200),
            (pki.foreigner("admin", "system:masters"), "/version", 401),
            (pki.nobody(), "/version", 200),
            (pki.nobody(), "/api/", 403),
        ] {
            let answer = ask(&served, client, protocols, path).await;
            assert_eq!(answer.status().as_u16(), code, "{path} {protocols:?}");
            if code == 401 {
                let bytes = answer.into_body().collect().await.unwrap().to_bytes();
                let status: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                assert_eq!(status["message"], "Unauthorized");
            }
        }
    }
    let event = served.member.audited(|event| event["responseStatus"]["code"] == 401).await;
    assert_eq!(event["responseStatus"]["message"], "Authentication failed, attempted: x509");
    let event = served.member.audited(|event| event["user"]["username"] == "system:anonymous").await;
    assert_eq!(event["sourceIPs"][0], "127.0.0.1");
}

#[tokio::test]
async fn plain_text_gets_nowhere() {
    let pki = Pki::new();
    let served = serve(&pki).await;
    let mut plain = TcpStream::connect(served.address).await.unwrap();
    plain.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), plain.read_to_end(&mut answer)).await;
    assert!(read.is_ok(), "the connection is closed");
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_connections_keep_nobody_from_being_served() {
    let pki = Pki::new();
    let served = serve(&pki).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    let answer = ask(&served, pki.nobody(), &[b"h2"], "/version").await;
    assert_eq!(answer.status(), 200);
    drop(silent);
}

#[tokio::test]
async fn told_to_stop_the_server_ends_watches_finishes_requests_and_returns() {
    let pki = Pki::new();
    let served = serve(&pki).await;
    let watch =
        ask(&served, pki.client("admin", "system:masters"), &[b"h2"], &format!("{PODS}?watch=1")).await;
    assert_eq!(watch.status(), 200);
    served.stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(5), watch.into_body().collect()).await;
    assert!(ended.is_ok_and(|body| body.is_ok()), "the watch ends without an error");
    tokio::time::timeout(Duration::from_secs(5), served.serving).await.unwrap().unwrap();
    assert!(TcpStream::connect(served.address).await.is_err(), "nobody listens");
    let event =
        served.member.audited(|event| event["verb"] == "watch" && event["stage"] == "ResponseComplete").await;
    assert_eq!(event["responseStatus"]["code"], 200);
}

#[tokio::test]
async fn health_tells_its_checks_and_readiness_ends_with_the_stop() {
    let pki = Pki::new();
    let served = serve(&pki).await;
    let text = |answer: Response<Incoming>| async move {
        (
            answer.status().as_u16(),
            String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        )
    };
    let nobody = || pki.nobody();
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(text(ask(&served, nobody(), &[], path).await).await, (200, "ok".to_string()));
    }
    let (code, verbose) = text(ask(&served, nobody(), &[], "/readyz?verbose&exclude=etcd").await).await;
    assert_eq!(code, 200);
    assert!(
        verbose.contains("[+]etcd excluded: ok\n") && verbose.ends_with("readyz check passed\n"),
        "{verbose}"
    );
    let admin = pki.client("admin", "system:masters");
    assert_eq!(text(ask(&served, admin.clone(), &[], "/livez/ping").await).await, (200, "ok".to_string()));
    assert_eq!(ask(&served, admin, &[], "/livez/nonsense").await.status(), 404);
}

#[tokio::test]
async fn with_a_goaway_chance_connections_end_in_peace_and_no_request_is_lost() {
    let pki = Pki::new();
    let served = serve_with(&pki, |config| config.goaway_chance = 0.02).await;
    let mut client = (*pki.nobody()).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(served.address).await.unwrap();
    let name = rustls_pki_types::ServerName::from(served.address.ip());
    let stream = TlsConnector::from(Arc::new(client)).connect(name, stream).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let mut answered = 0;
    // 2 000 requests without one GOAWAY would be a chance of 1 in 10^17.
    while answered < 2_000 && sender.ready().await.is_ok() {
        let request = Request::get(format!("https://{}/version", served.address)).body(body("")).unwrap();
        let Ok(answer) = sender.send_request(request).await else { break };
        assert_eq!(answer.status(), 200);
        assert!(!answer.into_body().collect().await.unwrap().to_bytes().is_empty());
        answered += 1;
    }
    assert!(answered < 2_000, "the connection was never asked to end");
    assert!(connection.await.unwrap().is_ok(), "it ended without an error");
    assert_eq!(ask(&served, pki.nobody(), &[b"h2"], "/version").await.status(), 200, "a new one is served");
}
