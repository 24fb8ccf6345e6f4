//! The text of `--help`, and what the README says of each option.

use std::fmt::Write;

use super::{Options, Setting, table};

/// An option as it is written, with what stands for its value.
pub(super) fn usage(setting: &Setting) -> String {
    let (flag, placeholder) = (setting.flag, setting.field.placeholder());
    match setting.field.implied() {
        Some(_) => format!("--{flag}[={placeholder}]"),
        None => format!("--{flag} {placeholder}"),
    }
}

/// What there is to say of how its variable holds the value.
pub(super) fn manner(setting: &Setting) -> &'static str {
    setting.field.split("").map_or("", |_| ", comma-separated")
}

/// The default in words.
pub(super) fn default(setting: &Setting, defaults: &Options) -> String {
    let shown = || match setting.field.show(defaults) {
        nothing if nothing.is_empty() => "none".to_owned(),
        shown => shown,
    };
    setting.default.map_or_else(shown, str::to_owned)
}

/// The text of `--help`.
pub(super) fn text() -> String {
    /// Where the second column starts.
    const COLUMN: usize = 25;

    let mut text = String::from(
        "A small HTTP server that measures itself, refuses what it cannot carry and recovers.\n\n\
         Usage: plimsoll [OPTIONS]\n       plimsoll probe [OPTIONS] [URL]   (see plimsoll probe --help)\n",
    );
    if cfg!(feature = "events") {
        text.push_str("       plimsoll events ACTION DIR       (see plimsoll events --help)\n");
    }
    text.push_str("\nOptions:\n");
    let mut row = |flag: &str, help: &str| {
        let width = COLUMN - 2;
        // Writing to a string cannot fail. A flag that leaves no space has a line of its own.
        let _ = if flag.len() < width {
            writeln!(text, "  {flag:<width$}{help}")
        } else {
            writeln!(text, "  {flag}\n  {:<width$}{help}", "")
        };
    };
    let defaults = Options::default();
    for setting in table() {
        row(&usage(&setting), setting.help);
        let default = default(&setting, &defaults);
        let (variable, manner) = (setting.variable, manner(&setting));
        row("", &format!("[{variable}{manner}, default {default}]"));
    }
    row("--check-config", "check all options and exit");
    row("-h, --help", "print this and exit");
    row("-V, --version", "print the version and exit");
    text.push_str(
        "\nA flag beats the environment, which beats FILE. FILE has an option a line: its name without dashes,\n\
         a space, its value. A repeatable option has a line for each value. # begins a comment.\n\
         Behind the URL of a store may stand ,critical ,interval=10s ,timeout=2s ,fall=3 and ,rise=2 (the\n\
         defaults, but that no store is critical). A comma in a URL is written %2C.\n\
         Behind a RATE (100/s, 10/m, 5/h) may stand ,burst=N ,path=PREFIX ,name=NAME and ,by=ip\n\
         ,by=header:NAME or ,by=all.\n\
         BOOL is on or off; DUR is 250ms, 1.5s, 2m, 1h, 500us or 0; SIZE is 16KiB, 1MiB, 1GiB or 4096.\n\
         SIGINT, SIGTERM and SIGHUP (unless it is ignored, as under nohup) drain; a second one stops at once.\n\
         SIGUSR1 opens the access log anew.\n",
    );
    text
}
