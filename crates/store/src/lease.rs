//! The Lease service. Time is kept by the leader's replica; here are only the answers.
//!
//! Invariants: a keep-alive's header is made before the renewal, so its revision never runs ahead of the lease's
//! state; an unknown lease is no error there but a TTL of 0. Which answers of a stream wait for which: lease/renewals.rs.

mod renewals;

use std::sync::{Arc, atomic::Ordering::Relaxed};

use futures_util::{FutureExt, StreamExt};
use mvcc::{Command, LeaseGrant, LeaseRevoke, Reply};
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use wire::etcdserverpb::{self as pb, lease_server::Lease};

use crate::{
    context::{Asker, Context, Learner, wants_leader},
    gate::{LeaseKeepAlive, LeaseLeases, LeaseTimeToLive},
    services,
    status::{self, Refusal},
    turns::Connection,
};

/// Keep-alive answers that may wait for a slow client.
const ANSWERS_MAX: usize = 16;

#[derive(Clone)]
pub(crate) struct LeaseService {
    pub context: Arc<Context>,
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = ReceiverStream<Result<pb::LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let (connection, size_bytes) = (Connection::of(&request), request.get_ref().encoded_len());
        let caller = self.context.admit(&request, Learner::Refuses)?;
        let pb::LeaseGrantRequest { ttl, id } = request.into_inner();
        let grant = LeaseGrant {
            id: if id == 0 { rand::random_range(1..=i64::MAX) } else { id },
            ttl_s: ttl.max(ttl_min_s(self.context.config.election_timeout_ms)),
        };
        match self.context.write((caller, connection), size_bytes, Command::LeaseGrant(grant)).await? {
            (revision, Reply::LeaseGrant(reply)) => Ok(Response::new(pb::LeaseGrantResponse {
                header: Some(self.context.header(revision)),
                id: reply.id,
                ttl: reply.ttl_s,
                error: String::new(),
            })),
            _ => Err(status::mismatched_reply()),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (connection, size_bytes) = (Connection::of(&request), request.get_ref().encoded_len());
        let caller = self.context.admit(&request, Learner::Refuses)?;
        let revoke = LeaseRevoke { id: request.into_inner().id };
        let (revision, _) =
            self.context.write((caller, connection), size_bytes, Command::LeaseRevoke(revoke)).await?;
        Ok(Response::new(pb::LeaseRevokeResponse { header: Some(self.context.header(revision)) }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let needs_leader = wants_leader(request.metadata());
        let (asker, requests) = self.context.admit_long(request, Learner::Refuses)?;
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        let context = self.context.clone();
        tokio::spawn(async move {
            let ids =
                requests.map(|request| request.map(|asked| asked.id).map_err(services::refused_message));
            let end = tokio::select! {
                end = renewals::answer_all(ids, |id| renew(&context, &asker, id).boxed(), &answers) => end,
                status = context.clone().leader_lost(), if needs_leader => Err(status),
                () = answers.closed() => Ok(()),
                () = context.shutdown.cancelled() => Err(Refusal::Stopped.into()),
            };
            if let Err(status) = end {
                // Nobody is left to be told when this fails.
                let _ = answers.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let asker = self.context.receive(&request, Learner::Refuses)?;
        let pb::LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        if keys {
            self.context.barrier().await?;
        }
        let caller = self.context.who(&asker)?;
        let asked = self.context.gate.authorize(&caller, LeaseTimeToLive { id, keys })?;
        let remaining = asked.remaining().await?;
        let header = Some(self.context.header_now());
        let Some(remaining) = remaining else {
            return Ok(Response::new(pb::LeaseTimeToLiveResponse {
                header,
                id,
                ttl: -1,
                ..Default::default()
            }));
        };
        let keys = asked.keys()?;
        let (ttl, granted_ttl) = (remaining.remaining_s, remaining.granted_ttl_s);
        Ok(Response::new(pb::LeaseTimeToLiveResponse { header, id, ttl, granted_ttl, keys }))
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let caller = self.context.admit(&request, Learner::Refuses)?;
        let ids = self.context.gate.authorize(&caller, LeaseLeases)?.ids()?;
        let leases = ids.into_iter().map(|id| pb::LeaseStatus { id }).collect();
        Ok(Response::new(pb::LeaseLeasesResponse { header: Some(self.context.header_now()), leases }))
    }
}

/// One renewal. Who asks may have lost his rights since the stream began.
async fn renew(context: &Context, asker: &Asker, id: i64) -> Result<pb::LeaseKeepAliveResponse, Status> {
    let header = Some(context.header_now());
    let asked = context.gate.authorize(&context.who(asker)?, LeaseKeepAlive { id })?;
    let ttl = asked.renew().await?.unwrap_or(0);
    if ttl > 0 {
        context.metrics.leases_renewed.fetch_add(1, Relaxed);
    }
    Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
}

/// The shortest TTL, in seconds: one and a half election timeouts, rounded up. Source: etcd server.go `minTTL`.
fn ttl_min_s(election_timeout_ms: u64) -> i64 {
    i64::try_from((election_timeout_ms * 3).div_ceil(2000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::ttl_min_s;

    #[test]
    fn no_lease_is_shorter_than_one_and_a_half_elections() {
        for (election_timeout_ms, ttl_s) in [(1000, 2), (100, 1), (2000, 3), (50_000, 75)] {
            assert_eq!(ttl_min_s(election_timeout_ms), ttl_s);
        }
    }
}
