//! This crate's decoders under names that fuzz targets can call. For tests/fuzz and nobody else.
//!
//! A decoder answers with the bytes that its result encodes to, or with `None` if it refused the input.

use bytes::Bytes;
use mvcc::Row;

use crate::codec::{self, Answer, MemberRecord, MembershipChange, Question};
use crate::membership::MembershipError;
use crate::raft_types::{
    AppendRequest, Membership, Node, Payload, RaftEntry, StoredMembership, Vote, VoteRequest, VoteResponse,
    log_id,
};
use crate::snapshot;
use crate::state_file::Position;

/// A name, inputs to begin with, and the decoder.
pub type Target = (&'static str, fn() -> Vec<Vec<u8>>, fn(&[u8]) -> Option<Vec<u8>>);

/// Everything that comes from other members or lies in small rows of the state file.
pub const TARGETS: &[Target] = &[
    ("append request", append_samples, |bytes| {
        codec::append_request(own(bytes)).ok().map(|request| codec::append_request_bytes(&request).to_vec())
    }),
    ("append answer", answer_samples, |bytes| {
        codec::append_result(own(bytes)).ok().map(|result| codec::append_result_bytes(&result).to_vec())
    }),
    ("vote request", vote_samples, |bytes| {
        codec::vote_request(own(bytes)).ok().map(|request| codec::vote_request_bytes(&request).to_vec())
    }),
    ("vote answer", vote_samples, |bytes| {
        codec::vote_response(own(bytes)).ok().map(|response| codec::vote_response_bytes(&response).to_vec())
    }),
    ("leader transfer", vote_samples, |bytes| {
        codec::transfer_request(own(bytes))
            .ok()
            .map(|request| codec::transfer_request_bytes(&request).to_vec())
    }),
    ("leader transfer answer", answer_samples, |bytes| {
        codec::transfer_response(own(bytes))
            .ok()
            .map(|answer| codec::transfer_response_bytes(&answer).to_vec())
    }),
    ("forwarded proposals", forward_samples, |bytes| {
        codec::forward(own(bytes)).ok().map(|proposals| codec::forward_bytes(&proposals).to_vec())
    }),
    ("refusal", answer_samples, |bytes| {
        codec::refusal(own(bytes)).ok().map(|(id, refusal)| codec::refusal_bytes(id, refusal).to_vec())
    }),
    ("question to a member", question_samples, |bytes| {
        codec::from_bytes::<Question>(bytes, "question").ok().map(|value| codec::to_bytes(&value).to_vec())
    }),
    ("answer of a member", member_answer_samples, |bytes| {
        codec::from_bytes::<Answer>(bytes, "answer").ok().map(|value| codec::to_bytes(&value).to_vec())
    }),
    ("position", position_samples, |bytes| {
        Position::from_bytes(own(bytes)).ok().map(|position| position.to_bytes())
    }),
    ("snapshot frame", frame_samples, |bytes| {
        snapshot::opened(own(bytes)).ok().map(|(kind, body)| snapshot::frame(kind, &body).to_vec())
    }),
    ("snapshot rows", row_samples, |bytes| snapshot_rows(bytes).map(|rows| snapshot::row_bytes(&rows))),
];

/// The rows in a frame of a snapshot.
pub fn snapshot_rows(body: &[u8]) -> Option<Vec<Row>> {
    snapshot::rows(own(body)).ok()
}

/// Such a body.
pub fn snapshot_row_bytes(rows: &[Row]) -> Vec<u8> {
    snapshot::row_bytes(rows)
}

fn own(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn membership() -> Option<Membership> {
    let node = |number: u64| Node {
        name: format!("m{number}"),
        peer_urls: vec![format!("http://127.0.0.1:{number}")],
        joining: number == 4,
    };
    let nodes: std::collections::BTreeMap<u64, Node> = (1..=4).map(|number| (number, node(number))).collect();
    Membership::new(vec![[1, 2, 3].into(), [1, 2].into()], nodes).ok()
}

fn append_samples() -> Vec<Vec<u8>> {
    use openraft::EntryPayload as RaftPayload;
    let normal = RaftPayload::Normal(Payload(Bytes::from_static(b"\x01some command")));
    let mut payloads = vec![RaftPayload::Blank, normal];
    payloads.extend(membership().map(RaftPayload::Membership));
    let entries =
        (11..).zip(payloads).map(|(index, payload)| RaftEntry { log_id: log_id(7, index), payload });
    let request = AppendRequest {
        vote: Vote::new_committed(7, 3),
        prev_log_id: Some(log_id(6, 10)),
        entries: entries.collect(),
        leader_commit: Some(log_id(6, 9)),
    };
    vec![codec::append_request_bytes(&request).to_vec()]
}

fn answer_samples() -> Vec<Vec<u8>> {
    use openraft::raft::{StreamAppendError, TransferLeaderError};
    let id = log_id(6, 10);
    let mut samples: Vec<Vec<u8>> = [
        Ok(None),
        Ok(Some(id)),
        Err(StreamAppendError::Conflict(id)),
        Err(StreamAppendError::HigherVote(Vote::new(7, 3))),
    ]
    .iter()
    .map(|result| codec::append_result_bytes(result).to_vec())
    .collect();
    let transfers = [
        Ok(()),
        Err(TransferLeaderError::VoteChanged { expected: Vote::new(7, 3), actual: Vote::new(8, 2) }),
        Err(TransferLeaderError::LogNotFlushed { expected: Some(id), actual: None }),
    ];
    samples.extend(transfers.iter().map(|answer| codec::transfer_response_bytes(answer).to_vec()));
    samples.push(codec::refusal_bytes(77, crate::waiters::Refusal::Unknown).to_vec());
    samples
}

fn vote_samples() -> Vec<Vec<u8>> {
    let mut request = VoteRequest::new(Vote::new(7, 3), Some(log_id(6, 10)));
    request.leadership_transfer = true;
    let response = VoteResponse::new(Vote::new_committed(7, 3), Some(log_id(6, 10)), true);
    let transfer =
        openraft::raft::TransferLeaderRequest::new(Vote::new_committed(7, 3), 2, Some(log_id(6, 10)));
    vec![
        codec::vote_request_bytes(&request).to_vec(),
        codec::vote_response_bytes(&response).to_vec(),
        codec::transfer_request_bytes(&transfer).to_vec(),
    ]
}

fn forward_samples() -> Vec<Vec<u8>> {
    let proposals = [(1, Bytes::from_static(b"\x01one")), (2, Bytes::from_static(b"\x01two"))];
    vec![codec::forward_bytes(&proposals).to_vec()]
}

fn question_samples() -> Vec<Vec<u8>> {
    let urls = || vec!["http://127.0.0.1:2380".to_owned(), "http://127.0.0.1:2381".to_owned()];
    let questions = [
        Question::WhoAreYou,
        Question::LeaseRenew { id: 7 },
        Question::LeaseRemaining { id: i64::MIN },
        Question::Membership(MembershipChange::Add { id: 1, peer_urls: urls(), is_learner: true }),
        Question::Membership(MembershipChange::Update { id: u64::MAX, peer_urls: urls() }),
        Question::Membership(MembershipChange::Remove { id: 3 }),
    ];
    questions.iter().map(|question| codec::to_bytes(question).to_vec()).collect()
}

fn member_answer_samples() -> Vec<Vec<u8>> {
    let member = MemberRecord {
        id: 1,
        name: "m1".to_owned(),
        peer_urls: vec!["http://127.0.0.1:2380".to_owned()],
        client_urls: vec!["http://127.0.0.1:2379".to_owned()],
        is_learner: false,
    };
    let answers = [
        Answer::Description(codec::Description {
            cluster_id: 1,
            member_id: 2,
            leader: Some(3),
            members: vec![member],
            term: Some(4),
            last_index: 5,
            standing: codec::Standing::Votes,
        }),
        Answer::Lease(Some((60, 59))),
        Answer::Changed { index: 7 },
        Answer::Refused(MembershipError::MemberNotFound),
        Answer::TimedOut,
    ];
    answers.iter().map(|answer| codec::to_bytes(answer).to_vec()).collect()
}

fn position_samples() -> Vec<Vec<u8>> {
    let applied = Some(log_id(6, 10));
    let stored = membership().map(|membership| StoredMembership::new(Some(log_id(6, 9)), membership));
    let position = Position { applied, membership: stored.unwrap_or_default(), removed: vec![4, 5] };
    vec![Position::default().to_bytes(), position.to_bytes()]
}

fn frame_samples() -> Vec<Vec<u8>> {
    vec![snapshot::frame(1, b"rows").to_vec(), snapshot::frame(2, &7_u64.to_le_bytes()).to_vec()]
}

fn row_samples() -> Vec<Vec<u8>> {
    let rows = [
        Row::Meta(Bytes::from_static(b"revision"), Bytes::from_static(b"\x01\x08")),
        Row::Record(mvcc::Revision { main: 2, sub: 0 }, Bytes::from_static(b"a record")),
    ];
    vec![snapshot::row_bytes(&rows)]
}
