//! A member with a client, and short forms of what tests say often.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use store::{Config, Store, Url};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use wire::{
    Client, ClientTls, Transport,
    etcdserverpb::{self as pb, watch_request::RequestUnion},
    mvccpb, prefix_end,
};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Member {
    pub client: Client,
    store: Store,
    config: Config,
    shutdown: CancellationToken,
    folder: TempDir,
}

/// A member of its own cluster on free ports, without syncs.
pub(crate) fn config(name: &str, folder: &TempDir) -> Config {
    let mut config = Config::new(name, folder.path().join(name));
    let url = || -> Url { format!("http://127.0.0.1:{}", free_port()).parse().unwrap() };
    config.listen_client_urls = vec!["http://127.0.0.1:0".parse().unwrap()];
    config.listen_peer_urls = vec![url()];
    config.initial_advertise_peer_urls = config.listen_peer_urls.clone();
    config.fsync = false;
    config
}

impl Member {
    pub(crate) async fn start() -> Member {
        Member::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Member {
        let folder = TempDir::new().unwrap();
        let mut config = config("one", &folder);
        change(&mut config);
        Member::run(config, folder, None).await
    }

    pub(crate) async fn run(config: Config, folder: TempDir, tls: Option<ClientTls>) -> Member {
        let member = Member::run_unready(config, folder, tls).await;
        timeout(PATIENCE, member.store.ready()).await.unwrap();
        member
    }

    pub(crate) async fn run_unready(config: Config, folder: TempDir, tls: Option<ClientTls>) -> Member {
        let shutdown = CancellationToken::new();
        let store = store::start(config.clone(), shutdown.clone()).await.unwrap();
        let client = connect(&store, tls);
        Member { client, store, config, shutdown, folder }
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.store.stopped()).await.unwrap().unwrap();
    }

    /// Stops it and gives what a restart needs.
    pub(crate) async fn stop_and_keep(self) -> (Config, TempDir) {
        let Member { store, config, shutdown, folder, .. } = self;
        shutdown.cancel();
        timeout(PATIENCE, store.stopped()).await.unwrap().unwrap();
        (config, folder)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) async fn restart(self) -> Member {
        let (config, folder) = self.stop_and_keep().await;
        Member::run(config, folder, None).await
    }

    pub(crate) async fn try_put(&self, key: &str) -> Result<(), Status> {
        let put = pb::PutRequest { key: key.to_owned().into(), ..Default::default() };
        self.client.kv.clone().put(put).await.map(drop)
    }

    /// Gives the revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> i64 {
        let (key, value) = (key.to_owned().into(), value.to_owned().into());
        let put = pb::PutRequest { key, value, ..Default::default() };
        self.client.kv.clone().put(put).await.unwrap().into_inner().header.unwrap().revision
    }

    pub(crate) async fn get(&self, key: &str) -> Option<mvccpb::KeyValue> {
        let get = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.client.kv.clone().range(get).await.unwrap().into_inner().kvs.into_iter().next()
    }

    pub(crate) async fn delete(&self, key: &str) {
        let delete = pb::DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.client.kv.clone().delete_range(delete).await.unwrap();
    }

    /// Gives the revision.
    pub(crate) async fn delete_all(&self) -> i64 {
        let all = || vec![0].into();
        let delete = pb::DeleteRangeRequest { key: all(), range_end: all(), ..Default::default() };
        self.client.kv.clone().delete_range(delete).await.unwrap().into_inner().header.unwrap().revision
    }

    pub(crate) async fn compact(&self, revision: i64) {
        let compact = pb::CompactionRequest { revision, physical: true };
        self.client.kv.clone().compact(compact).await.unwrap();
    }

    /// Action 0 lists, 2 switches all off.
    pub(crate) async fn alarm(&self, action: i32) -> Vec<pb::AlarmMember> {
        let request = pb::AlarmRequest { action, ..Default::default() };
        self.client.maintenance.clone().alarm(request).await.unwrap().into_inner().alarms
    }

    pub(crate) async fn watch(&self) -> Watch {
        self.watch_as("").await
    }

    pub(crate) async fn watch_as(&self, token: &str) -> Watch {
        self.watch_with("token", token).await.unwrap()
    }

    /// Opens a watch stream with one entry of metadata.
    pub(crate) async fn watch_with(&self, name: &'static str, value: &str) -> Result<Watch, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let request = with(ReceiverStream::new(receiver), name, value);
        let answers = self.client.watch.clone().watch(request).await?.into_inner();
        Ok(Watch { requests, answers })
    }
}

pub(crate) fn connect(store: &Store, tls: Option<ClientTls>) -> Client {
    // Without TLS only the plain ones can be asked.
    let usable = store.client_urls().iter().filter(|url| tls.is_some() || !url.tls);
    let endpoints: Vec<String> = usable.map(Url::to_string).collect();
    Client::new(Transport::connect(&endpoints, tls, PATIENCE).unwrap())
}

pub(crate) struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    answers: Streaming<pb::WatchResponse>,
}

impl Watch {
    async fn send(&self, request: RequestUnion) {
        self.requests.send(pb::WatchRequest { request_union: Some(request) }).await.unwrap();
    }

    /// Sends the request and gives the next answer.
    pub(crate) async fn ask(&mut self, request: pb::WatchCreateRequest) -> pb::WatchResponse {
        self.send(RequestUnion::CreateRequest(request)).await;
        self.next().await
    }

    pub(crate) async fn send_create(&self, request: pb::WatchCreateRequest) {
        self.send(RequestUnion::CreateRequest(request)).await;
    }

    pub(crate) async fn create(&mut self, request: pb::WatchCreateRequest) {
        let answer = self.ask(request).await;
        assert!(answer.created && !answer.canceled, "{answer:?}");
    }

    pub(crate) async fn cancel(&mut self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id })).await;
    }

    pub(crate) async fn progress(&mut self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})).await;
    }

    pub(crate) async fn next(&mut self) -> pb::WatchResponse {
        timeout(PATIENCE, self.answers.message()).await.unwrap().unwrap().unwrap()
    }

    /// How the stream ends.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            if let Err(status) = timeout(PATIENCE, self.answers.message()).await.unwrap() {
                return status;
            }
        }
    }

    /// The next `count` events.
    pub(crate) async fn events(&mut self, count: usize) -> Vec<mvccpb::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.next().await.events);
        }
        events
    }
}

pub(crate) fn prefix(prefix: &str) -> pb::WatchCreateRequest {
    let (key, range_end) = (prefix.to_owned().into(), prefix_end(prefix.as_bytes()));
    pb::WatchCreateRequest { key, range_end, ..Default::default() }
}

pub(crate) fn with_token<T>(message: T, token: &str) -> tonic::Request<T> {
    with(message, "token", token)
}

/// A request with one entry of metadata, if it has a value.
pub(crate) fn with<T>(message: T, name: &'static str, value: &str) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if !value.is_empty() {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

pub(crate) fn kv_text(kv: &mvccpb::KeyValue) -> String {
    format!(
        "{}={} @{}",
        String::from_utf8_lossy(&kv.key),
        String::from_utf8_lossy(&kv.value),
        kv.mod_revision
    )
}

pub(crate) fn event_texts(events: &[mvccpb::Event]) -> Vec<String> {
    let text = |event: &mvccpb::Event| {
        let kind = if event.r#type == 0 { "PUT" } else { "DELETE" };
        format!("{kind} {}", kv_text(event.kv.as_ref().unwrap()))
    };
    events.iter().map(text).collect()
}

/// Ports are between 15000 and 15999, never the same twice in one run; runs begin at different places. None of them is
/// given to an outgoing connection while a member that is to have it is not there yet.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub(crate) fn free_port() -> u16 {
    let begin = u16::try_from(std::process::id() % 20 * 50).unwrap();
    loop {
        let taken = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        assert!(taken < 1_000, "out of ports");
        let port = 15_000 + (begin + taken) % 1_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
