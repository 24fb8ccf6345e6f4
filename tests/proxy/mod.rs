//! The sidecar: what it forwards and what it relays, what it does about services that fail, hang or attack, and the real
//! ones that it stands in front of.

mod faults;
mod forwarding;
mod hostile;
mod options;
mod relaying;
mod restarts;
mod services;
mod streams;
mod timeouts;
mod tunnels;
mod waits;

use plimsoll::Server;
use plimsoll::proxy::{Proxy, ProxyConfig};

use crate::kit::quiet;

/// What a service answers that is well.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A sidecar with so many workers.
#[track_caller]
fn serve(config: ProxyConfig, workers: usize) -> Server {
    let proxy = Proxy::start(config).expect("it starts");
    let server = proxy.on(quiet(workers)).start();
    server.expect("the server starts")
}
