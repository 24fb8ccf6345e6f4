use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use nix::errno::Errno;

use super::super::config::ProxyConfig;
use super::super::headers::Forwarded;
use super::super::{Core, Proxy};
use super::*;
use crate::Request;

const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLISECOND: Duration = Duration::from_millis(1);

/// A sidecar in front of a service that the test plays.
fn sidecar() -> (Proxy, TcpListener) {
    sidecar_to("")
}

/// The same, with options behind the service's URL.
fn sidecar_to(options: &str) -> (Proxy, TcpListener) {
    let service = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = service.local_addr().expect("it is bound");
    let proxy = Proxy::start(ProxyConfig {
        try_timeout: Some(HOUR),
        retries: 1,
        ..ProxyConfig::to([format!("http://{address}{options}")])
    });
    (proxy.expect("it starts"), service)
}

fn request(method: &str) -> Request {
    Request::builder()
        .method(method)
        .remaining(3 * HOUR)
        .build()
}

fn forwarded() -> Forwarded {
    Forwarded::of_fields(b"Host: a\r\n".to_vec(), None)
}

/// Takes a request without a body.
fn accept(service: &TcpListener) -> TcpStream {
    let (mut stream, _) = service.accept().expect("a connection");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    stream
}

/// Goes on when something has come.
fn hear(tries: &mut Tries, way: &Way<'_>) -> Step {
    let (socket, interest) = tries.awaited().expect("a socket");
    let waited = socket.wait(interest, Deadline::after(HOUR), None);
    waited.expect("it comes");
    tries.resume(way, Heard::Ready { readable: true }, Instant::now())
}

fn pending(core: &Core) -> u32 {
    core.upstreams.balancer.endpoints()[0].pending
}

#[test]
fn a_try_is_over_at_its_time_and_the_next_begins_after_a_pause() {
    let (proxy, _service) = sidecar();
    let (core, request, forwarded) = (&proxy.core, request("GET"), forwarded());
    let way = core.way(&request, &forwarded);
    let mut tries = core.tries(&request);
    assert!(matches!(tries.begin(&way), Step::Waits));
    let due = tries.due();
    let before = due.checked_sub(MILLISECOND).expect("an hour");
    for event in [Heard::Over, Heard::Ready { readable: true }] {
        assert!(matches!(tries.resume(&way, event, before), Step::Waits));
    }
    assert_eq!(pending(core), 1);
    let Step::Again(at) = tries.resume(&way, Heard::Over, due) else {
        panic!("it may be sent again");
    };
    assert!(at >= due && at <= due + 25 * MILLISECOND);
    assert!(tries.awaited().is_none() && tries.due() == at);
    assert_eq!(pending(core), 0, "nobody is asked during the pause");
    let resumed = tries.resume(&way, Heard::Over, due);
    assert!(matches!(resumed, Step::Again(then) if then == at));

    assert!(matches!(tries.begin(&way), Step::Waits));
    let due = tries.due();
    let Step::Done(Err(Failure::Client(error))) = tries.resume(&way, Heard::Over, due) else {
        panic!("there is one retry and no other");
    };
    assert_eq!(error.status(), 504);
    assert_eq!(pending(core), 0);
}

#[test]
fn what_may_not_be_sent_twice_is_over_with_its_first_try() {
    let (proxy, _service) = sidecar();
    let (core, request, forwarded) = (&proxy.core, request("POST"), forwarded());
    let way = core.way(&request, &forwarded);
    for (event, status) in [(Heard::Over, 504), (Heard::Cancelled, 499)] {
        let mut tries = core.tries(&request);
        assert!(matches!(tries.begin(&way), Step::Waits));
        let due = tries.due();
        let Step::Done(Err(Failure::Client(error))) = tries.resume(&way, event, due) else {
            panic!("it is over");
        };
        assert_eq!(error.status(), status);
    }
}

#[test]
fn an_answer_that_comes_in_pieces_is_waited_for_and_its_connection_kept() {
    let (proxy, service) = sidecar();
    let (core, request, forwarded) = (&proxy.core, request("GET"), forwarded());
    let way = core.way(&request, &forwarded);
    let mut tries = core.tries(&request);
    assert!(matches!(tries.begin(&way), Step::Waits));
    let mut stream = accept(&service);
    let mut step = Step::Waits;
    for piece in [
        "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 2",
        "00 OK\r\nContent-Length: 2\r\n",
        "\r\nhi",
    ] {
        assert!(matches!(step, Step::Waits));
        stream.write_all(piece.as_bytes()).expect("it is taken");
        step = hear(&mut tries, &way);
    }
    let Step::Done(Ok(answer)) = step else {
        panic!("it is whole");
    };
    assert_eq!((answer.head.status, answer.interim.len()), (200, 1));
    assert!(matches!(answer.body, AnswerBody::Whole(body) if body == b"hi"));
    assert_eq!(pending(core), 0);

    // The service closes just then: another connection is made, and no try is used up by it.
    let mut tries = core.tries(&request);
    assert!(matches!(tries.begin(&way), Step::Waits));
    drop(stream);
    let now = Instant::now();
    let (socket, interest) = tries.awaited().expect("a socket");
    socket
        .wait(interest, Deadline::after(HOUR), None)
        .expect("the end");
    let ready = Heard::Ready { readable: true };
    assert!(matches!(tries.resume(&way, ready, now), Step::Again(at) if at == now));
    assert!(matches!(tries.begin(&way), Step::Waits));
    drop(accept(&service));
    assert_eq!(tries.tried.len(), 1);
}

#[test]
fn a_refusal_that_may_be_replaced_keeps_no_place_from_the_next_try() {
    for (fields, has_slot) in [("Content-Length: 0", false), ("Content-Length: 9", true)] {
        let (proxy, service) = sidecar_to("#max=1");
        let (core, request, forwarded) = (&proxy.core, request("GET"), forwarded());
        let way = core.way(&request, &forwarded);
        let mut tries = core.tries(&request);
        assert!(matches!(tries.begin(&way), Step::Waits));
        let mut refusing = accept(&service);
        write!(refusing, "HTTP/1.1 503 x\r\n{fields}\r\n\r\n").expect("it is taken");
        assert!(matches!(hear(&mut tries, &way), Step::Again(_)));
        let Some(FailedTry::Answered(answer)) = &tries.last else {
            panic!("it is what the client gets if there is nothing else");
        };
        assert_eq!(answer.slot.is_some(), has_slot, "as it has a connection");
        assert_eq!(pending(core), 0);
        assert!(matches!(tries.begin(&way), Step::Waits));
        assert_eq!(tries.tried.len(), 2);
    }
}

fn failures(core: &Core) -> u64 {
    core.upstreams.balancer.endpoints()[0].failures
}

#[test]
fn a_try_that_got_too_little_time_is_not_held_against_its_endpoint() {
    let (proxy, _service) = sidecar();
    let (core, request, forwarded) = (&proxy.core, request("POST"), forwarded());
    let way = core.way(&request, &forwarded);
    for (is_short, expected) in [(true, 0), (false, 1)] {
        let mut tries = core.tries(&request);
        assert!(matches!(tries.begin(&way), Step::Waits));
        tries.current.as_mut().expect("it waits").is_short = is_short;
        let due = tries.due();
        let step = tries.resume(&way, Heard::Over, due);
        assert!(matches!(step, Step::Done(Err(Failure::Client(_)))));
        assert_eq!(failures(core), expected);
    }
    let mut tries = core.tries(&request);
    tries.deadline = Deadline::after(Duration::ZERO);
    let step = tries.begin(&way);
    assert!(matches!(step, Step::Done(Err(Failure::Client(_)))));
    assert_eq!((failures(core), pending(core)), (1, 0), "it was not asked");
}

#[test]
fn only_a_client_that_leaves_lets_a_long_wait_count_against_an_endpoint_that_is_not_blamed() {
    let service = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addresses = [&service, &other].map(|it| it.local_addr().expect("it is bound"));
    let endpoints = addresses.map(|address| format!("http://{address}"));
    let proxy = Proxy::start(ProxyConfig {
        retries: 0,
        ..ProxyConfig::to(endpoints)
    });
    let proxy = proxy.expect("it starts");
    let (core, request, forwarded) = (&proxy.core, request("POST"), forwarded());
    let way = core.way(&request, &forwarded);
    let no_more_files = || ClientError::Connect(Errno::EMFILE.into());
    for (is_short, error, expected) in [
        (true, ClientError::ResponseTimeout, 0),
        (false, no_more_files(), 0),
        (false, ClientError::Stale, 0),
        (false, ClientError::Cancelled, 1),
    ] {
        let shown = format!("{error:?}");
        let mut tries = core.tries(&request);
        assert!(matches!(tries.begin(&way), Step::Waits));
        let mut current = tries.current.take().expect("it waits");
        let begun = Instant::now().checked_sub(Duration::from_secs(5));
        let pick = way
            .upstreams
            .balancer
            .pick_at(current.deadline, begun.expect("it is later"));
        current.pick = pick.expect("one of them");
        current.is_short = is_short;
        let step = tries.unanswered(&way, current, error, Instant::now());
        assert!(matches!(step, Step::Done(Err(_))), "{shown}");
        let endpoints = core.upstreams.balancer.endpoints();
        let failures: u64 = endpoints.iter().map(|it| it.failures).sum();
        assert_eq!(failures, expected, "{shown}");
    }
}

#[test]
fn what_has_waited_for_a_place_is_begun_only_with_more_time_than_a_try_takes() {
    let retry = Retry::new();
    let second = Duration::from_secs(1);
    let judge = |left| is_short_after_waiting(&retry, 10 * second, left);
    assert_eq!(judge(Duration::ZERO), Err(Unavailable::Full));
    assert_eq!(judge(MILLISECOND), Ok(true), "nothing is known yet");
    let now = Instant::now();
    let mut attempts = retry.begin_at(now);
    // The place came after 3 s.
    attempts.begins_at(now + 3 * second);
    retry.success_at(&attempts, now + 5 * second);
    assert_eq!(judge(2 * second), Err(Unavailable::Full));
    assert_eq!(judge(3 * second), Ok(true));
    assert_eq!(judge(5 * second), Ok(false));
}
