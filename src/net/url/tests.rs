use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Url, StoreUrlError> {
    Url::parse(&Scheme::split(text, "redis://")?)
}

#[track_caller]
fn refused(text: &str) -> StoreUrlError {
    parse(text).expect_err("a URL that is refused")
}

#[test]
fn all_parts_are_read() {
    let url = parse("redis://us%65r:p%40%3A%2F%c3%a9@Db-1.example:6380/2?a=b").unwrap();
    assert_eq!(url.user.as_deref(), Some("user"));
    assert_eq!(url.password.as_ref().map(Secret::reveal), Some("p@:/é"));
    let endpoint = url.endpoint(Some(6379)).unwrap();
    assert_eq!(endpoint.host, Host::Name("db-1.example".to_owned()));
    assert_eq!(endpoint.port, 6380);
    assert_eq!(
        (url.path.as_str(), url.query.as_deref()),
        ("/2", Some("a=b"))
    );
    assert_eq!(url.shown(), "redis://us%65r:***@db-1.example:6380/2?***");
    assert!(!format!("{url:?}").contains("p@:/é"), "{url:?}");
}

#[test]
fn most_parts_may_be_left_out() {
    let url = parse("redis://h").unwrap();
    assert_eq!(
        (&url.user, &url.password, &url.query),
        (&None, &None, &None)
    );
    assert_eq!(url.endpoint(Some(6379)).unwrap().port, 6379);
    assert_eq!(url.endpoint(None).unwrap_err().part, UrlPart::Port);

    let url = parse("redis://:pw@h").unwrap();
    assert_eq!(url.user, None);
    assert_eq!(url.password.as_ref().map(Secret::reveal), Some("pw"));
    assert_eq!(url.shown(), "redis://:***@h");

    let url = parse("redis://u:@h").unwrap();
    assert_eq!(url.password.as_ref().map(Secret::reveal), Some(""));
    assert_eq!(parse("redis://u@h").unwrap().password, None);
}

#[test]
fn addresses_are_told_from_names() {
    let host = |text: &str| parse(text).unwrap().host;
    assert_eq!(
        host("redis://127.0.0.1:1"),
        Host::Address([127, 0, 0, 1].into())
    );
    assert_eq!(
        host("redis://[::1]"),
        Host::Address(Ipv6Addr::LOCALHOST.into())
    );
    let url = parse("redis://:p@[0:0::2]:7/").unwrap();
    assert_eq!(url.endpoint(None).unwrap().port, 7);
    assert_eq!(url.shown(), "redis://:***@[::2]:7/");
    assert_eq!(host("redis://a_b.c-d."), Host::Name("a_b.c-d.".to_owned()));
}

#[test]
fn an_error_names_the_part() {
    for (text, part) in [
        ("", UrlPart::Scheme),
        ("localhost", UrlPart::Scheme),
        ("//h:1", UrlPart::Scheme),
        ("redis:h:1", UrlPart::Scheme),
        ("Redis://h", UrlPart::Scheme),
        ("redis://", UrlPart::Host),
        ("redis://:1", UrlPart::Host),
        ("redis://u:p@", UrlPart::Host),
        ("redis://ho$t", UrlPart::Host),
        ("redis://h%41", UrlPart::Host),
        ("redis://[::1", UrlPart::Host),
        ("redis://[::g]", UrlPart::Host),
        ("redis://[127.0.0.1]", UrlPart::Host),
        ("redis://[::1]x", UrlPart::Port),
        ("redis://h:", UrlPart::Port),
        ("redis://h:0", UrlPart::Port),
        ("redis://h:65536", UrlPart::Port),
        ("redis://h:+1", UrlPart::Port),
        ("redis://h:1:2", UrlPart::Port),
        ("redis://::1", UrlPart::Host),
        ("redis://u:p@x@h", UrlPart::User),
        ("redis://u:p/x@h", UrlPart::User),
        ("redis://u:p?x@h", UrlPart::User),
        ("redis://u:p#x@h", UrlPart::User),
        ("redis://h/#x", UrlPart::Path),
        ("redis://%zz@h", UrlPart::User),
        ("redis://u%00@h", UrlPart::User),
        ("redis://u:%@h", UrlPart::Password),
        ("redis://u:%f@h", UrlPart::Password),
        ("redis://u:%ff@h", UrlPart::Password),
        ("redis://u:%00@h", UrlPart::Password),
        ("redis://u:p\n@h", UrlPart::Url),
        ("redis://u:p @h", UrlPart::Url),
        ("redis://u:pä@h", UrlPart::Url),
    ] {
        assert_eq!(refused(text).part, part, "{text:?}: {}", refused(text));
    }
    let long = format!("redis://{}", "h".repeat(MOST_HOST + 1));
    assert_eq!(refused(&long).part, UrlPart::Host);
    let long = format!("redis://h/{}", "x".repeat(MOST_URL));
    assert_eq!(refused(&long).part, UrlPart::Url);
}

#[test]
fn an_error_is_a_line_that_tells_what_was_expected_and_found() {
    assert_eq!(
        refused("redis://u:p@h:99999").to_string(),
        "port: expected a number from 1 to 65535 after the host and a colon, found another number"
    );
    let scheme = Scheme::split("rediss://h", "redis://").map_err(|error| error.to_string());
    let error = scheme.unwrap().refuse("redis://, tcp://");
    assert_eq!(
        error.to_string(),
        "scheme: expected one of redis://, tcp://, found rediss://"
    );
}

/// What no part but the password holds.
const MARK: &str = "Zq9";

fn encode(text: &str) -> String {
    let encoded: Vec<_> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    encoded.concat()
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*") {
        let _ = parse(&text);
        let _ = parse(&format!("redis://{text}"));
    }

    #[test]
    fn no_text_of_the_characters_that_matter_makes_it_panic(text in "[a-z0-9:/@?#%\\[\\].=&-]{0,40}") {
        let _ = parse(&format!("redis://{text}"));
    }

    #[test]
    fn an_encoded_password_is_read_as_it_was_and_never_shown(password in "[^\\x00]{1,40}", user in "[a-z]{0,8}") {
        let password = format!("{MARK}{password}");
        let url = parse(&format!("redis://{user}:{}@host:1/2?{MARK}", encode(&password))).unwrap();
        prop_assert_eq!(url.password.as_ref().map(Secret::reveal), Some(password.as_str()));
        prop_assert!(!url.shown().contains(MARK));
        prop_assert!(!url.shown().contains(&encode(MARK)));
    }

    #[test]
    fn a_password_that_was_not_encoded_is_never_shown(
        before in "[a-z:/@?#%\\[\\]]{0,8}",
        password in "(Zq9[:/@?#% \\[\\]\\n]{0,3}){1,4}",
        after in "(@[a-z:/@?#%\\[\\]0-9]{0,12})?",
        scheme in prop_oneof![Just("redis://"), Just("redis:"), Just("redis:/"), Just("")],
    ) {
        let text = format!("{scheme}{before}:{password}{after}");
        // Without an @ behind it, text that could be a host's name, a path or a query is what it looks like.
        match parse(&text) {
            Ok(url) => prop_assert!(after.is_empty() || !url.shown().contains(MARK), "{text:?}: {}", url.shown()),
            Err(error) => prop_assert!(!format!("{error:?}").contains(MARK), "{text:?}: {error}"),
        }
    }
}
