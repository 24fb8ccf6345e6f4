//! HTTP/1.1 and 1.0 as clients meet it: framing, persistence, what reaches the handler and what comes back.

use std::io::{self, Cursor, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use crate::kit::{Client, Framing, Latch, PATIENCE, Reply, ask, get, pattern, quiet, wait_until};
use plimsoll::{Handler, Request, Response, Server};

/// What a handler saw of a request.
#[derive(Debug)]
struct Seen {
    method: String,
    url: String,
    path: String,
    query: Option<String>,
    headers: Vec<(String, String)>,
    body_len: usize,
    body: Vec<u8>,
    peer: SocketAddr,
}

impl Seen {
    fn of(request: &mut Request) -> Self {
        let mut body = Vec::new();
        request.body().read_to_end(&mut body).expect("a body");
        let headers = request
            .headers()
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self {
            method: request.method().to_owned(),
            url: request.url().to_owned(),
            path: request.path().to_owned(),
            query: request.query().map(str::to_owned),
            headers: headers.collect(),
            body_len: request.body_len(),
            body,
            peer: request.peer(),
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

fn serve(handler: impl Handler) -> Server {
    quiet(2).handler(handler).start().expect("a server")
}

/// A server that answers each request with its target, and shows what its handler saw.
fn recording() -> (Server, Receiver<Seen>) {
    let (sender, seen) = mpsc::channel();
    let server = serve(move |request: &mut Request| {
        let url = request.url().to_owned();
        sender.send(Seen::of(request)).expect("the test listens");
        url
    });
    (server, seen)
}

/// The next that the handler saw.
#[track_caller]
fn next(seen: &Receiver<Seen>) -> Seen {
    seen.recv_timeout(PATIENCE).expect("the handler's turn")
}

#[test]
fn a_connection_is_kept_alive_until_the_client_wants_it_closed() {
    let (server, _seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for turn in 0..20 {
        let target = format!("/{turn}");
        let reply = client.get(&target).reply();
        assert_eq!((reply.status, reply.text()), (200, target.as_str()));
        assert_eq!(reply.header("Connection"), None, "{reply:?}");
    }
    client.send("GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let reply = client.reply();
    assert_eq!(reply.text(), "/last");
    assert!(reply.closes(), "{reply:?}");
    client.expect_close();
    assert_eq!(server.health().snapshot().totals.accepted, 1);
}

#[test]
fn close_among_other_options_of_connection_closes() {
    let (server, _seen) = recording();
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, CLOSE\r\n\r\n");
    assert!(client.reply().closes());
    client.expect_close();
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    const REQUESTS: usize = 200;
    let (server, _seen) = recording();
    let mut client = Client::connect(server.local_addr());
    let requests: String = (0..REQUESTS)
        .map(|turn| match turn % 4 {
            0 => format!("GET /{turn} HTTP/1.1\r\nHost: x\r\n\r\n"),
            1 => format!("POST /{turn} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nGET /"),
            // The event loop's own answers keep their turn too.
            2 => "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
            _ => format!(
                "PUT /{turn} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
        })
        .collect();
    client.send(requests);
    for turn in 0..REQUESTS {
        let expected = match turn % 4 {
            2 => "live\n".to_owned(),
            _ => format!("/{turn}"),
        };
        assert_eq!(client.reply().text(), expected);
    }
}

#[test]
fn a_head_that_comes_byte_by_byte_is_a_head() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for byte in b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nxyz" {
        client.send([*byte]);
    }
    assert_eq!(client.reply().text(), "/a");
    assert_eq!(next(&seen).body, b"xyz");
}

#[test]
fn a_body_with_a_length_reaches_the_handler_whole() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for length in [0, 1, 1000, 1024 * 1024] {
        let body = pattern(length);
        client.send(format!(
            "POST /up HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        ));
        client.send(&body);
        assert_eq!(client.reply().status, 200);
        let seen = next(&seen);
        assert_eq!(seen.method, "POST");
        assert_eq!(seen.body_len, length);
        assert!(seen.body == body, "{length} bytes, byte for byte");
    }
}

#[test]
fn a_chunked_body_reaches_the_handler_without_its_coding() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    let body = pattern(300_000);
    client.send("POST /up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (turn, piece) in body.chunks(70_001).enumerate() {
        let extension = if turn == 1 { ";name=\"a;b\"" } else { "" };
        client.send(format!("{:X}{extension}\r\n", piece.len()));
        client.send(piece).send("\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let seen = next(&seen);
    assert_eq!(seen.body_len, body.len());
    assert!(seen.body == body, "byte for byte");
}

#[test]
fn trailers_are_skipped_and_the_next_request_is_found() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    client.send(
        "POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: Digest\r\n\r\n\
         4\r\nbody\r\n0\r\nDigest: abc\r\nX-More: GET / HTTP/1.1\r\n\r\n\
         GET /second HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(client.reply().text(), "/first");
    assert_eq!(client.reply().text(), "/second");
    let first = next(&seen);
    assert_eq!(first.body, b"body");
    assert_eq!(first.header("Digest"), None);
    assert_eq!(first.header("X-More"), None);
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for turn in 0..3 {
        client.send(format!(
            "POST /{turn} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n"
        ));
        let interim = client.reply();
        assert_eq!(interim.status, 100);
        assert!(interim.headers.is_empty(), "{interim:?}");
        client.send("body");
        assert_eq!(client.reply().text(), format!("/{turn}"));
        assert_eq!(next(&seen).body, b"body");
    }
}

#[test]
fn a_client_that_has_sent_its_body_or_speaks_1_0_is_not_told_to_continue() {
    let (server, _seen) = recording();
    // Loopback delivers a small write in one piece.
    let with_body =
        "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!(ask(server.local_addr(), with_body).status, 200);
    let without =
        "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(server.local_addr(), without).status, 200);
    let mut old = Client::connect(server.local_addr());
    old.send("POST /a HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    old.send("body");
    assert_eq!(old.reply().status, 200);
}

#[test]
fn head_gets_the_head_of_get_without_its_body() {
    let server = serve(|request: &mut Request| match request.path() {
        "/chunked" => Response::reader(200, Cursor::new(pattern(100)), None),
        "/reader" => Response::reader(200, Cursor::new(pattern(100)), Some(100)),
        _ => Response::text(200, "hello\n"),
    });
    let mut client = Client::connect(server.local_addr());
    for target in ["/", "/chunked", "/reader"] {
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let head = client.reply_to_head();
        let body = client.get(target).reply();
        assert_eq!(head.status, 200);
        let without_date = |reply: &Reply| {
            let mut headers = reply.headers.clone();
            headers.retain(|(name, _)| name != "Date");
            headers
        };
        assert_eq!(without_date(&head), without_date(&body), "{target}");
        assert!(!body.body.is_empty());
    }
}

#[test]
fn options_of_a_path_is_the_handlers_and_of_the_server_the_frontends() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    client.send("OPTIONS /a HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.reply().text(), "/a");
    assert_eq!(next(&seen).method, "OPTIONS");
    for target in ["*", "http://x"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let reply = client.reply();
        assert_eq!((reply.status, reply.text()), (200, ""));
        assert_eq!(reply.header("Content-Length"), Some("0"));
    }
    // As HAProxy's httpchk asks.
    let reply = ask(server.local_addr(), "OPTIONS / HTTP/1.0\r\n\r\n");
    assert_eq!((reply.status, reply.text()), (200, "/"));
    assert_eq!(next(&seen).header("Host"), None);
    assert!(seen.try_recv().is_err(), "nothing else reached the handler");
}

#[test]
fn methods_reach_the_handler_as_they_were_written() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for method in [
        "GET",
        "DELETE",
        "PATCH",
        "PROPFIND",
        "get",
        "X-!#$%&'*+.^_`|~",
    ] {
        client.send(format!("{method} /a HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(client.reply().status, 200);
        assert_eq!(next(&seen).method, method);
    }
}

#[test]
fn http_1_0_closes_unless_it_asks_to_be_kept_alive() {
    let (server, _seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for _ in 0..3 {
        client.send("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
        let reply = client.reply();
        assert_eq!(reply.text(), "/a");
        assert_eq!(reply.header("Connection"), Some("keep-alive"));
    }
    client.send("GET /b HTTP/1.0\r\n\r\n");
    let reply = client.reply();
    assert_eq!(reply.text(), "/b");
    assert!(reply.closes());
    client.expect_close();
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let server =
        serve(|_: &mut Request| Response::reader(200, Cursor::new(pattern(200_000)), None));
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = client.reply();
    assert_eq!(reply.framing, Framing::UntilClose);
    assert!(reply.closes(), "only the close can end this body");
    assert!(reply.body == pattern(200_000));
}

#[test]
fn a_half_closed_client_gets_every_reply() {
    let (server, _seen) = recording();
    let mut client = Client::connect(server.local_addr());
    client.get("/1").get("/2").get("/livez").get("/3").finish();
    for expected in ["/1", "/2", "live\n", "/3"] {
        assert_eq!(client.reply().text(), expected);
    }
    client.expect_close();
}

#[test]
fn a_client_that_half_closes_while_its_handler_runs_gets_its_reply() {
    let latch = Arc::new(Latch::default());
    let server = serve(latch.handler("done\n"));
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    latch.wait_for(1);
    client.finish();
    // Another client's turn: by then the event loop has seen the half-close.
    assert_eq!(get(server.local_addr(), "/livez").status, 200);
    latch.open();
    assert_eq!(client.reply().text(), "done\n");
    client.expect_close();
}

#[test]
fn an_absolute_target_becomes_a_path_and_its_authority_the_host() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for (target, url, host) in [
        ("http://example.org/a/b?c=d", "/a/b?c=d", "example.org"),
        ("HTTP://example.org:8080/", "/", "example.org:8080"),
        ("http://example.org", "/", "example.org"),
        ("http://example.org?q", "/?q", "example.org"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: other\r\n\r\n"));
        assert_eq!(client.reply().text(), url, "{target}");
        let seen = next(&seen);
        assert_eq!(seen.url, url, "{target}");
        assert_eq!(seen.header("Host"), Some(host), "{target}");
    }
    // The health paths are found in this form too.
    client.get("http://example.org/livez");
    assert_eq!(client.reply().text(), "live\n");
}

#[test]
fn a_request_of_1_1_has_exactly_one_valid_host() {
    let (server, _seen) = recording();
    let address = server.local_addr();
    for good in [
        "Host: x",
        "host:x:80",
        "Host:",
        "Host: [::1]:80",
        "HOST: a.b-c_d~",
    ] {
        let reply = ask(address, format!("GET / HTTP/1.1\r\n{good}\r\n\r\n"));
        assert_eq!(reply.status, 200, "{good}");
    }
    for bad in [
        "X: y",
        "Host: a\r\nHost: a",
        "Host: a b",
        "Host: a,b:c",
        "Host: user@a",
        "Host: a/b",
        "Host: [::1",
    ] {
        let reply = ask(address, format!("GET / HTTP/1.1\r\n{bad}\r\n\r\n"));
        assert_eq!(reply.status, 400, "{bad}");
    }
    assert_eq!(ask(address, "GET / HTTP/1.0\r\n\r\n").status, 200);
}

#[test]
fn the_parts_of_a_target_and_the_peer_reach_the_handler() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    for (target, path, query) in [
        ("/", "/", None),
        ("/a%20b/../c", "/a%20b/../c", None),
        ("/a?", "/a", Some("")),
        ("/a?b=c&d=e?f", "/a", Some("b=c&d=e?f")),
        ("//double", "//double", None),
    ] {
        client.get(target);
        assert_eq!(client.reply().status, 200);
        let seen = next(&seen);
        assert_eq!(seen.url, target);
        assert_eq!(seen.path, path);
        assert_eq!(seen.query.as_deref(), query);
        assert_eq!(seen.peer, client.socket().local_addr().expect("an address"));
    }
}

#[test]
fn headers_reach_the_handler_in_order_and_are_found_in_any_case() {
    let (server, seen) = recording();
    ask(
        server.local_addr(),
        "GET / HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-two:\t 2 \t\r\nX-One: 3\r\nX-Empty:\r\n\r\n",
    );
    let seen = next(&seen);
    let expected = [
        ("Host", "x"),
        ("X-One", "1"),
        ("x-two", "2"),
        ("X-One", "3"),
        ("X-Empty", ""),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(seen.headers, expected);
    assert_eq!(seen.header("X-TWO"), Some("2"));
    assert_eq!(seen.header("x-one"), Some("1"));
}

#[test]
fn header_values_outside_ascii_reach_the_handler_intact() {
    let (sender, seen) = mpsc::channel();
    let server = serve(move |request: &mut Request| {
        let text = request.header("x-name").map(str::to_owned);
        let bytes = request.header_bytes("x-name").map(<[u8]>::to_vec);
        sender.send((text, bytes)).expect("the test listens");
        "ok\n"
    });
    let cases: [(&[u8], &str); 4] = [
        ("Grüße, 世界 100%".as_bytes(), "Grüße, 世界 100%"),
        // ISO 8859-1, which is not UTF-8.
        (b"caf\xe9", "café"),
        (b"\xff\x80", "\u{ff}\u{80}"),
        // What the way through uses to carry such bytes, sent as it is.
        (b"%C3%BC %zz %", "%C3%BC %zz %"),
    ];
    for (value, text) in cases {
        let request = [b"GET / HTTP/1.1\r\nHost: x\r\nX-Name: ", value, b"\r\n\r\n"].concat();
        assert_eq!(ask(server.local_addr(), request).status, 200);
        let (seen_text, seen_bytes) = seen.recv_timeout(PATIENCE).expect("the handler's turn");
        assert_eq!(seen_text.as_deref(), Some(text));
        assert_eq!(seen_bytes.as_deref(), Some(value));
    }
}

#[test]
fn the_handler_sees_how_the_request_was_framed() {
    let (server, seen) = recording();
    let mut client = Client::connect(server.local_addr());
    client.send(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: websocket\r\nExpect: 100-Continue\r\n\r\nhi",
    );
    assert_eq!(client.reply().status, 200);
    let first = next(&seen);
    assert_eq!(first.header("content-length"), Some("2"));
    assert_eq!(first.header("connection"), Some("keep-alive, Upgrade"));
    assert_eq!(first.header("upgrade"), Some("websocket"));
    assert_eq!(first.header("expect"), Some("100-Continue"));
    assert_eq!(first.body, b"hi");
    client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    assert_eq!(next(&seen).header("transfer-encoding"), Some("Chunked"));
}

#[test]
fn whatever_stands_for_a_reply_becomes_one() {
    fn answer(request: &mut Request) -> Response {
        use plimsoll::IntoResponse;
        match request.path() {
            "/str" => "text\n".into_response(),
            "/string" => String::from("text\n").into_response(),
            "/bytes" => vec![0_u8, 255].into_response(),
            "/pair" => (418, "teapot\n").into_response(),
            "/ok" => Ok::<_, (u16, &str)>("fine\n").into_response(),
            "/err" => Err::<&str, _>((409, "conflict\n")).into_response(),
            "/tiny" => tiny_http::Response::from_string("tiny\n")
                .with_status_code(203)
                .with_header(tiny_http::Header::from_bytes("X-Tiny", "yes").expect("a header"))
                .into_response(),
            "/tiny-chunked" => {
                let reader = Cursor::new(pattern(150_000));
                tiny_http::Response::new(200.into(), Vec::new(), reader, None, None).into_response()
            }
            "/tiny-empty" => tiny_http::Response::empty(204).into_response(),
            "/invalid" => (42, "never\n").into_response(),
            _ => Response::new(404, &b""[..]),
        }
    }
    let server = serve(answer);
    let mut client = Client::connect(server.local_addr());
    for (path, status, kind, body) in [
        (
            "/str",
            200,
            Some("text/plain; charset=utf-8"),
            &b"text\n"[..],
        ),
        ("/string", 200, Some("text/plain; charset=utf-8"), b"text\n"),
        ("/bytes", 200, Some("application/octet-stream"), &[0, 255]),
        ("/pair", 418, Some("text/plain; charset=utf-8"), b"teapot\n"),
        ("/ok", 200, Some("text/plain; charset=utf-8"), b"fine\n"),
        (
            "/err",
            409,
            Some("text/plain; charset=utf-8"),
            b"conflict\n",
        ),
        ("/tiny", 203, Some("text/plain; charset=UTF-8"), b"tiny\n"),
        ("/tiny-chunked", 200, None, &pattern(150_000)),
        ("/tiny-empty", 204, None, b""),
        (
            "/invalid",
            500,
            Some("text/plain; charset=utf-8"),
            b"never\n",
        ),
        ("/other", 404, None, b""),
    ] {
        let reply = client.get(path).reply();
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("Content-Type"), kind, "{path}");
        assert!(reply.body == body, "{path}");
        let framing = match path {
            "/tiny-chunked" => Framing::Chunked,
            "/tiny-empty" => Framing::None,
            _ => Framing::Length,
        };
        assert_eq!(reply.framing, framing, "{path}");
        if path == "/tiny" {
            assert_eq!(reply.header("X-Tiny"), Some("yes"));
        }
    }
}

#[test]
fn replies_without_a_body_say_nothing_of_one() {
    let server = serve(|request: &mut Request| {
        let status = request.path()[1..].parse().expect("a status");
        Response::text(status, "never sent\n")
    });
    let mut client = Client::connect(server.local_addr());
    for status in [204, 304] {
        let reply = client.get(&format!("/{status}")).reply();
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("Content-Length"), None);
        assert_eq!(reply.header("Transfer-Encoding"), None);
    }
    assert_eq!(client.get("/200").reply().text(), "never sent\n");
}

#[test]
fn large_replies_arrive_byte_for_byte() {
    const SIZE: usize = 8 * 1024 * 1024;
    let body = Arc::new(pattern(SIZE));
    let shared = body.clone();
    let server = serve(move |request: &mut Request| {
        let body = shared.to_vec();
        match request.path() {
            "/bytes" => Response::new(200, body),
            "/length" => Response::reader(200, Cursor::new(body), Some(SIZE as u64)),
            _ => Response::reader(200, Cursor::new(body), None),
        }
    });
    let mut client = Client::connect(server.local_addr());
    // All at once: each reply must end exactly where the next one starts.
    client
        .get("/bytes")
        .get("/length")
        .get("/chunked")
        .get("/bytes");
    for framing in [
        Framing::Length,
        Framing::Length,
        Framing::Chunked,
        Framing::Length,
    ] {
        let reply = client.reply();
        assert_eq!(reply.framing, framing);
        assert!(reply.body == *body, "{framing:?}");
    }
}

#[test]
fn a_client_that_does_not_read_holds_no_worker() {
    const SIZE: usize = 8 * 1024 * 1024;
    let server = quiet(1)
        .handler(|request: &mut Request| match request.path() {
            "/bytes" => Response::new(200, pattern(SIZE)),
            "/chunked" => Response::reader(200, Cursor::new(pattern(SIZE)), None),
            _ => Response::text(200, "quick\n"),
        })
        .start()
        .expect("a server");
    let mut slow: Vec<_> = ["/bytes", "/chunked", "/bytes", "/chunked"]
        .into_iter()
        .map(|target| {
            let mut client = Client::connect(server.local_addr());
            client.get(target);
            client
        })
        .collect();
    let mut quick = Client::connect(server.local_addr());
    for _ in 0..10 {
        assert_eq!(quick.get("/").reply().text(), "quick\n");
    }
    let expected = pattern(SIZE);
    for client in &mut slow {
        assert!(client.reply().body == expected);
        assert_eq!(client.get("/").reply().text(), "quick\n");
    }
}

/// Gives some bytes, then fails, ends or panics.
struct Faulty {
    left: usize,
    fault: &'static str,
}

impl Read for Faulty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            match self.fault {
                "/error" => return Err(io::Error::other("a fault of the test")),
                "/panic" => panic!("a panic of the test"),
                _ => return Ok(0),
            }
        }
        let count = buffer.len().min(self.left);
        buffer[..count].fill(b'x');
        self.left -= count;
        Ok(count)
    }
}

#[test]
fn a_reply_that_fails_in_its_middle_is_cut_so_that_the_client_can_tell() {
    let server = quiet(1)
        .handler(|request: &mut Request| {
            let faulty = |fault| Faulty { left: 1000, fault };
            match request.path() {
                "/short" => Response::reader(200, faulty("/short"), Some(2000)),
                "/error" => Response::reader(200, faulty("/error"), None),
                "/panic" => Response::reader(200, faulty("/panic"), None),
                _ => Response::text(200, "fine\n"),
            }
        })
        .start()
        .expect("a server");
    for (count, target) in (1..).zip(["/short", "/error", "/panic"]) {
        let mut client = Client::connect(server.local_addr());
        let came = client.get(target).rest();
        assert!(came.starts_with(b"HTTP/1.1 200 "), "{target}");
        assert!(!came.ends_with(b"0\r\n\r\n"), "{target}");
        assert!(came.len() < 2000, "{target}");
        assert_eq!(
            get(server.local_addr(), "/").text(),
            "fine\n",
            "the worker lives"
        );
        assert_eq!(server.health().snapshot().totals.cut, count, "{target}");
    }
    assert_eq!(server.health().snapshot().totals.panics, 1);
}

#[test]
fn a_reply_has_the_servers_date_and_framing_and_no_header_can_split_it() {
    let server = serve(|_: &mut Request| {
        Response::text(200, "body\n")
            .with_header("Content-Length", "1")
            .with_header("Transfer-Encoding", "gzip")
            .with_header("Bad Name", "x")
            .with_header("X-Split", "a\r\nSet-Cookie: b")
            .with_header("Set-Cookie", "a=1")
    });
    let reply = get(server.local_addr(), "/");
    let date = httpdate::parse_http_date(reply.header("Date").expect("a date")).expect("a date");
    let off = std::time::SystemTime::now()
        .duration_since(date)
        .unwrap_or_default();
    assert!(off < PATIENCE, "{off:?}");
    assert_eq!(reply.header("Content-Length"), Some("5"));
    assert_eq!(reply.header("Transfer-Encoding"), None);
    assert_eq!(reply.header("X-Split"), Some("a  Set-Cookie: b"));
    assert_eq!(reply.header("Set-Cookie"), Some("a=1"));
    assert_eq!(reply.header("Bad Name"), None);
}

#[test]
fn a_handler_may_close_the_connection() {
    for (name, value) in [("connection", "Close"), ("Connection", "keep-alive, Close")] {
        let bye = move |_: &mut Request| Response::text(200, "bye\n").with_header(name, value);
        let server = serve(bye);
        let mut client = Client::connect(server.local_addr());
        assert!(client.get("/").get("/").reply().closes(), "{value}");
        client.expect_close();
    }
}

#[test]
fn two_connections_are_served_at_the_same_time() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let server = serve(move |request: &mut Request| {
        if request.path() == "/held" {
            held.pass();
        }
        "done\n"
    });
    let mut slow = Client::connect(server.local_addr());
    slow.get("/held");
    latch.wait_for(1);
    assert_eq!(get(server.local_addr(), "/").text(), "done\n");
    let busy = || server.health().snapshot().workers_busy;
    wait_until("one worker is busy", || busy() == 1);
    latch.open();
    assert_eq!(slow.reply().text(), "done\n");
}

/// Short jobs come to a worker several at a time; one of them may not be short after all.
#[test]
fn a_job_that_hangs_holds_up_none_of_those_that_came_with_it() {
    const CLIENTS: usize = 8;
    const ROUNDS: usize = 40;
    let latches: Arc<[Latch]> = (0..ROUNDS).map(|_| Latch::default()).collect();
    let held = latches.clone();
    let server = quiet(2)
        .handler(move |request: &mut Request| {
            if let Some(round) = request.path().strip_prefix("/held/") {
                held[round.parse::<usize>().expect("a round")].pass();
            }
            // Long enough that both workers are awake, and short enough that some jobs go to one together.
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(20) {
                std::hint::spin_loop();
            }
            "done\n"
        })
        .start()
        .expect("a server");
    let connect = |_| Client::connect(server.local_addr());
    let mut clients: Vec<Client> = (0..CLIENTS).map(connect).collect();
    for (round, latch) in latches.iter().enumerate() {
        // So many that jobs are expected to be short.
        for _ in 0..50 {
            for client in &mut clients {
                client.get("/");
            }
            for client in &mut clients {
                assert_eq!(client.reply().text(), "done\n");
            }
        }
        let slow = round % CLIENTS;
        for (index, client) in clients.iter_mut().enumerate() {
            if index == slow {
                client.get(&format!("/held/{round}"));
            } else {
                client.get("/");
            }
        }
        for (index, client) in clients.iter_mut().enumerate() {
            if index != slow {
                assert_eq!(client.reply().text(), "done\n", "{index} in round {round}");
            }
        }
        latch.open();
        assert_eq!(clients[slow].reply().text(), "done\n");
    }
}

#[test]
fn work_for_a_client_that_has_gone_is_not_started() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let (sender, seen) = mpsc::channel();
    let server = quiet(1)
        .handler(move |request: &mut Request| {
            sender
                .send(request.path().to_owned())
                .expect("the test listens");
            held.pass();
            "done\n"
        })
        .start()
        .expect("a server");
    let mut first = Client::connect(server.local_addr());
    first.get("/first");
    latch.wait_for(1);
    let mut gone = Client::connect(server.local_addr());
    gone.get("/gone");
    let snapshot = || server.health().snapshot();
    wait_until("it waits for the worker", || snapshot().queue == 1);
    // Closing with a reply unread resets the connection, so that the server knows that nobody is left to read; a mere
    // half-close would be a client that still wants its reply. So one reply is left unread here.
    let mut reset = Client::connect(server.local_addr());
    reset.get("/livez").get("/gone");
    wait_until("both wait for the worker", || snapshot().queue == 2);
    drop(reset);
    wait_until("it is taken out of the queue", || snapshot().queue == 1);
    assert_eq!(snapshot().totals.skipped, 1);
    latch.open();
    assert_eq!(first.reply().text(), "done\n");
    assert_eq!(gone.reply().text(), "done\n");
    assert_eq!(get(server.local_addr(), "/last").text(), "done\n");
    let started: Vec<_> = seen.try_iter().collect();
    assert_eq!(started, ["/first", "/gone", "/last"]);
}

/// A reader that fails behind its first bytes.
struct Broken(bool);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(io::Error::other("broken"));
        }
        buffer[..4].copy_from_slice(b"part");
        Ok(4)
    }
}

/// It ended as a whole reply does.
#[test]
fn a_reply_to_http_1_0_that_fails_ends_in_a_reset() {
    let server = serve(|_: &mut Request| Response::reader(200, Broken(false), None));
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut came = Vec::new();
    let error = client.stream.read_to_end(&mut came).expect_err("no end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

/// The same when the drain's time is over in the middle of it.
#[test]
fn a_reply_to_http_1_0_that_a_stop_cuts_ends_in_a_reset() {
    let server = serve(|_: &mut Request| Response::reader(200, io::repeat(b'x'), None));
    let mut client = Client::connect(server.local_addr());
    client.send("GET / HTTP/1.0\r\n\r\n");
    let mut first = [0; 100];
    client
        .stream
        .read_exact(&mut first)
        .expect("the reply's begin");
    server.shutdown(Duration::ZERO).expect_err("it is cut");
    let error = io::copy(&mut client.stream, &mut io::sink()).expect_err("no end");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_205_says_that_it_has_no_body_and_sends_none() {
    let server = serve(|request: &mut Request| match request.path() {
        "/reader" => Response::reader(205, io::repeat(b'x'), None),
        _ => Response::text(205, "a body\n"),
    });
    let mut client = Client::connect(server.local_addr());
    for target in ["/", "/reader", "/"] {
        let reply = client.get(target).reply();
        assert_eq!(
            (reply.status, reply.header("Content-Length")),
            (205, Some("0"))
        );
    }
}

/// The obvious way to say JSON sent two types.
#[test]
fn setting_a_header_replaces_it_and_adding_adds() {
    let server = serve(|_: &mut Request| {
        Response::text(200, "{}")
            .with_header("content-type", "application/json")
            .with_added_header("Set-Cookie", "a=1")
            .with_added_header("Set-Cookie", "b=2")
    });
    let reply = get(server.local_addr(), "/");
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    let cookies = reply
        .headers
        .iter()
        .filter(|(name, _)| name == "Set-Cookie");
    let cookies: Vec<_> = cookies.map(|(_, value)| value.as_str()).collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
}

#[test]
fn a_request_keeps_its_id_or_is_given_one_that_stays() {
    let handler = |request: &mut Request| {
        let id = request.id().to_owned();
        assert_eq!(request.id(), id);
        id
    };
    let server = quiet(1).handler(handler).start().expect("it starts");
    let address = server.local_addr();
    let given = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc-123\r\n\r\n";
    assert_eq!(ask(address, given).text(), "abc-123");
    let made = [get(address, "/"), get(address, "/")];
    assert!(made.iter().all(|reply| reply.text().len() == 32));
    assert_ne!(made[0].text(), made[1].text());
}
