use proptest::prelude::*;

use super::*;

const MAX_HEAD: usize = 4096;

fn parse_whole(input: impl AsRef<[u8]>) -> Result<Option<(usize, Head)>, Refusal> {
    parse(input.as_ref(), MAX_HEAD, &mut Scan::default())
}

fn head(input: impl AsRef<[u8]>) -> Head {
    match parse_whole(&input) {
        Ok(Some((_, head))) => head,
        other => panic!(
            "{other:?} for {:?}",
            input.as_ref().escape_ascii().to_string()
        ),
    }
}

/// A GET over HTTP/1.1 with these fields besides Host.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn assert_refused(section: &str, input: impl AsRef<[u8]>, status: u16) {
    let shown = input.as_ref().escape_ascii().to_string();
    let refusal = parse_whole(input).expect_err(&format!("{section}: {shown}"));
    assert_eq!(refusal.status(), status, "{section}: {shown}");
    assert!(refusal.must_close(), "{section}: {shown}");
    let text = refusal.text();
    assert_eq!(text.find('\n'), Some(text.len() - 1), "{section}: {text:?}");
}

#[test]
fn request_lines_that_break_the_syntax_are_refused() {
    for (section, line, status) in [
        ("9112 3", "GET", 400),
        ("9112 3", "GET /", 400),
        ("9112 3", "GET HTTP/1.1", 400),
        ("9112 3", "GET  / HTTP/1.1", 400),
        ("9112 3", "GET /  HTTP/1.1", 400),
        ("9112 3", "GET\t/ HTTP/1.1", 400),
        ("9112 3", " GET / HTTP/1.1", 400),
        ("9112 3", "GET / HTTP/1.1 ", 400),
        ("9112 3", "GET /a b HTTP/1.1", 400),
        ("9112 3.1", "G:T / HTTP/1.1", 400),
        ("9112 3.1", "G\0T / HTTP/1.1", 400),
        ("9112 3.1", "GÉT / HTTP/1.1", 400),
        ("9112 3.2", "GET a HTTP/1.1", 400),
        ("9112 3.2", "GET a/b HTTP/1.1", 400),
        ("9112 3.2", "GET #a HTTP/1.1", 400),
        ("9112 3.2", "GET ?a HTTP/1.1", 400),
        ("9112 3.2", "GET /\0 HTTP/1.1", 400),
        ("9112 3.2", "GET /\x7f HTTP/1.1", 400),
        ("9112 3.2", "GET /\r HTTP/1.1", 400),
        ("9112 3.2.2", "GET ftp://a/ HTTP/1.1", 400),
        ("9112 3.2.2", "GET http:/a HTTP/1.1", 400),
        ("9110 4.2.1", "GET http:///a HTTP/1.1", 400),
        ("9110 4.2.1", "GET http://:80/a HTTP/1.1", 400),
        ("9110 4.2.4", "GET http://user@a/ HTTP/1.1", 400),
        ("9110 4.2.1", "GET http://a:b/ HTTP/1.1", 400),
        ("9110 4.2.1", "GET http://é/ HTTP/1.1", 400),
        ("9112 3.2.3", "GET a:80 HTTP/1.1", 400),
        ("9112 3.2.3", "CONNECT a:80 HTTP/1.1", 501),
        ("9112 3.2.3", "CONNECT [::1]:80 HTTP/1.1", 501),
        ("9112 3.2.3", "CONNECT / HTTP/1.1", 400),
        ("9112 3.2.4", "GET * HTTP/1.1", 400),
        ("9112 3.2.4", "PRI * HTTP/1.1", 400),
        ("9112 3.2.4", "OPTIONS *a HTTP/1.1", 400),
        ("9112 2.3", "GET / http/1.1", 400),
        ("9112 2.3", "GET / HTTP/1", 400),
        ("9112 2.3", "GET / HTTP/1.", 400),
        ("9112 2.3", "GET / HTTP/11", 400),
        ("9112 2.3", "GET / HTTP/1.10", 400),
        ("9112 2.3", "GET / HTTP/01.1", 400),
        ("9112 2.3", "GET / HTTP/ 1.1", 400),
        ("9112 2.3", "GET / HTTP/1,1", 400),
        ("9112 2.3", "GET / RTSP/1.0", 400),
        ("9110 15.6.6", "GET / HTTP/0.9", 505),
        ("9110 15.6.6", "GET / HTTP/1.2", 505),
        ("9110 15.6.6", "GET / HTTP/3.0", 505),
        ("9113 3.4", "PRI * HTTP/2.0", 505),
    ] {
        assert_refused(section, format!("{line}\r\nHost: a\r\n\r\n"), status);
    }
}

#[test]
fn lines_that_do_not_end_in_crlf_are_refused() {
    for (section, input) in [
        ("9112 2.2", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\nb:\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\nb:\nc: d\r\n\r\n"),
        (
            "9112 2.2",
            "GET / HTTP/1.1\r\nHost: a\r\nb: c\nd: e\r\n\r\n",
        ),
        ("9112 2.2", "GET / HTTP/1.0\n\n"),
        ("9112 2.2", "GET / HTTP/1.0\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.0\r\n\n"),
        ("9112 2.2", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\rb: c\r\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
        ("9112 2.2", "GET / HTTP/1.1\r\nHost: a\r\n\rb"),
        ("9112 2.2", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("9112 2.2", "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("9112 2.2", "\r\n\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("9112 2.2", "\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        assert_refused(section, input, 400);
        let (bytes, mut progress) = (input.as_bytes(), Scan::default());
        let dripped =
            (1..=bytes.len()).find_map(|end| parse(&bytes[..end], MAX_HEAD, &mut progress).err());
        assert!(
            dripped.is_some(),
            "{section}: not refused when dripped: {input:?}"
        );
    }
}

#[test]
fn fields_that_break_the_syntax_are_refused() {
    for (section, fields, status) in [
        ("9112 5.1", "b : c\r\n", 400),
        ("9112 5.1", "b\t: c\r\n", 400),
        ("9112 5.1", ": c\r\n", 400),
        ("9112 5.1", "b\r\n", 400),
        ("9112 5.1", "\0b: c\r\n", 400),
        ("9112 5.1", "b[: c\r\n", 400),
        ("9112 5.1", "é: c\r\n", 400),
        ("9112 5.2", "b: c\r\n d\r\n", 400),
        ("9112 5.2", "b:\r\n\tc\r\n", 400),
        ("9112 2.2", " \r\n", 400),
        ("9110 5.5", "b: c\0d\r\n", 400),
        ("9110 5.5", "b: \x07\r\n", 400),
        ("9110 5.5", "b: c\x7fd\r\n", 400),
        (
            "9110 5.5",
            "b: 0123456789012345678901234567890123456789\x7f\r\n",
            400,
        ),
        ("9110 5.5", "plimsoll-b: \x7f\r\n", 400),
        ("9110 8.6", "Content-Length: \r\n", 400),
        ("9110 8.6", "Content-Length: +1\r\n", 400),
        ("9110 8.6", "Content-Length: -1\r\n", 400),
        ("9110 8.6", "Content-Length: 0x1\r\n", 400),
        ("9110 8.6", "Content-Length: 1_0\r\n", 400),
        ("9110 8.6", "Content-Length: 1 0\r\n", 400),
        ("9110 8.6", "Content-Length: 1.0\r\n", 400),
        ("9110 8.6", "Content-Length: 5, 5\r\n", 400),
        ("9110 8.6", "Content-Length: 5,\r\n", 400),
        ("9110 8.6", "Content-Length: 18446744073709551616\r\n", 400),
        (
            "9112 6.3",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            400,
        ),
        (
            "9112 6.3",
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            400,
        ),
        (
            "9112 6.3",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        (
            "9112 6.3",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            400,
        ),
        ("9112 6.1", "Transfer-Encoding: \r\n", 400),
        ("9112 6.1", "Transfer-Encoding: ,\r\n", 400),
        ("9112 6.1", "Transfer-Encoding: gzip\r\n", 501),
        (
            "9112 6.1",
            "Transfer-Encoding: identity\r\nContent-Length: 5\r\n",
            501,
        ),
        ("9112 6.1", "Transfer-Encoding: gzip, chunked\r\n", 501),
        (
            "9112 6.1",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
            501,
        ),
        ("9112 6.1", "Transfer-Encoding: chunkedchunked\r\n", 501),
        ("9112 7.1", "Transfer-Encoding: chunked;a=b\r\n", 501),
        ("9112 6.3", "Transfer-Encoding: chunked, gzip\r\n", 400),
        (
            "9112 6.3",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            400,
        ),
        ("9112 6.1", "Transfer-Encoding: chunked, chunked\r\n", 400),
        ("9110 10.1.1", "Expect: 200-ok\r\n", 417),
        ("9110 10.1.1", "Expect: 100-continue, 200-ok\r\n", 417),
    ] {
        assert_refused(section, with(fields), status);
    }
    assert_refused(
        "9112 6.1",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    );
    assert_refused(
        "9112 6.1",
        "GET / HTTP/1.0\r\nTransfer-Encoding: gzip\r\n\r\n",
        400,
    );
}

#[test]
fn a_host_that_names_no_host_is_refused() {
    for (section, host) in [
        ("9110 7.2", "localhost:abc"),
        ("9110 7.2", "a:80:80"),
        ("9110 7.2", "a:-1"),
        ("9110 7.2", ":80"),
        ("9110 7.2", "a/b"),
        ("9110 7.2", "a, b"),
        ("9110 7.2", "a b"),
        ("9110 7.2", "é"),
        ("9110 4.2.4", "user@a"),
        ("9110 4.2.4", "user:password@a"),
        ("3986 3.2.2", "[::1"),
        ("3986 3.2.2", "[::1]a"),
        ("3986 3.2.2", "[::1]:a"),
        ("3986 3.2.2", "[]"),
        ("3986 3.2.2", "[127.0.0.1]"),
        ("3986 3.2.2", "[v1.a]"),
        ("3986 3.2.2", "::1"),
        ("3986 3.2.2", "]"),
        ("3986 2.1", "%"),
        ("3986 2.1", "a%2"),
        ("3986 2.1", "%zz"),
    ] {
        assert_refused(
            section,
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"),
            400,
        );
        assert_refused(
            section,
            format!("GET http://b/ HTTP/1.0\r\nHost: {host}\r\n\r\n"),
            400,
        );
    }
}

#[test]
fn http_1_1_needs_exactly_one_host_and_1_0_at_most_one() {
    assert_refused("9112 3.2", "GET / HTTP/1.1\r\n\r\n", 400);
    assert_refused("9112 3.2", "GET http://a/ HTTP/1.1\r\n\r\n", 400);
    assert_refused("9112 3.2", with("HOST: a\r\n"), 400);
    assert_refused(
        "9112 3.2",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        400,
    );
    assert_eq!(
        head("OPTIONS / HTTP/1.0\r\n\r\n").canonical(),
        b"OPTIONS / HTTP/1.1\r\n"
    );
}

#[test]
fn hosts_of_every_form_are_accepted() {
    for host in [
        "",
        "a",
        "a.example",
        "a_b~c",
        "0.0.0.0=5000",
        "127.0.0.1",
        "127.0.0.1:80",
        "[::1]",
        "[::1]:80",
        "[::ffff:127.0.0.1]:",
        "a:",
        "%41",
    ] {
        let head = head(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let expected = format!("GET / HTTP/1.1\r\nHost: {host}\r\n");
        assert_eq!(
            head.canonical().escape_ascii().to_string(),
            expected.as_bytes().escape_ascii().to_string()
        );
    }
}

#[test]
fn targets_become_origin_form() {
    for (section, method, target, expected, host) in [
        ("9112 3.2.1", "GET", "/", "/", "h"),
        ("9112 3.2.1", "GET", "/a?b?c", "/a?b?c", "h"),
        ("9112 3.2.1", "GET", "//a", "//a", "h"),
        ("9112 3.2.1", "GET", "/\"a\\|\"", "/\"a\\|\"", "h"),
        ("9112 3.2", "GET", "/a?b#c?d", "/a?b", "h"),
        ("9112 3.2", "GET", "/é", "/%C3%A9", "h"),
        ("9112 3.2.2", "GET", "http://a/b?c", "/b?c", "a"),
        ("9112 3.2.2", "GET", "HTTPS://a:1/b", "/b", "a:1"),
        ("9112 3.2.2", "GET", "http://[::1]:80/", "/", "[::1]:80"),
        ("9112 3.2.2", "GET", "http://a", "/", "a"),
        ("9112 3.2.2", "GET", "http://a?b", "/?b", "a"),
        ("9112 3.2.2", "GET", "http://a#b", "/", "a"),
        ("9112 3.2.4", "OPTIONS", "*", "*", "h"),
        ("9112 3.2.4", "OPTIONS", "http://a:1", "*", "a:1"),
        ("9112 3.2.4", "OPTIONS", "http://a/", "/", "a"),
    ] {
        let head = head(format!(
            "{method} {target} HTTP/1.1\r\nhost: h\r\nb: c\r\n\r\n"
        ));
        let canonical = format!("{method} {expected} HTTP/1.1\r\nhost: {host}\r\nb: c\r\n");
        assert_eq!(
            str::from_utf8(head.canonical()),
            Ok(canonical.as_str()),
            "{section}: {target}"
        );
        assert_eq!(head.target(), expected, "{section}");
    }
    let without_host = head("GET http://a/ HTTP/1.0\r\nb: c\r\n\r\n");
    assert_eq!(
        without_host.canonical(),
        b"GET / HTTP/1.1\r\nb: c\r\nHost: a\r\n"
    );
}

#[test]
fn path_and_query_part_at_the_first_question_mark() {
    for (target, path, query) in [
        ("/a", "/a", None),
        ("/a?", "/a", Some("")),
        ("/a?b?c", "/a", Some("b?c")),
        ("/?b#c", "/", Some("b")),
    ] {
        let head = head(format!("GET {target} HTTP/1.0\r\n\r\n"));
        assert_eq!((head.path(), head.query()), (path, query), "{target}");
    }
}

#[test]
fn fields_are_kept_in_order_byte_for_byte_without_the_space_around_values() {
    let head = head(
        b"POST /a HTTP/1.1\r\nHost: h\r\nX-One:  1 \t\r\nConnection: keep-alive, upgrade\r\nUPGRADE:w%20:\r\n\
          Content-Length: 3\r\nexpect: 100-Continue\r\nX-Latin: caf\xe9\r\nX-Empty:\r\nx-one: 2\r\n\r\nabc",
    );
    let fields: Vec<_> = head.fields().collect();
    let expected: [(&str, &[u8]); 9] = [
        ("Host", b"h"),
        ("X-One", b"1"),
        ("Connection", b"keep-alive, upgrade"),
        ("UPGRADE", b"w%20:"),
        ("Content-Length", b"3"),
        ("expect", b"100-Continue"),
        ("X-Latin", b"caf\xe9"),
        ("X-Empty", b""),
        ("x-one", b"2"),
    ];
    assert_eq!(fields, expected);
    assert_eq!(head.method_text(), "POST");
    assert_eq!((head.method, head.version), (Method::Post, Version::Http11));
    assert_eq!(head.framing, Framing::Length(3));
    assert!(head.expects_continue && head.keep_alive);

    let chunked = self::head(with("transfer-encoding: , Chunked ,\r\n"));
    assert_eq!(chunked.framing, Framing::Chunked);
}

#[test]
fn length_is_read_to_its_last_digit() {
    for (value, length) in [
        ("0", 0),
        ("003", 3),
        (" \t42 \t", 42),
        ("18446744073709551615", u64::MAX),
        ("00000000000000000000000001", 1),
    ] {
        let head = head(with(&format!("Content-Length:{value}\r\n")));
        assert_eq!(head.framing, Framing::Length(length), "9110 8.6: {value:?}");
    }
    assert_eq!(head(with("")).framing, Framing::None, "9112 6.3");
}

#[test]
fn connection_options_decide_keep_alive() {
    for (section, version, fields, keep_alive) in [
        ("9112 9.3", "1.1", "", true),
        ("9112 9.3", "1.1", "Connection: close\r\n", false),
        ("9112 9.3", "1.1", "Connection: CLOSE\t\r\n", false),
        ("9112 9.3", "1.1", "Connection: te, close\r\n", false),
        (
            "9112 9.3",
            "1.1",
            "Connection: te\r\nConnection: close\r\n",
            false,
        ),
        ("9112 9.3", "1.1", "Connection: closed\r\n", true),
        (
            "9112 9.3",
            "1.1",
            "Connection: close, keep-alive\r\n",
            false,
        ),
        (
            "9112 9.3",
            "1.1",
            "Connection: keep-alive, close\r\n",
            false,
        ),
        ("9112 9.3", "1.0", "", false),
        ("9112 9.3", "1.0", "Connection: Keep-Alive\r\n", true),
        ("9112 9.3", "1.0", "Connection: te,keep-alive\r\n", true),
        (
            "9112 9.3",
            "1.0",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
    ] {
        let head = head(format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(
            head.keep_alive, keep_alive,
            "{section}: {version} {fields:?}"
        );
    }
}

#[test]
fn only_http_1_1_expects_continue() {
    assert!(head(with("Expect: 100-continue\r\n")).expects_continue);
    assert!(!head(with("")).expects_continue);
    assert!(
        !head("POST / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expects_continue,
        "9110 10.1.1"
    );
}

#[test]
fn the_first_accept_is_kept() {
    assert_eq!(
        head(with("ACCEPT:  text/plain, */* \r\nAccept: b\r\n")).accept(),
        Some("text/plain, */*")
    );
    assert_eq!(head(with("Accept:\r\n")).accept(), Some(""));
    assert_eq!(head(with("Accept: é\r\n")).accept(), None);
    assert_eq!(head(with("")).accept(), None);
}

#[test]
fn up_to_two_empty_lines_are_skipped_and_counted() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for prefix in ["", "\r\n", "\r\n\r\n"] {
        let used =
            parse_whole(format!("{prefix}{request}rest")).map(|head| head.map(|(used, _)| used));
        assert_eq!(used, Ok(Some(prefix.len() + request.len())), "9112 2.2");
        assert_eq!(parse_whole(prefix), Ok(None));
        assert_eq!(empty_lines(prefix.as_bytes()), prefix.len());
    }
    assert_eq!(parse_whole("\r"), Ok(None));
    assert_eq!(empty_lines(b"\r\n\r"), 2);
}

#[test]
fn size_limits_include_the_empty_line_at_the_end() {
    let request = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
    let status = |input: &[u8], max| {
        parse(input, max, &mut Scan::default())
            .map(|head| head.is_some())
            .map_err(Refusal::status)
    };
    assert_eq!(status(request, request.len()), Ok(true));
    assert_eq!(status(request, request.len() - 1), Err(431), "6585 5");
    assert_eq!(
        status(&[request.as_slice(), request].concat(), request.len()),
        Ok(true)
    );
    assert_eq!(status(&request[..17], 17), Err(431), "6585 5");
    assert_eq!(status(request, 16), Err(414), "9112 3");
    assert_eq!(status(&request[..16], 16), Err(414), "9112 3");
    assert_eq!(status(&request[..16], 17), Ok(false));
    assert_eq!(status(request, 0), Err(414));
}

#[test]
fn a_hundred_fields_are_accepted_and_one_more_is_not() {
    // Host is one of them.
    assert!(parse_whole(with(&"a: b\r\n".repeat(99))).is_ok_and(|head| head.is_some()));
    assert_refused("6585 5", with(&"a: b\r\n".repeat(100)), 431);
}

#[test]
fn garbage_is_refused_from_its_first_piece() {
    for (section, input, status) in [
        (
            "8446 4.1.2",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(),
            400,
        ),
        ("8446 4.1.2", b"\x16", 400),
        ("9113 3.4", b"PRI * HTTP/2.0\r\n", 505),
        ("9112 2.3", b"GET / HTTP/x", 400),
        ("9112 2.3", b"GET / SIP/2", 400),
        ("9112 3.2", b"GET /\0", 400),
        ("9112 5.1", b"GET / HTTP/1.1\r\nb[", 400),
        ("9112 2.2", b"GET / HTTP/1.1\nHost", 400),
    ] {
        assert_refused(section, input, status);
    }
    for unfinished in [
        "",
        "G",
        "GET /",
        "GET / H",
        "GET / HTTP/2",
        "GET / HTTP/2.0",
        "GET / HTTP/1.1\r",
    ] {
        assert_eq!(parse_whole(unfinished), Ok(None), "{unfinished}");
    }
}

#[test]
fn a_head_that_drips_in_is_parsed_a_logarithmic_number_of_times() {
    let request = with(&format!("b: {}\r\n", "c".repeat(2000)));
    let mut progress = Scan::default();
    let mut parses = 0;
    for end in 1..request.len() {
        let before = progress.parse_at;
        assert_eq!(
            parse(&request.as_bytes()[..end], MAX_HEAD, &mut progress),
            Ok(None)
        );
        parses += usize::from(progress.parse_at != before);
    }
    assert!(parses <= 12, "{parses}");
    assert!(matches!(
        parse(request.as_bytes(), MAX_HEAD, &mut progress),
        Ok(Some(_))
    ));
}

/// Bytes that are nearly a head, so that most of the parser is reached.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just("Host: a".to_owned()),
        Just("Content-Length: 5".to_owned()),
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("Connection: upgrade, close".to_owned()),
        "[A-Za-z-]{1,12}:[ \t]{0,2}[ -~\tÀ-ÿ]{0,20}",
        "[ -~]{0,20}",
    ];
    let start = prop_oneof![
        Just("GET / HTTP/1.1".to_owned()),
        Just("GET http://b:1/c?d HTTP/1.1".to_owned()),
        "(GET|OPTIONS|[A-Z!]{1,8}) (/|\\*|https?://)[!-~À-ÿ]{0,12} HTTP/1\\.[0-2]",
    ];
    let end = prop_oneof![9 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    (start, prop::collection::vec((line, end), 0..6), ".{0,4}").prop_map(|(start, lines, rest)| {
        let fields: String = lines
            .into_iter()
            .flat_map(|(line, end)| [line, end.to_owned()])
            .collect();
        format!("{start}\r\nHost: b\r\n{fields}\r\n{rest}").into_bytes()
    })
}

proptest! {
    #[test]
    fn any_bytes_keep_the_invariants(data in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::internals::invariants::head(&data);
    }

    #[test]
    fn nearly_valid_heads_keep_the_invariants(data in nearly_a_head()) {
        crate::internals::invariants::head(&data);
    }

    #[test]
    fn values_are_kept_byte_for_byte(value in "[!-~À-ÿ]([ -~\tÀ-ÿ]{0,20}[!-~À-ÿ])?") {
        let head = head(with(&format!("X: {value}\r\n")));
        let (_, kept) = head.fields().find(|(name, _)| *name == "X").unwrap();
        prop_assert_eq!(kept, value.as_bytes());
    }
}
