//! Any bytes as a request's body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll::internals::invariants::body(data));
