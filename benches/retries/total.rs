//! How much more a service gets to do while it fails, since what stands in front of it tries again: tries a request, at
//! total failure of three endpoints, beside nginx and HAProxy as they come and as they are told to try again.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::joined;
use crate::common::load::{Arrivals, generate};
use crate::common::peers::{start_haproxy_with, start_nginx_with, start_plimsoll};
use crate::common::service::{Condition, Service};
use crate::common::{self, Child, Report};

/// How long the load is, and its requests a second. The retry budget is for 30 and more; a short run has about as many
/// requests as one of 10 s would have.
fn load() -> (Duration, f64) {
    if common::quick() {
        (Duration::from_secs(3), 150.0)
    } else {
        (Duration::from_secs(20), 60.0)
    }
}

/// What the budget allows: 0.2 of the requests and 30 more in 10 s.
const MOST: f64 = 1.3;

/// Until what was asked last has ended with its retries.
const SETTLING: Duration = Duration::from_secs(1);

const FAULTS: [(&str, Condition); 2] = [
    ("closes each connection", Condition::Closes),
    ("answers 503", Condition::Refuses),
];

/// Starts what is compared, in front of these endpoints, with its files under this name.
type Start = fn(&[SocketAddr], &str) -> io::Result<Child>;

const SUBJECTS: [(&str, Start); 6] = [
    ("plimsoll", |endpoints, _| plimsoll(endpoints, &[])),
    ("plimsoll --breaker off", |endpoints, _| {
        plimsoll(endpoints, &["--breaker=off"])
    }),
    ("nginx", |endpoints, name| nginx(endpoints, name, "", "")),
    ("nginx, told to retry the same", |endpoints, name| {
        let next = "proxy_next_upstream error timeout http_502 http_503 http_504;";
        nginx(endpoints, name, "max_fails=0", next)
    }),
    ("HAProxy", |endpoints, name| haproxy(endpoints, name, "")),
    ("HAProxy, told to retry the same", |endpoints, name| {
        let how = " retry-on all-retryable-errors\n option redispatch 1\n";
        haproxy(endpoints, name, how)
    }),
];

/// Tries a request of each subject, a column for each fault.
pub(super) struct Row {
    name: &'static str,
    tries: Vec<io::Result<f64>>,
}

pub(super) fn measure() -> Vec<Row> {
    thread::scope(|scope| {
        let started = SUBJECTS.map(|(name, start)| {
            let tries = FAULTS.map(|(_, fault)| scope.spawn(move || tries_a_request(start, fault)));
            (name, tries)
        });
        let ended = started.map(|(name, tries)| Row {
            name,
            tries: tries
                .into_iter()
                .map(|tries| joined(tries.join()).and_then(|tries| tries))
                .collect(),
        });
        ended.into()
    })
}

pub(super) fn tell(rows: &[Row], report: &mut Report) {
    let (length, rate) = load();
    report.heading(2, "Tries a request at total failure");
    report.line(&format!(
        "Three endpoints that all fail, {rate} requests/s for {length:?}: tries that reach them for each request. At most \
         {MOST} by the retry budget."
    ));
    let mut table = Vec::new();
    for row in rows {
        let mut cells = vec![row.name.to_owned()];
        for ((what, _), tries) in FAULTS.iter().zip(&row.tries) {
            let found = match tries {
                Ok(tries) if row.name.starts_with("plimsoll") && *tries > MOST => {
                    format!("{tries:.2}: MISSED")
                }
                Ok(tries) => format!("{tries:.2}"),
                Err(error) => format!("none: {error}"),
            };
            report.figure(&format!("tries a request, {what}, {}", row.name), &found);
            cells.push(found);
        }
        table.push(cells);
    }
    let [first, second] = FAULTS.map(|(what, _)| what);
    report.table(&["in front", first, second], &table);
}

fn tries_a_request(start: Start, fault: Condition) -> io::Result<f64> {
    let (length, rate) = load();
    let service = || Service::start(1, Duration::ZERO);
    let services = [service()?, service()?, service()?];
    let endpoints = services.each_ref().map(|service| service.address);
    let child = start(&endpoints, &format!("retries-{}", endpoints[0].port()))?;
    for service in &services {
        service.set(fault);
        drop(service.take_arrivals());
    }
    let arrivals = Arrivals::Open(rate);
    let samples = generate(child.address, arrivals, length, 1, Instant::now())?;
    thread::sleep(SETTLING);
    let tries: usize = services
        .iter()
        .map(|service| service.take_arrivals().len())
        .sum();
    Ok(tries as f64 / samples.len() as f64)
}

fn plimsoll(endpoints: &[SocketAddr], options: &[&str]) -> io::Result<Child> {
    let endpoints = endpoints.iter();
    let upstreams: Vec<_> = endpoints
        .map(|endpoint| format!("--upstream=http://{endpoint}"))
        .collect();
    let all: Vec<_> = upstreams.iter().map(String::as_str).collect();
    start_plimsoll(&[&all, options].concat())
}

fn nginx(endpoints: &[SocketAddr], name: &str, server: &str, next: &str) -> io::Result<Child> {
    let servers: Vec<_> = endpoints
        .iter()
        .map(|endpoint| format!("server {endpoint} {server}; "))
        .collect();
    start_nginx_with(
        name,
        &format!("upstream service {{ {} }}", servers.concat()),
        &format!("proxy_pass http://service; {next}"),
    )
}

fn haproxy(endpoints: &[SocketAddr], name: &str, how: &str) -> io::Result<Child> {
    let servers: Vec<_> = endpoints
        .iter()
        .map(|endpoint| format!(" server s{} {endpoint}\n", endpoint.port()))
        .collect();
    start_haproxy_with(name, |address| {
        let servers = servers.concat();
        format!("frontend f\n bind {address}\n default_backend b\nbackend b\n{how}{servers}")
    })
}
