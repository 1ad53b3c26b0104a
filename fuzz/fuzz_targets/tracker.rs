#![no_main]
#[path = "../../tests/property/tracker.rs"]
mod tracker;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tracker::agrees_with_naive_bytes(bytes));
