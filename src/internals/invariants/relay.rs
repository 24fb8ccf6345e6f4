//! What is relayed between a client and another server, each at its own pace.

mod tunnel;

use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::http::body::{BodyDecoder, Framing};
use crate::http::fields;
use crate::http::response::{Asked, ResponseHead, ResponseParser};
use crate::net::client::Parts;
use crate::net::pool::{Lease, Pool, Reuse};
use crate::net::stream::Socket;
use crate::server::exchange::ReplyRules;
use crate::server::relay::Progress;
use crate::server::relay::{IsPassed, OnEnd, Relay};
use crate::server::response::{DateCache, Payload, Response};
use crate::server::stream::{STREAM_STEP, Source, Stream};

const MAX_TRAILERS: usize = 256;

/// No time passes here.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// What a step may add to the data that it reads: a chunk's size line and end, and the body's.
const MOST_FRAMING: usize = 64 + MAX_TRAILERS;

/// Most bytes that are sent here: a socket's buffer holds them, so that a write never waits for a read.
const MAX_INPUT: usize = 64 * 1024;

/// Any bytes as a server's reply on its way to a client, or as what two sides of a tunnel send. The first byte chooses
/// what it is, the second says how many bytes of steps follow, and the rest is what is sent.
///
/// # Panics
///
/// When an invariant of the relay doesn't hold.
pub fn relay(data: &[u8]) {
    let &[options, steps, ref rest @ ..] = data else {
        return;
    };
    let (steps, input) = rest.split_at(rest.len().min(usize::from(steps % 64)));
    if input.len() > MAX_INPUT {
        return;
    }
    if options & 0x80 == 0 {
        reply(options, steps, input);
    } else {
        tunnel::run(steps, input);
    }
}

/// How a body ends that has come in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// By its own framing, after so many bytes.
    Whole(usize),
    /// It does not.
    Missing,
    /// It is broken.
    Broken,
}

/// The first final head, and where it ends.
fn final_head(input: &[u8]) -> Option<(ResponseHead, usize)> {
    let mut parser = ResponseParser::new(Asked::default());
    let mut start = 0;
    loop {
        let (used, head) = parser.parse(&input[start..]).ok()??;
        start += used;
        if !head.is_interim() {
            return Some((head, start));
        }
    }
}

/// What is known of a body once all of it has been seen.
struct Seen {
    data: Vec<u8>,
    trailers: Vec<u8>,
    end: End,
    whole_at_close: bool,
}

impl Seen {
    fn of(mut decoder: BodyDecoder, input: &[u8]) -> Self {
        let mut data = Vec::new();
        let end = match decoder.decode(input, &mut data) {
            Ok((used, true)) => End::Whole(used),
            Ok(_) => End::Missing,
            Err(_) => End::Broken,
        };
        Self {
            data,
            trailers: decoder.trailers().to_vec(),
            whole_at_close: end == End::Missing && decoder.is_whole_at_close(),
            end,
        }
    }
}

/// Notes how a body has ended.
#[derive(Clone, Default)]
pub(super) struct Ends(Arc<Mutex<Vec<bool>>>);

impl Ends {
    fn read(&self) -> Vec<bool> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl OnEnd for Ends {
    fn ended(&mut self, whole: bool) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push(whole);
    }
}

/// Two ends of a connection, of which neither blocks.
pub(super) fn pair() -> (Socket, UnixStream) {
    let (near, far) = UnixStream::pair().expect("two descriptors are free");
    near.set_nonblocking(true).expect("a socket has modes");
    far.set_nonblocking(true).expect("a socket has modes");
    (Socket::Unix(near), far)
}

/// A server's reply, relayed. Each step is a number of bytes that come, and whether the client then takes some.
fn reply(options: u8, steps: &[u8], input: &[u8]) {
    let option = |bit: u8| options & bit != 0;
    let (closes, trailers) = (option(4), option(8));
    let rules = ReplyRules {
        http11: option(1),
        head_only: false,
        keep_alive: option(2),
    };
    let Some((head, start)) = final_head(input) else {
        return;
    };
    let body = &input[start..];
    let decoder = BodyDecoder::new(head.framing, usize::MAX, MAX_TRAILERS).expect("no limit");
    let decoder = decoder.keeping_trailers();
    if decoder.is_complete() {
        return;
    }
    let seen = Seen::of(decoder.clone(), body);

    let (at_first, steps) = steps.split_first().map_or((0, steps), |(at_first, steps)| {
        (usize::from(*at_first), steps)
    });
    let (ahead, rest) = body.split_at(at_first.min(body.len()));
    let (near, far) = pair();
    let pool = Pool::new(Path::new("/nowhere").into());
    let ends = Ends::default();
    let parts = Parts {
        socket: near,
        ahead: ahead.to_vec(),
        decoder,
        lease: Some(Lease::new(pool.clone(), &head, false)),
        unsent: None,
    };
    let length = match head.framing {
        Framing::Length(length) => Some(length),
        _ => None,
    };
    let passed: Option<IsPassed> = trailers.then_some(|_| true);
    let relay = Relay::new(parts, IDLE, passed, Box::new(ends.clone()));
    let response = Response::relayed(head.status, relay, length);
    let mut sent = Vec::new();
    let (close, payload) = response.into_parts(rules, false, &mut DateCache::default(), &mut sent);
    let Some(Payload::Stream(stream)) = payload else {
        assert_eq!(head.status, 205, "only this one has no body here");
        return;
    };
    let mut conversation = Conversation {
        stream,
        far: Some(far),
        closes,
        rest,
        sent,
        progress: Ok(Progress::More),
    };
    conversation.run(steps);

    let is_whole = matches!(seen.end, End::Whole(_)) || (closes && seen.whole_at_close);
    let is_cut = seen.end == End::Broken || (closes && !is_whole);
    match &conversation.progress {
        Ok(Progress::End) => assert!(is_whole, "the client takes for whole what is not"),
        Err(_) => assert!(is_cut, "what is well was cut"),
        Ok(_) => assert!(!is_whole && !is_cut, "it neither ended nor was cut"),
    }
    let expected: &[bool] = match (is_whole, is_cut) {
        (true, _) => &[true],
        (_, true) => &[false],
        _ => &[],
    };
    assert_eq!(ends.read(), expected);
    let trailers = if trailers { &*seen.trailers } else { &[] };
    check_client(&conversation.sent, &seen, is_whole, close, trailers);

    // The connection is used again if it is well, and if nothing came behind the body.
    let lives = |time| time > Duration::from_secs(1);
    let is_kept = head.keep_alive && head.keep_alive_timeout.is_none_or(lives);
    let is_alone = seen.end == End::Whole(body.len());
    let taken = pool.take(Reuse::Any, Instant::now());
    assert_eq!(taken.is_some(), is_kept && is_alone && !closes);
}

/// A reply on its way.
struct Conversation<'a> {
    stream: Stream,
    /// The server's end of its connection.
    far: Option<UnixStream>,
    /// The server closes when it has sent all.
    closes: bool,
    /// What it has yet to send.
    rest: &'a [u8],
    /// What went to the client.
    sent: Vec<u8>,
    progress: Result<Progress, ErrorKind>,
}

impl Conversation<'_> {
    /// Does these steps, and then all that can still be done.
    fn run(&mut self, steps: &[u8]) {
        for step in steps {
            let takes = step & 0x80 == 0;
            self.step(usize::from(step & 0x7f), takes);
        }
        loop {
            self.step(usize::MAX, true);
            // Nothing more comes.
            if self.rest.is_empty() && self.progress != Ok(Progress::More) {
                return;
            }
        }
    }

    /// So many bytes come, and then the client may take some.
    fn step(&mut self, come: usize, takes: bool) {
        let Source::Relay(relay) = &mut self.stream.source else {
            unreachable!("it is a relay");
        };
        // It hears of what has changed, and of nothing else.
        let count = come.min(self.rest.len());
        if let (Some(socket), 1..) = (&mut self.far, count) {
            send(socket, &mut self.rest, count);
            relay.set_ready(true, false);
        }
        if self.closes && self.rest.is_empty() && self.far.take().is_some() {
            relay.set_ready(true, false);
        }
        let is_over = !matches!(self.progress, Ok(Progress::More | Progress::Dry));
        if is_over || !takes {
            return;
        }
        if !relay.is_readable() {
            self.progress = Ok(Progress::Dry);
            return;
        }
        let before = self.sent.len();
        let filled = self.stream.fill(&mut self.sent);
        self.progress = filled.map_err(|error| error.kind());
        assert!(self.sent.len() - before <= STREAM_STEP + MOST_FRAMING);
        if let (Ok(Progress::End), Source::Relay(relay)) = (&self.progress, &mut self.stream.source)
        {
            relay.give_back(Instant::now());
        }
    }
}

/// Sends so many of the bytes, as far as the socket takes them.
pub(super) fn send(socket: &mut UnixStream, rest: &mut &[u8], count: usize) {
    match socket.write(&rest[..count]) {
        Ok(count) => *rest = &rest[count..],
        Err(error) => {
            // The other end is closed: what is left is lost on its way.
            let closed = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
            assert!(closed.contains(&error.kind()), "{error}");
            *rest = &[];
        }
    }
}

/// Reads what went to the client as the client does.
fn check_client(sent: &[u8], seen: &Seen, is_whole: bool, close: bool, trailers: &[u8]) {
    let (head, start) = final_head(sent).expect("a head of ours");
    let decoder = BodyDecoder::new(head.framing, usize::MAX, MAX_TRAILERS).expect("no limit");
    let got = Seen::of(decoder.keeping_trailers(), &sent[start..]);
    match got.end {
        End::Whole(used) => {
            assert_eq!(used, sent.len() - start, "nothing is behind the end");
            assert!(is_whole, "the client takes for whole what is not");
        }
        End::Missing if head.framing == Framing::UntilClose => assert!(close),
        End::Missing => assert!(!is_whole, "the client waits for more"),
        End::Broken => panic!("the client cannot read it"),
    }
    assert!(seen.data.starts_with(&got.data));
    if is_whole {
        assert_eq!(got.data.len(), seen.data.len());
        let can_have_trailers = head.framing == Framing::Chunked;
        let expected = if can_have_trailers { trailers } else { &[] };
        assert!(fields::iterate(&got.trailers).eq(fields::iterate(expected)));
    }
}
