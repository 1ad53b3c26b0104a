//! Placeholder until the first measurement.

fn main() {}
