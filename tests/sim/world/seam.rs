//! Between the kernel and the gateway.

use heartwheel::base::introduction::{Carrier, Introduction};
use heartwheel::base::io::{Chunk, Found, ReceiveEnd, SocketHandle, TcpFacts};

use super::*;

/// What the layers tell the gateway.
#[derive(Debug)]
enum Told {
    Accepted { socket: SocketHandle, peer: SocketAddr },
    Introduced(ConnId, Introduction),
    Received(ConnId, Vec<u8>),
    Ended(ConnId, ReceiveEnd),
    Spoilt(ConnId, CloseReason),
    Sent(ConnId, Chunk, Result<usize, IoFault>),
    Looked(ConnId, Found, Option<TcpFacts>),
    Closed(ConnId),
}

impl From<Completion<'_>> for Told {
    fn from(completion: Completion<'_>) -> Self {
        match completion {
            Completion::Accepted { socket, peer } => Self::Accepted { socket, peer },
            Completion::Introduced { conn, as_what } => Self::Introduced(conn, as_what.clone()),
            Completion::Received { conn, bytes } => Self::Received(conn, bytes.to_vec()),
            Completion::ReceiveEnded { conn, end } => Self::Ended(conn, end),
            Completion::Spoilt { conn, reason } => Self::Spoilt(conn, reason),
            Completion::Sent { conn, chunk, result } => Self::Sent(conn, chunk, result),
            Completion::Looked { conn, found, tcp } => Self::Looked(conn, found, tcp),
            Completion::Closed { conn } => Self::Closed(conn),
            other @ (Completion::AcceptFailed { .. }
            | Completion::Connected { .. }
            | Completion::ConnectFailed { .. }
            | Completion::Moved { .. }
            | Completion::Stayed { .. }
            | Completion::Arrived { .. }
            | Completion::ArrivalFailed { .. }) => panic!("nobody asked for {other:?}"),
        }
    }
}

impl Told {
    fn conn(&self) -> ConnId {
        match self {
            Self::Accepted { .. } => panic!("it is no connection yet"),
            Self::Introduced(conn, _)
            | Self::Received(conn, _)
            | Self::Ended(conn, _)
            | Self::Spoilt(conn, _)
            | Self::Sent(conn, ..)
            | Self::Looked(conn, ..)
            | Self::Closed(conn) => *conn,
        }
    }
}

impl World {
    pub(super) fn hand_in(&mut self, news: News) {
        self.trace(|| format!("kernel: {news:?}"));
        self.steps += 1;
        let now = self.now;
        match news {
            News::Accepted { link } => {
                let peer = self.kernel.link(link).peer;
                self.pass_on(Completion::Accepted { socket: socket_of(link), peer }, link);
                self.hand_ops_over();
                let stats = self.gateway.stats();
                let room = self.capacity() - stats.connections;
                let is_open = stats.held == 0 || room >= limits::HELD_ROOM_MIN;
                assert!(is_open, "P6: {} sessions are held, and the house is full", stats.held);
            }
            News::AcceptFailed { fault } => {
                self.oracle.on_told(now);
                self.accept_failed_at = Some(now);
                self.gateway.on_completion(Completion::AcceptFailed { fault }, now);
            }
            News::Of { link, conn, word } => {
                let completion = match word {
                    Word::Received(ref bytes) => Completion::Received { conn, bytes },
                    Word::Ended(end) => Completion::ReceiveEnded { conn, end },
                    Word::Sent(chunk, result) => Completion::Sent { conn, chunk, result },
                    Word::Looked(found, tcp) => Completion::Looked { conn, found, tcp },
                    Word::Closed => Completion::Closed { conn },
                };
                self.pass_on(completion, link);
            }
        }
        self.read_ledger(now);
        if self.steps.is_multiple_of(COMPLETIONS_PER_CHECK) {
            self.gateway.check();
        }
    }

    /// Lets the layers make of it what they will, and tells the gateway that.
    fn pass_on(&mut self, completion: Completion<'_>, link: usize) {
        let mut told = Vec::new();
        self.layers.on_completion(completion, |completion| told.push(Told::from(completion)));
        for told in told {
            self.tell(link, told);
        }
    }

    /// What layers do once in a turn.
    pub(super) fn work_layers(&mut self) {
        let now = self.now;
        let mut told = Vec::new();
        self.layers.work(now, |completion| told.push(Told::from(completion)));
        for told in told {
            let link = self.kernel.link_of(told.conn());
            self.trace(|| format!("layers: {told:?}"));
            self.tell(link, told);
        }
        self.read_ledger(now);
    }

    fn tell(&mut self, link: usize, told: Told) {
        let now = self.now;
        self.oracle.on_told(now);
        match told {
            Told::Accepted { socket, peer } => {
                self.gateway.on_completion(Completion::Accepted { socket, peer }, now);
            }
            Told::Introduced(conn, as_what) => {
                self.check_introduction(link, &as_what);
                let as_what = &as_what;
                self.gateway.on_completion(Completion::Introduced { conn, as_what }, now);
                self.oracle.on_introduced(conn, as_what.carrier == Carrier::WebSocket);
            }
            Told::Received(conn, bytes) => {
                let (labels, begun_bytes) = self.kernel.hand_over(link, &bytes);
                self.trace(|| format!("  is {labels:?}, then {begun_bytes} bytes"));
                self.check_is_introduced(link, conn);
                self.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
                self.oracle.on_received(conn, &labels, begun_bytes, now);
            }
            Told::Ended(conn, end) => {
                if matches!(end, ReceiveEnd::Eof | ReceiveEnd::Fault(_)) {
                    self.kernel.touch(link, |wire| wire.is_heard_out = true);
                }
                self.gateway.on_completion(Completion::ReceiveEnded { conn, end }, now);
                self.oracle.on_receive_ended(conn, end, now);
            }
            Told::Spoilt(conn, reason) => {
                self.check_spoilt(link, reason);
                self.kernel.touch(link, |wire| wire.is_heard_out = true);
                self.gateway.on_completion(Completion::Spoilt { conn, reason }, now);
                self.oracle.end(conn, reason, now);
            }
            Told::Sent(conn, chunk, result) => {
                self.gateway.on_completion(Completion::Sent { conn, chunk, result }, now);
                self.oracle.on_sent(conn, result, now);
            }
            Told::Looked(conn, found, tcp) => {
                self.gateway.on_completion(Completion::Looked { conn, found, tcp }, now);
                let waiting_since = self.kernel.link(link).waiting_since();
                self.oracle.on_looked(conn, found, tcp, waiting_since, now);
            }
            Told::Closed(conn) => {
                self.gateway.on_completion(Completion::Closed { conn }, now);
                let (reason, silences) = self.oracle.on_closed(conn);
                self.let_clients_hear();
                self.clients.check_pings(link, silences);
                self.clients.on_closed(link, reason, self.kernel.link(link), self.patience);
            }
        }
    }

    pub(super) fn hand_ops_over(&mut self) {
        let mut ops = Vec::new();
        self.gateway.take_ops(&mut ops);
        for op in &ops {
            self.trace(|| format!("gateway: {op:?}"));
            match op {
                Op::Adopt { socket, conn } => {
                    self.oracle.on_adopted(*conn, link_of(*socket), self.now);
                }
                Op::Send { conn, .. } => self.oracle.on_send_asked(*conn, self.now),
                Op::Look { conn } => self.oracle.on_look_asked(*conn),
                Op::Close { conn, .. } => self.oracle.on_close_asked(*conn),
                Op::Accept { .. }
                | Op::StopAccepting
                | Op::Connect(_)
                | Op::Discard { .. }
                | Op::Receive { .. }
                | Op::Pause { .. }
                | Op::SetUserTimeout { .. }
                | Op::Move(_) => {}
            }
        }
        self.layers.on_ops(&mut ops, self.now);
        for op in ops {
            self.kernel.submit(op, self.now);
        }
    }

    /// Reads what the ledger says since the last time, all of it of this moment.
    pub(super) fn read_ledger(&mut self, at: Moment) {
        let mut records = Vec::new();
        self.gateway.take_events(&mut records, usize::MAX);
        for record in &records {
            self.trace(|| format!("ledger: {record:?}"));
            (record.seq, record.at, record.event.word()).hash(&mut self.fingerprint);
            self.assert_was_asked(&record.event);
            self.check_remote(&record.event);
        }
        // A small outbox can run full of answers before the kernel had a chance to send any.
        let is_small = self.config.outbox_bytes_max < limits::OUTBOX_BYTES_MAX;
        let is_stuck = |link: usize| is_small || !self.kernel.link(link).is_reading();
        self.oracle.on_records(&records, at, is_stuck);
    }

    /// Whoever is asked before it is judged was asked indeed.
    fn assert_was_asked(&mut self, event: &Event) {
        let Event::Offline { conn, reason: CloseReason::HeartbeatTimeout, last_beat, .. } = event
        else {
            return;
        };
        self.let_clients_hear();
        let Some(link) = self.oracle.seats.get(conn).map(|seat| seat.link) else { return };
        let wire = self.kernel.link(link);
        let can_be_asked = wire.is_reading() && !wire.is_peer_gone() && self.clients.is_open(link);
        // Standing still for less than what is credited takes from the time to answer.
        let still = match self.stands_still {
            true => (limits::SLEEP_MAX + limits::STALL_THRESHOLD).times(2),
            false => Span::ZERO,
        };
        let has_time = self.oracle.leaves_time_for_a_ping(*conn, still);
        if can_be_asked && has_time {
            let was_asked = self.clients.pinged_at(link).is_some_and(|at| at >= *last_beat);
            assert!(was_asked, "{conn}: judged without having been pinged");
        }
    }
}
