//! Frames without end, each of them allowed: the member must not be the one who works or remembers.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::garbage::{PREFACE, SETTINGS, raw_frame};
use crate::rig::{PATIENCE, Victim};

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS_KIND: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// A header as HPACK has it when nothing is shortened.
pub(crate) fn header(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    assert!(name.len() < 127 && value.len() < 127, "longer lengths are written in another way");
    [vec![0], text(name), text(value)].concat()
}

pub(crate) fn request_headers(path: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "a"),
        header("content-type", "application/grpc"),
        header("te", "trailers"),
    ]
    .concat()
}

/// For what need not be closed.
const SHORTLY: Duration = Duration::from_secs(5);

/// Sends chunk after chunk and throws away what comes. True if the member closed the connection, false if it took all or,
/// for longer than anybody waits, no more.
async fn is_closed(victim: &Victim, chunks: impl Iterator<Item = Vec<u8>>, within: Duration) -> bool {
    let socket = TcpStream::connect(&victim.authority).await.unwrap();
    let (mut reader, mut writer) = socket.into_split();
    let drain = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 16];
        while reader.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    });
    let all = async {
        writer.write_all(&[PREFACE, SETTINGS].concat()).await?;
        for chunk in chunks {
            writer.write_all(&chunk).await?;
        }
        std::io::Result::Ok(())
    };
    drop(tokio::time::timeout(PATIENCE, all).await);
    // The other side's end is what counts: ours stays open.
    tokio::time::timeout(within, drain).await.is_ok()
}

#[tokio::test]
async fn streams_that_are_reset_as_fast_as_they_begin_are_borne_and_served_past() {
    let mut victim = Victim::start(&[]).await;
    let block = request_headers("/etcdserverpb.KV/Range");
    let streams = (0..100_000_u32).map(|number| {
        let stream = 2 * number + 1;
        [raw_frame(HEADERS, END_HEADERS, stream, &block), raw_frame(RESET, 0, stream, &8_u32.to_be_bytes())]
            .concat()
    });
    // Whether it is closed depends on how fast the member looks at the streams; what it costs does not.
    is_closed(&victim, streams, SHORTLY).await;
    victim.is_well(64).await;
}

#[tokio::test]
async fn headers_that_never_end_close_their_connection() {
    let mut victim = Victim::start(&[]).await;
    let block = request_headers("/etcdserverpb.KV/Range");
    let first = std::iter::once(raw_frame(HEADERS, 0, 1, &block));
    for piece in [vec![], header("a", "b"), header("a", &"b".repeat(100)).repeat(150)] {
        let endless = std::iter::repeat_n(raw_frame(CONTINUATION, 0, 1, &piece), 50_000);
        assert!(
            is_closed(&victim, first.clone().chain(endless), PATIENCE).await,
            "{} bytes in each",
            piece.len()
        );
    }
    victim.is_well(64).await;
}

#[tokio::test]
async fn pings_and_settings_without_end_cost_nothing() {
    let mut victim = Victim::start(&[]).await;
    let frames = [
        raw_frame(PING, 0, 0, &[7; 8]),
        raw_frame(SETTINGS_KIND, 0, 0, b""),
        raw_frame(SETTINGS_KIND, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
    ];
    for frame in frames {
        is_closed(&victim, std::iter::repeat_n(frame.repeat(1000), 300), SHORTLY).await;
        // The same without reading the answers.
        let mut socket = TcpStream::connect(&victim.authority).await.unwrap();
        let all = async {
            socket.write_all(&[PREFACE, SETTINGS].concat()).await?;
            for _ in 0..300 {
                socket.write_all(&frame.repeat(1000)).await?;
            }
            std::io::Result::Ok(())
        };
        drop(tokio::time::timeout(SHORTLY, all).await);
    }
    victim.is_well(64).await;
}
