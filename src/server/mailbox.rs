//! The one door between the loop and every other thread: questions go in, news comes out.
//!
//! All queues are bounded and lock-free. The loop never waits: what the queue of news cannot take
//! stays in the gateway's ledger, which has a bound of its own. Answers have a queue of their own,
//! so that they pass by events that nobody takes.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crate::base::event::{Record, TransportRecord};
use crate::base::limits;
use crate::base::time::{Span, WallAnchor};
use crate::gateway::{Command, Reply, Stats};
use crate::os::driver::DriverStats;
use crate::os::wake::Waker;
use crate::server::desk::{self, Desk, DeskInside};
use crate::server::line::{self, Line, LineInside};
use crate::server::turns::LoopStats;

/// What the loop tells.
#[derive(Debug)]
pub enum News {
    /// Something happened.
    Event(Record),
    /// Something happened to a connection.
    Transport(TransportRecord),
    /// The wall clock was looked at; later moments are dated by this.
    Wall(WallAnchor),
    /// How things are, about once a second.
    Stats(Box<Stats>),
    /// How the loop is, after each of those.
    Loop(Box<LoopStats>),
    /// How the driver is, after each of those.
    Driver(DriverStats),
    /// The answer to a question.
    Reply {
        /// Which question it was.
        ticket: Ticket,
        /// The answer.
        reply: Reply,
    },
}

/// One question to the loop.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ticket(pub u64);

/// So many questions wait that this one was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the loop has {} questions waiting; ask again later", limits::COMMAND_QUEUE_MAX)]
pub struct Busy;

/// Whether there can be further news.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Heard {
    /// There can.
    Open,
    /// The loop has ended: only what is in the queue is still to come.
    Ended,
}

/// The loop's side.
pub(crate) struct Inside {
    questions: rtrb::Consumer<(Ticket, Command)>,
    news: rtrb::Producer<News>,
    answers: rtrb::Producer<News>,
    // Dropped after the queues: whoever it wakes then finds that they are abandoned.
    bell: Bell,
    /// Whether the reader lets events gather.
    gathers: Arc<AtomicBool>,
    /// By which DATA goes up.
    pub(crate) line: LineInside,
    /// Where tokens are looked at.
    pub(crate) desk: DeskInside,
}

/// Wakes the reader, at last when it is dropped.
struct Bell {
    reader: Arc<OnceLock<Thread>>,
}

/// Asks the loop. For one thread.
pub struct Asker {
    questions: rtrb::Producer<(Ticket, Command)>,
    waker: Waker,
    ticket_next: u64,
}

/// Hears from the loop. For one thread.
pub struct Reader {
    news: rtrb::Consumer<News>,
    answers: rtrb::Consumer<News>,
    reader: Arc<OnceLock<Thread>>,
    gathers: Arc<AtomicBool>,
    line: Option<Line>,
    desk: Option<Desk>,
}

/// Opens the door.
pub(crate) fn open(waker: Waker) -> (Inside, Asker, Reader) {
    let (questions_in, questions_out) = rtrb::RingBuffer::new(limits::COMMAND_QUEUE_MAX);
    let (news_in, news_out) = rtrb::RingBuffer::new(limits::EVENT_QUEUE_MAX);
    let (answers_in, answers_out) = rtrb::RingBuffer::new(limits::COMMAND_QUEUE_MAX);
    let reader = Arc::new(OnceLock::new());
    let gathers = Arc::new(AtomicBool::new(false));
    let (line_inside, line) = line::open(waker.clone());
    let (desk_inside, desk) = desk::open(waker.clone());
    let inside = Inside {
        questions: questions_out,
        news: news_in,
        answers: answers_in,
        bell: Bell { reader: Arc::clone(&reader) },
        gathers: Arc::clone(&gathers),
        line: line_inside,
        desk: desk_inside,
    };
    let asker = Asker { questions: questions_in, waker, ticket_next: 1 };
    let (line, desk) = (Some(line), Some(desk));
    let reader = Reader { news: news_out, answers: answers_out, reader, gathers, line, desk };
    (inside, asker, reader)
}

impl Inside {
    /// The next question, if there is one.
    pub(crate) fn next_question(&mut self) -> Option<(Ticket, Command)> {
        self.questions.pop().ok()
    }

    /// Questions that wait.
    pub(crate) fn questions_waiting(&self) -> usize {
        self.questions.slots()
    }

    /// Events that were told and not read.
    pub(crate) fn news_waiting(&self) -> usize {
        limits::EVENT_QUEUE_MAX - self.news.slots()
    }

    /// For how many events there is room.
    pub(crate) fn room(&self) -> usize {
        self.news.slots()
    }

    /// For how many answers and reports there is room.
    pub(crate) fn room_for_answers(&self) -> usize {
        self.answers.slots()
    }

    /// Tells; there must be [room](Self::room). News that nobody will read is dropped.
    pub(crate) fn tell(&mut self, news: News) {
        let _ = match news {
            News::Event(_) | News::Transport(_) => self.news.push(news),
            News::Wall(_)
            | News::Stats(_)
            | News::Loop(_)
            | News::Driver(_)
            | News::Reply { .. } => self.answers.push(news),
        };
    }

    /// Wakes the reader if it sleeps.
    pub(crate) fn wake_reader(&self) {
        self.bell.ring();
    }

    /// Wakes the reader for events that were told, unless it lets them gather.
    pub(crate) fn wake_reader_for_events(&self) {
        // Either this sees that it gathers no more, or it sees the events before it sleeps.
        fence(Ordering::SeqCst);
        let are_many = self.news_waiting() >= limits::EVENTS_GATHERED_MAX;
        if are_many || !self.gathers.load(Ordering::Relaxed) {
            self.wake_reader();
        }
    }

    /// Whether anybody reads.
    pub(crate) fn has_reader(&self) -> bool {
        !self.news.is_abandoned()
    }
}

impl Bell {
    fn ring(&self) {
        if let Some(reader) = self.reader.get() {
            reader.unpark();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.ring();
    }
}

impl Asker {
    /// Whether a further question is taken.
    pub fn has_room(&self) -> bool {
        self.questions.slots() > 0
    }

    /// Puts a question; its answer comes as [`News::Reply`] with the same ticket.
    pub fn ask(&mut self, command: Command) -> Result<Ticket, Busy> {
        let ticket = Ticket(self.ticket_next);
        self.questions.push((ticket, command)).map_err(|_| Busy)?;
        self.ticket_next += 1;
        self.waker.wake();
        Ok(ticket)
    }
}

impl Reader {
    /// Moves all answers and reports to the end of `out`, and then at most `limit` events, each in
    /// order. An answer never comes after an event that happened later than it was given.
    pub fn take(&mut self, limit: usize, out: &mut impl Extend<News>) -> Heard {
        // Looked at first: what was told before the end is still in the queue afterwards.
        let has_ended = self.news.is_abandoned();
        // Counted before answers are taken: what is counted happened before any answer that would
        // be missed now.
        let count = self.news.slots().min(limit);
        let answers = self.answers.slots();
        out.extend((0..answers).filter_map(|_| self.answers.pop().ok()));
        out.extend((0..count).filter_map(|_| self.news.pop().ok()));
        if has_ended { Heard::Ended } else { Heard::Open }
    }

    /// Whether nothing can be taken now.
    pub fn is_silent(&self) -> bool {
        self.news.is_empty() && self.answers.is_empty()
    }

    /// Whether anything is there that is not left to gather.
    pub fn is_urgent(&self) -> bool {
        let are_many = self.news.slots() >= limits::EVENTS_GATHERED_MAX;
        are_many || !self.answers.is_empty() || self.has_ended()
    }

    /// From now on events wake this thread only when they are
    /// [many](limits::EVENTS_GATHERED_MAX), or all of them do again. Answers, reports, DATA and the
    /// end always do.
    pub fn let_events_gather(&self, gathers: bool) {
        self.gathers.store(gathers, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The line by which DATA goes up, for whoever takes it; once.
    pub fn take_line(&mut self) -> Option<Line> {
        self.line.take()
    }

    /// The desk at which tokens are looked at, for whoever does that; once.
    pub fn take_desk(&mut self) -> Option<Desk> {
        self.desk.take()
    }

    /// From now on this thread is woken by news, by DATA and by the end. Always the same thread.
    pub fn listen(&self) {
        self.reader.get_or_init(std::thread::current);
    }

    /// Whether the loop has ended. What it told before may still be there to be taken.
    pub fn has_ended(&self) -> bool {
        self.news.is_abandoned()
    }

    /// Sleeps until there may be news, at most so long. Always from the same thread.
    pub fn wait(&self, longest: Span) {
        self.reader.get_or_init(std::thread::current);
        if self.news.is_empty() && self.answers.is_empty() && !self.news.is_abandoned() {
            std::thread::park_timeout(longest.into());
        }
    }

    /// Sleeps until told something or anything else, at most so long, whatever waits in the queue.
    pub fn pause(&self, longest: Span) {
        self.reader.get_or_init(std::thread::current);
        if !self.news.is_abandoned() {
            std::thread::park_timeout(longest.into());
        }
    }
}

/// Sleeps until one of the loops that this thread [listens to](Reader::listen) has news or ends, at
/// most so long. It may be that nothing happened.
pub fn sleep(longest: Span) {
    std::thread::park_timeout(longest.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;
    use crate::base::time::Moment;
    use crate::os::clock::Clock;

    fn door() -> (Inside, Asker, Reader) {
        open(Waker::new().expect("an eventfd"))
    }

    fn event(seq: u64) -> News {
        News::Event(Record { seq, at: Moment::ZERO, event: Event::Started { former: None } })
    }

    #[test]
    fn questions_arrive_in_order_and_only_so_many_wait() {
        let (mut inside, mut asker, _reader) = door();
        for expected in 1..=limits::COMMAND_QUEUE_MAX as u64 {
            assert_eq!(asker.ask(Command::Stats), Ok(Ticket(expected)));
        }
        assert_eq!(asker.ask(Command::Stats), Err(Busy));
        assert_eq!(inside.next_question(), Some((Ticket(1), Command::Stats)));
        assert!(asker.ask(Command::Stats).is_ok(), "room again");
    }

    #[test]
    fn answers_pass_by_events_that_nobody_takes() {
        let (mut inside, _asker, mut reader) = door();
        while inside.room() > 0 {
            inside.tell(event(1));
        }
        for number in 1..=3 {
            assert!(inside.room_for_answers() > 0);
            inside.tell(News::Reply { ticket: Ticket(number), reply: Reply::Done });
        }
        let mut news = Vec::new();
        reader.take(0, &mut news);
        let tickets: Vec<_> = news.iter().map(|news| matches!(news, News::Reply { .. })).collect();
        assert_eq!(tickets, [true; 3]);
        reader.take(2, &mut news);
        assert_eq!(news.len(), 5);
    }

    #[test]
    fn events_that_gather_wake_nobody_until_they_are_many() {
        let (mut inside, _asker, reader) = door();
        let clock = Clock::new();
        let sleeps = |inside: &Inside, how: fn(&Inside), longest| {
            std::thread::park_timeout(std::time::Duration::ZERO); // what woke it before
            how(inside);
            let began = clock.now();
            sleep(longest);
            clock.now().since(began)
        };
        let wakes =
            |inside: &Inside, how| sleeps(inside, how, Span::from_secs(60)) < Span::from_secs(30);
        reader.listen();
        inside.tell(event(1));
        assert!(wakes(&inside, Inside::wake_reader_for_events));
        reader.let_events_gather(true);
        let short = Span::from_millis(50);
        assert!(sleeps(&inside, Inside::wake_reader_for_events, short) >= short);
        assert!(!reader.is_urgent());
        assert!(wakes(&inside, Inside::wake_reader), "for anything else");
        (0..limits::EVENTS_GATHERED_MAX).for_each(|_| inside.tell(event(2)));
        assert!(wakes(&inside, Inside::wake_reader_for_events) && reader.is_urgent());
        reader.let_events_gather(false);
        assert!(wakes(&inside, Inside::wake_reader_for_events));
    }

    #[test]
    fn what_was_told_before_the_end_is_still_heard() {
        let (mut inside, _asker, mut reader) = door();
        inside.tell(event(1));
        inside.tell(event(2));
        let mut news = Vec::new();
        assert_eq!(reader.take(1, &mut news), Heard::Open);
        drop(inside);
        assert_eq!(reader.take(10, &mut news), Heard::Ended);
        assert_eq!(news.len(), 2);
    }

    #[test]
    fn a_sleeping_reader_is_woken_by_news_and_by_the_end() {
        let (mut inside, _asker, mut reader) = door();
        let thread = std::thread::spawn(move || {
            let mut news = Vec::new();
            while reader.take(10, &mut news) == Heard::Open {
                reader.wait(Span::from_secs(60));
            }
            reader.take(10, &mut news);
            news.len()
        });
        for seq in 0..5 {
            inside.tell(event(seq));
            inside.wake_reader();
        }
        drop(inside);
        assert_eq!(thread.join().expect("it does not panic"), 5);
    }
}
