//! From the driver inward: through the layers, to the gateway.

use crate::base::io::Completion;
use crate::base::time::Moment;
use crate::gateway::Gateway;
use crate::layers::Layers;
use crate::os::clock::Clock;
use crate::os::driver::Sink;
use crate::os::prefetch::prefetch;

/// Where completions go.
pub(super) struct Inward<'a> {
    pub(super) gateway: &'a mut Gateway,
    pub(super) layers: &'a mut Layers,
    /// The time that completions get.
    pub(super) now: Moment,
    /// What it is read from anew for each of them, where they can be later than the reading.
    pub(super) clock: Option<Clock>,
}

impl Sink for Inward<'_> {
    /// Between two beats of a client so much happens that nothing of it is near any more.
    #[inline]
    fn expect(&mut self, slot: u32) {
        self.gateway.memory(slot).into_iter().flatten().for_each(prefetch);
    }

    #[inline]
    fn take(&mut self, completion: Completion<'_>) {
        let Self { gateway, layers, now, clock } = self;
        if let Some(clock) = clock {
            *now = clock.now();
        }
        layers.on_completion(completion, |completion| gateway.on_completion(completion, *now));
    }
}
