//! Requests per second over kept-alive connections, beside the peers: a plain `tiny_http` pool, the Go program of the
//! pattern, and nginx for what the frontend answers by itself.
//!
//! The load is wrk's. Runs alternate between the servers, so that a slow spell of the machine hits all of them, and
//! the median run of each counts. `QUICK=1` shortens it.

mod common;

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Child, Report, median, target};

fn main() -> io::Result<()> {
    if !common::wanted() {
        return Ok(());
    }
    if !common::is_installed("wrk", "--version") {
        println!("wrk is not installed: install wrk (apt install wrk) for throughput over sockets");
        return Ok(());
    }
    let (runs, length) = if common::quick() { (1, 1) } else { (5, 2) };
    let mut report = Report::new("Throughput over sockets");
    report.line(&common::machine());
    report.line(&format!(
        "wrk with one thread, kept-alive; medians of {runs} alternating runs of {length} s each."
    ));
    fs::create_dir_all(target().join("bench"))?;

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
    for connections in [1, 16, 64, 256] {
        let results = measure(&servers, connections, runs, length)?;
        rows.extend(rows_of(&servers, connections, &results));
    }
    let heads = [
        "connections",
        "server",
        "requests/s",
        "plimsoll's ratio",
        "p99",
        "peak memory",
    ];
    report.table(&heads, &rows);
    drop(servers);

    report.heading(2, "Answers of the frontend: health and refusals");
    let refusing = start_plimsoll(&["--gate=literal", "--threshold=1us", "--cooldown=60m"])?;
    // The first reply's time trips it, and from then on every request is refused.
    common::get(refusing.address, "/")?;
    let mut servers = vec![
        Server::new("plimsoll /health", start_plimsoll(&[])?, "/health"),
        Server::new("plimsoll 503", refusing, "/"),
    ];
    if let Ok(program) = &go {
        servers.push(Server::new("Go /health", start_go(program)?, "/health"));
    }
    match start_nginx() {
        Ok(child) => servers.push(Server::new("nginx 503", child, "/")),
        Err(error) => report.line(&format!("No nginx: {error}.")),
    }
    let results = measure(&servers, 64, runs, length)?;
    report.table(&heads, &rows_of(&servers, 64, &results));
    report.save("sockets")
}

/// A server under load.
struct Server {
    name: &'static str,
    child: Child,
    path: &'static str,
}

impl Server {
    fn new(name: &'static str, child: Child, path: &'static str) -> Self {
        Self { name, child, path }
    }
}

fn start_plimsoll(options: &[&str]) -> io::Result<Child> {
    Child::start(|address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        command.arg("--log-level=off").args(options);
        command.arg(format!("--listen={address}"));
        command
    })
}

/// Cargo builds examples for tests, and not for benches.
fn build_pool() -> io::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--example", "pool"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cargo build: {status}")));
    }
    Ok(target().join("release/examples/pool"))
}

fn start_pool(program: &Path) -> io::Result<Child> {
    Child::start(|address| {
        let mut command = Command::new(program);
        command.arg(address.to_string()).arg("4");
        command
    })
}

fn start_go(program: &Path) -> io::Result<Child> {
    Child::start(|address| {
        let mut command = Command::new(program);
        command.arg("-addr").arg(address.to_string());
        command
    })
}

/// One worker process, as the frontend is one thread.
fn start_nginx() -> io::Result<Child> {
    if !common::is_installed("nginx", "-v") {
        return Err(io::Error::other("nginx is not installed"));
    }
    let directory = target().join("bench").join("nginx");
    fs::create_dir_all(&directory)?;
    let at = directory.display();
    let child = Child::start(|address| {
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log crit;
             events {{ worker_connections 1024; }}
             http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {at}/body;
               proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi;
               scgi_temp_path {at}/scgi;
               server {{ listen {address}; location / {{ return 503 'refused\\n'; }} }} }}\n"
        );
        let configuration = directory.join("nginx.conf");
        let mut command = Command::new("nginx");
        if let Err(error) = fs::write(&configuration, text) {
            println!("cannot write {}: {error}", configuration.display());
        }
        command.arg("-e").arg(directory.join("error.log"));
        command.arg("-c").arg(configuration);
        command
    })?;
    Ok(child)
}

/// What a server did in the median run.
struct Result {
    rate: f64,
    p99: f64,
}

fn measure(
    servers: &[Server],
    connections: u32,
    runs: usize,
    length: u32,
) -> io::Result<Vec<Result>> {
    let mut samples: Vec<Vec<(f64, f64)>> = servers.iter().map(|_| Vec::new()).collect();
    for run in 0..runs {
        for step in 0..servers.len() {
            // Nobody is always the first.
            let number = (run + step) % servers.len();
            let sample = wrk(&servers[number], connections, length)?;
            samples[number].push(sample);
        }
    }
    let medians = samples.into_iter().map(|samples| Result {
        rate: median(samples.iter().map(|&(rate, _)| rate).collect()),
        p99: median(samples.iter().map(|&(_, p99)| p99).collect()),
    });
    Ok(medians.collect())
}

/// One run: requests per second, and the 99th percentile of latency in milliseconds.
fn wrk(server: &Server, connections: u32, length: u32) -> io::Result<(f64, f64)> {
    let output = Command::new("wrk")
        .args(["-t1", "--latency", "--timeout", "10s"])
        .arg(format!("-c{connections}"))
        .arg(format!("-d{length}s"))
        .arg(format!("http://{}{}", server.child.address, server.path))
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let after = |label: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim)
    };
    let rate = after("Requests/sec:").and_then(|rate| rate.parse().ok());
    let p99 = after("99%").and_then(milliseconds);
    rate.zip(p99)
        .ok_or_else(|| io::Error::other(format!("wrk said of {}: {text}", server.name)))
}

fn milliseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(char::is_alphabetic);
    let factor = match &text[number.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        "m" => 6e4,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

fn rows_of(servers: &[Server], connections: u32, results: &[Result]) -> Vec<Vec<String>> {
    let first = results[0].rate;
    let rows = servers.iter().zip(results).map(|(server, result)| {
        let memory = server.child.peak_memory();
        vec![
            connections.to_string(),
            server.name.to_owned(),
            format!("{:.0}", result.rate),
            format!("{:.2}", first / result.rate),
            format!("{:.2} ms", result.p99),
            memory.map_or("-".to_owned(), |kib| format!("{kib} KiB")),
        ]
    });
    rows.collect()
}
