//! The condition of the server, in words, and why: what the status page says at its top.

use super::causes::{Cause, causes};
use super::{Snapshot, Status};
use crate::checks::CheckState;
use crate::units::show_rounded;

/// The condition of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
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
    pub(crate) overload: u64,
    /// ... in about so many seconds.
    pub(crate) seconds: u32,
}

impl Condition {
    /// Every condition, with the word and the letter for it.
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
        match Leading::of(now, recent) {
            Leading::Nothing => Self::Healthy,
            Leading::Crowd => Self::Shedding,
            Leading::Cause(cause) => match cause {
                Cause::SomeStuck
                | Cause::EndpointsDown(_)
                | Cause::StoreDown(_)
                | Cause::PoolExhausted(..) => Self::Warning,
                #[cfg(feature = "events")]
                Cause::EventsNotStored | Cause::DeadLetters(_) => Self::Warning,
                #[cfg(feature = "redis")]
                Cause::LimitsNotShared => Self::Warning,
                Cause::NotChecked(_) => Self::Starting,
                Cause::AllStuck
                | Cause::CutOff
                | Cause::NoEndpoint(_)
                | Cause::GateOpen(_)
                | Cause::CriticalDown(_) => Self::Unhealthy,
                Cause::HalfOpen => Self::Recovering,
                Cause::Stopping => Self::Draining,
            },
        }
    }

    pub(crate) fn word(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    pub(crate) fn letter(self) -> char {
        Self::ALL[self as usize].2
    }
}

/// What puts the server into its condition.
enum Leading<'a> {
    /// The gravest thing that is not as it should be.
    Cause(Cause<'a>),
    /// More traffic than it can serve: graver than what is but a warning.
    Crowd,
    Nothing,
}

impl<'a> Leading<'a> {
    fn of(now: &'a Snapshot, recent: Recent) -> Self {
        let gravest = causes(now).into_iter().next();
        let is_graver =
            |cause: &Cause<'_>| cause.status() == Status::Fail || matches!(cause, Cause::HalfOpen);
        match gravest {
            Some(cause) if recent.overload == 0 || is_graver(&cause) => Self::Cause(cause),
            _ if recent.overload > 0 => Self::Crowd,
            _ => Self::Nothing,
        }
    }
}

/// What follows the state's word: a few words, or none.
pub(crate) fn detail(now: &Snapshot, recent: Recent) -> String {
    let Leading::Cause(cause) = Leading::of(now, recent) else {
        return String::new();
    };
    match cause {
        Cause::Stopping => String::new(),
        Cause::GateOpen(reopens_in) => {
            // Rounded up, so that it does not say 0 before it is true.
            let seconds = reopens_in.as_millis().div_ceil(1000);
            format!("{}, reopens in {seconds} s", cause.words(now))
        }
        Cause::HalfOpen => "one request at a time".into(),
        Cause::CriticalDown(check) | Cause::StoreDown(check) => {
            let down = now.checks.iter();
            match down.filter(|check| check.state == CheckState::Down).count() {
                0 | 1 => cause.words(now),
                all => format!("{} and {} more are down", check.name, all - 1),
            }
        }
        _ => cause.words(now),
    }
}

/// Why the server is in that condition: a sentence for the operator.
pub(crate) fn why(now: &Snapshot, recent: Recent) -> String {
    match Leading::of(now, recent) {
        Leading::Cause(cause) => cause.sentence(now),
        Leading::Crowd => format!(
            "Too much traffic: {} requests refused in the last {} s, as they would not have reached a worker within {} or found the queue full.",
            recent.overload,
            recent.seconds,
            show_rounded(now.queue_budget),
        ),
        Leading::Nothing => "Requests are served within the limits.".into(),
    }
}

#[cfg(test)]
mod tests;
