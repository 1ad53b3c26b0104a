//! Any story of one connection between a kernel and a gateway: both contracts hold.
#![no_main]

#[path = "../../tests/property/layers.rs"]
mod layers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| layers::keep_the_contract(bytes));
