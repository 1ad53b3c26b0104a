//! What holds for any input, tried with many. Each property is a function that the fuzzers call too.

mod tracker;
mod wheel;
mod wire;
