//! What the ledger says, against what it must say.

use heartwheel::base::event::{CloseReason, Event, Evidence, Probe, Record};
use heartwheel::base::ids::ConnId;
use heartwheel::base::time::{Moment, Span};

use crate::oracle::{Expected, Oracle, Phase, Presence, Proof, ping_after};
use crate::script::client_id;

impl Oracle {
    /// Compares what the ledger says with what it must say. `is_stuck` tells whether a link's
    /// client does not take what is sent.
    pub(crate) fn on_records(
        &mut self,
        records: &[Record],
        now: Moment,
        is_stuck: impl Fn(usize) -> bool,
    ) {
        for record in records {
            assert_eq!(record.seq, self.seq_last + 1, "P5: the ledger has a gap");
            assert!(!self.has_stopped, "P5: the ledger goes on behind its end");
            self.seq_last = record.seq;
            self.records += 1;
            self.tally.note("event", record.event.word(), 1);
            assert_eq!(record.at, now, "an event of another moment: {record:?}");
            self.read_as_a_consumer(&record.event);
            match &record.event {
                Event::Started { .. } => assert_eq!(record.seq, 1, "P5: the ledger begins once"),
                Event::Online { .. } => self.on_online(&record.event),
                Event::Resumed { .. } => self.on_resumed(&record.event),
                Event::Contested { .. } => self.on_contested(&record.event),
                Event::Rhythm { .. } => panic!("nobody asked for {record:?}"),
                Event::Offline { conn, reason, .. } => {
                    self.foresee(*conn, *reason, now, &is_stuck);
                    self.on_offline(&record.event);
                }
                Event::Stalled { gap } => {
                    let expected = self.expected.pop_front();
                    let is_right =
                        matches!(expected, Some(Expected::Stalled { gap: due }) if due == *gap);
                    assert!(is_right, "expected {expected:?}, the ledger says {gap} of stall");
                }
                Event::Stopped => {
                    assert!(self.owners.is_empty(), "P5: stopped with clients online");
                    assert!(self.seats.is_empty(), "stopped with connections open");
                    self.has_stopped = true;
                }
            }
        }
        assert!(self.expected.is_empty(), "the ledger does not tell {:?}", self.expected);
    }

    /// Per client ONLINE and OFFLINE alternate, and an OFFLINE ends the newest epoch.
    fn read_as_a_consumer(&mut self, event: &Event) {
        match event {
            Event::Started { .. } | Event::Stalled { .. } => {}
            Event::Resumed { client, epoch, .. }
            | Event::Contested { client, epoch, .. }
            | Event::Rhythm { client, epoch, .. } => {
                let known = self.ledger_view.get(client.as_str());
                assert_eq!(known, Some(epoch), "P5: {client} is not online with this session");
            }
            Event::Online { client, epoch, .. } => {
                assert!(*epoch > self.epoch_last, "P5: epoch {epoch} after {}", self.epoch_last);
                self.epoch_last = *epoch;
                let before = self.ledger_view.insert(client.to_string(), *epoch);
                assert_eq!(before, None, "P5: {client} comes online twice");
            }
            Event::Offline { client, epoch, .. } => {
                let before = self.ledger_view.remove(client.as_str());
                assert_eq!(before, Some(*epoch), "P5: OFFLINE of {client} ends another session");
            }
            Event::Stopped => assert!(self.ledger_view.is_empty(), "P5: {:?}", self.ledger_view),
        }
    }

    fn on_online(&mut self, event: &Event) {
        let Event::Online { client, epoch, conn, interval, timeout, flaps: count, .. } = event
        else {
            return;
        };
        let expected = self.expected.pop_front();
        let Some(Expected::Online { device, conn: expected_conn, rhythm, flaps }) = expected else {
            panic!("expected {expected:?}, the ledger says {event:?}");
        };
        assert_eq!((client.as_str(), *conn), (client_id(device).as_str(), expected_conn));
        assert_eq!((*interval, *timeout), (rhythm.interval, rhythm.timeout), "{event:?}");
        assert_eq!(*count, flaps, "{event:?}");
        // It may have ended within the same bytes; what is expected of it then learns its epoch.
        for expected in &mut self.expected {
            if let Expected::Offline { conn: other, presence, .. } = expected
                && other == conn
            {
                presence.epoch = *epoch;
            }
        }
        match &mut self.seat(*conn).phase {
            Phase::Live(presence) => presence.epoch = *epoch,
            Phase::Held(hold) => hold.presence.epoch = *epoch,
            Phase::Greeting | Phase::Over { .. } => {}
        }
    }

    fn on_resumed(&mut self, event: &Event) {
        let Event::Resumed { client, epoch, conn, away, .. } = event else { return };
        let expected = self.expected.pop_front();
        let Some(Expected::Resumed { device, conn: by, epoch: of, away: since }) = expected else {
            panic!("expected {expected:?}, the ledger says {event:?}");
        };
        assert_eq!(client.as_str(), client_id(device));
        assert_eq!((*conn, *epoch, *away), (by, of, since));
    }

    fn on_contested(&mut self, event: &Event) {
        let Event::Contested { client, epoch, count, .. } = event else { return };
        let expected = self.expected.pop_front();
        let Some(Expected::Contested { device, epoch: of, count: fights }) = expected else {
            panic!("expected {expected:?}, the ledger says {event:?}");
        };
        assert_eq!(client.as_str(), client_id(device));
        assert_eq!((*epoch, *count), (of, fights));
    }

    /// Some endings the gateway decides by itself: they are right if it had a reason by now.
    fn foresee(
        &mut self,
        conn: ConnId,
        reason: CloseReason,
        now: Moment,
        is_stuck: impl Fn(usize) -> bool,
    ) {
        let is_draining = self.draining.is_some();
        // A session that was held can end when its connection is long gone.
        let Some(seat) = self.seats.get(&conn) else { return };
        let late_frame = CloseReason::FrameTimeout;
        if let Phase::Held(hold) = &seat.phase {
            let is_over = self.lived.between(hold.lost_at, now) >= hold.presence.class.grace;
            let makes_room = self.is_short_of_slots() && Some(conn) == self.held_longest();
            if reason == hold.reason && (is_over || is_draining || makes_room) {
                if !is_over && !is_draining {
                    self.find("held and makes room");
                }
                self.find("held for nobody");
                self.end_held(conn, None, now);
            } else if reason == late_frame && seat.pinged_from.is_some() && hold.lost_at == now {
                // A late ping puts off the one verdict and not the other.
                self.verdicts -= 1;
                self.end_held(conn, Some(reason), now);
            }
            return;
        }
        if !matches!(seat.phase, Phase::Live(_)) {
            let frame_timeout = self.config.frame_timeout;
            let is_frame_late = seat
                .partial_since
                .is_some_and(|since| self.lived.between(since, now) >= frame_timeout);
            #[allow(clippy::wildcard_enum_match_arm, reason = "two of them are special here")]
            let is_right = match reason {
                // What it said behind the bytes that filled its outbox was not listened to.
                CloseReason::SlowConsumer => is_stuck(seat.link),
                // A late ping puts off the one verdict and not the other.
                CloseReason::FrameTimeout => seat.pinged_from.is_some() && is_frame_late,
                _ => false,
            };
            if is_right {
                self.expect_instead(conn, reason);
            }
            return;
        }
        // Every other reason was told to us too, and is expected already.
        #[allow(clippy::wildcard_enum_match_arm, reason = "two of them are special here")]
        let is_right = match reason {
            CloseReason::SlowConsumer => is_stuck(seat.link),
            CloseReason::Drain => is_draining,
            // The latest of them may be told so in the moment in which the drain's notice is over.
            CloseReason::Rebalance => {
                self.has_rebalanced && self.draining.is_none_or(|(since, _)| since == now)
            }
            _ => false,
        };
        if is_right {
            self.end(conn, reason, now);
        }
    }

    fn expect_instead(&mut self, conn: ConnId, instead: CloseReason) {
        for expected in &mut self.expected {
            match expected {
                Expected::Offline { conn: other, reason, .. } if *other == conn => {
                    self.verdicts -= u64::from(*reason == CloseReason::HeartbeatTimeout);
                    *reason = instead;
                }
                Expected::Offline { .. }
                | Expected::Online { .. }
                | Expected::Resumed { .. }
                | Expected::Contested { .. }
                | Expected::Stalled { .. } => {}
            }
        }
        if let Phase::Over { reason, .. } = &mut self.seat(conn).phase {
            *reason = Some(instead);
        }
    }

    fn on_offline(&mut self, event: &Event) {
        let Event::Offline { client, epoch, conn, reason, last_beat, evidence, .. } = event else {
            return;
        };
        let expected = self.expected.pop_front();
        let Some(Expected::Offline { conn: expected_conn, presence, reason: why, proof, held }) =
            expected
        else {
            panic!("expected {expected:?}, the ledger says {event:?}");
        };
        assert_eq!((*conn, *reason), (expected_conn, why), "{event:?} and {presence:?}");
        assert_eq!(client.as_str(), client_id(presence.device));
        assert_eq!(*epoch, presence.epoch, "{event:?}");
        assert_eq!(evidence.held, held, "{event:?}");
        // Only the latest gaps are remembered, for dating what was before them.
        if self.lived.is_dated(presence.last_beat) {
            assert_eq!(*last_beat, presence.last_beat, "{event:?}");
            self.assert_evidence(evidence, &presence, *reason, proof);
        }
    }

    fn assert_evidence(
        &mut self,
        evidence: &Evidence,
        presence: &Presence,
        reason: CloseReason,
        proof: Proof,
    ) {
        let silence = self.lived.between(presence.last_beat, proof.at);
        let missed = silence.as_nanos() / presence.class.rhythm.interval.as_nanos();
        assert_eq!(u64::from(evidence.beats_missed), missed, "{presence:?}");
        assert_eq!(evidence.stalled, self.lived.stalled(presence.last_beat, proof.at));
        assert_eq!(evidence.tcp, proof.tcp, "facts of another look");
        let finds = [
            ("verdict", reason == CloseReason::HeartbeatTimeout),
            ("ping unanswered", evidence.probe == Probe::Unanswered),
            ("facts of TCP", evidence.tcp.is_some()),
            ("stall in evidence", evidence.stalled > Span::ZERO),
            ("partial frame in evidence", evidence.partial_bytes > 0),
        ];
        for (word, is_found) in finds {
            self.tally.note("find", word, u64::from(is_found));
        }
        let is_asked = ping_after(presence, &self.config).is_some();
        let probe = match is_asked && reason == CloseReason::HeartbeatTimeout {
            true => Some(Probe::Unanswered),
            false => proof.probe,
        };
        assert_eq!(evidence.probe, probe.unwrap_or(evidence.probe), "{reason}: {presence:?}");
        // Whoever does not read is ended in the middle of what it says, or between.
        let is_unknown = reason == CloseReason::SlowConsumer && evidence.partial_bytes == 0;
        assert!(is_unknown || u64::from(evidence.partial_bytes) == proof.partial_bytes);
    }
}
