//! Reads through the state file, slowly and for ever, so that damage is found while other members still have the data.
//!
//! Runs on the flusher's thread between its transactions, holds no lock of the state and keeps nothing: a slice of
//! records per flush, and a long pause after each pass. What is read may come from a cache; what no cache has had for a
//! while comes from the disk. Not here: what is done about damage (damage.rs).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::damage::Damage;
use crate::state_file::{StateFile, StateFileError};

/// How fast the file is read, and how long the scrubber rests after each pass.
#[derive(Clone, Debug)]
pub struct ScrubPace {
    /// 0: never.
    pub size_bytes_per_s: u64,
    pub pause: Duration,
}

impl Default for ScrubPace {
    /// 2 GiB take half an hour.
    fn default() -> ScrubPace {
        ScrubPace { size_bytes_per_s: 1 << 20, pause: Duration::from_secs(3600) }
    }
}

#[derive(Default)]
pub(crate) struct ScrubCounters {
    pub passes: AtomicU64,
    pub size_bytes: AtomicU64,
}

pub(crate) struct Scrubber {
    pace: ScrubPace,
    /// The record to go on from; `None`: a pass begins, with the metadata.
    next: Option<u128>,
    rest_until: Instant,
    stepped_at: Instant,
}

impl Scrubber {
    pub(crate) fn new(pace: ScrubPace) -> Scrubber {
        let now = Instant::now();
        Scrubber { pace, next: None, rest_until: now, stepped_at: now }
    }

    /// Reads as much as the time since the last step allows.
    pub(crate) fn step(&mut self, file: &StateFile, damage: &Damage, counters: &ScrubCounters) {
        let now = Instant::now();
        if self.pace.size_bytes_per_s == 0 || now < self.rest_until {
            self.stepped_at = now;
            return;
        }
        // A thread that was held up does not catch up.
        let elapsed_ms = u64::try_from((now - self.stepped_at).as_millis()).unwrap_or(1_000).min(1_000);
        self.stepped_at = now;
        let size_bytes_max = self.pace.size_bytes_per_s.saturating_mul(elapsed_ms) / 1_000;
        let outcome = self.slice(file, damage, size_bytes_max);
        match outcome {
            Ok((next, size_bytes)) => {
                counters.size_bytes.fetch_add(size_bytes, Ordering::Relaxed);
                self.next = next;
                if next.is_none() {
                    counters.passes.fetch_add(1, Ordering::Relaxed);
                    self.rest_until = now + self.pace.pause;
                }
            }
            Err(error) => {
                damage.note(file, "file".to_owned(), &error);
                self.next = None;
                self.rest_until = now + self.pace.pause;
            }
        }
    }

    fn slice(
        &self,
        file: &StateFile,
        damage: &Damage,
        size_bytes_max: u64,
    ) -> Result<(Option<u128>, u64), StateFileError> {
        let mut size_bytes = 0;
        let from = match self.next {
            Some(from) => from,
            None => {
                size_bytes += file.check_meta(|place, error| damage.note(file, place, error))?;
                0
            }
        };
        let (next, read) =
            file.check_records(from, size_bytes_max.max(1), |error| damage.record(file, error))?;
        Ok((next, size_bytes + read))
    }
}
