//! The last ten minutes of each endpoint that the reports tell of.

use std::sync::Arc;

use super::{NONE, SAMPLES, known, micros, place};
use crate::health::upstreams::{EndpointReport, EndpointState, MOST_REPORTED};

/// One second of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndpointSample {
    /// Requests that ended in that second, and those of them that failed.
    pub(crate) requests: u32,
    pub(crate) failed: u32,
    /// In microseconds.
    latency: u32,
    pub(crate) pending: u16,
    /// The first letter of what the breaker's state is called, and a dash where there is no breaker.
    breaker: u8,
    /// `None` in a gap.
    state: Option<EndpointState>,
}

impl EndpointSample {
    const GAP: Self = Self {
        requests: 0,
        failed: 0,
        latency: NONE,
        pending: 0,
        breaker: b'-',
        state: None,
    };

    /// Whether nothing is known of that second.
    pub(crate) fn is_gap(&self) -> bool {
        self.state.is_none()
    }

    /// The moving average of its latency at the second's end, in microseconds.
    pub(crate) fn latency(&self) -> Option<u32> {
        known(self.latency)
    }

    /// Where its breaker stood at the second's end: `c`losed, `o`pen, `h`alf-open, or a dash.
    pub(crate) fn breaker(&self) -> char {
        self.breaker.into()
    }

    /// How it could be used at the second's end: `u`p, `l`ast choice, `t`rial, `d`own, or a dash in a gap.
    pub(crate) fn state(&self) -> char {
        match self.state {
            Some(state) => state.as_str().chars().next().unwrap_or('-'),
            None => '-',
        }
    }
}

/// The ring of one endpoint: 9.4 KiB.
#[derive(Debug)]
pub(crate) struct EndpointHistory {
    pub(crate) name: Arc<str>,
    ring: Box<[EndpointSample]>,
    /// The number of its newest sample.
    newest: u64,
    successes: u64,
    failures: u64,
}

impl EndpointHistory {
    /// One whose first sample is yet to be taken; these were counted before.
    fn new(name: Arc<str>, newest: u64, [successes, failures]: [u64; 2]) -> Self {
        Self {
            name,
            ring: vec![EndpointSample::GAP; SAMPLES].into_boxed_slice(),
            newest,
            successes,
            failures,
        }
    }

    /// The sample of that number.
    pub(crate) fn sample(&self, number: u64) -> EndpointSample {
        if number > self.newest || self.newest - number >= SAMPLES as u64 {
            return EndpointSample::GAP;
        }
        self.ring[place(number)]
    }

    fn record(&mut self, report: &EndpointReport, number: u64, span: u64) {
        for missed in (self.newest + 1).max(number.saturating_sub(SAMPLES as u64))..number {
            self.ring[place(missed)] = EndpointSample::GAP;
        }
        let each = |count, before: &mut u64| {
            // An endpoint that left and came back counts from zero.
            let more = super::each(count, if count < *before { 0 } else { *before }, span);
            *before = count;
            more
        };
        let succeeded = each(report.successes, &mut self.successes);
        let failed = each(report.failures, &mut self.failures);
        self.ring[place(number)] = EndpointSample {
            requests: succeeded.saturating_add(failed),
            failed,
            latency: micros(report.latency),
            pending: u16::try_from(report.pending).unwrap_or(u16::MAX),
            breaker: match report.breaker {
                "off" => b'-',
                word => word.as_bytes().first().copied().unwrap_or(b'-'),
            },
            state: Some(report.state),
        };
        self.newest = number;
    }
}

/// The rings of at most as many endpoints as reports tell of.
#[derive(Debug, Default)]
pub(super) struct Endpoints(Vec<EndpointHistory>);

impl Endpoints {
    /// Takes the sample of that number, which stands for so many seconds, of each of these endpoints.
    ///
    /// One that is told of no more is forgotten after ten minutes, or when another one needs its place.
    pub(super) fn record(&mut self, reports: &[EndpointReport], number: u64, span: u64) {
        let all = &mut self.0;
        all.retain(|one| number - one.newest < SAMPLES as u64);
        for report in reports.iter().take(MOST_REPORTED) {
            let place = all.iter().position(|one| one.name == report.name);
            let place = place.unwrap_or_else(|| {
                let is_full = all.len() == MOST_REPORTED;
                if is_full {
                    let longest_unseen = all.iter().enumerate().min_by_key(|(_, one)| one.newest);
                    all.remove(longest_unseen.map_or(0, |(place, _)| place));
                }
                // While there is room for all, one that is new here is new.
                let before = if is_full {
                    [report.successes, report.failures]
                } else {
                    [0; 2]
                };
                let name = report.name.clone();
                all.push(EndpointHistory::new(name, number, before));
                all.len() - 1
            });
            all[place].record(report, number, span);
        }
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &EndpointHistory> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn report(name: &str, successes: u64, failures: u64) -> EndpointReport {
        EndpointReport {
            name: name.into(),
            state: EndpointState::Up,
            breaker: "closed",
            retry_in: Duration::ZERO,
            latency: Some(Duration::from_millis(3)),
            pending: 2,
            idle: 0,
            weight: 1,
            successes,
            failures,
            error: None,
            fault: None,
        }
    }

    fn requests(endpoints: &Endpoints, name: &str, numbers: std::ops::Range<u64>) -> Vec<[u32; 2]> {
        let one = endpoints.iter().find(|one| &*one.name == name);
        let one = one.expect("it is known");
        let samples = numbers.map(|number| one.sample(number));
        samples
            .map(|sample| [sample.requests, sample.failed])
            .collect()
    }

    #[test]
    fn a_sample_tells_what_an_endpoint_did_in_its_second() {
        let mut endpoints = Endpoints::default();
        endpoints.record(&[report("a", 5, 1)], 0, 1);
        let mut down = report("a", 5, 4);
        (down.state, down.breaker, down.latency) = (EndpointState::Down, "open", None);
        endpoints.record(&[down], 1, 1);
        assert_eq!(requests(&endpoints, "a", 0..2), [[6, 1], [3, 3]]);
        let one = endpoints.iter().next().expect("it is known");
        let [first, second] = [0, 1].map(|number| one.sample(number));
        assert_eq!(
            (first.state(), first.breaker(), first.latency()),
            ('u', 'c', Some(3000))
        );
        assert_eq!(
            (second.state(), second.breaker(), second.latency()),
            ('d', 'o', None)
        );
        assert_eq!((first.pending, one.sample(2).is_gap()), (2, true));
    }

    #[test]
    fn an_endpoint_that_leaves_and_comes_back_has_a_gap_and_counts_from_zero() {
        let mut endpoints = Endpoints::default();
        endpoints.record(&[report("a", 100, 0)], 0, 1);
        endpoints.record(&[], 1, 1);
        endpoints.record(&[report("a", 7, 0)], 2, 1);
        assert_eq!(requests(&endpoints, "a", 0..3), [[100, 0], [0, 0], [7, 0]]);
        let one = endpoints.iter().next().expect("it is known");
        let gaps = [0, 1, 2].map(|number| one.sample(number).is_gap());
        assert_eq!(gaps, [false, true, false]);
    }

    #[test]
    fn what_is_older_than_ten_minutes_is_forgotten() {
        let mut endpoints = Endpoints::default();
        let size = SAMPLES as u64;
        endpoints.record(&[report("a", 1, 0), report("b", 1, 0)], 0, 1);
        endpoints.record(&[report("a", 2, 0)], size - 1, 1);
        assert_eq!(requests(&endpoints, "a", 0..2), [[1, 0], [0, 0]]);
        assert_eq!(endpoints.iter().count(), 2);
        endpoints.record(&[report("a", 3, 0)], size + 1, 1);
        assert_eq!(endpoints.iter().count(), 1, "b is gone for ten minutes");
        let one = endpoints.iter().next().expect("a is known");
        assert!((0..size - 1).all(|number| one.sample(number).is_gap()));
        assert!(!one.sample(size - 1).is_gap() && one.sample(size).is_gap());
    }

    #[test]
    fn however_many_endpoints_come_and_go_the_memory_is_bounded() {
        let mut endpoints = Endpoints::default();
        for number in 0..100 {
            let names = (0..MOST_REPORTED + 5).map(|at| format!("{number}:{at}"));
            let reports: Vec<_> = names.map(|name| report(&name, 50, 0)).collect();
            endpoints.record(&reports, number, 1);
            assert_eq!(endpoints.iter().count(), MOST_REPORTED);
        }
        // What they did before they were among these is not of their first second.
        assert_eq!(requests(&endpoints, "99:3", 98..100), [[0, 0], [0, 0]]);
        assert_eq!(size_of::<EndpointSample>(), 16);
    }
}
