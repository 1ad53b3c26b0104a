//! The loop: completions from the ring to the gateway, operations from the gateway to the ring.
//!
//! May import: base, os, gateway.
//! Never here: protocol, verdicts, files. A turn is a dozen lines and stays so.

pub mod mailbox;

use std::collections::VecDeque;

use crate::base::config::GatewayConfig;
use crate::base::event::{Record, TransportRecord};
use crate::base::io::Op;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::Gateway;
use crate::os::clock::Clock;
use crate::os::ring::{Driver, DriverConfig, More, RingError};
use crate::server::mailbox::{Asker, Inside, News, Reader};

/// How long the loop sleeps at most while events wait that the side thread had no room for.
const CONGESTED_SLEEP_MAX: Span = Span::from_millis(5);

/// One loop: a ring (or several) and a gateway. It lives and dies on one thread.
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
    /// When the latest turn began, if it did not come to the end of its input.
    left_over_since: Option<Moment>,
    /// When the end no longer waits for the side thread; set when everybody has left.
    gives_up_at: Option<Moment>,
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

/// Whether everything that the kernel had was taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Input {
    Drained,
    LeftOver,
}

/// Whether a receive was armed just now: bytes may have waited for it, and they come before time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Armed {
    Nobody,
    Somebody,
}

impl Server {
    /// Sets up the ring and the gateway, on the thread that will call [`turn`](Self::turn).
    ///
    /// # Errors
    /// When the machine does not give what the ring needs.
    pub fn new(
        driver: DriverConfig,
        gateway: GatewayConfig,
        clock: Clock,
    ) -> Result<(Self, Asker, Reader), RingError> {
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
            left_over_since: None,
            gives_up_at: None,
        };
        Ok((server, asker, reader))
    }

    /// Turns until a drain is over, and says how many events the side thread did not take in time.
    ///
    /// # Errors
    /// When the ring itself fails, which no peer can cause.
    pub fn run(&mut self) -> Result<usize, RingError> {
        loop {
            match self.turn()? {
                Turn::Goes => {}
                Turn::Over { untold } => return Ok(untold),
            }
        }
    }

    /// One pass: submit, wait, drain completions, advance time, take commands.
    ///
    /// # Errors
    /// When the ring itself fails, which no peer can cause.
    pub fn turn(&mut self) -> Result<Turn, RingError> {
        self.submit();
        self.driver.wait(self.sleep())?;
        // Read before the drain: whatever arrived until now is handed in before anybody is judged.
        let now = self.clock.now();
        let input = self.drain()?;
        if let Some(heard_until) = self.heard_until(input, now) {
            self.gateway.on_time(heard_until);
        }
        self.take_questions();
        self.tell();
        Ok(if self.gateway.is_drained() { self.finish(now) } else { Turn::Goes })
    }

    /// Until when everything is known to have been handed in.
    ///
    /// A flood can outlast the budget of every turn. Time must not wait for its end, or nobody
    /// would be judged meanwhile: it follows a turn behind, and whatever the flood still hides is
    /// found by the last look.
    fn heard_until(&mut self, input: Input, now: Moment) -> Option<Moment> {
        match input {
            Input::Drained => {
                self.left_over_since = None;
                Some(now)
            }
            Input::LeftOver => self.left_over_since.replace(now),
        }
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
        self.gateway.take_ops(&mut self.ops);
        let armed = match self.ops.iter().any(|op| matches!(op, Op::Receive { .. })) {
            true => Armed::Somebody,
            false => Armed::Nobody,
        };
        self.driver.submit(&mut self.ops);
        armed
    }

    fn sleep(&self) -> Option<Span> {
        let now = self.clock.now();
        let longest = if self.records.is_empty() && self.gateway.events_waiting() == 0 {
            limits::SLEEP_MAX
        } else {
            CONGESTED_SLEEP_MAX
        };
        let until_wake = self.gateway.next_wake().map_or(longest, |wake| wake.since(now));
        Some(until_wake.min(longest))
    }

    /// Hands in everything that the kernel has, until it has nothing more or the turn's budget is
    /// used up.
    fn drain(&mut self) -> Result<Input, RingError> {
        let mut budget = limits::TURN_COMPLETIONS_MAX;
        while budget > 0 {
            let (gateway, clock) = (&mut self.gateway, self.clock);
            let batch = budget.min(limits::REAP_BATCH_MAX);
            let drained = self.driver.drain(batch, |completion| {
                // Read after the completion was there, or a deadline would be too early.
                gateway.on_completion(completion, clock.now());
            })?;
            let armed = self.submit();
            budget -= drained.completions.min(budget);
            if drained.more == More::Nothing && armed == Armed::Nobody {
                return Ok(Input::Drained);
            }
        }
        Ok(Input::LeftOver)
    }

    /// Questions are heeded even when there is no room for their answers, which wait then.
    fn take_questions(&mut self) {
        for _ in 0..limits::TURN_COMMANDS_MAX {
            if self.replies.len() >= limits::COMMAND_QUEUE_MAX {
                break;
            }
            let Some((ticket, command)) = self.mailbox.next_question() else { break };
            let reply = self.gateway.on_command(command, self.clock.now());
            self.replies.push_back(News::Reply { ticket, reply });
        }
    }

    /// Tells the side thread how things are, unless it is far behind.
    fn report(&mut self) {
        let wall = self.clock.wall();
        self.gateway.set_wall(wall);
        if self.mailbox.room() >= 2 {
            self.mailbox.tell(News::Wall(wall));
            self.mailbox.tell(News::Stats(Box::new(self.gateway.stats())));
            self.mailbox.wake_reader();
        }
    }

    /// Tells the side thread what happened, as far as there is room.
    fn tell(&mut self) {
        let now = self.clock.now();
        if now >= self.report_due {
            self.report();
            self.report_due = now + limits::SLEEP_MAX;
        }
        while self.mailbox.room() > 0
            && let Some(reply) = self.replies.pop_front()
        {
            self.mailbox.tell(reply);
            self.mailbox.wake_reader();
        }
        let room = match self.mailbox.has_reader() {
            true => self.mailbox.room().min(limits::TURN_EVENTS_MAX),
            false => limits::TURN_EVENTS_MAX,
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
    use crate::os::ring::{Descriptors, RingSizes};

    #[test]
    fn time_follows_a_flood_a_turn_behind() {
        let driver = DriverConfig {
            connections_max: 16,
            descriptors: Descriptors::Ordinary,
            listener: None,
            sizes: RingSizes::new(16, 16),
        };
        let config = GatewayConfig { connections_max: 4, ..GatewayConfig::default() };
        let (mut server, _asker, _reader) =
            Server::new(driver, config, Clock::new()).expect("a ring");
        let at = Moment::from_millis;
        for (name, input, now, heard_until) in [
            ("all was read", Input::Drained, at(1), Some(at(1))),
            ("a flood begins", Input::LeftOver, at(2), None),
            ("it goes on", Input::LeftOver, at(3), Some(at(2))),
            ("and on", Input::LeftOver, at(4), Some(at(3))),
            ("it is over", Input::Drained, at(5), Some(at(5))),
            ("another one begins", Input::LeftOver, at(6), None),
        ] {
            assert_eq!(server.heard_until(input, now), heard_until, "{name}");
        }
    }
}
