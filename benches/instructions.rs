//! Instructions for a request, counted by `valgrind --tool=callgrind`: they are the same however busy the machine is.
//!
//! This program runs itself under callgrind with two numbers of repetitions; the difference is that of the
//! repetitions alone, without what starting costs. The parts repeat to an instruction or so. The whole server has
//! threads that meet by chance, so its count varies by some parts in a thousand: the median of some runs is told.

use std::ffi::{OsStr, OsString};
use std::hint::black_box;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;
use std::{env, fs};

use crate::common::inputs::{BROWSER, GET, POST, POST_BODY, REPLY};
use crate::common::peers::plimsoll_command;
use crate::common::{self, Child, Report, median};
use plimsoll::Ewma;
use plimsoll::internals::{Conversation, decode_chunked, parse_head};

/// Tells this program which part to run, and how often.
pub(crate) const REPEAT: &str = "repeat";

/// The part that a quick run counts.
const QUICK: &str = "a GET through the connection machine, with its reply";

/// One repetition of a part: whether it went as it must.
type Step = Box<dyn FnMut() -> bool>;

pub(crate) fn run() -> io::Result<()> {
    let mut report = Report::new("Instructions");
    report.line(&common::machine());
    if common::is_installed("valgrind", "--version") {
        common::directory()?;
        count_parts(&mut report)?;
        whole(&mut report)?;
    } else {
        report.line("Not counted: valgrind is not installed (apt install valgrind).");
    }
    report.save("instructions")
}

/// The parts by their names.
fn parts() -> Vec<(&'static str, Step)> {
    fn part(name: &str, step: impl FnMut() -> bool + 'static) -> (&str, Step) {
        (name, Box::new(step))
    }
    let serve = |request: Vec<u8>| {
        let mut conversation = Conversation::new();
        move || conversation.serve(black_box(&request), REPLY) == 1
    };
    let chunk = format!("400\r\n{}\r\n", "x".repeat(1024));
    let chunked = chunk.repeat(16) + "0\r\n\r\n";
    let average = Ewma::new(30);
    vec![
        part("a head judged and rewritten: GET", || {
            parse_head(black_box(GET)).is_some()
        }),
        part("a head judged and rewritten: a browser's", || {
            parse_head(black_box(BROWSER)).is_some()
        }),
        part("a head judged and rewritten: POST", || {
            parse_head(black_box(POST)).is_some()
        }),
        part(QUICK, serve(GET.to_vec())),
        part("a browser's GET through it", serve(BROWSER.to_vec())),
        part(
            "a POST with a body of 27 bytes through it",
            serve([POST, POST_BODY].concat()),
        ),
        part("a chunked body of 16 KiB in chunks of 1 KiB", move || {
            decode_chunked(black_box(chunked.as_bytes())).is_some()
        }),
        part("a sample added to the average", move || {
            average.add(black_box(0.5));
            true
        }),
    ]
}

fn count_parts(report: &mut Report) -> io::Result<()> {
    let mut rows = Vec::new();
    for (part, _) in parts() {
        if common::quick() && part != QUICK {
            continue;
        }
        let count = difference([1_000, 11_000], |times| count_part(part, times))?;
        report.figure(&format!("instructions: {part}"), &format!("{count:.1}"));
        rows.push(vec![part.to_owned(), format!("{count:.1}")]);
    }
    report.table(&["part", "instructions"], &rows);
    Ok(())
}

fn whole(report: &mut Report) -> io::Result<()> {
    let runs = if common::quick() { 1 } else { 3 };
    let mut rows = Vec::new();
    let all = [("GET /", "/"), ("GET /livez", "/livez")];
    let requests = if common::quick() { &all[..1] } else { &all };
    for &(what, path) in requests {
        let mut counts = Vec::new();
        for _ in 0..runs {
            counts.push(difference([500, 4_500], |times| count_whole(path, times))?);
        }
        let low = counts.iter().copied().fold(f64::INFINITY, f64::min);
        let high = counts.iter().copied().fold(0.0, f64::max);
        let count = median(counts);
        report.figure(
            &format!("instructions: {what} by the whole server"),
            &format!("{count:.0}"),
        );
        rows.push(vec![
            format!("{what} by the whole server, one connection"),
            format!("{count:.0}"),
            format!("{low:.0} to {high:.0}"),
        ]);
    }
    report.line(&format!("Of the whole server, user space only: the median of {runs}, and from the least to the most."));
    report.table(&["request", "instructions", "range"], &rows);
    Ok(())
}

/// What one more repetition takes.
fn difference(times: [u32; 2], count: impl Fn(u32) -> io::Result<f64>) -> io::Result<f64> {
    let [few, many] = times;
    Ok((count(many)? - count(few)?) / f64::from(many - few))
}

/// This program under callgrind.
fn count_part(part: &str, times: u32) -> io::Result<f64> {
    let status = callgrind(env::current_exe()?)
        .args([REPEAT, part, &times.to_string()])
        .status()?;
    collected(status)
}

/// The server under callgrind, for as long as it serves so many requests of one connection.
fn count_whole(path: &str, times: u32) -> io::Result<f64> {
    let server = Child::start(|address| {
        let binary = plimsoll_command(&["--drain=10ms"], address);
        let mut command = callgrind(binary.get_program());
        command.args(binary.get_args());
        command
    })?;
    let mut stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n");
    let mut reply = [0; 4096];
    for _ in 0..times {
        stream.write_all(request.as_bytes())?;
        // The reply is far smaller than that, and comes in one write.
        if stream.read(&mut reply)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    drop(stream);
    collected(server.stop()?)
}

/// `program` under callgrind, which writes its count to [`log`].
fn callgrind(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("valgrind");
    let mut log_file = OsString::from("--log-file=");
    log_file.push(log());
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(log_file)
        .arg(program)
        .stdin(Stdio::null());
    command
}

fn log() -> PathBuf {
    common::target().join("bench/callgrind.log")
}

/// The count that callgrind has written at its end.
fn collected(status: ExitStatus) -> io::Result<f64> {
    let text = fs::read_to_string(log())?;
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let count = count.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| io::Error::other(format!("{status}; valgrind said: {text}")))
}

/// One of the parts, over and over.
pub(crate) fn repeat(part: &str, times: u32) -> io::Result<()> {
    let mut steps = parts().into_iter();
    let Some((_, mut step)) = steps.find(|(name, _)| *name == part) else {
        return Err(io::Error::other(format!("no such part: {part}")));
    };
    if (0..times).all(|_| step()) {
        Ok(())
    } else {
        Err(io::Error::other(format!("refused: {part}")))
    }
}
