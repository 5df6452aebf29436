//! A histogram of durations with a bounded relative error.
//!
//! Invariants: every nanosecond count has exactly one bucket, no bucket is wider than 1/64 of its lower bound, and
//! memory does not grow with the number of values. Not here: what was timed (load.rs).

use std::time::Duration;

/// Buckets per power of two, and the width of the exact part at the bottom.
const STEPS: u64 = 64;
const STEPS_BITS: u32 = STEPS.ilog2();
const BUCKETS: usize = ((u64::BITS - STEPS_BITS + 1) as usize) * STEPS as usize;

#[derive(Clone)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Histogram {
    pub(crate) fn new() -> Histogram {
        Histogram { counts: vec![0; BUCKETS], total: 0, max_ns: 0 }
    }

    pub(crate) fn record(&mut self, elapsed: Duration) {
        let elapsed_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(elapsed_ns)] += 1;
        self.total += 1;
        self.max_ns = self.max_ns.max(elapsed_ns);
    }

    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }

    /// The smallest recorded duration that at least `per_mille`/1000 of all do not exceed, rounded up to the end of
    /// its bucket; zero if nothing was recorded.
    pub(crate) fn quantile(&self, per_mille: u64) -> Duration {
        let wanted = (u128::from(self.total) * u128::from(per_mille)).div_ceil(1000).max(1);
        let mut seen = 0u128;
        for (index, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return Duration::from_nanos(bucket_end_ns(index).min(self.max_ns));
            }
        }
        Duration::ZERO
    }
}

fn bucket(value: u64) -> usize {
    let shift = value.max(STEPS).ilog2() - STEPS_BITS;
    (u64::from(shift) * STEPS + (value >> shift)) as usize
}

/// The largest value of a bucket.
fn bucket_end_ns(index: usize) -> u64 {
    let index = index as u64;
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let first = (index - shift * STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_a_bucket_at_most_one_sixty_fourth_wide() {
        let mut values: Vec<u64> =
            (0..u64::BITS).flat_map(|bit| [1 << bit, (1 << bit) + 1, (1u64 << bit) - 1]).collect();
        values.extend([u64::MAX, 0, 100, 1_234_567, 987_654_321]);
        for value in values {
            let index = bucket(value);
            assert!(index < BUCKETS, "value {value}");
            let end = bucket_end_ns(index);
            assert!(end >= value && end - value <= value / STEPS, "value {value} ends at {end}");
            if end < u64::MAX {
                assert_eq!(bucket(end + 1), index + 1, "after {end}");
            }
        }
    }

    #[test]
    fn quantiles_of_a_thousand_steps_are_their_ranks() {
        let mut histogram = Histogram::new();
        for step in 1..=1000 {
            histogram.record(Duration::from_micros(step));
        }
        for (per_mille, exact_us) in [(1, 1u64), (500, 500), (990, 990), (1000, 1000)] {
            let found = histogram.quantile(per_mille);
            let exact = Duration::from_micros(exact_us);
            assert!(found >= exact && found <= exact + exact / 64, "{per_mille}: {found:?}");
        }
        assert_eq!(histogram.max(), Duration::from_micros(1000));
    }

    #[test]
    fn one_slow_request_of_a_hundred_is_not_in_the_median_but_in_the_last_hundredth() {
        let mut histogram = Histogram::new();
        for _ in 0..98 {
            histogram.record(Duration::from_micros(10));
        }
        histogram.record(Duration::from_secs(3));
        histogram.record(Duration::from_secs(3));
        assert!(histogram.quantile(500) < Duration::from_micros(11));
        assert_eq!(histogram.quantile(990), Duration::from_secs(3));
    }

    #[test]
    fn merging_is_as_recording_into_one() {
        let (mut left, mut right, mut both) = (Histogram::new(), Histogram::new(), Histogram::new());
        for step in 1..200u64 {
            let elapsed = Duration::from_nanos(step * step * 77);
            if step % 3 == 0 {
                left.record(elapsed)
            } else {
                right.record(elapsed)
            }
            both.record(elapsed);
        }
        left.merge(&right);
        assert_eq!(left.total(), both.total());
        assert_eq!(left.counts, both.counts);
        assert_eq!(left.max(), both.max());
    }

    #[test]
    fn nothing_recorded_is_zero() {
        assert_eq!(Histogram::new().quantile(990), Duration::ZERO);
    }
}
