//! What an operator can choose, as meant: checked values, no text.
//!
//! `cli` turns flags and files into these; the rooms below receive values and never parse.

use crate::base::admission::{Admission, ClientLimits};
use crate::base::event::FormerBoot;
use crate::base::identity::Proof;
use crate::base::limits;
use crate::base::networks::Networks;
use crate::base::time::{Span, WallAnchor};

/// How often a client promises to beat, and after how much silence it is judged dead.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rhythm {
    /// Between two beats.
    pub interval: Span,
    /// From the last beat to the verdict. Longer than the interval.
    pub timeout: Span,
}

/// Why two spans are not a rhythm.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RhythmError {
    /// The interval is out of bounds.
    #[error(
        "interval {interval} is out of bounds: {} to {}",
        limits::INTERVAL_MIN,
        limits::INTERVAL_MAX
    )]
    Interval {
        /// What was asked for.
        interval: Span,
    },
    /// The timeout is out of bounds.
    #[error(
        "timeout {timeout} is out of bounds: {} to {}",
        limits::TIMEOUT_MIN,
        limits::TIMEOUT_MAX
    )]
    Timeout {
        /// What was asked for.
        timeout: Span,
    },
    /// Every client would be dead before its first beat.
    #[error("timeout {timeout} must be longer than interval {interval}")]
    TimeoutWithinInterval {
        /// The interval.
        interval: Span,
        /// The timeout.
        timeout: Span,
    },
}

impl Rhythm {
    /// Checks the two against the limits and each other.
    pub fn new(interval: Span, timeout: Span) -> Result<Self, RhythmError> {
        if interval < limits::INTERVAL_MIN || interval > limits::INTERVAL_MAX {
            return Err(RhythmError::Interval { interval });
        }
        if timeout < limits::TIMEOUT_MIN || timeout > limits::TIMEOUT_MAX {
            return Err(RhythmError::Timeout { timeout });
        }
        if timeout <= interval {
            return Err(RhythmError::TimeoutWithinInterval { interval, timeout });
        }
        Ok(Self { interval, timeout })
    }

    /// The rhythm with another interval and the same patience: the timeout grows or shrinks with
    /// the interval.
    #[must_use]
    pub fn with_interval(self, interval: Span) -> Self {
        let millis = u128::from(interval.as_millis()) * u128::from(self.timeout.as_nanos())
            / u128::from(self.interval.as_nanos().max(1));
        let timeout = Span::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
            .clamp(limits::TIMEOUT_MIN, limits::TIMEOUT_MAX)
            .max(interval + limits::INTERVAL_MIN);
        Self { interval, timeout }
    }
}

/// Rhythms that fit a kind of client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Preset {
    /// Desktops, servers, most devices: 15 s and 35 s.
    Typical,
    /// Games, trading, robots: 2 s and 7 s.
    Demanding,
    /// Phones that should sleep: 4 min and 5 min.
    Mobile,
}

impl Preset {
    /// Every preset.
    pub const ALL: [Self; 3] = [Self::Typical, Self::Demanding, Self::Mobile];

    /// Its name, on the command line and as a client's class.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Typical => "typical",
            Self::Demanding => "demanding",
            Self::Mobile => "mobile",
        }
    }

    /// The preset of that name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|preset| preset.word() == word)
    }

    /// Its rhythm.
    pub const fn rhythm(self) -> Rhythm {
        match self {
            Self::Typical => Rhythm { interval: Span::from_secs(15), timeout: Span::from_secs(35) },
            Self::Demanding => Rhythm { interval: Span::from_secs(2), timeout: Span::from_secs(7) },
            Self::Mobile => {
                Rhythm { interval: Span::from_secs(4 * 60), timeout: Span::from_secs(5 * 60) }
            }
        }
    }
}

/// Who sends the beats.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Mode {
    /// The client beats.
    #[default]
    Client,
    /// The server pings a client from which nothing came for an interval, and the client answers.
    Server,
    /// The client should beat, and is pinged when it does not.
    Either,
}

impl Mode {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Client => 0,
            Self::Server => 1,
            Self::Either => 2,
        }
    }

    /// The mode with this number, if there is one.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Client),
            1 => Some(Self::Server),
            2 => Some(Self::Either),
            _ => None,
        }
    }

    /// Whether the server pings a silent client before its timeout.
    pub const fn server_pings(self) -> bool {
        match self {
            Self::Client => false,
            Self::Server | Self::Either => true,
        }
    }
}

/// Whether a silent client is asked before it is judged.
///
/// The time to answer is the last part of the timeout, so a probe makes no verdict later: a client
/// that is silent until then is suspect, is sent a PROBE, and is dead at the end of its timeout.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ProbePolicy {
    /// Where the rhythm leaves time for it: a quarter of what lies between interval and timeout, at
    /// most 5 s; not at all where that lies less than 10 s apart.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always so long, where that is at most half of what lies between interval and timeout.
    Fixed(Span),
}

impl ProbePolicy {
    /// How long before the verdict a client of this rhythm is probed, if at all.
    pub fn span(self, rhythm: Rhythm) -> Option<Span> {
        let patience = rhythm.timeout.minus(rhythm.interval);
        match self {
            Self::Auto if patience >= limits::PROBE_PATIENCE_MIN => {
                Some(patience.divided_by(4).min(limits::PROBE_DEFAULT_MAX))
            }
            Self::Auto | Self::Off => None,
            Self::Fixed(span) => (span <= patience.divided_by(2)).then_some(span),
        }
    }
}

/// What a second login of the same client id does.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Duplicate {
    /// It takes over, and the older one is told why.
    #[default]
    TakeOver,
    /// It is refused, and the older one keeps the id.
    Reject,
}

/// What a kind of client gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Class {
    /// How often it beats, and when it is dead.
    pub rhythm: Rhythm,
    /// Whether it is asked before it is judged.
    pub probe: ProbePolicy,
    /// For how long a session whose connection was lost is held; zero: not at all.
    pub grace: Span,
    /// What a second login does.
    pub duplicate: Duplicate,
}

/// What becomes of a client's messages when there is no room for another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum SlowPolicy {
    /// The oldest that wait are dropped.
    #[default]
    Oldest,
    /// The new one is.
    Newest,
    /// The session ends, with the reason `slow_consumer`.
    Close,
}

/// How messages wait for a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QueuePolicy {
    /// What they may cost, in bytes.
    pub bytes_max: usize,
    /// For how long one waits that says nothing else.
    pub ttl: Span,
    /// What becomes of them when there is no room.
    pub slow: SlowPolicy,
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            bytes_max: limits::QUEUE_BYTES_DEFAULT,
            ttl: limits::QUEUE_TTL_DEFAULT,
            slow: SlowPolicy::Oldest,
        }
    }
}

/// A class by its place among those that a configuration knows; small, for every session has one.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct ClassId(u8);

impl ClassId {
    /// Its place: 0 for whoever names none, then the classes of
    /// [`GatewayConfig::class_places`] in their order.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Whether transport events are told beside the ledger.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum TransportEvents {
    /// Nobody wants to know, and it costs nothing.
    #[default]
    Untold,
    /// They are told, as far as there is room.
    Told,
}

/// What becomes of `TCP_USER_TIMEOUT`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum UserTimeout {
    /// As long as the client's timeout.
    #[default]
    FollowTimeout,
    /// The same for every client.
    Fixed(Span),
    /// Left to the kernel.
    Off,
}

/// Which part of a node's clients a gateway has. A client id belongs to one shard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Shard {
    /// Which one, from 0.
    pub index: u16,
    /// How many there are; not 0.
    pub count: u16,
    /// Key of the hash that spreads the ids, secret and the same for all. Not the key of the index:
    /// within a shard all hashes under this one are alike.
    pub key: [u64; 2],
    /// Connections that all shards together should hold.
    pub connections_total: u32,
}

impl Shard {
    /// The only one: it has everybody.
    pub const ONLY: Self = Self { index: 0, count: 1, key: [0, 0], connections_total: u32::MAX };
}

/// What the gateway needs to know, all of it.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    /// Rhythm of a client that asks for none.
    pub rhythm: Rhythm,
    /// Shortest interval a client gets by wishing for it.
    pub interval_wish_min: Span,
    /// Longest interval a client gets by wishing for it.
    pub interval_wish_max: Span,
    /// Who sends the beats.
    pub mode: Mode,
    /// Whether a silent client is asked before it is judged.
    pub probe: ProbePolicy,
    /// For how long a session whose connection was lost is held; zero: not at all.
    pub grace: Span,
    /// What a second login of the same client id does.
    pub duplicate: Duplicate,
    /// Classes with policies of their own, by name. A class that is not here and not a preset gets
    /// the policies above. Their places are their ids: a place is never given to another name.
    pub classes: Vec<(String, Class)>,
    /// Those of them that are not configured any more. Their sessions go on, and whoever names one
    /// from now on names none.
    pub classes_retired: Vec<String>,
    /// Resolution of the wheel.
    pub tick: Span,
    /// Connections held; further ones are refused politely.
    pub connections_max: u32,
    /// Which clients it has.
    pub shard: Shard,
    /// From accept to a complete HELLO.
    pub handshake_timeout: Span,
    /// From the first byte of a frame to its last.
    pub frame_timeout: Span,
    /// From our last word to closing without the peer's help.
    pub linger_timeout: Span,
    /// From the order to drain to closing whoever is still there.
    pub drain_timeout: Span,
    /// From an operator's order to drain to the first GOAWAY.
    pub drain_notice: Span,
    /// Window within which drained and refused clients are asked to come back.
    pub reconnect_window: (Span, Span),
    /// Largest payload of a frame after WELCOME.
    pub payload_bytes_max: u16,
    /// Bytes that may wait for one client.
    pub outbox_bytes_max: usize,
    /// Bytes of DATA of all clients together that may be handed up and not taken, before clients
    /// are not read any further.
    pub up_bytes_max: usize,
    /// How messages wait for a client.
    pub queue: QueuePolicy,
    /// Clients that get a broadcast in a second, of all shards together; not 0.
    pub broadcast_per_second: u32,
    /// What is limited before anybody says who they are.
    pub admission: Admission,
    /// Who comes in for others, and is not counted: those are, when it has said who they are.
    pub proxies: Networks,
    /// What a client may say.
    pub client_limits: ClientLimits,
    /// What becomes of `TCP_USER_TIMEOUT`.
    pub user_timeout: UserTimeout,
    /// How clients prove their ids.
    pub proof: Proof,
    /// Whether transport events are told beside the ledger.
    pub transport_events: TransportEvents,
    /// Whether the name in the certificate that a client has shown is its id.
    pub certified_ids: bool,
    /// Sessions of this boot are numbered from here; larger than every epoch of the boot before.
    pub epoch_first: u64,
    /// Key of the index's hash, secret: client ids come from strangers.
    pub hash_key: [u64; 2],
    /// Key of resume tokens, secret: who has it can take any session.
    pub resume_key: [u64; 2],
    /// Seed of the jitter.
    pub seed: u64,
    /// What the wall clock says.
    pub wall: WallAnchor,
    /// What is known about the boot before, for the first record of this one.
    pub former: Option<FormerBoot>,
}

impl Default for GatewayConfig {
    /// The defaults of the command line, with fixed keys: fit for tests, not for strangers.
    fn default() -> Self {
        Self {
            rhythm: Preset::Typical.rhythm(),
            interval_wish_min: limits::INTERVAL_WISH_MIN,
            interval_wish_max: limits::INTERVAL_MAX,
            mode: Mode::Client,
            probe: ProbePolicy::Auto,
            grace: Span::ZERO,
            duplicate: Duplicate::TakeOver,
            classes: Vec::new(),
            classes_retired: Vec::new(),
            tick: limits::TICK_DEFAULT,
            connections_max: 1_000,
            shard: Shard::ONLY,
            handshake_timeout: limits::HANDSHAKE_TIMEOUT,
            frame_timeout: limits::FRAME_TIMEOUT,
            linger_timeout: limits::LINGER_TIMEOUT,
            drain_timeout: limits::DRAIN_TIMEOUT,
            drain_notice: limits::DRAIN_NOTICE,
            reconnect_window: limits::RECONNECT_WINDOW,
            payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            up_bytes_max: limits::UP_BYTES_DEFAULT,
            queue: QueuePolicy::default(),
            broadcast_per_second: limits::BROADCAST_PER_SECOND_DEFAULT,
            admission: Admission::default(),
            proxies: Networks::default(),
            client_limits: ClientLimits::default(),
            user_timeout: UserTimeout::FollowTimeout,
            proof: Proof::None,
            transport_events: TransportEvents::Untold,
            certified_ids: false,
            epoch_first: 1,
            hash_key: [0, 0],
            resume_key: [0, 0],
            seed: 0,
            wall: WallAnchor::default(),
            former: None,
        }
    }
}

impl GatewayConfig {
    /// The policies of a class: its own, or those of everybody at the rhythm of a preset of that
    /// name, or those of everybody.
    pub fn class(&self, name: &str) -> Class {
        self.class_named(self.class_id(name))
    }

    /// The class of this name. Those that are not configured and no presets are all the same one.
    pub fn class_id(&self, name: &str) -> ClassId {
        // A preset of that name is there in any case.
        let is_gone = Preset::from_word(name).is_none()
            && self.classes_retired.iter().any(|retired| retired == name);
        let known = self.class_known(name).filter(|_| !is_gone);
        known.unwrap_or_default()
    }

    /// The class that sessions of this name have, though it may not be configured any more; the
    /// empty name is that of those without. `None`: no session has it.
    pub fn class_known(&self, name: &str) -> Option<ClassId> {
        if name.is_empty() {
            return Some(ClassId::default());
        }
        let place = self.class_places().position(|own| own == name)?;
        u8::try_from(place + 1).ok().map(ClassId)
    }

    /// The name of a class; empty where it has none.
    pub fn class_name(&self, id: ClassId) -> &str {
        let place = usize::from(id.0).checked_sub(1);
        place.and_then(|place| self.class_places().nth(place)).unwrap_or_default()
    }

    /// Every class that has a name and can be named.
    pub fn class_names(&self) -> impl Iterator<Item = &str> {
        let own = self.classes_in_force().map(|(name, _)| name.as_str());
        own.chain(Preset::ALL.iter().map(|preset| preset.word()))
    }

    /// The policies of the class with this id.
    pub fn class_named(&self, id: ClassId) -> Class {
        let name = self.class_name(id);
        let preset = Preset::from_word(name);
        let is_there = |own: &str| {
            own == name && (preset.is_none() || !self.classes_retired.iter().any(|it| it == own))
        };
        let own = self.classes.iter().find(|(own, _)| is_there(own));
        own.map(|(_, class)| *class).unwrap_or_else(|| Class {
            rhythm: preset.map_or(self.rhythm, Preset::rhythm),
            probe: self.probe,
            grace: self.grace,
            duplicate: self.duplicate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_are_rhythms() {
        for preset in Preset::ALL {
            let rhythm = preset.rhythm();
            assert_eq!(Rhythm::new(rhythm.interval, rhythm.timeout), Ok(rhythm));
            assert_eq!(Preset::from_word(preset.word()), Some(preset));
        }
    }

    #[test]
    fn nonsense_is_not_a_rhythm() {
        let secs = Span::from_secs;
        assert!(matches!(Rhythm::new(Span::ZERO, secs(1)), Err(RhythmError::Interval { .. })));
        assert!(matches!(Rhythm::new(secs(1), secs(999_999)), Err(RhythmError::Timeout { .. })));
        assert!(matches!(
            Rhythm::new(secs(2), secs(2)),
            Err(RhythmError::TimeoutWithinInterval { .. })
        ));
    }

    #[test]
    fn patience_grows_with_the_interval() {
        let typical = Preset::Typical.rhythm();
        assert_eq!(typical.with_interval(Span::from_secs(30)).timeout, Span::from_secs(70));
        assert_eq!(typical.with_interval(Span::from_secs(3)).timeout, Span::from_secs(7));
        let shortest = typical.with_interval(limits::INTERVAL_MIN);
        assert_eq!(Rhythm::new(shortest.interval, shortest.timeout), Ok(shortest));
        let longest = typical.with_interval(limits::INTERVAL_MAX);
        assert_eq!(Rhythm::new(longest.interval, longest.timeout), Ok(longest));
    }

    #[test]
    fn a_probe_needs_time_for_its_answer() {
        let secs = Span::from_secs;
        for (name, policy, preset, span) in [
            ("typical", ProbePolicy::Auto, Preset::Typical, Some(secs(5))),
            ("too short", ProbePolicy::Auto, Preset::Demanding, None),
            ("mobile", ProbePolicy::Auto, Preset::Mobile, Some(secs(5))),
            ("off", ProbePolicy::Off, Preset::Typical, None),
            ("own", ProbePolicy::Fixed(secs(10)), Preset::Typical, Some(secs(10))),
            ("own, too long", ProbePolicy::Fixed(secs(11)), Preset::Typical, None),
        ] {
            assert_eq!(policy.span(preset.rhythm()), span, "{name}");
        }
    }

    #[test]
    fn classes_have_ids_and_ids_have_names() {
        let own = GatewayConfig::default().class("lock");
        let classes = vec![("lock".to_owned(), own), ("mobile".to_owned(), own)];
        let config = GatewayConfig { classes, ..GatewayConfig::default() };
        for name in ["lock", "mobile", "typical", "demanding"] {
            let id = config.class_id(name);
            assert_eq!(config.class_name(id), name);
            assert_eq!(config.class_named(id), config.class(name), "{name}");
        }
        assert_eq!(config.class("mobile").rhythm, own.rhythm, "the configured one goes before");
        assert_eq!(config.class_id("unheard of"), ClassId::default());
        assert_eq!(config.class_name(ClassId::default()), "");
    }

    #[test]
    fn modes_have_numbers() {
        for mode in [Mode::Client, Mode::Server, Mode::Either] {
            assert_eq!(Mode::from_code(mode.code()), Some(mode));
        }
        assert_eq!(Mode::from_code(3), None);
    }
}
