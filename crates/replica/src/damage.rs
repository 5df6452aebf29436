//! What this member's state file should hold and does not, as reads and the scrubber find it.
//!
//! Invariants: each place is logged and counted once; whoever read it gets an error of its own besides. Found damage
//! raises the alarm CORRUPT for this member, so that operators learn of it before the other copies are gone.
//! Not here: damage that apply meets, which ends the member (state_machine.rs).

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use mvcc::{Records, RecordsError, Revision, ScanBound, Scanned};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::corruption;
use crate::handle::Inner;
use crate::state_file::StateFile;

/// Places that are remembered; more are counted as long as they are new to this list.
const PLACES_MAX: usize = 1_024;
/// Between two attempts to raise the alarm.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Damage {
    places: Mutex<BTreeSet<String>>,
    /// How many places were found.
    found: watch::Sender<u64>,
}

impl Damage {
    /// `place` names what is damaged the same way each time.
    pub(crate) fn note(&self, file: &StateFile, place: String, error: &dyn std::fmt::Display) {
        let mut places = self.places.lock();
        if places.len() >= PLACES_MAX || places.contains(&place) {
            return;
        }
        tracing::error!(file = %file.path().display(), place, %error, "the state file is damaged");
        places.insert(place);
        self.found.send_modify(|found| *found += 1);
    }

    pub(crate) fn record(&self, file: &StateFile, error: &RecordsError) {
        let place = match error {
            RecordsError::Missing { revision } | RecordsError::Damaged { revision, .. } => {
                format!("record {revision}")
            }
            RecordsError::Read(_) => "file".to_owned(),
        };
        self.note(file, place, error);
    }

    pub(crate) fn found(&self) -> u64 {
        *self.found.borrow()
    }
}

/// The state file for reads: what it fails to give is noted.
pub(crate) struct Watched<'a> {
    pub file: &'a StateFile,
    pub damage: &'a Damage,
}

impl Records for Watched<'_> {
    fn read(&self, revision: Revision) -> Result<Option<Bytes>, RecordsError> {
        self.file.read(revision).inspect_err(|error| self.damaged(error))
    }

    fn scan(&self, from: Revision, bound: ScanBound) -> Result<Scanned, RecordsError> {
        self.file.scan(from, bound).inspect_err(|error| self.damaged(error))
    }

    fn damaged(&self, error: &RecordsError) {
        // A member that stops reads no more; that is no damage.
        if !self.file.is_closed() {
            self.damage.record(self.file, error);
        }
    }
}

/// Raises the alarm for this member each time that more damage is found.
pub(crate) async fn report(inner: Arc<Inner>, shutdown: CancellationToken) {
    let mut found = inner.state.damage.found.subscribe();
    let work = async {
        let mut reported = 0;
        while found.wait_for(|found| *found > reported).await.is_ok() {
            let now = inner.state.damage.found();
            while !corruption::raise(&inner, inner.identity.member_id).await {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            reported = now;
        }
    };
    tokio::select! {
        () = work => {}
        () = shutdown.cancelled() => {}
    }
}
