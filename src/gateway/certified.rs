//! Names that certificates have proven, until their owners say who they are.

use std::collections::BTreeMap;

use crate::base::ids::ConnId;

/// The names of newcomers with certificates. Nobody else costs anything.
#[derive(Default)]
pub(crate) struct Certified(BTreeMap<ConnId, Box<str>>);

impl Certified {
    /// This connection's certificate has this name; empty: none.
    pub(crate) fn note(&mut self, conn: ConnId, name: Box<str>) {
        self.0.insert(conn, name);
    }

    /// The name in this connection's certificate, which is not needed any more.
    pub(crate) fn take(&mut self, conn: ConnId) -> Option<Box<str>> {
        self.0.remove(&conn)
    }

    /// Of how many connections a name is kept.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
