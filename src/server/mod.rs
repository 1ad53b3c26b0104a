//! The loop: completions from the kernel to the gateway, operations from the gateway to the kernel.
//!
//! May import: base, os, gateway, layers.
//! Never here: protocol, verdicts, files. A turn is a dozen lines and stays so.

pub mod desk;
mod hearing;
mod inward;
pub mod line;
pub mod mailbox;
mod pace;
pub mod shards;
pub mod turns;

use std::collections::VecDeque;

use crate::base::config::GatewayConfig;
use crate::base::data::{Credit, DataRecord};
use crate::base::event::{Record, TransportRecord};
use crate::base::identity::{Check, Verdict};
use crate::base::io::Op;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::{Command, Gateway, Reply, Stats};
use crate::layers::Layers;
use crate::layers::terms::SharedTerms;
use crate::os::clock::Clock;
use crate::os::driver::{Driver, DriverConfig, DriverError, Heard};
use crate::server::hearing::{Hearing, Input};
use crate::server::inward::Inward;
use crate::server::mailbox::{Asker, Inside, News, Reader};
use crate::server::pace::Pace;
use crate::server::shards::Exchange;
use crate::server::turns::{LoopStats, Turns};

/// How long the loop sleeps at most while events wait that the side thread had no room for.
const CONGESTED_SLEEP_MAX: Span = Span::from_millis(5);

/// One loop: a driver and a gateway. It lives and dies on one thread.
pub struct Server {
    clock: Clock,
    driver: Driver,
    gateway: Gateway,
    layers: Layers,
    mailbox: Inside,
    ops: Vec<Op>,
    records: Vec<Record>,
    transport: Vec<TransportRecord>,
    replies: VecDeque<News>,
    #[expect(clippy::vec_box, reason = "they are handed on as they are")]
    data: Vec<Box<DataRecord>>,
    credits: Vec<Credit>,
    checks: Vec<Check>,
    report_due: Moment,
    hearing: Hearing,
    pace: Pace,
    turns: Turns,
    /// When the end no longer waits for the side thread; set when everybody has left.
    gives_up_at: Option<Moment>,
    /// `None`: there are no other shards.
    exchange: Option<Exchange>,
}

/// Whether there is a next turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Turn {
    /// There is.
    Goes,
    /// Everybody has left after a drain, and everything was told, or the side thread takes nothing.
    Over {
        /// Events that the side thread did not take in time.
        untold: usize,
    },
}

/// Whether a receive was armed again just now: bytes may have waited for it, and they come before
/// time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Armed {
    Nobody,
    Again,
}

impl Server {
    /// Sets up the driver and the gateway, on the thread that will call [`turn`](Self::turn).
    ///
    /// # Errors
    /// When the machine does not give what the driver needs.
    pub fn new(
        driver: impl Into<DriverConfig>,
        gateway: GatewayConfig,
        clock: Clock,
    ) -> Result<(Self, Asker, Reader), DriverError> {
        let driver = Driver::new(driver)?;
        let (mailbox, asker, reader) = mailbox::open(driver.waker());
        let now = clock.now();
        let server = Self {
            clock,
            driver,
            gateway: Gateway::new(gateway, now),
            layers: Layers::new(SharedTerms::default()),
            mailbox,
            ops: Vec::new(),
            records: Vec::new(),
            transport: Vec::new(),
            replies: VecDeque::new(),
            data: Vec::new(),
            credits: Vec::new(),
            checks: Vec::new(),
            report_due: Moment::ZERO,
            hearing: Hearing::default(),
            pace: Pace::new(now),
            turns: Turns::default(),
            gives_up_at: None,
            exchange: None,
        };
        Ok((server, asker, reader))
    }

    /// Turns until a drain is over, and says how many events the side thread did not take in time.
    ///
    /// # Errors
    /// When the driver itself fails, which no peer can cause.
    pub fn run(&mut self) -> Result<usize, DriverError> {
        loop {
            match self.turn()? {
                Turn::Goes => {}
                Turn::Over { untold } => return Ok(untold),
            }
        }
    }

    /// Lets beats wait for each other for up to `window` where many come, so that one turn serves
    /// several; zero, as at first: not at all. No verdict waits for it.
    pub fn coalesce(&mut self, window: Span) {
        self.pace.set_window(window);
    }

    /// Lets clients in through layers, on these terms.
    pub fn set_terms(&mut self, terms: SharedTerms) {
        self.layers = Layers::new(terms);
    }

    /// One pass: submit, wait, hand in completions, advance time, take commands. One enter of the
    /// kernel.
    ///
    /// # Errors
    /// When the driver itself fails, which no peer can cause.
    pub fn turn(&mut self) -> Result<Turn, DriverError> {
        let began = self.clock.now();
        self.submit(began);
        self.turns.on_sleep(began);
        let sleep = self.sleep(began);
        let heard = self.driver.enter(sleep)?;
        self.note_elsewhere();
        self.gateway.set_data_wanted(self.mailbox.line.is_wished());
        let (input, now) = self.hand_in(began, heard);
        let gateway = &mut self.gateway;
        self.layers.work(now, |completion| gateway.on_completion(completion, now));
        if let Some(until) = self.hearing.until(began, input) {
            self.gateway.on_time(until);
        }
        self.hear_side_threads(now);
        self.trade();
        self.tell(now);
        Ok(if self.is_over() { self.finish(now) } else { Turn::Goes })
    }

    fn hear_side_threads(&mut self, now: Moment) {
        self.take_questions(now);
        self.take_credits(now);
        self.take_verdicts(now);
    }

    /// Everybody has left: the rest is told, but a side thread that hangs is not waited for.
    fn finish(&mut self, now: Moment) -> Turn {
        let gives_up_at = *self.gives_up_at.get_or_insert(now + limits::SIDE_PATIENCE);
        let untold = self.gateway.events_waiting();
        if untold > 0 && now < gives_up_at {
            return Turn::Goes;
        }
        self.report();
        Turn::Over { untold }
    }

    /// The gateway, for looking at.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// How things are.
    fn stats(&self) -> Stats {
        let mut stats = self.gateway.stats();
        stats.tally.layers = self.layers.stats();
        stats
    }

    /// The driver, for looking at.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    fn submit(&mut self, now: Moment) -> Armed {
        self.publish_count();
        self.gateway.take_ops(&mut self.ops);
        self.layers.on_ops(&mut self.ops, now);
        let (mut armed, mut new) = (0, 0);
        for op in &self.ops {
            armed += usize::from(matches!(op, Op::Receive { .. }));
            new += usize::from(matches!(op, Op::Adopt { .. }));
        }
        self.driver.submit(&mut self.ops);
        // Whoever is new has no deadline that could have passed.
        if armed > new { Armed::Again } else { Armed::Nobody }
    }

    /// How long to sleep now, and for how long to gather while at it.
    fn sleep(&mut self, now: Moment) -> Span {
        let hurried = self.gateway.hurried() + self.turns.stats.questions;
        self.driver.gather(self.pace.window(now, self.driver.received(), hurried));
        if self.layers.take_awaits_send() {
            return Span::ZERO;
        }
        if self.gateway.take_awaits_send() {
            return Span::ZERO;
        }
        let has_verdicts = self.mailbox.desk.has_verdicts();
        if has_verdicts || self.mailbox.line.has_credits() || self.layers.has_work() {
            return Span::ZERO;
        }
        let is_congested = !self.records.is_empty()
            || self.gateway.events_waiting() > 0
            || self.gateway.data_waiting() > 0;
        let longest = match is_congested || self.is_trade_held_up() {
            false => limits::SLEEP_MAX,
            true => CONGESTED_SLEEP_MAX,
        };
        let wakes = [self.gateway.next_wake(), self.layers.next_wake()];
        let wake = wakes.into_iter().flatten().min();
        let until_wake = wake.map_or(longest, |wake| wake.since(now));
        until_wake.min(longest)
    }

    /// Hands in everything that the latest enter brought, as far as the turn's budget goes, and
    /// says what that was, and when.
    fn hand_in(&mut self, began: Moment, heard: Heard) -> (Input, Moment) {
        // Read when what is handed in was there, or a deadline would be too early.
        let mut now = self.clock.now();
        self.turns.on_woken(now);
        let clock = self.driver.reaps_latecomers().then_some(self.clock);
        let mut completions = 0;
        let mut armed = Armed::Nobody;
        while completions < limits::TURN_COMPLETIONS_MAX {
            let (gateway, layers) = (&mut self.gateway, &mut self.layers);
            let mut inward = Inward { gateway, layers, now, clock };
            let count = self.driver.reap_into(limits::REAP_BATCH_MAX, &mut inward);
            now = inward.now;
            completions += count;
            if self.submit(now) == Armed::Again {
                armed = Armed::Again;
            }
            if count < limits::REAP_BATCH_MAX {
                let input = match (heard, armed) {
                    (Heard::All { after }, Armed::Nobody) => Input::Until(began + after),
                    (Heard::All { .. } | Heard::Part, _) => Input::Part(completions),
                };
                return (input, now);
            }
        }
        (Input::Part(completions), now)
    }

    /// Questions are heeded even when there is no room for their answers, which wait then.
    fn take_questions(&mut self, now: Moment) {
        let mut weight = 0;
        while weight < limits::TURN_COMMANDS_MAX {
            if self.replies.len() >= limits::COMMAND_QUEUE_MAX {
                break;
            }
            let Some((ticket, command)) = self.mailbox.next_question() else { break };
            // Readiness goes before the first word to a client.
            if matches!(command, Command::Drain(_)) {
                self.report_due = Moment::ZERO;
            }
            if let Command::Reconfigure(new) = &command {
                self.coalesce(new.coalesce);
            }
            weight += command.weight();
            let mut reply = self.gateway.on_command(command, now);
            if let Reply::Stats(stats) = &mut reply {
                stats.tally.layers = self.layers.stats();
            }
            self.turns.stats.questions += 1;
            self.replies.push_back(News::Reply { ticket, reply });
        }
    }

    /// Credit of DATA that was taken comes back.
    fn take_credits(&mut self, now: Moment) {
        let line = &mut self.mailbox.line;
        let was_full = line.take_credits(limits::TURN_CREDITS_MAX, &mut self.credits);
        if !self.credits.is_empty() {
            self.gateway.on_credits(&self.credits, now);
            self.credits.clear();
        }
        if was_full {
            // Further ones wait where only the side thread sees them.
            self.mailbox.wake_reader();
        }
    }

    /// Somebody looked at tokens.
    fn take_verdicts(&mut self, now: Moment) {
        for _ in 0..limits::CHECK_BATCH_MAX {
            let Some((conn, verdict)) = self.mailbox.desk.next_verdict() else { return };
            self.gateway.on_checked(conn, verdict, now);
        }
    }

    /// Hands over tokens that somebody else has to look at.
    fn hand_over_checks(&mut self, now: Moment) {
        if !self.gateway.has_checks() {
            return;
        }
        self.gateway.take_checks(&mut self.checks, self.mailbox.desk.room());
        for check in self.checks.drain(..) {
            if let Err(check) = self.mailbox.desk.hand_over(check) {
                self.gateway.on_checked(check.conn, Verdict::Unknown, now);
            }
        }
        self.mailbox.desk.ring();
    }

    /// Hands DATA up, as far as there is room.
    fn hand_up(&mut self) {
        let room = self.mailbox.line.room();
        self.gateway.take_data(&mut self.data, room);
        if !self.data.is_empty() {
            for record in self.data.drain(..) {
                self.mailbox.line.hand_up(record);
            }
            self.mailbox.wake_reader();
        }
    }

    /// Tells the side thread how things are, unless it is far behind.
    fn report(&mut self) {
        let wall = self.clock.wall();
        self.gateway.set_wall(wall);
        if self.mailbox.room_for_answers() >= 4 {
            self.mailbox.tell(News::Wall(wall));
            self.mailbox.tell(News::Stats(Box::new(self.stats())));
            self.mailbox.tell(News::Loop(Box::new(self.loop_stats())));
            self.mailbox.tell(News::Driver(self.driver.stats()));
            self.mailbox.wake_reader();
        }
    }

    fn loop_stats(&self) -> LoopStats {
        LoopStats {
            questions_waiting: self.mailbox.questions_waiting(),
            answers_waiting: self.replies.len(),
            news_waiting: self.mailbox.news_waiting(),
            ..self.turns.stats.clone()
        }
    }

    /// Tells the side thread what happened, as far as there is room.
    fn tell(&mut self, now: Moment) {
        if now >= self.report_due {
            self.report();
            self.report_due = now + limits::SLEEP_MAX;
        }
        let has_reader = self.mailbox.has_reader();
        while (self.mailbox.room_for_answers() > 0 || !has_reader)
            && let Some(reply) = self.replies.pop_front()
        {
            self.mailbox.tell(reply);
            self.mailbox.wake_reader();
        }
        let room = match (has_reader, self.replies.is_empty()) {
            (true, true) => self.mailbox.room().min(limits::TURN_EVENTS_MAX),
            // What happened after an answer is not told before it.
            (true, false) => 0,
            (false, _) => limits::TURN_EVENTS_MAX,
        };
        self.gateway.take_events(&mut self.records, room);
        if !self.records.is_empty() {
            for record in self.records.drain(..) {
                self.mailbox.tell(News::Event(record));
            }
            self.mailbox.wake_reader_for_events();
        }
        self.tell_transport();
        self.hand_up();
        self.hand_over_checks(now);
    }

    /// Tells transport events, as far as the ledger does not need the room.
    fn tell_transport(&mut self) {
        let room = self.mailbox.room().saturating_sub(limits::TRANSPORT_ROOM_LEFT);
        self.gateway.take_transport(&mut self.transport, room.min(limits::TURN_EVENTS_MAX));
        if !self.transport.is_empty() {
            for record in self.transport.drain(..) {
                self.mailbox.tell(News::Transport(record));
            }
            self.mailbox.wake_reader_for_events();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;
    use crate::gateway::{Command, Drain, Reply};
    use crate::os::ring::{self, Descriptors, RingSizes};

    #[test]
    fn what_happened_after_an_answer_is_not_told_before_it() {
        let driver = ring::DriverConfig {
            connections_max: 512,
            descriptors: Descriptors::Ordinary,
            listener: None,
            sizes: RingSizes::new(512, 512),
        };
        let (mut server, mut asker, mut reader) =
            Server::new(driver, GatewayConfig::default(), Clock::new()).expect("a ring");
        let mut turn = || {
            server.driver.waker().wake();
            server.turn().expect("a ring")
        };
        while asker.ask(Command::Stats).is_ok() {}
        for _ in 0..limits::COMMAND_QUEUE_MAX.div_ceil(limits::TURN_COMMANDS_MAX) {
            turn();
        }
        asker.ask(Command::Clients { from_slot: 0, limit: 1 }).expect("there is room again");
        asker.ask(Command::Drain(Drain::at_once(Span::ZERO))).expect("the same");
        turn();
        turn();
        let mut told: Vec<News> = Vec::new();
        reader.take(100, &mut told);
        turn();
        reader.take(100, &mut told);
        let place = |is_it: fn(&News) -> bool| told.iter().position(is_it);
        let page =
            place(|news| matches!(news, News::Reply { reply: Reply::Clients { seq: 1, .. }, .. }));
        let end = place(|news| matches!(news, News::Event(Record { event: Event::Stopped, .. })));
        assert!(page.expect("it was asked for") < end.expect("nobody is here"));
    }
}
