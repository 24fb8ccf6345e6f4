//! Strings for JSON (RFC 8259 section 7): names and errors come from elsewhere, and may hold anything.

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
