//! HAProxy's agent-check: one line that says how the server is, and how much of its share of the traffic it can take.
//!
//! What a line does not mention stays as it was, and only the agent undoes what the agent did. So each line has the
//! whole state: `ready` or `drain` (the administrative state), `up` or `fail` (the operational one), and the weight.
//!
//! A reason begins with a sharp that begins a word. Written as `fail#reason`, HAProxy takes it for a word that it does
//! not know, and leaves the server up (seen with 2.6; its manual leaves the space open).

use super::parts::{self, Part};
use crate::health::{Snapshot, Status};

/// The weight goes in steps of so many percent: finer ones would move with every request.
const STEP: f64 = 10.0;

/// The longest reason: HAProxy shows it in its log and on its page.
const REASON: usize = 80;

/// The line, with its end.
pub(crate) fn line(now: &Snapshot) -> String {
    if now.draining {
        "drain up\n".into()
    } else if now.status() == Status::Fail {
        format!("ready fail #{}\n", reason(now))
    } else {
        format!("ready up {}%\n", weight(now.load()))
    }
}

/// The part of its traffic that the server can take, in percent: what is left below the load line, rounded up to a step
/// so that a server that is hardly loaded has its whole share. A server that is ready takes at least 1 %.
fn weight(load: f64) -> u8 {
    let left = ((1.0 - load).clamp(0.0, 1.0) * 100.0 / STEP).ceil() * STEP;
    // It is a whole number from 0 to 100; one that is no number becomes 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let left = left as u8;
    left.max(1)
}

/// The parts that fail, by name: one line of printable text.
fn reason(now: &Snapshot) -> String {
    let parts = parts::ready(now);
    let failed = parts.iter().filter(|part| part.fails());
    let names: Vec<&str> = failed.map(Part::name).collect();
    let text = format!("{} failed", names.join(" "));
    let plain = text.chars().map(|c| match c {
        ' '..='~' if c != '#' => c,
        _ => '?',
    });
    plain.take(REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::CheckReport;
    use crate::checks::CheckState;
    use crate::health::GateState;
    use crate::report::tests::snapshot;
    use std::time::Duration;

    #[test]
    fn each_line_has_the_whole_state() {
        let mut now = snapshot();
        assert_eq!(line(&now), "ready up 100%\n");
        now.service_time = Some(now.threshold.mul_f64(0.64));
        assert_eq!(line(&now), "ready up 40%\n");
        now.checks = vec![CheckReport::sample("db", true, CheckState::Down)];
        assert_eq!(line(&now), "ready fail #db failed\n");
        now.gate = GateState::Open {
            reopens_in: Duration::from_secs(1),
        };
        assert_eq!(line(&now), "ready fail #gate db failed\n");
        now.draining = true;
        assert_eq!(line(&now), "drain up\n");
    }

    #[test]
    fn a_store_that_is_not_critical_takes_nothing_away() {
        let mut now = snapshot();
        now.checks = vec![CheckReport::sample("cache", false, CheckState::Down)];
        assert_eq!(line(&now), "ready up 100%\n");
    }

    #[test]
    fn the_weight_is_what_is_left_in_steps_and_never_nothing() {
        for (load, expected) in [
            (0.0, 100),
            (0.05, 100),
            (0.099, 100),
            (0.11, 90),
            (0.5, 50),
            (0.55, 50),
            (0.95, 10),
            (1.0, 1),
            (7.0, 1),
            (f64::INFINITY, 1),
            (f64::NAN, 1),
            (-1.0, 100),
        ] {
            assert_eq!(weight(load), expected, "{load}");
        }
    }

    #[test]
    fn a_reason_is_one_short_line_whatever_a_store_is_called() {
        let mut now = snapshot();
        let names = ["a\nb", "c#d\r", "é", &"x".repeat(200)];
        now.checks = names
            .map(|name| CheckReport::sample(name, true, CheckState::Down))
            .into();
        let line = line(&now);
        assert!(line.starts_with("ready fail #a?b c?d? ? xxx"), "{line}");
        assert_eq!(line.find(['\n', '\r']), Some(line.len() - 1));
        assert!(line.len() < 100, "{line}");
    }
}
