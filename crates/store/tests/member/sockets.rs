//! How connections come in: socket files, both kinds on one port, websockets, and by which name.

use std::{fs, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _, future::join_all};
use store::{TlsFiles, Url};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};
use tokio_util::sync::CancellationToken;
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

use crate::{
    cluster::three,
    one::{self, Member},
    secure::works,
};

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_socket_file_serves_clients_and_is_never_taken_from_another() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("client.sock");
    let url: Url = format!("unix://{}", path.display()).parse().unwrap();
    // A former member was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let mut config = one::config("one", &folder);
    config.listen_client_urls = vec![url.clone()];
    config.advertise_client_urls = vec![url.clone()];
    let member = Member::run(config, folder, None).await;
    member.put("a", "1").await;
    assert!(member.get("a").await.is_some());

    let second = TempDir::new().unwrap();
    let mut config = one::config("two", &second);
    config.listen_client_urls = vec![url];
    let refused = store::start(config, CancellationToken::new()).await.err().unwrap();
    assert_eq!(refused.to_string(), format!("listen unix://{}: address already in use", path.display()));
    assert!(member.get("a").await.is_some());

    let (_, _folder) = member.stop_and_keep().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn peers_meet_at_socket_files() {
    let folder = TempDir::new().unwrap();
    let members = three(|config| {
        let place =
            |name: &str| -> Url { format!("unix://{}", folder.path().join(name).display()).parse().unwrap() };
        for (name, url) in &mut config.initial_cluster {
            *url = place(name);
        }
        config.listen_peer_urls = vec![place(&config.name)];
        config.initial_advertise_peer_urls = config.listen_peer_urls.clone();
    })
    .await;
    works(&members).await;
    let list = pb::MemberListRequest { linearizable: true };
    let listed = members[0].client.cluster.clone().member_list(list).await.unwrap().into_inner().members;
    assert!(listed.iter().all(|member| member.peer_ur_ls[0].starts_with("unix:///")), "{listed:?}");
    join_all(members.into_iter().map(Member::stop)).await;
}

/// A certificate that is its own authority, as `openssl req -x509` makes it.
fn self_signed(folder: &TempDir) -> (TlsFiles, String) {
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    let (cert_file, key_file) = (folder.path().join("server.crt"), folder.path().join("server.key"));
    fs::write(&cert_file, &certificate).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    (TlsFiles { cert_file, key_file, ..Default::default() }, certificate)
}

#[tokio::test]
async fn one_port_serves_tls_and_plain_connections() {
    let folder = TempDir::new().unwrap();
    let port = one::free_port();
    let (files, authority) = self_signed(&folder);
    let mut config = one::config("one", &folder);
    config.client_tls = Some(files);
    config.listen_client_urls =
        ["http", "https"].map(|scheme| format!("{scheme}://127.0.0.1:{port}").parse().unwrap()).to_vec();
    let member =
        Member::run(config, folder, Some(ClientTls { skip_verify: true, ..Default::default() })).await;
    let tls = ClientTls { ca_pem: Some(authority.into_bytes()), ..Default::default() };
    for url in member.store().client_urls() {
        let transport = Transport::connect(&[url.to_string()], Some(tls.clone()), PATIENCE).unwrap();
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        Client::new(transport).kv.put(put).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }
    assert_eq!(member.get("k").await.map(|kv| kv.version), Some(2));
    member.stop().await;
}

/// Opens a websocket below the gateway; gives the head of the answer too.
async fn open(member: &Member, path: &str, headers: &str) -> (String, WebSocketStream<TcpStream>) {
    let url = &member.store().client_urls()[0];
    let mut stream = TcpStream::connect((url.host().unwrap(), url.port().unwrap())).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    (String::from_utf8(head).unwrap(), socket)
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Option<String> {
    loop {
        match timeout(PATIENCE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => return Some(text.to_string()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

#[tokio::test]
async fn the_gateway_speaks_over_a_websocket() {
    let member =
        Member::start_with(|config| config.cors_origins = vec!["http://good.example".to_owned()]).await;
    let headers = "origin: http://good.example\r\nsec-websocket-protocol: Bearer, some.1\r\n";
    let (head, mut watch) = open(&member, "/v3/watch", headers).await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols"), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: Bearer"), "{head}");
    for key in ["YQ==", "Yg=="] {
        let create = format!("{{\"create_request\":{{\"key\":\"{key}\"}}}}");
        watch.send(Message::text(create)).await.unwrap();
        let created = next(&mut watch).await.unwrap();
        assert!(created.starts_with("{\"result\":") && created.contains("\"created\":true"), "{created}");
    }
    for (key, coded) in [("a", "YQ=="), ("b", "Yg==")] {
        member.put(key, "v").await;
        let event = next(&mut watch).await.unwrap();
        assert!(event.contains("\"events\"") && event.contains(coded), "{event}");
    }
    watch.send(Message::text("junk")).await.unwrap();
    let error = next(&mut watch).await.unwrap();
    assert!(error.contains("\"code\":3"), "{error}");
    assert_eq!(next(&mut watch).await, None);

    let (_, mut range) = open(&member, "/v3/kv/range", "").await;
    range.send(Message::binary(b"{\"key\":\"YQ==\"}".to_vec())).await.unwrap();
    assert!(next(&mut range).await.unwrap().contains("\"count\":\"1\""));
    assert_eq!(next(&mut range).await, None, "a plain call has one answer");

    let (head, _) = open(&member, "/v3/watch", "origin: http://evil.example\r\n").await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    let (head, _) = open(&member, "/v3/nothing", "").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    member.stop().await;
}

#[tokio::test]
async fn http_is_answered_only_under_an_allowed_name() {
    let member = Member::start_with(|config| config.allowed_hosts = vec!["good.example".to_owned()]).await;
    let ask = async |method: &str, path: &str, host: &str| {
        let url = &member.store().client_urls()[0];
        let mut stream = TcpStream::connect((url.host().unwrap(), url.port().unwrap())).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    };
    let answered = ask("GET", "/health", "good.example:2379").await;
    assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
    assert!(answered.contains("access-control-allow-origin: *"), "{answered}");
    let preflight = ask("OPTIONS", "/v3/kv/range", "good.example").await;
    assert!(preflight.starts_with("HTTP/1.1 200") && preflight.contains("access-control"), "{preflight}");
    let refused = ask("GET", "/health", "127.0.0.1").await;
    assert!(refused.starts_with("HTTP/1.1 421"), "{refused}");
    assert!(refused.contains("etcd --host-whitelist \"127.0.0.1\""), "{refused}");
    // gRPC is not asked for a name.
    member.put("k", "v").await;
    member.stop().await;
}

#[tokio::test]
async fn a_client_that_pings_too_often_is_told_to_calm_down() {
    let member = Member::start().await;
    let url = &member.store().client_urls()[0];
    let mut stream = TcpStream::connect((url.host().unwrap(), url.port().unwrap())).await.unwrap();
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    let begin =
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0], &ping.repeat(3)].concat();
    stream.write_all(&begin).await.unwrap();
    let mut told = Vec::new();
    let mut chunk = [0; 4096];
    let answered = |told: &[u8]| told.windows(8).filter(|part| *part == [1, 2, 3, 4, 5, 6, 7, 8]).count();
    while answered(&told) < 3 {
        let count = timeout(PATIENCE, stream.read(&mut chunk)).await.unwrap().unwrap();
        assert!(count > 0, "three pings are answered");
        told.extend_from_slice(&chunk[..count]);
    }
    told.clear();
    stream.write_all(&ping).await.unwrap();
    timeout(PATIENCE, stream.read_to_end(&mut told)).await.unwrap().unwrap();
    let calm = [&[0, 0, 22, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11][..], b"too_many_pings"].concat();
    assert!(told.ends_with(&calm), "{told:?}");
    member.stop().await;
}
