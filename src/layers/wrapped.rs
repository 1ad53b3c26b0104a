//! One connection in its layers.

use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::introduction::{Introduction, LayerStats};
use crate::base::io::{Chunk, CloseHow, Move, Op, ReceiveEnd};
use crate::layers::layer::{Flow, Goes, Layer};
use crate::layers::proxy::{self, Header};
use crate::layers::terms::{Speech, Terms};

/// A connection of which the first bytes are still to come, or that has layers.
#[derive(Default)]
pub(crate) struct Wrapped {
    /// Whether who stands behind a proxy is still to be said, and what of that has come.
    proxy: Option<Vec<u8>>,
    /// What it speaks, if that is known.
    outside: Option<Speech>,
    /// The same behind TLS.
    inside: Option<Speech>,
    tls: Option<Box<dyn Layer>>,
    websocket: Option<Box<dyn Layer>>,
    introduction: Introduction,
    pub(crate) is_introduced: bool,
    /// For the peer, in all layers; not handed to the kernel.
    out: Vec<u8>,
    /// How many of them no chunk of the gateway is the cause of, since the kernel took something.
    pub(crate) answers: usize,
    /// The gateway's chunk, until everything is sent.
    pub(crate) home: Option<Chunk>,
    /// Whether the kernel has something to send.
    pub(crate) is_in_flight: bool,
    /// A send failed.
    pub(crate) is_broken: bool,
    /// The gateway was told that nothing more comes.
    pub(crate) is_over: bool,
    /// The kernel was asked to close.
    pub(crate) is_closed: bool,
    /// The close that waits for the last word to be sent.
    pub(crate) closing: Option<CloseHow>,
    /// The move that waits for the end of a send.
    pub(crate) moving: Option<Box<Move>>,
    /// Taken out of its layers before it was moved here.
    pub(crate) unwrapped: Vec<u8>,
    /// What came and waits to be taken out of its layers.
    pub(crate) late: Vec<u8>,
    /// What came behind that.
    pub(crate) late_end: Option<ReceiveEnd>,
}

/// What became of bytes that came in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum TakenIn {
    /// It has no layers, and needs nothing further.
    Plain,
    GoesOn,
    /// The peer is done.
    Over,
    Spoilt(CloseReason),
}

/// What bytes are taken out of their layers by.
pub(crate) struct Means<'a> {
    pub(crate) terms: &'a Terms,
    pub(crate) flow: &'a mut Flow,
    pub(crate) stats: &'a mut LayerStats,
}

impl Wrapped {
    /// A newcomer; `is_proxy`: who has to say first for whom it speaks.
    pub(crate) fn new(is_proxy: bool) -> Self {
        Self { proxy: is_proxy.then(Vec::new), ..Self::default() }
    }

    /// Somebody whom we have connected to, and who speaks in this layer.
    pub(crate) fn dialled(layer: Box<dyn Layer>) -> Self {
        let (outside, inside) = (Some(Speech::Tls), Some(Speech::Native));
        Self { outside, inside, tls: Some(layer), is_introduced: true, ..Self::default() }
    }

    /// Whether the gateway is not told of anything that comes.
    pub(crate) fn is_deaf(&self) -> bool {
        self.is_over || self.closing.is_some() || self.is_closed
    }

    /// Whether it is about to be closed or moved.
    pub(crate) fn is_leaving(&self) -> bool {
        self.closing.is_some() || self.is_closed || self.moving.is_some()
    }

    /// Whether something is to be told before what comes next.
    pub(crate) fn has_more_before(&self) -> bool {
        !self.late.is_empty() || !self.unwrapped.is_empty()
    }

    pub(crate) fn is_costly(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_costly())
    }

    /// What it turned out to be, once, when its first byte `is_told`.
    pub(crate) fn take_introduction(&mut self, is_told: bool) -> Option<&Introduction> {
        if !is_told || std::mem::replace(&mut self.is_introduced, true) {
            return None;
        }
        for layer in [&self.tls, &self.websocket].into_iter().flatten() {
            layer.introduce(&mut self.introduction);
        }
        (self.introduction != Introduction::default()).then_some(&self.introduction)
    }

    /// Takes bytes out of their layers into `by.flow.up`.
    pub(crate) fn take_in(&mut self, bytes: &[u8], by: &mut Means<'_>) -> TakenIn {
        let before = self.out.len();
        let taken = self.take_in_behind_proxy(bytes, by);
        self.answers += self.out.len() - before;
        taken
    }

    fn take_in_behind_proxy(&mut self, bytes: &[u8], by: &mut Means<'_>) -> TakenIn {
        let Some(begun) = &mut self.proxy else {
            return self.take_in_outside(bytes, by);
        };
        begun.extend_from_slice(bytes);
        match proxy::read(begun) {
            Ok(None) => TakenIn::GoesOn,
            Ok(Some(Header { source, length })) => {
                by.stats.proxied += 1;
                self.introduction.peer = source;
                let begun = self.proxy.take().unwrap_or_default();
                match &begun[length..] {
                    [] => TakenIn::GoesOn,
                    rest => self.take_in_outside(rest, by),
                }
            }
            Err(_) => TakenIn::Spoilt(CloseReason::BadProxyHeader),
        }
    }

    fn take_in_outside(&mut self, bytes: &[u8], by: &mut Means<'_>) -> TakenIn {
        if self.outside.is_none() {
            let speech = match by.terms.speech(bytes[0]) {
                Ok(speech) => speech,
                Err(reason) => return TakenIn::Spoilt(reason),
            };
            self.outside = Some(speech);
            if speech == Speech::Tls {
                self.tls = by.terms.begin_tls();
            }
        }
        let Some(tls) = &mut self.tls else {
            self.inside = self.outside;
            return self.take_in_inside(bytes, by);
        };
        let was_costly = tls.is_costly();
        let goes = tls.take_in(bytes, &mut by.flow.between, &mut self.out);
        by.stats.tls_handshakes += u64::from(goes.is_ok() && was_costly && !tls.is_costly());
        by.stats.tls_failed += u64::from(goes.is_err() && was_costly);
        let between = std::mem::take(&mut by.flow.between);
        let taken = match between.as_slice() {
            [] => TakenIn::GoesOn,
            bytes => self.take_in_inside(bytes, by),
        };
        by.flow.between = between;
        match (taken, goes) {
            (TakenIn::Plain | TakenIn::GoesOn, Ok(Goes::On)) => TakenIn::GoesOn,
            (TakenIn::Plain | TakenIn::GoesOn, Ok(Goes::Over)) => TakenIn::Over,
            (TakenIn::Plain | TakenIn::GoesOn, Err(reason)) => TakenIn::Spoilt(reason),
            (TakenIn::Over | TakenIn::Spoilt(_), _) => taken,
        }
    }

    fn take_in_inside(&mut self, bytes: &[u8], by: &mut Means<'_>) -> TakenIn {
        let speech = *self.inside.get_or_insert_with(|| by.terms.speech_in_tls(bytes[0]));
        if speech != Speech::WebSocket {
            by.flow.up.extend_from_slice(bytes);
            return if self.tls.is_none() { TakenIn::Plain } else { TakenIn::GoesOn };
        }
        if self.websocket.is_none() {
            self.websocket = by.terms.begin_websocket();
        }
        let Some(websocket) = &mut self.websocket else {
            return TakenIn::Spoilt(CloseReason::BadWebsocket);
        };
        let was_costly = websocket.is_costly();
        let goes = websocket.take_in(bytes, &mut by.flow.up, &mut by.flow.down);
        by.stats.websockets += u64::from(goes.is_ok() && was_costly && !websocket.is_costly());
        if !by.flow.down.is_empty() {
            append(&mut self.tls, &by.flow.down, &mut self.out);
            by.flow.down.clear();
        }
        match goes {
            Ok(Goes::On) => TakenIn::GoesOn,
            Ok(Goes::Over) => TakenIn::Over,
            Err(reason) => TakenIn::Spoilt(reason),
        }
    }

    /// Puts a chunk of the gateway's into its layers; it goes home when everything is sent.
    pub(crate) fn send(&mut self, chunk: Chunk) {
        match &mut self.websocket {
            Some(websocket) => {
                let mut framed = Vec::new();
                websocket.send(chunk.unsent(), &mut framed);
                append(&mut self.tls, &framed, &mut self.out);
            }
            // Who speaks HTTP understands nothing else, before it is a WebSocket.
            None if self.inside == Some(Speech::WebSocket) => {}
            None => append(&mut self.tls, chunk.unsent(), &mut self.out),
        }
        self.home = Some(chunk);
    }

    /// Whether something waits for the end of the send that is under way.
    pub(crate) fn awaits_send(&self) -> bool {
        let has_to_go = self.closing.is_some() || self.moving.is_some();
        self.is_in_flight && (has_to_go || !self.out.is_empty())
    }

    /// Says the layers' own last words.
    pub(crate) fn finish(&mut self) {
        if let Some(websocket) = &mut self.websocket {
            let mut framed = Vec::new();
            websocket.finish(&mut framed);
            append(&mut self.tls, &framed, &mut self.out);
        }
        if let Some(tls) = &mut self.tls {
            tls.finish(&mut self.out);
        }
    }

    /// What waits to be sent, if something does and nothing is under way.
    pub(crate) fn next_send(&mut self, conn: ConnId) -> Option<Op> {
        if self.is_in_flight || self.is_broken || self.is_closed || self.out.is_empty() {
            return None;
        }
        self.is_in_flight = true;
        self.answers = 0;
        Some(Op::Send { conn, chunk: Chunk::from(std::mem::take(&mut self.out)) })
    }
}

/// Appends `bytes` to `out`, through TLS where there is any.
fn append(tls: &mut Option<Box<dyn Layer>>, bytes: &[u8], out: &mut Vec<u8>) {
    match tls {
        Some(tls) => tls.send(bytes, out),
        None => out.extend_from_slice(bytes),
    }
}
