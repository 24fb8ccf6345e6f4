//! Any bytes as one client's conversation, and as an order of calls.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll::internals::invariants::connection(data));
