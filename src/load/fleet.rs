//! All pretend clients together: their sockets, their alarms, and what is counted.

use std::collections::{BTreeSet, VecDeque};

use crate::base::config::Rhythm;
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::io::{
    Chunk, CloseHow, Completion, Connect, IoFault, Op, ReceiveEnd, SocketHandle,
};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::load::client::{Client, Due, Heard, Presence, Script, Sign};
use crate::load::plan::{Pace, Part, Plan, PlanError};
use crate::load::tally::Tally;
use crate::load::timers::Timers;

/// So many connects are tried before the fleet believes that nobody is there.
const TRIES_MAX: u64 = 64;

/// The fleet, as a value: it is told what the kernel says and what time it is, and hands out what
/// the kernel shall do. Client `n` has slot `n`.
///
/// ```text
///  Running ──(end of the run)──► Settling ──(answers in)──► Leaving ──(all closed)──► Over
/// ```
#[derive(Debug)]
pub struct Fleet {
    plan: Plan,
    clients: Vec<Client>,
    lines: Vec<Line>,
    timers: Timers,
    ops: Vec<Op>,
    chunks: Vec<Chunk>,
    /// Who wants to connect, beside those who never did.
    to_connect: VecDeque<u32>,
    /// Who was asked to come back, and comes again should its connection be on its way out.
    wanted_back: BTreeSet<u32>,
    /// The next of those who never connected.
    newcomer: u32,
    /// When the next newcomer may.
    newcomer_at: Moment,
    /// Lines in state `Connecting`.
    connecting: u32,
    /// Lines that are open and not yet welcomed.
    greeting: u32,
    /// Lines in state `Open` or `Closing`.
    open: u32,
    /// PINGs not yet answered on all open lines.
    awaited: u64,
    connects_failed: u64,
    phase: Phase,
    when_idle: WhenIdle,
    end: Moment,
    granted: Option<Rhythm>,
    /// Everybody is in, and every answer calls for the next beat.
    saturates: bool,
    trouble: Option<FleetError>,
    tally: Tally,
}

/// What a fleet does when nobody is left in it and nobody will come by himself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WhenIdle {
    /// Ends the run before its time.
    End,
    /// Stays: somebody may be revived.
    Stay,
}

/// Why a fleet gave up.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FleetError {
    /// The plan does not fit what the server grants.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Nobody could connect; this is what the last one heard.
    #[error("cannot connect: {fault}")]
    NobodyConnected {
        /// Why.
        fault: IoFault,
    },
}

/// What a progress bar shows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Of the run, so far.
    pub elapsed: Span,
    /// Clients that were welcomed, each once.
    pub connected: u64,
    /// Connections that are open now.
    pub open: u32,
    /// Beats sent, and answers to the server's own.
    pub beats: u64,
    /// Silent clients that the server noticed.
    pub detected: u64,
    /// Living clients that the server ended.
    pub false_offline: u64,
}

/// One client's socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Line {
    generation: u32,
    state: LineState,
    /// A chunk is with the kernel.
    is_sending: bool,
    /// Is open, and waits to be welcomed.
    is_greeting: bool,
    /// Was counted in `Tally::connected`.
    is_counted: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LineState {
    Closed,
    Connecting,
    Open,
    Closing,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Everybody does what the plan says.
    Running,
    /// No more beats; the last answers come in.
    Settling { until: Moment },
    /// Everybody from `next` on is still to be sent home.
    Leaving { until: Moment, next: u32 },
    /// Nobody is left, or nobody is waited for any more.
    Over,
}

impl Fleet {
    /// A fleet that begins to connect at once. O(clients).
    pub fn new(plan: Plan, when_idle: WhenIdle, now: Moment) -> Self {
        let count = plan.clients();
        let line = Line {
            generation: 0,
            state: LineState::Closed,
            is_sending: false,
            is_greeting: false,
            is_counted: false,
        };
        Self {
            clients: (0..count)
                .map(|index| Client::new(index, plan.part(index), plan.options().dialect))
                .collect(),
            lines: vec![line; count as usize],
            timers: Timers::new(count),
            ops: Vec::new(),
            chunks: Vec::new(),
            to_connect: VecDeque::new(),
            wanted_back: BTreeSet::new(),
            newcomer: 0,
            newcomer_at: now,
            connecting: 0,
            greeting: 0,
            open: 0,
            awaited: 0,
            connects_failed: 0,
            phase: Phase::Running,
            when_idle,
            end: now + plan.options().run_time,
            granted: None,
            saturates: false,
            trouble: None,
            tally: Tally::new(now),
            plan,
        }
    }

    /// The kernel spoke. `now` must be fresh: round trips and detections are measured by it.
    pub fn on_completion(&mut self, completion: Completion<'_>, now: Moment) {
        match completion {
            Completion::Connected { ticket, socket } => self.on_connected(ticket, socket, now),
            Completion::ConnectFailed { ticket, fault } => {
                self.on_connect_failed(ticket, fault, now);
            }
            Completion::Received { conn, bytes } => self.on_received(conn, bytes, now),
            Completion::ReceiveEnded { conn, end } => self.on_receive_ended(conn, end, now),
            Completion::Sent { conn, chunk, result } => self.on_sent(conn, chunk, result, now),
            Completion::Closed { conn } => self.on_closed(conn, now),
            Completion::Spoilt { conn, reason } => self.on_spoilt(conn, reason, now),
            // The load bench listens nowhere.
            Completion::Accepted { socket, .. } => self.ops.push(Op::Discard { socket }),
            Completion::Arrived { socket, .. } => self.ops.push(Op::Discard { socket }),
            Completion::AcceptFailed { .. }
            | Completion::Looked { .. }
            | Completion::Introduced { .. }
            | Completion::Moved { .. }
            | Completion::Stayed { .. }
            | Completion::ArrivalFailed { .. } => {}
        }
    }

    /// Time passed. Does a bounded share of what is due; [`next_wake`](Self::next_wake) tells
    /// whether more is.
    pub fn on_time(&mut self, now: Moment) {
        match self.phase {
            Phase::Running if now >= self.end || self.is_idle() => self.settle_down(now),
            Phase::Running => {
                self.ring_alarms(now);
                self.connect_some(now);
            }
            Phase::Settling { until } => {
                if now >= until || self.has_settled() {
                    self.send_home(now);
                }
            }
            Phase::Leaving { until, next } => {
                if now >= until {
                    self.phase = Phase::Over;
                } else {
                    self.dismiss_some(until, next, now);
                }
            }
            Phase::Over => {}
        }
    }

    /// Hands over what the kernel shall do.
    pub fn take_ops(&mut self, ops: &mut Vec<Op>) {
        ops.append(&mut self.ops);
    }

    /// When to call [`on_time`](Self::on_time) at the latest; `None` when the fleet is over.
    pub fn next_wake(&self) -> Option<Moment> {
        match self.phase {
            Phase::Running if self.is_idle() => Some(Moment::ZERO),
            Phase::Running => {
                let alarm = self.timers.next_due().unwrap_or(self.end);
                Some(self.end.min(alarm).min(self.next_connect()))
            }
            Phase::Settling { .. } if self.has_settled() => Some(Moment::ZERO),
            Phase::Settling { until } => Some(until),
            Phase::Leaving { next, .. } if next < self.plan.clients() => Some(Moment::ZERO),
            Phase::Leaving { until, .. } => Some(until),
            Phase::Over => None,
        }
    }

    /// Makes client `index` fall silent, its socket left open. Whether it was in.
    pub fn silence(&mut self, index: u32) -> bool {
        if self.phase != Phase::Running || !self.clients[index as usize].silence() {
            return false;
        }
        self.wanted_back.remove(&index);
        self.tally.on_due(Due::FallSilent);
        self.set_alarm(index);
        true
    }

    /// Makes client `index` beat again, or come back. Whether it was silent or away.
    ///
    /// The server may have closed its connection a moment ago and nobody here knows it yet: then it
    /// comes back when that is over.
    pub fn revive(&mut self, index: u32, now: Moment) -> bool {
        if self.phase == Phase::Running && !self.is_still_to_come(index) {
            self.wanted_back.insert(index);
        }
        let is_idle = match self.lines[index as usize].state {
            LineState::Closed | LineState::Open => true,
            LineState::Connecting | LineState::Closing => false,
        };
        if self.phase != Phase::Running || !is_idle || self.is_still_to_come(index) {
            return false;
        }
        let is_revived = self.clients[index as usize].revive(now);
        self.set_alarm(index);
        is_revived
    }

    /// Ends the run now.
    pub fn stop(&mut self, now: Moment) {
        if self.phase == Phase::Running {
            self.settle_down(now);
        }
    }

    /// Counts apart from now on, too ([`Tally::window`]).
    pub fn open_window(&mut self, now: Moment) {
        if self.phase == Phase::Running {
            self.tally.open_window(now);
        }
    }

    /// Whether the run has ended and nobody is waited for any more.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Why it gave up, if it did.
    pub fn trouble(&self) -> Option<&FleetError> {
        self.trouble.as_ref()
    }

    /// What was counted. Complete when the fleet is over.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The plan it follows.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How far it is.
    pub fn progress(&self, now: Moment) -> Progress {
        Progress {
            elapsed: now.since(self.tally.began),
            connected: self.tally.connected,
            open: self.open,
            beats: self.tally.beats_sent + self.tally.answers_sent,
            detected: self.tally.detection.count() + self.tally.detected_early,
            false_offline: self.tally.false_offline,
        }
    }

    /// Walks everything and panics when the books do not balance. O(clients): tests only.
    pub fn check(&self) {
        self.timers.check();
        let lines_in = |state| self.lines.iter().filter(|line| line.state == state).count();
        assert_eq!(lines_in(LineState::Connecting), self.connecting as usize);
        let open = lines_in(LineState::Open) + lines_in(LineState::Closing);
        assert_eq!(open, self.open as usize);
        assert!(self.connecting <= limits::LOAD_CONNECTS_MAX);
        let greeting = self.lines.iter().filter(|line| line.is_greeting).count();
        assert_eq!(greeting, self.greeting as usize);
        let awaited: u64 = self.clients.iter().map(|client| u64::from(client.awaited())).sum();
        assert_eq!(awaited, self.awaited);
        assert!(self.to_connect.len() <= self.clients.len(), "nobody waits twice");
        assert!(self.chunks.len() <= limits::CHUNKS_KEPT_MAX);
        let counted = self.lines.iter().filter(|line| line.is_counted).count();
        assert_eq!(counted as u64, self.tally.connected);
    }
}

/// What the kernel says.
impl Fleet {
    fn on_connected(&mut self, ticket: u32, socket: SocketHandle, now: Moment) {
        let is_running = self.phase == Phase::Running;
        let Some(line) = self.connecting_line(ticket) else {
            self.ops.push(Op::Discard { socket });
            return;
        };
        if !is_running {
            line.state = LineState::Closed;
            self.connecting -= 1;
            self.ops.push(Op::Discard { socket });
            self.clients[ticket as usize].on_closed(&self.plan, now);
            self.end_if_empty();
            return;
        }
        line.state = LineState::Open;
        let conn = ConnId { slot: ticket, generation: line.generation };
        self.connecting -= 1;
        self.open += 1;
        self.ops.push(Op::Adopt { socket, conn });
        if self.clients[ticket as usize].part() == Part::SlowReader {
            // Nothing is ever taken from its socket; who does not ask for bytes gets none.
            self.count_connected(ticket, now);
        } else {
            self.ops.push(Op::Receive { conn });
        }
        let script = Script {
            plan: &self.plan,
            end: self.end,
            granted: self.granted,
            saturates: self.saturates,
        };
        self.clients[ticket as usize].on_connected(script, now);
        if self.clients[ticket as usize].presence() == Presence::Coming {
            self.lines[ticket as usize].is_greeting = true;
            self.greeting += 1;
        }
        self.tend(ticket, now);
    }

    fn on_connect_failed(&mut self, ticket: u32, fault: IoFault, now: Moment) {
        let Some(line) = self.connecting_line(ticket) else { return };
        line.state = LineState::Closed;
        self.connecting -= 1;
        self.connects_failed += 1;
        self.tally.on_connect_failed(fault);
        self.clients[ticket as usize].on_connect_failed(&self.plan, now);
        self.set_alarm(ticket);
        let tries = TRIES_MAX.min(u64::from(self.plan.clients()));
        if self.tally.connected == 0 && self.open == 0 && self.connects_failed >= tries {
            self.give_up(FleetError::NobodyConnected { fault }, now);
        }
        self.end_if_empty();
    }

    fn on_received(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        let Some(index) = self.open_line(conn) else { return };
        let script = Script {
            plan: &self.plan,
            end: self.end,
            granted: self.granted,
            saturates: self.saturates,
        };
        let is_running = self.phase == Phase::Running;
        let (tally, awaited) = (&mut self.tally, &mut self.awaited);
        let mut granted = None;
        self.clients[index as usize].on_bytes(script, bytes, now, |heard| match heard {
            Heard::Welcomed { granted: rhythm, .. } => {
                tally.on_heard(heard);
                granted = Some(rhythm);
            }
            Heard::Pong { .. } => {
                tally.on_heard(heard);
                *awaited -= 1;
            }
            // After the run nobody beats, so no ending is anybody's fault.
            Heard::Ended(..) if !is_running => {}
            Heard::Ended(..) | Heard::Say | Heard::Message | Heard::Acked { .. } => {
                tally.on_heard(heard)
            }
        });
        if let Some(granted) = granted {
            self.on_granted(index, granted, now);
        }
        self.tend(index, now);
    }

    fn on_receive_ended(&mut self, conn: ConnId, end: ReceiveEnd, now: Moment) {
        let Some(index) = self.open_line(conn) else { return };
        match end {
            ReceiveEnd::Starved | ReceiveEnd::Interrupted | ReceiveEnd::Paused => {
                self.ops.push(Op::Receive { conn });
            }
            ReceiveEnd::Eof => self.on_line_ended(index, Sign::Eof, now),
            ReceiveEnd::Fault(fault) => self.on_line_ended(index, Sign::Fault(fault), now),
        }
    }

    /// What its frames are carried by was not agreed upon, or broke.
    fn on_spoilt(&mut self, conn: ConnId, reason: CloseReason, now: Moment) {
        if let Some(index) = self.open_line(conn) {
            self.on_line_ended(index, Sign::Told(reason), now);
        }
    }

    fn on_sent(
        &mut self,
        conn: ConnId,
        mut chunk: Chunk,
        result: Result<usize, IoFault>,
        now: Moment,
    ) {
        let Some(line) = self.lines.get_mut(conn.slot as usize) else { return };
        if line.generation != conn.generation {
            return;
        }
        line.is_sending = false;
        let is_open = line.state == LineState::Open;
        match result {
            Ok(bytes) => chunk.advance(bytes.min(chunk.len())),
            Err(fault) if is_open => {
                self.keep(chunk);
                return self.on_line_ended(conn.slot, Sign::Fault(fault), now);
            }
            Err(_) => {}
        }
        if is_open && result.is_ok() && !chunk.is_done() {
            self.lines[conn.slot as usize].is_sending = true;
            self.ops.push(Op::Send { conn, chunk });
            return;
        }
        self.keep(chunk);
        if is_open {
            self.tend(conn.slot, now);
        }
    }

    fn on_closed(&mut self, conn: ConnId, now: Moment) {
        let Some(line) = self.lines.get_mut(conn.slot as usize) else { return };
        if line.generation != conn.generation || line.state != LineState::Closing {
            return;
        }
        line.state = LineState::Closed;
        line.generation = line.generation.wrapping_add(1);
        line.is_sending = false;
        self.open -= 1;
        let client = &mut self.clients[conn.slot as usize];
        self.awaited -= u64::from(client.awaited());
        client.on_closed(&self.plan, now);
        if self.phase == Phase::Running && self.wanted_back.remove(&conn.slot) {
            client.revive(now);
        }
        self.set_alarm(conn.slot);
        self.end_if_empty();
    }

    fn on_line_ended(&mut self, index: u32, sign: Sign, now: Moment) {
        let ending = self.clients[index as usize].on_ended(sign, now);
        if self.phase == Phase::Running {
            self.tally.on_ended(sign, ending);
        }
        self.close(index, CloseHow::Finish);
    }

    fn on_granted(&mut self, index: u32, granted: Rhythm, now: Moment) {
        let line = &mut self.lines[index as usize];
        self.greeting -= u32::from(std::mem::take(&mut line.is_greeting));
        self.count_connected(index, now);
        if self.granted.replace(granted) == Some(granted) {
            return;
        }
        if let Err(error) = self.plan.check_granted(granted) {
            self.give_up(error.into(), now);
        }
    }

    fn count_connected(&mut self, index: u32, now: Moment) {
        let line = &mut self.lines[index as usize];
        if !line.is_counted {
            line.is_counted = true;
            self.tally.connected += 1;
            self.tally.connecting_took = now.since(self.tally.began);
            self.saturates = self.plan.options().pace == Pace::Saturating
                && self.tally.connected == u64::from(self.plan.clients());
        }
    }

    fn connecting_line(&mut self, ticket: u32) -> Option<&mut Line> {
        let line = self.lines.get_mut(ticket as usize)?;
        (line.state == LineState::Connecting).then_some(line)
    }

    /// The client of an open line; `None` for what comes after its close.
    fn open_line(&self, conn: ConnId) -> Option<u32> {
        let line = self.lines.get(conn.slot as usize)?;
        let is_open = line.state == LineState::Open && line.generation == conn.generation;
        is_open.then_some(conn.slot)
    }
}

/// What is asked of the kernel.
impl Fleet {
    fn ring_alarms(&mut self, now: Moment) {
        for _ in 0..limits::LOAD_ALARMS_MAX {
            let Some(index) = self.timers.take_due(now) else { return };
            let script = Script {
                plan: &self.plan,
                end: self.end,
                granted: self.granted,
                saturates: self.saturates,
            };
            let due = self.clients[index as usize].on_time(script, now);
            self.tally.on_due(due);
            match due {
                Due::Connect => self.to_connect.push_back(index),
                Due::Close(how) => self.close(index, how),
                Due::Nothing | Due::Say | Due::SkipBeat | Due::SkipMessage | Due::FallSilent => {}
            }
            self.tend(index, now);
        }
    }

    /// Brings a client's line up to date after anything happened to the client.
    fn tend(&mut self, index: u32, now: Moment) {
        let line = self.lines[index as usize];
        if line.state == LineState::Open && !line.is_sending {
            let client = &self.clients[index as usize];
            if client.has_something_to_say() {
                self.say(index, now);
            } else if client.wants_to_close() {
                self.close(index, CloseHow::Finish);
            }
        }
        self.set_alarm(index);
    }

    fn say(&mut self, index: u32, now: Moment) {
        let mut chunk = self.chunks.pop().unwrap_or_default();
        let client = &mut self.clients[index as usize];
        let awaited_before = client.awaited();
        let written = client.write(&self.plan, now, chunk.buffer());
        self.awaited += u64::from(client.awaited() - awaited_before);
        self.tally.on_written(written, now);
        let line = &mut self.lines[index as usize];
        line.is_sending = true;
        let conn = ConnId { slot: index, generation: line.generation };
        self.ops.push(Op::Send { conn, chunk });
    }

    fn close(&mut self, index: u32, how: CloseHow) {
        let line = &mut self.lines[index as usize];
        if line.state == LineState::Open {
            self.greeting -= u32::from(std::mem::take(&mut line.is_greeting));
            line.state = LineState::Closing;
            let conn = ConnId { slot: index, generation: line.generation };
            self.ops.push(Op::Close { conn, how });
        }
        self.timers.set(index, None);
    }

    fn set_alarm(&mut self, index: u32) {
        self.timers.set(index, self.clients[index as usize].next_due());
    }

    fn connect_some(&mut self, now: Moment) {
        while self.may_connect() {
            let index = if let Some(index) = self.to_connect.pop_front() {
                index
            } else if self.newcomer < self.plan.clients() && self.newcomer_at <= now {
                self.newcomer += 1;
                self.newcomer_at += self.plan.connect_gap();
                self.newcomer - 1
            } else {
                return;
            };
            self.connect(index);
        }
    }

    fn connect(&mut self, index: u32) {
        let line = &mut self.lines[index as usize];
        assert_eq!(line.state, LineState::Closed, "client {index} connects once at a time");
        line.state = LineState::Connecting;
        self.connecting += 1;
        self.clients[index as usize].on_connecting();
        let connect = Connect {
            ticket: index,
            source: self.plan.source(index),
            target: self.plan.options().target,
        };
        self.ops.push(Op::Connect(Box::new(connect)));
    }

    /// Whether one more connect may be under way.
    fn may_connect(&self) -> bool {
        let entering_max = self.plan.options().entering_max.unwrap_or(u32::MAX);
        self.connecting < limits::LOAD_CONNECTS_MAX
            && self.connecting + self.greeting < entering_max
    }

    /// When the next connect is due; the end of the run when none is, or no more may be under way.
    fn next_connect(&self) -> Moment {
        if !self.may_connect() {
            self.end
        } else if !self.to_connect.is_empty() {
            Moment::ZERO
        } else if self.newcomer < self.plan.clients() {
            self.newcomer_at
        } else {
            self.end
        }
    }

    fn keep(&mut self, mut chunk: Chunk) {
        chunk.clear();
        let is_small = chunk.capacity() <= limits::CHUNK_BYTES_KEPT_MAX;
        if is_small && self.chunks.len() < limits::CHUNKS_KEPT_MAX {
            self.chunks.push(chunk);
        }
    }
}

/// How the run ends.
impl Fleet {
    fn give_up(&mut self, trouble: FleetError, now: Moment) {
        self.trouble.get_or_insert(trouble);
        self.stop(now);
    }

    /// Nobody is here, nobody is coming, and nobody will.
    fn is_idle(&self) -> bool {
        self.when_idle == WhenIdle::End
            && self.open == 0
            && self.connecting == 0
            && self.newcomer == self.plan.clients()
            && self.to_connect.is_empty()
            && self.timers.next_due().is_none()
    }

    fn is_still_to_come(&self, index: u32) -> bool {
        index >= self.newcomer || self.to_connect.contains(&index)
    }

    /// The beats are over, for alarms ring no more: the books are closed on who is still there.
    fn settle_down(&mut self, now: Moment) {
        // Where every answer calls for the next beat, none does from here on.
        self.end = self.end.min(now);
        self.phase = Phase::Settling { until: now + limits::LOAD_SETTLE_MAX };
        self.tally.ran_for = now.since(self.tally.began);
        self.tally.close_window(now);
        for client in &self.clients {
            match client.presence() {
                Presence::Live => self.tally.present_at_end += 1,
                Presence::Silent { deadline } if deadline + limits::LOAD_VERDICT_MARGIN <= now => {
                    self.tally.undetected += 1;
                }
                Presence::Silent { .. } => self.tally.undecided += 1,
                Presence::Away | Presence::Coming | Presence::Leaving => {}
            }
        }
    }

    /// Whether every answer is in that is waited for.
    fn has_settled(&self) -> bool {
        self.awaited == 0 && !self.tally.awaits_acks()
    }

    fn send_home(&mut self, now: Moment) {
        self.tally.unanswered = self.awaited;
        self.phase = Phase::Leaving { until: now + limits::LOAD_LEAVE_MAX, next: 0 };
        self.end_if_empty();
    }

    fn dismiss_some(&mut self, until: Moment, next: u32, now: Moment) {
        let budget = limits::DRAIN_BATCH_MAX;
        let upto = next.saturating_add(budget).min(self.plan.clients());
        self.phase = Phase::Leaving { until, next: upto };
        for index in next..upto {
            if let Due::Close(how) = self.clients[index as usize].dismiss() {
                self.close(index, how);
            }
            self.tend(index, now);
        }
        self.end_if_empty();
    }

    fn end_if_empty(&mut self) {
        if let Phase::Leaving { .. } = self.phase
            && self.open == 0
            && self.connecting == 0
        {
            self.phase = Phase::Over;
        }
    }
}

#[cfg(test)]
mod tests;
