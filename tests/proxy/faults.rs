//! Services that fail: what is tried again and how often, what a breaker keeps from them, and how they come back.

use std::fs;
use std::io::{self, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::proxy::{BalanceBy, BreakerMode, ProxyConfig, UpstreamCheck};
use plimsoll::{CheckSettings, Server};

use super::OK;
use crate::kit::process::TempDir;
use crate::kit::{Client, Latch, PATIENCE, Reply, Upstream, ask, get, wait_until};

fn status(status: u16, fields: &str) -> String {
    format!("HTTP/1.1 {status} x\r\n{fields}Content-Length: 0\r\n\r\n")
}

/// Answers with a name.
fn named(name: &str) -> Upstream {
    let length = name.len();
    Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
    ))
}

#[track_caller]
fn serve(config: ProxyConfig) -> Server {
    super::serve(config, 8)
}

fn to(upstreams: &[&Upstream]) -> ProxyConfig {
    ProxyConfig::to(upstreams.iter().map(|upstream| upstream.url()))
}

/// A service that takes each request and closes the connection.
fn closing() -> Upstream {
    Upstream::start(|_, _| Err(io::ErrorKind::ConnectionAborted.into()))
}

fn request(server: &Server, method: &str, fields: &str) -> Reply {
    let head = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: 0\r\n\r\n");
    ask(server.local_addr(), head)
}

#[test]
fn a_service_that_always_fails_is_left_alone_by_its_breaker() {
    let upstream = Upstream::answering(status(500, ""));
    let server = serve(ProxyConfig {
        breaker: "5,on=5xx".parse().expect("a breaker"),
        ..to(&[&upstream])
    });
    let began = Instant::now();
    let mut refused = 0;
    for _ in 0..60 {
        let reply = get(server.local_addr(), "/");
        if reply.status == 503 {
            refused += 1;
            let why = reply.header("Proxy-Status");
            assert_eq!(why, Some("plimsoll; error=destination_unavailable"));
            let seconds = reply.header("Retry-After").expect("a time");
            assert!(seconds.parse::<u32>().expect("seconds") >= 1);
        } else {
            assert_eq!(reply.status, 500);
        }
    }
    let asked = upstream.asked().len();
    assert_eq!(asked + refused, 60);
    // The delay is 0.8 s at least, and then one trial comes.
    let trials = began.elapsed().as_millis() / 800;
    assert!(
        asked <= 5 + usize::try_from(trials).expect("few"),
        "{asked}"
    );
}

#[test]
fn one_address_that_gives_500_harms_no_other() {
    let upstream = Upstream::start(|asked, stream| {
        let is_bad = asked.line().contains("/bad");
        let reply = status(if is_bad { 500 } else { 200 }, "");
        stream.write_all(reply.as_bytes())
    });
    let server = serve(to(&[&upstream]));
    for _ in 0..60 {
        assert_eq!(get(server.local_addr(), "/bad").status, 500);
    }
    assert_eq!(get(server.local_addr(), "/good").status, 200);
    assert_eq!(upstream.asked().len(), 61);
}

#[test]
fn what_may_be_sent_twice_is_tried_again_and_nothing_else_is() {
    let breaker = BreakerMode::Off;
    for (method, fields, tries) in [
        ("GET", "", 3),
        ("PUT", "", 3),
        ("POST", "", 1),
        ("PATCH", "", 1),
        ("POST", "Idempotency-Key: \"a\"\r\n", 3),
        (
            "POST",
            "Idempotency-Key: \"a\"\r\nConnection: Idempotency-Key\r\n",
            3,
        ),
    ] {
        let upstream = closing();
        let server = serve(ProxyConfig {
            breaker,
            ..to(&[&upstream])
        });
        let reply = request(&server, method, fields);
        assert_eq!(reply.status, 502, "{method} {fields}");
        let why = reply.header("Proxy-Status");
        assert_eq!(why, Some("plimsoll; error=connection_terminated"));
        assert_eq!(upstream.asked().len(), tries, "{method} {fields}");
        for asked in upstream.asked() {
            let has_key = !asked.fields("idempotency-key").is_empty();
            assert_eq!(has_key, fields.contains("Idempotency-Key: "), "{asked:?}");
        }
    }
    for (code, tries) in [
        (502, 3),
        (503, 3),
        (504, 3),
        (500, 1),
        (501, 1),
        (429, 1),
        (404, 1),
    ] {
        let upstream = Upstream::answering(status(code, "X: theirs\r\n"));
        let server = serve(ProxyConfig {
            breaker,
            ..to(&[&upstream])
        });
        let reply = request(&server, "GET", "");
        assert_eq!((reply.status, reply.header("X")), (code, Some("theirs")));
        assert_eq!(upstream.asked().len(), tries, "{code}");
        assert_eq!(upstream.connections(), 1, "it is kept after a whole reply");
        assert_eq!(request(&server, "POST", "").status, code);
        assert_eq!(upstream.asked().len(), tries + 1, "{code}");
    }
}

#[test]
fn retry_after_is_waited_for_if_it_is_short() {
    for (fields, least, tries) in [
        ("Retry-After: 1\r\n", 1, 2),
        ("Retry-After: 3600\r\n", 0, 1),
        ("Retry-After: Fri, 31 Dec 2100 23:59:59 GMT\r\n", 0, 1),
        ("Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\n", 0, 2),
        ("Retry-After: soon\r\n", 0, 2),
    ] {
        let upstream = Upstream::answering(status(503, fields));
        let server = serve(ProxyConfig {
            retries: 1,
            ..to(&[&upstream])
        });
        let began = Instant::now();
        let reply = get(server.local_addr(), "/");
        assert_eq!(reply.status, 503);
        assert!(reply.header("Retry-After").is_some(), "it is passed on");
        assert_eq!(upstream.asked().len(), tries, "{fields}");
        assert!(began.elapsed() >= Duration::from_secs(least), "{fields}");
    }
}

#[test]
fn a_try_that_took_too_long_is_made_again_only_with_a_limit_of_its_own() {
    let upstream = Upstream::hanging();
    let server = serve(ProxyConfig {
        try_timeout: Some(Duration::from_millis(400)),
        ..to(&[&upstream])
    });
    assert_eq!(request(&server, "GET", "").status, 504);
    wait_until("all tries were heard", || upstream.asked().len() == 3);
    assert_eq!(request(&server, "POST", "").status, 504);
    wait_until("one more was", || upstream.asked().len() == 4);
}

#[test]
fn at_total_failure_the_budget_bounds_the_load() {
    let upstream = Upstream::answering(status(503, ""));
    let server = serve(ProxyConfig {
        breaker: BreakerMode::Off,
        ..to(&[&upstream])
    });
    let requests = 300;
    let threads = 6;
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut client = Client::connect(server.local_addr());
                for _ in 0..requests / threads {
                    assert_eq!(client.get("/").reply().status, 503);
                }
            });
        }
    });
    // 0.2 of the requests and 30 more in each window of 10 s.
    let windows = 1 + began.elapsed().as_secs() / 10;
    let most = requests + requests / 5 + 30 * windows + 1;
    let asked = upstream.asked().len() as u64;
    assert!(asked <= most, "{asked} of at most {most}");
    assert!(asked > requests, "some are tried again");
}

#[test]
fn a_connection_that_was_closed_between_requests_costs_no_client_its_answer() {
    let upstream = Upstream::start(|asked, stream| {
        stream.write_all(OK.as_bytes())?;
        // It has said that it would keep the connection.
        let closes = asked.line().contains("/close");
        if closes {
            Err(io::ErrorKind::ConnectionAborted.into())
        } else {
            Ok(())
        }
    });
    let server = serve(ProxyConfig {
        retries: 0,
        ..to(&[&upstream])
    });
    for _ in 0..50 {
        assert_eq!(get(server.local_addr(), "/close").status, 200);
        assert_eq!(get(server.local_addr(), "/").status, 200);
    }
    assert_eq!(upstream.asked().len(), 100);
}

#[test]
fn a_header_leads_to_the_same_endpoint() {
    let upstreams = [named("1"), named("2"), named("3"), named("4")];
    let server = serve(ProxyConfig {
        balance: BalanceBy::HashHeader("x-user".to_owned()),
        ..to(&upstreams.each_ref())
    });
    let asked = |user: &str| request(&server, "GET", &format!("X-User: {user}\r\n")).body;
    let users: Vec<String> = (0..30).map(|user| user.to_string()).collect();
    let first: Vec<_> = users.iter().map(|user| asked(user)).collect();
    let again: Vec<_> = users.iter().map(|user| asked(user)).collect();
    assert_eq!(first, again);
    assert!(
        first.iter().any(|endpoint| endpoint != &first[0]),
        "{first:?}"
    );
}

#[test]
fn an_endpoint_gets_no_more_at_once_than_it_can_do() {
    let latch = Arc::new(Latch::default());
    let (held, most, now) = (
        latch.clone(),
        Arc::new(AtomicUsize::new(0)),
        AtomicUsize::new(0),
    );
    let seen = most.clone();
    let upstream = Upstream::start(move |_, stream| {
        seen.fetch_max(1 + now.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        held.pass();
        now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(OK.as_bytes())
    });
    let server = serve(ProxyConfig::to([format!("{}#max=2", upstream.url())]));
    let begin = Barrier::new(3);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                begin.wait();
                assert_eq!(get(server.local_addr(), "/").status, 200);
            });
        }
        begin.wait();
        latch.wait_for(2);
        let refused = get(server.local_addr(), "/");
        assert_eq!(refused.status, 503);
        let why = refused.header("Proxy-Status");
        assert_eq!(why, Some("plimsoll; error=connection_limit_reached"));
        latch.open();
    });
    assert_eq!(most.load(Ordering::SeqCst), 2);
}

#[test]
fn a_file_of_endpoints_is_followed() {
    let directory = TempDir::new("endpoints");
    let path = directory.path().join("endpoints");
    let source = format!("file:{}", path.display());
    let server = serve(ProxyConfig::to([source]));
    let reply = get(server.local_addr(), "/");
    assert_eq!(reply.status, 503, "it cannot be read yet");
    let (first, second) = (named("1"), named("2"));
    fs::write(&path, first.url()).expect("a file");
    wait_until("the first is used", || {
        get(server.local_addr(), "/").body == b"1"
    });
    fs::write(&path, format!("http//broken\n{}\n", second.url())).expect("a file");
    assert_eq!(
        get(server.local_addr(), "/").text(),
        "1",
        "the last good set is kept"
    );
    fs::write(&path, second.url()).expect("a file");
    wait_until("the second is used", || {
        get(server.local_addr(), "/").body == b"2"
    });
    fs::remove_file(&path).expect("it is there");
    assert_eq!(get(server.local_addr(), "/").text(), "2");
}

#[test]
fn a_service_that_is_back_makes_the_server_ready_without_any_traffic() {
    let mut upstream = named("1");
    let address = upstream.address;
    let server = serve(to(&[&upstream]));
    let ready = |query: &str| get(server.local_addr(), &format!("/readyz{query}"));
    assert_eq!(ready("").status, 200);
    upstream.stop();
    wait_until("the breaker is open", || {
        get(server.local_addr(), "/").status == 503
    });
    let reply = ready("?verbose");
    // Its delay may be over by now, and then single requests may try.
    if reply.status == 503 {
        assert!(
            reply.text().contains("[-]upstream failed"),
            "{}",
            reply.text()
        );
    }
    wait_until("it is not ready", || ready("").status == 503);
    let _back = Upstream::start_at(address, |_, stream| stream.write_all(OK.as_bytes()));
    let is_closed = || {
        get(server.local_addr(), "/status.json")
            .text()
            .contains("\"breaker\":\"closed\"")
    };
    wait_until("the breaker closes", is_closed);
    assert_eq!(ready("").status, 200);
    assert_eq!(get(server.local_addr(), "/").status, 200);
}

#[test]
fn one_endpoint_of_several_that_is_down_is_a_warning_and_told() {
    let (first, mut second) = (named("1"), named("2"));
    let server = serve(ProxyConfig {
        balance: BalanceBy::RoundRobin,
        ..to(&[&first, &second])
    });
    let name = second.address.to_string();
    second.stop();
    let page = |path: &str| get(server.local_addr(), path);
    let is_open = || {
        page("/metrics").text().contains(&format!(
            "plimsoll_upstream_breaker_state{{endpoint=\"{name}\"}} 2"
        ))
    };
    wait_until("its breaker is open", || {
        assert_eq!(page("/").status, 200, "another one answers");
        is_open()
    });
    assert_eq!(page("/readyz").status, 200);
    let health = page("/health");
    assert_eq!(health.status, 200);
    let report: serde_json::Value = serde_json::from_slice(&health.body).expect("JSON");
    assert_eq!(report["status"], "warn", "{report}");
    let endpoints = report["checks"]["upstream:connection"]
        .as_array()
        .expect("endpoints");
    let of = |id: &str| {
        let mut found = endpoints
            .iter()
            .filter(|endpoint| endpoint["componentId"] == id);
        found.next().expect("the endpoint").clone()
    };
    assert_eq!(of(&name)["status"], "warn");
    assert_eq!(of(&first.address.to_string())["observedValue"], "up");
    assert!(report["checks"]["upstream:responseTime"].is_array());
    let metrics = page("/metrics");
    for line in [
        format!("plimsoll_upstream_up{{endpoint=\"{name}\"}} 0"),
        format!("plimsoll_upstream_up{{endpoint=\"{}\"}} 1", first.address),
        format!("plimsoll_upstream_requests_total{{endpoint=\"{name}\",outcome=\"success\"}} 0"),
        "plimsoll_retry_budget_exhausted_total 0".to_owned(),
    ] {
        assert!(
            metrics.text().contains(&line),
            "{line} in {}",
            metrics.text()
        );
    }
    let told: serde_json::Value = serde_json::from_slice(&page("/status.json").body).expect("JSON");
    assert_eq!(told["state"]["word"], "warning", "{told}");
    assert_eq!(told["state"]["detail"], "1 of 2 endpoints down");
    assert!(told["upstreams"]["retries"].as_u64() >= Some(1), "{told}");
}

#[test]
fn a_source_that_cannot_be_read_is_named_and_the_server_is_not_ready() {
    let server = serve(ProxyConfig::to(["file:/nowhere/endpoints"]));
    assert_eq!(get(server.local_addr(), "/readyz").status, 503);
    let health = get(server.local_addr(), "/health");
    assert_eq!(health.status, 503);
    assert!(
        health
            .text()
            .contains("file:/nowhere/endpoints cannot be read"),
        "{}",
        health.text()
    );
    let metrics = get(server.local_addr(), "/metrics");
    let refused = get(server.local_addr(), "/");
    assert_eq!(refused.status, 503);
    let line = "plimsoll_upstream_errors_total{error=\"destination_unavailable\"} 1";
    assert!(!metrics.text().contains(line));
    wait_until("it is counted", || {
        get(server.local_addr(), "/metrics").text().contains(line)
    });
}

/// Answers `/up` with a status that can be changed, and the rest with a name.
fn checked(name: &'static str, status: &Arc<AtomicUsize>) -> Upstream {
    let status = status.clone();
    Upstream::start(move |asked, stream| {
        if asked.line().starts_with("GET /up ") {
            let code = status.load(Ordering::SeqCst);
            write!(stream, "HTTP/1.1 {code} x\r\nContent-Length: 0\r\n\r\n")
        } else {
            let length = name.len();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}"
            )
        }
    })
}

fn checking(upstreams: &[&Upstream]) -> ProxyConfig {
    let check = UpstreamCheck {
        path: "/up".to_owned(),
        settings: CheckSettings {
            interval: Duration::from_millis(30),
            timeout: PATIENCE,
            fall: 1,
            rise: 1,
            ..CheckSettings::default()
        },
    };
    ProxyConfig {
        upstream_check: Some(check),
        ..to(upstreams)
    }
}

#[test]
fn an_endpoint_whose_check_is_answered_wrong_is_the_last_choice_and_no_more() {
    let (good, bad) = (
        Arc::new(AtomicUsize::new(200)),
        Arc::new(AtomicUsize::new(500)),
    );
    let (first, second) = (checked("1", &good), checked("2", &bad));
    let server = serve(checking(&[&first, &second]));
    let states = |state: &str| {
        let page = get(server.local_addr(), "/status.json");
        page.text()
            .matches(&format!("\"state\":\"{state}\""))
            .count()
    };
    wait_until("one is the last choice", || states("last choice") == 1);
    // The choice follows a moment later.
    wait_until("the other one gets all", || {
        (0..20).all(|_| get(server.local_addr(), "/").body == b"1")
    });
    good.store(404, Ordering::SeqCst);
    wait_until("both are", || states("last choice") == 2);
    assert_eq!(
        get(server.local_addr(), "/readyz").status,
        200,
        "a wrong path harms nobody"
    );
    assert_eq!(get(server.local_addr(), "/").status, 200);
    bad.store(200, Ordering::SeqCst);
    wait_until("it is well again", || states("last choice") == 1);
    wait_until("it is used", || {
        (0..20).all(|_| get(server.local_addr(), "/").body == b"2")
    });
    let asked = first.asked();
    let check = asked
        .iter()
        .find(|asked| asked.line().starts_with("GET /up"))
        .expect("a check");
    assert_eq!(check.fields("host"), [first.address.to_string()]);
}

#[test]
fn an_endpoint_whose_check_is_answered_wrong_stays_ready_while_it_is_asked_again() {
    let (asked, latch) = (AtomicUsize::new(0), Arc::new(Latch::default()));
    let held = latch.clone();
    let upstream = Upstream::start(move |_, stream| {
        if asked.fetch_add(1, Ordering::SeqCst) > 0 {
            held.pass();
        }
        stream.write_all(status(404, "").as_bytes())
    });
    let server = serve(checking(&[&upstream]));
    latch.wait_for(1);
    let page = get(server.local_addr(), "/status.json");
    assert!(page.text().contains("last choice"), "{}", page.text());
    assert_eq!(get(server.local_addr(), "/readyz").status, 200);
    latch.open();
}

#[test]
fn an_endpoint_that_does_not_answer_its_check_makes_the_server_unready_without_traffic() {
    let status = Arc::new(AtomicUsize::new(200));
    let mut upstream = checked("1", &status);
    let address = upstream.address;
    let server = serve(checking(&[&upstream]));
    let ready = || get(server.local_addr(), "/readyz").status;
    assert_eq!(ready(), 200);
    upstream.stop();
    wait_until("it is not ready", || ready() == 503);
    let health = get(server.local_addr(), "/health");
    assert!(
        health
            .text()
            .contains("The only endpoint does not answer its check"),
        "{}",
        health.text()
    );
    let _back = Upstream::start_at(address, |_, stream| stream.write_all(OK.as_bytes()));
    wait_until("it is ready", || ready() == 200);
    assert_eq!(get(server.local_addr(), "/").status, 200);
}

#[test]
fn an_endpoint_that_does_one_at_a_time_is_tried_again_too() {
    let upstream = Upstream::answering(status(503, "X: theirs\r\n"));
    let server = serve(ProxyConfig {
        breaker: BreakerMode::Off,
        ..ProxyConfig::to([format!("{}#max=1", upstream.url())])
    });
    let reply = get(server.local_addr(), "/");
    assert_eq!((reply.status, reply.header("X")), (503, Some("theirs")));
    assert_eq!(upstream.asked().len(), 3);
}
