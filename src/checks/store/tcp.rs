//! A server that accepts connections: all that can be asked of one whose protocol is not known.

use std::time::Instant;

use super::wire;
use crate::checks::CheckError;
use crate::net::url::{Endpoint, StoreUrlError, Url};

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Tcp(Endpoint);

impl Tcp {
    pub(super) fn new(url: &Url) -> Result<Self, StoreUrlError> {
        url.refuse_user()?;
        url.refuse_path()?;
        url.refuse_options()?;
        Ok(Self(url.endpoint(None)?))
    }

    pub(super) fn check(&self, deadline: Instant) -> Result<(), CheckError> {
        wire::connect(&self.0, deadline).map(drop)
    }
}
