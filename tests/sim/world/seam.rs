//! Between the kernel and the gateway.

use super::*;

impl World {
    pub(super) fn hand_in(&mut self, news: News) {
        self.trace(|| format!("kernel: {news:?}"));
        self.steps += 1;
        let now = self.now;
        self.oracle.on_told(now);
        match news {
            News::Accepted { link } => {
                let peer = self.kernel.link(link).peer;
                self.gateway
                    .on_completion(Completion::Accepted { socket: socket_of(link), peer }, now);
                self.hand_ops_over();
                let stats = self.gateway.stats();
                let room = self.capacity() - stats.connections;
                let is_open = stats.held == 0 || room >= limits::HELD_ROOM_MIN;
                assert!(is_open, "P6: {} sessions are held, and the house is full", stats.held);
            }
            News::AcceptFailed { fault } => {
                self.accept_failed_at = Some(now);
                self.gateway.on_completion(Completion::AcceptFailed { fault }, now);
            }
            News::Of { link, conn, word } => self.hand_in_word(link, conn, word),
        }
        self.read_ledger(now);
        if self.steps.is_multiple_of(COMPLETIONS_PER_CHECK) {
            self.gateway.check();
        }
    }

    fn hand_in_word(&mut self, link: usize, conn: ConnId, word: Word) {
        let now = self.now;
        match word {
            Word::Received(bytes) => {
                let (labels, begun_bytes) = self.kernel.hand_over(link, bytes.len());
                self.trace(|| format!("  is {labels:?}, then {begun_bytes} bytes"));
                self.gateway.on_completion(Completion::Received { conn, bytes: &bytes }, now);
                self.oracle.on_received(conn, &labels, begun_bytes, now);
            }
            Word::Ended(end) => {
                self.gateway.on_completion(Completion::ReceiveEnded { conn, end }, now);
                self.oracle.on_receive_ended(conn, end, now);
            }
            Word::Sent(chunk, result) => {
                self.gateway.on_completion(Completion::Sent { conn, chunk, result }, now);
                self.oracle.on_sent(conn, result, now);
            }
            Word::Looked(found, tcp) => {
                self.gateway.on_completion(Completion::Looked { conn, found, tcp }, now);
                let waiting_since = self.kernel.link(link).waiting_since();
                self.oracle.on_looked(conn, found, tcp, waiting_since, now);
            }
            Word::Closed => {
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
        for op in ops {
            self.trace(|| format!("gateway: {op:?}"));
            match &op {
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
        let can_be_asked = wire.is_reading() && !wire.is_peer_gone();
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
