//! On what terms connections are let in, as an operator says it.

use crate::cli::args::edge::EdgeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::reload::{Prepared, Taker};
use crate::layers::terms::{Networks, SharedTerms, Terms};

/// What is between clients' frames and their connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeOptions {
    /// Who says first for whom it speaks.
    pub proxies: Networks,
}

impl EdgeOptions {
    /// What was typed, as meant.
    pub fn new(args: &EdgeArgs) -> Self {
        Self { proxies: args.proxy_from.clone().unwrap_or_default() }
    }

    /// The terms that these are.
    ///
    /// # Errors
    /// When a file that they name is not what it should be.
    pub fn terms(&self) -> Result<Terms, CliError> {
        Ok(Terms { proxies: self.proxies.clone(), ..Terms::default() })
    }
}

/// Takes up other terms: newcomers are let in on them, and who is here stays.
pub struct EdgeTaker(pub SharedTerms);

impl Taker for EdgeTaker {
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError> {
        let (shared, terms) = (self.0.clone(), wanted.edge.terms()?);
        let commit = Box::new(move || shared.replace(terms));
        Ok(Prepared { changes: Vec::new(), commit })
    }
}
