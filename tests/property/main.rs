//! What holds for any input, tried with many. Each property is a function; fuzzers call it too.

mod journal;
mod layers;
mod model;
mod session;
mod token;
mod tracker;
mod websocket;
mod wheel;
mod wire;
