//! How sessions and connections end: the ledger is told, the peer is told, the slot comes back.

use crate::base::event::{CloseReason, ComeBack, Event};
use crate::base::ids::ConnId;
use crate::base::io::{Chunk, CloseHow, IoFault, Op};
use crate::base::time::{Moment, Span};
use crate::gateway::connection::{Farewell, Hearing, Receive, State, WaitsFor};
use crate::gateway::{Gateway, reason_of};
use crate::wire::message::Message;
use crate::wire::native;

/// What a peer hears at the end: a number, and a text for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Word<'a> {
    pub(crate) code: u16,
    pub(crate) text: &'a str,
}

impl Gateway {
    /// Ends a connection, and the session on it if there is one, for `reason`: the ledger is told,
    /// the client id is free at once, and the peer hears why where that makes sense.
    ///
    /// A connection that is leaving or closing already is left to that.
    pub(crate) fn end(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let window = match reason.come_back() {
            ComeBack::StayAway => Default::default(),
            ComeBack::Resume | ComeBack::Reconnect => self.config.reconnect_window,
        };
        self.end_within(conn, reason, window, now);
    }

    /// The same, and a peer that is asked to come back is asked to do so within `window`.
    pub(crate) fn end_within(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        window: (Span, Span),
        now: Moment,
    ) {
        let word = Word { code: reason.code(), text: reason.word() };
        self.end_saying(conn, reason, word, window, now);
    }

    /// The same, and where the peer hears why it hears `word`.
    pub(crate) fn end_saying(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        word: Word<'_>,
        window: (Span, Span),
        now: Moment,
    ) {
        let Some(connection) = self.tracker.get(conn) else { return };
        match connection.state {
            State::Greeting { .. } => self.stats.tally.refused[reason.index()] += 1,
            State::Live(_) => {}
            State::Held(_) => return self.end_held(conn, Some(reason), now),
            State::Leaving { .. } | State::Closing => return,
        }
        self.stats.count_ending(reason, connection.peer());
        self.tell_disconnected(conn, reason, now);
        if self.end_session(conn, reason, now) {
            let how = match reason == CloseReason::ClosedByPeer {
                true => CloseHow::Finish,
                false => CloseHow::Abort,
            };
            self.ops.push(Op::Close { conn, how });
            return;
        }
        match Farewell::for_reason(reason) {
            Farewell::Silent(how) => self.close(conn, how),
            Farewell::Error(how) => {
                let error = Message::Error { code: word.code, text: word.text };
                self.leave(conn, &error, WaitsFor::Sent(how), now);
            }
            Farewell::Goaway => {
                let goaway = Message::Goaway {
                    code: word.code,
                    reconnect_min_ms: window.0.as_millis_u32(),
                    reconnect_max_ms: window.1.as_millis_u32(),
                    address: "",
                    text: word.text,
                };
                let has_to_go = matches!(reason, CloseReason::Drain | CloseReason::Rebalance);
                self.stats.leaving.told += u64::from(has_to_go);
                let waits_for = if has_to_go { WaitsFor::Leaver } else { WaitsFor::Peer };
                self.leave(conn, &goaway, waits_for, now);
            }
        }
    }

    /// Writes an event of this lived moment to the ledger.
    pub(crate) fn tell(&mut self, event: Event, now: Moment) {
        self.ledger.tell(event, self.time.expected(now));
    }

    /// Says the last word and waits, not for ever, for it to be heard.
    pub(crate) fn leave(
        &mut self,
        conn: ConnId,
        word: &Message<'_>,
        waits_for: WaitsFor,
        now: Moment,
    ) {
        let until = match &self.draining {
            Some(drain) if self.is_emptying() => drain.until.max(now),
            Some(_) | None => now + self.config.linger_timeout,
        };
        let bytes_max = self.config.outbox_bytes_max;
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let write = |out: &mut Vec<u8>| native::encode(word, out);
        if connection.outbox.append(&mut self.chunks, bytes_max, write).is_err() {
            self.stats.leaving.closed += u64::from(waits_for == WaitsFor::Leaver);
            self.close(conn, CloseHow::Abort);
            return;
        }
        connection.state = State::Leaving { until, waits_for };
        connection.begun = None;
        connection.hearing = Hearing::Open;
        // What it still sends is read for its end, and so that our close does not cut off our word.
        let is_deaf = connection.receive == Receive::Paused;
        self.stats.frames_sent += 1;
        self.tracker.touch(conn, until);
        if is_deaf {
            self.receive_again(conn);
        }
        self.send_waiting(conn);
    }

    /// Asks the kernel to close. Nothing more is asked for this connection.
    pub(crate) fn close(&mut self, conn: ConnId, how: CloseHow) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        if matches!(connection.state, State::Closing) {
            return;
        }
        connection.state = State::Closing;
        connection.hearing = Hearing::Open;
        connection.begun = None;
        connection.outbox.forget(&mut self.chunks);
        self.tracker.disarm(conn);
        self.ops.push(Op::Close { conn, how });
    }

    /// Sends what waits, unless a send is under way.
    pub(crate) fn send_waiting(&mut self, conn: ConnId) {
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let is_last_word = is_last_word(&connection.state);
        match connection.outbox.take_to_send() {
            Some(chunk) => self.ops.push(Op::Send { conn, chunk }),
            None => self.awaits_send |= !connection.outbox.is_empty(),
        }
        self.awaits_send |= is_last_word;
    }

    /// Everything that was in flight is gone: what comes next, messages included.
    fn next_to_send(&mut self, conn: ConnId, now: Moment) -> Option<Chunk> {
        self.on_handed(conn, now);
        self.fill_outbox(conn, now);
        self.tracker.get_mut(conn)?.outbox.take_to_send()
    }

    /// A chunk came home. The rest of it, or the next, goes out; a last word that was heard ends
    /// the connection.
    pub(crate) fn on_sent(
        &mut self,
        conn: ConnId,
        chunk: Chunk,
        result: Result<usize, IoFault>,
        now: Moment,
    ) {
        let Some(connection) = self.tracker.get_mut(conn) else {
            self.stats.stale += 1;
            return;
        };
        if matches!(connection.state, State::Closing | State::Held(_)) {
            connection.outbox.on_failed(chunk, &mut self.chunks);
            return;
        }
        match result {
            Ok(sent_bytes) => {
                self.stats.tally.bytes_sent += sent_bytes as u64;
                let is_last_word = is_last_word(&connection.state);
                let has_extra = connection.has_extra();
                let next = match connection.outbox.on_sent(chunk, sent_bytes, &mut self.chunks) {
                    Some(rest) => Some(rest),
                    None if has_extra => self.next_to_send(conn, now),
                    // Nearly nobody has messages waiting, and a beat does not look for them.
                    None => connection.outbox.take_to_send(),
                };
                match next {
                    Some(chunk) => {
                        self.ops.push(Op::Send { conn, chunk });
                        self.awaits_send |= is_last_word;
                    }
                    None if is_last_word => self.on_gone(conn, CloseReason::ClosedByPeer, now),
                    None => {}
                }
            }
            Err(fault) => {
                connection.outbox.on_failed(chunk, &mut self.chunks);
                self.on_gone(conn, reason_of(fault), now);
            }
        }
    }
}

/// Whether the connection is closed when everything is sent.
const fn is_last_word(state: &State) -> bool {
    matches!(state, State::Leaving { waits_for: WaitsFor::Sent(_), .. })
}
