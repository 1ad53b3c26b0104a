//! On what terms connections are let in: who speaks for others, and what is spoken.

use std::sync::{Arc, RwLock};

use crate::base::event::CloseReason;
use crate::base::networks::Networks;
use crate::layers::layer::Layer;

/// The terms for newcomers. Who is here keeps those on which it came.
#[derive(Clone, Default)]
pub struct Terms {
    /// Who says first for whom it speaks, and is believed.
    pub proxies: Networks,
    /// How TLS is begun, if it is spoken.
    pub tls: Option<Arc<dyn Begin>>,
    /// How a WebSocket is begun, if it is spoken.
    pub websocket: Option<Arc<dyn Begin>>,
    /// How the layer is begun that those have whom we connect to, if they have one.
    pub dial: Option<Arc<dyn Begin>>,
    /// Whether those who do not speak TLS are sent away.
    pub only_tls: bool,
}

/// Begins a layer for a newcomer.
pub trait Begin: Send + Sync {
    /// The layer, before its first byte.
    fn begin(&self) -> Box<dyn Layer>;
}

/// What a connection speaks, by its first byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Speech {
    /// The native protocol, or nothing that is known: whoever reads that finds out.
    Native,
    Tls,
    WebSocket,
}

/// First byte of a TLS record with a handshake.
const TLS_FIRST: u8 = 0x16;
/// First bytes of the PROXY protocol.
const PROXY_FIRST: [u8; 2] = [b'P', b'\r'];

impl Terms {
    /// Whether newcomers are looked at.
    pub fn is_on(&self) -> bool {
        !self.proxies.is_empty() || self.tls.is_some() || self.websocket.is_some()
    }

    /// What begins with this byte.
    pub(crate) fn speech(&self, first: u8) -> Result<Speech, CloseReason> {
        match first {
            TLS_FIRST if self.tls.is_some() => Ok(Speech::Tls),
            _ if self.only_tls => Err(CloseReason::BadTls),
            // Only from those who may say so; they have said it.
            _ if PROXY_FIRST.contains(&first) => Err(CloseReason::BadProxyHeader),
            _ => Ok(self.speech_in_tls(first)),
        }
    }

    /// What begins with this byte, behind TLS.
    pub(crate) fn speech_in_tls(&self, first: u8) -> Speech {
        match first {
            b'G' if self.websocket.is_some() => Speech::WebSocket,
            _ => Speech::Native,
        }
    }

    pub(crate) fn begin_tls(&self) -> Option<Box<dyn Layer>> {
        self.tls.as_ref().map(|tls| tls.begin())
    }

    pub(crate) fn begin_websocket(&self) -> Option<Box<dyn Layer>> {
        self.websocket.as_ref().map(|websocket| websocket.begin())
    }
}

/// Terms that all loops read when somebody comes, and that a reload replaces.
#[derive(Clone, Default)]
pub struct SharedTerms(Arc<RwLock<Arc<Terms>>>);

impl SharedTerms {
    /// Begins with these.
    pub fn new(terms: Terms) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(terms))))
    }

    /// As they are now.
    pub fn now(&self) -> Arc<Terms> {
        Arc::clone(&self.0.read().expect("whoever replaces them does not panic"))
    }

    /// From now on these are the terms for newcomers.
    pub fn replace(&self, terms: Terms) {
        *self.0.write().expect("whoever reads them does not panic") = Arc::new(terms);
    }
}
