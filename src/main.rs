//! The program `heartwheel`; everything it does is in the library.

fn main() {}
