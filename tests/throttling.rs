//! Clients that ask too often are refused with 429.

use std::net::SocketAddr;
use std::sync::Arc;

use plimsoll::{Builder, Request, Server};

use crate::kit::browser::Browser;
use crate::kit::{Client, Latch, Reply, ask, get, quiet, settle, wait_until};

fn throttled(rules: &[&str]) -> Builder {
    let builder = quiet(2).handler(|request: &mut Request| request.path().to_owned());
    rules.iter().fold(builder, |builder, rule| {
        builder.throttle(rule.parse().expect(rule))
    })
}

fn start(rules: &[&str]) -> (Server, SocketAddr) {
    let server = throttled(rules).start().expect("a server");
    let address = server.local_addr();
    (server, address)
}

fn statuses<const N: usize>(address: SocketAddr, targets: [&str; N]) -> [u16; N] {
    targets.map(|target| get(address, target).status)
}

#[test]
fn the_burst_is_served_and_what_comes_more_often_is_refused_with_what_the_client_may_do() {
    let (_server, address) = start(&["2/h,burst=2,name=all-paths"]);
    let mut client = Client::connect(address);
    assert_eq!(client.get("/a").reply().status, 200);
    let served = client.get("/b").reply();
    assert_eq!(served.status, 200);
    for name in ["RateLimit", "RateLimit-Policy", "Retry-After"] {
        assert_eq!(served.header(name), None, "{served:?}");
    }
    // Its connection is kept: closing it would only cost another one.
    for _ in 0..3 {
        let refused = client.get("/a").reply();
        assert_eq!(refused.status, 429);
        let policy = refused.header("RateLimit-Policy");
        assert_eq!(policy, Some("\"all-paths\";q=2;w=3600"));
        let seconds = refused.header("Retry-After").expect("when to come again");
        let limit = format!("\"all-paths\";r=0;t={seconds}");
        assert_eq!(refused.header("RateLimit"), Some(&*limit));
        let seconds: u32 = seconds.parse().expect("whole seconds");
        assert!((1..=1800).contains(&seconds), "{seconds}");
        assert_eq!(refused.body, b"Too many requests: try again later.\n");
    }
}

#[test]
fn a_refusal_leaves_the_connection_in_step_whatever_the_request_was() {
    let (_server, address) = start(&["1/h,path=/limited"]);
    assert_eq!(get(address, "/limited").status, 200);
    let mut client = Client::connect(address);
    client.send("POST /limited HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.reply().status, 429);
    client.send(
        "POST /limited HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    );
    assert_eq!(client.reply().status, 429);
    client.send("HEAD /limited HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply_to_head().status, 429);
    client.get("/limited").get("/free").get("/limited");
    let pipelined = [(); 3].map(|()| client.reply().status);
    assert_eq!(pipelined, [429, 200, 429]);
}

#[test]
fn the_rate_lets_a_client_through_again_when_it_was_told_to_come() {
    let (_server, address) = start(&["1/s"]);
    let mut client = Client::connect(address);
    let mut statuses = Vec::new();
    // Whoever comes again in time is served, and who comes too early never is.
    let began = std::time::Instant::now();
    while statuses.iter().filter(|status| **status == 200).count() < 3 {
        statuses.push(client.get("/").reply().status);
    }
    assert!(
        began.elapsed().as_secs_f64() >= 2.0,
        "{:?}",
        began.elapsed()
    );
    assert!(statuses.contains(&429));
}

#[test]
fn health_paths_are_never_throttled() {
    let (_server, address) = start(&["1/h,by=all"]);
    assert_eq!(statuses(address, ["/", "/"]), [200, 429]);
    for path in [
        "/health",
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "/status.json",
    ] {
        for _ in 0..3 {
            assert_eq!(get(address, path).status, 200, "{path}");
        }
    }
}

#[test]
fn a_throttled_request_is_not_admitted_and_every_request_is_counted_once() {
    let latch = Arc::new(Latch::default());
    let held_up = latch.clone();
    let server = quiet(1)
        .queue_max(1)
        .throttle(
            "3/h,burst=3,path=/limited,name=limited"
                .parse()
                .expect("a rule"),
        )
        .throttle("1/h,path=/login,name=login".parse().expect("a rule"))
        .handler(move |request: &mut Request| {
            if request.path() == "/held" {
                held_up.pass();
            }
            "served\n"
        })
        .start()
        .expect("a server");
    let address = server.local_addr();
    let mut held = Client::connect(address);
    held.get("/held");
    latch.wait_for(1);
    let mut waiting = Client::connect(address);
    waiting.get("/");
    wait_until("the queue is full", || {
        server.health().snapshot().queue == 1
    });
    // The one worker is taken, and so is the place in the queue: what is not throttled is shed.
    let mut found: Vec<u16> = (0..5).map(|_| get(address, "/limited").status).collect();
    found.extend(statuses(address, ["/login", "/login", "/other"]));
    assert_eq!(found, [503, 503, 503, 429, 429, 503, 429, 503]);
    assert_eq!(ask(address, "nonsense\r\n\r\n").status, 400);
    latch.open();
    assert_eq!(held.reply().status, 200);
    assert_eq!(waiting.reply().status, 200);
    settle(&server);

    let snapshot = server.health().snapshot();
    let totals = snapshot.totals;
    assert_eq!((totals.served, totals.bad, totals.failed), (2, 1, 0));
    assert_eq!((totals.shed_queue, totals.throttled), (5, 3));
    let by_rule: Vec<_> = snapshot
        .throttles
        .iter()
        .map(|throttle| (&*throttle.name, throttle.throttled))
        .collect();
    assert_eq!(by_rule, [("limited", 2), ("login", 1)]);
    let metrics = get(address, "/metrics");
    let metrics = metrics.text();
    for line in [
        "plimsoll_throttled_total{rule=\"limited\"} 2",
        "plimsoll_throttled_total{rule=\"login\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}

#[test]
fn the_numbers_of_the_page_tell_of_each_rule() {
    let (server, address) = start(&["1/h,path=/a,name=a", "1/h,by=header:X-Key,path=/b"]);
    let _ = statuses(address, ["/a", "/a", "/a", "/b", "/b"]);
    let samples = || -> serde_json::Value {
        serde_json::from_str(get(address, "/status.json").text()).expect("JSON")
    };
    wait_until("the second is sampled", || {
        let throttled = samples()["history"]["throttled"].clone();
        let sum: u64 = throttled
            .as_array()
            .expect("a column")
            .iter()
            .filter_map(serde_json::Value::as_u64)
            .sum();
        sum == 3
    });
    let report = samples();
    assert_eq!(report["totals"]["throttled"], 3);
    assert_eq!(
        report["throttles"],
        serde_json::json!([
            {"name": "a", "rule": "1/h,path=/a,name=a", "throttled": 2},
            {"name": "rule2", "rule": "1/h,by=header:X-Key,path=/b", "throttled": 1},
        ])
    );
    let size = report["history"]["served"]
        .as_array()
        .expect("a column")
        .len();
    for (column, expected) in [("throttled.a", 2), ("throttled.rule2", 1)] {
        let column = report["history"][column].as_array().expect(column);
        assert_eq!(column.len(), size);
        let sum: u64 = column.iter().filter_map(serde_json::Value::as_u64).sum();
        assert_eq!(sum, expected);
    }
    drop(server);
}

#[test]
fn a_bad_rule_stops_the_start_and_names_itself() {
    let error = throttled(&["1/s,name=a", "2/s,name=a"])
        .start()
        .expect_err("two rules of one name");
    let expected = "throttle: expected a name of its own for each rule, found \"a\" twice";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_client_that_takes_another_spelling_or_another_connection_gains_nothing() {
    let (_server, address) = start(&["1/h,path=/login"]);
    let spellings = [
        "/login",
        "/login/",
        "//login",
        "/./login",
        "/a/../login",
        "/%6Cogin",
        "/login/x?y",
        "/x/%2E%2e/login",
    ];
    let found = statuses(address, spellings);
    assert_eq!(found, [200, 429, 429, 429, 429, 429, 429, 429]);
    assert_eq!(
        statuses(address, ["/loginx", "/a/login", "/"]),
        [200, 200, 200]
    );
    let absolute: Reply = ask(
        address,
        "GET http://other/login HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(absolute.status, 429);
}

#[test]
fn in_a_browser_each_rule_has_its_row_with_what_it_has_refused() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let (_server, address) = start(&["1/h,path=/a,name=first", "9/s,name=second"]);
    let _ = statuses(address, ["/a", "/a", "/a"]);
    browser.open(&format!("http://{address}/status"));
    // Not what the last second had, which is another one soon.
    let cells = "[...document.querySelectorAll('#throttles tbody tr')].map(row => \
                 [0, 1, 3].map(i => row.children[i].innerText).join(' | ')).join('\\n')";
    browser.wait_until(&format!("({cells}).includes(' | 2\\n')"));
    let shown = browser.run(&format!("return {cells}"));
    let expected = "first | 1/h,path=/a,name=first | 2\nsecond | 9/s,name=second | 0";
    assert_eq!(shown, expected);
    let label = "document.querySelector('#throttles svg').getAttribute('aria-label')";
    browser.wait_until(&format!("/^at most [12] a second$/.test({label})"));
    let (server, unlimited) = start(&[]);
    browser.open(&format!("http://{unlimited}/status"));
    browser.wait_until("document.getElementById('throttling').hidden");
    drop(server);
}

#[test]
fn behind_a_trusted_proxy_each_of_its_clients_is_counted_apart() {
    let ask_for = |address, client: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {client}\r\n\r\n");
        ask(address, request).status
    };
    let clients = [
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8::2",
    ];
    let proxied = throttled(&["1/h"]).trust("127.0.0.0/8".parse().expect("a range"));
    let proxied = proxied.start().expect("a server");
    let found = clients.map(|client| ask_for(proxied.local_addr(), client));
    assert_eq!(found, [200, 200, 429, 200, 429]);
    // Where no proxy is trusted, nobody gains anything by what he says of himself.
    let (_server, direct) = start(&["1/h"]);
    let found = clients.map(|client| ask_for(direct, client));
    assert_eq!(found, [200, 429, 429, 429, 429]);
}
