//! In which order a request is judged, seen from outside: of all that is wrong with it, the first stage answers.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use apiserver::{Body, BoxError, Config};
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::BodyExt;

use crate::fake_etcd::FakeEtcd;
use crate::fixture::{Member, PODS, body, jiang, root};

/// A body that notes being read, and then does what its test wants.
struct Probe {
    read: Arc<AtomicBool>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    Wait,
    Panic,
}

impl http_body::Body for Probe {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.read.store(true, Ordering::SeqCst);
        match self.then {
            Then::Wait => Poll::Pending,
            Then::Panic => panic!("a planted panic"),
        }
    }
}

fn probe(then: Then) -> (Arc<AtomicBool>, Body) {
    let read = Arc::new(AtomicBool::new(false));
    (read.clone(), Probe { read, then }.boxed_unsync())
}

fn create() -> http::request::Builder {
    Request::post(PODS).header("content-type", "application/json")
}

#[tokio::test]
async fn of_all_that_is_wrong_the_first_stage_answers() {
    let etcd = FakeEtcd::new();
    let config = Config { max_mutating_requests_inflight: 1, ..Config::default() };
    let member = Member::start_with(&etcd, config).await;
    member.role("pod-writer", "", "pods", &["create"]).await;
    assert_eq!(member.bind(&root(), "pod-writer", "holder").await.code, 201);
    // One writer holds the only seat: its body never comes.
    let holder = apiserver::User::new("holder", &[]);
    let (reading, endless) = probe(Then::Wait);
    let held = member.api.local(holder);
    let request = create().body(endless).unwrap();
    let held = tokio::spawn(tower::ServiceExt::oneshot(held, request));
    while !reading.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let with = |path: &str, headers: &[(&str, &str)]| {
        let request =
            headers.iter().fold(Request::post(path), |request, (name, value)| request.header(*name, *value));
        request.body(body("not even JSON")).unwrap()
    };
    let impersonate = ("impersonate-user", "ann");
    let unknown = "/api/v1/namespaces/default/nonsense";
    // Each line lacks the fault of the line before it.
    for (path, headers, code, what) in [
        ("/api/v1/namespaces/default/pods/%zz", &[impersonate][..], 400, "the path comes first"),
        ("/api/v1/namespaces/default/nonsense?timeout=x", &[impersonate], 400, "then the deadline"),
        (unknown, &[impersonate], 403, "then impersonation"),
        (unknown, &[], 429, "then flow control"),
    ] {
        let answer = member.send(&jiang(), with(path, headers)).await;
        assert_eq!(answer.code, code, "{what}: {}", answer.body);
    }
    held.abort();
    let _ = held.await;
    let answer = member.send(&jiang(), with(unknown, &[])).await;
    assert_eq!(answer.code, 403, "then authorization: {}", answer.body);
    assert_eq!(member.send(&root(), with(unknown, &[])).await.code, 404, "then the endpoint");
    assert_eq!(
        member.send(&root(), with(PODS, &[("content-type", "application/json")])).await.code,
        400,
        "then the body"
    );
}

#[tokio::test]
async fn the_body_of_a_request_that_may_not_be_is_never_read() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let (read, endless) = probe(Then::Wait);
    let answer = member.send(&jiang(), create().body(endless).unwrap()).await;
    assert_eq!((answer.code, read.load(Ordering::SeqCst)), (403, false));
}

#[tokio::test]
async fn a_body_that_does_not_come_meets_the_deadline() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let (_, endless) = probe(Then::Wait);
    let request = Request::post(format!("{PODS}?timeout=200ms")).header("content-type", "application/json");
    let answer = member.send(&root(), request.body(endless).unwrap()).await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (504, Some("Timeout")));
}

#[tokio::test]
async fn a_panic_is_a_500_that_is_recorded_and_the_server_goes_on() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let (_, planted) = probe(Then::Panic);
    let answer = member.send(&root(), create().body(planted).unwrap()).await;
    assert_eq!(answer.code, 500);
    assert!(!answer.message().contains("planted"), "what panicked is for the log");
    let event = member.audited(|event| event["stage"] == "Panic").await;
    assert_eq!(event["auditID"], answer.headers["audit-id"].to_str().unwrap());
    assert_eq!(member.get(&root(), PODS).await.code, 200);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    let large = body(vec![b' '; 3 * 1024 * 1024 + 1]);
    let answer = member.send(&root(), create().body(large).unwrap()).await;
    assert_eq!((answer.code, answer.body["reason"].as_str()), (413, Some("RequestEntityTooLarge")));
}

#[tokio::test]
async fn every_answer_names_its_audit_id_and_takes_the_clients_own() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    for path in ["/version", PODS, "/nonsense", "/api/v1/nonsense"] {
        let answer = member.get(&jiang(), path).await;
        assert_eq!(answer.headers["audit-id"].len(), 36, "{path}");
        assert_eq!(answer.headers["cache-control"], "no-cache, private", "{path}");
    }
    let request = Request::get("/version").header("audit-id", "mine").body(body("")).unwrap();
    assert_eq!(member.send(&jiang(), request).await.headers["audit-id"], "mine");
    assert_eq!(member.audited(|event| event["auditID"] == "mine").await["requestURI"], "/version");
}

#[tokio::test]
async fn only_get_is_a_watch_and_odd_paths_lead_nowhere() {
    let etcd = FakeEtcd::new();
    let member = Member::start(&etcd).await;
    for (method, path, code) in [
        ("POST", "/api/v1/watch/pods", 405),
        ("DELETE", "/api/v1/watch/namespaces/default/pods/a", 405),
        ("GET", "/api/v1/watch", 500),
        ("OPTIONS", PODS, 405),
        ("BREW", PODS, 405),
        ("GET", "/api/v1/proxy/namespaces/default/pods/a", 405),
        ("GET", "/apis//v1/secrets", 404),
        ("GET", "/api/v1/namespaces/a%2Fb/pods", 404),
        ("GET", "/api/v1/namespaces/default/pods/%00", 400),
        ("GET", "/apis/nonsense/v1/things", 404),
        ("PUT", "/version", 405),
    ] {
        let request = Request::builder().method(method).uri(path).body(body("")).unwrap();
        assert_eq!(member.send(&root(), request).await.code, code, "{method} {path}");
    }
}
