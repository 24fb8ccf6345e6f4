use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use proptest::prelude::*;

use super::super::fake::{Fake, wait_for_the_end};
use super::super::{Store, UrlPart};
use super::login::NONCE;
use super::*;

const URL: &str = "mysql://user:hunter2@HOST/db";
const CLEARTEXT_URL: &str = "mysql://user:hunter2@HOST/db?cleartext";

/// A nonce of the tests.
const BYTES: [u8; NONCE] = *b"abcdefghijklmnopqrst";

fn greeting(plugin: &str) -> Vec<u8> {
    let mut packet = b"\x0a8.0.36\0\x01\0\0\0".to_vec();
    packet.extend(&BYTES[..8]);
    packet.extend(b"\0\xff\xff\x2d\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0");
    packet.extend(&BYTES[8..]);
    packet.push(0);
    packet.extend(plugin.bytes());
    packet.push(0);
    packet
}

fn switch(plugin: &str, nonce: &[u8]) -> Vec<u8> {
    [&[SWITCH][..], plugin.as_bytes(), b"\0", nonce, b"\0"].concat()
}

fn error(code: u16, text: &str) -> Vec<u8> {
    [&[ERROR][..], &code.to_le_bytes(), text.as_bytes()].concat()
}

const GOOD: &[u8] = b"\0\0\0\x02\0\0\0";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read_packet(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut header = [0; 4];
    stream.read_exact(&mut header).expect("a header");
    let mut payload = vec![0; packet::length(&header).expect("a length")];
    stream.read_exact(&mut payload).expect("a payload");
    (header[3], payload)
}

/// A server that sends the first of these packets, and each other one after it has read one.
fn playing(packets: Vec<Vec<u8>>) -> Fake {
    Fake::start(move |stream| {
        let mut sequence = 0;
        for (index, payload) in packets.iter().enumerate() {
            if index > 0 {
                sequence = read_packet(stream).0.wrapping_add(1);
            }
            let packet = packet::packet(sequence, payload);
            stream.write_all(&packet).expect("a packet is taken");
        }
        wait_for_the_end(stream);
    })
}

#[test]
fn parts_that_make_no_sense_are_refused() {
    for (url, part) in [
        ("mysql://h/db", UrlPart::User),
        ("mysql://u:p@h/a/b", UrlPart::Path),
        ("mysql://u@h/db?password=hunter2", UrlPart::Option),
    ] {
        let error = url.parse::<Store>().expect_err(url);
        assert_eq!(error.part, part, "{url}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error}");
    }
    let store: Store = "mysql://u:hunter2@h".parse().unwrap();
    assert_eq!(format!("{store:?}"), "Store(\"mysql://u:***@h\")");
}

/// Computed with Python's `hashlib` from the formulas in the plugins' documentation.
#[test]
fn a_proof_is_what_the_documentation_says() {
    for (plugin, password, proof) in [
        (
            Plugin::Native,
            "hunter2",
            "fb30830c3ec1c2161c75ef8c45977d684a38d8d4",
        ),
        (
            Plugin::CachingSha2,
            "hunter2",
            "38c32b38723affcda57b368b565bac628d5a852428b402c25c4ae036a4fd904f",
        ),
        (Plugin::Native, "", ""),
        (Plugin::CachingSha2, "", ""),
    ] {
        assert_eq!(hex(&plugin.scramble(password, &BYTES)), proof, "{plugin:?}");
    }
}

#[test]
fn the_first_packets_of_a_login_and_a_ping_are_to_the_letter() {
    let fake = Fake::start(|stream| {
        stream
            .write_all(&packet::packet(0, &greeting("caching_sha2_password")))
            .expect("a greeting");
        let (sequence, response) = read_packet(stream);
        let mut expected = b"\x09\xa2\x08\0\0\0\0\x01\x2d".to_vec();
        expected.extend([0; 23]);
        expected.extend(b"user\0\x20");
        expected.extend(Plugin::CachingSha2.scramble("hunter2", &BYTES));
        expected.extend(b"db\0caching_sha2_password\0");
        assert_eq!((sequence, response), (1, expected));
        let answer = [packet::packet(2, b"\x01\x03"), packet::packet(3, GOOD)].concat();
        stream.write_all(&answer).expect("a login");
        assert_eq!(read_packet(stream), (0, COM_PING.to_vec()));
        stream
            .write_all(&packet::packet(1, GOOD))
            .expect("an answer");
        assert_eq!(read_packet(stream), (0, COM_QUIT.to_vec()));
        wait_for_the_end(stream);
    });
    fake.check(URL).expect("it serves");
}

#[test]
fn the_server_may_switch_to_the_users_plugin() {
    let other = *b"tsrqponmlkjihgfedcba";
    for (first, second, plugin) in [
        (
            "caching_sha2_password",
            "mysql_native_password",
            Plugin::Native,
        ),
        (
            "client_ed25519",
            "caching_sha2_password",
            Plugin::CachingSha2,
        ),
    ] {
        let fake = Fake::start(move |stream| {
            stream
                .write_all(&packet::packet(0, &greeting(first)))
                .expect("a greeting");
            read_packet(stream);
            stream
                .write_all(&packet::packet(2, &switch(second, &other)))
                .expect("a switch");
            assert_eq!(read_packet(stream), (3, plugin.scramble("hunter2", &other)));
            stream.write_all(&packet::packet(4, GOOD)).expect("a login");
            read_packet(stream);
            stream
                .write_all(&packet::packet(1, GOOD))
                .expect("an answer");
            wait_for_the_end(stream);
        });
        fake.check(URL).expect("it serves");
    }
}

/// Of 1024 bits, made by `openssl genrsa`.
const KEY: &str = "\
-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCuWj4gVCxrAhah9FjjJ7QIkxgn
eZ2sWpen2WhXXf/NN5gJi0sijIP+imQfqkYc702VynCIcWpAfHchZNYKE863dbGL
I7S5O9Sz6LOwyrRz8r0MthhGjUA4Bx+16T+JuBsYyxrJDmVXy9s6IP5LZm85oKmj
xpIwAJMR2RDMrtHLLQIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn a_server_that_has_forgotten_the_password_gets_it_encrypted() {
    let fake = Fake::start(|stream| {
        stream
            .write_all(&packet::packet(0, &greeting("caching_sha2_password")))
            .expect("a greeting");
        read_packet(stream);
        stream
            .write_all(&packet::packet(2, b"\x01\x04"))
            .expect("a demand");
        assert_eq!(read_packet(stream), (3, KEY_WANTED.to_vec()));
        let key = [&[MORE][..], KEY.as_bytes()].concat();
        stream.write_all(&packet::packet(4, &key)).expect("a key");
        let (sequence, sealed) = read_packet(stream);
        assert_eq!((sequence, sealed.len()), (5, 128));
        stream.write_all(&packet::packet(6, GOOD)).expect("a login");
        assert_eq!(read_packet(stream), (0, COM_PING.to_vec()));
        stream
            .write_all(&packet::packet(1, GOOD))
            .expect("an answer");
        wait_for_the_end(stream);
    });
    fake.check(CLEARTEXT_URL).expect("it serves");
    // What is encrypted, by the documentation: the password and its NUL, each byte mixed with one of the nonce.
    assert_eq!(
        login::hide("hunter2", &BYTES),
        b"\x09\x17\x0d\x10\x00\x14\x55\x68"
    );
    let long = login::hide(&"x".repeat(40), &BYTES);
    assert_eq!((long.len(), long[20], long[40]), (41, b'x' ^ b'a', b'a'));
}

#[test]
fn a_server_gets_the_password_by_its_own_key_only_where_the_url_says_so() {
    let (fake, sent) = Fake::hearing_after(|stream| {
        let first = packet::packet(0, &greeting("caching_sha2_password"));
        stream.write_all(&first).expect("a greeting");
        read_packet(stream);
        let demand = packet::packet(2, b"\x01\x04");
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
fn a_key_that_is_none_or_too_small_is_told() {
    let forgotten = |key: &[u8]| {
        let key = [&[MORE][..], key].concat();
        playing(vec![
            greeting("caching_sha2_password"),
            b"\x01\x04".to_vec(),
            key,
        ])
    };
    for key in [&b""[..], b"-----BEGIN PUBLIC KEY-----", &[0xff; 5000]] {
        let error = forgotten(key).failure(CLEARTEXT_URL);
        assert_eq!(error, "expected a public key of RSA, found another packet");
    }
    let url = format!("mysql://user:{}@HOST?cleartext", "hunter2".repeat(20));
    let error = forgotten(KEY.as_bytes()).failure(&url);
    assert_eq!(
        error,
        "login: expected a password that fits the server's key, found a longer one"
    );
}

#[test]
fn what_the_server_wants_beyond_that_is_told() {
    let native = || greeting("mysql_native_password");
    for (packets, expected) in [
        (
            vec![native(), switch("mysql_clear_password", b"")],
            "login: the plugin mysql_clear_password is not supported",
        ),
        (
            vec![native(), switch("\x1b", b"")],
            "login: the plugin ? is not supported",
        ),
        (
            vec![native(), vec![SWITCH]],
            "login: the plugin of before version 4.1 is not supported",
        ),
        (
            vec![native(), switch("mysql_native_password", b"short")],
            "expected a switch with a nonce, found another packet",
        ),
        (
            vec![native(), vec![MORE, 3]],
            "expected a step of the login, found another packet",
        ),
        (
            vec![native(), Vec::new()],
            "expected a step of the login, found another packet",
        ),
        (
            vec![b"\x09".to_vec()],
            "expected a greeting of protocol 10 with protocol 4.1, found another packet",
        ),
        (
            vec![native(), GOOD.to_vec(), b"\x05".to_vec()],
            "expected an answer to COM_PING, found another packet",
        ),
    ] {
        assert_eq!(playing(packets).failure(URL), expected);
    }
    let switches = vec![switch("mysql_native_password", &BYTES); MOST_PACKETS];
    let packets = [vec![native()], switches].concat();
    assert_eq!(
        playing(packets).failure(URL),
        "expected an end of the login, found another packet"
    );
}

#[test]
fn a_servers_error_is_told_in_its_words_and_cleaned() {
    let native = || greeting("mysql_native_password");
    for (packets, expected) in [
        (
            vec![error(1040, "Too many connections")],
            "1040: Too many connections",
        ),
        (
            vec![error(1129, "Host 'x' is blocked")],
            "1129: Host 'x' is blocked",
        ),
        (
            vec![
                native(),
                error(
                    1045,
                    "#28000Access denied for user 'user'@'h' (using password: YES)",
                ),
            ],
            "1045 28000: Access denied for user 'user'@'h' (using password: YES)",
        ),
        (
            vec![
                native(),
                GOOD.to_vec(),
                error(1053, "#08S01Server shutdown\n"),
            ],
            "1053 08S01: Server shutdown",
        ),
        (
            vec![error(1, "#\x07\x07\x07\x07\x07\x1b[1m")],
            "1 ?????: ?[1m",
        ),
        (vec![error(1, "#2800")], "1: #2800"),
        (
            vec![error(1, "it is hunter2")],
            "1: (not shown: it holds the password)",
        ),
        (
            vec![vec![ERROR]],
            "expected an error with a number, found another packet",
        ),
    ] {
        assert_eq!(playing(packets).failure(URL), expected);
    }
}

#[test]
fn a_greeting_that_is_cut_anywhere_is_none() {
    let whole = greeting("");
    let greeting = Greeting::parse(&whole).expect("it is whole");
    assert_eq!(
        (greeting.nonce, greeting.plugin.as_slice()),
        (BYTES, &b""[..])
    );
    // Without the plugin's name it is another one, without its NUL the same.
    for end in 0..whole.len() - 2 {
        assert_eq!(Greeting::parse(&whole[..end]), None, "{end}");
    }
}

#[test]
fn a_hostile_server_neither_stretches_the_deadline_nor_fills_memory() {
    Fake::silent().expect_timeout(URL);
    Fake::dripping(b"\xff\x7f\0\0").expect_timeout(URL);
    assert_eq!(
        Fake::closing().failure(URL),
        "the connection was closed before the answer"
    );
    for (start, found) in [
        (
            &b"HTTP/1.1 408 Request Timeout\r\n\r\n"[..],
            "HTTP/1.1 408 Request Timeout",
        ),
        (
            b"-ERR max number of clients reached\r\n",
            "-ERR max number of clients reached",
        ),
        // Longer than the bound by one, as long as there can be, and with a number out of order.
        (b"\x01\0\x01\0", "????"),
        (b"\xff\xff\xff\0", "????"),
        (b"\x01\0\0\x01", "????"),
    ] {
        let error = Fake::saying(start).failure(URL);
        assert_eq!(
            error,
            format!("expected a packet of MySQL, found {found:?}")
        );
    }
    let error = Fake::flooding(b"").failure(URL);
    assert!(
        error.starts_with("expected a packet of MySQL, found \"xxxx"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Greeting::parse(&[b"\x0a", bytes.as_slice()].concat());
        let _ = login::nonce(&bytes);
        let _ = PublicKey::from_pem(&bytes);
    }
}
