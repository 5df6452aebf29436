//! Paths that look like those of a call and are none: nothing may be done that another eye would read otherwise.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::etcdserverpb as pb;

use crate::floods::request_headers;
use crate::garbage::{PREFACE, SETTINGS, raw_frame, throw};
use crate::rig::{PATIENCE, Victim, frame, put};

const TRICKS: &[&str] = &[
    "",
    "*",
    "/",
    "etcdserverpb.KV/Put",
    "//etcdserverpb.KV/Put",
    "/etcdserverpb.KV//Put",
    "/etcdserverpb.KV/Put/",
    "/etcdserverpb.KV/Put//",
    "/etcdserverpb.KV/put",
    "/etcdserverpb.kv/Put",
    "/ETCDSERVERPB.KV/PUT",
    "/etcdserverpb.KV/Put.",
    "/etcdserverpb.KV./Put",
    "/.etcdserverpb.KV/Put",
    "/etcdserverpb.KV/%50ut",
    "/etcdserverpb.KV%2FPut",
    "/etcdserverpb%2eKV/Put",
    "/./etcdserverpb.KV/Put",
    "/etcdserverpb.KV/./Put",
    "/x/../etcdserverpb.KV/Put",
    "/etcdserverpb.KV/x/../Put",
    "/etcdserverpb.KV/Put%00",
    "/etcdserverpb.KV/Put\0",
    "/etcdserverpb.KV/Put ",
    " /etcdserverpb.KV/Put",
    "/etcdserverpb.KV/Put;x",
    "\\etcdserverpb.KV\\Put",
    "/grpc.health.v1.Health/../etcdserverpb.KV/Put",
];

const GATEWAY_TRICKS: &[&str] = &[
    "v3/kv/put",
    "//v3/kv/put",
    "/v3//kv/put",
    "/v3/kv/put/",
    "/v3/kv/Put",
    "/V3/kv/put",
    "/v3/kv/put.",
    "/v3/kv/%70ut",
    "/v3%2Fkv/put",
    "/v3/./kv/put",
    "/v3/auth/../kv/put",
    "/health/../v3/kv/put",
    "/v3/kv/put%00",
    "/v3/kv/put;x",
];

/// Asks as gRPC does, frame by frame, and waits until that was answered in some way.
async fn ask(victim: &Victim, path: &str, body: &[u8]) {
    let mut socket = TcpStream::connect(&victim.authority).await.unwrap();
    let headers = raw_frame(1, 4, 1, &request_headers(path));
    let asked = [PREFACE, SETTINGS, &headers, &raw_frame(0, 1, 1, body)].concat();
    socket.write_all(&asked).await.unwrap();
    let answered = async {
        loop {
            let mut head = [0; 9];
            // The end of the connection is an answer, too.
            let Ok(_) = socket.read_exact(&mut head).await else { return };
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            let Ok(_) = socket.read_exact(&mut payload).await else { return };
            let (kind, ends, stream) = (head[3], head[4] & 1 != 0, head[8]);
            // The end of the stream, its reset, or a farewell.
            if (kind <= 1 && ends && stream == 1) || kind == 3 || kind == 7 {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("{path:?} was not answered"));
}

async fn is_written(victim: &Victim) -> bool {
    let range = pb::RangeRequest { key: "trick".into(), ..Default::default() };
    victim.client.kv.clone().range(range).await.unwrap().into_inner().count > 0
}

#[tokio::test]
async fn a_path_that_is_not_exactly_that_of_a_call_calls_nothing() {
    let mut victim = Victim::start(&[]).await;
    let body = frame(&put("trick", "1"));
    for path in TRICKS {
        ask(&victim, path, &body).await;
        assert!(!is_written(&victim).await, "{path:?} was taken for a put");
    }
    let json = r#"{"key":"dHJpY2s=","value":"MQ=="}"#;
    let length = json.len();
    let gateway = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{json}"
        )
    };
    for path in GATEWAY_TRICKS {
        throw(&victim, gateway(path).as_bytes(), false).await;
        assert!(!is_written(&victim).await, "{path:?} was taken for a put");
    }
    // The right ones do it, so the others could have.
    ask(&victim, "/etcdserverpb.KV/Put", &body).await;
    assert!(is_written(&victim).await);
    let delete = pb::DeleteRangeRequest { key: "trick".into(), ..Default::default() };
    victim.client.kv.clone().delete_range(delete).await.unwrap();
    throw(&victim, gateway("/v3/kv/put").as_bytes(), false).await;
    assert!(is_written(&victim).await);
    victim.is_well(100).await;
}
