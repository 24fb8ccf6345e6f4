//! The health reports over sockets: who sees what, the listeners for monitors alone, and each monitor's own language.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::kit::{
    Client, Latch, NEVER, PATIENCE, Reply, Reserved, ask, get, meanwhile, quiet, quiet_at,
    wait_until,
};
use plimsoll::{Builder, Details, GateMode, Request, Server};

/// A threshold below the time that anything takes: every request is unhealthy.
const NOTHING: Duration = Duration::from_nanos(1);

const HALF_A_HEAD: &str = "GET / HTTP/1.1\r\nHost: local";

/// Connections that the admin and the agent listener hold each.
const RESERVE: usize = 16;

fn serve(builder: Builder) -> Server {
    builder
        .handler(|_: &mut Request| "served\n")
        .start()
        .expect("a server")
}

fn watched(workers: usize) -> Builder {
    quiet(workers).admin("127.0.0.1:0").agent("127.0.0.1:0")
}

fn admin(server: &Server) -> SocketAddr {
    server.admin_addr().expect("an admin listener")
}

fn agent(server: &Server) -> SocketAddr {
    server.agent_addr().expect("an agent listener")
}

/// Opens the gate for good.
#[track_caller]
fn trip(server: &Server) {
    let mut client = Client::connect(server.local_addr());
    wait_until("the gate trips", || {
        client.get("/").reply();
        server.health().snapshot().trips > 0
    });
}

fn plain(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain, text/*, */*\r\n\r\n")
}

#[track_caller]
fn json(reply: &Reply) -> serde_json::Value {
    let kind = reply.header("Content-Type");
    assert_eq!(kind, Some("application/health+json"));
    serde_json::from_slice(&reply.body).expect("JSON")
}

/// What the agent says to a client that says nothing.
#[track_caller]
fn agent_line(server: &Server) -> String {
    let said = Client::connect(agent(server)).rest();
    String::from_utf8(said).expect("text")
}

// Who sees what.

#[test]
fn a_web_page_that_points_its_name_at_this_host_reads_no_details() {
    let server = serve(quiet(2).details_host("status.example"));
    let address = server.local_addr();
    let status = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        ask(address, request).status
    };
    for path in ["/status", "/status.json", "/metrics", "/readyz/gate"] {
        for host in ["127.0.0.1", "[::1]:80", "localhost:1", "status.example:80"] {
            assert_eq!(status(path, host), 200, "{path} {host}");
        }
        for host in ["attacker.example", "attacker.example:80", "localhost.evil"] {
            assert_eq!(status(path, host), 404, "{path} {host}");
        }
        let absolute = format!("http://attacker.example{path}");
        assert_eq!(status(&absolute, "localhost"), 404, "{absolute}");
    }
    let request = "GET /health HTTP/1.1\r\nHost: attacker.example\r\n\r\n";
    assert_eq!(ask(address, request).text(), "{\"status\":\"pass\"}\n");
    let request = "GET /metrics HTTP/1.0\r\n\r\n";
    assert_eq!(ask(address, request).status, 200, "no browser");
}

#[test]
fn the_public_sees_the_status_word_only() {
    let server = serve(quiet(2).details(Details::Never));
    let address = server.local_addr();
    assert_eq!(get(address, "/health").text(), "{\"status\":\"pass\"}\n");
    for (path, text) in [
        ("/health", "healthy\n"),
        ("/health/consul", "healthy\n"),
        ("/readyz", "ready\n"),
        ("/readyz?verbose", "ready\n"),
        ("/livez", "live\n"),
        ("/livez?verbose&exclude=workers", "live\n"),
    ] {
        let reply = ask(address, plain(path));
        assert_eq!((reply.status, reply.text()), (200, text), "{path}");
    }
    for path in ["/metrics", "/readyz/gate", "/readyz/x", "/livez/workers"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let reply = ask(
                address,
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            );
            assert_eq!((reply.status, reply.text()), (404, "not found\n"), "{path}");
            assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{path}");
        }
    }
    assert_eq!(server.health().snapshot().totals.served, 0);
}

#[test]
fn the_public_cannot_exclude_what_keeps_the_server_from_being_ready() {
    let sick = quiet(2)
        .details(Details::Never)
        .gate(GateMode::Literal)
        .threshold(NOTHING)
        .cooldown(NEVER);
    let server = serve(sick);
    trip(&server);
    let reply = get(server.local_addr(), "/readyz?verbose&exclude=gate");
    assert_eq!((reply.status, reply.text()), (503, "unhealthy\n"));
    let reply = get(server.local_addr(), "/health");
    assert_eq!(
        (reply.status, reply.text()),
        (503, "{\"status\":\"fail\"}\n")
    );
}

#[test]
fn clients_on_this_host_and_everybody_if_so_told_see_everything() {
    for details in [Details::Local, Details::Always] {
        let server = serve(quiet(2).details(details));
        let address = server.local_addr();
        let report = json(&get(address, "/health"));
        assert!(report["checks"]["http:connections"].is_array(), "{details}");
        let verbose = get(address, "/readyz?verbose");
        assert!(verbose.text().starts_with("[+]gate ok\n"), "{details}");
        assert_eq!(get(address, "/metrics").status, 200);
        assert_eq!(get(address, "/readyz/gate").text(), "[+]gate ok\n");
    }
}

#[test]
fn the_admin_listener_sees_everything_also_when_nobody_else_does() {
    let server = serve(watched(2).details(Details::Never));
    let address = admin(&server);
    assert_ne!(address, server.local_addr());
    let report = json(&get(address, "/health"));
    assert!(report["checks"]["http:connections"].is_array());
    for path in [
        "/health",
        "/health/consul",
        "/livez?verbose",
        "/livez/workers",
        "/readyz?verbose",
        "/readyz/gate",
        "/metrics",
    ] {
        for method in ["GET", "OPTIONS"] {
            let reply = ask(address, format!("{method} {path} HTTP/1.0\r\n\r\n"));
            assert_eq!(reply.status, 200, "{method} {path}");
            assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{path}");
            assert!(!reply.body.is_empty(), "{method} {path}");
        }
        let mut client = Client::connect(address);
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.reply_to_head().status, 200, "HEAD {path}");
    }
    assert!(
        get(address, "/livez?verbose")
            .text()
            .starts_with("[+]workers ok\n")
    );
}

#[test]
fn the_admin_listener_serves_the_health_paths_alone() {
    let server = serve(watched(2));
    for request in [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /any?thing HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        let reply = ask(admin(&server), request);
        assert_eq!(
            (reply.status, reply.text()),
            (404, "not found\n"),
            "{request}"
        );
    }
    assert_eq!(ask(admin(&server), "GET\r\n\r\n").status, 400);
    let totals = server.health().snapshot().totals;
    let counted = (totals.served, totals.bad, totals.failed, totals.accepted);
    assert_eq!(counted, (0, 0, 0, 0), "none of it is the service's");
    assert_eq!(get(server.local_addr(), "/").text(), "served\n");
}

#[test]
fn without_an_address_there_is_no_further_listener() {
    let server = serve(quiet(2));
    assert_eq!((server.admin_addr(), server.agent_addr()), (None, None));
}

// The reserve.

#[test]
fn the_monitors_are_answered_while_every_connection_of_the_service_is_in_use() {
    let server = serve(watched(2).max_connections(2));
    let mut busy: Vec<_> = (0..2)
        .map(|_| {
            let mut client = Client::connect(server.local_addr());
            client.send(HALF_A_HEAD);
            client
        })
        .collect();
    let mut waiting = Client::connect(server.local_addr());
    waiting.get("/");
    wait_until("accepting pauses", || {
        server.health().snapshot().totals.accept_pauses_full > 0
    });
    let page = get(admin(&server), "/metrics");
    assert!(page.text().contains("plimsoll_connections 2\n"), "{page:?}");
    assert_eq!(get(admin(&server), "/readyz").status, 200);
    assert_eq!(agent_line(&server), "ready up 100%\n");
    // What the monitors had does not give room to a client.
    assert_eq!(server.health().snapshot().totals.accepted, 2);
    busy.pop();
    assert_eq!(waiting.reply().text(), "served\n");
}

#[test]
fn the_longest_idle_monitor_makes_room_for_another_but_not_for_a_client() {
    let server = serve(watched(2).max_connections(1));
    let mut monitors: Vec<_> = (0..RESERVE)
        .map(|_| {
            let mut client = Client::connect(admin(&server));
            assert_eq!(client.get("/livez").reply().status, 200);
            client
        })
        .collect();
    // The first is now the latest, so the second has been idle the longest.
    assert_eq!(monitors[0].get("/livez").reply().status, 200);
    assert_eq!(get(server.local_addr(), "/").text(), "served\n");
    let mut newcomer = Client::connect(admin(&server));
    assert_eq!(newcomer.get("/livez").reply().status, 200);
    monitors[1].expect_close();
    for index in (0..RESERVE).filter(|&index| index != 1) {
        assert_eq!(monitors[index].get("/livez").reply().status, 200, "{index}");
    }
}

#[test]
fn monitors_beyond_the_reserve_wait_while_none_is_idle_and_the_service_goes_on() {
    let server = serve(watched(2));
    let mut busy: Vec<_> = (0..RESERVE)
        .map(|_| {
            let mut client = Client::connect(admin(&server));
            client.send(HALF_A_HEAD);
            client
        })
        .collect();
    let mut waiting = Client::connect(admin(&server));
    waiting.get("/livez");
    for _ in 0..10 {
        assert_eq!(get(server.local_addr(), "/").text(), "served\n");
        assert_eq!(agent_line(&server), "ready up 100%\n");
    }
    let short = Duration::from_millis(100);
    waiting
        .socket()
        .set_read_timeout(Some(short))
        .expect("a timeout");
    let mut byte = [0];
    assert!(
        waiting.stream.read(&mut byte).is_err(),
        "nobody made room, yet it was served"
    );
    waiting
        .socket()
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout");
    busy.pop();
    assert_eq!(waiting.reply().status, 200);
}

// The agent.

#[test]
fn the_agent_says_the_whole_state_at_once_and_closes() {
    let server = serve(watched(2).gate(GateMode::Literal).threshold(NEVER));
    assert_eq!(agent_line(&server), "ready up 100%\n");

    let sick = watched(2)
        .gate(GateMode::Literal)
        .threshold(NOTHING)
        .cooldown(NEVER);
    let server = serve(sick);
    trip(&server);
    assert_eq!(agent_line(&server), "ready fail #gate failed\n");
    assert_eq!(server.health().snapshot().totals.bad, 0);
}

#[test]
fn the_agent_tells_the_headroom() {
    // With an age of 1 the average is the last request's time.
    let server = watched(2)
        .ewma_age(1)
        .threshold(Duration::from_secs(2))
        .handler(|request: &mut Request| {
            if request.path() == "/slow" {
                thread::sleep(Duration::from_millis(700));
            }
            "served\n"
        })
        .start()
        .expect("a server");
    get(server.local_addr(), "/slow");
    let health = server.health();
    wait_until("its sample", || health.service_time().is_some());
    let line = agent_line(&server);
    let percent = line
        .strip_prefix("ready up ")
        .and_then(|rest| rest.strip_suffix("%\n"));
    let percent: u32 = percent.expect(&line).parse().expect("a number");
    // 70 on an idle machine; a busy one takes longer.
    assert!(
        percent <= 70 && (percent == 1 || percent.is_multiple_of(10)),
        "{line}"
    );
    get(server.local_addr(), "/");
    wait_until("the load is gone", || {
        agent_line(&server) == "ready up 100%\n"
    });
}

/// HAProxy may send a line of its own. Closing with bytes unread would be a reset, which can overtake the answer.
#[test]
fn the_agents_answer_survives_whatever_its_client_sends() {
    let server = serve(watched(2));
    for sent in ["\n", "plimsoll\n", &"x".repeat(200_000)] {
        let mut client = Client::connect(agent(&server));
        client.send(sent);
        assert_eq!(client.rest(), b"ready up 100%\n");
    }
}

#[test]
fn the_agent_answers_any_number_of_clients_and_holds_few() {
    let server = serve(watched(2).max_connections(1));
    let mut open = Vec::new();
    for turn in 0..4 * RESERVE {
        let mut client = Client::connect(agent(&server));
        // None of them closes, and each is answered.
        assert_eq!(client.rest(), b"ready up 100%\n", "{turn}");
        open.push(client);
    }
    assert_eq!(get(server.local_addr(), "/").text(), "served\n");
    assert_eq!(server.health().snapshot().totals.accepted, 1);
}

#[test]
fn clients_of_the_agent_that_vanish_leave_nothing() {
    let server = serve(watched(2));
    for _ in 0..10 * RESERVE {
        drop(TcpStream::connect(agent(&server)).expect("a connection"));
    }
    assert_eq!(agent_line(&server), "ready up 100%\n");
}

// The drain.

#[test]
fn the_monitors_are_answered_until_the_very_end_of_a_drain() {
    let latch = Arc::new(Latch::default());
    // Nobody else listens there when it does no more.
    let address = || Reserved::new().for_good();
    let server = quiet_at(address(), 2)
        .admin(address())
        .agent(address())
        .handler(latch.handler("served\n"))
        .start()
        .expect("a server");
    let (public, admin, agent) = (server.local_addr(), admin(&server), agent(&server));
    let mut client = Client::connect(public);
    client.get("/");
    latch.wait_for(1);
    // The listener of the service closes after four fifths of it.
    let drain = Duration::from_secs(10);
    let stopping = thread::spawn(move || server.shutdown(drain));
    wait_until("the service accepts nobody", || {
        TcpStream::connect(public).is_err()
    });
    assert_eq!(Client::connect(agent).rest(), b"drain up\n");
    let reply = get(admin, "/readyz?verbose");
    assert_eq!(reply.status, 503);
    assert!(
        reply.text().contains("[-]serving failed: draining\n"),
        "{reply:?}"
    );
    assert!(reply.closes());
    // A monitor that hangs does not hold the end up.
    let mut hanging = Client::connect(admin);
    hanging.send(HALF_A_HEAD);
    latch.open();
    assert_eq!(client.reply().text(), "served\n");
    stopping.join().expect("no panic").expect("all is answered");
    assert!(TcpStream::connect(admin).is_err(), "it is closed");
    assert!(TcpStream::connect(agent).is_err(), "it is closed");
}

// Parts.

#[test]
fn one_part_can_be_asked_for_or_left_out() {
    let sick = quiet(2)
        .gate(GateMode::Literal)
        .threshold(NOTHING)
        .cooldown(NEVER);
    let server = serve(sick);
    trip(&server);
    let address = server.local_addr();
    for (path, status, text) in [
        ("/readyz", 503, "unhealthy\n"),
        ("/readyz?exclude=gate", 200, "ready\n"),
        (
            "/readyz?verbose&exclude=gate",
            200,
            "[+]gate excluded: ok\n[+]workers ok\n[+]intake ok\n[+]serving ok\nreadyz check passed\n",
        ),
        (
            "/readyz?verbose&exclude=serving&exclude=x&exclude=y",
            503,
            "[-]gate failed: resetting\n[+]workers ok\n[+]intake ok\n[+]serving excluded: ok\nwarn: some health checks cannot be excluded: \
             no matches for \"x\",\"y\"\nreadyz check failed\n",
        ),
        ("/readyz/gate", 503, "[-]gate failed: resetting\n"),
        ("/readyz/serving", 200, "[+]serving ok\n"),
        ("/readyz/nothing", 404, "not found\n"),
        ("/readyz/", 404, "not found\n"),
        (
            "/livez?verbose",
            200,
            "[+]workers ok\n[+]intake ok\nlivez check passed\n",
        ),
        ("/livez/workers", 200, "[+]workers ok\n"),
        ("/livez/gate", 404, "not found\n"),
    ] {
        let reply = get(address, path);
        assert_eq!((reply.status, reply.text()), (status, text), "{path}");
        let mut client = Client::connect(address);
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.reply_to_head().status, status, "HEAD {path}");
        let options = ask(address, format!("OPTIONS {path} HTTP/1.0\r\n\r\n"));
        assert_eq!(options.status, status, "OPTIONS {path}");
    }
    for path in ["/health/consul", "/readyz/gate", "/livez/workers"] {
        let reply = ask(
            address,
            format!("DELETE {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        );
        assert_eq!(reply.status, 405, "{path}");
    }
}

#[test]
fn the_path_for_consul_moves_with_the_health_path() {
    let server = serve(quiet(2).health_path("/up"));
    let reply = get(server.local_addr(), "/up/consul");
    assert_eq!((reply.status, reply.text()), (200, "healthy\n"));
    assert_eq!(
        reply.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    let reply = get(server.local_addr(), "/health/consul");
    assert_eq!(reply.text(), "served\n");
}

#[test]
fn consuls_line_stays_the_same_while_requests_come_and_go() {
    let server = serve(quiet(2));
    let address = server.local_addr();
    let mut client = Client::connect(address);
    let ask_on = || drop(client.get("/").reply());
    meanwhile(ask_on, || {
        for _ in 0..100 {
            for path in ["/health", "/health/consul"] {
                assert_eq!(ask(address, plain(path)).body, b"healthy\n");
            }
        }
    });
}

/// While nothing else happens the same report is given again, to whoever asks and however.
#[test]
fn a_report_that_is_given_again_comes_with_the_head_that_its_request_wants() {
    let server = quiet(1)
        .handler(|_: &mut Request| "served\n")
        .start()
        .expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    for _ in 0..20 {
        let kept = client.get("/health").reply();
        assert_eq!((kept.status, kept.closes()), (200, false), "{kept:?}");
        client.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        let old = client.reply();
        assert_eq!(old.header("connection"), Some("keep-alive"), "{old:?}");
        client.send("HEAD /health HTTP/1.1\r\nHost: a\r\n\r\n");
        let head = client.reply_to_head();
        assert_eq!((head.status, head.closes()), (200, false), "{head:?}");
        let closing = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let closed = ask(address, closing);
        assert!(closed.closes(), "{closed:?}");
        for reply in [kept, old, closed] {
            assert!(reply.text().starts_with('{'), "{reply:?}");
        }
    }
}
