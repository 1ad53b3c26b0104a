//! How a client's frames come to us: bare, or behind a proxy, in TLS, in a WebSocket, in all of
//! them. Written apart from the layers of the gateway, so that the two check each other: what is
//! read here breaks no rule of the layer, and what the gateway is told is what was written here.

mod tls;
mod weaver;
mod websocket;

use std::net::SocketAddr;

use fastrand::Rng;
use heartwheel::base::event::CloseReason;
use heartwheel::base::networks::Networks;
use heartwheel::layers::terms::{SharedTerms, Terms};
use heartwheel::layers::websocket::WebSockets;
use heartwheel::wire::native::kind;

use crate::faults::happens;
use crate::script::Label;
use crate::ways::tls::{Callers, Tls};
use crate::ways::weaver::Weaver;
use crate::ways::websocket::{Heard, Sign, Web};

/// Pings at a time of whoever pings much.
const PINGS: u32 = 150;

/// What clients of a world may come by.
#[derive(Default)]
pub(crate) struct Fleet {
    proxies: Networks,
    has_web: bool,
    callers: Option<Callers>,
    only_tls: bool,
}

/// How one connection comes.
#[derive(Default)]
pub(crate) struct Plan {
    /// In front of everything, as a proxy says it.
    header: Vec<u8>,
    /// For whom it speaks.
    pub(crate) source: Option<SocketAddr>,
    pub(crate) has_tls: bool,
    pub(crate) has_web: bool,
    rogue: Option<Rogue>,
    /// It pings by its WebSocket, again and again, whether it reads the pongs or not.
    pings_much: bool,
    /// How it will be found to break the rules before its first frame, if it is found.
    spoils: Vec<CloseReason>,
    /// Other protocols than ours are spoken here, and this is who would speak them.
    tls: Option<Box<Tls>>,
    is_among_others: bool,
}

/// How a client breaks the rules of a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Rogue {
    /// Once it is in.
    Later { writes: u32 },
    /// From the beginning.
    AtOnce,
}

/// Where in what is said something ends, and what.
type Ends = Vec<(usize, Label)>;

/// Bytes that go out together, and what is in them.
#[derive(Default)]
pub(crate) struct Parcel {
    pub(crate) wire: Vec<u8>,
    pub(crate) native: Vec<u8>,
    pub(crate) ends: Ends,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Opening,
    Open,
    /// It has said its last word.
    Spent,
    /// It broke the rules, or was told that it cannot come in.
    Broken,
}

/// The client's side of it.
pub(crate) struct Way {
    rng: Rng,
    pub(crate) plan: Plan,
    stage: Stage,
    web: Option<Web>,
    weaver: Weaver,
    /// What it wants to say once that can be said.
    waiting: Vec<(Vec<u8>, Ends)>,
    parcel: Parcel,
    /// It was told something before it had a layer to be told it in: so far.
    bare: Option<Vec<u8>>,
    /// Something in TLS.
    has_heard: bool,
    /// TLS was ended in due form.
    has_heard_end: bool,
    spoils: Vec<CloseReason>,
}

impl Fleet {
    /// What a world with layers speaks.
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let proxies = match rng.usize(0..3) {
            0 => "10.0.1.0/24".parse().expect("a network"),
            _ => Networks::default(),
        };
        let has_web = happens(rng, 800);
        let callers = happens(rng, 500).then(|| Callers::new(rng.bool()));
        let only_tls = callers.is_some() && happens(rng, 200);
        Self { proxies, has_web, callers, only_tls }
    }

    /// Whether there is any choice.
    pub(crate) fn is_layered(&self) -> bool {
        self.has_web || self.callers.is_some() || !self.proxies.is_empty()
    }

    /// The same as the gateway's side is told it.
    pub(crate) fn terms(&self) -> SharedTerms {
        let mut terms = Terms { proxies: self.proxies.clone(), ..Terms::default() };
        if self.has_web {
            terms.websocket = Some(std::sync::Arc::new(WebSockets::default()));
        }
        if self.callers.is_some() {
            terms.tls = Some(tls::serve());
            terms.only_tls = self.only_tls;
        }
        SharedTerms::new(terms)
    }

    /// How a connection from there comes. Nothing is drawn where nobody has a choice.
    pub(crate) fn plan(&self, rng: &mut Rng, peer: SocketAddr) -> Plan {
        if !self.is_layered() {
            return Plan::default();
        }
        let mut plan = Plan { is_among_others: true, ..Plan::default() };
        let is_rogue = happens(rng, 120);
        plan.has_web = self.has_web && happens(rng, 600);
        plan.pings_much = plan.has_web && happens(rng, 60);
        if let Some(callers) = &self.callers {
            plan.has_tls = happens(rng, 500) || (self.only_tls && happens(rng, 800));
            plan.tls = plan.has_tls.then(|| Box::new(callers.call(rng)));
        }
        let is_proxied = self.proxies.contains(peer.ip());
        // Who is to say for whom it speaks and does not, or says so and may not.
        let lies = is_rogue && happens(rng, 300);
        if is_proxied != lies {
            (plan.header, plan.source) = header(rng);
        }
        if lies {
            plan.spoils.push(CloseReason::BadProxyHeader);
        }
        if self.only_tls && (!plan.has_tls || lies) {
            plan.spoils.push(CloseReason::BadTls);
        }
        let can_break = (plan.has_web || plan.has_tls) && plan.spoils.is_empty();
        if is_rogue && can_break {
            plan.rogue = Some(match rng.bool() {
                true => Rogue::AtOnce,
                false => Rogue::Later { writes: rng.u32(0..4) },
            });
        }
        plan
    }
}

/// A header of the PROXY protocol, and for whom it speaks.
fn header(rng: &mut Rng) -> (Vec<u8>, Option<SocketAddr>) {
    let source = SocketAddr::from(([192, 0, 2, rng.u8(1..255)], rng.u16(1_024..)));
    let mut second = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    match rng.u32(0..3) {
        0 => {
            let text = format!("PROXY TCP4 {} 10.0.0.1 {} 7\r\n", source.ip(), source.port());
            (text.into_bytes(), Some(source))
        }
        1 => {
            second.extend([0x20, 0, 0, 0]); // it speaks for itself
            (second, None)
        }
        _ => {
            let SocketAddr::V4(v4) = source else { panic!("{source} was made above") };
            second.extend([0x21, 0x11, 0, 12]);
            second.extend(v4.ip().octets());
            second.extend([10, 0, 0, 1]);
            second.extend(v4.port().to_be_bytes());
            second.extend([0, 7]);
            (second, Some(source))
        }
    }
}

impl Way {
    pub(crate) fn new(mut plan: Plan, rng: Rng) -> Self {
        let has_layers = plan.has_tls || plan.has_web || !plan.header.is_empty();
        Self {
            rng,
            stage: if has_layers { Stage::Opening } else { Stage::Open },
            web: plan.has_web.then(Web::default),
            weaver: Weaver::default(),
            waiting: Vec::new(),
            parcel: Parcel::default(),
            bare: None,
            has_heard: false,
            has_heard_end: false,
            spoils: std::mem::take(&mut plan.spoils),
            plan,
        }
    }

    /// Whether something has to be said before the first frame.
    pub(crate) fn has_layers(&self) -> bool {
        self.plan.has_tls || self.plan.has_web || !self.plan.header.is_empty()
    }

    /// Whether it is going to ping much, once it is in.
    pub(crate) fn is_to_ping(&self) -> bool {
        let is_coming = matches!(self.stage, Stage::Opening | Stage::Open);
        self.plan.pings_much && is_coming && !self.weaver.is_welcome
    }

    /// Whether its pongs may be more than are kept for it, in a kernel that is slow.
    pub(crate) fn pings_much(&self) -> bool {
        self.plan.pings_much
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether it may be ended for this as it breaks the rules of a layer.
    pub(crate) fn is_spoilt_by(&self, reason: CloseReason) -> bool {
        self.spoils.contains(&reason)
    }

    /// Whether the end of its layers has to be said to it: it was in, and broke no rule.
    pub(crate) fn is_finishing(&self) -> bool {
        let is_in = matches!(self.stage, Stage::Open | Stage::Spent);
        is_in && self.spoils.is_empty() && self.bare.is_none()
    }

    /// What goes out now.
    pub(crate) fn take_parcel(&mut self) -> Parcel {
        std::mem::take(&mut self.parcel)
    }

    pub(crate) fn has_parcel(&self) -> bool {
        !self.parcel.wire.is_empty()
    }

    /// What comes before the first frame.
    pub(crate) fn begin(&mut self) {
        let header = std::mem::take(&mut self.plan.header);
        self.parcel.wire.extend(header);
        if self.plan.rogue == Some(Rogue::AtOnce) && self.plan.has_tls {
            return self.spoil(CloseReason::BadTls, b"\x16\x03\x01\x00\x05hello");
        }
        match &mut self.plan.tls {
            Some(tls) => tls.flush(&mut self.parcel.wire),
            None => self.begin_inside(),
        }
    }

    fn begin_inside(&mut self) {
        if !self.plan.has_web {
            return self.open();
        }
        let request = match self.plan.rogue {
            Some(Rogue::AtOnce) => {
                self.spoils.push(CloseReason::BadWebsocket);
                websocket::bad_request(&mut self.rng)
            }
            Some(Rogue::Later { .. }) | None => websocket::request(&mut self.rng),
        };
        self.put(&request);
    }

    fn open(&mut self) {
        self.stage = Stage::Open;
        for (bytes, ends) in std::mem::take(&mut self.waiting) {
            self.write(bytes, ends);
        }
    }

    /// The client says frames, or a part of one.
    pub(crate) fn write(&mut self, mut bytes: Vec<u8>, ends: Ends) {
        let is_preface =
            |(_, label): &(usize, Label)| *label == Label::Bad(CloseReason::BadPreface);
        if self.plan.is_among_others && self.web.is_none() && ends.iter().any(is_preface) {
            bytes[0] = b'S'; // by what it said it would be another protocol that is spoken here
        }
        match self.stage {
            Stage::Opening => self.waiting.push((bytes, ends)),
            Stage::Spent | Stage::Broken => {}
            Stage::Open => {
                if let Some(Rogue::Later { writes }) = &mut self.plan.rogue {
                    if *writes == 0 {
                        return self.break_rules();
                    }
                    *writes -= 1;
                }
                self.wrap(&bytes, &ends);
            }
        }
    }

    fn wrap(&mut self, bytes: &[u8], ends: &[(usize, Label)]) {
        let Some(web) = &mut self.web else {
            self.weaver.weave(bytes, ends, &mut self.parcel);
            return self.put(bytes);
        };
        let mut wire = Vec::new();
        let mut rest = 0;
        while rest < bytes.len() {
            let is_much = self.plan.pings_much && self.weaver.may_sign();
            let controls = if is_much { PINGS } else { u32::from(happens(&mut self.rng, 100)) };
            for _ in 0..if self.weaver.may_sign() { controls } else { 0 } {
                let sign = web.control(&mut self.rng, &mut wire);
                self.weaver.sign(sign, &mut self.parcel);
            }
            let left = bytes.len() - rest;
            let count = if self.rng.bool() { left } else { self.rng.usize(1..=left) };
            let piece = &bytes[rest..rest + count];
            web.say(&mut self.rng, piece, count == left, &mut wire);
            let in_piece = |(end, label): &(usize, Label)| {
                (*end > rest && *end <= rest + count).then(|| (*end - rest, *label))
            };
            let ends: Vec<_> = ends.iter().filter_map(in_piece).collect();
            self.weaver.weave(piece, &ends, &mut self.parcel);
            rest += count;
        }
        self.put(&wire);
    }

    /// Answers a ping as browsers do, if it may. It need not be between two frames for that.
    pub(crate) fn pong(&mut self) -> bool {
        let Some(web) = &mut self.web else { return false };
        if self.stage != Stage::Open || !self.weaver.may_sign() || self.rng.bool() {
            return false;
        }
        let mut wire = Vec::new();
        web.pong(&mut self.rng, &mut wire);
        self.weaver.sign(Sign::Pong, &mut self.parcel);
        self.put(&wire);
        true
    }

    /// It was let in.
    pub(crate) fn on_welcome(&mut self) {
        self.weaver.is_welcome = true;
    }

    /// Into TLS, if there is any.
    fn put(&mut self, bytes: &[u8]) {
        match &mut self.plan.tls {
            Some(tls) => tls.say(&mut self.rng, bytes, &mut self.parcel.wire),
            None => self.parcel.wire.extend_from_slice(bytes),
        }
    }

    fn spoil(&mut self, reason: CloseReason, bytes: &[u8]) {
        self.spoils.push(reason);
        self.stage = Stage::Broken;
        self.parcel.wire.extend_from_slice(bytes);
    }

    fn break_rules(&mut self) {
        if self.plan.has_tls && (self.web.is_none() || self.rng.bool()) {
            return self.spoil(
                CloseReason::BadTls,
                b"\x17\x03\x03\x00\x20not of this session, as one sees",
            );
        }
        let frame = websocket::bad_frame(&mut self.rng);
        self.put(&frame);
        self.spoil(CloseReason::BadWebsocket, &[]);
    }

    /// The layers' own last words; nothing more is said.
    pub(crate) fn say_goodbye(&mut self) {
        if self.stage != Stage::Open || (self.web.is_none() && self.plan.tls.is_none()) {
            return;
        }
        if let Some(web) = &mut self.web {
            let mut wire = Vec::new();
            web.close(&mut self.rng, &mut wire);
            self.put(&wire);
        }
        if let Some(tls) = &mut self.plan.tls
            && (self.web.is_none() || self.rng.bool())
        {
            tls.finish(&mut self.parcel.wire);
        }
        self.stage = Stage::Spent;
    }

    // --- what is heard ---------------------------------------------------------------------------

    /// Bytes came; the frames in them.
    pub(crate) fn hear(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.has_layers() || (self.web.is_none() && self.plan.tls.is_none()) {
            return bytes.to_vec();
        }
        if self.bare.is_some() {
            return self.hear_bare(bytes);
        }
        let mut plain = Vec::new();
        match &mut self.plan.tls {
            None => plain.extend_from_slice(bytes),
            Some(_) if !self.has_heard && is_word(bytes) => return self.hear_bare(bytes),
            Some(tls) => {
                self.has_heard = true;
                let was_handshaking = tls.is_handshaking();
                match tls.hear(bytes, &mut plain) {
                    Ok(is_over) => self.has_heard_end |= is_over,
                    Err(error) => {
                        assert!(!self.spoils.is_empty(), "TLS of the gateway: {error}");
                        return Vec::new();
                    }
                }
                tls.flush(&mut self.parcel.wire);
                if was_handshaking && !tls.is_handshaking() {
                    self.begin_inside();
                }
            }
        }
        self.hear_inside(plain)
    }

    fn hear_inside(&mut self, plain: Vec<u8>) -> Vec<u8> {
        let Some(web) = &mut self.web else { return plain };
        if web.is_untouched() && is_word(&plain) {
            return self.hear_bare(&plain);
        }
        let Heard { native, is_opened, is_refused, is_closed } =
            web.hear(&plain, !self.spoils.is_empty());
        if is_opened && self.stage == Stage::Opening {
            self.open();
        }
        if is_refused {
            self.stage = Stage::Broken;
        }
        if is_closed && self.rng.bool() {
            self.say_goodbye();
        }
        native
    }

    /// One native frame, for who has not yet said what it speaks; it understands nothing behind it.
    fn hear_bare(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.stage = Stage::Broken;
        let bare = self.bare.get_or_insert_default();
        let whole = |bare: &[u8]| match bare {
            [_, _, high, low, ..] => 4 + usize::from(u16::from_be_bytes([*high, *low])),
            _ => usize::MAX,
        };
        if bare.len() >= whole(bare) {
            return Vec::new();
        }
        bare.extend_from_slice(bytes);
        match whole(bare) {
            length if bare.len() >= length => bare[..length].to_vec(),
            _ => Vec::new(),
        }
    }

    /// The gateway closed in due form, and this is the native code of its last word to us. Panics
    /// where the layers have not had theirs.
    pub(crate) fn check_closed(&self, word: Option<u16>) {
        if let Some(web) = &self.web {
            web.check_closed(word);
        }
        assert!(self.plan.tls.is_none() || self.has_heard_end, "TLS was not ended");
    }
}

/// Whether a native last word begins here, and nothing of a layer.
fn is_word(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|first| [kind::GOAWAY, kind::ERROR].contains(first))
}
