//! Bodies on their way: whose time counts, and what the server thinks of its own health meanwhile.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use plimsoll::proxy::{Proxy, ProxyConfig};
use plimsoll::{Builder, GateMode, Server};

use crate::kit::{Client, Upstream, get, quiet, wait_until};

/// A short time for what is tested to be short.
const SHORT: Duration = Duration::from_millis(300);

#[track_caller]
fn serve(upstream: &Upstream, builder: Builder) -> Server {
    let proxy = Proxy::start(ProxyConfig::to([upstream.url()])).expect("it starts");
    proxy.on(builder).start().expect("the server starts")
}

/// Sends a piece of a body, waits for so long, and sends the rest.
fn pausing(pause: Duration) -> Upstream {
    Upstream::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")?;
        thread::sleep(pause);
        stream.write_all(b" last")
    })
}

#[test]
fn a_silent_service_is_no_slow_client() {
    let upstream = pausing(4 * SHORT);
    let server = serve(&upstream, quiet(1).write_timeout(SHORT));
    assert_eq!(get(server.local_addr(), "/").text(), "first last");
}

#[test]
fn a_client_that_does_not_read_is_left_and_so_is_its_service() {
    let failed = Arc::new(Mutex::new(None));
    let told = failed.clone();
    let upstream = Upstream::start(move |_, stream| {
        let chunk = [b"10000\r\n", "x".repeat(0x10000).as_bytes(), b"\r\n"].concat();
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        // Until nobody takes it: then writing fails, and not by its own timeout.
        let error = loop {
            if let Err(error) = stream.write_all(&chunk) {
                break error;
            }
        };
        *told.lock().expect("no panic") = Some(error.kind());
        Err(error)
    });
    let server = serve(&upstream, quiet(1).write_timeout(SHORT));
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    let why = || *failed.lock().expect("no panic");
    wait_until("the service is left", || why().is_some());
    assert!(
        matches!(
            why(),
            Some(io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        ),
        "{:?}",
        why()
    );
    // Of an endless body, the client gets what was on its way, and no end.
    let mut rest = Vec::new();
    let most = 256 << 20;
    let read = client.stream.by_ref().take(most).read_to_end(&mut rest);
    assert!(read.is_err() || (rest.len() as u64) < most);
    assert!(!rest.ends_with(b"0\r\n\r\n"));
    // It is no failure of the service.
    wait_until("it is counted", || {
        let totals = server.health().snapshot().totals;
        assert_eq!(totals.failed, 0);
        totals.served == 1
    });
}

/// The time that counts is that to the answer's head.
#[test]
fn a_long_download_is_no_sign_of_a_sick_service() {
    let upstream = pausing(4 * SHORT);
    let builder = quiet(4).gate(GateMode::Literal).threshold(2 * SHORT);
    let server = serve(&upstream, builder);
    let mut clients: Vec<Client> = (0..8)
        .map(|_| Client::connect(server.local_addr()))
        .collect();
    for client in &mut clients {
        client.get("/");
    }
    for client in &mut clients {
        assert_eq!(client.reply().text(), "first last");
    }
    wait_until("all are counted", || {
        server.health().snapshot().totals.served == 8
    });
    let health = server.health();
    assert!(health.is_healthy(), "{:?}", health.snapshot());
}
