#![no_main]
#[path = "../../tests/property/wheel.rs"]
mod wheel;
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wheel::agrees_with_naive_bytes(bytes));
