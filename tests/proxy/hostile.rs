//! What a broken or hostile service can do to the sidecar and its clients: nothing. Each row has the section of the RFC
//! that the reply offends, or that says what to do with it.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use plimsoll::proxy::{BreakerMode, ProxyConfig};
use socket2::SockRef;

use super::serve;
use crate::kit::{Client, PATIENCE, Upstream};

/// How long the service may be silent.
const SILENCE: Duration = Duration::from_millis(400);

/// How many rows are played at the same time.
const AT_ONCE: usize = 8;

/// How the service sends its bytes.
#[derive(Clone, Copy)]
enum How {
    /// All at once, and then it closes.
    Close,
    /// All at once, and then nothing more comes.
    Hold,
    /// Each byte by itself, and then nothing more comes.
    Drip,
    /// The same bytes over and over, until nobody takes them.
    Endless,
    /// All at once, and then it resets the connection.
    Reset,
}

/// What the client gets.
enum Gets {
    /// That status, with that error in Proxy-Status.
    Error(u16, &'static str),
    /// A reply that is visibly cut, or, if that was seen in time, 502.
    Cut,
    /// That status and body.
    Reply(u16, &'static str),
    /// So many interim replies, and then the reply.
    Interim(usize),
}

use Gets::{Cut, Error, Interim, Reply};
use How::{Close, Drip, Endless, Hold, Reset};

const MALFORMED: Gets = Error(502, "http_protocol_error");
const INCOMPLETE: Gets = Error(502, "http_response_incomplete");
const CLOSED: Gets = Error(502, "connection_terminated");
const CODING: Gets = Error(502, "http_response_transfer_coding");
const TOO_LARGE: Gets = Error(502, "http_response_header_section_size");
const TIMEOUT: Gets = Error(504, "http_response_timeout");
const HELLO: Gets = Reply(200, "hello");

type Row = (&'static str, How, Vec<u8>, Gets);

fn row(section: &'static str, how: How, bytes: impl AsRef<[u8]>, gets: Gets) -> Row {
    (section, how, bytes.as_ref().to_vec(), gets)
}

/// A reply with these header lines, and `hello` behind its head.
fn with(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\nhello")
}

/// A chunked reply.
fn chunked(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}")
}

fn status_lines() -> Vec<Row> {
    let lines = [
        "garbage",
        "HTTP/2.0 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 Low",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1  200 OK",
        "HTTP/1.1\t200 OK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 2OO OK",
        "HTTP/1.1",
        "ICY 200 OK",
        "SSH-2.0-OpenSSH_9.2",
        "\x15\x03\x01\x00\x02\x02\x0a",
        "GET / HTTP/1.1",
    ];
    let lines = lines.map(|line| {
        let reply = format!("{line}\r\nContent-Length: 5\r\n\r\nhello");
        row("9112 4", Hold, reply, MALFORMED)
    });
    let mut rows = Vec::from(lines);
    let fine = "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello";
    rows.push(row("9112 2.2 line ends", Hold, fine, HELLO));
    let empty = "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello";
    rows.push(row("9112 4 no reason", Hold, empty, HELLO));
    rows
}

fn heads() -> Vec<Row> {
    let many = |count: usize| "X: y\r\n".repeat(count);
    let long = format!("X: {}", "y".repeat(70_000));
    let bad = [
        ("9112 5.1", "Bad Name: x\r\nContent-Length: 5"),
        ("9112 5.1 no name", ": x\r\nContent-Length: 5"),
        ("9112 5.1 space", "Content-Length : 5"),
        ("9112 5.2", "X: a\r\n folded\r\nContent-Length: 5"),
        ("9112 5.2 tab", "X: a\r\n\tfolded\r\nContent-Length: 5"),
        ("9110 5.5 NUL", "X: a\0b\r\nContent-Length: 5"),
        ("9110 5.5 control", "X: a\x01b\r\nContent-Length: 5"),
        ("9110 5.5 DEL", "X: a\x7fb\r\nContent-Length: 5"),
        ("9112 2.2", "X: a\rY: b\r\nContent-Length: 5"),
        ("9112 2.2 before LF", "X: a\r\r\nContent-Length: 5"),
        ("9112 5", "no colon\r\nContent-Length: 5"),
        ("9112 5 first line", " X: a\r\nContent-Length: 5"),
        ("9112 6.3", "Content-Length: 5\r\nContent-Length: 6"),
        ("9112 6.3 twice", "Content-Length: 5\r\nContent-Length: 5"),
        ("9110 8.6 list", "Content-Length: 5, 5"),
        ("9110 8.6 plus", "Content-Length: +5"),
        ("9110 8.6 minus", "Content-Length: -5"),
        ("9110 8.6 hex", "Content-Length: 0x5"),
        ("9110 8.6 none", "Content-Length: "),
        ("9110 8.6 two", "Content-Length: 5 5"),
        ("9110 8.6 huge", "Content-Length: 18446744073709551616"),
        (
            "9112 6.1 both",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        ("9112 6.1 order", "Transfer-Encoding: chunked, gzip"),
        ("9112 6.1 twice", "Transfer-Encoding: chunked, chunked"),
        (
            "9112 6.1 lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        ("9112 6.1 empty", "Transfer-Encoding: "),
    ];
    let bad = bad.map(|(section, lines)| row(section, Hold, with(lines), MALFORMED));
    let mut rows = Vec::from(bad);
    for coding in ["gzip", "gzip, chunked", "xchunked", "identity"] {
        let reply = with(&format!("Transfer-Encoding: {coding}"));
        rows.push(row("9112 6.1 unknown", Hold, reply, CODING));
    }
    let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    rows.push(row("9112 6.1 HTTP/1.0", Hold, old, MALFORMED));
    rows.push(row("9110 5.4 fields", Hold, with(&many(101)), TOO_LARGE));
    rows.push(row("9110 5.4 size", Hold, with(&long), TOO_LARGE));
    rows.push(row(
        "9110 5.4 endless name",
        Endless,
        "HTTP/1.1 200 OK\r\nxxxxxxxx",
        MALFORMED,
    ));
    rows.push(row("9112 8 nothing", Close, "", CLOSED));
    rows.push(row("9112 8 reset", Reset, "", CLOSED));
    for part in [
        "H",
        "HTTP/1.1 2",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
    ] {
        rows.push(row("9112 8 half a head", Close, part, INCOMPLETE));
        rows.push(row("9110 15.6.5 half a head", Hold, part, TIMEOUT));
    }
    rows.push(row("9110 15.6.5 nothing", Hold, "", TIMEOUT));
    rows.push(row("9112 2 split", Drip, with("Content-Length: 5"), HELLO));
    rows
}

fn interim() -> Vec<Row> {
    let fine = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let announced = |line| format!("HTTP/1.1 103 Early Hints\r\n{line}\r\n\r\n{fine}");
    vec![
        row(
            "9110 15.2",
            Hold,
            format!("HTTP/1.1 100 Continue\r\n\r\n{fine}"),
            HELLO,
        ),
        row("9110 15.2 many", Hold, early.repeat(16) + fine, Interim(16)),
        row("9110 15.2 split", Drip, early.repeat(2) + fine, Interim(2)),
        row(
            "9110 15.2 too many",
            Hold,
            early.repeat(17) + fine,
            MALFORMED,
        ),
        row("9110 15.2 endless", Endless, early, MALFORMED),
        row("9110 15.2 and no more", Close, early, INCOMPLETE),
        row("9110 15.6.5 and no more", Hold, early, TIMEOUT),
        row(
            "9110 8.6 with a length",
            Hold,
            announced("Content-Length: 5"),
            MALFORMED,
        ),
        row(
            "9112 6.1 with a coding",
            Hold,
            announced("Transfer-Encoding: chunked"),
            MALFORMED,
        ),
        row(
            "9110 15.2.2",
            Hold,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
            MALFORMED,
        ),
    ]
}

fn bodies() -> Vec<Row> {
    let broken = [
        ("9112 7.1 no size", "\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1 size", "z\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1 minus", "-5\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1 prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1 space", " 5\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1 huge", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1 line end", "5\nhello\n0\n\n"),
        ("9112 7.1 too long", "5\r\nhello!\r\n0\r\n\r\n"),
        ("9112 7.1 no end", "5\r\nhello0\r\n\r\n"),
        ("9112 7.1.1 name", "5;\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1.1 value", "5;a=\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1.1 control", "5;a=\x01\r\nhello\r\n0\r\n\r\n"),
        ("9112 7.1.2 name", "5\r\nhello\r\n0\r\nBad Name: x\r\n\r\n"),
        ("9112 7.1.2 fold", "5\r\nhello\r\n0\r\nX: a\r\n b\r\n\r\n"),
        ("9112 7.1.2 control", "5\r\nhello\r\n0\r\nX: a\x01\r\n\r\n"),
    ];
    let broken = broken.map(|(section, body)| row(section, Hold, chunked(body), Cut));
    let mut rows = Vec::from(broken);
    let extension = format!("5;a={}\r\nhello\r\n0\r\n\r\n", "x".repeat(2000));
    rows.push(row("9112 7.1.1 long", Hold, chunked(&extension), Cut));
    let trailers = format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "x".repeat(17_000));
    rows.push(row("9112 7.1.2 long", Hold, chunked(&trailers), Cut));
    let fine = "5;a=\"b c\";d\r\nhello\r\n0\r\nX: y\r\n\r\n";
    rows.push(row("9112 7.1", Hold, chunked(fine), HELLO));
    rows.push(row("9112 7.1 split", Drip, chunked(fine), HELLO));
    let one_by_one = "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n";
    rows.push(row("9112 7.1 small", Hold, chunked(one_by_one), HELLO));
    rows.push(row("9112 7.1 endless", Endless, chunked("").as_str(), Cut));
    for cut in [
        "",
        "5",
        "5\r\n",
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0\r\n",
    ] {
        for how in [Close, Reset, Hold] {
            rows.push(row("9112 8 chunks", how, chunked(cut), Cut));
        }
    }
    for length in [6, 7, 1_000_000] {
        for how in [Close, Reset, Hold] {
            let reply = with(&format!("Content-Length: {length}"));
            rows.push(row("9112 8 length", how, reply, Cut));
        }
    }
    rows.push(row("9112 8 until close", Close, with("X: y"), HELLO));
    rows.push(row(
        "9112 8 until close",
        Close,
        with("X: y").replace("1.1", "1.0"),
        HELLO,
    ));
    rows.push(row("9112 8 until reset", Reset, with("X: y"), Cut));
    rows.push(row("9112 8 until silence", Hold, with("X: y"), Cut));
    let reply = with("Content-Length: 5");
    rows.push(row(
        "9112 6.3 more behind",
        Hold,
        reply.clone() + "x",
        HELLO,
    ));
    rows.push(row("9112 9.3 doubled", Hold, reply.repeat(2), HELLO));
    rows.push(row("9112 9.3 many", Hold, reply.repeat(100), HELLO));
    rows.push(row("9112 9.3 chunks", Hold, chunked(fine).repeat(2), HELLO));
    let none = |status: &str| with("Content-Length: 5").replace("200 OK", status);
    rows.push(row(
        "9110 15.3.5",
        Hold,
        none("204 No Content"),
        Reply(204, ""),
    ));
    rows.push(row(
        "9110 15.4.5",
        Hold,
        none("304 Not Modified"),
        Reply(304, ""),
    ));
    rows
}

/// Plays a row.
fn play(how: How, bytes: &[u8], stream: &mut TcpStream) -> io::Result<()> {
    match how {
        Close => {
            stream.write_all(bytes)?;
            Err(io::ErrorKind::ConnectionAborted.into())
        }
        Hold => stream.write_all(bytes),
        Drip => bytes.chunks(1).try_for_each(|byte| stream.write_all(byte)),
        Endless => loop {
            stream.write_all(bytes)?;
        },
        Reset => {
            stream.write_all(bytes)?;
            SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}

#[test]
fn no_reply_of_a_service_does_harm() {
    let rows = [status_lines(), heads(), interim(), bodies()];
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    assert!(rows.len() >= 60);
    let played: Vec<_> = rows
        .iter()
        .map(|(_, how, bytes, _)| (*how, bytes.clone()))
        .collect();
    let upstream = Upstream::start(move |asked, stream| {
        let number = asked.line().split(['/', ' ']).nth(2).unwrap_or_default();
        match number.parse::<usize>() {
            Ok(number) => {
                let (how, bytes) = &played[number];
                play(*how, bytes, stream)
            }
            Err(_) => stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        }
    });
    // Where the service is to be silent for too long, and where a busy machine is not to make it so.
    let [short, long] = [SILENCE, PATIENCE].map(|silence| {
        let config = ProxyConfig {
            breaker: BreakerMode::Off,
            retries: 0,
            try_timeout: Some(silence),
            body_idle: silence,
            ..ProxyConfig::to([upstream.url()])
        };
        serve(config, 2 * AT_ONCE)
    });
    let address_for = |(_, how, _, gets): &Row| {
        let is_silent = matches!((how, gets), (Hold, Cut) | (_, Error(504, _)));
        let server = if is_silent { &short } else { &long };
        server.local_addr()
    };
    thread::scope(|scope| {
        for first in 0..AT_ONCE {
            let rows = rows.iter().enumerate().skip(first).step_by(AT_ONCE);
            scope.spawn(move || {
                rows.for_each(|(number, row)| check(address_for(row), number, row));
            });
        }
    });
    for server in [&short, &long] {
        assert_eq!(server.health().snapshot().totals.panics, 0);
    }
}

/// Asks for a row, and then for something else.
#[track_caller]
fn check(address: SocketAddr, number: usize, (section, _, bytes, gets): &Row) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]);
    let row = format!("{section}: {shown:?}");
    let mut client = Client::connect(address);
    client.get(&format!("/{number}"));
    if let Interim(count) = gets {
        for _ in 0..*count {
            assert_eq!(client.reply().header("Link"), Some("</a>"), "{row}");
        }
    }
    let reply = client
        .try_reply()
        .unwrap_or_else(|error| panic!("{row}: {error}"));
    match gets {
        Error(status, error) => {
            assert_eq!(reply.status, *status, "{row}");
            let expected = format!("plimsoll; error={error}");
            let found = reply.header("Proxy-Status");
            assert_eq!(found, Some(expected.as_str()), "{row}");
        }
        Cut => assert!(!reply.whole || reply.status == 502, "{row}: {reply:?}"),
        Reply(..) | Interim(_) => {
            let (status, body) = match gets {
                Reply(status, body) => (*status, *body),
                _ => (200, "hello"),
            };
            assert_eq!((reply.status, reply.whole), (status, true), "{row}");
            assert_eq!(reply.text(), body, "{row}");
        }
    }
    // Nothing of it is taken for the reply to somebody else.
    let fine = Client::connect(address).get("/fine").reply();
    assert_eq!(fine.text(), "fine", "after {row}");
}
