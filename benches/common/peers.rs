//! The server under test and those that it is compared with, as programs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use crate::common::{self, Child, target};

/// The binary that `make static` has left, or the usual release.
pub(crate) fn plimsoll_binary() -> PathBuf {
    let fixed = target().join("static/plimsoll");
    if fixed.exists() {
        fixed
    } else {
        env!("CARGO_BIN_EXE_plimsoll").into()
    }
}

/// Which binary that is, in words.
pub(crate) fn which_binary() -> String {
    let binary = plimsoll_binary();
    let kind = if binary.starts_with(target().join("static")) {
        "static binary"
    } else {
        "dynamic release binary (make static was not run)"
    };
    let size = fs::metadata(binary).map_or(0, |metadata| metadata.len());
    format!("plimsoll is the {kind}, {size} bytes.")
}

pub(crate) fn plimsoll_command(options: &[&str], address: SocketAddr) -> Command {
    let mut command = Command::new(plimsoll_binary());
    command.arg("--log-level=off").args(options);
    command.arg(format!("--listen={address}"));
    command
}

pub(crate) fn start_plimsoll(options: &[&str]) -> io::Result<Child> {
    Child::start(|address| plimsoll_command(options, address))
}

/// Cargo builds examples for tests, and not for benches.
pub(crate) fn build_pool() -> io::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or("cargo".into());
    let status = Command::new(cargo)
        // With the features of the benches, so that the crate is not built again for it.
        .args(["build", "--release", "--locked", "--quiet"])
        .args(["--features", "internals", "--example", "pool"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("CARGO_TARGET_DIR", target())
        .status()?;
    if !status.success() {
        return Err(io::Error::other(format!("cargo build: {status}")));
    }
    Ok(target().join("release/examples/pool"))
}

/// Builds the programs that the server is compared with, so that no bench waits for that. What cannot be built is told by
/// the bench that misses it.
pub(crate) fn build_all() {
    let _ = build_pool();
    let _ = common::build_go_peer();
}

pub(crate) fn start_pool(program: &Path) -> io::Result<Child> {
    Child::start(|address| {
        let mut command = Command::new(program);
        command.arg(address.to_string()).arg("4");
        command
    })
}

pub(crate) fn start_go(program: &Path) -> io::Result<Child> {
    Child::start(|address| {
        let mut command = Command::new(program);
        command.arg("-addr").arg(address.to_string());
        command
    })
}

/// nginx that refuses everything.
pub(crate) fn start_nginx() -> io::Result<Child> {
    start_nginx_with("nginx", "", "return 503 'refused\\n';")
}

/// nginx with a part of its configuration at the level of `http` and one for every location, in a directory of that
/// name. One worker process, as the event loop is one thread.
pub(crate) fn start_nginx_with(name: &str, http: &str, location: &str) -> io::Result<Child> {
    if !common::is_installed("nginx", "-v") {
        return Err(io::Error::other("nginx is not installed"));
    }
    let directory = common::directory()?.join(name);
    fs::create_dir_all(&directory)?;
    let at = directory.display();
    let child = Child::start(|address| {
        let text = format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/pid; error_log {at}/error.log crit;
             events {{ worker_connections 1024; }}
             http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {at}/body;
               proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi;
               scgi_temp_path {at}/scgi; {http}
               server {{ listen {address}; location / {{ {location} }} }} }}\n"
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

/// HAProxy with one thread and these sections behind the defaults, made for the address to listen on.
pub(crate) fn start_haproxy_with(
    name: &str,
    sections: impl Fn(SocketAddr) -> String,
) -> io::Result<Child> {
    if !common::is_installed("haproxy", "-v") {
        return Err(io::Error::other("HAProxy is not installed"));
    }
    let file = common::directory()?.join(name).with_extension("cfg");
    Child::start(|address| {
        let text = format!(
            "global\n nbthread 1\n maxconn 4000\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n{}",
            sections(address)
        );
        if let Err(error) = fs::write(&file, text) {
            println!("cannot write {}: {error}", file.display());
        }
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        command
    })
}
