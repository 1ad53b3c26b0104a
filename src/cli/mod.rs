//! Words in, exit code out: the commands.
//!
//! May import: base, wire, tracker, os, gateway, layers, client, server, load, control.
//! Never here: anything that another program embedding this crate would miss.

pub mod admin;
pub mod args;
pub mod board;
pub mod check_config;
pub mod classes;
pub mod completions;
pub mod config;
pub mod configuration;
pub mod ctl;
pub mod demo;
pub mod doctor;
pub mod edge;
pub mod error;
pub mod events;
pub mod example;
mod explain;
mod gauge;
pub mod hook;
pub mod identity;
pub mod keys;
mod kinds;
pub mod layers;
pub mod load;
mod machine;
pub mod mistakes;
pub mod origins;
pub mod reload;
pub mod serve;
pub mod signals;
pub mod tables;
pub mod tls;
pub mod top;
pub mod usage;
pub mod values;
pub mod webhooks;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::cli::args::Command;
use crate::cli::error::CliError;
use crate::cli::usage::Typed;

/// Runs the program: parses `words`, the program's own name first, does what they say, and tells
/// on standard error what went wrong, a line for each thing that did.
///
/// The code is 0 when all went well, 2 when the words were not understood, 1 otherwise. A reader
/// of standard output who has gone away has read all it wanted: that is no failure.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let outcome = usage::read(words).and_then(run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(CliError::Stdout { cause }) if cause.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            for line in error.lines() {
                // Without standard error there is nobody left to tell.
                let _ = writeln!(io::stderr(), "heartwheel: {line}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(typed: Typed) -> Result<(), CliError> {
    match typed {
        Typed::Page(page) => write_stdout(page.as_bytes()),
        Typed::Command { command: Command::Serve(_), flags, .. } => serve::run(&flags),
        Typed::Command { command: Command::CheckConfig(args), flags, wrong } => {
            check_config::run(&args, &flags, wrong)
        }
        Typed::Command { command: Command::Demo(args), .. } => demo::run(&args),
        Typed::Command { command: Command::Load(args), .. } => load::run(&args),
        Typed::Command { command: Command::Events(args), .. } => events::run(&args),
        Typed::Command { command: Command::Doctor(args), .. } => doctor::run(&args),
        Typed::Command { command: Command::Ctl(args), .. } => ctl::run(&args),
        Typed::Command { command: Command::Top(args), .. } => top::run(&args),
        Typed::Command { command: Command::Completions(args), .. } => {
            write_stdout(&completions::script(args.shell))
        }
        Typed::Command { command: Command::Man(args), .. } => {
            write_stdout(&completions::man_page(args.command.as_deref())?)
        }
    }
}

/// Writes all of `bytes` to standard output.
fn write_stdout(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|cause| CliError::Stdout { cause })
}
