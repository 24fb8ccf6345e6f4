//! `RATE[,burst=N][,by=ip|header:NAME|all][,path=PREFIX][,name=NAME]`: how often a client may ask.

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::ConfigError;
use super::checks::is_name;
use super::kinds::{self, Complaint, Kind};
use crate::http::fields::is_token_byte;
use crate::patterns::{Rate, Throttle};
use crate::units::parse_count;

/// Bounds of the number of rules: each request is looked at by each.
const RULES: RangeInclusive<usize> = 0..=16;
/// Bounds of [`ThrottleRule::burst`].
const BURST: RangeInclusive<u32> = 1..=1_000_000;
/// Most bytes of a rule's name.
const LONGEST_NAME: usize = 64;

const EXPECTED: &str =
    "RATE[,burst=N][,by=ip|header:NAME|all][,path=PREFIX][,name=NAME], such as 20/s,path=/login";

/// Whose requests a [`ThrottleRule`] counts together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ThrottleBy {
    /// Those of one client address; of IPv6 those of one /64.
    #[default]
    Address,
    /// Those with one value in the field of this name. A request without it, or with more than one, counts under its
    /// client's address. Who can make up values is not limited by this: add a rule by address.
    Header(String),
    /// All that the rule is about.
    All,
}

impl fmt::Display for ThrottleBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address => f.write_str("ip"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::All => f.write_str("all"),
        }
    }
}

/// A limit on how often a client may ask, as [`Throttle`] counts: what comes more often is refused with 429.
///
/// ```
/// use plimsoll::{ThrottleBy, ThrottleRule};
///
/// let rule: ThrottleRule = "20/s,burst=40,by=header:X-Api-Key,path=/api,name=api".parse()?;
/// assert_eq!(rule.rate.count(), 20);
/// assert_eq!(rule.burst, Some(40));
/// assert_eq!(rule.by, ThrottleBy::Header("X-Api-Key".to_owned()));
/// assert_eq!(rule.path, "/api");
/// assert_eq!(rule.name.as_deref(), Some("api"));
/// # Ok::<_, plimsoll::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleRule {
    /// How often a client may ask.
    pub rate: Rate,
    /// How many requests may come at once: 1 to 1,000,000; if not given, what the rate gives in one second.
    pub burst: Option<u32>,
    /// Whose requests are counted together.
    pub by: ThrottleBy,
    /// The path that the rule is about, and all below it; `/` is every path. Compared as decoded, without dot segments
    /// and empty ones; upper and lower case are two.
    pub path: String,
    /// What clients, metrics and the status page are told of it as: up to 64 letters, digits, `-` and `_`, no two alike.
    /// If not given, `rule1` for the first rule, `rule2` for the second, and so on.
    pub name: Option<String>,
}

impl ThrottleRule {
    /// Each client address may ask for all paths together at this rate.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            rate,
            burst: None,
            by: ThrottleBy::Address,
            path: "/".to_owned(),
            name: None,
        }
    }

    /// A throttle by this rule.
    pub(crate) fn throttle(&self) -> Throttle {
        let throttle = Throttle::new(self.rate);
        match self.burst {
            Some(burst) => throttle.with_burst(burst),
            None => throttle,
        }
    }

    /// The name of a rule at this place, counted from 0.
    pub(crate) fn name_at(&self, place: usize) -> String {
        let name = self.name.clone();
        name.unwrap_or_else(|| format!("rule{}", place + 1))
    }
}

impl FromStr for ThrottleRule {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let rule = parse(text).and_then(|rule| rule.check().map(|()| rule));
        rule.map_err(|complaint| complaint.of("throttle", || format!("{text:?}")))
    }
}

/// What is expected of a burst.
fn bursts() -> String {
    format!("a burst from {} to {}", BURST.start(), BURST.end())
}

/// Reads one rule; whether it is within its bounds is not looked at.
fn parse(text: &str) -> Result<ThrottleRule, Complaint> {
    let mut words = text.split(',');
    let rate = words.next().unwrap_or_default();
    let rate = rate.parse().map_err(|_| unexpected(EXPECTED, text))?;
    let mut rule = ThrottleRule::new(rate);
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "burst" => {
                let burst = parse_count(value).ok_or_else(|| unexpected(&bursts(), word))?;
                rule.burst = Some(burst);
            }
            "by" => {
                rule.by = match value.split_once(':') {
                    None if value == "ip" => ThrottleBy::Address,
                    None if value == "all" => ThrottleBy::All,
                    Some(("header", name)) => ThrottleBy::Header(name.to_owned()),
                    _ => return Err(unexpected("by=ip, by=header:NAME or by=all", word)),
                }
            }
            "path" => value.clone_into(&mut rule.path),
            "name" => rule.name = Some(value.to_owned()),
            _ => return Err(unexpected(EXPECTED, text)),
        }
    }
    Ok(rule)
}

/// As it would be written on the command line.
impl fmt::Display for ThrottleRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.rate)?;
        if let Some(burst) = self.burst {
            write!(f, ",burst={burst}")?;
        }
        if self.by != ThrottleBy::Address {
            write!(f, ",by={}", self.by)?;
        }
        if self.path != "/" {
            write!(f, ",path={}", self.path)?;
        }
        if let Some(name) = &self.name {
            write!(f, ",name={name}")?;
        }
        Ok(())
    }
}

impl ThrottleRule {
    fn check(&self) -> Result<(), Complaint> {
        if let Some(burst) = self.burst.filter(|burst| !BURST.contains(burst)) {
            return Err(Complaint::found(bursts(), burst.to_string()));
        }
        if let ThrottleBy::Header(name) = &self.by
            && (name.is_empty() || !name.bytes().all(is_token_byte))
        {
            return Err(unexpected("by=header:NAME with the name of a header", name));
        }
        let in_path = |byte: u8| byte.is_ascii_graphic() && !b"?#,".contains(&byte);
        if !self.path.starts_with('/') || !self.path.bytes().all(in_path) {
            let expected = "a path that starts with / and has a comma as %2C";
            return Err(unexpected(expected, &self.path));
        }
        if let Some(name) = &self.name
            && (name.len() > LONGEST_NAME || !is_name(name))
        {
            return Err(unexpected(
                "a name of up to 64 letters, digits, - and _",
                name,
            ));
        }
        Ok(())
    }
}

fn unexpected(expected: &str, found: &str) -> Complaint {
    Complaint::found(expected, format!("{found:?}"))
}

/// All rules.
pub(super) struct Throttles;

impl Kind for Throttles {
    type Value = Vec<ThrottleRule>;

    fn placeholder(&self) -> &'static str {
        "RATE[,...]"
    }

    fn expected(&self) -> String {
        EXPECTED.to_owned()
    }

    /// A new rule begins where a part starts with a digit, as a rate does and nothing else in a rule.
    fn split(&self, variable: &str) -> Option<Vec<String>> {
        let begins_rule = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
        Some(kinds::split(variable, begins_rule))
    }

    fn parse(&self, text: &str) -> Result<Self::Value, Complaint> {
        Ok(vec![parse(text)?])
    }

    fn put(&self, value: &mut Self::Value, new: Self::Value) {
        value.extend(new);
    }

    fn clear(&self, value: &mut Self::Value) {
        value.clear();
    }

    fn show(&self, value: &Self::Value) -> String {
        let shown: Vec<_> = value.iter().map(ThrottleRule::to_string).collect();
        shown.join(",")
    }

    fn check(&self, value: &Self::Value) -> Result<(), Complaint> {
        kinds::check_count(&RULES, "rules", value.len())?;
        let mut names = HashSet::new();
        for (place, rule) in value.iter().enumerate() {
            rule.check()?;
            let name = rule.name_at(place);
            let found = format!("{name:?} twice");
            if !names.insert(name) {
                return Err(Complaint::found("a name of its own for each rule", found));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> ThrottleRule {
        text.parse().expect(text)
    }

    #[test]
    fn a_rule_is_written_as_it_is_read() {
        for text in [
            "20/s",
            "10/m,burst=5",
            "5/h,by=all",
            "100/s,by=header:X-Api-Key",
            "20/s,burst=40,by=header:X-Api-Key,path=/api,name=api",
        ] {
            assert_eq!(rule(text).to_string(), text);
        }
        assert_eq!(
            rule("20/s,by=ip,path=/"),
            ThrottleRule::new("20/s".parse().unwrap())
        );
    }

    #[test]
    fn what_is_wrong_with_a_rule_is_named() {
        for (text, named) in [
            ("", "RATE"),
            ("fast", "RATE"),
            ("burst=3", "RATE"),
            ("0/s", "RATE"),
            ("1/d", "RATE"),
            ("1/s,", "RATE"),
            ("1/s,speed=3", "RATE"),
            ("1/s,burst", "a burst from 1"),
            ("1/s,burst=", "a burst from 1"),
            ("1/s,burst=+3", "a burst from 1"),
            ("1/s,burst=0", "from 1 to 1000000"),
            ("1/s,burst=99999999999", "from 1 to 1000000"),
            ("1/s,by=", "by=ip"),
            ("1/s,by=peer", "by=ip"),
            ("1/s,by=header", "by=ip"),
            ("1/s,by=header:", "the name of a header"),
            ("1/s,by=header:a b", "the name of a header"),
            ("1/s,path=", "starts with /"),
            ("1/s,path=api", "starts with /"),
            ("1/s,path=/a?b", "starts with /"),
            ("1/s,name=", "letters"),
            ("1/s,name=a.b", "letters"),
        ] {
            let error = text.parse::<ThrottleRule>().expect_err(text).to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn each_rule_has_a_name_of_its_own() {
        let named = |names: [&str; 2]| {
            let rules = names.map(|name| rule(&format!("1/s{name}")));
            let checked = Throttles.check(&rules.into());
            checked.map_err(|complaint| complaint.of("throttle", String::new).to_string())
        };
        assert_eq!(named(["", ""]), Ok(()));
        assert_eq!(named([",name=a", ",name=b"]), Ok(()));
        let twice = "throttle: expected a name of its own for each rule, found \"a\" twice";
        assert_eq!(named([",name=a", ",name=a"]), Err(twice.to_owned()));
        assert!(named([",name=rule2", ""]).is_err());
        assert!(Throttles.check(&vec![rule("1/s"); 17]).is_err());
    }
    #[test]
    fn a_list_is_split_where_a_rate_begins() {
        let list = "20/s,by=all, 10/m ,path=/login,name=login,5/h";
        let rules = Throttles.split(list).expect("a list");
        assert_eq!(rules, ["20/s,by=all", "10/m,path=/login,name=login", "5/h"]);
        let read = rules.iter().map(|text| rule(text)).collect();
        assert_eq!(Throttles.show(&read), list.replace(' ', ""));
        assert_eq!(Throttles.split("by=all"), Some(vec!["by=all".to_owned()]));
    }
}
