//! Many streams and tunnels that say nothing, and what they cost everybody else: next to nothing.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::kit::usage::affordable;
use crate::kit::{Client, NEVER, Serving, Upstream, alone, wait_until};

/// Of each kind.
const SILENT: usize = 1000;

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Begins a stream for `/events`, switches to WebSockets, and answers everything else at once.
fn service() -> Upstream {
    Upstream::start(|asked, stream| {
        let is_tunnel = !asked.fields("upgrade").is_empty();
        if !is_tunnel && !asked.line().starts_with("GET /events ") {
            return stream.write_all(super::OK.as_bytes());
        }
        stream.set_read_timeout(Some(NEVER))?;
        let head = if is_tunnel {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
             7\r\ndata: \n\r\n"
        };
        stream.write_all(head.as_bytes())?;
        let _ = stream.read(&mut [0])?;
        Err(std::io::ErrorKind::ConnectionAborted.into())
    })
}

/// Opens a stream or a tunnel, which then stays silent.
fn open(address: SocketAddr, request: &str, status: &str) -> Client {
    let mut client = Client::connect(address);
    client.send(request);
    let mut begin = [0; 12];
    client
        .stream
        .read_exact(&mut begin)
        .expect("a reply begins");
    assert_eq!(begin, format!("HTTP/1.1 {status}").as_bytes());
    client
}

/// The median time of a request on a kept connection: the least of some rounds, since the machine may be busy.
fn usual_time(address: SocketAddr) -> Duration {
    const REQUESTS: usize = 400;
    let mut client = Client::connect(address);
    let rounds = (0..5).map(|_| {
        let times = (0..REQUESTS).map(|_| {
            let began = Instant::now();
            assert_eq!(client.get("/").reply().text(), "hello");
            began.elapsed()
        });
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        times[REQUESTS / 2]
    });
    rounds.min().expect("some rounds")
}

#[test]
#[ignore = "slow: make test-slow"]
fn a_thousand_silent_streams_and_a_thousand_silent_tunnels_slow_nobody_down() {
    alone(|| {
        let upstream = service();
        let url = upstream.url();
        let mut server = Serving::start(&["--upstream", &url, "--workers", "8"]);
        let before = usual_time(server.address);
        let usage = server.usage();
        let kept = upstream.open();
        let events = "GET /events HTTP/1.1\r\nHost: a\r\n\r\n";
        let clients: Vec<_> = (0..SILENT)
            .flat_map(|_| {
                let stream = open(server.address, events, "200");
                [stream, open(server.address, WEBSOCKET, "101")]
            })
            .collect();
        wait_until("all are open", || upstream.open() >= 2 * SILENT);
        let with = usual_time(server.address);
        assert!(
            with < 2 * before,
            "{with:?} with all of them, {before:?} without"
        );
        // Nor does the event loop do anything for them.
        let (began, used) = (Instant::now(), server.loop_time());
        thread::sleep(Duration::from_secs(5));
        let (took, used) = (began.elapsed(), server.loop_time_since(used));
        assert!(used < took / 50, "the loop used {used:?} in {took:?}");
        let now = server.usage();
        let each = now.memory.saturating_sub(usage.memory) * 1024 / (2 * SILENT);
        println!("{before:?} without, {with:?} with, {each} bytes each");
        assert!(each < 8192, "{each} bytes for each");
        assert!(now.threads <= usage.threads, "{} threads", now.threads);
        // Their clients leave, and the service sees that at once.
        clients.into_iter().for_each(Client::reset);
        wait_until("all have ended", || upstream.open() <= kept);
        server.await_usage(usage, 8 * 1024);
    });
}

#[test]
#[ignore = "slow: make test-slow"]
fn ten_thousand_idle_clients_cost_a_sidecar_no_more_than_a_server() {
    alone(|| {
        let upstream = service();
        let url = upstream.url();
        let growth = |arguments: &[&str]| {
            let arguments = [&["--idle-timeout", "5m", "--head-timeout", "5m"], arguments].concat();
            let server = Serving::start(&arguments);
            // The first request is paid for before.
            Client::connect(server.address).get("/").reply();
            let before = server.usage().memory;
            let clients: Vec<_> = (0..affordable(10_000))
                .map(|_| Client::connect(server.address))
                .collect();
            let count = u64::try_from(clients.len()).expect("few");
            wait_until("all are accepted", || {
                server.metric("plimsoll_connections", "") >= count
            });
            let (began, used) = (Instant::now(), server.loop_time());
            thread::sleep(Duration::from_secs(5));
            let (took, used) = (began.elapsed(), server.loop_time_since(used));
            assert!(used < took / 50, "the loop used {used:?} in {took:?}");
            server.usage().memory.saturating_sub(before)
        };
        let (without, with) = (growth(&[]), growth(&["--upstream", &url]));
        println!("{without} KiB without --upstream, {with} KiB with it");
        // What the allocator keeps differs from run to run.
        assert!(
            with < without + without / 4 + 1024,
            "{with} KiB, {without} KiB"
        );
    });
}
