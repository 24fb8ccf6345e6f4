//! A file of options: one a line, its name, a space and its value.
//!
//! ```text
//! # What begins so is a comment, also behind a value.
//! listen 127.0.0.1:8080
//! check db=postgres://app@db.example/app,critical
//! fair
//! ```

use std::fs::File;
use std::io::{self, Read};

use super::OptionError;

/// Most bytes of a file: more is no list of options.
const MOST: u64 = 1024 * 1024;

/// One option of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The file and the line's number, as an error calls them.
    pub(super) place: String,
    pub(super) name: String,
    pub(super) value: Option<String>,
}

/// Reads the options of a file.
///
/// # Errors
/// The file cannot be read, is too long or is no text.
pub(super) fn read(path: &str) -> Result<Vec<Line>, OptionError> {
    let text = text(path)
        .map_err(|error| OptionError(format!("cannot read the options in {path:?}: {error}")))?;
    // A name of control characters is shown in one line too.
    Ok(lines(&path.escape_debug().to_string(), &text))
}

fn text(path: &str) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MOST {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

fn lines(file: &str, text: &str) -> Vec<Line> {
    let numbered = text.lines().zip(1..);
    let options = numbered.filter_map(|(line, number)| {
        let line = without_comment(line).trim();
        let (name, value) = match line.split_once(char::is_whitespace) {
            Some((name, value)) => (name, Some(value.trim_start().to_owned())),
            None => (line, None),
        };
        (!name.is_empty()).then(|| Line {
            place: format!("{file}:{number}"),
            name: name.to_owned(),
            value,
        })
    });
    options.collect()
}

/// The line up to a # at its start or after a space. Any other is part of a value, as in a URL.
fn without_comment(line: &str) -> &str {
    let mut before = None;
    let begins = line.char_indices().find(|&(_, letter)| {
        let begins = letter == '#' && before.is_none_or(char::is_whitespace);
        before = Some(letter);
        begins
    });
    begins.map_or(line, |(at, _)| &line[..at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_name_a_space_and_a_value() {
        let text = "\
            # a comment\n\
            listen 127.0.0.1:80\n\
            \n\
            \t workers\t 8  # two a core\r\n\
            upstream http://a#weight=2#max=4\n\
            fair\n\
            fair #\n\
            health-path  /a b";
        let found = lines("f", text);
        let found: Vec<_> = found
            .iter()
            .map(|line| (&*line.place, &*line.name, line.value.as_deref()))
            .collect();
        assert_eq!(
            found,
            [
                ("f:2", "listen", Some("127.0.0.1:80")),
                ("f:4", "workers", Some("8")),
                ("f:5", "upstream", Some("http://a#weight=2#max=4")),
                ("f:6", "fair", None),
                ("f:7", "fair", None),
                ("f:8", "health-path", Some("/a b")),
            ]
        );
    }

    #[test]
    fn an_empty_file_has_no_options() {
        assert_eq!(lines("f", ""), []);
        assert_eq!(lines("f", "\n \n\t#\n"), []);
    }
}
