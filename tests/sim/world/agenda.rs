//! What a world has before it.

use heartwheel::base::ids::ConnId;

use crate::faults::Fault;

/// What happens by itself at some moment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Happening {
    /// A device connects.
    Connect { device: usize },
    /// Its layers say what comes before its first frame.
    Begin { link: usize },
    /// They say what they have to say by themselves.
    Wire { link: usize },
    /// The client at this link does the next thing of its script.
    Act { link: usize },
    /// It answers a ping.
    Answer { link: usize },
    /// It does as it was told and leaves.
    Leave { link: usize },
    /// It reads no more.
    StopReading { link: usize },
    /// TCP gives the link up.
    GiveUp { link: usize },
    /// It acknowledges what it heard.
    Ack { link: usize, seq: u32 },
    /// Whoever looks at tokens has found out.
    Judged { conn: ConnId, verdict: u64 },
    /// An operator ends somebody's session.
    Kick,
    /// A backend pushes.
    Push,
    /// Something befalls many at once.
    Disaster { fault: Fault },
}
