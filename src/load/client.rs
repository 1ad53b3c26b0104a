//! One pretend client: what it says and when, and what becomes of it. Pure, and told the time.

use crate::base::config::{Mode, Rhythm};
use crate::base::event::CloseReason;
use crate::base::io::CloseHow;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::load::client::talk::Talk;
use crate::load::client::unsaid::{Answer, Unsaid};
use crate::load::dialect::{Dialect, Said, Tongue};
use crate::load::mqtt;
use crate::load::plan::{Draw, LoadOptions, Part, Plan, Tokens};
use crate::wire::message::{AckWanted, Message, Reply};
use crate::wire::native;
use crate::wire::token;

mod talk;
mod unsaid;
mod words;

pub use crate::load::client::words::{Due, Ending, Heard, Presence, Sign, Written};

/// The alarm of whoever needs none.
const NEVER: Moment = Moment::from_nanos(u64::MAX);
/// Of the time between interval and timeout, a late client leaves this many percent unused.
const LATE_PERCENT: (u64, u64) = (20, 80);
/// A client that comes and goes stays and is away for about an interval, but no longer than this
/// part of the run, so that it comes and goes in a short run too.
const FLAP_PART_OF_RUN: u64 = 8;

/// One pretend client.
///
/// ```text
///  Away ──► Connecting ──► Greeting ──► Live ──► Parting ──► Away | Gone
///                                        │ ▲
///                                        ▼ │ (revived)
///                                       Silent ──► Judged ──► Gone
/// ```
///
/// There are many of them, so it is small: 136 bytes, and none on the heap of
/// one that sends no messages while no frame is torn.
#[derive(Debug)]
pub struct Client {
    tongue: Tongue,
    state: State,
    unsaid: Unsaid,
    /// When it last handed something complete to the kernel: its last beat, as the server sees it,
    /// or a little earlier.
    spoke_at: Moment,
    /// When the last beat should have been sent, for answers that do not tell.
    beat_at: Moment,
    interval_ms: u32,
    timeout_ms: u32,
    index: u32,
    /// Random choices made so far.
    draws: u32,
    /// PINGs not yet answered on this connection.
    awaited: u16,
    /// It spoke too late, after its own deadline, and so many beats of its have not passed since:
    /// the server may have ended it by then, and the news of that be on its way.
    unforgiven: u8,
    part: Part,
    /// Of whoever sends messages.
    talk: Option<Box<Talk>>,
}

/// Where it is. `NEVER` stands for no alarm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// Not connected; connects at that moment.
    Away { back_at: Moment },
    /// Connect asked for.
    Connecting,
    /// HELLO is said or about to be, WELCOME not yet heard.
    Greeting,
    /// In. Does what its part asks at `act_at`.
    Live { next_beat: Moment, act_at: Moment },
    /// Says nothing more, and leaves the socket open.
    Silent,
    /// Was silent, and the server has noticed: waits for the server to close.
    Judged,
    /// On its way out; whatever comes now is of no interest.
    Parting,
    /// Was here, or never could be, and does not come back by itself.
    Gone,
}

/// What everybody knows.
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// Who does what.
    pub plan: &'a Plan,
    /// When the run ends.
    pub end: Moment,
    /// The rhythm that the server granted last, to whomever.
    pub granted: Option<Rhythm>,
    /// Whether every answer calls for the next beat:
    /// [`Pace::Saturating`](crate::load::plan::Pace), and everybody in.
    pub saturates: bool,
}

impl Client {
    /// Client number `index`, not connected and with no wish to be.
    pub fn new(index: u32, part: Part, dialect: Dialect) -> Self {
        Self {
            tongue: Tongue::new(dialect),
            state: State::Away { back_at: NEVER },
            unsaid: Unsaid::default(),
            spoke_at: Moment::ZERO,
            unforgiven: 0,
            beat_at: Moment::ZERO,
            interval_ms: 0,
            timeout_ms: 0,
            index,
            draws: 0,
            awaited: 0,
            part,
            talk: (part == Part::Talk).then(Box::default),
        }
    }

    /// Its part.
    pub fn part(&self) -> Part {
        self.part
    }

    /// PINGs of this connection that were not answered yet; of one that reads.
    pub fn awaited(&self) -> u16 {
        self.awaited
    }

    /// Where it is.
    pub fn presence(&self) -> Presence {
        match self.state {
            State::Away { .. } | State::Gone => Presence::Away,
            State::Connecting | State::Greeting => Presence::Coming,
            State::Live { .. } => Presence::Live,
            State::Silent => Presence::Silent { deadline: self.deadline() },
            State::Judged | State::Parting => Presence::Leaving,
        }
    }

    /// When [`on_time`](Self::on_time) is to be called, if ever.
    pub fn next_due(&self) -> Option<Moment> {
        let due = match self.state {
            State::Away { back_at } => back_at,
            State::Live { next_beat, act_at } => next_beat.min(act_at),
            State::Connecting
            | State::Greeting
            | State::Silent
            | State::Judged
            | State::Parting
            | State::Gone => NEVER,
        };
        (due != NEVER).then_some(due)
    }

    /// Does the earliest thing that is due; call again while something still is.
    pub fn on_time(&mut self, script: Script<'_>, now: Moment) -> Due {
        match self.state {
            State::Away { back_at } if back_at <= now => {
                self.state = State::Connecting;
                Due::Connect
            }
            State::Live { next_beat, act_at } if act_at <= now && act_at <= next_beat => {
                self.act(script)
            }
            State::Live { next_beat, act_at } if next_beat <= now => {
                let next_beat_after =
                    if script.saturates { NEVER } else { next_beat + self.gap(script.plan) };
                self.state = State::Live { next_beat: next_beat_after, act_at };
                if script.saturates && self.awaited > 0 {
                    return Due::Nothing; // the answer calls for the next one
                }
                if self.unsaid.beat != Moment::ZERO {
                    return Due::SkipBeat;
                }
                self.unsaid.beat = next_beat;
                Due::Say
            }
            State::Away { .. }
            | State::Live { .. }
            | State::Connecting
            | State::Greeting
            | State::Silent
            | State::Judged
            | State::Parting
            | State::Gone => Due::Nothing,
        }
    }

    /// It shall connect now.
    pub fn on_connecting(&mut self) {
        self.state = State::Connecting;
    }

    /// The connection is open; it has HELLO to say.
    pub fn on_connected(&mut self, script: Script<'_>, now: Moment) {
        self.tongue = Tongue::new(script.plan.options().dialect);
        self.awaited = 0;
        self.talk.iter_mut().for_each(|talk| **talk = Talk::default());
        self.unsaid = Unsaid { hello: true, ..Unsaid::default() };
        self.state = if self.part == Part::SlowReader {
            // It will not hear WELCOME, and takes the rhythm that others were granted.
            let wish = script.plan.options().interval.max(limits::INTERVAL_WISH_MIN);
            self.interval_ms =
                script.granted.map_or(wish, |rhythm| rhythm.interval).as_millis_u32();
            State::Live { next_beat: now + self.interval(), act_at: NEVER }
        } else {
            State::Greeting
        };
    }

    /// The connection could not be opened.
    pub fn on_connect_failed(&mut self, plan: &Plan, now: Moment) {
        self.rest(plan, now);
    }

    /// Bytes came in.
    pub fn on_bytes(
        &mut self,
        script: Script<'_>,
        mut bytes: &[u8],
        now: Moment,
        mut heard: impl FnMut(Heard),
    ) {
        let stand_in = self.tongue.stand_in();
        let mut tongue = std::mem::replace(&mut self.tongue, stand_in);
        loop {
            match tongue.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(said)) => {
                    if let Some(news) = self.on_said(script, said, now) {
                        heard(news);
                    }
                    while let Some(took) = self.next_acked(now) {
                        heard(Heard::Acked { took });
                    }
                }
                Err(reason) => {
                    let sign = Sign::Garbled(reason);
                    heard(Heard::Ended(sign, self.on_ended(sign, now)));
                    break;
                }
            }
        }
        self.tongue = tongue;
    }

    /// The server ends the connection; `sign` says how that was seen.
    ///
    /// What it means is told once: later signs of the same end are [`Ending::NoMatter`].
    pub fn on_ended(&mut self, sign: Sign, now: Moment) -> Ending {
        let ending = self.judge(sign, now);
        self.unsaid = Unsaid::default();
        self.state = match self.state {
            State::Silent => State::Judged,
            State::Away { .. }
            | State::Connecting
            | State::Greeting
            | State::Live { .. }
            | State::Parting
            | State::Judged
            | State::Gone => State::Parting,
        };
        ending
    }

    /// The connection is closed.
    pub fn on_closed(&mut self, plan: &Plan, now: Moment) {
        self.tongue = Tongue::new(plan.options().dialect);
        self.unsaid = Unsaid::default();
        self.awaited = 0;
        self.rest(plan, now);
    }

    /// Whether [`write`](Self::write) would write something.
    pub fn has_something_to_say(&self) -> bool {
        let Unsaid { beat, answer, ack, hello, bye } = &self.unsaid;
        let has_answer = answer.is_some() || *ack > 0;
        *hello
            || *bye
            || has_answer
            || self.has_message()
            || (*beat != Moment::ZERO && !self.holds_its_beat())
    }

    /// Whether it is on its way out and has said all it wanted: time to close.
    pub fn wants_to_close(&self) -> bool {
        self.state == State::Parting && !self.has_something_to_say()
    }

    /// Appends everything it has to say to `out`.
    pub fn write(&mut self, plan: &Plan, now: Moment, out: &mut Vec<u8>) -> Written {
        let Unsaid { mut beat, answer, ack, hello, bye } = std::mem::take(&mut self.unsaid);
        if beat != Moment::ZERO && self.holds_its_beat() {
            self.unsaid.beat = std::mem::replace(&mut beat, Moment::ZERO);
        }
        let mut written = Written::default();
        let start = out.len();
        if hello {
            self.write_hello(plan, out);
        }
        if let Some(answer) = &answer {
            let payload = &answer.payload[..usize::from(answer.len)];
            native::encode(&Message::Pong { payload }, out);
            written.pongs = 1;
        }
        if ack > 0 {
            native::encode(&Message::Ack { seq: ack }, out);
        }
        if beat != Moment::ZERO {
            self.write_beat(beat, out);
            written.ping = Some(beat);
        }
        written.message = self.write_message(plan, out);
        if bye {
            self.tongue.write_bye(out);
        }
        self.tongue.wrap(start, out);
        if matches!(self.state, State::Live { .. }) && now >= self.deadline() {
            self.unforgiven = self.beats_in_a_timeout();
        } else {
            self.unforgiven = self.unforgiven.saturating_sub(1);
        }
        self.spoke_at = now;
        written
    }

    /// Falls silent, as if its part asked for it now. Whether there was anybody to silence.
    pub fn silence(&mut self) -> bool {
        match self.state {
            State::Live { .. } => {
                self.fall_silent();
                true
            }
            State::Away { .. }
            | State::Connecting
            | State::Greeting
            | State::Silent
            | State::Judged
            | State::Parting
            | State::Gone => false,
        }
    }

    /// Beats again, or comes back, and is steady from now on. Whether it was silent or away.
    pub fn revive(&mut self, now: Moment) -> bool {
        let state = match self.state {
            State::Silent => State::Live { next_beat: now, act_at: NEVER },
            State::Away { .. } | State::Gone => State::Away { back_at: now },
            State::Connecting
            | State::Greeting
            | State::Live { .. }
            | State::Judged
            | State::Parting => return false,
        };
        self.state = state;
        self.part = Part::Steady;
        true
    }

    /// The run is over: it says BYE if it is in, and beats no more. How to close it, if it has
    /// nothing to say.
    pub fn dismiss(&mut self) -> Due {
        self.unsaid.beat = Moment::ZERO;
        match self.state {
            State::Live { .. } => {
                self.unsaid.bye = true;
                self.state = State::Parting;
                Due::Say
            }
            State::Greeting | State::Silent | State::Judged => {
                self.unsaid = Unsaid::default();
                self.state = State::Parting;
                Due::Close(CloseHow::Abort)
            }
            State::Away { .. } | State::Connecting => {
                self.state = State::Gone;
                Due::Nothing
            }
            State::Parting | State::Gone => Due::Nothing,
        }
    }
}

/// What it does.
impl Client {
    fn on_said(&mut self, script: Script<'_>, said: Said<'_>, now: Moment) -> Option<Heard> {
        match said {
            Said::Message(message) => self.on_message(script, message, now),
            Said::Admitted => self.on_admitted(script, now),
            Said::TurnedAway => {
                let sign = Sign::ToldUnknown;
                Some(Heard::Ended(sign, self.on_ended(sign, now)))
            }
            Said::Opened => {
                self.unsaid.hello = self.state == State::Greeting;
                Some(Heard::Say)
            }
            Said::Answered => self.on_answered(script, self.beat_at, now),
            Said::Nothing => None,
        }
    }

    /// In, where the client chooses the rhythm.
    fn on_admitted(&mut self, script: Script<'_>, now: Moment) -> Option<Heard> {
        let interval = script.plan.options().interval;
        let timeout = mqtt::timeout(mqtt::keep_alive_secs(interval));
        let first_beat = script.plan.span_between(self.next_draw(), Span::ZERO, interval);
        self.on_welcome(
            script,
            Mode::Client,
            [interval, timeout, first_beat].map(Span::as_millis_u32),
            now,
        )
    }

    fn on_welcome(
        &mut self,
        script: Script<'_>,
        mode: Mode,
        [interval_ms, timeout_ms, first_beat_ms]: [u32; 3],
        now: Moment,
    ) -> Option<Heard> {
        if self.state != State::Greeting {
            return None;
        }
        self.set_rhythm(interval_ms, timeout_ms);
        let took = now.since(self.spoke_at);
        self.state = self.settle_in(script, mode, first_beat_ms, now);
        let granted = Rhythm { interval: self.interval(), timeout: self.timeout() };
        Some(Heard::Welcomed { granted, mode, took })
    }

    fn on_message(
        &mut self,
        script: Script<'_>,
        message: Message<'_>,
        now: Moment,
    ) -> Option<Heard> {
        match message {
            Message::Welcome { mode, interval_ms, timeout_ms, first_beat_ms, .. } => {
                self.on_welcome(script, mode, [interval_ms, timeout_ms, first_beat_ms], now)
            }
            Message::Ping { reply, payload } => match reply {
                Reply::Wanted | Reply::AtOnce => self.answer(payload),
                Reply::NotWanted => None,
            },
            Message::Pong { payload } => {
                let nanos = u64::from_be_bytes(payload.try_into().ok()?);
                self.on_answered(script, Moment::from_nanos(nanos), now)
            }
            Message::Beat { interval_ms, timeout_ms } => {
                self.set_rhythm(interval_ms, timeout_ms);
                None
            }
            Message::Goaway { code, .. } | Message::Error { code, .. } => {
                let sign = CloseReason::from_code(code).map_or(Sign::ToldUnknown, Sign::Told);
                Some(Heard::Ended(sign, self.on_ended(sign, now)))
            }
            Message::Data { seq, ack, .. } if self.is_awake() => {
                if ack == AckWanted::Yes {
                    self.unsaid.ack = seq;
                }
                Some(Heard::Message)
            }
            Message::Ack { seq } => {
                self.talk.iter_mut().for_each(|talk| talk.on_ack(seq));
                None
            }
            Message::Data { .. } | Message::Hello { .. } | Message::Bye { .. } => None,
        }
    }

    /// The beat that should have been sent at `intended` is answered.
    fn on_answered(&mut self, script: Script<'_>, intended: Moment, now: Moment) -> Option<Heard> {
        if self.awaited == 0 || intended > now {
            return None;
        }
        self.awaited -= 1;
        self.beat_again(script, now);
        Some(Heard::Pong { rtt: now.since(intended) })
    }

    /// Beats at once where every answer calls for the next beat.
    fn beat_again(&mut self, script: Script<'_>, now: Moment) {
        if let State::Live { .. } = self.state
            && script.saturates
            && now < script.end
        {
            self.unsaid.beat = now;
        }
    }

    /// Whether it may not beat now, because nobody could tell which beat an answer belongs to.
    const fn holds_its_beat(&self) -> bool {
        self.awaited > 0 && !self.tongue.answers_have_names()
    }

    /// The dead and the leaving do not answer.
    const fn is_awake(&self) -> bool {
        match self.state {
            State::Greeting | State::Live { .. } => true,
            State::Away { .. }
            | State::Connecting
            | State::Silent
            | State::Judged
            | State::Parting
            | State::Gone => false,
        }
    }

    fn answer(&mut self, payload: &[u8]) -> Option<Heard> {
        if !self.is_awake() {
            return None;
        }
        let mut answer = Answer { payload: [0; limits::PING_BYTES_MAX], len: 0 };
        let space = answer.payload.get_mut(..payload.len())?;
        space.copy_from_slice(payload);
        answer.len = u8::try_from(payload.len()).ok()?;
        self.unsaid.answer = Some(answer);
        Some(Heard::Say)
    }

    /// In from now on: when the first beat is, and when its part asks for more.
    fn settle_in(
        &mut self,
        script: Script<'_>,
        mode: Mode,
        first_beat_ms: u32,
        now: Moment,
    ) -> State {
        let first_beat = now + Span::from_millis(u64::from(first_beat_ms));
        let next_beat = match mode {
            Mode::Client | Mode::Either => first_beat,
            Mode::Server => NEVER,
        };
        let act_at = self.act_at(script, first_beat + Span::from_nanos(1));
        State::Live { next_beat, act_at }
    }

    /// When its part asks for something, not before `earliest`.
    fn act_at(&mut self, script: Script<'_>, earliest: Moment) -> Moment {
        let latest_for = |verdict_takes: Span| {
            let before_end = verdict_takes + limits::LOAD_VERDICT_MARGIN;
            Moment::ZERO + script.end.since(Moment::ZERO).minus(before_end)
        };
        match self.part {
            Part::Silent => {
                let latest = latest_for(self.timeout());
                script.plan.moment_between(self.next_draw(), earliest, latest)
            }
            Part::Reset | Part::Leave => {
                script.plan.moment_between(self.next_draw(), earliest, latest_for(Span::ZERO))
            }
            Part::Flap => {
                let stay = self.flap_time(script.plan);
                let (min, max) = (stay.divided_by(2), stay.times(3).divided_by(2));
                earliest + script.plan.span_between(self.next_draw(), min, max)
            }
            Part::Talk => {
                let every = script.plan.options().talk_every();
                earliest + script.plan.span_between(self.next_draw(), Span::ZERO, every)
            }
            Part::Steady | Part::SlowReader | Part::Late | Part::NoReply => NEVER,
        }
    }

    fn act(&mut self, script: Script<'_>) -> Due {
        match self.part {
            Part::Silent => {
                self.fall_silent();
                Due::FallSilent
            }
            Part::Reset => self.part_without_a_word(CloseHow::Abort),
            Part::Leave => self.part_with_bye(),
            Part::Talk => self.speak(script.plan),
            Part::Flap => match script.plan.choice(self.next_draw(), 3) {
                0 => self.part_without_a_word(CloseHow::Abort),
                1 => self.part_without_a_word(CloseHow::Finish),
                _ => self.part_with_bye(),
            },
            Part::Steady | Part::SlowReader | Part::Late | Part::NoReply => {
                unreachable!("act_at gives these parts no moment")
            }
        }
    }

    fn fall_silent(&mut self) {
        self.unsaid = Unsaid::default();
        self.state = State::Silent;
    }

    fn part_with_bye(&mut self) -> Due {
        self.unsaid.bye = true;
        self.state = State::Parting;
        Due::Say
    }

    fn part_without_a_word(&mut self, how: CloseHow) -> Due {
        self.unsaid = Unsaid::default();
        self.state = State::Parting;
        Due::Close(how)
    }

    /// Not connected any more: who comes and goes comes back.
    fn rest(&mut self, plan: &Plan, now: Moment) {
        self.state = if self.part == Part::Flap && self.state != State::Gone {
            let away = self.flap_time(plan);
            let away = plan.span_between(self.next_draw(), away.divided_by(4), away);
            State::Away { back_at: now + away }
        } else {
            State::Gone
        };
    }

    fn judge(&self, sign: Sign, now: Moment) -> Ending {
        match self.state {
            State::Greeting => Ending::Refused,
            State::Silent if now < self.deadline() => {
                Ending::DetectedEarly { early: self.deadline().since(now) }
            }
            State::Silent => Ending::Detected { late: now.since(self.deadline()) },
            State::Live { .. } if self.part == Part::SlowReader => Ending::SlowReader,
            State::Live { .. } if is_about_life(sign) => {
                if now >= self.deadline() || self.unforgiven > 0 {
                    Ending::Overslept
                } else {
                    Ending::FalseOffline
                }
            }
            State::Live { .. } => Ending::SentAway,
            State::Away { .. }
            | State::Connecting
            | State::Judged
            | State::Parting
            | State::Gone => Ending::NoMatter,
        }
    }

    fn write_hello(&self, plan: &Plan, out: &mut Vec<u8>) {
        let mut client_id = String::new();
        plan.write_client_id(self.index, &mut client_id);
        let LoadOptions { tokens, interval, .. } = plan.options();
        let make = |tokens: &Tokens| token::make(&tokens.key, &client_id, tokens.expires_unix_s);
        let token = tokens.as_ref().map(make).unwrap_or_default();
        self.tongue.write_hello(&client_id, token.as_bytes(), *interval, out);
    }

    /// The PING carries the moment when it should have been sent, for the round trip.
    fn write_beat(&mut self, intended: Moment, out: &mut Vec<u8>) {
        let payload = &intended.as_nanos().to_be_bytes();
        let reply = if self.part == Part::NoReply { Reply::NotWanted } else { Reply::Wanted };
        self.tongue.write_beat(reply, payload, out);
        self.beat_at = intended;
        if reply == Reply::Wanted && self.part != Part::SlowReader {
            self.awaited = self.awaited.saturating_add(1);
        }
    }

    /// From one beat to the next.
    fn gap(&mut self, plan: &Plan) -> Span {
        if self.part != Part::Late {
            return self.interval();
        }
        let patience = self.timeout().minus(self.interval());
        let (least, most) = LATE_PERCENT;
        let min = self.interval() + patience.times(least).divided_by(100);
        let max = self.interval() + patience.times(most).divided_by(100);
        plan.span_between(self.next_draw(), min, max)
    }

    fn flap_time(&self, plan: &Plan) -> Span {
        let interval =
            if self.interval_ms == 0 { plan.options().interval } else { self.interval() };
        interval.min(plan.options().run_time.divided_by(FLAP_PART_OF_RUN))
    }

    /// A server that says 0 would have us beat without a pause.
    fn set_rhythm(&mut self, interval_ms: u32, timeout_ms: u32) {
        self.interval_ms = interval_ms.max(limits::INTERVAL_MIN.as_millis_u32());
        self.timeout_ms = timeout_ms;
    }

    fn interval(&self) -> Span {
        Span::from_millis(u64::from(self.interval_ms))
    }

    fn timeout(&self) -> Span {
        Span::from_millis(u64::from(self.timeout_ms))
    }

    fn deadline(&self) -> Moment {
        self.spoke_at + self.timeout()
    }

    /// Beats after which as much time has passed as the server waits.
    fn beats_in_a_timeout(&self) -> u8 {
        let beats = self.timeout_ms.div_ceil(self.interval_ms.max(1)).saturating_add(1);
        u8::try_from(beats).unwrap_or(u8::MAX)
    }

    fn next_draw(&mut self) -> Draw {
        let draw = Draw { index: self.index, nth: self.draws };
        self.draws = self.draws.wrapping_add(1);
        draw
    }
}

/// Whether a living client that ends with this sign was taken for dead, as far as one can tell.
fn is_about_life(sign: Sign) -> bool {
    match sign {
        // 2xx: the network, and the heartbeat's verdict.
        Sign::Told(reason) => reason.code() / 100 == 2,
        Sign::Eof | Sign::Fault(_) => true,
        Sign::ToldUnknown | Sign::Garbled(_) => false,
    }
}

#[cfg(test)]
mod tests;
