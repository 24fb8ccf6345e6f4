//! The kinds of values that settings take: how each is written, shown and bounded.

use std::fmt::Display;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use super::ConfigError;
use crate::units::{parse_count, parse_duration, parse_size, show_duration, show_size};

/// The longest duration that a setting takes: a longer one is a mistake, and the bound keeps the sum of an instant and a
/// duration from overflowing.
pub(crate) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What in the text is wrong, where that has a name.
    pub about: Option<String>,
    /// What the setting takes.
    pub expected: String,
    /// What it was given; `None` where that is the text or the value as it stands.
    pub found: Option<String>,
}

impl Complaint {
    pub(crate) fn found(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            about: None,
            expected: expected.into(),
            found: Some(found.into()),
        }
    }

    /// The error that says so of an option; `value` is how what was found is shown.
    pub(crate) fn of(self, option: &'static str, value: impl FnOnce() -> String) -> ConfigError {
        ConfigError {
            option,
            expected: self.expected,
            found: self.found.unwrap_or_else(value),
        }
    }
}

/// A kind of value.
pub trait Kind: 'static {
    /// The type of the field that holds it.
    type Value;

    /// What stands for a value in the help.
    fn placeholder(&self) -> &'static str;

    /// What it takes, with its bounds, as an error says it.
    fn expected(&self) -> String;

    /// The complaint about a value that is not what is expected.
    fn complaint(&self) -> Complaint {
        Complaint {
            about: None,
            expected: self.expected(),
            found: None,
        }
    }

    /// The value of a flag that is given without one, where it may be.
    fn implied(&self) -> Option<&'static str> {
        None
    }

    /// The values in a variable, where it holds a comma-separated list.
    fn split(&self, _variable: &str) -> Option<Vec<String>> {
        None
    }

    /// Reads a value.
    ///
    /// # Errors
    /// The text is no value of this kind.
    fn parse(&self, text: &str) -> Result<Self::Value, Complaint>;

    /// Puts what was read in the place of the value, or adds it to a list.
    fn put(&self, value: &mut Self::Value, new: Self::Value) {
        *value = new;
    }

    /// Empties a list, so that what is given replaces the default.
    fn clear(&self, _value: &mut Self::Value) {}

    /// The value as it is written on the command line; empty where there is none.
    fn show(&self, value: &Self::Value) -> String;

    /// Checks the value against its bounds.
    ///
    /// # Errors
    /// It is out of its bounds.
    fn check(&self, value: &Self::Value) -> Result<(), Complaint>;
}

/// A whole number within bounds.
pub struct Count<N>(pub RangeInclusive<N>);

impl<N: Copy + Display + FromStr + PartialOrd + 'static> Kind for Count<N> {
    type Value = N;

    fn placeholder(&self) -> &'static str {
        "N"
    }

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }

    fn parse(&self, text: &str) -> Result<N, Complaint> {
        parse_count(text).ok_or_else(|| self.complaint())
    }

    fn show(&self, value: &N) -> String {
        value.to_string()
    }

    fn check(&self, value: &N) -> Result<(), Complaint> {
        let within = self.0.contains(value);
        within.then_some(()).ok_or_else(|| self.complaint())
    }
}

/// A number of bytes within bounds.
pub struct Size(pub RangeInclusive<usize>);

impl Kind for Size {
    type Value = usize;

    fn placeholder(&self) -> &'static str {
        "SIZE"
    }

    fn expected(&self) -> String {
        let (low, high) = (self.show(self.0.start()), self.show(self.0.end()));
        format!("a size from {low} to {high}, such as 4096, 16KiB or 1MiB")
    }

    fn parse(&self, text: &str) -> Result<usize, Complaint> {
        let size = parse_size(text).and_then(|size| usize::try_from(size).ok());
        size.ok_or_else(|| self.complaint())
    }

    fn show(&self, value: &usize) -> String {
        show_size(*value as u64)
    }

    fn check(&self, value: &usize) -> Result<(), Complaint> {
        let within = self.0.contains(value);
        within.then_some(()).ok_or_else(|| self.complaint())
    }
}

/// A duration of at most 24 hours.
pub enum Span {
    /// Above 0.
    AboveZero,
    /// 0 has a meaning too.
    FromZero,
}

impl Kind for Span {
    type Value = Duration;

    fn placeholder(&self) -> &'static str {
        "DUR"
    }

    fn expected(&self) -> String {
        let bounds = match self {
            Self::AboveZero => "above 0 and",
            Self::FromZero => "of",
        };
        format!("a duration {bounds} at most 24h, such as 250ms, 1.5s or 2m")
    }

    fn parse(&self, text: &str) -> Result<Duration, Complaint> {
        parse_duration(text).ok_or_else(|| self.complaint())
    }

    fn show(&self, value: &Duration) -> String {
        show_duration(*value)
    }

    fn check(&self, value: &Duration) -> Result<(), Complaint> {
        let above_zero = matches!(self, Self::FromZero) || !value.is_zero();
        let within = above_zero && *value <= LONGEST;
        within.then_some(()).ok_or_else(|| self.complaint())
    }
}

/// One of a few words.
pub struct Word<T> {
    placeholder: &'static str,
    /// The words as an error lists them.
    words: &'static str,
    of: PhantomData<fn() -> T>,
}

impl<T> Word<T> {
    /// Shown as `placeholder`; `words` lists them all.
    #[must_use]
    pub const fn new(placeholder: &'static str, words: &'static str) -> Self {
        Self {
            placeholder,
            words,
            of: PhantomData,
        }
    }
}

impl<T: Display + FromStr + 'static> Kind for Word<T> {
    type Value = T;

    fn placeholder(&self) -> &'static str {
        self.placeholder
    }

    fn expected(&self) -> String {
        self.words.to_owned()
    }

    fn parse(&self, text: &str) -> Result<T, Complaint> {
        text.parse().map_err(|_| self.complaint())
    }

    fn show(&self, value: &T) -> String {
        // The levels of the log print in capitals.
        value.to_string().to_ascii_lowercase()
    }

    fn check(&self, _: &T) -> Result<(), Complaint> {
        Ok(())
    }
}

/// On or off. On the command line the value may be left out, and then is on.
pub struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn placeholder(&self) -> &'static str {
        "BOOL"
    }

    fn expected(&self) -> String {
        "on or off".to_owned()
    }

    fn implied(&self) -> Option<&'static str> {
        Some("on")
    }

    fn parse(&self, text: &str) -> Result<bool, Complaint> {
        match text {
            "on" | "true" | "yes" | "1" => Ok(true),
            "off" | "false" | "no" | "0" => Ok(false),
            _ => Err(self.complaint()),
        }
    }

    fn show(&self, value: &bool) -> String {
        if *value { "on" } else { "off" }.to_owned()
    }

    fn check(&self, _: &bool) -> Result<(), Complaint> {
        Ok(())
    }
}

/// A text of some shape.
pub struct Text {
    /// What stands for it in the help.
    pub placeholder: &'static str,
    /// What an error says of the shape.
    pub expected: &'static str,
    /// Whether a text has the shape.
    pub fits: fn(&str) -> bool,
}

/// An address to listen on. Whether a name resolves is known when it is bound.
pub(super) const ADDRESS: Text = Text {
    placeholder: "ADDR",
    expected: "HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080",
    fits: is_address,
};

/// The name of a host, without a port.
pub(crate) const HOST_NAME: Text = Text {
    placeholder: "NAME",
    expected: "the name of a host, such as status.example",
    fits: is_host_name,
};

/// A file to write to.
pub(super) const FILE: Text = Text {
    placeholder: "FILE",
    expected: "the path of a file, or - for standard output",
    fits: |path| !path.is_empty() && !path.ends_with('/'),
};

fn is_address(text: &str) -> bool {
    let is_name_and_port = || {
        text.rsplit_once(':').is_some_and(|(host, port)| {
            is_host_name(host)
                && port.bytes().all(|byte| byte.is_ascii_digit())
                && port.parse::<u16>().is_ok()
        })
    };
    text.parse::<SocketAddr>().is_ok() || is_name_and_port()
}

fn is_host_name(name: &str) -> bool {
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !name.is_empty() && name.bytes().all(in_name)
}

impl Kind for Text {
    type Value = String;

    fn placeholder(&self) -> &'static str {
        self.placeholder
    }

    fn expected(&self) -> String {
        self.expected.to_owned()
    }

    fn parse(&self, text: &str) -> Result<String, Complaint> {
        Ok(text.to_owned())
    }

    fn show(&self, value: &String) -> String {
        value.clone()
    }

    fn check(&self, value: &String) -> Result<(), Complaint> {
        if (self.fits)(value) {
            return Ok(());
        }
        Err(Complaint::found(self.expected, format!("{value:?}")))
    }
}

/// A value that need not be given.
pub struct Maybe<K>(pub K);

impl<K: Kind> Kind for Maybe<K> {
    type Value = Option<K::Value>;

    fn placeholder(&self) -> &'static str {
        self.0.placeholder()
    }

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Complaint> {
        self.0.parse(text).map(Some)
    }

    fn show(&self, value: &Self::Value) -> String {
        value
            .as_ref()
            .map_or_else(String::new, |value| self.0.show(value))
    }

    fn check(&self, value: &Self::Value) -> Result<(), Complaint> {
        value.as_ref().map_or(Ok(()), |value| self.0.check(value))
    }
}

/// Values given one by one; a variable holds them all, separated by commas.
pub struct List<K> {
    /// What each of them is.
    pub item: K,
    /// How many there may be.
    pub count: RangeInclusive<usize>,
    /// What an error calls them.
    pub plural: &'static str,
}

/// The values in a variable: a new one begins after each comma behind which `begins` says so.
pub(super) fn split(variable: &str, begins: impl Fn(&str) -> bool) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for part in variable.split(',').map(str::trim) {
        match values.last_mut() {
            Some(value) if !begins(part) => {
                value.push(',');
                value.push_str(part);
            }
            _ => values.push(part.to_owned()),
        }
    }
    values
}

/// Checks how many values there are; an error calls them by `plural`.
pub(super) fn check_count(
    count: &RangeInclusive<usize>,
    plural: &str,
    found: usize,
) -> Result<(), Complaint> {
    if count.contains(&found) {
        return Ok(());
    }
    let (low, high) = (count.start(), count.end());
    let expected = format!("a number of {plural} from {low} to {high}");
    Err(Complaint::found(expected, found.to_string()))
}

impl<K> List<K> {
    /// Checks how many there are.
    pub(crate) fn check_count(&self, found: usize) -> Result<(), Complaint> {
        check_count(&self.count, self.plural, found)
    }
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn placeholder(&self) -> &'static str {
        self.item.placeholder()
    }

    fn expected(&self) -> String {
        self.item.expected()
    }

    fn split(&self, variable: &str) -> Option<Vec<String>> {
        Some(split(variable, |_| true))
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Complaint> {
        Ok(vec![self.item.parse(text)?])
    }

    fn put(&self, value: &mut Self::Value, new: Self::Value) {
        value.extend(new);
    }

    fn show(&self, value: &Self::Value) -> String {
        let shown: Vec<_> = value.iter().map(|item| self.item.show(item)).collect();
        shown.join(",")
    }

    fn check(&self, value: &Self::Value) -> Result<(), Complaint> {
        let most = *self.count.end();
        if let Some(surplus) = value.get(most) {
            let expected = format!("at most {most} {}", self.plural);
            let found = format!("{} too", self.item.show(surplus));
            return Err(Complaint::found(expected, found));
        }
        self.check_count(value.len())?;
        value.iter().try_for_each(|item| self.item.check(item))
    }

    fn clear(&self, value: &mut Self::Value) {
        value.clear();
    }
}
