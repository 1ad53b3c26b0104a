//! Whatever is wrong with a configuration, all of it: who mends one mistake should not find the
//! next one at the next start.

use crate::base::limits;
use crate::cli::error::CliError;

/// Mistakes in the order in which they were found.
#[derive(Debug, Default)]
pub struct Mistakes(Vec<CliError>);

impl Mistakes {
    /// Takes what went well, or notes the mistake and goes on with `otherwise`.
    pub fn keep<T>(&mut self, outcome: Result<T, impl Into<Self>>, otherwise: T) -> T {
        match outcome {
            Ok(value) => value,
            Err(mistakes) => {
                self.add(mistakes);
                otherwise
            }
        }
    }

    /// Notes what is wrong.
    pub fn add(&mut self, mistakes: impl Into<Self>) {
        self.0.extend(mistakes.into().0);
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A line for each, at most [`CONFIG_MISTAKES_MAX`](limits::CONFIG_MISTAKES_MAX) of them and a
    /// last one that counts the rest.
    pub fn lines(&self) -> Vec<String> {
        let told = self.0.iter().take(limits::CONFIG_MISTAKES_MAX);
        let mut lines: Vec<String> = told.flat_map(CliError::lines).collect();
        match self.0.len().saturating_sub(limits::CONFIG_MISTAKES_MAX) {
            0 => {}
            untold => lines.push(format!("and {untold} further mistakes")),
        }
        lines
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// All mistakes, as one error.
    pub fn or<T>(mut self, value: T) -> Result<T, CliError> {
        match self.0.len() {
            0 => Ok(value),
            1 => Err(self.0.remove(0)),
            _ => Err(CliError::Several { mistakes: self }),
        }
    }
}

impl From<CliError> for Mistakes {
    fn from(error: CliError) -> Self {
        if let CliError::Several { mistakes } = error { mistakes } else { Self(vec![error]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mistake_is_itself_and_several_have_a_line_each() {
        assert_eq!(Mistakes::default().or(5).expect("nothing is wrong"), 5);
        let one = Mistakes::from(CliError::machine("one")).or(()).expect_err("wrong");
        assert_eq!((one.lines(), one.exit_code()), (vec!["one".to_owned()], 1));

        let mut two = Mistakes::default();
        two.keep(Err(CliError::usage("a\nb")), ());
        assert_eq!(two.keep(Ok::<_, CliError>(1), 0), 1);
        two.add(CliError::machine("c"));
        let two = two.or(()).expect_err("wrong");
        assert_eq!((two.lines(), two.exit_code()), (vec!["a\\nb".to_owned(), "c".to_owned()], 2));
        assert_eq!(two.line(), "a\\nb; c");
    }

    #[test]
    fn endless_mistakes_are_counted() {
        let mut many = Mistakes::default();
        (0..limits::CONFIG_MISTAKES_MAX + 7).for_each(|_| many.add(CliError::usage("x")));
        let lines = many.lines();
        assert_eq!(lines.len(), limits::CONFIG_MISTAKES_MAX + 1);
        assert_eq!(lines.last().map(String::as_str), Some("and 7 further mistakes"));
    }
}
