//! Why a request has no response.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::http::response::ResponseError;

/// Why there is no response, or no more of it.
#[derive(Debug)]
pub(crate) enum ClientError {
    /// The server cannot be connected to.
    Connect(io::Error),
    /// The connection was not made in time.
    ConnectTimeout,
    /// A kept connection turned out to be closed, before a byte of the response: the server may not have seen the
    /// request. Another try, on a [new connection](crate::net::pool::Reuse::Never), tells nothing about the server's health.
    Stale,
    /// The connection was closed before a byte of the response.
    Closed,
    /// The connection was closed in the middle of the response.
    Incomplete,
    /// The request was not taken in time.
    SendTimeout,
    /// The response did not come in time.
    ResponseTimeout,
    /// What came is no response: the beginning of it.
    StatusLine(Vec<u8>),
    /// The response is not acceptable.
    Response(ResponseError),
    /// The caller does not want the response any more.
    Cancelled,
}

impl ClientError {
    /// Whether nobody listens there, as on a Unix socket that does not exist.
    pub(crate) fn is_refusal(&self) -> bool {
        let kind = match self {
            Self::Connect(error) => error.kind(),
            _ => return false,
        };
        matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::NotFound)
    }

    /// The error type of Proxy-Status (RFC 9209 2.3).
    pub(crate) fn token(&self) -> &'static str {
        match self {
            Self::Connect(_) if self.is_refusal() => "connection_refused",
            Self::Connect(error) => match error.kind() {
                ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
                    "destination_ip_unroutable"
                }
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => {
                    "connection_terminated"
                }
                _ => "proxy_internal_error",
            },
            Self::ConnectTimeout => "connection_timeout",
            Self::Stale | Self::Closed => "connection_terminated",
            Self::Incomplete => "http_response_incomplete",
            Self::SendTimeout => "connection_write_timeout",
            Self::ResponseTimeout => "http_response_timeout",
            Self::StatusLine(_) => ResponseError::StatusLine.token(),
            Self::Response(error) => error.token(),
            Self::Cancelled => "http_request_error",
        }
    }

    /// The status of the reply that says so: 504 when time is over, 499 (nginx's) when it was not waited for, else 502.
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Cancelled => 499,
            Self::ConnectTimeout | Self::SendTimeout | Self::ResponseTimeout => 504,
            _ => 502,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect(error) => return error.fmt(f),
            Self::StatusLine(_) => return ResponseError::StatusLine.fmt(f),
            Self::Response(error) => return error.fmt(f),
            Self::ConnectTimeout => "no connection in time",
            Self::SendTimeout | Self::ResponseTimeout => "no answer in time",
            Self::Stale | Self::Closed => "the connection was closed before the answer",
            Self::Incomplete => "the connection was closed in the middle of the answer",
            Self::Cancelled => "the answer is not wanted any more",
        })
    }
}

impl std::error::Error for ClientError {}

impl From<ResponseError> for ClientError {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

impl From<ClientError> for io::Error {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::ResponseTimeout => ErrorKind::TimedOut,
            ClientError::Incomplete => ErrorKind::UnexpectedEof,
            _ => ErrorKind::InvalidData,
        };
        Self::new(kind, error)
    }
}
