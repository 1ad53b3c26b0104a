//! Several loops, each on a thread of its own, and one door to all of them.
//!
//! A client id belongs to one shard. All shards accept from one listening socket, so a connection
//! may come in where its client does not belong; its gateway says so, and it is handed over. Each
//! pair of shards has a queue for that, bounded and lock-free. Nobody waits: what a full queue does
//! not take stays with its driver until the next turn.

use std::io;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::base::config::{GatewayConfig, Shard};
use crate::base::ids::ClientId;
use crate::base::limits;
use crate::base::time::Span;
use crate::gateway::{Command, Kick, Stats, owner};
use crate::layers::terms::SharedTerms;
use crate::os::clock::Clock;
use crate::os::driver::{DriverConfig, DriverError};
use crate::os::parcel::Parcel;
use crate::os::wake::Waker;
use crate::server::Server;
use crate::server::mailbox::{Asker, Busy, Reader, Ticket};

const _: () = assert!(limits::SHARDS_MAX as u32 <= u64::BITS);

/// Bits of a slot in what is told outside; the shard's number is above them.
const SLOT_BITS: u32 = 24;

/// Why shards cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A ring cannot be had.
    #[error(transparent)]
    Ring(#[from] DriverError),
    /// A thread cannot be had.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// How all loops ended.
#[derive(Debug)]
pub struct Ended {
    /// How many events the side thread did not take in time, or the first error of a ring.
    pub outcome: Result<usize, DriverError>,
    /// How things were at the end, of all shards together.
    pub stats: Stats,
}

/// Loops that are ready to turn. The first one turns on the thread that calls [`run`](Self::run).
pub struct Shards {
    first: Server,
    others: Vec<JoinHandle<Ended>>,
    /// Those of the others, which they turn with.
    starts: Vec<(SyncSender<Exchange>, Exchange)>,
}

/// Asks the shards as if they were one. For one thread.
pub struct Switchboard {
    askers: Vec<Asker>,
    shard: Shard,
}

/// Sets up a loop for each of `plans`, in the order of their shards. With one of them there are no
/// threads and no queues, and nothing is as it would be with several.
///
/// The readers are in the same order. What they tell is numbered by each shard for itself. Each
/// loop [coalesces](Server::coalesce) for `window` and lets clients in on these `terms`.
///
/// # Errors
/// When the machine does not give a ring or a thread.
pub fn start(
    plans: Vec<(DriverConfig, GatewayConfig)>,
    clock: Clock,
    window: Span,
    terms: &SharedTerms,
) -> Result<(Shards, Switchboard, Vec<Reader>), StartError> {
    let mut plans = plans.into_iter();
    let (driver, gateway) = plans.next().expect("there is at least one shard");
    let shard = gateway.shard;
    let (mut first, asker, reader) = open(driver, gateway, clock, window, terms)?;
    let (mut askers, mut readers) = (vec![asker], vec![reader]);
    let mut wakers = vec![first.driver.waker()];
    let (mut others, mut starts) = (Vec::new(), Vec::new());
    for (index, (driver, gateway)) in (1..).zip(plans) {
        let began = begin(index, (driver, gateway), clock, window, terms)?;
        askers.push(began.asker);
        readers.push(began.reader);
        wakers.push(began.waker);
        starts.push(began.start);
        others.push(began.thread);
    }
    let mut exchanges = Vec::new();
    if !others.is_empty() {
        exchanges = connect(wakers);
        first.exchange = Some(exchanges.remove(0));
    }
    let starts = starts.into_iter().zip(exchanges).collect();
    Ok((Shards { first, others, starts }, Switchboard::new(askers, shard), readers))
}

/// One of the loops, on the thread that will turn it.
fn open(
    driver: DriverConfig,
    gateway: GatewayConfig,
    clock: Clock,
    window: Span,
    terms: &SharedTerms,
) -> Result<(Server, Asker, Reader), DriverError> {
    let (mut server, asker, reader) = Server::new(driver, gateway, clock)?;
    server.coalesce(window);
    server.set_terms(terms.clone());
    Ok((server, asker, reader))
}

/// A shard on a thread of its own, waiting to be connected with the others. It ends when it is
/// dropped instead.
struct Began {
    asker: Asker,
    reader: Reader,
    waker: Waker,
    start: SyncSender<Exchange>,
    thread: JoinHandle<Ended>,
}

fn begin(
    index: usize,
    (driver, gateway): (DriverConfig, GatewayConfig),
    clock: Clock,
    window: Span,
    terms: &SharedTerms,
) -> Result<Began, StartError> {
    let terms = terms.clone();
    let (ready_in, ready) = sync_channel(1);
    let (start, exchange) = sync_channel(1);
    let thread = thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
        // A ring belongs to the thread that makes it.
        match open(driver, gateway, clock, window, &terms) {
            Ok((server, asker, reader)) => {
                let _ = ready_in.send(Ok((asker, reader, server.driver.waker())));
                live(server, &exchange)
            }
            Err(error) => {
                let _ = ready_in.send(Err(error));
                Ended { outcome: Ok(0), stats: Stats::default() }
            }
        }
    })?;
    match ready.recv() {
        Ok(Ok((asker, reader, waker))) => Ok(Began { asker, reader, waker, start, thread }),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => match thread.join() {
            Err(panic) => resume_unwind(panic),
            Ok(_) => Err(io::Error::other("it ended before it began").into()),
        },
    }
}

/// The life of a shard's thread.
fn live(mut server: Server, exchange: &Receiver<Exchange>) -> Ended {
    let Ok(exchange) = exchange.recv() else {
        return Ended { outcome: Ok(0), stats: Stats::default() };
    };
    let alarm = Alarm(Arc::clone(&exchange.common));
    server.exchange = Some(exchange);
    let ended = turn_to_the_end(server);
    drop(alarm);
    ended
}

fn turn_to_the_end(mut server: Server) -> Ended {
    let outcome = server.run();
    if let (Err(_), Some(exchange)) = (&outcome, &server.exchange) {
        exchange.common.fail();
    }
    Ended { outcome, stats: server.stats() }
}

/// Ends all shards when the thread of one of them ends by a panic.
struct Alarm(Arc<Common>);

impl Drop for Alarm {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail();
        }
    }
}

impl Shards {
    /// The first loop, for looking at.
    pub fn first(&self) -> &Server {
        &self.first
    }

    /// Turns all loops until a drain is over in all of them, or a ring fails: then all end.
    pub fn run(self) -> Ended {
        let alarm = self.first.exchange.as_ref().map(|exchange| Arc::clone(&exchange.common));
        let alarm = alarm.map(Alarm);
        for (start, exchange) in self.starts {
            // A thread that is gone already is found when it is joined.
            let _ = start.send(exchange);
        }
        let mut all = turn_to_the_end(self.first);
        drop(alarm);
        for thread in self.others {
            match thread.join() {
                Ok(ended) => {
                    all.stats.add(&ended.stats);
                    all.outcome = match (all.outcome, ended.outcome) {
                        (Ok(untold), Ok(more)) => Ok(untold + more),
                        (Err(error), _) | (Ok(_), Err(error)) => Err(error),
                    };
                }
                Err(panic) => resume_unwind(panic),
            }
        }
        all
    }
}

// --- asking --------------------------------------------------------------------------------------

impl Switchboard {
    /// Asks through `askers`, one for each shard in their order. `shard` is any of the shards.
    pub(crate) fn new(askers: Vec<Asker>, shard: Shard) -> Self {
        Self { askers, shard }
    }

    /// Puts a question to whom it concerns. The answer comes through the reader of that shard, with
    /// a number of its own; [`ticket_outside`] and [`slot_outside`] turn that into what is known
    /// here. What concerns all is asked of all or of nobody, and the ticket is the first one's.
    ///
    /// # Errors
    /// When somebody who is concerned has too many questions waiting.
    pub fn ask(&mut self, command: Command) -> Result<Ticket, Busy> {
        let count = self.askers.len();
        let (index, command) = match command {
            Command::Drain(_)
            | Command::Rebalance(_)
            | Command::Reconfigure(_)
            | Command::Stats
            | Command::Groups { .. }
            | Command::Broadcast(_)
            | Command::BroadcastStatus { .. } => return self.ask_all(&command),
            Command::Push(ref push) => {
                (push.clients.first().map_or(0, |client| self.owner_of(client)), command)
            }
            Command::Outcomes { ref of } => {
                (of.first().map_or(0, |taken| self.owner_of(&taken.client)), command)
            }
            Command::Kick(Kick { ref client, .. })
            | Command::SetRhythm { ref client, .. }
            | Command::Session { ref client }
            | Command::Measure { ref client }
            | Command::Join { ref client, .. }
            | Command::Leave { ref client, .. } => {
                (usize::from(owner(self.shard, client.as_str())), command)
            }
            Command::Sessions { from_slot, limit, filter } => {
                let (index, from_slot) = self.slot_inside(from_slot);
                (index, Command::Sessions { from_slot, limit, filter })
            }
            Command::Clients { from_slot, limit } => {
                let (index, from_slot) = self.slot_inside(from_slot);
                (index, Command::Clients { from_slot, limit })
            }
        };
        let ticket = self.askers[index].ask(command)?;
        Ok(ticket_outside(ticket, index, count))
    }

    /// Which shard a client belongs to. What is asked about several clients at once is about those
    /// of one shard.
    pub fn owner_of(&self, client: &ClientId) -> usize {
        usize::from(owner(self.shard, client.as_str()))
    }

    /// Which shard a slot is in, and which one it is there.
    fn slot_inside(&self, slot: u32) -> (usize, u32) {
        let shard = (slot >> SLOT_BITS) as usize;
        (shard.min(self.askers.len() - 1), slot & ((1 << SLOT_BITS) - 1))
    }

    fn ask_all(&mut self, command: &Command) -> Result<Ticket, Busy> {
        let count = self.askers.len();
        if !self.askers.iter().all(Asker::has_room) {
            return Err(Busy);
        }
        let mut first = Err(Busy);
        for (index, asker) in self.askers.iter_mut().enumerate().rev() {
            first = asker.ask(command.clone()).map(|ticket| ticket_outside(ticket, index, count));
        }
        first
    }
}

/// What a ticket of one of `count` shards is called outside.
pub fn ticket_outside(ticket: Ticket, shard: usize, count: usize) -> Ticket {
    Ticket(ticket.0 * count as u64 + shard as u64)
}

/// What a slot of a shard is called outside: in events, and where a page begins.
pub fn slot_outside(slot: u32, shard: usize) -> u32 {
    let shard = u32::try_from(shard).expect("limits keep the shards few");
    shard << SLOT_BITS | slot
}

/// Where the next page begins, after one of this shard: in it, in the next one, or nowhere.
pub fn next_slot_outside(next_slot: Option<u32>, shard: usize, count: usize) -> Option<u32> {
    match next_slot {
        Some(slot) => Some(slot_outside(slot, shard)),
        None if shard + 1 < count => Some(slot_outside(0, shard + 1)),
        None => None,
    }
}

// --- handing over --------------------------------------------------------------------------------

/// What all shards know of each other.
struct Common {
    wakers: Vec<Waker>,
    /// Connections of each that count towards the total.
    connections: Vec<AtomicUsize>,
    /// Which of them will hand over nothing more. Set once.
    is_settled: Vec<AtomicBool>,
    /// A ring failed, or a thread did: all end.
    has_failed: AtomicBool,
}

impl Common {
    fn fail(&self) {
        self.has_failed.store(true, Ordering::Release);
        self.wakers.iter().for_each(Waker::wake);
    }
}

/// A shard's end of the queues to and from all others.
pub(super) struct Exchange {
    index: usize,
    common: Arc<Common>,
    /// By shard; `None` at its own place.
    outgoing: Vec<Option<rtrb::Producer<Parcel>>>,
    incoming: Vec<Option<rtrb::Consumer<Parcel>>>,
    /// Who was sent something and not woken: a bit for each shard.
    unrung: u64,
    /// Whom to look at first for arrivals.
    first: usize,
    is_settled: bool,
}

/// Queues between all of them.
fn connect(wakers: Vec<Waker>) -> Vec<Exchange> {
    let count = wakers.len();
    let common = Arc::new(Common {
        connections: (0..count).map(|_| AtomicUsize::new(0)).collect(),
        is_settled: (0..count).map(|_| AtomicBool::new(false)).collect(),
        has_failed: AtomicBool::new(false),
        wakers,
    });
    let exchange = |index| Exchange {
        index,
        common: Arc::clone(&common),
        outgoing: (0..count).map(|_| None).collect(),
        incoming: (0..count).map(|_| None).collect(),
        unrung: 0,
        first: 0,
        is_settled: false,
    };
    let mut exchanges: Vec<Exchange> = (0..count).map(exchange).collect();
    for from in 0..count {
        for to in (0..count).filter(|to| *to != from) {
            let (outgoing, incoming) = rtrb::RingBuffer::new(limits::MOVE_QUEUE_MAX);
            exchanges[from].outgoing[to] = Some(outgoing);
            exchanges[to].incoming[from] = Some(incoming);
        }
    }
    exchanges
}

impl Exchange {
    fn has_room(&self, to: u16) -> bool {
        let outgoing = self.outgoing.get(usize::from(to)).and_then(Option::as_ref);
        outgoing.is_some_and(|queue| queue.slots() > 0)
    }

    /// Sends a parcel, for which there is room.
    fn send(&mut self, parcel: Parcel) {
        let to = usize::from(parcel.to);
        if let Some(queue) = self.outgoing.get_mut(to).and_then(Option::as_mut) {
            // Room was seen, and nobody else sends. A shard that has ended takes nothing, and then
            // all are ending.
            let _ = queue.push(parcel);
            self.unrung |= 1 << to;
        }
    }

    /// Wakes whoever was sent something since the last call, once.
    fn ring(&mut self) {
        let mut unrung = std::mem::take(&mut self.unrung);
        while unrung != 0 {
            self.common.wakers[unrung.trailing_zeros() as usize].wake();
            unrung &= unrung - 1;
        }
    }

    /// The next parcel from anybody, each in turn.
    fn receive(&mut self) -> Option<Parcel> {
        let count = self.incoming.len();
        for step in 0..count {
            let from = (self.first + step) % count;
            let queue = self.incoming[from].as_mut();
            if let Some(parcel) = queue.and_then(|queue| queue.pop().ok()) {
                self.first = from + 1;
                return Some(parcel);
            }
        }
        None
    }

    fn has_parcels(&self) -> bool {
        self.incoming.iter().flatten().any(|queue| !queue.is_empty())
    }

    fn connections_elsewhere(&self) -> usize {
        let others = self.common.connections.iter().enumerate();
        let others = others.filter(|(index, _)| *index != self.index);
        others.map(|(_, count)| count.load(Ordering::SeqCst)).sum()
    }

    fn are_all_settled(&self) -> bool {
        self.common.is_settled.iter().all(|settled| settled.load(Ordering::Acquire))
    }
}

impl Server {
    /// Says how many connections are here. Before anything is said to a client, so that whoever
    /// hears from one shard is known to all.
    pub(super) fn publish_count(&self) {
        if let Some(exchange) = &self.exchange {
            let own = &exchange.common.connections[exchange.index];
            own.store(self.gateway.here(), Ordering::SeqCst);
        }
    }

    /// Hears how many connections the others have, before newcomers are judged by it.
    pub(super) fn note_elsewhere(&mut self) {
        if let Some(exchange) = &self.exchange {
            self.gateway.set_elsewhere(exchange.connections_elsewhere());
        }
    }

    /// Hands connections over, and takes connections in.
    pub(super) fn trade(&mut self) {
        let Some(exchange) = &mut self.exchange else { return };
        while let Some(parcel) = self.driver.take_departure(|to| exchange.has_room(to)) {
            let baggage = self.layers.pack(parcel.from);
            exchange.send(Parcel { baggage, ..parcel });
        }
        exchange.ring();
        let room = self.gateway.room_for_arrivals().saturating_sub(self.driver.arriving());
        for _ in 0..room.min(limits::TURN_ARRIVALS_MAX) {
            let Some(parcel) = exchange.receive() else { break };
            self.driver.arrive(parcel);
        }
        if self.gateway.moves_no_more() && !exchange.is_settled {
            exchange.is_settled = true;
            exchange.common.is_settled[exchange.index].store(true, Ordering::Release);
            exchange.common.wakers.iter().for_each(Waker::wake);
        }
    }

    /// Whether somebody waits to be handed over or taken in: for a full queue nobody rings.
    pub(super) fn is_trade_held_up(&self) -> bool {
        let waits = |exchange: &Exchange| self.driver.has_departures() || exchange.has_parcels();
        self.exchange.as_ref().is_some_and(waits)
    }

    /// Whether this loop has nothing more to do: everybody has left, and nobody can arrive any
    /// more. Among shards all have to say so, and then the queues are looked at once more.
    pub(super) fn is_over(&self) -> bool {
        let Some(exchange) = &self.exchange else { return self.gateway.is_drained() };
        if exchange.common.has_failed.load(Ordering::Acquire) {
            return true;
        }
        self.gateway.is_drained()
            && exchange.are_all_settled()
            && !exchange.has_parcels()
            && self.driver.arriving() == 0
            && self.gateway.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ConnId;
    use crate::base::introduction::Baggage;
    use crate::gateway::{Drain, Reply};
    use crate::os::ring::{self, Descriptors, RingSizes};
    use crate::server::Turn;
    use crate::server::mailbox::{Heard, News};
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    const COUNT: u16 = 2;

    fn shard(index: u16) -> Shard {
        Shard { index, count: COUNT, key: [1, 2], connections_total: 100 }
    }

    fn plan(index: u16) -> (DriverConfig, GatewayConfig) {
        let driver = ring::DriverConfig {
            connections_max: 512,
            descriptors: Descriptors::Ordinary,
            listener: None,
            sizes: RingSizes::new(512, 512),
        };
        let config =
            GatewayConfig { connections_max: 4, shard: shard(index), ..Default::default() };
        (driver.into(), config)
    }

    /// A connection for `to`, and its peer.
    fn parcel(to: u16) -> (Parcel, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("it is");
        let (socket, address) = listener.accept().expect("somebody connected");
        let (from, baggage) = (ConnId { slot: 0, generation: 0 }, Baggage::default());
        let (bytes, socket) = (Vec::new(), socket.into());
        (Parcel { to, peer: address, bytes, from, baggage, socket }, peer)
    }

    fn wakers(count: usize) -> Vec<Waker> {
        (0..count).map(|_| Waker::new().expect("an eventfd")).collect()
    }

    #[test]
    fn a_full_queue_takes_no_more_and_everybody_is_heard_in_turn() {
        let mut exchanges = connect(wakers(3));
        let mut peers = Vec::new();
        for from in [0, 2] {
            assert!(!exchanges[from].has_room(u16::try_from(from).expect("few")), "nobody's own");
            assert!(!exchanges[from].has_room(3), "nobody at all");
            while exchanges[from].has_room(1) {
                let (parcel, peer) = parcel(1);
                exchanges[from].send(parcel);
                peers.push(peer);
            }
        }
        assert_eq!(peers.len(), 2 * limits::MOVE_QUEUE_MAX);
        assert!(exchanges[1].has_parcels());
        exchanges[1].receive().expect("a parcel");
        exchanges[1].receive().expect("a parcel");
        assert!(exchanges[0].has_room(1) && exchanges[2].has_room(1), "one from each");
        let rest = std::iter::from_fn(|| exchanges[1].receive()).count();
        assert_eq!(rest, peers.len() - 2);
        assert!(!exchanges[1].has_parcels());
    }

    /// Two loops that one thread turns.
    fn pair() -> [(Server, Asker, Reader); 2] {
        let mut pair = [0, 1].map(|index| {
            let (driver, gateway) = plan(index);
            Server::new(driver, gateway, Clock::new()).expect("a ring")
        });
        let wakers = pair.iter().map(|(server, ..)| server.driver.waker()).collect();
        for ((server, ..), exchange) in pair.iter_mut().zip(connect(wakers)) {
            server.exchange = Some(exchange);
        }
        pair
    }

    fn turn(server: &mut Server) -> Turn {
        server.driver.waker().wake();
        server.turn().expect("a ring")
    }

    #[test]
    fn whoever_is_sent_something_is_woken() {
        let [(mut one, ..), (mut two, ..)] = pair();
        let (parcel, _peer) = parcel(0);
        let exchange = two.exchange.as_mut().expect("set above");
        exchange.send(parcel);
        exchange.ring();
        let clock = Clock::new();
        let began = clock.now();
        one.driver.wait(Some(Span::from_secs(20))).expect("a ring");
        assert!(clock.now().since(began) < Span::from_secs(10), "it slept");
    }

    #[test]
    fn a_shard_is_over_when_nobody_can_arrive_any_more() {
        let [(mut one, mut ask_one, _r1), (mut two, mut ask_two, _r2)] = pair();
        let drain = Command::Drain(Drain::at_once(Span::ZERO));
        ask_one.ask(drain.clone()).expect("there is room");
        for _ in 0..5 {
            assert_eq!(turn(&mut one), Turn::Goes, "the other may still hand over");
        }
        assert!(one.gateway.is_drained());
        let (parcel, mut peer) = parcel(0);
        two.exchange.as_mut().expect("set above").send(parcel);
        ask_two.ask(drain).expect("there is room");
        for _ in 0..5 {
            turn(&mut two);
        }
        assert!(!one.is_over(), "somebody has arrived");
        let clock = Clock::new();
        let began = clock.now();
        while turn(&mut one) == Turn::Goes {
            assert!(clock.now().since(began) < Span::from_secs(10), "it does not end");
        }
        assert_eq!(one.gateway.stats().arrived, 1);
        let mut said = Vec::new();
        let _ended = peer.read_to_end(&mut said);
        assert_eq!(said.first(), Some(&0x07), "it is told to leave");
        assert!(matches!(turn(&mut two), Turn::Over { untold: 0 }));
    }

    #[test]
    fn beats_wait_for_each_other_in_every_shard() {
        let (driver, gateway) = plan(1);
        let window = Span::from_millis(5);
        let (mut server, ..) =
            open(driver, gateway, Clock::new(), window, &SharedTerms::default()).expect("a ring");
        let later = server.clock.now() + Span::from_millis(500);
        assert_eq!(server.pace.window(later, 1_000, 0), window, "a crowd is gathered");
    }

    #[test]
    fn when_one_fails_all_end() {
        let [(mut one, ..), (two, ..)] = pair();
        two.exchange.as_ref().expect("set above").common.fail();
        // Nobody reads what is told, so nothing is waited for.
        assert!(matches!(turn(&mut one), Turn::Over { .. }));
    }

    #[test]
    fn questions_go_to_whom_they_concern() {
        let plans = (0..COUNT).map(plan).collect();
        let (shards, mut switchboard, mut readers) =
            start(plans, Clock::new(), Span::ZERO, &SharedTerms::default())
                .expect("rings and a thread");
        let client = (0..)
            .map(|number| format!("client-{number}"))
            .find(|name| owner(shard(0), name) == 1)
            .and_then(|name| crate::base::ids::ClientId::new(&name).ok())
            .expect("a hash spreads");
        let kick = switchboard.ask(Command::Kick(Kick::of(client))).expect("there is room");
        let from_slot = slot_outside(0, 1);
        let page = switchboard.ask(Command::Clients { from_slot, limit: 5 }).expect("the same");
        let stats = switchboard.ask(Command::Stats).expect("the same");
        switchboard.ask(Command::Drain(Drain::at_once(Span::ZERO))).expect("the same");
        let ended = shards.run();
        assert_eq!(ended.outcome.expect("no ring failed"), 0);
        let mut answers: Vec<Vec<(Ticket, Reply)>> = vec![Vec::new(), Vec::new()];
        for (index, reader) in readers.iter_mut().enumerate() {
            let mut news: Vec<News> = Vec::new();
            assert_eq!(reader.take(1_000, &mut news), Heard::Ended);
            answers[index].extend(news.into_iter().filter_map(|news| match news {
                News::Reply { ticket, reply } => Some((ticket_outside(ticket, index, 2), reply)),
                News::Event(_)
                | News::Transport(_)
                | News::Wall(_)
                | News::Stats(_)
                | News::Loop(_)
                | News::Driver(_) => None,
            }));
        }
        let of = |index: usize, ticket| {
            answers[index].iter().find(|(of, _)| *of == ticket).map(|(_, reply)| reply)
        };
        assert_eq!(of(1, kick), Some(&Reply::NoSuchClient));
        assert!(matches!(of(1, page), Some(Reply::Clients { next_slot: None, .. })));
        assert!(matches!(of(0, stats), Some(Reply::Stats(_))), "the first one's ticket");
        assert_eq!(answers[0].len(), 2, "what concerns all, and no more");
        assert_eq!(answers[1].len(), 4);
    }

    #[test]
    fn what_concerns_all_is_asked_of_all_or_of_nobody() {
        let (one, _inside_one) = asker();
        let (two, mut inside_two) = asker();
        let mut switchboard = Switchboard { askers: vec![one, two], shard: shard(0) };
        for _ in 0..limits::COMMAND_QUEUE_MAX {
            switchboard.askers[1].ask(Command::Stats).expect("there is room");
        }
        assert_eq!(switchboard.ask(Command::Stats), Err(Busy));
        assert_eq!(switchboard.askers[0].ask(Command::Stats), Ok(Ticket(1)), "it was not asked");
        inside_two.next_question();
        assert_eq!(switchboard.ask(Command::Stats), Ok(Ticket(4)));
    }

    fn asker() -> (Asker, crate::server::mailbox::Inside) {
        let (inside, asker, _reader) =
            crate::server::mailbox::open(Waker::new().expect("an eventfd"));
        (asker, inside)
    }
}
