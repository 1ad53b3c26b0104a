//! Clients that read nothing, and clients that say one byte a second.

use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::feed::Feed;
use crate::fleet::{Crew, Fleet, assert_unharmed};
use crate::gate::{self, Caller, Gate, Heard};
use crate::{LATE_MAX, PATIENCE, alone, figure, seconds};

#[test]
pub(crate) fn clients_that_never_read_are_ended_and_cost_no_more_than_their_outboxes() {
    const READERS: usize = 40;
    /// Twice what may wait for each, since buffers grow by doubling, and something for the rest.
    const GROWTH_MAX_KIB: u64 = READERS as u64 * 2 * 64 + 16 * 1_024;
    let _alone = alone();
    let mut gate = Gate::start(&["--interval", "1s", "--timeout", "20s"]);
    let crew = Crew { prefix: "others-", clients: 100, interval_ms: 1_000 };
    let others = Fleet::launch(gate.address, crew);
    let mut feed = Feed::default();
    feed.until(&gate, "the others are online", |feed| feed.online() == 100);
    let before_kib = memory_kib(&gate, "VmRSS:");
    let mut readers: Vec<(Option<TcpStream>, usize)> =
        (0..READERS).map(|number| (Some(slow_reader(gate.address, number)), 0)).collect();
    feed.until(&gate, "the slow are online", |feed| feed.online() == 100 + READERS);

    let began = Instant::now();
    let pings = many_pings();
    while readers.iter().any(|(stream, _)| stream.is_some()) {
        assert!(began.elapsed() < PATIENCE, "some are never ended: {:?}", feed.reasons());
        for (place, said_bytes) in &mut readers {
            let Some(stream) = place else { continue };
            // A frame that was written in part goes on where it stopped.
            match stream.write(&pings[*said_bytes % pings.len()..]) {
                Ok(count) => *said_bytes += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => *place = None,
            }
        }
    }
    let said_bytes: usize = readers.iter().map(|(_, said_bytes)| said_bytes).sum();
    let took = began.elapsed();
    feed.until(&gate, "the slow are offline", |feed| feed.endings.len() == READERS);
    let growth_kib = memory_kib(&gate, "VmHWM:").saturating_sub(before_kib);
    let tally = others.end();
    assert_unharmed("others", crew, &tally);
    let reasons: Vec<_> = feed.endings_of("slow-").map(|ending| ending.reason.as_str()).collect();
    assert!(reasons.iter().all(|reason| *reason == "slow_consumer"), "{:?}", feed.reasons());
    assert!(growth_kib <= GROWTH_MAX_KIB, "memory grew by {growth_kib} KiB");
    feed.until_stopped(&mut gate);
    figure(
        "slow readers",
        format_args!(
            "{READERS} clients that sent {} KiB of PINGs and read nothing: all ended as \
             slow_consumer after {}, memory grew by {growth_kib} KiB at most; 100 others: 0 lost, \
             longest round trip {} us",
            said_bytes / 1_024,
            seconds(took),
            tally.rtt.summary().max.as_micros()
        ),
    );
}

/// In, with hardly any room for what it is sent.
fn slow_reader(address: SocketAddr, number: usize) -> TcpStream {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket");
    sockopt::set_socket_recv_buffer_size(&socket, 4_096).expect("an option");
    rustix::net::connect(&socket, &address).expect("connects");
    let mut stream = TcpStream::from(socket);
    stream.write_all(&gate::hello(&format!("slow-{number}"), "", 0)).expect("written");
    stream.set_nonblocking(true).expect("an option");
    stream
}

/// Many PINGs in one piece.
fn many_pings() -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..100 {
        native::encode(&Message::Ping { reply: Reply::Wanted, payload: &[7; 16] }, &mut bytes);
    }
    bytes
}

/// A line of `/proc/PID/status`.
fn memory_kib(gate: &Gate, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.pid())).expect("it runs");
    let line = status.lines().find_map(|text| text.strip_prefix(line)).expect("the line is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Somebody who says one byte at a time.
struct Dripper {
    caller: Caller,
    drips: std::vec::IntoIter<u8>,
    began: Instant,
    told: Option<(Heard, Duration)>,
}

impl Dripper {
    fn new(caller: Caller, drips: Vec<u8>) -> Self {
        caller.stream.set_nonblocking(true).expect("an option");
        Self { caller, drips: drips.into_iter(), began: Instant::now(), told: None }
    }

    fn drip(&mut self) {
        if let Some(byte) = self.drips.next() {
            self.caller.send(&[byte]);
        }
    }

    fn listen(&mut self) {
        if self.told.is_some() {
            return;
        }
        let heard = self.caller.hear_within(Duration::from_millis(1));
        if heard != Heard::Nothing {
            self.told = Some((heard, self.began.elapsed()));
        }
    }
}

#[test]
fn five_hundred_slow_greetings_and_five_hundred_slow_frames_end_in_time() {
    const EACH: usize = 500;
    const DEADLINE: Duration = Duration::from_secs(2);
    let _alone = alone();
    let mut gate = Gate::start(&[
        "--interval",
        "1s",
        "--timeout",
        "20s",
        "--handshake-timeout",
        "2s",
        "--frame-timeout",
        "2s",
    ]);
    let crew = Crew { prefix: "others-", clients: 100, interval_ms: 1_000 };
    let others = Fleet::launch(gate.address, crew);
    let logins: Vec<Caller> =
        (0..EACH).map(|number| Caller::login(gate.address, &format!("slow-{number}"))).collect();
    let mut feed = Feed::default();
    feed.until(&gate, "all who can are online", |feed| feed.online() == 100 + EACH);

    let frame = [vec![0x05, 0, 0x10, 0], vec![0; 1_000]].concat();
    let mut on_frames: Vec<Dripper> =
        logins.into_iter().map(|caller| Dripper::new(caller, frame.clone())).collect();
    let mut on_hello: Vec<Dripper> = (0..EACH)
        .map(|number| {
            Dripper::new(Caller::connect(gate.address), gate::hello(&format!("h-{number}"), "", 0))
        })
        .collect();
    for second in 0..10 {
        on_frames.iter_mut().chain(&mut on_hello).for_each(Dripper::drip);
        let next = Instant::now() + Duration::from_secs(1);
        while Instant::now() < next {
            on_frames.iter_mut().chain(&mut on_hello).for_each(Dripper::listen);
            std::thread::sleep(Duration::from_millis(20));
        }
        let is_over = on_frames.iter().chain(&on_hello).all(|dripper| dripper.told.is_some());
        if is_over && second >= 3 {
            break;
        }
    }
    let worst_hello = check_told(&on_hello, 404, DEADLINE);
    let worst_frame = check_told(&on_frames, 405, DEADLINE);
    feed.until(&gate, "the slow are offline", |feed| feed.endings.len() == EACH);
    assert!(feed.endings_of("slow-").all(|ending| ending.reason == "frame_timeout"));
    let tally = others.end();
    assert_unharmed("others", crew, &tally);
    feed.until_stopped(&mut gate);
    figure(
        "slowloris",
        format_args!(
            "500 HELLOs of a byte a second ended within {} and 500 such frames within {} (deadline \
             2 s); 100 others: 0 lost, longest round trip {} us",
            seconds(worst_hello),
            seconds(worst_frame),
            tally.rtt.summary().max.as_micros()
        ),
    );
}

/// Each was told this code, not before the deadline and not long after it. How long the last one
/// had to wait.
fn check_told(drippers: &[Dripper], code: u16, deadline: Duration) -> Duration {
    let times = drippers.iter().map(|dripper| {
        let (heard, after) = dripper.told.as_ref().expect("everybody is told in time");
        assert_eq!(*heard, Heard::Error(code));
        // It may have begun a little before its clock did: it was accepted before that.
        assert!(*after + Duration::from_millis(500) >= deadline, "early: {after:?}");
        assert!(*after <= deadline + LATE_MAX, "late: {after:?}");
        *after
    });
    times.max().expect("some")
}
