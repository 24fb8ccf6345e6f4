//! What all schemes have in common.

use std::net::{Ipv4Addr, TcpListener};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::fake::{Fake, PATIENCE};
use super::*;

#[track_caller]
fn refused(url: &str) -> StoreUrlError {
    url.parse::<Store>().expect_err("a URL that is refused")
}

#[test]
fn a_scheme_that_is_not_known_is_named() {
    let error = refused("gopher://h:1");
    assert_eq!(error.part, UrlPart::Scheme);
    assert_eq!(error.found, "gopher://");
    assert!(error.expected.contains("tcp://"), "{error}");
}

#[test]
fn a_text_without_a_scheme_is_not_shown() {
    for text in [
        "hunter2",
        "hunter2:x",
        "user:hunter2@host",
        "hunter2@host:1",
    ] {
        let error = refused(text);
        assert_eq!(error.part, UrlPart::Scheme, "{text}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    }
}

#[test]
fn tcp_wants_a_host_and_a_port_and_nothing_else() {
    for (url, part) in [
        ("tcp://h", UrlPart::Port),
        ("tcp://h:1/x", UrlPart::Path),
        ("tcp://u@h:1", UrlPart::User),
        ("tcp://h:1?x", UrlPart::Option),
    ] {
        assert_eq!(refused(url).part, part, "{url}");
    }
    let store: Store = "tcp://[::1]:80/".parse().unwrap();
    assert_eq!(store.to_string(), "tcp://[::1]:80/");
    assert_eq!(format!("{store:?}"), "Store(\"tcp://[::1]:80/\")");
    assert_eq!(store.clone(), store);
    assert_ne!("tcp://[::1]:81/".parse(), Ok(store));
}

#[test]
fn a_listener_serves_tcp_and_a_closed_port_does_not() {
    let fake = Fake::silent();
    fake.check("tcp://HOST").expect("it accepts");

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let store: Store = format!("tcp://{address}").parse().unwrap();
    let error = store
        .check(Instant::now() + PATIENCE)
        .unwrap_err()
        .to_string();
    let start = format!("cannot connect to {address}: ");
    assert!(
        error.starts_with(&start) && error.contains("refused"),
        "{error}"
    );
}

#[test]
fn a_deadline_that_has_passed_is_an_error() {
    let fake = Fake::silent();
    let past = Instant::now()
        .checked_sub(Duration::from_secs(1))
        .expect("the machine is up that long");
    let error = fake.store("tcp://HOST").check(past).unwrap_err();
    assert_eq!(error.to_string(), "no answer in time");
}

/// What no part but the password holds.
const MARK: &str = "Zq9";

proptest! {
    #[test]
    fn no_url_makes_it_panic(
        scheme in prop_oneof![
            Just("tcp"), Just("http"), Just("https"), Just("redis"), Just("memcached"), Just("postgres"),
            Just("postgresql"), Just("mysql"), Just("sqlite"), Just("file"), Just("x"), Just(""),
        ],
        slashes in "(:|:/|://|)",
        rest in prop_oneof!["\\PC{0,40}", "[a-z0-9:/@?#%\\[\\].=&-]{0,40}"],
    ) {
        if let Ok(store) = format!("{scheme}{slashes}{rest}").parse::<Store>() {
            prop_assert!(!store.to_string().contains(char::is_control));
        }
    }

    #[test]
    fn no_store_shows_its_password(
        scheme in prop_oneof![Just("redis"), Just("postgres"), Just("postgresql"), Just("mysql")],
        user in "[a-z]{1,8}",
        password in "(Zq9(%2[0-9a-f]|[a-z:]){0,3}){1,4}",
        host in "([a-z]{1,8}|\\[::1\\]|127\\.0\\.0\\.1)(:[1-9][0-9]{0,5})?",
        path in "(/[0-9]{0,3})?",
    ) {
        let url = format!("{scheme}://{user}:{password}@{host}{path}");
        let shown = match url.parse::<Store>() {
            Ok(store) => {
                prop_assert_eq!(store.to_string(), url.replace(&format!(":{password}@"), ":***@"));
                format!("{store:?}")
            }
            Err(error) => format!("{error} {error:?}"),
        };
        prop_assert!(!shown.contains(MARK), "{}", shown);
    }
}
