//! The ways by which clients of a world come, and what must hold of the layers between.

use heartwheel::base::introduction::Introduction;

use crate::link::Stage;
use crate::ways::Plan;

use super::*;

/// The fleet's stream of randomness.
const FLEET: u64 = 4 << 40;

/// What is spoken in a world.
pub(super) fn fleet(bounds: &Bounds) -> Fleet {
    match bounds.scene {
        Scene::Bare => Fleet::default(),
        Scene::Layered => Fleet::random(&mut stream(bounds.seed, FLEET, 0)),
    }
}

impl World {
    pub(super) fn plan_way(&mut self, link: usize) -> Plan {
        let peer = self.kernel.link(link).peer;
        // Each link's is its own, whoever else is left out.
        let mut rng = self.kernel.link(link).rng.clone();
        rng.u64(..);
        self.fleet.plan(&mut rng.fork(), peer)
    }

    /// Its layers begin, at once or later than they may.
    pub(super) fn begin_way(&mut self, link: usize, at: Moment) {
        if !self.clients.way(link).has_layers() {
            return;
        }
        let mut wait = Span::ZERO;
        let slowness = self.config.handshake_timeout.times(2);
        self.kernel.touch(link, |wire| {
            let longest = if happens(&mut wire.rng, 50) { slowness } else { Span::from_millis(50) };
            wait = span_upto(&mut wire.rng, longest);
        });
        self.plan(at + wait, Happening::Begin { link });
    }

    /// What the client has said goes out.
    pub(super) fn flush(&mut self, link: usize, at: Moment) {
        if self.clients.has_vanished(link) {
            return;
        }
        let parcel = self.clients.take_parcel(link);
        if !parcel.wire.is_empty() {
            self.kernel.arrive_wrapped(link, &parcel, at);
        }
    }

    /// The client closes its side.
    pub(super) fn finish(&mut self, link: usize, at: Moment) {
        self.clients.say_goodbye(link);
        self.flush(link, at);
        self.kernel.touch(link, |wire| wire.finish());
    }

    /// Who comes is who it is said to be.
    pub(super) fn check_introduction(&mut self, link: usize, as_what: &Introduction) {
        let plan = &self.clients.way(link).plan;
        assert_eq!(as_what.peer, plan.source, "a proxy spoke for another");
        assert_eq!(as_what.is_encrypted, plan.has_tls);
        let (has_tls, has_web, is_proxied) = (plan.has_tls, plan.has_web, plan.source.is_some());
        let word = match (has_tls, has_web) {
            (true, true) => "websocket in TLS",
            (true, false) => "TLS",
            (false, true) => "websocket",
            (false, false) => "bare behind a proxy",
        };
        self.tally.note("layer", word, 1);
        self.tally.note("layer", "proxied", u64::from(is_proxied));
    }

    /// Whether the client at this link will ping much, and has yet to come in.
    pub(super) fn is_to_ping_first(&self, link: usize) -> bool {
        self.clients.way(link).is_to_ping() && self.kernel.link(link).closed.is_none()
    }

    /// Whoever comes online comes from where its proxy said, or its connection.
    pub(super) fn check_remote(&self, event: &Event) {
        let (Event::Online { conn, remote, .. } | Event::Resumed { conn, remote, .. }) = event
        else {
            return;
        };
        let Some(seat) = self.oracle.seats.get(conn) else { return };
        assert_eq!(*remote, self.address_of(seat.link), "{conn} comes from elsewhere");
    }

    /// Where the client at this link comes from.
    pub(super) fn address_of(&self, link: usize) -> SocketAddr {
        let own = self.kernel.link(link).peer;
        self.clients.way(link).plan.source.unwrap_or(own)
    }

    /// Nobody is heard by a layer that the gateway was not told of.
    pub(super) fn check_is_introduced(&mut self, link: usize, conn: ConnId) {
        let has_web = self.clients.way(link).plan.has_web;
        assert_eq!(self.oracle.seat(conn).is_browser, has_web, "{conn}: another carrier");
    }

    /// Whoever is ended by a layer has given it cause.
    pub(super) fn check_spoilt(&mut self, link: usize, reason: CloseReason) {
        let is_owed = self.clients.way(link).is_spoilt_by(reason);
        let wire = self.kernel.link(link);
        let pings_much = self.clients.way(link).pings_much();
        let is_stuck = reason == CloseReason::SlowConsumer && (!wire.is_reading() || pings_much);
        self.tally.note("layer", "pongs unread", u64::from(is_stuck));
        assert!(is_owed || is_stuck, "link {link} is ended for {reason} and gave no cause");
    }

    /// Layers have something for those only who are here.
    pub(super) fn check_layers(&self) {
        if !self.fleet.is_layered() {
            return;
        }
        self.layers.check();
        let stats = self.layers.stats();
        assert!(stats.wrapped <= self.kernel.held().len(), "layers of connections that are gone");
        for (conn, seat) in &self.oracle.seats {
            let wire = self.kernel.link(seat.link);
            let is_waited_for = !wire.is_heard_out || self.oracle.is_closing(*conn);
            let is_saying = wire.is_sending() || self.layers.has_work();
            let is_gone = matches!(wire.stage, Stage::Gone);
            assert!(is_waited_for || is_saying || is_gone, "{conn}: nobody hears it, and it stays");
        }
    }

    /// Nothing is left of them.
    pub(super) fn sum_up_layers(&mut self) {
        assert!(self.layers.is_empty(), "layers hold something of who is gone");
        let stats = self.layers.stats();
        for (word, count) in
            [("handshake put off", stats.put_off), ("TLS failed", stats.tls_failed)]
        {
            self.tally.note("layer", word, count);
        }
    }
}
