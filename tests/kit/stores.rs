//! Real data stores beside a test: each on a port of its own on loopback, with its files in a directory of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use plimsoll::{Check, CheckError, Store};

use super::process::{self, Process, TempDir, find};
use super::{PATIENCE, Reserved};

/// A store that can be started, stopped, paused and started again on the same port.
pub(crate) struct Service {
    command: Command,
    directory: TempDir,
    port: Reserved,
    /// What makes it end at once and leave nothing behind.
    stop: &'static str,
    process: Option<Process>,
}

impl Service {
    fn new(command: Command, directory: TempDir, port: Reserved, stop: &'static str) -> Self {
        Self {
            command,
            directory,
            port,
            stop,
            process: None,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.port()
    }

    #[track_caller]
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        self.process = Some(Process::start(&mut self.command, self.directory.path()));
    }

    /// Starts it, and waits until the store there that a URL names serves.
    #[track_caller]
    pub(crate) fn serve(&mut self, url: &str) {
        self.start();
        self.wait_until_up(&self.store(url));
    }

    /// Ends it.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        signal(&process, self.stop);
        let deadline = Instant::now() + PATIENCE;
        while !process.has_ended() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }

    /// Makes it hang: the system still accepts connections for it.
    #[track_caller]
    pub(crate) fn pause(&self) {
        signal(self.process.as_ref().expect("it runs"), "STOP");
    }

    #[track_caller]
    pub(crate) fn resume(&self) {
        signal(self.process.as_ref().expect("it runs"), "CONT");
    }

    /// The store at this service that a URL names, with `HOST` for its host and port.
    #[track_caller]
    pub(crate) fn store(&self, url: &str) -> Store {
        let host = self.port.address.to_string();
        url.replace("HOST", &host).parse().expect("a good URL")
    }

    /// What the service has printed.
    fn output(&self) -> String {
        let output = fs::read(self.directory.path().join("output")).unwrap_or_default();
        String::from_utf8_lossy(&output).into_owned()
    }

    /// Waits until the store serves; starts a program again that ended since what was left of the last one was in its
    /// way.
    #[track_caller]
    pub(crate) fn wait_until_up(&mut self, store: &Store) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.process.as_mut().is_some_and(Process::has_ended) {
                self.process = None;
                self.start();
            }
            let Err(error) = store.check(Instant::now() + PATIENCE) else {
                return;
            };
            assert!(
                Instant::now() < deadline,
                "{store}: {error}\n{}",
                self.output()
            );
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            // A program that hangs does not see the other signal.
            signal(process, "CONT");
        }
        self.kill();
    }
}

/// Why a store fails.
#[track_caller]
pub(crate) fn failure(store: &Store) -> String {
    let failed: Result<(), CheckError> = store.check(Instant::now() + PATIENCE);
    failed.expect_err("a failure").to_string()
}

/// Whether an error tells of a deadline; on a busy machine, it may be over while the connection is made.
pub(crate) fn is_timeout(error: &str) -> bool {
    error == "no answer in time" || error.ends_with(": connection timed out")
}

fn signal(process: &Process, name: &str) {
    let id = process.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &id]).status();
    assert!(sent.is_ok(), "kill is there");
}

/// Whether the tests run as root, as whom some stores do not start.
pub(crate) fn as_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Redis with these lines of configuration.
pub(crate) fn redis(lines: &str) -> Option<Service> {
    let program = find("redis-server", "redis-server")?;
    let (directory, port) = (TempDir::new("redis"), Reserved::new());
    let file = directory.path().join("redis.conf");
    let content = format!(
        "bind 127.0.0.1\nport {}\nsave \"\"\ndir {}\n{lines}\n",
        port.port(),
        directory.path().display()
    );
    fs::write(&file, content).expect("the directory can be written");
    let mut command = Command::new(program);
    command.arg(file);
    Some(Service::new(command, directory, port, "KILL"))
}

/// The same, and it serves.
pub(crate) fn serving_redis(lines: &str) -> Option<Service> {
    let mut redis = redis(lines)?;
    redis.serve("redis://HOST");
    Some(redis)
}

pub(crate) fn memcached() -> Option<Service> {
    let program = find("memcached", "memcached")?;
    let (directory, port) = (TempDir::new("memcached"), Reserved::new());
    let mut command = Command::new(program);
    command.args([
        "-l",
        "127.0.0.1",
        "-U",
        "0",
        "-m",
        "8",
        "-p",
        &port.port().to_string(),
    ]);
    if as_root() {
        command.args(["-u", "nobody"]);
    }
    Some(Service::new(command, directory, port, "KILL"))
}

/// PostgreSQL with these lines in `pg_hba.conf`, after these commands, one a line.
pub(crate) fn postgres(access: &str, commands: &str) -> Option<Service> {
    let (initdb, program) = (
        find("initdb", "postgresql")?,
        find("postgres", "postgresql")?,
    );
    let (directory, port) = (TempDir::new("postgres"), Reserved::new());
    let data = directory.path().join("data");
    // It refuses to run as root.
    let unprivileged = |program: &Path| {
        if !as_root() {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        command.arg(program);
        command
    };
    if as_root() {
        run(
            Command::new("chown").arg("postgres").arg(directory.path()),
            "",
        );
    }
    run(
        unprivileged(&initdb)
            .args([
                "--no-sync",
                "--no-locale",
                "-E",
                "UTF8",
                "-A",
                "reject",
                "-U",
                "admin",
                "-D",
            ])
            .arg(&data)
            .current_dir(directory.path()),
        "",
    );
    run(
        unprivileged(&program)
            .args(["--single", "-c", "fsync=off", "-D"])
            .arg(&data)
            .arg("postgres")
            .current_dir(directory.path()),
        commands,
    );
    fs::write(data.join("pg_hba.conf"), access).expect("the directory can be written");
    let mut command = unprivileged(&program);
    command
        .arg("-D")
        .arg(&data)
        .args(["-h", "127.0.0.1", "-p", &port.port().to_string()])
        .args([
            "-c",
            "unix_socket_directories=",
            "-c",
            "fsync=off",
            "-c",
            "shared_buffers=1MB",
        ])
        .current_dir(directory.path());
    Some(Service::new(command, directory, port, "QUIT"))
}

/// MariaDB, with these commands run at each start, one a line.
pub(crate) fn mariadb(commands: &str) -> Option<Service> {
    let install = find("mariadb-install-db", "mariadb-server")?;
    let program = find("mariadbd", "mariadb-server")?;
    let (directory, port) = (TempDir::new("mariadb"), Reserved::new());
    let data = directory.path().join("data");
    let user = as_root().then_some("--user=root");
    let path = |option: &str, path: PathBuf| format!("{option}={}", path.display());
    run(
        Command::new(install)
            .args([
                "--no-defaults",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ])
            .arg(path("--datadir", data.clone()))
            .args(user),
        "",
    );
    let init = directory.path().join("init.sql");
    fs::write(&init, commands).expect("the directory can be written");
    let mut command = Command::new(program);
    command
        .arg("--no-defaults")
        .arg(path("--datadir", data))
        .arg(path("--socket", directory.path().join("socket")))
        .arg(path("--pid-file", directory.path().join("pid")))
        .arg(path("--init-file", init))
        .arg(format!("--port={}", port.port()))
        .args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--skip-log-bin",
        ])
        .args(["--innodb-buffer-pool-size=8M", "--innodb-log-file-size=4M"])
        .args(user);
    Some(Service::new(command, directory, port, "KILL"))
}

/// Runs a program to its end, with this as its input.
#[track_caller]
fn run(command: &mut Command, input: &str) {
    let (good, said) = process::run(command, input);
    assert!(good, "{command:?}: {said}");
}
