//! Stores behind an r2d2 pool: whether the store serves and whether connections are left are told apart.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant, SystemTime};

use crate::kit::process::{Process, TempDir, find};
use crate::kit::{NEVER, PATIENCE, Reserved, get, quiet, report, wait_until};
use plimsoll::{Check, CheckSettings, CheckState, PoolCheck, PoolStatus, Server, Status};
use r2d2::{ManageConnection, Pool};
use rusqlite::{Connection, OpenFlags};

/// How long a check waits for a connection that nobody gives back, but for the margin of a tenth of a second in which a
/// busy machine may take its time.
const TIMEOUT: Duration = Duration::from_secs(1);

fn critical() -> CheckSettings {
    CheckSettings {
        critical: true,
        interval: Duration::from_millis(20),
        timeout: TIMEOUT,
        fall: 1,
        rise: 1,
    }
}

/// A pool that is built whether its store is there or not, and does not keep a failing `get` for long.
fn pool<M: ManageConnection>(size: u32, manager: M) -> Pool<M> {
    Pool::builder()
        .max_size(size)
        .connection_timeout(Duration::from_millis(100))
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(manager)
}

/// Opens a database that is there already, and reads its schema to see that it is one.
#[derive(Clone)]
struct Sqlite(PathBuf);

impl ManageConnection for Sqlite {
    type Connection = Connection;
    type Error = rusqlite::Error;

    fn connect(&self) -> Result<Connection, rusqlite::Error> {
        let connection = Connection::open_with_flags(&self.0, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(connection)
    }

    fn is_valid(&self, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        connection.query_row("SELECT count(*) FROM sqlite_master", [], |_| Ok(()))
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

fn create_database(path: &Path) {
    let connection = Connection::open(path).expect("a new database");
    connection
        .execute_batch("CREATE TABLE things (name TEXT)")
        .expect("a table");
}

/// A server that watches the same store through its pool, and by a connection beside it.
fn watch<M: ManageConnection + Clone>(pool: &Pool<M>, manager: &M) -> Server {
    quiet(1)
        .check_with("pooled", critical(), pool.clone())
        .check_with(
            "beside",
            critical(),
            PoolCheck::new(pool.clone(), manager.clone()),
        )
        .start()
        .expect("a server")
}

#[track_caller]
fn wait_for(server: &Server, state: CheckState) {
    for name in ["pooled", "beside"] {
        wait_until(&format!("{name} {}", state.as_str()), || {
            report(server, name).state == state
        });
    }
}

fn ready(server: &Server) -> u16 {
    get(server.local_addr(), "/readyz").status
}

#[test]
fn an_exhausted_pool_is_a_warning_and_not_a_dead_store() {
    let directory = TempDir::new("pool");
    let manager = Sqlite(directory.path().join("db"));
    create_database(&manager.0);
    let pool = pool(2, manager.clone());
    let server = watch(&pool, &manager);
    wait_for(&server, CheckState::Up);
    wait_until("two idle connections", || {
        let expected = PoolStatus {
            used: 0,
            idle: 2,
            max: 2,
        };
        report(&server, "beside").pool == Some(expected)
    });
    assert_eq!(server.health().snapshot().status(), Status::Pass);

    let lent = [pool.get(), pool.get()].map(|lent| lent.expect("a connection"));
    for name in ["pooled", "beside"] {
        wait_until(&format!("{name} sees it"), || {
            report(&server, name)
                .pool
                .is_some_and(|pool| pool.is_exhausted())
        });
    }
    // Runs still succeed, and the status is a warning as long as they do.
    let before = SystemTime::now();
    for name in ["pooled", "beside"] {
        wait_until(&format!("{name} succeeds"), || {
            let report = report(&server, name);
            report.state == CheckState::Up && report.last_success > Some(before)
        });
    }
    wait_until("a warning", || {
        server.health().snapshot().status() == Status::Warn
    });
    wait_until("ready", || ready(&server) == 200);

    drop(lent);
    wait_until("a pass", || {
        server.health().snapshot().status() == Status::Pass
    });
}

#[test]
fn a_store_that_dies_behind_an_exhausted_pool_is_seen_by_the_connection_beside_it() {
    let directory = TempDir::new("pool");
    let manager = Sqlite(directory.path().join("db"));
    create_database(&manager.0);
    let whole = fs::read(&manager.0).expect("the database");
    let pool = pool(1, manager.clone());
    let check = PoolCheck::new(pool.clone(), manager.clone());
    let server = quiet(1)
        .check_with("beside", critical(), check)
        .start()
        .expect("a server");
    wait_until("up", || report(&server, "beside").state == CheckState::Up);
    let lent = pool.get().expect("a connection");

    fs::write(&manager.0, vec![b'x'; whole.len()]).expect("the file can be written");
    wait_until("down", || {
        report(&server, "beside").state == CheckState::Down
    });
    assert!(report(&server, "beside").error.is_some());
    assert_eq!(ready(&server), 503);
    fs::write(&manager.0, whole).expect("the file can be written");
    wait_until("up again", || {
        report(&server, "beside").state == CheckState::Up
    });
    assert_eq!(ready(&server), 200);
    drop(lent);
}

#[test]
fn a_server_starts_while_its_store_is_down_and_is_ready_when_it_comes_up() {
    let directory = TempDir::new("pool");
    let manager = Sqlite(directory.path().join("db"));
    let pool = pool(2, manager.clone());
    let server = watch(&pool, &manager);
    wait_for(&server, CheckState::Down);
    assert_eq!(ready(&server), 503);
    assert!(report(&server, "beside").error.is_some());
    create_database(&manager.0);
    wait_for(&server, CheckState::Up);
    assert_eq!(ready(&server), 200);
}

/// A store that counts who connects, and serves or not.
#[derive(Clone, Default)]
struct Counted(Arc<Counts>);

#[derive(Default)]
struct Counts {
    connects: AtomicUsize,
    refuses: AtomicBool,
    /// The connections up to this one are broken.
    broken: AtomicUsize,
    hides_breaks: AtomicBool,
}

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

impl ManageConnection for Counted {
    /// Its number, from 1.
    type Connection = usize;
    type Error = Refused;

    fn connect(&self) -> Result<usize, Refused> {
        let number = self.0.connects.fetch_add(1, SeqCst) + 1;
        if self.0.refuses.load(SeqCst) {
            return Err(Refused);
        }
        Ok(number)
    }

    fn is_valid(&self, number: &mut usize) -> Result<(), Refused> {
        if self.has_broken(number) && !self.0.hides_breaks.load(SeqCst) {
            return Err(Refused);
        }
        Ok(())
    }

    fn has_broken(&self, number: &mut usize) -> bool {
        *number <= self.0.broken.load(SeqCst)
    }
}

impl Counted {
    fn connects(&self) -> usize {
        self.0.connects.load(SeqCst)
    }

    /// Breaks every connection so far.
    fn break_all(&self) {
        self.0.broken.store(self.connects(), SeqCst);
    }
}

fn patiently(check: &impl Check) -> Result<(), String> {
    let result = check.check(Instant::now() + PATIENCE);
    result.map_err(|error| error.to_string())
}

#[test]
fn the_connection_beside_a_pool_is_kept_and_opened_again_when_it_breaks() {
    let manager = Counted::default();
    let check = PoolCheck::new(pool(1, Counted::default()), manager.clone());
    assert_eq!(manager.connects(), 0);
    for _ in 0..3 {
        assert_eq!(patiently(&check), Ok(()));
    }
    assert_eq!(manager.connects(), 1);

    // In the same run: the store has only been restarted.
    manager.break_all();
    assert_eq!(patiently(&check), Ok(()));
    assert_eq!(manager.connects(), 2);
    // Also where only the manager can tell.
    manager.0.hides_breaks.store(true, SeqCst);
    manager.break_all();
    assert_eq!(patiently(&check), Ok(()));
    assert_eq!(manager.connects(), 3);

    manager.break_all();
    manager.0.refuses.store(true, SeqCst);
    for _ in 0..2 {
        assert_eq!(patiently(&check), Err("refused".to_owned()));
    }
    assert_eq!(manager.connects(), 5);
    manager.0.refuses.store(false, SeqCst);
    assert_eq!(patiently(&check), Ok(()));
    assert_eq!(manager.connects(), 6);
}

#[test]
fn a_broken_connection_is_not_replaced_when_the_time_is_over() {
    let manager = Counted::default();
    let check = PoolCheck::new(pool(1, Counted::default()), manager.clone());
    assert_eq!(patiently(&check), Ok(()));
    manager.break_all();
    let error = check.check(Instant::now()).expect_err("it is broken");
    assert_eq!(error.to_string(), "refused");
    assert_eq!(manager.connects(), 1);
    assert_eq!(patiently(&check), Ok(()));
    assert_eq!(manager.connects(), 2);
}

#[test]
fn a_pool_is_waited_for_until_the_deadline_and_not_for_its_own_timeout() {
    let manager = Counted::default();
    manager.0.refuses.store(true, SeqCst);
    let pool = Pool::builder()
        .max_size(1)
        .connection_timeout(NEVER)
        .error_handler(Box::new(r2d2::NopErrorHandler))
        .build_unchecked(manager);
    let began = Instant::now();
    let error = pool
        .check(began + Duration::from_millis(50))
        .expect_err("it is refused");
    assert!(began.elapsed() < PATIENCE);
    assert!(error.to_string().starts_with("timed out"), "{error}");
    assert_eq!(
        pool.pool(),
        Some(PoolStatus {
            used: 0,
            idle: 0,
            max: 1
        })
    );
}

#[test]
fn redis_behind_a_pool_is_down_at_start_comes_up_dies_and_comes_back() {
    let Some(program) = find("redis-server", "redis-server") else {
        return;
    };
    let directory = TempDir::new("redis");
    let reserved = Reserved::new();
    let port = reserved.port().to_string();
    let start = || {
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let mut command = Command::new(&program);
        command
            .args(["--port", &port])
            .args(options)
            .arg("--dir")
            .arg(directory.path());
        Process::start(&mut command, directory.path())
    };
    let manager = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a good URL");
    let pool = pool(2, manager.clone());
    let server = watch(&pool, &manager);
    wait_for(&server, CheckState::Down);
    assert_eq!(ready(&server), 503);
    for _ in 0..2 {
        let redis = start();
        wait_for(&server, CheckState::Up);
        assert_eq!(ready(&server), 200);
        drop(redis);
        wait_for(&server, CheckState::Down);
        assert_eq!(ready(&server), 503);
    }
}
