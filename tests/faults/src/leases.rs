//! LEA: a lease's key does not go before its time, goes at last, and goes at once when the lease is revoked.
//!
//! The time that counts: a lease that was granted or kept alive lives at least its time to live, counted from when
//! that was *asked for*. A key is known to be gone when a watch tells of it. Clocks of members may run faster by
//! `drift`; then leases may be shorter by as much.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::history::{Key, Violation, key_name, seconds};
use crate::log::Log;
use crate::watch::Stream;

/// One lease with one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub id: i64,
    pub key: Key,
    pub ttl_s: u64,
    /// When what was then acknowledged (grant, keepalives) was asked for.
    pub renewals_asked_ns: Vec<u64>,
    /// The key's creation, if it was acknowledged.
    pub put_revision: Option<i64>,
    /// When its holder asked for its end, whether or not it was told of it.
    pub revoke_asked_ns: Option<u64>,
    /// When the holder was told that the lease was revoked, with the revision of the answer.
    pub revoked: Option<(u64, i64)>,
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lease { id, ttl_s, .. } = self;
        write!(f, "lease {id:x} of {ttl_s} s with {}", key_name(self.key))?;
        if let Some(asked_ns) = self.renewals_asked_ns.last() {
            write!(f, ", last renewed when asked at {}", seconds(*asked_ns))?;
        }
        if let Some(asked_ns) = self.revoke_asked_ns {
            write!(f, ", asked to end at {}", seconds(asked_ns))?;
        }
        Ok(())
    }
}

/// The number of leases checked.
pub fn check(log: &Log, streams: &[Stream], leases: &[Lease], drift: f64) -> Result<usize, Violation> {
    let mut gone: HashMap<Key, (i64, u64)> = HashMap::new();
    for event in streams.iter().flat_map(|stream| &stream.events).filter(|event| event.value.is_none()) {
        let first = gone.entry(event.key).or_insert((event.revision, event.arrived_ns));
        first.1 = first.1.min(event.arrived_ns);
    }
    for lease in leases {
        let Some(put_revision) = lease.put_revision else { continue };
        match (log.entry(lease.key, log.last_revision()), gone.get(&lease.key)) {
            (Some(_), _) => {
                return Err(
                    format!("the key of a lease that nobody kept alive is still there: {lease}").into()
                );
            }
            (None, None) => return Err(format!("its acknowledged key is not in the log: {lease}").into()),
            (None, Some((revision, arrived_ns))) => {
                if *revision <= put_revision {
                    return Err(format!("gone at revision {revision}, before it was there: {lease}").into());
                }
                not_early(lease, *revision, *arrived_ns, drift)?;
            }
        }
        if let Some((told_ns, revision)) = lease.revoked
            && log.entry(lease.key, revision).is_some()
        {
            let sentence = format!("revoked, but its key is still there at revision {revision}: {lease}");
            return Err(Violation::seen(told_ns, sentence));
        }
    }
    Ok(leases.iter().filter(|lease| lease.put_revision.is_some()).count())
}

fn not_early(lease: &Lease, revision: i64, arrived_ns: u64, drift: f64) -> Result<(), Violation> {
    if lease.revoke_asked_ns.is_some_and(|asked_ns| asked_ns <= arrived_ns) {
        return Ok(());
    }
    let lives_ns = (lease.ttl_s as f64 * 1e9 / drift.max(1.0)) as u64;
    match lease.renewals_asked_ns.iter().find(|asked_ns| arrived_ns < **asked_ns + lives_ns) {
        None => Ok(()),
        Some(asked_ns) => Err(Violation::seen(
            arrived_ns,
            format!(
                "lease {:x} of {} s was granted or kept alive when asked at {}, but its key was gone at {} \
             (revision {revision}) and nobody had revoked it",
                lease.id,
                lease.ttl_s,
                seconds(*asked_ns),
                seconds(arrived_ns)
            ),
        )),
    }
}
