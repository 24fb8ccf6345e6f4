//! Where the patterns take their random numbers from.

use crate::random;
use std::fmt;

/// A source of random numbers: this thread's own, unless a test wants to know them.
#[derive(Default)]
pub(super) struct Chance(Option<Box<dyn Fn() -> f64 + Send + Sync>>);

impl Chance {
    pub(super) fn given(random: impl Fn() -> f64 + Send + Sync + 'static) -> Self {
        Self(Some(Box::new(random)))
    }

    /// A number in [0, 1), whatever the source gives.
    pub(super) fn draw(&self) -> f64 {
        let number = self
            .0
            .as_ref()
            .map_or_else(random::uniform, |given| given());
        // The comparison also replaces NaN.
        if (0.0..1.0).contains(&number) {
            number
        } else {
            0.0
        }
    }
}

impl fmt::Debug for Chance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "given" } else { "random" })
    }
}
