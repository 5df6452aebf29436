//! One watcher for each member, which sees every change from the first to the last.
//!
//! Always holds: a watcher that lost its stream resumes behind the last change that it was given. Not here: watchers
//! that come and go (observers.rs).

use std::sync::Arc;
use std::time::Duration;

use wire::etcdserverpb as pb;
use wire::etcdserverpb::watch_client::WatchClient;

use super::answers::{change, is_about_users};
use super::{PAUSE_AFTER_ERROR_MS, PREFIX, Shared};
use crate::member::{CLIENT_PORT, host};
use crate::network::channel;

/// Collects every change through one member until it has seen the last one.
pub(super) async fn watcher(member: usize, shared: Arc<Shared>) {
    shared.begin_stream(member);
    let mut at = member;
    loop {
        at = shared.roster.stay(at, member);
        let Some(from) = shared.next_of_stream(member) else { return };
        tokio::select! {
            () = follow(member, at, from, &shared) => {}
            // The end became known while the stream is silent, or may have been reached.
            () = tokio::time::sleep(Duration::from_secs(3)), if shared.is_end_known() => {}
        }
        tokio::time::sleep(Duration::from_millis(PAUSE_AFTER_ERROR_MS)).await;
    }
}

/// Appends what one stream through the member `at` delivers. An answer that cannot be is a finding; a lost stream is not.
async fn follow(member: usize, at: usize, from: i64, shared: &Shared) {
    let mut watch = WatchClient::new(channel(&host(at), CLIENT_PORT));
    let create = pb::WatchCreateRequest {
        key: PREFIX.into(),
        range_end: wire::prefix_end(PREFIX.as_bytes()),
        start_revision: from,
        progress_notify: true,
        ..Default::default()
    };
    let request = |union| pb::WatchRequest { request_union: Some(union) };
    let (sender, requests) = tokio::sync::mpsc::channel(4);
    let created = request(pb::watch_request::RequestUnion::CreateRequest(create));
    let _receiver_is_here = sender.try_send(created);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(2), watch.watch(requests)).await else {
        return;
    };
    let mut stream = answer.into_inner();
    let mut asks = tokio::time::interval(Duration::from_millis(300));
    let mut told = from - 1;
    loop {
        let message = tokio::select! {
            message = stream.message() => message,
            _ = asks.tick() => {
                let ask = pb::watch_request::RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                // A full queue: the member does not read, there is no need to ask more.
                let _ = sender.try_send(request(ask));
                continue;
            }
        };
        let Ok(Some(response)) = message else { return };
        if response.canceled && is_about_users(&response.cancel_reason) {
            return;
        }
        if response.canceled {
            return shared.find(format!(
                "the watch through member {member} from revision {from} was cancelled: {}, compacted at {}",
                response.cancel_reason, response.compact_revision
            ));
        }
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        if response.events.is_empty() && !response.created {
            // Progress: nothing up to this revision is still to come.
            told = told.max(revision);
            continue;
        }
        for event in response.events {
            match change(&event) {
                Ok(change) => {
                    if change.revision <= told {
                        shared.find(format!(
                            "the watch through member {member} told {change:?} after it had said that it was at {told}"
                        ));
                    }
                    shared.trace.line(&format!("watch {member}: {change:?}"));
                    shared.changed(member, change);
                }
                Err(finding) => return shared.find(finding),
            }
        }
    }
}
