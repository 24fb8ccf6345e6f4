use super::*;
use crate::server::exchange::ReplyRules;

/// The head of a reply, as it is sent to a client of HTTP/1.1 or 1.0.
fn head(response: Response, http11: bool) -> String {
    let rules = ReplyRules {
        http11,
        head_only: false,
        keep_alive: true,
    };
    let mut out = Vec::new();
    let mut date = DateCache::default();
    let _ = response.into_parts(rules, false, &mut date, &mut out);
    out.iter().copied().map(char::from).collect()
}

#[test]
fn a_head_has_what_the_handler_set() {
    for (what, response, expected) in [
        (
            "its own date and reason, and bytes outside ASCII; no bad name",
            Response::new(200, Vec::new())
                .with_reason("Fine\r\n")
                .with_added_header("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
                .with_added_header("X", b"\xe9\na")
                .with_added_header("Bad name", b""),
            "HTTP/1.1 200 Fine  \r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nX: \u{e9} a\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "one that is set replaces those of its name only",
            Response::new(204, Vec::new())
                .with_header("Date", "x")
                .with_added_header("A", "1")
                .with_added_header("b", "2")
                .with_added_header("a", "3")
                .with_header("A", "4"),
            "HTTP/1.1 204 No Content\r\nDate: x\r\nb: 2\r\nA: 4\r\n\r\n",
        ),
    ] {
        assert_eq!(head(response, true), expected, "{what}");
    }
}

/// They are those of another server, with its date.
#[test]
#[cfg(all(feature = "proxy", feature = "cache"))]
fn complete_headers_go_out_as_they_are_with_a_plain_one_behind_them() {
    let response = Response::new(204, Vec::new())
        .with_complete_headers(b"A: 1\r\n".to_vec())
        .with_plain_header("B", b"2\n");
    let expected = "HTTP/1.1 204 No Content\r\nA: 1\r\nB: 2 \r\n\r\n";
    assert_eq!(head(response, true), expected);
}

#[test]
fn interim_replies_go_before_the_reply_and_only_to_clients_that_know_them() {
    let response = |status| {
        let link = [("Link", &b"</a>"[..]), ("Content-Length", b"5")];
        let response = Response::new(204, Vec::new()).with_interim(status, link);
        response.with_header("Date", "x")
    };
    let reply = "HTTP/1.1 204 No Content\r\nDate: x\r\n";
    assert_eq!(
        head(response(103), true),
        format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{reply}\r\n")
    );
    assert_eq!(
        head(response(103), false),
        format!("{reply}Connection: keep-alive\r\n\r\n")
    );
    for status in [0, 99, 101, 200] {
        assert_eq!(head(response(status), true), format!("{reply}\r\n"));
    }
}

#[test]
fn a_reply_is_read_as_it_was_made() {
    let mut response = Response::text(404, "none\n")
        .with_header("X-One", "1")
        .with_added_header("x-one", String::from("2"))
        .with_header("X-Latin", vec![b'\xe9'])
        .with_status(410);
    assert_eq!(
        (response.status(), response.header("X-ONE")),
        (410, Some("1"))
    );
    assert_eq!(response.header("x-latin"), None);
    assert_eq!(response.header("Date"), None);
    let headers: Vec<_> = response.headers_bytes().collect();
    let expected: [(&str, &[u8]); 4] = [
        ("Content-Type", b"text/plain; charset=utf-8"),
        ("X-One", b"1"),
        ("x-one", b"2"),
        ("X-Latin", b"\xe9"),
    ];
    assert_eq!(headers, expected);
    assert_eq!(response.body().unwrap(), b"none\n");
}

#[test]
fn a_body_behind_a_reader_is_read_as_the_client_would_get_it() {
    let read = |text: &'static str, length| {
        let mut response = Response::reader(200, text.as_bytes(), length);
        let first = response.body().map(<[u8]>::to_vec);
        if first.is_ok() {
            assert_eq!(response.body().unwrap(), first.as_deref().unwrap());
        }
        first.map_err(|error| error.kind())
    };
    assert_eq!(read("whole", None), Ok(b"whole".to_vec()));
    assert_eq!(read("whole", Some(5)), Ok(b"whole".to_vec()));
    assert_eq!(read("beyond", Some(2)), Ok(b"be".to_vec()));
    assert_eq!(read("short", Some(6)), Err(io::ErrorKind::UnexpectedEof));
}

#[test]
fn what_a_handler_returns_becomes_a_reply() {
    let text = "text/plain; charset=utf-8";
    let bytes = "application/octet-stream";
    let rows: [(Response, u16, Option<&str>, &str); 14] = [
        (().into_response(), 204, None, ""),
        ((201, ()).into_response(), 201, None, ""),
        ("a".into_response(), 200, Some(text), "a"),
        (Cow::Borrowed("a").into_response(), 200, Some(text), "a"),
        ("a".to_owned().into_response(), 200, Some(text), "a"),
        (b"a".into_response(), 200, Some(bytes), "a"),
        (b"a"[..].into_response(), 200, Some(bytes), "a"),
        (b"a".to_vec().into_response(), 200, Some(bytes), "a"),
        (Some("a").into_response(), 200, Some(text), "a"),
        (None::<()>.into_response(), 404, Some(text), "not found\n"),
        (
            Err::<(), _>((409, "a")).into_response(),
            409,
            Some(text),
            "a",
        ),
        (Response::json("{}"), 200, Some("application/json"), "{}"),
        (Response::empty(304), 304, None, ""),
        (Response::empty(200).with_status(42), 500, None, ""),
    ];
    for (mut response, status, content_type, body) in rows {
        assert_eq!(response.status(), status, "{response:?}");
        assert_eq!(
            response.header("Content-Type"),
            content_type,
            "{response:?}"
        );
        assert_eq!(response.body().unwrap(), body.as_bytes());
    }
    let redirect = Response::redirect(303, "/a\r\nX: b");
    assert_eq!(redirect.header("Location"), Some("/a  X: b"));
}
