//! Whether a client is who it says it is.

use crate::base::identity::Proof;
use crate::base::time::Moment;
use crate::gateway::Gateway;
use crate::wire::token::Sealed;

impl Gateway {
    /// Whether this token proves that the client is the one of this id. A session that is resumed
    /// needs it like one that begins.
    pub(crate) fn proves(&self, client: &str, token: &[u8], now: Moment) -> bool {
        match &self.config.proof {
            Proof::None => true,
            Proof::Words(words) => words.is_of(client, token),
            Proof::Keys(keys) => {
                let unix_ms = self.config.wall.unix_millis(self.time.expected(now));
                let Some(sealed) = Sealed::read(token) else { return false };
                // Each key is tried, so that time does not tell which one it was.
                let count = keys.all().filter(|key| sealed.is_by(key, client)).count();
                count > 0 && !sealed.is_over(unix_ms)
            }
        }
    }
}
