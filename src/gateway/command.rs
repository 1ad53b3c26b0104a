//! All that an outsider may ask, and all that it can be told.

use std::net::SocketAddr;

use crate::base::config::{ClassId, Rhythm};
use crate::base::event::CloseReason;
use crate::base::ids::{ClientId, ConnId, GroupName};
use crate::base::io::TcpFacts;
use crate::base::pulse::Pulse;
use crate::base::reconfiguration::Reconfiguration;
use crate::base::time::{Moment, Span};
use crate::gateway::lateness::Lateness;
use crate::gateway::post::{Broadcast, BroadcastReply, MailStats, Outcome, Push, Pushed, Taken};
use crate::gateway::tally::Tally;
use crate::gateway::up::UpStats;

/// What an outsider may ask.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Command {
    /// Accept nobody any more, ask everybody to leave, and close whoever is still there in the end.
    /// Said again, the shorter time and the faster pace hold.
    Drain(Drain),
    /// Other limits and policies hold from now on. Sessions keep what they began with.
    Reconfigure(Box<Reconfiguration>),
    /// Ask a part of the clients to go elsewhere, and go on.
    Rebalance(Rebalance),
    /// End one client's session.
    Kick(Kick),
    /// Give a client another rhythm, from its next beat on.
    SetRhythm {
        /// Whom.
        client: ClientId,
        /// Which; its interval must be one that the client could wish for.
        rhythm: Rhythm,
    },
    /// Put a client into a group, for as long as its session lasts.
    Join {
        /// Whom.
        client: ClientId,
        /// Into which.
        group: GroupName,
    },
    /// Take a client out of a group.
    Leave {
        /// Whom.
        client: ClientId,
        /// Out of which.
        group: GroupName,
    },
    /// A page of the groups that have somebody in them, by name.
    Groups {
        /// Only names behind this one.
        after: Option<GroupName>,
        /// How many, at most [`GROUPS_PAGE_MAX`](crate::base::limits::GROUPS_PAGE_MAX).
        limit: usize,
    },
    /// Send a message to one client, or to several.
    Push(Box<Push>),
    /// What became of messages that were taken.
    Outcomes {
        /// Which, at most [`PUSH_CLIENTS_MAX`](crate::base::limits::PUSH_CLIENTS_MAX). Among shards
        /// all of the clients belong to the same one.
        of: Vec<Taken>,
    },
    /// Send a message to everybody, or to a group, a little in each turn.
    Broadcast(Box<Broadcast>),
    /// How a broadcast goes.
    BroadcastStatus {
        /// Which one.
        id: u64,
    },
    /// How things are.
    Stats,
    /// What is known of one client.
    Session {
        /// Of whom.
        client: ClientId,
    },
    /// What is known of one client; and TCP is asked for the way to it, if it is live and nothing
    /// is under way: what it says is part of what is known a turn or two later.
    Measure {
        /// Of whom.
        client: ClientId,
    },
    /// A page of what is known of those who are online.
    Sessions {
        /// The first slot to look at: 0, and then what the page before said.
        from_slot: u32,
        /// How many slots are looked at, at most
        /// [`CLIENTS_PAGE_MAX`](crate::base::limits::CLIENTS_PAGE_MAX).
        limit: u32,
        /// Whom to leave out.
        filter: Filter,
    },
    /// A page of who is online.
    Clients {
        /// The first slot to look at: 0, and then what the page before said.
        from_slot: u32,
        /// How many slots are looked at, at most
        /// [`CLIENTS_PAGE_MAX`](crate::base::limits::CLIENTS_PAGE_MAX).
        limit: u32,
    },
}

/// How the gateway is emptied.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drain {
    /// From the order to closing whoever is still there; `None`: the notice, what the pace takes,
    /// and the configured drain timeout.
    pub within: Option<Span>,
    /// From the order to the first GOAWAY, at most half of `within`. Until then newcomers are let
    /// in, and those who send them can notice that they should not.
    pub notice: Span,
    /// How fast clients are told.
    pub pace: Pace,
}

impl Drain {
    /// Tells everybody at once, without notice.
    pub const fn at_once(within: Span) -> Self {
        Self { within: Some(within), notice: Span::ZERO, pace: Pace::AtOnce }
    }
}

/// How fast clients are asked to leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pace {
    /// All of them, as fast as turns go.
    AtOnce,
    /// Evenly over the time that there is, less some in which the last ones can leave.
    Spread,
    /// So many in a second, by all shards together. Not 0.
    PerSecond(u32),
}

/// How a part of the clients is asked to go elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rebalance {
    /// How many of those online, of a million each. Everybody has the same chance. 0 ends a
    /// rebalance that is under way.
    pub parts_per_million: u32,
    /// From the order to its end, whoever was told by then; `None`: as long as the pace takes,
    /// which spreads over the configured drain timeout.
    pub within: Option<Span>,
    /// How fast clients are told.
    pub pace: Pace,
    /// Within which they are asked to come back, instead of the configured window.
    pub window: Option<(Span, Span)>,
}

/// The end of one client's session by an outsider's will.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kick {
    /// Whose.
    pub client: ClientId,
    /// Only this session, if it is still here; `None`: whichever is here.
    pub epoch: Option<u64>,
    /// The number that the client hears: that of [`CloseReason::Kicked`], or one of the
    /// application's own. The ledger says `kicked` in any case.
    pub code: u16,
    /// What the client hears, for people; empty: the reason's word.
    pub text: Box<str>,
}

impl Kick {
    /// Ends whatever session `client` has, without a text.
    pub fn of(client: ClientId) -> Self {
        Self { client, epoch: None, code: CloseReason::Kicked.code(), text: Box::default() }
    }
}

/// Whom a page of sessions is about.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Filter {
    /// Client ids that begin with this.
    pub prefix: Box<str>,
    /// Clients of this class; `None`: of any.
    pub class: Option<ClassId>,
    /// Clients in this group; `None`: in any, and in none.
    pub group: Option<GroupName>,
}

impl Command {
    /// How much of a turn it takes: as many as
    /// [`TURN_COMMANDS_MAX`](crate::base::limits::TURN_COMMANDS_MAX) have one.
    pub fn weight(&self) -> usize {
        match self {
            Self::Push(push) => push.clients.len().max(1),
            Self::Outcomes { of } => of.len().max(1),
            Self::Drain(_)
            | Self::Reconfigure(_)
            | Self::Rebalance(_)
            | Self::Kick(_)
            | Self::SetRhythm { .. }
            | Self::Join { .. }
            | Self::Leave { .. }
            | Self::Groups { .. }
            | Self::Broadcast(_)
            | Self::BroadcastStatus { .. }
            | Self::Stats
            | Self::Session { .. }
            | Self::Measure { .. }
            | Self::Sessions { .. }
            | Self::Clients { .. } => 1,
        }
    }
}

/// What an outsider is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reply {
    /// It was done, or has begun.
    Done,
    /// Nobody of that name is online.
    NoSuchClient,
    /// The client is online, but with another session than the one that was meant.
    OtherSession,
    /// A drain is under way, and asks everybody to leave anyway.
    Draining,
    /// The client's session is held: it has no connection by which it could be told anything.
    NotConnected,
    /// The interval is not one that this client may be given.
    OutOfBounds {
        /// The shortest one it may.
        shortest: Span,
        /// The longest one it may.
        longest: Span,
    },
    /// What is known of a client.
    Session(Box<SessionView>),
    /// A page of what is known of those who are online.
    Sessions {
        /// Those in the slots that were looked at whom the filter let through, by slot.
        sessions: Vec<SessionView>,
        /// Where the next page begins; `None` when this was the last one.
        next_slot: Option<u32>,
    },
    /// There are as many groups, or the client is in as many, as there may be.
    GroupsFull,
    /// A page of groups, by name, and how many clients are in each.
    Groups(Vec<(GroupName, usize)>),
    /// What became of a message so far, for each client of a push in their order.
    Pushed(Vec<Pushed>),
    /// The message is longer than what a client was told to expect.
    TooLong {
        /// Bytes of the largest payload: topic, content, and 5 beside them.
        payload_bytes_max: u16,
    },
    /// What became of each message that was asked about.
    Outcomes(Vec<Outcome>),
    /// How a broadcast goes.
    Broadcast(BroadcastReply),
    /// How things are.
    Stats(Box<Stats>),
    /// A page of who is online.
    Clients {
        /// The ledger's last number when the page was made: the page is true at it.
        seq: u64,
        /// Who is online in the slots that were looked at, by slot.
        clients: Vec<Presence>,
        /// Where the next page begins; `None` when this was the last one.
        next_slot: Option<u32>,
    },
}

/// A client that is online.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Presence {
    /// Who.
    pub client: ClientId,
    /// Its session.
    pub epoch: u64,
    /// By which connection.
    pub conn: ConnId,
    /// From where.
    pub remote: SocketAddr,
    /// How often it promised to beat.
    pub interval: Span,
    /// After how much silence it is judged dead.
    pub timeout: Span,
}

/// What is known of a client that is online.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionView {
    /// Who, and by which connection.
    pub presence: Presence,
    /// The class it named.
    pub class: ClassId,
    /// How it is.
    pub mood: Mood,
    /// When the session began, to the second.
    pub since: Moment,
    /// When something complete was last heard from it.
    pub last_beat: Moment,
    /// How it beat so far.
    pub pulse: Pulse,
    /// After how much silence it is sent a PING, if at all.
    pub ping_after: Option<Span>,
    /// How long its latest answer to a PING of ours took, if there was one.
    pub answered_in: Option<Span>,
    /// What TCP said of the connection when it was asked just now.
    pub tcp: Option<TcpFacts>,
    /// For how long the session is held when its connection is lost.
    pub grace: Span,
    /// Bytes that wait to be sent to it, or are on their way.
    pub outbox_bytes: usize,
    /// Bytes of a frame that it has begun and not completed.
    pub partial_bytes: usize,
    /// DATA frames that came of it in this session.
    pub data_in: u64,
    /// Messages for it that were handed to the kernel in this session, each once.
    pub data_out: u64,
    /// The groups it is in.
    pub groups: Vec<GroupName>,
}

/// How a session is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mood {
    /// Heard from in time.
    Live,
    /// Silent for so long that it was asked, or is looked at before a verdict.
    Suspect,
    /// Its connection is lost, and the session waits for the client to come back.
    Held,
}

impl Mood {
    /// The word for it in the API.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Suspect => "suspect",
            Self::Held => "held",
        }
    }
}

/// How things are: counts since the start, unless said otherwise.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// Connections held right now, in any state.
    pub connections: usize,
    /// Clients online right now.
    pub online: usize,
    /// Whether newcomers are let in: not while a drain is under way, nor while the machine is short
    /// of something.
    pub accepting: bool,
    /// Whether a drain is under way, its notice included, or over.
    pub draining: bool,
    /// What becomes of those who are asked to leave.
    pub leaving: Leaving,
    /// Events that the side thread has not taken yet.
    pub events_waiting: usize,
    /// Number of the latest event.
    pub seq_last: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Those of them that went on to the shard that owns their client.
    pub moved: u64,
    /// Connections that came from other shards.
    pub arrived: u64,
    /// Accepts and arrivals that failed for want of descriptors or memory.
    pub accept_faults: u64,
    /// Complete frames received: each one a beat.
    pub frames_received: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// Answers and pings sent, counted when written to the outbox.
    pub frames_sent: u64,
    /// DATA frames received.
    pub data_received: u64,
    /// What became of them.
    pub up: UpStats,
    /// What became of messages for clients.
    pub mail: MailStats,
    /// Receives that the kernel ended and we asked for again.
    pub receives_rearmed: u64,
    /// Clients whose deadline passed and whom the last look found alive.
    pub rescued: u64,
    /// Clients that were silent for so long that they were sent a PING.
    pub pings_sent: u64,
    /// Those that then said something.
    pub pings_answered: u64,
    /// Verdicts of death by silence, by how late after the deadline they came. Time in which the
    /// loop stood still is not counted.
    pub lateness: Lateness,
    /// Sessions held right now, for clients whose connection was lost.
    pub held: usize,
    /// Sessions that went on by another connection.
    pub resumed: u64,
    /// Clients that came back after they were judged dead.
    pub returned: u64,
    /// Those of them that show that they were alive: they sent a beat that we never heard, and saw
    /// us close. Their share of all verdicts estimates how often a verdict is wrong.
    pub false_offline: u64,
    /// How often the loop stood still.
    pub stalls: u64,
    /// For how long, all together.
    pub stalled: Span,
    /// Completions for connections that do not exist any more. A driver that keeps its contract
    /// causes none.
    pub stale: u64,
    /// Connections ended, by reason, in the order of [`CloseReason::ALL`].
    pub endings: [Endings; CloseReason::ALL.len()],
    /// What else is counted.
    pub tally: Tally,
}

/// What becomes of those who are asked to leave by a drain or a rebalance.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Leaving {
    /// Whether a rebalance is under way.
    pub rebalancing: bool,
    /// Connections that were asked to leave.
    pub told: u64,
    /// Those of them that then left by themselves.
    pub left: u64,
    /// Those of them that did not in time, and were closed.
    pub closed: u64,
}

impl Leaving {
    fn add(&mut self, other: &Self) {
        let Self { rebalancing, told, left, closed } = other;
        self.rebalancing |= rebalancing;
        self.told += told;
        self.left += left;
        self.closed += closed;
    }
}

/// How many connections ended for one reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Endings {
    /// How many.
    pub count: u64,
    /// The latest one's address.
    pub peer_last: Option<SocketAddr>,
}

impl Endings {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.peer_last = other.peer_last.or(self.peer_last);
    }
}

impl Stats {
    /// Connections ended for `reason`.
    pub fn ended(&self, reason: CloseReason) -> u64 {
        self.endings[reason.index()].count
    }

    /// Adds what another shard says of itself.
    // Every field is named, so that a new one does not compile until it is added.
    pub fn add(&mut self, other: &Self) {
        let Self {
            connections,
            online,
            accepting,
            draining,
            leaving,
            events_waiting,
            seq_last,
            accepted,
            moved,
            arrived,
            accept_faults,
            frames_received,
            bytes_received,
            frames_sent,
            data_received,
            up,
            mail,
            receives_rearmed,
            rescued,
            pings_sent,
            pings_answered,
            lateness,
            held,
            resumed,
            returned,
            false_offline,
            stalls,
            stalled,
            stale,
            endings,
            tally,
        } = other;
        self.connections += connections;
        self.online += online;
        self.events_waiting += events_waiting;
        self.held += held;
        for (sum, count) in [
            (&mut self.seq_last, seq_last),
            (&mut self.accepted, accepted),
            (&mut self.moved, moved),
            (&mut self.arrived, arrived),
            (&mut self.accept_faults, accept_faults),
            (&mut self.frames_received, frames_received),
            (&mut self.bytes_received, bytes_received),
            (&mut self.frames_sent, frames_sent),
            (&mut self.data_received, data_received),
            (&mut self.receives_rearmed, receives_rearmed),
            (&mut self.rescued, rescued),
            (&mut self.pings_sent, pings_sent),
            (&mut self.pings_answered, pings_answered),
            (&mut self.resumed, resumed),
            (&mut self.returned, returned),
            (&mut self.false_offline, false_offline),
            (&mut self.stalls, stalls),
            (&mut self.stale, stale),
        ] {
            *sum += count;
        }
        self.up.add(up);
        self.mail.add(mail);
        self.accepting |= accepting;
        self.draining |= draining;
        self.leaving.add(leaving);
        self.stalled = self.stalled + *stalled;
        self.lateness.add(lateness);
        self.endings.iter_mut().zip(endings).for_each(|(sum, more)| sum.add(more));
        self.tally.add(tally);
    }

    pub(crate) fn count_ending(&mut self, reason: CloseReason, peer: SocketAddr) {
        let endings = &mut self.endings[reason.index()];
        endings.count += 1;
        endings.peer_last = Some(peer);
    }
}
