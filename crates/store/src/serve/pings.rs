//! How often a client may ping: `--grpc-keepalive-min-time`, enforced as grpc-go's servers do, which etcd is built on.
//!
//! Invariants: a ping that comes earlier than `min_time` after the one before is a strike, and so is one within two hours
//! while no call is open. Answering a call forgives all strikes, and the ping that follows. More than two strikes end the
//! connection with GOAWAY, ENHANCE_YOUR_CALM, "too_many_pings", a text that clients know: they ping less often then. The
//! farewell stands between two whole frames. Only heads of frames are looked at; a connection that is not HTTP/2, or whose
//! frames cannot be told apart, is left alone.
//! Source: grpc-go internal/transport/http2_server.go, `handlePing`. Not here: pings of the server.

use std::{
    collections::HashSet,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// Strikes that a client has.
const STRIKES_MAX: u32 = 2;
/// Between pings while no call is open.
const IDLE_TIME_MIN: Duration = Duration::from_secs(2 * 3600);
/// What a `min_time` of zero means to grpc-go.
const DEFAULT_TIME_MIN: Duration = Duration::from_secs(300);

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 11;
const DEBUG_DATA: &[u8] = b"too_many_pings";

/// A connection whose client may not ping too often.
pub(super) struct Enforced<S> {
    stream: S,
    received: Frames,
    sent: Frames,
    policy: Policy,
    /// Bytes of the preface that came, until it is complete.
    preface_bytes: usize,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It is not known yet what the client speaks.
    Preface,
    Watched,
    /// Not HTTP/2, or nobody wants to know.
    Unwatched,
    /// Too many pings. What is left of the farewell.
    Ending(Vec<u8>),
}

impl<S> Enforced<S> {
    /// Without `min_time` pings are not looked at.
    pub(super) fn new(stream: S, min_time: Option<Duration>) -> Enforced<S> {
        let state = if min_time.is_some() { State::Preface } else { State::Unwatched };
        let min_time = min_time.filter(|time| !time.is_zero()).unwrap_or(DEFAULT_TIME_MIN);
        Enforced {
            stream,
            received: Frames::default(),
            sent: Frames::default(),
            policy: Policy::new(min_time),
            preface_bytes: 0,
            state,
        }
    }

    fn received(&mut self, mut bytes: &[u8]) {
        if self.state == State::Preface {
            let expected = &PREFACE[self.preface_bytes..];
            let count = expected.len().min(bytes.len());
            if bytes[..count] != expected[..count] {
                self.state = State::Unwatched;
                return;
            }
            self.preface_bytes += count;
            bytes = &bytes[count..];
            if self.preface_bytes == PREFACE.len() {
                self.state = State::Watched;
            }
        }
        if self.state != State::Watched {
            return;
        }
        let mut now = None;
        let mut enough = false;
        let policy = &mut self.policy;
        self.received.push(bytes, |head| match head.kind {
            HEADERS => policy.opened(head.stream),
            RST_STREAM => policy.closed(head.stream),
            PING if head.flags & ACK == 0 => enough |= policy.ping(*now.get_or_insert_with(Instant::now)),
            _ => {}
        });
        if enough {
            self.state = State::Ending(farewell(self.policy.last_stream));
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        if matches!(self.state, State::Preface | State::Unwatched) {
            return;
        }
        let policy = &mut self.policy;
        self.sent.push(bytes, |head| match head.kind {
            DATA | HEADERS => {
                policy.answered();
                if head.flags & END_STREAM != 0 {
                    policy.closed(head.stream);
                }
            }
            RST_STREAM => policy.closed(head.stream),
            _ => {}
        });
    }
}

impl<S: AsyncWrite + Unpin> Enforced<S> {
    /// Says farewell; resolves with the error that ends the connection. Only between two frames.
    fn poll_farewell(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        while let State::Ending(left) = &mut self.state
            && !left.is_empty()
        {
            match ready!(Pin::new(&mut self.stream).poll_write(context, left)) {
                Ok(0) => return Poll::Ready(io::ErrorKind::WriteZero.into()),
                Ok(count) => drop(left.drain(..count)),
                Err(error) => return Poll::Ready(error),
            }
        }
        match ready!(Pin::new(&mut self.stream).poll_flush(context)) {
            Ok(()) => Poll::Ready(io::Error::other("too many pings")),
            Err(error) => Poll::Ready(error),
        }
    }
}

impl<S: AsyncRead + Unpin> Enforced<S> {
    /// Resolves when the client sends no more; what it sends until then is for nobody.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ignored = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut ignored);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// The frame GOAWAY.
fn farewell(last_stream: u32) -> Vec<u8> {
    let size_bytes = 8 + DEBUG_DATA.len() as u32;
    let mut frame = Vec::with_capacity(HEAD_BYTES + 8 + DEBUG_DATA.len());
    frame.extend_from_slice(&size_bytes.to_be_bytes()[1..]);
    frame.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    frame.extend_from_slice(&last_stream.to_be_bytes());
    frame.extend_from_slice(&ENHANCE_YOUR_CALM.to_be_bytes());
    frame.extend_from_slice(DEBUG_DATA);
    frame
}

#[derive(Debug)]
struct Policy {
    min_time: Duration,
    strikes: u32,
    last_ping: Option<Instant>,
    /// Whether something was answered since the last ping.
    forgiven: bool,
    open: HashSet<u32>,
    last_stream: u32,
}

impl Policy {
    fn new(min_time: Duration) -> Policy {
        Policy {
            min_time,
            strikes: 0,
            last_ping: None,
            forgiven: false,
            open: HashSet::new(),
            last_stream: 0,
        }
    }

    fn opened(&mut self, stream: u32) {
        // The second HEADERS of a stream are its trailers.
        if stream > self.last_stream {
            self.last_stream = stream;
            self.open.insert(stream);
        }
    }

    fn closed(&mut self, stream: u32) {
        self.open.remove(&stream);
    }

    fn answered(&mut self) {
        self.forgiven = true;
    }

    /// Whether it was one too many.
    fn ping(&mut self, now: Instant) -> bool {
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return false;
        }
        let wanted = if self.open.is_empty() { IDLE_TIME_MIN } else { self.min_time };
        if last.is_some_and(|last| now.duration_since(last) < wanted) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX
    }
}

/// Where in a sequence of frames one direction of a connection is.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that came.
    head_bytes: usize,
    /// Bytes of the frame's payload still to come.
    payload_bytes: usize,
}

struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

impl Frames {
    fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Head)) {
        while !bytes.is_empty() {
            if self.payload_bytes > 0 {
                let count = self.payload_bytes.min(bytes.len());
                self.payload_bytes -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEAD_BYTES - self.head_bytes).min(bytes.len());
            self.head[self.head_bytes..self.head_bytes + count].copy_from_slice(&bytes[..count]);
            self.head_bytes += count;
            bytes = &bytes[count..];
            if self.head_bytes == HEAD_BYTES {
                self.head_bytes = 0;
                let [a, b, c, kind, flags, stream @ ..] = self.head;
                self.payload_bytes = u32::from_be_bytes([0, a, b, c]) as usize;
                each(Head { kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff });
            }
        }
    }

    /// Bytes until the current frame ends, as far as they are known; 0 between frames.
    fn left_bytes(&self) -> usize {
        match self.head_bytes {
            0 => self.payload_bytes,
            begun => HEAD_BYTES - begun,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Enforced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !matches!(this.state, State::Ending(_)) {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            this.received(&buffer.filled()[before..]);
            if !matches!(this.state, State::Ending(_)) {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
        // In the middle of a frame its writer is waiting for the socket, and goes on when that has room. Or the client goes.
        match this.sent.left_bytes() {
            0 => this.poll_farewell(context).map(Err),
            _ => this.poll_gone(context),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Enforced<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if matches!(this.state, State::Ending(_)) {
            match this.sent.left_bytes() {
                0 => return this.poll_farewell(context).map(Err),
                left => bytes = &bytes[..left.min(bytes.len())],
            }
        }
        let count = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.sent(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if matches!(self.state, State::Ending(_)) {
            let first = parts.iter().find(|part| !part.is_empty()).map_or(&[][..], |part| part);
            return self.poll_write(context, first);
        }
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, parts))?;
        let mut left = count;
        for part in parts {
            let taken = left.min(part.len());
            self.sent(&part[..taken]);
            left -= taken;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const MIN_TIME: Duration = Duration::from_secs(5);

    /// `ping AFTER_S`, `call` (opens one), `answer` (a message of it), `end` (of it); `bye` stands behind a ping that is
    /// one too many.
    #[test]
    fn strikes_are_counted_as_grpc_go_counts_them() {
        for script in [
            // Every five seconds during a call is what the flag allows.
            "call ping 0 ping 5 ping 5 ping 5 ping 5",
            "call ping 0 ping 4 ping 4 ping 4 bye",
            // Strikes are forgiven by an answer only.
            "call ping 0 ping 4 ping 60 ping 4 ping 60 ping 4 bye",
            "call ping 0 ping 1 ping 1 answer ping 1 ping 1 ping 1 ping 1 bye",
            "call ping 0 ping 1 answer ping 1 answer ping 1 answer ping 1 answer ping 1",
            // Without a call every two hours.
            "ping 0 ping 7200 ping 7200 ping 7200",
            "ping 0 ping 3600 ping 3600 ping 3600 bye",
            "call end ping 0 ping 60 ping 60 ping 60 bye",
            "call call end ping 0 ping 60 ping 60 ping 60 ping 60 ping 60",
        ] {
            let (mut policy, mut now, mut streams) = (Policy::new(MIN_TIME), Instant::now(), Vec::new());
            let mut words = script.split(' ').peekable();
            while let Some(word) = words.next() {
                match word {
                    "call" => {
                        streams.push(policy.last_stream + 2);
                        policy.opened(policy.last_stream + 2);
                    }
                    "answer" => policy.answered(),
                    "end" => {
                        policy.answered();
                        policy.closed(streams.pop().unwrap());
                    }
                    "ping" => {
                        now += Duration::from_secs(words.next().unwrap().parse().unwrap());
                        let enough = policy.ping(now);
                        assert_eq!(enough, words.next_if_eq(&"bye").is_some(), "{script}");
                    }
                    other => panic!("{other}"),
                }
            }
        }
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&size[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn connection(space_bytes: usize) -> (Enforced<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(space_bytes);
        (Enforced::new(server, Some(MIN_TIME)), client)
    }

    /// What the server reads until the connection ends, and how it ends.
    async fn read(server: &mut Enforced<DuplexStream>) -> (Vec<u8>, Option<String>) {
        let mut bytes = Vec::new();
        let end = server.read_to_end(&mut bytes).await;
        (bytes, end.err().map(|error| error.to_string()))
    }

    #[tokio::test]
    async fn a_client_that_pings_too_often_is_told_so_and_let_go() {
        let (mut server, mut client) = connection(1 << 16);
        let ping = frame(PING, 0, 0, &[7; 8]);
        let headers = frame(HEADERS, 4, 5, b"a call");
        client
            .write_all(&[PREFACE, &frame(4, 0, 0, &[]), &headers, &ping, &ping, &ping].concat())
            .await
            .unwrap();
        let mut bytes = vec![0; PREFACE.len() + 9 + headers.len() + 3 * ping.len()];
        server.read_exact(&mut bytes).await.unwrap();
        client.write_all(&ping).await.unwrap();
        assert_eq!(read(&mut server).await, (Vec::new(), Some("too many pings".to_owned())));
        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        let expected = [&[0, 0, 0, 5, 0, 0, 0, 11][..], b"too_many_pings"].concat();
        assert_eq!(told, frame(GOAWAY, 0, 0, &expected));
    }

    #[tokio::test]
    async fn the_farewell_waits_for_the_end_of_a_frame() {
        let (mut server, mut client) = connection(64);
        let pings = frame(PING, 0, 0, &[7; 8]).repeat(4);
        let data = frame(DATA, 0, 5, &[9; 100]);
        client.write_all(PREFACE).await.unwrap();
        let mut preface = [0; PREFACE.len()];
        server.read_exact(&mut preface).await.unwrap();
        // Most of a frame is on its way.
        let written = server.write(&data).await.unwrap();
        assert_eq!(written, 64);
        let serving = async {
            // An answer has just been given: one more ping is forgiven.
            let bytes = read(&mut server);
            assert!(tokio::time::timeout(Duration::from_millis(50), bytes).await.is_err());
            let more = [&data[written..], &frame(DATA, 0, 5, b"never sent")].concat();
            let error = server.write_all(&more).await.unwrap_err();
            assert_eq!(error.to_string(), "too many pings");
            drop(server);
        };
        let asking = async {
            client.write_all(&pings).await.unwrap();
            client.write_all(&pings[..17]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
            told
        };
        let ((), told) = tokio::join!(serving, asking);
        assert_eq!(told, [data.clone(), farewell(0)].concat());
    }

    #[tokio::test]
    async fn a_client_that_goes_in_the_middle_of_a_frame_is_not_waited_for() {
        let (mut server, mut client) = connection(64);
        client.write_all(PREFACE).await.unwrap();
        let mut preface = [0; PREFACE.len()];
        server.read_exact(&mut preface).await.unwrap();
        server.write_all(&frame(DATA, 0, 5, &[9; 200])[..50]).await.unwrap();
        let reading = tokio::spawn(async move { read(&mut server).await });
        client.write_all(&frame(PING, 0, 0, &[7; 8]).repeat(9)).await.unwrap();
        // Says no more, and takes no more.
        client.shutdown().await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap();
        assert_eq!(ended.unwrap().1, None);
    }

    #[tokio::test]
    async fn what_is_no_http2_passes_through() {
        for text in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/1.1\r\n\r\n", b"P", b""] {
            let (mut server, mut client) = connection(1 << 16);
            let bytes = [text, &frame(PING, 0, 0, &[7; 8]).repeat(10)].concat();
            client.write_all(&bytes).await.unwrap();
            drop(client);
            assert_eq!(read(&mut server).await, (bytes, None));
        }
    }
}
