//! How the cost of a request grows: with connections, idle ones beside, the sizes of bodies and replies, and workers.
//!
//! The cost is the server's processor time for a request, from `/proc`: what a slow spell of the machine, or a load
//! generator that is slow itself, changes least. `QUICK=1` takes fewer points and shorter runs.

use std::env;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use crate::common::closed::{self, Load};
use crate::common::peers::{start_plimsoll, which_binary};
use crate::common::plot::{Line, Panel, Picture, number, size};
use crate::common::{self, Child, Report};
use plimsoll::{Request, Response, Server};

/// Tells this program to be the server at an address whose replies have the size that the path says.
pub(crate) const SERVE: &str = "serve";

/// Sizes of bodies and of replies.
const SIZES: [usize; 7] = [0, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20];

/// The largest reply.
const MOST: usize = 10 << 20;

/// Descriptors beyond those of idle connections, in either process.
const SPARE: usize = 600;

pub(crate) fn run() -> io::Result<()> {
    common::descriptors::raise(10_000 + SPARE);
    let mut report = Report::new("Scaling");
    report.line(&common::machine());
    let load = closed::generator();
    let seconds = seconds();
    report.line(&format!(
        "{} The load is {load}, kept-alive, {seconds} s for each point. The cost is the server's processor time.",
        which_binary()
    ));
    connections(&mut report)?;
    idle(&mut report)?;
    if !common::quick() {
        bodies(&mut report)?;
        replies(&mut report)?;
        workers(&mut report)?;
    }
    report.save("scaling")
}

/// How long each point is measured.
fn seconds() -> u32 {
    if common::quick() { 1 } else { 2 }
}

/// All of the points, or the first and the last for a quick look.
fn points(all: &[usize]) -> Vec<usize> {
    match all {
        [first, .., last] if common::quick() => vec![*first, *last],
        _ => all.to_vec(),
    }
}

/// What was measured at one value of x.
struct Point {
    x: f64,
    /// Microseconds of the server's processor time for each request.
    cost: f64,
    rate: f64,
    p99: f64,
    failed: f64,
}

fn measure(server: &Child, x: usize, load: &Load) -> io::Result<Point> {
    let unknown = || io::Error::other("the server's processor time can't be read");
    let before = server.processor_time().ok_or_else(unknown)?;
    let measured = load.run()?;
    let after = server.processor_time().ok_or_else(unknown)?;
    Ok(Point {
        x: x as f64,
        cost: (after - before) * 1e6 / measured.requests.max(1.0),
        rate: measured.rate,
        p99: measured.p99,
        failed: measured.failed,
    })
}

/// A line of the curves, and its points.
type Curve = (&'static str, Vec<Point>);

/// The table and the picture of curves, and the ends of the first for the summary.
fn show(
    report: &mut Report,
    name: &str,
    title: &str,
    x_label: &str,
    show_x: fn(f64) -> String,
    curves: &[Curve],
) -> io::Result<()> {
    report.heading(2, title);
    let mut rows = Vec::new();
    for (name, points) in curves {
        rows.extend(points.iter().map(|point| {
            let mut row = vec![
                show_x(point.x),
                format!("{:.1} us", point.cost),
                format!("{:.0}", point.rate),
                format!("{:.2} ms", point.p99),
                format!("{}", point.failed),
            ];
            if curves.len() > 1 {
                row.insert(1, (*name).to_owned());
            }
            row
        }));
    }
    let mut heads = vec![x_label, "cost", "requests/s", "p99", "failed"];
    if curves.len() > 1 {
        heads.insert(1, "handler");
    }
    report.table(&heads, &rows);
    let panel = |title: &str, log_y, value: fn(&Point) -> f64| Panel {
        title: title.to_owned(),
        log_y,
        lines: curves
            .iter()
            .map(|(name, points)| Line {
                name: (*name).to_owned(),
                points: points.iter().map(|point| (point.x, value(point))).collect(),
            })
            .collect(),
    };
    let costs = curves
        .iter()
        .flat_map(|(_, points)| points.iter().map(|point| point.cost));
    let wide = costs.clone().fold(0.0, f64::max) > 20.0 * costs.fold(f64::INFINITY, f64::min);
    let picture = Picture {
        title: title.to_owned(),
        x_label,
        log_x: true,
        show_x,
        panels: vec![
            panel("processor time for a request, us", wide, |point| point.cost),
            panel("requests/s", wide, |point| point.rate),
            panel("p99, ms", true, |point| point.p99),
        ],
    };
    report.picture(&format!("scaling-{name}"), &picture)?;
    let ends = curves
        .first()
        .and_then(|(_, points)| points.first().zip(points.last()));
    if let Some((first, last)) = ends {
        let (from, to) = (show_x(first.x), show_x(last.x));
        let found = format!("{:.1} to {:.1} us", first.cost, last.cost);
        report.figure(
            &format!("processor time for a request, {x_label} {from} to {to}"),
            &found,
        );
    }
    Ok(())
}

fn connections(report: &mut Report) -> io::Result<()> {
    let server = start_plimsoll(&[])?;
    let mut curve = Vec::new();
    for connections in points(&[1, 2, 4, 8, 16, 64, 256, 512, 1000]) {
        let load = Load::get(server.address, "/", connections, seconds());
        curve.push(measure(&server, connections, &load)?);
    }
    show(
        report,
        "connections",
        "Busy connections",
        "connections",
        number,
        &[("", curve)],
    )
}

/// Idle connections beside 64 busy ones, each of which has had its reply.
fn idle(report: &mut Report) -> io::Result<()> {
    let server = start_plimsoll(&["--idle-timeout=10m"])?;
    let memory = || server.memory().unwrap_or(0) as f64 * 1024.0;
    let most = common::descriptors::limits().0.saturating_sub(SPARE);
    let mut open = Vec::new();
    let mut curve = Vec::new();
    let mut held = Vec::new();
    let mut before = 0.0;
    for wanted in points(&[0, 100, 1000, 3000, 10_000]) {
        if wanted > most {
            report.line(&format!(
                "Not more than {most} idle connections: the limit of descriptors."
            ));
            continue;
        }
        while open.len() < wanted {
            open.push(used_connection(server.address)?);
        }
        if wanted > 0 {
            held.push((wanted as f64, (memory() - before) / wanted as f64));
        }
        let load = Load::get(server.address, "/", 64, seconds());
        curve.push(measure(&server, wanted, &load)?);
        if wanted == 0 {
            before = memory();
        }
    }
    show(
        report,
        "idle",
        "Idle connections beside 64 busy ones",
        "idle connections",
        number,
        &[("", curve)],
    )?;
    let rows = held
        .iter()
        .map(|(count, bytes)| vec![number(*count), format!("{bytes:.0} bytes")]);
    report.table(
        &["idle connections", "resident for each"],
        &rows.collect::<Vec<_>>(),
    );
    if let Some((count, bytes)) = held.last() {
        let what = format!("resident for each of {} idle connections", number(*count));
        report.figure(&what, &format!("{bytes:.0} bytes"));
    }
    Ok(())
}

/// A connection that has served a request and is kept alive.
fn used_connection(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    // The reply is far smaller than that, and comes in one write.
    let count = stream.read(&mut [0; 4096])?;
    if count == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(stream)
}

fn bodies(report: &mut Report) -> io::Result<()> {
    let server = start_plimsoll(&[])?;
    let mut curve = Vec::new();
    for body in points(&SIZES) {
        let load = Load {
            body,
            ..Load::get(server.address, "/", 16, seconds())
        };
        curve.push(measure(&server, body, &load)?);
    }
    show(
        report,
        "bodies",
        "Bodies of requests, 16 connections",
        "body",
        size,
        &[("", curve)],
    )
}

fn replies(report: &mut Report) -> io::Result<()> {
    let server = Child::start(|address| {
        let program = env::current_exe().unwrap_or_default();
        let mut command = Command::new(program);
        command.args([SERVE, &address.to_string()]);
        command
    })?;
    let mut curve = Vec::new();
    for reply in points(&[&SIZES[..], &[MOST]].concat()) {
        let path = &format!("/{reply}");
        let load = Load::get(server.address, path, 16, seconds());
        curve.push(measure(&server, reply, &load)?);
    }
    show(
        report,
        "replies",
        "Replies, 16 connections",
        "reply",
        size,
        &[("", curve)],
    )
}

/// Replies with as many bytes as the path says, from memory that is there already.
pub(crate) fn serve(address: &str) -> io::Result<()> {
    static BYTES: [u8; MOST] = [b'x'; MOST];
    let server = Server::builder()
        .listen(address)
        .handler(|request: &mut Request| {
            let wanted = request.path().trim_start_matches('/').parse().unwrap_or(0);
            Response::new(200, &BYTES[..MOST.min(wanted)])
        })
        .start()
        .map_err(io::Error::other)?;
    server.run_until_signal().map_err(io::Error::other)
}

fn workers(report: &mut Report) -> io::Result<()> {
    let mut curves = Vec::new();
    let all: [(_, _, &[usize]); 2] = [
        ("no work", "--work=0", &[1, 2, 4, 8, 16, 32, 64]),
        ("1 ms", "--work=1ms", &[1, 4, 16, 64]),
    ];
    for (name, work, numbers) in all {
        let mut curve = Vec::new();
        for &workers in numbers {
            // With that budget nobody is refused: what is wanted here is the cost of those served.
            let workers_option = format!("--workers={workers}");
            let server = start_plimsoll(&[&workers_option, work, "--queue-budget=10s"])?;
            let load = Load::get(server.address, "/", 64, seconds());
            curve.push(measure(&server, workers, &load)?);
        }
        curves.push((name, curve));
    }
    show(
        report,
        "workers",
        "Workers, 64 connections",
        "workers",
        number,
        &curves,
    )
}
