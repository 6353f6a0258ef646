//! Latencies, counted in buckets that are a sixty-fourth of their value wide.
//!
//! Each power of two is divided into 64 equal buckets (log-linear, as HdrHistogram does it), so that a quantile is
//! wrong by less than 1.6 %, and counting is an addition to an array however long a measurement takes.

use std::time::Duration;

/// Buckets for each power of two.
const PARTS: u64 = 1 << PARTS_BITS;
const PARTS_BITS: u32 = 6;

/// How often each latency was seen, to 1.6 %.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    greatest_ns: u64,
}

impl Histogram {
    /// Nothing seen.
    #[expect(clippy::new_without_default, reason = "it allocates some 30 KiB, which no default should")]
    pub fn new() -> Self {
        Self { counts: vec![0; bucket(u64::MAX) + 1], total: 0, greatest_ns: 0 }
    }

    /// Counts one latency.
    pub fn record(&mut self, latency: Duration) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(ns)] += 1;
        self.total += 1;
        self.greatest_ns = self.greatest_ns.max(ns);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.total
    }

    /// The greatest, exactly; 0 if nothing was counted.
    pub fn greatest(&self) -> Duration {
        Duration::from_nanos(self.greatest_ns)
    }

    /// The latency that so many of those counted did not exceed, 0 to 1: the upper end of its bucket, and never more
    /// than the greatest. 0 if nothing was counted.
    pub fn quantile(&self, part: f64) -> Duration {
        let wanted = ((self.total as f64 * part).ceil() as u64).clamp(1, self.total.max(1));
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= wanted {
                return Duration::from_nanos(last_of(index).min(self.greatest_ns));
            }
        }
        Duration::ZERO
    }
}

/// The bucket of a value. Values below [`PARTS`] have one each.
fn bucket(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(PARTS_BITS + 1);
    // With a shift the value has its highest bit at PARTS, so it names the power of two together with its part of it.
    (u64::from(shift) * PARTS + (value >> shift)) as usize
}

/// The greatest value of a bucket.
fn last_of(index: usize) -> u64 {
    let index = index as u64;
    let shift = (index / PARTS).saturating_sub(1);
    let first = (index - shift * PARTS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap_and_are_narrow() {
        let mut last = None;
        for index in 0..=bucket(u64::MAX) {
            let greatest = last_of(index);
            let least = last.map_or(0, |last| last + 1);
            assert_eq!([bucket(least), bucket(greatest)], [index, index], "{least} to {greatest}");
            assert!((greatest - least) as f64 <= least as f64 / PARTS as f64, "{least} to {greatest}");
            last = Some(greatest);
        }
        assert_eq!(last, Some(u64::MAX));
    }

    #[test]
    fn quantiles_are_those_of_the_values() {
        let mut histogram = Histogram::new();
        (1..=1000u64).rev().for_each(|us| histogram.record(Duration::from_micros(us)));
        for (part, us) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (0.999, 999.0), (1.0, 1000.0)] {
            let found = histogram.quantile(part).as_secs_f64() * 1e6;
            assert!((us..=us * 1.016).contains(&found), "{part}: {found} µs, not {us}");
        }
        assert_eq!(histogram.quantile(1.0), histogram.greatest());
        assert_eq!((histogram.count(), histogram.greatest()), (1000, Duration::from_millis(1)));
    }

    #[test]
    fn nothing_measured_is_nothing() {
        assert_eq!(Histogram::new().quantile(0.5), Duration::ZERO);
    }
}
