//! What the benches over sockets share: other programs as children, and tables.
#![allow(dead_code)] // Each bench uses a part.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, io, thread};

/// How long a child may take until it accepts connections.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether the environment asks for a short run.
pub(crate) fn quick() -> bool {
    env::var_os("QUICK").is_some_and(|value| !value.is_empty() && value != "0")
}

/// Whether cargo runs this as a bench: `cargo test --benches` runs it too, and does not want minutes of load.
pub(crate) fn wanted() -> bool {
    let wanted = env::args().any(|argument| argument == "--bench");
    if !wanted {
        println!("a bench: run it with cargo bench");
    }
    wanted
}

/// The build directory.
pub(crate) fn target() -> &'static Path {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary)
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
    let program = target().join("bench").join("health-go");
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
}

impl Child {
    /// Starts `command`, made for an address that was free a moment ago, and waits until it accepts connections.
    pub(crate) fn start(make: impl Fn(SocketAddr) -> Command) -> io::Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let process = make(address)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let mut child = Self { process, address };
        let until = Instant::now() + START_TIMEOUT;
        while TcpStream::connect_timeout(&address, START_TIMEOUT).is_err() {
            if let Some(status) = child.process.try_wait()? {
                return Err(io::Error::other(format!("it ended at once: {status}")));
            }
            if Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(child)
    }

    /// Most memory that it has had resident, in KiB.
    pub(crate) fn peak_memory(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_ascii_whitespace().nth(1)?.parse().ok()
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

/// The middle value.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What is printed on the terminal and, the same in Markdown, written to a file.
pub(crate) struct Report {
    markdown: String,
}

impl Report {
    pub(crate) fn new(title: &str) -> Self {
        let mut report = Self {
            markdown: String::new(),
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

    /// Writes the Markdown to `target/bench/NAME.md`.
    pub(crate) fn save(&self, name: &str) -> io::Result<()> {
        let directory = target().join("bench");
        fs::create_dir_all(&directory)?;
        let file = directory.join(name).with_extension("md");
        fs::write(&file, &self.markdown)?;
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
