//! The guide's examples, by the command that it names.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::kit::process::{TempDir, find, run};
use crate::kit::{Plimsoll, ask, get, wait_until};

/// Where the files of all profiles are.
fn target() -> PathBuf {
    let tests = std::env::current_exe().expect("a path");
    // The directories of all profiles, of this one and of the tests, and the tests.
    tests.ancestors().nth(3).expect("a directory").to_owned()
}

/// Cargo, told to do something with an example, which is built as the tests are.
fn cargo(what: &str, example: &str) -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.args([
        what,
        "--quiet",
        "--locked",
        "--offline",
        "--example",
        example,
    ]);
    command.arg("--target-dir").arg(target());
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    for (name, is_on) in [
        ("internals", cfg!(feature = "internals")),
        ("r2d2", cfg!(feature = "r2d2")),
        ("redis", cfg!(feature = "redis")),
    ] {
        if is_on {
            command.args(["--features", name]);
        }
    }
    command
}

/// What an example says that ends by itself.
#[track_caller]
fn said(example: &str) -> String {
    let (good, said) = run(&mut cargo("run", example), "");
    assert!(good, "{said}");
    said
}

#[test]
fn the_json_api_keeps_notes_and_tells_when_its_store_is_gone() {
    let (good, said) = run(&mut cargo("build", "json_api"), "");
    assert!(good, "{said}");
    let directory = TempDir::new("notes");
    let file = directory.path().join("notes.db");
    let start = || {
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        let mut command = Command::new(target().join(profile).join("examples/json_api"));
        command.arg("127.0.0.1:0").arg(&file).stdin(Stdio::null());
        Plimsoll::spawn(command, &[])
    };
    let api = start();
    let address = api.address();
    let post = |body: &str| {
        let length = body.len();
        let head = format!(
            "POST /notes HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nConnection: close"
        );
        ask(address, format!("{head}\r\n\r\n{body}"))
    };
    let reply = post(r#"{"text":"buy milk"}"#);
    assert_eq!(
        (reply.status, reply.text()),
        (201, "{\"id\":1,\"text\":\"buy milk\"}\n")
    );
    assert_eq!(post("milk").status, 400);
    assert_eq!(get(address, "/other").status, 404);
    wait_until("the store is checked", || {
        get(address, "/readyz").status == 200
    });

    fs::rename(&file, directory.path().join("elsewhere")).expect("a rename");
    wait_until("the store is missed", || {
        get(address, "/readyz/notes").status == 503
    });
    assert_eq!(get(address, "/livez").status, 200);
    fs::rename(directory.path().join("elsewhere"), &file).expect("a rename");
    api.terminate();
    let (status, _, left) = api.exit();
    assert!(status.success(), "{left:?}");

    let again = start();
    let reply = get(again.address(), "/notes");
    assert_eq!(reply.text(), "[{\"id\":1,\"text\":\"buy milk\"}]\n");
}

#[test]
fn the_flaky_service_is_retried_then_left_alone_then_called_again() {
    let said = said("flaky_service");
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert_eq!(
        lines[1..4],
        ["200 after 2 calls of the service: 17.20"; 3],
        "{said}"
    );
    // Three tries, then two: the fifth failure in a row opens the breaker. After that nobody calls.
    assert!(lines[5].starts_with("502 after 3 calls"), "{said}");
    assert!(lines[6].starts_with("503 after 2 calls"), "{said}");
    assert!(
        lines[7..9]
            .iter()
            .all(|line| line.starts_with("503 after 0 calls")),
        "{said}"
    );
    assert_eq!(lines.last(), Some(&"The breaker is Closed."), "{said}");
}

#[test]
fn the_python_service_dies_and_comes_back_behind_its_sidecar() {
    if find("python3", "python3").is_none() {
        return;
    }
    let said = said("python_sidecar");
    let lines: Vec<_> = said.lines().map(str::trim).collect();
    assert_eq!(
        lines[1..3],
        [
            "GET /        200 hello from Python",
            "GET /readyz  200 ready"
        ],
        "{said}"
    );
    assert!(lines[4].starts_with("GET /        502"), "{said}");
    assert!(lines[7].starts_with("GET /        503"), "{said}");
    assert_eq!(lines[8], "GET /readyz  503 unhealthy", "{said}");
    assert_eq!(
        lines[10..],
        [
            "GET /        200 hello from Python",
            "GET /readyz  200 ready"
        ],
        "{said}"
    );
}

#[test]
fn the_event_queue_survives_the_kill_of_its_process() {
    let said = said("event_queue");
    let lines: Vec<_> = said.lines().collect();
    assert!(
        lines[0].ends_with("events were taken, then the process was killed."),
        "{said}"
    );
    assert_eq!(
        lines[2], "Every event that was taken has been delivered.",
        "{said}"
    );
}
