//! The queue of events beside what is mostly used to keep events on one host: redis with `appendfsync always`, and SQLite
//! with a WAL and `synchronous=FULL`. Each event is durable before its producer publishes the next. `QUICK=1` shortens it.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use plimsoll::patterns::{Event, EventQueue, EventSettings, Outcome};
use rusqlite::Connection;

use crate::common::{self, Child, Report, median};

/// Bytes of an event.
const SIZE: usize = 1024;

/// Producers at once.
const PRODUCERS: [usize; 2] = [1, 64];

/// Events that wait, where a backlog is measured.
const BACKLOG: usize = 100_000;

/// Tells this program to open a queue and to say what that took.
pub(crate) const OPEN: &str = "open-events";

pub(crate) fn run() -> io::Result<()> {
    let mut report = Report::new("Event processing");
    report.line(&common::machine());
    let with_redis = common::is_installed("redis-server", "--version");
    if !with_redis {
        report.line("No redis: install redis-server for the comparison with it.");
    }
    rates(&mut report, with_redis)?;
    backlog(&mut report, with_redis)?;
    report.save("events")
}

fn event() -> Event {
    Event {
        topic: "/events".to_owned(),
        body: vec![b'x'; SIZE],
        ..Event::default()
    }
}

fn settings(max_bytes: u64) -> EventSettings {
    let mut settings = EventSettings::default();
    settings.max_bytes = max_bytes;
    settings
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

/// A directory on the disk that the build is on, empty.
fn empty(name: &str) -> io::Result<PathBuf> {
    let path = common::directory()?.join("events").join(name);
    if path.exists() {
        fs::remove_dir_all(&path)?;
    }
    fs::create_dir_all(&path)?;
    Ok(path)
}

/// Bytes that were written to the device of a file system, by all that use it.
fn written(path: &Path) -> io::Result<u64> {
    let device = fs::metadata(path)?.dev();
    // See makedev(3).
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let statistics = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat"))?;
    // The seventh number is of sectors, which have 512 bytes whatever the device's own have.
    let sectors = statistics.split_ascii_whitespace().nth(6);
    let sectors = sectors.and_then(|sectors| sectors.parse::<u64>().ok());
    Ok(512 * sectors.ok_or_else(|| io::Error::other(statistics.clone()))?)
}

/// What one run found.
struct Run {
    /// Events a second.
    rate: f64,
    /// Bytes written to the device for each, if it tells.
    bytes: f64,
}

/// Has each producer publish until the time is over. `begin` gives each what it publishes with.
fn load<P: FnMut() -> io::Result<()> + Send>(
    producers: usize,
    begin: impl Fn() -> io::Result<P>,
) -> io::Result<Run> {
    let length = Duration::from_millis(if common::quick() { 300 } else { 1000 });
    let publishers = (0..producers).map(|_| begin());
    let publishers = publishers.collect::<io::Result<Vec<_>>>()?;
    // Not every file system has one device.
    let device = || written(&common::directory()?).map(|bytes| bytes as f64);
    let (before, start) = (device().unwrap_or(f64::NAN), Instant::now());
    let count = thread::scope(|scope| {
        let threads = publishers.into_iter().map(|mut publish| {
            scope.spawn(move || {
                let mut count = 0;
                while start.elapsed() < length {
                    publish()?;
                    count += 1;
                }
                io::Result::Ok(count)
            })
        });
        let threads: Vec<_> = threads.collect();
        let counts = threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| io::Error::other("a panic"))?);
        counts.sum::<io::Result<u64>>()
    })? as f64;
    let seconds = start.elapsed().as_secs_f64();
    Ok(Run {
        rate: count / seconds,
        bytes: (device().unwrap_or(f64::NAN) - before) / count,
    })
}

fn queue(producers: usize, delivers: bool) -> io::Result<Run> {
    let path = empty("queue")?;
    let queue = EventQueue::open(&path, settings(1 << 30)).map_err(failed)?;
    if delivers {
        queue.deliver(|_| Outcome::Delivered)?;
    }
    let event = event();
    load(producers, || {
        Ok(|| queue.publish(&event).map(drop).map_err(failed))
    })
}

fn start_redis(path: &Path) -> io::Result<Child> {
    let child = Child::start(|address| {
        let mut command = Command::new("redis-server");
        let port = address.port().to_string();
        command.args(["--bind", "127.0.0.1", "--port", &port, "--dir"]);
        command.arg(path);
        command.args(["--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", ""]);
        command
    })?;
    // It accepts connections while it still reads its file.
    let mut stream = TcpStream::connect(child.address)?;
    loop {
        stream.write_all(b"PING\r\n")?;
        let mut reply = [0; 256];
        let count = stream.read(&mut reply)?;
        if reply[..count].starts_with(b"+PONG") {
            return Ok(child);
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Appends to a list, and waits for the reply.
fn redis_producer(address: SocketAddr) -> io::Result<impl FnMut() -> io::Result<()> + Send> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let body = "x".repeat(SIZE);
    let command = format!("*3\r\n$5\r\nRPUSH\r\n$6\r\nevents\r\n${SIZE}\r\n{body}\r\n");
    Ok(move || {
        stream.write_all(command.as_bytes())?;
        let mut reply = [0; 64];
        let mut length = 0;
        while !reply[..length].ends_with(b"\r\n") {
            let count = stream.read(&mut reply[length..])?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            length += count;
        }
        if reply[0] == b':' {
            Ok(())
        } else {
            let reply = String::from_utf8_lossy(&reply[..length]);
            Err(io::Error::other(reply.into_owned()))
        }
    })
}

fn redis(producers: usize) -> io::Result<Run> {
    let server = start_redis(&empty("redis")?)?;
    load(producers, || redis_producer(server.address))
}

/// One connection that the producers share, as more of them only wait for each other's locks.
fn sqlite(producers: usize) -> io::Result<Run> {
    let path = empty("sqlite")?.join("events.db");
    let connection = Connection::open(path).map_err(failed)?;
    connection
        .execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;
             CREATE TABLE events (id INTEGER PRIMARY KEY, body BLOB);",
        )
        .map_err(failed)?;
    let connection = Mutex::new(connection);
    let body = vec![b'x'; SIZE];
    load(producers, || {
        Ok(|| {
            let connection = connection.lock().map_err(|_| io::Error::other("a panic"))?;
            let insert = "INSERT INTO events (body) VALUES (?1)";
            let mut insert = connection.prepare_cached(insert).map_err(failed)?;
            insert.execute([&body]).map(drop).map_err(failed)
        })
    })
}

/// What the disk itself does: blocks written and synced one by one, in a file that has its length.
fn disk() -> io::Result<Run> {
    const BLOCK: [u8; 4096] = [1; 4096];
    const BLOCKS: u64 = 4096;
    let file = fs::File::create(empty("disk")?.join("blocks"))?;
    for number in 0..BLOCKS {
        file.write_all_at(&BLOCK, number * 4096)?;
    }
    file.sync_all()?;
    load(1, || {
        let mut number = 0;
        let file = &file;
        Ok(move || {
            number = (number + 1) % BLOCKS;
            file.write_all_at(&BLOCK, number * 4096)?;
            file.sync_data()
        })
    })
}

type Subject = (&'static str, fn(usize) -> io::Result<Run>);

fn rates(report: &mut Report, with_redis: bool) -> io::Result<()> {
    let rounds = if common::quick() { 1 } else { 3 };
    let mut subjects: Vec<Subject> = vec![
        ("plimsoll", |producers| queue(producers, false)),
        ("plimsoll, delivering", |producers| queue(producers, true)),
        ("SQLite", sqlite),
    ];
    if with_redis {
        subjects.push(("redis", redis));
    }
    report.heading(2, "Events a second");
    report.line(&format!(
        "Events of {SIZE} bytes. Medians of {rounds} runs, in which all take turns. Bytes are those that were written to \
         the device, the least of all runs, since others may write to it too."
    ));
    let mut rows = Vec::new();
    for producers in PRODUCERS {
        let mut runs: Vec<Vec<Run>> = subjects.iter().map(|_| Vec::new()).collect();
        let mut alone = Vec::new();
        for _ in 0..rounds {
            for ((_, run), runs) in subjects.iter().zip(&mut runs) {
                runs.push(run(producers)?);
            }
            alone.push(disk()?);
        }
        let rates: Vec<Vec<f64>> = runs
            .iter()
            .map(|runs| runs.iter().map(|run| run.rate).collect())
            .collect();
        // The best of the others in each round, so that a slow moment of the machine hits both sides.
        let ratios = (0..rounds).map(|round| {
            let others = rates.iter().skip(2).map(|rates| rates[round]);
            rates[0][round] / others.fold(0.0, f64::max)
        });
        let ratio = median(ratios.collect());
        let what = format!("events to the best of redis and SQLite, {producers} producers");
        report.figure(&what, &format!("{ratio:.2}"));
        for ((name, _), runs) in subjects.iter().zip(&runs) {
            rows.push(row(name, producers, runs));
            let found = format!("{}/s", rows[rows.len() - 1][2]);
            report.figure(&format!("events, {name}, {producers} producers"), &found);
        }
        if producers == 1 {
            rows.push(row("fdatasync of a block", 1, &alone));
        }
    }
    report.table(&["", "producers", "events/s", "bytes an event"], &rows);
    Ok(())
}

fn row(name: &str, producers: usize, runs: &[Run]) -> Vec<String> {
    let rate = median(runs.iter().map(|run| run.rate).collect());
    let bytes = runs.iter().map(|run| run.bytes).fold(f64::NAN, f64::min);
    vec![
        name.to_owned(),
        producers.to_string(),
        format!("{rate:.0}"),
        format!("{bytes:.0}"),
    ]
}

/// Memory and start with many events that wait.
fn backlog(report: &mut Report, with_redis: bool) -> io::Result<()> {
    let count = if common::quick() {
        BACKLOG / 10
    } else {
        BACKLOG
    };
    let each = count / PRODUCERS[1];
    report.heading(2, &format!("{count} events wait"));
    let mut rows = Vec::new();

    let path = empty("backlog")?;
    let queue = EventQueue::open(&path, settings(512 << 20)).map_err(failed)?;
    let event = event();
    many(each, || {
        Ok(|| queue.publish(&event).map(drop).map_err(failed))
    })?;
    drop(queue);
    let output = Command::new(env::current_exe()?)
        .arg(OPEN)
        .arg(&path)
        .output()?;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    let (milliseconds, kib) = output
        .trim()
        .split_once(' ')
        .ok_or_else(|| io::Error::other(format!("the queue did not open: {output}")))?;
    rows.push(backlog_row("plimsoll", milliseconds, kib)?);

    if with_redis {
        let path = empty("redis")?;
        let server = start_redis(&path)?;
        many(each, || redis_producer(server.address))?;
        server.stop()?;
        let start = Instant::now();
        let server = start_redis(&path)?;
        let milliseconds = start.elapsed().as_millis().to_string();
        let kib = server.memory().unwrap_or(0).to_string();
        rows.push(backlog_row("redis", &milliseconds, &kib)?);
    }
    for row in &rows {
        report.figure(&format!("opens {count} events, {}", row[0]), &row[1]);
        report.figure(&format!("memory with {count} events, {}", row[0]), &row[2]);
    }
    report.table(&["", "opens in", "resident"], &rows);
    fs::remove_dir_all(common::directory()?.join("events"))
}

fn backlog_row(name: &str, milliseconds: &str, kib: &str) -> io::Result<Vec<String>> {
    let kib: f64 = kib.parse().map_err(failed)?;
    Ok(vec![
        name.to_owned(),
        format!("{milliseconds} ms"),
        format!("{:.1} MiB", kib / 1024.0),
    ])
}

/// Has many producers publish so many each.
fn many<P: FnMut() -> io::Result<()> + Send>(
    each: usize,
    begin: impl Fn() -> io::Result<P>,
) -> io::Result<()> {
    let publishers = (0..PRODUCERS[1]).map(|_| begin());
    let publishers = publishers.collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        let threads = publishers
            .into_iter()
            .map(|mut publish| scope.spawn(move || (0..each).try_for_each(|_| publish())));
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| io::Error::other("a panic"))?)
    })
}

/// Opens a queue, and prints how many milliseconds that took and how many KiB are resident then.
pub(crate) fn open(path: &str) -> io::Result<()> {
    let start = Instant::now();
    let queue = EventQueue::open(path, settings(512 << 20)).map_err(failed)?;
    let milliseconds = start.elapsed().as_millis();
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|line| line.split_ascii_whitespace().next());
    println!("{milliseconds} {}", kib.unwrap_or("?"));
    drop(queue);
    Ok(())
}
