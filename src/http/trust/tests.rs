use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect(text)
}

fn cidr(text: &str) -> Cidr {
    Cidr::parse(text).expect(text)
}

/// The client that is found when a request of `peer` has these lines of X-Forwarded-For.
fn client(trusted: &[&str], peer: &str, lines: &[&str]) -> String {
    let trust = Trust::new(trusted.iter().map(|text| cidr(text)).collect());
    let fields = lines
        .iter()
        .flat_map(|line| [("Host", &b"a"[..]), ("x-Forwarded-FOR", line.as_bytes())]);
    trust.client(ip(peer), fields).to_string()
}

#[test]
fn a_range_is_read_as_it_prints() {
    for (text, printed) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("192.0.2.1/32", "192.0.2.1/32"),
        ("::/0", "::/0"),
        ("2001:DB8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("::ffff:192.0.2.1", "192.0.2.1/32"),
    ] {
        assert_eq!(cidr(text).to_string(), printed);
        assert_eq!(Cidr::parse(printed), Some(cidr(text)));
    }
}

#[test]
fn what_is_no_range_is_refused() {
    for text in [
        "",
        "/",
        "/8",
        "10.0.0.0/",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "10.0.0.0/-1",
        "10.0.0.0/8/8",
        "10.0.0.0/99999999999",
        "10.0.0.1/8",
        "10/8",
        "10.0.0/8",
        "010.0.0.0/8",
        " 10.0.0.0/8",
        "10.0.0.0/255.0.0.0",
        "fd00::/129",
        "fd00::1/8",
        "[::1]",
        "::ffff:0:0/95",
        "::ffff:10.0.0.1/104",
        "localhost",
        "fe80::1%1",
    ] {
        assert_eq!(Cidr::parse(text), None, "{text:?}");
    }
}

#[test]
fn a_range_holds_the_addresses_with_its_prefix_of_its_family() {
    for (range, inside, outside) in [
        ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
        ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.0"),
        ("0.0.0.0/0", "255.255.255.255", "::1"),
        ("::/0", "ffff::", "127.0.0.1"),
        ("fd00::/8", "fdff::1", "fc00::1"),
        ("2001:db8::/127", "2001:db8::1", "2001:db8::2"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", "::10.0.0.1"),
    ] {
        assert!(cidr(range).contains(ip(inside)), "{range} {inside}");
        assert!(!cidr(range).contains(ip(outside)), "{range} {outside}");
    }
}

#[test]
fn without_trust_and_of_others_nothing_is_believed() {
    assert_eq!(client(&[], "10.0.0.1", &["192.0.2.1"]), "10.0.0.1");
    assert_eq!(
        client(&["10.0.0.2"], "10.0.0.1", &["192.0.2.1"]),
        "10.0.0.1"
    );
    assert_eq!(client(&[], "::ffff:10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
    let trusted = ["10.0.0.0/8", "fd00::/8"];
    for (lines, found) in [
        (&[][..], "10.0.0.1"),
        (&[""], "10.0.0.1"),
        (&["192.0.2.1"], "192.0.2.1"),
        (&["203.0.113.9, 192.0.2.1"], "192.0.2.1"),
        (&["203.0.113.9, 192.0.2.1, 10.0.0.7, fd00::2"], "192.0.2.1"),
        // Lines are one list.
        (&["203.0.113.9", "192.0.2.1", "10.0.0.7"], "192.0.2.1"),
        (
            &["203.0.113.9,192.0.2.1", "10.0.0.7,\t10.0.0.8 "],
            "192.0.2.1",
        ),
        // Every one a proxy: the farthest.
        (&["10.0.0.9, 10.0.0.8"], "10.0.0.9"),
        (&["192.0.2.1, , ,"], "192.0.2.1"),
    ] {
        assert_eq!(client(&trusted, "10.0.0.1", lines), found, "{lines:?}");
    }
    assert_eq!(
        client(&trusted, "::ffff:10.0.0.1", &["192.0.2.1"]),
        "192.0.2.1"
    );
}

#[test]
fn an_entry_may_have_brackets_and_a_port() {
    for (entry, found) in [
        ("192.0.2.1:443", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
        // A mapped address of a proxy is that proxy's.
        ("192.0.2.1, ::ffff:10.0.0.7", "192.0.2.1"),
    ] {
        assert_eq!(client(&["10.0.0.0/8"], "10.0.0.1", &[entry]), found);
    }
}

#[test]
fn an_entry_that_is_no_address_ends_the_search() {
    for garbage in [
        "unknown",
        "_hidden",
        "localhost",
        "-",
        "\"192.0.2.1\"",
        "192.0.2",
        "192.0.2.1:",
        "192.0.2.1:x",
        "192.0.2.1:99999",
        "[192.0.2.1]",
        "[::1",
        "::1]",
        "[]",
        "1",
        "0x7f.1",
        "192.0.2.1;",
        "for=192.0.2.1",
        "192.0.2.1 192.0.2.2",
        "\u{e9}",
        "::1%eth0",
    ] {
        let line = format!("192.0.2.9, {garbage}, 10.0.0.7");
        assert_eq!(
            client(&["10.0.0.0/8"], "10.0.0.1", &[&line]),
            "10.0.0.7",
            "{line}"
        );
    }
    let fields = [("X-Forwarded-For", &b"192.0.2.9, \xff\xfe"[..])];
    let trust = Trust::new(vec![cidr("10.0.0.1")]);
    assert_eq!(
        trust.client(ip("10.0.0.1"), fields.into_iter()),
        ip("10.0.0.1")
    );
}

#[test]
fn a_thousand_entries_are_read_as_far_as_they_are_trusted() {
    let proxies = vec!["10.0.0.7"; 1000].join(",");
    let trusted = ["10.0.0.0/8"];
    let line = format!("192.0.2.1,{proxies}");
    assert_eq!(client(&trusted, "10.0.0.1", &[&line]), "192.0.2.1");
    let line = format!("{proxies},192.0.2.1");
    assert_eq!(client(&trusted, "10.0.0.1", &[&line]), "192.0.2.1");
}

proptest::proptest! {
    #[test]
    fn no_value_panics_or_makes_an_untrusted_peer_another(
        lines in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0..4),
        entries in "[0-9a-f:.,\\[\\] /]{0,60}",
    ) {
        let trust = Trust::new(vec![cidr("10.0.0.0/8")]);
        let values = lines.iter().map(Vec::as_slice).chain([entries.as_bytes()]);
        let fields: Vec<_> = values.map(|value| ("X-Forwarded-For", value)).collect();
        trust.client(ip("10.0.0.1"), fields.iter().copied());
        let peer = ip("192.0.2.1");
        proptest::prop_assert_eq!(trust.client(peer, fields.into_iter()), peer);
    }

    #[test]
    fn no_text_panics_as_a_range(text in "[0-9a-f:./]{0,40}") {
        if let Some(range) = Cidr::parse(&text) {
            proptest::prop_assert_eq!(Cidr::parse(&range.to_string()), Some(range));
        }
    }
}
