//! From words to a command, or to a page of help, or to one line that says what is wrong.

use std::ffi::OsString;
use std::ops::Range;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::args::{Cli, Command};
use crate::cli::error::CliError;
use crate::cli::mistakes::Mistakes;

/// What was typed.
#[derive(Debug)]
pub enum Typed {
    /// A wish for help or for the version: the text to show.
    Page(String),
    /// A command.
    Command {
        /// What it is.
        command: Command,
        /// Which of its flags were typed, as opposed to assumed.
        flags: ArgMatches,
        /// What else was typed and not understood. Only `check-config` reads on behind a mistake.
        wrong: Mistakes,
    },
}

/// The command that reads on behind a mistake.
const CHECKS: &str = "check-config";

/// Reads `words`, the program's own name first.
pub fn read(words: impl IntoIterator<Item = OsString>) -> Result<Typed, CliError> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let mut wrong = Mistakes::default();
    let matches = loop {
        let error = match Cli::command().try_get_matches_from(&words) {
            Ok(matches) => break matches,
            Err(error) => error,
        };
        match culprit(&error, &words) {
            Some(place) => {
                wrong.add(CliError::usage(one_line(&error)));
                words.drain(place);
            }
            None if wrong.is_empty() => return page_or_error(&error),
            None => {
                wrong.add(CliError::usage(one_line(&error)));
                return Err(CliError::Several { mistakes: wrong });
            }
        }
    };
    let cli = Cli::from_arg_matches(&matches).map_err(|error| CliError::usage(one_line(&error)))?;
    let (_, flags) = matches.subcommand().expect("clap insists on a command");
    Ok(Typed::Command { command: cli.command, flags: flags.clone(), wrong })
}

/// Which of the words behind [`CHECKS`] are not understood, with their value.
fn culprit(error: &Error, words: &[OsString]) -> Option<Range<usize>> {
    let is_page = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if is_page || words.get(1)? != CHECKS {
        return None;
    }
    let Some(ContextValue::String(said)) = error.get(ContextKind::InvalidArg) else { return None };
    let flag = said.split([' ', '=']).next()?;
    let is_it = |word: &OsString| {
        let word = word.to_string_lossy();
        word == flag || word.strip_prefix(flag).is_some_and(|rest| rest.starts_with('='))
    };
    let at = 2 + words.iter().skip(2).position(is_it)?;
    let is_flag = |word: &OsString| word.to_string_lossy().starts_with("--");
    let has_value = is_flag(&words[at])
        && words[at] == flag
        && words.get(at + 1).is_some_and(|next| !is_flag(next));
    Some(at..at + 1 + usize::from(has_value))
}

/// The text of a parse error as one line: what is wrong, the tip, and where to read more.
pub fn one_line(error: &Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut line = String::new();
    for part in text.lines().map(str::trim).take_while(|part| !is_epilogue(part)) {
        let (joint, part) = match part.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None => (" ", part),
        };
        if !line.is_empty() && !part.is_empty() {
            line.push_str(joint);
        }
        line.push_str(part);
    }
    line
}

fn page_or_error(error: &Error) -> Result<Typed, CliError> {
    let kind = error.kind();
    if matches!(kind, ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(Typed::Page(error.to_string()));
    }
    if kind == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return Err(CliError::usage(
            "no command given; try 'heartwheel --help' or 'heartwheel demo'",
        ));
    }
    Err(CliError::usage(format!("{}; try --help", one_line(error))))
}

/// Whether this line of a parse error begins what the person can read with `--help` as well.
fn is_epilogue(line: &str) -> bool {
    line.starts_with("Usage:") || line.starts_with("For more information")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(words: &str) -> String {
        let words = words.split(' ').map(OsString::from);
        match read(words) {
            Err(error) => error.line(),
            Ok(typed) => panic!("understood: {typed:?}"),
        }
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (words, parts) in [
            ("heartwheel", vec!["no command given"]),
            ("heartwheel sevre", vec!["sevre", "'serve'"]),
            ("heartwheel serve --intervall 5s", vec!["--intervall", "; ", "'--interval'"]),
            ("heartwheel serve --interval soon", vec!["'soon'", "--interval", "15s"]),
            ("heartwheel serve --interval", vec!["--interval", "value is required"]),
            ("heartwheel serve --preset fast", vec!["'fast'", "typical, demanding, mobile"]),
            ("heartwheel serve --preset mobile --timeout 9s", vec!["--preset", "--timeout"]),
            ("heartwheel load --clients 5", vec!["required", "--target", "--interval", "--for"]),
        ] {
            let line = complaint(words);
            assert!(!line.contains('\n') && !line.contains("\\n"), "{line}");
            assert!(!line.contains("Usage"), "{line}");
            for part in parts {
                assert!(line.contains(part), "{words}: {part:?} is not in: {line}");
            }
        }
    }

    #[test]
    fn a_check_reads_on_behind_what_it_does_not_understand() {
        let words =
            "heartwheel check-config --intervall 5s --tick=soon extra --shards 0 --grace 1s";
        let read = read(words.split(' ').map(OsString::from)).expect("the rest is fine");
        let Typed::Command { flags, wrong, .. } = read else { panic!("a page") };
        let lines = wrong.lines();
        for part in ["--intervall", "'soon'", "'extra'", "'0'"] {
            assert_eq!(lines.iter().filter(|line| line.contains(part)).count(), 1, "{lines:#?}");
        }
        assert_eq!(lines.len(), 4, "{lines:#?}");
        assert!(flags.contains_id("grace"));
    }

    #[test]
    fn help_and_version_are_pages() {
        for words in [["heartwheel", "--help"], ["heartwheel", "--version"]] {
            let typed = read(words.map(OsString::from));
            assert!(matches!(typed, Ok(Typed::Page(page)) if page.contains("heartwheel")));
        }
    }
}
