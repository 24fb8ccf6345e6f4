use std::io::BufRead;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::super::pool::MOST_IDLE;
use super::super::stream::Address;
use super::*;
use crate::http::fields;

const PATIENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(150);

/// A server on loopback that plays its script on each connection, each in a thread of its own. The threads end with
/// their connections, at the latest when the pool is dropped.
struct Upstream {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Upstream {
    fn start(script: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let (count, script) = (connections.clone(), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                count.fetch_add(1, Ordering::SeqCst);
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
                stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
                stream.set_nodelay(true).expect("no delay");
                let script = script.clone();
                thread::spawn(move || script(&mut stream));
            }
        });
        Self {
            address,
            connections,
        }
    }

    /// Answers each request on a connection with the next of those, then closes it.
    fn answering(replies: &[&str]) -> Self {
        let replies: Vec<_> = replies.iter().map(|&reply| reply.to_owned()).collect();
        Self::start(move |stream| {
            for reply in &replies {
                if read_head(stream).is_none() {
                    return;
                }
                // The client may have heard enough.
                let _ = stream.write_all(reply.as_bytes());
            }
        })
    }

    /// The same, and does not close the connection.
    fn holding(reply: &str) -> Self {
        let reply = reply.to_owned();
        Self::start(move |stream| {
            while read_head(stream).is_some() {
                let _ = stream.write_all(reply.as_bytes());
            }
        })
    }

    fn pool(&self) -> Arc<Pool> {
        Pool::new(self.address.into())
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Reads a request's head; none if the connection ends before.
fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return None,
        }
    }
    String::from_utf8(head).ok()
}

const GET: Request<'static> = Request {
    method: "GET",
    head: b"GET / HTTP/1.1\r\nHost: upstream\r\n\r\n",
    body: b"",
    upgrade: false,
    reuse: Reuse::Any,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn send(pool: &Arc<Pool>, request: &Request<'_>, timeout: Duration) -> Result<Reply, ClientError> {
    let deadline = Deadline::after(timeout);
    Call::begin(pool, request, deadline)?.finish(request, deadline, None)
}

#[track_caller]
fn get(pool: &Arc<Pool>) -> Reply {
    send(pool, &GET, PATIENCE).expect("a response")
}

#[track_caller]
fn read(mut reply: Reply) -> String {
    let mut body = String::new();
    reply.body.read_to_string(&mut body).expect("a whole body");
    body
}

#[track_caller]
fn failure(upstream: &Upstream) -> ClientError {
    send(&upstream.pool(), &GET, PATIENCE).expect_err("no response")
}

impl ReplyBody {
    /// Whether all of the body has been read.
    fn is_complete(&self) -> bool {
        let ended = self.connection.is_none() && self.decoder.is_whole_at_close();
        self.decoder.is_complete() || ended
    }

    /// The trailer fields so far, see [`fields::iterate`].
    fn trailers(&self) -> &[u8] {
        self.decoder.trailers()
    }
}

#[test]
fn a_connection_is_kept_after_a_whole_body() {
    for reply in [
        OK,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let upstream = Upstream::holding(reply);
        let pool = upstream.pool();
        for _ in 0..3 {
            assert_eq!(read(get(&pool)), "hello");
            assert_eq!(pool.len(), 1, "{reply:?}");
        }
        assert_eq!(upstream.connections(), 1);
    }
    let upstream = Upstream::holding("HTTP/1.1 204 No Content\r\n\r\n");
    let pool = upstream.pool();
    drop(get(&pool));
    assert_eq!(pool.len(), 1, "there was no body to read");
}

#[test]
fn a_connection_is_not_kept_after_anything_else() {
    for (reply, request) in [
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
            GET,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", GET),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\n\r\n",
            GET,
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n", GET),
        (OK, Request { body: b"x", ..GET }),
        (
            OK,
            Request {
                method: "DELETE",
                body: b"x",
                ..GET
            },
        ),
    ] {
        let upstream = Upstream::holding(reply);
        let pool = upstream.pool();
        let reply = send(&pool, &request, PATIENCE).expect("a response");
        assert_eq!(read(reply), "hello");
        assert_eq!(pool.len(), 0, "{request:?}");
    }
    let upstream = Upstream::holding(OK);
    let pool = upstream.pool();
    drop(get(&pool));
    assert_eq!(pool.len(), 0, "the body was not read");
    let post = Request {
        method: "POST",
        body: b"x",
        ..GET
    };
    read(send(&pool, &post, PATIENCE).expect("a response"));
    assert_eq!(pool.len(), 1, "a POST has a body");
}

#[test]
fn at_most_as_many_connections_are_kept_as_said() {
    let upstream = Upstream::holding(OK);
    let pool = upstream.pool();
    let replies: Vec<_> = (0..=MOST_IDLE).map(|_| get(&pool)).collect();
    for reply in replies {
        read(reply);
    }
    assert_eq!(pool.len(), MOST_IDLE);
}

#[test]
fn a_kept_connection_that_closes_instead_of_answering_is_stale() {
    let upstream = Upstream::start(|stream| {
        read_head(stream);
        stream.write_all(OK.as_bytes()).expect("it is taken");
        // Closes only when the next request has come, as one that is on its way meets a close.
        read_head(stream);
    });
    let pool = upstream.pool();
    read(get(&pool));
    let error = send(&pool, &GET, PATIENCE).expect_err("it closes");
    assert!(matches!(error, ClientError::Stale), "{error:?}");
    assert_eq!(error.token(), "connection_terminated");
    let again = Request {
        reuse: Reuse::Never,
        ..GET
    };
    assert_eq!(
        read(send(&pool, &again, PATIENCE).expect("a new one")),
        "hello"
    );
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_connection_that_was_closed_while_idle_is_not_used() {
    let upstream = Upstream::answering(&[OK]);
    let pool = upstream.pool();
    for round in 1..=3 {
        // Whether the close has come or not: it is either seen, or told as stale.
        match send(&pool, &GET, PATIENCE) {
            Ok(reply) => assert_eq!(read(reply), "hello"),
            Err(ClientError::Stale) => {}
            Err(error) => panic!("round {round}: {error:?}"),
        }
    }
    assert!(upstream.connections() >= 2);
}

#[test]
fn what_is_no_response_is_told_with_its_token() {
    for (said, status, token) in [
        ("", 502, "connection_terminated"),
        ("HTTP/1.1 200 OK\r\nX: ", 502, "http_response_incomplete"),
        ("H", 502, "http_response_incomplete"),
        (
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            502,
            "http_response_incomplete",
        ),
        ("SSH-2.0-x\r\n", 502, "http_protocol_error"),
        (
            "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
            502,
            "http_protocol_error",
        ),
        (
            "HTTP/1.1 101 x\r\nUpgrade: h2c\r\n\r\n",
            502,
            "http_protocol_error",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\n\r\n",
            502,
            "http_response_transfer_coding",
        ),
    ] {
        let error = failure(&Upstream::answering(&[said]));
        assert_eq!((error.status(), error.token()), (status, token), "{said:?}");
    }
    let ClientError::StatusLine(found) = failure(&Upstream::answering(&["+PONG\r\n"])) else {
        panic!("it is no response");
    };
    assert_eq!(found, b"+PONG\r\n");
}

#[test]
fn nobody_there_is_told_apart_from_nobody_in_time() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let pool = Pool::new(gone.expect("a free port").into());
    let error = send(&pool, &GET, PATIENCE).expect_err("nobody listens");
    assert_eq!((error.status(), error.token()), (502, "connection_refused"));
    let missing = Pool::new(std::path::Path::new("/nonexistent/socket").into());
    let error = send(&missing, &GET, PATIENCE).expect_err("no socket");
    assert_eq!((error.status(), error.token()), (502, "connection_refused"));
    let error = send(&pool, &GET, Duration::ZERO).expect_err("no time");
    assert_eq!((error.status(), error.token()), (504, "connection_timeout"));
}

#[test]
fn a_hanging_server_does_not_stretch_the_deadline() {
    let dripping = Upstream::start(|stream| {
        read_head(stream);
        let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\nX: ");
        while sent.is_ok() {
            thread::sleep(Duration::from_millis(2));
            sent = stream.write_all(b"x");
        }
    });
    for upstream in [
        Upstream::holding(""),
        Upstream::holding("HTTP/1.1 200 OK\r\nX: y\r\n"),
        Upstream::holding("HTTP/1.1 100 Continue\r\n\r\n"),
        dripping,
    ] {
        let began = Instant::now();
        let error = send(&upstream.pool(), &GET, SHORT).expect_err("no response");
        assert_eq!(
            (error.status(), error.token()),
            (504, "http_response_timeout")
        );
        assert!(began.elapsed() >= SHORT && began.elapsed() < PATIENCE);
    }
    let body = vec![b'x'; 64 << 20];
    let large = Request {
        method: "POST",
        body: &body,
        ..GET
    };
    let (hang, hanging) = crossbeam_channel::bounded::<()>(0);
    let deaf = Upstream::start(move |_| {
        // Ends when the sender is dropped.
        let _ = hanging.recv();
    });
    let error = send(&deaf.pool(), &large, SHORT).expect_err("it is not read");
    assert_eq!(
        (error.status(), error.token()),
        (504, "connection_write_timeout")
    );
    drop(hang);
}

#[test]
fn a_wait_for_the_head_ends_when_the_response_is_not_wanted_any_more() {
    let upstream = Upstream::holding("");
    let asked = AtomicUsize::new(0);
    let cancelled = || asked.fetch_add(1, Ordering::Relaxed) > 0;
    let deadline = Deadline::after(PATIENCE);
    let call = Call::begin(&upstream.pool(), &GET, deadline).expect("a connection");
    let error = call
        .finish(&GET, deadline, Some(&cancelled))
        .expect_err("it is cancelled");
    assert!(matches!(error, ClientError::Cancelled), "{error:?}");
    assert!(!deadline.is_over());
}

#[test]
fn a_reply_before_the_whole_request_is_taken_and_its_connection_is_not_kept() {
    let (hang, hanging) = crossbeam_channel::bounded::<()>(0);
    let upstream = Upstream::start(move |stream| {
        read_head(stream);
        let reply = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig";
        stream.write_all(reply).expect("it is taken");
        // Reads no more. Ends when the sender is dropped.
        let _ = hanging.recv();
    });
    let body = vec![b'x'; 64 << 20];
    let pool = upstream.pool();
    let large = Request {
        method: "POST",
        body: &body,
        ..GET
    };
    let reply = send(&pool, &large, PATIENCE).expect("a response");
    assert_eq!(reply.head.status, 413);
    assert_eq!(read(reply), "big");
    assert_eq!(pool.len(), 0);
    drop(hang);
}

#[test]
fn a_large_request_arrives_whole() {
    let body = vec![b'x'; 8 << 20];
    let upstream = Upstream::start(move |stream| {
        let mut reader = std::io::BufReader::new(stream.try_clone().expect("the same socket"));
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).expect("a line");
        }
        let mut taken = vec![0; 8 << 20];
        reader.read_exact(&mut taken).expect("the whole body");
        let good = taken.iter().all(|&byte| byte == b'x');
        let reply = if good {
            OK
        } else {
            "HTTP/1.1 400 Bad Request\r\n\r\n"
        };
        stream.write_all(reply.as_bytes()).expect("it is taken");
    });
    let large = Request {
        method: "POST",
        body: &body,
        ..GET
    };
    let pool = upstream.pool();
    let reply = send(&pool, &large, PATIENCE).expect("a response");
    assert_eq!(read(reply), "hello");
    assert_eq!(pool.len(), 1);
}

#[test]
fn interim_replies_are_handed_on() {
    let upstream = Upstream::answering(&[&format!(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{OK}"
    )]);
    let reply = get(&upstream.pool());
    let interim = reply.interim.iter();
    let heard: Vec<_> = interim
        .map(|head| (head.status, head.field("link")))
        .collect();
    assert_eq!(heard, [(102, None), (103, Some(&b"</x>"[..]))]);
    assert_eq!(read(reply), "hello");
}

#[test]
fn a_response_may_come_byte_by_byte() {
    let reply = "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n";
    let upstream = Upstream::start(move |stream| {
        while read_head(stream).is_some() {
            for byte in reply.bytes() {
                stream.write_all(&[byte]).expect("it is taken");
            }
        }
    });
    let pool = upstream.pool();
    for _ in 0..2 {
        let mut reply = get(&pool);
        let mut body = Vec::new();
        // A buffer of one byte, too.
        let mut byte = [0];
        while reply.body.read(&mut byte).expect("a byte") == 1 {
            body.push(byte[0]);
        }
        assert_eq!(body, b"hello world");
        assert!(reply.body.is_complete());
        let trailers: Vec<_> = fields::iterate(reply.body.trailers()).collect();
        assert_eq!(trailers, [("X", &b"y"[..])]);
    }
    assert_eq!((pool.len(), upstream.connections()), (1, 1));
}

#[test]
fn a_body_that_ends_short_is_never_whole() {
    for (said, token) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhell",
            "http_response_incomplete",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "http_response_incomplete",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX",
            "http_protocol_error",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX:\0\r\n\r\n",
            "http_protocol_error",
        ),
    ] {
        let upstream = Upstream::answering(&[said]);
        let pool = upstream.pool();
        let mut reply = get(&pool);
        let error = reply.body.read_to_end(&mut Vec::new()).expect_err(said);
        let error = error.into_inner().expect("an error of the client");
        let error = error
            .downcast::<ClientError>()
            .expect("an error of the client");
        assert_eq!(error.token(), token, "{said:?}");
        drop(reply);
        assert_eq!(pool.len(), 0);
    }
}

#[test]
fn without_a_length_only_an_orderly_close_ends_the_body() {
    let upstream = Upstream::answering(&["HTTP/1.1 200 OK\r\n\r\nhello"]);
    assert_eq!(read(get(&upstream.pool())), "hello");

    // What is left unread when a socket is closed makes it a reset.
    let upstream = Upstream::start(|stream| {
        let _ = stream.peek(&mut [0]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello");
    });
    let reset = send(&upstream.pool(), &GET, PATIENCE)
        .map_err(io::Error::from)
        .and_then(|mut reply| reply.body.read_to_end(&mut Vec::new()));
    assert!(reset.is_err(), "a reset is no end");
}

#[test]
fn a_stalled_body_is_given_up_at_its_deadline() {
    let upstream = Upstream::holding("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello");
    let mut reply = get(&upstream.pool());
    reply.body.set_deadline(Deadline::after(SHORT));
    let mut body = Vec::new();
    let error = reply.body.read_to_end(&mut body).expect_err("it stalls");
    assert_eq!(
        (error.kind(), body.as_slice()),
        (ErrorKind::TimedOut, &b"hello"[..])
    );
}

#[test]
fn the_socket_can_be_taken_out_and_given_back() {
    let upstream = Upstream::holding(OK);
    let pool = upstream.pool();
    let mut reply = get(&pool);
    let mut first = [0; 2];
    reply.body.read_exact(&mut first).expect("two bytes");
    let mut parts = reply.body.into_parts().expect("it is not whole");
    let mut rest = Vec::new();
    let (mut start, mut complete) = (0, false);
    while !complete {
        let (used, done) = parts
            .decoder
            .decode(&parts.ahead[start..], &mut rest)
            .expect("a body");
        (start, complete) = (start + used, done);
        if !complete {
            let mut piece = [0; 16];
            match parts.socket.read(&mut piece) {
                Ok(count) => parts.ahead.extend_from_slice(&piece[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
    }
    assert_eq!((&first, rest.as_slice()), (b"he", &b"llo"[..]));
    parts
        .lease
        .expect("a pool")
        .give_back(parts.socket, Instant::now());
    assert_eq!(read(get(&pool)), "hello");
    assert_eq!(upstream.connections(), 1);
    assert!(get(&pool).head.keep_alive);
}

#[test]
fn an_upgrade_hands_over_the_socket_with_what_came_behind_the_head() {
    let upstream = Upstream::answering(&[
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n\x01frame",
    ]);
    let pool = upstream.pool();
    let request = Request {
        upgrade: true,
        ..GET
    };
    let reply = send(&pool, &request, PATIENCE).expect("a response");
    assert_eq!(
        (reply.head.status, reply.head.field("upgrade")),
        (101, Some(&b"websocket"[..]))
    );
    let mut parts = reply.body.into_parts().expect("a tunnel");
    let deadline = Deadline::after(PATIENCE);
    while parts.ahead.len() < 6 {
        parts
            .socket
            .wait(Interest::Readable, deadline, None)
            .expect("more");
        let mut piece = [0; 16];
        let count = parts.socket.read(&mut piece).expect("more");
        assert!(count > 0);
        parts.ahead.extend_from_slice(&piece[..count]);
    }
    assert_eq!(parts.ahead, b"\x01frame");
}

#[test]
fn a_reply_to_head_has_no_body() {
    let upstream = Upstream::holding("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    let pool = upstream.pool();
    let head = Request {
        method: "HEAD",
        ..GET
    };
    for _ in 0..2 {
        assert_eq!(read(send(&pool, &head, PATIENCE).expect("a response")), "");
    }
    assert_eq!(upstream.connections(), 2, "a body was announced");
}

#[test]
fn a_server_on_a_unix_socket_is_asked_too() {
    let path = std::env::temp_dir().join(format!("plimsoll-client-{}", std::process::id()));
    let listener = UnixListener::bind(&path).expect("a socket");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        while let Some(head) = read_head(&mut stream) {
            assert!(head.starts_with("GET / "));
            stream.write_all(OK.as_bytes()).expect("it is taken");
        }
    });
    let pool = Pool::new(Address::from(path.as_path()));
    for _ in 0..2 {
        assert_eq!(read(get(&pool)), "hello");
    }
    drop(pool);
    server.join().expect("the server ends");
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn a_body_that_is_at_hand_is_taken_whole() {
    for (body, expected) in [
        ("Content-Length: 5\r\n\r\nhello", "hello"),
        ("Content-Length: 0\r\n\r\n", ""),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "hello",
        ),
        ("Connection: close\r\n\r\nhello", "hello"),
    ] {
        let upstream = Upstream::answering(&[&format!("HTTP/1.1 200 OK\r\n{body}")]);
        let mut reply = get(&upstream.pool());
        let deadline = Instant::now() + PATIENCE;
        let whole = loop {
            if let Some(whole) = reply.body.whole_at_hand(1024).expect("a good body") {
                break whole;
            }
            assert!(Instant::now() < deadline, "it comes: {body}");
            thread::yield_now();
        };
        assert_eq!(whole, expected.as_bytes(), "{body}");
        assert!(reply.body.is_complete());
        assert_eq!(reply.body.read(&mut [0; 8]).expect("the end"), 0);
    }
}

#[test]
fn what_is_at_hand_of_a_longer_body_is_not_lost() {
    let chunk = "x".repeat(5000);
    let body = format!("Transfer-Encoding: chunked\r\n\r\n1388\r\n{chunk}\r\n1\r\ny\r\n");
    let upstream = Upstream::holding(&format!("HTTP/1.1 200 OK\r\n{body}"));
    let mut reply = get(&upstream.pool());
    for most in [1, 100, 1 << 20] {
        assert_eq!(reply.body.whole_at_hand(most).expect("a good body"), None);
    }
    let mut read = vec![0; 5001];
    reply.body.read_exact(&mut read).expect("all of it");
    assert_eq!(read, format!("{chunk}y").into_bytes());
}

#[test]
fn a_body_that_is_broken_or_cut_at_once_is_an_error() {
    for (body, expected) in [
        ("Content-Length: 5\r\n\r\nhell", "http_response_incomplete"),
        (
            "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "http_response_incomplete",
        ),
        ("Transfer-Encoding: chunked\r\n\r\nz", "http_protocol_error"),
    ] {
        let upstream = Upstream::answering(&[&format!("HTTP/1.1 200 OK\r\n{body}")]);
        let mut reply = get(&upstream.pool());
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            match reply.body.whole_at_hand(1024) {
                Ok(whole) => assert_eq!(whole, None, "{body}"),
                Err(error) => break error,
            }
            assert!(Instant::now() < deadline, "it comes: {body}");
            thread::yield_now();
        };
        assert_eq!(error.token(), expected, "{body}");
    }
}
