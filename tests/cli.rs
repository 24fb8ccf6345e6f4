//! The binary as a user meets it: its options, what it prints and how it exits.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::kit::process::TempDir;
use crate::kit::{PATIENCE, Plimsoll, Reserved};

/// Runs the binary to its end, expecting nothing but one line on standard error, and gives that
/// line with the exit code.
fn refusal(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let (status, stdout, lines) = Plimsoll::start(arguments, variables).exit();
    assert_eq!(stdout, "");
    assert_eq!(lines.len(), 1, "{lines:?}");
    (status.code(), lines.concat())
}

/// Sends a GET on a connection of its own and gives the whole answer.
fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
    stream
        .set_read_timeout(Some(PATIENCE))
        .expect("a timeout above 0");
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream
        .write_all(head.as_bytes())
        .expect("the request is sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("an answer in time");
    answer
}

#[test]
fn help_lists_every_option_with_its_variable_on_standard_output() {
    let (status, stdout, lines) = Plimsoll::start(&["--help"], &[]).exit();
    assert_eq!(status.code(), Some(0));
    assert_eq!(lines, [""; 0]);
    for (flag, variable) in [
        ("--listen ADDR", "PLIMSOLL_LISTEN"),
        ("--details-host NAME", "PLIMSOLL_DETAILS_HOST"),
        ("--workers N", "PLIMSOLL_WORKERS"),
        ("--threshold DUR", "PLIMSOLL_THRESHOLD"),
        ("--cooldown DUR", "PLIMSOLL_COOLDOWN"),
        ("--ewma-age N", "PLIMSOLL_EWMA_AGE"),
        ("--gate MODE", "PLIMSOLL_GATE"),
        ("--queue-budget DUR", "PLIMSOLL_QUEUE_BUDGET"),
        ("--queue-max N", "PLIMSOLL_QUEUE_MAX"),
        ("--fair", "PLIMSOLL_FAIR"),
        ("--max-connections N", "PLIMSOLL_MAX_CONNECTIONS"),
        ("--max-head SIZE", "PLIMSOLL_MAX_HEAD"),
        ("--max-body SIZE", "PLIMSOLL_MAX_BODY"),
        ("--head-timeout DUR", "PLIMSOLL_HEAD_TIMEOUT"),
        ("--body-timeout DUR", "PLIMSOLL_BODY_TIMEOUT"),
        ("--idle-timeout DUR", "PLIMSOLL_IDLE_TIMEOUT"),
        ("--write-timeout DUR", "PLIMSOLL_WRITE_TIMEOUT"),
        ("--request-timeout DUR", "PLIMSOLL_REQUEST_TIMEOUT"),
        ("--drain DUR", "PLIMSOLL_DRAIN"),
        ("--trust CIDR", "PLIMSOLL_TRUST"),
        ("--access-log FILE", "PLIMSOLL_ACCESS_LOG"),
        ("--access-log-format FORMAT", "PLIMSOLL_ACCESS_LOG_FORMAT"),
        ("--access-log-health", "PLIMSOLL_ACCESS_LOG_HEALTH"),
        ("--work DUR", "PLIMSOLL_WORK"),
        ("--check NAME=URL", "PLIMSOLL_CHECKS"),
        ("--log-level L", "PLIMSOLL_LOG"),
    ] {
        assert!(stdout.contains(&format!("  {flag}")), "{flag} in {stdout}");
        assert!(
            stdout.contains(&format!("[{variable}, ")),
            "{variable} in {stdout}"
        );
    }
    assert!(stdout.contains("--help") && stdout.contains("--version"));
}

#[test]
fn version_is_printed_on_standard_output() {
    let (status, stdout, lines) = Plimsoll::start(&["--version"], &[]).exit();
    assert_eq!(status.code(), Some(0));
    assert_eq!(
        stdout,
        concat!("plimsoll ", env!("CARGO_PKG_VERSION"), "\n")
    );
    assert_eq!(lines, [""; 0]);
}

#[test]
fn bad_options_exit_2_with_one_line_that_names_them() {
    for (arguments, expected) in [
        (
            ["--wrokers", "4"],
            "plimsoll: expected an option that --help lists (perhaps --workers), found \"--wrokers\"",
        ),
        (
            ["serve", "now"],
            "plimsoll: expected an option that --help lists, found \"serve\"",
        ),
        (
            ["--workers", "many"],
            "plimsoll: --workers: expected a whole number from 1 to 1024, found \"many\"",
        ),
        (
            ["--workers", "0"],
            "plimsoll: --workers: expected a whole number from 1 to 1024, found \"0\"",
        ),
        (
            ["--threshold", "1000"],
            "plimsoll: --threshold: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found \"1000\"",
        ),
        (
            ["--head-timeout", "0"],
            "plimsoll: --head-timeout: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found \"0\"",
        ),
        (
            ["--max-body", "1MB"],
            "plimsoll: --max-body: expected a size from 0 to 1GiB, such as 4096, 16KiB or 1MiB, found \"1MB\"",
        ),
        (
            ["--gate", "ajar"],
            "plimsoll: --gate: expected guarded, literal or off, found \"ajar\"",
        ),
        (
            ["--log-level", "loud"],
            "plimsoll: --log-level: expected off, error, warn, info, debug or trace, found \"loud\"",
        ),
        (
            ["--breaker", "5,on=4xx"],
            "plimsoll: --breaker: expected off, or a number from 1 to 1000, perhaps with ,on=5xx behind it, found \"5,on=4xx\"",
        ),
        (
            ["--upstream", "srv://127.0.0.1"],
            "plimsoll: --upstream srv://127.0.0.1: expected srv://NAME or srv://NAME?server=IP:PORT, found an address",
        ),
        (
            ["--listen", ":8080"],
            "plimsoll: --listen: expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, found \":8080\"",
        ),
        (
            ["--check", "cache=tcp://localhost:1,often"],
            "plimsoll: --check \"cache\": expected critical, interval=DUR, timeout=DUR, fall=N or rise=N after the URL, found \"often\"",
        ),
        (
            ["--fair=maybe", "--fair"],
            "plimsoll: --fair: expected on or off, found \"maybe\"",
        ),
        (
            ["--fair", "--drain"],
            "plimsoll: --drain: expected a duration of at most 24h, such as 250ms, 1.5s or 2m, found nothing",
        ),
    ] {
        assert_eq!(refusal(&arguments, &[]), (Some(2), expected.to_owned()));
    }
}

#[test]
fn a_bad_variable_exits_2_with_one_line_that_names_it() {
    assert_eq!(
        refusal(&[], &[("PLIMSOLL_QUEUE_BUDGET", "soon")]),
        (
            Some(2),
            "plimsoll: PLIMSOLL_QUEUE_BUDGET: expected a duration above 0 and at most 24h, such as 250ms, 1.5s or 2m, found \"soon\""
                .to_owned(),
        ),
    );
}

#[test]
fn a_monitors_address_in_use_exits_1_with_the_address_and_the_reason() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("a bound address").to_string();
    for option in ["--admin", "--agent"] {
        let arguments = ["--listen", "127.0.0.1:0", option, &address];
        let (code, line) = refusal(&arguments, &[]);
        assert_eq!(code, Some(1), "{line}");
        let start = format!("plimsoll: cannot listen on {address}: ");
        assert!(line.starts_with(&start), "{line}");
    }
}

#[test]
fn the_monitors_addresses_are_logged() {
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--agent",
        "127.0.0.1:0",
    ];
    let server = Plimsoll::start(&arguments, &[]);
    let public = server.address();
    let admin = server.address();
    assert_ne!(public, admin);
    assert!(get(admin, "/metrics").contains("plimsoll_up 1\n"));
    assert!(get(admin, "/").starts_with("HTTP/1.1 404 "));
    let line = server.next_line();
    assert!(line.contains("agent listening on 127.0.0.1:"), "{line}");
}

#[test]
fn a_bad_url_of_a_store_exits_2_and_does_not_show_its_password() {
    let url = "cache=redis://user:s3cret@127.0.0.1:port";
    let (code, line) = refusal(&["--check", url], &[]);
    assert_eq!(code, Some(2));
    assert!(
        line.starts_with("plimsoll: --check \"cache\": port: expected "),
        "{line}"
    );
    assert!(!line.contains("s3cret"), "{line}");
    let (code, line) = refusal(&[], &[("PLIMSOLL_CHECKS", url)]);
    assert_eq!(code, Some(2));
    assert!(
        line.starts_with("plimsoll: PLIMSOLL_CHECKS \"cache\": port: "),
        "{line}"
    );
    assert!(!line.contains("s3cret"), "{line}");
}

#[test]
fn the_257th_upstream_is_refused_by_name() {
    let sources = (1..=257).map(|number| format!("--upstream=http://127.0.0.1:{number}"));
    let sources: Vec<_> = sources.collect();
    let arguments: Vec<_> = sources.iter().map(String::as_str).collect();
    let (code, line) = refusal(&arguments, &[]);
    let expected =
        "plimsoll: --upstream: expected at most 256 sources, found http://127.0.0.1:257 too";
    assert_eq!((code, line.as_str()), (Some(2), expected));
}

#[test]
fn a_store_that_goes_down_and_comes_back_is_logged_once_each_time() {
    let port = Reserved::new();
    let place = port.address;
    let store = TcpListener::bind(place).expect("nobody listens");
    // Nobody accepts there, and 128 connections may wait: enough for more than the test's patience.
    let check = format!("db=tcp://{place},critical,interval=200ms,fall=2,rise=2");
    let server = Plimsoll::start(
        &["--listen", "127.0.0.1:0", "--drain", "0"],
        &[("PLIMSOLL_CHECKS", &check)],
    );
    let mut lines: Vec<String> = Vec::new();
    // Waits until so many more lines have come, and gives those of them that hold what is wanted.
    let mut wait_for = |count: usize, wanted: &[&str]| -> Vec<String> {
        let came = lines.len();
        lines.extend((0..count).map(|_| server.next_line()));
        let line_with = |wanted: &&str| {
            let mut new = lines[came..].iter();
            let line = new.find(|line| line.contains(*wanted));
            line.unwrap_or_else(|| panic!("no line with {wanted:?}: {lines:?}"))
                .clone()
        };
        wanted.iter().map(line_with).collect()
    };
    // The first run may have ended before the server says that it listens.
    let started = wait_for(2, &["listening on http://", "[INFO] db is up"]);
    let (_, address) = started[0].split_once("http://").expect("an address");
    let address = address.parse().expect("an address");
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
    drop(store);
    wait_for(1, &["[WARN] db is down: "]);
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(get(address, "/livez").starts_with("HTTP/1.1 200 "));
    // It fails on and on, with nothing more to say; then somebody listens there again.
    let _store = TcpListener::bind(place).expect("nobody listens");
    wait_for(1, &["[INFO] db is up"]);
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
    server.terminate();
    let (status, _, lines) = server.exit();
    assert_eq!(status.code(), Some(0), "{lines:?}");
}

#[test]
fn an_address_in_use_exits_1_with_the_address_and_the_reason() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = holder.local_addr().expect("a bound address").to_string();
    // The log level must not hide it.
    let (code, line) = refusal(&["--listen", &address, "--log-level", "off"], &[]);
    assert_eq!(code, Some(1));
    let reason = line
        .strip_prefix(&format!("plimsoll: cannot listen on {address}: "))
        .unwrap_or_else(|| panic!("the address first in {line}"));
    assert!(reason.contains("in use"), "{line}");
}

#[test]
fn a_start_that_gets_no_thread_says_so_and_blames_no_handler() {
    // Threads need address space for their stacks: far fewer fit in here, whatever the machine.
    let start = || {
        let mut command = Command::new("sh");
        let limited = "ulimit -v 600000 && exec \"$0\" \"$@\"";
        let binary = env!("CARGO_BIN_EXE_plimsoll");
        command.args(["-c", limited, binary, "--listen", "127.0.0.1:0"]);
        command.args(["--workers", "1024"]);
        let (status, _, lines) = Plimsoll::spawn(command, &[]).exit();
        (status.code(), lines)
    };
    // The space may end in an allocation just as well, which aborts: that is another story.
    let mut starts = (0..10).map(|_| start());
    let told = starts.find(|(code, _)| code.is_some());
    let (code, lines) = told.expect("a start that ends by itself");
    assert_eq!(code, Some(1));
    // The thread that finds no room may be one of tiny_http's too, whose panic is told before.
    let last = lines.last().expect("a line");
    let expected = "plimsoll: cannot set up a worker thread: ";
    assert!(last.starts_with(expected), "{lines:?}");
    assert!(
        lines.iter().all(|line| !line.contains("handler")),
        "{lines:?}"
    );
}

#[test]
fn a_flag_beats_the_environment() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = holder.local_addr().expect("a bound address").to_string();
    let variables = [("PLIMSOLL_LISTEN", taken.as_str()), ("PLIMSOLL_LOG", "off")];

    let (code, line) = refusal(&[], &variables);
    assert_eq!(code, Some(1), "the variable alone is obeyed: {line}");

    let flags = ["--listen", "127.0.0.1:0", "--log-level", "info"];
    let server = Plimsoll::start(&flags, &variables);
    assert_ne!(server.address().to_string(), taken);
}

#[test]
fn every_address_is_served_and_logged() {
    let by_flag = Plimsoll::start(&["--listen", "127.0.0.1:0", "--listen=127.0.0.1:0"], &[]);
    let by_variable = Plimsoll::start(&[], &[("PLIMSOLL_LISTEN", "127.0.0.1:0,127.0.0.1:0")]);
    for server in [by_flag, by_variable] {
        let addresses = [server.address(), server.address()];
        assert_ne!(addresses[0], addresses[1]);
        for address in addresses {
            assert!(get(address, "/").starts_with("HTTP/1.1 200 "));
        }
    }
}

#[test]
fn the_root_tells_the_average_and_takes_as_long_as_asked() {
    let work = Duration::from_millis(30);
    let server = Plimsoll::start(&["--listen", "127.0.0.1:0", "--work", "30ms"], &[]);
    let address = server.address();

    let sent = Instant::now();
    let answer = get(address, "/");
    assert!(sent.elapsed() >= work);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(
        answer.ends_with("\r\n\r\nAverage request time: 0.000000 (ms)\n"),
        "{answer}"
    );

    let answer = get(address, "/elsewhere");
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nnot found\n"), "{answer}");
}

#[test]
fn sigterm_ends_it_with_exit_0() {
    let server = Plimsoll::start(&["--listen", "127.0.0.1:0", "--drain", "0"], &[]);
    server.address();
    server.terminate();
    let (status, _, lines) = server.exit();
    assert_eq!(status.code(), Some(0), "{lines:?}");
}

/// Starts the binary with that limit of open files.
fn with_open_files(limit: usize) -> Plimsoll {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_plimsoll"))
        .args(["--listen", "127.0.0.1:0", "--workers", "2"]);
    Plimsoll::spawn(command, &[])
}

#[test]
fn a_limit_of_open_files_that_leaves_too_little_ends_the_start_with_the_reason() {
    let (status, stdout, lines) = with_open_files(8).exit();
    assert_eq!((status.code(), stdout.as_str()), (Some(1), ""));
    let [warning, error] = &lines[..] else {
        panic!("two lines, not {lines:?}");
    };
    assert!(
        warning.contains("[WARN] the limit of open files is 8: "),
        "{warning}"
    );
    assert!(
        error.starts_with("plimsoll: cannot set up ") && error.contains("descriptors"),
        "{error}"
    );
}

#[test]
fn a_low_limit_of_open_files_is_warned_of_once_and_serves() {
    let process = with_open_files(16);
    let address = process.address();
    for _ in 0..20 {
        assert!(get(address, "/livez").ends_with("live\n"));
    }
    assert_eq!(process.logged("the limit of open files is 16: "), 1);
    assert_eq!(process.logged("[ERROR]"), 0);
}

#[test]
fn a_file_of_options_is_checked_and_served_by() {
    let directory = TempDir::new("config");
    let file = directory.path().join("plimsoll.conf");
    let path = file.to_str().expect("a path of text");
    fs::write(
        &file,
        "# on any port\nlisten 127.0.0.1:0\nhealth-path /hull\n",
    )
    .expect("a file");
    let (status, stdout, lines) =
        Plimsoll::start(&["--check-config", "--config", path], &[]).exit();
    assert_eq!(
        (status.code(), stdout.as_str(), lines),
        (Some(0), "all options are good\n", vec![])
    );
    let server = Plimsoll::start(&[], &[("PLIMSOLL_CONFIG", path)]);
    assert!(get(server.address(), "/hull").starts_with("HTTP/1.1 200 "));

    fs::write(&file, "listen 127.0.0.1:0\nhealth-path hull\n").expect("a file");
    for arguments in [
        &["--config", path][..],
        &["--check-config", "--config", path],
    ] {
        assert_eq!(
            refusal(arguments, &[]),
            (
                Some(2),
                format!(
                    "plimsoll: {path}:2: health-path: expected a path that begins with a slash, such as /health, or off, found \"hull\""
                )
            )
        );
    }
}

#[test]
fn the_paths_that_hide_the_services_own_are_told_once_at_the_start() {
    let upstream = [
        "--listen",
        "127.0.0.1:0",
        "--upstream",
        "http://127.0.0.1:1",
    ];
    for (more, told) in [
        (
            &["--own-paths", "admin"][..],
            "[INFO] answered here and not forwarded: /livez, /readyz",
        ),
        (
            &["--health-path", "off", "--status-path", "off"],
            "[INFO] answered here and not forwarded: /livez, /readyz, /metrics",
        ),
    ] {
        let server = Plimsoll::start(&[&upstream, more].concat(), &[]);
        let line = server.next_line();
        assert!(line.ends_with(told), "{line}");
        server.address();
    }
}
