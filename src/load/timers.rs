//! One alarm for each client, the earliest first.

use crate::base::time::Moment;

/// Marks a client without an alarm in [`Timers::places`].
const NOWHERE: u32 = u32::MAX;

/// A binary heap that knows where everybody is.
///
/// A client has one alarm or none, so the heap never holds more than there are clients: moving an
/// alarm moves its entry, and nothing stale is left behind. Arming and taking cost O(log n), which
/// beside the kernel's share of one beat is nothing.
#[derive(Debug)]
pub struct Timers {
    /// Ordered as a heap by moment, then by client.
    heap: Vec<(Moment, u32)>,
    /// For each client its position in `heap`, or [`NOWHERE`].
    places: Vec<u32>,
}

impl Timers {
    /// For the clients `0..count`; nobody has an alarm yet.
    pub fn new(count: u32) -> Self {
        let count = count as usize;
        Self { heap: Vec::with_capacity(count), places: vec![NOWHERE; count] }
    }

    /// Sets the alarm of `client`, in place of the one it had; `None` takes it away.
    ///
    /// # Panics
    /// When there is no such client.
    pub fn set(&mut self, client: u32, due: Option<Moment>) {
        match (due, self.places[client as usize]) {
            (None, NOWHERE) => {}
            (None, place) => self.remove(place as usize),
            (Some(due), NOWHERE) => {
                self.heap.push((due, client));
                self.rise(self.heap.len() - 1);
            }
            (Some(due), place) => {
                let place = place as usize;
                self.heap[place].0 = due;
                self.settle(place);
            }
        }
    }

    /// When the earliest alarm is.
    pub fn next_due(&self) -> Option<Moment> {
        self.heap.first().map(|(due, _)| *due)
    }

    /// Takes the earliest alarm, if it is due.
    pub fn take_due(&mut self, now: Moment) -> Option<u32> {
        let (due, client) = *self.heap.first()?;
        if due > now {
            return None;
        }
        self.remove(0);
        Some(client)
    }

    /// Walks everything and panics when heap and places disagree. O(n): tests only.
    pub fn check(&self) {
        for (place, entry) in self.heap.iter().enumerate() {
            assert_eq!(self.places[entry.1 as usize] as usize, place, "places point home");
            if place > 0 {
                assert!(self.heap[(place - 1) / 2] <= *entry, "no parent is later than its child");
            }
        }
        let armed = self.places.iter().filter(|place| **place != NOWHERE).count();
        assert_eq!(armed, self.heap.len(), "everybody with a place is in the heap, once");
    }

    fn remove(&mut self, place: usize) {
        let (_, client) = self.heap.swap_remove(place);
        self.places[client as usize] = NOWHERE;
        if place < self.heap.len() {
            self.settle(place);
        }
    }

    /// Brings an entry that may be too early or too late for its place where it belongs.
    fn settle(&mut self, place: usize) {
        let place = self.sink(place);
        self.rise(place);
    }

    fn rise(&mut self, mut place: usize) {
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= self.heap[place] {
                break;
            }
            self.heap.swap(parent, place);
            self.note(place);
            place = parent;
        }
        self.note(place);
    }

    /// Returns where the entry came to rest.
    fn sink(&mut self, mut place: usize) -> usize {
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let mut earliest = place;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child] < self.heap[earliest] {
                    earliest = child;
                }
            }
            if earliest == place {
                self.note(place);
                return place;
            }
            self.heap.swap(earliest, place);
            self.note(place);
            place = earliest;
        }
    }

    fn note(&mut self, place: usize) {
        let client = self.heap[place].1;
        self.places[client as usize] =
            u32::try_from(place).expect("there are at most u32::MAX clients");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn timers_agree_with_a_sorted_map() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut timers = Timers::new(50);
        let mut naive: BTreeMap<u32, Moment> = BTreeMap::new();
        let mut now = Moment::ZERO;
        for step in 0..20_000 {
            let client = random.u32(0..50);
            match random.u8(0..10) {
                0..6 => {
                    let due = Moment::from_millis(now.as_millis() + random.u64(0..100));
                    timers.set(client, Some(due));
                    naive.insert(client, due);
                }
                6 => {
                    timers.set(client, None);
                    naive.remove(&client);
                }
                _ => {
                    now = Moment::from_millis(now.as_millis() + random.u64(0..5));
                    while let Some(taken) = timers.take_due(now) {
                        let due = naive.remove(&taken).expect("taken once only");
                        assert!(due <= now, "step {step}: client {taken} was taken early");
                    }
                    assert!(naive.values().all(|due| *due > now), "step {step}: one was forgotten");
                }
            }
            timers.check();
            assert_eq!(timers.next_due(), naive.values().min().copied(), "step {step}");
        }
    }

    #[test]
    fn what_is_due_comes_in_order() {
        let mut timers = Timers::new(4);
        for (client, millis) in [(0, 30), (1, 10), (2, 20), (3, 10)] {
            timers.set(client, Some(Moment::from_millis(millis)));
        }
        let mut order = Vec::new();
        while let Some(client) = timers.take_due(Moment::from_millis(20)) {
            order.push(client);
        }
        assert_eq!(order, [1, 3, 2]);
        assert_eq!(timers.next_due(), Some(Moment::from_millis(30)));
    }
}
