//! What only some sessions need, in a box that the others do without.

use crate::base::ids::GroupName;
use crate::gateway::Gateway;
use crate::gateway::connection::Session;

/// What only some sessions need. It is the session's: it goes with it to another connection, and
/// ends with it.
#[derive(Default)]
pub(crate) struct Extra {
    /// The groups it is in, at most
    /// [`GROUPS_OF_CLIENT_MAX`](crate::base::limits::GROUPS_OF_CLIENT_MAX), in the order in which
    /// it was put there.
    pub(crate) groups: Vec<GroupName>,
}

impl Session {
    /// What only some sessions need: from now on this one does.
    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }
}

impl Gateway {
    /// A session has ended for good, and this is what it had.
    pub(crate) fn drop_extra(&mut self, extra: Option<Box<Extra>>) {
        let Some(extra) = extra else { return };
        extra.groups.iter().for_each(|group| self.groups.on_left(group));
    }
}
