//! The access log: a line for each request, whatever becomes of it.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::proxy::{Proxy, ProxyConfig};
use plimsoll::{AccessLogFormat, Builder, Error, Request, Response, Server};
use serde_json::Value;

use crate::kit::binary::SIGUSR1;
use crate::kit::process::TempDir;
use crate::kit::{
    Client, Latch, NEVER, Plimsoll, Serving, Upstream, ask, get, metric_in, quiet, wait_until,
};

/// An access log in a directory of its own.
struct Log(TempDir);

impl Log {
    fn new() -> Self {
        Self(TempDir::new("access-log"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("access.log")
    }

    fn text_path(&self) -> String {
        self.path().to_str().expect("text").to_owned()
    }

    /// A quiet server of so many workers that writes it as JSON.
    fn builder(&self, workers: usize) -> Builder {
        quiet(workers)
            .access_log(self.text_path())
            .access_log_format(AccessLogFormat::Json)
    }

    /// All whole lines: one may just be being written.
    fn text(&self) -> String {
        let mut text = fs::read_to_string(self.path()).unwrap_or_default();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(serde_json::from_str);
        lines.collect::<Result<_, _>>().expect("lines of JSON")
    }

    #[track_caller]
    fn wait_for(&self, count: usize) -> Vec<Value> {
        wait_until("the lines are there", || {
            self.text().lines().count() >= count
        });
        self.lines()
    }

    /// Stops the server and gives the one line that there is.
    #[track_caller]
    fn only_line(&self, server: Server) -> Value {
        // What is cut by the end is in the log.
        let _ = server.shutdown(Duration::ZERO);
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.into_iter().next().expect("a line")
    }
}

#[test]
fn a_request_is_one_line_with_what_it_was_and_what_became_of_it() {
    let log = Log::new();
    let ids = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = ids.clone();
    let handler = move |request: &mut Request| {
        seen.lock().expect("no panic").push(request.id().to_owned());
        (201, "made\n")
    };
    let builder = log
        .builder(1)
        .trust("127.0.0.1".parse().expect("an address"));
    let server = builder.handler(handler).start().expect("it starts");
    let address = server.local_addr();
    let reply = ask(
        address,
        "POST /things?a=1 HTTP/1.1\r\nHost: example\r\nContent-Length: 3\r\nX-Forwarded-For: 192.0.2.7\r\n\
         User-Agent: a \"test\"\r\n\r\nabc",
    );
    assert_eq!(reply.status, 201);
    let line = log.only_line(server);
    for (name, value) in [
        ("client", "192.0.2.7"),
        ("method", "POST"),
        ("target", "/things?a=1"),
        ("protocol", "HTTP/1.1"),
        ("host", "example"),
        ("user_agent", "a \"test\""),
        ("id", &ids.lock().expect("no panic")[0]),
    ] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!(line["status"], 201);
    assert_eq!(line["bytes"], 5);
    let number = |name: &str| line[name].as_f64().expect("a number");
    assert!(number("duration") >= number("wait"), "{line}");
    assert!(line["reason"].is_null() && line["referer"].is_null());
    let peer = line["peer"].as_str().expect("text");
    assert!(peer.starts_with("127.0.0.1:"));
}

/// What a handler gives for a target, and how many bytes of it go over the wire.
const REPLIES: [(&str, usize); 5] = [
    ("/small", 6),
    // More than a socket takes at once.
    ("/large", 8 << 20),
    ("/reader", 8 << 20),
    ("/chunks", 3 + 10 + 2 + 5),
    ("/none", 0),
];

fn reply_to(request: &mut Request) -> Response {
    let reader = || io::repeat(b'x').take(8 << 20);
    match request.path() {
        "/small" => Response::text(200, "small\n"),
        "/large" => Response::new(200, vec![b'x'; 8 << 20]),
        "/reader" => Response::reader(200, reader(), Some(8 << 20)),
        "/chunks" => Response::reader(200, &b"abc"[..], None),
        "/none" => Response::new(204, Vec::new()),
        _ => Response::text(404, "no\n"),
    }
}

#[test]
fn the_bytes_are_those_behind_the_head_whoever_sent_them() {
    let log = Log::new();
    let server = log.builder(2).handler(reply_to).start().expect("it starts");
    let mut client = Client::connect(server.local_addr());
    for (target, _) in REPLIES {
        assert!(client.get(target).reply().whole, "{target}");
    }
    client.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n");
    client.reply_to_head();
    server.shutdown(Duration::ZERO).expect("nothing is cut");
    let lines = log.lines();
    let expected = REPLIES.into_iter().chain([("/large", 0)]);
    for (line, (target, bytes)) in lines.iter().zip(expected) {
        assert_eq!(
            (&line["target"], &line["bytes"]),
            (&target.into(), &bytes.into())
        );
        assert!(line["reason"].is_null(), "{line}");
    }
    assert_eq!(lines.len(), REPLIES.len() + 1);
}

/// Two requests: one that the only worker has, and one behind it, for `/queued`.
fn occupy(server: &Server, latch: &Latch, target: &str) -> (Client, Client) {
    let address = server.local_addr();
    let mut held = Client::connect(address);
    held.get(target);
    latch.wait_for(1);
    let mut queued = Client::connect(address);
    queued.get("/queued");
    wait_until("it waits", || server.health().snapshot().queue == 1);
    (held, queued)
}

#[test]
fn refusals_are_there_with_their_reason() {
    let log = Log::new();
    let latch = Arc::new(Latch::default());
    let server = log
        .builder(1)
        .queue_max(1)
        .max_body(10)
        .handler(latch.handler("held\n"))
        .start()
        .expect("it starts");
    let address = server.local_addr();
    let (mut held, mut queued) = occupy(&server, &latch, "/held");
    for (bytes, status, reason, target) in [
        (
            "GET /busy HTTP/1.1\r\nHost: a\r\n\r\n",
            503,
            "queue",
            Some("/busy"),
        ),
        ("GET\r\n\r\n", 400, "malformed", None),
        ("GET / HTTP/2.0\r\n\r\n", 505, "version", None),
        (
            "POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            413,
            "body",
            Some("/b"),
        ),
        (
            "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            400,
            "malformed",
            Some("/c"),
        ),
    ] {
        let before = log.lines().len();
        assert_eq!(ask(address, bytes).status, status, "{bytes:?}");
        let lines = log.wait_for(before + 1);
        let line = lines.last().expect("a line");
        assert_eq!(
            (&line["status"], &line["reason"]),
            (&status.into(), &reason.into())
        );
        assert_eq!(line["target"].as_str(), target, "{line}");
        assert!(
            line["wait"].is_null() && line["bytes"].as_u64() > Some(10),
            "{line}"
        );
    }
    latch.open();
    assert_eq!(held.reply().status, 200);
    assert_eq!(queued.reply().status, 200);
}

#[test]
fn a_request_that_took_too_long_is_there_with_its_504() {
    let log = Log::new();
    let latch = Arc::new(Latch::default());
    let server = log
        .builder(1)
        .request_timeout(Duration::from_millis(50))
        .handler(latch.handler("late\n"))
        .start()
        .expect("it starts");
    assert_eq!(get(server.local_addr(), "/slow").status, 504);
    latch.open();
    let line = log.only_line(server);
    assert_eq!(line["status"], 504);
    assert_eq!(line["reason"], "timeout");
    assert_eq!(line["target"], "/slow");
    assert!(line["duration"].as_f64() >= Some(0.05), "{line}");
    assert!(line["wait"].as_f64() < line["duration"].as_f64(), "{line}");
}

#[test]
fn health_requests_are_there_only_if_they_are_wanted() {
    for wanted in [false, true] {
        let log = Log::new();
        let builder = log
            .builder(1)
            .access_log_health(wanted)
            .admin("127.0.0.1:0");
        let server = builder.handler(reply_to).start().expect("it starts");
        let admin = server.admin_addr().expect("an address");
        for (address, target) in [
            (server.local_addr(), "/readyz"),
            (admin, "/metrics"),
            (admin, "/nothing"),
            (server.local_addr(), "/small"),
        ] {
            get(address, target);
        }
        server.shutdown(Duration::ZERO).expect("nothing is cut");
        let lines = log.lines();
        let told: Vec<_> = lines
            .iter()
            .map(|line| (line["target"].as_str(), line["reason"].as_str()))
            .collect();
        let service = (Some("/small"), None);
        if wanted {
            let health = |target| (Some(target), Some("health"));
            let all = [
                health("/readyz"),
                health("/metrics"),
                health("/nothing"),
                service,
            ];
            assert_eq!(told, all);
        } else {
            assert_eq!(told, [service]);
        }
    }
}

#[test]
fn a_client_that_left_is_told_from_one_that_was_cut() {
    let log = Log::new();
    let latch = Arc::new(Latch::default());
    let handler = latch.handler("late\n");
    let server = log.builder(1).handler(handler).start().expect("it starts");
    let mut running = Client::connect(server.local_addr());
    running.get("/running");
    latch.wait_for(1);
    running.reset();
    let lines = log.wait_for(1);
    assert_eq!(
        (&lines[0]["status"], &lines[0]["reason"]),
        (&499.into(), &"left".into())
    );
    latch.open();
    drop(server);
    assert_eq!(log.lines().len(), 1, "the late reply is nobody's");

    let log = Log::new();
    let latch = Arc::new(Latch::default());
    let handler = latch.handler("late\n");
    let server = log.builder(1).handler(handler).start().expect("it starts");
    let mut running = Client::connect(server.local_addr());
    running.get("/running");
    latch.wait_for(1);
    let line = log.only_line(server);
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&0.into(), &"cut".into())
    );
    latch.open();
}

#[test]
fn a_reply_that_did_not_end_is_there_with_what_was_sent() {
    let handler = |request: &mut Request| match request.path() {
        "/failing" => {
            let broken = io::Error::other("broken");
            let reader = (&b"part"[..]).chain(Failing(Some(broken)));
            Response::reader(200, reader, Some(100))
        }
        _ => reply_to(request),
    };
    for (target, reason, write_timeout) in [
        ("/failing", "cut", NEVER),
        ("/large", "stalled", Duration::from_millis(100)),
        ("/large", "left", NEVER),
        ("/reader", "stalled", Duration::from_millis(100)),
    ] {
        let log = Log::new();
        let builder = log.builder(2).write_timeout(write_timeout);
        let server = builder.handler(handler).start().expect("it starts");
        let mut client = Client::connect(server.local_addr());
        client.get(target);
        match reason {
            "cut" => assert!(!client.try_reply().is_ok_and(|reply| reply.whole)),
            "left" => {
                client
                    .stream
                    .get_mut()
                    .read_exact(&mut [0; 100])
                    .expect("a part");
                client.reset();
            }
            _ => {
                log.wait_for(1);
            }
        }
        let lines = log.wait_for(1);
        let line = lines.last().expect("a line");
        assert_eq!(
            (&line["target"], &line["reason"]),
            (&target.into(), &reason.into())
        );
        assert_eq!(line["status"], 200);
        let bytes = line["bytes"].as_u64().expect("a number");
        assert!(bytes > 0 && bytes < 8 << 20, "{line}");
    }
}

/// Fails once it is read.
struct Failing(Option<io::Error>);

impl Read for Failing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        self.0.take().map_or(Ok(0), Err)
    }
}

#[test]
fn a_drain_tells_of_those_that_it_refuses_and_that_it_serves() {
    let log = Log::new();
    let latch = Arc::new(Latch::default());
    let handler = latch.handler("late\n");
    let server = log.builder(1).handler(handler).start().expect("it starts");
    let _clients = occupy(&server, &latch, "/running");
    let cut = server.shutdown(Duration::ZERO);
    assert!(matches!(cut, Err(Error::Cut(1))), "{cut:?}");
    latch.open();
    let reasons: HashMap<_, _> = log
        .lines()
        .into_iter()
        .map(|line| (line["target"].to_string(), line["reason"].to_string()))
        .collect();
    assert_eq!(reasons["\"/running\""], "\"cut\"");
    assert_eq!(reasons["\"/queued\""], "\"drain\"");
    assert_eq!(reasons.len(), 2);
}

/// What the event loop relays for another server ends there, and not with a worker.
#[test]
fn what_is_relayed_is_there_with_its_bytes_and_the_id_that_was_sent_on() {
    const LENGTH: usize = 3_000_000;
    let upstream = Upstream::start(|asked, stream| {
        let path = asked.line().split(' ').nth(1).unwrap_or_default();
        if path == "/chat" {
            let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(head.as_bytes())?;
            stream.write_all(b"bye")?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n"
        )?;
        let sent = if path == "/cut" { LENGTH / 2 } else { LENGTH };
        stream.write_all(&vec![b'x'; sent])?;
        if sent == LENGTH {
            Ok(())
        } else {
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    });
    let proxy = Proxy::start(ProxyConfig::to([upstream.url()])).expect("it starts");
    let log = Log::new();
    let server = log.builder(1).handler(proxy).start().expect("it starts");
    let address = server.local_addr();
    assert!(get(address, "/whole").whole);
    log.wait_for(1);
    assert!(
        !Client::connect(address)
            .get("/cut")
            .try_reply()
            .is_ok_and(|reply| reply.whole)
    );
    log.wait_for(2);
    let mut chat = Client::connect(address);
    chat.send(
        "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    let mut came = Vec::new();
    while !came.ends_with(b"bye") {
        let mut byte = [0];
        chat.stream.read_exact(&mut byte).expect("what was sent");
        came.push(byte[0]);
    }
    drop(chat);
    let lines = log.wait_for(3);
    let ids: Vec<_> = upstream
        .asked()
        .iter()
        .map(|asked| asked.fields("x-request-id").join("|"))
        .collect();
    for ((line, id), (target, status, reason)) in lines.iter().zip(&ids).zip([
        ("/whole", 200, Value::Null),
        ("/cut", 200, "cut".into()),
        ("/chat", 101, Value::Null),
    ]) {
        assert_eq!(
            (&line["target"], &line["status"]),
            (&target.into(), &status.into())
        );
        assert_eq!(
            (&line["reason"], &line["id"]),
            (&reason, &id.as_str().into()),
            "{line}"
        );
    }
    assert_eq!(lines[0]["bytes"], LENGTH);
    let cut = lines[1]["bytes"].as_u64().expect("a number");
    assert!(cut > 0 && cut < LENGTH as u64, "{cut}");
    assert_eq!(lines[2]["bytes"], 3);
}

#[cfg(feature = "cache")]
#[test]
fn what_the_cache_did_is_there() {
    let upstream = Upstream::start(|asked, stream| {
        let control = match asked.line().split(' ').nth(1) {
            Some("/fresh") => "max-age=60",
            Some("/stale") => "max-age=0, stale-if-error=60",
            _ => "max-age=0",
        };
        if asked.fields("if-none-match").is_empty() {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nETag: \"a\"\r\nCache-Control: {control}\r\n\r\na"
            )
        } else if control.contains("error") {
            write!(stream, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        } else {
            write!(stream, "HTTP/1.1 304 Not Modified\r\n\r\n")
        }
    });
    let config = ProxyConfig {
        cache: Some(1 << 20),
        ..ProxyConfig::to([upstream.url()])
    };
    let proxy = Proxy::start(config).expect("it starts");
    let log = Log::new();
    let server = log.builder(1).handler(proxy).start().expect("it starts");
    let mut client = Client::connect(server.local_addr());
    for target in ["/fresh", "/fresh", "/valid", "/valid", "/stale", "/stale"] {
        assert_eq!(client.get(target).reply().status, 200, "{target}");
    }
    client.send("POST /fresh HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    client.send("HEAD /fresh HTTP/1.1\r\nHost: localhost\r\nCache-Control: only-if-cached\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 504);
    let lines = log.wait_for(8);
    let found: Vec<_> = lines.iter().map(|line| &line["cache"]).collect();
    let expected = [
        "miss",
        "hit",
        "miss",
        "validated",
        "miss",
        "stale",
        "bypass",
        "miss",
    ];
    assert_eq!(found, expected);
    let asked: Vec<_> = lines
        .iter()
        .map(|line| !line["endpoint"].is_null())
        .collect();
    assert_eq!(asked, [true, false, true, true, true, true, true, false]);
}

/// Every request has its line once, also where worker, deadline and client race for it.
#[test]
fn no_request_is_missing_and_none_is_there_twice() {
    const CLIENTS: usize = 8;
    const EACH: usize = 60;
    let log = Log::new();
    let handler = |request: &mut Request| {
        if request.path().ends_with('7') {
            std::thread::sleep(Duration::from_millis(4));
        }
        request.url().to_owned()
    };
    let builder = log
        .builder(2)
        .queue_max(2)
        .request_timeout(Duration::from_millis(4));
    let server = builder.handler(handler).start().expect("it starts");
    let address = server.local_addr();
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || requests(address, client, EACH));
        }
    });
    server
        .shutdown(Duration::from_secs(5))
        .expect("nothing is cut");
    let mut targets: Vec<_> = log
        .lines()
        .iter()
        .map(|line| line["target"].as_str().expect("text").to_owned())
        .collect();
    targets.sort_unstable();
    let count = targets.len();
    targets.dedup();
    assert_eq!(targets.len(), count, "one is there twice");
    assert_eq!(count, CLIENTS * EACH);
}

/// Sends requests, some in one go, each with a target of its own; takes every reply.
fn requests(address: SocketAddr, client: usize, count: usize) {
    let mut connection = Client::connect(address);
    for number in (0..count).step_by(3) {
        let request = |number| format!("GET /{client}/{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        let pipelined: String = (number..number + 3).map(request).collect();
        connection.send(pipelined);
        for _ in 0..3 {
            assert!(matches!(connection.reply().status, 200 | 503 | 504));
        }
    }
}

#[test]
fn a_file_that_cannot_be_opened_is_a_failure_to_start() {
    let options = [
        "--listen",
        "127.0.0.1:0",
        "--access-log",
        "/nowhere/access.log",
    ];
    let (status, _, lines) = Plimsoll::start(&options, &[]).exit();
    assert_eq!(status.code(), Some(1));
    let line = lines.last().expect("a line");
    assert_eq!(
        line,
        "plimsoll: cannot open the access log \"/nowhere/access.log\": No such file or directory (os error 2)"
    );
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let server = Serving::start(&["--access-log", "/dev/full"]);
    for _ in 0..3 {
        assert_eq!(get(server.address, "/").status, 200);
    }
    let dropped = || {
        let page = get(server.address, "/metrics");
        metric_in(page.text(), "plimsoll_dropped_lines_total", "access")
    };
    wait_until("the lost lines are counted", || dropped() == 3);
    let said = "cannot write the access log to \"/dev/full\": No space left on device";
    wait_until("it is told", || server.process.logged(said) > 0);
    assert_eq!(server.process.logged(said), 1);
}

/// What logrotate does: it moves the file away, and says so.
#[test]
fn after_sigusr1_lines_go_to_a_new_file() {
    let log = Log::new();
    let server = Serving::start(&[
        "--access-log",
        &log.text_path(),
        "--access-log-format",
        "common",
    ]);
    assert_eq!(get(server.address, "/").status, 200);
    wait_until("it is there", || log.text().contains("GET / "));
    let moved = log.0.path().join("access.log.1");
    fs::rename(log.path(), &moved).expect("it can be moved");
    wait_until("it is caught", || server.process.catches(SIGUSR1));
    server.process.signal("-USR1");
    wait_until("the new file is there", || log.path().exists());
    assert_eq!(get(server.address, "/new").status, 404);
    wait_until("it is in the new file", || log.text().contains("GET /new "));
    let before = fs::read_to_string(&moved).expect("it can be read");
    assert!(
        before.contains("GET / ") && !before.contains("/new"),
        "{before}"
    );
}
