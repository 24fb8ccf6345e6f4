//! The binary as a sidecar: its options, and whose paths are whose.

use std::fs;
use std::io::Write;

use crate::kit::process::TempDir;
use crate::kit::{Client, Plimsoll, Serving, Upstream, ask, get, wait_until};

/// Answers with the line that it was asked.
fn telling() -> Upstream {
    Upstream::start(|asked, stream| {
        let line = asked.line();
        let length = line.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{line}"
        )
    })
}

#[test]
fn a_file_of_options_makes_a_sidecar_and_the_command_line_beats_it() {
    let upstream = telling();
    let directory = TempDir::new("sidecar");
    let file = directory.path().join("plimsoll.conf");
    let config = format!(
        "# in front of the service\nupstream {}\nlisten 127.0.0.1:0\nadmin 127.0.0.1:0\n\
         own-paths admin\nhealth-path off\nstatus-path /hull\n",
        upstream.url()
    );
    fs::write(&file, config).expect("a file");
    let file = file.to_str().expect("a path of text");
    let is_forwarded = |address, path: &str| {
        let reply = get(address, path);
        reply.status == 200 && reply.text() == format!("GET {path} HTTP/1.1")
    };
    let all = [
        "/",
        "/health",
        "/health/consul",
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "/hull",
        "/hull.json",
        "/other",
    ];
    for (more, own, admins) in [
        (
            &[][..],
            &["/livez", "/readyz"][..],
            &["/livez", "/readyz", "/metrics", "/hull", "/hull.json"][..],
        ),
        (
            &["--own-paths", "all", "--readyz-path", "off"],
            &["/livez", "/metrics", "/hull", "/hull.json"],
            &["/livez", "/metrics", "/hull", "/hull.json"],
        ),
    ] {
        let server = Plimsoll::start(&[&["--config", file], more].concat(), &[]);
        let (public, admin) = (server.address(), server.address());
        for path in all {
            assert_eq!(is_forwarded(public, path), !own.contains(&path), "{path}");
            assert!(!is_forwarded(admin, path), "{path}");
            let is_admins = get(admin, path).status == 200;
            assert_eq!(is_admins, admins.contains(&path), "{path}");
        }
    }
}

#[test]
fn variables_make_a_sidecar_too() {
    let upstream = telling();
    let url = upstream.url();
    let variables = [
        ("PLIMSOLL_UPSTREAM", url.as_str()),
        ("PLIMSOLL_LISTEN", "127.0.0.1:0"),
        ("PLIMSOLL_OWN_PATHS", "admin"),
        ("PLIMSOLL_UPSTREAM_HOST", "inside"),
    ];
    let server = Plimsoll::start(&[], &variables);
    let reply = get(server.address(), "/metrics");
    assert_eq!(reply.text(), "GET /metrics HTTP/1.1");
    assert_eq!(upstream.only().fields("host"), ["inside"]);
}

#[test]
fn a_request_that_finds_all_workers_waiting_is_told_so() {
    let upstream = Upstream::hanging();
    let url = upstream.url();
    let options = ["--workers", "1", "--queue-budget", "500ms"];
    let server = Serving::start(&[&["--upstream", &url], &options[..]].concat());
    let mut held = Client::connect(server.address);
    held.get("/");
    wait_until("the service is asked", || upstream.asked().len() == 1);
    let refused = get(server.address, "/");
    assert_eq!(refused.status, 503);
    assert!(refused.header("Retry-After").is_some(), "{refused:?}");
    let text = refused.text();
    assert!(text.contains("all workers wait for the upstream"), "{text}");
}

#[test]
fn a_body_that_is_too_large_is_refused_by_the_name_of_the_option() {
    let upstream = telling();
    let url = upstream.url();
    let server = Serving::start(&["--upstream", &url, "--max-body", "4KiB"]);
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4097\r\n\r\n";
    let reply = ask(server.address, head);
    assert_eq!(reply.status, 413);
    assert!(reply.text().contains("--max-body"), "{reply:?}");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn the_process_ends_in_time_while_it_relays_and_tells_that_it_cut_something() {
    let upstream = Upstream::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")?;
        // Until the connection ends.
        std::io::Read::read(stream, &mut [0]).map(|_| ())
    });
    let url = upstream.url();
    let server = Serving::start(&["--upstream", &url, "--drain", "500ms"]);
    let mut client = Client::connect(server.address);
    client.get("/");
    let begun = client.socket().peek(&mut [0]);
    assert_eq!(begun.expect("it is relayed"), 1);
    server.process.terminate();
    let reply = client.try_reply().expect("a head");
    assert!(!reply.whole, "{reply:?}");
    let (status, _, lines) = server.process.exit();
    assert_eq!(status.code(), Some(1), "{lines:?}");
    let told = lines.last().expect("a reason");
    assert!(
        told.contains("before 1 request(s) were answered"),
        "{lines:?}"
    );
}
