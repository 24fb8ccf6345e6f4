//! Services that hang: wherever they do, the client has its answer in time, and what was cut is seen to be cut.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::Server;
use plimsoll::proxy::{Proxy, ProxyConfig};
use socket2::{Domain, SockAddr, Socket, Type};

use super::OK;
use crate::kit::process::TempDir;
use crate::kit::{Client, Framing, Reply, Upstream, quiet, wait_until};

/// How long a client waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// By when it has it, on a machine that does other things too: far from a second try, and from any other timeout here.
const IN_TIME: Duration = Duration::from_secs(3);

#[track_caller]
fn serve(config: ProxyConfig) -> Server {
    let proxy = Proxy::start(config).expect("it starts");
    let server = proxy.on(quiet(4).request_timeout(TIMEOUT).max_body(16 << 20));
    server.start().expect("the server starts")
}

/// A queue of connections that is full: TCP does not answer the next one, and on a Unix socket it waits.
struct Full {
    _listener: Socket,
    _queued: Vec<Socket>,
}

impl Full {
    fn at(address: &SockAddr) -> (Self, SockAddr) {
        let domain = address.domain();
        let listener = Socket::new(domain, Type::STREAM, None).expect("a socket");
        listener.bind(address).expect("it is free");
        listener.listen(0).expect("it listens");
        let address = listener.local_addr().expect("it is bound");
        let mut queued = Vec::new();
        loop {
            let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
            socket.set_nonblocking(true).expect("a mode");
            let connected = socket.connect(&address);
            queued.push(socket);
            let is_full = match connected {
                Ok(()) => false,
                Err(error) if domain == Domain::UNIX => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    true
                }
                // It was not told at once; with room it is soon.
                Err(_) => {
                    thread::sleep(Duration::from_millis(50));
                    queued
                        .last()
                        .is_some_and(|socket| socket.peer_addr().is_err())
                }
            };
            if is_full {
                return (
                    Self {
                        _listener: listener,
                        _queued: queued,
                    },
                    address,
                );
            }
            assert!(queued.len() < 100, "its queue is never full");
        }
    }
}

/// Takes connections, and never reads.
fn deaf() -> (SocketAddr, thread::JoinHandle<Option<TcpStream>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    let accepting = thread::spawn(move || listener.accept().ok().map(|(stream, _)| stream));
    (address, accepting)
}

/// Says a piece again and again, for longer than anybody waits.
fn trickling(first: &'static str, piece: &'static str) -> Upstream {
    Upstream::start(move |_, stream| {
        stream.write_all(first.as_bytes())?;
        loop {
            thread::sleep(TIMEOUT / 10);
            stream.write_all(piece.as_bytes())?;
        }
    })
}

/// Wants a request to be answered with 504 when its time is over.
#[track_caller]
fn check(what: &str, url: String, request: &[u8], error: &str) {
    let server = serve(ProxyConfig::to([url]));
    // Where the machine is late, the server's own 504 comes first, at its own deadline, and knows no reason: then once more.
    let told = (0..5).find_map(|_| {
        let began = Instant::now();
        let mut client = Client::connect(server.local_addr());
        client.send(request);
        let reply = client.reply();
        let took = began.elapsed();
        assert_eq!(reply.status, 504, "{what}: {reply:?}");
        let told = reply.header("Proxy-Status").map(str::to_owned);
        let least = if told.is_some() { TIMEOUT / 2 } else { TIMEOUT };
        assert!(
            (least..IN_TIME).contains(&took),
            "{what}: {took:?} {told:?}"
        );
        told
    });
    assert_eq!(told, Some(format!("plimsoll; error={error}")), "{what}");
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_service_that_hangs_at_any_point_is_504_in_time() {
    const NO_ANSWER: &str = "http_response_timeout";
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (_full, address) = Full::at(&loopback.into());
    let address = address.as_socket().expect("an address of IPv4");
    check(
        "no SYN-ACK",
        format!("http://{address}"),
        GET,
        "connection_timeout",
    );

    let directory = TempDir::new("full");
    let path = directory.path().join("app.sock");
    let (_full, _) = Full::at(&SockAddr::unix(&path).expect("a short path"));
    check(
        "a full queue",
        format!("unix:{}", path.display()),
        GET,
        "connection_timeout",
    );

    let upstream = Upstream::hanging();
    check("no head", upstream.url(), GET, NO_ANSWER);

    let half = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le")?;
        stream.read(&mut [0]).map(|_| ())
    });
    check("half a head", half.url(), GET, NO_ANSWER);

    let slow = trickling("HTTP/1.1 200 OK\r\nX: ", "x");
    check("a head byte by byte", slow.url(), GET, NO_ANSWER);

    let early = trickling("", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let server = serve(ProxyConfig::to([early.url()]));
    let began = Instant::now();
    let mut client = Client::connect(server.local_addr());
    let reply = client.get("/").reply();
    // Interim replies go with the final one, which never came.
    assert_eq!(reply.status, 504, "{reply:?}");
    assert!(began.elapsed() < IN_TIME);

    let (address, deaf) = deaf();
    let body = vec![b'x'; 12 << 20];
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let post = [head.as_bytes(), &body].concat();
    check(
        "a request that nobody takes",
        format!("http://{address}"),
        &post,
        "connection_write_timeout",
    );
    drop(deaf.join().expect("no panic"));
}

/// Reads a reply whose service stalls: how long that took.
fn stalled(head: &'static str) -> (Reply, Duration) {
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(head.as_bytes())?;
        stream.read(&mut [0]).map(|_| ())
    });
    let config = ProxyConfig {
        body_idle: TIMEOUT,
        ..ProxyConfig::to([upstream.url()])
    };
    let server = serve(config);
    let mut client = Client::connect(server.local_addr());
    let began = Instant::now();
    let reply = client.get("/").try_reply().expect("a head");
    (reply, began.elapsed())
}

#[test]
fn a_stalled_body_is_cut_visibly_however_it_is_framed() {
    for (fields, framing) in [
        ("Content-Length: 10\r\n\r\nabc", Framing::Length),
        (
            "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
            Framing::Chunked,
        ),
        ("\r\nabc", Framing::Chunked),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\n{fields}").leak();
        let (reply, took) = stalled(head);
        assert_eq!((reply.status, reply.framing), (200, framing), "{fields}");
        assert_eq!(reply.body, b"abc", "{fields}");
        assert!(!reply.whole, "{fields}");
        assert!(took >= TIMEOUT && took < IN_TIME, "{fields}: {took:?}");
    }
}

/// The time of a request ends with the head, and that of a silence with each byte.
#[test]
fn a_stream_that_says_something_lives_for_as_long_as_it_likes() {
    const EVENTS: u32 = 20;
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        for _ in 0..EVENTS {
            thread::sleep(TIMEOUT / 5);
            stream.write_all(b"6\r\nevent\n\r\n")?;
        }
        stream.write_all(b"0\r\n\r\n")
    });
    let config = ProxyConfig {
        // So long that a busy machine does not reach it between two events.
        body_idle: EVENTS * TIMEOUT / 5,
        ..ProxyConfig::to([upstream.url()])
    };
    let server = serve(config);
    let mut client = Client::connect(server.local_addr());
    let began = Instant::now();
    let reply = client.get("/events").reply();
    assert_eq!(reply.text(), "event\n".repeat(EVENTS as usize));
    assert!(began.elapsed() > 3 * TIMEOUT);
}

#[test]
fn a_service_on_a_unix_socket_is_kept_connected_to_and_its_absence_is_told() {
    let directory = TempDir::new("sidecar-unix");
    let path = directory.path().join("app.sock");
    let server = serve(ProxyConfig {
        retries: 0,
        ..ProxyConfig::to([format!("unix:{}", path.display())])
    });
    let mut client = Client::connect(server.local_addr());
    let reply = client.get("/").reply();
    assert_eq!(reply.status, 502, "{reply:?}");
    let told = reply.header("Proxy-Status");
    assert_eq!(told, Some("plimsoll; error=connection_refused"));

    let listener = UnixListener::bind(&path).expect("a socket");
    // One connection does for all.
    let service = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        while is_asked(&mut stream) {
            stream.write_all(OK.as_bytes()).expect("it is taken");
        }
    });
    for _ in 0..10 {
        assert_eq!(client.get("/").reply().text(), "hello");
    }
    drop(server);
    wait_until("the connection ends", || service.is_finished());
    service.join().expect("no panic");
}

/// Whether another request comes.
fn is_asked(stream: &mut UnixStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}
