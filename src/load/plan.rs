//! Who does what and when: fixed by the options and the seed, before anybody connects.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::base::config::Rhythm;
use crate::base::ids::{ClientId, ClientIdError};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::load::dialect::Dialect;

/// What to do to which server, as meant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LoadOptions {
    /// The server.
    pub target: SocketAddr,
    /// How many clients.
    pub clients: u32,
    /// How often they would like to beat; the server decides.
    pub interval: Span,
    /// From the first connect to the last word.
    pub run_time: Span,
    /// How the clients speak.
    pub dialect: Dialect,
    /// When a client beats again.
    pub pace: Pace,
    /// How many connect in a second; `None`: as fast as the server takes them.
    pub connects_per_s: Option<u32>,
    /// How many may be between connect and welcome; `None`: only how many connects are under way
    /// is bounded, by [`limits::LOAD_CONNECTS_MAX`].
    pub entering_max: Option<u32>,
    /// How many of the clients do not simply stay and beat.
    pub parts: Parts,
    /// What those send who talk.
    pub talk: Talk,
    /// Fixes who does what, and the random moments.
    pub seed: u64,
    /// The client ids are this and a number from 1 on.
    pub id_prefix: String,
    /// Tells apart processes on one machine that connect to one server on it, so that each has
    /// source addresses of its own. The process id will do.
    pub source_key: u32,
    /// How each client proves its id; `None`: not at all.
    pub tokens: Option<Tokens>,
}

/// What the tokens of all clients are made with.
#[derive(Clone, Eq, PartialEq)]
pub struct Tokens {
    /// The key, secret.
    pub key: Box<[u8]>,
    /// When they cease to hold, in seconds since 1970.
    pub expires_unix_s: u64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(..)")
    }
}

/// What a client sends that talks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Talk {
    /// Bytes of a message.
    pub bytes: u16,
    /// From one message to the next; `None`: the interval that was wished for.
    pub every: Option<Span>,
}

impl Default for Talk {
    fn default() -> Self {
        Self { bytes: limits::LOAD_TALK_BYTES_DEFAULT, every: None }
    }
}

impl LoadOptions {
    /// From one message of a client that talks to the next.
    pub fn talk_every(&self) -> Span {
        self.talk.every.unwrap_or(self.interval)
    }
}

/// When a client beats again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Pace {
    /// An interval after the beat before.
    #[default]
    Rhythm,
    /// Once everybody is in, as soon as the beat before is answered: one beat of each client is
    /// always under way, and the server is as busy as it can be. Until then, an interval after it.
    Saturating,
}

/// How many clients play which part. The others are steady: they come, beat in time and stay.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Parts {
    /// Fall silent with the socket left open.
    pub silent: u32,
    /// Break the connection with a RST.
    pub reset: u32,
    /// Leave with BYE.
    pub leave: u32,
    /// Come and go.
    pub flap: u32,
    /// Read nothing after WELCOME.
    pub slow_readers: u32,
    /// Beat late, but within the timeout.
    pub late: u32,
    /// Beat without asking for an answer.
    pub no_reply: u32,
    /// Send messages beside their beats.
    pub talk: u32,
}

/// The part one client plays.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Part {
    /// Beats in time and stays.
    Steady,
    /// Falls silent with the socket left open.
    Silent,
    /// Breaks the connection with a RST.
    Reset,
    /// Leaves with BYE.
    Leave,
    /// Comes and goes.
    Flap,
    /// Reads nothing after WELCOME.
    SlowReader,
    /// Beats late, but within the timeout.
    Late,
    /// Beats without asking for an answer.
    NoReply,
    /// Beats in time, stays, and sends messages.
    Talk,
}

impl Part {
    /// Its name in the report, and nearly that of its flag.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Silent => "silent",
            Self::Reset => "reset",
            Self::Leave => "leave",
            Self::Flap => "flap",
            Self::SlowReader => "slow_readers",
            Self::Late => "late",
            Self::NoReply => "no_reply",
            Self::Talk => "talk",
        }
    }
}

/// Why the options are no plan.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// Too few or too many clients.
    #[error("{clients} clients: there must be 1 to {}", limits::LOAD_CLIENTS_MAX)]
    Clients {
        /// How many were asked for.
        clients: u32,
    },
    /// More parts than clients to play them.
    #[error("{parts} clients would not be steady, and there are only {clients}")]
    Parts {
        /// Sum of all parts.
        parts: u64,
        /// How many clients there are.
        clients: u32,
    },
    /// Messages where there are none.
    #[error("{clients} clients would send messages, and in MQTT here they only beat")]
    NoMessages {
        /// How many.
        clients: u32,
    },
    /// Messages follow each other without a pause, or never.
    #[error(
        "a message every {every}: expected {} to {}",
        limits::INTERVAL_MIN,
        limits::INTERVAL_MAX
    )]
    TalkEvery {
        /// How often was asked for.
        every: Span,
    },
    /// Nobody could ever enter.
    #[error("with 0 connections at once nobody comes in")]
    EnteringMax,
    /// Beats without answers where every answer calls for the next beat.
    #[error("{clients} clients beat without an answer, and {what} waits for answers")]
    NoAnswer {
        /// How many they are.
        clients: u32,
        /// Who waits.
        what: &'static str,
    },
    /// Nobody would ever connect.
    #[error("a connect rate of 0 connects nobody")]
    ConnectRate,
    /// No interval that a server could grant.
    #[error(
        "interval {interval} is out of bounds: {} to {}",
        limits::INTERVAL_MIN,
        limits::INTERVAL_MAX
    )]
    Interval {
        /// What was asked for.
        interval: Span,
    },
    /// Prefix and number are no client id.
    #[error("the client ids would not be valid: {0}")]
    IdPrefix(#[from] ClientIdError),
    /// The clients are not even all connected before the end.
    #[error(
        "a run of {run_time} is too short: connecting {clients} clients at {connects_per_s}/s \
         takes {needed}"
    )]
    TooShortToConnect {
        /// How long the run is.
        run_time: Span,
        /// How many clients.
        clients: u32,
        /// How many connect in a second.
        connects_per_s: u32,
        /// How long connecting takes.
        needed: Span,
    },
    /// The verdict on the silent would fall after the end.
    #[error(
        "a run of {run_time} is too short: the server grants an interval of {} and a timeout of \
         {}, and the verdict on the last silent client may take {needed}",
        .granted.interval,
        .granted.timeout
    )]
    TooShortForVerdicts {
        /// How long the run is.
        run_time: Span,
        /// What the server grants.
        granted: Rhythm,
        /// How long the run must be.
        needed: Span,
    },
}

/// Who does what.
#[derive(Clone, Debug)]
pub struct Plan {
    options: LoadOptions,
    parts: Vec<Part>,
}

impl Plan {
    /// Deals out the parts, the same for the same options. O(clients).
    pub fn new(options: LoadOptions) -> Result<Self, PlanError> {
        check(&options)?;
        let parts = deal(&options);
        Ok(Self { options, parts })
    }

    /// What it was made from.
    pub fn options(&self) -> &LoadOptions {
        &self.options
    }

    /// How many clients there are; they are numbered from 0.
    pub fn clients(&self) -> u32 {
        self.options.clients
    }

    /// The part of client `index`.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn part(&self, index: u32) -> Part {
        self.parts[index as usize]
    }

    /// The id of client `index`, written behind what is in `text`.
    pub fn write_client_id(&self, index: u32, text: &mut String) {
        use std::fmt::Write;
        write!(text, "{}{}", self.options.id_prefix, u64::from(index) + 1)
            .expect("writing to a string does not fail");
    }

    /// The client with this id, if it is one of ours.
    pub fn index_of(&self, client_id: &str) -> Option<u32> {
        let digits = client_id.strip_prefix(self.options.id_prefix.as_str())?;
        let first = digits.bytes().next()?;
        if !(b'1'..=b'9').contains(&first) {
            return None;
        }
        let number: u32 = digits.parse().ok()?;
        (number <= self.options.clients).then(|| number - 1)
    }

    /// From where client `index` connects. One address has ports for
    /// [`limits::LOAD_CLIENTS_PER_SOURCE`], so on the loopback several addresses share the clients;
    /// elsewhere the kernel chooses.
    pub fn source(&self, index: u32) -> Option<SocketAddr> {
        match self.options.target.ip() {
            IpAddr::V4(target) if target.is_loopback() => {
                let [_, _, high, low] = self.options.source_key.to_be_bytes();
                let group = index / limits::LOAD_CLIENTS_PER_SOURCE + 1;
                let last = u8::try_from(group).expect("LOAD_CLIENTS_MAX bounds the groups");
                Some(SocketAddr::from((Ipv4Addr::new(127, high, low, last), 0)))
            }
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        }
    }

    /// How long connecting all of them takes at the given rate, or at a cautious guess.
    pub fn ramp(&self) -> Span {
        let rate = self.options.connects_per_s.unwrap_or(limits::LOAD_CONNECTS_PER_S_GUESS);
        ramp(self.options.clients, rate)
    }

    /// Between two connects.
    pub fn connect_gap(&self) -> Span {
        self.options
            .connects_per_s
            .map_or(Span::ZERO, |rate| Span::from_secs(1).divided_by(u64::from(rate)))
    }

    /// Whether every verdict can fall inside the run, now that the server's rhythm is known.
    pub fn check_granted(&self, granted: Rhythm) -> Result<(), PlanError> {
        if self.options.parts.silent == 0 {
            return Ok(());
        }
        let needed = self.ramp() + granted.interval + granted.timeout + limits::LOAD_VERDICT_MARGIN;
        if needed <= self.options.run_time {
            return Ok(());
        }
        let needed = Span::from_secs(needed.as_millis().div_ceil(1_000));
        Err(PlanError::TooShortForVerdicts { run_time: self.options.run_time, granted, needed })
    }

    /// A random moment from `start` to `end`, the `nth` that client `index` asks for; `start` when
    /// `end` is not after it.
    pub fn moment_between(&self, draw: Draw, start: Moment, end: Moment) -> Moment {
        start + self.span_between(draw, Span::ZERO, end.since(start))
    }

    /// A random span from `min` to `max`, both included; `min` when `max` is not longer.
    pub fn span_between(&self, draw: Draw, min: Span, max: Span) -> Span {
        let width_nanos = max.minus(min).as_nanos();
        min + Span::from_nanos(self.random(draw).u64(0..=width_nanos))
    }

    /// A random number below `count`, which must not be 0.
    pub fn choice(&self, draw: Draw, count: u32) -> u32 {
        self.random(draw).u32(0..count)
    }

    /// Each draw has a generator of its own: what a client does must not depend on which client the
    /// kernel happened to serve first.
    fn random(&self, draw: Draw) -> fastrand::Rng {
        let position = u64::from(draw.index) << 32 | u64::from(draw.nth);
        let mut position = fastrand::Rng::with_seed(position);
        fastrand::Rng::with_seed(self.options.seed ^ position.u64(..))
    }
}

/// Names one random choice: the `nth` of client `index`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Draw {
    /// Which client.
    pub index: u32,
    /// Which of its choices.
    pub nth: u32,
}

fn check(options: &LoadOptions) -> Result<(), PlanError> {
    let LoadOptions { clients, interval, run_time, connects_per_s, parts, .. } = *options;
    if clients == 0 || clients > limits::LOAD_CLIENTS_MAX {
        return Err(PlanError::Clients { clients });
    }
    let sum: u64 = parts.listed().into_iter().map(|(_, count)| u64::from(count)).sum();
    if sum > u64::from(clients) {
        return Err(PlanError::Parts { parts: sum, clients });
    }
    check_answers(options)?;
    if options.entering_max == Some(0) {
        return Err(PlanError::EnteringMax);
    }
    if connects_per_s == Some(0) {
        return Err(PlanError::ConnectRate);
    }
    if interval < limits::INTERVAL_MIN || interval > limits::INTERVAL_MAX {
        return Err(PlanError::Interval { interval });
    }
    check_talk(options)?;
    // The last client has the longest id.
    ClientId::validate(&format!("{}{clients}", options.id_prefix))?;
    if let Some(rate) = connects_per_s {
        let needed = ramp(clients, rate);
        if needed > run_time {
            let connects_per_s = rate;
            return Err(PlanError::TooShortToConnect { run_time, clients, connects_per_s, needed });
        }
    }
    Ok(())
}

fn check_talk(options: &LoadOptions) -> Result<(), PlanError> {
    let (clients, every) = (options.parts.talk, options.talk_every());
    if clients == 0 {
        return Ok(());
    }
    if options.dialect == Dialect::Mqtt {
        return Err(PlanError::NoMessages { clients });
    }
    if every < limits::INTERVAL_MIN || every > limits::INTERVAL_MAX {
        return Err(PlanError::TalkEvery { every });
    }
    Ok(())
}

fn check_answers(options: &LoadOptions) -> Result<(), PlanError> {
    let LoadOptions { dialect, pace, parts: Parts { no_reply, slow_readers, .. }, .. } = *options;
    let clients = match (dialect, pace) {
        (Dialect::Native, Pace::Rhythm) => 0,
        (Dialect::Mqtt, Pace::Rhythm) => no_reply,
        // Nobody gets in who does not read that he may.
        (Dialect::WebSocket, Pace::Rhythm) => slow_readers,
        (_, Pace::Saturating) => no_reply + slow_readers,
    };
    if clients == 0 {
        return Ok(());
    }
    let what = match dialect {
        Dialect::Mqtt => "MQTT",
        Dialect::WebSocket if pace == Pace::Rhythm => "WebSocket",
        Dialect::Native | Dialect::WebSocket => "saturation",
    };
    Err(PlanError::NoAnswer { clients, what })
}

fn ramp(clients: u32, connects_per_s: u32) -> Span {
    Span::from_secs(u64::from(clients)).divided_by(u64::from(connects_per_s))
}

fn deal(options: &LoadOptions) -> Vec<Part> {
    let mut dealt = Vec::with_capacity(options.clients as usize);
    for (part, count) in options.parts.listed() {
        dealt.extend(std::iter::repeat_n(part, count as usize));
    }
    dealt.resize(options.clients as usize, Part::Steady);
    fastrand::Rng::with_seed(options.seed).shuffle(&mut dealt);
    dealt
}

impl Parts {
    /// Every part that is not steady, and how many play it.
    pub fn listed(&self) -> [(Part, u32); 8] {
        [
            (Part::Silent, self.silent),
            (Part::Reset, self.reset),
            (Part::Leave, self.leave),
            (Part::Flap, self.flap),
            (Part::SlowReader, self.slow_readers),
            (Part::Late, self.late),
            (Part::NoReply, self.no_reply),
            (Part::Talk, self.talk),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> LoadOptions {
        LoadOptions {
            target: "127.0.0.1:7070".parse().unwrap(),
            clients: 1_000,
            interval: Span::from_secs(2),
            run_time: Span::from_secs(30),
            dialect: Dialect::Native,
            pace: Pace::Rhythm,
            connects_per_s: Some(1_000),
            entering_max: None,
            talk: Talk::default(),
            parts: Parts {
                silent: 100,
                reset: 10,
                leave: 20,
                flap: 30,
                slow_readers: 40,
                late: 45,
                no_reply: 5,
                talk: 7,
            },
            seed: 3,
            id_prefix: "load-".into(),
            source_key: 0x0001_0203,
            tokens: None,
        }
    }

    #[test]
    fn everybody_gets_the_part_that_was_asked_for() {
        let plan = Plan::new(options()).unwrap();
        for (part, count) in options().parts.listed() {
            let dealt = (0..plan.clients()).filter(|index| plan.part(*index) == part).count();
            assert_eq!(dealt, count as usize, "{part:?}");
        }
    }

    #[test]
    fn the_seed_and_nothing_else_decides() {
        let draw = Draw { index: 5, nth: 2 };
        let (first, second) = (Plan::new(options()).unwrap(), Plan::new(options()).unwrap());
        let third = Plan::new(LoadOptions { seed: 4, ..options() }).unwrap();
        assert_eq!(first.parts, second.parts);
        assert_ne!(first.parts, third.parts);
        let end = Moment::from_millis(1_000_000);
        let at = |plan: &Plan, draw| plan.moment_between(draw, Moment::ZERO, end);
        assert_eq!(at(&first, draw), at(&second, draw));
        assert_ne!(at(&first, draw), at(&third, draw));
        assert_ne!(at(&first, draw), at(&first, Draw { index: 5, nth: 3 }));
        assert_ne!(at(&first, draw), at(&first, Draw { index: 6, nth: 2 }));
    }

    #[test]
    fn random_moments_fill_their_window_and_never_leave_it() {
        let plan = Plan::new(options()).unwrap();
        let (start, end) = (Moment::from_millis(1_000), Moment::from_millis(2_000));
        let mut tenths = [0_u32; 10];
        for index in 0..1_000 {
            let moment = plan.moment_between(Draw { index, nth: 0 }, start, end);
            assert!((start..=end).contains(&moment));
            let tenth = (moment.since(start).as_nanos() / 100_000_000).min(9);
            tenths[usize::try_from(tenth).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (60..=140).contains(count)), "{tenths:?}");
        let draw = Draw { index: 0, nth: 0 };
        assert_eq!(plan.moment_between(draw, end, start), end, "an empty window is its start");
    }

    #[test]
    fn options_that_cannot_be_meant_are_refused() {
        let base = options();
        let secs = Span::from_secs;
        type Wrong = fn(&PlanError) -> bool;
        let rows: [(&str, LoadOptions, Wrong); 14] = [
            ("nobody", LoadOptions { clients: 0, parts: Parts::default(), ..options() }, |e| {
                matches!(e, PlanError::Clients { clients: 0 })
            }),
            ("too many", LoadOptions { clients: u32::MAX, ..options() }, |e| {
                matches!(e, PlanError::Clients { .. })
            }),
            ("parts", LoadOptions { clients: 249, ..options() }, |e| {
                matches!(e, PlanError::Parts { parts: 257, clients: 249 })
            }),
            ("rate", LoadOptions { connects_per_s: Some(0), ..options() }, |e| {
                matches!(e, PlanError::ConnectRate)
            }),
            ("door", LoadOptions { entering_max: Some(0), ..options() }, |e| {
                matches!(e, PlanError::EnteringMax)
            }),
            ("no answers", LoadOptions { pace: Pace::Saturating, ..options() }, |e| {
                matches!(e, PlanError::NoAnswer { clients: 45, what: "saturation" })
            }),
            ("MQTT answers", LoadOptions { dialect: Dialect::Mqtt, ..options() }, |e| {
                matches!(e, PlanError::NoAnswer { clients: 5, what: "MQTT" })
            }),
            ("WebSocket", LoadOptions { dialect: Dialect::WebSocket, ..options() }, |e| {
                matches!(e, PlanError::NoAnswer { clients: 40, what: "WebSocket" })
            }),
            (
                "talk in MQTT",
                LoadOptions {
                    parts: Parts { no_reply: 0, ..options().parts },
                    dialect: Dialect::Mqtt,
                    ..options()
                },
                |e| matches!(e, PlanError::NoMessages { clients: 7 }),
            ),
            (
                "talk",
                LoadOptions { talk: Talk { every: Some(Span::ZERO), bytes: 1 }, ..options() },
                |e| matches!(e, PlanError::TalkEvery { every: Span::ZERO }),
            ),
            ("interval", LoadOptions { interval: Span::ZERO, ..options() }, |e| {
                matches!(e, PlanError::Interval { .. })
            }),
            ("control", LoadOptions { id_prefix: "a\n".into(), ..options() }, |e| {
                matches!(e, PlanError::IdPrefix(ClientIdError::Control))
            }),
            ("long", LoadOptions { id_prefix: "x".repeat(125), ..options() }, |e| {
                matches!(e, PlanError::IdPrefix(ClientIdError::TooLong { bytes: 129 }))
            }),
            (
                "ramp",
                LoadOptions { run_time: secs(1), connects_per_s: Some(500), ..options() },
                |e| matches!(e, PlanError::TooShortToConnect { .. }),
            ),
        ];
        assert!(Plan::new(base).is_ok());
        for (name, options, is_expected) in rows {
            let error = Plan::new(options).unwrap_err();
            assert!(is_expected(&error), "{name}: {error}");
        }
    }

    #[test]
    fn a_run_is_too_short_when_the_last_verdict_falls_behind_its_end() {
        let granted = Rhythm { interval: Span::from_secs(2), timeout: Span::from_secs(7) };
        // 1 s to connect, 2 s to the first beat, 7 s of silence, and the margin.
        let needed = Span::from_secs(10) + limits::LOAD_VERDICT_MARGIN;
        let with = |run_time| Plan::new(LoadOptions { run_time, ..options() }).unwrap();
        assert_eq!(with(needed).check_granted(granted), Ok(()));
        let error = with(needed.minus(Span::from_millis(1))).check_granted(granted).unwrap_err();
        assert!(error.to_string().ends_with("the last silent client may take 11s"), "{error}");
        let parts = Parts { silent: 0, ..options().parts };
        let short = LoadOptions { run_time: Span::from_secs(2), parts, ..options() };
        assert_eq!(Plan::new(short).unwrap().check_granted(granted), Ok(()));
    }

    #[test]
    fn ids_and_numbers_belong_together() {
        let plan = Plan::new(options()).unwrap();
        for index in [0, 1, 9, 998, 999] {
            let mut id = String::new();
            plan.write_client_id(index, &mut id);
            assert_eq!(plan.index_of(&id), Some(index), "{id}");
        }
        for stranger in ["load-0", "load-1001", "load-", "load-+1", "load-01", "1", "x"] {
            assert_eq!(plan.index_of(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn on_the_loopback_every_address_has_ports_enough() {
        let parts = Parts::default();
        let many = LoadOptions { clients: 60_000, connects_per_s: None, parts, ..options() };
        let plan = Plan::new(many.clone()).unwrap();
        for (index, source) in [
            (0, "127.2.3.1:0"),
            (limits::LOAD_CLIENTS_PER_SOURCE - 1, "127.2.3.1:0"),
            (limits::LOAD_CLIENTS_PER_SOURCE, "127.2.3.2:0"),
            (59_999, "127.2.3.15:0"),
        ] {
            assert_eq!(plan.source(index), Some(source.parse().unwrap()));
        }
        for target in ["192.0.2.1:7070", "[::1]:7070"] {
            let elsewhere = LoadOptions { target: target.parse().unwrap(), ..many.clone() };
            assert_eq!(Plan::new(elsewhere).unwrap().source(0), None, "{target}");
        }
    }
}
