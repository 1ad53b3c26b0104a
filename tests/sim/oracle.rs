//! The naive twin with perfect knowledge: a map of who is here and until when, walked from end to
//! end. It is told what the gateway is told, says what the ledger must say, and complains when
//! the gateway is early, late, or says something else.

use std::collections::{BTreeMap, VecDeque};

use heartwheel::base::config::{GatewayConfig, Rhythm};
use heartwheel::base::event::{CloseReason, Event, Evidence, Probe, Record};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Found, IoFault, ReceiveEnd, TcpFacts};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};

use crate::lived::Lived;
use crate::script::{Label, Wish, client_id};
use crate::tally::Tally;

/// Longest that a ping is under way in these worlds, cut into pieces as it may be.
const PING_TIME_MAX: Span = Span::from_millis(150);

/// What is known of one connection, from its adoption to its `Closed`.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) link: usize,
    pub(crate) phase: Phase,
    since: Moment,
    partial_since: Option<Moment>,
    partial_bytes: u64,
    /// A last look is under way, asked for at this moment.
    looked_from: Option<Moment>,
    /// It was silent for so long that it may have been pinged, at this moment or later, and has not
    /// spoken since.
    pinged_from: Option<Moment>,
    /// It was pinged, at this moment or before, and has not spoken since.
    pinged_by: Option<Moment>,
    /// How often it was silent for so long.
    pub(crate) silences: usize,
    /// The last look found bytes: nobody is judged within a tick from here.
    spared_at: Option<Moment>,
    /// How long it had to answer a ping, when it ended.
    answer_min: Option<Span>,
    is_closed: bool,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Nobody yet.
    Greeting,
    /// A client is online.
    Live(Presence),
    /// It ended at this moment or before; only its close is awaited.
    Over { since: Moment, reason: Option<CloseReason> },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Presence {
    pub(crate) device: usize,
    pub(crate) epoch: u64,
    pub(crate) last_beat: Moment,
    pub(crate) interval: Span,
    pub(crate) timeout: Span,
}

/// An event that the ledger must tell next.
#[derive(Debug)]
enum Expected {
    Online { device: usize, conn: ConnId, wish: Wish },
    Offline { conn: ConnId, presence: Presence, reason: CloseReason, proof: Proof },
    Stalled { gap: Span },
}

/// What the evidence must say.
#[derive(Clone, Copy, Debug)]
struct Proof {
    at: Moment,
    partial_bytes: u64,
    tcp: Option<TcpFacts>,
    /// Whether it was pinged; `None`: the tick decides.
    probe: Option<Probe>,
}

pub(crate) struct Oracle {
    config: GatewayConfig,
    pub(crate) seats: BTreeMap<ConnId, Seat>,
    owners: BTreeMap<usize, ConnId>,
    expected: VecDeque<Expected>,
    pub(crate) lived: Lived,
    /// The gateway last looked at the time at this moment.
    timed_at: Moment,
    /// Since when everybody is asked to leave, and how long they have.
    draining: Option<(Moment, Span)>,
    seq_last: u64,
    epoch_last: u64,
    has_stopped: bool,
    /// Who is online, from the ledger alone: the reader's view.
    ledger_view: BTreeMap<String, u64>,
    /// What TCP said of the connection that is being judged.
    tcp_seen: Option<TcpFacts>,
    /// Verdicts of silence, for the summary.
    pub(crate) verdicts: u64,
    pub(crate) stalls: u64,
    pub(crate) tally: Tally,
    pub(crate) records: usize,
}

impl Oracle {
    pub(crate) fn new(config: GatewayConfig, now: Moment) -> Self {
        Self {
            epoch_last: config.epoch_first - 1,
            config,
            seats: BTreeMap::new(),
            owners: BTreeMap::new(),
            expected: VecDeque::new(),
            lived: Lived::new(now),
            timed_at: now,
            draining: None,
            seq_last: 0,
            has_stopped: false,
            ledger_view: BTreeMap::new(),
            tcp_seen: None,
            verdicts: 0,
            stalls: 0,
            tally: Tally::default(),
            records: 0,
        }
    }

    // --- what the gateway is told ----------------------------------------------------------------

    /// The gateway is told that it is `now`, by whatever door.
    pub(crate) fn on_told(&mut self, now: Moment) {
        if let Some(gap) = self.lived.on_told(now)
            && !self.seats.is_empty()
        {
            self.stalls += 1;
            self.expected.push_back(Expected::Stalled { gap });
        }
    }

    /// The gateway is to look at the time: whoever was silent for long may be pinged from now on.
    pub(crate) fn on_time(&mut self, now: Moment) {
        self.timed_at = now;
        let (config, lived) = (&self.config, &self.lived);
        for seat in self.seats.values_mut() {
            if let Phase::Live(presence) = &seat.phase
                && let Some(silence) = ping_after(presence, config)
                && seat.pinged_from.is_none()
                && lived.between(presence.last_beat, now) >= silence
            {
                seat.pinged_from = Some(now);
                seat.silences += 1;
            }
        }
    }

    /// A connection was accepted and adopted.
    pub(crate) fn on_adopted(&mut self, conn: ConnId, link: usize, now: Moment) {
        let is_refused =
            self.draining.is_some() || self.seats.len() >= self.config.connections_max as usize;
        let reason = if self.draining.is_some() { CloseReason::Drain } else { CloseReason::Busy };
        let over = Phase::Over { since: now, reason: Some(reason) };
        let seat = Seat {
            link,
            phase: if is_refused { over } else { Phase::Greeting },
            since: now,
            partial_since: None,
            partial_bytes: 0,
            looked_from: None,
            pinged_from: None,
            pinged_by: None,
            silences: 0,
            spared_at: None,
            answer_min: None,
            is_closed: false,
        };
        assert!(self.seats.insert(conn, seat).is_none(), "{conn} is here already");
    }

    /// Bytes were handed over that complete these frames, and so many bytes of another.
    pub(crate) fn on_received(
        &mut self,
        conn: ConnId,
        labels: &[Label],
        begun_bytes: u64,
        now: Moment,
    ) {
        // Whoever is ended for what it says has nothing begun: what is taken apart is not kept.
        self.seat(conn).partial_bytes = 0;
        for label in labels {
            self.on_frame(conn, label, now);
        }
        let seat = self.seat(conn);
        seat.partial_bytes = begun_bytes;
        seat.partial_since = match (begun_bytes, labels) {
            (0, _) => None,
            (_, []) => seat.partial_since.or(Some(now)),
            (_, _) => Some(now),
        };
    }

    fn on_frame(&mut self, conn: ConnId, label: &Label, now: Moment) {
        let seat = self.seat(conn);
        if !matches!(label, Label::Bad(_)) {
            (seat.pinged_from, seat.pinged_by) = (None, None);
        }
        match (&mut seat.phase, label) {
            (Phase::Greeting, Label::Hello { device, wish }) => {
                let (device, wish) = (*device, *wish);
                if let Some(owner) = self.owners.get(&device).copied() {
                    self.end(owner, CloseReason::Replaced, now);
                }
                self.owners.insert(device, conn);
                self.expected.push_back(Expected::Online { device, conn, wish });
                let rhythm = self.config.rhythm;
                self.seat(conn).phase = Phase::Live(Presence {
                    device,
                    epoch: 0, // the ledger says which
                    last_beat: now,
                    interval: rhythm.interval,
                    timeout: rhythm.timeout,
                });
            }
            (Phase::Live(presence), Label::Beat) => presence.last_beat = now,
            (Phase::Live(presence), Label::Bye) => {
                presence.last_beat = now;
                self.end(conn, CloseReason::Bye, now);
            }
            (Phase::Live(presence), Label::Hello { .. } | Label::Unexpected) => {
                presence.last_beat = now;
                self.end(conn, CloseReason::UnexpectedFrame, now);
            }
            (Phase::Greeting, Label::Beat | Label::Bye | Label::Unexpected) => {
                self.end(conn, CloseReason::UnexpectedFrame, now);
            }
            (Phase::Greeting | Phase::Live(_), Label::Bad(reason)) => self.end(conn, *reason, now),
            (Phase::Greeting, Label::Preface) | (Phase::Over { .. }, _) => {}
            (Phase::Live(_), Label::Preface) => panic!("a script says the preface twice"),
        }
    }

    /// The receive ended.
    pub(crate) fn on_receive_ended(&mut self, conn: ConnId, end: ReceiveEnd, now: Moment) {
        match end {
            ReceiveEnd::Starved | ReceiveEnd::Interrupted => {}
            ReceiveEnd::Eof => self.end(conn, CloseReason::ClosedByPeer, now),
            ReceiveEnd::Fault(fault) => self.end(conn, reason_of(fault), now),
        }
    }

    /// A send came home.
    pub(crate) fn on_sent(&mut self, conn: ConnId, result: Result<usize, IoFault>, now: Moment) {
        if let Err(fault) = result {
            self.end(conn, reason_of(fault), now);
        }
    }

    /// The gateway asks for a last look: somebody must be due.
    pub(crate) fn on_look_asked(&mut self, conn: ConnId) {
        let now = self.timed_at;
        let is_due = self.overdue(conn, now).is_some();
        let seat = self.seat(conn);
        seat.looked_from = Some(now);
        // Or it was suspected and asked to leave in the same call.
        let is_over = matches!(seat.phase, Phase::Over { since, .. } if since == now);
        assert!(is_due || is_over, "P1: {conn} is suspected at {now:?}: {seat:?}");
    }

    /// The last look is answered.
    pub(crate) fn on_looked(
        &mut self,
        conn: ConnId,
        found: Found,
        tcp: Option<TcpFacts>,
        waiting_since: Option<Moment>,
        now: Moment,
    ) {
        let asked_at = self.seat(conn).looked_from.take().expect("a look was asked for");
        // A look that was answered late judges by when it was asked for: what happened since may
        // wait behind it.
        let overdue = self.overdue(conn, asked_at);
        match found {
            Found::Nothing => {
                if let Some(reason) = overdue {
                    let is_heard = waiting_since.is_none_or(|since| since >= asked_at);
                    assert!(is_heard, "P3: {conn} is judged while its bytes wait");
                    self.verdicts += u64::from(reason == CloseReason::HeartbeatTimeout);
                    self.tcp_seen = tcp;
                    self.end(conn, reason, now);
                    self.tcp_seen = None;
                }
            }
            Found::Bytes => self.seat(conn).spared_at = Some(now),
            Found::Eof => self.end(conn, CloseReason::ClosedByPeer, now),
            Found::Fault(fault) => self.end(conn, reason_of(fault), now),
        }
    }

    /// Which deadline passed by `at`, if one did.
    fn overdue(&self, conn: ConnId, at: Moment) -> Option<CloseReason> {
        let seat = &self.seats[&conn];
        let has_passed = |since: Moment, span: Span| self.lived.between(since, at) >= span;
        match &seat.phase {
            Phase::Greeting => has_passed(seat.since, self.config.handshake_timeout)
                .then_some(CloseReason::HandshakeTimeout),
            Phase::Live(presence) => {
                let is_silent = has_passed(presence.last_beat, presence.timeout);
                let had_time = match (answer_min(presence, &self.config), seat.pinged_from) {
                    (None, _) => true,
                    (Some(span), Some(from)) => has_passed(from, span),
                    (Some(_), None) => false,
                };
                if is_silent && had_time {
                    return Some(CloseReason::HeartbeatTimeout);
                }
                seat.partial_since
                    .filter(|since| has_passed(*since, self.config.frame_timeout))
                    .map(|_| CloseReason::FrameTimeout)
            }
            Phase::Over { .. } => None,
        }
    }

    /// The gateway sends something. To whoever did not say HELLO it has nothing to say but to
    /// leave.
    pub(crate) fn on_send_asked(&mut self, conn: ConnId, now: Moment) {
        let is_draining = self.draining.is_some();
        if self.seat(conn).phase == Phase::Greeting {
            assert!(is_draining, "{conn}: a word before HELLO");
            self.end(conn, CloseReason::Drain, now);
        }
    }

    /// The gateway closes: the session must have ended before.
    pub(crate) fn on_close_asked(&mut self, conn: ConnId) {
        let seat = self.seat(conn);
        assert!(matches!(seat.phase, Phase::Over { .. }), "{conn} is closed alive: {seat:?}");
        seat.is_closed = true;
    }

    /// The connection is gone.
    pub(crate) fn on_closed(&mut self, conn: ConnId) -> Seat {
        let seat = self.seats.remove(&conn).expect("what closes was here");
        assert!(seat.is_closed, "{conn}: closed without having been asked to");
        seat
    }

    /// Everybody is asked to leave.
    pub(crate) fn on_drain(&mut self, within: Span, now: Moment) {
        self.draining = Some((now, within));
    }

    /// An operator ends a client's session.
    pub(crate) fn on_kick(&mut self, device: usize, now: Moment) {
        let conn = *self.owners.get(&device).expect("only who is online is kicked");
        self.end(conn, CloseReason::Kicked, now);
    }

    /// The devices online.
    pub(crate) fn online(&self) -> Vec<usize> {
        self.owners.keys().copied().collect()
    }

    fn end(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let over = Phase::Over { since: now, reason: Some(reason) };
        let tcp = self.tcp_seen;
        let answer = match &self.seats[&conn].phase {
            Phase::Live(presence) => answer_min(presence, &self.config),
            Phase::Greeting | Phase::Over { .. } => None,
        };
        let seat = self.seat(conn);
        let probe = match (seat.pinged_from, seat.pinged_by) {
            (None, _) => Some(Probe::NotSent),
            (Some(_), Some(_)) => Some(Probe::Unanswered),
            (Some(_), None) => None,
        };
        let proof = Proof { at: now, partial_bytes: seat.partial_bytes, tcp, probe };
        match &seat.phase {
            Phase::Over { .. } => {}
            Phase::Greeting => seat.phase = over,
            Phase::Live(presence) => {
                let presence = presence.clone();
                seat.phase = over;
                seat.answer_min = answer;
                self.owners.remove(&presence.device);
                self.expected.push_back(Expected::Offline { conn, presence, reason, proof });
            }
        }
    }

    fn seat(&mut self, conn: ConnId) -> &mut Seat {
        self.seats.get_mut(&conn).unwrap_or_else(|| panic!("{conn} is not here"))
    }

    // --- what the ledger says --------------------------------------------------------------------

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
                Event::Started => assert_eq!(record.seq, 1, "P5: the ledger begins once"),
                Event::Online { .. } => self.on_online(&record.event),
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
            Event::Started | Event::Stalled { .. } => {}
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
        let Event::Online { client, epoch, conn, interval, timeout, .. } = event else { return };
        let expected = self.expected.pop_front();
        let Some(Expected::Online { device, conn: expected_conn, wish }) = expected else {
            panic!("expected {expected:?}, the ledger says {event:?}");
        };
        assert_eq!((client.as_str(), *conn), (client_id(device).as_str(), expected_conn));
        match wish {
            Wish::None => {
                assert_eq!(*interval, self.config.rhythm.interval);
                assert_eq!(*timeout, self.config.rhythm.timeout);
            }
            Wish::Some => {
                let shortest = self.config.interval_wish_min.min(self.config.rhythm.interval);
                assert!(*interval >= shortest, "{interval} is shorter than anybody may wish");
                assert!(*interval < *timeout, "{interval} is a death sentence within {timeout}");
            }
        }
        // It may have ended within the same bytes; what is expected of it then learns its epoch.
        for expected in &mut self.expected {
            if let Expected::Offline { conn: other, presence, .. } = expected
                && other == conn
            {
                presence.epoch = *epoch;
            }
        }
        if let Phase::Live(presence) = &mut self.seat(*conn).phase {
            (presence.epoch, presence.interval, presence.timeout) = (*epoch, *interval, *timeout);
        }
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
        let seat = &self.seats[&conn];
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
                    *reason = instead
                }
                Expected::Offline { .. } | Expected::Online { .. } | Expected::Stalled { .. } => {}
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
        let Some(Expected::Offline { conn: expected_conn, presence, reason: why, proof }) =
            expected
        else {
            panic!("expected {expected:?}, the ledger says {event:?}");
        };
        assert_eq!((*conn, *reason), (expected_conn, why), "{event:?} and {presence:?}");
        assert_eq!(client.as_str(), client_id(presence.device));
        assert_eq!(*epoch, presence.epoch, "{event:?}");
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
        let missed = silence.as_nanos() / presence.interval.as_nanos();
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
        let probe = match reason {
            CloseReason::HeartbeatTimeout if ping_after(presence, &self.config).is_some() => {
                Some(Probe::Unanswered)
            }
            _ => proof.probe,
        };
        assert_eq!(evidence.probe, probe.unwrap_or(evidence.probe), "{reason}: {presence:?}");
        // Whoever does not read is ended in the middle of what it says, or between.
        let is_unknown = reason == CloseReason::SlowConsumer && evidence.partial_bytes == 0;
        assert!(is_unknown || u64::from(evidence.partial_bytes) == proof.partial_bytes);
    }

    // --- the walk --------------------------------------------------------------------------------

    /// Walks everybody, after the gateway looked at the time and left nothing over.
    pub(crate) fn check(&mut self, now: Moment, next_wake: Option<Moment>) {
        let (config, lived, draining) = (&self.config, &self.lived, self.draining);
        let tick = config.tick;
        for (conn, seat) in &mut self.seats {
            if let Phase::Greeting | Phase::Live(_) = seat.phase {
                assert!(draining.is_none(), "{conn}: still here in a drain");
            }
            let spared = seat.spared_at.map_or(Moment::ZERO, |at| lived.due(at, tick));
            let due = match &seat.phase {
                Phase::Greeting => lived.due(seat.since, config.handshake_timeout),
                Phase::Live(presence) => {
                    let frame =
                        seat.partial_since.map(|since| lived.due(since, config.frame_timeout));
                    let is_free = seat.looked_from.is_none() && spared + tick <= now;
                    let ping_at = ping_after(presence, config)
                        .map(|silence| lived.due(presence.last_beat, silence));
                    // It is done when its time has come and nobody wakes up for it.
                    let is_past =
                        |at: Moment| at <= now && next_wake.is_none_or(|wake| wake > at + tick);
                    if is_free && ping_at.is_some_and(is_past) {
                        seat.pinged_by = seat.pinged_by.or(Some(now));
                    }
                    let silent = silent_due(presence, seat.pinged_by, config, lived);
                    frame.map_or(silent, |due| due.min(silent))
                }
                Phase::Over { since, .. } => {
                    let linger = lived.due(*since, config.linger_timeout);
                    draining.map_or(linger, |(at, within)| linger.max(lived.due(at, within)))
                }
            };
            let is_gateways_turn = match seat.phase {
                Phase::Greeting | Phase::Live(_) => seat.looked_from.is_none(),
                Phase::Over { .. } => !seat.is_closed,
            };
            if is_gateways_turn {
                let due = due.max(spared) + tick;
                let is_woken = next_wake.is_some_and(|wake| wake <= due);
                assert!(is_woken, "P2: {conn} is due at {due:?}, the next wake is {next_wake:?}");
                assert!(now < due, "P2: {conn} is late, due {due:?} at {now:?}: {seat:?}");
            }
        }
        if !self.seats.is_empty() {
            let is_awake = next_wake.is_some_and(|wake| wake <= lived.told_at + limits::SLEEP_MAX);
            assert!(is_awake, "sleeps too long at {now:?}: {next_wake:?}");
        }
    }

    /// Whether it has time to hear a ping before it is judged.
    pub(crate) fn leaves_time_for_a_ping(&self, conn: ConnId) -> bool {
        let seat = &self.seats[&conn];
        let min = match &seat.phase {
            Phase::Live(presence) => answer_min(presence, &self.config),
            Phase::Greeting | Phase::Over { .. } => seat.answer_min,
        };
        min.is_some_and(|min| min >= PING_TIME_MAX)
    }

    /// How many are online.
    pub(crate) fn online_count(&self) -> usize {
        self.owners.len()
    }

    /// Panics unless the ledger was ended and nobody is left.
    pub(crate) fn check_empty(&self) {
        assert!(self.has_stopped, "P5: the ledger was not ended");
        assert!(self.seats.is_empty(), "connections left: {:?}", self.seats);
    }
}

/// After how much silence a client is pinged, if at all.
fn ping_after(presence: &Presence, config: &GatewayConfig) -> Option<Span> {
    let rhythm = Rhythm { interval: presence.interval, timeout: presence.timeout };
    if config.mode.server_pings() {
        Some(rhythm.interval)
    } else {
        config.probe.span(rhythm).map(|span| rhythm.timeout.minus(span))
    }
}

/// How long whoever is pinged has to answer, at the least: half of what is usual.
fn answer_min(presence: &Presence, config: &GatewayConfig) -> Option<Span> {
    ping_after(presence, config).map(|silence| presence.timeout.minus(silence).divided_by(2))
}

/// When something is due about a client of which nothing more is heard: the verdict, or the ping
/// before it.
fn silent_due(
    presence: &Presence,
    pinged_by: Option<Moment>,
    config: &GatewayConfig,
    lived: &Lived,
) -> Moment {
    let dead_at = lived.due(presence.last_beat, presence.timeout);
    match (ping_after(presence, config), pinged_by) {
        (None, _) => dead_at,
        (Some(silence), None) => lived.due(presence.last_beat, silence),
        (Some(silence), Some(by)) => {
            let usual = presence.timeout.minus(silence);
            dead_at.max(lived.due(by, usual.divided_by(2)))
        }
    }
}

fn reason_of(fault: IoFault) -> CloseReason {
    match fault {
        IoFault::Reset => CloseReason::Reset,
        IoFault::TimedOut => CloseReason::TcpTimeout,
        IoFault::Refused
        | IoFault::Unreachable
        | IoFault::AddressUnavailable
        | IoFault::Cancelled
        | IoFault::NoDescriptors
        | IoFault::NoMemory
        | IoFault::Other(_) => CloseReason::NetworkFault,
    }
}
