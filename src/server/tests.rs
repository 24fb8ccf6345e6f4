use super::event_loop::intake::carried_number;
use super::exchange::lock;
use super::*;
use std::io::{Read, Write};
use std::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);

fn send(address: SocketAddr, target: &str) -> TcpStream {
    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn reply(mut client: TcpStream) -> String {
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    reply
}

fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::yield_now();
    }
}

/// What is on its way when the stream breaks is served through the next one.
#[test]
fn a_broken_stream_is_made_anew_and_loses_nothing() {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .queue_budget(PATIENCE)
        .handler(move |request: &mut crate::Request| {
            if request.path() == "/wait" {
                let _ = released.recv();
            }
            "served"
        })
        .start()
        .unwrap();
    let address = server.local_addr();
    // A quick job first: then requests are handed over ahead of idle workers.
    assert!(reply(send(address, "/")).ends_with("served"));
    let held: Vec<_> = (0..2).map(|_| send(address, "/wait")).collect();
    await_that("both workers busy", || {
        server.health().snapshot().workers_busy == 2
    });
    let on_the_way: Vec<_> = (0..4).map(|_| send(address, "/")).collect();
    await_that("all wait for a worker", || {
        let now = server.health().snapshot();
        now.in_flight + now.queue == 6
    });

    let running = server.running.as_ref().unwrap();
    running.shared.event_loop.send(Message::BreakStream);
    await_that("it is seen to be broken", || {
        server.health().snapshot().totals.stream_failures == 1
    });
    drop(release);
    for client in held.into_iter().chain(on_the_way) {
        assert!(reply(client).ends_with("served"));
    }
    assert!(reply(send(address, "/")).ends_with("served"));
    await_that("it is known to be whole", || {
        server.health().snapshot().intake_down.is_none()
    });
    assert_eq!(server.health().snapshot().totals.stream_failures, 1);
    server.shutdown(PATIENCE).unwrap();
}

/// Without a client of its own that anybody waits for: whoever asks `/readyz` would keep all traffic away.
#[test]
fn a_stream_that_was_made_anew_is_known_to_be_whole_without_traffic() {
    let server = Server::builder().listen("127.0.0.1:0").start().unwrap();
    let running = server.running.as_ref().unwrap();
    for failures in 1..=3 {
        running.shared.event_loop.send(Message::BreakStream);
        await_that("it is made anew", || {
            let now = server.health().snapshot();
            now.totals.stream_failures == failures && now.intake_down.is_none()
        });
    }
    server.shutdown(PATIENCE).unwrap();
}

/// Nobody noticed that the event loop had ended: the process stayed, and served nobody.
#[test]
fn the_end_of_the_event_loop_ends_the_server_with_an_error() {
    let server = Server::builder().listen("127.0.0.1:0").start().unwrap();
    let running = server.running.as_ref().unwrap();
    let ended = running.event_loop_ended.clone();
    running.shared.event_loop.send(Message::Panic);
    assert!(
        ended
            .recv_timeout(PATIENCE)
            .is_err_and(|it| it.is_disconnected())
    );
    let error = server.shutdown(PATIENCE).unwrap_err();
    assert!(
        matches!(&error, Error::EventLoop(why) if why.contains("as the test asked")),
        "{error}"
    );
}

#[test]
fn a_drain_without_end_is_no_panic() {
    let server = Server::builder().listen("127.0.0.1:0").start().unwrap();
    let shared = server.running.as_ref().unwrap().shared.clone();
    let stopped = std::thread::spawn(move || server.shutdown(Duration::MAX));
    await_that("it drains", || shared.health.snapshot().draining);
    // Only a shorter drain ends one that long.
    shared.event_loop.send(Message::Drain {
        until: Instant::now(),
    });
    stopped.join().unwrap().unwrap();
}

/// A worker may be held up by the first of the jobs that came through together, while another one waits for
/// requests.
#[test]
fn jobs_that_came_with_one_that_hangs_are_begun_by_a_worker_that_waits() {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(1)
        .queue_budget(PATIENCE)
        .handler(|_: &mut crate::Request| "served")
        .start()
        .unwrap();
    let address = server.local_addr();
    let shared = &server.running.as_ref().unwrap().shared;
    let end = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < end, "the worker is always quicker");
        await_that("the worker waits", || shared.roster.is_listening());
        let begun = shared.jobs.begun();
        let client = send(address, "/");
        // This thread is the worker that is held up, if it is quicker than the other.
        let mut request = None;
        let carrier = lock(&shared.carrier).clone();
        await_that("the request comes through", || {
            request = carrier.server.try_recv().unwrap();
            request.is_some() || shared.jobs.begun() > begun
        });
        let held_up = request.map(|request| {
            let number = carried_number(request.url()).unwrap();
            shared.jobs.come_through(number);
            request.into_writer()
        });
        assert!(reply(client).ends_with("served"));
        if held_up.is_some() {
            return;
        }
    }
}
