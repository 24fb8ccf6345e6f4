use super::*;

#[test]
fn a_fresh_reply_is_given_again_with_its_age() {
    // Sections 4 and 5.1.
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=60"), ("Age", "30"), ("X", "1")][..];
    let first = scene.get(0, (200, answer, "hello"));
    assert_eq!(first.cache_status, "plimsoll; fwd=uri-miss; stored");
    let again = scene.get(10, (500, &[], ""));
    assert!(again.is_hit());
    assert_eq!((again.status, again.body.as_str()), (200, "hello"));
    assert_eq!(
        (again.field("Age"), again.field("X")),
        (Some("40"), Some("1"))
    );
    assert_eq!(again.cache_status, "plimsoll; hit; ttl=20");
    assert_eq!(
        again.field("Date"),
        Some(scene.date(0).as_str()),
        "6.6.1 of RFC 9110"
    );
    assert!(!scene.is_kept(30), "30 s old when it came, and 30 s kept");
}

#[test]
fn lifetimes() {
    // Section 4.2.1 and 4.2.2: what the reply says, and for how many seconds it is fresh.
    let scene = Scene::new();
    let date = |second| scene.date(second);
    let (now, later, past, day, year) = (
        date(0),
        date(100),
        date(-100),
        date(-86_400),
        date(-31_536_000),
    );
    for (answer, lifetime) in [
        (&[("Cache-Control", "max-age=100")][..], 100),
        (&[("Cache-Control", "max-age=5, s-maxage=100")], 100),
        (
            &[
                ("Cache-Control", "s-maxage=100"),
                ("Cache-Control", "max-age=5"),
            ],
            100,
        ),
        (&[("Cache-Control", "max-age=100, s-maxage=5")], 5),
        (&[("Expires", &later)], 100),
        (&[("Expires", &later), ("Date", &now)], 100),
        (&[("Expires", &later), ("Date", "foo")], 100),
        (&[("Expires", &past), ("Cache-Control", "max-age=100")], 100),
        (&[("Expires", &later), ("Cache-Control", "max-age=5")], 5),
        (&[("Expires", &later), ("Expires", &past)], 100),
        // A tenth of the time since the last modification, at most a day.
        (&[("Last-Modified", &day), ("Date", &now)], 8640),
        (&[("Last-Modified", &year)], 86_400),
        // Age: apparent by Date, or told.
        (&[("Cache-Control", "max-age=200"), ("Date", &past)], 100),
        (&[("Cache-Control", "max-age=200"), ("Age", "100")], 100),
        (
            &[
                ("Cache-Control", "max-age=200"),
                ("Age", "100"),
                ("Date", &past),
            ],
            100,
        ),
        (
            &[
                ("Cache-Control", "max-age=200"),
                ("Age", "100"),
                ("Age", "0"),
            ],
            100,
        ),
        (&[("Cache-Control", "max-age=200"), ("Age", "100, 0")], 100),
        (&[("Cache-Control", "max-age=200"), ("Age", "100;x=1")], 100),
        // An Age that is no number is not there.
        (&[("Cache-Control", "max-age=100"), ("Age", "abc")], 100),
        (&[("Cache-Control", "max-age=100"), ("Age", "-7200")], 100),
        (&[("Cache-Control", "max-age=100"), ("Age", "7200.0")], 100),
        (&[("Cache-Control", "max-age=100"), ("Age", "0, 7200")], 100),
        // A Date in the future does not make it younger.
        (&[("Cache-Control", "max-age=100"), ("Date", &later)], 100),
    ] {
        let scene = Scene::new();
        scene.get(0, (200, answer, "x"));
        assert!(scene.is_kept(lifetime - 1), "{answer:?}");
        assert!(!scene.is_kept(lifetime), "{answer:?}");
    }
}

#[test]
fn replies_that_are_never_fresh_are_not_given_again() {
    let scene = Scene::new();
    let date = |second| scene.date(second);
    let (now, later, past) = (date(0), date(100), date(-100));
    for answer in [
        &[][..],
        &[("Cache-Control", "max-age=0")],
        &[("Cache-Control", "max-age=x")],
        &[("Cache-Control", "public")],
        &[("Expires", &now)],
        &[("Expires", &past)],
        &[("Expires", "0")],
        &[("Expires", "Thu, 18 Aug 2050 2:01:18 GMT")],
        &[("Expires", &later), ("Date", &later)],
        &[("Expires", &later), ("Age", "101")],
        &[("Cache-Control", "max-age=100"), ("Age", "2147483648")],
        &[
            ("Cache-Control", "max-age=100"),
            ("Age", "99999999999999999999"),
        ],
        &[("Last-Modified", &later)],
        &[("Last-Modified", "foo")],
    ] {
        let scene = Scene::new();
        scene.get(0, (200, answer, "x"));
        assert!(!scene.is_kept(0), "{answer:?}");
    }
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table")]
fn which_replies_are_kept() {
    // Section 3: a request's fields, a reply, and whether it is given to the next plain request.
    let fresh = ("Cache-Control", "max-age=100");
    let modified = ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT");
    let auth: Pairs<'_> = &[("Authorization", "x")];
    for (request, status, answer, kept) in [
        (&[][..], 200, &[fresh][..], true),
        (&[], 299, &[fresh], true),
        (&[], 404, &[fresh], true),
        (&[], 302, &[fresh], true),
        (&[], 503, &[fresh], true),
        (&[], 206, &[fresh], false),
        (&[], 304, &[fresh], false),
        // Section 4.2.2: heuristics only for some statuses, or with public.
        (&[], 200, &[modified], true),
        (&[], 410, &[modified], true),
        (&[], 201, &[modified], false),
        (&[], 403, &[modified], false),
        (&[], 503, &[modified], false),
        (&[], 599, &[modified], false),
        (&[], 599, &[modified, ("Cache-Control", "public")], true),
        // Section 5.2.2.
        (
            &[],
            200,
            &[("Cache-Control", "max-age=100, no-store")],
            false,
        ),
        (&[], 200, &[fresh, ("Cache-Control", "No-Store")], false),
        (
            &[],
            200,
            &[("Cache-Control", "max-age=100, private")],
            false,
        ),
        (
            &[],
            200,
            &[("Cache-Control", "max-age=100, private=\"x\"")],
            true,
        ),
        (
            &[],
            200,
            &[("Cache-Control", "max-age=100, no-cache")],
            false,
        ),
        (
            &[],
            200,
            &[("Cache-Control", "max-age=100, must-revalidate")],
            true,
        ),
        (
            &[],
            200,
            &[("Cache-Control", "max-age=100, no-store, must-understand")],
            true,
        ),
        (
            &[],
            599,
            &[("Cache-Control", "max-age=100, must-understand")],
            false,
        ),
        (
            &[],
            599,
            &[("Cache-Control", "max-age=100, no-store, must-understand")],
            false,
        ),
        (&[], 200, &[fresh, ("Pragma", "no-cache")], true),
        // Section 3.5.
        (auth, 200, &[fresh], false),
        (
            auth,
            200,
            &[("Expires", "Thu, 01 Jan 2032 00:00:00 GMT")],
            false,
        ),
        (auth, 200, &[("Cache-Control", "max-age=100, public")], true),
        (
            auth,
            200,
            &[("Cache-Control", "max-age=100, must-revalidate")],
            true,
        ),
        (auth, 200, &[("Cache-Control", "s-maxage=100")], true),
        (
            auth,
            200,
            &[("Cache-Control", "max-age=100, proxy-revalidate")],
            false,
        ),
        // Section 7.3: cookies only where the lifetime is the origin's own.
        (&[], 200, &[fresh, ("Set-Cookie", "a=b")], true),
        (&[], 200, &[modified, ("Set-Cookie", "a=b")], false),
        (&[("Cookie", "a=b")], 200, &[fresh], true),
        // Section 5.2.1.5.
        (&[("Cache-Control", "no-store")], 200, &[fresh], false),
        // Section 4.1.
        (&[], 200, &[fresh, ("Vary", "*")], false),
        // A body that is shorter than it should be.
        (&[], 200, &[fresh, ("Content-Length", "2")], false),
        (&[], 200, &[fresh, ("Content-Length", "1")], true),
    ] {
        let scene = Scene::new();
        scene.get_with(0, request, (status, answer, "x"));
        let again = scene.get(1, (500, &[], ""));
        assert_eq!(again.is_hit(), kept, "{request:?} {status} {answer:?}");
        assert!(!kept || again.status == status);
    }
}

#[test]
fn fields_of_one_hop_and_named_fields_are_not_kept() {
    // Section 3.1.
    let scene = Scene::new();
    let answer = &[
        (
            "Cache-Control",
            "max-age=100, no-cache=\"c\", private=\"D, e\"",
        ),
        ("Connection", "a, \"x\", B"),
        ("a", "1"),
        ("b", "2"),
        ("c", "3"),
        ("d", "4"),
        ("e", "5"),
        ("f", "6"),
        ("Keep-Alive", "x"),
        ("Proxy-Authenticate", "x"),
        ("Proxy-Authentication-Info", "x"),
        ("Proxy-Connection", "x"),
        ("TE", "x"),
        ("Trailer", "x"),
        ("Transfer-Encoding", "chunked"),
        ("Upgrade", "x"),
    ][..];
    let first = scene.get(0, (200, answer, "x"));
    assert_eq!(first.field("c"), Some("3"), "its own client gets all");
    let kept = scene.get(1, (500, &[], ""));
    let names: Vec<&str> = kept.fields.iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["Cache-Control", "f", "Date", "Age", "Cache-Status"]);
}
