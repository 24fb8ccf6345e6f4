//! Durations counted in fixed buckets: two relaxed additions a sample.
//!
//! The buckets that monitors are told of are coarse, and each is counted in [parts](PARTS), so that the percentiles of
//! a single second can be told as well.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::metrics::Exposition;

/// Upper bounds of the buckets in microseconds: 1-2.5-5 steps from 100 µs to 10 s. The last bucket has no bound.
const BOUNDS: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

/// Equal parts of a bucket. Ten divide each of them evenly, and none is wider than 15 % of its lower bound (but those
/// below 100 µs).
const PARTS: usize = 10;

/// All parts, and the last bucket.
const CELLS: usize = BOUNDS.len() * PARTS + 1;

#[derive(Debug)]
pub(crate) struct Histogram {
    cells: [AtomicU64; CELLS],
    micros: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: std::array::from_fn(|_| AtomicU64::new(0)),
            micros: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    pub(crate) fn add(&self, sample: Duration) {
        let micros = u64::try_from(sample.as_micros()).unwrap_or(u64::MAX);
        self.cells[cell(micros)].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    /// Samples in each bucket, not cumulated.
    fn buckets(&self) -> [u64; BOUNDS.len() + 1] {
        let mut buckets = [0; BOUNDS.len() + 1];
        for (index, cell) in self.cells.iter().enumerate() {
            buckets[index / PARTS] += cell.load(Relaxed);
        }
        buckets
    }

    /// Writes it as a family of that name.
    pub(crate) fn write(&self, page: &mut Exposition, name: &str, help: &str) {
        let bounds = BOUNDS.map(|micros| Some(Duration::from_micros(micros)));
        let bounds = bounds.into_iter().chain([None]);
        let sum = Duration::from_micros(self.micros.load(Relaxed));
        page.histogram(name, help, bounds.zip(self.buckets()), sum);
    }

    /// The samples by parts of buckets: for [`Cells::since`].
    #[cfg(feature = "status-page")]
    pub(crate) fn cells(&self) -> Cells {
        Cells(std::array::from_fn(|index| self.cells[index].load(Relaxed)))
    }
}

/// The part of a bucket, or the last bucket, that holds a duration.
fn cell(micros: u64) -> usize {
    let bucket = BOUNDS.partition_point(|&bound| bound < micros);
    if bucket == BOUNDS.len() {
        return CELLS - 1;
    }
    let (low, width) = part(bucket);
    // A bound belongs to what is below it.
    let within = (micros - low).saturating_sub(1) / width;
    bucket * PARTS + usize::try_from(within).unwrap_or(PARTS - 1)
}

/// The lower bound of a bucket, and how wide its parts are.
fn part(bucket: usize) -> (u64, u64) {
    let low = if bucket == 0 { 0 } else { BOUNDS[bucket - 1] };
    (low, (BOUNDS[bucket] - low) / PARTS as u64)
}

/// Counts of samples by parts of buckets.
#[cfg(feature = "status-page")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cells([u64; CELLS]);

#[cfg(feature = "status-page")]
impl Cells {
    pub(crate) const EMPTY: Self = Self([0; CELLS]);

    /// What came between an earlier reading of the same histogram and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|index| {
            self.0[index].saturating_sub(earlier.0[index])
        }))
    }

    /// The least duration, in microseconds, that `share` (0 to 1) of the samples do not exceed, interpolated within its
    /// part of a bucket; 10 s stands for anything longer. `None` without a sample.
    pub(crate) fn percentile(&self, share: f64) -> Option<u32> {
        let count: u64 = self.0.iter().sum();
        if count == 0 {
            return None;
        }
        let rank = (count as f64 * share).ceil().max(1.0);
        let mut below = 0.0;
        for (index, &samples) in self.0.iter().enumerate().take(CELLS - 1) {
            let samples = samples as f64;
            if below + samples >= rank {
                let (low, width) = part(index / PARTS);
                let low = (low + width * (index % PARTS) as u64) as f64;
                // The samples of a part are taken to be spread evenly over it.
                let within = (rank - below - 0.5) / samples;
                return Some(whole(low + width as f64 * within));
            }
            below += samples;
        }
        u32::try_from(BOUNDS[BOUNDS.len() - 1]).ok()
    }
}

/// The nearest whole number that there is; 0 for what is none.
#[cfg(feature = "status-page")]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from a float saturates, which is what is wanted"
)]
pub(crate) fn whole(value: f64) -> u32 {
    value.round() as u32
}

#[cfg(all(test, feature = "status-page"))]
mod tests {
    use super::*;

    #[test]
    fn a_sample_falls_into_the_bucket_whose_bound_it_does_not_exceed() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 10_000_000, 10_000_001] {
            histogram.add(Duration::from_micros(micros));
        }
        let mut expected = [0; BOUNDS.len() + 1];
        (expected[0], expected[1]) = (2, 1);
        (expected[BOUNDS.len() - 1], expected[BOUNDS.len()]) = (1, 1);
        assert_eq!(histogram.buckets(), expected);
        let mut page = Exposition::with_capacity(0);
        histogram.write(&mut page, "test", "help");
        let page = page.into_text();
        for line in [
            "test_bucket{le=\"0.0001\"} 2",
            "test_bucket{le=\"0.00025\"} 3",
            "test_bucket{le=\"10\"} 4",
            "test_bucket{le=\"+Inf\"} 5",
            "test_sum 20.000202",
            "test_count 5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }

    #[test]
    fn parts_cover_each_bucket_in_order_and_without_a_gap() {
        let mut last = 0;
        for (bucket, bound) in BOUNDS.into_iter().enumerate() {
            let (low, width) = part(bucket);
            assert_eq!(low + width * PARTS as u64, bound);
            for part in 0..PARTS as u64 {
                let (from, to) = (low + width * part + 1, low + width * (part + 1));
                assert_eq!(cell(from), cell(to));
                assert_eq!(cell(to), last);
                last += 1;
            }
        }
        assert_eq!(cell(10_000_001), last);
        assert_eq!(cell(u64::MAX), CELLS - 1);
        assert_eq!(cell(0), 0);
    }

    #[test]
    fn percentiles_are_those_of_the_samples_within_a_part() {
        let histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.add(Duration::from_millis(millis));
        }
        let cells = histogram.cells().since(&Cells::EMPTY);
        for (share, exact) in [(0.5, 500_000.0), (0.99, 990_000.0), (0.01, 10_000.0)] {
            let found = f64::from(cells.percentile(share).unwrap());
            assert!((found / exact - 1.0).abs() < 0.1, "{share}: {found}");
        }
    }

    #[test]
    fn percentiles_are_of_what_came_between_two_readings() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_secs(5));
        let earlier = histogram.cells();
        assert_eq!(histogram.cells().since(&earlier).percentile(0.99), None);
        histogram.add(Duration::from_millis(20));
        let found = histogram.cells().since(&earlier).percentile(0.99).unwrap();
        assert!((19_000..=21_000).contains(&found), "{found}");
        histogram.add(Duration::from_secs(60));
        let cells = histogram.cells().since(&earlier);
        assert_eq!(cells.percentile(0.99), Some(10_000_000));
        assert_eq!(cells.percentile(0.5), Some(found));
    }
}
