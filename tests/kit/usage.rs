//! What the system says of a process, see `proc(5)`.

use std::fs;
use std::time::Duration;

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
    /// Resident, in KiB.
    pub(crate) memory: usize,
}

impl Usage {
    /// Of a process, or of `self`.
    pub(crate) fn of(process: &str) -> Self {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        Self {
            threads: number("Threads:"),
            descriptors,
            memory: number("VmRSS:"),
        }
    }
}

/// The names of the threads that a process has started: its first thread has the name of the program.
pub(crate) fn threads(process: &str) -> Vec<String> {
    let first = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let first = first.split(' ').next().unwrap_or_default();
    let tasks = fs::read_dir(format!("/proc/{process}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let tasks = tasks.filter(|task| task.file_name() != first);
    // A thread may end between the listing and the reading.
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.map(|name| name.trim_end().to_owned()).collect()
}

/// CPU time that the event loop's thread of a process has used, in the system's ticks of 10 ms.
pub(crate) fn loop_time(process: &str) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process runs");
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("stat")).ok());
    let mut ticks = stats.filter_map(|stat| {
        let rest = stat.split_once("(plimsoll-front) ")?.1;
        let field = |index| rest.split(' ').nth(index)?.parse::<u64>().ok();
        // utime and stime, fields 14 and 15 of proc_pid_stat(5); the rest starts at field 3.
        Some(field(11)? + field(12)?)
    });
    Duration::from_millis(10 * ticks.next().expect("a thread of that name"))
}

/// How many connections this process may open, up to `wanted`: the soft limit on descriptors may be low.
pub(crate) fn affordable(wanted: usize) -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    wanted.min(soft.unwrap_or(usize::MAX).saturating_sub(300))
}
