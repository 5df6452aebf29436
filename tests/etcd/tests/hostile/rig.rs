//! A member under attack, somebody who uses it meanwhile, and raw HTTP/2 connections to do harm with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use harness::etcd::{EtcdCluster, EtcdTls};
use prost::Message;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt as _;
use wire::{Client, ClientTls, Transport, etcdserverpb as pb};

/// Far longer than anything takes that works.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Victim {
    pub(crate) cluster: EtcdCluster,
    pub(crate) client: Client,
    /// Host and port.
    pub(crate) authority: String,
    peak_before_kib: u64,
    bystander: Bystander,
}

/// Puts and reads its own key all the time.
struct Bystander {
    served: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Victim {
    pub(crate) async fn start(flags: &[&str]) -> Victim {
        Victim::start_with_tls(None, None, flags).await
    }

    pub(crate) async fn start_with_tls(
        tls: Option<&EtcdTls<'_>>,
        client_tls: Option<ClientTls>,
        flags: &[&str],
    ) -> Victim {
        let cluster = EtcdCluster::start(1, None, tls, flags).unwrap();
        let url = cluster.client_urls[0].clone();
        let connect =
            || Transport::connect(std::slice::from_ref(&url), client_tls.clone(), PATIENCE).unwrap();
        let client = Client::new(connect());
        let begin = Instant::now();
        while let Err(status) = client.kv.clone().put(put("ready", "")).await {
            assert!(begin.elapsed() < PATIENCE, "not ready: {status}\n{}", cluster.log_ends());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let served = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(stand_by(Client::new(connect()), served.clone()));
        let bystander = Bystander { served, task };
        let authority = url.split_once("://").unwrap().1.to_owned();
        let mut victim = Victim { cluster, client, authority, peak_before_kib: 0, bystander };
        victim.remember_memory();
        victim
    }

    /// Nobody else uses the member from here on.
    pub(crate) fn dismiss_bystander(&mut self) {
        self.bystander.task.abort();
    }

    /// From here on growth is counted.
    pub(crate) fn remember_memory(&mut self) {
        self.peak_before_kib = self.peak_kib();
    }

    fn peak_kib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.cluster.process_id(0).unwrap());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Open files of the process, sockets among them.
    pub(crate) fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.cluster.process_id(0).unwrap());
        std::fs::read_dir(path).unwrap().count()
    }

    /// The member is well, and somebody was served while it was attacked and is still.
    pub(crate) async fn is_well(&mut self, growth_mib_max: u64) {
        let logs = || self.cluster.log_ends();
        let before = self.bystander.served.load(Ordering::Relaxed);
        let begin = Instant::now();
        while self.bystander.served.load(Ordering::Relaxed) < before + 2 {
            assert!(!self.bystander.task.is_finished(), "another client was not served:\n{}", logs());
            assert!(begin.elapsed() < PATIENCE, "another client waits for ever:\n{}", logs());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut kv = self.client.kv.clone();
        let written = tokio::time::timeout(PATIENCE, kv.put(put("well", "1"))).await;
        written.unwrap_or_else(|_| panic!("no answer:\n{}", logs())).unwrap();
        let log = std::fs::read_to_string(self.cluster.log(0)).unwrap();
        assert!(!log.contains("panicked"), "{}", logs());
        let growth_mib = (self.peak_kib() - self.peak_before_kib) / 1024;
        assert!(growth_mib < growth_mib_max, "memory has grown by {growth_mib} MiB at its peak");
        self.cluster.alive(0).unwrap();
    }

    /// A raw connection that lets the server send `window_bytes` on each stream before it has to wait.
    pub(crate) async fn connect(&self, window_bytes: u32) -> Raw {
        let socket = TcpStream::connect(&self.authority).await.unwrap();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window_bytes).max_concurrent_reset_streams(100_000);
        let (sender, connection) = builder.handshake(socket).await.unwrap();
        let driver = tokio::spawn(async move {
            // How it ends is the test's business.
            drop(connection.await);
        });
        Raw { sender, driver, authority: self.authority.clone() }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        self.bystander.task.abort();
    }
}

async fn stand_by(client: Client, served: Arc<AtomicU64>) {
    let mut kv = client.kv;
    for number in 0_u64.. {
        let value = number.to_string();
        tokio::time::timeout(PATIENCE, kv.put(put("bystander", &value))).await.unwrap().unwrap();
        let read = pb::RangeRequest { key: "bystander".into(), ..Default::default() };
        let read = tokio::time::timeout(PATIENCE, kv.range(read)).await.unwrap().unwrap();
        assert_eq!(read.into_inner().kvs[0].value, value);
        served.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn put(key: &str, value: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() }
}

/// One HTTP/2 connection, without anybody who reads what comes.
pub(crate) struct Raw {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) driver: JoinHandle<()>,
    authority: String,
}

impl Raw {
    pub(crate) fn request(&self, path: &str) -> http::Request<()> {
        http::Request::post(format!("http://{}{path}", self.authority))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap()
    }

    /// Sends these bytes as the body of a call. `ends`: nothing comes behind them.
    pub(crate) async fn send(
        &mut self,
        path: &str,
        body: Bytes,
        ends: bool,
    ) -> Result<(ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let request = self.request(path);
        let mut sender = self.sender.clone().ready().await?;
        let (response, mut stream) = sender.send_request(request, false)?;
        stream.send_data(body, ends)?;
        Ok((response, stream))
    }

    /// A watch of all keys whose answers nobody reads. Both halves must be kept.
    pub(crate) async fn watch(&mut self) -> (RecvStream, h2::SendStream<Bytes>) {
        let create =
            pb::WatchCreateRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let union = pb::watch_request::RequestUnion::CreateRequest(create);
        let request = pb::WatchRequest { request_union: Some(union) };
        let (response, stream) =
            self.send("/etcdserverpb.Watch/Watch", frame(&request), false).await.unwrap();
        let response = tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap();
        (response.into_body(), stream)
    }

    /// A call with one request whose answer nobody reads.
    pub(crate) async fn call(&mut self, path: &str, request: &impl Message) -> RecvStream {
        let (response, _) = self.send(path, frame(request), true).await.unwrap();
        tokio::time::timeout(PATIENCE, response).await.unwrap().unwrap().into_body()
    }
}

/// A message as gRPC frames it.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    out.extend_from_slice(&message.encode_to_vec());
    out.into()
}

/// A watch through an ordinary client; the first answer has been read.
pub(crate) async fn watch(
    client: &Client,
    creates: Vec<pb::WatchCreateRequest>,
) -> tonic::Streaming<pb::WatchResponse> {
    let requests = creates.into_iter().map(|create| pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(create)),
    });
    let requests = tokio_stream::iter(requests).chain(tokio_stream::pending());
    let mut answers = client.watch.clone().watch(requests).await.unwrap().into_inner();
    let first = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap().unwrap().unwrap();
    assert!(first.created && !first.canceled, "{first:?}");
    answers
}
