//! A connection between two drivers.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use crate::base::ids::ConnId;
use crate::base::introduction::Baggage;

/// A connection that has left one driver and not arrived at another: the socket as an ordinary
/// descriptor, and what was received of it. Whoever drops it closes the connection.
///
/// After `Op::Move` a driver has one ready when nothing of the connection is under way any more,
/// and tells `Moved` when it is taken (`take_departure`, `has_departures`). A driver that is given
/// one (`arrive`, `arriving`) makes a socket of its own of it, and tells `Arrived`.
#[derive(Debug)]
pub struct Parcel {
    /// The shard that it is for.
    pub to: u16,
    /// The peer's address.
    pub peer: SocketAddr,
    /// What was received so far.
    pub bytes: Vec<u8>,
    /// Which connection it was.
    pub from: ConnId,
    /// What goes with it: empty, for whoever sends it to fill.
    pub baggage: Baggage,
    pub(crate) socket: OwnedFd,
}
