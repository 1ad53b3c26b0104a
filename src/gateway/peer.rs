//! Who is at the other end, in a few bytes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// The address of a peer: a [`SocketAddr`] in 24 bytes instead of 32.
///
/// The flow label of IPv6 is not kept. It belongs to packets, and tells nobody from anybody.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    V4 { address: Ipv4Addr, port: u16 },
    V6 { address: Ipv6Addr, port: u16, scope: u32 },
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::V4 { address: *v4.ip(), port: v4.port() },
            SocketAddr::V6(v6) => {
                Self::V6 { address: *v6.ip(), port: v6.port(), scope: v6.scope_id() }
            }
        }
    }
}

impl From<Peer> for SocketAddr {
    fn from(peer: Peer) -> Self {
        match peer {
            Peer::V4 { address, port } => Self::from((address, port)),
            Peer::V6 { address, port, scope } => {
                Self::V6(SocketAddrV6::new(address, port, 0, scope))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_afterwards() {
        assert!(size_of::<Peer>() <= 24, "{}", size_of::<Peer>());
        for text in ["192.0.2.7:4711", "[2001:db8::7]:443", "[fe80::1%3]:1", "[::ffff:192.0.2.7]:9"]
        {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(SocketAddr::from(Peer::from(address)), address);
        }
    }
}
