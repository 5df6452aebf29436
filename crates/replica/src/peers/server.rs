//! What this member answers to other members.
//!
//! Invariant: nothing is done for a caller that means another cluster or another member; a quarantined member gives no
//! vote, and one that may have forgotten its votes follows no leader below its floor (quarantine.rs). Not here: sockets (connect.rs), bytes (codec.rs).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use openraft::Snapshot;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::AppendEntriesResponse;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use wire::peerpb::Frame;
use wire::peerpb::peer_server::{Peer, PeerServer};

use super::meter::Meter;
use super::{CLUSTER_KEY, FROM_KEY, REMOVED_TEXT, TO_KEY, connect, frame};
use crate::codec::{self, Answer, CodecError, FRAME_SIZE_BYTES_MAX, Question};
use crate::handle::Inner;
use crate::metrics::InFlight;
use crate::node_of;
use crate::raft_types::*;
use crate::snapshot::{Import, SnapshotBody};
use crate::surroundings::Listener;
use crate::waiters::{Refusal, Refused, write_responder};

/// A heartbeat is answered after this even if the disk has not caught up with earlier appends.
const HEARTBEAT_PATIENCE: Duration = Duration::from_millis(5);
const QUARANTINED_TEXT: &str = "the member is quarantined and gives no votes";
const FORGETFUL_TEXT: &str = "the member may have forgotten a vote and follows no leader of an earlier term";

const OUTRANKED_TEXT: &str =
    "the member's log ends in a later term than the snapshot; one of the sender's term is needed";

type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;
type Answered<T> = Result<Response<T>, Status>;

/// Serves until `shutdown`, then gives streams a moment to end.
pub(crate) async fn serve(inner: Arc<Inner>, listener: Box<dyn Listener>, shutdown: CancellationToken) {
    let incoming = connect::accept(listener, inner.config.peer_tls.as_ref(), shutdown.clone());
    let dead_after = Duration::from_millis(inner.config.election_timeout_ms).max(Duration::from_secs(1));
    let service = PeerServer::new(Service { inner, shutdown: shutdown.clone() })
        .max_decoding_message_size(FRAME_SIZE_BYTES_MAX)
        .max_encoding_message_size(FRAME_SIZE_BYTES_MAX);
    let serving = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(dead_after / 2))
        .http2_keepalive_timeout(Some(dead_after))
        .initial_stream_window_size(connect::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(connect::CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(None)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let overdue = async {
        shutdown.cancelled().await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    tokio::select! {
        result = serving => if let Err(error) = result {
            tracing::error!(%error, "peer server");
        },
        () = overdue => {}
    }
}

struct Service {
    inner: Arc<Inner>,
    shutdown: CancellationToken,
}

impl Service {
    /// The member of this cluster that asks.
    fn sender<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        if id(request, CLUSTER_KEY)? != self.inner.identity.cluster_id {
            return Err(Status::failed_precondition("cluster ID mismatch"));
        }
        id(request, FROM_KEY)
    }

    /// Checks who asks whom; answers the asking member's id.
    fn check<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let from = self.sender(request)?;
        if id(request, TO_KEY)? != self.inner.identity.member_id {
            return Err(Status::failed_precondition("this is another member"));
        }
        if let Some(meter) = request.extensions().get::<Arc<Meter>>()
            && !meter.is_owned()
            && node_of(&self.inner.raft, from).is_some()
        {
            meter.belongs_to(self.inner.peers.meters.of(from));
        }
        Ok(from)
    }

    /// Counts a message that makes no sense.
    fn malformed(&self, from: u64, error: &CodecError) -> Status {
        if node_of(&self.inner.raft, from).is_some() {
            self.inner.peers.meters.of(from).received_failures.fetch_add(1, Ordering::Relaxed);
        }
        Status::new(Code::InvalidArgument, error.to_string())
    }

    fn is_removed(&self, id: u64) -> bool {
        self.inner.left_behind.contains(&id)
            || self.inner.state.with_core(|core| core.position.removed.contains(&id))
    }

    /// Like `check`, for calls that a removed member must not make.
    fn check_member<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let from = self.check(request)?;
        if self.is_removed(from) { Err(Status::permission_denied(REMOVED_TEXT)) } else { Ok(from) }
    }

    /// Like `check`, for what leaders send. A leader that was removed goes on for those who still follow it; nobody else
    /// listens to it: members that `--force-new-cluster` left behind may well elect one of themselves.
    fn check_leader<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let from = self.check(request)?;
        self.check_not_removed(from)?;
        Ok(from)
    }

    fn check_not_removed(&self, from: u64) -> Result<(), Status> {
        let followed = || self.inner.raft.metrics().borrow_watched().current_leader == Some(from);
        if self.is_removed(from) && !followed() {
            return Err(Status::permission_denied(REMOVED_TEXT));
        }
        Ok(())
    }

    fn check_voter<T>(&self, request: &Request<T>) -> Result<u64, Status> {
        let from = self.check_member(request)?;
        if self.inner.is_quarantined() { Err(Status::unavailable(QUARANTINED_TEXT)) } else { Ok(from) }
    }

    /// Ends a stream with the member.
    fn bounded(&self, stream: impl Stream<Item = Result<Frame, Status>> + Send + 'static) -> Frames {
        Box::pin(stream.take_until(self.shutdown.clone().cancelled_owned()))
    }

    async fn take_forwarded(
        &self,
        from: u64,
        payload: bytes::Bytes,
        refusals: &mpsc::UnboundedSender<(u64, Refusal)>,
    ) -> bool {
        let proposals = match codec::forward(payload) {
            Ok(proposals) => proposals,
            Err(error) => {
                self.malformed(from, &error);
                tracing::warn!(%error, from = format!("{from:x}"), "forward stream");
                return false;
            }
        };
        let leads = self.inner.leadership.borrow().leader == Some(self.inner.identity.member_id);
        let refusal = match (leads, self.inner.is_overloaded()) {
            (false, _) => Some(Refusal::NotLeader),
            (true, true) => Some(Refusal::TooManyRequests),
            (true, false) => None,
        };
        for (id, bytes) in proposals {
            if let Some(refusal) = refusal {
                if refusals.send((id, refusal)).is_err() {
                    return false;
                }
                continue;
            }
            let responder = write_responder(id, Refused::Remote(refusals.clone()));
            if self.inner.raft.client_write_ff(Payload(bytes), Some(responder)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn answer(&self, request: &Request<Frame>) -> Result<Answer, Status> {
        // Whoever does not know the cluster yet asks only this; nothing else of a stranger is decoded.
        if request.get_ref().payload == codec::to_bytes(&Question::WhoAreYou) {
            // A member asks from time to time: one that was removed hears of it here at the latest, also if its flags,
            // which may be all that it has, know this member by an id of another time.
            if request.metadata().contains_key(FROM_KEY) {
                self.check_not_removed(self.sender(request)?)?;
                self.check(request)?;
            }
            return Ok(self.inner.describe());
        }
        let from = self.check_member(request)?;
        let question = codec::from_bytes(&request.get_ref().payload, "question")
            .map_err(|error| self.malformed(from, &error))?;
        Ok(match question {
            Question::WhoAreYou => self.inner.describe(),
            question @ (Question::LeaseRenew { .. } | Question::LeaseRemaining { .. }) => {
                match self.inner.lease_here(&question).await {
                    Ok(lease) => Answer::Lease(lease.map(|lease| (lease.granted_ttl_s, lease.remaining_s))),
                    Err(crate::LeaseError::NoLeader | crate::LeaseError::Stopped) => Answer::NotLeader,
                    Err(crate::LeaseError::Timeout { .. }) => Answer::TimedOut,
                }
            }
            Question::HashKv { revision } => match self.inner.state.hash_kv(revision).await {
                Ok(hash) => Answer::HashKv {
                    hash: hash.hash,
                    compact_revision: hash.compact_revision,
                    revision: self.inner.state.read(|store, _| store.revision()),
                },
                Err(error) => Answer::NoHash { reason: error.to_string() },
            },
            Question::Membership(change) => match self.inner.change_members(&change).await {
                Ok(index) => Answer::Changed { index },
                Err(error) => Answer::Refused(error),
            },
        })
    }
}

fn id<T>(request: &Request<T>, key: &str) -> Result<u64, Status> {
    let text = request.metadata().get(key).and_then(|value| value.to_str().ok());
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or_else(|| Status::invalid_argument(format!("call without {key}")))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl Peer for Service {
    type AppendStream = Frames;
    type ForwardStream = Frames;

    async fn append(&self, request: Request<Streaming<Frame>>) -> Answered<Frames> {
        let from = self.check_leader(&request)?;
        if !self.inner.floor.is_known() {
            return Err(Status::unavailable(FORGETFUL_TEXT));
        }
        let floor = self.inner.floor.clone();
        let contact = self.inner.contact.clone();
        let counters = self.inner.peers.meters.of(from);
        let requests = tokio_stream::StreamExt::map_while(
            request.into_inner(),
            move |message: Result<Frame, Status>| {
                let decoded = message.ok().map(|frame| codec::append_request(frame.payload));
                match decoded {
                    Some(Ok(request)) if floor.admits(request.vote.leader_id.term) => {
                        contact.touch();
                        Some(request)
                    }
                    Some(Ok(_)) => None,
                    Some(Err(error)) => {
                        counters.received_failures.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(%error, from = format!("{from:x}"), "append request");
                        None
                    }
                    None => None,
                }
            },
        );
        let results = self.inner.raft.stream_append(requests).map(|result| match result {
            Ok(result) => Ok(frame(codec::append_result_bytes(&result))),
            Err(error) => Err(stopped(error)),
        });
        Ok(Response::new(self.bounded(results)))
    }

    async fn append_once(&self, request: Request<Frame>) -> Answered<Frame> {
        let from = self.check_leader(&request)?;
        let rpc = codec::append_request(request.into_inner().payload)
            .map_err(|error| self.malformed(from, &error))?;
        if !self.inner.floor.admits(rpc.vote.leader_id.term) {
            return Err(Status::unavailable(FORGETFUL_TEXT));
        }
        self.inner.contact.touch();
        let prev = rpc.prev_log_id;
        let last = rpc.entries.last().map(|entry| entry.log_id).or(prev);
        let (vote, is_heartbeat) = (rpc.vote, rpc.entries.is_empty());
        let raft = self.inner.raft.clone();
        let append = async move { raft.append_entries(rpc).await };
        tokio::pin!(append);
        let response = tokio::select! {
            response = &mut append => response.map_err(stopped)?,
            () = tokio::time::sleep(HEARTBEAT_PATIENCE), if is_heartbeat => {
                // The answer waits for appends that are on their way to the disk. A heartbeat asks only whether this
                // member still follows the leader, and that is known: its vote is accepted.
                if self.inner.raft.metrics().borrow_watched().vote == vote {
                    self.inner.counters.heartbeats_answered_early.fetch_add(1, Ordering::Relaxed);
                    AppendEntriesResponse::Success
                } else {
                    append.await.map_err(stopped)?
                }
            }
        };
        let result = match (&response, prev) {
            (AppendEntriesResponse::Conflict, None) => {
                return Err(Status::internal("conflict at the log's start"));
            }
            _ => response.into_stream_result(prev, last),
        };
        Ok(Response::new(frame(codec::append_result_bytes(&result))))
    }

    async fn vote(&self, request: Request<Frame>) -> Answered<Frame> {
        let from = self.check_voter(&request)?;
        let rpc = codec::vote_request(request.into_inner().payload)
            .map_err(|error| self.malformed(from, &error))?;
        let response = self.inner.raft.vote(rpc).await.map_err(stopped)?;
        Ok(Response::new(frame(codec::vote_response_bytes(&response))))
    }

    async fn pre_vote(&self, request: Request<Frame>) -> Answered<Frame> {
        let from = self.check_voter(&request)?;
        let rpc = codec::vote_request(request.into_inner().payload)
            .map_err(|error| self.malformed(from, &error))?;
        let response = self.inner.raft.pre_vote(rpc).await.map_err(stopped)?;
        Ok(Response::new(frame(codec::vote_response_bytes(&response))))
    }

    async fn transfer_leader(&self, request: Request<Frame>) -> Answered<Frame> {
        let from = self.check_leader(&request)?;
        if self.inner.is_quarantined() {
            return Err(Status::unavailable(QUARANTINED_TEXT));
        }
        let rpc = codec::transfer_request(request.into_inner().payload)
            .map_err(|error| self.malformed(from, &error))?;
        let response = self.inner.raft.handle_transfer_leader(rpc).await.map_err(stopped)?;
        Ok(Response::new(frame(codec::transfer_response_bytes(&response))))
    }

    async fn snapshot(&self, request: Request<Streaming<Frame>>) -> Answered<Frame> {
        let from = self.check_leader(&request)?;
        if !self.inner.floor.is_known() {
            return Err(Status::unavailable(FORGETFUL_TEXT));
        }
        let Ok(one_at_a_time) = self.inner.incoming_snapshot.clone().try_lock_owned() else {
            return Err(Status::resource_exhausted("another snapshot is being received"));
        };
        // A task of its own: the sender may go away at any moment, but whoever writes the file holds the lock to its end.
        let receiving = receive_snapshot(self.inner.clone(), from, request.into_inner());
        let receiving = tokio::spawn(async move {
            let answer = receiving.await;
            drop(one_at_a_time);
            answer
        });
        receiving.await.map_err(stopped)?
    }

    async fn forward(&self, request: Request<Streaming<Frame>>) -> Answered<Frames> {
        let from = self.check_member(&request)?;
        let mut frames = request.into_inner();
        // Not bounded by itself: at most one refusal per proposal that its sender has in flight.
        let (sender, receiver) = mpsc::unbounded_channel();
        let service = Service { inner: self.inner.clone(), shutdown: self.shutdown.clone() };
        tokio::spawn(async move {
            let taking = async {
                while let Ok(Some(message)) = frames.message().await {
                    if !service.take_forwarded(from, message.payload, &sender).await {
                        return;
                    }
                }
            };
            tokio::select! {
                () = taking => {}
                () = service.shutdown.cancelled() => {}
            }
        });
        let refusals = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
        let answers = refusals.map(|(id, refusal)| Ok(frame(codec::refusal_bytes(id, refusal))));
        Ok(Response::new(self.bounded(answers)))
    }

    async fn read_index(&self, request: Request<Frame>) -> Answered<Frame> {
        self.check_member(&request)?;
        if self.inner.leadership.borrow().leader != Some(self.inner.identity.member_id) {
            return Err(Status::failed_precondition("not leader"));
        }
        let index = self.inner.read_index.index(false, Duration::from_secs(1)).await.map_err(stopped)?;
        Ok(Response::new(frame(codec::read_index_bytes(index))))
    }

    async fn ask(&self, request: Request<Frame>) -> Answered<Frame> {
        let answer = self.answer(&request).await?;
        Ok(Response::new(frame(codec::to_bytes(&answer))))
    }
}

/// Whether a log that ends here, by term and index, has a tail of a later term before the snapshot's end: entries that were
/// never committed, of a leader that did not know what the snapshot holds. openraft takes such a snapshot for one that
/// the log is ahead of, when it cuts the log (`LogIdList::purge`: a failed `debug_assert`, else two orders that disagree).
/// Whoever sends it has applied, or is about to apply, an entry of its own term: its next snapshot does not have this.
fn outranks(last: Option<(u64, u64)>, snapshot: Option<LogId>) -> bool {
    let (Some((term, index)), Some(snapshot)) = (last, snapshot) else { return false };
    index < snapshot.index && term > snapshot.leader_id.term
}

/// Takes a snapshot to its end or to the first failure, and lets raft install it.
async fn receive_snapshot(inner: Arc<Inner>, from: u64, mut frames: Streaming<Frame>) -> Answered<Frame> {
    let peer = inner.peers.meters.of(from);
    let begin = tokio::time::Instant::now();
    let _receiving = InFlight::begin(&inner.counters.snapshots_being_received);
    // Taken back below when all of it came: every way out before is a failure.
    peer.snapshot_receive_failures.fetch_add(1, Ordering::Relaxed);
    let config = &inner.config;
    let path = inner.data_dir.incoming_state_file();
    let mut import = Import::new(config.surroundings.disk.clone(), path, config.state_cache_size_bytes);
    let received = loop {
        let frame = match frames.message().await {
            Ok(Some(frame)) => frame,
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        };
        inner.contact.touch();
        let written = config.surroundings.blocking(move || {
            let taken = import.take(frame.payload);
            (import, taken)
        });
        let (rest, taken) = written.await.map_err(stopped)?;
        import = rest;
        if let Err(error) = taken {
            break Err(stopped(error));
        }
    };
    if let Err(status) = received {
        // Closing the unfinished file writes to it.
        config.surroundings.blocking(move || drop(import)).await.map_err(stopped)?;
        return Err(status);
    }
    let limits = config.limits.clone();
    let finished = config.surroundings.blocking(move || import.finish(limits));
    let (vote, prepared) = finished.await.map_err(stopped)?.map_err(stopped)?;
    if !inner.floor.admits(vote.leader_id.term) {
        return Err(Status::unavailable(FORGETFUL_TEXT));
    }
    if outranks(inner.log.view(0).last, prepared.position.applied) {
        return Err(Status::unavailable(OUTRANKED_TEXT));
    }
    inner.counters.snapshot_sync.observe(prepared.synced_in);
    let meta = SnapshotMeta {
        last_log_id: prepared.position.applied,
        last_membership: prepared.position.membership.clone(),
    };
    let snapshot = Snapshot { meta, snapshot: SnapshotBody::Incoming(Box::new(prepared)) };
    let response = inner.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
    inner.counters.snapshots_received.fetch_add(1, Ordering::Relaxed);
    peer.snapshot_receive_failures.fetch_sub(1, Ordering::Relaxed);
    peer.snapshots_received.fetch_add(1, Ordering::Relaxed);
    inner.counters.snapshot_receive.observe(begin.elapsed());
    Ok(Response::new(frame(codec::vote_bytes(&response.vote))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Five terms: the third leader's 51 to 100 reached one member, the fourth leader wrote 50 beside them, and the fifth
    /// leader, which has them, committed them with its own 101 and sends what it had applied a moment before.
    #[test]
    fn a_snapshot_that_ends_in_an_earlier_term_than_a_shorter_log_is_refused() {
        let table = [
            ((4, 50), (3, 100), true),
            ((4, 50), (5, 101), false),
            ((3, 50), (3, 100), false),
            ((2, 50), (3, 100), false),
            ((4, 100), (3, 100), false),
            ((4, 120), (3, 100), false),
        ];
        for (last, (term, index), refused) in table {
            assert_eq!(outranks(Some(last), Some(log_id(term, index))), refused, "{last:?} {term} {index}");
        }
        assert!(!outranks(None, Some(log_id(3, 100))));
        assert!(!outranks(Some((4, 50)), None));
    }
}
