//! The Cluster service: who is a member. Headers carry no revision here, as in etcd.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use wire::etcdserverpb::{self as pb, cluster_server::Cluster};

use crate::{
    context::{Context, Learner},
    convert,
    gate::{Authorized, MemberChange, MemberList},
    status::Refusal,
    url::Url,
};

#[derive(Clone)]
pub(crate) struct ClusterService {
    pub context: Arc<Context>,
}

impl ClusterService {
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.context.header(0))
    }

    /// Only those who may change the membership come past this.
    fn admit_change<T>(&self, request: &Request<T>) -> Result<Authorized<MemberChange>, Status> {
        let caller = self.context.admit(request, Learner::Refuses)?;
        self.context.gate.authorize(&caller, MemberChange)
    }
}

/// Every address must be one that a member could advertise.
fn checked(urls: Vec<String>) -> Result<Vec<String>, Status> {
    let valid = urls.iter().all(|url| url.parse::<Url>().is_ok());
    if urls.is_empty() || !valid { Err(Refusal::MemberUrls.into()) } else { Ok(urls) }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let allowed = self.admit_change(&request)?;
        let pb::MemberAddRequest { peer_ur_ls, is_learner } = request.into_inner();
        let urls = checked(peer_ur_ls)?;
        let (member, members) = allowed.add(urls, is_learner).await?;
        Ok(Response::new(pb::MemberAddResponse {
            header: self.header(),
            member: Some(convert::member(member)),
            members: convert::members(members),
        }))
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let allowed = self.admit_change(&request)?;
        let id = request.into_inner().id;
        let members = allowed.remove(id).await?;
        Ok(Response::new(pb::MemberRemoveResponse {
            header: self.header(),
            members: convert::members(members),
        }))
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let allowed = self.admit_change(&request)?;
        let pb::MemberUpdateRequest { id, peer_ur_ls } = request.into_inner();
        let urls = checked(peer_ur_ls)?;
        let members = allowed.update(id, urls).await?;
        Ok(Response::new(pb::MemberUpdateResponse {
            header: self.header(),
            members: convert::members(members),
        }))
    }

    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let asker = self.context.receive(&request, Learner::Refuses)?;
        if request.into_inner().linearizable {
            self.context.barrier().await?;
        }
        let caller = self.context.who(&asker)?;
        let allowed = self.context.gate.authorize(&caller, MemberList)?;
        let members = convert::members(allowed.members());
        Ok(Response::new(pb::MemberListResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let allowed = self.admit_change(&request)?;
        let id = request.into_inner().id;
        let members = allowed.promote(id).await?;
        self.context.metrics.learner_promotions.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Response::new(pb::MemberPromoteResponse {
            header: self.header(),
            members: convert::members(members),
        }))
    }
}
