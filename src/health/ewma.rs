//! The lock-free exponentially weighted moving average.

use atomic_float::AtomicF64;
use std::sync::atomic::Ordering::Relaxed;

/// An exponentially weighted moving average that many threads add to, and read, without a lock.
///
/// Each sample moves the average by `alpha * (sample - average)`, where `alpha = 2 / (age + 1)` makes `age` the
/// average age, in samples, of what the average holds; the first sample becomes the average. This is the formula of
/// [VividCortex/ewma](https://github.com/VividCortex/ewma)'s simple average, and that of the
/// [exponential moving average](https://en.wikipedia.org/wiki/Exponential_smoothing) with a span of `age`.
///
/// The average has the unit of its samples, which are zero or more. `NaN`, infinities and negative samples are
/// ignored: a single one of them would make every later value meaningless.
///
/// ```
/// let average = plimsoll::Ewma::new(3); // alpha = 1/2
/// assert_eq!(average.value(), None);
/// average.add(8.0);
/// average.add(4.0);
/// assert_eq!(average.value(), Some(6.0));
/// ```
#[derive(Debug)]
pub struct Ewma {
    /// NaN while no sample has arrived: zero is a value like any other.
    ///
    /// Relaxed ordering is enough, since the average guards no other memory.
    average: AtomicF64,
    alpha: f64,
}

impl Ewma {
    /// An empty average with an average age of `age` samples, at least 1.
    #[must_use]
    pub fn new(age: u32) -> Self {
        Self {
            average: AtomicF64::new(f64::NAN),
            alpha: 2.0 / (f64::from(age.max(1)) + 1.0),
        }
    }

    /// Adds a sample; ignores it when it is `NaN`, infinite or negative.
    ///
    /// No sample is lost, however many threads add at once.
    pub fn add(&self, sample: f64) {
        self.add_weighted(sample, self.alpha);
    }

    /// The average of the samples since the start or the last reset; `None` before the first.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        let average = self.average.load(Relaxed);
        (!average.is_nan()).then_some(average)
    }

    /// Forgets every sample.
    pub fn reset(&self) {
        self.average.store(f64::NAN, Relaxed);
    }

    /// The weight of a sample in [`add`](Self::add).
    pub(crate) fn alpha(&self) -> f64 {
        self.alpha
    }

    /// Adds a sample with a weight of its own, above 0 and at most 1, and returns the average that holds it.
    ///
    /// Ignores what `add` ignores; the result is then the average as it was, and `NaN` when it is empty.
    pub(crate) fn add_weighted(&self, sample: f64, weight: f64) -> f64 {
        let mut average = self.average.load(Relaxed);
        if !sample.is_finite() || sample < 0.0 {
            return average;
        }
        loop {
            let next = if average.is_nan() {
                sample
            } else {
                average + weight * (sample - average)
            };
            match self
                .average
                .compare_exchange_weak(average, next, Relaxed, Relaxed)
            {
                Ok(_) => return next,
                Err(changed) => average = changed,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// The samples of VividCortex/ewma's own test.
    const SAMPLES: [f64; 100] = [
        4599.0, 5711.0, 4746.0, 4621.0, 5037.0, 4218.0, 4925.0, 4281.0, 5207.0, 5203.0, 5594.0,
        5149.0, 4948.0, 4994.0, 6056.0, 4417.0, 4973.0, 4714.0, 4964.0, 5280.0, 5074.0, 4913.0,
        4119.0, 4522.0, 4631.0, 4341.0, 4909.0, 4750.0, 4663.0, 5167.0, 3683.0, 4964.0, 5151.0,
        4892.0, 4171.0, 5097.0, 3546.0, 4144.0, 4551.0, 6557.0, 4234.0, 5026.0, 5220.0, 4144.0,
        5547.0, 4747.0, 4732.0, 5327.0, 5442.0, 4176.0, 4907.0, 3570.0, 4684.0, 4161.0, 5206.0,
        4952.0, 4317.0, 4819.0, 4668.0, 4603.0, 4885.0, 4645.0, 4401.0, 4362.0, 5035.0, 3954.0,
        4738.0, 4545.0, 5433.0, 6326.0, 5927.0, 4983.0, 5364.0, 4598.0, 5071.0, 5231.0, 5250.0,
        4621.0, 4269.0, 3953.0, 3308.0, 3623.0, 5264.0, 5322.0, 5395.0, 4753.0, 4936.0, 5315.0,
        5243.0, 5060.0, 4989.0, 4921.0, 4480.0, 3426.0, 3687.0, 4220.0, 3197.0, 5139.0, 6101.0,
        5279.0,
    ];

    #[test]
    fn agrees_with_the_published_sequence() {
        let average = Ewma::new(30);
        for sample in SAMPLES {
            average.add(sample);
        }
        let value = average.value().unwrap();
        assert!((value - 4_734.500_946_466_118).abs() < 1e-8, "{value}");
    }

    #[test]
    fn is_empty_before_the_first_sample_and_after_a_reset() {
        let average = Ewma::new(30);
        assert_eq!(average.value(), None);
        average.add(7.0);
        assert_eq!(average.value(), Some(7.0));
        average.reset();
        assert_eq!(average.value(), None);
        average.add(3.0);
        assert_eq!(average.value(), Some(3.0));
    }

    #[test]
    fn zero_is_a_value() {
        let average = Ewma::new(3);
        average.add(0.0);
        assert_eq!(average.value(), Some(0.0));
        average.add(1.0);
        assert_eq!(average.value(), Some(0.5));
    }

    #[test]
    fn ignores_samples_that_are_not_finite_or_are_negative() {
        let refused = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0];
        let average = Ewma::new(3);
        for sample in refused {
            average.add(sample);
        }
        assert_eq!(average.value(), None);
        average.add(5.0);
        for sample in refused {
            average.add(sample);
        }
        assert_eq!(average.value(), Some(5.0));
    }

    #[test]
    fn stays_finite_with_the_largest_samples() {
        let average = Ewma::new(30);
        for sample in [f64::MAX, 0.0, f64::MAX, f64::MIN_POSITIVE] {
            average.add(sample);
            assert!(average.value().unwrap().is_finite());
        }
    }

    #[test]
    fn an_age_below_one_holds_the_last_sample() {
        let average = Ewma::new(0);
        for sample in [1.0, 9.0, 4.0] {
            average.add(sample);
            assert_eq!(average.value(), Some(sample));
        }
    }

    #[test]
    fn weights_of_one_over_the_count_give_the_mean() {
        let average = Ewma::new(30);
        for (sample, weight) in [(2.0, 1.0), (4.0, 1.0 / 2.0), (12.0, 1.0 / 3.0)] {
            average.add_weighted(sample, weight);
        }
        assert!((average.value().unwrap() - 6.0).abs() < 1e-12);
    }

    /// After equal samples the average depends on nothing but their count, and each of them changes it: so one lost
    /// sample leaves an average that differs from the one reached by a single thread.
    #[test]
    fn loses_no_sample_of_many_threads() {
        const THREADS: usize = 4;
        const EACH: usize = 500_000;
        let shared = Ewma::new(2_500_000);
        let alone = Ewma::new(2_500_000);
        shared.add(0.0);
        alone.add(0.0);
        let together = Barrier::new(THREADS);
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    together.wait();
                    for _ in 0..EACH {
                        shared.add(1.0);
                    }
                });
            }
        });
        for _ in 0..THREADS * EACH {
            alone.add(1.0);
        }
        assert_eq!(shared.value(), alone.value());
    }

    #[test]
    fn can_be_read_while_it_is_reset() {
        let average = Ewma::new(30);
        let stop = AtomicBool::new(false);
        let mut strange = None;
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        average.reset();
                        average.add(1.0);
                        average.add(2.0);
                    }
                });
            }
            let (mut changes, mut last) = (0, None);
            while changes < 100 && strange.is_none() {
                let value = average.value();
                strange = value.filter(|value| !(1.0..=2.0).contains(value));
                changes += u32::from(value != last);
                last = value;
                thread::yield_now();
            }
            stop.store(true, Relaxed);
        });
        assert_eq!(strange, None);
    }
}
