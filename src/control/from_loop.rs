//! The side thread's ear at the loop's door, or at several of them.

use std::collections::VecDeque;

use crate::base::event::{CloseReason, Record, TransportRecord};
use crate::base::time::{Moment, Span, WallAnchor};
use crate::control::door::{Report, Teller};
use crate::control::hub::{self, Feeder, Hub};
use crate::control::journal::Page;
use crate::control::merge::Merge;
use crate::control::side::{Source, Supply};
use crate::control::summary;
use crate::control::transport::TransportFeed;
use crate::control::watchdog::Watchdog;
use crate::gateway::{Reply, Stats};
use crate::os::clock::Clock;
use crate::os::driver::DriverStats;
use crate::server::mailbox::{self, Heard, News, Reader, Ticket};
use crate::server::shards::ticket_outside;
use crate::server::turns::LoopStats;

/// Hears from the loop, or from all of them when there are several shards: records are passed on as
/// one ledger, and how things are goes to the log.
pub struct FromLoop {
    ears: Vec<Ear>,
    /// What was taken from a queue just now.
    heard: Vec<News>,
    merge: Merge,
    /// Whom to listen to first.
    first: usize,
    clock: Clock,
    wall: WallAnchor,
    /// A later one, which was heard in the middle of a call.
    wall_next: Option<WallAnchor>,
    /// How things were when that was last logged, of all together.
    stats: Stats,
    pages: Vec<Page>,
    /// `None`: nobody wants transport events.
    transport: Option<TransportFeed>,
    /// `None`: nobody asks and nobody follows.
    door: Option<Teller>,
    /// `None`: nobody takes DATA.
    hub: Option<Feeder>,
    /// `None`: no service manager wants to know whether the loops turn.
    watchdog: Option<Watchdog>,
}

/// What is heard from one shard.
struct Ear {
    reader: Reader,
    /// Events that were taken from the queue and not dealt with yet.
    events: VecDeque<News>,
    has_ended: bool,
    /// How things were by its last report, and when that was heard.
    stats: Stats,
    turns: LoopStats,
    driver: DriverStats,
    reported_at: Option<Moment>,
    /// Whether it has reported since that was last logged.
    has_reported: bool,
    /// Answers to what all were asked.
    answers: VecDeque<(Ticket, Reply)>,
}

/// Whether more of a shard can be dealt with in this call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Course {
    Goes,
    /// A page stands between what was taken and what comes next.
    AtPage,
}

impl FromLoop {
    /// Hears what `readers` hear, one for each shard in their order.
    pub fn new(readers: Vec<Reader>, clock: Clock) -> Self {
        let ears = readers.into_iter().map(|reader| Ear {
            reader,
            events: VecDeque::new(),
            has_ended: false,
            stats: Stats::default(),
            turns: LoopStats::default(),
            driver: DriverStats::default(),
            reported_at: None,
            has_reported: false,
            answers: VecDeque::new(),
        });
        let ears: Vec<Ear> = ears.collect();
        Self {
            merge: Merge::new(ears.len()),
            ears,
            heard: Vec::new(),
            first: 0,
            clock,
            wall: clock.wall(),
            wall_next: None,
            stats: Stats::default(),
            pages: Vec::new(),
            transport: None,
            door: None,
            hub: None,
            watchdog: None,
        }
    }

    /// Hands transport events to `feed`.
    #[must_use]
    pub fn with_transport(mut self, feed: Option<TransportFeed>) -> Self {
        self.transport = feed;
        self
    }

    /// Brings DATA of all shards to a hub, from which whoever wants it takes it.
    pub fn with_hub(mut self) -> (Self, Hub) {
        let lines = self.ears.iter_mut().filter_map(|ear| ear.reader.take_line());
        let (hub, feeder) = hub::open(lines.collect());
        self.hub = Some(feeder);
        (self, hub)
    }

    /// Puts up at `door` what is heard, and hands out answers there.
    #[must_use]
    pub fn with_door(mut self, door: Option<Teller>) -> Self {
        self.door = door;
        self
    }

    /// Feeds `watchdog` whenever all loops have reported.
    #[must_use]
    pub fn with_watchdog(mut self, watchdog: Option<Watchdog>) -> Self {
        self.watchdog = watchdog;
        self
    }

    /// Takes what one shard told: all its answers and reports, and events only when those taken
    /// before are dealt with. Says whether it told anything.
    fn listen_to(&mut self, shard: usize, room: usize) -> bool {
        let mut heard = std::mem::take(&mut self.heard);
        let ear = &mut self.ears[shard];
        let room = if ear.events.is_empty() { room } else { 0 };
        ear.has_ended = ear.reader.take(room, &mut heard) == Heard::Ended;
        let has_told = !heard.is_empty();
        for news in heard.drain(..) {
            match news {
                News::Event(_) | News::Transport(_) => self.ears[shard].events.push_back(news),
                News::Wall(wall) => self.wall_next = Some(wall),
                News::Stats(stats) => self.on_report(shard, *stats),
                News::Loop(turns) => self.ears[shard].turns = *turns,
                News::Driver(stats) => self.on_driver_report(shard, stats),
                News::Reply { ticket, reply } => self.on_reply(shard, ticket, reply),
            }
        }
        self.heard = heard;
        has_told
    }

    /// Deals with the events that were heard from one shard, until `into` has `end` records or a
    /// page is in the way: it belongs before the records that are taken with it, so it waits for
    /// the next call unless there are none.
    fn work_off(
        &mut self,
        shard: usize,
        begin: usize,
        end: usize,
        into: &mut Vec<Record>,
    ) -> Course {
        loop {
            if self.merge.has_due_page(shard) {
                if into.len() > begin {
                    return Course::AtPage;
                }
                self.give_out_page(shard);
                continue;
            }
            if into.len() >= end {
                return Course::Goes;
            }
            match self.ears[shard].events.pop_front() {
                Some(News::Event(record)) => into.extend(self.on_event(shard, record)),
                Some(News::Transport(record)) => self.on_transport(shard, record),
                Some(_) | None => return Course::Goes,
            }
        }
    }

    /// Hears an event, and says what it is in the one ledger, if it is there.
    fn on_event(&mut self, shard: usize, record: Record) -> Option<Record> {
        let record = self.merge.take(shard, record)?;
        if let Some(door) = &mut self.door {
            door.tell(&record, self.wall);
        }
        Some(record)
    }

    fn on_transport(&mut self, shard: usize, record: TransportRecord) {
        let record = self.merge.take_transport(shard, record);
        if let Some(door) = &mut self.door {
            door.tell_transport(&record, self.wall);
        }
        if let Some(transport) = &self.transport {
            transport.write(record, self.wall);
        }
    }

    fn on_reply(&mut self, shard: usize, ticket: Ticket, reply: Reply) {
        match reply {
            Reply::Clients { seq, clients, next_slot } => {
                self.merge.hold(shard, Page { ticket, seq, clients, next_slot });
            }
            Reply::Stats(_) | Reply::Groups(_) | Reply::Broadcast(_) => {
                self.on_part(shard, ticket, reply);
            }
            Reply::GroupsFull
            | Reply::Pushed(_)
            | Reply::TooLong { .. }
            | Reply::Outcomes(_)
            | Reply::Done
            | Reply::NoSuchClient
            | Reply::OtherSession
            | Reply::NotConnected
            | Reply::Draining
            | Reply::OutOfBounds { .. }
            | Reply::Session(_)
            | Reply::Sessions { .. } => {
                let ticket = ticket_outside(ticket, shard, self.ears.len());
                // Whoever is not at the door did not wait for it.
                self.answer(ticket, self.merge.outside(shard, reply));
            }
        }
    }

    /// Hands an answer to whoever asked at the door. Gives it back when nobody did.
    fn answer(&mut self, ticket: Ticket, reply: Reply) -> Option<Reply> {
        match &mut self.door {
            Some(door) => door.answer(ticket, reply),
            None => Some(reply),
        }
    }

    /// A page is for the door, or else for the journal.
    fn give_out_page(&mut self, shard: usize) {
        let Some(Page { ticket, seq, clients, next_slot }) = self.merge.take_due_page(shard) else {
            return;
        };
        let reply = Reply::Clients { seq, clients, next_slot };
        if let Some(Reply::Clients { seq, clients, next_slot }) = self.answer(ticket, reply) {
            self.pages.push(Page { ticket, seq, clients, next_slot });
        }
    }

    /// Logs what has changed when everybody has reported, or somebody has twice: about once a
    /// second, however many there are.
    fn on_report(&mut self, shard: usize, stats: Stats) {
        let is_round = |ears: &[Ear]| ears.iter().all(|ear| ear.has_reported);
        if self.ears[shard].has_reported {
            self.end_round();
        }
        let ear = &mut self.ears[shard];
        ear.has_reported = true;
        ear.reported_at = Some(self.clock.now());
        ear.stats = stats;
        if is_round(&self.ears) {
            self.end_round();
        }
    }

    /// A driver's report comes right behind its gateway's. What is put up is as old as the oldest
    /// of those that it is the sum of.
    fn on_driver_report(&mut self, shard: usize, stats: DriverStats) {
        self.ears[shard].driver = stats;
        let oldest = self.ears.iter().map(|ear| ear.reported_at).min().flatten();
        let Some(heard_at) = oldest else { return };
        let mut driver = self.ears[0].driver;
        self.ears[1..].iter().for_each(|ear| driver.add(&ear.driver));
        let mut turns = self.ears[0].turns.clone();
        self.ears[1..].iter().for_each(|ear| turns.add(&ear.turns));
        let stats = self.merge.sum(self.ears.iter().map(|ear| &ear.stats));
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.on_report(heard_at, &stats, self.clock.now());
        }
        if let Some(door) = &mut self.door {
            door.report(Report { heard_at, stats, turns, driver, shards: self.ears.len() });
        }
    }

    fn end_round(&mut self) {
        self.ears.iter_mut().for_each(|ear| ear.has_reported = false);
        let sum = self.merge.sum(self.ears.iter().map(|ear| &ear.stats));
        log_endings(&self.stats, &sum);
        self.stats = sum;
    }

    /// All are asked or nobody, and each answers in order. The question has the first one's ticket.
    fn on_part(&mut self, shard: usize, ticket: Ticket, part: Reply) {
        let count = self.ears.len();
        self.ears[shard].answers.push_back((ticket_outside(ticket, shard, count), part));
        if self.ears.iter().any(|ear| ear.answers.is_empty()) {
            return;
        }
        let parts = self.ears.iter_mut().filter_map(|ear| ear.answers.pop_front());
        let (tickets, parts): (Vec<Ticket>, Vec<Reply>) = parts.unzip();
        // Whoever is not at the door is an operator who wants to know how verdicts go.
        if let Some(Reply::Stats(sum)) = self.answer(tickets[0], self.merge.whole(parts)) {
            summary::log(&sum);
        }
    }

    /// Whether there is something to deal with before anybody sleeps.
    fn has_news(&self) -> bool {
        let is_heard = |ear: &Ear| !ear.reader.is_silent();
        let ends = |ear: &Ear| ear.reader.has_ended() && !ear.has_ended;
        self.has_begun() || self.ears.iter().any(|ear| is_heard(ear) || ends(ear))
    }

    /// Whether of what was taken something is left to deal with.
    fn has_begun(&self) -> bool {
        let is_left = |shard: usize| !self.ears[shard].events.is_empty();
        (0..self.ears.len()).any(|shard| is_left(shard) || self.merge.has_due_page(shard))
    }

    /// What was heard last of all of them.
    fn supply(&self) -> Supply {
        match self.ears.iter().all(|ear| ear.has_ended) {
            true => Supply::Ended,
            false => Supply::Open,
        }
    }

    fn have_all_ended(&self) -> bool {
        self.ears.iter().all(|ear| ear.reader.has_ended())
    }

    /// Brings in DATA, whatever becomes of the events.
    fn bring_in_data(&mut self) {
        if let Some(hub) = &mut self.hub {
            hub.gather(self.wall);
        }
    }

    fn take(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply {
        // Other news takes no room: whoever gets no record may believe that there was none.
        let begin = into.len();
        let end = begin + limit;
        let count = self.ears.len();
        loop {
            let mut was_silent = true;
            for step in 0..count {
                let shard = (self.first + step) % count;
                let room = end - into.len();
                was_silent &= !self.listen_to(shard, room);
                // What is taken by one call is dated alike, here and by whoever writes it.
                if into.len() == begin {
                    self.wall = self.wall_next.take().unwrap_or(self.wall);
                }
                was_silent &= room == 0 || self.ears[shard].events.is_empty();
                if self.work_off(shard, begin, end, into) == Course::AtPage {
                    // Its page is the first thing of the next call.
                    self.first = shard;
                    return self.supply();
                }
            }
            self.first = (self.first + 1) % count;
            if was_silent || into.len() > begin {
                return self.supply();
            }
        }
    }
}

impl Source for FromLoop {
    fn take_records(&mut self, limit: usize, into: &mut Vec<Record>) -> Supply {
        let supply = self.take(limit, into);
        self.bring_in_data();
        if let Some(door) = &mut self.door {
            door.wake();
        }
        supply
    }

    fn take_pages(&mut self, into: &mut Vec<Page>) {
        into.append(&mut self.pages);
    }

    fn wait(&mut self, at_most: Span) {
        self.ears.iter().for_each(|ear| ear.reader.listen());
        // What comes behind this wakes whoever sleeps.
        self.bring_in_data();
        if !self.has_news() {
            mailbox::sleep(at_most);
        }
    }

    fn pause(&mut self, span: Span) {
        self.ears.iter().for_each(|ear| ear.reader.listen());
        let until = self.clock.now() + span;
        while self.clock.now() < until && !self.have_all_ended() {
            mailbox::sleep(until.since(self.clock.now()));
            self.bring_in_data();
        }
    }

    fn let_gather(&mut self, span: Span) {
        self.ears.iter().for_each(|ear| ear.reader.listen());
        self.ears.iter().for_each(|ear| ear.reader.let_events_gather(true));
        let until = self.clock.now() + span;
        loop {
            self.bring_in_data();
            let now = self.clock.now();
            let is_urgent = self.ears.iter().any(|ear| ear.reader.is_urgent());
            if now >= until || is_urgent || self.has_begun() {
                break;
            }
            mailbox::sleep(until.since(now));
        }
        self.ears.iter().for_each(|ear| ear.reader.let_events_gather(false));
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
        | CloseReason::Rebalance
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
        | CloseReason::TooManyConnections
        | CloseReason::BadPreface
        | CloseReason::FrameTooLong
        | CloseReason::UnexpectedFrame
        | CloseReason::Malformed
        | CloseReason::HandshakeTimeout
        | CloseReason::FrameTimeout
        | CloseReason::UnsupportedVersion
        | CloseReason::BadClientId
        | CloseReason::UnknownCriticalFrame
        | CloseReason::BadProxyHeader
        | CloseReason::BadTls
        | CloseReason::BadWebsocket
        | CloseReason::ServerError => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::base::config::Shard;
    use crate::base::event::Event;
    use crate::control::door;
    use crate::os::wake::Waker;
    use crate::server::shards::Switchboard;

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
        let mut source = FromLoop::new(vec![reader], Clock::new());
        let mut records = Vec::new();
        assert_eq!(source.take_records(2, &mut records), Supply::Ended);
        assert_eq!(records.len(), 1);
        assert_eq!(source.wall().unix_millis_at_zero, 7);
    }

    fn reply(ticket: u64, seq: u64) -> News {
        let reply = Reply::Clients { seq, clients: Vec::new(), next_slot: None };
        News::Reply { ticket: Ticket(ticket), reply }
    }

    fn event(seq: u64, event: Event) -> News {
        News::Event(Record { seq, at: Moment::ZERO, event })
    }

    #[test]
    fn pages_are_passed_on_with_the_question_they_answer() {
        let (mut inside, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        for number in 1..=2 {
            inside.tell(event(number, Event::Stalled { gap: Span::ZERO }));
            inside.tell(reply(number, number));
            inside.tell(News::Reply { ticket: Ticket(9), reply: Reply::Done });
        }
        let mut source = FromLoop::new(vec![reader], Clock::new());
        let (mut records, mut pages) = (Vec::new(), Vec::new());
        let mut seen = Vec::new();
        for _ in 0..3 {
            records.clear();
            source.take_records(10, &mut records);
            source.take_pages(&mut pages);
            seen.extend(pages.drain(..).map(|page| (page.ticket, page.seq)));
            seen.extend(records.iter().map(|record| (Ticket(0), record.seq)));
        }
        let (event, first, second) = (Ticket(0), Ticket(1), Ticket(2));
        assert_eq!(seen, [(event, 1), (first, 1), (event, 2), (second, 2)], "each once, in place");
    }

    #[test]
    fn nothing_gathers_while_a_page_is_to_be_passed_on() {
        let (mut inside, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        for number in 1..=2 {
            inside.tell(event(number, Event::Stalled { gap: Span::ZERO }));
            inside.tell(reply(number, number));
        }
        let (mut source, clock) = (FromLoop::new(vec![reader], Clock::new()), Clock::new());
        let mut records = Vec::new();
        source.take_records(10, &mut records);
        assert_eq!(records.len(), 1, "the page is behind it");
        let began = clock.now();
        source.let_gather(Span::from_secs(60));
        assert!(clock.now().since(began) < Span::from_secs(30));
    }

    /// Shards are heard in any pieces, and every page is put where it is true: behind the events of
    /// its shard that it knows of, and before the next one.
    #[test]
    fn pages_of_several_shards_are_put_where_they_are_true() {
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let count = rng.usize(1..4);
            let doors: Vec<_> =
                (0..count).map(|_| mailbox::open(Waker::new().expect("an eventfd"))).collect();
            let (mut insides, mut readers, mut askers) = (Vec::new(), Vec::new(), Vec::new());
            for (inside, asker, reader) in doors {
                insides.push(inside);
                askers.push(asker);
                readers.push(reader);
            }
            let mut source = FromLoop::new(readers, Clock::new());
            let mut seqs = vec![0; count];
            let mut asked = vec![0; count];
            let mut true_at = std::collections::HashMap::new();
            let mut told: Vec<(usize, u64)> = Vec::new();
            let mut pages_seen = 0;
            for _ in 0..60 {
                let shard = rng.usize(..count);
                let first_told = seqs[shard] + 1;
                let last_told = seqs[shard] + rng.u64(0..4);
                if rng.bool() {
                    // It is told before the events it knows of, as the loop does it.
                    asked[shard] += 1;
                    insides[shard].tell(reply(asked[shard], last_told));
                    let ticket = asked[shard] * count as u64 + shard as u64;
                    true_at.insert(Ticket(ticket), (shard, last_told));
                }
                for seq in first_told..=last_told {
                    // Its place tells whose it is.
                    let gap = Span::from_nanos(shard as u64);
                    insides[shard].tell(event(seq, Event::Stalled { gap }));
                }
                seqs[shard] = last_told;
                let (mut records, mut pages) = (Vec::new(), Vec::new());
                source.take_records(rng.usize(1..6), &mut records);
                source.take_pages(&mut pages);
                for page in pages {
                    pages_seen += 1;
                    assert_eq!(page.seq, told.len() as u64, "seed {seed}");
                    let (of, seq) = true_at[&page.ticket];
                    let known = told.iter().filter(|(shard, _)| *shard == of).count();
                    assert_eq!(known as u64, seq, "seed {seed}: all it knows of, and no more");
                }
                for record in records {
                    let Event::Stalled { gap } = record.event else { panic!("none other is told") };
                    told.push((usize::try_from(gap.as_nanos()).expect("few"), record.seq));
                    assert_eq!(record.seq, told.len() as u64, "seed {seed}: no gap");
                }
            }
            drop(insides);
            let mut records = Vec::new();
            let mut pages = Vec::new();
            while source.take_records(5, &mut records) == Supply::Open || !records.is_empty() {
                source.take_pages(&mut pages);
                told.extend(records.drain(..).map(|record| (0, record.seq)));
            }
            source.take_pages(&mut pages);
            let expected: u64 = seqs.iter().sum();
            assert_eq!(told.len() as u64, expected, "seed {seed}: every event once");
            assert_eq!(
                pages_seen + pages.len() as u64,
                asked.iter().sum::<u64>(),
                "and every page"
            );
        }
    }

    #[test]
    fn the_end_is_heard_when_all_shards_have_ended() {
        let (mut one, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let (mut two, _asker_two, reader_two) = mailbox::open(Waker::new().expect("an eventfd"));
        let mut source = FromLoop::new(vec![reader, reader_two], Clock::new());
        let mut records = Vec::new();
        one.tell(event(1, Event::Started { former: None }));
        two.tell(event(1, Event::Started { former: None }));
        one.tell(event(2, Event::Stopped));
        drop(one);
        assert_eq!(source.take_records(10, &mut records), Supply::Open);
        assert_eq!(source.take_records(10, &mut records), Supply::Open);
        assert_eq!(records.len(), 1, "it began once, and goes on");
        two.tell(event(2, Event::Stopped));
        drop(two);
        while source.take_records(10, &mut records) == Supply::Open {}
        let words: Vec<_> = records.iter().map(|record| record.event.word()).collect();
        assert_eq!(words, ["started", "stopped"]);
    }

    #[test]
    fn what_one_call_takes_is_dated_alike() {
        let (mut one, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let (mut two, _asker_two, reader_two) = mailbox::open(Waker::new().expect("an eventfd"));
        let mut source = FromLoop::new(vec![reader, reader_two], Clock::new());
        let wall = |unix_millis_at_zero| WallAnchor { unix_millis_at_zero };
        one.tell(News::Wall(wall(1)));
        one.tell(event(1, Event::Started { former: None }));
        two.tell(News::Wall(wall(2)));
        let mut records = Vec::new();
        source.take_records(10, &mut records);
        assert_eq!((records.len(), source.wall()), (1, wall(1)));
        source.take_records(10, &mut records);
        assert_eq!((records.len(), source.wall()), (1, wall(2)), "from now on");
    }

    /// What is put up at the door is the sum of all, and as old as the oldest.
    #[test]
    fn reports_of_all_shards_are_put_up_as_one() {
        let (mut one, asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let (mut two, asker_two, reader_two) = mailbox::open(Waker::new().expect("an eventfd"));
        let clock = Clock::new();
        let shard = Shard { count: 2, ..Shard::ONLY };
        let asker = Arc::new(Mutex::new(Switchboard::new(vec![asker, asker_two], shard)));
        let (door, teller) = door::open(asker, clock);
        let mut source = FromLoop::new(vec![reader, reader_two], clock).with_door(Some(teller));
        let report = |inside: &mut mailbox::Inside, online| {
            let stats = Stats { online, seq_last: 10, ..Stats::default() };
            inside.tell(News::Stats(Box::new(stats)));
            let driver = DriverStats { rings: 1, enters: 5, ..DriverStats::default() };
            inside.tell(News::Driver(driver));
        };
        report(&mut one, 3);
        source.take_records(10, &mut Vec::new());
        assert!(door.report().is_none(), "the other one may not even turn");
        let before = clock.now();
        report(&mut two, 4);
        source.take_records(10, &mut Vec::new());
        let all = door.report().expect("both have said it");
        assert!(all.heard_at < before, "as old as what the first one said");
        assert_eq!((all.stats.online, all.stats.seq_last, all.shards), (7, 19, 2));
        assert_eq!((all.driver.rings, all.driver.enters), (2, 10));
    }

    #[test]
    fn events_gather_until_an_answer_is_there() {
        let (mut one, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let (clock, mut source) = (Clock::new(), FromLoop::new(vec![reader], Clock::new()));
        let mut gathers = |longest| {
            let began = clock.now();
            source.let_gather(longest);
            clock.now().since(began)
        };
        one.tell(event(1, Event::Started { former: None }));
        one.wake_reader_for_events();
        assert!(gathers(Span::from_millis(20)) >= Span::from_millis(20));
        one.wake_reader();
        assert!(gathers(Span::from_millis(20)) >= Span::from_millis(20), "woken for nothing");
        one.tell(News::Reply { ticket: mailbox::Ticket(1), reply: Reply::Done });
        assert!(gathers(Span::from_secs(60)) < Span::from_secs(30));
        source.take_records(10, &mut Vec::new());
        std::thread::park_timeout(std::time::Duration::ZERO); // what woke it before
        let began = clock.now();
        one.wake_reader_for_events();
        source.wait(Span::from_secs(60));
        assert!(clock.now().since(began) < Span::from_secs(30), "events wake it again");
    }

    #[test]
    fn whoever_sleeps_is_woken_by_any_shard() {
        let (one, _asker, reader) = mailbox::open(Waker::new().expect("an eventfd"));
        let (mut two, _asker_two, reader_two) = mailbox::open(Waker::new().expect("an eventfd"));
        let mut source = FromLoop::new(vec![reader, reader_two], Clock::new());
        let thread = std::thread::spawn(move || {
            let mut records = Vec::new();
            while source.take_records(10, &mut records) == Supply::Open {
                source.wait(Span::from_secs(60));
            }
            records.len()
        });
        let clock = Clock::new();
        let began = clock.now();
        two.tell(event(1, Event::Started { former: None }));
        two.wake_reader();
        drop(one);
        two.tell(event(2, Event::Stalled { gap: Span::ZERO }));
        two.wake_reader();
        drop(two);
        assert_eq!(thread.join().expect("it does not panic"), 2);
        assert!(clock.now().since(began) < Span::from_secs(30), "it slept");
    }
}
