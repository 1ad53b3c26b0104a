//! The side thread's ear at the loop's door.

use crate::base::event::{CloseReason, Record};
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::journal::Page;
use crate::control::side::{Source, Supply};
use crate::control::summary;
use crate::control::transport::TransportFeed;
use crate::gateway::{Reply, Stats};
use crate::os::clock::Clock;
use crate::server::mailbox::{Heard, News, Reader};

/// Hears from the loop: records are passed on, and how things are goes to the log.
pub struct FromLoop {
    reader: Reader,
    clock: Clock,
    wall: WallAnchor,
    news: Vec<News>,
    stats: Stats,
    pages: Vec<Page>,
    /// `None`: nobody wants transport events.
    transport: Option<TransportFeed>,
}

impl FromLoop {
    /// Hears what `reader` hears.
    pub fn new(reader: Reader, clock: Clock) -> Self {
        Self {
            reader,
            clock,
            wall: clock.wall(),
            news: Vec::new(),
            stats: Stats::default(),
            pages: Vec::new(),
            transport: None,
        }
    }

    /// Hands transport events to `feed`.
    #[must_use]
    pub fn with_transport(mut self, feed: Option<TransportFeed>) -> Self {
        self.transport = feed;
        self
    }
}

impl Source for FromLoop {
    fn take_records(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply {
        // Other news takes no room: whoever gets no record may believe that there was none.
        let taken_before = into.len();
        loop {
            let heard = self.reader.take(limit, &mut self.news);
            let was_silent = self.news.is_empty();
            for news in self.news.drain(..) {
                match news {
                    News::Event(record) => into.push(record),
                    News::Wall(wall) => self.wall = wall,
                    News::Stats(stats) => {
                        log_endings(&self.stats, &stats);
                        self.stats = *stats;
                    }
                    News::Transport(record) => {
                        if let Some(transport) = &self.transport {
                            transport.write(record, self.wall);
                        }
                    }
                    News::Reply { ticket, reply } => match reply {
                        // Pages are for the journal.
                        Reply::Clients { seq, clients, next_slot } => {
                            self.pages.push(Page { ticket, seq, clients, next_slot });
                        }
                        // An operator wants to know how verdicts go.
                        Reply::Stats(stats) => summary::log(&stats),
                        // Whoever asked has given up.
                        Reply::Done | Reply::NoSuchClient => {}
                    },
                }
            }
            if was_silent || into.len() > taken_before {
                return match heard {
                    Heard::Open => Supply::Open,
                    Heard::Ended => Supply::Ended,
                };
            }
        }
    }

    fn take_pages(&mut self, into: &mut Vec<Page>) {
        into.append(&mut self.pages);
    }

    fn wait(&mut self, at_most: Span) {
        self.reader.wait(at_most);
    }

    fn pause(&mut self, span: Span) {
        let until = self.clock.now() + span;
        while self.clock.now() < until && !self.reader.has_ended() {
            self.reader.pause(until.since(self.clock.now()));
        }
    }

    fn now(&mut self) -> Moment {
        self.clock.now()
    }

    fn wall(&mut self) -> WallAnchor {
        self.wall
    }
}

/// One line for each reason that ended connections since the last report, which is about a second
/// ago: however many there were, and whatever they sent.
fn log_endings(before: &Stats, after: &Stats) {
    for reason in CloseReason::ALL {
        let count = after.ended(reason) - before.ended(reason);
        let peer_last = after.endings[reason.index()].peer_last;
        let Some(peer_last) = peer_last.filter(|_| count > 0) else { continue };
        let code = reason.code();
        if is_worth_a_warning(reason) {
            tracing::warn!(count, %reason, code, %peer_last, "connections ended");
        } else {
            tracing::debug!(count, %reason, code, %peer_last, "connections ended");
        }
    }
    let faults = after.accept_faults - before.accept_faults;
    if faults > 0 {
        tracing::warn!(
            faults,
            "connections cannot be accepted: no file descriptor or no memory is left; raise the \
             file limit or lower --max-connections"
        );
    }
}

/// Whether an operator wants to know: comings and goings are in the events, these are not.
fn is_worth_a_warning(reason: CloseReason) -> bool {
    match reason {
        CloseReason::Bye
        | CloseReason::Drain
        | CloseReason::Replaced
        | CloseReason::ClosedByPeer
        | CloseReason::Reset
        | CloseReason::HeartbeatTimeout
        | CloseReason::TcpTimeout
        | CloseReason::NetworkFault
        | CloseReason::Kicked => false,
        CloseReason::BadToken
        | CloseReason::Busy
        | CloseReason::SlowConsumer
        | CloseReason::Flood
        | CloseReason::AlreadyConnected
        | CloseReason::Contested
        | CloseReason::BadPreface
        | CloseReason::FrameTooLong
        | CloseReason::UnexpectedFrame
        | CloseReason::Malformed
        | CloseReason::HandshakeTimeout
        | CloseReason::FrameTimeout
        | CloseReason::UnsupportedVersion
        | CloseReason::BadClientId
        | CloseReason::UnknownCriticalFrame
        | CloseReason::ServerError => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;
    use crate::os::wake::Waker;
    use crate::server::mailbox::{self, Ticket};

    #[test]
    fn other_news_is_not_taken_for_the_end_of_the_records() {
        let (mut inside, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        for _ in 0..10 {
            inside.tell(News::Wall(WallAnchor { unix_millis_at_zero: 7 }));
            inside.tell(News::Stats(Box::default()));
        }
        inside.tell(News::Event(Record {
            seq: 1,
            at: Moment::ZERO,
            event: Event::Started { former: None },
        }));
        drop(inside);
        let mut source = FromLoop::new(reader, Clock::new());
        let mut records = Vec::new();
        assert_eq!(source.take_records(2, &mut records), Supply::Ended);
        assert_eq!(records.len(), 1);
        assert_eq!(source.wall().unix_millis_at_zero, 7);
    }

    #[test]
    fn pages_are_passed_on_with_the_question_they_answer() {
        let (mut inside, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        for number in 1..=2 {
            let reply = Reply::Clients { seq: number, clients: Vec::new(), next_slot: None };
            inside.tell(News::Reply { ticket: Ticket(number), reply });
            inside.tell(News::Reply { ticket: Ticket(9), reply: Reply::Done });
        }
        let mut source = FromLoop::new(reader, Clock::new());
        source.take_records(10, &mut Vec::new());
        let mut pages = Vec::new();
        source.take_pages(&mut pages);
        let seen: Vec<_> = pages.iter().map(|page| (page.ticket, page.seq)).collect();
        assert_eq!(seen, [(Ticket(1), 1), (Ticket(2), 2)]);
        source.take_pages(&mut pages);
        assert_eq!(pages.len(), 2, "each once");
    }
}
