//! What only some sessions need, in a box that the others do without.

use crate::base::ids::GroupName;
use crate::gateway::connection::Session;
use crate::gateway::mail::Mail;

/// What only some sessions need. It is the session's: it goes with it to another connection, and
/// ends with it.
#[derive(Default)]
pub(crate) struct Extra {
    /// The groups it is in, at most
    /// [`GROUPS_OF_CLIENT_MAX`](crate::base::limits::GROUPS_OF_CLIENT_MAX), in the order in which
    /// it was put there.
    pub(crate) groups: Vec<GroupName>,
    /// The messages for it.
    pub(crate) mail: Mail,
}

impl Session {
    /// What only some sessions need: from now on this one does.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}
