//! What is between a client's frames and the kernel, as far as those who deal with either know.

use std::any::Any;
use std::fmt;
use std::net::SocketAddr;

/// What a connection turned out to be, before the first byte of a client's own.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Introduction {
    /// Who is at the other end, where somebody stands between who may say so.
    pub peer: Option<SocketAddr>,
    /// The name in the certificate that the client has shown and that was verified; empty: there
    /// is none in it.
    pub name: Option<Box<str>>,
    /// What carries its frames.
    pub carrier: Carrier,
    /// Whether nobody between can read along.
    pub is_encrypted: bool,
}

/// What carries a client's frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Carrier {
    /// A stream of bytes.
    #[default]
    Stream,
    /// Messages of a WebSocket, whose other end is a browser, whose timers cannot be trusted.
    WebSocket,
}

/// What goes with a connection from one shard to another, and is opened by nobody on the way.
///
/// One pointer: nearly no connection has any.
#[derive(Default)]
pub struct Baggage(Option<Box<Box<dyn Any + Send>>>);

impl Baggage {
    /// Takes `what` along.
    pub fn of<T: Any + Send>(what: T) -> Self {
        Self(Some(Box::new(Box::new(what))))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Opens it; `None` where there is none, or it is something else.
    pub fn open<T: Any + Send>(self) -> Option<Box<T>> {
        self.0.and_then(|what| (*what).downcast().ok())
    }
}

impl fmt::Debug for Baggage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "Baggage(none)" } else { "Baggage(some)" })
    }
}

/// What layers between clients' frames and the kernel have done since the start, unless said
/// otherwise.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LayerStats {
    /// Connections whose first bytes said who stands behind a proxy.
    pub proxied: u64,
    /// TLS handshakes that were completed.
    pub tls_handshakes: u64,
    /// Those that failed.
    pub tls_failed: u64,
    /// WebSockets that were opened.
    pub websockets: u64,
    /// Times that a handshake had to wait because a turn had done as many as it may.
    pub put_off: u64,
    /// Now: connections with a layer.
    pub wrapped: usize,
    /// Now: those whose handshake waits for its turn.
    pub waiting: usize,
}

impl LayerStats {
    /// Adds what another shard says of itself.
    pub fn add(&mut self, other: &Self) {
        // Every field is named, so that a new one does not compile until it is added.
        let Self { proxied, tls_handshakes, tls_failed, websockets, put_off, wrapped, waiting } =
            other;
        self.proxied += proxied;
        self.tls_handshakes += tls_handshakes;
        self.tls_failed += tls_failed;
        self.websockets += websockets;
        self.put_off += put_off;
        self.wrapped += wrapped;
        self.waiting += waiting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn baggage_is_opened_by_whoever_knows_what_it_is() {
        assert!(Baggage::of(7_u32).open::<u64>().is_none());
        assert_eq!(Baggage::of(7_u32).open::<u32>().as_deref(), Some(&7));
        assert!(Baggage::default().is_empty());
        assert_eq!(size_of::<Baggage>(), size_of::<usize>());
    }
}
