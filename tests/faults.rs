//! Handlers that panic, hang, or give a body that is not what they said: the client gets a correct reply or one that
//! is visibly cut, the health paths answer all the while, and everything recovers.

use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::{Client, Latch, Reply, get, pattern, quiet, time_to_get, wait_until};
use plimsoll::{GateMode, Request, Response, Server};

/// Gives `parts` one read at a time, then what `end` makes.
struct Parts<F> {
    parts: std::vec::IntoIter<&'static [u8]>,
    end: F,
}

impl<F: FnMut() -> io::Result<usize>> Read for Parts<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.parts.next() {
            Some(part) => {
                buffer[..part.len()].copy_from_slice(part);
                Ok(part.len())
            }
            None => (self.end)(),
        }
    }
}

fn parts<F: FnMut() -> io::Result<usize>>(parts: &[&'static [u8]], end: F) -> Parts<F> {
    Parts {
        parts: Vec::from(parts).into_iter(),
        end,
    }
}

/// A reader that panics when it is dropped.
struct DropBomb(&'static [u8]);

impl Read for DropBomb {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Drop for DropBomb {
    fn drop(&mut self) {
        assert!(
            thread::panicking(),
            "a reader that fails while it is dropped"
        );
    }
}

/// An error whose text can't be had.
#[derive(Debug)]
struct TextBomb;

impl std::error::Error for TextBomb {}

impl std::fmt::Display for TextBomb {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("no words")
    }
}

fn faulty(request: &mut Request) -> Response {
    let fails = || Err(io::Error::other("the disk is gone"));
    match request.path() {
        "/panic" => panic!("on purpose"),
        "/panic-bomb" => std::panic::panic_any(DropBomb(b"")),
        "/fails-bomb" => {
            let fails = || Err(io::Error::other(TextBomb));
            Response::reader(200, parts(&[b"12345"], fails), None)
        }
        "/too-short" => Response::reader(200, parts(&[b"12345"], || Ok(0)), Some(10)),
        "/too-long" => Response::reader(200, &b"1234567890"[..], Some(5)),
        "/fails" => Response::reader(200, parts(&[b"12345"], fails), Some(10)),
        "/fails-chunked" => Response::reader(200, parts(&[b"12345"], fails), None),
        "/panics" => {
            let body = parts(&[b"12345"], || panic!("on purpose"));
            Response::reader(200, body, None)
        }
        "/bomb" => Response::reader(200, DropBomb(b"12345"), Some(5)),
        "/split" => Response::text(200, "x")
            .with_header("X-Split", "a\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK"),
        "/no-content" => Response::text(204, "must not be sent"),
        "/not-modified" => Response::text(304, "must not be sent"),
        "/late-bomb" => {
            while !request.abandoned() {
                thread::sleep(Duration::from_millis(5));
            }
            Response::reader(200, DropBomb(b"12345"), Some(5))
        }
        _ => Response::text(200, "fine\n"),
    }
}

fn start(workers: usize, handler: impl plimsoll::Handler) -> Server {
    quiet(workers)
        .handler(handler)
        .start()
        .expect("the server starts")
}

#[test]
fn a_panic_is_a_500_and_the_worker_lives() {
    let server = start(1, faulty);
    let mut client = Client::connect(server.local_addr());
    for _ in 0..20 {
        let reply = client.get("/panic").reply();
        assert_eq!(reply.status, 500);
        assert_eq!(client.get("/fine").reply().text(), "fine\n");
    }
    assert_eq!(server.health().snapshot().totals.panics, 20);
}

#[test]
fn a_body_that_is_not_what_it_said_is_visibly_cut_and_nothing_follows_it() {
    let server = start(1, faulty);
    for path in ["/too-short", "/fails", "/fails-chunked", "/panics"] {
        let mut client = Client::connect(server.local_addr());
        let reply = client.get(path).try_reply().expect("a head");
        assert_eq!(reply.status, 200, "{path}");
        assert!(!reply.whole, "{path} looks whole: {reply:?}");
        assert_eq!(reply.text(), "12345", "{path}");
        assert!(client.ends(), "{path}: something follows");
    }
    assert_eq!(server.health().snapshot().totals.cut, 4);
    let mut client = Client::connect(server.local_addr());
    let reply = client.get("/too-long").reply();
    assert_eq!(reply.text(), "12345");
    assert_eq!(client.get("/fine").reply().text(), "fine\n");
}

/// What a panic carried was dropped where nothing caught the next panic, and a reader's error was told there: either ended
/// the worker for good.
#[test]
fn a_panic_or_an_error_that_panics_in_its_turn_costs_no_worker() {
    let server = start(1, faulty);
    for _ in 0..3 {
        assert_eq!(get(server.local_addr(), "/panic-bomb").status, 500);
        let mut client = Client::connect(server.local_addr());
        let reply = client.get("/fails-bomb").try_reply().expect("a head");
        assert!(!reply.whole, "{reply:?}");
    }
    assert_eq!(get(server.local_addr(), "/fine").text(), "fine\n");
    assert_eq!(server.health().snapshot().totals.panics, 6);
}

/// A panic in a reader's `drop` outside of the handler ended the worker for good.
#[test]
fn a_reader_that_panics_while_it_is_dropped_costs_no_worker() {
    let server = quiet(1)
        .request_timeout(Duration::from_secs(1))
        .handler(faulty)
        .start()
        .expect("the server starts");
    for _ in 0..3 {
        let mut client = Client::connect(server.local_addr());
        client.get("/bomb").reply();
        let mut client = Client::connect(server.local_addr());
        client.send("HEAD /bomb HTTP/1.1\r\nHost: localhost\r\n\r\n");
        // It may be cut, since its reply was dropped before it was written.
        drop(Reply::read(&mut client.stream, true));
        assert_eq!(get(server.local_addr(), "/late-bomb").status, 504);
        assert_eq!(get(server.local_addr(), "/fine").text(), "fine\n");
    }
    wait_until("no exchange is left", || {
        let now = server.health().snapshot();
        now.in_flight == 0 && now.workers_busy == 0
    });
}

#[test]
fn no_header_splits_a_reply_and_bodiless_replies_have_no_body() {
    let server = start(1, faulty);
    let mut client = Client::connect(server.local_addr());
    let reply = client.get("/split").reply();
    assert_eq!(reply.text(), "x");
    // What would be a second reply is the end of one line.
    assert_eq!(
        reply.header("X-Split"),
        Some("a  Content-Length: 0    HTTP/1.1 200 OK")
    );
    assert_eq!(reply.header("Content-Length"), Some("1"));
    // Any byte of a body would be taken for the start of the next reply.
    for (path, status) in [("/no-content", 204), ("/not-modified", 304)] {
        assert_eq!(client.get(path).reply().status, status);
        assert_eq!(client.get("/fine").reply().text(), "fine\n");
    }
    for path in ["/fine", "/health", "/metrics", "/too-long"] {
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.send(request);
        let reply = client.reply_to_head();
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.header("Content-Length").is_some(), "{path}");
        assert_eq!(client.get("/fine").reply().text(), "fine\n");
    }
}

#[test]
fn with_every_worker_stuck_the_health_paths_answer_and_all_recovers() {
    let latch = Arc::new(Latch::default());
    let hang = latch.clone();
    let server = quiet(2)
        .gate(GateMode::Guarded)
        .threshold(Duration::from_millis(100))
        .cooldown(Duration::from_millis(100))
        .request_timeout(Duration::from_millis(500))
        .handler(move |request: &mut Request| {
            if request.path() == "/hang" {
                hang.pass();
            }
            "fine\n"
        })
        .start()
        .expect("the server starts");
    let address = server.local_addr();
    assert_eq!(get(address, "/livez").status, 200);
    let mut stuck: Vec<Client> = (0..2).map(|_| Client::connect(address)).collect();
    for client in &mut stuck {
        client.send("GET /hang HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    latch.wait_for(2);
    for client in &mut stuck {
        assert_eq!(client.reply().status, 504);
    }
    wait_until("it is not live", || get(address, "/livez").status == 503);
    // Milliseconds, on a machine that is left alone.
    assert!(time_to_get(address, "/metrics") < Duration::from_secs(1));
    assert!(matches!(get(address, "/health").status, 200 | 503));
    assert!(matches!(get(address, "/readyz").status, 200 | 503));
    assert_eq!(
        get(address, "/fine").status,
        503,
        "nobody is there to serve"
    );

    latch.open();
    wait_until("it is live", || get(address, "/livez").status == 200);
    wait_until("it serves", || get(address, "/fine").status == 200);
    wait_until("it is ready", || get(address, "/readyz").status == 200);
    // Their connections are as good as any; a gate that is half open may refuse one or another.
    for client in &mut stuck {
        wait_until("its connection serves", || {
            client.get("/fine").reply().text() == "fine\n"
        });
    }
}

/// Requests are handed over a little ahead of quick workers. When those stalled, the ones that were ahead were taken
/// back after the queue budget without an answer, and hung until the request timeout cut them.
#[test]
fn requests_ahead_of_workers_that_stall_are_shed_in_time() {
    let latch = Arc::new(Latch::default());
    let stall = Arc::new(AtomicBool::new(false));
    let (hang, stalls) = (latch.clone(), stall.clone());
    let server = quiet(2)
        .queue_budget(Duration::from_millis(300))
        .handler(move |_: &mut Request| {
            if stalls.load(Ordering::SeqCst) {
                hang.pass();
            }
            "fine\n"
        })
        .start()
        .expect("the server starts");
    let mut clients: Vec<Client> = (0..40)
        .map(|_| Client::connect(server.local_addr()))
        .collect();
    // Without samples of quick requests nothing is handed over ahead.
    for _ in 0..10 {
        for client in &mut clients {
            assert_eq!(client.get("/").reply().status, 200);
        }
    }
    stall.store(true, Ordering::SeqCst);
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    latch.wait_for(2);
    wait_until("all others are refused", || {
        let totals = server.health().snapshot().totals;
        totals.shed_deadline + totals.shed_queue == 38
    });
    latch.open();
    let mut statuses: Vec<u16> = clients
        .iter_mut()
        .map(|client| client.reply().status)
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses[..2], [200, 200]);
    assert!(
        statuses[2..].iter().all(|&status| status == 503),
        "{statuses:?}"
    );
    wait_until("no exchange is left", || {
        server.health().snapshot().in_flight == 0
    });
}

/// More than the system buffers on loopback: 50 MiB.
const LARGE: usize = 50 << 20;

#[test]
fn clients_that_read_slowly_hold_no_worker_and_get_every_byte() {
    let handled = Arc::new(AtomicUsize::new(0));
    let counted = handled.clone();
    let large: Arc<[u8]> = pattern(LARGE).into();
    let given = large.clone();
    let server = start(2, move |request: &mut Request| {
        let reader = || Cursor::new(given.clone());
        counted.fetch_add(1, Ordering::Relaxed);
        match request.path() {
            "/bytes" => Response::new(200, given.to_vec()),
            "/reader" => Response::reader(200, reader(), Some(LARGE as u64)),
            "/chunks" => Response::reader(200, reader(), None),
            _ => Response::text(200, "fine\n"),
        }
    });
    let address = server.local_addr();
    let paths = ["/bytes", "/reader", "/chunks", "/reader"];
    let mut slow: Vec<Client> = paths
        .iter()
        .map(|path| {
            let mut client = Client::connect(address);
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            client
        })
        .collect();
    wait_until("all four replies are under way", || {
        handled.load(Ordering::Relaxed) == 4
    });
    wait_until("no worker is held", || {
        let now = server.health().snapshot();
        now.workers_busy == 0 && now.in_flight == 0
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        for client in &mut slow {
            let mut kibibyte = [0; 256];
            let count = client.socket().peek(&mut kibibyte).expect("the reply");
            assert!(count > 0, "the reply is cut");
        }
        assert_eq!(get(address, "/fine").text(), "fine\n");
    }
    // And the rest at full speed, the clients one after the other.
    for (client, path) in slow.iter_mut().zip(paths) {
        let reply = client.reply();
        assert_eq!(reply.body.len(), LARGE, "{path}");
        assert!(reply.body == *large, "{path}: other bytes");
        assert_eq!(client.get("/fine").reply().text(), "fine\n");
    }
}

/// Notes when it is dropped.
struct Noted(Cursor<Vec<u8>>, Arc<AtomicBool>);
impl Read for Noted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}
impl Drop for Noted {
    fn drop(&mut self) {
        self.1.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_reply_that_nobody_reads_is_cut_after_the_write_timeout_and_its_reader_dropped() {
    let dropped = Arc::new(AtomicBool::new(false));
    let note = dropped.clone();
    let server = quiet(1)
        .write_timeout(Duration::from_millis(300))
        .handler(move |_: &mut Request| {
            let reader = Noted(Cursor::new(vec![0; LARGE]), note.clone());
            Response::reader(200, reader, Some(LARGE as u64))
        })
        .start()
        .expect("the server starts");
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    wait_until("the write timeout cuts it", || {
        server.health().snapshot().totals.write_timeouts == 1
    });
    wait_until("its reader is dropped", || dropped.load(Ordering::SeqCst));
    assert!(!client.try_reply().expect("a head").whole);
    wait_until("nothing is left", || {
        let now = server.health().snapshot();
        now.connections == 0 && now.in_flight == 0
    });
}

/// A reply whose reader is slower than its client never filled the socket, so the request timeout ran on and cut it.
#[test]
fn a_reply_that_makes_progress_outlives_the_request_timeout() {
    let server = quiet(1)
        .request_timeout(Duration::from_secs(1))
        .handler(|_: &mut Request| {
            let mut left = 60;
            let slow = move || {
                left -= 1;
                thread::sleep(Duration::from_millis(40));
                Ok(usize::from(left > 0))
            };
            Response::reader(200, parts(&[], slow), None)
        })
        .start()
        .expect("the server starts");
    let began = Instant::now();
    let reply = get(server.local_addr(), "/");
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "the reader was too quick"
    );
    assert!(reply.whole, "cut after {:?}", began.elapsed());
    assert_eq!(reply.body.len(), 59);
}

/// One that makes none is cut: the client must not wait for ever.
#[test]
fn a_reader_that_hangs_is_cut_at_the_request_timeout() {
    let latch = Arc::new(Latch::default());
    let hang = latch.clone();
    let server = quiet(1)
        .request_timeout(Duration::from_secs(1))
        .handler(move |_: &mut Request| {
            let hang = hang.clone();
            let end = move || {
                hang.pass();
                Ok(0)
            };
            Response::reader(200, parts(&[b"12345"], end), Some(10))
        })
        .start()
        .expect("the server starts");
    let reply = Client::connect(server.local_addr())
        .get("/")
        .try_reply()
        .expect("a head");
    assert!(!reply.whole && reply.text() == "12345", "{reply:?}");
}
