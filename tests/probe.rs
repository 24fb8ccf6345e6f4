//! `plimsoll probe` as Docker and Consul run it: the line that it prints, and its exit codes.

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use crate::kit::Plimsoll;
use crate::kit::{NEVER, PATIENCE, Reserved, get, quiet, wait_until};
use plimsoll::{GateMode, Request, Server};

/// Runs a probe to its end; gives its exit code and what it printed on standard output.
fn probe_with(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let arguments = [&["probe"], arguments].concat();
    let (status, stdout, errors) = Plimsoll::start(&arguments, variables).exit();
    assert_eq!(errors, [""; 0], "{arguments:?}");
    (status.code().expect("no signal ends it"), stdout)
}

/// The line of a probe of that URL, and its exit codes without and with `--consul-exit`.
#[track_caller]
fn probe(url: &str) -> (String, [i32; 2]) {
    let patience = format!("{}s", PATIENCE.as_secs());
    let timeout = ["--timeout", &patience];
    let (docker, line) = probe_with(&[&timeout[..], &[url]].concat(), &[]);
    let (consul, same) = probe_with(&[&[url, "--consul-exit"], &timeout[..]].concat(), &[]);
    assert_eq!(line, same);
    assert_eq!(line.lines().count(), 1, "{line:?}");
    (line.trim_end().to_owned(), [docker, consul])
}

fn healthy() -> Server {
    let server = quiet(2).handler(|_: &mut Request| "fine\n");
    server.start().expect("the server starts")
}

#[test]
fn a_healthy_server_exits_0() {
    let server = healthy();
    let url = |path: &str| format!("http://{}{path}", server.local_addr());
    assert_eq!(probe(&url("/readyz")), ("200 ready".into(), [0, 0]));
    assert_eq!(probe(&url("/health")), ("200 healthy".into(), [0, 0]));
    assert_eq!(probe(&url("")), ("200 fine".into(), [0, 0]));
}

#[test]
fn a_warning_exits_0_for_docker_and_1_for_consul() {
    let server = quiet(2).handler(|request: &mut Request| match request.path() {
        "/429" => (429_u16, "too much\n"),
        _ => (200, "warning\n"),
    });
    let server = server.start().expect("the server starts");
    let url = |path: &str| format!("http://{}{path}", server.local_addr());
    assert_eq!(probe(&url("/text")), ("200 warning".into(), [0, 1]));
    assert_eq!(probe(&url("/429")), ("429 too much".into(), [0, 1]));
}

#[test]
fn an_unhealthy_server_exits_1_for_docker_and_2_for_consul() {
    let server = quiet(2)
        .gate(GateMode::Literal)
        .threshold(Duration::from_nanos(1))
        .cooldown(NEVER)
        .handler(|_: &mut Request| "slow\n")
        .start()
        .expect("the server starts");
    let address = server.local_addr();
    assert_eq!(get(address, "/").status, 200);
    wait_until("it trips", || !server.health().is_healthy());
    let (line, codes) = probe(&format!("http://{address}/readyz"));
    assert_eq!((line.as_str(), codes), ("503 unhealthy", [1, 2]));
    let (line, codes) = probe(&format!("http://{address}/nowhere"));
    assert!(line.starts_with("503 "), "{line}");
    assert_eq!(codes, [1, 2]);
}

#[test]
fn a_server_that_is_not_there_exits_1_for_docker_and_2_for_consul() {
    let nobody = Reserved::new();
    let (line, codes) = probe(&format!("http://{}/", nobody.address));
    assert!(line.contains("refused"), "{line}");
    assert_eq!(codes, [1, 2]);
}

#[test]
fn a_server_that_says_nothing_is_given_up_at_the_timeout() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", silent.local_addr().expect("it is bound"));
    let began = Instant::now();
    let (code, line) = probe_with(&[&url, "--timeout", "300ms"], &[]);
    assert!(began.elapsed() >= Duration::from_millis(300));
    assert_eq!((code, line.as_str()), (1, "no answer in time\n"));
}

#[test]
fn names_and_ipv6_addresses_are_reached() {
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let server = quiet(1).listen(at).handler(|_: &mut Request| "fine\n");
        let server = server.start().expect("the server starts");
        let addresses: &[SocketAddr] = server.local_addrs();
        for address in addresses {
            let (line, codes) = probe(&format!("http://{address}/livez"));
            assert_eq!((line.as_str(), codes), ("200 live", [0, 0]));
        }
    }
    let server = healthy();
    let url = format!("http://localhost:{}/livez", server.local_addr().port());
    assert_eq!(probe(&url), ("200 live".into(), [0, 0]));
}

#[test]
fn without_a_url_it_asks_where_the_server_of_the_same_environment_listens() {
    let server = healthy();
    let everywhere = format!("0.0.0.0:{},127.0.0.1:1", server.local_addr().port());
    let variables = [("PLIMSOLL_LISTEN", everywhere.as_str())];
    assert_eq!(probe_with(&[], &variables), (0, "200 ready\n".into()));
    let consul = probe_with(&["--consul-exit"], &variables);
    assert_eq!(consul, (0, "200 healthy\n".into()));
}

#[test]
fn bad_arguments_exit_2_with_one_line_on_standard_error() {
    for (arguments, expected) in [
        (
            vec!["probe", "https://localhost/"],
            "plimsoll: probe: scheme: expected http://: TLS is not spoken here, found https://",
        ),
        (
            vec!["probe", "--timeout", "0"],
            "plimsoll: --timeout: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, \
             found \"0\"",
        ),
        (
            vec!["probe", "--frobnicate"],
            "plimsoll: expected a URL and options that plimsoll probe --help lists, found \
             \"--frobnicate\"",
        ),
        (
            vec!["probe", "http://h/", "http://user:s3cret@h/"],
            "plimsoll: expected a URL and options that plimsoll probe --help lists, found \"...\"",
        ),
    ] {
        let (status, stdout, lines) = Plimsoll::start(&arguments, &[]).exit();
        assert_eq!(status.code(), Some(2));
        assert_eq!((stdout.as_str(), lines), ("", vec![expected.to_owned()]));
    }
}

#[test]
fn its_help_is_on_standard_output() {
    let (code, text) = probe_with(&["--help"], &[]);
    assert_eq!(code, 0);
    for word in [
        "--timeout DUR",
        "--consul-exit",
        "PLIMSOLL_LISTEN",
        "Usage: plimsoll probe",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}
