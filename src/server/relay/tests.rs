use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::{OnEnd, Relay, Tunnel};
use crate::net::client::{self, Call};
use crate::net::pool::{Pool, Reuse};
use crate::patterns::Deadline;
use crate::server::Server;
use crate::server::handler::Handler;
use crate::server::request::Request;
use crate::server::response::Response;
use crate::server::tests::{PATIENCE, await_that};

/// Nothing is on its way any more, so a short drain does.
const STOP: Duration = Duration::from_millis(100);

/// Another server: each of its connections runs `serve` for each request head that comes.
fn upstream(
    serve: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let (count, serve) = (accepted.clone(), Arc::new(serve));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let serve = serve.clone();
            thread::spawn(move || {
                while let Some(head) = head_of(&mut stream) {
                    serve(&head, &mut stream);
                }
            });
        }
    });
    (address, accepted)
}

/// A head, read byte by byte so that nothing behind it is taken; none at the connection's end.
fn head_of(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(head).unwrap())
}

/// Relays each request's reply, or a tunnel to where the request asks for one.
struct Relaying {
    pool: Arc<Pool>,
    idle: Duration,
    ends: Arc<Ends>,
}

/// How many bodies came whole, how many failed, and how many bodies and tunnels are still on their way.
#[derive(Debug, Default)]
struct Ends {
    whole: AtomicUsize,
    failed: AtomicUsize,
    pending: AtomicUsize,
}

impl Ends {
    fn read(&self) -> [usize; 3] {
        [&self.whole, &self.failed, &self.pending].map(|count| count.load(Ordering::SeqCst))
    }
}

struct Counting(Arc<Ends>);

impl Counting {
    fn new(ends: &Arc<Ends>) -> Self {
        ends.pending.fetch_add(1, Ordering::SeqCst);
        Self(ends.clone())
    }
}

impl OnEnd for Counting {
    fn ended(&mut self, whole: bool) {
        let count = if whole { &self.0.whole } else { &self.0.failed };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Relaying {
    fn handle(&self, request: &mut Request) -> Response {
        if request.path() == "/own" {
            return Response::text(200, "own");
        }
        let upgrade = request.header("Upgrade").is_some();
        let extra = if upgrade {
            "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        } else {
            ""
        };
        let head = format!("GET {} HTTP/1.1\r\nHost: a\r\n{extra}\r\n", request.url());
        let outgoing = client::Request {
            method: "GET",
            head: head.as_bytes(),
            body: &[],
            upgrade,
            reuse: Reuse::Any,
        };
        let deadline = Deadline::after(request.remaining());
        let cancelled = || request.abandoned();
        let reply = Call::begin(&self.pool, &outgoing, deadline)
            .and_then(|call| call.finish(&outgoing, deadline, Some(&cancelled)));
        let reply = reply.expect("the other server answers");
        let length = match reply.head.framing {
            crate::http::body::Framing::Length(length) => Some(length),
            _ => None,
        };
        let status = reply.head.status;
        let parts = reply.body.into_parts().expect("there is more");
        let on_end = Box::new(Counting::new(&self.ends));
        if status == 101 {
            let tunnel = Tunnel::new(parts, self.idle, on_end);
            return Response::switching("websocket".to_owned(), tunnel);
        }
        Response::relayed(
            status,
            Relay::new(parts, self.idle, Some(|_| true), on_end),
            length,
        )
    }
}

fn relaying(address: SocketAddr, workers: usize, idle: Duration) -> (Server, Arc<Ends>) {
    let pool = Pool::new(address.into());
    let ends = Arc::new(Ends::default());
    let handler = Relaying {
        pool,
        idle,
        ends: ends.clone(),
    };
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(workers)
        .queue_budget(PATIENCE)
        .handler(handler)
        .start()
        .unwrap();
    (server, ends)
}

fn ask(address: SocketAddr, head: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    BufReader::new(stream)
}

fn get(address: SocketAddr, target: &str) -> BufReader<TcpStream> {
    ask(
        address,
        &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
    )
}

/// The next head, in lower case.
fn read_head(reply: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reply.read_line(&mut head).unwrap(), 0, "cut after {head:?}");
    }
    head.to_lowercase()
}

/// The data of a chunked body, and whether it came to its end; each chunk is checked.
fn read_chunks(reply: &mut BufReader<TcpStream>) -> (Vec<u8>, bool) {
    let mut data = Vec::new();
    loop {
        let mut line = String::new();
        if reply.read_line(&mut line).unwrap_or(0) == 0 {
            return (data, false);
        }
        let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        if size == 0 {
            let mut trailers = String::new();
            while !trailers.ends_with("\r\n") || trailers.len() > 2 {
                trailers.clear();
                reply.read_line(&mut trailers).unwrap();
            }
            return (data, true);
        }
        reply.read_exact(&mut chunk).unwrap();
        assert!(chunk.ends_with(b"\r\n"));
        data.extend_from_slice(&chunk[..size]);
    }
}

/// Writes until it is told of an error, as when nobody reads any more.
fn write_all(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

#[test]
fn a_body_that_comes_late_is_relayed_and_both_connections_are_used_again() {
    let (address, accepted) = upstream(|head, stream| {
        let mut send = |text: &[u8]| assert!(write_all(stream, text));
        if head.starts_with("GET /at-once ") {
            // More than comes with the head, and at hand before anybody asks for it.
            let text = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n{:20000}",
                ""
            );
            return send(text.as_bytes());
        }
        if head.starts_with("GET /chunked ") {
            send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n");
            for piece in ["3\r\nabc\r\n", "2", "\r\nde\r\n0\r", "\nx: y\r\n\r\n"] {
                thread::sleep(Duration::from_millis(5));
                send(piece.as_bytes());
            }
        } else {
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
            for byte in b"whole" {
                thread::sleep(Duration::from_millis(5));
                send(&[*byte]);
            }
        }
    });
    let (server, ends) = relaying(address, 2, PATIENCE);
    let mut client = get(server.local_addr(), "/chunked");
    for round in 0..3 {
        if round > 0 {
            let again = b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n";
            client.get_mut().write_all(again).unwrap();
        }
        let head = read_head(&mut client);
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        assert_eq!(read_chunks(&mut client), (b"abcde".to_vec(), true));
        let again = b"GET /length HTTP/1.1\r\nHost: a\r\n\r\n";
        client.get_mut().write_all(again).unwrap();
        assert!(read_head(&mut client).contains("content-length: 5\r\n"));
        let mut body = [0; 5];
        client.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"whole");
        let again = b"GET /at-once HTTP/1.1\r\nHost: a\r\n\r\n";
        client.get_mut().write_all(again).unwrap();
        assert!(read_head(&mut client).contains("content-length: 20000\r\n"));
        client.read_exact(&mut vec![0; 20_000]).unwrap();
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 1);
    await_that("nine have ended", || ends.read()[0] >= 9);
    await_that("all are counted", || {
        server.health().snapshot().totals.served >= 6
    });
    server.shutdown(STOP).unwrap();
}

/// The client reads nothing for a while: the other server has to wait, and nobody keeps what it has for them.
#[test]
fn a_large_body_waits_for_a_client_that_does_not_read() {
    const LENGTH: usize = 32 * 1024 * 1024;
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let (address, _) = upstream(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
        assert!(write_all(stream, head.as_bytes()));
        for piece in pattern(LENGTH).chunks(64 * 1024) {
            if !write_all(stream, piece) {
                return;
            }
            counted.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let (server, _) = relaying(address, 1, PATIENCE);
    let mut client = get(server.local_addr(), "/");
    assert!(read_head(&mut client).contains("200"));
    let mut stood_still = (0, Instant::now());
    await_that("the other server has to wait", || {
        let now = written.load(Ordering::SeqCst);
        if now != stood_still.0 {
            stood_still = (now, Instant::now());
        }
        now > 0 && stood_still.1.elapsed() > Duration::from_millis(300)
    });
    assert!(stood_still.0 < LENGTH, "32 MiB are somewhere between");
    // The only worker is free meanwhile.
    let mut other = get(server.local_addr(), "/own");
    assert!(read_head(&mut other).contains("200"));
    let mut body = vec![0; LENGTH];
    client.read_exact(&mut body).unwrap();
    assert!(body == pattern(LENGTH));
    server.shutdown(STOP).unwrap();
}

#[test]
fn streams_that_are_silent_hold_no_worker_and_end_with_their_clients() {
    const STREAMS: usize = 100;
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    let (address, _) = upstream(move |_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
        assert!(write_all(stream, head));
        // Until plimsoll closes it.
        let count = stream.read(&mut [0]).unwrap_or(0);
        assert_eq!(count, 0);
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let (server, ends) = relaying(address, 1, PATIENCE);
    let mut clients: Vec<_> = (0..STREAMS)
        .map(|_| get(server.local_addr(), "/events"))
        .collect();
    for client in &mut clients {
        assert!(read_head(client).contains("chunked"));
        let mut chunk = [0; 14];
        client.read_exact(&mut chunk).unwrap();
        assert_eq!(&chunk, b"00000002\r\nhi\r\n");
    }
    let mut other = get(server.local_addr(), "/own");
    assert!(read_head(&mut other).contains("200"));
    for client in &clients {
        // A reset, as a client gives that leaves: an end alone only says that it sends nothing more.
        let socket = socket2::SockRef::from(client.get_ref());
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(clients);
    await_that("the other server is told", || {
        ended.load(Ordering::SeqCst) == STREAMS
    });
    // That a client leaves tells nothing about the other server.
    await_that("their ends are told", || ends.read() == [0, 0, 0]);
    server.shutdown(STOP).unwrap();
}

#[test]
fn a_body_that_ends_short_or_stalls_is_cut_and_counted_as_failed() {
    let (address, _) = upstream(|head, stream| {
        if head.starts_with("GET /bad") {
            let bad = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n";
            assert!(write_all(stream, bad));
            thread::sleep(Duration::from_millis(20));
            write_all(stream, b"abc");
        } else if head.starts_with("GET /length") {
            let short = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
            assert!(write_all(stream, short));
        } else {
            let short = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n";
            assert!(write_all(stream, short));
        }
        if head.starts_with("GET /stall") {
            let _ = stream.read(&mut [0]);
        }
        let _ = stream.shutdown(Shutdown::Both);
    });
    let (server, ends) = relaying(address, 1, Duration::from_millis(100));
    for target in ["/short", "/stall", "/bad"] {
        let mut client = get(server.local_addr(), target);
        read_head(&mut client);
        assert!(!read_chunks(&mut client).1, "{target}");
    }
    let mut client = get(server.local_addr(), "/length");
    read_head(&mut client);
    let mut body = Vec::new();
    let _ = client.read_to_end(&mut body);
    assert!(body.len() < 5);
    await_that("all are counted", || {
        let now = server.health().snapshot();
        (now.totals.failed, now.totals.cut) == (4, 4)
    });
    await_that("their ends are told", || ends.read() == [0, 4, 0]);
    server.shutdown(STOP).unwrap();
}

#[test]
fn a_client_of_http_1_0_gets_the_body_until_the_end() {
    let (address, _) = upstream(|_, stream| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(write_all(stream, head));
        thread::sleep(Duration::from_millis(10));
        assert!(write_all(stream, b"3\r\nabc\r\n0\r\n\r\n"));
    });
    let (server, _) = relaying(address, 1, PATIENCE);
    let mut client = ask(server.local_addr(), "GET / HTTP/1.0\r\n\r\n");
    assert!(!read_head(&mut client).contains("chunked"));
    let mut body = String::new();
    client.read_to_string(&mut body).unwrap();
    assert_eq!(body, "abc");
    server.shutdown(STOP).unwrap();
}

const SWITCH: &str =
    "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A server that switches, and then gives back all that comes, until its end.
fn echo() -> SocketAddr {
    let (address, _) = upstream(|_, stream| {
        let head = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi";
        assert!(write_all(stream, head));
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if !write_all(stream, &buffer[..count]) {
                return;
            }
        }
        let _ = stream.shutdown(Shutdown::Write);
    });
    address
}

#[test]
fn a_tunnel_carries_both_directions_and_half_an_end() {
    const LENGTH: usize = 4 * 1024 * 1024;
    let (server, _) = relaying(echo(), 1, PATIENCE);
    // Its first bytes come right behind the request.
    let mut client = ask(server.local_addr(), &format!("{SWITCH}early"));
    let head = read_head(&mut client);
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    let mut first = [0; 7];
    client.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"hiearly");
    let mut writer = client.get_ref().try_clone().unwrap();
    let sent = pattern(LENGTH);
    let sender = thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // The only worker is free meanwhile.
    let mut other = get(server.local_addr(), "/own");
    assert!(read_head(&mut other).contains("200"));
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert!(back == pattern(LENGTH), "{} bytes came", back.len());
    sender.join().unwrap();
    await_that("it is counted", || {
        server.health().snapshot().totals.served == 2
    });
    server.shutdown(STOP).unwrap();
}

#[test]
fn a_silent_tunnel_ends_and_one_that_speaks_stays() {
    let idle = Duration::from_secs(1);
    let (server, _) = relaying(echo(), 1, idle);
    let mut client = ask(server.local_addr(), SWITCH);
    read_head(&mut client);
    let mut first = [0; 2];
    client.read_exact(&mut first).unwrap();
    let began = Instant::now();
    while began.elapsed() < 2 * idle {
        client.get_mut().write_all(b"x").unwrap();
        client.read_exact(&mut [0]).unwrap();
        thread::sleep(idle / 20);
    }
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    await_that("it is counted", || {
        server.health().snapshot().totals.served == 1
    });
    server.shutdown(STOP).unwrap();
}

#[test]
fn a_drain_ends_streams_and_tunnels_at_its_end_only() {
    let (server, _) = relaying(echo(), 1, PATIENCE);
    let mut client = ask(server.local_addr(), SWITCH);
    read_head(&mut client);
    let began = Instant::now();
    let time = Duration::from_millis(500);
    let stopped = thread::spawn(move || server.shutdown(time));
    let mut first = [0; 2];
    client.read_exact(&mut first).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert!(began.elapsed() >= time);
    // What is cut is said.
    assert!(stopped.join().unwrap().is_err());
}
