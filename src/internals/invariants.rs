//! What must hold for every input: checked by the fuzz targets and the property tests.

mod relay;

use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use relay::relay;

use crate::http::body::{BodyDecoder, BodyError};
use crate::http::fields;
use crate::http::head::{self, Framing, Head, Scan};
use crate::http::response::{Asked, ResponseError, ResponseHead, ResponseParser};
use crate::server::event_loop::bodies::Room;
use crate::server::event_loop::connection::{
    After, CloseReason, Connection, ConnectionEvent, Limits, Piece,
};

const MAX_HEAD: usize = 2048;
const MAX_TRAILERS: usize = 256;

/// Any bytes as a head.
///
/// # Panics
///
/// When an invariant of the head parser doesn't hold.
pub fn head(data: &[u8]) {
    let whole = head::parse(data, MAX_HEAD, &mut Scan::default());
    if let Ok(Some((used, head))) = &whole {
        assert!(*used <= data.len() && *used <= MAX_HEAD + 4);
        check_canonical(head);
        // A byte of the target may become an escape; a field may gain the space after its colon.
        assert!(head.canonical().len() <= 3 * used + 32);
    }

    let mut progress = Scan::default();
    let dripped = (0..=data.len())
        .map(|end| head::parse(&data[..end], MAX_HEAD, &mut progress))
        .find(|result| !matches!(result, Ok(None)))
        .unwrap_or(Ok(None));
    match (whole, dripped) {
        // An error in an unfinished head may be found later when it drips in.
        (Err(_), Err(_) | Ok(None)) => {}
        (whole, dripped) => assert_eq!(whole, dripped),
    }
}

/// Any bytes as a segment of the event queue's log.
///
/// # Panics
///
/// When an invariant of the segment's reader or of a start doesn't hold.
#[cfg(feature = "events")]
pub fn event_segment(data: &[u8]) {
    crate::patterns::events::invariants::segment(data);
}

/// Any bytes as a body: two bytes choose framing and limit, the rest is the input.
///
/// # Panics
///
/// When an invariant of the body decoder doesn't hold.
pub fn body(data: &[u8]) {
    let &[framing, max_body, ref input @ ..] = data else {
        return;
    };
    let max_body = usize::from(max_body);
    let framing = if framing < 192 {
        Framing::Chunked
    } else {
        Framing::Length(u64::from(framing - 192) * 5)
    };

    let (whole, whole_out) = decode(framing, max_body, input.chunks(usize::MAX));
    let (dripped, dripped_out) = decode(framing, max_body, input.chunks(1));
    assert_eq!(whole, dripped);
    assert_eq!(whole_out, dripped_out);
    assert!(whole_out.capacity() <= max_body.min(2 * input.len()));
    assert!(dripped_out.capacity() <= max_body.min(2 * input.len()));
}

fn decode<'a>(
    framing: Framing,
    max_body: usize,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Result<(usize, bool), BodyError>, Vec<u8>) {
    let mut out = Vec::new();
    let mut body = match BodyDecoder::new(framing, max_body, MAX_TRAILERS) {
        Ok(body) => body,
        Err(refusal) => return (Err(refusal), out),
    };
    let mut total = 0;
    let mut complete = matches!(body.decode(&[], &mut out), Ok((0, true)));
    for piece in pieces {
        if complete {
            break;
        }
        match body.decode(piece, &mut out) {
            Ok((used, done)) => {
                assert!(used == piece.len() || done);
                total += used;
                complete = done;
            }
            Err(refusal) => return (Err(refusal), out),
        }
    }
    (Ok((total, complete)), out)
}

/// Any bytes as a response: a byte chooses what was asked, the rest is what comes.
///
/// # Panics
///
/// When an invariant of the response parser doesn't hold.
pub fn response(data: &[u8]) {
    let &[asked, ref input @ ..] = data else {
        return;
    };
    let asked = Asked {
        head: asked & 1 == 1,
        upgrade: asked & 2 == 2,
    };
    let whole = read_response(asked, input, input.len().max(1));
    let dripped = read_response(asked, input, 1);
    match (whole, dripped) {
        // An error in an unfinished head may be found later when it drips in.
        (Err(_), Err(_) | Ok(None)) => {}
        (whole, dripped) => assert_eq!(whole, dripped),
    }
}

/// A response that comes in pieces of that size: its head, its body, and the bytes that it was in.
fn read_response(
    asked: Asked,
    input: &[u8],
    piece: usize,
) -> Result<Option<(ResponseHead, Vec<u8>, usize)>, ResponseError> {
    let mut parser = ResponseParser::new(asked);
    let (mut start, mut end) = (0, 0);
    let head = loop {
        match parser.parse(&input[start..end])? {
            Some((used, head)) => {
                assert!((1..=end - start).contains(&used));
                start += used;
                if !head.is_interim() {
                    break head;
                }
            }
            None if end == input.len() => return Ok(None),
            None => end = (end + piece).min(input.len()),
        }
    };
    check_response_head(&head);
    let mut decoder = BodyDecoder::new(head.framing, input.len(), MAX_TRAILERS)?;
    let mut body = Vec::new();
    loop {
        let (used, complete) = decoder.decode(&input[start..end], &mut body)?;
        assert!(used == end - start || complete);
        start += used;
        if complete || end == input.len() {
            return Ok(Some((head, body, start)));
        }
        end = (end + piece).min(input.len());
    }
}

/// Reads a response's head as a proxy will.
fn check_response_head(head: &ResponseHead) {
    assert!((100..1000).contains(&head.status) && !head.is_interim());
    assert!(head.framing != Framing::UntilClose || !head.keep_alive);
    assert!(!fields::has_control(head.reason()));
    for (name, value) in head.fields() {
        assert!(!name.is_empty() && name.bytes().all(fields::is_token_byte));
        assert!(!fields::has_control(value) && value.trim_ascii() == value);
    }
}

/// Reads a canonical head as a handler will.
fn check_canonical(head: &Head) {
    assert!(!head.method_text().is_empty());
    assert!(head.method_text().bytes().all(fields::is_token_byte));
    let target = head.target();
    assert!(target.starts_with('/') || target == "*");
    assert!(
        target
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    );

    let mut whole = format!("{} {target} HTTP/1.1\r\n", head.method_text()).into_bytes();
    for (name, value) in head.fields() {
        assert!(
            !name.is_empty() && name.bytes().all(fields::is_token_byte),
            "{name}"
        );
        assert!(
            value
                .iter()
                .all(|byte| !byte.is_ascii_control() || *byte == b'\t')
        );
        assert_eq!(value.trim_ascii(), value, "{name}");
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            whole.extend_from_slice(part);
        }
    }
    assert_eq!(
        head.canonical(),
        whole,
        "nothing is lost, and nothing else is there"
    );
}

/// The limits of the conversations here: so small that inputs reach them, and that none of the three hides in another.
pub(crate) const LIMITS: Limits = Limits {
    max_head: 256,
    max_body: 1_000,
    head_timeout: Duration::from_secs(10),
    body_timeout: Duration::from_secs(30),
    idle_timeout: Duration::from_secs(60),
    write_timeout: Duration::from_secs(11),
    request_timeout: Duration::from_secs(31),
};

/// What is handed to a conversation at once, at most.
pub(crate) const READ: usize = 512;

/// Most bytes that a conversation may hold. A head's buffer doubles as it fills, and the canonical form of a head, which
/// takes its place, has up to three bytes for one.
const MOST_HELD: usize = 4 * LIMITS.max_head + LIMITS.max_body + READ;

/// What a driver sees, without the wording of refusals: an error in a head may be found at once or as the head grows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Request { canonical: Vec<u8>, body: Vec<u8> },
    Refused,
    Closed(CloseReason),
}

/// Any bytes as what a client sends in one conversation, and as a list of calls.
///
/// # Panics
///
/// When an invariant of the conversation doesn't hold.
pub fn connection(data: &[u8]) {
    let Some((&size, input)) = data.split_first() else {
        return;
    };
    let whole = conversation(input, iter::repeat(READ));
    let sizes = [1, usize::from(size) + 1];
    for size in sizes {
        assert_eq!(conversation(input, iter::repeat(size)), whole);
    }
    calls(data);
}

/// A whole conversation whose client sends `input` in parts of these sizes, then nothing more, and whose driver
/// answers at once. No time passes.
pub(crate) fn conversation(input: &[u8], sizes: impl IntoIterator<Item = usize>) -> Vec<Seen> {
    let now = Instant::now();
    let mut connection = Connection::new(Arc::new(LIMITS), now);
    let mut seen = Vec::new();
    let mut rest = input;
    let mut sizes = sizes.into_iter();
    while !rest.is_empty() && connection.wants_input() {
        let size = sizes.next().unwrap_or(READ).clamp(1, READ);
        let (part, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        connection.handle_input(part, now);
        settle(&mut connection, now, &mut seen);
    }
    connection.handle_eof(now);
    settle(&mut connection, now, &mut seen);
    let reason = connection.close_reason();
    seen.push(Seen::Closed(reason.expect("an eof ends it")));
    seen
}

/// Does the driver's part until there is nothing to do.
fn settle(connection: &mut Connection, now: Instant, seen: &mut Vec<Seen>) {
    loop {
        check(connection, now);
        while !connection.output().is_empty() {
            connection.handle_sent(connection.output().len(), now);
        }
        if let Some((_, size)) = connection.wants_room() {
            connection.give_room(Room::of_its_own(size), now);
            continue;
        }
        let (what, after) = match connection.poll_event() {
            None => return,
            Some(ConnectionEvent::Request(incoming)) => {
                let keep_alive = incoming.head.keep_alive;
                let body = incoming.body.to_vec();
                let canonical = incoming.head.canonical().to_vec();
                let what = Seen::Request { canonical, body };
                (
                    what,
                    if keep_alive {
                        After::Keep
                    } else {
                        After::Close
                    },
                )
            }
            Some(ConnectionEvent::Refused(..)) => (Seen::Refused, After::Close),
            Some(ConnectionEvent::Overdue) => unreachable!("no time passes"),
        };
        seen.push(what);
        connection.answer([Piece::new(&b"reply"[..], 0)], after, now);
    }
}

/// Any order of calls, also ones that a driver does not make. Two bytes choose a call and its number; what is sent
/// follows them.
pub(crate) fn calls(script: &[u8]) {
    let mut now = Instant::now();
    let mut connection = Connection::new(Arc::new(LIMITS), now);
    let mut rest = script;
    while let &[call, number, ref after @ ..] = rest {
        rest = after;
        match call % 12 {
            0..=3 => {
                let (part, after) = rest.split_at(usize::from(number).min(rest.len()));
                rest = after;
                // What comes unasked is the driver's to bound.
                if connection.wants_input() {
                    connection.handle_input(part, now);
                }
            }
            4 => drop(connection.poll_event()),
            5 => now += Duration::from_secs(number.into()),
            6 if connection.is_answering() => {
                let after = [After::Keep, After::Close, After::More][usize::from(number) % 3];
                let sent = usize::from(number) % 6;
                connection.answer([Piece::new(&b"reply"[..], sent)], after, now);
            }
            6 | 7 => {
                let count = connection.output().len().min(number.into());
                connection.handle_sent(count, now);
            }
            8 => connection.await_more(now + LIMITS.request_timeout),
            9 | 10 => {
                if let Some((_, size)) = connection.wants_room() {
                    connection.give_room(Room::of_its_own(size), now);
                }
            }
            _ if number < 128 => connection.handle_eof(now),
            _ => connection.close(CloseReason::Evicted),
        }
        connection.handle_timeout(now);
        check(&connection, now);
    }
}

fn check(connection: &Connection, now: Instant) {
    let held = connection.held();
    assert!(held <= MOST_HELD, "{held} bytes");
    let deadline = connection.next_timeout();
    assert!(deadline.is_none_or(|deadline| deadline > now));
    if connection.close_reason().is_some() {
        assert!(deadline.is_none() && held == 0 && !connection.wants_input());
    }
}
