//! What the store itself tells of a kind's keys: the history that the API servers' watches are compared with.
//!
//! Invariant: complete from the first revision, because it goes on behind what it was told, through whichever member
//! answers. That the store tells the truth is what the other workload checks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::sync::watch::Receiver;
use tokio_stream::StreamExt as _;
use wire::etcdserverpb as pb;
use wire::mvccpb;

use crate::api::clients::NAMESPACE;
use crate::api::history::{Change, Stream, Told};
use crate::api::watchers::object;
use crate::cluster::client;
use crate::workload::{PAUSE_AFTER_ERROR, Shared};

const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Until `end` (0: not known yet) has been told, or until it is `u64::MAX`. `Err`: what no API server writes.
pub async fn follow(
    urls: Vec<String>,
    plural: &'static str,
    end: Receiver<u64>,
    shared: Arc<Shared>,
) -> Result<Stream> {
    let mut stream = Stream { member: 0, plural: plural.to_owned(), told: Vec::new(), resumed: 0 };
    let mut position = 0;
    for member in (0..urls.len()).cycle() {
        let is_done = |position: u64| {
            let end = *end.borrow();
            end == u64::MAX || (end > 0 && position >= end)
        };
        if is_done(position) {
            break;
        }
        stream.member = member;
        let Some(mut answers) = open(&urls[member], plural, position + 1).await? else {
            tokio::time::sleep(PAUSE_AFTER_ERROR).await;
            continue;
        };
        while !is_done(position) {
            let Ok(Ok(Some(answer))) = tokio::time::timeout(SILENCE_MAX, answers.message()).await else {
                break;
            };
            if answer.canceled {
                bail!(
                    "the store's watch from revision {} was cancelled: {}",
                    position + 1,
                    answer.cancel_reason
                );
            }
            for event in answer.events {
                let told = tell(plural, event, &shared)?;
                if let Told::Event { object, .. } = &told {
                    position = position.max(object.version);
                }
                shared.note("store", &stream.piece(told.clone()));
                stream.told.push(told);
            }
        }
        stream.resumed += 1;
    }
    Ok(stream)
}

/// `None`: nobody answers there now.
async fn open(url: &str, plural: &str, from: u64) -> Result<Option<tonic::Streaming<pb::WatchResponse>>> {
    use pb::watch_request::RequestUnion;
    let prefix = format!("/registry/{plural}/{NAMESPACE}/");
    // `/` is followed by `0`.
    let range_end = format!("/registry/{plural}/{NAMESPACE}0");
    let create = pb::WatchCreateRequest {
        key: prefix.into(),
        range_end: range_end.into(),
        start_revision: i64::try_from(from).context("a revision")?,
        prev_kv: true,
        ..Default::default()
    };
    let create = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut client = client(url)?;
    let opened = tokio::time::timeout(SILENCE_MAX, client.watch.watch(requests)).await;
    Ok(opened.ok().and_then(Result::ok).map(tonic::Response::into_inner))
}

fn tell(plural: &str, event: mvccpb::Event, shared: &Shared) -> Result<Told> {
    let kv = event.kv.context("an event without a key")?;
    let deleted = event.r#type == mvccpb::event::EventType::Delete as i32;
    let change = match deleted {
        true => Change::Deleted,
        false if kv.create_revision == kv.mod_revision => Change::Added,
        false => Change::Modified,
    };
    let bytes = match deleted {
        true => event.prev_kv.context("a deletion without what was there")?.value,
        false => kv.value,
    };
    let value = serde_json::from_slice(&bytes).context("the store holds an object that is not JSON")?;
    let mut object = object(plural, &value);
    object.version = u64::try_from(kv.mod_revision).context("a revision")?;
    // What is stored and what is shown are not the same bytes.
    object.digest = 0;
    Ok(Told::Event { change, object, at_ns: shared.now_ns() })
}
