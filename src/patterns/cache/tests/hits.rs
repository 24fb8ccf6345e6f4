use proptest::prelude::*;

use super::*;

const FRESH: Pairs<'static> = &[("Cache-Control", "max-age=60")];

#[test]
fn a_plain_request_has_its_fresh_reply_the_short_way() {
    let scene = Scene::new();
    assert_eq!(scene.hit(0, &get(&Fields::new())), None, "nothing is kept");
    scene.get(0, (200, FRESH, "hello"));
    let taken = |second, request: Pairs<'_>| {
        let fields = fields(request);
        let hit = scene.hit(second, &get(&fields));
        hit.map(|hit| (hit.body.clone(), hit.field("Age").map(str::to_owned)))
    };
    let aged = |age: &str| Some(("hello".to_owned(), Some(age.to_owned())));
    assert_eq!(taken(0, &[]), aged("0"));
    assert_eq!(
        taken(59, &[("Accept", "*/*"), ("Cookie", "a=b")]),
        aged("59")
    );
    assert_eq!(taken(60, &[]), None, "stale");
    // What says more of the reply that is wanted has to be looked up.
    for (name, value) in [
        ("cache-control", "max-age=1000"),
        ("If-Match", "\"a\""),
        ("if-modified-since", "x"),
        ("If-None-Match", "*"),
        ("If-Range", "\"a\""),
        ("If-Unmodified-Since", "x"),
        ("RANGE", "bytes=0-0"),
    ] {
        assert_eq!(taken(1, &[(name, value)]), None, "{name}");
    }
    assert_eq!(scene.cache.stats().hits, 2);
}

#[test]
fn a_reply_that_is_never_given_without_asking_is_no_hit() {
    for control in [
        "no-cache, max-age=60",
        "max-age=0, stale-while-revalidate=60",
    ] {
        let scene = Scene::new();
        let answer = &[("Cache-Control", control), ("ETag", "\"a\"")][..];
        scene.get(0, (200, answer, "hello"));
        assert_eq!(scene.cache.stats().entries, 1, "{control}");
        assert_eq!(scene.hit(1, &get(&Fields::new())), None, "{control}");
    }
}

#[test]
fn a_field_that_the_origin_gets_otherwise_decides_nothing_the_short_way() {
    let scene = Scene::new();
    let answer = |vary| [("Cache-Control", "max-age=60"), ("Vary", vary)];
    for (target, vary, expected) in [("/a", "Accept", true), ("/b", "Accept, Via", false)] {
        let fields = fields(&[("Accept", "text/html")]);
        let request = CacheRequest {
            target,
            ..get(&fields)
        };
        scene.ask(0, &request, (200, &answer(vary), "hello"));
        let plain = PlainGet {
            https: false,
            host: "H:80",
            target,
            fields: fields.iter(),
            is_sent_on: |name| name != "via",
        };
        let now = scene.at(1).monotonic;
        assert_eq!(scene.cache.hit(&plain, now).is_some(), expected, "{vary}");
        let other = [("Accept", &b"text/plain"[..])];
        let other = PlainGet {
            fields: other.into_iter(),
            https: plain.https,
            host: plain.host,
            target,
            is_sent_on: plain.is_sent_on,
        };
        assert!(scene.cache.hit(&other, now).is_none(), "{vary}");
    }
}

/// Fields of some use to a cache.
fn wild(names: &'static [&'static str]) -> impl Strategy<Value = Vec<(&'static str, String)>> {
    const VALUES: &[&str] = &[
        "",
        "a",
        "b",
        "\"a\"",
        "W/\"a\"",
        "*",
        "max-age=5",
        "max-age=0",
        "no-cache",
        "no-store",
        "public, max-age=9",
        "s-maxage=7",
        "stale-while-revalidate=9, max-age=1",
        "private",
        "must-revalidate, max-age=3",
        "Accept",
        "accept, cookie",
        "bytes=0-1",
        "gzip, br",
        "7",
        "Thu, 01 Jan 2026 00:00:03 GMT",
        "only-if-cached",
        "min-fresh=2",
        "max-stale",
    ];
    let pair = (
        proptest::sample::select(names),
        proptest::sample::select(VALUES),
    );
    let pair = pair.prop_map(|(name, value)| (name, value.to_owned()));
    proptest::collection::vec(pair, 0..4)
}

proptest! {
    /// [`Scene::ask`] compares them.
    #[test]
    fn the_short_way_leads_nowhere_that_a_look_up_would_not(
        steps in proptest::collection::vec(
            (
                0_u64..4,
                wild(&["Accept", "Cookie", "Cache-Control", "If-None-Match", "Range", "If-Modified-Since"]),
                wild(&["Cache-Control", "Vary", "ETag", "Age", "Expires", "Last-Modified", "Date", "Set-Cookie"]),
                proptest::sample::select(&[200_u16, 204, 206, 304, 404, 500][..]),
            ),
            1..12,
        ),
    ) {
        let scene = Scene::new();
        let mut second = 0;
        for (wait, request, reply, status) in &steps {
            second += wait;
            let request: Vec<_> = request.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let reply: Vec<_> = reply.iter().map(|(name, value)| (*name, value.as_str())).collect();
            scene.get_with(second, &request, (*status, &reply, "hello"));
        }
    }
}
