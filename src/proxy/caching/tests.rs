use std::time::Duration;

use super::*;
use crate::patterns::Fetched;
use crate::proxy::Proxy;
use crate::proxy::headers::{Decision, Received};

fn proxy() -> Proxy {
    let config = ProxyConfig {
        cache: Some(1 << 20),
        ..ProxyConfig::to(["http://127.0.0.1:1"])
    };
    Proxy::start(config).expect("it starts")
}

/// What becomes of a GET with these fields.
fn look_up(cache: &Cache, fields: &[(&str, &str)]) -> Lookup {
    let question = CacheRequest {
        method: "GET",
        https: false,
        host: "a",
        target: "/",
        fields: &fields.iter().copied().collect(),
        has_body: false,
    };
    cache.lookup(&question, CacheTime::now())
}

/// Has a stale reply with this Cache-Control kept, and begins to fetch another.
fn lead(cache: &Cache, control: &str) -> Fetch {
    // With these nobody waits for it, so that it does not matter how long it is fresh.
    let alone = [("Authorization", "Basic x")];
    let Lookup::Fetch(fetch) = look_up(cache, &alone) else {
        panic!("nothing is kept")
    };
    let fields = [("Cache-Control", control), ("ETag", "\"a\"")];
    let fields = fields.into_iter().collect();
    let Fetched::Relay { filling, .. } = fetch.respond(200, &fields, CacheTime::now()) else {
        panic!("nothing is kept")
    };
    filling.expect("it may be kept").finish(CacheTime::now());
    match look_up(cache, &[]) {
        Lookup::Fetch(fetch) => fetch,
        other => panic!("it is stale: {other:?}"),
    }
}

fn follow(proxy: &Proxy, due: Instant) -> Box<Follower> {
    let cache = proxy.cache().expect("there is one");
    let Lookup::Wait(wait) = look_up(&cache, &[]) else {
        panic!("another asks")
    };
    let Decision::Forward(forwarded) = headers::forward(&Received {
        method: "GET",
        version: "1.1",
        fields: [("Host", &b"a"[..])].into_iter(),
        body_len: 0,
        peer: [127, 0, 0, 1].into(),
        trusted: false,
        id: "1",
        host: None,
    }) else {
        panic!("a plain request")
    };
    Box::new(Follower {
        core: proxy.core.clone(),
        forwarded,
        wait,
        due,
        notice: None,
    })
}

/// It got 504 instead, at the deadline of its own server.
#[test]
fn one_that_waits_for_another_gets_what_may_stand_for_an_error_when_its_time_is_over() {
    let request = Request::builder().build();
    let now = Instant::now();
    for (control, status) in [
        ("public, max-age=0, stale-if-error=60", 200),
        ("public, max-age=0", 504),
    ] {
        let proxy = proxy();
        let fetch = lead(&proxy.cache().expect("there is one"), control);
        let early = follow(&proxy, now + Duration::from_secs(1));
        let Resumed::Waits(_) = early.resume(&request, Trigger::Due, now) else {
            panic!("it has time")
        };
        let over = follow(&proxy, now);
        let Resumed::Replies(response) = over.resume(&request, Trigger::Due, now) else {
            panic!("its time is over")
        };
        assert_eq!(response.status(), status, "{control}");
        // A worker looks up again for one that is told.
        let told = follow(&proxy, now);
        drop(fetch);
        let ready = Trigger::Ready { readable: true };
        assert!(matches!(
            told.resume(&request, ready, now),
            Resumed::Works(_)
        ));
    }
}
