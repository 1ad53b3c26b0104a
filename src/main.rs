//! The program `heartwheel`; everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    heartwheel::cli::main(std::env::args_os())
}
