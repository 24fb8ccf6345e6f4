use super::*;

const FRESH: Pairs<'static> = &[("Cache-Control", "max-age=3600")];

#[test]
fn a_stale_reply_is_validated_and_updated() {
    // Sections 4.3.1, 4.3.3, 4.3.4 and 3.2.
    let scene = Scene::new();
    let modified = scene.date(-1000);
    let answer = &[
        ("Cache-Control", "max-age=10"),
        ("ETag", "\"a\""),
        ("Last-Modified", &modified),
        ("Content-Encoding", "gzip"),
        ("A", "1"),
        ("B", "1"),
        ("B", "2"),
    ][..];
    scene.get(0, (200, answer, "hello"));
    let update = &[
        ("Cache-Control", "max-age=20"),
        ("B", "3"),
        ("Content-Encoding", "br"),
        ("Content-Length", "0"),
        ("Age", "5"),
    ][..];
    let validated = scene.get(10, (304, update, ""));
    let asked = validated.asked.as_ref().expect("stale");
    assert_eq!(text(asked.first("If-None-Match")), Some("\"a\""));
    assert_eq!(
        text(asked.first("If-Modified-Since")),
        Some(modified.as_str())
    );
    for got in [validated, scene.get(24, (500, &[], ""))] {
        assert_eq!((got.status, got.body.as_str()), (200, "hello"));
        let fields = ["A", "B", "Content-Encoding", "ETag"].map(|name| got.field(name));
        assert_eq!(fields, [Some("1"), Some("3"), Some("gzip"), Some("\"a\"")]);
        assert_eq!(got.fields.all("B").count(), 1);
        assert_eq!(got.field("Date"), Some(scene.date(10).as_str()));
    }
    assert!(!scene.is_kept(25), "5 s old when it was validated");
}

#[test]
fn a_304_with_the_strong_tag_of_another_updates_nothing() {
    // Section 4.3.4.
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")][..];
    scene.get(0, (200, answer, "hello"));
    let got = scene.get(10, (304, &[("ETag", "\"b\""), ("X", "1")], ""));
    assert_eq!(
        (got.body.as_str(), got.field("ETag"), got.field("X")),
        ("hello", Some("\"a\""), None)
    );
    assert!(!scene.is_kept(10));
}

#[test]
fn a_new_reply_takes_the_place_of_the_one_that_was_not_valid() {
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")][..];
    scene.get(0, (200, answer, "old"));
    assert_eq!(scene.get(10, (200, FRESH, "new")).body, "new");
    assert_eq!(scene.get(11, (500, &[], "")).body, "new");
    // One that may not be kept leaves nothing behind.
    scene.get(0, (200, answer, "old"));
    let scene = Scene::new();
    scene.get(0, (200, answer, "old"));
    scene.get(10, (200, &[("Cache-Control", "no-store")], "new"));
    assert_eq!(scene.cache.stats().entries, 0);
}

#[test]
fn conditions_of_clients_are_answered_from_what_is_kept() {
    // Section 4.3.2, RFC 9110 sections 13.1.2, 13.1.3 and 13.2.2.
    let scene = Scene::new();
    let (before, modified, after) = (scene.date(-2000), scene.date(-1000), scene.date(-10));
    let kept = &[
        ("Cache-Control", "max-age=100"),
        ("ETag", "W/\"a\""),
        ("Last-Modified", &modified),
        ("Content-Type", "x"),
    ];
    scene.get(0, (200, kept, "hello"));
    for (request, status) in [
        (&[("If-None-Match", "\"a\"")][..], 304),
        (&[("If-None-Match", "W/\"a\"")], 304),
        (&[("If-None-Match", "\"x\", \"a\"")], 304),
        (
            &[("If-None-Match", "\"x\""), ("If-None-Match", "\"a\"")],
            304,
        ),
        (&[("If-None-Match", "*")], 304),
        (&[("If-None-Match", "\"x,a\"")], 200),
        (&[("If-None-Match", "a")], 200),
        (&[("If-Modified-Since", &modified)], 304),
        (&[("If-Modified-Since", &after)], 304),
        (&[("If-Modified-Since", &before)], 200),
        (&[("If-Modified-Since", "foo")], 200),
        (
            &[("If-None-Match", "\"x\""), ("If-Modified-Since", &after)],
            200,
        ),
        (
            &[("If-None-Match", "\"a\""), ("If-Modified-Since", &before)],
            304,
        ),
    ] {
        let got = scene.get_with(1, request, (500, &[], ""));
        assert!(got.is_hit());
        assert_eq!(
            (got.status, got.body.is_empty()),
            (status, status == 304),
            "{request:?}"
        );
        assert_eq!(got.field("ETag"), Some("W/\"a\""));
        assert_eq!(got.field("Content-Type").is_some(), status == 200);
    }
    // Others are for the origin.
    for name in ["If-Match", "If-Unmodified-Since"] {
        let got = scene.get_with(1, &[(name, "\"a\"")], (412, &[], ""));
        assert_eq!(
            (got.status, got.cache_status.as_str()),
            (412, "plimsoll; fwd=bypass")
        );
    }
}

#[test]
fn a_client_that_asks_for_a_stale_reply_on_condition_gets_304_after_validation() {
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")][..];
    scene.get(0, (200, answer, "hello"));
    let got = scene.get_with(10, &[("If-None-Match", "\"a\"")], (304, &[], ""));
    assert_eq!((got.status, got.body.as_str()), (304, ""));
    // Its own copy is another: it gets the kept one, though the origin was asked for that.
    let got = scene.get_with(20, &[("If-None-Match", "\"b\"")], (304, &[], ""));
    assert_eq!(
        text(
            got.asked
                .as_ref()
                .and_then(|asked| asked.first("If-None-Match"))
        ),
        Some("\"a\"")
    );
    assert_eq!((got.status, got.body.as_str()), (200, "hello"));
}

#[test]
fn ranges_are_cut_out_of_whole_replies() {
    // RFC 9110 sections 13.1.5 and 14.
    let scene = Scene::new();
    let (modified, dated) = (scene.date(-1000), scene.date(0));
    let kept = &[
        ("Cache-Control", "max-age=100"),
        ("ETag", "\"a\""),
        ("Last-Modified", &modified),
        ("Date", &dated),
    ];
    scene.get(0, (200, kept, "0123456789"));
    for (request, status, body, range) in [
        (
            &[("Range", "bytes=0-1")][..],
            206,
            "01",
            Some("bytes 0-1/10"),
        ),
        (&[("Range", "bytes=-1")], 206, "9", Some("bytes 9-9/10")),
        (&[("Range", "bytes=10-")], 416, "", Some("bytes */10")),
        (&[("Range", "bytes=0-1,3-4")], 200, "0123456789", None),
        (
            &[("Range", "bytes=0-1"), ("If-Range", "\"a\"")],
            206,
            "01",
            Some("bytes 0-1/10"),
        ),
        (
            &[("Range", "bytes=0-1"), ("If-Range", "\"b\"")],
            200,
            "0123456789",
            None,
        ),
        (
            &[("Range", "bytes=0-1"), ("If-Range", "W/\"a\"")],
            200,
            "0123456789",
            None,
        ),
        (
            &[("Range", "bytes=0-1"), ("If-Range", &modified)],
            206,
            "01",
            Some("bytes 0-1/10"),
        ),
        (
            &[("Range", "bytes=0-1"), ("If-Range", &dated)],
            200,
            "0123456789",
            None,
        ),
        (
            &[("Range", "bytes=0-1"), ("If-None-Match", "\"a\"")],
            304,
            "",
            None,
        ),
    ] {
        let got = scene.get_with(1, request, (500, &[], ""));
        assert!(got.is_hit());
        assert_eq!(
            (got.status, got.body.as_str(), got.field("Content-Range")),
            (status, body, range),
            "{request:?}"
        );
    }
}

#[test]
fn a_part_is_not_kept() {
    let scene = Scene::new();
    let part = &[
        ("Cache-Control", "max-age=100"),
        ("Content-Range", "bytes 0-1/10"),
    ][..];
    assert_eq!(
        scene
            .get_with(0, &[("Range", "bytes=0-1")], (206, part, "01"))
            .status,
        206
    );
    assert!(!scene.is_kept(0));
    // A whole reply to a request for a part is.
    scene.get_with(0, &[("Range", "bytes=0-1")], (200, FRESH, "0123456789"));
    assert!(scene.is_kept(0));
}

#[test]
fn head_is_answered_by_what_is_kept_for_get_and_updates_it() {
    // Section 4.3.5.
    let scene = Scene::new();
    let none = Fields::new();
    let head = CacheRequest {
        method: "HEAD",
        ..get(&none)
    };
    let kept = &[
        ("Cache-Control", "max-age=10"),
        ("ETag", "\"a\""),
        ("X", "1"),
    ][..];
    scene.get(0, (200, kept, "hello"));
    let got = scene.ask(1, &head, (500, &[], ""));
    assert!(got.is_hit());
    assert_eq!((got.status, got.body.as_str()), (200, ""));

    let newer = &[
        ("Cache-Control", "max-age=10"),
        ("ETag", "\"a\""),
        ("X", "2"),
        ("Content-Length", "5"),
    ][..];
    let asked = scene.ask(10, &head, (200, newer, "")).asked.expect("stale");
    assert!(!asked.contains("If-None-Match"));
    let got = scene.get(11, (500, &[], ""));
    assert_eq!((got.body.as_str(), got.field("X")), ("hello", Some("2")));

    // Another length or tag is another reply.
    for other in [("Content-Length", "6"), ("ETag", "\"b\"")] {
        let scene = Scene::new();
        scene.get(0, (200, kept, "hello"));
        scene.ask(10, &head, (200, &[other], ""));
        assert_eq!(scene.cache.stats().entries, 0, "{other:?}");
    }
    // A reply to HEAD alone is never kept.
    let scene = Scene::new();
    scene.ask(0, &head, (200, FRESH, ""));
    assert!(!scene.is_kept(0));
}

#[test]
fn directives_of_requests() {
    // Section 5.2.1: of a reply with a lifetime of 100 s, at this age.
    for (directives, age, is_hit) in [
        ("no-cache", 1, false),
        ("no-store", 1, false),
        ("max-age=0", 1, false),
        ("max-age=10", 10, true),
        ("max-age=10", 11, false),
        ("max-age=x", 1, false),
        ("min-fresh=50", 50, true),
        ("min-fresh=50", 51, false),
        ("max-stale", 1000, true),
        ("max-stale=10", 110, true),
        ("max-stale=10", 111, false),
        ("only-if-cached", 1, true),
        ("nothing-to-see-here", 1, true),
    ] {
        let scene = Scene::new();
        scene.get(0, (200, &[("Cache-Control", "max-age=100")], "x"));
        let got = scene.get_with(age, &[("Cache-Control", directives)], (500, &[], ""));
        assert_eq!(got.is_hit(), is_hit, "{directives} at {age}");
    }
    let scene = Scene::new();
    let got = scene.get_with(0, &[("Cache-Control", "only-if-cached")], (200, &[], ""));
    assert!(got.is_hit());
    assert_eq!(got.status, 504);
    // The origin may forbid what the client would take.
    for directive in [
        "must-revalidate",
        "proxy-revalidate",
        "s-maxage=100",
        "no-cache",
    ] {
        let scene = Scene::new();
        let answer = format!("max-age=100, {directive}");
        scene.get(
            0,
            (200, &[("Cache-Control", &answer), ("ETag", "\"a\"")], "x"),
        );
        assert!(
            !scene
                .get_with(100, &[("Cache-Control", "max-stale")], (500, &[], ""))
                .is_hit()
        );
    }
}

#[test]
fn a_stale_reply_stands_for_an_error_only_where_it_may() {
    // RFC 5861 section 4, RFC 9111 section 4.2.4: staleness 10 s.
    for (answer, request, stands) in [
        ("max-age=10, stale-if-error=10", "", true),
        ("max-age=10, stale-if-error=9", "", false),
        ("max-age=10", "", false),
        ("max-age=10", "stale-if-error=60", true),
        ("max-age=10, stale-if-error=60, must-revalidate", "", false),
        ("max-age=10, stale-if-error=60, proxy-revalidate", "", false),
        ("s-maxage=10, stale-if-error=60", "", false),
        ("max-age=10, stale-if-error=60, no-cache", "", false),
    ] {
        for status in [Some(500), Some(502), Some(503), Some(504), Some(404), None] {
            let scene = Scene::new();
            scene.get(0, (200, &[("Cache-Control", answer)], "kept"));
            let fields = fields(&[("Cache-Control", request)]);
            let Lookup::Fetch(fetch) = scene.cache.lookup(&get(&fields), scene.at(20)) else {
                panic!("stale");
            };
            let got = match status {
                Some(status) => Some(answer_fetch(
                    fetch,
                    scene.at(20),
                    &get(&fields),
                    (status, &[], "error"),
                )),
                None => fetch.fail(scene.at(20)).map(|reply| Got::of(&reply, None)),
            };
            let stands = stands && status != Some(404);
            let got = got.map(|got| (got.status, got.body));
            let expected = if stands {
                Some((200, "kept".to_owned()))
            } else {
                status.map(|status| (status, "error".to_owned()))
            };
            assert_eq!(got, expected, "{answer} {request} {status:?}");
        }
    }
}

#[test]
fn a_stale_reply_is_given_while_it_is_validated() {
    // RFC 5861 section 3.
    let scene = Scene::new();
    let answer = &[
        ("Cache-Control", "max-age=10, stale-while-revalidate=10"),
        ("ETag", "\"a\""),
    ][..];
    scene.get(0, (200, answer, "old"));
    let Lookup::ReplyAndRefresh(reply, fetch) =
        scene.cache.lookup(&get(&Fields::new()), scene.at(15))
    else {
        panic!("within the window");
    };
    assert_eq!(
        (reply.body(), text(reply.fields().first("Age"))),
        (b"old".as_slice().into(), Some("15"))
    );
    assert_eq!(status_of(reply.fields()), "plimsoll; hit; ttl=-5");
    assert_eq!(text(fetch.fields().first("If-None-Match")), Some("\"a\""));
    // Meanwhile others get it too, and nobody else asks.
    assert!(scene.get(16, (500, &[], "")).is_hit());
    let none = Fields::new();
    answer_fetch(fetch, scene.at(16), &get(&none), (200, answer, "new"));
    assert_eq!(scene.get(17, (500, &[], "")).body, "new");
    // After the window it is not given.
    let got = scene.get(37, (200, answer, "newer"));
    assert_eq!(got.body, "newer");
}

#[test]
fn an_unsafe_request_that_is_done_makes_kept_replies_invalid() {
    // Section 4.4.
    let none = Fields::new();
    let at = |target| CacheRequest {
        target,
        ..get(&none)
    };
    for (method, status, invalid) in [
        ("POST", 200, true),
        ("PUT", 204, true),
        ("DELETE", 303, true),
        ("M-SEARCH", 200, true),
        ("post", 200, true),
        ("POST", 404, false),
        ("POST", 500, false),
        ("OPTIONS", 200, false),
        ("TRACE", 200, false),
    ] {
        let scene = Scene::new();
        for target in ["/", "/dir/new", "/dir/content", "/other"] {
            scene.ask(0, &at(target), (200, FRESH, "x"));
        }
        let request = CacheRequest {
            method,
            has_body: true,
            ..at("/")
        };
        let answer = &[
            ("Location", "dir/new"),
            ("Content-Location", "http://H:80/dir/content"),
        ][..];
        scene.ask(1, &request, (status, answer, ""));
        for target in ["/", "/dir/new", "/dir/content"] {
            assert_eq!(
                !scene.ask(2, &at(target), (500, &[], "")).is_hit(),
                invalid,
                "{method} {status} {target}"
            );
        }
        assert!(scene.ask(2, &at("/other"), (500, &[], "")).is_hit());
    }
}

#[test]
fn what_was_asked_for_before_an_unsafe_request_is_not_kept_after_it() {
    let scene = Scene::new();
    let none = Fields::new();
    let Lookup::Fetch(fetch) = scene.cache.lookup(&get(&none), scene.at(0)) else {
        panic!()
    };
    let post = CacheRequest {
        method: "POST",
        has_body: true,
        ..get(&none)
    };
    scene.ask(1, &post, (200, &[], ""));
    assert_eq!(
        answer_fetch(fetch, scene.at(2), &get(&none), (200, FRESH, "old")).body,
        "old"
    );
    assert!(!scene.is_kept(2));
    // The same for a purge.
    let Lookup::Fetch(fetch) = scene.cache.lookup(&get(&none), scene.at(3)) else {
        panic!()
    };
    assert_eq!(scene.cache.purge(false, "H:80", "/"), 0);
    answer_fetch(fetch, scene.at(4), &get(&none), (200, FRESH, "old"));
    assert!(!scene.is_kept(4));
    scene.get(5, (200, FRESH, "new"));
    assert_eq!(scene.cache.purge(false, "h", "/"), 1);
    assert!(!scene.is_kept(5));
}

#[test]
fn replies_that_vary_are_kept_side_by_side() {
    // Section 4.1.
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=100"), ("Vary", "Foo")][..];
    for value in ["1", "2"] {
        assert_eq!(
            scene
                .get_with(0, &[("Foo", value)], (200, answer, value))
                .body,
            value
        );
    }
    for value in ["1", "2"] {
        let got = scene.get_with(1, &[("Foo", value), ("Other", "x")], (500, &[], ""));
        assert!(got.is_hit());
        assert_eq!(got.body, value);
    }
    let got = scene.get(1, (200, answer, "none"));
    assert_eq!(
        (got.body.as_str(), got.cache_status.as_str()),
        ("none", "plimsoll; fwd=vary-miss; stored")
    );
}

#[test]
fn a_targeted_field_rules_where_it_is_named() {
    // RFC 9213 section 2.2.
    for (answer, kept) in [
        (
            &[
                ("CDN-Cache-Control", "max-age=100"),
                ("Cache-Control", "no-store"),
            ][..],
            true,
        ),
        (
            &[
                ("CDN-Cache-Control", "no-store"),
                ("Cache-Control", "max-age=100"),
            ],
            false,
        ),
        (
            &[("CDN-Cache-Control", "max-age=100"), ("Expires", "0")],
            true,
        ),
        (
            &[
                ("CDN-Cache-Control", "max-age=0"),
                ("Expires", "Thu, 01 Jan 2032 00:00:00 GMT"),
            ],
            false,
        ),
        (
            &[
                ("CDN-Cache-Control", "must-revalidate"),
                ("Expires", "Thu, 01 Jan 2032 00:00:00 GMT"),
            ],
            false,
        ),
        (
            &[
                ("CDN-Cache-Control", "&&&"),
                ("Cache-Control", "max-age=100"),
            ],
            true,
        ),
        (
            &[
                ("CDN-Cache-Control", "max-age=100, &&&"),
                ("Cache-Control", "no-store"),
            ],
            false,
        ),
        (&[("Cache-Control", "max-age=100")], true),
    ] {
        let scene = Scene::with(Cache::with_target(1 << 20, "CDN-Cache-Control"));
        scene.get(0, (200, answer, "x"));
        assert_eq!(scene.is_kept(1), kept, "{answer:?}");
        let scene = Scene::new();
        scene.get(0, (200, &[("CDN-Cache-Control", "max-age=100")], "x"));
        assert!(
            !scene.is_kept(1),
            "without a name it is a field like any other"
        );
    }
}
