use proptest::prelude::*;

use super::super::body::BodyDecoder;
use super::ResponseError as E;
use super::*;

const GET: Asked = Asked {
    head: false,
    upgrade: false,
};
const HEAD: Asked = Asked {
    head: true,
    upgrade: false,
};
const UPGRADE: Asked = Asked {
    head: false,
    upgrade: true,
};

/// Everything that a response says: the final head, the body, the trailers, and whether it is whole at the input's end.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    head: ResponseHead,
    interim: Vec<u16>,
    body: Vec<u8>,
    trailers: Vec<u8>,
    used: usize,
    complete: bool,
    whole_at_close: bool,
}

/// Reads a response whose bytes come in pieces of that size. None if its head is unfinished.
fn hear(asked: Asked, input: &[u8], piece: usize) -> Result<Option<Heard>, ResponseError> {
    let mut parser = ResponseParser::new(asked);
    let (mut start, mut end) = (0, 0);
    let mut interim = Vec::new();
    let head = loop {
        match parser.parse(&input[start..end])? {
            Some((used, head)) => {
                start += used;
                if !head.is_interim() {
                    break head;
                }
                interim.push(head.status);
            }
            None if end == input.len() => return Ok(None),
            None => end = (end + piece).min(input.len()),
        }
    };
    let mut decoder = BodyDecoder::new(head.framing, 1 << 20, 256)?.keeping_trailers();
    let mut body = Vec::new();
    loop {
        start += decoder.decode(&input[start..end], &mut body)?.0;
        if end == input.len() || decoder.is_complete() {
            break;
        }
        end = (end + piece).min(input.len());
    }
    Ok(Some(Heard {
        head,
        interim,
        trailers: decoder.trailers().to_vec(),
        body,
        used: start,
        complete: decoder.is_complete(),
        whole_at_close: decoder.is_whole_at_close(),
    }))
}

/// The same in any pieces.
#[track_caller]
fn heard(asked: Asked, input: &str) -> Heard {
    let whole = hear(asked, input.as_bytes(), input.len().max(1));
    for piece in [1, 2, 3, 7] {
        assert_eq!(hear(asked, input.as_bytes(), piece), whole, "{input:?}");
    }
    let heard = whole.unwrap_or_else(|error| panic!("{input:?}: {error}"));
    heard.unwrap_or_else(|| panic!("{input:?}: unfinished"))
}

/// A response with those lines behind its status line, then an empty one.
fn with(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n")
}

/// The same, chunked, with that body.
fn chunked(body: &str) -> String {
    with("Transfer-Encoding: chunked\r\n") + body
}

/// Responses that are refused, each with its section.
const HOSTILE: &[(&str, Asked, &str, E)] = &[
    // Status lines.
    ("9112 4", GET, "SSH-2.0-OpenSSH_9.2\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "+PONG\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "GET / HTTP/1.1\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "<html>no HTTP</html>\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "\r\nHTTP/1.1 200 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "\nHTTP/1.1 200 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, " HTTP/1.1 200 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "http/1.1 200 OK\r\n\r\n", E::StatusLine),
    ("9112 2.3", GET, "HTTP/2 200\r\n\r\n", E::StatusLine),
    ("9112 2.3", GET, "HTTP/2.0 200 OK\r\n\r\n", E::StatusLine),
    ("9112 2.3", GET, "HTTP/0.9 200 OK\r\n\r\n", E::StatusLine),
    ("9112 2.3", GET, "HTTP/1.10 200 OK\r\n\r\n", E::StatusLine),
    ("9112 2.3", GET, "HTTP/1.x 200 OK\r\n\r\n", E::StatusLine),
    ("9112 2.3", GET, "ICY 200 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1\t200 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1  200 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 20 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 2000 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 +20 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 -20 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 2x0 OK\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 200OK\r\n\r\n", E::StatusLine),
    ("9110 15", GET, "HTTP/1.1 099 Low\r\n\r\n", E::StatusLine),
    ("9110 15", GET, "HTTP/1.1 000 Zero\r\n\r\n", E::StatusLine),
    ("9112 4", GET, "HTTP/1.1 200 O\0K\r\n\r\n", E::StatusLine),
    (
        "9112 4",
        GET,
        "HTTP/1.1 200 O\x1b[31mK\r\n\r\n",
        E::StatusLine,
    ),
    (
        "9112 2.2",
        GET,
        "HTTP/1.1 200 OK\rX: y\r\n\r\n",
        E::StatusLine,
    ),
    // Fields.
    (
        "9112 5.1",
        GET,
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        E::FieldName,
    ),
    (
        "9112 5.1",
        GET,
        "HTTP/1.1 200 OK\r\nX\r\n\r\n",
        E::FieldName,
    ),
    (
        "9112 5.1",
        GET,
        "HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        E::FieldName,
    ),
    (
        "9110 5.1",
        GET,
        "HTTP/1.1 200 OK\r\nX(: y\r\n\r\n",
        E::FieldName,
    ),
    (
        "9110 5.1",
        GET,
        "HTTP/1.1 200 OK\r\nX\0: y\r\n\r\n",
        E::FieldName,
    ),
    (
        "9110 5.1",
        GET,
        "HTTP/1.1 200 OK\r\n\u{e9}: y\r\n\r\n",
        E::FieldName,
    ),
    (
        "9112 5.2",
        GET,
        "HTTP/1.1 200 OK\r\n X: y\r\n\r\n",
        E::FoldedField,
    ),
    (
        "9112 5.2",
        GET,
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        E::FoldedField,
    ),
    (
        "9112 5.2",
        GET,
        "HTTP/1.1 200 OK\r\nX: y\r\n\tz\r\n\r\n",
        E::FoldedField,
    ),
    (
        "9112 5.2",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        E::FoldedField,
    ),
    (
        "9110 5.5",
        GET,
        "HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n",
        E::FieldValue,
    ),
    (
        "9110 5.5",
        GET,
        "HTTP/1.1 200 OK\r\nX: a\x07b\r\n\r\n",
        E::FieldValue,
    ),
    (
        "9110 5.5",
        GET,
        "HTTP/1.1 200 OK\r\nX: a\x7fb\r\n\r\n",
        E::FieldValue,
    ),
    (
        "9112 2.2",
        GET,
        "HTTP/1.1 200 OK\r\nX: a\rb: c\r\n\r\n",
        E::FieldValue,
    ),
    (
        "9112 2.2",
        GET,
        "HTTP/1.1 200 OK\r\nX: a\r\r\n\r\n",
        E::FieldValue,
    ),
    (
        "9112 2.2",
        GET,
        "HTTP/1.1 200 OK\r\nX: a\r\n\rb\r\n\r\n",
        E::LineEnd,
    ),
    // Lengths.
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 1.0\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 0x10\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 1 2\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n",
        E::Length,
    ),
    (
        "9112 6.3",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        E::Length,
    ),
    (
        "9110 8.6",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        E::Length,
    ),
    (
        "9110 8.6",
        HEAD,
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        E::Length,
    ),
    (
        "9110 8.6",
        GET,
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 1;\r\n\r\n",
        E::Length,
    ),
    // Codings.
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        E::LengthAndCoding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        E::LengthAndCoding,
    ),
    (
        "9112 6.1",
        HEAD,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        E::LengthAndCoding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: ,\r\n\r\n",
        E::Coding,
    ),
    (
        "9112 7",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        E::UnknownCoding,
    ),
    (
        "9112 7",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        E::UnknownCoding,
    ),
    (
        "9112 7",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
        E::UnknownCoding,
    ),
    (
        "9112 7",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        E::UnknownCoding,
    ),
    (
        "9112 7",
        GET,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        E::FieldValue,
    ),
    // Interim replies.
    (
        "9110 15.2.2",
        GET,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        E::UnaskedUpgrade,
    ),
    (
        "9110 15.2.2",
        HEAD,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        E::UnaskedUpgrade,
    ),
    (
        "9110 8.6",
        GET,
        "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\nhello",
        E::InterimBody,
    ),
    (
        "9112 6.1",
        GET,
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        E::InterimBody,
    ),
    (
        "9110 8.6",
        UPGRADE,
        "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\nhello",
        E::InterimBody,
    ),
    (
        "9110 15.2",
        GET,
        "HTTP/1.1 100 Continue\r\n\r\nhello",
        E::StatusLine,
    ),
    (
        "9110 15.2",
        GET,
        "HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        E::StatusLine,
    ),
];

/// Those, broken chunks, and what is too much, each with its section.
fn hostile() -> Vec<(&'static str, Asked, String, ResponseError)> {
    let mut rows: Vec<_> = HOSTILE
        .iter()
        .map(|&(section, asked, input, error)| (section, asked, input.to_owned(), error))
        .collect();
    let body = |section, body: &str, error| (section, GET, chunked(body), E::Body(error));
    rows.extend([
        body("9112 7.1", "\r\n", BodyError::ChunkSize),
        body("9112 7.1", "+5\r\nhello\r\n0\r\n\r\n", BodyError::ChunkSize),
        body("9112 7.1", "-1\r\n", BodyError::ChunkSize),
        body("9112 7.1", "0x5\r\nhello\r\n", BodyError::ChunkSize),
        body("9112 7.1", "5\nhello\r\n", BodyError::ChunkSize),
        body("9112 7.1", "5\rhello", BodyError::ChunkSize),
        body("9112 7.1", "fffffffffffffffff\r\n", BodyError::ChunkSize),
        body("9112 7.1", "ffffffffffffffff\r\n", BodyError::TooLarge),
        body("9112 7.1", "HTTP/1.1 200 OK\r\n", BodyError::ChunkSize),
        body("9112 7.1", "5\r\nhello0\r\n\r\n", BodyError::ChunkEnd),
        body("9112 7.1", "5\r\nhello\n0\r\n\r\n", BodyError::ChunkEnd),
        body("9112 7.1.1", "5;\r\nhello\r\n", BodyError::ChunkExtension),
        body(
            "9112 7.1.1",
            "5;a=\"\n\"\r\nhello\r\n",
            BodyError::ChunkExtension,
        ),
        body("9112 7.1.2", "0\r\nX : y\r\n\r\n", BodyError::Trailer),
        body("9112 7.1.2", "0\r\n X: y\r\n\r\n", BodyError::Trailer),
        body("9112 7.1.2", "0\r\nX: a\0\r\n\r\n", BodyError::Trailer),
        body("9112 7.1.2", "0\r\nX: a\r\n\n", BodyError::Trailer),
    ]);
    let endless = |section, input: String, error| (section, GET, input, error);
    rows.extend([
        endless(
            "9110 5.4",
            with(&format!("X: {}\r\n", "x".repeat(MAX_HEAD))),
            E::HeadTooLarge,
        ),
        endless(
            "9112 4",
            format!("HTTP/1.1 200 {}", "x".repeat(MAX_HEAD)),
            E::HeadTooLarge,
        ),
        endless("9110 5.4", with(&"a: b\r\n".repeat(101)), E::TooManyFields),
        endless(
            "9110 15.2",
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17),
            E::TooManyInterim,
        ),
        endless(
            "9112 7.1.1",
            chunked(&format!("5;{}\r\n", "x".repeat(2000))),
            E::Body(BodyError::LongExtension),
        ),
        endless(
            "9112 7.1.2",
            chunked(&format!("0\r\nX: {}\r\n", "x".repeat(300))),
            E::Body(BodyError::LongTrailers),
        ),
    ]);
    rows
}

#[test]
fn hostile_responses_are_refused_whole_and_byte_by_byte() {
    let rows = hostile();
    assert!(rows.len() >= 60);
    for (section, asked, input, error) in rows {
        let shown = &input[..input.len().min(100)];
        for piece in [1, 5, input.len()] {
            let heard = hear(asked, input.as_bytes(), piece);
            assert_eq!(heard, Err(error), "{section}: {shown:?} by {piece}");
        }
        let (text, token) = (error.to_string(), error.token());
        assert!(text.starts_with("expected ") && text.contains(", found "));
        assert!(token.starts_with("http_"), "{token}");
    }
}

#[test]
fn errors_have_the_tokens_of_proxy_status() {
    for (error, token) in [
        (E::HeadTooLarge, "http_response_header_section_size"),
        (E::TooManyFields, "http_response_header_section_size"),
        (E::UnknownCoding, "http_response_transfer_coding"),
        (E::Body(BodyError::TooLarge), "http_response_body_size"),
        (
            E::Body(BodyError::LongTrailers),
            "http_response_trailer_section_size",
        ),
        (E::Body(BodyError::ChunkEnd), "http_protocol_error"),
        (E::LengthAndCoding, "http_protocol_error"),
    ] {
        assert_eq!(error.token(), token, "9209 2.3");
    }
}

#[test]
fn unfinished_heads_are_waited_for() {
    for input in [
        "",
        "H",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n\r",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 2",
    ] {
        for piece in [1, input.len().max(1)] {
            assert_eq!(hear(GET, input.as_bytes(), piece), Ok(None), "{input:?}");
        }
    }
}

#[test]
fn a_body_ends_as_its_head_says() {
    const REST: &str = "HTTP/1.1 500 next";
    let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    for (section, asked, input, framing, body) in [
        (
            "9112 6.3",
            GET,
            format!("{length}hello"),
            Framing::Length(5),
            "hello",
        ),
        ("9112 6.3", HEAD, length.to_owned(), Framing::None, ""),
        ("9112 6.3", HEAD, chunked(""), Framing::None, ""),
        (
            "9112 6.3",
            GET,
            with("Content-Length: 0\r\n"),
            Framing::Length(0),
            "",
        ),
        (
            "9112 6.3",
            GET,
            "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            Framing::None,
            "",
        ),
        (
            "9112 6.3",
            GET,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n".to_owned(),
            Framing::None,
            "",
        ),
        (
            "9112 7.1",
            GET,
            chunked("5;a=b\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"),
            Framing::Chunked,
            "hello!",
        ),
        (
            "9112 6.1",
            GET,
            with("transfer-encoding: , Chunked\r\n") + "0\r\n\r\n",
            Framing::Chunked,
            "",
        ),
        (
            "9110 15.2",
            GET,
            format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n{length}hello"
            ),
            Framing::Length(5),
            "hello",
        ),
        (
            "9112 2.2",
            GET,
            "HTTP/1.0 200 OK\nContent-Length: 5\n\nhello".to_owned(),
            Framing::Length(5),
            "hello",
        ),
    ] {
        let heard = heard(asked, &format!("{input}{REST}"));
        assert_eq!(heard.head.framing, framing, "{section}: {input:?}");
        assert_eq!(heard.body, body.as_bytes(), "{section}: {input:?}");
        assert_eq!(heard.used, input.len(), "{section}: {input:?}");
        assert!(
            heard.complete && heard.whole_at_close,
            "{section}: {input:?}"
        );
    }
}

#[test]
fn without_a_length_the_body_ends_with_the_connection() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
    ] {
        let heard = heard(UPGRADE, &format!("{head}all that comes"));
        assert_eq!(heard.head.framing, Framing::UntilClose, "9112 6.3");
        assert_eq!(heard.body, b"all that comes");
        assert!(!heard.complete && heard.whole_at_close);
        assert!(!heard.head.keep_alive, "9112 9.3");
    }
}

#[test]
fn a_body_that_is_cut_is_not_whole() {
    for input in [
        with("Content-Length: 5\r\n") + "hell",
        chunked("5\r\nhello\r\n"),
        chunked("5\r\nhello\r\n0\r\n"),
        chunked("5\r\nhel"),
        chunked(""),
    ] {
        let heard = heard(GET, &input);
        assert!(
            !heard.complete && !heard.whole_at_close,
            "9112 8: {input:?}"
        );
    }
}

#[test]
fn trailers_are_kept_where_they_are_asked_for() {
    let heard = heard(
        GET,
        &chunked("1\r\nx\r\n0\r\nDigest: a=b\r\nY:\tz \r\n\r\n"),
    );
    let trailers: Vec<_> = fields::iterate(&heard.trailers).collect();
    assert_eq!(
        trailers,
        [("Digest", &b"a=b"[..]), ("Y", b"z")],
        "9112 7.1.2"
    );
}

#[test]
fn a_connection_is_kept_as_its_head_says() {
    for (section, asked, head, keep) in [
        (
            "9112 9.3",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
            true,
        ),
        (
            "9112 9.3",
            GET,
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n",
            false,
        ),
        (
            "9112 9.3",
            GET,
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: Keep-Alive\r\n",
            true,
        ),
        (
            "9112 9.6",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n",
            false,
        ),
        (
            "9112 9.6",
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\nConnection: keep-alive\r\n",
            false,
        ),
        ("9112 6.3", HEAD, "HTTP/1.1 200 OK\r\n", true),
        ("9112 6.3", GET, "HTTP/1.1 304 Not Modified\r\n", true),
        // What is announced may come, where no body is expected.
        (
            "9110 8.6",
            GET,
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n",
            false,
        ),
        (
            "9110 8.6",
            GET,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n",
            false,
        ),
        (
            "9110 9.3.2",
            HEAD,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n",
            false,
        ),
        (
            "9110 9.3.2",
            HEAD,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
            false,
        ),
        (
            "9112 6.1",
            GET,
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n",
            false,
        ),
        (
            "9110 15.2.2",
            UPGRADE,
            "HTTP/1.1 101 Switching Protocols\r\n",
            false,
        ),
    ] {
        let heard = heard(asked, &format!("{head}\r\n"));
        assert_eq!(heard.head.keep_alive, keep, "{section}: {head:?}");
    }
}

#[test]
fn the_time_that_a_server_keeps_connections_is_read() {
    for (value, seconds) in [
        ("timeout=5", Some(5)),
        ("max=100, Timeout=7", Some(7)),
        ("timeout=5, max=1", Some(5)),
        ("timeout=-1", None),
        ("timeout", None),
        ("timeout=", None),
        ("timeouts=5", None),
        ("", None),
    ] {
        let heard = heard(GET, &with(&format!("Keep-Alive: {value}\r\n")));
        assert_eq!(
            heard.head.keep_alive_timeout,
            seconds.map(Duration::from_secs),
            "{value}"
        );
    }
}

#[test]
fn what_a_head_says_is_kept_in_order() {
    let heard = heard(
        GET,
        "HTTP/1.1 404 Not  Found \r\nSet-Cookie:a\r\nX-Empty:\r\nset-cookie: \tb \r\nX-\u{2022}: no\r\n\r\n"
            .replace("X-\u{2022}: no", "X-Text: \u{e9}")
            .as_str(),
    );
    assert_eq!(heard.head.status, 404);
    assert_eq!(heard.head.reason(), b"Not  Found");
    let fields: Vec<_> = heard.head.fields().collect();
    assert_eq!(
        fields,
        [
            ("Set-Cookie", &b"a"[..]),
            ("X-Empty", b""),
            ("set-cookie", b"b"),
            ("X-Text", "\u{e9}".as_bytes()),
        ]
    );
    assert_eq!(heard.head.field("SET-COOKIE"), Some(&b"a"[..]));
    assert_eq!(heard.head.field("Set"), None);
    for line in ["HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 999 \u{e9}"] {
        assert_eq!(
            self::heard(GET, &format!("{line}\r\n\r\n")).head.reason(),
            b""
        );
    }
}

#[test]
fn sixteen_interim_replies_are_taken() {
    let input = "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n".repeat(16) + &with("");
    assert_eq!(heard(GET, &input).interim, [103; 16]);
}

/// Bytes that are nearly a response.
fn nearly_a_response() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        3 => Just("HTTP/1.1 200 OK\r\n".to_owned()),
        1 => Just("HTTP/1.0 302\n".to_owned()),
        1 => Just("HTTP/1.1 103 x\r\n\r\n".to_owned()),
        1 => Just("HTTP/1.1 204 x\r\n".to_owned()),
        2 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
        2 => "Content-Length: [0-9]{1,2}\r\n",
        2 => "[a-zA-Z-]{1,9}: ?[ -~]{0,9}\r?\n",
        3 => Just("\r\n".to_owned()),
        2 => Just("3\r\nabc\r\n".to_owned()),
        2 => Just("0\r\n".to_owned()),
        1 => "[ -~\r\n]{0,5}",
    ];
    prop::collection::vec(line, 0..10).prop_map(|lines| lines.concat().into_bytes())
}

proptest! {
    #[test]
    fn any_bytes_keep_the_invariants(data in prop::collection::vec(any::<u8>(), 0..200)) {
        crate::internals::invariants::response(&data);
    }

    #[test]
    fn nearly_valid_responses_keep_the_invariants(asked in any::<u8>(), data in nearly_a_response()) {
        crate::internals::invariants::response(&[&[asked], data.as_slice()].concat());
    }
}
