//! Events in a stream of redis: several replicas, of which one may be killed, and a redis that comes and goes.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use plimsoll::patterns::{DeadLetters, EventId, EventSettings, EventStream, Outcome};

use super::event;
use super::sidecar::{OK, attempts, id, post};
use crate::kit::stores::{self, Service};
use crate::kit::{Client, Over, PATIENCE, Plimsoll, Reserved, Serving, Upstream, wait_until};

/// As durable as redis can be.
const DURABLE: &str = "appendonly yes\nappendfsync always";

/// Asks redis itself.
#[track_caller]
fn ask<T: redis::FromRedisValue>(service: &Service, words: &[&str]) -> T {
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", service.port()));
    let connection = client.and_then(|client| client.get_connection());
    let mut command = redis::cmd(words[0]);
    let reply = command
        .arg(&words[1..])
        .query(&mut connection.expect("it runs"));
    reply.expect("it knows this")
}

fn set_memory(service: &Service, bytes: &str) {
    ask::<()>(service, &["CONFIG", "SET", "maxmemory", bytes]);
}

/// Leaves redis no memory. It may be over the limit by any amount, as it needs some for its clients.
fn fill(service: &Service) {
    set_memory(service, "100kb");
}

fn url(service: &Service) -> String {
    format!("redis://127.0.0.1:{}/orders", service.port())
}

/// A replica that keeps what is sent to /events.
#[track_caller]
fn replica(service: &Service, upstream: SocketAddr, options: &[&str]) -> Serving {
    let upstream = format!("http://{upstream}");
    let events = format!("/events={}", url(service));
    let own = ["--upstream", &upstream, "--events", &events];
    Serving::start(&[&own, options].concat())
}

/// How often each event came to a service.
fn delivered(upstream: &Upstream) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for asked in upstream.asked() {
        let id = asked.fields("idempotency-key").concat();
        *counts.entry(id.trim_matches('"').to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn of_three_replicas_one_is_killed_and_every_accepted_event_is_delivered() {
    const PARALLEL: usize = 8;
    let Some(service) = stores::serving_redis(DURABLE) else {
        return;
    };
    let upstream = Upstream::start(|_, stream| {
        // So that the one that is killed has some on their way.
        thread::sleep(Duration::from_millis(5));
        stream.write_all(OK)
    });
    // Another takes over after twice that, and not because the machine is busy.
    let options = ["--request-timeout", "2s"];
    let mut replicas: Vec<Serving> = (0..3)
        .map(|_| replica(&service, upstream.address, &options))
        .collect();
    let accepted = Mutex::new(Vec::new());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for replica in &replicas {
            for _ in 0..3 {
                let (address, accepted, stop) = (replica.address, &accepted, &stop);
                scope.spawn(move || {
                    let mut client = Client::connect(address);
                    while !stop.load(Ordering::Relaxed) {
                        let request =
                            "POST /events HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\ntwo";
                        // One of them is killed.
                        let reply = client.try_send(request).and_then(|()| client.try_reply());
                        let Some(reply) = reply.ok().filter(|reply| reply.whole) else {
                            return;
                        };
                        accepted.lock().expect("no thread panics").push(id(&reply));
                    }
                });
            }
        }
        let _over = Over(&stop);
        let reached = |count| accepted.lock().expect("no thread panics").len() >= count;
        wait_until("events come", || reached(300));
        replicas[0].process.signal("-KILL");
        wait_until("events come still", || reached(900));
    });
    drop(replicas.remove(0));
    let accepted = accepted.into_inner().expect("no thread panics");
    wait_until("all are delivered", || {
        let delivered = delivered(&upstream);
        accepted.iter().all(|id| delivered.contains_key(id))
    });
    let again: usize = delivered(&upstream).values().map(|count| count - 1).sum();
    println!("{} accepted, {again} delivered again", accepted.len());
    // Those that it was delivering, and none of the others.
    assert!(again <= PARALLEL, "{again}");
}

#[test]
fn while_redis_is_down_events_are_refused_and_afterwards_it_has_those_that_were_accepted() {
    let Some(mut service) = stores::serving_redis(DURABLE) else {
        return;
    };
    let port = Reserved::new();
    // What redis could not be told of is taken over after twice that.
    let server = replica(&service, port.address, &["--request-timeout", "2s"]);
    let kept = id(&post(server.address, "/events", "", "kept"));
    service.kill();
    let refused = post(server.address, "/events", "", "x");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    service.serve("redis://HOST");
    let later = id(&post(server.address, "/events", "", "later"));
    let upstream = Upstream::start_at(port.address, |_, stream| stream.write_all(OK));
    wait_until("both are delivered", || {
        let delivered = delivered(&upstream);
        [&kept, &later].iter().all(|id| delivered.contains_key(*id))
    });
    // That nobody was there was no attempt, unless redis could not be told so.
    let attempts = attempts(&upstream.asked());
    assert!(
        attempts
            .iter()
            .all(|attempt| attempt == "1" || attempt == "2"),
        "{attempts:?}"
    );
}

#[test]
fn a_failed_delivery_is_repeated_and_one_that_is_refused_for_good_is_a_dead_letter_to_replay() {
    let Some(service) = stores::serving_redis(DURABLE) else {
        return;
    };
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |asked, stream| {
        let status = match (&*asked.body, count.fetch_add(1, Ordering::SeqCst)) {
            (b"good", 0) => "500 Broken",
            (b"bad", 2..4) => "422 Bad",
            _ => "204 Done",
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let server = replica(&service, upstream.address, &["--events-retry", "10ms,1h"]);
    post(server.address, "/events", "Event-Key: k\r\n", "good");
    wait_until("it is delivered", || upstream.asked().len() == 2);
    let bad = id(&post(server.address, "/events", "", "bad"));

    let url = url(&service);
    let events = |arguments: &[&str]| {
        let (status, output, errors) = Plimsoll::start(arguments, &[]).exit();
        assert!(status.success(), "{errors:?}");
        output
    };
    wait_until("it is a dead letter", || {
        events(&["events", "list", &url]).ends_with("  1  /events  the service answered 422\n")
    });
    assert!(events(&["events", "show", &url, &bad]).ends_with("\nbad\n"));
    events(&["events", "replay", &url, &bad]);
    wait_until("it is a dead letter again", || {
        upstream.asked().len() == 4 && !events(&["events", "list", &url]).is_empty()
    });
    events(&["events", "purge", &url, "--all"]);
    assert_eq!(events(&["events", "list", &url]), "");
    assert_eq!(attempts(&upstream.asked()), ["1", "2", "1", "1"]);
    let (status, _, errors) = Plimsoll::start(&["events", "list", &format!("{url}x")], &[]).exit();
    assert_eq!(status.code(), Some(1), "{errors:?}");
}

#[test]
fn a_redis_without_memory_answers_507_and_loses_nothing() {
    let Some(service) = stores::serving_redis("maxmemory 3mb\nmaxmemory-policy noeviction") else {
        return;
    };
    let port = Reserved::new();
    let server = replica(&service, port.address, &[]);
    let body = "x".repeat(50_000);
    let mut taken = Vec::new();
    let full = loop {
        let reply = post(server.address, "/events", "", &body);
        if reply.status != 202 {
            break reply;
        }
        taken.push(id(&reply));
    };
    assert_eq!(full.status, 507, "{full:?}");
    assert!(taken.len() > 5, "{}", taken.len());
    fill(&service);
    let upstream = Upstream::start_at(port.address, |_, stream| stream.write_all(OK));
    wait_until("all are delivered", || {
        let delivered = delivered(&upstream);
        taken.iter().all(|id| delivered.contains_key(id))
    });
    wait_until("nothing waits", || {
        server.metric("plimsoll_events_backlog", "") == 0
    });
    set_memory(&service, "3mb");
    wait_until("events are taken again", || {
        post(server.address, "/events", "", &body).status == 202
    });
}

fn open(service: &Service, settings: &EventSettings) -> EventStream {
    let url = url(service).parse().expect("a URL");
    EventStream::open(&url, settings.clone()).expect("threads start")
}

/// One delivery at a time, and what is not finished is taken over soon.
fn quick() -> EventSettings {
    let mut settings = EventSettings::default();
    settings.parallel = 1;
    settings.takeover = Duration::from_millis(300);
    settings
}

/// Delivers to a channel, and ends each delivery with the outcome that comes by another.
fn deliver_by_hand(stream: &EventStream) -> (Receiver<(EventId, u32)>, Sender<Outcome>) {
    let (sender, given) = channel();
    let (outcomes, outcome) = channel();
    let outcome = Mutex::new(outcome);
    stream
        .deliver(move |delivery| {
            // The test may be over.
            let _ = sender.send((delivery.id, delivery.attempt));
            let outcome = outcome.lock().expect("no thread panics").recv();
            outcome.unwrap_or(Outcome::Unreachable)
        })
        .expect("threads start");
    (given, outcomes)
}

fn rejected() -> Outcome {
    let reason = "no".to_owned();
    Outcome::Rejected { reason }
}

#[test]
fn an_event_that_its_replica_does_not_finish_is_taken_over_by_another() {
    let Some(service) = stores::serving_redis("") else {
        return;
    };
    let (first, second) = (open(&service, &quick()), open(&service, &quick()));
    let (given, _outcomes) = deliver_by_hand(&first);
    let id = first.publish(&event("one")).expect("it is taken");
    assert_eq!(given.recv_timeout(PATIENCE), Ok((id, 1)));
    let (taken, outcomes) = deliver_by_hand(&second);
    assert_eq!(taken.recv_timeout(PATIENCE), Ok((id, 2)));
    outcomes.send(Outcome::Delivered).expect("it waits");
    wait_until("none is left", || {
        second.stats().delivered == 1 && second.stats().backlog == 0
    });
}

#[test]
fn a_replica_that_is_late_leaves_an_event_to_the_one_that_took_it_over() {
    let Some(service) = stores::serving_redis("") else {
        return;
    };
    let failed = Outcome::Failed {
        reason: "no".to_owned(),
        retry_after: None,
    };
    for late in [rejected(), failed, Outcome::Unreachable] {
        let mut slow = quick();
        // So that the second one keeps it.
        slow.takeover = Duration::from_secs(3600);
        let (first, second) = (open(&service, &slow), open(&service, &quick()));
        let (given, late_outcomes) = deliver_by_hand(&first);
        let id = first.publish(&event("one")).expect("it is taken");
        assert_eq!(given.recv_timeout(PATIENCE), Ok((id, 1)));
        let (taken, outcomes) = deliver_by_hand(&second);
        assert_eq!(taken.recv_timeout(PATIENCE), Ok((id, 2)));
        let held = || {
            let words = ["XPENDING", "orders", "plimsoll", "-", "+", "9"];
            let held: Vec<(String, String, u64, u32)> = ask(&service, &words);
            let held = held.into_iter();
            held.map(|(place, replica, _, count)| (place, replica, count))
                .collect::<Vec<_>>()
        };
        let before = held();
        late_outcomes.send(late.clone()).expect("it waits");
        assert!(first.stop(Duration::from_secs(60)), "{late:?}");
        assert_eq!(held(), before, "{late:?}");
        assert_eq!(first.stats().dead, 0, "{late:?}");
        outcomes.send(Outcome::Delivered).expect("it waits");
        wait_until("none is left", || second.stats().backlog == 0);
        assert_eq!(second.dead_letters().expect("redis runs"), [], "{late:?}");
    }
}

#[test]
fn what_dies_while_redis_has_no_memory_is_said_to_wait_and_is_a_dead_letter_later() {
    let Some(service) = stores::serving_redis("maxmemory-policy noeviction") else {
        return;
    };
    let stream = open(&service, &quick());
    let id = stream.publish(&event("one")).expect("it is taken");
    // Whoever publishes has made the group of replicas: it could not be made any more.
    fill(&service);
    stream.deliver(|_| rejected()).expect("threads start");
    wait_until("it finds no room", || stream.stats().dead_full);
    assert!(!stream.stats().failing, "{:?}", stream.stats());
    set_memory(&service, "0");
    wait_until("it is a dead letter", || {
        let stats = stream.stats();
        stats.dead_letters == 1 && !stats.dead_full
    });
    let letter = stream.dead_letter(id).expect("it is there");
    assert_eq!(letter.event, event("one"));
}

#[test]
fn a_replica_that_starts_while_redis_has_no_memory_knows_how_much_there_is() {
    let Some(service) = stores::serving_redis("maxmemory-policy noeviction") else {
        return;
    };
    // There is no group of replicas yet, and none can be made.
    let _: String = ask(&service, &["XADD", "orders", "*", "some", "thing"]);
    fill(&service);
    let stream = open(&service, &quick());
    wait_until("it is measured", || stream.stats().backlog == 1);
}

#[test]
fn what_comes_to_a_replica_that_stops_is_given_back_untried() {
    let Some(service) = stores::serving_redis("") else {
        return;
    };
    let mut settings = quick();
    settings.takeover = Duration::from_secs(3600);
    let (first, second) = (open(&service, &settings), open(&service, &settings));
    let (sender, given) = channel();
    let to_first = sender.clone();
    first
        .deliver(move |delivery| {
            let _ = to_first.send(("first", delivery.attempt));
            Outcome::Delivered
        })
        .expect("threads start");
    wait_until("it waits for an event", || {
        let clients: String = ask(&service, &["CLIENT", "LIST"]);
        clients.contains(" flags=b ")
    });
    first.stop(Duration::ZERO);
    second.publish(&event("one")).expect("it is taken");
    assert!(first.stop(Duration::from_secs(60)));
    second
        .deliver(move |delivery| {
            let _ = sender.send(("second", delivery.attempt));
            Outcome::Delivered
        })
        .expect("threads start");
    assert_eq!(given.recv_timeout(PATIENCE), Ok(("second", 1)));
}

#[test]
fn no_error_of_a_redis_that_asks_for_a_password_shows_the_one_that_was_given() {
    let Some(mut service) = stores::redis("requirepass right") else {
        return;
    };
    service.serve("redis://:right@HOST");
    for login in [":hunter2", "someone:hunter2"] {
        let url = format!("redis://{login}@127.0.0.1:{}/orders", service.port());
        let stream = EventStream::open(&url.parse().expect("a URL"), quick());
        let stream = stream.expect("threads start");
        let error = stream.publish(&event("one")).expect_err("it may not");
        let shown = format!("{error} {error:?} {stream:?}");
        let (status, _, errors) = Plimsoll::start(&["events", "list", &url], &[]).exit();
        assert_eq!(status.code(), Some(1));
        assert!(!shown.contains("hunter2"), "{shown}");
        let errors = errors.concat();
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    // What nobody has published to is named without it, too.
    let url = format!("redis://:right@127.0.0.1:{}/nothing", service.port());
    let (status, _, errors) = Plimsoll::start(&["events", "list", &url], &[]).exit();
    assert_eq!(status.code(), Some(1));
    let errors = errors.concat();
    assert!(
        errors.contains("/nothing") && !errors.contains("right"),
        "{errors}"
    );
}

#[test]
fn what_others_write_to_the_stream_and_is_no_request_is_a_dead_letter_and_never_sent() {
    let Some(service) = stores::serving_redis("") else {
        return;
    };
    let upstream = Upstream::start(|_, stream| stream.write_all(OK));
    let server = replica(&service, upstream.address, &[]);
    for (id, topic, attributes) in [
        ("1", "/events HTTP/1.1\r\nX: y\r\n\r\nGET /admin", ""),
        (
            "2",
            "/events",
            "Content-Length: 0\r\n\r\nGET /admin HTTP/1.1\r\n",
        ),
    ] {
        let id = id.repeat(32);
        let words = ["XADD", "orders", "*", "id", &id, "accepted", "1"];
        let event = ["topic", topic, "attributes", attributes, "body", ""];
        let _: String = ask(&service, &[&words[..], &event].concat());
    }
    let good = id(&post(server.address, "/events", "", "good"));
    wait_until("they are dead letters", || {
        server.metric("plimsoll_events_dead_letters", "") == 2
    });
    wait_until("the good one is delivered", || {
        delivered(&upstream).contains_key(&good)
    });
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn a_long_list_of_dead_letters_is_read_once_and_then_each_by_its_place() {
    const LETTERS: usize = 320;
    let Some(service) = stores::serving_redis("") else {
        return;
    };
    for number in 0..LETTERS {
        let id = format!("{number:032x}");
        let words = ["XADD", "orders:dead", "*", "id", &id, "accepted", "1"];
        let event = ["topic", "/events", "attributes", "", "body", ""];
        let death = ["died", "2", "attempts", "1", "reason", "no"];
        let _: String = ask(&service, &[&words[..], &event, &death].concat());
    }
    let letters = DeadLetters::of(url(&service)).expect("there are some");
    let ids = letters.ids().expect("redis runs");
    assert_eq!(ids.len(), LETTERS);
    for id in ids {
        assert_eq!(letters.get(id).expect("it is there").id, id);
        letters.purge(id).expect("it is there");
    }
    assert_eq!(letters.ids().expect("redis runs"), []);
    let statistics: String = ask(&service, &["INFO", "commandstats"]);
    let reads = statistics
        .split_once("cmdstat_xrange:calls=")
        .and_then(|(_, rest)| rest.split_once(','))
        .map(|(calls, _)| calls.parse::<usize>().expect("a number"));
    // One for a page of the list, and two for each letter.
    assert!(reads.is_some_and(|reads| reads < 3 * LETTERS), "{reads:?}");
}

#[test]
fn a_redis_that_may_lose_what_it_has_accepted_is_said_at_the_start() {
    for (lines, said) in [
        ("", "appendonly is not yes"),
        ("appendonly yes", "appendfsync is not always"),
        (
            "maxmemory-policy allkeys-lru",
            "maxmemory-policy is allkeys-lru",
        ),
    ] {
        let Some(service) = stores::serving_redis(lines) else {
            return;
        };
        let nobody = Reserved::new();
        let server = replica(&service, nobody.address, &[]);
        wait_until(said, || server.process.logged(said) == 1);
    }
}
