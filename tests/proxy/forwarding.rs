//! What the sidecar forwards, byte for byte, and what it answers when it cannot.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use plimsoll::proxy::{Proxy, ProxyConfig};
use plimsoll::{AccessLogFormat, Server};

use super::{OK, serve};
use crate::kit::process::TempDir;
use crate::kit::{
    Client, Framing, PATIENCE, Reserved, Serving, Upstream, ask, get, pattern, quiet, wait_until,
};

/// A sidecar in front of these, one try a request.
#[track_caller]
fn sidecar(upstreams: &[&Upstream]) -> Server {
    let config = ProxyConfig::to(upstreams.iter().map(|upstream| upstream.url()));
    let config = ProxyConfig {
        retries: 0,
        ..config
    };
    serve(config, 4)
}

#[test]
fn a_request_and_its_reply_go_through_byte_for_byte() {
    let upstream = Upstream::answering(
        "HTTP/1.1 207 Fine\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\
         Keep-Alive: timeout=9\r\nContent-Length: 6\r\n\r\n\x00\x01\r\n\r\n",
    );
    let server = sidecar(&[&upstream]);
    let mut client = Client::connect(server.local_addr());
    client.send(
        "PROPFIND /a%2Fb//../c?d=%zz&e HTTP/1.1\r\nHost: example.com\r\naCCept: */*\r\nX: 1\r\nConnection: close, y\r\n\
         Y: 2\r\nX: 3\r\nContent-Length: 4\r\n\r\n\x00\r\nz",
    );
    let rest = client.rest();
    assert_eq!(
        String::from_utf8_lossy(&rest),
        "HTTP/1.1 207 Fine\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n\
         Content-Length: 6\r\nConnection: close\r\n\r\n\x00\x01\r\n\r\n"
    );
    let asked = upstream.only();
    let id = asked.fields("x-request-id").join("|");
    let timeout = asked.fields("x-envoy-expected-rq-timeout-ms").join("|");
    assert_eq!(
        asked.head,
        format!(
            "PROPFIND /a%2Fb//../c?d=%zz&e HTTP/1.1\r\nHost: example.com\r\naCCept: */*\r\nX: 1\r\nX: 3\r\n\
             X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: example.com\r\n\
             X-Request-Id: {id}\r\nVia: 1.1 plimsoll\r\nContent-Length: 4\r\n\
             X-Envoy-Expected-Rq-Timeout-Ms: {timeout}\r\n\r\n"
        )
    );
    assert!(
        id.len() == 32 && timeout.parse::<u32>().is_ok(),
        "{asked:?}"
    );
    assert_eq!(asked.body, b"\x00\r\nz");
}

#[test]
fn bodies_of_any_size_and_framing_go_through() {
    let large = pattern(3_000_000);
    let sent = large.clone();
    let upstream = Upstream::start(move |asked, stream| {
        let head = "HTTP/1.1 200 OK\r\n";
        match asked.line() {
            "GET /length HTTP/1.1" => {
                write!(stream, "{head}Content-Length: {}\r\n\r\n", sent.len())?;
                stream.write_all(&sent)
            }
            "GET /chunked HTTP/1.1" => {
                write!(stream, "{head}Transfer-Encoding: chunked\r\n\r\n")?;
                for chunk in sent.chunks(70_000) {
                    write!(stream, "{:x};a=b\r\n", chunk.len())?;
                    stream.write_all(chunk)?;
                    stream.write_all(b"\r\n")?;
                }
                stream.write_all(b"0\r\nX: y\r\n\r\n")
            }
            "GET /close HTTP/1.1" => {
                write!(stream, "{head}\r\n")?;
                stream.write_all(&sent)?;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            }
            "POST /echo HTTP/1.1" => {
                write!(stream, "{head}Content-Length: {}\r\n\r\n", asked.body.len())?;
                stream.write_all(&asked.body)
            }
            other => panic!("{other}"),
        }
    });
    let server = sidecar(&[&upstream]);
    let mut client = Client::connect(server.local_addr());
    for (target, framing) in [
        ("/length", Framing::Length),
        ("/chunked", Framing::Chunked),
        ("/close", Framing::Chunked),
        ("/length", Framing::Length),
    ] {
        let reply = client.get(target).reply();
        assert_eq!((reply.status, reply.framing), (200, framing), "{target}");
        assert!(reply.body == large, "{target}");
    }
    let body = &large[..300_000];
    client.send(format!(
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body.len()
    ));
    assert!(client.send(body).reply().body == body);
    client.send(
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    assert_eq!(client.reply().text(), "abc");
    // HTTP/1.0 has no chunks.
    let reply = ask(server.local_addr(), "GET /chunked HTTP/1.0\r\n\r\n");
    assert_eq!(reply.framing, Framing::UntilClose);
    assert!(reply.body == large);
    let hosts = upstream
        .asked()
        .last()
        .expect("it was asked")
        .fields("host")
        .join("|");
    assert_eq!(hosts, upstream.address.to_string());
}

#[test]
fn connections_to_the_service_are_kept() {
    let upstream = Upstream::answering(OK);
    let server = sidecar(&[&upstream]);
    for _ in 0..20 {
        assert_eq!(get(server.local_addr(), "/").text(), "hello");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_body_that_comes_where_none_may_be_is_not_the_reply_to_somebody_else() {
    const STRAY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstray";
    let upstream = Upstream::start(|asked, stream| {
        let status = match asked.line() {
            "HEAD / HTTP/1.1" => "200 OK",
            "GET /204 HTTP/1.1" => "204 No Content",
            "GET /304 HTTP/1.1" => "304 Not Modified",
            _ => return stream.write_all(OK.as_bytes()),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
            STRAY.len()
        )?;
        // It comes when the next request is there already; nobody may be there to take it.
        thread::sleep(Duration::from_millis(50));
        stream.write_all(STRAY)
    });
    let server = sidecar(&[&upstream]);
    let mut client = Client::connect(server.local_addr());
    for method_and_target in ["HEAD /", "GET /204", "GET /304"] {
        client.send(format!("{method_and_target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        client.reply_to_head();
        assert_eq!(
            client.get("/").reply().text(),
            "hello",
            "{method_and_target}"
        );
    }
}

#[test]
fn nobody_at_the_address_is_502_and_says_so() {
    let nobody = Reserved::new();
    let url = format!("http://{}", nobody.address);
    let server = serve(ProxyConfig::to([url]), 4);
    let reply = get(server.local_addr(), "/");
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.header("Proxy-Status"),
        Some("plimsoll; error=connection_refused")
    );
}

#[test]
fn a_service_on_a_unix_socket_is_reached() {
    use std::io::Read;
    use std::os::unix::net::UnixListener;
    let directory = TempDir::new("sidecar");
    let path = directory.path().join("app.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    let service = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = [0; 1024];
        let count = stream.read(&mut head).expect("a request");
        stream.write_all(OK.as_bytes()).expect("it is taken");
        head[..count].to_vec()
    });
    let server = serve(ProxyConfig::to([format!("unix:{}", path.display())]), 4);
    let reply = ask(server.local_addr(), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(reply.text(), "hello");
    let head = service.join().expect("it was asked");
    assert!(String::from_utf8_lossy(&head).starts_with("GET / HTTP/1.1\r\nHost: localhost\r\n"));
}

#[test]
fn a_body_that_is_cut_is_cut_for_the_client_too() {
    let large = "x".repeat(100_000);
    for (fields, body) in [
        ("Content-Length: 100001\r\n", large.clone()),
        (
            "Transfer-Encoding: chunked\r\n",
            format!("186a0\r\n{large}\r\n"),
        ),
        (
            "Transfer-Encoding: chunked\r\n",
            format!("186a0\r\n{large}\r\nz"),
        ),
    ] {
        let upstream = Upstream::answering_once(format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}"));
        let server = sidecar(&[&upstream]);
        let reply = Client::connect(server.local_addr()).get("/").try_reply();
        // It may be found while nothing has been sent.
        let reply = reply.expect("a reply");
        assert!(
            !reply.whole || reply.status == 502,
            "{fields} {}",
            reply.status
        );
    }
}

/// A broken service had a line written for each reply.
#[test]
fn replies_that_are_cut_are_logged_in_numbers() {
    // Larger than what is waited for before the head goes out.
    let half = "x".repeat(100_000);
    let upstream = Upstream::answering_once(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n{half}"
    ));
    let server = Serving::start(&["--upstream", &upstream.url(), "--breaker", "off"]);
    for _ in 0..20 {
        let reply = Client::connect(server.address).get("/").try_reply();
        assert!(!reply.expect("a part").whole);
    }
    wait_until("it is told", || {
        server.process.logged("replies are cut in their middle") == 1
    });
    assert_eq!(server.process.logged("a reply was cut"), 0);
}

#[test]
fn the_access_log_tells_the_endpoint_the_tries_and_their_time() {
    let directory = TempDir::new("proxy-log");
    let path = directory.path().join("access.log");
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_, stream| {
        let code = if count.fetch_add(1, Ordering::SeqCst) == 0 {
            503
        } else {
            200
        };
        write!(stream, "HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n")
    });
    let proxy = Proxy::start(ProxyConfig::to([upstream.url()])).expect("it starts");
    let server = quiet(1)
        .access_log(path.to_str().expect("text"))
        .access_log_format(AccessLogFormat::Json)
        .handler(proxy)
        .start()
        .expect("the server starts");
    assert_eq!(get(server.local_addr(), "/").status, 200);
    server.shutdown(PATIENCE).expect("it stops");
    let log = std::fs::read(&path).expect("a log");
    let line: serde_json::Value = serde_json::from_slice(&log).expect("a line");
    assert_eq!(line["endpoint"], upstream.address.to_string());
    assert_eq!(line["tries"], 2);
    let time = |name: &str| line[name].as_f64().expect("a time");
    assert!(
        time("upstream_time") > 0.0 && time("upstream_time") <= time("duration"),
        "{line}"
    );
    let ids: Vec<_> = upstream
        .asked()
        .iter()
        .map(|asked| asked.fields("x-request-id").join("|"))
        .collect();
    assert_eq!(ids, [line["id"].as_str().expect("an id"); 2]);
}
