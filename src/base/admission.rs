//! Who may come in, how often, and how much a client may say: what an operator sets, and the words
//! for what is counted. Nothing of it is limited unless somebody says so.

use crate::base::time::Span;

/// So many in so long, and so many at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// How many in `per`; not 0.
    pub count: u32,
    /// In how long; not zero.
    pub per: Span,
    /// How many at once, after a while in which there were none; not 0.
    pub burst: u32,
}

impl Rate {
    /// So many in a second, and as many at once.
    pub const fn per_second(count: u32) -> Self {
        Self { count, per: Span::from_secs(1), burst: count }
    }

    /// The same rate with another burst.
    pub const fn with_burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    /// The time that so many take at this rate.
    pub fn cost(self, count: u64) -> Span {
        self.per.times(count).divided_by(u64::from(self.count.max(1)))
    }

    /// The time by which whoever uses up the burst is ahead of the rate.
    pub fn tolerance(self) -> Span {
        self.cost(u64::from(self.burst))
    }

    /// The part of it that one of `shards` has: all together have as much, and at most one more
    /// each at once.
    pub fn share(self, shards: u16) -> Self {
        let shards = shards.max(1);
        let burst = self.burst.div_ceil(u32::from(shards));
        Self { per: self.per.times(u64::from(shards)), burst, ..self }
    }

    /// Twice that part: what comes from one address is not spread as evenly as what comes from all.
    pub fn generous_share(self, shards: u16) -> Self {
        if shards <= 1 {
            return self;
        }
        let share = self.share(shards);
        let burst = share.burst.saturating_mul(2).min(self.burst);
        Self { per: Span::from_nanos((share.per.as_nanos() / 2).max(1)), burst, ..share }
    }
}

/// How many bits of an address are told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrefixBits {
    /// Of an IPv4 address; at most 32. Addresses of IPv4 written as IPv6 are such.
    pub v4: u8,
    /// Of an IPv6 address; at most 128.
    pub v6: u8,
}

/// What those who share so many bits of their address may do together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Crowding {
    /// Who is told apart.
    pub bits: PrefixBits,
    /// Connections at a time.
    pub connections: Option<u32>,
    /// New connections; each has at most one HELLO.
    pub connects: Option<Rate>,
}

impl Crowding {
    /// Whether anything is limited.
    pub const fn is_limited(&self) -> bool {
        self.connections.is_some() || self.connects.is_some()
    }
}

/// What is limited before anybody says who they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Admission {
    /// Of one address.
    pub address: Crowding,
    /// Of a network.
    pub prefix: Crowding,
    /// New connections of everybody, before they are read.
    pub accepts: Option<Rate>,
    /// HELLOs of clients that do not come back to a session of theirs.
    pub newcomers: Option<Rate>,
}

impl Admission {
    /// The same, where others tell the same bits of an address apart: who is counted by some bits
    /// is taken off by them.
    pub const fn with_bits_of(self, other: &Self) -> Self {
        Self {
            address: Crowding { bits: other.address.bits, ..self.address },
            prefix: Crowding { bits: other.prefix.bits, ..self.prefix },
            ..self
        }
    }
}

impl Default for Admission {
    fn default() -> Self {
        let crowding =
            |v4, v6| Crowding { bits: PrefixBits { v4, v6 }, connections: None, connects: None };
        // Whoever has one address of IPv6 has 64 bits of them, and a site has a /48.
        let (address, prefix) = (crowding(32, 64), crowding(24, 48));
        Self { address, prefix, accepts: None, newcomers: None }
    }
}

/// What a client may say once it is in.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClientLimits {
    /// Complete frames of any kind. Beyond that it is sent away.
    pub frames: Option<Rate>,
    /// Bytes. Beyond that it is sent away.
    pub bytes: Option<Rate>,
    /// PINGs that are answered. Those beyond are beats all the same.
    pub beats: Option<Rate>,
}

/// What was exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Connections of one address.
    AddressConnections,
    /// New connections of one address.
    AddressConnects,
    /// Connections of a network.
    PrefixConnections,
    /// New connections of a network.
    PrefixConnects,
    /// New connections of everybody.
    Accepts,
    /// HELLOs of newcomers.
    Newcomers,
    /// Frames of one client.
    ClientFrames,
    /// Bytes of one client.
    ClientBytes,
    /// PINGs of one client.
    ClientBeats,
}

impl Limit {
    /// Every limit.
    pub const ALL: [Self; 9] = [
        Self::AddressConnections,
        Self::AddressConnects,
        Self::PrefixConnections,
        Self::PrefixConnects,
        Self::Accepts,
        Self::Newcomers,
        Self::ClientFrames,
        Self::ClientBytes,
        Self::ClientBeats,
    ];

    /// Position in [`Self::ALL`], for tables of counters.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word in metrics: that of its key.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AddressConnections => "address_connections",
            Self::AddressConnects => "address_connects",
            Self::PrefixConnections => "prefix_connections",
            Self::PrefixConnects => "prefix_connects",
            Self::Accepts => "accept_rate",
            Self::Newcomers => "newcomer_rate",
            Self::ClientFrames => "client_frames",
            Self::ClientBytes => "client_bytes",
            Self::ClientBeats => "client_beats",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_where_their_index_says() {
        for (place, limit) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit.index(), place);
        }
    }

    #[test]
    fn shards_have_as_much_together_as_one() {
        let rate = Rate { count: 100, per: Span::from_secs(1), burst: 10 };
        for shards in [1, 2, 3, 7] {
            let share = rate.share(shards);
            assert_eq!(share.cost(100), Span::from_secs(u64::from(shards)));
            assert!(share.burst * u32::from(shards) >= 10);
            assert!(share.burst * u32::from(shards) < 10 + u32::from(shards));
            let generous = rate.generous_share(shards);
            assert!(generous.burst <= rate.burst, "no shard has more than all");
            assert!(generous.cost(100) >= Span::from_secs(u64::from(shards) / 2));
        }
        assert_eq!(rate.generous_share(1), rate);
    }
}
