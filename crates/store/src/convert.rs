//! From wire messages to the store's own types and back.
//!
//! A request is read here once, with every rule that needs no state; nothing behind this file can meet an invalid one.
//! Values are shared, never copied. Not here: who may ask, and codes of errors (status.rs).

use bytes::Bytes;
use mvcc::{
    CheckError, CompareResult, CompareTarget, DeleteRange, DeleteRangeReply, EventKind, KeyRange, Op,
    OpReply, Put, PutReply, RangeQuery, RangeReply, SortOrder, SortTarget, Txn, TxnReply,
};
use tonic::Status;
use wire::{etcdserverpb as pb, mvccpb};

use crate::status::{self, Refusal};

/// What the ranges of one request need to have been applied before this member answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// All may be answered from this member's own state.
    pub serializable: bool,
    /// The highest revision that one names; 0 if all read the latest.
    pub revision_max: i64,
}

pub(crate) struct RangeAsked {
    pub query: RangeQuery,
    pub freshness: Freshness,
}

pub(crate) struct TxnAsked {
    pub txn: Txn,
    pub freshness: Freshness,
}

pub(crate) fn range(request: pb::RangeRequest) -> Result<RangeAsked, Status> {
    let query = range_query(&request)?;
    let freshness = Freshness { serializable: request.serializable, revision_max: query.revision.max(0) };
    Ok(RangeAsked { query, freshness })
}

pub(crate) fn txn(request: pb::TxnRequest, operations_max: usize) -> Result<TxnAsked, Status> {
    let mut freshness = Freshness { serializable: true, revision_max: 0 };
    let txn = txn_command(request, operations_max, &mut freshness)?;
    // Again what was just checked, and what needs the whole of it.
    mvcc::check_txn(&txn, operations_max).map_err(status::check)?;
    Ok(TxnAsked { txn, freshness })
}

fn range_query(request: &pb::RangeRequest) -> Result<RangeQuery, Status> {
    use pb::range_request::{SortOrder as Order, SortTarget as Target};
    let range = key_range(request.key.clone(), request.range_end.clone())?;
    let order = Order::try_from(request.sort_order).map_err(|_| Refusal::InvalidSort)?;
    let target = match Target::try_from(request.sort_target).map_err(|_| Refusal::InvalidSort)? {
        Target::Key => SortTarget::Key,
        Target::Version => SortTarget::Version,
        Target::Create => SortTarget::Create,
        Target::Mod => SortTarget::Mod,
        Target::Value => SortTarget::Value,
    };
    let sort = match (target, order) {
        (SortTarget::Key, Order::None | Order::Ascend) => None,
        (target, Order::None | Order::Ascend) => Some((target, SortOrder::Ascend)),
        (target, Order::Descend) => Some((target, SortOrder::Descend)),
    };
    Ok(RangeQuery {
        range,
        limit: request.limit,
        revision: request.revision,
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        min_mod_revision: request.min_mod_revision,
        max_mod_revision: request.max_mod_revision,
        min_create_revision: request.min_create_revision,
        max_create_revision: request.max_create_revision,
    })
}

fn key_range(key: Bytes, range_end: Bytes) -> Result<KeyRange, Status> {
    if key.is_empty() {
        return Err(status::check(CheckError::EmptyKey));
    }
    Ok(KeyRange::from_wire(key, range_end))
}

pub(crate) fn put(request: pb::PutRequest) -> Result<Put, Status> {
    let put = Put {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev_kv: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    };
    mvcc::check_put(&put).map_err(status::check)?;
    Ok(put)
}

pub(crate) fn delete_range(request: pb::DeleteRangeRequest) -> Result<DeleteRange, Status> {
    let range = key_range(request.key, request.range_end)?;
    Ok(DeleteRange { range, prev_kv: request.prev_kv })
}

/// Of several faults the first in the order of the message is told, as in etcd. A nested transaction may have as many
/// operations as its parent left over. Depth is bounded: the message decoder refuses more than 100 levels before this
/// runs.
fn txn_command(
    request: pb::TxnRequest,
    operations_max: usize,
    freshness: &mut Freshness,
) -> Result<Txn, Status> {
    let own = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = operations_max.checked_sub(own).ok_or_else(|| status::check(CheckError::TooManyOps))?;
    let compare = request.compare.into_iter().map(compare).collect::<Result<_, _>>()?;
    let mut operations = |list: Vec<pb::RequestOp>| -> Result<Vec<Op>, Status> {
        list.into_iter().map(|op| operation(op, left, freshness)).collect()
    };
    let success = operations(request.success)?;
    let failure = operations(request.failure)?;
    Ok(Txn { compare, success, failure })
}

fn operation(op: pb::RequestOp, operations_max: usize, freshness: &mut Freshness) -> Result<Op, Status> {
    use pb::request_op::Request;
    Ok(match op.request.ok_or(Refusal::EmptyOperation)? {
        Request::RequestRange(range) => {
            freshness.serializable &= range.serializable;
            freshness.revision_max = freshness.revision_max.max(range.revision);
            Op::Range(range_query(&range)?)
        }
        Request::RequestPut(request) => Op::Put(put(request)?),
        Request::RequestDeleteRange(delete) => Op::DeleteRange(delete_range(delete)?),
        Request::RequestTxn(txn) => Op::Txn(txn_command(txn, operations_max, freshness)?),
    })
}

/// The operand that belongs to the target counts; a missing or foreign one stands for zero, as Go's getters have it.
fn compare(request: pb::Compare) -> Result<mvcc::Compare, Status> {
    use pb::compare::{CompareResult as Result_, CompareTarget as Target, TargetUnion as Operand};
    let range = key_range(request.key, request.range_end)?;
    let unknown = |what: &str| Status::invalid_argument(format!("unknown {what} in compare"));
    let result = match Result_::try_from(request.result).map_err(|_| unknown("result"))? {
        Result_::Equal => CompareResult::Equal,
        Result_::Greater => CompareResult::Greater,
        Result_::Less => CompareResult::Less,
        Result_::NotEqual => CompareResult::NotEqual,
    };
    let target =
        match (Target::try_from(request.target).map_err(|_| unknown("target"))?, request.target_union) {
            (Target::Version, Some(Operand::Version(version))) => CompareTarget::Version(version),
            (Target::Version, _) => CompareTarget::Version(0),
            (Target::Create, Some(Operand::CreateRevision(revision))) => {
                CompareTarget::CreateRevision(revision)
            }
            (Target::Create, _) => CompareTarget::CreateRevision(0),
            (Target::Mod, Some(Operand::ModRevision(revision))) => CompareTarget::ModRevision(revision),
            (Target::Mod, _) => CompareTarget::ModRevision(0),
            (Target::Value, Some(Operand::Value(value))) => CompareTarget::Value(value),
            (Target::Value, _) => CompareTarget::Value(Bytes::new()),
            (Target::Lease, Some(Operand::Lease(lease))) => CompareTarget::Lease(lease),
            (Target::Lease, _) => CompareTarget::Lease(0),
        };
    Ok(mvcc::Compare { range, result, target })
}

pub(crate) fn key_value(kv: mvcc::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

pub(crate) fn key_values(kvs: Vec<mvcc::KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(key_value).collect()
}

pub(crate) fn event(event: &mvcc::Event, previous: Option<mvcc::KeyValue>) -> mvccpb::Event {
    let kind = match event.kind {
        EventKind::Put => mvccpb::event::EventType::Put,
        EventKind::Delete => mvccpb::event::EventType::Delete,
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv.clone())),
        prev_kv: previous.map(key_value),
    }
}

pub(crate) fn range_response(header: pb::ResponseHeader, reply: RangeReply) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header),
        kvs: key_values(reply.kvs),
        more: reply.more,
        count: reply.count,
    }
}

pub(crate) fn put_response(header: pb::ResponseHeader, reply: PutReply) -> pb::PutResponse {
    pb::PutResponse { header: Some(header), prev_kv: reply.prev.map(key_value) }
}

pub(crate) fn delete_response(
    header: pb::ResponseHeader,
    reply: DeleteRangeReply,
) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse {
        header: Some(header),
        deleted: reply.deleted,
        prev_kvs: key_values(reply.prev_kvs),
    }
}

pub(crate) fn txn_response(header: pb::ResponseHeader, reply: TxnReply) -> pb::TxnResponse {
    let responses = reply.responses.into_iter().map(operation_response).collect();
    pb::TxnResponse { header: Some(header), succeeded: reply.succeeded, responses }
}

/// Headers inside a transaction carry the revision only; that of a nested transaction is empty.
fn operation_response(reply: OpReply) -> pb::ResponseOp {
    use pb::response_op::Response;
    let header = |revision| pb::ResponseHeader { revision, ..Default::default() };
    let response = match reply {
        OpReply::Range(reply) => Response::ResponseRange(range_response(header(reply.revision), reply)),
        OpReply::Put(reply) => Response::ResponsePut(put_response(header(reply.revision), reply)),
        OpReply::DeleteRange(reply) => {
            Response::ResponseDeleteRange(delete_response(header(reply.revision), reply))
        }
        OpReply::Txn(reply) => Response::ResponseTxn(txn_response(pb::ResponseHeader::default(), reply)),
    };
    pb::ResponseOp { response: Some(response) }
}

pub(crate) fn member(member: replica::Member) -> pb::Member {
    pb::Member {
        id: member.id,
        name: member.name,
        peer_ur_ls: member.peer_urls,
        client_ur_ls: member.client_urls,
        is_learner: member.is_learner,
    }
}

pub(crate) fn members(members: Vec<replica::Member>) -> Vec<pb::Member> {
    members.into_iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_operation_and_an_unknown_order_are_refused() {
        let request = pb::TxnRequest { success: vec![pb::RequestOp::default()], ..Default::default() };
        assert_eq!(txn(request, 128).err().unwrap().message(), "etcdserver: key not found");
        let request = pb::RangeRequest { key: Bytes::from_static(b"a"), sort_order: 9, ..Default::default() };
        assert_eq!(range(request).err().unwrap().message(), "etcdserver: invalid sort option");
    }

    #[test]
    fn a_target_without_an_order_sorts_upwards() {
        let request = |sort_order, sort_target| pb::RangeRequest {
            key: Bytes::from_static(b"a"),
            sort_order,
            sort_target,
            ..Default::default()
        };
        for (order, target, sort) in [
            (0, 0, None),
            (1, 0, None),
            (2, 0, Some((SortTarget::Key, SortOrder::Descend))),
            (0, 3, Some((SortTarget::Mod, SortOrder::Ascend))),
        ] {
            assert_eq!(range(request(order, target)).unwrap().query.sort, sort);
        }
    }
}
