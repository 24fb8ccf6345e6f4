//! Many starts and stops in one process leave nothing behind.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

use crate::kit::{Client, Usage, alone, get, wait_until};
use plimsoll::{Request, Server};

/// Private directories of this process, wherever the system has room for them, but for those that were there before: a
/// process that was killed leaves its own, and its number comes again.
fn directories() -> Vec<String> {
    static BEFORE: OnceLock<Vec<String>> = OnceLock::new();
    let found = named_after_this_process();
    let before = BEFORE.get_or_init(|| found.clone());
    found
        .into_iter()
        .filter(|name| !before.contains(name))
        .collect()
}

fn named_after_this_process() -> Vec<String> {
    let mine = format!("plimsoll-{}-", std::process::id());
    let set = ["XDG_RUNTIME_DIR", "TMPDIR"].into_iter();
    let set = set.filter_map(|name| std::env::var(name).ok());
    let fixed = ["/tmp", "/run", "/dev/shm"].into_iter().map(str::to_owned);
    let entries = set
        .chain(fixed)
        .filter_map(|place| fs::read_dir(place).ok());
    entries
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(&mine))
        .collect()
}

fn start_and_stop(round: usize) {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .workers(3)
        .handler(|_: &mut Request| "fine\n")
        .start()
        .expect("the server starts");
    assert_eq!(directories().len(), 1);
    let address = server.local_addr();
    let mut kept = Client::connect(address);
    assert_eq!(kept.get("/").reply().text(), "fine\n");
    let mut half = Client::connect(address);
    half.send("GET / HT");
    assert_eq!(get(address, "/health").status, 200);
    match round % 3 {
        0 => drop(server),
        1 => server.shutdown(Duration::ZERO).expect("nothing is cut"),
        _ => server
            .shutdown(Duration::from_millis(50))
            .expect("nothing is cut"),
    }
    assert!(kept.ends(), "a client outlives the server");
    assert!(
        Client::try_connect(address).is_err(),
        "somebody listens still"
    );
}

#[test]
#[ignore = "slow: make test-slow"]
fn fifty_starts_and_stops_leave_nothing_behind() {
    alone(|| {
        assert_eq!(directories(), Vec::<String>::new());
        // The first pays for what the process keeps for good.
        start_and_stop(0);
        // tiny_http's pool threads end some seconds after their server.
        let alone = |usage: Usage| usage.threads <= 2;
        wait_until("the first one's threads end", || alone(Usage::of("self")));
        let before = Usage::of("self");
        for round in 0..50 {
            start_and_stop(round);
        }
        wait_until("all threads end", || {
            let now = Usage::of("self");
            now.threads <= before.threads && now.descriptors <= before.descriptors
        });
        let now = Usage::of("self");
        assert!(
            now.memory < before.memory + 8 * 1024,
            "{before:?}, then {now:?}"
        );
        assert_eq!(directories(), Vec::<String>::new());
    });
}
