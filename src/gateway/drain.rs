//! Asking clients to leave: all of them in a drain, some of them in a rebalance.
//!
//! ```text
//! drain:      notice ──► told one after the other, at a pace ──► deadline: who is left is closed
//! rebalance:             some are told, at a pace                nobody else notices
//! ```
//!
//! Whoever is told hears when to come back, and each hears a time of its own: a crowd that leaves
//! together must not come back together.

use crate::base::event::{CloseReason, Event};
use crate::base::ids::ConnId;
use crate::base::io::Op;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::Gateway;
use crate::gateway::command::{Drain, Leaving, Pace, Rebalance, Reply};
use crate::gateway::connection::State;
use crate::tracker::Progress;

/// A million parts are all.
const ALL_PARTS: u64 = 1_000_000;

/// The gateway is being emptied.
pub(crate) struct Emptying {
    /// Until then newcomers are let in, and nobody is told.
    begins: Moment,
    /// Who is still here then is closed.
    pub(crate) until: Moment,
    wishes: Wishes,
    /// `None`: the notice is not over.
    telling: Option<Telling>,
    /// Slots below this one were swept: nobody is held there, and who was leaving leaves in time.
    swept_below: u32,
    /// Whether the end of the ledger was written.
    pub(crate) stopped: bool,
}

/// All that was wished for so far: the fastest of it holds.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    at_once: bool,
    spread: bool,
    per_second: u32,
}

/// Some of the clients are asked to go elsewhere.
pub(crate) struct Shedding {
    telling: Telling,
    /// When it ends, even if not all were told.
    until: Option<Moment>,
    window: (Span, Span),
    /// Sessions from this one on were not here when it began.
    epoch_end: u64,
    /// Those who were here and were not looked at yet, if none of them left.
    unseen: u64,
    /// How many of them are to be told.
    wanted: u64,
}

/// Slot after slot is told, at a pace.
struct Telling {
    /// Slots below this one were looked at.
    below: u32,
    pacer: Pacer,
    herd: Herd,
    /// When somebody was told the last time.
    told_at: Option<Moment>,
}

/// When the next one's turn is.
#[derive(Clone, Copy, Debug)]
struct Pacer {
    /// The first one's turn.
    from: Moment,
    /// From one to the next; zero: all at once.
    every: Span,
    /// How many had their turn since then.
    count: u64,
}

/// Those who are told, as a crowd that comes back.
#[derive(Clone, Copy, Debug)]
struct Herd {
    /// When the first one was told.
    from: Moment,
    /// How many there are, about.
    size: u64,
    /// For how long they come back beyond the window.
    stretch: Span,
    /// How many were told.
    told: u64,
}

impl Wishes {
    fn of(pace: Pace) -> Self {
        let mut wishes = Self::default();
        wishes.add(pace);
        wishes
    }

    fn add(&mut self, pace: Pace) {
        match pace {
            Pace::AtOnce => self.at_once = true,
            Pace::Spread => self.spread = true,
            Pace::PerSecond(count) => self.per_second = self.per_second.max(count),
        }
    }

    /// The time from one of `count` to the next, where the last one's turn is after `room`, and
    /// `shards` share the rate.
    fn every(self, count: u64, room: Span, shards: u16) -> Span {
        if self.at_once {
            return Span::ZERO;
        }
        let spread = self.spread.then(|| room.divided_by(count.max(1)));
        let rate = u64::from(self.per_second);
        let rated = (rate > 0).then(|| Span::from_secs(u64::from(shards)).divided_by(rate));
        spread.into_iter().chain(rated).min().unwrap_or(Span::ZERO)
    }
}

impl Pacer {
    /// How many more have had their turn by `now`.
    fn due(&self, now: Moment) -> u64 {
        if now < self.from {
            return 0;
        }
        match self.every.as_nanos() {
            0 => u64::MAX,
            every => (now.since(self.from).as_nanos() / every + 1).saturating_sub(self.count),
        }
    }

    /// When the next one's turn is.
    fn next(&self) -> Moment {
        self.from + self.every.times(self.count)
    }
}

impl Herd {
    /// A crowd of `size` that comes back within `window` of being told, or takes as long as so many
    /// should.
    fn new(from: Moment, size: u64, window: (Span, Span), shards: u16) -> Self {
        let rate = u64::from(limits::COME_BACKS_PER_S) / u64::from(shards.max(1));
        let whole = Span::from_secs(1).times(size).divided_by(rate.max(1));
        let stretch = whole.min(limits::DEADLINE_MAX).minus(window.1.minus(window.0));
        Self { from, size: size.max(1), stretch, told: 0 }
    }

    /// The window of whoever is told next, and that is now: its place in the row, less the time for
    /// which it waited for its turn.
    fn next_window(&mut self, window: (Span, Span), now: Moment) -> (Span, Span) {
        let place = self.told.min(self.size);
        self.told += 1;
        let part = u128::from(self.stretch.as_nanos()) * u128::from(place) / u128::from(self.size);
        let later = Span::from_nanos(u64::try_from(part).unwrap_or(u64::MAX));
        let later = later.minus(now.since(self.from));
        (window.0 + later, window.1 + later)
    }
}

impl Telling {
    fn new(pacer: Pacer, herd: Herd) -> Self {
        Self { below: 0, pacer, herd, told_at: None }
    }

    fn note_told(&mut self, now: Moment) {
        self.pacer.count += 1;
        self.told_at = Some(now);
    }

    /// When to look again; no more often than verdicts are made.
    fn wake(&self, tick: Span) -> Moment {
        let next = self.pacer.next();
        self.told_at.map_or(next, |told_at| next.max(told_at + tick))
    }
}

impl Emptying {
    /// Whether the notice is over: nobody is let in any more.
    fn has_begun(&self) -> bool {
        self.telling.is_some()
    }

    fn wake(&self, slots_end: u32, tick: Span) -> Option<Moment> {
        let Some(telling) = &self.telling else { return Some(self.begins) };
        let is_waiting = telling.below < slots_end && !self.stopped;
        is_waiting.then(|| telling.wake(tick).min(self.until))
    }
}

impl Gateway {
    /// Whether everybody is being asked to leave; not in the notice before that.
    pub(crate) fn is_emptying(&self) -> bool {
        self.draining.as_ref().is_some_and(Emptying::has_begun)
    }

    /// When there is somebody to be told, if anybody is.
    pub(crate) fn leave_wake(&self) -> Option<Moment> {
        let (slots_end, tick) = (self.tracker.slots_end(), self.config.tick);
        let drain = self.draining.as_ref().and_then(|drain| drain.wake(slots_end, tick));
        let shedding = self.shedding.as_ref().map(|shedding| shedding.telling.wake(tick));
        drain.into_iter().chain(shedding).min()
    }

    // --- a drain ---------------------------------------------------------------------------------

    pub(crate) fn begin_drain(&mut self, drain: Drain, now: Moment) {
        let rated = match drain.pace {
            Pace::PerSecond(_) => self.every(Wishes::of(drain.pace), Span::ZERO),
            Pace::AtOnce | Pace::Spread => Span::ZERO,
        };
        let patience = drain.notice + rated.times(self.unasked()) + self.config.drain_timeout;
        let within = drain.within.unwrap_or(patience).min(limits::DEADLINE_MAX);
        let until = now + within;
        let begins = now + drain.notice.min(within.divided_by(2));
        let emptying = self.draining.get_or_insert(Emptying {
            begins,
            until,
            wishes: Wishes::default(),
            telling: None,
            swept_below: 0,
            stopped: false,
        });
        emptying.until = emptying.until.min(until);
        emptying.begins = emptying.begins.min(begins);
        emptying.wishes.add(drain.pace);
        // Who is leaving already may have less time now.
        emptying.swept_below = 0;
        match emptying.has_begun() {
            true => self.hurry(now),
            false => self.end_notice(now),
        }
        self.unfinished = Progress::More;
    }

    /// When the notice is over, nobody is let in any more.
    fn end_notice(&mut self, now: Moment) {
        let is_due = |drain: &Emptying| !drain.has_begun() && drain.begins <= now;
        if !self.draining.as_ref().is_some_and(is_due) {
            return;
        }
        self.ops.push(Op::StopAccepting);
        self.shedding = None;
        let pacer = self.pacer_of_drain(now);
        let Some(emptying) = &mut self.draining else { return };
        let (size, shard) = (self.tracker.len() - self.held.count(), self.config.shard);
        let herd = Herd::new(now, size as u64, self.config.reconnect_window, shard.count);
        emptying.telling = Some(Telling::new(pacer, herd));
    }

    /// The faster pace holds from here on.
    fn hurry(&mut self, now: Moment) {
        let pacer = self.pacer_of_drain(now);
        let telling = self.draining.as_mut().and_then(|drain| drain.telling.as_mut());
        if let Some(telling) = telling
            && pacer.every < telling.pacer.every
        {
            telling.pacer = pacer;
        }
    }

    /// The pace of those who are still to be told, from now on.
    fn pacer_of_drain(&self, now: Moment) -> Pacer {
        let (wishes, until) = match &self.draining {
            Some(drain) => (drain.wishes, drain.until),
            None => (Wishes::default(), now),
        };
        // The last one needs time to leave, too.
        let room = until.since(now);
        let room = room.minus(self.config.linger_timeout.min(room.divided_by(4)));
        self.pacer(self.every(wishes, room), now)
    }

    /// The time from one of those who are here to the next.
    fn every(&self, wishes: Wishes, room: Span) -> Span {
        wishes.every(self.unasked(), room, self.config.shard.count)
    }

    /// Shards tell in turn.
    fn pacer(&self, every: Span, now: Moment) -> Pacer {
        let shard = self.config.shard;
        let later = every.times(shard.index.into()).divided_by(shard.count.max(1).into());
        Pacer { from: now + later, every, count: 0 }
    }

    /// How many are here and were not asked to leave, about: a few strangers are among them.
    fn unasked(&self) -> u64 {
        let Leaving { told, left, closed, .. } = self.stats.leaving;
        let here = self.tracker.len() - self.held.count();
        (here as u64).saturating_sub(told - left - closed)
    }

    /// Whether the last one has left a drain and only the ledger's end is still to be written.
    pub(crate) fn is_about_to_stop(&self) -> bool {
        let is_ending = self.draining.as_ref().is_some_and(|drain| !drain.stopped);
        let is_draining = is_ending && self.is_emptying();
        is_draining && self.tracker.is_empty() && self.accepting.outstanding == 0
    }

    /// Tells those whose turn it is to leave; when nobody is left, ends the ledger.
    pub(crate) fn drain_further(&mut self, now: Moment) {
        self.end_notice(now);
        let goes_on = |drain: &Emptying| drain.has_begun() && !drain.stopped;
        if !self.draining.as_ref().is_some_and(goes_on) {
            return;
        }
        self.sweep(now);
        self.tell_further(now);
        if self.is_about_to_stop()
            && let Some(drain) = &mut self.draining
        {
            drain.stopped = true;
            self.tell(Event::Stopped, now);
        }
    }

    /// Nobody is held for ever, and who was leaving already leaves in time. That has no pace.
    fn sweep(&mut self, now: Moment) {
        let Some(drain) = &mut self.draining else { return };
        let (from, upto) = batch(drain.swept_below, self.tracker.slots_end());
        drain.swept_below = upto;
        for slot in from..upto {
            let Some((conn, connection)) = self.tracker.slot(slot) else { continue };
            match connection.state {
                State::Held(_) => self.end_held(conn, None, now),
                State::Leaving { .. } => self.shorten_leave(conn),
                State::Greeting { .. } | State::Live(_) | State::Closing => {}
            }
        }
        if upto < self.tracker.slots_end() {
            self.unfinished = Progress::More;
        }
    }

    /// Tells those whose turn it is; at the deadline it is everybody's.
    fn tell_further(&mut self, now: Moment) {
        let Some(drain) = &self.draining else { return };
        let Some(telling) = &drain.telling else { return };
        let due = if now < drain.until { telling.pacer.due(now) } else { u64::MAX };
        let (from, upto) = batch(telling.below, self.tracker.slots_end());
        let mut told = 0;
        for slot in from..upto {
            if told == due {
                return;
            }
            if let Some(telling) = self.draining.as_mut().and_then(|drain| drain.telling.as_mut()) {
                telling.below = slot + 1;
            }
            if let Some(conn) = self.unasked_in(slot) {
                self.ask_to_leave(conn, now);
                told += 1;
            }
        }
        if upto < self.tracker.slots_end() && told < due {
            self.unfinished = Progress::More;
        }
    }

    /// Who is in this slot, if somebody is who was not asked to leave.
    fn unasked_in(&self, slot: u32) -> Option<ConnId> {
        let (conn, connection) = self.tracker.slot(slot)?;
        matches!(connection.state, State::Greeting { .. } | State::Live(_)).then_some(conn)
    }

    fn ask_to_leave(&mut self, conn: ConnId, now: Moment) {
        let window = self.config.reconnect_window;
        let telling = self.draining.as_mut().and_then(|drain| drain.telling.as_mut());
        let window = telling.map_or(window, |telling| {
            telling.note_told(now);
            telling.herd.next_window(window, now)
        });
        self.end_within(conn, CloseReason::Drain, window, now);
    }

    /// Somebody who was leaving before the drain leaves with it at the latest.
    fn shorten_leave(&mut self, conn: ConnId) {
        let Some(drain) = &self.draining else { return };
        let drain_until = drain.until;
        let Some(connection) = self.tracker.get_mut(conn) else { return };
        if let State::Leaving { until, .. } = &mut connection.state {
            *until = drain_until.min(*until);
            let until = *until;
            self.tracker.touch(conn, until);
        }
    }

    // --- a rebalance -----------------------------------------------------------------------------

    /// Begins to ask a part of the clients to go elsewhere. What is left of a former one is
    /// forgotten.
    pub(crate) fn begin_rebalance(&mut self, rebalance: &Rebalance, now: Moment) -> Reply {
        if self.draining.is_some() {
            return Reply::Draining;
        }
        let here = (self.tracker.named() - self.held.count()) as u64;
        let parts = here * u64::from(rebalance.parts_per_million).min(ALL_PARTS);
        // The fraction of one is a chance, so that small shards give their share.
        let chance = u64::from(self.jitter.u64(..ALL_PARTS) < parts % ALL_PARTS);
        let wanted = parts / ALL_PARTS + chance;
        let within = rebalance.within.unwrap_or(self.config.drain_timeout);
        let shards = self.config.shard.count;
        let every = Wishes::of(rebalance.pace).every(wanted, within, shards);
        let window = rebalance.window.unwrap_or(self.config.reconnect_window);
        let herd = Herd::new(now, wanted, window, shards);
        self.shedding = (wanted > 0).then(|| {
            Box::new(Shedding {
                telling: Telling::new(self.pacer(every, now), herd),
                until: rebalance.within.map(|within| now + within),
                window,
                epoch_end: self.epoch_next,
                unseen: here,
                wanted,
            })
        });
        self.unfinished = Progress::More;
        Reply::Done
    }

    /// Tells those whose turn it is to go elsewhere.
    ///
    /// Of those who were here when it began each has the same chance: one that is looked at is
    /// taken with the number of those still wanted out of the number of those not looked at yet.
    pub(crate) fn shed_further(&mut self, now: Moment) {
        let Some(mut shedding) = self.shedding.take() else { return };
        let mut due = shedding.telling.pacer.due(now);
        let (from, upto) = batch(shedding.telling.below, self.tracker.slots_end());
        let is_late = shedding.until.is_some_and(|until| now > until);
        for slot in from..upto {
            if due == 0 || shedding.wanted == 0 || is_late {
                break;
            }
            shedding.telling.below = slot + 1;
            let Some(conn) = self.present_in(slot, shedding.epoch_end) else { continue };
            if shedding.unseen == 0 {
                shedding.wanted = 0;
                break;
            }
            let is_taken = self.jitter.u64(..shedding.unseen) < shedding.wanted;
            shedding.unseen -= 1;
            if is_taken {
                shedding.wanted -= 1;
                due -= 1;
                shedding.telling.note_told(now);
                let window = shedding.telling.herd.next_window(shedding.window, now);
                self.end_within(conn, CloseReason::Rebalance, window, now);
            }
        }
        let is_through = shedding.telling.below >= self.tracker.slots_end();
        if shedding.wanted == 0 || is_late || is_through {
            return;
        }
        if due > 0 {
            self.unfinished = Progress::More;
        }
        self.shedding = Some(shedding);
    }

    /// Who is online in this slot, by a session that is older than `epoch_end`.
    fn present_in(&self, slot: u32, epoch_end: u64) -> Option<ConnId> {
        let (conn, connection) = self.tracker.slot(slot)?;
        match &connection.state {
            State::Live(session) if session.epoch < epoch_end => Some(conn),
            State::Live(_)
            | State::Greeting { .. }
            | State::Held(_)
            | State::Leaving { .. }
            | State::Closing => None,
        }
    }
}

/// The slots to look at in this turn.
fn batch(below: u32, slots_end: u32) -> (u32, u32) {
    (below, below.saturating_add(limits::DRAIN_BATCH_MAX).min(slots_end))
}
