//! Sets of endpoints of which one fails while requests come all the time: what the clients count beside what the server
//! says.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::Server;
use plimsoll::proxy::{BalanceBy, Proxy, ProxyConfig};
use serde_json::Value;
use socket2::SockRef;

use crate::kit::{Client, Latch, Over, Upstream, get, metric_in, quiet, wait_until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn to(upstreams: &[&Upstream]) -> ProxyConfig {
    ProxyConfig::to(upstreams.iter().map(|upstream| upstream.url()))
}

fn serve(config: ProxyConfig) -> Server {
    let proxy = Proxy::start(config).expect("it starts");
    let server = quiet(16).upstreams(proxy.reporter()).handler(proxy);
    server.start().expect("the server starts")
}

/// What a request came to: its status, and whether the answer was whole.
type Ending = (&'static str, u16, bool);

/// What became of the requests of all clients.
#[derive(Debug, Default)]
struct Tally(Mutex<BTreeMap<Ending, u64>>);

impl Tally {
    fn add(&self, ending: Ending) {
        *self
            .0
            .lock()
            .expect("nobody panicked")
            .entry(ending)
            .or_default() += 1;
    }

    fn count(&self, which: impl Fn(&Ending) -> bool) -> u64 {
        let counts = self.0.lock().expect("nobody panicked");
        let counts = counts.iter().filter(|(ending, _)| which(ending));
        counts.map(|(_, count)| count).sum()
    }

    fn all(&self) -> u64 {
        self.count(|_| true)
    }

    fn good(&self) -> u64 {
        self.count(|(_, status, whole)| *status == 200 && *whole)
    }
}

/// So many clients ask, each so often a second, until `stops` says so. One request of four is a POST, if `posts`.
fn ask_until(
    address: SocketAddr,
    clients: u32,
    rate: u32,
    posts: bool,
    tally: &Tally,
    stops: impl Fn() -> bool + Sync,
) {
    let client = |number: u32| {
        let mut client = Client::connect(address);
        let begun = Instant::now();
        for count in 0.. {
            let due = begun + Duration::from_secs(1) * count / rate;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if stops() {
                return;
            }
            let method = if posts && (number + count).is_multiple_of(4) {
                "POST"
            } else {
                "GET"
            };
            client.send(format!(
                "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
            ));
            let reply = client.try_reply().expect("a reply, be it cut");
            tally.add((method, reply.status, reply.whole));
            if !reply.whole {
                client = Client::connect(address);
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..clients {
            scope.spawn(move || client(number));
        }
    });
}

/// A number of the server's own about its endpoints.
fn metric(server: &Server, name: &str, label: &str) -> u64 {
    metric_in(get(server.local_addr(), "/metrics").text(), name, label)
}

/// They ask at the same time.
const CLIENTS: u32 = 8;

#[test]
fn of_three_endpoints_one_is_killed_under_200_requests_a_second() {
    let service = || {
        Upstream::start(|_, stream| {
            // So that some are on their way at any time.
            thread::sleep(Duration::from_millis(5));
            stream.write_all(OK.as_bytes())
        })
    };
    let (first, second, mut third) = (service(), service(), service());
    let server = serve(to(&[&first, &second, &third]));
    let tally = Tally::default();
    let is_killed = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let address = server.local_addr();
            let stops = || is_killed.load(Ordering::SeqCst) && tally.all() >= 600;
            ask_until(address, CLIENTS, 200 / CLIENTS, true, &tally, stops);
        });
        let _killed = Over(&is_killed);
        wait_until("each is asked", || {
            tally.all() >= 200 && third.asked().len() >= 20
        });
        third.stop();
    });
    let bad = |method| tally.count(|ending| ending.0 == method && ending.1 != 200);
    assert_eq!(bad("GET"), 0, "{tally:?}");
    // A client has one request on its way at most.
    assert!(bad("POST") <= u64::from(CLIENTS), "{tally:?}");
    let name = "plimsoll_upstream_requests_total";
    assert_eq!(metric(&server, name, "success"), tally.good());
    let retries = metric(&server, "plimsoll_upstream_retries_total", " ");
    let failures = metric(&server, name, "failure");
    // That a kept connection was closed is a reason to try again, and no failure.
    assert!(
        (1..=retries + bad("POST")).contains(&failures),
        "{failures}"
    );
    let dead = format!("endpoint=\"{}\",outcome=\"failure\"", third.address);
    assert_eq!(metric(&server, name, &dead), failures);
}

/// What an endpoint does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Hangs,
    Resets,
    /// Its head comes in single bytes, and never ends.
    Crawls,
    Answers500,
    Answers503,
    /// Ten good answers, ten bad ones, and so on.
    Flaps,
    /// Its answers end before their length.
    Cuts,
    Babbles,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Hangs,
        Self::Resets,
        Self::Crawls,
        Self::Answers500,
        Self::Answers503,
        Self::Flaps,
        Self::Cuts,
        Self::Babbles,
    ];

    fn answer(self, count: usize, stream: &mut TcpStream, latch: &Latch) -> io::Result<()> {
        let closes = io::ErrorKind::ConnectionAborted;
        match self {
            Self::Hangs => {
                latch.pass();
                Err(closes.into())
            }
            Self::Resets => {
                SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
                Err(closes.into())
            }
            Self::Crawls => {
                for byte in b"HTTP/1.1 200 OK\r\nX: "
                    .iter()
                    .chain([b'x'].iter().cycle())
                {
                    stream.write_all(&[*byte])?;
                    thread::sleep(Duration::from_millis(20));
                }
                Ok(())
            }
            Self::Answers500 => stream.write_all(b"HTTP/1.1 500 x\r\nContent-Length: 0\r\n\r\n"),
            Self::Flaps if (count / 10).is_multiple_of(2) => stream.write_all(OK.as_bytes()),
            Self::Answers503 | Self::Flaps => {
                stream.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n")
            }
            Self::Cuts => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\nhello")?;
                Err(closes.into())
            }
            Self::Babbles => stream.write_all(b"What was the question?\r\n\r\n"),
        }
    }

    /// Whether a client may see it, since another try would do harm or comes too late.
    fn shows(self, (_, status, whole): &Ending) -> bool {
        match self {
            Self::Answers500 => *status == 500,
            Self::Cuts => !whole,
            Self::Babbles => *status == 502,
            Self::Hangs | Self::Resets | Self::Crawls | Self::Answers503 | Self::Flaps => false,
        }
    }
}

/// One of three endpoints has a fault until its breaker is open, and is well then.
fn survive(fault: Fault) {
    let is_faulty = Arc::new(AtomicBool::new(true));
    let latch = Arc::new(Latch::default());
    let (first, second) = (Upstream::answering(OK), Upstream::answering(OK));
    let third = Upstream::start({
        let (is_faulty, latch, count) = (is_faulty.clone(), latch.clone(), AtomicUsize::new(0));
        move |_, stream| {
            if !is_faulty.load(Ordering::SeqCst) {
                return stream.write_all(OK.as_bytes());
            }
            fault.answer(count.fetch_add(1, Ordering::SeqCst), stream, &latch)
        }
    });
    let server = serve(ProxyConfig {
        balance: BalanceBy::RoundRobin,
        breaker: "5,on=5xx".parse().expect("a breaker"),
        try_timeout: Some(Duration::from_secs(1)),
        ..to(&[&first, &second, &third])
    });
    let label = format!("endpoint=\"{}\"", third.address);
    let breaker = || metric(&server, "plimsoll_upstream_breaker_state", &label);
    let tally = Tally::default();
    let stops = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            ask_until(server.local_addr(), 4, 25, false, &tally, || {
                stops.load(Ordering::SeqCst)
            });
        });
        let _over = Over(&stops);
        wait_until("its breaker is open", || breaker() == 2);
        // Requests that began before may still end.
        let before = tally.all();
        wait_until("they have", || tally.all() >= before + 8);
        let (bad, all) = (tally.all() - tally.good(), tally.all());
        wait_until("more are asked", || tally.all() >= all + 50);
        assert_eq!(tally.all() - tally.good(), bad, "{fault:?}: {tally:?}");
        is_faulty.store(false, Ordering::SeqCst);
        latch.open();
        let asked = third.asked().len();
        wait_until("it is used again", || {
            breaker() == 0 && third.asked().len() > asked + 2
        });
    });
    let bad = tally.all() - tally.good();
    assert_eq!(
        tally.count(|ending| fault.shows(ending)),
        bad,
        "{fault:?}: {tally:?}"
    );
    // Five in a row open it, and each of four clients may have had another one on its way.
    assert!(bad <= 8, "{fault:?}: {tally:?}");
    let requests = |label| metric(&server, "plimsoll_upstream_requests_total", label);
    let retries = || metric(&server, "plimsoll_upstream_retries_total", " ");
    wait_until("the server counts what the clients do", || {
        requests("success") == tally.good() && requests("failure") == retries() + bad
    });
}

#[test]
fn whatever_one_of_three_endpoints_does_the_others_do_its_work_until_it_is_well() {
    thread::scope(|scope| {
        for fault in Fault::ALL {
            scope.spawn(move || survive(fault));
        }
    });
}

#[test]
fn when_all_are_dead_clients_are_refused_at_once_and_the_first_that_returns_is_used_within_a_second()
 {
    let mut upstreams = [(); 3].map(|()| Upstream::answering(OK));
    let addresses = upstreams.each_ref().map(|upstream| upstream.address);
    let server = serve(to(&upstreams.each_ref()));
    let address = server.local_addr();
    for upstream in &mut upstreams {
        upstream.stop();
    }
    wait_until("every breaker is open", || {
        let reply = get(address, "/");
        assert!(matches!(reply.status, 502 | 503), "{reply:?}");
        reply.status == 503
    });
    let mut client = Client::connect(address);
    let mut ask = || {
        let began = Instant::now();
        let reply = client.get("/").reply();
        (reply, began.elapsed())
    };
    let quickest = (0..50).map(|_| {
        let (reply, time) = ask();
        let is_refused = reply.status == 503 && reply.header("Retry-After").is_some();
        assert!(is_refused || reply.status == 502, "{reply:?}");
        time
    });
    let quickest = quickest.min().expect("some");
    assert!(quickest < Duration::from_millis(5), "{quickest:?}");

    let _back = Upstream::start_at(addresses[1], |_, stream| stream.write_all(OK.as_bytes()));
    let report = get(address, "/status.json");
    let report: Value = serde_json::from_slice(&report.body).expect("JSON");
    let endpoints = report["upstreams"]["endpoints"].as_array().expect("a list");
    let name = addresses[1].to_string();
    let of_it = endpoints.iter().find(|one| one["name"] == name.as_str());
    let delay = of_it.expect("the endpoint")["retry_in"].as_f64();
    let delay = Duration::from_secs_f64(delay.expect("seconds"));
    // The machine may keep this thread, and the server's, waiting.
    let (began, mut last, mut late) = (Instant::now(), Instant::now(), Duration::ZERO);
    wait_until("it is used", || {
        late = late.max(last.elapsed());
        let (reply, _) = ask();
        last = Instant::now();
        reply.status == 200
    });
    let took = began.elapsed();
    let most = delay + Duration::from_secs(1) + 2 * late;
    assert!(took <= most, "{took:?}, with a delay of {delay:?}");
}

#[test]
fn streams_that_last_keep_no_trial_from_others_and_count_when_they_end() {
    let latch = Arc::new(Latch::default());
    let mode = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start({
        let (latch, mode) = (latch.clone(), mode.clone());
        move |asked, stream| match mode.load(Ordering::SeqCst) {
            0 => stream.write_all(b"HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"),
            _ if asked.line().contains("/stream") => {
                stream.write_all(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
                )?;
                latch.pass();
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => stream.write_all(OK.as_bytes()),
        }
    });
    let server = serve(ProxyConfig {
        retries: 0,
        ..to(&[&upstream])
    });
    let address = server.local_addr();
    let label = format!("endpoint=\"{}\"", upstream.address);
    let breaker = || metric(&server, "plimsoll_upstream_breaker_state", &label);
    wait_until("its breaker is open", || {
        get(address, "/");
        breaker() == 2
    });
    mode.store(1, Ordering::SeqCst);
    // The trial is a stream whose end nobody knows.
    let mut stream = Client::connect(address);
    wait_until("the stream has begun", || {
        let reply = ask_for_head(&mut stream);
        if reply == 503 {
            stream = Client::connect(address);
        }
        reply == 200
    });
    wait_until("another trial closes it", || {
        get(address, "/");
        breaker() == 0
    });
    let failures = || metric(&server, "plimsoll_upstream_requests_total", "failure");
    let before = failures();
    latch.open();
    wait_until("the cut is counted", || failures() == before + 1);
}

/// Asks for a stream and reads the status of its answer.
fn ask_for_head(client: &mut Client) -> u16 {
    client.get("/stream");
    let mut line = String::new();
    io::BufRead::read_line(&mut client.stream, &mut line).expect("a status line");
    line[9..12].parse().expect("a status")
}
