//! Who is online, for somebody else's server: the dictionary and the scanning thread, replaced.

use crate::base::event::CloseReason;
use crate::base::ids::{ClientId, ClientIdError};
use crate::base::limits::EXPIRE_BATCH_MAX;
use crate::base::time::{Moment, Span};
use crate::tracker::{Full, Progress, Tracker, TrackerConfig};

/// What [`Presence`] needs to know.
#[derive(Clone, Copy, Debug)]
pub struct PresenceConfig {
    /// After how much silence a client is offline.
    pub timeout: Span,
    /// How late that may be noticed. Not zero.
    pub tick: Span,
    /// Clients online at once, at most.
    pub clients_max: u32,
    /// Key of the index's hash: random and secret where client ids come from strangers.
    pub hash_key: [u64; 2],
    /// What time it is.
    pub start: Moment,
}

/// A client is here.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Online {
    /// Who.
    pub client: ClientId,
    /// Since when.
    pub at: Moment,
}

/// A client is gone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offline {
    /// Who.
    pub client: ClientId,
    /// [`CloseReason::Bye`] when it left, [`CloseReason::HeartbeatTimeout`] when it fell silent.
    pub reason: CloseReason,
    /// When it was last heard, exactly: not rounded to the tick.
    pub last_beat: Moment,
}

/// Why a beat did not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum BeatError {
    /// As many clients as allowed are online already, and this is none of them.
    #[error("as many clients as allowed are online already")]
    Full,
    /// The text is not a client id.
    #[error(transparent)]
    BadClientId(#[from] ClientIdError),
}

/// Which clients are online, by their beats.
///
/// It asks no clock and starts no thread: it is told the time, and [`next_wake`](Self::next_wake)
/// says how long the caller may sleep. A beat costs the same with ten clients and a million.
///
/// Order matters in one place: hand in what has arrived, *then* call [`advance`](Self::advance).
/// After a stop of the process or the machine a client's beat may be waiting to be read, and whoever
/// advances first judges the living dead.
///
/// ```
/// use heartwheel::base::event::CloseReason;
/// use heartwheel::base::time::{Moment, Span};
/// use heartwheel::tracker::{Presence, PresenceConfig};
///
/// let mut presence = Presence::new(PresenceConfig {
///     timeout: Span::from_secs(35),
///     tick: Span::from_millis(10),
///     clients_max: 10_000,
///     hash_key: [1, 2],
///     start: Moment::ZERO,
/// });
///
/// // the first beat makes a client online, the second one only keeps it so
/// let online = presence.beat("sensor-7", Moment::from_millis(1_234))?;
/// assert_eq!(online.map(|online| online.client.to_string()).as_deref(), Some("sensor-7"));
/// assert_eq!(presence.beat("sensor-7", Moment::from_millis(16_201))?, None);
///
/// // 35 seconds after the last beat it is offline, and not a millisecond before
/// let mut gone = Vec::new();
/// presence.advance(Moment::from_millis(51_200), &mut gone);
/// assert!(gone.is_empty());
/// presence.advance(Moment::from_millis(51_210), &mut gone);
/// assert_eq!(gone[0].client.as_str(), "sensor-7");
/// assert_eq!(gone[0].reason, CloseReason::HeartbeatTimeout);
/// assert_eq!(gone[0].last_beat, Moment::from_millis(16_201));
/// # Ok::<(), heartwheel::tracker::BeatError>(())
/// ```
#[derive(Debug)]
pub struct Presence {
    /// Each client's last beat.
    tracker: Tracker<Moment>,
    timeout: Span,
}

impl Presence {
    /// Nobody is online.
    pub fn new(config: PresenceConfig) -> Self {
        let PresenceConfig { timeout, tick, clients_max, hash_key, start } = config;
        let config = TrackerConfig { capacity_max: clients_max, tick, hash_key, start };
        Self { tracker: Tracker::new(config), timeout }
    }

    /// Notes a beat; the first one says that the client is online. Allocates only then.
    pub fn beat(&mut self, client: &str, now: Moment) -> Result<Option<Online>, BeatError> {
        if let Some(conn) = self.tracker.find(client) {
            let last_beat = self.tracker.get_mut(conn).expect("found above");
            *last_beat = now.max(*last_beat);
            let deadline = *last_beat + self.timeout;
            self.tracker.touch(conn, deadline);
            return Ok(None);
        }
        let client = ClientId::new(client)?;
        let conn =
            self.tracker.admit(now, now + self.timeout).map_err(|Full(_)| BeatError::Full)?;
        self.tracker.name(conn, client.clone()).expect("nobody was found under this name");
        Ok(Some(Online { client, at: now }))
    }

    /// A client leaves on purpose. `None` when it is not online.
    pub fn leave(&mut self, client: &str, now: Moment) -> Option<Offline> {
        let conn = self.tracker.find(client)?;
        let client = self.tracker.unname(conn)?;
        let last_beat = self.tracker.dismiss(conn)?;
        Some(Offline { client, reason: CloseReason::Bye, last_beat: now.max(last_beat) })
    }

    /// Appends who fell silent: their last beat is a timeout ago. A call hands out at most
    /// [`EXPIRE_BATCH_MAX`]; [`Progress::More`] says that there are more, so that a mass death does
    /// not stop the caller's other work.
    pub fn advance(&mut self, now: Moment, out: &mut Vec<Offline>) -> Progress {
        let mut silent = Vec::new();
        let progress = self.tracker.expire(now, EXPIRE_BATCH_MAX, &mut silent);
        for conn in silent {
            let last_beat = *self.tracker.get(conn).expect("who expired is still here");
            if last_beat + self.timeout > now {
                // A timeout beyond the wheel's reach fires there; the rest of it is still to come.
                self.tracker.touch(conn, last_beat + self.timeout);
                continue;
            }
            let client = self.tracker.unname(conn).expect("everybody here has a name");
            self.tracker.dismiss(conn);
            out.push(Offline { client, reason: CloseReason::HeartbeatTimeout, last_beat });
        }
        progress
    }

    /// When to call [`advance`](Self::advance) at the latest; `None` while nobody is online.
    pub fn next_wake(&self) -> Option<Moment> {
        self.tracker.next_wake()
    }

    /// When a client was last heard, if it is online.
    pub fn last_beat(&self, client: &str) -> Option<Moment> {
        self.tracker.get(self.tracker.find(client)?).copied()
    }

    /// Number of clients online.
    pub fn len(&self) -> usize {
        self.tracker.len()
    }

    /// Whether nobody is online.
    pub fn is_empty(&self) -> bool {
        self.tracker.is_empty()
    }
}
