//! What is counted while the fleet runs.

use std::collections::BTreeMap;

use crate::base::config::{Mode, Rhythm};
use crate::base::io::IoFault;
use crate::base::time::{Moment, Span};
use crate::load::client::{Due, Ending, Heard, Sign, Written};
use crate::load::histogram::Latencies;

/// What is counted between two moments of a run, once more and apart from the whole.
#[derive(Clone, Debug)]
pub struct Window {
    /// PINGs handed to the kernel.
    pub beats_sent: u64,
    /// PONGs that answer them.
    pub pongs_received: u64,
    /// From when a beat should have been sent to its PONG.
    pub rtt: Latencies,
    /// How much later than intended a beat was handed to the kernel.
    pub lateness: Latencies,
    /// From its first moment to its last; zero while it is open.
    pub lasted: Span,
    opened: Moment,
    is_open: bool,
}

impl Window {
    fn open(now: Moment) -> Self {
        Self {
            beats_sent: 0,
            pongs_received: 0,
            rtt: Latencies::new(),
            lateness: Latencies::new(),
            lasted: Span::ZERO,
            opened: now,
            is_open: true,
        }
    }
}

/// Counters and histograms of one run. All times are the load bench's own.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Clients that were welcomed, each once; slow readers, who do not hear it, count with HELLO.
    pub connected: u64,
    /// Welcomes in all: more than `connected` where clients come and go.
    pub sessions: u64,
    /// From the first connect to the moment when the last of `connected` was in.
    pub connecting_took: Span,
    /// From HELLO to WELCOME.
    pub welcome: Latencies,
    /// What the server granted last.
    pub granted: Option<(Rhythm, Mode)>,
    /// PINGs handed to the kernel.
    pub beats_sent: u64,
    /// PONGs that answer them.
    pub pongs_received: u64,
    /// PONGs sent, for the server's own PINGs.
    pub answers_sent: u64,
    /// Beats left out because the one before could not be sent for a whole interval.
    pub beats_skipped: u64,
    /// Messages handed to the kernel.
    pub messages_sent: u64,
    /// Messages that came for clients.
    pub messages_received: u64,
    /// Messages left out because too many before were not acknowledged.
    pub messages_skipped: u64,
    /// From when a message should have been sent to its ACK.
    pub acks: Latencies,
    /// When the run began.
    pub began: Moment,
    /// When the first beat was sent.
    pub first_beat_at: Option<Moment>,
    /// From when a beat should have been sent to its PONG.
    pub rtt: Latencies,
    /// How much later than intended a beat was handed to the kernel: the bench's own lateness.
    pub lateness: Latencies,
    /// Clients that fell silent.
    pub fell_silent: u64,
    /// Silent clients that the server ended: from last beat + timeout to the first sign of it.
    pub detection: Latencies,
    /// Silent clients that the server ended before last beat + timeout.
    pub detected_early: u64,
    /// Silent clients that the server should have ended before the end of the run, and did not.
    pub undetected: u64,
    /// Silent clients whose verdict was not yet due, or hardly, at the end of the run.
    pub undecided: u64,
    /// Living clients that the server ended although they had beaten in time.
    pub false_offline: u64,
    /// Living clients that the server ended because this bench did not beat in time for them.
    pub overslept: u64,
    /// Living clients that the server ended for a reason that has nothing to do with beats.
    pub sent_away: u64,
    /// Clients that the server ended before it welcomed them.
    pub refused: u64,
    /// Slow readers that the server ended.
    pub slow_readers_ended: u64,
    /// Connections that clients ended with a RST or a FIN of their own.
    pub left_without_a_word: u64,
    /// PINGs without an answer at the end, of clients that were still in.
    pub unanswered: u64,
    /// Clients that were in at the end.
    pub present_at_end: u64,
    /// From the first connect to the end of the beats.
    pub ran_for: Span,
    /// What was counted in a part of the run, where one was asked for.
    pub window: Option<Window>,
    /// How often what went wrong.
    errors: BTreeMap<(&'static str, &'static str), u64>,
}

impl Tally {
    /// Nothing counted yet; the run begins now.
    pub fn new(began: Moment) -> Self {
        Self { began, ..Self::default() }
    }

    /// Counts apart from now on, too.
    pub fn open_window(&mut self, now: Moment) {
        self.window = Some(Window::open(now));
    }

    /// Counts no longer apart.
    pub fn close_window(&mut self, now: Moment) {
        if let Some(window) = self.window.as_mut().filter(|window| window.is_open) {
            window.is_open = false;
            window.lasted = now.since(window.opened);
        }
    }

    fn window_open(&mut self) -> Option<&mut Window> {
        self.window.as_mut().filter(|window| window.is_open)
    }

    /// Something fell due with a client.
    pub fn on_due(&mut self, due: Due) {
        match due {
            Due::SkipBeat => self.beats_skipped += 1,
            Due::SkipMessage => self.messages_skipped += 1,
            Due::FallSilent => self.fell_silent += 1,
            Due::Close(_) => self.left_without_a_word += 1,
            Due::Nothing | Due::Connect | Due::Say => {}
        }
    }

    /// A client wrote something.
    pub fn on_written(&mut self, written: Written, now: Moment) {
        self.answers_sent += u64::from(written.pongs);
        self.messages_sent += u64::from(written.message);
        if let Some(intended) = written.ping {
            self.beats_sent += 1;
            self.first_beat_at.get_or_insert(now);
            self.lateness.record(now.since(intended));
            if let Some(window) = self.window_open() {
                window.beats_sent += 1;
                window.lateness.record(now.since(intended));
            }
        }
    }

    /// A client heard something.
    pub fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Welcomed { granted, mode, took } => {
                self.sessions += 1;
                self.granted = Some((granted, mode));
                self.welcome.record(took);
            }
            Heard::Pong { rtt } => {
                self.pongs_received += 1;
                self.rtt.record(rtt);
                if let Some(window) = self.window_open() {
                    window.pongs_received += 1;
                    window.rtt.record(rtt);
                }
            }
            Heard::Acked { took } => self.acks.record(took),
            Heard::Message => self.messages_received += 1,
            Heard::Say => {}
            Heard::Ended(sign, ending) => self.on_ended(sign, ending),
        }
    }

    /// A client was ended by the server.
    pub fn on_ended(&mut self, sign: Sign, ending: Ending) {
        match ending {
            Ending::Detected { late } => return self.detection.record(late),
            Ending::DetectedEarly { .. } => self.detected_early += 1,
            Ending::FalseOffline => self.false_offline += 1,
            Ending::Overslept => self.overslept += 1,
            Ending::SentAway => self.sent_away += 1,
            Ending::Refused => self.refused += 1,
            Ending::SlowReader => return self.slow_readers_ended += 1,
            Ending::NoMatter => return,
        }
        self.count_error("ended", sign_word(sign));
    }

    /// A connection could not be opened.
    pub fn on_connect_failed(&mut self, fault: IoFault) {
        self.count_error("connect", fault_word(fault));
    }

    /// From the first beat to the end of the run.
    pub fn beat_for(&self) -> Span {
        let end = self.began + self.ran_for;
        self.first_beat_at.map_or(Span::ZERO, |first| end.since(first))
    }

    /// Whether messages are not acknowledged yet, as far as they are at all.
    pub fn awaits_acks(&self) -> bool {
        self.acks.count() < self.messages_sent
    }

    /// How often what went wrong, by name.
    pub fn errors(&self) -> impl Iterator<Item = (String, u64)> {
        self.errors.iter().map(|((when, what), count)| (format!("{when}_{what}"), *count))
    }

    fn count_error(&mut self, when: &'static str, what: &'static str) {
        *self.errors.entry((when, what)).or_default() += 1;
    }
}

fn sign_word(sign: Sign) -> &'static str {
    match sign {
        Sign::Told(reason) => reason.word(),
        Sign::ToldUnknown => "unknown_code",
        Sign::Garbled(_) => "garbled",
        Sign::Eof => "closed",
        Sign::Fault(fault) => fault_word(fault),
    }
}

fn fault_word(fault: IoFault) -> &'static str {
    match fault {
        IoFault::Reset => "reset",
        IoFault::TimedOut => "timed_out",
        IoFault::Refused => "refused",
        IoFault::Unreachable => "unreachable",
        IoFault::AddressUnavailable => "address_unavailable",
        IoFault::Cancelled => "cancelled",
        IoFault::NoDescriptors => "no_descriptors",
        IoFault::NoMemory => "no_memory",
        IoFault::Other(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::CloseReason;
    use crate::base::io::CloseHow;

    #[test]
    fn every_ending_has_a_counter_and_the_bad_ones_a_name() {
        let span = Span::from_millis(1);
        type Counter = fn(&Tally) -> u64;
        let rows: [(Ending, Counter, Option<&str>); 8] = [
            (Ending::Detected { late: span }, |tally| tally.detection.count(), None),
            (Ending::DetectedEarly { early: span }, |tally| tally.detected_early, Some("closed")),
            (Ending::FalseOffline, |tally| tally.false_offline, Some("closed")),
            (Ending::Overslept, |tally| tally.overslept, Some("closed")),
            (Ending::SentAway, |tally| tally.sent_away, Some("closed")),
            (Ending::Refused, |tally| tally.refused, Some("closed")),
            (Ending::SlowReader, |tally| tally.slow_readers_ended, None),
            (Ending::NoMatter, |_| 1, None),
        ];
        for (ending, counter, error) in rows {
            let mut tally = Tally::default();
            tally.on_heard(Heard::Ended(Sign::Eof, ending));
            assert_eq!(counter(&tally), 1, "{ending:?}");
            let errors: Vec<_> = tally.errors().collect();
            let expected: Vec<_> =
                error.into_iter().map(|word| (format!("ended_{word}"), 1)).collect();
            assert_eq!(errors, expected, "{ending:?}");
        }
    }

    #[test]
    fn signs_and_faults_have_the_words_of_everybody_else() {
        for (sign, word) in [
            (Sign::Told(CloseReason::Busy), "ended_busy"),
            (Sign::ToldUnknown, "ended_unknown_code"),
            (Sign::Garbled(CloseReason::Malformed), "ended_garbled"),
            (Sign::Fault(IoFault::Reset), "ended_reset"),
        ] {
            let mut tally = Tally::default();
            tally.on_ended(sign, Ending::SentAway);
            assert_eq!(tally.errors().next(), Some((word.to_owned(), 1)));
        }
    }

    #[test]
    fn a_window_counts_what_falls_into_it_and_the_whole_counts_all() {
        let mut tally = Tally::default();
        let at = Moment::from_millis;
        let beat = |tally: &mut Tally, now| {
            tally.on_written(Written { ping: Some(now), pongs: 0, message: true }, now);
            tally.on_heard(Heard::Pong { rtt: Span::from_millis(3) });
        };
        beat(&mut tally, at(10));
        tally.open_window(at(20));
        beat(&mut tally, at(30));
        beat(&mut tally, at(40));
        tally.close_window(at(50));
        beat(&mut tally, at(60));
        tally.close_window(at(70));
        let window = tally.window.expect("it was opened");
        assert_eq!((window.beats_sent, window.pongs_received), (2, 2));
        assert_eq!((window.rtt.count(), window.lateness.count()), (2, 2));
        assert_eq!(window.lasted, Span::from_millis(30));
        assert_eq!((tally.beats_sent, tally.pongs_received), (4, 4));
    }

    #[test]
    fn what_falls_due_is_counted() {
        let mut tally = Tally::default();
        for due in [
            Due::SkipBeat,
            Due::SkipMessage,
            Due::FallSilent,
            Due::Close(CloseHow::Abort),
            Due::Nothing,
            Due::Connect,
            Due::Say,
        ] {
            tally.on_due(due);
        }
        assert_eq!(tally.messages_skipped, 1);
        let Tally { beats_skipped, fell_silent, left_without_a_word, .. } = tally;
        assert_eq!((beats_skipped, fell_silent, left_without_a_word), (1, 1, 1));
    }
}
