//! Keeps up with one resource: first what exists, then every change, without gaps or repeats.
//!
//! The informer remembers the objects, so that after a relist only differences are delivered: each state of an object
//! that is seen is delivered once, and an object that vanished while nobody watched is delivered as deleted. A reader
//! that is slow delays only its own stream. Not here: queues and caches of consumers.

mod backoff;
mod state;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::meta;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::{Api, Error, ListOptions, Value, WatchEvent, WatchOptions};
use backoff::Backoff;
use state::State;

const PAGE_SIZE: u32 = 500;
/// A watch is renewed after a time in this range, so that watches spread over members.
const WATCH_TIMEOUT_S: std::ops::Range<u32> = 300..600;
/// Servers send a bookmark about once a minute. After a longer silence the next server is asked, from where we are:
/// a member that is cut off from the others keeps its connections and says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(150);

#[derive(Clone, Debug)]
pub struct InformerOptions {
    pub label_selector: String,
    pub field_selector: String,
    /// Events that wait for the reader; the watch is not read beyond it.
    pub buffer: usize,
}

impl Default for InformerOptions {
    fn default() -> InformerOptions {
        InformerOptions { label_selector: String::new(), field_selector: String::new(), buffer: 1024 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum InformerEvent {
    /// Created or changed; `old` is the state delivered before.
    Applied { object: Arc<Value>, old: Option<Arc<Value>> },
    /// The last state that is known.
    Deleted { object: Arc<Value> },
    /// Once: everything that existed at the start has been delivered.
    Synced,
}

/// The reading end. Dropping it ends the task.
#[derive(Debug)]
pub struct Informer {
    events: mpsc::Receiver<InformerEvent>,
    resource_version: watch::Receiver<String>,
}

impl Informer {
    /// Starts the task; it ends on `shutdown`, or when the informer is dropped.
    pub fn start(api: Api, options: InformerOptions, shutdown: CancellationToken) -> Informer {
        let (sender, events) = mpsc::channel(options.buffer.max(1));
        let (observed, resource_version) = watch::channel(String::new());
        let follower = Follower {
            api,
            options,
            state: State::default(),
            resource_version: String::new(),
            synced: false,
            watch_list: true,
            outlet: Outlet { sender, observed },
        };
        tokio::spawn(follower.run(shutdown));
        Informer { events, resource_version }
    }

    /// The next event, in order; `None` once the informer has ended. Cancel safe.
    pub async fn next(&mut self) -> Option<InformerEvent> {
        self.events.recv().await
    }

    /// What waits already, without waiting for more.
    pub fn try_next(&mut self) -> Option<InformerEvent> {
        self.events.try_recv().ok()
    }

    /// Everything up to here has been handed to the channel; empty before `Synced`.
    pub fn resource_version(&self) -> String {
        self.resource_version.borrow().clone()
    }
}

/// Why following stopped for the moment.
enum Stop {
    /// The reader is gone.
    Closed,
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

struct Outlet {
    sender: mpsc::Sender<InformerEvent>,
    observed: watch::Sender<String>,
}

impl Outlet {
    async fn send(&self, event: InformerEvent) -> Result<(), Stop> {
        self.sender.send(event).await.map_err(|_| Stop::Closed)
    }

    async fn send_all(&self, events: impl IntoIterator<Item = InformerEvent>) -> Result<(), Stop> {
        for event in events {
            self.send(event).await?;
        }
        Ok(())
    }
}

struct Follower {
    api: Api,
    options: InformerOptions,
    state: State,
    /// Empty = the current state must be read first.
    resource_version: String,
    synced: bool,
    /// False once the server has refused `sendInitialEvents`.
    watch_list: bool,
    outlet: Outlet,
}

impl Follower {
    async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::default();
        let reader = self.outlet.sender.clone();
        loop {
            let before = self.resource_version.clone();
            let stop = tokio::select! {
                () = shutdown.cancelled() => return,
                () = reader.closed() => return,
                result = self.follow() => result,
            };
            match stop {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(Stop::Failed(error)) => self.note(&error),
            }
            if self.resource_version != before {
                backoff.reset();
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    fn note(&mut self, error: &Error) {
        let resource = self.api.plural();
        if error.is_expired() {
            tracing::info!(resource, from = %self.resource_version, "history is gone, reading the state again");
            self.resource_version.clear();
        } else if error.is_transient() {
            tracing::debug!(resource, %error, "watch was interrupted");
        } else {
            tracing::warn!(resource, %error, "watch failed");
        }
    }

    /// Reads the state if needed, then watches until the stream ends.
    async fn follow(&mut self) -> Result<(), Stop> {
        let initial = self.resource_version.is_empty();
        if initial && !self.watch_list {
            self.list().await?;
        }
        let send_initial_events = initial && self.watch_list;
        let timeout_s = rand::random_range(WATCH_TIMEOUT_S);
        let options = WatchOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            resource_version: self.resource_version.clone(),
            bookmarks: true,
            send_initial_events,
            timeout_s,
        };
        let mut stream = match self.api.watch(&options).await {
            Err(error) if send_initial_events && refuses_watch_list(&error) => {
                tracing::debug!(resource = self.api.plural(), %error, "the server has no WatchList, listing");
                self.watch_list = false;
                return Ok(());
            }
            result => result?,
        };
        if send_initial_events {
            self.state.begin_replace();
        }
        loop {
            match tokio::time::timeout(SILENCE_MAX, stream.next()).await {
                Ok(Some(event)) => self.handle(event?).await?,
                Ok(None) => return Ok(()),
                Err(_) => {
                    tracing::debug!(
                        resource = self.api.plural(),
                        "the watch is silent, asking the next server"
                    );
                    self.api.client().avoid_current_server();
                    return Ok(());
                }
            }
        }
    }

    async fn handle(&mut self, event: WatchEvent) -> Result<(), Stop> {
        let resource_version = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                let resource_version = meta::of(&object).resource_version().to_owned();
                self.outlet.send_all(self.state.apply(object)).await?;
                resource_version
            }
            WatchEvent::Deleted(object) => {
                let resource_version = meta::of(&object).resource_version().to_owned();
                self.outlet.send_all(self.state.delete(object)).await?;
                resource_version
            }
            WatchEvent::Bookmark { resource_version, initial_events_end } => {
                if initial_events_end {
                    return self.complete(resource_version).await;
                }
                resource_version
            }
        };
        // While the state is being read, its items are in no order of versions: a break must start it again.
        if !self.state.is_replacing() && !resource_version.is_empty() {
            self.advance(resource_version);
        }
        Ok(())
    }

    /// Lists everything, page by page, at one resource version.
    async fn list(&mut self) -> Result<(), Stop> {
        let mut options = ListOptions {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            limit: PAGE_SIZE,
            ..ListOptions::default()
        };
        self.state.begin_replace();
        loop {
            let page = match self.api.list(&options).await {
                // the list took longer than the server keeps history: once more, in one piece
                Err(error) if error.is_expired() && !options.continue_token.is_empty() => {
                    options.continue_token.clear();
                    options.limit = 0;
                    self.state.begin_replace();
                    continue;
                }
                page => page?,
            };
            for object in page.items {
                self.outlet.send_all(self.state.apply(object)).await?;
            }
            match page.continue_token {
                Some(token) => options.continue_token = token,
                None => return self.complete(page.resource_version).await,
            }
        }
    }

    /// The state has been read as of `resource_version`.
    async fn complete(&mut self, resource_version: String) -> Result<(), Stop> {
        self.outlet.send_all(self.state.end_replace()).await?;
        self.advance(resource_version);
        if !self.synced {
            self.synced = true;
            self.outlet.send(InformerEvent::Synced).await?;
        }
        Ok(())
    }

    fn advance(&mut self, resource_version: String) {
        self.resource_version.clone_from(&resource_version);
        self.outlet.observed.send_replace(resource_version);
    }
}

/// A server that knows nothing of `sendInitialEvents` answers 400 or 422.
fn refuses_watch_list(error: &Error) -> bool {
    error.status().is_some_and(|status| matches!(status.code, 400 | 405 | 422 | 501))
}

#[cfg(test)]
mod tests;
