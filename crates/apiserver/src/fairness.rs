//! Flow control: how many requests are served at once, and who is never held back.
//!
//! Invariants: reading and writing requests have limits of their own; the control plane's own identities have a
//! reserve, so that clients cannot starve leases and bindings; `system:masters` and long-running requests are exempt.
//! A request over the limit is refused at once with 429, it never queues. Not here: fairness between flows of one level.

use std::sync::Arc;

use apimachinery::status::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::user::GROUP_MASTERS;
use crate::{Config, RequestInfo, User};

/// Requests of the control plane that are served at once beside those of everybody else.
const RESERVED: usize = 100;

pub(crate) struct Fairness {
    reading: Option<Arc<Semaphore>>,
    writing: Option<Arc<Semaphore>>,
    reserved: Arc<Semaphore>,
}

/// Held until the answer is ready.
#[derive(Debug)]
pub(crate) struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
}

/// What upstream calls a priority level. The uids are fixed: these levels are not objects in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Exempt,
    System,
    Default,
}

impl Level {
    pub(crate) fn flow_schema_uid(self) -> &'static str {
        match self {
            Level::Exempt => "b1a7e5c0-0000-4000-8000-000000000001",
            Level::System => "b1a7e5c0-0000-4000-8000-000000000002",
            Level::Default => "b1a7e5c0-0000-4000-8000-000000000003",
        }
    }

    pub(crate) fn priority_level_uid(self) -> &'static str {
        match self {
            Level::Exempt => "b1a7e5c0-0000-4000-8000-000000000101",
            Level::System => "b1a7e5c0-0000-4000-8000-000000000102",
            Level::Default => "b1a7e5c0-0000-4000-8000-000000000103",
        }
    }
}

/// The level of a caller; `None` is a request that nobody has been recognised for.
pub(crate) fn level(caller: Option<&User>) -> Level {
    let Some(caller) = caller else { return Level::Default };
    if caller.is_in(GROUP_MASTERS) {
        return Level::Exempt;
    }
    let is_control_plane =
        matches!(caller.name.as_str(), "system:kube-scheduler" | "system:kube-controller-manager");
    if is_control_plane || caller.is_in("system:nodes") { Level::System } else { Level::Default }
}

impl Fairness {
    pub(crate) fn new(config: &Config) -> Fairness {
        let limit = |requests: usize| (requests > 0).then(|| Arc::new(Semaphore::new(requests)));
        Fairness {
            reading: limit(config.max_requests_inflight),
            writing: limit(config.max_mutating_requests_inflight),
            reserved: Arc::new(Semaphore::new(RESERVED)),
        }
    }

    /// A place for the request, or 429.
    pub(crate) fn seat(&self, caller: &User, info: &RequestInfo, long_running: bool) -> Result<Seat, Status> {
        let level = level(Some(caller));
        if long_running || level == Level::Exempt {
            return Ok(Seat { _permit: None });
        }
        if level == Level::System
            && let Ok(permit) = self.reserved.clone().try_acquire_owned()
        {
            return Ok(Seat { _permit: Some(permit) });
        }
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch" | "head" | "options");
        let Some(limit) = (if reads { &self.reading } else { &self.writing }) else {
            return Ok(Seat { _permit: None });
        };
        match limit.clone().try_acquire_owned() {
            Ok(permit) => Ok(Seat { _permit: Some(permit) }),
            Err(_) => Err(Status::too_many_requests("Too many requests, please try again later.", 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(verb: &str) -> RequestInfo {
        RequestInfo { verb: verb.to_string(), is_resource: true, ..RequestInfo::default() }
    }

    #[test]
    fn over_the_limit_a_caller_gets_429_with_retry_after_and_others_keep_their_reserve() {
        let config =
            Config { max_requests_inflight: 2, max_mutating_requests_inflight: 1, ..Config::default() };
        let fairness = Fairness::new(&config);
        let jiang = User::new("jiang", &[]);
        let held = [
            fairness.seat(&jiang, &info("get"), false).unwrap(),
            fairness.seat(&jiang, &info("list"), false).unwrap(),
        ];
        let refused = fairness.seat(&jiang, &info("get"), false).unwrap_err();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_s), (429, 1));
        assert!(fairness.seat(&jiang, &info("create"), false).is_ok(), "writes have their own limit");
        assert!(fairness.seat(&jiang, &info("watch"), true).is_ok(), "long-running requests are exempt");
        assert!(fairness.seat(&User::new("root", &[GROUP_MASTERS]), &info("get"), false).is_ok());
        assert!(fairness.seat(&User::new("system:kube-scheduler", &[]), &info("get"), false).is_ok());
        drop(held);
        assert!(fairness.seat(&jiang, &info("get"), false).is_ok(), "a finished request frees its seat");
    }
}
