//! The parts that readiness and liveness are made of, in the manner of Kubernetes: `?verbose`, `?exclude=NAME`, and
//! `/readyz/NAME`.
//!
//! Who sees the parts sees the details, so that each says why it fails.

use std::fmt::Write;

use percent_encoding::percent_decode_str;

use crate::checks::{CheckReport, CheckState};
use crate::health::Snapshot;
use crate::health::causes::{Cause, causes};

/// One part: what it is called, why it fails if it does, and whether the verdict hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part<'a> {
    name: &'a str,
    failed: Option<String>,
    counts: bool,
    /// Nothing is known of it.
    unknown: bool,
}

impl<'a> Part<'a> {
    fn own(name: &'a str) -> Self {
        Self {
            name,
            failed: None,
            counts: true,
            unknown: false,
        }
    }

    fn store(check: &'a CheckReport) -> Self {
        Self {
            name: &check.name,
            failed: None,
            counts: check.critical,
            unknown: check.state == CheckState::NotYet,
        }
    }

    pub(super) fn name(&self) -> &'a str {
        self.name
    }

    /// Whether the verdict fails by it.
    pub(super) fn fails(&self) -> bool {
        self.counts && self.failed.is_some()
    }

    /// Whether it is known to be well, whatever hangs on it.
    pub(super) fn is_good(&self) -> bool {
        self.failed.is_none() && !self.unknown
    }

    /// Its line, without an end. The reason is for those alone who see details.
    pub(super) fn line(&self) -> String {
        let Self { name, .. } = self;
        match (&self.failed, self.counts) {
            (Some(why), true) => one_line(&format!("[-]{name} failed: {why}")),
            (Some(why), false) => one_line(&format!("[-]{name} failed, not critical: {why}")),
            (None, _) if self.unknown => format!("[+]{name} not checked yet, not critical"),
            (None, _) => format!("[+]{name} ok"),
        }
    }
}

/// A check of the program's own may say anything: a line break in it must not look like another part.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// What readiness is made of.
pub(super) fn ready(now: &Snapshot) -> Vec<Part<'_>> {
    let own = ["gate", "workers", "intake", "serving"].map(Part::own);
    let upstream = now.upstreams.iter().map(|_| Part::own("upstream"));
    let stores = now.checks.iter().map(Part::store);
    let causes = causes(now);
    judged(own.into_iter().chain(upstream).chain(stores), &causes, now)
}

/// What liveness is made of; never a data store.
pub(super) fn live(now: &Snapshot) -> Vec<Part<'_>> {
    let own = ["workers", "intake"].map(Part::own);
    let mut causes = causes(now);
    causes.retain(|cause| cause.ends_liveness(now));
    judged(own.into_iter(), &causes, now)
}

/// The parts with the reasons why they fail.
fn judged<'a>(
    parts: impl Iterator<Item = Part<'a>>,
    causes: &[Cause<'_>],
    now: &Snapshot,
) -> Vec<Part<'a>> {
    let judge = |part: Part<'a>| {
        let mut causes = causes.iter();
        let cause = causes.find(|cause| cause.failed_part() == Some(part.name));
        Part {
            failed: cause.map(|cause| cause.reason(now)),
            ..part
        }
    };
    parts.map(judge).collect()
}

/// The parts seen as one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) good: bool,
    /// A line for each part, and one for them all.
    pub(super) text: String,
}

/// Judges the `parts` of the `check` (`readyz` or `livez`) without those that the query excludes.
pub(super) fn judge(check: &str, parts: &[Part<'_>], query: Option<&str>) -> Verdict {
    let excluded: Vec<String> = values(query, "exclude").collect();
    let is_excluded = |part: &Part<'_>| excluded.iter().any(|name| name == part.name);
    let mut good = true;
    let mut text = String::new();
    for part in parts {
        // Writing to a String does not fail.
        let _ = if is_excluded(part) {
            writeln!(text, "[+]{} excluded: ok", part.name)
        } else {
            good &= !part.fails();
            writeln!(text, "{}", part.line())
        };
    }
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !parts.iter().any(|part| part.name == name.as_str()))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        let _ = writeln!(
            text,
            "warn: some health checks cannot be excluded: no matches for {names}"
        );
    }
    let word = if good { "passed" } else { "failed" };
    let _ = writeln!(text, "{check} check {word}");
    Verdict { good, text }
}

/// The part of that name, as it stands in a path.
pub(super) fn find<'a>(parts: &[Part<'a>], name: &str) -> Option<Part<'a>> {
    let name: Vec<u8> = percent_decode_str(name).collect();
    let mut parts = parts.iter();
    let found = parts.find(|part| part.name.as_bytes() == name);
    found.cloned()
}

/// Whether a query has that word among its `&`-separated parts, with or without a value.
pub(super) fn has_flag(query: Option<&str>, flag: &str) -> bool {
    let mut parts = query.unwrap_or_default().split('&');
    parts.any(|part| part.split('=').next() == Some(flag))
}

/// The values that a query gives for `key`, decoded.
fn values<'a>(query: Option<&'a str>, key: &'a str) -> impl Iterator<Item = String> + 'a {
    let parts = query.unwrap_or_default().split('&');
    let pairs = parts.filter_map(|part| part.split_once('='));
    let found = pairs.filter(move |(name, value)| *name == key && !value.is_empty());
    found.map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::CheckReport;
    use crate::report::tests::snapshot;

    fn stores() -> Snapshot {
        let mut now = snapshot();
        now.checks = vec![
            CheckReport::sample("redis", true, CheckState::Up),
            CheckReport::sample("postgres", true, CheckState::Down),
            CheckReport::sample("cache", false, CheckState::Down),
            CheckReport::sample("search", false, CheckState::NotYet),
        ];
        now
    }

    #[test]
    fn verbose_lists_every_part_with_the_reason_why_it_fails() {
        let mut now = stores();
        now.checks[1].error = Some("Connection refused (os error 111)".into());
        now.checks[2].error = Some("two\nlines".into());
        let verdict = judge("readyz", &ready(&now), Some("verbose"));
        assert!(!verdict.good);
        assert_eq!(
            verdict.text,
            "[+]gate ok\n\
             [+]workers ok\n\
             [+]intake ok\n\
             [+]serving ok\n\
             [+]redis ok\n\
             [-]postgres failed: Connection refused (os error 111)\n\
             [-]cache failed, not critical: two lines\n\
             [+]search not checked yet, not critical\n\
             readyz check failed\n",
        );
    }

    #[test]
    fn what_is_excluded_does_not_count() {
        let now = stores();
        let query = Some("verbose&exclude=postgres&exclude=gate");
        let verdict = judge("readyz", &ready(&now), query);
        assert!(verdict.good);
        assert!(verdict.text.starts_with("[+]gate excluded: ok\n"));
        assert!(verdict.text.contains("\n[+]postgres excluded: ok\n"));
        assert!(verdict.text.ends_with("\nreadyz check passed\n"));
    }

    #[test]
    fn names_that_exclude_nothing_are_named_in_a_warning() {
        let now = snapshot();
        let query = Some("exclude=nothing&exclude=gate&exclude=a%22b%0A");
        let verdict = judge("readyz", &ready(&now), query);
        assert!(verdict.good);
        let line = "\nwarn: some health checks cannot be excluded: no matches for \
                    \"nothing\",\"a\\\"b\\n\"\nreadyz check passed\n";
        assert!(verdict.text.ends_with(line), "{}", verdict.text);
    }

    #[test]
    fn a_critical_store_counts_before_its_first_run_and_another_does_not() {
        let mut now = snapshot();
        now.checks = vec![CheckReport::sample("db", true, CheckState::NotYet)];
        let verdict = judge("readyz", &ready(&now), None);
        assert!(!verdict.good);
        assert!(
            verdict
                .text
                .contains("\n[-]db failed: not checked yet\nreadyz check failed\n")
        );
        now.checks[0].critical = false;
        assert!(judge("readyz", &ready(&now), None).good);
    }

    #[test]
    fn a_part_is_found_by_its_name_percent_encoded_or_not() {
        let mut now = stores();
        now.checks
            .push(CheckReport::sample("a b", false, CheckState::Up));
        let parts = ready(&now);
        for name in ["gate", "postgres", "a%20b", "%67ate"] {
            assert!(find(&parts, name).is_some(), "{name}");
        }
        for name in ["", "worker", "Gate", "gate%00", "postgre"] {
            assert_eq!(find(&parts, name), None, "{name}");
        }
    }

    #[test]
    fn liveness_depends_on_no_store() {
        let now = stores();
        let verdict = judge("livez", &live(&now), Some("verbose"));
        assert_eq!(
            verdict.text,
            "[+]workers ok\n[+]intake ok\nlivez check passed\n"
        );
    }

    #[test]
    fn the_verdict_on_all_parts_is_that_of_the_snapshot() {
        let states = [CheckState::Up, CheckState::Down, CheckState::NotYet];
        for state in states {
            for (critical, draining, stuck) in [
                (true, false, false),
                (false, false, false),
                (false, true, false),
                (false, false, true),
            ] {
                let mut now = snapshot();
                now.draining = draining;
                now.workers_stuck = if stuck { now.workers } else { 0 };
                now.checks = vec![CheckReport::sample("db", critical, state)];
                let verdict = judge("readyz", &ready(&now), None);
                assert_eq!(verdict.good, now.is_ready(), "{now:?}");
            }
        }
    }

    #[test]
    fn a_flag_is_found_with_and_without_a_value() {
        for query in ["verbose", "a=b&verbose", "verbose=1", "verbose&x"] {
            assert!(has_flag(Some(query), "verbose"), "{query}");
        }
        assert!(!has_flag(Some("verbosely&a=verbose"), "verbose"));
        assert!(!has_flag(None, "verbose"));
    }
}
