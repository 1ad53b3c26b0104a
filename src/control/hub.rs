//! Where DATA of all clients comes together, and is handed to everybody who wants it.
//!
//! Whoever wants DATA [subscribes](Hub::subscribe), to one topic or to all, and gets a [`Sink`]:
//! it [takes](Sink::take) messages in order, and says when it is [done](Sink::done) with them. When
//! all sinks that a message is for are done with it, its credit goes back to the loop that received
//! it: the client hears its ACK, and is read on if it had to wait. So whoever is slow holds credit
//! back, and loses nothing. A message that nobody wants is unclaimed: its credit goes back at once,
//! and nobody is told that it was taken.
//!
//! Memory is bounded by others: what is not taken by the credit that the loops give, and what is
//! taken by [`DATA_RECENT_BYTES_MAX`](limits::DATA_RECENT_BYTES_MAX). Locks are held for copying.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slab::Slab;
use tokio::sync::watch;

use crate::base::data::{Credit, DataRecord, Fate};
use crate::base::limits;
use crate::base::time::WallAnchor;
use crate::control::door::Forgotten;
use crate::server::line::Line;

/// Lets whoever wants DATA have it, from any task or thread. Clones are the same hub.
#[derive(Clone)]
pub struct Hub {
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
}

/// The side thread's part: brings in what the loops hand up. Dropping it says that they have ended.
pub struct Feeder {
    shared: Arc<Shared>,
    newest: watch::Sender<u64>,
}

/// A message of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Its number in this boot, without gaps from 1 on; larger for what came later from the same
    /// client.
    pub useq: u64,
    /// What the client sent.
    pub record: DataRecord,
    /// When, by the wall clock.
    pub at_unix_ms: u64,
}

/// One who takes messages. Dropping it leaves what it has not taken to the others.
pub struct Sink {
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
    key: usize,
}

/// The loops have ended: what was taken of their messages is all that there will be.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the loop has ended")]
pub struct Ended;

/// How things are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HubStats {
    /// Messages that are not taken yet.
    pub waiting: usize,
    /// Messages that are kept for those who come back, and their charge in bytes.
    pub recent: usize,
    /// The same, in bytes.
    pub recent_bytes: usize,
    /// Who takes messages.
    pub sinks: usize,
    /// Number of the latest message.
    pub useq_last: u64,
}

struct Shared {
    inner: Mutex<Inner>,
}

struct Inner {
    lines: Vec<Back>,
    sinks: Slab<Subscription>,
    messages: BTreeMap<u64, Kept>,
    /// Those that are taken, in the order in which they were.
    recent: VecDeque<u64>,
    recent_bytes: usize,
    useq_next: u64,
    /// The largest number that was forgotten.
    forgotten: u64,
}

/// A line, and credit for which it had no room yet.
struct Back {
    line: Line,
    waiting: VecDeque<Credit>,
    is_unrung: bool,
}

struct Subscription {
    /// None: all.
    topics: Vec<Box<str>>,
    /// Messages from here on count on it.
    since: u64,
    /// The next one to look at.
    next: u64,
    /// With those below it is done.
    done_below: u64,
    /// So many that it asked for were forgotten before it took them, since it was last told.
    missed: u64,
}

struct Kept {
    message: Arc<Message>,
    shard: usize,
    /// So many sinks are not done with it.
    pending: usize,
    fate: Fate,
}

/// Opens a hub to loops, in the order of their shards.
pub fn open(lines: Vec<Line>) -> (Hub, Feeder) {
    let back = |line| Back { line, waiting: VecDeque::new(), is_unrung: false };
    let inner = Inner {
        lines: lines.into_iter().map(back).collect(),
        sinks: Slab::new(),
        messages: BTreeMap::new(),
        recent: VecDeque::new(),
        recent_bytes: 0,
        useq_next: 1,
        forgotten: 0,
    };
    let shared = Arc::new(Shared { inner: Mutex::new(inner) });
    let (newest_in, newest) = watch::channel(0);
    (Hub { shared: Arc::clone(&shared), newest }, Feeder { shared, newest: newest_in })
}

impl Shared {
    /// A thread that panicked has left nothing half done that anybody relies on.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Wants the messages of a topic, or of all, from now on. What followed number `after` and is
    /// still kept comes first.
    ///
    /// # Errors
    /// When something that followed `after` is no longer kept.
    pub fn subscribe(&self, topic: Option<&str>, after: Option<u64>) -> Result<Sink, Forgotten> {
        self.subscribe_to(topic.into_iter().map(Box::from).collect(), after)
    }

    /// The same for any of several topics; none named: all.
    ///
    /// # Errors
    /// When something that followed `after` is no longer kept.
    pub fn subscribe_to(
        &self,
        topics: Vec<Box<str>>,
        after: Option<u64>,
    ) -> Result<Sink, Forgotten> {
        let mut inner = self.shared.lock();
        let since = inner.useq_next;
        let next = after.map_or(since, |after| after.saturating_add(1).min(since));
        if next <= inner.forgotten {
            return Err(Forgotten);
        }
        let key =
            inner.sinks.insert(Subscription { topics, since, next, done_below: next, missed: 0 });
        inner.wish();
        drop(inner);
        Ok(Sink { shared: Arc::clone(&self.shared), newest: self.newest.clone(), key })
    }

    /// Number of the latest message; 0 before the first.
    pub fn last_useq(&self) -> u64 {
        self.shared.lock().useq_next - 1
    }

    /// How things are.
    pub fn stats(&self) -> HubStats {
        let inner = self.shared.lock();
        HubStats {
            waiting: inner.messages.len() - inner.recent.len(),
            recent: inner.recent.len(),
            recent_bytes: inner.recent_bytes,
            sinks: inner.sinks.len(),
            useq_last: inner.useq_next - 1,
        }
    }
}

impl Feeder {
    /// Brings in what the loops handed up, dated by `wall`, and gives back credit that had to wait.
    pub fn gather(&mut self, wall: WallAnchor) {
        let mut inner = self.shared.lock();
        let before = inner.useq_next;
        for shard in 0..inner.lines.len() {
            // What comes meanwhile is for the next time.
            for _ in 0..limits::DATA_QUEUE_MAX {
                let Some(record) = inner.lines[shard].line.next_record() else { break };
                inner.bring_in(shard, *record, wall);
            }
        }
        inner.settle();
        let newest = inner.useq_next - 1;
        let has_news = inner.useq_next > before;
        drop(inner);
        if has_news {
            self.newest.send_replace(newest);
        }
    }
}

impl Sink {
    /// At most so many further messages, and bytes of them but for one that is longer. In order;
    /// those that are taken once do not come again.
    pub fn take(&mut self, messages_max: usize, bytes_max: usize) -> Vec<Arc<Message>> {
        self.shared.lock().take(self.key, messages_max, bytes_max)
    }

    /// How many that it asked for were forgotten before it took them, since it was last told. What
    /// it took last may be behind them.
    pub fn missed(&mut self) -> u64 {
        std::mem::take(&mut self.shared.lock().sinks[self.key].missed)
    }

    /// Somebody else goes on behind number `after`, up to which this one is done, with these
    /// topics; none: all. What waited for this one and is of these topics waits for that one.
    #[must_use]
    pub fn hand_over(self, topics: Vec<Box<str>>, after: u64) -> Self {
        let mut inner = self.shared.lock();
        let key = inner.succeed(self.key, topics, after);
        drop(inner);
        // With this one goes its own claim, when the other has been made.
        Self { shared: Arc::clone(&self.shared), newest: self.newest.clone(), key }
    }

    /// The number of the last message that was looked at, whether it was for it or not.
    pub fn looked_at(&self) -> u64 {
        self.shared.lock().sinks[self.key].next.saturating_sub(1)
    }

    /// It is done with all that it took up to number `upto`: their clients may hear so, unless
    /// others are not.
    pub fn done(&mut self, upto: u64) {
        let mut inner = self.shared.lock();
        inner.on_done(self.key, upto);
        inner.settle();
    }

    /// Waits until there may be something to take. Wakes for what is not for it, too.
    ///
    /// # Errors
    /// When the loops have ended, and nothing will come any more.
    pub async fn changed(&mut self) -> Result<(), Ended> {
        loop {
            let newest = *self.newest.borrow_and_update();
            if self.shared.lock().sinks[self.key].next <= newest {
                return Ok(());
            }
            self.newest.changed().await.map_err(|_| Ended)?;
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.leave(self.key);
        inner.settle();
    }
}

impl Subscription {
    fn wants(&self, message: &Message) -> bool {
        self.topics.is_empty() || self.topics.contains(&message.record.topic)
    }
}

impl Inner {
    /// The loops hear whether anybody wants anything.
    fn wish(&self) {
        let is_wished = !self.sinks.is_empty();
        self.lines.iter().for_each(|back| back.line.wish(is_wished));
    }

    fn bring_in(&mut self, shard: usize, record: DataRecord, wall: WallAnchor) {
        let useq = self.useq_next;
        self.useq_next += 1;
        let at_unix_ms = wall.unix_millis(record.at);
        let message = Arc::new(Message { useq, record, at_unix_ms });
        let pending = self.sinks.iter().filter(|(_, sink)| sink.wants(&message)).count();
        self.messages.insert(useq, Kept { message, shard, pending, fate: Fate::Unclaimed });
        if pending == 0 {
            self.release(useq);
        }
    }

    fn take(&mut self, key: usize, messages_max: usize, bytes_max: usize) -> Vec<Arc<Message>> {
        let sink = &mut self.sinks[key];
        let mut taken = Vec::new();
        let mut bytes = 0;
        for (useq, kept) in self.messages.range(sink.next..) {
            // What is not there any more was forgotten. From `since` on that is not for it.
            sink.missed += (*useq).min(sink.since).saturating_sub(sink.next);
            sink.next = *useq;
            if sink.wants(&kept.message) {
                let body_bytes = kept.message.record.body.len();
                let is_full = taken.len() >= messages_max || bytes + body_bytes > bytes_max;
                if is_full && !(taken.is_empty() && messages_max > 0) {
                    return taken;
                }
                bytes += body_bytes;
                taken.push(Arc::clone(&kept.message));
            }
            sink.next = useq + 1;
        }
        sink.missed += sink.since.saturating_sub(sink.next);
        sink.next = self.useq_next;
        taken
    }

    /// A sink that goes on behind `after` where another one was, which is still there.
    fn succeed(&mut self, former: usize, topics: Vec<Box<str>>, after: u64) -> usize {
        let next = after.saturating_add(1).min(self.useq_next);
        let since = self.sinks[former].since.max(next);
        let heir = Subscription { topics, since, next, done_below: next, missed: 0 };
        for (_, kept) in self.messages.range_mut(since..) {
            // What nobody waits for has had its credit.
            if kept.pending > 0 && heir.wants(&kept.message) {
                kept.pending += 1;
            }
        }
        self.sinks.insert(heir)
    }

    fn on_done(&mut self, key: usize, upto: u64) {
        let sink = &mut self.sinks[key];
        // It cannot be done with what it does not have.
        let below = upto.saturating_add(1).min(sink.next);
        let from = sink.done_below.max(sink.since);
        sink.done_below = sink.done_below.max(below);
        self.relieve(key, from, below, Some(Fate::Taken));
    }

    /// One sink less waits for those of its messages that are in this range.
    fn relieve(&mut self, key: usize, from: u64, below: u64, fate: Option<Fate>) {
        if from >= below {
            return;
        }
        let sink = &self.sinks[key];
        let mut over = Vec::new();
        for (useq, kept) in self.messages.range_mut(from..below) {
            if kept.pending > 0 && sink.wants(&kept.message) {
                kept.fate = fate.unwrap_or(kept.fate);
                kept.pending -= 1;
                if kept.pending == 0 {
                    over.push(*useq);
                }
            }
        }
        over.into_iter().for_each(|useq| self.release(useq));
    }

    fn leave(&mut self, key: usize) {
        let sink = &self.sinks[key];
        let (from, below) = (sink.done_below.max(sink.since), self.useq_next);
        self.relieve(key, from, below, None);
        self.sinks.remove(key);
        self.wish();
    }

    /// Nobody waits for this message any more: its credit goes back, and it is kept for a while.
    fn release(&mut self, useq: u64) {
        let Some(kept) = self.messages.get(&useq) else { return };
        let credit = Credit { ticket: kept.message.record.ticket, fate: kept.fate };
        self.lines[kept.shard].waiting.push_back(credit);
        self.recent.push_back(useq);
        self.recent_bytes += kept.message.record.charge_bytes();
        while self.recent_bytes > limits::DATA_RECENT_BYTES_MAX
            && let Some(oldest) = self.recent.pop_front()
            && let Some(kept) = self.messages.remove(&oldest)
        {
            self.recent_bytes -= kept.message.record.charge_bytes();
            self.forgotten = self.forgotten.max(oldest);
        }
    }

    /// Gives back what credit there is, and wakes whom that concerns.
    fn settle(&mut self) {
        for back in &mut self.lines {
            while let Some(credit) = back.waiting.front()
                && back.line.give_back(*credit).is_ok()
            {
                back.waiting.pop_front();
                back.is_unrung = true;
            }
            if std::mem::take(&mut back.is_unrung) {
                back.line.ring();
            }
        }
    }
}

#[cfg(test)]
mod tests;
