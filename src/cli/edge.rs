//! On what terms connections are let in, as an operator says it.

use std::sync::{Arc, Mutex, PoisonError};

use crate::base::networks::Networks;
use crate::cli::args::Switch;
use crate::cli::args::edge::EdgeArgs;
use crate::cli::config::ServeOptions;
use crate::cli::error::CliError;
use crate::cli::reload::{Prepared, Taker};
use crate::cli::tls::TlsOptions;
use crate::control::reload::Change;
use crate::layers::terms::{Begin, SharedTerms, Terms};
use crate::layers::websocket::{Rules, WebSockets};

/// What is between clients' frames and their connections.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EdgeOptions {
    /// Who says first for whom it speaks.
    pub proxies: Networks,
    /// Whether a WebSocket may be opened at all.
    pub has_websocket: bool,
    /// Who may open one.
    pub websocket: Rules,
    /// With what TLS is served.
    pub tls: Option<TlsOptions>,
}

impl EdgeOptions {
    /// What was typed, as meant.
    ///
    /// # Errors
    /// When one thing is missing beside another.
    pub fn new(args: &EdgeArgs) -> Result<Self, CliError> {
        let rules = Rules {
            origins: args.websocket_origin.iter().cloned().collect(),
            path: args.websocket_path.clone(),
        };
        // Whoever says who may come in, or where, wants somebody to.
        let is_asked_for = rules != Rules::default();
        let is_on = args.websocket.map_or(is_asked_for, |switch| switch == Switch::On);
        Ok(Self {
            proxies: args.proxy_from.clone().unwrap_or_default(),
            has_websocket: is_on,
            websocket: rules,
            tls: TlsOptions::new(&args.tls)?,
        })
    }

    /// Whether nobody comes in without a certificate whose name is its id.
    pub fn certifies_everybody(&self) -> bool {
        self.tls.as_ref().is_some_and(TlsOptions::certifies_everybody)
    }

    /// The terms that these are.
    ///
    /// # Errors
    /// When a file that they name is not what it should be.
    pub fn terms(&self) -> Result<Terms, CliError> {
        self.terms_beside(None).map(|(terms, _)| terms)
    }

    /// The same, with TLS as it is `already` where it is to be the same; and what TLS it is.
    fn terms_beside(&self, already: Option<&Spoken>) -> Result<(Terms, Option<Spoken>), CliError> {
        let spoken = self.tls.as_ref().map(|tls| Spoken::new(tls, already)).transpose()?;
        let websocket = self.has_websocket.then(|| {
            let begin: Arc<dyn Begin> = Arc::new(WebSockets::new(self.websocket.clone()));
            begin
        });
        let terms = Terms {
            proxies: self.proxies.clone(),
            tls: spoken.as_ref().map(|spoken| Arc::clone(&spoken.begin)),
            only_tls: self.tls.as_ref().is_some_and(|tls| tls.only),
            websocket,
            dial: None,
        };
        Ok((terms, spoken))
    }
}

/// TLS, and what it is made of.
#[derive(Clone)]
struct Spoken {
    options: TlsOptions,
    digest: [u8; 32],
    begin: Arc<dyn Begin>,
}

impl Spoken {
    /// Made new only where something is not as it was: tickets are good as long as it is not.
    fn new(options: &TlsOptions, already: Option<&Self>) -> Result<Self, CliError> {
        let contents = options.read()?;
        let digest = contents.digest();
        let is_same = |spoken: &&Self| spoken.options == *options && spoken.digest == digest;
        if let Some(already) = already.filter(is_same) {
            return Ok(already.clone());
        }
        let begin = Arc::new(options.serve(&contents)?);
        Ok(Self { options: options.clone(), digest, begin })
    }
}

/// Takes up other terms: newcomers are let in on them, and who is here stays.
pub struct EdgeTaker {
    shared: SharedTerms,
    spoken: Arc<Mutex<Option<Spoken>>>,
}

impl EdgeTaker {
    /// Begins with the terms of `options`.
    ///
    /// # Errors
    /// When a file that they name is not what it should be.
    pub fn new(options: &EdgeOptions) -> Result<Self, CliError> {
        let (terms, spoken) = options.terms_beside(None)?;
        Ok(Self { shared: SharedTerms::new(terms), spoken: Arc::new(Mutex::new(spoken)) })
    }

    /// The terms, which change when others are taken up.
    pub fn shared(&self) -> &SharedTerms {
        &self.shared
    }
}

impl Taker for EdgeTaker {
    fn prepare(&mut self, wanted: &ServeOptions) -> Result<Prepared, CliError> {
        let before = self.spoken.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (terms, spoken) = wanted.edge.terms_beside(before.as_ref())?;
        let mut changes = Vec::new();
        if let (Some(before), Some(after)) = (&before, &spoken)
            && before.digest != after.digest
            && before.options == after.options
        {
            changes.push(Change {
                key: "tls-cert (content)".to_owned(),
                old: Some("a certificate".to_owned()),
                new: Some("another certificate, key, authority or list".to_owned()),
            });
        }
        let (shared, kept) = (self.shared.clone(), Arc::clone(&self.spoken));
        let commit = Box::new(move || {
            shared.replace(terms);
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = spoken;
        });
        Ok(Prepared { changes, commit })
    }
}
