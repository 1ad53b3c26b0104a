//! Who has to prove who it is, as the twin sees it.

use heartwheel::base::event::CloseReason;
use heartwheel::base::identity::{Proof, Verdict};
use heartwheel::base::ids::ConnId;
use heartwheel::base::limits;
use heartwheel::base::time::Moment;

use crate::guard::Claim;
use crate::link::Piece;
use crate::oracle::{Oracle, Phase, Waiting};
use crate::script::Hello;

impl Oracle {
    /// A client says who it is: it shows what proves that, or has to wait, or is sent away.
    pub(super) fn on_claim(&mut self, conn: ConnId, hello: Hello, now: Moment) {
        match (&self.config.proof, hello.claim) {
            (Proof::None, _) | (Proof::Words(_) | Proof::Keys(_), Claim::True) => {
                self.on_hello(conn, hello, now);
            }
            (Proof::Asked(_), Claim::True | Claim::False | Claim::Open) => {
                let waiting = Waiting { hello, behind: Vec::new(), begun_bytes: 0, bytes: 0 };
                self.seat(conn).waiting = Some(waiting);
            }
            (Proof::Certificate | Proof::Words(_) | Proof::Keys(_) | Proof::Asked(_), _) => {
                self.end(conn, CloseReason::BadToken, now);
            }
        }
    }

    /// Whether somebody looks at what it has shown.
    pub(super) fn is_waiting(&self, conn: ConnId) -> bool {
        let seat = &self.seats[&conn];
        seat.waiting.is_some() && seat.phase == Phase::Greeting
    }

    /// These bytes were its HELLO, if it waits now.
    pub(super) fn keep_waiting(&mut self, conn: ConnId, bytes: u64) {
        if let Some(waiting) = &mut self.seat(conn).waiting {
            waiting.bytes = bytes;
        }
    }

    /// It says more before it knows.
    pub(super) fn wait_with(
        &mut self,
        conn: ConnId,
        pieces: &[Piece],
        begun_bytes: u64,
        now: Moment,
    ) {
        if begun_bytes > 0 || !pieces.is_empty() {
            self.find("said more before it was proven");
        }
        let Some(waiting) = &mut self.seat(conn).waiting else { return };
        // What was begun before is a part of what is whole now, or of what is begun.
        waiting.bytes -= waiting.begun_bytes;
        waiting.bytes += pieces.iter().map(|piece| piece.bytes).sum::<u64>();
        waiting.bytes += begun_bytes;
        waiting.begun_bytes = begun_bytes;
        waiting.behind.extend(pieces.iter().map(|piece| piece.label));
        if waiting.bytes > limits::CHECK_BYTES_MAX as u64 {
            self.find("said too much before it was proven");
            self.end(conn, CloseReason::Flood, now);
        }
    }

    /// Somebody looked at what it has shown. That may come late.
    pub(crate) fn on_judged(&mut self, conn: ConnId, verdict: Verdict, now: Moment) {
        if !self.seats.contains_key(&conn) || !self.is_waiting(conn) {
            return self.find("judged when it was gone");
        }
        let Some(waiting) = self.seat(conn).waiting.take() else { return };
        match (verdict, waiting.hello.claim) {
            (Verdict::Proven, Claim::True) => {
                self.find("proven");
                self.on_hello(conn, waiting.hello, now);
                self.seat(conn).partial_bytes = 0;
                for label in &waiting.behind {
                    self.on_frame(conn, label, now);
                }
                let seat = self.seat(conn);
                seat.partial_bytes = waiting.begun_bytes;
                seat.partial_since = (waiting.begun_bytes > 0).then_some(now);
            }
            (Verdict::Refuted, Claim::False) => {
                self.find("refuted");
                self.end(conn, CloseReason::BadToken, now);
            }
            (Verdict::Unknown, Claim::Open) => {
                self.find("nobody could say");
                self.end(conn, CloseReason::Busy, now);
            }
            (verdict, claim) => panic!("{conn}: a claim is {claim:?} and was found {verdict:?}"),
        }
    }
}
