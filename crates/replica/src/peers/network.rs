//! openraft's network on our peer connections.
//!
//! Appends go through one long-lived bidirectional stream per peer; heartbeats are single calls over the control
//! connection, so they wait neither for a disk nor behind appends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::{Stream, StreamExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetAppend, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
};
use openraft::{OptionalSend, Snapshot};
use tokio::sync::{Semaphore, mpsc};
use wire::peerpb::Frame;

use super::{Client, Link, LinkError, Peers, frame};
use crate::codec;
use crate::metrics::{Counters, InFlight};
use crate::raft_types::*;
use crate::snapshot::{Export, SnapshotBody};
use crate::state_file::StateView;
use crate::surroundings::Surroundings;

/// Frames of a snapshot between the state file and the network, 1 MiB each.
const SNAPSHOT_FRAMES_AHEAD: usize = 4;

type Rpc<T> = Result<T, RPCError<TypeConfig>>;
type BoxFuture<'s, T> = Pin<Box<dyn Future<Output = T> + Send + 's>>;
type BoxStream<'s, T> = Pin<Box<dyn Stream<Item = T> + Send + 's>>;

#[derive(Clone)]
pub(crate) struct Network {
    pub peers: Arc<Peers>,
    pub export_slots: Arc<Semaphore>,
    pub counters: Arc<Counters>,
    pub surroundings: Surroundings,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Data,
    Heartbeat,
}

pub(crate) struct Connection {
    network: Network,
    target: u64,
    link: Result<Arc<Link>, LinkError>,
    purpose: Purpose,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Connection;

    async fn new_client(&mut self, target: u64, node: &Node) -> Connection {
        let link = self.peers.link(target, node);
        Connection { network: self.clone(), target, link, purpose: Purpose::Data }
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &Node) -> Connection {
        let link = self.peers.link(target, node);
        Connection { network: self.clone(), target, link, purpose: Purpose::Heartbeat }
    }
}

impl Connection {
    fn link(&self) -> Rpc<&Arc<Link>> {
        self.link.as_ref().map_err(|error| RPCError::Unreachable(Unreachable::new(error)))
    }

    fn control(&self) -> Rpc<(Client, &Arc<Link>)> {
        let link = self.link()?;
        Ok((link.control.clone(), link))
    }

    fn failed(&self, status: &tonic::Status) -> RPCError<TypeConfig> {
        self.network.peers.note(self.target, status);
        RPCError::Unreachable(Unreachable::from_string(format!("{:x}: {}", self.target, status.message())))
    }
}

fn malformed(error: &codec::CodecError) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::new(error))
}

impl NetAppend<TypeConfig> for Connection {
    async fn append_entries(
        &mut self,
        rpc: AppendRequest,
        _: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig>> {
        let (mut client, link) = self.control()?;
        let request = link.request(frame(codec::append_request_bytes(&rpc)));
        let response = client.append_once(request).await.map_err(|status| self.failed(&status))?;
        let result =
            codec::append_result(response.into_inner().payload).map_err(|error| malformed(&error))?;
        Ok(result.into())
    }
}

impl NetStreamAppend<TypeConfig> for Connection {
    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Rpc<BoxStream<'s, Rpc<StreamAppendResult>>>>
    where
        S: Stream<Item = AppendRequest> + OptionalSend + Unpin + 'static,
    {
        if self.purpose == Purpose::Heartbeat {
            return stream_append_sequential(self, input, option);
        }
        Box::pin(async move {
            // openraft pauses after failures when it is asked for the first request. A member whose port refuses
            // connections fails before anything is asked for, and would be tried again without any pause.
            let Some(first) = input.next().await else {
                // The leader changed. A stream that has ended must not be asked again.
                return Ok(Box::pin(futures_util::stream::empty()) as BoxStream<'s, _>);
            };
            let input = futures_util::stream::once(std::future::ready(first)).chain(input);
            let link = self.link()?;
            let mut client = link.data.clone();
            let request = link.request(input.map(|rpc| frame(codec::append_request_bytes(&rpc))));
            let response = client.append(request).await.map_err(|status| self.failed(&status))?;
            let answers = response.into_inner().map(|answer| match answer {
                Ok(frame) => codec::append_result(frame.payload).map_err(|error| malformed(&error)),
                Err(status) => Err(self.failed(&status)),
            });
            Ok(Box::pin(answers) as BoxStream<'s, _>)
        })
    }
}

/// Reads one frame ahead of what the network takes; ends early when the receiver is gone.
async fn send_frames(
    surroundings: &Surroundings,
    view: StateView,
    vote: Vote,
    sender: mpsc::Sender<Frame>,
) -> Result<(), String> {
    let begun = surroundings.blocking(move || Export::new(&view, &vote)).await;
    let mut export = begun.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    loop {
        let read = surroundings.blocking(move || {
            let next = export.next();
            (export, next)
        });
        let (rest, next) = read.await.map_err(|error| error.to_string())?;
        export = rest;
        let Some(bytes) = next.map_err(|error| error.to_string())? else { return Ok(()) };
        if sender.send(frame(bytes)).await.is_err() {
            return Ok(());
        }
    }
}

impl NetVote<TypeConfig> for Connection {
    async fn vote(&mut self, rpc: VoteRequest, _: RPCOption) -> Rpc<VoteResponse> {
        let (mut client, link) = self.control()?;
        let request = link.request(frame(codec::vote_request_bytes(&rpc)));
        let response = client.vote(request).await.map_err(|status| self.failed(&status))?;
        codec::vote_response(response.into_inner().payload).map_err(|error| malformed(&error))
    }

    async fn pre_vote(&mut self, rpc: VoteRequest, _: RPCOption) -> Rpc<VoteResponse> {
        let (mut client, link) = self.control()?;
        let request = link.request(frame(codec::vote_request_bytes(&rpc)));
        let response = client.pre_vote(request).await.map_err(|status| self.failed(&status))?;
        codec::vote_response(response.into_inner().payload).map_err(|error| malformed(&error))
    }
}

impl NetTransferLeader<TypeConfig> for Connection {
    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<TypeConfig>,
        _: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let (mut client, link) = self.control()?;
        let request = link.request(frame(codec::transfer_request_bytes(&rpc)));
        let response = client.transfer_leader(request).await.map_err(|status| self.failed(&status))?;
        codec::transfer_response(response.into_inner().payload).map_err(|error| malformed(&error))
    }
}

impl NetBackoff<TypeConfig> for Connection {
    fn backoff(&self) -> Option<Backoff> {
        None
    }
}

impl NetSnapshot<TypeConfig> for Connection {
    type SnapshotData = SnapshotBody;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<openraft::vote::leader_id_std::CommittedLeaderId<u64>, u64, Node, SnapshotBody>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreachable = |text: String| StreamingError::Unreachable(Unreachable::from_string(text));
        let link = self.link.as_ref().map_err(|error| unreachable(error.to_string()))?;
        let SnapshotBody::Outgoing(view) = snapshot.snapshot else {
            return Err(unreachable("a received snapshot is not passed on".to_owned()));
        };
        let Ok(_slot) = self.network.export_slots.acquire().await else {
            return Err(StreamingError::Closed(ReplicationClosed::new("the member stops")));
        };
        tracing::info!(to = format!("{:x}", self.target), meta = %snapshot.meta, "sending a snapshot");
        let counters = self.network.peers.meters.of(self.target);
        let begin = tokio::time::Instant::now();
        let _sending = InFlight::begin(&self.network.counters.snapshots_being_sent);
        // Taken back below when it arrives: every way out before is a failure.
        counters.snapshot_send_failures.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(SNAPSHOT_FRAMES_AHEAD);
        let surroundings = self.network.surroundings.clone();
        let reader = tokio::spawn(async move { send_frames(&surroundings, view, vote, sender).await });
        let request = link.request(tokio_stream::wrappers::ReceiverStream::new(receiver));
        let mut client = link.data.clone();
        let answered = tokio::select! {
            answered = client.snapshot(request) => answered,
            closed = cancel => return Err(StreamingError::Closed(closed)),
        };
        match reader.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(unreachable(error)),
            Err(error) => return Err(unreachable(error.to_string())),
        }
        let response = answered.map_err(|status| unreachable(status.message().to_owned()))?;
        let mut payload = response.into_inner().payload;
        let vote = codec::take_vote(&mut payload).map_err(|error| unreachable(error.to_string()))?;
        self.network.counters.snapshots_sent.fetch_add(1, Ordering::Relaxed);
        counters.snapshot_send_failures.fetch_sub(1, Ordering::Relaxed);
        counters.snapshots_sent.fetch_add(1, Ordering::Relaxed);
        self.network.counters.snapshot_send.observe(begin.elapsed());
        // Tools that follow etcd's log wait for these words.
        tracing::info!(to = format!("{:x}", self.target), "sent database snapshot");
        Ok(SnapshotResponse::new(vote))
    }
}
