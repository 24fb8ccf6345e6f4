//! How an option names a Redis.

use plimsoll::patterns::RedisUrl;
use plimsoll::settings::{Complaint, Kind};

/// The URL of a Redis. What an error shows of it is nothing that might be a piece of a password.
pub(super) struct Redis;

impl Kind for Redis {
    type Value = RedisUrl;

    fn placeholder(&self) -> &'static str {
        "URL"
    }

    fn expected(&self) -> String {
        "redis://[[user]:password@]host[:port][/database]".to_owned()
    }

    fn parse(&self, text: &str) -> Result<RedisUrl, Complaint> {
        text.parse::<RedisUrl>().map_err(|error| Complaint {
            about: Some(error.part.to_string()),
            expected: error.expected,
            found: Some(error.found),
        })
    }

    fn show(&self, value: &RedisUrl) -> String {
        value.to_string()
    }

    fn check(&self, _: &RedisUrl) -> Result<(), Complaint> {
        Ok(())
    }
}
