//! Every duty of a client, without sockets and without a clock.
//!
//! What happened is told with `on_*`, what should be done comes out of `take_*`, in this order: the
//! bytes, the actions, the news; and `next_wake` says until when there is nothing to do.
//!
//! ```text
//!            Connect             on_connected            WELCOME
//!  Waiting ----------> Connecting -----------> Greeting ----------> Live
//!     ^                    |                       |                 |
//!     +--- random wait ----+------- any loss ------+---- GOAWAY -----+------> Ended
//!                                                        (stay away, BYE)
//! ```

use std::collections::VecDeque;

use crate::base::config::Mode;
use crate::base::event::{CloseReason, ComeBack};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::client::news::{Action, Loss, News, Profile, SendError, come_back};
use crate::wire::error::Unsayable;
use crate::wire::message::{AckWanted, Before, EndedBy, Message, Reply};
use crate::wire::native::{self, Deframer, Inbound, VERSIONS};

/// One client of the native protocol.
#[derive(Debug)]
pub struct Machine {
    profile: Profile,
    rng: fastrand::Rng,
    state: State,
    deframer: Deframer,
    output: Vec<u8>,
    actions: VecDeque<Action>,
    news: VecDeque<News>,
    /// Losses since the last WELCOME.
    losses: u32,
    session: Session,
    /// The latest connection on which WELCOME came, once it has ended.
    former: Option<Former>,
}

/// How a connection ended, for the HELLO of the next: with it the server can tell whether it judged
/// wrongly.
#[derive(Clone, Copy, Debug)]
struct Former {
    /// When the last beat was sent on it.
    last_beat: Moment,
    ended_by: EndedBy,
}

/// What outlives a connection.
#[derive(Debug, Default)]
struct Session {
    /// Token with which to resume; empty: a new session.
    resume: Vec<u8>,
    /// Number of the last DATA received.
    received_seq: u32,
    /// Number of the last DATA sent.
    sent_seq: u32,
}

#[derive(Debug)]
enum State {
    /// No connection until then; then one to `address`, or home.
    Waiting { until: Moment, address: Option<String> },
    /// A connection was asked for, and is given up then.
    Connecting { until: Moment },
    /// HELLO was said at `since`; the wait for WELCOME is given up at `until`.
    Greeting { since: Moment, until: Moment },
    /// We are in.
    Live(Live),
    /// We do not come back by ourselves.
    Ended,
}

#[derive(Debug)]
struct Live {
    mode: Mode,
    interval: Span,
    timeout: Span,
    payload_max: usize,
    last_beat: Moment,
    next_beat: Moment,
    /// When the last frame of ours was sent of which we know the moment. Any frame is a beat; of a
    /// message of the user's we do not know it, and claim nothing.
    said_at: Moment,
    /// When the oldest PING was sent to which nothing came back yet. Its timer, in other words.
    asked: Option<Moment>,
    ping_number: u32,
}

impl Machine {
    /// A client that wants to connect at once. `seed` is the seed of its jitter, and must differ
    /// from client to client. An error says which field of the profile is too long.
    pub fn new(profile: Profile, seed: u64) -> Result<Self, Unsayable> {
        let longest = Session { resume: vec![0; limits::RESUME_TOKEN_BYTES_MAX], ..<_>::default() };
        let former = Former { last_beat: Moment::ZERO, ended_by: EndedBy::Client };
        hello(&profile, &longest, Some(former), Moment::ZERO).check_sayable()?;
        Ok(Self {
            profile,
            rng: fastrand::Rng::with_seed(seed),
            state: State::Waiting { until: Moment::ZERO, address: None },
            deframer: Deframer::client_side(),
            output: Vec::new(),
            actions: VecDeque::new(),
            news: VecDeque::new(),
            losses: 0,
            session: Session::default(),
            former: None,
        })
    }

    // --- what happened ---------------------------------------------------------------------------

    /// The connection asked for is there.
    pub fn on_connected(&mut self, now: Moment) {
        let State::Connecting { .. } = self.state else { return };
        native::encode_preface(VERSIONS, &mut self.output);
        let hello = hello(&self.profile, &self.session, self.former, now);
        native::encode(&hello, &mut self.output);
        self.state = State::Greeting { since: now, until: now + limits::HANDSHAKE_TIMEOUT };
    }

    /// Bytes came. News are about what they say, so take news after every call.
    pub fn on_received(&mut self, bytes: &[u8], now: Moment) {
        let mut deframer = std::mem::replace(&mut self.deframer, Deframer::client_side());
        let mut rest = bytes;
        loop {
            let payload_max = match &self.state {
                State::Greeting { .. } => limits::HELLO_PAYLOAD_BYTES_MAX,
                State::Live(live) => live.payload_max,
                State::Waiting { .. } | State::Connecting { .. } | State::Ended => return,
            };
            let heard = match deframer.next(&mut rest, payload_max) {
                Ok(None) => break,
                Ok(Some(Inbound::Message(message))) => self.on_message(&message, now),
                Ok(Some(Inbound::Skipped { .. } | Inbound::Preface(_))) => {
                    self.on_heard(now);
                    Ok(())
                }
                Err(error) => Err(Loss::Wire(error)),
            };
            if let Err(loss) = heard {
                self.lose(loss, EndedBy::Client, now);
            }
        }
        self.deframer = deframer;
    }

    /// The connection ended, or could not be made. It was the server that ended it when it closed
    /// or reset it, and the client, as it were, when the path was gone.
    pub fn on_disconnected(&mut self, ended_by: EndedBy, now: Moment) {
        let loss = match self.state {
            State::Connecting { .. } => Loss::Unreachable,
            State::Greeting { .. } | State::Live(_) => Loss::Closed,
            State::Waiting { .. } | State::Ended => return, // we had closed it ourselves
        };
        self.lose(loss, ended_by, now);
    }

    /// Time passed. Tell what was received first, or a server may be judged silent whose answer
    /// lies there unread. Calling it too often does no harm.
    pub fn on_time(&mut self, now: Moment) {
        match &mut self.state {
            State::Waiting { until, address } if *until <= now => {
                let address = address.take();
                self.actions.push_back(Action::Connect { address });
                self.state = State::Connecting { until: now + limits::HANDSHAKE_TIMEOUT };
            }
            State::Connecting { until } if *until <= now => {
                self.lose(Loss::Unreachable, EndedBy::Client, now);
            }
            State::Greeting { until, .. } if *until <= now => {
                self.lose(Loss::NoWelcome, EndedBy::Client, now);
            }
            State::Live(live) if live.is_server_gone(now) => {
                self.lose(Loss::Silent, EndedBy::Client, now);
            }
            State::Live(live) if live.next_beat <= now => self.beat(now),
            State::Waiting { .. }
            | State::Connecting { .. }
            | State::Greeting { .. }
            | State::Live(_)
            | State::Ended => {}
        }
    }

    // --- what the user wants ---------------------------------------------------------------------

    /// Beats now, and not again for an interval. Nothing happens without a session.
    pub fn beat(&mut self, now: Moment) {
        let State::Live(live) = &mut self.state else { return };
        let number = live.on_beat(now).to_be_bytes();
        self.say(&Message::Ping { reply: Reply::Wanted, payload: &number }, now);
    }

    /// Sends a message; its number.
    pub fn try_send(&mut self, topic: &str, body: &[u8], ack: AckWanted) -> Result<u32, SendError> {
        let State::Live(live) = &self.state else { return Err(SendError::Offline) };
        let bytes = 4 + 1 + topic.len() + body.len();
        if bytes > live.payload_max {
            return Err(SendError::TooLong { bytes, limit_bytes: live.payload_max });
        }
        if self.output.len() + limits::FRAME_HEADER_BYTES + bytes > limits::OUTBOX_BYTES_MAX {
            return Err(SendError::Full);
        }
        let seq = self.session.sent_seq.wrapping_add(1);
        native::try_encode(&Message::Data { seq, ack, topic, body }, &mut self.output)?;
        self.session.sent_seq = seq;
        Ok(seq)
    }

    /// Leaves on purpose, for good.
    pub fn bye(&mut self) {
        match self.state {
            State::Live(_) => {
                let code = CloseReason::Bye.code();
                native::encode(&Message::Bye { code }, &mut self.output);
                self.actions.push_back(Action::Close);
            }
            State::Connecting { .. } | State::Greeting { .. } => {
                self.output.clear();
                self.actions.push_back(Action::Close);
            }
            State::Waiting { .. } | State::Ended => {}
        }
        self.state = State::Ended;
    }

    // --- what comes out --------------------------------------------------------------------------

    /// Appends the bytes to be sent. Send them before doing what [`Self::take_action`] says.
    pub fn take_output(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.output);
    }

    /// The next thing to do with the connection.
    #[must_use]
    pub fn take_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next thing to tell.
    #[must_use]
    pub fn take_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// When `on_time` should be called at the latest; `None`: never, it is over.
    #[must_use]
    pub fn next_wake(&self) -> Option<Moment> {
        match &self.state {
            State::Waiting { until, .. }
            | State::Connecting { until }
            | State::Greeting { until, .. } => Some(*until),
            State::Live(live) => Some(live.next_wake()),
            State::Ended => None,
        }
    }

    /// Whether there is a session.
    pub const fn is_live(&self) -> bool {
        matches!(self.state, State::Live(_))
    }

    /// Whether it is over: we said BYE, or were told to stay away.
    pub const fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    // --- what was said ---------------------------------------------------------------------------

    fn on_message(&mut self, message: &Message<'_>, now: Moment) -> Result<(), Loss> {
        self.on_heard(now);
        match *message {
            Message::Welcome { .. } => return self.on_welcome(message, now),
            Message::Goaway { code, reconnect_min_ms, reconnect_max_ms, address, text } => {
                let window = (reconnect_min_ms, reconnect_max_ms);
                let back_in = self.leave(code, window, address, now);
                self.news.push_back(News::Goaway { code, text: text.to_owned(), back_in });
                return Ok(());
            }
            Message::Error { code, text } => {
                let back_in = self.leave(code, (0, 0), "", now);
                self.news.push_back(News::Refused { code, text: text.to_owned(), back_in });
                return Ok(());
            }
            Message::Hello { .. } | Message::Bye { .. } => return Err(Loss::Unexpected),
            Message::Ping { .. }
            | Message::Pong { .. }
            | Message::Data { .. }
            | Message::Ack { .. }
            | Message::Beat { .. } => {}
        }
        match self.state {
            State::Live(_) => {
                self.on_live_message(message, now);
                Ok(())
            }
            State::Waiting { .. }
            | State::Connecting { .. }
            | State::Greeting { .. }
            | State::Ended => Err(Loss::Unexpected),
        }
    }

    fn on_live_message(&mut self, message: &Message<'_>, now: Moment) {
        let State::Live(live) = &mut self.state else { return };
        match *message {
            Message::Ping { reply: Reply::Wanted, payload } => {
                self.say(&Message::Pong { payload }, now);
            }
            Message::Ping { reply: Reply::AtOnce, payload } => {
                let waiting = std::mem::take(&mut self.output);
                self.say(&Message::Pong { payload }, now);
                self.output.extend_from_slice(&waiting);
            }
            Message::Ping { reply: Reply::NotWanted, .. } => {}
            Message::Pong { payload } => {
                let is_last = payload == live.ping_number.to_be_bytes();
                let round_trip = is_last.then(|| now.since(live.last_beat));
                self.news.push_back(News::Pong { round_trip });
            }
            Message::Data { seq, ack, topic, body } => {
                self.session.received_seq = seq;
                let (topic, body) = (topic.to_owned(), body.to_vec());
                self.news.push_back(News::Data { seq, topic, body });
                match ack {
                    AckWanted::Yes => self.say(&Message::Ack { seq }, now),
                    AckWanted::No => {}
                }
            }
            Message::Ack { seq } => self.news.push_back(News::Acked { seq }),
            Message::Beat { interval_ms, timeout_ms } => {
                let (interval, timeout) = live.on_rhythm(interval_ms, timeout_ms, now);
                self.news.push_back(News::Rhythm { interval, timeout });
            }
            Message::Hello { .. }
            | Message::Welcome { .. }
            | Message::Goaway { .. }
            | Message::Bye { .. }
            | Message::Error { .. } => {} // told apart before, in every state
        }
    }

    fn on_welcome(&mut self, message: &Message<'_>, now: Moment) -> Result<(), Loss> {
        let State::Greeting { since, .. } = self.state else { return Err(Loss::Unexpected) };
        let Message::Welcome {
            version,
            mode,
            resumed,
            epoch,
            interval_ms,
            timeout_ms,
            first_beat_ms,
            payload_max,
            server_unix_ms: _,
            resume,
        } = *message
        else {
            return Err(Loss::Unexpected);
        };
        if !VERSIONS.contains(&version) {
            return Err(Loss::Unexpected);
        }
        if !resumed {
            self.session = Session::default();
        }
        self.session.resume = resume.to_vec();
        self.losses = 0;
        let (interval, timeout) = rhythm(interval_ms, timeout_ms);
        self.state = State::Live(Live {
            mode,
            interval,
            timeout,
            payload_max: usize::from(payload_max),
            last_beat: now,
            next_beat: now
                + match mode {
                    Mode::Client | Mode::Either => millis(first_beat_ms).min(interval),
                    Mode::Server => interval.times(2),
                },
            said_at: since,
            asked: None,
            ping_number: 0,
        });
        self.news.push_back(News::Welcome { epoch, resumed, mode, interval, timeout });
        Ok(())
    }

    /// Something complete came.
    fn on_heard(&mut self, now: Moment) {
        let State::Live(live) = &mut self.state else { return };
        live.asked = None;
        match live.mode {
            Mode::Server => live.next_beat = now + live.interval.times(2),
            Mode::Client | Mode::Either => {}
        }
    }

    // --- leaving and coming back -----------------------------------------------------------------

    /// The server wants us gone. When we come back, if we do.
    fn leave(
        &mut self,
        code: u16,
        window_ms: (u32, u32),
        address: &str,
        now: Moment,
    ) -> Option<Span> {
        self.actions.push_back(Action::Close);
        self.remember_end(EndedBy::Server);
        match come_back(code) {
            ComeBack::Resume => {}
            ComeBack::Reconnect => self.session = Session::default(),
            ComeBack::StayAway => {
                self.disconnect(State::Ended);
                return None;
            }
        }
        let back_in = match window_ms {
            (0, 0) => self.next_backoff(),
            (min, max) => {
                let (min, max) = (millis(min), millis(max.max(min)));
                Span::from_nanos(self.rng.u64(min.as_nanos()..=max.as_nanos()))
            }
        };
        let address = (!address.is_empty()).then(|| address.to_owned());
        self.disconnect(State::Waiting { until: now + back_in, address });
        Some(back_in)
    }

    fn lose(&mut self, loss: Loss, ended_by: EndedBy, now: Moment) {
        self.actions.push_back(Action::Close);
        self.remember_end(ended_by);
        let back_in = self.next_backoff();
        self.disconnect(State::Waiting { until: now + back_in, address: None });
        self.news.push_back(News::Lost { loss, back_in });
    }

    /// Of a connection without WELCOME there is nothing to remember: it had no session to judge.
    fn remember_end(&mut self, ended_by: EndedBy) {
        if let State::Live(live) = &self.state {
            self.former = Some(Former { last_beat: live.said_at, ended_by });
        }
    }

    fn disconnect(&mut self, state: State) {
        self.state = state;
        self.output.clear();
        self.deframer = Deframer::client_side();
    }

    /// Full jitter: anything from nothing to a bound that doubles with every loss.
    fn next_backoff(&mut self) -> Span {
        let doubled = limits::COME_BACK_BASE.times(1 << self.losses.min(32));
        self.losses = self.losses.saturating_add(1);
        let bound = doubled.min(limits::COME_BACK_CAP);
        Span::from_nanos(self.rng.u64(0..=bound.as_nanos()))
    }

    fn say(&mut self, message: &Message<'_>, now: Moment) {
        native::encode(message, &mut self.output);
        if self.output.len() > limits::OUTBOX_BYTES_MAX {
            self.lose(Loss::Full, EndedBy::Client, now);
        } else if let State::Live(live) = &mut self.state {
            live.said_at = now;
        }
    }
}

impl Live {
    /// A PING is being sent; its number. Its timer starts, unless that of an older one runs.
    fn on_beat(&mut self, now: Moment) -> u32 {
        self.asked.get_or_insert(now);
        self.ping_number = self.ping_number.wrapping_add(1);
        self.last_beat = now;
        // A beat that is on time keeps the step; after a pause the step begins anew.
        let in_step = self.next_beat + self.interval;
        self.next_beat =
            if self.next_beat <= now && in_step > now { in_step } else { now + self.interval };
        self.ping_number
    }

    fn on_rhythm(&mut self, interval_ms: u32, timeout_ms: u32, now: Moment) -> (Span, Span) {
        (self.interval, self.timeout) = rhythm(interval_ms, timeout_ms);
        self.next_beat = match self.mode {
            Mode::Client | Mode::Either => self.last_beat + self.interval,
            Mode::Server => now + self.interval.times(2),
        };
        (self.interval, self.timeout)
    }

    fn is_server_gone(&self, now: Moment) -> bool {
        self.asked.is_some_and(|asked| asked + self.timeout <= now)
    }

    fn next_wake(&self) -> Moment {
        match self.asked {
            Some(asked) => self.next_beat.min(asked + self.timeout),
            None => self.next_beat,
        }
    }
}

fn hello<'a>(
    profile: &'a Profile,
    session: &'a Session,
    former: Option<Former>,
    now: Moment,
) -> Message<'a> {
    Message::Hello {
        wanted_interval_ms: profile.wanted_interval.as_millis_u32(),
        client_id: profile.client_id.as_str(),
        class: &profile.class,
        token: &profile.token,
        resume: &session.resume,
        last_seq: session.received_seq,
        before: former.map(|former| Before {
            last_beat_ago_ms: now.since(former.last_beat).as_millis_u32(),
            ended_by: former.ended_by,
        }),
    }
}

/// A rhythm as granted, but never one that would keep this machine busy.
fn rhythm(interval_ms: u32, timeout_ms: u32) -> (Span, Span) {
    (millis(interval_ms).max(limits::INTERVAL_MIN), millis(timeout_ms).max(limits::TIMEOUT_MIN))
}

fn millis(millis: u32) -> Span {
    Span::from_millis(u64::from(millis))
}
