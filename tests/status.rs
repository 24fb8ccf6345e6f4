//! The status page and its numbers: over sockets, and in a real browser.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::kit::browser::Browser;
use crate::kit::process::TempDir;
use crate::kit::{
    Client, NEVER, Reply, Reserved, Serving, Upstream, ask, get, meanwhile, quiet, wait_until,
};
use plimsoll::proxy::{BalanceBy, Proxy, ProxyConfig};
use plimsoll::{Details, GateMode, Request, Response, Server};
use serde_json::Value;

fn serve(builder: plimsoll::Builder) -> Server {
    let handler = |request: &mut Request| match request.path() {
        "/bad" => (404, "bad\n"),
        "/failed" => (500, "failed\n"),
        _ => (200, "served\n"),
    };
    builder.handler(handler).start().expect("a server")
}

#[track_caller]
fn numbers(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("Content-Type"), Some("application/json"));
    serde_json::from_slice(&reply.body).expect("JSON")
}

fn sum(column: &Value) -> u64 {
    let column = column.as_array().expect("a column");
    column.iter().filter_map(Value::as_u64).sum()
}

#[test]
fn the_page_is_one_file_that_may_load_nothing() {
    let server = serve(quiet(1));
    let page = get(server.local_addr(), "/status");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("Content-Type"),
        Some("text/html; charset=utf-8")
    );
    assert_eq!(page.header("Cache-Control"), Some("no-store"));
    assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"));
    let policy = page.header("Content-Security-Policy").expect("a policy");
    for directive in [
        "default-src 'none'",
        "connect-src 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
        "form-action 'none'",
    ] {
        assert!(policy.contains(directive), "{policy}");
    }
    assert!(page.body.len() < 32 * 1024);
}

#[test]
fn head_options_and_other_methods_are_answered_as_on_the_other_health_paths() {
    let server = serve(quiet(1));
    let address = server.local_addr();
    for path in ["/status", "/status.json"] {
        let mut client = Client::connect(address);
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(client.reply_to_head().status, 200);
        let options = ask(address, format!("OPTIONS {path} HTTP/1.0\r\n\r\n"));
        assert_eq!(options.header("Allow"), Some("GET, HEAD, OPTIONS"));
        let post = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(ask(address, post).status, 405);
    }
}

#[test]
fn who_may_not_see_details_finds_nothing_there() {
    let server = serve(quiet(1).details(Details::Never));
    let address = server.local_addr();
    for path in ["/status", "/status.json", "/status.json?since=0"] {
        for method in ["GET", "POST", "OPTIONS"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
            let reply = ask(address, request);
            assert_eq!((reply.status, reply.text()), (404, "not found\n"));
            assert_eq!(reply.header("Cache-Control"), Some("no-store"));
            assert_eq!(reply.header("Content-Security-Policy"), None);
        }
    }
}

#[test]
fn the_page_and_its_numbers_move_together_and_can_be_left_to_the_handler() {
    let server = serve(quiet(1).status_path("/hull"));
    let address = server.local_addr();
    assert_eq!(
        get(address, "/hull").header("Cache-Control"),
        Some("no-store")
    );
    numbers(&get(address, "/hull.json"));
    assert_eq!(get(address, "/status").text(), "served\n");
    let server = serve(quiet(1).status_path(None));
    for path in ["/status", "/status.json"] {
        assert_eq!(get(server.local_addr(), path).text(), "served\n");
    }
}

#[test]
fn the_history_counts_every_request_by_its_outcome() {
    let server = serve(quiet(2));
    let address = server.local_addr();
    let mut client = Client::connect(address);
    for _ in 0..5 {
        client.get("/").reply();
        client.get("/bad").reply();
    }
    client.get("/failed").reply();
    let history = || numbers(&get(address, "/status.json"))["history"].clone();
    wait_until("all are sampled", || {
        let history = history();
        ["served", "bad", "failed"].map(|name| sum(&history[name])) == [5, 5, 1]
    });
    let history = history();
    assert_eq!(sum(&history["shed"]), 0);
    let samples = history["served"].as_array().expect("a column").len();
    for name in ["state", "gate"] {
        assert_eq!(history[name].as_str().expect("letters").len(), samples);
    }
    assert!(sum(&history["p99_us"]) >= sum(&history["p50_us"]));
}

#[test]
fn newer_samples_alone_are_sent_to_who_has_the_others() {
    let server = serve(quiet(1));
    let address = server.local_addr();
    let history = |query: &str| {
        let reply = get(address, &format!("/status.json{query}"));
        numbers(&reply)["history"].clone()
    };
    wait_until("three samples", || history("")["next"].as_u64() >= Some(3));
    let rest = history("?since=1");
    assert_eq!(rest["first"], 2);
    let next = rest["next"].as_u64().expect("a number");
    let samples = rest["served"].as_array().expect("a column").len();
    assert_eq!(samples as u64, next - 2);
    let none = history("?since=18446744073709551615");
    assert_eq!(none["served"].as_array().map(Vec::len), Some(0));
    for strange in [
        "?since=",
        "?since=-1",
        "?since=1e3",
        "?since=99999999999999999999",
        "?a&since",
    ] {
        assert_eq!(history(strange)["first"], 0, "{strange}");
    }
}

#[test]
fn the_numbers_say_how_the_server_stands_and_why() {
    let server = quiet(2)
        .gate(GateMode::Literal)
        .threshold(Duration::from_nanos(1))
        .cooldown(NEVER)
        .handler(|_: &mut Request| "served\n")
        .start()
        .expect("a server");
    let address = server.local_addr();
    let report = numbers(&get(address, "/status.json"));
    assert_eq!(report["state"]["word"], "healthy");
    assert_eq!(report["state"]["status"], "pass");
    assert_eq!(report["config"]["threshold"], "1ns");
    get(address, "/");
    wait_until("a trip", || server.health().snapshot().trips == 1);
    let report = numbers(&get(address, "/status.json"));
    let state = &report["state"];
    assert_eq!(
        (&state["word"], &state["status"]),
        (&"unhealthy".into(), &"fail".into())
    );
    assert_eq!(state["detail"], "resetting, reopens in 3600 s");
    assert!(state["why"].as_str().expect("text").contains("threshold"));
    assert!(state["since"].as_f64() <= report["time"].as_f64());
    assert!(report["load"]["value"].as_f64() > Some(1.0));
    assert_eq!(report["load"]["nearest"], "service");
    assert_eq!(report["gate"]["state"], "open");
    assert!(report["gate"]["reopens_in"].as_f64() > Some(3000.0));
}

/// Requests for `/slow` trip this gate, which opens again by itself.
const THRESHOLD: Duration = Duration::from_millis(200);

#[test]
fn in_a_browser_a_trip_and_the_recovery_show_as_they_happen() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = quiet(2)
        .gate(GateMode::Literal)
        .threshold(THRESHOLD)
        .cooldown(Duration::from_secs(3))
        .handler(|request: &mut Request| {
            if request.path() == "/slow" {
                thread::sleep(THRESHOLD);
            }
            "served\n"
        })
        .start()
        .expect("a server");
    let address = server.local_addr();
    let origin = format!("http://{address}/");
    browser.open(&format!("{origin}status"));
    browser.wait_until("document.getElementById('word').textContent == 'healthy'");
    browser.wait_until("document.title.startsWith('healthy')");
    browser.wait_until("document.getElementById('plot-served') != null");

    // A plot's path grows with each sample.
    get(address, "/");
    let path = "document.getElementById('plot-connections').getAttribute('d').length";
    let before = browser.run(&format!("return {path}"));
    browser.wait_until(&format!("{path} > {before} + 10"));

    // The gate trips again and again until that was seen.
    let seen = Arc::new(AtomicBool::new(false));
    let sick = thread::spawn({
        let seen = seen.clone();
        move || {
            while !seen.load(Ordering::Relaxed) {
                get(address, "/slow");
                thread::sleep(Duration::from_millis(10));
            }
        }
    });
    browser.wait_until("document.getElementById('word').textContent.startsWith('unhealthy: resetting, reopens in ')");
    browser.wait_until("document.title.startsWith('unhealthy')");
    let told = "document.getElementById('live').textContent.startsWith('The server is unhealthy')";
    browser.wait_until(told);
    browser.wait_until("document.querySelectorAll('.b rect[fill=\"url(#unhealthy)\"]').length > 0");
    browser.wait_until("document.getElementById('why').textContent.includes('threshold')");
    seen.store(true, Ordering::Relaxed);
    sick.join().expect("the requests end");
    browser.wait_until("document.getElementById('word').textContent == 'healthy'");
    assert!(server.health().snapshot().resets > 0);

    assert_eq!(browser.console(), Vec::<String>::new());
    let requests = browser.requests();
    assert!(
        requests
            .iter()
            .any(|url| url.contains("/status.json?since="))
    );
    for url in requests {
        assert!(
            url.starts_with(&origin) || url.starts_with("data:"),
            "{url}"
        );
        assert!(!url.contains("favicon.ico"), "{url}");
    }
}

#[test]
fn in_a_browser_a_server_that_is_gone_is_told_and_one_that_is_back_is_shown() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = serve(quiet(1));
    let address = server.local_addr();
    browser.open(&format!("http://{address}/status"));
    browser.wait_until("document.getElementById('word').textContent == 'healthy'");
    assert_eq!(browser.text("lost"), "");
    server.shutdown(Duration::ZERO).expect("it stops");
    browser.wait_until("!document.getElementById('lost').hidden");
    let notice = browser.text("lost");
    assert!(
        notice.starts_with("Cannot reach the server since "),
        "{notice}"
    );
    browser.wait_until("document.title.startsWith('unreachable')");

    let server = serve(quiet(1).listen(address.to_string()));
    assert_eq!(server.local_addrs().last(), Some(&address));
    browser.wait_until("document.getElementById('lost').hidden");
    browser.wait_until("document.title.startsWith('healthy')");
    // What the first server had told is not mixed with what the second tells.
    let start = server.health().snapshot().uptime.as_secs();
    let samples = browser.run("return past.served.length").as_u64();
    assert!(samples <= Some(start + 5), "{samples:?} after {start} s");
}

#[test]
fn in_a_browser_values_can_be_read_by_keyboard_and_pointer_at_every_width() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = serve(quiet(1));
    let address = server.local_addr();
    browser.set_media(1440, false);
    browser.open(&format!("http://{address}/status"));
    browser.wait_until("past && past.served.length >= 4");
    let press = |key: &str| {
        browser.run(&format!(
            "const time = document.getElementById('time'); time.focus(); \
             time.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}' }}))"
        ));
    };
    let value = "document.getElementById('time').getAttribute('aria-valuenow')";
    press("ArrowLeft");
    press("ArrowLeft");
    browser.wait_until(&format!("{value} == -2"));
    let text = browser.run("return document.getElementById('time').getAttribute('aria-valuetext')");
    let text = text.as_str().expect("text");
    assert!(
        text.contains("2 s ago: healthy, gate closed, load 0 %"),
        "{text}"
    );
    assert_eq!(browser.text("when").matches("2 s ago").count(), 1);
    press("Escape");
    browser.wait_until(&format!("{value} == 0"));
    browser.run(
        "const time = document.getElementById('time'), box = time.getBoundingClientRect(); \
         time.dispatchEvent(new PointerEvent('pointermove', { clientX: box.left + LEFT }))",
    );
    browser.wait_until(&format!("{value} == 1 - past.served.length"));
    assert_eq!(
        browser.run("return document.querySelectorAll('.at').length"),
        4
    );

    assert_readable(&browser);
}

/// On a phone, a tablet and a desk, by day and in the dark, nothing is cut off and everything has contrast.
#[track_caller]
fn assert_readable(browser: &Browser) {
    for width in [360, 800, 1440] {
        for dark in [false, true] {
            browser.set_media(width, dark);
            browser.wait_until(&format!("innerWidth == {width}"));
            let fits = "document.documentElement.scrollWidth <= innerWidth";
            browser.wait_until(fits);
            let contrasts = browser.run(CONTRASTS);
            let contrasts = contrasts.as_array().expect("a list");
            assert!(contrasts.len() > 50, "{contrasts:?}");
            for contrast in contrasts {
                assert!(
                    contrast[1].as_f64() >= Some(4.5),
                    "{contrast}, dark: {dark}"
                );
            }
        }
    }
}

/// Two endpoints, and the server in front of them.
fn forwarding() -> ([Upstream; 2], Server) {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let upstreams = [reply; 2].map(Upstream::answering);
    let proxy = Proxy::start(ProxyConfig {
        balance: BalanceBy::RoundRobin,
        ..ProxyConfig::to(upstreams.iter().map(Upstream::url))
    });
    let proxy = proxy.expect("it starts");
    let server = quiet(2).upstreams(proxy.reporter()).handler(proxy);
    (upstreams, server.start().expect("a server"))
}

#[test]
fn the_history_tells_what_each_endpoint_did() {
    let ([first, mut second], server) = forwarding();
    let address = server.local_addr();
    let column = |name: &str, of: &Upstream| {
        let report = numbers(&get(address, "/status.json"));
        report["history"][format!("endpoint_{name}.{}", of.address)].clone()
    };
    for _ in 0..10 {
        assert_eq!(get(address, "/").status, 200);
    }
    wait_until("all are sampled", || {
        // There is no column before the first sample.
        [&first, &second].iter().all(|one| {
            let column = column("requests", one);
            column.is_array() && sum(&column) == 5
        })
    });
    assert_eq!(sum(&column("failed", &first)), 0);
    assert!(sum(&column("latency_us", &first)) > 0);
    second.stop();
    wait_until("its breaker is open", || {
        assert_eq!(get(address, "/").status, 200);
        column("breaker", &second)
            .as_str()
            .expect("letters")
            .ends_with('o')
    });
    assert!(
        column("state", &second)
            .as_str()
            .expect("letters")
            .starts_with('u')
    );
    assert!(sum(&column("failed", &second)) >= 5);
    assert!(
        column("breaker", &first)
            .as_str()
            .expect("letters")
            .ends_with('c')
    );
    let report = numbers(&get(address, "/status.json"));
    assert!(sum(&report["history"]["retries"]) >= 5, "{report}");
    for (name, column) in report["history"].as_object().expect("columns") {
        let length = match column {
            Value::Array(values) => values.len(),
            Value::String(letters) => letters.len(),
            _ => continue,
        };
        let samples = report["history"]["served"].as_array().expect("a column");
        assert_eq!(length, samples.len(), "{name}");
    }
}

#[test]
fn in_a_browser_each_endpoint_has_its_last_ten_minutes() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let directory = TempDir::new("page");
    let file = directory.path().join("endpoints");
    let ([first, mut second], _) = forwarding();
    fs::write(&file, first.url()).expect("a file");
    let proxy = Proxy::start(ProxyConfig {
        balance: BalanceBy::RoundRobin,
        ..ProxyConfig::to([format!("file:{}", file.display())])
    });
    let proxy = proxy.expect("it starts");
    let server = quiet(2).upstreams(proxy.reporter()).handler(proxy);
    let server = server.start().expect("a server");
    let address = server.local_addr();
    browser.open(&format!("http://{address}/status"));
    let rows = "document.querySelectorAll('#endpoints tbody tr')";
    browser.wait_until(&format!("{rows}.length == 1"));
    browser.wait_until(&format!("{rows}[0].querySelectorAll('svg').length == 6"));
    browser.wait_until("!!past && past.served.length > 3");

    // One that is new has its gap before it came.
    fs::write(&file, format!("{}\n{}\n", first.url(), second.url())).expect("a file");
    browser.wait_until(&format!("{rows}.length == 2"));
    let requests = format!("past?.['endpoint_requests.{}']", second.address);
    browser.wait_until(&format!(
        "{requests}?.length == past?.served.length && {requests}[0] === null"
    ));
    wait_until("it is asked", || {
        assert_eq!(get(address, "/").status, 200);
        !second.asked().is_empty()
    });
    browser.wait_until(&format!("!!{requests}?.some(count => count > 0)"));

    second.stop();
    let red = "querySelectorAll('rect[fill=\"url(#unhealthy)\"]').length";
    wait_until("its breaker is open", || {
        assert_eq!(get(address, "/").status, 200);
        let report = numbers(&get(address, "/status.json"));
        report["upstreams"]["endpoints"][1]["breaker"] == "open"
            || report["upstreams"]["endpoints"][0]["breaker"] == "open"
    });
    browser.wait_until(&format!("document.getElementById('endpoints').{red} > 0"));
    let label = "Array.from(document.querySelectorAll('#endpoints svg'), x => x.getAttribute('aria-label')).join()";
    browser.wait_until(&format!(
        "/up for .* % of it,closed for .* %/.test({label})"
    ));
    assert_eq!(browser.console(), Vec::<String>::new());
    for width in [360, 800, 1440] {
        browser.set_media(width, false);
        browser.wait_until(&format!("innerWidth == {width}"));
        browser.wait_until("document.documentElement.scrollWidth <= innerWidth");
    }
}

/// The contrast of each piece of text with the nearest background behind it, by the formula of WCAG 2.1.
const CONTRASTS: &str = r"
    const channels = text => text.match(/[\d.]+/g).map(Number)
    const luminance = text => channels(text).slice(0, 3)
        .map(x => x / 255).map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
        .reduce((sum, x, i) => sum + x * [.2126, .7152, .0722][i], 0)
    const behind = node => {
        for (; node; node = node.parentElement) {
            const colour = getComputedStyle(node).backgroundColor
            if (channels(colour)[3] !== 0) return colour
        }
    }
    return Array.from(document.querySelectorAll('h1,h2,h3,p,b,strong,span,dt,dd,td,th,.plot text'))
        .filter(node => node.textContent.trim() && node.getClientRects().length && !node.closest('.vh,.b'))
        .map(node => {
            const style = getComputedStyle(node)
            const both = [node.namespaceURI.endsWith('svg') ? style.fill : style.color, behind(node)].map(luminance)
            return [node.textContent, (Math.max(...both) + .05) / (Math.min(...both) + .05)]
        })";

#[test]
fn in_a_browser_nothing_runs_that_the_page_did_not_bring() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let server = serve(quiet(1));
    let other = serve(quiet(1));
    browser.open(&format!("http://{}/status", server.local_addr()));
    browser.run(&format!(
        "const script = document.createElement('script'); script.textContent = 'window.strange = 1'; \
         document.body.append(script); \
         fetch('http://{}/').then(() => window.asked = 'yes', () => window.asked = 'no')",
        other.local_addr()
    ));
    browser.wait_until("window.asked == 'no'");
    assert_eq!(browser.run("return window.strange === undefined"), true);
    assert_eq!(other.health().snapshot().totals.served, 0);
}

/// The page with numbers of a test's making.
#[test]
fn in_a_browser_data_stores_are_listed_and_what_they_say_is_text() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let real = serve(quiet(1));
    let mut report = numbers(&get(real.local_addr(), "/status.json"));
    let wild = "<img src=x onerror=alert(1)>&amp;";
    report["state"]["word"] = "warning".into();
    report["state"]["detail"] = format!("{wild} is down").into();
    report["checks"] = serde_json::json!([
        {"name": wild, "critical": false, "state": "down", "for": 3.5, "last_run": 1.0, "last_success": null,
         "duration": 0.25, "failures": 4, "error": wild, "pool": null},
        {"name": "db", "critical": true, "state": "up", "for": 3.5, "last_run": 1.0, "last_success": 1.0,
         "duration": 0.002, "failures": 0, "error": null, "pool": {"used": 3, "idle": 1, "max": 10}},
        {"name": "database", "critical": true, "state": "down", "for": 3.5, "last_run": 1.0, "last_success": 1.0,
         "duration": 0.002, "failures": 9, "error": "no answer ".repeat(30), "pool": null},
    ]);
    let report = report.to_string();
    let server = quiet(1)
        .status_path(None)
        .handler(move |request: &mut Request| match request.path() {
            "/status" => Response::new(
                200,
                include_str!("../src/report/status/page.html").as_bytes(),
            )
            .with_header("Content-Type", "text/html; charset=utf-8"),
            _ => Response::text(200, report.clone()),
        })
        .start()
        .expect("a server");
    browser.open(&format!("http://{}/status", server.local_addr()));
    browser.wait_until("document.querySelectorAll('#checks tbody tr').length == 3");
    let rows = browser.run(
        "return Array.from(document.querySelectorAll('#checks tbody tr'), \
         row => Array.from(row.children, cell => cell.textContent))",
    );
    assert_eq!(rows[0][0], wild);
    assert_eq!(rows[0][1], "✕ down");
    assert_eq!(rows[0][3], "never");
    assert_eq!(rows[0][7], wild);
    assert_eq!(rows[1][1], "✓ up");
    assert_eq!(rows[1][2], "yes");
    assert_eq!(rows[1][4], "2 ms");
    assert_eq!(rows[1][6], "3 used, 1 idle of 10");
    assert_eq!(browser.text("word"), format!("Warning: {wild} is down"));
    assert_eq!(browser.run("return document.images.length"), 0);

    // However long an error is, neither names nor labels are broken for it.
    browser.set_media(800, false);
    let lines = "return Array.from(document.querySelectorAll('#checks tbody th'), \
                   cell => { const text = document.createRange(); text.selectNodeContents(cell); \
                   return text.getClientRects().length })";
    let lines = browser.run(lines);
    assert_eq!((&lines[1], &lines[2]), (&1.into(), &1.into()), "{lines}");
    browser.set_media(360, false);
    let labels = browser.run(
        "const cells = document.querySelectorAll('#checks tbody td:last-child'); \
         return Array.from(cells, cell => getComputedStyle(cell, '::before').width)",
    );
    assert_eq!(labels[1], labels[2], "{labels}");
}

/// A sidecar with everything, of whose two endpoints one refuses.
#[cfg(feature = "events")]
#[test]
fn in_a_browser_a_sidecar_says_in_words_what_is_wrong_and_shows_all_its_parts() {
    let Some(browser) = Browser::start() else {
        return;
    };
    let well = Upstream::answering(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 3\r\n\r\nok\n",
    );
    let (nobody, directory) = (Reserved::new(), TempDir::new("status-events"));
    let sidecar = Serving::start(&[
        &format!("--upstream={}", well.url()),
        &format!("--upstream=http://{}", nobody.address),
        &format!("--events=/orders={}", directory.path().display()),
        "--balance=round-robin",
        "--breaker=1",
        "--cache=1MiB",
        "--throttle=1/h,path=/rare,name=rare",
    ]);
    let address = sidecar.address;
    // A trial of the endpoint that refuses comes with a request, so that its breaker is never long without one.
    let mut number = 0;
    let ask_on = || {
        number += 1;
        for path in [format!("/{number}"), "/kept".to_owned(), "/rare".to_owned()] {
            get(address, &path);
        }
        let order = "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1";
        ask(address, order);
        thread::sleep(Duration::from_millis(50));
    };
    meanwhile(ask_on, || {
        browser.open(&format!("http://{address}/status"));
        let told = format!(
            "/^1 of 2 endpoints refuses connections; the circuit breaker of {} tries again in \\d+ s\\. The others do \
                 the work\\.$/.test(document.getElementById('why').textContent)",
            nobody.address
        );
        browser.wait_until(&told);
        browser.wait_until(
            "document.getElementById('word').textContent == 'warning: 1 of 2 endpoints down'",
        );
        for part in ["forwarding", "throttling", "caching", "queueing"] {
            browser.wait_until(&format!("!document.getElementById('{part}').hidden"));
        }
        let row = format!(
            "Array.from(document.querySelectorAll('#endpoints tbody tr')).some(row => row.textContent.includes('{}') \
                 && row.textContent.includes('✕ down') && row.textContent.includes('refuses connections'))",
            nobody.address
        );
        browser.wait_until(&row);
        browser.wait_until("/[1-9]\\d* hits/.test(document.getElementById('cache').textContent)");
        browser.wait_until(
            "/[1-9]\\d* delivered/.test(document.getElementById('events').textContent)",
        );
        browser.wait_until("data.throttles[0].throttled > 0");
        // What is wrong comes before everything else.
        let first = "document.querySelector('main section:not([hidden])').id == 'top'";
        browser.wait_until(first);
        assert_readable(&browser);
        assert_eq!(browser.console(), Vec::<String>::new());
    });
}
