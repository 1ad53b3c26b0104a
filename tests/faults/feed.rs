//! The events of one boot, checked as they come: no gap, ONLINE and OFFLINE in turn, every session
//! ended once and by its own epoch.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::PATIENCE;
use crate::gate::Gate;

/// What was told so far.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    seq: u64,
    boot: u64,
    /// Who is online, and in which epoch.
    online: HashMap<String, u64>,
    /// The last epoch of everybody who ever was.
    epochs: HashMap<String, u64>,
    /// Every OFFLINE, in order.
    pub(crate) endings: Vec<Ending>,
    is_stopped: bool,
}

/// One OFFLINE.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) client: String,
    pub(crate) reason: String,
    pub(crate) silence: Duration,
}

impl Feed {
    pub(crate) fn online(&self) -> usize {
        self.online.len()
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The last epoch of this client.
    pub(crate) fn epoch(&self, client: &str) -> u64 {
        self.epochs[client]
    }

    /// Everybody who was ever online.
    pub(crate) fn clients(&self) -> impl Iterator<Item = &str> {
        self.epochs.keys().map(String::as_str)
    }

    /// Endings of clients whose id begins so.
    pub(crate) fn endings_of<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Ending> {
        self.endings.iter().filter(move |ending| ending.client.starts_with(prefix))
    }

    /// How many are online whose id begins so.
    pub(crate) fn online_of(&self, prefix: &str) -> usize {
        self.online.keys().filter(|client| client.starts_with(prefix)).count()
    }

    /// Takes events until it is `done`.
    pub(crate) fn until(&mut self, gate: &Gate, what: &str, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(event) = gate.try_event(left) else {
                let reasons = self.reasons();
                let online = self.online();
                panic!("not in {PATIENCE:?}: {what}; {online} online, ended: {reasons:?}");
            };
            self.take(&event);
        }
    }

    /// Takes events for so long.
    pub(crate) fn during(&mut self, gate: &Gate, span: Duration) {
        let deadline = Instant::now() + span;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match gate.try_event(left) {
                Some(event) => self.take(&event),
                None if left.is_zero() => return,
                None => {}
            }
        }
    }

    /// Asks the server to stop, and takes events to the last. Nobody may be left online.
    pub(crate) fn until_stopped(&mut self, gate: &mut Gate) {
        gate.signal("TERM");
        self.until(gate, "the end of the ledger", Self::is_stopped);
        assert!(gate.wait().success());
        assert!(gate.try_event(Duration::ZERO).is_none(), "nothing follows STOPPED");
        assert!(self.online.is_empty(), "every session is ended: {:?}", self.online);
    }

    /// How many ended for which reason.
    pub(crate) fn reasons(&self) -> HashMap<&str, usize> {
        let mut reasons = HashMap::new();
        for ending in &self.endings {
            *reasons.entry(ending.reason.as_str()).or_default() += 1;
        }
        reasons
    }

    fn take(&mut self, event: &Value) {
        let number = |key: &str| event[key].as_u64().unwrap_or_else(|| panic!("{key} in {event}"));
        let text = |key: &str| event[key].as_str().unwrap_or_else(|| panic!("{key} in {event}"));
        self.seq += 1;
        assert_eq!(number("seq"), self.seq, "no gap: {event}");
        if self.seq == 1 {
            assert_eq!(text("event"), "started");
            self.boot = number("boot");
        }
        assert_eq!(number("boot"), self.boot, "one boot: {event}");
        assert!(!self.is_stopped, "nothing follows STOPPED: {event}");
        match text("event") {
            "started" => assert_eq!(self.seq, 1, "once"),
            "stopped" => self.is_stopped = true,
            "online" => self.on_online(text("client"), number("epoch")),
            "offline" => {
                self.on_offline(text("client"), number("epoch"));
                self.endings.push(Ending {
                    client: text("client").to_owned(),
                    reason: text("reason").to_owned(),
                    silence: Duration::from_millis(number("silence_ms")),
                });
            }
            // The server says so when it stood still, and when logins fight for a client id.
            "stalled" | "contested" => {}
            other => panic!("an event of a kind that is not known here: {other}"),
        }
    }

    fn on_online(&mut self, client: &str, epoch: u64) {
        let before = self.online.insert(client.to_owned(), epoch);
        assert_eq!(before, None, "{client} is online twice");
        let last = self.epochs.insert(client.to_owned(), epoch);
        assert!(last.is_none_or(|last| last < epoch), "{client}: epoch {epoch} after {last:?}");
    }

    fn on_offline(&mut self, client: &str, epoch: u64) {
        let ended = self.online.remove(client);
        assert_eq!(ended, Some(epoch), "{client} is ended once, and by its own epoch");
    }
}

/// The longest silence among these endings.
pub(crate) fn longest_silence<'a>(endings: impl Iterator<Item = &'a Ending>) -> Duration {
    endings.map(|ending| ending.silence).max().unwrap_or_default()
}
