//! What a shell and a reader of manuals get, from the same definition as `--help`.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::args::Cli;
use crate::cli::error::CliError;

/// The script that teaches `shell` the flags.
pub fn script(shell: Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "heartwheel", &mut script);
    script
}

/// The man page of the program, or of one of its commands.
pub fn man_page(command: Option<&str>) -> Result<Vec<u8>, CliError> {
    let mut whole = Cli::command();
    whole.build();
    let page = match command {
        None => whole,
        Some(name) => match whole.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                return Err(CliError::usage(format!(
                    "there is no command '{name}' and so no page of it; try 'heartwheel --help'"
                )));
            }
        },
    };
    render(page).map_err(|cause| CliError::Stdout { cause })
}

fn render(page: clap::Command) -> io::Result<Vec<u8>> {
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff)?;
    Ok(roff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_that_names_its_flags() {
        for command in Cli::command().get_subcommands() {
            let page = man_page(Some(command.get_name())).expect("the command exists");
            let page = String::from_utf8(page).expect("roff is text");
            for arg in command.get_arguments().filter_map(|arg| arg.get_long()) {
                let flag = format!("\\-\\-{}", arg.replace('-', "\\-"));
                assert!(page.contains(&flag), "{} {flag}", command.get_name());
            }
        }
    }

    #[test]
    fn a_page_of_nothing_is_refused() {
        assert!(matches!(man_page(Some("dance")), Err(CliError::Usage { .. })));
    }
}
