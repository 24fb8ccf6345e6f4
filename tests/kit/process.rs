//! Real programs beside a test: each on loopback, in a directory of its own, and gone when the test ends.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where a program is, on the PATH or where Debian keeps its daemons; `None` says so in the test's output.
pub(crate) fn find(program: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/lib/postgresql/15/bin"].map(PathBuf::from);
    let found = std::env::split_paths(&path)
        .chain(daemons)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file());
    if found.is_none() {
        // Not by eprintln, which is kept from sight while a test passes.
        let told = writeln!(
            std::io::stderr(),
            "SKIPPED: {program} is missing (install {package})"
        );
        told.expect("standard error can be written");
    }
    found
}

/// A directory that is removed at the end.
#[derive(Debug)]
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("plimsoll-test-{name}-{}-{count}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).expect("a temporary directory can be made");
        Self(directory)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // A program that has just been killed may still write here; what is left is small.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program to its end, with this as its input; gives whether it is content, and all that it says.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: &str) -> (bool, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("it has an input");
    stdin
        .write_all(input.as_bytes())
        .expect("it reads its input");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    (output.status.success(), said)
}

/// A running program; it is killed, and waited for, when dropped.
#[derive(Debug)]
pub(crate) struct Process(Child);

impl Process {
    /// Starts a program without input, its output in `directory/output`.
    pub(crate) fn start(command: &mut Command, directory: &Path) -> Self {
        let output = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(directory.join("output"))
            .expect("the directory can be written");
        let errors = output.try_clone().expect("a descriptor is free");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?} does not start: {error}")))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
