use super::super::bodies::Bodies;
use super::*;
use crate::http::head::Method;
use crate::internals::invariants::{self, LIMITS, READ, conversation};
use crate::net::peer::Peer;
use crate::server::exchange::ClientKey;
use proptest::prelude::*;
use std::iter;

const MAX_HEAD: usize = LIMITS.max_head;
const MAX_BODY: usize = LIMITS.max_body;
const HEAD_TIMEOUT: Duration = LIMITS.head_timeout;
const BODY_TIMEOUT: Duration = LIMITS.body_timeout;
const IDLE_TIMEOUT: Duration = LIMITS.idle_timeout;
const WRITE_TIMEOUT: Duration = LIMITS.write_timeout;
const REQUEST_TIMEOUT: Duration = LIMITS.request_timeout;

const TICK: Duration = Duration::from_nanos(1);
const SECOND: Duration = Duration::from_secs(1);

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n";
const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const EXPECTING: &[u8] =
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn piece(bytes: &'static [u8]) -> Piece {
    Piece::new(bytes, 0)
}

/// A conversation and its time, with the client's part and the driver's as one call each.
struct Scenario {
    connection: Connection,
    now: Instant,
}

fn give_room(connection: &mut Connection, now: Instant) {
    if let Some((_, size)) = connection.wants_room() {
        connection.give_room(Room::of_its_own(size), now);
    }
}

/// The states, and within them what a client or a driver can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Idle,
    /// An empty line has come, which begins no request.
    Blank,
    Head,
    Body,
    /// In a body whose client waits to be told to go on.
    Expecting,
    /// A request is whole, and the driver has not seen it.
    Whole,
    Answering,
    /// A refusal, which the driver has seen.
    Refused,
    Overdue,
    Replying,
    RepliedInPart,
    Lingering,
    Closed,
}

const STAGES: [Stage; 14] = [
    Stage::Fresh,
    Stage::Idle,
    Stage::Blank,
    Stage::Head,
    Stage::Body,
    Stage::Expecting,
    Stage::Whole,
    Stage::Answering,
    Stage::Refused,
    Stage::Overdue,
    Stage::Replying,
    Stage::RepliedInPart,
    Stage::Lingering,
    Stage::Closed,
];

impl Scenario {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            connection: Connection::new(Arc::new(LIMITS), now),
            now,
        }
    }

    /// Drives a new conversation to a stage, which it enters a second after it began.
    fn at(stage: Stage) -> Self {
        let mut scenario = Self::new();
        scenario.wait(SECOND);
        match stage {
            Stage::Fresh => {}
            Stage::Idle => {
                scenario.send(GET).request();
                scenario.answer(b"", After::Keep);
            }
            Stage::Blank => {
                scenario.send(GET).request();
                scenario.answer(b"", After::Keep).send(b"\r\n");
            }
            Stage::Head => {
                scenario.send(b"GET / HT");
            }
            Stage::Body => {
                scenario.send(POST);
            }
            Stage::Expecting => {
                scenario.send(EXPECTING);
            }
            Stage::Whole => {
                scenario.send(GET);
            }
            Stage::Answering => {
                scenario.send(GET).request();
            }
            Stage::Refused => {
                scenario.send(b"\0").refusal();
            }
            Stage::Overdue => {
                scenario.send(GET).request();
                scenario.expire().overdue();
            }
            Stage::Replying => {
                scenario.send(GET).request();
                scenario.answer(b"reply", After::Keep);
            }
            Stage::RepliedInPart => {
                scenario.send(GET).request();
                scenario.answer(b"", After::More);
            }
            Stage::Lingering => {
                scenario.send(GET).request();
                scenario.answer(b"", After::Close);
            }
            Stage::Closed => scenario.connection.close(CloseReason::Evicted),
        }
        scenario
    }

    fn wait(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self
    }

    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        self.connection.handle_input(bytes, self.now);
        self.give_room();
        self
    }

    /// Gives room to a body that wants some.
    fn give_room(&mut self) {
        give_room(&mut self.connection, self.now);
    }

    fn eof(&mut self) -> &mut Self {
        self.connection.handle_eof(self.now);
        self
    }

    /// Tells the time.
    fn tick(&mut self) -> &mut Self {
        self.connection.handle_timeout(self.now);
        self
    }

    /// Waits until the deadline, and tells it.
    fn expire(&mut self) -> &mut Self {
        self.now = self.connection.next_timeout().expect("a deadline");
        self.tick()
    }

    fn request(&mut self) -> Incoming {
        self.give_room();
        match self.connection.poll_event() {
            Some(ConnectionEvent::Request(incoming)) => incoming,
            other => panic!("expected a request, found {other:?}"),
        }
    }

    fn refusal(&mut self) -> Refusal {
        self.give_room();
        match self.connection.poll_event() {
            Some(ConnectionEvent::Refused(refusal, _)) => refusal,
            other => panic!("expected a refusal, found {other:?}"),
        }
    }

    fn overdue(&mut self) {
        let event = self.connection.poll_event();
        assert!(matches!(event, Some(ConnectionEvent::Overdue)), "{event:?}");
    }

    fn nothing(&mut self) {
        let event = self.connection.poll_event();
        assert!(event.is_none(), "{event:?}");
    }

    fn answer(&mut self, bytes: &'static [u8], after: After) -> &mut Self {
        self.connection.answer([piece(bytes)], after, self.now);
        self
    }

    fn await_more(&mut self) {
        self.connection.await_more(self.now + REQUEST_TIMEOUT);
    }

    /// Sends up to `count` bytes of the output, and returns them.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < count && !self.connection.output().is_empty() {
            let output = self.connection.output();
            let part = output[..output.len().min(count - taken.len())].to_vec();
            self.connection.handle_sent(part.len(), self.now);
            taken.extend(part);
        }
        taken
    }

    fn take_all(&mut self) -> Vec<u8> {
        self.take(usize::MAX)
    }

    /// How long until the deadline.
    fn left(&self) -> Option<Duration> {
        let deadline = self.connection.next_timeout()?;
        Some(
            deadline
                .checked_duration_since(self.now)
                .expect("a deadline in the past"),
        )
    }

    fn reason(&self) -> Option<CloseReason> {
        self.connection.close_reason()
    }
}

#[test]
fn every_stage_has_its_deadline() {
    for stage in STAGES {
        let left = match stage {
            Stage::Fresh => Some(HEAD_TIMEOUT.saturating_sub(SECOND)),
            Stage::Idle | Stage::Blank => Some(IDLE_TIMEOUT),
            Stage::Head => Some(HEAD_TIMEOUT),
            Stage::Body | Stage::Expecting => Some(BODY_TIMEOUT),
            Stage::Whole | Stage::Answering | Stage::Refused => Some(REQUEST_TIMEOUT),
            // The driver has to act; nothing else is awaited.
            Stage::Overdue | Stage::Closed => None,
            Stage::Replying | Stage::RepliedInPart => Some(WRITE_TIMEOUT),
            Stage::Lingering => Some(LINGER),
        };
        assert_eq!(Scenario::at(stage).left(), left, "{stage:?}");
    }
}

#[test]
fn an_early_timeout_does_nothing() {
    for stage in STAGES {
        let mut scenario = Scenario::at(stage);
        let Some(left) = scenario.left() else {
            continue;
        };
        let before = format!("{:?}", scenario.connection);
        scenario.tick();
        scenario.wait(left.saturating_sub(TICK)).tick();
        assert_eq!(format!("{:?}", scenario.connection), before, "{stage:?}");
    }
}

#[test]
fn a_timeout_after_the_end_does_nothing() {
    let mut scenario = Scenario::at(Stage::Closed);
    scenario.wait(REQUEST_TIMEOUT).tick().nothing();
    assert_eq!(scenario.reason(), Some(CloseReason::Evicted));
}

#[test]
fn at_its_deadline_every_stage_ends_as_it_should() {
    for stage in STAGES {
        let mut scenario = Scenario::at(stage);
        if scenario.left().is_none() {
            continue;
        }
        scenario.expire();
        let reason = match stage {
            // No request has begun, so no client waits for an answer; and one in the air would be taken for that of
            // the next request.
            Stage::Fresh | Stage::Idle | Stage::Blank => Some(CloseReason::IdleTimeout),
            Stage::Head | Stage::Body | Stage::Expecting => {
                assert_eq!(scenario.refusal(), Refusal::TooSlow, "{stage:?}");
                None
            }
            Stage::Whole => {
                scenario.request();
                None
            }
            Stage::Answering | Stage::Refused => {
                scenario.overdue();
                None
            }
            Stage::Replying | Stage::RepliedInPart => Some(CloseReason::WriteTimeout),
            Stage::Lingering => Some(CloseReason::Finished),
            Stage::Overdue | Stage::Closed => unreachable!("they have none"),
        };
        assert_eq!(scenario.reason(), reason, "{stage:?}");
        scenario.nothing();
    }
}

#[test]
fn an_eof_ends_every_stage_as_it_should() {
    for stage in STAGES {
        let mut scenario = Scenario::at(stage);
        scenario.eof();
        assert!(!scenario.connection.wants_input(), "{stage:?}");
        match stage {
            Stage::Fresh | Stage::Idle | Stage::Blank => {
                assert_eq!(scenario.reason(), Some(CloseReason::Client), "{stage:?}");
            }
            Stage::Head | Stage::Body | Stage::Expecting => {
                assert!(
                    matches!(scenario.refusal(), Refusal::Malformed(_)),
                    "{stage:?}"
                );
                scenario.answer(b"400", After::Close).take_all();
                assert_eq!(scenario.reason(), Some(CloseReason::Finished), "{stage:?}");
            }
            Stage::Whole | Stage::Answering | Stage::Refused | Stage::Overdue => {
                assert_eq!(scenario.reason(), None, "{stage:?}");
                scenario.answer(b"reply", After::Keep);
                assert_eq!(scenario.take_all(), b"reply", "{stage:?}");
                assert_eq!(scenario.reason(), Some(CloseReason::Client), "{stage:?}");
            }
            Stage::Replying => {
                assert_eq!(scenario.take_all(), b"reply");
                assert_eq!(scenario.reason(), Some(CloseReason::Client));
            }
            Stage::RepliedInPart => {
                assert!(scenario.connection.wants_more());
                assert_eq!(scenario.reason(), None);
            }
            // What it was sent has been said to be the last; it does not matter who closes first.
            Stage::Lingering => assert_eq!(scenario.reason(), Some(CloseReason::Finished)),
            Stage::Closed => assert_eq!(scenario.reason(), Some(CloseReason::Evicted)),
        }
        scenario.nothing();
    }
}

#[test]
fn input_is_wanted_where_it_is_read_and_nowhere_else() {
    for stage in STAGES {
        let wanted = matches!(
            stage,
            Stage::Fresh
                | Stage::Idle
                | Stage::Blank
                | Stage::Head
                | Stage::Body
                | Stage::Expecting
                | Stage::Lingering
        );
        let connection = Scenario::at(stage).connection;
        assert_eq!(connection.wants_input(), wanted, "{stage:?}");
    }
}

#[test]
fn a_stage_is_told_by_one_question_at_most() {
    for stage in STAGES {
        let connection = Scenario::at(stage).connection;
        let answers = [
            connection.is_idle(),
            connection.is_answering(),
            connection.is_replying(),
            connection.is_lingering(),
            connection.close_reason().is_some(),
        ];
        let expected = match stage {
            Stage::Fresh | Stage::Idle | Stage::Blank => Some(0),
            Stage::Head | Stage::Body | Stage::Expecting => None,
            Stage::Whole | Stage::Answering | Stage::Refused | Stage::Overdue => Some(1),
            Stage::Replying | Stage::RepliedInPart => Some(2),
            Stage::Lingering => Some(3),
            Stage::Closed => Some(4),
        };
        let found: Vec<_> = (0..answers.len()).filter(|&index| answers[index]).collect();
        assert_eq!(found, Vec::from_iter(expected), "{stage:?}");
        let more = stage == Stage::RepliedInPart;
        assert_eq!(connection.wants_more(), more, "{stage:?}");
    }
}

#[test]
fn whatever_the_stage_it_closes_for_the_first_reason_and_lets_go_of_everything() {
    let reasons = [
        CloseReason::Client,
        CloseReason::Finished,
        CloseReason::IdleTimeout,
        CloseReason::WriteTimeout,
        CloseReason::Reset,
        CloseReason::Evicted,
        CloseReason::Cut,
        CloseReason::Stopped,
    ];
    for stage in STAGES.into_iter().filter(|&stage| stage != Stage::Closed) {
        for reason in reasons {
            let mut scenario = Scenario::at(stage);
            scenario.connection.close(reason);
            scenario.connection.close(CloseReason::Evicted);
            assert_eq!(scenario.reason(), Some(reason), "{stage:?}");
            assert_eq!(scenario.left(), None, "{stage:?}");
            assert_eq!(scenario.connection.held(), 0, "{stage:?}");
            scenario.nothing();
        }
    }
}

/// Messages from workers may be under way when a conversation ends.
#[test]
fn nothing_revives_what_is_closed() {
    let mut scenario = Scenario::at(Stage::Closed);
    scenario.send(GET).eof().wait(SECOND).tick();
    scenario.answer(b"late", After::More);
    scenario.await_more();
    scenario.connection.handle_sent(0, scenario.now);
    scenario.nothing();
    assert_eq!(scenario.reason(), Some(CloseReason::Evicted));
    assert_eq!(scenario.connection.output(), b"");
    assert_eq!(scenario.left(), None);
    assert_eq!(scenario.connection.held(), 0);
}

#[test]
fn a_head_is_due_from_its_first_byte_however_it_drips() {
    let mut scenario = Scenario::at(Stage::Idle);
    scenario.wait(IDLE_TIMEOUT.saturating_sub(TICK));
    for &byte in &GET[..9] {
        scenario.send(&[byte]).wait(SECOND).tick();
        scenario.nothing();
    }
    assert_eq!(
        scenario.left(),
        Some(HEAD_TIMEOUT.saturating_sub(9 * SECOND))
    );
    scenario.expire();
    assert_eq!(scenario.refusal(), Refusal::TooSlow);
}

#[test]
fn a_body_is_due_from_its_head_however_it_drips() {
    for (head, byte) in [(POST, b"x"), (CHUNKED, b"1")] {
        let mut scenario = Scenario::new();
        scenario.send(head);
        for _ in 0..3 {
            scenario.wait(SECOND).send(byte).tick();
        }
        assert_eq!(
            scenario.left(),
            Some(BODY_TIMEOUT.saturating_sub(3 * SECOND))
        );
        scenario.expire();
        assert_eq!(scenario.refusal(), Refusal::TooSlow);
    }
}

#[test]
fn a_request_is_due_from_when_it_is_whole() {
    let mut scenario = Scenario::at(Stage::Body);
    scenario.wait(5 * SECOND).send(b"body");
    assert_eq!(scenario.request().body, b"body");
    assert_eq!(scenario.left(), Some(REQUEST_TIMEOUT));
}

#[test]
fn only_progress_puts_off_the_write_deadline() {
    let mut scenario = Scenario::at(Stage::Replying);
    scenario.wait(WRITE_TIMEOUT.saturating_sub(TICK));
    scenario.connection.handle_sent(0, scenario.now);
    assert_eq!(scenario.left(), Some(TICK));
    scenario.take(1);
    assert_eq!(scenario.left(), Some(WRITE_TIMEOUT));
    scenario.expire();
    assert_eq!(scenario.reason(), Some(CloseReason::WriteTimeout));
}

#[test]
fn a_lingering_client_that_keeps_sending_goes_no_later() {
    let mut scenario = Scenario::at(Stage::Lingering);
    scenario.wait(LINGER / 2).send(GET).tick().nothing();
    assert_eq!(scenario.left(), Some(LINGER / 2));
    scenario.expire();
    assert_eq!(scenario.reason(), Some(CloseReason::Finished));
}

/// An empty line was taken for the first of a head: ten seconds later a 408 was in the air, which the client read as
/// the answer to its next request; and a client that closed was told that its request ended in its middle.
#[test]
fn an_empty_line_after_a_body_begins_no_request() {
    for blank in [&b"\r"[..], b"\r\n", b"\r\n\r", b"\r\n\r\n"] {
        let mut scenario = Scenario::new();
        scenario.send(POST).send(b"body").send(blank).request();
        scenario.answer(b"", After::Keep).wait(SECOND);
        assert!(scenario.connection.is_idle());
        assert!(scenario.connection.wants_input());
        assert_eq!(scenario.left(), Some(IDLE_TIMEOUT.saturating_sub(SECOND)));
    }
    let mut scenario = Scenario::at(Stage::Blank);
    scenario.wait(2 * SECOND).send(b"\r\nG");
    assert_eq!(scenario.left(), Some(HEAD_TIMEOUT));
    scenario.send(&GET[1..]);
    assert_eq!(scenario.request().head.target(), "/");
}

#[test]
fn more_empty_lines_than_a_client_needs_are_refused() {
    let mut scenario = Scenario::at(Stage::Idle);
    scenario.send(b"\r\n\r\n").nothing();
    scenario.send(b"\r\n");
    assert!(matches!(scenario.refusal(), Refusal::Malformed(_)));
}

#[test]
fn a_request_without_a_body_is_whole_with_its_head() {
    let mut scenario = Scenario::new();
    let bytes = b"HEAD /a?b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let incoming = scenario.send(bytes).request();
    assert_eq!(incoming.head.method, Method::Head);
    assert_eq!(incoming.head.target(), "/a?b");
    assert!(!incoming.head.keep_alive);
    assert_eq!(incoming.body, b"");
    scenario.nothing();
}

#[test]
fn a_body_is_handed_over_decoded() {
    let cases = [
        (POST, &b"body"[..], &b"body"[..]),
        (
            CHUNKED,
            b"2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nA: b\r\n\r\n",
            b"body",
        ),
        (CHUNKED, b"0\r\n\r\n", b""),
    ];
    for (head, sent, body) in cases {
        let mut scenario = Scenario::new();
        assert_eq!(scenario.send(head).send(sent).request().body, body);
        let whole = [head, sent].concat();
        assert_eq!(Scenario::new().send(&whole).request().body, body);
    }
}

/// A conversation whose body waits for room that somebody else has.
fn without_room(sent: &[u8]) -> (Scenario, Room) {
    let bodies = Bodies::new(MAX_BODY);
    let client = ClientKey {
        slot: 0,
        generation: 0,
    };
    let taken = bodies.take(Peer::V4(0), MAX_BODY, client).unwrap();
    let mut scenario = Scenario::new();
    scenario.connection.handle_input(sent, scenario.now);
    let (_, size) = scenario.connection.wants_room().expect("a body to come");
    let place = bodies.take(Peer::V4(1), size, client).unwrap_err();
    scenario.connection.await_room(place);
    (scenario, taken)
}

#[test]
fn a_body_without_room_is_not_read_and_goes_on_once_it_has_room() {
    for ahead in [&b""[..], b"bo", b"body", b"bodyGET"] {
        let (mut scenario, taken) = without_room(&[POST, ahead].concat());
        assert!(scenario.connection.wants_room().is_none());
        assert!(!scenario.connection.wants_input());
        scenario.nothing();
        assert_eq!(scenario.left(), Some(BODY_TIMEOUT));
        scenario.wait(SECOND);
        drop(taken);
        scenario
            .connection
            .give_room(Room::of_its_own(4), scenario.now);
        // The time that it waited counts.
        if ahead.len() < 4 {
            assert_eq!(scenario.left(), Some(BODY_TIMEOUT.saturating_sub(SECOND)));
            scenario.send(&b"body"[ahead.len()..]);
        }
        assert_eq!(scenario.request().body, b"body");
    }
}

#[test]
fn a_client_that_asks_whether_to_go_on_is_told_so_when_there_is_room() {
    let (mut scenario, _taken) = without_room(EXPECTING);
    assert_eq!(scenario.take_all(), b"");
    scenario
        .connection
        .give_room(Room::of_its_own(4), scenario.now);
    assert_eq!(scenario.take_all(), CONTINUE);
}

#[test]
fn a_body_that_found_no_room_in_time_is_refused_and_its_place_given_up() {
    let (mut scenario, taken) = without_room(POST);
    scenario.expire();
    assert_eq!(scenario.refusal(), Refusal::NoRoom);
    let bodies = taken.bodies();
    assert_eq!(bodies.usage().waiting, 0);
    // Room that comes too late changes nothing.
    scenario
        .connection
        .give_room(Room::of_its_own(4), scenario.now);
    assert!(scenario.connection.is_answering() && !scenario.connection.wants_input());
}

#[test]
fn a_client_that_has_sent_all_and_ended_is_served_once_there_is_room() {
    let (mut scenario, _taken) = without_room(&[POST, b"body"].concat());
    scenario.eof();
    scenario.nothing();
    scenario
        .connection
        .give_room(Room::of_its_own(4), scenario.now);
    assert_eq!(scenario.request().body, b"body");

    let (mut scenario, _taken) = without_room(&[POST, b"bo"].concat());
    scenario.eof();
    scenario.nothing();
    scenario
        .connection
        .give_room(Room::of_its_own(4), scenario.now);
    assert_eq!(scenario.refusal().status(), 400);
}

#[test]
fn a_chunked_body_has_room_for_the_longest_until_it_is_whole() {
    let mut scenario = Scenario::new();
    scenario.connection.handle_input(CHUNKED, scenario.now);
    let wanted = scenario.connection.wants_room().map(|(_, size)| size);
    assert_eq!(wanted, Some(MAX_BODY));
    let room = Room::of_its_own(MAX_BODY);
    let bodies = room.bodies();
    scenario.connection.give_room(room, scenario.now);
    scenario.send(b"4\r\nbody\r\n");
    assert_eq!(bodies.usage().held, MAX_BODY);
    let request = scenario.send(b"0\r\n\r\n").request();
    assert_eq!((request.body.len(), bodies.usage().held), (4, 4));
    drop(request);
    assert_eq!(bodies.usage().held, 0);
}

#[test]
fn what_can_not_be_served_is_refused() {
    let long_target = [b"GET /", "a".repeat(MAX_HEAD).as_bytes()].concat();
    let long_head = [&GET[..GET.len() - 2], "A: b\r\n".repeat(64).as_bytes()].concat();
    let long_length = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        MAX_BODY + 1
    );
    let long_chunk = [CHUNKED, format!("{:x}\r\n", MAX_BODY + 1).as_bytes()].concat();
    let cases: [(&[u8], u16); 10] = [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (&[CHUNKED, b"zz\r\n"].concat(), 400),
        (long_length.as_bytes(), 413),
        (&long_chunk, 413),
        (&long_target, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nExpect: cake\r\n\r\n", 417),
        (&long_head, 431),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
        ),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
    ];
    for (input, status) in cases {
        let mut scenario = Scenario::new();
        let refusal = scenario.send(input).refusal();
        assert_eq!(refusal.status(), status, "{}", input.escape_ascii());
        assert!(refusal.must_close());
        assert_eq!(scenario.connection.held(), 0, "nothing of it is of use");
        assert_eq!(scenario.left(), Some(REQUEST_TIMEOUT));
    }
}

#[test]
fn the_bounds_themselves_are_allowed() {
    let fill = "a".repeat(MAX_HEAD - GET.len());
    let head = format!("GET /{fill} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.len(), MAX_HEAD);
    Scenario::new().send(head.as_bytes()).request();

    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY}\r\n\r\n");
    let body = [b'x'; MAX_BODY];
    let incoming = Scenario::new().send(head.as_bytes()).send(&body).request();
    assert_eq!(incoming.body, body);
}

#[test]
fn a_client_that_waits_is_told_to_go_on() {
    let mut scenario = Scenario::at(Stage::Expecting);
    scenario.nothing();
    assert_eq!(scenario.connection.output(), CONTINUE);
    assert_eq!(scenario.take_all(), CONTINUE);
    assert_eq!(scenario.left(), Some(BODY_TIMEOUT), "it is no reply");
    assert_eq!(scenario.send(b"body").request().body, b"body");
    assert_eq!(scenario.connection.output(), b"");
}

#[test]
fn a_client_is_not_told_to_go_on_that_need_not_be() {
    let changed = |from, to| {
        let text = str::from_utf8(EXPECTING).unwrap();
        assert!(text.contains(from));
        text.replace(from, to).into_bytes()
    };
    let cases = [
        [EXPECTING, b"b"].concat(),
        [EXPECTING, b"body"].concat(),
        changed("HTTP/1.1", "HTTP/1.0"),
        changed("Length: 4", "Length: 0"),
        changed("Content-Length: 4\r\n", ""),
        changed("Length: 4", "Length: 4000"),
    ];
    for input in cases {
        let mut scenario = Scenario::new();
        scenario.send(&input);
        let output = scenario.connection.output();
        assert_eq!(output, b"", "{}", input.escape_ascii());
    }
}

#[test]
fn a_reply_comes_after_the_continue_that_is_not_sent_yet() {
    let mut scenario = Scenario::at(Stage::Expecting);
    assert_eq!(scenario.take(5), &CONTINUE[..5]);
    scenario.send(b"body").request();
    scenario.answer(b"reply", After::Keep);
    assert!(!scenario.connection.is_idle());
    assert_eq!(scenario.take_all(), [&CONTINUE[5..], b"reply"].concat());
    assert!(scenario.connection.is_idle());
}

#[test]
fn a_refusal_comes_after_the_continue_too() {
    let mut scenario = Scenario::at(Stage::Expecting);
    scenario.expire();
    assert_eq!(scenario.refusal(), Refusal::TooSlow);
    scenario.answer(b"408", After::Close);
    assert_eq!(scenario.take_all(), [CONTINUE, b"408"].concat());
    assert!(scenario.connection.is_lingering());
}

#[test]
fn pipelined_requests_come_in_order_and_one_at_a_time() {
    let mut scenario = Scenario::new();
    let mut input = Vec::new();
    for number in 0..16 {
        input.extend(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").bytes());
        input.extend(
            format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n").bytes(),
        );
        input.extend(b"body\r\n");
    }
    scenario.send(&input);
    for number in 0..16 {
        for body in [&b""[..], b"body"] {
            let incoming = scenario.request();
            assert_eq!(incoming.head.target(), format!("/{number}"));
            assert_eq!(incoming.body, body);
            scenario.nothing();
            scenario.answer(b"reply", After::Keep).nothing();
            assert_eq!(scenario.take_all(), b"reply");
        }
    }
    assert!(scenario.connection.is_idle());
    assert_eq!(scenario.left(), Some(IDLE_TIMEOUT));
}

#[test]
fn input_that_comes_unasked_is_kept_in_order() {
    let (start, rest) = GET.split_at(9);
    for stage in [Stage::Answering, Stage::Replying, Stage::RepliedInPart] {
        let mut scenario = Scenario::at(stage);
        scenario
            .send(start)
            .send(rest)
            .send(POST)
            .send(b"body")
            .nothing();
        scenario.answer(b"", After::Keep).take_all();
        assert_eq!(scenario.request().head.method, Method::Get);
        scenario.answer(b"", After::Keep);
        assert_eq!(scenario.request().body, b"body");
        scenario.answer(b"", After::Keep);
        assert!(scenario.connection.is_idle());
    }
}

#[test]
fn the_next_head_is_due_from_the_reply_when_it_was_sent_ahead() {
    let mut scenario = Scenario::new();
    scenario.send(GET).send(b"GET").request();
    scenario
        .wait(20 * SECOND)
        .answer(b"", After::Keep)
        .nothing();
    assert!(!scenario.connection.is_idle());
    assert_eq!(scenario.left(), Some(HEAD_TIMEOUT));
}

#[test]
fn what_follows_the_last_request_is_not_looked_at() {
    let mut scenario = Scenario::new();
    scenario.send(GET).send(GET).request();
    scenario.answer(b"reply", After::Close).take_all();
    scenario.nothing();
    assert!(scenario.connection.is_lingering());
    assert_eq!(scenario.connection.held(), 0);
}

#[test]
fn an_eof_comes_after_what_was_sent_ahead() {
    let mut scenario = Scenario::new();
    scenario
        .send(GET)
        .send(POST)
        .send(b"body")
        .send(b"GET")
        .eof();
    scenario.request();
    scenario.answer(b"", After::Keep);
    assert_eq!(scenario.request().body, b"body");
    scenario.answer(b"", After::Keep);
    assert!(matches!(scenario.refusal(), Refusal::Malformed(_)));
    scenario.answer(b"", After::Close);
    assert_eq!(scenario.reason(), Some(CloseReason::Finished));
}

#[test]
fn a_refused_client_reads_its_refusal_before_it_goes() {
    let mut scenario = Scenario::at(Stage::Refused);
    scenario.answer(b"400", After::Close);
    assert!(!scenario.connection.wants_input());
    assert_eq!(scenario.take(2), b"40");
    assert!(scenario.connection.is_replying());
    assert_eq!(scenario.take(2), b"0");
    assert!(scenario.connection.is_lingering());
    assert!(scenario.connection.wants_input());

    let junk = [b'x'; 1 << 14];
    for _ in 0..LINGER_BYTES / junk.len() {
        scenario.send(&junk).nothing();
        assert_eq!(scenario.connection.held(), 0);
    }
    assert_eq!(scenario.reason(), None, "the bound itself is allowed");
    scenario.send(b"x");
    assert_eq!(scenario.reason(), Some(CloseReason::Finished));
}

#[test]
fn an_answer_of_no_piece_was_sent_by_somebody_else() {
    for after in [After::Keep, After::Close, After::More] {
        let mut scenario = Scenario::at(Stage::Answering);
        scenario.connection.answer([], after, scenario.now);
        assert_eq!(scenario.connection.output(), b"");
        assert_eq!(scenario.connection.is_idle(), after == After::Keep);
        assert_eq!(scenario.connection.is_lingering(), after == After::Close);
        assert_eq!(scenario.connection.wants_more(), after == After::More);
    }
}

#[test]
fn an_answer_of_several_pieces_goes_out_in_order() {
    let pieces = || {
        [
            piece(b""),
            Piece::new(b"head".to_vec(), 2),
            piece(b""),
            Piece::new(b"sent".to_vec(), 4),
            piece(b"body"),
            piece(b""),
        ]
    };
    for step in 1..=7 {
        let mut scenario = Scenario::at(Stage::Answering);
        scenario
            .connection
            .answer(pieces(), After::Keep, scenario.now);
        let mut sent = Vec::new();
        while scenario.connection.is_replying() {
            let part = scenario.take(step);
            assert!(!part.is_empty());
            sent.extend(part);
        }
        assert_eq!(sent, b"adbody");
        assert!(scenario.connection.is_idle());
    }
}

#[test]
fn a_reply_in_parts_waits_for_the_client_then_for_the_worker() {
    let mut scenario = Scenario::at(Stage::Answering);
    scenario.answer(b"one", After::More);
    assert!(!scenario.connection.wants_more(), "it is not sent yet");
    assert_eq!(scenario.left(), Some(WRITE_TIMEOUT));
    assert_eq!(scenario.take_all(), b"one");
    for part in [&b"two"[..], b"three"] {
        assert!(scenario.connection.wants_more());
        scenario.wait(SECOND).await_more();
        assert!(!scenario.connection.wants_more());
        assert!(scenario.connection.is_answering());
        assert_eq!(scenario.left(), Some(REQUEST_TIMEOUT));
        scenario.answer(part, After::More);
        assert_eq!(scenario.take_all(), part);
    }
    scenario.await_more();
    scenario.answer(b"end", After::Keep);
    assert_eq!(scenario.take_all(), b"end");
    assert!(scenario.connection.is_idle());
}

#[test]
fn a_worker_is_late_with_a_part_as_with_a_whole() {
    let mut scenario = Scenario::at(Stage::RepliedInPart);
    scenario.await_more();
    scenario.expire().overdue();
    scenario.nothing();
    scenario.answer(b"", After::Close);
    assert!(scenario.connection.is_lingering());
}

#[test]
fn no_part_is_awaited_where_none_is_to_come() {
    for stage in STAGES {
        if stage == Stage::RepliedInPart {
            continue;
        }
        let mut scenario = Scenario::at(stage);
        let before = format!("{:?}", scenario.connection);
        scenario.wait(TICK).await_more();
        assert_eq!(format!("{:?}", scenario.connection), before, "{stage:?}");
    }
}

/// A timeout used to put its own event in the place of a request that the driver had not taken.
#[test]
fn a_request_is_not_lost_to_its_deadline() {
    let mut scenario = Scenario::at(Stage::Whole);
    scenario.expire();
    assert_eq!(scenario.left(), Some(REQUEST_TIMEOUT));
    scenario.request();
    scenario.expire().overdue();
}

#[test]
fn what_is_answered_is_not_overdue() {
    let mut scenario = Scenario::at(Stage::Answering);
    scenario
        .expire()
        .answer(b"just in time", After::Keep)
        .nothing();
    scenario.take_all();
    assert!(scenario.connection.wants_input());
}

#[test]
fn an_overdue_request_is_answered_late_and_once() {
    let mut scenario = Scenario::at(Stage::Overdue);
    scenario.wait(REQUEST_TIMEOUT).tick().nothing();
    scenario.answer(b"504", After::Keep);
    assert_eq!(scenario.take_all(), b"504");
    assert!(scenario.connection.is_idle());
}

#[test]
fn an_idle_client_holds_nothing_and_a_slow_one_what_it_sent() {
    let mut input = GET.repeat(READ / GET.len());
    let slow = b"GET / HT";
    for rest in [&b""[..], slow] {
        let mut scenario = Scenario::new();
        input.extend_from_slice(rest);
        scenario.send(&input);
        while scenario.connection.poll_event().is_some() {
            scenario.answer(b"", After::Keep);
        }
        assert_eq!(scenario.connection.held(), rest.len());
    }
}

#[test]
fn a_body_takes_no_more_room_than_it_may_have() {
    for head in [
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MAX_BODY}\r\n\r\n").as_bytes(),
        CHUNKED,
    ] {
        // Doubling from one read to the next would end beyond the bound.
        for step in [1, 3, 7, 333, 501] {
            let mut scenario = Scenario::new();
            scenario.send(head);
            let canonical = scenario.connection.held();
            let mut left = MAX_BODY;
            while left > 0 {
                let count = step.min(left);
                left -= count;
                let data = vec![b'x'; count];
                if head == CHUNKED {
                    let end = if left == 0 { "0\r\n\r\n" } else { "" };
                    scenario.send(format!("{count:x}\r\n").as_bytes());
                    scenario.send(&data).send(format!("\r\n{end}").as_bytes());
                } else {
                    scenario.send(&data);
                }
                assert!(scenario.connection.held() <= canonical + MAX_BODY);
            }
            assert_eq!(scenario.request().body.len(), MAX_BODY);
        }
    }
}

/// Requests that are in order, and some that are not.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let sized = bytes.clone().prop_map(|body| {
        let head = format!(
            "PUT /sized HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    });
    let chunked = prop::collection::vec(bytes.clone(), 0..5).prop_map(|chunks| {
        let mut request = CHUNKED.to_vec();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            request.extend(format!("{:x};e\r\n", chunk.len()).bytes());
            request.extend(chunk);
            request.extend(b"\r\n");
        }
        request.extend(b"0\r\nTrailer: x\r\n\r\n");
        request
    });
    let fixed = prop::sample::select(vec![
        GET,
        b"\r\n",
        b"\r\n\r",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        b"GET /\xe9 HTTP/1.1\r\nHost: a\r\nX: \xff\xff\xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
    ])
    .prop_map(<[u8]>::to_vec);
    let one = prop_oneof![4 => fixed, 2 => sized, 2 => chunked, 1 => bytes];
    prop::collection::vec(one, 1..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_events(
        input in requests(),
        sizes in prop::collection::vec(1..60_usize, 0..200),
        step in 1..READ,
    ) {
        let whole = conversation(&input, iter::repeat(READ));
        prop_assert_eq!(&conversation(&input, sizes), &whole);
        prop_assert_eq!(&conversation(&input, iter::repeat(step)), &whole);
        prop_assert_eq!(&conversation(&input, iter::repeat(1)), &whole);
    }

    #[test]
    fn no_input_panics_or_holds_too_much(input in prop::collection::vec(any::<u8>(), 0..4_000)) {
        invariants::connection(&input);
    }

    #[test]
    fn no_order_of_calls_panics_or_leaves_a_deadline_in_the_past(
        steps in prop::collection::vec((0..10_u8, any::<u8>(), requests()), 0..40),
    ) {
        let mut script = Vec::new();
        for (call, number, mut input) in steps {
            script.extend([call, number]);
            if call < 4 {
                input.resize(number.into(), b'x');
                script.extend(input);
            }
        }
        invariants::calls(&script);
    }
}

/// A client that sends ahead without end had 64 KiB of it kept.
#[test]
fn of_later_requests_no_more_than_a_head_is_read_and_kept() {
    for request in [GET, POST, CHUNKED] {
        let body = match request {
            GET => &b""[..],
            POST => b"abcd",
            _ => b"4\r\nabcd\r\n0\r\n\r\n",
        };
        let endless = [request, body].concat().repeat(1_000);
        let now = Instant::now();
        let mut connection = Connection::new(Arc::new(LIMITS), now);
        let mut rest = &endless[..];
        for _ in 0..500 {
            while connection.wants_input() {
                let (came, later) = rest.split_at(connection.read_limit().min(READ));
                assert!(!came.is_empty());
                connection.handle_input(came, now);
                give_room(&mut connection, now);
                rest = later;
            }
            assert!(connection.input.len() <= MAX_HEAD + head::MAX_EMPTY_BYTES);
            give_room(&mut connection, now);
            assert!(matches!(
                connection.poll_event(),
                Some(ConnectionEvent::Request(_))
            ));
            connection.answer([], After::Keep, now);
        }
    }
}

#[test]
fn of_a_body_as_much_is_read_as_it_lacks() {
    let now = Instant::now();
    let limits = Limits {
        max_body: 1 << 20,
        ..LIMITS
    };
    let mut connection = Connection::new(Arc::new(limits), now);
    connection.handle_input(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc",
        now,
    );
    give_room(&mut connection, now);
    assert_eq!(connection.read_limit(), 999_997);
}
