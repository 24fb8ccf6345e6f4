//! What an endpoint answers.

#[cfg(feature = "cache")]
use std::io::Read;

use super::slots::Slot;
use super::upstreams::Upstream;
use crate::http::response::ResponseHead;
use crate::net::client::{Parts, ReplyBody};
use crate::patterns::Pick;

/// An endpoint's answer.
pub(super) struct Answer {
    pub(super) head: ResponseHead,
    pub(super) body: AnswerBody,
    /// The interim replies before it.
    pub(super) interim: Vec<ResponseHead>,
    /// None once the body is whole: the endpoint is done with the request, and can do another. None also while another
    /// try may replace it, which may need the endpoint's only place.
    pub(super) pick: Option<Pick<Upstream>>,
    /// None once the body is whole: there is no connection.
    pub(super) slot: Option<Slot>,
}

/// Its body, or what comes in its place.
pub(super) enum AnswerBody {
    Whole(Vec<u8>),
    /// It is still to come, in whole or in part.
    Rest(ReplyBody),
    /// A part of it that has come, and what is still to come.
    #[cfg(feature = "cache")]
    Part(Box<dyn Read + Send>, ReplyBody),
    /// The endpoint has switched to this protocol.
    Tunnel(Parts, String),
}
