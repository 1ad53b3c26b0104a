//! Many pages, made at different moments, become one snapshot that is true at one number.
//!
//! The loop makes a page at a time, and things happen between two pages. Whoever was here before
//! the first question and stays is in a page; whoever came or went since is in the events. Sessions
//! are told apart by their epochs, so it does no harm to be told of one twice: what a page says of
//! a session is at least as new as every event before it, and what an event says is newer than
//! every page before it. When the last page is there, and every event up to its number was seen,
//! the whole is true at the number of the last event seen, and stays so with every further event.
//!
//! Pages and events come through the same door, and a page never after an event that it does not
//! know. Where that does not hold the attempt is given up, so a snapshot is right or is not there.

use std::collections::BTreeMap;

use crate::base::event::{Event, Record};
use crate::base::time::Moment;
use crate::gateway::Presence;
use crate::server::mailbox::Ticket;

/// A page of who is online, as it came from the loop.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Page {
    /// The question that it answers.
    pub ticket: Ticket,
    /// The ledger's last number when it was made.
    pub seq: u64,
    /// Who was online in its slots.
    pub clients: Vec<Presence>,
    /// Where the next page begins.
    pub next_slot: Option<u32>,
}

/// A snapshot in the making.
///
/// Memory: about 150 bytes for each client that is online, and the client ids. It is given back
/// when the snapshot is written.
pub(crate) struct Fold {
    began_at: Moment,
    by_epoch: BTreeMap<u64, Presence>,
    /// The number at which the latest page was true.
    page_seq: u64,
    /// The last event that was seen.
    seen_seq: u64,
    next: NextPage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum NextPage {
    /// To be asked for.
    From(u32),
    /// Asked for, and awaited.
    Awaited(Ticket),
    /// There is none: all are here.
    None,
}

/// What became of a page.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Taken {
    /// It is part of the snapshot, or of none.
    Fine,
    /// It came after an event that it does not know: this attempt is worth nothing.
    Broken,
}

impl Fold {
    /// Nothing is known yet. `seen_seq` is the last event that was seen before.
    pub(crate) fn new(began_at: Moment, seen_seq: u64) -> Self {
        Self { began_at, by_epoch: BTreeMap::new(), page_seq: 0, seen_seq, next: NextPage::From(0) }
    }

    pub(crate) fn began_at(&self) -> Moment {
        self.began_at
    }

    /// The slot from which a page should be asked for, if one should.
    pub(crate) fn wants_page_from(&self) -> Option<u32> {
        match self.next {
            NextPage::From(slot) => Some(slot),
            NextPage::Awaited(_) | NextPage::None => None,
        }
    }

    pub(crate) fn on_asked(&mut self, ticket: Ticket) {
        self.next = NextPage::Awaited(ticket);
    }

    pub(crate) fn on_page(&mut self, page: Page) -> Taken {
        if self.next != NextPage::Awaited(page.ticket) {
            return Taken::Fine; // the answer to an attempt that was given up
        }
        if page.seq < self.seen_seq {
            return Taken::Broken;
        }
        self.next = page.next_slot.map_or(NextPage::None, NextPage::From);
        self.page_seq = page.seq;
        self.by_epoch.extend(page.clients.into_iter().map(|present| (present.epoch, present)));
        Taken::Fine
    }

    pub(crate) fn on_record(&mut self, record: &Record) {
        self.seen_seq = record.seq;
        match &record.event {
            Event::Online { client, epoch, conn, remote, interval, timeout, .. }
            | Event::Resumed { client, epoch, conn, remote, interval, timeout, .. } => {
                let presence = Presence {
                    client: client.clone(),
                    epoch: *epoch,
                    conn: *conn,
                    remote: *remote,
                    interval: *interval,
                    timeout: *timeout,
                };
                self.by_epoch.insert(*epoch, presence);
            }
            // Whoever is not known yet comes with a page, which knows it.
            Event::Rhythm { epoch, interval, timeout, .. } => {
                if let Some(presence) = self.by_epoch.get_mut(epoch) {
                    (presence.interval, presence.timeout) = (*interval, *timeout);
                }
            }
            Event::Offline { epoch, .. } => {
                self.by_epoch.remove(epoch);
            }
            Event::Started { .. }
            | Event::Contested { .. }
            | Event::Stalled { .. }
            | Event::Stopped => {}
        }
    }

    /// Whether this is a snapshot: exactly true at [`seq`](Self::seq).
    pub(crate) fn is_complete(&self) -> bool {
        self.next == NextPage::None && self.seen_seq >= self.page_seq
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seen_seq
    }

    /// Who is online, and how many.
    pub(crate) fn clients(&self) -> impl ExactSizeIterator<Item = &Presence> {
        self.by_epoch.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::event::{CloseReason, Evidence};
    use crate::base::ids::{ClientId, ConnId};
    use crate::base::time::Span;
    use crate::control::merge::Merge;
    use crate::server::shards::ticket_outside;
    use std::collections::VecDeque;

    const SLOTS: u32 = 24;
    const PAGE_SLOTS: u32 = 5;

    fn presence(slot: u32, epoch: u64) -> Presence {
        Presence {
            client: ClientId::new(&format!("client-{epoch}")).expect("a client id"),
            epoch,
            conn: ConnId { slot, generation: 1 },
            remote: "127.0.0.1:5000".parse().expect("an address"),
            interval: Span::from_secs(15),
            timeout: Span::from_secs(35),
        }
    }

    /// A loop with slots and a ledger, and the door through which it is heard.
    struct World {
        present: Vec<Option<Presence>>,
        seq: u64,
        ledger: VecDeque<Record>,
        rng: fastrand::Rng,
    }

    impl World {
        fn turn(&mut self) {
            let slot = self.rng.u32(..SLOTS);
            self.seq += 1;
            let place = &mut self.present[slot as usize];
            let event = match place.take() {
                Some(mut here) if self.rng.u8(..4) == 0 => {
                    here.interval = Span::from_secs(self.seq);
                    let (client, epoch) = (here.client.clone(), here.epoch);
                    let (interval, timeout) = (here.interval, here.timeout);
                    *place = Some(here);
                    Event::Rhythm { client, epoch, interval, timeout }
                }
                Some(gone) => Event::Offline {
                    client: gone.client,
                    epoch: gone.epoch,
                    conn: gone.conn,
                    remote: gone.remote,
                    reason: CloseReason::Bye,
                    last_beat: Moment::ZERO,
                    evidence: Evidence::default(),
                },
                None => {
                    let here = presence(slot, self.seq);
                    *place = Some(here.clone());
                    Event::Online {
                        client: here.client,
                        epoch: here.epoch,
                        conn: here.conn,
                        remote: here.remote,
                        interval: here.interval,
                        timeout: here.timeout,
                        flaps: 0,
                    }
                }
            };
            self.ledger.push_back(Record { seq: self.seq, at: Moment::ZERO, event });
        }

        fn page(&self, ticket: Ticket, from: u32) -> Page {
            let upto = (from + PAGE_SLOTS).min(SLOTS);
            let slots = &self.present[from as usize..upto as usize];
            Page {
                ticket,
                seq: self.seq,
                clients: slots.iter().flatten().cloned().collect(),
                next_slot: (upto < SLOTS).then_some(upto),
            }
        }
    }

    /// Events lag behind pages by any number, and what comes out is what a naive map says.
    #[test]
    fn a_fold_of_pages_and_events_is_what_was_true_at_its_number() {
        for seed in 0..500 {
            let mut world = World {
                present: vec![None; SLOTS as usize],
                seq: 0,
                ledger: VecDeque::new(),
                rng: fastrand::Rng::with_seed(seed),
            };
            let mut history = vec![world.present.clone()];
            let mut fold = Fold::new(Moment::ZERO, 0);
            let (mut ticket, mut completed) = (0, 0);
            while completed < 20 {
                for _ in 0..world.rng.u32(..6) {
                    world.turn();
                    history.push(world.present.clone());
                }
                if let Some(from) = fold.wants_page_from()
                    && world.rng.bool()
                {
                    ticket += 1;
                    fold.on_asked(Ticket(ticket));
                    assert_eq!(fold.on_page(world.page(Ticket(ticket), from)), Taken::Fine);
                }
                for _ in 0..world.rng.usize(..=world.ledger.len()) {
                    let record = world.ledger.pop_front().expect("not more than there are");
                    fold.on_record(&record);
                }
                if fold.is_complete() {
                    let at = usize::try_from(fold.seq()).expect("a short test");
                    let mut expected: Vec<_> = history[at].iter().flatten().collect();
                    expected.sort_unstable_by_key(|present| present.epoch);
                    assert_eq!(fold.clients().collect::<Vec<_>>(), expected, "seed {seed}");
                    completed += 1;
                }
            }
        }
    }

    const SHARDS: usize = 3;

    /// Loops, each with slots and numbers of its own, and the one ledger that they make.
    struct Worlds {
        shards: Vec<World>,
        merge: Merge,
        online: BTreeMap<u64, ConnId>,
    }

    impl Worlds {
        fn new(seed: u64) -> Self {
            let world = |shard| World {
                present: vec![None; SLOTS as usize],
                seq: 0,
                ledger: VecDeque::new(),
                rng: fastrand::Rng::with_seed(seed * 10 + shard),
            };
            let shards = (0..SHARDS as u64).map(world).collect();
            Self { shards, merge: Merge::new(SHARDS), online: BTreeMap::new() }
        }

        /// No two shards have the same epochs.
        fn epoch_outside(epoch: u64, shard: usize) -> u64 {
            epoch * SHARDS as u64 + shard as u64
        }

        fn turn(&mut self, shard: usize) {
            self.shards[shard].turn();
            let last = self.shards[shard].ledger.back_mut().expect("something happened");
            if let Event::Online { epoch, .. } | Event::Offline { epoch, .. } = &mut last.event {
                *epoch = Self::epoch_outside(*epoch, shard);
            }
        }

        fn ask(&mut self, ticket: Ticket, from: u32) -> Ticket {
            let shard = (from >> 24) as usize;
            let mut page = self.shards[shard].page(ticket, from & 0xff_ffff);
            for present in &mut page.clients {
                present.epoch = Self::epoch_outside(present.epoch, shard);
            }
            self.merge.hold(shard, page);
            ticket_outside(ticket, shard, SHARDS)
        }

        /// Hands over some of what a shard told, each page in its place.
        fn hand_over(&mut self, shard: usize, count: usize, fold: &mut Fold) {
            for left in (0..=count).rev() {
                while let Some(page) = self.merge.take_due_page(shard) {
                    assert_eq!(fold.on_page(page), Taken::Fine);
                }
                if left == 0 {
                    return;
                }
                let record =
                    self.shards[shard].ledger.pop_front().expect("not more than there are");
                let record = self.merge.take(shard, record).expect("it is told");
                if let Event::Online { epoch, conn, .. } = &record.event {
                    self.online.insert(*epoch, *conn);
                } else if let Event::Offline { epoch, .. } = &record.event {
                    self.online.remove(epoch);
                }
                fold.on_record(&record);
            }
        }
    }

    #[test]
    fn a_fold_of_several_shards_is_what_was_true_of_all_at_its_number() {
        for seed in 0..200 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut worlds = Worlds::new(seed);
            let mut fold = Fold::new(Moment::ZERO, 0);
            let (mut ticket, mut completed) = (0, 0);
            while completed < 10 {
                let shard = rng.usize(..SHARDS);
                for _ in 0..rng.u32(..6) {
                    worlds.turn(shard);
                }
                if let Some(from) = fold.wants_page_from()
                    && rng.bool()
                {
                    ticket += 1;
                    fold.on_asked(worlds.ask(Ticket(ticket), from));
                }
                for shard in 0..SHARDS {
                    let count = rng.usize(..=worlds.shards[shard].ledger.len());
                    worlds.hand_over(shard, count, &mut fold);
                }
                if fold.is_complete() {
                    let clients = fold.clients().map(|present| (present.epoch, present.conn));
                    assert_eq!(clients.collect::<BTreeMap<_, _>>(), worlds.online, "seed {seed}");
                    completed += 1;
                    fold = Fold::new(Moment::ZERO, fold.seq());
                }
            }
        }
    }

    #[test]
    fn a_page_that_comes_too_late_breaks_the_attempt_and_a_strange_one_does_not() {
        let mut fold = Fold::new(Moment::ZERO, 7);
        fold.on_asked(Ticket(2));
        let page = |ticket, seq| Page { ticket, seq, clients: Vec::new(), next_slot: None };
        assert_eq!(fold.on_page(page(Ticket(1), 7)), Taken::Fine);
        assert!(!fold.is_complete());
        assert_eq!(fold.on_page(page(Ticket(2), 6)), Taken::Broken);
        assert_eq!(fold.on_page(page(Ticket(2), 9)), Taken::Fine);
        assert!(!fold.is_complete(), "events 8 and 9 are still to come");
        for seq in [8, 9] {
            fold.on_record(&Record { seq, at: Moment::ZERO, event: Event::Stopped });
        }
        assert!(fold.is_complete());
        assert_eq!(fold.seq(), 9);
    }
}
