use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::*;

/// No test waits so long, unless it fails.
const LONG: Duration = Duration::from_secs(30);

const FRESH: Pairs<'static> = &[("Cache-Control", "max-age=3600")];
const FOR_ERRORS: Pairs<'static> = &[("Cache-Control", "max-age=10, stale-if-error=1000")];

fn lead(scene: &Scene, second: u64) -> Fetch {
    match scene.cache.lookup(&get(&Fields::new()), scene.at(second)) {
        Lookup::Fetch(fetch) => fetch,
        other => panic!("expected a fetch, found {other:?}"),
    }
}

fn join(scene: &Scene, second: u64) -> Wait {
    match scene.cache.lookup(&get(&Fields::new()), scene.at(second)) {
        Lookup::Wait(wait) => wait,
        other => panic!("expected to wait, found {other:?}"),
    }
}

fn finish(scene: &Scene, second: u64, fetch: Fetch, answer: (u16, Pairs<'_>, &str)) -> Got {
    answer_fetch(fetch, scene.at(second), &get(&Fields::new()), answer)
}

#[test]
fn five_hundred_who_ask_at_once_make_one_fetch() {
    for stale in [false, true] {
        let scene = Scene::new();
        let answer = &[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")][..];
        if stale {
            scene.get(0, (200, answer, "hello"));
        }
        let fetches = AtomicUsize::new(0);
        let start = Barrier::new(500);
        thread::scope(|scope| {
            for _ in 0..500 {
                scope.spawn(|| {
                    start.wait();
                    let none = Fields::new();
                    let mut lookup = scene.cache.lookup(&get(&none), scene.at(20));
                    loop {
                        match lookup {
                            Lookup::Reply(reply) => {
                                assert_eq!(reply.body(), &b"hello"[..]);
                                return;
                            }
                            Lookup::Fetch(fetch) => {
                                fetches.fetch_add(1, Ordering::Relaxed);
                                let status = if stale { 304 } else { 200 };
                                finish(&scene, 20, fetch, (status, answer, "hello"));
                                return;
                            }
                            Lookup::Wait(wait) => {
                                // At the test's own time, not at the clock's.
                                assert!(wait.flight.wait(Instant::now() + LONG).is_some());
                                lookup = wait.resume(scene.at(20));
                            }
                            Lookup::ReplyAndRefresh(..) => panic!("not allowed"),
                        }
                    }
                });
            }
        });
        assert_eq!(fetches.into_inner(), 1);
    }
}

#[test]
fn waiting_blocks_until_the_fetch_has_ended() {
    let scene = Scene::new();
    let fetch = lead(&scene, 0);
    let wait = join(&scene, 0);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| wait.wait(Instant::now() + LONG));
        finish(&scene, 0, fetch, (200, FRESH, "hello"));
        match waiting.join().expect("no panic") {
            Some(Lookup::Reply(reply)) => assert_eq!(reply.body(), &b"hello"[..]),
            other => panic!("expected a reply, found {other:?}"),
        }
    });
}

#[test]
fn a_waiter_is_woken_without_a_thread_of_its_own() {
    let scene = Scene::new();
    let fetch = lead(&scene, 0);
    let woken = Arc::new(AtomicUsize::new(0));
    let waits = [join(&scene, 0), join(&scene, 0)];
    let notice = |wait: &Wait| {
        let woken = Arc::clone(&woken);
        wait.when_ended(move || _ = woken.fetch_add(1, Ordering::Relaxed))
    };
    assert!(!fetch.is_awaited());
    let _notices = waits.each_ref().map(notice);
    assert!(fetch.is_awaited() && !waits[0].has_ended());
    assert_eq!(woken.load(Ordering::Relaxed), 0);
    finish(&scene, 0, fetch, (200, FRESH, "hello"));
    assert_eq!(woken.load(Ordering::Relaxed), 2);
    // One that comes too late is woken at once.
    let _late = notice(&waits[0]);
    assert_eq!(woken.load(Ordering::Relaxed), 3);
    for wait in waits {
        assert!(matches!(wait.resume(scene.at(0)), Lookup::Reply(_)));
    }
}

/// What woke those who had left was kept until the fetch ended, with all that it held.
#[test]
fn nothing_is_kept_of_one_that_waits_no_longer() {
    let scene = Scene::new();
    let fetch = lead(&scene, 0);
    let wait = join(&scene, 0);
    let held = Arc::new(());
    for _ in 0..3 {
        let holds = Arc::clone(&held);
        let notice = wait.when_ended(move || panic!("it does not wait: {holds:?}"));
        assert!(fetch.is_awaited());
        assert_eq!(Arc::strong_count(&held), 2);
        drop(notice);
        assert!(!fetch.is_awaited());
        assert_eq!(Arc::strong_count(&held), 1);
    }
    finish(&scene, 0, fetch, (200, FRESH, "hello"));
}

#[test]
fn waiters_of_what_is_not_shared_go_on_in_parallel_and_nobody_waits_for_a_minute() {
    for answer in [
        &[("Cache-Control", "no-store")][..],
        &[("Cache-Control", "private, max-age=100")],
        &[("Cache-Control", "no-cache"), ("ETag", "\"a\"")],
        &[("Cache-Control", "max-age=0"), ("ETag", "\"a\"")],
    ] {
        let scene = Scene::new();
        let fetch = lead(&scene, 0);
        let waits = [join(&scene, 0), join(&scene, 0)];
        finish(&scene, 1, fetch, (200, answer, "x"));
        let fetches = waits.map(|wait| match wait.resume(scene.at(1)) {
            Lookup::Fetch(fetch) => fetch,
            other => panic!("expected a fetch, found {other:?}"),
        });
        // Whoever comes does not wait, though others fetch.
        let others = [lead(&scene, 1), lead(&scene, 60)];
        drop((fetches, others));
        let leader = lead(&scene, 61);
        drop(join(&scene, 61));
        drop(leader);
    }
}

#[test]
fn a_failed_fetch_serves_stale_to_those_who_may_have_it() {
    let scene = Scene::new();
    scene.get(0, (200, FOR_ERRORS, "kept"));
    for failure in [None, Some(503)] {
        let fetch = lead(&scene, 20);
        let wait = join(&scene, 20);
        match failure {
            None => assert_eq!(
                fetch.fail(scene.at(20)).expect("may be given").body(),
                &b"kept"[..]
            ),
            Some(status) => assert_eq!(
                finish(&scene, 20, fetch, (status, &[], "error")).body,
                "kept"
            ),
        }
        match wait.resume(scene.at(20)) {
            Lookup::Reply(reply) => assert_eq!(reply.body(), &b"kept"[..]),
            other => panic!("expected a reply, found {other:?}"),
        }
    }
}

#[test]
fn a_failed_fetch_lets_those_go_on_who_may_not_have_stale() {
    let scene = Scene::new();
    let fetch = lead(&scene, 0);
    let waits = [join(&scene, 0), join(&scene, 0)];
    assert!(fetch.fail(scene.at(0)).is_none());
    for wait in waits {
        assert!(matches!(wait.resume(scene.at(0)), Lookup::Fetch(_)));
    }
    // It says nothing of the key: those who come now wait for one of them again.
    let fetch = lead(&scene, 1);
    drop(join(&scene, 1));
    drop(fetch);
}

#[test]
fn a_fetch_that_is_given_up_leaves_its_lead_to_another() {
    let scene = Scene::new();
    let waits = {
        let _fetch = lead(&scene, 0);
        [join(&scene, 0), join(&scene, 0)]
    };
    let [first, second] = waits;
    let Lookup::Fetch(fetch) = first.resume(scene.at(0)) else {
        panic!("leads now")
    };
    let Lookup::Wait(wait) = second.resume(scene.at(0)) else {
        panic!("waits again")
    };
    finish(&scene, 0, fetch, (200, FRESH, "hello"));
    assert!(matches!(wait.resume(scene.at(0)), Lookup::Reply(_)));
}

#[test]
fn a_body_that_is_cut_leaves_the_lead_to_another_and_nothing_behind() {
    let scene = Scene::new();
    let fetch = lead(&scene, 0);
    let wait = join(&scene, 0);
    let Fetched::Relay { filling, .. } = fetch.respond(200, &fields(FRESH), scene.at(0)) else {
        panic!("relayed");
    };
    let mut filling = filling.expect("may be kept");
    filling.write(b"hel");
    assert!(scene.cache.stats().bytes > 0);
    drop(filling);
    assert_eq!(scene.cache.stats().bytes, 0);
    assert!(matches!(wait.resume(scene.at(0)), Lookup::Fetch(_)));
}

#[test]
fn a_slow_fetch_holds_its_waiters_no_longer_than_their_deadline() {
    let scene = Scene::new();
    let fetch = lead(&scene, 0);
    assert!(join(&scene, 0).wait(Instant::now()).is_none());
    // Those who ask for something else do not wait at all.
    let none = Fields::new();
    let other = CacheRequest {
        target: "/other",
        ..get(&none)
    };
    assert!(!scene.ask(0, &other, (200, FRESH, "x")).is_hit());
    drop(fetch);

    // Who may have a stale reply gets it when the deadline is over.
    scene.get(0, (200, FOR_ERRORS, "kept"));
    let _fetch = lead(&scene, 20);
    let reply = join(&scene, 20)
        .give_up(scene.at(21))
        .expect("may be given");
    assert_eq!(reply.body(), &b"kept"[..]);
}

#[test]
fn variants_that_are_known_are_fetched_side_by_side() {
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=10"), ("Vary", "Foo")][..];
    scene.get_with(0, &[("Foo", "1")], (200, answer, "1"));
    let (one, two) = (fields(&[("Foo", "1")]), fields(&[("Foo", "2")]));
    let lookup = |fields| scene.cache.lookup(&get(fields), scene.at(10));
    let (Lookup::Fetch(_first), Lookup::Fetch(_second)) = (lookup(&one), lookup(&two)) else {
        panic!("each leads");
    };
    assert!(matches!(lookup(&one), Lookup::Wait(_)));
    assert!(matches!(lookup(&two), Lookup::Wait(_)));
}

#[test]
fn who_waited_for_another_variant_makes_a_fetch_in_the_end() {
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=10"), ("Vary", "Foo")][..];
    let fetch = lead(&scene, 0);
    let two = fields(&[("Foo", "2")]);
    let Lookup::Wait(wait) = scene.cache.lookup(&get(&two), scene.at(0)) else {
        panic!()
    };
    finish(&scene, 0, fetch, (200, answer, "none"));
    assert!(matches!(wait.resume(scene.at(0)), Lookup::Fetch(_)));
}

#[test]
fn those_who_ask_for_their_own_wait_for_nobody() {
    let scene = Scene::new();
    let _fetch = lead(&scene, 0);
    let none = Fields::new();
    let head = CacheRequest {
        method: "HEAD",
        ..get(&none)
    };
    assert!(matches!(
        scene.cache.lookup(&head, scene.at(0)),
        Lookup::Fetch(_)
    ));
    for pairs in [
        &[("Range", "bytes=0-1")][..],
        &[("If-None-Match", "\"a\"")],
        &[("Cache-Control", "no-store")],
    ] {
        let lookup = scene.cache.lookup(&get(&fields(pairs)), scene.at(0));
        assert!(matches!(lookup, Lookup::Fetch(_)), "{pairs:?}");
    }
    // Nor do they say anything of the key: others still wait.
    drop(join(&scene, 0));
}

/// Else one client, whose request gets a reply of its own, could have all others ask on their own for a minute.
#[test]
fn requests_wait_for_one_another_again_once_a_reply_was_kept() {
    let scene = Scene::new();
    finish(
        &scene,
        0,
        lead(&scene, 0),
        (200, &[("Cache-Control", "private")], "own"),
    );
    let (one, other) = (lead(&scene, 1), lead(&scene, 1));
    drop(other);
    finish(
        &scene,
        1,
        one,
        (200, &[("Cache-Control", "max-age=1")], "shared"),
    );
    let fetch = lead(&scene, 3);
    let _wait = join(&scene, 3);
    drop(fetch);
}

/// A client that knows no password got a refusal, and for a minute all others asked on their own.
#[test]
fn a_request_with_authorization_waits_for_nobody_and_ends_waiting_for_nobody() {
    let scene = Scene::new();
    let auth = fields(&[("Authorization", "Basic x")]);
    let Lookup::Fetch(fetch) = scene.cache.lookup(&get(&auth), scene.at(0)) else {
        panic!("it asks")
    };
    let leader = lead(&scene, 0);
    finish(&scene, 0, fetch, (200, FRESH, "its own"));
    drop(join(&scene, 0));
    finish(&scene, 0, leader, (200, FRESH, "hello"));
    assert!(scene.is_kept(1));
}

/// Each of those who waited, and for a minute all others, asked on their own.
#[test]
fn a_key_that_is_made_invalid_during_a_fetch_leaves_the_lead_to_another() {
    let validator = &[("Cache-Control", "max-age=10"), ("ETag", "\"a\"")][..];
    for stale in [false, true] {
        let scene = Scene::new();
        let mut status = 200;
        if stale {
            scene.get(0, (200, validator, "old"));
            status = 304;
        }
        let fetch = lead(&scene, 20);
        let waits = [join(&scene, 20), join(&scene, 20)];
        scene.cache.purge(false, "h", "/");
        finish(&scene, 20, fetch, (status, validator, "old"));
        let [first, second] = waits;
        let Lookup::Fetch(fetch) = first.resume(scene.at(20)) else {
            panic!("leads now")
        };
        let Lookup::Wait(second) = second.resume(scene.at(20)) else {
            panic!("waits again")
        };
        drop(join(&scene, 20));
        finish(&scene, 20, fetch, (200, FRESH, "new"));
        assert!(matches!(second.resume(scene.at(20)), Lookup::Reply(_)));
    }
}
