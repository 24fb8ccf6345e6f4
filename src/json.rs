//! Writes JSON (RFC 8259). Names and errors come from elsewhere, and may hold anything.

use std::fmt::{self, Display, Write};

/// A character of a string, escaped where it must be.
pub(crate) fn write_escaped(character: char, out: &mut impl Write) -> fmt::Result {
    match character {
        '"' => out.write_str("\\\""),
        '\\' => out.write_str("\\\\"),
        '\n' => out.write_str("\\n"),
        // Some readers take the last two for the end of a line.
        '\0'..='\x1f' | '\x7f' | '\u{2028}' | '\u{2029}' => {
            write!(out, "\\u{:04x}", u32::from(character))
        }
        _ => out.write_char(character),
    }
}

/// A string in quotes.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        // Nearly all of them; one character at a time takes several times as long.
        if self.0.bytes().all(is_plain) {
            f.write_str(self.0)?;
            return f.write_char('"');
        }
        for character in self.0.chars() {
            match character {
                // These would only be read as something else outside JSON.
                '<' | '>' | '&' => write!(f, "\\u{:04x}", u32::from(character))?,
                _ => write_escaped(character, f)?,
            }
        }
        f.write_char('"')
    }
}

/// Whether a byte is a character that stands for itself.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\' | b'<' | b'>' | b'&')
}

/// A JSON number, or null where there is none.
pub(crate) struct Number {
    pub(crate) value: Option<f64>,
    pub(crate) decimals: usize,
}

impl Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.filter(|value| value.is_finite()) {
            Some(value) => write!(f, "{value:.*}", self.decimals),
            None => f.write_str("null"),
        }
    }
}

/// Appends what writes itself. Writing to a String does not fail.
pub(crate) fn append(out: &mut String, value: impl Display) {
    let _ = write!(out, "{value}");
}

/// A JSON object under construction.
pub(crate) struct Object<'a> {
    out: &'a mut String,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens one at the end of `out`.
    pub(crate) fn open(out: &'a mut String) -> Self {
        out.push('{');
        Self { out, empty: true }
    }

    fn name(&mut self, name: &str) {
        let comma = if std::mem::take(&mut self.empty) {
            ""
        } else {
            ","
        };
        append(self.out, format_args!("{comma}{}:", Quoted(name)));
    }

    /// A value that is JSON as it prints: a number, true, false or null.
    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        self.write(name, &value);
    }

    /// A string.
    pub(crate) fn text(&mut self, name: &str, value: &str) {
        self.write(name, &Quoted(value));
    }

    /// Once, and not in the place of each call: the binary stays small.
    #[inline(never)]
    fn write(&mut self, name: &str, value: &dyn Display) {
        self.name(name);
        append(self.out, value);
    }

    /// An object that `fill` fills.
    pub(crate) fn object(&mut self, name: &str, fill: impl FnOnce(&mut Object)) {
        self.name(name);
        let mut inner = Object::open(self.out);
        fill(&mut inner);
        inner.close();
    }

    /// An array whose values `write` writes.
    pub(crate) fn array<T>(
        &mut self,
        name: &str,
        items: impl Iterator<Item = T>,
        mut write: impl FnMut(&mut String, T),
    ) {
        self.name(name);
        self.out.push('[');
        for (index, item) in items.enumerate() {
            if index > 0 {
                self.out.push(',');
            }
            write(self.out, item);
        }
        self.out.push(']');
    }

    /// Ends it.
    pub(crate) fn close(&mut self) {
        self.out.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_json_string_reads_back_as_it_was(text in ".*", control in "[\\x00-\\x7f]*") {
            for text in [text, control] {
                let quoted = Quoted(&text).to_string();
                let read: String = serde_json::from_str(&quoted).expect("JSON");
                assert_eq!(read, text);
            }
        }
    }

    #[test]
    fn every_string_comes_back_from_a_parser() {
        let all: String = (0..0x3000).filter_map(char::from_u32).collect();
        for text in ["", "plain", "\"\\\n\0\u{7f}", "</script>", "née 😀", &all] {
            let quoted = Quoted(text).to_string();
            assert_eq!(serde_json::from_str::<String>(&quoted).unwrap(), text);
            assert!(!quoted.contains(['<', '\n', '\u{2028}']));
        }
    }
}
