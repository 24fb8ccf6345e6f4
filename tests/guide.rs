//! The guide and the README: their links lead somewhere, here and in rustdoc, and no page lacks what each promises.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The patterns' pages.
const PATTERNS: [&str; 9] = [
    "back_off",
    "caching",
    "circuit_breaking",
    "event_processing",
    "health_checks",
    "load_balancing",
    "service_discovery",
    "throttling",
    "timeout",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The guide's pages by their names, the front page included.
fn pages() -> BTreeMap<String, String> {
    let files = fs::read_dir(root().join("src/guide")).expect("the guide is there");
    let paths = files.map(|file| file.expect("it can be listed").path());
    let name = |path: &PathBuf| {
        path.file_stem()
            .and_then(|name| name.to_str())
            .map(str::to_owned)
    };
    let pages = paths.filter(|path| path.extension().is_some_and(|it| it == "md"));
    let pages = pages.map(|path| (name(&path).expect("a name"), read(&path)));
    pages.filter(|(name, _)| name != "links").collect()
}

/// The text outside of code, a line each.
fn prose(page: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    page.lines().filter(move |line| {
        let is_fence = line.starts_with("```");
        in_code ^= is_fence;
        !in_code && !is_fence
    })
}

/// The definitions of links: label and target.
fn definitions(page: &str) -> BTreeMap<&str, &str> {
    prose(page)
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
        .collect()
}

/// The targets of links that stand in the text.
fn inline(page: &str) -> Vec<&str> {
    let targets = prose(page).flat_map(|line| line.split("](").skip(1));
    targets
        .filter_map(|rest| Some(rest.split_once(')')?.0))
        .collect()
}

/// What a heading is called in a link, as GitHub and rustdoc do it.
fn anchor(heading: &str) -> String {
    let letters = heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    letters.collect::<String>().to_lowercase().replace(' ', "-")
}

#[track_caller]
fn assert_leads_somewhere(from: &Path, target: &str) {
    let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
    let to = if file.is_empty() {
        from.to_owned()
    } else {
        from.parent().expect("a directory").join(file)
    };
    assert!(to.exists(), "{} leads to {target}", from.display());
    if !fragment.is_empty() {
        let text = read(&to);
        let mut headings = prose(&text).filter_map(|line| line.strip_prefix('#'));
        let found = headings.any(|it| anchor(it.trim_start_matches('#').trim()) == fragment);
        assert!(found, "{} leads to {target}", from.display());
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut texts = vec![(root().join("README.md"), read(&root().join("README.md")))];
    let path = |name: &str| root().join("src/guide").join(name).with_extension("md");
    texts.extend(pages().into_iter().map(|(name, page)| (path(&name), page)));
    for (path, text) in &texts {
        let targets = inline(text)
            .into_iter()
            .chain(definitions(text).into_values());
        for target in targets.filter(|target| !target.starts_with("http")) {
            assert_leads_somewhere(path, target);
        }
    }
}

#[test]
fn the_crates_front_page_names_files_that_are_there() {
    let front = read(&root().join("src/lib.rs"));
    let files = front.lines().filter_map(|line| {
        let (_, file) = line.strip_prefix("//! | ")?.split_once("| `src/")?;
        file.strip_suffix("` |")
    });
    let files: Vec<_> = files.collect();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        assert!(root().join("src").join(file).exists(), "{file}");
    }
}

#[test]
fn rustdoc_is_told_where_each_link_to_a_file_leads() {
    let links = read(&root().join("src/guide/links.md"));
    let known: BTreeSet<_> = definitions(&links).into_keys().collect();
    for (name, page) in pages() {
        for (label, target) in definitions(&page) {
            assert!(
                known.contains(label) || target.starts_with("http"),
                "{name}: {label}"
            );
        }
        for target in inline(&page) {
            // A link to a file leads nowhere in rustdoc.
            assert!(
                target.starts_with("http") || target.starts_with('#'),
                "{name}: {target}"
            );
        }
    }
}

#[test]
fn the_front_page_and_rustdoc_have_every_page() {
    let pages = pages();
    let front = definitions(&pages["README"]);
    let module = read(&root().join("src/guide/mod.rs"));
    for name in pages.keys().filter(|name| *name != "README") {
        assert_eq!(front.get(&**name), Some(&&*format!("{name}.md")));
        assert!(
            module.contains(&format!("include_str!(\"{name}.md\")")),
            "{name}"
        );
        assert!(module.contains(&format!("pub mod {name} {{}}")), "{name}");
    }
}

#[test]
fn the_page_of_a_pattern_has_what_each_promises() {
    let pages = pages();
    for name in PATTERNS {
        let page = &pages[name];
        let question = page.lines().nth(2).expect("a text");
        assert!(
            question.starts_with("**") && question.contains("?**"),
            "{name}: {question}"
        );
        let (_, picture) = page.split_once("```text\n").expect("a picture");
        assert!(
            page.find("\n## ") > page.find("```text\n"),
            "{name}: {picture}"
        );
        let headings: Vec<_> = prose(page).filter(|line| line.starts_with("## ")).collect();
        assert_eq!(headings[0], "## In a program", "{name}");
        assert!(
            headings[1].starts_with("## In the sidecar") || headings[1] == "## With the binary",
            "{name}"
        );
        let mut rest = headings[2..].iter();
        for wanted in ["## How to choose", "## Without it", "## Measured"] {
            assert!(rest.any(|heading| *heading == wanted), "{name}: {wanted}");
        }
        let (_, program) = page
            .split_once("\n```rust\n")
            .expect("a program that is run");
        let (program, _) = program.split_once("```").expect("its end");
        assert!(
            program.lines().count() < 20,
            "{name}: {}",
            program.lines().count()
        );
    }
}

#[test]
fn the_readme_is_short() {
    let lines = read(&root().join("README.md")).lines().count();
    assert!(lines <= 250, "{lines}");
}
