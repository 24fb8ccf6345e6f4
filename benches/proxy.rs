//! The sidecar beside nginx, HAProxy and Envoy, one thread each, in front of the same plain service; the service alone is
//! there too. Runs alternate, and the median of each counts. `QUICK=1` shortens it.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;
use std::{env, fs, io, thread};

use crate::common::closed::{self, Load};
use crate::common::peers::{plimsoll_command, which_binary};
use crate::common::rounds::{HEADS, Medians, Server, measure, rows_of};
use crate::common::{self, Child, Report};

/// Tells this program to be the plain service at an address.
pub(crate) const RESPOND: &str = "respond";

const KIB: &str = "/1024";

pub(crate) fn run() -> io::Result<()> {
    let (runs, length) = if common::quick() { (1, 1) } else { (3, 1) };
    let all: &[usize] = if common::quick() {
        &[64]
    } else {
        &[1, 16, 64, 256]
    };
    let mut report = Report::new("Sidecar");
    report.line(&common::machine());
    report.line(&format!(
        "{} The load is {}, kept-alive; medians of {runs} alternating runs of {length} s each.",
        which_binary(),
        closed::generator()
    ));
    let service = Child::start(respond)?;
    let upstream = service.address;
    let url = format!("--upstream=http://{upstream}");
    let plimsoll = Child::start(|address| plimsoll_command(&[&url], address))?;
    let mut servers = vec![Server::new("plimsoll", plimsoll, KIB)];
    for (name, started) in [
        ("nginx", start_nginx(upstream)),
        ("HAProxy", start_haproxy(upstream)),
        ("Envoy", start_envoy(upstream)),
    ] {
        match started {
            Ok(child) => servers.push(Server::new(name, child, KIB)),
            Err(error) => report.line(&format!("No {name}: {error}.")),
        }
    }
    servers.push(Server::new("the service alone", service, KIB));

    report.heading(2, "Replies of 1 KiB");
    let mut rows = Vec::new();
    let mut added = Vec::new();
    for &connections in all {
        let results = measure(&servers, connections, runs, length)?;
        for (server, result) in servers.iter().zip(&results) {
            let what = format!("1 KiB at {connections} connections, {}", server.name);
            report.figure(&what, &result.show());
            if let (256, Some(resident)) = (connections, server.child.memory()) {
                let what = format!("resident after 256 connections, {}", server.name);
                report.figure(&what, &format!("{resident} KiB"));
            }
        }
        if connections == 1 {
            added = added_latency(&servers, &results);
        }
        rows.extend(rows_of(&servers, connections, &results));
    }
    report.table(&HEADS, &rows);
    if !added.is_empty() {
        let what = "Added to the median latency of the service alone, at 1 connection";
        report.heading(2, what);
        for row in &added {
            report.figure(&format!("added latency, {}", row[0]), &row[1]);
        }
        report.table(&["server", "added"], &added);
    }

    let large: &[(&str, f64, &str, usize)] = if common::quick() {
        &[]
    } else {
        &[
            ("/102400", 102_400.0, "Replies of 100 KiB", 16),
            ("/10485760", 10_485_760.0, "Replies of 10 MiB", 4),
        ]
    };
    for &(path, size, name, connections) in large {
        report.heading(2, name);
        for server in &mut servers {
            server.path = path;
        }
        let results = measure(&servers, connections, runs, length)?;
        let mut rows = rows_of(&servers, connections, &results);
        for ((server, result), row) in servers.iter().zip(&results).zip(&mut rows) {
            let bytes = format!("{:.0} MiB/s", result.rate * size / f64::from(1 << 20));
            let what = format!("{name}, {}", server.name);
            report.figure(&what, &format!("{}, {bytes}", result.show()));
            row.push(bytes);
        }
        report.table(&[&HEADS[..], &["bytes"]].concat(), &rows);
    }

    report.heading(2, "Idle clients");
    idle(&mut report, upstream)?;
    if !common::quick() {
        report.heading(2, "A service that restarts under 64 connections");
        restarts(&mut report)?;
    }
    report.save("proxy")
}

/// The plain service at an address.
pub(crate) fn respond(address: SocketAddr) -> Command {
    // Without its own path it does not start, which is told.
    let program = env::current_exe().unwrap_or_default();
    let mut command = Command::new(program);
    command.arg(RESPOND).arg(address.to_string());
    command
}

/// How many requests fail while the service behind is killed and started again, once a second.
fn restarts(report: &mut Report) -> io::Result<()> {
    let times = 5;
    let mut rows = Vec::new();
    // With a single server, nginx has no breaker either.
    for (name, breaker) in [
        ("plimsoll", "--breaker=5"),
        ("plimsoll --breaker=off", "--breaker=off"),
        ("nginx", ""),
    ] {
        let mut service = Child::start(respond)?;
        let upstream = service.address;
        let url = format!("--upstream=http://{upstream}");
        let started = if name == "nginx" {
            start_nginx(upstream)
        } else {
            Child::start(|address| plimsoll_command(&[&url, breaker], address))
        };
        let proxy = match started {
            Ok(proxy) => proxy,
            Err(error) => {
                report.line(&format!("No {name}: {error}."));
                continue;
            }
        };
        let address = proxy.address;
        let load = thread::spawn(move || Load::get(address, KIB, 64, times + 1).run());
        for _ in 0..times {
            thread::sleep(Duration::from_secs(1));
            drop(service);
            service = Child::start_at(upstream, respond)?;
        }
        let measured = load
            .join()
            .map_err(|_| io::Error::other("the load panicked"))??;
        let (requests, failed) = (measured.requests, measured.failed);
        let what = format!("{times} restarts of the service behind {name}");
        report.figure(
            &what,
            &format!("{failed:.0} of {requests:.0} requests failed"),
        );
        rows.push(vec![
            name.to_owned(),
            times.to_string(),
            format!("{requests:.0}"),
            format!("{failed:.0}"),
        ]);
    }
    report.table(&["server", "restarts", "requests", "failed"], &rows);
    Ok(())
}

/// By how many microseconds each of those in front of the service, which is the last, makes the median longer.
fn added_latency(servers: &[Server], results: &[Medians]) -> Vec<Vec<String>> {
    let Some(alone) = results.last() else {
        return Vec::new();
    };
    let in_front = servers.iter().zip(results).take(servers.len() - 1);
    let rows = in_front.map(|(server, result)| {
        let added = (result.p50 - alone.p50) * 1e3;
        vec![server.name.to_owned(), format!("{added:.0} us")]
    });
    rows.collect()
}

/// What 10,000 idle clients cost with and without a service behind.
fn idle(report: &mut Report, upstream: SocketAddr) -> io::Result<()> {
    let clients = if common::quick() { 1_000 } else { 10_000 };
    common::descriptors::raise(clients + 600);
    let url = format!("--upstream=http://{upstream}");
    let mut rows = Vec::new();
    for (name, options) in [("without", &[][..]), ("with", &[url.as_str()][..])] {
        let server = Child::start(|address| plimsoll_command(options, address))?;
        let before = server.memory();
        let connections: Vec<_> = (0..clients)
            .map(|_| std::net::TcpStream::connect(server.address))
            .collect::<io::Result<_>>()?;
        // It has accepted them all once it answers one that came later.
        common::get(server.address, "/livez")?;
        let after = server.memory();
        let grown = after.zip(before).map(|(after, before)| after - before);
        let grown = grown.map_or("-".to_owned(), |kib| format!("{kib} KiB more resident"));
        let what = format!("{clients} idle clients, {name} --upstream");
        report.figure(&what, &grown);
        rows.push(vec![what, grown]);
        drop(connections);
    }
    report.table(&["what", "memory"], &rows);
    Ok(())
}

/// One worker process, with kept connections to the service.
fn start_nginx(upstream: SocketAddr) -> io::Result<Child> {
    common::peers::start_nginx_with(
        "nginx-proxy",
        &format!("upstream service {{ server {upstream}; keepalive 64; }}"),
        "proxy_pass http://service; proxy_http_version 1.1; proxy_set_header Connection '';",
    )
}

fn start_haproxy(upstream: SocketAddr) -> io::Result<Child> {
    common::peers::start_haproxy_with("haproxy-proxy", |address| {
        format!(
            " http-reuse always\nfrontend f\n bind {address}\n default_backend b\n\
             backend b\n server s {upstream}\n"
        )
    })
}

fn start_envoy(upstream: SocketAddr) -> io::Result<Child> {
    if !common::is_installed("envoy", "--version") {
        return Err(io::Error::other("it is not installed"));
    }
    let file = common::directory()?.join("envoy.yaml");
    Child::start(|address| {
        let socket = |of: SocketAddr| {
            format!(
                "{{ socket_address: {{ address: {}, port_value: {} }} }}",
                of.ip(),
                of.port()
            )
        };
        let (listener, service) = (socket(address), socket(upstream));
        let text = format!(
            r#"static_resources:
  listeners:
  - address: {listener}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - {{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: "/" }}, route: {{ cluster: service }} }}] }}
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: service
    type: STATIC
    load_assignment:
      cluster_name: service
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {service} }} }}] }}]
"#
        );
        if let Err(error) = fs::write(&file, text) {
            println!("cannot write {}: {error}", file.display());
        }
        let mut command = Command::new("envoy");
        command.args(["--concurrency", "1", "--log-level", "off", "-c"]);
        command.arg(&file);
        command
    })
}
