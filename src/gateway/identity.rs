//! Whether a client is who it says it is.
//!
//! Where certificates name clients, whoever has shown one is who it says, whatever else it shows.
//! What takes a microsecond is decided at once. For anything else a [`Check`] goes out by
//! [`take_checks`](Gateway::take_checks) and its answer comes in by
//! [`on_checked`](Gateway::on_checked); until then the HELLO waits, and what comes behind it, and
//! the deadline of the handshake goes on running.

use std::collections::BTreeMap;

use crate::base::event::CloseReason;
use crate::base::identity::{Check, Proof, Verdict};
use crate::base::ids::{ClientId, ConnId};
use crate::base::limits;
use crate::base::time::Moment;
use crate::gateway::Gateway;
use crate::gateway::connection::{Preface, State};
use crate::gateway::requests::Next;
use crate::wire::message::Message;
use crate::wire::native;
use crate::wire::token::Sealed;

/// Checks under way, and those that nobody has taken yet.
#[derive(Default)]
pub(crate) struct Checks {
    /// What each has said so far, HELLO first. Who is gone meanwhile stays until its answer comes:
    /// somebody is at work on it.
    under_way: BTreeMap<ConnId, Vec<u8>>,
    waiting: Vec<Check>,
    /// Whose HELLO is heard again because it is proven.
    proven: Option<ConnId>,
}

impl Checks {
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }
}

impl Gateway {
    /// Asks for the proof of the id in HELLO; `rest` came behind it. A session that is resumed
    /// needs it like one that begins. `None`: it is proven.
    pub(crate) fn prove(
        &mut self,
        conn: ConnId,
        hello: &Message<'_>,
        rest: &[u8],
        now: Moment,
    ) -> Option<Next> {
        let Message::Hello { client_id, token, .. } = hello else { return None };
        if self.checks.proven == Some(conn) {
            return None;
        }
        if let Some(name) = self.certified.take(conn) {
            return (*name != **client_id).then(|| self.refuse(conn, CloseReason::BadToken, now));
        }
        let is_proven = match &self.config.proof {
            Proof::None => return None,
            Proof::Certificate => false,
            Proof::Words(words) => words.is_of(client_id, token),
            Proof::Keys(keys) => {
                let unix_ms = self.config.wall.unix_millis(self.time.expected(now));
                Sealed::read(token).is_some_and(|sealed| {
                    // Each key is tried, so that time does not tell which one it was.
                    let count = keys.all().filter(|key| sealed.is_by(key, client_id)).count();
                    count > 0 && !sealed.is_over(unix_ms)
                })
            }
            Proof::Asked(_) if token.is_empty() => false,
            Proof::Asked(_) => return Some(self.check_later(conn, hello, rest, now)),
        };
        (!is_proven).then(|| self.refuse(conn, CloseReason::BadToken, now))
    }

    /// Somebody else looks at the token.
    fn check_later(&mut self, conn: ConnId, hello: &Message<'_>, rest: &[u8], now: Moment) -> Next {
        let Message::Hello { client_id, token, .. } = hello else { return Next::Ended };
        if self.checks.under_way.len() >= limits::CHECKS_MAX {
            self.put_off(conn, now);
            return Next::Ended;
        }
        let mut said = Vec::new();
        let is_said = native::try_encode(hello, &mut said).is_ok();
        let (Ok(client), true) = (ClientId::new(client_id), is_said) else {
            return self.refuse(conn, CloseReason::ServerError, now);
        };
        let Some(connection) = self.tracker.get_mut(conn) else { return Next::Ended };
        let State::Greeting { preface, .. } = &mut connection.state else { return Next::Ended };
        *preface = Preface::Checked;
        let peer = connection.peer();
        self.checks.under_way.insert(conn, said);
        self.checks.waiting.push(Check { conn, client, token: (*token).into(), peer });
        self.keep_behind_check(conn, rest, now);
        Next::Ended
    }

    /// Bytes of a client whose token is being looked at.
    pub(crate) fn keep_behind_check(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        let Some(said) = self.checks.under_way.get_mut(&conn) else { return };
        if said.len() + bytes.len() > limits::CHECK_BYTES_MAX {
            *said = Vec::new();
            return self.end(conn, CloseReason::Flood, now);
        }
        said.extend_from_slice(bytes);
    }

    /// Moves tokens that somebody has to look at to the end of `out`, at most `budget`. Each has to
    /// be answered by [`on_checked`](Self::on_checked), once.
    pub fn take_checks(&mut self, out: &mut Vec<Check>, budget: usize) {
        let count = budget.min(self.checks.waiting.len());
        out.extend(self.checks.waiting.drain(..count));
    }

    /// Whether checks wait to be taken.
    pub fn has_checks(&self) -> bool {
        !self.checks.waiting.is_empty()
    }

    /// Somebody looked at a token.
    pub fn on_checked(&mut self, conn: ConnId, verdict: Verdict, now: Moment) {
        let now = self.on_told(now);
        let Some(said) = self.checks.under_way.remove(&conn) else {
            self.stats.stale += 1;
            return;
        };
        self.stats.tally.checks[verdict.index()] += 1;
        // It may have gone meanwhile.
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        let State::Greeting { preface, .. } = &mut connection.state else { return };
        *preface = Preface::Heard;
        match verdict {
            Verdict::Refuted => self.end(conn, CloseReason::BadToken, now),
            Verdict::Unknown => self.put_off(conn, now),
            Verdict::Proven => {
                // The HELLO was counted when it came.
                self.stats.frames_received = self.stats.frames_received.saturating_sub(1);
                self.checks.proven = Some(conn);
                self.take_apart(conn, &said, now);
                self.checks.proven = None;
            }
        }
    }

    /// Panics when a client waits for an answer that will not come.
    pub(crate) fn check_checks(&self) {
        assert!(self.checks.under_way.len() <= limits::CHECKS_MAX);
        assert!(self.checks.waiting.len() <= self.checks.under_way.len());
        assert_eq!(self.checks.proven, None);
        for slot in 0..self.tracker.slots_end() {
            let Some((conn, connection)) = self.tracker.slot(slot) else { continue };
            if let State::Greeting { preface: Preface::Checked, .. } = connection.state {
                assert!(self.checks.under_way.contains_key(&conn), "{conn} waits for ever");
            }
        }
    }
}
