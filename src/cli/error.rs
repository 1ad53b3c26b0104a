//! What a person is told when a command cannot do its work: one line, and an exit code.

use std::io;
use std::path::PathBuf;

use crate::cli::mistakes::Mistakes;

/// Exit code of whatever did not understand what was typed, in flags, file or environment.
pub const EXIT_USAGE: u8 = 2;
/// Exit code of everything else that failed.
pub const EXIT_FAILURE: u8 = 1;

/// Why a command ended without doing its work. Its text is one line, complete without the name of
/// the variant: what was wrong, what was expected, what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What was typed is not understood. Exit code 2.
    #[error("{text}")]
    Usage {
        /// The line.
        text: String,
    },
    /// The file of keys cannot be read. Exit code 1.
    #[error("cannot read {}: {cause}; name a file that exists and may be read", path.display())]
    ConfigUnreadable {
        /// Which file.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
    /// A file cannot be opened for writing. Exit code 1.
    #[error(
        "cannot write {}: {cause}; name a file in a directory that may be written",
        path.display()
    )]
    FileUnwritable {
        /// Which file.
        path: PathBuf,
        /// What the machine said.
        cause: io::Error,
    },
    /// Standard output does not take what is written. Exit code 1.
    #[error("cannot write to standard output: {cause}")]
    Stdout {
        /// What the machine said.
        cause: io::Error,
    },
    /// Events were left over at the end. Exit code 1.
    #[error("{records} events could not be written to {target}: {cause}")]
    EventsLost {
        /// How many.
        records: u64,
        /// Where they belong.
        target: String,
        /// What the machine said last.
        cause: String,
    },
    /// The machine does not let the command do its work. Exit code 1.
    #[error("{text}")]
    Machine {
        /// The line: what failed, why, and the remedy.
        text: String,
    },
    /// Several things are wrong with a configuration, and each has a line. Exit code 2.
    #[error("{}", mistakes.lines().join("; "))]
    Several {
        /// What they are.
        mistakes: Mistakes,
    },
}

impl CliError {
    /// A usage error with this line.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage { text: text.into() }
    }

    /// A failure of the machine with this line.
    pub fn machine(text: impl Into<String>) -> Self {
        Self::Machine { text: text.into() }
    }

    /// What the program returns to the shell.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } | Self::Several { .. } => EXIT_USAGE,
            Self::ConfigUnreadable { .. }
            | Self::FileUnwritable { .. }
            | Self::Stdout { .. }
            | Self::EventsLost { .. }
            | Self::Machine { .. } => EXIT_FAILURE,
        }
    }

    /// A line for each thing that is wrong.
    pub fn lines(&self) -> Vec<String> {
        if let Self::Several { mistakes } = self { mistakes.lines() } else { vec![self.line()] }
    }

    /// The error as exactly one line: whatever a file name or a resolver smuggled in is escaped.
    pub fn line(&self) -> String {
        let text = self.to_string();
        text.chars().flat_map(|c| if c.is_control() { escaped(c) } else { vec![c] }).collect()
    }
}

fn escaped(control: char) -> Vec<char> {
    control.escape_default().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_line_whatever_is_in_it() {
        let path = PathBuf::from("a\nb\u{1b}[2J");
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let line = CliError::ConfigUnreadable { path, cause }.line();
        assert!(line.starts_with("cannot read a\\nb\\u{1b}[2J: "), "{line}");
    }

    #[test]
    fn what_was_not_understood_has_a_code_of_its_own() {
        assert_eq!(CliError::usage("x").exit_code(), 2);
        assert_eq!(CliError::machine("x").exit_code(), 1);
    }
}
