//! Runs that alternate between servers, so that a slow spell of the machine hits all of them.

use std::io;

use super::closed::{Load, Measured};
use crate::common::{Child, median};

/// What stands above [`rows_of`].
pub(crate) const HEADS: [&str; 8] = [
    "connections",
    "server",
    "requests/s",
    "plimsoll's ratio",
    "median",
    "p99",
    "processor time a request",
    "peak memory",
];

/// A server under load.
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) child: Child,
    pub(crate) path: &'static str,
}

impl Server {
    pub(crate) fn new(name: &'static str, child: Child, path: &'static str) -> Self {
        Self { name, child, path }
    }
}

/// What a server did in the median run: requests per second, the median and the 99th percentile of latency in
/// milliseconds, and its processor time for a request in microseconds.
pub(crate) struct Medians {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) cost: f64,
}

impl Medians {
    pub(crate) fn show(&self) -> String {
        format!(
            "{:.0} requests/s, p99 {:.2} ms, {:.1} us",
            self.rate, self.p99, self.cost
        )
    }
}

/// The median of `runs` runs of each, in turn.
pub(crate) fn measure(
    servers: &[Server],
    connections: usize,
    runs: usize,
    seconds: u32,
) -> io::Result<Vec<Medians>> {
    let mut samples: Vec<Vec<(Measured, f64)>> = servers.iter().map(|_| Vec::new()).collect();
    for run in 0..runs {
        for step in 0..servers.len() {
            // Nobody is always the first.
            let number = (run + step) % servers.len();
            let Server { child, path, .. } = &servers[number];
            let load = Load::get(child.address, path, connections, seconds);
            let before = child.processor_time();
            let measured = load.run()?;
            let took = child.processor_time().zip(before);
            let took = took.map_or(f64::NAN, |(after, before)| after - before);
            let cost = took * 1e6 / measured.requests.max(1.0);
            samples[number].push((measured, cost));
        }
    }
    let medians = samples.into_iter().map(|samples| {
        let of = |figure: fn(&(Measured, f64)) -> f64| median(samples.iter().map(figure).collect());
        Medians {
            rate: of(|(sample, _)| sample.rate),
            p50: of(|(sample, _)| sample.p50),
            p99: of(|(sample, _)| sample.p99),
            cost: of(|(_, cost)| *cost),
        }
    });
    Ok(medians.collect())
}

/// Rows under [`HEADS`]; the ratio is the first server's.
pub(crate) fn rows_of(
    servers: &[Server],
    connections: usize,
    results: &[Medians],
) -> Vec<Vec<String>> {
    let first = results[0].rate;
    let rows = servers.iter().zip(results).map(|(server, result)| {
        let memory = server.child.peak_memory();
        vec![
            connections.to_string(),
            server.name.to_owned(),
            format!("{:.0}", result.rate),
            format!("{:.2}", first / result.rate),
            format!("{:.3} ms", result.p50),
            format!("{:.2} ms", result.p99),
            format!("{:.1} us", result.cost),
            memory.map_or("-".to_owned(), |kib| format!("{kib} KiB")),
        ]
    });
    rows.collect()
}
