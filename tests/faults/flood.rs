//! Far too many bytes, in frames and without any form.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use heartwheel::base::config::{GatewayConfig, Rhythm};
use heartwheel::base::event::CloseReason;
use heartwheel::base::limits;
use heartwheel::base::time::Span;
use heartwheel::gateway::Stats as GatewayStats;
use heartwheel::os::clock::Clock;
use heartwheel::os::ring::{Descriptors, DriverConfig, DriverStats as RingStats, RingSizes};
use heartwheel::os::socket::{self, ListenOptions};
use heartwheel::server::Server;
use heartwheel::wire::message::{AckWanted, Message, Reply};
use heartwheel::wire::native;

use crate::feed::{Feed, longest_silence};
use crate::fleet::{Crew, Fleet, assert_unharmed};
use crate::gate::{self, Gate};
use crate::{LATE_MAX, alone, figure};

/// What a blocking socket with a time limit says when nothing could be done in time.
const WAITS: [ErrorKind; 3] = [ErrorKind::WouldBlock, ErrorKind::TimedOut, ErrorKind::Interrupted];
const TIMEOUT: Duration = Duration::from_secs(3);

/// Threads that do something until they are told to end, which is at the latest when this is
/// dropped.
struct Threads {
    go_on: &'static AtomicBool,
    running: Vec<JoinHandle<u64>>,
}

impl Threads {
    /// Each counts something; `work` does a little and says how much.
    fn start<W: FnMut() -> u64 + Send + 'static>(works: impl Iterator<Item = W>) -> Self {
        let go_on: &'static AtomicBool = Box::leak(Box::new(AtomicBool::new(true)));
        let run = |mut work: W| {
            thread::spawn(move || {
                let mut count = 0;
                while go_on.load(Ordering::Relaxed) {
                    count += work();
                }
                count
            })
        };
        Self { go_on, running: works.map(run).collect() }
    }

    /// The sum of what they counted.
    fn end(mut self) -> u64 {
        self.go_on.store(false, Ordering::Relaxed);
        self.running.drain(..).map(|thread| thread.join().expect("it does not fail")).sum()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.go_on.store(false, Ordering::Relaxed);
    }
}

#[test]
pub(crate) fn while_some_flood_the_quiet_are_answered_and_the_dead_are_found() {
    const DEAD: u32 = 20;
    let _alone = alone();
    let mut gate = Gate::start(&["--interval", "1s", "--timeout", "3s"]);
    let quiet = Crew { prefix: "quiet-", clients: 200, interval_ms: 1_000 };
    let dying = Crew { prefix: "dying-", clients: DEAD, interval_ms: 1_000 };
    let (quiet_fleet, dying_fleet) =
        (Fleet::launch(gate.address, quiet), Fleet::launch(gate.address, dying));
    let mut feed = Feed::default();
    feed.until(&gate, "the quiet are online", |feed| feed.online() == 220);

    let address = gate.address;
    let flooders = Threads::start((0..8).map(|number| flooder(address, number)));
    feed.until(&gate, "the flood has begun", |feed| feed.online_of("flood-") == 8);
    // What piles up while the server stands still comes all at once.
    for _ in 0..3 {
        gate.signal("STOP");
        thread::sleep(Duration::from_millis(200));
        gate.signal("CONT");
        feed.during(&gate, Duration::from_millis(500));
    }
    (0..DEAD).for_each(|index| dying_fleet.silence(index));
    feed.during(&gate, TIMEOUT + LATE_MAX);
    let found = feed.endings_of("dying-").count();
    let flooded_bytes = flooders.end();
    let ended = Instant::now();
    feed.until(&gate, "the dead are found after the flood", |feed| {
        feed.endings_of("dying-").count() == DEAD as usize
    });
    let found_later = ended.elapsed();

    assert_eq!(
        found,
        DEAD as usize,
        "the dead are found in time, flood or not: \
        the rest {found_later:?} after the flood, {:?}",
        longest_silence(feed.endings_of("dying-"))
    );
    let longest = longest_silence(feed.endings_of("dying-"));
    assert!(longest <= TIMEOUT + LATE_MAX, "{longest:?}");
    assert!(feed.endings_of("dying-").all(|ending| ending.silence >= TIMEOUT));
    let tally = quiet_fleet.end();
    assert_unharmed("quiet", quiet, &tally);
    assert_eq!(feed.endings_of("quiet-").filter(|ending| ending.reason != "bye").count(), 0);
    dying_fleet.end();
    feed.until_stopped(&mut gate);
    let rtt = tally.rtt.summary();
    figure(
        "flood",
        format_args!(
            "8 clients sent {} MiB of DATA, the server stopped three times meanwhile: 200 quiet \
             clients: 0 lost, {} beats answered, p99 {} us, max {} us; \
             {DEAD} that died meanwhile found after {} ms of silence at most (timeout 3 s)",
            flooded_bytes >> 20,
            tally.pongs_received,
            rtt.p99.as_micros(),
            rtt.max.as_micros(),
            longest.as_millis()
        ),
    );
}

/// Says HELLO and then DATA, as fast as the socket takes it. Counts bytes.
fn flooder(address: SocketAddr, number: u32) -> impl FnMut() -> u64 + Send + 'static {
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(&gate::hello(&format!("flood-{number}"), "", 0)).expect("written");
    stream.set_write_timeout(Some(Duration::from_millis(200))).expect("an option");
    let mut frames = Vec::new();
    for seq in 1..=64 {
        let data = Message::Data { ack: AckWanted::No, seq, topic: "flood", body: &[9; 1_000] };
        native::encode(&data, &mut frames);
    }
    let mut sent = 0;
    move || match stream.write(&frames[sent % frames.len()..]) {
        Ok(count) => {
            sent += count;
            count as u64
        }
        Err(error) => {
            assert!(WAITS.contains(&error.kind()), "a flood alone ends nobody: {error}");
            0
        }
    }
}

#[test]
fn when_the_receive_buffers_run_out_nobody_is_judged_for_it() {
    const SPAN: Duration = Duration::from_secs(6);
    const BURST_BYTES: u64 = 1_024 * 1_024;
    let _alone = alone();
    let server = ServerInside::start();
    let crew = Crew { prefix: "quiet-", clients: 200, interval_ms: 500 };
    let fleet = Fleet::launch(server.address, crew);
    let address = server.address;
    let bursts = Threads::start((0..8).map(|number| {
        let mut flooder = flooder(address, number);
        move || {
            // Then nothing for a while: the server comes to looking at the time.
            let mut sent = 0;
            let until = Instant::now() + Duration::from_millis(200);
            while sent < BURST_BYTES && Instant::now() < until {
                sent += flooder();
            }
            thread::sleep(Duration::from_millis(200));
            sent
        }
    }));
    thread::sleep(SPAN);
    let flooded_bytes = bursts.end();
    let tally = fleet.end();
    let (gateway, ring) = server.end();
    assert_unharmed("quiet", crew, &tally);
    assert!(ring.starved > 100, "the buffers did not run out: {ring:?}");
    assert_eq!(gateway.ended(CloseReason::HeartbeatTimeout), 0);
    figure(
        "receive buffers",
        format_args!(
            "64 receive buffers, 8 clients that sent {} MiB in bursts: {} receives ended for want \
             of a buffer; 200 quiet clients: 0 lost, {} beats answered, p99 {} us, {} rescued by \
             the last look",
            flooded_bytes >> 20,
            ring.starved,
            tally.pongs_received,
            tally.rtt.summary().p99.as_micros(),
            gateway.rescued
        ),
    );
}

/// A server in this process, where its counters can be seen, with hardly any receive buffers.
struct ServerInside {
    address: SocketAddr,
    go_on: Arc<AtomicBool>,
    thread: JoinHandle<(GatewayStats, RingStats)>,
}

impl ServerInside {
    fn start() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = socket::listen(any, &ListenOptions::default()).expect("a port");
        let address = listener.local_address();
        let go_on = Arc::new(AtomicBool::new(true));
        let is_wanted = Arc::clone(&go_on);
        let thread = thread::spawn(move || {
            let rhythm = Rhythm { interval: Span::from_millis(500), timeout: Span::from_secs(3) };
            let gateway = GatewayConfig { rhythm, ..GatewayConfig::default() };
            let connections_max = gateway.connections_max + limits::REFUSALS_MAX;
            let sizes = RingSizes { buffers: 64, ..RingSizes::new(connections_max, 10_000) };
            let listener = Some(listener);
            let descriptors = Descriptors::Direct;
            let driver = DriverConfig { connections_max, descriptors, listener, sizes };
            let (mut server, ..) = Server::new(driver, gateway, Clock::new()).expect("a ring");
            while is_wanted.load(Ordering::Relaxed) {
                server.turn().expect("the ring works");
            }
            (server.gateway().stats(), server.driver().stats())
        });
        Self { address, go_on, thread }
    }

    fn end(self) -> (GatewayStats, RingStats) {
        self.go_on.store(false, Ordering::Relaxed);
        self.thread.join().expect("it does not fail")
    }
}

#[test]
pub(crate) fn rubbish_on_sixty_four_connections_costs_nobody_else_a_beat() {
    const SPAN: Duration = Duration::from_secs(4);
    let _alone = alone();
    let mut gate = Gate::start(&["--interval", "500ms", "--timeout", "3s"]);
    let crew = Crew { prefix: "good-", clients: 500, interval_ms: 500 };
    let fleet = Fleet::launch(gate.address, crew);
    let mut feed = Feed::default();
    feed.until(&gate, "the good are online", |feed| feed.online() == 500);

    let address = gate.address;
    let bad = Threads::start((0..64).map(|seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut met = 0;
        move || {
            met += 1;
            rubbish(address, &mut random, &format!("bad-{seed}-{met}"));
            1
        }
    }));
    feed.during(&gate, SPAN);
    let connections = bad.end();
    let tally = fleet.end();
    assert_unharmed("good", crew, &tally);
    assert_eq!(feed.endings_of("good-").filter(|ending| ending.reason != "bye").count(), 0);
    assert!(connections > 640, "only {connections} connections: that is no load");
    let logged_in = feed.endings_of("bad-").count();
    feed.until_stopped(&mut gate);
    figure(
        "rubbish",
        format_args!(
            "{connections} connections with random bytes in {} s, 64 at a time, {logged_in} of \
             them behind a good HELLO: 500 beating clients: 0 lost, {} beats answered, p99 {} us",
            SPAN.as_secs(),
            tally.pongs_received,
            tally.rtt.summary().p99.as_micros()
        ),
    );
}

/// One connection: perhaps well behaved at first, then not. Ends when the server has had enough, or
/// soon.
fn rubbish(address: SocketAddr, random: &mut fastrand::Rng, client_id: &str) {
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let patience = Some(Duration::from_millis(20));
    stream.set_read_timeout(patience).expect("an option");
    stream.set_write_timeout(patience).expect("an option");
    if random.bool() && stream.write_all(&gate::hello(client_id, "", 0)).is_err() {
        return;
    }
    let mut heard = [0; 1_024];
    let until = Instant::now() + Duration::from_millis(200);
    while Instant::now() < until {
        let bytes = if random.bool() { noise(random) } else { nearly_a_frame(random) };
        if stream.write_all(&bytes).is_err() {
            return;
        }
        match stream.read(&mut heard) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if WAITS.contains(&error.kind()) => {}
            Err(_) => return,
        }
    }
}

fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let length = random.usize(1..2_000);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// A good frame, of which one byte is another.
fn nearly_a_frame(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    match random.u8(0..3) {
        0 => native::encode(&Message::Ping { reply: Reply::Wanted, payload: &[1; 8] }, &mut bytes),
        1 => native::encode(
            &Message::Data { ack: AckWanted::Yes, seq: 1, topic: "t", body: &[2; 50] },
            &mut bytes,
        ),
        _ => bytes = gate::hello("bad-again", "", 0),
    }
    let place = random.usize(..bytes.len());
    bytes[place] = random.u8(..);
    bytes
}
