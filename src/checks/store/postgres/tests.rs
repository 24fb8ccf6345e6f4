use std::io::{Read, Write};
use std::net::TcpStream;

use super::super::fake::{Fake, wait_for_the_end};
use super::super::{Store, UrlPart};

const URL: &str = "postgres://user:hunter2@HOST/db";
const CLEARTEXT_URL: &str = "postgres://user:hunter2@HOST/db?cleartext";

/// A message of the server: its tag, its length and this.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn authentication(code: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&code.to_be_bytes(), body].concat())
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// Reads a message of the client; one with a tag if it is not the first.
fn read_message(stream: &mut TcpStream, tagged: bool) -> (u8, Vec<u8>) {
    let mut tag = [0];
    if tagged {
        stream.read_exact(&mut tag).expect("a tag");
    }
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("a length");
    let length = u32::from_be_bytes(length) as usize - 4;
    assert!(length < 10_000, "a short message");
    let mut body = vec![0; length];
    stream.read_exact(&mut body).expect("a body");
    (tag[0], body)
}

/// A server that answers the start-up with these bytes, and then says no more.
fn answering(answer: Vec<u8>) -> Fake {
    Fake::start(move |stream| {
        read_message(stream, false);
        // The other side may have had enough already.
        let _ = stream.write_all(&answer);
        wait_for_the_end(stream);
    })
}

fn error(severity: &str, code: &str, text: &[u8]) -> Vec<u8> {
    let start = format!("S{severity}\0V{severity}\0C{code}\0M");
    message(b'E', &[start.as_bytes(), text, b"\0\0"].concat())
}

#[test]
fn parts_that_make_no_sense_are_refused() {
    for (url, part) in [
        ("postgres://h/db", UrlPart::User),
        ("postgres://:hunter2@h/db", UrlPart::User),
        ("postgres://u@h/a/hunter2", UrlPart::Path),
        ("postgres://u@h/%00", UrlPart::Path),
        ("postgres://u@h/db?password=hunter2", UrlPart::Option),
        (
            "postgres://u@h/db?cleartext&password=hunter2",
            UrlPart::Option,
        ),
        ("postgres://u@h/db?", UrlPart::Option),
        ("postgresql://u@h:0/db", UrlPart::Port),
    ] {
        let error = url.parse::<Store>().expect_err(url);
        assert_eq!(error.part, part, "{url}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
    let store: Store = "postgresql://u:hunter2@h/db".parse().unwrap();
    assert_eq!(store.to_string(), "postgresql://u:***@h/db");
}

#[test]
fn without_a_password_a_demand_for_one_shows_that_the_server_is_up() {
    for code in [2, 3, 7, 9] {
        let fake = answering(authentication(code, b""));
        fake.check("postgres://user@HOST/db").expect("it is up");
    }
    let fake = answering(authentication(10, b"SCRAM-SHA-256\0\0"));
    fake.check("postgres://user@HOST").expect("it is up");
    let error = answering(ready()).failure("postgres://user@HOST/db");
    assert_eq!(
        error,
        "expected a demand for authentication, found another message"
    );
}

#[test]
fn the_start_up_names_the_user_and_the_database() {
    let fake = Fake::start(|stream| {
        let (_, body) = read_message(stream, false);
        let expected = b"\0\x03\0\0user\0us er\0application_name\0plimsoll\0client_encoding\0UTF8\0database\0d/b\0\0";
        let good = if body == expected { 0 } else { 99 };
        let row = message(b'D', b"\0\x01\0\0\0\x011");
        let answer = [authentication(good, b""), message(b'S', b"a\0b\0"), ready()].concat();
        stream.write_all(&answer).expect("an answer");
        assert_eq!(read_message(stream, true), (b'Q', b"SELECT 1\0".to_vec()));
        let answer = [
            message(b'N', b"\0"),
            row,
            message(b'C', b"SELECT 1\0"),
            ready(),
        ]
        .concat();
        stream.write_all(&answer).expect("an answer");
        assert_eq!(read_message(stream, true), (b'X', Vec::new()));
        wait_for_the_end(stream);
    });
    fake.check("postgres://us%20er@HOST/d%2Fb")
        .expect("it serves");
}

#[test]
fn passwords_are_sent_as_the_server_asks_for_them() {
    for (demand, password) in [
        (authentication(3, b""), "hunter2"),
        // Of the crate's own test, which is PostgreSQL's.
        (
            authentication(5, &[0x2a, 0x3d, 0x8f, 0xe0]),
            "md562af4dd09bbb41884907a838a3233294",
        ),
    ] {
        let fake = Fake::start(move |stream| {
            read_message(stream, false);
            stream.write_all(&demand).expect("a demand");
            let (tag, body) = read_message(stream, true);
            assert_eq!(tag, b'p');
            assert_eq!(body, [password.as_bytes(), b"\0"].concat());
            let answer = error("FATAL", "28P01", b"no");
            stream.write_all(&answer).expect("an answer");
            wait_for_the_end(stream);
        });
        let url = if password == "hunter2" {
            CLEARTEXT_URL
        } else {
            "postgres://md5_user:password@HOST/db"
        };
        assert_eq!(fake.failure(url), "FATAL 28P01: no");
    }
}

#[test]
fn a_password_is_not_given_to_a_server_that_asks_for_it_in_clear() {
    let (fake, sent) = Fake::hearing_after(|stream| {
        read_message(stream, false);
        let demand = authentication(3, b"");
        stream.write_all(&demand).expect("a demand");
    });
    let error = fake.failure(URL);
    assert!(error.ends_with("the URL's option cleartext"), "{error}");
    assert_eq!(
        sent.recv(),
        Ok(Vec::new()),
        "nothing is sent after it asked"
    );
}

#[test]
fn a_servers_error_is_told_in_its_words_and_cleaned() {
    for (answer, expected) in [
        (
            error("FATAL", "57P03", b"the database system is starting up"),
            "FATAL 57P03: the database system is starting up",
        ),
        (
            error("FATAL", "53300", b"sorry, too many clients already\nFATAL"),
            "FATAL 53300: sorry, too many clients already",
        ),
        (error("F\x1b", "\x07", b"\x1b[1m\xff"), "F? ?: ?[1m?"),
        (
            error("FATAL", "28P01", b"it is hunter2"),
            "FATAL 28P01: (not shown: it holds the password)",
        ),
        (message(b'E', b"M"), " : "),
        (
            b"Ecould not fork new process for connection\n\0".to_vec(),
            "expected a message of PostgreSQL, found \"Ecould not fork new process for connection\"",
        ),
    ] {
        assert_eq!(answering(answer).failure(URL), expected);
    }
}

#[test]
fn an_error_after_the_login_counts() {
    let answer = [
        authentication(0, b""),
        error("FATAL", "3D000", b"no such database"),
    ]
    .concat();
    assert_eq!(
        answering(answer).failure(URL),
        "FATAL 3D000: no such database"
    );
}

#[test]
fn a_server_that_does_not_know_the_password_fails_scram() {
    let scram = |first: fn(&str) -> String, last: &'static str| {
        Fake::start(move |stream| {
            read_message(stream, false);
            stream
                .write_all(&authentication(
                    10,
                    b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
                ))
                .expect("a demand");
            let (_, body) = read_message(stream, true);
            let body = String::from_utf8(body).expect("text");
            let (_, nonce) = body.split_once("r=").expect("a nonce");
            let answer = authentication(11, first(nonce).as_bytes());
            stream.write_all(&answer).expect("an answer");
            let mut piece = [0; 1024];
            if matches!(stream.read(&mut piece), Ok(count) if count > 0) {
                let answer = authentication(12, last.as_bytes());
                stream.write_all(&answer).expect("an answer");
                wait_for_the_end(stream);
            }
        })
    };
    let good = |nonce: &str| format!("r={nonce}more,s=QSXCR+Q6sek8bf92,i=2");
    for (first, last, error) in [
        (
            good as fn(&str) -> String,
            "v=AAAA",
            "login: SCRAM-SHA-256: expected the signature of one who knows the password, found another",
        ),
        (
            good,
            "e=hunter2",
            "login: SCRAM-SHA-256: (not shown: it holds the password)",
        ),
        (good, "e=other-error", "login: SCRAM-SHA-256: other-error"),
        (
            |_| "r=another,s=QSXCR+Q6sek8bf92,i=2".to_owned(),
            "",
            "login: SCRAM-SHA-256: expected the client's nonce, found another",
        ),
        (
            |nonce| format!("r={nonce}x,s=QSXCR+Q6sek8bf92,i=4000000000"),
            "",
            "login: SCRAM-SHA-256: expected 1 to 100000 iterations, found 4000000000",
        ),
    ] {
        assert_eq!(scram(first, last).failure(URL), error);
    }
}

#[test]
fn logins_that_are_not_known_are_told() {
    assert_eq!(
        answering(authentication(7, b"")).failure(URL),
        "login: expected a demand for a password, MD5 or SCRAM-SHA-256, found another"
    );
    assert_eq!(
        answering(authentication(10, b"OAUTHBEARER\0\0")).failure(URL),
        "login: SCRAM-SHA-256 is not offered"
    );
}

#[test]
fn a_hostile_server_neither_stretches_the_deadline_nor_fills_memory() {
    Fake::silent().expect_timeout(URL);
    Fake::dripping(b"S\0\0\xff\0").expect_timeout(URL);
    assert_eq!(
        Fake::closing().failure(URL),
        "the connection was closed before the answer"
    );
    assert_eq!(
        Fake::http().failure(URL),
        "expected a message of PostgreSQL, found \"HTTP/1.1 400 Bad Request\""
    );
    for length in [0, 3, 0x0001_0005, 0x7fff_ffff, 0xffff_ffff_u32] {
        let answer = [&b"R"[..], &length.to_be_bytes()].concat();
        let error = answering(answer).failure(URL);
        assert!(
            error.starts_with("expected a message of PostgreSQL, found \"R"),
            "{error}"
        );
    }
    let notices = Fake::start(|stream| {
        let mut sent = Ok(());
        while sent.is_ok() {
            sent = stream.write_all(&message(b'N', b"Sx\0\0"));
        }
    });
    assert_eq!(
        notices.failure(URL),
        "expected at most 500 messages, found more"
    );
    for answer in [
        message(b'R', b""),
        message(b'R', b"\0\0\0\x05\0"),
        message(b'R', b"\0\0\0\x0aSCRAM"),
        message(b'S', b"a"),
        message(b'!', b""),
    ] {
        assert!(
            answering(answer.clone())
                .failure(URL)
                .starts_with("login: "),
            "{answer:?}"
        );
    }
}
