//! A sidecar in front of a Python service: `plimsoll --upstream http://127.0.0.1:PORT`, as a program.
//!
//! ```sh
//! cargo run --example python_sidecar
//! ```
//!
//! It starts a service of Python's own, asks it through the sidecar, kills it, starts it again, shows what a client sees
//! of that, and ends.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use plimsoll::Server;
use plimsoll::patterns::{Deadline, DeadlineStream};
use plimsoll::proxy::{Proxy, ProxyConfig};

/// A service that answers `hello` to everything.
const SERVICE: &str = "
import http.server, sys
class Service(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header('Content-Length', '18')
        self.end_headers()
        self.wfile.write(b'hello from Python\\n')
    def log_message(self, *arguments):
        pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Service)
print(server.server_port, flush=True)
server.serve_forever()
";

/// The service's process, killed when dropped.
struct Python {
    process: Child,
    port: u16,
}

impl Python {
    /// Starts it, and returns when it listens. Port 0 is any that is free.
    fn start(port: u16) -> io::Result<Self> {
        let mut command = Command::new("python3");
        command
            .args(["-c", SERVICE, &port.to_string()])
            .stdout(Stdio::piped());
        let process = command.spawn().map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("python3 does not start (install Python 3): {error}"),
            )
        })?;
        let mut started = Self { process, port };
        let mut line = String::new();
        if let Some(output) = started.process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        started.port = line.trim().parse().map_err(io::Error::other)?;
        Ok(started)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Status and body.
fn get(address: SocketAddr, path: &str) -> io::Result<(String, String)> {
    let mut stream = DeadlineStream::connect(address, Deadline::after(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut reply = String::new();
    stream.take(64 * 1024).read_to_string(&mut reply)?;
    let (head, body) = reply
        .split_once("\r\n\r\n")
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((
        head.get(9..12).unwrap_or("?").to_owned(),
        body.trim_end().to_owned(),
    ))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let service = Python::start(0)?;
    let port = service.port;
    let proxy = Proxy::start(ProxyConfig::to([format!("http://127.0.0.1:{port}")]))?;
    let server = proxy
        .on(Server::builder().listen("127.0.0.1:0").workers(64))
        .start()?;
    let address = server.local_addr();
    let show = |path: &str| -> io::Result<()> {
        let (status, body) = get(address, path)?;
        println!("    GET {path:8} {status} {body}");
        Ok(())
    };
    let wait_for = |ready: &str| -> io::Result<()> {
        let end = Instant::now() + Duration::from_secs(60);
        while get(address, "/readyz")?.0 != ready {
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "/readyz is not {ready} within a minute"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    };

    println!(
        "A service in Python on port {port}, and a sidecar in front of it on http://{address}:"
    );
    wait_for("200")?;
    show("/")?;
    show("/readyz")?;

    println!(
        "The service dies. Two clients wait for retries; then the circuit breaker is open, and nobody waits:"
    );
    drop(service);
    for _ in 0..4 {
        show("/")?;
    }
    show("/readyz")?;

    println!("It is back. The sidecar finds out by itself, also while no client asks:");
    let _service = Python::start(port)?;
    wait_for("200")?;
    show("/")?;
    show("/readyz")?;
    Ok(())
}
