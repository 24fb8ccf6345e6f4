//! Strings for JSON (RFC 8259 section 7): names and errors come from elsewhere, and may hold anything.

use std::fmt::{self, Display, Write};

/// A string in quotes.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                // Controls must be escaped; the rest of these would only be read as something else outside JSON.
                '\0'..='\x1f' | '\x7f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                    write!(f, "\\u{:04x}", u32::from(character))?;
                }
                _ => f.write_char(character)?,
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
