use std::io::Read;

use proptest::prelude::*;

use super::super::blocks::BLOCK;
use super::*;

fn at(target: &str, fields: &Fields) -> CacheTarget {
    CacheTarget(target.to_owned(), fields.clone())
}

/// A request that owns its target.
struct CacheTarget(String, Fields);

impl CacheTarget {
    fn request(&self) -> CacheRequest<'_> {
        CacheRequest {
            target: &self.0,
            ..get(&self.1)
        }
    }
}

const FRESH: Pairs<'static> = &[("Cache-Control", "max-age=3600")];

#[test]
fn the_longest_unused_goes_first() {
    let scene = Scene::with(Cache::new(64 << 10));
    let none = Fields::new();
    let body = "x".repeat(7000);
    let ask =
        |target: &str, status| scene.ask(1, &at(target, &none).request(), (status, FRESH, &body));
    for target in ["/a", "/b", "/c", "/d", "/e", "/f", "/g", "/h"] {
        ask(target, 200);
    }
    assert!(ask("/a", 500).is_hit(), "used again");
    ask("/i", 200);
    assert!(ask("/a", 500).is_hit() && ask("/c", 500).is_hit());
    assert!(!ask("/b", 500).is_hit());
}

#[test]
fn one_reply_takes_at_most_an_eighth() {
    let capacity = 64 << 10;
    for (length, kept) in [(capacity / 8 - 1000, true), (capacity / 8 + 1, false)] {
        for announced in [true, false] {
            let scene = Scene::with(Cache::new(capacity));
            let body = "x".repeat(length);
            let length = length.to_string();
            let announce = [("Content-Length", length.as_str()), FRESH[0]];
            let answer = if announced { &announce[..] } else { FRESH };
            assert_eq!(scene.get(0, (200, answer, &body)).body.len(), body.len());
            assert_eq!(scene.is_kept(1), kept, "{length}");
            assert_eq!(scene.cache.stats().bytes > 0, kept);
        }
    }
}

#[test]
fn replies_that_are_coming_take_at_most_half() {
    let scene = Scene::with(Cache::new(64 << 10));
    let none = Fields::new();
    let mut fillings = Vec::new();
    for number in 0..20 {
        let target = format!("/{number}");
        let Lookup::Fetch(fetch) = scene
            .cache
            .lookup(&at(&target, &none).request(), scene.at(0))
        else {
            panic!()
        };
        let Fetched::Relay { filling, .. } = fetch.respond(200, &fields(FRESH), scene.at(0)) else {
            panic!()
        };
        let mut filling = filling.expect("may be kept");
        for _ in 0..7 {
            filling.write(&[b'x'; 1000]);
        }
        fillings.push(filling);
        assert!(scene.cache.stats().bytes <= 32 << 10);
    }
    for filling in fillings {
        filling.finish(scene.at(0));
    }
    let stats = scene.cache.stats();
    assert!(stats.entries == 4 && stats.bytes <= 32 << 10, "{stats:?}");
}

#[test]
fn variants_of_one_key_are_bounded() {
    let scene = Scene::new();
    let answer = &[("Cache-Control", "max-age=100"), ("Vary", "Foo")][..];
    for value in 0..1000 {
        scene.get_with(0, &[("Foo", &value.to_string())], (200, answer, "x"));
    }
    assert_eq!(scene.cache.stats().entries, 32);
    assert!(
        scene
            .get_with(0, &[("Foo", "999")], (500, &[], ""))
            .is_hit()
    );
}

#[test]
fn keys_that_nobody_waits_for_are_bounded() {
    let scene = Scene::new();
    let none = Fields::new();
    for number in 0..10_000 {
        scene.ask(
            0,
            &at(&format!("/{number}"), &none).request(),
            (200, &[], "x"),
        );
    }
    let state = scene.cache.shared.state();
    assert!(state.fetches.not_collapsed() <= 4096);
    assert_eq!(state.fetches.under_way(), 0);
}

proptest! {
    #[test]
    fn what_is_counted_never_exceeds_the_capacity_and_returns_to_nothing(
        steps in proptest::collection::vec((0_u8..4, 0_u32..40, 0_usize..9000, 0_u8..3), 1..200),
    ) {
        let capacity = 64 << 10;
        let scene = Scene::with(Cache::new(capacity));
        let mut time = 0;
        for (what, key, length, variant) in steps {
            time += 1;
            let target = format!("/{key}");
            let variant = fields(&[("Foo", &variant.to_string())]);
            let target = at(&target, &variant);
            let body = "x".repeat(length);
            let answer = &[("Cache-Control", "max-age=5"), ("Vary", "Foo"), ("ETag", "\"a\"")][..];
            match what {
                0 | 1 => {
                    let got = scene.ask(time, &target.request(), (200, answer, &body));
                    prop_assert!(!got.is_hit() || got.status == 200);
                }
                2 => {
                    let post = CacheRequest { method: "POST", has_body: true, ..target.request() };
                    scene.ask(time, &post, (200, &[], ""));
                }
                _ => _ = scene.cache.purge(false, "h", &target.0),
            }
            prop_assert!(scene.cache.stats().bytes <= capacity);
        }
        for key in 0..40 {
            scene.cache.purge(false, "h", &format!("/{key}"));
        }
        let stats = scene.cache.stats();
        prop_assert_eq!((stats.bytes, stats.entries), (0, 0));
    }
}

#[test]
fn a_body_is_given_whole_and_in_parts_whatever_its_length_and_the_pieces_it_came_in() {
    for length in [0, 1, 4095, 4096, 4097, 8192, 10_000] {
        for piece in [1000, 4096, 9999] {
            let scene = Scene::new();
            let body: Vec<u8> = (0..=255).cycle().take(length).collect();
            let Lookup::Fetch(fetch) = scene.cache.lookup(&get(&Fields::new()), scene.at(0)) else {
                panic!("nothing is kept");
            };
            let answer = fetch.respond(200, &fields(FRESH), scene.at(0));
            let Fetched::Relay { filling, .. } = answer else {
                panic!("relayed")
            };
            let mut filling = filling.expect("may be kept");
            for piece in body.chunks(piece) {
                assert_eq!(filling.write(piece), piece.len());
            }
            filling.finish(scene.at(0));
            for (first, last) in [(0, 0), (0, 4095), (4095, 4096), (4096, 8191), (1, 9998)] {
                let range = fields(&[("Range", &format!("bytes={first}-{last}"))]);
                for (pairs, expected) in [
                    (&Fields::new(), &body[..]),
                    (
                        &range,
                        body.get(first..length.min(last + 1)).unwrap_or_default(),
                    ),
                ] {
                    let lookup = scene.cache.lookup(&get(pairs), scene.at(1));
                    let Lookup::Reply(reply) = lookup else {
                        panic!("kept")
                    };
                    assert_eq!(reply.body(), expected);
                    assert_eq!(reply.content_length(), Some(expected.len()));
                    let mut read = Vec::new();
                    reply.into_reader().read_to_end(&mut read).expect("memory");
                    assert_eq!(read, expected);
                }
            }
        }
    }
}

#[test]
fn blocks_of_what_was_forgotten_are_used_again_and_never_kept_beside_a_full_cache() {
    let capacity = 64 << 10;
    let scene = Scene::with(Cache::new(capacity));
    let none = Fields::new();
    let spare = || {
        let text = format!("{:?}", scene.cache.shared.spare);
        let count = text.trim_matches(|byte: char| !byte.is_ascii_digit());
        count.parse::<usize>().expect("a count") * BLOCK
    };
    let most = capacity / 32 * 33;
    let body = "x".repeat(7000);
    for number in 0..40 {
        let target = format!("/{number}");
        scene.ask(0, &at(&target, &none).request(), (200, FRESH, &body));
        assert!(spare() + scene.cache.stats().bytes <= most, "{number}");
    }
    let kept = scene.cache.stats().entries;
    for number in 0..40 {
        scene.cache.purge(false, "h", &format!("/{number}"));
    }
    // Of each body one block is whole.
    assert!(spare() >= kept * BLOCK, "{} of {kept}", spare());
    // Bodies without a whole block leave none of them where they are not needed.
    let body = "x".repeat(1000);
    for number in 0..200 {
        let target = format!("/small/{number}");
        scene.ask(0, &at(&target, &none).request(), (200, FRESH, &body));
        assert!(spare() + scene.cache.stats().bytes <= most, "{number}");
    }
}
