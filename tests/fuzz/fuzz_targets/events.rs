//! Any bytes as a segment of a queue of events that starts, and as a script of what stands in one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| plimsoll::internals::invariants::event_segment(data));
