//! Growing pauses between attempts, with jitter, so that clients do not return in step.

use std::time::Duration;

const FIRST_MS: u64 = 50;
const LONGEST_MS: u64 = 10_000;

/// The first attempt after progress waits almost nothing: a watch moves to another member at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.next_pause(rand::random_range(0.5..1.0))).await;
    }

    fn next_pause(&mut self, jitter: f64) -> Duration {
        let full_ms = FIRST_MS.saturating_mul(1 << self.failures.min(20)).min(LONGEST_MS);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(full_ms).mul_f64(jitter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_start_again_after_progress() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..10).map(|_| backoff.next_pause(1.0).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.reset();
        assert_eq!(backoff.next_pause(0.5).as_millis(), 25);
    }
}
