//! Stores' checks against real data stores, where they are installed.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::kit::stores::{self, Service, failure, is_timeout};
use crate::kit::{PATIENCE, Reserved, quiet};
use plimsoll::{Check, Request, Store};

/// What no error may hold.
const SECRET: &str = "hunter2-/@%";

/// The same in a URL.
const ENCODED: &str = "hunter2-%2F%40%25";

/// A deadline for a store that hangs.
const SHORT: Duration = Duration::from_millis(200);

/// The life of a store: down at the start, up, hanging, up, dead, and back.
#[track_caller]
fn live(service: &mut Service, url: &str) {
    let store = service.store(url);
    let fails = |how: &str| {
        let error = failure(&store);
        assert!(error.contains(how), "expected {how}, found {error}");
        assert!(
            !error.contains(SECRET) && !error.contains(ENCODED),
            "{error}"
        );
    };
    fails("refused");
    service.serve(url);

    service.pause();
    let took = hangs(&store);
    assert!(took >= SHORT, "the deadline is used");
    service.resume();
    service.wait_until_up(&store);

    service.kill();
    fails("refused");
    service.serve(url);
}

/// Wants a store that says nothing to fail for the time that it takes, and that the deadline holds; returns how long it
/// took.
#[track_caller]
fn hangs(store: &Store) -> Duration {
    let began = Instant::now();
    let checked = store.check(began + SHORT);
    let took = began.elapsed();
    let error = checked.expect_err("it says nothing").to_string();
    assert!(is_timeout(&error), "{store}: {error}");
    assert!(took < PATIENCE, "{store}");
    took
}

/// Wants a running store to refuse this URL, and the error to tell why but not the password.
#[track_caller]
fn refuses(service: &Service, url: &str, why: &str) {
    let store = service.store(url);
    let error = failure(&store);
    assert!(error.contains(why), "expected {why}, found {error}");
    for shown in [error, store.to_string(), format!("{store:?}")] {
        assert!(
            !shown.contains(SECRET) && !shown.contains(ENCODED),
            "{shown}"
        );
        assert!(!shown.contains("wrong"), "{shown}");
    }
}

#[track_caller]
fn serves(service: &Service, url: &str) {
    let store = service.store(url);
    let served = store.check(Instant::now() + PATIENCE);
    assert_eq!(served, Ok(()), "{store}");
}

#[test]
fn redis_without_a_password() {
    let Some(mut redis) = stores::redis("") else {
        return;
    };
    live(&mut redis, "redis://HOST");
    serves(&redis, "redis://HOST/15");
    serves(&redis, "tcp://HOST");
    refuses(
        &redis,
        "redis://HOST/16",
        "SELECT: ERR DB index is out of range",
    );
    refuses(
        &redis,
        "redis://:wrong@HOST",
        "AUTH: ERR AUTH <password> called without any password",
    );
    refuses(
        &redis,
        "memcached://HOST",
        "version: expected VERSION, found \"-ERR unknown command",
    );
    // It takes an HTTP request for an attack.
    refuses(&redis, "http://HOST/", "the connection was closed");
}

#[test]
fn redis_with_passwords() {
    let lines = format!("requirepass \"{SECRET}\"\nuser watch on \">{SECRET}\" -@all +ping +auth");
    let Some(mut redis) = stores::redis(&lines) else {
        return;
    };
    live(&mut redis, &format!("redis://:{ENCODED}@HOST/1"));
    serves(&redis, &format!("redis://watch:{ENCODED}@HOST"));
    refuses(&redis, "redis://HOST", "PING: NOAUTH ");
    refuses(&redis, "redis://:wrong@HOST", "AUTH: WRONGPASS ");
    refuses(&redis, "redis://watch:wrong@HOST", "AUTH: WRONGPASS ");
    refuses(
        &redis,
        &format!("redis://watch:{ENCODED}@HOST/1"),
        "SELECT: NOPERM ",
    );
}

#[test]
fn a_redis_that_does_not_know_auth_does_not_make_the_password_known() {
    let Some(mut redis) = stores::redis("rename-command AUTH \"\"") else {
        return;
    };
    redis.serve("redis://HOST");
    refuses(&redis, &format!("redis://:{ENCODED}@HOST"), "AUTH: ERR");
}

#[test]
fn a_redis_replica_that_has_lost_its_master_does_not_serve() {
    let nobody = Reserved::new();
    let lines = format!(
        "replicaof 127.0.0.1 {}\nreplica-serve-stale-data no",
        nobody.port()
    );
    let Some(mut redis) = stores::redis(&lines) else {
        return;
    };
    redis.serve("tcp://HOST");
    refuses(&redis, "redis://HOST", "PING: MASTERDOWN ");
}

#[test]
fn memcached() {
    let Some(mut memcached) = stores::memcached() else {
        return;
    };
    live(&mut memcached, "memcached://HOST");
    refuses(
        &memcached,
        "redis://:wrong@HOST",
        "AUTH: expected +OK, found \"ERROR\"",
    );
}

#[test]
fn postgres() {
    let access = "\
        host all trusted 127.0.0.1/32 trust\n\
        host all plain 127.0.0.1/32 password\n\
        host all hashed 127.0.0.1/32 md5\n\
        host all salted 127.0.0.1/32 scram-sha-256\n";
    let commands = format!(
        "CREATE ROLE trusted LOGIN;\n\
         CREATE ROLE plain LOGIN PASSWORD '{SECRET}';\n\
         CREATE ROLE salted LOGIN PASSWORD '{SECRET}';\n\
         SET password_encryption = 'md5';\n\
         CREATE ROLE hashed LOGIN PASSWORD '{SECRET}';\n"
    );
    let Some(mut postgres) = stores::postgres(access, &commands) else {
        return;
    };
    live(
        &mut postgres,
        &format!("postgres://salted:{ENCODED}@HOST/postgres"),
    );
    refuses(
        &postgres,
        &format!("postgres://plain:{ENCODED}@HOST/postgres"),
        "the URL's option cleartext",
    );
    for (user, option) in [("plain", "?cleartext"), ("hashed", ""), ("salted", "")] {
        serves(
            &postgres,
            &format!("postgresql://{user}:{ENCODED}@HOST/postgres{option}"),
        );
        // It is up, and asks who is there.
        serves(&postgres, &format!("postgres://{user}@HOST/postgres"));
        let url = format!("postgres://{user}:wrong@HOST/postgres{option}");
        refuses(
            &postgres,
            &url,
            "FATAL 28P01: password authentication failed",
        );
        let url = format!("postgres://{user}:{ENCODED}@HOST/nowhere{option}");
        refuses(
            &postgres,
            &url,
            "FATAL 3D000: database \"nowhere\" does not exist",
        );
    }
    serves(&postgres, "postgres://trusted@HOST/postgres");
    serves(&postgres, "postgres://trusted:wrong@HOST/postgres");
    refuses(
        &postgres,
        "postgres://trusted@HOST",
        "3D000: database \"trusted\"",
    );
    refuses(
        &postgres,
        "postgres://stranger@HOST/postgres",
        "28000: no pg_hba.conf entry",
    );
}

#[test]
fn mariadb() {
    let commands = format!(
        "CREATE DATABASE IF NOT EXISTS shop;\n\
         CREATE OR REPLACE USER watch@'%' IDENTIFIED BY '{SECRET}';\n\
         CREATE OR REPLACE USER open@'%' IDENTIFIED BY '';\n\
         GRANT SELECT ON shop.* TO watch@'%';\n"
    );
    let Some(mut mariadb) = stores::mariadb(&commands) else {
        return;
    };
    live(&mut mariadb, &format!("mysql://watch:{ENCODED}@HOST/shop"));
    serves(&mariadb, &format!("mysql://watch:{ENCODED}@HOST"));
    serves(&mariadb, "mysql://open@HOST/");
    refuses(
        &mariadb,
        "mysql://watch:wrong@HOST",
        "1045 28000: Access denied",
    );
    refuses(&mariadb, "mysql://watch@HOST", "1045 28000: Access denied");
    refuses(
        &mariadb,
        "mysql://stranger:wrong@HOST",
        "28000: Access denied",
    );
    let url = format!("mysql://watch:{ENCODED}@HOST/nowhere");
    refuses(
        &mariadb,
        &url,
        "42000: Access denied for user 'watch'@'%' to database 'nowhere'",
    );
    // More runs than a server lets connections fail before it blocks the host.
    for _ in 0..150 {
        serves(&mariadb, &format!("mysql://watch:{ENCODED}@HOST/shop"));
    }
    refuses(
        &mariadb,
        "redis://:wrong@HOST",
        "AUTH: expected +OK, found \"",
    );
}

#[test]
fn http() {
    let server = quiet(1)
        .handler(|request: &mut Request| (if request.path() == "/sick" { 500 } else { 200 }, "x"))
        .start()
        .expect("it starts");
    let address = server.local_addr();
    let store = |path: &str| -> Store {
        format!("http://{address}{path}")
            .parse()
            .expect("a good URL")
    };
    let check = |path: &str| store(path).check(Instant::now() + PATIENCE);
    assert_eq!(check("/health"), Ok(()));
    assert_eq!(check("/?a=b"), Ok(()));
    assert!(failure(&store("/sick")).contains("found \"HTTP/1.1 500"));
    let nobody = Reserved::new();
    let store: Store = format!("http://{}/health", nobody.address)
        .parse()
        .expect("a good URL");
    assert!(failure(&store).contains("refused"));
}

#[test]
fn a_listener_that_never_accepts_does_not_stretch_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    for scheme in [
        "redis://:wrong@",
        "memcached://",
        "postgres://u:wrong@",
        "mysql://u:wrong@",
        "http://",
    ] {
        let store: Store = format!("{scheme}{address}").parse().expect("a good URL");
        hangs(&store);
    }
}
