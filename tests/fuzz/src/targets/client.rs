//! What clients send: messages, JSON, tokens, certificates.

use std::sync::OnceLock;

use harness::certificates::Authority;
use prost::Message as _;
use store::Jwt;
use wire::etcdserverpb as pb;

use super::{Decoder, Target};

pub(super) fn targets() -> Vec<Target> {
    let base = Target::default();
    let text = Target { is_text: true, ..base.clone() };
    vec![
        Target {
            name: "transaction",
            samples: || vec![txn().encode_to_vec()],
            decoder: Decoder::Judges(|input| stays_a_command(store::fuzzing::txn(input))),
            ..base.clone()
        },
        Target {
            name: "put",
            samples: || vec![put().encode_to_vec()],
            decoder: Decoder::Judges(|input| stays_a_command(store::fuzzing::put(input))),
            ..base.clone()
        },
        Target {
            name: "delete",
            samples: || vec![delete().encode_to_vec()],
            decoder: Decoder::Judges(|input| stays_a_command(store::fuzzing::delete_range(input))),
            ..base.clone()
        },
        Target {
            name: "range",
            samples: || vec![range().encode_to_vec()],
            decoder: Decoder::Judges(store::fuzzing::range),
            ..base.clone()
        },
        Target {
            name: "watch request",
            samples: || watches().iter().map(|request| request.encode_to_vec()).collect(),
            decoder: Decoder::Encodes(again::<pb::WatchRequest>),
            ..base.clone()
        },
        Target {
            name: "member request",
            samples: || {
                let peer_ur_ls = vec!["http://127.0.0.1:2380".to_owned()];
                vec![pb::MemberAddRequest { peer_ur_ls, is_learner: true }.encode_to_vec()]
            },
            decoder: Decoder::Encodes(again::<pb::MemberAddRequest>),
            ..base.clone()
        },
        Target {
            name: "permission",
            samples: || {
                let perm = wire::authpb::Permission { perm_type: 2, key: "a".into(), range_end: "b".into() };
                vec![
                    pb::AuthRoleGrantPermissionRequest { name: "r".to_owned(), perm: Some(perm) }
                        .encode_to_vec(),
                ]
            },
            decoder: Decoder::Encodes(again::<pb::AuthRoleGrantPermissionRequest>),
            ..base.clone()
        },
        Target {
            name: "stream of messages",
            samples: || vec![b"\0\0\0\0\x03abc\0\0\0\0\x02de".to_vec()],
            decoder: Decoder::Judges(|input| store::fuzzing::frames(input) > 0),
            ..base.clone()
        },
        Target {
            name: "JSON put",
            samples: || {
                vec![br#"{"key":"Zm9v","value":"YmFy","lease":"7","prev_kv":true,"unknown":1}"#.to_vec()]
            },
            decoder: Decoder::Encodes(|input| store::fuzzing::gateway("etcdserverpb.KV/Put", input)),
            ..text.clone()
        },
        Target {
            name: "JSON transaction",
            samples: || {
                vec![
                    br#"{"compare":[{"key":"YQ==","target":"VERSION","result":"GREATER","version":"1"}],"success":[{"request_range":{"key":"YQ==","limit":"9","sort_order":"DESCEND"}},{"request_txn":{"failure":[{"request_put":{"key":"YQ=="}}]}}]}"#.to_vec(),
                ]
            },
            decoder: Decoder::Encodes(|input| store::fuzzing::gateway("etcdserverpb.KV/Txn", input)),
            ..text.clone()
        },
        Target {
            name: "JSON watch",
            samples: || {
                vec![
                    br#"{"create_request":{"key":"YQ==","start_revision":"7","filters":["NOPUT"]}}"#.to_vec(),
                ]
            },
            decoder: Decoder::Encodes(|input| store::fuzzing::gateway("etcdserverpb.Watch/Watch", input)),
            ..text.clone()
        },
        Target {
            name: "simple token",
            samples: || vec![b"AbCdEfGhIjKlMnOpQrStUvWx.123".to_vec()],
            decoder: Decoder::Encodes(store::fuzzing::simple_token),
            ..text.clone()
        },
        Target {
            name: "signed token",
            samples: || vec![jwt().and_then(store::fuzzing::new_token).unwrap_or_default().into_bytes()],
            decoder: Decoder::Judges(|input| jwt().is_some_and(|jwt| store::fuzzing::token(jwt, input))),
            ..text
        },
        Target {
            name: "certificate",
            samples: || certificate().into_iter().collect(),
            decoder: Decoder::Judges(store::fuzzing::certificate),
            ..base
        },
    ]
}

/// A command that the edge made is one for the log, too, and comes out of it as it was.
fn stays_a_command(bytes: Option<Vec<u8>>) -> bool {
    let Some(bytes) = bytes else { return false };
    let command = mvcc::Command::decode(bytes.clone().into());
    let mut again = Vec::new();
    if let Ok(command) = &command {
        command.encode(&mut again);
    }
    assert_eq!(again, bytes, "{command:?}");
    true
}

fn again<M: prost::Message + Default>(input: &[u8]) -> Option<Vec<u8>> {
    M::decode(input).ok().map(|message| message.encode_to_vec())
}

fn put() -> pb::PutRequest {
    pb::PutRequest { key: "key".into(), value: "value".into(), lease: 7, prev_kv: true, ..Default::default() }
}

fn delete() -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: "a".into(), range_end: "b".into(), prev_kv: true }
}

fn range() -> pb::RangeRequest {
    pb::RangeRequest {
        key: "a".into(),
        range_end: "b".into(),
        limit: 500,
        revision: 7,
        sort_order: 2,
        sort_target: 3,
        ..Default::default()
    }
}

fn txn() -> pb::TxnRequest {
    use pb::request_op::Request;
    let op = |request| pb::RequestOp { request: Some(request) };
    let compare = pb::Compare {
        result: 1,
        target: 0,
        key: "a".into(),
        range_end: "b".into(),
        target_union: Some(pb::compare::TargetUnion::Version(7)),
    };
    let nested = pb::TxnRequest {
        compare: vec![compare.clone()],
        success: vec![op(Request::RequestRange(range()))],
        failure: vec![op(Request::RequestDeleteRange(delete()))],
    };
    pb::TxnRequest {
        compare: vec![compare],
        success: vec![op(Request::RequestPut(put())), op(Request::RequestTxn(nested))],
        failure: Vec::new(),
    }
}

fn watches() -> Vec<pb::WatchRequest> {
    use pb::watch_request::RequestUnion;
    let create = pb::WatchCreateRequest {
        key: "a".into(),
        range_end: "b".into(),
        start_revision: 7,
        filters: vec![0, 1],
        watch_id: -1,
        fragment: true,
        ..Default::default()
    };
    let unions = [
        RequestUnion::CreateRequest(create),
        RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: 7 }),
        RequestUnion::ProgressRequest(pb::WatchProgressRequest {}),
    ];
    unions.into_iter().map(|union| pb::WatchRequest { request_union: Some(union) }).collect()
}

fn jwt() -> Option<&'static Jwt> {
    static JWT: OnceLock<Option<Jwt>> = OnceLock::new();
    JWT.get_or_init(|| {
        let dir = tempfile::tempdir().ok()?;
        let key = dir.path().join("key");
        std::fs::write(&key, "a key of some length").ok()?;
        store::fuzzing::jwt(&format!("sign-method=HS256,priv-key={}", key.display()))
    })
    .as_ref()
}

/// A client's certificate in DER.
fn certificate() -> Option<Vec<u8>> {
    let dir = tempfile::tempdir().ok()?;
    let leaf = Authority::root("fuzz").ok()?.client(dir.path(), "ana", &["group"]).ok()?;
    let pem = std::fs::read_to_string(leaf.certificate).ok()?;
    let body: String = pem.lines().take_while(|line| !line.starts_with("-----END")).skip(1).collect();
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}
