//! Real services behind the sidecar: the server of Python's library, nginx, and WebSockets of a library that is in use.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

use plimsoll::proxy::ProxyConfig;

use super::serve;
use crate::kit::process::{self, Process, TempDir, find};
use crate::kit::{Client, Framing, Reserved, get, pattern, wait_until};

/// A program that listens.
struct Service(Process);

impl Service {
    /// Starts it, and waits until it takes connections.
    #[track_caller]
    fn start(command: &mut Command, directory: &TempDir, port: &Reserved) -> Self {
        let mut service = Self(Process::start(command, directory.path()));
        wait_until("it is up", || {
            let output = directory.path().join("output");
            let has_ended = service.0.has_ended();
            assert!(!has_ended, "{:?}", fs::read_to_string(output));
            TcpStream::connect(port.address).is_ok()
        });
        service
    }
}

#[test]
fn a_python_service_is_served_as_it_is() {
    let Some(python) = find("python3", "python3") else {
        return;
    };
    let directory = TempDir::new("python");
    let large = pattern(2_000_000);
    fs::write(directory.path().join("large"), &large).expect("a file");
    let port = Reserved::new();
    let mut command = Command::new(python);
    command.args(["-m", "http.server", "--bind", "127.0.0.1", "--directory"]);
    command.arg(directory.path()).arg(port.port().to_string());
    let _service = Service::start(&mut command, &directory, &port);
    let server = serve(ProxyConfig::to([format!("http://{}", port.address)]), 4);
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

/// The Python that has the library websockets: where a package of Python is one of the distribution's, that is not
/// always the first on the PATH.
fn python_with_websockets() -> Option<PathBuf> {
    let first = find("python3", "python3")?;
    let has_it = |python: &PathBuf| {
        let mut command = Command::new(python);
        process::run(command.args(["-c", "import websockets"]), "").0
    };
    let found = [first, PathBuf::from("/usr/bin/python3")]
        .into_iter()
        .find(|python| python.is_file() && has_it(python));
    if found.is_none() {
        let told = writeln!(
            std::io::stderr(),
            "SKIPPED: Python's websockets is missing (install python3-websockets)"
        );
        told.expect("standard error can be written");
    }
    found
}

#[test]
fn websockets_of_a_real_library_go_through() {
    let Some(python) = python_with_websockets() else {
        return;
    };
    let directory = TempDir::new("websocket");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proxy/websocket.py");
    let port = Reserved::new();
    let mut command = Command::new(&python);
    command.args([script, "serve"]).arg(port.port().to_string());
    let _service = Service::start(&mut command, &directory, &port);
    let server = serve(ProxyConfig::to([format!("http://{}", port.address)]), 2);
    // It takes nothing else.
    assert_eq!(get(server.local_addr(), "/").status, 426);
    let mut command = Command::new(&python);
    command.args([script, "ask"]);
    command.arg(server.local_addr().port().to_string());
    let (is_content, said) = process::run(command.env("no_proxy", "*"), "");
    assert!(is_content && said == "fine\n", "{said}");
}

/// How many requests nginx takes on a connection, here.
const KEPT_FOR: usize = 7;

#[test]
fn nginx_is_served_as_it_is() {
    let Some(nginx) = find("nginx", "nginx") else {
        return;
    };
    let directory = TempDir::new("nginx");
    let at = |name: &str| directory.path().join(name);
    let large = pattern(2_000_000);
    let text = "some text that is worth to be compressed ".repeat(200);
    fs::create_dir(at("www")).expect("a directory");
    fs::write(at("www/large"), &large).expect("a file");
    fs::write(at("www/text.txt"), &text).expect("a file");
    let port = Reserved::new();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {};\n", at(name).display()))
        .concat();
    let config = format!(
        "daemon off; master_process off; pid {pid}; error_log {errors};\n\
         events {{ worker_connections 256; }}\n\
         http {{\n{temporary}\
         log_format told '$connection $request_method $status'; access_log {log} told;\n\
         keepalive_requests {KEPT_FOR}; gzip on; gzip_proxied any; types {{ text/plain txt; }} gzip_types text/plain;\n\
         server {{ listen {address}; root {root}; }}\n}}\n",
        address = port.address,
        pid = at("pid").display(),
        errors = at("errors").display(),
        log = at("log").display(),
        root = at("www").display(),
    );
    fs::write(at("nginx.conf"), config).expect("a file");
    let mut command = Command::new(nginx);
    command
        .arg("-e")
        .arg(at("errors"))
        .arg("-c")
        .arg(at("nginx.conf"));
    let _service = Service::start(&mut command, &directory, &port);
    let server = serve(ProxyConfig::to([format!("http://{}", port.address)]), 4);
    let mut client = Client::connect(server.local_addr());
    let mut ask = |method: &str, target: &str, fields: &str| {
        client.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"
        ));
        if method == "HEAD" {
            client.reply_to_head()
        } else {
            client.reply()
        }
    };

    let whole = ask("GET", "/large", "");
    assert_eq!((whole.status, whole.framing), (200, Framing::Length));
    assert!(whole.body == large);
    let piece = ask("GET", "/large", "Range: bytes=1000-1499\r\n");
    assert_eq!(piece.status, 206);
    assert!(piece.body == large[1000..1500]);
    let tag = whole.header("ETag").expect("a tag").to_owned();
    let fresh = ask("GET", "/large", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((fresh.status, fresh.body.len()), (304, 0));
    let head = ask("HEAD", "/large", "");
    assert_eq!(head.header("Content-Length"), Some("2000000"));
    // It compresses the reply to a request with Via only where it is told to.
    let compressed = ask("GET", "/text.txt", "Accept-Encoding: gzip\r\n");
    assert_eq!(compressed.header("Content-Encoding"), Some("gzip"));
    assert!(compressed.body.len() < text.len() / 4);
    assert_eq!(ask("GET", "/text.txt", "").text(), text);
    assert_eq!(ask("GET", "/missing", "").status, 404);
    assert_eq!(ask("POST", "/large", "Content-Length: 0\r\n").status, 405);

    // It closes a connection after some requests, and says so: nobody notices.
    let logged = || fs::read_to_string(at("log")).expect("a log");
    wait_until("the last of these is logged", || {
        logged().ends_with(" POST 405\n")
    });
    let before = logged().lines().count();
    for _ in 0..10 * KEPT_FOR {
        assert_eq!(ask("GET", "/text.txt", "").text(), text);
    }
    wait_until("all are logged", || {
        logged().lines().count() >= before + 10 * KEPT_FOR
    });
    let log = logged();
    let lines: Vec<_> = log.lines().skip(before).collect();
    assert_eq!(lines.len(), 10 * KEPT_FOR, "none came twice");
    let connections = lines.iter().filter_map(|line| line.split(' ').next());
    let connections: HashSet<_> = connections.collect();
    assert!(
        (10..=11).contains(&connections.len()),
        "{} connections",
        connections.len()
    );
}
