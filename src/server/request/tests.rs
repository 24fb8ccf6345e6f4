use super::*;
use crate::server::handler::Handler;
use std::panic::catch_unwind;

#[test]
fn a_built_request_has_what_a_usual_one_has() {
    let mut request = Request::builder().build();
    assert_eq!((request.method(), request.url()), ("GET", "/"));
    let headers: Vec<_> = request.headers().collect();
    assert_eq!(headers, [("Host", "localhost")]);
    assert_eq!(
        (request.bytes(), request.form().is_none()),
        (&b""[..], true)
    );
    assert!(request.remaining() > Duration::from_secs(20));
    assert_eq!((request.id().len(), request.id()), (32, request.id()));
    assert!(!request.abandoned() && request.health().is_healthy());
    let mut body = String::new();
    request.body().read_to_string(&mut body).unwrap();
    assert_eq!(body, "");
}

#[test]
fn a_built_request_goes_through_the_rules_that_hold_for_clients() {
    let request = Request::builder()
        .method("PUT")
        .url("http://shop.example/a#fragment")
        .header("Content-Length", "3")
        .header("X-Latin", b"caf\xe9")
        .body("abc")
        .build();
    assert_eq!(request.url(), "/a");
    assert_eq!(request.header("host"), Some("shop.example"));
    assert_eq!(request.header("x-latin"), Some("café"));
    assert_eq!(request.header_bytes("x-latin"), Some(&b"caf\xe9"[..]));
    assert_eq!(request.headers().count(), 3);

    let builder = Request::builder;
    for refused in [
        builder().method("GE T"),
        builder().method("CONNECT"),
        builder().url("/a b"),
        builder().url("/ HTTP/1.1\r\nX-More: 1"),
        builder().url("/ HTTP/1.1\r\n\r\n"),
        builder().header("Content-Length", "x"),
        builder().header("Host", "a").header("Host", "b"),
    ] {
        let what = format!("{refused:?}");
        assert!(catch_unwind(|| refused.build()).is_err(), "{what}");
    }
    for (name, value) in [("X-A", "a\r\nX-More: 1"), ("X A", "a"), ("", "a")] {
        assert!(catch_unwind(|| builder().header(name, value)).is_err());
    }
}

#[test]
fn a_body_is_there_as_bytes_and_as_text_however_much_was_read() {
    let mut request = Request::builder().body("grün").build();
    let mut first = [0; 2];
    request.body().read_exact(&mut first).unwrap();
    assert_eq!(request.bytes(), "grün".as_bytes());
    assert_eq!(request.text(), Ok("grün"));
    assert_eq!(request.body_len(), 5);
    assert!(
        Request::builder()
            .body([b'a', 0xff])
            .build()
            .text()
            .is_err()
    );
}

#[test]
fn pairs_are_decoded() {
    let pairs = |text: &str| {
        let request = Request::builder().url(format!("/?{text}")).build();
        let of_query: Vec<_> = request.query_pairs().collect();
        let form = Request::builder()
            .header(
                "Content-Type",
                "Application/X-WWW-Form-Urlencoded; charset=utf-8",
            )
            .body(text)
            .build();
        let of_form: Vec<_> = form.form().unwrap().collect();
        assert_eq!(of_query, of_form);
        let pairs = of_query.into_iter();
        let pairs = pairs.map(|(name, value)| format!("{name}:{value}"));
        pairs.collect::<Vec<_>>().join(" | ")
    };
    for (text, expected) in [
        ("", ""),
        ("a=1&b=2&a=3", "a:1 | b:2 | a:3"),
        ("a&b=&=c&&", "a: | b: | :c"),
        ("a=x=y%3D+z", "a:x=y= z"),
        ("%C3%BC=%E4&b=%zz%", "ü:\u{fffd} | b:%zz%"),
    ] {
        assert_eq!(pairs(text), expected, "{text}");
    }
    assert_eq!(Request::builder().build().query_pairs().count(), 0);
}

#[test]
fn only_a_body_that_is_called_a_form_is_one() {
    for content_type in ["text/plain", "application/x-www-form-urlencodedx", ""] {
        let request = Request::builder()
            .header("Content-Type", content_type)
            .body("a=1")
            .build();
        assert!(request.form().is_none(), "{content_type}");
    }
}

#[test]
fn a_handler_is_tested_with_what_the_server_would_tell_it() {
    let handler: Box<dyn Handler> = Box::new(Arc::new(|request: &mut Request| {
        assert_eq!(request.client(), request.peer().ip());
        let who = request.peer();
        if request.abandoned() || request.remaining().is_zero() {
            return None;
        }
        Some(format!("hello {who}"))
    }));
    let peer = SocketAddr::from(([192, 0, 2, 7], 4711));
    let builder = Request::builder().peer(peer);
    let mut response = handler.handle(&mut builder.clone().build());
    assert_eq!(response.body().unwrap(), b"hello 192.0.2.7:4711");
    let overdue = builder.clone().remaining(Duration::ZERO);
    for mut request in [overdue.build(), builder.abandoned(true).build()] {
        assert_eq!(handler.handle(&mut request).status(), 404);
    }
    let endless = Request::builder().remaining(Duration::MAX).build();
    assert!(endless.remaining() <= crate::settings::LONGEST);
}
