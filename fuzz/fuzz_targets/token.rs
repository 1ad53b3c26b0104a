//! Any bytes as a token: read or refused, and true only where they were made with the key.
#![no_main]

#[path = "../../tests/property/token.rs"]
mod token;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| token::any_bytes_are_a_token_or_none(bytes));
