//! Any bytes as a server's reply to be relayed, or as what two sides of a tunnel send, in any steps.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll::internals::invariants::relay(data));
