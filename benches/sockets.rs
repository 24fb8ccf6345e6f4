//! Requests per second over kept-alive connections, beside the peers: a plain `tiny_http` pool, the Go program of the
//! pattern, and nginx for what the event loop answers by itself.
//!
//! Runs alternate between the servers, so that a slow spell of the machine hits all of them, and the median run of
//! each counts. `QUICK=1` shortens it.

use std::io;

use crate::common::closed;
use crate::common::peers::{
    build_pool, start_go, start_nginx, start_plimsoll, start_pool, which_binary,
};
use crate::common::rounds::{HEADS, Server, measure, rows_of};
use crate::common::{self, Report};

pub(crate) fn run() -> io::Result<()> {
    let (runs, length) = if common::quick() { (1, 1) } else { (5, 1) };
    let all: &[usize] = if common::quick() {
        &[64]
    } else {
        &[1, 16, 64, 256]
    };
    let mut report = Report::new("Throughput over sockets");
    report.line(&common::machine());
    report.line(&format!(
        "{} The load is {}, kept-alive; medians of {runs} alternating runs of {length} s each.",
        which_binary(),
        closed::generator()
    ));

    let plimsoll = Server::new("plimsoll", start_plimsoll(&[])?, "/");
    let mut servers = vec![plimsoll];
    match build_pool().and_then(|program| start_pool(&program)) {
        Ok(child) => servers.push(Server::new("tiny_http pool", child, "/")),
        Err(error) => report.line(&format!("No tiny_http pool: {error}.")),
    }
    let go = common::build_go_peer();
    match &go {
        Ok(program) => servers.push(Server::new("Go", start_go(program)?, "/")),
        Err(why) => report.line(&format!("No Go program: {why}.")),
    }

    report.heading(2, "GET /");
    let mut rows = Vec::new();
    for &connections in all {
        let results = measure(&servers, connections, runs, length)?;
        for (server, result) in servers.iter().zip(&results) {
            report.figure(
                &format!("GET / at {connections} connections, {}", server.name),
                &result.show(),
            );
        }
        rows.extend(rows_of(&servers, connections, &results));
    }
    report.table(&HEADS, &rows);
    drop(servers);

    report.heading(2, "Answers of the event loop: health and refusals");
    let refusing = start_plimsoll(&["--gate=literal", "--threshold=1us", "--cooldown=60m"])?;
    // The first reply's time trips it, and from then on every request is refused.
    common::get(refusing.address, "/")?;
    let mut servers = vec![Server::new("plimsoll 503", refusing, "/")];
    if !common::quick() {
        // As much as the other program says at /health.
        let line = "plimsoll /health/consul, a line";
        servers.push(Server::new(line, start_plimsoll(&[])?, "/health/consul"));
        let json = "plimsoll /health, JSON";
        servers.push(Server::new(json, start_plimsoll(&[])?, "/health"));
        if let Ok(program) = &go {
            let line = "Go /health, a line";
            servers.push(Server::new(line, start_go(program)?, "/health"));
        }
    }
    match start_nginx() {
        Ok(child) => servers.push(Server::new("nginx 503", child, "/")),
        Err(error) => report.line(&format!("No nginx: {error}.")),
    }
    let results = measure(&servers, 64, runs, length)?;
    for (server, result) in servers.iter().zip(&results) {
        report.figure(
            &format!("{} at 64 connections", server.name),
            &result.show(),
        );
    }
    report.table(&HEADS, &rows_of(&servers, 64, &results));
    report.save("sockets")
}
