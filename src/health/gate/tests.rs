use super::*;

const THRESHOLD: Duration = Duration::from_millis(100);
const COOLDOWN: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(5);
const SLOW: Duration = Duration::from_millis(200);

const IDLE: Occupancy = Occupancy {
    idle: true,
    last_start: None,
};

/// A gate, and the clock that it is driven by.
struct Scenario {
    gate: Gate,
    now: Instant,
    /// Trips that nobody has slept for yet.
    trips: Vec<Trip>,
}

impl Scenario {
    fn new(mode: GateMode) -> Self {
        Self::with_cooldown(mode, COOLDOWN)
    }

    fn with_cooldown(mode: GateMode, cooldown: Duration) -> Self {
        let now = Instant::now();
        let config = GateConfig {
            mode,
            threshold: THRESHOLD,
            cooldown,
        };
        let average = Arc::new(Ewma::new(30));
        let predictor = Arc::new(Ewma::new(PREDICTOR_AGE));
        Self {
            gate: Gate::new(config, average, predictor, now),
            now,
            trips: Vec::new(),
        }
    }

    /// A gate that has just become half open for the first time.
    fn half() -> Self {
        let mut scenario = Self::new(GateMode::Guarded);
        scenario.run(30, SLOW);
        scenario.sleep();
        assert_eq!(scenario.state(), GateState::HalfOpen);
        scenario
    }

    fn state(&self) -> GateState {
        self.gate.state(self.now)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn admit(&mut self, occupancy: Occupancy) -> Admitted {
        self.observe(occupancy);
        self.gate.admit(occupancy, self.now)
    }

    fn observe(&mut self, occupancy: Occupancy) {
        self.trips.extend(self.gate.observe(occupancy, self.now));
    }

    fn done(&mut self, epoch: u64, service: Duration) {
        self.trips.extend(self.gate.done(epoch, service, self.now));
    }

    /// Runs jobs one after the other, for as long as the gate lets them in.
    fn run(&mut self, jobs: u32, service: Duration) {
        for _ in 0..jobs {
            let Ok(Pass { epoch, .. }) = self.admit(IDLE) else {
                return;
            };
            self.pass(service);
            self.done(epoch, service);
        }
    }

    /// The reset thread's part: takes the signal, sleeps, resets.
    fn sleep(&mut self) -> Duration {
        let trip = self.trips.pop().expect("a trip");
        assert_eq!(self.trips, [], "one trip, one reset");
        self.pass(trip.cooldown);
        assert_eq!(self.gate.reset(IDLE, self.now), None);
        trip.cooldown
    }

    /// Every worker started a job at this time, and none has finished.
    fn all_busy_since(start: Instant) -> Occupancy {
        Occupancy {
            idle: false,
            last_start: Some(start),
        }
    }

    fn is_open(&self) -> bool {
        self.gate.is_open()
    }

    fn average(&self) -> Option<f64> {
        self.gate.average.value()
    }
}

type Admitted = Result<Pass, Duration>;

fn pass(epoch: u64) -> Pass {
    Pass {
        epoch,
        probe: false,
    }
}

fn probe(epoch: u64) -> Pass {
    Pass { epoch, probe: true }
}

fn refuse(seconds: u64) -> Admitted {
    Err(Duration::from_secs(seconds))
}

#[test]
fn guarded_trips_on_a_run_of_thirty_readings() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(29, SLOW);
    assert_eq!(scenario.state(), GateState::Closed);
    scenario.run(1, SLOW);
    let reopens_in = COOLDOWN;
    assert_eq!(scenario.state(), GateState::Open { reopens_in });
    assert_eq!(scenario.gate.since(), scenario.now);
    assert_eq!(scenario.gate.trips(), 1);
}

#[test]
fn a_reading_below_the_threshold_ends_the_run() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(29, THRESHOLD);
    scenario.run(1, QUICK);
    scenario.run(1, 2 * SLOW);
    scenario.run(28, THRESHOLD);
    assert_eq!(scenario.state(), GateState::Closed);
    assert!(scenario.average().unwrap() > THRESHOLD.as_secs_f64());
    scenario.run(2, THRESHOLD);
    assert!(scenario.is_open());
}

#[test]
fn one_slow_first_request_does_not_trip_a_guarded_gate() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(1, 10 * THRESHOLD);
    scenario.run(1_000, QUICK);
    assert_eq!(scenario.gate.trips(), 0);
}

#[test]
fn a_guarded_average_of_few_samples_is_their_mean() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(1, 4 * QUICK);
    scenario.run(3, QUICK);
    let mean = 7.0 * QUICK.as_secs_f64() / 4.0;
    assert!((scenario.average().unwrap() - mean).abs() < 1e-12);
}

#[test]
fn the_prediction_is_quick_at_first_and_slow_later() {
    let mut scenario = Scenario::new(GateMode::Literal);
    assert_eq!(scenario.gate.predicted(), None);
    scenario.run(1, 3 * QUICK);
    scenario.run(1, QUICK);
    let early = scenario.gate.predicted().unwrap();
    assert!(
        early.abs_diff(2 * QUICK) < Duration::from_nanos(2),
        "{early:?}"
    );
    scenario.run(2_000, QUICK);
    scenario.run(1, QUICK + Duration::from_millis(201));
    let late = scenario.gate.predicted().unwrap();
    let expected = QUICK + Duration::from_millis(2);
    assert!(
        late.abs_diff(expected) < Duration::from_micros(1),
        "{late:?}"
    );
}

#[test]
fn off_never_trips() {
    let mut scenario = Scenario::new(GateMode::Off);
    scenario.run(1_000, SLOW);
    let occupancy = Scenario::all_busy_since(scenario.now);
    scenario.pass(1_000 * THRESHOLD);
    assert_eq!(scenario.admit(occupancy), Ok(pass(0)));
    assert_eq!(scenario.trips, []);
    assert!(scenario.average().is_some());
}

#[test]
fn literal_takes_the_first_sample_for_the_average_and_trips_on_one_reading() {
    let mut scenario = Scenario::new(GateMode::Literal);
    scenario.run(1, THRESHOLD);
    assert!(scenario.is_open());
    assert_eq!(scenario.average(), Some(THRESHOLD.as_secs_f64()));

    let mut scenario = Scenario::new(GateMode::Literal);
    scenario.run(1, QUICK);
    scenario.run(1, THRESHOLD);
    let expected = 0.005 + 2.0 / 31.0 * (0.1 - 0.005);
    assert!((scenario.average().unwrap() - expected).abs() < 1e-12);
    assert_eq!(scenario.state(), GateState::Closed);
}

#[test]
fn literal_refuses_everything_for_the_same_cooldown_and_goes_straight_back() {
    let mut scenario = Scenario::new(GateMode::Literal);
    for trip in 1..=5 {
        scenario.run(1, SLOW);
        assert_eq!(scenario.gate.trips(), trip);
        assert_eq!(scenario.admit(IDLE), refuse(1));
        assert_eq!(scenario.sleep(), COOLDOWN);
        assert_eq!(scenario.gate.resets(), trip);
        assert_eq!(scenario.state(), GateState::Closed);
        assert_eq!(scenario.average(), None);
        assert_eq!(scenario.admit(IDLE), Ok(pass(trip)));
    }
}

#[test]
fn literal_counts_a_job_from_before_the_reset() {
    let mut scenario = Scenario::new(GateMode::Literal);
    scenario.run(1, SLOW);
    scenario.sleep();
    scenario.done(0, SLOW);
    assert_eq!(scenario.gate.trips(), 2);
}

#[test]
fn literal_knows_no_stall() {
    let mut scenario = Scenario::new(GateMode::Literal);
    let occupancy = Scenario::all_busy_since(scenario.now);
    scenario.pass(1_000 * THRESHOLD);
    assert_eq!(scenario.admit(occupancy), Ok(pass(0)));
}

#[test]
fn guarded_does_not_count_a_job_from_before_the_reset() {
    let mut scenario = Scenario::half();
    for _ in 0..100 {
        scenario.done(0, SLOW);
    }
    assert_eq!(scenario.state(), GateState::HalfOpen);
    assert_eq!(scenario.average(), None);
    assert_eq!(scenario.gate.predicted(), None);
}

#[test]
fn a_job_from_before_the_reset_does_not_free_the_probe() {
    let mut scenario = Scenario::half();
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
    scenario.done(0, QUICK);
    assert_eq!(scenario.admit(IDLE), refuse(1));
}

#[test]
fn a_trip_is_handed_over_exactly_once() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    for _ in 0..1_000 {
        scenario.done(0, SLOW);
    }
    let trip = Trip {
        cooldown: COOLDOWN,
        cause: TripCause::Average,
    };
    assert_eq!(scenario.trips, [trip]);
    assert_eq!(scenario.gate.trips(), 1);
}

#[test]
fn the_gate_stays_open_until_the_reset_thread_comes_even_when_it_is_late() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(30, SLOW);
    scenario.pass(60 * COOLDOWN);
    assert_eq!(scenario.admit(IDLE), refuse(1));
    assert!(scenario.is_open());
}

#[test]
fn a_reset_without_a_trip_is_ignored() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(3, QUICK);
    assert_eq!(scenario.gate.reset(IDLE, scenario.now), None);
    assert_eq!(scenario.state(), GateState::Closed);
    assert_eq!((scenario.gate.resets(), scenario.gate.epoch()), (0, 0));
    assert!(scenario.average().is_some());
}

/// Told the exact instant, all clients would come back at once.
#[test]
fn clients_refused_at_different_times_come_back_at_different_times() {
    let mut scenario = Scenario::with_cooldown(GateMode::Guarded, Duration::from_millis(1_500));
    scenario.run(30, SLOW);
    let opened = scenario.now;
    let mut returns = Vec::new();
    for _ in 0..15 {
        let Err(retry_after) = scenario.admit(IDLE) else {
            panic!("admitted while open")
        };
        assert_eq!(retry_after.subsec_nanos(), 0);
        let back = scenario.now + retry_after;
        assert!(back >= opened + Duration::from_millis(1_500));
        returns.push(back);
        scenario.pass(Duration::from_millis(100));
    }
    returns.sort();
    returns.dedup();
    assert!(returns.len() >= 10, "{} instants", returns.len());
}

#[test]
fn waits_are_rounded_up_to_whole_seconds() {
    for (milliseconds, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (9_999, 10)] {
        let wait = Duration::from_millis(milliseconds);
        assert_eq!(whole_seconds(wait), Duration::from_secs(seconds));
    }
}

#[test]
fn guarded_trips_when_every_worker_is_stuck() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    let occupancy = Scenario::all_busy_since(scenario.now);
    scenario.pass(3 * THRESHOLD);
    assert_eq!(scenario.admit(occupancy), Ok(pass(0)));
    scenario.pass(Duration::from_millis(1));
    assert_eq!(scenario.admit(occupancy), refuse(1));
    let trip = Trip {
        cooldown: COOLDOWN,
        cause: TripCause::Stalled,
    };
    assert_eq!(scenario.trips, [trip]);
}

#[test]
fn a_stall_is_noticed_without_traffic() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    let occupancy = Scenario::all_busy_since(scenario.now);
    scenario.pass(4 * THRESHOLD);
    scenario.observe(occupancy);
    assert!(scenario.is_open());

    let mut scenario = Scenario::half();
    assert!(scenario.admit(IDLE).is_ok());
    scenario.pass(4 * THRESHOLD);
    scenario.observe(IDLE);
    assert!(scenario.is_open());
}

#[test]
fn an_idle_worker_is_no_stall() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    let occupancy = Occupancy {
        idle: true,
        last_start: Some(scenario.now),
    };
    scenario.pass(1_000 * THRESHOLD);
    assert_eq!(scenario.admit(occupancy), Ok(pass(0)));
}

#[test]
fn a_stall_counts_from_the_closing_of_the_gate() {
    let mut scenario = Scenario::half();
    let occupancy = Scenario::all_busy_since(scenario.now);
    scenario.run(4, QUICK);
    scenario.run(1, 3 * THRESHOLD);
    assert_eq!(scenario.state(), GateState::Closed);
    scenario.pass(2 * THRESHOLD);
    assert_eq!(scenario.admit(occupancy), Ok(pass(1)));
    scenario.pass(2 * THRESHOLD);
    assert_eq!(scenario.admit(occupancy), refuse(2));
}

/// Half open with every worker stuck, a server would call itself ready and refuse every request.
#[test]
fn the_gate_stays_open_while_every_worker_is_stuck_and_recovers_once_one_is_not() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    let stuck = Scenario::all_busy_since(scenario.now);
    scenario.pass(4 * THRESHOLD);
    scenario.observe(stuck);
    let opened = scenario.gate.since();
    for _ in 0..5 {
        scenario.pass(COOLDOWN);
        let again = scenario.gate.reset(stuck, scenario.now);
        assert_eq!(again, Some(LOOK_AGAIN));
        assert_eq!(scenario.admit(IDLE), refuse(1));
        assert_eq!(scenario.gate.since(), opened);
        assert_eq!((scenario.gate.trips(), scenario.gate.resets()), (1, 0));
    }
    scenario.sleep();
    assert_eq!(scenario.state(), GateState::HalfOpen);
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
}

/// One request of 200 thresholds kept the average over the threshold for longer than a run.
#[test]
fn one_endless_request_among_quick_ones_does_not_trip_a_guarded_gate() {
    for before in [0, 5, 100] {
        for baseline in [QUICK, THRESHOLD * 8 / 10] {
            let mut scenario = Scenario::new(GateMode::Guarded);
            scenario.run(before, baseline);
            scenario.done(0, 200 * THRESHOLD);
            let reported = scenario.average().unwrap();
            assert!(reported > THRESHOLD.as_secs_f64(), "{reported}");
            scenario.run(1_000, baseline);
            assert_eq!(scenario.trips, [], "after {before} of {baseline:?}");
        }
    }
}

#[test]
fn a_service_whose_jobs_have_all_become_endless_still_trips_it() {
    let mut scenario = Scenario::new(GateMode::Guarded);
    scenario.run(1_000, QUICK);
    scenario.run(40, 200 * THRESHOLD);
    assert!(scenario.is_open());
}

#[test]
fn half_open_admits_one_probe_at_a_time() {
    let mut scenario = Scenario::half();
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
    assert_eq!(scenario.admit(IDLE), refuse(1));
    scenario.done(1, QUICK);
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
    assert_eq!(scenario.gate.probes(), 2);
}

#[test]
fn a_probe_goes_to_an_idle_worker_only() {
    let mut scenario = Scenario::half();
    let occupancy = Scenario::all_busy_since(scenario.now);
    // However long the workers stay with jobs from before the reset: they say nothing of the service as it is now.
    for _ in 0..10 {
        assert_eq!(scenario.admit(occupancy), refuse(1));
        scenario.pass(THRESHOLD);
    }
    assert_eq!(scenario.gate.probes(), 0);
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
}

#[test]
fn a_probe_that_never_starts_makes_way_for_the_next() {
    let mut scenario = Scenario::half();
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
    scenario.gate.abandon_probe(0);
    assert_eq!(scenario.admit(IDLE), refuse(1));
    scenario.gate.abandon_probe(1);
    assert_eq!(scenario.admit(IDLE), Ok(probe(1)));
}

#[test]
fn a_stuck_probe_trips_the_gate() {
    let mut scenario = Scenario::half();
    assert!(scenario.admit(IDLE).is_ok());
    scenario.pass(2 * THRESHOLD);
    assert_eq!(scenario.admit(IDLE), refuse(1));
    assert_eq!(scenario.state(), GateState::HalfOpen);
    scenario.pass(Duration::from_millis(1));
    assert_eq!(scenario.admit(IDLE), refuse(1));
    assert_eq!(scenario.gate.trips(), 2);
    // Its late answer is from before the next reset, and changes nothing.
    scenario.sleep();
    scenario.done(1, SLOW);
    assert_eq!(scenario.average(), None);
}

#[test]
fn probes_close_the_gate_or_trip_it() {
    for (probes, time, count, closes) in [
        ("quick", QUICK, 5, true),
        ("slow", THRESHOLD, 5, false),
        // They keep the gate half open, but not for ever.
        ("close to the threshold", THRESHOLD * 9 / 10, 30, true),
    ] {
        let mut scenario = Scenario::half();
        scenario.run(count - 1, time);
        assert_eq!(scenario.state(), GateState::HalfOpen, "{probes}");
        scenario.run(1, time);
        if closes {
            assert_eq!(scenario.state(), GateState::Closed, "{probes}");
            assert_eq!(scenario.admit(IDLE), Ok(pass(1)), "{probes}");
        } else {
            assert!(scenario.is_open(), "{probes}");
        }
    }
}

/// Goes from half open to closed, and trips again after `closed_for`.
fn relapse(scenario: &mut Scenario, closed_for: Duration) -> Duration {
    scenario.run(5, QUICK);
    assert_eq!(scenario.state(), GateState::Closed);
    scenario.pass(closed_for);
    let epoch = scenario.gate.epoch();
    while !scenario.is_open() {
        scenario.done(epoch, SLOW);
    }
    scenario.sleep()
}

#[test]
fn the_cooldown_grows_with_each_relapse_up_to_its_bound() {
    let mut scenario = Scenario::half();
    for seconds in [2, 4, 8, 8] {
        let cooldown = relapse(&mut scenario, Duration::from_secs(9));
        assert_eq!(cooldown, Duration::from_secs(seconds));
        assert_eq!(scenario.gate.cooldown(), cooldown);
    }
    assert_eq!(relapse(&mut scenario, RELAPSE), COOLDOWN);
}

#[test]
fn the_longest_cooldown_is_ten_seconds_but_never_less_than_the_configured_one() {
    for (configured, grown) in [(3, [6, 10, 10]), (20, [20, 20, 20])] {
        let configured = Duration::from_secs(configured);
        let mut scenario = Scenario::with_cooldown(GateMode::Guarded, configured);
        scenario.run(30, SLOW);
        assert_eq!(scenario.sleep(), configured);
        for seconds in grown {
            assert_eq!(relapse(&mut scenario, QUICK), Duration::from_secs(seconds));
        }
    }
}

#[test]
fn failed_probes_keep_the_cooldown_as_it_is() {
    let mut scenario = Scenario::half();
    for _ in 0..5 {
        scenario.run(5, SLOW);
        assert_eq!(scenario.sleep(), COOLDOWN);
    }
    relapse(&mut scenario, QUICK);
    for _ in 0..5 {
        scenario.pass(RELAPSE);
        scenario.run(5, SLOW);
        assert_eq!(scenario.sleep(), 2 * COOLDOWN);
    }
}
