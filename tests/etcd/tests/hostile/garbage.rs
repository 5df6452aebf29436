//! Bytes that are no request.

use std::time::Duration;

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::etcdserverpb as pb;

use crate::rig::{PATIENCE, Victim, frame};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";

/// Writes all of it, as far as the server takes it, and reads what comes for a short while. `ends`: says that there is no
/// more, which to some servers means that nobody waits for an answer.
pub(crate) async fn throw(victim: &Victim, bytes: &[u8], ends: bool) -> Vec<u8> {
    let mut socket = TcpStream::connect(&victim.authority).await.unwrap();
    let (mut reader, mut writer) = socket.split();
    let mut answer = Vec::new();
    let both = async {
        // It may be closed in between: that is an answer.
        drop(writer.write_all(bytes).await);
        if ends {
            drop(writer.shutdown().await);
        }
        drop((&mut reader).take(1 << 20).read_to_end(&mut answer).await);
    };
    // Some of it is the beginning of a request, of which the server waits for the rest.
    let patience = if ends { Duration::from_secs(2) } else { PATIENCE };
    drop(tokio::time::timeout(patience, both).await);
    answer
}

/// A frame of HTTP/2.
pub(crate) fn raw_frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
    out
}

#[tokio::test]
async fn bytes_that_are_no_http_end_their_connection_only() {
    let mut victim = Victim::start(&[]).await;
    let seed = 20_261_121;
    let mut random = StdRng::seed_from_u64(seed);
    let mut junk = |length: usize| -> Vec<u8> { (0..length).map(|_| random.random()).collect() };
    let mut thrown: Vec<Vec<u8>> =
        vec![junk(1), junk(100), junk(100_000), vec![0; 100_000], vec![b'\n'; 100_000]];
    for _ in 0..20 {
        thrown.push([PREFACE, SETTINGS, &junk(5000)].concat());
    }
    for kind in 0..=10 {
        for stream in [0, 1, 2, u32::MAX >> 1] {
            let frame = raw_frame(kind, 0xff, stream, &junk(64));
            thrown.push([PREFACE, SETTINGS, &frame, &frame].concat());
        }
    }
    // Headers that never end.
    let mut endless = [PREFACE, SETTINGS].concat();
    endless.extend(raw_frame(1, 0, 1, &[0x40; 16_000]));
    for _ in 0..500 {
        endless.extend(raw_frame(9, 0, 1, &[0x40; 16_000]));
    }
    thrown.push(endless);
    // Pings, settings and empty data without end.
    for frame in [raw_frame(6, 0, 0, &[0; 8]), raw_frame(4, 0, 0, b""), raw_frame(0, 0, 1, b"")] {
        thrown.push([PREFACE.to_vec(), SETTINGS.to_vec(), frame.repeat(100_000)].concat());
    }
    // HTTP/1.1.
    thrown.push([b"GET /", &vec![b'a'; 1 << 20][..], b" HTTP/1.1\r\n\r\n"].concat());
    thrown.push([&b"GET / HTTP/1.1\r\n"[..], &b"a: b\r\n".repeat(100_000)[..], b"\r\n"].concat());
    for line in [
        "GET / HTTP/9.9\r\n\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n\u{1}\u{2}",
    ] {
        thrown.push(line.as_bytes().to_vec());
    }
    for bytes in &thrown {
        throw(&victim, bytes, true).await;
    }
    victim.is_well(200).await;
}

#[tokio::test]
async fn bodies_that_are_no_message_are_refused() {
    let mut victim = Victim::start(&[]).await;
    let mut connection = victim.connect(1 << 20).await;
    let put = frame(&pb::PutRequest { key: "a".into(), ..Default::default() });
    let with_flag = |flag: u8| -> Bytes { [&[flag], &put[1..]].concat().into() };
    let bodies: Vec<Bytes> = vec![
        Bytes::new(),
        Bytes::from_static(b"\0"),
        Bytes::from_static(b"\0\xff\xff\xff\xff"),
        Bytes::from_static(b"\0\x7f\xff\xff\xffabc"),
        Bytes::from_static(b"\0\0\0\0\x05\xff\xff\xff\xff\xff"),
        Bytes::from_static(b"\0\0\0\0\x0b\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        with_flag(1),
        with_flag(7),
        put.slice(..put.len() - 1),
        [&put[..], &put[..]].concat().into(),
        vec![0; 50_000].into(),
        [&b"\0\0\x2f\0\0"[..], &vec![0; 0x2f_0000]].concat().into(),
    ];
    let paths = [
        "/etcdserverpb.KV/Put",
        "/etcdserverpb.KV/Txn",
        "/etcdserverpb.KV/RangeStream",
        "/etcdserverpb.Watch/Watch",
        "/etcdserverpb.Lease/LeaseKeepAlive",
        "/v3lockpb.Lock/Unlock",
        "/grpc.health.v1.Health/Check",
        "/etcdserverpb.KV/Nothing",
        "/",
        "/%00/%ff",
    ];
    for path in paths {
        for body in &bodies {
            let Ok((response, _stream)) = connection.send(path, body.clone(), true).await else {
                connection = victim.connect(1 << 20).await; // the server has had enough of this one
                continue;
            };
            // A stream that was asked nothing has nothing to say: it is given up.
            let patience = Duration::from_secs(1);
            let Ok(Ok(response)) = tokio::time::timeout(patience, response).await else { continue };
            let mut rest = response.into_body();
            while let Ok(Some(Ok(data))) = tokio::time::timeout(patience, rest.data()).await {
                rest.flow_control().release_capacity(data.len()).unwrap();
            }
        }
    }
    victim.is_well(200).await;
}

#[tokio::test]
async fn calls_that_are_given_up_at_once_end_their_connection_only() {
    let mut victim = Victim::start(&[]).await;
    for _ in 0..5 {
        let mut connection = victim.connect(65_535).await;
        let range = frame(&pb::RangeRequest { key: "a".into(), ..Default::default() });
        for _ in 0..5000 {
            let Ok((response, mut stream)) =
                connection.send("/etcdserverpb.KV/Range", range.clone(), false).await
            else {
                break; // the server has had enough of it
            };
            stream.send_reset(h2::Reason::CANCEL);
            drop(response);
        }
    }
    victim.is_well(200).await;
}

#[tokio::test]
async fn bodies_of_the_gateway_have_a_bound() {
    let mut victim = Victim::start(&[]).await;
    let head = |length: usize| {
        format!(
            "POST /v3/kv/put HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let whole = |body: &str| format!("{}{body}", head(body.len())).into_bytes();
    let status = |answer: &[u8]| String::from_utf8_lossy(answer).split(' ').nth(1).map(str::to_owned);
    for body in
        ["[".repeat(100_000), "{\"a\":".repeat(100_000), "{\"key\":\"!\"}".to_owned(), "\0".to_owned()]
    {
        assert_eq!(status(&throw(&victim, &whole(&body), false).await).as_deref(), Some("400"));
    }
    // A body of a gigabyte, of which 100 MiB come if they are taken.
    let mut huge = head(1 << 30).into_bytes();
    huge.resize(100 << 20, b' ');
    for _ in 0..3 {
        throw(&victim, &huge, true).await;
    }
    victim.is_well(150).await;
}
