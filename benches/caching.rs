//! The cache: hits beside replies that the server makes itself; what nginx, HAProxy and it make of `stale-if-error` when the
//! service fails; and the public suite of HTTP caches, see `.ci/cache-tests`. With `QUICK=1` the table of an earlier run of
//! that is told, and no more.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{fs, io, thread};

use crate::common::closed;
use crate::common::peers::{
    plimsoll_binary, plimsoll_command, start_haproxy_with, start_nginx_with, start_plimsoll,
    which_binary,
};
use crate::common::rounds::{HEADS, Server, measure, rows_of};
use crate::common::{self, Child, Report};
use crate::proxy::respond;

/// Where the suite's run leaves its table.
const TABLE: &str = "cache-tests.md";

pub(crate) fn run() -> io::Result<()> {
    let mut report = Report::new("Caching");
    report.line(&common::machine());
    report.line(&which_binary());
    if !common::quick() {
        hits(&mut report)?;
        stale(&mut report)?;
    }
    suite(&mut report)?;
    report.save("caching")
}

/// As many bytes as the reply has that the server makes itself.
const KEPT: &str = "/37?max-age=3600";

fn hits(report: &mut Report) -> io::Result<()> {
    let (runs, length) = (3, 1);
    report.heading(2, "Hits");
    report.line(&format!(
        "The load is {}, kept-alive; medians of {runs} alternating runs of {length} s each.",
        closed::generator()
    ));
    let service = Child::start(respond)?;
    let mut servers = vec![
        Server::new("a hit", start_cache(service.address)?, KEPT),
        Server::new("GET / without an upstream", start_plimsoll(&[])?, "/"),
    ];
    match start_nginx(service.address) {
        Ok(child) => servers.push(Server::new("a hit of nginx", child, KEPT)),
        Err(error) => report.line(&format!("No nginx: {error}.")),
    }
    let mut rows = Vec::new();
    for connections in [1, 64] {
        let results = measure(&servers, connections, runs, length)?;
        let part = results[0].rate / results[1].rate;
        report.figure(
            &format!("a hit's rate of that of GET /, at {connections} connections"),
            &format!("{part:.2}"),
        );
        rows.extend(rows_of(&servers, connections, &results));
    }
    report.table(&HEADS, &rows);
    Ok(())
}

/// What is given of a reply that has just become stale, and may stand for an error, when the service is gone.
fn stale(report: &mut Report) -> io::Result<()> {
    const MAY_STAND: &str = "/37?max-age=1,stale-if-error=600";
    report.heading(2, "stale-if-error");
    let service = Child::start(respond)?;
    let mut servers = vec![("plimsoll", start_cache(service.address)?)];
    for (name, started) in [
        ("nginx", start_nginx(service.address)),
        ("HAProxy", start_haproxy(service.address)),
    ] {
        match started {
            Ok(child) => servers.push((name, child)),
            Err(error) => report.line(&format!("No {name}: {error}.")),
        }
    }
    for (_, server) in &servers {
        common::get(server.address, MAY_STAND)?;
    }
    thread::sleep(Duration::from_millis(2100));
    drop(service);
    let rows = servers.iter().map(|(name, server)| {
        let status = common::get(server.address, MAY_STAND)?;
        report.figure(
            &format!("stale-if-error of a dead service, {name}"),
            &status.to_string(),
        );
        Ok(vec![(*name).to_owned(), status.to_string()])
    });
    let rows = rows.collect::<io::Result<Vec<_>>>()?;
    report.table(&["server", "of a service that is dead"], &rows);
    Ok(())
}

fn start_cache(service: SocketAddr) -> io::Result<Child> {
    let upstream = format!("--upstream=http://{service}");
    Child::start(|address| plimsoll_command(&[&upstream, "--cache=16MiB"], address))
}

fn start_nginx(service: SocketAddr) -> io::Result<Child> {
    let kept = common::directory()?.join("nginx-cache/kept");
    start_nginx_with(
        "nginx-cache",
        &format!("proxy_cache_path {} keys_zone=kept:1m;", kept.display()),
        &format!("proxy_pass http://{service}; proxy_cache kept;"),
    )
}

fn start_haproxy(service: SocketAddr) -> io::Result<Child> {
    start_haproxy_with("haproxy-cache", |address| {
        format!(
            "cache kept\n total-max-size 4\n\
             frontend f\n bind {address}\n default_backend b\n\
             backend b\n http-request cache-use kept\n http-response cache-store kept\n server s {service}\n"
        )
    })
}

fn suite(report: &mut Report) -> io::Result<()> {
    report.heading(2, "http-cache-tests");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !common::quick() {
        let mut suite = Command::new(root.join(".ci/cache-tests"));
        let status = suite.env("PLIMSOLL", plimsoll_binary()).status()?;
        if !status.success() {
            report.line(&format!("The suite did not pass: {status}."));
        }
    }
    let file = root.join("target/bench").join(TABLE);
    match fs::read_to_string(&file) {
        Ok(table) => {
            if let Some(found) = table.lines().find_map(all) {
                report.figure("cache-tests: required passed, optimal passed", &found);
            }
            report.line(&table);
        }
        Err(error) => report.line(&format!("No table of the suite: {error}.")),
    }
    Ok(())
}

/// What a row of the suite's table says if it is that of all parts.
fn all(row: &str) -> Option<String> {
    let cells = row.strip_prefix("| all |")?.trim_end_matches([' ', '|']);
    Some(cells.replace(" |", ",").trim().to_owned())
}
