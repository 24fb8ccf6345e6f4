//! How many descriptors a bench may open.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs};

/// Descriptors that this process may have open, from `/proc`; the customary limit where that is not to be had.
pub(crate) fn limits() -> (usize, Option<usize>) {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let mut numbers = line.unwrap_or_default().split_ascii_whitespace();
    let soft = numbers.next().and_then(|soft| soft.parse().ok());
    let hard = numbers.next().and_then(|hard| hard.parse().ok());
    (soft.unwrap_or(1024), hard)
}

/// Starts this process again with `wanted` descriptors when it has fewer, as far as it may.
pub(crate) fn raise(wanted: usize) {
    const RAISED: &str = "BENCH_DESCRIPTORS_RAISED";
    let (soft, hard) = limits();
    if soft >= wanted || hard.is_some_and(|hard| hard <= soft) || env::var_os(RAISED).is_some() {
        return;
    }
    let limit = hard.map_or(wanted, |hard| hard.min(wanted));
    let Ok(program) = env::current_exe() else {
        return;
    };
    // It only returns when it fails; the limit then stays as it is.
    let error = Command::new("sh")
        .args(["-c", "ulimit -n \"$0\"; exec \"$@\""])
        .arg(limit.to_string())
        .arg(program)
        .args(env::args_os().skip(1))
        .env(RAISED, "1")
        .exec();
    println!("the limit of {soft} descriptors stays: {error}");
}
