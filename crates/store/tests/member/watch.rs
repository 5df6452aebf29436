//! Watches: nothing missed, nothing twice, whatever the client does; refusals and progress as in etcd.

use std::time::Duration;

use tokio::time::timeout;
use wire::etcdserverpb::{self as pb, watch_create_request::FilterType};

use crate::one::{self, Member, event_texts, kv_text};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_watch_tells_history_and_news_in_order_without_gap_or_repeat() {
    let member = Member::start().await;
    for number in 0..50 {
        member.put(&format!("k{number:02}"), "old").await;
    }
    let mut watch = member.watch().await;
    watch.create(pb::WatchCreateRequest { start_revision: 2, ..one::prefix("k") }).await;
    for number in 0..50 {
        member.put(&format!("k{number:02}"), "new").await;
    }
    let events = watch.events(100).await;
    let revisions: Vec<i64> = events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(revisions, (2..102).collect::<Vec<_>>());
    member.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_gets_everything_later_and_delays_nobody() {
    let member = Member::start().await;
    let mut slow = member.watch().await;
    slow.create(one::prefix("k")).await;
    let value = "x".repeat(10_000);
    // Far more than the inbox, the answers under way and the connection's window hold.
    let writes = 6000;
    let mut tasks = Vec::new();
    for worker in 0..20 {
        let (mut kv, value) = (member.client.kv.clone(), value.clone());
        tasks.push(tokio::spawn(async move {
            for number in 0..writes / 20 {
                let key = format!("k{worker}-{number}");
                let put =
                    pb::PutRequest { key: key.into(), value: value.clone().into(), ..Default::default() };
                kv.put(put).await.unwrap();
            }
        }));
    }
    for task in tasks {
        timeout(60 * SECOND, task).await.unwrap().unwrap();
    }
    for (event, revision) in slow.events(writes).await.into_iter().zip(2..) {
        assert_eq!(event.kv.unwrap().mod_revision, revision);
    }
    member.stop().await;
}

#[tokio::test]
async fn watches_are_refused_ended_and_filtered_as_in_etcd() {
    let member = Member::start().await;
    for value in ["1", "2", "3"] {
        member.put("a", value).await;
    }
    member.compact(3).await;
    let mut watch = member.watch().await;

    let request = pb::WatchCreateRequest { start_revision: -1, ..one::prefix("a") };
    let answer = watch.ask(request).await;
    assert_eq!(
        (answer.created, answer.canceled, answer.watch_id, answer.cancel_reason.as_str()),
        (true, true, -1, "etcdserver: mvcc: required revision has been compacted")
    );
    let empty = pb::WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..Default::default() };
    let answer = watch.ask(empty).await;
    assert_eq!((answer.watch_id, answer.cancel_reason.as_str()), (-1, "mvcc: watcher range is empty"));

    let answer = watch.ask(pb::WatchCreateRequest { start_revision: 2, ..one::prefix("a") }).await;
    assert_eq!((answer.created, answer.canceled, answer.watch_id), (true, false, 0));
    let answer = watch.next().await;
    let header = answer.header.unwrap();
    assert_eq!((answer.canceled, answer.compact_revision, header.revision), (true, 3, 0));
    assert_eq!(answer.cancel_reason, "");

    let answer =
        watch.ask(pb::WatchCreateRequest { watch_id: 7, start_revision: 3, ..one::prefix("a") }).await;
    assert_eq!((answer.watch_id, answer.canceled), (7, false));
    assert_eq!(event_texts(&watch.next().await.events), ["PUT a=2 @3", "PUT a=3 @4"]);
    let answer = watch.ask(pb::WatchCreateRequest { watch_id: 7, ..one::prefix("z") }).await;
    assert_eq!(answer.cancel_reason, "mvcc: duplicate watch ID provided on the WatchStream");

    watch.cancel(99).await;
    watch.cancel(7).await;
    let answer = watch.next().await;
    assert_eq!((answer.watch_id, answer.canceled, answer.cancel_reason.as_str()), (7, true, ""));

    let only_deletes =
        pb::WatchCreateRequest { filters: vec![FilterType::Noput.into()], prev_kv: true, ..one::prefix("a") };
    watch.create(only_deletes).await;
    member.put("a", "4").await;
    member.delete("a").await;
    let answer = watch.next().await;
    assert_eq!(event_texts(&answer.events), ["DELETE a= @6"]);
    assert_eq!(kv_text(answer.events[0].prev_kv.as_ref().unwrap()), "a=4 @5");
    member.stop().await;
}

#[tokio::test]
async fn progress_is_told_once_for_the_stream_after_everything_before_it() {
    let member = Member::start().await;
    let mut watch = member.watch().await;
    watch.create(one::prefix("a")).await;
    watch.create(one::prefix("b")).await;
    for number in 0..100 {
        member.put(&format!("a{number}"), "v").await;
    }
    member.put("other", "v").await;
    watch.progress().await;
    let mut events = 0;
    let answer = loop {
        let answer = watch.next().await;
        if answer.watch_id == -1 {
            break answer;
        }
        events += answer.events.len();
    };
    assert_eq!((events, answer.header.unwrap().revision), (100, 102));
    assert!(answer.events.is_empty());

    // A watch that waits for a future revision makes it void.
    watch.create(pb::WatchCreateRequest { start_revision: 1000, ..one::prefix("c") }).await;
    watch.progress().await;
    member.put("c", "too early").await;
    assert!(timeout(SECOND / 2, watch.next()).await.is_err());
    member.stop().await;
}

#[tokio::test]
async fn idle_watches_that_asked_for_it_are_told_the_revision_now_and_then() {
    let member =
        Member::start_with(|config| config.watch_progress_interval = Duration::from_millis(200)).await;
    let mut watch = member.watch().await;
    watch.create(one::prefix("silent")).await;
    watch.create(pb::WatchCreateRequest { progress_notify: true, ..one::prefix("a") }).await;
    member.put("other", "v").await;
    let answer = loop {
        let answer = watch.next().await;
        if answer.header.as_ref().unwrap().revision == 2 {
            break answer;
        }
    };
    assert_eq!((answer.watch_id, answer.events.len()), (1, 0));
    member.stop().await;
}

#[tokio::test]
async fn a_revision_is_split_only_for_clients_that_take_fragments() {
    let member = Member::start_with(|config| config.request_size_bytes_max = 200_000).await;
    let mut whole = member.watch().await;
    whole.create(one::prefix("k")).await;
    let mut parts = member.watch().await;
    parts.create(pb::WatchCreateRequest { fragment: true, start_revision: 2, ..one::prefix("k") }).await;
    // Catching up merges revisions, so several small ones make an answer that is worth splitting.
    for number in 0..12 {
        member.put(&format!("k{number}"), &"x".repeat(150_000)).await;
    }
    let mut late = member.watch().await;
    late.create(pb::WatchCreateRequest { fragment: true, start_revision: 2, ..one::prefix("k") }).await;
    let mut fragments = 0;
    let mut events = 0;
    while events < 12 {
        let answer = late.next().await;
        fragments += usize::from(answer.fragment);
        events += answer.events.len();
    }
    assert!(fragments > 0);
    assert_eq!((whole.events(12).await.len(), parts.events(12).await.len()), (12, 12));
    member.stop().await;
}

#[tokio::test]
async fn a_stream_with_a_request_that_is_too_large_ends_with_etcds_text() {
    let member = Member::start().await;
    let mut watch = member.watch().await;
    watch.create(one::prefix("a")).await;
    let large = pb::WatchCreateRequest { key: vec![0; 3 << 20].into(), ..Default::default() };
    watch.send_create(large).await;
    let end = watch.end().await;
    assert_eq!(end.code(), tonic::Code::ResourceExhausted);
    assert!(end.message().starts_with("grpc: received message larger than max ("), "{}", end.message());
    member.stop().await;
}

/// Each has far more to read than a pass takes, and one that is far behind keeps nobody else waiting for ever.
#[tokio::test]
async fn many_watches_that_are_behind_all_hear_everything_in_order() {
    let member = Member::start().await;
    let value = "x".repeat(20_000);
    for round in 0..2 {
        for number in 0..50 {
            member.put(&format!("k{number}"), &format!("{round}{value}")).await;
        }
    }
    let mut watch = member.watch().await;
    for _ in 0..20 {
        let request = pb::WatchCreateRequest { start_revision: 2, prev_kv: true, ..one::prefix("k") };
        watch.send_create(request).await;
    }
    let mut heard: Vec<Vec<i64>> = vec![Vec::new(); 20];
    let mut is_through = false;
    while heard.iter().any(|revisions| revisions.len() < 110) {
        let answer = watch.next().await;
        let revisions = answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision);
        heard[usize::try_from(answer.watch_id).unwrap()].extend(revisions);
        if heard[0].len() == 100 && !std::mem::replace(&mut is_through, true) {
            // What comes now reaches everybody all the same.
            for _ in 0..10 {
                member.put("k", &value).await;
            }
        }
    }
    assert!(heard.iter().all(|revisions| *revisions == (2..112).collect::<Vec<_>>()), "{heard:?}");
    member.stop().await;
}
