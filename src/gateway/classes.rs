//! How many sessions of each class there are.

use crate::base::config::{ClassId, GatewayConfig};

/// Sessions of one class, now.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ClassCounts {
    /// Those with a connection.
    pub live: usize,
    /// Those without one, whose client may come back.
    pub held: usize,
}

/// Counts by class, in the order of the class ids.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Classes(Vec<ClassCounts>);

impl Classes {
    /// Nobody, of any of the classes there are. Whoever names none has a class as well.
    pub(crate) fn new(config: &GatewayConfig) -> Self {
        Self(vec![ClassCounts::default(); 1 + config.class_names().count()])
    }

    pub(crate) fn counts(&self) -> Vec<ClassCounts> {
        self.0.clone()
    }

    pub(crate) fn on_live(&mut self, class: ClassId) {
        self.0[class.index()].live += 1;
    }

    /// A session has no connection any more: it is held, or over.
    pub(crate) fn on_lost(&mut self, class: ClassId) {
        self.0[class.index()].live -= 1;
    }

    pub(crate) fn on_held(&mut self, class: ClassId) {
        self.0[class.index()].held += 1;
    }

    /// A session is held no longer.
    pub(crate) fn on_released(&mut self, class: ClassId) {
        self.0[class.index()].held -= 1;
    }
}
