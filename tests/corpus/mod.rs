//! Requests that other projects test their servers with: what the server answers, and what of them the sidecar lets
//! through, byte for byte.
//!
//! `requests.jsonl` has one request a line. They come from the test data of gunicorn, llhttp and Http11Probe; those are
//! left out that are one project's policy. `raw` holds the bytes as code points; `forwarded` is what a service gets of
//! them, if it gets anything, and with `complete: false` the request ends too early for an answer.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use plimsoll::Request;
use plimsoll::proxy::{Proxy, ProxyConfig};
use serde_json::Value;

use crate::kit::{Client, Reply, Upstream, quiet};

/// A request, and what is to come of it.
struct Case {
    id: String,
    raw: Vec<u8>,
    expect: String,
    is_complete: bool,
    forwarded: Option<String>,
}

fn cases() -> Vec<Case> {
    let cases = include_str!("requests.jsonl").lines().map(|line| {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let text = |name: &str| case[name].as_str().map(str::to_owned);
        Case {
            id: text("id").expect("an id"),
            raw: bytes(&text("raw").expect("a request")),
            expect: text("expect").expect("an expectation"),
            is_complete: case["complete"] != false,
            forwarded: text("forwarded"),
        }
    });
    let cases: Vec<_> = cases.collect();
    assert!(cases.len() >= 200, "{}", cases.len());
    cases
}

/// The bytes whose code points those are.
fn bytes(text: &str) -> Vec<u8> {
    let bytes = text.chars().map(|char| u8::try_from(char).expect("a byte"));
    bytes.collect()
}

/// The status of each final reply to a client that sends that much and nothing more.
fn statuses(address: SocketAddr, case: &Case) -> Vec<u16> {
    let mut client = Client::connect(address);
    // The server may have closed before it has read all.
    if client.try_send(&case.raw).is_ok() {
        let socket = client.socket();
        let _ = socket.shutdown(std::net::Shutdown::Write);
    }
    let mut found = Vec::new();
    let to_head = case.raw.starts_with(b"HEAD ");
    loop {
        match Reply::read(&mut client.stream, to_head) {
            Ok(reply) if reply.status < 200 => {}
            Ok(reply) => found.push(reply.status),
            Err(error) if error.kind() == ErrorKind::Other => panic!("{}: {error}", case.id),
            Err(_) => return found,
        }
    }
}

/// Whether these are the answers that a case expects.
fn is_expected(case: &Case, found: &[u16]) -> bool {
    const REFUSALS: [u16; 10] = [400, 408, 411, 413, 414, 431, 494, 500, 502, 505];
    let first = found.first().copied();
    match case.expect.as_str() {
        // What comes before it may be good.
        "reject" => {
            let is_refused = found.iter().any(|status| *status >= 400);
            found.is_empty() || is_refused && !matches!(found, [404 | 405])
        }
        "accept" => {
            let is_accepted = first.is_some_and(|first| !REFUSALS.contains(&first));
            is_accepted || !case.is_complete
        }
        expect => {
            let range = expect.strip_prefix("status:").expect("a kind of answer");
            let (range, closes) = match range.strip_suffix(",close") {
                Some(range) => (range, true),
                None => (range, false),
            };
            let (low, high) = range.split_once('-').expect("two numbers");
            let number = |text: &str| text.parse::<u16>().expect("a status");
            first.map_or(closes, |first| {
                (number(low)..=number(high)).contains(&first)
            })
        }
    }
}

/// What a case is answered by the server at that address.
#[track_caller]
fn check(address: SocketAddr, case: &Case) -> Vec<u16> {
    let found = statuses(address, case);
    let Case {
        id, raw, expect, ..
    } = case;
    let raw = String::from_utf8_lossy(raw);
    assert!(
        is_expected(case, &found),
        "{id}: {expect}, found {found:?} for {raw:?}"
    );
    found
}

#[test]
fn requests_of_other_projects_are_answered_as_they_expect() {
    let server = quiet(4).handler(|_: &mut Request| "hello\n");
    let server = server.start().expect("the server starts");
    for case in cases() {
        check(server.local_addr(), &case);
    }
}

#[test]
fn the_sidecar_lets_through_one_good_request_for_each_that_is_answered_and_nothing_else() {
    let upstream = Upstream::start(|asked, stream| {
        let body = if asked.line().starts_with("HEAD ") {
            ""
        } else {
            "hello\n"
        };
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{body}")
    });
    let proxy = Proxy::start(ProxyConfig::to([upstream.url()])).expect("it starts");
    let server = quiet(4).handler(proxy).start().expect("the server starts");
    let authority = upstream.address.to_string();
    let mut before = 0;
    let mut forwarded = 0;
    for case in cases() {
        let found = check(server.local_addr(), &case);
        let asked = upstream.asked().split_off(before);
        before += asked.len();
        let asked: Vec<Vec<u8>> = asked
            .iter()
            .map(|asked| [&bytes(&asked.head), asked.body.as_slice()].concat())
            .collect();
        let Some(expected) = &case.forwarded else {
            assert!(asked.is_empty(), "{}: {}", case.id, shown(&asked));
            continue;
        };
        assert_eq!(found[0], 200, "{}", case.id);
        assert_eq!(asked.len(), 1, "{}: {}", case.id, shown(&asked));
        let field = |name: &str| value(&asked[0], name);
        let expected = expected
            .replace("{authority}", &authority)
            .replace("{id}", &field("X-Request-Id"))
            .replace("{timeout}", &field("X-Envoy-Expected-Rq-Timeout-Ms"));
        let expected = bytes(&expected);
        assert!(
            asked[0] == expected,
            "{}: {} and not {}",
            case.id,
            shown(&asked),
            shown(&[expected])
        );
        forwarded += 1;
    }
    assert!(forwarded >= 75, "{forwarded}");
    let others = server.health().snapshot().totals.panics;
    assert_eq!(others, 0);
}

/// The value of the first field of that name.
fn value(request: &[u8], name: &str) -> String {
    let request = String::from_utf8_lossy(request);
    let mut fields = request.lines().filter_map(|line| line.split_once(": "));
    let found = fields.find(|(other, _)| *other == name);
    found.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

fn shown(requests: &[Vec<u8>]) -> String {
    let requests = requests
        .iter()
        .map(|request| String::from_utf8_lossy(request));
    requests.collect::<Vec<_>>().join(" | ")
}
