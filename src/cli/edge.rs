//! On what terms connections are let in, as an operator says it.

use std::sync::Arc;

use crate::base::networks::Networks;
use crate::cli::args::Switch;
use crate::cli::args::edge::EdgeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::reload::{Prepared, Taker};
use crate::layers::terms::{Begin, SharedTerms, Terms};
use crate::layers::websocket::{Rules, WebSockets};

/// What is between clients' frames and their connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeOptions {
    /// Who says first for whom it speaks.
    pub proxies: Networks,
    /// Who may open a WebSocket; `None`: nobody.
    pub websocket: Option<Rules>,
}

impl EdgeOptions {
    /// What was typed, as meant.
    pub fn new(args: &EdgeArgs) -> Self {
        let rules = Rules {
            origins: args.websocket_origin.iter().cloned().collect(),
            path: args.websocket_path.clone(),
        };
        // Whoever says who may come in, or where, wants somebody to.
        let is_asked_for = rules != Rules::default();
        let is_on = args.websocket.map_or(is_asked_for, |switch| switch == Switch::On);
        Self {
            proxies: args.proxy_from.clone().unwrap_or_default(),
            websocket: is_on.then_some(rules),
        }
    }

    /// The terms that these are.
    ///
    /// # Errors
    /// When a file that they name is not what it should be.
    pub fn terms(&self) -> Result<Terms, CliError> {
        let websocket = self.websocket.clone().map(|rules| {
            let begin: Arc<dyn Begin> = Arc::new(WebSockets::new(rules));
            begin
        });
        Ok(Terms { proxies: self.proxies.clone(), websocket, ..Terms::default() })
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
