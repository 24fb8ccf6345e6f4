//! The sidecar: what it forwards, byte for byte, and what it answers when it cannot.

use std::collections::HashSet;
use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use plimsoll::proxy::{Proxy, ProxyConfig};
use plimsoll::{AccessLogFormat, Server};

use crate::kit::process::{Process, TempDir, find, free_port};
use crate::kit::{
    Client, Framing, Nobody, PATIENCE, Upstream, ask, get, pattern, quiet, wait_until,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A sidecar in front of these, one try a request.
#[track_caller]
fn sidecar(upstreams: &[&Upstream]) -> Server {
    let config = ProxyConfig::to(upstreams.iter().map(|upstream| upstream.url()));
    serve(ProxyConfig {
        retries: 0,
        ..config
    })
}

#[track_caller]
fn serve(config: ProxyConfig) -> Server {
    let proxy = Proxy::start(config).expect("it starts");
    quiet(4).handler(proxy).start().expect("the server starts")
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
fn nobody_at_the_address_is_502_and_says_so() {
    let nobody = Nobody::new();
    let url = format!("http://{}", nobody.address);
    let server = serve(ProxyConfig::to([url]));
    let reply = get(server.local_addr(), "/");
    assert_eq!(reply.status, 502);
    assert_eq!(
        reply.header("Proxy-Status"),
        Some("plimsoll; error=connection_refused")
    );
}

#[test]
fn a_service_that_hangs_is_504_in_time() {
    let upstream = Upstream::hanging();
    let config = ProxyConfig::to([upstream.url()]);
    let server = quiet(4)
        .handler(Proxy::start(config).expect("it starts"))
        .request_timeout(Duration::from_millis(500))
        .start()
        .expect("the server starts");
    let reply = get(server.local_addr(), "/");
    assert_eq!(reply.status, 504);
    assert_eq!(
        reply.header("Proxy-Status"),
        Some("plimsoll; error=http_response_timeout")
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
    let server = serve(ProxyConfig::to([format!("unix:{}", path.display())]));
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

#[test]
fn a_python_service_is_served_as_it_is() {
    let Some(python) = find("python3", "python3") else {
        return;
    };
    let directory = TempDir::new("python");
    let large = pattern(2_000_000);
    std::fs::write(directory.path().join("large"), &large).expect("a file");
    let port = free_port();
    let mut command = Command::new(python);
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
    command.arg(directory.path()).arg(port.to_string());
    let _service = Process::start(&mut command, directory.path());
    let server = serve(ProxyConfig::to([format!("http://127.0.0.1:{port}")]));
    wait_until("it is up", || get(server.local_addr(), "/").status == 200);
    let mut client = Client::connect(server.local_addr());
    for _ in 0..3 {
        let reply = client.get("/large").reply();
        assert_eq!((reply.status, reply.framing), (200, Framing::Length));
        assert!(reply.body == large);
        assert!(
            reply
                .header("Server")
                .is_some_and(|server| server.starts_with("SimpleHTTP"))
        );
    }
    client.send("HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let head = client.reply_to_head();
    assert_eq!(head.header("Content-Length"), Some("2000000"));
    assert_eq!(client.get("/missing").reply().status, 404);
    client.send("POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.reply().status, 501);
}

#[test]
fn a_service_that_restarts_under_load_gets_nothing_twice_that_may_not_be() {
    const CLIENTS: usize = 8;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let start = |address: SocketAddr| {
        let seen = seen.clone();
        Upstream::start_at(address, move |asked, stream| {
            seen.lock().expect("no panic").push(asked.line().to_owned());
            stream.write_all(OK.as_bytes())
        })
    };
    let mut upstream = start(([127, 0, 0, 1], 0).into());
    let address = upstream.address;
    let server = serve(ProxyConfig::to([upstream.url()]));
    let stopped = AtomicBool::new(false);
    let outcomes = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (server, stopped) = (&server, &stopped);
                scope.spawn(move || {
                    let mut connection = Client::connect(server.local_addr());
                    let mut outcomes = Vec::new();
                    for number in 0.. {
                        if stopped.load(Ordering::SeqCst) {
                            break;
                        }
                        let target = format!("/{client}/{number}");
                        let head = format!(
                            "POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
                        );
                        let status = connection.send(head).reply().status;
                        assert!(matches!(status, 200 | 502 | 503), "{status}");
                        outcomes.push((format!("POST {target} HTTP/1.1"), status));
                    }
                    outcomes
                })
            })
            .collect();
        for _ in 0..5 {
            let before = upstream.asked().len();
            wait_until("it works", || upstream.asked().len() > before + 20);
            upstream.stop();
            upstream = start(address);
        }
        wait_until("it works again", || upstream.asked().len() > 20);
        stopped.store(true, Ordering::SeqCst);
        let joined = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"));
        joined.flatten().collect::<Vec<_>>()
    });
    let seen = seen.lock().expect("no panic");
    let mut once = HashSet::new();
    for line in seen.iter() {
        assert!(once.insert(line), "{line} came twice");
    }
    for (line, status) in &outcomes {
        assert!(
            *status != 200 || once.contains(line),
            "{line} was answered by nobody"
        );
    }
}
