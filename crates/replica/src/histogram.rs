//! Durations by bucket, as Prometheus wants them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts durations; one relaxed addition or two per observation.
pub struct Histogram {
    bounds_s: &'static [f64],
    /// One per bound, and one above all of them.
    counts: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    pub bounds_s: &'static [f64],
    /// Not cumulative; the last is above all bounds.
    pub counts: Vec<u64>,
    pub sum_s: f64,
}

impl Histogram {
    /// Upper bounds ascend.
    pub fn new(bounds_s: &'static [f64]) -> Histogram {
        let counts = (0..=bounds_s.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds_s, counts, sum_us: AtomicU64::new(0) }
    }

    pub fn observe(&self, took: Duration) {
        let took_s = took.as_secs_f64();
        let bucket = self.bounds_s.iter().position(|bound| took_s <= *bound).unwrap_or(self.bounds_s.len());
        if let Some(count) = self.counts.get(bucket) {
            count.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    pub fn durations(&self) -> Durations {
        Durations {
            bounds_s: self.bounds_s,
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum_s: Duration::from_micros(self.sum_us.load(Relaxed)).as_secs_f64(),
        }
    }
}

impl Durations {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let histogram = Histogram::new(&[0.001, 0.01]);
        for ms in [1, 5, 10, 11, 2_000] {
            histogram.observe(Duration::from_millis(ms));
        }
        let durations = histogram.durations();
        assert_eq!(durations.counts, [1, 2, 2]);
        assert_eq!((durations.count(), durations.sum_s), (5, 2.027));
    }
}
