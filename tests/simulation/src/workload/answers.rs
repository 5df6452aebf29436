//! What requests and answers mean: from the protocol's messages to what is recorded.
//!
//! Always holds: only an error that a member gives before it proposes counts as "no effect".

use std::time::Duration;

use bytes::Bytes;
use faults::history::{Answer, Entry, Key, Outcome, Request, Value};
use faults::log::Change;
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::etcdserverpb as pb;
use wire::etcdserverpb::kv_client::KvClient;
use wire::mvccpb;

use super::{PREFIX, Shared};
use crate::permissions::{DENIED, NAMELESS};

pub(crate) fn key_bytes(key: Key) -> Bytes {
    Bytes::from(format!("{PREFIX}{key}"))
}

fn number<T: std::str::FromStr>(bytes: &[u8]) -> Result<T, String> {
    let text = String::from_utf8_lossy(bytes);
    text.parse().map_err(|_| format!("{text:?} is nothing that was written"))
}

pub(crate) fn entry(kv: &mvccpb::KeyValue) -> Result<Entry, String> {
    Ok(Entry {
        value: number(&kv.value)?,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
    })
}

pub(super) async fn outcome(
    sending: impl Future<Output = Result<Result<Answer, String>, Status>>,
    timeout: Duration,
    shared: &Shared,
) -> Outcome {
    match tokio::time::timeout(timeout, sending).await {
        Ok(Ok(Ok(answer))) => Outcome::Done(answer),
        Ok(Ok(Err(finding))) => {
            shared.find(finding.clone());
            Outcome::Unknown(finding)
        }
        Ok(Err(status)) => failed(&status),
        Err(_) => Outcome::Unknown("no answer in time".to_owned()),
    }
}

/// Errors that a member gives before it has proposed anything.
pub(crate) fn failed(status: &Status) -> Outcome {
    let text = format!("{:?}: {}", status.code(), status.message());
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::PermissionDenied => {
            Outcome::Refused(text)
        }
        _ => Outcome::Unknown(text),
    }
}

pub(super) async fn send(
    kv: &mut KvClient<Channel>,
    request: Request,
) -> Result<Result<Answer, String>, Status> {
    let key = key_bytes(request.key());
    match request {
        Request::Get { .. } => {
            let answer = kv.range(pb::RangeRequest { key, ..Default::default() }).await?.into_inner();
            Ok(found(&answer).map(|(revision, entry)| Answer::Found { revision, entry }))
        }
        Request::Put { value, .. } => put(kv, request.key(), value, 0).await,
        Request::Delete { .. } => {
            let delete = pb::DeleteRangeRequest { key, ..Default::default() };
            let answer = kv.delete_range(delete).await?.into_inner();
            let existed = answer.deleted > 0;
            Ok(revision(answer.header.as_ref()).map(|revision| Answer::Deleted { revision, existed }))
        }
        Request::Swap { expected_revision, value, .. } => {
            let answer = kv.txn(swap(key, expected_revision, value)).await?.into_inner();
            Ok(swapped(&answer))
        }
    }
}

pub(super) async fn put(
    kv: &mut KvClient<Channel>,
    key: Key,
    value: Value,
    lease: i64,
) -> Result<Result<Answer, String>, Status> {
    let value = Bytes::from(value.to_string());
    let put = pb::PutRequest { key: key_bytes(key), value, lease, ..Default::default() };
    let answer = kv.put(put).await?.into_inner();
    Ok(revision(answer.header.as_ref()).map(|revision| Answer::Put { revision }))
}

fn swap(key: Bytes, expected_revision: i64, value: Value) -> pb::TxnRequest {
    use pb::request_op::Request as Op;
    let compare = pb::Compare {
        result: pb::compare::CompareResult::Equal.into(),
        target: pb::compare::CompareTarget::Mod.into(),
        key: key.clone(),
        target_union: Some(pb::compare::TargetUnion::ModRevision(expected_revision)),
        ..Default::default()
    };
    let put = pb::PutRequest { key: key.clone(), value: value.to_string().into(), ..Default::default() };
    let get = pb::RangeRequest { key, ..Default::default() };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![pb::RequestOp { request: Some(Op::RequestPut(put)) }],
        failure: vec![pb::RequestOp { request: Some(Op::RequestRange(get)) }],
    }
}

fn swapped(answer: &pb::TxnResponse) -> Result<Answer, String> {
    use pb::response_op::Response;
    let revision = revision(answer.header.as_ref())?;
    if answer.succeeded {
        return Ok(Answer::Swapped { revision });
    }
    match answer.responses.first().and_then(|response| response.response.as_ref()) {
        Some(Response::ResponseRange(range)) => {
            Ok(Answer::Kept { revision, entry: range.kvs.first().map(entry).transpose()? })
        }
        other => Err(format!("a get in a transaction was answered with {other:?}")),
    }
}

pub(crate) fn found(answer: &pb::RangeResponse) -> Result<(i64, Option<Entry>), String> {
    Ok((revision(answer.header.as_ref())?, answer.kvs.first().map(entry).transpose()?))
}

pub(crate) fn revision(header: Option<&pb::ResponseHeader>) -> Result<i64, String> {
    Ok(header.ok_or("an answer without a header")?.revision)
}

/// Why a watch is refused or ends when those without a name may not watch.
pub(crate) fn is_about_users(reason: &str) -> bool {
    [NAMELESS, DENIED].iter().any(|text| reason.contains(text))
}

pub(crate) fn change(event: &mvccpb::Event) -> Result<Change, String> {
    let kv = event.kv.as_ref().ok_or("an event without a key")?;
    let name = kv.key.strip_prefix(PREFIX.as_bytes()).ok_or("an event of another key")?;
    let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
    let value = if deleted { None } else { Some(number(&kv.value)?) };
    Ok(Change { revision: kv.mod_revision, key: number(name)?, value })
}
