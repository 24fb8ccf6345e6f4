//! Throttling: the rules in force, and which of them refuses a request.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::http::head::Head;
use crate::http::path;
#[cfg(feature = "redis")]
use crate::http::refusal::Refusal;
use crate::patterns::{self, Throttle, ThrottleKey};
#[cfg(feature = "redis")]
use crate::patterns::{SharedCheck, SharedLimit, ThrottleStore};
#[cfg(feature = "redis")]
use crate::server::response::Response;
use crate::settings::{ThrottleBy, ThrottleRule};

/// All rules, in the order in which they were given.
#[derive(Debug, Default)]
pub(crate) struct Throttling {
    rules: Box<[Rule]>,
    /// Where replicas count together what each has let through.
    #[cfg(feature = "redis")]
    store: Option<ThrottleStore>,
}

/// A rule in force.
#[derive(Debug)]
struct Rule {
    throttle: Throttle,
    by: ThrottleBy,
    /// The path that it is about, resolved.
    prefix: Vec<u8>,
    name: String,
}

/// A request comes too often.
#[derive(Debug)]
pub(crate) struct Throttled<'a> {
    rule: &'a Rule,
    /// The rule's place among all.
    pub(crate) place: usize,
    /// Whole seconds until it will be let through.
    pub(crate) retry_after: u64,
}

impl Throttling {
    pub(crate) fn new(settings: &[ThrottleRule]) -> Self {
        let rules = settings.iter().enumerate().map(|(place, setting)| Rule {
            throttle: setting.throttle(),
            by: setting.by.clone(),
            prefix: path::resolved(&setting.path).into_owned(),
            name: setting.name_at(place),
        });
        Self {
            rules: rules.collect(),
            #[cfg(feature = "redis")]
            store: None,
        }
    }

    /// The same, with a store where replicas count together.
    #[cfg(feature = "redis")]
    pub(crate) fn shared_in(self, store: Option<ThrottleStore>) -> Self {
        Self { store, ..self }
    }

    /// Counts a request under every rule that is about it, unless one refuses it: then it counts under none.
    pub(crate) fn check(
        &self,
        head: &Head,
        client: IpAddr,
        now: Instant,
    ) -> Result<(), Throttled<'_>> {
        if self.rules.is_empty() {
            return Ok(());
        }
        let path = path::resolved(head.path());
        for (place, rule) in self.about(&path) {
            let Err(throttled) = rule.throttle.check(rule.key(head, client), now) else {
                continue;
            };
            let earlier = self
                .about(&path)
                .take_while(|(earlier, _)| *earlier < place);
            for (_, earlier) in earlier {
                earlier.throttle.give_back(earlier.key(head, client));
            }
            return Err(Throttled::new(rule, place, throttled));
        }
        Ok(())
    }

    /// Counts a request that was let through here under what all replicas count together. One that is refused then does
    /// not count here either. May wait for the store.
    #[cfg(feature = "redis")]
    pub(crate) fn check_shared(&self, head: &Head, client: IpAddr) -> Result<(), Throttled<'_>> {
        let Some(store) = &self.store else {
            return Ok(());
        };
        let path = path::resolved(head.path());
        let (places, limits): (Vec<_>, Vec<_>) = self
            .about(&path)
            .map(|(place, rule)| {
                let limit = SharedLimit {
                    name: &rule.name,
                    throttle: &rule.throttle,
                    key: rule.key(head, client),
                };
                (place, limit)
            })
            .unzip();
        if limits.is_empty() {
            return Ok(());
        }
        let SharedCheck::Throttled { place, throttled } = store.check(&limits) else {
            return Ok(());
        };
        for limit in limits {
            limit.throttle.give_back(limit.key);
        }
        let place = places[place];
        Err(Throttled::new(&self.rules[place], place, throttled))
    }

    /// The rules about this path, resolved, each with its place.
    fn about(&self, path: &[u8]) -> impl Iterator<Item = (usize, &Rule)> {
        let rules = self.rules.iter().enumerate();
        rules.filter(|(_, rule)| path::is_under(path, &rule.prefix))
    }
}

impl Rule {
    fn key<'a>(&self, head: &'a Head, client: IpAddr) -> ThrottleKey<'a> {
        match &self.by {
            ThrottleBy::All => ThrottleKey::All,
            ThrottleBy::Address => ThrottleKey::Address(client),
            ThrottleBy::Header(wanted) => {
                let mut values = head
                    .fields()
                    .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
                match (values.next(), values.next()) {
                    (Some((_, value)), None) => ThrottleKey::Value(value),
                    // Of two values nobody knows which one the service goes by.
                    _ => ThrottleKey::Address(client),
                }
            }
        }
    }
}

impl<'a> Throttled<'a> {
    fn new(rule: &'a Rule, place: usize, throttled: patterns::Throttled) -> Self {
        Self {
            rule,
            place,
            retry_after: whole_seconds(throttled.retry_after),
        }
    }

    /// The answer to a request that a worker has already.
    #[cfg(feature = "redis")]
    pub(crate) fn response(&self) -> Response {
        let refusal = Refusal::Throttled;
        let response = Response::text(refusal.status(), refusal.text())
            .with_header("Retry-After", self.retry_after.to_string());
        let fields = self.fields().into_iter();
        fields.fold(response, |response, (name, value)| {
            response.with_header(name, value)
        })
    }

    /// The fields that tell the client what it may do, as of draft-ietf-httpapi-ratelimit-headers-08 and later:
    /// structured fields, with times in seconds.
    pub(crate) fn fields(&self) -> [(&'static str, String); 2] {
        let (name, rate) = (&self.rule.name, self.rule.throttle.rate());
        let (quota, window) = (rate.count(), rate.period().as_secs());
        [
            (
                "RateLimit-Policy",
                format!("\"{name}\";q={quota};w={window}"),
            ),
            (
                "RateLimit",
                format!("\"{name}\";r=0;t={}", self.retry_after),
            ),
        ]
    }
}

/// Rounded up: who comes a moment too early is refused again.
fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::{self, Scan};

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn throttling(rules: &[&str]) -> Throttling {
        let rules: Vec<_> = rules.iter().map(|rule| rule.parse().expect(rule)).collect();
        Throttling::new(&rules)
    }

    fn head(path: &str, fields: &str) -> Head {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let parsed = head::parse(text.as_bytes(), 1024, &mut Scan::default());
        parsed.expect(path).expect(path).1
    }

    /// Path, fields, client, and the rule that refuses, if one does.
    type Row = (&'static str, &'static str, IpAddr, Option<&'static str>);

    #[test]
    fn requests_at_one_moment_are_refused_by_the_rules_that_they_are_about() {
        let tables: [(&str, &[&str], &[Row]); 3] = [
            (
                "a rule is about its path, however that is spelled",
                &["1/h,path=/log%69n/,name=r"],
                &[
                    ("/login", "", CLIENT, None),
                    ("/other", "", CLIENT, None),
                    ("/loginx", "", CLIENT, None),
                    ("//x/../login", "", CLIENT, Some("r")),
                    ("/login/a?b", "", CLIENT, Some("r")),
                    ("/%6cogin/", "", CLIENT, Some("r")),
                    ("/LOGIN", "", CLIENT, None),
                ],
            ),
            (
                "they count by a header, and under the address without one",
                &["1/h,by=header:x-key,name=r"],
                &[
                    ("/", "X-Key: a\r\n", CLIENT, None),
                    ("/", "X-Key: a\r\n", OTHER, Some("r")),
                    ("/", "X-Key: b\r\n", CLIENT, None),
                    ("/", "", CLIENT, None),
                    ("/", "", CLIENT, Some("r")),
                    ("/", "X-Key: c\r\nx-key: a\r\n", CLIENT, Some("r")),
                    ("/", "", OTHER, None),
                ],
            ),
            (
                "one that a rule refuses counts under no other",
                &["2/h,burst=2,by=all,name=whole", "1/h,path=/a,name=part"],
                &[
                    ("/a", "", CLIENT, None),
                    ("/a", "", CLIENT, Some("part")),
                    ("/a", "", CLIENT, Some("part")),
                    ("/b", "", CLIENT, None),
                    ("/b", "", CLIENT, Some("whole")),
                ],
            ),
        ];
        for (what, rules, requests) in tables {
            let (throttling, now) = (throttling(rules), Instant::now());
            for (place, (path, fields, client, refused_by)) in requests.iter().enumerate() {
                let checked = throttling.check(&head(path, fields), *client, now);
                let refused = checked.err().map(|throttled| throttled.rule.name.clone());
                assert_eq!(refused.as_deref(), *refused_by, "{what}: {place}, {path}");
            }
        }
    }

    #[test]
    fn a_refusal_tells_the_policy_and_when_to_come_again() {
        let throttling = throttling(&["10/m,burst=1"]);
        let now = Instant::now();
        let head = head("/", "");
        assert!(throttling.check(&head, CLIENT, now).is_ok());
        let throttled = throttling
            .check(&head, CLIENT, now + Duration::from_millis(1))
            .expect_err("the second within six seconds");
        assert_eq!(throttled.retry_after, 6, "5.999 s");
        assert_eq!(
            throttled
                .fields()
                .map(|(name, value)| format!("{name}: {value}")),
            [
                "RateLimit-Policy: \"rule1\";q=10;w=60",
                "RateLimit: \"rule1\";r=0;t=6",
            ]
        );
    }
}
