//! Every refusal: its status, that it reaches no handler, that it is counted, and that it harms nobody else. And the
//! bounds that close a connection without a word.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{Client, Latch, PATIENCE, ask, get, quiet, wait_until};
use plimsoll::{Builder, GateMode, Request, Response, Server, Totals};

/// A timeout that is to be waited for: short, yet longer than a busy machine holds up a client between connecting and
/// writing.
const SHORT: Duration = Duration::from_secs(1);

/// A server, how often its handler ran, and a client that was there before.
struct Scene {
    server: Server,
    handled: Arc<AtomicUsize>,
    bystander: Client,
}

impl Scene {
    #[track_caller]
    fn new(builder: Builder) -> Self {
        let handled = Arc::new(AtomicUsize::new(0));
        let count = handled.clone();
        let server = builder
            .handler(move |_: &mut Request| {
                count.fetch_add(1, Ordering::Relaxed);
                "served\n"
            })
            .start()
            .expect("a server");
        let bystander = Client::connect(server.local_addr());
        let mut scene = Self {
            server,
            handled,
            bystander,
        };
        scene.serves();
        scene
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }

    fn totals(&self) -> Totals {
        self.server.health().snapshot().totals
    }

    /// The counts once every request so far is in them: a reply may be read before it is counted.
    #[track_caller]
    fn settled(&self) -> Totals {
        let handled = self.handled() as u64;
        wait_until("served are counted", || self.totals().served == handled);
        self.totals()
    }

    #[track_caller]
    fn connect(&self) -> Client {
        Client::connect(self.server.local_addr())
    }

    /// Wants that to be refused with `status` and the connection closed, and everybody else unharmed.
    #[track_caller]
    fn refuses(&mut self, status: u16, request: impl AsRef<[u8]>) {
        let request = request.as_ref();
        let shown = String::from_utf8_lossy(&request[..request.len().min(200)]).into_owned();
        let before = self.settled();
        let mut client = self.connect();
        client.send(request);
        let reply = client.reply();
        assert_eq!(reply.status, status, "{shown:?}: {reply:?}");
        assert!(reply.closes(), "{shown:?}: {reply:?}");
        let text = reply.text();
        assert!(text.len() > 1, "{shown:?}: a text that says what to do");
        assert_eq!(text.find('\n'), Some(text.len() - 1), "one line: {text:?}");
        client.expect_close();
        let after = self.settled();
        assert_eq!(after.served, before.served, "{shown:?}: not handled");
        assert_eq!(after.bad, before.bad + 1, "{shown:?}: counted as bad");
        assert_eq!(after.failed, before.failed, "{shown:?}: not as failed");
        self.serves();
    }

    /// Wants the bystander and a newcomer to be served.
    #[track_caller]
    fn serves(&mut self) {
        assert_eq!(self.bystander.get("/").reply().text(), "served\n");
        assert_eq!(get(self.server.local_addr(), "/").text(), "served\n");
    }
}

/// A whole GET with these lines in its head, in place of Host alone.
fn with(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n")
}

/// A POST with a chunked body of these bytes.
fn chunked(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

/// A row of what is refused: the status, why, and what makes a whole request of each of the texts.
type Row = (
    u16,
    &'static str,
    fn(&str) -> String,
    &'static [&'static str],
);

/// Requests that are refused by what they say, whatever the server's settings are.
const BROKEN: [Row; 13] = [
    (
        400,
        "a malformed request line",
        |line| format!("{line}\r\nHost: x\r\n\r\n"),
        &[
            "GET",
            "GET /",
            "GET  / HTTP/1.1",
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "GET /a b HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET / HTTP/1",
            "GET / HTTP/1.10",
            "GET / http/1.1",
            "GET / HTTQ/1.1",
            "GET a HTTP/1.1",
            "GET * HTTP/1.1",
            "GET ftp://x/ HTTP/1.1",
            "GET http:///a HTTP/1.1",
            "GET http://a@b/ HTTP/1.1",
            "GET /\x00 HTTP/1.1",
            "GET /\x7f HTTP/1.1",
            "\x16\x03\x01\x02\x00\x01\x00\x01",
            "\r\n\r\n\r\nGET / HTTP/1.1",
        ],
    ),
    (
        400,
        "a malformed header",
        with,
        &[
            "X : y",
            " X: y",
            "X: y\r\n folded",
            "X",
            ": y",
            "X(: y",
            "X: a\rb",
            "X: a\x00b",
            "X: a\x01b",
            "X: a\x7fb",
            "Gr\u{fc}n: y",
            "Host: x",
        ],
    ),
    (
        400,
        "no Host, or an end of a line without CR",
        str::to_owned,
        &[
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\n\n",
        ],
    ),
    (
        400,
        "framing that could be read in two ways",
        with,
        &[
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1, 1",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 0x1",
            "Content-Length: 1 1",
            "Content-Length:",
            "Content-Length: 99999999999999999999999",
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: chunked, gzip",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding:",
        ],
    ),
    (
        400,
        "chunks over HTTP/1.0",
        str::to_owned,
        &["POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"],
    ),
    (
        400,
        "a malformed chunked body",
        chunked,
        &[
            "x\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "\r\n",
            " 1\r\na\r\n",
            "11111111111111111\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na0\r\n\r\n",
            "1;=\r\na\r\n",
            "0\r\nbad trailer\r\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\n\rx",
        ],
    ),
    (
        400,
        "an extension of a chunk that is too large",
        |letter| chunked(&format!("1;{}\r\n", letter.repeat(2000))),
        &["a"],
    ),
    (
        417,
        "an unknown expectation",
        with,
        &["Expect: the-unexpected", "Expect: 100-continue, more"],
    ),
    (
        431,
        "trailers that are too large",
        |letter| chunked(&format!("0\r\nX: {}\r\n\r\n", letter.repeat(9000))),
        &["a"],
    ),
    (
        501,
        "a coding that is not implemented",
        with,
        &[
            "Transfer-Encoding: gzip",
            "Transfer-Encoding: gzip, chunked",
        ],
    ),
    (
        501,
        "a method that is not implemented",
        str::to_owned,
        &["CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n"],
    ),
    (
        505,
        "another version",
        |version| format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n"),
        &["1.2", "2.0", "0.9", "9.9"],
    ),
    (
        505,
        "the preface of HTTP/2",
        str::to_owned,
        &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ),
];

#[test]
fn what_breaks_the_protocol_is_refused_with_its_status() {
    let mut scene = Scene::new(quiet(2));
    for (status, why, whole, texts) in BROKEN {
        println!("{status}: {why}");
        for text in texts {
            scene.refuses(status, whole(text));
        }
    }
}

#[test]
fn a_request_that_ends_in_its_middle_is_400() {
    let scene = Scene::new(quiet(2));
    for request in [
        "GET / HT",
        "GET / HTTP/1.1\r\nHost: x\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    ] {
        let before = scene.settled();
        let mut client = scene.connect();
        assert_eq!(client.send(request).finish().reply().status, 400);
        client.expect_close();
        let after = scene.settled();
        assert_eq!(after.bad, before.bad + 1);
        assert_eq!(after.served, before.served);
    }
}

#[test]
fn a_refused_request_hides_what_follows_it_and_not_what_came_before() {
    let mut scene = Scene::new(quiet(2));
    let handled = scene.handled();
    let mut client = scene.connect();
    client.get("/first").send(
        "GET /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 30\r\n\r\n\
         GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(client.reply().text(), "served\n");
    assert_eq!(client.reply().status, 400);
    client.expect_close();
    assert_eq!(scene.handled(), handled + 1);
    scene.serves();
}

#[test]
fn a_head_that_is_not_whole_in_time_is_408() {
    let mut scene = Scene::new(quiet(2).head_timeout(SHORT));
    scene.refuses(408, "GET / HTTP/1.1\r\nHost: x\r\n");
    assert_eq!(scene.totals().too_slow, 1);
}

#[test]
fn bytes_that_drip_in_do_not_put_off_the_head_timeout() {
    let scene = Scene::new(quiet(2).head_timeout(SHORT));
    let mut client = scene.connect();
    let began = Instant::now();
    let mut dripping = client.socket().try_clone().expect("the same socket");
    let enough = Arc::new(AtomicBool::new(false));
    let stop = enough.clone();
    let drip = thread::spawn(move || {
        let deadline = Instant::now() + PATIENCE;
        // An error says that the server has closed.
        while !stop.load(Ordering::Relaxed)
            && Instant::now() < deadline
            && dripping.write_all(b"x").is_ok()
        {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let reply = client.reply();
    let after = began.elapsed();
    enough.store(true, Ordering::Relaxed);
    drip.join().expect("the dripping ends");
    assert_eq!(reply.status, 408);
    assert!(after >= SHORT, "{after:?}");
    assert!(after < PATIENCE / 2, "{after:?}");
}

#[test]
fn a_body_that_is_not_whole_in_time_is_408() {
    let mut scene = Scene::new(quiet(2).body_timeout(SHORT));
    scene.refuses(
        408,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabc",
    );
    scene.refuses(408, chunked("5\r\nabc"));
    assert_eq!(scene.totals().too_slow, 2);
}

#[test]
fn a_body_that_is_too_large_is_413() {
    let mut scene = Scene::new(quiet(2).max_body(1000));
    scene.refuses(413, with("Content-Length: 1001"));
    scene.refuses(413, with("Content-Length: 4611686018427387904"));
    scene.refuses(413, with("Expect: 100-continue\r\nContent-Length: 1001"));
    let piece = "x".repeat(600);
    scene.refuses(413, chunked(&format!("258\r\n{piece}\r\n258\r\n{piece}")));
    scene.refuses(413, chunked("ffffffffffffffff\r\n"));
    // A client that writes on before it reads still gets to read why.
    let body = "x".repeat(300_000);
    scene.refuses(
        413,
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n{body}"),
    );
    let largest = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{}",
        "x".repeat(1000)
    );
    assert_eq!(ask(scene.server.local_addr(), largest).status, 200);
    assert_eq!(scene.totals().body_too_large, 6);
}

#[test]
fn a_target_that_is_too_long_is_414() {
    let mut scene = Scene::new(quiet(2).max_head(1024));
    scene.refuses(414, format!("GET /{}", "a".repeat(2000)));
    let target = "a".repeat(2000);
    scene.refuses(414, format!("GET /{target} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let reply = get(scene.server.local_addr(), &format!("/{}", "a".repeat(900)));
    assert_eq!(reply.status, 200);
    assert_eq!(scene.totals().head_too_large, 2);
}

#[test]
fn a_head_that_is_too_large_is_431() {
    let mut scene = Scene::new(quiet(2).max_head(4096));
    scene.refuses(431, with(&format!("X: {}", "a".repeat(5000))));
    // It need not end for that.
    scene.refuses(
        431,
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(5000)),
    );
    scene.refuses(431, with(&vec!["X: y"; 101].join("\r\n")));
    let reply = ask(
        scene.server.local_addr(),
        with(&format!("X: {}", "a".repeat(4000))),
    );
    assert_eq!(reply.status, 200);
    assert_eq!(scene.totals().head_too_large, 3);
    let page = get(scene.server.local_addr(), "/metrics");
    for line in [
        "plimsoll_too_large_requests_total{part=\"head\"} 3",
        "plimsoll_too_large_requests_total{part=\"body\"} 0",
    ] {
        assert!(page.text().lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn refusals_move_the_average_of_bad_requests() {
    let mut scene = Scene::new(quiet(2));
    wait_until("a sample", || {
        scene.server.health().snapshot().bad_ratio.is_some()
    });
    assert_eq!(scene.server.health().snapshot().bad_ratio, Some(0.0));
    scene.refuses(400, "GET\r\n\r\n");
    let ratio = scene.server.health().snapshot().bad_ratio;
    assert!(ratio > Some(0.0) && ratio < Some(1.0), "{ratio:?}");
}

#[test]
fn a_closed_gate_lets_pass_and_an_open_one_refuses_without_a_handler() {
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let server = quiet(2)
        .gate(GateMode::Literal)
        .threshold(Duration::from_nanos(1))
        .cooldown(Duration::from_secs(60))
        .handler(move |_: &mut Request| {
            count.fetch_add(1, Ordering::Relaxed);
            "served\n"
        })
        .start()
        .expect("a server");
    let health = server.health();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").reply().status, 200);
    wait_until("the first reading trips", || !health.is_healthy());
    for turn in 1..=5 {
        let reply = client.get("/").reply();
        assert_eq!(reply.status, 503);
        assert!(!reply.closes(), "its framing is known: {reply:?}");
        let seconds: u64 = reply
            .header("Retry-After")
            .expect("Retry-After")
            .parse()
            .expect("whole seconds");
        assert!((1..=60).contains(&seconds), "{seconds}");
        let totals = health.snapshot().totals;
        assert_eq!(totals.shed_gate, turn);
        assert_eq!((totals.bad, totals.failed), (0, 0), "no fault of anybody's");
    }
    assert_eq!(handled.load(Ordering::Relaxed), 1);
}

#[test]
fn what_cannot_wait_for_a_worker_is_503() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = handled.clone();
    let server = quiet(1)
        .queue_max(1)
        .handler(move |_: &mut Request| {
            count.fetch_add(1, Ordering::Relaxed);
            held.pass();
            "served\n"
        })
        .start()
        .expect("a server");
    let health = server.health();
    let mut first = Client::connect(server.local_addr());
    first.get("/");
    latch.wait_for(1);
    let mut second = Client::connect(server.local_addr());
    second.get("/");
    wait_until("the queue is full", || health.snapshot().queue == 1);
    let mut third = Client::connect(server.local_addr());
    for turn in 1..=3 {
        let reply = third.get("/").reply();
        assert_eq!(reply.status, 503);
        assert!(!reply.closes(), "{reply:?}");
        let seconds: u64 = reply
            .header("Retry-After")
            .expect("Retry-After")
            .parse()
            .expect("whole seconds");
        assert!((1..=31).contains(&seconds), "{seconds}");
        assert_eq!(health.snapshot().totals.shed_queue, turn);
    }
    latch.open();
    for client in [&mut first, &mut second] {
        assert_eq!(client.reply().text(), "served\n");
    }
    assert_eq!(third.get("/").reply().text(), "served\n");
    assert_eq!(handled.load(Ordering::Relaxed), 3);
}

#[test]
fn what_has_waited_for_the_whole_queue_budget_is_503_and_never_runs() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let (sender, seen) = mpsc::channel();
    let server = quiet(1)
        .queue_budget(Duration::from_millis(500))
        .handler(move |request: &mut Request| {
            sender
                .send(request.path().to_owned())
                .expect("the test listens");
            held.pass();
            "served\n"
        })
        .start()
        .expect("a server");
    let mut first = Client::connect(server.local_addr());
    first.get("/first");
    latch.wait_for(1);
    let reply = get(server.local_addr(), "/waits");
    assert_eq!(reply.status, 503);
    assert!(reply.header("Retry-After").is_some(), "{reply:?}");
    assert_eq!(server.health().snapshot().totals.shed_deadline, 1);
    latch.open();
    assert_eq!(first.reply().text(), "served\n");
    let started: Vec<_> = seen.try_iter().collect();
    assert_eq!(started, ["/first"]);
}

#[test]
fn a_handler_that_is_too_slow_is_504_and_its_answer_is_dropped() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let (sender, ended) = mpsc::channel();
    let server = quiet(2)
        .request_timeout(SHORT)
        .handler(move |request: &mut Request| {
            if request.path() != "/stuck" {
                return "quick\n";
            }
            assert!(!request.abandoned());
            held.pass();
            let end = (request.abandoned(), request.remaining());
            sender.send(end).expect("the test listens");
            "too late\n"
        })
        .start()
        .expect("a server");
    let health = server.health();
    let mut client = Client::connect(server.local_addr());
    let began = Instant::now();
    let reply = client.get("/stuck").reply();
    assert!(began.elapsed() >= SHORT);
    assert_eq!(reply.status, 504);
    assert!(!reply.closes(), "its framing is known: {reply:?}");
    wait_until("the worker is known to be stuck", || {
        health.snapshot().workers_stuck == 1
    });
    let snapshot = health.snapshot();
    assert_eq!(snapshot.workers_busy, 1);
    assert_eq!((snapshot.totals.timeouts, snapshot.totals.failed), (1, 1));
    assert!(snapshot.is_live(), "the other worker is there");
    // The same connection goes on, and so do others.
    assert_eq!(client.get("/").reply().text(), "quick\n");
    assert_eq!(get(server.local_addr(), "/").text(), "quick\n");
    latch.open();
    let (abandoned, remaining) = ended.recv_timeout(PATIENCE).expect("its end");
    assert!(abandoned, "the handler can tell that nobody waits");
    assert_eq!(remaining, Duration::ZERO);
    wait_until("the answer is dropped", || {
        let snapshot = health.snapshot();
        snapshot.totals.late == 1 && snapshot.workers_stuck == 0
    });
    assert_eq!(client.get("/").reply().text(), "quick\n");
    client.finish().expect_close();
}

#[test]
fn what_waits_behind_stuck_workers_is_504_and_never_runs() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let (sender, seen) = mpsc::channel();
    let server = quiet(1)
        .request_timeout(SHORT)
        .handler(move |request: &mut Request| {
            sender
                .send(request.path().to_owned())
                .expect("the test listens");
            held.pass();
            "late\n"
        })
        .start()
        .expect("a server");
    let mut stuck = Client::connect(server.local_addr());
    stuck.get("/stuck");
    latch.wait_for(1);
    let mut waits = Client::connect(server.local_addr());
    assert_eq!(waits.get("/waits").reply().status, 504);
    assert_eq!(stuck.reply().status, 504);
    assert_eq!(get(server.local_addr(), "/livez").status, 503);
    latch.open();
    wait_until("the worker is back", || {
        get(server.local_addr(), "/livez").status == 200
    });
    assert_eq!(server.health().snapshot().queue, 0);
    let started: Vec<_> = seen.try_iter().collect();
    assert_eq!(started, ["/stuck"]);
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed() {
    let server = quiet(1)
        .head_timeout(SHORT)
        .idle_timeout(SHORT)
        .handler(|_: &mut Request| "served\n")
        .start()
        .expect("a server");
    let mut never_used = Client::connect(server.local_addr());
    let mut kept_alive = Client::connect(server.local_addr());
    assert_eq!(kept_alive.get("/").reply().text(), "served\n");
    never_used.expect_close();
    kept_alive.expect_close();
    wait_until("both are counted", || {
        let snapshot = server.health().snapshot();
        snapshot.totals.idle_closed == 2 && snapshot.connections == 0
    });
    assert_eq!(server.health().snapshot().totals.bad, 0);
}

#[test]
fn a_reply_that_makes_no_progress_is_cut() {
    /// More than the kernel buffers on loopback.
    const SIZE: usize = 64 * 1024 * 1024;
    let server = quiet(1)
        .write_timeout(SHORT)
        .handler(|request: &mut Request| match request.path() {
            "/large" => Response::new(200, vec![b'x'; SIZE]),
            _ => Response::text(200, "served\n"),
        })
        .start()
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.get("/large");
    wait_until("it is cut", || {
        server.health().snapshot().totals.write_timeouts == 1
    });
    assert_eq!(get(server.local_addr(), "/").text(), "served\n");
}

#[test]
fn a_newcomer_takes_the_place_of_the_longest_idle_and_of_nobody_else() {
    let latches: Arc<[Latch; 3]> = Arc::default();
    let held = latches.clone();
    let server = quiet(3)
        .max_connections(2)
        .handler(move |request: &mut Request| {
            if let Ok(number) = request.path()[1..].parse::<usize>() {
                held[number].pass();
            }
            "served\n"
        })
        .start()
        .expect("a server");
    let evicted = || server.health().snapshot().totals.evicted;
    let connect = || Client::connect(server.local_addr());
    let mut first = connect();
    first.get("/0");
    latches[0].wait_for(1);
    let mut idle = connect();
    assert_eq!(idle.get("/").reply().text(), "served\n");
    let mut second = connect();
    assert_eq!(second.get("/").reply().text(), "served\n");
    idle.expect_close();
    assert_eq!(evicted(), 1, "one newcomer costs one place");
    // While nobody is idle the kernel's backlog holds a newcomer, until somebody rests ...
    second.send("GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    latches[1].wait_for(1);
    let mut third = connect();
    third.get("/");
    assert_eq!(server.health().snapshot().connections, 2);
    latches[0].open();
    assert_eq!(first.reply().text(), "served\n");
    assert_eq!(third.reply().text(), "served\n");
    first.expect_close();
    assert_eq!(evicted(), 2);
    // ... or leaves.
    third.get("/2");
    latches[2].wait_for(1);
    let mut fourth = connect();
    fourth.get("/");
    latches[1].open();
    assert_eq!(second.reply().text(), "served\n");
    second.expect_close();
    drop(second);
    assert_eq!(fourth.reply().text(), "served\n");
    latches[2].open();
    assert_eq!(third.reply().text(), "served\n");
    assert_eq!(evicted(), 2);
}
