//! Clients that are gone without a word, and such as never come as far as a request.

use std::path::Path;
use std::time::{Duration, Instant};

use harness::{certificates::Authority, etcd::EtcdTls};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::{Client, ClientTls, Transport};

use crate::rig::{PATIENCE, Victim, frame, put};

/// Twice as many as a member has under way at once.
const HANDSHAKES: usize = 2000;
/// Of this process and, inherited, of the member: a socket each for every handshake, and what else they need.
const OPEN_FILES_MIN: u64 = HANDSHAKES as u64 + 500;

async fn eventually_closed(victim: &Victim, open_before: usize) {
    let begin = Instant::now();
    while victim.open_files() > open_before + 10 {
        assert!(begin.elapsed() < 2 * PATIENCE, "{} files are open", victim.open_files());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn connections_of_clients_that_fell_silent_are_closed() {
    let mut victim = Victim::start(&["--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=2s"]).await;
    let open_before = victim.open_files();
    let mut kept = Vec::new();
    let mut open_most = 0;
    for number in 0..100 {
        open_most = open_most.max(victim.open_files());
        let mut connection = victim.connect(65_535).await;
        let watch = connection.watch().await;
        let lock = wire::v3lockpb::LockRequest { name: "l".into(), ..Default::default() };
        let waiting = connection.send("/v3lockpb.Lock/Lock", frame(&lock), true).await.unwrap();
        if number % 2 == 0 {
            // The socket is closed in the middle of everything.
            connection.driver.abort();
        } else {
            // The socket stays open, but nobody answers pings any more.
            kept.push((connection, watch, waiting));
        }
    }
    // Nobody drives these connections from now on: their tasks are stopped, their sockets are not closed.
    let sockets: Vec<TcpStream> = futures_util::future::join_all((0..50).map(|_| async {
        let mut socket = TcpStream::connect(&victim.authority).await.unwrap();
        // The preface and empty settings: HTTP/2 without anybody behind it.
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        socket
    }))
    .await;
    open_most = open_most.max(victim.open_files());
    assert!(open_most > open_before + 20, "the member had {open_most} open files at most: nobody was there");
    for (connection, ..) in &kept {
        connection.driver.abort();
    }
    drop(kept);
    eventually_closed(&victim, open_before).await;
    drop(sockets);
    victim.is_well(300).await;
}

#[tokio::test]
async fn handshakes_that_do_not_end_hold_up_nobody_and_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::root("hostile").unwrap();
    let server = authority.server(dir.path(), "server", &["127.0.0.1"]).unwrap();
    let tls = EtcdTls { certificate: &server.certificate, key: &server.key, client_authority: None };
    let authority_path = dir.path().join("ca.crt");
    std::fs::write(&authority_path, authority.certificate_pem()).unwrap();
    let read = |path: &Path| Some(std::fs::read(path).unwrap());
    let trusting = ClientTls { ca_pem: read(&authority_path), ..ClientTls::default() };
    let files = harness::raise_open_files_max().unwrap();
    assert!(files >= OPEN_FILES_MIN, "{files} open files are too few");
    let mut victim = Victim::start_with_tls(Some(&tls), Some(trusting.clone()), &[]).await;
    let open_before = victim.open_files();
    let beginnings: [&[u8]; 4] = [
        b"",
        b"\x16\x03\x01",                             // a record's header, in part
        b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc\x03", // 16 KiB of client hello, of which six bytes come
        b"GET / HTTP/1.1\r\n",
    ];
    let mut sockets = Vec::new();
    for number in 0..HANDSHAKES {
        let mut socket = TcpStream::connect(&victim.authority).await.unwrap();
        socket.write_all(beginnings[number % beginnings.len()]).await.unwrap();
        sockets.push(socket);
    }
    // A client hello that comes as slowly as it can without falling silent.
    let drips = (0..50).map(|_| {
        let authority = victim.authority.clone();
        tokio::spawn(async move {
            let mut socket = TcpStream::connect(&authority).await.unwrap();
            let begin = Instant::now();
            for byte in beginnings[2].iter().chain(std::iter::repeat(&0)) {
                tokio::time::sleep(Duration::from_millis(500)).await;
                if socket.write_all(&[*byte]).await.is_err() {
                    return true;
                }
                if begin.elapsed() > PATIENCE {
                    break;
                }
            }
            false
        })
    });
    let drips: Vec<_> = drips.collect();
    // Whoever comes now waits for a place, and gets one.
    let late = Transport::connect(&victim.cluster.client_urls, Some(trusting), PATIENCE).unwrap();
    let late = tokio::time::timeout(PATIENCE, Client::new(late).kv.put(put("late", "1"))).await;
    late.expect("a handshake among many that do not end").unwrap();
    victim.is_well(300).await;
    for drip in drips {
        assert!(drip.await.unwrap(), "a handshake of one byte at a time was waited for");
    }
    for mut socket in sockets {
        let mut answer = Vec::new();
        // An alert may come first; then the connection is closed, or reset.
        drop(tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.unwrap());
    }
    eventually_closed(&victim, open_before).await;
    victim.is_well(300).await;
}
