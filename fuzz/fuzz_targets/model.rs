//! Any story of a few clients: the ledger says what a map that is scanned at every step says.
#![no_main]

#[path = "../../tests/property/model.rs"]
mod model;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| model::gateway_agrees_with_the_model(bytes));
