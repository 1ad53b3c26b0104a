//! Any bytes to a WebSocket, cut anyhow: the same goes up.
#![no_main]

#[path = "../../tests/property/websocket.rs"]
mod websocket;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| websocket::any_split_goes_up_alike(bytes));
