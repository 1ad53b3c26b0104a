//! What happened, said once: log, metrics, watchers and the event feed read the same words.

use std::fmt;
use std::net::SocketAddr;

use crate::base::ids::{ClientId, ConnId};
use crate::base::io::TcpFacts;
use crate::base::pulse::Pulse;
use crate::base::time::{Millis, Moment, Span};

/// Why a connection or a session ended: one number and one word for the wire, the event, the log,
/// the metric's label and the API.
///
/// 1xx normal, 2xx network, 3xx policy, 4xx protocol, 5xx server.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u16)]
pub enum CloseReason {
    /// The client left on purpose.
    Bye = 100,
    /// The server is being emptied.
    Drain = 101,
    /// A newer login of the same client id took over.
    Replaced = 102,
    /// The client is asked to go elsewhere, and the server goes on.
    Rebalance = 103,
    /// The client closed the connection without BYE.
    ClosedByPeer = 200,
    /// The connection was reset.
    Reset = 201,
    /// Nothing came for the whole timeout.
    HeartbeatTimeout = 202,
    /// TCP itself gave up: keep-alive probes or sent bytes stayed unanswered.
    TcpTimeout = 203,
    /// Another fault of the network or the socket.
    NetworkFault = 204,
    /// An operator or backend ended the session.
    Kicked = 300,
    /// The proof of identity was not accepted.
    BadToken = 301,
    /// As many connections as allowed are here already, or come at once.
    Busy = 302,
    /// The client does not read what it is sent.
    SlowConsumer = 303,
    /// The client sends more than it may.
    Flood = 304,
    /// The client id is in use, and the policy is to keep the older login.
    AlreadyConnected = 305,
    /// Too many logins fight for the client id; come back later.
    Contested = 306,
    /// Too many connections are here, or come, from its address or network.
    TooManyConnections = 307,
    /// The first bytes are not the preface.
    BadPreface = 400,
    /// A frame is longer than allowed.
    FrameTooLong = 401,
    /// A frame came that has no place here, such as a second HELLO.
    UnexpectedFrame = 402,
    /// A frame's payload does not have its form.
    Malformed = 403,
    /// No complete HELLO within the handshake deadline.
    HandshakeTimeout = 404,
    /// A frame was begun and not completed within the frame deadline.
    FrameTimeout = 405,
    /// Preface asks for protocol versions that are not spoken here.
    UnsupportedVersion = 406,
    /// The client id is empty, too long, not UTF-8 or has control characters.
    BadClientId = 407,
    /// A frame type that is not known here, marked as critical.
    UnknownCriticalFrame = 408,
    /// What should say who stands behind a proxy is missing or wrong, or comes from somebody who
    /// may not say so.
    BadProxyHeader = 409,
    /// TLS was not agreed upon, or what came was not encrypted as agreed.
    BadTls = 410,
    /// What came is not a WebSocket that is taken here, or breaks its rules.
    BadWebsocket = 411,
    /// An error of the server.
    ServerError = 500,
}

/// What a client may do about an ending.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ComeBack {
    /// Reconnect, and resume with the token of the session.
    Resume,
    /// Reconnect as if for the first time.
    Reconnect,
    /// Do not come back without being told to: it would only happen again.
    StayAway,
}

impl CloseReason {
    /// Every reason, in the order of the codes.
    pub const ALL: [Self; 30] = [
        Self::Bye,
        Self::Drain,
        Self::Replaced,
        Self::Rebalance,
        Self::ClosedByPeer,
        Self::Reset,
        Self::HeartbeatTimeout,
        Self::TcpTimeout,
        Self::NetworkFault,
        Self::Kicked,
        Self::BadToken,
        Self::Busy,
        Self::SlowConsumer,
        Self::Flood,
        Self::AlreadyConnected,
        Self::Contested,
        Self::TooManyConnections,
        Self::BadPreface,
        Self::FrameTooLong,
        Self::UnexpectedFrame,
        Self::Malformed,
        Self::HandshakeTimeout,
        Self::FrameTimeout,
        Self::UnsupportedVersion,
        Self::BadClientId,
        Self::UnknownCriticalFrame,
        Self::BadProxyHeader,
        Self::BadTls,
        Self::BadWebsocket,
        Self::ServerError,
    ];

    /// The number on the wire.
    pub const fn code(self) -> u16 {
        self as u16
    }

    /// The reason with this number, if there is one.
    pub fn from_code(code: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }

    /// Position in [`Self::ALL`], for tables of counters.
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).expect("ALL holds every reason")
    }

    /// The word in events, logs, metrics and the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bye => "bye",
            Self::Drain => "drain",
            Self::Replaced => "replaced",
            Self::Rebalance => "rebalance",
            Self::ClosedByPeer => "closed_by_peer",
            Self::Reset => "reset",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::TcpTimeout => "tcp_timeout",
            Self::NetworkFault => "network_fault",
            Self::Kicked => "kicked",
            Self::BadToken => "bad_token",
            Self::Busy => "busy",
            Self::SlowConsumer => "slow_consumer",
            Self::Flood => "flood",
            Self::AlreadyConnected => "already_connected",
            Self::Contested => "contested",
            Self::TooManyConnections => "too_many_connections",
            Self::BadPreface => "bad_preface",
            Self::FrameTooLong => "frame_too_long",
            Self::UnexpectedFrame => "unexpected_frame",
            Self::Malformed => "malformed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::FrameTimeout => "frame_timeout",
            Self::UnsupportedVersion => "unsupported_version",
            Self::BadClientId => "bad_client_id",
            Self::UnknownCriticalFrame => "unknown_critical_frame",
            Self::BadProxyHeader => "bad_proxy_header",
            Self::BadTls => "bad_tls",
            Self::BadWebsocket => "bad_websocket",
            Self::ServerError => "server_error",
        }
    }

    /// Whether the network took the connection, rather than anybody's decision.
    pub const fn is_loss(self) -> bool {
        self.code() / 100 == 2
    }

    /// What the client may do about it.
    pub const fn come_back(self) -> ComeBack {
        match self {
            Self::ClosedByPeer
            | Self::Reset
            | Self::HeartbeatTimeout
            | Self::TcpTimeout
            | Self::NetworkFault
            | Self::Drain
            | Self::Rebalance
            | Self::SlowConsumer
            | Self::ServerError => ComeBack::Resume,
            Self::Bye
            | Self::Busy
            | Self::Flood
            | Self::AlreadyConnected
            | Self::Contested
            | Self::TooManyConnections
            | Self::HandshakeTimeout
            | Self::FrameTimeout => ComeBack::Reconnect,
            Self::Replaced
            | Self::Kicked
            | Self::BadToken
            | Self::BadPreface
            | Self::FrameTooLong
            | Self::UnexpectedFrame
            | Self::Malformed
            | Self::UnsupportedVersion
            | Self::BadClientId
            | Self::UnknownCriticalFrame
            | Self::BadProxyHeader
            | Self::BadTls
            | Self::BadWebsocket => ComeBack::StayAway,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// An event with its place in the ledger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Its number: the first of a boot is 1, and none is left out.
    pub seq: u64,
    /// When it happened.
    pub at: Moment,
    /// What happened.
    pub event: Event,
}

/// What a boot's journal tells about the boot before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FormerBoot {
    /// Its number.
    pub boot: u64,
    /// The last number of its ledger that was found.
    pub seq: u64,
    /// How it ended.
    pub ended: FormerEnd,
    /// How many sessions were open when it ended, as far as that can be known.
    pub sessions_lost: Option<u64>,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FormerEnd {
    /// In order: every session was closed and the ledger ended.
    Stopped,
    /// In the middle: it crashed or was killed.
    Lost,
}

impl FormerEnd {
    /// The word for it in the feed.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Lost => "lost",
        }
    }
}

/// What happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// The ledger begins: nobody is here yet, and whoever was here in the boot before is gone.
    Started {
        /// What is known about the boot before, if anything is.
        former: Option<FormerBoot>,
    },
    /// A client is here.
    Online {
        /// Who.
        client: ClientId,
        /// Its session; larger at every new session.
        epoch: u64,
        /// By which connection.
        conn: ConnId,
        /// From where.
        remote: SocketAddr,
        /// How often it promised to beat.
        interval: Span,
        /// After how much silence it is judged dead.
        timeout: Span,
        /// How often it came online within the last ten minutes before.
        flaps: u32,
    },
    /// A client whose connection was lost is back within the grace of its class: the same session
    /// goes on, by another connection.
    Resumed {
        /// Who.
        client: ClientId,
        /// Its session, the same as before.
        epoch: u64,
        /// By which connection now.
        conn: ConnId,
        /// From where.
        remote: SocketAddr,
        /// How long it was away; zero when the loss had not been noticed.
        away: Span,
        /// How often it promises to beat from here on.
        interval: Span,
        /// After how much silence it is judged dead.
        timeout: Span,
    },
    /// Too many logins fight for a client id: whoever has it keeps it, and newcomers are sent away
    /// for a while. Told at every doubling of their number.
    Contested {
        /// Who.
        client: ClientId,
        /// The session that goes on.
        epoch: u64,
        /// Where the latest newcomer is.
        remote: SocketAddr,
        /// How many tried lately.
        count: u32,
    },
    /// A client was given another rhythm while it is here.
    Rhythm {
        /// Who.
        client: ClientId,
        /// Its session.
        epoch: u64,
        /// How often it is to beat from its next beat on.
        interval: Span,
        /// After how much silence it is judged dead.
        timeout: Span,
    },
    /// A client is gone.
    Offline {
        /// Who.
        client: ClientId,
        /// The session that ended; never a newer one.
        epoch: u64,
        /// By which connection it was here.
        conn: ConnId,
        /// From where.
        remote: SocketAddr,
        /// Why.
        reason: CloseReason,
        /// When something complete was last heard from it.
        last_beat: Moment,
        /// What else is known about its end.
        evidence: Evidence,
    },
    /// The loop stood still, and every deadline was put off by as much.
    Stalled {
        /// For how long.
        gap: Span,
    },
    /// The ledger ends: nobody is here any more.
    Stopped,
}

/// What is known about the end of a session, for whoever wants to judge the verdict.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Evidence {
    /// Beats that were due and did not come.
    pub beats_missed: u32,
    /// Bytes of a frame that was begun and not completed.
    pub partial_bytes: u32,
    /// How long the loop stood still between the last beat and the end.
    pub stalled: Span,
    /// After how much silence it would have been judged dead.
    pub timeout: Millis,
    /// How it beat before.
    pub pulse: Pulse,
    /// Whether it was asked before it was judged.
    pub probe: Probe,
    /// How long before the end of its connection that was; zero where it was not asked.
    pub probe_ago: Millis,
    /// What TCP knew at the last look.
    pub tcp: Option<TcpFacts>,
    /// For how long the session was held after its connection was lost, in case the client comes
    /// back.
    pub held: Span,
}

/// Whether a client was asked if it is there.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Probe {
    /// It was not.
    #[default]
    NotSent,
    /// It was, and did not answer.
    Unanswered,
}

impl Probe {
    /// The word for it in the feed.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Unanswered => "unanswered",
        }
    }
}

impl Event {
    /// Whom it is about, if it is about one client.
    pub const fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Online { client, .. }
            | Self::Resumed { client, .. }
            | Self::Contested { client, .. }
            | Self::Rhythm { client, .. }
            | Self::Offline { client, .. } => Some(client),
            Self::Started { .. } | Self::Stalled { .. } | Self::Stopped => None,
        }
    }

    /// The word for it in the feed.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Online { .. } => "online",
            Self::Resumed { .. } => "resumed",
            Self::Contested { .. } => "contested",
            Self::Rhythm { .. } => "rhythm",
            Self::Offline { .. } => "offline",
            Self::Stalled { .. } => "stalled",
            Self::Stopped => "stopped",
        }
    }
}

/// A transport event with its number. Transport events are told as far as there is room, beside the
/// ledger and not in it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TransportRecord {
    /// Its number: the first of a boot is 1, and those that were dropped are counted.
    pub tseq: u64,
    /// When it happened.
    pub at: Moment,
    /// How many right before it were dropped for want of room.
    pub dropped: u64,
    /// What happened.
    pub event: TransportEvent,
}

/// What happened to a connection, whatever that means for the session on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TransportEvent {
    /// It was accepted; nobody knows yet whose it is.
    Connected {
        /// Which.
        conn: ConnId,
        /// From where.
        remote: SocketAddr,
    },
    /// It ended. Every connection that was told does so once, unless it is moved.
    Disconnected {
        /// Which.
        conn: ConnId,
        /// From where.
        remote: SocketAddr,
        /// Whose session was on it, if one was.
        client: Option<ClientId>,
        /// Why.
        reason: CloseReason,
    },
    /// It goes on as a connection of the shard that owns its client: the next one that is told to
    /// be connected from there. This one ended by that.
    Moved {
        /// Which.
        conn: ConnId,
        /// From where.
        remote: SocketAddr,
    },
    /// Its client was silent for so long that it was asked whether it is there, or, where it is not
    /// asked, that its deadline passed.
    Suspect {
        /// Which.
        conn: ConnId,
        /// Whose.
        client: ClientId,
        /// For how long nothing came.
        silence: Span,
    },
    /// Its client was suspect, and is alive.
    Rescued {
        /// Which.
        conn: ConnId,
        /// Whose.
        client: ClientId,
        /// How that was seen.
        by: Rescue,
    },
}

/// How it was seen that a suspect is alive.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rescue {
    /// It said something.
    Heard,
    /// The last look found bytes of it that waited to be read.
    LastLook,
}

impl Rescue {
    /// The word for it in the feed.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Heard => "heard",
            Self::LastLook => "last_look",
        }
    }
}

impl TransportEvent {
    /// The word for it in the feed.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Disconnected { .. } => "disconnected",
            Self::Moved { .. } => "moved",
            Self::Suspect { .. } => "suspect",
            Self::Rescued { .. } => "rescued",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_word_and_a_number_of_its_own() {
        let words: HashSet<_> = CloseReason::ALL.iter().map(|reason| reason.word()).collect();
        let codes: HashSet<_> = CloseReason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(words.len(), CloseReason::ALL.len());
        assert_eq!(codes.len(), CloseReason::ALL.len());
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(CloseReason::from_code(reason.code()), Some(reason));
            assert_eq!(reason.index(), index);
        }
        assert_eq!(CloseReason::from_code(999), None);
    }

    #[test]
    fn codes_say_their_family() {
        for reason in CloseReason::ALL {
            assert!((100..600).contains(&reason.code()), "{reason}");
        }
        assert!(CloseReason::ALL.is_sorted_by_key(|reason| reason.code()));
    }
}
