//! Leader election by a `coordination.k8s.io/v1` Lease, as client-go does it.
//!
//! At most one holder acts at a time as long as clocks run at about the same speed: a candidate takes over only after
//! it has itself watched the lease stay unchanged for its whole duration; a leader stops after `renew_deadline`
//! without a successful renewal, which is shorter. Wall clocks are never compared between machines. A process never takes
//! the lease of an earlier one for its own, whatever they are called: what that one sent may still be under way.
//! A leader that was frozen finds out before it sends anything, if it asks its `Term`. The lease is given back only when
//! nothing of the term can be written any more; else it runs out.

use std::future::Future;
use std::time::Duration;

use apimachinery::time;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Api, Client, Error, Value};

#[derive(Clone, Debug)]
pub struct LeaderConfig {
    pub namespace: String,
    pub name: String,
    /// Unique among candidates and their former lives.
    pub identity: String,
    /// How long others wait after the last renewal that they saw.
    pub lease_duration: Duration,
    /// How long the leader tries to renew before it gives up.
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl LeaderConfig {
    /// With upstream's 15 s, 10 s and 2 s. As upstream, the identity is the given name and a random number.
    pub fn new(namespace: &str, name: &str, identity: &str) -> LeaderConfig {
        LeaderConfig {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: format!("{identity}_{:032x}", rand::random::<u128>()),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// A term of leadership, for the work that is done in it.
#[derive(Clone, Debug)]
pub struct Term {
    ended: CancellationToken,
    /// `None`: there is no election.
    until: Option<watch::Receiver<Instant>>,
}

impl Term {
    /// Without an election: until `ended`.
    pub fn unlimited(ended: CancellationToken) -> Term {
        Term { ended, until: None }
    }

    /// Until `ended`, or until the time comes that `until` says.
    pub fn new(ended: CancellationToken, until: watch::Receiver<Instant>) -> Term {
        Term { ended, until: Some(until) }
    }

    /// Cancelled when leadership is lost, and on shutdown.
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Whether the lease is surely ours still. Also tells a process that was stopped for a while and has not run the task yet
    /// that would end the term: to be asked directly before anything is sent.
    pub fn holds(&self) -> bool {
        let in_time = |until: &watch::Receiver<Instant>| Instant::now() < *until.borrow();
        !self.ended.is_cancelled() && self.until.as_ref().is_none_or(in_time)
    }
}

/// What a term leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// Nothing that was sent can take effect any more, or it does no harm: the next leader may begin at once.
    Settled,
    /// Something may: the lease runs out by itself.
    Unsettled,
}

#[derive(Debug)]
pub struct LeaderElector {
    api: Api,
    config: LeaderConfig,
    /// The lease as last read or written, and when we saw that version first.
    observed: Option<(Value, Instant)>,
    leading: watch::Sender<bool>,
    /// End of the time in which the lease is ours.
    until: watch::Sender<Instant>,
}

impl LeaderElector {
    pub fn new(client: &Client, config: LeaderConfig) -> LeaderElector {
        let api = client.api("coordination.k8s.io", "v1", "leases").namespace(&config.namespace);
        let until = watch::channel(Instant::now()).0;
        LeaderElector { api, config, observed: None, leading: watch::channel(false).0, until }
    }

    pub fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Calls `lead` for each term, which must end with it, soon. Returns after shutdown, or when `lead` ends on its own; both
    /// times the lease is released if nothing of the term is under way.
    pub async fn run<F, T>(mut self, shutdown: CancellationToken, mut lead: F)
    where
        F: FnMut(Term) -> T,
        T: Future<Output = Handover>,
    {
        loop {
            let acquired = tokio::select! {
                () = shutdown.cancelled() => return,
                acquired = self.acquire() => acquired,
            };
            tracing::info!(lease = %self.config.name, identity = %self.config.identity, "became leader");
            self.leading.send_replace(true);
            let term = shutdown.child_token();
            let work = lead(Term::new(term.clone(), self.until.subscribe()));
            tokio::pin!(work);
            let (finished, handover) = tokio::select! {
                handover = &mut work => (true, handover),
                () = self.keep(&term, acquired) => {
                    term.cancel();
                    (false, work.await)
                }
            };
            self.leading.send_replace(false);
            if finished || shutdown.is_cancelled() {
                match handover {
                    Handover::Settled => self.release().await,
                    Handover::Unsettled => tracing::info!(lease = %self.config.name, "left to run out"),
                }
                return;
            }
            tracing::warn!(lease = %self.config.name, "lost leadership");
        }
    }

    /// Returns when the request was sent that got the lease.
    async fn acquire(&mut self) -> Instant {
        loop {
            let started = Instant::now();
            match tokio::time::timeout(self.config.renew_deadline, self.try_acquire()).await {
                Ok(Ok(true)) => {
                    self.until.send_replace(started + self.config.renew_deadline);
                    return started;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(lease = %self.config.name, %error, "cannot acquire the lease")
                }
                Err(_) => tracing::debug!(lease = %self.config.name, "acquiring the lease took too long"),
            }
            tokio::time::sleep(self.config.retry_period.mul_f64(rand::random_range(1.0..1.6))).await;
        }
    }

    /// Renews until that fails for `renew_deadline`, or the term is cancelled.
    async fn keep(&mut self, term: &CancellationToken, mut renewed: Instant) {
        loop {
            tokio::select! {
                () = term.cancelled() => return,
                () = tokio::time::sleep(self.config.retry_period) => {}
            }
            let attempt = tokio::time::timeout_at(renewed + self.config.renew_deadline, self.try_acquire());
            let started = Instant::now();
            let result = tokio::select! {
                () = term.cancelled() => return,
                result = attempt => result,
            };
            match result {
                Ok(Ok(true)) => {
                    renewed = started;
                    self.until.send_replace(renewed + self.config.renew_deadline);
                }
                Ok(Ok(false)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(lease = %self.config.name, %error, "cannot renew the lease")
                }
                Err(_) => return,
            }
            if renewed.elapsed() >= self.config.renew_deadline {
                return;
            }
        }
    }

    /// True if we hold the lease now.
    async fn try_acquire(&mut self) -> Result<bool, Error> {
        // the leader first assumes that the lease is as it left it
        if let Some((lease, _)) = &self.observed
            && holder(lease) == self.config.identity
        {
            match self.api.update(&self.claimed(lease)).await {
                Ok(lease) => {
                    self.observed = Some((lease, Instant::now()));
                    return Ok(true);
                }
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let lease = match self.api.get_opt(&self.config.name).await? {
            Some(lease) => lease,
            None => {
                let lease = self.api.create(&self.new_lease()).await?;
                self.observed = Some((lease, Instant::now()));
                return Ok(true);
            }
        };
        let known = self.observed.as_ref().is_some_and(|(known, _)| known.get("spec") == lease.get("spec"));
        if !known {
            self.observed = Some((lease.clone(), Instant::now()));
        }
        let holder = holder(&lease);
        let held = !holder.is_empty() && holder != self.config.identity && !self.has_expired(&lease);
        if held {
            return Ok(false);
        }
        match self.api.update(&self.claimed(&lease)).await {
            Ok(lease) => {
                self.observed = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// By the duration that the holder wrote, on our own clock.
    fn has_expired(&self, lease: &Value) -> bool {
        let duration_s = lease.pointer("/spec/leaseDurationSeconds").and_then(Value::as_u64).unwrap_or(0);
        let since = self.observed.as_ref().map(|(_, since)| since.elapsed()).unwrap_or_default();
        since > Duration::from_secs(duration_s)
    }

    fn new_lease(&self) -> Value {
        let now = now_text();
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.config.name, "namespace": self.config.namespace},
            "spec": {
                "holderIdentity": self.config.identity,
                "leaseDurationSeconds": self.config.lease_duration.as_secs(),
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": 0,
            },
        })
    }

    /// The lease with us as its holder; the resource version stays, so that a race ends in a conflict.
    fn claimed(&self, lease: &Value) -> Value {
        let mut lease = lease.clone();
        let ours = holder(&lease) == self.config.identity;
        let transitions = lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64).unwrap_or(0);
        let acquired = lease.pointer("/spec/acquireTime").cloned();
        let now = json!(now_text());
        lease["spec"] = json!({
            "holderIdentity": self.config.identity,
            "leaseDurationSeconds": self.config.lease_duration.as_secs(),
            "acquireTime": acquired.filter(|_| ours).unwrap_or_else(|| now.clone()),
            "renewTime": now,
            "leaseTransitions": if ours { transitions } else { transitions + 1 },
        });
        lease
    }

    /// Gives the lease up, so that the next leader need not wait. Best effort.
    async fn release(&mut self) {
        let released = tokio::time::timeout(self.config.retry_period, async {
            let Some(mut lease) = self.api.get_opt(&self.config.name).await? else { return Ok(()) };
            if holder(&lease) != self.config.identity {
                return Ok(());
            }
            let now = now_text();
            let transitions = lease.pointer("/spec/leaseTransitions").and_then(Value::as_i64).unwrap_or(0);
            lease["spec"] = json!({
                "holderIdentity": "",
                "leaseDurationSeconds": 1,
                "acquireTime": now,
                "renewTime": now,
                "leaseTransitions": transitions,
            });
            self.api.update(&lease).await.map(|_| ())
        });
        match released.await {
            Ok(Ok(())) => self.observed = None,
            Ok(Err(error)) => tracing::info!(lease = %self.config.name, %error, "cannot release the lease"),
            Err(_) => tracing::info!(lease = %self.config.name, "releasing the lease took too long"),
        }
    }
}

fn holder(lease: &Value) -> &str {
    lease.pointer("/spec/holderIdentity").and_then(Value::as_str).unwrap_or_default()
}

fn now_text() -> String {
    time::format_us(crate::event::now_us())
}

#[cfg(test)]
mod tests;
