//! Any bytes as a server's response.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll::internals::invariants::response(data));
