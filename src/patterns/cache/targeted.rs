//! Targeted cache control: a dictionary of structured fields (RFC 9213, RFC 9651).

use super::control::Directives;
use super::fields::Fields;
use crate::http::fields::is_token_byte;

/// A value of a dictionary, as far as directives need it.
enum Item {
    Integer(i64),
    Text(String),
    Boolean(bool),
    /// Valid, but of a type that no directive has.
    Other,
}

impl Directives {
    /// The directives of a reply: those of the targeted field if there is a valid one, else those of Cache-Control.
    pub(super) fn of_reply(fields: &Fields, target: Option<&str>) -> Self {
        let targeted = target.and_then(|name| parse(fields, name));
        targeted.unwrap_or_else(|| Self::of(fields))
    }
}

/// The directives of the field with this name; none if it is absent, empty or malformed, or if a directive in it has a
/// value of the wrong type: then the field is as if it were not there (RFC 9213 section 2.1).
pub(super) fn parse(fields: &Fields, name: &str) -> Option<Directives> {
    let text = fields.all(name).collect::<Vec<_>>().join(&b", "[..]);
    let mut parser = Parser(text.trim_ascii());
    let mut directives = Directives {
        targeted: true,
        ..Directives::default()
    };
    if parser.0.is_empty() {
        return None;
    }
    loop {
        let key = parser.key()?;
        let item = if parser.take(b'=') {
            parser.member()?
        } else {
            Item::Boolean(true)
        };
        parser.parameters()?;
        apply(&mut directives, &key, &item)?;
        parser.space();
        if parser.0.is_empty() {
            return Some(directives);
        }
        if !parser.take(b',') {
            return None;
        }
        // A comma at the end is an error too: no key follows.
        parser.space();
    }
}

fn apply(directives: &mut Directives, key: &str, item: &Item) -> Option<()> {
    let counts_seconds = matches!(
        key,
        "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error"
    );
    let names_fields = matches!(key, "no-cache" | "private");
    let switch = matches!(
        key,
        "no-store" | "public" | "must-revalidate" | "proxy-revalidate" | "must-understand"
    );
    match item {
        Item::Integer(number) if counts_seconds => {
            directives.add(key, Some(&u64::try_from(*number).ok()?.to_string()));
        }
        Item::Boolean(true) if switch || names_fields => directives.add(key, None),
        Item::Boolean(false) if switch || names_fields => {}
        Item::Text(names) if names_fields => directives.add(key, Some(names)),
        _ if counts_seconds || names_fields || switch => return None,
        _ => {}
    }
    Some(())
}

struct Parser<'a>(&'a [u8]);

impl Parser<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn take(&mut self, wanted: u8) -> bool {
        let found = self.0.first() == Some(&wanted);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> String {
        let end = self.0.iter().position(|&byte| !accept(byte));
        let (taken, rest) = self.0.split_at(end.unwrap_or(self.0.len()));
        self.0 = rest;
        String::from_utf8_lossy(taken).into_owned()
    }

    fn key(&mut self) -> Option<String> {
        let first = *self.0.first()?;
        (first.is_ascii_lowercase() || first == b'*').then(|| {
            self.take_while(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            })
        })
    }

    /// An item or an inner list.
    fn member(&mut self) -> Option<Item> {
        if !self.take(b'(') {
            return self.item();
        }
        loop {
            self.space();
            if self.take(b')') {
                return Some(Item::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.space();
            self.key()?;
            if self.take(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn item(&mut self) -> Option<Item> {
        match *self.0.first()? {
            b'"' => {
                self.next();
                self.string().map(Item::Text)
            }
            b'?' => {
                self.next();
                match self.next()? {
                    b'0' => Some(Item::Boolean(false)),
                    b'1' => Some(Item::Boolean(true)),
                    _ => None,
                }
            }
            b':' => {
                self.next();
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.take(b':').then_some(Item::Other)
            }
            b'@' => {
                self.next();
                match self.number()? {
                    Item::Integer(_) => Some(Item::Other),
                    _ => None,
                }
            }
            b'%' => {
                self.next();
                if !self.take(b'"') {
                    return None;
                }
                self.take_while(|byte| byte != b'"' && matches!(byte, b' '..=b'~'));
                self.take(b'"').then_some(Item::Other)
            }
            b'-' | b'0'..=b'9' => self.number(),
            byte if byte.is_ascii_alphabetic() || byte == b'*' => {
                self.take_while(|byte| is_token_byte(byte) || b":/".contains(&byte));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    fn string(&mut self) -> Option<String> {
        let mut text = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(text),
                b'\\' => match self.next()? {
                    byte @ (b'"' | b'\\') => text.push(byte.into()),
                    _ => return None,
                },
                byte @ b' '..=b'~' => text.push(byte.into()),
                _ => return None,
            }
        }
    }

    /// An integer of at most 15 digits, or a decimal of at most 12 and 3.
    fn number(&mut self) -> Option<Item> {
        let negative = self.take(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if self.take(b'.') {
            let part = self.take_while(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&whole.len()) && (1..=3).contains(&part.len());
            return fits.then_some(Item::Other);
        }
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        let number: i64 = whole.parse().ok()?;
        Some(Item::Integer(if negative { -number } else { number }))
    }
}
