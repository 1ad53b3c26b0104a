//! One message for everybody, or for a group: a job that walks over the slots, a little in each
//! turn.
//!
//! It is for those whose session began before it did. Who moves to another slot by resuming while
//! it goes on gets it once, wherever the walk is.

use std::collections::{BTreeSet, VecDeque};

use crate::base::ids::{ClientId, ConnId, GroupName};
use crate::base::limits;
use crate::base::time::{Moment, Span};
use crate::gateway::answers::session_of;
use crate::gateway::post::{Broadcast, BroadcastReply, BroadcastView, Outcome};
use crate::gateway::push::Order;
use crate::gateway::{Gateway, Reply};
use crate::tracker::Progress;

/// The broadcasts that go on, and those that were.
#[derive(Default)]
pub(crate) struct Broadcasts {
    /// In the order in which they were asked for: their numbers rise.
    jobs: VecDeque<Job>,
    number_last: u32,
}

/// One broadcast.
struct Job {
    /// What its letters call it.
    number: u32,
    view: BroadcastView,
    /// `None`: everybody has got a turn.
    walk: Option<Walk>,
}

/// Where a broadcast is.
struct Walk {
    order: Order,
    group: Option<GroupName>,
    /// The next slot, and the end.
    slot: u32,
    slots_end: u32,
    /// Sessions from this one on began later.
    epoch_end: u64,
    /// Have got it, and are ahead again: they moved.
    moved_ahead: BTreeSet<ConnId>,
    /// Between two clients.
    pause: Span,
    /// When the next client may get it.
    next_at: Moment,
}

/// What one turn may yet do.
struct Budget {
    clients: u32,
    slots: u32,
}

impl Broadcasts {
    /// How many are under way.
    pub(crate) fn running(&self) -> usize {
        self.jobs.iter().filter(|job| job.walk.is_some()).count()
    }

    fn is_full(&self) -> bool {
        self.running() >= limits::BROADCASTS_RUNNING_MAX
    }

    fn job(&mut self, number: u32) -> Option<&mut Job> {
        let place = self.jobs.binary_search_by_key(&number, |job| job.number).ok()?;
        self.jobs.get_mut(place)
    }

    fn by_id(&self, id: u64) -> Option<&Job> {
        self.jobs.iter().find(|job| job.view.id == id)
    }

    /// One of its messages is no longer what it was.
    pub(crate) fn on_changed(&mut self, number: u32, before: Outcome, after: Outcome) {
        let Some(job) = self.job(number) else { return };
        let before = &mut job.view.results[before.index()];
        *before = before.saturating_sub(1);
        job.view.results[after.index()] += 1;
    }

    /// Somebody did not get it.
    pub(crate) fn note_other(&mut self, number: u32, client: &ClientId, outcome: Outcome) {
        let Some(job) = self.job(number) else { return };
        if job.view.others.len() < limits::BROADCAST_OTHERS_MAX {
            job.view.others.push((client.clone(), outcome));
        }
    }

    /// The latest that are over are remembered.
    fn forget(&mut self) {
        if self.jobs.len() <= limits::BROADCASTS_KEPT_MAX {
            return;
        }
        let mut over = self.jobs.len() - self.running();
        self.jobs.retain(|job| {
            let is_too_old = job.walk.is_none() && over > limits::BROADCASTS_KEPT_MAX;
            over -= usize::from(is_too_old);
            !is_too_old
        });
    }

    /// Panics when there are too many.
    pub(crate) fn check(&self) {
        let running = self.running();
        assert!(running <= limits::BROADCASTS_RUNNING_MAX);
        assert!(self.jobs.len() <= running + limits::BROADCASTS_KEPT_MAX);
    }

    fn walk(&mut self, place: usize) -> Option<&mut Walk> {
        self.jobs.get_mut(place)?.walk.as_mut()
    }

    /// When the first of them goes on, if one does.
    pub(crate) fn next_wake(&self) -> Option<Moment> {
        self.jobs.iter().filter_map(|job| Some(job.walk.as_ref()?.wake())).min()
    }
}

impl Walk {
    fn is_for(&self, session: &crate::gateway::connection::Session) -> bool {
        session.epoch < self.epoch_end
            && self.group.as_ref().is_none_or(|group| session.is_in(group))
    }

    /// Clients are gathered: a turn for each of them would be many.
    fn wake(&self) -> Moment {
        self.next_at.max(self.next_at + limits::BROADCAST_WINDOW - self.pause)
    }
}

impl Gateway {
    /// Begins a broadcast. It goes on by itself, a little in each turn.
    pub(crate) fn broadcast(&mut self, broadcast: Broadcast, now: Moment) -> Reply {
        let Broadcast { id, group, post, per_second } = broadcast;
        if post.body.payload_bytes() > usize::from(self.config.payload_bytes_max) {
            return Reply::TooLong { payload_bytes_max: self.config.payload_bytes_max };
        }
        if self.post.broadcasts.is_full() {
            return Reply::Broadcast(BroadcastReply::Busy);
        }
        let per_second = per_second.unwrap_or(self.config.broadcast_per_second);
        let own_share = per_second.div_ceil(u32::from(self.config.shard.count)).max(1);
        let number = self.post.broadcasts.number_last + 1;
        let walk = Walk {
            order: self.order(post, number),
            group,
            slot: 0,
            slots_end: self.tracker.slots_end(),
            epoch_end: self.epoch_next,
            moved_ahead: BTreeSet::new(),
            pause: Span::from_secs(1).divided_by(u64::from(own_share)),
            next_at: now,
        };
        let view = BroadcastView { id, is_running: true, ..BroadcastView::default() };
        let broadcasts = &mut self.post.broadcasts;
        broadcasts.number_last = number;
        broadcasts.jobs.push_back(Job { number, view: view.clone(), walk: Some(walk) });
        broadcasts.forget();
        // The next turn begins at once.
        self.unfinished = Progress::More;
        Reply::Broadcast(BroadcastReply::Is(view))
    }

    /// How a broadcast goes.
    pub(crate) fn broadcast_status(&self, id: u64) -> Reply {
        let view = self.post.broadcasts.by_id(id).map(|job| job.view.clone());
        Reply::Broadcast(view.map_or(BroadcastReply::Unknown, BroadcastReply::Is))
    }

    /// Goes on with every broadcast, within the budget of a turn.
    pub(crate) fn broadcast_further(&mut self, now: Moment) {
        let mut budget =
            Budget { clients: limits::TURN_BROADCAST_MAX, slots: limits::TURN_BROADCAST_SLOTS_MAX };
        for place in 0..self.post.broadcasts.jobs.len() {
            if self.walk_further(place, &mut budget, now) == Progress::More {
                self.unfinished = Progress::More;
            }
        }
        self.post.broadcasts.forget();
    }

    /// Goes on with one of them. More: the budget was not enough.
    fn walk_further(&mut self, place: usize, budget: &mut Budget, now: Moment) -> Progress {
        let Some(walk) = self.post.broadcasts.walk(place) else { return Progress::Done };
        // What could not be done in time is not made up for: it would be too many a second.
        let catches_up_from = now - limits::BROADCAST_WINDOW.times(2).max(walk.pause);
        walk.next_at = walk.next_at.max(catches_up_from);
        loop {
            let Some(walk) = self.post.broadcasts.walk(place) else { return Progress::Done };
            if walk.slot >= walk.slots_end {
                self.end_walk(place);
                return Progress::Done;
            }
            if walk.next_at > now {
                return Progress::Done;
            }
            if budget.clients == 0 || budget.slots == 0 {
                return Progress::More;
            }
            let slot = walk.slot;
            walk.slot += 1;
            budget.slots -= 1;
            let Some((conn, connection)) = self.tracker.slot(slot) else { continue };
            let is_for = session_of(connection).is_some_and(|session| walk.is_for(session));
            if is_for && !walk.moved_ahead.remove(&conn) {
                walk.next_at += walk.pause;
                budget.clients -= 1;
                self.hand_out(place, conn, now);
            }
        }
    }

    fn end_walk(&mut self, place: usize) {
        let Some(job) = self.post.broadcasts.jobs.get_mut(place) else { return };
        // With it goes the message, as far as nobody waits for it.
        job.walk = None;
        job.view.is_running = false;
    }

    fn hand_out(&mut self, place: usize, conn: ConnId, now: Moment) {
        let Some(walk) = self.post.broadcasts.walk(place) else { return };
        let order = walk.order.clone();
        let Some(client) = self.tracker.client(conn).cloned() else { return };
        // Counted first: a session that ends by it takes it along.
        if let Some(job) = self.post.broadcasts.jobs.get_mut(place) {
            job.view.targets += 1;
            job.view.results[Outcome::Queued.index()] += 1;
        }
        let outcome = self.put(conn, &order, now).outcome;
        if outcome != Outcome::Queued {
            self.post.broadcasts.on_changed(order.job, Outcome::Queued, outcome);
            self.post.broadcasts.note_other(order.job, &client, outcome);
        }
    }

    /// A session moved from one connection to another, and whoever walks sees it in another place.
    pub(crate) fn follow_broadcasts(&mut self, from: ConnId, to: ConnId, now: Moment) {
        for place in 0..self.post.broadcasts.jobs.len() {
            let Some(walk) = self.post.broadcasts.walk(place) else { continue };
            let session = self.tracker.get(to).and_then(session_of);
            if !session.is_some_and(|session| walk.is_for(session)) {
                continue;
            }
            // Whoever is behind its end came there by moving, and got it then at the latest.
            let has_got_it =
                walk.moved_ahead.remove(&from) || !(walk.slot..walk.slots_end).contains(&from.slot);
            let is_ahead = (walk.slot..walk.slots_end).contains(&to.slot);
            match (has_got_it, is_ahead) {
                (true, true) => {
                    walk.moved_ahead.insert(to);
                }
                (false, false) => self.hand_out(place, to, now),
                (true, false) | (false, true) => {}
            }
        }
    }
}
