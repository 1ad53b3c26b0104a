//! The loop: completions from the kernel to the gateway, operations from the gateway to the kernel.
//!
//! May import: base, os, gateway.
//! Never here: protocol, verdicts, files. A turn is a dozen lines and stays so.

mod hearing;
pub mod mailbox;
mod pace;
pub mod shards;

use std::collections::VecDeque;

use crate::base::config::GatewayConfig;
use crate::base::event::{Record, TransportRecord};
use crate::base::io::Op;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::{Command, Gateway};
use crate::os::clock::Clock;
use crate::os::driver::{Driver, DriverConfig, DriverError, Heard};
use crate::server::hearing::{Hearing, Input};
use crate::server::mailbox::{Asker, Inside, News, Reader};
use crate::server::pace::Pace;
use crate::server::shards::Exchange;

/// How long the loop sleeps at most while events wait that the side thread had no room for.
const CONGESTED_SLEEP_MAX: Span = Span::from_millis(5);

/// One loop: a driver and a gateway. It lives and dies on one thread.
pub struct Server {
    clock: Clock,
    driver: Driver,
    gateway: Gateway,
    mailbox: Inside,
    ops: Vec<Op>,
    records: Vec<Record>,
    transport: Vec<TransportRecord>,
    replies: VecDeque<News>,
    report_due: Moment,
    hearing: Hearing,
    pace: Pace,
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
            mailbox,
            ops: Vec::new(),
            records: Vec::new(),
            transport: Vec::new(),
            replies: VecDeque::new(),
            report_due: Moment::ZERO,
            hearing: Hearing::default(),
            pace: Pace::new(now),
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

    /// One pass: submit, wait, hand in completions, advance time, take commands. One enter of the
    /// kernel.
    ///
    /// # Errors
    /// When the driver itself fails, which no peer can cause.
    pub fn turn(&mut self) -> Result<Turn, DriverError> {
        self.submit();
        let began = self.clock.now();
        let sleep = self.sleep(began);
        let heard = self.driver.enter(sleep)?;
        self.note_elsewhere();
        let (input, now) = self.hand_in(began, heard);
        if let Some(until) = self.hearing.until(began, input) {
            self.gateway.on_time(until);
        }
        self.take_questions(now);
        self.trade();
        self.tell(now);
        Ok(if self.is_over() { self.finish(now) } else { Turn::Goes })
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

    /// The driver, for looking at.
    pub fn driver(&self) -> &Driver {
        &self.driver
    }

    fn submit(&mut self) -> Armed {
        self.publish_count();
        self.gateway.take_ops(&mut self.ops);
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
        self.driver.gather(self.pace.window(now, self.driver.received()));
        if self.gateway.take_awaits_send() {
            return Span::ZERO;
        }
        let is_congested = !self.records.is_empty() || self.gateway.events_waiting() > 0;
        let longest = match is_congested || self.is_trade_held_up() {
            false => limits::SLEEP_MAX,
            true => CONGESTED_SLEEP_MAX,
        };
        let until_wake = self.gateway.next_wake().map_or(longest, |wake| wake.since(now));
        until_wake.min(longest)
    }

    /// Hands in everything that the latest enter brought, as far as the turn's budget goes, and
    /// says what that was, and when.
    fn hand_in(&mut self, began: Moment, heard: Heard) -> (Input, Moment) {
        // Read when what is handed in was there, or a deadline would be too early.
        let mut now = self.clock.now();
        let (clock, is_later_each_time) = (self.clock, self.driver.reaps_latecomers());
        let mut completions = 0;
        let mut armed = Armed::Nobody;
        while completions < limits::TURN_COMPLETIONS_MAX {
            let gateway = &mut self.gateway;
            let count = self.driver.reap(limits::REAP_BATCH_MAX, |completion| {
                if is_later_each_time {
                    now = clock.now();
                }
                gateway.on_completion(completion, now);
            });
            completions += count;
            if self.submit() == Armed::Again {
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
        for _ in 0..limits::TURN_COMMANDS_MAX {
            if self.replies.len() >= limits::COMMAND_QUEUE_MAX {
                break;
            }
            let Some((ticket, command)) = self.mailbox.next_question() else { break };
            if let Command::Reconfigure(new) = &command {
                self.coalesce(new.coalesce);
            }
            let reply = self.gateway.on_command(command, now);
            self.replies.push_back(News::Reply { ticket, reply });
        }
    }

    /// Tells the side thread how things are, unless it is far behind.
    fn report(&mut self) {
        let wall = self.clock.wall();
        self.gateway.set_wall(wall);
        if self.mailbox.room_for_answers() >= 3 {
            self.mailbox.tell(News::Wall(wall));
            self.mailbox.tell(News::Stats(Box::new(self.gateway.stats())));
            self.mailbox.tell(News::Driver(self.driver.stats()));
            self.mailbox.wake_reader();
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
            self.mailbox.wake_reader();
        }
        self.tell_transport();
    }

    /// Tells transport events, as far as the ledger does not need the room.
    fn tell_transport(&mut self) {
        let room = self.mailbox.room().saturating_sub(limits::TRANSPORT_ROOM_LEFT);
        self.gateway.take_transport(&mut self.transport, room.min(limits::TURN_EVENTS_MAX));
        if !self.transport.is_empty() {
            for record in self.transport.drain(..) {
                self.mailbox.tell(News::Transport(record));
            }
            self.mailbox.wake_reader();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::Event;
    use crate::gateway::Reply;
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
        asker.ask(Command::Drain { within: Span::ZERO }).expect("the same");
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
