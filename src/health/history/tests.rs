use super::*;
use crate::health::histogram::Histogram;
use crate::health::{Health, ReplyOutcome};

/// A history whose clock, snapshot and response times a test moves by itself.
struct Scene {
    start: Instant,
    history: History,
    state: Snapshot,
    times: Histogram,
}

impl Scene {
    fn new() -> Self {
        let start = Instant::now();
        let health = Health::of_a_new_server(start);
        Self {
            start,
            history: History::new(start),
            state: health.snapshot(),
            times: Histogram::default(),
        }
    }

    fn at(&self, seconds: f64) -> Instant {
        self.start + Duration::from_secs_f64(seconds)
    }

    fn record(&mut self, seconds: f64) {
        let now = self.at(seconds);
        self.history.record(&self.state, &self.times.cells(), now);
    }

    fn all(&self) -> Vec<(u64, Sample)> {
        let samples = self.history.since_sample(None);
        samples.map(|(number, sample)| (number, *sample)).collect()
    }

    fn newest(&self) -> Sample {
        self.all().last().unwrap().1
    }
}

#[test]
fn a_sample_tells_of_its_own_second_alone() {
    let mut scene = Scene::new();
    scene.state.totals.served = 100;
    scene.state.totals.shed_gate = 7;
    scene.state.totals.shed_fair = 2;
    scene.times.add(Duration::from_millis(3));
    scene.state.connections = 40;
    scene.state.service_time = Some(Duration::from_millis(250));
    scene.state.response_time = Some(Duration::from_millis(500));
    scene.record(1.0);
    let first = scene.newest();
    assert_eq!((first.served, first.bad, first.failed), (100, 0, 0));
    assert_eq!((first.unavailable, first.overload), (7, 2));
    assert_eq!((first.connections, first.queue), (40, 0));
    assert_eq!(
        (first.service(), first.response()),
        (Some(250_000), Some(500_000))
    );
    assert_eq!(first.load, 25, "percent of a threshold of 1 s");
    let p50 = first.p50().unwrap();
    assert!((2_500..=3_250).contains(&p50), "{p50}");

    scene.state.totals.served = 130;
    scene.state.totals.failed = 1;
    scene.state.service_time = None;
    scene.record(2.0);
    let second = scene.newest();
    assert_eq!((second.served, second.failed), (30, 1));
    assert_eq!((second.unavailable, second.overload), (0, 0));
    assert_eq!(
        (second.p50(), second.p99(), second.service()),
        (None, None, None)
    );
}

#[test]
fn samples_stand_on_whole_seconds_however_late_each_is() {
    let mut scene = Scene::new();
    assert_eq!(scene.history.next_timeout(), scene.at(1.0));
    scene.record(0.99);
    assert!(scene.all().is_empty());
    for seconds in [1.4, 1.6, 2.3, 3.0, 3.999] {
        scene.record(seconds);
    }
    let numbers: Vec<_> = scene.all().iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2]);
    assert_eq!(scene.history.next_timeout(), scene.at(4.0));
}

#[test]
fn seconds_that_were_missed_are_gaps_and_their_counts_are_averaged() {
    let mut scene = Scene::new();
    scene.record(1.0);
    scene.state.totals.served = 400;
    scene.state.totals.failed = 1;
    scene.record(5.2);
    let gaps: Vec<_> = scene.all().iter().map(|(_, it)| it.is_gap()).collect();
    assert_eq!(gaps, [false, true, true, true, false]);
    assert_eq!(scene.newest().served, 100, "a second of four");
    assert_eq!(scene.newest().failed, 1, "one failure is not averaged away");
}

#[test]
fn the_ring_keeps_ten_minutes_in_the_memory_it_began_with() {
    let mut scene = Scene::new();
    let ring = scene.history.ring.as_ptr();
    for second in 1..=1500_u64 {
        scene.state.totals.served += second;
        scene.record(second as f64);
    }
    let all = scene.all();
    assert_eq!(all.len(), SAMPLES);
    for (index, (number, sample)) in all.iter().enumerate() {
        assert_eq!(*number, 900 + index as u64);
        assert_eq!(u64::from(sample.served), number + 1);
    }
    assert_eq!(scene.history.ring.as_ptr(), ring);
    assert!(size_of::<Sample>() * SAMPLES < 48 * 1024);
}

#[test]
fn a_delay_of_hours_leaves_nothing_but_gaps_and_the_sample() {
    let mut scene = Scene::new();
    for second in 1..=700 {
        scene.record(f64::from(second));
    }
    scene.record(50_000.0);
    let all = scene.all();
    assert_eq!(all.len(), SAMPLES);
    assert_eq!(all.last().unwrap().0, 49_999);
    let known: Vec<_> = all.iter().filter(|(_, it)| !it.is_gap()).collect();
    assert_eq!(known.len(), 1);
}

#[test]
fn only_newer_samples_than_a_number_are_given() {
    let mut scene = Scene::new();
    let numbers = |scene: &Scene, after| -> Vec<u64> {
        let samples = scene.history.since_sample(after);
        samples.map(|(number, _)| number).collect()
    };
    for second in 1..=5 {
        scene.record(f64::from(second));
    }
    assert_eq!(numbers(&scene, Some(2)), [3, 4]);
    assert_eq!(numbers(&scene, Some(4)), [0_u64; 0]);
    for strange in [5, 1_000_000, u64::MAX] {
        assert_eq!(numbers(&scene, Some(strange)), [0_u64; 0], "{strange}");
    }
    for second in 6..=800 {
        scene.record(f64::from(second));
    }
    assert_eq!(numbers(&scene, Some(2)).len(), SAMPLES);
}

#[test]
fn a_trip_shows_though_the_gate_had_closed_again_by_the_seconds_end() {
    let mut scene = Scene::new();
    scene.record(1.0);
    scene.state.trips = 1;
    scene.record(2.0);
    assert_eq!(scene.newest().gate(), 'o');
    scene.record(3.0);
    assert_eq!(scene.newest().gate(), 'c');
}

#[test]
fn it_knows_since_when_the_server_stands_as_it_does() {
    let mut scene = Scene::new();
    scene.record(1.0);
    let stand = |scene: &mut Scene, seconds: f64| {
        let now = scene.at(seconds);
        let recent = scene.history.recent(&scene.state.totals);
        let condition = Condition::of(&scene.state, recent);
        (condition, scene.history.enter(condition, &scene.state, now))
    };
    assert_eq!(stand(&mut scene, 1.5), (Condition::Healthy, scene.at(0.0)));
    // The gate tells when it opened, which was before anybody looked.
    scene.state.gate = GateState::Open {
        reopens_in: Duration::from_secs(3),
    };
    scene.state.gate_for = Duration::from_millis(700);
    scene.record(2.0);
    scene.state.gate_for = Duration::from_millis(1_200);
    assert_eq!(
        stand(&mut scene, 2.5),
        (Condition::Unhealthy, scene.at(1.3))
    );
    assert_eq!(scene.newest().condition, Some(Condition::Unhealthy));
    scene.state.draining = true;
    assert_eq!(
        stand(&mut scene, 2.75),
        (Condition::Draining, scene.at(2.75))
    );
    scene.record(3.0);
    assert_eq!(
        stand(&mut scene, 3.5),
        (Condition::Draining, scene.at(2.75))
    );
}

#[test]
fn it_counts_as_shedding_until_five_seconds_without_a_refusal() {
    let mut scene = Scene::new();
    scene.record(1.0);
    scene.state.totals.shed_deadline = 3;
    assert_eq!(scene.history.recent(&scene.state.totals).overload, 3);
    for second in 2..=6 {
        scene.record(f64::from(second));
        assert_eq!(scene.history.recent(&scene.state.totals).overload, 3);
    }
    assert_eq!(scene.newest().condition, Some(Condition::Shedding));
    scene.record(7.0);
    assert_eq!(scene.history.recent(&scene.state.totals).overload, 0);
    scene.record(8.0);
    assert_eq!(scene.newest().condition, Some(Condition::Healthy));
}

/// What is not counted by outcome must not be lost between the health's counts and the samples.
#[test]
fn samples_add_up_to_what_the_server_counted() {
    let start = Instant::now();
    let health = Health::of_a_new_server(start);
    for second in 1..=3 {
        for outcome in [
            ReplyOutcome::Served,
            ReplyOutcome::Bad,
            ReplyOutcome::Failed,
        ] {
            health.responded(Duration::from_millis(2));
            health.ended(outcome);
        }
        let due = health.sample(start + Duration::from_secs(second));
        assert_eq!(due, start + Duration::from_secs(second + 1));
    }
    let history = health.history();
    let samples: Vec<_> = history.since_sample(None).map(|(_, it)| *it).collect();
    assert_eq!(samples.len(), 3);
    for sample in samples {
        assert_eq!((sample.served, sample.bad, sample.failed), (1, 1, 1));
        assert!(sample.p99().is_some());
    }
}
