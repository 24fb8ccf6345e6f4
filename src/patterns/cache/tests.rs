//! The rules of a cache, each beside its section of RFC 9111 unless another is named. Times are seconds since a start
//! that is the same on both clocks.

mod flights;
mod hits;
mod hostile;
mod memory;
mod parsing;
mod rules;
mod serving;

use std::time::{Duration, Instant};

use super::*;

/// A cache with an origin that says what the test wants.
struct Scene {
    cache: Cache,
    start: CacheTime,
}

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn fields(pairs: Pairs<'_>) -> Fields {
    pairs.iter().copied().collect()
}

fn get(fields: &Fields) -> CacheRequest<'_> {
    CacheRequest {
        method: "GET",
        https: false,
        host: "h",
        target: "/",
        fields,
        has_body: false,
    }
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    bytes.map(|bytes| str::from_utf8(bytes).expect("UTF-8"))
}

/// What a client gets.
#[derive(Debug, PartialEq, Eq)]
struct Got {
    status: u16,
    body: String,
    cache_status: String,
    fields: Fields,
    /// What the origin was sent, if it was asked.
    asked: Option<Fields>,
}

impl Got {
    fn field(&self, name: &str) -> Option<&str> {
        text(self.fields.first(name))
    }

    fn is_hit(&self) -> bool {
        self.asked.is_none()
    }

    fn of(reply: &CachedReply, asked: Option<Fields>) -> Self {
        Self {
            status: reply.status(),
            body: String::from_utf8_lossy(&reply.body()).into_owned(),
            cache_status: status_of(reply.fields()),
            fields: reply.fields().clone(),
            asked,
        }
    }
}

fn status_of(fields: &Fields) -> String {
    text(fields.first("Cache-Status"))
        .unwrap_or_default()
        .to_owned()
}

impl Scene {
    fn new() -> Self {
        Self::with(Cache::new(1 << 20))
    }

    fn with(cache: Cache) -> Self {
        let wall = date::parse("Thu, 01 Jan 2026 00:00:00 GMT").expect("a date");
        Self {
            cache,
            start: CacheTime {
                monotonic: Instant::now(),
                wall,
            },
        }
    }

    fn at(&self, second: u64) -> CacheTime {
        CacheTime {
            monotonic: self.start.monotonic + Duration::from_secs(second),
            wall: self.start.wall + Duration::from_secs(second),
        }
    }

    /// A date so many seconds after the start, or before it.
    fn date(&self, second: i64) -> String {
        let by = Duration::from_secs(second.unsigned_abs());
        let time = if second < 0 {
            self.start.wall - by
        } else {
            self.start.wall + by
        };
        httpdate::fmt_http_date(time)
    }

    /// One request at this second, which the origin, if it is asked, answers so, at once.
    fn ask(&self, second: u64, request: &CacheRequest<'_>, answer: (u16, Pairs<'_>, &str)) -> Got {
        let hit = self.hit(second, request);
        let got = self.look_up(second, request, answer);
        if let Some(hit) = hit {
            assert_eq!(hit, got, "the shortest way leads to the same");
        }
        got
    }

    /// What the shortest way through the cache leads to.
    fn hit(&self, second: u64, request: &CacheRequest<'_>) -> Option<Got> {
        let CacheRequest {
            method: "GET",
            has_body: false,
            https,
            host,
            target,
            fields,
        } = *request
        else {
            return None;
        };
        let plain = PlainGet {
            https,
            host,
            target,
            fields: fields.iter(),
            is_sent_on: |_| true,
        };
        let reply = self.cache.hit(&plain, self.at(second).monotonic)?;
        assert_eq!(reply.result(), CacheResult::Hit);
        Some(Got::of(&reply, None))
    }

    fn look_up(
        &self,
        second: u64,
        request: &CacheRequest<'_>,
        answer: (u16, Pairs<'_>, &str),
    ) -> Got {
        let now = self.at(second);
        match self.cache.lookup(request, now) {
            Lookup::Reply(reply) => Got::of(&reply, None),
            Lookup::ReplyAndRefresh(reply, fetch) => {
                let asked = fetch.fields().clone();
                answer_fetch(fetch, now, request, answer);
                Got::of(&reply, Some(asked))
            }
            Lookup::Fetch(fetch) => answer_fetch(fetch, now, request, answer),
            Lookup::Wait(_) => panic!("nobody else asks"),
        }
    }

    /// A plain GET at this second.
    fn get(&self, second: u64, answer: (u16, Pairs<'_>, &str)) -> Got {
        self.ask(second, &get(&Fields::new()), answer)
    }

    fn get_with(&self, second: u64, request: Pairs<'_>, answer: (u16, Pairs<'_>, &str)) -> Got {
        self.ask(second, &get(&fields(request)), answer)
    }

    /// Whether a second plain GET, so much later, is answered without asking.
    fn is_kept(&self, second: u64) -> bool {
        self.get(second, (500, &[], "")).is_hit()
    }
}

/// The origin answers a fetch so.
fn answer_fetch(
    fetch: Fetch,
    now: CacheTime,
    request: &CacheRequest<'_>,
    (status, pairs, body): (u16, Pairs<'_>, &str),
) -> Got {
    let asked = Some(fetch.fields().clone());
    match fetch.respond(status, &fields(pairs), now) {
        Fetched::Reply(reply) => Got::of(&reply, asked),
        Fetched::Relay { fields, filling } => {
            let body = if request.method == "HEAD" { "" } else { body };
            if let Some(mut filling) = filling {
                filling.write(body.as_bytes());
                filling.finish(now);
            }
            Got {
                status,
                body: body.to_owned(),
                cache_status: status_of(&fields),
                fields,
                asked,
            }
        }
    }
}
