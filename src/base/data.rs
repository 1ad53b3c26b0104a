//! What clients send up: DATA on its way to whoever takes it, and the credit that comes back.

use crate::base::ids::ClientId;
use crate::base::limits;
use crate::base::time::Moment;

/// A DATA frame of a client, on its way up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DataRecord {
    /// By what its credit comes back.
    pub ticket: DataTicket,
    /// Who sent it.
    pub client: ClientId,
    /// The client's number for it.
    pub seq: u32,
    /// What it is about. May be empty.
    pub topic: Box<str>,
    /// Its content.
    pub body: Box<[u8]>,
    /// When it was received, by the clock.
    pub at: Moment,
}

impl DataRecord {
    /// What it counts for against the budget, in bytes: what it holds, and what it costs to keep.
    pub fn charge_bytes(&self) -> usize {
        charge_bytes(&self.topic, &self.body)
    }
}

/// What a DATA frame counts for against the budget, in bytes.
pub(crate) const fn charge_bytes(topic: &str, body: &[u8]) -> usize {
    limits::DATA_CHARGE_BYTES + topic.len() + body.len()
}

/// Which DATA frame of which session.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DataTicket {
    /// The session.
    pub epoch: u64,
    /// Its number among those of the session that are on their way.
    pub number: u64,
}

/// The credit of one DATA frame comes back: it is kept on nobody's account any longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Credit {
    /// Whose.
    pub ticket: DataTicket,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a DATA frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Everybody who wanted it took it.
    Taken,
    /// Nobody wanted it.
    Unclaimed,
}
