//! The cache in the sidecar: what is kept, for whom, and what is given when the service fails.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use plimsoll::patterns::Cache;
use plimsoll::proxy::{BreakerMode, Proxy, ProxyConfig};
use plimsoll::{Builder, Server};

use crate::kit::browser::Browser;
use crate::kit::usage::affordable;
use crate::kit::{
    Client, Latch, NEVER, Reply, Serving, Upstream, ask, get, pattern, quiet, wait_until,
};

const MIB: usize = 1024 * 1024;

fn config(upstream: &Upstream) -> ProxyConfig {
    ProxyConfig {
        cache: Some(4 * MIB),
        retries: 0,
        ..ProxyConfig::to([upstream.url()])
    }
}

#[track_caller]
fn serve_with(config: ProxyConfig, builder: Builder) -> Server {
    let proxy = Proxy::start(config).expect("it starts");
    builder.handler(proxy).start().expect("the server starts")
}

/// A sidecar and its cache.
#[track_caller]
fn serve_and_see(upstream: &Upstream, workers: usize) -> (Server, Cache) {
    let proxy = Proxy::start(config(upstream)).expect("it starts");
    let cache = proxy.cache().expect("there is one");
    let server = quiet(workers).handler(proxy).start();
    (server.expect("the server starts"), cache)
}

#[track_caller]
fn sidecar(upstream: &Upstream) -> Server {
    serve_with(config(upstream), quiet(4))
}

fn reply(fields: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n\r\n{body}")
}

/// Answers with the number of the request, which may be kept for a minute, and these fields.
fn counting(fields: &'static str) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |asked, stream| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let mut text = reply(fields, &number.to_string());
        if asked.line().starts_with("HEAD ") {
            text.truncate(text.len() - number.to_string().len());
        }
        stream.write_all(text.as_bytes())
    })
}

fn request(address: SocketAddr, line: &str, fields: &str) -> Reply {
    ask(
        address,
        format!("{line} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"),
    )
}

#[track_caller]
fn status_of(reply: &Reply) -> &str {
    reply.header("Cache-Status").expect("a Cache-Status")
}

#[test]
fn a_reply_that_may_be_kept_is_fetched_once_and_says_so() {
    let upstream = counting("Cache-Control: max-age=60\r\nETag: \"1\"");
    let server = sidecar(&upstream);
    let address = server.local_addr();
    let first = get(address, "/a");
    assert_eq!((first.status, first.text()), (200, "1"));
    assert_eq!(status_of(&first), "plimsoll; fwd=uri-miss; stored");
    let second = get(address, "/a");
    assert_eq!((second.status, second.text()), (200, "1"));
    assert!(
        status_of(&second).starts_with("plimsoll; hit; ttl="),
        "{second:?}"
    );
    assert!(second.header("Age").is_some());
    assert_eq!(request(address, "GET /a", "").text(), "2", "another host");
    let conditional = request(address, "GET /a", "If-None-Match: \"1\"\r\n");
    assert_eq!((conditional.status, conditional.body.len()), (304, 0));
    let part = request(address, "GET /a", "Range: bytes=0-0\r\n");
    assert_eq!((part.status, part.text()), (206, "2"));
    let mut client = Client::connect(address);
    client.send("HEAD /a HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.reply_to_head();
    assert_eq!(
        (head.status, head.header("Content-Length")),
        (200, Some("1"))
    );
    // The connection is in step.
    assert_eq!(client.get("/a").reply().text(), "1");
    assert_eq!(upstream.asked().len(), 2);
    assert_eq!(get(address, "/b").text(), "3");
}

#[test]
fn what_may_not_be_kept_is_fetched_each_time() {
    for fields in ["Cache-Control: no-store", "Cache-Control: private", "X: 1"] {
        let upstream = counting(fields);
        let server = sidecar(&upstream);
        for number in ["1", "2", "3"] {
            let reply = get(server.local_addr(), "/");
            assert_eq!(reply.text(), number, "{fields}");
            assert_eq!(status_of(&reply), "plimsoll; fwd=uri-miss", "{fields}");
        }
    }
    // A request with a body goes past the cache, and so does a method that changes something; it makes what is kept
    // invalid.
    let upstream = counting("Cache-Control: max-age=60");
    let server = sidecar(&upstream);
    let address = server.local_addr();
    assert_eq!(request(address, "GET /", "").text(), "1");
    let with_body = "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx";
    assert_eq!(ask(address, with_body).text(), "2");
    assert_eq!(request(address, "GET /", "").text(), "1");
    assert_eq!(
        request(address, "POST /", "Content-Length: 0\r\n").text(),
        "3"
    );
    assert_eq!(request(address, "GET /", "").text(), "4");
}

#[test]
fn bodies_of_any_size_and_framing_are_kept_whole_or_not_at_all() {
    let large = pattern(400_000);
    let sent = large.clone();
    let upstream = Upstream::start(move |asked, stream| {
        let target = asked.line().split(' ').nth(1).unwrap_or_default();
        let body = if target.ends_with("huge") {
            sent.repeat(4)
        } else {
            sent.clone()
        };
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        if target.starts_with("/chunked") {
            write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
            for chunk in body.chunks(10_000) {
                write!(stream, "{:x}\r\n", chunk.len())?;
                stream.write_all(chunk)?;
                stream.write_all(b"\r\n")?;
            }
            stream.write_all(b"0\r\n\r\n")
        } else {
            write!(stream, "{head}Content-Length: {}\r\n\r\n", body.len())?;
            stream.write_all(&body)
        }
    });
    let server = sidecar(&upstream);
    let address = server.local_addr();
    for (path, kept) in [
        ("/length", true),
        ("/chunked", true),
        ("/length-huge", false),
        ("/chunked-huge", false),
    ] {
        let before = upstream.asked().len();
        for _ in 0..3 {
            let reply = get(address, path);
            let times = if kept { 1 } else { 4 };
            assert!(
                reply.body == large.repeat(times),
                "{path}: {} bytes",
                reply.body.len()
            );
        }
        let asked = upstream.asked().len() - before;
        assert_eq!(asked, if kept { 1 } else { 3 }, "{path}");
    }
}

#[test]
fn a_body_that_is_cut_is_an_error_for_its_client_and_is_not_kept() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        let body = "x".repeat(200_000);
        let reply = reply("Cache-Control: max-age=60", &body);
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            stream.write_all(&reply.as_bytes()[..100_000])?;
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        stream.write_all(reply.as_bytes())
    });
    let server = sidecar(&upstream);
    let cut = get(server.local_addr(), "/");
    assert_eq!(cut.status, 502);
    assert_eq!(
        cut.header("Proxy-Status"),
        Some("plimsoll; error=http_response_incomplete")
    );
    for _ in 0..2 {
        assert_eq!(get(server.local_addr(), "/").body.len(), 200_000);
    }
    assert_eq!(upstream.asked().len(), 2);
}

#[test]
fn a_stale_reply_stands_for_one_whose_body_is_cut() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return stream.write_all(reply(STALE_IF_ERROR, "kept").as_bytes());
        }
        let cut = reply(STALE_IF_ERROR, &"x".repeat(200_000));
        stream.write_all(&cut.as_bytes()[..100_000])?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    });
    let server = sidecar(&upstream);
    for asked in 1..=3 {
        let reply = get(server.local_addr(), "/");
        assert_eq!((reply.status, reply.text()), (200, "kept"));
        assert_eq!(upstream.asked().len(), asked);
    }
}

/// Fresh for no time, and good enough for a minute while the service fails.
const STALE_IF_ERROR: &str = "Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"1\"";

#[test]
fn a_stale_reply_stands_for_a_service_that_is_dead_or_fails() {
    let fails = Arc::new(AtomicUsize::new(0));
    let failing = fails.clone();
    let mut upstream = Upstream::start(move |_, stream| {
        if failing.load(Ordering::SeqCst) == 0 {
            stream.write_all(reply(STALE_IF_ERROR, "kept").as_bytes())
        } else {
            stream.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
        }
    });
    let server = sidecar(&upstream);
    let address = server.local_addr();
    assert_eq!(get(address, "/").text(), "kept");
    fails.store(1, Ordering::SeqCst);
    let stale = get(address, "/");
    assert_eq!((stale.status, stale.text()), (200, "kept"));
    assert_eq!(status_of(&stale), "plimsoll; fwd=stale; fwd-status=503");
    upstream.stop();
    // The failures open the breaker, and then nothing is asked.
    for _ in 0..10 {
        let stale = get(address, "/");
        assert_eq!((stale.status, stale.text()), (200, "kept"));
        assert_eq!(status_of(&stale), "plimsoll; fwd=stale");
    }
    assert_eq!(get(address, "/other").status, 503);
}

#[test]
fn a_stale_reply_stands_for_one_that_does_not_come_in_time() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            held.pass();
        }
        stream.write_all(reply(STALE_IF_ERROR, "kept").as_bytes())
    });
    let builder = quiet(4).request_timeout(Duration::from_secs(1));
    let server = serve_with(config(&upstream), builder);
    let address = server.local_addr();
    assert_eq!(get(address, "/").text(), "kept");
    let stale = get(address, "/");
    assert_eq!((stale.status, stale.text()), (200, "kept"));
    latch.open();
}

#[test]
fn a_stale_reply_is_given_at_once_while_it_is_asked_for_in_the_background() {
    let upstream = counting("Cache-Control: max-age=1, stale-while-revalidate=3600");
    let server = sidecar(&upstream);
    let address = server.local_addr();
    assert_eq!(get(address, "/").text(), "1");
    // No client waits for the service.
    wait_until("it is fetched", || {
        let reply = get(address, "/");
        assert!(status_of(&reply).contains("hit"), "{reply:?}");
        reply.text() == "2"
    });
    assert!(upstream.asked().len() >= 2);
}

#[test]
fn requests_for_the_same_make_one_fetch_and_a_client_that_leaves_ends_it_for_nobody() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let upstream = Upstream::start(move |asked, stream| {
        if asked.line().starts_with("GET /lone ") {
            // Until the other side has closed.
            let _ = stream.read(&mut [0])?;
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        held.pass();
        stream.write_all(reply("Cache-Control: max-age=60", "shared").as_bytes())
    });
    let (server, cache) = serve_and_see(&upstream, 4);
    let address = server.local_addr();
    let mut first = Client::connect(address);
    first.get("/");
    latch.wait_for(1);
    let mut others: Vec<_> = (0..3).map(|_| Client::connect(address)).collect();
    for client in &mut others {
        client.get("/");
    }
    wait_until("they wait", || {
        cache.stats().waits == 3 && server.health().snapshot().workers_busy == 0
    });
    let mut lone = Client::connect(address);
    lone.get("/lone");
    wait_until("the service is asked", || upstream.asked().len() == 2);
    // By the time that a later fetch, for which nobody else waits, is ended, the earlier one would be too.
    first.reset();
    lone.reset();
    wait_until("the later one is ended", || upstream.open() == 1);
    latch.open();
    for client in &mut others {
        assert_eq!(client.reply().text(), "shared");
    }
    assert_eq!(upstream.asked().len(), 2);
}

/// Each held its socket until the fetch had ended.
#[test]
fn those_who_wait_for_a_fetch_and_leave_are_let_go() {
    const MANY: u64 = 50;
    let upstream = Upstream::hanging();
    let server = Serving::start(&["--upstream", &upstream.url(), "--cache", "1MiB"]);
    let address = server.address;
    let mut first = Client::connect(address);
    first.get("/");
    wait_until("it is asked", || !upstream.asked().is_empty());
    let before = server.usage().descriptors;
    let waits = |number| server.metric("plimsoll_cache_waits_total", "") == number;
    for number in 1..=MANY {
        let mut other = Client::connect(address);
        other.get("/");
        wait_until("it waits", || waits(number));
        other.reset();
    }
    wait_until("nothing is left of them", || {
        server.usage().descriptors < before + 20
    });
    // One that says no more than that it will send nothing is let go a little later.
    let mut other = Client::connect(address);
    other.get("/").finish();
    assert!(other.rest().is_empty());
    assert_eq!(upstream.asked().len(), 1);
}

/// All of them asked at once.
#[test]
fn those_who_have_waited_in_vain_ask_no_more_at_once_than_there_are_workers() {
    const MANY: usize = 20;
    let (first, others) = (Arc::new(Latch::default()), Arc::new(Latch::default()));
    let (held_first, held) = (first.clone(), others.clone());
    let (asked, now, most) = <(AtomicUsize, AtomicUsize, Arc<AtomicUsize>)>::default();
    let seen = most.clone();
    let upstream = Upstream::start(move |_, stream| {
        seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => held_first.pass(),
            _ => held.pass(),
        }
        now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(reply("Cache-Control: private", "own").as_bytes())
    });
    let (server, cache) = serve_and_see(&upstream, 2);
    let mut clients = Client::asking(server.local_addr(), MANY);
    first.wait_for(1);
    wait_until("all others wait", || cache.stats().waits == MANY as u64 - 1);
    first.open();
    others.wait_for(2);
    wait_until("no worker is held", || {
        let now = server.health().snapshot();
        (now.workers_busy, now.in_flight) == (0, 2)
    });
    others.open();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "own");
    }
    assert_eq!(upstream.asked().len(), MANY);
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

/// Refreshes stood in a queue, and requests waited for those that had not begun.
#[test]
fn refreshes_that_hang_hold_up_no_other_reply() {
    const SLOW: usize = 3;
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let (asked, hanging) = <(AtomicUsize, Arc<AtomicUsize>)>::default();
    let hangs = hanging.clone();
    let upstream = Upstream::start(move |request, stream| {
        let is_slow = request.line().contains("/slow");
        if is_slow && asked.fetch_add(1, Ordering::SeqCst) >= SLOW {
            hangs.fetch_add(1, Ordering::SeqCst);
            held.pass();
            hangs.fetch_sub(1, Ordering::SeqCst);
        }
        let fields = if is_slow {
            "Cache-Control: max-age=0, stale-while-revalidate=3600"
        } else {
            "Cache-Control: max-age=1, stale-while-revalidate=1"
        };
        stream.write_all(reply(fields, "kept").as_bytes())
    });
    let server = serve_with(config(&upstream), quiet(4).request_timeout(NEVER));
    let ask_slow = || {
        for number in 0..SLOW {
            let reply = get(server.local_addr(), &format!("/slow{number}"));
            assert_eq!(reply.text(), "kept");
        }
    };
    ask_slow();
    wait_until("all that may be are under way", || {
        ask_slow();
        hanging.load(Ordering::SeqCst) == 2
    });
    wait_until("it may not be given stale any more", || {
        let reply = get(server.local_addr(), "/quick");
        assert_eq!((reply.status, reply.text()), (200, "kept"));
        status_of(&reply).contains("fwd=stale")
    });
    assert_eq!(hanging.load(Ordering::SeqCst), 2);
    latch.open();
}

/// As Java's client does in each of its first requests.
#[test]
fn a_request_to_upgrade_to_what_is_not_allowed_is_one_like_any_other() {
    let upstream = counting("Cache-Control: max-age=60");
    let server = sidecar(&upstream);
    let address = server.local_addr();
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n";
    for _ in 0..2 {
        assert_eq!(request(address, "GET /", upgrade).text(), "1");
    }
    let post = format!("{upgrade}Content-Length: 0\r\n");
    assert_eq!(request(address, "POST /", &post).text(), "2");
    assert_eq!(request(address, "GET /", "").text(), "3");
}

#[test]
fn a_client_that_leaves_ends_the_fetch_that_nobody_else_waits_for() {
    let upstream = Upstream::hanging();
    let server = sidecar(&upstream);
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    wait_until("the service is asked", || upstream.asked().len() == 1);
    drop(client);
    wait_until("the service is left", || upstream.open() == 0);
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_waiting() {
    let body = "x".repeat(400_000);
    let sent = body.clone();
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(reply("Cache-Control: max-age=60", &sent).as_bytes())
    });
    let server = sidecar(&upstream);
    let address = server.local_addr();
    let mut slow = Client::connect(address);
    slow.get("/");
    for _ in 0..3 {
        assert_eq!(get(address, "/").text(), body);
    }
    assert_eq!(upstream.asked().len(), 1);
    assert_eq!(slow.reply().text(), body);
}

#[test]
fn no_client_changes_what_another_gets() {
    // The service believes every field by which it may be told another host, path or method, and says which it saw.
    const BELIEVED: [&str; 9] = [
        "X-Host",
        "X_Host",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Http_Method",
        "X-Method-Override",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
    ];
    let upstream = Upstream::start(|asked, stream| {
        let named = BELIEVED.map(|name| asked.fields(name).concat());
        let body = format!("{} {}", asked.fields("host").concat(), named.concat());
        stream.write_all(reply("Cache-Control: max-age=60", &body).as_bytes())
    });
    let server = sidecar(&upstream);
    let address = server.local_addr();
    for (number, name) in BELIEVED.iter().enumerate() {
        let line = format!("GET /{number}");
        let poisoned = request(address, &line, &format!("{name}: evil.example\r\n"));
        let clean = request(address, &line, "");
        assert_eq!(poisoned.status, 200);
        assert!(status_of(&clean).contains("hit"), "{name}: {clean:?}");
        assert!(!clean.text().contains("evil"), "{name}: {}", clean.text());
        assert!(clean.text().starts_with("a "), "{name}: {}", clean.text());
    }
    // Requests that name two hosts are none.
    let twice = "GET /0 HTTP/1.1\r\nHost: a\r\nHost: evil.example\r\n\r\n";
    assert_eq!(ask(address, twice).status, 400);
    // The host of an absolute target is the one that counts, for the key and for the service.
    let absolute = ask(
        address,
        "GET http://evil.example/0 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert!(
        absolute.text().starts_with("evil.example "),
        "{}",
        absolute.text()
    );
    assert!(request(address, "GET /0", "").text().starts_with("a "));
}

#[test]
fn what_a_service_may_tell_apart_is_kept_apart() {
    let upstream = counting("Cache-Control: max-age=60");
    let server = sidecar(&upstream);
    let address = server.local_addr();
    let mut seen = Vec::new();
    // Case and encoding of the target, and its query, are the service's to read.
    for target in [
        "/a", "/A", "/%61", "/a/", "/a?", "/a?b", "/a?B", "//a", "/./a", "/a;b",
    ] {
        let reply = request(address, &format!("GET {target}"), "");
        assert!(!seen.contains(&reply.text().to_owned()), "{target}");
        seen.push(reply.text().to_owned());
    }
    // A host is the same in any case and with its usual port.
    for host in ["a", "A", "a:80"] {
        let bytes = format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(ask(address, bytes).text(), "1", "{host}");
    }
    let bytes = "GET /a HTTP/1.1\r\nHost: a:81\r\n\r\n";
    assert_eq!(ask(address, bytes).text(), "11");
}

#[test]
fn a_part_an_error_and_another_method_are_never_given_for_the_whole() {
    let upstream = Upstream::start(|asked, stream| {
        let line = asked.line();
        let head = "Cache-Control: max-age=60\r\n";
        if !asked.fields("range").is_empty() {
            return write!(
                stream,
                "HTTP/1.1 206 Part\r\n{head}Content-Range: bytes 0-0/5\r\nContent-Length: 1\r\n\r\nh"
            );
        }
        if line.starts_with("HEAD ") {
            return write!(stream, "HTTP/1.1 200 OK\r\n{head}Content-Length: 5\r\n\r\n");
        }
        if line.starts_with("POST ") {
            return write!(
                stream,
                "HTTP/1.1 200 OK\r\n{head}Content-Length: 6\r\n\r\nposted"
            );
        }
        write!(
            stream,
            "HTTP/1.1 200 OK\r\n{head}Content-Length: 5\r\n\r\nwhole"
        )
    });
    let server = sidecar(&upstream);
    let address = server.local_addr();
    for (number, (line, fields)) in [
        ("GET", "Range: bytes=0-0\r\n"),
        ("HEAD", ""),
        ("POST", "Content-Length: 0\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = Client::connect(address);
        client.send(format!(
            "{line} /{number} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
        ));
        let _ = if line == "HEAD" {
            client.reply_to_head()
        } else {
            client.reply()
        };
        let whole = request(address, &format!("GET /{number}"), "");
        assert_eq!((whole.status, whole.text()), (200, "whole"), "after {line}");
    }
}

#[test]
fn replies_that_vary_are_kept_for_those_they_are_for() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |asked, stream| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let vary = if asked.line().contains("/star") {
            "*"
        } else {
            "Accept-Language"
        };
        let fields = format!("Cache-Control: max-age=60\r\nVary: {vary}");
        stream.write_all(reply(&fields, &number.to_string()).as_bytes())
    });
    let server = sidecar(&upstream);
    let address = server.local_addr();
    let texts = ["de", "en", "de", "en"].map(|language| {
        let fields = format!("Accept-Language: {language}\r\n");
        request(address, "GET /", &fields).text().to_owned()
    });
    assert_eq!(texts, ["1", "2", "1", "2"]);
    assert_eq!(request(address, "GET /star", "").text(), "3");
    assert_eq!(request(address, "GET /star", "").text(), "4");
}

#[test]
fn a_targeted_field_rules_only_where_it_is_named() {
    let upstream = counting("Cache-Control: no-store\r\nCDN-Cache-Control: max-age=60");
    let server = sidecar(&upstream);
    let texts = [(); 2].map(|()| get(server.local_addr(), "/").text().to_owned());
    assert_eq!(texts, ["1", "2"]);
    let targeted = ProxyConfig {
        cache_target: Some("CDN-Cache-Control".to_owned()),
        ..config(&upstream)
    };
    let server = serve_with(targeted, quiet(4));
    let texts = [(); 2].map(|()| get(server.local_addr(), "/").text().to_owned());
    assert_eq!(texts, ["3", "3"]);
}

#[test]
fn without_the_option_nothing_is_kept() {
    let upstream = counting("Cache-Control: max-age=60");
    let plain = ProxyConfig {
        cache: None,
        breaker: BreakerMode::Off,
        ..config(&upstream)
    };
    let server = serve_with(plain, quiet(4));
    let replies = [(); 2].map(|()| get(server.local_addr(), "/"));
    assert_eq!(replies.each_ref().map(|reply| reply.text()), ["1", "2"]);
    assert!(
        replies
            .iter()
            .all(|reply| reply.header("Cache-Status").is_none())
    );
}

/// More clients at once than there are workers: those who wait for the fetch hold none.
#[test]
fn five_hundred_clients_at_once_make_one_fetch_and_hold_no_workers() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let upstream = Upstream::start(move |asked, stream| {
        if asked.line().contains("/cold") {
            held.pass();
        }
        stream.write_all(reply("Cache-Control: max-age=60", "one for all").as_bytes())
    });
    let server = serve_with(config(&upstream), quiet(2));
    let address = server.local_addr();
    let mut clients: Vec<_> = (0..affordable(500))
        .map(|_| Client::connect(address))
        .collect();
    for client in &mut clients {
        client.get("/cold");
    }
    latch.wait_for(1);
    // The workers are free for those who ask for something else.
    wait_until("all wait", || {
        assert_eq!(get(address, "/warm").status, 200);
        server.health().snapshot().queue == 0
    });
    latch.open();
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text()), (200, "one for all"));
    }
    let cold = upstream.asked();
    let cold = cold.iter().filter(|asked| asked.line().contains("/cold"));
    assert_eq!(cold.count(), 1);
}

#[test]
fn who_waits_for_the_service_holds_no_worker() {
    const MANY: usize = 100;
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let body = "x".repeat(100_000);
    let sent = body.clone();
    let upstream = Upstream::start(move |_, stream| {
        held.pass();
        stream.write_all(reply("Cache-Control: max-age=60", &sent).as_bytes())
    });
    // Room for all that come at once.
    let roomy = ProxyConfig {
        cache: Some(32 * MIB),
        ..config(&upstream)
    };
    let server = serve_with(roomy, quiet(MANY));
    let address = server.local_addr();
    let mut clients: Vec<_> = (0..MANY).map(|_| Client::connect(address)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/{}", number / 2));
    }
    latch.wait_for(MANY / 2);
    wait_until("no worker is held", || {
        let now = server.health().snapshot();
        (now.workers_busy, now.in_flight, now.queue) == (0, MANY / 2, 0)
    });
    latch.open();
    for client in &mut clients {
        assert!(client.reply().text() == body, "another body");
    }
    assert_eq!(upstream.asked().len(), MANY / 2);
}

#[test]
fn a_failed_fetch_fails_none_of_those_who_may_have_the_stale_reply() {
    let latch = Arc::new(Latch::default());
    let held = latch.clone();
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            held.pass();
            return Err(std::io::ErrorKind::ConnectionAborted.into());
        }
        stream.write_all(reply(STALE_IF_ERROR, "kept").as_bytes())
    });
    let server = serve_with(config(&upstream), quiet(2));
    let address = server.local_addr();
    assert_eq!(get(address, "/").text(), "kept");
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.get("/");
    }
    latch.wait_for(1);
    latch.open();
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text()), (200, "kept"));
    }
}

#[test]
fn who_waits_for_a_fetch_that_never_ends_is_answered_in_time_and_a_drain_waits_for_none() {
    let upstream = Upstream::hanging();
    let builder = quiet(2).request_timeout(Duration::from_millis(500));
    let patient = ProxyConfig {
        breaker: BreakerMode::Off,
        ..config(&upstream)
    };
    let server = serve_with(patient, builder);
    let mut clients: Vec<_> = (0..20)
        .map(|_| Client::connect(server.local_addr()))
        .collect();
    for client in &mut clients {
        client.get("/");
    }
    for client in &mut clients {
        assert_eq!(client.reply().status, 504);
    }
    drop(server);
}

/// A sidecar with a second listener, whose reports tell of the cache.
fn with_admin(upstream: &Upstream) -> (Server, SocketAddr, SocketAddr) {
    let proxy = Proxy::start(config(upstream)).expect("it starts");
    let cache = proxy.cache().expect("there is one");
    let server = quiet(4)
        .admin("127.0.0.1:0")
        .cache(cache)
        .handler(proxy)
        .start()
        .expect("the server starts");
    let (public, admin) = (server.local_addr(), server.admin_addr());
    let admin = admin.expect("a second listener");
    (server, public, admin)
}

#[test]
fn purge_on_the_admin_listener_and_there_alone_forgets_what_is_kept() {
    let upstream = counting("Cache-Control: max-age=60");
    let (_server, public, admin) = with_admin(&upstream);
    assert_eq!(request(public, "GET /a?b", "").text(), "1");
    // On the public listener it is a method like any other, which goes to the service.
    assert_eq!(request(public, "PURGE /other", "").text(), "2");
    for (line, said) in [
        ("PURGE /a", "0 replies purged\n"),
        ("PURGE /a?b", "1 reply purged\n"),
        ("PURGE /a?b", "0 replies purged\n"),
    ] {
        let reply = request(admin, line, "");
        assert_eq!((reply.status, reply.text()), (200, said), "{line}");
    }
    assert_eq!(request(public, "GET /a?b", "").text(), "3");
    assert_eq!(request(admin, "GET /a?b", "").status, 404);
}

#[test]
fn the_reports_tell_how_the_cache_is_used() {
    let upstream = counting("Cache-Control: max-age=60");
    let (_server, public, admin) = with_admin(&upstream);
    for line in ["GET /a", "GET /a", "GET /a", "GET /b", "POST /c"] {
        request(
            public,
            line,
            if line.starts_with("POST") {
                "Content-Length: 0\r\n"
            } else {
                ""
            },
        );
    }
    let metrics = get(admin, "/metrics");
    for line in [
        "plimsoll_cache_requests_total{result=\"hit\"} 2",
        "plimsoll_cache_requests_total{result=\"miss\"} 2",
        "plimsoll_cache_requests_total{result=\"bypass\"} 1",
        "plimsoll_cache_entries 2",
        "plimsoll_cache_capacity_bytes 4194304",
    ] {
        assert!(
            metrics.text().lines().any(|found| found == line),
            "{line}: {}",
            metrics.text()
        );
    }
    let report = || -> serde_json::Value {
        serde_json::from_str(get(admin, "/status.json").text()).expect("JSON")
    };
    assert_eq!(report()["cache"]["hits"], 2);
    let sum = |column: &serde_json::Value| -> u64 {
        let column = column.as_array().expect("a column");
        column.iter().filter_map(serde_json::Value::as_u64).sum()
    };
    wait_until("the second is sampled", || {
        sum(&report()["history"]["cache_asked"]) == 4
    });
    assert_eq!(sum(&report()["history"]["cache_given"]), 2);
    let Some(browser) = Browser::start() else {
        return;
    };
    browser.open(&format!("http://{admin}/status"));
    let cell = "document.querySelector('#cache tbody th')?.innerText";
    browser.wait_until(&format!("{cell} == '50 %'"));
}

/// The program by itself, as its allocator is a part of it.
#[test]
#[ignore = "slow: make test-slow"]
fn a_cache_that_was_filled_ten_times_over_is_resident_little_beyond_its_size() {
    const CACHE: usize = 64 * MIB;
    const CLIENTS: usize = 4;
    let body = pattern(MIB);
    let upstream = Upstream::start(move |asked, stream| {
        let size = asked.line().split(['/', ' ']).nth(3);
        let size = size.and_then(|size| size.parse().ok()).unwrap_or(0);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=3600\r\nContent-Length: {size}\r\n\r\n"
        )?;
        stream.write_all(&body[..size])
    });
    let server = Serving::start(&["--upstream", &upstream.url(), "--cache", "64MiB"]);
    let address = server.address;
    assert_eq!(get(address, "/0/100").status, 200);
    let before = server.usage().memory;
    let most = AtomicUsize::new(before);
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (server, most) = (&server, &most);
            scope.spawn(move || {
                let mut client = Client::connect(address);
                let mut taken = 0;
                let mut random = number as u64;
                for request in 0.. {
                    if taken >= 10 * CACHE / CLIENTS {
                        return;
                    }
                    // As many of each order of magnitude, from 100 B to 1 MiB.
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let least = 100 << ((random >> 60) % 14);
                    let size = (least + (random >> 32) as usize % least).min(MIB);
                    let target = format!("/{number}-{request}/{size}");
                    assert_eq!(client.get(&target).reply().body.len(), size);
                    taken += size;
                    most.fetch_max(server.usage().memory, Ordering::Relaxed);
                }
            });
        }
    });
    let bytes = server.metric("plimsoll_cache_bytes", "");
    assert!(bytes > CACHE as u64 * 9 / 10, "it is full: {bytes}");
    let grown = (most.into_inner() - before) * 1024;
    println!("{grown} bytes resident for a cache of {CACHE}");
    assert!(grown as f64 <= 1.15 * CACHE as f64, "{grown} bytes");
}
