//! Why the server is not as it should be: worked out once, and told by every report in its own manner.

use std::time::Duration;

use super::upstreams::UpstreamsReport;
use super::{GateState, Snapshot, Status};
use crate::checks::{CheckReport, CheckState, PoolStatus};
#[cfg(feature = "events")]
use crate::patterns::EventStats;
use crate::units::show_rounded;

/// One thing that is not as it should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cause<'a> {
    /// It was told to stop.
    Stopping,
    /// Every worker is stuck.
    AllStuck,
    /// Requests have had no way to the workers for a while.
    CutOff,
    /// No endpoint of the service can be tried.
    NoEndpoint(&'a UpstreamsReport),
    /// Every request is refused until the reset, after so long.
    GateOpen(Duration),
    /// A data store that the service needs is down.
    CriticalDown(&'a CheckReport),
    /// One that it needs has not been checked yet.
    NotChecked(&'a CheckReport),
    /// Single requests show whether the service is well again.
    HalfOpen,
    /// Some workers are stuck.
    SomeStuck,
    /// Some endpoints of the service get no requests.
    EndpointsDown(&'a UpstreamsReport),
    /// A data store is down that the service can do without.
    StoreDown(&'a CheckReport),
    /// Every connection of a pool is lent out.
    PoolExhausted(&'a CheckReport, PoolStatus),
    /// Each replica counts by itself what they should count together.
    #[cfg(feature = "redis")]
    LimitsNotShared,
    /// Events cannot be written to the disk.
    #[cfg(feature = "events")]
    EventsNotStored,
    /// Events were given up, and wait for somebody to look at them.
    #[cfg(feature = "events")]
    DeadLetters(&'a EventStats),
}

/// All that is not as it should be, the gravest first.
pub(crate) fn causes(now: &Snapshot) -> Vec<Cause<'_>> {
    let in_state = |state, critical| {
        let checks = now.checks.iter();
        checks.filter(move |check| check.state == state && check.critical == critical)
    };
    let mut causes = Vec::new();
    if now.draining {
        causes.push(Cause::Stopping);
    }
    if now.are_all_stuck() {
        causes.push(Cause::AllStuck);
    }
    if now.is_cut_off() || now.is_intake_lost() {
        causes.push(Cause::CutOff);
    }
    let upstreams = now.upstreams.iter();
    causes.extend(upstreams.filter(|it| !it.ready).map(Cause::NoEndpoint));
    if let GateState::Open { reopens_in } = now.gate {
        causes.push(Cause::GateOpen(reopens_in));
    }
    causes.extend(in_state(CheckState::Down, true).map(Cause::CriticalDown));
    causes.extend(in_state(CheckState::NotYet, true).map(Cause::NotChecked));
    if now.gate == GateState::HalfOpen {
        causes.push(Cause::HalfOpen);
    }
    if now.workers_stuck > 0 && !now.are_all_stuck() {
        causes.push(Cause::SomeStuck);
    }
    let upstreams = now.upstreams.iter();
    let some_down = upstreams.filter(|it| it.ready && it.down() > 0);
    causes.extend(some_down.map(Cause::EndpointsDown));
    causes.extend(in_state(CheckState::Down, false).map(Cause::StoreDown));
    causes.extend(now.checks.iter().filter_map(|check| {
        let pool = check.pool.filter(PoolStatus::is_exhausted)?;
        Some(Cause::PoolExhausted(check, pool))
    }));
    #[cfg(feature = "redis")]
    if now.throttle_store.is_some_and(|store| !store.is_up) {
        causes.push(Cause::LimitsNotShared);
    }
    #[cfg(feature = "events")]
    if let Some(events) = &now.events {
        if events.failing {
            causes.push(Cause::EventsNotStored);
        }
        if events.dead_letters > 0 {
            causes.push(Cause::DeadLetters(events));
        }
    }
    causes
}

impl<'a> Cause<'a> {
    /// What the status of the service is by it: `Fail` where it wants no traffic.
    pub(crate) fn status(self) -> Status {
        match self {
            Self::Stopping
            | Self::AllStuck
            | Self::CutOff
            | Self::NoEndpoint(_)
            | Self::GateOpen(_)
            | Self::CriticalDown(_)
            | Self::NotChecked(_) => Status::Fail,
            Self::EndpointsDown(_) | Self::StoreDown(_) | Self::PoolExhausted(..) => Status::Warn,
            Self::HalfOpen | Self::SomeStuck => Status::Pass,
            #[cfg(feature = "redis")]
            Self::LimitsNotShared => Status::Warn,
            #[cfg(feature = "events")]
            Self::EventsNotStored | Self::DeadLetters(_) => Status::Warn,
        }
    }

    /// The part of the server, or the data store, that fails by it, as the readiness of parts calls it; `None` where none
    /// does.
    pub(crate) fn failed_part(self) -> Option<&'a str> {
        match self {
            Self::Stopping => Some("serving"),
            Self::AllStuck => Some("workers"),
            Self::CutOff => Some("intake"),
            Self::NoEndpoint(_) => Some("upstream"),
            Self::GateOpen(_) => Some("gate"),
            Self::CriticalDown(check) | Self::NotChecked(check) | Self::StoreDown(check) => {
                Some(&check.name)
            }
            Self::HalfOpen | Self::SomeStuck | Self::EndpointsDown(_) | Self::PoolExhausted(..) => {
                None
            }
            #[cfg(feature = "redis")]
            Self::LimitsNotShared => None,
            #[cfg(feature = "events")]
            Self::EventsNotStored | Self::DeadLetters(_) => None,
        }
    }

    /// Whether the process can't do its job by it.
    pub(crate) fn ends_liveness(self, now: &Snapshot) -> bool {
        match self {
            Self::AllStuck => true,
            Self::CutOff => now.is_intake_lost(),
            _ => false,
        }
    }

    /// A few words, the same as long as the cause is.
    pub(crate) fn words(self, now: &Snapshot) -> String {
        match self {
            Self::Stopping => "draining".into(),
            Self::AllStuck => "every worker is stuck".into(),
            Self::CutOff => "requests do not reach the workers".into(),
            Self::GateOpen(_) => "resetting".into(),
            Self::HalfOpen => "recovering".into(),
            Self::NoEndpoint(_) => "no endpoint can be tried".into(),
            Self::EndpointsDown(upstreams) => {
                let (down, all) = (upstreams.down(), upstreams.count());
                format!("{down} of {all} endpoints down")
            }
            Self::CriticalDown(check) | Self::StoreDown(check) => format!("{} is down", check.name),
            Self::NotChecked(check) => format!("{} is not checked yet", check.name),
            Self::SomeStuck => format!("{} of {} workers stuck", now.workers_stuck, now.workers),
            Self::PoolExhausted(check, _) => format!("the pool of {} is exhausted", check.name),
            #[cfg(feature = "redis")]
            Self::LimitsNotShared => "limits are not shared".into(),
            #[cfg(feature = "events")]
            Self::EventsNotStored => "events cannot be stored".into(),
            #[cfg(feature = "events")]
            Self::DeadLetters(events) => format!("dead letters: {}", events.dead_letters),
        }
    }

    /// Why the part fails, where its name is said already: of a data store, what its check has found.
    pub(crate) fn reason(self, now: &Snapshot) -> String {
        match self {
            Self::CriticalDown(check) | Self::StoreDown(check) => fault(check).into(),
            Self::NotChecked(_) => "not checked yet".into(),
            _ => self.words(now),
        }
    }

    /// A sentence for the operator.
    pub(crate) fn sentence(self, now: &Snapshot) -> String {
        let limit = show_rounded(now.threshold);
        match self {
            Self::Stopping => {
                "It was told to stop: it is not ready, and serves what still comes until its time is over.".into()
            }
            Self::CutOff => {
                "Requests do not reach the workers: the way to them is being made anew.".into()
            }
            Self::AllStuck => {
                "Every worker has been busy with one request for longer than the request timeout.".into()
            }
            Self::GateOpen(reopens_in) => {
                let why = match now.service_time {
                    Some(average) if average >= now.threshold => format!(
                        "The average service time has reached the threshold: {} of {limit}.",
                        show_rounded(average),
                    ),
                    _ => format!("No worker came free for much longer than the threshold of {limit}."),
                };
                let reset = show_rounded(reopens_in);
                format!("{why} Every request is refused; the averages start afresh in {reset}.")
            }
            Self::HalfOpen => {
                let seen = now.service_time.map_or_else(
                    || "none has ended yet".into(),
                    |average| format!("the last took {} on average", show_rounded(average)),
                );
                format!(
                    "After a reset, single requests show whether the service is well again: {seen}, the threshold is {limit}."
                )
            }
            Self::NoEndpoint(upstreams) => match upstreams.faults.first() {
                Some((source, error)) if upstreams.endpoints.is_empty() => {
                    format!("No endpoint of the service is known: {source} cannot be read: {error}.")
                }
                _ => upstreams.told(),
            },
            Self::EndpointsDown(upstreams) => format!("{} The others do the work.", upstreams.told()),
            Self::SomeStuck => {
                "Some workers have been busy with one request for longer than the request timeout.".into()
            }
            Self::CriticalDown(check) => format!(
                "The service can't do without {}, which has been down for {} s: {}.",
                check.name,
                check.state_for.as_secs(),
                fault(check)
            ),
            Self::StoreDown(check) => format!(
                "The service can do without {}, which has been down for {} s: {}.",
                check.name,
                check.state_for.as_secs(),
                fault(check)
            ),
            Self::NotChecked(check) => format!(
                "The service can't do without {}, and its first check has not ended.",
                check.name
            ),
            Self::PoolExhausted(check, pool) => format!(
                "All {} connections that the pool of {} may open are lent out.",
                pool.max, check.name
            ),
            #[cfg(feature = "redis")]
            Self::LimitsNotShared => {
                "The store in which limits are shared does not answer: each replica counts by itself.".into()
            }
            #[cfg(feature = "events")]
            Self::EventsNotStored => {
                "Events cannot be written to the disk: none is accepted before that works again.".into()
            }
            #[cfg(feature = "events")]
            Self::DeadLetters(events) => format!(
                "Dead letters: {}, the oldest for {}. plimsoll events list shows them.{}",
                events.dead_letters,
                show_rounded(events.oldest_dead.unwrap_or_default()),
                if events.dead_full {
                    " There is no room for more: what would die is tried again."
                } else {
                    ""
                }
            ),
        }
    }
}

/// What is wrong with a data store that is down, without an end.
fn fault(check: &CheckReport) -> &str {
    let error = check.error.as_deref();
    error
        .unwrap_or("no result for three intervals")
        .trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;
    #[cfg(feature = "redis")]
    use crate::patterns::ThrottleStoreStatus;
    use std::time::Instant;

    fn snapshot() -> Snapshot {
        Health::of_a_new_server(Instant::now()).snapshot()
    }

    #[test]
    fn a_server_that_is_well_has_no_causes() {
        let mut now = snapshot();
        now.checks = vec![
            CheckReport::sample("db", true, CheckState::Up),
            CheckReport::sample("cache", false, CheckState::NotYet),
        ];
        assert!(causes(&now).is_empty());
        assert_eq!(now.status(), Status::Pass);
    }

    #[cfg(feature = "events")]
    #[test]
    fn dead_letters_and_a_disk_that_fails_are_warnings() {
        let mut now = snapshot();
        let stats = EventStats {
            dead_letters: 3,
            oldest_dead: Some(Duration::from_secs(90)),
            ..EventStats::default()
        };
        now.events = Some(stats);
        assert_eq!(now.status(), Status::Warn);
        assert_eq!(
            causes(&now)[0].sentence(&now),
            "Dead letters: 3, the oldest for 90 s. plimsoll events list shows them."
        );
        now.events = Some(EventStats {
            failing: true,
            ..EventStats::default()
        });
        assert_eq!(now.status(), Status::Warn);
        assert_eq!(causes(&now)[0].words(&now), "events cannot be stored");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn limits_that_are_not_shared_are_a_warning() {
        let mut now = snapshot();
        let store = |is_up| ThrottleStoreStatus {
            is_up,
            unanswered: 3,
        };
        now.throttle_store = Some(store(true));
        assert_eq!(now.status(), Status::Pass);
        now.throttle_store = Some(store(false));
        assert_eq!(now.status(), Status::Warn);
        assert_eq!(causes(&now)[0].words(&now), "limits are not shared");
    }

    #[test]
    fn all_causes_are_told_the_gravest_first() {
        let mut now = snapshot();
        now.draining = true;
        now.gate = GateState::HalfOpen;
        now.workers_stuck = 1;
        now.intake_down = Some(Duration::from_secs(2));
        now.checks = vec![
            CheckReport::sample("cache", false, CheckState::Down),
            CheckReport::sample("search", true, CheckState::NotYet),
            CheckReport::sample("db", true, CheckState::Down),
        ];
        let words: Vec<_> = causes(&now).iter().map(|cause| cause.words(&now)).collect();
        let stuck = format!("1 of {} workers stuck", now.workers);
        assert_eq!(
            words,
            [
                "draining",
                "requests do not reach the workers",
                "db is down",
                "search is not checked yet",
                "recovering",
                &stuck,
                "cache is down",
            ]
        );
    }

    #[test]
    fn a_way_to_the_workers_that_is_lost_for_a_short_request_timeout_is_told_too() {
        let mut now = snapshot();
        now.request_timeout = Duration::from_millis(100);
        now.intake_down = Some(Duration::from_millis(200));
        assert!(!now.is_live() && !now.is_ready());
        let causes = causes(&now);
        assert_eq!(causes[0].failed_part(), Some("intake"));
    }
}
