use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::super::control::{Directives, MOST_SECONDS, Scope};
use super::super::fields::members;
use super::super::key::Key;
use super::super::range::Part;
use super::super::vary::Vary;
use super::super::{Fields, date, targeted};
use super::fields;

fn control(values: &[&str]) -> Directives {
    Directives::of(
        &values
            .iter()
            .map(|value| ("Cache-Control", value))
            .collect(),
    )
}

fn names(names: &[&str]) -> Scope {
    Scope::Fields(names.iter().map(ToString::to_string).collect())
}

#[test]
fn lifetimes_in_cache_control() {
    // RFC 9111 sections 1.2.2, 4.2.1 and 5.2: both forms of an argument, the first of several, any case; what is no
    // number means stale.
    for (values, expected) in [
        (&["max-age=3600"][..], Some(3600)),
        (&["MaX-aGe=3600"], Some(3600)),
        (&["max-age=\"3600\""], Some(3600)),
        (&["max-age=\"36\\00\""], Some(3600)),
        (&["max-age=003600"], Some(3600)),
        (&["foobar, max-age=3600"], Some(3600)),
        (&[",,\t max-age=3600 ,"], Some(3600)),
        (&["max-age=1", "max-age=3600"], Some(1)),
        (&["max-age=3600, max-age=1"], Some(3600)),
        (&["extension=\"max-age=3600\", max-age=1"], Some(1)),
        (&["max-age=1, extension=\"max-age=3600\""], Some(1)),
        (&["extension=\"a\\\", max-age=3600\""], None),
        (&["max-age=2147483649"], Some(MOST_SECONDS)),
        (&["max-age=99999999999999999999999"], Some(MOST_SECONDS)),
        (&["max-age='3600'"], Some(0)),
        (&["max-age=3600.0"], Some(0)),
        (&["max-age=-1"], Some(0)),
        (&["max-age=+1"], Some(0)),
        (&["max-age=3600a"], Some(0)),
        (&["max-age =3600"], Some(0)),
        (&["max-age= 3600"], Some(0)),
        (&["max-age=\"3600\"x"], Some(0)),
        (&["max-age"], Some(0)),
        (&["max-age="], Some(0)),
        (&["x-max-age=3600"], None),
        (&["max-age-x=3600"], None),
        (&[""], None),
        (&[], None),
    ] {
        assert_eq!(control(values).max_age, expected, "{values:?}");
    }
}

#[test]
fn directives_that_restrict_do_so_however_they_are_written() {
    for value in [
        "no-store",
        "No-StOrE",
        "a,no-store,b",
        "no-store=1",
        "no-store x",
        "x=\"y\",no-store",
    ] {
        assert!(control(&[value]).no_store, "{value}");
    }
    // A quote that is not closed could hide it.
    assert!(control(&["x=\"y, no-store"]).no_store);
    assert!(!control(&["x=\"no-store\""]).no_store);
    assert!(control(&["s-maxage=x"]).forbid_stale());
}

#[test]
fn no_cache_and_private_may_name_fields() {
    for (values, expected) in [
        (&["no-cache"][..], Scope::Whole),
        (&["no-cache=\"A, b\""], names(&["a", "b"])),
        (&["no-cache=a"], names(&["a"])),
        (&["no-cache=\"a\"", "no-cache=\"b\""], names(&["a", "b"])),
        (&["no-cache=\"a\", no-cache"], Scope::Whole),
        (&["no-cache, no-cache=\"a\""], Scope::Whole),
        (&["no-cache=\"\""], names(&[])),
        (&["max-age=1"], Scope::Absent),
    ] {
        assert_eq!(control(values).no_cache, expected, "{values:?}");
    }
    assert_eq!(control(&["private=\"x\""]).private, names(&["x"]));
}

#[test]
fn requests_directives() {
    assert_eq!(control(&["max-stale"]).max_stale, Some(MOST_SECONDS));
    assert_eq!(control(&["max-stale=10"]).max_stale, Some(10));
    assert_eq!(control(&["max-stale=x"]).max_stale, None);
    assert_eq!(control(&["min-fresh=5"]).min_fresh, Some(5));
    assert!(control(&["only-if-cached"]).only_if_cached);
}

#[test]
fn a_targeted_field_is_a_dictionary_of_structured_fields() {
    // RFC 9213 section 2.1, RFC 9651 section 3.2.
    let parse = |values: &[&str]| {
        let fields: Fields = values
            .iter()
            .map(|value| ("CDN-Cache-Control", value))
            .collect();
        targeted::parse(&fields, "cdn-cache-control")
    };
    for (values, max_age) in [
        (&["max-age=3600"][..], Some(3600)),
        (&["max-age=1, max-age=2"], Some(1)),
        (&["max-age=99999999999"], Some(MOST_SECONDS)),
        (&["foobar, max-age=3600"], Some(3600)),
        (&["max-age=3600;x;y=\"z\""], Some(3600)),
        (
            &[
                "a=1.5, b=:Zm9v:, c=?0, d=(1 2;q);x, e=@1, f=%\"x\", g=*t/x:y",
                "max-age=1",
            ],
            Some(1),
        ),
        (&["no-store=?0, max-age=5"], Some(5)),
    ] {
        let directives = parse(values).unwrap_or_else(|| panic!("{values:?}"));
        assert_eq!(directives.max_age, max_age, "{values:?}");
        assert!(directives.targeted && !directives.no_store);
    }
    for values in [
        &[][..],
        &[""],
        &["max-age=10000, &&&&&"],
        &["max-age=\"10000\""],
        &["max-age=1.5"],
        &["max-age=-1"],
        &["max-age"],
        &["max-age =1"],
        &["max-age= 1"],
        &["MaX-aGe=3600"],
        &["no-store=1"],
        &["a,"],
        &["a=\"b"],
        &["a=(1"],
        &["a=(1\"x\")"],
        &["a=1.2345"],
        &["a=1234567890123456"],
        &["a=?2"],
        &["a;=1"],
    ] {
        assert_eq!(parse(values), None, "{values:?}");
    }
    assert!(parse(&["no-store"]).is_some_and(|directives| directives.no_store));
    assert_eq!(parse(&["no-cache"]).expect("valid").no_cache, Scope::Whole);
    assert_eq!(
        parse(&["private=\"a, b\""]).expect("valid").private,
        names(&["a", "b"])
    );
}

#[test]
fn dates_are_read_in_three_formats_and_any_case() {
    // RFC 9110 section 5.6.7; weekday, month and zone in any case.
    let expected = date::parse("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
    for text in [
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "SUN, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06 NOV 1994 08:49:37 gMT",
        "sunday, 06-nov-94 08:49:37 gmt",
        "Mon, 06 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(date::parse(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "0",
        "-1",
        "foo",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 06 Nov 1994 08:49:37",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov  1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 08.49.37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sunday, 06 Nov 1994 08:49:37 GMT",
        "Sun, 06-Nov-94 08:49:37 GMT",
        "Sun, 31 Nov 1994 08:49:37 GMT",
        "Sun, 29 Feb 1900 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov +994 08:49:37 GMT",
        "Xyz, 06 Nov 1994 08:49:37 GMT",
    ] {
        assert_eq!(date::parse(text), None, "{text}");
    }
}

#[test]
fn dates_far_away_are_read_as_they_are_written() {
    for text in [
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Tue, 29 Feb 2000 23:59:59 GMT",
        "Tue, 19 Jan 2038 14:14:08 GMT",
        "Mon, 28 Feb 2101 00:00:00 GMT",
        "Sun, 21 Nov 2286 04:46:39 GMT",
        "Fri, 31 Dec 9999 23:59:59 GMT",
    ] {
        let time = date::parse(text).expect(text);
        assert_eq!(date::format(time).as_deref(), Some(text));
    }
    let before = date::parse("Wed, 31 Dec 1969 23:59:59 GMT").expect("a date");
    assert_eq!(before, SystemTime::UNIX_EPOCH - Duration::from_secs(1));
    assert_eq!(date::format(before), None);
}

#[test]
fn ranges_of_bytes() {
    // RFC 9110 sections 14.1 and 14.2, of ten bytes.
    for (range, expected) in [
        ("bytes=0-1", Part::Bytes(0..2)),
        ("bytes=9-9", Part::Bytes(9..10)),
        ("bytes=1-", Part::Bytes(1..10)),
        ("bytes=-1", Part::Bytes(9..10)),
        ("bytes=-20", Part::Bytes(0..10)),
        ("bytes=5-99999999999999999999999", Part::Bytes(5..10)),
        ("Bytes=0-0", Part::Bytes(0..1)),
        ("bytes=10-", Part::Unsatisfiable),
        ("bytes=99999999999999999999-", Part::Unsatisfiable),
        ("bytes=-0", Part::Unsatisfiable),
        ("bytes=5-4", Part::Whole),
        ("bytes=-", Part::Whole),
        ("bytes=0-1,3-4", Part::Whole),
        ("bytes=a-b", Part::Whole),
        ("bytes=+1-2", Part::Whole),
        ("items=0-1", Part::Whole),
        ("bytes 0-1", Part::Whole),
        ("", Part::Whole),
    ] {
        assert_eq!(Part::of(range.as_bytes(), 10), expected, "{range}");
    }
    assert_eq!(Part::of(b"bytes=0-", 0), Part::Unsatisfiable);
}

#[test]
fn keys_are_the_uri_with_the_host_in_its_usual_form() {
    let key = |https, host| Key::new(https, host, "/a");
    for (https, host) in [
        (false, "EXAMPLE.com"),
        (false, "example.com:80"),
        (false, "example.com:"),
    ] {
        assert_eq!(key(https, host), key(false, "example.com"), "{host}");
    }
    assert_eq!(key(true, "example.com:443"), key(true, "example.com"));
    for (https, host) in [
        (true, "example.com"),
        (false, "example.com:443"),
        (false, "example.com:8080"),
        (false, "www.example.com"),
    ] {
        assert_ne!(key(https, host), key(false, "example.com"), "{host}");
    }
    // What an origin may tell apart stays apart.
    let targets = [
        "/a", "/A", "/%61", "/a/", "//a", "/./a", "/a?", "/a?b", "/a?B", "/a;b", "/a%2f", "/a%2F",
    ];
    for (index, one) in targets.iter().enumerate() {
        for other in &targets[..index] {
            assert_ne!(Key::new(false, "h", one), Key::new(false, "h", other));
        }
    }
}

#[test]
fn references_are_resolved_to_keys_of_the_same_host_only() {
    // RFC 9111 section 4.4, RFC 3986 section 5.2.
    let base = Key::new(false, "h:8080", "/a/b?q");
    for (reference, target) in [
        ("c", "/a/c"),
        ("/c?d", "/c?d"),
        ("", "/a/b?q"),
        ("?x", "/a/b?x"),
        ("#f", "/a/b?q"),
        ("c#f", "/a/c"),
        ("../c", "/c"),
        ("../../../c", "/c"),
        ("./", "/a/"),
        ("..", "/"),
        ("//H:8080/c", "/c"),
        ("http://h:8080/c", "/c"),
        ("HTTP://h:8080", "/"),
        ("https://h:8080?x", "/?x"),
        ("http://h:8080/x/../c", "/c"),
    ] {
        assert_eq!(
            base.resolve(reference),
            Some(Key::new(false, "h:8080", target)),
            "{reference}"
        );
    }
    for reference in [
        "//h/c",
        "http://h/c",
        "http://other:8080/c",
        "http://h:8080@x/c",
        "ftp://h:8080/c",
    ] {
        assert_eq!(base.resolve(reference), None, "{reference}");
    }
}

#[test]
fn vary_compares_what_requests_have_for_its_names() {
    // RFC 9111 section 4.1.
    let same = |vary: &str, one: &[(&str, &str)], other: &[(&str, &str)]| {
        let vary = Vary::of(&fields(&[("Vary", vary)])).expect("names");
        vary.signature(&fields(one).iter()) == vary.signature(&fields(other).iter())
    };
    for (vary, one, other, expected) in [
        ("Foo", &[("Foo", "1")][..], &[("foo", "1")][..], true),
        ("Foo", &[("Foo", "1")], &[("Foo", "2")], false),
        ("Foo", &[("Foo", "a")], &[("Foo", "A")], false),
        ("Foo", &[], &[("Foo", "1")], false),
        ("Foo", &[], &[("Foo", "")], false),
        ("Foo", &[], &[], true),
        (
            "Foo",
            &[("Foo", "1"), ("Foo", "2")],
            &[("Foo", "1, 2")],
            true,
        ),
        ("Foo", &[("Foo", "1,2")], &[("Foo", " 1 ,  2 ")], true),
        ("Foo", &[("Foo", "\"1,2\"")], &[("Foo", "\"1, 2\"")], false),
        ("Foo", &[("Foo", "2, 1")], &[("Foo", "1, 2")], false),
        (
            "foo, BAR",
            &[("Foo", "1"), ("Bar", "2")],
            &[("Bar", "2"), ("Foo", "1")],
            true,
        ),
        (
            "Foo, Bar",
            &[("Foo", "1"), ("Bar", "2")],
            &[("Foo", "1"), ("Bar", "3")],
            false,
        ),
        ("Foo", &[("Other", "1")], &[("Other", "2")], true),
        (
            "Accept-Language",
            &[("Accept-Language", "en, de")],
            &[("Accept-Language", "eN,De")],
            true,
        ),
        ("", &[("Foo", "1")], &[("Foo", "2")], true),
    ] {
        assert_eq!(same(vary, one, other), expected, "{vary} {one:?} {other:?}");
    }
    for vary in ["*", "*, *", ", *", "*, Foo", "Foo, *", "a b"] {
        assert_eq!(Vary::of(&fields(&[("Vary", vary)])), None, "{vary}");
    }
}

#[test]
fn fields_that_http_cannot_express_are_left_out() {
    let mut fields = Fields::new();
    for (name, value) in [
        ("a b", "x"),
        ("", "x"),
        ("a:", "x"),
        ("a", "x\r\nb: y"),
        ("a", "x\n"),
        ("a", "\0"),
    ] {
        fields.push(name, value.as_bytes());
    }
    // White space around a value is no part of it, so only the line end in the middle matters.
    assert_eq!(fields.as_bytes(), b"a: x\r\n");
    fields.push("b", b"\xff:\xfe");
    assert_eq!(fields.first("B"), Some(&b"\xff:\xfe"[..]));
    fields.retain(|name| name != "a");
    assert_eq!(fields.as_bytes(), b"b: \xff:\xfe\r\n");
}

proptest! {
    #[test]
    fn no_bytes_panic_a_parser(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut any = Fields::new();
        for name in ["Cache-Control", "CDN-Cache-Control", "Vary", "Expires", "Age", "Date", "Location"] {
            any.push(name, &bytes);
        }
        let _ = Directives::of(&any);
        let _ = targeted::parse(&any, "CDN-Cache-Control");
        let _ = Vary::of(&any).map(|vary| vary.signature(&any.iter()));
        let _ = Part::of(&bytes, 10);
        let _ = Key::new(false, "h", "/a").made_invalid(&any);
        prop_assert!(members(&bytes).all(|member| !member.is_empty()));
        if let Ok(text) = str::from_utf8(&bytes) {
            let _ = date::parse(text);
        }
    }

    #[test]
    fn an_odd_directive_never_hides_another(odd in "[ -~]{0,20}") {
        // Whatever stands beside it, a reply that says no-store is not kept.
        let before = control(&[&format!("no-store, {odd}")]);
        let apart = control(&[&odd, "no-store"]);
        prop_assert!(before.no_store && apart.no_store);
    }
}
