//! Data stores named on the command line, from what happens to them to what each monitor hears of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::kit::Plimsoll;
use crate::kit::{Client, PATIENCE, Reply, ask, get, stores, wait_until};
use serde_json::Value;

/// The binary, with stores to watch.
struct Watching {
    server: Plimsoll,
    address: SocketAddr,
    agent: SocketAddr,
}

/// What each monitor hears at one time.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    /// The status of `/health`, by code and by name, and its line for those who ask for text.
    health: (u16, &'static str, &'static str),
    /// The codes of `/health/consul`, `/readyz` and `/livez`.
    codes: [u16; 3],
    agent: &'static str,
    /// The exits of `plimsoll probe` for `/readyz`, and with `--consul-exit` for `/health`.
    exits: [i32; 2],
}

const WELL: Heard = Heard {
    health: (200, "pass", "healthy\n"),
    codes: [200, 200, 200],
    agent: "ready up 100%\n",
    exits: [0, 0],
};

const WARNED: Heard = Heard {
    health: (200, "warn", "warning\n"),
    codes: [429, 200, 200],
    agent: "ready up 100%\n",
    exits: [0, 1],
};

const FAILED: Heard = Heard {
    health: (503, "fail", "unhealthy\n"),
    codes: [503, 503, 200],
    agent: "ready fail #store failed\n",
    exits: [1, 2],
};

impl Watching {
    fn start(checks: &[&str]) -> Self {
        let checks = checks.iter().flat_map(|check| ["--check", check]);
        let places = ["--listen", "127.0.0.1:0", "--agent", "127.0.0.1:0"];
        let arguments: Vec<&str> = places.into_iter().chain(checks).collect();
        let server = Plimsoll::start(&arguments, &[("PLIMSOLL_LOG", "trace")]);
        let address = server.address();
        let agent = loop {
            let line = server.next_line();
            if let Some((_, agent)) = line.split_once("agent listening on ") {
                break agent.parse().expect("an address");
            }
        };
        Self {
            server,
            address,
            agent,
        }
    }

    /// The health report, and its code.
    fn report(&self) -> (u16, Value) {
        let reply = get(self.address, "/health");
        let report = serde_json::from_slice(&reply.body).expect("JSON");
        (reply.status, report)
    }

    /// What the report says of the store, and why.
    fn store(&self) -> (String, String) {
        let (_, report) = self.report();
        let reading = &report["checks"]["store:connection"][0];
        let text = |name: &str| reading[name].as_str().unwrap_or_default().to_owned();
        (text("observedValue"), text("output"))
    }

    #[track_caller]
    fn expect(&self, expected: &Heard, why: &str) {
        let state = if *expected == WELL { "up" } else { "down" };
        wait_until(&format!("{state}: {why}"), || {
            let (found, output) = self.store();
            found == state && output.contains(why)
        });
        self.expect_now(expected);
    }

    #[track_caller]
    fn expect_now(&self, expected: &Heard) {
        let (code, report) = self.report();
        assert_eq!(code, expected.health.0, "{report}");
        assert_eq!(report["status"], expected.health.1, "{report}");
        let line =
            "GET /health HTTP/1.1\r\nHost: localhost\r\nAccept: text/plain, text/*, */*\r\n\r\n";
        assert_eq!(ask(self.address, line).text(), expected.health.2);
        let consul = get(self.address, "/health/consul");
        assert_eq!(consul.text(), expected.health.2);
        let code = |path: &str| get(self.address, path).status;
        let codes = [consul.status, code("/readyz"), code("/livez")];
        assert_eq!(codes, expected.codes);
        assert_eq!(self.agent_line(), expected.agent);
        let exits = [("/readyz", None), ("/health", Some("--consul-exit"))];
        let exits = exits.map(|(path, option)| self.probe(path, option));
        assert_eq!(exits, expected.exits);
    }

    fn agent_line(&self) -> String {
        let mut agent = TcpStream::connect(self.agent).expect("it listens");
        agent.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut line = String::new();
        agent.read_to_string(&mut line).expect("a line and the end");
        line
    }

    fn probe(&self, path: &str, option: Option<&str>) -> i32 {
        let url = format!("http://{}{path}", self.address);
        let mut probe = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        let probe = probe.args(["probe", "--timeout", "30s", &url]).args(option);
        let output = probe.output().expect("it runs");
        output.status.code().expect("it exits")
    }

    /// Ends it, and gives what it has logged since it listens.
    fn end(self) -> String {
        self.server.terminate();
        let (status, _, lines) = self.server.exit();
        assert_eq!(status.code(), Some(0), "{lines:?}");
        lines.join("\n")
    }
}

#[test]
fn a_store_that_the_service_can_do_without_is_a_warning() {
    let watching = Watching::start(&["store=tcp://127.0.0.1:1,interval=100ms"]);
    watching.expect(&WARNED, "Connection refused");
    let part = get(watching.address, "/readyz/store");
    assert_eq!(part.status, 503);
    assert_eq!(
        part.text(),
        "[-]store failed, not critical: cannot connect to 127.0.0.1:1: Connection refused (os error 111)\n"
    );
}

#[test]
fn a_store_that_the_service_needs_takes_it_out() {
    let watching = Watching::start(&["store=tcp://127.0.0.1:1,critical,interval=100ms"]);
    watching.expect(&FAILED, "Connection refused");
    let code = |target: &str| get(watching.address, target).status;
    assert_eq!(code("/readyz?exclude=store"), 200);
    assert_eq!(code("/readyz/store"), 503);
    assert_eq!(code("/livez?verbose"), 200);
    assert_eq!(code("/"), 200, "requests are the handler's to judge");
}

/// Every member that a reading or the report itself has, with its type and, where it is one of few, its value.
#[test]
fn the_health_report_has_the_members_of_its_format() {
    let watching = Watching::start(&["store=tcp://127.0.0.1:1,interval=100ms"]);
    watching.expect(&WARNED, "Connection refused");
    get(watching.address, "/");
    get(watching.address, "/nothing-there");
    // A request is counted once its reply is handed over, and its client may be quicker.
    wait_until("both are counted", || {
        let metrics = get(watching.address, "/metrics").text().to_owned();
        ["served", "bad"].iter().all(|outcome| {
            metrics.contains(&format!("requests_total{{outcome=\"{outcome}\"}} 1\n"))
        })
    });
    let reply = get(watching.address, "/health");
    assert_eq!(
        reply.header("Content-Type"),
        Some("application/health+json")
    );
    let report: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let members = |value: &Value| -> Vec<String> {
        let object = value.as_object().expect("an object");
        object.keys().cloned().collect()
    };
    assert_eq!(
        members(&report),
        [
            "checks",
            "description",
            "notes",
            "output",
            "releaseId",
            "serviceId",
            "status",
            "version"
        ]
    );
    for name in [
        "status",
        "version",
        "releaseId",
        "serviceId",
        "description",
        "output",
    ] {
        let text = report[name].as_str();
        assert!(text.is_some_and(|text| !text.is_empty()), "{name}");
    }
    let notes = report["notes"].as_array().expect("an array");
    assert!(notes.iter().all(Value::is_string), "{notes:?}");
    for (name, kind, unit) in [
        ("http:responseTime", "component", "ms"),
        ("http:connections", "component", "connections"),
        ("http:badRequests", "component", "percent"),
        ("uptime", "system", "s"),
        ("store:connection", "datastore", "state"),
    ] {
        let readings = report["checks"][name].as_array().expect(name);
        let [reading] = &readings[..] else {
            panic!("{readings:?}");
        };
        assert_eq!(reading["componentType"], kind, "{name}");
        assert_eq!(reading["observedUnit"], unit, "{name}");
        let number = reading["observedValue"].is_number();
        assert_eq!(number, unit != "state", "{name}");
        let passes = reading["status"] == "pass";
        assert_eq!(reading.get("output").is_none(), passes, "{name}");
        // RFC 3339, in UTC and whole seconds.
        let time = reading["time"].as_str().expect("a time");
        let shape: String = time
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00Z", "{name}");
    }
    // One of the two requests, as a moving average.
    let bad = &report["checks"]["http:badRequests"][0]["observedValue"];
    let bad = bad.as_f64().expect("a number");
    assert!(bad > 1.0 && bad < 100.0, "{bad}");
}

/// A connection to redis, spoken to in lines.
struct Redis(BufReader<TcpStream>);

impl Redis {
    /// With the password that it has.
    fn connect(port: u16, password: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut redis = Self(BufReader::new(stream));
        redis.tell(&format!("AUTH {password}"));
        redis
    }

    /// Says something that redis answers with OK.
    #[track_caller]
    fn tell(&mut self, command: &str) {
        let sent = self
            .0
            .get_mut()
            .write_all(format!("{command}\r\n").as_bytes());
        sent.expect("a write");
        assert_eq!(self.line(), "+OK", "{command}");
    }

    #[track_caller]
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

#[test]
fn redis_is_watched_from_before_its_start_to_a_change_of_its_password() {
    let Some(mut redis) = stores::redis("requirepass s3cret") else {
        return;
    };
    let port = redis.port();
    let check = format!(
        "store=redis://:s3cret@127.0.0.1:{port},critical,interval=100ms,timeout=2s,fall=2,rise=2"
    );
    let watching = Watching::start(&[&check]);
    watching.expect(&FAILED, "Connection refused");
    redis.start();
    watching.expect(&WELL, "");

    // It accepts, and says nothing.
    redis.pause();
    watching.expect(&FAILED, "no answer in time");
    let mut client = Client::connect(watching.address);
    let mut replies = (0..200).map(|_| client.get("/health").reply());
    assert!(replies.all(|reply: Reply| reply.status == 503));
    redis.resume();
    watching.expect(&WELL, "");

    redis.kill();
    watching.expect(&FAILED, "Connection refused");
    redis.start();
    watching.expect(&WELL, "");

    Redis::connect(port, "s3cret").tell("CONFIG SET requirepass another");
    watching.expect(&FAILED, "WRONGPASS");
    Redis::connect(port, "another").tell("CONFIG SET requirepass s3cret");
    watching.expect(&WELL, "");

    let pages = [
        "/health",
        "/readyz?verbose",
        "/metrics",
        "/status",
        "/status.json",
    ];
    let pages = pages.map(|path| get(watching.address, path).text().to_owned());
    let log = watching.end();
    assert_eq!(log.matches("store is up").count(), 4, "{log}");
    for text in pages.iter().chain([&log]) {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn two_hundred_probes_are_no_command_to_redis() {
    let Some(mut redis) = stores::redis("requirepass s3cret") else {
        return;
    };
    redis.serve("redis://:s3cret@HOST");
    let port = redis.port();
    let check = format!("store=redis://:s3cret@127.0.0.1:{port},critical,interval=1h");
    let watching = Watching::start(&[&check]);
    watching.expect(&WELL, "");

    let mut other = Redis::connect(port, "s3cret");
    // It tells every command that it takes from here on.
    let mut monitor = Redis::connect(port, "s3cret");
    monitor.tell("MONITOR");
    let paths = [
        "/health",
        "/health/consul",
        "/readyz?verbose",
        "/livez",
        "/metrics",
        "/status.json",
    ];
    let mut client = Client::connect(watching.address);
    for path in paths.iter().cycle().take(200) {
        assert_eq!(client.get(path).reply().status, 200, "{path}");
    }
    other.tell("SELECT 3");
    let first = monitor.line();
    assert!(first.ends_with(r#""SELECT" "3""#), "{first}");
}
