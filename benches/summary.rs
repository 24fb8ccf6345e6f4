//! One table of what the other benches found, on the terminal and in `target/bench/summary.md`. It measures nothing.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::common::{self, FIGURES, Report};

pub(crate) fn run() -> io::Result<()> {
    let mut report = Report::new("Summary");
    report.line(&common::machine());
    report.line(&common::peers::which_binary());
    if common::quick() {
        report.line("A quick look (QUICK=1): single short runs, which vary.");
    }
    let mut rows = parts()?;
    for file in sorted(&common::directory()?)? {
        if file
            .extension()
            .is_some_and(|extension| extension == FIGURES)
        {
            let text = fs::read_to_string(&file)?;
            let lines = text.lines().filter_map(|line| line.split_once('\t'));
            rows.extend(lines.map(|(what, found)| vec![what.to_owned(), found.to_owned()]));
        }
    }
    report.table(&["what", "found"], &rows);
    report.line("More, and the plots, are in the files beside this one.");
    report.save("summary")
}

/// The means of what criterion timed.
fn parts() -> io::Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let criterion = common::target().join("criterion");
    if !criterion.exists() {
        return Ok(rows);
    }
    for group in sorted(&criterion)? {
        for bench in sorted(&group)? {
            let Ok(estimates) = fs::read(bench.join("new/estimates.json")) else {
                continue;
            };
            let estimates: serde_json::Value = serde_json::from_slice(&estimates)?;
            let name: serde_json::Value =
                serde_json::from_slice(&fs::read(bench.join("new/benchmark.json"))?)?;
            if let (Some(nanos), Some(name)) = (
                estimates["mean"]["point_estimate"].as_f64(),
                name["full_id"].as_str(),
            ) {
                rows.push(vec![name.to_owned(), format!("{nanos:.1} ns")]);
            }
        }
    }
    Ok(rows)
}

fn sorted(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(directory)?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
