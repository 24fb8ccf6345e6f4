//! Clients behind proxies: who they are, and what hangs on that.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use plimsoll::{Builder, Request, Server};

use crate::kit::{Client, Latch, ask, get, quiet, wait_until};

fn behind_a_proxy(builder: Builder) -> Builder {
    builder.trust("127.0.0.1".parse().expect("an address"))
}

fn serve(builder: Builder) -> Server {
    let handler = |request: &mut Request| format!("{} {}", request.client(), request.peer().ip());
    builder.handler(handler).start().expect("it starts")
}

fn request(target: &str, forwarded: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.8\r\nX-Forwarded-For: {forwarded}\r\n\r\n"
    )
}

#[test]
fn a_handler_sees_whom_a_trusted_proxy_asks_for_and_the_proxy() {
    let bytes = request("/", "203.0.113.9, 192.0.2.7");
    let server = serve(behind_a_proxy(quiet(1)));
    let reply = ask(server.local_addr(), &bytes);
    assert_eq!(reply.text(), "192.0.2.7 127.0.0.1");
    let server = serve(quiet(1));
    let reply = ask(server.local_addr(), &bytes);
    assert_eq!(reply.text(), "127.0.0.1 127.0.0.1");
}

/// A proxy on the same host made all of its clients local.
#[test]
fn clients_of_a_trusted_proxy_on_this_host_see_no_details() {
    let server = serve(behind_a_proxy(quiet(1)));
    let status = |bytes: &str| ask(server.local_addr(), bytes).status;
    assert_eq!(status(&request("/status.json", "192.0.2.7")), 404);
    assert_eq!(status(&request("/status.json", "127.0.0.1")), 404);
    let direct = "GET /status.json HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(status(direct), 200);
}

/// Requests of one client until it has its share of the queue; then one of another.
fn crowd(server: &Server, latch: &Latch) -> (Vec<Client>, Client) {
    let send = |address: SocketAddr, from: &str| {
        let mut client = Client::connect(address);
        client.send(request("/", from));
        client
    };
    let address = server.local_addr();
    let snapshot = || server.health().snapshot();
    let mut held = vec![send(address, "192.0.2.1")];
    latch.wait_for(1);
    while snapshot().totals.shed_fair == 0 {
        assert!(held.len() < 200, "one client has all of the queue");
        held.push(send(address, "192.0.2.1"));
        let known = || snapshot().queue + usize::from(snapshot().totals.shed_fair > 0);
        wait_until("it waits or is refused", || known() + 1 >= held.len());
    }
    let judged = || snapshot().queue + usize::try_from(snapshot().totals.shed_fair).expect("few");
    let before = judged();
    let other = send(address, "192.0.2.2");
    // Before anything leaves the queue.
    wait_until("it waits or is refused", || judged() > before);
    (held, other)
}

#[test]
fn fairness_counts_the_clients_of_a_trusted_proxy_one_by_one() {
    for trusted in [true, false] {
        let builder = quiet(1).fair(true).queue_budget(Duration::from_secs(30));
        let builder = if trusted {
            behind_a_proxy(builder)
        } else {
            builder
        };
        let latch = std::sync::Arc::new(Latch::default());
        let held = latch.clone();
        let handler = move |request: &mut Request| {
            if request.path() == "/sample" {
                // Without a service time nothing is known of the queue's room.
                thread::sleep(Duration::from_millis(500));
            } else {
                held.pass();
            }
            "served"
        };
        let server = builder.handler(handler).start().expect("it starts");
        assert_eq!(get(server.local_addr(), "/sample").status, 200);
        let (crowd, mut other) = crowd(&server, &latch);
        latch.open();
        assert_eq!(other.reply().status, if trusted { 200 } else { 503 });
        drop(crowd);
    }
}
