//! The cache by the public suite of HTTP caches, see `.ci/cache-tests`. With `QUICK=1` the table of an earlier run is told.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use crate::common::peers::plimsoll_binary;
use crate::common::{self, Report};

/// Where the suite's run leaves its table.
const TABLE: &str = "cache-tests.md";

pub(crate) fn run() -> io::Result<()> {
    let mut report = Report::new("Caching");
    report.line(&common::machine());
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    if !common::quick() {
        let mut suite = Command::new(root.join(".ci/cache-tests"));
        let status = suite.env("PLIMSOLL", plimsoll_binary()).status()?;
        if !status.success() {
            report.line(&format!("The suite did not pass: {status}."));
        }
    }
    let file = root.join("target/bench").join(TABLE);
    match fs::read_to_string(&file) {
        Ok(table) => {
            if let Some(found) = table.lines().find_map(all) {
                report.figure("cache-tests: required passed, optimal passed", &found);
            }
            report.line(&table);
        }
        Err(error) => report.line(&format!("No table of the suite: {error}.")),
    }
    report.save("caching")
}

/// What a row of the suite's table says if it is that of all parts.
fn all(row: &str) -> Option<String> {
    let cells = row.strip_prefix("| all |")?.trim_end_matches([' ', '|']);
    Some(cells.replace(" |", ",").trim().to_owned())
}
