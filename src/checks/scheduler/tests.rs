use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::checks::{CheckSettings, CheckState};

const PATIENCE: Duration = Duration::from_secs(30);

/// A check whose runs tell that they have begun, then wait until they are let go.
struct Held {
    check: MonitoredCheck,
    begun: Receiver<()>,
    /// Dropped, it lets all of them go.
    let_go: Sender<()>,
    runs: Arc<AtomicUsize>,
}

impl Held {
    fn new(name: &str) -> Self {
        let (begins, begun) = crossbeam_channel::unbounded();
        let (let_go, held) = crossbeam_channel::bounded(0);
        let runs = Arc::new(AtomicUsize::new(0));
        let count = runs.clone();
        let check = move |_: Instant| {
            count.fetch_add(1, Ordering::SeqCst);
            begins.send(()).expect("the test listens");
            let _ = held.recv();
            Ok(())
        };
        let settings = CheckSettings {
            interval: Duration::from_millis(1),
            timeout: Duration::from_secs(60 * 60),
            ..CheckSettings::default()
        };
        let mut random = Random::new(random::seed());
        let monitored = Monitored::new(name, settings, Instant::now(), &mut random);
        Self {
            check: MonitoredCheck {
                monitored: Arc::new(monitored),
                check: Arc::new(check),
            },
            begun,
            let_go,
            runs,
        }
    }

    #[track_caller]
    fn begins(&self) {
        self.begun.recv_timeout(PATIENCE).expect("it is run");
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[test]
fn a_check_that_stays_in_the_set_is_not_begun_anew_and_its_run_is_heard_of() {
    let mut threads = Threads::new();
    let sets = spawn_for_sets(8, &mut threads).expect("a thread");
    let stays = Held::new("stays");
    sets.send(vec![stays.check.clone()]).expect("it listens");
    stays.begins();
    for name in ["a", "b", "c"] {
        let new = Held::new(name);
        let set = vec![new.check.clone(), stays.check.clone()];
        sets.send(set).expect("it listens");
        // The set has been taken then.
        new.begins();
    }
    assert_eq!(stays.runs(), 1);
    let Held {
        check,
        begun,
        let_go,
        ..
    } = stays;
    drop(let_go);
    begun.recv_timeout(PATIENCE).expect("it is run again");
    assert_eq!(check.monitored.report(Instant::now()).state, CheckState::Up);
    threads.stop().join(Instant::now() + PATIENCE);
}

#[test]
fn the_run_of_a_check_that_is_gone_keeps_its_place_until_it_ends() {
    let mut threads = Threads::new();
    let sets = spawn_for_sets(1, &mut threads).expect("a thread");
    let [gone, skipped, last] = ["gone", "skipped", "last"].map(Held::new);
    sets.send(vec![gone.check.clone()]).expect("it listens");
    gone.begins();
    for held in [&skipped, &last] {
        sets.send(vec![held.check.clone()]).expect("it listens");
    }
    // The set before the one that waits to be taken has been taken.
    sets.send(vec![last.check.clone()]).expect("it listens");
    assert_eq!((gone.runs(), skipped.runs(), last.runs()), (1, 0, 0));
    drop(gone.let_go);
    last.begins();
    assert_eq!(skipped.runs(), 0);
    drop(last.let_go);
    threads.stop().join(Instant::now() + PATIENCE);
}

#[test]
fn a_check_that_comes_back_while_its_last_run_goes_on_is_run_again() {
    let mut threads = Threads::new();
    let sets = spawn_for_sets(1, &mut threads).expect("a thread");
    let back = Held::new("back");
    for set in [vec![back.check.clone()], vec![], vec![back.check.clone()]] {
        sets.send(set).expect("it listens");
        if back.runs() == 0 {
            back.begins();
        }
    }
    // The set before the one that waits to be taken has been taken.
    sets.send(vec![back.check.clone()]).expect("it listens");
    assert_eq!(back.runs(), 1);
    drop(back.let_go);
    back.begun.recv_timeout(PATIENCE).expect("it is run again");
    threads.stop().join(Instant::now() + PATIENCE);
}
