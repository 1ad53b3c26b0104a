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
/// After a stop of the process or the machine a client's beat may be waiting to be read, and
/// whoever advances first judges the living dead.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::REACH_TICKS;

    fn presence(timeout: Span, tick: Span) -> Presence {
        let hash_key = [1, 2];
        Presence::new(PresenceConfig {
            timeout,
            tick,
            clients_max: 2,
            hash_key,
            start: Moment::ZERO,
        })
    }

    fn typical() -> Presence {
        presence(Span::from_secs(35), Span::from_millis(10))
    }

    fn gone(presence: &mut Presence, now: Moment) -> Vec<Offline> {
        let mut gone = Vec::new();
        assert_eq!(presence.advance(now, &mut gone), Progress::Done);
        presence.tracker.check();
        gone
    }

    #[test]
    fn a_client_is_online_from_its_first_beat_to_its_silence() {
        let mut presence = typical();
        let first = Moment::from_nanos(1_000_000_001);
        let last = Moment::from_nanos(20_000_000_003);
        let online = presence.beat("a", first).unwrap().unwrap();
        assert_eq!((online.client.as_str(), online.at), ("a", first));
        assert_eq!(presence.beat("a", last), Ok(None));
        assert_eq!(presence.last_beat("a"), Some(last));
        assert!(gone(&mut presence, last + Span::from_secs(35) - Span::from_nanos(1)).is_empty());
        let judged = gone(&mut presence, last + Span::from_secs(35) + Span::from_millis(10));
        let reason = CloseReason::HeartbeatTimeout;
        assert_eq!(judged, [Offline { client: online.client, reason, last_beat: last }]);
        assert!(presence.is_empty());
        assert_eq!(presence.next_wake(), None);
    }

    #[test]
    fn a_client_that_left_or_fell_silent_comes_online_again() {
        let mut presence = typical();
        let at = Moment::from_millis;
        assert!(presence.beat("a", at(0)).unwrap().is_some());
        let left = presence.leave("a", at(7)).unwrap();
        assert_eq!((left.reason, left.last_beat), (CloseReason::Bye, at(7)));
        assert_eq!(presence.leave("a", at(8)), None);
        assert!(presence.beat("a", at(9)).unwrap().is_some());
        assert_eq!(gone(&mut presence, at(100_000)).len(), 1);
        assert!(presence.beat("a", at(100_001)).unwrap().is_some());
        assert_eq!(presence.len(), 1);
    }

    #[test]
    fn who_is_not_let_in_is_told_why_and_those_inside_are_not_disturbed() {
        let mut presence = typical();
        assert!(presence.beat("a", Moment::ZERO).unwrap().is_some());
        assert!(presence.beat("b", Moment::ZERO).unwrap().is_some());
        assert_eq!(presence.beat("c", Moment::ZERO), Err(BeatError::Full));
        assert_eq!(presence.beat("a", Moment::ZERO), Ok(None));
        let empty = Err(BeatError::BadClientId(ClientIdError::Empty));
        assert_eq!(presence.beat("", Moment::ZERO), empty);
        presence.leave("a", Moment::ZERO);
        assert!(presence.beat("c", Moment::ZERO).unwrap().is_some());
    }

    #[test]
    fn a_beat_of_the_past_takes_nothing_back() {
        let mut presence = typical();
        let at = Moment::from_millis;
        assert!(presence.beat("a", at(5_000)).unwrap().is_some());
        assert_eq!(presence.beat("a", at(3_000)), Ok(None));
        assert_eq!(presence.last_beat("a"), Some(at(5_000)));
        assert!(gone(&mut presence, at(39_990)).is_empty());
        assert_eq!(gone(&mut presence, at(40_000)).len(), 1);
    }

    #[test]
    fn a_timeout_beyond_the_reach_of_the_wheel_is_kept_in_full() {
        let tick = Span::from_millis(1);
        let timeout = tick.times(3 * REACH_TICKS);
        let mut presence = presence(timeout, tick);
        assert!(presence.beat("a", Moment::ZERO).unwrap().is_some());
        for ticks in [REACH_TICKS + 1, 2 * REACH_TICKS + 3] {
            assert!(gone(&mut presence, Moment::ZERO + tick.times(ticks)).is_empty());
        }
        assert!(gone(&mut presence, Moment::ZERO + timeout - tick).is_empty());
        assert_eq!(gone(&mut presence, Moment::ZERO + timeout).len(), 1);
    }

    #[test]
    fn a_mass_death_comes_in_slices() {
        let clients = EXPIRE_BATCH_MAX * 2 + 1;
        let mut presence = Presence::new(PresenceConfig {
            timeout: Span::from_secs(35),
            tick: Span::from_millis(10),
            clients_max: u32::try_from(clients).unwrap(),
            hash_key: [1, 2],
            start: Moment::ZERO,
        });
        for client in 0..clients {
            assert!(presence.beat(&client.to_string(), Moment::ZERO).unwrap().is_some());
        }
        let now = Moment::from_millis(35_000);
        let mut gone = Vec::new();
        assert_eq!(presence.advance(now, &mut gone), Progress::More);
        assert_eq!(gone.len(), EXPIRE_BATCH_MAX);
        assert_eq!(presence.advance(now, &mut gone), Progress::More);
        assert_eq!(presence.advance(now, &mut gone), Progress::Done);
        assert_eq!(gone.len(), clients);
    }
}
