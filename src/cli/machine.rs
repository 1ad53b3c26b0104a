//! What the commands ask of the machine: which driver, and for how many connections.

use std::ffi::OsString;
use std::io::{self, Write};

use crate::cli::args::{DRIVERS, DriverChoice};
use crate::cli::error::CliError;
use crate::os::driver::DriverKind;
use crate::os::machine::{self, Plan, Survey, Wanted};

/// The variable of the environment that stands for `--driver`, for every command.
const VARIABLE: &str = "HEARTWHEEL_DRIVER";

/// Looks at the machine with the operator's choice in mind.
pub(crate) fn survey(choice: DriverChoice) -> Survey {
    let driver_wanted = match choice {
        DriverChoice::Auto => None,
        DriverChoice::IoUring => Some(DriverKind::IoUring),
        DriverChoice::Epoll => Some(DriverKind::Epoll),
    };
    Survey { driver_wanted, ..machine::survey() }
}

/// How to use the machine for so many connections, or why it will not do.
pub(crate) fn plan(survey: &Survey, wanted: Wanted) -> Result<Plan, CliError> {
    survey.plan(wanted).map_err(|error| CliError::machine(error.to_string()))
}

/// The choice of a command that has no file: its flag, or else the environment.
pub(crate) fn choice(typed: Option<DriverChoice>) -> Result<DriverChoice, CliError> {
    typed.map_or_else(|| choice_of_variable(std::env::var_os(VARIABLE)), Ok)
}

/// What to tell where epoll is used though nobody asked for it: why, and what is lost.
pub(crate) fn fallback(survey: &Survey) -> Option<String> {
    let reason = survey.fallback()?;
    Some(format!(
        "epoll stands in for io_uring. Why: {reason}. What is lost: a beat costs more system \
         calls, and the limit of open files bounds the connections; no promise is weaker"
    ))
}

/// Says so on standard error, for commands that keep no log.
pub(crate) fn warn_of_fallback(survey: &Survey) {
    if let Some(line) = fallback(survey) {
        // Without standard error there is nobody to warn.
        let _ = writeln!(io::stderr(), "heartwheel: warning: {line}");
    }
}

fn choice_of_variable(value: Option<OsString>) -> Result<DriverChoice, CliError> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(DriverChoice::Auto);
    };
    let found = DRIVERS.iter().find(|(word, _)| value == *word);
    found.map(|(_, choice)| *choice).ok_or_else(|| {
        let words: Vec<&str> = DRIVERS.iter().map(|(word, _)| *word).collect();
        let value = value.to_string_lossy().escape_debug().to_string();
        let words = words.join(", ");
        CliError::usage(format!("{VARIABLE}: '{value}' is no driver; expected one of {words}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::machine::RingTrial;

    #[test]
    fn the_environment_chooses_where_no_flag_does() {
        for (value, choice) in [
            (None, DriverChoice::Auto),
            (Some(""), DriverChoice::Auto),
            (Some("auto"), DriverChoice::Auto),
            (Some("io_uring"), DriverChoice::IoUring),
            (Some("epoll"), DriverChoice::Epoll),
        ] {
            let chosen = choice_of_variable(value.map(OsString::from)).expect("it is one of them");
            assert_eq!(chosen, choice, "{value:?}");
        }
        let line = choice_of_variable(Some("kqueue".into())).expect_err("not on Linux").line();
        assert!(line.contains("HEARTWHEEL_DRIVER: 'kqueue'"), "{line}");
        assert!(line.contains("auto, io_uring, epoll"), "{line}");
    }

    #[test]
    fn whoever_is_served_otherwise_than_expected_is_told_once() {
        const ENOSYS: i32 = 38;
        let refused = RingTrial::Refused { errno: ENOSYS };
        let forbidden = Survey { ring: refused, ..survey(DriverChoice::Auto) };
        let line = fallback(&forbidden).expect("it is worth a word");
        assert!(line.contains("epoll") && line.contains("CONFIG_IO_URING"), "{line}");
        let chosen = Survey { driver_wanted: Some(DriverKind::Epoll), ..forbidden };
        assert_eq!(fallback(&chosen), None, "whoever asked for it knows");
    }
}
