//! The fleet on the real kernel: one thread, one driver, one clock.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use crate::base::io::Op;
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::layers::Layers;
use crate::layers::terms::{SharedTerms, Terms};
use crate::load::fleet::{Fleet, FleetError, Progress, WhenIdle};
use crate::load::plan::Plan;
use crate::load::tally::Tally;
use crate::os::clock::Clock;
use crate::os::driver::{Driver, DriverConfig, DriverError, DriverKind, More};
use crate::os::epoll;
use crate::os::machine;
use crate::os::ring::{self, Descriptors, RingSizes};
use crate::os::wake::Waker;

/// Between two looks at how far the run is.
const OBSERVE_EVERY: Span = Span::from_millis(100);

/// What the machine allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Room {
    /// By what means the kernel is asked.
    pub driver: DriverKind,
    /// Where sockets are kept.
    pub descriptors: Descriptors,
    /// Sockets that one ring holds at most.
    pub files_per_ring: u32,
}

impl From<machine::Plan> for Room {
    fn from(plan: machine::Plan) -> Self {
        let machine::Plan { driver, descriptors, files_per_ring, .. } = plan;
        Self { driver, descriptors, files_per_ring }
    }
}

/// What whoever watches the run wants.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wish {
    /// The run shall go on.
    GoOn,
    /// The run shall go on, and what happens from now on be counted apart, too.
    OpenWindow,
    /// The run shall end now.
    End,
}

/// What one may ask of a fleet while it runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Steer {
    /// This client falls silent, if it is in.
    Silence(u32),
    /// This client beats again, or comes back.
    Revive(u32),
    /// The run ends.
    End,
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was counted.
    pub tally: Tally,
    /// Why it was given up, if it was.
    pub trouble: Option<FleetError>,
}

/// Why a fleet cannot be put to sea.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// No driver.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The thread ended before it said anything.
    #[error("the thread of the pretend clients ended at once")]
    Lost,
}

/// Runs a plan to its end, on this thread. `observe` is called about ten times a second.
pub fn run(
    plan: Plan,
    room: Room,
    observe: impl FnMut(Progress) -> Wish,
) -> Result<Outcome, DriverError> {
    run_in_layers(plan, room, Terms::default(), observe)
}

/// The same, with what is around the clients' frames.
pub fn run_in_layers(
    plan: Plan,
    room: Room,
    terms: Terms,
    observe: impl FnMut(Progress) -> Wish,
) -> Result<Outcome, DriverError> {
    let driver = driver_for(&plan, room)?;
    sail(driver, plan, terms, WhenIdle::End, None, observe)
}

/// A fleet on a thread of its own, to be steered.
#[derive(Debug)]
pub struct Helm {
    steers: SyncSender<Steer>,
    waker: Waker,
    thread: JoinHandle<Result<Outcome, DriverError>>,
}

impl Helm {
    /// Starts the fleet; it stays until its plan ends, or until it is told to end.
    pub fn launch(plan: Plan, room: Room) -> Result<Self, LaunchError> {
        let (steers, steered) = sync_channel(limits::COMMAND_QUEUE_MAX);
        let (ready, launched) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("pretend clients".into())
            .spawn(move || launch(plan, room, steered, &ready))
            .map_err(LaunchError::Thread)?;
        match launched.recv() {
            Ok(waker) => Ok(Self { steers, waker, thread }),
            // The thread says why it ended.
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error.into()),
                Ok(Ok(_)) | Err(_) => Err(LaunchError::Lost),
            },
        }
    }

    /// Asks the fleet for something. Whether there was room for it; never blocks.
    pub fn steer(&self, steer: Steer) -> bool {
        let is_sent = self.steers.try_send(steer).is_ok();
        self.waker.wake();
        is_sent
    }

    /// Whether the fleet has come home by itself.
    pub fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the run, if it has not ended, and waits until the fleet is home: a few seconds at most.
    pub fn join(self) -> Result<Outcome, LaunchError> {
        let Self { steers, waker, thread } = self;
        // Closing the channel ends the run, even where the queue has no room for another word.
        drop(steers);
        waker.wake();
        match thread.join() {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(LaunchError::Lost),
        }
    }
}

fn launch(
    plan: Plan,
    room: Room,
    steered: Receiver<Steer>,
    ready: &SyncSender<Waker>,
) -> Result<Outcome, DriverError> {
    // A driver belongs to the thread that made it.
    let driver = driver_for(&plan, room)?;
    if ready.send(driver.waker()).is_err() {
        let trouble = None;
        return Ok(Outcome { tally: Tally::default(), trouble });
    }
    sail(driver, plan, Terms::default(), WhenIdle::Stay, Some(&steered), |_| Wish::GoOn)
}

fn driver_for(plan: &Plan, room: Room) -> Result<Driver, DriverError> {
    let (connections_max, listener) = (plan.clients(), None);
    Driver::new(match room.driver {
        DriverKind::IoUring => DriverConfig::Ring(ring::DriverConfig {
            connections_max,
            descriptors: room.descriptors,
            listener,
            sizes: RingSizes::new(connections_max, room.files_per_ring),
        }),
        DriverKind::Epoll => DriverConfig::Epoll(epoll::DriverConfig { connections_max, listener }),
    })
}

fn sail(
    mut driver: Driver,
    plan: Plan,
    terms: Terms,
    when_idle: WhenIdle,
    steered: Option<&Receiver<Steer>>,
    mut observe: impl FnMut(Progress) -> Wish,
) -> Result<Outcome, DriverError> {
    let clock = Clock::new();
    let mut fleet = Fleet::new(plan, when_idle, clock.now());
    let mut layers = Layers::new(SharedTerms::new(terms));
    let mut ops = Vec::new();
    let mut observe_at = clock.now();
    fleet.on_time(clock.now());
    while let Some(wake) = fleet.next_wake() {
        let now = clock.now();
        submit(&mut driver, &mut layers, &mut fleet, &mut ops, now);
        let wake = layers.next_wake().map_or(wake, |layers| wake.min(layers)).min(observe_at);
        let holds_up = layers.take_awaits_send() || layers.has_work();
        driver.wait(Some(if holds_up { Span::ZERO } else { wake.since(now) }))?;
        take_in(&mut driver, &mut layers, &mut fleet, clock)?;
        let now = clock.now();
        layers.work(now, |completion| fleet.on_completion(completion, now));
        if let Some(steered) = steered {
            obey(&mut fleet, steered, clock.now());
        }
        let now = clock.now();
        fleet.on_time(now);
        if now >= observe_at {
            observe_at = now + OBSERVE_EVERY;
            match observe(fleet.progress(now)) {
                Wish::GoOn => {}
                Wish::OpenWindow => fleet.open_window(now),
                Wish::End => fleet.stop(now),
            }
        }
    }
    Ok(Outcome { tally: fleet.tally().clone(), trouble: fleet.trouble().cloned() })
}

/// Hands everything that has arrived to the fleet, within the budget of a turn. Every completion
/// gets the time at which it was seen: round trips and detections are measured by it.
fn take_in(
    driver: &mut Driver,
    layers: &mut Layers,
    fleet: &mut Fleet,
    clock: Clock,
) -> Result<(), DriverError> {
    let mut budget = limits::TURN_COMPLETIONS_MAX;
    let mut ops = Vec::new();
    while budget > 0 {
        let drained = driver.drain(budget.min(limits::REAP_BATCH_MAX), |completion| {
            layers.on_completion(completion, |completion| {
                fleet.on_completion(completion, clock.now());
            });
        })?;
        submit(driver, layers, fleet, &mut ops, clock.now());
        budget = budget.saturating_sub(drained.completions.max(1));
        match drained.more {
            More::Maybe => {}
            More::Nothing => break,
        }
    }
    Ok(())
}

/// Hands what the fleet wants to the kernel, in its layers.
fn submit(
    driver: &mut Driver,
    layers: &mut Layers,
    fleet: &mut Fleet,
    ops: &mut Vec<Op>,
    now: Moment,
) {
    fleet.take_ops(ops);
    layers.on_ops(ops, now);
    driver.submit(ops);
}

fn obey(fleet: &mut Fleet, steered: &Receiver<Steer>, now: Moment) {
    use std::sync::mpsc::TryRecvError;
    for _ in 0..limits::TURN_COMMANDS_MAX {
        // Whether it had an effect is seen by what the server tells.
        match steered.try_recv() {
            Ok(Steer::Silence(index)) if index < fleet.plan().clients() => {
                fleet.silence(index);
            }
            Ok(Steer::Revive(index)) if index < fleet.plan().clients() => {
                fleet.revive(index, now);
            }
            Ok(Steer::Silence(_) | Steer::Revive(_)) => {}
            Ok(Steer::End) | Err(TryRecvError::Disconnected) => return fleet.stop(now),
            Err(TryRecvError::Empty) => return,
        }
    }
}
