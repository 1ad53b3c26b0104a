//! The ledgers of all shards become one.
//!
//! Each shard numbers its events for itself. Here they are numbered anew, in the order in which
//! they are taken; those of one shard keep their order, and a client lives on one shard. The
//! ledger begins once, with the first that begins, and ends once, with the last that ends.
//!
//! A page of who is online is true at a number of its shard. It is held until the event with that
//! number has been taken, and given out before the next one is: so it is true at the number that
//! the last event got here, and the snapshot it goes into stays exact (see
//! [`journal`](crate::control::journal)).

use std::collections::{BTreeMap, VecDeque};

use crate::base::event::{Event, Record, TransportEvent, TransportRecord};
use crate::base::ids::{ConnId, GroupName};
use crate::base::limits;
use crate::control::journal::Page;
use crate::gateway::{BroadcastReply, Presence, Reply, SessionView, Stats};
use crate::server::shards::{next_slot_outside, slot_outside, ticket_outside};

/// Numbers the events of all shards.
pub(crate) struct Merge {
    lanes: Vec<Lane>,
    seq_last: u64,
    tseq_last: u64,
    has_started: bool,
    stopped: usize,
}

/// What was taken of one shard.
#[derive(Default)]
struct Lane {
    /// The last of its own numbers.
    seq_last: u64,
    tseq_last: u64,
    /// Pages that know of events that were not taken yet, in their order.
    held: VecDeque<Page>,
}

impl Merge {
    /// Nothing was taken yet, of so many shards.
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            lanes: (0..shards).map(|_| Lane::default()).collect(),
            seq_last: 0,
            tseq_last: 0,
            has_started: false,
            stopped: 0,
        }
    }

    /// The next event of a shard, as it stands in the one ledger; `None` where it does not.
    pub(crate) fn take(&mut self, shard: usize, record: Record) -> Option<Record> {
        let lane = &mut self.lanes[shard];
        debug_assert_eq!(record.seq, lane.seq_last + 1, "a shard's ledger has no gap");
        lane.seq_last = record.seq;
        let Record { at, mut event, .. } = record;
        match &mut event {
            Event::Started { .. } => {
                if std::mem::replace(&mut self.has_started, true) {
                    return None;
                }
            }
            Event::Stopped => {
                self.stopped += 1;
                if self.stopped < self.lanes.len() {
                    return None;
                }
            }
            Event::Online { conn, .. }
            | Event::Resumed { conn, .. }
            | Event::Offline { conn, .. } => *conn = outside(*conn, shard),
            Event::Contested { .. } | Event::Rhythm { .. } | Event::Stalled { .. } => {}
        }
        self.seq_last += 1;
        Some(Record { seq: self.seq_last, at, event })
    }

    /// The next transport event of a shard. As many are missing before it as were before.
    pub(crate) fn take_transport(
        &mut self,
        shard: usize,
        record: TransportRecord,
    ) -> TransportRecord {
        let lane = &mut self.lanes[shard];
        self.tseq_last += record.tseq - lane.tseq_last;
        lane.tseq_last = record.tseq;
        let TransportRecord { at, dropped, mut event, .. } = record;
        match &mut event {
            TransportEvent::Connected { conn, .. }
            | TransportEvent::Disconnected { conn, .. }
            | TransportEvent::Moved { conn, .. }
            | TransportEvent::Suspect { conn, .. }
            | TransportEvent::Rescued { conn, .. } => *conn = outside(*conn, shard),
        }
        TransportRecord { tseq: self.tseq_last, at, dropped, event }
    }

    /// Holds a page of a shard until it [is due](Self::has_due_page).
    pub(crate) fn hold(&mut self, shard: usize, mut page: Page) {
        let count = self.lanes.len();
        page.ticket = ticket_outside(page.ticket, shard, count);
        page.next_slot = next_slot_outside(page.next_slot, shard, count);
        for Presence { conn, .. } in &mut page.clients {
            *conn = outside(*conn, shard);
        }
        self.lanes[shard].held.push_back(page);
    }

    /// An answer of a shard, in the words of all.
    pub(crate) fn outside(&self, shard: usize, mut reply: Reply) -> Reply {
        match &mut reply {
            Reply::Session(session) => {
                session.presence.conn = outside(session.presence.conn, shard)
            }
            Reply::Sessions { sessions, next_slot } => {
                for SessionView { presence, .. } in sessions {
                    presence.conn = outside(presence.conn, shard);
                }
                *next_slot = next_slot_outside(*next_slot, shard, self.lanes.len());
            }
            // Pages with a number are held until they are true, and counts are summed up.
            Reply::Clients { .. } | Reply::Stats(_) | Reply::Groups(_) | Reply::Broadcast(_) => {}
            Reply::Done
            | Reply::GroupsFull
            | Reply::Pushed(_)
            | Reply::TooLong { .. }
            | Reply::Outcomes(_)
            | Reply::NoSuchClient
            | Reply::OtherSession
            | Reply::NotConnected
            | Reply::Draining
            | Reply::OutOfBounds { .. } => {}
        }
        reply
    }

    /// How things are with all shards together.
    pub(crate) fn sum<'a>(&self, shards: impl Iterator<Item = &'a Stats>) -> Stats {
        let mut sum = Stats::default();
        shards.for_each(|stats| sum.add(stats));
        self.count_beginnings_once(&mut sum);
        sum
    }

    /// Each ledger has a beginning, and one of them is told.
    fn count_beginnings_once(&self, sum: &mut Stats) {
        sum.seq_last = sum.seq_last.saturating_sub(self.lanes.len() as u64 - 1);
    }

    /// One answer out of those of all shards to the same question.
    pub(crate) fn whole(&self, parts: Vec<Reply>) -> Reply {
        let mut parts = parts.into_iter();
        let mut whole = parts.next().expect("there is at least one shard");
        for part in parts {
            match (&mut whole, part) {
                (Reply::Stats(sum), Reply::Stats(part)) => sum.add(&part),
                (Reply::Groups(sum), Reply::Groups(part)) => add_groups(sum, part),
                (Reply::Broadcast(whole), Reply::Broadcast(part)) => add_broadcast(whole, part),
                (_, part) => debug_assert!(false, "another question's answer: {part:?}"),
            }
        }
        if let Reply::Stats(sum) = &mut whole {
            self.count_beginnings_once(sum);
        }
        whole
    }

    /// Whether a page of this shard is true right now: it is to be given out before the shard's
    /// next event is taken.
    pub(crate) fn has_due_page(&self, shard: usize) -> bool {
        let lane = &self.lanes[shard];
        lane.held.front().is_some_and(|page| page.seq <= lane.seq_last)
    }

    /// A page of this shard that is true at the number of the last event that was taken.
    pub(crate) fn take_due_page(&mut self, shard: usize) -> Option<Page> {
        if !self.has_due_page(shard) {
            return None;
        }
        let page = self.lanes[shard].held.pop_front()?;
        Some(Page { seq: self.seq_last, ..page })
    }
}

/// Adds the sizes of groups, by name. A page of all is as long as the longest of the parts may be,
/// and has the first names there are: each of them is on the pages of all shards that know it.
fn add_groups(sum: &mut Vec<(GroupName, usize)>, part: Vec<(GroupName, usize)>) {
    let mut sizes: BTreeMap<GroupName, usize> = std::mem::take(sum).into_iter().collect();
    for (name, size) in part {
        *sizes.entry(name).or_default() += size;
    }
    sum.extend(sizes);
}

/// Adds what another shard says of the same broadcast. It is under way while it is anywhere.
fn add_broadcast(whole: &mut BroadcastReply, part: BroadcastReply) {
    match (&mut *whole, part) {
        (BroadcastReply::Is(whole), BroadcastReply::Is(part)) => {
            whole.is_running |= part.is_running;
            whole.targets += part.targets;
            whole.results.iter_mut().zip(part.results).for_each(|(sum, more)| *sum += more);
            whole.others.extend(part.others);
            whole.others.truncate(limits::BROADCAST_OTHERS_MAX);
        }
        (_, BroadcastReply::Busy) => *whole = BroadcastReply::Busy,
        (BroadcastReply::Unknown, part) => *whole = part,
        (BroadcastReply::Is(_) | BroadcastReply::Busy, _) => {}
    }
}

/// What a connection is called outside.
fn outside(conn: ConnId, shard: usize) -> ConnId {
    ConnId { slot: slot_outside(conn.slot, shard), ..conn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::{CloseReason, Evidence};
    use crate::base::ids::ClientId;
    use crate::base::time::{Moment, Span};
    use crate::server::mailbox::Ticket;

    fn record(seq: u64, event: Event) -> Record {
        Record { seq, at: Moment::ZERO, event }
    }

    fn online(epoch: u64, slot: u32) -> Event {
        Event::Online {
            client: ClientId::new(&format!("client-{epoch}")).expect("a client id"),
            epoch,
            conn: ConnId { slot, generation: 1 },
            remote: "127.0.0.1:5000".parse().expect("an address"),
            interval: Span::from_secs(15),
            timeout: Span::from_secs(35),
            flaps: 0,
        }
    }

    fn page(ticket: u64, seq: u64, next_slot: Option<u32>) -> Page {
        Page { ticket: Ticket(ticket), seq, clients: Vec::new(), next_slot }
    }

    #[test]
    fn one_ledger_begins_once_ends_once_and_has_no_gap() {
        let mut merge = Merge::new(3);
        let mut rng = fastrand::Rng::with_seed(5);
        let mut queues: Vec<VecDeque<Record>> = (0..3)
            .map(|shard| {
                let middle = (2..30).map(|seq| record(seq, online(seq * 3 + shard, 4)));
                let begin = std::iter::once(record(1, Event::Started { former: None }));
                begin.chain(middle).chain(std::iter::once(record(30, Event::Stopped))).collect()
            })
            .collect();
        let mut told = Vec::new();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let shard = rng.usize(..3);
            let Some(record) = queues[shard].pop_front() else { continue };
            told.extend(merge.take(shard, record));
        }
        assert!(told.iter().map(|record| record.seq).eq(1..=3 * 28 + 2));
        assert_eq!(told[0].event, Event::Started { former: None });
        assert_eq!(told.last().map(|record| &record.event), Some(&Event::Stopped));
        let is_online = |record: &&Record| matches!(record.event, Event::Online { .. });
        assert_eq!(told.iter().filter(is_online).count(), 3 * 28);
    }

    #[test]
    fn connections_of_different_shards_are_told_apart() {
        let mut merge = Merge::new(2);
        let slot_of = |record: Option<Record>| match record.expect("it is told").event {
            Event::Online { conn, .. } | Event::Offline { conn, .. } => conn.slot,
            Event::Started { .. }
            | Event::Resumed { .. }
            | Event::Contested { .. }
            | Event::Rhythm { .. }
            | Event::Stalled { .. }
            | Event::Stopped => panic!("neither was told"),
        };
        assert_eq!(slot_of(merge.take(0, record(1, online(1, 7)))), 7);
        assert_eq!(slot_of(merge.take(1, record(1, online(2, 7)))), (1 << 24) + 7);
        let offline = Event::Offline {
            client: ClientId::new("client-2").expect("a client id"),
            epoch: 2,
            conn: ConnId { slot: 7, generation: 1 },
            remote: "127.0.0.1:5000".parse().expect("an address"),
            reason: CloseReason::Bye,
            last_beat: Moment::ZERO,
            evidence: Evidence::default(),
        };
        assert_eq!(slot_of(merge.take(1, record(2, offline))), (1 << 24) + 7);
    }

    #[test]
    fn a_page_waits_for_the_events_it_knows_of_and_for_no_other() {
        let mut merge = Merge::new(2);
        merge.take(0, record(1, Event::Started { former: None }));
        merge.take(1, record(1, Event::Started { former: None }));
        merge.hold(1, page(4, 3, Some(9)));
        assert!(!merge.has_due_page(1));
        merge.take(1, record(2, online(2, 0)));
        merge.take(0, record(2, online(1, 0)));
        assert_eq!(merge.take_due_page(1), None, "its third event is missing");
        merge.take(1, record(3, online(4, 1)));
        let due = merge.take_due_page(1).expect("it is true now");
        assert_eq!((due.ticket, due.seq), (Ticket(9), 4), "the fourth that is told");
        assert_eq!(due.next_slot, Some((1 << 24) + 9));
        assert_eq!(merge.take_due_page(1), None, "once");
    }

    #[test]
    fn pages_lead_through_all_shards() {
        let mut merge = Merge::new(2);
        let mut next = |shard, next_slot| {
            merge.hold(shard, page(1, 0, next_slot));
            merge.take_due_page(shard).expect("it knows of nothing").next_slot
        };
        assert_eq!(next(0, Some(5)), Some(5));
        assert_eq!(next(0, None), Some(1 << 24));
        assert_eq!(next(1, Some(5)), Some((1 << 24) + 5));
        assert_eq!(next(1, None), None);
    }

    #[test]
    fn transport_events_miss_as_many_as_were_dropped() {
        let mut merge = Merge::new(2);
        let conn = ConnId { slot: 1, generation: 1 };
        let remote = "127.0.0.1:5000".parse().expect("an address");
        let event = || TransportEvent::Connected { conn, remote };
        let mut told = |shard, tseq| {
            let record = TransportRecord { tseq, at: Moment::ZERO, dropped: 0, event: event() };
            merge.take_transport(shard, record).tseq
        };
        assert_eq!(told(0, 1), 1);
        assert_eq!(told(1, 3), 4, "two of the other were dropped");
        assert_eq!(told(0, 2), 5);
    }
}
