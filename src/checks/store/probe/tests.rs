use super::super::fake::{Fake, PATIENCE, SHORT, wait_for_the_end};
use super::*;
use std::io::{Read, Write};

/// A server that answers each request with `reply`, and leaves the connection open.
fn answering(reply: &str) -> Fake {
    let reply = reply.to_owned();
    Fake::start(move |stream| {
        let mut request = Vec::new();
        let mut piece = [0; 1024];
        while !request.ends_with(b"\r\n\r\n") {
            let count = stream.read(&mut piece).expect("a request");
            assert!(count > 0, "the end, in the middle of a request");
            request.extend_from_slice(&piece[..count]);
        }
        // The other side may have heard enough.
        let _ = stream.write_all(reply.as_bytes());
        if !reply.is_empty() {
            wait_for_the_end(stream);
        }
    })
}

fn ask(server: &Fake, deadline: Instant) -> Result<Probed, CheckError> {
    let url = format!("http://{}/readyz", server.address());
    let probe: Probe = url.parse().expect("a good URL");
    probe.ask(deadline)
}

#[track_caller]
fn answer(reply: &str) -> Probed {
    let answer = ask(&answering(reply), Instant::now() + PATIENCE);
    answer.expect("an answer")
}

#[track_caller]
fn failure(reply: &str) -> String {
    let answer = ask(&answering(reply), Instant::now() + PATIENCE);
    answer.expect_err("no answer").to_string()
}

/// A whole reply with a length.
fn reply(status: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-TYPE: {content_type}\r\nContent-length: {length}\r\n\r\n{body}"
    )
}

#[test]
fn text_is_asked_for_first() {
    let server = Fake::start(|stream| {
        let mut request = [0; 1024];
        let count = stream.read(&mut request).expect("a request");
        let request = String::from_utf8_lossy(&request[..count]);
        let good = request.starts_with("GET /readyz HTTP/1.1\r\n")
            && request.contains("\r\nAccept: text/plain, text/*, */*\r\n");
        let status = if good { 200 } else { 500 };
        let _ = write!(stream, "HTTP/1.1 {status} x\r\n\r\n");
    });
    let answer = ask(&server, Instant::now() + PATIENCE).expect("an answer");
    assert_eq!(answer.code, 200);
}

#[test]
fn what_is_no_url_of_http_is_refused() {
    for url in [
        "",
        "a:80",
        "/readyz",
        "https://a/",
        "ftp://a/",
        "http:/a",
        "http://",
        "http:///x",
        "http://u:p@a/",
        "http://a:0/",
        "http://a/#x",
        "http://a/ b",
        "http://a/\r\nX: y",
        "http://::1/",
    ] {
        assert!(url.parse::<Probe>().is_err(), "{url:?}");
    }
}

#[test]
fn the_status_is_in_the_code_and_in_the_words() {
    let (text, json) = ("text/plain; charset=utf-8", "Application/health+JSON; x=y");
    for (status, content_type, body, expected) in [
        ("200 OK", text, "ready\n", Status::Pass),
        ("204 No Content", text, "", Status::Pass),
        ("299", text, "", Status::Pass),
        ("200 OK", text, "warning\n", Status::Warn),
        ("200 OK", text, "warnings: none\n", Status::Pass),
        ("200 OK", json, "{\"status\":\"warn\"}", Status::Warn),
        ("200 OK", json, "{\"status\":\"pass\"}", Status::Pass),
        ("200 OK", json, "{\"status\":\"fail\"}", Status::Fail),
        ("200 OK", json, "nonsense", Status::Pass),
        ("429 Too Many Requests", text, "healthy\n", Status::Warn),
        ("301 Moved Permanently", text, "", Status::Fail),
        ("404 Not Found", text, "not found\n", Status::Fail),
        ("503 Service Unavailable", text, "unhealthy\n", Status::Fail),
        (
            "503 Service Unavailable",
            json,
            "{\"status\":\"pass\"}",
            Status::Fail,
        ),
    ] {
        let answer = answer(&reply(status, content_type, body));
        assert_eq!(answer.status, expected, "{status} {body}");
        assert_eq!(answer.code.to_string(), status[..3]);
    }
}

#[test]
fn the_answer_is_shown_in_one_clean_line() {
    let body = format!("un\x1b[31mwell\nsecond {}\n", "x".repeat(9000));
    let answer = answer(&reply("503 Service Unavailable", "text/plain", &body));
    assert_eq!(answer.to_string(), "503 un?[31mwell");
    let endless = "x".repeat(128 * 1024);
    let answer = self::answer(&reply("200 OK", "text/plain", &endless));
    assert!(answer.line.len() < 200, "{}", answer.line.len());
}

#[test]
fn a_body_ends_by_its_length_its_chunks_or_the_connection_s_end() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5;x=y\r\nwarni\r\n3\r\nng\n\r\n0\r\n\r\n";
    assert_eq!(answer(chunked).status, Status::Warn);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n\
                   HTTP/1.1 200 OK\nContent-Length: 7\n\nwarning";
    assert_eq!(answer(interim).status, Status::Warn);
    let empty = "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(answer(empty).to_string(), "204 ");

    let closing = Fake::start(|stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nwarning");
    });
    let answer = ask(&closing, Instant::now() + PATIENCE).expect("an answer");
    assert_eq!(answer.status, Status::Warn);
}

#[test]
fn what_is_no_reply_of_http_is_a_failure_that_says_so() {
    for (said, expected) in [
        (
            "SSH-2.0-x\r\n\r\n",
            "GET: expected a reply of HTTP/1.1 with a status from 100 to 999, found \"SSH-2.0-x\"",
        ),
        (
            "HTTP/2 200\r\n\r\n",
            "GET: expected a reply of HTTP/1.1 with a status from 100 to 999, found \"HTTP/2 200\"",
        ),
        (
            "HTTP/1.1 20 OK\r\n\r\n",
            "GET: expected a reply of HTTP/1.1 with a status from 100 to 999, found \"HTTP/1.1 20 OK\"",
        ),
        (
            "HTTP/1.1 200OK\r\n\r\n",
            "GET: expected a reply of HTTP/1.1 with a status from 100 to 999, found \"HTTP/1.1 200OK\"",
        ),
        (
            "HTTP/1.1 \u{e9}00\r\n\r\n",
            "GET: expected a reply of HTTP/1.1 with a status from 100 to 999, found \"HTTP/1.1 \u{e9}00\"",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "GET: expected at most one Content-Length of digits, found another",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\n",
            "expected a chunk's size of 1 to 16 hexadecimal digits, found another",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "expected a chunk's size of 1 to 16 hexadecimal digits, found another",
        ),
        ("", "the connection was closed before the answer"),
    ] {
        assert_eq!(failure(said), expected, "{said:?}");
    }
}

#[test]
fn a_head_or_a_chunk_s_size_without_end_is_a_failure() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(50_000));
    assert!(failure(&many).contains("found more"));
    let size = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;{}\r\n",
        "x".repeat(2000)
    );
    assert!(failure(&size).contains("found more"));
}

#[test]
fn a_body_that_is_cut_is_no_answer() {
    for end in [
        "Content-Length: 9\r\n\r\nready",
        "Transfer-Encoding: chunked\r\n\r\n9\r\nready",
    ] {
        let closing = Fake::start(move |stream| {
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 200 OK\r\n{end}");
        });
        let error = ask(&closing, Instant::now() + PATIENCE).expect_err("no answer");
        let expected = "the connection was closed in the middle of the answer";
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_deadline_is_of_the_whole_whatever_drips() {
    let dripping: [&'static [u8]; 5] = [
        b"HTTP/1.1 200 O",
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    ];
    let servers = dripping.map(Fake::dripping).into_iter();
    for server in servers.chain([Fake::silent()]) {
        let began = Instant::now();
        let error = ask(&server, began + SHORT).expect_err("no answer");
        assert_eq!(error.to_string(), "no answer in time");
        assert!(began.elapsed() >= SHORT, "given up early");
        assert!(began.elapsed() < PATIENCE, "the deadline was stretched");
    }
}

#[test]
fn a_flood_is_read_up_to_a_bound() {
    let server = Fake::flooding(b"HTTP/1.1 200 OK\r\n\r\n");
    let answer = ask(&server, Instant::now() + PATIENCE).expect("an answer");
    assert_eq!(answer.status, Status::Pass);
    let server = Fake::flooding(b"HTTP/1.1 200 OK\r\nX: ");
    let error = ask(&server, Instant::now() + PATIENCE).expect_err("no answer");
    assert!(error.to_string().contains("found more"), "{error}");
}

#[test]
fn the_status_of_health_json_is_the_one_at_the_top() {
    let checks = r#""checks":{"a:b":[{"status":"fail","x":"}{\"status\":"}]}"#;
    for (body, expected) in [
        (
            format!("{{{checks},\"status\" : \"warn\"}}"),
            Some(Status::Warn),
        ),
        (
            format!("{{\"status\":\n\"pass\",{checks}}}"),
            Some(Status::Pass),
        ),
        (format!("{{{checks}}}"), None),
        (
            r#"{"notes":["status"],"status":"up"}"#.to_owned(),
            Some(Status::Pass),
        ),
        (
            r#"{"output":"status","status":"DOWN"}"#.to_owned(),
            Some(Status::Fail),
        ),
        (
            r#"{"a\"status":"fail","status":"ok"}"#.to_owned(),
            Some(Status::Pass),
        ),
        (
            r#"{"a\\":"status","status":"error"}"#.to_owned(),
            Some(Status::Fail),
        ),
        (r#"{"status":1}"#.to_owned(), None),
        (r#"{"status":"odd"}"#.to_owned(), None),
        (r#"{"status":"war"#.to_owned(), None),
        (r#"}}}]{"status":"warn"}"#.to_owned(), Some(Status::Warn)),
        ("\"".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(json_status(body.as_bytes()), expected, "{body}");
    }
}
