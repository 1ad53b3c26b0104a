//! Places for connections to the admin API, and who gets one where they are scarce.
//!
//! Where all are taken, whoever comes gets the one of whoever has sat there longest without having
//! asked anything that it may ask. So those who say nothing, or half a word, or have no token, keep
//! nobody out, neither probes nor operators. And nobody from elsewhere has more than half of them,
//! however well it is known.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use crate::base::limits;
use crate::control::auth::Visit;

/// A bounded number of places.
pub(crate) struct Seats {
    places: Arc<Semaphore>,
    counts: Arc<SeatCounts>,
    /// The oldest first.
    taken: VecDeque<Seat>,
}

struct Seat {
    visit: Arc<Visit>,
    talk: AbortHandle,
    party: Option<IpAddr>,
}

/// How often there was no place, for whoever counts.
#[derive(Debug, Default)]
pub(crate) struct SeatCounts {
    /// Strangers that made room.
    pub(crate) displaced: AtomicU64,
    /// Newcomers for whom nobody made room.
    pub(crate) full: AtomicU64,
    /// Newcomers whose address has its share.
    pub(crate) share: AtomicU64,
}

/// Who has one share of the places: an address, or 64 bits of one, which one customer has. `None`:
/// this machine, where one address is as good as another, and a proxy that speaks for many may be.
fn party(peer: IpAddr) -> Option<IpAddr> {
    match peer.to_canonical() {
        peer if peer.is_loopback() => None,
        IpAddr::V4(address) => Some(IpAddr::V4(address)),
        IpAddr::V6(address) => {
            Some(IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))))
        }
    }
}

impl Seats {
    pub(crate) fn new(counts: Arc<SeatCounts>) -> Self {
        let places = Arc::new(Semaphore::new(limits::HTTP_CONNECTIONS_MAX));
        Self { places, counts, taken: VecDeque::new() }
    }

    /// A place for somebody from this address, if there is one, or will be in a moment.
    pub(crate) async fn take(&mut self, peer: IpAddr) -> Option<OwnedSemaphorePermit> {
        self.taken.retain(|seat| !seat.talk.is_finished());
        let party = party(peer);
        let own = self.taken.iter().filter(|seat| party.is_some() && seat.party == party).count();
        let has_share = own >= limits::HTTP_ADDRESS_CONNECTIONS_MAX;
        if !has_share && let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            return Some(place);
        }
        let makes_room =
            |seat: &Seat| !seat.visit.is_known() && (!has_share || seat.party == party);
        let Some(oldest) = self.taken.iter().position(makes_room) else {
            let count = if has_share { &self.counts.share } else { &self.counts.full };
            count.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.counts.displaced.fetch_add(1, Ordering::Relaxed);
        self.taken.remove(oldest)?.talk.abort();
        // It is dropped, with its place, as soon as this one waits.
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Notes who has the place that was taken last.
    pub(crate) fn note(&mut self, peer: IpAddr, visit: Arc<Visit>, talk: AbortHandle) {
        self.taken.push_back(Seat { visit, talk, party: party(peer) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::webhook::target::Scheme;

    /// Seats, and whoever sits there until it is sent away.
    struct Room(Seats);

    impl Room {
        fn new() -> Self {
            Self(Seats::new(Arc::default()))
        }

        /// Somebody comes and stays. Whether it has got a place.
        async fn come(&mut self, peer: &str, is_known: bool) -> Option<AbortHandle> {
            let peer = peer.parse().expect("an address");
            let place = self.0.take(peer).await?;
            let visit = Arc::new(Visit::new(Scheme::Http));
            if is_known {
                visit.note_known();
            }
            let talk = tokio::spawn(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            self.0.note(peer, visit, talk.abort_handle());
            Some(talk.abort_handle())
        }

        async fn crowd(&mut self, count: usize, peer: &str, is_known: bool) -> usize {
            let mut came = 0;
            for _ in 0..count {
                came += usize::from(self.come(peer, is_known).await.is_some());
            }
            came
        }

        fn counts(&self) -> [u64; 3] {
            let SeatCounts { displaced, full, share } = &*self.0.counts;
            [displaced, full, share].map(|count| count.load(Ordering::Relaxed))
        }
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(test);
    }

    const ALL: usize = limits::HTTP_CONNECTIONS_MAX;
    const SHARE: usize = limits::HTTP_ADDRESS_CONNECTIONS_MAX;

    #[test]
    fn one_address_has_its_share_and_the_rest_is_for_others() {
        run(async {
            let mut room = Room::new();
            assert_eq!(room.crowd(ALL, "192.0.2.1", true).await, SHARE);
            assert_eq!(room.crowd(ALL, "192.0.2.2", true).await, ALL - SHARE);
            assert_eq!(room.crowd(1, "192.0.2.3", true).await, 0, "they are all taken, and known");
            let shares = 2 * ALL - SHARE - (ALL - SHARE);
            assert_eq!(room.counts(), [0, 1, u64::try_from(shares).expect("few")]);
        });
    }

    #[test]
    fn ipv6_is_counted_by_customers_and_an_ipv4_address_by_itself() {
        run(async {
            let mut room = Room::new();
            assert_eq!(room.crowd(SHARE, "2001:db8::1", true).await, SHARE);
            assert_eq!(room.crowd(1, "2001:db8::ffff:2", true).await, 0);
            assert_eq!(room.crowd(1, "2001:db8:0:1::1", true).await, 1);
            let mut room = Room::new();
            assert_eq!(room.crowd(SHARE, "192.0.2.1", true).await, SHARE);
            assert_eq!(room.crowd(1, "::ffff:192.0.2.1", true).await, 0);
            assert_eq!(room.crowd(1, "::ffff:192.0.2.2", true).await, 1);
        });
    }

    #[test]
    fn this_machine_may_have_all_of_them() {
        for own in ["127.0.0.1", "::1", "127.9.9.9", "::ffff:127.0.0.1"] {
            run(async {
                let mut room = Room::new();
                assert_eq!(room.crowd(ALL, own, true).await, ALL, "{own}");
                assert_eq!(room.crowd(1, own, true).await, 0);
                assert_eq!(room.counts(), [0, 1, 0]);
            });
        }
    }

    #[test]
    fn the_oldest_stranger_makes_room_and_a_flood_only_of_its_own() {
        run(async {
            let mut room = Room::new();
            let probe = room.come("198.51.100.7", false).await.expect("there is room");
            assert_eq!(room.crowd(5 * ALL, "192.0.2.1", false).await, 5 * ALL);
            tokio::task::yield_now().await;
            assert!(!probe.is_finished(), "others' strangers make room for one another");
            assert_eq!(room.crowd(ALL - SHARE - 1, "127.0.0.1", true).await, ALL - SHARE - 1);
            let newcomer = room.come("203.0.113.9", true).await;
            tokio::task::yield_now().await;
            assert!(newcomer.is_some() && probe.is_finished(), "the oldest, when all are taken");
            assert_eq!(room.counts()[1..], [0, 0]);
        });
    }
}
