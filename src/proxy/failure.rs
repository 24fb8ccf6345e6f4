//! Why a client does not get the answer of an endpoint, and what it gets instead.

use std::sync::Mutex;
use std::time::Duration;

use super::headers::PSEUDONYM;
use crate::Response;
use crate::net::client::ClientError;
use crate::panics::lock;
use crate::patterns::Unavailable;

/// Why there is no answer of an endpoint.
#[derive(Debug)]
pub(super) enum Failure {
    /// No endpoint could be asked.
    Unavailable(Unavailable),
    /// The endpoint gave no response.
    Client(ClientError),
}

/// Failures that clients were told of, by the error type of Proxy-Status.
#[derive(Debug, Default)]
pub(super) struct Failures(Mutex<Vec<(&'static str, u64)>>);

impl Failures {
    fn count(&self, token: &'static str) {
        let mut counts = lock(&self.0);
        match counts.iter_mut().find(|(known, _)| *known == token) {
            Some((_, count)) => *count += 1,
            None => counts.push((token, 1)),
        }
    }

    pub(super) fn read(&self) -> Vec<(&'static str, u64)> {
        lock(&self.0).clone()
    }
}

/// The shortest `Retry-After`.
const SOON: Duration = Duration::from_secs(1);

/// What a client gets when no endpoint could be asked.
pub(super) fn unavailable(why: &Unavailable, failures: &Failures) -> Response {
    let (token, wait) = match why {
        Unavailable::Full => ("connection_limit_reached", SOON),
        Unavailable::Open { remaining } => ("destination_unavailable", *remaining),
        Unavailable::Empty => ("destination_unavailable", SOON),
    };
    let seconds = wait.max(SOON).as_millis().div_ceil(1000);
    reply(503, token, why.to_string(), failures).with_header("Retry-After", seconds.to_string())
}

/// What a client gets when an endpoint gave no response.
pub(super) fn no_response(error: &ClientError, failures: &Failures) -> Response {
    reply(error.status(), error.token(), error.to_string(), failures)
}

/// A reply with `Proxy-Status` (RFC 9209).
fn reply(status: u16, token: &'static str, mut text: String, failures: &Failures) -> Response {
    failures.count(token);
    text.push('\n');
    Response::text(status, text).with_header("Proxy-Status", format!("{PSEUDONYM}; error={token}"))
}
