//! Terms against a scripted API server: each request waits for the answer that the test gives, or does not give.
//!
//! Time is paused, so that waiting costs nothing. Events and accounts are answered at once and not looked at.

use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use kubeclient::{Body, BoxError, LocalService, Transport, full_body};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

type Answer = Result<(u16, Value), BoxError>;
type Frames = mpsc::UnboundedSender<Value>;

struct Asked {
    what: String,
    answer: oneshot::Sender<Answer>,
}

impl Asked {
    fn answer(self, code: u16, body: Value) {
        self.answer.send(Ok((code, body))).expect("somebody waits for the answer");
    }

    fn break_connection(self) {
        self.answer.send(Err("planted".into())).expect("somebody waits for the answer");
    }

    fn conflict(self) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Conflict",
            "code": 409, "message": "pod is already assigned to a node"});
        self.answer(409, status);
    }
}

struct Server {
    client: Client,
    /// The plural that is watched, and where its events go.
    watches: mpsc::UnboundedReceiver<(String, Frames)>,
    asked: mpsc::UnboundedReceiver<Asked>,
}

struct Running {
    end: CancellationToken,
    task: JoinHandle<Handover>,
}

impl Running {
    async fn end(self) -> Handover {
        self.end.cancel();
        self.task.await.unwrap()
    }
}

impl Server {
    fn start() -> Server {
        let (watches_sender, watches) = mpsc::unbounded_channel();
        let (asked_sender, asked) = mpsc::unbounded_channel();
        let service =
            tower::service_fn(move |request| serve(request, watches_sender.clone(), asked_sender.clone()));
        let client = Client::new(Transport::local(LocalService::new(service)), "test/1.0");
        Server { client, watches, asked }
    }

    fn term(&self, unsettled: &Unsettled) -> Running {
        let end = CancellationToken::new();
        let config = Config { leader_elect: false, ..Config::default() };
        let term = Term::unlimited(end.clone());
        let task = tokio::spawn(run(self.client.clone(), config, unsettled.clone(), term));
        Running { end, task }
    }

    /// Answers the two watches of a term with what there is. Events of nodes and pods go into what this gives.
    async fn tell(&mut self, nodes: &[Value], pods: &[Value]) -> (Frames, Frames) {
        let mut frames = (None, None);
        while frames.0.is_none() || frames.1.is_none() {
            let (plural, into) = self.watches.recv().await.unwrap();
            let objects = if plural == "nodes" { nodes } else { pods };
            for object in objects {
                into.send(json!({"type": "ADDED", "object": object})).unwrap();
            }
            into.send(json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9",
                "annotations": {"k8s.io/initial-events-end": "true"}}}}))
                .unwrap();
            *(if plural == "nodes" { &mut frames.0 } else { &mut frames.1 }) = Some(into);
        }
        (frames.0.unwrap(), frames.1.unwrap())
    }

    async fn asked(&mut self, what: &str) -> Asked {
        let asked = tokio::time::timeout(Duration::from_secs(300), self.asked.recv()).await;
        let asked = asked.unwrap_or_else(|_| panic!("nobody asks to {what}")).unwrap();
        assert_eq!(asked.what, what);
        asked
    }

    async fn asked_nothing(&mut self) {
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(self.asked.try_recv().ok().map(|asked| asked.what), None);
    }
}

async fn serve(
    request: Request<Body>,
    watches: mpsc::UnboundedSender<(String, Frames)>,
    asked: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Body>, BoxError> {
    let (parts, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or_default();
    let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
    if parts.uri.query().is_some_and(|query| query.contains("watch=true")) {
        let (into, frames) = mpsc::unbounded_channel::<Value>();
        watches.send((path.last().unwrap().to_string(), into))?;
        let stream = futures_util::stream::unfold(frames, |mut frames| async move {
            let frame = format!("{}\n", frames.recv().await?);
            Some((Ok::<_, BoxError>(http_body::Frame::data(frame.into())), frames))
        });
        return Ok(Response::new(StreamBody::new(stream).boxed_unsync()));
    }
    let name = path.get(5).copied().unwrap_or_default();
    let what = match (&parts.method, path.last().copied()) {
        (&Method::POST, Some("binding")) => {
            format!("bind {name} to {}", body["target"]["name"].as_str().unwrap())
        }
        (&Method::PATCH, Some("status")) => {
            format!("say of {name}: {}", body["status"]["conditions"][0]["message"].as_str().unwrap())
        }
        (&Method::GET, _) => format!("read {name}"),
        _ => return Ok(Response::new(full_body(body.to_string()))),
    };
    let (answer, answered) = oneshot::channel();
    asked.send(Asked { what, answer })?;
    let (code, body) = match answered.await {
        Ok(answer) => answer?,
        Err(_) => std::future::pending().await, // never answered
    };
    let mut response = Response::new(full_body(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code)?;
    Ok(response)
}

fn node(name: &str, open: bool) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"unschedulable": !open},
        "status": {"allocatable": {"cpu": "1", "pods": "10"}}})
}

/// 600m of the 1000m of a node.
fn pod(name: &str, version: u64, on: Option<&str>) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": version.to_string()},
        "spec": {"nodeName": on.unwrap_or_default(),
            "containers": [{"resources": {"requests": {"cpu": "600m"}}}]},
        "status": {"phase": "Pending"}})
}

fn event(change: &str, object: Value) -> Value {
    json!({"type": change, "object": object})
}

const FULL: &str = "0/1 nodes are available: 1 Insufficient cpu.";

#[tokio::test(start_paused = true)]
async fn a_binding_on_its_way_at_the_end_of_a_term_keeps_its_room_in_the_next() {
    let (mut server, unsettled) = (Server::start(), Unsettled::default());
    let first = server.term(&unsettled);
    let _watches = server.tell(&[node("n1", true)], &[pod("z", 2, None)]).await;
    let binding = server.asked("bind z to n1").await;
    assert_eq!(first.end().await, Handover::Unsettled);
    assert!(binding.answer.is_closed(), "nobody waits, or asks again, after the term");

    let second = server.term(&unsettled);
    // By its name a would be decided about first.
    let nodes = [node("n1", true)];
    let (_nodes, pods) = server.tell(&nodes, &[pod("a", 3, None), pod("z", 2, None)]).await;
    let again = server.asked("bind z to n1").await;
    server.asked(&format!("say of a: {FULL}")).await.answer(200, json!({}));
    // The first one has been written after all.
    again.conflict();
    server.asked("read z").await.answer(200, pod("z", 4, Some("n1")));
    pods.send(event("MODIFIED", pod("z", 4, Some("n1")))).unwrap();
    server.asked_nothing().await;
    pods.send(event("DELETED", pod("z", 5, Some("n1")))).unwrap();
    server.asked("bind a to n1").await.answer(201, json!({}));
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_last_term_bound_or_lost_is_not_bound_again() {
    let (mut server, unsettled) = (Server::start(), Unsettled::default());
    let first = server.term(&unsettled);
    let nodes = [node("n1", true), node("n2", true)];
    let _watches = server.tell(&nodes, &[pod("a", 2, None), pod("b", 2, None)]).await;
    let (one, other) = (server.asked.recv().await.unwrap(), server.asked.recv().await.unwrap());
    assert!(one.what.starts_with("bind a to") && other.what.starts_with("bind b to"));
    first.end().await;
    let second = server.term(&unsettled);
    let _watches = server.tell(&nodes, &[pod("a", 3, Some("n2"))]).await; // b was deleted
    server.asked_nothing().await;
    second.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_counts_on_its_node_until_the_outcome_of_its_binding_is_certain() {
    let mut server = Server::start();
    let term = server.term(&Unsettled::default());
    let (_nodes, pods) = server.tell(&[node("n1", true)], &[pod("a", 2, None)]).await;
    server.asked("bind a to n1").await.break_connection();
    let again = server.asked("bind a to n1").await;
    pods.send(event("ADDED", pod("b", 10, None))).unwrap();
    server.asked(&format!("say of b: {FULL}")).await.answer(200, json!({}));
    again.conflict();
    server.asked("read a").await.answer(200, pod("a", 11, Some("n1")));
    pods.send(event("MODIFIED", pod("a", 11, Some("n1")))).unwrap();
    server.asked_nothing().await;
    pods.send(event("DELETED", pod("a", 12, Some("n1")))).unwrap();
    server.asked("bind b to n1").await.answer(201, json!({}));
    term.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_binding_gives_the_room_back_and_a_pod_found_elsewhere_counts_there() {
    let mut server = Server::start();
    let term = server.term(&Unsettled::default());
    let nodes = [node("n1", true), node("n2", false)];
    let (_nodes, pods) = server.tell(&nodes, &[pod("a", 2, None)]).await;
    server.asked("bind a to n1").await.conflict();
    server.asked("read a").await.answer(200, pod("a", 2, None));
    let again = server.asked("bind a to n1").await; // after its backoff
    pods.send(event("ADDED", pod("b", 10, None))).unwrap();
    let full = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.";
    server.asked(&format!("say of b: {full}")).await.answer(200, json!({}));
    again.conflict();
    server.asked("read a").await.answer(200, pod("a", 11, Some("n2")));
    server.asked("bind b to n1").await.answer(201, json!({}));
    term.end().await;
}

#[tokio::test(start_paused = true)]
async fn answers_to_bindings_are_waited_for_at_the_end_of_a_term_and_nothing_more_is_sent() {
    let answers: [fn(Asked); 3] = [
        |asked| asked.answer(201, json!({})),
        |asked| {
            asked.answer(
                404,
                json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound"}),
            )
        },
        Asked::conflict,
    ];
    for answer in answers {
        let (mut server, unsettled) = (Server::start(), Unsettled::default());
        let term = server.term(&unsettled);
        let _watches = server.tell(&[node("n1", true)], &[pod("a", 2, None), pod("b", 2, None)]).await;
        let binding = server.asked("bind a to n1").await;
        server.asked(&format!("say of b: {FULL}")).await.answer(200, json!({}));
        term.end.cancel();
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(!term.task.is_finished());
        answer(binding);
        assert_eq!(term.task.await.unwrap(), Handover::Settled);
        assert!(unsettled.is_empty());
        server.asked_nothing().await;
    }
}

/// The connection breaks: it may be written still, and there is no time left to ask.
#[tokio::test(start_paused = true)]
async fn a_binding_without_an_answer_at_the_end_of_a_term_is_not_settled() {
    let mut server = Server::start();
    let term = server.term(&Unsettled::default());
    let _watches = server.tell(&[node("n1", true)], &[pod("a", 2, None)]).await;
    let binding = server.asked("bind a to n1").await;
    term.end.cancel();
    tokio::time::sleep(Duration::from_secs(1)).await;
    binding.break_connection();
    assert_eq!(term.task.await.unwrap(), Handover::Unsettled);
    server.asked_nothing().await;
}

/// A refusal says nothing about a try before it that had no answer.
#[tokio::test(start_paused = true)]
async fn a_refusal_behind_a_try_without_an_answer_gives_no_room_back() {
    let mut server = Server::start();
    let term = server.term(&Unsettled::default());
    let (_nodes, pods) = server.tell(&[node("n1", true)], &[pod("a", 2, None)]).await;
    server.asked("bind a to n1").await.break_connection();
    server.asked("bind a to n1").await.conflict();
    server.asked("read a").await.answer(200, pod("a", 2, None));
    let again = server.asked("bind a to n1").await;
    pods.send(event("ADDED", pod("b", 10, None))).unwrap();
    server.asked(&format!("say of b: {FULL}")).await.answer(200, json!({}));
    again.answer(201, json!({}));
    assert_eq!(term.end().await, Handover::Settled);
}

/// As a process does that was stopped by a signal until its lease was another's: the end of its term comes too late.
#[tokio::test(start_paused = true)]
async fn a_scheduler_that_slept_through_the_end_of_its_term_binds_nothing() {
    let mut server = Server::start();
    let (ended, unsettled) = (CancellationToken::new(), Unsettled::default());
    let (sender, until) = tokio::sync::watch::channel(Instant::now() + Duration::from_secs(10));
    let term = kubeclient::Term::new(ended.clone(), until);
    let running = tokio::spawn(run(server.client.clone(), Config::default(), unsettled.clone(), term));
    let (_nodes, pods) = server.tell(&[node("n1", true), node("n2", true)], &[pod("a", 2, None)]).await;
    let sent = server.asked.recv().await.unwrap();
    tokio::time::sleep(Duration::from_secs(11)).await;
    pods.send(event("ADDED", pod("b", 10, None))).unwrap();
    sent.break_connection();
    server.asked_nothing().await;
    ended.cancel();
    assert_eq!(running.await.unwrap(), Handover::Unsettled, "of a nobody knows");
    assert_eq!(unsettled.take().into_keys().collect::<Vec<_>>(), [PodUid::from("a")]);
    drop(sender);
}
