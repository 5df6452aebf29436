//! Watchers that collect every change of every key through one member.
//!
//! Invariants: a watcher that lost its stream resumes behind the last revision it was given as a whole; it asks for
//! notifications of progress now and then, and writes down between which events they came.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch::Receiver;
use tokio_stream::StreamExt as _;
use wire::etcdserverpb as pb;
use wire::mvccpb;

use crate::cluster::client;
use crate::log::FIRST_REVISION;
use crate::record::Watched;
use crate::watch::{Event, Progress, Stream};
use crate::workload::{PAUSE_AFTER_ERROR, Shared, entry};

/// Between two requests for progress.
const PROGRESS_EVERY: Duration = Duration::from_millis(300);
/// A stream that lost its member without a word is given up after this, as a partition ends no connection.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Collects until it has seen revision `until` (0: not known yet), or until told to stop by a negative one.
pub async fn run_watcher(
    member: usize,
    url: String,
    until: Receiver<i64>,
    shared: Arc<Shared>,
) -> Result<Stream> {
    let mut stream = Stream::default();
    let mut response = 0;
    loop {
        let seen = stream.events.last().map_or(FIRST_REVISION - 1, |event| event.revision);
        let end = *until.borrow();
        if end < 0 || (end > 0 && seen >= end) {
            return Ok(stream);
        }
        follow(member, &url, seen + 1, &until, &shared, &mut stream, &mut response).await?;
        tokio::time::sleep(PAUSE_AFTER_ERROR).await;
    }
}

/// Appends what one connection delivers. An answer that cannot be is an error; a lost stream is not.
async fn follow(
    member: usize,
    url: &str,
    from: i64,
    until: &Receiver<i64>,
    shared: &Shared,
    stream: &mut Stream,
    response: &mut u64,
) -> Result<()> {
    use pb::watch_request::RequestUnion;
    let mut client = client(url)?;
    let create = pb::WatchCreateRequest {
        key: bytes::Bytes::from_static(b"\0"),
        range_end: bytes::Bytes::from_static(b"\0"),
        start_revision: from,
        prev_kv: true,
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let ticks = tokio_stream::wrappers::IntervalStream::new(tokio::time::interval(PROGRESS_EVERY));
    let progress = ticks.skip(1).map(|_| pb::WatchRequest {
        request_union: Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {})),
    });
    let requests = tokio_stream::once(create).chain(progress);
    let opened = tokio::time::timeout(SILENCE_MAX, client.watch.watch(requests)).await;
    let Ok(Ok(answer)) = opened else { return Ok(()) };
    let mut answers = answer.into_inner();
    loop {
        let Ok(Ok(Some(answer))) = tokio::time::timeout(SILENCE_MAX, answers.message()).await else {
            return Ok(());
        };
        if answer.canceled {
            bail!(
                "the watch through member {member} from revision {from} was cancelled: {}",
                answer.cancel_reason
            );
        }
        let arrived_ns = shared.now_ns();
        *response += 1;
        if answer.events.is_empty() && !answer.created {
            let revision = answer.header.as_ref().map_or(0, |header| header.revision);
            let progress = Progress { revision, events: stream.events.len() };
            shared.note("watches", &Watched::Progress { member, progress });
            stream.progress.push(progress);
        }
        for event in answer.events {
            let kv = event.kv.context("an event without a key")?;
            let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
            let event = Event {
                revision: kv.mod_revision,
                key: shared.key(&kv.key),
                value: if deleted { None } else { Some(entry(&kv)?.value) },
                create_revision: if deleted { 0 } else { kv.create_revision },
                version: if deleted { 0 } else { kv.version },
                previous: event.prev_kv.as_ref().map(entry).transpose()?,
                response: *response,
                arrived_ns,
            };
            shared.note("watches", &Watched::Event { member, event });
            stream.events.push(event);
        }
        let seen = stream.events.last().map_or(0, |event| event.revision);
        shared.collected[member].store(seen, Ordering::Relaxed);
        let end = *until.borrow();
        if end < 0 || (end > 0 && seen >= end) {
            return Ok(());
        }
    }
}
