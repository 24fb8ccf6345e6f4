//! How the server stands, in words, and why: what the status page says at its top.

use std::time::Duration;

use super::{GateState, Snapshot};
use crate::checks::{CheckReport, CheckState, PoolStatus};

/// How the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All is well.
    Healthy,
    /// It serves, and an operator should look.
    Warning,
    /// It serves what it can, and refuses the rest.
    Shedding,
    /// A critical data store has not been asked yet.
    Starting,
    /// It does not serve, or should get no traffic.
    Unhealthy,
    /// The gate is half-open.
    Recovering,
    /// It is stopping.
    Draining,
}

/// What has just been counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recent {
    /// Requests refused for want of a worker ...
    pub(crate) crowded_out: u64,
    /// ... in about so many seconds.
    pub(crate) seconds: u32,
}

impl Standing {
    /// Every standing, with the word and the letter for it.
    pub(crate) const ALL: [(Self, &'static str, char); 7] = [
        (Self::Healthy, "healthy", 'h'),
        (Self::Warning, "warning", 'w'),
        (Self::Shedding, "shedding", 's'),
        (Self::Starting, "starting", 't'),
        (Self::Unhealthy, "unhealthy", 'u'),
        (Self::Recovering, "recovering", 'r'),
        (Self::Draining, "draining", 'd'),
    ];

    pub(crate) fn of(now: &Snapshot, recent: Recent) -> Self {
        match Cause::of(now, recent) {
            Cause::Nothing => Self::Healthy,
            Cause::SomeStuck | Cause::StoreDown(_) | Cause::PoolExhausted(..) => Self::Warning,
            Cause::Crowd => Self::Shedding,
            Cause::NotAsked(_) => Self::Starting,
            Cause::AllStuck | Cause::CutOff | Cause::GateOpen(_) | Cause::CriticalDown(_) => {
                Self::Unhealthy
            }
            Cause::HalfOpen => Self::Recovering,
            Cause::Stopping => Self::Draining,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub(crate) fn letter(self) -> char {
        Self::ALL[self as usize].2
    }
}

/// What makes the server stand as it does: the gravest thing first.
#[derive(Debug)]
enum Cause<'a> {
    Stopping,
    AllStuck,
    /// Requests have had no way to the workers for a second.
    CutOff,
    GateOpen(Duration),
    CriticalDown(&'a CheckReport),
    NotAsked(&'a CheckReport),
    HalfOpen,
    Crowd,
    SomeStuck,
    StoreDown(&'a CheckReport),
    PoolExhausted(&'a CheckReport, PoolStatus),
    Nothing,
}

impl<'a> Cause<'a> {
    fn of(now: &'a Snapshot, recent: Recent) -> Self {
        let find = |critical: bool, state| {
            let mut checks = now.checks.iter();
            checks.find(|check| check.state == state && (check.critical || !critical))
        };
        let exhausted = now.checks.iter().find_map(|check| {
            let pool = check.pool.filter(PoolStatus::is_exhausted)?;
            Some((check, pool))
        });
        if now.draining {
            Self::Stopping
        } else if now.are_all_stuck() {
            Self::AllStuck
        } else if now.is_cut_off() {
            Self::CutOff
        } else if let GateState::Open { reopens_in } = now.gate {
            Self::GateOpen(reopens_in)
        } else if let Some(check) = find(true, CheckState::Down) {
            Self::CriticalDown(check)
        } else if let Some(check) = find(true, CheckState::NotYet) {
            Self::NotAsked(check)
        } else if now.gate == GateState::HalfOpen {
            Self::HalfOpen
        } else if recent.crowded_out > 0 {
            Self::Crowd
        } else if now.workers_stuck > 0 {
            Self::SomeStuck
        } else if let Some(check) = find(false, CheckState::Down) {
            Self::StoreDown(check)
        } else if let Some((check, pool)) = exhausted {
            Self::PoolExhausted(check, pool)
        } else {
            Self::Nothing
        }
    }
}

/// What follows the state's word: a few words, or none.
pub(crate) fn detail(now: &Snapshot, recent: Recent) -> String {
    match Cause::of(now, recent) {
        Cause::GateOpen(reopens_in) => {
            // Rounded up, so that it does not say 0 before it is true.
            let seconds = reopens_in.as_millis().div_ceil(1000);
            format!("resetting, reopens in {seconds} s")
        }
        Cause::AllStuck => "every worker is stuck".into(),
        Cause::CutOff => "requests do not reach the workers".into(),
        Cause::CriticalDown(check) | Cause::StoreDown(check) => {
            let down = now.checks.iter();
            match down.filter(|check| check.state == CheckState::Down).count() {
                0 | 1 => format!("{} is down", check.name),
                all => format!("{} and {} more are down", check.name, all - 1),
            }
        }
        Cause::NotAsked(check) => format!("{} was not asked yet", check.name),
        Cause::HalfOpen => "one request at a time".into(),
        Cause::SomeStuck => format!("{} of {} workers stuck", now.workers_stuck, now.workers),
        Cause::PoolExhausted(check, _) => format!("the pool of {} is exhausted", check.name),
        Cause::Stopping | Cause::Crowd | Cause::Nothing => String::new(),
    }
}

/// Why the server stands as it does: a sentence for the operator.
pub(crate) fn why(now: &Snapshot, recent: Recent) -> String {
    let threshold = now.threshold.as_secs_f64();
    let limit = duration(threshold);
    match Cause::of(now, recent) {
        Cause::Nothing => "Requests are served within the limits.".into(),
        Cause::Stopping => {
            "It was told to stop: it is not ready, and serves what still comes until its time is over.".into()
        }
        Cause::CutOff => {
            "Requests do not reach the workers: the way to them is being made anew.".into()
        }
        Cause::AllStuck => {
            "Every worker has been busy with one request for longer than the request timeout.".into()
        }
        Cause::GateOpen(_) => match now.service_time {
            Some(average) if average >= threshold => format!(
                "The average service time has reached the threshold: {} of {limit}. Every request is refused until the reset.",
                duration(average),
            ),
            _ => format!(
                "No worker came free for much longer than the threshold of {limit}. Every request is refused until the reset.",
            ),
        },
        Cause::HalfOpen => {
            let seen = now.service_time.map_or_else(
                || "none has ended yet".into(),
                |average| format!("the last took {} on average", duration(average)),
            );
            format!(
                "After a reset, single requests show whether the service is well again: {seen}, the threshold is {limit}."
            )
        }
        Cause::Crowd => format!(
            "Too much traffic: {} requests refused in the last {} s, as they would not have reached a worker within {} or found the queue full.",
            recent.crowded_out,
            recent.seconds,
            duration(now.queue_budget.as_secs_f64()),
        ),
        Cause::SomeStuck => {
            "Some workers have been busy with one request for longer than the request timeout.".into()
        }
        Cause::CriticalDown(check) => {
            format!("The service can't do without {}: {}.", check.name, fault(check))
        }
        Cause::NotAsked(check) => format!(
            "The service can't do without {}, and its first check has not ended.",
            check.name
        ),
        Cause::StoreDown(check) => format!(
            "The service can do without {}: {}.",
            check.name,
            fault(check)
        ),
        Cause::PoolExhausted(check, pool) => format!(
            "All {} connections that the pool of {} may open are lent out.",
            pool.max, check.name
        ),
    }
}

fn fault(check: &CheckReport) -> &str {
    let error = check
        .error
        .as_deref()
        .unwrap_or("not heard of for too long");
    error.trim_end_matches('.')
}

/// A time in seconds, in the unit that suits it, to three digits: `1.24 s`, `850 µs`.
pub(crate) fn duration(seconds: f64) -> String {
    let (value, unit) = if seconds >= 1.0 {
        (seconds, "s")
    } else if seconds >= 1e-3 {
        (seconds * 1e3, "ms")
    } else {
        (seconds * 1e6, "µs")
    };
    let decimals = match value {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let digits = format!("{value:.decimals$}");
    let digits = if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        &digits
    };
    format!("{digits} {unit}")
}

#[cfg(test)]
mod tests;
