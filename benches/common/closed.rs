//! Clients over kept-alive connections that each ask again as soon as they have a reply: wrk where it is installed, and
//! the own generator where it is not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use std::{fs, io};

use super::load::{Arrivals, Outcome, generate_of};
use crate::common;

static WRK: LazyLock<bool> = LazyLock::new(|| common::is_installed("wrk", "--version"));

/// What is asked for, and how often.
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) path: &'a str,
    /// Bytes that each request carries; without any it is a GET.
    pub(crate) body: usize,
    pub(crate) connections: usize,
    pub(crate) seconds: u32,
}

/// What became of it.
pub(crate) struct Measured {
    pub(crate) requests: f64,
    /// Requests per second.
    pub(crate) rate: f64,
    /// The median latency, in milliseconds.
    pub(crate) p50: f64,
    /// The 99th percentile of latency, in milliseconds.
    pub(crate) p99: f64,
    /// Requests without a reply, or with one that is not a success.
    pub(crate) failed: f64,
}

/// What makes the load, in words.
pub(crate) fn generator() -> &'static str {
    if *WRK {
        "wrk with one thread"
    } else {
        "the own generator, one thread (wrk is not installed, and makes more load: apt install wrk)"
    }
}

impl<'a> Load<'a> {
    /// Requests without a body.
    pub(crate) fn get(
        address: SocketAddr,
        path: &'a str,
        connections: usize,
        seconds: u32,
    ) -> Self {
        Self {
            address,
            path,
            body: 0,
            connections,
            seconds,
        }
    }

    pub(crate) fn run(&self) -> io::Result<Measured> {
        if *WRK { self.run_wrk() } else { self.run_own() }
    }

    fn run_own(&self) -> io::Result<Measured> {
        let Self { path, body, .. } = self;
        let method = if *body == 0 { "GET" } else { "POST" };
        let head =
            format!("{method} {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {body}\r\n\r\n");
        let request = [head.into_bytes(), vec![b'x'; *body]].concat();
        let arrivals = Arrivals::Closed(self.connections);
        let length = Duration::from_secs(self.seconds.into());
        let samples = generate_of(request, self.address, arrivals, length, 0, Instant::now())?;
        let replies = samples
            .iter()
            .filter(|sample| matches!(sample.outcome, Outcome::Served | Outcome::Refused));
        let times = replies
            .map(|sample| (sample.done - sample.due) * 1e3)
            .collect::<Vec<_>>();
        let requests = times.len() as f64;
        let failed = samples
            .iter()
            .filter(|sample| sample.outcome != Outcome::Served);
        Ok(Measured {
            requests,
            rate: requests / length.as_secs_f64(),
            failed: failed.count() as f64,
            p50: common::percentile(times.clone(), 0.5),
            p99: common::percentile(times, 0.99),
        })
    }

    fn run_wrk(&self) -> io::Result<Measured> {
        let mut command = Command::new("wrk");
        command
            .args(["-t1", "--latency", "--timeout", "10s"])
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds));
        if self.body > 0 {
            command.arg("-s").arg(script(self.body)?);
        }
        let output = command
            .arg(format!("http://{}{}", self.address, self.path))
            .stdin(Stdio::null())
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse(&text).ok_or_else(|| io::Error::other(format!("wrk said: {text}")))
    }
}

/// A script for wrk that posts so many bytes.
fn script(body: usize) -> io::Result<PathBuf> {
    let directory = common::directory()?;
    let file = directory.join("post.lua");
    fs::write(
        &file,
        format!("wrk.method = 'POST'\nwrk.body = string.rep('x', {body})\n"),
    )?;
    Ok(file)
}

fn parse(text: &str) -> Option<Measured> {
    let after = |label: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim)
    };
    let numbers = |text: &str| -> f64 {
        let numbers = text
            .split([' ', ','])
            .filter_map(|word| word.parse::<f64>().ok());
        numbers.sum()
    };
    let requests = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in "))?;
    let failed = ["Non-2xx or 3xx responses:", "Socket errors:"]
        .map(|label| after(label).map_or(0.0, numbers));
    Some(Measured {
        requests: requests.0.parse().ok()?,
        rate: after("Requests/sec:")?.parse().ok()?,
        p50: milliseconds(after("50%")?)?,
        p99: milliseconds(after("99%")?)?,
        failed: failed.iter().sum(),
    })
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
