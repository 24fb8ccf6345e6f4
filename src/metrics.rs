//! How each part of the server tells its numbers: to Prometheus, in its text format 0.0.4, and to the history.
//!
//! Base units, ratios from 0 to 1, counters that end in `_total`.

use std::fmt::{Display, Write};
use std::time::{Duration, SystemTime};

/// A part of the server that has numbers to tell.
pub(crate) trait Measured {
    /// Writes its families of metrics.
    fn metrics(&self, page: &mut Exposition);

    /// Tells each of its counts that the history keeps a column of, by name; always the same ones. What every server
    /// counts, the history knows by itself.
    fn history(&self, _tell: &mut dyn FnMut(&dyn Display, u64)) {}
}

/// The page under construction. Writing to a String does not fail.
pub(crate) struct Exposition(String);

impl Exposition {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    /// The page.
    pub(crate) fn into_text(self) -> String {
        self.0
    }

    /// Begins a family of metrics: `kind` is `counter`, `gauge` or `histogram`.
    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// One sample of the family, whose labels stand in their braces.
    pub(crate) fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }

    /// A family of one gauge.
    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, "", value);
    }

    /// A family of one counter.
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, "", value);
    }

    /// A family of counters, told apart by one label.
    pub(crate) fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.family(name, "counter", help);
        for (word, value) in values {
            self.sample(name, &format!("{{{label}=\"{word}\"}}"), value);
        }
    }

    /// A family of one histogram: the samples of each bucket, not cumulated, by its upper bound, and the sum of all. The
    /// last bucket has no bound.
    pub(crate) fn histogram(
        &mut self,
        name: &str,
        help: &str,
        buckets: impl Iterator<Item = (Option<Duration>, u64)>,
        sum: Duration,
    ) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        for (bound, samples) in buckets {
            count += samples;
            let bound = bound.map_or("+Inf".into(), |it| it.as_secs_f64().to_string());
            self.sample(&bucket, &format!("{{le=\"{bound}\"}}"), count);
        }
        self.sample(&format!("{name}_sum"), "", sum.as_secs_f64());
        self.sample(&format!("{name}_count"), "", count);
    }
}

/// Labels in their braces, the values escaped: some of them come from elsewhere.
pub(crate) fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::from("{");
    for (index, (name, value)) in pairs.iter().enumerate() {
        let comma = if index > 0 { "," } else { "" };
        let _ = write!(out, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\n' => out.push_str("\\n"),
                '"' | '\\' => {
                    out.push('\\');
                    out.push(character);
                }
                _ => out.push(character),
            }
        }
        out.push('"');
    }
    out.push('}');
    out
}

/// Seconds since the Unix epoch.
pub(crate) fn since_epoch(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_value_is_escaped() {
        let labels = labels(&[("check", "a\\b\"c\nd"), ("critical", "true")]);
        assert_eq!(labels, r#"{check="a\\b\"c\nd",critical="true"}"#);
    }
}
