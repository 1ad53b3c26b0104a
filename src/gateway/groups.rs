//! Groups of clients: who is in which, for as long as a session lasts.
//!
//! A group is a name that sessions have. There is one as long as somebody is in it, and nobody
//! makes or removes one. What is pushed to a group looks at every session; here is only counted how
//! many are in each.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::base::ids::{ClientId, GroupName};
use crate::base::limits;
use crate::gateway::answers::session_of_mut;
use crate::gateway::connection::Session;
use crate::gateway::{Gateway, Reply};

/// How many clients are in each group.
#[derive(Default)]
pub(crate) struct Groups {
    sizes: BTreeMap<GroupName, usize>,
}

impl Groups {
    fn has_room_for(&self, group: &GroupName) -> bool {
        self.sizes.len() < limits::GROUPS_MAX || self.sizes.contains_key(group)
    }

    fn on_joined(&mut self, group: GroupName) {
        *self.sizes.entry(group).or_default() += 1;
    }

    pub(crate) fn on_left(&mut self, group: &GroupName) {
        let Some(size) = self.sizes.get_mut(group) else { return };
        *size -= 1;
        if *size == 0 {
            self.sizes.remove(group);
        }
    }

    /// A page of groups. O(how many are on it).
    pub(crate) fn page(&self, after: Option<&GroupName>, limit: usize) -> Reply {
        let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
        let groups = self.sizes.range((begin, Bound::Unbounded));
        let groups = groups.take(limit.min(limits::GROUPS_PAGE_MAX));
        Reply::Groups(groups.map(|(name, size)| (name.clone(), *size)).collect())
    }
}

impl Session {
    /// Whether this client is in a group. O(groups it is in).
    pub(crate) fn is_in(&self, group: &GroupName) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.groups.contains(group))
    }
}

impl Gateway {
    /// Puts a client into a group. Twice is as good as once.
    pub(crate) fn join(&mut self, client: &ClientId, group: GroupName) -> Reply {
        let has_room = self.groups.has_room_for(&group);
        let Some(session) = self.session_mut(client) else { return Reply::NoSuchClient };
        if session.is_in(&group) {
            return Reply::Done;
        }
        let extra = session.extra();
        if !has_room || extra.groups.len() >= limits::GROUPS_OF_CLIENT_MAX {
            return Reply::GroupsFull;
        }
        extra.groups.push(group.clone());
        self.groups.on_joined(group);
        Reply::Done
    }

    /// Takes a client out of a group. Whoever is not in it is out of it.
    pub(crate) fn leave_group(&mut self, client: &ClientId, group: &GroupName) -> Reply {
        let Some(session) = self.session_mut(client) else { return Reply::NoSuchClient };
        if !session.is_in(group) {
            return Reply::Done;
        }
        session.extra().groups.retain(|other| other != group);
        self.groups.on_left(group);
        Reply::Done
    }

    fn session_mut(&mut self, client: &ClientId) -> Option<&mut Session> {
        let conn = self.tracker.find(client.as_str())?;
        session_of_mut(self.tracker.get_mut(conn)?)
    }

    /// Panics when the counts are not those of the sessions. O(n): tests and simulation only.
    pub(crate) fn check_groups(&self) {
        let mut groups = Groups::default();
        for slot in 0..self.tracker.slots_end() {
            let Some((_, connection)) = self.tracker.slot(slot) else { continue };
            let extra = super::session_of(connection).and_then(|session| session.extra.as_ref());
            for group in extra.iter().flat_map(|extra| &extra.groups) {
                groups.on_joined(group.clone());
            }
        }
        assert_eq!(groups.sizes, self.groups.sizes, "groups are as large as they are");
        assert!(self.groups.sizes.len() <= limits::GROUPS_MAX);
    }
}
