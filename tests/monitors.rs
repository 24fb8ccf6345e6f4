//! Real monitors beside the server: HAProxy takes it out and puts it back, and Prometheus scrapes it.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::kit::process::{self, Process, TempDir, find};
use crate::kit::{Client, Latch, NEVER, PATIENCE, Reserved, ask, get, quiet, wait_until};
use plimsoll::{Builder, GateMode, Request, Server};

/// A threshold that only requests for `/slow` reach, on a busy machine too.
const THRESHOLD: Duration = Duration::from_secs(2);

/// Serves `/slow` in no less than the threshold, `/half` in half of it, and everything else at once.
fn serve(builder: Builder) -> Server {
    builder
        .admin("127.0.0.1:0")
        .agent("127.0.0.1:0")
        .threshold(THRESHOLD)
        .handler(|request: &mut Request| {
            match request.path() {
                "/slow" => thread::sleep(THRESHOLD),
                "/half" => thread::sleep(THRESHOLD / 2),
                _ => {}
            }
            "served\n"
        })
        .start()
        .expect("a server")
}

/// A server whose gate trips at one slow request, and resets after a while.
fn literal() -> Server {
    serve(
        quiet(4)
            .gate(GateMode::Literal)
            .cooldown(Duration::from_secs(5)),
    )
}

fn agent(server: &Server) -> SocketAddr {
    server.agent_addr().expect("an agent listener")
}

/// A running HAProxy with one server behind it.
struct Haproxy {
    directory: TempDir,
    process: Process,
}

impl Haproxy {
    /// Starts it with `line` as the server's checks; `None` when it is not installed.
    fn start(server: &Server, options: &str, line: &str) -> Option<Self> {
        let program = find("haproxy", "haproxy")?;
        let directory = TempDir::new("haproxy");
        let socket = directory.path().join("stats");
        let address = server.local_addr();
        let config = format!(
            "global\n    stats socket {socket} level admin\n\
             defaults\n    mode http\n    timeout connect 10s\n    timeout client 10s\n    timeout server 10s\n\
             frontend front\n    bind unix@{front}\n    default_backend back\n\
             backend back\n    balance roundrobin\n{options}    server one {address} weight 100 {line}\n",
            socket = socket.display(),
            front = directory.path().join("front").display(),
        );
        let file = directory.path().join("haproxy.cfg");
        fs::write(&file, config).expect("a file");
        let mut command = Command::new(program);
        command.arg("-db").arg("-f").arg(file);
        let process = Process::start(&mut command, directory.path());
        let mut haproxy = Self { directory, process };
        wait_until("HAProxy is there", || {
            assert!(!haproxy.process.has_ended(), "{}", haproxy.output());
            haproxy.try_server().is_some()
        });
        Some(haproxy)
    }

    fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).unwrap_or_default()
    }

    /// The status and the weight that HAProxy gives the server.
    fn server(&self) -> (String, u32) {
        self.try_server().expect("HAProxy tells of its servers")
    }

    fn try_server(&self) -> Option<(String, u32)> {
        let mut socket = UnixStream::connect(self.directory.path().join("stats")).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).ok()?;
        socket.write_all(b"show stat\n").ok()?;
        let mut page = String::new();
        socket.read_to_string(&mut page).ok()?;
        let mut lines = page.lines();
        let names: Vec<&str> = lines.next()?.trim_start_matches("# ").split(',').collect();
        let row = lines.find(|line| line.starts_with("back,one,"))?;
        let row: Vec<&str> = row.split(',').collect();
        let cell = |name: &str| row.get(names.iter().position(|found| *found == name)?);
        Some((
            cell("status")?.to_string(),
            cell("weight")?.parse().expect("a weight"),
        ))
    }

    #[track_caller]
    fn await_status(&self, expected: &str) {
        wait_until(expected, || self.server().0 == expected);
    }
}

#[test]
fn haproxy_takes_the_server_out_on_503_and_puts_it_back() {
    let server = literal();
    // Its default request is OPTIONS / HTTP/1.0, without Host.
    let check = "check inter 50ms fall 2 rise 2";
    let Some(haproxy) = Haproxy::start(&server, "    option httpchk OPTIONS /readyz\n", check)
    else {
        return;
    };
    haproxy.await_status("UP");
    get(server.local_addr(), "/slow");
    haproxy.await_status("DOWN");
    // The gate has reset by itself.
    haproxy.await_status("UP");
    assert_eq!(server.health().snapshot().trips, 1);
}

#[test]
fn haproxy_follows_the_agent_out_and_back_in() {
    let server = literal();
    let port = agent(&server).port();
    let check =
        format!("agent-check agent-inter 50ms agent-port {port} agent-send \"plimsoll?\\n\"");
    let Some(haproxy) = Haproxy::start(&server, "", &check) else {
        return;
    };
    wait_until("it is up", || haproxy.server() == ("no check".into(), 100));
    get(server.local_addr(), "/slow");
    haproxy.await_status("DOWN (agent)");
    haproxy.await_status("no check");
    assert_eq!(server.health().snapshot().trips, 1);
}

#[test]
fn haproxy_gives_the_weight_that_the_agent_says() {
    // With an age of 1 the average is the last request's time.
    let server = serve(quiet(4).ewma_age(1));
    let port = agent(&server).port();
    let check = format!("agent-check agent-inter 50ms agent-port {port}");
    let Some(haproxy) = Haproxy::start(&server, "", &check) else {
        return;
    };
    get(server.local_addr(), "/half");
    wait_until("its sample", || server.health().service_time().is_some());
    let line = String::from_utf8(Client::connect(agent(&server)).rest()).expect("text");
    let percent = line
        .strip_prefix("ready up ")
        .and_then(|rest| rest.strip_suffix("%\n"));
    let percent: u32 = percent.expect(&line).parse().expect("a number");
    assert!(percent <= 50, "{line}");
    wait_until("it has the weight", || haproxy.server().1 == percent);
    get(server.local_addr(), "/");
    wait_until("it has all of it again", || haproxy.server().1 == 100);
}

#[test]
fn haproxy_drains_a_server_that_stops() {
    let latch = Arc::new(Latch::default());
    let server = quiet(2)
        .agent("127.0.0.1:0")
        .handler(latch.handler("served\n"))
        .start()
        .expect("a server");
    let port = agent(&server).port();
    let check = format!("agent-check agent-inter 50ms agent-port {port}");
    let Some(haproxy) = Haproxy::start(&server, "", &check) else {
        return;
    };
    let mut client = Client::connect(server.local_addr());
    client.get("/");
    latch.wait_for(1);
    let stopping = thread::spawn(move || server.shutdown(PATIENCE / 4));
    haproxy.await_status("DRAIN (agent)");
    latch.open();
    assert_eq!(client.reply().text(), "served\n");
    stopping.join().expect("no panic").expect("all is answered");
}

/// Asks Prometheus for the values of an expression.
fn query(address: SocketAddr, expression: &str) -> Vec<String> {
    let mut client = Client::connect(address);
    client.get(&format!("/api/v1/query?query={expression}"));
    let reply = client.reply();
    if reply.status != 200 {
        // It has yet to start.
        return Vec::new();
    }
    let answer: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
    let results = answer["data"]["result"].as_array().cloned();
    let values = results.unwrap_or_default().into_iter();
    values
        .filter_map(|result| result["value"][1].as_str().map(str::to_owned))
        .collect()
}

/// Starts Prometheus with the configuration in that directory; gives the port that it listens on.
fn prometheus(program: &Path, directory: &TempDir) -> (Process, Reserved) {
    let directory = directory.path();
    let port = Reserved::new();
    let mut command = Command::new(program);
    command
        .arg(format!(
            "--config.file={}",
            directory.join("prometheus.yml").display()
        ))
        .arg(format!(
            "--storage.tsdb.path={}",
            directory.join("data").display()
        ))
        .arg(format!("--web.listen-address={}", port.address));
    let mut process = Process::start(&mut command, directory);
    wait_until("Prometheus listens", || {
        let output = directory.join("output");
        assert!(!process.has_ended(), "{:?}", fs::read_to_string(output));
        TcpStream::connect(port.address).is_ok()
    });
    (process, port)
}

#[test]
fn prometheus_scrapes_the_server() {
    let Some(program) = find("prometheus", "prometheus") else {
        return;
    };
    let server = serve(quiet(2));
    let directory = TempDir::new("prometheus");
    let admin = server.admin_addr().expect("an admin listener");
    let config = format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n  - job_name: plimsoll\n    \
         static_configs:\n      - targets: ['{admin}']\n",
    );
    fs::write(directory.path().join("prometheus.yml"), config).expect("a file");
    let (_process, port) = prometheus(&program, &directory);
    get(server.local_addr(), "/");
    for (expression, expected) in [
        ("plimsoll_up", "1"),
        ("plimsoll_requests_total%7Boutcome=%22served%22%7D", "1"),
        ("plimsoll_status%7Bstatus=%22pass%22%7D", "1"),
        ("up%7Bjob=%22plimsoll%22%7D", "1"),
    ] {
        wait_until(expression, || query(port.address, expression) == [expected]);
    }
}

/// Runs promtool on a text, and gives all that it says.
fn promtool(program: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    process::run(Command::new(program).args(arguments), input)
}

#[test]
fn a_test_without_its_program_says_that_it_is_skipped() {
    let this = std::env::current_exe().expect("the tests are a file");
    let mut test = Command::new(this);
    test.args([
        "--exact",
        "monitors::promtool_has_nothing_to_say_about_the_metrics",
    ])
    .env("PATH", "/nonexistent");
    let (good, said) = process::run(&mut test, "");
    assert!(good, "{said}");
    let line = "SKIPPED: promtool is missing (install prometheus)\n";
    assert!(said.contains(line), "{said}");
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let Some(program) = find("promtool", "prometheus") else {
        return;
    };
    let server = serve(quiet(2).gate(GateMode::Guarded).cooldown(NEVER));
    get(server.local_addr(), "/");
    let page = get(server.local_addr(), "/metrics");
    let (good, said) = promtool(&program, &["check", "metrics"], page.text());
    assert!(good && said.is_empty(), "{said}");
    let (good, said) = promtool(&program, &["check", "metrics"], "plimsollUp 1\n");
    assert!(
        !good && !said.is_empty(),
        "it says something when it should"
    );
}

// What the guide shows.

/// The guide's example in that language that begins with `start`.
#[track_caller]
fn example(language: &str, start: &str) -> String {
    let guide = include_str!("../src/guide/deployment.md");
    let fence = format!("```{language}\n");
    let mut examples = guide.split(&fence).skip(1);
    let found = examples.find(|example| example.starts_with(start));
    let (text, _) = found.and_then(|text| text.split_once("```")).expect(start);
    text.to_owned()
}

#[test]
fn haproxy_takes_the_example() {
    let example = example("haproxy", "backend app\n");
    let Some(program) = find("haproxy", "haproxy") else {
        return;
    };
    let directory = TempDir::new("haproxy-example");
    let file = directory.path().join("haproxy.cfg");
    let rest = format!(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 1s\n    timeout server 1s\n\
         frontend front\n    bind unix@{}\n    default_backend app\n",
        directory.path().join("front").display(),
    );
    fs::write(&file, rest + &example).expect("a file");
    let output = Command::new(program).arg("-c").arg("-f").arg(file).output();
    let output = output.expect("HAProxy starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("[WARNING]"), "{said}");
}

#[test]
fn promtool_takes_the_examples() {
    let config = example("yaml", "# prometheus.yml\n");
    let rules = example("yaml", "# plimsoll.rules.yml\n");
    // An alert on what is not measured would never fire.
    let server = serve(quiet(2));
    let page = get(server.local_addr(), "/metrics");
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for name in words.filter(|word| word.starts_with("plimsoll_") || word.starts_with("process_")) {
        // Without a data store there is none of its own.
        let known = name == "plimsoll_check_up" || page.text().contains(&format!("# TYPE {name} "));
        assert!(known, "{name}");
    }
    let Some(program) = find("promtool", "prometheus") else {
        return;
    };
    let directory = TempDir::new("promtool");
    let file = directory.path().join("prometheus.yml");
    fs::write(&file, config).expect("a file");
    fs::write(directory.path().join("plimsoll.rules.yml"), rules).expect("a file");
    let file = file.display().to_string();
    let (good, said) = promtool(&program, &["check", "config", &file], "");
    assert!(good, "{said}");
    assert!(said.contains("4 rules found"), "{said}");
}

#[test]
fn consuls_example_asks_what_the_server_answers() {
    let example: serde_json::Value = serde_json::from_str(&example("json", "{")).expect("JSON");
    let url = example["Check"]["HTTP"].as_str().expect("a URL");
    let path = url
        .strip_prefix("http://10.0.0.5:8080")
        .expect("the service's address");
    let server = serve(quiet(2));
    // As Consul asks.
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: Consul Health Check\r\nAccept: text/plain, text/*, */*\r\n\
         Connection: close\r\n\r\n"
    );
    let reply = ask(server.local_addr(), request);
    assert_eq!((reply.status, reply.text()), (200, "healthy\n"));
}
