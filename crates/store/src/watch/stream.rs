//! One client's watch stream: reads its requests, keeps its watches, sends its answers.
//!
//! Invariants: `seen` is the revision up to which the inbox was emptied. A synced watch has been given everything up to
//! `seen`; one that is not reads history and becomes synced when it has passed `seen`, so nothing is skipped and
//! nothing comes twice. A revision is never split over answers, unless the client takes fragments. A client that does
//! not read holds up only this task. What is read at once, for all watches of the stream together, is bounded in bytes
//! and time (`Pass`); whoever is behind has its turn. Who the client is and what it may is asked at each new watch.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use mvcc::{EventKind, EventsBound, EventsError, KeyRange};
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant, MissedTickBehavior},
};
use tonic::{Status, Streaming};
use wire::etcdserverpb::{self as pb, watch_request::RequestUnion};

use super::{
    hub::{Entry, Inbox, Mail},
    watcher::Watcher,
};
use crate::{
    config::MESSAGE_OVERHEAD_BYTES,
    context::{Asker, Context},
    gate::WatchRange,
    planted::{self, Bug},
    services,
    status::{self, Refusal},
};

/// History that one visit to the store may bring for one watch.
const HISTORY: EventsBound = EventsBound { revisions_max: 1000, size_bytes_max: 1024 * 1024 };
/// What one visit to the store may bring for all watches of a stream, previous values included, and how long it may
/// take. One revision for one watch is brought even if it alone is above.
const PASS_SIZE_BYTES_MAX: usize = 4 * 1024 * 1024;
const PASS_TIME_MAX: Duration = Duration::from_millis(1);
/// The id in answers that concern no watch.
const NO_WATCH: i64 = -1;

pub(super) struct Stream {
    context: Arc<Context>,
    asker: Asker,
    needs_leader: bool,
    answers: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    id: u64,
    inbox: Arc<Inbox>,
    published: watch::Receiver<i64>,
    watches: BTreeMap<i64, Watcher>,
    next_watch_id: i64,
    seen: i64,
    /// Every event up to here was in the inbox when it was last emptied; `seen` may be ahead of it in the middle of a
    /// revision.
    complete: i64,
    /// A progress answer is owed once everything up to this revision was sent.
    progress_owed: Option<i64>,
    /// Who reads history first in the next pass.
    history_turn: i64,
}

/// The stream is over. `None`: the client is gone, nothing more can be said to it.
struct Gone(Option<Status>);

/// What one visit to the store has brought.
struct Pass {
    begin: Instant,
    size_bytes: usize,
    answers: Vec<pb::WatchResponse>,
}

impl Pass {
    fn new() -> Pass {
        Pass { begin: Instant::now(), size_bytes: 0, answers: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.size_bytes >= PASS_SIZE_BYTES_MAX || self.begin.elapsed() >= PASS_TIME_MAX
    }
}

impl Stream {
    pub(super) fn new(
        context: Arc<Context>,
        asker: Asker,
        needs_leader: bool,
        answers: mpsc::Sender<Result<pb::WatchResponse, Status>>,
    ) -> Stream {
        let published = context.hub.published();
        let seen = *published.borrow();
        Stream {
            id: context.hub.begin_stream(),
            asker,
            needs_leader,
            answers,
            inbox: Arc::new(Inbox::new(context.config.watch_inbox_entries_max)),
            context,
            published,
            watches: BTreeMap::new(),
            next_watch_id: 0,
            seen,
            complete: seen,
            progress_owed: None,
            history_turn: 0,
        }
    }

    /// Runs until the client goes away, the member stops or, if asked for, the leader is lost.
    pub(super) async fn run(mut self, mut requests: Streaming<pb::WatchRequest>) {
        let shutdown = self.context.shutdown.clone();
        let answers = self.answers.clone();
        let leader_lost = self.context.clone().leader_lost();
        let needs_leader = self.needs_leader;
        let end = tokio::select! {
            end = self.serve(&mut requests) => end,
            status = leader_lost, if needs_leader => Some(status),
            () = answers.closed() => None,
            () = shutdown.cancelled() => Some(Refusal::Stopped.into()),
        };
        if let Some(status) = end {
            // A client that does not read cannot be told; its connection ends soon anyway.
            let _ = time::timeout(Duration::from_millis(100), answers.send(Err(status))).await;
        }
    }

    async fn serve(&mut self, requests: &mut Streaming<pb::WatchRequest>) -> Option<Status> {
        let interval = jittered(self.context.config.watch_progress_interval);
        let mut ticks = time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        let inbox = self.inbox.clone();
        let mut published = self.published.clone();
        loop {
            let more = match self.deliver().await {
                Ok(more) => more,
                Err(Gone(status)) => return status,
            };
            let ticking = self.watches.values().any(|watch| watch.progress_notify);
            let done = tokio::select! {
                biased;
                request = requests.message(), if open => match request {
                    Ok(Some(request)) => self.handle(request).await,
                    // The client only says that it will ask for nothing more: its watches go on.
                    Ok(None) => { open = false; Ok(()) }
                    Err(status) => Err(Gone(Some(services::refused_message(status)))),
                },
                _ = ticks.tick(), if ticking => match self.deliver().await {
                    Ok(_) => self.tick().await,
                    Err(gone) => Err(gone),
                },
                () = tokio::task::yield_now(), if more => Ok(()),
                () = inbox.wake.notified() => Ok(()),
                changed = published.changed(), if self.progress_owed.is_some() => changed.map_err(|_| Gone(None)),
            };
            if let Err(Gone(status)) = done {
                return status;
            }
        }
    }

    async fn handle(&mut self, request: pb::WatchRequest) -> Result<(), Gone> {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) if planted::is(Bug::ProgressOvertakes) => {
                let header = Some(self.context.header_now());
                self.send(pb::WatchResponse { header, watch_id: NO_WATCH, ..Default::default() }).await
            }
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_owed = Some(self.context.revision());
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, mut request: pb::WatchCreateRequest) -> Result<(), Gone> {
        if request.key.is_empty() {
            request.key = bytes::Bytes::from_static(&[0]);
        }
        let range = KeyRange::from_wire(request.key.clone(), request.range_end.clone());
        let caller = self.context.who(&self.asker);
        let allowed = caller.and_then(|caller| self.context.gate.authorize(&caller, WatchRange(range)));
        let allowed = match allowed {
            Ok(allowed) => allowed,
            Err(refused) => return self.refuse(status::cancel_reason(&refused)).await,
        };
        if request.start_revision < 0 {
            let compact_revision = self.context.gate.compact_revision();
            let compacted = status::events(EventsError::Compacted { compact_revision });
            return self.refuse(compacted.message().to_owned()).await;
        }
        if allowed.range().is_empty() {
            return self.refuse("mvcc: watcher range is empty".to_owned()).await;
        }
        if request.watch_id != 0 && self.watches.contains_key(&request.watch_id) {
            return self.refuse("mvcc: duplicate watch ID provided on the WatchStream".to_owned()).await;
        }
        let watch_id = match request.watch_id {
            0 => self.free_watch_id(),
            given => given,
        };
        let (revision, compact_revision) = allowed.revisions();
        let header = Some(self.context.header(revision));
        self.send(pb::WatchResponse { header, watch_id, created: true, ..Default::default() }).await?;
        let mut next_revision =
            if request.start_revision == 0 { revision + 1 } else { request.start_revision };
        if next_revision < compact_revision {
            return self.send(self.compacted(watch_id, compact_revision)).await;
        }
        if planted::is(Bug::FutureBeginsNow) {
            next_revision = next_revision.min(revision + 1);
        }
        self.context.hub.add(self.id, watch_id, allowed.range(), &self.inbox);
        self.watches.insert(watch_id, Watcher::new(&request, allowed, next_revision));
        Ok(())
    }

    /// The answer to a watch that never was.
    async fn refuse(&self, cancel_reason: String) -> Result<(), Gone> {
        let answer = pb::WatchResponse {
            header: Some(self.context.header_now()),
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason,
            ..Default::default()
        };
        self.send(answer).await
    }

    fn free_watch_id(&mut self) -> i64 {
        while self.watches.contains_key(&self.next_watch_id) {
            self.next_watch_id += 1;
        }
        self.next_watch_id += 1;
        self.next_watch_id - 1
    }

    async fn cancel(&mut self, watch_id: i64) -> Result<(), Gone> {
        if !self.forget(watch_id) {
            return Ok(());
        }
        let header = Some(self.context.header_now());
        self.send(pb::WatchResponse { header, watch_id, canceled: true, ..Default::default() }).await
    }

    fn forget(&mut self, watch_id: i64) -> bool {
        let Some(watch) = self.watches.remove(&watch_id) else { return false };
        self.context.hub.remove(self.id, watch_id, watch.range());
        true
    }

    /// The end of a watch whose history is gone; etcd leaves the header's revision 0.
    fn compacted(&self, watch_id: i64, compact_revision: i64) -> pb::WatchResponse {
        let header = Some(self.context.header(0));
        pb::WatchResponse { header, watch_id, canceled: true, compact_revision, ..Default::default() }
    }

    /// Sends what there is. True when some watch still has history to read.
    async fn deliver(&mut self) -> Result<bool, Gone> {
        // First this, then the inbox: see the hub's invariant.
        let published = *self.published.borrow_and_update();
        match self.inbox.take() {
            Mail::Entries(entries) => {
                let last = entries.back().map_or(0, |entry| entry.batch.revision);
                self.deliver_new(entries).await?;
                self.seen = self.seen.max(published).max(last);
            }
            Mail::Behind { lost_upto } => {
                for watch in self.watches.values_mut() {
                    // A synced watch has been given everything up to `seen`, but perhaps did not have to look at it.
                    if std::mem::take(&mut watch.synced) {
                        watch.next_revision = watch.next_revision.max(self.seen + 1);
                        if planted::is(Bug::CursorReset) {
                            watch.next_revision = watch.start_revision;
                        }
                        if planted::is(Bug::BehindRepeats) {
                            watch.next_revision = (self.seen).max(watch.start_revision);
                        }
                        if planted::is(Bug::BehindSkipped) {
                            watch.next_revision = watch.next_revision.max(lost_upto + 1);
                        }
                    }
                }
                self.seen = self.seen.max(published).max(lost_upto);
            }
        }
        self.complete = published;
        let history = self.read_history()?;
        let behind = self.watches.values().filter(|watch| !watch.synced).count();
        self.inbox.behind.store(behind, Relaxed);
        self.send_all(history).await?;
        let more = behind > 0;
        if !more {
            self.answer_progress().await?;
        }
        Ok(more)
    }

    /// Sends what was in the inbox.
    async fn deliver_new(&mut self, mut entries: VecDeque<Entry>) -> Result<(), Gone> {
        // Watches of the first entry that have it already.
        let mut served = 0;
        while !entries.is_empty() {
            let pass = self.collect_new(&mut entries, &mut served)?;
            self.send_all(pass).await?;
            if !entries.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    /// Turns the beginning of the inbox into answers, and takes it away.
    fn collect_new(&mut self, entries: &mut VecDeque<Entry>, served: &mut usize) -> Result<Pass, Gone> {
        let mut pass = Pass::new();
        let (context, watches) = (&self.context, &mut self.watches);
        let limit = fragment_size_bytes(context);
        let mut touched = Vec::new();
        // One visit for all of them: each was allowed to see its own keys, and gets no others.
        let Some(allowed) = watches.values().next().map(|watch| watch.allowed.clone()) else {
            entries.clear();
            return Ok(pass);
        };
        let read = allowed.events(|store, records| {
            while let Some(entry) = entries.front() {
                while let Some(watch_id) = entry.watches.get(*served) {
                    if pass.is_full() && !touched.is_empty() {
                        return Ok(());
                    }
                    *served += 1;
                    let Some(watch) = watches.get_mut(watch_id).filter(|watch| watch.synced) else {
                        continue;
                    };
                    pass.size_bytes += watch.collect(store, records, &entry.batch)?;
                    if watch.is_due() {
                        watch.answers(
                            *watch_id,
                            limit,
                            |revision| context.header(revision),
                            &mut pass.answers,
                        );
                    }
                    touched.push(*watch_id);
                }
                entries.pop_front();
                *served = 0;
            }
            Ok(())
        });
        read.map_err(|error| Gone(Some(status::records(&error))))?;
        touched.sort_unstable();
        touched.dedup();
        for watch_id in touched {
            if let Some(watch) = watches.get_mut(&watch_id) {
                watch.answers(watch_id, limit, |revision| context.header(revision), &mut pass.answers);
            }
        }
        Ok(pass)
    }

    /// Lets watches that are behind read a bounded piece of history each, as many as the pass has room for.
    fn read_history(&mut self) -> Result<Pass, Gone> {
        let mut pass = Pass::new();
        let seen = self.seen;
        let limit = fragment_size_bytes(&self.context);
        let mut behind = Vec::new();
        for (watch_id, watch) in self.watches.iter_mut().filter(|(_, watch)| !watch.synced) {
            watch.synced = watch.next_revision > seen;
            if !watch.synced {
                behind.push(*watch_id);
            }
        }
        let turn = behind.partition_point(|watch_id| *watch_id < self.history_turn);
        behind.rotate_left(turn);
        for (place, watch_id) in behind.into_iter().enumerate() {
            if place > 0 && pass.is_full() {
                self.history_turn = watch_id;
                break;
            }
            let Some(watch) = self.watches.get_mut(&watch_id) else { continue };
            let context = &self.context;
            let allowed = watch.allowed.clone();
            let result = allowed.events(|store, records| {
                let batches = store.events(records, watch.next_revision, HISTORY)?;
                if batches.first().is_none_or(|batch| batch.revision > seen) {
                    watch.next_revision = seen + 1;
                }
                for batch in batches.iter().take_while(|batch| batch.revision <= seen) {
                    if planted::is(Bug::TombstoneDropped)
                        && batch.revision == store.compact_revision()
                        && batch.events.iter().all(|event| event.kind == EventKind::Delete)
                    {
                        watch.next_revision = batch.revision + 1;
                        continue;
                    }
                    pass.size_bytes += watch.collect(store, records, batch)?;
                    if watch.is_due() {
                        watch.answers(
                            watch_id,
                            limit,
                            |revision| context.header(revision),
                            &mut pass.answers,
                        );
                    }
                    if pass.is_full() {
                        break;
                    }
                }
                Ok(())
            });
            watch.answers(watch_id, limit, |revision| context.header(revision), &mut pass.answers);
            match result {
                Ok(()) => watch.synced = watch.next_revision > seen,
                Err(EventsError::Compacted { compact_revision }) => {
                    self.forget(watch_id);
                    pass.answers.push(self.compacted(watch_id, compact_revision));
                }
                Err(EventsError::Records(error)) => return Err(Gone(Some(status::records(&error)))),
            }
        }
        Ok(pass)
    }

    /// Pays a progress answer that is owed; only called when every watch is synced. A watch that waits for a future
    /// revision makes the answer void, and so does the absence of watches, as in etcd.
    async fn answer_progress(&mut self) -> Result<(), Gone> {
        if self.progress_owed.is_none_or(|revision| revision.max(self.seen) > self.complete) {
            return Ok(());
        }
        self.progress_owed = None;
        if self.watches.is_empty() || self.watches.values().any(|watch| watch.start_revision > self.complete)
        {
            return Ok(());
        }
        let header = Some(self.context.header(self.complete));
        self.send(pb::WatchResponse { header, watch_id: NO_WATCH, ..Default::default() }).await
    }

    /// Tells idle watches that asked for it how far they are.
    async fn tick(&mut self) -> Result<(), Gone> {
        let complete = self.complete;
        let mut idle = Vec::new();
        for (watch_id, watch) in self.watches.iter_mut().filter(|(_, watch)| watch.progress_notify) {
            let active = std::mem::take(&mut watch.active);
            let known = watch.start_revision <= complete && watch.next_revision <= complete + 1;
            if !active && watch.synced && known {
                idle.push(*watch_id);
            }
        }
        for watch_id in idle {
            let header = Some(self.context.header(complete));
            self.send(pb::WatchResponse { header, watch_id, ..Default::default() }).await?;
        }
        Ok(())
    }

    async fn send_all(&self, pass: Pass) -> Result<(), Gone> {
        for answer in pass.answers {
            let events = answer.events.len() as u64;
            self.send(answer).await?;
            self.context.metrics.events_sent.fetch_add(events, Relaxed);
        }
        Ok(())
    }

    async fn send(&self, answer: pb::WatchResponse) -> Result<(), Gone> {
        self.answers.send(Ok(answer)).await.map_err(|_| Gone(None))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        for (watch_id, watch) in &self.watches {
            self.context.hub.remove(self.id, *watch_id, watch.range());
        }
        self.context.hub.end_stream();
    }
}

fn fragment_size_bytes(context: &Context) -> usize {
    context.config.request_size_bytes_max + MESSAGE_OVERHEAD_BYTES
}

/// Up to a tenth longer, so that streams do not all tick at once.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(1.0 + rand::random::<f64>() / 10.0)
}
