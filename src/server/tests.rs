use super::event_loop::intake::carried_number;
use super::event_loop::wake::Message;
use super::handler::Handler;
use super::*;
use crate::panics::lock;
use crate::settings::{self, GateMode};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Longest that a test waits for what has to happen.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

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

/// Waits until `condition` holds.
#[track_caller]
pub(super) fn await_that(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "never: {what}");
        // Only so that the wait leaves the processor to what it waits for.
        std::thread::sleep(Duration::from_millis(1));
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
        serves: true,
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
        await_that("the worker waits", || shared.idle_workers.has_receiver());
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
            shared.jobs.release(number);
            request.into_writer()
        });
        assert!(reply(client).ends_with("served"));
        if held_up.is_some() {
            return;
        }
    }
}

/// A handler that waits until it is let go, and tells how often it ran.
fn latch() -> (
    crossbeam_channel::Sender<()>,
    Arc<AtomicUsize>,
    impl Handler,
) {
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let handler = move |_: &mut crate::Request| {
        counted.fetch_add(1, Ordering::Relaxed);
        let _ = released.recv();
        "served"
    };
    (release, runs, handler)
}

/// In the turn in which a worker became free, everything that came was let past the queue's bound.
#[test]
fn the_queue_keeps_its_bound_while_workers_come_free() {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .queue_budget(PATIENCE)
        .queue_max(4)
        .gate(GateMode::Off)
        .handler(|_: &mut crate::Request| {
            std::thread::sleep(Duration::from_millis(5));
            "served"
        })
        .start()
        .unwrap();
    let address = server.local_addr();
    let longest = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..60)
            .map(|_| scope.spawn(move || (0..10).for_each(|_| drop(reply(send(address, "/"))))))
            .collect();
        let mut longest = 0;
        while !clients
            .iter()
            .all(std::thread::ScopedJoinHandle::is_finished)
        {
            longest = longest.max(server.health().snapshot().queue);
            std::thread::yield_now();
        }
        longest
    });
    assert!((1..=4).contains(&longest), "{longest}");
    assert!(server.health().snapshot().totals.shed_queue > 0);
}

/// Half open without an idle worker, it called itself ready and refused every request.
#[test]
fn with_every_worker_hung_it_is_not_ready_until_one_comes_back() {
    let (release, runs, handler) = latch();
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .threshold(Duration::from_millis(20))
        .cooldown(Duration::from_millis(20))
        .handler(handler)
        .start()
        .unwrap();
    let held: Vec<_> = (0..2).map(|_| send(server.local_addr(), "/")).collect();
    await_that("both workers hang", || runs.load(Ordering::Relaxed) == 2);
    let probe = || reply(send(server.local_addr(), "/readyz"));
    await_that("it is not ready", || probe().starts_with("HTTP/1.1 503"));
    let end = Instant::now() + Duration::from_millis(500);
    while Instant::now() < end {
        assert!(!server.health().snapshot().is_ready(), "it flaps");
    }
    assert_eq!(server.health().snapshot().trips, 1);
    drop(release);
    for client in held {
        assert!(reply(client).ends_with("served"));
    }
    await_that("it is ready", || probe().starts_with("HTTP/1.1 200"));
}

/// Its client got an empty end, and it counted as served.
#[test]
fn a_reply_whose_reader_hangs_before_its_first_byte_is_504() {
    struct Hangs(crossbeam_channel::Receiver<()>);
    impl io::Read for Hangs {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(0)
        }
    }
    let (release, released) = crossbeam_channel::bounded::<()>(0);
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .request_timeout(Duration::from_millis(50))
        .handler(move |_: &mut crate::Request| {
            crate::Response::reader(200, Hangs(released.clone()), None)
        })
        .start()
        .unwrap();
    let reply = reply(send(server.local_addr(), "/"));
    assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
    drop(release);
    await_that("the reader is dropped", || {
        server.health().snapshot().totals.late == 1
    });
    let totals = server.health().snapshot().totals;
    assert_eq!((totals.served, totals.failed, totals.timeouts), (0, 1, 1));
}

/// With replies that are whole just as the request timeout comes, some were cut though all of them was sent.
#[test]
fn a_reply_is_whole_or_504_and_counted_as_what_it_is() {
    const TIMEOUT: Duration = Duration::from_millis(20);
    const REQUESTS: u64 = 200;
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(8)
        .gate(GateMode::Off)
        .request_timeout(TIMEOUT)
        .queue_budget(PATIENCE)
        .handler(|_: &mut crate::Request| {
            std::thread::sleep(TIMEOUT);
            "served"
        })
        .start()
        .unwrap();
    let address = server.local_addr();
    let whole = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let replies = (0..REQUESTS / 8).map(|_| reply(send(address, "/")));
                    let is_whole = |reply: String| {
                        let late = reply.starts_with("HTTP/1.1 504 ");
                        assert!(late || reply.ends_with("served"), "{reply}");
                        u64::from(!late)
                    };
                    replies.map(is_whole).sum::<u64>()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|it| it.join().unwrap())
            .sum::<u64>()
    });
    let totals = server.health().snapshot().totals;
    assert_eq!((totals.served, totals.failed), (whole, REQUESTS - whole));
    assert_eq!(totals.cut, 0);
}

#[test]
fn a_client_that_ends_while_it_waits_for_a_worker_is_not_served() {
    let (release, runs, handler) = latch();
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(1)
        .queue_budget(PATIENCE)
        .gate(GateMode::Off)
        .handler(handler)
        .start()
        .unwrap();
    let address = server.local_addr();
    // The reply to a half-closed client that a worker has begun is still due.
    let held = send(address, "/");
    await_that("the worker is held", || runs.load(Ordering::Relaxed) == 1);
    held.shutdown(std::net::Shutdown::Write).unwrap();
    let waiting: Vec<_> = (0..5).map(|_| send(address, "/")).collect();
    await_that("they wait", || server.health().snapshot().queue == 5);
    let waited = Instant::now() + Duration::from_millis(50);
    await_that("they wait for long", || Instant::now() > waited);
    for client in &waiting {
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    drop(release);
    assert!(reply(held).ends_with("served"));
    await_that("they have left", || {
        server.health().snapshot().totals.skipped == 5
    });
    for client in waiting {
        assert_eq!(reply(client), "");
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

/// A reader of a reply that tells which thread drops it.
struct Endless(crossbeam_channel::Sender<String>);

impl io::Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let _ = self.0.send(thread.name().unwrap_or("").to_owned());
    }
}

/// A reader that blocks or panics as it is dropped would have taken the event loop with it.
#[test]
fn readers_of_replies_are_dropped_by_workers_only() {
    let (tell, told) = crossbeam_channel::unbounded();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .queue_budget(PATIENCE)
        .handler(move |_: &mut crate::Request| {
            counted.fetch_add(1, Ordering::Relaxed);
            crate::Response::reader(200, Endless(tell.clone()), None)
        })
        .start()
        .unwrap();
    let clients: Vec<_> = (0..4).map(|_| send(server.local_addr(), "/")).collect();
    await_that("each waits for its client", || {
        let now = server.health().snapshot();
        runs.load(Ordering::Relaxed) == 4 && now.in_flight == 0
    });
    let mut clients = clients.into_iter();
    drop(clients.next());
    let first = told.recv_timeout(PATIENCE).unwrap();
    // The others are cut by the stop.
    let cut = server.shutdown(Duration::ZERO).unwrap_err();
    assert!(matches!(cut, Error::Cut(3)), "{cut}");
    let rest = (0..3).map(|_| told.recv_timeout(PATIENCE).unwrap());
    for thread in rest.chain([first]) {
        let number = thread.strip_prefix("plimsoll-");
        assert!(
            number.is_some_and(|it| it.parse::<usize>().is_ok()),
            "{thread}"
        );
    }
}

/// tiny_http's accept thread ends at its first failure, and its directory may be removed by a cleaner.
#[test]
fn a_stream_whose_server_has_failed_or_whose_directory_is_gone_is_made_anew() {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .handler(|_: &mut crate::Request| "served")
        .start()
        .unwrap();
    let shared = server.running.as_ref().unwrap().shared.clone();
    let carrier = lock(&shared.carrier).clone();
    let error = io::Error::from(io::ErrorKind::PermissionDenied);
    shared
        .event_loop
        .send(Message::CarrierFailed { carrier, error });
    await_that("another one is there", || {
        let now = server.health().snapshot();
        now.totals.stream_failures == 1 && now.intake_down.is_none()
    });
    assert!(reply(send(server.local_addr(), "/")).ends_with("served"));
    // What an older one says is of no interest.
    let (carrier, _stream) = Carrier::open().unwrap();
    let error = io::Error::from(io::ErrorKind::PermissionDenied);
    shared
        .event_loop
        .send(Message::CarrierFailed { carrier, error });
    assert!(reply(send(server.local_addr(), "/")).ends_with("served"));
    assert_eq!(server.health().snapshot().totals.stream_failures, 1);
}

#[test]
fn settings_that_a_configuration_would_drop_are_a_start_error() {
    let lost = [
        Server::builder().listen("127.0.0.1:0"),
        Server::builder().listen(settings::DEFAULT_LISTEN),
        Server::builder().workers(3),
        Server::builder().health_path(None),
    ];
    for builder in lost {
        let error = builder.config(Config::default()).start().unwrap_err();
        let expected =
            "config: expected all settings before single ones, found some that were given before";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn an_address_is_added_to_those_of_a_configuration_and_replaces_only_the_default() {
    let addresses = |builder: Builder| {
        let server = builder.workers(1).start().unwrap();
        server.local_addrs().len()
    };
    let two = Config {
        listen: vec!["127.0.0.1:0".to_owned(); 2],
        ..Config::default()
    };
    assert_eq!(
        addresses(Server::builder().config(two).listen("127.0.0.1:0")),
        3
    );
    let default = Server::builder().config(Config::default());
    assert_eq!(
        addresses(default.listen("127.0.0.1:0").listen("127.0.0.1:0")),
        2
    );
}
