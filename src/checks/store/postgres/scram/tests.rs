use std::cell::Cell;

use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use proptest::prelude::*;

use super::*;

// The exchange of RFC 7677, section 3.
const PASSWORD: &[u8] = b"pencil";
const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
const FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn begun() -> Begun {
    Begun::new("user", NONCE.to_owned())
}

fn proved() -> Proved {
    let proved = begun().prove(PASSWORD, FIRST.as_bytes(), || true);
    proved.unwrap_or_else(|error| panic!("{error}"))
}

/// Why the server's first message is refused.
fn refused(first: &str) -> String {
    let proved = begun().prove(PASSWORD, first.as_bytes(), || true);
    proved.map(drop).expect_err("it is refused")
}

#[test]
fn the_rfcs_exchange_succeeds() {
    assert_eq!(begun().message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
    let message = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                   p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
    assert_eq!(str::from_utf8(proved().message()), Ok(message));
    assert_eq!(proved().verify(LAST.as_bytes()), Ok(()));
    let extended = format!("{LAST},x=1");
    assert_eq!(proved().verify(extended.as_bytes()), Ok(()));
}

#[test]
fn a_server_that_signs_anything_else_is_refused() {
    let other = "expected the signature of one who knows the password, found another";
    for (last, error) in [
        // The last bit, the client's proof, and lengths that are not right.
        ("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8=", other),
        ("v=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", other),
        ("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95A==", other),
        ("v=", other),
        (
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4",
            "expected a signature, found none",
        ),
        (
            "x=1,v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            "expected a signature, found none",
        ),
        ("", "expected a signature, found none"),
        ("e=invalid-proof", "invalid-proof"),
        ("v=\u{e9}", "expected a message of SCRAM, found none"),
    ] {
        assert_eq!(
            proved().verify(last.as_bytes()),
            Err(error.to_owned()),
            "{last}"
        );
    }
    let long = format!("{LAST},x={}", "x".repeat(MOST_MESSAGE));
    assert_eq!(
        proved().verify(long.as_bytes()),
        Err("expected at most 1024 bytes, found more".to_owned())
    );
}

#[test]
fn a_first_message_that_is_not_one_is_refused() {
    for first in [
        "",
        ",,",
        "r=rOprNGfwEbeRWgbNEkqO,s=W22Z",
        "r=rOprNGfwEbeRWgbNEkqO,i=4096,s=W22Z",
        "m=must,r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096",
        "r=rOprNGfwEbeRWgbNEkqO,s=W2,i=4096",
        "r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=",
        "r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=-1",
        "r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4294967296",
    ] {
        assert_eq!(
            refused(first),
            "expected a challenge, found none",
            "{first}"
        );
    }
    for first in [
        "r=rOprNGfwEbeRWgbNEkqO\0,s=W22Z,i=1",
        "r=rOprNGfwEbeRWgbNEkqO ,s=W22Z,i=1",
    ] {
        assert_eq!(refused(first), "expected a message of SCRAM, found none");
    }
    for nonce in ["", "rOprNGfwEbeRWgbNEkq", "xrOprNGfwEbeRWgbNEkqO"] {
        let first = format!("r={nonce},s=W22Z,i=4096");
        assert_eq!(
            refused(&first),
            "expected the client's nonce, found another"
        );
    }
    let long = format!("{FIRST},x={}", "x".repeat(MOST_MESSAGE));
    assert_eq!(refused(&long), "expected at most 1024 bytes, found more");
}

#[test]
fn a_server_cannot_make_the_client_compute_for_long() {
    for rounds in [0, MOST_ROUNDS + 1, u32::MAX] {
        assert_eq!(
            refused(&format!("r={NONCE},s=W22Z,i={rounds}")),
            format!("expected 1 to 100000 iterations, found {rounds}")
        );
    }
    let first = format!("r={NONCE},s=W22Z,i={MOST_ROUNDS}");
    let looks = Cell::new(0);
    let in_time = || {
        looks.set(looks.get() + 1);
        looks.get() < 3
    };
    let proved = begun().prove(PASSWORD, first.as_bytes(), in_time);
    assert_eq!(proved.map(drop), Err("no time left".to_owned()));
    assert_eq!(looks.get(), 3);
}

proptest! {
    #[test]
    fn it_proves_what_another_client_proves(
        password in "[ -~]{0,80}",
        more in "[!-+--~]{0,40}",
        salt in proptest::collection::vec(any::<u8>(), 0..64),
        rounds in 1_u32..50,
    ) {
        let mut other = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let message = str::from_utf8(other.message()).expect("text").to_owned();
        let nonce = message.strip_prefix("n,,n=,r=").expect("a nonce");
        let begun = Begun::new("", nonce.to_owned());
        prop_assert_eq!(begun.message(), message.as_str());

        let first = format!("r={nonce}{more},s={},i={rounds}", STANDARD.encode(salt));
        other.update(first.as_bytes()).expect("it is well made");
        let proved = begun.prove(password.as_bytes(), first.as_bytes(), || true);
        let proved = proved.map_err(TestCaseError::fail)?;
        prop_assert_eq!(proved.message(), other.message());

        let signature = proved.signature.clone().finalize().into_bytes();
        let last = format!("v={}", STANDARD.encode(signature));
        prop_assert!(other.finish(last.as_bytes()).is_ok());
        prop_assert_eq!(proved.verify(last.as_bytes()), Ok(()));
    }

    #[test]
    fn no_message_makes_it_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        first in "(r=|m=)?rOprNGfwEbeRWgbNEkqO[!-~]{0,4},?s=[A-Za-z0-9+/]{0,12}=?=?,?i=-?[0-9]{0,3}(,\\PC{0,9})?",
        last in "[ev]?=?[A-Za-z0-9+/]{0,44}=?,?\\PC{0,9}",
    ) {
        for message in [&bytes[..], first.as_bytes(), last.as_bytes()] {
            let shown = begun().prove(PASSWORD, message, || true);
            prop_assert!(shown.is_err() || message == first.as_bytes());
        }
        let quick = format!("r={NONCE},s=W22Z,i=1");
        for message in [&bytes[..], first.as_bytes(), last.as_bytes()] {
            let proved = begun().prove(PASSWORD, quick.as_bytes(), || true);
            let proved = proved.map_err(TestCaseError::fail)?;
            prop_assert!(proved.verify(message).is_err());
        }
    }
}
