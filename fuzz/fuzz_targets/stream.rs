//! Any cut of any stream: the same comes out.
#![no_main]

#[path = "../../tests/property/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::any_split_gives_the_same(bytes));
