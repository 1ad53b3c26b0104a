//! Any bytes in a segment, and any life of a journal: what is read is right, or told as missing.
#![no_main]

#[path = "../../tests/property/journal.rs"]
mod journal;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    match bytes.split_first() {
        Some((0..128, rest)) => journal::any_bytes_are_read(rest),
        Some((_, rest)) => journal::is_read_as_it_was_written(rest),
        None => {}
    }
});
