//! A running gateway is told anew what it may.

use crate::base::reconfiguration::Reconfiguration;
use crate::gateway::Gateway;

impl Gateway {
    /// From now on `new` holds. Nobody who is here is sent away for it, and sessions keep what they
    /// began with.
    pub(crate) fn reconfigure(&mut self, new: &Reconfiguration) {
        self.config.take_over(new);
        self.meters.reconfigure(&self.config.client_limits);
        self.classes.grow(&self.config);
        self.queue_bytes_ever = self.queue_bytes_ever.max(new.queue.bytes_max);
        self.outbox_bytes_ever = self.outbox_bytes_ever.max(new.outbox_bytes_max);
        self.config.connections_max = new.connections_max.min(self.planned.connections_max);
        if self.is_sharded() {
            let total = new.connections_max.min(self.planned.shard.connections_total);
            self.config.shard.connections_total = total;
        }
    }
}
