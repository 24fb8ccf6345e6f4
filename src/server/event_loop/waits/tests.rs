use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::*;
use crate::net::stream::{Interest, Socket};
use crate::server::Server;
use crate::server::handler::Handler;
use crate::server::request::Request;
use crate::server::response::{Signals, Waiting};
use crate::server::tests::{PATIENCE, await_that};
use crate::server::watched::watch;

/// What it says when it is resumed: by the path of the request.
struct Scripted {
    socket: Socket,
    due: Instant,
}

impl Waiting for Scripted {
    fn watch(&mut self, signals: &Signals<'_>) -> io::Result<()> {
        let Signals {
            registry, token, ..
        } = *signals;
        watch(&self.socket, registry, token, Interest::Readable)
    }

    fn due(&self) -> Instant {
        self.due
    }

    fn resume(mut self: Box<Self>, request: &Request, event: Trigger, now: Instant) -> Resumed {
        let mut byte = [0];
        let said = match event {
            Trigger::Due if self.due <= now => "due",
            _ => match self.socket.read(&mut byte) {
                Ok(1) => "ready",
                _ => return Resumed::Waits(self),
            },
        };
        match request.path() {
            "/panics" => panic!("as the test asked"),
            "/works" => {
                let caller = thread::current().id();
                Resumed::Works(Box::new(move |_| {
                    assert_ne!(
                        thread::current().id(),
                        caller,
                        "a worker does what may block"
                    );
                    Response::text(200, format!("{said}, worked"))
                }))
            }
            _ => Resumed::Replies(Response::text(200, said)),
        }
    }
}

/// Has each request wait for a byte; the other ends are kept.
struct Puts {
    patience: Duration,
    ends: Mutex<Vec<UnixStream>>,
    asked: AtomicUsize,
}

impl Handler for Arc<Puts> {
    fn handle(&self, _: &mut Request) -> Response {
        let (near, far) = UnixStream::pair().expect("two sockets");
        near.set_nonblocking(true).expect("a mode");
        self.ends.lock().unwrap().push(far);
        self.asked.fetch_add(1, Ordering::SeqCst);
        Response::later(Box::new(Scripted {
            socket: Socket::Unix(near),
            due: Instant::now() + self.patience,
        }))
    }
}

fn serve(patience: Duration) -> (Server, Arc<Puts>) {
    let puts = Arc::new(Puts {
        patience,
        ends: Mutex::default(),
        asked: AtomicUsize::new(0),
    });
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(2)
        .queue_budget(PATIENCE)
        .handler(puts.clone())
        .start()
        .unwrap();
    (server, puts)
}

fn ask(server: &Server, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(server.local_addr()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        client,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    client
}

fn reply(mut client: TcpStream) -> String {
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn one_that_waits_goes_on_when_its_socket_is_ready_and_no_sooner() {
    let (server, puts) = serve(PATIENCE);
    for (before, path, said) in [(0, "/", "ready"), (1, "/works", "ready, worked")] {
        let client = ask(&server, path);
        await_that("it has begun", || {
            puts.asked.load(Ordering::SeqCst) > before
        });
        await_that("it waits", || server.health().snapshot().in_flight == 1);
        await_that("no worker does", || {
            server.health().snapshot().workers_busy == 0
        });
        let mut far = puts.ends.lock().unwrap().pop().unwrap();
        far.write_all(b"x").unwrap();
        let reply = reply(client);
        assert!(reply.starts_with("HTTP/1.1 200 OK\r\n"), "{reply}");
        assert!(reply.ends_with(&format!("\r\n\r\n{said}")), "{reply}");
        await_that("nothing is left", || {
            server.health().snapshot().in_flight == 0
        });
    }
    assert_eq!(puts.asked.load(Ordering::SeqCst), 2);
    // Each has waited for a worker once, also the one that went on with a worker.
    let metrics = reply(ask(&server, "/metrics"));
    assert!(
        metrics.contains("\nplimsoll_queue_wait_seconds_count 2\n"),
        "{metrics}"
    );
}

/// Waits for a word before it can be waited with, and then for good.
struct Held {
    begun: Sender<()>,
    goes_on: Receiver<()>,
}

impl Waiting for Held {
    fn watch(&mut self, _: &Signals<'_>) -> io::Result<()> {
        self.begun.send(()).expect("the test goes on");
        self.goes_on.recv_timeout(PATIENCE).expect("a word");
        Ok(())
    }

    fn due(&self) -> Instant {
        Instant::now() + PATIENCE
    }

    fn resume(self: Box<Self>, _: &Request, _: Trigger, _: Instant) -> Resumed {
        Resumed::Waits(self)
    }
}

/// Such a request was counted nowhere.
#[test]
fn one_whose_client_goes_just_as_it_begins_to_wait_is_counted_as_late() {
    let (begun, has_begun) = bounded(1);
    let (go_on, goes_on) = bounded(1);
    let handler = move |_: &mut Request| {
        let (begun, goes_on) = (begun.clone(), goes_on.clone());
        Response::later(Box::new(Held { begun, goes_on }))
    };
    let builder = Server::builder().listen("127.0.0.1:0").workers(1);
    let server = builder.handler(handler).start().unwrap();
    let client = ask(&server, "/");
    has_begun.recv_timeout(PATIENCE).expect("it begins");
    let socket = socket2::SockRef::from(&client);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    await_that("it has gone", || {
        server.health().snapshot().connections == 0
    });
    go_on.send(()).unwrap();
    await_that("it is counted", || {
        server.health().snapshot().totals.late == 1
    });
}

/// As a handler's that comes after the deadline.
#[test]
fn one_that_waits_when_its_time_is_over_is_504_and_late() {
    let (begun, has_begun) = bounded(1);
    let (go_on, goes_on) = bounded(1);
    let handler = move |_: &mut Request| {
        let (begun, goes_on) = (begun.clone(), goes_on.clone());
        Response::later(Box::new(Held { begun, goes_on }))
    };
    go_on.send(()).unwrap();
    let builder = Server::builder().listen("127.0.0.1:0").workers(1);
    let builder = builder.request_timeout(Duration::from_millis(200));
    let server = builder.handler(handler).start().unwrap();
    let reply = reply(ask(&server, "/"));
    assert!(reply.starts_with("HTTP/1.1 504 "), "{reply}");
    has_begun.recv_timeout(PATIENCE).expect("it has begun");
    await_that("it is counted", || {
        let totals = server.health().snapshot().totals;
        (totals.timeouts, totals.late) == (1, 1)
    });
}

/// Cannot be waited for.
struct Unwatchable;

impl Waiting for Unwatchable {
    fn watch(&mut self, _: &Signals<'_>) -> io::Result<()> {
        Err(io::ErrorKind::OutOfMemory.into())
    }

    fn due(&self) -> Instant {
        unreachable!("nobody waits for it")
    }

    fn resume(self: Box<Self>, _: &Request, _: Trigger, _: Instant) -> Resumed {
        unreachable!("nobody waits for it")
    }
}

#[test]
fn one_that_cannot_be_watched_is_500_and_keeps_no_place() {
    let builder = Server::builder().listen("127.0.0.1:0").workers(1);
    let handler = |_: &mut Request| Response::later(Box::new(Unwatchable));
    let server = builder.handler(handler).start().unwrap();
    for _ in 0..3 {
        let reply = reply(ask(&server, "/"));
        assert!(reply.starts_with("HTTP/1.1 500 "), "{reply}");
    }
    await_that("nothing is left", || {
        let now = server.health().snapshot();
        (now.in_flight, now.totals.failed, now.totals.late) == (0, 3, 0)
    });
}

#[test]
fn one_that_is_due_goes_on_though_nothing_has_come() {
    let (server, _puts) = serve(Duration::from_millis(5));
    for (path, said) in [("/", "due"), ("/works", "due, worked")] {
        let reply = reply(ask(&server, path));
        assert!(reply.ends_with(&format!("\r\n\r\n{said}")), "{reply}");
    }
}

#[test]
fn a_panic_is_500_and_the_event_loop_lives() {
    let (server, _puts) = serve(Duration::from_millis(1));
    for _ in 0..3 {
        let reply = reply(ask(&server, "/panics"));
        assert!(reply.starts_with("HTTP/1.1 500 "), "{reply}");
    }
    assert_eq!(server.health().snapshot().totals.panics, 3);
    assert!(reply(ask(&server, "/")).ends_with("due"));
}
