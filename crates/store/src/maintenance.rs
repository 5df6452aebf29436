//! The Maintenance service: how the member is, checksums, alarms, moving the leader.
//!
//! `Defragment` only makes the state durable: space is reused all the time, so there is nothing to wait for.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use mvcc::{AlarmAction, AlarmCommand, AlarmKind, AlarmMember, Command, Reply};
use tonic::{Request, Response, Status};
use wire::etcdserverpb::{self as pb, maintenance_server::Maintenance};

use crate::{
    VERSION, backup,
    context::{Context, Learner},
    gate::{self, AlarmList, Authorized, StatusOf},
    status::{self, Refusal},
};

#[derive(Clone)]
pub(crate) struct MaintenanceService {
    pub context: Arc<Context>,
}

type SnapshotStream = Pin<Box<dyn Stream<Item = Result<pb::SnapshotResponse, Status>> + Send>>;

impl MaintenanceService {
    /// What only root may do.
    fn admit_maintenance<T>(
        &self,
        request: &Request<T>,
        learner: Learner,
    ) -> Result<Authorized<gate::Maintenance>, Status> {
        let caller = self.context.admit(request, learner)?;
        self.context.gate.authorize(&caller, gate::Maintenance)
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = SnapshotStream;

    async fn alarm(&self, request: Request<pb::AlarmRequest>) -> Result<Response<pb::AlarmResponse>, Status> {
        use pb::alarm_request::AlarmAction as Asked;
        let asker = self.context.receive(&request, Learner::Refuses)?;
        let pb::AlarmRequest { action, member_id, alarm } = request.into_inner();
        let kind = alarm_kind(alarm)?;
        let action = match Asked::try_from(action) {
            Ok(Asked::Get) => None,
            Ok(Asked::Activate) => Some(AlarmAction::Activate),
            Ok(Asked::Deactivate) => Some(AlarmAction::Deactivate),
            Err(_) => {
                return Ok(Response::new(pb::AlarmResponse {
                    header: Some(self.context.header_now()),
                    alarms: Vec::new(),
                }));
            }
        };
        let alarms = match action {
            None => {
                let caller = self.context.admit_fresh(asker).await?;
                let mut alarms = self.context.gate.authorize(&caller, AlarmList)?.alarms();
                alarms.retain(|alarm| kind.is_none_or(|kind| kind == alarm.kind));
                alarms
            }
            Some(action) => {
                let command = AlarmCommand { action, member: member_id, kind };
                let caller = self.context.who(&asker)?;
                match self.context.propose(caller, Command::Alarm(command)).await? {
                    (_, Reply::Alarm(alarms)) => alarms,
                    _ => return Err(status::mismatched_reply()),
                }
            }
        };
        let alarms = alarms.into_iter().map(alarm_member).collect();
        Ok(Response::new(pb::AlarmResponse { header: Some(self.context.header_now()), alarms }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let caller = self.context.admit(&request, Learner::Serves)?;
        let (status, alarms) = self.context.gate.authorize(&caller, StatusOf)?.status();
        let mut errors = Vec::new();
        if status.leader.is_none() {
            errors.push("etcdserver: no leader".to_owned());
        }
        // The text is that of a Go protobuf message, which leaves out a 0.
        errors.extend(alarms.iter().map(|alarm| match alarm.member {
            0 => format!("alarm:{} ", alarm_name(alarm.kind)),
            member => format!("memberID:{member} alarm:{} ", alarm_name(alarm.kind)),
        }));
        Ok(Response::new(pb::StatusResponse {
            header: Some(self.context.header(status.revision)),
            version: VERSION.to_owned(),
            db_size: signed(status.size_bytes),
            leader: status.leader.unwrap_or(0),
            raft_index: status.raft_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: signed(status.size_in_use_bytes),
            is_learner: status.is_learner,
            storage_version: crate::STORAGE_VERSION.to_owned(),
            db_size_quota: self.context.config.quota_bytes().unwrap_or(0),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        }))
    }

    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let allowed = self.admit_maintenance(&request, Learner::Refuses)?;
        let begin = std::time::Instant::now();
        allowed.replica().flush().await.map_err(status::flush)?;
        self.context.metrics.defragment.observe(begin.elapsed());
        Ok(Response::new(pb::DefragmentResponse { header: None }))
    }

    async fn hash(&self, request: Request<pb::HashRequest>) -> Result<Response<pb::HashResponse>, Status> {
        let allowed = self.admit_maintenance(&request, Learner::Refuses)?;
        let begin = std::time::Instant::now();
        let hash = allowed.hash_kv(0).await?;
        self.context.metrics.hash.observe(begin.elapsed());
        let header = Some(self.context.header_now());
        Ok(Response::new(pb::HashResponse { header, hash: hash.hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let allowed = self.admit_maintenance(&request, Learner::Refuses)?;
        let begin = std::time::Instant::now();
        let hash = allowed.hash_kv(request.into_inner().revision).await?;
        self.context.metrics.hash_at_revision.observe(begin.elapsed());
        Ok(Response::new(pb::HashKvResponse {
            header: Some(self.context.header_now()),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        }))
    }

    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<SnapshotStream>, Status> {
        let allowed = self.admit_maintenance(&request, Learner::Serves)?;
        let blobs = backup::stream(allowed.replica(), self.context.clone()).await?;
        Ok(Response::new(blobs))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let allowed = self.admit_maintenance(&request, Learner::Refuses)?;
        let target = request.into_inner().target_id;
        allowed.replica().move_leader(target).await.map_err(status::membership)?;
        Ok(Response::new(pb::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        use pb::downgrade_request::DowngradeAction as Asked;
        self.admit_maintenance(&request, Learner::Refuses)?;
        let pb::DowngradeRequest { action, version } = request.into_inner();
        let refusal = match Asked::try_from(action) {
            Ok(Asked::Validate | Asked::Enable) if !is_version(&version) => Refusal::DowngradeFormat,
            // No version is a target: no earlier program reads what this one writes.
            Ok(Asked::Validate | Asked::Enable) => Refusal::DowngradeTarget,
            // There never is one; to etcd 3.6 that is no failure.
            Ok(Asked::Cancel) => {
                let minor = crate::CLUSTER_VERSION.rsplit_once('.').map_or("", |(minor, _)| minor);
                let header = Some(self.context.header_now());
                return Ok(Response::new(pb::DowngradeResponse { header, version: minor.to_owned() }));
            }
            // As etcd says it, for which it has no code.
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        Err(refusal.into())
    }
}

/// `3.5` or `3.5.0`, perhaps with a pre-release behind it.
fn is_version(text: &str) -> bool {
    let release = text.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<&str> = release.split('.').collect();
    matches!(numbers.len(), 2 | 3) && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

fn alarm_kind(alarm: i32) -> Result<Option<AlarmKind>, Status> {
    match pb::AlarmType::try_from(alarm) {
        Ok(pb::AlarmType::None) => Ok(None),
        Ok(pb::AlarmType::Nospace) => Ok(Some(AlarmKind::NoSpace)),
        Ok(pb::AlarmType::Corrupt) => Ok(Some(AlarmKind::Corrupt)),
        Err(_) => Err(Status::invalid_argument(format!("unknown alarm type {alarm}"))),
    }
}

fn alarm_member(alarm: AlarmMember) -> pb::AlarmMember {
    let kind = match alarm.kind {
        AlarmKind::NoSpace => pb::AlarmType::Nospace,
        AlarmKind::Corrupt => pb::AlarmType::Corrupt,
    };
    pb::AlarmMember { member_id: alarm.member, alarm: kind.into() }
}

pub(crate) fn alarm_name(kind: AlarmKind) -> &'static str {
    match kind {
        AlarmKind::NoSpace => "NOSPACE",
        AlarmKind::Corrupt => "CORRUPT",
    }
}

fn signed(size_bytes: u64) -> i64 {
    i64::try_from(size_bytes).unwrap_or(i64::MAX)
}
