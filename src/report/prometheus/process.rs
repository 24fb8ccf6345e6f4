//! The process: its version, its age, and what it takes of the system.
//!
//! The system's numbers are read from `/proc/self` when they are asked for, which is memory, not a disk. On a system
//! without it they are left out.

use std::fs;

use crate::health::Snapshot;
use crate::metrics::{Exposition, labels, since_epoch};
use crate::settings::descriptor_limit;

/// Up to so many connections, open descriptors are counted one by one where the kernel does not know their number.
/// Counting takes about a microsecond each, during which nobody is served.
const MOST_COUNTED: usize = 1_000;

pub(super) fn process(page: &mut Exposition, now: &Snapshot) {
    page.gauge(
        "plimsoll_uptime_seconds",
        "Time since the start.",
        now.uptime.as_secs_f64(),
    );
    page.family("plimsoll_build_info", "gauge", "The version, as a label.");
    let version = labels(&[("version", env!("CARGO_PKG_VERSION"))]);
    page.sample("plimsoll_build_info", &version, 1);
    let help = "Start time since the Unix epoch.";
    let start = since_epoch(now.start_time);
    page.gauge("process_start_time_seconds", help, start);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = field(&status, "VmRSS:").map(|kibibytes| kibibytes * 1024);
    for (name, help, value) in [
        (
            "process_resident_memory_bytes",
            "Memory that is resident.",
            resident,
        ),
        (
            "process_threads",
            "Threads of the process.",
            field(&status, "Threads:"),
        ),
        (
            "process_open_fds",
            "Descriptors open.",
            open_descriptors(now.connections),
        ),
        (
            "process_max_fds",
            "Most descriptors that may be open.",
            descriptor_limit().map(|limit| limit as u64),
        ),
    ] {
        if let Some(value) = value {
            page.gauge(name, help, value);
        }
    }
}

/// A number from the text of `/proc/self/status`, see `proc_pid_status(5)`.
fn field(status: &str, name: &str) -> Option<u64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// How many descriptors are open. Since Linux 6.2 the directory's size is their number; before, they have to be
/// counted.
fn open_descriptors(connections: usize) -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    let known = fs::metadata(DIRECTORY).ok()?.len();
    if known > 0 {
        return Some(known);
    }
    if connections > MOST_COUNTED {
        return None;
    }
    let counted = fs::read_dir(DIRECTORY).ok()?.count();
    // One of them is the directory itself.
    Some(counted.saturating_sub(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::snapshot;

    #[test]
    fn the_systems_numbers_are_read() {
        let status = "Name:\tplimsoll\nVmHWM:\t  999 kB\nVmRSS:\t    3216 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(3216));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field("VmRSS:\n", "VmRSS:"), None);
        assert_eq!(field("", "Threads:"), None);
    }

    #[test]
    fn what_cannot_be_known_is_left_out_and_the_rest_is_plausible() {
        let mut page = Exposition::with_capacity(0);
        process(&mut page, &snapshot());
        let page = page.into_text();
        let value = |name: &str| -> Option<f64> {
            let rest = page.lines().find_map(|line| line.strip_prefix(name))?;
            rest.trim().parse().ok()
        };
        if cfg!(target_os = "linux") {
            let open = value("process_open_fds ").expect("counted");
            let most = value("process_max_fds ").expect("read");
            assert!(open >= 3.0 && open <= most, "{open} of {most}");
            assert!(value("process_resident_memory_bytes ") > Some(65_536.0));
            assert!(value("process_threads ") >= Some(1.0));
        }
        assert!(value("process_start_time_seconds ") > Some(1.7e9));
        let version = concat!(
            "plimsoll_build_info{version=\"",
            env!("CARGO_PKG_VERSION"),
            "\"} "
        );
        assert_eq!(value(version), Some(1.0));
    }
}
