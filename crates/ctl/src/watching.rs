//! Watches that outlive a connection: after a break, each is made again where it left off.
//!
//! Invariants: no event is missed or told twice, unless the history between was compacted, which ends that watch.
//! What a server says of its own accord (no permission, no leader, a wrong request) is an end, not a break.
//! `next` may be dropped at any time. Not here: printing (command/watch.rs), mirroring (command/mirror.rs).

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming, metadata::MetadataValue};
use wire::etcdserverpb::{
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request::RequestUnion,
};

use crate::{failure::Failure, login, session::Session};

/// Between attempts to reach a member again.
const RETRY_INTERVAL: Duration = Duration::from_millis(250);
/// How long after a break it is no end that there is no leader: a member that was started again has to find one.
const ELECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Requests that may wait to be sent, besides one for each watch.
const REQUESTS_WAITING_MAX: usize = 16;

/// Some watches on one stream. A watch is known by its place in the order of `add`.
pub(crate) struct Watches<'a> {
    session: &'a Session,
    watches: Vec<Watch>,
    stream: Option<Stream>,
    /// Logins since a watch was last told something.
    logins: usize,
    /// Since when nothing was heard, after a break.
    silent_since: Option<Instant>,
}

struct Watch {
    request: WatchCreateRequest,
    /// The server's name for it on the current stream.
    id: Option<i64>,
    ended: bool,
}

struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// Watches that were asked for and not confirmed yet, in order.
    unconfirmed: VecDeque<usize>,
}

impl Watches<'_> {
    pub(crate) fn new(session: &Session) -> Watches<'_> {
        Watches { session, watches: Vec::new(), stream: None, logins: 0, silent_since: None }
    }

    pub(crate) async fn add(&mut self, request: WatchCreateRequest) {
        let place = self.watches.len();
        self.watches.push(Watch { request: request.clone(), id: None, ended: false });
        if let Some(stream) = &mut self.stream {
            stream.unconfirmed.push_back(place);
            // If the stream has just broken, the watch is made with the next one.
            let _ = stream.requests.send(create(request)).await;
        }
    }

    /// Asks how far all watches are; nothing happens while there is no connection.
    pub(crate) async fn ask_progress(&mut self) {
        if let Some(stream) = &self.stream {
            let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = stream.requests.send(WatchRequest { request_union: Some(request) }).await;
        }
    }

    pub(crate) fn all_ended(&self) -> bool {
        self.watches.iter().all(|watch| watch.ended)
    }

    /// The next answer and the watch that it is for; none if it is for all. Waits for ever while there is no watch.
    pub(crate) async fn next(&mut self) -> Result<(Option<usize>, WatchResponse), Failure> {
        loop {
            if self.all_ended() {
                std::future::pending::<()>().await;
            }
            let Some(stream) = &mut self.stream else {
                self.connect().await?;
                continue;
            };
            match stream.answers.next().await {
                // The stream is bound to the token that it was opened with.
                Some(Ok(answer)) if self.logins < login::ATTEMPTS_MAX && is_stale(&answer) => {
                    (self.stream, self.logins) = (None, self.logins + 1);
                    let logged_in = self.session.log_in_again().await;
                    if !logged_in.map_err(|status| self.session.failed(&status))? {
                        return Err(Failure::error(answer.cancel_reason));
                    }
                }
                Some(Ok(answer)) => {
                    (self.logins, self.silent_since) = (0, None);
                    if let Some(told) = self.take(answer) {
                        return Ok(told);
                    }
                }
                Some(Err(status)) if self.is_end(&status) => return Err(self.session.failed(&status)),
                Some(Err(_)) | None => {
                    self.stream = None;
                    self.silent_since.get_or_insert_with(Instant::now);
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Failure> {
        let (requests, receiver) = mpsc::channel(self.watches.len() + REQUESTS_WAITING_MAX);
        let mut unconfirmed = VecDeque::new();
        for (place, watch) in self.watches.iter_mut().enumerate().filter(|(_, watch)| !watch.ended) {
            watch.id = None;
            unconfirmed.push_back(place);
            let _ = requests.send(create(watch.request.clone())).await;
        }
        let mut asked = self.session.ask(ReceiverStream::new(receiver));
        asked.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
        let mut client = self.session.client.watch.clone();
        match client.watch(asked).await {
            Ok(answers) => {
                self.stream = Some(Stream { requests, answers: answers.into_inner(), unconfirmed });
                Ok(())
            }
            Err(status) if self.is_end(&status) => Err(self.session.failed(&status)),
            Err(_) => {
                tokio::time::sleep(RETRY_INTERVAL).await;
                Ok(())
            }
        }
    }

    /// Notes how far a watch is; nothing of it is for the caller if it only says that the watch was made.
    fn take(&mut self, answer: WatchResponse) -> Option<(Option<usize>, WatchResponse)> {
        let revision = answer.header.map_or(0, |header| header.revision);
        let place = if answer.created {
            self.stream.as_mut().and_then(|stream| stream.unconfirmed.pop_front())
        } else {
            self.watches.iter().position(|watch| watch.id == Some(answer.watch_id))
        };
        let Some(watch) = place.and_then(|place| self.watches.get_mut(place)) else {
            return Some((None, answer)); // progress of all watches
        };
        if answer.created {
            watch.id = Some(answer.watch_id);
        }
        if answer.canceled {
            (watch.ended, watch.id) = (true, None);
            return Some((place, answer));
        }
        if let Some(event) = answer.events.last() {
            watch.request.start_revision = event.kv.as_ref().map_or(revision, |kv| kv.mod_revision) + 1;
        } else if !answer.created || watch.request.start_revision == 0 {
            watch.request.start_revision = watch.request.start_revision.max(revision + 1);
        }
        (!answer.created).then_some((place, answer))
    }

    /// Whether the server has decided, so that asking again is no use.
    fn is_end(&self, status: &Status) -> bool {
        let of_server = status.message().starts_with("etcdserver:");
        match status.code() {
            Code::Unavailable | Code::Internal if status.message() == "etcdserver: no leader" => {
                self.silent_since.is_none_or(|since| since.elapsed() > ELECTION_TIME_MAX)
            }
            Code::Unavailable | Code::Internal => false,
            // How a torn connection shows when it tore in the middle of an answer.
            Code::Unknown | Code::Cancelled => of_server,
            _ => true,
        }
    }
}

fn create(request: WatchCreateRequest) -> WatchRequest {
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
}

fn is_stale(answer: &WatchResponse) -> bool {
    answer.canceled && login::is_stale_reason(&answer.cancel_reason)
}
