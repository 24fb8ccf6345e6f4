//! Any bytes as a request's head.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll::internals::invariants::head(data));
