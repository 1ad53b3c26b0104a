//! Limits: so loose in the worlds that nobody meets them and everything is counted all the same,
//! and tight in a town of its own, where one address floods and the others come and go.

use std::collections::HashMap;
use std::net::IpAddr;

use fastrand::Rng;
use heartwheel::base::admission::{Admission, ClientLimits, Limit, Rate};
use heartwheel::base::config::GatewayConfig;
use heartwheel::base::event::CloseReason;
use heartwheel::base::ids::ConnId;
use heartwheel::base::io::{Completion, Found, Op, ReceiveEnd, SocketHandle};
use heartwheel::base::limits;
use heartwheel::base::time::{Moment, Span};
use heartwheel::gateway::Gateway;
use heartwheel::wire::message::{Message, Reply};
use heartwheel::wire::native::{self, Deframer, Inbound, VERSIONS};

/// Limits that nobody in a world meets.
pub(crate) fn loose(rng: &mut Rng) -> Admission {
    let rate = Rate::per_second(1).with_burst(1_000_000);
    let mut admission = Admission::default();
    admission.address.connections = rng.bool().then_some(100_000);
    admission.address.connects = rng.bool().then_some(rate);
    admission.prefix.connections = rng.bool().then_some(100_000);
    admission.accepts = rng.bool().then_some(rate);
    admission.newcomers = rng.bool().then_some(rate);
    admission
}

/// Limits by which many are metered, and nobody is sent away.
pub(crate) fn patient(rng: &mut Rng) -> ClientLimits {
    let rate = |rng: &mut Rng| {
        let rate = Rate::per_second(rng.u32(1..1_000)).with_burst(limits::RATE_LIMIT);
        rng.bool().then_some(rate)
    };
    ClientLimits { frames: rate(rng), bytes: rate(rng), beats: None }
}

/// The flooder, who takes whatever it can get.
const FLOODER: &str = "10.0.0.1";
/// Connections that one address may have, and a network.
const OF_ADDRESS: u32 = 8;
const OF_PREFIX: u32 = 24;

/// Connections and what became of them, by address.
struct Town {
    gateway: Gateway,
    now: Moment,
    sockets: u64,
    accepts: u32,
    /// Those that are open, whoever they are.
    open: HashMap<ConnId, IpAddr>,
    adopted: Option<ConnId>,
    said: Vec<(ConnId, String)>,
    closed_unread: u32,
}

impl Town {
    fn new(rng: &mut Rng) -> Self {
        let mut config = GatewayConfig { connections_max: 400, seed: 7, ..Default::default() };
        config.hash_key = [rng.u64(..), rng.u64(..)];
        config.admission.address.connections = Some(OF_ADDRESS);
        config.admission.address.connects = Some(Rate::per_second(5).with_burst(20));
        config.admission.prefix.connections = Some(OF_PREFIX);
        config.client_limits.frames = Some(Rate::per_second(20).with_burst(100));
        let now = Moment::from_millis(rng.u64(1..1 << 30));
        let mut town = Self {
            gateway: Gateway::new(config, now),
            now,
            sockets: 0,
            accepts: 0,
            open: HashMap::new(),
            adopted: None,
            said: Vec::new(),
            closed_unread: 0,
        };
        town.carry_out();
        town
    }

    fn tell(&mut self, completion: Completion<'_>) {
        self.gateway.on_completion(completion, self.now);
        self.carry_out();
    }

    /// A kernel without faults, and peers that take all and close when they are asked to leave.
    fn carry_out(&mut self) {
        let mut ops = Vec::new();
        loop {
            self.gateway.take_ops(&mut ops);
            if ops.is_empty() {
                return;
            }
            for op in std::mem::take(&mut ops) {
                let completion = match op {
                    Op::Accept { count } => {
                        self.accepts += count;
                        continue;
                    }
                    Op::Adopt { conn, .. } => {
                        self.adopted = Some(conn);
                        continue;
                    }
                    Op::Discard { .. } => {
                        self.closed_unread += 1;
                        continue;
                    }
                    Op::Send { conn, chunk } => {
                        let word = first_word(chunk.unsent());
                        let is_goaway = word.starts_with("Goaway");
                        self.said.push((conn, word));
                        let result = Ok(chunk.len());
                        self.gateway
                            .on_completion(Completion::Sent { conn, chunk, result }, self.now);
                        if !is_goaway {
                            continue;
                        }
                        Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof }
                    }
                    Op::Look { conn } => {
                        Completion::Looked { conn, found: Found::Nothing, tcp: None }
                    }
                    Op::Close { conn, .. } => {
                        self.open.remove(&conn);
                        Completion::Closed { conn }
                    }
                    Op::Receive { .. } | Op::SetUserTimeout { .. } => continue,
                    Op::StopAccepting | Op::Connect(_) | Op::Pause { .. } | Op::Move(_) => {
                        panic!("nobody asked for {op:?}")
                    }
                };
                self.gateway.on_completion(completion, self.now);
            }
        }
    }

    /// Somebody connects from there; `None`: it was refused.
    fn connect(&mut self, address: IpAddr) -> Option<ConnId> {
        assert!(self.accepts > 0, "nobody comes in any more");
        self.accepts -= 1;
        self.sockets += 1;
        self.adopted = None;
        self.said.clear();
        let socket = SocketHandle(self.sockets);
        self.tell(Completion::Accepted { socket, peer: (address, 9).into() });
        let conn = self.adopted?;
        if let Some((_, word)) = self.said.first() {
            let code = format!("code: {}", CloseReason::TooManyConnections.code());
            assert!(word.contains(&code), "{word}");
            return None;
        }
        self.open.insert(conn, address);
        Some(conn)
    }

    /// Whether it is online by that.
    fn hello(&mut self, conn: ConnId, client_id: &str) -> bool {
        let mut bytes = Vec::new();
        native::encode_preface(VERSIONS, &mut bytes);
        let hello = Message::Hello {
            wanted_interval_ms: 0,
            client_id,
            class: "",
            token: &[],
            resume: &[],
            last_seq: 0,
            before: None,
        };
        native::encode(&hello, &mut bytes);
        self.said.clear();
        self.tell(Completion::Received { conn, bytes: &bytes });
        self.said.first().is_some_and(|(of, word)| *of == conn && word.starts_with("Welcome"))
    }

    /// Whether a PING is answered.
    fn beat(&mut self, conn: ConnId) -> bool {
        let mut bytes = Vec::new();
        native::encode(&Message::Ping { reply: Reply::Wanted, payload: &[] }, &mut bytes);
        self.said.clear();
        self.tell(Completion::Received { conn, bytes: &bytes });
        self.said.first().is_some_and(|(of, word)| *of == conn && word.starts_with("Pong"))
    }

    fn leave(&mut self, conn: ConnId) {
        self.tell(Completion::ReceiveEnded { conn, end: ReceiveEnd::Eof });
        assert!(!self.open.contains_key(&conn));
    }

    fn pass(&mut self, span: Span) {
        self.now += span;
        self.gateway.on_time(self.now);
        self.carry_out();
    }

    fn of(&self, address: IpAddr) -> Vec<ConnId> {
        let of = self.open.iter().filter(|(_, own)| **own == address);
        let mut conns: Vec<_> = of.map(|(conn, _)| *conn).collect();
        conns.sort();
        conns
    }
}

fn first_word(bytes: &[u8]) -> String {
    let mut rest = bytes;
    match Deframer::client_side().next(&mut rest, 65_535).expect("a frame") {
        Some(Inbound::Message(message)) => format!("{message:?}"),
        other => panic!("{other:?}"),
    }
}

/// One address does what it can, in any order: connects, says nothing, says HELLO, beats too fast,
/// leaves. Others come, beat and go meanwhile, and not one of them is refused or goes unanswered.
#[test]
fn a_flood_of_one_address_harms_no_other() {
    for seed in 0..20 {
        let mut rng = Rng::with_seed(seed);
        let mut town = Town::new(&mut rng);
        let flooder: IpAddr = FLOODER.parse().expect("an address");
        let (mut got_in, mut tried, mut clients) = (0_u32, 0_u32, 0_u32);
        for step in 0..3_000_u32 {
            if step.is_multiple_of(50) {
                town.gateway.check();
            }
            match rng.u32(0..10) {
                0..5 => {
                    tried += 1;
                    got_in += u32::from(town.connect(flooder).is_some());
                }
                5 => {
                    let conns = town.of(flooder);
                    if let Some(conn) = conns.first() {
                        match rng.u32(0..3) {
                            0 => town.leave(*conn),
                            1 => {
                                town.hello(*conn, &format!("flooder-{step}"));
                            }
                            _ => {
                                for _ in 0..200 {
                                    if town.open.contains_key(conn) {
                                        town.beat(*conn);
                                    }
                                }
                            }
                        }
                    }
                }
                6 => {
                    let other = IpAddr::from([10, 0, rng.u8(1..5), rng.u8(0..3)]);
                    if town.of(other).len() < OF_ADDRESS as usize {
                        clients += 1;
                        let conn = town.connect(other).expect("it has a place of its own");
                        assert!(town.hello(conn, &format!("client-{step}")), "seed {seed}");
                        assert!(town.beat(conn), "seed {seed}");
                    }
                }
                7 => {
                    let mut others: Vec<_> =
                        town.open.iter().filter(|(_, own)| **own != flooder).collect();
                    others.sort();
                    if let Some((conn, _)) = others.get(rng.usize(0..others.len().max(1))) {
                        town.leave(**conn);
                    }
                }
                _ => town.pass(Span::from_millis(rng.u64(1..200))),
            }
            assert!(town.of(flooder).len() <= OF_ADDRESS as usize, "seed {seed}");
            town.said.clear();
        }
        let limited = town.gateway.stats().tally.limited;
        assert!(tried > 1_000 && clients > 100, "seed {seed}: {tried} {clients}");
        assert!(limited[Limit::ClientFrames.index()] > 0, "seed {seed}: it beat too fast");
        assert!(got_in < tried / 2, "seed {seed}: {got_in} of {tried}");
        let refused =
            limited[Limit::AddressConnections.index()] + limited[Limit::AddressConnects.index()];
        assert_eq!(refused, u64::from(tried - got_in), "seed {seed}: only the flooder is refused");
    }
}
