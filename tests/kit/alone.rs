//! Tests that need a process of their own.

use std::any::type_name;
use std::env;
use std::process::Command;

/// Tells the process that it runs one test alone.
const ALONE: &str = "PLIMSOLL_TEST_ALONE";

/// Seconds that such a process has: some of the slow tests take minutes.
const LIMIT: &str = "900";

/// Runs the body of a test in a process of its own, with as many descriptors as the system allows: for a test that looks
/// at the threads and files of its process, or opens more connections than the customary limit of 1,024 descriptors
/// leaves to tests that run side by side. `body` is a closure written in the test itself, whose type names the test.
#[track_caller]
pub(crate) fn alone<F: FnOnce()>(body: F) {
    let limit = "ulimit -n \"$(ulimit -H -n)\" && exec \"$0\" \"$@\"";
    alone_under(&["sh", "-c", limit], body);
}

/// The same with a command that runs what follows it, as `strace` does. Whether this is the process that waited for the
/// other, and may look at what the command has left.
#[track_caller]
pub(crate) fn alone_under<F: FnOnce()>(command: &[&str], body: F) -> bool {
    if env::var_os(ALONE).is_some() {
        body();
        return false;
    }
    // `plimsoll::module::test::{{closure}}`
    let (_, path) = type_name::<F>().split_once("::").expect("a path");
    let (test, _) = path.rsplit_once("::").expect("a closure in a test");
    // In the foreground, so that whoever interrupts the tests interrupts this one too.
    let run = Command::new("timeout")
        .args(["--foreground", LIMIT])
        .args(command)
        .arg(env::current_exe().expect("the tests are a file"))
        .args(["--exact", test, "--include-ignored", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .expect("the command runs");
    let output = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{output}");
    assert!(output.contains("1 passed"), "{output}");
    true
}
