//! Requests that wait for the service with no worker: what ends the wait, and what does not.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::Server;
use plimsoll::proxy::{BreakerMode, Proxy, ProxyConfig};

use super::{OK, serve};
use crate::kit::{Client, Latch, PATIENCE, Upstream, get, pattern, quiet, settle, wait_until};

/// Less than what a client is patient for, and more than what a busy machine makes of a moment.
const SHORT: Duration = Duration::from_millis(300);

fn to(upstreams: &[&Upstream]) -> ProxyConfig {
    ProxyConfig {
        breaker: BreakerMode::Off,
        ..ProxyConfig::to(upstreams.iter().map(|upstream| upstream.url()))
    }
}

/// Answers once the latch is open.
fn held(latch: &Arc<Latch>) -> Upstream {
    let latch = latch.clone();
    Upstream::start(move |_, stream| {
        latch.pass();
        stream.write_all(OK.as_bytes())
    })
}

#[test]
fn hundreds_wait_and_hold_no_worker() {
    const MANY: usize = 500;
    let latch = Arc::new(Latch::default());
    let upstream = held(&latch);
    // So many connections at once may have to wait for a busy machine.
    let config = ProxyConfig {
        connect_timeout: PATIENCE,
        ..to(&[&upstream])
    };
    let server = serve(config, MANY);
    let mut clients = Client::asking(server.local_addr(), MANY);
    latch.wait_for(MANY);
    wait_until("no worker is held", || {
        let now = server.health().snapshot();
        (now.workers_busy, now.in_flight) == (0, MANY)
    });
    latch.open();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "hello");
    }
    settle(&server);
}

#[test]
fn the_service_gets_as_many_at_once_as_there_are_workers() {
    let latch = Arc::new(Latch::default());
    let upstream = held(&latch);
    let server = serve(to(&[&upstream]), 2);
    let mut clients = Client::asking(server.local_addr(), 5);
    latch.wait_for(2);
    wait_until("the others wait for their turn", || {
        let now = server.health().snapshot();
        (now.in_flight, now.queue) == (2, 3)
    });
    assert_eq!(upstream.asked().len(), 2);
    latch.open();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "hello");
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn one_that_waits_when_the_time_is_over_is_answered_and_its_connection_closed() {
    for beginning in ["", "HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 103 x\r\n\r\n"] {
        let upstream = Upstream::silent(beginning);
        let proxy = Proxy::start(to(&[&upstream])).expect("it starts");
        let server = quiet(1).handler(proxy).request_timeout(SHORT);
        let server = server.start().expect("the server starts");
        let began = Instant::now();
        let reply = get(server.local_addr(), "/");
        let why = reply.header("Proxy-Status");
        assert_eq!(
            (reply.status, why),
            (504, Some("plimsoll; error=http_response_timeout"))
        );
        assert!(began.elapsed() < PATIENCE);
        wait_until("the service is left", || {
            (upstream.asked().len(), upstream.open()) == (1, 0)
        });
    }
}

#[test]
fn a_try_that_hangs_is_followed_by_one_elsewhere() {
    for beginning in ["", "HTTP/1.1 200 OK\r\nX: "] {
        let hanging = Upstream::silent(beginning);
        let good = Upstream::answering(OK);
        let config = ProxyConfig {
            try_timeout: Some(SHORT),
            ..to(&[&hanging, &good])
        };
        let server = serve(config, 1);
        wait_until("the one that hangs is tried", || {
            assert_eq!(get(server.local_addr(), "/").text(), "hello");
            !hanging.asked().is_empty()
        });
        wait_until("it is left", || hanging.open() == 0);
    }
}

/// What is put off must not wait for a moment at which the event loop would have woken anyway.
#[test]
fn a_try_is_over_in_time_on_an_idle_server() {
    let hanging = Upstream::hanging();
    let config = ProxyConfig {
        try_timeout: Some(Duration::from_millis(20)),
        retries: 0,
        ..to(&[&hanging])
    };
    let server = serve(config, 1);
    let quickest = (0..5).map(|_| {
        let began = Instant::now();
        assert_eq!(get(server.local_addr(), "/").status, 504);
        began.elapsed()
    });
    let quickest = quickest.min().expect("some");
    assert!(quickest < Duration::from_millis(200), "{quickest:?}");
}

#[test]
fn a_connection_that_closes_under_a_request_is_followed_by_a_new_one() {
    let upstream = Upstream::start(|asked, stream| {
        if asked.line().starts_with("GET /again") {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        stream.write_all(OK.as_bytes())
    });
    let server = serve(
        ProxyConfig {
            retries: 0,
            ..to(&[&upstream])
        },
        1,
    );
    let mut client = Client::connect(server.local_addr());
    for _ in 0..3 {
        assert_eq!(client.get("/").reply().status, 200);
        // On the kept connection, and then on a new one: both end.
        assert_eq!(client.get("/again").reply().status, 502);
    }
    let again = upstream
        .asked()
        .iter()
        .filter(|asked| asked.line().starts_with("GET /again"))
        .count();
    assert_eq!(again, 6, "each went to two connections");
}

#[test]
fn a_client_that_closes_ends_the_request_that_waits() {
    let upstream = Upstream::hanging();
    let server = serve(to(&[&upstream]), 2);
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    wait_until("the service is asked", || upstream.asked().len() == 1);
    let began = Instant::now();
    drop(client);
    wait_until("the service is left", || upstream.open() == 0);
    // 2 s by the rule, and room for a busy machine.
    assert!(began.elapsed() < Duration::from_secs(5));
    settle(&server);
}

#[test]
fn a_client_that_only_says_it_sends_no_more_gets_a_quick_answer() {
    let upstream = Upstream::answering(OK);
    let server = serve(to(&[&upstream]), 2);
    for _ in 0..10 {
        let mut client = Client::connect(server.local_addr());
        client.get("/").finish();
        assert_eq!(client.reply().text(), "hello");
    }
    // It has ended before its request is sent on, and is given up only later.
    let silent = Upstream::hanging();
    let server = serve(to(&[&silent]), 2);
    let mut client = Client::connect(server.local_addr());
    client.get("/").finish();
    client.expect_close();
    wait_until("the service is left", || {
        (silent.asked().len(), silent.open()) == (1, 0)
    });
}

#[test]
fn a_drain_waits_for_the_answer_of_the_service() {
    let latch = Arc::new(Latch::default());
    let upstream = held(&latch);
    let server = serve(to(&[&upstream]), 2);
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    latch.wait_for(1);
    thread::scope(|scope| {
        let health = server.handle();
        let stopping = scope.spawn(|| server.shutdown(PATIENCE / 6));
        wait_until("it drains", || health.health().snapshot().draining);
        latch.open();
        let reply = client.reply();
        assert_eq!((reply.status, reply.text()), (200, "hello"));
        assert_eq!(reply.header("Connection"), Some("close"));
        stopping.join().expect("no panic").expect("nothing is cut");
    });
}

#[test]
fn a_drain_that_is_over_cuts_what_waits() {
    let upstream = Upstream::hanging();
    let server = serve(to(&[&upstream]), 2);
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    wait_until("the service is asked", || upstream.asked().len() == 1);
    let stopped = server.shutdown(Duration::ZERO);
    assert!(
        matches!(stopped, Err(plimsoll::Error::Cut(1))),
        "{stopped:?}"
    );
    wait_until("the service is left", || upstream.open() == 0);
}

/// A body that the service does not take at once goes on as it is taken, with no worker.
#[test]
fn a_large_request_is_sent_as_the_service_takes_it() {
    let body = vec![b'x'; 16 << 20];
    let latch = Arc::new(Latch::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (held, length) = (latch.clone(), body.len());
    let service = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        held.pass();
        read_large(&mut stream, length);
        stream.write_all(OK.as_bytes()).expect("it is taken");
    });
    let server = taking_large(address);
    let mut client = Client::connect(server.local_addr());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.send(&body);
    latch.wait_for(1);
    wait_until("no worker is held", || {
        let now = server.health().snapshot();
        (now.workers_busy, now.in_flight) == (0, 1)
    });
    latch.open();
    assert_eq!(client.reply().text(), "hello");
    service.join().expect("the whole body came");
}

/// Its answer's body filled all buffers, and nobody sent what it waited for.
#[test]
fn a_service_that_answers_while_it_takes_the_request_gets_all_of_it() {
    let length = 16 << 20;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let service = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        read_head(&mut stream);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
        )
        .expect("a head");
        let mut body = stream
            .try_clone()
            .expect("a descriptor")
            .take(length as u64);
        io::copy(&mut body, &mut stream).expect("an echo")
    });
    let server = taking_large(address);
    let mut client = Client::connect(server.local_addr());
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    let body = pattern(length);
    client.send(&body);
    assert!(client.reply().body == body, "the echo is another");
    assert_eq!(service.join().expect("it ends"), length as u64);
    wait_until("the body's room is free", || {
        server.health().snapshot().body_bytes == 0
    });
}

/// A sidecar with one worker, which takes large bodies.
fn taking_large(address: SocketAddr) -> Server {
    let proxy = Proxy::start(ProxyConfig::to([format!("http://{address}")]));
    quiet(1)
        .max_body(32 << 20)
        .max_bodies(64 << 20)
        .handler(proxy.expect("it starts"))
        .start()
        .expect("the server starts")
}

/// Reads a head, and a body of x of that length.
fn read_large(stream: &mut TcpStream, length: usize) {
    read_head(stream);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    assert!(body.iter().all(|byte| *byte == b'x'));
}

#[test]
fn an_answer_before_the_whole_request_is_taken() {
    let upstream = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = upstream.local_addr().expect("it is bound");
    let service = thread::spawn(move || {
        let (mut stream, _) = upstream.accept().expect("a connection");
        stream
            .write_all(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
            .expect("it is taken");
        stream.shutdown(Shutdown::Write).expect("an end");
        // It stays until the other side has had enough.
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let server = taking_large(address);
    let mut client = Client::connect(server.local_addr());
    let length = 16 << 20;
    client.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"
    ));
    client.send(vec![b'x'; length]);
    let reply = client.reply();
    assert_eq!((reply.status, reply.text()), (413, "big"));
    drop(server);
    service.join().expect("the service ends");
}

fn read_head(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
}
