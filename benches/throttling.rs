//! Refusals of clients that ask too often, beside nginx's limit_req and HAProxy's stick table, one thread each. Runs
//! alternate, and the median of each counts. `QUICK=1` shortens it.

use std::io;

use crate::common::closed;
use crate::common::peers::{start_haproxy_with, start_nginx_with, start_plimsoll, which_binary};
use crate::common::rounds::{HEADS, Server, measure, rows_of};
use crate::common::{self, Child, Report};

/// What any request but the first gets.
const THROTTLED: u16 = 429;

pub(crate) fn run() -> io::Result<()> {
    let (runs, length) = if common::quick() { (1, 1) } else { (5, 1) };
    let mut report = Report::new("Throttling");
    report.line(&common::machine());
    report.line(&format!(
        "{} The load is {}, kept-alive; medians of {runs} alternating runs of {length} s each.",
        which_binary(),
        closed::generator()
    ));
    let mut servers = Vec::new();
    for (name, started) in [
        ("plimsoll --throttle", start_plimsoll(&["--throttle=1/h"])),
        ("nginx limit_req", start_nginx()),
        ("HAProxy stick table", start_haproxy()),
    ] {
        match started {
            Ok(child) => servers.push(Server::new(name, child, "/")),
            Err(error) => report.line(&format!("No {name}: {error}.")),
        }
    }
    for server in &servers {
        exhaust(server)?;
    }
    report.heading(2, "Throttled requests, 429");
    let mut rows = Vec::new();
    for &connections in if common::quick() {
        &[64][..]
    } else {
        &[1, 64, 256]
    } {
        let results = measure(&servers, connections, runs, length)?;
        for (server, result) in servers.iter().zip(&results) {
            let what = format!("429 at {connections} connections, {}", server.name);
            report.figure(&what, &result.show());
        }
        rows.extend(rows_of(&servers, connections, &results));
    }
    report.table(&HEADS, &rows);
    report.save("throttling")
}

/// Asks until the limit is reached.
fn exhaust(server: &Server) -> io::Result<()> {
    for _ in 0..10 {
        if common::get(server.child.address, server.path)? == THROTTLED {
            return Ok(());
        }
    }
    Err(io::Error::other(format!(
        "{} throttles nobody",
        server.name
    )))
}

fn start_nginx() -> io::Result<Child> {
    start_nginx_with(
        "nginx-throttle",
        "limit_req_zone $binary_remote_addr zone=clients:10m rate=1r/m; limit_req_status 429;",
        "limit_req zone=clients; root /nonexistent;",
    )
}

fn start_haproxy() -> io::Result<Child> {
    start_haproxy_with("haproxy-throttle", |address| {
        format!(
            "frontend f\n bind {address}\n stick-table type ip size 100k expire 60s store http_req_rate(60s)\n \
             http-request track-sc0 src\n \
             http-request deny deny_status 429 if {{ sc_http_req_rate(0) gt 1 }}\n \
             http-request return status 200\n"
        )
    })
}
