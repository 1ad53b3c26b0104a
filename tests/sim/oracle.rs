//! The naive twin with perfect knowledge: a map of who is here and until when, walked from end to
//! end. It is told what the gateway is told, says what the ledger must say, and complains when
//! the gateway is early, late, or says something else.

mod claims;

use std::collections::{BTreeMap, VecDeque};

use heartwheel::base::config::{Class, Duplicate, GatewayConfig, Rhythm};
use heartwheel::base::event::{CloseReason, Probe};
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Found, IoFault, ReceiveEnd, TcpFacts};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};

use crate::link::Piece;
use crate::lived::Lived;
use crate::past::Past;
use crate::script::{Hello, Label};
use crate::tally::Tally;

/// Longest that a ping is under way in these worlds, cut into pieces as it may be.
const PING_TIME_MAX: Span = Span::from_millis(150);

/// What is known of one connection, from its adoption to its `Closed`.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) link: usize,
    pub(crate) phase: Phase,
    /// It comes by a WebSocket.
    pub(crate) is_browser: bool,
    since: Moment,
    pub(crate) partial_since: Option<Moment>,
    pub(crate) partial_bytes: u64,
    /// A last look is under way, asked for at this moment.
    looked_from: Option<Moment>,
    /// It was silent for so long that it may have been pinged, at this moment or later, and has not
    /// spoken since.
    pub(crate) pinged_from: Option<Moment>,
    /// It was pinged, at this moment or before, and has not spoken since.
    pinged_by: Option<Moment>,
    /// How often it was silent for so long.
    pub(crate) silences: usize,
    /// The last look found bytes: nobody is judged within a tick from here.
    spared_at: Option<Moment>,
    /// How long it had to answer a ping, when it ended.
    answer_min: Option<Span>,
    /// The gateway asked to hear it again, in this turn.
    rearmed_in: Option<u64>,
    is_closed: bool,
    /// Somebody looks at what it has shown.
    waiting: Option<Waiting>,
}

/// Of a client whose token is looked at: its HELLO, what came behind it, and how many bytes all of
/// it has.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    hello: Hello,
    behind: Vec<Label>,
    begun_bytes: u64,
    bytes: u64,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Phase {
    /// Nobody yet.
    Greeting,
    /// A client is online.
    Live(Presence),
    /// The connection was lost, and the session waits for the client.
    Held(Hold),
    /// It ended at this moment or before; only its close is awaited.
    Over { since: Moment, reason: Option<CloseReason> },
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Presence {
    pub(crate) device: usize,
    pub(crate) epoch: u64,
    pub(crate) last_beat: Moment,
    pub(crate) class: Class,
    /// Its timers cannot be trusted: it is pinged in any case.
    pub(crate) is_browser: bool,
}

/// A session without a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Hold {
    pub(crate) presence: Presence,
    pub(crate) reason: CloseReason,
    pub(crate) lost_at: Moment,
    /// So many were lost before it.
    lost_nth: u64,
    pub(crate) proof: Proof,
    /// The kernel is done with its socket.
    pub(crate) is_gone: bool,
}

/// An event that the ledger must tell next.
#[derive(Debug)]
pub(crate) enum Expected {
    Online { device: usize, conn: ConnId, rhythm: Rhythm, flaps: u32 },
    Resumed { device: usize, conn: ConnId, epoch: u64, away: Span },
    Contested { device: usize, epoch: u64, count: u32 },
    Offline { conn: ConnId, presence: Presence, reason: CloseReason, proof: Proof, held: Span },
    Stalled { gap: Span },
}

/// What the evidence must say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Proof {
    pub(crate) at: Moment,
    pub(crate) partial_bytes: u64,
    pub(crate) tcp: Option<TcpFacts>,
    /// Whether it was pinged; `None`: the tick decides.
    pub(crate) probe: Option<Probe>,
}

pub(crate) struct Oracle {
    pub(crate) config: GatewayConfig,
    pub(crate) seats: BTreeMap<ConnId, Seat>,
    pub(crate) owners: BTreeMap<usize, ConnId>,
    pub(crate) expected: VecDeque<Expected>,
    /// What is remembered of each device.
    pub(crate) past: BTreeMap<usize, Past>,
    pub(crate) lived: Lived,
    /// The gateway last looked at the time at this moment.
    pub(crate) timed_at: Moment,
    /// When everybody will be asked to leave, and by when they must have left.
    pub(crate) drain_ordered: Option<(Moment, Moment)>,
    /// Since when everybody is asked to leave, and how long they have.
    pub(crate) draining: Option<(Moment, Span)>,
    /// Whether some were ever asked to go elsewhere.
    pub(crate) has_rebalanced: bool,
    pub(crate) seq_last: u64,
    pub(crate) epoch_last: u64,
    pub(crate) has_stopped: bool,
    /// Who is online, from the ledger alone: the reader's view.
    pub(crate) ledger_view: BTreeMap<String, u64>,
    /// What TCP said of the connection that is being judged.
    pub(crate) tcp_seen: Option<TcpFacts>,
    /// Verdicts of silence, for the summary.
    pub(crate) verdicts: u64,
    /// How often time passed. A turn that leaves something unread lasts until then.
    pub(crate) turns: u64,
    pub(crate) stalls: u64,
    /// Connections that ended.
    pub(crate) lost: u64,
    pub(crate) resumed: u64,
    pub(crate) returned: u64,
    pub(crate) false_offline: u64,
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
            past: BTreeMap::new(),
            lived: Lived::new(now),
            timed_at: now,
            drain_ordered: None,
            draining: None,
            has_rebalanced: false,
            seq_last: 0,
            has_stopped: false,
            ledger_view: BTreeMap::new(),
            tcp_seen: None,
            verdicts: 0,
            turns: 0,
            stalls: 0,
            lost: 0,
            resumed: 0,
            returned: 0,
            false_offline: 0,
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
        self.end_notice(now);
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
        let is_refused = self.draining.is_some()
            || self.seats.len() - self.held_count() >= self.config.connections_max as usize;
        let reason = if self.draining.is_some() { CloseReason::Drain } else { CloseReason::Busy };
        let over = Phase::Over { since: now, reason: Some(reason) };
        let seat = Seat {
            link,
            is_browser: false,
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
            rearmed_in: None,
            is_closed: false,
            waiting: None,
        };
        assert!(self.seats.insert(conn, seat).is_none(), "{conn} is here already");
    }

    /// Bytes were handed over that complete these frames, and so many bytes of another.
    pub(crate) fn on_received(
        &mut self,
        conn: ConnId,
        pieces: &[Piece],
        begun_bytes: u64,
        now: Moment,
    ) {
        // Whoever is ended for what it says has nothing begun: what is taken apart is not kept.
        self.seat(conn).partial_bytes = 0;
        for (nth, piece) in pieces.iter().enumerate() {
            if self.is_waiting(conn) {
                return self.wait_with(conn, &pieces[nth..], begun_bytes, now);
            }
            self.on_frame(conn, &piece.label, now);
            self.keep_waiting(conn, piece.bytes);
        }
        if self.is_waiting(conn) {
            return self.wait_with(conn, &[], begun_bytes, now);
        }
        let seat = self.seat(conn);
        seat.partial_bytes = begun_bytes;
        seat.partial_since = match (begun_bytes, pieces) {
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
            (Phase::Greeting, Label::Hello(hello)) => self.on_claim(conn, *hello, now),
            (Phase::Live(presence), Label::Beat) => presence.last_beat = now,
            (Phase::Live(presence), Label::Bye) => {
                presence.last_beat = now;
                self.end(conn, CloseReason::Bye, now);
            }
            (Phase::Live(presence), Label::Hello(_) | Label::Unexpected) => {
                presence.last_beat = now;
                self.end(conn, CloseReason::UnexpectedFrame, now);
            }
            (Phase::Greeting, Label::Beat | Label::Bye | Label::Unexpected) => {
                self.end(conn, CloseReason::UnexpectedFrame, now);
            }
            (Phase::Greeting | Phase::Live(_), Label::Bad(reason)) => self.end(conn, *reason, now),
            (Phase::Greeting, Label::Preface) | (Phase::Held(_) | Phase::Over { .. }, _) => {}
            (Phase::Live(_), Label::Preface) => panic!("a script says the preface twice"),
        }
    }

    /// A client that has proven who it is comes: somebody of that name makes way, or keeps it.
    fn on_hello(&mut self, conn: ConnId, hello: Hello, now: Moment) {
        let class = self.config.class(hello.class);
        let device = hello.device;
        let mut resumed = None;
        if let Some(owner) = self.owners.get(&device).copied() {
            let phase = self.seats[&owner].phase.clone();
            match phase {
                Phase::Live(presence)
                    if presence.class.grace > Span::ZERO
                        && hello.resumes == Some(presence.epoch) =>
                {
                    let reason = Some(CloseReason::Replaced);
                    self.seat(owner).phase = Phase::Over { since: now, reason };
                    self.find("resumed before the loss was noticed");
                    resumed = Some((presence.epoch, Span::ZERO));
                }
                Phase::Live(presence) => {
                    if self.keeps_name(conn, device, &presence, now) {
                        return;
                    }
                    self.end(owner, CloseReason::Replaced, now);
                }
                Phase::Held(hold) if hello.resumes == Some(hold.presence.epoch) => {
                    self.release(owner, hold.reason, now);
                    self.find("resumed after a while");
                    if hold.reason == CloseReason::HeartbeatTimeout {
                        self.find("verdict taken back");
                    }
                    let away = self.lived.between(hold.lost_at, now);
                    resumed = Some((hold.presence.epoch, away));
                }
                Phase::Held(_) => {
                    self.find("held and somebody else came");
                    self.end_held(owner, None, now);
                }
                Phase::Greeting | Phase::Over { .. } => panic!("{owner} owns nothing"),
            }
        }
        self.begin(conn, hello, class, resumed, now);
    }

    /// Whether the owner of a name keeps it; then the newcomer is sent away.
    fn keeps_name(&mut self, conn: ConnId, device: usize, owner: &Presence, now: Moment) -> bool {
        if owner.class.duplicate == Duplicate::Reject {
            self.end(conn, CloseReason::AlreadyConnected, now);
            return true;
        }
        let past = self.past.get_mut(&device).expect("the owner came online");
        let Some(count) = past.on_takeover(&self.lived, now) else { return false };
        if count.is_power_of_two() {
            self.expected.push_back(Expected::Contested { device, epoch: owner.epoch, count });
        }
        self.end(conn, CloseReason::Contested, now);
        true
    }

    fn begin(
        &mut self,
        conn: ConnId,
        hello: Hello,
        class: Class,
        resumed: Option<(u64, Span)>,
        now: Moment,
    ) {
        let device = hello.device;
        let past = self.past.entry(device).or_insert_with(|| Past::new(now));
        if let Some(verdict) = past.verdict.take() {
            self.returned += 1;
            let is_wrong = verdict.is_wrong(hello.before, class.rhythm, now);
            self.false_offline += u64::from(is_wrong);
        }
        let rhythm = granted(class.rhythm, hello.wish_ms, &self.config);
        let epoch = match resumed {
            Some((epoch, away)) => {
                self.resumed += 1;
                self.expected.push_back(Expected::Resumed { device, conn, epoch, away });
                epoch
            }
            None => {
                let flaps = past.on_online(&self.lived, now);
                self.expected.push_back(Expected::Online { device, conn, rhythm, flaps });
                0 // the ledger says which
            }
        };
        self.owners.insert(device, conn);
        let class = Class { rhythm, ..class };
        let seat = self.seat(conn);
        let is_browser = seat.is_browser;
        seat.phase = Phase::Live(Presence { device, epoch, last_beat: now, class, is_browser });
    }

    pub(crate) fn find(&mut self, word: &'static str) {
        self.tally.note("find", word, 1);
    }

    /// The receive ended.
    pub(crate) fn on_receive_ended(&mut self, conn: ConnId, end: ReceiveEnd, now: Moment) {
        match end {
            ReceiveEnd::Starved | ReceiveEnd::Interrupted | ReceiveEnd::Paused => {
                self.seat(conn).rearmed_in = Some(self.turns);
            }
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
                let Some(reason) = overdue else { return };
                let is_heard = waiting_since.is_none_or(|since| since >= asked_at);
                assert!(is_heard, "P3: {conn} is judged while its bytes wait");
                let is_deaf = self.seats[&conn].rearmed_in == Some(self.turns);
                if is_deaf {
                    // Nobody is judged in the turn in which the kernel did not listen for it.
                    self.seat(conn).spared_at = Some(now);
                    return;
                }
                self.verdicts += u64::from(reason == CloseReason::HeartbeatTimeout);
                self.tcp_seen = tcp;
                self.end(conn, reason, now);
                self.tcp_seen = None;
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
                let is_silent = has_passed(presence.last_beat, presence.class.rhythm.timeout);
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
            Phase::Held(_) | Phase::Over { .. } => None,
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
        let has_ended = matches!(seat.phase, Phase::Held(_) | Phase::Over { .. });
        assert!(has_ended, "{conn} is closed alive: {seat:?}");
        assert!(!seat.is_closed, "{conn} is closed twice");
        seat.is_closed = true;
    }

    /// Whether the gateway has closed it, and whoever stands between has not yet said so.
    pub(crate) fn is_closing(&self, conn: ConnId) -> bool {
        self.seats.get(&conn).is_some_and(|seat| seat.is_closed)
    }

    /// It comes by a WebSocket, or it does not.
    pub(crate) fn on_introduced(&mut self, conn: ConnId, is_browser: bool) {
        self.seat(conn).is_browser = is_browser;
    }

    /// The kernel is done with a connection. Returns why it ended, and how often it was silent for
    /// so long that it might be pinged.
    pub(crate) fn on_closed(&mut self, conn: ConnId) -> (Option<CloseReason>, usize) {
        let seat = self.seat(conn);
        assert!(seat.is_closed, "{conn}: closed without having been asked to");
        let silences = seat.silences;
        let reason = match &mut seat.phase {
            Phase::Held(hold) => {
                hold.is_gone = true;
                return (Some(hold.reason), silences);
            }
            Phase::Over { reason, .. } => *reason,
            Phase::Greeting | Phase::Live(_) => panic!("{conn} is closed alive"),
        };
        self.seats.remove(&conn);
        (reason, silences)
    }

    /// Everybody is asked to leave, after a notice.
    pub(crate) fn on_drain(&mut self, notice: Span, within: Span, now: Moment) {
        self.drain_ordered = Some((now + notice, now + within));
        self.end_notice(now);
    }

    fn end_notice(&mut self, now: Moment) {
        if let Some((begins, until)) = self.drain_ordered
            && begins <= now
        {
            self.draining = self.draining.or(Some((now, until.since(now))));
        }
    }

    /// Some are asked to go elsewhere.
    pub(crate) fn on_rebalance(&mut self) {
        self.has_rebalanced = true;
    }

    /// An operator ends a client's session.
    pub(crate) fn on_kick(&mut self, device: usize, now: Moment) {
        let conn = *self.owners.get(&device).expect("only who has a session is kicked");
        if matches!(self.seats[&conn].phase, Phase::Held(_)) {
            self.end_held(conn, Some(CloseReason::Kicked), now);
        } else {
            self.end(conn, CloseReason::Kicked, now);
        }
    }

    /// The devices that have a session.
    pub(crate) fn online(&self) -> Vec<usize> {
        self.owners.keys().copied().collect()
    }

    pub(crate) fn end(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let over = Phase::Over { since: now, reason: Some(reason) };
        let tcp = self.tcp_seen;
        let answer = match &self.seats[&conn].phase {
            Phase::Live(presence) => answer_min(presence, &self.config),
            Phase::Greeting | Phase::Held(_) | Phase::Over { .. } => None,
        };
        let is_draining = self.draining.is_some();
        self.lost += 1;
        let lost_nth = self.lost;
        let seat = self.seat(conn);
        let probe = match (seat.pinged_from, seat.pinged_by) {
            (None, _) => Some(Probe::NotSent),
            (Some(_), Some(_)) => Some(Probe::Unanswered),
            (Some(_), None) => None,
        };
        let proof = Proof { at: now, partial_bytes: seat.partial_bytes, tcp, probe };
        match &seat.phase {
            Phase::Held(_) | Phase::Over { .. } => {}
            Phase::Greeting => seat.phase = over,
            Phase::Live(presence) => {
                let presence = presence.clone();
                seat.answer_min = answer;
                if presence.class.grace > Span::ZERO && reason.is_loss() && !is_draining {
                    let hold =
                        Hold { presence, reason, lost_at: now, lost_nth, proof, is_gone: false };
                    seat.phase = Phase::Held(hold);
                    return;
                }
                seat.phase = over;
                self.write_off(conn, presence, reason, proof, Span::ZERO);
            }
        }
    }

    /// A session that was held ends: for the reason for which its connection was lost, or
    /// `instead`.
    pub(crate) fn end_held(&mut self, conn: ConnId, instead: Option<CloseReason>, now: Moment) {
        let Phase::Held(hold) = self.seats[&conn].phase.clone() else {
            panic!("{conn} is not held");
        };
        let held = self.lived.between(hold.lost_at, now);
        let reason = instead.unwrap_or(hold.reason);
        self.release(conn, reason, now);
        self.write_off(conn, hold.presence, reason, hold.proof, held);
    }

    /// The connection of a session that is held no longer is a connection like any other.
    fn release(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        let seat = self.seat(conn);
        let Phase::Held(hold) = &seat.phase else { panic!("{conn} is not held") };
        let is_gone = hold.is_gone;
        seat.phase = Phase::Over { since: now, reason: Some(reason) };
        if is_gone {
            self.seats.remove(&conn);
        }
    }

    fn write_off(
        &mut self,
        conn: ConnId,
        presence: Presence,
        reason: CloseReason,
        proof: Proof,
        held: Span,
    ) {
        self.owners.remove(&presence.device);
        let past = self.past.get_mut(&presence.device).expect("it came online");
        past.on_offline(reason, presence.last_beat);
        self.expected.push_back(Expected::Offline { conn, presence, reason, proof, held });
    }

    pub(crate) fn seat(&mut self, conn: ConnId) -> &mut Seat {
        self.seats.get_mut(&conn).unwrap_or_else(|| panic!("{conn} is not here"))
    }

    // --- the walk --------------------------------------------------------------------------------

    /// Walks everybody, after the gateway looked at the time and left nothing over.
    pub(crate) fn check(&mut self, now: Moment, next_wake: Option<Moment>) {
        let (config, lived, draining) = (&self.config, &self.lived, self.draining);
        let tick = config.tick;
        for (conn, seat) in &mut self.seats {
            let is_held = matches!(seat.phase, Phase::Held(_));
            assert!(!is_held || draining.is_none(), "{conn}: still held in a drain");
            if let Phase::Greeting | Phase::Live(_) = seat.phase {
                let is_late = draining.is_some_and(|(at, within)| at + within <= now);
                assert!(!is_late, "{conn}: still here at the end of a drain");
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
                    // Or it was, in the moment after it was spared, and the next walk will know.
                    let by = seat.pinged_by.or(ping_at.is_some_and(is_past).then_some(now));
                    if is_free {
                        seat.pinged_by = by;
                    }
                    let silent = silent_due(presence, by, config, lived);
                    frame.map_or(silent, |due| due.min(silent))
                }
                Phase::Held(hold) => lived.due(hold.lost_at, hold.presence.class.grace),
                Phase::Over { since, .. } => {
                    let linger = lived.due(*since, config.linger_timeout);
                    draining.map_or(linger, |(at, within)| linger.max(lived.due(at, within)))
                }
            };
            let is_gateways_turn = match seat.phase {
                Phase::Greeting | Phase::Live(_) => seat.looked_from.is_none(),
                Phase::Held(_) => true,
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

    /// Whether it has time to hear a ping before it is judged, if we stand still for so long.
    pub(crate) fn leaves_time_for_a_ping(&self, conn: ConnId, still: Span) -> bool {
        let seat = &self.seats[&conn];
        let min = match &seat.phase {
            Phase::Live(presence) => answer_min(presence, &self.config),
            Phase::Greeting | Phase::Held(_) | Phase::Over { .. } => seat.answer_min,
        };
        min.is_some_and(|min| min >= PING_TIME_MAX + still)
    }

    /// How many are online.
    pub(crate) fn online_count(&self) -> usize {
        self.owners.len() - self.held_count()
    }

    /// Whether so few slots are left that nobody can be held any longer.
    pub(crate) fn is_short_of_slots(&self) -> bool {
        let capacity = (self.config.connections_max + limits::REFUSALS_MAX) as usize;
        capacity - self.seats.len() < limits::HELD_ROOM_MIN
    }

    /// Whoever is held longest.
    pub(crate) fn held_longest(&self) -> Option<ConnId> {
        let held = self.seats.iter().filter_map(|(conn, seat)| match &seat.phase {
            Phase::Held(hold) => Some((hold.lost_nth, *conn)),
            Phase::Greeting | Phase::Live(_) | Phase::Over { .. } => None,
        });
        held.min().map(|(_, conn)| conn)
    }

    /// How many sessions wait for their clients.
    pub(crate) fn held_count(&self) -> usize {
        self.seats.values().filter(|seat| matches!(seat.phase, Phase::Held(_))).count()
    }

    /// Panics unless the ledger was ended and nobody is left.
    pub(crate) fn check_empty(&self) {
        assert!(self.has_stopped, "P5: the ledger was not ended");
        assert!(self.seats.is_empty(), "connections left: {:?}", self.seats);
    }
}

/// The rhythm of a client that wishes for an interval; zero: it does not.
fn granted(rhythm: Rhythm, wish_ms: u32, config: &GatewayConfig) -> Rhythm {
    if wish_ms == 0 {
        return rhythm;
    }
    let shortest = config.interval_wish_min.min(rhythm.interval);
    let longest = config.interval_wish_max.max(rhythm.interval);
    let wish = Span::from_millis(u64::from(wish_ms)).clamp(shortest, longest);
    if wish == rhythm.interval { rhythm } else { rhythm.with_interval(wish) }
}

/// After how much silence a client is pinged, if at all.
pub(crate) fn ping_after(presence: &Presence, config: &GatewayConfig) -> Option<Span> {
    let rhythm = presence.class.rhythm;
    if config.mode.server_pings() || presence.is_browser {
        Some(rhythm.interval)
    } else {
        presence.class.probe.span(rhythm).map(|span| rhythm.timeout.minus(span))
    }
}

/// How long whoever is pinged has to answer, at the least: half of what is usual.
fn answer_min(presence: &Presence, config: &GatewayConfig) -> Option<Span> {
    ping_after(presence, config)
        .map(|silence| presence.class.rhythm.timeout.minus(silence).divided_by(2))
}

/// When something is due about a client of which nothing more is heard: the verdict, or the ping
/// before it.
fn silent_due(
    presence: &Presence,
    pinged_by: Option<Moment>,
    config: &GatewayConfig,
    lived: &Lived,
) -> Moment {
    let dead_at = lived.due(presence.last_beat, presence.class.rhythm.timeout);
    match (ping_after(presence, config), pinged_by) {
        (None, _) => dead_at,
        (Some(silence), None) => lived.due(presence.last_beat, silence),
        (Some(silence), Some(by)) => {
            let usual = presence.class.rhythm.timeout.minus(silence);
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
