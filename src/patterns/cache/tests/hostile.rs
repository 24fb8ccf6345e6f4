//! What one client sends never changes what another gets, unless the origin lets it and does not say so in Vary.

use super::*;

const FRESH: Pairs<'static> = &[("Cache-Control", "max-age=3600")];

#[test]
fn override_fields_are_not_sent_where_the_reply_may_be_kept() {
    let overrides = [
        "X-Host",
        "x-host",
        "X_Host",
        "X-Original-URL",
        "X-Original_Url",
        "X-Rewrite-URL",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Http-Method_Override",
        "X-Method-Override",
    ];
    for name in overrides {
        let scene = Scene::new();
        let none = Fields::new();
        let with = fields(&[(name, "evil"), ("X-Kept", "1")]);
        for method in ["GET", "HEAD"] {
            let got = scene.ask(
                0,
                &CacheRequest {
                    method,
                    ..get(&with)
                },
                (200, &[], ""),
            );
            let asked = got.asked.expect("nothing is kept");
            assert!(
                !asked.contains(name) && asked.contains("X-Kept"),
                "{method} {name}"
            );
        }
        // What is never kept goes on as it is.
        let post = CacheRequest {
            method: "POST",
            has_body: true,
            ..get(&with)
        };
        assert!(
            scene
                .ask(0, &post, (200, &[], ""))
                .asked
                .expect("sent")
                .contains(name)
        );
        assert!(
            !scene
                .ask(0, &get(&none), (200, &[], ""))
                .asked
                .expect("sent")
                .contains(name)
        );
    }
}

#[test]
fn a_field_that_the_origin_names_in_vary_keeps_its_replies_apart() {
    let scene = Scene::new();
    let answer = &[
        ("Cache-Control", "max-age=3600"),
        ("Vary", "X-Forwarded-Host"),
    ][..];
    scene.get_with(0, &[("X-Forwarded-Host", "evil")], (200, answer, "evil"));
    assert_eq!(scene.get(0, (200, answer, "good")).body, "good");
    assert_eq!(scene.get(1, (500, &[], "")).body, "good");
}

#[test]
fn hosts_schemes_and_targets_that_differ_are_kept_apart() {
    let none = Fields::new();
    let base = get(&none);
    for other in [
        CacheRequest {
            host: "evil",
            ..base
        },
        CacheRequest {
            host: "h:8080",
            ..base
        },
        CacheRequest { host: "", ..base },
        CacheRequest {
            https: true,
            ..base
        },
        CacheRequest {
            target: "//",
            ..base
        },
        CacheRequest {
            target: "/.",
            ..base
        },
        CacheRequest {
            target: "/%2F",
            ..base
        },
        CacheRequest {
            target: "/?",
            ..base
        },
        CacheRequest {
            target: "/#",
            ..base
        },
        CacheRequest {
            target: "*",
            ..base
        },
    ] {
        let scene = Scene::new();
        scene.ask(0, &other, (200, FRESH, "evil"));
        assert!(!scene.is_kept(0), "{other:?}");
    }
    let scene = Scene::new();
    scene.ask(
        0,
        &CacheRequest {
            host: "H:80",
            ..base
        },
        (200, FRESH, "same"),
    );
    assert!(scene.is_kept(0));
}

#[test]
fn methods_that_look_like_get_are_not_get() {
    for method in ["get", "GETT", "POST", "QUERY", "PURGE", "OPTIONS"] {
        let scene = Scene::new();
        let none = Fields::new();
        scene.ask(
            0,
            &CacheRequest {
                method,
                ..get(&none)
            },
            (200, FRESH, "evil"),
        );
        assert!(!scene.is_kept(0), "{method}");
        // Nor are they answered from what is kept.
        scene.get(0, (200, FRESH, "kept"));
        let got = scene.ask(
            0,
            &CacheRequest {
                method,
                ..get(&none)
            },
            (404, FRESH, ""),
        );
        assert!(!got.is_hit(), "{method}");
        assert_eq!(got.cache_status, "plimsoll; fwd=method");
    }
}

#[test]
fn a_get_with_a_body_goes_past() {
    let scene = Scene::new();
    let none = Fields::new();
    let fat = CacheRequest {
        has_body: true,
        ..get(&none)
    };
    let got = scene.ask(0, &fat, (200, FRESH, "evil"));
    assert_eq!(got.cache_status, "plimsoll; fwd=bypass");
    assert!(!scene.is_kept(0));
    scene.get(0, (200, FRESH, "kept"));
    assert!(!scene.ask(0, &fat, (200, FRESH, "evil")).is_hit());
    assert!(scene.is_kept(0), "GET changes nothing");
}

#[test]
fn a_reply_to_one_clients_condition_or_range_is_given_to_no_other() {
    let scene = Scene::new();
    let not_modified = &[("Cache-Control", "max-age=3600"), ("ETag", "\"a\"")][..];
    assert_eq!(
        scene
            .get_with(0, &[("If-None-Match", "\"a\"")], (304, not_modified, ""))
            .status,
        304
    );
    assert_eq!(
        scene
            .get_with(0, &[("Range", "bytes=0-0")], (206, FRESH, "x"))
            .status,
        206
    );
    assert_eq!(
        scene
            .get_with(0, &[("Range", "bytes=99-")], (416, &[], ""))
            .status,
        416
    );
    assert!(!scene.is_kept(0));
}

#[test]
fn an_answer_to_authorization_is_given_to_no_other_but_a_public_one_is() {
    let scene = Scene::new();
    scene.get_with(0, &[("Authorization", "Basic x")], (200, FRESH, "secret"));
    assert!(!scene.is_kept(0));
    // Who has credentials may get what is kept for all.
    scene.get(0, (200, FRESH, "public"));
    assert!(
        scene
            .get_with(1, &[("Authorization", "Basic x")], (500, &[], ""))
            .is_hit()
    );
}

#[test]
fn a_reply_makes_nothing_of_another_host_invalid() {
    let scene = Scene::new();
    let none = Fields::new();
    let other = CacheRequest {
        host: "other",
        target: "/x",
        ..get(&none)
    };
    scene.ask(0, &other, (200, FRESH, "kept"));
    let post = CacheRequest {
        method: "POST",
        has_body: true,
        ..get(&none)
    };
    for location in [
        "http://other/x",
        "//other/x",
        "https://h@other/x",
        "http://other:80/x",
    ] {
        scene.ask(
            0,
            &post,
            (
                201,
                &[("Location", location), ("Content-Location", location)],
                "",
            ),
        );
        assert!(scene.ask(0, &other, (500, &[], "")).is_hit(), "{location}");
    }
}

#[test]
fn a_value_cannot_make_another_field() {
    let scene = Scene::new();
    let answer: Fields = [
        ("Cache-Control", &b"max-age=3600"[..]),
        ("X", b"a\r\nSet-Cookie: evil=1"),
        ("Y", b"\xff"),
    ]
    .into_iter()
    .collect();
    let Lookup::Fetch(fetch) = scene.cache.lookup(&get(&Fields::new()), scene.at(0)) else {
        panic!()
    };
    let Fetched::Relay { fields, filling } = fetch.respond(200, &answer, scene.at(0)) else {
        panic!()
    };
    filling.expect("may be kept").finish(scene.at(0));
    let kept = scene.get(0, (500, &[], "")).fields;
    for fields in [fields, kept] {
        assert!(!fields.contains("Set-Cookie") && !fields.contains("X"));
        assert_eq!(
            fields.first("Y"),
            Some(&b"\xff"[..]),
            "other bytes pass as they are"
        );
    }
}

/// Each look-up under the key would compare them all, while it holds the lock.
#[test]
fn a_reply_that_varies_by_too_many_names_is_not_kept() {
    for (count, is_kept) in [(32, true), (33, false)] {
        let scene = Scene::new();
        let names: Vec<String> = (0..count).map(|number| format!("x-{number}")).collect();
        let vary = names.join(",");
        let answer = [("Cache-Control", "max-age=60"), ("Vary", &vary)];
        scene.get(0, (200, &answer, "a"));
        assert_eq!(scene.is_kept(1), is_kept, "{count}");
    }
}
