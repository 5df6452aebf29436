//! Recorded events as they reach the server.

use super::*;
use crate::fake::{Fake, Outage};

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "d", "uid": "u", "resourceVersion": "7"}})
}

fn recorder(fake: &Fake) -> EventRecorder {
    EventRecorder::start(
        &fake.client(),
        "default-scheduler",
        "default-scheduler-host",
        CancellationToken::new(),
    )
}

fn record(recorder: &EventRecorder, reason: &str, note: &str) {
    let regarding = pod();
    let event = RecordedEvent {
        regarding: &regarding,
        related: None,
        kind: EventType::Normal,
        reason,
        action: "Binding",
        note,
    };
    recorder.record(event);
}

/// Lets the writer work; the clock is the test's.
async fn settle(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_has_upstreams_fields() {
    let fake = Fake::new();
    record(&recorder(&fake), "Scheduled", "Successfully assigned d/p to n1");
    settle(1).await;
    let mut events = fake.objects();
    assert_eq!(events.len(), 1);
    let event = events.remove(0);
    let name = meta::of(&event).name();
    let suffix = name.strip_prefix("p.").unwrap();
    assert!(u64::from_str_radix(suffix, 16).is_ok(), "{name}");
    assert_eq!(meta::of(&event).namespace(), "d");
    assert!(time::parse_us(event["eventTime"].as_str().unwrap()).is_some());
    let mut rest = event.clone();
    for field in ["metadata", "eventTime"] {
        rest.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(
        rest,
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "reportingController": "default-scheduler", "reportingInstance": "default-scheduler-host",
            "action": "Binding", "reason": "Scheduled", "note": "Successfully assigned d/p to n1", "type": "Normal",
            "regarding": {"kind": "Pod", "namespace": "d", "name": "p", "uid": "u", "apiVersion": "v1", "resourceVersion": "7"},
        })
    );
}

#[tokio::test(start_paused = true)]
async fn repeats_become_a_series() {
    let fake = Fake::new();
    let recorder = recorder(&fake);
    for note in ["one", "two", "three"] {
        record(&recorder, "FailedScheduling", note);
        settle(1).await;
    }
    record(&recorder, "Other", "x");
    settle(1).await;
    let events = fake.objects();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0]["note"], &events[0]["series"]["count"]), (&json!("one"), &json!(2)));
    // when the series is over its final count is written, and the next occurrence is a new event
    settle(8 * 60).await;
    assert_eq!(fake.objects()[0]["series"]["count"], 3);
    record(&recorder, "FailedScheduling", "again");
    settle(1).await;
    assert_eq!(fake.objects().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn events_survive_an_outage() {
    let fake = Fake::new();
    let recorder = recorder(&fake);
    fake.set_outage(Outage::Before);
    record(&recorder, "Scheduled", "x");
    settle(25).await;
    assert!(fake.objects().is_empty());
    fake.set_outage(Outage::None);
    settle(25).await;
    assert_eq!(fake.objects().len(), 1);
    // written, but the answer was lost: the second try finds it there
    fake.set_outage(Outage::After);
    record(&recorder, "Other", "x");
    settle(1).await;
    fake.set_outage(Outage::None);
    settle(60).await;
    assert_eq!(fake.objects().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn recording_never_blocks() {
    let fake = Fake::new();
    fake.set_outage(Outage::Before);
    let recorder = recorder(&fake);
    for index in 0..5000 {
        record(&recorder, &format!("Reason{index}"), &"é".repeat(600));
    }
    fake.set_outage(Outage::None);
    settle(60).await;
    let events = fake.objects();
    assert!(!events.is_empty() && events.len() <= QUEUE_MAX + WRITERS_MAX, "{}", events.len());
    assert_eq!(events[0]["note"].as_str().unwrap().len(), 1024);
}
