//! What survives the wire, what is refused, and the bytes of every message, which builds of other versions read.

use std::collections::BTreeMap;

use super::*;

fn sample_membership() -> Membership {
    let node = |n: u64| Node {
        name: format!("m{n}"),
        peer_urls: vec![format!("http://127.0.0.1:{n}")],
        joining: n == 4,
    };
    let nodes: BTreeMap<u64, Node> = (1..=4).map(|n| (n, node(n))).collect();
    Membership::new(vec![[1, 2, 3].into(), [1, 2].into()], nodes).unwrap()
}

#[test]
fn an_append_request_survives_the_wire() {
    let request = AppendRequest {
        vote: Vote::new_committed(7, 3),
        prev_log_id: Some(log_id(6, 10)),
        entries: vec![
            RaftEntry { log_id: log_id(7, 11), payload: RaftPayload::Blank },
            RaftEntry {
                log_id: log_id(7, 12),
                payload: RaftPayload::Normal(Payload(Bytes::from_static(b"\x01abc"))),
            },
            RaftEntry { log_id: log_id(7, 13), payload: RaftPayload::Membership(sample_membership()) },
        ],
        leader_commit: None,
    };
    let bytes = append_request_bytes(&request);
    let back = append_request(bytes.clone()).unwrap();
    assert_eq!(format!("{request:?}"), format!("{back:?}"));
    assert_eq!(append_request_bytes(&back), bytes);
}

#[test]
fn no_prefix_of_a_message_is_taken_for_a_whole_one_and_none_panics() {
    let request = AppendRequest {
        vote: Vote::new(1, 1),
        prev_log_id: None,
        entries: vec![RaftEntry {
            log_id: log_id(1, 0),
            payload: RaftPayload::Membership(sample_membership()),
        }],
        leader_commit: Some(log_id(1, 0)),
    };
    let whole = append_request_bytes(&request);
    for length in 0..whole.len() {
        assert!(append_request(whole.slice(..length)).is_err(), "prefix of {length} bytes");
    }
    let forwarded = forward_bytes(&[(1, Bytes::from_static(b"\x01x")), (2, Bytes::from_static(b"\x01yz"))]);
    assert_eq!(forward(forwarded.clone()).unwrap().len(), 2);
    for length in 0..forwarded.len() {
        assert!(forward(forwarded.slice(..length)).is_err(), "prefix of {length} bytes");
    }
}

/// Found by the fuzz target "position": it was taken, but not as what it was encoded to.
#[test]
fn a_membership_without_voters_is_refused() {
    let mut out = Vec::new();
    put_log_id(&mut out, Some(&log_id(6, 10)));
    out.extend_from_slice(&[1, 0, 0]);
    assert!(take_stored_membership(&mut out.into()).is_err());
    let mut out = Vec::new();
    put_log_id(&mut out, Some(&log_id(6, 10)));
    out.push(0);
    assert!(take_stored_membership(&mut out.into()).is_err());
}

/// Found by the fuzz target "append request".
#[test]
fn a_previous_entry_at_the_last_index_of_all_is_refused() {
    let request = AppendRequest {
        vote: Vote::new(1, 1),
        prev_log_id: Some(log_id(1, u64::MAX)),
        entries: Vec::new(),
        leader_commit: None,
    };
    assert!(append_request(append_request_bytes(&request)).is_err());
}

#[test]
fn a_gap_between_entries_is_refused() {
    let request = AppendRequest {
        vote: Vote::new(1, 1),
        prev_log_id: Some(log_id(1, 4)),
        entries: vec![RaftEntry { log_id: log_id(1, 6), payload: RaftPayload::Blank }],
        leader_commit: None,
    };
    assert!(append_request(append_request_bytes(&request)).is_err());
}

#[test]
fn a_stored_membership_survives() {
    for stored in
        [StoredMembership::default(), StoredMembership::new(Some(log_id(2, 9)), sample_membership())]
    {
        let mut out = Vec::new();
        put_stored_membership(&mut out, &stored);
        out.extend_from_slice(b"tail");
        let mut bytes = Bytes::from(out);
        assert_eq!(take_stored_membership(&mut bytes).unwrap(), stored);
        assert_eq!(bytes, "tail");
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn description() -> Description {
    let member = MemberRecord {
        id: 1,
        name: "m1".to_owned(),
        peer_urls: vec!["http://a:2380".to_owned()],
        client_urls: vec!["http://a:2379".to_owned()],
        is_learner: false,
    };
    Description {
        cluster_id: 7,
        member_id: 1,
        leader: Some(3),
        members: vec![member],
        term: Some(4),
        last_index: 300,
        standing: Standing::FirstStart,
    }
}

/// What a build says that does not know the three fields of the tail.
const SHORT_DESCRIPTION: &str =
    "00070101030101026d31010d687474703a2f2f613a32333830010d687474703a2f2f613a3233373900";

fn bytes_of(text: &str) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

#[test]
fn a_description_of_an_older_build_is_read_with_defaults_and_one_of_a_later_build_without_its_tail() {
    let short = bytes_of(SHORT_DESCRIPTION);
    let read = |bytes: &[u8]| from_bytes::<Answer>(bytes, "answer");
    let expected =
        Description { term: None, last_index: u64::MAX, standing: Standing::Votes, ..description() };
    assert_eq!(read(&short).unwrap(), Answer::Description(expected));

    let whole = to_bytes(&Answer::Description(description()));
    let mut longer = whole.to_vec();
    longer.extend_from_slice(b"what a later version has to say");
    assert_eq!(read(&longer).unwrap(), Answer::Description(description()));

    // Between two fields a message may end, within one it may not.
    let ends = (0..whole.len()).filter(|length| read(&whole[..*length]).is_ok());
    let behind_term = short.len() + 2;
    assert_eq!(ends.collect::<Vec<_>>(), [short.len(), behind_term, behind_term + 3]);
}

#[test]
fn what_only_a_later_version_knows_is_called_so() {
    let unknown = |error: CodecError| matches!(error, CodecError::Unknown { .. });
    assert!(unknown(from_bytes::<Question>(&[9], "question").unwrap_err()));
    assert!(unknown(from_bytes::<Answer>(&[99], "answer").unwrap_err()));
    assert!(unknown(append_result(Bytes::from_static(&[3, 0])).unwrap_err()));
    assert!(unknown(transfer_response(Bytes::from_static(&[3])).unwrap_err()));
    assert!(unknown(refusal(Bytes::from_static(&[0, 0, 0, 0, 0, 0, 0, 0, 3])).unwrap_err()));
    assert!(unknown(entry(1, 1, Bytes::from_static(&[3, 1])).unwrap_err()));
    for empty in [&[][..], &[ENTRY_BLANK, 1]] {
        assert!(!unknown(entry(1, 1, Bytes::from_static(empty)).unwrap_err()));
    }
    // A switch that is neither on nor off.
    let mut vote = BytesMut::new();
    put_vote(&mut vote, &Vote::new(7, 3));
    vote.extend_from_slice(&[0, 2]);
    assert!(vote_request(vote.freeze()).is_err());
}

/// Members of other versions read these bytes: a change that fails here needs a new call or a new tag.
#[test]
fn the_bytes_of_peer_messages_do_not_change() {
    let id = log_id(6, 10);
    let append = AppendRequest {
        vote: Vote::new_committed(7, 3),
        prev_log_id: Some(id),
        entries: vec![
            RaftEntry { log_id: log_id(7, 11), payload: RaftPayload::Blank },
            RaftEntry { log_id: log_id(7, 12), payload: RaftPayload::Membership(sample_membership()) },
        ],
        leader_commit: None,
    };
    let mut vote = VoteRequest::new(Vote::new(7, 3), Some(id));
    vote.leadership_transfer = true;
    let transfer = TransferLeaderRequest::new(Vote::new_committed(7, 3), 2, Some(id));
    let changed = TransferLeaderError::VoteChanged { expected: Vote::new(7, 3), actual: Vote::new(8, 2) };
    let not_flushed = TransferLeaderError::LogNotFlushed { expected: Some(id), actual: None };
    let urls = || vec!["http://a:1".to_owned()];
    let question = |question: Question| to_bytes(&question);
    let answer = |answer: Answer| to_bytes(&answer);
    let messages = [
        ("append", append_request_bytes(&append)),
        ("append answer", append_result_bytes(&Ok(Some(id)))),
        ("append conflict", append_result_bytes(&Err(StreamAppendError::Conflict(id)))),
        ("append higher vote", append_result_bytes(&Err(StreamAppendError::HigherVote(Vote::new(8, 2))))),
        ("vote", vote_request_bytes(&vote)),
        ("vote answer", vote_response_bytes(&VoteResponse::new(Vote::new(7, 3), Some(id), true))),
        ("transfer", transfer_request_bytes(&transfer)),
        ("transfer answer", transfer_response_bytes(&Ok(()))),
        ("transfer vote changed", transfer_response_bytes(&Err(changed))),
        ("transfer not flushed", transfer_response_bytes(&Err(not_flushed))),
        ("forward", forward_bytes(&[(9, Bytes::from_static(b"\x01x"))])),
        ("refusal", refusal_bytes(9, crate::waiters::Refusal::TooManyRequests)),
        ("read index", read_index_bytes(300)),
        ("who are you", question(Question::WhoAreYou)),
        ("lease renewal", question(Question::LeaseRenew { id: -2 })),
        ("lease remaining", question(Question::LeaseRemaining { id: 7 })),
        (
            "add",
            question(Question::Membership(MembershipChange::Add {
                id: 5,
                peer_urls: urls(),
                is_learner: true,
            })),
        ),
        ("promote", question(Question::Membership(MembershipChange::Promote { id: 5 }))),
        ("remove", question(Question::Membership(MembershipChange::Remove { id: 5 }))),
        ("update", question(Question::Membership(MembershipChange::Update { id: 5, peer_urls: urls() }))),
        ("hash", question(Question::HashKv { revision: 7 })),
        ("description", answer(Answer::Description(description()))),
        ("lease", answer(Answer::Lease(Some((60, 59))))),
        ("changed", answer(Answer::Changed { index: 7 })),
        ("refused", answer(Answer::Refused(crate::membership::MembershipError::InProgress))),
        ("not leader", answer(Answer::NotLeader)),
        ("timed out", answer(Answer::TimedOut)),
        ("hash answer", answer(Answer::HashKv { hash: 1, compact_revision: 2, revision: 3 })),
        ("no hash", answer(Answer::NoHash { reason: "x".to_owned() })),
    ];
    let found: Vec<String> =
        messages.iter().map(|(name, bytes)| format!("{name}: {}", text(bytes))).collect();
    let golden: Vec<&str> = include_str!("golden.txt").lines().collect();
    assert_eq!(found, golden, "\n{}\n", found.join("\n"));
}
