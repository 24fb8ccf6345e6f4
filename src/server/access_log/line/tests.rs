use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::http::head::{Scan, parse};
use crate::lines::{LONGEST_LINE, Lines, Sink};
use crate::server::access_log::AccessLog;
use crate::server::request_head::RequestHead;

struct Nowhere;

impl Sink for Nowhere {
    fn write(&mut self, lines: &[u8]) -> usize {
        lines.len()
    }
}

fn record(head: Option<&[u8]>) -> Record {
    let head = head.map(|bytes| {
        let parsed = parse(bytes, usize::MAX, &mut Scan::default());
        let (_, head) = parsed.expect("a fit head").expect("a whole head");
        Arc::new(RequestHead::new(head))
    });
    Record {
        log: Arc::new(AccessLog {
            lines: Lines::start("a test", Nowhere).unwrap(),
            format: AccessLogFormat::Combined,
            health: false,
        }),
        head,
        client: [192, 0, 2, 7].into(),
        peer: ([127, 0, 0, 1], 4711).into(),
        received: Instant::now(),
        sent_before: 0,
        status: 200,
        head_length: 100,
        wait: Some(Duration::from_micros(21)),
        reason: None,
    }
}

fn line(format: AccessLogFormat, record: &Record) -> String {
    let facts = Facts {
        // date -u -d @1767225599.5
        time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_599_500),
        duration: Duration::from_micros(1_000_412),
        bytes: 12,
    };
    String::from_utf8(write(format, record, &facts)).expect("text")
}

fn json(record: &Record) -> serde_json::Value {
    let line = line(AccessLogFormat::Json, record);
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

const HEAD: &[u8] = b"GET /a?b=1&c HTTP/1.0\r\nHost: example\r\nReferer: http://example/\r\n\
    User-Agent: curl/8.5\r\nX-Request-Id: abc\r\n\r\n";

#[test]
fn each_format_has_its_fields_in_their_places() {
    let record = record(Some(HEAD));
    let common =
        "192.0.2.7 - - [31/Dec/2025:23:59:59 +0000] \"GET /a?b=1&c HTTP/1.0\" 200 12".to_owned();
    assert_eq!(line(AccessLogFormat::Common, &record), common);
    assert_eq!(
        line(AccessLogFormat::Combined, &record),
        common + " \"http://example/\" \"curl/8.5\" 1.000412 0.000021 abc -"
    );
    assert_eq!(
        line(AccessLogFormat::Json, &record),
        concat!(
            r#"{"time":"2025-12-31T23:59:59.500Z","client":"192.0.2.7","peer":"127.0.0.1:4711","#,
            r#""method":"GET","target":"/a?b=1&c","protocol":"HTTP/1.0","host":"example","#,
            r#""status":200,"bytes":12,"duration":1.000412,"wait":0.000021,"id":"abc","#,
            r#""reason":null,"referer":"http://example/","user_agent":"curl/8.5"}"#,
        )
    );
}

#[test]
fn what_a_cache_did_stands_behind_the_endpoint_asked_or_not() {
    let hit = record(Some(HEAD));
    let head = hit.head.as_ref().expect("a head");
    head.note_cache("hit");
    head.note_cache("miss");
    let combined = line(AccessLogFormat::Combined, &hit);
    assert!(combined.ends_with(" abc - - - - hit"), "{combined}");
    assert_eq!(json(&hit)["cache"], "hit");
    let miss = record(Some(HEAD));
    let head = miss.head.as_ref().expect("a head");
    head.note_cache("miss");
    head.note_endpoint(AskedEndpoint {
        name: "10.0.0.1:80".into(),
        tries: 2,
        time: Duration::from_millis(3),
    });
    let combined = line(AccessLogFormat::Combined, &miss);
    let expected = " abc - 10.0.0.1:80 2 0.003000 miss";
    assert!(combined.ends_with(expected), "{combined}");
}

#[test]
fn a_request_that_could_not_be_read_has_a_line_too() {
    let record = Record {
        status: 400,
        wait: None,
        reason: Some("malformed"),
        ..record(None)
    };
    let combined = line(AccessLogFormat::Combined, &record);
    let (start, id) = combined.split_at(combined.len() - " malformed".len() - 32);
    let expected =
        "192.0.2.7 - - [31/Dec/2025:23:59:59 +0000] \"-\" 400 12 \"-\" \"-\" 1.000412 - ";
    assert_eq!(start, expected);
    assert!(id.ends_with(" malformed"), "{id}");
    let json = json(&record);
    assert_eq!(json["reason"], "malformed");
    for absent in ["method", "target", "protocol", "host", "wait", "user_agent"] {
        assert!(json[absent].is_null(), "{absent}: {json}");
    }
}

#[test]
fn quotes_backslashes_and_odd_bytes_do_not_end_a_field() {
    let head = b"GET /\"\\ HTTP/1.1\r\nHost: a\r\nReferer: \" 200 0 \"\r\n\
        User-Agent: a\tb\\n \xe9 \xc3\xa9\r\nX-Request-Id: \"x\"\r\n\r\n";
    let record = record(Some(head));
    let combined = line(AccessLogFormat::Combined, &record);
    let (_, rest) = combined.split_once("\"GET").expect("a request line");
    assert_eq!(
        rest,
        " /\\x22\\x5C HTTP/1.1\" 200 12 \"\\x22 200 0 \\x22\" \
         \"a\\x09b\\x5Cn \\xE9 \\xC3\\xA9\" 1.000412 0.000021 \\x22x\\x22 -"
    );
    let json = json(&record);
    assert_eq!(json["target"], "/\"\\");
    assert_eq!(json["referer"], "\" 200 0 \"");
    // It is not UTF-8, and so each byte is a character.
    assert_eq!(json["user_agent"], "a\tb\\n \u{e9} \u{c3}\u{a9}");
    assert_eq!(json["id"], "\"x\"");
}

#[test]
fn a_long_value_is_cut_and_the_line_stays_whole() {
    let (long, quotes) = ("x".repeat(9_000), "\"".repeat(9_000));
    for value in [&long, &quotes] {
        let id = &value[..128];
        let method = "M".repeat(500);
        let head = format!(
            "{method} /{value} HTTP/1.1\r\nHost: {}\r\nReferer: {value}\r\nUser-Agent: {value}\r\n\
             X-Request-Id: {id}\r\n\r\n",
            "h".repeat(2_000),
        );
        let record = record(Some(head.as_bytes()));
        for format in [
            AccessLogFormat::Common,
            AccessLogFormat::Combined,
            AccessLogFormat::Json,
        ] {
            let line = line(format, &record);
            assert!(line.len() < LONGEST_LINE, "{}", line.len());
            assert!(line.contains(CUT));
        }
        let json = json(&record);
        assert_eq!(json["id"], *id);
        let agent = json["user_agent"].as_str().expect("a string");
        let kept = agent.strip_suffix(CUT).expect("it is cut");
        assert!(value.starts_with(kept) && kept.len() >= VALUE / 2);
    }
}

proptest::proptest! {
    #[test]
    fn whatever_is_sent_a_line_is_one_line_and_reads_back(
        target in "[!-~]{0,80}",
        value in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80),
    ) {
        let value: Vec<u8> = value.into_iter().filter(|byte| !byte.is_ascii_control()).collect();
        let target = format!("/{}", target.replace('#', ""));
        let mut head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n").into_bytes();
        for name in ["User-Agent", "Referer", "X-Request-Id"] {
            crate::http::fields::push(&mut head, name, &value);
        }
        head.extend_from_slice(b"\r\n");
        let record = record(Some(&head));
        for format in [AccessLogFormat::Common, AccessLogFormat::Combined] {
            let line = line(format, &record);
            proptest::prop_assert!(line.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            let quotes = if format == AccessLogFormat::Common { 2 } else { 6 };
            proptest::prop_assert_eq!(line.matches('"').count(), quotes);
        }
        let text = value.trim_ascii();
        let text = match str::from_utf8(text) {
            Ok(text) => text.to_owned(),
            Err(_) => text.iter().copied().map(char::from).collect(),
        };
        let json = json(&record);
        proptest::prop_assert_eq!(&json["user_agent"], &text);
        proptest::prop_assert_eq!(&json["target"], &target);
    }
}
