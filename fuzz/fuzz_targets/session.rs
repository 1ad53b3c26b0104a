//! Any story of a few connections: the books balance, and the cut does not matter.
#![no_main]

#[path = "../../tests/property/session.rs"]
mod session;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| session::does_not_depend_on_the_cut(bytes));
