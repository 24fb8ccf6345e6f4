//! Data stores that are watched: what a failure of one does to each health path, and that nothing a check does (hang,
//! panic, be slow) reaches a probe, another check, or the end of the server.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{Client, NEVER, PATIENCE, get, quiet, report, wait_until};
use plimsoll::{
    Check, CheckError, CheckSettings, CheckState, Config, PoolStatus, Server, Status, WatchedStore,
};

/// Runs that follow each other quickly, and of which one decides.
fn often() -> CheckSettings {
    CheckSettings {
        interval: Duration::from_millis(20),
        timeout: PATIENCE,
        fall: 1,
        rise: 1,
        ..CheckSettings::default()
    }
}

fn critical() -> CheckSettings {
    CheckSettings {
        critical: true,
        ..often()
    }
}

/// A store that serves or not, as the test says, and whose check may be held.
#[derive(Default)]
struct Fake {
    state: Mutex<FakeState>,
    changed: Condvar,
    /// Runs so far.
    runs: AtomicUsize,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

#[derive(Default)]
struct FakeState {
    broken: bool,
    held: bool,
}

impl Fake {
    fn held() -> Arc<Self> {
        let fake = Arc::new(Self::default());
        fake.set(|state| state.held = true);
        fake
    }

    fn set(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    fn release(&self) {
        self.set(|state| state.held = false);
    }

    fn runs(&self) -> usize {
        self.runs.load(SeqCst)
    }
}

/// The check of a fake store.
struct Ask(Arc<Fake>);

impl Check for Ask {
    fn check(&self, _: Instant) -> Result<(), CheckError> {
        let fake = &self.0;
        fake.runs.fetch_add(1, SeqCst);
        let running = fake.running.fetch_add(1, SeqCst) + 1;
        fake.most_running.fetch_max(running, SeqCst);
        let state = fake.state.lock().unwrap_or_else(PoisonError::into_inner);
        // Twice as patient as the tests, so that a test never sees it let go by itself.
        let state = fake
            .changed
            .wait_timeout_while(state, 2 * PATIENCE, |state| state.held);
        let (state, _) = state.unwrap_or_else(PoisonError::into_inner);
        fake.running.fetch_sub(1, SeqCst);
        if state.broken {
            return Err(CheckError::new("it is broken"));
        }
        Ok(())
    }
}

/// Lets go of held checks at the end of a test, whatever its outcome.
struct Release(Arc<Fake>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.release();
    }
}

fn state(server: &Server, name: &str) -> CheckState {
    report(server, name).state
}

#[track_caller]
fn wait_for(server: &Server, name: &str, wanted: CheckState) {
    wait_until(&format!("{name} {}", wanted.as_str()), || {
        state(server, name) == wanted
    });
}

/// The status codes of `/health`, `/readyz` and `/livez`.
fn codes(server: &Server) -> [u16; 3] {
    ["/health", "/readyz", "/livez"].map(|path| get(server.local_addr(), path).status)
}

#[test]
fn a_critical_store_keeps_the_server_unready_until_its_first_run_has_found_it_serving() {
    let fake = Fake::held();
    let release = Release(fake.clone());
    let server = quiet(1)
        .check_with("store", critical(), Ask(fake.clone()))
        .start()
        .expect("a server");
    assert_eq!(state(&server, "store"), CheckState::NotYet);
    assert_eq!(codes(&server), [503, 503, 200]);
    wait_until("the first run", || fake.runs() == 1);
    assert_eq!(state(&server, "store"), CheckState::NotYet);
    assert_eq!(codes(&server), [503, 503, 200]);
    drop(release);
    wait_for(&server, "store", CheckState::Up);
    assert_eq!(codes(&server), [200, 200, 200]);
}

#[test]
fn a_store_that_is_not_critical_keeps_nobody_waiting() {
    let fake = Fake::held();
    let _release = Release(fake.clone());
    let server = quiet(1)
        .check_with("store", often(), Ask(fake))
        .start()
        .expect("a server");
    assert_eq!(state(&server, "store"), CheckState::NotYet);
    assert_eq!(codes(&server), [200, 200, 200]);
    assert_eq!(server.health().snapshot().status(), Status::Pass);
}

#[test]
fn a_store_that_is_not_critical_warns_when_it_is_down() {
    let fake = Arc::new(Fake::default());
    let server = quiet(1)
        .check_with("store", often(), Ask(fake.clone()))
        .start()
        .expect("a server");
    wait_for(&server, "store", CheckState::Up);
    assert_eq!(server.health().snapshot().status(), Status::Pass);
    fake.set(|state| state.broken = true);
    wait_for(&server, "store", CheckState::Down);
    let down = report(&server, "store");
    assert_eq!(down.error.as_deref(), Some("it is broken"));
    assert!(down.last_success < down.last_run);
    assert_eq!(server.health().snapshot().status(), Status::Warn);
    assert_eq!(codes(&server), [200, 200, 200]);
    fake.set(|state| state.broken = false);
    wait_for(&server, "store", CheckState::Up);
    assert_eq!(server.health().snapshot().status(), Status::Pass);
}

#[test]
fn a_critical_store_that_is_down_makes_the_server_unready_until_it_is_back() {
    let fake = Arc::new(Fake::default());
    let server = quiet(1)
        .check_with("store", critical(), Ask(fake.clone()))
        .handler(|_: &mut plimsoll::Request| "served\n")
        .start()
        .expect("a server");
    wait_for(&server, "store", CheckState::Up);
    for _ in 0..2 {
        fake.set(|state| state.broken = true);
        wait_for(&server, "store", CheckState::Down);
        assert_eq!(codes(&server), [503, 503, 200]);
        assert_eq!(server.health().snapshot().status(), Status::Fail);
        // Requests are the handler's to judge: some need no store.
        assert_eq!(get(server.local_addr(), "/").text(), "served\n");
        fake.set(|state| state.broken = false);
        wait_for(&server, "store", CheckState::Up);
        assert_eq!(codes(&server), [200, 200, 200]);
    }
}

#[test]
fn a_check_that_hangs_delays_neither_probes_nor_other_checks_nor_the_end() {
    let hanging: Vec<_> = (0..6).map(|_| Fake::held()).collect();
    let _release: Vec<_> = hanging.iter().cloned().map(Release).collect();
    let good = Arc::new(Fake::default());
    let mut builder = quiet(1);
    for (number, fake) in hanging.iter().enumerate() {
        let settings = CheckSettings {
            timeout: Duration::from_millis(50),
            ..often()
        };
        builder = builder.check_with(format!("hangs-{number}"), settings, Ask(fake.clone()));
    }
    let server = builder
        .check_with("good", often(), Ask(good.clone()))
        .start()
        .expect("a server");
    for number in 0..hanging.len() {
        wait_for(&server, &format!("hangs-{number}"), CheckState::Down);
    }
    // All of them have given their places up, and go on.
    let seen = good.runs();
    wait_until("more runs of the good one", || good.runs() > seen + 5);
    assert_eq!(state(&server, "good"), CheckState::Up);
    wait_until("more failures", || {
        report(&server, "hangs-0").consecutive_failures > 3
    });
    for fake in &hanging {
        assert_eq!(fake.runs(), 1, "no second run before the first has ended");
    }
    let mut client = Client::connect(server.local_addr());
    for _ in 0..100 {
        assert_eq!(client.get("/health").reply().status, 200);
    }
    assert_eq!(codes(&server), [200, 200, 200]);

    server.shutdown(Duration::ZERO).expect("nothing was cut");
    for fake in &hanging {
        assert_eq!(fake.running.load(SeqCst), 1, "it still hangs");
    }
}

#[test]
fn a_check_that_hung_runs_again_once_it_has_ended() {
    let fake = Fake::held();
    let _release = Release(fake.clone());
    let settings = CheckSettings {
        timeout: Duration::from_millis(50),
        ..critical()
    };
    let server = quiet(1)
        .check_with("store", settings, Ask(fake.clone()))
        .start()
        .expect("a server");
    wait_for(&server, "store", CheckState::Down);
    fake.release();
    wait_for(&server, "store", CheckState::Up);
    assert!(fake.runs() > 1);
}

#[test]
fn nothing_runs_on_after_a_stop() {
    /// Says when the last of it is gone.
    struct Slow(Arc<AtomicBool>, Arc<Fake>);
    impl Check for Slow {
        fn check(&self, deadline: Instant) -> Result<(), CheckError> {
            Ask(self.1.clone()).check(deadline)
        }
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let gone = Arc::new(AtomicBool::new(false));
    let fake = Arc::new(Fake::default());
    let server = quiet(1)
        .check_with("slow", often(), Slow(gone.clone(), fake.clone()))
        .start()
        .expect("a server");
    wait_until("some runs", || fake.runs() > 3);
    server.shutdown(Duration::ZERO).expect("nothing was cut");
    assert_eq!(fake.running.load(SeqCst), 0);
    wait_until("the check is dropped", || gone.load(SeqCst));
}

#[test]
fn a_check_that_panics_has_failed_and_runs_again() {
    struct Panics(Arc<AtomicUsize>);
    impl Check for Panics {
        fn check(&self, _: Instant) -> Result<(), CheckError> {
            assert!(self.0.fetch_add(1, SeqCst) >= 3, "a panic on purpose");
            Ok(())
        }
    }
    struct PanicsOfPool;
    impl Check for PanicsOfPool {
        fn check(&self, _: Instant) -> Result<(), CheckError> {
            Ok(())
        }
        fn pool(&self) -> Option<PoolStatus> {
            panic!("a panic on purpose")
        }
    }
    let runs = Arc::new(AtomicUsize::new(0));
    let server = quiet(1)
        .check_with("panics", often(), Panics(runs.clone()))
        .check_with("pool", often(), PanicsOfPool)
        .start()
        .expect("a server");
    for name in ["panics", "pool"] {
        wait_for(&server, name, CheckState::Down);
        assert_eq!(
            report(&server, name).error.as_deref(),
            Some("the check panicked")
        );
    }
    wait_for(&server, "panics", CheckState::Up);
    assert!(runs.load(SeqCst) > 3);
}

#[test]
fn one_check_never_runs_twice_at_once_and_four_go_side_by_side() {
    let all = Arc::new(Fake::default());
    let mut builder = quiet(1);
    for number in 0..12 {
        builder = builder.check_with(format!("c{number}"), often(), Ask(all.clone()));
    }
    let alone = Arc::new(Fake::default());
    let quick = CheckSettings {
        interval: Duration::from_nanos(1),
        ..often()
    };
    let server = builder
        .check_with("alone", quick, Ask(alone.clone()))
        .start()
        .expect("a server");
    wait_until("runs", || alone.runs() > 200 && all.runs() > 50);
    all.set(|state| state.held = true);
    let _release = Release(all.clone());
    wait_until("all places are taken", || all.running.load(SeqCst) == 4);
    for _ in 0..100 {
        assert_eq!(get(server.local_addr(), "/health").status, 200);
    }
    assert_eq!(all.most_running.load(SeqCst), 4);
    assert_eq!(alone.most_running.load(SeqCst), 1);
}

#[test]
fn a_result_that_has_become_old_counts_as_failed() {
    let slow = Arc::new(Fake::default());
    let mut builder = quiet(1);
    for number in 0..4 {
        builder = builder.check_with(format!("slow-{number}"), often(), Ask(slow.clone()));
    }
    let good = Arc::new(Fake::default());
    let settings = CheckSettings {
        timeout: Duration::from_secs(1),
        ..critical()
    };
    let server = builder
        .check_with("good", settings, Ask(good.clone()))
        .start()
        .expect("a server");
    wait_for(&server, "good", CheckState::Up);
    // They take all the places, for as long as they may.
    slow.set(|state| state.held = true);
    let _release = Release(slow.clone());
    wait_until("it says that nothing was heard", || {
        let report = report(&server, "good");
        let old = |error: &Arc<str>| error.starts_with("no run has ended for ");
        report.state == CheckState::Down && report.error.as_ref().is_some_and(old)
    });
    assert_eq!(codes(&server), [503, 503, 200]);
    assert_eq!(report(&server, "good").consecutive_failures, 0);
    slow.release();
    wait_for(&server, "good", CheckState::Up);
    assert_eq!(codes(&server), [200, 200, 200]);
}

/// A server that takes itself for redis, and counts what it is asked.
struct FakeRedis {
    address: SocketAddr,
    commands: Arc<AtomicUsize>,
}

impl FakeRedis {
    /// Its threads end with their connections, and the last one with the test's process.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let commands = Arc::new(AtomicUsize::new(0));
        let count = commands.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                let mut reader = BufReader::new(stream.try_clone().expect("a descriptor"));
                let mut line = String::new();
                loop {
                    line.clear();
                    match reader.read_line(&mut line) {
                        Ok(0) => break,
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                        Err(error) => panic!("{error}"),
                    }
                    if line.trim_end().eq_ignore_ascii_case("PING") {
                        count.fetch_add(1, SeqCst);
                        stream.write_all(b"+PONG\r\n").expect("a write");
                    }
                }
            }
        });
        Self { address, commands }
    }

    fn watched(&self, settings: CheckSettings) -> Config {
        let store = format!("redis://{}", self.address);
        let store = WatchedStore {
            name: "cache".to_owned(),
            store: store.parse().expect("a good URL"),
            settings,
        };
        Config {
            listen: vec!["127.0.0.1:0".to_owned()],
            checks: vec![store],
            ..Config::default()
        }
    }
}

#[test]
fn probes_do_not_reach_the_store() {
    let redis = FakeRedis::start();
    let settings = CheckSettings {
        critical: true,
        interval: NEVER,
        ..CheckSettings::default()
    };
    let server = Server::builder()
        .config(redis.watched(settings))
        .start()
        .expect("a server");
    wait_for(&server, "cache", CheckState::Up);
    assert_eq!(redis.commands.load(SeqCst), 1);
    let mut client = Client::connect(server.local_addr());
    for _ in 0..50 {
        for path in ["/health", "/readyz", "/readyz?verbose", "/metrics"] {
            assert_eq!(client.get(path).reply().status, 200, "{path}");
        }
    }
    assert_eq!(redis.commands.load(SeqCst), 1);
}

#[test]
fn stores_are_asked_again_and_again() {
    let redis = FakeRedis::start();
    let server = Server::builder()
        .config(redis.watched(often()))
        .start()
        .expect("a server");
    wait_until("five commands", || redis.commands.load(SeqCst) >= 5);
    assert_eq!(state(&server, "cache"), CheckState::Up);
}

#[test]
fn an_exhausted_pool_is_a_warning() {
    struct Pooled(Arc<AtomicUsize>);
    impl Check for Pooled {
        fn check(&self, _: Instant) -> Result<(), CheckError> {
            Ok(())
        }
        fn pool(&self) -> Option<PoolStatus> {
            let used = u32::try_from(self.0.load(SeqCst)).expect("a small number");
            let (max, idle) = (4, 4 - used);
            Some(PoolStatus { used, idle, max })
        }
    }
    let used = Arc::new(AtomicUsize::new(3));
    let server = quiet(1)
        .check_with("db", critical(), Pooled(used.clone()))
        .start()
        .expect("a server");
    wait_for(&server, "db", CheckState::Up);
    assert_eq!(server.health().snapshot().status(), Status::Pass);
    for (count, status) in [(4, Status::Warn), (2, Status::Pass)] {
        used.store(count, SeqCst);
        wait_until("the status follows", || {
            server.health().snapshot().status() == status
        });
        assert_eq!(state(&server, "db"), CheckState::Up);
        assert_eq!(codes(&server), [200, 200, 200]);
    }
}

#[test]
fn checks_of_the_builder_and_of_the_configuration_share_names_and_order() {
    let redis = FakeRedis::start();
    let config = redis.watched(often());
    let fake = Arc::new(Fake::default());
    let server = Server::builder()
        .config(config.clone())
        .check("zebra", Ask(fake.clone()))
        .check("ant", Ask(fake.clone()))
        .start()
        .expect("a server");
    let snapshot = server.health().snapshot();
    let names: Vec<_> = snapshot.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["cache", "zebra", "ant"]);

    let twice = Server::builder()
        .config(config)
        .check("cache", Ask(fake.clone()))
        .start();
    assert_eq!(
        twice.expect_err("the name is taken").to_string(),
        "check: expected a name of its own, up to 64 letters, digits, - and _, found \"cache\" twice",
    );
    let mut builder = quiet(1);
    for number in 0..65 {
        builder = builder.check(format!("c{number}"), Ask(fake.clone()));
    }
    assert_eq!(
        builder.start().expect_err("too many").to_string(),
        "check: expected a number of checks from 0 to 64, found 65",
    );
}
