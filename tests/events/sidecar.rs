//! `plimsoll --upstream URL --events PREFIX=DIR`: what is answered 202 reaches the service, whatever happens meanwhile.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::kit::process::TempDir;
use crate::kit::upstream::Asked;
use crate::kit::{Client, Plimsoll, Reply, Reserved, Serving, Upstream, get, wait_until};

pub(super) const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A sidecar that keeps what is sent to /events.
#[track_caller]
fn sidecar(upstream: SocketAddr, directory: &Path, options: &[&str]) -> Serving {
    let upstream = format!("http://{upstream}");
    let events = format!("/events={}", directory.join("queue").display());
    let own = ["--upstream", &upstream, "--events", &events];
    Serving::start(&[&own, options].concat())
}

/// Sends an event, with these lines in its head.
#[track_caller]
pub(super) fn post(address: SocketAddr, target: &str, lines: &str, body: &str) -> Reply {
    let mut client = Client::connect(address);
    let length = body.len();
    client.send(format!(
        "POST {target} HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: {length}\r\n{lines}\r\n{body}"
    ));
    client.reply()
}

/// The id in an answer of 202.
#[track_caller]
pub(super) fn id(reply: &Reply) -> String {
    assert_eq!(reply.status, 202, "{reply:?}");
    let text = reply.text().trim_end();
    let id = text
        .strip_prefix("{\"id\":\"")
        .and_then(|rest| rest.strip_suffix("\"}"));
    id.expect("an id").to_owned()
}

/// The number of the attempt that each request tells.
pub(super) fn attempts(asked: &[Asked]) -> Vec<String> {
    let attempts = asked
        .iter()
        .map(|asked| asked.fields("event-attempt").join("|"));
    attempts.collect()
}

/// Waits for that many requests to a service.
#[track_caller]
fn await_asked(upstream: &Upstream, count: usize) -> Vec<Asked> {
    wait_until("the events come", || upstream.asked().len() >= count);
    upstream.asked()
}

#[test]
fn an_event_is_answered_202_and_delivered_with_its_id_and_the_number_of_the_attempt() {
    let directory = TempDir::new("sidecar");
    let upstream = Upstream::answering(OK);
    let server = sidecar(upstream.address, directory.path(), &[]);
    let lines = "X-Own: 1\r\nEvent-Key: k\r\nEvent-Attempt: 9\r\nevent_attempt: 9\r\nIdempotency-Key: mine\r\n";
    let reply = post(server.address, "/events/orders?a=b", lines, "two\n");
    let id = id(&reply);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let asked = await_asked(&upstream, 1).remove(0);
    assert_eq!(asked.line(), "POST /events/orders?a=b HTTP/1.1");
    assert_eq!(asked.body, b"two\n");
    assert_eq!(asked.fields("idempotency-key"), [format!("\"{id}\"")]);
    for (name, value) in [
        ("host", "app"),
        ("x-own", "1"),
        ("event-key", "k"),
        ("event-attempt", "1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("content-length", "4"),
    ] {
        assert_eq!(asked.fields(name), [value], "{name}");
    }
    assert!(!asked.head.contains("event_attempt"), "{}", asked.head);

    for (name, value) in [
        ("accepted_total", 1),
        ("dead_total", 0),
        ("dead_letters", 0),
    ] {
        assert_eq!(
            server.metric(&format!("plimsoll_events_{name}"), ""),
            value,
            "{name}"
        );
    }
    wait_until("it is delivered", || {
        server.metric("plimsoll_events_delivered_total", "") == 1
    });

    // What is no POST, or elsewhere, is forwarded as ever.
    assert_eq!(get(server.address, "/events/orders").status, 200);
    assert_eq!(post(server.address, "/eventsource", "", "x").status, 200);
    assert_eq!(upstream.asked().len(), 3);
}

#[test]
fn events_that_come_while_the_service_is_down_are_delivered_when_it_is_back() {
    let directory = TempDir::new("sidecar");
    let port = Reserved::new();
    let mut server = sidecar(port.address, directory.path(), &[]);
    let mut ids: Vec<String> = (0..20)
        .map(|number| id(&post(server.address, "/events", "", &number.to_string())))
        .collect();
    // A sidecar that is killed has them still.
    server = {
        drop(server);
        sidecar(port.address, directory.path(), &[])
    };
    ids.push(id(&post(server.address, "/events", "", "last")));
    let upstream = Upstream::start_at(port.address, |_, stream| stream.write_all(OK));
    let asked = await_asked(&upstream, 21);
    assert_eq!(asked.len(), 21);
    for id in ids {
        let with_id = |asked: &&Asked| asked.fields("idempotency-key") == [format!("\"{id}\"")];
        let found: Vec<&Asked> = asked.iter().filter(with_id).collect();
        assert_eq!(found.len(), 1, "{id}");
        // That nobody was there was no attempt.
        assert_eq!(found[0].fields("event-attempt"), ["1"]);
    }
}

#[test]
fn events_are_taken_while_every_worker_waits_for_a_service_that_hangs() {
    let directory = TempDir::new("sidecar");
    let upstream = Upstream::hanging();
    let options = ["--workers", "1", "--queue-max", "1"];
    let server = sidecar(upstream.address, directory.path(), &options);
    let mut stuck: Vec<Client> = (0..4).map(|_| Client::connect(server.address)).collect();
    for client in &mut stuck {
        client.get("/");
    }
    wait_until("a worker waits", || !upstream.asked().is_empty());
    for _ in 0..10 {
        id(&post(server.address, "/events", "", "x"));
    }
}

#[test]
fn a_failed_delivery_is_repeated_and_one_that_is_refused_for_good_is_a_dead_letter_to_replay() {
    let directory = TempDir::new("sidecar");
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |asked, stream| {
        let status = match (&*asked.body, count.fetch_add(1, Ordering::SeqCst)) {
            (b"good", 0) => "500 Broken",
            (b"bad", 2) => "422 Bad",
            _ => "204 Done",
        };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")
    });
    let options = ["--events-retry", "10ms,1h"];
    let server = sidecar(upstream.address, directory.path(), &options);
    post(server.address, "/events", "", "good");
    assert_eq!(attempts(&await_asked(&upstream, 2)), ["1", "2"]);
    let bad = id(&post(server.address, "/events", "", "bad"));
    await_asked(&upstream, 3);

    // While the server runs.
    let queue = directory.path().join("queue");
    let queue = queue.to_str().expect("it is text");
    let events = |arguments: &[&str]| {
        let (status, output, errors) = Plimsoll::start(arguments, &[]).exit();
        assert!(status.success(), "{errors:?}");
        output
    };
    wait_until("it is a dead letter", || {
        events(&["events", "list", queue]).ends_with("  1  /events  the service answered 422\n")
    });
    events(&["events", "replay", queue, &bad]);
    let asked = await_asked(&upstream, 4);
    assert_eq!(attempts(&asked), ["1", "2", "1", "1"]);
    assert_eq!(asked[3].fields("idempotency-key"), [format!("\"{bad}\"")]);
}

#[test]
fn a_producer_that_repeats_its_key_gets_the_same_id_also_after_a_restart_and_another_body_422() {
    let directory = TempDir::new("sidecar");
    let upstream = Upstream::answering(OK);
    let mut server = sidecar(upstream.address, directory.path(), &[]);
    let first = id(&post(
        server.address,
        "/events",
        "Idempotency-Key: a\r\n",
        "one",
    ));
    await_asked(&upstream, 1);
    server = {
        drop(server);
        sidecar(upstream.address, directory.path(), &[])
    };
    // Quoted as the draft of the header has it, or bare.
    let again = post(
        server.address,
        "/events",
        "Idempotency-Key: \"a\"\r\n",
        "one",
    );
    assert_eq!(id(&again), first);
    let other = post(server.address, "/events", "Idempotency-Key: a\r\n", "two");
    assert_eq!(other.status, 422);
    let elsewhere = post(server.address, "/events/b", "Idempotency-Key: a\r\n", "two");
    let second = id(&elsewhere);
    assert_ne!(second, first);
    // What was delivered just before the kill may be delivered again.
    wait_until("both are delivered", || {
        let asked = upstream.asked();
        let ids = asked
            .iter()
            .map(|asked| asked.fields("idempotency-key").concat());
        let ids: HashSet<String> = ids.collect();
        ids == HashSet::from([format!("\"{first}\""), format!("\"{second}\"")])
    });
}

#[test]
fn a_full_queue_answers_507_and_loses_nothing() {
    let directory = TempDir::new("sidecar");
    let port = Reserved::new();
    let options = ["--events-max", "512KiB"];
    let server = sidecar(port.address, directory.path(), &options);
    let body = "x".repeat(8000);
    let mut taken = 0;
    let full = loop {
        let reply = post(server.address, "/events", "", &body);
        if reply.status != 202 {
            break reply;
        }
        taken += 1;
    };
    assert_eq!(full.status, 507, "{full:?}");
    assert!(
        full.header("retry-after").is_some() && taken >= 10,
        "{taken}"
    );
    let large = post(server.address, "/events", "", &"x".repeat(100_000));
    assert_eq!(large.status, 413);
    let upstream = Upstream::start_at(port.address, |_, stream| stream.write_all(OK));
    assert_eq!(await_asked(&upstream, taken).len(), taken);
    wait_until("events are taken again", || {
        post(server.address, "/events", "", &body).status == 202
    });
}

#[test]
fn a_disk_that_fails_answers_503_and_the_rest_of_the_server_goes_on() {
    let directory = TempDir::new("sidecar");
    let port = Reserved::new();
    let upstream = format!("http://{}", port.address);
    let events = format!("/events={}", directory.path().join("queue").display());
    // A file may have half the size of the queue's. Its signal, SIGXFSZ, would end the process.
    let limit = "ulimit -f 2048";
    let server = Serving::start_under(limit, &["--upstream", &upstream, "--events", &events]);
    let refused = post(server.address, "/events", "", "x");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(get(server.address, "/livez").status, 200);
    let upstream = Upstream::start_at(port.address, |_, stream| stream.write_all(OK));
    assert_eq!(get(server.address, "/").status, 200);
    assert_eq!(upstream.asked().len(), 1);
}

#[test]
fn a_prefix_on_or_above_an_own_path_and_events_without_a_service_are_refused_at_the_start() {
    let directory = TempDir::new("sidecar");
    let queue = directory.path().join("queue");
    let start = |prefix: &str, options: &[&str]| {
        let events = format!("{prefix}={}", queue.display());
        let own = ["--listen", "127.0.0.1:0", "--events", &events];
        let (status, _, errors) = Plimsoll::start(&[&own, options].concat(), &[]).exit();
        (status.code().expect("no signal ends it"), errors.join("\n"))
    };
    let upstream = ["--upstream", "http://127.0.0.1:9"];
    for prefix in ["/", "/health", "/readyz/"] {
        let (code, errors) = start(prefix, &upstream);
        assert_eq!(code, 1, "{errors}");
        assert!(
            errors.contains("events: expected a path that is not on or above"),
            "{errors}"
        );
    }
    let (code, errors) = start("/events", &[]);
    let expected = "plimsoll: --events: expected --upstream beside it, found none";
    assert_eq!((code, errors.as_str()), (2, expected));
}

/// Events of ten keys, to a service that fails one in ten.
fn keep_order(events: usize) {
    const KEYS: usize = 10;
    let directory = TempDir::new("sidecar");
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst) % 10 == 9 {
            return stream.write_all(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n");
        }
        stream.write_all(OK)
    });
    let retry = ["1ms"; 50].join(",");
    let options = ["--events-retry", &retry];
    let server = sidecar(upstream.address, directory.path(), &options);
    thread::scope(|scope| {
        for key in 0..KEYS {
            let address = server.address;
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for number in 0..events / KEYS {
                    let body = number.to_string();
                    let length = body.len();
                    client.send(format!(
                        "POST /events HTTP/1.1\r\nHost: app\r\nEvent-Key: {key}\r\nContent-Length: {length}\r\n\r\n{body}"
                    ));
                    id(&client.reply());
                }
            });
        }
    });
    // The last attempt of each is the one that was delivered.
    let mut delivered: HashMap<String, Vec<(usize, String)>> = HashMap::new();
    let whole = |delivered: &HashMap<String, Vec<(usize, String)>>| {
        delivered.values().map(Vec::len).sum::<usize>() == events
    };
    wait_until("all are delivered", || {
        delivered.clear();
        for asked in upstream.asked() {
            let key = asked.fields("event-key").concat();
            let id = asked.fields("idempotency-key").concat();
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            let number = body.parse().expect("a number");
            let of_key = delivered.entry(key).or_default();
            // Attempts at one event follow each other, or another came between them.
            if of_key.last().is_none_or(|(_, last)| *last != id) {
                of_key.push((number, id));
            }
        }
        whole(&delivered)
    });
    for (key, numbers) in delivered {
        let numbers = numbers.iter().map(|(number, _)| *number);
        assert!(numbers.eq(0..events / KEYS), "key {key}");
    }
}

#[test]
fn order_within_a_key_holds_while_the_service_fails_one_in_ten() {
    keep_order(500);
}

#[test]
#[ignore = "slow: make test-slow"]
fn order_within_a_key_holds_over_10_000_events() {
    keep_order(10_000);
}

#[test]
fn a_second_server_on_the_same_directory_ends_and_one_that_was_killed_is_followed() {
    let directory = TempDir::new("sidecar");
    let upstream = Upstream::answering(OK);
    let first = sidecar(upstream.address, directory.path(), &[]);
    let events = format!("/events={}", directory.path().join("queue").display());
    let upstream_url = format!("http://{}", upstream.address);
    let options = [
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        &upstream_url,
        "--events",
        &events,
    ];
    let (status, _, errors) = Plimsoll::start(&options, &[]).exit();
    assert_eq!(status.code(), Some(1), "{errors:?}");
    assert!(errors.concat().contains("is open elsewhere"), "{errors:?}");
    let kept = id(&post(first.address, "/events", "", "kept"));
    first.process.signal("-KILL");
    drop(first);
    let next = sidecar(upstream.address, directory.path(), &[]);
    id(&post(next.address, "/events", "", "next"));
    wait_until("both come", || {
        let asked = upstream.asked();
        let found = asked
            .iter()
            .any(|asked| asked.fields("idempotency-key") == [format!("\"{kept}\"")]);
        found && asked.len() >= 2
    });
}
