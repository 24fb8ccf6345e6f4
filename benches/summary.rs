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
    let rate = |found: &Found<'_>| format!("{:.1} k, {}", found.rate / 1e3, found.p99);
    let cost = |found: &Found<'_>| found.cost.to_owned();
    let tables: [(_, _, Show); 3] = [
        ("The README's table: requests/s and p99", "GET /", rate),
        ("The sidecar: requests/s and p99", "1 KiB", rate),
        ("The sidecar: processor time for a request", "1 KiB", cost),
    ];
    for (title, what, show) in tables {
        let (heads, grid) = grid(&rows, what, show);
        if !grid.is_empty() {
            report.heading(2, title);
            let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
            report.table(&heads, &grid);
        }
    }
    report.heading(2, "Everything");
    report.table(&["what", "found"], &rows);
    report.line("More, and the plots, are in the files beside this one.");
    report.save("summary")
}

/// What was found of a server at a number of connections.
struct Found<'a> {
    rate: f64,
    p99: &'a str,
    cost: &'a str,
}

/// Makes a cell of it.
type Show = fn(&Found<'_>) -> String;

/// What was found at different numbers of connections, a column for each server, as the README shows it.
fn grid(rows: &[Vec<String>], what: &str, show: Show) -> (Vec<String>, Vec<Vec<String>>) {
    let mut heads = vec!["connections".to_owned()];
    let mut grid: Vec<Vec<String>> = Vec::new();
    for row in rows {
        let Some((connections, server, found)) = cell(row, what) else {
            continue;
        };
        let column = heads.iter().position(|head| head == server);
        let column = column.unwrap_or_else(|| {
            heads.push(server.to_owned());
            heads.len() - 1
        });
        let at = grid.iter().position(|row| row[0] == connections);
        let at = at.unwrap_or_else(|| {
            grid.push(vec![connections.to_owned()]);
            grid.len() - 1
        });
        let line = &mut grid[at];
        line.resize(line.len().max(column + 1), String::new());
        line[column] = show(&found);
    }
    (heads, grid)
}

/// Connections, server and what was found, of a row such as `GET / at 16 connections, Go`.
fn cell<'a>(row: &'a [String], what: &str) -> Option<(&'a str, &'a str, Found<'a>)> {
    let rest = row[0].strip_prefix(what)?.strip_prefix(" at ")?;
    let (connections, server) = rest.split_once(" connections, ")?;
    let (rate, rest) = row[1].split_once(" requests/s, p99 ")?;
    let (p99, cost) = rest.split_once(", ")?;
    let rate = rate.parse().ok()?;
    Some((connections, server, Found { rate, p99, cost }))
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
