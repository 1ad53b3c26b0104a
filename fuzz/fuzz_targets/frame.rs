//! Any bytes: read or refused.
#![no_main]

#[path = "../../tests/property/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::decode_any_bytes(bytes));
