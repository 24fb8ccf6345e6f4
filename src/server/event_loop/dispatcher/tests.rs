use super::*;
use std::net::Ipv4Addr;

const BUDGET: Duration = Duration::from_millis(50);
const TICK: Duration = Duration::from_millis(1);
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A dispatcher before two workers, with a queue of four.
struct Scenario {
    dispatcher: Dispatcher,
    jobs: Arc<Jobs>,
    now: Instant,
}

impl Scenario {
    fn new() -> Self {
        let now = Instant::now();
        let jobs = Arc::new(Jobs::default());
        let admission = Admission::new(BUDGET, 4, 2, false);
        Self {
            dispatcher: Dispatcher::new(admission, 2, jobs.clone(), now),
            jobs,
            now,
        }
    }

    fn job() -> Job {
        Job::Drop(Box::new(()))
    }

    fn occupancy(&self) -> Occupancy {
        Occupancy {
            idle: self.dispatcher.has_idle_worker(),
            last_start: Some(self.now),
        }
    }

    /// A request comes: it may wait, or why not.
    fn arrive(&mut self) -> Result<(), Shed> {
        let occupancy = self.occupancy();
        self.dispatcher
            .decide(PEER, occupancy, Some(TICK), self.now)?;
        self.dispatcher.submit(Self::job(), PEER, self.now);
        Ok(())
    }

    /// Hands over what there is room for; returns how much.
    fn hand_over(&mut self, predicted: Option<Duration>) -> usize {
        let mut handed = 0;
        while let Some(job) = self.dispatcher.next(predicted, self.now) {
            self.dispatcher.dispatch(job, self.now);
            handed += 1;
        }
        handed
    }

    /// What is announced comes through, and workers begin all of it; returns how much.
    fn begin(&mut self) -> usize {
        let (_, last) = self.dispatcher.announce();
        self.jobs.release(last);
        std::iter::from_fn(|| self.jobs.next()).count()
    }
}

/// Whoever came in the same turn as the end of a job was let past the whole queue.
#[test]
fn a_worker_that_falls_idle_belongs_to_what_waits() {
    let mut scenario = Scenario::new();
    for _ in 0..2 {
        scenario.arrive().unwrap();
    }
    assert_eq!(scenario.hand_over(None), 2);
    for _ in 0..4 {
        scenario.arrive().unwrap();
    }
    assert_eq!(scenario.arrive(), Err(Shed::Queue));
    assert_eq!(scenario.begin(), 2);
    scenario.dispatcher.done();
    assert!(!scenario.dispatcher.has_idle_worker());
    assert!(
        scenario
            .dispatcher
            .predicted_wait(scenario.occupancy(), Some(TICK), scenario.now)
            > Duration::ZERO
    );
    for _ in 0..60 {
        assert_eq!(scenario.arrive(), Err(Shed::Queue));
    }
    assert_eq!(scenario.dispatcher.waiting(), 4);
}

#[test]
fn short_jobs_are_handed_over_ahead_and_long_ones_one_for_each_worker() {
    for (predicted, handed) in [
        (None, 2),
        (Some(Duration::from_millis(20)), 2),
        (Some(Duration::from_millis(1)), 4),
        (Some(Duration::from_micros(5)), 2 + MOST_PREFETCHED),
    ] {
        let mut scenario = Scenario::new();
        for _ in 0..100 {
            scenario
                .dispatcher
                .submit(Scenario::job(), PEER, scenario.now);
        }
        assert_eq!(scenario.hand_over(predicted), handed, "{predicted:?}");
    }
}

#[test]
fn replies_and_new_requests_have_their_turns() {
    let mut scenario = Scenario::new();
    for _ in 0..3 {
        scenario
            .dispatcher
            .submit(Scenario::job(), PEER, scenario.now);
        scenario.dispatcher.submit_exempt(Scenario::job());
    }
    for left in [(3, 2), (2, 2), (2, 1), (1, 1), (1, 0), (0, 0)] {
        assert!(scenario.dispatcher.next(None, scenario.now).is_some());
        let dispatcher = &scenario.dispatcher;
        assert_eq!((dispatcher.waiting(), dispatcher.exempt.len()), left);
    }
    assert!(!scenario.dispatcher.has_backlog());
}

#[test]
fn a_job_begins_only_once_it_has_come_through() {
    let mut scenario = Scenario::new();
    for _ in 0..2 {
        scenario.arrive().unwrap();
    }
    scenario.hand_over(None);
    assert!(scenario.jobs.next().is_none());
    assert_eq!(scenario.dispatcher.announce(), (0, 2));
    assert_eq!(scenario.dispatcher.announce(), (2, 2));
    scenario.jobs.release(1);
    assert!(scenario.jobs.next().is_some());
    assert!(scenario.jobs.next().is_none());
    // Two workers may tell in another order than they were told.
    scenario.jobs.release(2);
    scenario.jobs.release(1);
    assert!(scenario.jobs.is_ready());
    assert_eq!(scenario.dispatcher.unbegun(), 1);
}

#[test]
fn what_was_lost_with_a_stream_is_announced_anew_and_something_shows_that_it_works() {
    let mut scenario = Scenario::new();
    for _ in 0..2 {
        scenario.arrive().unwrap();
    }
    scenario.hand_over(None);
    scenario.dispatcher.announce();
    scenario.jobs.release(1);
    assert!(scenario.jobs.next().is_some());
    scenario.dispatcher.broken();
    assert!(!scenario.dispatcher.has_idle_worker());
    assert_eq!(scenario.hand_over(None), 0);
    scenario.dispatcher.opened(scenario.now);
    assert!(!scenario.dispatcher.is_proven());
    scenario.dispatcher.done();
    assert_eq!(scenario.hand_over(None), 1);
    assert_eq!(scenario.dispatcher.announce(), (1, 3));
    scenario.jobs.release(3);
    assert!(scenario.jobs.next().is_some());
    assert!(scenario.dispatcher.is_proven());
    assert!(!scenario.dispatcher.is_proven(), "once");
}

#[test]
fn workers_that_make_no_progress_are_acted_upon_once_in_their_time() {
    let mut scenario = Scenario::new();
    scenario.now += BUDGET;
    assert!(!scenario.dispatcher.lacks_progress(scenario.now));
    scenario.arrive().unwrap();
    scenario.hand_over(None);
    assert!(!scenario.dispatcher.lacks_progress(scenario.now));
    let due = scenario.dispatcher.next_timeout(false).unwrap();
    assert_eq!(due, scenario.now + PROGRESS_WITHIN);
    assert!(scenario.dispatcher.next_timeout(true).unwrap() > due);
    assert!(scenario.dispatcher.lacks_progress(due));
    assert!(!scenario.dispatcher.lacks_progress(due));
    assert!(scenario.dispatcher.lacks_progress(due + PROGRESS_WITHIN));
    assert_eq!(scenario.begin(), 1);
    assert!(
        !scenario
            .dispatcher
            .lacks_progress(due + 2 * PROGRESS_WITHIN)
    );
    assert_eq!(scenario.dispatcher.next_timeout(false), None);
}

#[test]
fn what_is_left_at_the_end_is_a_workers_to_drop() {
    let mut scenario = Scenario::new();
    let dropped = Arc::new(());
    scenario
        .dispatcher
        .submit_exempt(Job::Drop(Box::new(dropped.clone())));
    scenario.dispatcher.leave(dropped.clone());
    assert_eq!(Arc::strong_count(&dropped), 3);
    drop(scenario.jobs.next().expect("it needs no announcement"));
    assert_eq!(Arc::strong_count(&dropped), 1);
}

/// A start that ran out of descriptors or threads leaves a stream that nobody reads.
#[test]
fn announcements_that_nobody_receives_are_lost_but_busy_workers_are_no_loss() {
    let mut scenario = Scenario::new();
    scenario.arrive().unwrap();
    scenario.hand_over(None);
    let mut lost_after = |in_vain: bool| {
        let mut looks = 0;
        while !scenario.dispatcher.is_lost(in_vain) && looks < 2 * LOST {
            scenario.now += PROGRESS_WITHIN;
            assert!(scenario.dispatcher.lacks_progress(scenario.now));
            looks += 1;
        }
        looks
    };
    assert_eq!(lost_after(false), 2 * LOST);
    assert_eq!(lost_after(true), LOST - 1);
    assert_eq!(scenario.begin(), 1);
    assert!(!scenario.dispatcher.lacks_progress(scenario.now));
    assert!(!scenario.dispatcher.is_lost(true));
}

/// With one more for each worker that waits no longer, another server would get all that comes.
#[test]
fn a_request_that_waits_for_another_server_keeps_its_place_and_no_worker() {
    let mut scenario = Scenario::new();
    for _ in 0..4 {
        scenario.arrive().unwrap();
    }
    assert_eq!(scenario.hand_over(None), 2);
    assert_eq!(scenario.begin(), 2);
    let mut places = Vec::new();
    for _ in 0..2 {
        scenario.dispatcher.done();
        places.push(scenario.dispatcher.place());
        assert_eq!(scenario.hand_over(Some(TICK)), 0);
    }
    let dispatcher = &scenario.dispatcher;
    assert_eq!((dispatcher.at_workers(), dispatcher.places()), (0, 2));
    assert!(!dispatcher.has_idle_worker());
    // What needs a worker gets one.
    scenario.dispatcher.submit_exempt(Scenario::job());
    assert_eq!(scenario.hand_over(Some(TICK)), 1);
    assert_eq!(scenario.begin(), 1);
    scenario.dispatcher.done();
    // Also when nobody waits any more, none goes ahead.
    places.clear();
    assert_eq!(scenario.hand_over(Some(TICK)), 2);
    assert_eq!(scenario.dispatcher.waiting(), 0);
    scenario.arrive().unwrap();
    assert_eq!(scenario.hand_over(Some(TICK)), 0);
}

/// Each of them may ask another server: all did at once.
#[test]
fn those_who_have_waited_for_others_go_on_one_for_each_place() {
    let mut scenario = Scenario::new();
    let clients = [0, 1, 2, 3].map(|slot| ClientKey {
        slot,
        generation: 0,
    });
    for client in clients {
        scenario.dispatcher.wake(client);
    }
    let mut places = Vec::new();
    for client in &clients[..2] {
        assert_eq!(scenario.dispatcher.next_woken(), Some(*client));
        places.push(scenario.dispatcher.place());
    }
    assert_eq!(scenario.dispatcher.next_woken(), None);
    assert!(scenario.dispatcher.has_backlog());
    places.pop();
    assert_eq!(scenario.dispatcher.next_woken(), Some(clients[2]));
    assert_eq!(scenario.dispatcher.next_woken(), Some(clients[3]));
    assert!(!scenario.dispatcher.has_backlog());
}
