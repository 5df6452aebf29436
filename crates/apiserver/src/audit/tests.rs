//! What stands in the log after whole requests, read back as JSON.

use std::time::Duration;

use http::header::USER_AGENT;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{request_info, response};

struct Fixture {
    audit: Audit,
    directory: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { audit_log_path: Some(directory.path().join("audit.log")), ..Config::default() };
        Fixture { audit: Audit::open(&config, metrics::Metrics::new()).unwrap(), directory }
    }

    fn begin(&self, uri: &str) -> Context {
        let parts = http::Request::builder()
            .uri(uri)
            .header("authorization", "Bearer canary-secret")
            .header(USER_AGENT, "kubectl/1.37")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        let info =
            request_info::parse(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or("")).unwrap();
        self.audit.begin(
            &Origin::network("10.1.2.3:4".parse().unwrap(), Vec::new(), CancellationToken::new()),
            &parts,
            &info,
        )
    }

    /// All events once there are `count` of them.
    fn events(&self, count: usize) -> Vec<serde_json::Value> {
        for _ in 0..200 {
            let text = std::fs::read_to_string(self.directory.path().join("audit.log")).unwrap();
            if text.lines().count() >= count {
                assert!(!text.contains("canary"), "{text}");
                return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the log never had {count} lines")
    }
}

#[tokio::test]
async fn a_plain_request_leaves_one_complete_event_with_user_object_and_reason() {
    let fixture = Fixture::new();
    let context = fixture.begin("/api/v1/namespaces/default/pods/app?token=canary&x=1");
    context.set_caller(&User::new("jiang", &["dev"]));
    context.annotate("authorization.k8s.io/decision", "allow");
    context.finish(response::text(StatusCode::OK, "body"), false).await;
    let events = fixture.events(1);
    let event = &events[0];
    assert_eq!(event["stage"], "ResponseComplete");
    assert_eq!(event["requestURI"], "/api/v1/namespaces/default/pods/app?token=***&x=1");
    assert_eq!(event["verb"], "get");
    assert_eq!(event["user"], serde_json::json!({"username": "jiang", "groups": ["dev"]}));
    assert_eq!(event["objectRef"]["name"], "app");
    assert_eq!(event["responseStatus"]["code"], 200);
    assert_eq!(event["sourceIPs"], serde_json::json!(["10.1.2.3"]));
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");
    assert!(event["requestReceivedTimestamp"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_401_is_recorded_with_what_was_attempted() {
    let fixture = Fixture::new();
    let context = fixture.begin("/api/v1/pods");
    context.set_unauthenticated(&Refusal { attempted: vec!["bearer"], why: "canary".to_string() });
    context.finish(response::status(&Status::unauthorized()), false).await;
    let events = fixture.events(1);
    assert_eq!(events[0]["stage"], "ResponseStarted");
    assert_eq!(events[0]["responseStatus"]["code"], 401);
    assert_eq!(events[0]["responseStatus"]["message"], "Authentication failed, attempted: bearer");
    assert_eq!(events[0]["user"], serde_json::json!({}));
}

#[tokio::test]
async fn a_watch_is_recorded_when_it_starts_and_when_its_body_goes() {
    let fixture = Fixture::new();
    let stream = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
    let body = http_body_util::StreamBody::new(stream).boxed_unsync();
    let answer = fixture.begin("/api/v1/pods?watch=1").finish(Response::new(body), true).await;
    assert_eq!(fixture.events(1)[0]["stage"], "ResponseStarted");
    drop(answer);
    let events = fixture.events(2);
    assert_eq!(events.len(), 2);
    assert_eq!(events[1]["stage"], "ResponseComplete");
    assert_eq!(events[0]["auditID"], events[1]["auditID"]);
}

#[tokio::test]
async fn a_panic_and_an_abandoned_request_are_recorded_too() {
    let fixture = Fixture::new();
    let context = fixture.begin("/api/v1/pods");
    context.set_panicked();
    context.finish(response::status(&Status::internal("x")), false).await;
    assert_eq!(fixture.events(1)[0]["stage"], "Panic");
    drop(fixture.begin("/api/v1/pods"));
    let events = fixture.events(2);
    assert_eq!(events[1]["stage"], "ResponseComplete");
    assert!(events[1]["responseStatus"].get("code").is_none());
}
