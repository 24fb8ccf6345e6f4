//! What the benches share: loads, other programs as children, tables and plots.

pub(crate) mod closed;
pub(crate) mod descriptors;
pub(crate) mod inputs;
pub(crate) mod load;
pub(crate) mod peers;
pub(crate) mod plot;
pub(crate) mod responder;
pub(crate) mod rounds;
pub(crate) mod service;
pub(crate) mod timing;

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

/// How long a child may take until it accepts connections, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The extension of files with a bench's lines of the summary: what, a tab, and what was found.
pub(crate) const FIGURES: &str = "figures";

/// Whether the environment asks for a short run.
pub(crate) fn quick() -> bool {
    env::var_os("QUICK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// The build directory.
pub(crate) fn target() -> &'static Path {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary)
}

/// Where results go: `target/bench`, which exists then.
pub(crate) fn directory() -> io::Result<PathBuf> {
    let directory = target().join("bench");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Whether a program answers to `argument`, such as `--version`.
pub(crate) fn is_installed(program: &str, argument: &str) -> bool {
    let silent = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    silent.is_ok()
}

/// Builds the Go program of the pattern.
///
/// # Errors
/// Why there is none, in words for the reader.
pub(crate) fn build_go_peer() -> Result<PathBuf, String> {
    if !is_installed("go", "version") {
        return Err(
            "go is not installed: install Go (golang-go) for the comparison with it".into(),
        );
    }
    let program = target().join("bench/health-go");
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers"))
        .status();
    match built {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("go build failed: {status}")),
        Err(error) => Err(format!("go build failed: {error}")),
    }
}

/// A program that serves until this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
    /// From just before it was started until it accepted a connection.
    pub(crate) started_in: Duration,
}

impl Child {
    /// Starts `command`, made for an address that was free a moment ago, and waits until it accepts connections.
    pub(crate) fn start(make: impl Fn(SocketAddr) -> Command) -> io::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        Self::start_at(address, make)
    }

    /// The same at that address.
    pub(crate) fn start_at(
        address: SocketAddr,
        make: impl Fn(SocketAddr) -> Command,
    ) -> io::Result<Self> {
        let begun = Instant::now();
        let process = make(address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut child = Self {
            process,
            address,
            started_in: Duration::ZERO,
        };
        let until = begun + PATIENCE;
        while TcpStream::connect_timeout(&address, PATIENCE).is_err() {
            if let Some(status) = child.process.try_wait()? {
                return Err(io::Error::other(format!("it ended at once: {status}")));
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_micros(100));
        }
        child.started_in = begun.elapsed();
        Ok(child)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn stop(mut self) -> io::Result<ExitStatus> {
        let id = self.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Most memory that it has had resident, in KiB.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        self.status("VmHWM:")
    }

    /// Memory that it has resident, in KiB.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.status("VmRSS:")
    }

    fn status(&self, label: &str) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(label))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    }

    /// Seconds of processor time that it has used, in hundredths.
    pub(crate) fn processor_time(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).ok()?;
        // The name before it may have spaces and brackets. Then come the state, ten numbers, and the two times.
        let (_, fields) = stat.rsplit_once(") ")?;
        let times = fields.split(' ').skip(11).take(2);
        let ticks: Option<f64> = times.map(|ticks| ticks.parse::<f64>().ok()).sum();
        Some(ticks? / 100.0)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone after this.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request on a connection of its own; the status code.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<u16> {
    let timeout = Duration::from_secs(5);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut reply = [0; 12];
    stream.read_exact(&mut reply)?;
    let code = str::from_utf8(&reply[9..]).unwrap_or_default();
    code.parse()
        .map_err(|_| io::Error::other("no status line came"))
}

/// The value below which the part `p` of all lies; not a number when there are none.
pub(crate) fn percentile(mut values: Vec<f64>, p: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // p is from 0 to 1.
    let rank = (values.len() as f64 * p).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// The middle value.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What is printed on the terminal and, the same in Markdown, written to a file.
pub(crate) struct Report {
    markdown: String,
    figures: String,
}

impl Report {
    pub(crate) fn new(title: &str) -> Self {
        let mut report = Self {
            markdown: String::new(),
            figures: String::new(),
        };
        report.heading(1, title);
        report
    }

    pub(crate) fn heading(&mut self, level: usize, text: &str) {
        println!("\n{text}\n");
        let _ = writeln!(self.markdown, "{} {text}\n", "#".repeat(level));
    }

    pub(crate) fn line(&mut self, text: &str) {
        println!("{text}");
        let _ = writeln!(self.markdown, "{text}\n");
    }

    /// A table, its first column to the left and the others to the right.
    pub(crate) fn table(&mut self, heads: &[&str], rows: &[Vec<String>]) {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            let widths = cells.map(|cell| cell.chars().count());
            widths.max().unwrap_or(0).max(heads[column].chars().count())
        };
        let widths: Vec<usize> = (0..heads.len()).map(width).collect();
        let mut print = |cells: &[&str]| {
            let mut text = String::new();
            let mut markdown = String::from("|");
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                if column == 0 {
                    let _ = write!(text, "{cell:width$}");
                } else {
                    let _ = write!(text, "  {cell:>width$}");
                }
                let _ = write!(markdown, " {cell} |");
            }
            println!("{}", text.trim_end());
            let _ = writeln!(self.markdown, "{markdown}");
        };
        print(heads);
        let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
        print(&rule.iter().map(String::as_str).collect::<Vec<_>>());
        for row in rows {
            print(&row.iter().map(String::as_str).collect::<Vec<_>>());
        }
        println!();
        self.markdown.push('\n');
    }

    /// A line of the summary of all benches.
    pub(crate) fn figure(&mut self, what: &str, found: &str) {
        let _ = writeln!(self.figures, "{what}\t{found}");
    }

    /// Draws a picture, into `target/bench/NAME.svg`.
    pub(crate) fn picture(&mut self, name: &str, picture: &plot::Picture) -> io::Result<()> {
        let file = directory()?.join(name).with_extension("svg");
        fs::write(&file, picture.svg())?;
        println!("drawn in {}\n", file.display());
        let _ = writeln!(self.markdown, "![{}]({name}.svg)\n", picture.title);
        Ok(())
    }

    /// Writes the Markdown to `target/bench/NAME.md`, and the lines for the summary beside it.
    pub(crate) fn save(&self, name: &str) -> io::Result<()> {
        let file = directory()?.join(name).with_extension("md");
        fs::write(&file, &self.markdown)?;
        fs::write(file.with_extension(FIGURES), &self.figures)?;
        println!("written to {}", file.display());
        Ok(())
    }
}

/// The machine, in a line.
pub(crate) fn machine() -> String {
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, name)| name)
        .to_owned();
    let today = httpdate::fmt_http_date(std::time::SystemTime::now());
    format!(
        "{model}, {cores} cores, Linux {}, {today}; the load generator shares the machine.",
        kernel.trim()
    )
}
