//! A service that restarts under load.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use plimsoll::proxy::{BreakerMode, ProxyConfig};

use super::{OK, serve};
use crate::kit::{Client, Over, Upstream, wait_until};

/// Half of them send what may be sent twice, and half of them what may not be.
const CLIENTS: usize = 64;

const RESTARTS: usize = 5;

/// What a client knows of a request of its own.
struct Outcome {
    line: String,
    status: u16,
    /// The service was up all the time.
    in_peace: bool,
}

/// How often the service has seen each request.
type Seen = Arc<Mutex<HashMap<String, usize>>>;

fn service(address: SocketAddr, seen: &Seen) -> Upstream {
    let seen = seen.clone();
    Upstream::start_at(address, move |asked, stream| {
        let mut seen = seen.lock().expect("no panic");
        *seen.entry(asked.line().to_owned()).or_default() += 1;
        drop(seen);
        stream.write_all(OK.as_bytes())
    })
}

/// What the clients and who restarts the service tell each other.
struct Shared {
    address: SocketAddr,
    is_over: AtomicBool,
    /// Odd while the service is down, or was so a moment ago.
    phase: AtomicUsize,
    /// In which phase each client had its last good answer.
    answered_in: Vec<AtomicUsize>,
}

impl Shared {
    /// Waits until each client has had a good answer in this phase.
    #[track_caller]
    fn await_answers(&self) {
        let phase = self.phase.load(Ordering::SeqCst);
        wait_until("every client gets answers", || {
            let mut clients = self.answered_in.iter();
            clients.all(|client| client.load(Ordering::SeqCst) == phase)
        });
    }

    fn next_phase(&self) {
        self.phase.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks again and again until it is over.
    fn ask(&self, client: usize) -> Vec<Outcome> {
        let mut connection = Client::connect(self.address);
        let mut outcomes = Vec::new();
        let method = if client.is_multiple_of(2) {
            "GET"
        } else {
            "POST"
        };
        while !self.is_over.load(Ordering::SeqCst) {
            let line = format!("{method} /{client}/{} HTTP/1.1", outcomes.len());
            let phase = self.phase.load(Ordering::SeqCst);
            connection.send(format!("{line}\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
            let reply = connection.reply();
            let status = reply.status;
            match status {
                200 => self.answered_in[client].store(phase, Ordering::SeqCst),
                502 => assert!(reply.header("Proxy-Status").is_some(), "{reply:?}"),
                503 => assert!(reply.header("Retry-After").is_some(), "{reply:?}"),
                _ => panic!("{reply:?}"),
            }
            let in_peace = phase.is_multiple_of(2) && phase == self.phase.load(Ordering::SeqCst);
            outcomes.push(Outcome {
                line,
                status,
                in_peace,
            });
        }
        outcomes
    }
}

#[test]
fn a_restart_costs_no_request_but_those_on_their_way_and_sends_none_twice_that_may_not_be() {
    restart_under_load(BreakerMode::default());
}

/// Nobody is refused for what has happened to others.
#[test]
fn without_a_breaker_a_restart_costs_no_more() {
    restart_under_load(BreakerMode::Off);
}

fn restart_under_load(breaker: BreakerMode) {
    let seen = Seen::default();
    let mut upstream = service(([127, 0, 0, 1], 0).into(), &seen);
    let address = upstream.address;
    let config = ProxyConfig {
        breaker,
        ..ProxyConfig::to([upstream.url()])
    };
    let server = serve(config, CLIENTS);
    let shared = Shared {
        address: server.local_addr(),
        is_over: AtomicBool::new(false),
        phase: AtomicUsize::new(0),
        answered_in: (0..CLIENTS).map(|_| AtomicUsize::new(usize::MAX)).collect(),
    };
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let shared = &shared;
                scope.spawn(move || shared.ask(client))
            })
            .collect();
        let over = Over(&shared.is_over);
        for _ in 0..RESTARTS {
            shared.await_answers();
            shared.next_phase();
            upstream.stop();
            upstream = service(address, &seen);
            shared.await_answers();
            shared.next_phase();
        }
        shared.await_answers();
        drop(over);
        let joined = clients.into_iter().map(thread::ScopedJoinHandle::join);
        joined
            .flat_map(|outcomes| outcomes.expect("no panic"))
            .collect()
    });

    let seen = seen.lock().expect("no panic");
    let mut lost = 0;
    for Outcome {
        line,
        status,
        in_peace,
    } in &outcomes
    {
        let times = seen.get(line).copied().unwrap_or(0);
        if line.starts_with("POST") {
            assert!(times <= 1, "{line} came {times} times");
        }
        assert!(
            *status != 200 || times >= 1,
            "{line} was answered by nobody"
        );
        assert!(*status == 200 || !in_peace, "{line} got {status} in peace");
        let may_be_refused = breaker != BreakerMode::Off;
        assert!(*status != 503 || may_be_refused, "{line} was refused");
        lost += usize::from(*status != 200 && times > 0);
    }
    let asked: HashSet<_> = outcomes.iter().map(|outcome| &outcome.line).collect();
    assert_eq!(asked.len(), outcomes.len(), "each is asked once");
    let strange = seen.keys().find(|line| !asked.contains(line));
    assert_eq!(strange, None, "nobody asked for it");
    // What the service has seen, and nobody got an answer to, was on its way when it stopped.
    assert!(lost <= RESTARTS * CLIENTS, "{lost} were lost");
}
