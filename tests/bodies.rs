//! The bound on all request bodies together: who waits, who is refused, and what is left in memory.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::Server;

use crate::kit::{Client, Latch, Serving, alone, get, quiet, settle, wait_until};

const SIZE: usize = 1000;

/// A request with a body of that length, up to the body.
fn announcing(size: usize) -> String {
    format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n")
}

fn upload(size: usize) -> Vec<u8> {
    [announcing(size).as_bytes(), &vec![b'x'; size]].concat()
}

fn send(address: SocketAddr, bytes: &[u8]) -> Client {
    let mut client = Client::connect(address);
    client.send(bytes);
    client
}

fn bodies(server: &Server) -> (usize, usize) {
    let now = server.health().snapshot();
    (now.body_bytes, now.bodies_waiting)
}

#[test]
fn bodies_beyond_the_bound_wait_and_are_served_once_there_is_room() {
    let latch = Arc::new(Latch::default());
    // One peer has half of it.
    let server = quiet(8)
        .max_bodies(4 * SIZE)
        .handler(latch.handler("served"))
        .start()
        .expect("it starts");
    let address = server.local_addr();
    let mut clients: Vec<Client> = (0..6).map(|_| send(address, &upload(SIZE))).collect();
    latch.wait_for(2);
    wait_until("the others wait", || bodies(&server) == (2 * SIZE, 4));
    // Who has no body does not wait.
    let mut bare = Client::connect(address);
    bare.get("/");
    latch.wait_for(3);
    latch.open();
    assert_eq!(bare.reply().status, 200);
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    settle(&server);
    wait_until("nothing is held", || bodies(&server) == (0, 0));
}

#[test]
fn one_peer_leaves_room_for_another() {
    let latch = Arc::new(Latch::default());
    let server = quiet(4)
        .max_bodies(2 * SIZE)
        .trust("127.0.0.1".parse().expect("an address"))
        .handler(latch.handler("served"))
        .start()
        .expect("it starts");
    let address = server.local_addr();
    let from = |client: &str| {
        let body = upload(SIZE);
        let field = format!("POST / HTTP/1.1\r\nX-Forwarded-For: {client}");
        let rest = &body["POST / HTTP/1.1".len()..];
        send(address, &[field.as_bytes(), rest].concat())
    };
    let mut greedy: Vec<Client> = (0..5).map(|_| from("192.0.2.1")).collect();
    latch.wait_for(1);
    wait_until("the others wait", || bodies(&server).1 == 4);
    let mut polite = from("192.0.2.2");
    latch.wait_for(2);
    latch.open();
    assert_eq!(polite.reply().status, 200);
    for client in &mut greedy {
        assert_eq!(client.reply().status, 200);
    }
}

#[test]
fn a_body_that_found_no_room_in_time_is_503_and_counted_as_shed() {
    let latch = Arc::new(Latch::default());
    let server = quiet(2)
        .max_bodies(SIZE)
        .body_timeout(Duration::from_millis(500))
        .handler(latch.handler("served"))
        .start()
        .expect("it starts");
    let address = server.local_addr();
    let mut first = send(address, &upload(SIZE));
    latch.wait_for(1);
    let began = Instant::now();
    let mut second = send(address, announcing(SIZE).as_bytes());
    let reply = second.reply();
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(began.elapsed() >= Duration::from_millis(500));
    assert!(reply.header("Retry-After").is_some(), "{reply:?}");
    second.expect_close();
    latch.open();
    assert_eq!(first.reply().status, 200);
    settle(&server);
    let totals = server.health().snapshot().totals;
    assert_eq!(
        (totals.shed_bodies, totals.served, totals.failed),
        (1, 1, 0)
    );
}

#[test]
fn a_client_that_leaves_while_it_waits_makes_way() {
    let latch = Arc::new(Latch::default());
    let server = quiet(4)
        .max_bodies(SIZE)
        .handler(latch.handler("served"))
        .start()
        .expect("it starts");
    let address = server.local_addr();
    // The length is announced, and the room taken; nothing comes.
    let silent = send(address, announcing(SIZE).as_bytes());
    wait_until("it has room", || bodies(&server).0 == SIZE);
    let mut waiting = send(address, &upload(SIZE));
    wait_until("the other one waits", || bodies(&server).1 == 1);
    drop(silent);
    latch.open();
    assert_eq!(waiting.reply().status, 200);
}

#[test]
fn no_body_is_longer_than_the_bound_of_all() {
    let server = quiet(1)
        .max_bodies(SIZE)
        .handler(|_: &mut plimsoll::Request| "served")
        .start()
        .expect("it starts");
    let address = server.local_addr();
    assert_eq!(send(address, &upload(SIZE)).reply().status, 200);
    let longer = announcing(SIZE + 1);
    assert_eq!(send(address, longer.as_bytes()).reply().status, 413);
}

/// The event loop used to have no reason to wait: what can't go on must not be asked again and again.
#[test]
fn waiting_for_room_takes_no_processor_time() {
    alone(|| {
        let server = Serving::start(&["--max-bodies", "4KiB", "--body-timeout", "20s"]);
        let holder = send(server.address, announcing(4096).as_bytes());
        let waiting: Vec<Client> = (0..50)
            .map(|_| send(server.address, &upload(4096)))
            .collect();
        wait_until("they wait", || {
            server.metric("plimsoll_bodies_waiting", "") == 50
        });
        let (began, before) = (Instant::now(), server.loop_time());
        thread::sleep(Duration::from_secs(1));
        let (took, used) = (began.elapsed(), server.loop_time_since(before));
        assert!(used < took / 4, "{used:?} of {took:?}");
        drop(holder);
        for mut client in waiting {
            assert_eq!(client.reply().status, 200);
        }
    });
}

/// The allocator kept what a burst of uploads had taken.
#[test]
fn memory_of_a_burst_of_uploads_is_given_back() {
    const UPLOADS: usize = 32;
    const LENGTH: usize = 1 << 20;
    alone(|| {
        let mut server = Serving::start(&["--gate", "off", "--queue-budget", "30s"]);
        assert_eq!(get(server.address, "/").status, 200);
        let before = server.usage();
        for _ in 0..2 {
            let body = vec![b'x'; LENGTH - 1];
            let mut clients: Vec<Client> = (0..UPLOADS)
                .map(|_| send(server.address, announcing(LENGTH).as_bytes()))
                .collect();
            for client in &mut clients {
                client.send(&body);
            }
            // All are held at the same moment, but for their last byte.
            let all = (UPLOADS * LENGTH / 1024 * 9 / 10) as u64;
            wait_until("they are held", || {
                u64::try_from(server.usage().memory).unwrap_or(0) >= all
            });
            for client in &mut clients {
                client.send("x");
            }
            for client in &mut clients {
                assert_eq!(client.reply().status, 200);
            }
        }
        server.await_usage(before, 8 * 1024);
    });
}
