//! What clients, networks and operators do.

use super::*;

impl World {
    pub(super) fn plan(&mut self, at: Moment, happening: Happening) {
        self.agenda_next += 1;
        self.agenda.push(Reverse((at, self.agenda_next, happening)));
    }

    pub(super) fn live_upto_now(&mut self) {
        while let Some(Reverse((at, _, happening))) = self.agenda.peek().copied() {
            if at > self.now {
                return;
            }
            self.agenda.pop();
            let is_dark =
                at < self.dark_until && !matches!(happening, Happening::Kick | Happening::Push);
            if is_dark {
                self.plan(self.dark_until, happening);
            } else {
                self.trace(|| format!("{happening:?}"));
                self.happen(happening, at);
            }
        }
    }

    fn happen(&mut self, happening: Happening, at: Moment) {
        match happening {
            Happening::Connect { device } => {
                let rng = self.clients.next_rng_of(device);
                let link = self.kernel.connect(rng);
                let plan = self.plan_way(link);
                let wait = self.clients.on_connected(link, device, &self.config, plan);
                self.begin_way(link, at);
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::Act { link });
                }
            }
            Happening::Act { link } => {
                let Some((step, wait)) = self.clients.next_step(link) else { return };
                self.tally.note("step", step.word(), 1);
                self.act(link, step, at);
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::Act { link });
                }
            }
            Happening::Answer { link } => {
                self.clients.pong(link);
                self.flush(link, at);
            }
            Happening::Ack { link, seq } => {
                self.clients.ack(link, seq);
                self.flush(link, at);
            }
            Happening::Begin { link } => {
                self.clients.begin(link);
                self.flush(link, at);
            }
            Happening::Wire { link } => self.flush(link, at),
            Happening::Leave { link } => self.finish(link, at),
            Happening::StopReading { link } => self.act(link, Step::StopReading, at),
            Happening::GiveUp { link } => {
                self.kernel.touch(link, |wire| wire.break_with(IoFault::TimedOut));
            }
            Happening::Judged { conn, verdict } => self.verdicts_waiting.push((conn, verdict)),
            Happening::Kick => self.kicks_waiting += 1,
            Happening::Push => self.pushes.waiting += 1,
            Happening::Disaster { fault } => self.befall(fault, at),
        }
    }

    fn act(&mut self, link: usize, step: Step, at: Moment) {
        match step {
            Step::Write { .. } => self.flush(link, at),
            Step::Greet { hello, shows } => {
                self.clients.hello(link, hello, shows);
                self.flush(link, at);
            }
            Step::Finish => self.finish(link, at),
            Step::Reset => self.kernel.touch(link, |wire| wire.break_with(IoFault::Reset)),
            Step::Fail => self.kernel.touch(link, |wire| wire.break_with(IoFault::Unreachable)),
            Step::Restart => self.kernel.touch(link, |wire| wire.forget()),
            Step::Vanish => {
                let patience = self.config.rhythm.timeout.times(2);
                let mut wait = None;
                self.kernel.touch(link, |wire| {
                    let window_bytes = wire.rng.usize(0..3_000);
                    wire.stop_reading(window_bytes);
                    wait = wire.rng.bool().then(|| span_upto(&mut wire.rng, patience));
                });
                if let Some(wait) = wait {
                    self.plan(at + wait, Happening::GiveUp { link });
                }
            }
            // Who pings much does so until it is in, and beyond.
            Step::StopReading if self.is_to_ping_first(link) => {
                let wait = self.config.rhythm.interval.divided_by(10);
                self.plan(at + wait, Happening::StopReading { link });
            }
            Step::StopReading => self.kernel.touch(link, |wire| {
                let window_bytes = wire.rng.usize(100..2_000);
                wire.stop_reading(window_bytes);
            }),
            Step::ConnectAgain => {
                let device = self.clients.device(link);
                self.plan(at, Happening::Connect { device });
            }
        }
    }

    fn befall(&mut self, fault: Fault, at: Moment) {
        if fault == Fault::Storm {
            for device in self.devices.clone() {
                self.plan(at, Happening::Connect { device });
            }
            return;
        }
        if fault == Fault::Duel {
            let Some(device) = self.devices.first().copied() else { return };
            let mut at = at;
            for _ in 0..self.rng.u32(4..30) {
                at += span_upto(&mut self.rng, Span::from_secs(2));
                self.plan(at, Happening::Connect { device });
            }
            return;
        }
        for link in self.kernel.held() {
            let is_hit = self.clients.device(link).is_multiple_of(2);
            if is_hit && fault == Fault::MassDeath {
                self.clients.vanish(link);
                self.act(link, Step::Vanish, at);
            } else if is_hit {
                self.act(link, Step::Reset, at);
            }
        }
    }

    /// Clients read what came, and do what follows from it.
    pub(super) fn let_clients_hear(&mut self) {
        for (link, bytes) in self.kernel.take_heard() {
            let answers = self.clients.hear(link, &bytes, self.now);
            for wait in answers.pongs {
                self.plan(self.now + wait, Happening::Answer { link });
            }
            for (seq, wait) in answers.acks {
                self.plan(self.now + wait, Happening::Ack { link, seq });
            }
            if let Some(wait) = answers.wire {
                self.plan(self.now + wait, Happening::Wire { link });
            }
            if let Some(wait) = answers.leaves {
                self.plan(self.now + wait, Happening::Leave { link });
            }
        }
    }

    pub(super) fn kick(&mut self) {
        self.oracle.on_told(self.now);
        if self.rng.usize(0..3) == 0 {
            return self.rebalance();
        }
        let online = self.oracle.online();
        let absent = Command::Kick(Kick::of(ClientId::new("nobody").expect("a client id")));
        assert_eq!(self.gateway.on_command(absent, self.now), Reply::NoSuchClient);
        if !online.is_empty() {
            let device = online[self.rng.usize(0..online.len())];
            let client = ClientId::new(&client_id(device)).expect("a client id");
            let kick = Command::Kick(Kick::of(client));
            assert_eq!(self.gateway.on_command(kick, self.now), Reply::Done);
            self.oracle.on_kick(device, self.now);
        }
        self.read_ledger(self.now);
    }

    /// A part of them is asked to go elsewhere.
    fn rebalance(&mut self) {
        let rebalance = leave::rebalance(&mut self.rng);
        let reply = self.gateway.on_command(Command::Rebalance(rebalance), self.now);
        self.read_ledger(self.now);
        if self.oracle.drain_ordered.is_some() {
            return assert_eq!(reply, Reply::Draining);
        }
        assert_eq!(reply, Reply::Done);
        self.oracle.on_rebalance();
        self.tally.note("drain", "rebalance", 1);
    }
}
