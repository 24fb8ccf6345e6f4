//! A request to the cache: as it is looked up, and as it is remembered while its reply is fetched.

use super::fields::Fields;
use super::flight::FetchOutcome;
use super::key::Key;

/// After so many waits in vain a request makes its own fetch.
const MOST_WAITS: u8 = 2;

/// A request as it is looked up, perhaps again.
pub(super) struct Question<'a> {
    pub(super) key: &'a Key,
    pub(super) method: &'a str,
    pub(super) fields: &'a Fields,
    /// How often it has waited for others.
    pub(super) waits: u8,
    /// How the last of these fetches ended.
    pub(super) outcome: Option<FetchOutcome>,
}

impl Question<'_> {
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Nobody is to wait for it, nor it for others.
    pub(super) fn is_alone(&self) -> bool {
        let had_enough = self.waits >= MOST_WAITS;
        let outcome = self.outcome;
        had_enough
            || matches!(
                outcome,
                Some(FetchOutcome::NotShared | FetchOutcome::Failed)
            )
            || self.is_head()
            || self.fields.contains("Range")
            // Its reply may be its client's alone, which says nothing of what others would get.
            || self.fields.contains("Authorization")
    }

    pub(super) fn owned(&self) -> OwnedRequest {
        OwnedRequest {
            method: self.method.to_owned(),
            fields: self.fields.clone(),
        }
    }
}

/// What is remembered of a request while its reply is fetched.
#[derive(Debug, Clone)]
pub(super) struct OwnedRequest {
    pub(super) method: String,
    pub(super) fields: Fields,
}

impl OwnedRequest {
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}
