//! How much a client says: frames, bytes, PINGs that want an answer.
//!
//! Whoever keeps its distance costs a comparison: what it sent is less than it may have said since
//! its last frame. Only others are metered, each by a record of its own in pages that exist where
//! somebody was hasty. What was sent with due distance is not in the bytes and PINGs of the record:
//! over a long time a client can have up to twice its rate of these before it is noticed, and of
//! frames, which its session counts anyway, as much again in a row of receptions no longer than
//! one.

use crate::base::admission::{ClientLimits, Limit};
use crate::base::event::CloseReason;
use crate::base::ids::ConnId;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::Gateway;
use crate::gateway::bucket::Bucket;
use crate::gateway::connection::State;

/// What a hasty client has said.
#[derive(Clone, Copy, Default)]
struct Meter {
    /// Whose it is; another session of the slot begins anew.
    epoch: u64,
    frames: Bucket,
    bytes: Bucket,
    beats: Bucket,
    /// What it says is not counted until then: we held it up ourselves.
    forgiven_until: Moment,
    /// Frames of its session that were metered.
    frames_seen: u32,
}

type Page = [Meter; limits::METERS_OF_PAGE];

/// The meters of all hasty clients, by slot.
#[derive(Default)]
pub(crate) struct Meters {
    /// How long a client is to be silent for each byte, so that it need not be metered. Zero:
    /// nobody is.
    nanos_per_byte: u64,
    /// The client that is being heard is hasty.
    hears_hasty: bool,
    pages: Vec<Option<Box<Page>>>,
}

impl Meters {
    pub(crate) fn new(limits: &ClientLimits) -> Self {
        let mut meters = Self::default();
        meters.reconfigure(limits);
        meters
    }

    /// From now on these hold.
    pub(crate) fn reconfigure(&mut self, limits: &ClientLimits) {
        // No frame is shorter than its header.
        let header = limits::FRAME_HEADER_BYTES as u64;
        let frames = [limits.frames, limits.beats].into_iter().flatten();
        let frames = frames.map(|rate| rate.cost(1).as_nanos().div_ceil(header));
        let bytes = limits.bytes.map(|rate| rate.cost(1).as_nanos());
        self.nanos_per_byte = frames.chain(bytes).max().map_or(0, |nanos| nanos.max(1));
    }

    /// Whether anybody can be hasty.
    #[inline]
    pub(crate) fn are_on(&self) -> bool {
        self.nanos_per_byte > 0
    }

    /// Whether these are more bytes than may come so long after the last frame without being
    /// metered.
    #[inline]
    pub(crate) fn is_hasty(&self, bytes: &[u8], last_beat: Moment, now: Moment) -> bool {
        now.since(last_beat).as_nanos() < self.nanos_per_byte.saturating_mul(bytes.len() as u64)
    }

    fn of(&mut self, conn: ConnId, epoch: u64, frames: u32) -> &mut Meter {
        let slot = conn.slot as usize;
        let (page, place) = (slot / limits::METERS_OF_PAGE, slot % limits::METERS_OF_PAGE);
        if self.pages.len() <= page {
            self.pages.resize_with(page + 1, || None);
        }
        let nobody = || Box::new([Meter::default(); limits::METERS_OF_PAGE]);
        let meter = &mut self.pages[page].get_or_insert_with(nobody)[place];
        if meter.epoch != epoch {
            *meter = Meter { epoch, frames_seen: frames, ..Meter::default() };
        }
        meter
    }
}

impl Gateway {
    /// Somebody says much in a short time: it is heard, unless that is too much.
    #[cold]
    pub(crate) fn hear_hasty(&mut self, conn: ConnId, bytes: &[u8], now: Moment) {
        if let Some(limit) = self.exceeded(conn, bytes.len(), now) {
            self.stats.tally.limited[limit.index()] += 1;
            return self.end(conn, CloseReason::Flood, now);
        }
        let Some(connection) = self.tracker.get(conn) else { return };
        let hearing = connection.hearing;
        self.meters.hears_hasty = true;
        self.hear(conn, hearing, bytes, now);
        self.meters.hears_hasty = false;
    }

    /// Meters what a client said so far and these bytes. Returns what it exceeded.
    fn exceeded(&mut self, conn: ConnId, bytes: usize, now: Moment) -> Option<Limit> {
        let stalled = self.time.stalled_since(now - limits::METER_MEMORY);
        let limits = self.config.client_limits;
        let connection = self.tracker.get(conn)?;
        let State::Live(session) = &connection.state else { return None };
        let (heard, last_beat) = (session.pulse.beats(), session.last_beat);
        let meter = self.meters.of(conn, session.epoch, heard);
        let frames = heard.wrapping_sub(std::mem::replace(&mut meter.frames_seen, heard));
        if now < meter.forgiven_until {
            return None;
        }
        // What was sent while we stood still is here all at once.
        let is_over = |bucket: Bucket, tolerance: Span| bucket.debt(now) > tolerance + stalled;
        if let Some(rate) = limits.frames {
            meter.frames.charge_since(rate.cost(frames.into()), rate.cost(1), last_beat);
            if is_over(meter.frames, rate.tolerance()) {
                return Some(Limit::ClientFrames);
            }
        }
        if let Some(rate) = limits.bytes {
            meter.bytes.charge(rate.cost(bytes as u64), now);
            if is_over(meter.bytes, rate.tolerance()) {
                return Some(Limit::ClientBytes);
            }
        }
        None
    }

    /// A client that we did not read for a while is read again: what it sent meanwhile comes all at
    /// once.
    pub(crate) fn forgive(&mut self, conn: ConnId, now: Moment) {
        if !self.meters.are_on() {
            return;
        }
        let Some(connection) = self.tracker.get(conn) else { return };
        let State::Live(session) = &connection.state else { return };
        let meter = self.meters.of(conn, session.epoch, session.pulse.beats());
        meter.forgiven_until = now + limits::METER_FORGIVEN;
    }

    /// Whether a PING is answered. Asked for every one; only hasty ones can be too many.
    #[inline]
    pub(crate) fn is_beat_answered(&mut self, conn: ConnId, now: Moment) -> bool {
        !self.meters.hears_hasty || self.has_answers_left(conn, now)
    }

    #[cold]
    fn has_answers_left(&mut self, conn: ConnId, now: Moment) -> bool {
        let Some(rate) = self.config.client_limits.beats else { return true };
        let Some(connection) = self.tracker.get(conn) else { return true };
        let State::Live(session) = &connection.state else { return true };
        let meter = self.meters.of(conn, session.epoch, session.pulse.beats());
        let is_answered = meter.beats.take(rate, now);
        self.stats.tally.limited[Limit::ClientBeats.index()] += u64::from(!is_answered);
        is_answered
    }
}
