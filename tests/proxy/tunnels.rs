//! What the sidecar relays without a worker: streams, and other protocols.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use plimsoll::Config;
use plimsoll::proxy::{Proxy, ProxyConfig};

use super::serve;
use crate::kit::{Client, Upstream, quiet, wait_until};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn upgrade(method: &str, protocol: &str, extra: &str) -> String {
    format!(
        "{method} /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n{extra}\r\n"
    )
}

/// Switches when it is asked to, and gives back what comes.
fn echo() -> Upstream {
    Upstream::start(|asked, stream| {
        let protocol = asked.fields("upgrade").join("|");
        if protocol.is_empty() {
            return stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain");
        }
        write!(
            stream,
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\nSec-WebSocket-Accept: x\r\n\r\n"
        )?;
        let mut buffer = [0; 4096];
        loop {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => stream.write_all(&buffer[..count])?,
            }
        }
    })
}

#[test]
fn a_websocket_is_switched_to_and_carries_what_came_with_the_request() {
    let upstream = echo();
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    let mut client = Client::connect(server.local_addr());
    client.send(upgrade("GET", "websocket", KEY) + "early");
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(
        head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nSec-WebSocket-Accept: x\r\n"), "{head}");
    assert!(
        head.ends_with("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
        "{head}"
    );
    let mut early = [0; 5];
    client.stream.read_exact(&mut early).expect("an echo");
    assert_eq!(&early, b"early");
    // The only worker is free.
    let mut other = Client::connect(server.local_addr());
    assert_eq!(other.get("/").reply().text(), "plain");
    let asked = upstream.asked().remove(0);
    assert_eq!(asked.fields("connection"), ["Upgrade"]);
    assert_eq!(
        asked.fields("sec-websocket-key"),
        ["dGhlIHNhbXBsZSBub25jZQ=="]
    );
    client.finish();
    client.expect_close();
}

/// RFC 9110 7.8: a server may always ignore the wish to switch.
#[test]
fn what_may_not_be_switched_to_is_an_ordinary_request() {
    let upstream = echo();
    let config = ProxyConfig {
        upgrade: vec!["websocket".to_owned(), "chat".to_owned()],
        ..ProxyConfig::to([upstream.url()])
    };
    let server = serve(config, 1);
    for (method, protocol, extra) in [
        ("GET", "websocket", ""),
        ("POST", "websocket", KEY),
        ("GET", "h2c", "HTTP2-Settings: AAMAAABkAAQAAP__\r\n"),
        ("GET", "TLS/1.2", ""),
        ("POST", "chat", "Content-Length: 0\r\nX-Other: y\r\n"),
    ] {
        let mut client = Client::connect(server.local_addr());
        client.send(upgrade(method, protocol, extra));
        if protocol == "chat" {
            let mut reply = [0; 12];
            client.stream.read_exact(&mut reply).expect("a reply");
            assert_eq!(&reply, b"HTTP/1.1 101");
            continue;
        }
        assert_eq!(client.reply().text(), "plain", "{method} {protocol}");
        let asked = upstream.asked().pop().expect("it was asked");
        assert!(asked.fields("upgrade").is_empty(), "{asked:?}");
        assert!(asked.fields("connection").is_empty(), "{asked:?}");
    }
}

/// RFC 9110 7.8: such a field may have been passed on by a proxy that does not know it, and does not expect a tunnel.
#[test]
fn an_upgrade_that_connection_does_not_name_is_an_ordinary_request() {
    let upstream = echo();
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    for connection in ["", "Connection: keep-alive\r\n"] {
        let request = upgrade("GET", "websocket", KEY);
        let request = request.replace("Connection: keep-alive, Upgrade\r\n", connection);
        let reply = Client::connect(server.local_addr()).send(request).reply();
        assert_eq!(reply.text(), "plain");
        let asked = upstream.asked().pop().expect("it was asked");
        assert!(asked.fields("upgrade").is_empty(), "{asked:?}");
    }
}

#[test]
fn a_switch_to_something_else_is_502_and_a_refusal_goes_through() {
    for (reply, status) in [
        (
            "HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            502,
        ),
        ("HTTP/1.1 101 x\r\n\r\n", 502),
        ("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", 403),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
    ] {
        let upstream = Upstream::answering(reply);
        let server = serve(ProxyConfig::to([upstream.url()]), 1);
        let mut client = Client::connect(server.local_addr());
        client.send(upgrade("GET", "websocket", KEY));
        assert_eq!(client.reply().status, status, "{reply}");
        assert_eq!(upstream.asked().len(), 1, "{reply}");
    }
}

#[test]
fn trailers_go_to_a_client_that_takes_them_and_to_no_other() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\n\
         Content-Length: 9\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nX-Sum: 7\r\nHost: b\r\n\r\n",
    );
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    for (fields, has_trailers) in [
        ("TE: trailers\r\nConnection: TE, close\r\n", true),
        ("Connection: close\r\n", false),
    ] {
        let mut client = Client::connect(server.local_addr());
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let text = String::from_utf8(client.rest()).expect("text");
        assert_eq!(
            text.ends_with("abc\r\n0\r\nX-Sum: 7\r\n\r\n"),
            has_trailers,
            "{text}"
        );
        assert_eq!(text.contains("Trailer: X-Sum"), has_trailers, "{text}");
    }
}

/// How a client goes.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    Closes,
    Resets,
}

/// How long the service is kept after its client has gone.
fn time_to_leave(head: &'static str, leaves: Leaves) -> Duration {
    let upstream = Upstream::silent(head);
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    wait_until("the service is asked", || upstream.asked().len() == 1);
    if head.ends_with("\r\n") {
        client
            .stream
            .read_exact(&mut [0; 12])
            .expect("a reply begins");
    }
    let left = Instant::now();
    leave(client, leaves);
    wait_until("the service is left", || upstream.open() == 0);
    left.elapsed()
}

fn leave(client: Client, leaves: Leaves) {
    match leaves {
        Leaves::Closes => drop(client),
        Leaves::Resets => client.reset(),
    }
}

#[test]
fn a_client_that_leaves_ends_its_request_to_the_service_within_two_seconds() {
    for head in [
        "",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ] {
        for leaves in [Leaves::Closes, Leaves::Resets] {
            // The shortest of a few, since the machine may be busy.
            let took = (0..3).map(|_| time_to_leave(head, leaves)).min();
            let took = took.expect("some");
            assert!(
                took < Duration::from_secs(2),
                "{leaves:?} {head:?}: {took:?}"
            );
        }
    }
}

/// Each pause is short, though all of them together are not.
#[test]
fn half_an_end_is_no_end_to_a_slow_download() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n")?;
        for _ in 0..16 {
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"x")?;
        }
        Ok(())
    });
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").finish().reply().text(), "x".repeat(16));
}

/// Ends a tunnel as asked.
fn ending(ends: &'static str) -> Upstream {
    Upstream::start(move |_, stream| {
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )?;
        let end = Err(std::io::ErrorKind::UnexpectedEof.into());
        if ends == "the service" {
            stream.write_all(b"bye")?;
            return end;
        }
        loop {
            stream.write_all(&[b'x'; 200])?;
            if ends == "the service, with a reset" {
                let socket = socket2::SockRef::from(&*stream);
                socket.set_linger(Some(Duration::ZERO))?;
                return end;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

/// That a client goes while the service speaks, and that a service takes no more once it has ended, were failures.
#[test]
fn a_tunnel_fails_only_when_the_service_breaks_it_off() {
    for (ends, leaves, failed) in [
        ("the client", Some(Leaves::Closes), 0),
        ("the client", Some(Leaves::Resets), 0),
        ("the service", None, 0),
        ("the service, with a reset", None, 1),
    ] {
        let upstream = ending(ends);
        let server = serve(ProxyConfig::to([upstream.url()]), 1);
        let mut client = Client::connect(server.local_addr());
        client.send(upgrade("GET", "websocket", KEY));
        if let Some(leaves) = leaves {
            client.stream.read_exact(&mut [0; 400]).expect("some");
            leave(client, leaves);
        } else {
            // It hears of the end, maybe by an error, and speaks on until that is one.
            let _ = client.stream.read_to_end(&mut vec![]);
            while client.try_send("more").is_ok() {}
        }
        wait_until("it is counted", || {
            let totals = server.health().snapshot().totals;
            totals.served + totals.failed == 1
        });
        let totals = server.health().snapshot().totals;
        assert_eq!(totals.failed, failed, "{ends} ended it: {leaves:?}");
    }
}

/// A client that only says that it sends nothing more still gets its answer, unless that takes long.
#[test]
fn half_an_end_is_an_end_once_the_service_takes_long() {
    let upstream = Upstream::hanging();
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    let mut client = Client::connect(server.local_addr());
    client.get("/").finish();
    wait_until("the service is left", || {
        (upstream.asked().len(), upstream.open()) == (1, 0)
    });

    let upstream = Upstream::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(200));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
    });
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").finish().reply().text(), "late");
}

#[test]
fn a_hundred_silent_streams_leave_the_only_worker_free() {
    const STREAMS: usize = 100;
    let upstream = Upstream::silent("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nhi");
    let server = serve(ProxyConfig::to([upstream.url()]), 1);
    let clients: Vec<Client> = (0..STREAMS)
        .map(|_| {
            let mut client = Client::connect(server.local_addr());
            client.get("/events");
            client
                .stream
                .read_exact(&mut [0; 12])
                .expect("a reply begins");
            client
        })
        .collect();
    wait_until("the worker is free", || {
        server.health().snapshot().workers_busy == 0
    });
    drop(clients);
}

/// Each stream has two descriptors, and a server without any cannot so much as accept a monitor.
#[test]
fn streams_leave_the_descriptors_that_the_server_runs_on() {
    let upstream = Upstream::silent("HTTP/1.1 200 OK\r\n\r\nhi");
    // As many clients as a setting allows leave none for connections to the service but one for each worker.
    let config = Config {
        max_connections: 1 << 20,
        workers: 2,
        ..Config::default()
    };
    let proxy = Proxy::start(ProxyConfig::to([upstream.url()])).expect("it starts");
    let server = quiet(2).handler(proxy.under(&config));
    let server = server.start().expect("the server starts");
    let begin = || {
        let mut client = Client::connect(server.local_addr());
        client.get("/events");
        let mut status = [0; 12];
        client
            .stream
            .read_exact(&mut status)
            .expect("a reply begins");
        (client, status)
    };
    let held = [begin(), begin()];
    assert!(held.iter().all(|(_, status)| status == b"HTTP/1.1 200"));
    let mut refused = Client::connect(server.local_addr());
    let reply = refused.get("/").reply();
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.header("Proxy-Status"),
        Some("plimsoll; error=connection_limit_reached")
    );
    let ready = Client::connect(server.local_addr()).get("/livez").reply();
    assert_eq!(ready.status, 200);
    for (client, _) in held {
        client.reset();
    }
    wait_until("there is room again", || begin().1 == *b"HTTP/1.1 200");
}
