//! What the server takes before and beside its work: size, time to start, and memory. `QUICK=1` shortens it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::common::closed::{self, Load};
use crate::common::peers::{
    build_pool, plimsoll_binary, start_go, start_nginx, start_plimsoll, start_pool, which_binary,
};
use crate::common::plot::{Line, Panel, Picture, number};
use crate::common::{self, Child, Report, median};

/// How a server is started.
type Start = Box<dyn Fn() -> io::Result<Child>>;

pub(crate) fn run() -> io::Result<()> {
    let mut report = Report::new("Footprint");
    report.line(&common::machine());
    report.line(&format!(
        "{} The load is {}.",
        which_binary(),
        closed::generator()
    ));
    let size = fs::metadata(plimsoll_binary())?.len();
    report.figure(
        "size of the binary",
        &format!("{:.2} MiB", size as f64 / 1_048_576.0),
    );
    start_and_memory(&mut report)?;
    many_requests(&mut report)?;
    report.save("footprint")
}

fn servers(report: &mut Report) -> Vec<(&'static str, Start)> {
    let mut servers: Vec<(&'static str, Start)> =
        vec![("plimsoll", Box::new(|| start_plimsoll(&[])))];
    match build_pool() {
        Ok(program) => servers.push(("tiny_http pool", Box::new(move || start_pool(&program)))),
        Err(error) => report.line(&format!("No tiny_http pool: {error}.")),
    }
    match common::build_go_peer() {
        Ok(program) => servers.push(("Go", Box::new(move || start_go(&program)))),
        Err(why) => report.line(&format!("No Go program: {why}.")),
    }
    if common::is_installed("nginx", "-v") {
        servers.push(("nginx", Box::new(start_nginx)));
    }
    servers
}

/// From before the program is started until it accepts, and its memory then and under 256 busy connections.
fn start_and_memory(report: &mut Report) -> io::Result<()> {
    let (starts, seconds) = if common::quick() { (5, 1) } else { (20, 2) };
    report.heading(2, "Start and memory");
    let mut rows = Vec::new();
    for (name, start) in servers(report) {
        let (mut times, mut firsts) = (Vec::new(), Vec::new());
        for _ in 0..starts {
            let server = start()?;
            let accepted = Instant::now();
            common::get(server.address, "/")?;
            let first = server.started_in + accepted.elapsed();
            times.push(server.started_in.as_secs_f64() * 1e3);
            firsts.push(first.as_secs_f64() * 1e3);
        }
        let server = start()?;
        common::get(server.address, "/")?;
        let idle = server.memory();
        let load = Load::get(server.address, "/", 256, seconds);
        load.run()?;
        let started = format!("{:.1} ms", median(times));
        let first = format!("{:.1} ms", median(firsts));
        let row = [idle, server.peak_memory(), server.memory()].map(mebibytes);
        report.figure(&format!("start until it listens, {name}"), &started);
        report.figure(&format!("memory idle, {name}"), &row[0]);
        report.figure(
            &format!("memory at most with 256 busy connections, {name}"),
            &row[1],
        );
        rows.push([vec![name.to_owned(), started, first], row.to_vec()].concat());
    }
    report.line(&format!(
        "Start: medians of {starts}, from before exec until a connection is taken, and until the first reply is there."
    ));
    report.table(
        &[
            "server",
            "listens",
            "replies",
            "idle",
            "peak at 256 busy",
            "afterwards",
        ],
        &rows,
    );
    Ok(())
}

fn mebibytes(kib: Option<u64>) -> String {
    kib.map_or("-".to_owned(), |kib| {
        format!("{:.2} MiB", kib as f64 / 1024.0)
    })
}

/// Memory over many requests, which has to stay as it is.
fn many_requests(report: &mut Report) -> io::Result<()> {
    let (seconds, interval) = if common::quick() { (1, 200) } else { (12, 500) };
    report.heading(2, "Memory over many requests");
    let server = start_plimsoll(&[])?;
    let load = Load::get(server.address, "/", 64, seconds);
    let over = AtomicBool::new(false);
    let (measured, memory) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let begun = Instant::now();
            let mut memory = Vec::new();
            while !over.load(Relaxed) {
                let kib = server.memory().unwrap_or(0);
                memory.push((begun.elapsed().as_secs_f64(), kib as f64 / 1024.0));
                thread::sleep(Duration::from_millis(interval));
            }
            memory
        });
        let measured = load.run();
        over.store(true, Relaxed);
        (measured, watcher.join())
    });
    let measured = measured?;
    let memory = memory.map_err(|_| io::Error::other("a panic"))?;
    // The first look is before the first request.
    let Some((&(_, early), &(_, late))) = memory.get(1).zip(memory.last()) else {
        return Err(io::Error::other("the load was too short"));
    };
    let requests = number(measured.requests);
    let found = format!("{early:.2} MiB at {interval} ms, {late:.2} MiB after {requests} requests");
    report.line(&format!("64 connections: resident {found}."));
    report.figure("memory over many requests", &found);
    let picture = Picture {
        title: format!("Resident memory over {requests} requests, 64 connections"),
        x_label: "seconds",
        log_x: false,
        show_x: |seconds| format!("{seconds:.0}"),
        panels: vec![Panel {
            title: "resident, MiB".to_owned(),
            log_y: false,
            lines: vec![Line {
                name: String::new(),
                points: memory,
            }],
        }],
    };
    report.picture("footprint-memory", &picture)
}
