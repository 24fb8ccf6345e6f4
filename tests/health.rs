//! The gate, the averages and the health paths over sockets, and the four faults that the pattern is known for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use crate::kit::{
    Client, Latch, NEVER, PATIENCE, Reply, alone, ask, get, meanwhile, quiet, settle, wait_until,
};
use plimsoll::{Builder, Ewma, GateMode, GateState, OwnPaths, Request, Response, Server};

/// A threshold below the time that anything takes: every request is unhealthy.
const NOTHING: Duration = Duration::from_nanos(1);

/// A threshold that only requests for `/slow` reach, on a busy machine too.
const THRESHOLD: Duration = Duration::from_millis(500);

/// Serves `/slow` in no less than the threshold, and everything else at once.
fn serve(builder: Builder) -> Server {
    builder
        .handler(|request: &mut Request| {
            if request.path() == "/slow" {
                thread::sleep(THRESHOLD);
            }
            "served\n"
        })
        .start()
        .expect("a server")
}

/// A server in which every request is unhealthy.
fn sick(mode: GateMode, cooldown: Duration) -> Server {
    serve(quiet(4).gate(mode).threshold(NOTHING).cooldown(cooldown))
}

/// Sends requests until the gate trips.
#[track_caller]
fn trip(server: &Server) {
    let mut client = Client::connect(server.local_addr());
    wait_until("the gate trips", || {
        client.get("/").reply();
        server.health().snapshot().trips > 0
    });
}

#[track_caller]
fn health_json(reply: &Reply) -> serde_json::Value {
    assert_eq!(
        reply.header("Content-Type"),
        Some("application/health+json")
    );
    serde_json::from_slice(&reply.body).expect("JSON")
}

/// The value of a metric, with its labels if it has any.
#[track_caller]
fn metric(page: &str, name: &str) -> f64 {
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {name} in {page}"));
    value.parse().expect("a number")
}

// The first fault: only traffic on `/` starts the reset, so that an instance out of rotation never recovers.

#[test]
fn it_recovers_when_nothing_at_all_is_called() {
    for mode in [GateMode::Literal, GateMode::Guarded] {
        let server = sick(mode, Duration::from_millis(100));
        trip(&server);
        let health = server.health();
        wait_until("the reset", || health.snapshot().resets == 1);
        assert!(health.is_healthy(), "{mode}");
        assert_eq!(health.snapshot().service_time, None, "it starts afresh");
    }
}

#[test]
fn it_recovers_when_only_health_is_called() {
    for mode in [GateMode::Literal, GateMode::Guarded] {
        let server = sick(mode, Duration::from_millis(100));
        trip(&server);
        let mut client = Client::connect(server.local_addr());
        wait_until("healthy", || client.get("/health").reply().status == 200);
        assert_eq!(server.health().snapshot().resets, 1, "{mode}");
    }
}

// The second: whether a reset runs is checked and set in two steps, so that several can start.

#[test]
fn a_thousand_concurrent_unhealthy_requests_start_exactly_one_reset() {
    alone(|| {
        const REQUESTS: usize = 1000;
        for (mode, cooldown) in [
            // What was admitted before the reset does not count after it.
            (GateMode::Guarded, Duration::from_millis(100)),
            // Here it does, so all have to end before.
            (GateMode::Literal, Duration::from_secs(4)),
        ] {
            let latch = Arc::new(Latch::default());
            // One worker stays idle: were all of them busy, a guarded gate would trip for that.
            let server = quiet(REQUESTS + 1)
                .max_connections(2 * REQUESTS)
                .gate(mode)
                .threshold(NOTHING)
                .cooldown(cooldown)
                .handler(latch.handler("served\n"))
                .start()
                .expect("a server");
            let health = server.health();
            let mut clients = Client::asking(server.local_addr(), REQUESTS);
            latch.wait_for(REQUESTS);
            assert_eq!(health.snapshot().trips, 0, "none has ended");
            latch.open();
            for client in &mut clients {
                assert_eq!(client.reply().status, 200);
            }
            wait_until("all are counted", || {
                health.snapshot().totals.served == REQUESTS as u64
            });
            assert_eq!(health.snapshot().trips, 1, "{mode}");
            wait_until("the reset", || health.snapshot().resets > 0);
            let snapshot = health.snapshot();
            assert_eq!((snapshot.trips, snapshot.resets), (1, 1), "{mode}");
            assert_eq!(snapshot.epoch, 1);
        }
    });
}

// The third: the first sample becomes the average, so that one slow first request makes the instance unhealthy; and 0
// doubles as "no sample yet".

#[test]
fn one_slow_first_request_does_not_trip_a_guarded_gate() {
    let server = serve(quiet(4).gate(GateMode::Guarded).threshold(THRESHOLD));
    let health = server.health();
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/slow").reply().status, 200);
    wait_until("its sample", || health.service_time().is_some());
    let first = health.service_time().expect("a sample");
    assert!(first >= THRESHOLD, "{first:?}");
    assert_eq!(health.snapshot().gate, GateState::Closed);
    assert_eq!(get(server.local_addr(), "/readyz").status, 200);
    // It weighs less with each further sample. Were all of them slow, they would still be too few to trip.
    for _ in 0..20 {
        assert_eq!(client.get("/").reply().status, 200);
    }
    wait_until("their samples", || health.snapshot().totals.served == 21);
    let average = health.service_time().expect("samples");
    assert!(average < first, "{average:?}, after {first:?}");
    assert_eq!(health.snapshot().trips, 0);
}

#[test]
fn no_sample_is_not_zero() {
    let server = serve(quiet(4));
    let address = server.local_addr();
    let snapshot = server.health().snapshot();
    assert_eq!(snapshot.service_time, None);
    assert_eq!(snapshot.response_time, None);
    assert_eq!((snapshot.bad_ratio, snapshot.failed_ratio), (None, None));
    let report = health_json(&get(address, "/health"));
    for check in ["http:responseTime", "http:serviceTime", "http:badRequests"] {
        let value = &report["checks"][check][0]["observedValue"];
        assert!(value.is_null(), "{check}: {value}");
    }
    let page = get(address, "/metrics");
    assert!(metric(page.text(), "plimsoll_service_time_average_seconds").is_nan());

    get(address, "/");
    settle(&server);
    let snapshot = server.health().snapshot();
    assert!(snapshot.service_time > Some(Duration::ZERO), "{snapshot:?}");
    assert!(
        snapshot.response_time >= snapshot.service_time,
        "{snapshot:?}"
    );
    assert_eq!(
        (snapshot.bad_ratio, snapshot.failed_ratio),
        (Some(0.0), Some(0.0))
    );
    let report = health_json(&get(address, "/health"));
    for check in ["http:responseTime", "http:serviceTime"] {
        let value = &report["checks"][check][0]["observedValue"];
        assert!(value.as_f64() > Some(0.0), "{check}: {value}");
    }
}

// The fourth: the average is a data race.

#[test]
fn an_average_can_be_read_and_fed_while_it_is_reset() {
    const ROUNDS: usize = 20_000;
    let average = Ewma::new(30);
    let done = AtomicBool::new(false);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for sample in [2.0, 4.0] {
            let (average, start) = (&average, &start);
            scope.spawn(move || {
                start.wait();
                for _ in 0..ROUNDS {
                    average.add(sample);
                }
            });
        }
        scope.spawn(|| {
            start.wait();
            for _ in 0..ROUNDS {
                average.reset();
            }
            done.store(true, Ordering::Release);
        });
        start.wait();
        while !done.load(Ordering::Acquire) {
            if let Some(value) = average.value() {
                assert!((2.0..=4.0).contains(&value), "{value}");
            }
        }
    });
    average.reset();
    assert_eq!(average.value(), None);
}

#[test]
fn the_report_can_be_read_while_the_gate_trips_and_resets() {
    let server = sick(GateMode::Literal, Duration::from_millis(1));
    let address = server.local_addr();
    let health = server.health();
    let mut client = Client::connect(address);
    let ask = || {
        let status = client.get("/").reply().status;
        assert!(status == 200 || status == 503, "{status}");
    };
    meanwhile(ask, || {
        let mut reader = Client::connect(address);
        let mut reads = 0;
        wait_until("many cycles", || {
            let snapshot = health.snapshot();
            assert!(snapshot.resets <= snapshot.trips, "{snapshot:?}");
            assert!(snapshot.trips <= snapshot.resets + 1, "{snapshot:?}");
            assert_eq!(snapshot.epoch, snapshot.resets);
            if let Some(value) = health.service_time() {
                assert!(!value.is_zero());
            }
            let reply = reader.get("/health").reply();
            health_json(&reply);
            reads += 1;
            snapshot.resets >= 20 && reads >= 100
        });
    });
}

// The gate's cycle.

#[test]
fn a_literal_gate_trips_at_one_reading_refuses_resets_and_serves_again() {
    let cooldown = Duration::from_secs(3);
    let server = serve(
        quiet(4)
            .gate(GateMode::Literal)
            .threshold(THRESHOLD)
            .cooldown(cooldown),
    );
    let (address, health) = (server.local_addr(), server.health());
    assert_eq!(get(address, "/health").status, 200);
    assert_eq!(
        get(address, "/slow").status,
        200,
        "the reply itself is good"
    );
    wait_until("the first sample trips", || !health.is_healthy());
    assert_eq!(get(address, "/").status, 503);
    assert_eq!(get(address, "/slow").status, 503);
    assert_eq!(get(address, "/health").status, 503);
    assert_eq!(get(address, "/readyz").status, 503);
    assert_eq!(get(address, "/livez").status, 200);
    let snapshot = health.snapshot();
    assert!(matches!(snapshot.gate, GateState::Open { reopens_in } if reopens_in <= cooldown));
    assert!(!snapshot.is_ready());
    assert_eq!((snapshot.trips, snapshot.resets), (1, 0));

    wait_until("the reset", || health.is_healthy());
    let snapshot = health.snapshot();
    assert_eq!(snapshot.gate, GateState::Closed, "all traffic at once");
    assert_eq!((snapshot.trips, snapshot.resets), (1, 1));
    assert_eq!(snapshot.service_time, None);
    assert_eq!(get(address, "/readyz").status, 200);

    // Again the first sample is the average.
    assert_eq!(get(address, "/slow").status, 200);
    wait_until("it trips again", || health.snapshot().trips == 2);
    assert_eq!(health.snapshot().resets, 1);
}

#[test]
fn a_guarded_gate_trips_at_a_run_of_readings() {
    let server = sick(GateMode::Guarded, NEVER);
    let health = server.health();
    let mut client = Client::connect(server.local_addr());
    for turn in 1..30 {
        assert_eq!(client.get("/").reply().status, 200);
        wait_until("it is counted", || health.snapshot().totals.served == turn);
        assert_eq!(health.snapshot().trips, 0, "after {turn}");
    }
    assert_eq!(client.get("/").reply().status, 200);
    wait_until("the 30th trips", || health.snapshot().trips == 1);
    assert_eq!(client.get("/").reply().status, 503);
}

#[test]
fn a_guarded_gate_trips_when_every_worker_is_stalled_though_no_sample_comes() {
    let latch = Arc::new(Latch::default());
    let server = quiet(2)
        .gate(GateMode::Guarded)
        .threshold(Duration::from_millis(10))
        .cooldown(NEVER)
        .handler(latch.handler("served\n"))
        .start()
        .expect("a server");
    let mut clients = Client::asking(server.local_addr(), 2);
    latch.wait_for(2);
    // Nothing calls `/` any more.
    wait_until("health notices", || {
        get(server.local_addr(), "/health").status == 503
    });
    assert_eq!(server.health().snapshot().trips, 1);
    assert_eq!(get(server.local_addr(), "/").status, 503);
    latch.open();
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
}

#[test]
fn a_gate_that_is_off_never_trips() {
    let server = sick(GateMode::Off, Duration::from_millis(1));
    let mut client = Client::connect(server.local_addr());
    for _ in 0..100 {
        assert_eq!(client.get("/").reply().status, 200);
    }
    let health = server.health();
    wait_until("all are counted", || health.snapshot().totals.served == 100);
    let snapshot = health.snapshot();
    assert_eq!((snapshot.trips, snapshot.resets), (0, 0));
    assert_eq!(snapshot.gate, GateState::Closed);
    assert!(snapshot.service_time > Some(NOTHING));
    assert_eq!(get(server.local_addr(), "/readyz").status, 200);
}

// The health paths.

/// What each health path says while all is well.
const PATHS: [(&str, u16); 5] = [
    ("/health", 200),
    ("/livez", 200),
    ("/readyz", 200),
    ("/readyz?verbose", 200),
    ("/metrics", 200),
];

/// Wants the health paths to answer with these statuses, in every way they are asked, without a word to the handler.
#[track_caller]
fn answers(address: SocketAddr, expected: [(&str, u16); 5]) {
    for (path, status) in expected {
        let reply = get(address, path);
        assert_eq!(reply.status, status, "{path}: {reply:?}");
        assert_eq!(reply.header("Cache-Control"), Some("no-store"), "{path}");
        assert!(!reply.body.is_empty(), "{path}");

        let mut client = Client::connect(address);
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        let head = client.reply_to_head();
        assert_eq!(head.status, status, "HEAD {path}");
        assert_eq!(
            head.header("Cache-Control"),
            Some("no-store"),
            "HEAD {path}"
        );
        assert_eq!(head.header("Content-Type"), reply.header("Content-Type"));
        let length: usize = head
            .header("Content-Length")
            .expect("a length")
            .parse()
            .expect("a number");
        assert!(length > 0, "HEAD {path}: as long as GET's");
        client.finish().expect_close();

        // As HAProxy's httpchk asks.
        let options = ask(address, format!("OPTIONS {path} HTTP/1.0\r\n\r\n"));
        assert_eq!(options.status, status, "OPTIONS {path}");
        assert_eq!(options.header("Cache-Control"), Some("no-store"));
        assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"));
        assert!(options.closes(), "OPTIONS {path}");
    }
}

/// Wants every health path's text to say that.
#[track_caller]
fn says(address: SocketAddr, word: &str, ready: &str) {
    let plain =
        "GET /health HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain, text/*, */*\r\n\r\n";
    assert_eq!(ask(address, plain).text(), format!("{word}\n"));
    assert_eq!(get(address, "/readyz").text(), format!("{ready}\n"));
    let report = health_json(&get(address, "/health"));
    let status = if word == "healthy" { "pass" } else { "fail" };
    assert_eq!(report["status"], status);
    if status == "fail" {
        assert_eq!(report["output"], word);
    }
}

#[test]
fn every_health_path_answers_in_every_way() {
    let server = serve(quiet(2));
    answers(server.local_addr(), PATHS);
    says(server.local_addr(), "healthy", "ready");
    let totals = server.health().snapshot().totals;
    assert!(totals.probed > 0);
    let others = (totals.served, totals.bad, totals.failed);
    assert_eq!(
        others,
        (0, 0, 0),
        "health requests are not among the others"
    );
}

#[test]
fn every_health_path_answers_while_every_worker_is_busy() {
    let latch = Arc::new(Latch::default());
    let server = quiet(2)
        .queue_max(0)
        .handler(latch.handler("served\n"))
        .start()
        .expect("a server");
    let address = server.local_addr();
    let mut clients = Client::asking(address, 2);
    latch.wait_for(2);
    answers(address, PATHS);
    says(address, "healthy", "ready");
    let page = get(address, "/metrics");
    assert!((metric(page.text(), "plimsoll_workers_busy") - 2.0).abs() < 0.1);
    assert_eq!(get(address, "/").status, 503, "no worker, no queue");
    latch.open();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "served\n");
    }
}

#[test]
fn every_health_path_answers_while_the_gate_is_open() {
    for mode in [GateMode::Literal, GateMode::Guarded] {
        let server = sick(mode, NEVER);
        trip(&server);
        let address = server.local_addr();
        answers(
            address,
            [
                ("/health", 503),
                ("/livez", 200),
                ("/readyz", 503),
                ("/readyz?verbose", 503),
                ("/metrics", 200),
            ],
        );
        says(address, "unhealthy", "unhealthy");
        let page = get(address, "/metrics");
        assert!(page.text().contains("plimsoll_up 0\n"));
        assert!(
            page.text()
                .contains("plimsoll_gate_state{state=\"open\"} 1\n")
        );
        assert!(page.text().contains("plimsoll_gate_trips_total 1\n"));
        for part in ["part=\"gate\"} 0", "part=\"workers\"} 1"] {
            let line = format!("plimsoll_part_up{{{part}\n");
            assert!(page.text().contains(&line), "{line}");
        }
        let verbose = get(address, "/readyz?verbose");
        assert!(
            verbose.text().contains("[-]gate failed: resetting\n"),
            "{verbose:?}"
        );
    }
}

#[test]
fn every_health_path_answers_while_the_server_drains() {
    let latch = Arc::new(Latch::default());
    let server = quiet(2)
        .handler(latch.handler("served\n"))
        .start()
        .expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    client.get("/");
    latch.wait_for(1);
    let stopping = thread::spawn(move || server.shutdown(PATIENCE / 4));
    wait_until("it drains", || get(address, "/readyz").status == 503);
    answers(
        address,
        [
            ("/health", 503),
            ("/livez", 200),
            ("/readyz", 503),
            ("/readyz?verbose", 503),
            ("/metrics", 200),
        ],
    );
    says(address, "draining", "draining");
    let verbose = get(address, "/readyz?verbose");
    assert!(
        verbose.text().contains("[-]serving failed: draining\n"),
        "{verbose:?}"
    );
    latch.open();
    assert_eq!(client.reply().text(), "served\n");
    stopping.join().expect("no panic").expect("all is answered");
}

#[test]
fn the_report_is_in_the_form_that_is_asked_for() {
    let server = serve(quiet(2));
    let address = server.local_addr();
    let kind = |accept: &str| {
        let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{accept}\r\n");
        let reply = ask(address, request);
        assert_eq!(reply.status, 200);
        reply.header("Content-Type").expect("a type").to_owned()
    };
    for accept in [
        "",
        "Accept: */*\r\n",
        "Accept: application/json, text/plain\r\n",
    ] {
        assert_eq!(kind(accept), "application/health+json", "{accept:?}");
    }
    for accept in [
        "Accept: text/plain\r\n",
        "Accept: text/plain, text/*, */*\r\n",
    ] {
        assert_eq!(kind(accept), "text/plain; charset=utf-8", "{accept:?}");
    }
}

#[test]
fn the_report_has_the_numbers_in_the_units_it_names() {
    let server = quiet(3)
        .handler(|request: &mut Request| match request.path() {
            "/bad" => Response::text(404, "no\n"),
            "/failed" => Response::text(500, "no\n"),
            _ => {
                // Long enough to tell milliseconds from seconds.
                thread::sleep(Duration::from_millis(20));
                Response::text(200, "yes\n")
            }
        })
        .start()
        .expect("a server");
    let address = server.local_addr();
    let mut client = Client::connect(address);
    for target in ["/", "/bad", "/failed", "/"] {
        client.get(target).reply();
    }
    settle(&server);
    let snapshot = server.health().snapshot();
    let totals = snapshot.totals;
    assert_eq!(totals.served + totals.bad + totals.failed, 4);
    let report = health_json(&client.get("/health").reply());
    assert_eq!(report["status"], "pass");
    assert!(report["version"].is_string());
    let check = |name: &str| {
        let check = &report["checks"][name][0];
        assert_eq!(check["status"], "pass", "{name}");
        let time = check["time"].as_str().expect("a time");
        assert!(time.ends_with('Z') && time.len() == 20, "{time}");
        let unit = check["observedUnit"].as_str().expect("a unit").to_owned();
        (check["observedValue"].as_f64().expect("a number"), unit)
    };
    let close = |(found, unit): (f64, String), value: f64, expected: &str| {
        assert!(
            (found - value).abs() < 0.001 * value.max(1.0),
            "{found} for {value}"
        );
        assert_eq!(unit, expected);
    };
    let response = snapshot.response_time.expect("samples");
    assert!(response > Duration::from_millis(1), "{response:?}");
    close(
        check("http:responseTime"),
        response.as_secs_f64() * 1e3,
        "ms",
    );
    let service = snapshot.service_time.expect("samples");
    close(check("http:serviceTime"), service.as_secs_f64() * 1e3, "ms");
    let bad = snapshot.bad_ratio.expect("samples");
    assert!(bad > 0.0 && bad < 1.0, "{bad}");
    close(check("http:badRequests"), bad * 1e2, "percent");
    let failed = snapshot.failed_ratio.expect("samples");
    close(check("http:failedRequests"), failed * 1e2, "percent");
    close(check("http:connections"), 1.0, "connections");
    let (uptime, unit) = check("uptime");
    assert!(uptime <= snapshot.uptime.as_secs_f64() + PATIENCE.as_secs_f64());
    assert_eq!(unit, "s");
}

#[test]
fn the_metrics_are_well_formed_and_count() {
    let server = quiet(3)
        .handler(|request: &mut Request| match request.path() {
            "/bad" => (404, "no\n"),
            "/failed" => (500, "no\n"),
            _ => (200, "yes\n"),
        })
        .start()
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    for target in ["/", "/", "/", "/bad", "/bad", "/failed"] {
        client.get(target).reply();
    }
    assert_eq!(ask(server.local_addr(), "GET\r\n\r\n").status, 400);
    wait_until("all are counted", || {
        let totals = server.health().snapshot().totals;
        totals.served + totals.bad + totals.failed == 7
    });
    let reply = client.get("/metrics").reply();
    assert_eq!(
        reply.header("Content-Type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let page = reply.text();
    for (name, expected) in [
        ("plimsoll_requests_total{outcome=\"served\"}", 3.0),
        ("plimsoll_requests_total{outcome=\"bad\"}", 3.0),
        ("plimsoll_requests_total{outcome=\"failed\"}", 1.0),
        ("plimsoll_request_duration_seconds_count", 6.0),
        ("plimsoll_service_duration_seconds_bucket{le=\"+Inf\"}", 6.0),
        ("plimsoll_workers", 3.0),
        ("plimsoll_connections_accepted_total", 2.0),
        ("plimsoll_up", 1.0),
        ("plimsoll_ready", 1.0),
        ("plimsoll_live", 1.0),
        ("plimsoll_gate_trips_total", 0.0),
    ] {
        let found = metric(page, name);
        assert!((found - expected).abs() < 1e-9, "{name}: {found}");
    }
    assert!(page.ends_with('\n'));
    let mut declared = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(!declared.contains(&name), "declared twice: {name}");
            assert!(
                name.starts_with("plimsoll_") || name.starts_with("process_"),
                "{line}"
            );
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            declared.push(name);
        } else if !line.starts_with("# HELP ") {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            value
                .parse::<f64>()
                .unwrap_or_else(|_| panic!("a number: {line}"));
            let name = name.split('{').next().unwrap_or_default();
            let family = declared.last().expect("a type before the samples");
            let of_family = name
                .strip_prefix(family)
                .is_some_and(|suffix| ["", "_bucket", "_sum", "_count"].contains(&suffix));
            assert!(of_family, "{line} under {family}");
        }
    }
}

#[test]
fn other_methods_are_not_allowed_on_the_health_paths() {
    let server = serve(quiet(2));
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        let request =
            format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx");
        let reply = ask(server.local_addr(), request);
        assert_eq!(reply.status, 405, "{path}");
        assert_eq!(reply.header("Allow"), Some("GET, HEAD, OPTIONS"));
    }
}

#[test]
fn the_health_paths_can_be_moved_and_switched_off() {
    let server = serve(
        quiet(2)
            .health_path("/up")
            .livez_path(None)
            .readyz_path("/internal/ready")
            .metrics_path(None),
    );
    let address = server.local_addr();
    health_json(&get(address, "/up"));
    assert_eq!(get(address, "/internal/ready").text(), "ready\n");
    for path in ["/health", "/livez", "/readyz", "/metrics"] {
        assert_eq!(get(address, path).text(), "served\n", "{path}");
    }
}

#[test]
fn a_bad_health_path_is_a_start_error() {
    for path in ["health", "", "/a b", "/a?b", "/a#b", "/\u{e9}", "/a\n"] {
        let error = quiet(1).readyz_path(path).start().expect_err(path);
        assert_eq!(
            error.to_string(),
            format!(
                "readyz-path: expected a path that begins with a slash, such as /health, or off, found {path:?}"
            ),
        );
    }
    let alike = quiet(1).health_path("/up").livez_path("/up").start();
    assert_eq!(
        alike.expect_err("two pages at one path").to_string(),
        "livez-path: expected a path of its own, found \"/up\", which health-path has",
    );
}

#[test]
fn the_pages_can_be_left_to_the_admin_listener() {
    let server = serve(quiet(2).admin("127.0.0.1:0").own_paths(OwnPaths::Admin));
    let address = server.local_addr();
    let admin = server.admin_addr().expect("an admin listener");
    for path in [
        "/health",
        "/health/consul",
        "/metrics",
        "/status",
        "/status.json",
    ] {
        assert_eq!(get(address, path).text(), "served\n", "{path}");
        assert_eq!(get(admin, path).status, 200, "{path}");
    }
    for path in ["/livez", "/readyz", "/readyz/gate"] {
        assert_ne!(get(address, path).text(), "served\n", "{path}");
    }
}

#[test]
fn liveness_fails_only_while_every_worker_is_stuck() {
    let latch = Arc::new(Latch::default());
    let server = quiet(2)
        .request_timeout(Duration::from_secs(1))
        .handler(latch.handler("late\n"))
        .start()
        .expect("a server");
    let address = server.local_addr();
    let stuck = || server.health().snapshot().workers_stuck;
    let mut one = Client::connect(address);
    assert_eq!(one.get("/").reply().status, 504);
    wait_until("one is stuck", || stuck() == 1);
    assert_eq!(get(address, "/livez").text(), "live\n");
    let mut other = Client::connect(address);
    assert_eq!(other.get("/").reply().status, 504);
    wait_until("both are stuck", || stuck() == 2);
    let reply = get(address, "/livez");
    assert_eq!((reply.status, reply.text()), (503, "stuck\n"));
    // What can't do its job wants no traffic either.
    for path in ["/health", "/health/consul", "/readyz", "/readyz/workers"] {
        assert_eq!(get(address, path).status, 503, "{path}");
    }
    let parts = get(address, "/readyz?verbose");
    assert!(
        parts
            .text()
            .contains("[-]workers failed: every worker is stuck\n"),
        "{parts:?}"
    );
    assert_eq!(get(address, "/metrics").status, 200);
    latch.open();
    wait_until("they are back", || get(address, "/livez").status == 200);
    assert_eq!(one.get("/").reply().text(), "late\n");
}
