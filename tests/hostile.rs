//! Clients that attack: each test does one thing that breaks servers, looks that others are served meanwhile, and that
//! memory, threads and descriptors return to where they were.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::usage::affordable;
use crate::kit::{
    Client, PATIENCE, Serving, alone, get, meanwhile, quiet, time_to_get, wait_until,
};

/// What the allocator may keep of a load that is over, in KiB.
const KEPT: usize = 16 * 1024;

/// What "at once" means on a machine that does other things too.
const SOON: Duration = Duration::from_secs(1);

/// Sends `piece` over and over, up to `total` bytes, until the server has had enough; returns how much it took.
fn pour(mut socket: &TcpStream, piece: &[u8], total: usize) -> usize {
    let mut sent = 0;
    while sent < total {
        match socket.write(piece) {
            Ok(count) => sent += count,
            Err(_) => break,
        }
    }
    sent
}

/// Starts with `head`, then pours; the client reads all the while, as a decent one does, and so sees the refusal.
fn refusal_while_pouring(address: SocketAddr, head: &str, piece: &[u8], total: usize) -> u16 {
    let mut client = Client::connect(address);
    client.send(head);
    let writer = client.socket().try_clone().expect("a descriptor");
    thread::scope(|scope| {
        scope.spawn(|| pour(&writer, piece, total));
        let reply = client.reply();
        assert!(reply.closes(), "{reply:?}");
        assert!(reply.header("Date").is_some(), "{reply:?}");
        assert!(client.ends(), "the connection goes on");
        reply.status
    })
}

#[test]
fn a_length_beyond_all_memory_is_refused_before_its_body() {
    let mut server = Serving::start(&[]);
    let before = server.usage();
    for length in ["4611686018427387904", "18446744073709551615", "1048577"] {
        let head =
            format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        let mut client = Client::connect(server.address);
        client.send(head);
        let reply = client.reply();
        assert_eq!(reply.status, 413, "{length}");
        assert!(reply.closes() && reply.header("Date").is_some());
    }
    assert_eq!(get(server.address, "/").status, 200);
    server.await_usage(before, KEPT);
}

#[test]
fn a_head_without_end_is_refused_and_not_kept() {
    let mut server = Serving::start(&[]);
    let before = server.usage();
    let start = "GET / HTTP/1.1\r\nHost: localhost\r\n";
    let pieces: [(&str, Vec<u8>, u16); 3] = [
        (
            start,
            b"X-Filler: 0123456789012345678901234567890123456789\r\n".repeat(1000),
            431,
        ),
        (
            "GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
            vec![b'x'; 64 * 1024],
            431,
        ),
        ("GET /", vec![b'x'; 64 * 1024], 414),
    ];
    for (start, piece, status) in &pieces {
        let got = refusal_while_pouring(server.address, start, piece, 64 << 20);
        assert_eq!(got, *status);
        let now = server.usage();
        assert!(
            now.memory < before.memory + KEPT,
            "{before:?}, then {now:?}"
        );
    }
    server.await_usage(before, KEPT);
}

fn chunked(server: &Serving, chunks: usize) -> u16 {
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = Client::connect(server.address);
    client.send(head);
    let block = b"1\r\nx\r\n".repeat(4096);
    for _ in 0..chunks / 4096 {
        client.send(&block);
    }
    let rest = b"1\r\nx\r\n".repeat(chunks % 4096);
    client.send(rest);
    client.send("0\r\n\r\n");
    client.reply().status
}

#[test]
fn chunks_of_one_byte_are_a_body_like_any_other() {
    let mut server = Serving::start(&["--max-body", "1MiB"]);
    let before = server.usage();
    assert_eq!(chunked(&server, 1 << 20), 200);
    assert_eq!(chunked(&server, (1 << 20) + 1), 413);
    server.await_usage(before, KEPT);
}

#[test]
#[ignore = "slow: make test-slow"]
fn chunks_of_one_byte_up_to_32_mib() {
    let mut server = Serving::start(&["--max-body", "32MiB", "--body-timeout", "5m"]);
    let before = server.usage();
    assert_eq!(chunked(&server, 32 << 20), 200);
    server.await_usage(before, KEPT);
}

#[test]
fn chunk_extensions_and_trailers_without_end_are_refused() {
    let mut server = Serving::start(&[]);
    let before = server.usage();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases: [(&str, &[u8]); 5] = [
        // One extension, many on one line, one on each of many chunks, one trailer, many trailers.
        ("1;a=", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("1", b";name=value;name=\"quoted\""),
        ("", b"1;name=value-of-some-length\r\nx\r\n"),
        ("0\r\nX: ", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ("0\r\n", b"X-Trailer: of some length\r\n"),
    ];
    for (start, piece) in cases {
        let piece = piece.repeat(1000);
        let status =
            refusal_while_pouring(server.address, &format!("{head}{start}"), &piece, 64 << 20);
        assert!(matches!(status, 400 | 413 | 431), "{start:?}: {status}");
    }
    server.await_usage(before, KEPT);
}

#[test]
fn thousands_of_half_open_heads_delay_nobody() {
    alone(|| {
        let mut server = Serving::start(&["--workers", "2"]);
        let before = server.usage();
        let count = affordable(2000);
        let half: Vec<Client> = (0..count)
            .map(|_| {
                let mut client = Client::connect(server.address);
                client.send("GET / HTTP/1.1\r\nHost: lo");
                client
            })
            .collect();
        let took = time_to_get(server.address, "/");
        assert!(took < SOON, "served after {took:?}");
        let now = server.usage();
        assert!(now.threads <= before.threads, "{before:?}, then {now:?}");
        assert!(
            now.memory < before.memory + KEPT,
            "{before:?}, then {now:?}"
        );
        drop(half);
        server.await_usage(before, KEPT);
    });
}

/// Drips a byte at a time until the server ends it; returns its status and how long that took.
fn drip(address: SocketAddr, start: &str, drop_of: &str) -> (u16, Duration) {
    let mut client = Client::connect(address);
    client.send(start);
    let began = Instant::now();
    let mut socket = client.socket().try_clone().expect("a descriptor");
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    loop {
        match socket.peek(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => break,
        }
        assert!(began.elapsed() < PATIENCE, "it goes on for ever");
        if socket.write_all(drop_of.as_bytes()).is_err() {
            break;
        }
    }
    let took = began.elapsed();
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    (client.reply().status, took)
}

#[test]
fn a_head_and_a_body_that_drip_are_cut_at_their_timeouts() {
    let mut server = Serving::start(&["--head-timeout", "700ms", "--body-timeout", "900ms"]);
    let before = server.usage();
    let head = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    let length = format!("{head}Content-Length: 1000\r\n\r\n");
    let chunks = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
    let extension = format!("{chunks}1;a=");
    let cases = [
        ("GET /", "x", 700),
        (head, "x", 700),
        (&length, "x", 900),
        (&chunks, "1\r\nx\r\n", 900),
        (&extension, "x", 900),
    ];
    let address = server.address;
    thread::scope(|scope| {
        for (start, drop_of, timeout) in cases {
            scope.spawn(move || {
                let (status, took) = drip(address, start, drop_of);
                assert_eq!(status, 408, "{start:?}");
                let timeout = Duration::from_millis(timeout);
                // The server's clock starts a little before ours.
                let early = took + Duration::from_millis(100) < timeout;
                assert!(!early, "{start:?} after {took:?}");
            });
        }
    });
    server.await_usage(before, KEPT);
}

#[test]
fn clients_that_pipeline_and_never_read_hurt_nobody() {
    alone(|| {
        let mut server = Serving::start(&[
            "--workers",
            "2",
            "--write-timeout",
            "1s",
            "--idle-timeout",
            "2s",
        ]);
        let before = server.usage();
        // Replies of the handler, small and large replies of the event loop, and refusals.
        let mut requests = Vec::new();
        for path in ["/", "/metrics", "/health", "/missing"] {
            let one = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            requests.push(one.repeat(200));
        }
        // Many more than there are workers, and no more than a busy machine can answer until they are cut.
        let count = 16;
        let mut clients: Vec<Client> = (0..count)
            .map(|_| {
                let client = Client::connect(server.address);
                client.socket().set_nonblocking(true).expect("an option");
                client
            })
            .collect();
        let mut most = 0;
        // More than buffers have room for, where replies are large.
        for _ in 0..5 {
            for (client, requests) in clients.iter_mut().zip(requests.iter().cycle()) {
                // Its buffers are full, or it has been cut.
                let _ = client.try_send(requests);
            }
            assert!(get(server.address, "/").status < 600);
            let took = time_to_get(server.address, "/livez");
            assert!(took < SOON, "served after {took:?}");
            most = most.max(server.usage().memory);
        }
        // For each client what is read at once, and a reply or two.
        let bound = before.memory + count * 256 + KEPT;
        assert!(
            most < bound,
            "{most} KiB at the most, {} before",
            before.memory
        );
        wait_until("all of them are cut", || {
            server.metric("plimsoll_connections", "") <= 1
        });
        drop(clients);
        server.await_usage(before, KEPT);
    });
}

/// A body of chunks of one byte takes long to read. A turn once went over all that send one, and each had more than a
/// step.
#[test]
fn a_small_request_waits_for_few_of_the_clients_that_send_chunks_of_one_byte() {
    const CLIENTS: usize = 100;
    let server = quiet(1).max_body(64 * 1024).start().unwrap();
    let address = server.local_addr();
    let mut request =
        b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    request.extend(b"1\r\nx\r\n".repeat(16 * 1024));
    request.extend(b"0\r\n\r\n");
    let sockets: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| {
            let socket = TcpStream::connect(address).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    // How many replies have come to each since this was last asked.
    let answered = || {
        let count = |mut socket: &TcpStream| {
            let mut came = Vec::new();
            let error = socket.read_to_end(&mut came).expect_err("it is kept");
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            came.windows(9).filter(|it| it == b"HTTP/1.1 ").count()
        };
        sockets.iter().map(count).collect::<Vec<_>>()
    };
    let mut sent = [0; CLIENTS];
    let write_on = || {
        for (mut socket, sent) in sockets.iter().zip(&mut sent) {
            if let Ok(count) = socket.write(&request[*sent..]) {
                *sent = (*sent + count) % request.len();
            }
        }
    };
    meanwhile(write_on, || {
        let mut have = [0; CLIENTS];
        wait_until("each is answered", || {
            for (have, count) in have.iter_mut().zip(answered()) {
                *have += count;
            }
            !have.contains(&0)
        });
        let mut small = Client::connect(address);
        // Of the others' requests, how many are answered before a small one.
        let mut before: Vec<usize> = (0..21)
            .map(|_| {
                answered();
                assert_eq!(small.get("/livez").reply().status, 200);
                answered().iter().sum()
            })
            .collect();
        before.sort_unstable();
        assert!(before[10] < CLIENTS / 4, "{before:?}");
    });
}

/// A client that had more to do than a turn allows was given one turn more with every event.
#[test]
fn a_client_that_pipelines_without_a_pause_leaves_turns_to_others() {
    let mut server = Serving::start(&[]);
    let before = server.usage();
    let address = server.address;
    let requests = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2000);
    let began = Instant::now();
    let long = Duration::from_secs(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            let client = Client::connect(address);
            let mut reader = client.socket().try_clone().expect("a descriptor");
            scope.spawn(move || {
                let mut buffer = vec![0; 1 << 16];
                while reader.read(&mut buffer).is_ok_and(|count| count > 0) {}
            });
            let requests = &requests;
            scope.spawn(move || {
                while began.elapsed() < long {
                    pour(client.socket(), requests.as_bytes(), requests.len());
                }
                // An error means that the server has closed it.
                let _ = client.socket().shutdown(Shutdown::Both);
            });
        }
        while began.elapsed() < long {
            let took = time_to_get(address, "/");
            assert!(took < SOON, "served after {took:?}");
        }
    });
    server.await_usage(before, KEPT);
}

#[test]
fn a_storm_of_connects_and_resets_leaves_nothing() {
    let mut server = Serving::start(&[]);
    let before = server.usage();
    let address = server.address;
    thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for number in 0..1250 {
                    let Ok(mut client) = Client::try_connect(address) else {
                        continue;
                    };
                    match (number + part) % 4 {
                        0 => {}
                        1 => drop(client.try_send("GET / HT")),
                        2 => drop(client.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")),
                        _ => {
                            // A close with something unread is a reset.
                            drop(client.try_send("GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"));
                            drop(client.socket().peek(&mut [0]));
                        }
                    }
                }
            });
        }
        for _ in 0..5 {
            assert!(get(address, "/livez").status == 200);
        }
    });
    let took = time_to_get(address, "/");
    assert!(took < SOON, "served after {took:?}");
    wait_until("no request is left", || {
        server.metric("plimsoll_requests_in_flight", "") == 0
    });
    server.await_usage(before, KEPT);
}

#[test]
fn clients_that_vanish_after_sending_leave_nothing() {
    let mut server = Serving::start(&["--workers", "2", "--work", "20ms", "--gate", "off"]);
    let before = server.usage();
    for round in 0..3 {
        let clients = (0..100).map(|number| {
            let mut client = Client::connect(server.address);
            let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
            // Some vanish orderly, some in their own second request, some with an unread reply.
            client.send(request.repeat(1 + number % 3));
            if number % 2 == round % 2 {
                drop(client.socket().shutdown(Shutdown::Both));
            }
            client
        });
        drop(clients.collect::<Vec<_>>());
    }
    wait_until("no request is left", || {
        server.metric("plimsoll_requests_in_flight", "") == 0
            && server.metric("plimsoll_queue_length", "") == 0
            && server.metric("plimsoll_connections", "") <= 1
    });
    assert_eq!(get(server.address, "/").status, 200);
    server.await_usage(before, KEPT);
}

/// Sends `bytes`, then nothing more; whatever comes back must be replies from end to end.
fn send_and_check(address: SocketAddr, bytes: &[u8]) {
    let mut client = Client::connect(address);
    // An error means that the refusal is there already.
    let _ = client.try_send(bytes);
    let _ = client.socket().shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    if let Err(error) = client.stream.read_to_end(&mut answer) {
        let reset = error.kind() == ErrorKind::ConnectionReset;
        assert!(reset, "{error} after {}", bytes.escape_ascii());
    }
    let start = answer.get(..9).unwrap_or(&answer);
    assert!(
        b"HTTP/1.1 ".starts_with(start),
        "{} after {}",
        answer.escape_ascii(),
        bytes.escape_ascii()
    );
}

fn valid_requests() -> Vec<Vec<u8>> {
    let mut long = String::from("GET / HTTP/1.1\r\nHost: localhost\r\n");
    for number in 0..40 {
        write!(long, "X-{number}: {number}\r\n").expect("a string grows");
    }
    long.push_str("\r\n");
    let all = [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /metrics HTTP/1.0\r\n\r\n",
        "HEAD /health HTTP/1.1\r\nHost: [::1]:80\r\nAccept: text/plain\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST /a?b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         5;a=\"b\"\r\nhello\r\n0\r\nX: y\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        &long,
    ];
    all.iter()
        .map(|request| request.as_bytes().to_vec())
        .collect()
}

/// Numbers that look random and are the same in every run: xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound
    }
}

fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TASTY: &[u8] = b"\r\n\0 :;,\t\x7f\xff0123456789%/*[]";
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = random.below(bytes.len());
        let byte = TASTY[random.below(TASTY.len())];
        match random.below(6) {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            2 => drop(bytes.remove(at)),
            3 => bytes.truncate(at),
            4 => bytes[at] ^= 1 << random.below(8),
            _ => {
                let end = at + random.below(bytes.len() - at);
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, copy);
            }
        }
    }
}

#[test]
fn garbage_and_mutated_requests_get_replies_or_nothing() {
    let mut server = Serving::start(&["--body-timeout", "1s", "--head-timeout", "1s"]);
    let before = server.usage();
    let address = server.address;
    thread::scope(|scope| {
        for seed in 1..=4 {
            scope.spawn(move || {
                let mut random = Random(seed * 0x9E37_79B9);
                let valid = valid_requests();
                for _ in 0..100 {
                    let mut garbage = vec![0; 1 + random.below(2000)];
                    for byte in &mut garbage {
                        *byte = u8::try_from(random.below(256)).unwrap_or(0);
                    }
                    send_and_check(address, &garbage);
                }
                for _ in 0..400 {
                    let mut request = valid[random.below(valid.len())].clone();
                    mutate(&mut request, &mut random);
                    send_and_check(address, &request);
                }
            });
        }
    });
    assert_eq!(get(address, "/").status, 200);
    assert!(server.metric("plimsoll_stream_failures_total", "") < 1);
    assert!(server.metric("plimsoll_handler_panics_total", "") < 1);
    server.await_usage(before, KEPT);
}

#[test]
fn connection_says_what_will_happen_and_every_reply_is_dated() {
    let server = Serving::start(&[]);
    let cases = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, true),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
            200,
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            200,
            false,
        ),
        ("GET / HTTP/1.0\r\n\r\n", 200, false),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            200,
            true,
        ),
        (
            "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            200,
            true,
        ),
        ("OPTIONS / HTTP/1.0\r\n\r\n", 404, false),
        ("GET /missing HTTP/1.1\r\nHost: a\r\n\r\n", 404, true),
        ("GET / HTTP/1.1\r\n\r\n", 400, false),
        ("GET / HTTP/2.0\r\n\r\n", 505, false),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, false),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 501, false),
    ];
    for (request, status, kept) in cases {
        let mut client = Client::connect(server.address);
        client.send(request);
        let reply = client.reply();
        if request.starts_with("OPTIONS") {
            assert!(reply.status == status || reply.status == 200, "{request:?}");
        } else {
            assert_eq!(reply.status, status, "{request:?}");
        }
        assert!(reply.header("Date").is_some(), "{reply:?}");
        let connection = reply.header("Connection").map(str::to_ascii_lowercase);
        let http10 = request.contains("HTTP/1.0");
        match (kept, http10) {
            (true, true) => assert_eq!(connection.as_deref(), Some("keep-alive"), "{request:?}"),
            (true, false) => assert_ne!(connection.as_deref(), Some("close"), "{request:?}"),
            (false, _) => assert_eq!(connection.as_deref(), Some("close"), "{request:?}"),
        }
        if kept {
            assert_eq!(client.get("/").reply().status, 200);
        } else {
            assert!(client.ends(), "{request:?}: the connection goes on");
        }
    }
}

/// A close with unread input is a reset, which may overtake the refusal: the server reads on for a while.
#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = Serving::start(&["--max-body", "1KiB"]);
    for _ in 0..20 {
        let mut client = Client::connect(server.address);
        client.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500000\r\n\r\n");
        // It looks for a reply only once all is out, as simple clients do.
        client.send(vec![b'x'; 500_000]);
        let reply = client.reply();
        assert_eq!(reply.status, 413);
    }
}

/// Opens `count` connections and waits until they are accepted.
fn hold(server: &Serving, count: usize) -> Vec<Client> {
    let clients: Vec<Client> = (0..count)
        .map(|_| Client::connect(server.address))
        .collect();
    wait_until("all are accepted", || {
        server.metric("plimsoll_connections_accepted_total", "") > count as u64
    });
    clients
}

fn timeouts_hold_with(count: usize) {
    let mut server = Serving::start(&[
        "--workers",
        "2",
        "--work",
        "20ms",
        "--gate",
        "off",
        "--head-timeout",
        "2s",
        "--idle-timeout",
        "2s",
        "--body-timeout",
        "2s",
    ]);
    let before = server.usage();
    // A third never sends, a third stops in its head, a third in its body.
    let mut clients = hold(&server, count);
    for (number, client) in clients.iter_mut().enumerate() {
        let sent = match number % 3 {
            0 => Ok(()),
            1 => client.try_send("GET / HTT"),
            _ => client.try_send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"),
        };
        // It may have been cut by now, when there are many.
        drop(sent);
    }
    // Load meanwhile: refused or served, but answered.
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(500) {
        assert!(matches!(get(server.address, "/").status, 200 | 503));
    }
    wait_until("all of them are cut", || {
        server.metric("plimsoll_connections", "") <= 1
    });
    for client in &mut clients {
        if let Ok(reply) = client.try_reply() {
            assert_eq!(reply.status, 408);
        }
    }
    drop(clients);
    server.await_usage(before, KEPT);
}

#[test]
fn deadlines_hold_under_load() {
    alone(|| {
        timeouts_hold_with(affordable(600));
    });
}

#[test]
#[ignore = "slow: make test-slow"]
fn deadlines_hold_at_ten_thousand_connections() {
    alone(|| {
        timeouts_hold_with(affordable(10_000));
    });
}

#[test]
#[ignore = "slow: make test-slow"]
fn ten_thousand_idle_connections_cost_next_to_nothing() {
    alone(|| {
        let mut server = Serving::start(&["--idle-timeout", "5m", "--head-timeout", "5m"]);
        let before = server.usage();
        let clients = hold(&server, affordable(10_000));
        let (began, used) = (Instant::now(), server.loop_time());
        thread::sleep(Duration::from_secs(10));
        let (took, used) = (began.elapsed(), server.loop_time_since(used));
        assert!(used < took / 100, "the loop used {used:?} in {took:?}");
        let now = server.usage();
        let each = now.memory.saturating_sub(before.memory) * 1024 / clients.len();
        assert!(each < 2048, "{each} bytes for each idle connection");
        // Nor does work on one connection cost more because of the others: the same requests, with and without.
        let cost = |server: &Serving| {
            let mut client = Client::connect(server.address);
            let used = server.loop_time();
            for _ in 0..5000 {
                client.get("/livez").reply();
            }
            server.loop_time_since(used)
        };
        let with = cost(&server);
        drop(clients);
        server.await_usage(before, KEPT);
        let without = cost(&server);
        let bound = without * 3 + Duration::from_millis(200);
        assert!(
            with < bound,
            "{with:?} with idle connections, {without:?} without"
        );
    });
}

#[test]
fn a_slow_handler_is_answered_for_at_the_request_timeout() {
    let server = Serving::start(&[
        "--workers",
        "4",
        "--work",
        "2s",
        "--gate",
        "off",
        "--request-timeout",
        "300ms",
    ]);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(server.address)).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    let began = Instant::now();
    for client in &mut clients {
        assert_eq!(client.reply().status, 504);
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "not before the handlers ended"
    );
}
